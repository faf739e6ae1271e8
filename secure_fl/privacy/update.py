# SPDX-License-Identifier: Apache-2.0
"""The claim travels with the value: what may leave a client, and under which charge."""

from __future__ import annotations

from typing import Final, NoReturn, final

import numpy as np
from numpy.typing import NDArray

from ..errors import UsageError
from .book import Reservation
from .events import Event

__all__ = ["PrivateUpdate", "Unprotected", "private_update", "unprotected"]

_MADE_HERE: Final = object()


def _frozen(vector: NDArray[np.floating]) -> NDArray[np.float64]:
    out = np.array(vector, dtype=np.float64)
    if out.ndim != 1 or not np.isfinite(out).all():
        raise UsageError(
            "an update is one flat vector of finite numbers",
            hint="a non-finite update ends the round for this client, charged",
        )
    out.setflags(write=False)
    return out


@final
class PrivateUpdate:
    """A noised update and the ledger entry it was charged to.

    Only ``private.update()`` of a round makes one.  The vector (float64, one
    dimension, read-only) does not print, and the object is not copied or pickled: it
    is sent in one context.
    """

    __slots__ = ("reservation", "vector")

    def __init__(
        self, token: object, vector: NDArray[np.float64], reservation: Reservation
    ) -> None:
        if token is not _MADE_HERE:
            raise UsageError(
                "a PrivateUpdate is not made by hand",
                hint="return private.update(), or unprotected(x, reason=...)",
            )
        self.vector = vector
        self.reservation = reservation

    @property
    def event(self) -> Event:
        """What it cost."""
        return self.reservation.event

    def __repr__(self) -> str:
        return f"<PrivateUpdate of {self.vector.size} values>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("updates are not copied or pickled")


def private_update(
    vector: NDArray[np.floating], reservation: Reservation
) -> PrivateUpdate:
    """For trainers of this package: ``vector`` is the output of the reserved event.

    Caller must have drawn its noise after the reservation, and from no other source.
    Raises UsageError for what is not a flat, finite vector.
    """
    return PrivateUpdate(_MADE_HERE, _frozen(vector), reservation)


@final
class Unprotected:
    """A vector that leaves without a claim: epsilon is infinity, and the report says
    why."""

    __slots__ = ("reason", "vector")

    def __init__(self, vector: NDArray[np.float64], reason: str) -> None:
        self.vector = vector
        self.reason = reason

    def __repr__(self) -> str:
        return f"<Unprotected {self.vector.size} values: {self.reason}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("updates are not copied or pickled")


def unprotected(x: NDArray[np.floating], *, reason: str) -> Unprotected:
    """The escape hatch: ``x`` goes out as it is, and the report says infinity.

    reason
        a sentence for the auditor; it stands in the ledger and in the report

    Raises UsageError without a reason, and for what is not a flat, finite vector.
    """
    if not isinstance(reason, str) or not reason.strip():
        raise UsageError(
            "an unprotected update needs a reason", hint="it is for the auditor"
        )
    return Unprotected(_frozen(x), reason.strip()[:200])
