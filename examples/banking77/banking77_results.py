# SPDX-License-Identifier: Apache-2.0
"""Every row of the results on BANKING77; examples/results.py asks for them."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from adapted import FewRows
from banks import Banks, distributed, local, own_rate
from intents import Problem, Rows, encoder, hashed, problem, read
from measuring import Cell, Dataset, Measured, Target
from sklearn.linear_model import LogisticRegression

import secure_fl as sfl
from secure_fl.engines.baselines import train_alone

__all__ = ["DATASET", "cells"]

EPSILONS = (1.0, 3.0, 8.0)
CKKS_EPSILON = 1.0
LORA_SEEDS = 2
LORA_EPSILONS = (8.0,)

DATASET = Dataset(
    name="banking77",
    title="What a bank's customers ask about (BANKING77, 77 intents)",
    delta=1e-5,
    metrics=("accuracy",),
    methods=(
        "distributed",
        "local",
        "pooled, private",
        "one member alone, private",
        "from scratch, distributed",
        "pooled",
    ),
    targets=(
        Target("distributed", "accuracy", 0.835, epsilon=1.0),
        Target("distributed", "accuracy", 0.890, epsilon=3.0),
        Target("distributed", "accuracy", 0.905, epsilon=8.0),
        *(
            Target(
                "distributed",
                "accuracy",
                -0.005,
                epsilon=epsilon,
                against="pooled, private",
            )
            for epsilon in EPSILONS
        ),
    ),
    text=Path(__file__).with_name("results.md").read_text(),
)


class _Study:
    """Features and banks, made when the first figure needs them."""

    def __init__(self, data: Path, cache: Path) -> None:
        self._data = data / "banking77"
        self._cache = cache

    @functools.cached_property
    def rows(self) -> Rows:
        torch.set_num_threads(1)  # heads are small: more threads only wait
        return read(self._data)

    @functools.cached_property
    def _pretrained(self) -> Problem:
        return problem(self.rows, encoder(self._cache))

    @functools.cached_property
    def _scratch(self) -> Problem:
        return problem(self.rows, hashed)

    def banks(self, seed: int, *, pretrained: bool = True) -> Banks:
        return Banks(self._pretrained if pretrained else self._scratch, seed)

    def together(
        self,
        seed: int,
        epsilon: float,
        *,
        protection: str = "masking",
        pretrained: bool = True,
    ) -> Measured:
        banks = self.banks(seed, pretrained=pretrained)
        plan = distributed(epsilon, values=banks.start.size, protection=protection)
        return self._run(banks, plan)

    def locally(self, seed: int, epsilon: float) -> Measured:
        return self._run(self.banks(seed), local(epsilon))

    def _run(self, banks: Banks, plan: sfl.Plan) -> Measured:
        finished = sfl.run(plan, banks.trainers(), model=banks.start)
        spent = finished.report.claims[0]["consortium"]["epsilon"]
        return Measured({"accuracy": banks.accuracy(finished.model)}, spent)

    def alone(self, seed: int, epsilon: float) -> Measured:
        """The mean of five banks, each with the rate that suits it."""
        banks = self.banks(seed)
        found, spent = [], []
        for name, rows in banks.rows.items():
            plan = own_rate(epsilon, records=len(rows))
            alone = train_alone(plan, name, banks.trainer(rows), banks.start)
            found.append(banks.accuracy(alone.model))
            spent.append(alone.epsilon)
        return Measured({"accuracy": float(np.mean(found))}, max(spent))

    def pooled(self, seed: int, epsilon: float, *, same_rate: bool) -> Measured:
        banks = self.banks(seed)
        records = 10_000  # public, as the plan's are
        plan = own_rate(epsilon, records=records)
        if same_rate:
            plan = distributed(epsilon, values=banks.start.size)
        fit = banks.trainer(slice(None))
        name = plan.names[0]
        found = train_alone(plan, name, fit, banks.start, records=records)
        return Measured({"accuracy": banks.accuracy(found.model)}, found.epsilon)

    def not_private(self, seed: int, *, pretrained: bool = True) -> Measured:
        banks = self.banks(seed, pretrained=pretrained)
        return Measured({"accuracy": self._fitted(banks, slice(None))})

    def alone_not_private(self, seed: int) -> Measured:
        banks = self.banks(seed)
        found = [self._fitted(banks, rows) for rows in banks.rows.values()]
        return Measured({"accuracy": float(np.mean(found))})

    def _fitted(self, banks: Banks, rows: slice | np.ndarray) -> float:
        p = banks.problem
        fitted = LogisticRegression(C=10.0, max_iter=1000)
        fitted.fit(p.train[rows], p.train_y[rows])
        return float(fitted.score(p.test, p.test_y))

    def few(self, seed: int, epsilon: float) -> Measured:
        return FewRows(self.rows, self._pretrained, seed).head(epsilon)

    def adapted(self, seed: int, epsilon: float) -> Measured:
        return FewRows(self.rows, self._pretrained, seed).adapters(epsilon)


def cells(data: Path, cache: Path, seeds: Sequence[int]) -> Iterator[Cell]:
    study = _Study(data, cache)
    part = functools.partial
    for seed in seeds:
        yield Cell("pooled", seed, part(study.not_private, seed))
        yield Cell("one member alone", seed, part(study.alone_not_private, seed))
        scratch = part(study.not_private, seed, pretrained=False)
        yield Cell("from scratch", seed, scratch)
        encrypted = part(study.together, seed, CKKS_EPSILON, protection="ckks")
        yield Cell("distributed, under CKKS", seed, encrypted, epsilon=CKKS_EPSILON)
        for epsilon in EPSILONS:
            at = (seed, epsilon)
            rows = {
                "distributed": part(study.together, *at),
                "local": part(study.locally, *at),
                "one member alone, private": part(study.alone, *at),
                "pooled, private": part(study.pooled, *at, same_rate=True),
                "pooled, private, its own rate": part(
                    study.pooled, *at, same_rate=False
                ),
                "from scratch, distributed": part(
                    study.together, *at, pretrained=False
                ),
            }
            for method, measure in rows.items():
                yield Cell(method, seed, measure, epsilon=epsilon)
    for epsilon in LORA_EPSILONS:
        for seed in seeds[:LORA_SEEDS]:
            at = (seed, epsilon)
            head, adapters = part(study.few, *at), part(study.adapted, *at)
            yield Cell("2,000 rows: head", seed, head, epsilon=epsilon)
            yield Cell("2,000 rows: LoRA and head", seed, adapters, epsilon=epsilon)
