# SPDX-License-Identifier: Apache-2.0
"""From an opened sum to the next global model: what any holder of the sum can redo.

Everything is float64, in the order written here, with one rounding to float32 at the
end: whoever follows the model from its start computes the same bits (SPEC report, 8).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import final

import numpy as np
from numpy.typing import NDArray

from .fixedpoint import Encoding, Word
from .model import GlobalModel
from .plan import Plan

__all__ = ["Descent", "read_sum"]


def read_sum(
    encoding: Encoding, words: NDArray[Word], *, clients: int, counted: bool
) -> tuple[NDArray[np.float64], int]:
    """What an opened sum of ``clients`` vectors says, in multiples of the step.

    ``counted``: whether the last word is no value but the number of their clipped
    coordinates, which comes second; it is 0 elsewhere.
    """
    if not counted:
        return encoding.decode(words), 0
    clipped = int(encoding.unwrap(words[-1:])[0])
    # A lying client can make the counter anything: it is only ever shown.
    most = clients * (words.size - 1)
    return encoding.decode(words[:-1]), min(max(0, clipped), most)


@final
class Descent:
    """The model's way through the rounds of one plan.

    ``velocity`` is what the aggregator's momentum keeps between rounds: float64, one
    number per value, or none in a plan whose aggregator takes no gradient steps.
    """

    def __init__(self, plan: Plan, velocity: NDArray[np.float64] | None = None) -> None:
        """``velocity``: to go on from; by default that of a run's start, at rest."""
        self._plan = plan
        steps = plan.distributed and plan.privacy.unit == "record"
        at_rest = np.zeros(plan.values if steps else 0)
        self.velocity = at_rest if velocity is None else velocity

    def move(
        self,
        model: GlobalModel,
        words: NDArray[Word],
        *,
        round_index: int,
        survivors: Sequence[str],
    ) -> GlobalModel:
        """The model after a round that opened ``words`` as the sum of ``survivors``.

        Raises UsageError where the new model is not finite; nothing has moved then.
        """
        plan = self._plan
        members = [plan.member(name) for name in survivors]
        if not plan.distributed:
            total = plan.encoding.decode(words[:-1])
            return model.add(total / sum(m.weight for m in members))
        units = plan.encoding.unwrap(words)
        opened = plan.grid.opened(units, rotation=plan.rotation(round_index))
        if plan.privacy.unit == "client":
            return model.add(opened / len(members))
        expected = plan.privacy.sampling_rate * sum(m.records for m in members)
        return self.step(model, opened / expected, round_index=round_index)

    def step(
        self, model: GlobalModel, gradient: NDArray[np.float64], *, round_index: int
    ) -> GlobalModel:
        """One step of SGD, as ``[training]`` of a distributed plan says."""
        training, count = self._plan.training, self._plan.rounds.count
        assert training is not None
        rate = training.learning_rate
        if training.schedule == "linear":
            rate = rate * (count - round_index) / count
        velocity = training.momentum * self.velocity + gradient
        moved = model.add(-(rate * velocity))
        self.velocity = velocity
        return moved
