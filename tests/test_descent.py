# SPDX-License-Identifier: Apache-2.0
"""From an opened sum to the next model, against arithmetic written out by hand."""

from __future__ import annotations

import hashlib

import cbor2
import numpy as np
import pytest
from numpy.typing import NDArray

from secure_fl.descent import Descent, read_sum
from secure_fl.errors import UsageError
from secure_fl.fixedpoint import Encoding, Word
from secure_fl.identity import key_to_text
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan

from .consortium import identities
from .engines.distributed import text
from .engines.support import plan_text

SIZE = 82
NAMES = ("bank-0", "bank-1", "bank-2", "bank-3")
RECORDS = {"bank-0": 40, "bank-1": 50, "bank-2": 60, "bank-3": 70}


def completed(source: str) -> Plan:
    """``source`` for four banks of unequal size, and a model of 82 values."""
    for old, name in zip(
        ("clinic-a", "clinic-b", "clinic-c", "clinic-d"), NAMES, strict=True
    ):
        source = source.replace(
            f'"{old}", records = 40', f'"{name}", records = {RECORDS[name]}'
        )
    members = identities(4)
    return (
        Plan(source.encode())
        .with_values(SIZE)
        .completed(
            keys={m.name: key_to_text(m.public_key) for m in members},
            aggregator=key_to_text(identities(5)[4].public_key),
            keyholder=None,
            run_id=b"r" * 16,
            start_sha256=None,
        )
    )


def model(seed: int = 0) -> GlobalModel:
    draws = np.random.default_rng(seed)
    return GlobalModel(
        {
            "b": draws.normal(size=2).astype(np.float32),
            "w": draws.normal(size=(2, 40)).astype(np.float32),
        }
    )


def units_of(plan: Plan, seed: int) -> NDArray[np.int64]:
    return np.random.default_rng(seed).integers(-(2**30), 2**30, plan.length(SIZE))


def words_of(plan: Plan, seed: int) -> NDArray[Word]:
    return plan.encoding.wrap(units_of(plan, seed))


def rotated_back(plan: Plan, units: NDArray[np.int64], round_index: int) -> list[float]:
    """One value after the other, as SPEC report 3.9 says it."""
    out = [float(v) * plan.grid.step for v in units]
    half = 1
    while half < len(out):
        for i in range(len(out)):
            if not i & half:
                out[i], out[i + half] = out[i] + out[i + half], out[i] - out[i + half]
        half *= 2
    factor = (1 / len(out)) ** 0.5
    key = cbor2.dumps(
        ["secure-fl/rotation/1", plan.hash, plan.run_id, round_index], canonical=True
    )
    signs = hashlib.shake_256(key).digest(len(out) // 8)
    turned = [
        v * factor * (-1 if signs[i // 8] >> (i % 8) & 1 else 1)
        for i, v in enumerate(out)
    ]
    return turned[:SIZE]


@pytest.mark.parametrize("schedule", ["constant", "linear"])
def test_the_steps_of_the_aggregator(schedule: str) -> None:
    """Momentum over three rounds, of which one is skipped and one lacks a member."""
    extra = f'learning_rate = 0.5\nmomentum = 0.9\nschedule = "{schedule}"'
    source = text(rounds=4, extra=extra)
    plan = completed(source.replace("sampling_rate = 1.0", "sampling_rate = 0.25"))
    moved, descent = model(), Descent(plan)
    by_hand = [float(v) for v in moved.flatten()]
    velocity = [0.0] * SIZE
    rounds = {0: NAMES, 1: NAMES[1:], 3: NAMES}
    for index, survivors in rounds.items():
        words = words_of(plan, index)
        before = words.copy()
        moved = descent.move(moved, words, round_index=index, survivors=survivors)
        assert (words == before).all()
        total = rotated_back(plan, units_of(plan, index), index)
        expected = 0.25 * sum(RECORDS[n] for n in survivors)
        rate = 0.5 if schedule == "constant" else 0.5 * (4 - index) / 4
        for i in range(SIZE):
            velocity[i] = 0.9 * velocity[i] + total[i] / expected
            by_hand[i] = float(np.float32(by_hand[i] - rate * velocity[i]))
        assert moved.flatten().tolist() == by_hand
        assert descent.velocity.tolist() == velocity


def test_one_goes_on_from_the_velocity_of_another() -> None:
    plan = completed(text(rounds=4, extra="momentum = 0.9"))
    whole, first = Descent(plan), Descent(plan)
    straight = again = model()
    for index in range(4):
        if index == 2:
            first = Descent(plan, first.velocity)
        words = words_of(plan, index)
        straight = whole.move(straight, words, round_index=index, survivors=NAMES)
        again = first.move(again, words, round_index=index, survivors=NAMES)
    assert straight.digest() == again.digest()


def test_the_mean_of_whole_updates() -> None:
    plan = completed(text(unit="client"))
    descent = Descent(plan)
    assert descent.velocity.size == 0
    moved = descent.move(model(), words_of(plan, 1), round_index=1, survivors=NAMES[:3])
    total = rotated_back(plan, units_of(plan, 1), 1)
    old = model().flatten().tolist()
    by_hand = [float(np.float32(o + t / 3)) for o, t in zip(old, total, strict=True)]
    assert moved.flatten().tolist() == by_hand


def test_the_weighted_mean_of_local_updates() -> None:
    plan = completed(
        plan_text().replace("records = 40 }", "records = 40, weight = 3 }", 1)
    )
    weight = plan.member("bank-0").weight
    words = words_of(plan, 2)
    moved = Descent(plan).move(model(), words, round_index=0, survivors=NAMES[:3])
    total = plan.encoding.decode(words[:-1])
    expected = model().add(total / (weight + 2))
    assert weight == 3
    assert moved.digest() == expected.digest()


def test_a_model_that_would_not_be_finite_moves_nothing() -> None:
    plan = completed(text(extra="learning_rate = 1e300"))
    descent = Descent(plan)
    with np.errstate(all="ignore"), pytest.raises(UsageError, match="not finite"):
        descent.move(model(), words_of(plan, 0), round_index=0, survivors=NAMES)
    assert not descent.velocity.any()


def test_what_an_opened_sum_says() -> None:
    encoding = Encoding(1.0, 0.25, 8, 3)
    words = encoding.wrap(np.array([4, -3, 5]))
    total, clipped = read_sum(encoding, words, clients=3, counted=True)
    assert (total.tolist(), clipped) == ([1.0, -0.75], 5)
    total, clipped = read_sum(encoding, words, clients=3, counted=False)
    assert (total.tolist(), clipped) == ([1.0, -0.75, 1.25], 0)
    for counter, shown in ((-7, 0), (100, 6)):  # a liar's counter is only ever shown
        words = encoding.wrap(np.array([0, 0, counter]))
        assert read_sum(encoding, words, clients=3, counted=True)[1] == shown
