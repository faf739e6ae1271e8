# SPDX-License-Identifier: Apache-2.0
"""docs/results.md: tables, targets beside what was measured, and the words to them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from measuring import Dataset, Target

__all__ = ["page"]

Row = Mapping[str, Any]

_HEAD: Final = """\
# Results

Written by `examples/results.py`; the figures are also in [results.json](results.json).

A figure is the mean over seeds, with one sample standard deviation. A seed is another
deal of the rows to the members, and other noise. Epsilon is for one record, at the
delta beside it, as the runs' own reports say: in distributed mode against the
aggregator and those who collude with it. All figures are from held-out rows.
"Pooled, private" and "alone, private" are trained in one place, on all rows or on one
member's, with the same promise. What has no epsilon is not private at all, and stands
there for comparison.
"""


def page(datasets: Sequence[Dataset], results: Mapping[str, Any]) -> str:
    """All data sets, in the order given."""
    parts = [_HEAD]
    for dataset in datasets:
        found = results[dataset.name]
        parts += [
            f"## {dataset.title}\n",
            f"![{dataset.title}](results/{dataset.name}.svg)\n",
            *_targets(dataset, found["rows"]),
            *_tables(dataset, found),
            dataset.text.strip() + "\n",
        ]
    return "\n".join(parts)


def _tables(dataset: Dataset, found: Mapping[str, Any]) -> list[str]:
    """One for each metric: a row per way of training, a column per epsilon."""
    rows: Sequence[Row] = found["rows"]
    limits = sorted({r["epsilon_limit"] for r in rows if r["epsilon_limit"]})
    labelled = any(row["labels"] is not None for row in rows)
    place = {method: i for i, method in enumerate(dataset.methods)}
    kinds = sorted(
        {(row["method"], row["labels"]) for row in rows},
        key=lambda kind: (place.get(kind[0], len(place)), kind[0], kind[1] or 0),
    )
    parts = []
    for metric in dataset.metrics:
        unit = ", %" if dataset.percent else ""
        head = [f"{metric}{unit}", *(["labels each"] if labelled else [])]
        head += [*(f"epsilon {limit:g}" for limit in limits), "no privacy", "seeds"]
        lines = [_line(head), _line(["---"] * len(head))]
        for method, labels in kinds:
            own = [r for r in rows if (r["method"], r["labels"]) == (method, labels)]
            figures = {
                r["epsilon_limit"]: _cell(dataset, r["figures"].get(metric))
                for r in own
            }
            cells = [method, *([str(labels or "")] if labelled else [])]
            cells += [figures.get(limit, "") for limit in (*limits, None)]
            lines.append(_line([*cells, str(len(own[0]["seeds"]))]))
        parts.append("\n".join(lines) + "\n")
    return [*parts, _spent(rows, limits, found["delta"])]


def _spent(rows: Sequence[Row], limits: Sequence[float], delta: float) -> str:
    """Of all rows together; results.json has each row's."""
    told = []
    for limit in limits:
        spent = [r["epsilon"] for r in rows if r["epsilon_limit"] == limit]
        told.append(f"{max(spent):.6g} of {limit:g}")
    return (
        f"The largest epsilon that any of these rows spent, at delta {delta:g}: "
        f"{'; '.join(told)}.\n"
    )


def _cell(dataset: Dataset, figure: Mapping[str, Any] | None) -> str:
    if figure is None:
        return ""
    mean = _shown(dataset, figure["mean"], "")
    if figure["deviation"] is None:
        return mean
    return f"{mean} ± {_shown(dataset, figure['deviation'], '')}"


def _shown(dataset: Dataset, value: float, unit: str) -> str:
    return f"{100 * value:.2f} {unit}".rstrip() if dataset.percent else f"{value:.4f}"


def _targets(dataset: Dataset, rows: Sequence[Row]) -> list[str]:
    if not dataset.targets:
        return []
    head = ["asked for", "epsilon", "at least", "measured", ""]
    lines = [_line(head), _line(["---"] * len(head))]
    for target in dataset.targets:
        measured = _mean(rows, target, target.method)
        asked = f"{target.metric}: {target.method}"
        unit = "%"
        if target.against is not None:
            measured -= _mean(rows, target, target.against)
            asked += f" minus {target.against}"
            unit = "points"
        missing = target.least - measured
        miss = f"missed by {_shown(dataset, missing, 'points')}"
        limit = "none" if target.epsilon is None else f"{target.epsilon:g}"
        shown = [_shown(dataset, value, unit) for value in (target.least, measured)]
        lines.append(_line([asked, limit, *shown, "met" if missing <= 0 else miss]))
    return ["\n".join(lines) + "\n"]


def _mean(rows: Sequence[Row], target: Target, method: str) -> float:
    for row in rows:
        if row["method"] == method and row["epsilon_limit"] == target.epsilon:
            mean: float = row["figures"][target.metric]["mean"]
            return mean
    raise LookupError(f"no row {method!r} at epsilon {target.epsilon}")


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"
