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
from typing import Annotated, Any, Final, Literal, Self, final

import tomli_w
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from . import wire
from .errors import PlanError, UsageError
from .fixedpoint import Encoding, finest_step
from .identity import Identity, Member, Roster, key_from_text
from .masking import (
    Parameters,
    Session,
    default_threshold,
    smallest_threshold,
)
from .privacy import Event, PoissonGaussian, Repeated, calibrate_noise, epsilon

__all__ = ["SCHEMA", "Column", "Plan", "endorse", "load_plan", "verify_endorsement"]

SCHEMA: Final = "secure-fl/plan/1"
_ENDORSEMENT: Final = "secure-fl/plan/1 endorsement"

Name = Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Finite = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]
Count = Annotated[int, Field(ge=1, le=10_000_000)]


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class MemberEntry(_Section):
    """One member.  ``records`` is its public nominal size, never counted from data."""

    name: Name
    key: str | None = None
    records: Count
    weight: Annotated[int, Field(ge=1, le=1_000_000)] = 1


class Parties(_Section):
    members: Annotated[list[MemberEntry], Field(min_length=3, max_length=1000)]
    aggregator: str | None = None
    max_colluding: Annotated[int, Field(ge=0)] = 1
    threshold: int | None = None
    min_clients: int | None = None


class Rounds(_Section):
    """``spare`` releases are budgeted beyond ``count``, for attempts that crash."""

    count: Annotated[int, Field(ge=1, le=100_000)]
    spare: Annotated[int, Field(ge=0, le=1000)] = 1
    max_attempts: Annotated[int, Field(ge=1, le=10)] = 2


class Privacy(_Section):
    """No defaults where a number is a promise: epsilon, delta, clip norm, unit."""

    mode: Literal["local"]
    unit: Literal["record"]
    adjacency: Literal["add-or-remove-one"]
    overlap: Literal["disjoint", "overlapping"]
    epsilon: Positive
    delta: Annotated[float, Field(gt=0, lt=0.1)]
    clip_norm: Positive
    sampling_rate: Annotated[float, Field(gt=0, le=1)]
    local_steps: Annotated[int, Field(ge=1, le=1_000_000)]
    noise_multiplier: Positive | None = None
    lineage: Annotated[str, Field(min_length=1, max_length=200)] | None = None


class Protection(_Section):
    kind: Literal["masking", "plain"]
    word_bits: Annotated[int, Field(ge=8, le=64)] = 32
    clip: Positive = 16.0
    step: Positive | None = None
    chunk_words: Annotated[int, Field(ge=64, le=16_777_216)] = 65_536


class Model(_Section):
    """``mlp`` is built from ``hidden`` and ``seed``; ``custom`` is the trainers' own.

    ``start`` is its safetensors file, unless the caller hands the start over.
    """

    kind: Literal["mlp", "custom"]
    hidden: list[Annotated[int, Field(ge=1, le=100_000)]] = []
    seed: Seed = 0
    start: str | None = None
    start_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")] | None = None

    @model_validator(mode="after")
    def _kind_has_its_entries(self) -> Self:
        if self.kind == "mlp" and self.start is not None:
            raise ValueError("`start` belongs to kind = 'custom'")
        return self


class Training(_Section):
    way: Literal["opacus", "head"]
    learning_rate: Positive = 0.1
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Column(_Section):
    """Public knowledge of one column: numeric bounds, or the list of its values."""

    low: Finite | None = None
    high: Finite | None = None
    log: bool = False
    values: list[str | int | Finite] | None = None

    @model_validator(mode="after")
    def _bounds_or_values(self) -> Self:
        numeric = self.low is not None and self.high is not None
        if numeric == (self.values is not None):
            raise ValueError("give either low and high, or values")
        if numeric and not self.low < self.high:  # type: ignore[operator]
            raise ValueError("low must lie below high")
        if self.values is not None and (self.log or len(self.values) < 2):
            raise ValueError("values are at least two, and have no logarithm")
        return self


class Data(_Section):
    """How a CSV becomes features: every constant here is public."""

    label: str
    classes: Annotated[list[str | int | Finite], Field(min_length=2)]
    columns: Annotated[dict[str, Column], Field(min_length=1)]
    drop: list[str] = []
    missing: Literal["refuse", "midpoint"] = "refuse"
    missing_values: list[str] = [""]
    split: Literal["rows", "column", "files"]
    file: str | None = None
    files: dict[str, str] | None = None
    split_column: str | None = None
    split_values: dict[str, list[str]] | None = None
    header: list[str] | None = None
    test_fraction: Annotated[float, Field(ge=0, lt=1)] = 0.2
    seed: Seed = 0

    @model_validator(mode="after")
    def _split_has_its_entries(self) -> Self:
        if (self.split == "files") != (self.files is not None):
            raise ValueError("`files` and split = 'files' go together")
        if (self.split == "files") == (self.file is not None):
            raise ValueError("give `file`, or split = 'files' and `files`")
        column = self.split_column is not None and self.split_values is not None
        if (self.split == "column") != column:
            raise ValueError(
                "split = 'column' goes with `split_column` and `split_values`"
            )
        return self


class _Run(_Section):
    id: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]


class _Document(_Section):
    model_config = ConfigDict(protected_namespaces=())

    schema_: Annotated[Literal["secure-fl/plan/1"], Field(alias="schema")]
    name: Annotated[str, Field(min_length=1, max_length=100)]
    run: _Run | None = None
    parties: Parties
    rounds: Rounds
    privacy: Privacy
    protection: Protection
    model: Model
    training: Training | None = None
    data: Data | None = None


@final
class Plan:
    """A checked plan, with what follows from it.  Made by :func:`load_plan`."""

    def __init__(self, source: bytes, *, folder: Path = Path()) -> None:
        """Parse and cross-check ``source``.  Raises PlanError naming the entry."""
        self.source = source
        self.folder = folder
        doc = _parse(source)
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
        keys = all(m.key for m in self.parties.members)
        return bool(keys and self.parties.aggregator and self.run_id)

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
        if self.parties.aggregator is None:
            raise PlanError(
                "is missing",
                key="parties.aggregator",
                hint="paste its line from `secure-fl keys show`",
            )
        return key_from_text(self.parties.aggregator)

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

    def session(
        self, *, round_index: int, attempt: int, model_hash: bytes, size: int
    ) -> Session:
        """The masking context of one attempt, as every party computes it for itself.

        ``size``: values of the model; one word more counts clipped coordinates.
        """
        if self.run_id is None:
            raise PlanError("is missing", key="run", hint="complete the plan first")
        p = self.protection
        parameters = Parameters(
            clients=len(self.names),
            length=size + 1,
            word_bits=p.word_bits,
            chunk_words=p.chunk_words,
            threshold=self.threshold,
            min_clients=self.min_clients,
            max_colluding=self.parties.max_colluding,
        )
        return Session(
            self.hash,
            self.run_id,
            round_index,
            attempt,
            self.roster,
            model_hash,
            parameters,
        )

    # -- completing and checking -------------------------------------------------

    def completed(
        self,
        *,
        keys: Mapping[str, str],
        aggregator: str,
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


def _same_names(key: str, given: Mapping[str, object], names: tuple[str, ...]) -> None:
    if set(given) != set(names):
        wrong = sorted(set(given) ^ set(names))
        raise PlanError(
            f"does not match the members: {', '.join(wrong)}",
            key=key,
            hint="give one entry for each member, and no other",
        )


def _parse(source: bytes) -> _Document:
    try:
        tree = tomllib.loads(source.decode())
    except UnicodeDecodeError:
        raise PlanError("the plan is not UTF-8 text") from None
    except tomllib.TOMLDecodeError as error:
        raise PlanError(f"the plan is not TOML: {error}") from None
    try:
        return _Document.model_validate(tree)
    except ValidationError as error:
        # A misspelt key first: the one it leaves missing follows from it.
        first = min(
            error.errors(include_url=False),
            key=lambda e: e["type"] != "extra_forbidden",
        )
        key = ".".join(str(part) for part in first["loc"])
        if first["type"] == "extra_forbidden":
            raise PlanError(
                "unknown key", key=key, hint="check its spelling and its section"
            ) from None
        message = first["msg"].removeprefix("Value error, ")
        raise PlanError(
            message[:1].lower() + message[1:],
            key=key,
            hint="`secure-fl plan new` prints a plan with every section explained",
        ) from None


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
