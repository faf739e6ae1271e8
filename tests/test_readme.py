# SPDX-License-Identifier: Apache-2.0
"""The README is run as it stands: its Python, its plan, its commands' help."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tomli_w
import torch

import secure_fl
from secure_fl.cli.main import main

README = Path(__file__).resolve().parents[1] / "README.md"
TEXT = README.read_text(encoding="utf-8")


def blocks(language: str) -> list[tuple[int, str]]:
    """Every fenced block of ``language``: the line it starts on, and its text."""
    fenced = re.compile(rf"^```{language}\n(.*?)^```$", re.MULTILINE | re.DOTALL)
    return [(TEXT[: m.start(1)].count("\n"), m[1]) for m in fenced.finditer(TEXT)]


def helped(*verb: str, capsys: pytest.CaptureFixture[str]) -> str:
    assert main([*verb, "--help"]) == 0
    return capsys.readouterr().out


def test_the_library(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    torch.set_num_threads(1)
    monkeypatch.chdir(tmp_path)
    (_, plan), (_, together) = blocks("toml")
    Path("plan.toml").write_text(plan)
    python = blocks("python")
    assert len(python) == 4
    names: dict[str, Any] = {"__name__": "readme"}
    for line, source in python:
        # Shifted, so that a traceback shows the README's own line.
        exec(compile("\n" * line + source, README, "exec"), names)

    exact = names["a"] + names["b"] + names["c"]
    np.testing.assert_allclose(names["total"], exact, rtol=0, atol=1e-6)

    printed = capsys.readouterr().out.splitlines()
    assert 0 < float(printed[0]) <= 3.0
    assert printed[1] in ("tensor([0])", "tensor([1])")

    verified = secure_fl.verify_run(tmp_path / "out", plan_path=Path("plan.toml"))
    assert set(verified.epsilon) == {"bank-a", "bank-b", "bank-c"}
    assert max(verified.epsilon.values()) == pytest.approx(float(printed[0]), rel=1e-4)

    plans = {**tomllib.loads(plan), **tomllib.loads(together)}
    Path("together.toml").write_text(tomli_w.dumps(plans))
    run = secure_fl.run(
        "together.toml",
        clients=dict.fromkeys(("bank-a", "bank-b", "bank-c"), names["fit_together"]),
    )
    sums, share = (c["consortium"]["epsilon"] for c in run.report.claims)
    assert 0 < sums <= 3.0 < share


def test_the_help(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = helped(capsys=capsys) + "\n" + helped("run", capsys=capsys)
    shown = re.match(
        r"\n+```text\n(.*?)^```$",
        TEXT.partition("\n## Command line\n")[2],
        re.MULTILINE | re.DOTALL,
    )
    assert shown is not None
    assert shown[1] == text, f"paste this into README.md, Command line:\n\n{text}"


def test_the_files_that_it_names_exist() -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", TEXT):
        assert (README.parent / target).exists(), target
