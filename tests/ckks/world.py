# SPDX-License-Identifier: Apache-2.0
"""A consortium under `ckks`, of the real objects, on a network that a test plays.

Every message travels as bytes through one hook, which says what arrives in its place:
the message, nothing, it twice, others.  What clients send in one step is interleaved
piece by piece.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Literal

import numpy as np

from secure_fl import ckks
from secure_fl.ckks.messages import KINDS
from secure_fl.context import kind_of
from secure_fl.errors import ProtocolError, SecureFLError, UsageError
from secure_fl.keystore import DiskKeystore, Keystore, MemoryKeystore
from secure_fl.model import GlobalModel
from secure_fl.round import KEY_HOLDER, OpenedUpdate, key_holder

from ..participants import RANDOM, Participants, plan_source

Keys = Literal["one-time", "keyholder"]
BOTH: tuple[Keys, ...] = ("one-time", "keyholder")
CHUNKS = 3  # of every client's vector

# (sender, receiver, message) -> what arrives; the aggregator's name is "".
Hook = Callable[[str, str, bytes], list[bytes]]
# Client -> a step, and after how many pieces of its answer something befalls it.
Cuts = Mapping[str, tuple[str, int]]
# The steps in which clients speak, and in how many pieces.
STEPS: dict[Keys, dict[str, int]] = {
    "one-time": {
        "keys": 1,
        "shares": 1,
        "vectors": CHUNKS + 2,  # its key is one chunk of masking's
        "consistency": 1,
        "unmask": 1,
    },
    "keyholder": {"vectors": CHUNKS + 1},
}


def honest(sender: str, receiver: str, message: bytes) -> list[bytes]:
    return [message]


class World(Participants):
    """``clients`` clients whose vectors take three chunks, and a key holder."""

    def __init__(
        self, folder: Path, keys: Keys, *, clients: int = 4, parked: bool = False
    ) -> None:
        names = tuple(f"clinic-{'abcdefgh'[i]}" for i in range(clients))
        protection = f'kind = "ckks"\nkeys = "{keys}"\nchunk_words = 64'
        model = GlobalModel({"head": np.zeros((3, 3000), np.float32)})
        self._opened: list[DiskKeystore] = []
        super().__init__(folder, plan_source(names, protection), model, parked=parked)
        self.keys = keys
        self.record: Keystore = MemoryKeystore()
        if keys == "keyholder":
            self.holder = self.new_holder()

    def keystore(self, name: str) -> Keystore:
        return self.disk(name) if self.parked else MemoryKeystore()

    def restart(self) -> None:
        """Parked clients: every one goes on in a new process."""
        for name in self.names:
            self.keystores[name] = self.keystore(name)
            self.participants[name] = self.from_keystore(name, self.plan)

    def disk(self, name: str) -> DiskKeystore:
        """A keystore in files, as a new process opens it."""
        keystore = DiskKeystore(
            self.folder / f"{name}.keystore",
            key_path=self.folder / f"{name}.anchor",
            random=RANDOM,
        )
        self._opened.append(keystore)
        return keystore

    def new_holder(self) -> ckks.KeyHolder:
        """A new process of the key holder, over the record it has."""
        return key_holder(self.plan, self.keyholder, self.record)

    def session(self, place: tuple[int, int] = (0, 0)) -> ckks.Session:
        session = self.plan.session(
            round_index=place[0],
            attempt=place[1],
            model_hash=self.model.digest(),
            size=self.model.size,
        )
        assert isinstance(session, ckks.Session)
        return session

    def is_exact(self, opened: OpenedUpdate) -> bool:
        """Whether the sum is the sum of its survivors' updates, to the last bit."""
        total = sum(self.vectors[n] for n in opened.survivors)
        return bool(np.array_equal(opened.total, total))

    def close(self) -> None:
        super().close()
        for keystore in self._opened:
            keystore.close()


class Attempt:
    """One attempt, step by step.

    ``cuts``: who falls silent, and where; ``delays``: whose further pieces of a step
    arrive when it is over.  ``told``, ``said``: what reached each client, and what the
    aggregator took from each.  ``left``: with which error a client ended.  ``refused``:
    what the aggregator refused; its sender is out of the attempt, as in an engine.
    ``ignored``: what it let go.  ``gone``: who is silent from now on.
    """

    def __init__(
        self,
        world: World,
        place: tuple[int, int] = (0, 0),
        *,
        hook: Hook = honest,
        cuts: Cuts | None = None,
        delays: Cuts | None = None,
    ) -> None:
        self.world = world
        self.hook = hook
        self.cuts = dict(cuts or {})
        self.delays = dict(delays or {})
        self.held: list[tuple[str, bytes]] = []
        self.a = world.aggregation(place)
        self.told: dict[str, list[bytes]] = {}
        self.said: dict[str, list[bytes]] = {}
        self.left: dict[str, SecureFLError] = {}
        self.refused: dict[str, SecureFLError] = {}
        self.ignored: list[tuple[str, bytes]] = []
        self.gone: set[str] = set()
        opened: dict[str, Iterable[bytes]] = {}
        for name, participant in world.participants.items():
            try:
                opened[name] = participant.open(*place, world.model)
            except UsageError as error:
                self.left[name] = error
                self.gone.add(name)
        self._collect({n: iter(first) for n, first in opened.items()})
        if not self.a.outgoing:
            self._close()

    @property
    def session(self) -> ckks.Session:
        assert isinstance(self.a.session, ckks.Session)
        return self.a.session

    def step(self) -> None:
        """Deliver what is due, take the answers in, and close the step."""
        self.deliver()
        self._close()

    def _close(self) -> None:
        self.a.advance()
        held, self.held = self.held, []
        for name, arrived in held:
            self.hear(name, arrived)
        if self.world.parked:
            self.world.restart()

    def deliver(self) -> None:
        """Everyone is told, and what they answer is taken in."""
        if self.a.step == "vectors":
            for name, participant in self.world.participants.items():
                if name not in self.gone and participant.needs_update:
                    self.world.offer(name)
        outgoing, self.a.outgoing = self.a.outgoing, {}
        self._collect({n: self._answers(n, m) for n, m in outgoing.items()})

    def until(self, step: str) -> Attempt:
        """Up to a step whose messages are due."""
        while self.a.step != step:
            self.step()
        return self

    def run(self) -> OpenedUpdate:
        """To the end."""
        while self.a.result is None:
            self.step()
        return self.a.result

    def free(self) -> set[str]:
        """Show the proof to everyone: whose update it freed."""
        freed = set()
        for name, participant in self.world.participants.items():
            try:
                participant.release(*self.a.omission)
            except (ProtocolError, UsageError):
                continue
            freed.add(name)
        return freed

    def _answers(self, name: str, message: bytes) -> Iterator[bytes]:
        for arrived in self.hook("", name, message):
            self.told.setdefault(name, []).append(arrived)
            if name == KEY_HOLDER:
                yield self.world.holder.handle(arrived, random=RANDOM.bytes(32))
            else:
                yield from self.world.participants[name].handle(arrived)

    def _collect(self, answers: dict[str, Iterator[bytes]]) -> None:
        """Take pieces in, one of each sender in turn, until nobody has more."""
        taken = dict.fromkeys(answers, 0)
        while answers:
            for name in list(answers):
                step, most = self.cuts.get(name, ("", 0))
                if name not in self.gone and (step, most) == (self.a.step, taken[name]):
                    self.gone.add(name)
                piece = None
                if name not in self.gone:
                    try:
                        piece = next(answers[name], None)
                    except SecureFLError as error:
                        self.left[name] = error
                        self.gone.add(name)
                if piece is None:
                    del answers[name]  # an upload that is cut off goes no further
                    continue
                step, most = self.delays.get(name, ("", 0))
                late = step == self.a.step and taken[name] >= most
                taken[name] += 1
                for arrived in self.hook(name, "", piece):
                    if late:
                        self.held.append((name, arrived))
                    else:
                        self.hear(name, arrived)

    def hear(self, name: str, arrived: bytes) -> None:
        """Something arrives at the aggregator."""
        try:
            counts = self.a.receive(name, arrived)
        except SecureFLError as error:
            self.refused.setdefault(name, error)
            self.gone.add(name)
            return
        if counts:
            self.said.setdefault(name, []).append(arrived)
        else:
            self.ignored.append((name, arrived))


def is_kind(message: bytes, *kinds: int) -> bool:
    return kind_of(message) in kinds


def replacing(sender: str, kind: int, change: Callable[[bytes], bytes]) -> Hook:
    """Every message of one kind from one sender is changed on its way."""

    def hook(of: str, to: str, message: bytes) -> list[bytes]:
        if of == sender and is_kind(message, kind):
            return [change(message)]
        return [message]

    return hook


def of_kind(messages: Iterable[bytes], kind: int) -> list[bytes]:
    return [m for m in messages if is_kind(m, kind)]


UPLOADED = {"one-time": 6, "keyholder": KINDS.INPUT}  # the message that ends an upload
