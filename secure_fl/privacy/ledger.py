# SPDX-License-Identifier: Apache-2.0
"""The write-ahead ledger: what a data set's releases cost, written before the noise.

One SQLite file per client, one hash chain per *lineage* (the name of a data set across
its versions, runs and years).  A release is RESERVED, durably, before any randomness is
drawn for it; then SENT, once, before its first byte leaves; then RELEASED, or OMITTED
where a signed statement shows that its context can never be opened, or ABORTED where it
never left.  What is not proven unsent is charged: a reservation that a crash left open
stays charged for ever.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, final

from ..errors import (
    BudgetExceeded,
    EngineError,
    UsageError,
    VerificationError,
)
from ..files import create_once
from ..identity import Identity
from .accounting import Epsilon, epsilon
from .book import Book, Entry, Release, Reservation, Step, export_bytes
from .events import Event, seen

__all__ = ["Ledger"]

_APPLICATION_ID: Final = 0x53464C31  # "SFL1", as file(1) shows it
_VERSION: Final = 1
# How long to wait for another process: it may be computing an epsilon meanwhile.
_BUSY_SECONDS: Final = 60.0
_DAMAGED: Final = (
    "the ledger was changed, damaged, or written by a newer secure-fl: keep the file, "
    "and treat the data set's budget as spent until its accounting is restored"
)
_SCHEMA: Final = f"""
PRAGMA journal_mode = WAL;
BEGIN;
CREATE TABLE owner (client TEXT NOT NULL);
CREATE TABLE entries (
    lineage TEXT NOT NULL, sequence INTEGER NOT NULL, body BLOB NOT NULL,
    PRIMARY KEY (lineage, sequence)
) WITHOUT ROWID;
CREATE TRIGGER no_update BEFORE UPDATE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
CREATE TRIGGER no_delete BEFORE DELETE ON entries
    BEGIN SELECT RAISE(ABORT, 'the ledger only grows'); END;
PRAGMA application_id = {_APPLICATION_ID};
PRAGMA user_version = {_VERSION};
COMMIT;
"""

# All that a ledger's file may hold: a stranger's view would run while it is read.
_TABLES: Final = {("table", "owner"), ("table", "entries")}
_OBJECTS: Final = _TABLES | {("trigger", "no_update"), ("trigger", "no_delete")}


@final
class Ledger:
    """A client's live ledger.  Safe with several threads and processes at once.

    Every method that writes is one transaction, fsynced before it returns.  Raises
    EngineError where the disk fails, VerificationError where the file was tampered
    with, and UsageError for a step the rules do not allow.
    """

    def __init__(self, path: Path, *, client: str) -> None:
        """Open or create ``path``, mode 0600, for the releases of ``client``.

        Raises UsageError for another client's ledger, and for one that a newer
        version of secure-fl has written; then nothing was changed.
        """
        self.client = client
        self._path = path
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._books: dict[str, Book] = {}
        with self._guarded():
            if not path.exists():
                create_once(path, lambda new: _create(new, client))
            self._db, owner = _connect(path)
        if owner != client:
            self._db.close()
            raise UsageError(
                f"{path} is not the ledger of {client}",
                hint="give every client its own home",
            )

    @classmethod
    def existing(cls, path: Path) -> Ledger:
        """The ledger that lies at ``path``, whoever's it is.  Never makes one.

        Raises UsageError where there is none.
        """
        if not path.is_file():
            raise UsageError(
                f"there is no ledger at {path}",
                hint="give the --home that the runs were given",
            )
        with _as_ours(path):
            db, owner = _connect(path)
            db.close()
        return cls(path, client=owner)

    def close(self) -> None:
        with self._lock:
            self._db.close()

    # -- what is asked before and after a release ------------------------------------

    def check(
        self,
        lineage: str,
        events: Sequence[Event],
        *,
        delta: float,
        limit: float,
        view: int | None = None,
    ) -> None:
        """Raises BudgetExceeded if ``events`` would overspend.  Writes nothing.

        ``view`` as in :meth:`reserve`.
        """
        with self._reading(lineage) as book:
            self._within(book, events, delta=delta, limit=limit, view=view)

    def reserve(
        self,
        lineage: str,
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
        view: int | None = None,
        consent: Callable[[Book, Event, int], None] | None = None,
    ) -> Reservation:
        """Charge ``event``.  Caller draws randomness for it only after this returns.

        unit, adjacency
            what one neighbour is; the same for the whole lineage
        delta, limit
            epsilon of everything charged in the lineage, this included, stays at most
            ``limit`` at ``delta``
        view
            for how many clients that collude the limit is meant, None: for everybody
            else; a sum of an earlier run counts as :func:`.events.seen` says
        now
            seconds since 1970
        consent
            asked last, with the lineage's chain as it stands before this charge, the
            event and ``now``, while no other process can write; it only reads, and
            raises to refuse

        Raises BudgetExceeded, and what ``consent`` raises; then nothing is charged and
        nothing may be drawn.
        Raises UsageError for a second reservation of one attempt.
        """
        if not 0 < delta < 1 or not limit > 0:
            raise UsageError(
                "delta lies between 0 and 1, and a limit above 0",
                hint="choose a delta well below one over the number of records",
            )
        with self._writing(lineage) as book:
            entry = book.next_reserved(
                run_id=run_id,
                round_index=round_index,
                attempt=attempt,
                event=event,
                unit=unit,
                adjacency=adjacency,
                delta=delta,
                limit=limit,
                now=now,
            )
            self._within(book, [event], delta=delta, limit=limit, view=view)
            if consent is not None:
                consent(book, event, now)
            self._append(book, entry)
        reservation = entry.reservation
        assert reservation is not None
        return reservation

    def sent(self, reservation: Reservation, *, ctx: bytes, now: int) -> None:
        """The release is about to leave in context ``ctx`` (32 bytes).

        Caller sends nothing before this returns, and only one payload per context; the
        same context again is the same bytes again, and free.
        """
        self._step(reservation, "sent", ctx, now)

    def omitted(self, reservation: Reservation, *, ctx: bytes, now: int) -> None:
        """A signed statement shows that ``ctx`` can never open the release."""
        self._step(reservation, "omitted", ctx, now)

    def released(self, reservation: Reservation, *, now: int) -> None:
        """The sum that holds the release was opened."""
        self._step(reservation, "released", b"", now)

    def opened(self, lineage: str, *, ctx: bytes, now: int) -> None:
        """After a crash: the sum of ``ctx`` was opened.  Noted, unless it was."""
        with self._writing(lineage) as book:
            for r in book.releases():
                if r.state == "sent" and r.contexts[-1] == ctx:
                    entry = book.next_step(r.entry_hash, "released", ctx=b"", now=now)
                    if entry is not None:
                        self._append(book, entry)

    def aborted(self, reservation: Reservation, *, now: int) -> None:
        """Take the charge back.  Caller knows that nothing of the release ever left."""
        self._step(reservation, "aborted", b"", now)

    def _step(self, reservation: Reservation, kind: Step, ctx: bytes, now: int) -> None:
        with self._writing(reservation.lineage) as book:
            entry = book.next_step(reservation.entry_hash, kind, ctx=ctx, now=now)
            if entry is not None:
                self._append(book, entry)

    # -- what is in it -----------------------------------------------------------------

    def lineages(self) -> list[str]:
        """The names of all data sets that were ever charged."""
        with self._lock, self._guarded():
            rows = self._db.execute("SELECT DISTINCT lineage FROM entries").fetchall()
        names = [row[0] for row in rows if isinstance(row[0], str)]
        if len(names) != len(rows):
            raise VerificationError(
                "names a data set by what is not text",
                file=str(self._path),
                hint=_DAMAGED,
            )
        return sorted(names)

    def entries(self, lineage: str) -> list[Entry]:
        with self._reading(lineage) as book:
            return list(book.entries)

    def releases(self, lineage: str) -> list[Release]:
        with self._reading(lineage) as book:
            return book.releases()

    def charged(self, lineage: str) -> list[Event]:
        """The events of all reservations that were not aborted, as they stand."""
        with self._reading(lineage) as book:
            return book.charged()

    def spent(self, lineage: str, *, delta: float, view: int | None = None) -> Epsilon:
        """Epsilon of all that was charged, in a ``view`` as in :meth:`reserve`."""
        charged = [seen(event, view) for event in self.charged(lineage)]
        return epsilon(charged, delta=delta)

    def export(self, lineage: str, *, identity: Identity) -> bytes:
        """The lineage's whole chain, signed: read with ``read_export``.

        Re-reads and re-checks every entry from the disk.
        """
        return export_bytes(self.book(lineage), identity=identity)

    def book(self, lineage: str) -> Book:
        """A copy of the lineage's chain, re-read and re-checked from the disk."""
        with self._lock, self._guarded():
            self._books.pop(lineage, None)
            self._current(lineage)
            return self._books.pop(lineage)

    # -- within --------------------------------------------------------------------

    def _within(
        self,
        book: Book,
        events: Sequence[Event],
        *,
        delta: float,
        limit: float,
        view: int | None,
    ) -> None:
        if limit == float("inf"):
            return
        charged = [seen(event, view) for event in book.charged()]
        asked = [seen(event, view) for event in events]
        projected = epsilon([*charged, *asked], delta=delta).value
        if projected > limit:
            raise BudgetExceeded(
                self.client,
                spent=epsilon(charged, delta=delta).value,
                projected=projected,
                limit=limit,
                delta=delta,
                releases=len(events),
                hint=f"the data set {book.lineage!r} has a lifetime budget: raise the "
                "plan's epsilon, plan fewer releases, or stop here",
            )

    def _append(self, book: Book, entry: Entry) -> None:
        self._db.execute(
            "INSERT INTO entries VALUES (?, ?, ?)",
            (book.lineage, entry.sequence, entry.data),
        )
        book.append(entry)

    @contextlib.contextmanager
    def _writing(self, lineage: str) -> Iterator[Book]:
        """One transaction.  The cached book is dropped if it does not commit."""
        with self._lock, self._guarded():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._current(lineage)
                self._db.execute("COMMIT")
            except BaseException:
                self._books.pop(lineage, None)
                # A full disk has rolled back already.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    @contextlib.contextmanager
    def _reading(self, lineage: str) -> Iterator[Book]:
        with self._lock, self._guarded():
            yield self._current(lineage)

    def _current(self, lineage: str) -> Book:
        """The book, with what another process has appended meanwhile."""
        book = self._books.get(lineage)
        if book is None:
            book = self._books[lineage] = Book(self.client, lineage)
        known = len(book.entries)
        rows = self._db.execute(
            "SELECT body FROM entries WHERE lineage = ? AND sequence >= ? "
            "ORDER BY sequence",
            (lineage, max(known - 1, 0)),
        ).fetchall()
        bodies = [row[0] if isinstance(row[0], bytes) else b"" for row in rows]
        try:
            # The last entry we know is looked at again: nobody rewrote the end.
            if known and (not bodies or bodies.pop(0) != book.entries[-1].data):
                raise VerificationError(f"entry {known - 1} was changed")
            for body in bodies:
                book.read(body)
        except VerificationError as error:
            self._books.pop(lineage, None)
            raise VerificationError(
                str(error),
                file=str(self._path),
                hint=_DAMAGED,
            ) from None
        return book

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """In the process that opened it; foreign errors as ours."""
        if os.getpid() != self._pid:
            raise UsageError(
                "a ledger does not survive a fork",
                hint="open it in the process that uses it",
            )
        with _as_ours(self._path):
            yield

    def __repr__(self) -> str:
        return f"<Ledger {self.client} {self._path.name}>"


@contextlib.contextmanager
def _as_ours(path: Path) -> Iterator[None]:
    """Foreign errors as ours."""
    try:
        yield
    except (sqlite3.OperationalError, sqlite3.ProgrammingError) as error:
        raise EngineError(
            f"the ledger {path} failed: {error}",
            hint="check the disk, the folder, and whether another process holds it",
        ) from None
    except sqlite3.Error as error:
        raise VerificationError(str(error), file=str(path), hint=_DAMAGED) from None
    except OSError as error:
        raise EngineError(f"{path}: {error.strerror}") from None


def _connect(path: Path) -> tuple[sqlite3.Connection, str]:
    """A connection to the ledger that is at ``path``, and its owner.

    Changes nothing unless it is a ledger of this version.
    """
    db = sqlite3.connect(
        path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
    )
    try:
        application, version = (
            db.execute(f"PRAGMA {name}").fetchone()[0]
            for name in ("application_id", "user_version")
        )
        if application != _APPLICATION_ID:
            raise VerificationError("is not a ledger", file=str(path), hint=_DAMAGED)
        db.execute("PRAGMA trusted_schema = OFF")
        if version == _VERSION:
            found = set(db.execute("SELECT type, name FROM sqlite_master"))
            if not _TABLES <= found <= _OBJECTS:
                raise VerificationError(
                    "is not built as a ledger is", file=str(path), hint=_DAMAGED
                )
        else:
            raise UsageError(
                f"{path} is of version {version}, not {_VERSION}",
                hint="use the version of secure-fl that wrote it, or a newer one",
            )
        for name in (path, f"{path}-wal", f"{path}-shm"):
            with contextlib.suppress(FileNotFoundError):
                os.chmod(name, 0o600)
        # FULL syncs every commit only with a write-ahead log: a rollback journal whose
        # removal is not on the disk yet would undo the last entry.
        (mode,) = db.execute("PRAGMA journal_mode = WAL").fetchone()
        if mode != "wal":
            raise EngineError(
                f"the ledger {path} has no write-ahead log on this disk",
                hint="put the home on a local disk",
            )
        db.execute("PRAGMA synchronous = FULL")
        owners = db.execute("SELECT client FROM owner").fetchall()
        if len(owners) != 1:
            raise VerificationError(
                f"has {len(owners)} owners", file=str(path), hint=_DAMAGED
            )
    except BaseException:
        db.close()
        raise
    return db, str(owners[0][0])


def _create(path: Path, client: str) -> None:
    """Fill a new file with a whole, empty ledger."""
    db = sqlite3.connect(path, isolation_level=None)
    try:
        db.executescript(_SCHEMA)
        db.execute("INSERT INTO owner VALUES (?)", (client,))
    finally:
        db.close()
