# SPDX-License-Identifier: Apache-2.0
"""Five banks learn what their customers ask about, and no question leaves a bank.

    python examples/banking77/run.py --data DIR [--epsilon 1] [--out DIR]

DIR holds ``train.csv`` and ``test.csv`` of BANKING77.  A sentence encoder that was
trained elsewhere stays frozen; its features are computed once (minutes) and kept
under --cache.  The banks train a linear head on them: in every round each adds its
share of the noise to its clipped gradients, masking hides all but the sum, and the sum
alone is private.  The run's files are checked at the end, as an auditor would.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

import torch
from banks import Banks, distributed
from intents import encoder, problem, read
from rich.console import Console
from rich.progress import Progress as Bar
from rich.table import Table

import secure_fl as sfl

TO_WHOM = {
    "record-sum": "to the aggregator and one bank",
    "record-share": "to all other banks in league",
}


def run(banks: Banks, plan: sfl.Plan, out: Path) -> sfl.Run:
    console = Console(stderr=True)
    with Bar(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("rounds", total=plan.rounds.count)
        return sfl.run(
            plan,
            banks.trainers(),
            model=banks.start,
            out=out,
            evaluate=lambda model: {"accuracy": banks.accuracy(model)},
            progress=lambda p: bar.update(task, completed=p.round),
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--epsilon", type=float, default=1.0)
    parser.add_argument("--protection", choices=("masking", "ckks"), default="masking")
    parser.add_argument("--seed", type=int, default=0, help="which rows a bank holds")
    parser.add_argument("--cache", type=Path, default=Path("features"))
    parser.add_argument("--out", type=Path, default=Path("banking77-run"))
    arguments = parser.parse_args()
    try:
        seen = problem(read(arguments.data), encoder(arguments.cache))
        torch.set_num_threads(1)  # what is left is small: more threads only wait
        banks = Banks(seen, arguments.seed)
        plan = distributed(
            arguments.epsilon,
            values=banks.start.size,
            protection=arguments.protection,
        )
        finished = run(banks, plan, arguments.out)
        sfl.verify_run(arguments.out)
    except sfl.errors.SecureFLError as error:
        raise SystemExit(f"error: {error}\nhint: {error.hint}") from None
    table = Table(title="intents of held-out questions, told rightly")
    for column in ("model", "epsilon", "accuracy"):
        table.add_column(column)
    before, after = banks.accuracy(banks.start), banks.accuracy(finished.model)
    table.add_row("from public questions alone", "0", f"{before:.3f}")
    for claim in finished.report.claims:
        told = f"{claim['consortium']['epsilon']:.6g}"
        table.add_row(f"five banks, {TO_WHOM[claim['id']]}", told, f"{after:.3f}")
    Console(width=None if sys.stdout.isatty() else 100).print(table)
    print(f"verified; read {arguments.out / 'report.html'}")


if __name__ == "__main__":
    main()
