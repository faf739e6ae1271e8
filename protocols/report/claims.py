# SPDX-License-Identifier: Apache-2.0
"""What a report claims, and what that relies on (FIELDS.md, 3.3, 3.7 and 3.8)."""

from dataclasses import dataclass
from typing import Any

from costs import Spent, counted, spent
from events import AnyEvent
from figures import epsilon, figures, num, r6
from ledgers import Ledger
from method import exact_noise
from plan import Plan

NOT_PROTECTED = [
    *("population", "participation", "public-constants", "other-releases"),
    *("metrics", "choices-before", "poisoning", "side-channels"),
]
_LOCAL, _SUM, _SHARE = "local", "sum", "share"
_EVERY = {_LOCAL, _SUM, _SHARE}


@dataclass(frozen=True)
class View:
    """Who is claimed to learn little: `about` is "local", "sum" or "share".

    So many `colluding` clients beside the aggregator; None is everybody else.
    """

    unit: str
    about: str
    colluding: int | None

    @property
    def name(self) -> str:
        return f"{self.unit}-{self.about}"

    def of(self, event: AnyEvent) -> AnyEvent:
        """What of an event counts in this view."""
        return event.seen(self.colluding)


def views(plan: Plan) -> list[View]:
    """The views that the plan's report makes claims in, in their order."""
    if plan.grid is None:
        return [View(plan.unit, _LOCAL, plan.view)]
    return [View(plan.unit, _SUM, plan.view), View(plan.unit, _SHARE, None)]


def not_claimed(plan: Plan) -> list[str]:
    if plan.grid is None:
        return ["organisation", "sum-view", "groups", "stopping"]
    if plan.unit == "client":
        return ["records", "coalitions", "stopping"]
    return ["organisation", "groups", "stopping"]


def assumptions(
    plan: Plan, start: list[Any], about: str | None = None
) -> list[dict[str, str]]:
    """What all claims rely on, or those of one kind of view; `start` is its body."""
    local, holder = plan.grid is None, plan.keyholder is not None
    by_client, exact = plan.unit == "client", exact_noise(plan)
    disjoint, insecure, live_on = plan.overlap == "disjoint", start[5], start[7]
    rows = [
        ("keyholder-together", "proved", holder, {_LOCAL, _SHARE}),
        ("keyholder-apart", "assumed", not local and holder, {_SUM}),
        ("sums-only", "assumed", not local, {_SUM}),
        ("honest-shares", "assumed", not local, {_SUM}),
        ("unchanged", "assumed", True, _EVERY),
        ("noise-first", "tested", local, _EVERY),
        ("share-first", "tested", not local, _EVERY),
        ("trainer", "assumed", local, _EVERY),
        ("trainer-gradients", "assumed", not local and not by_client, _EVERY),
        ("trainer-update", "assumed", by_client, _EVERY),
        ("sampling-secret", "assumed", plan.rate < 1, _EVERY),
        ("csprng", "tested", not insecure and not exact, _EVERY),
        ("csprng-opendp", "assumed", exact, _EVERY),
        ("float-noise", "assumed", local, _EVERY),
        ("integer-noise", "assumed", not local and not exact, _EVERY),
        ("exact-noise", "assumed", exact, _EVERY),
        ("float-gradients", "assumed", not local, _EVERY),
        ("disjoint", "assumed", disjoint, _EVERY),
        ("overlap", "proved", not disjoint, _EVERY),
        ("ledger-kept", "assumed", live_on == 1, _EVERY),
        ("no-earlier", "assumed", live_on != 1, _EVERY),
    ]
    return [
        {"id": name, "evidence": evidence}
        for name, evidence, holds, views_of in rows
        if holds and (about is None or about in views_of)
    ]


def claims(plan: Plan, start: list[Any], ledgers: list[Ledger]) -> list[dict[str, Any]]:
    """All claims; `start` is the body of the transcript's start."""
    return [_claim(plan, start, ledgers, view) for view in views(plan)]


def _claim(
    plan: Plan, start: list[Any], ledgers: list[Ledger], view: View
) -> dict[str, Any]:
    clients = {one.client: _client(plan, one, view) for one in ledgers}
    consortium = _consortium(plan, ledgers, clients, view)
    proved = not start[5] and consortium["epsilon"] != "infinity"
    release, releases = view.of(plan.release), plan.rounds + plan.spare
    many = 1 if plan.overlap == "disjoint" else len(plan.members)
    return {
        "id": view.name,
        "unit": plan.unit,
        "adjacency": "add-or-remove-one",
        "view": view.name,
        "delta": r6(plan.delta),
        "limit": None if view.about == _SHARE else r6(plan.epsilon),
        "projected": _epsilon(plan, counted({release: releases})),
        "projected_consortium": _epsilon(plan, counted({release: releases * many})),
        "relies_on": assumptions(plan, start, view.about),
        "evidence": "proved" if proved else "none",
        "not_protected": NOT_PROTECTED,
        "clients": clients,
        "consortium": consortium,
    }


def _epsilon(plan: Plan, costs: Spent) -> float | str:
    return num(epsilon(costs, plan.delta))


def _client(plan: Plan, ledger: Ledger, view: View) -> dict[str, Any]:
    charged = ledger.charged()
    ours = [r for r in charged if r.run_id == plan.run_id]
    return {
        **figures([view.of(r.event) for r in charged], plan.delta),
        "epsilon_this_run": _epsilon(plan, spent(view.of(r.event) for r in ours)),
        "releases_charged": len(charged),
    }


def _consortium(
    plan: Plan,
    ledgers: list[Ledger],
    clients: dict[str, dict[str, Any]],
    view: View,
) -> dict[str, Any]:
    if plan.overlap != "disjoint":
        events = [view.of(r.event) for one in ledgers for r in one.charged()]
        return figures(events, plan.delta)
    first = next(iter(clients.values()))
    found = {}
    for name in first:
        if name not in ("epsilon_this_run", "releases_charged", "reasons"):
            found[name] = _largest([row[name] for row in clients.values()])
    reasons = {reason for row in clients.values() for reason in row["reasons"]}
    return {**found, "reasons": sorted(reasons)}


def _largest(values: list[Any]) -> Any:
    """Entry by entry the largest; `infinity` is larger than every number."""
    first = values[0]
    if isinstance(first, dict):
        return {name: _largest([value[name] for value in values]) for name in first}
    if isinstance(first, list):
        return [_largest(list(rows)) for rows in zip(*values, strict=True)]
    return "infinity" if "infinity" in values else max(values)
