# SPDX-License-Identifier: Apache-2.0
"""What the results of one data set are made of; examples/results.py puts them together.

A folder with results has a module that offers ``DATASET: Dataset`` and
``cells(data, cache, seeds) -> Iterator[Cell]``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal, final

__all__ = ["Cell", "Dataset", "Measured", "Target"]


@final
@dataclass(frozen=True)
class Measured:
    """The figures of one training, all from held-out records.

    figures
        by metric; a share of records is between 0 and 1
    epsilon
        from the run's report, or the ledger of who trains alone; None without privacy
    """

    figures: Mapping[str, float]
    epsilon: float | None = None


@final
@dataclass(frozen=True)
class Cell:
    """One training to be measured, and where its figures go.

    Finished cells are kept: data set, method, epsilon, labels and seed name one.

    method
        the row of the table
    epsilon
        the plan's limit; None without privacy
    labels
        how many labelled records each member has, where that varies
    measure
        does the work, and is called only where nothing is kept
    """

    method: str
    seed: int
    measure: Callable[[], Measured]
    epsilon: float | None = None
    labels: int | None = None


@final
@dataclass(frozen=True)
class Target:
    """What was asked for: a mean of at least ``least``.

    against
        the mean of this other method, at the same epsilon, is taken off first
    """

    method: str
    metric: str
    least: float
    epsilon: float | None = None
    against: str | None = None


@final
@dataclass(frozen=True)
class Dataset:
    """How the figures of one data set are shown.

    metrics
        shown in this order; the picture is of the first
    methods
        drawn in the picture, in this order: the colour follows from the place
    percent
        whether the metrics are shares to be shown as per cent
    axis
        what the picture's horizontal axis is
    text
        Markdown paragraphs below the tables: the split, what was tuned on what, why a
        target was missed
    """

    name: str
    title: str
    delta: float
    metrics: tuple[str, ...]
    methods: tuple[str, ...]
    text: str
    targets: tuple[Target, ...] = ()
    percent: bool = True
    axis: Literal["epsilon", "labels"] = "epsilon"
