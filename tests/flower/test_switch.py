# SPDX-License-Identifier: Apache-2.0
"""examples/flower_switch: an ordinary app, and what its two diffs change."""

from __future__ import annotations

import hashlib
import importlib
import json
import re
import shutil
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

from flwr.app import ArrayRecord, Context, MetricRecord, RecordDict

import secure_fl as sfl
from secure_fl.engines.flower.records import is_parcel
from secure_fl.model import GlobalModel

from .consortium import Banks, found
from .grid_in_process import RUN_ID, GridInProcess

EXAMPLE = Path(__file__).parents[2] / "examples" / "flower_switch"
HUNK = re.compile(r"@@ -(\d+),?\d* \+\d+,?\d* @@")


def apply(diff: str, folder: Path) -> None:
    """Apply a unified diff, each line of its context in its place."""
    for part in re.split(r"(?m)^--- .*\n", diff)[1:]:
        name, hunks = part.split("\n", 1)
        path = folder / name.removeprefix("+++ b/")
        old = path.read_text().splitlines(keepends=True)
        new, at = [], 0
        for line in hunks.splitlines(keepends=True):
            if match := HUNK.match(line):
                first = int(match[1]) - 1
                new += old[at:first]
                at = first
                continue
            if line[0] in " -":
                assert old[at] == line[1:], f"{path.name}, line {at + 1}"
                at += 1
            if line[0] in " +":
                new.append(line[1:])
        path.write_text("".join([*new, *old[at:]]))


def switched(folder: Path, diffs: Sequence[str]) -> Path:
    shutil.copytree(EXAMPLE / "app", folder)
    for name in diffs:
        apply((EXAMPLE / name).read_text(), folder)
    return folder


def run(
    folder: Path, app: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[Banks, GridInProcess]:
    """What ``flwr run`` does with the app in ``app``; ``folder`` holds all homes."""
    entries = tomllib.loads((app / "pyproject.toml").read_text())["tool"]["flwr"]["app"]
    monkeypatch.syspath_prepend(str(app))
    apps = {}
    for kind, reference in entries["components"].items():
        module, name = reference.split(":")
        apps[kind] = getattr(importlib.import_module(module), name)
    first = sys.modules["switch.task"].first_model().state_dict()
    for module in [m for m in sys.modules if m.split(".")[0] == "switch"]:
        del sys.modules[module]
    start = GlobalModel({name: values.numpy() for name, values in first.items()})
    banks = found(
        folder,
        (EXAMPLE / "plan.toml").read_text(),
        start_sha256=hashlib.sha256(start.to_bytes()).hexdigest(),
    )
    monkeypatch.setenv("SECURE_FL_HOME", str(banks.aggregator))
    grid = banks.grid(apps["clientapp"], config=entries["config"])
    apps["serverapp"](grid, Context(RUN_ID, 1, {}, RecordDict(), entries["config"]))
    return banks, grid


def claim_of(banks: Banks) -> Any:
    (out,) = (banks.aggregator / "results").iterdir()
    sfl.verify_run(out)
    text = (out / "report.txt").read_text()
    return json.loads((out / "report.json").read_text())["claims"][0], text


@pytest.mark.parametrize(
    "diffs",
    [[], ["secure.diff"], ["secure.diff", "private.diff"]],
    ids=["before", "secure", "private"],
)
def test_the_switch(
    tmp_path: Path,
    diffs: list[str],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    app = switched(tmp_path / "app", diffs)
    (tmp_path / "banks").mkdir()
    banks, grid = run(tmp_path / "banks", app, monkeypatch)
    accuracy = float(capsys.readouterr().out.split()[-1])
    came = [m.content for m in grid.replies]
    if not diffs:  # what the diffs are for: all of this reached the aggregator
        arrays = [r for content in came for r in content.array_records.values()]
        metrics = [r for content in came for r in content.metric_records.values()]
        assert len(arrays) == 10
        assert len(metrics) == 20
        assert all(isinstance(r, ArrayRecord) for r in arrays)
        assert all(isinstance(r, MetricRecord) for r in metrics)
        assert accuracy > 0.8
        return
    assert all(is_parcel(content) for content in came)
    assert not any(content.metric_records for content in came)
    claim, text = claim_of(banks)
    epsilon = claim["consortium"]["epsilon"]
    if diffs == ["secure.diff"]:
        assert epsilon == "infinity"
        assert "∞" in text
        assert "trained without privacy" in text
        assert accuracy > 0.8
    else:
        assert 0 < epsilon <= 8
        assert "trained without privacy" not in text
        assert accuracy > 0.5


def test_the_first_diff_is_two_lines_and_their_imports() -> None:
    lines = (EXAMPLE / "secure.diff").read_text().splitlines()
    code = [line for line in lines if line[0] == "+" and line[:3] != "+++"]
    changed = [line for line in code if not line.startswith(("+from", "+dependencies"))]
    assert changed == [
        "+app = ClientApp(mods=[secure_aggregation_mod])",
        "+    strategy = SecureAggregation(FedAvg(min_available_nodes=4))",
    ]
    assert len(code) == len(changed) + 3
