# SPDX-License-Identifier: Apache-2.0
"""Losses of sampled Gaussian releases of several records (FIELDS.md, 4.5)."""

import math
from statistics import NormalDist
from typing import Any

import numpy as np
from dp_accounting.pld import pld_pmf
from dp_accounting.pld import privacy_loss_distribution as pld

_TAIL = 1e-22


def phi(x: float) -> float:
    """The standard normal distribution function."""
    return 0.5 * math.erfc(-x / math.sqrt(2))


class Mixture:
    """N(0, 1) against a sampled release of k records of one person: their losses."""

    def __init__(self, rate: float, noise: float, k: int) -> None:
        ways = [math.comb(k, i) * rate**i * (1 - rate) ** (k - i) for i in range(k + 1)]
        self._rows = [(w, i / noise) for i, w in enumerate(ways) if w > 0]
        quantile = NormalDist().inv_cdf
        end = max(s - quantile(min(_TAIL / w, 0.5)) for w, s in self._rows)
        self._x = np.linspace(quantile(_TAIL), end, 50001)
        self._loss = self._losses(self._x)
        mass = self._density(self._x)
        mass /= mass.sum()
        self.largest = float(self._loss[-1])
        self.mean = float(mass @ self._loss)
        self.variance = float(mass @ (self._loss - self.mean) ** 2)

    def _density(self, x: Any) -> Any:
        return sum(w * np.exp(-((x - s) ** 2) / 2) for w, s in self._rows)

    def _losses(self, x: Any) -> Any:
        logs = [math.log(w) + s * x - s * s / 2 for w, s in self._rows]
        return np.logaddexp.reduce(logs, axis=0)

    def _places(self, losses: Any) -> Any:
        """The x of these losses: looked up in the table, then bisected."""
        after = np.clip(np.searchsorted(self._loss, losses), 1, len(self._x) - 1)
        low, high = self._x[after - 1], self._x[after]
        for _ in range(30):
            middle = (low + high) / 2
            less = self._losses(middle) < losses
            low, high = np.where(less, middle, low), np.where(less, high, middle)
        return high

    def pair(self, grid: float) -> Any:
        """Both directions, on a grid (FIELDS.md, 4.5)."""
        first = math.floor(self._loss[0] / grid)
        last = max(math.ceil(self._loss[-1] / grid), first + 1)
        whole = np.arange(first, last + 1)
        cuts = self._places(whole * grid)
        # Masses between the cuts: `many` with the person's records, `none` without.
        none = _cells(cuts, 0.0)
        many = sum(w * _cells(cuts, s) for w, s in self._rows)
        removed = _dots(first, many, none, grid)
        added = _dots(-last, none[::-1], many[::-1], grid)
        return pld.PrivacyLossDistribution(removed, added)


def _cells(cuts: Any, shift: float) -> Any:
    """What N(shift, 1) has below, between and above the cuts."""
    below = np.array([phi(x - shift) for x in cuts])
    above = np.array([phi(shift - x) for x in cuts])
    between = np.where(cuts[1:] > shift, above[:-1] - above[1:], below[1:] - below[:-1])
    return np.concatenate([below[:1], between, above[-1:]])


def _dots(first: int, mass: Any, other: Any, grid: float) -> Any:
    """Connects the dots: every cell's mass goes to its ends, as both measures ask.

    What lies below the first place goes there, what lies above the last to infinity.
    """
    inner, less = mass[1:-1], other[1:-1]
    lower = (first + np.arange(len(inner))) * grid
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        # The cell's own loss, above its lower end: in [0, grid] but for rounding.
        own = np.log(inner) - np.log(less) - lower
    own = np.clip(np.nan_to_num(own, nan=grid, posinf=grid, neginf=grid), 0.0, grid)
    up = inner * np.expm1(-own) / math.expm1(-grid)
    rows = np.zeros(len(inner) + 1)
    rows[0] = mass[0]
    rows[:-1] += inner - up
    rows[1:] += up
    places = dict(enumerate(rows.tolist(), first))
    return pld_pmf.create_pmf(places, grid, float(mass[-1]), True)
