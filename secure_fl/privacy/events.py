# SPDX-License-Identifier: Apache-2.0
"""What a release costs, as a closed set of mechanism descriptions.

An event says which mechanism ran, with parameters relative to its sensitivity: a
noise multiplier of 1 is Gaussian noise whose standard deviation per coordinate equals
the clip norm.  Ledgers and reports carry events, never an epsilon, so that an auditor
can recompute every epsilon.  Reading one builds only the four kinds below, whatever
the bytes say.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

from .. import wire
from ..errors import ProtocolError, SecureFLError, UsageError

__all__ = [
    "Event",
    "Gaussian",
    "Mechanism",
    "NonPrivate",
    "PoissonGaussian",
    "Repeated",
    "float_from_text",
    "float_to_text",
    "from_wire",
    "to_wire",
    "without_amplification",
]

MAX_COUNT: Final = 10**6
MAX_REASON: Final = 500


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


def whole(name: str, value: int, least: int) -> int:
    """``value`` where it is an int and not below.  Raises UsageError elsewhere."""
    if type(value) is not int or value < least:
        raise UsageError(
            f"{name} is {value!r}", hint=f"it is a whole number, at least {least}"
        )
    return value


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
"""What is accounted: a single noisy release."""


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


Event = Gaussian | PoissonGaussian | Repeated | NonPrivate

_GAUSSIAN: Final = "gaussian"
_POISSON_GAUSSIAN: Final = "poisson-gaussian"
_REPEATED: Final = "repeated"
_NON_PRIVATE: Final = "non-private"


def without_amplification(event: Event) -> Event:
    """The same releases as seen by somebody who knows every sample."""
    match event:
        case PoissonGaussian():
            return Gaussian(event.noise_multiplier)
        case Repeated(PoissonGaussian(), count):
            return Repeated(Gaussian(event.event.noise_multiplier), count)
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
    else:
        return _parse_mechanism(kind, fields)
    fields.end()
    return event


def _parse_mechanism(kind: str, fields: wire.Fields) -> Mechanism:
    event: Mechanism
    if kind == _GAUSSIAN:
        event = Gaussian(float_from_text(fields.text(1, max_size=40)))
    elif kind == _POISSON_GAUSSIAN:
        event = PoissonGaussian(
            float_from_text(fields.text(1, max_size=40)),
            float_from_text(fields.text(2, max_size=40)),
        )
    else:
        raise ProtocolError(f"not a kind of release that is known here: {kind!r}")
    fields.end()
    return event
