# SPDX-License-Identifier: Apache-2.0
"""Bounds for noise on the integer grid, against divergences summed term by term."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from secure_fl.errors import UsageError
from secure_fl.privacy import Gaussian, NonPrivate, PoissonGaussian, Repeated, renyi
from secure_fl.privacy.discrete import (
    DiscreteGaussian,
    Skellam,
    renyi_bound,
    rounded_sensitivity,
)

ORDERS = (2, 3, 5, 8, 16, 32)
Logs = np.ndarray[Any, np.dtype[np.float64]]


def log_sum(values: Logs) -> float:
    most = float(values.max())
    return most + math.log(np.exp(values - most).sum())


def log_of_sum(one: Logs, other: Logs) -> Logs:
    """Log probabilities of the sum of two variables on -n..n, on that grid again."""
    n = len(one) // 2
    padded = np.concatenate([np.full(n, -np.inf), other, np.full(n, -np.inf)])
    return np.array(
        [log_sum(one + padded[i : i + 2 * n + 1][::-1]) for i in range(2 * n + 1)]
    )


def log_skellam(variance: float, n: int) -> Logs:
    counts = np.arange(2 * n + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    poisson = counts * math.log(variance / 2) - variance / 2 - factorials
    half = np.array(
        [log_sum(poisson[k:] + poisson[: 2 * n + 1 - k]) for k in range(n + 1)]
    )
    return np.concatenate([half[:0:-1], half])


def log_gaussian(deviation: float, n: int) -> Logs:
    logs = -(np.arange(-n, n + 1) ** 2) / (2 * deviation**2)
    return np.asarray(logs - log_sum(logs))


def divergence(p: Logs, q: Logs, order: int) -> float:
    terms = order * p + (1 - order) * q
    # What was cut off at the ends does not matter.
    assert max(terms[0], terms[-1]) < terms.max() - 20
    return log_sum(terms) / (order - 1)


def shifted(noise: Logs, by: int, order: int) -> float:
    return divergence(noise[by:], noise[: len(noise) - by], order)


@pytest.mark.parametrize("variance", [0.5, 4.0, 100.0])
@pytest.mark.parametrize("by", [1, 3, 10])
def test_skellam_is_bounded_and_closely_where_there_is_much_noise(
    variance: float, by: int
) -> None:
    noise = log_skellam(variance, int(60 * math.sqrt(variance)) + 300)
    assert log_sum(noise) == pytest.approx(0, abs=1e-9)
    release = Skellam(1.0, variance, float(by), float(by))
    for order in ORDERS:
        exact = shifted(noise, by, order)
        bound = release.unsampled(order)
        assert exact <= bound
        if order * by <= variance / 4:
            assert bound <= 1.06 * exact


@pytest.mark.parametrize("deviation", [0.5, 0.7, 1.0, 3.0])
@pytest.mark.parametrize("shares", [1, 2, 4])
def test_sums_of_discrete_gaussians_are_bounded(deviation: float, shares: int) -> None:
    noise = log_gaussian(deviation, int(30 * deviation * shares) + 40)
    for _ in range(shares.bit_length() - 1):
        noise = log_of_sum(noise, noise)
    for by in (1, 2):
        release = DiscreteGaussian(1.0, deviation, shares, float(by), 1)
        for order in (2, 5, 16):
            exact, bound = shifted(noise, by, order), release.unsampled(order)
            assert exact <= bound * (1 + 1e-9)
            if shares == 1 or deviation >= 1:
                assert bound <= 1.01 * exact


@pytest.mark.parametrize("rate", [0.02, 0.3])
@pytest.mark.parametrize("order", [2, 4, 9])
def test_sampled_skellam_is_bounded_both_ways(rate: float, order: int) -> None:
    """A record added, and one removed, of a 1-dimensional sum."""
    noise, by = log_skellam(9.0, 300), 2
    moved, still = noise[by:], noise[: len(noise) - by]
    mixture = np.logaddexp(math.log(rate) + moved, math.log1p(-rate) + still)
    bound = renyi.sampled(order, rate, Skellam(1.0, 9.0, 2.0, 2.0).unsampled)
    removed = divergence(mixture, still, order)
    assert removed <= bound
    assert divergence(still, mixture, order) <= bound
    assert bound < 4 * removed


def test_sampling_bounds_contain_the_exact_sampled_gaussian() -> None:
    for rate in (0.001, 0.1, 1.0):
        for order in (2, 3, 20):
            generic = renyi.sampled(order, rate, lambda j: renyi.gaussian(j, 2.0))
            exact = renyi.sampled_gaussian(order, rate, 2.0)
            assert exact <= generic * (1 + 1e-12)
            if order == 2:
                assert exact == pytest.approx(generic, rel=1e-12)


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
    exact = renyi.sampled_gaussian(order, rate, noise)
    assert exact == pytest.approx(numeric(rate, noise, order), rel=1e-6)


def test_rounding_adds_to_the_sensitivity() -> None:
    l2, l1 = rounded_sensitivity(1.0, step=2.0**-10, values=100)
    assert l2 == 1024 + 10
    assert l1 == 10 * l2
    # A coarse grid: whole numbers have an L1 norm of at most their squared L2 norm.
    assert rounded_sensitivity(1.0, step=1.0, values=10_000) == (101.0, 101.0 * 100)
    assert rounded_sensitivity(2.0, step=1.0, values=1) == (3.0, 3.0)
    generator = np.random.default_rng(7)
    l2, l1 = rounded_sensitivity(1.0, step=0.3, values=6)
    for _ in range(500):
        base = generator.normal(size=6) * 5
        added = generator.normal(size=6)
        added /= np.linalg.norm(added)
        draw = generator.random(6)  # up with the probability of the fraction
        difference = np.floor((base + added) / 0.3 + draw) - np.floor(base / 0.3 + draw)
        assert np.abs(difference).sum() <= difference @ difference
        assert np.linalg.norm(difference) <= l2
        assert np.abs(difference).sum() <= l1


@pytest.mark.parametrize(
    "make",
    [
        lambda: rounded_sensitivity(0.0, step=1.0, values=1),
        lambda: rounded_sensitivity(1.0, step=0.0, values=1),
        lambda: rounded_sensitivity(1.0, step=1.0, values=0),
        lambda: Skellam(1.5, 1.0, 1.0, 1.0),
        lambda: Skellam(1.0, 0.0, 1.0, 1.0),
        lambda: Skellam(1.0, 1.0, 0.5, 1.0),
        lambda: Skellam(1.0, 1.0, 3.0, 2.0),
        lambda: DiscreteGaussian(0.0, 1.0, 1, 1.0, 1),
        lambda: DiscreteGaussian(1.0, 0.4, 1, 1.0, 1),
        lambda: DiscreteGaussian(1.0, 1.0, 0, 1.0, 1),
        lambda: DiscreteGaussian(1.0, 1.0, 1, 0.0, 1),
        lambda: DiscreteGaussian(1.0, 1.0, 1, 1.0, 0),
        lambda: Skellam(1.0, 1e155, 1.0, 1.0),
        lambda: Skellam(1.0, 1e-155, 1.0, 1.0),
        lambda: Skellam(1.0, 1.0, 1.0, 1e155),
        lambda: DiscreteGaussian(1.0, 1e155, 1, 1.0, 1),
        lambda: DiscreteGaussian(1.0, 1.0, 1, 1e155, 1),
        lambda: DiscreteGaussian(1.0, 1.0, 1, 1.0, 10**100),
        lambda: DiscreteGaussian(1.0, 1.0, 2.5, 1.0, 1),  # type: ignore[arg-type]
        lambda: DiscreteGaussian(1.0, 1.0, 1, 1.0, 1.5),  # type: ignore[arg-type]
        lambda: DiscreteGaussian(1.0, 1.0, 10**7, 1.0, 1),
        lambda: renyi_bound([], delta=0.0),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()


def test_a_fine_grid_costs_what_gaussian_noise_costs() -> None:
    """Noise 16 times the sensitivity in the sum, 200 releases: 4.249 by PLD."""
    plain = renyi_bound([Repeated(Gaussian(16.0), 200)], delta=1e-6)
    assert 4.249 < plain.epsilon < 1.08 * 4.249
    l2, l1 = rounded_sensitivity(1.0, step=2.0**-20, values=1000)
    noise = 16.0 * 2**20
    for release in (
        Skellam(1.0, noise**2, l2, l1),
        DiscreteGaussian(1.0, noise / math.sqrt(10), 10, l2, 1000),
    ):
        found = renyi_bound([release] * 200, delta=1e-6)
        assert found.accountant == "RDP"
        assert plain.epsilon < found.epsilon < plain.epsilon * 1.001


def test_a_coarse_grid_costs_more() -> None:
    costs = []
    for bits in (4, 6, 8, 12):
        l2, l1 = rounded_sensitivity(1.0, step=2.0**-bits, values=1000)
        release = Skellam(0.01, (3.0 * 2**bits) ** 2, l2, l1)
        costs.append(renyi_bound([release] * 10, delta=1e-6).epsilon)
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 2 * costs[-1]


def test_colluding_clients_take_their_shares_away() -> None:
    l2, l1 = rounded_sensitivity(1.0, step=2.0**-16, values=100)
    share = (5 * 2.0**16) ** 2
    costs = [
        renyi_bound([Skellam(1.0, n * share, l2, l1)], delta=1e-6).epsilon
        for n in (10, 9, 7, 5)
    ]
    assert costs == sorted(costs)
    assert costs[-1] > 1.3 * costs[0]


def test_discrete_and_other_releases_compose() -> None:
    skellam = Skellam(1.0, 1e6, 100.0, 1000.0)
    sampled = Repeated(PoissonGaussian(0.01, 1.0), 100)
    both = renyi_bound([skellam, sampled], delta=1e-6).epsilon
    alone = [renyi_bound([e], delta=1e-6).epsilon for e in (skellam, sampled)]
    assert max(alone) < both < sum(alone)
    assert renyi_bound([], delta=1e-6).epsilon == 0
    assert math.isinf(renyi_bound([skellam, NonPrivate("x")], delta=1e-6).epsilon)


@pytest.mark.parametrize("rate", [1e-6, 1.0])
def test_extremes_stay_finite(rate: float) -> None:
    bound = renyi_bound([Skellam(rate, 1e-3, 1e4, 1e6)], delta=1e-6)
    assert math.isfinite(bound.epsilon)
    assert bound.epsilon > 1e6
    nothing = renyi_bound([Skellam(rate, 1e30, 1.0, 1.0)], delta=1e-6)
    assert 0 <= nothing.epsilon < 0.1
    for most in (
        Skellam(rate, 1e-50, 1e25, 1e50),
        Skellam(rate, 1e50, 1e25, 1e50),
        Skellam(rate, 1e50, 1.0, 1.0),
        DiscreteGaussian(rate, 1e50, 10**6, 1.0, 10**50),
        DiscreteGaussian(rate, 0.5, 10**6, 1e50, 10**50),
    ):
        assert renyi_bound([most], delta=1e-6).epsilon >= 0
    assert renyi_bound([PoissonGaussian(rate, 1e155)], delta=1e-6).epsilon < 0.1
    assert math.isinf(renyi_bound([PoissonGaussian(rate, 1e-155)], delta=1e-6).epsilon)
