# SPDX-License-Identifier: Apache-2.0
"""Values, hashes, signatures and keys, from their bytes (SPEC.md, section 2).

One of the modules of the second verifier, `verify.py`.  It shares no code with the
package whose runs it checks.
"""

import base64
import hashlib
import re
from dataclasses import dataclass
from typing import Any, NoReturn

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

DEEPEST = 8
_HASH_BYTES, _SIGNATURE_BYTES, _KEY_BYTES = 32, 64, 32
_LEAST, _MOST = -(2**63), 2**64 - 1
_PRIME = 2**255 - 19
_D = -121665 * pow(121666, -1, _PRIME) % _PRIME
_KEY_TEXT = re.compile(r"sfl1[a-z2-7]{56}")


@dataclass
class Refused(Exception):
    """The evidence does not hold: the check that failed, the file, and why."""

    check: str
    file: str
    what: str


class Malformed(Exception):
    """Bytes are not the value they should be; the caller knows in which file."""


def refuse(check: str, file: str, what: str) -> NoReturn:
    raise Refused(check, file, what)


# Deterministic CBOR: only what the masking specification, 2.1, has.


def encode(value: Any) -> bytes:
    """`cbor(value)` of the masking specification, 2.1."""
    if isinstance(value, int) and not isinstance(value, bool):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        data = value.encode()
        return _head(3, len(data)) + data
    if isinstance(value, list | tuple):
        return _head(4, len(value)) + b"".join(encode(item) for item in value)
    if isinstance(value, dict):
        rows = (encode(key) + encode(value[key]) for key in sorted(value))
        return _head(5, len(value)) + b"".join(rows)
    raise TypeError(f"no such value: {type(value).__name__}")


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    for code, size in ((24, 1), (25, 2), (26, 4), (27, 8)):
        if number < 1 << 8 * size:
            return bytes([major << 5 | code]) + number.to_bytes(size, "big")
    raise Malformed("an integer is too large")


def decode(data: bytes) -> Any:
    """The one value that these bytes are, or `Malformed`."""
    value, end = _item(data, 0, 0)
    if end != len(data):
        raise Malformed("bytes are left over")
    return value


def _item(data: bytes, at: int, depth: int) -> tuple[Any, int]:
    if depth > DEEPEST:
        raise Malformed("nested too deep")
    major, number, at = _read_head(data, at)
    if major == 0:
        return number, at
    if major == 1:
        if -1 - number < _LEAST:
            raise Malformed("an integer is too small")
        return -1 - number, at
    # Every item is at least a byte, so no count may exceed the bytes that are left.
    if number > len(data) - at:
        raise Malformed("it is cut off")
    if major in (2, 3):
        end = at + number
        if major == 2:
            return data[at:end], end
        try:
            return data[at:end].decode("utf-8"), end
        except UnicodeDecodeError:
            raise Malformed("a text is not UTF-8") from None
    if major == 4:
        rows: list[Any] = []
        for _ in range(number):
            value, at = _item(data, at, depth + 1)
            rows.append(value)
        return rows, at
    if major == 5:
        return _map(data, at, number, depth)
    raise Malformed("a tag, float or simple value")


def _map(data: bytes, at: int, count: int, depth: int) -> tuple[dict[int, Any], int]:
    found: dict[int, Any] = {}
    last = -1
    for _ in range(count):
        key, at = _item(data, at, depth + 1)
        if not isinstance(key, int) or not 0 <= key <= 23 or key <= last:
            raise Malformed("a map's key is wrong, or out of order")
        last = key
        found[key], at = _item(data, at, depth + 1)
    return found, at


def _read_head(data: bytes, at: int) -> tuple[int, int, int]:
    if at >= len(data):
        raise Malformed("it is cut off")
    major, code = data[at] >> 5, data[at] & 31
    at += 1
    if code < 24:
        return major, code, at
    if code > 27:
        raise Malformed("a length that is not definite")
    size = 1 << code - 24
    if at + size > len(data):
        raise Malformed("it is cut off")
    number = int.from_bytes(data[at : at + size], "big")
    if number < (24 if size == 1 else 1 << 4 * size):
        raise Malformed("a head that is not the shortest")
    return major, number, at + size


# Hashes, trees and signatures.


def digest(label: str, *parts: Any) -> bytes:
    """`H(label, ...)` of the masking specification, 2.2."""
    return hashlib.sha256(encode([label, *parts])).digest()


def tree(label: str, leaves: list[bytes]) -> bytes:
    """`Tree(label, leaves)` of the masking specification, 2.3."""
    level = [digest(label + " leaf", leaf) for leaf in leaves]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        above = [digest(label + " node", left, right) for left, right in pairs]
        level = above + level[len(level) & ~1 :]
    return level[0]


def signed(key: bytes, signature: bytes, label: str, *parts: Any) -> bool:
    """Whether this is the key's `Sign(label, ...)`, by the masking specification, 2.2.

    The key is of large order: under one of small order everybody's signature holds.
    """
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(
            signature, encode([label, *parts])
        )
    except (InvalidSignature, ValueError):
        return False
    return True


# Public keys.


def public_key(text: str) -> bytes:
    """The key that this text stands for (masking 2.5), or `Malformed`."""
    if not _KEY_TEXT.fullmatch(text):
        raise Malformed("a public key is not written as one")
    raw = base64.b32decode(text[4:].upper())
    key, check = raw[:_KEY_BYTES], raw[_KEY_BYTES:]
    if hashlib.sha256(b"secure-fl/identity/1" + key).digest()[:3] != check:
        raise Malformed("a public key was mistyped: its check does not fit")
    return key


def key_text(key: bytes) -> str:
    """A public key as text, by the masking specification, 2.5."""
    check = hashlib.sha256(b"secure-fl/identity/1" + key).digest()[:3]
    return "sfl1" + base64.b32encode(key + check).decode().lower()


def large_order(key: bytes) -> bool:
    """Whether it is the one encoding of a point of large order (masking 3.1)."""
    number = int.from_bytes(key, "little")
    sign, y = number >> 255, number & (1 << 255) - 1
    if y >= _PRIME:
        return False
    above, below = (y * y - 1) % _PRIME, (_D * y * y + 1) % _PRIME
    square = above * pow(below, -1, _PRIME) % _PRIME
    x = pow(square, (_PRIME + 3) // 8, _PRIME)
    if x * x % _PRIME != square:
        x = x * pow(2, (_PRIME - 1) // 4, _PRIME) % _PRIME
    if x * x % _PRIME != square or (x == 0 and sign):
        return False
    if x & 1 != sign:
        x = _PRIME - x
    for _ in range(3):
        x, y = _double(x, y)
    return (x, y) != (0, 1)


def _double(x: int, y: int) -> tuple[int, int]:
    product = _D * x * x * y * y % _PRIME
    return (
        2 * x * y * pow(1 + product, -1, _PRIME) % _PRIME,
        (y * y + x * x) * pow(1 - product, -1, _PRIME) % _PRIME,
    )


# Reading a value's parts.


def fields(value: Any, *kinds: type) -> list[Any]:
    """The fields 0, 1, ... of a map that has these and no others, of these types."""
    if not isinstance(value, dict) or list(value) != list(range(len(kinds))):
        raise Malformed("fields are missing, or unknown")
    rows = list(value.values())
    return parts(rows, *kinds)


def parts(value: Any, *kinds: type) -> list[Any]:
    """The parts of an array that has as many, of these types."""
    if not isinstance(value, list) or len(value) != len(kinds):
        raise Malformed("a row has not its number of parts")
    for part, kind in zip(value, kinds, strict=True):
        if type(part) is not kind:
            raise Malformed(f"a part is no {kind.__name__}")
    return value


def sized(value: Any, length: int = _HASH_BYTES) -> bytes:
    """Bytes of this length: a hash, unless another is given."""
    if not isinstance(value, bytes) or len(value) != length:
        raise Malformed(f"a part has not {length} bytes")
    return value


def signature(value: Any) -> bytes:
    return sized(value, _SIGNATURE_BYTES)


def integer(value: Any) -> int:
    """An integer as the files hold them, or `Malformed`."""
    if type(value) is not int or not 0 <= value < 2**63:
        raise Malformed("an integer is out of range")
    return value


def text(value: Any) -> str:
    """A text as the files hold them, or `Malformed`."""
    if type(value) is not str or len(value) > 1000:
        raise Malformed("a text is too long, or none")
    return value
