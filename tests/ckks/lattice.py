# SPDX-License-Identifier: Apache-2.0
"""What the two known lattice attacks on LWE cost (SPEC.md, section 9).

Both reduce a basis with BKZ and find a vector that should not be there: the primal
attack the secret and the error themselves, the dual attack short vectors that tell a
sample from a uniform one.  The shape of a reduced basis is that of the geometric series
assumption.  Reduction with blocks of ``beta`` is charged in one of three ways:

* core-SVP (Alkim, Ducas, Poeppelmann, Schwabe, 2016): one call of a sieve in dimension
  ``beta``, all else free.  That is less than any known algorithm takes;
* the same for a quantum sieve;
* as in the tables of the Homomorphic Encryption Standard (2018): ``8 d`` such calls,
  each 2^16.4 times as dear, where ``d`` is the dimension of the lattice.

RLWE is taken as LWE with as many samples as the attack likes.  Guessing a part of the
secret is left out: it helps where secrets are ternary or sparse, and ours are not.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

__all__ = [
    "Attack",
    "Lwe",
    "best_attack",
    "core_svp",
    "dual",
    "largest_modulus",
    "primal",
    "quantum_core_svp",
    "root_hermite",
    "standard_cost",
]

Cost = Callable[[int, int], float]

_LEAST_BLOCK: Final = 60  # below it the formula for the root Hermite factor is wrong
_LARGEST_BLOCK: Final = 6000
_SIEVE_FINDS: Final = 0.2075  # a sieve in dimension b leaves 2^(0.2075 b) short vectors


@dataclass(frozen=True)
class Lwe:
    """n secrets, a modulus of ``modulus_bits`` bits, and both standard deviations."""

    n: int
    modulus_bits: float
    secret_std: float
    error_std: float
    samples: int | None = None  # None: as many as the attack likes

    @property
    def _modulus(self) -> float:
        return self.modulus_bits * math.log(2)


@dataclass(frozen=True)
class Attack:
    """The blocks and the lattice it works with, and the log2 of what it costs."""

    block: int
    dimension: int
    bits: float


def core_svp(block: int, dimension: int) -> float:
    """log2 of the cost of one classical sieve."""
    return 0.292 * block


def quantum_core_svp(block: int, dimension: int) -> float:
    """log2 of the cost of one quantum sieve."""
    return 0.265 * block


def standard_cost(block: int, dimension: int) -> float:
    """log2 of the cost of BKZ with a classical sieve, as the standard counts it."""
    return 0.292 * block + 16.4 + math.log2(8 * dimension)


def root_hermite(block: int) -> float:
    """delta: BKZ finds a vector of length delta^d * volume^(1/d) (Chen, 2013)."""
    ball = block / (2 * math.pi * math.e) * (math.pi * block) ** (1 / block)
    return float(ball ** (1 / (2 * (block - 1))))


# -- primal ----------------------------------------------------------------------------


def primal(lwe: Lwe, cost: Cost) -> Attack:
    """The unique-SVP attack: the smallest block that finds (error, secret, 1).

    It is found where its projection is shorter than what BKZ leaves there:
    ``error_std * sqrt(block) <= delta^(2 block - d - 1) * volume^(1/d)``.
    """
    low, high = _LEAST_BLOCK, _LARGEST_BLOCK
    while low < high:
        block = (low + high) // 2
        if _room(lwe, block, _widest(lwe, block)) >= 0:
            high = block
        else:
            low = block + 1
    block, most = low, _widest(lwe, low)
    if _room(lwe, block, most) < 0:
        raise ValueError(f"blocks of {_LARGEST_BLOCK} do not break {lwe}")
    # The fewest dimensions that still do.  The room grows with them up to `most`.
    least = max(lwe.n + 2, block + 1)
    while least < most:
        dimension = (least + most) // 2
        if _room(lwe, block, dimension) >= 0:
            most = dimension
        else:
            least = dimension + 1
    return Attack(block, most, cost(block, most))


def _room(lwe: Lwe, block: int, dimension: int) -> float:
    """log of how much shorter the vector is than it must be."""
    # Secrets narrower than errors are stretched to the errors' width (Bai, Galbraith).
    stretch = max(0.0, math.log(lwe.error_std / lwe.secret_std))
    samples = dimension - lwe.n - 1
    volume = samples * lwe._modulus + lwe.n * stretch + math.log(lwe.error_std)
    left = (2 * block - dimension - 1) * math.log(root_hermite(block))
    wanted = math.log(lwe.error_std) + math.log(block) / 2
    return left + volume / dimension - wanted


def _widest(lwe: Lwe, block: int) -> int:
    """The dimension with the most room, within the samples there are."""
    stretch = max(0.0, math.log(lwe.error_std / lwe.secret_std))
    missing = (lwe.n + 1) * lwe._modulus - lwe.n * stretch - math.log(lwe.error_std)
    best = math.ceil(math.sqrt(missing / math.log(root_hermite(block))))
    if lwe.samples is not None:
        best = min(best, lwe.n + lwe.samples + 1)
    return max(best, lwe.n + 2, block + 1)


# -- dual ------------------------------------------------------------------------------


def dual(lwe: Lwe, cost: Cost) -> Attack:
    """The distinguishing attack: the block at which reduction and advantage balance.

    Vectors of length ``l`` in the dual tell LWE from uniform with an advantage of
    ``exp(-2 (pi l error_std / q)^2)``; ``1 / advantage^2`` of them are needed, of
    which one sieve finds 2^(0.2075 block), each longer by sqrt(4/3).
    """
    return min(
        (dual_with(lwe, block, cost) for block in range(_LEAST_BLOCK, 2000)),
        key=lambda attack: attack.bits,
    )


def dual_with(lwe: Lwe, block: int, cost: Cost) -> Attack:
    """The same with blocks of a given size."""
    growth = math.log(root_hermite(block))
    # Secrets narrower than errors count for less in the length of a vector.
    volume = lwe.n * (lwe._modulus + math.log(lwe.secret_std / lwe.error_std))
    dimension = math.ceil(math.sqrt(volume / growth))
    if lwe.samples is not None:
        dimension = min(dimension, lwe.n + lwe.samples)
    length = dimension * growth + volume / dimension + math.log(4 / 3) / 2
    blur = math.exp(2 * (length + math.log(lwe.error_std) - lwe._modulus))
    needed = 4 * math.pi**2 * blur / math.log(2)
    sieves = max(0.0, needed - _SIEVE_FINDS * block)
    return Attack(block, dimension, cost(block, dimension) + sieves)


# -- both ------------------------------------------------------------------------------


def best_attack(lwe: Lwe, cost: Cost) -> Attack:
    """The cheaper of the two."""
    return min(primal(lwe, cost), dual(lwe, cost), key=lambda attack: attack.bits)


def largest_modulus(
    n: int, level: float, secret_std: float, error_std: float, cost: Cost
) -> int:
    """The most bits of a modulus at which no attack is below 2^level."""
    low, high = 2, n
    while low < high:
        bits = (low + high + 1) // 2
        lwe = Lwe(n, bits, secret_std, error_std)
        if best_attack(lwe, cost).bits >= level:
            low = bits
        else:
            high = bits - 1
    return low
