# SPDX-License-Identifier: Apache-2.0
"""HKDF, AES-CTR, HPKE and Ed25519 in plain Python, to compare our wrappers with.

Where the package's own interface cannot be fed a published vector (it hashes and signs
nothing but labelled CBOR), the vector is run through these, and these are compared with
the package on its own inputs.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
from typing import Final

from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305


def hkdf(secret: bytes, salt: bytes, info: bytes, size: int) -> tuple[bytes, bytes]:
    """RFC 5869 in plain Python: (PRK, OKM)."""
    prk = hmac.digest(salt or bytes(32), secret, "sha256")
    return prk, expand(prk, info, size)


def expand(prk: bytes, info: bytes, size: int) -> bytes:
    out = block = b""
    for i in itertools.count(1):
        if len(out) >= size:
            return out[:size]
        block = hmac.digest(prk, block + info + bytes([i]), "sha256")
        out += block
    raise AssertionError


def ctr(key: bytes, size: int, *, start: int = 0) -> bytes:
    """AES-256-CTR keystream, block by block."""
    ecb = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    blocks = -(-size // 16)
    return b"".join(ecb.update((start + i).to_bytes(16, "big")) for i in range(blocks))[
        :size
    ]


# -- HPKE of RFC 9180, base mode, first message ------------------------------------


def _hpke(dh: bytes, enc: bytes, to: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and nonce, from X25519's result on."""

    def extract(suite: bytes, salt: bytes, label: bytes, ikm: bytes) -> bytes:
        return hmac.digest(
            salt or bytes(32), b"HPKE-v1" + suite + label + ikm, "sha256"
        )

    def labelled(
        suite: bytes, prk: bytes, label: bytes, info: bytes, size: int
    ) -> bytes:
        prefix = size.to_bytes(2, "big") + b"HPKE-v1" + suite
        return expand(prk, prefix + label + info, size)

    kem, suite = b"KEM\0\x20", b"HPKE\0\x20\0\1\0\3"
    prk = extract(kem, b"", b"eae_prk", dh)
    secret = labelled(kem, prk, b"shared_secret", enc + to, 32)
    schedule = b"\0" + extract(suite, b"", b"psk_id_hash", b"")
    schedule += extract(suite, b"", b"info_hash", info)
    prk = extract(suite, secret, b"secret", b"")
    key = labelled(suite, prk, b"key", schedule, 32)
    return key, labelled(suite, prk, b"base_nonce", schedule, 12)


def hpke_open(box: bytes, key: X25519PrivateKey, info: bytes, aad: bytes) -> bytes:
    enc, sealed = box[:32], box[32:]
    dh = key.exchange(X25519PublicKey.from_public_bytes(enc))
    to = key.public_key().public_bytes_raw()
    aead, nonce = _hpke(dh, enc, to, info)
    return ChaCha20Poly1305(aead).decrypt(nonce, sealed, aad)


def hpke_seal(
    plain: bytes, to: bytes, info: bytes, aad: bytes, ephemeral: X25519PrivateKey
) -> bytes:
    dh = ephemeral.exchange(X25519PublicKey.from_public_bytes(to))
    enc = ephemeral.public_key().public_bytes_raw()
    aead, nonce = _hpke(dh, enc, to, info)
    return enc + ChaCha20Poly1305(aead).encrypt(nonce, plain, aad)


# -- Ed25519 of RFC 8032 -------------------------------------------------------------

P: Final = 2**255 - 19
ORDER: Final = 2**252 + 27742317777372353535851937790883648493
_D: Final = -121665 * pow(121666, -1, P) % P
_Point = tuple[int, int]


def _added(a: _Point, b: _Point) -> _Point:
    """The complete addition law of the twisted Edwards curve."""
    (x1, y1), (x2, y2) = a, b
    t = _D * x1 * x2 * y1 * y2 % P
    x = (x1 * y2 + x2 * y1) * pow(1 + t, -1, P)
    y = (y1 * y2 + x1 * x2) * pow(1 - t, -1, P)
    return x % P, y % P


def _times(factor: int, point: _Point) -> _Point:
    out = (0, 1)
    while factor:
        if factor & 1:
            out = _added(out, point)
        point, factor = _added(point, point), factor >> 1
    return out


def _with_y(y: int, odd: int) -> _Point:
    square = (y * y - 1) * pow(_D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * pow(2, (P - 1) // 4, P) % P
    assert (x * x - square) % P == 0, "not a point"
    return (P - x if x & 1 != odd else x), y


_BASE: Final = _with_y(4 * pow(5, -1, P) % P, 0)


def _packed(point: _Point) -> bytes:
    return (point[1] | (point[0] & 1) << 255).to_bytes(32, "little")


def _hash(*parts: bytes) -> int:
    return int.from_bytes(hashlib.sha512(b"".join(parts)).digest(), "little")


def ed25519_sign(seed: bytes, message: bytes) -> tuple[bytes, bytes]:
    """(public key, signature)."""
    digest = hashlib.sha512(seed).digest()
    scalar = int.from_bytes(digest[:32], "little")
    scalar = scalar & ((1 << 254) - 8) | 1 << 254
    public = _packed(_times(scalar, _BASE))
    nonce = _hash(digest[32:], message) % ORDER
    point = _packed(_times(nonce, _BASE))
    s = (nonce + _hash(point, public, message) * scalar) % ORDER
    return public, point + s.to_bytes(32, "little")
