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

    with _bar("uploads", clients, quiet=as_json) as uploaded:
        figures = bench_ckks(
            keys=keys, clients=clients, length=length, bits=bits, uploaded=uploaded
        )
    _put(asdict(figures), as_json=as_json)


@group.command("train")
@click.option(
    "--features", type=click.IntRange(1, 100_000), default=384, show_default=True
)
@click.option(
    "--classes", type=click.IntRange(2, 100_000), default=77, show_default=True
)
@click.option("--records", type=click.IntRange(1), default=10_000, show_default=True)
@click.option(
    "--rate",
    type=click.FloatRange(0, 1, min_open=True),
    default=0.1,
    show_default=True,
    help="Share of the records in a batch.",
)
@click.option("--steps", type=click.IntRange(1), default=20, show_default=True)
@click.option("--threads", type=click.IntRange(1, 1000), default=1, show_default=True)
@click.option("--repeats", type=click.IntRange(1), default=5, show_default=True)
@_json
def train(
    features: int,
    classes: int,
    records: int,
    rate: float,
    steps: int,
    threads: int,
    repeats: int,
    as_json: bool,
) -> None:
    """A head trained in every way: CPU seconds and bytes.

    A linear head on cached features: without privacy, with it, and through Opacus, each
    in a process of its own, in turn.  CPU seconds are those of one step, of all threads
    together.
    """
    from ..engines.bench_train import WAYS, bench_train

    with _bar("turns", len(WAYS) * (1 + repeats), quiet=as_json) as turned:
        figures = bench_train(
            features=features,
            classes=classes,
            records=records,
            rate=rate,
            steps=steps,
            threads=threads,
            repeats=repeats,
            turned=turned,
        )
    _put(asdict(figures), as_json=as_json)


@contextmanager
def _bar(what: str, total: int, *, quiet: bool) -> Iterator[Callable[[], None]]:
    """A bar on stderr where that is a terminal, silence elsewhere."""
    with Progress(
        what,
        BarColumn(bar_width=20),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=quiet or not sys.stderr.isatty(),
    ) as bar:
        task = bar.add_task(what, total=total)
        yield lambda: bar.advance(task)


def _put(figures: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(figures))
        return
    lines = dict(_lines(figures))
    widest = max(map(len, lines))
    for key, value in lines.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        click.echo(f"{key:{widest}}  {shown}")


def _lines(figures: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """What has a figure for each of several ways takes a line for each."""
    for key, value in figures.items():
        if isinstance(value, dict):
            yield from ((f"{key}.{way}", each) for way, each in value.items())
        else:
            yield key, value
