# SPDX-License-Identifier: Apache-2.0
"""Forged runs without CKKS, signed again by all: the check that fails is the right one.

(``test_transcript.py`` has many more lies, and asks only that each is refused.)
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secure_fl import wire
from secure_fl.errors import VerificationError
from secure_fl.masking import Session, messages
from secure_fl.report import verify_run

from .support import Consortium, Made, rewritten
from .test_transcript import of_kind, of_message

Row = tuple[str, dict[int, Any], int]
Edit = Callable[[Made, list[Row]], None]


@pytest.fixture(scope="session")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Consortium(tmp_path_factory.mktemp("homes"), kind="plain").play()


def refused(made: Made, tmp_path: Path, edit: Edit) -> str:
    files = {**made.files}
    files["transcript.cbor"] = rewritten(
        made, lambda rows: edit(made, rows), resign=True
    )
    folder = replace(made, files=files).write(tmp_path / "run")
    with pytest.raises(VerificationError) as caught:
        verify_run(folder)
    assert caught.value.file == "transcript.cbor"
    return str(caught.value)


def session_of(made: Made) -> Session:
    """The context of round 0, attempt 0."""
    session = made.plan.session(
        round_index=0,
        attempt=0,
        model_hash=made.transcript.of_kind("start")[0].bytes_(6),
        size=20,
    )
    assert isinstance(session, Session)
    return session


def body(rows: list[Row], kind: int, at: int = 0) -> dict[int, Any]:
    return rows[of_message(rows, kind)[at]][1]


def swapped(kind: int) -> Edit:
    def edit(made: Made, rows: list[Row]) -> None:
        first, second = body(rows, kind, 0), body(rows, kind, 1)
        first[4], second[4] = second[4], first[4]

    return edit


def field(kind: int, key: int, value: Any) -> Edit:
    def edit(made: Made, rows: list[Row]) -> None:
        body(rows, kind)[key] = value

    return edit


def dropped(kind: int, count: int) -> Edit:
    def edit(made: Made, rows: list[Row]) -> None:
        for place in reversed(of_message(rows, kind)[-count:]):
            del rows[place]

    return edit


# -- without protection ----------------------------------------------------------------


def other_request(made: Made, rows: list[Row]) -> None:
    body(rows, 0)[4] = wire.encode({0: 0, 1: bytes(32)})


def root_of_a_cohort(made: Made, rows: list[Row]) -> None:
    """bank-a names a set of dealers, and there is none."""
    s, entry = session_of(made), body(rows, 6)
    message = replace(messages.MaskedInput.decode(entry[4], s), dealers=b"\x01" * 32)
    signature = made.identities["bank-a"].sign(
        messages.INPUT_LABEL, *message.signed(s, bytes(32))
    )
    entry[4] = replace(message, signature=signature).encode(s)


def change(kind: str, at: int, key: int, value: Any) -> Edit:
    """One field of an entry that is no message."""

    def edit(made: Made, rows: list[Row]) -> None:
        rows[of_kind(rows, kind)[at]][1][key] = value

    return edit


def culprit_without_protection(made: Made, rows: list[Row]) -> None:
    """Round 0 failed, it says, because of bank-a: a sum in clear has no culprit."""
    place = of_kind(rows, "round")[0]
    rows[place] = ("failure", {0: 0, 1: 0, 2: "", 3: "bank-a"}, rows[place][2])
    while rows[place + 1][0] == "signature":
        del rows[place + 1]


PLAIN: dict[str, tuple[Edit, str]] = {
    "another request": (other_request, "the request is of another context"),
    "request of a member": (field(0, 2, "bank-a"), "an unprotected sum does not have"),
    "vector of the aggregator": (field(6, 2, ""), "an unprotected sum does not have"),
    "vectors swapped": (swapped(6), "speaks in another client's name"),
    "a set of dealers": (root_of_a_cohort, "masked for another set of clients"),
    "vector withheld": (field(6, 5, 1), "is withheld, and none may be"),
    "too few vectors": (dropped(6, 2), "2 vectors arrived, 3 are needed"),
    "a culprit": (culprit_without_protection, "blamed on the wrong client"),
    "no simulation": (change("start", 0, 4, 0), "is for simulations only"),
}


@pytest.mark.parametrize("what", PLAIN)
def test_a_forged_run_without_protection(
    plain: Made, tmp_path: Path, what: str
) -> None:
    edit, told = PLAIN[what]
    assert told in refused(plain, tmp_path, edit)


# -- masking ---------------------------------------------------------------------------


def cohort_of(made: Made, rows: list[Row]) -> bytes:
    s = session_of(made)
    return messages.cohort_hash(s, messages.CohortKeys.decode(body(rows, 2)[4], s))


def fewer_shares(made: Made, rows: list[Row]) -> None:
    """bank-a deals to three of the four, and signs that."""
    s, entry = session_of(made), body(rows, 3)
    dealt = messages.SealedShares.decode(entry[4], s)
    fewer = replace(dealt, shares=dealt.shares[:-1])
    parts = messages.signed_shares(
        s, cohort_of(made, rows), 0, fewer.commitment, fewer.root()
    )
    signature = made.identities["bank-a"].sign(messages.SHARES_LABEL, *parts)
    entry[4] = replace(fewer, signature=signature).encode(s)


def other_dealers(made: Made, rows: list[Row]) -> None:
    s, entry = session_of(made), body(rows, 6)
    message = replace(messages.MaskedInput.decode(entry[4], s), dealers=b"\x01" * 32)
    signature = made.identities["bank-a"].sign(
        messages.INPUT_LABEL, *message.signed(s, cohort_of(made, rows))
    )
    entry[4] = replace(message, signature=signature).encode(s)


def undealt(made: Made, rows: list[Row]) -> None:
    """bank-d deals nothing, and masks for the three who do."""
    s = session_of(made)
    del rows[of_message(rows, 3)[-1]]
    del rows[of_message(rows, 4)[-1]]
    for reader, place in enumerate(of_message(rows, 4)):
        entry = rows[place][1]
        inbox = messages.Inbox.decode(entry[4], s, reader=reader)
        entry[4] = replace(inbox, entries=inbox.entries[:-1]).encode(s)
    cohort, three = cohort_of(made, rows), messages.dealers_hash(s, (0, 1, 2))
    for place in of_message(rows, 6):
        entry = rows[place][1]
        message = replace(messages.MaskedInput.decode(entry[4], s), dealers=three)
        signature = made.identities[entry[2]].sign(
            messages.INPUT_LABEL, *message.signed(s, cohort)
        )
        entry[4] = replace(message, signature=signature).encode(s)


def second_statement(made: Made, rows: list[Row]) -> None:
    """bank-a is shown one without bank-d."""
    s, place = session_of(made), of_message(rows, 7)[0]
    entry = rows[place][1]
    statement = messages.Statement.decode(entry[4], s)
    other = replace(statement, survivors=statement.survivors[:-1])
    changed = {**entry, 3: "bank-a", 4: other.encode(s)}
    rows.insert(place + 1, ("message", changed, -1))


def statement_with(rows: list[Row], s: Session, **changed: Any) -> messages.Statement:
    entry = body(rows, 7)
    statement = replace(messages.Statement.decode(entry[4], s), **changed)
    entry[4] = statement.encode(s)
    return statement


def other_cohort(made: Made, rows: list[Row]) -> None:
    statement_with(rows, session_of(made), cohort=bytes(32))


def statement_of_two(made: Made, rows: list[Row]) -> None:
    s = session_of(made)
    dropped(6, 2)(made, rows)
    statement = messages.Statement.decode(body(rows, 7)[4], s)
    statement_with(rows, s, survivors=statement.survivors[:2])


def omitted_signer(made: Made, rows: list[Row]) -> None:
    """A statement without bank-d, which all four sign."""
    s = session_of(made)
    dropped(6, 1)(made, rows)
    old = messages.Statement.decode(body(rows, 7)[4], s)
    statement = statement_with(rows, s, survivors=old.survivors[:-1])
    for place in of_message(rows, 8):
        entry = rows[place][1]
        signature = made.identities[entry[2]].sign(
            messages.STATEMENT_LABEL, *statement.signed(s)
        )
        agreement = messages.Agreement.decode(entry[4], s)
        entry[4] = replace(agreement, signature=signature).encode(s)


def whole_hash(made: Made, rows: list[Row]) -> None:
    """32 bytes that begin as a message of the withheld kind does, and are no hash."""
    body(rows, 10)[4] = b"\xa4\x00\x0a" + bytes(29)
    body(rows, 10)[5] = 0


def without_inbox(made: Made, rows: list[Row]) -> None:
    del rows[of_message(rows, 4)[1]]


def back_again(made: Made, rows: list[Row]) -> None:
    """Round 0 fails at its opening, bank-b is named, and takes part in round 1."""
    place = of_kind(rows, "round")[0]
    failure = {0: 0, 1: 0, 2: "its shares do not fit", 3: "bank-b"}
    rows[place] = ("failure", failure, rows[place][2])
    while rows[place + 1][0] == "signature":
        del rows[place + 1]
    for at in reversed(of_kind(rows, "signature")):
        if rows[at][1][0] == "bank-d":  # it is in no sum now, and signs no end
            del rows[at]


def attempt_1000(made: Made, rows: list[Row]) -> None:
    for kind, entry, _ in rows:
        if kind in ("message", "round") and (entry[0], entry[1]) == (1, 1):
            entry[1] = 1000


def change_place(made: Made, rows: list[Row]) -> None:
    """All of round 1 says that it is round 2."""
    for kind, entry, _ in rows:
        if kind in ("message", "failure", "round") and entry[0] == 1:
            entry[0] = 2


def nobody_signed(made: Made, rows: list[Row]) -> None:
    dropped(10, 4)(made, rows)
    dropped(9, 1)(made, rows)


MASKING: dict[str, tuple[Edit, str]] = {
    "keys swapped": (swapped(1), "speaks in another client's name"),
    "keys of the aggregator": (
        field(1, 2, ""),
        "the aggregator sent a message that is not its own",
    ),
    "cohort by a client": (
        field(2, 2, "bank-a"),
        "bank-a sent a message that is not a client's",
    ),
    "fewer shares": (fewer_shares, "bank-a dealt to another set than the cohort"),
    "inboxes swapped": (swapped(4), "bank-a was given are not the dealt shares"),
    "other dealers": (other_dealers, "bank-a masked for another set of clients"),
    "no dealer": (undealt, "bank-d masked for a set that it is not in"),
    "two statements": (second_statement, "two statements about who is in the sum"),
    "another cohort": (other_cohort, "the statement is about another cohort"),
    "a statement of two": (statement_of_two, "fewer clients than the plan needs"),
    "no statement": (dropped(7, 1), "there is no statement about who is in the sum"),
    "a signer left out": (omitted_signer, "bank-d signed a statement that omits it"),
    "no hash": (field(10, 4, bytes(31)), "field 4 does not have 32 bytes"),
    "no signatures": (nobody_signed, "opened without signatures over the statement"),
    "a hash that is a message": (whole_hash, "a message stands whole that is withheld"),
    "no inbox": (without_inbox, "bank-b masked before it was given its shares"),
    "a failure of nobody": (change("failure", 0, 3, "bank-x"), "the wrong client"),
    "a failure of the aggregator": (
        change("failure", 0, 3, "the aggregator"),
        "round 1, attempt 0: its failure is blamed on the wrong client",
    ),
    "a culprit that is back": (back_again, "bank-b is back, and was found faulty"),
    "more clipped than there is": (
        change("round", 0, 6, 4 * 20 + 1),
        "more clipped values than its vectors have",
    ),
    "attempt 1000": (attempt_1000, "attempt 1000 of round 1 cannot be"),
    "a round before its turn": (change_place, "round 2 is repeated, or one before"),
    "a dropped vector": (dropped(6, 1), "another set than the vectors that arrived"),
}


@pytest.mark.parametrize("what", MASKING)
def test_a_forged_run_under_masking(made: Made, tmp_path: Path, what: str) -> None:
    edit, told = MASKING[what]
    assert told in refused(made, tmp_path, edit)
