# SPDX-License-Identifier: Apache-2.0
"""Writes protocols/report/vectors: ``python -m tests.vectors.report_generate``.

One file for each good run: its files, what a verifier says of it, and the failing
vectors that start from it.  A failing vector is a patch: what it changes in which file.
And ``primitives.json``, numbers that are computed on the way.
"""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from difflib import SequenceMatcher
from itertools import accumulate
from pathlib import Path
from typing import Any

from tests.report.support import Made

from . import (
    report_cases,
    report_distributed_cases,
    report_ledger_cases,
    report_message_cases,
    report_primitives,
    report_step_cases,
    report_sum_cases,
)
from .report_forgery import PLAN, SIZE, Case, Files
from .report_runs import KINDS, REPORT, play

FOLDER = Path(__file__).parents[2] / "protocols" / "report" / "vectors" / "1"
SPEC = "protocols/report/SPEC.md, version 1"
DESCRIPTION = (
    "`files`: a folder that verifies, file by file: `text` (UTF-8) or `base64`. Every "
    "case is this folder with `edits`, which must be refused, naming `file`, under "
    "`check` of SPEC section 12. An edit of a file is null (the file is missing) or a "
    "list of [offset in the good file, bytes to take out, bytes to put there in "
    "hexadecimal], ascending and apart. `copy`, where it stands, is the auditor's own "
    "copy of the plan. `expected`: plan hash, head of the log before its artefacts, "
    "model hash and heads of ledgers; `contexts`, rows of round, attempt and `ctx` of "
    "every attempt in the log; `epsilon` by member, over its whole ledger."
)

Json = dict[str, Any]
Splice = list[Any]


def text_or_bytes(data: bytes) -> Json:
    try:
        return {"text": data.decode("utf-8")}
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode("ascii")}


def bytes_of(written: Json) -> bytes:
    if "text" in written:
        return str(written["text"]).encode()
    return base64.b64decode(written["base64"], validate=True)


# -- patches ---------------------------------------------------------------------------

_APART = 8  # equal bytes between two splices; fewer are not worth a new one


def splices(name: str, old: bytes, new: bytes) -> list[Splice]:
    """What turns a file into another: [offset, bytes taken out, hexadecimal]."""
    out: list[Splice] = []
    at = 0
    differences = _by_lines if name in (PLAN, REPORT) else _by_entries
    for start, stop, inside in differences(old, new):
        if out and start - at < _APART:
            last = out[-1]
            last[2] += (old[at:start] + inside).hex()
            last[1] = stop - last[0]
        else:
            out.append([start, stop - start, inside.hex()])
        at = stop
    return out


def _by_lines(old: bytes, new: bytes) -> Iterator[tuple[int, int, bytes]]:
    before, after = old.splitlines(keepends=True), new.splitlines(keepends=True)
    ends = [0, *accumulate(map(len, before))]
    match = SequenceMatcher(None, before, after, autojunk=False)
    for kind, i, j, k, m in match.get_opcodes():
        if kind != "equal":
            yield ends[i], ends[j], b"".join(after[k:m])


def _by_entries(old: bytes, new: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Byte by byte where both have an entry of one length; else the entry as a whole.

    A log that is chained again has other hashes at the same places.
    """
    before, after = _pieces(old), _pieces(new)
    sizes, new_sizes = [len(piece) for piece in before], [len(p) for p in after]
    at = 0
    match = SequenceMatcher(None, sizes, new_sizes, autojunk=False)
    for kind, i, j, k, m in match.get_opcodes():
        one, other = b"".join(before[i:j]), b"".join(after[k:m])
        if kind == "equal":
            for n in range(len(one)):
                if one[n] != other[n]:
                    yield at + n, at + n + 1, other[n : n + 1]
        else:
            yield at, at + len(one), other
        at += len(one)


def _pieces(data: bytes) -> list[bytes]:
    """``data`` cut before all that looks like an entry: a map of four from key 0."""
    out: list[bytes] = []
    at = 0
    while True:
        following = data.find(b"\xa4\x00", at + 1)
        if following < 0:
            return [*out, data[at:]]
        out.append(data[at:following])
        at = following


def patched(data: bytes, edits: list[Splice]) -> bytes:
    """The file with its splices put in, from the end."""
    for offset, size, inside in reversed(edits):
        data = data[:offset] + bytes.fromhex(inside) + data[offset + size :]
    return data


def patch(good: Files, bad: Files) -> Json:
    """The splices of every file that differs; null where one is gone."""
    edits: Json = {}
    for name, data in good.items():
        if name not in bad:
            edits[name] = None
        elif bad[name] != data:
            edits[name] = splices(name, data, bad[name])
            assert patched(data, edits[name]) == bad[name]
    assert not bad.keys() - good.keys()
    return edits


# -- files -----------------------------------------------------------------------------


def case_of(made: Made, case: Case) -> Json:
    out: Json = {
        "name": case.name,
        "check": case.check,
        "file": case.file,
        "edits": patch(made.files, case.forge(made)),
    }
    if case.copy:
        out["copy"] = case.copy.decode()
    return out


def expected(made: Made) -> Json:
    """What follows from the good folder; a second implementation gets the same."""
    report = json.loads(made.files[REPORT])
    ends = [e for e in made.transcript.entries if e.kind in ("failure", "round")]
    model = made.transcript.of_kind("start")[0].bytes_(6)
    contexts = []
    for end in ends:
        session = made.plan.session(
            round_index=end.integer(0),
            attempt=end.integer(1),
            model_hash=model,
            size=SIZE,
        )
        contexts.append([end.integer(0), end.integer(1), session.ctx.hex()])
        if end.kind == "round":
            model = end.bytes_(8)
    return {
        "plan_hash": made.plan.hash.hex(),
        "transcript_head": report["transcript_head"],
        "model_hash": model.hex(),
        "ledger_heads": {name: row["head"] for name, row in report["ledgers"].items()},
        "contexts": contexts,
        "epsilon": {
            name: row["epsilon"] for name, row in report["claims"][0]["clients"].items()
        },
    }


def published(run: str) -> bytes | None:
    """The report of a run as it stands in the folder, if it does."""
    path = FOLDER / f"{run}.json"
    if not path.is_file():
        return None
    return bytes_of(json.loads(path.read_text(encoding="utf-8"))["files"][REPORT])


def render(run: str) -> str:
    """The text of one file."""
    made = play(run, kept=published(run))
    cases = [
        *report_cases.cases(made),
        *report_ledger_cases.cases(),
        *report_message_cases.cases(),
        *report_sum_cases.cases(),
        *report_distributed_cases.cases(made),
        *report_step_cases.cases(),
    ]
    content: Json = {
        "spec": SPEC,
        "run": run,
        "about": KINDS[run].about,
        "description": DESCRIPTION,
        "expected": expected(made),
        "files": {name: text_or_bytes(made.files[name]) for name in sorted(made.files)},
        "cases": [],
    }
    rows = [case_of(made, case) for case in cases if case.run == run]
    lines = [json.dumps(row, ensure_ascii=False, separators=(",", ":")) for row in rows]
    # A case a line: hundreds of short splices would not be read anyway.
    inside = "".join(f"\n  {line}," for line in lines).removesuffix(",")
    empty = json.dumps(content, indent=1, ensure_ascii=False)
    return empty.removesuffix("[]\n}") + f"[{inside}\n ]\n}}\n"


def main() -> None:
    FOLDER.mkdir(parents=True, exist_ok=True)
    for run in KINDS:
        (FOLDER / f"{run}.json").write_text(render(run), encoding="utf-8")
    text = report_primitives.render()
    (FOLDER / report_primitives.NAME).write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
