# SPDX-License-Identifier: Apache-2.0
"""The rotation: public, the same bits everywhere, and no change of any length."""

from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest

from secure_fl.errors import UsageError
from secure_fl.randomness import ArrayDraws
from secure_fl.rotation import MAX_BLOCK, block, padded, rotate, rotate_back

KEY = b"round 1"

# More than is worked on at a time, and no whole number of blocks.
LONG = 17 * MAX_BLOCK + 5


def normals(size: int) -> np.ndarray:
    return ArrayDraws(b"k" * 16).normal(1.0, size)


def by_hand(values: list[float], key: bytes) -> list[float]:
    """One pair at a time, as the definition says."""
    size = 1
    while size < min(len(values), 4096):
        size *= 2
    x = values + [0.0] * (-len(values) % size)
    data = hashlib.shake_256(key).digest((len(x) + 7) // 8)
    for i in range(len(x)):
        if data[i // 8] >> (i % 8) & 1:
            x[i] = -x[i]
    for start in range(0, len(x), size):
        half = 1
        while half < size:
            for i in range(start, start + size):
                if not (i - start) & half:
                    x[i], x[i + half] = x[i] + x[i + half], x[i] - x[i + half]
            half *= 2
    return [value * math.sqrt(1 / size) for value in x]


@pytest.mark.parametrize(
    ("values", "of_block", "all_blocks"),
    [
        (1, 1, 1),
        (2, 2, 2),
        (3, 4, 4),
        (1024, 1024, 1024),
        (1025, 2048, 2048),
        (4095, 4096, 4096),
        (4097, 4096, 8192),
        (29_645, 4096, 32_768),
    ],
)
def test_blocks_are_powers_of_two(values: int, of_block: int, all_blocks: int) -> None:
    assert block(values) == of_block
    assert padded(values) == all_blocks


def test_an_empty_vector_has_no_block() -> None:
    with pytest.raises(UsageError, match="at least one"):
        block(0)


@pytest.mark.parametrize("size", [1, 2, 3, 7, 8, 1000, 4096, 4097, LONG])
def test_every_bit_is_that_of_the_definition(size: int) -> None:
    x = normals(size)
    assert rotate(x, KEY).tolist() == by_hand(x.tolist(), KEY)


@pytest.mark.parametrize("size", [1, 2, 3, 1000, 4096, LONG])
def test_it_turns_back_and_keeps_lengths(size: int) -> None:
    x = normals(size)
    before = x.copy()
    y = rotate(x, KEY)
    assert np.array_equal(x, before)
    assert y.shape == (padded(size),)
    assert np.linalg.norm(y) == pytest.approx(np.linalg.norm(x), rel=1e-14)
    turned = y.copy()
    assert np.abs(rotate_back(y, KEY, values=size) - x).max() < 1e-14
    assert np.array_equal(y, turned)


def test_it_turns_back_what_was_not_a_rotated_vector() -> None:
    """An opened sum has noise in the padding too."""
    y = normals(padded(5000))
    x = rotate_back(y, KEY, values=5000)
    whole = rotate_back(y, KEY, values=8192)
    assert np.array_equal(x, whole[:5000])
    assert np.linalg.norm(whole) == pytest.approx(np.linalg.norm(y), rel=1e-14)


def test_one_large_coordinate_is_spread_over_its_block() -> None:
    x = np.zeros(2 * 4096)
    x[5000] = 64.0
    y = rotate(x, KEY)
    assert np.abs(y[:4096]).max() == 0
    assert (np.abs(y[4096:]) == 1).all()
    assert abs(y.sum()) <= 4096


def test_keys_turn_differently() -> None:
    x = normals(4096)
    a, b = rotate(x, b"round 1"), rotate(x, b"round 2")
    assert abs(np.dot(a, b)) / np.dot(x, x) < 0.1
    assert np.array_equal(a, rotate(x, b"round 1"))


def test_sums_of_rotated_vectors_are_rotated_sums() -> None:
    draws = ArrayDraws(b"k" * 16)
    x, y = draws.normal(1.0, 300), draws.normal(1.0, 300)
    total = rotate(x, KEY) + rotate(y, KEY)
    assert np.abs(rotate_back(total, KEY, values=300) - (x + y)).max() < 1e-14


@pytest.mark.parametrize("size", [0, 300, 511, 513, 1024])
def test_another_length_is_refused(size: int) -> None:
    with pytest.raises(UsageError, match="512 values"):
        rotate_back(np.zeros(size), KEY, values=300)
