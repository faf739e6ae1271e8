# SPDX-License-Identifier: Apache-2.0
"""What a client keeps between two messages, and what it must never do twice.

A port with two implementations.  ``begin`` records a context before its first message
leaves, and refuses it for ever after: a restarted process cannot answer one context
twice.  A parked state goes in once and comes out once, in one transaction, so that it
is gone before anything derived from it is sent.

On disk the parked bytes are encrypted under a key in a file of its own, which must be
kept out of backups: a restored store then answers nothing.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from pathlib import Path
from typing import Protocol, final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .errors import EngineError, UsageError
from .files import create_once
from .randomness import RandomSource

__all__ = ["DiskKeystore", "Keystore", "MemoryKeystore"]


class Keystore(Protocol):
    """The port.  Every method is one durable transaction."""

    def begin(self, ctx: bytes) -> None:
        """Record that ``ctx`` was started.  Raises UsageError if it was before."""

    def park(self, ctx: bytes, state: bytes) -> None:
        """Keep a parked state.  Raises UsageError if one is kept for ``ctx``."""

    def take(self, ctx: bytes) -> bytes:
        """Take the parked state out, once.  Raises UsageError where there is none."""


def _begun() -> UsageError:
    return UsageError(
        "this context was started before",
        hint="a client answers a context once; start a new attempt",
    )


def _none() -> UsageError:
    return UsageError(
        "no state is parked for this context",
        hint="it was taken before, or lost: the client is a dropout of this attempt",
    )


def _twice() -> UsageError:
    return UsageError("a state is parked for this context already")


@final
class MemoryKeystore:
    """For parties that live in one process from start to end."""

    def __init__(self) -> None:
        self._begun: set[bytes] = set()
        self._parked: dict[bytes, bytes] = {}

    def begin(self, ctx: bytes) -> None:
        if ctx in self._begun:
            raise _begun()
        self._begun.add(ctx)

    def park(self, ctx: bytes, state: bytes) -> None:
        if ctx in self._parked:
            raise _twice()
        self._parked[ctx] = state

    def take(self, ctx: bytes) -> bytes:
        try:
            return self._parked.pop(ctx)
        except KeyError:
            raise _none() from None

    def __repr__(self) -> str:
        return "<MemoryKeystore>"


_SCHEMA = """
CREATE TABLE IF NOT EXISTS begun (ctx BLOB PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS parked (ctx BLOB PRIMARY KEY, state BLOB NOT NULL);
"""


@final
class DiskKeystore:
    """One SQLite file, and beside it (or elsewhere) the key of what is parked in it."""

    def __init__(self, path: Path, *, key_path: Path, random: RandomSource) -> None:
        """Open or create.  Raises EngineError where the disk does not let us."""
        self._random = random
        self._lock = threading.Lock()
        try:
            key = _key(key_path, random)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            self._db = sqlite3.connect(
                path, timeout=10, isolation_level=None, check_same_thread=False
            )
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=FULL")
            self._db.execute("PRAGMA secure_delete=ON")
            self._db.executescript(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise EngineError(f"cannot open the keystore {path}: {error}") from None
        self._box = AESGCM(key)

    def begin(self, ctx: bytes) -> None:
        try:
            self._run("INSERT INTO begun VALUES (?)", (ctx,))
        except sqlite3.IntegrityError:
            raise _begun() from None

    def park(self, ctx: bytes, state: bytes) -> None:
        nonce = self._random.bytes(12)
        sealed = nonce + self._box.encrypt(nonce, state, ctx)
        try:
            self._run("INSERT INTO parked VALUES (?, ?)", (ctx, sealed))
        except sqlite3.IntegrityError:
            raise _twice() from None

    def take(self, ctx: bytes) -> bytes:
        rows = self._run("DELETE FROM parked WHERE ctx = ? RETURNING state", (ctx,))
        if not rows:
            raise _none()
        sealed: bytes = rows[0][0]
        try:
            return self._box.decrypt(sealed[:12], sealed[12:], ctx)
        except InvalidTag:
            raise UsageError(
                "the parked state does not open under this key",
                hint="a keystore restored from a backup answers nothing; it is a "
                "dropout of this attempt",
            ) from None

    def close(self) -> None:
        with self._lock:
            self._db.close()

    def _run(self, sql: str, values: tuple[bytes, ...]) -> list[tuple[bytes, ...]]:
        with self._lock:
            try:
                # Without an explicit transaction each statement is one, and durable.
                return self._db.execute(sql, values).fetchall()
            except sqlite3.IntegrityError:
                raise
            except sqlite3.Error as error:
                raise EngineError(f"the keystore failed: {error}") from None

    def __repr__(self) -> str:
        return "<DiskKeystore>"


def _fill(path: Path, key: bytes) -> None:
    with open(path, "wb") as file:
        file.write(key)
        file.flush()
        os.fsync(file.fileno())


def _key(path: Path, random: RandomSource) -> bytes:
    """The key in ``path``, made whole at once where there is none."""
    if not path.exists():
        create_once(path, lambda new: _fill(new, random.bytes(32)))
    key = path.read_bytes()
    if len(key) != 32:
        raise UsageError(
            f"{path} is not a keystore's key",
            hint="delete the key file alone: parked states are then void, and what was "
            "begun stays begun",
        )
    return key
