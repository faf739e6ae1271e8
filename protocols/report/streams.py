# SPDX-License-Identifier: Apache-2.0
"""Keys, streams, shares, boxes, words (masking 2.4 and 4; CKKS 3.5 and 4.2)."""

import hashlib
import hmac
import sys
from array import array
from collections.abc import Iterable
from math import gcd
from typing import Any

from canonical import Malformed, encode
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand

PRIME = 2**255 - 19
_CODES = {1: "B", 2: "H", 4: "I", 8: "Q"}
_KEM, _HPKE = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x03"


def derive(salt: bytes, secret: bytes, label: str, *parts: Any) -> bytes:
    """`Derive` of masking 4.1, with the whole label."""
    info = encode([label, *parts])
    return HKDF(hashes.SHA256(), 32, salt, info).derive(secret)


def expand(key: bytes, label: str) -> bytes:
    """`Expand` of masking 4.1, with the whole label."""
    return HKDFExpand(hashes.SHA256(), 32, encode([label])).derive(key)


def public_of(private: bytes) -> bytes:
    key = X25519PrivateKey.from_private_bytes(private).public_key()
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def agree(private: bytes, public: bytes) -> bytes:
    """X25519, or `Malformed` where the result is zero."""
    try:
        key = X25519PrivateKey.from_private_bytes(private)
        return key.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError:
        raise Malformed("a key is not usable") from None


def aes_ctr(key: bytes, counter: int, size: int) -> bytes:
    """AES-256-CTR from the counter's block (8 bytes, then 8 zero bytes)."""
    block = counter.to_bytes(8, "big") + bytes(8)
    stream = Cipher(algorithms.AES(key), modes.CTR(block)).encryptor()
    return stream.update(bytes(size))


# Words.


def width(bits: int) -> int:
    """Bytes of a word by itself (masking 4.4)."""
    return next(w for w in (1, 2, 4, 8) if 8 * w >= bits)


def numbers(data: bytes, size: int) -> list[int]:
    """Little-endian numbers of so many bytes (1, 2, 4 or 8)."""
    found = array(_CODES[size], data)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tolist()


def loose(words: Iterable[int], bits: int) -> bytes:
    """Words in their own bytes, as the hash of opened words has them."""
    found = array(_CODES[width(bits)], words)
    if sys.byteorder == "big":
        found.byteswap()
    return found.tobytes()


def unpack(data: bytes, count: int, bits: int) -> list[int]:
    """Packed words (masking 2.4), or `Malformed`."""
    if len(data) != -(-count * bits // 8):
        raise Malformed("packed words have not their length")
    if bits == 8 * width(bits):
        return numbers(data, width(bits))
    found: list[int] = []
    mask = (1 << bits) - 1
    for at in range(0, len(data), bits):  # eight words
        group = int.from_bytes(data[at : at + bits], "little")
        for _ in range(8):
            found.append(group & mask)
            group >>= bits
    if any(found[count:]):
        raise Malformed("the bits beyond the last word are not zero")
    return found[:count]


def signed_word(word: int, bits: int) -> int:
    """A word as two's complement."""
    return word - (1 << bits) if word >> bits - 1 else word


def stream(label: str, seed: bytes, chunk: int, count: int, bits: int) -> list[int]:
    """The stream of a seed for a chunk (masking 4.4), not yet mod 2^bits."""
    size = width(bits)
    return numbers(aes_ctr(expand(seed, label), chunk, count * size), size)


def residues(data: bytes, degree: int, bits: int) -> list[int]:
    """Residues as they are on the wire (CKKS 3.5)."""
    if len(data) != degree * bits // 8:
        raise Malformed("a polynomial has not its length")
    common = gcd(64, bits)
    columns, lanes, rows = 64 // common, bits // common, degree * common // 64
    words = numbers(data, 8)
    found = [0] * degree
    mask = (1 << bits) - 1
    for row in range(rows):
        number = 0
        for lane in reversed(range(lanes)):
            number = number << 64 | words[lane * rows + row]
        for column in range(columns):
            found[column * rows + row] = number & mask
            number >>= bits
    return found


# Shamir's scheme, at 0 (masking 4.3).


def weights(places: list[int]) -> list[int]:
    """Lagrange's coefficients at 0 for these places."""
    found = []
    for x in places:
        above, below = 1, 1
        for other in places:
            if other != x:
                above = above * other % PRIME
                below = below * (other - x) % PRIME
        found.append(above * pow(below, -1, PRIME) % PRIME)
    return found


def element(data: bytes) -> int:
    """An element of the field, or `Malformed`."""
    number = int.from_bytes(data, "little")
    if number >= PRIME:
        raise Malformed("a share is no element of the field")
    return number


def le32(number: int) -> bytes:
    return number.to_bytes(32, "little")


# HPKE, base mode (RFC 9180), with X25519, HKDF-SHA256 and ChaCha20Poly1305.


def _extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    message = b"HPKE-v1" + suite + label + secret
    return hmac.new(salt or bytes(32), message, hashlib.sha256).digest()


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, size: int) -> bytes:
    info = size.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return HKDFExpand(hashes.SHA256(), size, info).derive(key)


def open_box(private: bytes, info: bytes, box: bytes) -> bytes:
    """What is in a box: encapsulated key, ciphertext and tag; or `Malformed`."""
    sent, sealed = box[:32], box[32:]
    if int.from_bytes(sent, "little") >= PRIME:
        raise Malformed("a box has no usable key")
    shared = agree(private, sent)
    prk = _extract(_KEM, b"", b"eae_prk", shared)
    both = sent + public_of(private)
    secret = _expand(_KEM, prk, b"shared_secret", both, 32)
    schedule = (
        b"\x00"
        + _extract(_HPKE, b"", b"psk_id_hash", b"")
        + _extract(_HPKE, b"", b"info_hash", info)
    )
    key = _extract(_HPKE, secret, b"secret", b"")
    nonce = _expand(_HPKE, key, b"base_nonce", schedule, 12)
    cipher = ChaCha20Poly1305(_expand(_HPKE, key, b"key", schedule, 32))
    try:
        return cipher.decrypt(nonce, sealed, b"")
    except InvalidTag:
        raise Malformed("a box does not open") from None
