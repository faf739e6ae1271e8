# SPDX-License-Identifier: Apache-2.0
"""The sum that is noised, and the noise: against plain autograd and against theory."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from secure_fl.plan import Plan
from secure_fl.privacy import PoissonGaussian, PrivateUpdate, Repeated
from secure_fl.training.client_round import PrivateTraining
from secure_fl.training.clipping import _row_squares
from secure_fl.training.steps import PrivateCriterion, Steps

from .support import (
    WAYS,
    distance,
    linear,
    make_plan,
    make_round,
    plain_loop,
    records,
    same,
    start_of,
    train,
)


def mlp() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        return nn.Sequential(nn.Linear(5, 6), nn.Tanh(), nn.Linear(6, 3))


def naive(
    plan: Plan, dataset: TensorDataset, model: nn.Module, learning_rate: float
) -> NDArray[np.float64]:
    """The definition, one record at a time, with the streams the round will draw."""
    source = same()
    noise, sampling = source.arrays("noise"), source.arrays("sampling")
    x, y = dataset.tensors
    p = plan.privacy
    before = start_of(model).flatten()
    for _ in range(p.local_steps):
        sums = [torch.zeros_like(w) for w in model.parameters()]
        for i in sampling.poisson_sample(p.sampling_rate, len(x)).tolist():
            model.zero_grad()
            loss: Any = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
            loss.backward()
            gradients = [w.grad for w in model.parameters() if w.grad is not None]
            norm = math.sqrt(sum(float(g.double().square().sum()) for g in gradients))
            for total, g in zip(sums, gradients, strict=True):
                total += g * min(1.0, p.clip_norm / norm)
        with torch.no_grad():
            for w, total in zip(model.parameters(), sums, strict=True):
                std = plan.noise_multiplier * p.clip_norm
                z = torch.from_numpy(noise.normal(std, w.numel())).view_as(w)
                w.sub_(learning_rate * (total + z.float()) / (p.sampling_rate * 40))
    moved: NDArray[np.float64] = np.subtract(
        start_of(model).flatten(), before, dtype=np.float64
    )
    return moved


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("clip_norm", [0.3, 1.7])
def test_update_is_the_definition(way: str, reduction: str, clip_norm: float) -> None:
    plan = make_plan(way, clip_norm=clip_norm)
    criterion = nn.CrossEntropyLoss(reduction=reduction)
    got = train(plan, records(), criterion=criterion, learning_rate=0.5, random=same())
    np.testing.assert_allclose(
        got.vector, naive(plan, records(), linear(), 0.5), atol=1e-6, rtol=0
    )


def test_opacus_clips_all_layers_jointly() -> None:
    plan = make_plan("opacus", clip_norm=0.3)
    got = train(plan, records(), model=mlp(), learning_rate=0.5, random=same())
    model = mlp()
    order = np.argsort([name for name, _ in model.named_parameters()])
    assert order.tolist() == [1, 0, 3, 2]  # bias before weight in the global model
    np.testing.assert_allclose(
        got.vector, naive(plan, records(), model, 0.5), atol=1e-6, rtol=0
    )


def test_ways_agree_with_momentum() -> None:
    updates = []
    for way in WAYS:
        model = linear()
        r = make_round(make_plan(way), start_of(model), random=same()).round
        private = r.make_private(
            r.load(model),
            torch.optim.SGD(model.parameters(), lr=0.3, momentum=0.9),
            DataLoader(records()),
            nn.CrossEntropyLoss(),
        )
        plain_loop(private)
        updates.append(private.update())
    assert distance(*updates) < 1e-5


NEW_RECORDS = {
    "ordinary": [1.0, -2.0, 0.5, 3.0, 1.0],
    "a million times": [1e6, -1e6, 2e6, 3e6, 1e6],
    "overflowing": [3e38, 3e38, 3e38, 3e38, 3e38],
    "nan": [1.0, math.nan, 1.0, 1.0, 1.0],
    "inf": [1.0, math.inf, 1.0, 1.0, 1.0],
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NEW_RECORDS)
@pytest.mark.parametrize("clip_norm", [0.3, 1.7])
def test_one_record_moves_the_sum_by_the_clip_norm_at_most(
    way: str, name: str, clip_norm: float
) -> None:
    plan = make_plan(way, steps=1, clip_norm=clip_norm)
    x, y = records().tensors
    new = torch.tensor([NEW_RECORDS[name]])
    wider = TensorDataset(torch.cat([x, new]), torch.cat([y, torch.tensor([2])]))
    moved = []
    for seed in range(6):
        # learning rate = normaliser: the update is the noisy sum itself
        one, other = (
            train(plan, d, learning_rate=20.0, random=same(seed))
            for d in (records(), wider)
        )
        moved.append(distance(one, other))
    assert max(moved) <= clip_norm * (1 + 1e-5)
    assert min(moved) < 1e-6  # not sampled in some of the runs
    if name in ("ordinary", "a million times"):
        assert max(moved) >= 0.999 * min(clip_norm, 1.0)  # and the bound is reached
    else:
        assert max(moved) < 1e-6  # counts as zero


@pytest.mark.parametrize("way", WAYS)
def test_class_weights_do_not_tie_records_together(way: str) -> None:
    plan = make_plan(way, steps=1, clip_norm=0.3)
    x, y = records().tensors
    wider = TensorDataset(torch.cat([x, x[:1]]), torch.cat([y, torch.tensor([2])]))
    criterion = nn.CrossEntropyLoss(weight=torch.tensor([0.01, 0.01, 1e6]))
    for seed in range(3):
        one, other = (
            train(
                plan, d, criterion=criterion, learning_rate=20.0, random=same(seed)
            )
            for d in (records(), wider)
        )  # fmt: skip
        assert distance(one, other) <= 0.3 * (1 + 1e-5)


class Tokens(nn.Module):
    """A loss per token; -100 is padding."""

    reduction = "mean"

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return nn.functional.cross_entropy(
            outputs.transpose(1, 2), targets, reduction=self.reduction
        )


class Texts(Dataset[tuple[torch.Tensor, int]]):
    """Records of two tokens, or of the lengths given, all of one class."""

    def __init__(self, *lengths: int) -> None:
        self._lengths = (*[2] * 40, *lengths)

    def __len__(self) -> int:
        return len(self._lengths)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return torch.full((self._lengths[index], 5), 0.1 * (index % 4)), 1


def pad(texts: list[tuple[torch.Tensor, int]]) -> tuple[torch.Tensor, torch.Tensor]:
    """To the batch's longest, as everyone does."""
    longest = max(len(x) for x, _ in texts)
    x = torch.zeros(len(texts), longest, 5)
    y = torch.full((len(texts), longest), -100)
    for i, (own, label) in enumerate(texts):
        x[i, : len(own)] = own
        y[i, : len(own)] = label
    return x, y


def train_texts(plan: Plan, texts: Texts, seed: int) -> PrivateUpdate:
    model = linear()
    r = make_round(plan, start_of(model), random=same(seed)).round
    private = r.make_private(
        r.load(model),
        torch.optim.SGD(model.parameters(), lr=20.0),
        DataLoader(texts, collate_fn=pad),
        Tokens(),
    )
    plain_loop(private)
    return private.update()


def test_a_long_record_does_not_shrink_the_others() -> None:
    plan = make_plan("opacus", steps=1, clip_norm=0.3)
    moved = [
        distance(*(train_texts(plan, t, seed) for t in (Texts(), Texts(200))))
        for seed in range(6)
    ]
    assert max(moved) <= 0.3 * (1 + 1e-5)
    assert max(moved) > 0.29  # sampled in some of the runs


@pytest.mark.parametrize(("reduction", "expected"), [("mean", 9.0 / 2), ("sum", 9.0)])
def test_a_records_loss_is_the_sum_of_its_losses(
    reduction: str, expected: float
) -> None:
    criterion = PrivateCriterion(
        nn.L1Loss(reduction=reduction), Steps(1, trained=[]), training=lambda: True
    )
    outputs = torch.tensor([[1.0, 2.0], [0.0, 6.0]], requires_grad=True)
    criterion._steps.batch(2, last=True)
    criterion._steps.forward(2)
    shown = criterion(outputs, torch.zeros(2, 2))
    assert shown.item() == expected
    with torch.no_grad():
        assert criterion(outputs, torch.zeros(2, 2)).item() == expected
    shown.backward()
    assert outputs.grad is not None
    assert outputs.grad.tolist() == [[1, 1], [0, 1]]


class Flat(nn.Module):
    """A loss without any gradient: what is left of an update is noise."""

    reduction = "mean"

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return (outputs * 0.0).sum(1)


@pytest.mark.parametrize("way", WAYS)
def test_noise_has_the_plans_variance_and_steps_are_independent(way: str) -> None:
    steps, clip_norm = 3, 1.7
    plan = make_plan(way, clip_norm=clip_norm)
    model = linear(99, 40)
    seen = [start_of(model).flatten().astype(np.float64)]

    def watching(private: PrivateTraining[Any]) -> None:
        for x, y in private.loader:
            private.criterion(private.model(x), y).backward()
            private.optimizer.step()
            seen.append(start_of(model).flatten().astype(np.float64))

    train(
        plan,
        records(features=99, classes=40),
        model=model,
        criterion=Flat(),
        learning_rate=20.0,
        loop=watching,
    )
    noise = np.diff(seen, axis=0) / (plan.noise_multiplier * clip_norm)
    d = noise.shape[1]
    assert noise.shape == (steps, 4000)
    for row in noise:
        # chi-square with d degrees of freedom, five standard deviations
        assert abs((row**2).sum() - d) < 5 * math.sqrt(2 * d)
        assert abs(row.sum()) < 5 * math.sqrt(d)
        inside = (abs(row) < 1).mean()
        assert abs(inside - 0.6827) < 5 * math.sqrt(0.6827 * 0.3173 / d)
        for part in (row[:40], row[40:]):  # bias and weight on their own
            assert abs((part**2).sum() - len(part)) < 5 * math.sqrt(2 * len(part))
    for i in range(steps):
        for j in range(i):
            assert abs(noise[i] @ noise[j]) < 5 * math.sqrt(d)


@pytest.mark.parametrize("way", WAYS)
def test_noise_and_divisor_do_not_depend_on_the_data(way: str) -> None:
    """Uneven members: 1 record or 300 where the plan says 40."""
    one, many = (
        train(make_plan(way), records(count), criterion=Flat(), random=same())
        for count in (1, 300)
    )
    assert (one.vector == many.vector).all()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("physical_batch", [None, 3])
def test_the_ledger_holds_the_steps_that_were_taken(
    way: str, physical_batch: int | None
) -> None:
    plan, taken = make_plan(way, steps=5), []

    def counting(private: PrivateTraining[Any]) -> None:
        plain_loop(private)
        taken.append(private.steps_taken)

    update = train(plan, records(), loop=counting, physical_batch=physical_batch)
    step = PoissonGaussian(plan.privacy.sampling_rate, plan.noise_multiplier)
    assert update.event == Repeated(step, *taken)


@pytest.mark.parametrize("way", WAYS)
def test_two_rounds_never_draw_the_same_noise(way: str) -> None:
    one, other = (train(make_plan(way), records(), criterion=Flat()) for _ in range(2))
    assert distance(one, other) > 0.01


@pytest.mark.parametrize("way", WAYS)
def test_the_entry_is_written_before_anything_is_drawn(way: str) -> None:
    model = linear()
    r, events = make_round(make_plan(way), start_of(model))
    private = r.make_private(
        r.load(model),
        torch.optim.SGD(model.parameters(), lr=1.0),
        DataLoader(records()),
        nn.CrossEntropyLoss(),
    )
    assert events == ["reserve", "noise", "sampling", "bytes"]
    plain_loop(private)
    private.update()
    assert events == ["reserve", "noise", "sampling", "bytes"]


@pytest.mark.parametrize("way", WAYS)
def test_empty_batches_do_not_show(way: str) -> None:
    # at rate 0.001 nearly every batch of 40 records is empty
    plan = make_plan(way, rate=0.001, steps=20)
    rows: list[int] = []

    def counting(private: PrivateTraining[Any]) -> None:
        assert len(private.loader) == 20
        for x, y in private.loader:
            rows.append(len(x))
            assert x.shape[1:] == (5,)
            assert len(y) == len(x)
            loss = private.criterion(private.model(x), y)
            assert torch.isfinite(loss)
            loss.backward()
            private.optimizer.step()

    update = train(plan, records(), learning_rate=0.01, random=same(), loop=counting)
    assert len(rows) == 20
    assert rows.count(0) > 10
    assert np.isfinite(update.vector).all()
    # 20 noises of standard deviation 0.01 / (0.001 * 40): an empty step adds its own
    assert (update.vector**2).mean() == pytest.approx(20 * 0.25**2, rel=0.9)
    assert np.isclose(update.vector, 0).sum() == 0


def test_norms_of_long_gradients_do_not_drift() -> None:
    gradients = torch.rand(2, 3_000_000)
    exact = gradients.double().norm(dim=1)
    assert ((_row_squares(gradients).sqrt() / exact - 1).abs() < 1e-6).all()
