# SPDX-License-Identifier: Apache-2.0
"""Key derivation, sealed boxes and the mask stream, thin over ``cryptography``.

SPEC.md, section 4.  Everything here is a function of its arguments, except
:func:`seal`, whose ephemeral key OpenSSL draws.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import numpy as np
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import (
    Cipher,
    CipherContext,
    algorithms,
    modes,
)
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from numpy.typing import NDArray

from .. import wire
from ..fixedpoint import Word, word_dtype
from . import shamir
from .session import SPEC

__all__ = [
    "MaskStream",
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

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
BOX_OVERHEAD: Final = 32 + 16  # encapsulated key and tag


def derive(secret: bytes, *, salt: bytes, label: str, parts: list[wire.Value]) -> bytes:
    """HKDF-SHA256, 32 bytes: info is the CBOR array ``[label, *parts]``."""
    info = wire.encode([f"{SPEC} {label}", *parts])
    return HKDF(hashes.SHA256(), 32, salt=salt, info=info).derive(secret)


def elements(seed: bytes, label: str, count: int) -> list[int]:
    """``count`` field elements from 32 fresh bytes, through AES-256-CTR."""
    key = HKDFExpand(hashes.SHA256(), 32, info=wire.encode([f"{SPEC} {label}"])).derive(
        seed
    )
    stream = _ctr(key).update(bytes(48 * count))
    return [shamir.element(stream[48 * i : 48 * i + 48]) for i in range(count)]


def private_key(seed: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(seed)


def public_key(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


_PROBE: Final = X25519PrivateKey.from_private_bytes(bytes(31) + b"@")


def is_usable(public: bytes) -> bool:
    """Whether a public key is not a point of low order (RFC 7748, section 6.1).

    Any private key tells, so this one is fixed; nothing is derived from it.
    """
    try:
        _PROBE.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        return False
    return True


def mask_private_key(z: int, *, ctx: bytes) -> X25519PrivateKey:
    """The mask key that the shared element z stands for (SPEC 4.2)."""
    return private_key(derive(shamir.to_bytes(z), salt=ctx, label="mask key", parts=[]))


def self_seed(beta: int, *, ctx: bytes) -> bytes:
    """The seed of the self mask that the shared element beta stands for."""
    return derive(shamir.to_bytes(beta), salt=ctx, label="self mask", parts=[])


def pair_seed(
    mine: X25519PrivateKey,
    theirs: bytes,
    *,
    ctx: bytes,
    cohort_hash: bytes,
    pair: tuple[int, int],
) -> bytes:
    """The seed two clients share.  Raises ValueError for a low-order public key."""
    shared = mine.exchange(X25519PublicKey.from_public_bytes(theirs))
    low, high = sorted(pair)
    return derive(shared, salt=ctx, label="pair mask", parts=[cohort_hash, low, high])


def seal(plain: bytes, to: bytes, *, info: list[wire.Value]) -> bytes:
    """HPKE base mode (RFC 9180) under the recipient's sealing key.

    Raises ValueError for a low-order public key.
    """
    key = X25519PublicKey.from_public_bytes(to)
    return _SUITE.encrypt(plain, key, info=wire.encode([f"{SPEC} box", *info]))


def open_box(box: bytes, key: X25519PrivateKey, *, info: list[wire.Value]) -> bytes:
    """Raises ValueError where the box was not made for this key and ``info``."""
    try:
        return _SUITE.decrypt(box, key, info=wire.encode([f"{SPEC} box", *info]))
    except (InvalidTag, ValueError):
        raise ValueError("the box does not open") from None


def _ctr(key: bytes) -> CipherContext:
    # A zero counter is safe: each key encrypts one stream only (SPEC 4.4).
    return Cipher(algorithms.AES(key), modes.CTR(bytes(16))).encryptor()


class MaskStream:
    """Adds mask streams to a chunk of words in place, reusing two buffers.

    One chunk of keystream is all the memory it needs, whatever the number of seeds.
    """

    def __init__(self, *, word_bits: int, chunk_words: int) -> None:
        self._dtype: np.dtype[Word] = word_dtype(word_bits)
        self._mask = self._dtype.type(2**word_bits - 1)
        size = chunk_words * self._dtype.itemsize
        self._zeros = bytes(size)
        self._buffer = bytearray(size + 15)  # OpenSSL asks for one block of slack

    def apply(
        self,
        words: NDArray[Word],
        chunk: int,
        *,
        plus: Iterable[bytes],
        minus: Iterable[bytes] = (),
    ) -> None:
        """``words += sum(plus) - sum(minus)``, each the stream of a 32-byte seed."""
        for seed in plus:
            np.add(words, self._keystream(seed, chunk, words.size), out=words)
        for seed in minus:
            np.subtract(words, self._keystream(seed, chunk, words.size), out=words)
        np.bitwise_and(words, self._mask, out=words)

    def _keystream(self, seed: bytes, chunk: int, count: int) -> NDArray[Word]:
        # A key per chunk, so that chunks can be masked in any order.
        key = HKDFExpand(
            hashes.SHA256(), 32, info=wire.encode([f"{SPEC} stream", chunk])
        ).derive(seed)
        size = count * self._dtype.itemsize
        view = memoryview(self._zeros)[:size]
        _ctr(key).update_into(view, self._buffer)
        return np.frombuffer(self._buffer, self._dtype, count)
