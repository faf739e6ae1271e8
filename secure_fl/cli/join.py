# SPDX-License-Identifier: Apache-2.0
"""``secure-fl join`` and ``leave``: what an organisation's host answers for."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import click

from ..engines.home import Joined, MemberHome
from ..errors import UsageError
from ..plan import load_plan
from .output import safe

__all__ = ["join", "leave"]

_WIDTH: Final = 66  # what is left of 80 columns behind a label, and three dots

_home_option = click.option(
    "--home",
    type=click.Path(path_type=Path),
    envvar="SECURE_FL_HOME",
    required=True,
    help="This organisation's folder of ledger, keystore and plans, mode 0700.",
)


@click.command(
    "join", short_help="Consent to PLAN, and answer its aggregator from now on."
)
@click.argument("plan_path", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    help="Your private key, made with `secure-fl keys new`; it stays where it is.",
)
@_home_option
@click.option(
    "--policy",
    type=click.Path(path_type=Path),
    help="Your own policy, kept in the home: all its plans are under it.",
)
@click.option(
    "--data",
    type=click.Path(path_type=Path, exists=True),
    help="Where your records are, for trainers that read them from there.",
)
def join(
    plan_path: Path, key: Path, home: Path, policy: Path | None, data: Path | None
) -> None:
    """Consent to PLAN: endorse it, and answer its aggregator from now on.

    What your policy does not allow is refused, now and in every round. The passphrase
    of the key is in SECURE_FL_PASSPHRASE, or in a file that SECURE_FL_PASSPHRASE_FILE
    names, here as later. Join again when the key or the data have moved.
    """
    where = MemberHome(home)
    joined = where.join(load_plan(plan_path), key=key, data=data, policy=policy)
    under = "none: whatever you join is allowed"
    if where.consent() is not None:
        under = "it allows this plan"
    _print(joined, under)


def _print(joined: Joined, policy: str) -> None:
    plan, name = joined.plan, joined.settings.name
    others = [n for n in plan.names if n != name]
    rows = [
        ("plan", plan.name),
        ("hash", plan.hash.hex()),
        ("joined as", name),
        ("with", others[0]),
        *(("", other) for other in others[1:]),
        ("policy", policy),
    ]
    if not joined.holds_keys:
        budgeted, limit = plan.rounds.count + plan.rounds.spare, plan.privacy.epsilon
        epsilon = f"{plan.projected_epsilon():.4g} after {budgeted} releases"
        rows += [
            ("epsilon", f"{epsilon}, of {limit:g}, at delta {plan.privacy.delta:g}"),
            ("charged to", plan.lineage),
        ]
    for label, value in rows:
        text = safe(value)
        click.echo(
            f"{label:10} {text if len(text) < _WIDTH else text[:_WIDTH] + '...'}"
        )


@click.command("leave", short_help="Answer nothing about PLAN any more.")
@click.argument("plan", metavar="PLAN")
@_home_option
def leave(plan: str, home: Path) -> None:
    """Answer nothing about PLAN any more: its file, or its hash.

    What was charged stays charged. The endorsement cannot be taken back: to the others
    you are a dropout, until they agree on a plan without you.
    """
    is_hash = re.fullmatch("[0-9a-f]{64}", plan) and not Path(plan).exists()
    plan_hash = bytes.fromhex(plan) if is_hash else load_plan(plan).hash
    where = MemberHome(home)
    if not home.is_dir():
        raise UsageError(f"there is no home at {home}", hint="give the one you joined")
    where.leave(plan_hash)
    click.echo(f"left {plan_hash.hex()}")
