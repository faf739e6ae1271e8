# SPDX-License-Identifier: Apache-2.0
"""Rounds of which every client is one process per message, and what may befall one.

What a client that was killed may still do in later attempts; a full disk, a folder
that cannot be written, a bad message, two processes at once, a state that is lost: the
client goes on, or says nothing; never twice.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from secure_fl.errors import UsageError
from secure_fl.keystore import MemoryKeystore
from secure_fl.privacy import Ledger, private_update
from secure_fl.round import ParkedParticipant
from secure_fl.transcript import check_signature

from .client_process import NOW, Call
from .world import (
    CHUNKS,
    MODEL,
    RANDOM,
    Client,
    Kill,
    Processes,
    Reply,
    World,
    finished,
    in_use,
)

UPLOAD = 3  # the call: after join, open and the cohort's keys
NOBODY = 65534


@pytest.fixture
def world(tmp_path: Path, processes: Processes) -> Iterator[World]:
    made = World(tmp_path, processes)
    made.join()
    yield made
    made.close()


@pytest.fixture
def client(world: World) -> Client:
    (client,) = world.parked.values()
    return client


def states(client: Client) -> list[str]:
    return [r.state for r in client.releases()]


def needs_update(client: Client) -> bool:
    return list(client.call("needs_update")) == [b"yes"]


def lost_in_upload(world: World, client: Client, write: str, nth: int) -> None:
    """A first attempt that the client leaves, killed at that write of its upload."""
    client.kill, client.redeliver = Kill(UPLOAD, (write, nth)), "never"
    opened = world.attempt(0, 0)
    assert client.killed is not None
    assert opened is not None
    assert client.name not in opened.survivors


def kept_rows(world: World, client: Client) -> int:
    with sqlite3.connect(world.folder / client.name / "store") as db:
        (count,) = db.execute("SELECT count(*) FROM parked").fetchone()
    db.close()
    assert isinstance(count, int)
    return count


# -- rounds ------------------------------------------------------------------------


def test_rounds_of_processes_open_exact_sums(
    tmp_path: Path, processes: Processes
) -> None:
    world = World(tmp_path, processes, parked=4)
    world.join()
    for index in range(2):
        opened = world.attempt(index, 0)
        assert opened is not None
        assert len(opened.survivors) == 4
        assert world.is_exact(opened)
        place = len(world.log.entries)
        world.close_round(opened)
        entry = world.log.entries[place]
        for name, client in world.parked.items():
            assert all(map(finished, client.replies))
            assert states(client) == ["released"] * (index + 1)
            signature = [p for method, p in client.said if method == "countersign"][-1]
            public = world.identities[name].public_key
            assert check_signature(public, entry.hash, signature)
            assert kept_rows(world, client) == 1, "only the client itself"


def test_an_update_lies_encrypted_while_it_waits(world: World, client: Client) -> None:
    lost_in_upload(world, client, "before commit store", 3)
    assert kept_rows(world, client) == 2
    for file in (world.folder / client.name).iterdir():
        assert client.vector.tobytes()[:64] not in file.read_bytes(), file
        assert file.stat().st_mode & 0o077 == 0, file


# -- the next attempt --------------------------------------------------------------


def test_an_update_that_never_left_serves_the_next_attempt(
    world: World, client: Client
) -> None:
    lost_in_upload(world, client, "after commit store", 2)
    assert states(client) == ["reserved"]
    opened = world.attempt(0, 1)
    assert opened is not None
    assert client.name in opened.survivors
    assert world.is_exact(opened)
    world.close_round(opened)
    assert states(client) == ["released"], "one charge, for one update"


MAY_HAVE_LEFT = pytest.mark.parametrize(
    ("write", "nth"),
    [
        ("after commit ledger", 2),  # sent in the ledger, not yet in the keystore
        ("after commit store", 3),  # spent, no chunk has left
        ("after piece", 1),  # one chunk has left
    ],
)


@MAY_HAVE_LEFT
def test_an_update_that_may_have_left_is_never_taken_back(
    world: World, client: Client, write: str, nth: int
) -> None:
    lost_in_upload(world, client, write, nth)
    list(client.call("conclude", False))
    assert finished(client.replies[-1])
    assert states(client) == ["sent"]
    assert list(client.open(1, 0))
    assert needs_update(client)


@MAY_HAVE_LEFT
def test_an_update_that_may_have_left_does_not(
    world: World, client: Client, write: str, nth: int
) -> None:
    lost_in_upload(world, client, write, nth)
    assert states(client) == ["sent"]
    assert list(client.open(0, 1))
    assert needs_update(client)
    opened = world.attempt(0, 2)
    assert opened is not None
    assert world.is_exact(opened)
    world.close_round(opened)
    assert states(client) == ["sent", "released"], "both are charged"


def test_a_training_that_was_cut_off_is_charged_and_not_begun_again(
    world: World, client: Client
) -> None:
    client.kill = Kill(UPLOAD, ("after commit store", 1))
    opened = world.attempt(0, 0)
    assert client.again is not None
    assert "one attempt makes one private update" in client.again.error
    world.close_round(opened)
    assert states(client) == ["reserved"]


def test_an_update_that_never_left_is_taken_back_at_the_end(
    world: World, client: Client
) -> None:
    lost_in_upload(world, client, "after commit store", 2)
    list(client.call("conclude", False))
    assert states(client) == ["aborted"]
    assert kept_rows(world, client) == 1


def test_a_signed_omission_frees_an_update_across_processes(
    world: World, client: Client
) -> None:
    lost_in_upload(world, client, "after piece", CHUNKS)
    assert world.aggregation_.omission
    list(client.call("release", *world.aggregation_.omission))
    assert states(client) == ["omitted"]
    opened = world.attempt(0, 1)
    assert opened is not None
    assert client.name in opened.survivors
    assert world.is_exact(opened)
    world.close_round(opened)
    assert states(client) == ["released"]
    (release,) = client.releases()
    assert len(release.contexts) == 2


# -- what ends an attempt ----------------------------------------------------------


def test_a_bad_message_ends_the_attempt_and_not_the_client(
    world: World, client: Client
) -> None:
    a = world.aggregation(0, 0)
    for name, member in world.members.items():
        world.take(a, name, member.open(0, 0))
    a.advance()
    honest = a.outgoing[client.name]
    forged = honest[:-1] + bytes([honest[-1] ^ 1])
    for message in (forged, honest):
        assert list(client.handle(message)) == []
        assert not finished(client.replies[-1])
    opened = world.attempt(0, 1)
    assert opened is not None
    assert client.name in opened.survivors


def test_a_client_whose_state_is_lost_answers_nothing_twice(
    world: World, client: Client
) -> None:
    a = world.aggregation(0, 0)
    for name, member in world.members.items():
        world.take(a, name, member.open(0, 0))
    a.advance()
    with sqlite3.connect(world.folder / client.name / "store") as db:
        db.execute("DELETE FROM parked")
    db.close()
    assert list(client.handle(a.outgoing[client.name])) == []
    assert "no state is parked" in client.replies[-1].error
    client.join()
    assert finished(client.replies[-1])
    assert list(client.open(0, 0)) == []
    assert "started before" in client.replies[-1].error
    opened = world.attempt(0, 1)
    assert opened is not None
    assert client.name in opened.survivors


def test_two_processes_give_one_answer(
    world: World, client: Client, processes: Processes
) -> None:
    others = Processes()
    a = world.aggregation(0, 0)
    for name, member in world.members.items():
        world.take(a, name, member.open(0, 0))
    a.advance()
    call = Call(world.folder, client.name, "handle", (a.outgoing[client.name],))
    with ThreadPoolExecutor(2) as pool:
        replies = list(pool.map(lambda ask: ask(call), (processes, others)))
    others.close()
    assert sorted(len(r.pieces) for r in replies) == [0, 1]
    assert sorted(map(finished, replies)) == [False, True]


def test_an_upload_that_was_overtaken_is_not_finished(world: World) -> None:
    """A slow upload; the engine has given the client up and opened another attempt."""
    name = "clinic-b"
    keystore = MemoryKeystore()

    def process() -> ParkedParticipant:
        return ParkedParticipant(
            world.plan,
            world.identities[name],
            ledger=world.residents[name].ledger,
            keystore=keystore,
            random=RANDOM,
            now=lambda: NOW,
        )

    a = world.aggregation(0, 0)
    process().join(log_head=world.log.head)
    world.take(a, name, process().open(0, 0, MODEL))
    others = {n: m for n, m in world.members.items() if n != name}
    for other, member in others.items():
        world.take(a, other, member.open(0, 0))
    for _ in range(2):
        a.advance()
        outgoing, inbox = a.outgoing, a.outgoing[name]
        if a.step == "vectors":
            break
        world.take(a, name, process().handle(inbox))
        for other, member in others.items():
            world.take(a, other, member.handle(outgoing[other]))
    slow = process()
    slow.offer(private_update(world.residents[name].vector, slow.reserve()))
    pieces = slow.handle(inbox)
    chunks = [next(pieces) for _ in range(CHUNKS)]
    assert len(chunks) == CHUNKS
    process().open(0, 1, MODEL)
    with pytest.raises(UsageError, match="has gone on meanwhile"):
        next(pieces)
    assert process().needs_update
    ledger: Ledger = world.residents[name].ledger
    assert [r.state for r in ledger.releases(world.plan.lineage)] == ["sent"]


# -- copies of the keystore --------------------------------------------------------


def test_a_restored_keystore_answers_nothing_in_any_step(
    world: World, client: Client
) -> None:
    """The database as it was before each message, put back when the round is over."""
    home = world.folder / client.name
    files = ("store", "store-wal", "store-shm")
    copies: list[dict[str, bytes]] = []
    ask = client._ask

    def copying(call: Call) -> Reply:
        copies.append(
            {f: (home / f).read_bytes() for f in files if (home / f).exists()}
        )
        return ask(call)

    client._ask = copying  # type: ignore[method-assign]
    opened = world.attempt(0, 0)
    world.close_round(opened)
    asked = client.calls[1:]  # all but joining
    assert [c.method for c in asked] == [
        "open",
        *["handle"] * 4,
        "countersign",
        "conclude",
    ]
    later = Call(world.folder, client.name, "open", (1, 0, MODEL.to_bytes()))
    joining = Call(world.folder, client.name, "join", (world.log.head,))
    for copy in copies:
        for call in [*asked, later, joining]:
            for name in files:
                (home / name).unlink(missing_ok=True)
            for name, data in copy.items():
                (home / name).write_bytes(data)
            reply = world.processes(call)
            assert reply.pieces == []
            assert "older than its anchor" in reply.error
    assert states(client) == ["released"]


# -- disks -------------------------------------------------------------------------


def test_on_a_full_disk_nothing_leaves(world: World, client: Client) -> None:
    """Each message meets a full disk first, by a limit that the kernel enforces.

    At 0 nothing can be opened; at 4 KiB all can, and the keystore cannot commit.
    """
    full: list[Reply] = []
    ask = client._ask

    def limited(call: Call) -> Reply:
        # Not in the training: there the ledger would have charged by then.
        for size in (0, 4096) if call.vector is None else (0,):
            home = world.folder / client.name
            with in_use(home / "store"), in_use(home / "ledger"):
                reply = world.processes(replace(call, full_at=size))
            full.append(reply)
            assert reply.pieces == []
        return ask(call)

    client._ask = limited  # type: ignore[method-assign]
    opened = world.attempt(0, 0)
    assert opened is not None
    assert client.name in opened.survivors
    assert world.is_exact(opened)
    world.close_round(opened)
    assert all(map(finished, client.replies))
    assert len(full) == 13
    assert all("error EngineError" in reply.error for reply in full)
    assert states(client) == ["released"]


def test_a_spend_that_is_not_durable_holds_the_upload_back(
    world: World, client: Client
) -> None:
    """The database has it, the anchor has not: no chunk leaves, now or later."""
    anchor_beside = world.folder / client.name / "store.key.new"
    client.kill = Kill(UPLOAD, ("after commit ledger", 2))
    ask = client._ask

    def blocked(call: Call) -> Reply:
        if client.replies and client.replies[-1].killed:
            anchor_beside.mkdir()
            reply = world.processes(call)
            anchor_beside.rmdir()
            assert "error EngineError" in reply.error
            assert reply.committed("store") == 1
            assert reply.pieces == []
        return ask(call)

    client._ask = blocked  # type: ignore[method-assign]
    opened = world.attempt(0, 0)
    assert opened is not None
    assert client.name not in opened.survivors
    assert client.again is not None
    assert client.again.pieces == []
    assert "no attempt is open" in client.again.error
    assert states(client) == ["sent"]


def test_in_a_folder_that_cannot_be_written_nothing_leaves(
    processes: Processes,
) -> None:
    # Not below the tests' own folder: where they run as root, the client does not.
    folder = Path(tempfile.mkdtemp())
    world = World(folder, processes)
    try:
        (client,) = world.parked.values()
        client.join()
        home = folder / client.name
        user = NOBODY if os.geteuid() == 0 else None
        for path in (folder, home, *home.iterdir()):
            if user is not None:
                os.chown(path, user, user)
            path.chmod(0o555 if path.is_dir() else 0o444)
        call = Call(folder, client.name, "open", (0, 0, MODEL.to_bytes()), user=user)
        reply = processes(call)
        assert reply.pieces == []
        assert "error EngineError" in reply.error
        for path in (folder, home, *home.iterdir()):
            path.chmod(0o700 if path.is_dir() else 0o600)
        assert len(processes(call).pieces) == 1
    finally:
        world.close()
        shutil.rmtree(folder)
