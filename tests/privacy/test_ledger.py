# SPDX-License-Identifier: Apache-2.0
"""The live ledger: its state machine, its budget, and what survives a kill."""

from __future__ import annotations

import dataclasses
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
    Event,
    Gaussian,
    Ledger,
    NonPrivate,
    PoissonGaussian,
    Repeated,
    Reservation,
    Skellam,
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


@pytest.mark.parametrize(
    ("view", "shares"), [(0, 4), (2, 4), (3, 1), (1000, 1), (None, 1)]
)
def test_a_sum_counts_in_the_view_that_is_asked_for(
    ledger: Ledger, view: int | None, shares: int
) -> None:
    """Of an earlier run's noise, against more than it was made for, a share is left."""
    earlier = Skellam(1.0, 1e8, shares=4, colluding=2, l2=1e3, values=900)
    reserve(ledger, 0, event=earlier)
    left = dataclasses.replace(earlier, shares=shares)
    exact = epsilon([left, QUIET], delta=DELTA).value
    assert ledger.charged(LINEAGE) == [earlier]
    assert ledger.spent(LINEAGE, delta=DELTA, view=view) == epsilon([left], delta=DELTA)
    short = exact * (1 - 1e-9)
    with pytest.raises(BudgetExceeded):
        ledger.check(LINEAGE, [QUIET], delta=DELTA, limit=short, view=view)
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 1, limit=short, view=view)
    ledger.check(LINEAGE, [QUIET], delta=DELTA, limit=exact, view=view)
    reserve(ledger, 1, limit=exact, view=view)


def test_a_sum_is_charged_in_its_own_plans_view(ledger: Ledger) -> None:
    event = Skellam(1.0, 1e8, shares=4, colluding=2, l2=1e3, values=900)
    limit = epsilon([event] * 2, delta=DELTA).value
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 0, event=event, limit=limit / 2)  # where nobody says: all
    reserve(ledger, 0, event=event, limit=limit, view=2)
    reserve(ledger, 1, event=event, limit=limit, view=2)
    with pytest.raises(BudgetExceeded):
        reserve(ledger, 2, event=event, limit=limit, view=2)


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


def test_a_budget_holds_over_plans_runs_and_years(path: Path) -> None:
    """Each plan brings its own mechanism, delta and limit; the past counts for all."""
    year = 31_557_600
    plans: list[tuple[Event, float, float]] = [
        (Gaussian(12.0), 1e-6, 3.0),
        (Repeated(PoissonGaussian(0.01, 1.0), 50), 1e-5, 4.0),
        (Gaussian(6.0), 1e-7, 9.0),
    ]
    made: list[Event] = []
    for number, (event, delta, limit) in enumerate(plans):
        ledger = Ledger(path, client=CLIENT)  # another process, years later
        for place in range(2):
            ledger.reserve(
                LINEAGE,
                run_id=bytes([number]) * 16,
                round_index=place,
                attempt=0,
                event=event,
                unit="record",
                adjacency="add-or-remove-one",
                delta=delta,
                limit=limit,
                now=number * year,
            )
            made.append(event)
            spent = ledger.spent(LINEAGE, delta=delta).value
            assert spent == epsilon(made, delta=delta).value <= limit
        ledger.close()

    # The next plan alone would fit its limit; after all that was, it does not.
    ledger = Ledger(path, client=CLIENT)
    total = epsilon([*made, QUIET], delta=DELTA).value
    alone = epsilon([QUIET], delta=DELTA).value
    assert alone < total / 10
    with pytest.raises(BudgetExceeded) as caught:
        reserve(ledger, 0, limit=total * 0.999)
    assert caught.value.projected == total
    reserve(ledger, 0, limit=total)
    ledger.close()


# -- the file --------------------------------------------------------------------------


def test_only_the_owner_reads_it(ledger: Ledger, path: Path) -> None:
    reserve(ledger, 0)
    files = [p for p in path.parent.iterdir() if p.name.startswith(path.name)]
    assert len(files) >= 2  # the write-ahead log beside it
    assert {stat.S_IMODE(p.stat().st_mode) for p in files} == {0o600}


def test_a_copy_that_others_could_read_is_closed_to_them(path: Path) -> None:
    Ledger(path, client=CLIENT).close()
    path.chmod(0o644)
    again = Ledger(path, client=CLIENT)
    test_only_the_owner_reads_it(again, path)
    again.close()


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


@pytest.mark.parametrize("data", [b"", b"not a database, not even nearly one" * 100])
def test_what_is_no_ledger_is_refused_and_left_as_it_is(
    path: Path, data: bytes
) -> None:
    path.write_bytes(data)
    with pytest.raises(SecureFLError):
        Ledger(path, client=CLIENT)
    with pytest.raises(SecureFLError):
        Ledger.existing(path)
    assert [(p.name, p.read_bytes()) for p in path.parent.iterdir()] == [
        (path.name, data)
    ]


def test_an_existing_ledger_is_opened_whoever_s_it_is(path: Path) -> None:
    first = Ledger(path, client="bank-b")
    reserve(first, 0)
    again = Ledger.existing(path)  # also while its owner has it open
    assert again.client == "bank-b"
    assert again.entries(LINEAGE) == first.entries(LINEAGE)
    again.close()
    first.close()


@pytest.mark.parametrize("name", ["none.sqlite", "none/none.sqlite", "."])
def test_no_ledger_is_made_by_looking_for_one(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match="no ledger") as caught:
        Ledger.existing(tmp_path / name)
    assert caught.value.hint
    assert list(tmp_path.iterdir()) == []


def test_a_name_that_looks_like_an_option_is_a_name(tmp_path: Path) -> None:
    path = tmp_path / "a?mode=memory&b=%20 ü#.sqlite"
    ledger = Ledger(path, client=CLIENT)
    reserve(ledger, 0)
    ledger.close()
    assert [p.name for p in tmp_path.iterdir()] == [path.name]
    again = Ledger.existing(path)
    assert again.charged(LINEAGE) == [QUIET]
    again.close()


def test_a_book_is_a_copy(ledger: Ledger) -> None:
    reserve(ledger, 0)
    book = ledger.book(LINEAGE)
    assert book.charged() == [QUIET]
    step = book.next_step(book.head, "aborted", ctx=b"", now=1)
    assert step is not None
    book.append(step)
    assert book.charged() == []
    assert ledger.charged(LINEAGE) == [QUIET]
    reserve(ledger, 1)
    assert len(ledger.book(LINEAGE).entries) == len(book.entries) == 2


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
            r = reserve(ledger, i, run_id=bytes([run]) * 16, limit=limit)
        except BudgetExceeded:
            break
        ledger.sent(r, ctx=CTX, now=1)
    ledger.close()


def test_processes_together_never_overspend(path: Path) -> None:
    """They also make the file together; no entry is lost and none is there twice."""
    limit = limit_for(ROOM)  # also loads the accountant once, before forking
    fork = multiprocessing.get_context("fork")
    runs = (1, 2, 3)
    start = fork.Barrier(len(runs))
    children = [
        fork.Process(target=_spend, args=(path, run, limit, start)) for run in runs
    ]
    for child in children:
        child.start()
    for child in children:
        child.join(timeout=60)
    assert [child.exitcode for child in children] == [0] * len(runs)
    assert [p.name for p in path.parent.iterdir()] == [path.name]
    ledger = Ledger(path, client=CLIENT)
    assert len(ledger.charged(LINEAGE)) == ROOM
    assert [entry.sequence for entry in ledger.entries(LINEAGE)] == list(
        range(2 * ROOM)
    )
    assert {r.state for r in ledger.releases(LINEAGE)} == {"sent"}
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
