# SPDX-License-Identifier: Apache-2.0
"""Updates whose noise is a share: one sum of gradients, or one clipped update."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, Dataset, TensorDataset

from secure_fl.errors import UsageError
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.privacy import Ledger, PrivateUpdate
from secure_fl.randomness import SeededInsecure, SystemRandom
from secure_fl.training.client_round import ClientRound

from .models import MODELS, dataset_for
from .support import (
    WAYS,
    Backbone,
    charge,
    clean,
    linear,
    make_distributed,
    make_plan,
    make_round,
    records,
    same,
    start_of,
    sum_of,
)
from .test_mechanism import NEW_RECORDS, Flat


def exact(plan: Plan, update: PrivateUpdate, *, seed: int = 0) -> NDArray[np.float64]:
    """What the update says: noise taken off, as ``same(seed)`` drew it, grid undone."""
    units = update.vector.astype(np.int64)
    assert (units == update.vector).all()
    source = same(seed)
    if plan.privacy.unit == "record":
        source.arrays("sampling")
        source.bytes(8)  # what torch's generators are seeded with
    noise = source.arrays("noise").skellam(plan.grid.variance, plan.grid.padded)
    return plan.grid.opened(units - noise, rotation=plan.rotation(0))


def definition(plan: Plan, dataset: TensorDataset) -> NDArray[np.float64]:
    """The clipped sum, one record at a time, over the batch the round will draw."""
    model, (x, y) = linear(), dataset.tensors
    sampling = same().arrays("sampling")
    p = plan.privacy
    total = np.zeros(18)
    for i in sampling.poisson_sample(p.sampling_rate, len(x)).tolist():
        loss = nn.functional.cross_entropy(model(x[i : i + 1]), y[i : i + 1])
        # In the order of the names: the bias first.
        got = torch.autograd.grad(loss, (model.bias, model.weight))
        gradient = torch.cat([g.flatten() for g in got]).double().numpy()
        total += gradient * min(1.0, p.clip_norm / float(np.linalg.norm(gradient)))
    return total


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("clip_norm", [0.3, 1.7])
def test_the_sum_is_the_definition(way: str, clip_norm: float) -> None:
    plan = make_distributed(way, clip_norm=clip_norm)
    got = exact(plan, sum_of(plan, records(), random=same()))
    expected = definition(plan, records())
    # What rounding adds altogether: a thousandth of the clip norm.
    assert np.linalg.norm(got - expected) < 0.001 * clip_norm
    assert np.linalg.norm(expected) > clip_norm


@pytest.mark.parametrize("ghost", [False, True])
def test_mixed_precision_changes_little_and_keeps_the_norm(ghost: bool) -> None:
    size = start_of(MODELS["conv"]()).size
    plan = make_distributed("opacus", values=size, rate=1.0)
    x, y = dataset_for("conv").tensors
    one = TensorDataset(x[:1] * 100, y[:1])
    norms = []
    for dataset in (TensorDataset(x, y), one):
        sums = []
        for half in (False, True):
            with torch.autocast("cpu", torch.bfloat16, enabled=half):
                update = sum_of(
                    plan,
                    dataset,
                    model=MODELS["conv"](),
                    random=same(1),
                    ghost=ghost,
                )
            sums.append(exact(plan, update, seed=1))
        norms.append(np.linalg.norm(sums[1]))
        assert 0 < np.linalg.norm(sums[1] - sums[0]) < 0.05 * np.linalg.norm(sums[0])
    # What rounding adds is a thousandth, at right angles to the rest.
    assert 0.99 < norms[1] < 1 + 1e-4


@pytest.mark.parametrize(
    "choice", [{"ghost": True}, {"physical_batch": 1}, {"physical_batch": 7}]
)
@pytest.mark.parametrize("name", ["linear", "embedding", "conv", "layer norm"])
def test_the_sum_is_the_same_whatever_a_member_chooses(
    name: str, choice: dict[str, Any]
) -> None:
    values = start_of(MODELS[name]()).size
    plan = make_distributed("opacus", values=values)
    one, other = (
        sum_of(plan, dataset_for(name), model=MODELS[name](), random=same(), **some)
        for some in ({}, choice)
    )
    # A last bit may turn a rounding; nothing moves further.
    assert abs(one.vector - other.vector).max() <= 1
    assert (one.vector != other.vector).mean() < 0.1


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("name", NEW_RECORDS)
def test_one_record_moves_the_sum_by_the_accounted_norm_at_most(
    way: str, name: str
) -> None:
    plan = make_distributed(way, clip_norm=0.3)
    event: Any = plan.release
    x, y = records().tensors
    new = torch.tensor([NEW_RECORDS[name]])
    wider = TensorDataset(torch.cat([x, new]), torch.cat([y, torch.tensor([2])]))
    moved = []
    for seed in range(6):
        one, other = (
            sum_of(plan, d, random=same(seed)).vector for d in (records(), wider)
        )
        moved.append(float(np.linalg.norm(one - other)))
        assert np.abs(one - other).sum() <= event.l1
    assert max(moved) <= event.l2
    assert min(moved) == 0  # not sampled in some of the runs
    if name in ("ordinary", "a million times"):
        assert max(moved) >= 0.99 * 0.3 / plan.grid.step  # and the bound is reached
    else:
        assert max(moved) == 0  # counts as zero


@pytest.mark.parametrize("way", WAYS)
def test_zero_gradients_leave_the_shares_noise(way: str) -> None:
    plan = make_distributed(way, values=4000, noise=3.0)
    dataset = records(features=99, classes=40)
    seen = [
        sum_of(
            plan,
            dataset,
            model=linear(99, 40),
            criterion=Flat(),
            random=SeededInsecure(b"zero" + bytes([seed])),
        ).vector
        for seed in range(3)
    ]
    d = plan.grid.padded
    assert d == 4096
    for row in seen:
        assert row.shape == (d,)
        # chi-square with d degrees of freedom, five standard deviations
        scaled = row / plan.grid.deviation
        assert abs((scaled**2).sum() - d) < 5 * math.sqrt(2 * d)
        assert abs(scaled.sum()) < 5 * math.sqrt(d)
    for i in range(3):
        for j in range(i):
            product = (seen[i] @ seen[j]) / plan.grid.variance
            assert abs(product) < 5 * math.sqrt(d)
    # Two honest clients' noise together is what the plan's multiplier says.
    both = (seen[0] + seen[1]) * plan.grid.step / (3.0 * plan.privacy.clip_norm)
    assert abs((both**2).sum() - d) < 5 * math.sqrt(2 * d)


def test_exact_noise_has_the_variance_too() -> None:
    pytest.importorskip("opendp")
    plan = make_distributed("head", values=1030)
    text = plan.source.decode().replace(
        'unit = "record"', 'unit = "record"\nnoise = "discrete-gaussian"'
    )
    plan = Plan(text.encode())
    got = sum_of(
        plan, records(features=102, classes=10), model=linear(102, 10), criterion=Flat()
    )
    d = plan.grid.padded
    # Not seeded: seven standard deviations.
    assert abs(((got.vector / plan.grid.deviation) ** 2).sum() - d) < 7 * math.sqrt(
        2 * d
    )


@pytest.mark.parametrize("way", WAYS)
def test_the_entry_is_written_before_anything_is_drawn(way: str) -> None:
    model = linear()
    r, events = make_round(make_distributed(way), start_of(model))
    r.gradient_sum(r.load(model), DataLoader(records()), nn.CrossEntropyLoss())
    assert events == ["reserve", "sampling", "bytes", "noise", "rounding"]
    assert clean(model)


def test_the_ledger_holds_one_release_a_round(tmp_path: Path) -> None:
    plan, model = make_distributed(), linear()
    ledger = Ledger(tmp_path / "ledger.sqlite", client="bank-a")
    r = ClientRound(
        client="bank-a",
        round=0,
        plan=plan,
        model=start_of(model),
        reserve=lambda: charge(ledger, plan),
        random=SystemRandom(),
    )
    update = r.gradient_sum(r.load(model), DataLoader(records()), nn.CrossEntropyLoss())
    assert ledger.charged(plan.lineage) == [plan.release]
    assert update.event == plan.release
    with pytest.raises(UsageError, match="second time"):
        r.gradient_sum(model, DataLoader(records()), nn.CrossEntropyLoss())
    assert ledger.charged(plan.lineage) == [plan.release]
    ledger.close()


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("count", [1, 300])
def test_what_is_accounted_does_not_depend_on_the_data(way: str, count: int) -> None:
    """Uneven members: 1 record or 300 where the plan says 40."""
    plan = make_distributed(way, rate=0.9)
    update = sum_of(plan, records(count), random=same())
    assert update.event == plan.release
    assert update.vector.shape == (plan.grid.padded,)


class Unflattened(nn.Linear):
    """A head that cannot take an empty batch."""

    def forward(self, input: torch.Tensor) -> torch.Tensor:  # noqa: A002
        assert len(input)
        return super().forward(input)


def test_an_empty_batch_is_noise_and_does_not_reach_the_model() -> None:
    plan = make_distributed("opacus", rate=1e-9)
    model = nn.Sequential(Unflattened(5, 3))
    got = sum_of(plan, records(), model=model, random=same())
    assert got.vector.any()
    assert not exact(plan, got).any()


@pytest.mark.parametrize("way", WAYS)
def test_the_weights_stay(way: str) -> None:
    model: nn.Module = linear() if way == "head" else Backbone(nn.BatchNorm1d(8))
    if isinstance(model, Backbone):
        model.body.eval()
    before = {k: v.clone() for k, v in model.state_dict().items()}
    start = start_of(model)
    r = make_round(make_distributed(way, values=start.size), start).round
    r.gradient_sum(r.load(model), DataLoader(records()), nn.CrossEntropyLoss())
    for name, value in before.items():
        assert torch.equal(model.state_dict()[name], value)


@pytest.mark.parametrize("unit", ["record", "client"])
@pytest.mark.parametrize("extra", ["body.0.bias", "body.1.running_var"])
def test_what_is_not_trained_gets_no_noise(unit: str, extra: str) -> None:
    model = Backbone(nn.BatchNorm1d(8))
    model.body.eval()
    arrays = dict(start_of(model).arrays)
    arrays[extra] = model.state_dict()[extra].numpy()
    start = GlobalModel(arrays)
    rate = 0.5 if unit == "record" else 1.0
    plan = make_distributed("opacus", unit=unit, rate=rate, values=start.size)
    r, events = make_round(plan, start)
    call = CALLS[unit == "client"]
    with pytest.raises(UsageError, match=f"not trained: {extra}") as caught:
        call(r, r.load(model))
    assert "trainable_model" in caught.value.hint
    assert events == []


def test_a_model_that_changes_in_the_forward_pass_is_refused() -> None:
    """Nothing shows on zeros: what is left behind is found at the end."""

    class Counting(Backbone):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.body[1].running_mean += x.mean()  # type: ignore[operator]
            return super().forward(x)

    model = Counting(nn.BatchNorm1d(8))
    model.body.eval()
    r, events = make_round(make_distributed("opacus", values=27), start_of(model))
    with pytest.raises(UsageError, match="buffer of the model changed"):
        r.gradient_sum(r.load(model), DataLoader(records()), nn.CrossEntropyLoss())
    assert events == ["reserve", "sampling", "bytes"]
    assert clean(model)


def test_a_record_that_the_model_fails_at_leaves_it_ordinary() -> None:
    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            if x.any():
                raise RuntimeError("out of memory")
            return x

    model = nn.Sequential(Failing(), linear())
    r, events = make_round(make_distributed("opacus"), start_of(model))
    state = torch.get_rng_state()
    with pytest.raises(RuntimeError, match="out of memory"):
        r.gradient_sum(r.load(model), DataLoader(records()), nn.CrossEntropyLoss())
    assert events == ["reserve", "sampling", "bytes"]
    assert clean(model)
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(UsageError, match="second time"):  # and it stays charged
        r.gradient_sum(model, DataLoader(records()), nn.CrossEntropyLoss())


class Texts(Dataset[dict[str, Any]]):
    def __len__(self) -> int:
        return 12

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"tokens": torch.full((4,), index % 9), "label": index % 3}


def pairs(rows: list[dict[str, Any]]) -> tuple[dict[str, torch.Tensor], torch.Tensor]:
    tokens = torch.stack([row["tokens"] for row in rows])
    return {"tokens": tokens}, torch.tensor([row["label"] for row in rows])


class Reader(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(9, 3)

    def forward(self, *, tokens: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.table(tokens).mean(1)
        return out


def test_inputs_may_be_keyword_arguments() -> None:
    model = Reader()
    plan = make_distributed("opacus", values=27)
    r = make_round(plan, start_of(model)).round
    r.gradient_sum(
        r.load(model), DataLoader(Texts(), collate_fn=pairs), nn.CrossEntropyLoss()
    )


CALLS: list[Callable[[Any, Any], object]] = [
    lambda r, m: r.gradient_sum(m, DataLoader(records()), nn.CrossEntropyLoss()),
    lambda r, m: r.clipped_update(m),
]


@pytest.mark.parametrize(
    ("unit", "rate", "call"), [("record", 0.5, CALLS[0]), ("client", 1.0, CALLS[1])]
)
def test_a_model_of_another_size_is_refused_uncharged(
    unit: str, rate: float, call: Callable[[Any, Any], object]
) -> None:
    model = linear()
    plan = make_distributed(unit=unit, values=17, rate=rate)
    r, events = make_round(plan, start_of(model))
    r.load(model)
    with pytest.raises(UsageError, match="18 values, the plan says 17"):
        call(r, model)
    assert events == []


def refused() -> dict[str, tuple[str, Callable[[ClientRound, nn.Module], object]]]:
    loss, loader = nn.CrossEntropyLoss(), DataLoader(records())
    return {
        "not pairs": (
            "pair",
            lambda r, m: r.gradient_sum(m, DataLoader(Texts()), loss),
        ),
        "eval mode": ("eval mode", lambda r, m: r.gradient_sum(m.eval(), loader, loss)),
        "no reduction": (
            "reduction",
            lambda r, m: r.gradient_sum(m, loader, nn.MSELoss(reduction="none")),
        ),
        "physical batch": (
            "physical_batch",
            lambda r, m: r.gradient_sum(m, loader, loss, physical_batch=0),
        ),
        "another method": (
            "does not fit the plan",
            lambda r, m: r.make_private(
                m, torch.optim.SGD(m.parameters(), lr=1), loader, loss
            ),
        ),
        "client's method": ("does not fit", lambda r, m: r.clipped_update(m)),
    }  # fmt: skip


@pytest.mark.parametrize("case", refused())
def test_refused_uncharged(case: str) -> None:
    says, call = refused()[case]
    model = linear()
    r, events = make_round(make_distributed("opacus"), start_of(model))
    with pytest.raises(UsageError, match=says) as caught:
        call(r, r.load(model))
    assert caught.value.hint
    assert events == []


def test_frozen_batch_norm_in_train_mode_is_refused() -> None:
    model = Backbone(nn.BatchNorm1d(8))
    r, events = make_round(make_distributed("opacus", values=27), start_of(model))
    with pytest.raises(UsageError, match="would mix"):
        r.gradient_sum(r.load(model), DataLoader(records()), nn.CrossEntropyLoss())
    assert events == []


@pytest.mark.parametrize("call", CALLS)
def test_local_plans_take_no_shares(call: Callable[[Any, Any], object]) -> None:
    model = linear()
    r, events = make_round(make_plan("head"), start_of(model))
    r.load(model)
    with pytest.raises(UsageError, match="does not fit the plan") as caught:
        call(r, model)
    assert caught.value.hint == "use r.make_private(...)"
    assert events == []


# -- a whole update --------------------------------------------------------------------


def trained(change: float, *, seed: int = 0) -> tuple[Plan, PrivateUpdate]:
    plan = make_distributed(unit="client", rate=1.0, clip_norm=2.0)
    model = linear()
    r, events = make_round(plan, start_of(model), random=same(seed))
    r.load(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(change)
    update = r.clipped_update(model)
    assert events == ["reserve", "noise", "rounding"]
    return plan, update


@pytest.mark.parametrize(("change", "norm"), [(0.1, 0.1 * 18**0.5), (5.0, 2.0)])
def test_an_update_is_clipped_as_a_whole(change: float, norm: float) -> None:
    plan, update = trained(change)
    expected = np.full(18, norm / math.sqrt(18))
    assert np.linalg.norm(exact(plan, update) - expected) < 0.001 * 2.0


def test_an_update_adds_the_accounted_norm_at_most() -> None:
    for seed in range(20):
        plan, update = trained(1e6, seed=seed)
        event: Any = plan.release
        own = update.vector - same(seed).arrays("noise").skellam(
            plan.grid.variance, plan.grid.padded
        )
        assert 0.99 * event.l2 < np.linalg.norm(own) <= event.l2


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_an_update_that_is_not_finite_counts_as_zero(value: float) -> None:
    with pytest.warns(RuntimeWarning, match="counts as zero"):
        plan, update = trained(value)
    assert not exact(plan, update).any()


def test_a_whole_update_is_taken_once_and_by_its_own_method() -> None:
    plan = make_distributed(unit="client", rate=1.0)
    model = linear()
    r, events = make_round(plan, start_of(model))
    with pytest.raises(UsageError, match="does not fit the plan"):
        r.gradient_sum(r.load(model), DataLoader(records()), nn.CrossEntropyLoss())
    with pytest.raises(UsageError, match="has no"):
        r.clipped_update(nn.Conv1d(1, 1, 1, bias=False))
    assert events == []
    r.clipped_update(model)
    with pytest.raises(UsageError, match="second time"):
        r.clipped_update(model)
    assert events.count("reserve") == 1
