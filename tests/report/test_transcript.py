# SPDX-License-Identifier: Apache-2.0
"""Transcripts edited and chained again: without keys, and with everybody's."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secure_fl import wire
from secure_fl.errors import VerificationError
from secure_fl.masking import messages
from secure_fl.report import verify_run
from secure_fl.transcript import SPEC, Transcript

from .support import Made, rewritten

TRANSCRIPT = "transcript.cbor"

Row = tuple[str, dict[int, Any], int]


def refused(folder: Path) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        verify_run(folder)
    return caught.value


def of_kind(rows: list[Row], kind: str) -> list[int]:
    return [i for i, row in enumerate(rows) if row[0] == kind]


def of_message(rows: list[Row], number: int, round_index: int = 0) -> list[int]:
    """Messages of one kind in one round; 10 for the withheld."""
    found = []
    for i in of_kind(rows, "message"):
        body = rows[i][1]
        kind = 10 if body[5] else messages.kind_of(body[4])
        if kind == number and body[0] == round_index:
            found.append(i)
    return found


def drop(kind: str, at: int) -> Callable[[list[Row]], None]:
    def edit(rows: list[Row]) -> None:
        del rows[of_kind(rows, kind)[at]]

    return edit


def drop_message(number: int, at: int = 0) -> Callable[[list[Row]], None]:
    def edit(rows: list[Row]) -> None:
        del rows[of_message(rows, number)[at]]

    return edit


def repeat(kind: str, at: int) -> Callable[[list[Row]], None]:
    def edit(rows: list[Row]) -> None:
        place = of_kind(rows, kind)[at]
        rows.insert(place, rows[place])

    return edit


def swap(kind: str, first: int, second: int) -> Callable[[list[Row]], None]:
    def edit(rows: list[Row]) -> None:
        i, j = of_kind(rows, kind)[first], of_kind(rows, kind)[second]
        rows[i], rows[j] = rows[j], rows[i]

    return edit


def change(kind: str, at: int, field: int, value: Any) -> Callable[[list[Row]], None]:
    def edit(rows: list[Row]) -> None:
        rows[of_kind(rows, kind)[at]][1][field] = value

    return edit


def flip_in_message(number: int, at: int = 0) -> Callable[[list[Row]], None]:
    """One bit of the last field, which is a signature or a row."""

    def edit(rows: list[Row]) -> None:
        body = rows[of_message(rows, number)[at]][1]
        data = bytearray(body[4])
        data[-1] ^= 1
        body[4] = bytes(data)

    return edit


def another_sender(rows: list[Row]) -> None:
    rows[of_message(rows, 1)[0]][1][2] = "bank-b"
    rows[of_message(rows, 1)[1]][1][2] = "bank-a"


def late_key(rows: list[Row]) -> None:
    place = of_message(rows, 1)[0]
    rows.insert(of_message(rows, 3)[0], rows.pop(place))


def other_statement(rows: list[Row]) -> None:
    body = rows[of_message(rows, 7)[0]][1]
    value = copy.deepcopy(wire.decode(body[4]))
    assert isinstance(value, dict)
    value[4] = value[4][:-1]
    body[4] = wire.encode(value)


def second_statement(rows: list[Row]) -> None:
    place = of_message(rows, 7)[0]
    kind, body, old = rows[place]
    other: list[Row] = [(kind, dict(body), old)]
    value = copy.deepcopy(wire.decode(body[4]))
    assert isinstance(value, dict)
    value[4] = value[4][:-1]
    other[0][1][4] = wire.encode(value)
    other[0][1][3] = "bank-a"
    rows.insert(place + 1, other[0])


def fewer_signatures(rows: list[Row]) -> None:
    for number, field in ((9, 2),):
        body = rows[of_message(rows, number)[0]][1]
        value = copy.deepcopy(wire.decode(body[4]))
        assert isinstance(value, dict)
        value[field] = value[field][:2]
        body[4] = wire.encode(value)


def no_threshold(rows: list[Row]) -> None:
    """Only two agreements and two signatures, consistently: below the threshold."""
    fewer_signatures(rows)
    for place in reversed(of_message(rows, 8)[2:]):
        del rows[place]


def few_reveals(rows: list[Row]) -> None:
    for place in reversed(of_message(rows, 10)[2:]):
        del rows[place]


def no_second_round(rows: list[Row]) -> None:
    """The run is cut after round 0, artefacts and all signatures kept."""
    begin = next(i for i, row in enumerate(rows) if row[0] == "message" and row[1][0])
    end = of_kind(rows, "artefacts")[0]
    del rows[begin:end]


def failed_round_hidden(rows: list[Row]) -> None:
    """The failed attempt is left out, with the vectors that were sent in it."""
    end = of_kind(rows, "failure")[0]
    begin = next(i for i, row in enumerate(rows) if row[0] == "message" and row[1][0])
    del rows[begin : end + 1]


def one_artefact_less(rows: list[Row]) -> None:
    body = rows[of_kind(rows, "artefacts")[0]][1]
    body[0] = body[0][1:]


def one_artefact_more(rows: list[Row]) -> None:
    body = rows[of_kind(rows, "artefacts")[0]][1]
    body[0] = [*body[0], ["../secret", bytes(32)]]


def message_after_the_end(rows: list[Row]) -> None:
    rows.append(rows[of_kind(rows, "message")[0]])


EDITS: dict[str, Callable[[list[Row]], None]] = {
    "start dropped": drop("start", 0),
    "start repeated": repeat("start", 0),
    "another aggregator": change("start", 0, 2, bytes(32)),
    "another run id": change("start", 0, 1, bytes(16)),
    "another first model": change("start", 0, 6, bytes(32)),
    "a flag that is none": change("start", 0, 4, 2),
    "a last flag that is none": change("start", 0, 7, 2),
    "endorsement dropped": drop("endorsement", 2),
    "endorsement repeated": repeat("endorsement", 2),
    "endorsement of a stranger": change("endorsement", 1, 0, "bank-x"),
    "endorsement forged": change("endorsement", 1, 1, bytes(64)),
    "advertise dropped": drop_message(1),
    "cohort dropped": drop_message(2),
    "shares dropped": drop_message(3, 2),
    "inputs swapped": swap("message", 0, 20),
    "input dropped": drop_message(6),
    "statement dropped": drop_message(7),
    "agreement dropped": drop_message(8, 3),
    "signatures dropped": drop_message(9),
    "message repeated": repeat("message", 7),
    "keys out of order": late_key,
    "keys of another": another_sender,
    "key signature flipped": flip_in_message(1),
    "cohort flipped": flip_in_message(2),
    "shares flipped": flip_in_message(3),
    "inbox flipped": flip_in_message(4, 1),
    "input flipped": flip_in_message(6, 2),
    "agreement flipped": flip_in_message(8, 1),
    "a smaller statement": other_statement,
    "two statements": second_statement,
    "fewer signatures than agreements": fewer_signatures,
    "below the threshold": no_threshold,
    "too few reveals": few_reveals,
    "reveal by a stranger": change("message", -1, 2, "bank-x"),
    "reveal by a dropout": change("message", -1, 2, "bank-d"),
    "a flag that is no flag": change("message", 3, 5, 2),
    "failure dropped": drop("failure", 0),
    "failed attempt hidden": failed_round_hidden,
    "failure of another attempt": change("failure", 0, 1, 5),
    "round dropped": drop("round", 0),
    "round repeated": repeat("round", 0),
    "round renumbered": change("round", 1, 0, 2),
    "another context": change("round", 0, 2, bytes(32)),
    "fewer survivors": change("round", 0, 3, ["bank-a", "bank-b", "bank-c"]),
    "survivors out of order": change(
        "round", 0, 3, ["bank-b", "bank-a", "bank-c", "bank-d"]
    ),
    "survivors that are no names": change("round", 0, 3, [1, 2, 3, 4]),
    "more weight": change("round", 0, 4, 6),
    "another model before": change("round", 1, 7, bytes(32)),
    "another model after": change("round", 0, 8, bytes(32)),
    "a run cut short": no_second_round,
    "artefacts dropped": drop("artefacts", 0),
    "artefacts repeated": repeat("artefacts", 0),
    "an artefact less": one_artefact_less,
    "an artefact more": one_artefact_more,
    "artefacts that are no rows": change("artefacts", 0, 0, [1, ["a"], b""]),
    "an artefact of no hash": change("artefacts", 0, 0, [["plan.toml", b""]]),
    "aggregator's signature dropped": drop("signature", 0),
    "member's signature dropped": drop("signature", 2),
    "last signature dropped": drop("signature", -1),
    "signature repeated": repeat("signature", 2),
    "signature renamed": change("signature", 2, 0, "bank-x"),
    "something after the end": message_after_the_end,
}


@pytest.mark.parametrize("what", EDITS)
def test_an_edited_transcript(made: Made, tmp_path: Path, what: str) -> None:
    """Chained again by somebody without keys: a signature no longer holds."""
    files = {**made.files}
    files[TRANSCRIPT] = rewritten(made, EDITS[what], resign=False)
    assert files[TRANSCRIPT] != made.files[TRANSCRIPT]
    folder = replace(made, files=files).write(tmp_path / "run")
    assert refused(folder).file == TRANSCRIPT


COLLUDING = {
    name: edit
    for name, edit in EDITS.items()
    if name
    not in (
        # Signed by everybody, these are other stories than the first, not impossible
        # ones; the ledgers or the model then tell.
        "another first model",
        "member's signature dropped",
        "failed attempt hidden",
        "another model after",
        "signature renamed",
        "start dropped",
    )
}


@pytest.mark.parametrize("what", COLLUDING)
def test_an_edited_transcript_signed_by_all(
    made: Made, tmp_path: Path, what: str
) -> None:
    """Everybody signs the lie, and it still cannot have happened."""
    files = {**made.files}
    files[TRANSCRIPT] = rewritten(made, COLLUDING[what], resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    assert refused(folder).file == TRANSCRIPT


def test_a_hidden_attempt_shows_in_the_ledgers(made: Made, tmp_path: Path) -> None:
    """bank-a's ledger holds an update that the log, signed by all, does not know."""
    files = {**made.files}
    files[TRANSCRIPT] = rewritten(made, failed_round_hidden, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    error = refused(folder)
    assert error.file in ("report.json", "ledgers/bank-a.cbor")


@pytest.mark.parametrize(
    ("kind", "field"),
    [("start", 6), ("endorsement", 1), ("round", 5), ("signature", 2)],
)
@pytest.mark.parametrize("size", [0, 31, 65])
def test_a_field_of_another_size(made: Made, kind: Any, field: int, size: int) -> None:
    """Its hash holds, and so would a signature over it: the form itself is refused."""
    entry = made.transcript.of_kind(kind)[0]
    before = made.transcript.entries[: entry.sequence]
    value = copy.deepcopy(wire.decode(entry.data))
    assert isinstance(value, dict)
    run_id = made.transcript.run_id
    whole = [e.data for e in before] + [entry.data]
    messages = [made.transcript.message(e) for e in before if e.has_message]
    Transcript.from_bytes(wire.encode([SPEC, run_id, whole, messages]))
    value[3][field] = bytes(size)
    whole[-1] = wire.encode(value)
    with pytest.raises(VerificationError, match="does not have"):
        Transcript.from_bytes(wire.encode([SPEC, run_id, whole, messages]))
