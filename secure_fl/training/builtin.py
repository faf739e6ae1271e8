# SPDX-License-Identifier: Apache-2.0
"""The newcomer's trainer: a plan with [model], [training] and [data], and no code."""

from __future__ import annotations

import math
from collections import OrderedDict
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ..errors import PlanError, UsageError
from ..model import GlobalModel
from ..plan import Plan
from ..privacy import PrivateUpdate
from ..sections import Data
from .client_round import ClientRound
from .tabular import TabularSplit, feature_count
from .weights import fill

__all__ = [
    "accuracy",
    "auc",
    "build_mlp",
    "builtin_trainer",
    "few_threads",
    "initial_model",
    "scores",
    "train_plain",
]


def build_mlp(
    features: int, hidden: Sequence[int], *, classes: int, seed: int
) -> nn.Module:
    """ReLU layers of the sizes ``hidden``, then a linear layer of ``classes`` logits.

    The weights follow from ``seed`` alone; torch's global generator is left as it was.
    Names are ``hidden1.weight``, ..., ``output.weight``, ``output.bias``.
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    width = features
    # Public on purpose: every member starts from the same weights.
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        for i, size in enumerate(hidden, start=1):
            layers[f"hidden{i}"] = nn.Linear(width, size)
            layers[f"relu{i}"] = nn.ReLU()
            width = size
        layers["output"] = nn.Linear(width, classes)
    return nn.Sequential(layers)


def initial_model(plan: Plan) -> GlobalModel:
    """The start of a plan of kind "mlp".  Raises PlanError for any other."""
    return _arrays(_network(plan))


def builtin_trainer(
    plan: Plan, split: TabularSplit
) -> Callable[[ClientRound], PrivateUpdate]:
    """Cross-entropy over ``split``'s training rows, as the plan's mode and unit say.

    In local mode, SGD with the plan's [training] under noise; in distributed mode the
    gradients of one batch, or, where clients are the unit, ``local_steps`` steps over
    all rows without noise.

    Raises PlanError where the plan lacks what the trainer needs.
    """
    training = plan.training
    if training is None:
        raise PlanError(
            "is missing", key="training", hint="the built-in trainer needs [training]"
        )
    if training.way == "head" and plan.model.hidden:
        raise PlanError(
            "a head has no hidden layers",
            key="training.way",
            hint='plan way = "opacus", or hidden = []',
        )
    _network(plan)
    # Copies: the arrays may be read-only, which torch cannot express.
    dataset = TensorDataset(
        torch.from_numpy(split.train_x.copy()), torch.from_numpy(split.train_y.copy())
    )

    loss = nn.CrossEntropyLoss()
    ghost = training.way == "opacus"  # the network is linear layers, and fast with it

    def sgd(model: nn.Module) -> torch.optim.SGD:
        return torch.optim.SGD(
            model.parameters(), lr=training.learning_rate, momentum=training.momentum
        )

    def fit_locally(r: ClientRound) -> PrivateUpdate:
        model = r.load(_network(plan))
        private = r.make_private(
            model, sgd(model), DataLoader(dataset), loss, ghost=ghost
        )
        for x, y in private.loader:
            private.criterion(private.model(x), y).backward()
            private.optimizer.step()
        return private.update()

    def fit_sum(r: ClientRound) -> PrivateUpdate:
        model = r.load(_network(plan))
        return r.gradient_sum(model, DataLoader(dataset), loss, ghost=ghost)

    def fit_update(r: ClientRound) -> PrivateUpdate:
        model = r.load(_network(plan)).train()
        optimizer = sgd(model)
        x, y = dataset.tensors
        for _ in range(plan.privacy.local_steps):
            optimizer.zero_grad()
            loss(model(x), y).backward()
            optimizer.step()
        return r.clipped_update(model)

    if not plan.distributed:
        return fit_locally
    return fit_sum if plan.privacy.unit == "record" else fit_update


def few_threads(plan: Plan) -> None:
    """One thread where the network is small: more would only wait for each other.

    Sets torch's number of threads for the whole process, so it is for programs.
    """
    if initial_model(plan).size < 100_000:
        torch.set_num_threads(1)


def train_plain(plan: Plan, split: TabularSplit, *, steps: int = 2000) -> GlobalModel:
    """The plan's network trained WITHOUT privacy: a baseline, for simulations only.

    Adam at its default rate over shuffled batches of ``split``'s training rows, for
    about ``steps`` steps and 20 epochs at least, whatever the number of rows:
    repeatable from the plan's seed.  No claim covers what this returns.
    """
    model = _network(plan).train()
    optimizer = torch.optim.Adam(model.parameters())
    criterion = nn.CrossEntropyLoss()
    x = torch.from_numpy(split.train_x.copy())
    y = torch.from_numpy(split.train_y.copy())
    shuffle = torch.Generator().manual_seed(plan.model.seed)
    batch_size = min(256, max(16, len(x) // 50))
    per_epoch = math.ceil(len(x) / batch_size)
    for _ in range(max(20, math.ceil(steps / per_epoch))):
        order = torch.randperm(len(x), generator=shuffle)
        for rows in torch.split(order, batch_size):
            optimizer.zero_grad()
            criterion(model(x[rows]), y[rows]).backward()
            optimizer.step()
    return _arrays(model)


def scores(
    model: GlobalModel, plan: Plan, x: NDArray[np.float32]
) -> NDArray[np.float64]:
    """Class probabilities, (records, classes), of the plan's network with ``model``."""
    network = fill(_network(plan), model).eval()
    with torch.no_grad():
        logits: torch.Tensor = network(torch.from_numpy(x.copy()))
        out: NDArray[np.float64] = torch.softmax(logits.double(), dim=1).numpy()
    return out


def accuracy(labels: NDArray[np.int64], probabilities: NDArray[np.float64]) -> float:
    """Share of records whose most probable class is their label."""
    return float((probabilities.argmax(axis=1) == labels).mean())


def auc(labels: NDArray[np.int64], positive: NDArray[np.float64]) -> float:
    """Area under the ROC curve: how often a 1 scores above a 0, a tie counting half.

    labels
        0 or 1
    positive
        the score of being 1, any monotone scale

    Raises UsageError where one of the two classes is absent.
    """
    ones = int((labels == 1).sum())
    zeros = int((labels == 0).sum())
    if not ones or not zeros or ones + zeros != len(labels):
        raise UsageError("an AUC needs records of both classes, 0 and 1, and no other")
    _, group, size = np.unique(positive, return_inverse=True, return_counts=True)
    last = np.cumsum(size)
    mean_rank = last - (size - 1) / 2.0  # Mann and Whitney: ties share their mean rank
    above = mean_rank[group][labels == 1].sum() - ones * (ones + 1) / 2.0
    return float(above / (ones * zeros))


def _data(plan: Plan) -> Data:
    if plan.model.kind != "mlp":
        raise PlanError(
            'is not "mlp"',
            key="model.kind",
            hint="a custom model needs its own trainer",
        )
    if plan.data is None:
        raise PlanError(
            "is missing", key="data", hint='kind = "mlp" takes its sizes from [data]'
        )
    return plan.data


def _network(plan: Plan) -> nn.Module:
    data = _data(plan)
    return build_mlp(
        feature_count(data),
        plan.model.hidden,
        classes=len(data.classes),
        seed=plan.model.seed,
    )


def _arrays(model: nn.Module) -> GlobalModel:
    return GlobalModel(
        {name: p.detach().numpy() for name, p in model.named_parameters()}
    )
