# SPDX-License-Identifier: Apache-2.0
"""``secure-fl bench``: measure this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn

if TYPE_CHECKING:
    from ..ckks import Keys

__all__ = ["group"]

_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("bench")
def group() -> None:
    """Measure speed and size on this machine."""


@group.command("masking")
@click.option("--clients", type=click.IntRange(3, 1000), default=10, show_default=True)
@click.option("--dropped", type=click.IntRange(0), default=0, show_default=True)
@click.option("--length", type=click.IntRange(2), default=100_000, show_default=True)
@click.option("--bits", type=click.IntRange(8, 64), default=32, show_default=True)
@_json
def masking(clients: int, dropped: int, length: int, bits: int, as_json: bool) -> None:
    """One masking context: seconds, bytes and exactness."""
    from ..engines.bench import bench_masking

    _put(
        asdict(
            bench_masking(clients=clients, dropped=dropped, length=length, bits=bits)
        ),
        as_json=as_json,
    )


@group.command("ckks")
@click.option(
    "--keys",
    type=click.Choice(["one-time", "keyholder"]),
    default="one-time",
    show_default=True,
)
@click.option("--clients", type=click.IntRange(3, 1000), default=10, show_default=True)
@click.option("--length", type=click.IntRange(2), default=100_000, show_default=True)
@click.option("--bits", type=click.IntRange(8, 64), default=16, show_default=True)
@_json
def ckks(keys: Keys, clients: int, length: int, bits: int, as_json: bool) -> None:
    """One CKKS context: seconds, bytes and exactness."""
    from ..engines.bench_ckks import bench_ckks

    with _uploads(clients, quiet=as_json) as uploaded:
        figures = bench_ckks(
            keys=keys, clients=clients, length=length, bits=bits, uploaded=uploaded
        )
    _put(asdict(figures), as_json=as_json)


@contextmanager
def _uploads(clients: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on stderr where that is a terminal, silence elsewhere."""
    with Progress(
        "uploads",
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task("uploads", total=clients)
        yield lambda: bar.advance(task)


def _put(figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures))
        return
    widest = max(map(len, figures))
    for key, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        click.echo(f"{key:{widest}}  {shown}")
