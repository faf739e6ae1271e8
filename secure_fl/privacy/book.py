# SPDX-License-Identifier: Apache-2.0
"""One lineage's chain of entries: its rules, its bytes, and its signed export.

The same code checks a live ledger and an auditor's copy.  An entry is a CBOR map
``{0: sequence, 1: hash before it, 2: kind, 3: time, 4: body}``; its hash covers these
bytes, and the first entry follows a hash of the client's and the lineage's names.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, final

from .. import wire
from ..errors import ProtocolError, SecureFLError, UsageError, VerificationError
from ..identity import Identity
from .events import Event, float_from_text, float_to_text, from_wire, to_wire

__all__ = [
    "SPEC",
    "Book",
    "Entry",
    "LedgerExport",
    "Release",
    "Reservation",
    "read_export",
]

SPEC: Final = "secure-fl/ledger/1"
_EXPORT: Final = f"{SPEC} export"
_MOST_CONTEXTS: Final = 1000  # attempts that a round can have

Step = Literal["sent", "omitted", "released", "aborted"]
State = Literal["reserved"] | Step
# From which state a step may be taken.  A release that was sent is never aborted.
_FROM: Final[dict[Step, tuple[State, ...]]] = {
    "sent": ("reserved", "omitted"),
    "omitted": ("sent",),
    "released": ("sent",),
    "aborted": ("reserved",),
}


@final
@dataclass(frozen=True, slots=True)
class Reservation:
    """A charge, durable in the ledger; a signed update names its ``entry_hash``."""

    entry_hash: bytes
    lineage: str
    run_id: bytes
    round_index: int
    attempt: int
    event: Event
    unit: str
    adjacency: str
    delta: float
    limit: float


@final
@dataclass(frozen=True, slots=True)
class Release:
    """A reservation and what became of it; ``contexts`` are all it was sent in."""

    entry_hash: bytes
    run_id: bytes
    round_index: int
    attempt: int
    event: Event
    state: State
    contexts: tuple[bytes, ...]

    @property
    def charged(self) -> bool:
        """Whatever was not proven unsent is."""
        return self.state != "aborted"


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: a reservation, or a step of the one with hash ``of``."""

    sequence: int
    kind: State
    time: int
    data: bytes
    before: bytes
    hash: bytes
    reservation: Reservation | None
    of: bytes
    ctx: bytes


_STATES: Final[dict[str, State]] = {
    "reserved": "reserved",
    "sent": "sent",
    "omitted": "omitted",
    "released": "released",
    "aborted": "aborted",
}


def _state(text: str) -> State:
    if text not in _STATES:
        raise ProtocolError("an entry of an unknown kind")
    return _STATES[text]


def _hash(data: bytes) -> bytes:
    return wire.digest(f"{SPEC} entry", data)


@final
class Book:
    """A chain in memory, and the state of every reservation in it."""

    def __init__(self, client: str, lineage: str) -> None:
        self.client = client
        self.lineage = lineage
        self.entries: list[Entry] = []
        self._reserved: dict[bytes, Reservation] = {}
        self._states: dict[bytes, tuple[State, tuple[bytes, ...]]] = {}
        self._attempts: set[tuple[bytes, int, int]] = set()

    @property
    def head(self) -> bytes:
        if self.entries:
            return self.entries[-1].hash
        return wire.digest(f"{SPEC} genesis", self.client, self.lineage)

    def releases(self) -> list[Release]:
        """All reservations in order, each with the state it is in."""
        out = []
        for key, r in self._reserved.items():
            state, contexts = self._states[key]
            out.append(
                Release(
                    key, r.run_id, r.round_index, r.attempt, r.event, state, contexts
                )
            )
        return out

    def charged(self) -> list[Event]:
        """The events of every release that was not aborted, in order."""
        return [r.event for r in self.releases() if r.charged]

    # -- what comes next -------------------------------------------------------------

    def next_reserved(
        self,
        *,
        run_id: bytes,
        round_index: int,
        attempt: int,
        event: Event,
        unit: str,
        adjacency: str,
        delta: float,
        limit: float,
        now: int,
    ) -> Entry:
        """The entry that would reserve ``event``.  Raises UsageError if it exists."""
        try:
            self._same_terms(unit, adjacency)
        except ProtocolError as error:
            raise UsageError(
                str(error), hint="give a plan of another unit a lineage of its own"
            ) from None
        if (run_id, round_index, attempt) in self._attempts:
            raise UsageError(
                "this attempt has its reservation already",
                hint="one attempt makes one release; start a new attempt",
            )
        return self._make(
            "reserved",
            now,
            {
                0: run_id,
                1: round_index,
                2: attempt,
                3: to_wire(event),
                4: float_to_text(delta),
                # CBOR here has no floats, and no limit is the text "inf".
                5: "inf" if limit == float("inf") else float_to_text(limit),
                6: unit,
                7: adjacency,
            },
        )

    def next_step(self, of: bytes, kind: Step, *, ctx: bytes, now: int) -> Entry | None:
        """The entry that would take the step; None where it is taken already.

        Raises UsageError where the rules do not allow it.
        """
        if of not in self._states:
            raise UsageError("the ledger holds no such reservation")
        state, contexts = self._states[of]
        if state == kind and (not ctx or ctx == contexts[-1]):
            return None
        try:
            self._allowed(of, kind, ctx)
        except ProtocolError as error:
            raise UsageError(str(error)) from None
        return self._make(kind, now, {0: of, 1: ctx})

    def _allowed(self, of: bytes, kind: Step, ctx: bytes) -> None:
        if of not in self._states:
            raise ProtocolError("a step of a reservation that is not there")
        state, contexts = self._states[of]
        if state not in _FROM[kind]:
            raise ProtocolError(f"a release that is {state} cannot become {kind}")
        if kind == "omitted" and ctx != contexts[-1]:
            raise ProtocolError("omitted in another context than it was sent in")
        if kind == "sent" and len(contexts) == _MOST_CONTEXTS:
            raise ProtocolError("sent more often than a round has attempts")
        if kind == "sent" and ctx in contexts:
            raise ProtocolError("sent again in a context that omitted it")
        if len(ctx) != (32 if kind in ("sent", "omitted") else 0):
            raise ProtocolError("a step with a wrong context")

    def _same_terms(self, unit: str, adjacency: str) -> None:
        """All entries count the same thing: only then do their costs add up."""
        if not self._reserved:
            return
        first = next(iter(self._reserved.values()))
        if (first.unit, first.adjacency) != (unit, adjacency):
            raise ProtocolError(
                f"the lineage {self.lineage!r} is charged by {first.unit}, "
                f"{first.adjacency}"
            )

    def _make(self, kind: str, now: int, body: dict[int, wire.Value]) -> Entry:
        data = wire.encode(
            {0: len(self.entries), 1: self.head, 2: kind, 3: now, 4: body}
        )
        return self._parse(data)

    # -- reading ---------------------------------------------------------------------

    def read(self, data: bytes) -> Entry:
        """Check and append one entry's bytes.  Raises VerificationError."""
        try:
            entry = self._parse(data)
            r = entry.reservation
            if entry.kind != "reserved":
                self._allowed(entry.of, entry.kind, entry.ctx)
            elif r is not None:
                if self._key(r) in self._attempts:
                    raise ProtocolError("a second reservation of one attempt")
                self._same_terms(r.unit, r.adjacency)
        except SecureFLError as error:
            raise VerificationError(
                f"entry {len(self.entries)} of {self.lineage!r}: {error}"
            ) from None
        self.append(entry)
        return entry

    def append(self, entry: Entry) -> None:
        """Add an entry that :meth:`next_reserved` or :meth:`next_step` made."""
        self.entries.append(entry)
        if entry.reservation is not None:
            self._reserved[entry.hash] = entry.reservation
            self._states[entry.hash] = ("reserved", ())
            self._attempts.add(self._key(entry.reservation))
        else:
            contexts = self._states[entry.of][1]
            if entry.kind == "sent":
                contexts = (*contexts, entry.ctx)
            self._states[entry.of] = (entry.kind, contexts)

    @staticmethod
    def _key(r: Reservation | None) -> tuple[bytes, int, int]:
        assert r is not None
        return r.run_id, r.round_index, r.attempt

    def _parse(self, data: bytes) -> Entry:
        fields = wire.Fields(wire.decode(data))
        sequence = fields.integer(0)
        if sequence != len(self.entries):
            raise ProtocolError("an entry is missing or out of order")
        before = fields.bytes_(1, size=wire.HASH_BYTES)
        if before != self.head:
            raise ProtocolError("it does not follow the entry before it")
        kind = _state(fields.text(2))
        time = fields.integer(3)
        body = fields.fields(4)
        fields.end()
        hash_ = _hash(data)
        reservation, of, ctx = None, b"", b""
        if kind == "reserved":
            reservation = self._parse_reserved(body, hash_)
        else:
            of, ctx = body.bytes_(0, size=wire.HASH_BYTES), body.bytes_(1)
        body.end()
        return Entry(sequence, kind, time, data, before, hash_, reservation, of, ctx)

    def _parse_reserved(self, body: wire.Fields, hash_: bytes) -> Reservation:
        run_id = body.bytes_(0, size=16)
        round_index, attempt = body.integer(1), body.integer(2)
        event = from_wire(body.value(3))
        delta = float_from_text(body.text(4))
        limit = body.text(5)
        return Reservation(
            hash_,
            self.lineage,
            run_id,
            round_index,
            attempt,
            event,
            body.text(6),
            body.text(7),
            delta,
            float("inf") if limit == "inf" else float_from_text(limit),
        )


# -- export ------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class LedgerExport:
    """A checked copy of one client's chain: see :func:`read_export`."""

    client: str
    lineage: str
    entries: tuple[Entry, ...]
    head: bytes
    book: Book

    def charged(self) -> list[Event]:
        """Everything the lineage was charged, over all runs."""
        return self.book.charged()

    def releases(self) -> list[Release]:
        """Every release of the lineage, over all runs, in order."""
        return self.book.releases()


def export_bytes(book: Book, *, identity: Identity) -> bytes:
    """Deterministic CBOR: the chain, its head, and the client's signature over it."""
    head = book.head
    signature = identity.sign(
        _EXPORT, book.client, book.lineage, len(book.entries), head
    )
    return wire.encode(
        {
            0: SPEC,
            1: book.client,
            2: book.lineage,
            3: [e.data for e in book.entries],
            4: head,
            5: signature,
        }
    )


def read_export(data: bytes, *, public_key: bytes, client: str) -> LedgerExport:
    """Read an export and check all of it: signature, chain, and every rule.

    Raises VerificationError, and nothing else, whatever the bytes are.
    """
    try:
        fields = wire.Fields(wire.decode(data))
        if fields.text(0) != SPEC:
            raise ProtocolError(f"not a ledger of {SPEC}")
        if fields.text(1) != client:
            raise ProtocolError(f"not the ledger of {client}")
        lineage = fields.text(2)
        items = fields.array(3)
        head = fields.bytes_(4, size=wire.HASH_BYTES)
        signature = fields.bytes_(5, size=wire.SIGNATURE_BYTES)
        fields.end()
        book = Book(client, lineage)
        for item in items:
            if not isinstance(item, bytes):
                raise ProtocolError("an entry is not a byte string")
            book.read(item)
        if book.head != head:
            raise ProtocolError("its head is not that of its entries")
        if not wire.verify(
            public_key, signature, _EXPORT, client, lineage, len(items), head
        ):
            raise ProtocolError(f"its signature is not {client}'s")
    except SecureFLError as error:
        raise VerificationError(error.message) from None
    return LedgerExport(client, lineage, tuple(book.entries), head, book)
