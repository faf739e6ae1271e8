# SPDX-License-Identifier: Apache-2.0
"""Mutations of a member's ledger.

The member always signs its own ledger again.  Alone it can do no more: the hash in the
artefacts is another.  The coalition hashes and signs the artefacts too, and the others'
signatures no longer hold.  Where everybody signs, and the report follows from the
changed ledger, the transcript's messages and the ledger's own rules have to tell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from secure_fl.privacy.events import Gaussian, NonPrivate, to_wire

from .mutations_books import (
    ADJACENCY,
    ATTEMPT,
    DELTA,
    EVENT,
    LIMIT,
    ROUND,
    RUN_ID,
    UNIT,
    Line,
    Lines,
    signed,
    taken_apart,
)
from .mutations_folder import (
    COALITION,
    EVERYBODY,
    MEMBER,
    TRANSCRIPT,
    Folder,
    Mutation,
    ledger,
)

__all__ = ["LEDGERS", "edited", "released_unopened", "without_release"]

Edit = Callable[[Lines], None]


def edited(
    edit: Edit, client: str, *, seal: bool, rebuild: bool = True
) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        name = ledger(client)
        lines = taken_apart(folder.files[name])
        edit(lines)
        folder.files[name] = signed(folder, lines, name=client)
        if seal:
            folder.seal()
        if folder.holds == EVERYBODY and rebuild:
            folder.rebuild()

    return apply


# -- what is changed -------------------------------------------------------------------


def _term(field: int, value: Any, nth: int = 0) -> Edit:
    def edit(lines: Lines) -> None:
        body = lines.reservation(nth)
        assert body[field] != value
        body[field] = value

    return edit


def _every_term(field: int, value: Any) -> Edit:
    def edit(lines: Lines) -> None:
        for x in lines.lines:
            if x.kind == "reserved":
                x.body[field] = value

    return edit


def _noise(factor: float) -> Edit:
    """The noise multiplier of the first release, said to be another."""

    def edit(lines: Lines) -> None:
        body = lines.reservation()
        inner = {**body[EVENT][1]}
        inner[2] = repr(float(inner[2]) * factor)
        body[EVENT] = {**body[EVENT], 1: inner}

    return edit


def _spelling(lines: Lines) -> None:
    body = lines.reservation()
    inner = {**body[EVENT][1]}
    inner[2] = inner[2] + "0"
    body[EVENT] = {**body[EVENT], 1: inner}


def _rate(lines: Lines) -> None:
    body = lines.reservation()
    body[EVENT] = {**body[EVENT], 1: {**body[EVENT][1], 1: "0.01"}}


def _count(value: int) -> Edit:
    def edit(lines: Lines) -> None:
        body = lines.reservation()
        assert body[EVENT][2] != value
        body[EVENT] = {**body[EVENT], 2: value}

    return edit


def without_release(nth: int) -> Edit:
    def edit(lines: Lines) -> None:
        for at in reversed(lines.steps(nth)):
            del lines.lines[at]

    return edit


def _drop(kind: str, nth: int = 0) -> Edit:
    def edit(lines: Lines) -> None:
        del lines.lines[lines.at(kind, nth)]

    return edit


def _renamed(kind: str, to: str, nth: int = 0) -> Edit:
    def edit(lines: Lines) -> None:
        x = lines.lines[lines.at(kind, nth)]
        x.kind = to
        x.body = {**x.body, 1: b""}

    return edit


def _ctx(make: Callable[[bytes], bytes], nth: int = 0) -> Edit:
    def edit(lines: Lines) -> None:
        x = lines.lines[lines.at("sent", nth)]
        x.body = {**x.body, 1: make(x.body[1])}

    return edit


def _first_ctx_again(lines: Lines) -> None:
    """The last release is said to have been sent where the first was."""
    first = lines.lines[lines.at("sent")].body[1]
    lines.lines[lines.at("sent", -1)].body[1] = first


def _aborted_before_sent(lines: Lines) -> None:
    lines.add("aborted", of=0, at=lines.at("sent"))


def _aborted_instead(lines: Lines) -> None:
    """Sent and released, and said to be neither."""
    for at in reversed(lines.steps(0)[1:]):
        del lines.lines[at]
    lines.add("aborted", of=0)


def _aborted_at_the_end(lines: Lines) -> None:
    lines.add("aborted", of=0)


def _released_twice(lines: Lines) -> None:
    lines.add("released", of=0)


def _sent_twice(lines: Lines) -> None:
    at = lines.at("sent")
    lines.add("sent", of=0, at=at + 1, ctx=lines.lines[at].body[1])


def _omitted(lines: Lines) -> None:
    """The last update is said to be left out by a statement that there is not."""
    at = lines.at("sent", -1)
    ctx = lines.lines[at].body[1]
    del lines.lines[at + 1 :]
    key = lines.lines[at].body[0]
    lines.lines.append(Line("omitted", lines.lines[at].time, {0: key, 1: ctx}, b""))


def released_unopened(lines: Lines) -> None:
    """The update of the failed attempt is said to be in the opened sum."""
    lines.add("released", of=1)


def _step_of_nothing(lines: Lines) -> None:
    lines.lines.append(
        Line("sent", lines.lines[-1].time, {0: bytes(32), 1: bytes(32)}, b"")
    )


def _second_reservation(lines: Lines) -> None:
    x = lines.lines[lines.at("reserved")]
    lines.lines.append(Line("reserved", lines.lines[-1].time, {**x.body}, b"\x01" * 32))


def _exchanged(one: int, two: int) -> Edit:
    def edit(lines: Lines) -> None:
        x = lines.lines
        x[one], x[two] = x[two], x[one]

    return edit


def _step_before_reservation(lines: Lines) -> None:
    x = lines.lines
    x.insert(0, x.pop(lines.at("sent")))


def _negative_time(lines: Lines) -> None:
    lines.lines[0].time = -1


def _kind(to: str) -> Edit:
    def edit(lines: Lines) -> None:
        lines.lines[-1].kind = to

    return edit


def _field_more(lines: Lines) -> None:
    lines.lines[0].body[8] = "approved"


def _step_field_more(lines: Lines) -> None:
    lines.lines[-1].body[2] = "approved"


def _event_of(value: Any) -> Edit:
    return _term(EVENT, value)


def _earlier_spending(lines: Lines) -> None:
    """Another run has spent more than this plan allows."""
    body = {**lines.reservation(), RUN_ID: bytes(16), EVENT: to_wire(Gaussian(0.5))}
    body[LIMIT] = "inf"
    lines.lines.insert(0, Line("reserved", lines.lines[0].time, body, b"\x01" * 32))


def _later_spending(lines: Lines) -> None:
    """The same, after this run: no vector of it stands under what was changed."""
    body = {**lines.reservation(), RUN_ID: bytes(16), EVENT: to_wire(Gaussian(0.5))}
    body[LIMIT] = "inf"
    lines.lines.append(Line("reserved", lines.lines[-1].time, body, b"\x01" * 32))


def _earlier_run(lines: Lines) -> None:
    """One that the data set never had.  (One that it had, left out, is the same.)"""
    body = {**lines.reservation(), RUN_ID: bytes(16)}
    lines.lines.insert(0, Line("reserved", lines.lines[0].time, body, b"\x01" * 32))


def _later(lines: Lines) -> None:
    for x in lines.lines:
        x.time += 86_400 * 365


def _earlier_unit(lines: Lines) -> None:
    body = {**lines.reservation(), RUN_ID: bytes(16), UNIT: "client"}
    lines.lines.insert(0, Line("reserved", lines.lines[0].time, body, b"\x01" * 32))


def _another_lineage(lines: Lines) -> None:
    lines.lineage = "another data set"


def _another_client(lines: Lines) -> None:
    lines.client = "bank-b"


def _cut(keep: int) -> Edit:
    def edit(lines: Lines) -> None:
        del lines.lines[keep:]

    return edit


# bank-a has three releases: round 0, round 1's failed attempt, round 1's second.
EDITS: Final[dict[str, Edit]] = {
    "event: twice the noise": _noise(2.0),
    "event: half the noise": _noise(0.5),
    "event: hardly more noise": _noise(1.000001),
    "event: its number spelt otherwise": _spelling,
    "event: a smaller sampling rate": _rate,
    "event: fewer steps": _count(1),
    "event: more steps": _count(4),
    "event: no steps": _count(0),
    "event: another mechanism": _event_of(to_wire(Gaussian(60.0))),
    "event: none, under a limit": _event_of(to_wire(NonPrivate("a baseline"))),
    "event: of an unknown kind": _event_of({0: "laplace", 1: "1.0"}),
    "event: no event": _event_of({}),
    "delta raised": _term(DELTA, "0.001"),
    "delta lowered": _term(DELTA, "1e-09"),
    "delta not a number": _term(DELTA, "nan"),
    "limit raised": _term(LIMIT, "80.0"),
    "limit lowered": _term(LIMIT, "0.1"),
    "no limit": _term(LIMIT, "inf"),
    "limit not a number": _term(LIMIT, "much"),
    "unit changed": _every_term(UNIT, "client"),
    "unit changed in one entry": _term(UNIT, "client"),
    "adjacency changed": _every_term(ADJACENCY, "replace-one"),
    "adjacency changed in one entry": _term(ADJACENCY, "replace-one"),
    "round changed": _term(ROUND, 1),
    "round that the plan has not": _every_term(ROUND, 7),
    "round below all": _term(ROUND, -1),
    "attempt changed": _term(ATTEMPT, 3),
    "attempt below all": _term(ATTEMPT, -1),
    "run id of another run": _every_term(RUN_ID, bytes(16)),
    "run id of another run in one entry": _term(RUN_ID, bytes(16)),
    "run id too short": _term(RUN_ID, bytes(15)),
    "first release removed": without_release(0),
    "last release removed": without_release(2),
    "all releases removed": _cut(0),
    "a reservation removed, its steps kept": _drop("reserved"),
    "a sent step removed": _drop("sent"),
    "cut after a reservation": _cut(1),
    "cut in the middle": _cut(3),
    "sent said to be aborted": _renamed("sent", "aborted"),
    "released said to be aborted": _renamed("released", "aborted"),
    "aborted before it was sent": _aborted_before_sent,
    "aborted instead of sent": _aborted_instead,
    "aborted after all": _aborted_at_the_end,
    "released twice": _released_twice,
    "released without an opened sum": released_unopened,
    "sent twice": _sent_twice,
    "sent in a context of nobody": _ctx(lambda ctx: bytes(31) + b"\x01"),
    "sent in a context that is none": _ctx(lambda ctx: ctx[:-1]),
    "sent in no context": _ctx(lambda ctx: b""),
    "sent where another release was": _first_ctx_again,
    "omitted without a statement": _omitted,
    "a step of nothing": _step_of_nothing,
    "one attempt reserved twice": _second_reservation,
    "reservation and step exchanged": _exchanged(0, 1),
    "a step before its reservation": _step_before_reservation,
    "a time below zero": _negative_time,
    "an unknown kind": _kind("refunded"),
    "an entry of no kind": _kind(""),
    "a reservation with a field more": _field_more,
    "a step with a field more": _step_field_more,
    "more spent before than allowed": _earlier_spending,
    "more spent afterwards than allowed": _later_spending,
    "an earlier run more": _earlier_run,
    "all a year later": _later,
    "an earlier run in another unit": _earlier_unit,
    "another lineage": _another_lineage,
    "another client's name": _another_client,
}


def _books() -> Iterator[Mutation]:
    name = ledger("bank-a")
    for what, edit in EDITS.items():
        # Figures of other events take a while, and no verifier comes as far as them.
        rebuild = not what.startswith(("event", "more spent", "an earlier run"))
        alone = edited(edit, "bank-a", seal=False)
        sealed = edited(edit, "bank-a", seal=True, rebuild=rebuild)
        title = f"{name}: {what}"
        yield Mutation(f"{title}, signed by it", "masking", MEMBER, alone, (name,))
        yield Mutation(
            f"{title}, signed by the coalition",
            "masking",
            COALITION,
            sealed,
            (TRANSCRIPT,),
        )
        yield Mutation(f"{title}, signed by all", "masking", EVERYBODY, sealed, (name,))


LEDGERS: Final = tuple(_books())
