# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every write of a client that is one process per message.

For each moment there is to kill at: a process dies there, the message is given to a
new one, and the round goes on.  Shown each time, from all bytes that ever came out:
a client whose answer had not left is in the exact sum; one whose answer may have left
says nothing more there; no answer is made twice; what may have left stays charged.
"""

from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from secure_fl.round import OpenedUpdate

from .world import CHUNKS, Client, Kill, Processes, World, finished

VICTIM = "clinic-a"
KIND, CTX, INDEX = 0, 1, 3  # fields of a message
_folders = itertools.count()


@dataclass(frozen=True)
class Way:
    """What kind of round it is, and when an engine gives a message again."""

    kind: str = "masking"
    clients: int = 4
    redeliver: Literal["always", "if silent"] = "always"


ALWAYS = Way()  # four clients, three are enough
IF_SILENT = Way(clients=3, redeliver="if silent")  # all three are needed
PLAIN = Way(kind="plain")


def run(
    folder: Path, processes: Processes, way: Way, kill: Kill | None
) -> tuple[World, Client, OpenedUpdate | None]:
    """A whole round, from joining to its end."""
    place = folder / str(next(_folders))
    place.mkdir()
    world = World(place, processes, clients=way.clients, kind=way.kind)
    victim = world.parked[VICTIM]
    victim.kill, victim.redeliver = kill, way.redeliver
    world.join()
    opened = world.attempt(0, 0)
    world.close_round(opened)
    return world, victim, opened


@dataclass(frozen=True)
class Reference:
    """The round that nobody disturbs: its moments, and how much each call says."""

    kills: list[Kill]
    pieces: list[int]


@pytest.fixture(scope="module")
def reference(
    processes: Processes, tmp_path_factory: pytest.TempPathFactory
) -> dict[Way, Reference]:
    out = {}
    for way in (ALWAYS, IF_SILENT, PLAIN):
        folder = tmp_path_factory.mktemp("undisturbed")
        world, victim, opened = run(folder, processes, way, None)
        assert opened is not None
        assert world.is_exact(opened)
        assert all(map(finished, victim.replies))
        world.close()
        out[way] = Reference(
            [
                Kill(call, at)
                for call, reply in enumerate(victim.replies)
                for at in range(1, len(reply.writes) + 1)
            ],
            [len(reply.pieces) for reply in victim.replies],
        )
    return out


def nothing_had_left(victim: Client, kill: Kill) -> bool:
    """Whether the client must go on: what the killed process made durable says it.

    A call is one commit of the keystore.  The one that uploads is four: reserved,
    offered, spent, done; and a training that was cut off is not begun again.
    """
    assert victim.killed is not None
    commits = victim.killed.committed("store")
    if victim.calls[kill.call].vector is None:
        return commits < 1
    reserved = victim.killed.committed("ledger") > 0
    return commits < 3 and (not reserved or commits == 2)


def check(folder: Path, processes: Processes, way: Way, kill: Kill, whole: int) -> None:
    world, victim, opened = run(folder, processes, way, kill)
    assert victim.killed is not None
    assert victim.killed.killed
    uploads = victim.calls[kill.call].vector is not None
    inside = any(m[KIND] == 6 for m in victim.messages())

    # (a) Nothing had left: the same message is answered, and the client is in the sum.
    if nothing_had_left(victim, kill):
        assert victim.killed.pieces == []
        assert victim.again is not None
        assert finished(victim.again)
        assert len(victim.again.pieces) == whole
        assert all(finished(r) for r in victim.replies if r is not victim.killed)
        assert inside
        assert [r.state for r in victim.releases()] == ["released"]
    # (b) It may have left: not a word more to that message, but for the one signature.
    elif victim.again is not None and victim.calls[kill.call].method == "countersign":
        assert finished(victim.again)
    elif victim.again is not None:
        assert victim.again.pieces == []
        assert not finished(victim.again)
    # Everything had left, and the message was not given again: the next one is next.
    elif len(victim.killed.pieces) == whole:
        assert all(finished(r) for r in victim.replies if r is not victim.killed)
        assert inside
    said_once(victim)
    if opened is not None:
        assert world.is_exact(opened)
        assert (VICTIM in opened.survivors) == inside
    else:
        assert way is IF_SILENT, "three of four are enough"
        assert not nothing_had_left(victim, kill)

    # (c) What may have left is charged, and nothing is taken back.
    states = [r.state for r in victim.releases()]
    assert len(states) <= 1
    chunks = any(m[KIND] == 5 for m in victim.messages())
    spent = uploads and victim.killed.committed("store") >= 3
    if chunks or spent:
        assert states in (["sent"], ["released"])
    if opened is not None and inside:
        # The engine may have died while it told the client so: charged is enough.
        told = victim.calls[kill.call].method != "conclude"
        assert states == ["released"] or not told

    # (d) One kind of share for each dealer, over all that was ever revealed.
    reveals = [m for m in victim.messages() if m[KIND] == 10]
    dealers = [row[0] for reveal in reveals for row in reveal[3]]
    assert len(set(dealers)) == len(dealers)

    # Whatever it was: the client takes part in the next round.
    list(victim.open(1, 0))
    assert finished(victim.replies[-1])
    world.close()


def said_once(victim: Client) -> None:
    """Each kind of message once a context, each chunk once, one countersignature."""
    counted = Counter(
        (m[KIND], m[CTX], m[INDEX] if m[KIND] == 5 else 0) for m in victim.messages()
    )
    assert set(counted.values()) <= {1}, counted
    assert {index for kind, _, index in counted if kind == 5} <= set(range(CHUNKS))
    assert len({data for method, data in victim.said if method == "countersign"}) <= 1


def test_kill_at_some_writes(
    reference: dict[Way, Reference], processes: Processes, tmp_path: Path
) -> None:
    """Twenty of them; half in the call that trains and uploads."""
    found = reference[ALWAYS]
    upload = found.pieces.index(CHUNKS + 1)
    inside = [k for k in found.kills if k.call == upload]
    outside = [k for k in found.kills if k.call != upload]
    for kills in (inside, outside):
        for i in range(10):
            kill = kills[i * (len(kills) - 1) // 9]
            check(tmp_path, processes, ALWAYS, kill, found.pieces[kill.call])


@pytest.mark.long
@pytest.mark.parametrize(
    "way", [ALWAYS, IF_SILENT, PLAIN], ids=["always", "if-silent", "plain"]
)
def test_kill_at_every_write(
    reference: dict[Way, Reference], processes: Processes, tmp_path: Path, way: Way
) -> None:
    found = reference[way]
    for kill in found.kills:
        check(tmp_path, processes, way, kill, found.pieces[kill.call])


def test_there_are_enough_writes(reference: dict[Way, Reference]) -> None:
    assert sum(len(found.kills) for found in reference.values()) >= 200
