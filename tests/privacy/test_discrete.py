# SPDX-License-Identifier: Apache-2.0
"""Noise on the integer grid: its bounds against exact divergences, and its epsilon.

Exact divergences are of one coordinate; those of several add up, and so do the bounds.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from secure_fl.errors import PlanError, UsageError
from secure_fl.privacy import (
    DiscreteGaussian,
    Event,
    Gaussian,
    NonPrivate,
    PoissonGaussian,
    Repeated,
    Skellam,
    accountant_of,
    accounting,
    calibrate_noise,
    calibrate_release,
    delta_at,
    epsilon,
    group_epsilon,
    interpret,
    over_releases,
    profile,
    rdp_epsilon,
    renyi,
    rules,
    seen,
)
from secure_fl.privacy.discrete import (
    conditional_sensitivity,
    rounded_sensitivity,
    unsampled,
)

from .noises import log_gaussian, log_of_sum, log_skellam, log_sum, shifted

DELTA = 1e-6


def skellam(rate: float, variance: float, l2: float, values: int) -> Skellam:
    """With all the variance in one share."""
    return Skellam(rate, variance, 1, 0, l2, values)


@pytest.mark.parametrize("variance", [0.5, 4.0, 100.0])
@pytest.mark.parametrize("by", [1, 3, 10])
def test_skellam_is_bounded_and_closely_where_there_is_much_noise(
    variance: float, by: int
) -> None:
    noise = log_skellam(variance, int(60 * math.sqrt(variance)) + 300)
    assert log_sum(noise) == pytest.approx(0, abs=1e-9)
    release = Skellam(1.0, variance / 4, 4, 1, float(by), 1)
    assert release.l1 == by
    for order in (2, 3, 5, 8, 16, 32):
        exact = shifted(noise, by, order)
        bound = unsampled(release, order)
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
        release = DiscreteGaussian(1.0, deviation, shares, 0, float(by), 1)
        for order in (2, 5, 16):
            exact, bound = shifted(noise, by, order), unsampled(release, order)
            assert exact <= bound * (1 + 1e-9)
            if shares == 1 or deviation >= 1:
                assert bound <= 1.01 * exact


# -- sensitivities ---------------------------------------------------------------------


def test_rounding_adds_to_the_sensitivity() -> None:
    assert rounded_sensitivity(1.0, step=2.0**-10, values=100) == 1024 + 10
    assert rounded_sensitivity(2.0, step=1.0, values=1) == 3
    # A coarse grid: whole numbers have an L1 norm of at most their squared L2 norm.
    assert skellam(1.0, 1.0, 1034.0, 100).l1 == 10 * 1034
    assert skellam(1.0, 1.0, 3.0, 10_000).l1 == 9
    generator = np.random.default_rng(7)
    l2 = rounded_sensitivity(1.0, step=0.3, values=6)
    l1 = skellam(1.0, 1.0, l2, 6).l1
    for _ in range(500):
        base = generator.normal(size=6) * 5
        added = generator.normal(size=6)
        added /= np.linalg.norm(added)
        draw = generator.random(6)  # up with the probability of the fraction
        difference = np.floor((base + added) / 0.3 + draw) - np.floor(base / 0.3 + draw)
        assert np.abs(difference).sum() <= difference @ difference
        assert np.linalg.norm(difference) <= l2
        assert np.abs(difference).sum() <= l1


def test_rounding_anew_where_a_vector_grew_too_long() -> None:
    l2 = conditional_sensitivity(1.0, step=2.0**-10, values=100)
    assert l2**2 == pytest.approx(1024**2 + 25 + 1024 + 5)
    assert l2 < rounded_sensitivity(1.0, step=2.0**-10, values=100)
    # One value: rounded up, it is the longest there is.
    assert conditional_sensitivity(1.0, step=1.0, values=1) <= 2.0
    # At least the 39 of a hundred are within that are promised, here for the vector
    # that grows most: all of its coordinates are half a step off the grid.
    generator = np.random.default_rng(7)
    steps = np.full(1024, 0.5)
    bound = conditional_sensitivity(16.0, step=1.0, values=1024)
    lengths = np.linalg.norm(np.floor(steps + generator.random((1000, 1024))), axis=1)
    assert np.mean(lengths <= bound) > 0.39


# -- epsilon ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rate", "noise", "count"), [(1.0, 16.0, 200), (0.01, 0.8, 120), (0.2, 4.2, 50)]
)
def test_a_fine_grid_costs_what_gaussian_noise_costs(
    rate: float, noise: float, count: int
) -> None:
    """By dp-accounting at our orders, and by PLD; and so do several shares."""
    library = accounting.library()
    limit = library.rdp.RdpAccountant(renyi.ORDERS)
    plain = library.GaussianDpEvent(noise)
    limit.compose(library.PoissonSampledDpEvent(rate, plain), count)
    expected = limit.get_epsilon(DELTA)
    l2 = rounded_sensitivity(1.0, step=2.0**-40, values=1000)
    deviation = noise * 2.0**40
    skellam = Skellam(rate, deviation**2 / 10, 10, 0, l2, 1000)
    exact = DiscreteGaussian(rate, deviation / math.sqrt(10), 10, 0, l2, 1000)
    for event in (skellam, exact):
        found = epsilon([event] * count, delta=DELTA)
        assert found.rdp == pytest.approx(expected, rel=1e-6)
        assert found.rdp == rdp_epsilon([event] * count, delta=DELTA)
    assert (found.value, found.accountant) == (found.rdp, "RDP")
    gaussian = epsilon([PoissonGaussian(rate, noise)] * count, delta=DELTA)
    found = epsilon([skellam] * count, delta=DELTA)
    assert (found.accountant, gaussian.accountant) == ("PLD", "PLD")
    assert found.value == pytest.approx(gaussian.value, abs=3e-4)


def test_a_coarse_grid_costs_more() -> None:
    costs = []
    for bits in (4, 6, 8, 12):
        l2 = rounded_sensitivity(1.0, step=2.0**-bits, values=1000)
        release = skellam(0.01, (3.0 * 2**bits) ** 2, l2, 1000)
        costs.append(epsilon([release] * 10, delta=DELTA).value)
    assert costs == sorted(costs, reverse=True)
    assert costs[0] > 2 * costs[-1]


def test_colluding_clients_take_their_shares_away() -> None:
    l2 = rounded_sensitivity(1.0, step=2.0**-16, values=100)
    share = (5 * 2.0**16) ** 2
    releases = [Skellam(1.0, share, n, 10 - n, l2, 100) for n in (10, 9, 7, 5, 1)]
    costs = [epsilon([release], delta=DELTA).value for release in releases]
    assert costs == sorted(costs)
    assert costs[3] > 1.3 * costs[0]
    assert costs[4] == epsilon([seen(releases[0], None)], delta=DELTA).value
    together = skellam(1.0, 10 * share, l2, 100)
    assert epsilon([together], delta=DELTA).value == costs[0]


def test_discrete_and_other_releases_compose_by_renyi_dp() -> None:
    grid = DiscreteGaussian(1.0, 1e3, 1, 0, 100.0, 100)
    steps = Repeated(PoissonGaussian(0.01, 1.0), 100)
    both = epsilon([grid, steps], delta=DELTA)
    assert both.accountant == "RDP"
    alone = [epsilon([event], delta=DELTA) for event in (grid, steps)]
    assert [each.accountant for each in alone] == ["RDP", "PLD"]
    assert max(each.rdp for each in alone) < both.value < sum(e.rdp for e in alone)
    # With next to nothing of the other kind: the same Renyi DP, by two libraries.
    nothing = skellam(1.0, 1e40, 1.0, 1)
    found = epsilon([steps, nothing], delta=DELTA)
    assert found.rdp == pytest.approx(alone[1].rdp, rel=5e-3)
    assert found.value == pytest.approx(alone[1].value, rel=1e-4)


def test_one_unprotected_release_decides() -> None:
    events: list[Event] = [skellam(1.0, 1e6, 100.0, 100), NonPrivate("x")]
    found = epsilon(events, delta=DELTA)
    assert (found.value, found.accountant) == (math.inf, "RDP")
    assert epsilon(events[1:], delta=DELTA).accountant == "PLD"
    assert (accountant_of(events), accountant_of([])) == ("RDP", "PLD")
    assert group_epsilon(events, records=2, delta=DELTA) == math.inf
    assert delta_at(events, epsilon=1.0) == 1.0


def test_equal_releases_are_counted_and_rates_have_one_form() -> None:
    event = skellam(0.1, 1e6, 100.0, 100)
    assert accounting.counted([event] * 500) == ((event, 500),)
    almost = replace(event, rate=1 - 1e-12)
    assert accounting.counted([almost]) == ((replace(event, rate=1.0), 1),)
    rare = replace(event, rate=1e-300)
    assert accounting.counted([rare]) == ((replace(event, rate=1e-6), 1),)


@pytest.mark.parametrize("rate", [1e-300, 1e-6, 0.5, 1.0])
def test_extremes_are_large_or_nothing_and_no_error(rate: float) -> None:
    """A ledger may state them: neither overflow, nor nan, nor refusal."""
    for event in (
        Skellam(rate, 1e-50, 1, 0, 1e25, 2**53),
        Skellam(rate, 1e-50, 1, 0, 1e50, 1),
        Skellam(rate, 1e50, 1, 0, 1e25, 2**53),
        Skellam(rate, 1e50, 1000, 1000, 1e25, 2**53),
        Skellam(rate, 1e50, 1000, 0, 1.0, 1),
        Skellam(rate, 1e4, 1, 0, 1.0, 2**53),
        Skellam(rate, 1e10, 1, 0, 1.0, 2**53),
        Skellam(rate, 1e4, 1, 0, 1e50, 1),
        DiscreteGaussian(rate, 1e50, 1000, 0, 1.0, 2**53),
        DiscreteGaussian(rate, 0.5, 1000, 0, 1e50, 2**53),
        DiscreteGaussian(rate, 0.5, 1000, 1000, 1.0, 2**53),
    ):
        single = epsilon([event], delta=DELTA).value
        assert 0 <= single <= 500 or single == math.inf
        assert single <= group_epsilon([event], records=50, delta=DELTA)
        assert 0 <= delta_at([event], epsilon=1.0) <= 1
        assert interpret([event], delta=DELTA).advantage <= 1
    assert epsilon([skellam(rate, 1e50, 1.0, 1)], delta=DELTA).value < 0.1
    # Gaussian noise too small to compute with, beside it.
    for noise in (1e-155, 0.029):
        events: list[Event] = [skellam(rate, 1e9, 1.0, 1), Gaussian(noise)]
        assert epsilon(events, delta=DELTA).value == math.inf


@pytest.mark.long
def test_too_many_different_mechanisms_are_infinite() -> None:
    events: list[Event] = [skellam(0.5, 1e9 + i, 1.0, 1) for i in range(64)]
    assert epsilon(events, delta=DELTA).value < 1
    assert epsilon([*events, events[0]], delta=DELTA).value < 1
    for more in (skellam(0.5, 9e9, 1.0, 1), PoissonGaussian(0.5, 50.0)):
        assert epsilon([*events, more], delta=DELTA).value == math.inf
        assert delta_at([*events, more], epsilon=1.0) == 1.0


# -- what else is asked ----------------------------------------------------------------


def test_curves_by_renyi_dp_are_looser_than_those_of_gaussian_noise() -> None:
    l2 = rounded_sensitivity(1.0, step=2.0**-30, values=10)
    events: list[Event] = [DiscreteGaussian(0.05, 2 * 2.0**30, 1, 0, l2, 10)] * 100
    limit = [Repeated(PoissonGaussian(0.05, 2.0), 100)]
    ours, exact = interpret(events, delta=DELTA), interpret(limit, delta=DELTA)
    assert exact.advantage < ours.advantage < 3 * exact.advantage
    assert exact.mu_gdp < ours.mu_gdp < 2 * exact.mu_gdp
    for field in ("tpr_at_fpr", "trade_off", "posterior"):
        pairs = zip(getattr(ours, field), getattr(exact, field), strict=True)
        for (place, bound), (other, least) in pairs:
            assert place == other
            assert least < bound < 1
    spent = epsilon(events, delta=DELTA).value
    assert delta_at(events, epsilon=spent) == pytest.approx(DELTA, rel=1e-9)
    assert profile(events, (1e-5, DELTA))[1] == (DELTA, spent)
    history = over_releases(events, DELTA)
    assert history == sorted(history)
    assert history[-1] == spent


def test_groups_cost_as_if_always_there_with_a_multiple_of_the_sensitivity() -> None:
    sampled = Skellam(0.1, 1e6, 4, 1, 100.0, 100)
    three = Skellam(1.0, 1e6, 4, 1, 300.0, 100)
    assert group_epsilon([sampled] * 5, records=3, delta=DELTA) == (
        epsilon([three] * 5, delta=DELTA).value
    )
    exact = DiscreteGaussian(0.1, 1000.0, 4, 1, 100.0, 10)
    assert group_epsilon([exact, Gaussian(30.0)], records=3, delta=DELTA) == (
        epsilon(
            [DiscreteGaussian(1.0, 1000.0, 4, 1, 300.0, 10), Gaussian(10.0)],
            delta=DELTA,
        ).value
    )
    mixed: list[Event] = [sampled, PoissonGaussian(0.1, 20.0)]
    costs = [group_epsilon(mixed, records=k, delta=DELTA) for k in (1, 2, 5)]
    assert costs[0] == epsilon(mixed, delta=DELTA).value
    assert costs == sorted(costs)
    assert costs[2] < math.inf


def sums(noise: float) -> Skellam:
    """A round of 5 clients, one of them colluding: 1000 values, steps of 2^-16."""
    l2 = rounded_sensitivity(1.0, step=2.0**-16, values=1000)
    return Skellam(0.2, (noise * 2.0**16) ** 2 / 4, 4, 1, l2, 1000)


def exact_sums(noise: float) -> DiscreteGaussian:
    l2 = rounded_sensitivity(1.0, step=2.0**-16, values=1000)
    return DiscreteGaussian(0.2, noise * 2.0**16 / 2, 4, 1, l2, 1000)


@pytest.mark.parametrize("release", [sums, exact_sums])
@pytest.mark.parametrize("target", [0.3, 8.0])
def test_calibration_is_enough_and_no_more(
    release: Callable[[float], Event], target: float
) -> None:
    noise = calibrate_release(release, count=100, epsilon=target, delta=1e-5)
    assert noise == float(f"{noise:.4g}")
    assert epsilon([release(noise)] * 100, delta=1e-5).value <= target
    less = noise - 10.0 ** (math.floor(math.log10(noise)) - 3)
    assert epsilon([release(less)] * 100, delta=1e-5).value > target
    # More than by PLD, and not much.
    pld = calibrate_noise(epsilon=target, delta=1e-5, rate=0.2, steps=100)
    assert pld < noise < 1.1 * pld


def test_calibration_at_its_ends() -> None:
    assert calibrate_release(sums, count=1, epsilon=400.0, delta=1e-5) == 0.2
    for count, target, delta in (
        (1000, 1e-9, 1e-10),
        (0, 1.0, 1e-5),
        (1, 0.0, 1e-5),
        (1, math.nan, 1e-5),
        (1, 1.0, 1e-12),
    ):
        with pytest.raises(PlanError):
            calibrate_release(sums, count=count, epsilon=target, delta=delta)


def test_rules_label_what_they_found_and_refuse_what_is_not_known() -> None:
    event, steps = exact_sums(4.0), Repeated(PoissonGaussian(0.01, 1.0), 10)
    both = rules.sequential([[event], [steps]], delta=DELTA)
    assert (both.accountant, both.delta) == ("RDP", DELTA)
    assert both.epsilon == epsilon([event, steps], delta=DELTA).value
    alone = [epsilon([e], delta=DELTA) for e in (event, steps)]
    assert [found.accountant for found in alone] == ["RDP", "PLD"]
    for few, accountant in ((exact_sums(99.0), "PLD"), (exact_sums(0.5), "RDP")):
        worst = rules.disjoint({"a": [few], "b": [steps]}, delta=DELTA)
        assert (worst.accountant, worst.delta) == (accountant, DELTA)
        assert worst.epsilon == max(
            epsilon([e], delta=DELTA).value for e in (few, steps)
        )
    with pytest.raises(UsageError):
        rules.replace_one([event], delta=DELTA)
    with pytest.raises(UsageError):
        rules.random_search([event], runs=2.0, shape=1.0, delta=DELTA)


@pytest.mark.parametrize(
    "make",
    [
        lambda: rounded_sensitivity(0.0, step=1.0, values=1),
        lambda: rounded_sensitivity(1.0, step=0.0, values=1),
        lambda: rounded_sensitivity(1.0, step=1.0, values=0),
        lambda: conditional_sensitivity(0.0, step=1.0, values=1),
        lambda: conditional_sensitivity(1.0, step=-1.0, values=1),
        lambda: conditional_sensitivity(1.0, step=1.0, values=0),
        lambda: epsilon([sums(4.0)], delta=0.0),
    ],
)
def test_what_cannot_be_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(UsageError):
        make()
