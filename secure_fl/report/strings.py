# SPDX-License-Identifier: Apache-2.0
"""Every human sentence of the report, by id and language.

report.json carries ids, so that another language is another table beside this one.
Braces are filled by :func:`text`; nothing else is computed here.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from ..errors import UsageError
from .chinese import CHINESE
from .english import ENGLISH

__all__ = ["LANGUAGES", "TAGS", "text"]

LANGUAGES: Final[Mapping[str, Mapping[str, str]]] = {"en": ENGLISH, "zh": CHINESE}

TAGS: Final[Mapping[str, str]] = {"en": "en", "zh": "zh-Hans"}
"""What a page calls its language (BCP 47)."""


def text(key: str, *, language: str, values: Mapping[str, str]) -> str:
    """The sentence ``key`` in ``language``, its braces filled from ``values``.

    Raises UsageError for a language without a table; an unknown key is our own bug.
    """
    try:
        table = LANGUAGES[language]
    except KeyError:
        raise UsageError(
            f"no report in language {language!r}",
            hint="the languages are " + ", ".join(LANGUAGES),
        ) from None
    return table[key].format(**values)
