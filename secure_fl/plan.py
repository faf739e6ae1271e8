# SPDX-License-Identifier: Apache-2.0
"""The plan: everything all members must agree on, and nothing else.

A TOML file.  Its exact bytes are hashed, and the hash is bound into every signature of
a run: a member that reads another plan cannot take part by accident.  An unknown key is
an error.  What one member may choose alone (paths, devices, passphrases) is not here.
"""

from __future__ import annotations

import functools
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, final

import tomli_w

from . import ckks, masking, wire
from .checks import check_document, quorum
from .errors import PlanError, UsageError
from .fixedpoint import Encoding, finest_step
from .identity import (
    Identity,
    Member,
    Roster,
    check_public_key,
    key_from_text,
)
from .privacy import (
    Event,
    PoissonGaussian,
    Repeated,
    calibrate_noise,
    calibrate_release,
    epsilon,
    seen,
)
from .privacy.grid import Grid
from .rotation import padded
from .sections import MemberEntry, read_document

__all__ = [
    "SCHEMA",
    "Plan",
    "Session",
    "endorse",
    "load_plan",
    "verify_endorsement",
]

Session = masking.Session | ckks.Session

SCHEMA: Final = "secure-fl/plan/1"
_ENDORSEMENT: Final = "secure-fl/plan/1 endorsement"
_ROTATION: Final = "secure-fl/rotation/1"
_CLIP: Final = 16.0  # of an update that carries its own noise
_LEAST_NOISE: Final = 0.2  # that is ever calibrated


@final
class Plan:
    """A checked plan, with what follows from it.  Made by :func:`load_plan`."""

    def __init__(self, source: bytes, *, folder: Path = Path()) -> None:
        """Parse and cross-check ``source``.  Raises PlanError naming the entry."""
        self._read(source, folder)
        self._check()

    @classmethod
    def known(cls, source: bytes, *, folder: Path) -> Plan:
        """A plan that passed its checks on this host before, read for one message.

        Its epsilon is not computed again, which takes seconds in a new process.
        """
        plan = cls.__new__(cls)
        plan._read(source, folder)
        return plan

    def _read(self, source: bytes, folder: Path) -> None:
        self.source = source
        self.folder = folder
        doc = read_document(source)
        check_document(doc)
        self.name = doc.name
        self.run_id = bytes.fromhex(doc.run.id) if doc.run else None
        self.parties = doc.parties
        self.rounds = doc.rounds
        self.privacy = doc.privacy
        self.protection = doc.protection
        self.model = doc.model
        self.training = doc.training
        self.data = doc.data
        self.threshold, self.min_clients = quorum(doc.parties)

    # -- what follows from the entries ------------------------------------------

    @functools.cached_property
    def hash(self) -> bytes:
        """32 bytes over the exact bytes of the file."""
        return wire.digest(SCHEMA, self.source)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(m.name for m in self.parties.members)

    @property
    def needed(self) -> int:
        """The fewest members that a sum is opened over."""
        return max(self.threshold, self.min_clients)

    def member(self, name: str) -> MemberEntry:
        for entry in self.parties.members:
            if entry.name == name:
                return entry
        raise UsageError(
            f"{name!r} is not a member of the plan",
            hint="the members are " + ", ".join(self.names),
        )

    @property
    def complete(self) -> bool:
        """Whether it names every key, its run and its grid, as a run needs."""
        parties = self.parties
        keys = [m.key for m in parties.members] + [parties.aggregator]
        if self.has_keyholder:
            keys.append(parties.keyholder)
        sized = not self.distributed or self.model.values is not None
        return all(keys) and sized and self.run_id is not None

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

    @property
    def distributed(self) -> bool:
        """Whether clients add shares of noise to one sum, which alone is private."""
        return self.privacy.mode == "distributed"

    @property
    def view(self) -> int | None:
        """For how many clients that collude epsilon is a limit; None: all others."""
        return self.parties.max_colluding if self.distributed else None

    @property
    def values(self) -> int:
        """Of a distributed plan: the model's size, which its grid depends on."""
        if self.model.values is None:
            raise PlanError(
                "is missing",
                key="model.values",
                hint="state how many values the model has; a run fills it in",
            )
        return self.model.values

    @functools.cached_property
    def encoding(self) -> Encoding:
        """How a vector's numbers, multiples of ``step``, stand in words."""
        p = self.protection
        clients = len(self.names)
        if self.distributed:
            return Encoding(self.grid.clip, self.grid.step, p.word_bits, clients)
        weight = max(m.weight for m in self.parties.members)
        clip = p.clip or _CLIP
        step = p.step or finest_step(
            clip=clip, word_bits=p.word_bits, clients=clients, max_weight=weight
        )
        return Encoding(clip, step, p.word_bits, clients, weight)

    @functools.cached_property
    def grid(self) -> Grid:
        """Of a distributed plan: how a client rounds its vector and adds its share."""
        return self._grid(self.noise_multiplier)

    def _grid(self, noise_multiplier: float) -> Grid:
        p = self.privacy
        return Grid.of(
            values=self.values,
            kind=p.noise,
            unit=p.unit,
            rate=p.sampling_rate,
            clip_norm=p.clip_norm,
            noise_multiplier=noise_multiplier,
            shares=self.min_clients - self.parties.max_colluding,
            colluding=self.parties.max_colluding,
            clients=len(self.names),
            word_bits=self.protection.word_bits,
            clip=self.protection.clip,
            step=self.protection.step,
            rounds=self.rounds.count,
            attempts=self.rounds.max_attempts,
        )

    @functools.cached_property
    def noise_multiplier(self) -> float:
        """The plan's own, or the smallest that keeps all budgeted releases within.

        Standard deviation over clip norm: of a member's noise in local mode, and of
        the noise in a sum with the fewest honest clients in distributed mode.
        """
        p = self.privacy
        if p.noise_multiplier is not None:
            return p.noise_multiplier
        if self.distributed:
            # What has no room for the least noise has none for more; the grid of the
            # noise that is found is checked on its own.
            least = self._grid(_LEAST_NOISE)
            return calibrate_release(
                lambda noise: replace(least, noise_multiplier=noise).event,
                count=self._budgeted,
                epsilon=p.epsilon,
                delta=p.delta,
            )
        return calibrate_noise(
            epsilon=p.epsilon,
            delta=p.delta,
            rate=p.sampling_rate,
            steps=self._budgeted * p.local_steps,
        )

    @property
    def release(self) -> Event:
        """What one client's one release costs: the event its ledger reserves."""
        if self.distributed:
            return self.grid.event
        p = self.privacy
        step = PoissonGaussian(p.sampling_rate, self.noise_multiplier)
        return Repeated(step, p.local_steps)

    @property
    def _budgeted(self) -> int:
        return self.rounds.count + self.rounds.spare

    def projected_epsilon(self) -> float:
        """Epsilon of all budgeted releases of one member, spare ones included."""
        return self._epsilon(self.release)

    def projected_own_share(self) -> float:
        """The same where all others collude: only its own noise is left to a member."""
        return self._epsilon(seen(self.release, None))

    def projected_consortium(self) -> float:
        """The same for a record at every member; that of one where none is at two."""
        members = 1 if self.privacy.overlap == "disjoint" else len(self.names)
        return self._epsilon(self.release, members=members)

    def _epsilon(self, release: Event, *, members: int = 1) -> float:
        releases = Counter({release: self._budgeted * members})
        return epsilon(releases, delta=self.privacy.delta).value

    # -- what an attempt is made of ----------------------------------------------

    def length(self, size: int) -> int:
        """Words of one client's vector, for a model of ``size`` values.

        Local mode: one a value, and one that counts the clipped ones.  Distributed: a
        whole number of the grid's blocks, and nothing exact beside them.  Raises
        UsageError where the plan is for another size.
        """
        if not self.distributed:
            return size + 1
        if size != self.values:
            raise UsageError(
                f"the model has {size} values, and the plan says {self.values}",
                hint="noise and step depend on it: plan for this model",
            )
        return self.grid.padded

    def rotation(self, round_index: int) -> bytes:
        """The public key of a distributed round's rotation, the same in all attempts.

        So an update that is sent in a later attempt stays what it was.
        """
        return wire.encode([_ROTATION, self.hash, self._run(), round_index])

    def packing(self, size: int) -> ckks.Packing:
        """How one client's vector, for a model of ``size`` values, is encrypted.

        Raises PlanError where no ring holds its words.
        """
        return self._packing(self.length(size))

    def _packing(self, length: int) -> ckks.Packing:
        packing = ckks.choose_packing(
            clients=len(self.names),
            word_bits=self.protection.word_bits,
            length=length,
        )
        each = packing.blocks(length) * packing.ring.degree
        if each * self.rounds.count * self.rounds.max_attempts > ckks.MOST_COEFFICIENTS:
            raise PlanError(
                f"{self.rounds.count} rounds of {length} words are too many: an error "
                "could be taken for a value",
                key="rounds.count",
                hint="plan fewer rounds",
            )
        return packing

    def session(
        self, *, round_index: int, attempt: int, model_hash: bytes, size: int
    ) -> Session:
        """The context of one attempt, as every party computes it for itself.

        ``size``: values of the model.  Raises UsageError where the plan is for another.
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
        length = self.length(size)
        if p.kind == "ckks":
            packing = self._packing(length)
            return ckks.Session(
                *place,
                ckks.Parameters(
                    clients=len(self.names),
                    length=length,
                    packing=packing,
                    chunk_blocks=max(1, p.chunk_words // packing.values),
                    min_clients=self.min_clients,
                    max_colluding=self.parties.max_colluding,
                    keys=p.keys,
                ),
            )
        return masking.Session(
            *place, self._masking(length, p.word_bits, p.chunk_words)
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
        with another version of the accountant, to know it.  Raises PlanError where a
        distributed plan does not say how many values the model has.
        """
        tree = self._tree()
        for entry in tree["parties"]["members"]:
            entry["key"] = keys[entry["name"]]
        tree["parties"]["aggregator"] = aggregator
        if keyholder is not None:
            tree["parties"]["keyholder"] = keyholder
        if start_sha256 is not None:
            tree["model"]["start_sha256"] = start_sha256
        tree["privacy"]["noise_multiplier"] = self.noise_multiplier
        tree["run"] = {"id": run_id.hex()}
        return self._of(tree)

    def with_values(self, size: int) -> Plan:
        """The plan for a model of ``size`` values: itself where it depends on none.

        Raises PlanError where it is for another size.
        """
        if not self.distributed or self.model.values == size:
            return self
        if self.model.values is not None:
            raise PlanError(
                f"is {self.model.values}, and the model has {size}",
                key="model.values",
                hint="leave it out of a draft: a run fills it in",
            )
        tree = self._tree()
        tree["model"]["values"] = size
        return self._of(tree)

    def alone(self, *, records: int | None = None) -> Plan:
        """What a member may do without the others for the same epsilon: local mode.

        ``records``: what each member holds, in place of its own.  Of a distributed plan
        every round becomes one step at rate 1, whose update is minus the gradient;
        ``Descent.step`` makes of it the step that the plan's aggregator would take.
        Raises UsageError where the unit is a client.
        """
        if self.distributed and self.privacy.unit == "client":
            raise UsageError(
                "a client alone has no sum to hide in",
                hint="compare with pooled data that are not private",
            )
        tree = self._tree()
        if records is not None:
            for entry in tree["parties"]["members"]:
                entry["records"] = records
        if self.distributed:
            tree["privacy"]["mode"] = "local"
            tree["training"] = {"way": tree["training"]["way"], "learning_rate": 1.0}
            for section, key in (
                ("privacy", "noise"),
                ("privacy", "noise_multiplier"),
                ("model", "values"),
                ("protection", "clip"),
                ("protection", "step"),
            ):
                tree[section].pop(key, None)
        return self._of(tree)

    def _tree(self) -> dict[str, Any]:
        return tomllib.loads(self.source.decode())

    def _of(self, tree: dict[str, Any]) -> Plan:
        return Plan(tomli_w.dumps(tree).encode(), folder=self.folder)

    def _check(self) -> None:
        """What :func:`checks.check_document` cannot know: grids, rings and epsilons."""
        if not self.distributed or self.privacy.noise_multiplier is not None:
            _ = self.encoding  # SPEC masking, section 3: no sum may wrap
        if self.protection.kind == "ckks":
            sized = self.distributed and self.model.values is not None
            self._packing(padded(self.values) if sized else 1)  # raises: no ring
        limit = self.privacy.epsilon
        if self.privacy.noise_multiplier is None:
            return
        projected = self.projected_epsilon()
        if projected > limit:
            raise PlanError(
                f"{self._budgeted} releases ({self.rounds.spare} spare) would spend "
                f"{projected:.4g} of {limit:g}",
                key="privacy.epsilon",
                hint="raise the noise multiplier (or leave it out: it is then "
                "calibrated), or plan fewer rounds",
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
