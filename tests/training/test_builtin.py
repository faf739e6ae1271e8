# SPDX-License-Identifier: Apache-2.0
"""The newcomer's trainer, end to end, and the numbers it is judged by."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

from secure_fl.errors import PlanError, UsageError
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.training import (
    TabularSplit,
    accuracy,
    auc,
    build_mlp,
    builtin_trainer,
    initial_model,
    scores,
    train_plain,
)

from .support import WAYS, linear, make_plan, make_round, records, train

_TABLE = """
[data]
label = "y"
classes = ["good", "bad"]
split = "rows"
file = "a.csv"

[data.columns]
a = { low = -1.0, high = 1.0 }
b = { low = -1.0, high = 1.0 }
"""


@functools.cache
def table_plan(way: str, *, hidden: str = "[]", data: bool = True) -> Plan:
    custom = 'kind = "custom"\nstart = "start.safetensors"'
    text = make_plan(way, steps=40, noise=0.5, records=300).source.decode()
    assert custom in text
    text = text.replace(custom, f'kind = "mlp"\nhidden = {hidden}\nseed = 5')
    text += "learning_rate = 0.5\nmomentum = 0.5\n"
    return Plan((text + (_TABLE if data else "")).encode())


@functools.cache
def distributed_plan(way: str, unit: str, *, hidden: str) -> Plan:
    plan = table_plan(way, hidden=hidden)
    size = initial_model(plan).size
    rate, steps = ("0.5", 1) if unit == "record" else ("1.0", 10)
    text = plan.source.decode()
    for old, new in (
        ('mode = "local"', 'mode = "distributed"'),
        ('unit = "record"', f'unit = "{unit}"'),
        ("sampling_rate = 0.5", f"sampling_rate = {rate}"),
        ("local_steps = 40", f"local_steps = {steps}"),
        ("clip_norm = 1.0", "clip_norm = 0.5"),
        ('kind = "plain"', 'kind = "masking"'),
        ("[model]\n", f"[model]\nvalues = {size}\n"),
        ("[rounds]\n", f'[run]\nid = "{bytes(16).hex()}"\n\n[rounds]\n'),
    ):
        assert old in text
        text = text.replace(old, new)
    return Plan(text.encode())


def separable(count: int, *, seed: int = 0) -> TabularSplit:
    draw = np.random.default_rng(seed)
    x = draw.uniform(-1, 1, (2 * count, 2)).astype(np.float32)
    y = (x.sum(axis=1) > 0).astype(np.int64)
    return TabularSplit(x[:count], y[:count], x[count:], y[count:])


@pytest.mark.parametrize(("way", "hidden"), [("head", "[]"), ("opacus", "[8]")])
def test_learns_a_separable_problem(way: str, hidden: str) -> None:
    plan = table_plan(way, hidden=hidden)
    split = separable(300)
    start = initial_model(plan)
    r, events = make_round(plan, start)
    update = builtin_trainer(plan, split)(r)
    assert events == ["reserve", "noise", "sampling", "bytes"]
    assert update.vector.shape == (start.size,)
    probabilities = scores(start.add(update.vector), plan, split.test_x)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0)
    assert accuracy(split.test_y, probabilities) > 0.9
    assert auc(split.test_y, probabilities[:, 1]) > 0.97


@pytest.mark.parametrize(("way", "hidden"), [("head", "[]"), ("opacus", "[8]")])
@pytest.mark.parametrize("unit", ["record", "client"])
def test_learns_in_distributed_mode(unit: str, way: str, hidden: str) -> None:
    """One member and its noise; the aggregator's step done by hand."""
    plan = distributed_plan(way, unit, hidden=hidden)
    split = separable(300)
    model = initial_model(plan)
    trainer = builtin_trainer(plan, split)
    for _ in range(40 if unit == "record" else 8):
        r, events = make_round(plan, model)
        units = trainer(r).vector.astype(np.int64)
        assert events[0] == "reserve"
        opened = plan.grid.opened(units, rotation=plan.rotation(0))
        model = model.add(-opened / 150 if unit == "record" else opened)
    probabilities = scores(model, plan, split.test_x)
    assert auc(split.test_y, probabilities[:, 1]) > 0.97


def test_plain_baseline_learns_without_touching_the_global_generator() -> None:
    plan = table_plan("opacus", hidden="[8]")
    split = separable(300)
    state = torch.random.get_rng_state()
    model = train_plain(plan, split)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert auc(split.test_y, scores(model, plan, split.test_x)[:, 1]) > 0.97
    again = train_plain(plan, split)
    assert again.digest() == model.digest()


def test_the_start_is_public_and_repeatable() -> None:
    plan = table_plan("opacus", hidden="[8, 4]")
    state = torch.random.get_rng_state()
    one, other = initial_model(plan), initial_model(plan)
    assert torch.equal(torch.random.get_rng_state(), state)
    assert one.digest() == other.digest()
    shapes = {name: a.shape for name, a in one.arrays.items()}
    assert shapes == {
        "hidden1.weight": (8, 2),
        "hidden1.bias": (8,),
        "hidden2.weight": (4, 8),
        "hidden2.bias": (4,),
        "output.weight": (2, 4),
        "output.bias": (2,),
    }
    network = build_mlp(2, [8, 4], classes=2, seed=6)
    assert not np.allclose(
        dict(network.named_parameters())["output.bias"].detach().numpy(),
        one.arrays["output.bias"],
    )


def test_read_only_arrays_do_not_warn(recwarn: pytest.WarningsRecorder) -> None:
    plan = table_plan("head")
    split = separable(30)
    for array in (split.train_x, split.train_y, split.test_x):
        array.setflags(write=False)
    r = make_round(plan, initial_model(plan)).round
    builtin_trainer(plan, split)(r)
    scores(initial_model(plan), plan, split.test_x)
    assert not [w for w in recwarn if "writable" in str(w.message)]


@pytest.mark.parametrize(
    ("plan", "key"),
    [
        (lambda: table_plan("opacus", data=False), "data"),
        (lambda: table_plan("head", hidden="[8]"), "training.way"),
        (lambda: make_plan("head"), "model.kind"),
    ],
)
def test_plans_without_what_it_takes(plan: Any, key: str) -> None:
    with pytest.raises(PlanError) as caught:
        builtin_trainer(plan(), separable(5))
    assert caught.value.key == key
    assert caught.value.hint


@pytest.mark.parametrize("way", WAYS)
def test_own_trainer_in_an_ordinary_loop(way: str) -> None:
    """The loop of a README: the user's code, unchanged."""
    split = separable(300, seed=3)
    plan = make_plan(way, steps=40, noise=0.5, records=300)
    model = linear(2, 2)
    start = GlobalModel(
        {name: p.detach().numpy() for name, p in model.named_parameters()}
    )
    dataset = torch.utils.data.TensorDataset(
        torch.from_numpy(split.train_x), torch.from_numpy(split.train_y)
    )
    r = make_round(plan, start).round

    model = r.load(linear(2, 2))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    loader = DataLoader(dataset, batch_size=64, shuffle=True)
    private = r.make_private(model, optimizer, loader, nn.CrossEntropyLoss())
    private.model.train()
    for x, y in private.loader:
        private.optimizer.zero_grad()
        loss = private.criterion(private.model(x), y)
        loss.backward()
        private.optimizer.step()
    update = private.update()

    trained = start.add(update.vector)
    logits = split.test_x @ trained.arrays["weight"].T + trained.arrays["bias"]
    assert (logits.argmax(axis=1) == split.test_y).mean() > 0.9


def test_update_counts_in_the_order_of_the_names() -> None:
    model = linear()
    update = train(make_plan("head"), records(), model=model)
    start = GlobalModel(
        {name: p.detach().numpy() for name, p in linear().named_parameters()}
    )
    moved = start.add(update.vector)
    np.testing.assert_allclose(
        moved.arrays["weight"], model.weight.detach().numpy(), atol=1e-6
    )
    np.testing.assert_allclose(
        moved.arrays["bias"], model.bias.detach().numpy(), atol=1e-6
    )


# -- the numbers -----------------------------------------------------------------------


def slow_auc(labels: NDArray[np.int64], positive: NDArray[np.float64]) -> float:
    ones, zeros = positive[labels == 1], positive[labels == 0]
    wins = (ones[:, None] > zeros).sum() + 0.5 * (ones[:, None] == zeros).sum()
    return float(wins / (len(ones) * len(zeros)))


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.integers(-3, 3)), min_size=2, max_size=30
    ).filter(lambda rows: len({label for label, _ in rows}) == 2)
)
def test_auc_is_the_share_of_won_pairs(rows: list[tuple[int, int]]) -> None:
    labels = np.array([label for label, _ in rows])
    positive = np.array([score for _, score in rows], np.float64)
    assert auc(labels, positive) == pytest.approx(slow_auc(labels, positive))


@pytest.mark.parametrize("labels", [[0, 0], [1, 1], [0, 1, 2]])
def test_auc_needs_both_classes(labels: list[int]) -> None:
    with pytest.raises(UsageError, match="both classes"):
        auc(np.array(labels), np.zeros(len(labels)))


def test_accuracy() -> None:
    probabilities = np.array([[0.9, 0.1], [0.2, 0.8], [0.6, 0.4]])
    assert accuracy(np.array([0, 1, 1]), probabilities) == pytest.approx(2 / 3)
