# SPDX-License-Identifier: Apache-2.0
"""In whose view something is claimed, and what releases cost there.

*local*: everybody but the client itself, together; its own noise is all there is.
*sum*: the aggregator and the clients that collude with it, who see opened sums only.
*share*: as *local*, where the client drew no more than its share of the noise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from ..plan import Plan
from ..privacy import Event, own_share

__all__ = ["View", "is_sum", "seen", "views"]

View = Literal[
    "record-local", "record-sum", "record-share", "client-sum", "client-share"
]


def views(plan: Plan) -> tuple[View, ...]:
    """Those of the plan's claims: the first is that of the headline.

    Without a protection the aggregator sees every vector, and only a share is left: the
    claim about sums comes last, and is no claim.
    """
    if not plan.distributed:
        return ("record-local",)
    both: tuple[View, View] = ("record-sum", "record-share")
    if plan.privacy.unit == "client":
        both = ("client-sum", "client-share")
    return both if plan.protection.kind != "plain" else (both[1], both[0])


def is_sum(view: View) -> bool:
    """Whether the noise of other clients counts, and so their honesty."""
    return view in ("record-sum", "client-sum")


def seen(view: View, events: Iterable[Event]) -> list[Event]:
    """The events as they are in ``view``.

    A ledger may hold sums from earlier runs whatever the plan of this one is: for
    whoever knows all other shares, each has only the client's own.
    """
    return [event if is_sum(view) else own_share(event) for event in events]
