# SPDX-License-Identifier: Apache-2.0
"""Sums of CKKS, opened with the sum of their keys (CKKS specification, section 3)."""

import math
from dataclasses import dataclass
from functools import lru_cache

from canonical import Malformed, digest
from context import CKKS
from packing import Packing, primes_of
from streams import aes_ctr, numbers, residues

_TAIL, _SQUARES = 96, 61  # what is short (CKKS 3.2)


@dataclass(frozen=True)
class Ring:
    """One prime, with the powers of its root in the order of the transform."""

    prime: int
    powers: list[int]
    inverses: list[int]


def _reversed_bits(number: int, bits: int) -> int:
    return int(f"{number:0{bits}b}"[::-1], 2)


@lru_cache(maxsize=4)
def ring(prime: int, degree: int) -> Ring:
    psi = least_root(prime, degree)
    bits = degree.bit_length() - 1
    order = [_reversed_bits(i, bits) for i in range(degree)]
    forward, back = [1], [1]
    inverse = pow(psi, -1, prime)
    for _ in range(degree - 1):
        forward.append(forward[-1] * psi % prime)
        back.append(back[-1] * inverse % prime)
    return Ring(prime, [forward[i] for i in order], [back[i] for i in order])


def least_root(prime: int, degree: int) -> int:
    """The least primitive root of unity of order twice the degree (CKKS 2.1)."""
    start = 2
    while True:
        root = pow(start, (prime - 1) // (2 * degree), prime)
        if pow(root, degree, prime) == prime - 1:
            break
        start += 1
    least, square, power = root, root * root % prime, root
    for _ in range(degree - 1):
        power = power * square % prime
        least = min(least, power)
    return least


def transform(values: list[int], place: Ring) -> list[int]:
    """Values at `psi^(2 rev(j) + 1)` for each j, from coefficients."""
    found, prime = list(values), place.prime
    half, groups = len(found) // 2, 1
    while groups < len(found):
        for group in range(groups):
            factor = place.powers[groups + group]
            for at in range(2 * group * half, (2 * group + 1) * half):
                low, high = found[at], found[at + half] * factor % prime
                found[at] = (low + high) % prime
                found[at + half] = (low - high) % prime
        groups, half = 2 * groups, half // 2
    return found


def back(values: list[int], place: Ring) -> list[int]:
    """Coefficients, from the values of `transform`."""
    found, prime = list(values), place.prime
    half, groups = 1, len(found) // 2
    while groups:
        for group in range(groups):
            factor = place.inverses[groups + group]
            for at in range(2 * group * half, (2 * group + 1) * half):
                low, high = found[at], found[at + half]
                found[at] = (low + high) % prime
                found[at + half] = (low - high) * factor % prime
        groups, half = groups // 2, 2 * half
    scale = pow(len(found), -1, prime)
    return [value * scale % prime for value in found]


def drawn(key: bytes, counter: int, prime: int, bits: int, count: int) -> list[int]:
    """Numbers below the prime, from a stream (CKKS 3.1)."""
    mask, size = (1 << bits) - 1, 8 * (count + 64)
    while True:
        stream = numbers(aes_ctr(key, counter, size), 8)
        found = [number & mask for number in stream if number & mask < prime]
        if len(found) >= count:
            return found[:count]
        size *= 2


class Opening:
    """Adds ciphertexts up and opens their sum.  What does not fit is `Malformed`."""

    def __init__(self, packing: Packing, ctx: bytes, length: int, bits: int) -> None:
        self._packing, self._ctx = packing, ctx
        self._length, self._bits = length, bits
        self._primes = primes_of(packing)
        self._sums: dict[tuple[int, int], list[int]] = {}

    def block_bytes(self) -> int:
        """Bytes of a block on the wire."""
        degree, bits = self._packing.degree, self._packing.prime_bits
        return len(self._primes) * degree * bits // 8

    def add(self, client: int, seed: bytes, chunks: list[bytes]) -> None:
        """Adds a client's ciphertexts, without their covers."""
        degree, bits = self._packing.degree, self._packing.prime_bits
        data = b"".join(chunks)
        if len(data) != self._packing.blocks * self.block_bytes():
            raise Malformed("ciphertexts have not their length")
        cover = digest(f"{CKKS} cover", self._ctx, client, seed)
        size = degree * bits // 8
        for block in range(self._packing.blocks):
            for at, prime in enumerate(self._primes):
                counter = block * len(self._primes) + at
                part = data[counter * size : (counter + 1) * size]
                sent = residues(part, degree, bits)
                if max(sent) >= prime:
                    raise Malformed("a residue is not below its prime")
                hidden = drawn(cover, counter, prime, bits, degree)
                total = self._sums.get((block, at), [0] * degree)
                rows = zip(total, sent, hidden, strict=True)
                self._sums[block, at] = [(t + s - h) % prime for t, s, h in rows]

    def open(self, key: list[int], clients: int) -> list[int]:
        """The sum's words, with the sum of the keys of so many clients."""
        self._check_short(key, clients, "the sum of the keys")
        words: list[int] = []
        for block in range(self._packing.blocks):
            values = self._open_block(block, key, clients)
            words += values
        if any(words[self._length :]):
            raise Malformed("something stands beyond the vector")
        return words[: self._length]

    def _check_short(self, values: list[int], clients: int, what: str) -> None:
        limit = _SQUARES * self._packing.degree * clients
        largest = max(map(abs, values))
        if largest > _TAIL * clients or sum(v * v for v in values) > limit:
            raise Malformed(f"{what} is not short")

    def _open_block(self, block: int, key: list[int], clients: int) -> list[int]:
        packing = self._packing
        degree, scale = packing.degree, packing.scale_bits
        public = digest(f"{CKKS} polynomials", self._ctx)
        modulus = math.prod(self._primes)
        values = [0] * degree
        for at, prime in enumerate(self._primes):
            place = ring(prime, degree)
            counter = block * len(self._primes) + at
            a = drawn(public, counter, prime, packing.prime_bits, degree)
            turned = transform([k % prime for k in key], place)
            product = back(
                [x * y % prime for x, y in zip(a, turned, strict=True)], place
            )
            others = modulus // prime
            unit = others * pow(others, -1, prime)
            for i, (c, p) in enumerate(
                zip(self._sums[block, at], product, strict=True)
            ):
                values[i] += (c - p) * unit
        half, error = 1 << scale - 1, []
        for i, value in enumerate(values):
            x = value % modulus
            x -= modulus if x > modulus // 2 else 0
            values[i] = x + half >> scale
            error.append(x - (values[i] << scale))
        self._check_short(error, clients, "an error")
        return self._words(values)

    def _words(self, values: list[int]) -> list[int]:
        """The fields of each coefficient, from the lowest (CKKS 3.3)."""
        bits, found = self._bits, []
        top, full = 1 << self._bits - 1, 1 << self._bits
        for _ in range(self._packing.fields):
            field = [value & full - 1 for value in values]
            low = [word - full if word >= top else word for word in field]
            values = [v - w >> bits for v, w in zip(values, low, strict=True)]
            found += field
        if any(values):
            raise Malformed("something is left above the highest field")
        return found
