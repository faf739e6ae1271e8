# SPDX-License-Identifier: Apache-2.0
"""Public polynomials, and the short secret ones (SPEC.md, 3.1 and 3.2).

Both come out of AES-256-CTR: the public ones under a key that everybody derives from
the context, the secret ones under a key derived from 32 fresh bytes, with counters of
their own for every block.
"""

from __future__ import annotations

import bisect
import decimal
import functools
from collections.abc import Iterator, Sequence
from typing import Final, NoReturn, final

import numpy as np
from cryptography.hazmat.primitives.ciphers import CipherContext
from numpy.typing import NDArray

from .. import keys, wire
from ..errors import UsageError
from .rings import ERROR_STD, LARGEST_KEY, Prime
from .session import SPEC, Session

__all__ = ["Polynomials", "Shorts", "draw_each"]


@final
class Polynomials:
    """Uniform polynomials, one for each block and prime, under one 32-byte key.

    Not printable, copyable or picklable: a cover is a secret.
    """

    __slots__ = ("_key", "_primes")

    def __init__(self, session: Session, key: bytes) -> None:
        self._key = key
        self._primes = session.parameters.packing.ring.primes

    @classmethod
    def public(cls, session: Session) -> Polynomials:
        """Those that all clients of one context share (SPEC 3.1)."""
        return cls(session, wire.digest(f"{SPEC} polynomials", session.ctx))

    @classmethod
    def cover(cls, session: Session, client: int, seed: bytes) -> Polynomials:
        """Those that one client hides its ciphertexts under (SPEC 3.4)."""
        return cls(session, wire.digest(f"{SPEC} cover", session.ctx, client, seed))

    def draw(self, block: int) -> NDArray[np.uint64]:
        """Shape (primes, N): residues of ``block``'s polynomial, below each prime."""
        polynomials: NDArray[np.uint64] = self.draw_blocks(range(block, block + 1))[0]
        return polynomials

    def draw_blocks(self, blocks: range) -> NDArray[np.uint64]:
        """Shape (blocks, primes, N)."""
        return next(draw_each([self], blocks))

    def __repr__(self) -> str:
        return "<Polynomials>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secret polynomials are not copied or pickled")


def draw_each(
    several: Sequence[Polynomials], blocks: range
) -> Iterator[NDArray[np.uint64]]:
    """The same blocks of each of several, all of one ring: shape (blocks, primes, N).

    In one array, written over by the next.
    """
    primes = several[0]._primes
    bits, degree = primes[0].bits, primes[0].degree
    out = np.empty((len(blocks), len(primes), degree), "<u8")
    zeros = bytes(8 * degree)
    mask, least = np.uint64(2**bits - 1), min(p.value for p in primes)
    # Counters and where their streams go, once for all: between two streams there is
    # next to nothing for which threads would have to wait for each other.
    places = [
        (
            (block * len(primes) + index).to_bytes(8, "big") + bytes(8),
            prime,
            polynomials[index],
        )
        for block, polynomials in zip(blocks, out, strict=True)
        for index, prime in enumerate(primes)
    ]
    streams = [(counter, part.data.cast("B")) for counter, _, part in places]
    for one in several:
        stream = keys.keystream(one._key)
        for counter, part in streams:
            stream.reset_nonce(counter)
            stream.update_into(zeros, part)
        np.bitwise_and(out, mask, out=out)
        # One look tells that nothing is to be left out, as good as always.
        if int(out.max()) >= least:
            for counter, prime, polynomial in places:
                polynomial[:] = below(keys.keystream(one._key, counter), prime)
        yield out


def below(stream: CipherContext, prime: Prime) -> NDArray[np.uint64]:
    """The first N numbers below ``prime`` in ``stream``: rejection, so no bias."""
    mask = np.uint64(2**prime.bits - 1)
    zeros = bytes(8 * prime.degree)
    drawn = np.frombuffer(stream.update(zeros), "<u8") & mask
    while int(drawn.max()) >= prime.value or drawn.size < prime.degree:
        more = np.frombuffer(stream.update(zeros), "<u8") & mask
        drawn = np.concatenate([drawn[drawn < prime.value], more[more < prime.value]])
    return drawn[: prime.degree]


# -- short polynomials -----------------------------------------------------------------

_AMBIGUOUS: Final = -128


@functools.cache
def _cumulative() -> tuple[int, ...]:
    """``floor(2^128 * P(x <= v))`` for v from -96 to 95."""
    with decimal.localcontext() as context:
        context.prec = 60
        twice_variance = 2 * decimal.Decimal(str(ERROR_STD)) ** 2
        weights = [
            (-decimal.Decimal(v * v) / twice_variance).exp()
            for v in range(-LARGEST_KEY, LARGEST_KEY + 1)
        ]
        total = sum(weights)
        out, running = [], decimal.Decimal(0)
        for weight in weights[:-1]:
            running += weight
            out.append(int(running / total * 2**128))
    return tuple(out)


@functools.cache
def _first_look() -> NDArray[np.int8]:
    """What the top 16 of 128 bits decide, or that they do not."""
    cumulative = _cumulative()
    table = np.empty(2**16, np.int8)
    for top in range(2**16):
        low = bisect.bisect_right(cumulative, top << 112)
        high = bisect.bisect_right(cumulative, ((top + 1) << 112) - 1)
        table[top] = low - LARGEST_KEY if low == high else _AMBIGUOUS
    return table


@final
class Shorts:
    """Keys and errors of one client in one context, from 32 fresh bytes.

    Each draw inverts the cumulative distribution at 128 bits, most often by a look at
    16 of them: its statistical distance to the discrete Gaussian is below 2^-120.  Not
    constant-time.  Not printable, copyable or picklable.
    """

    __slots__ = ("_key",)

    def __init__(self, session: Session, random: bytes) -> None:
        if len(random) != 32 or not any(random):
            raise UsageError("random must be 32 fresh bytes")
        self._key = keys.derive(
            random, salt=session.ctx, label=f"{SPEC} shorts", parts=[]
        )

    def key(self, degree: int) -> NDArray[np.int64]:
        """The client's key: once per context."""
        return self._draw(0, degree)

    def error(self, block: int, degree: int) -> NDArray[np.int64]:
        """The error of ``block``: once per context."""
        return self._draw(1 + block, degree)

    def _draw(self, number: int, size: int) -> NDArray[np.int64]:
        stream = keys.keystream(self._key, number.to_bytes(8, "big") + bytes(8))
        tops = np.frombuffer(stream.update(bytes(2 * size)), "<u2")
        out: NDArray[np.int64] = _first_look()[tops].astype(np.int64)
        unclear = np.flatnonzero(out == _AMBIGUOUS)
        rest = stream.update(bytes(14 * unclear.size))
        cumulative = _cumulative()
        for at, place in enumerate(unclear.tolist()):
            low = int.from_bytes(rest[14 * at : 14 * at + 14], "little")
            uniform = (int(tops[place]) << 112) | low
            out[place] = bisect.bisect_right(cumulative, uniform) - LARGEST_KEY
        return out

    def __repr__(self) -> str:
        return "<Shorts>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("secret polynomials are not copied or pickled")
