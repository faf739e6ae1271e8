# SPDX-License-Identifier: Apache-2.0
"""What a training loop may not do, and what a round leaves behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset

from secure_fl.errors import EngineError, UsageError
from secure_fl.privacy import Ledger
from secure_fl.randomness import SystemRandom
from secure_fl.training import ready
from secure_fl.training.client_round import ClientRound, PrivateTraining

from .support import (
    WAYS,
    Backbone,
    charge,
    clean,
    linear,
    make_plan,
    make_round,
    plain_loop,
    prepared,
    records,
    same,
    start_of,
    train,
)

# -- refused in the loop ---------------------------------------------------------------


class Rootless(nn.Module):
    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.sum()


def one_step(private: PrivateTraining[Any], x: torch.Tensor, y: torch.Tensor) -> None:
    private.criterion(private.model(x), y).backward()
    private.optimizer.step()


def stop_early(private: PrivateTraining[Any]) -> None:
    for i, (x, y) in enumerate(private.loader):
        one_step(private, x, y)
        if i == 1:
            break


def second_epoch(private: PrivateTraining[Any]) -> None:
    plain_loop(private)
    plain_loop(private)


def skip_a_batch(private: PrivateTraining[Any]) -> None:
    batches = iter(private.loader)
    next(batches)
    one_step(private, *next(batches))


def step_twice(private: PrivateTraining[Any]) -> None:
    for x, y in private.loader:
        one_step(private, x, y)
        private.optimizer.step()


def accumulate(private: PrivateTraining[Any]) -> None:
    x, y = next(iter(private.loader))
    for _ in range(2):
        private.criterion(private.model(x), y).backward()
    private.optimizer.step()


def backward_twice(private: PrivateTraining[Any]) -> None:
    x, y = next(iter(private.loader))
    loss = private.criterion(private.model(x), y)
    loss.backward(retain_graph=True)
    loss.backward()


def old_loss_again(private: PrivateTraining[Any]) -> None:
    old = None
    for x, y in private.loader:
        loss = private.criterion(private.model(x), y)
        if old is not None:
            loss = loss + old
        old = loss
        loss.backward(retain_graph=True)
        private.optimizer.step()


def loss_twice(private: PrivateTraining[Any]) -> None:
    x, y = next(iter(private.loader))
    logits = private.model(x)
    (private.criterion(logits, y) + private.criterion(logits, y)).backward()


def every_record_twice(private: PrivateTraining[Any]) -> None:
    for x, y in private.loader:
        one_step(private, torch.cat([x, x]), torch.cat([y, y]))


def two_views(private: PrivateTraining[Any]) -> None:
    for x, y in private.loader:
        logits = private.model(torch.cat([x, -x]))
        private.criterion(logits.view(2, len(x), -1).mean(0), y).backward()
        private.optimizer.step()


def other_data(private: PrivateTraining[Any]) -> None:
    for _ in private.loader:
        one_step(private, *records(40).tensors)


def own_criterion(private: PrivateTraining[Any]) -> None:
    for x, y in private.loader:
        loss: Any = nn.functional.cross_entropy(private.model(x), y)
        loss.backward()
        private.optimizer.step()


def closure(private: PrivateTraining[Any]) -> None:
    for x, y in private.loader:
        private.criterion(private.model(x), y).backward()
        private.optimizer.step(lambda: 0.0)


Change = Callable[[Any], Any]


def changed(change: Change) -> Callable[[PrivateTraining[Any]], None]:
    def loop(private: PrivateTraining[Any]) -> None:
        for x, y in private.loader:
            change(private.criterion(private.model(x), y)).backward()
            private.optimizer.step()

    return loop


def from_a_gradient(private: PrivateTraining[Any]) -> None:
    for x, y in private.loader:
        loss = private.criterion(private.model(x), y)
        loss.backward(loss.detach())
        private.optimizer.step()


def second_optimizer(private: PrivateTraining[Any]) -> None:
    extra = torch.optim.SGD(private.model.parameters(), lr=1.0)
    for x, y in private.loader:
        private.model.weight.grad = torch.ones(3, 5)
        extra.step()
        one_step(private, x, y)


def best_of_all(private: PrivateTraining[Any]) -> None:
    best = None
    for x, y in private.loader:
        one_step(private, x, y)
        best = best or {k: v.clone() for k, v in private.model.state_dict().items()}
    assert best is not None
    private.model.load_state_dict(best)


def add_parameter(private: PrivateTraining[Any]) -> None:
    private.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})


def load_optimizer(private: PrivateTraining[Any]) -> None:
    private.optimizer.load_state_dict(private.optimizer.state_dict())


LOOPS: dict[str, tuple[Callable[[PrivateTraining[Any]], None], str]] = {
    "stop early": (stop_early, "2 of the plan's 3 local steps"),
    "second epoch": (second_epoch, "second time"),
    "skip a batch": (skip_a_batch, "next batch was drawn where a batch was drawn"),
    "step twice": (step_twice, "where the last step is complete"),
    "accumulate": (accumulate, "was called where the backward pass ran"),
    "backward twice": (backward_twice, "backward was called where the backward"),
    "old loss again": (old_loss_again, "backward was called where the backward"),
    "loss twice": (loss_twice, "criterion was called where the loss"),
    "every record twice": (every_record_twice, "rows, but the batch has"),
    "two views": (two_views, "rows, but the batch has"),
    "other data": (other_data, "rows, but the batch has"),
    "own criterion": (own_criterion, "where the forward pass ran"),
    "closure": (closure, "no closure"),
    "squared loss": (changed(lambda loss: loss**2), "loss was changed"),
    "flooding": (changed(lambda loss: (loss - 9.0).abs() + 9.0), "loss was changed"),
    "doubled loss": (changed(lambda loss: loss * 2), "loss was changed"),
    "halved loss": (changed(lambda loss: loss / 2), "loss was changed"),
    "turned loss": (changed(lambda loss: -loss), "loss was changed"),
    "loss times nan": (changed(lambda loss: loss * float("nan")), "loss was changed"),
    "backward from a gradient": (from_a_gradient, "loss was changed"),
    "second optimizer": (second_optimizer, "changed by something other"),
    "best of all": (best_of_all, "changed by something other"),
    "add a parameter": (add_parameter, "added to the optimizer"),
    "load optimizer": (load_optimizer, "state was loaded"),
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", LOOPS)
def test_loop_refused_and_charged(way: str, name: str) -> None:
    loop, says = LOOPS[name]
    model = linear()
    _, events, make = prepared(model, way=way)
    private = make()

    def run() -> None:
        loop(private)
        private.update()

    with pytest.raises(UsageError, match=says) as caught:
        run()
    assert caught.value.hint
    assert events == ["reserve", "noise", "sampling", "bytes"]
    with pytest.raises(UsageError):  # a caught refusal does not bring the round back
        private.update()
    assert clean(model)


@pytest.mark.parametrize("way", WAYS)
def test_refusal_swallowed_by_the_loop_still_ends_the_round(way: str) -> None:
    def swallowing(private: PrivateTraining[Any]) -> None:
        for x, y in private.loader:
            loss = private.criterion(private.model(x), y)
            loss.backward(retain_graph=True)
            try:
                loss.backward()
            except UsageError:
                return

    with pytest.raises(UsageError, match="backward was called"):
        train(make_plan(way), records(), loop=swallowing)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_exactly_the_returned_loss_is_accepted(way: str, reduction: str) -> None:
    def other_spelling(private: PrivateTraining[Any]) -> None:
        for x, y in private.loader:
            loss = private.criterion(private.model(x), y)
            torch.autograd.backward(loss)
            assert (loss.detach() ** 2).isfinite()  # it may be looked at
            private.optimizer.step()

    criterion = nn.CrossEntropyLoss(reduction=reduction)
    one, other = (
        train(make_plan(way), records(), criterion=criterion, loop=loop, random=same())
        for loop in (plain_loop, other_spelling)
    )
    assert (one.vector == other.vector).all()


@pytest.mark.parametrize("way", WAYS)
def test_scalar_loss_is_refused(way: str) -> None:
    class Batch(nn.Module):
        reduction = "mean"

        def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
            return outputs.std()

    with pytest.raises(UsageError, match="one loss for the batch"):
        train(make_plan(way), records(), criterion=Batch())


@pytest.mark.parametrize("way", WAYS)
def test_non_finite_weights_are_refused(way: str) -> None:
    with pytest.raises(EngineError, match="no longer finite"):
        train(make_plan(way), records(), learning_rate=float("inf"))


def test_update_is_taken_once() -> None:
    _, _, make = prepared(linear())
    private = make()
    plain_loop(private)
    private.update()
    with pytest.raises(UsageError, match="already taken"):
        private.update()


def test_a_refused_round_stays_charged_in_the_ledger(tmp_path: Path) -> None:
    plan = make_plan("head")
    model = linear()
    ledger = Ledger(tmp_path / "ledger.sqlite", client="bank-a")

    r = ClientRound(
        client="bank-a",
        round=0,
        plan=plan,
        model=start_of(model),
        reserve=lambda: charge(ledger, plan),
        random=SystemRandom(),
    )
    parts = (
        r.load(model),
        torch.optim.SGD(model.parameters(), lr=1.0),
        DataLoader(records()),
    )
    with pytest.raises(UsageError):
        r.make_private(*parts, Rootless())
    assert ledger.charged(plan.lineage) == []
    private = r.make_private(*parts, nn.CrossEntropyLoss())
    assert ledger.charged(plan.lineage) == [plan.release]
    with pytest.raises(UsageError):
        private.update()
    assert ledger.charged(plan.lineage) == [plan.release]
    ledger.close()


# -- what is left behind ---------------------------------------------------------------


@pytest.mark.parametrize("way", WAYS)
def test_the_module_is_ordinary_again(way: str) -> None:
    model = linear()
    names = list(model.state_dict())
    _, _, make = prepared(model, way=way)
    private = make()
    assert private.model is model
    assert not clean(model)
    plain_loop(private)
    private.update()
    assert clean(model)
    assert list(model.state_dict()) == names
    loss: Any = model(torch.ones(2, 5)).sum()
    loss.backward()
    assert model.weight.grad is not None
    # and a second round may use it
    _, _, make = prepared(model, way=way)
    plain_loop(private := make())
    private.update()


@pytest.mark.parametrize(
    ("way", "ghost"), [("head", False), ("opacus", False), ("opacus", True)]
)
@pytest.mark.parametrize("broken", ["watch_forward", "Loop"])
def test_a_round_that_fails_while_it_begins_leaves_nothing(
    way: str, ghost: bool, broken: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After the charge, with torch's generators seeded and the model's forward
    replaced, and ("Loop") with all hooks in place."""
    model = linear()
    start = start_of(model)
    r, events = make_round(make_plan(way), start)
    plain = getattr(ready, broken)

    def fails(*args: Any) -> Any:
        if "bytes" in events:  # which torch's generators were seeded with
            assert "forward" in vars(model)
            raise MemoryError
        return plain(*args)

    monkeypatch.setattr(ready, broken, fails)
    before = torch.get_rng_state()
    with pytest.raises(MemoryError):
        r.make_private(
            model,
            torch.optim.SGD(model.parameters(), lr=1.0),
            DataLoader(records()),
            nn.CrossEntropyLoss(),
            ghost=ghost,
        )
    assert events[0] == "reserve"
    assert torch.equal(torch.get_rng_state(), before)
    assert clean(model)
    x, y = records().tensors
    assert len(model(x[:0])) == 0
    nn.CrossEntropyLoss()(model(x), y).backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


def test_no_raw_gradient_is_left_for_another_optimizer() -> None:
    model = linear()
    _, _, make = prepared(model)
    private = make()
    x, y = next(iter(private.loader))
    private.criterion(private.model(x), y).backward()
    assert model.weight.grad is None


def test_frozen_batch_norm_stays_asleep() -> None:
    model = Backbone(nn.BatchNorm1d(8))
    model.body.eval()
    frozen = {k: v.clone() for k, v in model.state_dict().items() if "body" in k}
    r, _ = make_round(make_plan("opacus"), start_of(model))
    private = r.make_private(
        r.load(model),
        torch.optim.SGD(model.head.parameters(), lr=1.0),
        DataLoader(records()),
        nn.CrossEntropyLoss(),
    )
    plain_loop(private)  # calls model.train(), which wakes the whole module
    assert private.update().vector.shape == (27,)
    for name, value in frozen.items():
        assert torch.equal(model.state_dict()[name], value)


def test_changed_frozen_state_is_refused() -> None:
    model = Backbone(nn.BatchNorm1d(8))
    model.body.eval()
    r, events = make_round(make_plan("opacus"), start_of(model))
    private = r.make_private(
        r.load(model),
        torch.optim.SGD(model.head.parameters(), lr=1.0),
        DataLoader(records()),
        nn.CrossEntropyLoss(),
    )
    plain_loop(private)
    model.body.train()(records().tensors[0])  # past private.model's own forward
    with pytest.raises(UsageError, match="buffer of the model changed"):
        private.update()
    assert events[0] == "reserve"


@pytest.mark.parametrize("way", WAYS)
def test_evaluation_between_steps_is_free(way: str) -> None:
    def evaluating(private: PrivateTraining[Any]) -> None:
        x, y = records(9).tensors
        for batch in private.loader:
            private.model.train()
            one_step(private, *batch)
            private.model.eval()
            shown = private.criterion(private.model(x), y)
            plain = nn.functional.cross_entropy(private.model(x), y)
            assert shown.item() == pytest.approx(plain.item())
            private.model.train()
            with torch.no_grad():
                assert private.criterion(private.model(x), y) == shown

    assert train(make_plan(way), records(), loop=evaluating).vector.shape == (18,)


@pytest.mark.parametrize("way", WAYS)
def test_learning_rate_schedules_work(way: str) -> None:
    model = linear()
    _, _, make = prepared(model, way=way)
    private = make()
    schedule = torch.optim.lr_scheduler.StepLR(private.optimizer, 1, gamma=0.0)
    after = []
    for x, y in private.loader:
        one_step(private, x, y)
        schedule.step()
        after.append(model.weight.detach().clone())
    private.update()
    assert torch.equal(after[0], after[2])  # the rate is zero after the first step


class Words(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 6

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"x": torch.full((5,), float(index)), "y": index % 3, "id": str(index)}


@pytest.mark.parametrize("way", WAYS)
def test_dictionaries_are_collated_as_the_users_loader_does(way: str) -> None:
    model = linear()
    r, _ = make_round(make_plan(way, rate=0.001, steps=20), start_of(model))
    private = r.make_private(
        r.load(model),
        torch.optim.SGD(model.parameters(), lr=0.1),
        DataLoader(Words(), batch_size=2),
        nn.CrossEntropyLoss(),
    )
    for batch in private.loader:
        assert batch["x"].shape == (len(batch["id"]), 5)
        one_step(private, batch["x"], batch["y"])
    assert np.isfinite(private.update().vector).all()
