# SPDX-License-Identifier: Apache-2.0
"""Five banks learn to read the digits 5 to 9 together, and keep their cheques.

    python examples/digits/demo.py [--seeds 5]

Each bank has about 120 records, a frozen network that was pretrained on public digits
0 to 4, and trains a linear head with its own differential privacy; masking hides each
update from the aggregator.  The last line says where the report lies.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

import features as public
import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from rich.table import Table
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secure_fl as sfl
from secure_fl.engines.baselines import train_alone

PLAN = """\
schema = "secure-fl/plan/1"
name = "cheque-digits"

[parties]
max_colluding = 1
members = [
{members}]

[rounds]
count = 6

[privacy]
mode = "local"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = {epsilon}
delta = 1e-5
clip_norm = 1.0
sampling_rate = 1.0
local_steps = 5

[protection]
kind = "masking"

[model]
kind = "custom"

[training]
way = "head"
learning_rate = 0.7
"""
NAMES = [f"bank-{letter}" for letter in "abcde"]
Trainer = Callable[[sfl.ClientRound], sfl.PrivateUpdate]


def plan(epsilon: float) -> sfl.Plan:
    rows = [f'  {{ name = "{n}", records = {public.RECORDS} }},\n' for n in NAMES]
    text = PLAN.format(members="".join(rows), epsilon=float(epsilon))
    return sfl.Plan(text.encode())


def trainer(x: public.Features, y: NDArray[np.int64]) -> Trainer:
    """One bank's own training code: ordinary PyTorch."""
    data = TensorDataset(torch.from_numpy(x), torch.from_numpy(y))

    def fit(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        head = r.load(nn.Linear(x.shape[1], 5))
        private = r.make_private(
            head,
            torch.optim.SGD(head.parameters(), lr=0.7),
            DataLoader(data),
            nn.CrossEntropyLoss(),
        )
        for inputs, labels in private.loader:
            private.optimizer.zero_grad()
            private.criterion(private.model(inputs), labels).backward()
            private.optimizer.step()
        return private.update()

    return fit


class Setting:
    """One seed's features and split, and the rows of the table it gives."""

    def __init__(self, digits: public.Digits, x: public.Features, seed: int) -> None:
        self.split = public.deal(len(x), seed)
        self.y = digits.private_y
        self.x = x
        self.trainers = {
            name: trainer(x[rows], self.y[rows])
            for name, rows in zip(NAMES, self.split.banks, strict=True)
        }
        self.start = sfl.GlobalModel(
            {
                "weight": np.zeros((5, x.shape[1]), np.float32),
                "bias": np.zeros(5, np.float32),
            }
        )

    def accuracy(self, model: sfl.GlobalModel) -> float:
        test = self.split.test
        logits = self.x[test] @ model.arrays["weight"].T + model.arrays["bias"]
        return float((logits.argmax(1) == self.y[test]).mean())

    def federated(self, epsilon: float, out: Path | None = None) -> float:
        finished = sfl.run(
            plan(epsilon),
            self.trainers,
            model=self.start,
            evaluate=lambda model: {"accuracy": self.accuracy(model)},
        )
        if out is not None:
            finished.save(out)
        return self.accuracy(finished.model)

    def alone(self, epsilon: float) -> float:
        """The mean bank without the others, at the same epsilon."""
        return float(
            np.mean(
                [
                    self.accuracy(
                        train_alone(plan(epsilon), name, fit, self.start).model
                    )
                    for name, fit in self.trainers.items()
                ]
            )
        )

    def not_private(self) -> float:
        """All banks' records in one place, no noise: what privacy is compared with."""
        rows, test = self.split.banks.ravel(), self.split.test
        fitted = LogisticRegression(max_iter=2000).fit(self.x[rows], self.y[rows])
        return float(fitted.score(self.x[test], self.y[test]))


def free_folder(stem: str) -> Path:
    """``stem``, or the first of stem-2, stem-3, ... that does not exist."""
    out, number = Path(stem), 2
    while out.exists():
        out, number = Path(f"{stem}-{number}"), number + 1
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--out", default="demo-out", help="folder of the one kept run")
    arguments = parser.parse_args()
    begin = time.monotonic()
    torch.set_num_threads(1)  # the networks are tiny: more threads only wait
    digits = public.load()
    out = free_folder(arguments.out)
    results: dict[str, dict[str, list[float]]] = {}

    def note(row: str, column: str, value: float) -> None:
        results.setdefault(row, {}).setdefault(column, []).append(value)

    console = Console(stderr=True)
    seeds = track(
        range(arguments.seeds),
        "training five banks",
        console=console,
        disable=not sys.stderr.isatty(),
        transient=True,
    )
    for seed in seeds:
        pretrained = public.publicly_centred(public.pretrain(digits, seed), digits)
        ours = Setting(digits, pretrained, seed)
        others = {
            "random backbone": public.untrained(seed),
            "raw pixels": nn.Flatten(),
        }
        for epsilon in (1, 3):
            column = f"epsilon {epsilon}"
            keep = out if (seed, epsilon) == (0, 1) else None
            note("five banks together", column, ours.federated(epsilon, keep))
            note("one bank alone", column, ours.alone(epsilon))
            for row, extract in others.items():
                x = public.publicly_centred(extract, digits)
                note(row, column, Setting(digits, x, seed).federated(epsilon))
        note("pooled, not private", "no privacy", ours.not_private())

    columns = ["epsilon 1", "epsilon 3", "no privacy"]
    table = Table(
        title=f"digits 5 to 9: accuracy, {arguments.seeds} seeds (mean and std)",
        title_justify="left",
    )
    table.add_column("trained")
    for column in columns:
        table.add_column(column, justify="right")
    for row, by_column in results.items():
        cells = [
            f"{np.mean(v):.3f} ± {np.std(v):.3f}" if (v := by_column.get(c)) else ""
            for c in columns
        ]
        table.add_row(row, *cells)
    answer = Console(highlight=False)
    answer.print(table)
    answer.print(f"took    {time.monotonic() - begin:.0f} s")
    answer.print(f"report  {out / 'report.html'}")
    answer.print(f"check   .venv/bin/secure-fl verify {out}")


if __name__ == "__main__":
    main()
