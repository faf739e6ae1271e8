# SPDX-License-Identifier: Apache-2.0
"""The ready app: a plan, tables, and no code."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

from flwr.app import Context, Message, RecordDict, UserConfig

import secure_fl as sfl
from secure_fl.engines.flower.app import client_app, server_app
from secure_fl.engines.flower.records import is_parcel
from secure_fl.errors import TooFewClients, UsageError

from .consortium import NAMES, Banks, found, plan_text
from .grid_in_process import RUN_ID, GridInProcess

FILES = ", ".join(f'{n} = "{n}.csv"' for n in NAMES)
TABLE = f"""\
kind = "mlp"
hidden = []

[training]
way = "head"
learning_rate = 1.0

[data]
label = "late"
classes = ["no", "yes"]
split = "files"
files = {{ {FILES} }}

[data.columns]
income = {{ low = -3, high = 3 }}
debt = {{ low = -3, high = 3 }}
"""


def draft() -> str:
    return plan_text(rounds=2).replace('kind = "custom"\n', TABLE)


def tables(folder: Path) -> None:
    """Each bank's own table in a folder of its own."""
    draws = np.random.default_rng(3)
    for name in NAMES:
        x = draws.normal(size=(50, 2)).clip(-3, 3)
        rows = [f"{a:.4f},{b:.4f},{'yes' if b > a else 'no'}" for a, b in x]
        (folder / name).mkdir()
        text = "\n".join(["income,debt,late", *rows])
        (folder / name / f"{name}.csv").write_text(text)


def start(banks: Banks, grid: GridInProcess, **entries: str | float) -> None:
    config: UserConfig = {
        "secure-fl-home": str(banks.aggregator),
        "secure-fl-patience": 20.0,
    }
    context = Context(RUN_ID, 1, {}, RecordDict(), {**config, **entries})
    server_app(grid, context)


def test_a_plan_with_tables_runs_without_code(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    tables(tmp_path / "data")
    banks = found(tmp_path, draft(), data=tmp_path / "data")
    grid = banks.grid(client_app)
    start(banks, grid, **{"secure-fl-out": str(tmp_path / "out")})
    verified = sfl.verify_run(tmp_path / "out")
    assert 0 < max(verified.epsilon.values()) < 8
    assert all(is_parcel(m.content) for m in grid.replies)
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert not report["simulation"]
    model = sfl.GlobalModel.load(tmp_path / "out" / "model.safetensors")
    assert np.abs(model.flatten()).max() > 0


def test_who_did_not_say_where_its_records_are_is_a_dropout(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    banks = found(tmp_path, draft())
    with pytest.raises(TooFewClients):
        start(banks, banks.grid(client_app))
    assert "did not say where its records are" in caplog.text


def test_without_a_home_there_is_no_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECURE_FL_HOME", raising=False)
    with pytest.raises(UsageError, match="no home"):
        server_app(GridInProcess({}), Context(RUN_ID, 1, {}, RecordDict(), {}))


@pytest.mark.parametrize("kind", ["evaluate", "query"])
def test_the_client_app_answers_nothing_else(tmp_path: Path, kind: str) -> None:
    banks = found(tmp_path, draft())
    grid = banks.grid(client_app)
    (reply,) = grid.send_and_receive([Message(RecordDict(), 100, kind)])
    assert reply.has_error()
