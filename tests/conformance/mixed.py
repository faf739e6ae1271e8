# SPDX-License-Identifier: Apache-2.0
"""A round among clients of both implementations, over bytes alone.

The aggregator and the Python clients are this package's states. A Node client is a
process of examples/node_client/client_main.js. Nobody's randomness is fixed.
"""

from __future__ import annotations

import json
import queue
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from secure_fl.fixedpoint import Word, word_dtype
from secure_fl.identity import Identity, Member, Roster
from secure_fl.masking import (
    CollectAdvertise,
    Opened,
    Parameters,
    Session,
    default_threshold,
    messages,
    start,
)
from secure_fl.randomness import SystemRandom

from .conftest import CLIENT

RANDOM = SystemRandom()
PATIENCE = 30.0  # seconds for one line of a Node client
# (step, client, message) -> the message that reaches the client.
Hook = Callable[[int, int, bytes], bytes]


class Party(Protocol):
    """A client as the aggregator meets it."""

    def begin(self) -> list[bytes]: ...
    def answer(self, step: int, data: bytes) -> list[bytes]: ...


class PythonClient:
    """A client of this package."""

    def __init__(
        self, session: Session, identity: Identity, words: NDArray[Word]
    ) -> None:
        self.session = session
        self.identity = identity
        self.words = words
        self.claim = RANDOM.bytes(32)
        self.state: Any = None

    def begin(self) -> list[bytes]:
        random = RANDOM.bytes(32)
        self.state, message = start(self.session, self.identity, random=random)
        return [message.encode(self.session)]

    def answer(self, step: int, data: bytes) -> list[bytes]:
        session, state = self.session, self.state
        me = session.roster.index(self.identity.name)
        sent: Any
        match step:
            case 2:
                keys = messages.CohortKeys.decode(data, session)
                self.state, sent = state.on_cohort(keys, random=RANDOM.bytes(32))
            case 3:
                inbox = messages.Inbox.decode(data, session, reader=me)
                uploading = state.on_inbox(inbox, self.words, claim=self.claim)
                chunks = [chunk.encode(session) for chunk in uploading.chunks()]
                self.state, sent = uploading.finish()
                return [*chunks, sent.encode(session)]
            case 4:
                statement = messages.Statement.decode(data, session)
                self.state, sent = state.on_statement(statement)
            case _:
                sent = state.on_signatures(messages.Signatures.decode(data, session))
        return [sent.encode(session)]


class NodeRefused(Exception):
    """The Node client ended with an error: its last line."""

    def __init__(self, line: Mapping[str, str]) -> None:
        super().__init__(line["message"])
        self.kind = line["error"]
        self.culprit = line.get("culprit")


class NodeClient:
    """A process of the JavaScript client."""

    def __init__(self, node: str, session: Session, set_up: dict[str, Any]) -> None:
        self.session = session
        self.process = subprocess.Popen(
            [node, str(CLIENT / "client_main.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.lines: queue.Queue[str] = queue.Queue()
        threading.Thread(target=self._read, daemon=True).start()
        self._write(set_up)

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(line)
        self.lines.put("")

    def _write(self, line: dict[str, Any]) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(line) + "\n")
        self.process.stdin.flush()

    def _line(self) -> dict[str, Any]:
        text = self.lines.get(timeout=PATIENCE)
        assert text, f"the Node client ended: {self.process.wait(PATIENCE)}"
        line: dict[str, Any] = json.loads(text)
        if "error" in line:
            raise NodeRefused(line)
        return line

    def _sent(self, count: int) -> list[bytes]:
        return [bytes.fromhex(self._line()["send"]) for _ in range(count)]

    def begin(self) -> list[bytes]:
        return self._sent(1)

    def answer(self, step: int, data: bytes) -> list[bytes]:
        self._write({"receive": data.hex()})
        count = self.session.parameters.chunks + 1 if step == 3 else 1
        sent = self._sent(count)
        if step == 5:
            assert self._line() == {"done": True}
        return sent

    def ended(self) -> tuple[int, str]:
        """The exit status, and what it said beyond what was read."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        status = self.process.wait(PATIENCE)
        rest = []
        while line := self.lines.get(timeout=PATIENCE):
            rest.append(line)
        return status, "".join(rest)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class World:
    """Identities, their files and a session; makes clients of either kind."""

    def __init__(self, folder: Path, node: str, clients: int, word_bits: int) -> None:
        self.folder = folder
        self.node = node
        self.keys = [Ed25519PrivateKey.generate() for _ in range(clients)]
        self.identities = [
            Identity(f"bank-{i}", key) for i, key in enumerate(self.keys)
        ]
        self.session = self.session_of(word_bits, attempt=0)
        top = 2**word_bits
        draws = np.random.default_rng(clients * word_bits)
        length = self.session.parameters.length
        self.vectors = [
            draws.integers(0, top, length, dtype=np.uint64) for _ in range(clients)
        ]
        self.processes: list[NodeClient] = []

    def session_of(self, word_bits: int, *, attempt: int) -> Session:
        members = [Member(i.name, i.public_key) for i in self.identities]
        clients = len(members)
        return Session(
            plan_hash=b"p" * 32,
            run_id=b"r" * 16,
            round_index=2,
            attempt=attempt,
            roster=Roster(tuple(members)),
            model_hash=b"m" * 32,
            parameters=Parameters(
                clients=clients,
                length=100,
                word_bits=word_bits,
                chunk_words=33,
                threshold=default_threshold(clients, 1),
                min_clients=3,
                max_colluding=1,
            ),
        )

    def pythons(self, *clients: int) -> dict[int, Party]:
        return {client: self.python(client) for client in clients}

    def python(self, client: int) -> PythonClient:
        dtype = word_dtype(self.session.parameters.word_bits)
        words: NDArray[Word] = self.vectors[client].astype(dtype)
        return PythonClient(self.session, self.identities[client], words)

    def set_up(self, client: int, **more: Any) -> dict[str, Any]:
        """The first line for a Node client, with its identity in a file."""
        file = self.folder / f"bank-{client}.key"
        file.write_text(self.keys[client].private_bytes_raw().hex() + "\n")
        session = self.session
        return {
            "session": {
                "plan_hash": session.plan_hash.hex(),
                "run_id": session.run_id.hex(),
                "round": session.round_index,
                "attempt": session.attempt,
                "roster": [[i.name, i.public_key.hex()] for i in self.identities],
                "model_hash": session.model_hash.hex(),
                "parameters": {
                    name: getattr(session.parameters, name)
                    for name in (
                        "clients",
                        "length",
                        "word_bits",
                        "chunk_words",
                        "threshold",
                        "min_clients",
                        "max_colluding",
                    )
                },
            },
            "client": client,
            "identity_file": str(file),
            "journal": str(self.folder / f"journal-{client}"),
            "words": [str(word) for word in self.vectors[client]],
            "claim": bytes([client] * 32).hex(),
        } | more

    def node_client(self, client: int, **more: Any) -> NodeClient:
        made = NodeClient(self.node, self.session, self.set_up(client, **more))
        self.processes.append(made)
        return made

    def plain_sum(self, clients: Iterable[int]) -> list[int]:
        top = 2**self.session.parameters.word_bits
        rows = [[int(word) for word in self.vectors[i]] for i in clients]
        return [sum(column) % top for column in zip(*rows, strict=True)]


def unchanged(step: int, client: int, message: bytes) -> bytes:
    return message


class Round:
    """The aggregator's side: what it collects, and what each party was told."""

    def __init__(
        self,
        session: Session,
        parties: Mapping[int, Party],
        *,
        silent_from: Mapping[int, int] | None = None,
        telling: Hook = unchanged,
    ) -> None:
        self.session = session
        self.parties = parties
        self.silent_from = silent_from or {}
        self.telling = telling
        self.refusals: dict[int, tuple[int, NodeRefused]] = {}
        self.told: dict[int, bytes] = {}

    def run(self) -> Opened:
        session = self.session
        state: Any = CollectAdvertise(session)
        for client, party in self.parties.items():
            for sent in party.begin():
                self.hear(state, client, sent)
        state, out = state.close()
        outgoing = dict.fromkeys(self.parties, out.encode(session))
        for step in (2, 3, 4, 5):
            for client, message in outgoing.items():
                self.exchange(state, step, client, message)
            if step == 5:
                break
            senders = tuple(state.senders)
            state, out = state.close()
            if isinstance(out, dict):
                outgoing = {i: inbox.encode(session) for i, inbox in out.items()}
            else:
                outgoing = dict.fromkeys(senders, out.encode(session))
                self.told[step] = out.encode(session)
        opened: Opened = state.close()
        return opened

    def exchange(self, state: Any, step: int, client: int, message: bytes) -> None:
        """Tells one client, and hears what it answers."""
        if step >= self.silent_from.get(client, 9) or client in self.refusals:
            return
        told = self.telling(step, client, message)
        try:
            for sent in self.parties[client].answer(step, told):
                self.hear(state, client, sent)
        except NodeRefused as refusal:
            self.refusals[client] = step, refusal

    def hear(self, state: Any, client: int, data: bytes) -> None:
        session = self.session
        match messages.kind_of(data):
            case 1:
                state.add(client, messages.Advertise.decode(data, session))
            case 3:
                state.add(client, messages.SealedShares.decode(data, session))
            case 5:
                state.add_chunk(client, messages.Chunk.decode(data, session))
            case 6:
                state.add(client, messages.MaskedInput.decode(data, session))
            case 8:
                state.add(client, messages.Agreement.decode(data, session))
            case _:
                state.add(client, messages.Reveal.decode(data, session))
