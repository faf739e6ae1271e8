# SPDX-License-Identifier: Apache-2.0
"""A plan whose sum alone is private, from ``plan check`` to ``run``."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from secure_fl.plan import load_plan

from .support import MEMBERS, call, plan_text, snapshot

OF_RECORDS = (
    ('mode = "local"', 'mode = "distributed"'),
    ("noise_multiplier = 2.0\n", ""),
    ("local_steps = 3", "local_steps = 1"),
)
OF_CLIENTS = (
    *OF_RECORDS[:2],
    ('unit = "record"', 'unit = "client"'),
    ("sampling_rate = 0.5", "sampling_rate = 1.0"),
)


def write(desk: Path, changes: tuple[tuple[str, str], ...], *, rounds: int = 2) -> Path:
    source = plan_text(rounds=rounds)
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    path = desk / "shared.toml"
    path.write_text(source)
    return path


def test_plan_check_tells_both_views(desk: Path) -> None:
    write(desk, OF_RECORDS)
    facts = call("plan", "check", "shared.toml", "--json").json
    draft = load_plan(desk / "shared.toml")
    plan = draft.with_values(30)
    assert facts["plan_hash"] == draft.hash.hex(), "that of the file, not of ours"
    assert facts["model_values"] == 30
    assert facts["claim"] == "record, add-or-remove-one, distributed"
    assert (facts["noise"], facts["noise_shares"]) == ("skellam", 2)
    assert facts["step"] == plan.grid.step
    assert facts["epsilon_projected"] == pytest.approx(plan.projected_epsilon(), 1e-3)
    assert facts["epsilon_limit"] == 8.0
    assert facts["epsilon_if_all_others_collude"] > facts["epsilon_projected"]
    assert facts["bytes_per_client_and_round"] == 4 * 32
    shown = call("plan", "check", "shared.toml").out
    assert "every member is needed" in shown
    assert not call("plan", "check", "plan.toml").out.count("collude")


def test_plan_check_wants_the_models_size(desk: Path) -> None:
    path = write(desk, OF_RECORDS)
    source = path.read_text().partition("[data]")[0]
    path.write_text(source.replace('kind = "mlp"\nhidden = [4]', 'kind = "custom"'))
    answer = call("plan", "check", "shared.toml")
    assert answer.code == 2
    assert answer.errors == ["secure-fl: error: model.values: is missing"]
    path.write_text(
        source.replace('kind = "mlp"\nhidden = [4]', 'kind = "custom"\nvalues = 30')
    )
    assert call("plan", "check", "shared.toml", "--json").json["model_values"] == 30


def test_run_beside_its_comparisons(desk: Path) -> None:
    write(desk, OF_RECORDS, rounds=4)
    answer = call("run", "shared.toml", "--out", "out", "--baselines")
    assert (answer.code, answer.err) == (0, "")
    for label in (
        "together, private",
        "one member alone, private",
        "pooled, private",
        "pooled, not private",
    ):
        assert label in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80
    metrics = json.loads((desk / "out" / "metrics.json").read_text())
    baselines = metrics["baselines"]
    assert set(baselines["each_member_alone"]) == set(MEMBERS)
    for figures in (baselines["pooled_private"], baselines["one_member_alone"]):
        assert 0 <= figures["accuracy"] <= 1
    completed = load_plan(desk / "out" / "plan.toml")
    assert (completed.values, completed.complete) == (30, True)
    assert call("verify", "out", "--plan", "shared.toml").code == 0


def test_comparisons_that_cannot_be_had_cost_nothing(desk: Path) -> None:
    """80 records a bank are few enough for this delta, 240 in one place are not."""
    delta = ("delta = 1e-5", "delta = 0.01")
    write(desk, (*OF_RECORDS, delta))
    before = snapshot(desk)
    answer = call("run", "shared.toml", "--out", "out", "--home", "home", "--baselines")
    assert (answer.code, answer.out) == (2, "")
    assert answer.errors == [
        "secure-fl: error: --baselines cannot train on 240 records in one place: "
        "privacy.delta: 0.01 times 240 records is above 1: publishing a record "
        "outright would satisfy it"
    ]
    assert answer.hints == [
        "secure-fl: hint: choose one well below 0.004, or leave --baselines out"
    ]
    assert snapshot(desk) == before, "no folder, no ledger"
    alone = call("run", "shared.toml", "--out", "out", "--home", "home")
    assert alone.code == 0, "without them the plan is a good one"


def test_run_of_whole_clients(desk: Path) -> None:
    """There is nothing private that one client alone could be compared with."""
    write(desk, OF_CLIENTS)
    answer = call("run", "shared.toml", "--out", "out", "--baselines")
    assert (answer.code, answer.err) == (0, "")
    assert "pooled, not private" in answer.out
    assert "alone" not in answer.out
    assert "for all that one member sent" in answer.out
    assert call("verify", "out").code == 0
