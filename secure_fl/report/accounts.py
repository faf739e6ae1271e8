# SPDX-License-Identifier: Apache-2.0
"""What was charged, how it adds up, and how epsilon was computed from it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .blocks import Block, LineChart, Section
from .cells import Say, at, bound, is_infinite, joined, number, word
from .claims import claim_of
from .wording import by_unit

__all__ = ["accounting_section", "composition_section"]

_STATES: Final = ("reserved", "sent", "omitted", "released", "aborted")
_MOST_COLUMNS: Final = 6


def composition_section(report: Mapping[str, Any], say: Say) -> Section:
    """The rules, the ledgers, and epsilon as it grew."""
    composition = report["composition"]
    rows = []
    for name in report["ledgers"]:
        states = [r["state"] for r in report["releases"][name]]
        counts = [str(states.count(state)) for state in _STATES]
        rows.append([name, at(report, "ledgers", name, "entries"), *counts])
    blocks = [
        Block("paragraph", say(f"composition.within.{composition['within_client']}")),
        Block(
            "paragraph",
            say(by_unit(report, f"composition.across.{composition['across_clients']}")),
        ),
        Block("paragraph", say(f"composition.search.{composition['hyperparameters']}")),
        Block("paragraph", say(f"composition.stopping.{composition['stopping']}")),
        *_over_rounds(report, say),
        Block(
            "table",
            say("ledger.caption"),
            head=[
                say("claim.client"),
                say("ledger.entries"),
                *(say(f"ledger.{state}") for state in _STATES),
            ],
            rows=rows,
        ),
        Block(
            "facts",
            say("ledger.head"),
            rows=[[name, row["head"]] for name, row in report["ledgers"].items()],
        ),
    ]
    return Section(say("composition.heading"), blocks)


def _over_rounds(report: Mapping[str, Any], say: Say) -> list[Block]:
    claim = claim_of(report)
    over = report["epsilon_over_rounds"]
    finite = {
        name: [
            (float(p["round"]), float(p["epsilon"]))
            for p in points
            if not is_infinite(p["epsilon"])
        ]
        for name, points in over.items()
    }
    points = {name: line for name, line in finite.items() if line}
    if not points:
        key = "over.infinite" if any(over.values()) else "over.empty"
        return [Block("paragraph", say(key))]
    values = ", ".join(
        f"{name} {bound(line[-1]['epsilon'])}" for name, line in over.items() if line
    )
    spoken = say("over.alt", limit=bound(claim["limit"]), values=values)
    picture = Block(
        "picture",
        say("over.caption"),
        lines=[spoken],
        chart=LineChart(
            points,
            say("over.axis.x"),
            say("over.axis.y", delta=bound(claim["delta"])),
            limit=(say("over.limit"), float(claim["limit"])),
            whole_x=True,
        ),
    )
    return [picture, _over_table(report, say)]


def _over_table(report: Mapping[str, Any], say: Say) -> Block:
    """Rounds downwards; clients whose lines are equal share a column."""
    over = report["epsilon_over_rounds"]
    alike: dict[tuple[float | str, ...], list[str]] = {}
    for name, points in over.items():
        alike.setdefault(tuple(p["epsilon"] for p in points), []).append(name)
    # The lines that end highest come first, and are the ones that stay.
    columns = sorted(
        alike.values(), key=lambda names: -_last(over[names[0]]), reverse=False
    )[:_MOST_COLUMNS]
    numbers = [p["round"] for p in next(iter(over.values()))]
    key = "over.table" if len(columns) == len(alike) else "over.table.highest"
    return Block(
        "table",
        say(key, count=str(_MOST_COLUMNS)),
        head=[say("rounds.round"), *(joined(names) for names in columns)],
        rows=[
            [
                str(number_),
                *(
                    at(report, "epsilon_over_rounds", names[0], i, "epsilon")
                    for names in columns
                ),
            ]
            for i, number_ in enumerate(numbers)
        ],
    )


def _last(points: Sequence[Mapping[str, Any]]) -> float:
    last = points[-1]["epsilon"] if points else 0.0
    return float("inf") if is_infinite(last) else float(last)


def accounting_section(report: Mapping[str, Any], say: Say) -> Section:
    """The method, its cross-checks, and the answers it gives to known questions."""
    accounting = report["accounting"]
    grid = accounting["discretisation"]
    answers = accounting["known_answers"]
    interval = number(grid["interval"]) if grid is not None else ""
    method = say(f"accounting.{accounting['primary']}", interval=interval)
    checks = [say(f"check.{name}") for name in accounting["cross_checks"]]
    blocks = [
        Block("paragraph", method),
        *([Block("list", lines=checks)] if checks else []),
        Block(
            "table",
            say("answers.caption" if checks else "answers.caption.sums"),
            head=[
                say(f"answers.{key}") for key in ("id", "expected", "got", "tolerance")
            ],
            rows=[
                [
                    word(say, "answer", row["id"]),
                    *(
                        at(report, "accounting", "known_answers", i, key)
                        for key in ("expected", "got", "tolerance")
                    ),
                ]
                for i, row in enumerate(answers)
            ],
        ),
    ]
    return Section(say("accounting.heading"), blocks)
