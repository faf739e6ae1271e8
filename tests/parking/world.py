# SPDX-License-Identifier: Apache-2.0
"""An honest aggregator, and clients of which some are one process per message.

Keeps every byte that a client's processes ever handed over.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from secure_fl import wire
from secure_fl.errors import ProtocolError, SecureFLError
from secure_fl.identity import Identity, key_to_text
from secure_fl.keystore import MemoryKeystore
from secure_fl.masking import messages
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.privacy import Ledger, Release, private_update
from secure_fl.randomness import SystemRandom
from secure_fl.round import Aggregation, OpenedUpdate, Participant, log_form
from secure_fl.transcript import Transcript

from .client_process import _HEAD, BROKEN, DONE, NOW, Call

ROOT = Path(__file__).parents[2]
RANDOM = SystemRandom()
MODEL = GlobalModel({"head": np.zeros((3, 50), np.float32)})  # three chunks
CHUNKS = 3
ASKS_FOR_VECTOR = (0, 4)  # the kinds: plain's request, masking's Inbox

_PLAN = """\
schema = "secure-fl/plan/1"
name = "clinics"
[parties]
members = [{members}]
[rounds]
count = 3
spare = 3
max_attempts = 3
[privacy]
mode = "local"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = 50.0
noise_multiplier = 2.0
delta = 1e-5
clip_norm = 1.0
sampling_rate = 1.0
local_steps = 1
[protection]
kind = "{kind}"
chunk_words = 64
[model]
kind = "custom"
[training]
way = "head"
"""


@contextlib.contextmanager
def in_use(database: Path) -> Iterator[None]:
    """Another process has it open: what SQLite keeps in memory for all is there."""
    with contextlib.closing(sqlite3.connect(database)) as db:
        db.execute("SELECT * FROM sqlite_master").fetchall()
        yield


@dataclass(frozen=True)
class Reply:
    """How one process ended, and every byte it had handed over by then."""

    pieces: list[bytes]
    code: int
    did: list[str]

    @property
    def killed(self) -> bool:
        return self.code == -signal.SIGKILL

    @property
    def error(self) -> str:
        return next((d for d in self.did if d.startswith("error ")), "")

    @property
    def writes(self) -> list[str]:
        """The moments at which it could have been killed."""
        return [d for d in self.did if not d.startswith("error ")]

    def committed(self, file: str) -> int:
        return self.did.count(f"after commit {file}")


class Processes:
    """The parent from which each call's process is forked."""

    def __init__(self) -> None:
        alone = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}  # it forks
        self._parent = subprocess.Popen(
            [sys.executable, "-m", "tests.parking.client_process"],
            cwd=ROOT,
            env={**os.environ, **alone},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )

    def __call__(self, call: Call) -> Reply:
        assert self._parent.stdin is not None
        assert self._parent.stdout is not None
        data = pickle.dumps(call)
        self._parent.stdin.write(len(data).to_bytes(4, "little") + data)
        self._parent.stdin.flush()
        pieces = []
        while True:
            kind, size = _HEAD.unpack(self._parent.stdout.read(_HEAD.size))
            body = self._parent.stdout.read(size)
            if kind == b"E":
                break
            pieces.append(body)
        code, did = pickle.loads(body)
        reply = Reply(pieces, code, did)
        assert code != BROKEN, reply.error
        return reply

    def close(self) -> None:
        assert self._parent.stdin is not None
        self._parent.stdin.close()
        assert self._parent.wait(30) == 0


@dataclass
class Kill:
    """SIGKILL in the call with this number, at the write that :class:`Call` has."""

    call: int
    at: int | tuple[str, int]


@dataclass
class Client:
    """One client as the engine sees it: a new process for every call."""

    world: World
    name: str
    vector: NDArray[np.float64]
    kill: Kill | None = None
    redeliver: Literal["always", "if silent", "never"] = "always"
    calls: list[Call] = field(default_factory=list)
    replies: list[Reply] = field(default_factory=list)
    said: list[tuple[str, bytes]] = field(default_factory=list)
    killed: Reply | None = None
    again: Reply | None = None

    def call(self, method: str, *arguments: Any, vector: Any = None) -> Iterator[bytes]:
        """What the client says to one message, over all processes that get it.

        An engine that saw a process die gives the message to another one: always,
        only where nothing had come, or never, and the client is out of the attempt.
        """
        call = Call(self.world.folder, self.name, method, arguments, vector)
        now = self.kill if self.kill and self.kill.call == len(self.calls) else None
        self.calls.append(call)
        reply = self._ask(replace(call, kill_at=now.at if now else 0))
        yield from reply.pieces
        if now is not None:
            assert reply.killed, "there were fewer writes than that"
            self.killed = reply
            silent = not reply.pieces and self.redeliver == "if silent"
            if silent or self.redeliver == "always":
                self.again = self._ask(call)
                yield from self.again.pieces

    def _ask(self, call: Call) -> Reply:
        reply = self.world.processes(call)
        self.replies.append(reply)
        self.said += [(call.method, piece) for piece in reply.pieces]
        return reply

    def join(self) -> None:
        assert not list(self.call("join", self.world.log.head))

    def open(self, round_index: int, attempt: int) -> Iterator[bytes]:
        return self.call("open", round_index, attempt, MODEL.to_bytes())

    def handle(self, message: bytes) -> Iterator[bytes]:
        asks = messages.kind_of(message) in ASKS_FOR_VECTOR
        return self.call("handle", message, vector=self.vector if asks else None)

    def messages(self) -> list[dict[int, Any]]:
        """The fields of every message that any of its processes handed over."""
        pieces = [wire.decode(p) for method, p in self.said if method != "countersign"]
        return [dict(fields) for fields in pieces if isinstance(fields, dict)]

    def releases(self) -> list[Release]:
        ledger = Ledger(self.world.folder / self.name / "ledger", client=self.name)
        out = ledger.releases(self.world.plan.lineage)
        ledger.close()
        return out


class Resident:
    """A client that lives in this process."""

    def __init__(self, world: World, name: str, vector: NDArray[np.float64]) -> None:
        self.vector = vector
        self.ledger = Ledger(world.folder / name / "ledger", client=name)
        self.participant = Participant(
            world.plan,
            world.identities[name],
            ledger=self.ledger,
            keystore=MemoryKeystore(),
            random=RANDOM,
            now=lambda: NOW,
            log_head=world.log.head,
        )

    def open(self, round_index: int, attempt: int) -> Iterator[bytes]:
        yield from self.participant.open(round_index, attempt, MODEL)

    def handle(self, message: bytes) -> Iterator[bytes]:
        p = self.participant
        if messages.kind_of(message) in ASKS_FOR_VECTOR and p.needs_update:
            p.offer(private_update(self.vector, p.reserve()))
        yield from p.handle(message)


class World:
    """A consortium in ``folder``; of its clients, ``parked`` are processes."""

    def __init__(
        self,
        folder: Path,
        processes: Processes,
        *,
        clients: int = 4,
        parked: int = 1,
        kind: str = "masking",
    ) -> None:
        self.folder, self.processes = folder, processes
        names = [f"clinic-{'abcdefgh'[i]}" for i in range(clients)]
        rows = "".join(f'{{ name = "{n}", records = 40 }},' for n in names)
        source = Plan(_PLAN.format(members=rows, kind=kind).encode())
        self.identities = {n: Identity.new(n, random=RANDOM) for n in names}
        self.aggregator = Identity.new("a", random=RANDOM)
        self.plan = source.completed(
            keys={n: key_to_text(i.public_key) for n, i in self.identities.items()},
            aggregator=key_to_text(self.aggregator.public_key),
            keyholder=None,
            run_id=RANDOM.bytes(16),
            start_sha256=None,
        )
        assert self.plan.run_id is not None
        self.log = Transcript(self.plan.run_id)
        (folder / "plan.toml").write_bytes(self.plan.source)
        self.parked: dict[str, Client] = {}
        self.residents: dict[str, Resident] = {}
        draws = np.random.default_rng(1)
        for i, name in enumerate(names):
            (folder / name).mkdir()
            # Multiples of the step: what is opened is exact, whatever the dither.
            steps = draws.integers(-999, 999, MODEL.size).astype(np.float64)
            vector = steps * self.plan.encoding.step
            if i < parked:
                self.identities[name].save(folder / name / "key.pem")
                self.parked[name] = Client(self, name, vector)
            else:
                self.residents[name] = Resident(self, name, vector)

    @property
    def members(self) -> dict[str, Client | Resident]:
        return {**self.parked, **self.residents}

    def join(self) -> None:
        for client in self.parked.values():
            client.join()

    def aggregation(self, round_index: int, attempt: int) -> Aggregation:
        return Aggregation.for_plan(
            self.plan,
            round_index=round_index,
            attempt=attempt,
            model=MODEL,
            aggregator=self.aggregator,
            random=RANDOM,
        )

    def take(self, a: Aggregation, name: str, pieces: Iterable[bytes]) -> None:
        """What the aggregator hears of one client; a liar or one that ends is out."""
        try:
            for piece in pieces:
                if a.receive(name, piece):
                    self.note(a, name, piece)
        except SecureFLError:
            # Only a client that was killed, and then only by saying things twice,
            # could be refused by an honest aggregator: the tests look at its bytes.
            pass

    def note(self, a: Aggregation, name: str, piece: bytes) -> None:
        form = log_form(piece)
        if form is not None:
            s = a.session
            self.log.add_message(
                s.round_index,
                s.attempt,
                sender=name,
                receiver="",
                message=piece,
                withheld=form == "withheld",
            )

    def attempt(self, round_index: int, attempt: int) -> OpenedUpdate | None:
        """One attempt with everyone.  None: too few were left, nothing was opened."""
        self.aggregation_ = a = self.aggregation(round_index, attempt)
        for name, member in self.members.items():
            self.take(a, name, member.open(round_index, attempt))
        try:
            while True:
                if not a.outgoing:
                    a.advance()
                if a.result is not None:
                    return a.result
                outgoing, a.outgoing = a.outgoing, {}
                for name, message in outgoing.items():
                    self.take(a, name, self.members[name].handle(message))
        except ProtocolError:
            return None

    def close_round(self, opened: OpenedUpdate | None) -> None:
        """The log's entry, its countersignatures, and the end of the round."""
        if opened is not None:
            s = opened.session
            body: dict[int, Any] = {
                0: s.round_index,
                1: s.attempt,
                2: s.ctx,
                3: list(opened.survivors),
                4: opened.total_weight,
                5: opened.words_hash,
                6: opened.clipped,
                7: bytes(32),
                8: bytes(32),
            }
            entry = self.log.append("round", body)
            log = self.log.to_bytes()
            for name in opened.survivors:
                if name in self.parked:
                    list(self.parked[name].call("countersign", log, entry.sequence))
        for name, client in self.parked.items():
            inside = opened is not None and name in opened.survivors
            list(client.call("conclude", inside))

    def is_exact(self, opened: OpenedUpdate) -> bool:
        """Whether the sum is the sum of its survivors' updates, to the last bit."""
        total = sum(
            self.plan.member(n).weight * self.members[n].vector
            for n in opened.survivors
        )
        return bool(np.array_equal(opened.total, total))

    def close(self) -> None:
        for resident in self.residents.values():
            resident.ledger.close()


def finished(reply: Reply) -> bool:
    return reply.code == DONE
