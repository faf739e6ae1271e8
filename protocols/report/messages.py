# SPDX-License-Identifier: Apache-2.0
"""The form of protocol messages (masking and CKKS specifications, 5).

A form says of each field which values it may have; `parse` gives the fields of a
message that has the form, and refuses every other.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from canonical import Malformed, decode

# Kinds, as field 0 has them.
PLAIN_REQUEST = 0
(ADVERTISE, COHORT_KEYS, SEALED_SHARES, INBOX, CHUNK, MASKED_INPUT) = range(1, 7)
(STATEMENT, AGREEMENT, SIGNATURES, REVEAL) = range(7, 11)
(CIPHERTEXT, CALL, HOLDER_KEY, INVITATION, INPUT, REQUEST, RELEASE, REFUSAL) = range(
    12, 20
)


@dataclass(frozen=True)
class World:
    """What the form of a message depends on."""

    ctx: bytes
    clients: int
    key_box: int = 0  # bytes, with a key holder
    packed_key: int = 0  # bytes of a packed sum of keys, with a key holder


Part = Callable[[World, Any], bool]


def _bytes(*lengths: int) -> Part:
    return lambda world, value: isinstance(value, bytes) and len(value) in lengths


def _number(least: int, most: int) -> Part:
    return lambda world, value: isinstance(value, int) and least <= value <= most


def _client(world: World, value: Any) -> bool:
    return isinstance(value, int) and 0 <= value < world.clients


def _culprit(world: World, value: Any) -> bool:
    return isinstance(value, int) and 0 <= value <= world.clients


def _any_bytes(world: World, value: Any) -> bool:
    return isinstance(value, bytes)


def _key_box(world: World, value: Any) -> bool:
    return isinstance(value, bytes) and len(value) == world.key_box


def _path(world: World, value: Any) -> bool:
    return (
        isinstance(value, list)
        and len(value) <= 64
        and all(HASH(world, node) for node in value)
    )


def _rows(*form: Part) -> Part:
    def check(world: World, value: Any) -> bool:
        if not isinstance(value, list):
            return False
        last = -1
        for row in value:
            if not isinstance(row, list) or len(row) != len(form):
                return False
            if not all(part(world, x) for part, x in zip(form, row, strict=True)):
                return False
            if row[0] <= last:
                return False
            last = row[0]
        return True

    return check


HASH = KEY = _bytes(32)
SIGNATURE = _bytes(64)
BOX = _bytes(0, 112)
ATTACHED = _bytes(0, 32)
_COUNT = _number(0, 2**63 - 1)
_DIGEST_ROW = (_client, HASH, HASH)

FORMS: dict[int, tuple[Part, ...]] = {
    PLAIN_REQUEST: (),
    ADVERTISE: (_client, KEY, KEY, SIGNATURE),
    COHORT_KEYS: (_rows(_client, KEY, KEY, SIGNATURE),),
    SEALED_SHARES: (_client, HASH, _rows(_client, BOX, HASH, HASH), SIGNATURE),
    INBOX: (_rows(_client, HASH, BOX, HASH, HASH, _path, HASH, SIGNATURE),),
    CHUNK: (_client, _COUNT, _any_bytes),
    MASKED_INPUT: (_client, HASH, HASH, HASH, ATTACHED, SIGNATURE),
    STATEMENT: (HASH, HASH, _rows(_client, HASH, HASH, ATTACHED)),
    AGREEMENT: (_client, SIGNATURE),
    SIGNATURES: (_rows(_client, SIGNATURE),),
    REVEAL: (_client, _rows(_client, _number(1, 2), HASH), SIGNATURE),
    CIPHERTEXT: (_client, _COUNT, _any_bytes),
    CALL: (_COUNT, _COUNT, HASH, _number(1, 2**40), KEY, SIGNATURE),
    HOLDER_KEY: (KEY, SIGNATURE),
    INVITATION: (KEY, SIGNATURE, KEY, SIGNATURE),
    INPUT: (_client, HASH, HASH, _key_box, _bytes(80), SIGNATURE),
    REQUEST: (_rows(_client, HASH, HASH, _key_box, HASH, SIGNATURE), SIGNATURE),
    RELEASE: (_rows(*_DIGEST_ROW), _any_bytes, SIGNATURE),
    REFUSAL: (_culprit, SIGNATURE),
}


def kind_of(data: bytes) -> int:
    """The kind of a message, or `Malformed`."""
    value = decode(data)
    if not isinstance(value, dict) or not isinstance(value.get(0), int):
        raise Malformed("a message is no map with a kind")
    return int(value[0])


def parse(data: bytes, kind: int, world: World) -> list[Any]:
    """The fields from 2 on of a message of this kind in this context."""
    value = decode(data)
    form = FORMS[kind]
    if not isinstance(value, dict) or list(value) != list(range(len(form) + 2)):
        raise Malformed("a message lacks fields, or has others")
    if value[0] != kind:
        raise Malformed("a message is of another kind")
    if value[1] != world.ctx:
        raise Malformed("a message is of another context")
    rest = [value[i + 2] for i in range(len(form))]
    for at, (part, field) in enumerate(zip(form, rest, strict=True)):
        if not part(world, field):
            raise Malformed(f"field {at + 2} of a message of kind {kind} is wrong")
    if kind in (INBOX, SEALED_SHARES):
        _boxes(kind, rest)
    if kind == RELEASE and len(rest[1]) != world.packed_key + 32 * len(rest[0]) + 48:
        raise Malformed("a release box has not its length")
    return rest


def _boxes(kind: int, rest: list[Any]) -> None:
    """A box is empty in the row for oneself and nowhere else (masking 5.1)."""
    if kind == SEALED_SHARES:
        for row in rest[2]:
            if (row[0] == rest[0]) != (row[1] == b""):
                raise Malformed("the wrong box is empty")
    elif sum(row[2] == b"" for row in rest[0]) > 1:
        raise Malformed("two boxes are empty")
