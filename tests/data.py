# SPDX-License-Identifier: Apache-2.0
"""Where real data lies: never in the repository, and not on every machine."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

__all__ = ["data_folder"]

_BESIDE = Path(__file__).resolve().parents[2] / "shared" / "data"


def data_folder(name: str) -> Path:
    """The data set's folder under SECURE_FL_DATA, or beside the checkout; else skip."""
    root = Path(os.environ.get("SECURE_FL_DATA") or _BESIDE)
    folder = root / name
    if not folder.is_dir():
        pytest.skip(f"no data: {folder} is not there (SECURE_FL_DATA names its parent)")
    return folder.resolve()
