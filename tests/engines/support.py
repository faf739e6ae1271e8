# SPDX-License-Identifier: Apache-2.0
"""A small consortium with real training: three clinics, a linear head, tiny data."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secure_fl as sfl

NAMES = ("clinic-a", "clinic-b", "clinic-c", "clinic-d")
Trainer = Callable[[sfl.ClientRound], sfl.PrivateUpdate]


def plan_text(
    *,
    rounds: int = 2,
    spare: int = 1,
    epsilon: float = 6.0,
    noise_multiplier: float = 2.0,
    names: tuple[str, ...] = NAMES,
    kind: str = "masking",
    keys: str = "",
    extra: str = "",
) -> str:
    members = "".join(f'  {{ name = "{n}", records = 40 }},\n' for n in names)
    return f"""\
schema = "secure-fl/plan/1"
name = "clinics"

[parties]
members = [
{members}]

[rounds]
count = {rounds}
spare = {spare}
max_attempts = 2

[privacy]
mode = "local"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = {epsilon}
noise_multiplier = {noise_multiplier}
delta = 1e-5
clip_norm = 1.0
sampling_rate = 1.0
local_steps = 2

[protection]
kind = "{kind}"
{f'keys = "{keys}"' if keys else ""}
chunk_words = 64

[model]
kind = "custom"

[training]
way = "head"
{extra}"""


def plan(**entries: object) -> sfl.Plan:
    return sfl.Plan(plan_text(**entries).encode())  # type: ignore[arg-type]


def start() -> sfl.GlobalModel:
    return sfl.GlobalModel(
        {"weight": np.zeros((2, 40), np.float32), "bias": np.zeros(2, np.float32)}
    )


def trainer(seed: int) -> Trainer:
    """Ordinary PyTorch over 40 records whose first feature tells the class."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 40, generator=generator)
    data = TensorDataset(x, (x[:, 0] > 0).long())

    def fit(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        head = r.load(nn.Linear(40, 2))
        private = r.make_private(
            head,
            torch.optim.SGD(head.parameters(), lr=1.0),
            DataLoader(data),
            nn.CrossEntropyLoss(),
        )
        for inputs, labels in private.loader:
            private.criterion(private.model(inputs), labels).backward()
            private.optimizer.step()
        return private.update()

    return fit


def trainers(names: tuple[str, ...] = NAMES) -> dict[str, Trainer]:
    return {name: trainer(i) for i, name in enumerate(names)}
