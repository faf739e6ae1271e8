# SPDX-License-Identifier: Apache-2.0
"""How the failing vectors of protocols/report are made: one lie, and keys to sign it.

``resigned`` and its like re-sign with the keys of everybody, so that nothing but the
named check stands in the way.  Each function returns the files of a run.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from secure_fl import wire
from secure_fl.context import kind_of
from secure_fl.identity import Identity
from secure_fl.plan import Plan, Session
from secure_fl.privacy import Event, read_export
from secure_fl.privacy.book import Book, Entry, export_bytes
from tests.report.support import Made, Row, rewritten, rows_of, with_file

TRANSCRIPT = "transcript.cbor"
PLAN = "plan.toml"
SIZE = 20  # values of the model

Files = dict[str, bytes]
Edit = Callable[["Log"], None]
Forgery = Callable[[Made], Files]


@dataclass(frozen=True)
class Case:
    """One failing vector: which check it breaks, and which file is at fault."""

    run: str
    name: str
    check: str
    file: str
    forge: Forgery
    copy: bytes = b""  # the auditor's own copy of the plan, where there is one


class Log:
    """The rows of a transcript that is being rewritten: (kind, body, old place)."""

    def __init__(self, made: Made, rows: list[Row]) -> None:
        self.made = made
        self.rows = rows

    def places(self, kind: str) -> list[int]:
        return [i for i, row in enumerate(self.rows) if row[0] == kind]

    def messages(self, kind: int, place: tuple[int, int]) -> list[int]:
        withheld = 17 if self.made.plan.has_keyholder else 10
        out = []
        for i in self.places("message"):
            body = self.rows[i][1]
            found = withheld if body[5] else kind_of(body[4])
            if found == kind and (body[0], body[1]) == place:
                out.append(i)
        return out

    def body(
        self, kind: str | int, at: int = 0, place: tuple[int, int] = (0, 0)
    ) -> dict[int, Any]:
        if isinstance(kind, int):
            return self.rows[self.messages(kind, place)[at]][1]
        return self.rows[self.places(kind)[at]][1]

    def session(self, place: tuple[int, int] = (0, 0)) -> Session:
        log = self.made.transcript
        model = log.of_kind("start")[0].bytes_(6)
        if place[0]:
            model = log.of_kind("round")[place[0] - 1].bytes_(8)
        return self.made.plan.session(
            round_index=place[0], attempt=place[1], model_hash=model, size=SIZE
        )

    def key_session(self) -> Any:
        """The context that the messages of step 1 to 5 name."""
        session: Any = self.session()
        if self.made.plan.protection.kind == "ckks":
            return self.made.plan.key_session(session)
        return session

    def signer(self, name: str) -> Identity:
        return self.made.signer(name)


# -- edits of a log --------------------------------------------------------------------


def set_field(kind: str | int, field: int, value: Any, at: int = 0) -> Edit:
    def edit(log: Log) -> None:
        log.body(kind, at)[field] = value

    return edit


def drop(kind: str | int, at: int = 0, count: int = 1) -> Edit:
    def edit(log: Log) -> None:
        found = (
            log.messages(kind, (0, 0)) if isinstance(kind, int) else log.places(kind)
        )
        first = at % len(found)
        for place in reversed(found[first : first + count]):
            del log.rows[place]

    return edit


def again(kind: str | int, at: int = 0) -> Edit:
    def edit(log: Log) -> None:
        found = (
            log.messages(kind, (0, 0)) if isinstance(kind, int) else log.places(kind)
        )
        name, body, _ = log.rows[found[at]]
        log.rows.insert(found[at] + 1, (name, dict(body), -1))

    return edit


def swap(kind: int, field: int, other: int = 1) -> Edit:
    """Field ``field`` of two messages of round 0."""

    def edit(log: Log) -> None:
        one, two = log.body(kind), log.body(kind, other)
        one[field], two[field] = two[field], one[field]

    return edit


def set_part(kind: int, field: int, change: Callable[[Any], Any], at: int = 0) -> Edit:
    """One field inside a message, unsigned."""

    def edit(log: Log) -> None:
        body = log.body(kind, at)
        value: Any = copy.deepcopy(wire.decode(body[4]))
        value[field] = change(value[field])
        body[4] = wire.encode(value)

    return edit


def flipped(value: bytes) -> bytes:
    return value[:-1] + bytes([value[-1] ^ 1])


# -- whole folders ---------------------------------------------------------------------


def resigned(*edits: Edit) -> Forgery:
    """The log edited, chained again and signed again by all who had signed it."""
    return lambda made: {**made.files, TRANSCRIPT: _edited(made, edits, resign=True)}


def rechained(*edits: Edit) -> Forgery:
    """The log edited and chained again by somebody without keys."""
    return lambda made: {**made.files, TRANSCRIPT: _edited(made, edits, resign=False)}


def _edited(made: Made, edits: tuple[Edit, ...], *, resign: bool) -> bytes:
    def edit(rows: list[Row]) -> None:
        rows[:] = copy.deepcopy(rows)  # the good run stays as it was
        for one in edits:
            one(Log(made, rows))

    return rewritten(made, edit, resign=resign)


def raw(name: str, change: Callable[[bytes], bytes]) -> Forgery:
    """The bytes of one file, and nothing else."""

    def forge(made: Made) -> Files:
        return {**made.files, name: change(made.files[name])}

    return forge


def listed(name: str, change: Callable[[Made], bytes]) -> Forgery:
    """One file replaced, with its hash in the artefacts, signed by all."""

    def forge(made: Made) -> Files:
        return with_file(made, name, change(made), resign=True)

    return forge


def missing(name: str) -> Forgery:
    def forge(made: Made) -> Files:
        return {n: data for n, data in made.files.items() if n != name}

    return forge


def chained(made: Made, entries: list[bytes]) -> bytes:
    """A transcript of any entries' bytes, whether or not they can be read."""
    value: Any = wire.decode(made.files[TRANSCRIPT])
    value[2] = entries
    return wire.encode(value)


def beside(change: Callable[[list[bytes]], object]) -> Forgery:
    """Other messages beside the entries, which stay as they were signed."""

    def edit(data: bytes) -> bytes:
        value: Any = wire.decode(data)
        change(value[3])
        return wire.encode(value)

    return raw(TRANSCRIPT, edit)


def another_run(made: Made) -> Files:
    """All under another run id, chained and signed again; the plan stays."""
    log = rewritten(made, lambda rows: None, resign=True, run_id=bytes(16))
    return {**made.files, TRANSCRIPT: log}


def replanned(*changes: tuple[str, str]) -> Forgery:
    """The plan's text changed, endorsed by all and started from."""

    def forge(made: Made) -> Files:
        text = made.files[PLAN].decode()
        for old, new in changes:
            assert text.count(old) == 1, old
            text = text.replace(old, new)
        source = text.encode()
        plan_hash = wire.digest("secure-fl/plan/1", source)
        files = {**made.files, PLAN: source}

        def edit(rows: list[Row]) -> None:
            for kind, body, _ in rows:
                if kind == "start":
                    body[0] = plan_hash
                elif kind == "endorsement":
                    label = "secure-fl/plan/1 endorsement"
                    body[1] = made.signer(body[0]).sign(label, plan_hash, body[0])
                elif kind == "artefacts":
                    body[0] = rows_of(files)

        files[TRANSCRIPT] = rewritten(made, edit, resign=True)
        return files

    return forge


# -- ledgers ---------------------------------------------------------------------------


def ledger_of(client: str) -> str:
    return f"ledgers/{client}.cbor"


def entries_of(made: Made, client: str) -> tuple[Entry, ...]:
    public_key = made.identities[client].public_key
    data = made.files[ledger_of(client)]
    return read_export(data, public_key=public_key, client=client).entries


def _always(entry: Entry) -> bool:
    return True


@dataclass(frozen=True)
class Rewrite:
    """What differs in a client's ledger that is written anew."""

    keep: Callable[[Entry], bool] = _always
    lineage: str = ""
    event: Event | None = None
    round_index: int | None = None
    delta: float | None = None
    limit: float | None = None
    unit: str = "record"
    ctx: bytes = b""
    more: Callable[[Plan, Book], None] | None = None

    def of(self, made: Made, client: str) -> Book:
        book = Book(client, self.lineage or made.plan.lineage)
        new: dict[bytes, bytes] = {}
        for entry in entries_of(made, client):
            if not self.keep(entry):
                continue
            r = entry.reservation
            if r is not None:
                again = book.next_reserved(
                    run_id=r.run_id,
                    round_index=(
                        r.round_index if self.round_index is None else self.round_index
                    ),
                    attempt=r.attempt,
                    event=self.event or r.event,
                    unit=self.unit,
                    adjacency=r.adjacency,
                    delta=self.delta or r.delta,
                    limit=self.limit or r.limit,
                    now=entry.time,
                )
                new[entry.hash] = again.hash
                book.append(again)
                continue
            assert entry.kind != "reserved"
            ctx = self.ctx if self.ctx and entry.ctx else entry.ctx
            step = book.next_step(new[entry.of], entry.kind, ctx=ctx, now=entry.time)
            assert step is not None
            book.append(step)
        if self.more is not None:
            self.more(made.plan, book)
        return book


def rebooked(client: str, rewrite: Rewrite) -> Forgery:
    """The client's ledger written anew and signed by it; the files signed by all."""

    def change(made: Made) -> bytes:
        return export_bytes(rewrite.of(made, client), identity=made.identities[client])

    return listed(ledger_of(client), change)


def raw_ledger(
    client: str, change: Callable[[list[dict[int, Any]]], None], *, head: bytes = b""
) -> Forgery:
    """Entries changed beyond what a book allows, chained again and signed."""

    def forge(made: Made) -> bytes:
        lineage = made.plan.lineage
        values: list[Any] = [
            copy.deepcopy(wire.decode(e.data)) for e in entries_of(made, client)
        ]
        change(values)
        before = wire.digest("secure-fl/ledger/1 genesis", client, lineage)
        new: dict[bytes, bytes] = {}
        entries: list[wire.Value] = []
        for old, value in zip(entries_of(made, client), values, strict=False):
            value[1] = before
            value[4][0] = new.get(value[4].get(0, b""), value[4].get(0, b""))
            entries.append(wire.encode(value))
            before = wire.digest("secure-fl/ledger/1 entry", entries[-1])
            new[old.hash] = before
        last = head or before
        signature = made.identities[client].sign(
            "secure-fl/ledger/1 export", client, lineage, len(entries), last
        )
        return wire.encode(
            {
                0: "secure-fl/ledger/1",
                1: client,
                2: lineage,
                3: entries,
                4: last,
                5: signature,
            }
        )

    return listed(ledger_of(client), forge)


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()
