# SPDX-License-Identifier: Apache-2.0
"""What only a simulation may compute beside a run; no claim covers any of it."""

from __future__ import annotations

import contextlib
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import final

from ..descent import Descent
from ..errors import UsageError
from ..model import GlobalModel
from ..plan import Plan
from ..privacy import Ledger, Reservation, Unprotected
from ..randomness import SystemRandom
from .local import Trainer

__all__ = ["Alone", "train_alone"]


@final
@dataclass(frozen=True)
class Alone:
    """What one holder trained without the others, and the epsilon that it spent.

    ``epsilon`` is for one record, at the plan's delta, by the holder's own ledger.
    """

    model: GlobalModel
    epsilon: float


def train_alone(
    plan: Plan,
    client: str,
    trainer: Trainer,
    start: GlobalModel,
    *,
    records: int | None = None,
) -> Alone:
    """One member without the others: the same rounds and epsilon, its own noise.

    trainer
        of ``plan.alone()``, in local mode whatever the plan's own
    records
        what that member holds, in place of what the plan says: with all members' rows
        and the sum of their records this is the private training on pooled data

    Guarantees nothing about its own release beyond what the plan says for one member;
    its ledger is thrown away, so the result must not leave the simulation.  Raises
    UsageError where the plan's unit is a client, and for an unprotected update.
    """
    from ..training import ClientRound

    descent = Descent(plan.with_values(start.size)) if plan.distributed else None
    plan = plan.alone(records=records)
    random = SystemRandom()
    run_id = random.bytes(16)
    model = start
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(
            tempfile.TemporaryDirectory(prefix="secure-fl-alone-")
        )
        ledger = stack.enter_context(
            contextlib.closing(Ledger(Path(folder) / "ledger.sqlite", client=client))
        )
        for index in range(plan.rounds.count):

            def reserve(index: int = index) -> Reservation:
                return ledger.reserve(
                    plan.lineage,
                    run_id=run_id,
                    round_index=index,
                    attempt=0,
                    event=plan.release,
                    unit=plan.privacy.unit,
                    adjacency=plan.privacy.adjacency,
                    delta=plan.privacy.delta,
                    limit=plan.privacy.epsilon,
                    now=int(time.time()),
                    view=plan.view,
                )

            update = trainer(
                ClientRound(
                    client=client,
                    round=index,
                    plan=plan,
                    model=model,
                    reserve=reserve,
                    random=random,
                )
            )
            if isinstance(update, Unprotected):
                raise UsageError(
                    "a member alone is compared at the same epsilon",
                    hint="return private.update()",
                )
            if descent is None:
                model = model.add(update.vector)
            else:
                model = descent.step(model, -update.vector, round_index=index)
        spent = ledger.spent(
            plan.lineage, delta=plan.privacy.delta, view=plan.view
        ).value
    return Alone(model, spent)
