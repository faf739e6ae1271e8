# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every write of a key holder that is one process per message.

Also two processes at once, and a full disk.  A message whose answer had not left is
answered by the next process; one whose answer may have left never is.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from secure_fl.ckks.messages import KINDS, Row
from secure_fl.context import kind_of

from ..ckks.forging import Called
from ..ckks.world import World
from .holder_home import NOTHING, HolderProcesses, Place
from .world import in_use


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "keyholder")
    yield made
    made.close()


@pytest.fixture(scope="module")
def holders() -> Iterator[HolderProcesses]:
    made = HolderProcesses()
    yield made
    made.close()


@pytest.fixture
def place(world: World, holders: HolderProcesses, tmp_path: Path) -> Place:
    return Place(world, holders, tmp_path / "home")


@pytest.mark.parametrize(
    "new", [False, pytest.param(True, marks=pytest.mark.long)], ids=["home", "new-home"]
)
def test_kill_at_every_write_of_a_call(
    world: World, holders: HolderProcesses, tmp_path: Path, new: bool
) -> None:
    """In a home that was met before, or that is made on the way."""

    def asking(home: str) -> tuple[Place, Called]:
        place = Place(world, holders, tmp_path / home)
        if not new:
            assert place.give(b"?").pieces == []
        return place, Called(world, unanswered=True)

    place, called = asking("undisturbed")
    reference = place.give(called.call)
    commits = reference.committed("store")
    assert commits == (2 if new else 1)
    assert len(reference.writes) >= 10 * commits
    for at in range(1, len(reference.writes) + 1):
        place, called = asking(f"call-{at}")
        killed = place.give(called.call, at)
        assert killed.killed
        again = place.give(called.call)
        if killed.committed("store") < commits:  # nothing had left, nothing is lost
            assert killed.pieces == []
            called.answer(*again.pieces)
            place.release(called)
            continue
        # It may have left: the call is not answered again, and its context is over.
        assert again.pieces == []
        assert "answered before" in again.error
        assert len(place.state()) == NOTHING
        assert place.give(called.request(called.rows())).pieces == []
        place.release(place.called((0, 1)))


def test_a_process_that_dies_behind_its_answer_costs_nothing(place: Place) -> None:
    """The answer came, so the message is not given again, and the context is open."""
    called = Called(place.world, unanswered=True)
    killed = place.give(called.call, ("after piece", 1))
    assert killed.killed
    called.answer(*killed.pieces)
    place.release(called)


@pytest.mark.parametrize(
    "few", [False, pytest.param(True, marks=pytest.mark.long)], ids=["all", "few"]
)
def test_kill_at_every_write_of_a_request(
    world: World, holders: HolderProcesses, tmp_path: Path, few: bool
) -> None:
    """Of one that is answered with a release, or with a refusal."""

    def asking(home: str) -> tuple[Place, Called, list[Row]]:
        place = Place(world, holders, tmp_path / home)
        called = place.called((0, 0))
        return place, called, called.rows()

    place, called, rows = asking("undisturbed")
    reference = place.give(called.request(rows[: 2 if few else 4]))
    assert reference.committed("store") == 1
    assert len(reference.writes) >= 10
    for at in range(1, len(reference.writes) + 1):
        check_request(*asking(f"request-{at}"), at, few=few)


def check_request(
    place: Place, called: Called, rows: list[Row], at: int, *, few: bool
) -> None:
    request = called.request(rows[: 2 if few else 4])
    killed = place.give(request, at)
    assert killed.killed
    committed = killed.committed("store") == 1
    again = place.give(request)
    assert len(killed.pieces) + len(again.pieces) <= 1
    assert len(again.pieces) == (0 if committed else 1)
    answers = killed.pieces + again.pieces
    assert all(kind_of(a) == (KINDS.REFUSAL if few else KINDS.RELEASE) for a in answers)
    # Whether it left or not: the key is gone, and nothing more comes out.
    assert len(place.state()) == NOTHING
    for message in (request, called.request(rows[1:]), called.call):
        assert place.give(message).pieces == []
    if not few:
        other = Called(place.world, (0, 1), unanswered=True)
        assert "were released" in place.give(other.call).error
    place.release(place.called((0, 2) if few else (1, 0)))


def test_two_processes_give_one_answer(place: Place) -> None:
    """To calls for two attempts both, but one context is open; to requests one."""
    others = HolderProcesses()
    parents = (place.holders, others)
    try:
        for index in range(2):
            called = Called(place.world, (index, 0), unanswered=True)
            with ThreadPoolExecutor(2) as pool:
                calls = [
                    pool.submit(p.give, place.message(called.call)) for p in parents
                ]
                replies = [c.result() for c in calls]
            assert sorted(len(r.pieces) for r in replies) == [0, 1]
            called = place.called((index, 1))  # the second call ended the first one
            rows = called.rows()
            requests = (called.request(rows), called.request(rows[:3]))
            with ThreadPoolExecutor(2) as pool:
                asked = [
                    pool.submit(p.give, place.message(r))
                    for p, r in zip(parents, requests, strict=True)
                ]
                replies = [a.result() for a in asked]
            assert sorted(len(r.pieces) for r in replies) == [0, 1]
            assert len(place.state()) == NOTHING
    finally:
        others.close()


@pytest.mark.parametrize("size", [0, 4096])
def test_on_a_full_disk_nothing_leaves(place: Place, size: int) -> None:
    """At 0 nothing can be opened; at 4 KiB all can, and nothing can be committed."""
    for index in range(2):
        called = Called(place.world, (index, 0), unanswered=True)
        for first in (True, False):
            data = called.call if first else called.request(called.rows())
            full = dataclasses.replace(place.message(data), full_at=size)
            with in_use(place.home / "store"):
                reply = place.holders.give(full)
            assert reply.pieces == []
            assert "error EngineError" in reply.error
            if first:
                called.answer(*place.give(data).pieces)
        place.release(called)
