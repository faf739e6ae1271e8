# SPDX-License-Identifier: Apache-2.0
"""Accounting against a closed form, and what must always hold.

Published answers are in ``test_known_answers.py``.
"""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl import wire
from secure_fl.errors import PlanError, UsageError, VerificationError
from secure_fl.privacy import (
    ADJACENCY,
    Event,
    Gaussian,
    Mechanism,
    NonPrivate,
    PoissonGaussian,
    Repeated,
    accounting,
    calibrate_noise,
    delta_at,
    epsilon,
    from_wire,
    gaussian,
    interpret,
    over_releases,
    profile,
    rdp_epsilon,
    renyi,
    to_wire,
    without_amplification,
)


def steps(rate: float, noise: float, count: int) -> Event:
    return Repeated(PoissonGaussian(rate, noise), count)


def test_only_adding_or_removing_a_record_is_offered() -> None:
    assert ADJACENCY == "add-or-remove-one"


def gaussian_delta(noise: float, eps: float) -> float:
    """Balle and Wang 2018, theorem 8."""
    a, b = 0.5 / noise, eps * noise
    phi = [math.erfc(-x / math.sqrt(2)) / 2 for x in (a - b, -a - b)]
    return phi[0] - math.exp(eps) * phi[1]


@pytest.mark.parametrize("mu", [1e-3, 0.2, 1.0, 5.0, 20.0])
def test_the_closed_form_is_its_own_inverse(mu: float) -> None:
    for delta in (1e-12, 1e-6, 1e-2):
        found = gaussian.epsilon_of(mu, delta)
        if found > 1e-9:
            assert gaussian.delta_of(mu, found) == pytest.approx(delta, rel=1e-7)
        if mu <= 5:
            assert gaussian.delta_of(mu, 1.0) == pytest.approx(
                gaussian_delta(1 / mu, 1.0), abs=1e-15
            )
    # Far beyond what exp holds.
    assert 0 < gaussian.delta_of(30.0, 1000.0) < 1


@settings(max_examples=12, deadline=None, derandomize=True)
@given(st.floats(0.5, 20), st.sampled_from([1e-9, 1e-6, 1e-4]))
def test_gaussian_agrees_with_its_closed_form(noise: float, delta: float) -> None:
    found = epsilon([Gaussian(noise)], delta=delta).value
    # An upper bound, and not more than two grid steps above.
    assert gaussian_delta(noise, found) <= delta * (1 + 1e-6)
    if found > 2e-4:
        assert gaussian_delta(noise, found - 2e-4) >= delta


@settings(max_examples=6, deadline=None, derandomize=True)
@given(st.floats(1e-4, 0.2), st.floats(2, 8), st.integers(1, 60), st.floats(1e-8, 1e-4))
def test_pld_is_below_rdp_and_amplification_helps(
    rate: float, noise: float, count: int, delta: float
) -> None:
    event = steps(rate, noise, count)
    found = epsilon([event], delta=delta)
    assert 0 <= found.value <= found.rdp * 1.001 + 1e-4
    plain = epsilon([without_amplification(event)], delta=delta)
    assert found.value <= plain.value + 1e-4


def test_more_steps_more_sampling_less_noise_cost_more() -> None:
    base = epsilon([steps(0.02, 1.2, 100)], delta=1e-6).value
    assert epsilon([steps(0.02, 1.2, 120)], delta=1e-6).value > base
    assert epsilon([steps(0.025, 1.2, 100)], delta=1e-6).value > base
    assert epsilon([steps(0.02, 1.1, 100)], delta=1e-6).value > base
    assert epsilon([steps(0.02, 1.2, 100)], delta=1e-7).value > base


def test_grouping_and_order_do_not_matter() -> None:
    one, other = PoissonGaussian(0.02, 1.2), Gaussian(8.0)
    whole = epsilon([Repeated(one, 6), Repeated(other, 2)], delta=1e-6)
    split: list[Event] = [other, one, Repeated(one, 3), other, one, one]
    assert epsilon(split, delta=1e-6) == whole


def test_rounds_add_up_to_the_whole_run_and_not_to_their_sum() -> None:
    a_round = steps(0.01, 1.0, 100)
    alone = epsilon([a_round], delta=1e-6).value
    together = epsilon([a_round] * 20, delta=1e-6).value
    assert alone == pytest.approx(0.954, abs=1e-3)
    assert together == pytest.approx(2.955, abs=1e-3)
    assert together == epsilon([steps(0.01, 1.0, 2000)], delta=1e-6).value


def test_an_epsilon_can_be_computed_again_from_the_bytes() -> None:
    events: list[Event] = [steps(0.013, 1.37, 40), Gaussian(7.1), Gaussian(7.1)]
    data = wire.encode([to_wire(event) for event in events])
    decoded = wire.decode(data)
    assert isinstance(decoded, list)
    again = [from_wire(value) for value in decoded]
    assert epsilon(again, delta=1e-6) == epsilon(events, delta=1e-6)


# -- two computations that differ ------------------------------------------------------


def test_a_renyi_curve_that_differs_from_ours_is_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    event = PoissonGaussian(0.0123, 1.234)
    right = renyi.of_mechanism(event, 17)

    def wrong(mechanism: Mechanism, order: int) -> float:
        return right * 1.00001 if order == 17 else original(mechanism, order)

    original = renyi.of_mechanism
    monkeypatch.setattr(renyi, "of_mechanism", wrong)
    with pytest.raises(VerificationError, match="order 17") as caught:
        rdp_epsilon([event], delta=1e-6)
    assert f"{right:.9g} by dp-accounting" in str(caught.value)
    assert f"{right * 1.00001:.9g} by ours" in str(caught.value)


@pytest.mark.parametrize("off", [-3e-4, 1e-4])
def test_a_pld_that_differs_from_the_closed_form_is_refused(
    monkeypatch: pytest.MonkeyPatch, off: float
) -> None:
    noise = 3.21 + off  # other parameters each time: answers are kept
    found = epsilon([Gaussian(noise)], delta=1e-6).value
    original = gaussian.epsilon_of
    monkeypatch.setattr(gaussian, "epsilon_of", lambda mu, d: original(mu, d) + off)
    with pytest.raises(VerificationError, match="closed form"):
        epsilon([Gaussian(noise)], delta=1.000001e-6)
    monkeypatch.undo()
    assert epsilon([Gaussian(noise)], delta=1.000001e-6).value == pytest.approx(
        found, abs=1e-5
    )


def test_a_pld_above_rdp_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    event = PoissonGaussian(0.0321, 0.321)  # so little noise that one grid is tried
    right = rdp_epsilon([event], delta=1e-6)
    monkeypatch.setattr(accounting, "_rdp", lambda counts, delta: right / 100)
    with pytest.raises(VerificationError, match="PLD says"):
        epsilon([event], delta=1e-6)


def test_rate_one_is_the_gaussian_mechanism() -> None:
    sampled: list[Event] = [PoissonGaussian(1.0, 2.0), Gaussian(3.0)]
    assert epsilon(sampled, delta=1e-6) == epsilon(
        [Gaussian(2.0), Gaussian(3.0)], delta=1e-6
    )


def test_nothing_costs_nothing_and_one_unprotected_release_costs_all() -> None:
    assert epsilon([], delta=1e-6).value == 0
    assert delta_at([], epsilon=0) == 0
    events: list[Event] = [Gaussian(5.0), NonPrivate("a baseline")]
    assert math.isinf(epsilon(events, delta=1e-6).value)
    assert delta_at(events, epsilon=100) == 1
    meaning = interpret(events, delta=1e-6)
    assert (meaning.advantage, meaning.mu_gdp) == (1, math.inf)
    assert interpret([], delta=1e-6).tpr_at_fpr == ((1e-3, 1e-3), (1e-2, 1e-2))


@pytest.mark.parametrize(
    "event", [Gaussian(1e-300), Repeated(PoissonGaussian(0.9, 0.1), 10**6)]
)
def test_hardly_any_noise_is_infinite_at_once(event: Event) -> None:
    assert math.isinf(epsilon([event], delta=1e-6).value)
    assert delta_at([event], epsilon=10) == 1


@pytest.mark.parametrize(
    "event", [Gaussian(1e300), PoissonGaussian(1e-300, 1.0), steps(1e-9, 1e6, 10**6)]
)
def test_hardly_any_loss_is_nearly_nothing(event: Event) -> None:
    assert epsilon([event], delta=1e-6).value < 1e-3


def test_a_profile_and_a_history_are_epsilons() -> None:
    events: list[Event] = [Gaussian(9.0), Repeated(Gaussian(7.0), 2), Gaussian(9.0)]
    deltas = (1e-5, 1e-7)
    assert profile(events, deltas) == tuple(
        (d, epsilon(events, delta=d).value) for d in deltas
    )
    history = over_releases(events, 1e-6)
    assert history == sorted(history)
    assert history[-1] == epsilon(events, delta=1e-6).value
    assert history[0] == epsilon(events[:1], delta=1e-6).value
    assert over_releases([], 1e-6) == []


@pytest.mark.parametrize("delta", [0.0, -1e-6, 1.0, math.nan, 9.9e-11])
def test_a_delta_out_of_range_is_refused(delta: float) -> None:
    with pytest.raises(UsageError):
        epsilon([Gaussian(1.0)], delta=delta)


def test_delta_and_epsilon_are_inverse() -> None:
    events = [steps(0.02, 1.2, 100)]
    found = epsilon(events, delta=1e-6).value
    assert delta_at(events, epsilon=found) == pytest.approx(1e-6, rel=1e-3)
    with pytest.raises(UsageError):
        delta_at(events, epsilon=-1.0)


# -- what it means ---------------------------------------------------------------------


def test_conversions_of_a_known_run() -> None:
    meaning = interpret([steps(0.02, 1.0, 1000)], delta=1e-6)
    assert meaning.advantage == pytest.approx(0.311, abs=1e-3)
    # Read off the curve near delta 1e-10; by tilted transforms, in other places, 0.974.
    assert meaning.mu_gdp == pytest.approx(0.976, abs=3e-3)
    assert dict(meaning.tpr_at_fpr)[1e-3] == pytest.approx(0.0129, abs=1e-4)
    assert dict(meaning.tpr_at_fpr)[1e-2] == pytest.approx(0.069, abs=1e-3)


def loss_of(bound: float) -> float:
    """The loss that takes a prior of one half to ``bound``."""
    return math.log(bound / (1 - bound))


@pytest.mark.parametrize(
    ("noise", "delta", "quantile"), [(4.0, 1e-5, 4.2648908), (2.0, 1e-6, 4.7534243)]
)
def test_the_posterior_bounds_the_loss_itself(
    noise: float, delta: float, quantile: float
) -> None:
    """A Gaussian's loss is normal, mean mu^2 / 2 and deviation mu: exact quantiles."""
    event = Gaussian(noise)
    exact = 1 / (2 * noise**2) + quantile / noise
    meaning = interpret([event], delta=delta)
    loss = loss_of(dict(meaning.posterior)[0.5])
    assert exact <= loss <= 1.06 * exact
    # which an epsilon at this delta is not
    assert epsilon([event], delta=delta).value < 0.95 * exact
    for prior, bound in meaning.posterior:
        odds = math.exp(loss) * prior / (1 - prior)
        assert bound == pytest.approx(odds / (1 + odds), rel=1e-9)


def test_the_posterior_of_a_sampled_run() -> None:
    events, delta = [steps(0.02, 1.0, 1000)], 1e-6
    loss = loss_of(dict(interpret(events, delta=delta).posterior)[0.5])
    curve = [(i / 100, delta_at(events, epsilon=i / 100)) for i in range(700)]

    def above(x: float) -> float:
        return min(d / (1 - math.exp(t - x)) for t, d in curve if t < x)

    assert above(loss * 1.01) <= delta < above(loss * 0.99)
    assert loss > epsilon(events, delta=delta).value


def test_no_curve_bounds_the_posterior_at_the_smallest_delta() -> None:
    meaning = interpret([Gaussian(4.0)], delta=1e-10)
    assert [bound for _, bound in meaning.posterior] == [1.0, 1.0, 1.0]


def test_a_gaussian_is_its_own_gaussian_dp() -> None:
    meaning = interpret([Gaussian(2.0)], delta=1e-6)
    assert meaning.mu_gdp == pytest.approx(0.5, abs=1e-3)
    # Neyman and Pearson: the best test of N(0, 1) against N(mu, 1).
    for rate, power in meaning.tpr_at_fpr:
        z = {1e-3: 3.0902323, 1e-2: 2.3263479}[rate]
        exact = math.erfc((z - 0.5) / math.sqrt(2)) / 2
        assert exact <= power <= exact * 1.02


# -- noise for a target ----------------------------------------------------------------


@pytest.mark.parametrize(
    ("target", "delta", "rate", "count", "expected"),
    [
        (1.0, 1e-5, 1.0, 1, 3.731),  # K14: 3.7306316, rounded up
        (1.0, 1e-6, 1.0, 1, 4.225),  # K14: 4.2246789
        (1.0, 1e-6, 0.02, 40, None),
    ],
)
def test_calibration_is_enough_and_no_more(
    target: float, delta: float, rate: float, count: int, expected: float | None
) -> None:
    noise = calibrate_noise(epsilon=target, delta=delta, rate=rate, steps=count)
    if expected is not None:
        assert noise == expected
    assert noise == float(f"{noise:.4g}")
    assert epsilon([steps(rate, noise, count)], delta=delta).value <= target
    less = noise - 10.0 ** (math.floor(math.log10(noise)) - 3)
    assert epsilon([steps(rate, less, count)], delta=delta).value > target


def test_a_generous_target_gets_the_least_noise_there_is() -> None:
    assert calibrate_noise(epsilon=400.0, delta=1e-5, rate=1.0, steps=1) == 0.2


@pytest.mark.parametrize(
    ("target", "delta", "rate", "count"),
    [
        (0.0, 1e-6, 0.1, 1),
        (math.nan, 1e-6, 0.1, 1),
        (math.inf, 1e-6, 0.1, 1),
        (1.0, 0.0, 0.1, 1),
        (1.0, 1e-6, 0.0, 1),
        (1.0, 1e-6, 1.5, 1),
        (1.0, 1e-6, 0.1, 0),
        (1e-9, 1e-10, 1.0, 10**6),
        (1.0, 1e-12, 1.0, 1),
    ],
)
def test_the_impossible_is_a_plan_error(
    target: float, delta: float, rate: float, count: int
) -> None:
    with pytest.raises(PlanError):
        calibrate_noise(epsilon=target, delta=delta, rate=rate, steps=count)


def test_a_rate_just_below_one_is_accounted_as_one() -> None:
    """dp-accounting finds no losses there, and a ledger may state it."""
    for rate in (1 - 2.0**-53, 1 - 1e-12, 1 - 1e-7):
        almost = Repeated(PoissonGaussian(rate, 0.16), 7)
        found = epsilon([almost], delta=1e-9)
        assert found == epsilon([Repeated(Gaussian(0.16), 7)], delta=1e-9)
    below = epsilon([Repeated(PoissonGaussian(1 - 2e-6, 0.16), 7)], delta=1e-9)
    assert below.value == pytest.approx(found.value, rel=1e-4)


def test_as_many_mechanisms_as_may_be_are_kept() -> None:
    """Epsilons of a ledger as it grows compute no release's losses anew."""
    noises = [15 + i / 16 for i in range(accounting.MOST_MECHANISMS)]
    events = [PoissonGaussian(0.03, noise) for noise in noises]
    epsilon(events, delta=1e-5)
    before = accounting._small.cache_info().misses
    epsilon([*events, *events[:2]], delta=1e-5)
    assert accounting._small.cache_info().misses == before
    more = [*events, PoissonGaussian(0.03, 14.0)]
    assert epsilon(more, delta=1e-5).value == math.inf
    assert delta_at(more, epsilon=1.0) == 1.0
