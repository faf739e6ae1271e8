# SPDX-License-Identifier: Apache-2.0
"""The plan that all members signed, and what follows from it (SPEC.md, section 3)."""

import math
from dataclasses import dataclass
from typing import Any

from canonical import Malformed, digest, large_order, refuse
from entries import (
    COMPLETE,
    MOST_INTEGER,
    REQUIRED,
    Reader,
    boolean,
    counts,
    key,
    match,
    one_of,
    read_table,
    read_toml,
    real,
    whole,
    words,
)
from events import DISCRETE_GAUSSIAN, SKELLAM, AnyEvent, Event
from grid import Grid, Terms, grid

FILE = "plan.toml"
HOLDER = "key holder"
_LEAST_DELTA = 1e-10
_LOCAL_CLIP = 16.0
_MOST_SUMMED = 80_000  # records in a batch of a distributed plan
_MOST_VALUES = 2**32


@dataclass(frozen=True)
class Member:
    name: str
    records: int
    weight: int
    key: bytes


@dataclass(frozen=True)
class Descent:
    """The aggregator's steps in a distributed plan of records (SPEC.md, 3.6)."""

    learning_rate: float
    momentum: float
    linear: bool


@dataclass(frozen=True)
class Plan:
    """A complete plan, its defaults filled in and its derived values computed.

    `grid` and `values` are those of a distributed plan, None in a local one; `descent`
    is None where the aggregator takes no steps.
    """

    raw: bytes
    name: str
    run_id: bytes
    members: tuple[Member, ...]
    aggregator: bytes
    keyholder: bytes | None
    max_colluding: int
    threshold: int
    min_clients: int
    rounds: int
    spare: int
    max_attempts: int
    unit: str
    overlap: str
    epsilon: float
    delta: float
    clip_norm: float
    rate: float
    local_steps: int
    noise: float
    lineage: str
    kind: str
    keys: str
    word_bits: int
    clip: float
    step: float
    chunk_words: int
    keep_vectors: bool
    model_kind: str
    start_sha256: str | None
    values: int | None
    grid: Grid | None
    descent: Descent | None

    def length(self, values: int) -> int:
        """Words of a vector, for a model of so many values (SPEC.md, 3.3)."""
        return values + 1 if self.grid is None else self.grid.words

    @property
    def release(self) -> AnyEvent:
        """One release of a client (SPEC.md, 3.4)."""
        if self.grid is not None:
            return self.grid.release
        return Event(self.noise, self.rate, self.local_steps)

    @property
    def view(self) -> int | None:
        """How many collude where its epsilon is a limit; None for everybody else."""
        return None if self.grid is None else self.max_colluding

    @property
    def hash(self) -> bytes:
        return hash_of(self.raw)

    @property
    def needed(self) -> int:
        return max(self.threshold, self.min_clients)

    @property
    def names(self) -> list[str]:
        return [member.name for member in self.members]

    @property
    def roster(self) -> list[list[Any]]:
        return [[member.name, member.key] for member in self.members]


def hash_of(raw: bytes) -> bytes:
    return digest("secure-fl/plan/1", raw)


class _Contradiction(Malformed):
    """Each entry may be, but not beside the others."""


class _Incomplete(Malformed):
    """What only a completed plan has is missing."""


_SHA = match("[0-9a-f]{64}")
_TABLES: dict[str, dict[str, tuple[Reader, Any]]] = {
    "run": {"id": (match("[0-9a-f]{32}"), COMPLETE)},
    "parties": {
        "members": (lambda value: value, REQUIRED),
        "aggregator": (key, COMPLETE),
        "keyholder": (key, None),
        "max_colluding": (whole(0), 1),
        "threshold": (whole(-MOST_INTEGER), None),
        "min_clients": (whole(-MOST_INTEGER), None),
    },
    "rounds": {
        "count": (whole(1, 100000), REQUIRED),
        "spare": (whole(0, 1000), 1),
        "max_attempts": (whole(1, 10), 2),
        "train_early": (boolean, False),
    },
    "privacy": {
        "mode": (one_of("local", "distributed"), REQUIRED),
        "unit": (one_of("record", "client"), REQUIRED),
        "noise": (one_of(SKELLAM, DISCRETE_GAUSSIAN), None),
        "adjacency": (one_of("add-or-remove-one"), REQUIRED),
        "overlap": (one_of("disjoint", "overlapping"), REQUIRED),
        "epsilon": (real(), REQUIRED),
        "delta": (real(math.nextafter(0.1, 0), _LEAST_DELTA), REQUIRED),
        "clip_norm": (real(), REQUIRED),
        "sampling_rate": (real(1.0), REQUIRED),
        "local_steps": (whole(1, 1000000), REQUIRED),
        "noise_multiplier": (real(), COMPLETE),
        "lineage": (words(1, 200), None),
    },
    "protection": {
        "kind": (one_of("masking", "plain", "ckks"), REQUIRED),
        "keys": (one_of("one-time", "keyholder"), None),
        "word_bits": (whole(8, 64), 32),
        "clip": (real(), None),
        "step": (real(), None),
        "chunk_words": (whole(64, 16777216), 65536),
        "keep_vectors": (boolean, False),
    },
    "model": {
        "kind": (one_of("mlp", "custom"), REQUIRED),
        "hidden": (counts, []),
        "seed": (whole(0), 0),
        "start": (lambda value: value, None),
        "start_sha256": (_SHA, None),
        "values": (whole(1, _MOST_VALUES), None),
    },
}
_MEMBER: dict[str, tuple[Reader, Any]] = {
    "name": (match("[a-z0-9][a-z0-9-]{0,30}"), REQUIRED),
    "key": (key, COMPLETE),
    "records": (whole(1, 10000000), REQUIRED),
    "weight": (whole(1, 1000000), 1),
}
_DESCENT: dict[str, tuple[Reader, Any]] = {
    "learning_rate": (real(), 0.1),
    "momentum": (real(math.nextafter(1.0, 0), 0.0), 0.0),
    "schedule": (one_of("constant", "linear"), "constant"),
}
# Tables about training, of which checks read little (3.6); two texts beside tables.
_FREE = ("training", "data")
_TOP = {"schema": one_of("secure-fl/plan/1"), "name": words(1, 100)}


def read_plan(raw: bytes) -> Plan:
    """The plan that these bytes are: complete, and with everything in its range."""
    try:
        return _plan(raw, read_toml(raw))
    except _Contradiction as problem:
        refuse("V-PLAN-3", FILE, str(problem))
    except _Incomplete as problem:
        refuse("V-PLAN-5", FILE, str(problem))
    except Malformed as problem:
        refuse("V-PLAN-2", FILE, str(problem))


def _plan(raw: bytes, top: dict[str, Any]) -> Plan:
    unknown = sorted(set(top) - {*_TABLES, *_TOP, *_FREE})
    if unknown:
        raise Malformed(f"an unknown entry: {unknown[0]!r}")
    for name, read in _TOP.items():
        if name not in top:
            raise Malformed(f"{name} is missing")
        read(top[name])
    for name in _FREE:
        if type(top.get(name, {})) is not dict:
            raise Malformed(f"{name} is no table")
    entries = {
        name: read_table(name, top.get(name, {}), readers)
        for name, readers in _TABLES.items()
    }
    parties, privacy = entries["parties"], entries["privacy"]
    protection, model = entries["protection"], entries["model"]
    members = _members(parties["members"])
    if model["start"] is not None and (
        model["kind"] != "custom" or type(model["start"]) is not str
    ):
        raise Malformed("model.start is no text of a custom model")
    descent = _descent(privacy, top.get("training"))
    _check_keys(protection, parties, members)
    if protection["keep_vectors"] and protection["kind"] == "plain":
        raise _Contradiction("protection.keep_vectors would publish every update")
    _check_mode(entries, members)
    units = max(member.records for member in members)
    if privacy["unit"] == "client":
        units = len(members)
    if privacy["delta"] * units > 1:
        raise _Contradiction("privacy.delta is above one over the number of units")
    threshold, min_clients = _thresholds(parties, len(members))
    shares = min_clients - parties["max_colluding"]
    found: Grid | None = None
    if privacy["mode"] == "distributed":
        found = _grid(entries, len(members), shares)
        clip, step = found.clip, found.step
    else:
        clip = protection["clip"] or _LOCAL_CLIP
        step = _step(protection, clip, members)
    needed = {
        "run.id": entries["run"]["id"],
        "parties.aggregator": parties["aggregator"],
        "privacy.noise_multiplier": privacy["noise_multiplier"],
        **{f"the key of {member.name}": member.key for member in members},
    }
    missing = [name for name, value in needed.items() if value is None]
    if missing:
        raise _Incomplete(f"{missing[0]} is missing")
    return Plan(
        raw=raw,
        name=top["name"],
        run_id=bytes.fromhex(entries["run"]["id"]),
        members=members,
        aggregator=parties["aggregator"],
        keyholder=parties["keyholder"],
        max_colluding=parties["max_colluding"],
        threshold=threshold,
        min_clients=min_clients,
        rounds=entries["rounds"]["count"],
        spare=entries["rounds"]["spare"],
        max_attempts=entries["rounds"]["max_attempts"],
        unit=privacy["unit"],
        overlap=privacy["overlap"],
        epsilon=privacy["epsilon"],
        delta=privacy["delta"],
        clip_norm=privacy["clip_norm"],
        rate=privacy["sampling_rate"],
        local_steps=privacy["local_steps"],
        noise=privacy["noise_multiplier"],
        lineage=privacy["lineage"] or top["name"],
        kind=protection["kind"],
        keys=protection["keys"] or "one-time",
        word_bits=protection["word_bits"],
        clip=clip,
        step=step,
        chunk_words=protection["chunk_words"],
        keep_vectors=protection["keep_vectors"],
        model_kind=model["kind"],
        start_sha256=model["start_sha256"],
        values=model["values"],
        grid=found,
        descent=descent,
    )


def _descent(privacy: dict[str, Any], training: Any) -> Descent | None:
    """How the aggregator steps; its entries are the only ones of training read here."""
    if privacy["mode"] == "local" or privacy["unit"] == "client":
        if training is not None and training.get("schedule") == "linear":
            raise _Contradiction("training.schedule is for sums of gradients")
        return None
    if training is None:
        raise Malformed("training is missing")
    read = {name: value for name, value in training.items() if name in _DESCENT}
    found = read_table("training", read, _DESCENT)
    return Descent(
        found["learning_rate"], found["momentum"], found["schedule"] == "linear"
    )


def _check_mode(entries: dict[str, Any], members: tuple[Member, ...]) -> None:
    """What goes with local and with distributed plans, and with their units."""
    privacy = entries["privacy"]
    if privacy["mode"] == "local":
        wrong = {
            "privacy.unit": privacy["unit"] != "record",
            "privacy.noise": privacy["noise"] is not None,
            "model.values": entries["model"]["values"] is not None,
        }
    else:
        by_client = privacy["unit"] == "client"
        wrong = {
            # Every client sees the models, and knows its own noise.
            "parties.max_colluding": entries["parties"]["max_colluding"] == 0,
            # Nothing would hide the shares.
            "protection.kind": entries["protection"]["kind"] == "plain",
            "privacy.overlap": privacy["overlap"] != "disjoint",
            "privacy.sampling_rate": by_client and privacy["sampling_rate"] != 1,
            "privacy.local_steps": not by_client and privacy["local_steps"] != 1,
            # Beyond, rounding may add more than the sensitivity has to spare.
            "privacy.sampling_rate, with so many records": not by_client
            and any(
                privacy["sampling_rate"] * member.records > _MOST_SUMMED
                for member in members
            ),
            "a weight": any(member.weight != 1 for member in members),
        }
    for name, refused in wrong.items():
        if refused:
            raise _Contradiction(f"{name} does not go with the mode or the unit")


def _grid(entries: dict[str, Any], clients: int, shares: int) -> Grid:
    """The grid of a distributed plan."""
    privacy, rounds = entries["privacy"], entries["rounds"]
    protection, values = entries["protection"], entries["model"]["values"]
    if privacy["noise_multiplier"] is None:
        raise _Incomplete("privacy.noise_multiplier is missing")
    if values is None:
        raise _Contradiction("a noise multiplier is stated without model.values")
    terms = Terms(
        values=values,
        by_client=privacy["unit"] == "client",
        kind=privacy["noise"] or SKELLAM,
        clip_norm=privacy["clip_norm"],
        noise=privacy["noise_multiplier"],
        rate=privacy["sampling_rate"],
        clients=clients,
        shares=shares,
        colluding=entries["parties"]["max_colluding"],
        word_bits=protection["word_bits"],
        openings=rounds["count"] * rounds["max_attempts"],
        clip=protection["clip"],
        step=protection["step"],
    )
    try:
        return grid(terms)
    except Malformed as problem:
        raise _Contradiction(str(problem)) from None


def _members(rows: Any) -> tuple[Member, ...]:
    if type(rows) is not list or not 3 <= len(rows) <= 1000:
        raise Malformed("parties.members are no 3 to 1000 tables")
    members = tuple(Member(**read_table("a member", row, _MEMBER)) for row in rows)
    if len({member.name for member in members}) != len(members):
        raise _Contradiction("a name stands twice among the members")
    keys = [member.key for member in members if member.key is not None]
    if len(set(keys)) != len(keys):
        raise _Contradiction("a key stands twice among the members")
    return members


def _check_keys(
    protection: dict[str, Any], parties: dict[str, Any], members: tuple[Member, ...]
) -> None:
    if protection["keys"] is not None and protection["kind"] != "ckks":
        raise _Contradiction("protection.keys is for CKKS")
    holder = parties["keyholder"]
    for found in (parties["aggregator"], holder, *(m.key for m in members)):
        if found is not None and not large_order(found):
            raise _Contradiction("a key is no point of large order in its one form")
    if (protection["keys"] == "keyholder") != (holder is not None):
        raise _Contradiction("parties.keyholder and protection.keys do not agree")
    others = (parties["aggregator"], *(member.key for member in members))
    if holder is not None and holder in others:
        raise _Contradiction("the key holder has the key of another party")


def _thresholds(parties: dict[str, Any], n: int) -> tuple[int, int]:
    colluding = parties["max_colluding"]
    least = (n + colluding) // 2 + 1
    threshold = least if parties["threshold"] is None else parties["threshold"]
    if not least <= threshold <= n:
        raise _Contradiction(f"parties.threshold is not from {least} to {n}")
    least = max(colluding + 2, threshold)
    smallest = least if parties["min_clients"] is None else parties["min_clients"]
    if not least <= smallest <= n:
        raise _Contradiction(f"parties.min_clients is not from {least} to {n}")
    return threshold, smallest


def _step(
    protection: dict[str, Any], clip: float, members: tuple[Member, ...]
) -> float:
    """The step, so that no sum wraps and each is exact (masking 3.4)."""
    largest = len(members) * max(member.weight for member in members)
    room = (min(2 ** (protection["word_bits"] - 1), 2**53) - 1) // largest
    step: float | None = protection["step"]
    if room < 1:
        raise _Contradiction("protection.word_bits leave no room for a sum")
    if step is None:
        power = max(math.frexp(clip)[1] - 60, -1074)
        while math.ceil(clip / math.ldexp(1.0, power)) > room:
            power += 1
        return math.ldexp(1.0, power)
    if not math.isfinite(clip / step) or math.ceil(clip / step) > room:
        raise _Contradiction("protection.step: a sum may wrap, or is not exact")
    return step


def keys_left_open(plan: Plan, copy: bytes) -> list[str] | None:
    """Whose keys an auditor's draft does not name; None where it is another plan.

    A draft is the plan before it was completed (SPEC.md, 3.7).
    """
    ours, theirs = read_toml(plan.raw), read_toml(copy)
    if "run" in theirs:
        return None
    theirs["run"] = ours["run"]
    left: list[str] = []
    for table, name, who in (
        ("parties", "aggregator", "the aggregator"),
        ("parties", "keyholder", "the key holder"),
        ("model", "start_sha256", ""),
        ("model", "values", ""),
        ("privacy", "noise_multiplier", ""),
    ):
        _complete(theirs.get(table), ours[table], name, who, left)
    parties = theirs.get("parties")
    rows = parties.get("members") if type(parties) is dict else None
    if type(rows) is not list or len(rows) != len(plan.members):
        return None
    for row, full in zip(rows, ours["parties"]["members"], strict=True):
        _complete(row, full, "key", full["name"], left)
    return left if _equal(ours, theirs) else None


def _complete(
    table: Any, full: dict[str, Any], name: str, who: str, left: list[str]
) -> None:
    """Fills in what a draft lacks; whose key it is goes to `left`."""
    if type(table) is dict and name in full and name not in table:
        table[name] = full[name]
        left += [who] if who else []


def _equal(one: Any, other: Any) -> bool:
    """Equal, with equal types: 1, 1.0 and true differ."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(
            _equal(one[key], other[key]) for key in one
        )
    if isinstance(one, list):
        return len(one) == len(other) and all(map(_equal, one, other))
    return bool(one == other)
