# SPDX-License-Identifier: Apache-2.0
"""Renyi differential privacy of sums over clients (FIELDS.md, 5.6)."""

import math
from collections.abc import Iterable
from functools import lru_cache
from typing import Any

import numpy as np
from events import SKELLAM, Sum

_ORDERS = np.array([*range(2, 65), 80, 96, 128, 192, 256, 512], float)
_MOST_EXPONENT = 700.0

Counted = Iterable[tuple[Any, int]]  # divergences at each order, and how often


@lru_cache(maxsize=1024)
def of_gaussian(rate: float, noise: float) -> Any:
    """Divergences of one Gaussian release, at each order."""
    return _sampled(rate, lambda a: a / (2 * noise**2))


@lru_cache(maxsize=1024)
def of_sum(event: Sum) -> Any:
    """Divergences of one release into a sum, at each order."""
    skellam = event.kind == SKELLAM
    return _sampled(event.rate, _skellam(event) if skellam else _discrete(event))


def _skellam(event: Sum) -> Any:
    # Agarwal et al. 2021, corollary 3.6.
    w, square = event.shares * event.scale, event.l2**2
    l1 = min(math.sqrt(event.values) * event.l2, square)

    def divergence(a: Any) -> Any:
        fine = ((2 * a - 1) * square + 6 * l1) / (4 * w**2)
        return a * square / (2 * w) + np.minimum(fine, 3 * l1 / (2 * w))

    return divergence


def _discrete(event: Sum) -> Any:
    # Kairouz et al. 2021, proposition 14 and theorem 1.
    values, m = event.values, event.l2 / (math.sqrt(event.shares) * event.scale)
    t = _apart(event.shares, event.scale)
    return lambda a: a / 2 * m**2 + np.maximum(1, a / 4) * t * values


@lru_cache(maxsize=1024)
def _apart(shares: int, deviation: float) -> float:
    """How far a sum of discrete Gaussian variables is from one of them."""
    k = np.arange(1, shares)
    return 10 * float(np.exp(-2 * math.pi**2 * deviation**2 * k / (k + 1)).sum())


def _sampled(rate: float, divergence: Any) -> Any:
    if rate == 1:
        return divergence(_ORDERS)
    return np.array([_mixture(int(a), rate, divergence) for a in _ORDERS])


def _mixture(a: int, rate: float, divergence: Any) -> float:
    """The divergence of a sampled release at one order, by what exceeds 1."""
    j = np.arange(2, a + 1)
    x = (j - 1) * divergence(j.astype(float))
    with np.errstate(divide="ignore"):
        # log(e^x - 1): where x is large from the other side, which cannot overflow.
        excess = np.where(
            x > 1,
            x + np.log1p(-np.exp(-np.maximum(x, 1))),
            np.log(np.expm1(np.minimum(x, 1))),
        )
    terms = _log_binomials(a) + j * math.log(rate) + (a - j) * math.log1p(-rate)
    return float(np.logaddexp(0, np.logaddexp.reduce(terms + excess))) / (a - 1)


@lru_cache(maxsize=128)
def _log_binomials(a: int) -> Any:
    return np.array([math.log(math.comb(a, j)) for j in range(2, a + 1)])


def total(counted: Counted) -> Any:
    """Divergences of the composition, at each order."""
    return sum(count * divergences for divergences, count in counted)


def epsilon_at(divergences: Any, delta: float) -> float:
    a = _ORDERS
    found = divergences + np.log1p(-1 / a) - (math.log(delta) + np.log(a)) / (a - 1)
    return max(0.0, float(found.min()))


def delta_at(divergences: Any, epsilon: float) -> float:
    a = _ORDERS
    exponents = (a - 1) * (divergences - epsilon + np.log1p(-1 / a))
    found = np.exp(np.minimum(exponents, _MOST_EXPONENT)) / a
    return min(1.0, float(found.min()))
