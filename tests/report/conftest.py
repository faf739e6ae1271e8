# SPDX-License-Identifier: Apache-2.0
"""One finished run of each kind per session: read-only, every test writes its copy."""

from __future__ import annotations

from pathlib import Path

import pytest

from .sealed import Sealed
from .support import Consortium, Made

TENSEAL = "CKKS is an extra"


@pytest.fixture(scope="session")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Consortium(tmp_path_factory.mktemp("homes")).play()


@pytest.fixture(scope="session")
def one_time(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run under CKKS with one-time keys."""
    pytest.importorskip("tenseal", reason=TENSEAL)
    return Sealed(tmp_path_factory.mktemp("homes"), keys="one-time").play()


@pytest.fixture(scope="session")
def with_holder(tmp_path_factory: pytest.TempPathFactory) -> Made:
    """A run under CKKS with a key holder."""
    pytest.importorskip("tenseal", reason=TENSEAL)
    return Sealed(tmp_path_factory.mktemp("homes"), keys="keyholder").play()


@pytest.fixture
def folder(made: Made, tmp_path: Path) -> Path:
    """The run's folder, as an auditor gets it."""
    return made.write(tmp_path / "run")
