# SPDX-License-Identifier: Apache-2.0
"""Consent: one client's own policy, which its plans and releases have to pass.

A flat TOML file about one data set, written and read by this client alone: it is in no
plan and in no message.  A plan says what all members agreed on; a policy says what this
one may agree to.  Every refusal names the line that refuses.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from .errors import ConsentRefused, UsageError
from .identity import check_public_key, key_from_text
from .plan import Plan
from .privacy import Event, NonPrivate, epsilon, seen
from .privacy.accounting import MIN_DELTA
from .privacy.book import Book

__all__ = ["SCHEMA", "Consent", "Limits", "Verdict"]

SCHEMA: Final = "secure-fl/policy/1"
_HINT: Final = "`secure-fl policy new` prints a policy with every line explained"
_SHOWN: Final = 60  # characters of a line that a refusal quotes
# Whose hash or key it is, beside the members' own names (which hold no blanks).
_PLAN: Final = "the plan"
_START: Final = "the start model"
_AGGREGATOR: Final = "the aggregator"
_KEYHOLDER: Final = "the key holder"
_LAST_SECOND: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


def _hash_bytes(text: object) -> bytes:
    if not isinstance(text, str) or not re.fullmatch("[0-9a-f]{64}", text):
        raise ValueError("a hash is 64 characters of 0 to 9 and a to f")
    return bytes.fromhex(text)


def _key_bytes(text: object) -> bytes:
    if not isinstance(text, str):
        raise ValueError("a public key is text")
    try:
        key = key_from_text(text)
        check_public_key(key)
    except UsageError as error:
        raise ValueError(error.message) from None
    return key


def _either(text: object) -> bytes:
    is_key = isinstance(text, str) and text.startswith("sfl1")
    return _key_bytes(text) if is_key else _hash_bytes(text)


_Hash = Annotated[bytes, BeforeValidator(_hash_bytes)]
_Key = Annotated[bytes, BeforeValidator(_key_bytes)]
_HashOrKey = Annotated[bytes, BeforeValidator(_either)]
_Epsilon = Annotated[float, Field(gt=0, allow_inf_nan=False)]
_Number = Annotated[int, Field(ge=0, le=1000)]
_Rule = tuple[str, str, bool]  # the entry, what it finds, whether it allows that
_Protection = Literal["masking", "ckks one-time", "ckks keyholder", "plain"]


class _Entries(BaseModel):
    """What a policy says.  What has a default may be left out."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)

    schema_: Annotated[Literal["secure-fl/policy/1"], Field(alias="schema")]
    year: Annotated[int, Field(ge=1970, le=9998)]
    lineage: Annotated[str, Field(min_length=1, max_length=200)]
    largest_epsilon: _Epsilon
    largest_epsilon_per_year: _Epsilon
    largest_delta: Annotated[float, Field(ge=MIN_DELTA, lt=0.1)]
    smallest_cohort: _Number
    smallest_min_clients: _Number
    smallest_max_colluding: _Number
    modes: list[Literal["local", "distributed"]]
    protections: list[_Protection]
    models: list[_Hash]
    aggregators: list[_Key]
    keyholders: list[_Key] = []
    members: list[_Key] | None = None
    plans: list[_Hash] | None = None
    unprotected: bool = False
    revoked: list[_HashOrKey] = []


@final
@dataclass(frozen=True, slots=True)
class Verdict:
    """What one line of a policy says.

    line
        its number in the file; 0 where the file has no such line
    entry
        the line, shortened
    finding
        what the plan, or the release, has there
    refused
        whether that is not allowed
    """

    line: int
    entry: str
    finding: str
    refused: bool


@final
@dataclass(frozen=True, slots=True)
class Limits:
    """What a policy allows for its one data set, at its own delta."""

    lineage: str
    epsilon: float
    epsilon_per_year: float
    year: int
    delta: float


@final
@dataclass(frozen=True)
class Consent:
    """A checked policy.  Made by :meth:`load` or :meth:`parse`; never changes.

    A process that goes on after the file was changed keeps to what it has read: load
    it again, or start again, for a revocation to hold.
    """

    name: str
    _entries: _Entries = field(repr=False)
    _lines: Mapping[str, tuple[int, str]] = field(repr=False)

    @classmethod
    def load(cls, path: str | Path) -> Consent:
        """Read and check a policy file.  Raises UsageError that names the line."""
        try:
            source = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror}",
                hint="give the path of a policy, or write one: secure-fl policy new",
            ) from None
        return cls.parse(source, name=str(path))

    @classmethod
    def parse(cls, source: bytes, *, name: str = "policy.toml") -> Consent:
        """The same from the file's bytes; ``name``: what a refusal calls the file."""
        try:
            text = source.decode()
            tree = tomllib.loads(text)
        except UnicodeDecodeError:
            raise UsageError(f"{name} is not UTF-8 text", hint=_HINT) from None
        except tomllib.TOMLDecodeError as error:
            raise UsageError(f"{name} is not TOML: {error}", hint=_HINT) from None
        found = _lines_of(text)
        try:
            entries = _Entries.model_validate(tree)
        except ValidationError as error:
            raise _invalid(error, found, name) from None
        for key in tree:
            if len(found.get(key, [])) != 1:
                raise UsageError(
                    f"{name}: {key} is not on one line's beginning",
                    hint=f"write it as `{key} = ...`, once, on a line of its own",
                )
        return cls(name, entries, {key: found[key][0] for key in tree})

    @property
    def limits(self) -> Limits:
        """What may be spent, for whoever shows it beside what was."""
        e = self._entries
        return Limits(
            e.lineage,
            e.largest_epsilon,
            e.largest_epsilon_per_year,
            e.year,
            e.largest_delta,
        )

    @property
    def unprotected(self) -> bool:
        """Whether updates without a guarantee (epsilon infinite) may leave at all."""
        return self._entries.unprotected

    def check_plan(self, plan: Plan) -> None:
        """Raises ConsentRefused unless this client may take part in ``plan``.

        Computes no epsilon and reads no clock: cheap enough for every message.
        ``plan`` is this client's own copy, which its signatures are bound to.
        """
        self._all_allow(_of_plan(self._entries, plan))

    def check_release(self, plan: Plan, book: Book, event: Event, now: int) -> None:
        """Raises ConsentRefused unless ``event`` may be charged, and then leave.

        Includes :meth:`check_plan`.  Caller draws nothing before this has returned.

        book
            what this client's own ledger holds of the plan's lineage, read in the
            transaction that charges the event (``Ledger.reserve``): of two processes,
            neither may miss what the other is about to charge
        now
            seconds since 1970, as the charge will say
        """
        if book.lineage != plan.lineage:
            raise UsageError(
                f"the plan charges {plan.lineage!r}, not {book.lineage!r}",
                hint="ask with the plan's own lineage",
            )
        self.check_plan(plan)
        self._all_allow(_of_releases(self._entries, book, [event], now))

    def verdicts(
        self, plan: Plan, book: Book, events: Sequence[Event], *, now: int
    ) -> list[Verdict]:
        """What every line says to ``plan`` and to all of ``events``, made now.

        In the order in which they are asked.  Raises PlanError for a plan that leaves
        open what an answer depends on.
        """
        rules = [
            *_of_plan(self._entries, plan),
            *_of_releases(self._entries, book, events, now),
        ]
        return [self._verdict(rule) for rule in rules]

    def require(self, verdicts: Iterable[Verdict]) -> None:
        """Raises ConsentRefused for the first verdict that refuses."""
        for verdict in verdicts:
            if verdict.refused:
                raise ConsentRefused(
                    f"{verdict.entry}: {verdict.finding}",
                    file=self.name,
                    line=verdict.line,
                )

    def _all_allow(self, rules: Iterable[_Rule]) -> None:
        self.require(map(self._verdict, rules))  # lazily: a refusal computes no more

    def _verdict(self, rule: _Rule) -> Verdict:
        key, finding, allowed = rule
        line, entry = self._lines.get(key, (0, f"no line `{key} = ...`"))
        return Verdict(line, entry, finding, not allowed)


# -- the rules -------------------------------------------------------------------------


def _of_plan(e: _Entries, plan: Plan) -> Iterator[_Rule]:
    """Revocations first: they win over everything."""
    privacy, colluding = plan.privacy, plan.parties.max_colluding
    named, members = _named(plan), len(plan.names)
    if e.revoked:
        found = [who for who, what in named.items() if what in e.revoked]
        yield "revoked", f"it lists {', '.join(found) or 'none of them'}", not found
    if e.plans is not None:
        yield "plans", f"the plan is {plan.hash.hex()}", plan.hash in e.plans
    yield (
        "lineage",
        f"the plan charges {plan.lineage!r}",
        plan.lineage == e.lineage,
    )
    yield (
        "largest_epsilon",
        f"the plan's own limit is {privacy.epsilon:g}",
        privacy.epsilon <= e.largest_epsilon,
    )
    yield (
        "largest_delta",
        f"the plan's is {privacy.delta:g}",
        privacy.delta <= e.largest_delta,
    )
    yield (
        "smallest_cohort",
        f"the plan has {members} members",
        members >= e.smallest_cohort,
    )
    yield (
        "smallest_min_clients",
        f"the plan opens sums of {plan.min_clients}",
        plan.min_clients >= e.smallest_min_clients,
    )
    yield (
        "smallest_max_colluding",
        f"the plan withstands {colluding}",
        colluding >= e.smallest_max_colluding,
    )
    yield "modes", f"the plan's is {privacy.mode}", privacy.mode in e.modes
    protection = plan.protection.kind
    kind = f"ckks {plan.protection.keys}" if protection == "ckks" else protection
    yield "protections", f"the plan's is {kind}", kind in e.protections
    yield _one_of("models", plan.model.start_sha256, named.get(_START), e.models)
    yield _one_of(
        "aggregators", plan.parties.aggregator, named.get(_AGGREGATOR), e.aggregators
    )
    if plan.has_keyholder:
        yield _one_of(
            "keyholders", plan.parties.keyholder, named.get(_KEYHOLDER), e.keyholders
        )
    if e.members is not None:
        strangers = [n for n in plan.names if named.get(n) not in e.members]
        yield "members", f"it lacks {', '.join(strangers) or 'nobody'}", not strangers


def _of_releases(
    e: _Entries, book: Book, events: Sequence[Event], now: int
) -> Iterator[_Rule]:
    year = datetime.fromtimestamp(min(max(now, 0), _LAST_SECOND), UTC).year
    yield "year", f"this machine's clock says {year}", year == e.year
    if any(isinstance(event, NonPrivate) for event in events):
        yield "unprotected", "the update's epsilon is infinite", e.unprotected
        return
    what = "this release" if len(events) == 1 else f"{len(events)} releases"
    for key, limit, charged in (
        ("largest_epsilon", e.largest_epsilon, book.charged()),
        (
            "largest_epsilon_per_year",
            e.largest_epsilon_per_year,
            _charged_since(book, e.year),
        ),
    ):
        # One adversary for all plans: as many colluders as each has to withstand.
        known = [seen(x, e.smallest_max_colluding) for x in (*charged, *events)]
        total = epsilon(known, delta=e.largest_delta).value
        yield (
            key,
            f"{total:.4g} at delta {e.largest_delta:g} with {what}",
            total <= limit,
        )


def _charged_since(book: Book, year: int) -> list[Event]:
    """What was charged in ``year`` (UTC) or later, by the latest time seen until then.

    A clock that was put back moves no release into an earlier year, and what a clock
    that was ahead has charged counts now too.
    """
    start = datetime(year, 1, 1, tzinfo=UTC).timestamp()
    latest, out = 0, []
    releases = iter(book.releases())  # in the order of their reservations
    for entry in book.entries:
        latest = max(latest, entry.time)
        if entry.reservation is not None:
            release = next(releases)
            if release.charged and latest >= start:
                out.append(release.event)
    return out


def _named(plan: Plan) -> dict[str, bytes]:
    """What a policy may list of ``plan``: hashes, and every key that it states."""
    parties = plan.parties
    keys = {_AGGREGATOR: parties.aggregator, _KEYHOLDER: parties.keyholder}
    keys |= {member.name: member.key for member in parties.members}
    out = {_PLAN: plan.hash}
    if plan.model.start_sha256 is not None:
        out[_START] = bytes.fromhex(plan.model.start_sha256)
    return out | {who: key_from_text(key) for who, key in keys.items() if key}


def _one_of(
    key: str, shown: str | None, what: bytes | None, allowed: Sequence[bytes]
) -> _Rule:
    return key, f"the plan's is {shown or 'left open'}", what in allowed


# -- where they stand ------------------------------------------------------------------

_ENTRY: Final = re.compile(r"[ \t]*([A-Za-z0-9_-]+)[ \t]*=")


def _lines_of(text: str) -> dict[str, list[tuple[int, str]]]:
    """By key: every line that may begin its entry, with the number it has.

    More than one where a text of several lines looks like an entry; none where the key
    is written in another of TOML's ways.
    """
    out: dict[str, list[tuple[int, str]]] = {}
    for number, line in enumerate(text.split("\n"), start=1):
        if match := _ENTRY.match(line):
            out.setdefault(match[1], []).append((number, _shortened(line)))
    return out


def _shortened(line: str) -> str:
    entry = re.sub(r"\s#.*", "", line).strip()
    if entry.endswith("["):  # a list that goes on below
        entry += "...]"
    return entry if len(entry) <= _SHOWN else f"{entry[:_SHOWN]}..."


def _invalid(
    error: ValidationError, lines: Mapping[str, list[tuple[int, str]]], name: str
) -> UsageError:
    # A misspelt key first: the one it leaves missing follows from it.
    first = min(
        error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden"
    )
    key = str(first["loc"][0])
    where = f"{name} line {lines[key][0][0]}" if key in lines else name
    problem = {"extra_forbidden": "unknown entry", "missing": "is missing"}.get(
        first["type"], first["msg"].removeprefix("Value error, ")
    )
    return UsageError(f"{where}: {key}: {problem[:1].lower()}{problem[1:]}", hint=_HINT)
