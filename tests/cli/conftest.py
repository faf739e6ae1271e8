# SPDX-License-Identifier: Apache-2.0
"""A clean desk for every test, and one finished run that all of them may read."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from .support import Answer, call, furnish


@dataclass(frozen=True)
class Finished:
    """``secure-fl run plan.toml --out out`` in ``folder``: never write there."""

    folder: Path
    answer: Answer


def _clean(patch: pytest.MonkeyPatch, folder: Path) -> None:
    for name in ("DATA", "HOME", "PASSPHRASE", "DEBUG"):
        patch.delenv(f"SECURE_FL_{name}", raising=False)
    (folder / "state" / "secure-fl" / "runs").mkdir(parents=True)
    patch.setenv("XDG_STATE_HOME", str(folder / "state"))
    patch.setenv("COLUMNS", "80")
    patch.chdir(folder)


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Finished:
    torch.set_num_threads(1)
    folder = furnish(tmp_path_factory.mktemp("finished"))
    with pytest.MonkeyPatch.context() as patch:
        _clean(patch, folder)
        return Finished(folder, call("run", "plan.toml", "--out", "out"))


@pytest.fixture
def desk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current folder, with a plan and its table."""
    torch.set_num_threads(1)
    _clean(monkeypatch, tmp_path)
    return furnish(tmp_path)


@pytest.fixture
def out(desk: Path, finished: Finished) -> Path:
    """A copy of the finished run's folder, to spoil."""
    return Path(shutil.copytree(finished.folder / "out", desk / "out"))
