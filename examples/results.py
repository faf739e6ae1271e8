# SPDX-License-Identifier: Apache-2.0
"""All results in one command: docs/results.json, docs/results.md and the pictures.

    python examples/results.py --data DIR [--only banking77] [--seeds 5]

DIR holds banking77/, credit_default_taiwan/, heart_disease/, pneumoniamnist/ and
squeezenet/.  Finished trainings are kept under --cache, so that a regeneration that was
stopped goes on where it was; after a change of a recipe, remove what is kept of it.
With --only, the other data sets keep the figures that docs/results.json has.
"""

from __future__ import annotations

import argparse
import importlib
import json
import math
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from measuring import Cell, Dataset, Measured
from pictures import draw
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from tables import page

from secure_fl.files import write_durably

EXAMPLES = Path(__file__).resolve().parent
MODULES = {
    "banking77": "banking77_results",
    "credit_default": "credit_results",
    "heart_disease": "heart_results",
    "pneumonia": "pneumonia_results",
}


class Kept:
    """Finished trainings of one data set, in one JSON file."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._rows: dict[str, Any] = {}
        if path.exists():
            self._rows = json.loads(path.read_text())

    def measured(self, cell: Cell) -> Measured:
        key = f"{cell.method}|{cell.epsilon}|{cell.labels}|{cell.seed}"
        if key not in self._rows:
            self._rows[key] = asdict(cell.measure())
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_durably(self._path, json.dumps(self._rows, indent=1).encode())
        return Measured(**self._rows[key])


def merged(dataset: Dataset, done: Sequence[tuple[Cell, Measured]]) -> dict[str, Any]:
    """The data set's rows: one per method, epsilon and labels, over its seeds."""
    groups: dict[tuple[str, float | None, int | None], list[tuple[Cell, Measured]]] = {}
    for cell, measured in done:
        key = (cell.method, cell.epsilon, cell.labels)
        groups.setdefault(key, []).append((cell, measured))
    rows = []
    for (method, limit, labels), group in groups.items():
        spent = [m.epsilon for _, m in group if m.epsilon is not None]
        figures = {}
        for metric in group[0][1].figures:
            values = [m.figures[metric] for _, m in group]
            figures[metric] = {
                "mean": _round(statistics.fmean(values)),
                "deviation": _round(statistics.stdev(values)) if values[1:] else None,
                "by_seed": [_round(v) for v in values],
            }
        rows.append(
            {
                "method": method,
                "epsilon_limit": limit,
                # The largest over the seeds, as the runs' reports say.
                "epsilon": _round(max(spent)) if spent else None,
                "labels": labels,
                "seeds": [cell.seed for cell, _ in group],
                "figures": figures,
            }
        )
    rows.sort(key=_place)
    return {"title": dataset.title, "delta": dataset.delta, "rows": rows}


def _place(row: dict[str, Any]) -> tuple[str, float, int]:
    limit = row["epsilon_limit"]
    return row["method"], math.inf if limit is None else limit, row["labels"] or 0


def _round(value: float) -> float:
    return float(f"{value:.6g}")


def dataset_of(name: str) -> Dataset:
    found: Dataset = _module(name).DATASET
    return found


def _module(name: str) -> Any:
    """The folder's own modules are found beside it."""
    folder = str(EXAMPLES / name)
    if folder not in sys.path:
        sys.path.insert(0, folder)
    return importlib.import_module(MODULES[name])


def regenerate(arguments: argparse.Namespace) -> None:
    out: Path = arguments.out
    told = out / "results.json"
    results: dict[str, Any] = json.loads(told.read_text()) if told.exists() else {}
    console = Console(stderr=True)
    with Progress(
        TextColumn("{task.description}"),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        disable=not console.is_terminal,
    ) as bar:
        for name in MODULES if arguments.only is None else [arguments.only]:
            results[name] = _measured(name, arguments, bar)
    results = {name: results[name] for name in MODULES if name in results}
    text = json.dumps(results, indent=1, ensure_ascii=False, allow_nan=False) + "\n"
    write_durably(told, text.encode())
    datasets = [dataset_of(name) for name in results]
    for dataset in datasets:
        picture = draw(dataset, results[dataset.name]["rows"])
        write_durably(out / "results" / f"{dataset.name}.svg", picture)
    write_durably(out / "results.md", page(datasets, results).encode())


def _measured(name: str, arguments: argparse.Namespace, bar: Progress) -> Any:
    cache = arguments.cache.resolve()
    seeds = range(arguments.seeds)
    cells = list(_module(name).cells(arguments.data.resolve(), cache, seeds))
    kept = Kept(cache / "cells" / f"{name}.json")
    task = bar.add_task(name, total=len(cells))
    done = []
    for cell in cells:
        bar.update(task, description=f"{name}: {cell.method}")
        done.append((cell, kept.measured(cell)))
        bar.advance(task)
    return merged(dataset_of(name), done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--only", choices=tuple(MODULES))
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--cache", type=Path, default=Path("results-cache"))
    parser.add_argument("--out", type=Path, default=EXAMPLES.parent / "docs")
    regenerate(parser.parse_args())


if __name__ == "__main__":
    main()
