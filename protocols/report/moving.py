# SPDX-License-Identifier: Apache-2.0
"""What an opened sum makes of the model (SPEC.md, 3.9 and 8).

Arithmetic is that of binary64, an operation at a time, each rounded once.
"""

import hashlib
import math
from typing import Any

import numpy as np
from canonical import encode
from files import Tensor
from plan import Plan


def signs(plan: Plan, round_: int, words: int) -> Any:
    """The signs of a round's rotation: 1.0 and -1.0 (SPEC.md, 3.9)."""
    key = encode(["secure-fl/rotation/1", plan.hash, plan.run_id, round_])
    data = hashlib.shake_256(key).digest(-(-words // 8))
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[:words]
    return 1.0 - 2.0 * bits


def butterflies(values: Any, block: int) -> Any:
    """The values, each block of them transformed (SPEC.md, 3.9), with the factor."""
    found = values.copy()
    h = 1
    while h < block:
        pairs = found.reshape(-1, 2, h)
        first, second = pairs[:, 0].copy(), pairs[:, 1].copy()
        pairs[:, 0], pairs[:, 1] = first + second, first - second
        h *= 2
    return found * math.sqrt(1 / block)


class Moving:
    """A model that moves from round to round, and the velocity that is kept."""

    def __init__(self, plan: Plan, start: list[Tensor]) -> None:
        self._plan = plan
        self.model = start
        self._velocity = np.zeros(len(self._values()))

    def _values(self) -> Any:
        data = b"".join(tensor.data for tensor in self.model)
        return np.frombuffer(data, "<f4").astype(np.float64)

    def move(
        self, totals: list[int], round_: int, survivors: list[str], weights: int
    ) -> bool:
        """Moves the model by a sum of signed words; whether it is still finite."""
        with np.errstate(all="ignore"):
            total = np.array(totals, np.int64).astype(np.float64) * self._plan.step
            moved = self._moved(total, round_, survivors, weights).astype("<f4")
        if not np.isfinite(moved).all():
            return False
        data, at, found = moved.tobytes(), 0, []
        for tensor in self.model:
            end = at + len(tensor.data)
            found.append(Tensor(tensor.name, tensor.shape, data[at:end]))
            at = end
        self.model = found
        return True

    def _moved(
        self, total: Any, round_: int, survivors: list[str], weights: int
    ) -> Any:
        plan, old = self._plan, self._values()
        if plan.grid is None:
            return old + total[:-1] / weights
        turned = butterflies(total, plan.grid.block) * signs(plan, round_, len(total))
        total = turned[: len(old)]
        if plan.descent is None:
            return old + total / len(survivors)
        records = sum(m.records for m in plan.members if m.name in set(survivors))
        gradient = total / (plan.rate * records)
        self._velocity = plan.descent.momentum * self._velocity + gradient
        rate = plan.descent.learning_rate
        if plan.descent.linear:
            rate = rate * (plan.rounds - round_) / plan.rounds
        return old - rate * self._velocity
