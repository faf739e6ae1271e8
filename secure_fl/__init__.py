# SPDX-License-Identifier: Apache-2.0
"""Privacy-preserving aggregation for federated transfer learning.

The names below are the whole public surface.  Importing this package is quick: a
name's module, and torch with it, is loaded when the name is first used.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from . import errors
    from .engines.arrays import secure_sum
    from .engines.embedded import run
    from .engines.result import Run
    from .model import GlobalModel
    from .plan import Plan, load_plan
    from .privacy import PrivateUpdate, unprotected
    from .report import Report, verify_run
    from .training import ClientRound

__version__ = "0.1.0"

__all__ = [
    "ClientRound",
    "GlobalModel",
    "Plan",
    "PrivateUpdate",
    "Report",
    "Run",
    "__version__",
    "errors",
    "load_plan",
    "run",
    "secure_sum",
    "unprotected",
    "verify_run",
]

_HOME = {
    "ClientRound": "training",
    "GlobalModel": "model",
    "Plan": "plan",
    "PrivateUpdate": "privacy",
    "Report": "report",
    "Run": "engines.result",
    "load_plan": "plan",
    "run": "engines.embedded",
    "secure_sum": "engines.arrays",
    "unprotected": "privacy",
    "verify_run": "report",
}


def __getattr__(name: str) -> object:
    if name == "errors":
        return importlib.import_module(".errors", __name__)
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value: object = getattr(importlib.import_module(f".{_HOME[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
