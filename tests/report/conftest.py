# SPDX-License-Identifier: Apache-2.0
"""One finished run per session: it is read-only, and every test writes its own copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import Consortium, Made


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Consortium(tmp_path_factory.mktemp("homes")).play()


@pytest.fixture
def folder(made: Made, tmp_path: Path) -> Path:
    """The run's folder, as an auditor gets it."""
    return made.write(tmp_path / "run")
