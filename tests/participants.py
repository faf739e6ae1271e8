# SPDX-License-Identifier: Apache-2.0
"""Real participants of one run, with real ledgers, and an aggregator played by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from secure_fl.identity import Identity, key_to_text
from secure_fl.keystore import Keystore, MemoryKeystore
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.privacy import Ledger, PrivateUpdate, private_update
from secure_fl.randomness import SystemRandom
from secure_fl.round import Aggregation, ParkedParticipant, Participant
from secure_fl.transcript import Transcript

RANDOM = SystemRandom()
NOW = 1_700_000_000
Client = Participant | ParkedParticipant


def plan_source(names: tuple[str, ...], protection: str) -> bytes:
    """A plan; ``protection``: the entries of that section."""
    members = "".join(f'{{ name = "{n}", records = 40 }},' for n in names)
    return f"""\
schema = "secure-fl/plan/1"
name = "clinics"
[parties]
members = [{members}]
[rounds]
count = 3
spare = 3
max_attempts = 4
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
local_steps = 2
[protection]
{protection}
[model]
kind = "custom"
[training]
way = "head"
""".encode()


class Participants:
    """All clients of one run; ``parked`` ones live in their keystores.

    ``vectors``: each client's update, in multiples of the plan's step, so that a sum is
    exact whatever the dither; ``updates``: what it offered last.
    """

    def __init__(
        self, folder: Path, source: bytes, model: GlobalModel, *, parked: bool = False
    ) -> None:
        self.folder = folder
        self.model = model
        self.parked = parked
        self._source = Plan(source)
        self.names = self._source.names
        self.identities = {n: Identity.new(n, random=RANDOM) for n in self.names}
        self.aggregator = Identity.new("aggregator", random=RANDOM)
        self.keyholder = Identity.new("keyholder", random=RANDOM)
        self.plan = self.instance()
        assert self.plan.run_id is not None
        self.log = Transcript(self.plan.run_id)
        self.ledgers = {n: Ledger(folder / f"{n}.sqlite", client=n) for n in self.names}
        self.keystores = {n: self.keystore(n) for n in self.names}
        self.participants = {n: self.participant(n) for n in self.names}
        self.updates: dict[str, PrivateUpdate] = {}
        draws = np.random.default_rng(1)
        self.vectors = {
            n: draws.integers(-999, 999, model.size) * self.plan.encoding.step
            for n in self.names
        }

    def instance(self) -> Plan:
        """The plan, endorsed for one run: each call gives another run id."""
        source = self._source
        return source.completed(
            keys={n: key_to_text(i.public_key) for n, i in self.identities.items()},
            aggregator=key_to_text(self.aggregator.public_key),
            keyholder=(
                key_to_text(self.keyholder.public_key) if source.has_keyholder else None
            ),
            run_id=RANDOM.bytes(16),
            start_sha256=None,
        )

    def keystore(self, name: str) -> Keystore:
        return MemoryKeystore()

    def participant(self, name: str, plan: Plan | None = None) -> Client:
        """A new process of a client, over the ledger and keystore it has."""
        plan = plan or self.plan
        if not self.parked:
            return self.resident(name, plan)
        parked = self.from_keystore(name, plan)
        parked.join(log_head=self.log.head)
        return parked

    def resident(self, name: str, plan: Plan) -> Participant:
        return Participant(
            plan,
            self.identities[name],
            ledger=self.ledgers[name],
            keystore=self.keystores[name],
            random=RANDOM,
            now=lambda: NOW,
            log_head=self.log.head,
        )

    def from_keystore(self, name: str, plan: Plan) -> ParkedParticipant:
        """What another process goes on with, where the client has joined."""
        return ParkedParticipant(
            plan,
            self.identities[name],
            ledger=self.ledgers[name],
            keystore=self.keystores[name],
            random=RANDOM,
            now=lambda: NOW,
        )

    def aggregation(self, place: tuple[int, int]) -> Aggregation:
        return Aggregation.for_plan(
            self.plan,
            round_index=place[0],
            attempt=place[1],
            model=self.model,
            aggregator=self.aggregator,
            random=RANDOM,
        )

    def offer(self, name: str) -> None:
        participant = self.participants[name]
        made = private_update(self.vectors[name], participant.reserve())
        self.updates[name] = made
        participant.offer(made)

    def states(self, name: str) -> list[str]:
        """What the client's ledger says of each of its releases."""
        return [r.state for r in self.ledgers[name].releases(self.plan.lineage)]

    def close(self) -> None:
        for ledger in self.ledgers.values():
            ledger.close()
