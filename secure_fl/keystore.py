# SPDX-License-Identifier: Apache-2.0
"""What a client keeps between two messages, and what it must never do twice.

A port with two implementations.  ``begin`` records a context before its first message
leaves, and refuses it for ever after: a restarted process cannot answer one context
twice.  ``advance`` moves a parked state on: out, through a step, and what the step left
back in, as one transaction.  A process that dies before the commit has changed nothing,
and nothing has left; one that dies after it finds the new state.  Caller sends what a
step made only after ``advance`` has returned.

On disk the parked bytes are encrypted under a key in a file of its own, the *anchor*,
which must be kept out of backups.  It also counts the transactions: a database that
has seen fewer was restored from an older copy, and a store whose anchor is missing
cannot tell.  Either answers nothing any more, since it may have forgotten what was
begun and what was answered.  Both files put back together (a snapshot of the whole
machine) look like no restore at all: nothing here can tell.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, NoReturn, Protocol, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import EngineError, UsageError
from .files import create_once, sync_folder
from .randomness import RandomSource

__all__ = ["DiskKeystore", "Keystore", "MemoryKeystore"]

Step = Callable[[bytes], bytes | None]


class Keystore(Protocol):
    """The port.  Every method is one durable transaction.

    A step may use the keystore it runs in, but for the state it holds: that is then
    part of the same transaction.
    """

    def begin(self, ctx: bytes) -> None:
        """Record that ``ctx`` was started.  Raises UsageError if it was before."""

    def begun(self, ctx: bytes) -> bool:
        """Whether ``ctx`` was started before."""

    def park(self, key: bytes, state: bytes) -> None:
        """Keep a first state.  Raises UsageError if one is kept under ``key``."""

    def advance(self, key: bytes, step: Step) -> None:
        """Run ``step`` on the parked state; what it returns is parked in its place.

        None leaves nothing parked.  Spend first, check second: an Exception of the
        step passes on, and the state is gone.  (KeyboardInterrupt and its like are no
        Exception: they end the process, as a crash would.)  Raises UsageError where
        no state is parked.
        """


def _begun() -> UsageError:
    return UsageError(
        "this context was started before",
        hint="a client answers a context once; start a new attempt",
    )


def _none() -> UsageError:
    return UsageError(
        "no state is parked here",
        hint="it was spent before, or lost: the client is a dropout of this attempt",
    )


def _twice() -> UsageError:
    return UsageError("a state is parked here already")


@final
class MemoryKeystore:
    """For parties that live in one process from start to end."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._begun: set[bytes] = set()
        self._parked: dict[bytes, bytes] = {}

    def begin(self, ctx: bytes) -> None:
        with self._lock:
            if ctx in self._begun:
                raise _begun()
            self._begun.add(ctx)

    def begun(self, ctx: bytes) -> bool:
        with self._lock:
            return ctx in self._begun

    def park(self, key: bytes, state: bytes) -> None:
        with self._lock:
            if key in self._parked:
                raise _twice()
            self._parked[key] = state

    def advance(self, key: bytes, step: Step) -> None:
        with self._lock:
            if key not in self._parked:
                raise _none()
            # Out of the dictionary first: a step that comes back for it finds nothing.
            after = step(self._parked.pop(key))
            if after is not None:
                self._parked[key] = after

    def __repr__(self) -> str:
        return "<MemoryKeystore>"


_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS begun (ctx BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parked (key BLOB PRIMARY KEY, state BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS writes (id INTEGER PRIMARY KEY, count INTEGER NOT NULL);
"""
_KEY_BYTES: Final = 32
_PATIENCE_MS: Final = 10_000  # with other processes of this client
_COUNT_BYTES: Final = 8


@final
class DiskKeystore:
    """One SQLite file, and beside it (or elsewhere) its anchor: see above."""

    def __init__(self, path: Path, *, key_path: Path, random: RandomSource) -> None:
        """Open or create.

        Raises EngineError where the disk does not let us, and UsageError for a store
        that was restored.
        """
        self._random = random
        self._lock = threading.RLock()
        self._stepping: set[bytes] = set()
        self._open = False
        self._anchor = key_path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(
                path,
                timeout=_PATIENCE_MS / 1000,
                isolation_level=None,
                check_same_thread=False,
            )
            try:
                self._db.execute("PRAGMA journal_mode=WAL")
                self._db.execute("PRAGMA synchronous=FULL")
                self._db.execute("PRAGMA secure_delete=ON")
                self._db.executescript(_SCHEMA)
                if not self._count() and not key_path.exists():
                    _create(key_path, random.bytes(_KEY_BYTES))
                self._box = AESGCM(self._read_anchor()[0])
                self._settle()
            except BaseException:
                self._db.close()
                raise
        except (OSError, sqlite3.Error) as error:
            raise EngineError(f"cannot open the keystore {path}: {error}") from None

    def begin(self, ctx: bytes) -> None:
        with self._transaction():
            if not self._run("INSERT OR IGNORE INTO begun VALUES (?)", ctx).rowcount:
                raise _begun()

    def begun(self, ctx: bytes) -> bool:
        with self._transaction():
            sql = "SELECT 1 FROM begun WHERE ctx = ?"
            return self._run(sql, ctx).fetchone() is not None

    def park(self, key: bytes, state: bytes) -> None:
        with self._transaction():
            sql = "INSERT OR IGNORE INTO parked VALUES (?, ?)"
            if not self._run(sql, key, self._seal(key, state)).rowcount:
                raise _twice()

    def advance(self, key: bytes, step: Step) -> None:
        failure: Exception | None = None
        with self._transaction():
            row = self._run("SELECT state FROM parked WHERE key = ?", key).fetchone()
            if row is None or key in self._stepping:
                raise _none()
            self._stepping.add(key)
            before, after = b"", None
            try:
                before = self._unseal(key, row[0])
                after = step(before)
            except Exception as error:  # whatever it is: the state is spent
                failure = error
            finally:
                self._stepping.remove(key)
            if after is None:
                self._run("DELETE FROM parked WHERE key = ?", key)
            elif after != before:
                sql = "UPDATE parked SET state = ? WHERE key = ?"
                self._run(sql, self._seal(key, after), key)
        if failure is not None:
            raise failure

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _seal(self, key: bytes, state: bytes) -> bytes:
        nonce = self._random.bytes(12)
        return nonce + self._box.encrypt(nonce, state, key)

    def _unseal(self, key: bytes, sealed: bytes) -> bytes:
        try:
            return self._box.decrypt(sealed[:12], sealed[12:], key)
        except (InvalidTag, ValueError):
            raise UsageError(
                "the parked state does not open under this key",
                hint="the store was damaged; the client is a dropout of this attempt",
            ) from None

    # -- transactions --------------------------------------------------------------

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All of the block, durable when it is left, or nothing of it.

        Within a step's transaction: a part of that one.
        """
        with self._lock:
            if self._open:
                yield
                return
            try:
                self._db.execute("BEGIN IMMEDIATE")
                self._open = True
                try:
                    count = self._check()
                    changes = self._db.total_changes
                    yield
                    if self._db.total_changes == changes:
                        return
                    sql = "INSERT OR REPLACE INTO writes VALUES (0, ?)"
                    self._run(sql, count + 1)
                    self._db.execute("COMMIT")
                finally:
                    self._open = False
                    if self._db.in_transaction:
                        self._db.execute("ROLLBACK")
                self._settle()
            except (OSError, sqlite3.Error) as error:
                raise EngineError(f"the keystore failed: {error}") from None

    def _run(self, sql: str, *values: bytes | int) -> sqlite3.Cursor:
        # SQLite itself rolls back where the disk is full; no half goes in after that.
        if not self._db.in_transaction:
            raise EngineError("the keystore failed: its transaction was lost")
        try:
            return self._db.execute(sql, values)
        except sqlite3.Error as error:
            raise EngineError(f"the keystore failed: {error}") from None

    # -- the anchor ----------------------------------------------------------------

    def _settle(self) -> None:
        """Bring the anchor up to the database, under the database's lock.

        So it only ever grows, however many processes there are; and it is behind by
        at most one, after a crash before anything of that transaction had left.  Then
        cut off the write-ahead log, if nobody else is in it.
        """
        self._db.execute("BEGIN IMMEDIATE")
        try:
            self._check()
        finally:
            self._db.execute("ROLLBACK")
        # What was spent is overwritten in the database, and not in that log.  Beside
        # others, or on a full disk, the next one cuts it.
        self._db.execute("PRAGMA busy_timeout=0")
        try:
            with contextlib.suppress(sqlite3.OperationalError):
                self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
        finally:
            self._db.execute(f"PRAGMA busy_timeout={_PATIENCE_MS}")

    def _check(self) -> int:
        """The transactions so far.  Raises UsageError in a store that was restored."""
        key, anchored = self._read_anchor()
        count = self._count()
        if count < anchored:
            _refuse("is older than its anchor: it was restored from a copy")
        if count > anchored + 1:
            _refuse("is newer than its anchor: that was restored from a copy")
        if count == anchored + 1:
            _replace(self._anchor, key + count.to_bytes(_COUNT_BYTES, "big"))
        return count

    def _count(self) -> int:
        row: tuple[int] | None = self._db.execute("SELECT count FROM writes").fetchone()
        return row[0] if row else 0

    def _read_anchor(self) -> tuple[bytes, int]:
        try:
            data = self._anchor.read_bytes()
        except FileNotFoundError:
            _refuse("has lost its anchor, the key file")
        if len(data) != _KEY_BYTES + _COUNT_BYTES:
            _refuse(f"has no anchor: {self._anchor} is not a keystore's key file")
        return data[:_KEY_BYTES], int.from_bytes(data[_KEY_BYTES:], "big")

    def __repr__(self) -> str:
        return "<DiskKeystore>"


def _refuse(why: str) -> NoReturn:
    raise UsageError(
        f"the keystore {why}",
        hint="it answers nothing any more: join a new run with a new keystore",
    )


def _create(path: Path, key: bytes) -> None:
    """A first anchor, whole at once; or another process has made one."""
    create_once(path, lambda new: _write(new, key + bytes(_COUNT_BYTES)))


def _replace(path: Path, data: bytes) -> None:
    """Write beside, sync, rename: one of both is there, whole, whatever crashes.

    Caller holds the database's lock, so that the name beside it is ours alone.
    """
    beside = path.with_name(f"{path.name}.new")
    _write(beside, data)
    os.replace(beside, path)
    sync_folder(path.parent)


def _write(path: Path, data: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
