# SPDX-License-Identifier: Apache-2.0
"""A key holder of which every message meets another process, and what may befall one.

Whoever speaks to it: one answer to a message, one release to a round, and no private
key left behind an answer.  (How it may die: ``test_parked_holder_kill``.)
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest

from secure_fl.ckks.messages import KINDS, Call, Request
from secure_fl.context import kind_of
from secure_fl.errors import FaultyAggregator, ProtocolError, UsageError
from secure_fl.keystore import DiskKeystore, Keystore, MemoryKeystore
from secure_fl.round import key_holder
from secure_fl.round.holder import ParkedKeyHolder

from ..ckks.forging import Called, assert_closed, assert_untouched, refusal
from ..ckks.world import Attempt, World
from ..participants import RANDOM
from .holder_home import NOTHING, kept


def parked(world: World, keystore: Keystore) -> ParkedKeyHolder:
    return ParkedKeyHolder(world.plan, world.keyholder, keystore, RANDOM)


class Fresh:
    """The key holder as an aggregator meets it: a new object over reopened files."""

    def __init__(self, world: World) -> None:
        self.world = world

    def handle(self, message: bytes, *, random: bytes) -> bytes:
        assert len(random) == 32, "it draws its own"
        keystore = self.world.disk("holder")
        try:
            return parked(self.world, keystore).handle(message)
        finally:
            keystore.close()


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "keyholder")
    made.record = made.disk("holder")  # of key holders that are one process
    yield made
    made.close()


@pytest.fixture
def fresh(world: World) -> Fresh:
    return Fresh(world)


def is_empty(world: World) -> bool:
    return len(kept(world.folder / "holder.keystore")[0]) == NOTHING


# -- rounds ------------------------------------------------------------------------


def test_rounds_over_one_keystore_open_exact_sums(world: World, fresh: Fresh) -> None:
    world.holder = fresh  # type: ignore[assignment]
    for index in range(3):
        attempt = Attempt(world, (index, 0)).until("vectors")
        assert not is_empty(world), "the context is open"
        opened = attempt.run()
        assert len(opened.survivors) == 4
        assert world.is_exact(opened)
        assert is_empty(world), "the private key went with the answer"
        for participant in world.participants.values():
            participant.conclude(opened=True)


def test_a_refusal_takes_the_private_key_along(world: World, fresh: Fresh) -> None:
    few = Called(world, (0, 0), holder=fresh)
    assert refusal(few, few.ask(few.rows()[:2])).culprit is None
    assert is_empty(world)
    bad = Called(world, (0, 1), holder=fresh)
    rows = bad.rows()
    rows[1] = bad.row(1, box=bytes(len(rows[1].key_box)))
    assert refusal(bad, bad.ask(rows)).culprit == 1
    assert is_empty(world)
    for called in (few, bad):
        assert_closed(called)
    again = Called(world, (0, 2), holder=fresh)
    assert kind_of(again.ask_honestly()) == KINDS.RELEASE


def test_the_private_key_lies_encrypted_while_it_waits(world: World) -> None:
    class Watched:
        """A keystore that tells what was parked in it."""

        def __init__(self, keystore: Keystore) -> None:
            self.begin, self.begun = keystore.begin, keystore.begun
            self.park, self._advance = keystore.park, keystore.advance
            self.states: list[bytes] = []

        def advance(self, key: bytes, step: object) -> None:
            def watched(before: bytes) -> bytes | None:
                after: bytes | None = step(before)  # type: ignore[operator]
                self.states.append(after or b"")
                return after

            self._advance(key, watched)

    called = Called(world, unanswered=True)
    watched = Watched(world.record)
    called.answer(parked(world, watched).handle(called.call))
    (state,) = watched.states
    assert called.call in state
    key = state[-32:]
    files = list(world.folder.glob("holder.*"))
    assert {f.name for f in files} >= {"holder.keystore", "holder.anchor"}
    for file in files:
        assert key not in file.read_bytes(), file
        assert file.stat().st_mode & 0o077 == 0, file


@pytest.mark.parametrize("few", [False, True])
def test_what_was_spent_is_in_no_file(world: World, fresh: Fresh, few: bool) -> None:
    """Nor what it was encrypted to, once a process has ended as it should."""
    assert isinstance(world.record, DiskKeystore)
    world.record.close()
    called = Called(world, holder=fresh)
    files = [world.folder / f"holder.{end}" for end in ("keystore", "anchor")]
    (sealed, _) = kept(files[0])
    assert sealed in files[0].read_bytes()
    called.ask(called.rows()[: 2 if few else 4])
    assert sorted(world.folder.glob("holder.*")) == sorted(files)
    for file in files:
        assert sealed not in file.read_bytes()


# -- once --------------------------------------------------------------------------


def test_messages_once_more(world: World, fresh: Fresh) -> None:
    called = Called(world, holder=fresh)
    request = called.request(called.rows())
    assert kind_of(fresh.handle(request, random=bytes(32))) == KINDS.RELEASE
    for message in (request, called.request(called.rows()[:3])):
        with pytest.raises(FaultyAggregator, match="no context"):
            fresh.handle(message, random=bytes(32))
    for attempt in (1, 2**32):
        with pytest.raises(FaultyAggregator, match="were released"):
            Called(world, (0, attempt), holder=fresh)
    assert_closed(called)


def test_a_call_is_answered_once(world: World, fresh: Fresh) -> None:
    """And once more it ends the context, as in one process."""
    called = Called(world, holder=fresh)
    with pytest.raises(FaultyAggregator, match="answered before"):
        fresh.handle(called.call, random=bytes(32))
    assert is_empty(world)
    assert_closed(called)


def test_a_further_call_ends_the_context_before_it(world: World, fresh: Fresh) -> None:
    first = Called(world, (0, 0), holder=fresh)
    second = Called(world, (0, 1), holder=fresh)
    for rows in (first.rows(), first.rows()[:3]):
        with pytest.raises(ProtocolError):
            first.ask(rows)
    assert_untouched(second)
    assert_closed(first)


def test_one_process_and_many_over_one_keystore(world: World, fresh: Fresh) -> None:
    """Each was called for an attempt of the round: one releases."""
    first = Called(world, (0, 0), holder=fresh)
    second = Called(world, (0, 1), holder=world.new_holder())
    assert kind_of(second.ask_honestly()) == KINDS.RELEASE
    with pytest.raises(FaultyAggregator, match="answered before"):
        first.ask_honestly()
    assert is_empty(world)
    assert_closed(first)


# -- liars -------------------------------------------------------------------------


def test_what_the_aggregator_did_not_sign_changes_nothing(
    world: World, fresh: Fresh
) -> None:
    """Not a byte of the keystore, and not the context."""
    called = Called(world, holder=fresh)
    rows, call = called.rows(), Call.decode(called.call)
    before = kept(world.folder / "holder.keystore")
    signed = Request.decode(called.request(rows[:3]), called.session)
    messages = [b"", b"?", called.call[:-1], called.request(rows)[:-1]]
    messages += [Request(tuple(rows), signed.signature).encode(called.session)]
    for identity in (world.keyholder, *world.identities.values()):
        messages += [called.sign_call(call, by=identity).encode()]
        messages += [called.request(rows, by=identity)]
        messages += [called.request(rows[:2], by=identity)]
    for message in messages:
        with pytest.raises(ProtocolError):
            fresh.handle(message, random=bytes(32))
    assert kept(world.folder / "holder.keystore") == before
    assert_untouched(called)


def test_what_it_signed_and_is_refused_ends_the_context(
    world: World, fresh: Fresh
) -> None:
    called = Called(world, (0, 0), holder=fresh)
    call = dataclasses.replace(Call.decode(called.call), ctx=bytes(32))
    with pytest.raises(FaultyAggregator, match="another context"):
        fresh.handle(called.sign_call(call).encode(), random=bytes(32))
    assert is_empty(world)
    assert_closed(called)
    called = Called(world, (0, 1), holder=fresh)
    rows = called.rows()
    rows[3] = dataclasses.replace(rows[2], client=3)
    with pytest.raises(FaultyAggregator, match="row is not signed"):
        called.ask(rows)
    assert is_empty(world)
    assert_closed(called)
    again = Called(world, (0, 2), holder=fresh)
    assert kind_of(again.ask_honestly()) == KINDS.RELEASE


# -- parking -----------------------------------------------------------------------


def test_a_key_holder_is_parked_once(world: World) -> None:
    holder = world.new_holder()
    assert holder.park() == b"", "nothing is open"
    called = Called(world, (0, 0), holder=holder)
    data = holder.park()
    assert holder.park() == b""
    with pytest.raises(FaultyAggregator, match="no context"):
        called.ask_honestly()
    other = world.new_holder()
    other.unpark(data)
    called.holder = other
    assert_untouched(called)
    other.unpark(b"")
    assert other.park() == b""


@pytest.mark.parametrize("case", ["no bytes of ours", "another version", "cut"])
def test_what_another_version_parked_stays(world: World, case: str) -> None:
    holder = world.new_holder()
    called = Called(world, holder=holder)
    data = holder.park()
    changed = {
        "no bytes of ours": b"?",
        "another version": data.replace(b"parked-context/1", b"parked-context/2"),
        "cut": data[:-1],
    }[case]
    with pytest.raises(UsageError, match="another version"):
        holder.unpark(changed)
    # In the keystore it stays where it is, for the version that knows it.
    keystore = MemoryKeystore()
    slot = parked(world, keystore)._slot
    keystore.park(slot, changed)
    with pytest.raises(UsageError, match="another version"):
        parked(world, keystore).handle(called.request(called.rows()))
    keystore.advance(slot, lambda state: data if state == changed else None)
    answer = parked(world, keystore).handle(called.request(called.rows()))
    assert kind_of(answer) == KINDS.RELEASE


def test_what_the_key_holder_of_another_plan_parked(
    world: World, tmp_path: Path
) -> None:
    holder = world.new_holder()
    Called(world, holder=holder)
    plan = world.instance()  # of another run
    with pytest.raises(UsageError, match="another plan"):
        key_holder(plan, world.keyholder, MemoryKeystore()).unpark(holder.park())
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other", "one-time")
    other.close()
    with pytest.raises(UsageError, match="no key holder"):
        ParkedKeyHolder(other.plan, world.keyholder, MemoryKeystore(), RANDOM)
    with pytest.raises(UsageError, match="another key holder"):
        ParkedKeyHolder(world.plan, world.aggregator, MemoryKeystore(), RANDOM)


def test_plans_do_not_meet_in_one_keystore(world: World) -> None:
    """A call under one plan leaves the context of another open."""
    called = Called(world, unanswered=True)
    called.answer(parked(world, world.record).handle(called.call))
    mine, world.plan = world.plan, world.instance()
    other = Called(world, unanswered=True)
    other.answer(parked(world, world.record).handle(other.call))
    for plan, one in ((mine, called), (world.plan, other)):
        holder = ParkedKeyHolder(plan, world.keyholder, world.record, RANDOM)
        answer = holder.handle(one.request(one.rows()))
        assert kind_of(answer) == KINDS.RELEASE


# -- copies of the keystore --------------------------------------------------------


def test_a_restored_keystore_answers_nothing(world: World, fresh: Fresh) -> None:
    """The database as it was before each message, put back when the round is over."""
    assert isinstance(world.record, DiskKeystore)
    world.record.close()
    store, anchor = (world.folder / f"holder.{n}" for n in ("keystore", "anchor"))
    called = Called(world, (0, 0), holder=fresh)
    copies = [store.read_bytes()]  # between call and request
    request = called.request(called.rows())
    assert kind_of(fresh.handle(request, random=bytes(32))) == KINDS.RELEASE
    copies.append(store.read_bytes())
    later = Called(world, (1, 0), holder=fresh)
    messages = (called.call, request, later.call, later.request(later.rows()))
    for copy in copies:
        store.write_bytes(copy)
        for message in messages:
            with pytest.raises(UsageError, match="older than its anchor"):
                fresh.handle(message, random=bytes(32))
    anchor.unlink()
    for message in messages:
        with pytest.raises(UsageError, match="lost its anchor"):
            fresh.handle(message, random=bytes(32))


def test_a_store_that_is_restored_under_a_running_process(world: World) -> None:
    """It was opened before; each message looks anew."""
    holder = parked(world, world.disk("holder"))
    called = Called(world, (0, 0), unanswered=True)
    called.answer(holder.handle(called.call))
    anchor = world.folder / "holder.anchor"
    data = anchor.read_bytes()
    count = int.from_bytes(data[32:], "big") + 3  # as if the store had been left behind
    anchor.write_bytes(data[:32] + count.to_bytes(8, "big"))
    for message in (called.request(called.rows()), called.call):
        with pytest.raises(UsageError, match="older than its anchor"):
            holder.handle(message)
