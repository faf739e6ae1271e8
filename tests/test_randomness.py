# SPDX-License-Identifier: Apache-2.0
"""Streams: fresh, keyed in full, of the right law, and never repeated by a copy."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest

from secure_fl.errors import UsageError
from secure_fl.randomness import (
    ArrayDraws,
    RandomSource,
    SeededInsecure,
    SystemRandom,
)


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
