# SPDX-License-Identifier: Apache-2.0
"""Renyi DP at integer orders: a second implementation, and the way to epsilon.

dp-accounting has its own code for the same formulas; where the two differ,
:mod:`.accounting` refuses to give an epsilon.  The discrete mechanisms of
:mod:`.discrete` have no other accountant than this.

All moments are written as 1 plus something that is not negative, so that small
sampling rates lose no digits and large orders do not overflow.

Sources: Mironov 2017, Mironov et al. 2019 (sampled Gaussian), Zhu and Wang 2019
(Poisson sampling of any mechanism), Canonne et al. 2020 (conversion).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping
from typing import Final

from .events import Gaussian, Mechanism

__all__ = [
    "ORDERS",
    "gaussian",
    "of_mechanism",
    "sampled",
    "sampled_gaussian",
    "to_epsilon",
]

ORDERS: Final = (*range(2, 65), 80, 96, 128, 192, 256, 512)


def gaussian(order: int, noise_multiplier: float) -> float:
    """Renyi divergence of one Gaussian release."""
    return order / (2 * noise_multiplier**2)


def _moment(order: int, rate: float, log_excess: Callable[[int], float]) -> float:
    """Log of 1 + sum over j of Binomial(order, rate)(j) * exp(log_excess(j))."""
    terms = []
    for j in range(2, order + 1):
        choose = (
            math.lgamma(order + 1) - math.lgamma(j + 1) - math.lgamma(order - j + 1)
        )
        weight = choose + j * math.log(rate) + (order - j) * math.log1p(-rate)
        terms.append(weight + log_excess(j))
    most = max(terms)
    log_sum = most + math.log(math.fsum(math.exp(term - most) for term in terms))
    return max(log_sum, 0.0) + math.log1p(math.exp(-abs(log_sum)))


def sampled_gaussian(order: int, rate: float, noise_multiplier: float) -> float:
    """Renyi divergence of one Gaussian release over a Poisson sample (exact).

    Holds for a record added and for one removed (Mironov et al. 2019, theorem 4 and
    section 3.3).
    """
    if rate == 1:
        return gaussian(order, noise_multiplier)

    def log_excess(j: int) -> float:  # of exp((j^2 - j) / (2 z^2)) over 1
        exponent = j * (j - 1) / (2 * noise_multiplier**2)
        return exponent + math.log(-math.expm1(-exponent))

    return _moment(order, rate, log_excess) / (order - 1)


def sampled(order: int, rate: float, curve: Callable[[int], float]) -> float:
    """Bound for any mechanism over a Poisson sample (Zhu and Wang 2019, theorem 5).

    ``curve`` gives the mechanism's own Renyi divergence at every integer order from 2
    to ``order``, for a record added or removed.  Looser than what is known of the
    sampled Gaussian, by a factor of 3 in the moments from the third on.
    """
    if rate == 1:
        return curve(order)

    def log_excess(j: int) -> float:
        exponent = (j - 1) * curve(j)
        if j == 2:
            return exponent + math.log(-math.expm1(-exponent))
        return exponent + math.log(3 - math.exp(-exponent))

    return _moment(order, rate, log_excess) / (order - 1)


@functools.lru_cache(maxsize=65536)
def of_mechanism(mechanism: Mechanism, order: int) -> float:
    """Renyi divergence of one release."""
    if isinstance(mechanism, Gaussian):
        return gaussian(order, mechanism.noise_multiplier)
    return sampled_gaussian(order, mechanism.rate, mechanism.noise_multiplier)


def to_epsilon(curve: Mapping[int, float], delta: float) -> float:
    """The best epsilon over all orders of ``curve`` (Canonne et al. 2020, prop. 12)."""
    return max(
        0.0,
        min(
            divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1)
            for order, divergence in curve.items()
        ),
    )
