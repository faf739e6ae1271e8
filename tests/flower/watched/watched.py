# SPDX-License-Identifier: Apache-2.0
"""A member whose update is known, and which waits where it is told to.

The member is the real one: its home, its ledger, its messages.  Only its trainer is
made up.  In the folder that its node config calls ``watch`` a test finds where it is,
and says where it shall wait to be killed, stopped or cut off:

``hold``
    places, one per line, such as ``0 vectors after``: round, step, moment
``here``
    the place it waits at
``updates``
    a line for each update that it made: the run, and the place

Moments are ``before`` (nothing was done about the message), ``training`` (the update is
charged and made) and ``after`` (all is done, and the reply has not left).
"""

from __future__ import annotations

import time
from pathlib import Path

import numpy as np
from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from numpy.typing import NDArray

from secure_fl.engines.flower.mod import answer
from secure_fl.engines.flower.records import from_records
from secure_fl.engines.home import MemberSettings
from secure_fl.engines.local import Trainer
from secure_fl.engines.requests import Countersign, Export, Open, Request, TrainEarly
from secure_fl.engines.requests import Message as ProtocolMessage
from secure_fl.plan import Plan
from secure_fl.privacy import PrivateUpdate, private_update
from secure_fl.training import ClientRound

__all__ = ["VALUES", "client", "units"]

VALUES = 40
STEPS = ("keys", "shares", "vectors", "consistency", "unmask")
LONGEST = 300.0  # seconds; whoever is forgotten goes on

client = ClientApp()


def units(name: str, plan: Plan, values: int) -> NDArray[np.int8]:
    """The member's update of every round, in the plan's steps: no two members' are
    alike."""
    draws = np.random.default_rng(list(name.encode()))
    size = plan.grid.padded if plan.distributed else values
    return draws.integers(-9, 9, size, np.int8)


def _update(name: str, plan: Plan, values: int) -> NDArray[np.float64]:
    """As a trainer hands it over: without noise, for a test adds it up."""
    step = 1.0 if plan.distributed else plan.encoding.step
    return np.asarray(units(name, plan, values) * step, np.float64)


class Watch:
    """Where this member is, in files: each message is a process of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.place = "- hello"

    def enter(self, request: Request) -> None:
        """Find the place from what is asked; the steps of an attempt are counted."""
        path = self.folder / "steps"
        for action in request.actions:
            match action:
                case Open(round_index, _):
                    path.write_text(f"{round_index} 0")
                case ProtocolMessage():
                    index, step = path.read_text().split()
                    path.write_text(f"{index} {int(step) + 1}")
        index, step = path.read_text().split() if path.exists() else ("-", "0")
        last = request.actions[-1]
        if isinstance(last, Countersign):
            self.place = f"{index} signature"
        elif isinstance(last, Export):
            self.place = f"{index} ledger"
        elif isinstance(last, Open | TrainEarly | ProtocolMessage):
            self.place = f"{index} {STEPS[int(step)]}"

    def wait(self, moment: str) -> None:
        """While the test holds this place."""
        place, end = f"{self.place} {moment}", time.monotonic() + LONGEST
        while time.monotonic() < end:
            try:
                if place not in (self.folder / "hold").read_text().splitlines():
                    return
            except FileNotFoundError:
                return
            new = self.folder / ".here"
            new.write_text(place)
            new.replace(self.folder / "here")
            time.sleep(0.05)

    def made(self, plan: Plan) -> None:
        assert plan.run_id is not None
        with (self.folder / "updates").open("a") as file:
            file.write(f"{plan.run_id.hex()} {self.place}\n")


@client.train()
def handle(message: Message, context: Context) -> Message:
    """Answer as the ready app does, and wait where the test says so."""
    watch = Watch(Path(str(context.node_config["watch"])))
    request, _ = Request.of(from_records(message.content))
    watch.enter(request)
    watch.wait("before")

    def trainer(plan: Plan, settings: MemberSettings) -> Trainer:
        def train(r: ClientRound) -> PrivateUpdate:
            update = private_update(
                _update(settings.name, plan, r.model.size), r._reserve()
            )
            watch.made(plan)
            watch.wait("training")
            return update

        return train

    reply = answer(message, context, trainer)
    watch.wait("after")
    return reply
