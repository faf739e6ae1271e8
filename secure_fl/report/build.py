# SPDX-License-Identifier: Apache-2.0
"""The report as data: a pure function of plan, transcript and ledger exports.

Nothing in it comes from anywhere else (no clock, no version of a library, no trained
value), so that an auditor who holds the three can rebuild it and compare every field.
Numbers are rounded to 6 significant digits; an infinite epsilon is the text
``"infinity"``, since JSON has no such number.  Sentences are ids of ``strings.py``.
"""

from __future__ import annotations

import copy
import functools
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from .. import ckks
from ..errors import UsageError
from ..identity import key_to_text
from ..plan import Plan
from ..privacy import (
    Event,
    Gaussian,
    LedgerExport,
    NonPrivate,
    PoissonGaussian,
    Repeated,
    epsilon,
    interpret,
    profile,
    without_amplification,
)
from ..transcript import Entry, Transcript
from .english import ENGLISH

__all__ = ["INFINITY", "SCHEMA", "Report", "build_report", "to_json"]

SCHEMA: Final = "secure-fl/report/1"
INFINITY: Final = "infinity"
DELTAS: Final = (1e-4, 1e-5, 1e-6, 1e-7, 1e-8)
# The grid on which epsilon is computed by default; part of the report's meaning.
INTERVAL: Final = 1e-4
# What every ring of protocols/ckks/SPEC.md, 2.1, has at least; see its section 9.
SECURITY_BITS: Final = 192

Number = float | str


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
    size: int | None = None,
) -> dict[str, Any]:
    """Everything the report says, JSON-serialisable, ``schema_version`` first.

    ``transcript`` ends before the artefacts entry, which holds the report's own hash;
    ``exports`` has one entry per member, read from its signed file; ``size`` is the
    number of values of the model, which an encryption depends on.  Takes about half a
    second per round where clients sample.  Raises UsageError where an export, the
    transcript's start or the size of an encrypted model is missing, and what
    :func:`secure_fl.privacy.epsilon` raises.
    """
    missing = [name for name in plan.names if name not in exports]
    if missing or not transcript.entries or transcript.entries[0].kind != "start":
        what = "the start of the transcript" if not missing else ", ".join(missing)
        raise UsageError(
            f"a report cannot be built without {what}",
            hint="it needs the whole transcript and every member's ledger export",
        )
    start = transcript.entries[0]
    assumptions = _assumptions(plan, insecure=start.integer(5) == 1)
    rounds = transcript.of_kind("round")
    events = {name: exports[name].charged() for name in plan.names}
    return {
        "schema_version": SCHEMA,
        "tool": start.text(3),
        "simulation": start.integer(4) == 1,
        "insecure": start.integer(5) == 1,
        "plan": {
            "name": plan.name,
            "hash": plan.hash.hex(),
            "run_id": transcript.run_id.hex(),
            "rounds": plan.rounds.count,
            "spare": plan.rounds.spare,
            "max_attempts": plan.rounds.max_attempts,
        },
        "subject": {
            "kind": plan.model.kind,
            "start_hash": start.bytes_(6).hex(),
            "model_hash": (rounds[-1].bytes_(8) if rounds else start.bytes_(6)).hex(),
        },
        "parties": _parties(plan, start),
        "threat_model": {
            "protection": plan.protection.kind,
            "security": "none" if plan.protection.kind == "plain" else "computational",
            "max_colluding": plan.parties.max_colluding,
            "threshold": plan.threshold,
            "min_clients": plan.min_clients,
            "assumptions": assumptions,
            **_encryption(plan, size),
        },
        "privacy_unit": {
            "kind": plan.privacy.unit,
            "max_records_per_unit": 1,
            "max_parties_per_unit": 1 if _disjoint(plan) else len(plan.names),
            "enforcement": "plan-statement",
        },
        "adjacency": plan.privacy.adjacency,
        "overlap": plan.privacy.overlap,
        "mechanism": _mechanism(plan),
        "sampling": {
            "scheme": "poisson",
            "rate": rounded(plan.privacy.sampling_rate),
            "evidence": "plan-constant",
        },
        "releases": {
            name: _releases(exports[name], plan, transcript) for name in plan.names
        },
        "composition": {
            "within_client": "sequential",
            "across_clients": "parallel" if _disjoint(plan) else "sequential",
            "lineage": plan.lineage,
            "ledgers_live_on": start.integer(7) == 1,
        },
        "ledgers": {
            name: {
                "head": exports[name].head.hex(),
                "entries": len(exports[name].entries),
            }
            for name in plan.names
        },
        "accounting": {
            "primary": "PLD",
            # Where its points are too few or too many, a multiple or a fraction of it.
            "discretisation": {"interval": INTERVAL, "adapted": True, "bound": "upper"},
            "cross_check": "RDP",
            "adjacency": plan.privacy.adjacency,
        },
        "claims": [_claim(plan, events, exports, relies_on=assumptions)],
        "not_claimed": _ids("not_claimed."),
        "not_protected": _ids("not_protected."),
        "epsilon_over_rounds": {
            name: _over_rounds(exports[name], plan, rounds) for name in plan.names
        },
        "rounds": [_round(plan, entry) for entry in rounds],
        "failures": [
            {
                "round": entry.integer(0),
                "attempt": entry.integer(1),
                "reason": entry.text(2),
                "culprit": entry.text(3) or None,
            }
            for entry in transcript.of_kind("failure")
        ],
        "skipped_rounds": sorted(
            {e.integer(0) for e in transcript.of_kind("failure")}
            - {e.integer(0) for e in rounds}
        ),
        "transcript_head": transcript.head.hex(),
    }


def rounded(value: float) -> float:
    """To 6 significant digits: what differs beyond them differs between machines."""
    return float(f"{value:.6g}")


def _number(value: float) -> Number:
    return INFINITY if math.isinf(value) else rounded(value)


def _disjoint(plan: Plan) -> bool:
    return plan.privacy.overlap == "disjoint"


def _ids(prefix: str) -> list[str]:
    """The ids of a list of sentences: the table's order, without its heading."""
    ids = [key.removeprefix(prefix) for key in ENGLISH if key.startswith(prefix)]
    return [key for key in ids if key != "heading"]


def _assumptions(plan: Plan, *, insecure: bool) -> list[str]:
    # First: who between them can read what a reader may take for sealed.
    out = ["keyholder-together"] if plan.has_keyholder else []
    out += ["noise-first", "trainer"]
    if plan.privacy.sampling_rate < 1:
        out.append("sampling-secret")
    if not insecure:
        out.append("csprng")
    out += ["float-noise", "disjoint" if _disjoint(plan) else "overlap"]
    return [*out, "ledger-kept"]


def _encryption(plan: Plan, size: int | None) -> dict[str, Any]:
    """Keys, ring and packing of a plan that encrypts; nothing for the others."""
    if plan.protection.kind != "ckks":
        return {}
    if size is None:
        raise UsageError(
            "a report on an encrypted run cannot be built without the model's size",
            hint="give the number of its values",
        )
    packing = plan.packing(size)
    ring = packing.ring
    return {
        "encryption": {
            "specification": ckks.SPEC,
            "keys": plan.protection.keys,
            "ring_degree": ring.degree,
            "modulus_bits": ring.modulus.bit_length(),
            "primes": len(ring.primes),
            "security_bits": SECURITY_BITS,
            "values_per_coefficient": packing.fields,
            "scale_bits": packing.scale_bits,
            "ciphertexts_per_update": packing.blocks(size + 1),
        }
    }


def _parties(plan: Plan, start: Entry) -> list[dict[str, Any]]:
    members: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "role": "client",
            "nominal_records": entry.records,
            "weight": entry.weight,
            "public_key": key_to_text(member.public_key),
        }
        for entry, member in zip(plan.parties.members, plan.roster.members, strict=True)
    ]
    others = [{"role": "aggregator", "public_key": key_to_text(start.bytes_(2))}]
    if plan.has_keyholder:
        key = key_to_text(plan.keyholder_key)
        others.append({"role": "keyholder", "public_key": key})
    return [*members, *others]


def _mechanism(plan: Plan) -> dict[str, Any]:
    p = plan.privacy
    return {
        "type": "dp-sgd",
        "mode": p.mode,
        "clip_norm": rounded(p.clip_norm),
        "clip_scope": "flat",
        "noise_multiplier": rounded(plan.noise_multiplier),
        "sigma_abs": rounded(plan.noise_multiplier * p.clip_norm),
        "normaliser": {
            m.name: rounded(p.sampling_rate * m.records) for m in plan.parties.members
        },
        "local_steps": p.local_steps,
        "noise_domain": "float",
        "precision": {
            "word_bits": plan.encoding.word_bits,
            "step": rounded(plan.encoding.step),
            "update_clip": rounded(plan.encoding.clip),
        },
        "nan_policy": "zero-or-charged",
        "empty_batch_policy": "noise-only",
    }


# -- releases and rounds ---------------------------------------------------------------


def _round(plan: Plan, entry: Entry) -> dict[str, Any]:
    survivors = [str(name) for name in entry.rows(3)]
    return {
        "round": entry.integer(0),
        "attempt": entry.integer(1),
        "survivors": survivors,
        "left_out": [name for name in plan.names if name not in survivors],
        "total_weight": entry.integer(4),
        "clipped_coordinates": entry.integer(6),
        "context": entry.bytes_(2).hex(),
        "model_hash": entry.bytes_(8).hex(),
    }


def _releases(
    export: LedgerExport, plan: Plan, transcript: Transcript
) -> list[dict[str, Any]]:
    """This run's releases of one client, in the order of its ledger."""
    return [
        {
            "round": r.round_index,
            "attempt": r.attempt,
            "state": r.state,
            "event": _event(r.event),
            "charged": r.charged,
            "entry_hash": r.entry_hash.hex(),
        }
        for r in export.releases()
        if r.run_id == transcript.run_id
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
        case NonPrivate(reason):
            return {"mechanism": "none", "reason": reason}


def _over_rounds(
    export: LedgerExport, plan: Plan, rounds: Sequence[Entry]
) -> list[dict[str, Any]]:
    """Epsilon after each finished round: earlier runs first, then up to that round."""
    earlier: list[Event] = []
    mine: list[tuple[int, Event]] = []
    for r in export.releases():
        if r.charged and r.run_id == plan.run_id:
            mine.append((r.round_index, r.event))
        elif r.charged:
            earlier.append(r.event)
    mine.sort(key=lambda item: item[0])
    ordered = [*earlier, *(event for _, event in mine)]
    # A compressed prefix: one composition per finished round, not one per release.
    out = []
    for entry in rounds:
        number = entry.integer(0)
        upto = len(earlier) + sum(1 for place, _ in mine if place <= number)
        total = epsilon(ordered[:upto], delta=plan.privacy.delta).value
        out.append({"round": number, "epsilon": _number(total)})
    return out


# -- the claim -------------------------------------------------------------------------


def _claim(
    plan: Plan,
    events: Mapping[str, Sequence[Event]],
    exports: Mapping[str, LedgerExport],
    *,
    relies_on: Sequence[str],
) -> dict[str, Any]:
    """V1: everything a client ever sent is visible, every sample but its own known."""
    delta = plan.privacy.delta
    clients = {}
    for name in plan.names:
        this_run = [
            r.event
            for r in exports[name].releases()
            if r.charged and r.run_id == plan.run_id
        ]
        clients[name] = {
            **_figures(events[name], delta),
            "epsilon_this_run": _number(epsilon(this_run, delta=delta).value),
            "releases_charged": len(events[name]),
        }
    if _disjoint(plan):
        consortium = _largest(list(clients.values()))
    else:
        everything = [event for name in plan.names for event in events[name]]
        consortium = _figures(everything, delta)
    return {
        "id": "record-local",
        "unit": plan.privacy.unit,
        "adjacency": plan.privacy.adjacency,
        "view": "record-local",
        "delta": rounded(delta),
        "limit": rounded(plan.privacy.epsilon),
        "projected": _number(plan.projected_epsilon()),
        "projected_consortium": _number(plan.projected_consortium()),
        "relies_on": list(relies_on),
        "evidence": "proof",
        "clients": clients,
        "consortium": consortium,
    }


def _figures(events: Sequence[Event], delta: float) -> dict[str, Any]:
    """All numbers of one claim over ``events``."""
    return copy.deepcopy(_figures_of(tuple(events), delta))


@functools.lru_cache(maxsize=256)
def _figures_of(events: tuple[Event, ...], delta: float) -> dict[str, Any]:
    # Clients of one plan mostly have equal events, and the curve takes a while.
    both = epsilon(events, delta=delta)
    plain = epsilon([without_amplification(e) for e in events], delta=delta)
    meaning = interpret(events, delta=delta)
    reasons = sorted({e.reason for e in events if isinstance(e, NonPrivate)})
    return {
        "epsilon": _number(both.value),
        "epsilon_rdp": _number(both.rdp),
        "epsilon_without_amplification": _number(plain.value),
        "profile": [[d, _number(e)] for d, e in profile(events, DELTAS)],
        "mu_gdp": _number(meaning.mu_gdp),
        "advantage": rounded(meaning.advantage),
        "tpr_at_fpr": {f"{f:g}": rounded(t) for f, t in meaning.tpr_at_fpr},
        "posterior": {f"{p:g}": rounded(b) for p, b in meaning.posterior},
        "reasons": reasons,
    }


def _largest(clients: Iterable[Mapping[str, Any]]) -> dict[str, Any]:
    """Field by field the largest: a record is at one client, we do not say which."""
    rows = list(clients)

    def worst(values: Iterable[Number]) -> Number:
        return max(values, key=lambda v: math.inf if v == INFINITY else float(v))

    def worst_of(field: str) -> dict[str, Number]:
        return {key: worst(row[field][key] for row in rows) for key in rows[0][field]}

    out: dict[str, Any] = {
        field: worst(row[field] for row in rows)
        for field in ("epsilon", "epsilon_rdp", "epsilon_without_amplification")
    }
    out["profile"] = [
        [delta, worst(row["profile"][i][1] for row in rows)]
        for i, (delta, _) in enumerate(rows[0]["profile"])
    ]
    out["mu_gdp"] = worst(row["mu_gdp"] for row in rows)
    out["advantage"] = worst(row["advantage"] for row in rows)
    out["tpr_at_fpr"] = worst_of("tpr_at_fpr")
    out["posterior"] = worst_of("posterior")
    out["reasons"] = sorted({reason for row in rows for reason in row["reasons"]})
    return out
