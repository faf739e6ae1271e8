# SPDX-License-Identifier: Apache-2.0
"""Each test here is run once over every engine."""

from __future__ import annotations

from pathlib import Path

import pytest

from .engines import Embedded, Engine


@pytest.fixture(params=["embedded", "grid"])
def engine(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Engine:
    if request.param == "embedded":
        return Embedded(tmp_path, monkeypatch)
    pytest.importorskip("flwr", reason="needs secure-fl[flower]")
    from .over_grid import OverGrid

    return OverGrid(tmp_path, monkeypatch)
