# SPDX-License-Identifier: Apache-2.0
"""Derived keys, X25519 keys, sealed boxes and streams, thin over ``cryptography``.

Everything here is a function of its arguments, except :func:`seal`, whose ephemeral key
OpenSSL draws.  Labels start with the name and version of a specification.
"""

from __future__ import annotations

from typing import Final

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
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from . import wire

__all__ = [
    "BOX_OVERHEAD",
    "PRIME",
    "derive",
    "is_usable",
    "keystream",
    "open_box",
    "peer_key",
    "private_key",
    "public_key",
    "seal",
]

PRIME: Final = 2**255 - 19  # of X25519's coordinates, and of Shamir's field

_SUITE: Final = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.CHACHA20_POLY1305)
BOX_OVERHEAD: Final = 32 + 16  # encapsulated key and tag


def derive(secret: bytes, *, salt: bytes, label: str, parts: list[wire.Value]) -> bytes:
    """HKDF-SHA256, 32 bytes: info is the CBOR array ``[label, *parts]``."""
    info = wire.encode([label, *parts])
    return HKDF(hashes.SHA256(), 32, salt=salt, info=info).derive(secret)


def keystream(key: bytes, counter: bytes = bytes(16)) -> CipherContext:
    """AES-256-CTR from the initial counter block ``counter``: feed it zeros."""
    return Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()


def private_key(seed: bytes) -> X25519PrivateKey:
    return X25519PrivateKey.from_private_bytes(seed)


def public_key(key: X25519PrivateKey) -> bytes:
    return key.public_key().public_bytes_raw()


_PROBE: Final = X25519PrivateKey.from_private_bytes(bytes(31) + b"@")


def is_usable(public: bytes) -> bool:
    """Whether a public key has its one form and is not of low order (masking 4.2).

    Any private key tells a low order, so this one is fixed; nothing is derived from it.
    """
    try:
        _PROBE.exchange(peer_key(public))
    except ValueError:
        return False
    return True


def peer_key(public: bytes) -> X25519PublicKey:
    """Raises ValueError unless it is in the one form of a key."""
    # Libraries read a coordinate of p or above mod p, and do not agree on what they
    # then hash: one key, one form.
    if int.from_bytes(public, "little") >= PRIME:
        raise ValueError("not the one form of a key")
    return X25519PublicKey.from_public_bytes(public)


def seal(plain: bytes, to: bytes, *, info: bytes) -> bytes:
    """HPKE base mode (RFC 9180) under the recipient's key.

    Raises ValueError for a key that is not usable.
    """
    return _SUITE.encrypt(plain, peer_key(to), info=info)


def open_box(box: bytes, key: X25519PrivateKey, *, info: bytes) -> bytes:
    """Raises ValueError where the box was not made for this key and ``info``."""
    try:
        peer_key(box[:32])
        return _SUITE.decrypt(box, key, info=info)
    except (InvalidTag, ValueError):
        raise ValueError("the box does not open") from None
