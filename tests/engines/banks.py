# SPDX-License-Identifier: Apache-2.0
"""Members with real homes, each request in a new object; an aggregator by hand."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

import secure_fl as sfl
from secure_fl.engines.home import MemberHome, MemberSettings
from secure_fl.engines.member import Member
from secure_fl.engines.requests import (
    Action,
    Begin,
    Body,
    Conclude,
    Countersign,
    Export,
    Message,
    Open,
    Parcel,
    Reply,
    Request,
    Train,
)
from secure_fl.errors import ProtocolError, SecureFLError
from secure_fl.identity import Identity, key_to_text
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan, endorse
from secure_fl.privacy import Ledger, Unprotected, private_update, unprotected
from secure_fl.randomness import SystemRandom
from secure_fl.round import Aggregation, OpenedUpdate, log_form
from secure_fl.transcript import KEY_HOLDER, Entry, Transcript, check_signature

from ..participants import plan_source

RANDOM = SystemRandom()
NOW = 1_700_000_000
NAMES = ("bank-a", "bank-b", "bank-c", "bank-d")
MODEL = GlobalModel({"head": np.zeros((2, 40), np.float32)})
PROTECTIONS = {
    "masking": 'kind = "masking"\nchunk_words = 64',
    "one-time": 'kind = "ckks"\nkeys = "one-time"\nchunk_words = 64',
    "keyholder": 'kind = "ckks"\nkeys = "keyholder"\nchunk_words = 64',
}
Update = sfl.PrivateUpdate | Unprotected
Trainer = Callable[[sfl.ClientRound], Update]


class Refused(AssertionError):
    """A reply that says why an action failed."""


class Banks:
    """One run of ``names``, each of which has joined its plan.

    ``trainers`` are what a member's host would call; by default an update that is
    charged as a private one, in multiples of the plan's step so that sums are exact.
    ``trained``: who was called, for which round.
    """

    def __init__(
        self,
        folder: Path,
        protection: str = "masking",
        *,
        names: tuple[str, ...] = NAMES,
        joined: tuple[str, ...] | None = None,
        rounds: str = "",
    ) -> None:
        """``joined``: who has joined; by default all members, and the key holder.

        ``rounds``: further entries of that section of the plan.
        """
        self.behind: Callable[[Callable[[], None]], None] | None = None
        self.folder, self.names, self.model = folder, names, MODEL
        parties = [*names, "aggregator", "keyholder"]
        self.identities = {n: Identity.new(n, random=RANDOM) for n in parties}
        self.keys = {n: folder / f"{n}.pem" for n in parties}
        for name, identity in self.identities.items():
            identity.save(self.keys[name])
        self.aggregator = self.identities["aggregator"]
        source = plan_source(names, PROTECTIONS[protection])
        self.source = Plan(
            source.replace(b"[rounds]\n", f"[rounds]\n{rounds}\n".encode())
        )
        self.plan = self.instance(self.source)
        assert self.plan.run_id is not None
        self.run_id = self.plan.run_id
        self.parties = [*names, *[KEY_HOLDER] * self.plan.has_keyholder]
        self.nodes = {name: 100 + i for i, name in enumerate(self.parties)}
        self.homes = {n: MemberHome(folder / f"home of {n}") for n in self.parties}
        draws = np.random.default_rng(1)
        self.vectors = {
            n: draws.integers(-999, 999, MODEL.size) * self.plan.encoding.step
            for n in names
        }
        self.trainers: dict[str, Trainer] = {n: self.private(n) for n in names}
        self.trained: list[tuple[str, int]] = []
        self.log = Transcript(self.run_id)
        self.signed: dict[str, int] = {}
        self.joined = [n for n in names if joined is None or n in joined]
        for name in self.parties if joined is None else joined:
            self.join(name)

    def instance(self, source: Plan) -> Plan:
        """``source`` for one run of these parties: each call gives another run id."""

        def text(name: str) -> str:
            return key_to_text(self.identities[name].public_key)

        return source.completed(
            keys={n: text(n) for n in self.names},
            aggregator=text("aggregator"),
            keyholder=text("keyholder") if source.has_keyholder else None,
            run_id=RANDOM.bytes(16),
            start_sha256=hashlib.sha256(MODEL.to_bytes()).hexdigest(),
        )

    def join(self, name: str, *, policy: Path | None = None) -> None:
        key = self.keys["keyholder" if name == KEY_HOLDER else name]
        self.homes[name].join(self.plan, key=key, data=None, policy=policy)

    # -- trainers --------------------------------------------------------------------

    def private(self, name: str) -> Trainer:
        """What ``make_private`` and ``update`` come to, without the training."""
        return lambda r: private_update(self.vectors[name], r._reserve())

    def unprotected(self, name: str) -> Trainer:
        return lambda r: unprotected(self.vectors[name], reason="a test")

    def _trainer(self, plan: Plan, settings: MemberSettings) -> Trainer:
        def train(r: sfl.ClientRound) -> Update:
            self.trained.append((settings.name, r.round))
            return self.trainers[settings.name](r)

        return train

    # -- requests --------------------------------------------------------------------

    def member(self, name: str) -> Member:
        """A new process of this member."""
        return Member(
            self.homes[name],
            self._trainer,
            random=RANDOM,
            now=lambda: NOW,
            behind=self.behind,
        )

    def request(self, name: str, *actions: Action, **other: Any) -> Request:
        """What the plan's aggregator asks of ``name``; ``other``: fields of a lie."""
        made = Request(self.plan.hash, self.run_id, name, self.nodes[name], actions)
        if "body" in other:
            other["body"] = Body(other["body"])
        return dataclasses.replace(made, **other)

    def send(self, name: str, parcel: Parcel) -> Reply:
        """A member never raises, whatever comes."""
        answer = self.member(name).handle(parcel, node=self.nodes[name])
        return Reply.of(answer)

    def ask(self, name: str, *actions: Action, **other: Any) -> Reply:
        return self.send(
            name, self.request(name, *actions, **other).to_parcel(self.aggregator)
        )

    def get(self, name: str, *actions: Action, **other: Any) -> list[bytes]:
        """The pieces of a reply that has no failure."""
        reply = self.ask(name, *actions, **other)
        if reply.failure is not None:
            raise Refused(f"{name}: {reply.failure}")
        return [piece for _, piece in reply.pieces]

    # -- a run -----------------------------------------------------------------------

    def first_entries(self) -> tuple[bytes, ...]:
        """The log's start and endorsements; begins it where it has not begun."""
        if not self.log.entries:
            self.begin_log(self.log)
        return tuple(e.data for e in self.log.entries[: 1 + len(self.names)])

    def begin_log(self, log: Transcript, **other: Any) -> None:
        """``other``: fields of the start, by what they are, or a member's signature."""
        signatures = {n: endorse(self.plan, self.identities[n]) for n in self.names}
        signatures |= {n: other.pop(n) for n in self.names if n in other}
        start: dict[str, Any] = {
            "plan": self.plan.hash,
            "run": self.run_id,
            "aggregator": self.aggregator.public_key,
            "tool": "a test",
            "simulation": 0,
            "seeded": 0,
            "model": MODEL.digest(),
            "lives": 1,
        } | other
        log.append("start", dict(enumerate(start.values())))
        for name, signature in signatures.items():
            log.append("endorsement", {0: name, 1: signature})

    def begin(self) -> None:
        first = Begin(self.first_entries())
        for name in self.joined:
            self.get(name, first)

    def aggregation(self, round_index: int, attempt: int) -> Aggregation:
        return Aggregation.for_plan(
            self.plan,
            round_index=round_index,
            attempt=attempt,
            model=self.model,
            aggregator=self.aggregator,
            random=RANDOM,
        )

    def open(self, place: tuple[int, int], silent: Iterable[str] = ()) -> Aggregation:
        """An attempt whose first messages have come in."""
        a = self.aggregation(*place)
        for name in self.names:
            if name not in silent:
                body = self.model.to_bytes()
                self.take(a, name, self.get(name, Open(*place), body=body))
        return a

    def take(self, a: Aggregation, name: str, pieces: Iterable[bytes]) -> None:
        for piece in pieces:
            if a.receive(name, piece):
                self.note(a, name, "", piece)

    def note(self, a: Aggregation, sender: str, receiver: str, message: bytes) -> None:
        form = log_form(message)
        if form is not None:
            s = a.session
            self.log.add_message(
                s.round_index,
                s.attempt,
                sender=sender,
                receiver=receiver,
                message=message,
                withheld=form == "withheld",
            )

    def step(self, a: Aggregation, silent: Iterable[str] = ()) -> dict[str, bytes]:
        """Close the step: what is to be sent now, but to those who say nothing."""
        if not a.outgoing:
            a.advance()
        out, a.outgoing = a.outgoing, {}
        for name, message in out.items():
            self.note(a, "", name, message)
        return {n: m for n, m in out.items() if n not in silent}

    def to_the_end(
        self, a: Aggregation, silent: Iterable[str] = ()
    ) -> OpenedUpdate | None:
        """None: too few were left."""
        place = a.session.round_index, a.session.attempt
        try:
            while a.result is None:
                for name, message in self.step(a, silent).items():
                    actions: list[Action] = [Message(message)]
                    if name != KEY_HOLDER:
                        actions.insert(0, Train(*place))
                    self.take(a, name, self.get(name, *actions))
        except ProtocolError:
            return None
        return a.result

    def entry_of(self, opened: OpenedUpdate) -> Entry:
        """The log's entry for a sum that was opened."""
        s = opened.session
        body: dict[int, Any] = {
            0: s.round_index,
            1: s.attempt,
            2: s.ctx,
            3: list(opened.survivors),
            4: opened.total_weight,
            5: opened.words_hash,
            6: opened.clipped,
            7: self.model.digest(),
            8: self.model.digest(),
        }
        entry = self.log.append("round", body)
        self.log.sign(self.aggregator)
        return entry

    def rows(self, name: str, entry: Entry) -> Countersign:
        """The log up to ``entry``, from behind what ``name`` has signed."""
        first = self.signed.get(name, -1) + 1
        rows = self.log.entries[first : entry.sequence + 1]
        return Countersign(first, tuple(e.data for e in rows))

    def close_round(self, opened: OpenedUpdate | None, round_index: int) -> None:
        """Countersignatures of the survivors, and the end for everybody."""
        inside = opened.survivors if opened is not None else ()
        if opened is not None:
            entry = self.entry_of(opened)
            for name in inside:
                (signature,) = self.get(name, self.rows(name, entry))
                key = self.identities[name].public_key
                assert check_signature(key, entry.hash, signature)
                self.signed[name] = entry.sequence
                self.log.add_signature(name, entry, signature)
        for name in self.names:
            self.get(name, Conclude(round_index, name in inside))

    def one_round(self, round_index: int, silent: Iterable[str] = ()) -> OpenedUpdate:
        a = self.open((round_index, 0), silent)
        opened = self.to_the_end(a, silent)
        assert opened is not None
        self.close_round(opened, round_index)
        return opened

    def is_exact(self, opened: OpenedUpdate) -> bool:
        total = sum(self.vectors[n] for n in opened.survivors)
        return bool(np.array_equal(opened.total, total))

    def states(self, name: str) -> list[str]:
        """What the member's ledger says of each of its releases."""
        ledger: Ledger = self.homes[name].ledger(name)
        try:
            return [r.state for r in ledger.releases(self.plan.lineage)]
        finally:
            ledger.close()

    def export(self, name: str) -> bytes:
        (data,) = self.get(name, Export())
        return data


def why(reply: Reply) -> SecureFLError:
    """The error of a reply as the aggregator has it; it must be one."""
    assert reply.failure is not None, "it was done"
    assert not reply.of_action(reply.failure.action)
    return reply.failure.to_error()
