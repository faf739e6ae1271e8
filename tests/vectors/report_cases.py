# SPDX-License-Identifier: Apache-2.0
"""The failing vectors of plans, logs and files: a lie for each check."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from secure_fl import wire
from secure_fl.identity import key_to_text
from secure_fl.model import GlobalModel
from tests.report.support import Made

from .report_forgery import (
    PLAN,
    TRANSCRIPT,
    Case,
    Edit,
    Files,
    Forgery,
    Log,
    again,
    another_run,
    beside,
    chained,
    drop,
    flipped,
    ledger_of,
    listed,
    missing,
    raw,
    rechained,
    replanned,
    resigned,
    set_field,
)

MODEL = "model.safetensors"
METRICS = "metrics.json"
REPORT = "report.json"
BANKS = ["bank-a", "bank-b", "bank-c", "bank-d"]


# -- the log ---------------------------------------------------------------------------


def unknown_kind(made: Made) -> Files:
    """A last entry of a kind that this version does not have."""
    log = made.transcript
    more = wire.encode({0: len(log.entries), 1: log.head, 2: "note", 3: {0: ""}})
    entries = [*(e.data for e in log.entries), more]
    return {**made.files, TRANSCRIPT: chained(made, entries)}


def exchanged(made: Made) -> Files:
    entries = [e.data for e in made.transcript.entries]
    entries[6], entries[7] = entries[7], entries[6]
    return {**made.files, TRANSCRIPT: chained(made, entries)}


def spliced(made: Made) -> Files:
    """Entry 30 is left out."""
    entries = [e.data for e in made.transcript.entries]
    del entries[30]
    return {**made.files, TRANSCRIPT: chained(made, entries)}


def short_hash(made: Made) -> Files:
    """The hash of the words that round 0 opened has 31 bytes."""
    entries = [e.data for e in made.transcript.entries]
    entry = made.transcript.of_kind("round")[0]
    value: Any = copy.deepcopy(wire.decode(entry.data))
    value[3][5] = value[3][5][:-1]
    entries[entry.sequence] = wire.encode(value)
    return {**made.files, TRANSCRIPT: chained(made, entries)}


def without_messages(data: bytes) -> bytes:
    """The entries alone, as a member is sent them to sign."""
    value: Any = wire.decode(data)
    return wire.encode(value[:3])


def bit_of_a_message(messages: list[bytes]) -> None:
    messages[3] = flipped(messages[3])


def messages_exchanged(messages: list[bytes]) -> None:
    messages[0], messages[1] = messages[1], messages[0]


def in_start(field: int, value: Any) -> Edit:
    return set_field("start", field, value)


def renumbered(log: Log) -> None:
    """Round 1 is called round 2."""
    for _, body, _ in log.rows:
        if body[0] == 1 and 1 in body and isinstance(body[1], int):
            body[0] = 2


def far_attempt(log: Log) -> None:
    """The last attempt is called the thousandth and first."""
    for kind, body, _ in log.rows:
        if kind in ("message", "failure", "round") and (body[0], body[1]) == (1, 1):
            body[1] = 1000


def backwards(log: Log) -> None:
    """The second attempt of round 1 has the number of the first."""
    for kind, body, _ in log.rows:
        if kind in ("message", "failure", "round") and (body[0], body[1]) == (1, 1):
            body[1] = 0


def cut_short(log: Log) -> None:
    """All of round 1 is left out."""
    first = next(
        i
        for i, (kind, body, _) in enumerate(log.rows)
        if kind == "message" and body[0] == 1
    )
    del log.rows[first : log.places("artefacts")[0]]


def forged_signature(at: int) -> Edit:
    def edit(log: Log) -> None:
        body = log.body("signature", at)
        body[2] = flipped(body[2])

    return edit


def message_at_the_end(log: Log) -> None:
    log.rows.append(log.rows[log.places("message")[0]])


def signed_by_an_outsider(log: Log) -> None:
    """bank-d, who is not in the sum, signs round 1 in bank-c's stead."""
    places = [i for i in log.places("signature") if i > log.places("round")[1]]
    log.rows[places[3]][1][0] = "bank-d"


def started_again(log: Log) -> None:
    kind, body, _ = log.rows[log.places("start")[0]]
    log.rows.insert(log.places("artefacts")[0], (kind, dict(body), -1))


LOG: list[tuple[str, str, Forgery]] = [
    ("without its messages", "V-LOG-1", raw(TRANSCRIPT, without_messages)),
    ("the last byte is missing", "V-LOG-1", raw(TRANSCRIPT, lambda d: d[:-1])),
    ("a byte too many", "V-LOG-1", raw(TRANSCRIPT, lambda d: d + b"\x00")),
    (
        "of another version",
        "V-LOG-1",
        raw(TRANSCRIPT, lambda d: d.replace(b"transcript/2", b"transcript/9", 1)),
    ),
    (
        "an array with a longer head than it needs",
        "V-LOG-1",
        raw(TRANSCRIPT, lambda d: b"\x98\x04" + d[1:]),
    ),
    ("two entries exchanged", "V-LOG-2", exchanged),
    ("an entry left out", "V-LOG-2", spliced),
    ("an entry of an unknown kind", "V-LOG-2", unknown_kind),
    ("a hash of 31 bytes in a round", "V-LOG-2", short_hash),
    ("a message missing", "V-LOG-13", beside(lambda messages: messages.pop(5))),
    ("the last message missing", "V-LOG-13", beside(lambda messages: messages.pop())),
    (
        "a message left over",
        "V-LOG-13",
        beside(lambda messages: messages.append(messages[0])),
    ),
    ("a bit of a message", "V-LOG-13", beside(bit_of_a_message)),
    ("two messages exchanged", "V-LOG-13", beside(messages_exchanged)),
    ("a message with a flag of 2", "V-LOG-2", resigned(set_field(3, 5, 2))),
    (
        "a hash of 31 bytes of a share",
        "V-LOG-2",
        resigned(set_field(10, 4, bytes(31))),
    ),
    ("no start", "V-LOG-3", resigned(drop("start"))),
    ("another run id than the plan's", "V-LOG-4", another_run),
    ("start with another run id", "V-LOG-5", resigned(in_start(1, bytes(16)))),
    ("start with another aggregator", "V-LOG-5", resigned(in_start(2, bytes(32)))),
    ("start with a flag of 2", "V-LOG-5", resigned(in_start(4, 2))),
    ("a round that nothing ends", "V-LOG-6", resigned(drop("round"))),
    ("a start in the artefacts' place", "V-LOG-6", resigned(started_again)),
    (
        "a failure of another attempt",
        "V-LOG-7",
        resigned(set_field("failure", 1, 5)),
    ),
    ("an attempt of number 1000", "V-LOG-7", resigned(far_attempt)),
    ("round 1 called round 2", "V-LOG-8", resigned(renumbered)),
    ("two attempts of one number", "V-LOG-7", resigned(backwards)),
    (
        "survivors out of order",
        "V-LOG-9",
        resigned(set_field("round", 3, [*BANKS[1::-1], *BANKS[2:]])),
    ),
    (
        "a survivor who is no member",
        "V-LOG-9",
        resigned(set_field("round", 3, [*BANKS, "bank-x"])),
    ),
    ("the run cut short, signed by all", "V-LOG-10", resigned(cut_short)),
    ("a message after the end", "V-LOG-11", resigned(message_at_the_end)),
    (
        "a failure blamed on a stranger",
        "V-LOG-12",
        resigned(set_field("failure", 3, "bank-x")),
    ),
    ("an endorsement missing", "V-SIGN-1", resigned(drop("endorsement", 2))),
    ("an endorsement twice", "V-SIGN-1", resigned(again("endorsement"))),
    (
        "an endorsement of a stranger",
        "V-SIGN-1",
        resigned(set_field("endorsement", 0, "bank-x", at=1)),
    ),
    (
        "an endorsement forged",
        "V-SIGN-1",
        resigned(set_field("endorsement", 1, bytes(64), at=1)),
    ),
    (
        "a round not signed by the aggregator",
        "V-SIGN-2",
        resigned(drop("signature", 0)),
    ),
    ("a signature over a round twice", "V-SIGN-2", resigned(again("signature", 2))),
    ("a signature over a round forged", "V-SIGN-2", rechained(forged_signature(1))),
    ("a round signed by an outsider", "V-SIGN-2", resigned(signed_by_an_outsider)),
    (
        "a round changed and chained again",
        "V-SIGN-2",
        rechained(set_field("round", 6, 1)),
    ),
    ("the last signature missing", "V-SIGN-3", resigned(drop("signature", -1))),
    (
        "a signature over the artefacts forged",
        "V-SIGN-3",
        rechained(forged_signature(-1)),
    ),
    ("another context", "V-ROUND-1", resigned(set_field("round", 2, bytes(32)))),
    ("other weights", "V-ROUND-3", resigned(set_field("round", 4, 6))),
    ("more clipped than there are", "V-ROUND-5", resigned(set_field("round", 6, 81))),
    ("another model before", "V-ROUND-4", resigned(set_field("round", 7, bytes(32)))),
]


def fewer_survivors(log: Log) -> None:
    """Round 0 is said to be the sum of three; the fourth signs nothing then."""
    log.body("round")[3] = BANKS[:3]
    for place in reversed(log.places("signature")):
        if log.rows[place][1][0] == "bank-d":
            del log.rows[place]


# -- plan ------------------------------------------------------------------------------


def without(pattern: str) -> Forgery:
    """The plan without the line that begins so."""

    def forge(made: Made) -> Files:
        lines = made.files[PLAN].decode().splitlines(keepends=True)
        line = next(one for one in lines if one.strip().startswith(pattern))
        return replanned((line, ""))(made)

    return forge


def instead(old: str, new: str) -> Forgery:
    return replanned((old, new))


def without_run(made: Made) -> Files:
    text = made.files[PLAN].decode()
    at = text.index("[run]")
    return replanned((text[at:], ""))(made)


# The neutral point: everybody's signature holds under it.
SMALL_ORDER = key_to_text(b"\x01" + bytes(31))


def with_key(key: Callable[[Made], str]) -> Forgery:
    """Another key for bank-b."""
    return lambda made: instead(f'"{_key(made, 1)}"', f'"{key(made)}"')(made)


def small_aggregator(made: Made) -> Files:
    return instead(f'"{made.plan.parties.aggregator}"', f'"{SMALL_ORDER}"')(made)


PLANS: list[tuple[str, str, Forgery]] = [
    (
        "another noise multiplier, not endorsed",
        "V-PLAN-1",
        raw(PLAN, lambda d: d.replace(b"= 6.0", b"= 6.5")),
    ),
    ("an unknown entry", "V-PLAN-2", instead("spare = 2", "spare = 2\nspares = 2")),
    ("no delta", "V-PLAN-2", without("delta")),
    ("a count of 0", "V-PLAN-2", instead("count = 2", "count = 0")),
    ("a count that is a float", "V-PLAN-2", instead("count = 2", "count = 2.0")),
    (
        "a member's key mistyped",
        "V-PLAN-2",
        with_key(lambda made: _key(made, 1)[:-1] + _other(_key(made, 1)[-1])),
    ),
    ("a member's key of small order", "V-PLAN-3", with_key(lambda made: SMALL_ORDER)),
    ("an aggregator's key of small order", "V-PLAN-3", small_aggregator),
    ("two members share a key", "V-PLAN-3", with_key(lambda made: _key(made, 0))),
    (
        "two members share a name",
        "V-PLAN-3",
        instead('name = "bank-b"', 'name = "bank-a"'),
    ),
    (
        "a threshold below a majority",
        "V-PLAN-3",
        instead("max_colluding = 1", "max_colluding = 1\nthreshold = 2"),
    ),
    (
        "fewer clients than may collude",
        "V-PLAN-3",
        instead("max_colluding = 1", "max_colluding = 1\nmin_clients = 2"),
    ),
    (
        "a step with which sums may wrap",
        "V-PLAN-3",
        instead("chunk_words = 64", "chunk_words = 64\nstep = 1e-8"),
    ),
    ("a delta above one over the records", "V-PLAN-3", instead("1e-05", "0.01")),
    (
        "noise that spends more than the plan's epsilon",
        "V-PLAN-4",
        instead("noise_multiplier = 6.0", "noise_multiplier = 1.0"),
    ),
    ("no run id", "V-PLAN-5", without_run),
]


def held_by_the_aggregator(made: Made) -> Files:
    parties = made.plan.parties
    return instead(f'"{parties.keyholder}"', f'"{parties.aggregator}"')(made)


def _key(made: Made, member: int) -> str:
    key = made.plan.parties.members[member].key
    assert key is not None
    return key


def _other(letter: str) -> str:
    return "a" if letter != "a" else "b"


# -- files -----------------------------------------------------------------------------


def one_row_less(log: Log) -> None:
    log.body("artefacts")[0] = log.body("artefacts")[0][1:]


def one_row_more(log: Log) -> None:
    body = log.body("artefacts")
    body[0] = [*body[0], ["../secret", bytes(32)]]


def one_row_twice(log: Log) -> None:
    body = log.body("artefacts")
    body[0] = [*body[0], body[0][-1]]


def one_row_short(log: Log) -> None:
    """A hash of 31 bytes."""
    body = log.body("artefacts")
    (name, digest), *others = body[0]
    body[0] = [[name, digest[:-1]], *others]


def other_model(made: Made) -> bytes:
    model = GlobalModel.from_bytes(made.files[MODEL])
    value = model.flatten()[:1]
    return made.files[MODEL].replace(value.tobytes(), (value + 1).tobytes(), 1)


def infinite_model(made: Made) -> bytes:
    return made.files[MODEL][:-4] + bytes.fromhex("0000807f")


FILES: list[tuple[str, str, str, Forgery]] = [
    ("no model", "V-FILE-1", MODEL, missing(MODEL)),
    ("no report", "V-FILE-1", REPORT, missing(REPORT)),
    ("no ledger", "V-FILE-2", ledger_of("bank-c"), missing(ledger_of("bank-c"))),
    ("artefacts without a file", "V-FILE-3", TRANSCRIPT, resigned(one_row_less)),
    ("artefacts of a stray file", "V-FILE-3", TRANSCRIPT, resigned(one_row_more)),
    ("artefacts with a short hash", "V-FILE-3", TRANSCRIPT, resigned(one_row_short)),
    ("artefacts with a row twice", "V-FILE-3", TRANSCRIPT, resigned(one_row_twice)),
    (
        "another line in the report's page",
        "V-FILE-4",
        "report.html",
        raw("report.html", lambda d: d.replace(b"page", b"lie")),
    ),
    (
        "a bit of the model",
        "V-FILE-4",
        MODEL,
        raw(MODEL, flipped),
    ),
    (
        "a bit of a ledger's signature",
        "V-FILE-4",
        ledger_of("bank-b"),
        raw(ledger_of("bank-b"), flipped),
    ),
    (
        "other figures of the model",
        "V-FILE-4",
        METRICS,
        raw(METRICS, lambda d: d.replace(b"[]", b"[1]")),
    ),
    (
        "a model cut short",
        "V-MODEL-1",
        MODEL,
        listed(MODEL, lambda made: made.files[MODEL][:-1]),
    ),
    ("a model that is infinite", "V-MODEL-1", MODEL, listed(MODEL, infinite_model)),
    ("another model", "V-MODEL-2", MODEL, listed(MODEL, other_model)),
    (
        "metrics that are a list",
        "V-FILE-5",
        METRICS,
        listed(METRICS, lambda made: b"[]\n"),
    ),
    (
        "metrics with a key twice",
        "V-FILE-5",
        METRICS,
        listed(METRICS, lambda made: b'{"history": [], "history": [1]}\n'),
    ),
]


def other_copy(made: Made) -> bytes:
    """A source plan of another epsilon, as an auditor may hold it."""
    return made.files[PLAN].replace(b"epsilon = 8.0", b"epsilon = 4.0")


def cases(made: Made) -> list[Case]:
    """All of them; ``made`` is the good run ``masking`` that they start from."""
    run = "masking"
    out = [Case(run, name, check, TRANSCRIPT, forge) for name, check, forge in LOG]
    out.append(
        Case(
            run,
            "fewer survivors than the messages agree on",
            "V-ROUND-2",
            TRANSCRIPT,
            resigned(fewer_survivors),
        )
    )
    out.append(
        Case(
            "plain",
            "plain, and no simulation",
            "V-LOG-5",
            TRANSCRIPT,
            resigned(in_start(4, 0)),
        )
    )
    out.append(
        Case(
            "ckks-keyholder",
            "the aggregator holds the keys",
            "V-PLAN-3",
            PLAN,
            held_by_the_aggregator,
        )
    )
    out += [Case(run, name, check, PLAN, forge) for name, check, forge in PLANS]
    unchanged = raw(PLAN, lambda data: data)
    copied = Case(run, "not the auditor's plan", "V-PLAN-6", PLAN, unchanged)
    out.append(replace(copied, copy=other_copy(made)))
    return out + [Case(run, *one) for one in FILES]
