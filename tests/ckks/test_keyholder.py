# SPDX-License-Identifier: Apache-2.0
"""The key holder gives one sum per run and round, whatever befalls it (SPEC 6).

An aggregator that forges at will speaks to it: also after restarts and crashes.
"""

from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from secure_fl import ckks, keys
from secure_fl.ckks.messages import (
    KINDS,
    RELEASE_LABEL,
    Release,
)
from secure_fl.context import kind_of
from secure_fl.errors import (
    EngineError,
    FaultyAggregator,
    UsageError,
)
from secure_fl.keystore import MemoryKeystore
from secure_fl.wire import verify

from ..participants import RANDOM
from .forging import Called, assert_closed, random_key
from .world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "keyholder")
    yield made
    made.close()


@pytest.fixture
def called(world: World) -> Called:
    return Called(world)


# -- what is released --------------------------------------------------------------


def test_it_releases_the_sum_in_a_box_and_nothing_else(called: Called) -> None:
    chosen = {i: random_key(called.session) for i in range(4)}
    seeds = {i: RANDOM.bytes(32) for i in range(4)}
    rows = [called.row(i, chosen[i], seed=seeds[i]) for i in range(4)]
    answer = called.ask(rows)
    release = Release.decode(answer, called.session)
    assert release.rows == tuple((r.client, r.payload, r.claim) for r in rows)
    assert verify(
        called.world.keyholder.public_key,
        release.signature,
        RELEASE_LABEL,
        *release.signed(called.session),
    )
    opening = called.opening(answer)
    assert (opening.key_sum == sum(chosen.values())).all()
    assert opening.seeds == tuple(seeds.values())
    # Seeds only in the box, single keys nowhere: not to whoever reads the network ...
    for seed in seeds.values():
        assert seed[:12] not in answer
    # ... and not to the aggregator, which opens the box.
    plain = called.plain(answer)
    assert len(plain) == len(opening.encode(called.session))
    for key in chosen.values():
        for at in range(0, key.size - 16, 16):
            assert key[at : at + 16].astype(np.int8).tobytes() not in plain
    with pytest.raises(ValueError, match="does not open"):
        keys.open_box(
            release.box,
            keys.private_key(RANDOM.bytes(32)),
            info=ckks.client.release_info(called.session),
        )


def test_any_set_of_enough_clients_is_summed_exactly(world: World) -> None:
    """The least set there is, and keys at the edges."""
    for index, rows in enumerate(([0, 1, 2], [1, 2, 3], [0, 1, 2, 3])):
        called = Called(world, (index, 0))
        n = called.session.parameters.packing.ring.degree
        edge = np.zeros(n, np.int64)
        edge[:8], edge[8:16] = 96, -96
        opening = called.opening(called.ask([called.row(i, edge) for i in rows]))
        assert (opening.key_sum == edge * len(rows)).all()


# -- one release, whatever happens -------------------------------------------------


def test_the_same_request_once_more(called: Called) -> None:
    request = called.request(called.rows())
    assert kind_of(called.holder.handle(request, random=RANDOM.bytes(32))) == 18
    with pytest.raises(FaultyAggregator):
        called.holder.handle(request, random=RANDOM.bytes(32))
    assert_closed(called)


def test_a_request_less_a_client_after_the_release(called: Called) -> None:
    rows = called.rows()
    called.ask(rows)
    for less in (rows[:3], rows[1:]):
        with pytest.raises(FaultyAggregator):
            called.ask(less)
    assert_closed(called)


@pytest.mark.parametrize("restarted", [False, True])
def test_another_attempt_of_a_released_round(world: World, restarted: bool) -> None:
    first = Called(world, (0, 0))
    first.ask(first.rows())
    if restarted:
        world.holder = world.new_holder()
    for attempt in (1, 2, 2**32):
        with pytest.raises(FaultyAggregator, match="were released"):
            Called(world, (0, attempt))
    other = Called(world, (1, 0))
    assert kind_of(other.ask(other.rows())) == KINDS.RELEASE


def test_two_processes_over_one_record(world: World) -> None:
    """Both answered a call, each for another attempt of the round: one releases."""
    first = Called(world, (0, 0))
    second = Called(world, (0, 1), holder=world.new_holder())
    second.ask(second.rows())
    with pytest.raises(FaultyAggregator, match="answered before"):
        first.ask(first.rows())
    assert_closed(first)


def test_two_processes_in_one_context(world: World) -> None:
    first = Called(world, (0, 0))
    with pytest.raises(FaultyAggregator, match="answered before"):
        Called(world, (0, 0), holder=world.new_holder())
    assert kind_of(first.ask(first.rows())) == KINDS.RELEASE


def at_once(called: Called, requests: list[bytes]) -> list[bytes]:
    """What the key holder answers to all of these in as many threads."""
    together = threading.Barrier(len(requests))
    answers: list[bytes] = []

    def ask(request: bytes) -> None:
        together.wait(10)
        with contextlib.suppress(FaultyAggregator):
            answers.append(called.holder.handle(request, random=RANDOM.bytes(32)))

    threads = [threading.Thread(target=ask, args=(r,)) for r in requests]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    return answers


def test_threads_get_one_answer_between_them(world: World) -> None:
    """Requests at the same moment, for all and for too few: a release or a refusal."""
    for _ in range(10):
        world.record = MemoryKeystore()
        called = Called(world, holder=world.new_holder())
        rows = called.rows()
        few, all_ = called.request(rows[:2]), called.request(rows)
        assert len(at_once(called, [few, all_] * 3)) == 1


def test_a_restart_on_the_same_home(world: World) -> None:
    """Called, then a new process: it is out of the context, not out of the round."""
    world.record = world.disk("holder")
    first = Called(world, (0, 0), holder=world.new_holder())
    world.record = world.disk("holder")
    restarted = world.new_holder()
    with pytest.raises(FaultyAggregator, match="no context"):
        restarted.handle(first.request(first.rows()), random=RANDOM.bytes(32))
    with pytest.raises(FaultyAggregator, match="answered before"):
        Called(world, (0, 0), holder=restarted)
    again = Called(world, (0, 1), holder=restarted)
    assert kind_of(again.ask(again.rows())) == KINDS.RELEASE
    # The first process still runs: its context has no release left.
    with pytest.raises(FaultyAggregator):
        first.ask(first.rows())
    world.record = world.disk("holder")
    with pytest.raises(FaultyAggregator, match="were released"):
        Called(world, (0, 2), holder=world.new_holder())


def test_a_home_that_was_restored_answers_nothing(world: World) -> None:
    store = world.disk("holder")
    world.record = store
    Called(world, (0, 0), holder=world.new_holder())
    store.close()
    before = {p: p.read_bytes() for p in world.folder.glob("holder.keystore*")}
    world.record = world.disk("holder")
    later = Called(world, (0, 1), holder=world.new_holder())
    later.ask(later.rows())
    world.record.close()
    for left in world.folder.glob("holder.keystore*"):
        left.unlink()
    for copy, data in before.items():
        copy.write_bytes(data)
    assert before
    with pytest.raises(UsageError, match="restored from a copy"):
        world.disk("holder")
    (world.folder / "holder.anchor").unlink()
    with pytest.raises(UsageError, match="lost its anchor"):
        world.disk("holder")


class Stops:
    """A record whose process ends when a release is recorded: before, or after."""

    def __init__(self, durable: MemoryKeystore, *, after: bool) -> None:
        self.durable = durable
        self.after = after
        self.count = 0

    def begin(self, ctx: bytes) -> None:
        self.count += 1
        if self.count < 2:  # the call
            self.durable.begin(ctx)
            return
        if self.after:
            self.durable.begin(ctx)
        raise EngineError("the process ends here")

    def begun(self, ctx: bytes) -> bool:
        return self.durable.begun(ctx)


@pytest.mark.parametrize("after", [False, True])
def test_a_crash_costs_a_round_and_never_gives_a_second_release(
    world: World, after: bool
) -> None:
    record = MemoryKeystore()
    world.record = record
    holder = ckks.KeyHolder(
        world.keyholder,
        aggregator=world.aggregator.public_key,
        session_of=lambda call: world.session((call.round_index, call.attempt)),
        record=Stops(record, after=after),
    )
    called = Called(world, (0, 0), holder=holder)
    with pytest.raises(EngineError):
        called.ask_honestly()
    assert_closed(called)
    world.holder = world.new_holder()
    if after:
        with pytest.raises(FaultyAggregator, match="were released"):
            Called(world, (0, 1))
    else:
        again = Called(world, (0, 1))
        assert kind_of(again.ask(again.rows())) == KINDS.RELEASE


# -- real processes ----------------------------------------------------------------

# A key holder that is killed when the release is durable, and before it is sent.
_KILLED = """
import os, signal, sys
from pathlib import Path
from secure_fl.engines.keyholder import serve
from secure_fl.identity import Identity
from secure_fl.keystore import DiskKeystore
from secure_fl.plan import load_plan
from secure_fl.randomness import SystemRandom
from secure_fl.round import key_holder

class Killed:
    def __init__(self, keystore):
        self.keystore, self.begun, self.count = keystore, keystore.begun, 0
    def begin(self, ctx):
        self.keystore.begin(ctx)
        self.count += 1
        if self.count == 2:
            os.kill(os.getpid(), signal.SIGKILL)

folder, random = Path(sys.argv[1]), SystemRandom()
home = folder / "home"
home.mkdir(exist_ok=True)
keystore = DiskKeystore(
    home / "keystore.sqlite", key_path=home / "keystore.key", random=random
)
identity = Identity.load(folder / "holder.key", name="keyholder")
holder = key_holder(load_plan(folder / "plan.toml"), identity, Killed(keystore))
serve(holder, sys.stdin.buffer, sys.stdout.buffer, random=random, refused=print)
"""


class Process:
    """A key holder in a process of its own; ``handle`` as the key holder's."""

    def __init__(self, command: list[str]) -> None:
        self.process = subprocess.Popen(
            [sys.executable, *command], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )

    def handle(self, message: bytes, *, random: bytes) -> bytes:
        """Raises EngineError where it gives no answer."""
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(len(message).to_bytes(4, "big") + message)
        self.process.stdin.flush()
        answer = self._read()
        if not answer:
            raise EngineError(self._read().decode() or "the process has ended")
        return answer

    def _read(self) -> bytes:
        assert self.process.stdout is not None
        size = int.from_bytes(self.process.stdout.read(4), "big")
        return self.process.stdout.read(size)

    def end(self, *, kill: bool = False) -> int:
        if kill:
            self.process.kill()
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        with contextlib.suppress(BrokenPipeError):
            self.process.stdin.close()
        self.process.stdout.close()
        return self.process.wait(30)


@pytest.fixture
def command(world: World) -> list[str]:
    """What starts the installed command over the world's plan."""
    folder = world.folder
    world.keyholder.save(folder / "holder.key")
    (folder / "plan.toml").write_bytes(world.plan.source)
    return [
        *("-m", "secure_fl", "keyholder", str(folder / "plan.toml")),
        *("--key", str(folder / "holder.key"), "--home", str(folder / "home")),
    ]


def test_a_process_killed_between_record_and_answer(
    world: World, command: list[str]
) -> None:
    killed = Process(["-c", _KILLED, str(world.folder)])
    called = Called(world, (0, 0), holder=killed)
    with pytest.raises(EngineError, match="has ended"):
        called.ask_honestly()
    assert killed.end() == -signal.SIGKILL
    again = Process(command)
    with pytest.raises(EngineError, match="were released"):
        again.handle(called.call, random=b"")
    with pytest.raises(EngineError, match="no context"):
        again.handle(called.request(called.rows()), random=b"")
    with pytest.raises(EngineError, match="were released"):
        Called(world, (0, 1), holder=again)
    # It costs the round and no more.
    other = Called(world, (1, 0), holder=again)
    assert kind_of(other.ask_honestly()) == KINDS.RELEASE
    assert again.end() == 0


def test_a_process_killed_between_call_and_request(
    world: World, command: list[str]
) -> None:
    first = Process(command)
    called = Called(world, (0, 0), holder=first)
    assert first.end(kill=True) == -signal.SIGKILL
    again = Process(command)
    with pytest.raises(EngineError, match="no context"):
        again.handle(called.request(called.rows()), random=b"")
    with pytest.raises(EngineError, match="answered before"):
        again.handle(called.call, random=b"")
    other = Called(world, (0, 1), holder=again)
    assert kind_of(other.ask_honestly()) == KINDS.RELEASE
    # Bytes that are no message cost nothing either.
    with pytest.raises(EngineError, match="not a message"):
        again.handle(b"?", random=b"")
    assert again.end() == 0
