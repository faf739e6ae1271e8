# SPDX-License-Identifier: Apache-2.0
"""The failing vectors of how an opened sum moves the model, by kept vectors.

The last model follows from a step that is not the plan's; log and report agree with it,
and all have signed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from tests.report.support import NAMES, Made

from .report_cases import MODEL
from .report_distributed import units
from .report_distributed_cases import CLIENT, RECORD, RUNS
from .report_forgery import TRANSCRIPT, Case, Files, Forgery, listed, set_field
from .report_parties import START
from .report_sum_cases import FIRST, in_rows, other_words, retold, told

Vector = NDArray[np.float64]
# Who is in the sum of round 0 and of round 2; round 1 is skipped.
PRESENT = {0: NAMES, 2: NAMES[:-1]}
RECORDS = {0: 1000, 2: 900}
SAMPLED = 0.25


@dataclass(frozen=True)
class Sums:
    """What the rounds opened: in grid steps, rotated."""

    plan: Plan
    units: Mapping[int, NDArray[np.int64]]

    @classmethod
    def of(cls, made: Made) -> Sums:
        rows = {
            place: np.sum([units(made.plan, name, place) for name in names], axis=0)
            for place, names in PRESENT.items()
        }
        return cls(made.plan, rows)

    def opened(self, place: int, *, rotation: int | None = None) -> Vector:
        """The sum of a round, turned back as that round, or another, asks for."""
        key = self.plan.rotation(place if rotation is None else rotation)
        return self.plan.grid.opened(self.units[place], rotation=key)

    def unturned(self, place: int) -> Vector:
        grid = self.plan.grid
        return self.units[place][: grid.values].astype(np.float64) * grid.step

    def gradient(self, place: int) -> Vector:
        return self.opened(place) / (SAMPLED * RECORDS[place])


# How far a round moves the model.  The plan of records: a learning rate and a momentum
# of one half; in the last of three rounds a third of the rate.
Step = Callable[[Sums], Vector]
LAST = 0.5 * 1 / 3


def descended(sums: Sums, last: Vector, *, rate: float = LAST) -> Vector:
    """The last step of the plan of records, after this gradient."""
    return -(rate * (0.5 * sums.gradient(0) + last))


STEPS: dict[str, tuple[Step, Step]] = {  # the right ones of both rounds
    RECORD: (
        lambda s: -(0.5 * s.gradient(0)),
        lambda s: descended(s, s.gradient(2)),
    ),
    CLIENT: (lambda s: s.opened(0) / 4, lambda s: s.opened(2) / 3),
}
OF_RECORDS: list[tuple[str, Step]] = [
    ("without momentum", lambda s: -(LAST * s.gradient(2))),
    ("with a momentum that damps", lambda s: descended(s, 0.5 * s.gradient(2))),
    (
        "with momentum of steps",
        lambda s: -(0.25 * s.gradient(0) + LAST * s.gradient(2)),
    ),
    (
        "with a velocity that the skipped round slowed",
        lambda s: -(LAST * (0.25 * s.gradient(0) + s.gradient(2))),
    ),
    ("at a constant rate", lambda s: descended(s, s.gradient(2), rate=0.5)),
    (
        "at the rate of the skipped round",
        lambda s: descended(s, s.gradient(2), rate=0.5 * 2 / 3),
    ),
    (
        "at a rate that fell too early",
        lambda s: descended(s, s.gradient(2), rate=0.0),
    ),
    ("uphill", lambda s: -descended(s, s.gradient(2))),
    (
        "by the records of all members",
        lambda s: descended(s, s.opened(2) / (SAMPLED * RECORDS[0])),
    ),
    (
        "by records and no sampling rate",
        lambda s: descended(s, s.opened(2) / RECORDS[2]),
    ),
    ("by the number of clients", lambda s: descended(s, s.opened(2) / 3)),
    (
        "turned back as round 0",
        lambda s: descended(s, s.opened(2, rotation=0) / (SAMPLED * RECORDS[2])),
    ),
    (
        "not turned back",
        lambda s: descended(s, s.unturned(2) / (SAMPLED * RECORDS[2])),
    ),
]
OF_CLIENTS: list[tuple[str, Step]] = [
    ("by the number of all members", lambda s: s.opened(2) / 4),
    ("by the records of clients", lambda s: s.opened(2) / RECORDS[2]),
    ("turned back as round 0", lambda s: s.opened(2, rotation=0) / 3),
    ("not turned back", lambda s: s.unturned(2) / 3),
    ("downhill", lambda s: -(s.opened(2) / 3)),
]


def stepped(run: str, step: Step) -> Forgery:
    """The last model moved by ``step``, which log and report agree with."""

    def forge(made: Made) -> Files:
        sums = Sums.of(made)
        first, last = STEPS[run]
        before = GlobalModel.from_bytes(made.files[START]).add(first(sums))
        good, bad = before.add(last(sums)), before.add(step(sums))
        assert good.to_bytes() == made.files[MODEL]
        return left(made, bad)

    return forge


def left(made: Made, model: GlobalModel) -> Files:
    """The folder where the last round has left ``model``."""
    assert model.to_bytes() != made.files[MODEL]
    files = {**made.files, MODEL: model.to_bytes()}
    return retold(made, files, set_field("round", 8, model.digest(), at=1))


def last_bit(made: Made) -> Files:
    """One value of the model is the next binary32 number."""
    model = GlobalModel.from_bytes(made.files[MODEL])
    arrays = {name: array.copy() for name, array in model.arrays.items()}
    weight = arrays["weight"]
    weight[0, 0] = np.nextafter(weight[0, 0], np.float32(np.inf))
    return left(made, GlobalModel(arrays))


def larger(made: Made) -> bytes:
    """A model of a value more, under the hash of the right one."""
    return GlobalModel({"weight": np.zeros((3, 7), np.float32)}).to_bytes()


def larger_and_signed(made: Made) -> Files:
    model = GlobalModel.from_bytes(larger(made))
    files = listed(MODEL, larger)(made)
    return retold(made, files, set_field("round", 8, model.digest(), at=1))


def cases() -> list[Case]:
    rows: list[tuple[str, str, str, str, Forgery]] = []
    for run, steps in ((RECORD, OF_RECORDS), (CLIENT, OF_CLIENTS)):
        for name, step in steps:
            forge = stepped(run, step)
            rows.append((run, f"moved {name}", "V-SUM-6", TRANSCRIPT, forge))
    for run in RUNS:
        other_sum = told(set_field("round", 5, bytes(32)))
        rows += [
            (run, "a last bit of the model", "V-SUM-6", TRANSCRIPT, last_bit),
            (run, "another sum", "V-SUM-6", TRANSCRIPT, other_sum),
            (run, "a word of a vector", "V-SUM-4", FIRST, in_rows(other_words)),
            (run, "a model of 21 values", "V-MODEL-2", MODEL, larger_and_signed),
        ]
    return [Case(*row) for row in rows]
