# SPDX-License-Identifier: Apache-2.0
"""The second verifier: checks a run's folder offline, by SPEC.md and FIELDS.md alone.

    python protocols/report/verify.py DIR [--plan FILE] [--json]

It shares no code with the package that made the folder, and was written from the
specifications in `protocols/` by somebody who had not read it.  It needs the standard
library, `cryptography`, and `dp-accounting` with its `numpy`.  Exit codes: 0 verified,
1 refused, 2 the call is wrong.
"""

import argparse
import contextlib
import hashlib
import io
import json
import math
import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))  # when loaded by its path

import plan as plans
import sums
import transcript
from attempts import Outcome, check_attempts
from canonical import Malformed, Refused, digest, parts, refuse, sized
from context import Session, session
from costs import counted, spent
from figures import Contradiction, epsilon
from files import (
    METRICS,
    MODEL,
    PAGES,
    REPORT,
    START,
    Tensor,
    model_hash,
    model_size,
    read_file,
    read_json,
    read_model,
)
from ledgers import Ledger, Matcher, file_of, read_ledger
from moving import Moving
from packing import packing
from plan import Plan
from report import check_report
from transcript import Entry, Log

FOLDERS = ("ledgers", "vectors")
SLACK = 1 + 1e-9
FILES = (plans.FILE, transcript.FILE, MODEL, REPORT, *PAGES, METRICS)


@dataclass
class Verdict:
    """What holds, what the files cannot show, and each member's epsilon.

    `compare` has what to compare with the members over another channel.
    """

    compare: dict[str, str] = field(default_factory=dict)
    checks: list[str] = field(default_factory=list)
    not_checked: list[str] = field(default_factory=list)
    epsilon: dict[str, float] = field(default_factory=dict)


def verify(folder: Path, copy: bytes | None = None) -> Verdict:
    """Checks the folder, in the order of SPEC.md, section 12.

    `copy` is the auditor's own plan.  Raises `Refused` at the first check that fails,
    whatever the bytes are.
    """
    verdict = Verdict()
    files = {name: read_file(folder, name, "V-FILE-1") for name in FILES}
    run_id, entries = transcript.read_entries(files[transcript.FILE])
    start = transcript.check_start(entries)
    plan = _check_plan(files[plans.FILE], start, run_id)
    own, unknown = _check_copy(plan, copy)
    log = transcript.read_log(run_id, entries, plan)
    _say_log(verdict, entries, plan)
    verdict.checks += own
    for name in plan.names:
        files[file_of(name)] = read_file(folder, file_of(name), "V-FILE-2")
    kept = _kept_files(log, plan)
    _check_files(folder, files, kept, log.artefacts)
    verdict.checks.append(f"files: all {len(files)} are those that were signed")
    tensors = _check_model(files[MODEL], log, plan)
    now = session(plan, model_size(tensors))
    outcomes = check_attempts(log, now)
    _say_rounds(verdict, log, plan)
    ledgers = _check_ledgers(verdict, files, outcomes, log, now)
    _check_budgets(verdict, ledgers, plan)
    try:
        if not isinstance(read_json(files[METRICS]), dict):
            refuse("V-FILE-5", METRICS, "it is no object")
    except Malformed as problem:
        refuse("V-FILE-5", METRICS, str(problem))
    check_report(files[REPORT], log, log.artefacts.before, now, ledgers)
    verdict.checks.append("report: every field follows from plan, log and ledgers")
    _check_sums(verdict, files, outcomes, log, now)
    verdict.not_checked += unknown
    _say_not_checked(verdict, log, plan, _others(folder, files))
    verdict.compare = _comparable(log, plan)
    return verdict


def _check_plan(raw: bytes, start: Entry, run_id: bytes) -> Plan:
    if plans.hash_of(raw) != start.body[0]:
        refuse("V-PLAN-1", plans.FILE, "it is not the plan that the run was started on")
    plan = plans.read_plan(raw)
    if plan.kind == "ckks":
        # Of a local plan's vector no more is known here than that it has a word.
        packing(plan, 1 if plan.grid is None else plan.grid.words)
    try:
        planned = counted({plan.release: plan.rounds + plan.spare})
        spends = epsilon(planned, plan.delta)
    except Contradiction as problem:
        refuse("V-PLAN-4", plans.FILE, str(problem))
    if spends > plan.epsilon:
        refuse("V-PLAN-4", plans.FILE, f"its noise spends {spends}, over its epsilon")
    if run_id != plan.run_id:
        refuse("V-LOG-4", transcript.FILE, "it is of another run than the plan")
    return plan


def _check_copy(plan: Plan, copy: bytes | None) -> tuple[list[str], list[str]]:
    """What the auditor's own copy shows, and what it leaves open (SPEC.md, 3.7)."""
    if copy is None:
        return [], ["that this is the plan its members know: no copy"]
    if copy == plan.raw:
        return ["plan: it is the auditor's own copy"], []
    try:
        left = plans.keys_left_open(plan, copy)
    except Malformed as problem:
        refuse("V-PLAN-6", "the auditor's copy", str(problem))
    if left is None:
        refuse("V-PLAN-6", plans.FILE, "it is not the plan of the auditor's copy")
    own = ["plan: its settings are those of the auditor's own copy"]
    parties = len(plan.members) + (1 if plan.keyholder is None else 2)
    if len(left) == parties:
        return own, ["that the keys in it are the members': the copy names none"]
    if left:
        names = ", ".join(left)[:500]
        return own, [f"that these keys in it, which the copy lacks, are right: {names}"]
    return own, []


def _kept_files(log: Log, plan: Plan) -> list[str]:
    """The files of kept vectors (SPEC.md, section 9)."""
    if not plan.keep_vectors:
        return []
    return [START, *(sums.file_of(each.round, each.number) for each in log.rounds)]


def _check_files(
    folder: Path, files: dict[str, bytes], kept: list[str], artefacts: Entry
) -> None:
    """The artefacts are the files, each with its hash (SPEC.md, section 7)."""
    expected = {*files, *kept} - {transcript.FILE}
    rows: dict[str, bytes] = {}
    for row in artefacts.body[0]:
        try:
            name, hashed = parts(row, str, bytes)
            rows.setdefault(name, sized(hashed))
        except Malformed as problem:
            refuse("V-FILE-3", transcript.FILE, f"artefacts: {problem}")
    if rows.keys() != expected or len(rows) != len(artefacts.body[0]):
        name = min(rows.keys() ^ expected, default="a row")
        refuse("V-FILE-3", transcript.FILE, f"artefacts: {name!r} is not as in a run")
    for name in kept:
        files[name] = read_file(folder, name, "V-FILE-4")
    for name in sorted(expected):
        if hashlib.sha256(files[name]).digest() != rows[name]:
            refuse("V-FILE-4", name, "it is not the file that was signed")


def _check_model(raw: bytes, log: Log, plan: Plan) -> list[Tensor]:
    try:
        tensors = read_model(raw)
    except Malformed as problem:
        refuse("V-MODEL-1", MODEL, str(problem))
    last = log.rounds[-1].end
    if last is None or model_hash(tensors) != last.body[8]:
        refuse("V-MODEL-2", MODEL, "it is not the model that the last round left")
    if plan.values not in (None, model_size(tensors)):
        refuse("V-MODEL-2", MODEL, "it has not the plan's number of values")
    return tensors


def _check_ledgers(
    verdict: Verdict,
    files: dict[str, bytes],
    outcomes: list[Outcome],
    log: Log,
    now: Session,
) -> list[Ledger]:
    plan = now.plan
    found = [read_ledger(files[file_of(m.name)], m) for m in plan.members]
    models: dict[int, bytes] = {}
    for (round_, _), model in transcript.model_before(log).items():
        models[round_] = model

    def context(round_: int, attempt: int) -> bytes:
        return now.context(round_, attempt, models[round_])

    matcher = Matcher(plan, outcomes, context)
    for ledger in found:
        matcher.check(ledger)
    verdict.checks.append(
        f"ledgers: {len(found)} signed chains; every vector that arrived stands under "
        "a reservation, and every release has its place in the log"
    )
    if matcher.unlogged:
        verdict.not_checked.append(
            "what became of charged releases whose last message never arrived: "
            + ", ".join(sorted(matcher.unlogged))
        )
    return found


def _check_budgets(verdict: Verdict, ledgers: list[Ledger], plan: Plan) -> None:
    for ledger in ledgers:
        events = [release.event.seen(plan.view) for release in ledger.charged()]
        file = file_of(ledger.client)
        try:
            spends = epsilon(spent(events), plan.delta)
        except Contradiction as problem:
            refuse("V-BUDGET-1", file, str(problem))
        stated = not all(event.private for event in events)
        if spends > plan.epsilon * SLACK and not stated:
            refuse("V-BUDGET-1", file, f"its releases spend {spends}, over the plan's")
        verdict.epsilon[ledger.client] = spends
        if plan.view is None:
            where = ", whoever else colludes"
        else:
            where = f", with at most {plan.view} colluding"
        verdict.checks.append(
            f"epsilon of {ledger.client}: {spends:.6g} at delta {plan.delta:g}{where}"
        )


def _check_sums(
    verdict: Verdict,
    files: dict[str, bytes],
    outcomes: list[Outcome],
    log: Log,
    now: Session,
) -> None:
    """Every opened sum, where vectors are kept (SPEC.md, section 9)."""
    opened = [outcome for outcome in outcomes if outcome.opened]
    if not now.plan.keep_vectors:
        verdict.not_checked.append("that the opened sums follow from vectors: not kept")
        return
    start = sums.check_start(files[START], log, now)
    if not sums.feasible(now, opened):
        verdict.not_checked.append("that the opened sums follow from vectors: too long")
        return
    moving = Moving(now.plan, start)
    for outcome in opened:
        file = sums.file_of(outcome.round, outcome.number)
        sums.check_sum(files[file], outcome, now, moving)
    verdict.checks.append(f"sums: {len(opened)} opened again, from vectors to model")


def _say_log(verdict: Verdict, entries: list[Entry], plan: Plan) -> None:
    verdict.checks += [
        f"transcript: {len(entries)} entries in one chain, every signature holds",
        f"plan: {plan.hash.hex()}, endorsed by all {len(plan.members)} members",
    ]


def _say_rounds(verdict: Verdict, log: Log, plan: Plan) -> None:
    failed = len(log.attempts) - len(log.rounds)
    verdict.checks.append(
        f"rounds: {len(log.rounds)} of {plan.rounds} opened, {failed} attempts failed; "
        "in each, what clients sent is signed, and one set of them agreed on"
    )
    attempts = Counter(attempt.round for attempt in log.attempts)
    many = [
        str(i) for i, times in sorted(attempts.items()) if times > plan.max_attempts
    ]
    if many:
        verdict.not_checked.append(
            f"why these rounds have more attempts than the plan's {plan.max_attempts}: "
            + ", ".join(many)[:200]
        )


def _comparable(log: Log, plan: Plan) -> dict[str, str]:
    """What stands in the report, which was checked, and in the members' own copies."""
    head, last = log.artefacts.before, log.rounds[-1].end
    assert last is not None
    return {
        "plan_hash": plan.hash.hex(),
        "run_id": plan.run_id.hex(),
        "report_id": digest("secure-fl/report/2 id", head).hex(),
        "model_hash": last.body[8].hex(),
        "transcript_head": head.hex(),
    }


def _others(folder: Path, files: dict[str, bytes]) -> list[str]:
    known = set(files)
    found: list[str] = []
    for within in (folder, *(folder / name for name in FOLDERS)):
        with contextlib.suppress(OSError):
            found += [each.relative_to(folder).as_posix() for each in within.iterdir()]
    return sorted(set(found) - known - set(FOLDERS))


def _say_not_checked(verdict: Verdict, log: Log, plan: Plan, others: list[str]) -> None:
    verdict.not_checked += [
        "that each client ran the code it said, sampled as planned, and drew its noise",
        "that a ledger is its client's whole history",
        "that the start is the model which the plan describes",
        "what was sealed: the clients' boxes are not opened",
        "what the pages show: draw them anew from report.json",
        "the figures in metrics.json, and the times in ledgers",
    ]
    if log.start.body[4]:
        verdict.not_checked.append("that parties were apart: this was a simulation")
    if plan.grid is not None:
        verdict.not_checked.append(
            "that clients added their shares of the noise: one that did not counts "
            "among the colluding"
        )
    if plan.keyholder is not None:
        verdict.not_checked.append("that key holder and aggregator kept apart")
    if log.start.body[5]:
        verdict.not_checked.append("that anything was secret: randomness was seeded")
    verdict.not_checked += [f"{name!r}: no file of the run" for name in others]


def main(arguments: list[str] | None = None) -> int:
    """The command line: 0 where all holds, 1 where something is refused."""
    parser = argparse.ArgumentParser(description="Check a run's folder, offline.")
    parser.add_argument("folder", metavar="DIR", type=Path)
    parser.add_argument("--plan", type=Path, help="the auditor's own copy of the plan")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args(arguments)
    # Names in refusals and folders may be of letters that this terminal lacks.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")
    if not any((options.folder / name).exists() for name in FILES):
        parser.error(f"{options.folder} holds no run")
    copy = None
    if options.plan is not None:
        try:
            copy = options.plan.read_bytes()
        except OSError as problem:
            parser.error(f"{options.plan} cannot be read: {problem.strerror}")
    try:
        verdict = verify(options.folder, copy)
    except Refused as refusal:
        _print_refusal(refusal, options.json)
        return 1
    _print_verdict(verdict, options.json)
    return 0


def _print_refusal(refusal: Refused, as_json: bool) -> None:
    if not as_json:
        print(_safe(f"REFUSED {refusal.file}: {refusal.what} [{refusal.check}]"))
        return
    found = {"file": refusal.file, "check": refusal.check, "problem": refusal.what}
    _print_json({"verified": False, **found})


def _print_verdict(verdict: Verdict, as_json: bool) -> None:
    if as_json:
        epsilon = {
            name: value if math.isfinite(value) else "infinity"
            for name, value in verdict.epsilon.items()
        }
        _print_json(
            {
                "verified": True,
                **verdict.compare,
                "checks": verdict.checks,
                "not_checked": verdict.not_checked,
                "epsilon": epsilon,
            }
        )
        return
    for line in verdict.checks:
        print(_safe(f"ok           {line}"))
    for line in verdict.not_checked:
        print(_safe(f"not checked  {line}"))
    for name, value in verdict.compare.items():
        print(f"compare      {name.replace('_', ' ')}  {value}")
    print("VERIFIED")


def _print_json(found: dict[str, Any]) -> None:
    print(json.dumps(found, indent=2))


def _safe(line: str) -> str:
    """As it is, unless it would move the cursor, or begin another line."""
    return line if line.isprintable() else ascii(line)


if __name__ == "__main__":
    sys.exit(main())
