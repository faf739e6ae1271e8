# SPDX-License-Identifier: Apache-2.0
"""The failing vectors of kept vectors: what is opened again must be what was said."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from dataclasses import replace
from hashlib import sha256
from typing import Any

import numpy as np

from secure_fl import wire
from secure_fl.masking import messages
from secure_fl.model import GlobalModel
from secure_fl.privacy import LedgerExport, read_export
from secure_fl.report import build_report, to_json
from secure_fl.transcript import Transcript
from tests.report.support import Made, Row, rewritten, rows_of

from .report_forgery import (
    SIZE,
    TRANSCRIPT,
    Case,
    Edit,
    Files,
    Forgery,
    Log,
    flipped,
    ledger_of,
    listed,
    missing,
    raw,
    set_field,
)
from .report_parties import START
from .report_runs import REPORT

FIRST = "vectors/round-00000-attempt-0.cbor"
SECOND = "vectors/round-00001-attempt-0.cbor"
ROWS = 5  # where they stand in a file; four chunks come first, then four reveals


def rewritten_file(name: str, change: Callable[[list[Any]], None]) -> Forgery:
    """A vectors file changed, and its hash signed by all."""

    def forge(made: Made) -> bytes:
        value: Any = copy.deepcopy(wire.decode(made.files[name]))
        change(value)
        return wire.encode(value)

    return listed(name, forge)


def in_rows(change: Callable[[list[Any]], None], name: str = FIRST) -> Forgery:
    return rewritten_file(name, lambda value: change(value[ROWS]))


def other_start(made: Made) -> bytes:
    return GlobalModel({"weight": np.ones((4, 5), np.float32)}).to_bytes()


def other_words(rows: list[Any]) -> None:
    rows[0][1] = flipped(rows[0][1])


def exchanged(rows: list[Any]) -> None:
    rows[0], rows[1] = rows[1], rows[0]


def of_an_outsider(rows: list[Any]) -> None:
    """bank-d, which is not in the sum of round 1, has a chunk there."""
    chunk: Any = copy.deepcopy(wire.decode(rows[2][1]))
    chunk[2] = 3
    rows.insert(3, ["bank-d", wire.encode(chunk)])


def retold(made: Made, files: Files, *edits: Edit) -> Files:
    """The log edited, the report of it rewritten, and all of it signed by all."""

    def edit(rows: list[Row]) -> None:
        for one in edits:
            one(Log(made, rows))
        for kind, body, _ in rows:
            if kind == "artefacts":
                body[0] = rows_of(files)

    log = Transcript.from_bytes(rewritten(made, edit, resign=True))
    before = log.before(log.of_kind("artefacts")[0])
    report = json.loads(made.files[REPORT])
    built = build_report(
        plan=made.plan, transcript=before, exports=_exports(made), size=SIZE
    )
    # Nothing else follows from the log, and the figures stay as they were published.
    for key in ("report_id", "subject", "rounds", "transcript_head"):
        report[key] = built[key]
    files = {**files, REPORT: to_json(report)}
    files[TRANSCRIPT] = rewritten(made, edit, resign=True)
    return files


def _exports(made: Made) -> dict[str, LedgerExport]:
    return {
        m.name: read_export(
            made.files[ledger_of(m.name)], public_key=m.public_key, client=m.name
        )
        for m in made.plan.roster.members
    }


def told(*edits: Edit) -> Forgery:
    return lambda made: retold(made, made.files, *edits)


def with_another_share(made: Made) -> Files:
    """bank-a reveals another share than it was dealt, and signs it."""
    place = (0, 0)
    log = Log(made, [])
    session: Any = log.session(place)
    value: Any = copy.deepcopy(wire.decode(made.files[FIRST]))
    row = value[ROWS][4]
    reveal = messages.Reveal.decode(row[1], session)
    share = replace(reveal.shares[1], share=flipped(reveal.shares[1].share))
    reveal = replace(reveal, shares=(reveal.shares[0], share, *reveal.shares[2:]))
    signature = made.signer("bank-a").sign(
        messages.REVEAL_LABEL, session.ctx, 0, reveal.rows()
    )
    row[1] = replace(reveal, signature=signature).encode(session)
    files = {**made.files, FIRST: wire.encode(value)}

    return retold(made, files, set_field(10, 4, sha256(row[1]).digest()))


def cases() -> list[Case]:
    rows: list[tuple[str, str, str, Forgery]] = [
        ("no kept file", "V-FILE-4", SECOND, missing(SECOND)),
        ("a bit of a kept file", "V-FILE-4", FIRST, raw(FIRST, flipped)),
        ("another start", "V-SUM-1", START, listed(START, other_start)),
        (
            "kept of another attempt",
            "V-SUM-2",
            FIRST,
            listed(FIRST, lambda made: made.files[SECOND]),
        ),
        (
            "a seed, where there is none",
            "V-SUM-2",
            FIRST,
            rewritten_file(FIRST, lambda value: value.__setitem__(4, bytes(32))),
        ),
        ("out of order", "V-SUM-2", FIRST, in_rows(exchanged)),
        (
            "a chunk from outside the sum",
            "V-SUM-3",
            SECOND,
            in_rows(of_an_outsider, SECOND),
        ),
        ("a reveal left out", "V-SUM-3", FIRST, in_rows(lambda rows: rows.pop())),
        (
            "another reveal than was logged",
            "V-SUM-3",
            FIRST,
            in_rows(lambda rows: rows[5].__setitem__(1, flipped(rows[5][1]))),
        ),
        ("a word of a vector", "V-SUM-4", FIRST, in_rows(other_words)),
        ("a vector left out", "V-SUM-4", FIRST, in_rows(lambda rows: rows.pop(1))),
        ("a share that nobody dealt", "V-SUM-5", FIRST, with_another_share),
        (
            "another sum",
            "V-SUM-6",
            TRANSCRIPT,
            told(set_field("round", 5, bytes(32))),
        ),
        (
            "another count of clipped values",
            "V-SUM-6",
            TRANSCRIPT,
            told(set_field("round", 6, 7)),
        ),
    ]
    return [Case("kept", *row) for row in rows]
