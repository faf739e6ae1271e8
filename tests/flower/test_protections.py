# SPDX-License-Identifier: Apache-2.0
"""Every protection over a real SuperLink: a key holder with a node of its own, sums
that alone are private, and members that train early."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

from .apart import APP, HOLDER, HOLDERS_APP, OWN_APP, Consortium
from .deployment import Deployment, deployment

BANKS = ("bank-0", "bank-1", "bank-2")
ROUNDS = 2
CASES: dict[str, dict[str, Any]] = {
    "one-time": {"protection": "one-time"},
    "key holder": {"protection": "keyholder"},
    "distributed": {"mode": "distributed"},
    "distributed one-time": {"mode": "distributed", "protection": "one-time"},
    "early": {"early": True},
}
# What ``watched`` calls the message in which a member is asked for its vector: with a
# key holder it is the first one, and not the second.
WHEN_DUE = {False: "vectors", True: "shares"}


@pytest.fixture(scope="module")
def banks(tmp_path_factory: pytest.TempPathFactory) -> Consortium:
    return Consortium(tmp_path_factory.mktemp("protections") / "banks", BANKS)


@pytest.fixture(scope="module")
def it(banks: Consortium) -> Iterator[Deployment]:
    with deployment(
        banks.folder.parent / "deployment",
        {name: banks.node_config(name) for name in (*BANKS, HOLDER)},
        settings={"PYTHONPATH": str(APP)},
        own_apps={**dict.fromkeys(BANKS, OWN_APP), HOLDER: HOLDERS_APP},
    ) as running:
        yield running


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_a_run(
    it: Deployment,
    banks: Consortium,
    case: str,
    record_property: Callable[[str, object], None],
) -> None:
    agreed = banks.plan(case.replace(" ", "-"), rounds=ROUNDS, **CASES[case])
    ended = it.run(APP, agreed.config, timeout=400)
    assert ended.completed, ended.log
    banks.check_run(agreed)
    banks.check_ledgers(agreed)
    assert agreed.survivors == {index: list(BANKS) for index in range(ROUNDS)}
    # Once in each round; early is while keys are made, and not when vectors are due.
    early = agreed.plan.rounds.train_early
    when = "keys" if early else WHEN_DUE[agreed.plan.has_keyholder]
    for name in BANKS:
        assert banks.places(agreed, name) == [f"{i} {when}" for i in range(ROUNDS)]
    if agreed.plan.has_keyholder:  # a greeting, a call and a request
        said = it.nodes[HOLDER].said()
        mine = f"run {ended.run_id}: a 'train' message was answered"
        assert said.count(mine) == 1 + 2 * ROUNDS
    # How long it took, for who asks: --junit-xml FILE -o junit_family=xunit1.
    metrics = json.loads((agreed.out / "metrics.json").read_bytes())
    record_property("seconds", ended.seconds)
    for row in metrics["costs"]["steps"]:
        record_property(row["step"], row["seconds"])
