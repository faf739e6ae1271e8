# SPDX-License-Identifier: Apache-2.0
"""What a member refuses: lies of an aggregator or a network, and its own policy."""

from __future__ import annotations

import contextlib
import hashlib
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_fl import wire
from secure_fl.engines.home import MemberHome
from secure_fl.engines.requests import (
    SPEC,
    Action,
    Begin,
    Conclude,
    Countersign,
    Export,
    Hello,
    Message,
    Open,
    Parcel,
    Release,
    Reply,
    Train,
    TrainEarly,
)
from secure_fl.errors import (
    BudgetExceeded,
    ConsentRefused,
    EngineError,
    FaultyAggregator,
    PlanError,
    ProtocolError,
    UsageError,
)
from secure_fl.identity import Identity, key_to_text
from secure_fl.model import GlobalModel
from secure_fl.plan import endorse
from secure_fl.transcript import Transcript

from .banks import MODEL, NOW, RANDOM, Banks, why

NAMES = ("bank-a", "bank-b", "bank-c")
ME = "bank-a"
NONCE = bytes(32)


@pytest.fixture
def bank(tmp_path: Path) -> Banks:
    """One member that has joined; the other two are names and keys."""
    return Banks(tmp_path, names=NAMES, joined=(ME,))


@pytest.fixture
def begun(bank: Banks) -> Banks:
    bank.begin()
    return bank


# -- who asks, and whom ----------------------------------------------------------------


def _parts(parcel: Parcel) -> tuple[str, list[Any], bytes]:
    match wire.decode(parcel.head):
        case [str(spec), list(signed), bytes(signature)]:
            return spec, signed, signature
    raise AssertionError("no request")


def test_what_does_not_parse_is_answered_with_a_reason(begun: Banks) -> None:
    whole = begun.request(ME, Open(0, 0), body=MODEL.to_bytes())
    parcel = whole.to_parcel(begun.aggregator)
    _, signed, signature = _parts(parcel)
    broken = [
        Parcel(b""),
        Parcel(b"\xff" * 100),
        Parcel(parcel.head[:-1], parcel.body),
        Parcel(parcel.head, ()),
        Parcel(parcel.head, (*parcel.body, b"x")),
        Parcel(wire.encode(["another protocol", signed, signature]), parcel.body),
        Parcel(wire.encode([SPEC, signed]), parcel.body),
        Parcel(wire.encode([SPEC, [*signed[:4], [[99]], signed[5]], signature])),
        Parcel(wire.encode([SPEC, [b"/" * 99, *signed[1:]], signature]), parcel.body),
        Parcel(wire.encode([SPEC, [signed[0], b"", *signed[2:]], signature])),
    ]
    for damaged in broken:
        assert isinstance(why(begun.send(ME, damaged)), ProtocolError)
    assert begun.get(ME, Open(0, 0), body=MODEL.to_bytes())


def test_only_the_plans_aggregator_is_obeyed(begun: Banks) -> None:
    for liar in (Identity.new("liar", random=RANDOM), begun.identities["bank-b"]):
        parcel = begun.request(ME, Export()).to_parcel(liar)
        assert "not signed by the plan's" in str(why(begun.send(ME, parcel)))
    parcel = begun.request(ME, Hello(NONCE)).to_parcel(begun.aggregator)
    spec, signed, signature = _parts(parcel)
    # Nothing of what was signed can be exchanged: not the actions, and not the body.
    for place, value in (
        (3, begun.nodes[ME] + 1),
        (4, [[8]]),
        (5, hashlib.sha256(b"other").digest()),
    ):
        changed = [*signed]
        changed[place] = value
        body = (b"other",) if place == 5 else ()
        lie = Parcel(wire.encode([spec, changed, signature]), body)
        assert "not signed by the plan's" in str(why(begun.send(ME, lie)))


@pytest.mark.parametrize(
    ("lie", "reason"),
    [
        ({"node": 7}, "another node"),
        ({"member": "bank-b"}, "another member"),
        ({"member": ""}, "another member"),
        ({"run_id": bytes(16)}, "another run"),
        ({"plan_hash": bytes(32)}, "secure-fl join"),
    ],
)
def test_a_request_for_somebody_else(
    begun: Banks, lie: dict[str, Any], reason: str
) -> None:
    error = why(begun.ask(ME, Hello(NONCE), Export(), **lie))
    assert isinstance(error, ProtocolError)
    assert reason in str(error)


def test_a_plan_that_was_left_is_answered_no_more(begun: Banks) -> None:
    home = begun.homes[ME]
    home.leave(begun.plan.hash)
    error = why(begun.ask(ME, Hello(NONCE)))
    assert "was left" in str(error)
    with pytest.raises(UsageError, match="was left"):
        home.leave(begun.plan.hash)
    begun.join(ME)  # consents anew, and the run goes on
    assert begun.get(ME, Open(0, 0), body=MODEL.to_bytes())


def test_a_plan_that_was_changed_at_home_is_not_served(begun: Banks) -> None:
    path = begun.homes[ME].folder / "plans" / begun.plan.hash.hex() / "plan.toml"
    path.write_bytes(begun.plan.source + b"\n")
    assert isinstance(why(begun.ask(ME, Hello(NONCE))), EngineError)


# -- how a run begins ------------------------------------------------------------------


def test_nothing_comes_before_the_beginning(bank: Banks) -> None:
    actions: list[Action] = [
        Open(0, 0),
        Train(0, 0),
        Message(b""),
        Release(()),
        Countersign(0, ()),
        Conclude(0, False),
        Export(),
    ]
    for action in actions:
        error = why(bank.ask(ME, action, body=MODEL.to_bytes()))
        assert "has not begun" in str(error)
    assert not bank.trained


def _other_start(**fields: Any) -> Callable[[Banks], Transcript]:
    def made(bank: Banks) -> Transcript:
        log = Transcript(bank.run_id)
        bank.begin_log(log, **fields)
        return log

    return made


def _signed_by_another(bank: Banks) -> Transcript:
    bought = endorse(bank.plan, Identity.new("bank-c", random=RANDOM))
    return _other_start(**{"bank-c": bought})(bank)


def _for_another_plan(bank: Banks) -> Transcript:
    older = endorse(bank.instance(bank.source), bank.identities["bank-b"])
    return _other_start(**{"bank-b": older})(bank)


def _missing(bank: Banks) -> Transcript:
    log = _other_start()(bank)
    log.entries.pop()
    return log


def _one_twice(bank: Banks) -> Transcript:
    log = _missing(bank)
    log.append("endorsement", log.entries[-1].body)
    return log


def _something_behind(bank: Banks) -> Transcript:
    log = _other_start()(bank)
    log.append("failure", {0: 0, 1: 0, 2: "nothing", 3: ""})
    return log


def _nothing(bank: Banks) -> Transcript:
    return Transcript(bank.run_id)


def _of_another_run(bank: Banks) -> Transcript:
    """The run id that it says is right; the chain hangs on another."""
    log = Transcript(bytes(16))
    bank.begin_log(log)
    return log


@pytest.mark.parametrize(
    "lie",
    [
        _other_start(plan=bytes(32)),
        _other_start(run=bytes(16)),
        _other_start(aggregator=bytes(32)),
        _other_start(simulation=1),
        _of_another_run,
        _signed_by_another,
        _for_another_plan,
        _missing,
        _one_twice,
        _something_behind,
        _nothing,
    ],
)
def test_a_beginning_that_not_all_endorsed(
    bank: Banks, lie: Callable[[Banks], Transcript]
) -> None:
    entries = tuple(e.data for e in lie(bank).entries)
    assert isinstance(why(bank.ask(ME, Begin(entries))), FaultyAggregator)
    bank.begin()  # the true one still may


def test_a_log_whose_entries_are_no_chain(bank: Banks) -> None:
    first = bank.first_entries()
    for entries in (first[1:], first[::-1], (*first[:-1], b"\x00"), (b"", *first)):
        assert isinstance(why(bank.ask(ME, Begin(entries))), ProtocolError)


def test_a_run_begins_once(begun: Banks) -> None:
    other = Transcript(begun.run_id)
    begun.begin_log(other, tool="another")
    entries = tuple(e.data for e in other.entries)
    assert "another log" in str(why(begun.ask(ME, Begin(entries))))
    begun.begin()  # an aggregator that was started again says the same again


# -- an attempt ----------------------------------------------------------------------


def test_a_run_starts_from_the_plans_model(begun: Banks) -> None:
    other = MODEL.add(np.ones(MODEL.size))
    error = why(begun.ask(ME, Open(0, 0), body=other.to_bytes()))
    assert "not the plan's start" in str(error)
    assert isinstance(error, FaultyAggregator)
    for body in (b"", b"no model", MODEL.to_bytes()[:-1]):
        error = why(begun.ask(ME, Open(0, 0), body=body))
        assert isinstance(error, FaultyAggregator)
    assert begun.get(ME, Open(0, 0), body=MODEL.to_bytes())


def test_the_arrays_of_a_model_stay_what_they_are(begun: Banks) -> None:
    begun.get(ME, Open(0, 0), body=MODEL.to_bytes())
    head = MODEL.arrays["head"]
    for arrays in ({"head": head[:1]}, {"tail": head}, {"head": head, "tail": head}):
        body = GlobalModel(arrays).to_bytes()
        error = why(begun.ask(ME, Open(1, 0), body=body))
        assert "other arrays" in str(error)
        assert isinstance(error, FaultyAggregator)
    moved = MODEL.add(np.ones(MODEL.size))
    assert begun.get(ME, Open(1, 0), body=moved.to_bytes())


def test_an_update_is_begun_once_and_where_its_attempt_was_opened(
    tmp_path: Path,
) -> None:
    """However often, wherever and in whatever order an aggregator asks for it."""
    bank = Banks(tmp_path, names=NAMES, joined=(ME,), rounds="train_early = true")
    bank.begin()
    begun: list[Callable[[], None]] = []
    bank.behind = begun.append
    body = MODEL.to_bytes()
    bank.get(ME, *[TrainEarly(0, 0)] * 3)
    bank.get(ME, TrainEarly(0, 0), Open(0, 0), TrainEarly(0, 1), body=body)
    assert not begun
    early: list[Action] = [Open(0, 1), *[TrainEarly(0, 1)] * 5]
    parcel = bank.request(ME, *early, body=body).to_parcel(bank.aggregator)
    assert bank.send(ME, parcel).failure is None
    assert len(begun) == 1
    for _ in range(3):
        assert why(bank.send(ME, parcel))
        bank.get(ME, TrainEarly(0, 1))
    assert len(begun) == 1
    begun[0]()
    assert bank.trained == [(ME, 0)]


def test_what_was_lost_begins_no_second_log(begun: Banks) -> None:
    """A keystore that lost a run's state: its member is out, and signs nothing."""
    store = begun.homes[ME].folder / "keystore.sqlite"
    with contextlib.closing(sqlite3.connect(store)) as db:
        db.execute("DELETE FROM parked")
        db.commit()
    entries = begun.first_entries()
    for action in (Begin(entries), Open(0, 0), Countersign(0, entries)):
        reply = begun.ask(ME, action, body=MODEL.to_bytes())
        assert isinstance(why(reply), EngineError)


def test_a_log_that_names_another_start_is_found_out(bank: Banks) -> None:
    bank.begin_log(bank.log, model=bytes(32))
    bank.begin()
    error = why(bank.ask(ME, Open(0, 0), body=MODEL.to_bytes()))
    assert "not the plan's start" in str(error)


def test_actions_out_of_order(begun: Banks) -> None:
    a = begun.aggregation(0, 0)
    for action in (Train(0, 0), Message(b""), Open(3, 0), Open(0, 2**32)):
        assert why(begun.ask(ME, action, body=MODEL.to_bytes()))
    assert not begun.get(ME, Conclude(0, True)), "nothing to end"
    begun.get(ME, Open(1, 0), body=MODEL.to_bytes())
    for action in (Open(0, 0), Open(1, 0), Train(0, 0), Train(1, 1), Train(2, 0)):
        assert why(begun.ask(ME, action, body=MODEL.to_bytes()))
    for round_index in (0, 2):
        assert not begun.get(ME, Conclude(round_index, False))
    assert not begun.trained
    assert a.step == "keys"
    begun.get(ME, Train(1, 0))  # it is still in its attempt
    assert begun.states(ME) == ["reserved"]
    assert isinstance(why(begun.ask(ME, Conclude(1, True))), FaultyAggregator)
    begun.get(ME, Conclude(1, False))
    assert begun.states(ME) == ["aborted"]
    for action in (Train(1, 0), Open(1, 1)):
        assert why(begun.ask(ME, action, body=MODEL.to_bytes()))


def test_a_log_that_leaves_out_or_adds_is_not_signed(begun: Banks) -> None:
    (advertise,) = begun.get(ME, Open(0, 0), body=MODEL.to_bytes())
    a, entries = begun.aggregation(0, 0), len(begun.log.entries)
    place: dict[int, Any] = {0: 0, 1: 0, 2: a.session.ctx, 3: [ME], 4: 1, 6: 0}
    opened = {**place, **dict.fromkeys((5, 7, 8), bytes(32))}

    def signed(*messages: bytes) -> Reply:
        del begun.log.entries[entries:]
        for message in messages:
            begun.note(a, ME, "", message)
        begun.log.append("round", opened)
        rows = tuple(e.data for e in begun.log.entries)
        return begun.ask(ME, Countersign(0, rows))

    assert "gave nothing to" in str(why(signed(advertise)))
    plan = begun.plan
    with contextlib.closing(begun.homes[ME].ledger(ME)) as ledger:
        reservation = ledger.reserve(
            plan.lineage,
            run_id=begun.run_id,
            round_index=0,
            attempt=0,
            event=plan.release,
            unit=plan.privacy.unit,
            adjacency=plan.privacy.adjacency,
            delta=plan.privacy.delta,
            limit=plan.privacy.epsilon,
            now=NOW,
            view=plan.view,
        )
        ledger.sent(reservation, ctx=a.session.ctx, now=NOW)
    for messages in ((), (advertise, advertise), (advertise[:-1] + b"x",)):
        assert "as we sent them" in str(why(signed(*messages)))
    assert signed(advertise).failure is None
    assert "does not continue" in str(why(signed()))
    rows = tuple(e.data for e in begun.log.entries)
    for first, tail in ((1, rows), (0, rows[::-1]), (0, ()), (4, (b"",))):
        assert isinstance(why(begun.ask(ME, Countersign(first, tail))), ProtocolError)


# -- its own policy ------------------------------------------------------------------


def policy(bank: Banks, **lines: str) -> Path:
    """A policy that allows the plan of ``bank`` and private updates; or ``lines``."""
    entries = {
        "schema": '"secure-fl/policy/1"',
        "year": "2023",
        "lineage": '"clinics"',
        "largest_epsilon": "50.0",
        "largest_epsilon_per_year": "50.0",
        "largest_delta": "1e-5",
        "smallest_cohort": "3",
        "smallest_min_clients": "3",
        "smallest_max_colluding": "1",
        "modes": '["local"]',
        "protections": '["masking"]',
        "models": f'["{bank.plan.model.start_sha256}"]',
        "aggregators": f'["{key_to_text(bank.aggregator.public_key)}"]',
    } | lines
    path = bank.folder / "my policy.toml"
    path.write_text("".join(f"{key} = {value}\n" for key, value in entries.items()))
    return path


def test_what_a_policy_refuses_is_not_joined(tmp_path: Path) -> None:
    bank = Banks(tmp_path, names=NAMES, joined=())
    strict = policy(bank, smallest_cohort="5")
    with pytest.raises(ConsentRefused, match="line 7: smallest_cohort = 5"):
        bank.join(ME, policy=strict)
    assert not (bank.homes[ME].folder / "policy.toml").exists()
    with pytest.raises(UsageError, match="was not joined"):
        bank.homes[ME].find(bank.plan.hash)
    bank.join(ME, policy=policy(bank))
    assert bank.get(ME, Hello(NONCE))
    # It stays, and another is not put in its place.
    with pytest.raises(UsageError, match="is another policy"):
        bank.join(ME, policy=policy(bank, smallest_cohort="2"))
    bank.join(ME)


def test_a_policy_holds_from_the_moment_it_is_written(begun: Banks) -> None:
    begun.get(ME, Open(0, 0), body=MODEL.to_bytes())
    path = begun.homes[ME].folder / "policy.toml"
    refused = policy(begun, revoked=f'["{begun.plan.hash.hex()}"]').read_bytes()
    for source in (refused, b"no policy at all"):
        path.write_bytes(source)
        for action in (Hello(NONCE), Begin(begun.first_entries()), Train(0, 0)):
            request = begun.request(ME, action).to_parcel(begun.aggregator)
            answer = begun.member(ME).handle(request, node=begun.nodes[ME])
            # What its policy says is nobody else's.
            assert b"revoked" not in answer.head
            assert b"policy" not in answer.head.lower()
            assert isinstance(why(Reply.of(answer)), EngineError)
    assert not begun.trained
    path.write_bytes(policy(begun).read_bytes())
    begun.get(ME, Train(0, 0))


@pytest.mark.parametrize(
    "line", [{"largest_epsilon_per_year": "0.5"}, {"year": "2022"}], ids=str
)
def test_a_release_that_a_policy_refuses_is_not_charged(
    begun: Banks, line: dict[str, str]
) -> None:
    path = begun.homes[ME].folder / "policy.toml"
    path.write_bytes(policy(begun, **line).read_bytes())
    begun.get(ME, Open(0, 0), body=MODEL.to_bytes())
    error = why(begun.ask(ME, Train(0, 0)))
    assert str(error) == "ConsentRefused"
    assert not isinstance(error, BudgetExceeded)
    assert begun.states(ME) == []


@pytest.mark.parametrize("allowed", [None, False, True])
def test_an_unprotected_update_leaves_where_no_policy_forbids_it(
    begun: Banks, allowed: bool | None
) -> None:
    begun.trainers[ME] = begun.unprotected(ME)
    if allowed is not None:
        lines = {"unprotected": "true"} if allowed else {}
        path = begun.homes[ME].folder / "policy.toml"
        path.write_bytes(policy(begun, **lines).read_bytes())
    begun.get(ME, Open(0, 0), body=MODEL.to_bytes())
    reply = begun.ask(ME, Train(0, 0))
    if allowed is False:
        assert str(why(reply)) == "ConsentRefused"
        assert begun.states(ME) == []
    else:
        assert reply.failure is None
        assert begun.states(ME) == ["reserved"]


# -- whose home ----------------------------------------------------------------------


def test_a_home_is_one_organisations(begun: Banks) -> None:
    with pytest.raises(UsageError, match="not the ledger of bank-b"):
        begun.homes[ME].join(
            begun.plan, key=begun.keys["bank-b"], data=None, policy=None
        )
    assert begun.homes[ME].find(begun.plan.hash).settings.name == ME


def test_a_stranger_and_an_incomplete_plan(begun: Banks, tmp_path: Path) -> None:
    home = MemberHome(tmp_path / "new home")
    for key in ("aggregator", "keyholder"):
        with pytest.raises(UsageError, match="no member's of this plan"):
            home.join(begun.plan, key=begun.keys[key], data=None, policy=None)
    with pytest.raises(PlanError, match="not complete"):
        home.join(begun.source, key=begun.keys[ME], data=None, policy=None)
    assert not home.folder.exists()


def test_a_home_that_others_can_look_into(begun: Banks, tmp_path: Path) -> None:
    (tmp_path / "open").mkdir(mode=0o755)
    (tmp_path / "open").chmod(0o755)
    home = MemberHome(tmp_path / "open")
    with pytest.raises(UsageError, match="others may look into"):
        home.join(begun.plan, key=begun.keys[ME], data=None, policy=None)


def test_the_settings_of_a_plan_have_to_parse(begun: Banks) -> None:
    path = begun.homes[ME].folder / "plans" / begun.plan.hash.hex() / "settings.toml"
    for text in ("", "name = 7", "name = ", 'name = "bank-a"\nkey = "k"\ndata = 7'):
        path.write_text(text)
        assert isinstance(why(begun.ask(ME, Hello(NONCE))), EngineError)
