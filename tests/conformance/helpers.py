# SPDX-License-Identifier: Apache-2.0
"""The runner's own modules, which are scripts beside it and no package."""

from __future__ import annotations

import functools
import importlib
import sys
from pathlib import Path
from types import ModuleType

FOLDER = Path(__file__).resolve().parents[2] / "protocols"


@functools.cache
def helper(name: str) -> ModuleType:
    """One of them, imported as the runner does: their folder comes first."""
    sys.path.insert(0, str(FOLDER))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(FOLDER))
