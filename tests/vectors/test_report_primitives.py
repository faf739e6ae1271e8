# SPDX-License-Identifier: Apache-2.0
"""primitives.json of protocols/report/vectors/1, replayed by the package and by the
second verifier's own code."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cache
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from secure_fl.errors import PlanError
from secure_fl.privacy import accounting, delta_at, seen
from secure_fl.privacy.events import Event, from_wire
from secure_fl.privacy.groups import group_epsilon
from secure_fl.rotation import block, rotate, rotate_back

from . import report_primitives as primitives
from .report_generate import FOLDER
from .test_report_vectors import second_verifier

Json = dict[str, Any]
CLOSE = 1e-6


@cache
def content() -> Json:
    read: Json = json.loads((FOLDER / primitives.NAME).read_text(encoding="utf-8"))
    return read


@pytest.fixture(scope="module", autouse=True)
def second() -> ModuleType:
    """Loaded: its modules can be imported then."""
    return second_verifier()


def rows(part: str) -> list[Json]:
    found: list[Json] = content()[part]
    return found


def test_the_generator_writes_these_bytes() -> None:
    text = (FOLDER / primitives.NAME).read_text(encoding="utf-8")
    assert text == primitives.render()
    assert list(content()) == ["spec", "description", "rotations", "grids", "epsilons"]
    assert len(text) < 100_000


# -- rotations -------------------------------------------------------------------------


def check(vector: Any, expected: Json) -> None:
    """The very numbers, but for the sign of a zero."""
    data = (np.asarray(vector, np.float64) + 0.0).astype("<f8").tobytes()
    if "numbers" in expected:
        assert list(vector) == [float(x) for x in expected["numbers"]]
    assert hashlib.sha256(data).hexdigest() == expected["sha256"]


def vector_of(row: Json) -> list[float]:
    return [((37 * i) % 101 - 50) / 16 for i in range(row["values"])]


@pytest.mark.parametrize("row", rows("rotations"), ids=lambda r: str(r["values"]))
def test_the_package_rotates(row: Json) -> None:
    key = bytes.fromhex(row["key"])
    rotated = rotate(np.array(vector_of(row)), key)
    assert rotated.size == row["words"]
    check(rotated, row["rotated"])
    back = rotate_back(rotated, key, values=row["values"])
    check(back, row["back"])
    assert back == pytest.approx(vector_of(row))


@pytest.mark.parametrize("row", rows("rotations"), ids=lambda r: str(r["values"]))
def test_the_second_rotates(row: Json) -> None:
    import moving

    values, words = row["values"], row["words"]
    plan: Any = SimpleNamespace(
        hash=bytes.fromhex(row["plan_hash"]), run_id=bytes.fromhex(row["run_id"])
    )
    signs = moving.signs(plan, row["round"], words)
    first = int.from_bytes(bytes.fromhex(row["signs"]), "little")
    for i, sign in enumerate(signs[:128]):
        assert sign == (-1 if first >> i & 1 else 1)
    size = min(words, 4096)
    padded = np.array(vector_of(row) + [0.0] * (words - values))
    rotated = moving.butterflies(padded * signs, size)
    check(rotated, row["rotated"])
    check((moving.butterflies(rotated, size) * signs)[:values], row["back"])


# -- grids -----------------------------------------------------------------------------


def close_to_a_step(clip: float, row: Json) -> bool:
    if "clip" in row["plan"]:
        return clip == float(row["expect"]["clip"])
    step = float(row["expect"]["step"])
    return abs(clip - float(row["expect"]["clip"])) <= 1.5 * step


@pytest.mark.parametrize("row", rows("grids"), ids=lambda r: r.get("refused", ""))
def test_the_package_has_this_grid(row: Json) -> None:
    if "refused" in row:
        with pytest.raises(PlanError):
            primitives.grid_of(row["plan"])
        return
    expect, grid = row["expect"], primitives.grid_of(row["plan"])
    event = grid.event
    assert (grid.padded, grid.shares) == (expect["words"], expect["shares"])
    assert block(grid.values) == expect["block"]
    assert abs(primitives.bound_of(row["plan"], grid) - expect["noise"]) <= 1
    found = [grid.step, grid.variance, event.l2]
    assert found == [float(expect[key]) for key in ("step", "variance", "l2")]
    assert event.values == grid.padded
    assert close_to_a_step(grid.clip, row)


@pytest.mark.parametrize("row", rows("grids"), ids=lambda r: r.get("refused", ""))
def test_the_second_has_this_grid(row: Json) -> None:
    import canonical
    import grid as grids

    plan = row["plan"]
    terms = grids.Terms(
        values=plan["values"],
        by_client=plan["unit"] == "client",
        kind=plan["noise"],
        clip_norm=float(plan["clip_norm"]),
        noise=float(plan["noise_multiplier"]),
        rate=float(plan["sampling_rate"]),
        clients=plan["members"],
        shares=plan["min_clients"] - plan["max_colluding"],
        colluding=plan["max_colluding"],
        word_bits=plan["word_bits"],
        openings=plan["count"] * plan["max_attempts"],
        clip=float(plan["clip"]) if "clip" in plan else None,
        step=float(plan["step"]) if "step" in plan else None,
    )
    if "refused" in row:
        with pytest.raises(canonical.Malformed):
            grids.grid(terms)
        return
    expect, found = row["expect"], grids.grid(terms)
    release = found.release
    assert (found.words, release.shares) == (expect["words"], expect["shares"])
    assert found.block == expect["block"]
    bound = grids._noise_bound(terms, found.words, float(expect["variance"]))
    assert abs(bound - expect["noise"]) <= 1
    assert (found.step, release.l2) == (float(expect["step"]), float(expect["l2"]))
    variance = float(expect["variance"])
    scale = variance if release.kind == "skellam" else math.sqrt(variance)
    assert (release.scale, release.values) == (scale, found.words)
    assert close_to_a_step(found.clip, row)


# -- epsilons --------------------------------------------------------------------------


def close(found: float, expected: str) -> bool:
    if expected == "infinity":
        return math.isinf(found)
    return math.isclose(found, float(expected), rel_tol=CLOSE, abs_tol=0.0)


def forms(row: Json) -> list[Any]:
    """The events, each as often as it is counted, as a ledger has them."""
    return [
        {int(key): value for key, value in event.items()}
        for count, event in row["events"]
        for _ in range(count)
    ]


@pytest.mark.parametrize("row", rows("epsilons"), ids=lambda r: r["about"])
def test_the_package_has_these_epsilons(row: Json) -> None:
    read = [from_wire(form) for form in forms(row)]

    def events(view: int | None) -> list[Event]:
        return [seen(event, view) for event in read]

    for view, delta, expected in row["epsilon"]:
        found = accounting.epsilon(events(view), delta=float(delta))
        assert (found.value < found.rdp) == (found.accountant == "PLD")
        assert close(found.value, expected)
    for view, epsilon, expected in row["delta"]:
        found_delta = delta_at(events(view), epsilon=float(epsilon))
        assert close(found_delta, expected)
    for view, delta, k, expected in row["group"]:
        group = group_epsilon(events(view), records=k, delta=float(delta))
        assert close(group, expected)


@pytest.mark.parametrize("row", rows("epsilons"), ids=lambda r: r["about"])
def test_the_second_has_these_epsilons(row: Json) -> None:
    import costs as counting
    import events
    import figures

    read = [events.read_event(form) for form in forms(row)]

    def costs(view: int | None) -> Any:
        return counting.spent(event.seen(view) for event in read)

    for view, delta, expected in row["epsilon"]:
        assert close(figures.epsilon(costs(view), float(delta)), expected)
    for view, epsilon, expected in row["delta"]:
        found = costs(view)
        curve = 1.0
        if math.isfinite(figures.epsilon(found, 1e-6)):
            curve = figures._delta_of_sums(found)(float(epsilon))
        assert close(curve, expected)
    for view, delta, k, expected in row["group"]:
        assert close(figures.group(costs(view), float(delta), k), expected)
