# SPDX-License-Identifier: Apache-2.0
"""A member's ledger outlives a run, and its limit holds within and across runs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

import secure_fl as sfl
from secure_fl.errors import BudgetExceeded, EngineError

from ..engines import distributed
from ..engines.support import NAMES, plan, plan_text
from .engines import Engine, Fit
from .known import known, verified


def watched(called: list[str]) -> dict[str, Fit]:
    """Clients that note when they are asked to train."""

    def noting(fit: Fit) -> Fit:
        def train(r: sfl.ClientRound) -> sfl.PrivateUpdate:
            called.append(r.client)
            return fit(r)

        return train

    return {name: noting(fit) for name, fit in known().items()}


@pytest.mark.parametrize(
    "make", [plan, pytest.param(distributed.plan, marks=pytest.mark.long)]
)
def test_a_budget_holds_across_runs(
    engine: Engine, make: Callable[[], sfl.Plan]
) -> None:
    engine.start(make(), known())
    before = {name: engine.releases(name) for name in NAMES}
    called: list[str] = []
    with pytest.raises(BudgetExceeded) as refused:
        engine.start(make(), watched(called))
    assert refused.value.spent > 0
    assert refused.value.projected > refused.value.limit
    assert called == []
    assert {name: engine.releases(name) for name in NAMES} == before
    assert not engine.out.exists()


def test_what_was_opened_outlives_a_spent_budget(engine: Engine) -> None:
    """All four are needed; one fails twice, charged, and nothing is to spare.

    Four releases are within the limit, and a fifth is not.
    """
    failed: set[int] = set()

    def twice(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        update = fit(r)
        if r.round in {0, 1} - failed:
            failed.add(r.round)
            raise EngineError("the file server is down")
        return update

    clients = known()
    fit = clients[NAMES[0]]
    text = plan_text(rounds=4, spare=0, epsilon=6.6)
    strict = text.replace("members = [", "min_clients = 4\nmembers = [")
    finished = engine.start(sfl.Plan(strict.encode()), {**clients, NAMES[0]: twice})
    report = finished.report
    assert list(finished.survivors) == [0, 1]
    assert report["skipped_rounds"] == [2, 3]
    assert [f["round"] for f in report["failures"]] == [0, 1, 2, 2, 3]
    assert report["failures"][-1]["reason"].startswith("not begun: ")
    # Nobody is charged for a round that was not begun.  The others lost an update in
    # each failed attempt where theirs had left by then.
    charged = [sum(c for _, c in finished.charges(name)) for name in NAMES]
    assert charged == [4, *[2 if engine.near else 4] * 3]
    limit = finished.claim["limit"]
    assert 0.9 * limit < finished.claim["consortium"]["epsilon"] <= limit
    verified(finished, second=engine.near)  # a folder is alike, whoever made it
