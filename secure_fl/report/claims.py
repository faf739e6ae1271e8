# SPDX-License-Identifier: Apache-2.0
"""The first part of the page: its stamps, what is claimed, and what that rests on."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from .blocks import Block, Section, Stamp
from .build import INFINITY

__all__ = ["Say", "claim_of", "claims_section", "number", "stamps"]

Say = Callable[..., str]
"""A sentence by its id, braces filled from keywords, in the page's language."""

# From here on delta permits to publish a record outright with a probability that
# somebody who reads the report should hear about.
_MOST_EXPOSED: Final = 0.1


def number(value: float | str) -> str:
    """A figure for people: at most 4 significant digits; words stay words."""
    if isinstance(value, str):
        return value
    short = float(f"{value:.4g}")
    # A constant of five or more digits is not read well as a power of ten.
    return f"{short:.0f}" if 1e4 <= abs(short) < 1e15 else f"{short:.4g}"


def claim_of(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The one claim that a report of this version makes."""
    claim = report["claims"][0]
    assert isinstance(claim, Mapping)
    return claim


def stamps(report: Mapping[str, Any], say: Say) -> list[Stamp]:
    """The warnings on top, the gravest first."""
    out = []
    whole = claim_of(report)["consortium"]
    if report["insecure"]:
        out.append(Stamp(say("stamp.insecure"), say("stamp.insecure.why")))
    if whole["epsilon"] == INFINITY:
        why = [say("stamp.infinity.why")]
        if whole["reasons"]:
            reasons = "; ".join(whole["reasons"])
            why.append(say("stamp.infinity.reasons", reasons=reasons))
        out.append(Stamp(say("stamp.infinity"), " ".join(why)))
    if report["threat_model"]["protection"] == "plain":
        out.append(Stamp(say("stamp.plain"), say("stamp.plain.why")))
    if report["simulation"]:
        out.append(Stamp(say("stamp.simulation"), say("stamp.simulation.why")))
    return out


def claims_section(report: Mapping[str, Any], say: Say) -> Section:
    """What is claimed, in words and figures, and the assumptions it rests on."""
    claim = claim_of(report)
    rows = [*claim["clients"].items(), (say("claim.consortium"), claim["consortium"])]
    projected = number(claim["projected_consortium"])
    blocks = [
        Block("lead", _lead(report, say)),
        Block("view", _view(report, say)),
        Block(
            "paragraph",
            say(
                "claims.scope",
                unit=say(f"unit.{claim['unit']}"),
                adjacency=say(f"adjacency.{claim['adjacency']}"),
            ),
        ),
        _figures(report, rows, say),
        *_reasons(claim, say),
        *_large_delta(report, say),
        Block("paragraph", _lineage(report, say)),
        Block("paragraph", say(f"overlap.{report['overlap']}", projected=projected)),
        _meaning(rows, say),
        _profile(rows, say),
        Block("subheading", say("assumptions.heading")),
        Block("list", lines=[say(f"assumption.{i}") for i in claim["relies_on"]]),
    ]
    return Section(say("claims.heading"), blocks)


def _view(report: Mapping[str, Any], say: Say) -> str:
    key = f"view.{claim_of(report)['view']}"
    encryption = report["threat_model"].get("encryption")
    return say(key if encryption is None else f"{key}.{encryption['keys']}")


def _lead(report: Mapping[str, Any], say: Say) -> str:
    claim = claim_of(report)
    whole = claim["consortium"]
    if report["insecure"]:
        return say("claims.lead.insecure")
    if whole["epsilon"] == INFINITY:
        return say("claims.lead.infinity")
    return say(
        "claims.lead", epsilon=number(whole["epsilon"]), delta=number(claim["delta"])
    )


def _figures(
    report: Mapping[str, Any], rows: Sequence[tuple[str, Mapping[str, Any]]], say: Say
) -> Block:
    claim = claim_of(report)
    # The plan limits what each client spends, not what clients spend together.
    apart = report["overlap"] == "disjoint"
    return Block(
        "table",
        say("claims.caption", delta=number(claim["delta"])),
        head=[
            say("claim.client"),
            say("claim.epsilon"),
            say("claim.limit"),
            say("claim.no_amplification"),
            say("claim.rdp"),
            say("claim.this_run"),
            say("claim.charged"),
        ],
        rows=[
            [
                name,
                number(row["epsilon"]),
                number(claim["limit"]) if apart or row is not rows[-1][1] else "",
                number(row["epsilon_without_amplification"]),
                number(row["epsilon_rdp"]),
                number(row.get("epsilon_this_run", "")),
                str(row.get("releases_charged", "")),
            ]
            for name, row in rows
        ],
    )


def _reasons(claim: Mapping[str, Any], say: Say) -> list[Block]:
    lines = [
        say("claim.why_infinite", client=name, reason=reason)
        for name, row in claim["clients"].items()
        for reason in row["reasons"]
    ]
    return [Block("list", lines=lines)] if lines else []


def _large_delta(report: Mapping[str, Any], say: Say) -> list[Block]:
    delta = claim_of(report)["delta"]
    clients = [p for p in report["parties"] if p["role"] == "client"]
    most = max(p["nominal_records"] for p in clients)
    if delta * most <= _MOST_EXPOSED:
        return []
    sentence = say(
        "claims.delta-large",
        delta=number(delta),
        records=str(most),
        product=number(delta * most),
    )
    return [Block("paragraph", sentence)]


def _lineage(report: Mapping[str, Any], say: Say) -> str:
    composition = report["composition"]
    if not composition["ledgers_live_on"]:
        return say("claims.lineage.thrown-away")
    return say("claims.lineage", lineage=composition["lineage"])


def _meaning(rows: Sequence[tuple[str, Mapping[str, Any]]], say: Say) -> Block:
    sample = rows[0][1]
    # Clients with equal figures share a row: the table is long enough.
    names: dict[tuple[str, ...], list[str]] = {}
    for name, row in rows:
        figures = [row["advantage"], *row["tpr_at_fpr"].values()]
        figures += [*row["posterior"].values(), row["mu_gdp"]]
        names.setdefault(tuple(number(v) for v in figures), []).append(name)
    return Block(
        "table",
        say("claims.meaning.caption"),
        head=[
            say("claim.client"),
            say("claim.advantage"),
            *(say("claim.tpr", fpr=fpr) for fpr in sample["tpr_at_fpr"]),
            *(say("claim.posterior", prior=prior) for prior in sample["posterior"]),
            say("claim.mu"),
        ],
        rows=[[", ".join(group), *cells] for cells, group in names.items()],
    )


def _profile(rows: Sequence[tuple[str, Mapping[str, Any]]], say: Say) -> Block:
    deltas = [d for d, _ in rows[0][1]["profile"]]
    return Block(
        "table",
        say("claims.profile.caption"),
        head=[
            say("claim.client"),
            *(f"{say('claim.delta')} {number(d)}" for d in deltas),
        ],
        rows=[[name, *(number(e) for _, e in row["profile"])] for name, row in rows],
    )
