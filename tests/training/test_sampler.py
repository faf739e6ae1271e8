# SPDX-License-Identifier: Apache-2.0
"""Poisson sampling: who is in which batch, and what a batch looks like."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, TensorDataset

from secure_fl.errors import UsageError
from secure_fl.randomness import SystemRandom
from secure_fl.training.sampler import Batches, PoissonLoader
from secure_fl.training.steps import Steps


def batches(loader: DataLoader[Any], *, rate: float, count: int) -> Iterator[Any]:
    """Every batch of a round, with the calls a training step makes around it."""
    steps = Steps(count, trained=[])
    private = PoissonLoader(
        Batches(loader), rate=rate, draws=SystemRandom().arrays("sampling"), steps=steps
    )
    assert len(private) == count
    for batch in private:
        yield batch
        steps.forward(steps.rows)
        steps.loss(steps.rows)
        steps.backward()
        steps.step(None)
        steps.step_done()
    steps.finish()


def inclusion(size: int, *, rate: float, count: int) -> NDArray[np.bool_]:
    """(steps, records): who was in."""
    out = np.zeros((count, size), np.bool_)
    loader = DataLoader(TensorDataset(torch.arange(size)), batch_size=3)
    for row, (ids,) in zip(out, batches(loader, rate=rate, count=count), strict=True):
        assert len(set(ids.tolist())) == len(ids)
        row[ids.numpy()] = True
    return out


def test_every_record_is_in_independently_with_the_rate() -> None:
    size, count, rate = 500, 400, 0.07
    got = inclusion(size, rate=rate, count=count)
    n, variance = size * count, rate * (1 - rate)
    assert abs(got.sum() - n * rate) < 5 * math.sqrt(n * variance)
    # A fixed batch size would have no variance; correlated records too much.
    # Sample variance of k binomials: relative standard deviation about sqrt(2 / k).
    for axis, k, trials in ((1, count, size), (0, size, count)):
        sums = got.sum(axis=axis)
        relative = sums.var(ddof=1) / (trials * variance)
        assert abs(relative - 1) < 5 * math.sqrt(2 / k)
    # One step says nothing about the next.
    both = (got[:-1] & got[1:]).sum()
    p, pairs = rate**2, (count - 1) * size
    assert abs(both - pairs * p) < 5 * math.sqrt(pairs * p * (1 + 2 * rate))


def test_rate_one_is_everybody() -> None:
    assert inclusion(5, rate=1.0, count=4).all()


class Pairs(Dataset[tuple[str, torch.Tensor]]):
    def __init__(self, size: int) -> None:
        self._size = size

    def __len__(self) -> int:
        return self._size

    def __getitem__(self, index: int) -> tuple[str, torch.Tensor]:
        return f"customer {index}", torch.full((2, 3), float(index))


class Point(NamedTuple):
    x: torch.Tensor
    y: torch.Tensor


def collate_point(samples: list[tuple[str, torch.Tensor]]) -> Point:
    return Point(
        torch.stack([x for _, x in samples]), torch.tensor([len(n) for n, _ in samples])
    )


def test_batches_look_like_the_loaders_own() -> None:
    for batch in batches(DataLoader(Pairs(30)), rate=0.3, count=5):
        names, x = batch
        assert x.shape == (len(names), 2, 3)
        assert [f"customer {int(row[0, 0])}" for row in x] == list(names)


@pytest.mark.parametrize("rate", [1e-6, 0.9])
def test_empty_batches_keep_their_structure(rate: float) -> None:
    loader = DataLoader(Pairs(3), collate_fn=collate_point)
    for batch in batches(loader, rate=rate, count=4):
        assert isinstance(batch, Point)
        assert batch.x.shape == (len(batch.y), 2, 3)
        assert batch.y.dtype == torch.int64
    for names, x in batches(DataLoader(Pairs(3)), rate=rate, count=4):
        assert x.shape == (len(names), 2, 3)


def test_tensor_data_sets_are_indexed_at_once() -> None:
    data = TensorDataset(torch.arange(6.0).view(3, 2), torch.arange(3))
    (fast,) = batches(DataLoader(data), rate=1.0, count=1)
    slow = next(iter(DataLoader(data, batch_size=3)))
    assert type(fast) is type(slow)
    assert all(torch.equal(a, b) for a, b in zip(fast, slow, strict=True))


def test_the_length_of_the_data_is_not_a_number_of_steps() -> None:
    assert len(list(batches(DataLoader(Pairs(1000)), rate=0.01, count=2))) == 2


def test_items_that_are_batches_themselves_are_refused() -> None:
    with pytest.raises(UsageError, match="many records") as caught:
        Batches(DataLoader(Pairs(3), batch_size=None))
    assert caught.value.hint
