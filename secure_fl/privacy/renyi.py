# SPDX-License-Identifier: Apache-2.0
"""Renyi DP at integer orders: a second implementation, and the way to epsilon.

dp-accounting has its own code for the Gaussian formulas; where the two differ,
:mod:`.accounting` refuses to give an epsilon.  For the noises of :mod:`.discrete`
this is the only accountant.

Sampling.  Let P be the distribution of symmetric noise, Q = P moved by a vector s, and
M = (1 - q) P + q Q: what is seen without the record, and with a record that is in the
sample with probability q.  With a = order > 1, both directions have the one bound

    exp((a - 1) D_a(P || M)) <= exp((a - 1) D_a(M || P))
        = sum over j of Binomial(a, q)(j) exp((j - 1) D_j(Q || P)).

The equality multiplies out E_P[(M / P)^a].  The inequality is theorem 5 of Mironov et
al. 2019, and for sums as for integrals follows from pairing x with its mirror s - x,
where P and Q change places.  Say P = p <= Q = r at x: then M = p + t there, with
t = q (r - p), and P = r, M = r - t at the mirror.  Let k(y) = y^a - y^(1 - a), so that
k(1/y) = -k(y) / y.  The pair adds to the right side minus the left

    p k((p + t) / p) + r k((r - t) / r) = G(p) - G(r - t),    G(x) = x k(1 + t / x).

As k is convex from 1 on and 0 there, G falls; as p <= r - t, the difference is not
negative.  A mixture over what all else decides costs no more than its worst part.

All moments are written as 1 plus something that is not negative, so that small
sampling rates lose no digits and large orders do not overflow.

Sources: Mironov 2017, Mironov et al. 2019 (sampling), Canonne et al. 2020 (conversion).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, final

from .discrete import unsampled
from .events import Discrete, Gaussian, Mechanism, PoissonGaussian

__all__ = ["ORDERS", "Curve", "composed", "gaussian", "of_mechanism", "sampled"]

ORDERS: Final = (*range(2, 65), 80, 96, 128, 192, 256, 512)


def gaussian(order: int, noise_multiplier: float) -> float:
    """Renyi divergence of one Gaussian release."""
    return order / (2 * noise_multiplier**2)


def sampled(order: int, rate: float, curve: Callable[[int], float]) -> float:
    """Renyi divergence of one release over a Poisson sample, both ways.

    ``curve`` gives, or bounds, the divergence of the release without sampling at every
    integer order from 2 to ``order``: positive, of noise that is added, symmetric and
    the same whatever the data.  Elsewhere, this does not hold.  Exact for Gaussian
    noise.
    """
    if rate == 1:
        return curve(order)
    terms = []
    for j in range(2, order + 1):
        choose = (
            math.lgamma(order + 1) - math.lgamma(j + 1) - math.lgamma(order - j + 1)
        )
        weight = choose + j * math.log(rate) + (order - j) * math.log1p(-rate)
        exponent = (j - 1) * curve(j)
        terms.append(weight + exponent + math.log(-math.expm1(-exponent)))
    most = max(terms)
    log_sum = most + math.log(math.fsum(math.exp(term - most) for term in terms))
    moment = max(log_sum, 0.0) + math.log1p(math.exp(-abs(log_sum)))
    return moment / (order - 1)


@functools.lru_cache(maxsize=65536)
def of_mechanism(mechanism: Mechanism | Discrete, order: int) -> float:
    """Renyi divergence of one release, or a bound on it."""
    match mechanism:
        case Gaussian(noise):
            return gaussian(order, noise)
        case PoissonGaussian(rate, noise):
            return sampled(order, rate, lambda j: gaussian(j, noise))
        case _:
            return sampled(order, mechanism.rate, lambda j: unsampled(mechanism, j))


@final
@dataclass(frozen=True, slots=True)
class Curve:
    """Renyi divergences at integer orders, and what they say of epsilon and delta.

    The two directions are one formula (Canonne et al. 2020, proposition 12), at the
    best of all orders.
    """

    divergences: Mapping[int, float]

    def epsilon(self, delta: float) -> float:
        """The smallest epsilon at ``delta``, in (0, 1); at least 0."""
        return max(
            0.0,
            min(
                divergence + math.log1p(-1 / a) - math.log(delta * a) / (a - 1)
                for a, divergence in self.divergences.items()
            ),
        )

    def delta(self, epsilon: float) -> float:
        """The smallest delta at ``epsilon``, at least 0; at most 1."""
        log_delta = min(
            (a - 1) * (divergence - epsilon + math.log1p(-1 / a)) - math.log(a)
            for a, divergence in self.divergences.items()
        )
        return math.exp(min(log_delta, 0.0))


def composed(releases: Iterable[tuple[Mechanism | Discrete, int]]) -> Curve:
    """The curve of every mechanism as often as it says, at all ``ORDERS``."""
    parts = list(releases)
    return Curve(
        {
            order: math.fsum(n * of_mechanism(m, order) for m, n in parts)
            for order in ORDERS
        }
    )
