# SPDX-License-Identifier: Apache-2.0
"""Rules of composition, each with its answer.

Most answers are for delta 1e-6 and were computed once by dp-accounting, called on its
own, and kept: they show that nothing changed, and that a rule composes what it says.
What is derived, and not taken from there, is said at the test.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from secure_fl.errors import UsageError, VerificationError
from secure_fl.privacy import (
    Event,
    Gaussian,
    NonPrivate,
    PoissonGaussian,
    Repeated,
    epsilon,
    group_epsilon,
    rdp_epsilon,
    renyi,
    rules,
)

DELTA = 1e-6


def steps(rate: float, noise: float, count: int) -> Event:
    return Repeated(PoissonGaussian(rate, noise), count)


A = [steps(0.01, 1.0, 2000)]
B = [steps(0.02, 1.1, 1000)]
C = [steps(0.05, 1.2, 400)]


def total(*events: Event) -> float:
    bound = rules.sequential([events], delta=DELTA)
    assert (bound.accountant, bound.delta) == ("PLD", DELTA)
    return bound.epsilon


def near(value: float) -> object:
    return pytest.approx(value, abs=6e-4)


def test_disjoint_clients_cost_what_the_worst_costs() -> None:
    bound = rules.disjoint({"a": A, "b": B, "c": C}, delta=DELTA)
    assert bound.epsilon == near(5.440)
    assert bound.accountant == "PLD"
    each = [epsilon(events, delta=DELTA).value for events in (A, B, C)]
    assert each == [near(2.955), near(3.702), near(5.440)]
    assert rules.disjoint({}, delta=DELTA).epsilon == 0


def test_a_customer_of_several_clients_pays_at_all_of_them() -> None:
    """Mixed sampling rates and noises compose as they are."""
    overlapping = rules.sequential([A, B, C], delta=DELTA).epsilon
    assert overlapping == near(7.397)
    naive = sum(epsilon(events, delta=DELTA / 3).value for events in (A, B, C))
    assert naive == pytest.approx(12.76, abs=5e-3)


def test_one_unprotected_release_decides() -> None:
    bad: list[Event] = [NonPrivate("a baseline")]
    assert math.isinf(rules.sequential([A, bad], delta=DELTA).epsilon)
    assert math.isinf(rules.disjoint({"a": A, "b": bad}, delta=DELTA).epsilon)
    assert math.isinf(rules.replace_one(bad, delta=DELTA).epsilon)
    search = rules.random_search(bad, runs=2.0, shape=1.0, delta=DELTA)
    assert math.isinf(search.epsilon)


def test_retries_are_charged() -> None:
    assert total(*A) == near(2.955)
    retried = rules.sequential([A, [steps(0.01, 1.0, 100)]], delta=DELTA).epsilon
    assert retried == near(3.028)


def test_rounds_are_neither_forgotten_nor_added() -> None:
    """An accountant that starts afresh each round would report 0.954."""
    one = [steps(0.01, 1.0, 100)]
    assert total(*one) == near(0.954)
    assert rules.sequential([one] * 20, delta=DELTA).epsilon == near(2.955)
    naive = 20 * epsilon(one, delta=DELTA / 20).value
    assert naive == pytest.approx(26.35, abs=1e-2)


def test_several_values_of_one_sample_are_one_release() -> None:
    both = rules.same_sample(0.01, [1.0, 3.0])
    assert both == PoissonGaussian(0.01, (1 + 1 / 9) ** -0.5)
    right = total(Repeated(both, 1000))
    assert right == near(2.390)
    # As if for each value a sample had been drawn: less than the truth.
    apart = total(steps(0.01, 1.0, 1000), steps(0.01, 3.0, 1000))
    assert apart == near(2.177)
    assert apart < right
    # The gradient alone, as if the count were free, is wrong as well.
    assert total(steps(0.01, 1.0, 1000)) < right
    with pytest.raises(UsageError):
        rules.same_sample(0.01, [])


@pytest.mark.parametrize("noise", [1e-200, 1e200])
def test_one_value_of_a_sample_is_itself_at_any_size(noise: float) -> None:
    found = rules.same_sample(0.01, [noise]).noise_multiplier
    assert found == pytest.approx(noise, rel=1e-12)
    assert rules.same_sample(0.01, [noise, noise]).noise_multiplier == pytest.approx(
        noise / math.sqrt(2), rel=1e-12
    )
    with pytest.raises(UsageError):
        rules.same_sample(0.01, [5e-324])


def test_shuffled_batches_gain_nothing_from_sampling() -> None:
    """One record made null: it is in one batch an epoch."""
    assert total(rules.every_release(1.0, 20)) == pytest.approx(30.58, abs=5e-3)


def test_a_record_added_to_shuffled_batches_moves_another_one() -> None:
    """Three records of -1 in batches of two, and a fourth of +1 added: by numbers.

    The sums are (-2, -1) before, and (0, -2) or (-2, 0) after.
    """
    claimed = total(rules.shuffled_batches(1.0, 1))
    assert claimed == total(Gaussian(5**-0.5))
    x = np.linspace(-12, 12, 2401)
    first, second = np.meshgrid(x, x, indexing="ij", sparse=True)

    def density(a: float, b: float) -> Any:
        return np.exp(-((first - a) ** 2 + (second - b) ** 2) / 2) / (2 * math.pi)

    before = density(-2, -1)
    after = (density(0, -2) + density(-2, 0)) / 2

    def delta(eps: float) -> float:
        gain = np.maximum(after - math.exp(eps) * before, 0)
        return float(gain.sum() * (x[1] - x[0]) ** 2)

    assert delta(total(rules.every_release(1.0, 1))) > 1e-3
    assert delta(11.57) > DELTA
    assert delta(claimed) <= DELTA


def test_a_whole_client_as_the_unit() -> None:
    assert total(rules.every_release(16.0, 200)) == near(4.249)


@pytest.mark.parametrize(
    ("records", "expected"),
    [(1, 2.955), (2, 6.433), (3, 10.30), (5, 19.12), (10, 47.03)],
)
def test_several_records_of_one_person_at_one_client(
    records: int, expected: float
) -> None:
    found = group_epsilon(A, records=records, delta=DELTA)
    assert found == pytest.approx(expected, abs=5e-3)


def test_groups_of_other_releases() -> None:
    mixed: list[Event] = [*A, Gaussian(20.0)]
    two = group_epsilon(mixed, records=2, delta=DELTA)
    assert two > group_epsilon(A, records=2, delta=DELTA)
    assert two > epsilon(mixed, delta=DELTA).value
    # All Gaussian: as many times the sensitivity, exactly.
    assert (
        group_epsilon([Repeated(Gaussian(8.0), 3)], records=4, delta=DELTA)
        == epsilon([Repeated(Gaussian(2.0), 3)], delta=DELTA).value
    )
    # Every record is in at rate 1.
    assert group_epsilon([PoissonGaussian(1.0, 8.0)], records=4, delta=DELTA) == (
        epsilon([Gaussian(2.0)], delta=DELTA).value
    )
    close = group_epsilon([PoissonGaussian(1 - 1e-9, 8.0)], records=4, delta=DELTA)
    assert close == pytest.approx(epsilon([Gaussian(2.0)], delta=DELTA).value, rel=1e-4)


@pytest.mark.parametrize(
    ("events", "expected"),
    [
        ([], 0.0),
        ([NonPrivate("x")], math.inf),
        ([Gaussian(0.05)], math.inf),
        ([PoissonGaussian(0.5, 0.05)], math.inf),
        ([steps(0.9, 1.0, 300)], math.inf),
    ],
)
def test_groups_at_the_edges(events: list[Event], expected: float) -> None:
    assert group_epsilon(events, records=2, delta=DELTA) == expected


@pytest.mark.parametrize("records", [0, -1, 51, 2.0, True])
def test_a_group_has_a_number_of_records(records: int) -> None:
    with pytest.raises(UsageError):
        group_epsilon(A, records=records, delta=DELTA)


def test_more_records_cost_more_even_where_the_grid_dominates() -> None:
    tiny = [steps(1e-6, 1.0, 1000)]
    costs = [group_epsilon(tiny, records=k, delta=DELTA) for k in (1, 2, 5)]
    assert costs == sorted(costs)


def test_one_noise_for_a_person_at_two_clients() -> None:
    """Worse than where each client adds its own."""
    central = rules.central_noise([0.01, 0.02], 1.0, steps=1000, delta=DELTA)
    assert (central.epsilon, central.accountant) == (near(7.085), "PLD")
    assert total(steps(0.01, 1.0, 1000), steps(0.02, 1.0, 1000)) == near(4.924)
    # At rate 1 at both, the sensitivity has doubled.
    always = rules.central_noise([1.0, 1.0], 4.0, steps=3, delta=DELTA)
    assert always.epsilon == pytest.approx(
        epsilon([Repeated(Gaussian(2.0), 3)], delta=DELTA).value, rel=1e-4
    )
    with pytest.raises(UsageError):
        rules.central_noise([], 1.0, steps=1, delta=DELTA)
    assert math.isinf(rules.central_noise([0.5], 0.01, steps=1, delta=DELTA).epsilon)


def test_more_steps_than_are_accounted_for_are_infinite_at_once() -> None:
    many = 10**6 + 1
    central = rules.central_noise([1e-5], 5.0, steps=many, delta=DELTA)
    capped = rules.capped_batch(
        1e-5, 5.0, records=1000, most=10, steps=many, delta=DELTA
    )
    run = [steps(1e-5, 5.0, 10**6), PoissonGaussian(1e-5, 5.0)]
    search = rules.random_search(run, runs=2.0, shape=1.0, delta=DELTA)
    replaced = rules.replace_one(run, delta=DELTA)
    hopeless = rules.capped_batch(
        0.9, 0.07, records=1000, most=10, steps=10**6, delta=DELTA
    )
    for bound in (central, capped, search, replaced, hopeless):
        assert math.isinf(bound.epsilon)


def test_only_the_sum_is_seen() -> None:
    """Ten clients that each add all the noise, and nine who may collude."""
    noises = [rules.sum_view_noise(1.0, clients=10, colluding=k) for k in range(10)]
    assert noises == sorted(noises, reverse=True)
    assert noises[0] == pytest.approx(math.sqrt(10))
    assert total(steps(0.01, noises[0], 2000)) == pytest.approx(0.60, abs=1e-3)
    assert noises[9] == 1.0  # back at what holds without any of this
    for colluding in (10, -1, 2.0):
        with pytest.raises(UsageError):
            rules.sum_view_noise(1.0, clients=10, colluding=colluding)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("colluding", "noise", "expected"),
    [(0, 16.0, 4.249), (1, 15.18, 4.509), (3, 13.39, 5.202), (5, 11.31, 6.312)],
)
def test_shares_of_noise_and_clients_that_reveal_theirs(
    colluding: int, noise: float, expected: float
) -> None:
    share = rules.noise_share(16.0, honest=10)
    found = rules.sum_view_noise(share, clients=10, colluding=colluding)
    assert found == pytest.approx(noise, abs=5e-3)
    assert total(rules.every_release(found, 200)) == near(expected)


def test_shares_sized_for_those_who_are_sure_to_be_honest() -> None:
    share = rules.noise_share(16.0, honest=8 - 2)
    assert rules.sum_view_noise(share, clients=8, colluding=2) == pytest.approx(16.0)
    assert rules.sum_view_noise(share, clients=10, colluding=2) > 16.0
    with pytest.raises(UsageError):
        rules.noise_share(16.0, honest=0)


@pytest.mark.long
def test_capped_batches_cost_a_little_more() -> None:
    bound = rules.capped_batch(
        0.01, 1.0, records=10_000, most=150, steps=2000, delta=DELTA
    )
    assert (bound.epsilon, bound.accountant) == (near(2.967), "PLD")
    assert bound.epsilon > total(*A)
    tiny = rules.capped_batch(0.01, 0.05, records=100, most=9, steps=1, delta=DELTA)
    assert math.isinf(tiny.epsilon)


@pytest.mark.long
def test_more_records_cost_more_until_most_samples_are_cut() -> None:
    found = [
        rules.capped_batch(
            0.05, 1.0, records=records, most=3, steps=50, delta=DELTA
        ).epsilon
        for records in (20, 60, 200)  # 60 is most / rate
    ]
    assert found[0] < found[1]
    assert found[2] < found[1] - 2


def test_replacing_a_record_costs_more_than_adding_one() -> None:
    bound = rules.replace_one(A, delta=DELTA)
    assert (bound.epsilon, bound.accountant) == (near(4.696), "PLD")
    assert rules.replace_one([], delta=DELTA).epsilon == 0
    halved = epsilon([Gaussian(1.5)], delta=DELTA).value
    found = rules.replace_one([Gaussian(3.0)], delta=DELTA).epsilon
    assert found == pytest.approx(halved, abs=2e-4)
    # More than twice what adding one costs.
    assert 2 * epsilon([Gaussian(3.0)], delta=DELTA).value < halved
    assert math.isinf(rules.replace_one([Gaussian(0.05)], delta=DELTA).epsilon)


@pytest.mark.long
def test_replacing_a_record_under_little_noise_is_infinite() -> None:
    """As a number it would be above 1000."""
    much = [Repeated(Gaussian(1.0), 600)]
    assert math.isinf(rules.replace_one(much, delta=DELTA).epsilon)


@pytest.mark.parametrize(
    ("shape", "expected"), [(1.0, 5.819), (0.0, 5.054), (math.inf, 6.465)]
)
def test_a_search_of_which_the_best_run_is_published(
    shape: float, expected: float
) -> None:
    bound = rules.random_search(A, runs=10.0, shape=shape, delta=DELTA)
    assert (bound.epsilon, bound.accountant) == (near(expected), "RDP")


def test_a_search_is_dearer_than_a_run_and_cheaper_than_all_runs() -> None:
    one = rdp_epsilon(A, delta=DELTA)
    assert one == near(3.247)
    mean_of_one = rules.random_search(A, runs=1.0, shape=1.0, delta=DELTA).epsilon
    assert one < mean_of_one < 1.05 * one
    all_seen = rules.sequential([A] * 10, delta=DELTA).epsilon
    assert all_seen == pytest.approx(10.25, abs=5e-3)
    assert rules.random_search([], runs=5.0, shape=1.0, delta=DELTA).epsilon == 0
    for runs, shape in ((0.5, 1.0), (2.0, -1.0), (2.0, math.nan), (math.inf, 1.0)):
        with pytest.raises(UsageError):
            rules.random_search(A, runs=runs, shape=shape, delta=DELTA)


def test_the_one_run_of_a_search_is_checked(monkeypatch: pytest.MonkeyPatch) -> None:
    run = [steps(0.0321, 1.234, 50)]
    monkeypatch.setattr(renyi, "of_mechanism", lambda mechanism, order: 1.0)
    with pytest.raises(VerificationError, match="order"):
        rules.random_search(run, runs=2.0, shape=1.0, delta=DELTA)


def test_a_search_that_costs_too_much_is_infinite() -> None:
    for event in (Gaussian(0.01), Gaussian(1e-200), Repeated(Gaussian(0.2), 30)):
        found = rules.random_search([event], runs=2.0, shape=1.0, delta=DELTA)
        assert math.isinf(found.epsilon)
    # A large finite shape is loose; its limit is not.
    loose = rules.random_search(A, runs=10.0, shape=1000.0, delta=DELTA).epsilon
    limit = rules.random_search(A, runs=10.0, shape=math.inf, delta=DELTA).epsilon
    assert loose > 4 * limit
    looser = rules.random_search(A, runs=10.0, shape=1e6, delta=DELTA).epsilon
    assert math.isinf(looser)
