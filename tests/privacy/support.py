# SPDX-License-Identifier: Apache-2.0
"""A ledger's client, and short forms of what it does."""

from __future__ import annotations

import math

from secure_fl.identity import Identity
from secure_fl.privacy import Event, Gaussian, Ledger, Reservation
from secure_fl.randomness import SeededInsecure

CLIENT = "bank-a"
LINEAGE = "loans"
RUN = bytes(range(16))
OTHER_RUN = bytes(16)
CTX, OTHER_CTX = b"c" * 32, b"d" * 32
DELTA = 1e-6
# Cheap to account for: a grid of a few hundred points.
QUIET = Gaussian(40.0)

IDENTITY = Identity.new(CLIENT, random=SeededInsecure(b"ledger tests"))


def reserve(
    ledger: Ledger,
    place: int,
    *,
    attempt: int = 0,
    run_id: bytes = RUN,
    event: Event = QUIET,
    limit: float = math.inf,
    view: int | None = None,
) -> Reservation:
    return ledger.reserve(
        LINEAGE,
        run_id=run_id,
        round_index=place,
        attempt=attempt,
        event=event,
        unit="record",
        adjacency="add-or-remove-one",
        delta=DELTA,
        limit=limit,
        now=1_800_000_000 + place,
        view=view,
    )
