# SPDX-License-Identifier: Apache-2.0
"""What an aggregator says of its run while it goes on, and a home that is looked at."""

from __future__ import annotations

import contextlib
import logging
import os
import sqlite3
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from secure_fl.engines.member_status import MemberView, view_home
from secure_fl.engines.requests import Action, Open, Train
from secure_fl.engines.result import Progress
from secure_fl.engines.state import RunState
from secure_fl.engines.status import MemberStatus, RunStatus, Status, epsilon_of, latest
from secure_fl.errors import EngineError, TooFewClients, UsageError
from secure_fl.privacy import Ledger
from secure_fl.transcript import KEY_HOLDER

from .banks import NAMES, NOW, Banks
from .network import Network, go

VICTIM = "bank-b"
STAGES = ["keys", "shares", "vectors", "consistency", "unmask", "signatures"]


@pytest.fixture(autouse=True, scope="module")
def impatient() -> Any:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secure_fl.engines.remote._GRACE", 0.1)
        patch.setattr("secure_fl.engines.remote._LOOK_AGAIN", 0.01)
        yield


def status_of(banks: Banks) -> RunStatus:
    found = latest(banks.folder / "state")
    assert found is not None
    assert found[1].hash == banks.plan.hash
    return found[0]


def member(status: RunStatus, name: str) -> MemberStatus:
    return next(m for m in status.members if m.name == name)


# -- one run, cut off once -------------------------------------------------------------


@dataclass
class Watched:
    """A run whose victim missed the first sum, and whose aggregator died in round 2."""

    banks: Banks
    shown: list[RunStatus] = field(default_factory=list)  # before each parcel
    after_crash: RunStatus | None = None
    views: list[MemberView] = field(default_factory=list)

    @property
    def end(self) -> RunStatus:
        return status_of(self.banks)


@pytest.fixture(scope="module")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Watched:
    run = Watched(Banks(tmp_path_factory.mktemp("watched")))
    crashed = False

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        nonlocal crashed
        run.shown.append(status := status_of(run.banks))
        training = any(isinstance(a, Train) for a in actions)
        if status.round == 0 and training and name == VICTIM:
            return "lost"
        if status.round == 1 and status.stage == "consistency" and not crashed:
            crashed = True
            return "crash"
        return ""

    network = Network(run.banks, fault)
    with pytest.raises(KeyboardInterrupt):
        go(run.banks, network)
    run.after_crash = run.end
    go(run.banks, network)
    return run


def test_stages_follow_each_other(watched: Watched) -> None:
    begun = [s for s in watched.shown if s.round == 0]
    stages = list(dict.fromkeys(s.stage for s in begun))
    assert stages == STAGES
    assert {s.state for s in watched.shown} == {"running"}
    assert not any(s.cut_off for s in watched.shown)
    for status in watched.shown:
        assert status.since <= status.written
        asked = {m.name for m in status.members if m.answer}
        everybody = set(NAMES) - {m.name for m in status.members if m.left}
        assert asked == everybody or status.stage in ("consistency", "signatures")


def test_who_is_awaited_and_who_has_answered(tmp_path: Path) -> None:
    """Replies come one by one: each is seen as it comes."""
    banks = Banks(tmp_path, names=NAMES[:3])
    with Status(banks.plan, tmp_path / "state") as status:
        status.connected([NAMES[0], NAMES[1]])
        status.show(Progress(0, 3, 0, "vectors"))
        status.asked(NAMES[:3])
        status.answered(NAMES[0], fit=True)
        status.answered(NAMES[1], fit=False)
        seen = status_of(banks)
    assert [m.answer for m in seen.members] == ["answered", "failed", "awaited"]
    assert [m.connected for m in seen.members] == [True, True, False]
    assert [m.releases for m in seen.members] == [1, 0, 0]


def test_who_was_left_out_and_why(watched: Watched) -> None:
    first = [s for s in watched.shown if s.round == 0]
    for status in first:
        left = member(status, VICTIM).left
        late = STAGES.index(status.stage) > STAGES.index("vectors")
        assert bool(left) == late
        if late:
            assert left == f"vectors: {VICTIM} did not answer: the line is dead"
    second = next(s for s in watched.shown if s.round == 1)
    assert [m.in_sum for m in second.members] == [n != VICTIM for n in NAMES]
    why = f"vectors: {VICTIM} did not answer: the line is dead"
    assert [m.why for m in second.members] == [
        why if n == VICTIM else "" for n in NAMES
    ]
    assert not member(second, VICTIM).left  # it may come back, and does
    assert all(m.in_sum and not m.why for m in watched.end.members)


@pytest.mark.parametrize("how", [KeyboardInterrupt, SystemExit])
def test_whoever_stops_a_run_is_told_that_it_goes_on(
    tmp_path: Path, how: type[BaseException]
) -> None:
    """Flower ends the aggregator's app so where its SuperLink is gone."""
    with pytest.raises(how), Status(Banks(tmp_path).plan, tmp_path / "state"):
        raise how
    found = latest(tmp_path / "state")
    assert found is not None
    assert (found[0].state, found[0].reason) == ("failed", "interrupted")
    assert "goes on" in found[0].hint


def test_a_run_that_was_cut_off_goes_on_counting(watched: Watched) -> None:
    cut = watched.after_crash
    assert cut is not None
    assert (cut.state, cut.reason, cut.opened) == ("failed", "interrupted", 1)
    # In round 2 all four updates had arrived, and a new attempt asks for new ones.
    assert [m.releases for m in cut.members] == [2 - (n == VICTIM) for n in NAMES]
    end = watched.end
    assert (end.state, end.reason, end.opened) == ("finished", "", 3)
    assert [m.releases for m in end.members] == [4 - (n == VICTIM) for n in NAMES]
    assert set(end.seconds) >= {*STAGES, "joining", "ledgers"}
    assert all(end.seconds[name] >= cut.seconds[name] for name in STAGES[:4])
    again = next(s for s in watched.shown if (s.round, s.attempt) == (1, 1))
    assert again.opened == 1
    assert member(again, VICTIM).why  # it is still told what the process before saw


def test_what_it_counts_is_what_the_ledgers_hold(watched: Watched) -> None:
    """Nothing was lost on the way back here, so that both agree."""
    banks = watched.banks
    for m in watched.end.members:
        assert len(banks.states(m.name)) == m.releases
        with contextlib.closing(banks.homes[m.name].ledger(m.name)) as ledger:
            spent = ledger.spent(banks.plan.lineage, delta=banks.plan.privacy.delta)
        assert epsilon_of(banks.plan, m.releases) == spent.value
    assert epsilon_of(banks.plan, 0) == 0.0


# -- how it ends -----------------------------------------------------------------------


def test_a_run_that_ends_badly_says_why(tmp_path: Path) -> None:
    """A member's words are in no reason but for what it sent; ours are."""
    banks = Banks(tmp_path, names=NAMES[:3])

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        return "lost" if any(isinstance(a, Open) for a in actions) else ""

    with pytest.raises(TooFewClients) as failed:
        go(banks, Network(banks, fault))
    status = status_of(banks)
    assert (status.state, status.reason) == ("failed", failed.value.message)
    assert status.hint == failed.value.hint
    assert (status.opened, status.round) == (0, 2)
    assert {m.left for m in status.members} == {
        f"keys: {n} did not answer: the line is dead" for n in NAMES[:3]
    }


def test_a_member_that_does_not_join_is_seen(tmp_path: Path) -> None:
    banks = Banks(tmp_path, names=NAMES[:3])
    network = Network(banks)
    network.away = {VICTIM}
    with pytest.raises(EngineError, match="not there: bank-b"):
        go(banks, network, patience=0.2)
    status = status_of(banks)
    assert (status.state, status.reason) == ("failed", "not there: bank-b")
    assert [m.connected for m in status.members] == [n != VICTIM for n in NAMES[:3]]
    assert [m.in_sum for m in status.members] == [None] * 3


def test_an_exception_of_others_is_not_quoted(tmp_path: Path) -> None:
    banks = Banks(tmp_path, names=NAMES[:3])
    with pytest.raises(LookupError), Status(banks.plan, tmp_path / "state"):
        raise LookupError("row 17 of the data")
    assert status_of(banks).reason == "LookupError"


def test_an_error_that_names_a_file_of_strange_bytes_can_be_told(
    tmp_path: Path,
) -> None:
    banks = Banks(tmp_path, names=NAMES[:3])
    with pytest.raises(EngineError), Status(banks.plan, tmp_path / "state"):
        raise EngineError("cannot write out\udcff")
    assert status_of(banks).reason == "cannot write out?"


def test_a_process_that_was_killed_is_told_from_one_that_works(tmp_path: Path) -> None:
    banks = Banks(tmp_path, names=NAMES[:3])
    child = subprocess.run(
        [sys.executable, "-c", "import os; print(os.getpid())"],
        capture_output=True,
        check=True,
    )
    Status(banks.plan, tmp_path / "state").enter("keys")
    status = status_of(banks)
    assert not status.cut_off
    gone = status.model_copy(update={"pid": int(child.stdout)})
    assert gone.cut_off
    assert not gone.model_copy(update={"host": "elsewhere"}).cut_off
    assert not gone.model_copy(update={"state": "finished"}).cut_off


def test_whoever_is_refused_the_run_changes_nothing(tmp_path: Path) -> None:
    """A second aggregator of one run may not say anything in the name of the first."""
    banks = Banks(tmp_path, names=NAMES[:3])
    Status(banks.plan, tmp_path / "state").enter("keys")
    before = status_of(banks)
    folder = tmp_path / "state" / "runs" / banks.run_id.hex()
    folder.mkdir(parents=True)
    state = RunState(folder, folder / "clients", folder / "keys")
    with state.locked(), pytest.raises(UsageError, match="another process"):
        go(banks, Network(banks))
    assert status_of(banks) == before


def test_a_status_that_cannot_be_written_ends_no_run(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    banks = Banks(tmp_path, names=NAMES[:3])
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "status").write_text("in the way")
    with (
        caplog.at_level(logging.WARNING, "secure_fl"),
        Status(banks.plan, tmp_path / "state") as status,
    ):
        status.enter("keys")
        status.asked(NAMES[:3])
        assert latest(tmp_path / "state") is None
        told = [r for r in caplog.records if "no status" in r.getMessage()]
        assert len(told) == 1
        (tmp_path / "state" / "status").unlink()  # room was made
    assert status_of(banks).state == "finished"


@pytest.mark.parametrize("held", [b"", b"{}", b'{"schema": "secure-fl/status/2"}'])
def test_a_file_that_is_not_ours_counts_for_nothing(
    tmp_path: Path, held: bytes
) -> None:
    banks = Banks(tmp_path, names=NAMES[:3])
    folder = tmp_path / "state" / "status" / banks.run_id.hex()
    folder.mkdir(parents=True)
    (folder / "status.json").write_bytes(held)
    assert latest(tmp_path / "state") is None
    with Status(banks.plan, tmp_path / "state"):
        pass
    assert status_of(banks).state == "finished"


def test_a_long_reason_stays_short(tmp_path: Path) -> None:
    """A lying member cannot fill the aggregator's disk with words."""
    banks = Banks(tmp_path, names=NAMES[:3])
    with Status(banks.plan, tmp_path / "state") as status:
        status.show(Progress(0, 3, 0, "keys", left={VICTIM: "x" * 10**6}))
        assert len(member(status_of(banks), VICTIM).left) == 300


# -- a member's home -------------------------------------------------------------------


def files(folder: Path) -> dict[str, tuple[bytes, int]]:
    """All that is below, with what a look must not change."""
    return {
        str(p.relative_to(folder)): (p.read_bytes(), p.stat().st_mtime_ns)
        for p in folder.rglob("*")
        if p.is_file()
    }


def test_a_home_shows_its_plan_its_run_and_what_was_spent(watched: Watched) -> None:
    banks = watched.banks
    home = view_home(banks.homes[VICTIM].folder)
    (plan,) = home.plans
    assert (plan.name, plan.state, plan.begun) == (VICTIM, "joined", True)
    assert plan.plan.hash == banks.plan.hash
    assert (plan.releases, plan.in_sums) == (3, 2)
    (account,) = home.accounts
    assert account.book.client == VICTIM
    assert account.book.lineage == banks.plan.lineage
    assert account.spent.total.epsilon == epsilon_of(banks.plan, 3) == plan.epsilon
    assert account.spent.last.limit == banks.plan.privacy.epsilon
    assert home.limits is None
    assert home.last_activity > NOW


def test_a_look_changes_no_file_of_a_home(watched: Watched) -> None:
    folder = watched.banks.homes[VICTIM].folder
    before = files(folder)
    assert "ledger.sqlite-wal" not in before
    view_home(folder)
    assert files(folder) == before


def test_a_look_sees_what_a_writer_has_committed_and_holds_nobody_up(
    watched: Watched, tmp_path: Path
) -> None:
    """The ledger of a member that works: open, in a transaction, and not shrunk."""
    banks = watched.banks
    folder = tmp_path / "home"
    folder.mkdir()
    copied = (banks.homes[VICTIM].folder / "ledger.sqlite").read_bytes()
    (folder / "ledger.sqlite").write_bytes(copied)
    (folder / "plans").mkdir()

    def charge(round_index: int) -> None:
        privacy = banks.plan.privacy
        ledger.reserve(
            banks.plan.lineage,
            run_id=b"another run, yes",
            round_index=round_index,
            attempt=0,
            event=banks.plan.release,
            unit=privacy.unit,
            adjacency=privacy.adjacency,
            delta=privacy.delta,
            limit=privacy.epsilon,
            now=NOW,
        )

    with contextlib.closing(Ledger(folder / "ledger.sqlite", client=VICTIM)) as ledger:
        charge(0)
        assert (folder / "ledger.sqlite-wal").stat().st_size
        before = {n: v for n, v in files(folder).items() if not n.endswith("-shm")}
        writer = sqlite3.connect(folder / "ledger.sqlite", isolation_level=None)
        writer.execute("BEGIN IMMEDIATE")
        (account,) = view_home(folder).accounts
        assert account.spent.total.charged == 4
        writer.execute("COMMIT")
        writer.close()
        after = {n: v for n, v in files(folder).items() if not n.endswith("-shm")}
        assert after == before
        charge(1)
        (account,) = view_home(folder).accounts
        assert account.spent.total.charged == 5
    assert sorted(os.listdir(folder)) == ["ledger.sqlite", "plans"]


def test_a_ledger_that_was_tampered_with_is_refused(
    watched: Watched, tmp_path: Path
) -> None:
    (tmp_path / "plans").mkdir()
    copy = tmp_path / "ledger.sqlite"
    copy.write_bytes(
        (watched.banks.homes[VICTIM].folder / "ledger.sqlite").read_bytes()
    )
    with contextlib.closing(sqlite3.connect(copy, isolation_level=None)) as db:
        db.execute("DROP TRIGGER no_delete")
        db.execute("DELETE FROM entries WHERE sequence = 1")
    with pytest.raises(EngineError, match="missing or out of order"):
        view_home(tmp_path)
    copy.write_bytes(b"no database at all")
    with pytest.raises(EngineError, match="cannot read the ledger"):
        view_home(tmp_path)


def test_a_plan_that_was_left_and_a_key_holder(tmp_path: Path) -> None:
    banks = Banks(tmp_path, "keyholder", names=NAMES[:3])
    home = banks.homes[VICTIM]
    home.leave(banks.plan.hash)
    (plan,) = view_home(home.folder).plans
    assert (plan.name, plan.state, plan.begun) == ("", "left", False)
    assert (plan.releases, plan.epsilon) == (0, None)
    view = view_home(banks.homes[KEY_HOLDER].folder)
    assert [p.name for p in view.plans] == [KEY_HOLDER]
    assert not view.accounts
    with Status(banks.plan, tmp_path / "state") as status:
        status.asked([KEY_HOLDER])
        seen = status_of(banks).members[-1]
    assert (seen.name, seen.answer, seen.in_sum) == (KEY_HOLDER, "awaited", None)
