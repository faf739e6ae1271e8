# SPDX-License-Identifier: Apache-2.0
"""Check a finished run offline, with nothing but its folder.

The order of the checks is part of the contract: the first problem is reported with the
file that is at fault.  The transcript comes first (its chain needs nothing else), then
the plan (its hash is in the transcript's start), then every signature, then every
other file against the hashes that all survivors signed, and last what each file says.
"""

from __future__ import annotations

import hashlib
import importlib.util
import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

from .. import ckks, wire
from ..errors import UsageError, VerificationError
from ..model import GlobalModel
from ..plan import SCHEMA as PLAN_SCHEMA
from ..plan import Plan
from ..privacy import (
    LedgerExport,
    NonPrivate,
    epsilon,
    read_export,
    seen,
)
from ..transcript import Transcript
from .attempts import Attempt
from .build import INFINITY, build_report, to_json
from .evidence import Log, check_attempts, read_log
from .findings import finding
from .folder import (
    FILES,
    METRICS,
    MODEL,
    PLAN,
    REPORT,
    TRANSCRIPT,
    blaming,
    check_is_run,
    listed,
    read,
)
from .ledgers import check_ledgers, ledger_file
from .own_copy import Compared, compare, read_copy
from .replay import check_sums, kept_files

__all__ = ["Verified", "verify_run"]

# Two machines agree to more digits; a lie this small would help nobody.
TOLERANCE: Final = 1e-4
# These are read off the far tail of a curve, where machines agree less.
LOOSE: Final = (
    "mu_gdp",
    "tpr_at_fpr",
    "trade_off",
    "posterior",
    "advantage",
    "group",
    "profile",
)
LOOSE_TOLERANCE: Final = 1e-2


@final
@dataclass(frozen=True, slots=True)
class Verified:
    """What held.  There is no result for what did not: that raises.

    plan_hash, run_id, report_id, model_hash, transcript_head
        hexadecimal, to compare with a member's own copies over another channel; the
        head is that of the log which the report is built from
    epsilon
        per client, recomputed from its ledger over all its releases; may be infinite
    checks
        one line for each thing that was checked
    not_checked
        one line for each thing that these files cannot show
    """

    plan_hash: str
    run_id: str
    report_id: str
    model_hash: str
    transcript_head: str
    epsilon: Mapping[str, float]
    checks: tuple[str, ...]
    not_checked: tuple[str, ...]


def verify_run(folder: str | Path, *, plan_path: str | Path | None = None) -> Verified:
    """Check all that a run's ``folder`` claims; with ``plan_path``, against that copy.

    The copy may be the completed plan, byte for byte, or the draft that the run was
    started from: that names no keys, and so does not show whose they are.

    Raises VerificationError, with ``file`` the file at fault, whatever the files hold;
    UsageError where ``folder`` is none, or holds nothing of a run, where ``plan_path``
    is no file, and where dp-accounting is not installed.
    """
    if importlib.util.find_spec("dp_accounting") is None:
        raise UsageError(
            "dp-accounting is not installed",
            hint='install it with: pip install "secure-fl[report]"',
        )
    folder = Path(folder)
    path = Path(plan_path) if plan_path is not None else None
    copy = read_copy(path) if path is not None else None
    check_is_run(folder)
    files = {name: read(folder, name) for name in FILES}
    with blaming(TRANSCRIPT):
        transcript = Transcript.from_bytes(files[TRANSCRIPT])
    plan = _plan(files[PLAN], transcript)
    compared = compare(files[PLAN], copy, path)
    with blaming(TRANSCRIPT):
        log = read_log(plan, transcript)
    for name in plan.names:
        files[ledger_file(name)] = read(folder, ledger_file(name))
    signed = _artefacts(plan, log)
    for name in signed:
        _check_signed(
            signed, name, files[name] if name in files else read(folder, name)
        )
    return _contents(folder, plan, log, files, signed, compared)


def _contents(
    folder: Path,
    plan: Plan,
    log: Log,
    files: Mapping[str, bytes],
    signed: Mapping[str, bytes],
    compared: Compared,
) -> Verified:
    """What the files say, now that nobody changed them since they were signed."""
    with blaming(MODEL):
        model = GlobalModel.from_bytes(files[MODEL])
        if model.digest() != log.rounds[-1].bytes_(8):
            raise VerificationError("is not the model that the last round left")
        if plan.distributed and model.size != plan.values:
            raise VerificationError(f"has {model.size} values, not the plan's number")
    with blaming(TRANSCRIPT):
        attempts = check_attempts(plan, log, size=model.size)
    exports: dict[str, LedgerExport] = {}
    for member in plan.roster.members:
        name = member.name
        with blaming(ledger_file(name)):
            exports[name] = read_export(
                files[ledger_file(name)], public_key=member.public_key, client=name
            )
    unlogged = check_ledgers(plan, attempts, exports)
    spent = {name: _spent(plan, name, exports[name]) for name in plan.names}
    with blaming(METRICS):
        if not isinstance(_json(files[METRICS]), dict):
            raise VerificationError("is not a JSON object")
    with blaming(REPORT):
        report = _json(files[REPORT])
        _compare_report(plan, log, exports, model.size, report)
    sums, notes = _sums(folder, plan, log, attempts, signed)
    flags = [key for key in ("simulation", "insecure") if report[key]]
    flags += ["keyholder"] if plan.has_keyholder else []
    flags += ["shares"] if plan.distributed else []
    notes += [finding(f"unchecked.{key}") for key in flags]
    notes += [*unlogged, *_many_attempts(plan, log)]
    notes = [*compared.not_checked, *_always(), *notes]
    return Verified(
        plan.hash.hex(),
        report["plan"]["run_id"],
        report["report_id"],
        report["subject"]["model_hash"],
        report["transcript_head"],
        spent,
        (*_checks(plan, log, sums), *compared.checks, *_figures(plan, spent)),
        (*notes, *_others(folder, {*files, *signed})),
    )


def _sums(
    folder: Path,
    plan: Plan,
    log: Log,
    attempts: Sequence[Attempt],
    signed: Mapping[str, bytes],
) -> tuple[list[str], list[str]]:
    """Lines on the opened sums: what was checked, and what could not be."""
    if not plan.protection.keep_vectors:
        return [], [finding("unchecked.sum")]
    notes = [finding("unchecked.kept")]
    failed = len(log.attempts) - len(log.rounds)
    if failed:
        notes.append(finding("unchecked.failed", {"attempts": str(failed)}))
    try:
        if plan.protection.kind == "ckks":
            ckks.require_backend()
    except UsageError as error:
        return [], [finding("unchecked.backend", {"reason": error.message}), *notes]

    def kept(name: str) -> bytes:
        data = read(folder, name)
        _check_signed(signed, name, data)
        return data

    vectors = check_sums(plan, log, attempts, kept)
    sums, most = str(len(log.rounds)), str(vectors)
    return [finding("check.sums", {"sums": sums, "vectors": most})], notes


# -- plan ----------------------------------------------------------------------------


def _plan(source: bytes, transcript: Transcript) -> Plan:
    with blaming(TRANSCRIPT):
        if not transcript.entries or transcript.entries[0].kind != "start":
            raise VerificationError("does not begin with a start")
        start = transcript.entries[0]
    with blaming(PLAN):
        # Before it is parsed: a changed byte is named as such, not as what it broke.
        if wire.digest(PLAN_SCHEMA, source) != start.bytes_(0):
            raise VerificationError(
                "is not the plan that this run's transcript starts with",
                hint="every member signed the original: ask one for its copy",
            )
        plan = Plan(source)
        if not plan.complete:
            raise VerificationError("lacks keys or a run id")
        # Keys are parsed where they are asked for: here a bad one is the plan's fault.
        _ = plan.roster, plan.aggregator_key
        if plan.has_keyholder:
            _ = plan.keyholder_key
        if plan.distributed:
            _ = plan.grid
    with blaming(TRANSCRIPT):
        if transcript.run_id != plan.run_id:
            raise VerificationError("is of another run than the plan")
    return plan


# -- artefacts -----------------------------------------------------------------------


def _artefacts(plan: Plan, log: Log) -> dict[str, bytes]:
    """The hash that was signed of each file; they are exactly the files of a run."""
    rows: dict[str, bytes] = {}
    ledgers = [ledger_file(name) for name in plan.names]
    wanted = {*FILES, *ledgers, *kept_files(plan, log)} - {TRANSCRIPT}
    with blaming(TRANSCRIPT):
        for row in log.artefacts.rows(0):
            match row:
                case [str(name), bytes(digest)] if (
                    name not in rows and len(digest) == wire.HASH_BYTES
                ):
                    rows[name] = digest
                case _:
                    raise VerificationError("a row of the artefacts is malformed")
        if set(rows) != wanted:
            wrong = ", ".join(sorted(set(rows) ^ wanted))
            raise VerificationError(
                f"its artefacts are not the files of a run: {wrong[:200]}"
            )
    return rows


def _check_signed(signed: Mapping[str, bytes], name: str, data: bytes) -> None:
    if hashlib.sha256(data).digest() != signed[name]:
        raise VerificationError(
            "was changed after the run: its hash is not the one that the aggregator "
            "and the last round's clients signed",
            file=name,
            hint="ask a member for its copy of the folder",
        )


# -- what the files say ----------------------------------------------------------------


def _spent(plan: Plan, name: str, export: LedgerExport) -> float:
    """Epsilon of all charged releases in the plan's view, within the plan's.

    Infinite where one was made without privacy: that is stated, not refused.
    """
    with blaming(ledger_file(name)):
        charged = [seen(event, plan.view) for event in export.charged()]
        spent = epsilon(charged, delta=plan.privacy.delta).value
        stated = any(isinstance(event, NonPrivate) for event in charged)
        if not stated and spent > plan.privacy.epsilon * (1 + 1e-9):
            raise VerificationError(
                f"its releases spend epsilon {spent:.6g}, above the plan's limit of "
                f"{plan.privacy.epsilon:g}"
            )
    return spent


def _json(data: bytes) -> Any:
    def pairs(items: list[tuple[str, Any]]) -> dict[str, Any]:
        if len({key for key, _ in items}) != len(items):
            raise VerificationError("holds a key twice")
        return dict(items)

    def constant(name: str) -> Any:
        raise VerificationError(f"holds {name}, which is not JSON")

    def real(text: str) -> float:
        if math.isinf(float(text)):
            raise VerificationError("holds a number that is too large")
        return float(text)

    return json.loads(
        data.decode(),
        object_pairs_hook=pairs,
        parse_constant=constant,
        parse_float=real,
    )


def _compare_report(
    plan: Plan, log: Log, exports: Mapping[str, LedgerExport], size: int, found: Any
) -> None:
    built = build_report(
        plan=plan,
        transcript=log.transcript.before(log.artefacts),
        exports=exports,
        size=size,
    )
    where = first_difference(_json(to_json(built)), found)
    if where is not None:
        raise VerificationError(
            f"{where} is not what plan, transcript and ledgers give",
            hint="do not rely on this report; ledgers and transcript still hold",
        )


def first_difference(
    expected: Any, found: Any, path: str = "", *, loose: bool = False
) -> str | None:
    """Path of the first field in which two JSON values differ, or None."""
    if type(expected) is not type(found):
        return path or "the report"
    if isinstance(expected, dict):
        for key in [*expected, *found]:
            inner = f"{path}.{key}" if path else str(key)
            if key not in expected or key not in found:
                return inner
            # Of figures only: a client may have any of these names.
            far = loose or (key in LOOSE and "mu_gdp" in expected)
            where = first_difference(expected[key], found[key], inner, loose=far)
            if where is not None:
                return where
        return None
    if isinstance(expected, list):
        for i, (one, other) in enumerate(zip(expected, found, strict=False)):
            where = first_difference(one, other, f"{path}[{i}]", loose=loose)
            if where is not None:
                return where
        return None if len(expected) == len(found) else f"{path}[{len(expected)}]"
    if isinstance(expected, float):
        tolerance = LOOSE_TOLERANCE if loose else TOLERANCE
        return None if math.isclose(expected, found, rel_tol=tolerance) else path
    return None if expected == found else path


# -- what to tell ----------------------------------------------------------------------


def _checks(plan: Plan, log: Log, sums: list[str]) -> list[str]:
    members = str(len(plan.names))
    finished = str(len(log.rounds))
    return [
        finding("check.transcript", {"entries": str(len(log.transcript.entries))}),
        finding("check.plan", {"members": members}),
        finding(
            _rounds_line(plan),
            {"rounds": str(finished), "planned": str(plan.rounds.count)},
        ),
        finding("check.files"),
        *sums,
        finding("check.ledgers", {"members": members}),
        finding("check.report"),
    ]


def _figures(plan: Plan, spent: Mapping[str, float]) -> list[str]:
    lines = []
    for name, value in spent.items():
        number = INFINITY if math.isinf(value) else f"{value:.6g}"
        key = "check.infinite" if math.isinf(value) else "check.epsilon"
        if plan.distributed and key == "check.epsilon":
            key = "check.epsilon.sum"
        lines.append(
            finding(
                key,
                {
                    "client": name,
                    "epsilon": number,
                    "delta": f"{plan.privacy.delta:g}",
                    "limit": f"{plan.privacy.epsilon:g}",
                    "budgeted": str(plan.rounds.count + plan.rounds.spare),
                    "spare": str(plan.rounds.spare),
                },
            )
        )
    return lines


def _many_attempts(plan: Plan, log: Log) -> list[str]:
    """A line where rounds have more attempts than the plan allows a process."""
    most = plan.rounds.max_attempts
    attempts = Counter(a.round_index for a in log.attempts)
    rounds = [str(i) for i, times in sorted(attempts.items()) if times > most]
    if not rounds:
        return []
    values = {"rounds": ", ".join(rounds)[:200], "most": str(most)}
    return [finding("unchecked.attempts", values)]


def _rounds_line(plan: Plan) -> str:
    if plan.protection.kind == "plain":
        return "check.rounds.plain"
    return "check.rounds.keyholder" if plan.has_keyholder else "check.rounds"


def _always() -> list[str]:
    keys = ("code", "ledgers", "start", "pages", "metrics", "times")
    return [finding(f"unchecked.{key}") for key in keys]


def _others(folder: Path, files: set[str]) -> list[str]:
    known = {*files, *(name.partition("/")[0] for name in files)}
    extra = [p for p in listed(folder) if p not in known]
    if not extra:
        return []
    return [finding("unchecked.extra", {"names": ", ".join(extra)[:500]})]
