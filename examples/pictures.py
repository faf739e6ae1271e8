# SPDX-License-Identifier: Apache-2.0
"""One picture per data set, as SVG whose bytes follow from the figures alone.

Colours are those of Okabe and Ito, which colour-blind readers tell apart; markers and
dashes differ as well.  Bars are one sample standard deviation over the seeds.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any, Final

import matplotlib
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator
from measuring import Dataset

__all__ = ["draw"]

Row = Mapping[str, Any]

_COLOURS: Final = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#000000", "#56B4E9")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_DASHES: Final = ("-", "--", "-.", ":")
_STYLE: Final[dict[str, object]] = {
    "svg.hashsalt": "secure-fl/results",
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#dddddd",
}


def draw(dataset: Dataset, rows: Sequence[Row]) -> bytes:
    """The first metric over epsilon, or over labels with one panel for each epsilon."""
    limits = sorted({r["epsilon_limit"] for r in rows if r["epsilon_limit"]})
    panels: list[float | None] = [None] if dataset.axis == "epsilon" else [*limits]
    with matplotlib.rc_context(_STYLE):
        width = 6.4 if len(panels) == 1 else 3.2 * len(panels)
        figure = Figure(figsize=(width, 4.6), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        all_axes = figure.subplots(1, len(panels), sharey=True, squeeze=False)[0]
        for axes, limit in zip(all_axes, panels, strict=True):
            for place, method in enumerate(dataset.methods):
                _line(axes, dataset, place, _points(rows, method, limit), limits)
            _label(axes, dataset, limits, rows)
            if limit is not None:
                axes.set_title(f"epsilon {limit:g}", fontsize=10)
        all_axes[0].set_ylabel(dataset.metrics[0])
        handles, names = all_axes[0].get_legend_handles_labels()
        figure.legend(handles, names, loc="outside lower center", ncols=2)
        figure.suptitle(dataset.title, fontsize=11)
        out = io.StringIO()
        canvas.print_svg(
            out, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
    return (out.getvalue().rstrip() + "\n").encode()


def _points(rows: Sequence[Row], method: str, limit: float | None) -> list[Row]:
    """The method's rows in this panel; without privacy they are in every panel."""
    return [
        row
        for row in rows
        if row["method"] == method
        and (limit is None or row["epsilon_limit"] in (None, limit))
    ]


def _line(
    axes: Any, dataset: Dataset, place: int, points: list[Row], limits: list[float]
) -> None:
    if not points:
        return
    figures = [p["figures"][dataset.metrics[0]] for p in points]
    across = "epsilon_limit" if dataset.axis == "epsilon" else "labels"
    x, y = [p[across] for p in points], [f["mean"] for f in figures]
    bars = [f["deviation"] or 0.0 for f in figures]
    if x == [None]:  # no privacy: as good at every epsilon
        x, y, bars = [limits[0], limits[-1]], y * 2, bars * 2
    private = points[0]["epsilon_limit"] is not None
    axes.errorbar(
        x,
        y,
        yerr=bars,
        color=_COLOURS[place % len(_COLOURS)],
        marker=_MARKERS[place % len(_MARKERS)] if private else "",
        linestyle=_DASHES[place % len(_DASHES)] if private else (0, (1, 1)),
        markersize=5,
        capsize=3,
        label=points[0]["method"] + ("" if private else " (no privacy)"),
    )


def _label(
    axes: Any, dataset: Dataset, limits: list[float], rows: Sequence[Row]
) -> None:
    ticks = limits
    axes.set_xlabel("epsilon")
    if dataset.axis == "labels":
        ticks = sorted({row["labels"] for row in rows})
        axes.set_xlabel("labels at each member")
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(FixedLocator(ticks))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if dataset.percent:
        form = FuncFormatter(lambda value, _: f"{100 * value:g} %")
        axes.yaxis.set_major_formatter(form)
