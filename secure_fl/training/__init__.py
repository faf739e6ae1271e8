# SPDX-License-Identifier: Apache-2.0
"""From what a member has (a trainer, or a CSV file) to a ``PrivateUpdate``.

Names are looked up when first used: reading a CSV does not import torch, a head on
cached features does not import Opacus, and only adapters and texts import peft and
transformers.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .adapters import (
        base_digest,
        check_adapters,
        lora,
        merged,
        trainable_model,
    )
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
    from .features import cached_features
    from .tabular import TabularSplit, feature_count, load_tabular, pooled
    from .texts import TextClassifier, TextEncoder, mean_pooled

__all__ = [
    "ClientRound",
    "PrivateTraining",
    "TabularSplit",
    "TextClassifier",
    "TextEncoder",
    "accuracy",
    "auc",
    "base_digest",
    "build_mlp",
    "builtin_trainer",
    "cached_features",
    "check_adapters",
    "feature_count",
    "few_threads",
    "initial_model",
    "load_tabular",
    "lora",
    "mean_pooled",
    "merged",
    "pooled",
    "scores",
    "train_plain",
    "trainable_model",
]

_MODULES = {
    "ClientRound": "client_round",
    "PrivateTraining": "client_round",
    "TabularSplit": "tabular",
    "TextClassifier": "texts",
    "TextEncoder": "texts",
    "base_digest": "adapters",
    "cached_features": "features",
    "check_adapters": "adapters",
    "feature_count": "tabular",
    "load_tabular": "tabular",
    "lora": "adapters",
    "mean_pooled": "texts",
    "merged": "adapters",
    "pooled": "tabular",
    "trainable_model": "adapters",
}


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = _MODULES.get(name, "builtin")
    return getattr(import_module(f".{module}", __name__), name)
