# SPDX-License-Identifier: Apache-2.0
"""Lines of a terminal: how wide a text is there, and where it may be broken.

Chinese characters are two columns wide and may be broken almost anywhere; words of
letters only at spaces.  ``textwrap`` knows neither.
"""

from __future__ import annotations

import re
import unicodedata
from typing import Final

__all__ = ["width", "wrapped"]

# Spaces, one wide character with the marks that must not begin a line, or a word.
_PIECES: Final = re.compile(
    "\\s+|[\u2e80-\u9fff\uff01-\uff60][\u3001\u3002\uff01\uff09\uff0c\uff1a\uff1b\uff1f]*"
    "|[^\\s\u2e80-\u9fff\uff01-\uff60]+[\u3001\u3002\uff01\uff09\uff0c\uff1a\uff1b\uff1f]*"
)


def width(text: str) -> int:
    """Columns of ``text`` in a terminal."""
    return sum(2 if unicodedata.east_asian_width(c) in "WF" else 1 for c in text)


def wrapped(text: str, limit: int, *, first: str = "", then: str = "") -> list[str]:
    """Lines of at most ``limit`` columns, begun by ``first`` and then by ``then``."""
    lines: list[str] = []
    line, start = first, first
    for piece in _PIECES.findall(text):
        if piece.isspace():
            line += " " if line != start else ""
            continue
        for part in _parts(piece, limit - max(width(first), width(then))):
            if line != start and width(line) + width(part) > limit:
                lines.append(line.rstrip())
                line = start = then
            line += part
    return [*lines, line.rstrip()] if line != start else lines


def _parts(piece: str, most: int) -> list[str]:
    """A word longer than a line, cut where the line ends."""
    if width(piece) <= most:
        return [piece]
    parts = [""]
    for character in piece:
        if width(parts[-1]) + width(character) > most:
            parts.append("")
        parts[-1] += character
    return parts
