# SPDX-License-Identifier: Apache-2.0
"""Members as an aggregator across machines meets them, each request a new process.

Whole rounds, what a network may do (lose, repeat, delay), and what a member's own host
may do meanwhile.  What an aggregator may say is in test_member_lies.py.
"""

from __future__ import annotations

import multiprocessing
import stat
import time
from pathlib import Path

import numpy as np
import pytest

import secure_fl as sfl
from secure_fl import wire
from secure_fl.engines.requests import (
    Action,
    Begin,
    Conclude,
    Countersign,
    Export,
    Hello,
    Message,
    Open,
    Release,
    Reply,
    Train,
    hello_statement,
)
from secure_fl.errors import BudgetExceeded, EngineError, UsageError
from secure_fl.identity import Identity
from secure_fl.plan import verify_endorsement
from secure_fl.privacy import NonPrivate, read_export
from secure_fl.transcript import KEY_HOLDER

from .banks import MODEL, NOW, PROTECTIONS, RANDOM, Banks, Update, why

THREE = ("bank-a", "bank-b", "bank-c")
ME = "bank-a"


@pytest.fixture
def banks(tmp_path: Path) -> Banks:
    """Three members who have begun."""
    made = Banks(tmp_path, names=THREE)
    made.begin()
    return made


def hello_holds(banks: Banks, name: str, key: bytes, pieces: list[bytes]) -> bool:
    label, parts = hello_statement(
        plan_hash=banks.plan.hash,
        run_id=banks.run_id,
        member=name,
        node=banks.nodes[name],
        nonce=b"n" * 32,
    )
    return pieces[0] == name.encode() and wire.verify(key, pieces[1], label, parts)


# -- rounds ----------------------------------------------------------------------------


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_whole_rounds_of_new_processes(tmp_path: Path, protection: str) -> None:
    banks = Banks(tmp_path, protection)
    for name in banks.names:
        pieces = banks.get(name, Hello(b"n" * 32), member="")
        assert hello_holds(banks, name, banks.identities[name].public_key, pieces)
        verify_endorsement(banks.plan, name, pieces[2])
    banks.begin()
    everyone = banks.one_round(0)
    assert everyone.survivors == banks.names
    fewer = banks.one_round(1, silent=["bank-d"])
    assert fewer.survivors == banks.names[:3]
    assert banks.is_exact(everyone)
    assert banks.is_exact(fewer)
    assert banks.trained == [(n, 0) for n in banks.names] + [
        (n, 1) for n in banks.names[:3]
    ]
    assert banks.states(ME) == ["released", "released"]
    assert banks.states("bank-d") == ["released"]
    for name in banks.names:
        key = banks.identities[name].public_key
        exported = read_export(banks.export(name), public_key=key, client=name)
        assert len(exported.releases()) == len(banks.states(name))


def test_a_home_is_closed_and_its_plans_and_runs_hold_no_secret(banks: Banks) -> None:
    banks.one_round(0)
    home = banks.homes[ME].folder
    assert stat.S_IMODE(home.stat().st_mode) == 0o700
    files = [path for path in home.rglob("*") if path.is_file()]
    assert all(stat.S_IMODE(path.stat().st_mode) == 0o600 for path in files)
    beside = {str(path.relative_to(home)) for path in files if path.parent != home}
    plan, run = banks.plan.hash.hex(), banks.run_id.hex()
    kept = [f"plans/{plan}/{x}" for x in ("plan.toml", "endorsement", "settings.toml")]
    kept += [f"runs/{run}/{x}" for x in ("begin.cbor", "model.safetensors")]
    assert beside == {*kept, f"runs/{run}/training.lock"}
    # What is there is what the aggregator has too, but for paths and a public proof.
    assert (home / kept[0]).read_bytes() == banks.plan.source
    assert (home / kept[4]).read_bytes() == MODEL.to_bytes()
    assert (home / kept[3]).read_bytes() == wire.encode(list(banks.first_entries()))


def test_an_update_that_no_sum_holds_is_freed_and_goes_on(tmp_path: Path) -> None:
    banks = Banks(tmp_path)
    banks.begin()
    a = banks.open((0, 0))
    for _ in range(2):  # to the shares, then to the vectors
        for name, message in banks.step(a).items():
            pieces = banks.get(name, Train(0, 0), Message(message))
            if name != "bank-d" or a.step != "vectors":
                banks.take(a, name, pieces)
    for name, message in banks.step(a).items():  # a statement without bank-d
        banks.take(a, name, banks.get(name, Message(message)))
    assert "bank-d" not in banks.step(a)
    assert len(a.omission) == 2
    assert [banks.states(n) for n in banks.names] == [["sent"]] * 4
    # Everybody gets the proof; it frees whom it omits, and hinders nobody else.
    body = MODEL.to_bytes()
    for name in banks.names:
        assert banks.get(name, Release(a.omission), Open(0, 1), body=body)
    assert banks.states("bank-d") == ["omitted"]
    assert banks.states(ME) == ["sent"]
    banks.trained.clear()
    for name in banks.names:
        banks.get(name, Train(0, 1))
    assert banks.trained == [(n, 0) for n in banks.names[:3]]
    assert banks.states("bank-d") == ["omitted"], "one charge for both attempts"
    assert banks.states(ME) == ["sent", "reserved"]


def test_a_wrong_proof_frees_nothing_and_hinders_nothing(banks: Banks) -> None:
    a = banks.open((0, 0))
    for _ in range(2):
        for name, message in banks.step(a).items():
            banks.take(a, name, banks.get(name, Train(0, 0), Message(message)))
    for proof in ((), (b"",), (b"x", b"y")):
        assert not banks.get(ME, Release(proof))
    assert banks.states(ME) == ["sent"]


def test_the_model_of_each_round_takes_the_place_of_the_last(banks: Banks) -> None:
    banks.one_round(0)
    banks.model = MODEL.add(np.full(MODEL.size, 0.5))
    seen: list[bytes] = []

    def look(r: sfl.ClientRound) -> Update:
        seen.append(r.model.digest())
        return banks.private(ME)(r)

    banks.trainers[ME] = look
    banks.one_round(1)
    assert seen == [banks.model.digest()]
    kept = banks.homes[ME].model(banks.run_id)
    assert kept.digest() == banks.model.digest()


# -- a network that repeats, delays and reorders ---------------------------------------


def test_every_request_twice(banks: Banks) -> None:
    """Whatever changes something gives its pieces once, and the round goes on."""
    again: list[tuple[tuple[Action, ...], Reply]] = []
    ask = banks.ask

    def twice(name: str, *actions: Action, **other: object) -> Reply:
        reply = ask(name, *actions, **other)
        if name == ME:
            again.append((actions, ask(name, *actions, **other)))
        return reply

    banks.ask = twice  # type: ignore[method-assign]
    banks.get(ME, Hello(bytes(32)))
    banks.begin()
    opened = banks.one_round(0)
    exported = banks.export(ME)
    assert ME in opened.survivors
    assert banks.is_exact(opened)
    assert banks.states(ME) == ["released"]
    assert banks.trained.count((ME, 0)) == 1
    harmless = (Hello, Begin, Train, Countersign, Conclude, Export)
    kinds = {type(action) for actions, _ in again for action in actions}
    assert kinds == {*harmless, Open, Message}
    for actions, reply in again:
        if isinstance(actions[-1], harmless):
            assert reply.failure is None
        else:
            assert not reply.pieces
            assert isinstance(why(reply), EngineError)
        if isinstance(actions[-1], Export):
            assert [p for _, p in reply.pieces] == [exported]


def test_requests_of_a_round_that_is_over_change_nothing(banks: Banks) -> None:
    old: list[tuple[Action, ...]] = []
    ask = banks.ask

    def heard(name: str, *actions: Action, **other: object) -> Reply:
        if name == ME:
            old.append(actions)
        return ask(name, *actions, **other)

    with pytest.MonkeyPatch.context() as m:
        m.setattr(banks, "ask", heard)
        banks.one_round(0)
    banks.model = MODEL.add(np.full(MODEL.size, 0.5))
    a = banks.open((1, 0))
    before = banks.states(ME)
    for actions in old:
        reply = banks.ask(ME, *actions, body=MODEL.to_bytes())
        signs = isinstance(actions[0], Countersign)
        assert len(reply.pieces) == signs  # the same signature, over the same log
    assert banks.states(ME) == before
    opened = banks.to_the_end(a)
    assert opened is not None
    assert ME in opened.survivors


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_message_that_is_late_for_its_attempt(
    tmp_path: Path, protection: str
) -> None:
    banks = Banks(tmp_path, protection, names=THREE)
    banks.begin()
    a = banks.open((0, 0))
    while ME not in (late := banks.step(a)):
        for name, message in late.items():
            banks.take(a, name, banks.get(name, Message(message)))
    a = banks.open((0, 1))
    assert isinstance(why(banks.ask(ME, Message(late[ME]))), EngineError)
    opened = banks.to_the_end(a)
    assert opened is not None
    assert ME in opened.survivors


def test_a_request_that_fails_is_done_up_to_there(banks: Banks) -> None:
    a = banks.open((0, 0))
    messages = banks.step(a)
    reply = banks.ask(ME, Hello(bytes(32)), Train(0, 7), Message(messages[ME]))
    assert len(reply.of_action(0)) == 3
    assert reply.failure is not None
    assert reply.failure.action == 1
    assert not reply.of_action(2)
    assert not banks.trained
    # What was not reached is still to be had.
    assert len(banks.get(ME, Message(messages[ME]))) == 1


def test_a_signature_that_was_lost_is_given_again(banks: Banks) -> None:
    a = banks.open((0, 0))
    opened = banks.to_the_end(a)
    assert opened is not None
    entry = banks.entry_of(opened)
    rows = banks.rows(ME, entry)
    assert banks.states(ME) == ["sent"]
    assert banks.get(ME, rows) == banks.get(ME, rows)
    # The round's end may be lost, too: what it has signed tells its ledger.
    assert banks.states(ME) == ["released"]
    # A tail may begin before what was signed last, and not behind it.
    banks.log.append("failure", {0: 1, 1: 0, 2: "none", 3: ""})
    last = banks.log.entries[-1]
    for first in (0, entry.sequence, entry.sequence + 1):
        tail = tuple(e.data for e in banks.log.entries[first:])
        assert len(banks.get(ME, Countersign(first, tail))) == 1
    banks.log.append("failure", {0: 1, 1: 1, 2: "none", 3: ""})
    beyond = banks.log.append("failure", {0: 1, 1: 2, 2: "none", 3: ""})
    reply = banks.ask(ME, Countersign(last.sequence + 2, (beyond.data,)))
    assert "does not continue" in str(why(reply))


# -- a host that does several things at once, or badly ---------------------------------


@pytest.mark.parametrize("kind", ["private", "unprotected"])
def test_two_processes_that_are_asked_to_train(banks: Banks, kind: str) -> None:
    """The second waits for the first, and has nothing left to do."""
    fork = multiprocessing.get_context("fork")
    begun, answers = fork.SimpleQueue(), fork.SimpleQueue()
    make = getattr(banks, kind)(ME)

    def train(r: sfl.ClientRound) -> Update:
        begun.put(None)
        time.sleep(0.5)  # the other one is there by now
        return make(r)  # type: ignore[no-any-return]

    def one() -> None:
        answers.put(banks.ask(ME, Train(0, 0)).failure is None)

    banks.trainers[ME] = train
    banks.open((0, 0))
    processes = [fork.Process(target=one) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(timeout=120)
    assert [process.exitcode for process in processes] == [0, 0]
    assert [answers.get(), answers.get()] == [True, True]
    begun.get()
    assert begun.empty()
    assert banks.states(ME) == ["reserved"]


def test_a_key_message_is_answered_while_it_trains(banks: Banks) -> None:
    a = banks.open((0, 0))
    messages = banks.step(a)

    def train(r: sfl.ClientRound) -> Update:
        banks.take(a, ME, banks.get(ME, Message(messages[ME])))
        return banks.private(ME)(r)

    banks.trainers[ME] = train
    banks.get(ME, Train(0, 0))
    for name in THREE[1:]:
        banks.take(a, name, banks.get(name, Train(0, 0), Message(messages[name])))
    opened = banks.to_the_end(a)
    assert opened is not None
    assert opened.survivors == THREE
    assert banks.is_exact(opened)


def test_a_training_that_outlasts_its_round_makes_no_update_of_the_next(
    banks: Banks,
) -> None:
    def train(r: sfl.ClientRound) -> Update:
        if r.round == 0:
            banks.get(ME, Conclude(0, False))
            banks.get(ME, Open(1, 0), body=MODEL.to_bytes())
            with pytest.raises(UsageError, match="the attempt is over"):
                r._reserve()
        return banks.unprotected(ME)(r)

    banks.trainers[ME] = train
    banks.open((0, 0))
    assert isinstance(why(banks.ask(ME, Train(0, 0))), EngineError)
    assert banks.states(ME) == []
    banks.get(ME, Train(1, 0))
    assert banks.states(ME) == ["reserved"]


def test_a_trainer_that_fails_is_a_dropout_and_keeps_its_words(banks: Banks) -> None:
    secret = "row 17 holds the patient's name"

    def train(r: sfl.ClientRound) -> Update:
        raise ValueError(secret)

    banks.trainers[ME] = train
    banks.open((0, 0))
    request = banks.request(ME, Train(0, 0)).to_parcel(banks.aggregator)
    answer = banks.member(ME).handle(request, node=banks.nodes[ME])
    assert secret.encode() not in answer.head
    assert str(why(Reply.of(answer))) == "EngineError"
    banks.trainers[ME] = banks.private(ME)
    banks.get(ME, Open(0, 1), body=MODEL.to_bytes())
    banks.get(ME, Train(0, 1))
    assert banks.states(ME) == ["reserved"]


def test_a_training_that_was_cut_off_is_not_begun_again(banks: Banks) -> None:
    def train(r: sfl.ClientRound) -> Update:
        r._reserve()
        raise KeyboardInterrupt  # which no handler takes for an error

    banks.trainers[ME] = train
    banks.open((0, 0))
    with pytest.raises(KeyboardInterrupt):
        banks.ask(ME, Train(0, 0))
    banks.trainers[ME] = banks.private(ME)
    assert isinstance(why(banks.ask(ME, Train(0, 0))), EngineError)
    assert banks.states(ME) == ["reserved"]
    banks.get(ME, Open(0, 1), body=MODEL.to_bytes())
    banks.get(ME, Train(0, 1))
    assert banks.states(ME) == ["reserved", "reserved"]


def test_a_model_that_was_lost_is_not_trained_from(banks: Banks) -> None:
    """The process that opened was killed, or its disk was full, before the model."""
    banks.open((0, 0))
    banks.homes[ME].keep_model(banks.run_id, MODEL.add(np.ones(MODEL.size)))
    assert isinstance(why(banks.ask(ME, Train(0, 0))), EngineError)
    assert not banks.trained
    assert banks.states(ME) == []


def test_a_budget_that_is_spent_elsewhere_ends_it_uncharged(banks: Banks) -> None:
    banks.open((0, 0))
    plan, ledger = banks.plan, banks.homes[ME].ledger(ME)
    ledger.reserve(
        plan.lineage,
        run_id=bytes(16),
        round_index=0,
        attempt=0,
        event=NonPrivate("another run"),
        unit=plan.privacy.unit,
        adjacency=plan.privacy.adjacency,
        delta=plan.privacy.delta,
        limit=float("inf"),
        now=NOW,
    )
    ledger.close()
    assert isinstance(why(banks.ask(ME, Train(0, 0))), BudgetExceeded)
    assert banks.states(ME) == ["reserved"], "the other one"
    # A run that cannot be finished is not begun, either.
    run = banks.homes[ME].folder / "runs" / banks.run_id.hex()
    (run / "begin.cbor").unlink()
    assert isinstance(why(banks.ask(ME, Begin(banks.first_entries()))), BudgetExceeded)


def test_another_key_in_the_place_of_a_members(banks: Banks) -> None:
    banks.keys[ME].unlink()
    Identity.new(ME, random=RANDOM).save(banks.keys[ME])
    assert str(why(banks.ask(ME, Hello(bytes(32))))) == "UsageError"


# -- the key holder --------------------------------------------------------------------


def test_a_key_holder_answers_its_own_part_only(tmp_path: Path) -> None:
    banks = Banks(tmp_path, "keyholder", joined=(KEY_HOLDER, ME))
    pieces = banks.get(KEY_HOLDER, Hello(b"n" * 32), member="")
    assert pieces[2] == b""
    key = banks.identities["keyholder"].public_key
    assert hello_holds(banks, KEY_HOLDER, key, pieces)
    others: list[Action] = [
        Begin(banks.first_entries()),
        Open(0, 0),
        Train(0, 0),
        Release(()),
        Countersign(0, ()),
        Conclude(0, True),
        Export(),
    ]
    for action in others:
        assert "what members do" in str(why(banks.ask(KEY_HOLDER, action)))
    (call,) = banks.aggregation(0, 0).outgoing.values()
    assert len(banks.get(KEY_HOLDER, Message(call))) == 1
    # A member takes nothing that is meant for the key holder, nor the other way round.
    reply = banks.ask(ME, Message(call), member=KEY_HOLDER)
    assert "another member" in str(why(reply))
    assert not (banks.homes[KEY_HOLDER].folder / "ledger.sqlite").exists()
