# SPDX-License-Identifier: Apache-2.0
"""A home whose key holder is one process per message, and what lies in it."""

from __future__ import annotations

import contextlib
import os
import sqlite3
import subprocess
import sys
from pathlib import Path

from secure_fl.ckks.messages import KINDS
from secure_fl.context import kind_of

from ..ckks.forging import Called
from ..ckks.world import World
from .holder_process import Message
from .world import ROOT, Processes, Reply

NOTHING = 12 + 16  # bytes of a sealed empty state: nonce and tag


def kept(store: Path) -> tuple[bytes, int]:
    """The state that is parked, sealed, and how many transactions there were."""
    with contextlib.closing(sqlite3.connect(store)) as db:
        ((state,),) = db.execute("SELECT state FROM parked").fetchall()
        ((count,),) = db.execute("SELECT count FROM writes").fetchall()
    return bytes(state), int(count)


class HolderProcesses(Processes):
    """The parent from which each message's process is forked."""

    def __init__(self) -> None:
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # it forks
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.parking.holder_process"],
            cwd=ROOT,
            env={**os.environ, **alone},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def give(self, message: Message) -> Reply:
        return self(message)  # type: ignore[arg-type]


class Place:
    """A home of the key holder, and contexts of the world's run at it."""

    def __init__(self, world: World, holders: HolderProcesses, home: Path) -> None:
        home.mkdir()
        self.world, self.holders, self.home = world, holders, home
        if not (world.folder / "plan.toml").exists():
            world.keyholder.save(world.folder / "holder.key")
            (world.folder / "plan.toml").write_bytes(world.plan.source)

    def message(self, data: bytes, kill_at: int | tuple[str, int] = 0) -> Message:
        return Message(self.world.folder, self.home, data, kill_at)

    def give(self, data: bytes, kill_at: int | tuple[str, int] = 0) -> Reply:
        return self.holders.give(self.message(data, kill_at))

    def called(self, place: tuple[int, int]) -> Called:
        called = Called(self.world, place, unanswered=True)
        (answer,) = self.give(called.call).pieces
        called.answer(answer)
        return called

    def release(self, called: Called) -> None:
        """Its request gets the release, and nothing is left behind."""
        (answer,) = self.give(called.request(called.rows())).pieces
        assert kind_of(answer) == KINDS.RELEASE
        assert len(called.opening(answer).seeds) == 4
        assert len(self.state()) == NOTHING

    def state(self) -> bytes:
        return kept(self.home / "store")[0]
