# SPDX-License-Identifier: Apache-2.0
"""Masking a second time, from SPEC.md alone: sections 2 to 4, slow and obvious.

Nothing here comes from ``secure_fl``: where it and the package agree byte for byte, the
SPEC says enough.  Boxes are sealed with a *given* ephemeral key, so that vectors can be
made again; no real client may do that.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

SPEC = "secure-fl/masking/1"
PRIME = 2**255 - 19

Value = int | bytes | str | Sequence["Value"] | Mapping[int, "Value"]


# -- 2: encoding ----------------------------------------------------------------


def _head(major: int, argument: int) -> bytes:
    if argument < 24:
        return bytes([major << 5 | argument])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if argument < 1 << 8 * size:
            return bytes([major << 5 | code]) + argument.to_bytes(size, "big")
    raise ValueError("beyond 64 bits")


def cbor(value: Value) -> bytes:
    """SPEC 2.1."""
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        data = value.encode()
        return _head(3, len(data)) + data
    if isinstance(value, Mapping):
        pairs = b"".join(_head(0, k) + cbor(value[k]) for k in sorted(value))
        return _head(5, len(value)) + pairs
    return _head(4, len(value)) + b"".join(cbor(item) for item in value)


def digest(label: str, *parts: Value) -> bytes:
    """SPEC 2.2."""
    return hashlib.sha256(cbor([label, *parts])).digest()


def sign(seed: bytes, label: str, *parts: Value) -> bytes:
    """SPEC 2.2."""
    return Ed25519PrivateKey.from_private_bytes(seed).sign(cbor([label, *parts]))


def ed25519_public(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def tree(label: str, leaves: Sequence[bytes]) -> list[list[bytes]]:
    """SPEC 2.3: every level, leaves first; the root is ``tree(...)[-1][0]``."""
    levels = [[digest(label + " leaf", leaf) for leaf in leaves]]
    while len(levels[-1]) > 1:
        row = levels[-1]
        levels.append(
            [
                digest(label + " node", *row[i : i + 2]) if i + 1 < len(row) else row[i]
                for i in range(0, len(row), 2)
            ]
        )
    return levels


def tree_path(label: str, leaves: Sequence[bytes], index: int) -> list[bytes]:
    """SPEC 2.3."""
    path = []
    for row in tree(label, leaves)[:-1]:
        if index ^ 1 < len(row):
            path.append(row[index ^ 1])
        index >>= 1
    return path


def pack(words: Iterable[int], bits: int) -> bytes:
    """SPEC 2.4: one little-endian number."""
    number = count = 0
    for word in words:
        number |= word << bits * count
        count += 1
    return number.to_bytes((count * bits + 7) // 8, "little")


def key_text(public_key: bytes) -> str:
    """SPEC 2.5."""
    check = hashlib.sha256(b"secure-fl/identity/1" + public_key).digest()[:3]
    return "sfl1" + base64.b32encode(public_key + check).decode().lower()


# -- 3: context and words -------------------------------------------------------


@dataclass(frozen=True)
class Context:
    """SPEC 3.1 and 3.2, with the members' private keys, as only a test has them."""

    seeds: tuple[bytes, ...]
    names: tuple[str, ...]
    plan_hash: bytes
    run_id: bytes
    round_index: int
    attempt: int
    model_hash: bytes
    length: int
    word_bits: int
    chunk_words: int
    threshold: int
    min_clients: int
    max_colluding: int

    @property
    def roster(self) -> list[Value]:
        rows = zip(self.names, self.seeds, strict=True)
        return [[name, ed25519_public(seed)] for name, seed in rows]

    @property
    def parameters(self) -> list[Value]:
        return [
            len(self.seeds),
            self.length,
            self.word_bits,
            self.chunk_words,
            self.threshold,
            self.min_clients,
            self.max_colluding,
            "complete",
            "x25519",
        ]

    @property
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


def encode_reals(
    x: Sequence[float],
    dither: Sequence[float],
    *,
    clip: float,
    step: float,
    bits: int,
    weight: int,
) -> list[int]:
    """SPEC 3.4: words of a vector."""
    out = []
    for value, d in zip(x, dither, strict=True):
        scaled = min(max(value, -clip), clip) / step
        units = math.floor(scaled)
        units += (scaled - units) + d >= 1
        out.append(weight * units % 2**bits)
    return out


# -- 4: keys, shares, streams ---------------------------------------------------


def extract(salt: bytes, secret: bytes) -> bytes:
    return hmac.new(salt or bytes(32), secret, "sha256").digest()


def expand(key: bytes, info: bytes, size: int = 32) -> bytes:
    out = block = b""
    for i in range(1, -(-size // 32) + 1):
        block = hmac.new(key, block + info + bytes([i]), "sha256").digest()
        out += block
    return out[:size]


def derive(ctx: bytes, secret: bytes, label: str, *parts: Value) -> bytes:
    """SPEC 4.1."""
    return expand(extract(ctx, secret), cbor([f"{SPEC} {label}", *parts]))


def aes_ctr(key: bytes, size: int, counter: bytes = bytes(16)) -> bytes:
    return (
        Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor().update(bytes(size))
    )


def elements(ctx: bytes, random: bytes, label: str, count: int) -> list[int]:
    """SPEC 4.1."""
    stream = aes_ctr(derive(ctx, random, label), 48 * count)
    return [
        int.from_bytes(stream[48 * i : 48 * i + 48], "little") % PRIME
        for i in range(count)
    ]


def le32(value: int) -> bytes:
    return value.to_bytes(32, "little")


def x25519_public(seed: bytes) -> bytes:
    return X25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def x25519(seed: bytes, public: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(seed)
    return key.exchange(X25519PublicKey.from_public_bytes(public))


def polynomial(secret: int, coefficients: Sequence[int], x: int) -> int:
    """SPEC 4.3."""
    powers = enumerate([secret, *coefficients])
    return sum(c * pow(x, k, PRIME) for k, c in powers) % PRIME


def keystream(seed: bytes, chunk: int, count: int, bits: int) -> list[int]:
    """SPEC 4.4."""
    size = next(size for size in (1, 2, 4, 8) if bits <= 8 * size)
    key = expand(seed, cbor([f"{SPEC} stream"]))
    stream = aes_ctr(key, size * count, chunk.to_bytes(8, "big") + bytes(8))
    return [
        int.from_bytes(stream[size * i : size * i + size], "little") % 2**bits
        for i in range(count)
    ]


def seal(plain: bytes, to: bytes, info: bytes, ephemeral: bytes) -> bytes:
    """SPEC 4.5: HPKE base mode, single shot, with a given ephemeral key."""
    return seal_under(x25519(ephemeral, to), plain, to, info, x25519_public(ephemeral))


def seal_under(dh: bytes, plain: bytes, to: bytes, info: bytes, enc: bytes) -> bytes:
    """RFC 9180 from the result of X25519 on, written out."""

    def labeled(suite: bytes, label: bytes) -> bytes:
        return b"HPKE-v1" + suite + label

    kem, suite = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x03"
    prk = extract(b"", labeled(kem, b"eae_prk") + dh)
    shared = expand(prk, b"\x00\x20" + labeled(kem, b"shared_secret") + enc + to)
    context = (
        b"\x00"
        + extract(b"", labeled(suite, b"psk_id_hash"))
        + extract(b"", labeled(suite, b"info_hash") + info)
    )
    secret = extract(shared, labeled(suite, b"secret"))
    key = expand(secret, b"\x00\x20" + labeled(suite, b"key") + context)
    nonce = expand(secret, b"\x00\x0c" + labeled(suite, b"base_nonce") + context, 12)
    return enc + ChaCha20Poly1305(key).encrypt(nonce, plain, None)
