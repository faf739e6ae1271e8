# SPDX-License-Identifier: Apache-2.0
"""The report as data: a pure function of plan, transcript, ledgers and model size.

Nothing in it comes from anywhere else (no clock, no version of a library, no trained
value), so that an auditor who holds them can rebuild it and compare every field.
The fields are those of protocols/report/report.schema.json; FIELDS.md beside it says
where each comes from.  Sentences are ids of ``strings.py``.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from .. import wire
from ..errors import UsageError
from ..plan import SCHEMA as PLAN_SCHEMA
from ..plan import Plan
from ..privacy import DiscreteGaussian, LedgerExport, Skellam, self_check
from ..transcript import Transcript
from . import fields, history
from .figures import INFINITY, claim, rounded
from .tool import read_tool
from .views import View, views

__all__ = ["INFINITY", "SCHEMA", "Report", "build_report", "to_json"]

SCHEMA: Final = "secure-fl/report/2"
# The grid on which epsilon is computed by default; part of the report's meaning.
INTERVAL: Final = 1e-4
# Known answers of runs with sums alone: reports from before there were any have none.
_OF_SUMS: Final = ("skellam-rdp", "skellam-pld")


@final
@dataclass(frozen=True, slots=True)
class Report:
    """A built report.  ``data`` is what :func:`build_report` returned."""

    data: Mapping[str, Any]

    @property
    def claims(self) -> Sequence[Mapping[str, Any]]:
        """Each with unit, adjacency, view, delta, and figures per client."""
        claims: Sequence[Mapping[str, Any]] = self.data["claims"]
        return claims


def to_json(report: Mapping[str, Any]) -> bytes:
    """The one byte form of JSON in a run's folder: UTF-8, indented, one newline."""
    return (
        json.dumps(report, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
    ).encode()


def build_report(
    *,
    plan: Plan,
    transcript: Transcript,
    exports: Mapping[str, LedgerExport],
    size: int,
) -> dict[str, Any]:
    """Everything the report says, JSON-serialisable, ``schema_version`` first.

    ``transcript`` ends before the artefacts entry, which holds the report's own hash;
    ``exports`` has one entry per member, read from its signed file; ``size`` is the
    number of values of the model, at least 1.  Takes about half a second per round
    where clients sample.  Raises UsageError where an export or the transcript's start
    is missing, and what :func:`secure_fl.privacy.epsilon` and
    :func:`secure_fl.privacy.self_check` raise.
    """
    missing = [name for name in plan.names if name not in exports]
    if missing or not transcript.entries or transcript.entries[0].kind != "start":
        what = "the start of the transcript" if not missing else ", ".join(missing)
        raise UsageError(
            f"a report cannot be built without {what}",
            hint="it needs the whole transcript and every member's ledger export",
        )
    start = transcript.entries[0]
    run_id = transcript.run_id
    members = {name: exports[name] for name in plan.names}
    insecure = start.integer(5) == 1
    ledgers_live_on = start.integer(7) == 1

    def relies_on(*of: View) -> list[dict[str, str]]:
        return fields.assumptions(
            plan, of, insecure=insecure, ledgers_live_on=ledgers_live_on
        )

    claimed = views(plan)
    rounds = history.rounds(plan, transcript)
    finished = [row["round"] for row in rounds]
    return {
        "schema_version": SCHEMA,
        "report_id": wire.digest(f"{SCHEMA} id", transcript.head).hex(),
        "tool": read_tool(start.text(3)),
        "dates": history.dates(members, run_id),
        "simulation": start.integer(4) == 1,
        "insecure": insecure,
        "plan": {
            "name": plan.name,
            "hash": plan.hash.hex(),
            "run_id": run_id.hex(),
            "schema": PLAN_SCHEMA,
            "rounds": plan.rounds.count,
            "spare": plan.rounds.spare,
            "max_attempts": plan.rounds.max_attempts,
        },
        "subject": {
            "kind": plan.model.kind,
            "values": size,
            "start_hash": start.bytes_(6).hex(),
            "model_hash": rounds[-1]["model_hash"] if rounds else start.bytes_(6).hex(),
            "frozen_state": None,
        },
        "parties": fields.parties(plan, start),
        "threat_model": fields.threat_model(plan, size, relies_on=relies_on(*claimed)),
        "privacy_unit": fields.privacy_unit(plan),
        "adjacency": plan.privacy.adjacency,
        "overlap": plan.privacy.overlap,
        "mechanism": fields.mechanism(plan),
        "sampling": {
            "scheme": "poisson",
            "rate": rounded(plan.privacy.sampling_rate),
            "evidence": "plan-constant",
            "amplification": plan.privacy.sampling_rate < 1,
        },
        "numerics": fields.numerics(plan),
        "randomness": fields.randomness(plan, insecure=insecure),
        "releases": {n: history.releases(e, run_id) for n, e in members.items()},
        "composition": fields.composition(plan, ledgers_live_on=ledgers_live_on),
        "ledgers": {
            name: {"head": export.head.hex(), "entries": len(export.entries)}
            for name, export in members.items()
        },
        "accounting": _accounting(plan, members),
        "claims": [
            claim(
                plan,
                members,
                view=view,
                relies_on=relies_on(view),
                not_protected=fields.NOT_PROTECTED,
                insecure=insecure,
            )
            for view in claimed
        ],
        "not_claimed": fields.not_claimed(plan),
        "not_protected": list(fields.NOT_PROTECTED),
        # None of these is made by a run; a later version attaches them here.
        "conformance": [],
        "mutation": None,
        "audit": [],
        "exceptions": history.exceptions(plan, members, transcript),
        "epsilon_over_rounds": {
            name: history.epsilon_over_rounds(export, plan, finished)
            for name, export in members.items()
        },
        "rounds": rounds,
        "failures": history.failures(transcript),
        "skipped_rounds": history.skipped_rounds(transcript),
        "transcript_head": transcript.head.hex(),
    }


def _accounting(plan: Plan, exports: Mapping[str, LedgerExport]) -> dict[str, Any]:
    """PLD, beside Renyi DP where Skellam noise is in shares; or Renyi DP alone."""
    charged = [event for export in exports.values() for event in export.charged()]
    skellam = any(isinstance(event, Skellam) for event in charged)
    sums = skellam or any(isinstance(event, DiscreteGaussian) for event in charged)
    primary = "PLD-or-RDP" if skellam else "RDP" if sums else "PLD"
    # Where its points are too few or too many, a multiple or a fraction of it.
    grid = {"interval": INTERVAL, "adapted": True, "bound": "upper"}
    return {
        "primary": primary,
        "discretisation": None if primary == "RDP" else grid,
        "cross_checks": [] if sums else ["RDP", "RDP-integer-orders"],
        "adjacency": plan.privacy.adjacency,
        "known_answers": [
            {
                "id": answer.id,
                "expected": answer.expected,
                "got": rounded(answer.got),
                "tolerance": answer.tolerance,
            }
            for answer in self_check()
            if sums or answer.id not in _OF_SUMS
        ],
    }
