# SPDX-License-Identifier: Apache-2.0
"""What a page is made of: data for ``render.py`` to draw, made by ``page.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, final

from .utility import Line

__all__ = [
    "BarChart",
    "Block",
    "Chart",
    "GridChart",
    "LineChart",
    "Page",
    "Section",
    "Stamp",
]

Kind = Literal[
    "paragraph",
    "lead",
    "subheading",
    "list",
    "tagged",
    "table",
    "facts",
    "picture",
]


@final
@dataclass(frozen=True)
class LineChart:
    """Lines by name.

    limit
        the name and height of a horizontal line
    diagonal
        the name of the line y = x
    whole_x
        the places on the x axis are whole numbers: rounds
    log_x, log_y
        powers of ten along an axis; every value there is positive
    """

    points: Mapping[str, Line]
    x_label: str
    y_label: str
    limit: tuple[str, float] | None = None
    diagonal: str = ""
    whole_x: bool = False
    log_x: bool = False
    log_y: bool = False


@final
@dataclass(frozen=True)
class GridChart:
    """Who was what when: one row per name, one column per number.

    ``cells`` has one text per row, with one character per column: ``+`` in the sum,
    ``-`` left out, ``/`` nothing happened.  ``keys`` names the three in that order.
    """

    names: Sequence[str]
    columns: Sequence[int]
    cells: Sequence[str]
    x_label: str
    keys: tuple[str, str, str]

    @property
    def tall(self) -> bool:
        """Whether it needs a page of its own."""
        return len(self.names) > 30


@final
@dataclass(frozen=True)
class BarChart:
    """Panels side by side over the same steps; a panel's series lie end to end.

    ``panels`` maps a panel's label to its series, each with one value per step.
    """

    steps: Sequence[str]
    panels: Mapping[str, Mapping[str, Sequence[float]]]


Chart = LineChart | GridChart | BarChart


@final
@dataclass(frozen=True)
class Block:
    """One piece of a section; which fields count is said by ``kind``.

    table and facts
        ``text`` is the caption; ``head`` and ``rows`` the cells, as text.  A table of
        ``numeric`` cells keeps its columns; one of sentences may be stacked
    tagged
        ``rows`` are pairs of a short word and a sentence
    picture
        ``text`` is the caption, ``lines`` what a reader hears who sees no picture;
        ``chart`` holds the points
    """

    kind: Kind
    text: str = ""
    lines: Sequence[str] = ()
    head: Sequence[str] = ()
    rows: Sequence[Sequence[str]] = ()
    numeric: bool = True
    chart: Chart | None = None


@final
@dataclass(frozen=True)
class Section:
    """A heading and what stands under it."""

    heading: str
    blocks: Sequence[Block]


@final
@dataclass(frozen=True)
class Stamp:
    """A warning nobody can overlook."""

    word: str
    why: str


@final
@dataclass(frozen=True)
class Page:
    """The whole report, in reading order."""

    title: str
    subtitle: str
    stamps: Sequence[Stamp] = ()
    sections: Sequence[Section] = field(default=())
