# SPDX-License-Identifier: Apache-2.0
"""The live ledger: its state machine, its budget, and what survives a kill."""

from __future__ import annotations

import math
import multiprocessing
import os
import random
import signal
import sqlite3
import stat
import threading
import time
from collections.abc import Callable, Iterator
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pytest

from secure_fl.errors import BudgetExceeded, SecureFLError, UsageError
from secure_fl.errors import VerificationError as Broken
from secure_fl.privacy import (
    Gaussian,
    Ledger,
    NonPrivate,
    Repeated,
    Reservation,
    epsilon,
)

from .support import (
    CLIENT,
    CTX,
    DELTA,
    LINEAGE,
    OTHER_CTX,
    OTHER_RUN,
    QUIET,
    RUN,
    reserve,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.sqlite"


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    opened = Ledger(path, client=CLIENT)
    yield opened
    opened.close()


def limit_for(count: int) -> float:
    """A budget for exactly ``count`` quiet releases."""
    return epsilon([Repeated(QUIET, count)], delta=DELTA).value * (1 + 1e-9)


# -- the state machine -----------------------------------------------------------------

Step = Callable[[Ledger, Reservation], None]


def sent(ledger: Ledger, r: Reservation) -> None:
    ledger.sent(r, ctx=CTX, now=1)


def sent_elsewhere(ledger: Ledger, r: Reservation) -> None:
    ledger.sent(r, ctx=OTHER_CTX, now=1)


def omitted(ledger: Ledger, r: Reservation) -> None:
    ledger.omitted(r, ctx=CTX, now=1)


def omitted_elsewhere(ledger: Ledger, r: Reservation) -> None:
    ledger.omitted(r, ctx=OTHER_CTX, now=1)


def released(ledger: Ledger, r: Reservation) -> None:
    ledger.released(r, now=1)


def aborted(ledger: Ledger, r: Reservation) -> None:
    ledger.aborted(r, now=1)


ALLOWED: list[tuple[Step, ...]] = [
    (sent, released),
    (sent, omitted),
    (sent, omitted, sent_elsewhere, released),
    (aborted,),
]
FORBIDDEN: list[tuple[Step, ...]] = [
    (released,),
    (omitted,),
    (sent, sent_elsewhere),
    (sent, aborted),
    (sent, omitted_elsewhere),
    (sent, omitted, sent),  # its context was proven closed
    (sent, omitted, released),
    (sent, omitted, aborted),
    (sent, released, aborted),
    (sent, released, omitted),
    (sent, released, sent_elsewhere),
    (aborted, sent),
    (aborted, released),
    (aborted, omitted),
]


def names(steps: tuple[Step, ...]) -> str:
    return "-".join(step.__name__ for step in steps)


@pytest.mark.parametrize("steps", ALLOWED, ids=names)
def test_what_is_allowed_is_entered(ledger: Ledger, steps: tuple[Step, ...]) -> None:
    r = reserve(ledger, 0)
    for step in steps:
        step(ledger, r)
    assert len(ledger.entries(LINEAGE)) == 1 + len(steps)
    (release,) = ledger.releases(LINEAGE)
    assert release.state == steps[-1].__name__.partition("_")[0]
    assert release.charged == (steps != (aborted,))


@pytest.mark.parametrize("steps", FORBIDDEN, ids=names)
def test_what_is_forbidden_changes_nothing(
    ledger: Ledger, steps: tuple[Step, ...]
) -> None:
    r = reserve(ledger, 0)
    for step in steps[:-1]:
        step(ledger, r)
    before = ledger.entries(LINEAGE)
    with pytest.raises(UsageError):
        steps[-1](ledger, r)
    assert ledger.entries(LINEAGE) == before


def test_sending_again_in_the_same_context_is_free(ledger: Ledger) -> None:
    r = reserve(ledger, 0)
    sent(ledger, r)
    sent(ledger, r)
    assert len(ledger.entries(LINEAGE)) == 2


def test_one_attempt_makes_one_reservation(ledger: Ledger) -> None:
    aborted(ledger, reserve(ledger, 0))
    with pytest.raises(UsageError):
        reserve(ledger, 0)
    reserve(ledger, 0, attempt=1)
    reserve(ledger, 0, run_id=OTHER_RUN)
    assert len(ledger.charged(LINEAGE)) == 2


def test_a_reservation_of_another_book_is_refused(
    ledger: Ledger, tmp_path: Path
) -> None:
    other = Ledger(tmp_path / "other.sqlite", client=CLIENT)
    foreign = reserve(other, 5)
    other.close()
    with pytest.raises(UsageError):
        sent(ledger, foreign)


def test_what_is_not_aborted_is_charged_also_after_reopening(path: Path) -> None:
    first = Ledger(path, client=CLIENT)
    open_, gone = reserve(first, 0), reserve(first, 1)
    aborted(first, gone)
    sent(first, reserve(first, 2))
    entries = first.entries(LINEAGE)
    first.close()
    again = Ledger(path, client=CLIENT)
    assert again.entries(LINEAGE) == entries
    assert again.charged(LINEAGE) == [QUIET, QUIET]
    assert [r.state for r in again.releases(LINEAGE)] == ["reserved", "aborted", "sent"]
    sent(again, open_)  # resumed: the reservation still stands
    assert again.lineages() == [LINEAGE]
    again.close()


# -- the budget ------------------------------------------------------------------------


def test_the_budget_is_never_exceeded_and_aborting_gives_back(ledger: Ledger) -> None:
    limit = limit_for(3)
    held = [reserve(ledger, i, limit=limit) for i in range(3)]
    before = ledger.entries(LINEAGE)
    with pytest.raises(BudgetExceeded) as caught:
        reserve(ledger, 3, limit=limit)
    assert caught.value.client == CLIENT
    assert caught.value.spent <= limit < caught.value.projected
    assert ledger.entries(LINEAGE) == before
    assert ledger.spent(LINEAGE, delta=DELTA).value <= limit
    aborted(ledger, held[1])
    reserve(ledger, 4, limit=limit)
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 5, limit=limit)


def test_a_projection_writes_nothing(ledger: Ledger) -> None:
    limit = limit_for(2)
    ledger.check(LINEAGE, [QUIET] * 2, delta=DELTA, limit=limit)
    with pytest.raises(BudgetExceeded):
        ledger.check(LINEAGE, [QUIET] * 3, delta=DELTA, limit=limit)
    assert ledger.entries(LINEAGE) == []


def test_an_unprotected_release_ends_the_budget_of_its_lineage(ledger: Ledger) -> None:
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 0, event=NonPrivate("a baseline"), limit=100.0)
    reserve(ledger, 0, event=NonPrivate("a baseline"))
    assert math.isinf(ledger.spent(LINEAGE, delta=DELTA).value)
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 1, limit=100.0)


@pytest.mark.parametrize("limit", [math.nan, -1.0, 0.0])
def test_a_limit_that_is_none_is_refused(ledger: Ledger, limit: float) -> None:
    with pytest.raises(SecureFLError):
        reserve(ledger, 0, limit=limit)
    assert ledger.charged(LINEAGE) == []


# -- the file --------------------------------------------------------------------------


def test_only_the_owner_reads_it(ledger: Ledger, path: Path) -> None:
    reserve(ledger, 0)
    files = [p for p in path.parent.iterdir() if p.name.startswith(path.name)]
    assert len(files) >= 2  # the write-ahead log beside it
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}


def test_a_change_from_outside_is_found_at_the_next_opening(path: Path) -> None:
    first = Ledger(path, client=CLIENT)
    for i in range(3):
        reserve(first, i)
    first.close()
    db = sqlite3.connect(path)
    (body,) = db.execute("SELECT body FROM entries WHERE sequence = 1").fetchone()
    changed = body.replace(b"40.0", b"90.0")
    assert changed != body
    with pytest.raises(sqlite3.IntegrityError, match="only grows"):
        db.execute("UPDATE entries SET body = ? WHERE sequence = 1", (changed,))
    db.execute("DROP TRIGGER no_update")  # whoever can write the file can do this
    db.execute("UPDATE entries SET body = ? WHERE sequence = 1", (changed,))
    db.commit()
    db.close()
    again = Ledger(path, client=CLIENT)
    with pytest.raises(Broken, match=r"ledger\.sqlite"):
        reserve(again, 9)
    again.close()


def test_another_clients_book_is_refused(path: Path) -> None:
    first = Ledger(path, client=CLIENT)
    reserve(first, 0)
    first.close()
    with pytest.raises(UsageError, match="not the ledger of bank-b"):
        Ledger(path, client="bank-b")


def test_what_is_no_database_is_refused(path: Path) -> None:
    path.write_bytes(b"not a database, not even nearly one" * 100)
    with pytest.raises(SecureFLError):
        Ledger(path, client=CLIENT)


# -- several at once, and kills --------------------------------------------------------

ROOM = 6


def test_threads_together_never_overspend(ledger: Ledger) -> None:
    limit, refused = limit_for(ROOM), []

    def work(run: int) -> None:
        for i in range(5):
            try:
                reserve(ledger, i, run_id=bytes([run]) * 16, limit=limit)
            except BudgetExceeded:
                refused.append(run)

    threads = [threading.Thread(target=work, args=(run,)) for run in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ledger.charged(LINEAGE)) == ROOM
    assert len(refused) == 15 - ROOM


def _spend(path: Path, run: int, limit: float, start: Barrier) -> None:
    start.wait(timeout=20)
    ledger = Ledger(path, client=CLIENT)
    for i in range(5):
        try:
            reserve(ledger, i, run_id=bytes([run]) * 16, limit=limit)
        except BudgetExceeded:
            break
    ledger.close()


def test_processes_together_never_overspend(path: Path) -> None:
    limit = limit_for(ROOM)  # also loads the accountant once, before forking
    Ledger(path, client=CLIENT).close()
    fork = multiprocessing.get_context("fork")
    start = fork.Barrier(2)
    children = [
        fork.Process(target=_spend, args=(path, run, limit, start)) for run in (1, 2)
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=30)
    assert [child.exitcode for child in children] == [0, 0]
    ledger = Ledger(path, client=CLIENT)
    assert len(ledger.charged(LINEAGE)) == ROOM
    ledger.close()


def _reserve_until_killed(path: Path, first: int, out: int) -> None:
    ledger = Ledger(path, client=CLIENT)
    for i in range(first, first + 100_000):
        os.write(out, reserve(ledger, i).entry_hash)


def test_whatever_was_reported_reserved_survives_a_kill(path: Path) -> None:
    Ledger(path, client=CLIENT).close()
    draw, reported = random.Random(7), []
    fork = multiprocessing.get_context("fork")
    for life in range(20):
        reading, writing = os.pipe()
        child = fork.Process(
            target=_reserve_until_killed, args=(path, life * 100_000, writing)
        )
        child.start()
        os.close(writing)
        pid = child.pid
        assert pid is not None
        got = os.read(reading, 32)
        time.sleep(draw.random() * 0.03)
        os.kill(pid, signal.SIGKILL)
        child.join(timeout=10)
        with os.fdopen(reading, "rb") as pipe:
            got += pipe.read()
        reported += [got[i : i + 32] for i in range(0, len(got) - 31, 32)]
        ledger = Ledger(path, client=CLIENT)
        standing = {release.entry_hash for release in ledger.releases(LINEAGE)}
        ledger.close()
        assert set(reported) <= standing
        # At most the one that a life was killed between writing and reporting.
        assert len(standing) <= len(reported) + life + 1
    assert len(reported) >= 20


def test_runs_and_lineages_are_kept_apart(ledger: Ledger) -> None:
    reserve(ledger, 0)
    ledger.reserve(
        "cards",
        run_id=RUN,
        round_index=0,
        attempt=0,
        event=Gaussian(3.0),
        unit="record",
        adjacency="add-or-remove-one",
        delta=DELTA,
        limit=math.inf,
        now=1,
    )
    assert ledger.lineages() == ["cards", LINEAGE]
    assert ledger.charged("cards") == [Gaussian(3.0)]
    assert ledger.charged(LINEAGE) == [QUIET]
    assert ledger.charged("nobody's") == []
