# SPDX-License-Identifier: Apache-2.0
"""Clients' ledgers, and how they fit the log (SPEC.md, sections 5 and 6)."""

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from attempts import Outcome
from canonical import (
    Malformed,
    decode,
    digest,
    fields,
    integer,
    refuse,
    signature,
    signed,
    sized,
    text,
)
from events import AnyEvent, decimal, read_event
from plan import Member, Plan

_FORMAT = "secure-fl/ledger/1"
_ADJACENCY = "add-or-remove-one"
_MOST_CONTEXTS = 1000
_STEPS = ("sent", "omitted", "released", "aborted")


@dataclass
class Release:
    """A reservation, and what became of it."""

    hash: bytes
    time: int
    run_id: bytes
    round: int
    attempt: int
    event: AnyEvent
    delta: float
    limit: float
    unit: str
    adjacency: str
    state: str = "reserved"
    contexts: list[bytes] = field(default_factory=list)

    @property
    def charged(self) -> bool:
        return self.state != "aborted"


@dataclass(frozen=True)
class Ledger:
    client: str
    lineage: str
    head: bytes
    entries: int
    times: list[tuple[int, bytes]]  # time, and the reservation's hash, of each entry
    releases: list[Release]

    def of_run(self, plan: Plan) -> list[Release]:
        return [release for release in self.releases if release.run_id == plan.run_id]

    def charged(self) -> list[Release]:
        return [release for release in self.releases if release.charged]


def file_of(name: str) -> str:
    return f"ledgers/{name}.cbor"


def read_ledger(data: bytes, member: Member) -> Ledger:
    """The signed ledger of a member, each entry by the rules."""
    file = file_of(member.name)
    try:
        name, client, lineage, rows, head, made = fields(
            decode(data), str, str, str, list, bytes, bytes
        )
        sized(head)
        signature(made)
        text(lineage)
        if name != _FORMAT or client != member.name:
            raise Malformed("it is no ledger of this member")
        if not all(isinstance(row, bytes) for row in rows):
            raise Malformed("an entry is no byte string")
    except Malformed as problem:
        refuse("V-LEDGER-1", file, str(problem))
    book = _Book(file)
    before = digest(_FORMAT + " genesis", client, lineage)
    for place, row in enumerate(rows):
        before = book.read(place, before, row)
    if head != before:
        refuse("V-LEDGER-2", file, "its head is not that of its entries")
    label = _FORMAT + " export"
    if not signed(member.key, made, label, client, lineage, len(rows), head):
        refuse("V-LEDGER-5", file, "it is not signed by the member")
    releases = list(book.releases.values())
    return Ledger(client, lineage, head, len(rows), book.times, releases)


class _Book:
    """Reads the entries of one ledger, in their order."""

    def __init__(self, file: str) -> None:
        self._file = file
        self.releases: dict[bytes, Release] = {}
        self.times: list[tuple[int, bytes]] = []
        self._places: set[tuple[bytes, int, int]] = set()

    def read(self, place: int, before: bytes, row: bytes) -> bytes:
        """Reads an entry; its hash."""
        try:
            sequence, prior, kind, time, body = fields(
                decode(row), int, bytes, str, int, dict
            )
            integer(time)
        except Malformed as problem:
            refuse("V-LEDGER-3", self._file, f"entry {place}: {problem}")
        if sequence != place or prior != before:
            refuse("V-LEDGER-2", self._file, f"its chain breaks at entry {place}")
        hashed = digest(_FORMAT + " entry", row)
        try:
            if kind == "reserved":
                release = _reservation(hashed, time, body)
            elif kind in _STEPS:
                named, ctx = fields(body, bytes, bytes)
                sized(named)
                sized(ctx, 32 if kind in ("sent", "omitted") else 0)
            else:
                raise Malformed("it is of no known kind")
        except Malformed as problem:
            refuse("V-LEDGER-3", self._file, f"entry {place}: {problem}")
        try:
            if kind == "reserved":
                self._reserve(release)
                named = hashed
            else:
                self._step(kind, named, ctx)
        except Malformed as problem:
            refuse("V-LEDGER-4", self._file, f"entry {place}: {problem}")
        self.times.append((time, named))
        return hashed

    def _reserve(self, release: Release) -> None:
        where = (release.run_id, release.round, release.attempt)
        if where in self._places:
            raise Malformed("a place is reserved twice")
        self._places.add(where)
        first = next(iter(self.releases.values()), release)
        if (release.unit, release.adjacency) != (first.unit, first.adjacency):
            raise Malformed("a reservation is of another unit, or adjacency")
        self.releases[release.hash] = release

    def _step(self, kind: str, named: bytes, ctx: bytes) -> None:
        release = self.releases.get(named)
        if release is None:
            raise Malformed("it is about no reservation before it")
        state, contexts = release.state, release.contexts
        if kind == "sent" and len(contexts) == _MOST_CONTEXTS:
            raise Malformed("a release is sent more often than a round has attempts")
        follows = {
            "sent": state in ("reserved", "omitted") and ctx not in contexts,
            "omitted": state == "sent" and contexts[-1:] == [ctx],
            "released": state == "sent",
            "aborted": state == "reserved",
        }
        if not follows[kind]:
            raise Malformed(f"{kind!r} cannot follow {state!r} there")
        release.state = kind
        if kind == "sent":
            contexts.append(ctx)


def _reservation(hashed: bytes, time: int, body: Any) -> Release:
    run_id, round_, attempt, event, delta, limit, unit, adjacency = fields(
        body, bytes, int, int, dict, str, str, str, str
    )
    return Release(
        hashed,
        time,
        sized(run_id, 16),
        integer(round_),
        integer(attempt),
        read_event(event),
        decimal(delta),
        math.inf if limit == "inf" else decimal(limit),
        text(unit),
        text(adjacency),
    )


Context = Callable[[int, int], bytes]


class Matcher:
    """Log and ledgers side by side (SPEC.md, section 6).

    `context` gives the `ctx` of a round and an attempt, whether the log has it or not.
    """

    def __init__(self, plan: Plan, outcomes: list[Outcome], context: Context) -> None:
        self._plan, self._context = plan, context
        self._outcomes = {outcome.ctx: outcome for outcome in outcomes}
        self._last: dict[int, int] = {}
        for outcome in outcomes:
            self._last[outcome.round] = outcome.number
        self._cut_off: dict[int, dict[bytes, int]] = {}
        self.unlogged: set[str] = set()

    def check(self, ledger: Ledger) -> None:
        file, plan = file_of(ledger.client), self._plan
        if ledger.lineage != plan.lineage:
            refuse("V-MATCH-1", file, "it charges another lineage")
        for release in ledger.releases:
            if (release.unit, release.adjacency) != (plan.unit, _ADJACENCY):
                refuse("V-MATCH-2", file, "it charges another unit, or adjacency")
            if release.run_id == plan.run_id:
                self._check_terms(release, file)
        ours = ledger.of_run(plan)
        self._check_arrived(ledger.client, ours, file)
        for release in ours:
            self._check_sent(ledger.client, release, file)
        for release in ours:
            self._check_left(ledger.client, release, file)

    def _check_terms(self, release: Release, file: str) -> None:
        plan, event = self._plan, release.event
        if release.round >= plan.rounds:
            refuse("V-MATCH-2", file, f"the plan has no round {release.round}")
        stated = not event.private and plan.grid is None
        limit = math.inf if stated else plan.epsilon
        if not stated and event != plan.release:
            refuse("V-MATCH-2", file, "it charges another mechanism than the plan's")
        if release.delta != plan.delta or release.limit != limit:
            refuse("V-MATCH-2", file, "it charges at another delta, or limit")

    def _check_arrived(self, name: str, ours: list[Release], file: str) -> None:
        under = {ctx: release for release in ours for ctx in release.contexts}
        if len(under) != sum(len(release.contexts) for release in ours):
            refuse("V-MATCH-7", file, "two releases were sent in one context")
        for outcome in self._outcomes.values():
            claim = outcome.claims.get(name)
            if claim is None:
                continue
            release = under.get(outcome.ctx)
            if release is None or release.hash != claim:
                where = f"attempt {outcome.number} of round {outcome.round}"
                refuse("V-MATCH-3", file, f"{where}: a vector nobody reserved")

    def _check_sent(self, name: str, release: Release, file: str) -> None:
        for ctx in release.contexts:
            outcome = self._outcomes.get(ctx)
            if outcome is not None:
                round_, number = outcome.round, outcome.number
            else:
                round_, number = release.round, self._unlogged(release.round, ctx)
            if round_ != release.round or number < release.attempt:
                refuse("V-MATCH-4", file, "a release was sent where it cannot be")
            if outcome is None or name not in outcome.claims:
                self.unlogged.add(name)
        if release.state == "released":
            last = self._outcomes.get(release.contexts[-1])
            if last is None or not last.opened or name not in last.claims:
                refuse("V-MATCH-5", file, "a release is in no opened sum")

    def _unlogged(self, round_: int, ctx: bytes) -> int:
        """The attempt of this context, if a crash can have cut it off; else -1."""
        if round_ not in self._cut_off:
            last = self._last.get(round_, -1)
            numbers = range(last + 1)
            self._cut_off[round_] = {self._context(round_, n): n for n in numbers}
        return self._cut_off[round_].get(ctx, -1)

    def _check_left(self, name: str, release: Release, file: str) -> None:
        left = release.contexts
        if release.state != "omitted":
            left = left[:-1]
        for ctx in left:
            outcome = self._outcomes.get(ctx)
            if outcome is None or name not in outcome.omitted:
                refuse("V-MATCH-6", file, "a vector left a sum that may still open it")
