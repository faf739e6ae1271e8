# SPDX-License-Identifier: Apache-2.0
"""The clipped sum: against one record at a time, by hooks, by ghost, in pieces."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils.data import TensorDataset

from secure_fl.errors import UsageError
from secure_fl.training.clipping import (
    ClippedSums,
    EmbeddingPart,
    LinearPart,
    RecordGradients,
    StoredPart,
)
from secure_fl.training.head import HeadGradients, linear_of
from secure_fl.training.opacus_core import (
    GhostGradients,
    HookGradients,
    check_supported,
)
from secure_fl.training.steps import Steps

from .models import MODELS, dataset_for
from .support import (
    clean,
    distance,
    linear,
    make_plan,
    prepared,
    records,
    same,
    train,
)

HOW = ("hooks", "ghost")


def watch(
    model: nn.Module, how: str, steps: Steps, dtype: torch.dtype
) -> RecordGradients:
    if how == "head":
        return HeadGradients(model, linear_of(model), steps, dtype=dtype)
    check_supported(model, ghost=how == "ghost")
    if how == "ghost":
        return GhostGradients(model, steps)
    return HookGradients(model, steps, dtype=dtype)


def clipped(
    model: nn.Module,
    x: torch.Tensor,
    y: torch.Tensor,
    how: str,
    *,
    clip_norm: float,
    pieces: int = 1,
    half: bool = False,
    dtype: torch.dtype = torch.float64,
) -> torch.Tensor:
    """The sum over the records of ``x``, flat, float64."""
    trained = [p for p in model.parameters() if p.requires_grad]
    steps = Steps(1, trained=trained)
    gradients = watch(model, how, steps, dtype)
    sums = ClippedSums(trained, clip_norm=clip_norm)
    for some_x, some_y in zip(x.chunk(pieces), y.chunk(pieces), strict=True):
        steps.rows = len(some_x)
        context: Any = (
            torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext()
        )
        with context:
            loss: Any = nn.CrossEntropyLoss(reduction="sum")(model(some_x), some_y)
            loss.backward()
            sums.add(gradients.take())
    steps.end()
    assert clean(model)
    return torch.cat([t.flatten() for t in sums.take()])


def one_by_one(
    model: nn.Module, x: torch.Tensor, y: torch.Tensor, *, clip_norm: float
) -> torch.Tensor:
    """The definition, in float64."""
    model = model.double()
    x = x.double() if x.is_floating_point() else x
    trained = [p for p in model.parameters() if p.requires_grad]
    total = torch.zeros(sum(p.numel() for p in trained), dtype=torch.float64)
    for i in range(len(x)):
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        got = torch.autograd.grad(loss, trained)
        gradient = torch.cat([g.flatten() for g in got])
        total += gradient * min(1.0, clip_norm / float(gradient.norm()))
    return total


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("clip_norm", [0.2, 100.0])
def test_sum_is_the_definition(name: str, how: str, clip_norm: float) -> None:
    x, y = dataset_for(name).tensors
    got = clipped(MODELS[name](), x, y, how, clip_norm=clip_norm)
    expected = one_by_one(MODELS[name](), x, y, clip_norm=clip_norm)
    assert expected.norm() > 0.1
    torch.testing.assert_close(got, expected, atol=1e-5 * min(1, clip_norm), rtol=1e-5)


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("name", MODELS)
def test_physical_batches_add_up(name: str, how: str) -> None:
    x, y = dataset_for(name).tensors
    whole, parts = (
        clipped(MODELS[name](), x, y, how, clip_norm=0.2, pieces=pieces)
        for pieces in (1, 8)
    )
    torch.testing.assert_close(parts, whole, atol=1e-6, rtol=0)


@pytest.mark.parametrize("half", [False, True])
@pytest.mark.parametrize("how", [*HOW, "head"])
@pytest.mark.parametrize(
    ("scale", "dtype"), [(1.0, torch.float32), (1e5, torch.float64)]
)
def test_no_record_exceeds_the_clip_norm(
    how: str, half: bool, scale: float, dtype: torch.dtype
) -> None:
    cases: list[tuple[nn.Module, TensorDataset]] = [(linear(), records(12))]
    if how != "head":
        cases = [(MODELS[name](), dataset_for(name, 12)) for name in MODELS]
    reached = 0
    for model, dataset in cases:
        x, y = dataset.tensors
        x = x * scale if x.is_floating_point() else x
        for i in range(len(x)):
            one = x[i : i + 1], y[i : i + 1]
            norm = clipped(
                model, *one, how, clip_norm=0.01, half=half, dtype=dtype
            ).norm()
            assert norm <= 0.01 * (1 + 1e-6)
            reached += norm > 0.01 * (1 - 1e-4)
    assert reached > 5


@pytest.mark.parametrize("how", [*HOW, "head"])
def test_half_precision_changes_little(how: str) -> None:
    model = linear()
    x, y = records().tensors
    half, full = (
        clipped(model, x, y, how, clip_norm=0.5, half=half) for half in (True, False)
    )
    assert 0 < (half - full).norm() < 0.02 * full.norm()


@pytest.mark.parametrize("how", HOW)
@pytest.mark.parametrize("value", [math.nan, math.inf])
@pytest.mark.parametrize("name", ["linear", "wide tokens", "conv", "layer norm"])
def test_a_record_without_finite_gradient_counts_as_zero(
    name: str, value: float, how: str
) -> None:
    x, y = dataset_for(name).tensors
    spoilt = x.clone()
    spoilt[5] = value
    with_it = clipped(MODELS[name](), spoilt, y, how, clip_norm=0.2)
    kept = [i for i in range(len(x)) if i != 5]
    without = clipped(MODELS[name](), x[kept], y[kept], how, clip_norm=0.2)
    torch.testing.assert_close(with_it, without, atol=1e-6, rtol=0)


def test_terms_that_cancel_do_not_pass_the_clip_norm() -> None:
    """Norms of sums of huge terms that nearly cancel are where float32 lets through."""
    draw = torch.Generator().manual_seed(5)
    layer = nn.Linear(30, 20)
    table = nn.Embedding(4, 20)
    for exponent in range(0, 17, 2):
        inputs = torch.randn(1, 1, 30, generator=draw).expand(1, 6, 30)
        inputs = inputs * 10.0**exponent
        errors = torch.randn(1, 3, 20, generator=draw)
        errors = torch.cat([errors, -errors * (1 + 2.0**-20)], dim=1)
        tokens = torch.full((1, 6), 2)
        for part, trained in (
            (LinearPart(layer, inputs, errors, dtype=torch.float64), layer),
            (EmbeddingPart(table, tokens, errors * 10.0**exponent), table),
        ):
            sums = ClippedSums(list(trained.parameters()), clip_norm=1e-3)
            sums.add([part])
            norm = math.sqrt(sum(float(t.square().sum()) for t in sums.take()))
            assert norm <= 1e-3 * (1 + 1e-6)


def test_squares_that_underflow_do_not_pass_the_clip_norm() -> None:
    """Errors whose squares are 0 in float32, beside inputs that make up for them."""
    layer = nn.Linear(4096, 30)
    for error in (1e-22, 2.6e-23, 1e-25, 1e-38):
        inputs = torch.full((1, 4096), 1e17)
        errors = torch.full((1, 30), error)
        sums = ClippedSums(list(layer.parameters()), clip_norm=1e-3)
        sums.add([LinearPart(layer, inputs, errors, dtype=torch.float64)])
        norm = math.sqrt(sum(float(t.square().sum()) for t in sums.take()))
        assert 0 < norm <= 1e-3 * (1 + 1e-6)


def test_sums_lose_nothing_where_float64_is_asked_for() -> None:
    draw = torch.Generator().manual_seed(5)
    layer, table, factors = (
        nn.Linear(7, 4),
        nn.Embedding(9, 4),
        torch.ones(300).double(),
    )
    h, e = torch.randn(300, 7, generator=draw), torch.randn(300, 4, generator=draw)
    ht, et = (torch.randn(300, 5, n, generator=draw) for n in (7, 4))
    tokens = torch.randint(9, (300, 5), generator=draw)
    hot = nn.functional.one_hot(tokens, 9)
    double = torch.float64
    each = torch.einsum("ni,nj->nij", e.double(), h.double()).float()
    for part, expected in (
        (LinearPart(layer, h, e, dtype=double), e.double().T @ h.double()),
        (
            LinearPart(layer, ht, et, dtype=torch.float32),
            torch.einsum("nti,ntj->ij", et.double(), ht.double()),
        ),
        (
            EmbeddingPart(table, tokens, et),
            torch.einsum("ntv,ntj->vj", hot.double(), et.double()),
        ),
        (StoredPart(layer.weight, each, dtype=double), each.double().sum(0)),
    ):
        _, got = next(iter(part.sums(factors)))
        torch.testing.assert_close(
            got.view_as(expected), expected, atol=1e-11, rtol=1e-12
        )


@pytest.mark.parametrize("ghost", [False, True])
@pytest.mark.parametrize("physical_batch", [None, 1, 6])
@pytest.mark.parametrize("name", ["linear", "embedding", "conv"])
def test_the_round_is_the_same_whatever_a_member_chooses(
    name: str, physical_batch: int | None, ghost: bool
) -> None:
    plan = make_plan("opacus", clip_norm=0.3)
    plain, other = (
        train(
            plan,
            dataset_for(name),
            model=MODELS[name](),
            learning_rate=0.5,
            random=same(),
            physical_batch=size,
            ghost=spare,
        )
        for size, spare in ((None, False), (physical_batch, ghost))
    )
    assert distance(plain, other) < 1e-5


class Twice(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(5, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.layer(torch.tanh(self.layer(x)))
        return out


def tied() -> nn.Module:
    model = nn.Sequential(nn.Linear(5, 5), nn.Tanh(), nn.Linear(5, 5))
    model[2].weight = model[0].weight
    return model


def test_ghost_refuses_parameters_that_enter_twice() -> None:
    with pytest.raises(UsageError, match="one parameter") as caught:
        check_supported(tied(), ghost=True)
    assert caught.value.hint
    check_supported(tied(), ghost=False)
    with pytest.raises(UsageError, match="twice in one forward pass"):
        train(make_plan("opacus"), records(), model=Twice(), ghost=True)
    train(make_plan("opacus"), records(), model=Twice())  # hooks can


def test_ghost_is_not_for_recurrent_layers_or_heads() -> None:
    from opacus.layers import DPLSTM

    with pytest.raises(UsageError, match="time step"):
        check_supported(nn.Sequential(DPLSTM(3, 3)), ghost=True)
    with pytest.raises(UsageError, match="ghost clipping is for"):
        train(make_plan("head"), records(), ghost=True)


@pytest.mark.parametrize("size", [0, -1, 2.0, True])
def test_a_physical_batch_is_a_number_of_records(size: Any) -> None:
    _, events, _ = prepared(linear())
    with pytest.raises(UsageError, match="physical_batch"):
        train(make_plan("head"), records(), physical_batch=size)
    assert events == []


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("how", [*HOW, "head"])
def test_a_gpu_gives_the_same_sum(how: str) -> None:
    x, y = records().tensors
    here = clipped(linear(), x, y, how, clip_norm=0.3)
    there = clipped(linear().cuda(), x.cuda(), y.cuda(), how, clip_norm=0.3)
    torch.testing.assert_close(there.cpu(), here, atol=1e-5, rtol=1e-4)
