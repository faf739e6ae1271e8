# SPDX-License-Identifier: Apache-2.0
"""The parties of the good runs whose sums alone are private, records or clients.

What a client sends is made up of whole numbers here, noise included, and of nothing
that a machine computes in its own way: no verifier sees how a share was drawn.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl.descent import Descent
from secure_fl.masking import Session
from secure_fl.plan import Plan
from secure_fl.plan import Session as AnySession
from secure_fl.privacy import Event, PoissonGaussian, Reservation
from secure_fl.privacy.events import DiscreteGaussian, Skellam
from secure_fl.rotation import rotate
from tests.report.support import NAMES

from .report_parties import Kept

# Of earlier runs of bank-a's data set: the first assumed as many to collude as this
# run does, the second fewer, so that only bank-a's own share of it counts.
EARLIER: tuple[Event, ...] = (
    Skellam(0.5, 4e8, 3, 1, 8200.0, 64),
    DiscreteGaussian(1.0, 80000.0, 3, 0, 8200.0, 64),
    PoissonGaussian(0.25, 4.0),
)

Lines = Sequence[tuple[str, str]]


def units(plan: Plan, name: str, place: int) -> NDArray[np.int64]:
    """An update in sixteenths, rotated, in whole steps, and a made-up share."""
    grid, number = plan.grid, NAMES.index(name)
    seed = f"{name}, round {place}, {grid.unit}".encode()
    drawn = hashlib.shake_256(seed).digest(4 * grid.padded)
    share = np.frombuffer(drawn, "<u4").astype(np.int64) % 16384 - 8192
    update = (np.arange(grid.values) * 7 + 3 * number + place) % 11 - 5.0
    rotated = rotate(update / 16, plan.rotation(place))
    return np.floor(rotated / grid.step).astype(np.int64) + share


@dataclass
class Distributed(Kept):
    """Masking.  Round 1 is skipped: bank-c stops while it uploads, bank-d never starts.
    In round 2 bank-d has no vector.  The folder holds all vectors of opened sums.

    ``lines`` of the plan of :class:`Kept` read otherwise.
    """

    lines: Lines = ()
    earlier: Sequence[Event] = ()

    def __post_init__(self) -> None:
        super().__post_init__()
        text = self.plan.source.decode()
        for line, by in (
            ('mode = "local"', 'mode = "distributed"'),
            ("records = 400\nweight = 2", "records = 400"),
            ("count = 2", "count = 3"),
            ("delta = 1e-05", "delta = 1e-06"),
            ("local_steps = 3", "local_steps = 1"),
            ('kind = "mlp"', 'kind = "custom"\nvalues = 20'),
            *self.lines,
        ):
            assert text.count(line) == 1, line
            text = text.replace(line, by)
        self.plan = Plan(text.encode())
        self.descent = Descent(self.plan)

    def reserve(self, name: str, place: tuple[int, int]) -> Reservation:
        return self.charge(name, self.run_id, place, self.plan.release)

    def charge(
        self, name: str, run_id: bytes, place: tuple[int, int], event: Event
    ) -> Reservation:
        privacy = self.plan.privacy
        return self.ledgers[name].reserve(
            self.plan.lineage,
            run_id=run_id,
            round_index=place[0],
            attempt=place[1],
            event=event,
            unit=privacy.unit,
            adjacency=privacy.adjacency,
            delta=privacy.delta,
            limit=privacy.epsilon,
            view=self.plan.view,
            now=self.now(),
        )

    def words(self, session: AnySession, name: str) -> Any:
        return self.plan.encoding.wrap(units(self.plan, name, session.round_index))

    def open(self, place: tuple[int, int], session: Session, *rest: Any) -> None:
        self.close_distributed(place, session, *rest)
        self.keep(place, session)

    def close_distributed(
        self,
        place: tuple[int, int],
        session: Session,
        survivors: Sequence[str],
        words: Any,
        reservations: Mapping[str, Reservation],
    ) -> None:
        """No word counts what was clipped, and the sum moves the model by a rule of
        its own."""
        before = self.model
        self.model = self.descent.move(
            before, words, round_index=place[0], survivors=survivors
        )
        entry = self.transcript.append(
            "round",
            {
                0: place[0],
                1: place[1],
                2: session.ctx,
                3: list(survivors),
                4: len(survivors),
                5: hashlib.sha256(words.tobytes()).digest(),
                6: 0,
                7: before.digest(),
                8: self.model.digest(),
            },
        )
        for name in survivors:
            self.ledgers[name].released(reservations[name], now=self.now())
        self.sign(entry, survivors)

    def rounds(self) -> None:
        ledger = self.ledgers["bank-a"]
        for place, event in enumerate(self.earlier):
            run_id = bytes(15) + b"\x07"
            reservation = self.charge("bank-a", run_id, (place, 0), event)
            ledger.sent(reservation, ctx=bytes(31) + bytes([place]), now=self.now())
        with self.noting():
            self.masked_attempt((0, 0))
            self.masked_attempt((1, 0), upload_fails=["bank-c"], absent=["bank-d"])
            self.messages = []  # of an attempt that failed nothing is kept
            self.masked_attempt((2, 0), absent=["bank-d"])


OF_RECORDS: Lines = (
    ("sampling_rate = 1.0", "sampling_rate = 0.25"),
    ("noise_multiplier = 6.0", "noise_multiplier = 1.0"),
    (
        "[run]",
        '[training]\nway = "head"\nlearning_rate = 0.5\nmomentum = 0.5\n'
        'schedule = "linear"\n\n[run]',
    ),
)
OF_CLIENTS: Lines = (
    ('unit = "record"', 'unit = "client"\nnoise = "discrete-gaussian"'),
)
