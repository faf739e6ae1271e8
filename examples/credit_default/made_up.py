# SPDX-License-Identifier: Apache-2.0
"""Rows that nobody owns: what a recipe may be chosen on without a record paying for it.

    python examples/credit_default/made_up.py --out DIR [--seed N] [--rows N]

Writes DIR/default_of_credit_card_clients.csv with the columns of plan.toml, drawn from
their public bounds and lists alone.  Columns of one kind (six months of delays, of
bills, of payments) go together, as months do; the label follows a random linear rule,
and about one row in five defaults.  Any plan over the real file runs on it as it is.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr

import secure_fl as sfl
from secure_fl.sections import Column, Data

_PLAN: Final = Path(__file__).with_name("plan.toml")
_TOGETHER: Final = 0.7  # correlation of two months of one kind
_STRENGTH: Final = 0.3  # of a feature's part in the rule
_DEFAULTS: Final = 0.2


def _cells(column: Column, places: NDArray[np.float64]) -> list[str]:
    """The value at each place, from 0 to 1, of the column's range or list."""
    if column.values is not None:
        return [str(column.values[int(p * len(column.values))]) for p in places]
    assert column.low is not None
    assert column.high is not None
    low, high = column.low, column.high
    if column.log:
        low, high = np.log1p(low), np.log1p(high)
    at = low + places * (high - low)
    return [f"{v:.0f}" for v in (np.expm1(at) if column.log else at)]


def _influence(
    column: Column, places: NDArray[np.float64], generator: np.random.Generator
) -> NDArray[np.float64]:
    """What the column adds to each row's logit, by the random rule."""
    if column.values is None:
        return _STRENGTH * generator.normal() * (2 * places - 1)
    weights = _STRENGTH * generator.normal(size=len(column.values))
    return np.asarray(weights[(places * len(weights)).astype(int)], np.float64)


def write(data: Data, path: Path, *, seed: int, rows: int) -> None:
    """``rows`` rows for ``data`` into a new file: the same for the same seed."""
    generator = np.random.default_rng(seed)
    shared: dict[str, NDArray[np.float64]] = {}
    table: dict[str, list[str]] = {
        name: [str(i + 1) for i in range(rows)] for name in data.drop
    }
    logit = np.zeros(rows)
    for name, column in data.columns.items():
        kind = name.rstrip("0123456789")
        common = shared.setdefault(kind, generator.normal(size=rows))
        own = generator.normal(size=rows)
        mixed = np.sqrt(_TOGETHER) * common + np.sqrt(1 - _TOGETHER) * own
        places = np.clip(ndtr(mixed), 0.0, 1 - 1e-9)
        table[name] = _cells(column, places)
        logit += _influence(column, places, generator)
    # Shifted so that the mean row defaults as often as said.
    logit += np.log(_DEFAULTS / (1 - _DEFAULTS)) - logit.mean()
    defaults = generator.random(rows) < expit(logit)
    table[data.label] = [str(int(d)) for d in defaults]
    with path.open("x", newline="") as out:
        writer = csv.writer(out, lineterminator="\n")
        writer.writerow(table)
        writer.writerows(zip(*table.values(), strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--rows", type=int, default=30_000)
    arguments = parser.parse_args()
    data = sfl.load_plan(_PLAN).data
    assert data is not None
    assert data.file is not None
    arguments.out.mkdir(parents=True, exist_ok=True)
    path = arguments.out / data.file
    write(data, path, seed=arguments.seed, rows=arguments.rows)
    print(path)


if __name__ == "__main__":
    main()
