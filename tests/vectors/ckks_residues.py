# SPDX-License-Identifier: Apache-2.0
"""CKKS a second time, from SPEC.md alone: section 3.5, residues on the wire."""

from __future__ import annotations

import math
from collections.abc import Sequence

from .ckks_reference import SIZES, Packing, Polynomial, Residues, require


def _shape(size: int, w: int) -> tuple[int, int, int]:
    """Columns, lanes and rows."""
    g = math.gcd(64, w)
    return 64 // g, w // g, size * g // 64


def pack_residues(residues: Sequence[int], w: int) -> bytes:
    columns, lanes, rows = _shape(len(residues), w)
    words = [0] * (lanes * rows)
    for row in range(rows):
        number = sum(
            residues[column * rows + row] << w * column for column in range(columns)
        )
        for lane in range(lanes):
            words[lane * rows + row] = (number >> 64 * lane) % 2**64
    return b"".join(word.to_bytes(8, "little") for word in words)


def unpack_residues(data: bytes, size: int, w: int, p: int) -> Polynomial:
    """SPEC 3.5, with U2 and U5."""
    require(len(data) == size * w // 8, "U2")
    columns, lanes, rows = _shape(size, w)
    words = [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]
    out = [0] * size
    for row in range(rows):
        number = sum(words[lane * rows + row] << 64 * lane for lane in range(lanes))
        for column in range(columns):
            out[column * rows + row] = (number >> w * column) % 2**w
    require(max(out) < p, "U5")
    return out


def block_bytes(packing: Packing) -> int:
    return packing.size * packing.prime_bits // 8 * SIZES[packing.size]


def pack_chunk(blocks: Sequence[Residues], prime_bits: int) -> bytes:
    return b"".join(pack_residues(one, prime_bits) for b in blocks for one in b)
