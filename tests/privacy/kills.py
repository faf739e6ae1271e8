# SPDX-License-Identifier: Apache-2.0
"""A ledger's life in a process that dies inside its writes, and what must be left.

The kernel ends the process: a limit on file sizes cuts the write that crosses it at
that very byte and sends SIGXFSZ, whose default action is as sudden as kill -9; so the
write-ahead log and the database are left torn wherever the limit says.
"""

from __future__ import annotations

import multiprocessing
import os
import resource
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest

from secure_fl.errors import BudgetExceeded, EngineError
from secure_fl.privacy import Ledger, Repeated, epsilon, read_export

from .support import CLIENT, CTX, DELTA, IDENTITY, LINEAGE, QUIET, reserve

FORK = multiprocessing.get_context("fork")
NAME = "ledger.sqlite"
HEAD = 32
LIFE_RUN = b"life" * 4
AFTER_RUN = b"aftr" * 4
# A reservation of each ending, over and over: open, aborted, sent, released.
ENDINGS = 4


def limit_for(count: int) -> float:
    """A budget for exactly ``count`` quiet releases."""
    return epsilon([Repeated(QUIET, count)], delta=DELTA).value * (1 + 1e-9)


# -- a life ----------------------------------------------------------------------------


def live(ledger: Ledger, releases: int) -> Iterator[bytes]:
    """Steps of several releases; yields the chain's new head once each has returned."""
    for place in range(releases):
        r = reserve(ledger, place, run_id=LIFE_RUN)
        yield r.entry_hash
        ending = place % ENDINGS
        if ending == 1:
            ledger.aborted(r, now=1)
            yield ledger.entries(LINEAGE)[-1].hash
        if ending >= 2:
            ledger.sent(r, ctx=CTX, now=1)
            yield ledger.entries(LINEAGE)[-1].hash
        if ending == 3:
            ledger.released(r, now=1)
            yield ledger.entries(LINEAGE)[-1].hash


@dataclass(frozen=True)
class Death:
    """Where the process dies: at byte ``at`` of whichever file is written there.

    opened
        the limit begins once the ledger is open; else before it is opened, or made
    releases
        how many it would make before it closes the ledger
    """

    at: int
    opened: bool = True
    releases: int = 4


def _limit_file_size(at: int) -> None:
    _, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (at, hard))


def _die(path: Path, death: Death, out: int) -> None:
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    signal.signal(signal.SIGXFSZ, signal.SIG_DFL)
    try:
        if not death.opened:
            _limit_file_size(death.at)
        ledger = Ledger(path, client=CLIENT)
        ledger.entries(LINEAGE)  # the index in memory is there from now on
        if death.opened:
            _limit_file_size(death.at)
        for head in live(ledger, death.releases):
            os.write(out, head)
        ledger.close()
    except BaseException:
        os._exit(70)  # an error is no death: and its traceback is a write


def _heads(raw: bytes) -> list[bytes]:
    assert len(raw) % HEAD == 0
    return [raw[i : i + HEAD] for i in range(0, len(raw), HEAD)]


def started(target: Callable[..., None], *args: object) -> tuple[BaseProcess, int]:
    """A process that reports into a pipe, and the end to read from."""
    reading, writing = os.pipe()
    child = FORK.Process(target=target, args=(*args, writing))
    child.start()
    os.close(writing)
    return child, reading


def reported_by(child: BaseProcess, reading: int) -> list[bytes]:
    """Everything it reported, once it is over."""
    with os.fdopen(reading, "rb") as pipe:
        raw = pipe.read()
    child.join(timeout=30)
    return _heads(raw)


@dataclass
class Ground:
    """A folder with a ledger to begin from; every life gets a copy of it."""

    folder: Path
    work: Path
    before: list[bytes] = field(default_factory=list)  # hashes of its entries

    def copy(self) -> Path:
        shutil.rmtree(self.work, ignore_errors=True)
        shutil.copytree(self.folder, self.work)
        return self.work / NAME

    def dies(self, death: Death) -> int:
        """One life, ended by its limit; what must be left is asserted.

        Returns how many steps had returned before.
        """
        path = self.copy()
        child, reading = started(_die, path, death)
        reported = reported_by(child, reading)
        assert child.exitcode == -signal.SIGXFSZ, death
        check(path, [*self.before, *reported])
        return len(reported)


def ground(folder: Path, *, releases: int, closed: bool = True) -> Ground:
    """``releases`` were made before; unless ``closed``, they are still in the log."""
    source = folder / "source"
    source.mkdir()
    before: list[bytes] = []
    kept = source
    if releases:
        ledger = Ledger(source / NAME, client=CLIENT)
        for place in range(releases):
            r = reserve(ledger, place)
            ledger.sent(r, ctx=CTX, now=1)
        before = [entry.hash for entry in ledger.entries(LINEAGE)]
        if not closed:  # what a crash leaves: a log that was not moved over
            kept = Path(shutil.copytree(source, folder / "crashed"))
            (kept / f"{NAME}-shm").unlink()
            assert (kept / f"{NAME}-wal").stat().st_size > 0
        ledger.close()
    return Ground(kept, folder / "work", before)


# -- what must be left -----------------------------------------------------------------


def check(path: Path, reported: list[bytes], *, unreported: int = 1) -> None:
    """The ledger holds all that was reported, and goes on.

    At most ``unreported`` steps more: the one it was in the middle of.
    """
    ledger = Ledger(path, client=CLIENT)
    try:
        entries = ledger.entries(LINEAGE)
        assert [entry.hash for entry in entries[: len(reported)]] == reported
        assert len(entries) <= len(reported) + unreported

        # Charged is whatever was reserved and not aborted, and the budget says so.
        made = [e for e in entries if e.kind == "reserved"]
        gone = {e.of for e in entries if e.kind == "aborted"}
        charged = [e.hash for e in made if e.hash not in gone]
        releases = ledger.releases(LINEAGE)
        assert [r.entry_hash for r in releases if r.charged] == charged
        room = limit_for(len(charged) + 1)
        reserve(ledger, 0, run_id=AFTER_RUN, limit=room)
        with pytest.raises(BudgetExceeded):  # else a charge was not counted
            reserve(ledger, 1, run_id=AFTER_RUN, limit=room)

        found = read_export(
            ledger.export(LINEAGE, identity=IDENTITY),
            public_key=IDENTITY.public_key,
            client=CLIENT,
        )
        assert [entry.data for entry in found.entries[:-1]] == [e.data for e in entries]
    finally:
        ledger.close()


# -- other ways to end -----------------------------------------------------------------


def _work(path: Path, out: int) -> None:
    ledger = Ledger(path, client=CLIENT)
    for head in live(ledger, 100_000):
        os.write(out, head)


def killed_by_us(path: Path, *, after: int, wait: float) -> list[bytes]:
    """SIGKILL ``wait`` seconds after the report number ``after``; what it reported."""
    child, reading = started(_work, path)
    with os.fdopen(reading, "rb", buffering=0) as pipe:
        raw = b""
        while len(raw) < HEAD * after:
            raw += pipe.read(HEAD * after - len(raw))
        time.sleep(wait)
        child.kill()
        child.join(timeout=30)
        raw += pipe.read()
    assert child.exitcode == -signal.SIGKILL
    return _heads(raw)


def _fill(path: Path, at: int, out: int) -> None:
    """The disk is full at byte ``at`` of a file; later there is room again."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        ledger = Ledger(path, client=CLIENT)
        ledger.entries(LINEAGE)
        _limit_file_size(at)
        failed = False
        try:
            for head in live(ledger, 8):
                os.write(out, head)
        except EngineError:
            failed = True
        for place in range(3):  # still full: it says so each time
            try:
                head = reserve(ledger, 50 + place, run_id=LIFE_RUN).entry_hash
            except EngineError:
                failed = True
            else:
                os.write(out, head)
        _limit_file_size(resource.RLIM_INFINITY)
        os.write(out, reserve(ledger, 99, run_id=LIFE_RUN).entry_hash)
        ledger.close()
    except BaseException:
        os._exit(70)
    os._exit(7 if failed else 0)


def full_disk(path: Path, at: int) -> tuple[bool, list[bytes]]:
    """Whether a step failed, and the steps that returned, over a full disk."""
    child, reading = started(_fill, path, at)
    reported = reported_by(child, reading)
    assert child.exitcode in (0, 7)
    return child.exitcode == 7, reported
