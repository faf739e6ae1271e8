# SPDX-License-Identifier: Apache-2.0
"""Charts as inline SVG: text stays text, and equal input gives equal bytes.

Drawn with matplotlib's SVG backend on a figure of its own: no window, no global state
of pyplot, no file and no date.  Letters come from the page's font, so that every
language has one; nothing is told by colour alone.
"""

from __future__ import annotations

import html
import io
import re
import warnings
from typing import Any, Final

from .blocks import BarChart, Chart, GridChart, LineChart
from .cells import joined
from .utility import Line

__all__ = ["draw"]

# Dark enough for 4.5:1 on white; told apart by dashes and markers too.
_COLOURS: Final = ("#1f4e8c", "#a33b00", "#1b6b3a", "#6b2d8b", "#7a5c00", "#8b1a3a")
_DASHES: Final = ("-", "--", "-.", ":")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_GREY: Final = "#444444"
_PALE: Final = "#c9d6e8"
_MAX_LINES: Final = 12
_MAX_LABEL: Final = 40
# Rows that still have a letter's height each, on a picture as high as a page.
_MAX_LABELS: Final = 100
# Columns that still stand apart; of more, neighbours are one bar, and the page small.
_MAX_APART: Final = 60
_WIDTH: Final = 5.4

_STYLE: Final[dict[str, object]] = {
    "svg.hashsalt": "secure-fl/report/2",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _GREY,
    "hatch.linewidth": 0.6,
}

_NO_METADATA: Final = dict.fromkeys(("Date", "Creator", "Format", "Type"))
_FONT: Final = re.compile(r"font-family: [^;\"]*;? ?")


def draw(chart: Chart, *, alternative: str, identifier: str) -> str:
    """One ``<svg>`` element.

    ``alternative`` is what a reader hears who sees no picture; ``identifier`` is unique
    in its document.  Points must be finite.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.rc_context(_STYLE), warnings.catch_warnings():
        # It measures letters with a font of its own, which has not all of them.
        warnings.filterwarnings("ignore", message="Glyph ")
        figure = Figure(figsize=(_WIDTH, _height(chart)), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        match chart:
            case LineChart():
                _lines(figure, chart)
            case GridChart():
                _grid(figure, chart)
            case BarChart():
                _bars(figure, chart)
        out = io.StringIO()
        canvas.print_svg(out, metadata=_NO_METADATA)
    return _embedded(out.getvalue(), alternative, identifier)


def _height(chart: Chart) -> float:
    """In inches; no picture is higher than a page of paper."""
    match chart:
        case LineChart():
            return 3.2
        case GridChart(names):
            return 1.1 + min(9.0, len(names) * (0.09 if chart.tall else 0.22))
        case BarChart(steps):
            return 1.5 + min(8.0, len(steps) * 0.3)


# -- lines -----------------------------------------------------------------------------


def _lines(figure: Any, chart: LineChart) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

    axes = figure.add_subplot()
    for i, (name, points) in enumerate(_merged(chart)):
        axes.plot(
            [x for x, _ in points],
            [y for _, y in points],
            color=_COLOURS[i % len(_COLOURS)],
            linestyle=_DASHES[i % len(_DASHES)],
            marker=_MARKERS[i % len(_MARKERS)],
            markersize=4,
            label=_label(name),
        )
    if chart.limit is not None:
        name, height = chart.limit
        axes.axhline(height, color=_GREY, linewidth=1.2, label=_label(name))
    for letter, log in (("x", chart.log_x), ("y", chart.log_y)):
        if log:
            axes.set(**{f"{letter}scale": "log"})
            axis = getattr(axes, f"{letter}axis")
            axis.set_major_locator(LogLocator(base=10, numticks=12))
            axis.set_minor_locator(NullLocator())
            # Plain text: matplotlib's own powers are built from several pieces.
            axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    if chart.whole_x:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    if not chart.log_y:
        axes.set_ylim(*_range(chart))
    if chart.diagonal:
        low, high = axes.get_xlim()
        axes.plot(
            [low, high],
            [low, high],
            color=_GREY,
            linewidth=1,
            label=_label(chart.diagonal),
        )
        axes.set_xlim(low, high)
    axes.set_xlabel(_label(chart.x_label))
    axes.set_ylabel(_label(chart.y_label))
    axes.grid(axis="y", color="#dddddd", linewidth=0.6)
    if len(axes.lines) > 1:
        axes.legend(frameon=False, fontsize=9)


def _range(chart: LineChart) -> tuple[float, float]:
    """From zero to the highest point, and room for its marker."""
    heights = [y for points in chart.points.values() for _, y in points]
    heights += [chart.limit[1]] if chart.limit is not None else []
    low, high = min([0.0, *heights]), max([0.0, *heights])
    room = 0.06 * (high - low or 1.0)
    return (low - room if low < 0 else 0.0), high + room


def _merged(chart: LineChart) -> list[tuple[str, Line]]:
    """Equal lines under one name, so that none hides another; at most a dozen."""
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, points in chart.points.items():
        names.setdefault(tuple(points), []).append(name)
    merged: list[tuple[str, Line]]
    merged = [(joined(group), points) for points, group in names.items()]
    if len(merged) > _MAX_LINES:
        # The highest lines are the ones a limit is about.
        merged.sort(key=lambda item: -max((y for _, y in item[1]), default=0.0))
    return merged[:_MAX_LINES]


# -- who took part ---------------------------------------------------------------------


def _grid(figure: Any, chart: GridChart) -> None:
    """Filled: in the sum.  Empty: left out.  Hatched: no attempt succeeded."""
    from matplotlib.patches import Patch, PathPatch

    axes = figure.add_subplot()
    looks: dict[str, dict[str, Any]] = {
        "+": {"facecolor": _COLOURS[0], "edgecolor": "white"},
        "-": {"facecolor": "white", "edgecolor": _GREY},
        "/": {"facecolor": "#eeeeee", "edgecolor": "#777777", "hatch": "////"},
    }
    thin = 0.3 if chart.tall else 0.8
    for kind, look in looks.items():
        path = _cells(chart, kind)
        if path is not None:
            axes.add_patch(PathPatch(path, linewidth=thin, **look))
    rows, columns = len(chart.names), len(chart.columns)
    every = -(-rows // _MAX_LABELS)
    axes.set_yticks(
        range(0, rows, every),
        [_label(name) for name in chart.names[::every]],
        fontsize=6 if chart.tall else 9,
    )
    step = max(1, -(-columns // 12))
    axes.set_xticks(range(0, columns, step), [str(c) for c in chart.columns[::step]])
    axes.set_xlim(-0.5, columns - 0.5)
    axes.set_ylim(rows - 0.5, -0.5)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(_label(chart.x_label))
    axes.legend(
        handles=[
            Patch(label=_label(key), linewidth=0.8, **(look | {"edgecolor": _GREY}))
            for key, look in zip(chart.keys, looks.values(), strict=True)
        ],
        frameon=False,
        fontsize=9,
        ncols=3,
        loc="lower left",
        bbox_to_anchor=(0, 1),
    )


def _cells(chart: GridChart, kind: str) -> Any:
    """The outline of all cells of one kind, as one path; None where there is none."""
    from matplotlib.path import Path

    points: list[tuple[float, float]] = []
    for row, cells in enumerate(chart.cells):
        for first, last in _runs(cells, kind):
            left, right = first - 0.46, last + 0.46
            top, bottom = row - 0.42, row + 0.42
            points += [(left, top), (right, top), (right, bottom), (left, bottom)]
            points.append((left, top))
    if not points:
        return None
    codes = [Path.MOVETO, Path.LINETO, Path.LINETO, Path.LINETO, Path.CLOSEPOLY]
    return Path(points, codes * (len(points) // 5))


def _runs(cells: str, kind: str) -> list[tuple[int, int]]:
    """First and last column of each bar of one kind in one row."""
    runs: list[tuple[int, int]] = []
    for column, cell in enumerate(cells):
        if cell != kind:
            continue
        if runs and runs[-1][1] == column - 1 and len(cells) > _MAX_APART:
            runs[-1] = (runs[-1][0], column)
        else:
            runs.append((column, column))
    return runs


# -- costs -----------------------------------------------------------------------------


def _bars(figure: Any, chart: BarChart) -> None:
    panels = figure.subplots(1, len(chart.panels), sharey=True, squeeze=False)[0]
    looks = (
        {"facecolor": _COLOURS[0]},
        {"facecolor": _PALE, "edgecolor": _COLOURS[0], "hatch": "///"},
    )
    places = range(len(chart.steps))
    for axes, (label, series) in zip(panels, chart.panels.items(), strict=True):
        left = [0.0] * len(chart.steps)
        for (name, values), look in zip(series.items(), looks, strict=False):
            axes.barh(places, values, left=left, height=0.6, label=_label(name), **look)
            left = [a + b for a, b in zip(left, values, strict=True)]
        axes.set_xlabel(_label(label))
        axes.set_xlim(left=0)
        axes.locator_params(axis="x", nbins=4)
        axes.grid(axis="x", color="#dddddd", linewidth=0.6)
        axes.set_axisbelow(True)
        if len(series) > 1:
            axes.legend(
                frameon=False,
                fontsize=9,
                loc="lower left",
                bbox_to_anchor=(0, 1),
            )
    panels[0].set_yticks(places, [_label(step) for step in chart.steps])
    panels[0].invert_yaxis()


# -- text and frame --------------------------------------------------------------------


def _label(text: str) -> str:
    """Names come from others: printable, short, and not hidden by an underscore."""
    clean = "".join(c if c.isprintable() else " " for c in text).lstrip("_ ")
    return clean if len(clean) <= _MAX_LABEL else clean[: _MAX_LABEL - 3] + "..."


def _embedded(svg: str, alternative: str, identifier: str) -> str:
    """The bare element: no prologue, no addresses, identifiers of its own, a name."""
    start = svg.index("<svg")
    opening_end = svg.index(">", start) + 1
    opening, body = svg[start:opening_end], svg[opening_end:]
    view_box = opening.partition('viewBox="')[2].partition('"')[0]
    # Matplotlib repeats its few ids in every figure; inside one page they must differ.
    body = body.replace('id="', f'id="{identifier}-')
    body = body.replace('href="#', f'href="#{identifier}-')
    body = body.replace("url(#", f"url(#{identifier}-")
    body = body.replace("xlink:href", "href")
    body = _FONT.sub("", body)
    label = html.escape(alternative, quote=True)
    return f'<svg viewBox="{view_box}" role="img" aria-label="{label}">{body}'.strip()
