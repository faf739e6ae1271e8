# SPDX-License-Identifier: Apache-2.0
"""One process per message: a parent that has everything imported forks a client for
each call, which opens its ledger and keystore, answers, and ends.

On the way the child counts its durable writes and the pieces it hands over, before and
after each, and ends itself by SIGKILL at the one it is told to.  What it had done by
then stands in memory that it shares with the parent.
"""

from __future__ import annotations

import mmap
import os
import pickle
import resource
import signal
import sqlite3
import struct
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

from secure_fl.errors import SecureFLError
from secure_fl.identity import Identity
from secure_fl.keystore import DiskKeystore
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.privacy import Ledger, epsilon, private_update
from secure_fl.randomness import SystemRandom
from secure_fl.round import ParkedParticipant
from secure_fl.transcript import Transcript

NOW = 1_700_000_000
DONE, REFUSED, BROKEN = 0, 3, 99
_HEAD = struct.Struct("<cI")


@dataclass(frozen=True)
class Call:
    """One message to a client, and what is to befall the process that gets it.

    ``method`` and ``arguments`` as in the participant; ``vector`` is what a trainer
    would return, should an update be needed.  ``kill_at``: the write, from 1 on, at
    which it is killed, or a kind of write and which of that kind.  ``full_at``: the
    size in bytes beyond which no file grows.  ``user``: the one it runs as.
    """

    folder: Path
    name: str
    method: str
    arguments: tuple[Any, ...] = ()
    vector: Any = None
    kill_at: int | tuple[str, int] = 0
    full_at: int | None = None
    user: int | None = None


class Record:
    """What a child has done, in memory that outlives it."""

    def __init__(self) -> None:
        self._memory = mmap.mmap(-1, 1 << 20)
        self._at = 0
        self.counts: Counter[str] = Counter()
        self.kill_at: int | tuple[str, int] = 0

    def write(self, line: str) -> None:
        data = line.encode() + b"\n"
        self._memory[self._at : self._at + len(data)] = data
        self._at += len(data)

    def tick(self, line: str) -> None:
        self.write(line)
        self.counts[line] += 1
        if self.kill_at in (self.counts.total(), (line, self.counts[line])):
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, what: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.tick(f"before {what}")
            result = call(*args, **kwargs)
            self.tick(f"after {what}")
            return result

        return wrapped

    def lines(self) -> list[str]:
        return self._memory[:].rstrip(b"\0").decode().splitlines()

    def install(self) -> None:
        """Tick at whatever makes something durable, in this process."""
        record = self

        class Counting(sqlite3.Connection):
            where = ""

            def execute(self, sql: str, *args: Any) -> sqlite3.Cursor:
                if sql != "COMMIT":
                    return super().execute(sql, *args)
                commit = record.around(f"commit {self.where}", super().execute)
                cursor: sqlite3.Cursor = commit(sql)
                return cursor

        connect = sqlite3.connect

        def counted(path: Path, **kwargs: Any) -> sqlite3.Connection:
            db: Counting = connect(path, factory=Counting, **kwargs)
            db.where = Path(path).name
            return db

        sqlite3.connect = counted  # type: ignore[assignment]
        for name in ("fsync", "replace", "link"):
            setattr(os, name, self.around(name, getattr(os, name)))


def _answer(call: Call) -> Iterable[bytes]:
    """The client, opened as a restarted process opens it, and what it says."""
    if call.user is not None:
        os.setuid(call.user)
    plan = Plan((call.folder / "plan.toml").read_bytes())
    home = call.folder / call.name
    client = ParkedParticipant(
        plan,
        Identity.load(home / "key.pem", name=call.name),
        ledger=Ledger(home / "ledger", client=call.name),
        keystore=DiskKeystore(
            home / "store", key_path=home / "store.key", random=SystemRandom()
        ),
        random=SystemRandom(),
        now=lambda: NOW,
    )
    match call.method, call.arguments:
        case "join", (head,):
            client.join(log_head=head)
        case "open", (round_index, attempt, model):
            return client.open(round_index, attempt, GlobalModel.from_bytes(model))
        case "handle", (message,):
            if call.vector is not None and client.needs_update:
                client.offer(private_update(call.vector, client.reserve()))
            return client.handle(message)
        case "release", (statement, signatures):
            client.release(statement, signatures)
        case "conclude", (opened,):
            client.conclude(opened=opened)
        case "countersign", (log, sequence):
            entries = Transcript.from_bytes(log).entries
            return [client.countersign(entries, entries[sequence])]
        case "needs_update", ():
            return [b"yes" if client.needs_update else b"no"]
        case _:
            raise AssertionError(call.method)
    return []


class Fate(Protocol):
    """What is to befall the process of one message; see :class:`Call`."""

    @property
    def folder(self) -> Path: ...

    @property
    def kill_at(self) -> int | tuple[str, int]: ...

    @property
    def full_at(self) -> int | None: ...


_F = TypeVar("_F", bound=Fate)


def _child(
    call: _F, answer: Callable[[_F], Iterable[bytes]], record: Record, out: int
) -> int:
    record.kill_at = call.kill_at
    record.install()
    if call.full_at is not None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        resource.setrlimit(resource.RLIMIT_FSIZE, (call.full_at, hard))
    hand_over = record.around("piece", os.write)
    try:
        for piece in answer(call):
            hand_over(out, _HEAD.pack(b"P", len(piece)) + piece)
    except SecureFLError as error:
        record.write(f"error {type(error).__name__}: {error}")
        return REFUSED
    except BaseException:
        record.write(f"error {traceback.format_exc()}")
        return BROKEN
    return DONE


def _warm(plan: Plan) -> None:
    """Do once here what each child would do anew: the sums of its budget."""
    for releases in (1, 2):
        epsilon([plan.release] * releases, delta=plan.privacy.delta)


def serve(
    answer: Callable[[_F], Iterable[bytes]], *, warm: Callable[[Plan], None]
) -> None:
    """Calls on stdin, pieces and ends on stdout, until stdin ends.

    ``answer`` runs in a fork, and ``warm`` before it.
    """
    calls, out = sys.stdin.buffer, sys.stdout.fileno()
    while head := calls.read(4):
        call: _F = pickle.loads(calls.read(int.from_bytes(head, "little")))
        warm(Plan((call.folder / "plan.toml").read_bytes()))
        record = Record()
        child = os.fork()
        if child == 0:
            os._exit(_child(call, answer, record, out))
        _, status = os.waitpid(child, 0)
        end = pickle.dumps((os.waitstatus_to_exitcode(status), record.lines()))
        os.write(out, _HEAD.pack(b"E", len(end)) + end)


if __name__ == "__main__":
    serve(_answer, warm=_warm)
