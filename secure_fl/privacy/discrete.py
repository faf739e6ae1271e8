# SPDX-License-Identifier: Apache-2.0
"""What noise on the integer grid costs, added up from the shares of several clients.

For who computes what a sum alone gives away.  Every client rounds its clipped vector
to whole grid steps and adds its share of the noise as whole steps; only the sum is
opened.  The rounding is then inside the mechanism, which makes the sensitivities
larger, and the noise is exact: there is no floating point to attack.

Bounds here are Renyi bounds, before any gain from sampling: of both noises the
privacy loss distribution of a whole vector depends on the vector, and no worst one is
known.  Sums of Skellam noises are Skellam noise, which much noise brings so near to
Gaussian noise that it is also accounted as such (:mod:`.nearly`); sums of discrete
Gaussians are not quite discrete Gaussian.

Sources: Agarwal et al. 2021, arXiv 2110.04995 (Skellam); Kairouz et al. 2021, arXiv
2102.06387 (distributed discrete Gaussian, conditional rounding); Canonne et al. 2020
(discrete Gaussian).
"""

from __future__ import annotations

import functools
import math
from typing import Final

from .events import Discrete, DiscreteGaussian, Skellam, at_least, positive

__all__ = ["conditional_sensitivity", "rounded_sensitivity", "unsampled"]

# Log of 1 / beta, where beta is the most that the chance of rounding anew can be.
LOG_BETA: Final = 0.5


def rounded_sensitivity(clip_norm: float, *, step: float, values: int) -> float:
    """L2 sensitivity, in grid steps, of a sum of clipped vectors, rounded.

    Holds for rounding to the nearest step, and for rounding up or down at random where
    the chances do not depend on other records: for one and the same draw, coordinates
    that differ by t steps are rounded to whole numbers that differ by at most t + 1,
    and no mixture of draws costs more than the worst of them.  Hence sqrt(``values``)
    is added to the L2 sensitivity.  ``clip_norm`` and ``step`` have one unit; caller
    adds to ``clip_norm`` what floating point may have left above it.  Raises UsageError
    where an argument is not positive.
    """
    count = at_least("number of values", values, 1)
    return _in_steps(clip_norm, step) + math.sqrt(count)


def conditional_sensitivity(clip_norm: float, *, step: float, values: int) -> float:
    """L2 norm, in grid steps, that a clipped vector is rounded to at most.

    The sensitivity where neighbours differ by one client's whole vector, which the
    other one replaces by zero.  Caller rounds every coordinate up or down at random,
    without bias, and draws for the whole vector again until its L2 norm is at most the
    one returned; a clipped vector is within with a probability of at least
    1 - exp(-1/2), so that this ends (Kairouz et al. 2021, section 4).  Otherwise as
    :func:`rounded_sensitivity`.
    """
    count = at_least("number of values", values, 1)
    norm, half = _in_steps(clip_norm, step), math.sqrt(count) / 2
    # Products, not powers, which differ between C libraries in the last digit: the
    # outcome stands in events, and events are compared for equality.
    likely = norm * norm + half * half + math.sqrt(2 * LOG_BETA) * (norm + half)
    whole = norm + 2 * half
    return math.sqrt(min(likely, whole * whole))


def _in_steps(clip_norm: float, step: float) -> float:
    return positive("clip norm", clip_norm) / positive("step", step)


def unsampled(release: Discrete, order: int) -> float:
    """Bound on the Renyi divergence of ``order`` where every record is in the sum."""
    match release:
        case Skellam():
            return _skellam(release, order)
        case DiscreteGaussian():
            return _discrete_gaussian(release, order)


def _skellam(release: Skellam, order: int) -> float:
    """Agarwal et al. 2021, corollary 3.6."""
    variance = release.shares * release.variance
    first = order * release.l2**2 / (2 * variance)
    near = ((2 * order - 1) * release.l2**2 + 6 * release.l1) / (4 * variance**2)
    return first + min(near, 3 * release.l1 / (2 * variance))


def _discrete_gaussian(release: DiscreteGaussian, order: int) -> float:
    """Kairouz et al. 2021: the larger of proposition 14 and of theorem 1's first term.

    They differ in what they add for a sum that is not quite discrete Gaussian, which is
    below 1e-100 from a deviation of 5 on.
    """
    gap = _gap(release.deviation, release.shares)
    central = release.l2 / (math.sqrt(release.shares) * release.deviation)
    return order * central**2 / 2 + max(1.0, order / 4) * gap * release.values


@functools.lru_cache(maxsize=64)
def _gap(deviation: float, shares: int) -> float:
    """How far the sum of discrete Gaussians is from one, in logarithms."""
    return 10 * math.fsum(
        math.exp(-2 * (math.pi * deviation) ** 2 * k / (k + 1))
        for k in range(1, shares)
    )
