# SPDX-License-Identifier: Apache-2.0
"""Three small banks with one CSV, and the command line called as a user would."""

from __future__ import annotations

import contextlib
import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from secure_fl.cli.main import main

MEMBERS = ("bank-a", "bank-b", "bank-c")
RUN_FILES = (
    "plan.toml",
    "model.safetensors",
    "metrics.json",
    "transcript.cbor",
    "report.json",
    "report.html",
    "report.txt",
    "ledgers/bank-a.cbor",
    "ledgers/bank-b.cbor",
    "ledgers/bank-c.cbor",
)


@dataclass(frozen=True)
class Answer:
    """What one call of the program left behind."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)

    @property
    def errors(self) -> list[str]:
        return [x for x in self.err.splitlines() if x.startswith("secure-fl: error: ")]

    @property
    def hints(self) -> list[str]:
        return [x for x in self.err.splitlines() if x.startswith("secure-fl: hint: ")]


def call(*args: str | Path) -> Answer:
    """``secure-fl ARGS`` in this process."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = main([str(arg) for arg in args])
    return Answer(code, out.getvalue(), err.getvalue())


def snapshot(folder: Path) -> dict[str, bytes]:
    """Every file and folder below, with its bytes: to compare before and after."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else b""
        for path in sorted(folder.rglob("*"))
    }


def plan_text(
    *,
    rounds: int = 2,
    epsilon: float = 8.0,
    noise_multiplier: float = 2.0,
    members: tuple[str, ...] = MEMBERS,
    keys: dict[str, str] | None = None,
    file: str = "table.csv",
) -> str:
    """A plan that says its noise, so that nothing has to be calibrated."""
    rows = []
    for name in members:
        key = f', key = "{keys[name]}"' if keys and name in keys else ""
        rows.append(f'  {{ name = "{name}", records = 80{key} }},\n')
    return f"""\
schema = "secure-fl/plan/1"
name = "small-banks"

[parties]
members = [
{"".join(rows)}]

[rounds]
count = {rounds}
spare = 1

[privacy]
mode = "local"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = {epsilon}
delta = 1e-5
noise_multiplier = {noise_multiplier}
clip_norm = 1.0
sampling_rate = 0.5
local_steps = 3

[protection]
kind = "masking"

[model]
kind = "mlp"
hidden = [4]

[training]
way = "opacus"
learning_rate = 0.5

[data]
file = "{file}"
label = "target"
classes = [0, 1]
drop = ["id"]
split = "rows"

[data.columns]
age = {{ low = 18, high = 100 }}
income = {{ low = 0, high = 100000 }}
region = {{ values = ["north", "south"] }}
"""


def table_text(*, rows: int = 300) -> str:
    """A CSV in which age and region tell the class, most of the time."""
    rng = np.random.default_rng(0)
    lines = ["id,age,income,region,target"]
    for i in range(rows):
        age, income = rng.uniform(18, 90), rng.uniform(0, 100_000)
        north = rng.random() < 0.5
        target = int(age / 90 + north + 0.3 * rng.normal() > 1)
        region = "north" if north else "south"
        lines.append(f"{i},{age:.1f},{income:.0f},{region},{target}")
    return "\n".join(lines) + "\n"


def furnish(folder: Path) -> Path:
    """``plan.toml`` and ``table.csv`` in ``folder``."""
    (folder / "plan.toml").write_text(plan_text())
    (folder / "table.csv").write_text(table_text())
    return folder
