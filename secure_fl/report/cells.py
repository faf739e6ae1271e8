# SPDX-License-Identifier: Apache-2.0
"""Figures for people: short, and each with the place in report.json it came from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from decimal import ROUND_CEILING, ROUND_HALF_EVEN, Context
from typing import Any, Final, final

from .english import ENGLISH
from .figures import INFINITY

__all__ = [
    "Figure",
    "Say",
    "at",
    "bound",
    "grouped",
    "is_infinite",
    "joined",
    "number",
    "word",
]

_NEAREST: Final = Context(prec=4, rounding=ROUND_HALF_EVEN)
_UP: Final = Context(prec=4, rounding=ROUND_CEILING)
# Where every figure is an upper bound, or one that the plan sets.
_BOUNDS: Final = ("claims", "epsilon_over_rounds")

Say = Callable[..., str]
"""A sentence by its id, braces filled from keywords, in the page's language."""


@final
class Figure(str):
    """A cell's text that is a value of report.json; ``source`` is its JSON pointer."""

    source: str

    def __new__(cls, text: str, source: str) -> Figure:
        made = super().__new__(cls, text)
        made.source = source
        return made


def number(value: float | str) -> str:
    """The nearest of 4 significant digits; a whole number, and a word, as it is."""
    return _short(value, _NEAREST)


def bound(value: float | str) -> str:
    """An upper bound for people: the same, but never less than the value."""
    return _short(value, _UP)


def _short(value: float | str, context: Context) -> str:
    if isinstance(value, str):
        return "∞" if value == INFINITY else value
    if value == round(value) and abs(value) < 1e15:
        return f"{value:.0f}"
    short = float(context.create_decimal(repr(value)))
    # A figure of five or more digits is not read well as a power of ten.
    return f"{short:.0f}" if 1e4 <= abs(short) < 1e15 else f"{short:.4g}"


def word(say: Say, kind: str, name: str) -> str:
    """The word for a name that others may have given; where there is none, the name."""
    key = f"{kind}.{name}"
    return say(key) if key in ENGLISH else name


def is_infinite(value: float | str) -> bool:
    """Whether an epsilon of report.json has no bound."""
    return value == INFINITY


def at(report: Mapping[str, Any], *path: str | int) -> Figure:
    """The value at ``path`` as a figure that knows where it came from (RFC 6901).

    What belongs to a claim is rounded as a :func:`bound`, all else as a number.
    """
    value: Any = report
    for key in path:
        value = value[key]
    parts = [str(key).replace("~", "~0").replace("/", "~1") for key in path]
    shown = bound(value) if path[0] in _BOUNDS else number(value)
    return Figure(shown, "".join(f"/{part}" for part in parts))


def grouped(rows: Mapping[str, Sequence[str]]) -> list[list[str]]:
    """Rows of cells with a name in front; equal rows are one, under a joint name."""
    names: dict[tuple[str, ...], list[str]] = {}
    first: dict[tuple[str, ...], Sequence[str]] = {}
    for name, cells in rows.items():
        names.setdefault(tuple(cells), []).append(name)
        first.setdefault(tuple(cells), cells)
    return [[joined(group), *first[cells]] for cells, group in names.items()]


def joined(names: Sequence[str]) -> str:
    """Names for a place with little room."""
    if len(names) <= 4:
        return ", ".join(names)
    return f"{names[0]} ... {names[-1]} ({len(names)})"
