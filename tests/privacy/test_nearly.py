# SPDX-License-Identifier: Apache-2.0
"""Skellam noise as Gaussian noise: exact laws against the bound, and its use.

The lemma is checked on exact probabilities of one value, and delta on the exact losses
of sums of one value; that neither depends on more is the proof's part.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy.special import ive, ndtr

from secure_fl.privacy import (
    DiscreteGaussian,
    Event,
    Gaussian,
    PoissonGaussian,
    Repeated,
    Skellam,
    calibrate_noise,
    calibrate_release,
    delta_at,
    epsilon,
    gaussian,
    group_epsilon,
    interpret,
    profile,
)
from secure_fl.privacy.discrete import rounded_sensitivity
from secure_fl.privacy.nearly import LEAST_VARIANCE, nearly

Masses = np.ndarray[Any, np.dtype[np.float64]]


def laws(variance: float) -> tuple[Masses, Masses]:
    """Skellam and rounded Gaussian probabilities of 0, 1, ... 12 deviations."""
    places = np.arange(int(12 * math.sqrt(variance)))
    nodes, weights = np.polynomial.legendre.leggauss(20)
    inside = places[:, None] + nodes / 2
    density = np.exp(-(inside**2) / (2 * variance)) @ weights / 2
    return ive(places, variance), density / math.sqrt(2 * math.pi * variance)


def both_sides(masses: Masses) -> Masses:
    return np.concatenate([masses[:0:-1], masses])


@pytest.mark.parametrize("variance", [LEAST_VARIANCE, 1e5, 1e6, 1e7])
def test_the_two_laws_are_as_near_as_the_lemma_says(variance: float) -> None:
    p, q = map(both_sides, laws(variance))
    assert p.sum() == pytest.approx(1, abs=1e-12)
    assert q.sum() == pytest.approx(1, abs=1e-12)
    divergence = float(((p - q) * np.log(p / q)).sum())  # of both directions together
    assert divergence <= 1 / (16 * variance**2)
    # The bound is no more than half as much again above what it bounds.
    assert divergence == pytest.approx(26 / 576 / variance**2, rel=1e-3)
    # And for one value, Pinsker's inequality loses a factor of less than two.
    apart = float(np.abs(p - q).sum()) / 2
    assert apart < 1 / (8 * variance) < 2 * apart


@pytest.mark.parametrize("variance", [LEAST_VARIANCE, 1e6])
def test_each_step_of_the_lemma(variance: float) -> None:
    """The logarithm of the ratio, value by value (decision record 21)."""
    p, q = laws(variance)
    x = np.arange(len(p)) / math.sqrt(variance)
    rest = variance * np.log(p / q) - (x**4 - 7 * x**2 + 4) / 24
    most = 0.007 + (x**6 + 14 * x**4 + 27 * x**2 + 14) / (80 * variance)
    floats = 1e-13 * variance
    assert np.all(np.abs(rest) <= most + floats)
    assert np.abs(rest).max() > most.max() / 10


# -- what is made of it ----------------------------------------------------------------


def sums(noise: float, *, steps: float, rate: float = 1.0, values: int = 1) -> Skellam:
    """With ``steps`` grid steps to a clip norm of 1."""
    l2 = rounded_sensitivity(1.0, step=1 / steps, values=values)
    return Skellam(rate, (noise * steps) ** 2 / 4, 4, 1, l2, values)


def test_the_distance_adds_up_as_it_is_proved_to() -> None:
    one = Skellam(0.5, 1e6, 4, 1, 100.0, 64)
    other = Skellam(1.0, 1e5, 2, 1, 50.0, 9)
    near = nearly([(one, 5), (other, 3), (Gaussian(3.0), 2)])
    assert near is not None
    assert near.releases == {
        PoissonGaussian(0.5, 20.0): 5,
        PoissonGaussian(1.0, math.sqrt(2e5) / 50): 3,
        Gaussian(3.0): 2,
    }
    entropies = 5 * 64 / (32 * 4e6**2) + 3 * 9 / (32 * 2e5**2)
    assert near.distance == pytest.approx(math.sqrt(entropies / 2), rel=1e-12)
    assert near.added(2.0) == pytest.approx((1 + math.exp(2.0)) * near.distance)


@pytest.mark.parametrize("by", [25, 60, 150])
@pytest.mark.parametrize("rate", [1.0, 0.2])
def test_delta_is_not_below_the_exact_one(by: int, rate: float) -> None:
    """Of one value and one release: the worst that can be seen there."""
    variance = LEAST_VARIANCE
    p = both_sides(laws(variance)[0])
    still, moved = p[by:], p[: len(p) - by]
    mixed = rate * moved + (1 - rate) * still
    release = Skellam(rate, variance / 4, 4, 1, float(by), 1)
    for e in (0.0, 0.1, 0.5, 1.0, 2.0, 4.0):
        exact = max(
            float(np.maximum(one - math.exp(e) * other, 0).sum())
            for one, other in ((mixed, still), (still, mixed))
        )
        assert exact <= delta_at([release], epsilon=e) + 1e-15


def test_delta_of_two_releases_is_not_below_the_exact_one() -> None:
    variance, by = LEAST_VARIANCE, 60
    p = both_sides(laws(variance)[0])
    # Two releases of one value: the sum of both says all, as for Gaussian noise, but
    # for a little; so all pairs are looked at.
    still, moved = p[by::2], p[: len(p) - by : 2]
    scale = still.sum(), moved.sum()
    still, moved = still / scale[0], moved / scale[1]
    losses = np.log(moved) - np.log(still)
    both = losses[:, None] + losses[None, :]
    chances = moved[:, None] * moved[None, :]
    release = Skellam(1.0, variance / 4, 4, 1, float(by), 1)
    for e in (0.5, 1.5):
        exact = float((chances * -np.expm1(np.minimum(e - both, 0.0))).sum())
        assert exact == pytest.approx(delta_at([release] * 2, epsilon=e), rel=1e-2)


@pytest.mark.parametrize("rate", [1.0, 0.05])
def test_it_costs_what_gaussian_noise_costs_and_less_than_by_renyi_dp(
    rate: float,
) -> None:
    event = sums(2.5, steps=2.0**20, rate=rate, values=4096)
    found = epsilon([event] * 20, delta=1e-5)
    limit = epsilon([PoissonGaussian(rate, 2.5)] * 20, delta=1e-5)
    assert found.accountant == "PLD"
    # In closed form where nothing is sampled: dp-accounting's grid adds up to 2e-4.
    assert limit.value - 3e-4 <= found.value <= 1.002 * limit.value
    assert 1.05 * found.value < found.rdp
    assert found.rdp == pytest.approx(limit.rdp, rel=0.02)


def test_of_two_bounds_the_smaller_counts_and_is_named() -> None:
    kinds = []
    for bits in (7, 9, 12, 16, 20):
        event = sums(2.5, steps=2.0**bits, values=64)
        found = epsilon([event] * 20, delta=1e-5)
        kinds.append(found.accountant)
        assert found.value <= found.rdp
        assert (found.value < found.rdp) == (found.accountant == "PLD")
    assert kinds == ["RDP", "RDP", "RDP", "PLD", "PLD"]


def test_what_is_added_to_delta_is_taken_off_it() -> None:
    event = sums(2.5, steps=2.0**17, values=64)
    near = nearly([(event, 20)])
    assert near is not None
    found = epsilon([event] * 20, delta=1e-5)
    left = 1e-5 - near.added(found.rdp)
    assert 0.9e-5 < left < 0.999e-5
    mu = math.sqrt(20) / 2.5 * event.l2 / 2**17
    assert found.value == pytest.approx(gaussian.epsilon_of(mu, left), rel=1e-9)
    assert found.value > 1.0001 * gaussian.epsilon_of(mu, 1e-5)
    # A delta that the difference would eat up is left to Renyi DP.
    assert epsilon([event] * 20, delta=1e-9).accountant == "RDP"


def test_other_noise_or_too_little_is_left_to_renyi_dp() -> None:
    much = Skellam(1.0, LEAST_VARIANCE / 4, 4, 1, 25.0, 1)
    assert nearly([(much, 1)]) is not None
    little = replace(much, variance=much.variance * (1 - 1e-9))
    exact = DiscreteGaussian(1.0, 1e9, 4, 1, 1.0, 1)
    for event in (little, exact):
        assert nearly([(event, 1)]) is None
        fine: Event = sums(2.5, steps=2.0**20)
        assert epsilon([fine], delta=1e-5).accountant == "PLD"
        assert epsilon([fine, event], delta=1e-5).accountant == "RDP"


def test_it_composes_with_other_releases() -> None:
    fine = sums(2.0, steps=2.0**20, values=4096)
    steps = Repeated(PoissonGaussian(0.01, 1.0), 100)
    found = epsilon([fine, steps], delta=1e-5)
    both = epsilon([Gaussian(2.0), steps], delta=1e-5)
    assert (found.accountant, both.accountant) == ("PLD", "PLD")
    assert found.value == pytest.approx(both.value, rel=1e-3)
    assert group_epsilon([fine], records=3, delta=1e-5) == pytest.approx(
        gaussian.epsilon_of(3 / 2, 1e-5), rel=2e-3
    )


@pytest.mark.parametrize("rate", [1.0, 0.05])
def test_curves_are_nearly_those_of_gaussian_noise(rate: float) -> None:
    events: list[Event] = [sums(2.0, steps=2.0**20, rate=rate, values=64)] * 50
    limit: list[Event] = [PoissonGaussian(rate, 2.0)] * 50
    for e in (0.0, 0.2, 0.5):
        found, least = (delta_at(x, epsilon=e) for x in (events, limit))
        assert found == pytest.approx(least, rel=1e-2)
    spent = epsilon(events, delta=1e-5)
    assert 0.98e-5 < delta_at(events, epsilon=spent.value) <= 1e-5 * (1 + 1e-9)
    ours, exact = interpret(events, delta=1e-5), interpret(limit, delta=1e-5)
    assert ours.advantage == pytest.approx(exact.advantage, rel=1e-2)
    for field in ("tpr_at_fpr", "trade_off", "posterior"):
        pairs = zip(getattr(ours, field), getattr(exact, field), strict=True)
        for (place, bound), (other, least) in pairs:
            assert place == other
            assert 0.99 * least < bound <= 1.05 * least
    curve = profile(events, (1e-2, 1e-5, 1e-10))
    values = [value for _, value in curve]
    assert values == sorted(values)


@pytest.mark.long
def test_calibration_takes_hardly_more_noise_than_gaussian_noise_needs() -> None:
    for rate, count in ((1.0, 20), (0.05, 100)):
        for target in (0.5, 8.0):
            noise = calibrate_release(
                lambda z: sums(z, steps=2.0**20, rate=rate, values=1024),  # noqa: B023
                count=count,
                epsilon=target,
                delta=1e-5,
            )
            least = calibrate_noise(epsilon=target, delta=1e-5, rate=rate, steps=count)
            assert 0.999 * least <= noise <= 1.01 * least


def test_closed_form_and_the_normal_law() -> None:
    """Of the function that stands in for PLD where nothing is sampled."""
    for mu in (0.05, 1.0, 6.0):
        for e in (0.0, 0.3, 5.0):
            direct = ndtr(mu / 2 - e / mu) - math.exp(e) * ndtr(-mu / 2 - e / mu)
            assert gaussian.delta_of(mu, e) == pytest.approx(direct, rel=1e-6)
    assert gaussian.epsilon_of(1e-6, 1e-5) == 0.0
