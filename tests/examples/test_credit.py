# SPDX-License-Identifier: Apache-2.0
"""Five banks: rows made up from the plan alone, and what the results are made of."""

from __future__ import annotations

import sys
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from secure_fl import load_plan
from secure_fl.training import accuracy, load_tabular, pooled, scores, train_plain

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
FOLDER = EXAMPLES / "credit_default"
PLAN = load_plan(FOLDER / "plan.toml")
MODULES = ("made_up", "credit_results", "measuring", "tabular")


@pytest.fixture(autouse=True)
def _example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's modules, as its own programs import them."""
    torch.set_num_threads(1)
    pytest.importorskip("sklearn")
    for folder in (EXAMPLES, FOLDER):
        monkeypatch.syspath_prepend(str(folder))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def made_up(folder: Path, *, seed: int, rows: int) -> Path:
    from made_up import write

    assert PLAN.data is not None
    assert PLAN.data.file is not None
    folder.mkdir()
    write(PLAN.data, folder / PLAN.data.file, seed=seed, rows=rows)
    return folder / PLAN.data.file


def test_made_up_rows_are_rows_of_the_plan(tmp_path: Path) -> None:
    """And the rule that they follow can be learnt."""
    path = made_up(tmp_path / "one", seed=1, rows=3000)
    again = made_up(tmp_path / "two", seed=1, rows=3000)
    other = made_up(tmp_path / "other", seed=2, rows=3000)
    assert path.read_bytes() == again.read_bytes() != other.read_bytes()
    assert PLAN.data is not None
    shares = {m.name: m.records for m in PLAN.parties.members}
    splits = load_tabular(
        PLAN.data, names=PLAN.names, shares=shares, folder=path.parent
    )
    rows = pooled(splits.values())
    labels = [*rows.train_y, *rows.test_y]
    assert len(labels) == 3000
    assert 0.15 < sum(labels) / 3000 < 0.3
    assert abs(rows.train_x).max() <= 1
    found = scores(train_plain(PLAN, rows, steps=200), PLAN, rows.train_x)
    assert accuracy(rows.train_y, found) > 1 - sum(labels) / 3000


def test_made_up_rows_replace_no_file(tmp_path: Path) -> None:
    path = made_up(tmp_path / "one", seed=1, rows=10)
    from made_up import write

    assert PLAN.data is not None
    with pytest.raises(FileExistsError):
        write(PLAN.data, path, seed=2, rows=10)


def results(
    folder: Path, *, methods: Container[str], epsilon: float | None
) -> dict[str, Any]:
    """The measured figures of one seed, on made-up rows."""
    from credit_results import DATASET, cells

    made_up(folder / "credit_default_taiwan", seed=3, rows=1500)
    found = {
        c.method: c.measure()
        for c in cells(folder, folder, (1,))
        if c.epsilon == epsilon and c.method in methods
    }
    for result in found.values():
        assert result.figures.keys() == set(DATASET.metrics)
        assert all(0 < figure < 1 for figure in result.figures.values())
    return found


def test_the_results_name_what_they_are_drawn_and_judged_by(tmp_path: Path) -> None:
    """And nothing is read, let alone trained, before a result is asked for."""
    from credit_results import DATASET, cells

    found = list(cells(tmp_path / "none", tmp_path, (0, 1)))
    keys = [(c.method, c.epsilon, c.seed) for c in found]
    assert len(keys) == len(set(keys))
    methods = {(c.method, c.epsilon) for c in found}
    assert {m for m, _ in methods} >= set(DATASET.methods)
    for target in DATASET.targets:
        assert (target.method, target.epsilon) in methods
        assert (target.against or target.method, target.epsilon) in methods


def test_pooled_rows_teach_more_than_a_banks_own(tmp_path: Path) -> None:
    found = results(tmp_path, methods=("pooled", "one member alone"), epsilon=None)
    pooled, alone = found["pooled"], found["one member alone"]
    assert pooled.epsilon is None
    assert alone.epsilon is None
    assert pooled.figures["auc"] > alone.figures["auc"]
    assert alone.figures["auc"] > alone.figures["auc of the worst-off bank"]


@pytest.mark.long
def test_every_private_way_spends_its_epsilon_and_no_more(tmp_path: Path) -> None:
    class All:
        def __contains__(self, method: object) -> bool:
            return True

    found = results(tmp_path, methods=All(), epsilon=3.0)
    assert len(found) == 6
    for result in found.values():
        assert 2.9 < result.epsilon <= 3.0
