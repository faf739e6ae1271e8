# SPDX-License-Identifier: Apache-2.0
"""What is refused before the ledger hears of a round."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, IterableDataset, TensorDataset

from secure_fl.errors import UsageError
from secure_fl.model import GlobalModel

from .support import (
    WAYS,
    Backbone,
    linear,
    make_plan,
    make_round,
    plain_loop,
    prepared,
    records,
    start_of,
)

# -- load ------------------------------------------------------------------------------


def test_load_copies_by_name_and_returns_the_module() -> None:
    model = linear()
    start = GlobalModel(
        {
            "weight": np.full((3, 5), 2.0, np.float32),
            "bias": np.arange(3, dtype=np.float32),
        }
    )
    assert make_round(make_plan(), start).round.load(model) is model
    assert (model.weight == 2).all()
    assert model.bias.tolist() == [0, 1, 2]


def test_load_fills_buffers() -> None:
    norm = nn.BatchNorm1d(2)
    arrays = {
        name: np.ones(2, np.float32) for name in ("weight", "bias", "running_mean")
    }
    make_round(make_plan(), GlobalModel(arrays)).round.load(norm)
    assert norm.running_mean is not None
    assert norm.running_mean.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("arrays", "says"),
    [
        ({"weight": (3, 5), "bias": (3,), "gain": (1,)}, "has no gain"),
        ({"weight": (5, 3), "bias": (3,)}, "'weight' is"),
        ({"weight": (3, 5)}, "does not hold: bias"),
    ],
)
def test_load_refuses(arrays: dict[str, tuple[int, ...]], says: str) -> None:
    start = GlobalModel(
        {name: np.zeros(shape, np.float32) for name, shape in arrays.items()}
    )
    model = linear()
    before = start_of(model).flatten()
    with pytest.raises(UsageError, match=says) as caught:
        make_round(make_plan(), start).round.load(model)
    assert caught.value.hint
    assert (start_of(model).flatten() == before).all()


# -- refused before the ledger hears of it ---------------------------------------------


class Stream(IterableDataset[torch.Tensor]):
    def __iter__(self) -> Any:
        return iter(())


class Rootless(nn.Module):
    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        return outputs.sum()


def stepped() -> tuple[nn.Module, Optimizer]:
    model = linear()
    optimizer = torch.optim.Adam(model.parameters())
    model(torch.ones(1, 5)).sum().backward()
    optimizer.step()
    return model, optimizer


def cases() -> dict[str, tuple[str, Callable[[], Any]]]:
    used = stepped()
    half = linear().bfloat16()  # and a start that it holds exactly
    start = start_of(linear().bfloat16().float())
    tied = nn.BatchNorm1d(8, track_running_stats=False).eval()
    return {
        "frozen norm in train mode": (
            "would mix",
            lambda: prepared(Backbone(nn.BatchNorm1d(8))),
        ),
        "norm without statistics": ("would mix", lambda: prepared(Backbone(tied))),
        "instance norm with statistics": (
            "would mix",
            lambda: prepared(Backbone(nn.InstanceNorm1d(8, track_running_stats=True))),
        ),
        "trained norm in eval mode": (
            "eval mode",
            lambda: prepared(nn.Sequential(linear(), nn.BatchNorm1d(3).eval())),
        ),
        "model in eval mode": ("eval mode", lambda: prepared(linear().eval())),
        "unsupported layer": (
            "Opacus cannot",
            lambda: prepared(nn.Sequential(linear(), nn.LSTM(3, 3))),
        ),
        "half precision": (
            "bfloat16",
            lambda: prepared(half, start=start),
        ),
        "not a head": ("one linear layer", lambda: prepared(mlp(), way="head")),
        "stream": (
            "no length",
            lambda: prepared(linear(), loader=DataLoader(Stream())),
        ),
        "no loader": ("not a DataLoader", lambda: prepared(linear(), loader=[1, 2])),
        "no records": (
            "no records",
            lambda: prepared(linear(), loader=DataLoader(TensorDataset(torch.ones(0)))),
        ),
        "no reduction": ("reduction", lambda: prepared(linear(), criterion=Rootless())),
        "reduction none": (
            "reduction",
            lambda: prepared(
                linear(), criterion=nn.CrossEntropyLoss(reduction="none")
            ),
        ),
        "function as criterion": (
            "reduction",
            lambda: prepared(linear(), criterion=nn.functional.cross_entropy),
        ),
        "another model's optimizer": (
            "exactly the trained",
            lambda: prepared(
                linear(), optimizer=torch.optim.SGD(linear().parameters(), lr=1)
            ),
        ),
        "used optimizer": (
            "already taken steps",
            lambda: prepared(used[0], optimizer=used[1]),
        ),
        "lbfgs": (
            "LBFGS",
            lambda: prepared(
                lbfgs := linear(), optimizer=torch.optim.LBFGS(lbfgs.parameters())
            ),
        ),
    }  # fmt: skip


def mlp() -> nn.Module:
    return nn.Sequential(nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 3))


@pytest.mark.parametrize("case", list(cases()))
def test_refused_uncharged(case: str) -> None:
    says, build = cases()[case]
    _, events, make = build()
    with pytest.raises(UsageError, match=says) as caught:
        make()
    assert caught.value.hint
    assert events == []


def test_refusal_leaves_the_round_usable() -> None:
    model = linear()
    r, events, make = prepared(model, criterion=Rootless())
    with pytest.raises(UsageError):
        make()
    private = r.make_private(
        model,
        torch.optim.SGD(model.parameters(), lr=1.0),
        DataLoader(records()),
        nn.CrossEntropyLoss(),
    )
    plain_loop(private)
    assert private.update().vector.shape == (18,)
    assert events.count("reserve") == 1


def test_weights_must_be_the_global_ones() -> None:
    model = linear()
    r, events = make_round(make_plan(), start_of(model))
    with torch.no_grad():
        model.bias[0] += 1e-6  # as a local training before make_private would
    with pytest.raises(UsageError, match="differs from the global model"):
        r.make_private(
            model,
            torch.optim.SGD(model.parameters(), lr=1.0),
            DataLoader(records()),
            nn.CrossEntropyLoss(),
        )
    assert events == []


@pytest.mark.parametrize("way", WAYS)
def test_make_private_works_once(way: str) -> None:
    _, events, make = prepared(linear(), way=way)
    make()
    with pytest.raises(UsageError, match="second time"):
        make()
    assert events == ["reserve", "noise", "sampling", "bytes"]


@pytest.mark.parametrize("way", WAYS)
def test_a_replaced_tensor_is_no_update(way: str) -> None:
    model = linear()
    _, _, make = prepared(model, way=way)
    private = make()
    plain_loop(private)
    model.bias = nn.Parameter(model.bias.detach().clone())
    with pytest.raises(UsageError, match="replaced in the round"):
        private.update()
