# SPDX-License-Identifier: Apache-2.0
"""Reals to integers mod 2^b and back: clip, scale by 1/step, round, wrap.

A value x becomes ``w * floor(x / step + dither)``, with w the client's public integer
weight and dither uniform in [0, 1) (stochastic rounding) or 1/2 (nearest).  Sums of
such words are exact as long as no sum can wrap, and :class:`Encoding` refuses to exist
where one could:

    clients * max_weight * ceil(clip / step) <= 2^(b-1) - 1

with ``clients`` the whole roster, so that it holds whoever takes part.  The same words
go through every protection, so their opened sums are bit-identical.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from .errors import PlanError, UsageError

__all__ = [
    "Encoding",
    "Word",
    "check_packed",
    "finest_step",
    "pack",
    "packed_size",
    "unpack",
    "unwrap",
    "wrap",
]

Word = np.uint8 | np.uint16 | np.uint32 | np.uint64

MIN_BITS: Final = 8
MAX_BITS: Final = 64


def word_dtype(word_bits: int) -> np.dtype[Word]:
    """The smallest unsigned type that holds ``word_bits`` bits, little-endian."""
    if not MIN_BITS <= word_bits <= MAX_BITS:
        raise PlanError(
            f"words have {MIN_BITS} to {MAX_BITS} bits, not {word_bits}",
            key="protection.word_bits",
        )
    for size in (1, 2, 4, 8):
        if word_bits <= 8 * size:
            return np.dtype(f"<u{size}")
    raise AssertionError("unreachable")


def finest_step(*, clip: float, word_bits: int, clients: int, max_weight: int) -> float:
    """The smallest power of two that still cannot wrap: scaling by it is exact."""
    # A sum below 2^53 is exact in the float64 that carries it to the caller.
    room = min(2 ** (word_bits - 1) - 1, 2**53 - 1) // (clients * max_weight)
    if room < 1:
        raise PlanError(
            f"{word_bits} bits cannot hold the sum of {clients} clients",
            key="protection.word_bits",
            hint="choose wider words or smaller weights",
        )
    if not clip / room >= 2.0**-1000:
        raise PlanError("is too small", key="protection.clip")
    step = 2.0 ** math.ceil(math.log2(clip / room))
    while math.ceil(clip / step) > room:  # log2 may have been rounded down
        step *= 2.0
    return step


@final
@dataclass(frozen=True, slots=True)
class Encoding:
    """How one vector becomes words.  Raises PlanError where a sum could wrap.

    clip
        largest absolute value of a coordinate; beyond it a value is clipped
    step
        the grid: one unit of the integers
    word_bits
        8 to 64; arithmetic is mod 2^word_bits
    clients, max_weight
        the whole roster and the largest public weight in it
    """

    clip: float
    step: float
    word_bits: int
    clients: int
    max_weight: int = 1

    def __post_init__(self) -> None:
        word_dtype(self.word_bits)
        for name in ("clip", "step"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value > 0):
                raise PlanError("must be positive", key=f"protection.{name}")
        if not math.isfinite(self.clip / self.step):
            raise PlanError("is too small for the clip", key="protection.step")
        if self.clients < 1 or self.max_weight < 1:
            raise PlanError("clients and weights are at least 1", key="parties")
        if self.clients * self.max_weight * self.largest >= 2**53:
            raise PlanError(
                "a sum would not be exact in the float64 that carries it",
                key="protection.step",
                hint="choose a larger step",
            )
        if self.clients * self.max_weight * self.largest > self.half:
            raise PlanError(
                f"a sum of {self.clients} clients could wrap: {self.clients} * "
                f"{self.max_weight} * {self.largest} > 2^{self.word_bits - 1} - 1",
                key="protection.step",
                hint="choose a larger step or wider words",
            )

    @property
    def largest(self) -> int:
        """The largest integer one coordinate becomes, before its weight."""
        return math.ceil(self.clip / self.step)

    @property
    def half(self) -> int:
        return int(2 ** (self.word_bits - 1) - 1)

    @property
    def dtype(self) -> np.dtype[Word]:
        return word_dtype(self.word_bits)

    def encode(
        self, x: NDArray[np.floating], dither: NDArray[np.float64], *, weight: int = 1
    ) -> tuple[NDArray[Word], int]:
        """Words of ``x`` and how many of its coordinates were clipped.

        ``dither`` has the shape of ``x``: uniform in [0, 1) for stochastic rounding
        (unbiased), 1/2 everywhere for the nearest.  A value on the grid stays itself.
        Raises UsageError for what is not finite.
        """
        if x.ndim != 1 or dither.shape != x.shape:
            raise UsageError("a vector and its dither are one-dimensional and alike")
        if not 1 <= weight <= self.max_weight:
            raise UsageError(f"weight {weight} is not in 1 to {self.max_weight}")
        wide = x.astype(np.float64)
        if not np.isfinite(wide).all():
            raise UsageError("the update holds a value that is not finite")
        clipped = int(np.count_nonzero(np.abs(wide) > self.clip))
        np.clip(wide, -self.clip, self.clip, out=wide)
        scaled = wide / self.step
        units = np.floor(scaled)
        # Not floor(scaled + dither): that sum would round, and move grid points.
        units += scaled - units + dither >= 1
        return self.wrap(units.astype(np.int64) * weight), clipped

    def wrap(self, units: NDArray[np.int64]) -> NDArray[Word]:
        """Integers to two's complement words."""
        return wrap(units, self.word_bits)

    def unwrap(self, words: NDArray[Word]) -> NDArray[np.int64]:
        """Words of a sum to the integers they stand for."""
        return unwrap(words, self.word_bits)

    def decode(self, words: NDArray[Word]) -> NDArray[np.float64]:
        """Words of a sum to its reals: exact multiples of ``step``."""
        reals = self.unwrap(words).astype(np.float64)
        reals *= self.step
        return reals


def wrap(units: NDArray[np.int64], word_bits: int) -> NDArray[Word]:
    """Integers to two's complement words."""
    mask = np.uint64(2**word_bits - 1)
    return (units.view(np.uint64) & mask).astype(word_dtype(word_bits))


def unwrap(words: NDArray[Word], word_bits: int) -> NDArray[np.int64]:
    """Two's complement words to the integers they stand for."""
    shift = 64 - word_bits
    wide = words.astype(np.uint64)
    wide <<= np.uint64(shift)
    units = wide.view(np.int64)
    units >>= shift
    return units


def packed_size(count: int, word_bits: int) -> int:
    """Bytes that ``count`` words take on the wire."""
    return (count * word_bits + 7) // 8


def pack(words: NDArray[Word], word_bits: int) -> bytes:
    """Little-endian, exactly ``word_bits`` bits a word, zero bits at the end."""
    dtype = word_dtype(word_bits)
    if words.dtype != dtype:
        raise UsageError(f"words of {word_bits} bits are {dtype}, not {words.dtype}")
    if dtype.itemsize * 8 == word_bits:
        return words.tobytes()
    period, lanes = _period(word_bits)
    rows = -(-words.size // period)
    wide = np.zeros(rows * period, "<u8")
    np.bitwise_and(words, dtype.type(2**word_bits - 1), out=wide[: words.size])
    columns = np.ascontiguousarray(wide.reshape(rows, period).T)
    out = np.zeros((lanes, rows), "<u8")
    for column in range(period):
        lane, shift = divmod(column * word_bits, 64)
        out[lane] |= columns[column] << np.uint64(shift)
        if shift + word_bits > 64:
            out[lane + 1] |= columns[column] >> np.uint64(64 - shift)
    return out.T.tobytes()[: packed_size(words.size, word_bits)]


def check_packed(data: bytes | memoryview, count: int, word_bits: int) -> None:
    """Raises ValueError where ``data`` is not ``count`` packed words."""
    if len(data) != packed_size(count, word_bits):
        raise ValueError("packed words have another length")
    spare = -count * word_bits % 8
    if spare and data[-1] >> (8 - spare):
        raise ValueError("the padding of packed words is not zero")


def unpack(data: bytes | memoryview, count: int, word_bits: int) -> NDArray[Word]:
    """The inverse of :func:`pack`.  Raises ValueError for another length or padding."""
    dtype = word_dtype(word_bits)
    check_packed(data, count, word_bits)
    if dtype.itemsize * 8 == word_bits:
        return np.frombuffer(data, dtype=dtype)
    period, lanes = _period(word_bits)
    rows = -(-count // period)
    whole = np.zeros(rows * lanes * 8, np.uint8)
    whole[: len(data)] = np.frombuffer(data, np.uint8)
    packed = np.ascontiguousarray(whole.view("<u8").reshape(rows, lanes).T)
    mask = np.uint64(2**word_bits - 1)
    out = np.empty((period, rows), dtype)
    for column in range(period):
        lane, shift = divmod(column * word_bits, 64)
        word = packed[lane] >> np.uint64(shift)
        if shift + word_bits > 64:
            word |= packed[lane + 1] << np.uint64(64 - shift)
        out[column] = word & mask
    return out.T.ravel()[:count]


def _period(word_bits: int) -> tuple[int, int]:
    """After how many words a boundary of 64 bits returns, and how many of those."""
    common = math.gcd(64, word_bits)
    return 64 // common, word_bits // common
