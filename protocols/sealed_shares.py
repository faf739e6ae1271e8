# SPDX-License-Identifier: Apache-2.0
"""Looks behind a client's `SealedShares` (masking/SPEC.md, 4.5, 4.6 and 5.3).

Boxes hold a fresh ephemeral key, so the message cannot be compared byte by byte.
This opens every box with its receiver's private key and checks shares, commitments
and signature. Standard library only, plain integers, nothing constant in time: for
vectors, whose secrets are public, and for nothing else.
"""

import hashlib
import hmac
import struct
from typing import Any

SPEC = "secure-fl/masking/1"
PARAMETERS = (  # in the order of 3.2
    "clients",
    "length",
    "word_bits",
    "chunk_words",
    "threshold",
    "min_clients",
    "max_colluding",
)
P = 2**255 - 19
ORDER = 2**252 + 27742317777372353535851937790883648493  # of the Ed25519 base point
D = -121665 * pow(121666, -1, P) % P
ROOT_OF_MINUS_ONE = pow(2, (P - 1) // 4, P)

Value = int | bytes | str | list[Any] | dict[int, Any]
Point = tuple[int, int, int, int]


class WrongShares(Exception):
    """The message is not the one that the vector asks for; says in what."""


def _require(holds: bool, what: str) -> None:
    if not holds:
        raise WrongShares(what)


# Deterministic CBOR (2.1), hashes (2.2) and trees (2.3).


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
    _require(at < len(data), "it is cut short")
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
    _require(major in (4, 5), "it has a type that it cannot have")
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
        raise WrongShares("it is no map of integers") from None
    _require(again == data, "it is not deterministic CBOR")
    return value


def digest(label: str, *parts: Value) -> bytes:
    return hashlib.sha256(cbor([f"{SPEC} {label}", *parts])).digest()


def tree_root(label: str, leaves: list[bytes]) -> bytes:
    level = [digest(f"{label} leaf", leaf) for leaf in leaves]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [digest(f"{label} node", *pair) for pair in pairs] + odd
    return level[0]


def context_hash(session: dict[str, Any]) -> bytes:
    parameters = [session["parameters"][name] for name in PARAMETERS]
    return digest(
        "ctx",
        bytes.fromhex(session["plan_hash"]),
        bytes.fromhex(session["run_id"]),
        session["round"],
        session["attempt"],
        [[name, bytes.fromhex(key)] for name, key in session["roster"]],
        bytes.fromhex(session["model_hash"]),
        [*parameters, "complete", "x25519"],
    )


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
    """The 64 bytes in a box of 112."""
    _require(len(box) == 112, "a box has not 112 bytes")
    kem, suite = b"KEM\0\x20", b"HPKE\0\x20\0\x01\0\x03"
    sealed_key, sealed, tag = box[:32], box[32:96], box[96:]
    _require(int.from_bytes(sealed_key, "little") < P, "a key has not its one form")
    both = sealed_key + x25519(private, (9).to_bytes(32, "little"))
    agreed = _extract(kem, b"", b"eae_prk", x25519(private, sealed_key))
    shared = _expand(kem, agreed, b"shared_secret", both, 32)
    no_psk = _extract(suite, b"", b"psk_id_hash", b"")
    context = b"\0" + no_psk + _extract(suite, b"", b"info_hash", info)
    secret = _extract(suite, shared, b"secret", b"")
    key = _expand(suite, secret, b"key", context, 32)
    nonce = _expand(suite, secret, b"base_nonce", context, 12)
    text = sealed + struct.pack("<QQ", 0, len(sealed))
    expected = _poly1305(_chacha_block(key, nonce, 0)[:32], text)
    _require(tag == expected, "a box does not open")
    stream = _chacha_block(key, nonce, 1)
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
    _require((x * x - square) % P == 0, "a key is no point of the curve")
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


def check(
    message: bytes, session: dict[str, Any], client: int, expected: dict[str, Any]
) -> None:
    """Raises WrongShares unless `message` holds what `expected` says."""
    fields = parse(message)
    _require(isinstance(fields, dict) and set(fields) == set(range(6)), "fields differ")
    try:
        _check_fields(fields, session, client, expected)
    except (TypeError, IndexError, ValueError, AttributeError):
        raise WrongShares("a field has another type or length") from None


def _check_fields(
    fields: Any, session: dict[str, Any], client: int, expected: dict[str, Any]
) -> None:
    ctx, cohort = context_hash(session), bytes.fromhex(expected["cohort"])
    _require(fields[0] == 3 and fields[1] == ctx, "the kind or the context is another")
    _require(fields[2] == client, "the client is another")
    commitment = bytes.fromhex(expected["commitment"])
    _require(fields[3] == commitment, "the self commitment is another")
    shares, rows = expected["shares"], fields[4]
    _require(len(rows) == len(shares), f"{len(rows)} rows, not {len(shares)}")
    for (to, box, *commitments), share in zip(rows, shares, strict=True):
        _require(to == share["to"], f"a row for client {to}, not {share['to']}")
        both = [bytes.fromhex(share[kind]) for kind in ("self", "key")]
        if to == client:
            _require(box == b"", "the dealer's own box is not empty")
        else:
            info = cbor([f"{SPEC} box", ctx, cohort, client, to])
            opened = open_box(bytes.fromhex(share["seal_private_key"]), info, box)
            _require(opened == both[0] + both[1], f"client {to} gets other shares")
        made = [
            digest(f"{kind} share", ctx, client, to, part)
            for kind, part in zip(("self", "key"), both, strict=True)
        ]
        _require(commitments == made, f"a commitment to client {to} is another")
    root = tree_root("shares", [cbor(row) for row in rows])
    signed = cbor([f"{SPEC} shares", ctx, cohort, client, commitment, root])
    key = bytes.fromhex(session["roster"][client][1])
    _require(verify(key, fields[5], signed), "the signature does not hold")
