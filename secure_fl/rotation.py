# SPDX-License-Identifier: Apache-2.0
"""A public random rotation: spreads one large coordinate over a whole block.

Random signs, then a Walsh-Hadamard transform of each block.  Norms are kept, so
sensitivities are; what changes is that coordinates become alike in size, and few are
clipped when a vector is put on a grid.

Every step is an addition, a subtraction or a product of two float64 in a fixed order:
all machines get the same bits.
"""

from __future__ import annotations

import hashlib
import math
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .errors import UsageError

__all__ = ["MAX_BLOCK", "block", "padded", "rotate", "rotate_back"]

MAX_BLOCK: Final = 4096

# Values worked on at a time: what a core's cache holds.
_AT_A_TIME: Final = 16 * MAX_BLOCK


def block(values: int) -> int:
    """Values of one block: the least power of two that holds all, at most 4096.

    Raises UsageError for less than one value.
    """
    if values < 1:
        raise UsageError(
            "a vector has at least one value", hint="name a model that is not empty"
        )
    return min(1 << (values - 1).bit_length(), MAX_BLOCK)


def padded(values: int) -> int:
    """Values of the rotated vector: those of all blocks."""
    size = block(values)
    return -(-values // size) * size


def rotate(vector: NDArray[np.float64], key: bytes) -> NDArray[np.float64]:
    """``vector`` (one dimension) with zeros at its end, rotated: ``padded`` values.

    ``key`` names the rotation; it is public, and whoever has it can turn back.  Its
    SHAKE-256 gives one bit a value, the lowest of a byte first; 1 turns the sign.
    """
    out = np.zeros(padded(vector.size))
    out[: vector.size] = vector
    out *= _signs(key, out.size)
    _transform(out, block(vector.size))
    return out


def rotate_back(
    vector: NDArray[np.float64], key: bytes, *, values: int
) -> NDArray[np.float64]:
    """The first ``values`` of what :func:`rotate` made ``vector`` from.

    Exact but for float64 rounding.  Raises UsageError for another length than
    ``padded(values)``.
    """
    if vector.shape != (padded(values),):
        raise UsageError(
            f"a rotated vector has {padded(values)} values",
            hint="hand in the whole sum, and the length of the vector before rotation",
        )
    out = np.array(vector, dtype=np.float64)
    _transform(out, block(values))
    out *= _signs(key, out.size)
    return out[:values].copy()


def _signs(key: bytes, size: int) -> NDArray[np.int8]:
    data = hashlib.shake_256(key).digest(-(-size // 8))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), count=size, bitorder="little")
    return 1 - 2 * bits.astype(np.int8)


def _transform(vector: NDArray[np.float64], size: int) -> None:
    """Walsh-Hadamard, in place, of each block of ``size`` values."""
    factor = math.sqrt(1 / size)  # correctly rounded: 1 / size is exact
    for start in range(0, vector.size, _AT_A_TIME):
        part = vector[start : start + _AT_A_TIME].reshape(-1, size)
        # One column a block: then neighbours in memory take the same step.
        columns = np.ascontiguousarray(part.T)
        half = 1
        while half < size:
            pairs = columns.reshape(size // (2 * half), 2, half, -1)
            first, second = pairs[:, 0], pairs[:, 1]
            difference = first - second
            first += second
            second[...] = difference
            half *= 2
        np.multiply(columns.T, factor, out=part)
