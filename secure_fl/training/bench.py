# SPDX-License-Identifier: Apache-2.0
"""One linear head, trained in every way: the loops that ``secure-fl bench`` times.

Same records, same expected batch, float32 and SGD throughout.  The features are random
numbers: what they are makes no step faster or slower.
"""

from __future__ import annotations

import itertools
import tempfile
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final, final

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from ..model import GlobalModel
from ..plan import Plan
from ..privacy import Ledger, Reservation
from ..randomness import SystemRandom
from .client_round import ClientRound

__all__ = ["Run", "bench_plan", "head_loop", "new_round"]

Run = Callable[[], None]
"""What is timed."""

_CLIP_NORM: Final = 1.0
_NOISE_MULTIPLIER: Final = 1.0
_LEARNING_RATE: Final = 0.1

# A budget that no benchmark uses up: nothing of what is trained here is released.
_PLAN: Final = """
schema = "secure-fl/plan/1"
name = "bench"

[parties]
members = [
    {{ name = "bank-a", records = {records} }},
    {{ name = "bank-b", records = {records} }},
    {{ name = "bank-c", records = {records} }},
]

[run]
id = "00000000000000000000000000000000"

[rounds]
count = 1
spare = 0

[privacy]
mode = "{mode}"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = 1000000.0
delta = 1e-5
clip_norm = {clip_norm}
sampling_rate = {rate}
local_steps = {steps}
noise_multiplier = {noise_multiplier}

[protection]
kind = "masking"
word_bits = 64

[model]
kind = "custom"
start = "start.safetensors"
{values}

[training]
way = "{way}"
"""


def bench_plan(
    *, way: str, records: int, rate: float, steps: int, values: int | None = None
) -> Plan:
    """A plan of mode "local", or of mode "distributed" where ``values`` are given."""
    text = _PLAN.format(
        mode="local" if values is None else "distributed",
        values="" if values is None else f"values = {values}",
        way=way,
        records=records,
        rate=float(rate),
        steps=steps,
        clip_norm=_CLIP_NORM,
        noise_multiplier=_NOISE_MULTIPLIER,
    )
    return Plan(text.encode())


def new_round(plan: Plan, start: GlobalModel) -> ClientRound:
    """A round of the plan's first member whose charge is on disk already, in a ledger
    that goes with this call: a file's speed is not training's."""
    member = plan.parties.members[0].name
    with tempfile.TemporaryDirectory() as folder:
        ledger = Ledger(Path(folder) / "ledger.sqlite", client=member)
        charged = _charge(ledger, plan)
        ledger.close()
    return ClientRound(
        client=member,
        round=0,
        plan=plan,
        model=start,
        reserve=lambda: charged,
        random=SystemRandom(),
    )


def _charge(ledger: Ledger, plan: Plan) -> Reservation:
    return ledger.reserve(
        plan.lineage,
        run_id=bytes(16),
        round_index=0,
        attempt=0,
        event=plan.release,
        unit=plan.privacy.unit,
        adjacency=plan.privacy.adjacency,
        delta=plan.privacy.delta,
        limit=plan.privacy.epsilon,
        now=0,
    )


def head_loop(
    way: str,
    *,
    features: int,
    classes: int,
    records: int,
    rate: float,
    steps: int,
    threads: int,
) -> Callable[[], Run]:
    """What gets a run of ``steps`` steps ready, as often as it is called.

    way
        one of ``WAYS`` of :mod:`secure_fl.engines.bench_train`, described there

    Sets torch's number of threads, and silences Opacus, in the whole process.
    """
    torch.set_num_threads(threads)
    for message in ("Secure RNG turned off", "Full backward hook is firing"):
        warnings.filterwarnings("ignore", message=message, category=UserWarning)
    ready = _LOOPS[way]
    # What is imported on first use, and its memory, is nobody's step.
    ready(_Head.of(features, classes, records=16, rate=0.5, steps=1))()
    head = _Head.of(features, classes, records=records, rate=rate, steps=steps)
    return lambda: ready(head)


@final
@dataclass(frozen=True)
class _Head:
    """The records, and how to go over them."""

    dataset: TensorDataset
    classes: int
    rate: float
    steps: int

    @classmethod
    def of(
        cls, features: int, classes: int, *, records: int, rate: float, steps: int
    ) -> _Head:
        draw = torch.Generator().manual_seed(0)
        x = torch.randn(records, features, generator=draw)
        y = torch.randint(classes, (records,), generator=draw)
        rows = nn.functional.normalize(x, dim=1)
        return cls(TensorDataset(rows, y), classes, rate, steps)

    @property
    def records(self) -> int:
        return len(self.dataset)

    @property
    def batch(self) -> int:
        """How many records a batch has; in a Poisson batch, on average."""
        return max(1, round(self.rate * self.records))

    def model(self) -> nn.Linear:
        return nn.Linear(self.dataset.tensors[0].shape[1], self.classes)

    def batches(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """``steps`` shuffled batches, one size, epoch after epoch."""
        x, y = self.dataset.tensors
        left: list[torch.Tensor] = []
        for _ in range(self.steps):
            if not left:
                order = torch.randperm(self.records)
                left = list(torch.split(order, self.batch))[
                    : self.records // self.batch
                ]
            rows = left.pop()
            yield x.index_select(0, rows), y.index_select(0, rows)

    def loader(self) -> DataLoader[tuple[torch.Tensor, ...]]:
        return DataLoader(self.dataset, batch_size=self.batch)


def _sgd(model: nn.Module) -> torch.optim.SGD:
    return torch.optim.SGD(model.parameters(), lr=_LEARNING_RATE)


def _start(model: nn.Module) -> GlobalModel:
    return GlobalModel({n: p.detach().numpy() for n, p in model.named_parameters()})


def _plain(head: _Head) -> Run:
    """No privacy."""
    model, criterion = head.model(), nn.CrossEntropyLoss()

    def run() -> None:
        optimizer = _sgd(model)
        for x, y in head.batches():
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    return run


def _private(head: _Head, *, way: str, ghost: bool) -> Run:
    """``make_private``, the loop, and ``update``."""
    model = head.model()
    plan = bench_plan(way=way, records=head.records, rate=head.rate, steps=head.steps)
    r = new_round(plan, _start(model))

    def run() -> None:
        private = r.make_private(
            r.load(model),
            _sgd(model),
            head.loader(),
            nn.CrossEntropyLoss(),
            ghost=ghost,
        )
        for x, y in private.loader:
            private.optimizer.zero_grad()
            private.criterion(private.model(x), y).backward()
            private.optimizer.step()
        private.update()

    return run


def _sums(head: _Head) -> Run:
    """``gradient_sum``: every step is a round of its own."""
    model = head.model()
    start = _start(model)
    plan = bench_plan(
        way="head", records=head.records, rate=head.rate, steps=1, values=start.size
    )
    rounds = [new_round(plan, start) for _ in range(head.steps)]

    def run() -> None:
        for r in rounds:
            r.gradient_sum(r.load(model), head.loader(), nn.CrossEntropyLoss())

    return run


def _opacus(head: _Head) -> Run:
    """Opacus' hooks and optimizer, over the batches of the plain loop."""
    from opacus import GradSampleModule  # takes seconds to import
    from opacus.optimizers import DPOptimizer

    plain, criterion = head.model(), nn.CrossEntropyLoss()

    def run() -> None:
        model = GradSampleModule(plain)
        optimizer = DPOptimizer(
            _sgd(plain),
            noise_multiplier=_NOISE_MULTIPLIER,
            max_grad_norm=_CLIP_NORM,
            expected_batch_size=head.batch,
        )
        for x, y in head.batches():
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    return run


def _opacus_engine(head: _Head) -> Run:
    """Opacus as its users call it: its engine, its loader and its Poisson batches."""
    from opacus import PrivacyEngine

    plain, criterion = head.model(), nn.CrossEntropyLoss()

    def run() -> None:
        model, optimizer, loader = PrivacyEngine().make_private(
            module=plain,
            optimizer=_sgd(plain),
            data_loader=head.loader(),
            noise_multiplier=_NOISE_MULTIPLIER,
            max_grad_norm=_CLIP_NORM,
        )
        epochs = itertools.chain.from_iterable(itertools.repeat(loader))
        for x, y in itertools.islice(epochs, head.steps):
            optimizer.zero_grad()
            criterion(model(x), y).backward()
            optimizer.step()

    return run


_LOOPS: Final[dict[str, Callable[[_Head], Run]]] = {
    "plain": _plain,
    "head": lambda head: _private(head, way="head", ghost=False),
    "gradient_sum": _sums,
    "hooks": lambda head: _private(head, way="opacus", ghost=False),
    "ghost": lambda head: _private(head, way="opacus", ghost=True),
    "opacus": _opacus,
    "opacus_engine": _opacus_engine,
}
