# SPDX-License-Identifier: Apache-2.0
"""The first part of the page: its stamps, what is claimed, and what that rests on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .blocks import Block, Section, Stamp
from .cells import Say, at, bound, is_infinite
from .wording import adjacency, assumption, by_unit, parties

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
    claim, *others = report["claims"]
    blocks = [
        Block("lead", _lead(report, say)),
        _table(report, say),
        *_large_delta(report, claim, say),
        *_relies_on(report, claim, say),
        Block("subheading", say("not_protected.heading")),
        Block(
            "list", lines=[say(f"not_protected.{i}") for i in claim["not_protected"]]
        ),
        *_by_client(report, 0, say),
        *_reasons(claim, say),
        Block("paragraph", _lineage(report, say)),
        Block(
            "paragraph",
            say(
                by_unit(report, f"overlap.{report['overlap']}"),
                projected=_budgeted(claim),
            ),
        ),
        *_projected(report, claim, say),
    ]
    for index, other in enumerate(others, 1):
        blocks += [
            *_relies_on(report, other, say),
            *_by_client(report, index, say),
            *_projected(report, other, say),
        ]
    return Section(say("claims.heading"), blocks)


def _named(
    report: Mapping[str, Any], claim: Mapping[str, Any], key: str, say: Say
) -> str:
    """A heading, with the name of the claim where there are several."""
    name = say(f"claim.{claim['id']}")
    return say(key) if len(report["claims"]) == 1 else f"{say(key)} ({name})"


def _relies_on(
    report: Mapping[str, Any], claim: Mapping[str, Any], say: Say
) -> list[Block]:
    rows = [
        [say(f"evidence.{row['evidence']}"), assumption(report, row["id"], say)]
        for row in claim["relies_on"]
    ]
    heading = _named(report, claim, "assumptions.heading", say)
    return [Block("subheading", heading), Block("tagged", rows=rows)]


def _by_client(report: Mapping[str, Any], index: int, say: Say) -> list[Block]:
    claim = report["claims"][index]
    heading = _named(report, claim, "clients.heading", say)
    figures = _figures(report, claim, ("claims", index), say)
    return [Block("subheading", heading), figures]


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
            *(say(by_unit(report, "claim.group"), records=str(k)) for k in groups),
            say("claims.evidence"),
        ],
        rows=[
            [
                say(f"claim.{claim['id']}"),
                say(
                    "claims.scope",
                    unit=say(f"unit.{claim['unit']}"),
                    adjacency=adjacency(report, say),
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
        "claims.projected" if claim["limit"] is not None else "claims.projected.share",
        count=str(plan["rounds"] + plan["spare"]),
        one=bound(claim["projected"]),
        whole=_budgeted(claim),
    )
    return [Block("paragraph", sentence)]


def _view(report: Mapping[str, Any], claim: Mapping[str, Any], say: Say) -> str:
    if claim["evidence"] == "none":
        # The headline's reasons stand on top.
        on_top = claim is claim_of(report) or report["insecure"]
        return say("view.none" if on_top else "view.infinite")
    _, _, kind = claim["view"].partition("-")
    if kind == "share":
        return say("view.share")
    key = "view.sum" if kind == "sum" else f"view.{claim['view']}"
    encryption = report["threat_model"].get("encryption")
    suffix = "" if encryption is None else f".{encryption['keys']}"
    return say(key + suffix, **parties(report))


def _lead(report: Mapping[str, Any], say: Say) -> str:
    claim = claim_of(report)
    whole = claim["consortium"]
    if report["insecure"]:
        return say("claims.lead.insecure")
    if is_infinite(whole["epsilon"]):
        return say("claims.lead.infinity")
    local = claim["view"] == "record-local"
    return say(
        "claims.lead" if local else f"claims.lead.{claim['view']}",
        epsilon=bound(whole["epsilon"]),
        delta=bound(claim["delta"]),
        **parties(report),
    )


def _figures(
    report: Mapping[str, Any], claim: Mapping[str, Any], place: Place, say: Say
) -> Block:
    rows = []
    cells: dict[str, str] = {}
    for name, where in clients_of(claim, place, say).items():
        whole = where[-1] == "consortium"
        # The plan limits what each client spends, not what clients spend together.
        limited = not whole or report["overlap"] == "disjoint"
        cells = {"epsilon": at(report, *where, "epsilon")}
        if claim["limit"] is not None:
            cells["limit"] = at(report, *place, "limit") if limited else ""
        cells["no_amplification"] = at(report, *where, "epsilon_without_amplification")
        if report["accounting"]["primary"] != "RDP":  # else it is the only method
            cells["rdp"] = at(report, *where, "epsilon_rdp")
        cells["this_run"] = "" if whole else at(report, *where, "epsilon_this_run")
        cells["charged"] = "" if whole else at(report, *where, "releases_charged")
        rows.append([name, *cells.values()])
    return Block(
        "table",
        say("clients.caption", delta=bound(claim["delta"])),
        head=[say("claim.client"), *(say(f"claim.{key}") for key in cells)],
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
    of_records = max(p["nominal_records"] for p in clients)
    most = of_records if claim["unit"] == "record" else len(clients)
    if delta * most <= _MOST_EXPOSED:
        return []
    sentence = say(
        by_unit(report, "claims.delta-large"),
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
