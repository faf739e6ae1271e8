# SPDX-License-Identifier: Apache-2.0
"""What sampling gains, against divergences summed term by term; curves as a whole."""

from __future__ import annotations

import math

import numpy as np
import pytest

from secure_fl.privacy import PoissonGaussian, accounting, renyi

from .noises import Logs, divergence, log_gaussian, log_skellam, log_sum

NOISES = [
    pytest.param(log_skellam(9.0, 400), id="skellam"),
    pytest.param(log_gaussian(2.0, 200), id="discrete-gaussian"),
]
ORDERS = (2, 3, 4, 9, 20)


def zhu_and_wang(order: int, rate: float, curve: dict[int, float]) -> float:
    """Poisson sampling of any mechanism: Zhu and Wang 2019, theorem 5."""
    logs = [order * math.log1p(-rate), (order - 1) * math.log1p(-rate)]
    logs[1] += math.log(order * rate)
    for j in range(2, order + 1):
        weight = math.log(math.comb(order, j)) + j * math.log(rate)
        weight += (order - j) * math.log1p(-rate)
        logs.append(weight + (j - 1) * curve[j] + math.log(3 if j > 2 else 1))
    return log_sum(np.array(logs)) / (order - 1)


@pytest.mark.parametrize("noise", NOISES)
@pytest.mark.parametrize("by", [1, 2, 5])
@pytest.mark.parametrize("rate", [0.01, 0.3, 0.9])
def test_sampled_noise_costs_this_one_way_and_less_the_other(
    noise: Logs, by: int, rate: float
) -> None:
    """A record added, and one removed, of a 1-dimensional sum."""
    moved, still = noise[by:], noise[: len(noise) - by]
    mixture = np.logaddexp(math.log(rate) + moved, math.log1p(-rate) + still)
    curve = {j: divergence(moved, still, j) for j in range(2, max(ORDERS) + 1)}
    for order in ORDERS:
        found = renyi.sampled(order, rate, curve.__getitem__)
        assert divergence(mixture, still, order) == pytest.approx(found, rel=1e-9)
        assert divergence(still, mixture, order) <= found * (1 + 1e-9)
        assert found <= zhu_and_wang(order, rate, curve) * (1 + 1e-9)
        assert renyi.sampled(order, 1.0, curve.__getitem__) == curve[order]


def test_a_pair_of_mirrored_places_costs_more_the_bounded_way() -> None:
    """The lemma behind it: (p, r) against (p + t, r - t), t from 0 to r - p."""
    generator = np.random.default_rng(3)
    p = 10 ** generator.uniform(-6, 0, 20_000)
    r = p * 10 ** generator.uniform(0, 6, 20_000)
    t = generator.random(20_000) * (r - p)
    before, after = np.array([p, r]), np.array([p + t, r - t])
    for order in (1.01, 2, 3, 7, 20):
        there = (after**order * before ** (1 - order)).sum(axis=0)
        back = (before**order * after ** (1 - order)).sum(axis=0)
        assert np.all(back <= there * (1 + 1e-12))


def test_noise_that_is_not_symmetric_is_not_covered() -> None:
    still, moved = np.log([0.5, 0.5]), np.log([0.01, 0.99])
    mixture = np.logaddexp(math.log(0.5) + moved, math.log(0.5) + still)
    there, back = (
        log_sum(2 * one - other) for one, other in ((mixture, still), (still, mixture))
    )
    assert back > 1.2 * there


def numeric(rate: float, noise: float, order: int) -> float:
    """The sampled Gaussian's divergence, by adding up over a fine grid."""
    x = np.linspace(-12 * noise, 12 * noise + order, 400_001)
    still = -(x**2) / (2 * noise**2)
    moved = -((x - 1) ** 2) / (2 * noise**2)
    mixture = np.logaddexp(math.log(rate) + moved, math.log1p(-rate) + still)
    width = (x[1] - x[0]) / (noise * math.sqrt(2 * math.pi))
    logs = order * mixture + (1 - order) * still
    return (log_sum(logs) + math.log(width)) / (order - 1)


@pytest.mark.parametrize(
    ("rate", "noise", "order"), [(0.01, 1.0, 2), (0.1, 0.8, 7), (0.5, 3.0, 32)]
)
def test_the_sampled_gaussian_by_numbers(rate: float, noise: float, order: int) -> None:
    exact = renyi.of_mechanism(PoissonGaussian(rate, noise), order)
    assert exact == pytest.approx(numeric(rate, noise, order), rel=1e-6)


def test_small_divergences_lose_no_digits() -> None:
    for rate, divergence_of_2 in ((1e-6, 1e-12), (1e-3, 1e-9)):
        found = renyi.sampled(2, rate, lambda j: divergence_of_2)  # noqa: B023
        assert found == pytest.approx(rate**2 * divergence_of_2, rel=1e-9)


def test_epsilon_and_delta_of_a_curve_are_inverse() -> None:
    curve = renyi.composed([(PoissonGaussian(0.05, 1.5), 200)])
    assert tuple(curve.divergences) == renyi.ORDERS
    for delta in (1e-3, 1e-6, 1e-9):
        found = curve.epsilon(delta)
        assert curve.delta(found) == pytest.approx(delta, rel=1e-9)
        rdp = accounting.library().rdp
        orders, divergences = list(renyi.ORDERS), list(curve.divergences.values())
        theirs, _ = rdp.compute_epsilon(orders, divergences, delta)
        assert found == pytest.approx(theirs, rel=1e-12)
    assert renyi.Curve(dict.fromkeys(renyi.ORDERS, 1e9)).delta(1.0) == 1.0
    assert renyi.Curve(dict.fromkeys(renyi.ORDERS, 0.0)).epsilon(0.9) == 0.0
