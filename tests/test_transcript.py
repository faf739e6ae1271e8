# SPDX-License-Identifier: Apache-2.0
"""The chain holds, and every way to change what was logged breaks it."""

from __future__ import annotations

import dataclasses
import hashlib
import random
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl import wire
from secure_fl.errors import FaultyAggregator, ProtocolError, VerificationError
from secure_fl.transcript import (
    BODIES,
    SPEC,
    Entry,
    Sent,
    Transcript,
    check_extension,
    check_signature,
    countersign,
    genesis,
)

from .consortium import identities

RUN = b"r" * 16
AGGREGATOR, MEMBER = identities(2, "transcript")
START: dict[int, wire.Value] = {
    0: bytes(32),
    1: RUN,
    2: AGGREGATOR.public_key,
    3: "secure-fl 0",
    4: 1,
    5: 0,
    6: bytes(32),
    7: 0,
}


def say(log: Transcript, sender: str, data: bytes, *, withheld: bool = False) -> Entry:
    return log.add_message(
        0, 0, sender=sender, receiver="", message=data, withheld=withheld
    )


def sent(*data: bytes) -> list[Sent]:
    return [(0, 0, hashlib.sha256(message).digest()) for message in data]


def make() -> Transcript:
    log = Transcript(RUN)
    log.append("start", START)
    log.append("endorsement", {0: MEMBER.name, 1: bytes(64)})
    say(log, MEMBER.name, b"keys")
    say(log, "", b"cohort")
    say(log, MEMBER.name, b"shares", withheld=True)
    log.append("failure", {0: 0, 1: 0, 2: "too few", 3: ""})
    log.append(
        "round",
        {
            0: 0,
            1: 1,
            2: bytes(32),
            3: ["bank-0", "bank-1"],
            4: 2,
            5: bytes(32),
            6: 3,
            7: bytes(32),
            8: bytes(32),
        },
    )
    log.append("artefacts", {0: [["model.safetensors", bytes(32)]]})
    signed = log.entries[-1]
    log.sign(AGGREGATOR)
    log.add_signature(MEMBER.name, signed, countersign(MEMBER, signed.hash))
    return log


def items_of(log: Transcript) -> list[wire.Value]:
    return [e.data for e in log.entries]


MESSAGES: list[wire.Value] = [b"keys", b"cohort"]


def packed(
    items: list[wire.Value],
    *,
    messages: list[wire.Value] = MESSAGES,
    run: bytes = RUN,
) -> bytes:
    return wire.encode([SPEC, run, items, messages])


def test_a_transcript_there_and_back() -> None:
    log = make()
    again = Transcript.from_bytes(log.to_bytes())
    assert again.entries == log.entries
    assert again.head == log.head
    assert again.run_id == RUN
    assert again.to_bytes() == log.to_bytes()
    keys, cohort, shares = again.of_kind("message")
    assert [e.has_message for e in again.entries] == [False] * 2 + [True] * 2 + (
        [False] * 6
    )
    assert (again.message(keys), again.message(cohort)) == (b"keys", b"cohort")
    assert shares.bytes_(4) == hashlib.sha256(b"shares").digest()
    assert Transcript.from_bytes(Transcript(RUN).to_bytes()).head == genesis(RUN)


def test_a_transcript_as_it_was_before_an_entry() -> None:
    log = make()
    cut = log.before(log.entries[3])
    assert cut.entries == log.entries[:3]
    assert cut.to_bytes() == packed(items_of(log)[:3], messages=[b"keys"])
    say(cut, "", b"another cohort")
    assert log.message(log.entries[3]) == b"cohort"


@pytest.mark.parametrize(
    ("messages", "why"),
    [
        ([], "the message of entry 2 is missing"),
        ([b"keys"], "the message of entry 3 is missing"),
        ([b"cohort"], "the message of entry 2 is missing or another one"),
        ([b"cohort", b"keys"], "the message of entry 2 is missing or another one"),
        ([b"keys", b"Cohort"], "the message of entry 3 is missing or another one"),
        ([b"keys", b"cohort", b"shares"], "left over"),
        ([b"keys", b"cohort", b"cohort"], "left over"),
        ([b"keys", "cohort"], "not a byte string"),
    ],
)
def test_every_message_is_beside_its_entry(
    messages: list[wire.Value], why: str
) -> None:
    """No signature is over them: their hashes alone hold them."""
    with pytest.raises(VerificationError, match=why):
        Transcript.from_bytes(packed(items_of(make()), messages=messages))


@pytest.mark.parametrize(("field", "value"), [(5, 2), (4, bytes(31)), (4, b"keys")])
def test_the_entry_of_a_message_has_a_hash_and_a_flag(
    field: int, value: wire.Value
) -> None:
    body = {**make().entries[2].body, field: value}
    item = wire.encode({0: 0, 1: genesis(RUN), 2: "message", 3: body})
    with pytest.raises(VerificationError, match=r"flag|does not have"):
        Transcript.from_bytes(packed([item], messages=[b"keys"]))


def test_an_entry_follows_the_hash_of_the_one_before() -> None:
    log = make()
    before = genesis(RUN)
    for sequence, entry in enumerate(log.entries):
        assert entry.sequence == sequence
        assert entry.before == before
        assert wire.decode(entry.data) == {
            0: sequence,
            1: before,
            2: entry.kind,
            3: dict(entry.body),
        }
        before = entry.hash
    assert log.head == before


def test_entries_give_their_fields_by_type() -> None:
    entry = make().entries[6]
    assert entry.integer(4) == 2
    assert entry.bytes_(2) == bytes(32)
    assert entry.rows(3) == ["bank-0", "bank-1"]
    assert make().entries[2].text(2) == MEMBER.name


def test_every_kind_has_a_body_and_nothing_else_is_appended() -> None:
    assert set(BODIES) == {
        "start",
        "endorsement",
        "message",
        "failure",
        "round",
        "artefacts",
        "signature",
    }
    log = Transcript(RUN)
    with pytest.raises(AssertionError):
        log.append("endorsement", {0: "bank-0"})
    with pytest.raises(ProtocolError):
        log.append("endorsement", {0: "bank-0", 1: "text"})
    assert log.entries == []


CHANGES: list[tuple[str, Callable[[list[wire.Value]], list[wire.Value]]]] = [
    ("first dropped", lambda i: i[1:]),
    ("one dropped", lambda i: i[:3] + i[4:]),
    ("two swapped", lambda i: [*i[:3], i[4], i[3], *i[5:]]),
    ("one repeated", lambda i: [*i[:4], i[3], *i[4:]]),
    ("one added", lambda i: [*i, i[-1]]),
    ("not bytes", lambda i: [*i, 0]),
    ("not an entry", lambda i: [*i, wire.encode({0: len(i)})]),
]


@pytest.mark.parametrize("change", [c for _, c in CHANGES], ids=[n for n, _ in CHANGES])
def test_a_changed_order_breaks_the_chain(
    change: Callable[[list[wire.Value]], list[wire.Value]],
) -> None:
    with pytest.raises(VerificationError):
        Transcript.from_bytes(packed(change(items_of(make()))))


def test_any_bit_of_an_entry_but_the_last_breaks_the_chain() -> None:
    items = items_of(make())
    draw = random.Random(0)
    for at, item in enumerate(items[:-1]):
        assert isinstance(item, bytes)
        for _ in range(30):
            bad = bytearray(item)
            bad[draw.randrange(len(bad))] ^= 1 << draw.randrange(8)
            with pytest.raises(VerificationError):
                Transcript.from_bytes(
                    packed([*items[:at], bytes(bad), *items[at + 1 :]])
                )


def test_a_cut_end_loses_the_signature_over_it() -> None:
    """A shorter chain is whole in itself: the signature tells."""
    log = make()
    signature = log.entries[-2].bytes_(2)
    assert check_signature(AGGREGATOR.public_key, log.entries[-3].hash, signature)
    cut = Transcript.from_bytes(packed(items_of(log)[:5]))
    assert not check_signature(AGGREGATOR.public_key, cut.head, signature)


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("unknown", {}),
        ("endorsement", {0: "bank-0"}),
        ("endorsement", {0: "bank-0", 1: b"", 2: 0}),
        ("endorsement", {0: b"bank-0", 1: b""}),
        ("endorsement", {0: "x" * 1001, 1: b""}),
        ("artefacts", {0: b""}),
        ("failure", {0: -1, 1: 0, 2: "", 3: ""}),
    ],
)
def test_an_entry_of_another_shape_is_refused(
    kind: str, body: dict[int, wire.Value]
) -> None:
    item = wire.encode({0: 0, 1: genesis(RUN), 2: kind, 3: body})
    with pytest.raises(VerificationError):
        Transcript.from_bytes(packed([item], messages=[]))


@pytest.mark.parametrize(
    "value",
    [
        0,
        [],
        [SPEC, RUN],
        [SPEC, RUN, []],
        [SPEC, RUN, [], 0],
        [SPEC, RUN, [], [], []],
        ["other", RUN, [], []],
        [SPEC, "run", [], []],
    ],
)
def test_another_document_is_refused(value: wire.Value) -> None:
    with pytest.raises(VerificationError, match="not a transcript"):
        Transcript.from_bytes(wire.encode(value))


def test_another_run_id_is_another_chain() -> None:
    with pytest.raises(VerificationError, match="does not follow"):
        Transcript.from_bytes(packed(items_of(make()), run=b"x" * 16))


@given(st.binary(max_size=80))
def test_any_bytes_are_refused_as_evidence(data: bytes) -> None:
    with pytest.raises(VerificationError):
        Transcript.from_bytes(data)


def test_mutated_transcripts_raise_verification_errors_only() -> None:
    good = make().to_bytes()
    draw = random.Random(0)
    for _ in range(1500):
        bad = bytearray(good)
        for _ in range(draw.randrange(1, 4)):
            bad[draw.randrange(len(bad))] = draw.randrange(256)
        try:
            log = Transcript.from_bytes(bytes(bad[: draw.choice([len(bad), 50])]))
        except VerificationError:
            continue
        # Only the last entry has nothing behind it that vouches for it.
        assert log.entries[:-1] == make().entries[:-1]
        assert [log.message(e) for e in log.entries if e.has_message] == MESSAGES


# -- signatures and extensions -------------------------------------------------


def test_a_countersignature_is_over_one_head() -> None:
    log = make()
    head = log.entries[4].hash
    signature = countersign(MEMBER, head)
    assert check_signature(MEMBER.public_key, head, signature)
    assert not check_signature(AGGREGATOR.public_key, head, signature)
    assert not check_signature(MEMBER.public_key, log.head, signature)
    assert not check_signature(MEMBER.public_key, head, bytes(64))
    entry = log.add_signature(MEMBER.name, log.entries[4], signature)
    assert (entry.text(0), entry.integer(1)) == (MEMBER.name, 4)


def extension(log: Transcript, said: list[Sent], since: int = 0) -> bytes:
    head = log.entries[since].before
    return check_extension(
        log.entries[since:], head=head, member=MEMBER.name, sent=said
    )


def test_a_member_follows_the_log_from_where_it_signed() -> None:
    log = make()
    assert extension(log, sent(b"keys", b"shares")) == log.head
    assert extension(log, sent(b"shares"), since=4) == log.head
    assert extension(log, [], since=5) == log.head
    assert check_extension([], head=log.head, member="x", sent=[]) == log.head


@pytest.mark.parametrize(
    "said",
    [
        [],
        sent(b"keys"),
        sent(b"shares", b"keys"),
        sent(b"keys", b"shares", b"more"),
        sent(b"keys", b"other"),
        [*sent(b"keys"), (0, 1, sent(b"shares")[0][2])],  # in another attempt
    ],
)
def test_a_member_misses_or_disowns_a_message(said: list[Sent]) -> None:
    with pytest.raises(FaultyAggregator, match="as we sent them"):
        extension(make(), said)


def test_a_member_does_not_follow_another_log() -> None:
    log = make()
    said = sent(b"keys", b"shares")
    with pytest.raises(FaultyAggregator, match="does not continue"):
        check_extension(log.entries, head=bytes(32), member=MEMBER.name, sent=said)
    with pytest.raises(FaultyAggregator, match="does not continue"):
        check_extension(
            log.entries[1:], head=genesis(RUN), member=MEMBER.name, sent=said
        )
    gap = [*log.entries[:5], *log.entries[6:]]
    with pytest.raises(FaultyAggregator, match="does not continue"):
        check_extension(gap, head=genesis(RUN), member=MEMBER.name, sent=said)
    other = make().entries[2].data
    forked = dataclasses.replace(log.entries[3], data=other)
    entries = [*log.entries[:3], forked, *log.entries[4:]]
    with pytest.raises(FaultyAggregator, match="does not continue"):
        check_extension(entries, head=genesis(RUN), member=MEMBER.name, sent=said)


def test_a_member_reads_what_it_signs() -> None:
    """The logged bytes hold another message in our name; the body shown is ours."""
    log = Transcript(RUN)
    forged = say(log, MEMBER.name, b"never sent")
    said = sent(b"what we sent")
    shown = dataclasses.replace(forged, body={**forged.body, 4: said[0][2]})
    with pytest.raises(FaultyAggregator):
        check_extension([shown], head=genesis(RUN), member=MEMBER.name, sent=said)
