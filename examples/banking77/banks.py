# SPDX-License-Identifier: Apache-2.0
"""Five banks: their rows, their trainers, and the plan for another epsilon or mode."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w
import torch
from intents import Features, Problem
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secure_fl as sfl
from secure_fl.privacy import calibrate_noise

__all__ = ["Banks", "Trainer", "deal", "distributed", "local", "own_rate", "sampled"]

PLAN = Path(__file__).with_name("plan.toml")
_SAMPLED, _ROUNDS = 0.2, 10
Trainer = Callable[[sfl.ClientRound], sfl.PrivateUpdate]


def tree_of(epsilon: float) -> dict[str, Any]:
    """The entries of plan.toml, at another epsilon."""
    tree = tomllib.loads(PLAN.read_text())
    tree["privacy"]["epsilon"] = epsilon
    return tree


def _plan(tree: dict[str, Any]) -> sfl.Plan:
    return sfl.Plan(tomli_w.dumps(tree).encode())


def _rate(noise: float, records: float, steps: int) -> float:
    """Steps with which the noise of all of them moves a logit by 1 in all.

    noise
        its standard deviation in the sum of gradients, one step's
    records
        that a step divides this sum by

    A feature has length 1, so a logit moves as much as a weight does.  Four digits, as
    one would write it into a plan.
    """
    rate = records / (noise * math.sqrt(steps))
    return float(f"{rate:.4g}")


def _records(tree: dict[str, Any]) -> int:
    return sum(member["records"] for member in tree["parties"]["members"])


def distributed(
    epsilon: float, *, values: int, protection: str = "masking"
) -> sfl.Plan:
    """plan.toml at another epsilon, with the learning rate of its rule."""
    tree = tree_of(epsilon)
    tree["protection"]["kind"] = protection
    return _ruled(tree, values=values, scale=1.0)


def _ruled(tree: dict[str, Any], *, values: int, scale: float) -> sfl.Plan:
    """A distributed plan with the learning rate of the rule."""
    tree["model"]["values"] = values
    plan = _plan(tree)
    noise = scale * plan.grid.clip_norm * plan.noise_multiplier
    # Every bank adds its share, and the promise needs those of fewer.
    noise *= math.sqrt(len(plan.names) / plan.grid.shares)
    expected = plan.privacy.sampling_rate * _records(tree)
    tree["training"]["learning_rate"] = _rate(noise, expected, plan.rounds.count)
    return _plan(tree)


def sampled(epsilon: float, *, way: str, values: int, scale: float) -> sfl.Plan:
    """A fifth of the records, and ten batches of a fifth of them: for long trainings.

    scale
        what a model multiplies its head's output by, and so a gradient
    """
    tree = tree_of(epsilon)
    for member in tree["parties"]["members"]:
        member["records"] //= 5
    tree["rounds"]["count"] = _ROUNDS
    tree["privacy"]["sampling_rate"] = _SAMPLED
    tree["privacy"]["clip_norm"] *= scale
    tree["training"]["way"] = way
    return _ruled(tree, values=values, scale=scale)


def local(epsilon: float) -> sfl.Plan:
    """The same steps, each bank with all the noise itself; weights as the records."""
    tree = tree_of(epsilon)
    tree["privacy"]["mode"] = "local"
    del tree["model"]["values"]  # of a shared grid, which is not needed here
    for member in tree["parties"]["members"]:
        member["weight"] = member["records"] // 400
    noise = tree["privacy"]["clip_norm"] * _plan(tree).noise_multiplier
    noise *= math.sqrt(len(tree["parties"]["members"]))
    rate = _rate(noise, _records(tree), tree["rounds"]["count"])
    tree["training"] = {"way": "head", "learning_rate": rate}
    return _plan(tree)


def own_rate(epsilon: float, *, records: int) -> sfl.Plan:
    """plan.toml with the rate of its rule for one who adds the noise of one only.

    For ``train_alone``: a bank on its own, or all rows in one place.
    """
    tree = tree_of(epsilon)
    steps = tree["rounds"]["count"]
    noise = tree["privacy"]["clip_norm"] * calibrate_noise(
        epsilon=epsilon, delta=tree["privacy"]["delta"], rate=1.0, steps=steps
    )
    tree["training"]["learning_rate"] = _rate(noise, records, steps)
    return _plan(tree)


def deal(rows: int, seed: int) -> dict[str, NDArray[np.int64]]:
    """Who holds which rows: at random, in the proportions of the plan's records."""
    tree = tree_of(1.0)
    members = tree["parties"]["members"]
    parts = np.cumsum([member["records"] for member in members]) / _records(tree)
    order = np.random.default_rng(seed).permutation(rows)
    pieces = np.split(order, np.rint(parts[:-1] * rows).astype(int))
    return dict(zip((m["name"] for m in members), pieces, strict=True))


class Banks:
    """One deal of the rows: every bank's trainer, and what a model is worth."""

    def __init__(self, problem: Problem, seed: int) -> None:
        self.problem = problem
        self.rows = deal(len(problem.train), seed)
        self.start = sfl.GlobalModel({"weight": problem.start})

    def trainers(self) -> dict[str, Trainer]:
        return {name: self.trainer(rows) for name, rows in self.rows.items()}

    def trainer(self, rows: NDArray[np.int64] | slice) -> Trainer:
        """A bank's own code: ordinary PyTorch, a linear head on cached features."""
        x = torch.from_numpy(self.problem.train[rows])
        y = torch.from_numpy(self.problem.train_y[rows])
        data = TensorDataset(x, y)
        classes, width = self.problem.start.shape

        def fit(r: sfl.ClientRound) -> sfl.PrivateUpdate:
            head = r.load(nn.Linear(width, classes, bias=False))
            loader, loss = DataLoader(data), nn.CrossEntropyLoss()
            if r.plan.distributed:
                return r.gradient_sum(head, loader, loss)
            assert r.plan.training is not None
            rate = r.plan.training.learning_rate
            optimizer = torch.optim.SGD(head.parameters(), lr=rate)
            private = r.make_private(head, optimizer, loader, loss)
            for inputs, labels in private.loader:
                private.criterion(private.model(inputs), labels).backward()
                private.optimizer.step()
            return private.update()

        return fit

    def accuracy(self, model: sfl.GlobalModel) -> float:
        """The share of held-out questions whose intent is the highest logit."""
        weight: Features = model.arrays["weight"]
        guesses = (self.problem.test @ weight.T).argmax(axis=1)
        return float((guesses == self.problem.test_y).mean())
