# SPDX-License-Identifier: Apache-2.0
"""Streams: fresh, keyed in full, of the right law, and never repeated by a copy."""

from __future__ import annotations

import copy
import math
import pickle
import sys
from decimal import Decimal, localcontext

import numpy as np
import pytest
from scipy import stats

from secure_fl.errors import UsageError
from secure_fl.randomness import (
    MAX_SKELLAM_VARIANCE,
    ArrayDraws,
    RandomSource,
    SeededInsecure,
    SystemRandom,
    _log_poisson,
)

# Every statistical test below has fixed draws, or fails by chance once in a million.
ALPHA = 1e-6


def test_the_systems_randomness_is_fresh() -> None:
    source: RandomSource = SystemRandom()
    assert source.secure
    seen = {source.bytes(16) for _ in range(200)}
    assert len(seen) == 200
    assert [len(source.bytes(n)) for n in (0, 1, 31, 1000)] == [0, 1, 31, 1000]
    first, second = source.arrays("noise"), source.arrays("noise")
    assert not np.array_equal(first.uniform(8), second.uniform(8))


def test_a_seed_repeats_and_says_that_it_is_insecure() -> None:
    source: RandomSource = SeededInsecure(b"seed")
    again = SeededInsecure(b"seed")
    assert not source.secure
    assert [source.bytes(n) for n in (5, 32, 0)] == [again.bytes(n) for n in (5, 32, 0)]
    assert source.bytes(32) != source.bytes(32)
    assert SeededInsecure(b"other").bytes(32) != SeededInsecure(b"seed").bytes(32)
    assert np.array_equal(
        SeededInsecure(b"s").arrays("noise").uniform(50),
        SeededInsecure(b"s").arrays("noise").uniform(50),
    )
    assert "seed" not in repr(source)


def test_a_long_seeded_draw_does_not_repeat_itself() -> None:
    data = SeededInsecure(b"seed").bytes(3 * 255 * 32 + 17)
    assert len(data) == 3 * 255 * 32 + 17
    blocks = [data[i : i + 32] for i in range(0, len(data) - 31, 32)]
    assert len(set(blocks)) == len(blocks)


@pytest.mark.parametrize("size", [0, 15, 17, 32])
def test_a_stream_has_a_key_of_128_bits(size: int) -> None:
    with pytest.raises(UsageError, match="16 bytes"):
        ArrayDraws(bytes(size))


def test_every_bit_of_the_key_counts() -> None:
    key = 0x0123456789ABCDEF0123456789ABCDEF
    streams = {
        ArrayDraws((key ^ flip).to_bytes(16, "little")).uniform(4).tobytes()
        for flip in [0] + [1 << bit for bit in range(128)]
    }
    assert len(streams) == 129


def test_a_stream_goes_on() -> None:
    draws = ArrayDraws(b"k" * 16)
    assert not np.array_equal(draws.uniform(10), draws.uniform(10))
    assert not np.array_equal(draws.normal(1.0, 10), draws.normal(1.0, 10))


def test_normals_have_their_law() -> None:
    x = ArrayDraws(b"k" * 16).normal(2.5, 200_000)
    assert x.dtype == np.float64
    # Standard errors: 0.0056 for the mean, 0.004 for the deviation.
    assert abs(x.mean()) < 0.03
    assert abs(x.std() - 2.5) < 0.02
    assert abs((np.abs(x) > 5.0).mean() - 0.0455) < 0.003
    assert abs(np.corrcoef(x[:-1], x[1:])[0, 1]) < 0.012


def test_uniforms_have_their_law() -> None:
    u = ArrayDraws(b"k" * 16).uniform(160_000)
    assert u.min() >= 0
    assert u.max() < 1
    counts = np.histogram(u, 16, (0, 1))[0]
    # 15 degrees of freedom: 45 is beyond the 99.99 % quantile; the draws are fixed.
    assert ((counts - 10_000) ** 2 / 10_000).sum() < 45


def chi_square(values: np.ndarray, edges: np.ndarray, cdf: np.ndarray) -> float:
    """P-value of ``values`` against a law with this ``cdf`` at ``edges``."""
    expected = np.diff(np.concatenate([[0.0], cdf, [1.0]])) * values.size
    counts = np.bincount(np.searchsorted(edges, values), minlength=expected.size)
    assert expected.min() > 5
    return float(stats.chisquare(counts, expected).pvalue)


@pytest.mark.parametrize("variance", [0.6, 100.0, 600.0, 2e6])
def test_skellam_noise_has_its_law(variance: float) -> None:
    x = ArrayDraws(b"k" * 16).skellam(variance, 200_000)
    assert x.dtype == np.int64
    law = stats.skellam(variance / 2, variance / 2)
    edges = np.unique(law.ppf(np.linspace(0, 1, 61)[1:-1]))
    assert chi_square(x, edges, law.cdf(edges)) > ALPHA


@pytest.mark.parametrize("variance", [2e6, 2e12, MAX_SKELLAM_VARIANCE])
def test_large_skellam_noise_is_normal_and_ends_in_every_digit(variance: float) -> None:
    draws = ArrayDraws(b"k" * 16)
    x = draws.skellam(variance, 400_000)
    # Less than half a step off the grid: the steps are then not seen.
    smooth = (x + draws.uniform(x.size) - 0.5) / math.sqrt(variance)
    assert stats.kstest(smooth, "norm").pvalue > ALPHA
    beyond = int(np.count_nonzero(np.abs(smooth) > 4))
    assert stats.binomtest(beyond, x.size, 2 * stats.norm.sf(4)).pvalue > ALPHA
    counts = np.bincount(x % 64, minlength=64)
    assert stats.chisquare(counts).pvalue > ALPHA


@pytest.mark.parametrize("mean", [256.0, 1e6 + 0.25, 1e12 + 0.5, 2.0**53])
def test_the_law_of_skellam_noise_is_kept_to_many_digits(mean: float) -> None:
    """No sample would show what is asked here: what floats do to the law itself."""
    whole, spread = math.floor(mean), math.sqrt(mean)
    count = min(int(spread), 500)
    for away in (-8, -3, -0.5, 0.5, 3, 8):
        first = whole + int(away * spread)
        with localcontext() as context:
            context.prec = 60
            exact = sum(
                (Decimal(mean) / k).ln() for k in range(first + 1, first + count + 1)
            )
            ends = np.array([first, first + count]) - whole - (mean - whole)
            low, high = _log_poisson(ends, mean)
            error = Decimal(float(high)) - Decimal(float(low)) - exact
        assert abs(error) < 1e-12 + 1e-14 * spread


def test_skellam_draws_are_independent() -> None:
    draws = ArrayDraws(b"k" * 16)
    x, y = draws.skellam(1e9, 100_000), draws.skellam(1e9, 100_000)
    for a, b in ((x, y), (x[1:], x[:-1]), (x[2:], x[:-2])):
        assert stats.pearsonr(a, b).pvalue > ALPHA
        assert stats.pearsonr(a.astype(float) ** 2, b.astype(float) ** 2).pvalue > ALPHA
    assert draws.skellam(5.0, 0).size == 0
    assert draws.skellam(1e-300, 100).tolist() == [0] * 100


@pytest.mark.parametrize("variance", [0.0, -1.0, math.nan, math.inf, 2.0**54 + 4])
def test_a_variance_that_cannot_be_drawn_is_refused(variance: float) -> None:
    with pytest.raises(UsageError, match="variance"):
        ArrayDraws(b"k" * 16).skellam(variance, 5)


@pytest.mark.parametrize("deviation", [0.5, 3.0, 1234.5])
def test_discrete_gaussian_noise_has_its_law(deviation: float) -> None:
    pytest.importorskip("opendp")
    x = SystemRandom().discrete_gaussian(deviation, 20_000)
    assert x.dtype == np.int64
    grid = np.arange(-math.ceil(12 * deviation), math.ceil(12 * deviation) + 1)
    weights = np.exp(-(grid**2) / (2 * deviation**2))
    cdf = np.cumsum(weights / weights.sum())
    inner = np.unique(np.searchsorted(cdf, np.linspace(0, 1, 21)[1:-1]))
    assert chi_square(x, grid[inner], cdf[inner]) > ALPHA


def test_discrete_gaussian_noise_does_not_end_at_32_bits() -> None:
    pytest.importorskip("opendp")
    x = SystemRandom().discrete_gaussian(1e12, 100)
    assert np.abs(x).max() > 2**33
    assert len(set(x.tolist())) == 100
    assert SystemRandom().discrete_gaussian(3.0, 0).size == 0


def test_a_seed_gives_no_discrete_gaussian_noise() -> None:
    with pytest.raises(UsageError, match="repeated"):
        SeededInsecure(b"seed").discrete_gaussian(3.0, 5)


def test_without_opendp_its_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "opendp.prelude", None)
    with pytest.raises(UsageError, match="OpenDP") as caught:
        SystemRandom().discrete_gaussian(3.0, 5)
    assert "secure-fl[exact]" in caught.value.hint


def test_a_poisson_sample_is_sorted_and_independent() -> None:
    draws = ArrayDraws(b"k" * 16)
    sizes = []
    hits = np.zeros(100)
    for _ in range(2000):
        sample = draws.poisson_sample(0.2, 100)
        assert sample.dtype == np.int64
        assert (np.diff(sample) > 0).all()
        sizes.append(sample.size)
        hits[sample] += 1
    # Binomial(100, 0.2): mean 20, variance 16.
    assert abs(np.mean(sizes) - 20) < 0.5
    assert abs(np.var(sizes) - 16) < 2.5
    assert abs(hits / 2000 - 0.2).max() < 0.05
    assert draws.poisson_sample(1.0, 5).tolist() == [0, 1, 2, 3, 4]
    assert draws.poisson_sample(1e-300, 5).size == 0
    assert draws.poisson_sample(0.5, 0).size == 0


def test_a_stream_is_not_copied_pickled_or_printed() -> None:
    draws = ArrayDraws(b"k" * 16)
    for duplicate in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError, match="not copied or pickled"):
            duplicate(draws)
    assert repr(draws) == "<ArrayDraws>"
    assert not hasattr(draws, "__dict__")


def test_numpys_own_generator_is_left_alone() -> None:
    np.random.seed(1)
    before = np.random.get_state()[1].copy()  # type: ignore[index]
    ArrayDraws(b"k" * 16).normal(1.0, 100)
    SystemRandom().arrays("x").uniform(5)
    after = np.random.get_state()[1]  # type: ignore[index]
    assert np.array_equal(before, after)
