# SPDX-License-Identifier: Apache-2.0
"""The plan that all members signed, and what follows from it (SPEC.md, section 3)."""

import math
import re
import tomllib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from canonical import Malformed, digest, large_order, public_key, refuse

FILE = "plan.toml"
HOLDER = "key holder"
_ALL = 2**63 - 1
_DEEPEST = 16  # tables in tables; a plan has three
_MOST_DOTS = 200  # in a line: a key of very many parts takes hours to read
_LEAST_DELTA = 1e-10


@dataclass(frozen=True)
class Member:
    name: str
    records: int
    weight: int
    key: bytes


@dataclass(frozen=True)
class Plan:
    """A complete plan, its defaults filled in and its derived values computed."""

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


# One entry: how its value is read.  A reader returns the value or raises Malformed.
Reader = Callable[[Any], Any]


def _integer(least: int, most: int = _ALL) -> Reader:
    def read(value: Any) -> int:
        if type(value) is not int or not least <= value <= most:
            raise Malformed(f"it is no integer from {least} to {most}")
        return value

    return read


def _float(most: float = math.inf, least: float = 0.0) -> Reader:
    def read(value: Any) -> float:
        if type(value) not in (int, float):
            raise Malformed("it is no number")
        try:
            number = float(value)
        except OverflowError:
            raise Malformed("it is too large") from None
        if not math.isfinite(number) or not 0 < number <= most or number < least:
            raise Malformed("it is out of range")
        return number

    return read


def _text(least: int, most: int) -> Reader:
    def read(value: Any) -> str:
        if type(value) is not str or not least <= len(value) <= most:
            raise Malformed(f"it is no text of {least} to {most} characters")
        return value

    return read


def _match(pattern: str) -> Reader:
    def read(value: Any) -> str:
        if type(value) is not str or not re.fullmatch(pattern, value, re.ASCII):
            raise Malformed("it has not the form it must have")
        return value

    return read


def _one_of(*words: str) -> Reader:
    def read(value: Any) -> str:
        if type(value) is not str or value not in words:
            raise Malformed(f"it is none of: {', '.join(words)}")
        return value

    return read


def _boolean(value: Any) -> bool:
    if type(value) is not bool:
        raise Malformed("it is no boolean")
    return value


def _table(value: Any) -> dict[str, Any]:
    if type(value) is not dict:
        raise Malformed("it is no table")
    return value


def _key(value: Any) -> bytes:
    if type(value) is not str:
        raise Malformed("it is no text")
    return public_key(value)


def _hidden(value: Any) -> list[int]:
    if type(value) is not list:
        raise Malformed("it is no array")
    return [_integer(1, 100000)(item) for item in value]


REQUIRED, COMPLETE = object(), object()
_SHA = _match("[0-9a-f]{64}")
_TABLES: dict[str, dict[str, tuple[Reader, Any]]] = {
    "run": {"id": (_match("[0-9a-f]{32}"), COMPLETE)},
    "parties": {
        "members": (lambda value: value, REQUIRED),
        "aggregator": (_key, COMPLETE),
        "keyholder": (_key, None),
        "max_colluding": (_integer(0), 1),
        "threshold": (_integer(-_ALL), None),
        "min_clients": (_integer(-_ALL), None),
    },
    "rounds": {
        "count": (_integer(1, 100000), REQUIRED),
        "spare": (_integer(0, 1000), 1),
        "max_attempts": (_integer(1, 10), 2),
    },
    "privacy": {
        "mode": (_one_of("local"), REQUIRED),
        "unit": (_one_of("record"), REQUIRED),
        "adjacency": (_one_of("add-or-remove-one"), REQUIRED),
        "overlap": (_one_of("disjoint", "overlapping"), REQUIRED),
        "epsilon": (_float(), REQUIRED),
        "delta": (_float(math.nextafter(0.1, 0), _LEAST_DELTA), REQUIRED),
        "clip_norm": (_float(), REQUIRED),
        "sampling_rate": (_float(1.0), REQUIRED),
        "local_steps": (_integer(1, 1000000), REQUIRED),
        "noise_multiplier": (_float(), COMPLETE),
        "lineage": (_text(1, 200), None),
    },
    "protection": {
        "kind": (_one_of("masking", "plain", "ckks"), REQUIRED),
        "keys": (_one_of("one-time", "keyholder"), None),
        "word_bits": (_integer(8, 64), 32),
        "clip": (_float(), 16.0),
        "step": (_float(), None),
        "chunk_words": (_integer(64, 16777216), 65536),
        "keep_vectors": (_boolean, False),
    },
    "model": {
        "kind": (_one_of("mlp", "custom"), REQUIRED),
        "hidden": (_hidden, []),
        "seed": (_integer(0), 0),
        "start": (lambda value: value, None),
        "start_sha256": (_SHA, None),
    },
}
_MEMBER: dict[str, tuple[Reader, Any]] = {
    "name": (_match("[a-z0-9][a-z0-9-]{0,30}"), REQUIRED),
    "key": (_key, COMPLETE),
    "records": (_integer(1, 10000000), REQUIRED),
    "weight": (_integer(1, 1000000), 1),
}
# Tables about training, which no check reads (3.6), and the two texts beside tables.
_FREE = ("training", "data")
_TOP = {"schema": _one_of("secure-fl/plan/1"), "name": _text(1, 100)}


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


def read_toml(raw: bytes) -> dict[str, Any]:
    if any(line.count(b".") > _MOST_DOTS for line in raw.split(b"\n")):
        raise Malformed(f"a line has more than {_MOST_DOTS} dots")
    try:
        found = tomllib.loads(raw.decode("utf-8"))
        _shallow(found, 0)
    except (ValueError, RecursionError, OverflowError):
        raise Malformed("it is no UTF-8 TOML") from None
    return found


def _shallow(value: Any, depth: int) -> None:
    if depth > _DEEPEST:
        raise Malformed("tables are nested too deep")
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            _shallow(part, depth + 1)


def _entries(
    where: str, table: Any, readers: dict[str, tuple[Reader, Any]]
) -> dict[str, Any]:
    if type(table) is not dict:
        raise Malformed(f"{where} is no table")
    unknown = sorted(set(table) - set(readers))
    if unknown:
        raise Malformed(f"{where} has an unknown entry: {unknown[0]!r}")
    found = {}
    for name, (read, default) in readers.items():
        if name not in table:
            if default is REQUIRED:
                raise Malformed(f"{where}.{name} is missing")
            found[name] = None if default is COMPLETE else default
            continue
        try:
            found[name] = read(table[name])
        except Malformed as problem:
            raise Malformed(f"{where}.{name}: {problem}") from None
    return found


def _plan(raw: bytes, top: dict[str, Any]) -> Plan:
    unknown = sorted(set(top) - {*_TABLES, *_TOP, *_FREE})
    if unknown:
        raise Malformed(f"an unknown entry: {unknown[0]!r}")
    for name, read in _TOP.items():
        if name not in top:
            raise Malformed(f"{name} is missing")
        read(top[name])
    for name in _FREE:
        _table(top.get(name, {}))
    entries = {
        name: _entries(name, top.get(name, {}), readers)
        for name, readers in _TABLES.items()
    }
    parties, privacy = entries["parties"], entries["privacy"]
    protection, model = entries["protection"], entries["model"]
    members = _members(parties["members"])
    if model["start"] is not None and (
        model["kind"] != "custom" or type(model["start"]) is not str
    ):
        raise Malformed("model.start is no text of a custom model")
    _check_keys(protection, parties, members)
    if protection["keep_vectors"] and protection["kind"] == "plain":
        raise _Contradiction("protection.keep_vectors would publish every update")
    if privacy["delta"] * max(member.records for member in members) > 1:
        raise _Contradiction("privacy.delta is above one over the records of a member")
    threshold, min_clients = _thresholds(parties, len(members))
    step = _step(protection, members)
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
        clip=protection["clip"],
        step=step,
        chunk_words=protection["chunk_words"],
        keep_vectors=protection["keep_vectors"],
        model_kind=model["kind"],
        start_sha256=model["start_sha256"],
    )


def _members(rows: Any) -> tuple[Member, ...]:
    if type(rows) is not list or not 3 <= len(rows) <= 1000:
        raise Malformed("parties.members are no 3 to 1000 tables")
    members = tuple(Member(**_entries("a member", row, _MEMBER)) for row in rows)
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
    for key in (parties["aggregator"], holder, *(member.key for member in members)):
        if key is not None and not large_order(key):
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


def _step(protection: dict[str, Any], members: tuple[Member, ...]) -> float:
    """The step, so that no sum wraps and each is exact (masking 3.4)."""
    largest = len(members) * max(member.weight for member in members)
    room = (min(2 ** (protection["word_bits"] - 1), 2**53) - 1) // largest
    clip, step = float(protection["clip"]), protection["step"]
    if room < 1:
        raise _Contradiction("protection.word_bits leave no room for a sum")
    if step is None:
        power = max(math.frexp(clip)[1] - 60, -1074)
        while math.ceil(clip / math.ldexp(1.0, power)) > room:
            power += 1
        return math.ldexp(1.0, power)
    if not math.isfinite(clip / step) or math.ceil(clip / step) > room:
        raise _Contradiction("protection.step: a sum may wrap, or is not exact")
    return float(step)


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
