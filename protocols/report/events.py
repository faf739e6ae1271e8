# SPDX-License-Identifier: Apache-2.0
"""Events: what a release costs, as ledgers hold it (SPEC.md, 5.2)."""

import math
import unicodedata
from dataclasses import dataclass, replace
from typing import Any

from canonical import Malformed, fields, text

SKELLAM, DISCRETE_GAUSSIAN = "skellam", "discrete-gaussian"
_LEAST, _MOST = 1e-50, 1e50
_LEAST_DEVIATION = 0.5
_MOST_TIMES = 1000000
_MOST_CLIENTS = 1000  # members of a plan: shares of a sum, and who may collude
_MOST_VALUES = 2**53
_UNPRINTED = {"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp", "Zs"}


@dataclass(frozen=True)
class Event:
    """What a release costs: Gaussian noise, perhaps sampled, `count` times over.

    `rate` is None where nothing is sampled; `noise` is None where there is none, and
    then `reason` says why.
    """

    noise: float | None
    rate: float | None = None
    count: int | None = None
    reason: str = ""

    @property
    def private(self) -> bool:
        return self.noise is not None

    def seen(self, colluding: int | None) -> "Event":
        """Itself, whoever looks: the noise is its client's own."""
        return self

    def unsampled(self) -> "Event":
        """The same, as if every record took part in each step."""
        return replace(self, rate=None)


@dataclass(frozen=True, order=True)
class Sum:
    """What a release into a sum over clients costs, in steps of the grid.

    `scale` is the variance of one share (Skellam), or its parameter (discrete
    Gaussian); `shares` are of honest clients, beside `colluding` others.
    """

    kind: str
    rate: float
    scale: float
    shares: int
    colluding: int
    l2: float
    values: int

    private = True
    reason = ""

    def seen(self, colluding: int | None) -> "Sum":
        """The event as so many colluding clients see it, or everybody else (None).

        Where more collude than its run assumed, no protection is left, and of the
        noise only the client's own share.
        """
        if colluding is not None and colluding <= self.colluding:
            return self
        return replace(self, shares=1)

    def unsampled(self) -> "Sum":
        """The same, as if every record took part in each step."""
        return replace(self, rate=1.0)

    def group(self, k: int) -> "Sum":
        """For k records, or clients, all of them in each sum."""
        return replace(self, rate=1.0, l2=k * self.l2)

    def bounded(self) -> bool:
        """Whether no number of it is above what an event may have."""
        return max(self.scale, self.l2) <= _MOST

    def checked(self) -> "Sum":
        """Itself, or `Malformed` where a number of it may not stand in an event."""
        least_scale = _LEAST if self.kind == SKELLAM else _LEAST_DEVIATION
        if not (self.bounded() and self.scale >= least_scale and self.l2 >= 1):
            raise Malformed("a number of a sum's event is out of range")
        return self


AnyEvent = Event | Sum


def decimal(value: Any, most: float = math.inf) -> float:
    """A number above zero, in the one spelling it has (SPEC.md, 2.4)."""
    try:
        number = float(text(value))
    except ValueError:
        raise Malformed("a decimal is no number") from None
    if not 0 < number <= most or math.isinf(number) or repr(number) != value:
        raise Malformed("a decimal is out of range, or not in its shortest form")
    return number


def _gaussian(value: Any) -> Event:
    kind = value.get(0) if isinstance(value, dict) else None
    if kind == "gaussian":
        _, noise = fields(value, str, str)
        return Event(decimal(noise))
    if kind == "poisson-gaussian":
        _, rate, noise = fields(value, str, str, str)
        return Event(decimal(noise), decimal(rate, 1.0))
    raise Malformed("an event of no known mechanism")


def _sum(kind: str, value: Any) -> Sum:
    _, rate, scale, shares, colluding, l2, values = fields(
        value, str, str, str, int, int, str, int
    )
    if not 1 <= shares <= _MOST_CLIENTS or not 0 <= colluding <= _MOST_CLIENTS:
        raise Malformed("a sum is of no clients, or of too many")
    if not 1 <= values <= _MOST_VALUES:
        raise Malformed("a sum has no values, or too many")
    noise = decimal(rate, 1.0), decimal(scale), shares, colluding
    return Sum(kind, *noise, decimal(l2), values).checked()


def read_event(value: Any) -> AnyEvent:
    """The event that this value of a ledger is, or `Malformed`."""
    kind = value.get(0) if isinstance(value, dict) else None
    if kind == "repeated":
        _, inner, count = fields(value, str, dict, int)
        if not 1 <= count <= _MOST_TIMES:
            raise Malformed("an event is repeated too often, or not at all")
        once = _gaussian(inner)
        return Event(once.noise, once.rate, count)
    if kind == "non-private":
        _, reason = fields(value, str, str)
        if not 1 <= len(reason) <= 500 or not reason.strip(" "):
            raise Malformed("a reason is empty, or too long")
        if any(unicodedata.category(c) in _UNPRINTED for c in reason if c != " "):
            raise Malformed("a reason is not one line of printable text")
        return Event(None, reason=reason)
    if kind in (SKELLAM, DISCRETE_GAUSSIAN):
        return _sum(kind, value)
    return _gaussian(value)
