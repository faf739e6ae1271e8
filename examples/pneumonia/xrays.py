# SPDX-License-Identifier: Apache-2.0
"""Chest X-rays at three hospitals, and every way to train on them.

Public are: SqueezeNet, the validation images (they stand for a published collection,
and have no labels here), and how many labels a hospital has.  Centre, learning rate and
number of rounds follow from these alone; nothing is tuned on a label.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, final

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from squeezenet import load_squeezenet
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secure_fl as sfl
from secure_fl.engines.baselines import train_alone
from secure_fl.privacy import calibrate_noise
from secure_fl.training import accuracy, auc, cached_features

__all__ = ["DELTA", "LABELS", "NAMES", "Head", "Xrays", "deal", "from_scratch", "load"]

_PLAN = """\
schema = "secure-fl/plan/1"
name = "pneumonia"

[parties]
max_colluding = 1
members = [
{members}]

[rounds]
count = {rounds}
spare = 0

[privacy]
mode = "{mode}"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = {epsilon}
delta = {delta}
clip_norm = 1.0
sampling_rate = 1.0
local_steps = {local_steps}

[protection]
kind = "masking"

[model]
kind = "custom"

[training]
way = "head"
learning_rate = {rate}
"""
NAMES = ("hospital-a", "hospital-b", "hospital-c")
LABELS = (20, 100, 1569)  # per hospital; the last is all that there are
DELTA = 1e-5
_BIAS = 0.25  # a constant feature; small, so that it does not set the learning rate
_MOST_ROUNDS, _LOCAL_ROUNDS = 100, 5
_LOGIT_NOISE = 0.5  # standard deviation that is bearable: a sure answer is 2 or more

Features = NDArray[np.float32]
Images = NDArray[np.uint8]
Labels = NDArray[np.int64]
Rows = NDArray[np.int64]
Figures = dict[str, float]
Mode = Literal["distributed", "local"]


@final
@dataclass(frozen=True, eq=False)
class Xrays:
    """Images (n, 28, 28), 0 to 255, and labels: 0 healthy, 1 pneumonia."""

    train: Images
    public: Images
    test: Images
    train_y: Labels
    test_y: Labels

    def figures(self, logits: NDArray[np.float64]) -> Figures:
        """Of logits (n, 2) of the test images."""
        return {
            "auc": auc(self.test_y, logits[:, 1] - logits[:, 0]),
            "accuracy": accuracy(self.test_y, logits),
        }


def load(data: Path) -> Xrays:
    """``data`` holds pneumoniamnist/pneumoniamnist.npz (MedMNIST v2)."""
    with np.load(data / "pneumoniamnist" / "pneumoniamnist.npz") as file:
        images = [file[f"{part}_images"] for part in ("train", "val", "test")]
        labels = [
            file[f"{part}_labels"][:, 0].astype(np.int64) for part in ("train", "test")
        ]
    return Xrays(*images, *labels)


def deal(xrays: Xrays, labels: int, seed: int) -> list[Rows]:
    """Which training images each hospital has labelled."""
    order = np.random.default_rng(seed).permutation(len(xrays.train))
    return np.array_split(order[: len(NAMES) * labels], len(NAMES))


@final
class Head:
    """A linear head on one kind of features: centred, each of norm 1, and a constant.

    ``rate``, the learning rate, is 1 over the largest curvature that the loss has on
    the public images: the largest at which no direction overshoots there.
    """

    def __init__(self, xrays: Xrays, features: Callable[[Images], Features]) -> None:
        self._xrays = xrays
        public = features(xrays.public)
        centre = public.mean(0)
        self._train = _rows(features(xrays.train) - centre)
        self._test = _rows(features(xrays.test) - centre)
        known = _rows(public - centre).astype(np.float64)
        # The Hessian of the cross-entropy of two classes is at most half of this.
        moments = known.T @ known / len(known)
        self.rate = round(2.0 / float(np.linalg.eigvalsh(moments)[-1]), 2)
        self.start = sfl.GlobalModel({"weight": np.zeros((2, known.shape[1]), "<f4")})

    @classmethod
    def pretrained(cls, xrays: Xrays, data: Path, cache: Path) -> Head:
        """On SqueezeNet's features: computed once, for minutes, and kept."""
        network = load_squeezenet(data / "squeezenet" / "squeezenet_v1.0_decoded.npz")

        def late(images: Images) -> Features:
            return cached_features(
                network,
                torch.from_numpy(images),
                cache=cache,
                recipe="SqueezeNet 1.0, fire9, mean; grey, bilinear to 227",
            )

        return cls(xrays, late)

    @classmethod
    def pixels(cls, xrays: Xrays) -> Head:
        """On the images as they are: what the backbone has to beat."""
        return cls(xrays, lambda images: images.reshape(len(images), -1).astype("<f4"))

    def plan(
        self, records: int, *, epsilon: float, mode: Mode, together: bool = True
    ) -> sfl.Plan:
        """Of hospitals with ``records`` labels each: as many steps as noise allows.

        After T steps of rate r over n records in all, the noise of a logit is
        |x| r T / (mu n), where 1 / mu is the noise multiplier of one single step.
        """
        one = calibrate_noise(epsilon=epsilon, delta=DELTA, rate=1.0, steps=1)
        members = len(NAMES)
        # All add a share, and two of three shares are enough noise.
        wide = math.sqrt(members / (members - 1)) / members if together else 1.0
        step = math.hypot(1.0, _BIAS) * self.rate * one * wide / records
        steps = max(1, min(_MOST_ROUNDS, int(_LOGIT_NOISE / step)))
        rounds = steps if mode == "distributed" else min(steps, _LOCAL_ROUNDS)
        rows = (f'  {{ name = "{n}", records = {records} }},\n' for n in NAMES)
        text = _PLAN.format(
            members="".join(rows),
            rounds=rounds,
            mode=mode,
            epsilon=float(epsilon),
            delta=DELTA,
            local_steps=steps // rounds,
            rate=self.rate,
        )
        return sfl.Plan(text.encode())

    def trainers(
        self, deal: Sequence[Rows]
    ) -> Mapping[str, Callable[[sfl.ClientRound], sfl.PrivateUpdate]]:
        return {
            name: functools.partial(self._fit, rows)
            for name, rows in zip(NAMES, deal, strict=True)
        }

    def _fit(self, rows: Rows, r: sfl.ClientRound) -> sfl.PrivateUpdate:
        """One hospital's own training code: ordinary PyTorch."""
        head = r.load(nn.Linear(self._train.shape[1], 2, bias=False))
        x = torch.from_numpy(self._train[rows])
        y = torch.from_numpy(self._xrays.train_y[rows])
        loader, loss = DataLoader(TensorDataset(x, y)), nn.CrossEntropyLoss()
        if r.plan.distributed:
            return r.gradient_sum(head, loader, loss)
        assert r.plan.training is not None
        optimizer = torch.optim.SGD(head.parameters(), r.plan.training.learning_rate)
        private = r.make_private(head, optimizer, loader, loss)
        for inputs, labels in private.loader:
            private.criterion(private.model(inputs), labels).backward()
            private.optimizer.step()
        return private.update()

    def one_holder(self, rows: Rows, epsilon: float) -> tuple[Figures, float]:
        """Whoever holds ``rows``, with nobody else: figures, and the epsilon spent."""
        plan = self.plan(len(rows), epsilon=epsilon, mode="distributed", together=False)
        fit = functools.partial(self._fit, rows)
        found = train_alone(plan, NAMES[0], fit, self.start)
        return self.figures(found.model), found.epsilon

    def not_private(self, rows: Rows) -> Figures:
        """Logistic regression with little penalty."""
        fitted = LogisticRegression(C=100.0, max_iter=2000)
        fitted.fit(self._train[rows], self._xrays.train_y[rows])
        positive = fitted.decision_function(self._test)
        return self._xrays.figures(np.stack([-positive, positive], axis=1))

    def figures(self, model: sfl.GlobalModel) -> Figures:
        weight = model.arrays["weight"].astype(np.float64)
        return self._xrays.figures(self._test @ weight.T)


def _rows(centred: Features) -> Features:
    norms = np.maximum(np.linalg.norm(centred, axis=1, keepdims=True), 1e-12)
    bias = np.full((len(centred), 1), _BIAS)
    return np.hstack([centred / norms, bias]).astype(np.float32)


def from_scratch(xrays: Xrays, rows: Rows, seed: int) -> Figures:
    """A small network, without privacy: Adam, 10 epochs and at least 400 steps."""

    def scaled(images: Images) -> torch.Tensor:
        return torch.from_numpy(images.astype(np.float32) / 127.5 - 1.0)[:, None]

    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for inputs, outputs in ((1, 16), (16, 32), (32, 64)):
        layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
        layers += [nn.MaxPool2d(2)]
    network = nn.Sequential(*layers, nn.Flatten(), nn.Linear(576, 2))
    optimizer = torch.optim.Adam(network.parameters())
    x, y = scaled(xrays.train[rows]), torch.from_numpy(xrays.train_y[rows])
    for _ in range(max(10, math.ceil(400 / math.ceil(len(rows) / 64)))):
        for batch in torch.split(torch.randperm(len(rows)), 64):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(x[batch]), y[batch])
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
    with torch.no_grad():
        logits = network(scaled(xrays.test)).double().numpy()
    return xrays.figures(logits)
