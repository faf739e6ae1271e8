# SPDX-License-Identifier: Apache-2.0
"""What holds although it is a lie: everybody signed it, and no file can tell.

These are no gaps of a verifier.  Where all parties lie together, the files are what
they say they are; ``mutations.py`` lists what that means for a reader.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

import numpy as np

from secure_fl.model import GlobalModel

from .mutations_books import ATTEMPT, ROUND, Line, Lines, signed, taken_apart
from .mutations_folder import (
    EVERYBODY,
    METRICS,
    MODEL,
    REPORT,
    TRANSCRIPT,
    Folder,
    Mutation,
    Row,
    ledger,
    messages_of,
    of_kind,
    other_value,
)

__all__ = ["BEYOND"]


def _entries(edit: Callable[[list[Row]], None]) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        folder.log(edit)
        folder.rebuild()

    return apply


def _field(kind: str, field: int, value: Any) -> Callable[[list[Row]], None]:
    def edit(rows: list[Row]) -> None:
        body = rows[of_kind(rows, kind)[0]][1]
        assert body[field] != value
        body[field] = value

    return edit


def _ledger(client: str, edit: Callable[[Lines], None]) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        name = ledger(client)
        lines = taken_apart(folder.files[name])
        edit(lines)
        folder.files[name] = signed(folder, lines, name=client)
        folder.rebuild()

    return apply


def _hidden_attempt(rows: list[Row]) -> None:
    begin = next(i for i, row in enumerate(rows) if row[0] == "message" and row[1][0])
    del rows[begin : of_kind(rows, "failure")[0] + 1]


def _another_reveal(rows: list[Row]) -> None:
    body = rows[messages_of(rows, 10)[0]][1]
    body[4] = other_value(body[4])


def _not_noted(lines: Lines) -> None:
    """The last release was sent, and not noted as opened: a crash does the same."""
    del lines.lines[-1]


def _later(lines: Lines) -> None:
    """What follows the last reservation of an update that arrived is bound by none."""
    for x in lines.lines[lines.at("reserved", -1) + 1 :]:
        x.time += 86_400 * 365


def _back_in_time(lines: Lines) -> None:
    """As a clock does that was set right."""
    lines.lines[-1].time = lines.lines[0].time - 1


def _release_more(lines: Lines) -> None:
    """Reserved and charged, and never sent."""
    body = {**lines.reservation(), ROUND: 1, ATTEMPT: 1}
    lines.lines.append(Line("reserved", lines.lines[-1].time, body, b"\x01" * 32))


def _last_model(folder: Folder) -> None:
    """Vectors are not kept: whatever all say that their sum was, it was."""
    model = GlobalModel({"weight": np.full((4, 5), 0.5, np.float32)})

    def edit(rows: list[Row]) -> None:
        rows[of_kind(rows, "round")[-1]][1][8] = model.digest()

    folder.files[MODEL] = model.to_bytes()
    folder.log(edit)
    folder.rebuild()


def _better_score(folder: Folder) -> None:
    metrics = json.loads(folder.files[METRICS])
    metrics["final"] = {"accuracy": 1.0}
    folder.put(METRICS, json.dumps(metrics).encode())


def _reworded(folder: Folder) -> None:
    folder.put("report.txt", folder.files["report.txt"].replace(b"epsilon", b"Epsilon"))


def _within_tolerance(folder: Folder) -> None:
    report = json.loads(folder.files[REPORT])
    report["claims"][0]["clients"]["bank-b"]["epsilon"] *= 0.99999
    folder.say(report)


_EDITS: Final[dict[str, Callable[[Folder], None]]] = {
    "start: another tool": _entries(_field("start", 3, "another tool 1.0")),
    "start: no simulation": _entries(_field("start", 4, 0)),
    "start: secret randomness": _entries(_field("start", 5, 0)),
    "start: ledgers thrown away": _entries(_field("start", 7, 0)),
    "failure: another reason": _entries(_field("failure", 2, "a power cut")),
    "failure: another culprit": _entries(_field("failure", 3, "bank-d")),
    "failed attempt hidden": _entries(_hidden_attempt),
    "round: another hash of the opened words": _entries(_field("round", 5, bytes(32))),
    "round: more clipped coordinates": _entries(_field("round", 6, 3)),
    "round: another last model": _last_model,
    "message: another hash of revealed shares": _entries(_another_reveal),
    "ledger: an opened release not noted": _ledger("bank-a", _not_noted),
    "ledger: its end a year later": _ledger("bank-a", _later),
    "ledger: a clock that went back": _ledger("bank-a", _back_in_time),
    "ledger: a release more": _ledger("bank-d", _release_more),
    "metrics: a better score": _better_score,
    "page: reworded": _reworded,
    "report: a figure within the tolerance": _within_tolerance,
}

BEYOND: Final = tuple(
    Mutation(name, "masking", EVERYBODY, edit, (TRANSCRIPT,))
    for name, edit in _EDITS.items()
)
