# SPDX-License-Identifier: Apache-2.0
"""A ledger taken apart, and put together and signed again, whatever it then says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from secure_fl import wire
from secure_fl.privacy import book

from .mutations_folder import Folder

__all__ = ["Line", "Lines", "export", "signed", "taken_apart"]

# Fields of a reservation.
RUN_ID, ROUND, ATTEMPT, EVENT, DELTA, LIMIT, UNIT, ADJACENCY = range(8)


@dataclass
class Line:
    """One entry, before it is chained."""

    kind: str
    time: int
    body: dict[int, Any]
    hash: bytes


@dataclass
class Lines:
    """A ledger taken apart: whatever is changed, it is hashed and signed again."""

    client: str
    lineage: str
    lines: list[Line]

    def at(self, kind: str, nth: int = 0) -> int:
        """Where the ``nth`` entry of a kind stands."""
        return [i for i, x in enumerate(self.lines) if x.kind == kind][nth]

    def reservation(self, nth: int = 0) -> dict[int, Any]:
        """The terms of the ``nth`` reservation."""
        return self.lines[self.at("reserved", nth)].body

    def steps(self, nth: int) -> list[int]:
        """Where the ``nth`` reservation and its steps stand."""
        first = self.at("reserved", nth)
        key = self.lines[first].hash
        return [first] + [i for i, x in enumerate(self.lines) if x.body[0] == key]

    def add(
        self, kind: str, *, of: int, at: int | None = None, ctx: bytes = b""
    ) -> None:
        """A further step of the ``of``-th reservation; at the end, or at a place."""
        key = self.lines[self.at("reserved", of)].hash
        place = len(self.lines) if at is None else at
        time = self.lines[place - 1].time
        self.lines.insert(place, Line(kind, time, {0: key, 1: ctx}, b""))

    def chained(self) -> tuple[list[bytes], bytes]:
        """Entries and head, by the formulas of the ledger's specification."""
        head = wire.digest(f"{book.SPEC} genesis", self.client, self.lineage)
        out, new = [], dict[bytes, bytes]()
        for number, x in enumerate(self.lines):
            body = x.body
            if x.kind != "reserved":
                body = {**body, 0: new.get(body[0], body[0])}
            data = wire.encode({0: number, 1: head, 2: x.kind, 3: x.time, 4: body})
            head = wire.digest(f"{book.SPEC} entry", data)
            if x.hash:
                new[x.hash] = head
            out.append(data)
        return out, head


def taken_apart(data: bytes) -> Lines:
    value = wire.decode(data)
    assert isinstance(value, dict)
    lines = []
    entries: Any = value[3]
    for item in entries:
        entry: Any = wire.decode(item)
        hash_ = wire.digest(f"{book.SPEC} entry", item)
        lines.append(Line(entry[2], entry[3], dict(entry[4]), hash_))
    return Lines(str(value[1]), str(value[2]), lines)


def signed(folder: Folder, lines: Lines, *, name: str) -> bytes:
    entries, head = lines.chained()
    return export(folder, name, lines.client, lines.lineage, entries, head)


def export(
    folder: Folder,
    signer: str,
    client: str,
    lineage: str,
    entries: list[bytes],
    head: bytes,
) -> bytes:
    """The file as its client signs it (or a stale signature, where no key is held)."""
    label = f"{book.SPEC} export"
    identity = folder.signer(signer)
    signature = bytes(64)
    if identity is not None:
        signature = identity.sign(label, client, lineage, len(entries), head)
    return wire.encode(
        {0: book.SPEC, 1: client, 2: lineage, 3: entries, 4: head, 5: signature}
    )
