# SPDX-License-Identifier: Apache-2.0
"""The failing vectors of messages: each protection's checks, one lie for each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

from secure_fl import wire
from secure_fl.ckks import messages as sealed
from secure_fl.ckks.messages import KINDS
from secure_fl.masking import messages
from secure_fl.masking.messages import MaskedInput, SealedShares, Statement

from .report_forgery import (
    TRANSCRIPT,
    Case,
    Edit,
    Forgery,
    Log,
    again,
    drop,
    flipped,
    resigned,
    set_field,
    set_part,
    swap,
)

LOW_ORDER = bytes(32)  # of X25519: every exchange with it gives zero


# -- all protections -------------------------------------------------------------------


def late_inbox(log: Log) -> None:
    """bank-d is given its shares when bank-a has masked its vector."""
    inbox, vector = log.messages(4, (0, 0))[3], log.messages(6, (0, 0))[0]
    log.rows.insert(vector, log.rows.pop(inbox))


def of_the_round_before(log: Log) -> None:
    """bank-a's announcement of round 0 stands in round 1 too."""
    log.body(1, 0, (1, 1))[4] = log.body(1)[4]


def in_anothers_name(log: Log) -> None:
    one, two = log.body(1), log.body(1, 1)
    one[2], two[2] = two[2], one[2]


def whole(log: Log) -> None:
    """A revealed share that is not withheld."""
    body = log.body(10)
    session = log.key_session()
    reveal = messages.Reveal(0, (), bytes(64))
    body[4], body[5] = reveal.encode(session), 0


def looks_withheld(log: Log) -> None:
    """32 bytes that begin like revealed shares, and are said to be whole."""
    body = log.body(10)
    body[4], body[5] = b"\xa5\x00\x0a" + bytes(29), 0


# -- masking ---------------------------------------------------------------------------


def cohort(log: Log) -> bytes:
    s = log.key_session()
    return messages.cohort_hash(s, messages.CohortKeys.decode(log.body(2)[4], s))


def signed_input(log: Log, at: int, **changed: Any) -> None:
    """Change a client's input; it signs what it then says."""
    s, body = log.key_session(), log.body(6, at)
    group = bytes(32) if log.made.plan.protection.kind == "plain" else cohort(log)
    message = replace(MaskedInput.decode(body[4], s), **changed)
    signature = log.signer(body[2]).sign(
        messages.INPUT_LABEL, *message.signed(s, group)
    )
    body[4] = replace(message, signature=signature).encode(s)


def one_key_for_both(log: Log) -> None:
    """bank-a announces one key twice, and everybody takes it."""
    s, body = log.key_session(), log.body(1)
    row = messages.Advertise.decode(body[4], s).announcement
    row = replace(row, mask_key=row.seal_key)
    row = replace(row, signature=log.signer("bank-a").sign(row.label(), *row.signed(s)))
    body[4] = messages.Advertise(row).encode(s)
    keys = messages.CohortKeys.decode(log.body(2)[4], s)
    changed = replace(keys, announcements=(row, *keys.announcements[1:]))
    log.body(2)[4] = changed.encode(s)


def smaller_cohort(log: Log) -> None:
    """Two clients announce keys; three are needed."""
    s = log.key_session()
    drop(1, 2, 2)(log)
    keys = messages.CohortKeys.decode(log.body(2)[4], s)
    log.body(2)[4] = replace(keys, announcements=keys.announcements[:2]).encode(s)


def dealt_to_three(log: Log) -> None:
    s, body = log.key_session(), log.body(3)
    dealt = SealedShares.decode(body[4], s)
    fewer = replace(dealt, shares=dealt.shares[:-1])
    parts = messages.signed_shares(s, cohort(log), 0, fewer.commitment, fewer.root())
    signature = log.signer("bank-a").sign(messages.SHARES_LABEL, *parts)
    body[4] = replace(fewer, signature=signature).encode(s)


def statement_with(log: Log, **changed: Any) -> Statement:
    s, body = log.key_session(), log.body(7)
    statement = replace(Statement.decode(body[4], s), **changed)
    body[4] = statement.encode(s)
    return statement


def smaller_statement(log: Log) -> None:
    statement = Statement.decode(log.body(7)[4], log.key_session())
    statement_with(log, survivors=statement.survivors[:-1])


def statement_of_two(log: Log) -> None:
    drop(6, 2, 2)(log)
    statement = Statement.decode(log.body(7)[4], log.key_session())
    statement_with(log, survivors=statement.survivors[:2])


def second_statement(log: Log) -> None:
    """bank-a is shown one without bank-d."""
    s, place = log.key_session(), log.messages(7, (0, 0))[0]
    body = log.rows[place][1]
    statement = Statement.decode(body[4], s)
    other = replace(statement, survivors=statement.survivors[:-1])
    log.rows.insert(
        place + 1, ("message", {**body, 3: "bank-a", 4: other.encode(s)}, 0)
    )


def outside_signer(log: Log) -> None:
    """A statement without bank-d, which all four sign."""
    s = log.key_session()
    drop(6, 3)(log)
    old = Statement.decode(log.body(7)[4], s)
    statement = statement_with(log, survivors=old.survivors[:-1])
    for place in log.messages(8, (0, 0)):
        body = log.rows[place][1]
        signature = log.signer(body[2]).sign(
            messages.STATEMENT_LABEL, *statement.signed(s)
        )
        agreement = messages.Agreement.decode(body[4], s)
        body[4] = replace(agreement, signature=signature).encode(s)


def two_signatures(log: Log) -> None:
    """Two agree; the threshold is three."""
    drop(8, 2, 2)(log)
    set_part(9, 2, lambda rows: rows[:2])(log)


def reveal_of_an_outsider(log: Log) -> None:
    """bank-d, which has no vector in round 1, reveals shares there."""
    log.body(10, 0, (1, 1))[2] = "bank-d"


def other_dealers(log: Log) -> None:
    signed_input(log, 0, dealers=b"\x01" * 32)


def part_of_first(kind: int, field: int) -> Forgery:
    """A bit of one field of the first message of its kind."""
    return resigned(set_part(kind, field, flipped))


MASKING: list[tuple[str, str, Forgery]] = [
    ("a message of a stranger", "V-MSG-1", resigned(set_field(1, 2, "bank-x"))),
    ("a message to a stranger", "V-MSG-1", resigned(set_field(4, 3, "bank-x"))),
    ("an empty statement", "V-MSG-2", resigned(set_field(7, 4, b""))),
    ("a share revealed in the log", "V-MSG-2", resigned(whole)),
    ("32 bytes of a share in the log", "V-MSG-2", resigned(looks_withheld)),
    ("an announcement twice", "V-MSG-3", resigned(again(1))),
    ("an inbox among the vectors", "V-MSG-3", resigned(late_inbox)),
    ("the cohort's keys from a client", "V-MSG-4", resigned(set_field(2, 2, "bank-a"))),
    ("a client's keys from the aggregator", "V-MSG-4", resigned(set_field(1, 2, ""))),
    ("an announcement of the round before", "V-MSG-5", resigned(of_the_round_before)),
    (
        "a signature of 63 bytes",
        "V-MSG-5",
        resigned(set_part(1, 5, lambda signature: signature[:-1])),
    ),
    ("announcements exchanged", "V-MSG-6", resigned(in_anothers_name)),
    ("an announcement's signature", "V-MASK-1", part_of_first(1, 5)),
    ("an announcement left out", "V-MASK-2", resigned(drop(1))),
    ("two keys that are one", "V-MASK-2", resigned(one_key_for_both)),
    ("a cohort of two", "V-MASK-2", resigned(smaller_cohort)),
    ("dealt to three of four", "V-MASK-3", resigned(dealt_to_three)),
    ("a dealer's signature", "V-MASK-3", part_of_first(3, 5)),
    ("inboxes exchanged", "V-MASK-4", resigned(swap(4, 4))),
    ("a dealer left out", "V-MASK-4", resigned(drop(3, 2))),
    ("an input's signature", "V-MASK-5", part_of_first(6, 7)),
    ("masked for other dealers", "V-MASK-5", resigned(other_dealers)),
    ("no inbox", "V-MASK-5", resigned(drop(4))),
    ("a statement without bank-d", "V-MASK-6", resigned(smaller_statement)),
    ("a vector left out", "V-MASK-6", resigned(drop(6))),
    ("a statement of two", "V-MASK-6", resigned(statement_of_two)),
    ("two statements", "V-MASK-6", resigned(second_statement)),
    ("no statement", "V-MASK-7", resigned(drop(7))),
    ("an agreement's signature", "V-MASK-7", part_of_first(8, 3)),
    ("an agreement from outside", "V-MASK-7", resigned(outside_signer)),
    ("an agreement left out", "V-MASK-8", resigned(drop(8))),
    ("two agreements of three", "V-MASK-8", resigned(two_signatures)),
    (
        "revealed by bank-d, which has no vector",
        "V-MASK-9",
        resigned(reveal_of_an_outsider),
    ),
    ("two reveals of three", "V-MASK-10", resigned(drop(10, 2, 2))),
    (
        "no signatures",
        "V-MASK-10",
        resigned(drop(10, 0, 4), drop(9)),
    ),
]


# -- plain -----------------------------------------------------------------------------


def request_of_nothing(log: Log) -> None:
    log.body(0)[4] = wire.encode({0: 0, 1: bytes(32)})


def claim_of_nothing(log: Log) -> None:
    signed_input(log, 0, claim=bytes(32))


PLAIN: list[tuple[str, str, Forgery]] = [
    ("a request of another context", "V-PLAIN-1", resigned(request_of_nothing)),
    ("a vector of the aggregator", "V-MSG-4", resigned(set_field(6, 2, ""))),
    ("a vector withheld", "V-MSG-2", resigned(set_field(6, 5, 1))),
    ("vectors exchanged", "V-MSG-6", resigned(swap(6, 4))),
    ("a vector's signature", "V-MASK-5", part_of_first(6, 7)),
    ("masked, where nothing is", "V-MASK-5", resigned(other_dealers)),
    ("two vectors of four", "V-MASK-10", resigned(drop(6, 2, 2))),
]


# -- ckks ------------------------------------------------------------------------------


def nothing_attached(log: Log) -> None:
    signed_input(log, 0, attached=b"")


ONE_TIME: list[tuple[str, str, Forgery]] = [
    ("a masked key without ciphertexts", "V-MASK-5", resigned(nothing_attached)),
    ("a key's announcement by another", "V-MASK-1", part_of_first(1, 5)),
    ("a sum of keys of two", "V-MASK-10", resigned(drop(10, 2, 2))),
    (
        "the context of the keys",
        "V-ROUND-1",
        resigned(set_field("round", 2, bytes(32))),
    ),
]


def call(key: bytes) -> Edit:
    """The aggregator's key, signed by it."""

    def edit(log: Log) -> None:
        ctx, body = log.session().ctx, log.body(KINDS.CALL)
        signature = log.signer("").sign(sealed.AGGREGATOR_KEY_LABEL, ctx, key)
        old = sealed.Call.decode(body[4])
        body[4] = replace(old, key=key, signature=signature).encode()

    return edit


def holder_key(key: Callable[[Log], bytes]) -> Edit:
    """The key holder's key, signed by it."""

    def edit(log: Log) -> None:
        s: Any = log.session()
        assert log.made.keyholder is not None
        signature = log.made.keyholder.sign(sealed.HOLDER_KEY_LABEL, s.ctx, key(log))
        log.body(KINDS.HOLDER_KEY)[4] = sealed.HolderKey(key(log), signature).encode(s)

    return edit


def aggregators(log: Log) -> bytes:
    return sealed.Call.decode(log.body(KINDS.CALL)[4]).key


def sealed_input(log: Log) -> None:
    """bank-a names another payload than it sent, unsigned."""
    set_part(KINDS.INPUT, 3, flipped)(log)


def release_of_three(log: Log) -> None:
    """The key holder signs a release without bank-d."""
    s: Any = log.session()
    body = log.body(KINDS.RELEASE)
    rows = sealed.Release.decode(body[4], s).rows[:-1]
    body[4] = signed_release(log, s, rows, bytes(sealed.release_box_size(s, 3)))


def refusal(log: Log, place: tuple[int, int]) -> bytes:
    s: Any = log.session(place)
    unsigned = sealed.Refusal(0, b"")
    assert log.made.keyholder is not None
    signature = log.made.keyholder.sign(sealed.REFUSAL_LABEL, *unsigned.signed(s))
    return replace(unsigned, signature=signature).encode(s)


def released_and_refused(log: Log) -> None:
    place = log.messages(KINDS.RELEASE, (0, 0))[0]
    body = log.rows[place][1]
    log.rows.insert(place + 1, ("message", {**body, 4: refusal(log, (0, 0))}, -1))


def opened_though_refused(log: Log) -> None:
    log.body(KINDS.RELEASE)[4] = refusal(log, (0, 0))


def released_twice(log: Log) -> None:
    """In round 1 the key holder releases in the first attempt too, where it refused."""
    refused = log.body(KINDS.REFUSAL, 0, (1, 0))
    refused[4] = b"\xa1\x00" + bytes([KINDS.RELEASE])
    release(log, (1, 0))
    log.body("failure")[3] = ""


def back_again(log: Log) -> None:
    """bank-c, which the key holder refused, has a vector in the next attempt."""
    place = (1, 1)
    s: Any = log.session(place)
    before: Any = log.session((1, 0))
    old = sealed.Input.decode(log.body(KINDS.INPUT, 2, (1, 0))[4], before)
    sign = log.signer("bank-c").sign
    message = replace(old, signature=sign(sealed.INPUT_LABEL, *old.row().signed(s)))
    at = log.messages(KINDS.INPUT, place)[1] + 1
    body = log.rows[at - 1][1]
    more = {**body, 2: "bank-c", 4: message.encode(s)}
    log.rows.insert(at, ("message", more, -1))
    release(log, place)


def release(log: Log, place: tuple[int, int]) -> None:
    """One for all inputs of the attempt, in the place of the one that is there."""
    s: Any = log.session(place)
    found = [
        sealed.Input.decode(log.rows[i][1][4], s)
        for i in log.messages(KINDS.INPUT, place)
    ]
    rows = tuple((m.client, m.payload, m.claim) for m in found)
    box = bytes(sealed.release_box_size(s, len(rows)))
    log.body(KINDS.RELEASE, 0, place)[4] = signed_release(log, s, rows, box)


def signed_release(log: Log, session: Any, rows: Any, box: bytes) -> bytes:
    assert log.made.keyholder is not None
    unsigned = sealed.Release(rows, box, b"")
    signature = log.made.keyholder.sign(sealed.RELEASE_LABEL, *unsigned.signed(session))
    return replace(unsigned, signature=signature).encode(session)


KEYHOLDER: list[tuple[str, str, Forgery]] = [
    (
        "called about a longer vector",
        "V-CKKS-1",
        resigned(set_part(KINDS.CALL, 5, lambda length: length + 1)),
    ),
    ("a call's signature", "V-CKKS-1", part_of_first(KINDS.CALL, 7)),
    ("an aggregator's key of low order", "V-CKKS-1", resigned(call(LOW_ORDER))),
    ("a key that nobody asked for", "V-CKKS-2", resigned(drop(KINDS.CALL))),
    ("the key holder's signature", "V-CKKS-2", part_of_first(KINDS.HOLDER_KEY, 3)),
    (
        "a holder's key of low order",
        "V-CKKS-2",
        resigned(holder_key(lambda _: LOW_ORDER)),
    ),
    ("one key for both", "V-CKKS-2", resigned(holder_key(aggregators))),
    ("invited before there was a key", "V-CKKS-3", resigned(drop(KINDS.HOLDER_KEY))),
    ("invited with another key", "V-CKKS-3", part_of_first(KINDS.INVITATION, 2)),
    ("nobody invited", "V-CKKS-4", resigned(drop(KINDS.INVITATION))),
    ("an input's payload", "V-CKKS-4", resigned(sealed_input)),
    ("asked about two", "V-CKKS-5", resigned(drop(KINDS.INPUT, 2, 2))),
    ("released unasked", "V-CKKS-6", resigned(drop(KINDS.REQUEST))),
    ("a release's signature", "V-CKKS-6", part_of_first(KINDS.RELEASE, 4)),
    ("released for three of four", "V-CKKS-6", resigned(release_of_three)),
    ("released and refused", "V-CKKS-7", resigned(released_and_refused)),
    ("opened though refused", "V-CKKS-8", resigned(opened_though_refused)),
    ("opened without keys", "V-CKKS-8", resigned(drop(KINDS.RELEASE))),
    ("released twice in a round", "V-CKKS-9", resigned(released_twice)),
    ("a client that was refused is back", "V-MSG-7", resigned(back_again)),
    ("an input of the aggregator", "V-MSG-4", resigned(set_field(KINDS.INPUT, 2, ""))),
]


def cases() -> list[Case]:
    runs = {
        "masking": MASKING,
        "plain": PLAIN,
        "ckks-one-time": ONE_TIME,
        "ckks-keyholder": KEYHOLDER,
    }
    out = [
        Case(run, name, check, TRANSCRIPT, forge)
        for run, rows in runs.items()
        for name, check, forge in rows
    ]
    nothing = Case(
        "plain",
        "a claim of nothing",
        "V-MATCH-3",
        "ledgers/bank-a.cbor",
        resigned(claim_of_nothing),
    )
    return [*out, nothing]
