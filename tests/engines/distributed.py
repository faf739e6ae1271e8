# SPDX-License-Identifier: Apache-2.0
"""The clinics of ``support`` under a plan whose sum alone is private."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TypedDict, Unpack

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secure_fl as sfl
from secure_fl.descent import Descent
from secure_fl.privacy import private_update

from .support import NAMES, Trainer, plan_text, start

PROTECTIONS = (("masking", ""), ("ckks", "one-time"))
KEYHOLDER = ("ckks", "keyholder")


class Entries(TypedDict, total=False):
    """What :func:`text` takes."""

    unit: str
    kind: str
    keys: str
    rounds: int
    noise: str
    extra: str
    keep: bool


def text(
    *,
    unit: str = "record",
    kind: str = "masking",
    keys: str = "",
    rounds: int = 2,
    noise: str = "skellam",
    extra: str = "",
    keep: bool = False,
) -> str:
    """``extra``: entries of ``[training]``."""
    made = _replaced(
        plan_text(kind=kind, keys=keys, rounds=rounds, epsilon=8.0),
        {
            'mode = "local"': f'mode = "distributed"\nnoise = "{noise}"',
            'unit = "record"': f'unit = "{unit}"',
            "local_steps = 2": "local_steps = 1",
            "noise_multiplier = 2.0\n": "",
            "chunk_words = 64": f"chunk_words = 64\nkeep_vectors = {str(keep).lower()}",
        },
    )
    return f"{made}{extra}\n"


def plan(**entries: Unpack[Entries]) -> sfl.Plan:
    return sfl.Plan(text(**entries).encode())


def changed(asked: sfl.Plan, entries: Mapping[str, str]) -> sfl.Plan:
    """``asked`` with pieces of its text replaced."""
    return sfl.Plan(_replaced(asked.source.decode(), entries).encode())


def _replaced(made: str, entries: Mapping[str, str]) -> str:
    for entry, by in entries.items():
        assert entry in made
        made = made.replace(entry, by)
    return made


def trainer(seed: int) -> Trainer:
    """The same records as in ``support``; the plan's unit says what is sent."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(40, 40, generator=generator)
    data = TensorDataset(x, (x[:, 0] > 0).long())

    def fit(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        head = r.load(nn.Linear(40, 2))
        if r.plan.privacy.unit == "record":
            return r.gradient_sum(head, DataLoader(data), nn.CrossEntropyLoss())
        loss = nn.CrossEntropyLoss()(head(x), data.tensors[1])
        loss.backward()
        torch.optim.SGD(head.parameters(), lr=1.0).step()
        return r.clipped_update(head)

    return fit


def trainers() -> dict[str, Trainer]:
    return {name: trainer(i) for i, name in enumerate(NAMES)}


def sends(r: sfl.ClientRound, units: NDArray[np.int64]) -> sfl.PrivateUpdate:
    """``units`` as this client's update, charged as the plan says."""
    return private_update(units.astype(np.float64), r._reserve())


def noise_alone(r: sfl.ClientRound) -> sfl.PrivateUpdate:
    """Zero gradients: all that leaves is the share of the noise."""
    grid, reservation = r.plan.grid, r._reserve()
    units = grid.noised(
        np.zeros(grid.values), rotation=r.plan.rotation(r.round), random=r._random
    )
    return private_update(units.astype(np.float64), reservation)


class Recording:
    """Trainers whose updates are kept, by round and client."""

    def __init__(self, trainers: Mapping[str, Callable[..., sfl.PrivateUpdate]]):
        self.sent: dict[int, dict[str, NDArray[np.float64]]] = {}
        self.clients = {name: self._kept(name, fit) for name, fit in trainers.items()}

    def _kept(self, name: str, fit: Callable[..., sfl.PrivateUpdate]) -> Trainer:
        def kept(r: sfl.ClientRound) -> sfl.PrivateUpdate:
            update = fit(r)
            self.sent.setdefault(r.round, {})[name] = update.vector
            return update

        return kept

    def model(self, plan: sfl.Plan, survivors: Mapping[int, list[str]]) -> bytes:
        """The digest of the model that the updates of ``survivors`` come to."""
        descent, model = Descent(plan), start()
        for index, names in sorted(survivors.items()):
            total = sum(self.sent[index][n].astype(np.int64) for n in names)
            assert isinstance(total, np.ndarray)
            words = plan.encoding.wrap(total)
            model = descent.move(model, words, round_index=index, survivors=names)
        return model.digest()
