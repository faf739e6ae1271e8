# SPDX-License-Identifier: Apache-2.0
"""report.html and report.txt: one page, drawn twice.

The HTML is self-contained: no script, no address, no font from elsewhere.  Both are
pure functions of report.json and metrics.json.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from ..errors import UsageError
from .blocks import Block, GridChart, Page
from .cells import Figure
from .columns import width, wrapped
from .page import make_page
from .pictures import draw
from .strings import TAGS

__all__ = ["render_html", "render_text", "require_pages"]

WIDTH: Final = 80
_FOLDER: Final = Path(__file__).parent


def render_html(
    report: Mapping[str, Any], metrics: Mapping[str, Any], *, language: str = "en"
) -> str:
    """The report for a browser and for paper, as one document.

    Raises UsageError for a language without a table of strings, or where jinja2 or
    matplotlib is not installed.
    """
    require_pages()
    return _html(make_page(report, metrics, language=language), language)


def require_pages() -> None:
    """Raises UsageError, saying what to install, where no HTML can be drawn."""
    for name in ("jinja2", "matplotlib"):
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"{name} is not installed",
                hint='install it with: pip install "secure-fl[report]"',
            )


def _html(page: Page, language: str) -> str:
    import jinja2
    from markupsafe import Markup

    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
    )
    blocks = [b for s in page.sections for b in s.blocks if b.kind == "picture"]

    def picture(block: Block) -> Markup:
        # Its texts were escaped by matplotlib, its name by draw.
        return Markup(_svg(block, blocks.index(block)))  # noqa: S704

    template = environment.get_template("report.html.j2")
    return template.render(
        page=page, language=TAGS[language], picture=picture, tall=_tall, source=_source
    )


def _svg(block: Block, place: int) -> str:
    assert block.chart is not None
    return draw(block.chart, alternative=block.lines[0], identifier=f"picture{place}")


def _tall(block: Block) -> bool:
    return isinstance(block.chart, GridChart) and block.chart.tall


def _source(cell: str) -> str:
    """Where in report.json a figure came from; nothing for words."""
    return cell.source if isinstance(cell, Figure) else ""


# -- text ------------------------------------------------------------------------------


def render_text(
    report: Mapping[str, Any], metrics: Mapping[str, Any], *, language: str = "en"
) -> str:
    """The report for a terminal or a letter: at most 80 columns, no control characters.

    Raises UsageError for a language without a table of strings.
    """
    page = make_page(report, metrics, language=language)
    lines: list[str] = []
    lines += _wrapped(page.title)
    lines.append("=" * min(WIDTH, max(map(width, lines))))
    lines += _wrapped(page.subtitle)
    for stamp in page.stamps:
        lines += ["", f"*** {stamp.word} ***", *_wrapped(stamp.why)]
    for section in page.sections:
        lines += ["", "", section.heading, "-" * width(section.heading)]
        for block in section.blocks:
            lines += ["", *_text_of(block)]
    return "\n".join(line.rstrip() for line in lines) + "\n"


def _clean(text: str) -> str:
    """Names and reasons come from others: nothing of theirs moves a cursor."""
    return "".join(c if c.isprintable() else " " for c in text)


def _wrapped(text: str, *, first: str = "", then: str = "") -> list[str]:
    return wrapped(_clean(text), WIDTH, first=first, then=then)


def _text_of(block: Block) -> list[str]:
    match block.kind:
        case "list":
            return [
                line
                for item in block.lines
                for line in _wrapped(item, first="- ", then="  ")
            ]
        case "tagged":
            return [
                line
                for tag, sentence in block.rows
                for line in _wrapped(f"[{tag}] {sentence}", first="- ", then="  ")
            ]
        case "table":
            return [*_wrapped(block.text), *_table(block.head, block.rows)]
        case "facts":
            out = _wrapped(block.text)
            for name, value in block.rows:
                out += _wrapped(f"{name}:", first="  ", then="  ")
                out += _wrapped(value, first="    ", then="    ")
            return out
        case "picture":
            return _wrapped(block.lines[0])
        case _:
            return _wrapped(block.text)


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """Columns where they fit; else one paragraph per row, each cell under its name."""
    cells = [[_clean(cell) for cell in row] for row in rows]
    words = [min(16, max(map(width, name.split()), default=0)) for name in head]
    widths = [max([w, *(width(row[i]) for row in cells)]) for i, w in enumerate(words)]
    if 2 + sum(widths) + 2 * (len(widths) - 1) > WIDTH:
        return [line for row in cells for line in _paragraph(head, row)]
    names = [wrapped(name, w) for name, w in zip(head, widths, strict=True)]
    tall = max(map(len, names))
    top = [[""] * (tall - len(name)) + name for name in names]
    rule = ["-" * w for w in widths]
    return [
        "  "
        + "  ".join(c + " " * (w - width(c)) for c, w in zip(row, widths, strict=True))
        for row in [*zip(*top, strict=True), rule, *cells]
    ]


def _paragraph(head: Sequence[str], row: Sequence[str]) -> Iterator[str]:
    yield from _wrapped(f"{head[0]}: {row[0]}", first="  ", then="    ")
    for name, cell in zip(head[1:], row[1:], strict=True):
        if cell:
            yield from _wrapped(f"{name}: {cell}", first="    ", then="      ")
