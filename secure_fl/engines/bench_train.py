# SPDX-License-Identifier: Apache-2.0
"""How fast a head on cached features trains, privately and not, and what it holds."""

from __future__ import annotations

import functools
import importlib.util
import statistics
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, final

from ..errors import UsageError
from .bench_apart import Loop, in_turn

__all__ = ["WAYS", "TrainFigures", "bench_train"]

WAYS: Final = (
    "plain",
    "head",
    "gradient_sum",
    "hooks",
    "ghost",
    "opacus",
    "opacus_engine",
)


@final
@dataclass(frozen=True)
class TrainFigures:
    """What ``secure-fl bench train`` prints.

    features, classes, records
        the head is a linear layer from ``features`` to ``classes``
    batch
        records in a batch; where batches are Poisson samples, on average
    threads
        of torch, in each process; those of numpy follow from OMP_NUM_THREADS
    dp_over_plain
        CPU seconds of ``head`` over those of ``plain``: the median of the turns' ratios
    opacus_over_dp
        likewise, of ``opacus`` over those of ``head``
    cpu_seconds
        of one step, all threads together, by way: the median of ``repeats`` loops of
        ``steps`` steps.  All that a round does counts but its ledger entry.
    peak_bytes
        by way, what a process holds at most in a loop, beyond the records and what it
        had loaded before

    The ways:

    plain
        no privacy: shuffled batches of one size
    head
        ``make_private`` with ``way = "head"``: Poisson batches, closed-form norms
    gradient_sum
        a round of mode "distributed" for each step, rotation, rounding and noise on the
        grid included
    hooks, ghost
        ``make_private`` with ``way = "opacus"``
    opacus
        Opacus' own hooks and optimizer, over the batches of ``plain``
    opacus_engine
        Opacus' own engine, which brings its own loader
    """

    features: int
    classes: int
    records: int
    batch: int
    steps: int
    threads: int
    repeats: int
    dp_over_plain: float
    opacus_over_dp: float
    cpu_seconds: dict[str, float]
    peak_bytes: dict[str, int]


def bench_train(
    *,
    features: int,
    classes: int,
    records: int,
    rate: float,
    steps: int,
    threads: int,
    repeats: int,
    turned: Callable[[], None] = lambda: None,
) -> TrainFigures:
    """Train random records in all of :data:`WAYS`, each in a process of its own.

    ``turned`` is called ``len(WAYS) * (1 + repeats)`` times on the way.  Raises
    UsageError where torch or Opacus is not installed.
    """
    for name in ("torch", "opacus"):
        if importlib.util.find_spec(name) is None:
            raise UsageError(
                f"training needs {name}, which is not installed",
                hint="pip install 'secure-fl[train]'",
            )
    loop = functools.partial(
        _head_loop,
        features=features,
        classes=classes,
        records=records,
        rate=rate,
        steps=steps,
        threads=threads,
    )
    taken = in_turn(
        {way: functools.partial(loop, way) for way in WAYS},
        turns=repeats,
        turned=turned,
    )
    return TrainFigures(
        features=features,
        classes=classes,
        records=records,
        batch=max(1, round(rate * records)),
        steps=steps,
        threads=threads,
        repeats=repeats,
        dp_over_plain=taken["head"].over(taken["plain"]),
        opacus_over_dp=taken["opacus"].over(taken["head"]),
        cpu_seconds={w: statistics.median(taken[w].cpu_seconds) / steps for w in WAYS},
        peak_bytes={w: taken[w].peak_bytes for w in WAYS},
    )


def _head_loop(
    way: str,
    *,
    features: int,
    classes: int,
    records: int,
    rate: float,
    steps: int,
    threads: int,
) -> Loop:
    from ..training.bench import head_loop  # torch, in the loop's process only

    return head_loop(
        way,
        features=features,
        classes=classes,
        records=records,
        rate=rate,
        steps=steps,
        threads=threads,
    )
