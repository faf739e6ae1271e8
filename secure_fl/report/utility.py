# SPDX-License-Identifier: Apache-2.0
"""Scores and costs out of metrics.json: what it holds, and nothing it must hold."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, final

__all__ = ["Cost", "Line", "cost_rows", "score_lines", "score_rows"]

Line = Sequence[tuple[float, float]]

_MAX_CHARTS: Final = 4


@final
@dataclass(frozen=True)
class Cost:
    """One step of all attempts: messages, bytes to and from the aggregator, seconds."""

    step: str
    messages: float
    up: float
    down: float
    seconds: float


def _finite(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def _scores(value: object) -> dict[str, float]:
    """The numbers of one row of scores; a single number is a row of its own."""
    items = value.items() if isinstance(value, Mapping) else [("", value)]
    found = {str(key): _finite(entry) for key, entry in items if key != "round"}
    return {key: entry for key, entry in found.items() if entry is not None}


def score_rows(
    metrics: Mapping[str, Any], *, final: str
) -> tuple[list[str], list[list[str]]]:
    """Names of scores, and one row of text per model: the final one, then baselines."""
    table = {final: _scores(metrics.get("final", {}))}
    baselines = metrics.get("baselines", {})
    if isinstance(baselines, Mapping):
        table |= {str(name): _scores(value) for name, value in baselines.items()}
    table = {name: row for name, row in table.items() if row}
    columns = list(dict.fromkeys(key for row in table.values() for key in row))
    rows = [
        [name, *(f"{row[c]:.4g}" if c in row else "" for c in columns)]
        for name, row in table.items()
    ]
    return columns, rows


def score_lines(metrics: Mapping[str, Any]) -> dict[str, Line]:
    """Each score's course over the rounds, where there is more than one round."""
    history = metrics.get("history", [])
    lines: dict[str, list[tuple[float, float]]] = {}
    for entry in history if isinstance(history, list) else []:
        if not isinstance(entry, Mapping):
            continue
        place = _finite(entry.get("round"))
        for name, value in _scores(entry).items():
            if place is not None:
                lines.setdefault(name, []).append((place, value))
    long = {name: line for name, line in lines.items() if len(line) > 1}
    return dict(list(long.items())[:_MAX_CHARTS])


def cost_rows(metrics: Mapping[str, Any]) -> tuple[list[Cost], bool]:
    """The steps whose costs were measured, and whether a part of them is missing."""
    costs = metrics.get("costs", {})
    if not isinstance(costs, Mapping):
        return [], False
    steps = costs.get("steps", [])
    rows = []
    for entry in steps if isinstance(steps, list) else []:
        if not isinstance(entry, Mapping) or not isinstance(entry.get("step"), str):
            continue
        fields = ("messages", "bytes_up", "bytes_down", "seconds")
        found = [_finite(entry.get(field)) for field in fields]
        messages, up, down, seconds = (max(0.0, value or 0.0) for value in found)
        rows.append(Cost(entry["step"], messages, up, down, seconds))
    return rows, costs.get("resumed") is True
