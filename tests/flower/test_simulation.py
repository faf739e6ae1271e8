# SPDX-License-Identifier: Apache-2.0
"""Flower's simulation engine: many clients behind one variable, each in its home."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

from flwr.app import Array, ArrayRecord, Context, Message, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

import secure_fl as sfl
from secure_fl.engines.flower import SecureAggregation, secure_aggregation_mod
from secure_fl.errors import EngineError

from .consortium import NAMES, Banks, found, plan_text
from .grid_in_process import GridInProcess

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "thousand.py"
app = ClientApp(mods=[secure_aggregation_mod])


@app.train()
def train(message: Message, context: Context) -> Message:
    """Everybody goes as far as its partition's number."""
    arrays = message.content.array_records["arrays"]
    far = np.float32(context.node_config["partition-id"])
    trained = {n: Array(a.numpy() + far) for n, a in arrays.items()}
    return Message(RecordDict({"arrays": ArrayRecord(trained)}), reply_to=message)


def simulated(banks: Banks, monkeypatch: pytest.MonkeyPatch) -> GridInProcess:
    """Nodes as the simulation engine makes them: nothing but a partition is their own.

    ``NAMES`` end with their partition's number, and so do their homes.
    """
    folder = banks.homes[NAMES[0]].folder.parent
    monkeypatch.setenv("SECURE_FL_HOME", str(folder / "bank-{partition}"))
    grid = banks.grid(app)
    for place, node in enumerate(grid.nodes.values()):
        node.config = {"partition-id": place, "num-partitions": len(NAMES)}
    return grid


def go(banks: Banks, grid: GridInProcess) -> float:
    result = SecureAggregation(FedAvg(), home=banks.aggregator).start(
        grid,
        ArrayRecord({"weight": Array(np.zeros((2, 3), np.float32))}),
        num_rounds=1,
        timeout=5,
    )
    return float(result.arrays["weight"].numpy()[0, 0])


def test_each_partition_has_its_own_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    banks = found(tmp_path, plan_text(rounds=1))
    grid = simulated(banks, monkeypatch)
    assert go(banks, grid) == pytest.approx(1.5, abs=1e-3)  # the mean of 0 to 3
    (out,) = (banks.aggregator / "results").iterdir()
    assert set(sfl.verify_run(out).epsilon) == set(NAMES)


def test_a_client_without_a_partition_is_no_member(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A deployment's node has no partition: nobody's home is taken for its own."""
    monkeypatch.setattr("secure_fl.engines.remote._LOOK_AGAIN", 0.5)
    banks = found(tmp_path, plan_text(rounds=1))
    grid = simulated(banks, monkeypatch)
    grid.nodes[banks.node("bank-2")].config = {}
    with pytest.raises(EngineError, match="not there: bank-2"):
        go(banks, grid)


@pytest.mark.long
@pytest.mark.parametrize("protection", ["masking", "one-time", "keyholder"])
def test_a_round_of_the_real_engine(tmp_path: Path, protection: str) -> None:
    pytest.importorskip("ray", reason="needs secure-fl[simulation]")
    ran = subprocess.run(
        [
            *(sys.executable, str(SCRIPT), "--clients", "12", "--values", "200"),
            *("--protection", protection, "--home", str(tmp_path / "home")),
        ],
        env={**os.environ, "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
        timeout=900,
    )
    figures = json.loads(ran.stdout[ran.stdout.index(b"{\n") :])
    assert (figures["state"], figures["in_sum"]) == ("finished", 12)
    verified = sfl.verify_run(Path(figures["results"]))
    assert len(verified.epsilon) == 12
    assert all(0 < e < 8 for e in verified.epsilon.values())
