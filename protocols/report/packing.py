# SPDX-License-Identifier: Apache-2.0
"""Ring and packing of a plan with CKKS (CKKS specification, 2.1 and 2.2)."""

import math
from dataclasses import dataclass

from canonical import refuse
from plan import FILE, Plan

# Degree, bits of a prime, and what each prime lacks to that power of two (CKKS 2.1).
_RINGS = (
    (4096, 54, 172031),
    (4096, 55, 311295),
    (4096, 56, 286719),
    (4096, 57, 40959),
    (4096, 58, 581631),
    (4096, 59, 8191),
    (4096, 60, 16383),
    (8192, 54, 1081343, 1343487),
    (8192, 55, 311295, 1392639),
    (8192, 56, 311295, 557055),
    (8192, 57, 262143, 720895),
    (8192, 58, 835583, 999423),
    (8192, 59, 212991, 376831),
    (8192, 60, 16383, 98303),
)


@dataclass(frozen=True)
class Packing:
    """Ring and packing of CKKS (its specification, 2.1 and 2.2)."""

    degree: int
    prime_bits: int
    modulus_bits: int
    fields: int
    scale_bits: int
    blocks: int


def primes_of(packed: Packing) -> list[int]:
    """The primes of a ring, the larger first."""
    for degree, bits, *gaps in _RINGS:
        if (degree, bits) == (packed.degree, packed.prime_bits):
            return [2**bits - gap for gap in gaps]
    raise ValueError("no such ring")


def packing(plan: Plan, length: int) -> Packing:
    """Ring and packing for vectors of so many words (CKKS 2.2), or `Refused`."""
    n, bits = len(plan.members), plan.word_bits
    scale = next(s for s in range(1, 64) if 4600 * n <= 4 ** (s - 1))
    best: tuple[int, Packing] | None = None
    for degree, prime_bits, *gaps in _RINGS:
        modulus = math.prod(2**prime_bits - gap for gap in gaps)
        most_fields = _fields(bits, scale, modulus)
        if scale >= prime_bits or most_fields < 1:
            continue
        blocks = -(-length // (degree * most_fields))
        size = blocks * len(gaps) * degree * prime_bits // 8
        if best is None or size < best[0]:
            bits_of = (prime_bits, modulus.bit_length())
            found = Packing(degree, *bits_of, most_fields, scale, blocks)
            best = (size, found)
    if best is None:
        refuse("V-PLAN-3", FILE, "no ring of CKKS holds a word")
    if best[1].blocks * best[1].degree * plan.rounds * plan.max_attempts > 2**40:
        refuse("V-PLAN-3", FILE, "more coefficients than CKKS may open in one plan")
    return best[1]


def _fields(bits: int, scale: int, modulus: int) -> int:
    found = 0
    while True:
        most = 2 ** (bits - 1) * (2 ** ((found + 1) * bits) - 1) // (2**bits - 1)
        if 2**scale * most + 2 ** (scale - 1) > (modulus - 1) // 2:
            return found
        found += 1
