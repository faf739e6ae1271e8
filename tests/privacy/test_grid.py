# SPDX-License-Identifier: Apache-2.0
"""The grid of sums: sensitivities, noise, room for every sum, and what is refused."""

from __future__ import annotations

import math
import sys
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import special, stats

from secure_fl.errors import EngineError, PlanError, UsageError
from secure_fl.fixedpoint import unwrap, wrap
from secure_fl.privacy.discrete import unsampled
from secure_fl.privacy.events import DiscreteGaussian, Skellam
from secure_fl.privacy.grid import Grid, noise_bound
from secure_fl.randomness import ArrayDraws, SeededInsecure, SystemRandom
from secure_fl.rotation import rotate, rotate_back

KEY = b"round 1"
ALPHA = 1e-6


def grid(**changes: Any) -> Grid:
    entries: dict[str, Any] = {
        "values": 3000,
        "kind": "skellam",
        "unit": "record",
        "rate": 0.2,
        "clip_norm": 1.0,
        "noise_multiplier": 4.0,
        "shares": 4,
        "colluding": 2,
        "clients": 6,
        "word_bits": 32,
        "clip": None,
        "step": None,
        "rounds": 50,
        "attempts": 2,
    }
    return Grid.of(**entries | changes)


def normals(size: int, norm: float, seed: int = 0) -> np.ndarray:
    x = ArrayDraws(seed.to_bytes(16, "big")).normal(1.0, size)
    return x * (norm / np.linalg.norm(x))


def noised(g: Grid, x: np.ndarray, seed: int | bytes = 0, key: bytes = KEY) -> Any:
    seed = seed if isinstance(seed, bytes) else seed.to_bytes(4, "big")
    return g.noised(x, rotation=key, random=SeededInsecure(seed))


# -- numbers that follow from a plan ---------------------------------------------------


@pytest.mark.parametrize("values", [1, 5, 3000, 29_645, 1_000_000])
@pytest.mark.parametrize("clip_norm", [1.0, 0.3, 7e-5])
def test_a_step_left_out_is_fine(values: int, clip_norm: float) -> None:
    g = grid(values=values, clip_norm=clip_norm, word_bits=48)
    assert math.frexp(g.step)[0] == 0.5
    steps = max(1000 * math.sqrt(g.padded), 2**18)  # of the clip norm, at least
    assert clip_norm / (2 * steps) < g.step <= clip_norm / steps


@pytest.mark.parametrize(
    ("clients", "bits", "least"),
    [
        (3, 32, 2**18),  # room for more
        (8, 32, 2**18),
        (9, 32, (2**31 - 1) / 9000),  # no more room than for this
        (50, 32, (2**31 - 1) / 50_000),
        (100, 32, 32_000),  # nor for this: the thousandth counts
        (6, 24, 32_000),
        (6, 64, 2**18),
    ],
)
def test_narrow_words_have_coarser_steps(clients: int, bits: int, least: float) -> None:
    g = grid(values=1000, clients=clients, word_bits=bits, noise_multiplier=0.5)
    assert g.padded == 1024
    assert 1 / (2 * least) < g.step <= 1 / least
    assert g.clip > 10


def test_numbers_of_one_plan() -> None:
    """Worked out by hand from the definitions, with a calculator."""
    g = grid(values=29_645, word_bits=32)
    assert g.padded == 32_768
    assert g.step == 2.0**-18  # both the thousandth and 2^18 of them ask for it
    assert g.variance == (4 * 2**18) ** 2 / 4
    assert g.deviation == 2.0**19
    log = (15 + 1 + 40) * math.log(2) + math.log(100)
    worked = log / 3 + math.sqrt((log / 3) ** 2 + 2 * log * 6 * 2.0**38)
    bound = noise_bound(32_768 * 50 * 2, 6 * 2.0**38)
    assert abs(bound - worked) < 2
    assert g.clip == (2**31 - 1 - bound) // 6 * g.step
    l2 = 2**18 * (1 + 1e-6) + math.sqrt(32_768)
    assert g.event == Skellam(0.2, 2.0**38, 4, 2, l2, 32_768)
    assert g.event.l1 == math.sqrt(32_768) * l2


def test_events_of_the_four_kinds_of_plan() -> None:
    g = grid(values=16, step=2.0**-10, noise_multiplier=0.5)
    variance = (0.5 * 1024) ** 2 / 4
    record = 1024 * (1 + 1e-6) + 4
    whole = math.sqrt((1024 * (1 + 1e-6)) ** 2 + 4 + 1024 * (1 + 1e-6) + 2)
    assert g.event == Skellam(0.2, variance, 4, 2, record, 16)
    g = grid(values=16, step=2.0**-10, noise_multiplier=0.5, kind="discrete-gaussian")
    assert g.event == DiscreteGaussian(0.2, 256.0, 4, 2, record, 16)
    client: dict[str, Any] = {"unit": "client", "rate": 1.0}
    event = grid(values=16, step=2.0**-10, noise_multiplier=0.5, **client).event
    assert isinstance(event, Skellam)
    assert event.rate == 1
    assert event.l2 == pytest.approx(whole, rel=1e-12)
    assert event.values == 16


def test_the_step_that_is_chosen_costs_little() -> None:
    """Against continuous noise without rounding, at the same multiplier."""
    for values in (1, 3000, 1_000_000):
        event = grid(values=values, word_bits=48).event
        for order in (2, 8, 32):
            assert 1 < unsampled(event, order) / (order / (2 * 4.0**2)) < 1.005


# -- sensitivity -----------------------------------------------------------------------


def both_norms(x: np.ndarray) -> tuple[float, float]:
    return float(np.linalg.norm(x)), float(np.abs(x).sum())


@settings(max_examples=60, deadline=None)
@given(
    values=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    others=st.sampled_from([0.0, 0.5, 30.0, 1e5]),
    coarse=st.floats(100, 300),
    clip=st.sampled_from([None, 1.0, 3.0]),
)
def test_a_record_moves_a_rounded_sum_by_no_more_than_is_accounted(
    values: int, seed: int, others: float, coarse: float, clip: float | None
) -> None:
    """The same dither and the same noise, with and without one record."""
    size = grid(values=values).padded
    g = grid(values=values, step=1 / (coarse * math.sqrt(size)), clip=clip)
    x, record = normals(values, others, seed), normals(values, 1.0, seed + 1)
    l2, l1 = both_norms(noised(g, x + record, seed) - noised(g, x, seed))
    assert isinstance(g.event, Skellam)
    assert l2 <= g.event.l2
    assert l1 <= g.event.l1


def test_rounding_does_add_to_what_a_record_moves() -> None:
    """Without that allowance half of these would be above the sensitivity."""
    g = grid(values=1, step=1 / 100.5)
    assert isinstance(g.event, Skellam)
    moved = {
        int(noised(g, np.array([1.0]), seed)[0] - noised(g, np.zeros(1), seed)[0])
        for seed in range(50)
    }
    moved |= {-move for move in moved}
    assert max(moved) == 101
    assert 100.5 * (1 + 1e-6) < 101 <= g.event.l2


@settings(max_examples=60, deadline=None)
@given(
    values=st.integers(1, 40),
    seed=st.integers(0, 2**32 - 1),
    coarse=st.floats(100, 300),
    clip=st.sampled_from([None, 1.0]),
)
def test_a_whole_update_is_no_longer_than_is_accounted(
    values: int, seed: int, coarse: float, clip: float | None
) -> None:
    size = grid(values=values).padded
    step = 1 / (coarse * math.sqrt(size))
    g = grid(values=values, step=step, clip=clip, unit="client", rate=1.0)
    x = normals(values, 1.0, seed)
    l2, l1 = both_norms(noised(g, x, seed) - noised(g, np.zeros(values), seed))
    assert isinstance(g.event, Skellam)
    assert l2 <= g.event.l2
    assert l1 <= g.event.l1


def half_way(g: Grid) -> np.ndarray:
    """A vector as long as the clip norm, rotated to between two steps everywhere."""
    assert g.values == g.padded == 64
    assert g.step == 1 / 804
    return rotate_back(np.full(64, 100.5 * g.step), KEY, values=64)


def test_a_rounding_that_is_too_long_is_drawn_again_as_a_whole() -> None:
    g = grid(values=64, step=1 / 804, unit="client", rate=1.0, noise_multiplier=0.01)
    assert isinstance(g.event, Skellam)
    x = half_way(g)
    rounded = [noised(g, x, s) - noised(g, np.zeros(64), s) for s in range(400)]
    norms = np.array([np.linalg.norm(units) for units in rounded])
    assert norms.max() <= g.event.l2
    # Some 16 % of single roundings are longer: the bound was met often.
    free = grid(values=64, step=1 / 804, noise_multiplier=0.01)
    single = [noised(free, x, s) - noised(free, np.zeros(64), s) for s in range(400)]
    longer = np.array([np.linalg.norm(units) for units in single]) > g.event.l2
    assert 30 < longer.sum() < 110
    # What was short enough stays; what was not is another one in most coordinates.
    for again, kept, new in zip(single, rounded, longer, strict=True):
        assert np.count_nonzero(again != kept) > 10 if new else (again == kept).all()


def test_randomness_that_only_rounds_up_ends_the_round(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    g = grid(values=64, step=1 / 804, unit="client", rate=1.0)
    monkeypatch.setattr(ArrayDraws, "uniform", lambda _, size: np.full(size, 0.999))
    with pytest.raises(EngineError, match="too long"):
        noised(g, half_way(g))


# -- noise -----------------------------------------------------------------------------


def of_variance(x: np.ndarray, variance: float) -> float:
    """P-value of normal ``x`` (as good as) with mean 0 against this variance."""
    p = stats.chi2(x.size).cdf(float((x.astype(float) ** 2).sum()) / variance)
    return float(2 * min(p, 1 - p))


@pytest.mark.parametrize("unit", ["record", "client"])
def test_one_share_and_all_shares_have_the_variance_that_is_accounted(
    unit: str,
) -> None:
    """Of zero vectors, so that nothing is rounded: what is sent is noise alone."""
    g = grid(values=32_768, unit=unit, rate=1.0, word_bits=40)
    shares = [noised(g, np.zeros(32_768), seed) for seed in range(g.shares)]
    assert isinstance(g.event, Skellam)
    assert all(share.dtype == np.int64 for share in shares)
    for share in shares:
        assert of_variance(share, g.event.variance) > ALPHA
        assert stats.kstest(share / g.deviation, "norm").pvalue > ALPHA
    total = np.sum(shares, axis=0)
    assert of_variance(total, g.event.variance * g.event.shares) > ALPHA
    opened = g.opened(total, rotation=KEY)
    assert of_variance(opened, (g.noise_multiplier * g.clip_norm) ** 2) > ALPHA


def test_noise_is_fresh_for_every_coordinate_client_and_round() -> None:
    g = grid(values=32_768)
    zero = np.zeros(32_768)
    client = SeededInsecure(b"client 1")
    first = g.noised(zero, rotation=KEY, random=client)
    second = g.noised(zero, rotation=b"round 2", random=client)
    other = noised(g, zero, b"client 2")
    for a, b in (
        (first, second),
        (first, other),
        (second, other),
        (first[1:], first[:-1]),
        (first[4096:], first[:-4096]),
    ):
        assert stats.pearsonr(a, b).pvalue > ALPHA
        assert stats.pearsonr(a.astype(float) ** 2, b.astype(float) ** 2).pvalue > ALPHA


def test_an_opened_sum_is_the_sum_without_bias() -> None:
    """Coarse steps and little noise, so that a bias of rounding would show."""
    g = grid(values=3000, step=1.5e-4, noise_multiplier=1e-3, shares=1)
    xs = [normals(3000, 1.0, seed) for seed in range(5)]
    runs, mean = 40, np.zeros(3000)
    for run in range(runs):
        total = np.zeros(g.padded, np.int64)
        for client, x in enumerate(xs):
            total += noised(g, x, 100 * run + client)
        mean += (g.opened(total, rotation=KEY) - np.sum(xs, axis=0)) / runs
    # Rounding adds at most a quarter of a squared step to the variance of each.
    spread = g.step * math.sqrt(5 * (g.variance + 0.25) / runs)
    assert stats.chi2(3000).sf(float((mean**2).sum()) / spread**2) > ALPHA
    assert float((mean**2).sum()) > 0.6 * 3000 * spread**2
    along = float(mean @ np.sum(xs, axis=0)) / np.linalg.norm(np.sum(xs, axis=0))
    assert abs(along) < 5 * spread


def test_what_is_on_the_grid_is_not_rounded() -> None:
    g = grid(values=1024, step=2.0**-13, noise_multiplier=0.01)
    units = (32 * (np.arange(1024) % 7 - 3)).astype(np.float64)
    x = rotate_back(units * g.step, KEY, values=1024)
    share = noised(g, np.zeros(1024), 5)
    assert np.array_equal(rotate(x, KEY) / g.step, units)
    assert np.array_equal(noised(g, x, 5) - share, units)


def test_coordinates_are_clipped_and_noise_is_not() -> None:
    g = grid(values=4, clip=1.0, noise_multiplier=4.0)
    large = rotate_back(np.array([1e9, -1e9, 0.5, 1.0]), KEY, values=4)
    share = noised(g, np.zeros(4), 1)
    units = noised(g, large, 1) - share
    assert np.abs(units - np.array([1.0, -1.0, 0.5, 1.0]) / g.step).max() <= 1
    # Normal around the clip, of half the noise of four shares: half is above it.
    sent = np.array([noised(g, large, seed)[0] * g.step for seed in range(3000)])
    assert stats.kstest((sent - 1) / 2, "norm").pvalue > ALPHA
    assert sent.max() > 1 + 3 * 2


def test_as_much_is_drawn_whatever_the_vector_holds() -> None:
    g = grid(values=100)
    left = set()
    for x in (np.zeros(100), normals(100, 1e5), np.full(100, 1e-9)):
        source = SeededInsecure(b"s")
        g.noised(x, rotation=KEY, random=source)
        left.add(source.bytes(8))
    assert len(left) == 1


def test_exact_noise_is_used_where_it_is_planned() -> None:
    pytest.importorskip("opendp")
    g = grid(values=2000, kind="discrete-gaussian")
    zero = np.zeros(2000)
    share = g.noised(zero, rotation=KEY, random=SystemRandom())
    assert share.shape == (2048,)
    assert of_variance(share, g.deviation**2) > ALPHA
    with pytest.raises(UsageError, match="seed"):
        noised(g, zero)


def test_a_source_that_cannot_draw_the_noise_is_known_before_a_charge(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    grid().check_source(SeededInsecure(b"s"))
    exact = grid(kind="discrete-gaussian")
    with pytest.raises(UsageError, match="seed"):
        exact.check_source(SeededInsecure(b"s"))
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(UsageError, match="OpenDP"):
        exact.check_source(SystemRandom())


# -- room for every sum ----------------------------------------------------------------


@pytest.mark.parametrize("word_bits", [24, 32, 53, 54, 64])
@pytest.mark.parametrize("step", [None, 1e-4, 7.3e-5])
def test_the_largest_sum_fits_and_a_larger_clip_would_not(
    word_bits: int, step: float | None
) -> None:
    g = grid(values=1000, word_bits=word_bits, step=step)
    room = min(2 ** (word_bits - 1), 2**53) - 1
    largest = math.ceil(g.clip / g.step)
    noise = noise_bound(g.padded * 50 * 2, g.clients * g.variance)
    assert g.clients * largest + noise <= room
    assert g.clients * (largest + 2) + noise > room
    stated = grid(values=1000, word_bits=word_bits, step=step, clip=g.clip)
    assert stated == g
    if word_bits < 54:
        with pytest.raises(PlanError, match="could wrap"):
            grid(values=1000, word_bits=word_bits, step=step, clip=g.clip + 3 * g.step)


@settings(max_examples=200, deadline=None)
@given(step=st.floats(1e-7, 3e-4), bits=st.integers(40, 64), shares=st.integers(1, 6))
def test_the_clip_that_is_chosen_can_be_stated(
    step: float, bits: int, shares: int
) -> None:
    chosen = grid(values=1000, step=step, word_bits=bits, shares=shares)
    assert grid(
        values=1000, step=step, word_bits=bits, shares=shares, clip=chosen.clip
    ) == (chosen)


def test_the_worst_sum_of_all_clients_comes_out_of_its_words() -> None:
    g = grid(values=1024, word_bits=24, noise_multiplier=1.0)
    far = np.full(1024, 1e9)
    total = np.zeros(g.padded, np.int64)
    words = wrap(total, 24)
    for seed in range(g.clients):
        units = noised(g, rotate_back(far, KEY, values=1024), seed)
        total += units
        words = words + wrap(units, 24)
    assert total.max() > 0.9 * 2**23
    assert np.array_equal(unwrap(words & np.uint32(2**24 - 1), 24), total)


@pytest.mark.parametrize(("variance", "near"), [(3.0, 0.58), (1e3, 0.9), (1e5, 0.94)])
@pytest.mark.parametrize("values", [1, 30_000])
def test_noise_stays_below_its_bound_and_the_bound_is_near(
    variance: float, near: float, values: int
) -> None:
    """Against the exact tail of the sum of all clients' noise."""
    coordinates = grid(values=values, word_bits=40).padded * 50 * 2
    bound = noise_bound(coordinates, variance)

    def beyond(most: int) -> float:
        k = np.arange(most + 1, most + 20_000)
        return 2 * coordinates * float(special.ive(k, variance).sum())

    assert beyond(bound) < 2.0**-40
    assert beyond(int(near * bound)) > 2.0**-40


# -- what is refused -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "key", "words"),
    [
        ({"clip_norm": 0.0}, "privacy.clip_norm", "positive"),
        ({"clip_norm": math.inf}, "privacy.clip_norm", "positive"),
        ({"clip_norm": 1e-305}, "privacy.clip_norm", "too small"),
        ({"noise_multiplier": 0.0}, "privacy.noise_multiplier", "positive"),
        ({"noise_multiplier": math.nan}, "privacy.noise_multiplier", "positive"),
        ({"noise_multiplier": 1e200}, "protection.step", "too fine"),
        ({"step": -1.0}, "protection.step", "positive"),
        ({"step": 1.001 / 6400}, "protection.step", "too coarse"),
        ({"step": 2.0**-27}, "protection.step", "too fine"),
        ({"step": 1e-320}, "protection.step", "too fine"),
        ({"clip": math.nan}, "protection.clip", "positive"),
        ({"clip": 0.999}, "protection.clip", "below the clip norm"),
        ({"clip": 1e6}, "protection.clip", "could wrap"),
        ({"clip": 1e308, "step": 1e-5}, "protection.clip", "could wrap"),
        ({"word_bits": 20}, "protection.word_bits", "too few"),
        ({"word_bits": 8}, "protection.word_bits", "too few"),
        ({"noise_multiplier": 3000.0}, "protection.step", "too fine"),
        (
            {"noise_multiplier": 3000.0, "step": 1.5e-5},
            "protection.word_bits",
            "too few",
        ),
        (
            {"kind": "discrete-gaussian", "values": 2**17 + 1, "word_bits": 48},
            "privacy.noise",
            "exactly",
        ),
        (
            {"kind": "discrete-gaussian", "noise_multiplier": 1e-6},
            "protection.step",
            "half a step",
        ),
        (
            {"kind": "discrete-gaussian", "noise_multiplier": 1e200},
            "protection.step",
            "too fine",
        ),
    ],
)
def test_a_plan_whose_numbers_do_not_fit_is_refused(
    changes: dict[str, Any], key: str, words: str
) -> None:
    with pytest.raises(PlanError, match=words) as caught:
        grid(**changes)
    assert caught.value.key == key
    assert caught.value.hint


def test_the_coarsest_step_is_allowed_and_named() -> None:
    assert grid(values=4096, step=1 / 6400).step == 1 / 6400
    with pytest.raises(PlanError) as caught:
        grid(values=4096, step=1 / 6000)
    assert repr(2.0**-16) in caught.value.hint
    with pytest.raises(PlanError) as caught:
        grid(values=4096, noise_multiplier=3000.0)
    assert repr(2.0**-13) in caught.value.hint


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e300])
def test_a_vector_that_is_not_finite_is_refused_before_anything_is_drawn(
    bad: float,
) -> None:
    g = grid(values=10)
    x = np.zeros(10)
    x[7] = bad
    source = SeededInsecure(b"s")
    with pytest.raises(UsageError, match="not finite"):
        g.noised(x, rotation=KEY, random=source)
    assert source.bytes(8) == SeededInsecure(b"s").bytes(8)


@pytest.mark.parametrize("shape", [(9,), (11,), (16,), (10, 1), ()])
def test_a_vector_of_another_length_is_refused(shape: tuple[int, ...]) -> None:
    g = grid(values=10)
    with pytest.raises(UsageError, match="10 values") as caught:
        noised(g, np.zeros(shape))
    assert caught.value.hint
    with pytest.raises(UsageError, match="16 values") as caught:
        g.opened(np.zeros((10,), np.int64), rotation=KEY)
    assert caught.value.hint


def test_a_whole_update_that_is_not_clipped_is_refused_and_a_batch_is_not() -> None:
    client = grid(values=10, unit="client", rate=1.0)
    noised(client, normals(10, 1 + 9e-7))
    with pytest.raises(UsageError, match="above the clip norm") as caught:
        noised(client, normals(10, 1 + 2e-6))
    assert "clip" in caught.value.hint
    noised(grid(values=10), normals(10, 1e4))
