# SPDX-License-Identifier: Apache-2.0
"""What results of plans with ``[data]`` have in common: rows, and ways to train."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, final

import tomli_w

import secure_fl as sfl
from secure_fl import training
from secure_fl.engines.baselines import Alone, train_alone

__all__ = ["Members", "changed", "local", "plan_at"]


def plan_at(path: Path, *, seed: int, epsilon: float) -> sfl.Plan:
    """The plan in the file, on another split and at another epsilon."""
    return changed(
        sfl.load_plan(path), {"data": {"seed": seed}, "privacy": {"epsilon": epsilon}}
    )


def changed(plan: sfl.Plan, sections: Mapping[str, Mapping[str, Any]]) -> sfl.Plan:
    """The plan with other entries in some sections."""
    tree = tomllib.loads(plan.source.decode())
    for name, entries in sections.items():
        tree[name] |= entries
    return sfl.Plan(tomli_w.dumps(tree).encode())


def local(plan: sfl.Plan, *, rounds: int, steps: int, weight_of: int) -> sfl.Plan:
    """The plan in local mode: few rounds of many steps.

    weight_of
        records that a weight of 1 stands for: members weigh what they hold
    """
    members = [
        {"name": m.name, "records": m.records, "weight": m.records // weight_of}
        for m in plan.parties.members
    ]
    return changed(
        plan,
        {
            "parties": {"members": members},
            "rounds": {"count": rounds},
            "privacy": {"mode": "local", "local_steps": steps},
        },
    )


@final
class Members:
    """All members' rows of one split, and every private way to train on them."""

    def __init__(self, plan: sfl.Plan, folder: Path) -> None:
        assert plan.data is not None
        shares = {m.name: m.records for m in plan.parties.members}
        self.splits = training.load_tabular(
            plan.data, names=plan.names, shares=shares, folder=folder
        )
        self.pooled = training.pooled(self.splits.values())
        training.few_threads(plan)

    def together(self, plan: sfl.Plan) -> tuple[sfl.GlobalModel, float]:
        """By the protocol: the model, and the epsilon of the run's report."""
        trainers = {
            name: training.builtin_trainer(plan, split)
            for name, split in self.splits.items()
        }
        finished = sfl.run(plan, trainers)
        spent = finished.report.claims[0]["consortium"]["epsilon"]
        return finished.model, float(spent)

    def alone(self, plan: sfl.Plan) -> dict[str, Alone]:
        """Each member without the others."""
        start = training.initial_model(plan)
        return {
            name: train_alone(
                plan, name, training.builtin_trainer(plan.alone(), split), start
            )
            for name, split in self.splits.items()
        }

    def one_holder(self, plan: sfl.Plan) -> Alone:
        """All rows as if they were one member's."""
        records = sum(m.records for m in plan.parties.members)
        fit = training.builtin_trainer(plan.alone(records=records), self.pooled)
        start = training.initial_model(plan)
        return train_alone(plan, plan.names[0], fit, start, records=records)
