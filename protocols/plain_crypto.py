# SPDX-License-Identifier: Apache-2.0
"""What it takes to look inside a message: CBOR, HPKE opening, Ed25519 verifying.

Standard library only, plain integers, nothing constant in time: for vectors, whose
secrets are public, and for nothing else.
"""

import hashlib
import hmac
import struct
from typing import Any

P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the Ed25519 base point
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)

Value = int | bytes | str | list[Any] | dict[int, Any]
Point = tuple[int, int, int, int]


class Wrong(Exception):
    """The message is not the one that the vector asks for; says in what."""


def require(holds: bool, what: str) -> None:
    if not holds:
        raise Wrong(what)


# Deterministic CBOR (masking 2.1).


def _head(major: int, number: int) -> bytes:
    if number < 24:
        return bytes([major << 5 | number])
    size = next(k for k in range(4) if number < 1 << (8 << k))
    return bytes([major << 5 | 24 + size]) + number.to_bytes(1 << size, "big")


def cbor(value: Value) -> bytes:
    if isinstance(value, int):
        return _head(0, value) if value >= 0 else _head(1, -1 - value)
    if isinstance(value, bytes):
        return _head(2, len(value)) + value
    if isinstance(value, str):
        return _head(3, len(value.encode())) + value.encode()
    if isinstance(value, list):
        return _head(4, len(value)) + b"".join(map(cbor, value))
    pairs = (cbor(key) + cbor(value[key]) for key in sorted(value))
    return _head(5, len(value)) + b"".join(pairs)


def _read(data: bytes, at: int) -> tuple[Value, int]:
    require(at < len(data), "it is cut short")
    major, number = data[at] >> 5, data[at] & 31
    at += 1
    if number >= 24:
        size = 1 << min(number - 24, 3)
        number = int.from_bytes(data[at : at + size], "big")
        at += size
    if major == 0:
        return number, at
    if major == 2:
        return data[at : at + number], at + number
    require(major in (4, 5), "it has a type that it cannot have")
    items = []
    for _ in range(number * (major - 3)):
        item, at = _read(data, at)
        items.append(item)
    return (items if major == 4 else dict(zip(*[iter(items)] * 2, strict=True))), at


def parse(data: bytes) -> Value:
    """Reads a message; whatever is not the one form of its value is refused."""
    try:
        value, _ = _read(data, 0)
        again = cbor(value)
    except (TypeError, RecursionError):
        raise Wrong("it is no map of integers") from None
    require(again == data, "it is not deterministic CBOR")
    return value


def digest(label: str, *parts: Value) -> bytes:
    """Masking 2.2."""
    return hashlib.sha256(cbor([label, *parts])).digest()


# HPKE base mode (RFC 9180) of X25519, HKDF-SHA256 and ChaCha20-Poly1305.


def x25519(private: bytes, public: bytes) -> bytes:
    """RFC 7748, section 5."""
    scalar = int.from_bytes(private, "little") & ~(7 | 1 << 255) | 1 << 254
    u = int.from_bytes(public, "little") % 2**255
    x2, z2, x3, z3, swapped = 1, 0, u, 1, 0
    for bit in reversed(range(255)):
        if scalar >> bit & 1 != swapped:
            x2, z2, x3, z3, swapped = x3, z3, x2, z2, 1 - swapped
        total, less = x2 + z2, x2 - z2
        cross, other = (x3 - z3) * total, (x3 + z3) * less
        x3, z3 = (cross + other) ** 2 % P, u * (cross - other) ** 2 % P
        square, small = total * total % P, less * less % P
        rest = square - small
        x2, z2 = square * small % P, rest * (square + 121665 * rest) % P
    if swapped:
        x2, z2 = x3, z3
    return (x2 * pow(z2, P - 2, P) % P).to_bytes(32, "little")


def _extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt, b"HPKE-v1" + suite + label + secret, "sha256")


def _expand(suite: bytes, key: bytes, label: bytes, info: bytes, size: int) -> bytes:
    info = struct.pack(">H", size) + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, info + b"\x01", "sha256")[:size]


def _chacha_block(key: bytes, nonce: bytes, counter: int) -> bytes:
    """RFC 8439, section 2.3."""
    start = struct.unpack("<16I", b"expand 32-byte k" + key + bytes(4) + nonce)
    start = (*start[:12], counter, *start[13:])
    state = list(start)
    columns = [(i, i + 4, i + 8, i + 12) for i in range(4)]
    diagonals = [
        (i, 4 + (i + 1) % 4, 8 + (i + 2) % 4, 12 + (i + 3) % 4) for i in range(4)
    ]
    for a, b, c, d in 10 * (columns + diagonals):
        for x, y, z, turn in ((a, b, d, 16), (c, d, b, 12), (a, b, d, 8), (c, d, b, 7)):
            state[x] = (state[x] + state[y]) % 2**32
            mixed = state[z] ^ state[x]
            state[z] = (mixed << turn | mixed >> 32 - turn) % 2**32
    words = ((a + b) % 2**32 for a, b in zip(state, start, strict=True))
    return struct.pack("<16I", *words)


def _poly1305(key: bytes, text: bytes) -> bytes:
    """RFC 8439, section 2.5; `text` is a whole number of blocks."""
    r = int.from_bytes(key[:16], "little") & 0x0FFFFFFC0FFFFFFC0FFFFFFC0FFFFFFF
    total = 0
    for at in range(0, len(text), 16):
        block = int.from_bytes(text[at : at + 16], "little") + 2**128
        total = (total + block) * r % (2**130 - 5)
    last = (total + int.from_bytes(key[16:], "little")) % 2**128
    return last.to_bytes(16, "little")


def open_box(private: bytes, info: bytes, box: bytes) -> bytes:
    """What is in a box."""
    require(len(box) >= 48, "a box is too short")
    kem, suite = b"KEM\0\x20", b"HPKE\0\x20\0\x01\0\x03"
    sealed_key, sealed, tag = box[:32], box[32:-16], box[-16:]
    require(int.from_bytes(sealed_key, "little") < P, "a key has not its one form")
    both = sealed_key + x25519(private, (9).to_bytes(32, "little"))
    agreed = _extract(kem, b"", b"eae_prk", x25519(private, sealed_key))
    shared = _expand(kem, agreed, b"shared_secret", both, 32)
    no_psk = _extract(suite, b"", b"psk_id_hash", b"")
    context = b"\0" + no_psk + _extract(suite, b"", b"info_hash", info)
    secret = _extract(suite, shared, b"secret", b"")
    key = _expand(suite, secret, b"key", context, 32)
    nonce = _expand(suite, secret, b"base_nonce", context, 12)
    size = len(sealed)
    text = sealed + bytes(-size % 16) + struct.pack("<QQ", 0, size)
    expected = _poly1305(_chacha_block(key, nonce, 0)[:32], text)
    require(tag == expected, "a box does not open")
    blocks = (_chacha_block(key, nonce, 1 + i) for i in range(-(-size // 64)))
    stream = b"".join(blocks)[:size]
    return bytes(a ^ b for a, b in zip(sealed, stream, strict=True))


# Ed25519 (RFC 8032), verifying only.


def _add(a: Point, b: Point) -> Point:
    e = (a[1] - a[0]) * (b[1] - b[0])
    f = (a[1] + a[0]) * (b[1] + b[0])
    g, h = 2 * a[3] * b[3] * D, 2 * a[2] * b[2]
    e, f, g, h = f - e, h - g, h + g, f + e
    return e * f % P, g * h % P, f * g % P, e * h % P


def _times(factor: int, point: Point) -> Point:
    total: Point = (0, 1, 1, 0)
    for bit in reversed(range(factor.bit_length())):
        total = _add(total, total)
        if factor >> bit & 1:
            total = _add(total, point)
    return total


def _point(data: bytes) -> Point:
    y = int.from_bytes(data, "little") % 2**255
    square = (y * y - 1) * pow(D * y * y + 1, -1, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * ROOT_OF_MINUS_ONE % P
    require((x * x - square) % P == 0, "a key is no point of the curve")
    if x & 1 != data[31] >> 7:
        x = P - x
    return x, y, 1, x * y % P


def _encoded(point: Point) -> bytes:
    inverse = pow(point[2], -1, P)
    x, y = point[0] * inverse % P, point[1] * inverse % P
    return (y | (x & 1) << 255).to_bytes(32, "little")


def verify(key: bytes, signature: bytes, message: bytes) -> bool:
    scalar = int.from_bytes(signature[32:], "little")
    if len(signature) != 64 or scalar >= ORDER:
        return False
    challenge = hashlib.sha512(signature[:32] + key + message).digest()
    factor = int.from_bytes(challenge, "little") % ORDER
    x, y, _, product = _point(key)
    base = _point((4 * pow(5, -1, P) % P).to_bytes(32, "little"))
    minus_key = (P - x, y, 1, P - product)
    found = _add(_times(scalar, base), _times(factor, minus_key))
    return _encoded(found) == signature[:32]
