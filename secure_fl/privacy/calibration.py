# SPDX-License-Identifier: Apache-2.0
"""The least noise that keeps a planned run within its epsilon."""

from __future__ import annotations

import functools
import math
from collections import Counter
from collections.abc import Callable
from typing import Final

from ..errors import PlanError
from . import accounting
from .events import MAX_COUNT, Event, PoissonGaussian, Repeated

__all__ = ["calibrate_noise", "calibrate_release"]

_LEAST: Final = -1  # powers of ten
_MOST: Final = 6
_PER_DECADE: Final = 9000  # numbers with 4 significant digits
_END: Final = (_MOST - _LEAST) * _PER_DECADE


def _noise(index: int) -> float:
    """The numbers with 4 significant digits in order, from 10^_LEAST upwards."""
    decade, place = divmod(index, _PER_DECADE)
    return float(f"{1000 + place}e{decade + _LEAST - 3}")


def _index(noise: float) -> int:
    """The index at or just below ``noise``."""
    decade = math.floor(math.log10(noise))
    place = math.floor(noise / 10.0 ** (decade - 3) + 1e-9) - 1000
    return (decade - _LEAST) * _PER_DECADE + place


def _crossing(low: int, high: int, excess: Callable[[int], float]) -> int:
    """Where a straight line in the logarithms meets the target, rounded up."""
    above, below = excess(low), excess(high)
    if math.isinf(above):  # nothing known there yet: try as if epsilon were 1/noise
        return _index(_noise(high) * math.exp(max(below, -1.0)))
    if math.isinf(below):
        return (low + high) // 2
    start, end = math.log(_noise(low)), math.log(_noise(high))
    return _index(math.exp(start + (end - start) * above / (above - below))) + 1


# Less noise than this changes no model, only the epsilon.
_FIRST: Final = _index(0.2)


@functools.lru_cache(maxsize=256)
def calibrate_noise(*, epsilon: float, delta: float, rate: float, steps: int) -> float:
    """The smallest noise multiplier, to 4 digits and at least 0.2, that suffices.

    Guarantees that the accounted epsilon of ``steps`` releases, Poisson-sampled at
    ``rate``, is at most ``epsilon`` at ``delta``, with a billionth to spare for
    another machine's rounding (at deltas of 1e-8 and below that may be too little, and
    a plan then says so: state the noise).  Takes one to a few seconds.  Raises
    PlanError where an argument is out of range or no noise suffices.
    """
    if not 0 < rate <= 1:
        raise _out_of_range("privacy.sampling_rate", rate, "above 0 and at most 1")
    if not 1 <= steps <= MAX_COUNT:
        raise _out_of_range("privacy.local_steps", steps, f"from 1 to {MAX_COUNT}")
    return _least_noise(
        lambda noise: Counter([Repeated(PoissonGaussian(rate, noise), steps)]),
        f"{steps} steps",
        epsilon=epsilon,
        delta=delta,
    )


def calibrate_release(
    release: Callable[[float], Event], *, count: int, epsilon: float, delta: float
) -> float:
    """As :func:`calibrate_noise`, for ``count`` equal releases of any kind.

    ``release`` gives the event of one release at any noise multiplier from 0.2 to 10^6.
    Caller sees to it that more noise costs less, but for small steps where a grid
    changes: what is returned suffices in any case.
    """
    if not 1 <= count <= MAX_COUNT:
        raise _out_of_range("rounds.count", count, f"from 1 to {MAX_COUNT}")
    return _least_noise(
        lambda noise: Counter({release(noise): count}),
        f"{count} releases",
        epsilon=epsilon,
        delta=delta,
    )


def _least_noise(
    events: Callable[[float], Counter[Event]],
    what: str,
    *,
    epsilon: float,
    delta: float,
) -> float:
    """The smallest noise at which ``events`` cost at most ``epsilon``."""
    if not (epsilon > 0 and math.isfinite(epsilon)):
        raise _out_of_range("privacy.epsilon", epsilon, "above 0 and finite")
    least = accounting.MIN_DELTA
    if not least <= delta < 1:
        raise _out_of_range("privacy.delta", delta, f"at least {least:g} and below 1")
    target = epsilon * (1 - 1e-9)

    @functools.cache
    def excess(index: int) -> float:
        """Log of the spent epsilon over the target: above 0 where noise is short."""
        if index < _FIRST:
            return math.inf
        spent = accounting.epsilon(events(_noise(index)), delta=delta).value
        return math.log(spent / target) if spent > 0 else -math.inf

    def fits_by_rdp(index: int) -> bool:
        return accounting.rdp_epsilon(events(_noise(index)), delta=delta) <= target

    # RDP costs a twentieth and is an upper bound as well: a place to start from.
    low, high = _FIRST - 1, _END
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if fits_by_rdp(middle) else (middle, high)
    low = _FIRST - 1
    while excess(high) > 0:
        if high == _END:
            raise PlanError(
                f"no noise brings {what} to {epsilon:g} at delta {delta:g}",
                key="privacy.epsilon",
                hint="allow a larger epsilon or delta, or plan fewer steps",
            )
        low, high = high, min(high + 100, _END)
    tries = 0
    while high - low > 1:
        tries += 1
        guess = _crossing(low, high, excess) if tries <= 20 else (low + high) // 2
        guess = min(max(guess, low + 1), high - 1)
        low, high = (low, guess) if excess(guess) <= 0 else (guess, high)
    return _noise(high)


def _out_of_range(key: str, value: float, allowed: str) -> PlanError:
    return PlanError(f"{value!r} is out of range", key=key, hint=f"use one {allowed}")
