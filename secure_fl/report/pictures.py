# SPDX-License-Identifier: Apache-2.0
"""Line charts as inline SVG: text stays text, and equal input gives equal bytes.

Drawn with matplotlib's SVG backend on a figure of its own: no window, no global state
of pyplot, no file and no date.
"""

from __future__ import annotations

import html
import io
from collections.abc import Mapping, Sequence
from typing import Final

__all__ = ["line_chart"]

# Dark enough for 4.5:1 on white; told apart by dashes and markers too.
_COLOURS: Final = ("#1f4e8c", "#a33b00", "#1b6b3a", "#6b2d8b", "#7a5c00", "#8b1a3a")
_DASHES: Final = ("-", "--", "-.", ":")
_MARKERS: Final = ("o", "s", "^", "D", "v", "P")
_LIMIT_COLOUR: Final = "#444444"
_MAX_LINES: Final = 12
_MAX_LABEL: Final = 40

_STYLE: Final[dict[str, object]] = {
    "svg.hashsalt": "secure-fl/report/1",
    "svg.fonttype": "none",
    "text.parse_math": False,
    "font.family": "sans-serif",
    "font.size": 11,
    "axes.spines.top": False,
    "axes.spines.right": False,
}

_NO_METADATA: Final = dict.fromkeys(("Date", "Creator", "Format", "Type"))


def line_chart(
    lines: Mapping[str, Sequence[tuple[float, float]]],
    *,
    x_label: str,
    y_label: str,
    alternative: str,
    identifier: str,
    limit: tuple[str, float] | None = None,
) -> str:
    """One ``<svg>`` element: a line per name, its points as (x, y) pairs.

    Lines that coincide are drawn once, under all their names.  ``alternative`` is what
    a reader hears who sees no picture; ``identifier`` is unique in its document.
    ``limit`` is the name and height of a horizontal line.  Points must be finite.
    """
    import matplotlib
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    with matplotlib.rc_context(_STYLE):
        figure = Figure(figsize=(5.4, 3.2), layout="constrained")
        canvas = FigureCanvasSVG(figure)
        axes = figure.add_subplot()
        for i, (name, points) in enumerate(_merged(lines)):
            axes.plot(
                [x for x, _ in points],
                [y for _, y in points],
                color=_COLOURS[i % len(_COLOURS)],
                linestyle=_DASHES[i % len(_DASHES)],
                marker=_MARKERS[i % len(_MARKERS)],
                markersize=4,
                label=_label(name),
            )
        if limit is not None:
            axes.axhline(limit[1], color=_LIMIT_COLOUR, linewidth=1.2, label=limit[0])
        axes.set_xlabel(_label(x_label))
        axes.set_ylabel(_label(y_label))
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set_ylim(bottom=0)
        axes.grid(axis="y", color="#dddddd", linewidth=0.6)
        if lines:
            axes.legend(frameon=False, fontsize=9)
        out = io.StringIO()
        canvas.print_svg(out, metadata=_NO_METADATA)
    return _embedded(out.getvalue(), alternative, identifier)


def _merged(
    lines: Mapping[str, Sequence[tuple[float, float]]],
) -> list[tuple[str, Sequence[tuple[float, float]]]]:
    """Equal lines under one name, so that none hides another; at most a dozen."""
    names: dict[tuple[tuple[float, float], ...], list[str]] = {}
    for name, points in lines.items():
        names.setdefault(tuple(points), []).append(name)
    merged: list[tuple[str, Sequence[tuple[float, float]]]]
    merged = [(_joined(group), points) for points, group in names.items()]
    if len(merged) > _MAX_LINES:
        # The highest lines are the ones a limit is about.
        merged.sort(key=lambda item: -max((y for _, y in item[1]), default=0.0))
    return merged[:_MAX_LINES]


def _label(text: str) -> str:
    """Names come from others: printable, short, and not hidden by an underscore."""
    clean = "".join(c if c.isprintable() else " " for c in text).lstrip("_ ")
    return clean if len(clean) <= _MAX_LABEL else clean[: _MAX_LABEL - 3] + "..."


def _joined(names: Sequence[str]) -> str:
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]} ... {names[-1]} ({len(names)})"


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
    label = html.escape(alternative, quote=True)
    return f'<svg viewBox="{view_box}" role="img" aria-label="{label}">{body}'.strip()
