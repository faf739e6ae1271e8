# SPDX-License-Identifier: Apache-2.0
"""Large batches in small pieces: what a loop sees, and what it may not do with them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from opacus.utils.batch_memory_manager import BatchMemoryManager
from torch import nn
from torch.utils.data import DataLoader

from secure_fl.errors import UsageError
from secure_fl.training.client_round import PrivateTraining

from .support import (
    WAYS,
    clean,
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


def in_pieces(way: str, *, rate: float = 0.5) -> tuple[nn.Linear, PrivateTraining[Any]]:
    model = linear()
    r = make_round(make_plan(way, rate=rate), start_of(model), random=same()).round
    return model, r.make_private(
        r.load(model),
        torch.optim.SGD(model.parameters(), lr=0.5, momentum=0.5),
        DataLoader(records()),
        nn.CrossEntropyLoss(),
        physical_batch=6,
    )


@pytest.mark.parametrize("way", WAYS)
def test_the_weights_move_once_per_batch(way: str) -> None:
    model, private = in_pieces(way)
    rows, moved = [], []
    for x, y in private.loader:
        before, taken = model.weight.detach().clone(), private.steps_taken
        private.optimizer.zero_grad()
        private.criterion(private.model(x), y).backward()
        private.optimizer.step()
        rows.append(len(x))
        moved.append(not torch.equal(before, model.weight))
        assert private.steps_taken == taken + moved[-1]
    private.update()
    assert private.steps_taken == 3 == sum(moved)
    assert len(private.loader) == 3
    assert max(rows) == 6
    # A batch ends with what is left over, or with a full piece.
    whole = np.add.reduceat(rows, np.flatnonzero([True, *moved[:-1]]))
    source = same()
    source.arrays("noise")
    draws = source.arrays("sampling")
    assert whole.tolist() == [len(draws.poisson_sample(0.5, 40)) for _ in range(3)]


@pytest.mark.parametrize("way", WAYS)
def test_momentum_and_noise_are_those_of_whole_batches(way: str) -> None:
    plan = make_plan(way)
    whole, pieces = (
        train(plan, records(), random=same(), physical_batch=size)
        for size in (None, 3)
    )  # fmt: skip
    assert distance(whole, pieces) < 1e-5


@pytest.mark.parametrize("way", WAYS)
def test_an_empty_batch_is_one_empty_piece(way: str) -> None:
    _, private = in_pieces(way, rate=1e-9)
    rows = []
    for x, y in private.loader:
        rows.append(len(x))
        private.criterion(private.model(x), y).backward()
        private.optimizer.step()
    assert rows == [0, 0, 0]
    private.update()


def stop_within_a_batch(private: PrivateTraining[Any]) -> None:
    for x, y in private.loader:
        private.criterion(private.model(x), y).backward()
        private.optimizer.step()
        if private.steps_taken == 2:
            break
    x, y = next(iter(private.loader))


def stop_after_a_piece(private: PrivateTraining[Any]) -> None:
    batches = iter(private.loader)
    while private.steps_taken < 3:
        x, y = next(batches)
        private.criterion(private.model(x), y).backward()
        private.optimizer.step()
        if private.steps_taken == 2:
            return


def a_piece_twice(private: PrivateTraining[Any]) -> None:
    for x, y in private.loader:
        for _ in range(2):
            private.criterion(private.model(x), y).backward()
            private.optimizer.step()


def skip_a_piece(private: PrivateTraining[Any]) -> None:
    batches = iter(private.loader)
    next(batches)
    next(batches)


def schedule_by_piece(private: PrivateTraining[Any]) -> None:
    schedule = torch.optim.lr_scheduler.StepLR(private.optimizer, 1, gamma=0.9)
    for x, y in private.loader:
        private.criterion(private.model(x), y).backward()
        private.optimizer.step()
        schedule.step()


def memory_manager(private: PrivateTraining[Any]) -> None:
    optimizer: Any = private.optimizer
    optimizer.signal_skip_step(do_skip=True)


LOOPS = {
    "stop within a batch": (stop_within_a_batch, "second time"),
    "stop after a piece": (stop_after_a_piece, "2 of the plan's 3 local steps"),
    "a piece twice": (a_piece_twice, "where the last step is complete"),
    "skip a piece": (skip_a_piece, "where a batch was drawn"),
    "schedule by piece": (schedule_by_piece, "settings changed within a batch"),
    "memory manager": (memory_manager, "BatchMemoryManager"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LOOPS)
def test_loop_refused(way: str, name: str) -> None:
    loop, says = LOOPS[name]
    model, private = in_pieces(way)

    def run() -> None:
        loop(private)
        private.update()

    with pytest.raises(UsageError, match=says) as caught:
        run()
    assert caught.value.hint
    with pytest.raises(UsageError):
        private.update()
    assert clean(model)


@pytest.mark.parametrize("way", WAYS)
def test_half_a_batch_is_not_a_step(way: str) -> None:
    """All whole batches were taken; a piece of one more was not drawn."""
    _, private = in_pieces(way)
    batches = iter(private.loader)
    x, y = next(batches)
    private.criterion(private.model(x), y).backward()
    private.optimizer.step()
    assert private.steps_taken == 0
    with pytest.raises(UsageError, match="0 of the plan's 3"):
        private.update()


@pytest.mark.parametrize("way", WAYS)
def test_schedules_follow_whole_steps(way: str) -> None:
    model, private = in_pieces(way)
    schedule = torch.optim.lr_scheduler.StepLR(private.optimizer, 1, gamma=0.0)
    taken, after = 0, []
    for x, y in private.loader:
        private.criterion(private.model(x), y).backward()
        private.optimizer.step()
        if private.steps_taken > taken:
            taken = private.steps_taken
            schedule.step()
            after.append(model.weight.detach().clone())
    private.update()
    assert torch.equal(after[0], after[2])  # the rate is zero after the first step


def test_opacus_own_manager_is_refused() -> None:
    _, private = in_pieces("opacus")
    optimizer: Any = private.optimizer
    with (
        pytest.raises(UsageError, match="BatchMemoryManager"),
        BatchMemoryManager(
            data_loader=DataLoader(records()),
            max_physical_batch_size=3,
            optimizer=optimizer,
        ) as loader,
    ):
        for _ in loader:
            pass


def test_plain_loop_needs_no_change() -> None:
    _, private = in_pieces("head")
    plain_loop(private)
    assert private.update().vector.shape == (18,)
