# SPDX-License-Identifier: Apache-2.0
"""What happened, and when: releases, rounds, failures, and epsilon as it grew."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any, Final

from ..plan import Plan
from ..privacy import (
    DiscreteGaussian,
    Event,
    Gaussian,
    LedgerExport,
    NonPrivate,
    PoissonGaussian,
    Release,
    Repeated,
    Skellam,
    epsilon,
    seen,
)
from ..transcript import Entry, Transcript
from .figures import number, rounded

__all__ = [
    "dates",
    "epsilon_over_rounds",
    "exceptions",
    "failures",
    "releases",
    "rounds",
    "skipped_rounds",
]

# A clock beyond the year 9999 reads as its last second: no text has a fifth digit.
_LAST: Final = 253_402_300_799

Exports = Mapping[str, LedgerExport]


def _date(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(min(seconds, _LAST)))


def _of_run(export: LedgerExport, run_id: bytes) -> list[Release]:
    return [r for r in export.releases() if r.run_id == run_id]


def dates(exports: Exports, run_id: bytes) -> dict[str, str | None]:
    """First and last entry of this run's releases, by the clients' own clocks."""
    times = []
    for export in exports.values():
        mine = {r.entry_hash for r in _of_run(export, run_id)}
        times += [e.time for e in export.entries if e.hash in mine or e.of in mine]
    if not times:
        return {"first": None, "last": None}
    return {"first": _date(min(times)), "last": _date(max(times))}


def releases(export: LedgerExport, run_id: bytes) -> list[dict[str, Any]]:
    """This run's releases of one client, in the order of its ledger."""
    reserved = {entry.hash: entry.time for entry in export.entries}
    return [
        {
            "round": r.round_index,
            "attempt": r.attempt,
            "state": r.state,
            "event": _event(r.event),
            "charged": r.charged,
            "entry_hash": r.entry_hash.hex(),
            "time": _date(reserved[r.entry_hash]),
        }
        for r in _of_run(export, run_id)
    ]


def _event(event: Event) -> dict[str, Any]:
    match event:
        case Gaussian(noise):
            return {"mechanism": "gaussian", "noise_multiplier": rounded(noise)}
        case PoissonGaussian(rate, noise):
            return {
                "mechanism": "poisson-gaussian",
                "rate": rounded(rate),
                "noise_multiplier": rounded(noise),
            }
        case Repeated(inner, count):
            return {**_event(inner), "count": count}
        case Skellam():
            return {
                "mechanism": "skellam",
                "rate": rounded(event.rate),
                "variance": rounded(event.variance),
                "shares": event.shares,
                "colluding": event.colluding,
                "l2": rounded(event.l2),
                "values": event.values,
            }
        case DiscreteGaussian():
            return {
                "mechanism": "discrete-gaussian",
                "rate": rounded(event.rate),
                "deviation": rounded(event.deviation),
                "shares": event.shares,
                "colluding": event.colluding,
                "l2": rounded(event.l2),
                "values": event.values,
            }
        case NonPrivate(reason):
            return {"mechanism": "none", "reason": reason}


# -- rounds ----------------------------------------------------------------------------


def rounds(plan: Plan, transcript: Transcript) -> list[dict[str, Any]]:
    """The finished ones, in order."""
    return [_round(plan, entry) for entry in transcript.of_kind("round")]


def _round(plan: Plan, entry: Entry) -> dict[str, Any]:
    survivors = [str(name) for name in entry.rows(3)]
    return {
        "round": entry.integer(0),
        "attempt": entry.integer(1),
        "survivors": survivors,
        "left_out": [name for name in plan.names if name not in survivors],
        "total_weight": entry.integer(4),
        "clipped_coordinates": entry.integer(6),
        "words_hash": entry.bytes_(5).hex(),
        "context": entry.bytes_(2).hex(),
        "model_hash": entry.bytes_(8).hex(),
    }


def failures(transcript: Transcript) -> list[dict[str, Any]]:
    """Every failed attempt, in order."""
    return [
        {
            "round": entry.integer(0),
            "attempt": entry.integer(1),
            "reason": entry.text(2),
            "culprit": entry.text(3) or None,
        }
        for entry in transcript.of_kind("failure")
    ]


def skipped_rounds(transcript: Transcript) -> list[int]:
    """Rounds of which every attempt failed, ascending."""
    failed = {entry.integer(0) for entry in transcript.of_kind("failure")}
    return sorted(failed - {entry.integer(0) for entry in transcript.of_kind("round")})


def exceptions(
    plan: Plan, exports: Exports, transcript: Transcript
) -> list[dict[str, Any]]:
    """What went another way than a run goes, sorted by round, kind and client."""
    rows: list[tuple[int, str, str]] = [
        (entry.integer(0), "failed-attempt", entry.text(3))
        for entry in transcript.of_kind("failure")
    ]
    rows += [(index, "skipped-round", "") for index in skipped_rounds(transcript)]
    for name in plan.names:
        for r in _of_run(exports[name], transcript.run_id):
            if r.charged and isinstance(r.event, NonPrivate):
                rows.append((r.round_index, "unprotected-release", name))
            if r.charged and r.state != "released":
                rows.append((r.round_index, "charged-not-opened", name))
    return [
        {"kind": kind, "round": index, "client": client or None}
        for index, kind, client in sorted(rows)
    ]


def epsilon_over_rounds(
    export: LedgerExport, plan: Plan, finished: Sequence[int]
) -> list[dict[str, Any]]:
    """Epsilon in the plan's view after each finished round.

    Earlier runs first, then what was released up to that round.
    """
    earlier: list[Event] = []
    mine: list[tuple[int, Event]] = []
    for r in export.releases():
        event = seen(r.event, plan.view)
        if r.charged and r.run_id == plan.run_id:
            mine.append((r.round_index, event))
        elif r.charged:
            earlier.append(event)
    out = []
    for index in finished:
        upto = [*earlier, *(event for place, event in mine if place <= index)]
        total = epsilon(upto, delta=plan.privacy.delta).value
        out.append({"round": index, "epsilon": number(total)})
    return out
