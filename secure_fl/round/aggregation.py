# SPDX-License-Identifier: Apache-2.0
"""The aggregator's side of one attempt."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from .. import ckks
from ..descent import read_sum
from ..errors import FaultyClient, FaultyKeyHolder, ProtocolError, UsageError
from ..fixedpoint import Encoding, Word
from ..identity import Identity
from ..model import GlobalModel
from ..plan import Plan, Session
from ..randomness import RandomSource
from ..transcript import KEY_HOLDER
from .collecting import (
    Collecting,
    KeyholderCollecting,
    MaskingCollecting,
    OneTimeCollecting,
    PlainCollecting,
    SumOfWords,
)

__all__ = ["Aggregation", "OpenedUpdate"]


@final
@dataclass(frozen=True)
class OpenedUpdate:
    """What one attempt opened: the weighted sum of the survivors' updates.

    ``words`` are the sum as it was opened, and ``total`` what they stand for: float64,
    exact multiples of the step, one per value of the model (of the rotated one in
    distributed mode).  ``clipped`` counts the coordinates that were clipped, over all
    survivors, where the vectors tell.
    """

    session: Session
    survivors: tuple[str, ...]
    total_weight: int
    words: NDArray[Word] = field(repr=False)
    total: NDArray[np.float64] = field(repr=False)
    words_hash: bytes
    clipped: int


@final
class Aggregation:
    """The aggregator's side of one attempt."""

    def __init__(
        self,
        session: Session,
        collecting: Collecting,
        *,
        encoding: Encoding,
        weights: Mapping[str, int],
        counted: bool = True,
        seed: bytes = b"",
    ) -> None:
        """``counted``: whether a vector's last word counts its clipped coordinates.
        ``seed``: of the aggregator's own key, where it is to be kept."""
        self.session = session
        self.seed = seed
        self._collecting = collecting
        self._encoding = encoding
        self._weights = weights
        self._counted = counted
        self.result: OpenedUpdate | None = None
        self.outgoing: dict[str, bytes] = collecting.first()
        self._lock = threading.RLock()
        self._last: dict[str, bytes] = {}
        self._over = False

    @classmethod
    def for_plan(
        cls,
        plan: Plan,
        *,
        round_index: int,
        attempt: int,
        model: GlobalModel,
        aggregator: Identity,
        random: RandomSource,
    ) -> Aggregation:
        """The attempt as the plan has it.  ``aggregator``: who the plan says that is.

        Raises UsageError where it is not, and where a package that the protection needs
        is not installed.
        """
        session = plan.session(
            round_index=round_index,
            attempt=attempt,
            model_hash=model.digest(),
            size=model.size,
        )
        collecting: Collecting
        seed = b""
        if isinstance(session, ckks.Session):
            ckks.require_backend()
            if plan.has_keyholder:
                if aggregator.public_key != plan.aggregator_key:
                    raise UsageError(
                        "the plan names another aggregator than this key's"
                    )
                seed = random.bytes(32)
                collecting = KeyholderCollecting(
                    session, aggregator, holder=plan.keyholder_key, random=seed
                )
            else:
                collecting = OneTimeCollecting(session, plan.key_session(session))
        elif plan.protection.kind == "masking":
            collecting = MaskingCollecting(session)
        else:
            collecting = PlainCollecting(session)
        return cls(
            session,
            collecting,
            encoding=plan.encoding,
            weights={m.name: m.weight for m in plan.parties.members},
            counted=not plan.distributed,
            seed=seed if plan.protection.keep_vectors else b"",
        )

    @property
    def step(self) -> str:
        """What is collected: keys, shares, vectors, consistency, unmask or release."""
        return self._collecting.step

    @property
    def omission(self) -> tuple[bytes, ...]:
        """What frees the updates that no sum of this attempt can hold, or nothing."""
        return self._collecting.proof

    def receive(self, sender: str, data: bytes) -> bool:
        """Take one message of ``sender``, whom the engine has authenticated.

        Returns whether it counts: one of an earlier step, of another attempt or after
        the end, or the last one once more, is let go: a slow network is nobody's fault.
        Raises FaultyClient or FaultyKeyHolder naming the sender of a wrong one; the
        step goes on for the others.
        """
        index = None if sender == KEY_HOLDER else self.session.roster.index(sender)
        try:
            with self._lock:
                if self._over or data == self._last.get(sender):
                    return False
                if not self._collecting.accept(index, data):
                    return False
                self._last[sender] = data
                return True
        except (FaultyClient, FaultyKeyHolder):
            raise
        except ProtocolError as error:  # it did not parse: its sender is to blame
            if index is None:
                raise FaultyKeyHolder(str(error)) from None
            raise FaultyClient(sender, str(error)) from None

    def advance(self) -> None:
        """Close the step: sets ``outgoing`` for the next, or ``result`` after the last.

        Raises TooFewClients; nothing was opened.
        """
        with self._lock:
            if self._over:
                raise UsageError("the attempt is over")
            try:
                outcome = self._collecting.close()
            except ProtocolError:
                self._over = True
                raise
            if isinstance(outcome, SumOfWords):
                self._open(outcome)
                self._over = True
                self.outgoing = {}
            else:
                self.outgoing = outcome

    def _open(self, opened: SumOfWords) -> None:
        names = tuple(self.session.roster.name(i) for i in opened.clients)
        total, clipped = read_sum(
            self._encoding, opened.words, clients=len(names), counted=self._counted
        )
        self.result = OpenedUpdate(
            self.session,
            names,
            sum(self._weights[n] for n in names),
            opened.words,
            total,
            hashlib.sha256(opened.words.tobytes()).digest(),
            clipped,
        )
