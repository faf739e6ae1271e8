# SPDX-License-Identifier: Apache-2.0
"""A vector to ciphertexts, and a sum of ciphertexts to the sum of the vectors."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Final, NoReturn, final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from .. import wire
from ..errors import ProtocolError, StateReused, UsageError
from ..fixedpoint import Word, unwrap, word_dtype, wrap
from ..parallel import each
from .backend import Multiplier
from .messages import Ciphertext, payload_hash
from .residues import (
    add_mod,
    decode_sum,
    encode_words,
    pack_blocks,
    sub_mod,
    sum_mod,
)
from .rings import LARGEST_KEY, shortest_square
from .sampling import Polynomials, Shorts, draw_each
from .session import SPEC, Session, key_bits

__all__ = ["Encryption", "chunk_tree", "is_short", "open_chunk", "open_sum"]


# Blocks worked on at once: SEAL takes no fewer than two polynomials, and what is in
# between should stay in a core's cache.
_BATCH: Final = 4


def chunk_tree() -> wire.ChunkTree:
    """An empty tree over a client's chunks (SPEC 4.1)."""
    return wire.ChunkTree(f"{SPEC} chunks")


def is_short(polynomial: NDArray[np.int64], clients: int) -> bool:
    """Whether it can be the sum of so many keys or errors (SPEC 3.2).

    It answers instead of raising: only its caller knows whom a long one blames.
    """
    most = LARGEST_KEY * clients
    # The bound first: squares of what is beyond it might not fit 64 bits.
    if max(int(polynomial.max()), -int(polynomial.min())) > most:
        return False
    square = int(np.square(polynomial).sum())
    return square <= shortest_square(polynomial.size, clients)


def _nonce(index: int) -> bytes:
    return index.to_bytes(12, "big")


def open_chunk(key: bytes, index: int, data: bytes | memoryview) -> bytes:
    """A sealed chunk (SPEC 4.3).  Raises ValueError where it does not open."""
    try:
        return AESGCM(key).decrypt(_nonce(index), data, None)
    except InvalidTag:
        raise ValueError("the chunk does not open") from None


@final
class Encryption:
    """One vector on its way out of one client in one context: used once.

    Not printable, copyable or picklable.
    """

    __slots__ = (
        "_key",
        "_me",
        "_session",
        "_shorts",
        "_taken",
        "_tree",
        "_words",
    )

    def __init__(
        self,
        session: Session,
        me: int,
        words: NDArray[Word],
        *,
        random: bytes,
    ) -> None:
        """``words``: ``length`` unsigned words of the session's width, read while
        chunks are taken.  ``random``: 32 bytes that nothing else uses."""
        p = session.parameters
        if words.shape != (p.length,) or words.dtype != word_dtype(p.word_bits):
            raise UsageError(f"a vector of {p.length} words was expected")
        self._session = session
        self._me = me
        self._words = words
        self._shorts = Shorts(session, random)
        self._key = self._shorts.key(p.packing.ring.degree)
        self._tree = chunk_tree()
        self._taken = False

    def chunks(
        self, *, cover: bytes, chunk_key: bytes | None = None
    ) -> Iterator[Ciphertext]:
        """Every chunk once, in order, made as they are taken.

        ``cover``: the seed of SPEC 3.4, 32 bytes.  ``chunk_key``: with a key holder, 32
        bytes to seal them under (SPEC 4.3).  From the first one on the vector is spent.
        """
        if self._taken:
            raise StateReused("chunks are made once")
        self._taken = True
        p = self._session.parameters
        if (chunk_key is not None) != (p.keys == "keyholder") or len(cover) != 32:
            raise UsageError("chunks are sealed where there is a key holder")
        work = _Work(
            self._session,
            [Multiplier(self._key, prime) for prime in p.packing.ring.primes],
            Polynomials.public(self._session),
            Polynomials.cover(self._session, self._me, cover),
            self._shorts,
        )
        sealed = AESGCM(chunk_key) if chunk_key is not None else None
        # Small chunks are made a few at a time.
        for indices in _batches(range(p.chunks), max(1, _BATCH // p.chunk_blocks)):
            begin, end = p.chunk_range(indices[0])[0], p.chunk_range(indices[-1])[1]
            rest = memoryview(work.encrypt(range(begin, end), self._words))
            for index in indices:
                size = p.chunk_size(index)
                data, rest = bytes(rest[:size]), rest[size:]
                if sealed is not None:
                    data = sealed.encrypt(_nonce(index), data, None)
                self._tree.add(self._tree.leaf(data))
                yield Ciphertext(self._me, index, data)

    def payload(self) -> bytes:
        """What binds all chunks: they must all have been taken."""
        if len(self._tree) != self._session.parameters.chunks:
            raise UsageError("payload() comes after every chunk was taken")
        return payload_hash(self._session, self._me, self._tree.root())

    def key_words(self) -> NDArray[Word]:
        """The key as a vector of the masking protocol (SPEC 4.4)."""
        return wrap(self._key, key_bits(self._session.parameters.clients))

    def key_bytes(self) -> bytes:
        """The key as it goes into a key box (SPEC 4.2)."""
        return self._key.astype(np.int8).tobytes()

    def __repr__(self) -> str:
        return f"<Encryption client={self._me}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("keys are not copied or pickled")


@final
class _Work:
    """What the chunks of one upload are made with."""

    def __init__(
        self,
        session: Session,
        multipliers: list[Multiplier],
        public: Polynomials,
        cover: Polynomials,
        shorts: Shorts,
    ) -> None:
        self._session = session
        self._multipliers = multipliers
        self._public = public
        self._cover = cover
        self._shorts = shorts

    def encrypt(self, blocks: range, words: NDArray[Word]) -> bytes:
        """These blocks of the vector ``words``, as they are sent."""
        return b"".join(self._encrypt(part, words) for part in _batches(blocks))

    def _encrypt(self, blocks: range, words: NDArray[Word]) -> bytes:
        packing = self._session.parameters.packing
        ring = packing.ring
        products = _products(self._public, self._multipliers, blocks)
        out = []
        for product, block in zip(products, blocks, strict=True):
            part = words[block * packing.values : (block + 1) * packing.values]
            units = unwrap(part, packing.word_bits)
            if units.size < packing.values:
                units = np.pad(units, (0, packing.values - units.size))
            plain = encode_words(
                units.reshape(packing.fields, ring.degree),
                packing,
                self._shorts.error(block, ring.degree),
            )
            hidden = add_mod(product, self._cover.draw(block), ring)
            out.append(pack_blocks(add_mod(plain, hidden, ring), ring.bits))
        return b"".join(out)


def _batches(whole: range, most: int = _BATCH) -> list[range]:
    """The same, at most so many at a time, and about as many each time."""
    count = -(-len(whole) // most)
    ends = [len(whole) * turn // count for turn in range(count + 1)]
    return [whole[begin:end] for begin, end in itertools.pairwise(ends)]


def _products(
    public: Polynomials, multipliers: list[Multiplier], blocks: range
) -> NDArray[np.uint64]:
    """``a * key`` for some blocks: shape (blocks, primes, N)."""
    out = public.draw_blocks(blocks)
    for index, multiplier in enumerate(multipliers):
        out[:, index] = multiplier.times(out[:, index])
    return out


def open_sum(
    session: Session,
    total: NDArray[np.uint64],
    key_sum: NDArray[np.int64],
    seeds: Mapping[int, bytes],
) -> NDArray[Word]:
    """The sum of the words of some clients, from what they sent and what came out.

    ``total``: residues (blocks, primes, N), the sum of what these clients sent;
    ``key_sum``: that of their keys, N integers; ``seeds``: their cover seeds.  Raises
    ProtocolError where they do not belong together (SPEC 7.5, X5 to X8): nobody is
    named, and nothing was opened.
    """
    p = session.parameters
    packing = p.packing
    ring = packing.ring
    if not is_short(key_sum, len(seeds)):
        raise ProtocolError("the sum of the keys is not short")
    multipliers = [Multiplier(key_sum, prime) for prime in ring.primes]
    public = Polynomials.public(session)
    covers = [Polynomials.cover(session, i, seed) for i, seed in seeds.items()]
    words = np.empty(p.blocks * packing.values, word_dtype(p.word_bits))
    batches = _batches(range(p.blocks))

    def uncover(turn: int) -> NDArray[np.uint64]:
        blocks = batches[turn]
        hidden = sum_mod(draw_each(covers, blocks), ring)
        return sub_mod(total[blocks.start : blocks.stop], hidden, ring)

    # All cores take the covers off; SEAL, in the end, lets nothing run beside it.
    for blocks, sums in zip(batches, each(uncover, len(batches)), strict=True):
        begin, end = blocks.start, blocks.stop
        x = sub_mod(sums, _products(public, multipliers, blocks), ring)
        units, errors, whole = decode_sum(x, packing)
        if not all(is_short(error, len(seeds)) for error in errors):
            raise ProtocolError("what was rounded away is not short")
        if not whole:
            raise ProtocolError("a coefficient holds more than its words")
        words[begin * packing.values : end * packing.values] = wrap(
            units.ravel(), p.word_bits
        )

    if words[p.length :].any():
        raise ProtocolError("something stands beyond the end of the vector")
    return words[: p.length]
