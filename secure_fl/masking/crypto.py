# SPDX-License-Identifier: Apache-2.0
"""Masking's own keys, boxes and mask stream (SPEC.md, section 4).

Everything here is a function of its arguments, except :func:`seal`, whose ephemeral key
OpenSSL draws.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Final, final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers import CipherContext
from cryptography.hazmat.primitives.kdf.hkdf import HKDFExpand
from numpy.typing import NDArray

from .. import keys, wire
from ..fixedpoint import Word, word_dtype
from ..keys import is_usable, private_key, public_key
from . import shamir
from .session import SPEC

__all__ = [
    "MaskStream",
    "attached_seed",
    "derive",
    "elements",
    "is_usable",
    "mask_private_key",
    "open_box",
    "pair_seed",
    "private_key",
    "public_key",
    "seal",
    "self_seed",
]


def derive(secret: bytes, *, salt: bytes, label: str, parts: list[wire.Value]) -> bytes:
    """HKDF-SHA256, 32 bytes, under this specification's label."""
    return keys.derive(secret, salt=salt, label=f"{SPEC} {label}", parts=parts)


def elements(random: bytes, label: str, count: int, *, ctx: bytes) -> list[int]:
    """``count`` field elements from 32 fresh bytes, through AES-256-CTR (SPEC 4.1)."""
    key = derive(random, salt=ctx, label=label, parts=[])
    stream = keys.keystream(key).update(bytes(48 * count))
    return [shamir.element(stream[48 * i : 48 * i + 48]) for i in range(count)]


def mask_private_key(z: int, *, ctx: bytes) -> X25519PrivateKey:
    """The mask key that the shared element z stands for (SPEC 4.2)."""
    return private_key(derive(shamir.to_bytes(z), salt=ctx, label="mask key", parts=[]))


def self_seed(beta: int, *, ctx: bytes) -> bytes:
    """The seed of the self mask that the shared element beta stands for."""
    return derive(shamir.to_bytes(beta), salt=ctx, label="self mask", parts=[])


def attached_seed(beta: int, *, ctx: bytes) -> bytes:
    """For a payload beside the vector: it comes out with beta (SPEC 4.2)."""
    return derive(shamir.to_bytes(beta), salt=ctx, label="attached", parts=[])


def pair_seed(
    mine: X25519PrivateKey,
    theirs: bytes,
    *,
    ctx: bytes,
    cohort_hash: bytes,
    pair: tuple[int, int],
) -> bytes:
    """The seed two clients share.  Raises ValueError for a key that is not usable."""
    shared = mine.exchange(keys.peer_key(theirs))
    low, high = sorted(pair)
    return derive(shared, salt=ctx, label="pair mask", parts=[cohort_hash, low, high])


def seal(plain: bytes, to: bytes, *, info: list[wire.Value]) -> bytes:
    """A box (SPEC 4.5).  Raises ValueError for a key that is not usable."""
    return keys.seal(plain, to, info=wire.encode([f"{SPEC} box", *info]))


def open_box(box: bytes, key: X25519PrivateKey, *, info: list[wire.Value]) -> bytes:
    """Raises ValueError where the box was not made for this key and ``info``."""
    return keys.open_box(box, key, info=wire.encode([f"{SPEC} box", *info]))


_BLOCK: Final = 1 << 17  # bytes of keystream made at once: it stays in the cache
_ZEROS: Final = memoryview(bytes(_BLOCK))


@final
class MaskStream:
    """The streams of some seeds, added to chunks of words in place (SPEC 4.4).

    Threads may share one: each has ciphers and a keystream buffer of its own.
    """

    def __init__(
        self, *, word_bits: int, plus: Sequence[bytes], minus: Sequence[bytes] = ()
    ) -> None:
        self._dtype: np.dtype[Word] = word_dtype(word_bits)
        self._mask = self._dtype.type(2**word_bits - 1)
        self._native = self._dtype.itemsize * 8 == word_bits
        self._keys: list[tuple[bytes, np.ufunc]] = [
            *((_stream_key(seed), np.add) for seed in plus),
            *((_stream_key(seed), np.subtract) for seed in minus),
        ]
        self._own = threading.local()

    def apply(self, words: NDArray[Word], chunk: int) -> None:
        """``words += sum(plus) - sum(minus)`` mod 2^word_bits, for chunk ``chunk``."""
        streams, buffer, keystream = self._mine()
        # Each chunk has counters of its own: none is used twice under one key.
        counter = chunk.to_bytes(8, "big") + bytes(8)
        for stream, _ in streams:
            stream.reset_nonce(counter)
        # Block by block, all streams: the words stay in the cache as well.
        for begin in range(0, words.size, keystream.size):
            part = words[begin : begin + keystream.size]
            zeros, made = _ZEROS[: part.nbytes], keystream[: part.size]
            for stream, combine in streams:
                stream.update_into(zeros, buffer)
                combine(part, made, out=part)
        if not self._native:
            np.bitwise_and(words, self._mask, out=words)

    def _mine(
        self,
    ) -> tuple[list[tuple[CipherContext, np.ufunc]], bytearray, NDArray[Word]]:
        if not hasattr(self._own, "streams"):
            buffer = bytearray(_BLOCK + 15)  # OpenSSL asks for one block of slack
            self._own.streams = (
                [(keys.keystream(key), combine) for key, combine in self._keys],
                buffer,
                np.frombuffer(buffer, self._dtype, _BLOCK // self._dtype.itemsize),
            )
        streams: tuple[list[tuple[CipherContext, np.ufunc]], bytearray, NDArray[Word]]
        streams = self._own.streams
        return streams


def _stream_key(seed: bytes) -> bytes:
    info = wire.encode([f"{SPEC} stream"])
    return HKDFExpand(hashes.SHA256(), 32, info=info).derive(seed)
