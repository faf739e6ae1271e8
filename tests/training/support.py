# SPDX-License-Identifier: Apache-2.0
"""Plans, rounds and randomness that several test files share."""

from __future__ import annotations

import functools
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader, TensorDataset

from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.privacy import Ledger, PrivateUpdate, Reservation
from secure_fl.randomness import ArrayDraws, RandomSource, SeededInsecure, SystemRandom
from secure_fl.training.client_round import ClientRound, PrivateTraining

torch.set_num_threads(1)

WAYS = ("head", "opacus")

_PLAN = """
schema = "secure-fl/plan/1"
name = "test"

[parties]
members = [
    {{ name = "bank-a", records = {records} }},
    {{ name = "bank-b", records = 40 }},
    {{ name = "bank-c", records = 40 }},
]

[rounds]
count = 1
spare = 0

[privacy]
mode = "local"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = 100000.0
delta = 1e-5
clip_norm = {clip_norm!r}
sampling_rate = {rate!r}
local_steps = {steps}
noise_multiplier = {noise!r}

[protection]
kind = "plain"

[model]
kind = "custom"
start = "start.safetensors"

[training]
way = "{way}"
"""


@functools.cache
def make_plan(
    way: str = "head",
    *,
    steps: int = 3,
    rate: float = 0.5,
    clip_norm: float = 1.0,
    noise: float = 1.0,
    records: int = 40,
) -> Plan:
    text = _PLAN.format(
        way=way,
        steps=steps,
        rate=rate,
        clip_norm=clip_norm,
        noise=noise,
        records=records,
    )
    return Plan(text.encode())


@functools.cache
def make_distributed(
    way: str = "head",
    *,
    unit: str = "record",
    values: int = 18,
    rate: float = 0.5,
    clip_norm: float = 1.0,
    noise: float = 1.0,
    records: int = 40,
) -> Plan:
    """A plan of which only sums are private: shares of two honest clients."""
    text = _PLAN.format(
        way=way,
        steps=1,
        rate=rate,
        clip_norm=clip_norm,
        noise=noise,
        records=records,
    )
    for old, new in (
        ('mode = "local"\nunit = "record"', f'mode = "distributed"\nunit = "{unit}"'),
        ('kind = "plain"\n', 'kind = "masking"\nword_bits = 64\n'),
        ("[model]\n", f"[model]\nvalues = {values}\n"),
        ("[rounds]\n", f'[run]\nid = "{bytes(16).hex()}"\n\n[rounds]\n'),
    ):
        assert old in text
        text = text.replace(old, new)
    return Plan(text.encode())


def charge(ledger: Ledger, plan: Plan) -> Reservation:
    """The entry an engine has written before a round draws anything."""
    return ledger.reserve(
        plan.lineage,
        run_id=bytes(16),
        round_index=0,
        attempt=0,
        event=plan.release,
        unit=plan.privacy.unit,
        adjacency="add-or-remove-one",
        delta=plan.privacy.delta,
        limit=plan.privacy.epsilon,
        now=0,
    )


class Recorder:
    """A real source of randomness that notes what was asked of it, in order."""

    def __init__(self, events: list[str], source: RandomSource | None = None) -> None:
        self._events = events
        self._source = SystemRandom() if source is None else source

    @property
    def secure(self) -> bool:
        return self._source.secure

    def bytes(self, size: int) -> bytes:
        self._events.append("bytes")
        return self._source.bytes(size)

    def arrays(self, purpose: str) -> ArrayDraws:
        self._events.append(purpose)
        return self._source.arrays(purpose)

    def discrete_gaussian(self, deviation: float, size: int) -> NDArray[np.int64]:
        self._events.append("noise")
        return self._source.discrete_gaussian(deviation, size)


class Round(NamedTuple):
    round: ClientRound
    events: list[str]
    """What happened: "reserve", and the purposes of random streams, in order."""


def start_of(model: nn.Module) -> GlobalModel:
    return GlobalModel(
        {
            name: p.detach().numpy()
            for name, p in model.named_parameters()
            if p.requires_grad
        }
    )


def make_round(
    plan: Plan, model: GlobalModel, *, random: RandomSource | None = None
) -> Round:
    events: list[str] = []

    def reserve() -> Reservation:
        events.append("reserve")
        with tempfile.TemporaryDirectory() as folder:
            ledger = Ledger(Path(folder) / "ledger.sqlite", client="bank-a")
            reservation = charge(ledger, plan)
            ledger.close()
        return reservation

    return Round(
        ClientRound(
            client="bank-a",
            round=0,
            plan=plan,
            model=model,
            reserve=reserve,
            random=Recorder(events, random),
        ),
        events,
    )


def linear(features: int = 5, classes: int = 3) -> nn.Linear:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        return nn.Linear(features, classes)


def records(count: int = 40, *, features: int = 5, classes: int = 3) -> TensorDataset:
    draw = np.random.default_rng(7)
    x = torch.from_numpy(draw.normal(size=(count, features)).astype(np.float32))
    y = torch.from_numpy(draw.integers(0, classes, size=count))
    return TensorDataset(x, y)


Loop = Callable[[PrivateTraining[Any]], None]


def plain_loop(private: PrivateTraining[Any]) -> None:
    """What a user's own training loop looks like."""
    private.model.train()
    for x, y in private.loader:
        private.optimizer.zero_grad()
        loss = private.criterion(private.model(x), y)
        loss.backward()
        private.optimizer.step()


def train(
    plan: Plan,
    dataset: TensorDataset,
    *,
    model: nn.Module | None = None,
    criterion: nn.Module | None = None,
    learning_rate: float = 1.0,
    random: RandomSource | None = None,
    loop: Loop = plain_loop,
    physical_batch: int | None = None,
    ghost: bool = False,
) -> PrivateUpdate:
    """One round as a trainer runs it."""
    model = linear() if model is None else model
    r = make_round(plan, start_of(model), random=random).round
    private = r.make_private(
        r.load(model),
        torch.optim.SGD(
            [p for p in model.parameters() if p.requires_grad], lr=learning_rate
        ),
        DataLoader(dataset, batch_size=7, shuffle=True),
        nn.CrossEntropyLoss() if criterion is None else criterion,
        physical_batch=physical_batch,
        ghost=ghost,
    )
    loop(private)
    return private.update()


def sum_of(
    plan: Plan,
    dataset: TensorDataset,
    *,
    model: nn.Module | None = None,
    criterion: nn.Module | None = None,
    random: RandomSource | None = None,
    physical_batch: int | None = None,
    ghost: bool = False,
) -> PrivateUpdate:
    """One round of a distributed plan, as a trainer runs it."""
    model = linear() if model is None else model
    r = make_round(plan, start_of(model), random=random).round
    return r.gradient_sum(
        r.load(model),
        DataLoader(dataset, batch_size=7),
        nn.CrossEntropyLoss() if criterion is None else criterion,
        physical_batch=physical_batch,
        ghost=ghost,
    )


def same(seed: int = 0) -> SeededInsecure:
    return SeededInsecure(b"neighbours" + bytes([seed]))


def distance(one: PrivateUpdate, other: PrivateUpdate) -> float:
    return float(np.linalg.norm(one.vector - other.vector))


def vector_of(dataset: TensorDataset) -> NDArray[np.float32]:
    out: NDArray[np.float32] = dataset.tensors[0].numpy()
    return out


class Backbone(nn.Module):
    """A frozen backbone with a norm layer, and a head."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(5, 8), norm)
        self.body.requires_grad_(False)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.head(self.body(x))
        return out


def prepared(
    model: nn.Module,
    *,
    way: str = "opacus",
    start: GlobalModel | None = None,
    optimizer: Optimizer | None = None,
    loader: Any = None,
    criterion: Any = None,
) -> tuple[ClientRound, list[str], Callable[[], PrivateTraining[nn.Module]]]:
    r, events = make_round(make_plan(way), start or start_of(model))
    r.load(model)

    def make() -> PrivateTraining[nn.Module]:
        return r.make_private(
            model,
            torch.optim.SGD(model.parameters(), lr=1.0)
            if optimizer is None
            else optimizer,
            DataLoader(records()) if loader is None else loader,
            nn.CrossEntropyLoss() if criterion is None else criterion,
        )

    return r, events, make


def clean(model: nn.Module) -> bool:
    """Whether nothing of Opacus or of us is left on the module."""
    plain = set(vars(nn.Module()))
    return all(
        not m._forward_hooks
        and not m._forward_pre_hooks
        and not m._backward_hooks
        and not {"activations", "autograd_grad_sample_hooks", "forward"}
        & (set(vars(m)) - plain)
        for m in model.modules()
    ) and all(
        not hasattr(p, name) and not p._post_accumulate_grad_hooks
        for p in model.parameters()
        for name in ("grad_sample", "summed_grad", "_forward_counter")
    )
