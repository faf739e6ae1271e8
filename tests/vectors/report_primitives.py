# SPDX-License-Identifier: Apache-2.0
"""What ``primitives.json`` of protocols/report/vectors/1 holds.

Rotations, grids and epsilons of sums, for an implementation to start with: a folder
that does not verify does not say which of them is wrong.
"""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from secure_fl import wire
from secure_fl.privacy import (
    Gaussian,
    NonPrivate,
    PoissonGaussian,
    accounting,
    delta_at,
    seen,
)
from secure_fl.privacy.events import (
    DiscreteGaussian,
    Event,
    Skellam,
    float_to_text,
    to_wire,
)
from secure_fl.privacy.grid import Grid, noise_bound
from secure_fl.privacy.groups import group_epsilon
from secure_fl.rotation import block, rotate, rotate_back

NAME = "primitives.json"
SPEC = "protocols/report/SPEC.md, version 1"
DESCRIPTION = {
    "numbers": (
        "Reals are decimal text of a binary64 number; `infinity` where there is none."
    ),
    "rotations": (
        "SPEC 3.9. Of `values` values, value i is ((37 i) mod 101 - 50) / 16. `key` is "
        "the CBOR that SHAKE-256 takes, `signs` its first bytes, at most 16. `rotated` "
        "has all words; `back` is `rotated` rotated back. Both are exact: `numbers` "
        "where there are at most 16, and `sha256` of all numbers, each as 8 bytes, "
        "little-endian, with 0.0 for -0.0."
    ),
    "grids": (
        "SPEC 3.8. `plan` has the entries that matter, without their tables; `members` "
        "is their number. `expect` is exact, but `noise`, which may differ by one, and "
        "`clip` where the plan has none, which may differ by one step. Plans with "
        "`refused`, which says why, are refused as V-PLAN-3."
    ),
    "epsilons": (
        "FIELDS 5.6, 5.7 and 4.5. `events` are rows of count and event in the form of "
        "SPEC 5.2, with field numbers as keys. `view` is how many collude, null for "
        "everybody else. Rows of `epsilon` are view, delta, epsilon; of `delta` view, "
        "epsilon, delta; of `group` view, delta, k, epsilon. Figures have 9 digits; "
        "agree within 1e-6 of the larger."
    ),
}

Json = dict[str, Any]
Vector = NDArray[np.float64]


# -- rotations -------------------------------------------------------------------------

PLACES = ((1, 0), (3, 1), (20, 7), (4096 + 5, 2))  # values, round


def recipe(values: int) -> Vector:
    return ((37 * np.arange(values)) % 101 - 50) / 16.0


def written(vector: Vector) -> Json:
    numbers = vector + 0.0  # no -0.0
    out: Json = {"sha256": hashlib.sha256(numbers.astype("<f8").tobytes()).hexdigest()}
    if vector.size <= 16:
        out["numbers"] = [float_to_text(x) for x in numbers]
    return out


def rotation(values: int, place: int) -> Json:
    plan_hash, run_id = bytes(range(32)), bytes(range(100, 116))
    key = wire.encode(["secure-fl/rotation/1", plan_hash, run_id, place])
    rotated = rotate(recipe(values), key)
    size = min(16, -(-rotated.size // 8))
    return {
        "values": values,
        "plan_hash": plan_hash.hex(),
        "run_id": run_id.hex(),
        "round": place,
        "key": key.hex(),
        "signs": hashlib.shake_256(key).digest(size).hex(),
        "words": rotated.size,
        "rotated": written(rotated),
        "back": written(rotate_back(rotated, key, values=values)),
    }


# -- grids -----------------------------------------------------------------------------

# Of the first plan, which the others change.
PLAN: Json = {
    "values": 20,
    "unit": "record",
    "noise": "skellam",
    "sampling_rate": "0.25",
    "clip_norm": "0.5",
    "noise_multiplier": "1.0",
    "members": 4,
    "max_colluding": 1,
    "min_clients": 3,
    "count": 3,
    "max_attempts": 2,
    "word_bits": 32,
}
CLIENTS: Json = {"unit": "client", "sampling_rate": "1.0"}
EXACT: Json = {"noise": "discrete-gaussian"}
LARGER: Json = {
    **EXACT,
    "values": 1000,
    "members": 9,
    "max_colluding": 2,
    "min_clients": 6,
}
COARSER: Json = {**LARGER, "step": "1.52587890625e-05"}
GRIDS: list[Json] = [
    {},
    {
        "values": 29645,
        "clip_norm": "1.0",
        "noise_multiplier": "4.2",
        "members": 5,
        "min_clients": 4,
    },
    {
        **CLIENTS,
        "values": 4101,
        "clip_norm": "3.3",
        "step": "0.0001",
        "clip": "3.3",
        "word_bits": 40,
    },
    LARGER,  # words have room for fewer than 2^18 steps to a clip norm
    {**LARGER, "members": 60},  # and here for fewer than the rounding asks for
    {**COARSER, "clip": "3640.170623779297"},  # the most that fits, or nearly
    {**CLIENTS, **EXACT, "values": 131072, "word_bits": 64},
    {"values": 1, "clip_norm": "0.3", "word_bits": 24, "count": 100000},
    {"word_bits": 64},  # more than binary64 has whole numbers for
    {**EXACT, "step": "0.0008", "noise_multiplier": "0.0016"},
]
REFUSED: list[tuple[str, Json]] = [
    ("sqrt(D) * step is above C / 100", {"step": "0.0009"}),
    ("clip is below C", {"clip": "0.4999"}),
    ("a sum may wrap", {"clip": "33000.0"}),
    ("a sum may wrap by a step", {**COARSER, "clip": "3640.170639038086"}),
    ("no room beside the noise", {"word_bits": 16}),
    (
        "the largest clip beside the noise is below C",
        {"word_bits": 18, "noise_multiplier": "1.1"},
    ),
    ("V is above 2^54", {"noise_multiplier": "30000.0", "word_bits": 64}),
    ("C / step is not finite", {"clip_norm": "1e+200", "step": "1e-200"}),
    ("C leaves no step", {"clip_norm": "1e-300"}),
    ("V is below 0.25", {**EXACT, "step": "0.0008", "noise_multiplier": "0.001"}),
    ("D is above 2^17", {**EXACT, "values": 131073}),
    ("the event has a variance below 1e-50", {"noise_multiplier": "1e-31"}),
]


def grid_of(plan: Json) -> Grid:
    """Raises PlanError where the plan cannot be."""
    clip, step = plan.get("clip"), plan.get("step")
    return Grid.of(
        values=plan["values"],
        kind=plan["noise"],
        unit=plan["unit"],
        rate=float(plan["sampling_rate"]),
        clip_norm=float(plan["clip_norm"]),
        noise_multiplier=float(plan["noise_multiplier"]),
        shares=plan["min_clients"] - plan["max_colluding"],
        colluding=plan["max_colluding"],
        clients=plan["members"],
        word_bits=plan["word_bits"],
        clip=None if clip is None else float(clip),
        step=None if step is None else float(step),
        rounds=plan["count"],
        attempts=plan["max_attempts"],
    )


def bound_of(plan: Json, grid: Grid) -> int:
    """What the noise of all members stays within, in steps."""
    sums = plan["count"] * plan["max_attempts"]
    return noise_bound(grid.padded * sums, plan["members"] * grid.variance)


def grids() -> list[Json]:
    out: list[Json] = []
    for changes in GRIDS:
        plan = {**PLAN, **changes}
        grid = grid_of(plan)
        expect: Json = {
            "block": block(grid.values),
            "words": grid.padded,
            "shares": grid.shares,
            "step": float_to_text(grid.step),
            "clip": float_to_text(grid.clip),
            "variance": float_to_text(grid.variance),
            "noise": bound_of(plan, grid),
            "l2": float_to_text(grid.event.l2),
        }
        out.append({"plan": plan, "expect": expect})
    return out + [{"plan": {**PLAN, **c}, "refused": why} for why, c in REFUSED]


# -- epsilons --------------------------------------------------------------------------

Releases = Sequence[tuple[int, Event]]
OF_RECORDS = Skellam(0.25, 33554432.0, 2, 1, 8197.66504624949, 32)
FINER = Skellam(0.25, 34359738368.0, 2, 1, 262149.91908624949, 32)
ALWAYS = Skellam(1.0, 549755813888.0, 2, 1, 262149.91908624949, 32)
OF_CLIENTS = DiscreteGaussian(1.0, 34755.71250888118, 2, 1, 8192.508837615876, 32)
EPSILONS: list[tuple[str, Releases]] = [
    ("the known answer", [(100, Skellam(0.05, 100.0, 4, 1, 10.0, 16))]),
    ("sums of records", [(25, OF_RECORDS)]),
    ("on a finer grid", [(25, FINER)]),
    ("without sampling, beside Gaussian releases", [(25, ALWAYS), (2, Gaussian(12.0))]),
    (
        "sampled and not, beside others",
        [(5, FINER), (5, ALWAYS), (20, PoissonGaussian(0.05, 1.5))],
    ),
    (
        "a variance of 10000 is enough, and less is not",
        [(3, Skellam(0.25, 5000.0, 2, 1, 20.0, 1))],
    ),
    ("less than 10000", [(3, Skellam(0.25, 4999.0, 2, 1, 20.0, 1))]),
    ("sums of clients, exact", [(10, OF_CLIENTS)]),
    (
        "of several runs, which assumed unlike numbers to collude",
        [
            (8, Skellam(0.2, 450000.0, 3, 2, 1011.3, 128)),
            (3, Skellam(1.0, 9000000.0, 5, 0, 1011.3, 128)),
            (5, DiscreteGaussian(0.1, 900.0, 4, 1, 1011.3, 128)),
            (20, PoissonGaussian(0.05, 1.5)),
            (2, Gaussian(12.0)),
        ],
    ),
    (
        "few steps of noise: shares are not quite one discrete Gaussian",
        [(4, DiscreteGaussian(0.5, 0.75, 40, 3, 1.0, 8))],
    ),
    (
        "a share so small that the bound by L1 alone counts",
        [(3, Skellam(0.1, 2.0, 30, 1, 2.0, 4))],
    ),
    ("a rate that counts as 1e-6", [(7, Skellam(1e-9, 4.0, 2, 1, 3.0, 9))]),
    (
        "a rate that counts as 1, and one that just does not",
        [
            (1, Skellam(1 - 2.0**-40, 100.0, 2, 1, 3.0, 9)),
            (1, Skellam(0.999998, 100.0, 2, 1, 3.0, 9)),
        ],
    ),
    (
        "enough noise in the sum, and not in a share",
        [(1, Skellam(1.0, 50.0, 1000, 1, 300.0, 90000))],
    ),
    (
        "and one without noise",
        [(1, OF_RECORDS), (1, NonPrivate("a rehearsal"))],
    ),
]
VIEWS = (0, 1, 2, None)
DELTAS = (1e-3, 1e-6, 1e-10)
PLACES_OF_DELTA = (0.0, 0.5, 4.0)
GROUPS = (2, 5)


def figure(value: float) -> str:
    return "infinity" if math.isinf(value) else float_to_text(float(f"{value:.8e}"))


def as_seen(releases: Releases, view: int | None) -> list[Event]:
    return [seen(event, view) for count, event in releases for _ in range(count)]


def keyed(event: Event) -> Json:
    fields = to_wire(event)
    assert isinstance(fields, dict)
    return {str(key): value for key, value in fields.items()}


def epsilons(about: str, releases: Releases) -> Json:
    views = [(view, as_seen(releases, view)) for view in VIEWS]
    return {
        "about": about,
        "events": [[count, keyed(event)] for count, event in releases],
        "epsilon": [
            [view, float_to_text(d), figure(accounting.epsilon(es, delta=d).value)]
            for view, es in views
            for d in DELTAS
        ],
        "delta": [
            [view, float_to_text(e), figure(delta_at(es, epsilon=e))]
            for view, es in views
            for e in PLACES_OF_DELTA
        ],
        "group": [
            [view, "1e-06", k, figure(group_epsilon(es, records=k, delta=1e-6))]
            for view, es in views
            for k in GROUPS
        ],
    }


# -- the file --------------------------------------------------------------------------


def _lines(rows: Iterable[Json]) -> str:
    return ",".join(f"\n  {json.dumps(row, separators=(',', ':'))}" for row in rows)


def render() -> str:
    """The text of the file; a row a line."""
    head = json.dumps({"spec": SPEC, "description": DESCRIPTION}, indent=1)
    parts = {
        "rotations": [rotation(*row) for row in PLACES],
        "grids": grids(),
        "epsilons": [epsilons(*row) for row in EPSILONS],
    }
    inside = "".join(
        f',\n "{name}": [{_lines(rows)}\n ]' for name, rows in parts.items()
    )
    return head.removesuffix("\n}") + inside + "\n}\n"
