# SPDX-License-Identifier: Apache-2.0
"""The examples, run as the README says, with the figures that it promises."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from secure_fl.cli.main import main

from .data import data_folder

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


@pytest.fixture(autouse=True)
def _desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.delenv("SECURE_FL_HOME", raising=False)


def test_credit_default(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = data_folder("credit_default_taiwan")
    plan = EXAMPLES / "credit_default" / "plan.toml"
    args = ["run", str(plan), "--data", str(data), "--baselines", "--json"]
    assert main([*args, "--out", "out"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert 0 < told["claims"][0]["consortium"]["epsilon"] <= 1.0
    baselines = told["metrics"]["baselines"]
    together = told["metrics"]["final"]["auc"]
    alone = baselines["one_member_alone"]["auc"]
    pooled = baselines["pooled_non_private"]["auc"]
    figures = f"together {together:.4f}, alone {alone:.4f}, pooled {pooled:.4f}"
    assert together >= 0.75, figures
    assert together > alone - 0.005, figures
    assert together > pooled - 0.02, figures
    assert main(["verify", "out", "--plan", str(plan)]) == 0


def test_credit_default_is_checked_without_its_data(
    capsys: pytest.CaptureFixture[str],
) -> None:
    plan = EXAMPLES / "credit_default" / "plan.toml"
    assert main(["plan", "check", str(plan), "--json"]) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts["epsilon_projected"] <= facts["epsilon_limit"] == 1.0


def test_the_digits_demo(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("sklearn")
    ran = subprocess.run(
        [sys.executable, EXAMPLES / "digits" / "demo.py", "--seeds", "1"],
        capture_output=True,
        text=True,
        timeout=180,
    )
    assert ran.returncode == 0, ran.stderr
    assert ran.stderr == ""
    rows = {
        cells[0]: [float(m[0]) if (m := re.match(r"[\d.]+", c)) else None for c in rest]
        for line in ran.stdout.splitlines()
        if (cells := [c.strip() for c in line.strip("│").split("│")])
        and len(rest := cells[1:]) == 3
    }
    assert set(rows) == {
        "five banks together",
        "one bank alone",
        "random backbone",
        "raw pixels",
        "pooled, not private",
    }
    together, alone = rows["five banks together"], rows["one bank alone"]
    at_one, at_three, _ = together
    assert at_one is not None
    assert at_three is not None
    assert alone[0] is not None
    assert at_one > alone[0], ran.stdout
    assert at_one > 0.80, ran.stdout
    assert at_three > 0.85, ran.stdout
    assert main(["verify", "demo-out"]) == 0
    assert (tmp_path / "demo-out" / "report.html").is_file()
    assert "demo-out/report.html" in ran.stdout
    capsys.readouterr()
