# SPDX-License-Identifier: Apache-2.0
"""Reals to words and back: exact on the grid, unbiased off it, never a wrap."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl.errors import PlanError, UsageError
from secure_fl.fixedpoint import (
    Encoding,
    finest_step,
    pack,
    packed_size,
    unpack,
    word_dtype,
)

HALF = np.full(1, 0.5)


@pytest.mark.parametrize(
    ("bits", "size"), [(8, 1), (9, 2), (16, 2), (17, 4), (32, 4), (33, 8), (64, 8)]
)
def test_the_smallest_unsigned_type_is_used(bits: int, size: int) -> None:
    assert word_dtype(bits) == np.dtype(f"<u{size}")


@pytest.mark.parametrize("bits", [0, 7, 65, -1])
def test_other_widths_are_refused(bits: int) -> None:
    with pytest.raises(PlanError) as caught:
        word_dtype(bits)
    assert caught.value.key == "protection.word_bits"


@given(
    bits=st.integers(8, 64),
    words=st.lists(st.integers(0, 2**64 - 1), max_size=40),
)
def test_packing_is_little_endian_bits_and_has_an_inverse(
    bits: int, words: list[int]
) -> None:
    words = [w % 2**bits for w in words]
    array = np.array(words, word_dtype(bits))
    data = pack(array, bits)
    assert len(data) == packed_size(len(words), bits)
    whole = sum(w << (i * bits) for i, w in enumerate(words))
    assert data == whole.to_bytes(len(data), "little")
    back = unpack(data, len(words), bits)
    assert back.dtype == array.dtype
    assert back.tolist() == words


@given(st.integers(8, 64), st.integers(1, 20), st.data())
def test_only_one_packed_form_is_taken(
    bits: int, count: int, data: st.DataObject
) -> None:
    size = packed_size(count, bits)
    raw = data.draw(st.binary(min_size=size, max_size=size))
    spare = 8 * size - count * bits
    if int.from_bytes(raw, "little") >> (count * bits):
        with pytest.raises(ValueError, match="padding"):
            unpack(raw, count, bits)
        assert spare
    else:
        assert pack(unpack(raw, count, bits), bits) == raw
    for wrong in (raw[:-1], raw + b"\0"):
        with pytest.raises(ValueError, match="length"):
            unpack(wrong, count, bits)


def test_packing_refuses_words_of_another_type() -> None:
    with pytest.raises(UsageError, match="uint32, not uint64"):
        pack(np.zeros(3, np.uint64), 32)


encodings = st.builds(
    lambda bits, clients, weight, clip: Encoding(
        clip,
        finest_step(clip=clip, word_bits=bits, clients=clients, max_weight=weight),
        bits,
        clients,
        weight,
    ),
    st.integers(16, 48),
    st.integers(1, 40),
    st.integers(1, 9),
    st.floats(1e-3, 1e3),
)


@given(encodings)
def test_the_finest_step_is_a_power_of_two_and_half_of_it_could_wrap(
    e: Encoding,
) -> None:
    assert math.frexp(e.step)[0] == 0.5
    assert e.clients * e.max_weight * e.largest <= 2 ** (e.word_bits - 1) - 1
    with pytest.raises(PlanError, match="could wrap") as caught:
        Encoding(e.clip, e.step / 4, e.word_bits, e.clients, e.max_weight)
    assert caught.value.hint
    assert caught.value.key == "protection.step"


@given(encodings, st.data())
def test_the_largest_sum_of_the_whole_roster_does_not_wrap(
    e: Encoding, data: st.DataObject
) -> None:
    sign = data.draw(st.sampled_from([1.0, -1.0]))
    x = np.array([sign * e.clip])
    dither = np.array([data.draw(st.floats(0, 1, exclude_max=True))])
    words, clipped = e.encode(x, dither, weight=e.max_weight)
    assert clipped == 0
    mask = e.dtype.type(2**e.word_bits - 1)
    total = np.zeros(1, e.dtype)
    for _ in range(e.clients):
        total = (total + words) & mask
    one = int(e.unwrap(words)[0])
    assert int(e.unwrap(total)[0]) == e.clients * one
    assert abs(one) <= e.max_weight * e.largest


@given(encodings, st.lists(st.floats(-2e3, 2e3), min_size=1, max_size=30), st.data())
def test_a_word_is_within_one_step_and_clipped_values_are_counted(
    e: Encoding, xs: list[float], data: st.DataObject
) -> None:
    x = np.array(xs)
    dither = np.array(
        data.draw(
            st.lists(
                st.floats(0, 1, exclude_max=True), min_size=len(xs), max_size=len(xs)
            )
        )
    )
    words, clipped = e.encode(x, dither)
    assert words.dtype == e.dtype
    assert clipped == sum(abs(v) > e.clip for v in xs)
    cut = np.clip(x, -e.clip, e.clip)
    assert (np.abs(e.decode(words) - cut) <= e.step).all()
    assert (x == np.array(xs)).all()


@given(st.integers(-(2**20), 2**20), st.floats(0, 0.999))
def test_a_value_on_the_grid_stays_itself(unit: int, dither: float) -> None:
    e = Encoding(2.0**11, 2.0**-9, 32, 3)
    x = np.array([unit * e.step])
    words, _ = e.encode(x, np.array([dither]))
    assert e.decode(words).tolist() == x.tolist()


def test_a_large_value_on_the_grid_stays_itself_under_any_dither() -> None:
    e = Encoding(2.0**29, 1.0, 32, 3)
    x = np.array([2.0**28, -(2.0**28), 12345.0])
    words, _ = e.encode(x, np.full(3, 1 - 2.0**-53))
    assert e.unwrap(words).tolist() == [2**28, -(2**28), 12345]


def test_stochastic_rounding_is_unbiased() -> None:
    e = Encoding(4.0, 0.25, 16, 3)
    draws = np.random.default_rng(0).random(40_000)
    for value in (0.1, -0.1, 1.7, -3.99):
        words, _ = e.encode(np.full(draws.size, value), draws)
        # Its standard error is below step / 2 / sqrt(draws) = 0.0006.
        assert abs(e.decode(words).mean() - value) < 0.003


def test_half_a_step_of_dither_rounds_to_the_nearest() -> None:
    e = Encoding(4.0, 0.25, 16, 3)
    x = np.array([0.1, 0.13, -0.1, -0.13, 3.99, -3.99])
    words, _ = e.encode(x, np.full(6, 0.5))
    assert e.decode(words).tolist() == [0.0, 0.25, 0.0, -0.25, 4.0, -4.0]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_what_is_not_finite_is_refused(bad: float) -> None:
    e = Encoding(4.0, 0.25, 16, 3)
    with pytest.raises(UsageError, match="not finite"):
        e.encode(np.array([bad]), HALF)


def test_encode_refuses_other_shapes_and_weights() -> None:
    e = Encoding(4.0, 0.25, 16, 3, 2)
    with pytest.raises(UsageError, match="one-dimensional"):
        e.encode(np.zeros((1, 1)), np.zeros((1, 1)))
    with pytest.raises(UsageError, match="alike"):
        e.encode(np.zeros(2), HALF)
    for weight in (0, 3, -1):
        with pytest.raises(UsageError, match="weight"):
            e.encode(np.zeros(1), HALF, weight=weight)


@given(st.integers(8, 64), st.integers(-(2**63), 2**63 - 1))
def test_wrapping_is_twos_complement(bits: int, value: int) -> None:
    e = Encoding(1.0, 1.0, bits, 1)
    words = e.wrap(np.array([value], np.int64))
    assert words.tolist() == [value % 2**bits]
    low = 2 ** (bits - 1)
    assert e.unwrap(words).tolist() == [(value + low) % 2**bits - low]


@pytest.mark.parametrize("value", [0.0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("name", ["clip", "step"])
def test_clip_and_step_are_positive_numbers(name: str, value: float) -> None:
    numbers = {"clip": 1.0, "step": 0.5} | {name: value}
    with pytest.raises(PlanError, match=f"protection.{name}"):
        Encoding(numbers["clip"], numbers["step"], 16, 3)


@pytest.mark.parametrize(("clients", "weight"), [(0, 1), (1, 0), (-1, 1)])
def test_clients_and_weights_are_at_least_one(clients: int, weight: int) -> None:
    with pytest.raises(PlanError, match="at least 1"):
        Encoding(1.0, 1.0, 16, clients, weight)


def test_too_narrow_words_are_refused() -> None:
    with pytest.raises(PlanError, match="cannot hold") as caught:
        finest_step(clip=1.0, word_bits=8, clients=100, max_weight=2)
    assert caught.value.hint


def test_a_clip_far_above_the_step_is_a_plan_error() -> None:
    with pytest.raises(PlanError):
        Encoding(1e300, 1e-300, 32, 3)


def test_the_widest_sum_decodes_exactly() -> None:
    step = finest_step(clip=1.0, word_bits=64, clients=3, max_weight=1)
    e = Encoding(1.0, step, 64, 3)
    words, _ = e.encode(np.array([1.0 - step]), HALF)
    total = words + words + words
    assert int(e.unwrap(total)[0]) * step == 3 * (1 - step)
    assert int(e.decode(total)[0] / step) == int(e.unwrap(total)[0])
