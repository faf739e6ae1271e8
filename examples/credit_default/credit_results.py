# SPDX-License-Identifier: Apache-2.0
"""Results of the credit-card plan; examples/results.py asks for them.

Every way of training has its own recipe, chosen for it on rows of made_up.py.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Final, final

import numpy as np
from measuring import Cell, Dataset, Measured, Target
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from tabular import Members, changed, local, plan_at

import secure_fl as sfl
from secure_fl import training
from secure_fl.engines.baselines import Alone

_EPSILONS: Final = (0.3, 1.0, 3.0, 8.0)
_PLAN: Final = Path(__file__).with_name("plan.toml")
_FOLDER: Final = "credit_default_taiwan"
_AUC, _WORST = "auc", "auc of the worst-off bank"

_TEXT: Final = """\
30,000 accounts ("default of credit card clients", UCI 350) are dealt to five banks: 35,
25, 20, 12 and 8 % of them. A fifth of each bank's rows is held out, and every AUC is
over the held-out rows of all banks. A seed is another dealing, another held-out part
and other noise. Which 6,000 rows are held out moves the AUC of all methods alike, by
0.007: compare methods within a seed (`by_seed` in results.json).

The model is a logistic regression on 100 public features, and nothing is pretrained:
every row of this table is trained from scratch. Without privacy it is scikit-learn's.
The AUC of the worst-off bank is that of the worst model that any bank is left with.

Recipes were chosen on made-up rows (`made_up.py`, from the plan's public bounds alone),
at epsilon 1, and kept for every epsilon. Distributed, and pooled with privacy: 50 steps
at a rate that falls from 4 to 0. Local mode: 5 rounds of 20 steps at rate 1. One bank
alone: 30 steps at rate 1. The clip norm is 3 throughout. For the five together most
recipes of 30 to 150 steps were within 0.002 of each other there. "The plan's recipe" is
what `--baselines` prints: a bank alone that takes the plan's steps, which are too many
and too large for its own noise.

Not charged: the bounds in `[data.columns]` were chosen for an earlier version of the
plan while looking at held-out rows. Wider features and hidden layers were tried on
such rows too, brought nothing at epsilon 1 and were dropped. A first recipe for the
five, 100 steps at rate 1, had been measured on the real rows before this one was chosen
(on made-up rows as well), and gave the same AUC.
That the plan asks for all five banks in every sum was decided after the figures of both
choices had been seen. In the row where one bank may be missing all five take part:
their noise is sized for one fewer.

Why so little is gained over one bank alone: without privacy the five together are only
0.008 better than the mean bank, since a bank's own rows nearly suffice for a logistic
regression. At epsilon 1 the distance is a little more than that. What joining brings
shows at epsilon 0.3, and for the smallest bank.

Distributed minus local mode, paired by seed, in hundredths of AUC: 0.49 with a standard
error of 0.33 at epsilon 0.3, 0.05 with 0.05 at 1, 0.00 with 0.05 at 3 and -0.07 with
0.03 at 8. That the target at epsilon 1 is met is chance: both modes are near what
pooled rows give without privacy, and five seeds do not tell them apart. At 8 the
hundred steps of local mode come a little nearer to the best model than fifty.

The rows of distributed mode were measured while sums were accounted in Renyi
divergence, with 6 to 8 % more noise than the same plans take now.
"""

DATASET = Dataset(
    name="credit_default",
    title="Who defaults on a credit card: five banks",
    delta=1e-5,
    metrics=(_AUC, _WORST),
    methods=(
        "distributed",
        "local",
        "pooled, private",
        "one member alone, private",
        "pooled",
    ),
    percent=False,
    targets=(
        Target("distributed", _AUC, 0.775, epsilon=1.0),
        Target(
            "distributed", _AUC, 0.010, epsilon=1.0, against="one member alone, private"
        ),
        Target("distributed", _AUC, 0.0, epsilon=1.0, against="local"),
    ),
    text=_TEXT,
)


def _plan(seed: int, epsilon: float) -> sfl.Plan:
    return plan_at(_PLAN, seed=seed, epsilon=epsilon)


def _local(plan: sfl.Plan) -> sfl.Plan:
    """Local mode: few rounds of many steps."""
    training = {"learning_rate": 1.0, "schedule": "constant"}
    plan = changed(plan, {"rounds": {"spare": 0}, "training": training})
    return local(plan, rounds=5, steps=20, weight_of=240)


def _alone(plan: sfl.Plan) -> sfl.Plan:
    """One bank without the others, whose noise weighs more: fewer and smaller steps."""
    training = {"learning_rate": 1.0, "schedule": "constant"}
    rounds = {"count": 30, "spare": 0}
    return changed(plan, {"rounds": rounds, "training": training})


@final
class _Bench:
    """One seed's rows, and the figures of every way to train on them."""

    def __init__(self, folder: Path, seed: int) -> None:
        self.members = Members(_plan(seed, 1.0), folder)

    def together(self, plan: sfl.Plan) -> Measured:
        """All banks, by the protocol."""
        model, spent = self.members.together(plan)
        return self._measured([self._score(model, plan)], spent)

    def alone(self, plan: sfl.Plan) -> Measured:
        """Every bank without the others."""
        return self._holders(plan, self.members.alone(plan).values())

    def one_holder(self, plan: sfl.Plan) -> Measured:
        """All rows as if they were one bank's."""
        return self._holders(plan, [self.members.one_holder(plan)])

    def _holders(self, plan: sfl.Plan, found: Collection[Alone]) -> Measured:
        scores = [self._score(holder.model, plan) for holder in found]
        return self._measured(scores, max(holder.epsilon for holder in found))

    def not_private(self, splits: Iterable[training.TabularSplit]) -> Measured:
        """One logistic regression for each of ``splits``."""
        return self._measured([self._plain(split) for split in splits], None)

    def _plain(self, split: training.TabularSplit) -> float:
        fitted = LogisticRegression(max_iter=5000).fit(split.train_x, split.train_y)
        return self._auc(fitted.decision_function(self.members.pooled.test_x))

    def _score(self, model: sfl.GlobalModel, plan: sfl.Plan) -> float:
        scores = training.scores(model, plan, self.members.pooled.test_x)
        return self._auc(scores[:, 1])

    def _auc(self, positive: NDArray[np.float64]) -> float:
        """On the held-out rows of all banks, whoever trained."""
        return training.auc(self.members.pooled.test_y, positive)

    @staticmethod
    def _measured(found: list[float], epsilon: float | None) -> Measured:
        return Measured({_AUC: float(np.mean(found)), _WORST: min(found)}, epsilon)


def cells(data: Path, cache: Path, seeds: Sequence[int]) -> Iterator[Cell]:
    """Everything that is to be measured; ``cache`` has no use here."""

    @functools.lru_cache(maxsize=1)
    def bench(seed: int) -> _Bench:
        return _Bench(data / _FOLDER, seed)

    def private(epsilon: float) -> dict[str, Callable[[int], Measured]]:
        return {
            "distributed": lambda s: bench(s).together(_plan(s, epsilon)),
            "distributed, one bank may be missing": lambda s: bench(s).together(
                changed(_plan(s, epsilon), {"parties": {"min_clients": 4}})
            ),
            "local": lambda s: bench(s).together(_local(_plan(s, epsilon))),
            "pooled, private": lambda s: bench(s).one_holder(
                changed(_plan(s, epsilon), {"rounds": {"spare": 0}})
            ),
            "one member alone, private": lambda s: bench(s).alone(
                _alone(_plan(s, epsilon))
            ),
            "one member alone, the plan's recipe": lambda s: bench(s).alone(
                changed(_plan(s, epsilon), {"rounds": {"spare": 0}})
            ),
        }

    plain: dict[str, Callable[[int], Measured]] = {
        "pooled": lambda s: bench(s).not_private([bench(s).members.pooled]),
        "one member alone": lambda s: bench(s).not_private(
            bench(s).members.splits.values()
        ),
    }
    for seed in seeds:
        for method, measure in plain.items():
            yield Cell(method, seed, functools.partial(measure, seed))
        for epsilon in _EPSILONS:
            for method, measure in private(epsilon).items():
                yield Cell(
                    method, seed, functools.partial(measure, seed), epsilon=epsilon
                )
