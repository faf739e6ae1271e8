# SPDX-License-Identifier: Apache-2.0
"""The Gaussian mechanism in closed form (Balle and Wang 2018, theorem 8).

``mu`` is sensitivity over standard deviation; Gaussian releases compose exactly, to
one whose mu^2 is the sum of theirs.
"""

from __future__ import annotations

import math

__all__ = ["delta_of", "epsilon_of"]


def _log_phi(x: float) -> float:
    """Log of the normal distribution function, also where that underflows."""
    if x > -30:
        return math.log(math.erfc(-x / math.sqrt(2)) / 2)
    return -x * x / 2 - math.log(-x * math.sqrt(2 * math.pi)) - math.log1p(1 / (x * x))


def delta_of(mu: float, epsilon: float) -> float:
    """The smallest delta at ``epsilon`` >= 0, for mu > 0."""
    near, far = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
    larger = _log_phi(near)
    # A difference of logs, as both sides may be far below what a float holds apart.
    return math.exp(larger) * -math.expm1(min(0.0, epsilon + _log_phi(far) - larger))


def epsilon_of(mu: float, delta: float) -> float:
    """The smallest epsilon at ``delta`` in (0, 1), for mu > 0, to 15 digits; or 0."""
    if delta_of(mu, 0.0) <= delta:
        return 0.0
    low, high = 0.0, 1.0
    while delta_of(mu, high) > delta:
        low, high = high, 2 * high
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_of(mu, middle) > delta else (low, middle)
    return high
