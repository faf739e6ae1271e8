# SPDX-License-Identifier: Apache-2.0
"""``secure_sum``: exact, or refused."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import secure_fl as sfl
from secure_fl.errors import UsageError


@given(
    holders=st.integers(3, 6),
    rows=st.integers(1, 5),
    bits=st.sampled_from([16, 24, 32, 64]),
    seed=st.integers(0, 2**32),
)
def test_the_sum_is_exact_on_the_grid(
    holders: int, rows: int, bits: int, seed: int
) -> None:
    # Multiples of 1/8 below 1 are on the grid of every width here.
    draw = np.random.default_rng(seed)
    arrays = {f"h{i}": draw.integers(-8, 9, (rows, 7)) / 8.0 for i in range(holders)}
    total = sfl.secure_sum(arrays, clip=1.0, word_bits=bits)
    assert total.shape == (rows, 7)
    np.testing.assert_array_equal(total, sum(arrays.values()))


def test_rounding_stays_within_half_a_step_per_array() -> None:
    draw = np.random.default_rng(1)
    arrays = {f"h{i}": draw.uniform(-1, 1, 1000) for i in range(5)}
    error = np.abs(
        sfl.secure_sum(arrays, clip=1.0, word_bits=16) - sum(arrays.values())
    )
    assert error.max() <= 5 * 2.0**-12 / 2


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"a": np.ones(3), "b": np.ones(3)}, "too few"),
        ({"a": np.ones(3), "b": np.ones(3), "c": np.ones(4)}, "another shape"),
        ({"a": np.ones(3), "b": np.ones(3), "c": np.full(3, 1.5)}, "beyond the clip"),
        ({"a": np.ones(3), "b": np.ones(3), "c": np.full(3, np.nan)}, "not finite"),
    ],
)
def test_what_cannot_be_summed_is_refused(
    arrays: dict[str, np.ndarray[tuple[int], np.dtype[np.float64]]], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        sfl.secure_sum(arrays, clip=1.0)
