# SPDX-License-Identifier: Apache-2.0
"""``secure-fl policy``: write a client's own policy, and hold a plan against it."""

from __future__ import annotations

import contextlib
import json
import time
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from ..consent import Consent, Verdict
from ..plan import Plan, load_plan
from ..privacy import Ledger
from ..privacy.book import Book
from .output import output_option, put, safe

__all__ = ["group"]

_NO_LEDGER: Final = "no --home was given: as if nothing was ever charged"


@click.group("policy")
def group() -> None:
    """Write and try a client's own policy."""


@group.command("new")
@output_option
def new(output: Path | None) -> None:
    """Write a commented policy to start from: strict, and for this year."""
    text = resources.files(__package__).joinpath("policy_template.toml").read_text()
    put(text.format(year=datetime.now(UTC).year), output)


@group.command("check")
@click.argument("policy", metavar="POLICY", type=click.Path(path_type=Path))
@click.argument("file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    help="This client's home, or its ledger file: counts what was charged before.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(policy: Path, file: Path, home: Path | None, as_json: bool) -> None:
    """Show what every line of POLICY says to PLAN, before you sign it.

    All releases that PLAN budgets are counted as if they were made now. Exit 0 if no
    line refuses, else 4.
    """
    consent, plan = Consent.load(policy), load_plan(file)
    events = [plan.release] * (plan.rounds.count + plan.rounds.spare)
    verdicts = consent.verdicts(plan, _book(home, plan), events, now=int(time.time()))
    if as_json:
        click.echo(json.dumps(_as_dict(plan, verdicts), indent=2))
    else:
        _print(plan, verdicts, known=home is not None)
    consent.require(verdicts)


def _book(home: Path | None, plan: Plan) -> Book:
    if home is None:
        return Book("", plan.lineage)
    path = home if home.is_file() else home / "ledger.sqlite"
    with contextlib.closing(Ledger.existing(path)) as ledger:
        return ledger.book(plan.lineage)


def _print(plan: Plan, verdicts: list[Verdict], *, known: bool) -> None:
    console = Console(highlight=False, markup=False)
    console.print(f"plan {plan.hash.hex()}", soft_wrap=True)
    table = Table()
    table.add_column("line", justify="right")
    for heading in ("policy", "finding"):
        table.add_column(heading, overflow="fold")
    table.add_column("")
    for verdict in sorted(verdicts, key=lambda v: v.line):
        table.add_row(
            str(verdict.line or "-"),
            safe(verdict.entry),
            safe(verdict.finding),
            "REFUSED" if verdict.refused else "ok",
        )
    console.print(table)
    if not known:
        console.print(_NO_LEDGER, soft_wrap=True)


def _as_dict(plan: Plan, verdicts: list[Verdict]) -> dict[str, Any]:
    return {
        "plan_hash": plan.hash.hex(),
        "refused": any(v.refused for v in verdicts),
        "lines": [
            {
                "line": v.line or None,
                "entry": v.entry,
                "finding": v.finding,
                "refused": v.refused,
            }
            for v in verdicts
        ],
    }
