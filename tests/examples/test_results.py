# SPDX-License-Identifier: Apache-2.0
"""The program that writes docs/results.md: what it keeps, sums up and calls a miss."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"
MODULES = ("results", "measuring", "pictures", "tables")


@pytest.fixture
def results(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example's module, as its own program imports it."""
    pytest.importorskip("matplotlib")
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import results

    yield results
    for name in MODULES:
        del sys.modules[name]


@pytest.fixture
def dataset(results: ModuleType) -> Any:
    from measuring import Dataset, Target

    return Dataset(
        name="shells",
        title="Shells",
        delta=1e-5,
        metrics=("accuracy",),
        methods=("distributed", "pooled"),
        text="Why it is so.",
        targets=(
            Target("distributed", "accuracy", 0.7, epsilon=1.0),
            Target("distributed", "accuracy", -0.1, epsilon=1.0, against="local"),
        ),
    )


def cells(results: ModuleType, calls: list[int]) -> list[Any]:
    from measuring import Cell, Measured

    def cell(method: str, seed: int, value: float, epsilon: float | None) -> Any:
        def measure() -> Measured:
            calls.append(seed)
            spent = None if epsilon is None else epsilon - 0.01 * seed
            return Measured({"accuracy": value}, spent)

        return Cell(method, seed, measure, epsilon=epsilon)

    return [
        cell("distributed", 0, 0.60, 1.0),
        cell("distributed", 1, 0.70, 1.0),
        cell("local", 0, 0.80, 1.0),
        cell("pooled", 0, 0.90, None),
    ]


def rows(results: ModuleType, dataset: Any, folder: Path) -> dict[str, object]:
    kept = results.Kept(folder / "cells.json")
    done = [(c, kept.measured(c)) for c in cells(results, [])]
    found: dict[str, object] = results.merged(dataset, done)
    return found


def test_what_was_measured_is_kept(results: ModuleType, tmp_path: Path) -> None:
    calls: list[int] = []
    path = tmp_path / "deep" / "cells.json"
    first = [results.Kept(path).measured(c) for c in cells(results, calls)]
    again = [results.Kept(path).measured(c) for c in cells(results, calls)]
    assert calls == [0, 1, 0, 0]
    assert first == again


def test_seeds_become_a_mean_and_a_spread(
    results: ModuleType, dataset: Any, tmp_path: Path
) -> None:
    found = rows(results, dataset, tmp_path)["rows"]
    assert isinstance(found, list)
    assert [r["method"] for r in found] == ["distributed", "local", "pooled"]
    figure = found[0]["figures"]["accuracy"]
    assert figure["mean"] == 0.65
    assert figure["deviation"] == pytest.approx(0.0707107)  # over n - 1
    assert figure["by_seed"] == [0.6, 0.7]
    assert found[0]["epsilon"] == 1.0  # the largest of the seeds
    assert found[1]["figures"]["accuracy"]["deviation"] is None
    assert found[2]["epsilon"] is None


def test_a_miss_is_called_one(
    results: ModuleType, dataset: Any, tmp_path: Path
) -> None:
    text = results.page([dataset], {"shells": rows(results, dataset, tmp_path)})
    asked = "| accuracy: distributed | 1 | 70.00 % | 65.00 % | missed by 5.00 points |"
    assert asked in text
    asked = "| accuracy: distributed minus local | 1 | -10.00 points | -15.00 points |"
    assert f"{asked} missed by 5.00 points |" in text
    assert "| distributed | 65.00 ± 7.07 |  | 2 |" in text
    assert "| pooled |  | 90.00 | 1 |" in text
    assert "any of these rows spent, at delta 1e-05: 1 of 1.\n" in text
    assert text.endswith("Why it is so.\n")


def test_pictures_follow_from_the_figures_alone(
    results: ModuleType, dataset: Any, tmp_path: Path
) -> None:
    found = rows(results, dataset, tmp_path)["rows"]
    picture = results.draw(dataset, found)
    assert picture == results.draw(dataset, found)
    assert b"distributed" in picture
    assert b"pooled (no privacy)" in picture


def test_the_page_is_what_its_figures_give(results: ModuleType) -> None:
    """Nobody has written into docs/results.md by hand."""
    told = json.loads((ROOT / "docs" / "results.json").read_text())
    shown = [results.dataset_of(name) for name in results.MODULES if name in told]
    assert results.page(shown, told) == (ROOT / "docs" / "results.md").read_text()
