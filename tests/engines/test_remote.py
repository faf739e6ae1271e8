# SPDX-License-Identifier: Apache-2.0
"""A whole run across machines, over a network that may lose whatever it carries.

Members have real homes, and every request meets a new object, as a new process would.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import secure_fl as sfl
from secure_fl.engines.aggregator import aggregate
from secure_fl.engines.behind import behind
from secure_fl.engines.remote import RemoteClients
from secure_fl.engines.requests import (
    Action,
    Countersign,
    Export,
    Failure,
    Message,
    Open,
    Reply,
    Train,
)
from secure_fl.engines.result import Run
from secure_fl.engines.status import Status, latest
from secure_fl.errors import (
    BudgetExceeded,
    EngineError,
    PlanError,
    TooFewClients,
    UsageError,
)
from secure_fl.identity import Identity
from secure_fl.transcript import KEY_HOLDER

from .banks import MODEL, NAMES, PROTECTIONS, RANDOM, Banks
from .network import Network, go

VICTIM = "bank-b"
SECOND = Path(__file__).parents[2] / "protocols" / "report" / "verify.py"


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever is away is waited for as long as ever, but for the seconds."""
    monkeypatch.setattr("secure_fl.engines.remote._GRACE", 10.0)
    monkeypatch.setattr("secure_fl.engines.remote._LOOK_AGAIN", 0.01)


def survivors(run: Run) -> list[list[str]]:
    return [row["survivors"] for row in run.report.data["rounds"]]


def verified(banks: Banks, run: Run) -> None:
    """Both verifiers agree that it is a run of real parties, and what it opened."""
    assert sfl.verify_run(banks.folder / "out").epsilon
    subprocess.run([sys.executable, SECOND, banks.folder / "out"], check=True)
    assert run.report.data["simulation"] is False
    rounds = run.report.data["rounds"]
    moved = np.zeros(MODEL.size)
    for row in rounds:
        inside = [banks.vectors[n] for n in row["survivors"]]
        moved += np.sum(inside, axis=0) / len(inside)
    np.testing.assert_allclose(run.model.flatten(), moved, atol=1e-6)


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_run_over_a_network_that_holds(tmp_path: Path, protection: str) -> None:
    banks = Banks(tmp_path, protection)
    run = go(banks, Network(banks))
    assert survivors(run) == [list(NAMES)] * banks.plan.rounds.count
    verified(banks, run)
    for name in NAMES:
        assert banks.states(name) == ["released"] * banks.plan.rounds.count
    assert not (tmp_path / "state" / "runs").exists() or not any(
        (tmp_path / "state" / "runs").iterdir()
    )
    with pytest.raises(UsageError, match="is finished"):
        go(banks, Network(banks))


# -- trained while keys are exchanged --------------------------------------------------


@pytest.mark.parametrize("can", [True, False])
def test_members_that_train_early(tmp_path: Path, can: bool) -> None:
    """An update is made before the exchange that asks for it, and once."""
    banks = Banks(tmp_path, rounds="train_early = true")
    if can:
        banks.behind = behind  # in processes of their own: the ledger saw them
    before: list[int] = []

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        if any(isinstance(a, Train) for a in actions):
            deadline = time.monotonic() + 20
            while can and not banks.states(name) and time.monotonic() < deadline:
                time.sleep(0.05)
            before.append(len(banks.states(name)))
        return ""

    run = go(banks, Network(banks, fault))
    assert survivors(run) == [list(NAMES)] * 3
    verified(banks, run)
    assert before[: len(NAMES)] == [int(can)] * len(NAMES)
    assert [n for n, _ in banks.trained] == ([] if can else [*NAMES] * 3)
    for name in NAMES:
        assert banks.states(name) == ["released"] * 3


# -- one member fails, once ------------------------------------------------------------


def first_round_is(kind: type[object], nth: int, fate: str) -> Any:
    """``fate`` for the victim's ``nth`` request that holds a ``kind``."""
    seen = 0

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        nonlocal seen
        if name != VICTIM or not any(isinstance(a, kind) for a in actions):
            return ""
        seen += 1
        return fate if seen == nth else ""

    return fault


STEPS = {
    "keys": (Open, 1),
    "shares": (Message, 1),
    "vectors": (Train, 1),
    "consistency": (Message, 3),
    "unmask": (Message, 4),
    "signature": (Countersign, 1),
}


@pytest.mark.parametrize(
    "fate", [pytest.param("lost", marks=pytest.mark.long), "silent"]
)
@pytest.mark.parametrize(
    "step",
    # The others over Flower's Grid: tests/contract/test_dropouts.py.
    [
        s if s in ("vectors", "signature") else pytest.param(s, marks=pytest.mark.long)
        for s in STEPS
    ],
)
def test_a_member_lost_at_any_step(tmp_path: Path, step: str, fate: str) -> None:
    """The round goes on without it, or with it where its update had arrived."""
    banks = Banks(tmp_path)
    run = go(banks, Network(banks, first_round_is(*STEPS[step], fate)))
    without = [n for n in NAMES if n != VICTIM]
    late = step in ("consistency", "unmask", "signature")
    assert survivors(run) == [list(NAMES) if late else without, *[list(NAMES)] * 2]
    verified(banks, run)
    # Whatever may have left its host is charged; nothing that was opened is not.
    states = banks.states(VICTIM)
    assert states[-1] == "released"
    trained = [r for n, r in banks.trained if n == VICTIM]
    assert len(states) == len(trained)
    if step == "vectors":
        first = ["sent"] if fate == "silent" else []
        assert states == [*first, "released", "released"]


@pytest.mark.parametrize(
    "fate", [pytest.param("lost", marks=pytest.mark.long), "silent"]
)
def test_a_key_holder_that_is_lost_costs_an_attempt(tmp_path: Path, fate: str) -> None:
    banks = Banks(tmp_path, "keyholder")
    lost: list[int] = []

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        if name == KEY_HOLDER and not lost:
            lost.append(sent)
            return fate
        return ""

    run = go(banks, Network(banks, fault))
    assert survivors(run) == [list(NAMES)] * 3
    assert [f["attempt"] for f in run.report.data["failures"]] == [0]
    verified(banks, run)


def test_a_member_that_stays_away_leaves_no_epsilon(tmp_path: Path) -> None:
    """Its ledger is missing: the run says so, and goes on once it is back."""
    banks = Banks(tmp_path)
    network = Network(banks)

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        if any(isinstance(a, Open) and a.round_index == 1 for a in actions):
            network.away.add(VICTIM)
        return ""

    network.fault = fault
    with pytest.raises(EngineError, match=f"but for the ledger of {VICTIM}"):
        go(banks, network, patience=1.0)
    assert not (tmp_path / "out" / "transcript.cbor").exists()
    network.fault = lambda name, actions, sent: ""
    network.away.clear()
    run = go(banks, network)
    without = [n for n in NAMES if n != VICTIM]
    assert survivors(run) == [list(NAMES), without, without]
    verified(banks, run)


def test_too_few_end_the_run_with_a_clear_error(tmp_path: Path) -> None:
    banks = Banks(tmp_path)
    network = Network(banks)

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        return "lost" if name in NAMES[:2] else ""

    network.fault = fault
    with pytest.raises(TooFewClients):
        go(banks, network)
    assert all("released" not in banks.states(n) for n in NAMES)


# -- the aggregator dies ---------------------------------------------------------------


def crash_at(exchange: int) -> Any:
    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        return "crash" if sent == exchange else ""

    return fault


def killed_and_started_again(folder: Path, protection: str, at: int) -> bool:
    """Whether there was an exchange ``at`` to be killed in."""
    banks = Banks(folder, protection)
    try:
        go(banks, Network(banks, crash_at(at)))
        return False
    except KeyboardInterrupt:
        pass
    run = go(banks, Network(banks))
    verified(banks, run)
    assert survivors(run) == [list(NAMES)] * 3
    for name in NAMES:
        states = banks.states(name)
        assert states.count("released") + states.count("sent") >= 3
        assert len(states) == len([n for n, _ in banks.trained if n == name])
    return True


@pytest.mark.parametrize("at", [3, 6])
def test_an_aggregator_that_dies_goes_on(tmp_path: Path, at: int) -> None:
    assert killed_and_started_again(tmp_path, "masking", at)


@pytest.mark.long
@pytest.mark.parametrize("protection", PROTECTIONS)
def test_an_aggregator_that_dies_anywhere_goes_on(
    tmp_path: Path, protection: str
) -> None:
    at = 1
    while True:
        folder = tmp_path / str(at)
        folder.mkdir()
        if not killed_and_started_again(folder, protection, at):
            break
        at += 1
    assert at > 8


def test_signatures_that_were_lost_with_the_aggregator(tmp_path: Path) -> None:
    """All had signed the whole log, and it died before it knew."""
    banks = Banks(tmp_path)
    network = Network(banks)
    exported: list[int] = []

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        if any(isinstance(a, Export) for a in actions):
            exported.append(sent)
        last = exported and any(isinstance(a, Countersign) for a in actions)
        return "silent" if last else ""

    network.fault = fault
    with pytest.raises(EngineError, match="but not signed by"):
        go(banks, network)
    network.fault = lambda name, actions, sent: ""
    verified(banks, go(banks, network))


# -- who is there ----------------------------------------------------------------------


def test_two_nodes_of_one_member_end_it_before_it_begins(tmp_path: Path) -> None:
    banks = Banks(tmp_path)
    network = Network(banks)
    network.extra = {900: VICTIM}
    with pytest.raises(EngineError, match=f"two nodes are {VICTIM}"):
        go(banks, network)
    assert banks.states(VICTIM) == []


def test_a_second_node_puts_its_member_out_until_one_is_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It does not end a run that is under way, and answers nothing in it."""
    monkeypatch.setattr("secure_fl.engines.remote._GRACE", 0.1)
    banks = Banks(tmp_path)
    network = Network(banks)

    def crash(name: str, actions: tuple[Action, ...], sent: int) -> str:
        return "crash" if isinstance(actions[-1], Open) and banks.trained else ""

    network.fault = crash
    with pytest.raises(KeyboardInterrupt):  # behind the first round
        go(banks, network)
    network.extra = {900: VICTIM, 901: VICTIM}

    def until_the_last(name: str, actions: tuple[Action, ...], sent: int) -> str:
        if any(isinstance(a, Open) and a.round_index == 1 for a in actions):
            network.extra = {}
        return ""

    network.fault = until_the_last
    run = go(banks, network)
    assert survivors(run) == [
        list(NAMES),
        [n for n in NAMES if n != VICTIM],
        list(NAMES),
    ]
    verified(banks, run)


def test_a_member_is_out_while_both_of_its_nodes_are_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where one of both says nothing.  Who was silent is asked last."""
    monkeypatch.setattr("secure_fl.engines.remote._GRACE", 0.0)
    banks = Banks(tmp_path)
    network, own, other = Network(banks), banks.nodes[VICTIM], 90
    clients = RemoteClients(
        banks.plan,
        banks.aggregator,
        network,
        patience=0.5,
        status=Status(banks.plan, tmp_path),
        random=RANDOM,
    )

    def is_in() -> bool:
        clients.resume([])  # looks who is there
        found = latest(tmp_path)
        assert found is not None
        return {m.name: m.connected for m in found[0].members}[VICTIM]

    network.extra = {other: VICTIM}
    assert not is_in()
    for silent in (own, other):
        network.mute = {silent}
        assert not is_in()
        assert not is_in()
        assert network.asked[-1] == silent
        network.mute.clear()
        assert not is_in()
    for mute in ({own, other}, {own}, set[int]()):
        network.mute = mute
        assert not is_in()
    network.extra = {}
    assert is_in()


def test_a_ledger_that_does_not_hold_is_asked_for_again(tmp_path: Path) -> None:
    banks = Banks(tmp_path)
    network = Network(banks)
    forged: list[str] = []

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        if isinstance(actions[-1], Export) and name == VICTIM and not forged:
            forged.append(name)
            return "forged"
        return ""

    network.fault = fault
    run = go(banks, network)
    assert forged == [VICTIM]
    verified(banks, run)


def test_one_budget_that_is_spent_ends_no_run(tmp_path: Path) -> None:
    """Whoever says so leaves a round that fails, and the next ones are begun."""
    banks = Banks(tmp_path)

    def spent(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        raise BudgetExceeded(VICTIM, spent=1.0, projected=2.0, limit=1.0, delta=1e-5)

    banks.trainers[VICTIM] = spent
    network = Network(banks)

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        first = any(isinstance(a, Train) and a.round_index == 0 for a in actions)
        return "lost" if first and name in NAMES[2:] else ""

    network.fault = fault
    run = go(banks, network)
    without = [n for n in NAMES if n != VICTIM]
    assert survivors(run) == [without, without]
    verified(banks, run)


def test_a_stranger_is_left_alone(tmp_path: Path) -> None:
    """A node of another consortium on the same network."""
    for name in ("ours", "theirs", "mixed"):
        (tmp_path / name).mkdir()
    banks = Banks(tmp_path / "ours")
    other = Banks(tmp_path / "theirs")

    class Mixed(Banks):
        def member(self, name: str) -> Any:
            return (
                other.member("bank-a") if name == "stranger" else super().member(name)
            )

    mixed = Mixed(tmp_path / "mixed")
    network = Network(mixed)
    network.extra = {901: "stranger"}
    run = go(mixed, network)
    assert survivors(run)[0] == list(NAMES)
    assert banks.states("bank-a") == []


def test_who_has_not_joined_is_named(tmp_path: Path) -> None:
    banks = Banks(tmp_path, joined=tuple(n for n in NAMES if n != VICTIM))
    with pytest.raises(EngineError, match=f"not there: {VICTIM}"):
        go(banks, Network(banks), patience=0.3)


def test_a_members_words_cannot_move_the_cursor() -> None:
    """They reach the log that everyone reads, and whoever looks at it on a terminal."""
    words = "\x1b[2J\r" + 2000 * "x"
    reply = Reply.of(Reply((), Failure(0, "client", words, words)).to_parcel())
    assert reply.failure is not None
    assert str(reply.failure.to_error()).isprintable()
    assert len(reply.failure.client) == 31
    assert len(reply.failure.reason) == 1000


# -- what it refuses before anybody is asked -------------------------------------------


def test_refused_before_anything_is_sent(tmp_path: Path) -> None:
    banks = Banks(tmp_path)
    network = Network(banks)
    out, state = tmp_path / "out", tmp_path / "state"
    stranger = Identity.new("aggregator", random=RANDOM)
    with pytest.raises(UsageError, match="names another aggregator"):
        aggregate(banks.plan, stranger, network, out=out, state=state)
    with pytest.raises(PlanError, match="not complete"):
        aggregate(banks.source, banks.aggregator, network, out=out, state=state)
    with pytest.raises(UsageError, match="state would lie in"):
        aggregate(
            banks.plan, banks.aggregator, network, out=out, state=out, model=MODEL
        )
    other = MODEL.add(np.ones(MODEL.size))
    with pytest.raises(PlanError, match="another model"):
        aggregate(
            banks.plan, banks.aggregator, network, out=out, state=state, model=other
        )
    assert network.exchanges == 0


def test_a_strategy_of_its_own_moves_the_model(tmp_path: Path) -> None:
    banks = Banks(tmp_path)
    steps: list[int] = []

    def half(index: int, moved: sfl.GlobalModel) -> sfl.GlobalModel:
        steps.append(index)
        return moved.add(-0.5 * moved.flatten())

    run = go(banks, Network(banks), move=half)
    assert steps == [0, 1, 2]
    sfl.verify_run(tmp_path / "out")
    mean = np.mean([banks.vectors[n] for n in NAMES], axis=0)
    np.testing.assert_allclose(run.model.flatten(), 0.875 * mean, atol=1e-6)
