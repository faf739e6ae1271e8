# SPDX-License-Identifier: Apache-2.0
"""A model is tried on made-up records first: what that finds costs no budget."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from secure_fl.errors import UsageError
from secure_fl.training.client_round import ClientRound
from secure_fl.training.trial import check_rows_apart

from .models import CLASSES, MODELS, dataset_for
from .support import (
    Backbone,
    clean,
    linear,
    make_distributed,
    make_plan,
    make_round,
    prepared,
    records,
    same,
    start_of,
    sum_of,
)
from .test_distributed import exact

Body = Callable[[torch.Tensor], torch.Tensor]


class Around(nn.Module):
    """A linear layer, and a function of what goes in or what comes out."""

    def __init__(self, *, before: Body | None = None, after: Body | None = None):
        super().__init__()
        self.layer = linear()
        self._before, self._after = before, after

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.layer(self._before(x) if self._before else x)
        return self._after(hidden) if self._after else hidden


class TimeFirst(nn.Module):
    """Gives one row per record; its layer sees one row per time step."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 6)
        self.head = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.layer(x.transpose(0, 1)))
        out: torch.Tensor = self.head(hidden.mean(0))
        return out


class Counter(nn.Module):
    """Counts its calls."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = linear()
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.calls += 1  # type: ignore[assignment,operator]
        out: torch.Tensor = self.layer(x)
        return out


class Scaled(nn.Module):
    """Holds a weight itself, beside its layer."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(5))
        self.layer = linear()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x * self.gain)
        return out


def steps_of(size: int) -> TensorDataset:
    x = np.random.default_rng(3).normal(size=(size, size, 4)).astype(np.float32)
    return TensorDataset(torch.from_numpy(x), torch.arange(size) % 3)


def at_once(
    model: nn.Module, dataset: Dataset[Any], *, ghost: bool = False
) -> tuple[ClientRound, list[str], Callable[[], object]]:
    start = start_of(model)
    r, events = make_round(make_distributed("opacus", values=start.size), start)
    r.load(model)
    loader = DataLoader(dataset, batch_size=2)
    return (
        r,
        events,
        lambda: r.gradient_sum(model, loader, nn.CrossEntropyLoss(), ghost=ghost),
    )


def in_a_loop(
    model: nn.Module, dataset: Dataset[Any], *, ghost: bool = False
) -> tuple[ClientRound, list[str], Callable[[], object]]:
    r, events = make_round(make_plan("opacus"), start_of(model))
    r.load(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
    loader = DataLoader(dataset, batch_size=2)
    return (
        r,
        events,
        lambda: r.make_private(
            model, optimizer, loader, nn.CrossEntropyLoss(), ghost=ghost
        ),
    )


REFUSED: dict[str, tuple[Callable[[], nn.Module], Callable[[], TensorDataset], str]] = {
    "mean of the batch": (
        lambda: Around(before=lambda x: x - x.mean(0)),
        records,
        "beside it",
    ),
    "softmax over records": (
        lambda: Around(after=lambda x: x.softmax(0)),
        records,
        "beside it",
    ),
    "the row before": (
        lambda: Around(after=lambda x: x + x.roll(1, 0)),
        records,
        "beside it",
    ),
    "time steps first, as many as records": (
        TimeFirst,
        lambda: steps_of(6),
        "another number of rows",
    ),
    "time steps first, two": (TimeFirst, lambda: steps_of(2), "another number of rows"),
    "time steps first, three": (
        TimeFirst,
        lambda: steps_of(3),
        "another number of rows",
    ),
    "a weight of the model's own": (
        Scaled,
        records,
        "'gain' is trained and in none",
    ),
    "a counter": (Counter, records, "'calls', a buffer of the model"),
}  # fmt: skip


@pytest.mark.parametrize("way", [at_once, in_a_loop])
@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("case", REFUSED)
def test_refused_uncharged(way: Any, case: str, ghost: bool) -> None:
    build, dataset, says = REFUSED[case]
    model = build()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    _, events, call = way(model, dataset(), ghost=ghost)
    with pytest.raises(UsageError, match=says) as caught:
        call()
    assert caught.value.hint
    assert events == []
    assert clean(model)
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name])


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("name", MODELS)
def test_ordinary_models_pass_and_are_left_as_they_were(name: str, ghost: bool) -> None:
    model, dataset = MODELS[name](), dataset_for(name)
    modules = list(model.modules())
    if name == "partly frozen":
        model.body[0].eval()  # type: ignore[index,union-attr]
    modes = [m.training for m in modules]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    for parameter in model.parameters():
        parameter.grad = torch.ones_like(parameter)
    state = torch.get_rng_state()
    seen: list[bool] = []

    # The charge comes after the trial and before the round: look there.
    r, events, call = at_once(model, dataset, ghost=ghost)
    reserve = r._reserve

    def look() -> Any:
        seen.append(clean(model))
        assert [m.training for m in modules] == modes
        assert all(torch.equal(model.state_dict()[k], before[k]) for k in before)
        assert all(
            (p.grad == 1).all() for p in model.parameters() if p.grad is not None
        )
        assert all(p.grad is not None for p in model.parameters())
        assert torch.equal(torch.get_rng_state(), state)
        return reserve()

    r._reserve = look
    call()
    assert seen == [True]
    assert events[0] == "reserve"


def test_no_record_reaches_the_model_before_the_charge() -> None:
    seen: list[torch.Tensor] = []
    x, y = records().tensors

    def keep(batch: torch.Tensor) -> torch.Tensor:
        seen.append(batch.detach().clone())
        return batch

    model = nn.Sequential(Around(before=keep))
    r, _, call = at_once(model, TensorDataset(x, y))
    reserve, count = r._reserve, []

    def look() -> Any:
        count.append(len(seen))
        return reserve()

    r._reserve = look
    call()
    tried, trained = seen[: count[0]], seen[count[0] :]
    assert [len(batch) for batch in tried] == [1, 1, 3] * 2 + [2, 3]
    assert not any((batch[:, None] == x).any() for batch in tried)
    assert all(bool((batch[:, None] == x).all(2).any(1).all()) for batch in trained)


class Failing(nn.Module):
    reduction = "mean"

    def forward(self, *given: torch.Tensor) -> torch.Tensor:
        raise ValueError("what is this?")


@pytest.mark.parametrize("part", ["model", "criterion"])
def test_a_failing_part_is_named_and_costs_nothing(part: str) -> None:
    model = nn.Sequential(Failing(), linear()) if part == "model" else linear()
    criterion = Failing() if part == "criterion" else nn.CrossEntropyLoss()
    r, events = make_round(make_distributed("opacus"), start_of(model))
    with pytest.raises(UsageError, match="zeros: ValueError: what is this") as caught:
        r.gradient_sum(r.load(model), DataLoader(records()), criterion)
    assert isinstance(caught.value.__cause__, ValueError)
    assert caught.value.hint
    assert events == []
    assert clean(model)


def test_a_loop_may_change_a_batch_before_the_model_sees_it() -> None:
    """Pictures that a loop flattens, and labels that it turns into numbers."""
    x, y = records().tensors
    model = nn.Linear(5, 1)
    dataset = TensorDataset(x.view(-1, 5, 1), y % 2)
    _, events, make = prepared(
        model, loader=DataLoader(dataset), criterion=nn.BCEWithLogitsLoss()
    )
    private = make()
    for pictures, labels in private.loader:
        logits = private.model(pictures.flatten(1)).squeeze(1)
        private.criterion(logits, labels.float()).backward()
        private.optimizer.step()
    private.update()
    assert events[0] == "reserve"


def test_batches_that_cannot_be_made_up_are_not_tried() -> None:
    class Words(Dataset[tuple[str, int]]):
        def __len__(self) -> int:
            return 4

        def __getitem__(self, index: int) -> tuple[str, int]:
            return "abcd"[index], index % CLASSES

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table = nn.Embedding(4, CLASSES)

        def forward(self, words: list[str]) -> torch.Tensor:
            out: torch.Tensor = self.table(
                torch.tensor(["abcd".index(w) for w in words])
            )
            return out

    _, events, make = prepared(Reader(), loader=DataLoader(Words()))
    make()
    assert events[0] == "reserve"


def test_records_names_beside_their_numbers_are_not_made_up() -> None:
    class Named(Dataset[Any]):
        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            return {"x": torch.full((5,), float(index)), "name": f"r{index}"}, index % 3

    class Reader(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = linear()

        def forward(self, x: torch.Tensor, name: list[str]) -> torch.Tensor:
            assert [float(n[1:]) for n in name] == x[:, 0].tolist()
            out: torch.Tensor = self.layer(x)
            return out

    _, events, call = at_once(Reader(), Named())
    call()
    assert events[0] == "reserve"


def test_frozen_norms_and_dropout_are_no_mixing() -> None:
    body = Backbone(nn.BatchNorm1d(8))
    model = nn.Sequential(nn.Dropout(0.5), body)
    body.body.eval()
    _, events, call = at_once(model, records())
    call()
    assert events[0] == "reserve"


class Rounding(nn.Module):
    """A layer whose outputs move by a share of the largest with each row beside."""

    def __init__(self, share: float) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 3)
        self._share = share

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(x)
        return out + self._share * out.abs().max() * (len(x) - 1)


@pytest.mark.parametrize(
    ("dtype", "share", "mixes"),
    [
        (torch.float32, 1e-4, False),
        (torch.float32, 1e-2, True),
        (torch.bfloat16, 1e-2, False),
        (torch.bfloat16, 0.2, True),
    ],
)
def test_what_is_rounded_is_no_mixing(
    dtype: torch.dtype, share: float, mixes: bool
) -> None:
    model, rows = Rounding(share).to(dtype), torch.eye(3, 5).to(dtype)
    labels = torch.zeros(3, dtype=torch.int64)
    loss = nn.CrossEntropyLoss(reduction="none")
    if not mixes:
        check_rows_apart(model, loss, rows, labels)
        return
    with pytest.raises(UsageError, match="beside it"):
        check_rows_apart(model, loss, rows, labels)


def test_a_model_that_is_random_in_eval_mode_is_not_judged() -> None:
    class Masks(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return nn.functional.dropout(x, 0.5, training=True)

    loss = nn.CrossEntropyLoss(reduction="none")
    labels = torch.zeros(3, dtype=torch.int64)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(5)
        model = nn.Sequential(nn.Linear(5, 64), Masks(), nn.Linear(64, 3))
        check_rows_apart(model, loss, torch.ones(3, 5), labels)


@pytest.mark.parametrize("sure", [0.0, 12.0, 18.0, 30.0])
def test_a_sure_model_has_losses_of_nothing_and_passes(sure: float) -> None:
    """Losses of a last bit, which the number of rows may turn."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(4)
        model = nn.Sequential(nn.Linear(300, 300), nn.Tanh(), nn.Linear(300, 3))
        rows = torch.randn(3, 300)
    with torch.no_grad():
        model[2].bias[0] += sure  # type: ignore[index,operator]
    loss = nn.CrossEntropyLoss(reduction="none")
    check_rows_apart(model, loss, rows, torch.zeros(3, dtype=torch.int64))


class InBatch(nn.Module):
    """Each record against all others, as contrastive losses are."""

    reduction = "mean"

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        losses = (outputs @ outputs.T).logsumexp(1)
        return losses if self.reduction == "none" else losses.mean()


@pytest.mark.parametrize("distributed", [False, True])
def test_a_loss_that_compares_records_is_refused(distributed: bool) -> None:
    if distributed:
        r, events = make_round(make_distributed("opacus"), start_of(linear()))
        model = r.load(linear())
        call: Any = lambda: r.gradient_sum(model, DataLoader(records()), InBatch())  # noqa: E731
    else:
        r, events, call = prepared(linear(), criterion=InBatch())
    with pytest.raises(UsageError, match="record's loss changes") as caught:
        call()
    assert caught.value.hint
    assert events == []


# -- torch's own generators ------------------------------------------------------------


class Masks(nn.Module):
    """Dropout that keeps what it drew."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        mask = nn.functional.dropout(torch.ones_like(x), 0.5, training=self.training)
        if self.training:
            self.seen.append(mask.detach())
        return x * mask


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("distributed", [False, True])
def test_masks_do_not_repeat_from_a_known_seed(ghost: bool, distributed: bool) -> None:
    masks = []
    for _ in range(2):
        own = Masks()
        model = nn.Sequential(nn.Linear(5, 64), own, nn.Linear(64, 3))
        start = start_of(model)
        plan = (
            make_distributed("opacus", values=start.size, rate=1.0)
            if distributed
            else make_plan("opacus", rate=1.0, steps=1)
        )
        r = make_round(plan, start).round
        loader, loss = DataLoader(records()), nn.CrossEntropyLoss()
        r.load(model)
        torch.manual_seed(0)
        before = torch.get_rng_state()
        if distributed:
            r.gradient_sum(model, loader, loss, ghost=ghost)
        else:
            optimizer = torch.optim.SGD(model.parameters(), lr=1.0)
            private = r.make_private(model, optimizer, loader, loss, ghost=ghost)
            assert not torch.equal(torch.get_rng_state(), before)
            for x, y in private.loader:
                private.criterion(private.model(x), y).backward()
                private.optimizer.step()
            private.update()
        assert torch.equal(torch.get_rng_state(), before)  # the user's own goes on
        masks.append(own.seen[-1])
    assert masks[0].shape == masks[1].shape == (40, 64)
    # 2560 fair coins each: they agree in half of them, give or take 50.
    assert 1000 < int((masks[0] == masks[1]).sum()) < 1560


def test_a_refused_loop_gives_the_generators_back() -> None:
    _, _, make = prepared(linear())
    before = torch.get_rng_state()
    private = make()
    with pytest.raises(UsageError):
        private.update()
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("ghost", [False, True])
def test_wrapped_a_weight_of_the_models_own_is_clipped_as_all(ghost: bool) -> None:
    plan = make_distributed("opacus", values=23, rate=1.0, clip_norm=0.5)
    model, total = nn.Sequential(Scaled()), np.zeros(23)
    for x, y in zip(*records().tensors, strict=True):
        loss = nn.functional.cross_entropy(model(x[None]), y[None])
        by_name = dict(model.named_parameters())
        found = torch.autograd.grad(loss, [by_name[name] for name in sorted(by_name)])
        one = torch.cat([g.flatten() for g in found]).double().numpy()
        total += one * min(1.0, 0.5 / float(np.linalg.norm(one)))
    update = sum_of(plan, records(), model=model, random=same(), ghost=ghost)
    assert np.linalg.norm(exact(plan, update) - total) < 0.001 * 0.5
