# SPDX-License-Identifier: Apache-2.0
"""The plan: everything all members must agree on, and nothing else.

A TOML file.  Its exact bytes are hashed, and the hash is bound into every signature of
a run: a member that reads another plan cannot take part by accident.  An unknown key is
an error.  What one member may choose alone (paths, devices, passphrases) is not here.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, final

import numpy as np
import tomli_w
from numpy.typing import NDArray

from . import ckks, masking, wire
from .errors import PlanError, UsageError
from .fixedpoint import Encoding, Word, finest_step
from .identity import (
    Identity,
    Member,
    Roster,
    check_public_key,
    key_from_text,
)
from .masking import default_threshold, smallest_threshold
from .privacy import Event, PoissonGaussian, Repeated, calibrate_noise, epsilon
from .sections import MemberEntry, read_document

__all__ = [
    "SCHEMA",
    "Plan",
    "Session",
    "endorse",
    "load_plan",
    "read_sum",
    "verify_endorsement",
]

Session = masking.Session | ckks.Session

SCHEMA: Final = "secure-fl/plan/1"
_ENDORSEMENT: Final = "secure-fl/plan/1 endorsement"


@final
class Plan:
    """A checked plan, with what follows from it.  Made by :func:`load_plan`."""

    def __init__(self, source: bytes, *, folder: Path = Path()) -> None:
        """Parse and cross-check ``source``.  Raises PlanError naming the entry."""
        self.source = source
        self.folder = folder
        doc = read_document(source)
        self.name = doc.name
        self.run_id = bytes.fromhex(doc.run.id) if doc.run else None
        self.parties = doc.parties
        self.rounds = doc.rounds
        self.privacy = doc.privacy
        self.protection = doc.protection
        self.model = doc.model
        self.training = doc.training
        self.data = doc.data
        self._cross_check()

    # -- what follows from the entries ------------------------------------------

    @functools.cached_property
    def hash(self) -> bytes:
        """32 bytes over the exact bytes of the file."""
        return wire.digest(SCHEMA, self.source)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.parties.members)

    def member(self, name: str) -> MemberEntry:
        for entry in self.parties.members:
            if entry.name == name:
                return entry
        raise UsageError(
            f"{name!r} is not a member of the plan",
            hint="the members are " + ", ".join(self.names),
        )

    @property
    def threshold(self) -> int:
        if self.parties.threshold is not None:
            return self.parties.threshold
        return default_threshold(len(self.names), self.parties.max_colluding)

    @property
    def min_clients(self) -> int:
        if self.parties.min_clients is not None:
            return self.parties.min_clients
        return max(self.parties.max_colluding + 2, self.threshold)

    @property
    def complete(self) -> bool:
        """Whether it names every key and its run, as a run needs."""
        parties = self.parties
        keys = [m.key for m in parties.members] + [parties.aggregator]
        if self.has_keyholder:
            keys.append(parties.keyholder)
        return all(keys) and self.run_id is not None

    @property
    def has_keyholder(self) -> bool:
        """Whether a key holder, beside the aggregator, releases sums of keys."""
        protection = self.protection
        return protection.kind == "ckks" and protection.keys == "keyholder"

    @functools.cached_property
    def roster(self) -> Roster:
        """The members' public keys.  Raises PlanError where one is missing."""
        members = []
        for entry in self.parties.members:
            if entry.key is None:
                raise PlanError(
                    "has no key",
                    key=f"parties.members.{entry.name}",
                    hint="paste its line from `secure-fl keys show`",
                )
            members.append(Member(entry.name, key_from_text(entry.key)))
        return Roster(tuple(members))

    @property
    def aggregator_key(self) -> bytes:
        return _key("aggregator", self.parties.aggregator)

    @property
    def keyholder_key(self) -> bytes:
        return _key("keyholder", self.parties.keyholder)

    @property
    def lineage(self) -> str:
        """The name under which a client's ledger charges the data set."""
        return self.privacy.lineage or self.name

    @functools.cached_property
    def encoding(self) -> Encoding:
        p = self.protection
        clients = len(self.names)
        weight = max(m.weight for m in self.parties.members)
        step = p.step or finest_step(
            clip=p.clip, word_bits=p.word_bits, clients=clients, max_weight=weight
        )
        return Encoding(p.clip, step, p.word_bits, clients, weight)

    @functools.cached_property
    def noise_multiplier(self) -> float:
        """The plan's own, or the smallest that keeps all budgeted releases within."""
        p = self.privacy
        if p.noise_multiplier is not None:
            return p.noise_multiplier
        steps = (self.rounds.count + self.rounds.spare) * p.local_steps
        return calibrate_noise(
            epsilon=p.epsilon, delta=p.delta, rate=p.sampling_rate, steps=steps
        )

    @property
    def release(self) -> Event:
        """What one client's one release costs: the event its ledger reserves."""
        p = self.privacy
        step = PoissonGaussian(p.sampling_rate, self.noise_multiplier)
        return Repeated(step, p.local_steps)

    def projected_epsilon(self) -> float:
        """Epsilon of all budgeted releases of one member, spare ones included."""
        budgeted = self.rounds.count + self.rounds.spare
        return epsilon([self.release] * budgeted, delta=self.privacy.delta).value

    def projected_consortium(self) -> float:
        """The same for a record at every member; that of one where none is at two."""
        members = 1 if self.privacy.overlap == "disjoint" else len(self.names)
        budgeted = (self.rounds.count + self.rounds.spare) * members
        return epsilon([self.release] * budgeted, delta=self.privacy.delta).value

    def packing(self, size: int) -> ckks.Packing:
        """How a model of ``size`` values, and its counter, stand in ciphertexts.

        Raises PlanError where no ring holds them.
        """
        packing = ckks.choose_packing(
            clients=len(self.names),
            word_bits=self.protection.word_bits,
            length=size + 1,
        )
        each = packing.blocks(size + 1) * packing.ring.degree
        if each * self.rounds.count * self.rounds.max_attempts > ckks.MOST_COEFFICIENTS:
            raise PlanError(
                f"{self.rounds.count} rounds of {size} values are too many: an error "
                "could be taken for a value",
                key="rounds.count",
                hint="plan fewer rounds",
            )
        return packing

    def session(
        self, *, round_index: int, attempt: int, model_hash: bytes, size: int
    ) -> Session:
        """The context of one attempt, as every party computes it for itself.

        ``size``: values of the model; one word more counts clipped coordinates.
        """
        place = (
            self.hash,
            self._run(),
            round_index,
            attempt,
            self.roster,
            model_hash,
        )
        p = self.protection
        if p.kind == "ckks":
            packing = self.packing(size)
            return ckks.Session(
                *place,
                ckks.Parameters(
                    clients=len(self.names),
                    length=size + 1,
                    packing=packing,
                    chunk_blocks=max(1, p.chunk_words // packing.values),
                    min_clients=self.min_clients,
                    max_colluding=self.parties.max_colluding,
                    keys=p.keys,
                ),
            )
        return masking.Session(
            *place, self._masking(size + 1, p.word_bits, p.chunk_words)
        )

    def key_session(self, session: ckks.Session) -> masking.Session:
        """The masking context that opens the sum of one-time keys (SPEC ckks, 4.4)."""
        degree = session.parameters.packing.ring.degree
        bits = ckks.key_bits(session.parameters.clients)
        return masking.Session(
            session.plan_hash,
            session.run_id,
            session.round_index,
            session.attempt,
            session.roster,
            session.ctx,
            self._masking(degree, bits, degree),
        )

    def _masking(
        self, length: int, word_bits: int, chunk_words: int
    ) -> masking.Parameters:
        return masking.Parameters(
            clients=len(self.names),
            length=length,
            word_bits=word_bits,
            chunk_words=chunk_words,
            threshold=self.threshold,
            min_clients=self.min_clients,
            max_colluding=self.parties.max_colluding,
        )

    def _run(self) -> bytes:
        if self.run_id is None:
            raise PlanError("is missing", key="run", hint="complete the plan first")
        return self.run_id

    # -- completing and checking -------------------------------------------------

    def completed(
        self,
        *,
        keys: Mapping[str, str],
        aggregator: str,
        keyholder: str | None,
        run_id: bytes,
        start_sha256: str | None,
    ) -> Plan:
        """The endorsed instance: keys, run id, noise and the start's hash filled in.

        The noise multiplier is written out, so that nobody has to calibrate again, or
        with another version of the accountant, to know it.
        """
        tree: dict[str, Any] = tomllib.loads(self.source.decode())
        for entry in tree["parties"]["members"]:
            entry["key"] = keys[entry["name"]]
        tree["parties"]["aggregator"] = aggregator
        if keyholder is not None:
            tree["parties"]["keyholder"] = keyholder
        if start_sha256 is not None:
            tree["model"]["start_sha256"] = start_sha256
        tree["privacy"]["noise_multiplier"] = self.noise_multiplier
        tree["run"] = {"id": run_id.hex()}
        return Plan(tomli_w.dumps(tree).encode(), folder=self.folder)

    def _cross_check(self) -> None:
        names = self.names
        if len(set(names)) != len(names):
            raise PlanError(
                "two members share a name",
                key="parties.members",
                hint="give each its own",
            )
        n, colluding = len(names), self.parties.max_colluding
        floor = smallest_threshold(n, colluding)
        if not floor <= self.threshold <= n:
            raise PlanError(
                f"{self.threshold} is not within {floor} to {n}",
                key="parties.threshold",
                hint=f"{n} members with {colluding} colluding need at least {floor}",
            )
        low = max(colluding + 2, self.threshold)
        if not low <= self.min_clients <= n:
            raise PlanError(
                f"{self.min_clients} is not within {low} to {n}",
                key="parties.min_clients",
                hint="it is at least max_colluding + 2 and the threshold",
            )
        _ = self.encoding  # SPEC masking, section 3: no sum may wrap
        self._check_protection()
        if self.data is not None and self.data.files is not None:
            _same_names("data.files", self.data.files, names)
        if self.data is not None and self.data.split_values is not None:
            _same_names("data.split_values", self.data.split_values, names)
        p = self.privacy
        most = max(m.records for m in self.parties.members)
        if p.delta * most > 1:
            raise PlanError(
                f"{p.delta:g} times {most} records is above 1: publishing a record "
                "outright would satisfy it",
                key="privacy.delta",
                hint=f"choose one well below {1 / most:.1g}",
            )
        if p.noise_multiplier is not None:
            projected = self.projected_epsilon()
            if projected > p.epsilon:
                budgeted = self.rounds.count + self.rounds.spare
                raise PlanError(
                    f"{budgeted} releases ({self.rounds.spare} spare) would spend "
                    f"{projected:.4g} of {p.epsilon:g}",
                    key="privacy.epsilon",
                    hint="raise the noise multiplier (or leave it out: it is then "
                    "calibrated), or plan fewer rounds",
                )

    def _check_protection(self) -> None:
        parties = self.parties
        if self.protection.kind == "ckks":
            self.packing(0)  # raises where no ring holds one word
        if self.protection.keep_vectors and self.protection.kind == "plain":
            raise PlanError(
                "would publish every client's update",
                key="protection.keep_vectors",
                hint="leave it out, or choose a protection",
            )
        if parties.keyholder is None:
            return
        if not self.has_keyholder:
            raise PlanError(
                "has nothing to do",
                key="parties.keyholder",
                hint="it goes with kind = 'ckks' and keys = 'keyholder'",
            )
        if parties.keyholder in (parties.aggregator, *(m.key for m in parties.members)):
            raise PlanError(
                "is the aggregator or a member",
                key="parties.keyholder",
                hint="whoever holds keys must not see ciphertexts: name somebody else",
            )


def _key(party: str, text: str | None) -> bytes:
    if text is None:
        raise PlanError(
            "is missing",
            key=f"parties.{party}",
            hint="paste its line from `secure-fl keys show`",
        )
    key = key_from_text(text)
    check_public_key(key)
    return key


def _same_names(key: str, given: Mapping[str, object], names: tuple[str, ...]) -> None:
    if set(given) != set(names):
        wrong = sorted(set(given) ^ set(names))
        raise PlanError(
            f"does not match the members: {', '.join(wrong)}",
            key=key,
            hint="give one entry for each member, and no other",
        )


def load_plan(path: str | Path) -> Plan:
    """Read and check a plan file.  Raises PlanError, with the reason and a hint."""
    path = Path(path)
    try:
        source = path.read_bytes()
    except OSError as error:
        raise PlanError(
            f"cannot read {path}: {error.strerror}",
            hint="give the path of a plan, or write one with `secure-fl plan new`",
        ) from None
    return Plan(source, folder=path.parent)


def read_sum(
    encoding: Encoding, words: NDArray[Word], *, clients: int
) -> tuple[NDArray[np.float64], int]:
    """What an opened sum of ``clients`` vectors says: its values, and how many of their
    coordinates were clipped, as their last word counts them."""
    counted = int(encoding.unwrap(words[-1:])[0])
    # A lying client can make the counter anything: it is only ever shown.
    most = clients * (words.size - 1)
    return encoding.decode(words[:-1]), min(max(0, counted), most)


def endorse(plan: Plan, identity: Identity) -> bytes:
    """A member's signature over the plan's hash: no round starts without all."""
    return identity.sign(_ENDORSEMENT, plan.hash, identity.name)


def verify_endorsement(plan: Plan, name: str, signature: bytes) -> None:
    """Raises PlanError unless ``signature`` is that member's over this plan."""
    member = plan.roster.members[plan.roster.index(name)]
    if not wire.verify(member.public_key, signature, _ENDORSEMENT, plan.hash, name):
        raise PlanError(
            f"{name} has not endorsed this plan",
            hint="every member signs the same file",
        )
