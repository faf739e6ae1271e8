# SPDX-License-Identifier: Apache-2.0
"""Sums of Skellam noise, accounted as Gaussian noise that is rounded.

A vector of whole numbers with Gaussian noise that is rounded to whole numbers costs
what it costs without the rounding: whole numbers pass through rounding unchanged.  Of
Skellam noise with the same variance W in each of n coordinates, W at least
``LEAST_VARIANCE``, the relative entropy one way or the other is at most n / (32 W^2),
whatever is sent.  Relative entropies of releases add up, also where each release
depends on those before it, and by Pinsker's inequality all of them together are within

    t = sqrt(sum of n / W^2) / 8

in total variation of what rounded Gaussian noise would have given: with the record and
without it.  So, with delta(e) of the Gaussian releases, no event is more likely than by

    delta(e) + (1 + exp(e)) * t.

Other releases, and what sampling and rounding draw, are the same on both sides and cost
no entropy.  Proof and measurements: docs/decisions/0021-skellam-as-gaussian.md.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final, final

from .events import Discrete, DiscreteGaussian, Mechanism, PoissonGaussian, Skellam

__all__ = ["LEAST_VARIANCE", "Nearly", "nearly"]

# Of a sum's noise, in squared grid steps: the proof is for at least as much.
LEAST_VARIANCE: Final = 1e4


@final
@dataclass(frozen=True)
class Nearly:
    """Gaussian releases, and how far sums are from them in total variation at most."""

    releases: Counter[Mechanism]
    distance: float

    def added(self, epsilon: float) -> float:
        """What the difference may add to a delta at ``epsilon``."""
        return (1 + math.exp(min(epsilon, 700.0))) * self.distance


def nearly(releases: Iterable[tuple[Mechanism | Discrete, int]]) -> Nearly | None:
    """Every mechanism as often as it says, Skellam noise as Gaussian noise.

    None where a sum has other noise, or too little.
    """
    found: Counter[Mechanism] = Counter()
    parts = []
    for mechanism, count in releases:
        match mechanism:
            case Skellam(rate=rate, l2=l2):
                variance = mechanism.shares * mechanism.variance
                if variance < LEAST_VARIANCE:
                    return None
                found[PoissonGaussian(rate, math.sqrt(variance) / l2)] += count
                parts.append(count * (mechanism.values / variance / variance))
            case DiscreteGaussian():
                return None
            case _:
                found[mechanism] += count
    return Nearly(found, math.sqrt(math.fsum(parts)) / 8)
