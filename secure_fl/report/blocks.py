# SPDX-License-Identifier: Apache-2.0
"""What a page is made of: data for ``render.py`` to draw, made by ``page.py``."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal, final

from .utility import Line

__all__ = ["Block", "Chart", "Page", "Section", "Stamp"]

Kind = Literal[
    "paragraph", "lead", "view", "subheading", "list", "table", "facts", "picture"
]


@final
@dataclass(frozen=True)
class Block:
    """One piece of a section; which fields count is said by ``kind``.

    table and facts
        ``text`` is the caption; ``head`` and ``rows`` the cells, as text
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
class Chart:
    """Lines by name, axis labels, and the plan's limit where it belongs."""

    points: Mapping[str, Line]
    x_label: str
    y_label: str
    limit: tuple[str, float] | None = None


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
