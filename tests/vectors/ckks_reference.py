# SPDX-License-Identifier: Apache-2.0
"""CKKS a second time, from protocols/ckks/SPEC.md alone: sections 2 and 3.

Plain integers, slow and obvious.  Nothing here comes from ``secure_fl``: where it and
the package agree byte for byte, the SPEC says enough.  Errors and keys are given, so
that vectors can be made again; no real client may do that.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property

from .reference import Value, aes_ctr, digest, ed25519_public

SPEC = "secure-fl/ckks/1"
MASKING = "secure-fl/masking/1"
SIZES = {4096: 1, 8192: 2}  # N, and the number of primes
PRIME_BITS = range(54, 61)

Polynomial = list[int]  # N residues of one prime, or N integers
Residues = list[Polynomial]  # one polynomial for each prime


class Wrong(ValueError):
    """What may not be; ``check`` is its id in SPEC 7."""

    def __init__(self, check: str) -> None:
        super().__init__(check)
        self.check = check


def require(holds: bool, check: str) -> None:
    if not holds:
        raise Wrong(check)


# -- 2.1: rings -------------------------------------------------------------------


def is_prime(number: int) -> bool:
    """Miller and Rabin; these bases decide every number below 2^64."""
    bases = (2, 3, 5, 7, 11, 13, 17, 19, 23, 29, 31, 37)
    if any(number % b == 0 for b in bases):
        return number in bases
    odd = number - 1
    while odd % 2 == 0:
        odd //= 2
    for base in bases:
        power, value = odd, pow(base, odd, number)
        while value not in (1, number - 1) and power < (number - 1) // 2:
            power, value = power * 2, value * value % number
        if value != number - 1 and not (value == 1 and power == odd):
            return False
    return True


def least_root(size: int, p: int) -> int:
    """The least primitive ``2 * size``-th root of unity mod ``p``."""
    order = 2 * size
    root = next(
        root
        for root in (pow(x, (p - 1) // order, p) for x in itertools.count(2))
        if pow(root, size, p) == p - 1
    )
    # The others are its odd powers.
    least, power = root, root
    for _ in range(size - 1):
        power = power * root * root % p
        least = min(least, power)
    return least


@cache
def ring(size: int, prime_bits: int) -> tuple[tuple[int, int], ...]:
    """SPEC 2.1: each prime with its psi, the larger first."""
    require(size in SIZES and prime_bits in PRIME_BITS, "N1")
    first = (2**prime_bits - 1) // (2 * size) * (2 * size) + 1
    candidates = itertools.count(first, -2 * size)
    below = (p for p in candidates if p < 2**prime_bits and is_prime(p))
    primes = list(itertools.islice(below, SIZES[size]))
    return tuple((p, least_root(size, p)) for p in primes)


# -- 2, 2.2: parameters -----------------------------------------------------------


@dataclass(frozen=True)
class Packing:
    """The last four parameters."""

    size: int  # N
    prime_bits: int
    fields: int
    scale_bits: int

    @property
    def primes(self) -> list[int]:
        return [p for p, _ in ring(self.size, self.prime_bits)]

    @property
    def q(self) -> int:
        return math.prod(self.primes)


def most(word_bits: int, fields: int) -> int:
    highest = 1 << (word_bits - 1)
    return highest * ((1 << fields * word_bits) - 1) // ((1 << word_bits) - 1)


def rounds_right(clients: int, scale_bits: int) -> bool:
    """SPEC 2.2, first line; a scale below 1 leaves no integer on its right."""
    return scale_bits >= 1 and 4600 * clients <= 1 << (2 * scale_bits - 2)


def fits(word_bits: int, p: Packing) -> bool:
    """SPEC 2.2, second line."""
    s = p.scale_bits
    return (most(word_bits, p.fields) << s) + (1 << s - 1) <= (p.q - 1) // 2


def choose(clients: int, word_bits: int, length: int) -> Packing:
    """SPEC 2.2: the plan's packing."""
    s = next(s for s in itertools.count(1) if rounds_right(clients, s))
    found: list[tuple[int, Packing]] = []
    for size, primes in SIZES.items():  # the smaller N, then the smaller prime, first
        for prime_bits in PRIME_BITS:
            packing = Packing(size, prime_bits, 0, s)
            while fits(word_bits, more := replace(packing, fields=packing.fields + 1)):
                packing = more
            if packing.fields:
                blocks = -(-length // (size * packing.fields))
                found.append((blocks * primes * size * prime_bits // 8, packing))
    return min(found, key=lambda pair: pair[0])[1]  # the first of equals


def key_bits(clients: int) -> int:
    """SPEC 4.4."""
    return next(k for k in itertools.count(8) if 96 * clients <= 2 ** (k - 1) - 1)


@dataclass(frozen=True)
class Ckks:
    """SPEC 2: a context, with everybody's private keys, as only a test has them."""

    seeds: tuple[bytes, ...]
    names: tuple[str, ...]
    aggregator: bytes
    holder: bytes
    plan_hash: bytes
    run_id: bytes
    round_index: int
    attempt: int
    model_hash: bytes
    length: int
    word_bits: int
    chunk_blocks: int
    min_clients: int
    max_colluding: int
    threshold: int
    keys: str
    packing: Packing

    @property
    def n(self) -> int:
        return len(self.seeds)

    @property
    def roster(self) -> list[Value]:
        rows = zip(self.names, self.seeds, strict=True)
        return [[name, ed25519_public(seed)] for name, seed in rows]

    @property
    def parameters(self) -> list[Value]:
        p = self.packing
        return [
            self.n,
            self.length,
            self.word_bits,
            self.chunk_blocks,
            self.min_clients,
            self.max_colluding,
            self.keys,
            p.size,
            p.prime_bits,
            p.fields,
            p.scale_bits,
        ]

    @cached_property
    def ctx(self) -> bytes:
        return digest(
            f"{SPEC} ctx",
            self.plan_hash,
            self.run_id,
            self.round_index,
            self.attempt,
            self.roster,
            self.model_hash,
            self.parameters,
        )

    @property
    def keys_parameters(self) -> list[Value]:
        """SPEC 4.4: of the masking context in which keys are added."""
        size, bits = self.packing.size, key_bits(self.n)
        rest: list[Value] = [self.threshold, self.min_clients, self.max_colluding]
        return [self.n, size, bits, size, *rest, "complete", "x25519"]

    @property
    def keys_ctx(self) -> bytes:
        """SPEC 4.4."""
        return digest(
            f"{MASKING} ctx",
            self.plan_hash,
            self.run_id,
            self.round_index,
            self.attempt,
            self.roster,
            self.ctx,
            self.keys_parameters,
        )

    @property
    def block_words(self) -> int:
        return self.packing.size * self.packing.fields

    @property
    def blocks(self) -> int:
        return -(-self.length // self.block_words)

    @property
    def chunks(self) -> int:
        return -(-self.blocks // self.chunk_blocks)

    def blocks_of(self, chunk: int) -> range:
        start = chunk * self.chunk_blocks
        return range(start, min(start + self.chunk_blocks, self.blocks))


def check(
    clients: int,
    length: int,
    word_bits: int,
    chunk_blocks: int,
    min_clients: int,
    max_colluding: int,
    keys: str,
    packing: Packing,
) -> None:
    """SPEC 7.1."""
    require(packing.size in SIZES and packing.prime_bits in PRIME_BITS, "N1")
    require(length >= 1 and chunk_blocks >= 1 and 8 <= word_bits <= 64, "N4")
    require(max_colluding >= 0, "N4")
    require(max_colluding + 2 <= min_clients <= clients, "N4")
    require(rounds_right(clients, packing.scale_bits), "N3")
    require(packing.fields >= 1 and fits(word_bits, packing), "N2")
    require(keys in ("one-time", "keyholder"), "N5")


# -- 3.1: polynomials, and their evaluations ----------------------------------------


def reverse(j: int, size: int) -> int:
    """SPEC 3.1: ``j`` with its bits in the other order."""
    bits = size.bit_length() - 1
    return int(f"{j:0{bits}b}"[::-1], 2)


@cache
def _powers(size: int, root: int, p: int) -> list[int]:
    """``root^rev(j)`` mod ``p``."""
    plain = [1]
    for _ in range(size - 1):
        plain.append(plain[-1] * root % p)
    return [plain[reverse(j, size)] for j in range(size)]


def evaluate(coefficients: Sequence[int], p: int, psi: int) -> Polynomial:
    """Values at ``psi^(2 * rev(j) + 1)`` for each ``j`` in order (SPEC 3.1)."""
    a, size = [c % p for c in coefficients], len(coefficients)
    zetas = _powers(size, psi, p)
    groups, half = 1, size // 2
    while half:
        for g in range(groups):
            zeta, start = zetas[groups + g], 2 * g * half
            for j in range(start, start + half):
                u, v = a[j], a[j + half] * zeta
                a[j], a[j + half] = (u + v) % p, (u - v) % p
        groups, half = groups * 2, half // 2
    return a


def interpolate(values: Sequence[int], p: int, psi: int) -> Polynomial:
    """The coefficients again: each step of ``evaluate`` undone."""
    a, size = list(values), len(values)
    zetas = _powers(size, pow(psi, -1, p), p)
    # psi^-rev(j) is the inverse of psi^rev(j), as _powers has it of psi^-1.
    groups, half = size // 2, 1
    while groups:
        for g in range(groups):
            zeta, start = zetas[groups + g], 2 * g * half
            for j in range(start, start + half):
                u, v = a[j], a[j + half]
                a[j], a[j + half] = (u + v) % p, (u - v) * zeta % p
        groups, half = groups // 2, half * 2
    scale = pow(size, -1, p)
    return [x * scale % p for x in a]


@cache
def public_polynomial(
    ctx: bytes, size: int, prime_bits: int, block: int, place: int
) -> tuple[int, ...]:
    """SPEC 3.1: ``A[0]`` to ``A[N - 1]`` of prime number ``place``."""
    return drawn(digest(f"{SPEC} polynomials", ctx), size, prime_bits, block, place)


def cover(
    ctx: bytes, packing: Packing, client: int, seed: bytes, block: int
) -> Residues:
    """SPEC 3.4: what a client adds to its ciphertext."""
    key = digest(f"{SPEC} cover", ctx, client, seed)
    size, bits = packing.size, packing.prime_bits
    return [list(drawn(key, size, bits, block, i)) for i in range(SIZES[size])]


def drawn(
    key: bytes, size: int, prime_bits: int, block: int, place: int
) -> tuple[int, ...]:
    """SPEC 3.1: the first numbers below the prime."""
    primes = [p for p, _ in ring(size, prime_bits)]
    counter = (block * len(primes) + place).to_bytes(8, "big") + bytes(8)
    # A few more than N numbers, since some may be left out.
    stream = aes_ctr(key, 8 * (size + 64), counter)
    numbers = (
        int.from_bytes(stream[8 * i : 8 * i + 8], "little") % 2**prime_bits
        for i in range(size + 64)
    )
    kept = tuple(x for x in numbers if x < primes[place])[:size]
    assert len(kept) == size
    return kept


def times_public(
    ctx: bytes, packing: Packing, block: int, key: Sequence[int]
) -> Residues:
    """``a * key`` in R_q: coefficients mod each prime."""
    out = []
    for place, (p, psi) in enumerate(ring(packing.size, packing.prime_bits)):
        public = public_polynomial(ctx, packing.size, packing.prime_bits, block, place)
        values = zip(public, evaluate(key, p, psi), strict=True)
        out.append(interpolate([a * k % p for a, k in values], p, psi))
    return out


# -- 3.2, 3.3: short polynomials and blocks -----------------------------------------


def is_short(coefficients: Sequence[int], size: int, clients: int) -> bool:
    """SPEC 3.2."""
    squares = sum(x * x for x in coefficients)
    largest = max(abs(x) for x in coefficients)
    return squares <= 61 * size * clients and largest <= 96 * clients


def signed(word: int, bits: int) -> int:
    """Two's complement of the low ``bits`` bits."""
    word %= 2**bits
    return word - 2**bits if word >> (bits - 1) else word


def encrypt(
    ctx: bytes,
    packing: Packing,
    word_bits: int,
    block: int,
    words: Sequence[int],
    key: Sequence[int],
    error: Sequence[int],
) -> Residues:
    """SPEC 3.3: a block; ``words`` are those of the block, without the zeros beyond."""
    size, f, s = packing.size, packing.fields, packing.scale_bits
    v = [signed(w, word_bits) for w in words]
    v += [0] * (size * f - len(v))
    message = [
        2**s * sum(2 ** (j * word_bits) * v[j * size + i] for j in range(f))
        for i in range(size)
    ]
    product = times_public(ctx, packing, block, key)
    return [
        [(m + e + a) % p for m, e, a in zip(message, error, one, strict=True)]
        for p, one in zip(packing.primes, product, strict=True)
    ]


def combine(residues: Residues, primes: Sequence[int]) -> Polynomial:
    """Residues of each coefficient to the integer from -(q-1)/2 to (q-1)/2."""
    q = math.prod(primes)
    units = [q // p * pow(q // p, -1, p) for p in primes]
    out = []
    for row in zip(*residues, strict=True):
        x = sum(r * u for r, u in zip(row, units, strict=True)) % q
        out.append(x - q if x > (q - 1) // 2 else x)
    return out


def open_block(
    ctx: bytes,
    packing: Packing,
    word_bits: int,
    block: int,
    total: Residues,
    key: Sequence[int],
    clients: int,
) -> list[int]:
    """SPEC 3.3 and 7.5, X6 and X7: the sums of all words, signed."""
    size, f, s = packing.size, packing.fields, packing.scale_bits
    product = times_public(ctx, packing, block, key)
    x = combine(subtract(total, product, packing.primes), packing.primes)
    y = [(value + 2 ** (s - 1)) >> s for value in x]
    require(
        is_short([a - (b << s) for a, b in zip(x, y, strict=True)], size, clients), "X6"
    )
    out = [0] * (size * f)
    for i, rest in enumerate(y):
        for j in range(f):
            out[j * size + i] = signed(rest, word_bits)
            rest = (rest - out[j * size + i]) >> word_bits
        require(rest == 0, "X7")
    return out


def open_sum(
    ctx: bytes,
    packing: Packing,
    word_bits: int,
    length: int,
    totals: Sequence[Residues],
    key: Sequence[int],
    seeds: Mapping[int, bytes],
) -> list[int]:
    """SPEC 7.5, X5 to X8: the sums of the vector's words, signed.

    ``seeds``: the cover seed of each client in the set.
    """
    clients, primes = len(seeds), packing.primes
    require(is_short(key, packing.size, clients), "X5")
    out: list[int] = []
    for block, total in enumerate(totals):
        for client, seed in seeds.items():
            hidden = cover(ctx, packing, client, seed, block)
            total = subtract(total, hidden, primes)
        out += open_block(ctx, packing, word_bits, block, total, key, clients)
    require(not any(out[length:]), "X8")
    return out[:length]


def subtract(a: Residues, b: Residues, primes: Sequence[int]) -> Residues:
    return [
        [(x - y) % p for x, y in zip(one, other, strict=True)]
        for one, other, p in zip(a, b, primes, strict=True)
    ]


def add(blocks: Sequence[Residues], primes: Sequence[int]) -> Residues:
    return [
        [sum(column) % p for column in zip(*(b[k] for b in blocks), strict=True)]
        for k, p in enumerate(primes)
    ]
