# SPDX-License-Identifier: Apache-2.0
"""``secure-fl bench``: measure this machine."""

from __future__ import annotations

import json
from dataclasses import asdict

import click

__all__ = ["group"]


@click.group("bench")
def group() -> None:
    """Measure speed and size on this machine."""


@group.command("masking")
@click.option("--clients", type=click.IntRange(3, 1000), default=10, show_default=True)
@click.option("--dropped", type=click.IntRange(0), default=0, show_default=True)
@click.option("--length", type=click.IntRange(2), default=100_000, show_default=True)
@click.option("--bits", type=click.IntRange(8, 64), default=32, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def masking(clients: int, dropped: int, length: int, bits: int, as_json: bool) -> None:
    """One masking context: seconds, bytes and exactness."""
    from ..engines.bench import bench_masking

    figures = asdict(
        bench_masking(clients=clients, dropped=dropped, length=length, bits=bits)
    )
    if as_json:
        click.echo(json.dumps(figures))
        return
    for key, value in figures.items():
        shown = f"{value:.4g}" if isinstance(value, float) else str(value)
        click.echo(f"{key:20}  {shown}")
