# SPDX-License-Identifier: Apache-2.0
"""In whose view something is claimed.

*local*: everybody but the client itself, together; its own noise is all there is.
*sum*: the aggregator and the clients that collude with it, who see opened sums only.
*share*: as *local*, where the client drew no more than its share of the noise.
"""

from __future__ import annotations

from typing import Literal

from ..plan import Plan

__all__ = ["View", "colluding", "is_sum", "views"]

View = Literal[
    "record-local", "record-sum", "record-share", "client-sum", "client-share"
]


def views(plan: Plan) -> tuple[View, ...]:
    """Those of the plan's claims: the first, the headline's, is the plan's own."""
    if not plan.distributed:
        return ("record-local",)
    if plan.privacy.unit == "client":
        return ("client-sum", "client-share")
    return ("record-sum", "record-share")


def is_sum(view: View) -> bool:
    """Whether the noise of other clients counts, and so their honesty."""
    return view in ("record-sum", "client-sum")


def colluding(plan: Plan, view: View) -> int | None:
    """How many clients collude in ``view``; None is everybody else.

    A ledger may hold sums from earlier runs whatever the plan of this one is:
    :func:`secure_fl.privacy.seen` says what is left of each.
    """
    return plan.view if is_sum(view) else None
