# SPDX-License-Identifier: Apache-2.0
"""The rings there are, and how a plan's integers are packed into them (SPEC.md, 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Final, final

from ..errors import PlanError

__all__ = [
    "ERROR_STD",
    "LARGEST_KEY",
    "MOST_COEFFICIENTS",
    "Packing",
    "Prime",
    "Ring",
    "choose_packing",
    "ring",
    "scale_for",
    "shortest_square",
]

ERROR_STD: Final = 6.4
LARGEST_KEY: Final = 96  # no coefficient of a key or an error is beyond it
MOST_COEFFICIENTS: Final = 2**40  # over all rounds of a plan: SPEC 10

# For each N and size: what the primes are below 2^size, and their least primitive
# 2N-th root of unity.
_TABLE: Final[dict[int, dict[int, tuple[tuple[int, int], ...]]]] = {
    4096: {
        54: ((172031, 2104035327373),),
        55: ((311295, 4306037850660),),
        56: ((286719, 2516238336004),),
        57: ((40959, 23545966792880),),
        58: ((581631, 255370403163998),),
        59: ((8191, 238394956950829),),
        60: ((16383, 116777451583545),),
    },
    8192: {
        54: ((1081343, 1991035980967), (1343487, 365254547778)),
        55: ((311295, 15372713853695), (1392639, 3055459936772)),
        56: ((311295, 2302484215848), (557055, 6904832832351)),
        57: ((262143, 13315696126838), (720895, 7474160414030)),
        58: ((835583, 31566079753753), (999423, 3631991191365)),
        59: ((212991, 77804413990098), (376831, 83248913975032)),
        60: ((16383, 25959043411404), (98303, 100406242475323)),
    },
}


@final
@dataclass(frozen=True, slots=True)
class Prime:
    """One prime of a ring, and the root of unity that its evaluation form is made of.

    ``root`` is the least primitive 2N-th root of unity: backends must agree on it.
    """

    degree: int
    bits: int
    value: int
    root: int


@final
@dataclass(frozen=True)
class Ring:
    """Z_q[X] / (X^degree + 1), q the product of ``primes``, each of ``bits`` bits."""

    degree: int
    bits: int
    primes: tuple[Prime, ...]

    @cached_property
    def modulus(self) -> int:
        return math.prod(p.value for p in self.primes)

    @property
    def block_bytes(self) -> int:
        """Bytes of one ciphertext on the wire."""
        return len(self.primes) * self.degree * self.bits // 8


def ring(degree: int, bits: int) -> Ring:
    """The ring of this degree and prime size.  Raises PlanError where none is safe."""
    row = _TABLE.get(degree, {}).get(bits)
    if row is None:
        raise PlanError(
            f"there is no ring of degree {degree} with primes of {bits} bits",
            key="protection",
            hint="all there are have at least 192-bit security (SPEC ckks, 2.1)",
        )
    primes = tuple(Prime(degree, bits, 2**bits - below, root) for below, root in row)
    return Ring(degree, bits, primes)


def scale_for(clients: int) -> int:
    """The least scale in bits at which errors never show (SPEC 10)."""
    bits = 1
    while 4600 * clients > 4 ** (bits - 1):
        bits += 1
    return bits


def shortest_square(degree: int, clients: int) -> int:
    """The largest sum of squares that a short polynomial of ``clients`` has."""
    return 61 * degree * clients


@final
@dataclass(frozen=True)
class Packing:
    """``fields`` words of ``word_bits`` in each coefficient, times 2^``scale_bits``.

    Raises PlanError where the sum of ``clients`` such words would not fit the modulus,
    or where errors could be taken for values.
    """

    ring: Ring
    clients: int
    word_bits: int
    fields: int
    scale_bits: int

    def __post_init__(self) -> None:
        if 4600 * self.clients > 4 ** (self.scale_bits - 1):
            raise PlanError(
                f"a scale of 2^{self.scale_bits} is lost in the errors of "
                f"{self.clients} clients",
                key="protection",
            )
        if self.scale_bits >= self.ring.bits:
            raise PlanError(
                f"a scale of 2^{self.scale_bits} is beyond the ring's primes",
                key="protection",
            )
        if self.fields < 1 or not fits(
            self.ring, self.word_bits, self.fields, self.scale_bits
        ):
            raise PlanError(
                f"the modulus does not hold {self.fields} sums of {self.word_bits} "
                "bits in a coefficient",
                key="protection.word_bits",
            )

    @property
    def values(self) -> int:
        """Words in one block."""
        return self.ring.degree * self.fields

    def blocks(self, length: int) -> int:
        """Ciphertexts that ``length`` words take."""
        return -(-length // self.values)

    def bytes(self, length: int) -> int:
        """What they take on the wire."""
        return self.blocks(length) * self.ring.block_bytes


def fits(ring: Ring, word_bits: int, fields: int, scale_bits: int) -> bool:
    """Whether no sum can wrap (SPEC 2.2)."""
    top = 2 ** (word_bits - 1) * (2 ** (fields * word_bits) - 1) // (2**word_bits - 1)
    return bool(top * 2**scale_bits + 2 ** (scale_bits - 1) <= (ring.modulus - 1) // 2)


def choose_packing(clients: int, word_bits: int, length: int) -> Packing:
    """The packing in which a vector takes the fewest bytes.

    Raises PlanError where there is none.

    >>> packing = choose_packing(clients=10, word_bits=16, length=1_000_000)
    >>> packing.fields, packing.ring.degree, packing.ring.bits
    (6, 8192, 54)
    """
    scale = scale_for(clients)
    best: Packing | None = None
    for degree, sizes in _TABLE.items():
        for bits in sizes:
            candidate = ring(degree, bits)
            fields = 0
            while fits(candidate, word_bits, fields + 1, scale):
                fields += 1
            if fields:
                packing = Packing(candidate, clients, word_bits, fields, scale)
                # Of equals the first: the smaller degree, then the smaller primes.
                if best is None or packing.bytes(length) < best.bytes(length):
                    best = packing
    if best is None:
        raise PlanError(
            f"no ring holds the sum of {clients} clients' words of {word_bits} bits",
            key="protection.word_bits",
            hint="choose narrower words",
        )
    return best
