# SPDX-License-Identifier: Apache-2.0
"""Privacy loss of Gaussian noise over a sum of random sensitivity.

What of one person falls into a sampled release is random: none, one or more records.
The worst case is N(0, 1) against a mixture of N(i/z, 1), i = 0, 1, 2, ... with the
probabilities of i records (Choquette-Choo et al. 2024, arXiv 2310.15526, corollary
4.7).  dp-accounting has the same distribution; here all its points are found at once,
which takes a hundredth of the time.  :func:`.selfcheck.self_check` and the tests
compare the two.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any, Final

import numpy as np

from . import accounting

__all__ = ["Mixture", "composed_epsilon"]

# Losses are multiples of at most this, and of a tenth of one release's deviation where
# that is less: rounding each release to the grid then adds a four-hundredth to the
# variance of the sum at most.  Never finer than FINEST, nor with more points than
# MOST_POINTS; on any grid the result is an upper bound.  The grid moves continuously
# with the parameters, so that another implementation's cannot be ten times as fine.
INTERVAL: Final = 1e-3
FINEST: Final = 1e-6
MOST_POINTS: Final = 200_000
# Mass of one release's losses above the grid: charged as infinite.
TAIL: Final = 1e-22

Array = np.ndarray[Any, np.dtype[Any]]


class Mixture:
    """N(0, 1) against the mixture of N(i / noise_multiplier, 1) with ``weights``.

    ``weights[i]`` is the probability of i records.  ``mean`` and ``deviation`` are
    those of one release's loss when the records are removed, and ``top`` is the
    largest such loss that matters.
    """

    def __init__(self, weights: Array, noise_multiplier: float) -> None:
        self._weights = weights
        with np.errstate(divide="ignore"):  # log 0: what cannot happen
            self._log_weights = np.log(weights)
        self._means = np.arange(len(weights)) / noise_multiplier
        normal = NormalDist()
        left = normal.inv_cdf(TAIL)
        right = max(
            mean - normal.inv_cdf(min(TAIL / weight, 0.5))
            for mean, weight in zip(self._means, weights, strict=True)
            if weight > 0
        )
        x = np.linspace(left, right, 20_001)
        loss, _ = self._loss(x)
        density = np.exp(loss - x * x / 2)
        density /= density.sum()
        self.bottom, self.top = float(loss[0]), float(loss[-1])
        self.mean = float(density @ loss)
        self.deviation = float(np.sqrt(density @ (loss - self.mean) ** 2))

    def _loss(self, x: Array) -> tuple[Array, Array]:
        """Log of the ratio of the densities at ``x``, and its slope there."""
        terms = (
            self._log_weights + np.multiply.outer(x, self._means) - self._means**2 / 2
        )
        most = terms.max(axis=-1)
        parts = np.exp(terms - most[:, None])
        total = parts.sum(axis=-1)
        return most + np.log(total), parts @ self._means / total

    def _where(self, losses: Array) -> Array:
        """The x with these losses, each above the least there is.

        The loss is convex and rising, so that Newton's method from the right neither
        overshoots nor cycles.  An x that is a little off changes a delta only in
        second order.
        """
        # One term of the sum alone reaches the loss here: the sum does so before.
        x = np.min(
            (losses[:, None] - self._log_weights[1:]) / self._means[1:]
            + self._means[1:] / 2,
            axis=1,
        )
        for _ in range(200):
            value, slope = self._loss(x)
            step = (value - losses) / slope
            x = x - step
            if np.max(np.abs(step)) < 1e-12:
                break
        return np.asarray(x)

    def losses(self, interval: float) -> Any:
        """dp-accounting's object: the losses for records removed and for added.

        Connects the dots (Doroshenko et al. 2022): the mass between two neighbours of
        the grid goes to both, so that the mass under either distribution stays what it
        was.  Computed from the masses, and not as differences of deltas, whose rounding
        would show at small deltas after many releases.
        """
        from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution
        from scipy.special import ndtr

        places = np.arange(
            math.floor(self.bottom / interval), math.ceil(self.top / interval) + 1
        )
        epsilons = places * interval
        above = epsilons > self._log_weights[0] + 1e-12
        x = np.full(len(places), -np.inf)
        x[above] = self._where(epsilons[above])
        mixed = np.zeros(len(places) - 1)
        for weight, mean in zip(self._weights, self._means, strict=True):
            mixed += weight * _between(x - mean)
        normal = _between(x)
        # Removed: the mixture against the normal distribution.
        removed = _connected(epsilons[:-1], mixed, normal, interval)
        removed[0] += self._weights @ ndtr(x[0] - self._means)
        beyond = self._weights @ ndtr(self._means - x[-1])
        # Added: the other way round, with losses of the other sign.
        added = _connected(-epsilons[:0:-1], normal[::-1], mixed[::-1], interval)
        added[0] += ndtr(-x[-1])
        return PrivacyLossDistribution(
            _pmf(places, removed, beyond, interval),
            _pmf(-places[::-1], added, ndtr(x[0]), interval),
        )


def _between(x: Array) -> Array:
    """Mass of N(0, 1) between neighbours, with full precision in both tails."""
    from scipy.special import ndtr

    left, right = x[:-1], x[1:]
    return np.asarray(
        np.where(left > 0, ndtr(-left) - ndtr(-right), ndtr(right) - ndtr(left))
    )


def _connected(lower: Array, mass: Array, other: Array, interval: float) -> Array:
    """Masses on the grid: what lies between two places is shared out to both.

    ``mass`` and ``other`` are the two distributions' between the loss ``lower`` and the
    next.  Where the other's is too small for a float, all goes up.
    """
    with np.errstate(divide="ignore", invalid="ignore"):
        part = -np.expm1(np.minimum(lower, 700.0) + np.log(other) - np.log(mass))
    up = mass * np.clip(np.nan_to_num(part / -math.expm1(-interval), nan=1.0), 0.0, 1.0)
    grid = np.zeros(len(mass) + 1)
    grid[:-1] += mass - up
    grid[1:] += up
    return grid


def _pmf(places: Array, masses: Array, infinite: float, interval: float) -> Any:
    from dp_accounting.pld.pld_pmf import create_pmf

    finite = dict(zip(places.tolist(), masses.tolist(), strict=True))
    return create_pmf(finite, interval, float(infinite), pessimistic_estimate=True)


@accounting.refusing()
def composed_epsilon(
    mixtures: Sequence[tuple[Mixture, int]], *, precision: float, delta: float
) -> float:
    """Epsilon of every mixture as often as it says, and of Gaussian releases.

    ``precision`` is the sum of the Gaussian releases' squared sensitivity over
    variance.  ``mixtures`` is not empty.  Infinity above ``MAX_EPSILON``, and for more
    than ``MOST_SAMPLED`` releases.
    """
    releases = sum(n for _, n in mixtures)
    if releases > accounting.MOST_SAMPLED:
        return math.inf
    # Epsilon is above the mean loss at every delta that is worth asking about.
    mean = precision / 2 + math.fsum(n * mixture.mean for mixture, n in mixtures)
    if mean > accounting.MAX_EPSILON:
        return math.inf
    variance = precision + math.fsum(
        n * mixture.deviation**2 for mixture, n in mixtures
    )
    span = mean + math.sqrt(precision) + max(mixture.top for mixture, _ in mixtures)
    wanted = min(INTERVAL, math.sqrt(variance / releases) / 10)
    interval = max(wanted, FINEST, span / MOST_POINTS)
    parts = [mixture.losses(interval).self_compose(n) for mixture, n in mixtures]
    if precision:
        library = accounting.library().pld.privacy_loss_distribution
        parts.append(
            library.from_gaussian_mechanism(
                precision**-0.5, value_discretization_interval=interval
            )
        )
    whole = functools.reduce(lambda left, right: left.compose(right), parts)
    losses = accounting.Losses(whole, accounting.rounding(releases))
    found = losses.epsilon(delta)
    return found if found <= accounting.MAX_EPSILON else math.inf
