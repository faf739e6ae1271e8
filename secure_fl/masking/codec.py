# SPDX-License-Identifier: Apache-2.0
"""What all messages of a masking context have in common (SPEC.md, section 5.1)."""

from __future__ import annotations

from typing import Final

from .. import wire
from ..errors import ProtocolError
from .session import Session

__all__ = [
    "INBOX_ROW_BYTES",
    "ascending_rows",
    "check_message",
    "client_index",
    "context_of",
    "fixed_bytes",
    "kind_of",
    "message",
    "open_message",
]


def message(session: Session, kind: int, *fields: wire.Value) -> bytes:
    """``fields`` from 2 on."""
    return wire.encode({0: kind, 1: session.ctx, **dict(enumerate(fields, start=2))})


# No row is larger than these; one of an inbox has a path of up to 64 nodes.
ROW_BYTES: Final = 256
INBOX_ROW_BYTES: Final = 2_600


def open_message(
    data: bytes, session: Session, kind: int, *, row_bytes: int = ROW_BYTES
) -> wire.Fields:
    """The fields from 2 on.  What no message of the kind can be is not looked at."""
    if len(data) > 512 + row_bytes * len(session.roster):
        raise ProtocolError("larger than any message of this kind")
    return check_message(wire.Fields(wire.decode(data)), session, kind)


def check_message(fields: wire.Fields, session: Session, kind: int) -> wire.Fields:
    """Kind and context are the ones expected; the other fields are left."""
    if fields.integer(0) != kind:
        raise ProtocolError("a message of another kind was expected")
    if fields.bytes_(1, size=wire.HASH_BYTES) != session.ctx:
        raise ProtocolError("the message belongs to another context")
    return fields


def kind_of(data: bytes) -> int:
    """What field 0 says, before the message is parsed; it may yet prove malformed."""
    # Kinds are below 24, and key and kind come first: one byte each.
    if len(data) < 3 or not 0xA1 <= data[0] < 0xB8 or data[1] != 0 or data[2] > 23:
        raise ProtocolError("not a message: it has no kind")
    return data[2]


def context_of(data: bytes) -> bytes:
    """What field 1 says, likewise."""
    kind_of(data)
    if data[3:6] != b"\x01\x58\x20" or len(data) < 38:
        raise ProtocolError("not a message: it has no context")
    return data[6:38]


def client_index(fields: wire.Fields, key: int, session: Session) -> int:
    return fields.integer(key, high=len(session.roster) - 1)


def ascending_rows(
    fields: wire.Fields, key: int, session: Session, width: int
) -> list[list[wire.Value]]:
    """Rows of ``width`` that start with strictly ascending client indices."""
    rows: list[list[wire.Value]] = []
    last = -1
    for row in fields.array(key):
        if not isinstance(row, list) or len(row) != width:
            raise ProtocolError(f"field {key} holds a malformed row")
        client = row[0]
        if type(client) is not int or not last < client < len(session.roster):
            raise ProtocolError(f"field {key}: clients are not strictly ascending")
        last = client
        rows.append(row)
    return rows


def fixed_bytes(value: wire.Value, *sizes: int) -> bytes:
    if not isinstance(value, bytes) or (sizes and len(value) not in sizes):
        raise ProtocolError("a row holds bytes of the wrong type or length")
    return value
