# SPDX-License-Identifier: Apache-2.0
"""Poisson sampling: who is in which batch, and what a batch looks like."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    RandomSampler,
    SequentialSampler,
    Subset,
    SubsetRandomSampler,
    TensorDataset,
    WeightedRandomSampler,
)

from secure_fl.errors import UsageError
from secure_fl.randomness import SeededInsecure
from secure_fl.training.sampler import Batches, PoissonLoader
from secure_fl.training.steps import Steps


def batches(
    loader: DataLoader[Any],
    *,
    rate: float,
    count: int,
    draws: Any = None,
    physical_batch: int | None = None,
) -> Iterator[Any]:
    """Every batch of a round, with the calls a training step makes around it."""
    steps = Steps(count, trained=[])
    private = PoissonLoader(
        Batches(loader),
        rate=rate,
        draws=draws or SeededInsecure(b"sampler").arrays("sampling"),
        steps=steps,
        physical_batch=physical_batch,
    )
    assert len(private) == count
    for batch in private:
        yield batch
        steps.forward(steps.rows)
        steps.loss(steps.rows)
        steps.backward()
        if steps.step(None):
            steps.step_done()
    steps.finish()


def inclusion(
    size: int, *, rate: float, count: int, draws: Any = None
) -> NDArray[np.bool_]:
    """(steps, records): who was in."""
    out = np.zeros((count, size), np.bool_)
    loader = DataLoader(TensorDataset(torch.arange(size)), batch_size=3)
    every = batches(loader, rate=rate, count=count, draws=draws)
    for row, (ids,) in zip(out, every, strict=True):
        assert len(set(ids.tolist())) == len(ids)
        row[ids.numpy()] = True
    return out


def binomials(counts: NDArray[np.int64], trials: int, rate: float) -> float:
    """How likely counts that fit Binomial(trials, rate) worse than these are."""
    law = scipy.stats.binom(trials, rate)
    edges = np.unique(law.ppf(np.linspace(0, 1, 9)[1:-1]))
    expected = np.diff(law.cdf([-1, *edges, trials])) * len(counts)
    seen = np.bincount(np.searchsorted(edges, counts), minlength=len(expected))
    return float(scipy.stats.chisquare(seen, expected).pvalue)


def p_values(got: NDArray[np.bool_], rate: float) -> dict[str, float]:
    """Of what Poisson sampling with ``rate`` says about an inclusion matrix."""
    steps, size = got.shape
    by_record = got.sum(axis=0) - steps * rate
    dispersion = float((by_record**2).sum()) / (steps * rate * (1 - rate))
    twice = int((got[:-1] & got[1:]).sum())
    pairs, both = (steps - 1) * size, rate * rate
    # Neighbouring pairs share a step: (1 + 2 rate) of the binomial's variance.
    z = (twice - pairs * both) / math.sqrt(pairs * both * (1 + 2 * rate))
    return {
        "total": scipy.stats.binomtest(int(got.sum()), got.size, rate).pvalue,
        "batch sizes": binomials(got.sum(axis=1), size, rate),
        "records": binomials(got.sum(axis=0), steps, rate),
        "dispersion": 2 * min(
            scipy.stats.chi2.cdf(dispersion, size),
            scipy.stats.chi2.sf(dispersion, size),
        ),
        "one step and the next": 2 * scipy.stats.norm.sf(abs(z)),
    }  # fmt: skip


SIZE, COUNT, RATE = 500, 400, 0.07
ALPHA = 1e-6


def test_every_record_is_in_independently_with_the_rate() -> None:
    for name, p in p_values(inclusion(SIZE, rate=RATE, count=COUNT), RATE).items():
        assert p > ALPHA, name


class Wrong:
    """Samplers that are often taken for Poisson ones."""

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._rest = np.zeros(0, np.int64)
        self._last = np.zeros(0, np.int64)
        self._generator = np.random.default_rng(5)

    def poisson_sample(self, rate: float, size: int) -> NDArray[np.int64]:
        g, expected = self._generator, round(rate * size)
        if self._kind == "fixed size":
            return g.choice(size, expected, replace=False)
        if self._kind == "shuffled":
            if len(self._rest) < expected:
                self._rest = g.permutation(size)
            batch, self._rest = np.split(self._rest, [expected])
            return batch
        if self._kind == "one step twice":
            if len(self._last):
                batch, self._last = self._last, np.zeros(0, np.int64)
                return batch
            self._last = np.flatnonzero(g.random(size) < rate)
            return self._last
        rates = np.full(size, rate)
        if self._kind == "a rate of 1.1 times":
            rates *= 1.1
        else:  # two kinds of records
            rates[: size // 2] *= 1.5
            rates[size // 2 :] *= 0.5
        return np.flatnonzero(g.random(size) < rates)


@pytest.mark.parametrize(
    ("kind", "seen_by"),
    [
        ("fixed size", "batch sizes"),
        ("shuffled", "records"),
        ("one step twice", "one step and the next"),
        ("a rate of 1.1 times", "total"),
        ("two kinds of records", "dispersion"),
    ],
)
def test_these_statistics_see_other_samplers(kind: str, seen_by: str) -> None:
    got = inclusion(SIZE, rate=RATE, count=COUNT, draws=Wrong(kind))
    assert p_values(got, RATE)[seen_by] < ALPHA


@pytest.mark.parametrize("physical_batch", [1, 4, 100])
def test_pieces_make_up_the_same_batches(physical_batch: int) -> None:
    loader = DataLoader(TensorDataset(torch.arange(30)))
    whole, pieces = (
        [ids.tolist() for (ids,) in batches(
            loader, rate=0.3, count=5, physical_batch=size
        )]
        for size in (None, physical_batch)
    )  # fmt: skip
    assert max(len(piece) for piece in pieces) <= physical_batch
    assert [*itertools.chain(*pieces)] == [*itertools.chain(*whole)]
    if physical_batch == 100:
        assert pieces == whole


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


def test_a_loop_may_take_its_batches_apart() -> None:
    loader: DataLoader[Any] = DataLoader([{"x": 1.0, "y": 0}] * 3)  # type: ignore[arg-type]
    for rate in (1e-9, 0.9):
        for batch in batches(loader, rate=rate, count=3):
            assert len(batch.pop("y")) == len(batch.pop("x"))


def test_tensor_data_sets_are_indexed_at_once() -> None:
    data = TensorDataset(torch.arange(6.0).view(3, 2), torch.arange(3))
    (fast,) = batches(DataLoader(data), rate=1.0, count=1)
    slow = next(iter(DataLoader(data, batch_size=3)))
    assert type(fast) is type(slow)
    assert all(torch.equal(a, b) for a, b in zip(fast, slow, strict=True))


def test_the_length_of_the_data_is_not_a_number_of_steps() -> None:
    assert len(list(batches(DataLoader(Pairs(1000)), rate=0.01, count=2))) == 2


def test_pairs_are_told_from_other_batches() -> None:
    Batches(DataLoader(Pairs(3))).check_pairs()
    with pytest.raises(UsageError, match="pair") as caught:
        Batches(DataLoader(TensorDataset(torch.arange(3)))).check_pairs()
    assert caught.value.hint


def test_items_that_are_batches_themselves_are_refused() -> None:
    with pytest.raises(UsageError, match="many records") as caught:
        Batches(DataLoader(Pairs(3), batch_size=None))
    assert caught.value.hint


class Halves(BatchSampler):
    """Every second batch."""

    def __iter__(self) -> Iterator[list[int]]:
        return itertools.islice(super().__iter__(), 0, None, 2)


TEN = TensorDataset(torch.arange(10))
CHOOSING: dict[str, dict[str, Any]] = {
    "subset": {"sampler": SubsetRandomSampler(range(5))},
    "weights": {"sampler": WeightedRandomSampler([1.0] * 5 + [0.0] * 5, 10)},
    "replacement": {"sampler": RandomSampler(TEN, replacement=True)},
    "a few at random": {"sampler": RandomSampler(TEN, num_samples=5)},
    "more at random": {"sampler": RandomSampler(TEN, num_samples=20)},
    "the first five": {"sampler": SequentialSampler(range(5))},
    "a list": {"sampler": [0, 1, 2]},
    "batches": {"batch_sampler": [[0, 1], [2, 3]]},
    "batches of a subset": {
        "batch_sampler": BatchSampler(SubsetRandomSampler(range(5)), 2, False)
    },
    "half of the batches": {"batch_sampler": Halves(SequentialSampler(TEN), 2, False)},
}  # fmt: skip


@pytest.mark.parametrize("name", CHOOSING)
def test_a_choice_of_records_is_not_lost_in_silence(name: str) -> None:
    with pytest.raises(UsageError, match="sampler chooses") as caught:
        Batches(DataLoader(TEN, **CHOOSING[name]))
    assert "Subset(dataset, rows)" in caught.value.hint


@pytest.mark.parametrize(
    "choice",
    [
        {"shuffle": True, "drop_last": True},
        {"sampler": RandomSampler(TEN, generator=torch.Generator())},
        {"batch_sampler": BatchSampler(SequentialSampler(TEN), 3, False)},
    ],
)
def test_an_order_is_no_choice(choice: dict[str, Any]) -> None:
    assert Batches(DataLoader(TEN, **choice)).size == 10


def test_a_choice_is_made_in_the_data_set() -> None:
    few = Subset(TEN, [3, 5, 8])
    for (ids,) in batches(DataLoader(few, shuffle=True), rate=0.5, count=20):
        assert set(ids.tolist()) <= {3, 5, 8}
