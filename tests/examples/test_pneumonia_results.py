# SPDX-License-Identifier: Apache-2.0
"""Three hospitals' X-rays, made up here: labels in one place, and their epsilon."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
MODULES = ("pneumonia_results", "xrays", "squeezenet", "measuring")


@pytest.fixture(autouse=True)
def _example(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The example's modules, as its own programs import them."""
    torch.set_num_threads(1)
    pytest.importorskip("sklearn")
    for folder in (EXAMPLES, EXAMPLES / "pneumonia"):
        monkeypatch.syspath_prepend(str(folder))
    yield
    for name in MODULES:
        sys.modules.pop(name, None)


def made_up(*, train: int) -> Any:
    """Images whose left half is the brighter one where the label is 1."""
    from xrays import Xrays

    generator = np.random.default_rng(7)
    labels = generator.integers(0, 2, train + 200)
    images = generator.integers(0, 200, (len(labels), 28, 28))
    images[labels == 1, :, :14] += 55
    images[labels == 0, :, 14:] += 55
    trained, public, test = np.split(images.astype(np.uint8), [train, train + 100])
    return Xrays(trained, public, test, labels[:train], labels[train + 100 :])


def test_one_holder_spends_the_epsilon_of_its_plan_whatever_it_holds() -> None:
    from xrays import Head, deal

    images = made_up(train=60)
    head = Head.pixels(images)
    own, *others = deal(images, 20, seed=1)
    for rows in (own, np.concatenate([own, *others])):
        figures, spent = head.one_holder(rows, 3.0)
        assert 2.9 < spent <= 3.0
        assert figures["auc"] > 0.7  # half is a guess


def test_the_results_name_what_they_are_drawn_by(tmp_path: Path) -> None:
    """And nothing is read, let alone trained, before a result is asked for."""
    from pneumonia_results import DATASET, cells

    found = list(cells(tmp_path / "none", tmp_path, (0, 1)))
    keys = [(c.method, c.epsilon, c.labels, c.seed) for c in found]
    assert len(keys) == len(set(keys))
    assert {c.method for c in found} >= set(DATASET.methods)
    private = {m for m, epsilon, *_ in keys if epsilon is not None}
    assert {"pooled, private", "one member alone, private"} <= private
