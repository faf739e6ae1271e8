# SPDX-License-Identifier: Apache-2.0
"""From what a member has (a trainer, or a CSV file) to a ``PrivateUpdate``.

Names are looked up when first used: reading a CSV does not import torch, and a head
on cached features does not import Opacus.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .builtin import (
        accuracy,
        auc,
        build_mlp,
        builtin_trainer,
        few_threads,
        initial_model,
        scores,
        train_plain,
    )
    from .client_round import ClientRound, PrivateTraining
    from .tabular import TabularSplit, feature_count, load_tabular, pooled

__all__ = [
    "ClientRound",
    "PrivateTraining",
    "TabularSplit",
    "accuracy",
    "auc",
    "build_mlp",
    "builtin_trainer",
    "feature_count",
    "few_threads",
    "initial_model",
    "load_tabular",
    "pooled",
    "scores",
    "train_plain",
]

_CLIENT_ROUND = ("ClientRound", "PrivateTraining")
_TABULAR = ("TabularSplit", "feature_count", "load_tabular", "pooled")


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name in _CLIENT_ROUND:
        return getattr(import_module(".client_round", __name__), name)
    if name in _TABULAR:
        return getattr(import_module(".tabular", __name__), name)
    return getattr(import_module(".builtin", __name__), name)
