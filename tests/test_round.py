# SPDX-License-Identifier: Apache-2.0
"""A participant among liars: the retry rule, the plan's limits, and what it signs.

The same for one that stays in its process and for one that lives in a keystore.
"""

from __future__ import annotations

import dataclasses
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from secure_fl import wire
from secure_fl.errors import (
    EngineError,
    FaultyAggregator,
    FaultyClient,
    ProtocolError,
    TooFewClients,
    UsageError,
)
from secure_fl.keystore import MemoryKeystore
from secure_fl.masking import Session, messages
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.privacy import Ledger, Reservation, private_update, unprotected
from secure_fl.round import Aggregation, OpenedUpdate, Participant, log_form
from secure_fl.transcript import check_signature

from .engines.distributed import text as distributed_text
from .engines.support import NAMES, plan_text, start
from .participants import NOW, Client, Participants

MODEL = start()


class World(Participants):
    """Four clients and an aggregator that the test plays by hand."""

    def __init__(self, folder: Path, *, parked: bool) -> None:
        source = plan_text(rounds=3, epsilon=50.0).encode()
        super().__init__(folder, source, MODEL, parked=parked)

    def participant(self, name: str, plan: Plan | None = None) -> Client:
        """A new process of this client that has its ledger, and nothing else."""
        self.keystores[name] = MemoryKeystore()
        return super().participant(name, plan)

    def offer_unprotected(self, name: str) -> None:
        vector = np.full(MODEL.size, 0.5)
        self.participants[name].offer(unprotected(vector, reason="a test"))

    def up_to_inboxes(self, a: Aggregation, place: tuple[int, int]) -> dict[str, bytes]:
        """Steps 1 and 2 with everyone: what asks each client for its vector."""
        for name, p in self.participants.items():
            for m in p.open(*place, MODEL):
                a.receive(name, m)
        a.advance()
        for name, message in a.outgoing.items():
            for m in self.participants[name].handle(message):
                a.receive(name, m)
        a.advance()
        return dict(a.outgoing)


def session_of(a: Aggregation) -> Session:
    assert isinstance(a.session, Session)
    return a.session


def opened(folder: Path, *, parked: bool) -> Iterator[World]:
    made = World(folder, parked=parked)
    yield made
    made.close()


@pytest.fixture(params=[False, True], ids=["resident", "parked"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from opened(tmp_path, parked=request.param)


@pytest.fixture
def resident_world(tmp_path: Path) -> Iterator[World]:
    yield from opened(tmp_path, parked=False)


def test_nothing_is_spent_before_the_inbox_is_checked(world: World) -> None:
    a = world.aggregation((0, 0))
    inboxes = world.up_to_inboxes(a, (0, 0))
    world.offer("clinic-a")
    forged = bytearray(inboxes["clinic-a"])
    forged[len(forged) // 2] ^= 1
    with pytest.raises(Exception, match=r"."):
        list(world.participants["clinic-a"].handle(bytes(forged)))
    assert world.states("clinic-a") == ["reserved"]
    # It never left: the next attempt takes the same update under the same charge.
    world.participants["clinic-a"].open(0, 1, MODEL)
    assert not world.participants["clinic-a"].needs_update


def test_one_chunk_out_is_spent(world: World) -> None:
    a = world.aggregation((0, 0))
    inboxes = world.up_to_inboxes(a, (0, 0))
    world.offer("clinic-a")
    participant = world.participants["clinic-a"]
    next(participant.handle(inboxes["clinic-a"]))
    assert world.states("clinic-a") == ["sent"]
    participant.open(0, 1, MODEL)
    assert participant.needs_update
    participant.conclude(opened=False)
    assert world.states("clinic-a") == ["sent"], "what left is never taken back"


def test_an_unprotected_update_is_never_sent_twice(world: World) -> None:
    a = world.aggregation((0, 0))
    inboxes = world.up_to_inboxes(a, (0, 0))
    world.offer_unprotected("clinic-a")
    participant = world.participants["clinic-a"]
    list(participant.handle(inboxes["clinic-a"]))
    with pytest.raises(UsageError, match="sent once"):
        participant.open(0, 1, MODEL)
    participant.conclude(opened=False)
    with pytest.raises(UsageError, match="over for this client"):
        participant.open(0, 2, MODEL)
    # A new process on the same ledger remembers.
    again = world.participants["clinic-a"] = world.participant("clinic-a")
    again.open(0, 3, MODEL)
    with pytest.raises(EngineError, match="sent once a round"):
        world.offer_unprotected("clinic-a")


def test_only_a_signed_omission_frees_a_spent_update(world: World) -> None:
    a = world.aggregation((0, 0))
    inboxes = world.up_to_inboxes(a, (0, 0))
    late = world.participants["clinic-d"]
    for name in NAMES:
        world.offer(name)
        pieces = list(world.participants[name].handle(inboxes[name]))
        if name != "clinic-d":
            for piece in pieces:
                a.receive(name, piece)
    assert list(a.omission) == [], "nothing is signed yet"
    a.advance()
    statement = a.outgoing["clinic-a"]
    with pytest.raises(TooFewClients):
        late.release(statement, messages.Signatures(()).encode(session_of(a)))
    for parts in ((), (statement,), (statement, statement, statement)):
        with pytest.raises(ProtocolError, match="not a proof of this plan"):
            late.release(*parts)
    assert world.states("clinic-d") == ["sent"]
    for name, message in a.outgoing.items():
        for m in world.participants[name].handle(message):
            a.receive(name, m)
    a.advance()
    assert a.omission
    late.release(*a.omission)
    assert world.states("clinic-d") == ["omitted"]
    late.open(0, 1, MODEL)
    assert not late.needs_update
    late.conclude(opened=False)
    assert world.states("clinic-d") == ["omitted"], "it had left once: charged"
    # Those who are in the statement are not freed by it.
    with pytest.raises(FaultyAggregator, match="holds our vector"):
        world.participants["clinic-a"].release(*a.omission)


def test_the_plan_bounds_rounds_and_attempts(world: World) -> None:
    participant = world.participants["clinic-a"]
    with pytest.raises(UsageError, match="3 rounds"):
        participant.open(3, 0, MODEL)
    participant.open(1, 0, MODEL)
    with pytest.raises(UsageError, match="in order"):
        participant.open(0, 0, MODEL)
    participant.open(1, 5, MODEL)
    with pytest.raises(UsageError, match="2 attempts"):
        participant.open(1, 6, MODEL)
    # After a refusal nothing is open any more.
    with pytest.raises(UsageError, match="no attempt is open"):
        list(participant.handle(b""))


def test_a_late_message_is_nobodys_fault(world: World) -> None:
    a = world.aggregation((0, 0))
    first = {n: p.open(0, 0, MODEL) for n, p in world.participants.items()}
    for name in NAMES[:3]:
        for m in first[name]:
            assert a.receive(name, m)
    a.advance()
    for m in first["clinic-d"]:
        assert not a.receive("clinic-d", m)
    with pytest.raises(FaultyClient, match="clinic-c"):
        a.receive("clinic-c", b"\x00")


# -- what is signed -----------------------------------------------------------------


def note(world: World, place: tuple[int, int], name: str, message: bytes) -> None:
    form = log_form(message)
    assert form is not None
    world.log.add_message(
        *place,
        sender=name,
        receiver="",
        message=message,
        withheld=form == "withheld",
    )


def note_round(
    world: World, place: tuple[int, int], survivors: list[str], *, left: bool = True
) -> None:
    """``left``: whether clinic-a's ledger holds an update of that context."""
    digest = bytes(32)
    ctx = wire.digest("a context", *place)
    if left and "clinic-a" in survivors:
        reservation = world.participants["clinic-a"].reserve()
        world.ledgers["clinic-a"].sent(reservation, ctx=ctx, now=NOW)
    body: dict[int, wire.Value] = {0: place[0], 1: place[1], 2: ctx}
    body |= {3: list(survivors), 4: len(survivors), 5: digest, 6: 0}
    world.log.append("round", {**body, 7: digest, 8: digest})


def sign(world: World, name: str = "clinic-a") -> None:
    """The log as it is now."""
    entries = world.log.entries
    world.participants[name].countersign(entries, entries[-1])


def test_a_participant_signs_what_it_has_read(world: World) -> None:
    participant = world.participants["clinic-a"]
    (advertise,) = participant.open(0, 0, MODEL)
    note(world, (0, 0), "clinic-a", advertise)
    entry = world.log.entries[-1]
    evil = dataclasses.replace(entry, hash=bytes(32))
    with pytest.raises(FaultyAggregator):
        participant.countersign(world.log.entries, evil)
    with pytest.raises(FaultyAggregator):
        participant.countersign([], entry)
    signature = participant.countersign(world.log.entries, entry)
    public = world.identities["clinic-a"].public_key
    assert check_signature(public, entry.hash, signature)
    # The answer may have been lost on its way; an older one is not signed again.
    assert participant.countersign(world.log.entries, entry) == signature
    note(world, (0, 0), "clinic-b", b"\xa1\x00\x01")
    participant.countersign(world.log.entries, world.log.entries[-1])
    with pytest.raises(FaultyAggregator):
        participant.countersign(world.log.entries, entry)


def test_a_message_of_a_failed_attempt_may_be_missing(world: World) -> None:
    participant = world.participants["clinic-a"]
    participant.open(0, 0, MODEL)  # late: never logged
    (advertise,) = participant.open(0, 1, MODEL)
    note(world, (0, 1), "clinic-a", advertise)
    participant.countersign(world.log.entries, world.log.entries[-1])


@pytest.mark.parametrize("survivors", [["clinic-a", "clinic-b"], ["clinic-b"]])
def test_a_message_of_an_opened_attempt_may_not(
    world: World, survivors: list[str]
) -> None:
    """Unless it was opened without us: what was lost on its way is nobody's fault."""
    participant = world.participants["clinic-a"]
    participant.open(0, 0, MODEL)
    note_round(world, (0, 0), survivors)
    if "clinic-a" not in survivors:
        sign(world)
        return
    with pytest.raises(FaultyAggregator, match="as we sent them"):
        sign(world)


@pytest.mark.parametrize("logged", ["as it was sent", "not", "of another", "elsewhere"])
@pytest.mark.parametrize("survivors", [["clinic-a", "clinic-b"], ["clinic-b"]])
def test_a_log_cut_in_the_middle_of_an_attempt_makes_nobody_forget(
    world: World, survivors: list[str], logged: str
) -> None:
    """What it lacks of ours is looked for in the next one, by another process too."""
    (advertise,) = world.participants["clinic-a"].open(0, 0, MODEL)
    note(world, (0, 0), "clinic-b", b"\xa1\x00\x01")
    if logged == "of another":
        note(world, (0, 0), "clinic-c", advertise)
    sign(world)
    if logged == "as it was sent":
        note(world, (0, 0), "clinic-a", advertise)
    if logged == "elsewhere":
        note(world, (0, 1), "clinic-a", advertise)
    note_round(world, (0, 0), survivors)
    if logged == "as it was sent" or (
        "clinic-a" not in survivors and logged != "elsewhere"
    ):
        sign(world)
        return
    with pytest.raises(FaultyAggregator, match="as we sent them"):
        sign(world)


def test_a_sum_that_nothing_was_given_to_is_not_signed(world: World) -> None:
    """All that it said is there, and no update of it has left."""
    (advertise,) = world.participants["clinic-a"].open(0, 0, MODEL)
    note(world, (0, 0), "clinic-a", advertise)
    note_round(world, (0, 0), ["clinic-a", "clinic-b"], left=False)
    with pytest.raises(FaultyAggregator, match="gave nothing to"):
        sign(world)


def test_what_was_signed_is_not_looked_for_again(world: World) -> None:
    (advertise,) = world.participants["clinic-a"].open(0, 0, MODEL)
    note(world, (0, 0), "clinic-a", advertise)
    sign(world)
    note_round(world, (0, 0), ["clinic-a"])
    sign(world)
    note(world, (1, 0), "clinic-a", advertise)
    with pytest.raises(FaultyAggregator, match="as we sent them"):
        sign(world)


@pytest.mark.parametrize("end", ["round", "failure"])
def test_what_is_remembered_ends_with_its_round(
    resident_world: World, end: str
) -> None:
    """Our messages are in no log: the list does not grow from round to round."""
    world = resident_world
    participant = world.resident("clinic-a", world.plan)
    world.participants["clinic-a"] = participant
    for index in range(3):
        participant.open(index, 0, MODEL)
        world.log.append("failure", {0: index, 1: 0, 2: "too few", 3: ""})
        sign(world)
        assert remembered(participant) == [(index, 0)]
        participant.open(index, 1, MODEL)
        assert remembered(participant) == [(index, 0), (index, 1)]
        if end == "round":
            note_round(world, (index, 1), ["clinic-b"])
            sign(world)
            assert remembered(participant) == []


def remembered(participant: Participant) -> list[tuple[object, ...]]:
    """The places of messages that no log had, as they are parked."""
    values = wire.decode(participant.park())
    assert isinstance(values, list)
    assert isinstance(values[6], list)
    return [tuple(row[:2]) for row in values[6] if isinstance(row, list)]


# -- what is parked -----------------------------------------------------------------


def test_what_another_version_parked_is_refused(resident_world: World) -> None:
    world = resident_world
    participant = world.resident("clinic-a", world.plan)
    parked = participant.park()
    values = wire.decode(parked)
    assert isinstance(values, list)
    again = world.resident("clinic-a", world.plan)
    again.unpark(parked, no_values)
    assert again.park() == parked
    for other in (["secure-fl/participant/1", *values[1:]], values[:-1], 7):
        with pytest.raises(UsageError, match="another version") as caught:
            world.resident("clinic-a", world.plan).unpark(wire.encode(other), no_values)
        assert caught.value.hint


def test_a_ledger_that_forgot_the_charge_is_not_gone_on_with(
    resident_world: World, tmp_path: Path
) -> None:
    world = resident_world
    participant = world.resident("clinic-a", world.plan)
    participant.open(0, 0, MODEL)
    vector = np.full(MODEL.size, 0.5)
    participant.offer(private_update(vector, participant.reserve()))
    parked = participant.park()
    world.ledgers["clinic-a"].close()
    world.ledgers["clinic-a"] = Ledger(tmp_path / "older.sqlite", client="clinic-a")
    with pytest.raises(UsageError, match="does not hold this client's reservation"):
        world.resident("clinic-a", world.plan).unpark(parked, no_values)


def test_what_left_stays_spent_whatever_the_ledger_says(
    resident_world: World, tmp_path: Path
) -> None:
    """The ledger is put back to a copy from before the update left."""
    world = resident_world
    a = world.aggregation((0, 0))
    inboxes = world.up_to_inboxes(a, (0, 0))
    world.offer("clinic-a")
    path, older = tmp_path / "clinic-a.sqlite", tmp_path / "older.sqlite"
    with sqlite3.connect(path) as source, sqlite3.connect(older) as copy:
        source.backup(copy)
    source.close()
    copy.close()
    participant = world.participants["clinic-a"]
    list(participant.handle(inboxes["clinic-a"]))
    world.ledgers["clinic-a"].close()
    for beside in tmp_path.glob("clinic-a.sqlite*"):
        beside.unlink()
    older.rename(path)
    world.ledgers["clinic-a"] = Ledger(path, client="clinic-a")
    assert world.states("clinic-a") == ["reserved"]
    assert isinstance(participant, Participant)
    again = world.resident("clinic-a", world.plan)
    again.unpark(participant.park(), no_values)
    again.open(0, 1, MODEL)
    assert again.needs_update
    again.conclude(opened=False)
    assert world.states("clinic-a") == ["reserved"], "charged, not taken back"


def no_values(_: Reservation) -> NDArray[np.float64]:
    raise AssertionError("nobody asked for an update")


# -- a sum under shared noise --------------------------------------------------------


class SumWorld(World):
    """The same clients; what they send is on the plan's grid, and padded."""

    def __init__(self, folder: Path, *, parked: bool) -> None:
        source = Plan(distributed_text(rounds=3).encode()).with_values(MODEL.size)
        Participants.__init__(self, folder, source.source, MODEL, parked=parked)
        draws = np.random.default_rng(2)
        padded = self.plan.grid.padded
        self.vectors = {
            n: draws.integers(-(2**20), 2**20, padded).astype(np.float64)
            for n in self.names
        }

    def finish(self, a: Aggregation) -> OpenedUpdate:
        while True:
            outgoing = dict(a.outgoing)
            for name, message in outgoing.items():
                for m in self.participants[name].handle(message):
                    a.receive(name, m)
            a.advance()
            if a.result is not None:
                return a.result


@pytest.fixture(params=[False, True], ids=["resident", "parked"])
def sums(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SumWorld]:
    made = SumWorld(tmp_path, parked=request.param)
    yield made
    made.close()


def test_an_update_on_the_grid_is_sent_as_it_is(sums: SumWorld) -> None:
    """Also in a second attempt: another dither would be a second release."""
    a = sums.aggregation((0, 0))
    sums.up_to_inboxes(a, (0, 0))
    for name in NAMES:
        sums.offer(name)
    again = sums.aggregation((0, 1))
    sums.up_to_inboxes(again, (0, 1))
    assert not any(p.needs_update for p in sums.participants.values())
    opened = sums.finish(again)
    assert opened.survivors == NAMES
    assert opened.session.parameters.length == 128
    units = sums.plan.encoding.unwrap(opened.words)
    assert (units == sum(sums.vectors.values())).all()
    assert opened.clipped == 0
    assert {r.event for r in sums.ledgers["clinic-a"].releases("clinics")} == {
        sums.plan.release
    }


def test_what_a_sum_may_not_hold_does_not_leave(sums: SumWorld) -> None:
    a = sums.aggregation((0, 0))
    inboxes = sums.up_to_inboxes(a, (0, 0))
    whole = sums.vectors["clinic-a"]
    for name, wrong in zip(
        NAMES,
        (whole + 0.5, np.append(whole, 0.0), whole[:-1], whole + 2.0**53),
        strict=True,
    ):
        sums.vectors[name] = wrong
        sums.offer(name)
        with pytest.raises(
            UsageError, match=r"on the plan's grid|words instead of 128"
        ):
            list(sums.participants[name].handle(inboxes[name]))
        assert sums.states(name) == ["reserved"]


def test_an_unprotected_update_is_no_part_of_such_a_sum(sums: SumWorld) -> None:
    sums.up_to_inboxes(sums.aggregation((0, 0)), (0, 0))
    with pytest.raises(UsageError, match="private updates only"):
        sums.offer_unprotected("clinic-a")
    assert sums.states("clinic-a") == []


def test_a_model_of_another_size_is_not_opened(sums: SumWorld) -> None:
    other = GlobalModel({"w": np.zeros(MODEL.size + 1, np.float32)})
    with pytest.raises(UsageError, match="83 values, and the plan says 82"):
        sums.participants["clinic-a"].open(0, 0, other)
