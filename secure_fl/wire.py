# SPDX-License-Identifier: Apache-2.0
"""The one encoding: what is sent is what is hashed is what is signed.

Deterministic CBOR (RFC 8949, section 4.2.1) restricted to integers, byte strings,
text, arrays, and maps with integer keys 0 to 23.  No floats, tags, booleans, nulls,
indefinite lengths or duplicate keys.  A decoder checks the form of all bytes before it
parses them, so that every value has exactly one (protocols/masking/SPEC.md, section 2).

Every hash, key derivation and signature starts with a label that holds the name and
version of its specification, and takes its parts as one CBOR array: no two lists of
parts can collide, and no hash of one protocol can stand in another.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping, Sequence
from functools import lru_cache
from typing import Final, final

import cbor2
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import (
    Ed25519PrivateKey,
    Ed25519PublicKey,
)

from .errors import ProtocolError

__all__ = [
    "HASH_BYTES",
    "SIGNATURE_BYTES",
    "ChunkTree",
    "Fields",
    "Signed",
    "Value",
    "decode",
    "decode_before",
    "digest",
    "digest_bytes",
    "encode",
    "encode_before",
    "merkle_paths",
    "merkle_root",
    "sign",
    "verify",
    "verify_merkle_path",
]

type_error = "only int, bytes, str, list and maps with keys 0 to 23 are encoded"

Value = int | bytes | str | Sequence["Value"] | Mapping[int, "Value"]

HASH_BYTES: Final = 32
SIGNATURE_BYTES: Final = 64
MAX_DEPTH: Final = 8


def _check(value: object, depth: int = 0) -> None:
    if depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    kind = type(value)  # exact: a bool is an int in Python, but not on the wire
    if kind is bytes or kind is str:
        return
    if isinstance(value, int) and kind is int:
        if not -(2**63) <= value < 2**64:
            raise ValueError("integer beyond 64 bits")
    elif isinstance(value, list | tuple):
        for item in value:
            _check(item, depth + 1)
    elif isinstance(value, dict):
        for key, item in value.items():
            if type(key) is not int or not 0 <= key <= 23:
                raise ValueError("map key is not an integer from 0 to 23")
            _check(item, depth + 1)
    else:
        raise ValueError(type_error)


_NO_VALUE: Final = "not a message: damaged, or not CBOR in its one form"

# An argument of 1, 2, 4 or 8 bytes has its shortest form from here on.
_SMALLEST: Final = (24, 1 << 8, 1 << 16, 1 << 32)


def _check_form(data: bytes, at: int, count: int, depth: int, *, keyed: bool) -> int:
    """Where the ``count`` items from ``at`` on end, each in its one form.

    Raises ValueError or IndexError.  No parser has acted on the bytes yet: references
    between shared values, say, would let a short message unfold to a huge one.
    """
    if count and depth > MAX_DEPTH:
        raise ValueError(f"nested deeper than {MAX_DEPTH}")
    last_key = -1
    for _ in range(count):
        if keyed:
            if not last_key < data[at] < 24:
                raise ValueError("map keys are not ascending integers from 0 to 23")
            last_key = data[at]
            at += 1
        major, argument = data[at] >> 5, data[at] & 31
        at += 1
        if argument > 23:
            if argument > 27:
                raise ValueError("a form that is not used")
            size, smallest = 1 << (argument - 24), _SMALLEST[argument - 24]
            argument = int.from_bytes(data[at : at + size], "big")
            at += size
            if argument < smallest:
                raise ValueError("not the shortest form")
        if major == 2 or major == 3:
            at += argument
        elif major == 4:
            at = _check_form(data, at, argument, depth + 1, keyed=False)
        elif major == 5:
            at = _check_form(data, at, argument, depth + 1, keyed=True)
        elif major > 5 or (major == 1 and argument >= 1 << 63):
            raise ValueError("a form that is not used")
    return at


def encode(value: Value) -> bytes:
    """The one byte form of ``value``.  Raises ValueError for what has none."""
    _check(value)
    return cbor2.dumps(value, canonical=True)


def decode(data: bytes) -> Value:
    """Parse bytes from a peer or a file.

    Guarantees: ``encode(decode(data)) == data``, so nothing is left over and nothing
    has a second form.  Raises ProtocolError for anything else, and nothing but it.
    """
    try:
        if _check_form(data, 0, 1, 0, keyed=False) != len(data):
            raise ValueError("not one whole value")
        value: Value = cbor2.loads(data)
    except Exception:  # foreign parser: whatever it raises is a bad message
        raise ProtocolError(_NO_VALUE) from None
    return value


# -- large byte strings, which are not copied more often than they must ----------------

_BEFORE: Final = 256  # bytes that may stand in a map before its large string


def encode_before(value: Mapping[int, Value], large: bytes | memoryview) -> bytes:
    """``encode`` of the map ``value`` with ``large`` as its last field.

    The field's key is one more than the largest in ``value``.
    """
    last = max(value) + 1
    # The number of its bytes as an integer has the string's head, but for its type.
    head = bytearray(encode({**value, last: len(large)}))
    head[len(encode({**value, last: 0})) - 1] |= 0x40
    return b"".join((head, large))


def decode_before(data: bytes) -> tuple[Value, memoryview]:
    """``decode`` of a map whose last field is a byte string, without a copy of it.

    Returns the map with that field empty, and the string as a part of ``data``.  Raises
    ProtocolError for anything else.
    """
    value, part = _last_string(data)
    return decode(value), part


def _last_string(data: bytes) -> tuple[bytes, memoryview]:
    try:
        count = data[0] - 0xA0
        if not 0 < count < 24:
            raise ValueError("not a map")
        # All pairs but the last, then its key and the head of its string.  What stands
        # before a large string is small: a bad message costs no more than that.
        at = _check_form(data[:_BEFORE], 1, count - 1, 1, keyed=True) + 1
        begin = at + 1 + (0 if data[at] & 31 < 24 else 1 << ((data[at] & 31) - 24))
        # The whole still has to be in its one form: see if it is, without a copy.
        if data[at] >> 5 != 2 or _check_form(data, 0, 1, 0, keyed=False) != len(data):
            raise ValueError("the last field is not a byte string")
    except (IndexError, ValueError):
        raise ProtocolError(_NO_VALUE) from None
    return data[:at] + b"\x40", memoryview(data)[begin:]


class Fields:
    """A map from the wire, taken apart field by field; what is left over is refused.

    >>> fields = Fields(decode(encode({0: 7, 1: b"ab"})))
    >>> fields.integer(0), fields.bytes_(1, size=2)
    (7, b'ab')
    >>> fields.end()
    """

    def __init__(self, value: Value) -> None:
        if not isinstance(value, dict):
            raise ProtocolError("not a message: a map was expected")
        self._left: dict[int, Value] = dict(value)

    def has(self, key: int) -> bool:
        return key in self._left

    def _take(self, key: int, kind: type) -> Value:
        value = self.value(key)
        if type(value) is not kind:
            raise ProtocolError(f"field {key} has the wrong type")
        return value

    def value(self, key: int) -> Value:
        """Anything: for a part that another parser takes apart."""
        if key not in self._left:
            raise ProtocolError(f"field {key} is missing")
        return self._left.pop(key)

    def integer(self, key: int, *, low: int = 0, high: int = 2**63 - 1) -> int:
        value = self._take(key, int)
        assert isinstance(value, int)
        if not low <= value <= high:
            raise ProtocolError(f"field {key} is out of range")
        return value

    def bytes_(self, key: int, *, size: int | None = None) -> bytes:
        value = self._take(key, bytes)
        assert isinstance(value, bytes)
        if size is not None and len(value) != size:
            raise ProtocolError(f"field {key} does not have {size} bytes")
        return value

    def text(self, key: int, *, max_size: int = 1000) -> str:
        value = self._take(key, str)
        assert isinstance(value, str)
        if len(value) > max_size:
            raise ProtocolError(f"field {key} is longer than {max_size}")
        return value

    def array(self, key: int) -> list[Value]:
        value = self._take(key, list)
        assert isinstance(value, list)
        return value

    def fields(self, key: int) -> Fields:
        value = self._take(key, dict)
        return Fields(value)

    def integers(self, key: int, *, high: int = 2**63 - 1) -> tuple[int, ...]:
        """An array of strictly ascending integers: a set in its one order."""
        out: list[int] = []
        for item in self.array(key):
            if type(item) is not int or not 0 <= item <= high:
                raise ProtocolError(f"field {key} holds something else than integers")
            if out and item <= out[-1]:
                raise ProtocolError(f"field {key} is not strictly ascending")
            out.append(item)
        return tuple(out)

    def end(self) -> None:
        """Refuse fields that this version does not know."""
        if self._left:
            raise ProtocolError(f"unknown field {min(self._left)}")


def digest(label: str, *parts: Value) -> bytes:
    """SHA-256 over the CBOR array ``[label, *parts]``: 32 bytes."""
    return hashlib.sha256(encode([label, *parts])).digest()


@lru_cache(maxsize=256)
def _start(label: str, parts: int) -> bytes:
    """How the array ``[label, ...]`` of ``parts`` further items begins."""
    return encode([label, *([0] * parts)])[:-parts]


def digest_bytes(label: str, data: bytes | memoryview) -> bytes:
    """``digest(label, data)`` without a copy of ``data``."""
    head = bytearray(encode(len(data)))
    head[0] |= 0x40
    state = hashlib.sha256(_start(label, 1) + head)
    state.update(data)
    return state.digest()


def sign(key: Ed25519PrivateKey, label: str, *parts: Value) -> bytes:
    """Ed25519 over the CBOR array ``[label, *parts]``: 64 bytes."""
    return key.sign(encode([label, *parts]))


@final
class Signed:
    """What a signature is over: the CBOR array ``[label, *parts]``, encoded once."""

    def __init__(self, label: str, *parts: Value) -> None:
        self._message = encode([label, *parts])

    def by(self, public_key: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is ``public_key``'s over this.

        It answers instead of raising: only its caller knows whom a bad one blames.
        """
        try:
            key = Ed25519PublicKey.from_public_bytes(public_key)
            key.verify(signature, self._message)
        except (InvalidSignature, ValueError):
            return False
        return True


def verify(public_key: bytes, signature: bytes, label: str, *parts: Value) -> bool:
    """Whether ``signature`` is ``public_key``'s over ``[label, *parts]``."""
    return Signed(label, *parts).by(public_key, signature)


# -- hash tree: RFC 9162's shape (a promoted odd node is not hashed with itself) -----


def _parent(label: str, left: bytes, right: bytes) -> bytes:
    """``digest(label + " node", left, right)``, of two hashes."""
    parts = (_start(label + " node", 2), b"\x58\x20", left, b"\x58\x20", right)
    return hashlib.sha256(b"".join(parts)).digest()


def _levels(label: str, leaves: Sequence[bytes]) -> list[list[bytes]]:
    if not leaves:
        raise ValueError("a hash tree has at least one leaf")
    levels = [[digest_bytes(label + " leaf", leaf) for leaf in leaves]]
    while len(levels[-1]) > 1:
        row = levels[-1]
        above = [_parent(label, row[i], row[i + 1]) for i in range(0, len(row) - 1, 2)]
        if len(row) % 2:
            above.append(row[-1])
        levels.append(above)
    return levels


def merkle_root(label: str, leaves: Iterable[bytes]) -> bytes:
    """Root over the leaves in order.  The number of leaves is bound by the caller."""
    return _levels(label, list(leaves))[-1][0]


def merkle_paths(
    label: str, leaves: Sequence[bytes]
) -> tuple[bytes, list[list[bytes]]]:
    """The root, and for each leaf what its verifier needs beside leaf and root."""
    levels = _levels(label, leaves)
    paths = []
    for index in range(len(leaves)):
        path = []
        for row in levels[:-1]:
            if index ^ 1 < len(row):
                path.append(row[index ^ 1])
            index //= 2
        paths.append(path)
    return levels[-1][0], paths


def verify_merkle_path(
    label: str,
    leaf: bytes,
    *,
    index: int,
    count: int,
    path: Sequence[bytes],
    root: bytes,
) -> bool:
    """Whether ``leaf`` stands at ``index`` of ``count`` leaves under ``root``."""
    if not 0 <= index < count:
        return False
    if any(len(node) != HASH_BYTES for node in path):
        return False
    node = digest_bytes(label + " leaf", leaf)
    left = list(path)
    while count > 1:
        if index ^ 1 < count:
            if not left:
                return False
            sibling = left.pop(0)
            pair = (sibling, node) if index & 1 else (node, sibling)
            node = _parent(label, *pair)
        index //= 2
        count = (count + 1) // 2
    return not left and node == root


@final
class ChunkTree:
    """The hash tree over chunks that come one by one.  It keeps a hash per chunk."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._leaves: list[bytes] = []

    def __len__(self) -> int:
        return len(self._leaves)

    def leaf(self, chunk: bytes | memoryview) -> bytes:
        return digest_bytes(f"{self._label} data", chunk)

    def add(self, leaf: bytes) -> None:
        self._leaves.append(leaf)

    def root(self) -> bytes:
        return merkle_root(self._label, self._leaves)
