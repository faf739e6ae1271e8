# SPDX-License-Identifier: Apache-2.0
"""A claim and its figures: what all charged releases cost one record, or client.

Figures are rounded to 6 significant digits; an infinite one is the text
``"infinity"``, since JSON has no such number.  protocols/report/FIELDS.md, section 4,
says how each is made.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from ..plan import Plan
from ..privacy import (
    Event,
    LedgerExport,
    NonPrivate,
    epsilon,
    group_epsilon,
    interpret,
    profile,
    seen,
    without_amplification,
)
from .views import View, colluding

__all__ = ["INFINITY", "Number", "claim", "number", "rounded"]

INFINITY: Final = "infinity"
DELTAS: Final = (1e-2, 1e-3, 1e-4, 1e-5, 1e-6, 1e-7, 1e-8, 1e-9, 1e-10)
GROUPS: Final = (2, 5)

Number = float | str


def rounded(value: float) -> float:
    """To 6 significant digits: what differs beyond them differs between machines."""
    return float(f"{value:.6g}")


def number(value: float) -> Number:
    """The same, and ``INFINITY`` for what JSON cannot say."""
    return INFINITY if math.isinf(value) else rounded(value)


def claim(
    plan: Plan,
    exports: Mapping[str, LedgerExport],
    *,
    view: View,
    relies_on: Sequence[Mapping[str, str]],
    not_protected: Sequence[str],
    insecure: bool,
) -> dict[str, Any]:
    """What holds in one view, with every sample but the client's own known.

    It is proved from what it relies on; where epsilon is infinite, or the noise can be
    drawn again from a seed, there is nothing to prove.
    """
    delta = plan.privacy.delta
    together = colluding(plan, view)
    clients = {
        name: _client(exports[name], plan.run_id, colluding=together, delta=delta)
        for name in plan.names
    }
    if plan.privacy.overlap == "disjoint":
        consortium = _largest(list(clients.values()))
    else:
        charged = [e for name in plan.names for e in exports[name].charged()]
        consortium = _figures([seen(e, together) for e in charged], delta)
    void = insecure or consortium["epsilon"] == INFINITY
    limited = together == plan.view
    one = plan.projected_epsilon() if limited else plan.projected_own_share()
    whole = plan.projected_consortium() if limited else one
    return {
        "id": view,
        "unit": plan.privacy.unit,
        "adjacency": plan.privacy.adjacency,
        "view": view,
        "delta": rounded(delta),
        # A plan limits its ledgers in its own view.
        "limit": rounded(plan.privacy.epsilon) if limited else None,
        "projected": number(one),
        "projected_consortium": number(whole),
        "relies_on": [dict(row) for row in relies_on],
        "evidence": "none" if void else "proved",
        "not_protected": list(not_protected),
        "clients": clients,
        "consortium": consortium,
    }


def _client(
    export: LedgerExport, run_id: bytes | None, *, colluding: int | None, delta: float
) -> dict[str, Any]:
    charged = [
        (seen(r.event, colluding), r.run_id) for r in export.releases() if r.charged
    ]
    this_run = [event for event, run in charged if run == run_id]
    return {
        **_figures([event for event, _ in charged], delta),
        "epsilon_this_run": number(epsilon(this_run, delta=delta).value),
        "releases_charged": len(charged),
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
        "epsilon": number(both.value),
        "epsilon_rdp": number(both.rdp),
        "epsilon_without_amplification": number(plain.value),
        "profile": [[d, number(e)] for d, e in profile(events, DELTAS)],
        "mu_gdp": number(meaning.mu_gdp),
        "advantage": rounded(meaning.advantage),
        "tpr_at_fpr": {f"{f:g}": rounded(t) for f, t in meaning.tpr_at_fpr},
        "trade_off": [[f, rounded(t)] for f, t in meaning.trade_off],
        "posterior": {f"{p:g}": rounded(b) for p, b in meaning.posterior},
        "group": [
            [k, number(group_epsilon(events, records=k, delta=delta))] for k in GROUPS
        ],
        "reasons": reasons,
    }


def _largest(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Field by field the largest: a record is at one client, we do not say which."""

    def worst(values: Iterable[Number]) -> Number:
        return max(values, key=lambda v: math.inf if v == INFINITY else float(v))

    def of(field: str) -> Number:
        return worst(row[field] for row in rows)

    def of_pairs(field: str) -> list[list[Number]]:
        places = [place for place, _ in rows[0][field]]
        return [
            [place, worst(row[field][i][1] for row in rows)]
            for i, place in enumerate(places)
        ]

    def of_map(field: str) -> dict[str, Number]:
        return {key: worst(row[field][key] for row in rows) for key in rows[0][field]}

    return {
        "epsilon": of("epsilon"),
        "epsilon_rdp": of("epsilon_rdp"),
        "epsilon_without_amplification": of("epsilon_without_amplification"),
        "profile": of_pairs("profile"),
        "mu_gdp": of("mu_gdp"),
        "advantage": of("advantage"),
        "tpr_at_fpr": of_map("tpr_at_fpr"),
        "trade_off": of_pairs("trade_off"),
        "posterior": of_map("posterior"),
        "group": of_pairs("group"),
        "reasons": sorted({reason for row in rows for reason in row["reasons"]}),
    }
