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
from .test_transcript import of_message

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


PLAIN: dict[str, tuple[Edit, str]] = {
    "another request": (other_request, "the request is of another context"),
    "request of a member": (field(0, 2, "bank-a"), "an unprotected sum does not have"),
    "vector of the aggregator": (field(6, 2, ""), "an unprotected sum does not have"),
    "vectors swapped": (swapped(6), "speaks in another client's name"),
    "a set of dealers": (root_of_a_cohort, "masked for another set of clients"),
    "vector withheld": (field(6, 5, 1), "neither whole nor one that is withheld"),
    "too few vectors": (dropped(6, 2), "2 vectors arrived, 3 are needed"),
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
    """bank-d deals nothing, and masks for the three who do; nobody is given shares."""
    s = session_of(made)
    for place in reversed(of_message(rows, 4)):
        del rows[place]
    del rows[of_message(rows, 3)[-1]]
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
    "no hash": (field(10, 4, bytes(31)), "a withheld message is not a hash"),
    "no signatures": (nobody_signed, "opened without signatures over the statement"),
    "a dropped vector": (dropped(6, 1), "another set than the vectors that arrived"),
}


@pytest.mark.parametrize("what", MASKING)
def test_a_forged_run_under_masking(made: Made, tmp_path: Path, what: str) -> None:
    edit, told = MASKING[what]
    assert told in refused(made, tmp_path, edit)
