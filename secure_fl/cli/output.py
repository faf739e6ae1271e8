# SPDX-License-Identifier: Apache-2.0
"""Where a verb's text goes."""

from __future__ import annotations

import math
from pathlib import Path

import click

from ..errors import UsageError
from ..report.figures import INFINITY

__all__ = ["create", "json_number", "output_option", "put", "safe", "say"]

output_option = click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="A file instead of stdout; never overwritten.",
)


def put(text: str, output: Path | None) -> None:
    """To stdout, or into a new file.  Raises UsageError where there is one."""
    if output is None:
        click.echo(text, nl=False)
        return
    create(output, text.encode())


def create(output: Path, data: bytes) -> None:
    """A new file.  Raises UsageError where there is one."""
    try:
        with output.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise UsageError(f"{output} exists", hint="choose another file") from None


def json_number(value: float) -> float | str:
    """JSON has no infinity."""
    return value if math.isfinite(value) else INFINITY


def safe(text: str) -> str:
    """As it is, unless it would move the cursor or begin a line of its own.

    Names of files, and names in files, are a stranger's.
    """
    return text if text.isprintable() else ascii(text)


def say(kind: str, text: str) -> None:
    """One line on stderr: what every error and hint looks like."""
    click.echo(f"secure-fl: {kind}: {safe(' '.join(text.split()))}", err=True)
