# SPDX-License-Identifier: Apache-2.0
"""Where a verb's text goes."""

from __future__ import annotations

from pathlib import Path

import click

from ..errors import UsageError

__all__ = ["output_option", "put", "safe", "say"]

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
    try:
        with output.open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError:
        raise UsageError(f"{output} exists", hint="choose another file") from None


def safe(text: str) -> str:
    """As it is, unless it would move the cursor or begin a line of its own.

    Names of files, and names in files, are a stranger's.
    """
    return text if text.isprintable() else ascii(text)


def say(kind: str, text: str) -> None:
    """One line on stderr: what every error and hint looks like."""
    click.echo(f"secure-fl: {kind}: {safe(' '.join(text.split()))}", err=True)
