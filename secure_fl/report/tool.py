# SPDX-License-Identifier: Apache-2.0
"""Which software wrote a run: one line of text in the transcript, and its parts.

The line stands in the signed start of the transcript, so that a report rebuilt by
another version names the version that ran.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import platform
import re
from typing import Any, Final

__all__ = ["read_tool", "tool_text"]

_WORD: Final = r"[0-9A-Za-z][0-9A-Za-z.+_!-]*"
_FORM: Final = re.compile(
    rf"({_WORD}) ({_WORD}) \(({_WORD} {_WORD}(?:, {_WORD} {_WORD})*)\)"
)


def tool_text(version: str) -> str:
    """This package, of ``version``, and what its figures depend on.

    ``secure-fl 0.1.0 (dp-accounting 0.6.0, numpy 2.4.6, python 3.11.7)``; a library
    that is not installed is left out.  Nothing is imported for it.
    """
    listed = []
    for library in ("dp-accounting", "numpy"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            listed.append(f"{library} {importlib.metadata.version(library)}")
    listed.append(f"python {platform.python_version()}")
    return f"secure-fl {version} ({', '.join(listed)})"


def read_tool(text: str) -> dict[str, Any]:
    """The parts of such a line; a line of another form is a name and nothing else."""
    found = _FORM.fullmatch(text)
    if found is not None:
        name, version, listed = found.groups()
        rows = [item.partition(" ")[::2] for item in listed.split(", ")]
        libraries = dict(rows)
        if len(libraries) == len(rows):
            return {"name": name, "version": version, "libraries": libraries}
    return {"name": text, "version": "", "libraries": {}}
