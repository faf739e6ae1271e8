# SPDX-License-Identifier: Apache-2.0
"""What the claim's figures mean: attacks, curves, other deltas, several records."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .blocks import Block, LineChart, Section
from .cells import Say, at, bound, grouped, is_infinite, number
from .claims import Place, claim_of, clients_of
from .wording import by_unit

__all__ = ["meaning_section"]


def meaning_section(report: Mapping[str, Any], say: Say) -> Section:
    """The claim's curve in pictures and tables, for every client."""
    rows = clients_of(claim_of(report), ("claims", 0), say)
    pictures = [
        *_profile_picture(report, rows, say),
        _trade_off_picture(report, rows, say),
    ]
    view = claim_of(report)["view"]
    how = "meaning.how" if view == "record-local" else f"meaning.how.{view}"
    return Section(
        say("meaning.heading"),
        [
            Block("paragraph", say(how)),
            _attacks(report, rows, say),
            *pictures,
            _pairs(report, rows, say, field="profile", place="claim.delta"),
            _pairs(report, rows, say, field="trade_off", place="claim.fpr"),
            _pairs(
                report,
                rows,
                say,
                field="group",
                place=by_unit(report, "claim.records"),
            ),
        ],
    )


def _attacks(report: Mapping[str, Any], rows: Mapping[str, Place], say: Say) -> Block:
    whole = claim_of(report)["consortium"]
    cells: dict[str, Sequence[str]] = {
        name: [
            at(report, *where, "advantage"),
            *(at(report, *where, "tpr_at_fpr", fpr) for fpr in whole["tpr_at_fpr"]),
            *(at(report, *where, "posterior", prior) for prior in whole["posterior"]),
            at(report, *where, "mu_gdp"),
        ]
        for name, where in rows.items()
    }
    return Block(
        "table",
        say("meaning.caption"),
        head=[
            say("claim.client"),
            say("claim.advantage"),
            *(say(by_unit(report, "claim.tpr"), fpr=f) for f in whole["tpr_at_fpr"]),
            *(say("claim.posterior", prior=prior) for prior in whole["posterior"]),
            say("claim.mu"),
        ],
        rows=grouped(cells),
    )


def _pairs(
    report: Mapping[str, Any],
    rows: Mapping[str, Place],
    say: Say,
    *,
    field: str,
    place: str,
) -> Block:
    """A curve as a table: its places above, one row for equal clients."""
    pairs = claim_of(report)["consortium"][field]
    cells: dict[str, Sequence[str]] = {
        name: [at(report, *where, field, i, 1) for i in range(len(pairs))]
        for name, where in rows.items()
    }
    where = ("claims", 0, "consortium", field)
    heads = [at(report, *where, i, 0) for i in range(len(pairs))]
    caption = f"{field}.caption"
    return Block(
        "table",
        say(caption if field == "profile" else by_unit(report, caption)),
        head=[f"{say('claim.client')} / {say(place)}", *heads],
        rows=grouped(cells),
    )


def _lines(
    report: Mapping[str, Any], rows: Mapping[str, Place], field: str
) -> dict[str, list[tuple[float, float]]]:
    lines = {}
    for name, where in rows.items():
        value: Any = report
        for key in (*where, field):
            value = value[key]
        line = [(float(x), float(y)) for x, y in value if not is_infinite(y)]
        lines[name] = [(x, y) for x, y in line if x > 0]
    return {name: line for name, line in lines.items() if line}


def _spoken(pairs: Sequence[Sequence[Any]]) -> str:
    return ", ".join(f"{number(x)}: {bound(y)}" for x, y in pairs)


def _profile_picture(
    report: Mapping[str, Any], rows: Mapping[str, Place], say: Say
) -> list[Block]:
    lines = _lines(report, rows, "profile")
    if not lines:
        return [Block("paragraph", say("over.infinite"))]
    values = _spoken(claim_of(report)["consortium"]["profile"])
    return [
        Block(
            "picture",
            say("profile.picture"),
            lines=[say("profile.alt", values=values)],
            chart=LineChart(
                lines, say("claim.delta"), say("claim.epsilon"), log_x=True
            ),
        )
    ]


def _trade_off_picture(
    report: Mapping[str, Any], rows: Mapping[str, Place], say: Say
) -> Block:
    values = _spoken(claim_of(report)["consortium"]["trade_off"])
    return Block(
        "picture",
        say(by_unit(report, "trade_off.picture")),
        lines=[say(by_unit(report, "trade_off.alt"), values=values)],
        chart=LineChart(
            _lines(report, rows, "trade_off"),
            say("trade_off.axis.x"),
            say("trade_off.axis.y"),
            diagonal=say("trade_off.guessing"),
            log_x=True,
            log_y=True,
        ),
    )
