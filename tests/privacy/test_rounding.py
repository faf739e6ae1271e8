# SPDX-License-Identifier: Apache-2.0
"""Rounding of transforms: an epsilon that is read from a PLD is never too small.

The truth comes from transforms of tilted losses: weights exp(t * loss) move the losses
that matter to where the mass is, so that rounding stays small next to them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from scipy import fft

from secure_fl.privacy import (
    Event,
    Gaussian,
    PoissonGaussian,
    Repeated,
    accounting,
    curves,
    delta_at,
    epsilon,
    gaussian,
    group_epsilon,
    interpret,
    rules,
)
from secure_fl.privacy.mixtures import Mixture


def steps(rate: float, noise: float, count: int) -> Event:
    return Repeated(PoissonGaussian(rate, noise), count)


class Tilted:
    """Deltas of ``count`` sampled releases, from masses that keep all their digits."""

    def __init__(self, rate: float, noise: float, count: int) -> None:
        self._grid, self._count = accounting.INTERVAL, count
        losses = Mixture(np.array([1 - rate, rate]), noise).losses(self._grid)
        pmfs: list[Any] = [
            pmf.to_dense_pmf() for pmf in (losses._pmf_remove, losses._pmf_add)
        ]
        self._sides = [
            (pmf._lower_loss + np.arange(pmf.size), np.maximum(pmf._probs, 1e-300))
            for pmf in pmfs
        ]

    def delta(self, eps: float) -> float:
        return max(self._one(places, masses, eps) for places, masses in self._sides)

    def _one(self, places: Any, masses: Any, eps: float) -> float:
        losses = places * self._grid

        def tilt(by: float) -> tuple[Any, float, float]:
            logs = np.log(masses) + by * losses
            total = logs.max() + math.log(np.exp(logs - logs.max()).sum())
            weights = np.exp(logs - total)
            return weights, float(total), float(weights @ losses)

        low, high = 0.0, 4000.0
        for _ in range(60):  # until the tilted sum of losses is eps in the mean
            by = (low + high) / 2
            if tilt(by)[2] * self._count < eps:
                low = by
            else:
                high = by
        weights, total, mean = tilt(by)
        spread = math.sqrt(self._count * (weights @ (losses - mean) ** 2))
        size = fft.next_fast_len(int(30 * spread / self._grid) + 2 * len(places))
        centre = round(mean / self._grid)
        wrapped = np.zeros(size)
        np.add.at(wrapped, (places - centre) % size, weights)
        sums = fft.irfft(fft.rfft(wrapped) ** self._count, size)
        offsets = (np.arange(size) + size // 2) % size - size // 2
        reached = (self._count * centre + offsets) * self._grid
        above = reached > eps
        logs = self._count * total - by * reached[above]
        gains = -np.expm1(eps - reached[above])
        return float(np.maximum(sums[above], 0) @ (np.exp(logs) * gains))


@pytest.mark.parametrize(
    ("rate", "noise", "count"),
    [
        (0.001, 2.0, 1000),
        (0.001, 3.0, 30_000),
        (0.0001, 0.8, 30_000),
        (0.0003, 1.2, 10**6),
        pytest.param(0.01, 1.0, 10_000, marks=pytest.mark.long),
    ],
)
def test_rounding_is_allowed_for(rate: float, noise: float, count: int) -> None:
    truth, event = Tilted(rate, noise, count), steps(rate, noise, count)
    for delta in (1e-5, 1e-8, 1e-9, 1e-10):
        found = epsilon([event], delta=delta).value
        if math.isinf(found):
            continue
        assert truth.delta(found) <= delta
        # and not by more than it takes
        least = delta - 2 * accounting.rounding(count)
        assert truth.delta(found) >= least
        assert truth.delta(found) <= delta_at([event], epsilon=found)


def test_the_tilted_transform_on_a_known_answer() -> None:
    """K18: no digits are lost there by either."""
    found = epsilon([steps(0.01, 4.0, 10000)], delta=1e-5).value
    assert found == pytest.approx(0.946999, abs=1e-6)
    assert Tilted(0.01, 4.0, 10000).delta(found) == pytest.approx(1e-5, rel=1e-5)


@pytest.mark.parametrize(
    ("rate", "noise", "count", "delta", "least"),
    [
        # Read without an allowance: 2.6585, and 3.3191.
        (0.001, 0.8, 30_000, 1e-10, 2.6588),
        (0.001, 2.0, 10**6, 1e-10, 3.3231),
        (0.001, 2.0, 10**6, 1e-8, 2.9047),
        (0.001, 2.0, 100_000, 1e-10, 0.9939),
    ],
)
def test_no_less_than_the_truth(
    rate: float, noise: float, count: int, delta: float, least: float
) -> None:
    event = steps(rate, noise, count)
    found = epsilon([event], delta=delta).value
    assert found >= least
    assert found <= 1.03 * least or delta <= 2 * accounting.rounding(count)
    assert group_epsilon([event], records=2, delta=delta) >= found


@pytest.mark.parametrize(("rate", "noise"), [(1e-4, 1.0), (1e-5, 0.6)])
def test_where_rounding_leaves_no_digits_epsilon_is_infinite(
    rate: float, noise: float
) -> None:
    """And the accountants do not seem to contradict each other."""
    event = steps(rate, noise, 10**6)
    assert epsilon([event], delta=1e-10).value == math.inf
    assert group_epsilon([event], records=2, delta=1e-10) == math.inf
    assert rules.replace_one([event], delta=1e-10).epsilon == math.inf
    assert (
        rules.central_noise([rate, rate], noise, steps=10**6, delta=1e-10).epsilon
        == math.inf
    )
    assert (
        rules.capped_batch(
            rate, noise, records=1000, most=10, steps=10**6, delta=1e-10
        ).epsilon
        == math.inf
    )
    assert epsilon([event], delta=1e-8).value < 1
    # The curve is still there, with the allowance on top.
    meaning = interpret([event], delta=1e-6)
    assert 0 < meaning.advantage < 1
    assert delta_at([event], epsilon=400.0) >= accounting.rounding(10**6)


def test_gaussian_releases_need_no_allowance() -> None:
    event = Gaussian(4.0)
    assert accounting.rounding(0) == 0
    assert delta_at([event], epsilon=100.0) < 1e-14
    for events in ([event], [event, Gaussian(5.0)]):
        exact = gaussian.epsilon_of(
            math.sqrt(sum(e.noise_multiplier**-2 for e in events)), 1e-10
        )
        assert epsilon(events, delta=1e-10).value == pytest.approx(exact, abs=1e-6)
        doubled = [Gaussian(2 * e.noise_multiplier) for e in events]
        found = rules.replace_one(doubled, delta=1e-10).epsilon
        assert found == pytest.approx(exact, abs=1e-6)


@pytest.mark.parametrize(
    ("rate", "noise", "count", "delta", "moved"),
    [
        (0.01, 0.7, 120, 1e-5, 1e-7),
        (0.01, 4.0, 10_000, 1e-5, 1e-7),
        (0.0064, 1.0, 782, 1e-6, 1e-6),
        (0.01, 1.0, 2000, 1e-8, 1e-5),
        (0.001, 1.0, 30_000, 1e-7, 1e-5),
    ],
)
def test_known_answers_hardly_move(
    rate: float, noise: float, count: int, delta: float, moved: float
) -> None:
    losses = curves.curve([steps(rate, noise, count)])
    assert isinstance(losses, accounting.Losses)
    bare = accounting.Losses(losses.pld, 0.0).epsilon(delta)
    assert bare < losses.epsilon(delta) <= bare * (1 + moved)
