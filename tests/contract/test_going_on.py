# SPDX-License-Identifier: Apache-2.0
"""Runs that are cut off: each round is opened once, at one more charge at most."""

from __future__ import annotations

from typing import Any

import pytest

import secure_fl as sfl
from secure_fl.engines.rounds import Rounds

from ..engines import distributed
from ..engines.support import NAMES, plan
from .engines import Engine
from .known import known, model_of, verified

EVERYBODY = {index: list(NAMES) for index in range(2)}
MOMENTUM = 'momentum = 0.9\nschedule = "linear"'


def test_a_failing_score_loses_no_round(engine: Engine) -> None:
    """Figures are kept apart, and what JSON cannot say is left out."""

    def fails(model: sfl.GlobalModel) -> dict[str, float]:
        if not failed:
            failed.append(model.digest())
            raise ZeroDivisionError
        return {"size": float(model.size), "auc": float("nan")}

    failed: list[bytes] = []
    with pytest.raises(ZeroDivisionError):
        engine.start(plan(), known(), evaluate=fails)
    finished = engine.go_on()
    assert finished.survivors == EVERYBODY
    assert finished.attempts == [0, 0]
    for name in NAMES:
        assert finished.charges(name) == [("released", True)] * 2
    assert finished.metrics["final"] == {"round": 1, "size": 82.0}
    assert "size" not in str(finished.report["claims"])
    verified(finished)


@pytest.mark.parametrize(
    "asked",
    [
        pytest.param(plan(), marks=pytest.mark.long),
        distributed.plan(kind="ckks", keys="one-time", extra=MOMENTUM),
        pytest.param(distributed.plan(extra=MOMENTUM), marks=pytest.mark.long),
    ],
    ids=["local", "distributed one-time", "distributed"],
)
def test_a_sum_that_was_opened_and_lost(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, asked: sfl.Plan
) -> None:
    """The aggregator dies before it has kept what it opened; it asks once more."""
    finish = Rounds._finish_round

    def crash(self: Rounds, index: int, *rest: Any) -> Any:
        if index == 1:
            raise KeyboardInterrupt
        return finish(self, index, *rest)

    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "_finish_round", crash)
        with pytest.raises(KeyboardInterrupt):
            engine.start(asked, known())
    finished = engine.go_on()
    assert finished.survivors == EVERYBODY
    assert finished.attempts == [0, 1]
    assert finished.model.digest() == model_of(finished.plan, EVERYBODY)
    for name in NAMES:
        states = finished.charges(name)
        assert [s for s, _ in states].count("released") == 2
        assert len(states) <= 3
        assert all(charged for _, charged in states)
    verified(finished)
