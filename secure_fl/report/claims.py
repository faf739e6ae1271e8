# SPDX-License-Identifier: Apache-2.0
"""The first part of the page: its stamps, what is claimed, and what that rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .blocks import Block, Section, Stamp
from .cells import Say, at, bound, is_infinite

__all__ = ["claim_of", "claims_section", "clients_of", "stamps"]

# From here on delta permits to publish a record outright with a probability that
# somebody who reads the report should hear about.
_MOST_EXPOSED: Final = 0.1

Place = tuple[str | int, ...]


def claim_of(report: Mapping[str, Any]) -> Mapping[str, Any]:
    """The claim that the other sections speak of: the first."""
    claim = report["claims"][0]
    assert isinstance(claim, Mapping)
    return claim


def _budgeted(claim: Mapping[str, Any]) -> str:
    """What a record may cost if all of the plan is used; no bound where there is none.

    The plan does not know of releases without protection.
    """
    whole = claim["consortium"]["epsilon"]
    return bound(whole if is_infinite(whole) else claim["projected_consortium"])


def clients_of(claim: Mapping[str, Any], place: Place, say: Say) -> dict[str, Place]:
    """Where the figures lie of every client, and of all of them together."""
    rows: dict[str, Place] = {
        name: (*place, "clients", name) for name in claim["clients"]
    }
    return rows | {say("claim.consortium"): (*place, "consortium")}


def stamps(report: Mapping[str, Any], say: Say) -> list[Stamp]:
    """The warnings on top, the gravest first."""
    out = []
    whole = claim_of(report)["consortium"]
    if report["insecure"]:
        out.append(Stamp(say("stamp.insecure"), say("stamp.insecure.why")))
    if is_infinite(whole["epsilon"]):
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
    blocks = [Block("lead", _lead(report, say)), _table(report, say)]
    for index, claim in enumerate(report["claims"]):
        place: Place = ("claims", index)
        blocks += [
            *_large_delta(report, claim, say),
            Block("subheading", say("assumptions.heading")),
            Block(
                "tagged",
                rows=[
                    [say(f"evidence.{row['evidence']}"), say(f"assumption.{row['id']}")]
                    for row in claim["relies_on"]
                ],
            ),
            Block("subheading", say("not_protected.heading")),
            Block(
                "list",
                lines=[say(f"not_protected.{i}") for i in claim["not_protected"]],
            ),
            Block("subheading", say("clients.heading")),
            _figures(report, claim, place, say),
            *_reasons(claim, say),
            Block("paragraph", _lineage(report, say)),
            Block(
                "paragraph",
                say(f"overlap.{report['overlap']}", projected=_budgeted(claim)),
            ),
            *_projected(report, claim, say),
        ]
    return Section(say("claims.heading"), blocks)


def _table(report: Mapping[str, Any], say: Say) -> Block:
    """One row per claim: the whole of it in one line."""
    groups = [k for k, _ in claim_of(report)["consortium"]["group"]]
    return Block(
        "table",
        say("claims.caption"),
        head=[
            say("claims.name"),
            say("claims.what"),
            say("claims.whom"),
            say("claim.epsilon"),
            say("claim.delta"),
            *(say("claim.group", records=str(k)) for k in groups),
            say("claims.evidence"),
        ],
        rows=[
            [
                say(f"claim.{claim['id']}"),
                say(
                    "claims.scope",
                    unit=say(f"unit.{claim['unit']}"),
                    adjacency=say(f"adjacency.{claim['adjacency']}"),
                ),
                _view(report, claim, say),
                at(report, "claims", i, "consortium", "epsilon"),
                at(report, "claims", i, "delta"),
                *(
                    at(report, "claims", i, "consortium", "group", k, 1)
                    for k in range(len(groups))
                ),
                say(f"claims.evidence.{claim['evidence']}"),
            ]
            for i, claim in enumerate(report["claims"])
        ],
        numeric=False,
    )


def _projected(
    report: Mapping[str, Any], claim: Mapping[str, Any], say: Say
) -> list[Block]:
    if is_infinite(claim["consortium"]["epsilon"]):
        return []
    plan = report["plan"]
    sentence = say(
        "claims.projected",
        count=str(plan["rounds"] + plan["spare"]),
        one=bound(claim["projected"]),
        whole=_budgeted(claim),
    )
    return [Block("paragraph", sentence)]


def _view(report: Mapping[str, Any], claim: Mapping[str, Any], say: Say) -> str:
    if claim["evidence"] == "none":
        return say("view.none")
    key = f"view.{claim['view']}"
    encryption = report["threat_model"].get("encryption")
    return say(key if encryption is None else f"{key}.{encryption['keys']}")


def _lead(report: Mapping[str, Any], say: Say) -> str:
    claim = claim_of(report)
    whole = claim["consortium"]
    if report["insecure"]:
        return say("claims.lead.insecure")
    if is_infinite(whole["epsilon"]):
        return say("claims.lead.infinity")
    return say(
        "claims.lead", epsilon=bound(whole["epsilon"]), delta=bound(claim["delta"])
    )


def _figures(
    report: Mapping[str, Any], claim: Mapping[str, Any], place: Place, say: Say
) -> Block:
    rows = []
    for name, where in clients_of(claim, place, say).items():
        whole = where[-1] == "consortium"
        # The plan limits what each client spends, not what clients spend together.
        limited = not whole or report["overlap"] == "disjoint"
        cells = [
            at(report, *where, "epsilon"),
            at(report, *place, "limit") if limited else "",
            at(report, *where, "epsilon_without_amplification"),
            at(report, *where, "epsilon_rdp"),
            "" if whole else at(report, *where, "epsilon_this_run"),
            "" if whole else at(report, *where, "releases_charged"),
        ]
        rows.append([name, *cells])
    keys = ("epsilon", "limit", "no_amplification", "rdp", "this_run", "charged")
    return Block(
        "table",
        say("clients.caption", delta=bound(claim["delta"])),
        head=[say("claim.client"), *(say(f"claim.{key}") for key in keys)],
        rows=rows,
    )


def _reasons(claim: Mapping[str, Any], say: Say) -> list[Block]:
    lines = [
        say("claim.why_infinite", client=name, reason=reason)
        for name, row in claim["clients"].items()
        for reason in row["reasons"]
    ]
    return [Block("list", lines=lines)] if lines else []


def _large_delta(
    report: Mapping[str, Any], claim: Mapping[str, Any], say: Say
) -> list[Block]:
    delta = claim["delta"]
    clients = [p for p in report["parties"] if p["role"] == "client"]
    most = max(p["nominal_records"] for p in clients)
    if delta * most <= _MOST_EXPOSED:
        return []
    sentence = say(
        "claims.delta-large",
        delta=bound(delta),
        records=str(most),
        product=bound(delta * most),
    )
    return [Block("paragraph", sentence)]


def _lineage(report: Mapping[str, Any], say: Say) -> str:
    composition = report["composition"]
    if not composition["ledgers_live_on"]:
        return say("claims.lineage.thrown-away")
    return say("claims.lineage", lineage=composition["lineage"])
