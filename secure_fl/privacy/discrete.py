# SPDX-License-Identifier: Apache-2.0
"""Noise on the integer grid, added up from the shares of several clients.

For who computes what a sum alone gives away.  Every client rounds its clipped update
to whole grid steps and adds its share of the noise as whole steps; only the sum is
opened.  The rounding is then inside the mechanism, which makes the sensitivities
larger, and the noise is exact: there is no floating point to attack.

No plan of this package draws such noise, and no ledger holds these releases: what is
claimed by a report rests on each client's own noise alone.  Bounds here are Renyi
bounds; there is no PLD of these mechanisms to compare them with.

Sources: Agarwal et al. 2021, arXiv 2110.04995 (Skellam); Kairouz et al. 2021, arXiv
2102.06387 (distributed discrete Gaussian); Canonne et al. 2020 (discrete Gaussian).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from ..errors import UsageError
from . import accounting, renyi
from .accounting import Bound, check_delta
from .events import (
    MAX_COUNT,
    Event,
    NonPrivate,
    Repeated,
    at_least,
    positive,
    probability,
    whole,
)

__all__ = ["DiscreteGaussian", "Skellam", "renyi_bound", "rounded_sensitivity"]

# In grid steps: far beyond what any grid holds, and no square of it overflows.
EXTREME: Final = 1e50


def _representable(name: str, value: float) -> None:
    if not 1 / EXTREME <= value <= EXTREME:
        raise UsageError(
            f"{name} is {value!r}",
            hint=f"it lies between {1 / EXTREME:g} and {EXTREME:g}",
        )


def rounded_sensitivity(
    clip_norm: float, *, step: float, values: int
) -> tuple[float, float]:
    """L2 and L1 sensitivity, in grid steps, of a clipped vector that is rounded.

    Holds for rounding to the nearest step, and for rounding up or down at random where
    the chances do not depend on other records: for one and the same draw, coordinates
    that differ by t steps are rounded to whole numbers that differ by at most t + 1,
    and no mixture of draws costs more than the worst of them.  Hence sqrt(``values``)
    is added to the L2 sensitivity.  Whole numbers have an L1 norm of at most their
    squared L2 norm.
    """
    count = at_least("number of values", values, 1)
    l2 = positive("clip norm", clip_norm) / positive("step", step) + math.sqrt(count)
    return l2, min(math.sqrt(count) * l2, l2 * l2)


@final
@dataclass(frozen=True, slots=True)
class Skellam:
    """One release with Skellam noise: the difference of two Poisson variables.

    ``variance`` is that of the noise which the adversary does not know, in squared
    grid steps: shares add up, so that it is one share's variance times the number of
    honest clients.  ``l2`` and ``l1`` are the sensitivities in grid steps, as
    :func:`rounded_sensitivity` gives them; ``rate`` is the Poisson sampling rate of
    the records, 1 where every record is in.
    """

    rate: float
    variance: float
    l2: float
    l1: float

    def __post_init__(self) -> None:
        probability("sampling rate", self.rate)
        _representable("variance", positive("variance", self.variance))
        at_least("L2 sensitivity", self.l2, 1)  # whole numbers that differ at all
        at_least("L1 sensitivity", self.l1, self.l2)
        _representable("L1 sensitivity", self.l1)

    def unsampled(self, order: int) -> float:
        """Agarwal et al. 2021, corollary 3.6."""
        first = order * self.l2**2 / (2 * self.variance)
        near = ((2 * order - 1) * self.l2**2 + 6 * self.l1) / (4 * self.variance**2)
        return first + min(near, 3 * self.l1 / (2 * self.variance))


@final
@dataclass(frozen=True, slots=True)
class DiscreteGaussian:
    """One release with the sum of ``shares`` independent discrete Gaussians.

    ``deviation`` is the parameter sigma of one share in grid steps, at least one half;
    ``shares`` counts honest clients only, at most a million of them.  Their sum is not
    quite a discrete Gaussian, for which ``values``, the number of coordinates, is
    charged.  ``l2`` is the sensitivity in grid steps, ``rate`` the Poisson sampling
    rate of the records.
    """

    rate: float
    deviation: float
    shares: int
    l2: float
    values: int

    def __post_init__(self) -> None:
        probability("sampling rate", self.rate)
        _representable("deviation", at_least("deviation", self.deviation, 0.5))
        if whole("number of shares", self.shares, 1) > MAX_COUNT:
            raise UsageError(
                f"there are {self.shares} shares", hint=f"at most {MAX_COUNT} are added"
            )
        _representable("L2 sensitivity", at_least("L2 sensitivity", self.l2, 1))
        _representable("number of values", whole("number of values", self.values, 1))

    def unsampled(self, order: int) -> float:
        """Kairouz et al. 2021, proposition 14: half the concentration, times order."""
        gap = _gap(self.deviation, self.shares)
        central = self.l2 / (math.sqrt(self.shares) * self.deviation)
        squared = min(
            central**2 + gap * self.values / 2,
            (central + gap * math.sqrt(self.values)) ** 2,
        )
        return order * squared / 2


@functools.lru_cache(maxsize=64)
def _gap(deviation: float, shares: int) -> float:
    """How far the sum of discrete Gaussians is from one, in logarithms."""
    return 10 * math.fsum(
        math.exp(-2 * (math.pi * deviation) ** 2 * k / (k + 1))
        for k in range(1, shares)
    )


@functools.lru_cache(maxsize=64)
def _curve(release: Skellam | DiscreteGaussian) -> dict[int, float]:
    unsampled = functools.cache(release.unsampled)
    return {
        order: renyi.sampled(order, release.rate, unsampled) for order in renyi.ORDERS
    }


def renyi_bound(
    releases: Sequence[Event | Skellam | DiscreteGaussian], *, delta: float
) -> Bound:
    """What all ``releases`` together cost one record, added or removed, by Renyi DP.

    Takes discrete and other releases, in any mixture.  Holds against whoever sees the
    sums alone, and knows the noise of no more clients than were left out of
    ``variance`` or ``shares``.  Where every rate is 1, and sensitivities are ``k``
    times as large, it holds for k records.  Raises UsageError for a delta out of range.
    """
    delta = check_delta(delta)
    total = dict.fromkeys(renyi.ORDERS, 0.0)
    for release in releases:
        if isinstance(release, NonPrivate):
            return Bound(math.inf, delta, "RDP")
        count, inner = 1, release
        if isinstance(inner, Repeated):
            count, inner = inner.count, inner.event
        if isinstance(inner, Skellam | DiscreteGaussian):
            curve = _curve(inner)
        else:
            inner = accounting.canonical(inner)
            if inner.noise_multiplier < accounting.MIN_NOISE:
                return Bound(math.inf, delta, "RDP")
            curve = {order: renyi.of_mechanism(inner, order) for order in renyi.ORDERS}
        for order in renyi.ORDERS:
            total[order] += count * curve[order]
    return Bound(renyi.to_epsilon(total, delta) if releases else 0.0, delta, "RDP")
