# SPDX-License-Identifier: Apache-2.0
"""One context, as every party of a protocol computes it, and its messages' common form.

Each protocol has its own parameters and its own specification, whose name starts every
label.  The rest is alike: protocols/masking/SPEC.md, sections 3.1 and 5.1.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Final, Generic, Protocol, TypeVar

from . import wire
from .errors import ProtocolError, UsageError
from .identity import Roster

__all__ = [
    "AnyContext",
    "Context",
    "ascending_rows",
    "check_message",
    "client_index",
    "context_of",
    "fixed_bytes",
    "kind_of",
    "message",
    "open_message",
]


class ContextParameters(Protocol):
    """The public numbers of a context."""

    @property
    def clients(self) -> int: ...

    def to_wire(self) -> wire.Value: ...


_P = TypeVar("_P", bound=ContextParameters)


@dataclass(frozen=True, slots=True)
class Context(Generic[_P]):
    """One context.  ``ctx`` (32 bytes) is in every key, signature and sealed box.

    A party that was shown another plan, model, roster, round or attempt computes
    another ``ctx``; none of its messages then fit anyone else's.
    """

    spec: ClassVar[str]

    plan_hash: bytes
    run_id: bytes
    round_index: int
    attempt: int
    roster: Roster
    model_hash: bytes
    parameters: _P
    ctx: bytes = field(init=False)

    def __post_init__(self) -> None:
        if len(self.roster) != self.parameters.clients:
            raise UsageError("the parameters are for another number of clients")
        if len(self.plan_hash) != 32 or len(self.model_hash) != 32:
            raise UsageError("hashes have 32 bytes")
        if len(self.run_id) != 16:
            raise UsageError("a run id has 16 bytes")
        if not (0 <= self.round_index < 2**63 and 0 <= self.attempt < 2**63):
            raise UsageError("rounds and attempts are counted from 0")
        ctx = wire.digest(
            f"{self.spec} ctx",
            self.plan_hash,
            self.run_id,
            self.round_index,
            self.attempt,
            self.roster.to_wire(),
            self.model_hash,
            self.parameters.to_wire(),
        )
        object.__setattr__(self, "ctx", ctx)

    def name(self, index: int) -> str:
        return self.roster.name(index)

    def public_key(self, index: int) -> bytes:
        return self.roster.members[index].public_key


AnyContext = Context[Any]

# -- messages --------------------------------------------------------------------------


def message(context: AnyContext, kind: int, *fields: wire.Value) -> bytes:
    """``fields`` from 2 on."""
    return wire.encode({0: kind, 1: context.ctx, **dict(enumerate(fields, start=2))})


ROW_BYTES: Final = 256  # no row of a client is larger, unless its message says so


def open_message(
    data: bytes, context: AnyContext, kind: int, *, row_bytes: int = ROW_BYTES
) -> wire.Fields:
    """The fields from 2 on.  What no message of the kind can be is not looked at."""
    if len(data) > 512 + row_bytes * len(context.roster):
        raise ProtocolError("larger than any message of this kind")
    return check_message(wire.Fields(wire.decode(data)), context, kind)


def check_message(fields: wire.Fields, context: AnyContext, kind: int) -> wire.Fields:
    """Kind and context are the ones expected; the other fields are left."""
    if fields.integer(0) != kind:
        raise ProtocolError("a message of another kind was expected")
    if fields.bytes_(1, size=wire.HASH_BYTES) != context.ctx:
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


def client_index(fields: wire.Fields, key: int, context: AnyContext) -> int:
    return fields.integer(key, high=len(context.roster) - 1)


def ascending_rows(
    fields: wire.Fields, key: int, context: AnyContext, width: int
) -> list[list[wire.Value]]:
    """Rows of ``width`` that start with strictly ascending client indices."""
    rows: list[list[wire.Value]] = []
    last = -1
    for row in fields.array(key):
        if not isinstance(row, list) or len(row) != width:
            raise ProtocolError(f"field {key} holds a malformed row")
        client = row[0]
        if type(client) is not int or not last < client < len(context.roster):
            raise ProtocolError(f"field {key}: clients are not strictly ascending")
        last = client
        rows.append(row)
    return rows


def fixed_bytes(value: wire.Value, *sizes: int) -> bytes:
    if not isinstance(value, bytes) or (sizes and len(value) not in sizes):
        raise ProtocolError("a row holds bytes of the wrong type or length")
    return value
