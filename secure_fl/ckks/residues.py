# SPDX-License-Identifier: Apache-2.0
"""Polynomials as bytes, and exact integers wider than numpy's (SPEC.md, 3.3 and 3.4).

Residues stand in columns, not one after the other, so that both ways are a few shifts
of whole arrays.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterable
from typing import Final

import numpy as np
from numpy.typing import NDArray

from .rings import Packing, Prime, Ring

__all__ = [
    "UNREDUCED",
    "add_mod",
    "decode_sum",
    "encode_words",
    "pack_blocks",
    "reduced",
    "sub_mod",
    "sum_mod",
    "unpack_blocks",
]

UNREDUCED: Final = 15  # residues of 60 bits that fit 64 beside a reduced one
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


# -- bytes -----------------------------------------------------------------------------


def _shape(bits: int) -> tuple[int, int]:
    """Columns and lanes."""
    common = math.gcd(64, bits)
    return 64 // common, bits // common


def _shifts(bits: list[int]) -> U64:
    # Shifts of 64 and more give 0; numpy wants no negative ones.
    return np.array([[max(0, b)] for b in bits], np.uint64)


@functools.cache
def _packing_plan(bits: int) -> tuple[NDArray[np.intp], U64, U64, U64]:
    """For each lane: its lowest column, and how far that and the next two move."""
    columns, lanes = _shape(bits)
    first = [64 * lane // bits for lane in range(lanes)]
    # What is beyond the last column is shifted out whole, whatever it is.
    left = [
        [bits * (c + k) - 64 * lane if c + k < columns else 64 for k in (0, 1, 2)]
        for lane, c in enumerate(first)
    ]
    return (
        np.array(first),
        _shifts([-shift for shift, _, _ in left]),
        _shifts([shift for _, shift, _ in left]),
        _shifts([shift for _, _, shift in left]),
    )


def pack_blocks(residues: U64, bits: int) -> bytes:
    """Residues (..., N), below 2^bits, as they are sent."""
    columns, _ = _shape(bits)
    first, right, left, further = _packing_plan(bits)
    wide = residues.reshape(-1, columns, residues.shape[-1] // columns)
    out = np.take(wide, first, axis=1, mode="clip")
    np.right_shift(out, right, out=out)
    part = np.empty_like(out)
    for ahead, shift in ((1, left), (2, further)):
        np.take(wide, first + ahead, axis=1, out=part, mode="clip")
        np.left_shift(part, shift, out=part)
        np.bitwise_or(out, part, out=out)
    return out.astype("<u8", copy=False).tobytes()


@functools.cache
def _unpacking_plan(bits: int) -> tuple[NDArray[np.intp], U64, U64]:
    """For each column: its lowest lane, and how far that and the next one move."""
    columns, _ = _shape(bits)
    at = [bits * column for column in range(columns)]
    return (
        np.array([bit // 64 for bit in at]),
        _shifts([bit % 64 for bit in at]),
        _shifts([64 - bit % 64 for bit in at]),
    )


def unpack_blocks(data: bytes | memoryview, ring: Ring) -> U64:
    """Shape (blocks, primes, N).  Raises ValueError for another length."""
    if len(data) % ring.block_bytes:
        raise ValueError("not whole blocks")
    columns, lanes = _shape(ring.bits)
    lowest, right, left = _unpacking_plan(ring.bits)
    packed = np.frombuffer(data, "<u8").reshape(-1, lanes, ring.degree // columns)
    out = np.take(packed, lowest, axis=1, mode="clip")
    np.right_shift(out, right, out=out)
    part = np.take(packed, lowest + 1, axis=1, mode="clip")
    np.left_shift(part, left, out=part)
    np.bitwise_or(out, part, out=out)
    # Above its own bits stands what belongs to the next column.
    np.bitwise_and(out, np.uint64(2**ring.bits - 1), out=out)
    return out.reshape(-1, len(ring.primes), ring.degree)


def reduced(residues: U64, ring: Ring) -> bool:
    """Whether every residue of (..., primes, N) is below its prime."""
    return all(
        int(residues[..., index, :].max(initial=0)) < prime.value
        for index, prime in enumerate(ring.primes)
    )


def _moduli(ring: Ring) -> U64:
    return np.array([[p.value] for p in ring.primes], np.uint64)


def add_mod(a: U64, b: U64, ring: Ring) -> U64:
    """``a + b`` of residues (..., primes, N)."""
    return _less(a + b, _moduli(ring))


def sub_mod(a: U64, b: U64, ring: Ring) -> U64:
    """``a - b`` of residues (..., primes, N)."""
    moduli = _moduli(ring)
    out = moduli - b
    out += a
    return _less(out, moduli)


def sum_mod(polynomials: Iterable[U64], ring: Ring) -> U64:
    """The sum of polynomials, each of shape (..., primes, N), of one at least."""
    moduli = _moduli(ring)
    total: U64 | None = None
    for count, polynomial in enumerate(polynomials, start=1):
        if total is None:
            total = polynomial.copy()
            continue
        total += polynomial
        if count % UNREDUCED == 0:
            np.remainder(total, moduli, out=total)
    assert total is not None
    return np.remainder(total, moduli, out=total)


def _less(total: U64, moduli: U64 | np.uint64) -> U64:
    """Below the modulus again, where it is less than twice that.  In place."""
    # What was below it already wraps round to something larger.
    np.minimum(total, total - moduli, out=total)
    return total


_LIMB: Final = 30
_LIMB_MASK: Final = 2**_LIMB - 1


def _product(a: U64, factor: int, prime: int) -> U64:
    """``a * factor`` mod ``prime``, of at most 60 bits, for both below it.

    The quotient comes from the upper limbs of ``a`` times those of ``factor / prime``,
    and is at most 3 too small: what is left is right mod 2^64, and below 3 primes.
    """
    high, low = divmod((factor << 2 * _LIMB) // prime, 1 << _LIMB)
    a1 = a >> np.uint64(_LIMB)
    quotient = a & np.uint64(_LIMB_MASK)
    quotient *= np.uint64(high)
    quotient += a1 * np.uint64(low)
    quotient >>= np.uint64(_LIMB)
    a1 *= np.uint64(high)
    quotient += a1
    quotient *= np.uint64(prime)
    rest = a * np.uint64(factor)
    rest -= quotient
    return _less(_less(rest, np.uint64(2 * prime)), np.uint64(prime))


def _residue(low: I64, high: I64, prime: Prime) -> U64:
    """``low + high * 2^bits`` mod ``prime``, of ``bits`` bits.

    ``low`` is from 0 to ``2^bits``, ``high`` at most 2^59 either way.  As ``2^bits``
    leaves little mod ``prime``, the quotient is below 2^27, and float64 finds an
    integer within half of it and hardly more.
    """
    value, extra = np.uint64(prime.value), 2**prime.bits - prime.value
    quotient = np.multiply(high, extra / prime.value, dtype=np.float64)
    multiple = np.rint(quotient, out=quotient).astype(np.int64).view(np.uint64)
    multiple *= value
    rest = high.view(np.uint64) * np.uint64(extra)
    rest -= multiple
    rest += low.view(np.uint64)
    rest += value  # from below half of it to 2.6 times
    return _less(_less(rest, np.uint64(2 * prime.value)), value)


# -- words to polynomials and back -----------------------------------------------------


# A polynomial's integers stand as ``low + high * 2^bits``, ``bits`` those of a prime.


def encode_words(units: I64, packing: Packing, error: I64) -> U64:
    """``m + e`` of SPEC 3.3: shape (..., primes, N), from words (..., fields, N).

    ``error`` has the shape (..., N).
    """
    ring, width = packing.ring, packing.word_bits
    low = error.copy()
    high = np.zeros_like(low)
    part = np.empty_like(low)
    for index in range(packing.fields):
        unit, at = units[..., index, :], packing.scale_bits + index * width
        if at + width <= 62:  # low takes it, and is below 2^62 in the end
            np.left_shift(unit, at, out=part)
            low += part
        elif at >= ring.bits:
            np.left_shift(unit, at - ring.bits, out=part)
            high += part
        else:
            room = ring.bits - at
            np.bitwise_and(unit, np.int64(2**room - 1), out=part)
            part <<= at
            low += part
            np.right_shift(unit, room, out=part)
            high += part
    _carry(low, high, ring.bits)
    residues = [_residue(low, high, prime) for prime in ring.primes]
    return np.stack(residues, axis=-2)


def _carry(low: I64, high: I64, bits: int) -> None:
    """``low`` from 0 to ``2^bits``: what is beyond goes to ``high``."""
    high += low >> bits
    low &= np.int64(2**bits - 1)


def decode_sum(residues: U64, packing: Packing) -> tuple[I64, I64, bool]:
    """Words (blocks, fields, N), what was rounded away (blocks, N), and whether all of
    it was words: nothing is left above the highest field.

    ``residues``: ``x`` of SPEC 3.3, shape (blocks, primes, N).
    """
    ring, width, scale = packing.ring, packing.word_bits, packing.scale_bits
    bits, fields = ring.bits, packing.fields
    low, high = _centred(residues, ring)
    # With half a scale more, rounding is rounding down.  With half of its range more,
    # each field is a digit from 0 up, and nothing is borrowed from the next.
    most = sum(1 << (width * (index + 1) - 1) for index in range(fields))
    above, below = divmod((most << scale) + (1 << (scale - 1)), 1 << bits)
    low += np.int64(below)
    high += np.int64(above)
    _carry(low, high, bits)
    rest = low & np.int64(2**scale - 1)
    rest -= np.int64(1 << (scale - 1))
    words = np.empty((len(residues), fields, ring.degree), np.uint64)
    for index in range(fields):
        word = words[:, index]
        _digits(low, high, bits, scale + width * index, word)
        word &= np.uint64(2**width - 1)
        word -= np.uint64(1 << (width - 1))
    end = scale + width * fields
    left = high >> max(0, end - bits)
    whole = not (left.any() or (end < bits and (low >> end).any()))
    return words.view(np.int64), rest, whole


def _digits(low: I64, high: I64, bits: int, at: int, out: U64) -> None:
    """The next 64 bits of ``low + high * 2^bits`` from bit ``at`` on."""
    signed = out.view(np.int64)
    if at >= bits:
        np.right_shift(high, at - bits, out=signed)
    else:
        np.left_shift(high, bits - at, out=signed)
        signed |= low >> at


def _centred(residues: U64, ring: Ring) -> tuple[I64, I64]:
    """From residues to integers within q/2 of 0; ``low`` is within 2^62 of it."""
    first = ring.primes[0].value
    x0 = _balanced(residues[:, 0], first)
    if len(ring.primes) == 1:
        return x0, np.zeros_like(x0)
    # Garner: x = x0 + first * m, m = (x1 - x0) / first mod second.  Both x0 and m are
    # within half of their primes, so x is within half of q.
    second, bits = ring.primes[1].value, ring.bits
    gap = residues[:, 1] - x0.view(np.uint64)
    gap += np.uint64(second)  # x0 may be beyond half of second, by a little
    gap = _less(_less(gap, np.uint64(2 * second)), np.uint64(second))
    m = _balanced(_product(gap, pow(first, -1, second), second), second)
    # first = 2^bits - extra, so x = x0 - extra * m + m * 2^bits.
    extra = np.int64(2**bits - first)
    upper = m >> _LIMB
    upper *= extra
    low = m & np.int64(_LIMB_MASK)
    low *= extra
    np.subtract(x0, low, out=low)
    low -= (upper & np.int64(2 ** (bits - _LIMB) - 1)) << _LIMB
    upper >>= bits - _LIMB
    m -= upper
    return low, m


def _balanced(a: U64, prime: int) -> I64:
    """The same mod ``prime``, within half of it."""
    out = a.view(np.int64) - np.int64(prime // 2 + 1)
    # From here on negative ones are those that stay: shift them up, or back.
    out += (out >> 63) & np.int64(prime)
    out -= np.int64(prime - prime // 2 - 1)
    return out
