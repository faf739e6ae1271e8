# SPDX-License-Identifier: Apache-2.0
"""Four hospitals from their files as they are: a plan and no code."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from secure_fl import load_plan
from secure_fl.cli.main import main
from secure_fl.training import load_tabular

from ..data import data_folder

PLAN = Path(__file__).resolve().parents[2] / "examples" / "heart_disease" / "plan.toml"


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SECURE_FL_HOME", raising=False)


def test_the_plan_is_checked_without_its_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["plan", "check", str(PLAN), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["epsilon_projected"] <= facts["epsilon_limit"] == 1.0


def test_every_hospital_is_read_as_its_file_is() -> None:
    plan = load_plan(PLAN)
    assert plan.data is not None
    shares = {m.name: m.records for m in plan.parties.members}
    splits = load_tabular(
        plan.data,
        names=plan.names,
        shares=shares,
        folder=data_folder("heart_disease"),
    )
    rows = {n: len(s.train_y) + len(s.test_y) for n, s in splits.items()}
    assert rows == {
        "cleveland": 303,
        "budapest": 294,
        "switzerland": 123,
        "long-beach": 200,
    }
    ill = {n: int(s.train_y.sum() + s.test_y.sum()) for n, s in splits.items()}
    assert ill == {
        "cleveland": 139,
        "budapest": 106,
        "switzerland": 115,
        "long-beach": 149,
    }
    # Basel and Zurich measured no cholesterol, and wrote 0: that is missing, not low.
    chol = 7  # after age, sex, four kinds of chest pain, and blood pressure
    assert not splits["switzerland"].train_x[:, chol].any()
    assert (splits["cleveland"].train_x[:, chol] != 0).mean() > 0.95


def test_together_at_epsilon_one(capsys: pytest.CaptureFixture[str]) -> None:
    data = data_folder("heart_disease")
    args = ["run", str(PLAN), "--data", str(data), "--baselines", "--json"]
    assert main([*args, "--out", "out"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["claims"][0]["consortium"]["epsilon"] <= 1.0
    together = told["metrics"]["final"]
    baselines = told["metrics"]["baselines"]
    # Simulated 300 times: 0.870 to 0.892 together, 0.63 to 0.86 alone.
    assert together["auc"] > 0.86
    assert together["auc"] > baselines["one_member_alone"]["auc"]
    assert main(["verify", "out", "--plan", str(PLAN)]) == 0
