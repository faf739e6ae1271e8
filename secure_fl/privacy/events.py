# SPDX-License-Identifier: Apache-2.0
"""What a release costs, as a closed set of mechanism descriptions.

An event says which mechanism ran, with parameters relative to its sensitivity: a
noise multiplier of 1 is Gaussian noise whose standard deviation per coordinate equals
the clip norm.  Ledgers and reports carry events, never an epsilon, so that an auditor
can recompute every epsilon.  Reading one builds only the six kinds below, whatever
the bytes say.

Noise on the integer grid is described in grid steps instead, with the sensitivities
that rounding makes larger: see :mod:`.discrete` for what it costs.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Final, final

from .. import wire
from ..errors import ProtocolError, SecureFLError, UsageError

__all__ = [
    "EXTREME",
    "Discrete",
    "DiscreteGaussian",
    "Event",
    "Gaussian",
    "Mechanism",
    "NonPrivate",
    "PoissonGaussian",
    "Repeated",
    "Skellam",
    "float_from_text",
    "float_to_text",
    "from_wire",
    "seen",
    "to_wire",
    "without_amplification",
]

MAX_COUNT: Final = 10**6
MAX_CLIENTS: Final = 1000  # of a plan
MAX_REASON: Final = 500
# In grid steps: far beyond what any grid holds, and no power of it that is needed
# overflows or vanishes.
EXTREME: Final = 1e50
MAX_VALUES: Final = 2**53


def positive(name: str, value: float) -> float:
    """``value`` as a plain float: numpy's would print, and so encode, differently."""
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and number > 0):
        raise UsageError(
            f"{name} is {value!r}", hint=f"{name} is a positive, finite number"
        )
    return number


def at_least(name: str, value: float, least: float) -> float:
    """``value`` where it is finite and not below.  Raises UsageError elsewhere."""
    number = positive(name, value)
    if number < least:
        raise UsageError(f"{name} is {value!r}", hint=f"{name} is at least {least:g}")
    return number


def whole(name: str, value: int, least: int, most: int | None = None) -> int:
    """``value`` where it is an int and in range.  Raises UsageError elsewhere."""
    if type(value) is not int or value < least:
        raise UsageError(
            f"{name} is {value!r}", hint=f"it is a whole number, at least {least}"
        )
    if most is not None and value > most:
        raise UsageError(f"{name} is above {most}", hint=f"it is at most {most}")
    return value


def in_steps(name: str, value: float, least: float) -> float:
    """``value``, at least ``least`` and no extreme.  Raises UsageError elsewhere."""
    number = at_least(name, value, least)
    if number > EXTREME:
        raise UsageError(f"{name} is {value!r}", hint=f"it is at most {EXTREME:g}")
    return number


def probability(name: str, value: float) -> float:
    """``value`` where it lies in (0, 1].  Raises UsageError elsewhere."""
    number = positive(name, value)
    if number > 1:
        raise UsageError(f"{name} is {number!r}", hint="it is a probability, at most 1")
    return number


@final
@dataclass(frozen=True, slots=True)
class Gaussian:
    """One Gaussian release over all records: every record is in it.

    ``noise_multiplier`` is noise standard deviation over L2 sensitivity.  Raises
    UsageError where it is not positive and finite.
    """

    noise_multiplier: float

    def __post_init__(self) -> None:
        number = positive("noise multiplier", self.noise_multiplier)
        object.__setattr__(self, "noise_multiplier", number)


@final
@dataclass(frozen=True, slots=True)
class PoissonGaussian:
    """One Gaussian release over a fresh Poisson sample of the records.

    Each record is in the sample independently with probability ``rate``, in (0, 1],
    and nobody but the sampler learns which; a shuffled or fixed-size batch is not
    this event.  Raises UsageError for parameters out of range.
    """

    rate: float
    noise_multiplier: float

    def __post_init__(self) -> None:
        rate = probability("sampling rate", self.rate)
        number = positive("noise multiplier", self.noise_multiplier)
        object.__setattr__(self, "rate", rate)
        object.__setattr__(self, "noise_multiplier", number)


Mechanism = Gaussian | PoissonGaussian
"""A single release with Gaussian noise."""


@final
@dataclass(frozen=True, slots=True)
class Repeated:
    """``count`` releases of one mechanism, each with fresh noise and a fresh sample."""

    event: Mechanism
    count: int

    def __post_init__(self) -> None:
        if not isinstance(self.event, Gaussian | PoissonGaussian):
            raise UsageError(
                "only a Gaussian or Poisson-sampled Gaussian release is repeated",
                hint="list other events one by one",
            )
        if type(self.count) is not int or not 1 <= self.count <= MAX_COUNT:
            raise UsageError(
                f"a release is repeated {self.count!r} times",
                hint=f"the count is a whole number from 1 to {MAX_COUNT}",
            )


@final
@dataclass(frozen=True, slots=True)
class NonPrivate:
    """A release without any guarantee: epsilon is infinite.  ``reason`` says why."""

    reason: str

    def __post_init__(self) -> None:
        if not isinstance(self.reason, str) or not self.reason.strip():
            raise UsageError(
                "a release without protection has no reason",
                hint="say in a few words why it is not private; the report shows it",
            )
        if len(self.reason) > MAX_REASON:
            raise UsageError(
                f"the reason has {len(self.reason)} characters",
                hint=f"use at most {MAX_REASON}",
            )
        if not self.reason.isprintable():  # also what UTF-8 cannot hold
            raise UsageError(
                "the reason holds line breaks or control characters",
                hint="write it as one line of text",
            )


@final
@dataclass(frozen=True, slots=True)
class Skellam:
    """One opened sum with Skellam noise, the difference of two Poisson variables.

    ``variance`` is that of one client's share, in squared grid steps, and ``shares``
    how many clients' noise the adversary does not know, where at most ``colluding``
    clients are on its side: their shares add up.  ``l2`` is the sensitivity in grid
    steps, rounding included (:func:`.discrete.rounded_sensitivity`), and ``values`` the
    number of coordinates; ``rate`` is the Poisson sampling rate of the records, 1 where
    every record is in.  Raises UsageError for parameters out of range.
    """

    rate: float
    variance: float
    shares: int
    colluding: int
    l2: float
    values: int

    def __post_init__(self) -> None:
        _check_sum(self)
        number = in_steps("variance", self.variance, 1 / EXTREME)
        object.__setattr__(self, "variance", number)

    @property
    def l1(self) -> float:
        """L1 sensitivity in grid steps.

        Whole numbers have an L1 norm of at most their squared L2 norm.
        """
        return min(math.sqrt(self.values) * self.l2, self.l2 * self.l2)


@final
@dataclass(frozen=True, slots=True)
class DiscreteGaussian:
    """One opened sum with the sum of ``shares`` independent discrete Gaussians.

    ``deviation`` is the parameter sigma of one client's share in grid steps, at least
    one half, and ``shares`` how many clients' noise the adversary does not know, where
    at most ``colluding`` clients are on its side.  Their sum is not quite a discrete
    Gaussian, for which ``values``, the number of coordinates, is charged.  ``l2`` is
    the sensitivity in grid steps, rounding included, and ``rate`` the Poisson sampling
    rate of the records.  Raises UsageError for parameters out of range.
    """

    rate: float
    deviation: float
    shares: int
    colluding: int
    l2: float
    values: int

    def __post_init__(self) -> None:
        _check_sum(self)
        number = in_steps("deviation", self.deviation, 0.5)
        object.__setattr__(self, "deviation", number)


Discrete = Skellam | DiscreteGaussian
"""A single release with noise on the integer grid, in shares of several clients."""


def _check_sum(release: Discrete) -> None:
    whole("number of shares", release.shares, 1, MAX_CLIENTS)
    whole("number of colluding clients", release.colluding, 0, MAX_CLIENTS)
    whole("number of values", release.values, 1, MAX_VALUES)
    rate = probability("sampling rate", release.rate)
    l2 = in_steps("L2 sensitivity", release.l2, 1)  # whole numbers that differ at all
    object.__setattr__(release, "rate", rate)
    object.__setattr__(release, "l2", l2)


Event = Mechanism | Repeated | NonPrivate | Discrete

_GAUSSIAN: Final = "gaussian"
_POISSON_GAUSSIAN: Final = "poisson-gaussian"
_REPEATED: Final = "repeated"
_NON_PRIVATE: Final = "non-private"
_SKELLAM: Final = "skellam"
_DISCRETE_GAUSSIAN: Final = "discrete-gaussian"


def without_amplification(event: Event) -> Event:
    """The same releases as seen by somebody who knows every sample."""
    match event:
        case PoissonGaussian():
            return Gaussian(event.noise_multiplier)
        case Repeated(PoissonGaussian(), count):
            return Repeated(Gaussian(event.event.noise_multiplier), count)
        case Skellam() | DiscreteGaussian():
            return replace(event, rate=1.0)
        case _:
            return event


def seen(event: Event, colluding: int | None) -> Event:
    """The same release as seen by so many clients together, or by everybody else: None.

    Where more of them collude than its plan assumed, that run's protection promises
    nothing (SPEC masking, section 10), and of a sum's noise only the client's own share
    is left.  Noise that a client adds in full is its own already.
    """
    match event:
        case Skellam() | DiscreteGaussian():
            if colluding is None or colluding > event.colluding:
                return replace(event, shares=1)
            return event
        case _:
            return event


# -- the byte form ---------------------------------------------------------------------


def float_to_text(value: float) -> str:
    """The shortest decimal that reads back as ``value``: no floats on the wire."""
    return repr(float(value))


def float_from_text(text: str) -> float:
    """The inverse of :func:`float_to_text`, for positive finite numbers.

    Raises ProtocolError for another spelling of the same number, so that every event
    has one byte form.
    """
    try:
        value = float(text)
    except ValueError:
        raise ProtocolError(f"not a number: {text[:30]!r}") from None
    if not (math.isfinite(value) and value > 0):
        raise ProtocolError(f"not a positive, finite number: {text[:30]!r}")
    if repr(value) != text:
        raise ProtocolError(f"not the shortest form of its number: {text[:30]!r}")
    return value


def to_wire(event: Event) -> wire.Value:
    """A map with integer keys: 0 the kind's name, then the parameters in order."""
    match event:
        case Gaussian(noise):
            return {0: _GAUSSIAN, 1: float_to_text(noise)}
        case PoissonGaussian(rate, noise):
            return {
                0: _POISSON_GAUSSIAN,
                1: float_to_text(rate),
                2: float_to_text(noise),
            }
        case Repeated(inner, count):
            return {0: _REPEATED, 1: to_wire(inner), 2: count}
        case NonPrivate(reason):
            return {0: _NON_PRIVATE, 1: reason}
        case Skellam():
            return _sum_to_wire(_SKELLAM, event.variance, event)
        case DiscreteGaussian():
            return _sum_to_wire(_DISCRETE_GAUSSIAN, event.deviation, event)


def _sum_to_wire(kind: str, scale: float, event: Discrete) -> wire.Value:
    return {
        0: kind,
        1: float_to_text(event.rate),
        2: float_to_text(scale),
        3: event.shares,
        4: event.colluding,
        5: float_to_text(event.l2),
        6: event.values,
    }


def from_wire(value: wire.Value) -> Event:
    """The inverse of :func:`to_wire`.  Raises ProtocolError for anything else."""
    try:
        return _parse(wire.Fields(value))
    except ProtocolError:
        raise
    except SecureFLError as error:  # a parameter out of range: here, a peer's fault
        raise ProtocolError(f"not an event: {error}") from None


def _parse(fields: wire.Fields) -> Event:
    kind = fields.text(0, max_size=40)
    event: Event
    if kind == _REPEATED:
        inner = fields.fields(1)
        mechanism = _parse_mechanism(inner.text(0, max_size=40), inner)
        event = Repeated(mechanism, fields.integer(2, low=1, high=MAX_COUNT))
    elif kind == _NON_PRIVATE:
        event = NonPrivate(fields.text(1, max_size=MAX_REASON))
    elif kind == _SKELLAM:
        event = Skellam(
            rate=_number(fields, 1),
            variance=_number(fields, 2),
            shares=fields.integer(3),
            colluding=fields.integer(4),
            l2=_number(fields, 5),
            values=fields.integer(6),
        )
    elif kind == _DISCRETE_GAUSSIAN:
        event = DiscreteGaussian(
            rate=_number(fields, 1),
            deviation=_number(fields, 2),
            shares=fields.integer(3),
            colluding=fields.integer(4),
            l2=_number(fields, 5),
            values=fields.integer(6),
        )
    else:
        return _parse_mechanism(kind, fields)
    fields.end()
    return event


def _parse_mechanism(kind: str, fields: wire.Fields) -> Mechanism:
    event: Mechanism
    if kind == _GAUSSIAN:
        event = Gaussian(_number(fields, 1))
    elif kind == _POISSON_GAUSSIAN:
        event = PoissonGaussian(_number(fields, 1), _number(fields, 2))
    else:
        raise ProtocolError(f"not a kind of release that is known here: {kind!r}")
    fields.end()
    return event


def _number(fields: wire.Fields, key: int) -> float:
    return float_from_text(fields.text(key, max_size=40))
