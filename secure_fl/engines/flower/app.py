# SPDX-License-Identifier: Apache-2.0
"""A Flower app without code: plans with [data], [model] and [training] drive it.

An app folder whose pyproject.toml names ``secure_fl.engines.flower.app:server_app``
and ``:client_app`` is all that ``flwr run`` needs.  In its config:

``secure-fl-home``
    the aggregator's folder with plan.toml and aggregator.key (or SECURE_FL_HOME)
``secure-fl-out``
    a folder for the run's files; left out, or empty: one under that home
``secure-fl-patience``
    seconds for one exchange with all members, training included; left out: an hour

A member's records are where it said when it joined: ``secure-fl join --data FOLDER``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Final

from flwr.app import Context, Message
from flwr.clientapp import ClientApp
from flwr.serverapp import Grid, ServerApp
from flwr.serverapp.strategy import FedAvg

from ...errors import PlanError, UsageError
from ...plan import Plan, load_plan
from ..home import MemberSettings
from ..setup import PLAN_FILE, start_model
from .mod import HOME_KEY, answer
from .models import to_arrays

if TYPE_CHECKING:
    from ..local import Trainer

__all__ = ["client_app", "server_app"]

_OUT_KEY: Final = "secure-fl-out"
_PATIENCE_KEY: Final = "secure-fl-patience"

server_app = ServerApp()
client_app = ClientApp()


@server_app.main()
def aggregate_plan(grid: Grid, context: Context) -> None:
    """Run the plan in the aggregator's home, once as a whole."""
    from .strategy import SecureAggregation

    config = context.run_config
    home = config.get(HOME_KEY) or os.environ.get("SECURE_FL_HOME")
    if not isinstance(home, str):
        raise UsageError(
            "the aggregator has no home",
            hint=f"flwr run --run-config '{HOME_KEY}=\"FOLDER\"', or SECURE_FL_HOME",
        )
    plan = load_plan(Path(home) / PLAN_FILE)
    out = config.get(_OUT_KEY)
    SecureAggregation(FedAvg(), home=home, out=str(out) if out else None).start(
        grid,
        to_arrays(start_model(plan, None)),
        num_rounds=plan.rounds.count,
        timeout=float(config.get(_PATIENCE_KEY, 3600.0)),
    )


@client_app.train()
def answer_request(message: Message, context: Context) -> Message:
    """Answer the plan's aggregator; train on this member's own table."""
    return answer(message, context, _table_trainer)


def _table_trainer(plan: Plan, settings: MemberSettings) -> Trainer:
    from ...training import builtin_trainer, few_threads, load_tabular

    if plan.data is None:
        raise PlanError(
            "is missing",
            key="data",
            hint="describe a CSV there, or bring a Flower app with a train function",
        )
    if settings.data is None:
        raise UsageError(
            "this member did not say where its records are",
            hint="join again: secure-fl join PLAN --key KEY --home HOME --data FOLDER",
        )
    # Rows are dealt out among all; files and values of a column belong to one.
    dealt = plan.data.split == "rows"
    splits = load_tabular(
        plan.data,
        names=plan.names if dealt else [settings.name],
        shares={m.name: m.records for m in plan.parties.members},
        folder=settings.data,
    )
    few_threads(plan)
    return builtin_trainer(plan, splits[settings.name])
