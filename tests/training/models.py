# SPDX-License-Identifier: Apache-2.0
"""Small models with every kind of layer that clipping knows, and records for them."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import nn
from torch.utils.data import TensorDataset

__all__ = ["CLASSES", "MODELS", "dataset_for"]

CLASSES = 3


class Classifier(nn.Module):
    """A body, its positions averaged, and a head."""

    def __init__(self, body: nn.Module, width: int) -> None:
        super().__init__()
        self.body = body
        self.head = nn.Linear(width, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden: torch.Tensor = self.body(x)
        while hidden.dim() > 2:
            hidden = hidden.mean(1)
        out: torch.Tensor = self.head(hidden)
        return out


class Pictures(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.GroupNorm(2, 4)
        self.head = nn.Linear(4 * 25, CLASSES)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.conv(x))).flatten(1)
        out: torch.Tensor = self.head(hidden)
        return out


def _linear() -> nn.Module:
    return Classifier(nn.Sequential(nn.Linear(5, 6), nn.Tanh()), 6)


def _no_bias() -> nn.Module:
    return Classifier(nn.Sequential(nn.Linear(5, 6, bias=False), nn.Tanh()), 6)


def _wide_tokens() -> nn.Module:
    """Few positions in wide layers: norms from pairs of positions."""
    return Classifier(nn.Sequential(nn.Linear(5, 40), nn.Tanh()), 40)


def _many_tokens() -> nn.Module:
    """Many positions in narrow layers: norms from the gradient itself."""
    return Classifier(nn.Sequential(nn.Linear(5, 2), nn.Tanh()), 2)


def _layer_norm() -> nn.Module:
    return Classifier(nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6), nn.Tanh()), 6)


def _embedding() -> nn.Module:
    return Classifier(nn.Sequential(nn.Embedding(9, 6), nn.Linear(6, 6), nn.Tanh()), 6)


class Scale(nn.Module):
    """A layer that Opacus has no formula for."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.linspace(0.5, 2.0, width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.gain


def _own_layer() -> nn.Module:
    return Classifier(nn.Sequential(nn.Linear(5, 6), Scale(6), nn.Tanh()), 6)


def _partly_frozen() -> nn.Module:
    model = Classifier(nn.Sequential(nn.Linear(5, 6), nn.LayerNorm(6)), 6)
    model.body[0].requires_grad_(False)  # type: ignore[index]
    model.head.weight.requires_grad_(False)
    return model


_BUILD: dict[str, Callable[[], nn.Module]] = {
    "linear": _linear,
    "no bias": _no_bias,
    "wide tokens": _wide_tokens,
    "many tokens": _many_tokens,
    "layer norm": _layer_norm,
    "embedding": _embedding,
    "conv": Pictures,
    "own layer": _own_layer,
    "partly frozen": _partly_frozen,
}
_SHAPES = {"wide tokens": (4, 5), "many tokens": (2, 6, 5), "conv": (1, 5, 5)}


def _seeded(build: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def model() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(3)
            return build()

    return model


MODELS = {name: _seeded(build) for name, build in _BUILD.items()}


def dataset_for(name: str, count: int = 40) -> TensorDataset:
    draw = np.random.default_rng(11)
    y = torch.from_numpy(draw.integers(0, CLASSES, size=count))
    if name == "embedding":  # tokens that a record holds twice, too
        return TensorDataset(torch.from_numpy(draw.integers(0, 9, (count, 7))), y)
    shape = _SHAPES.get(name, (5,))
    x = torch.from_numpy(draw.normal(size=(count, *shape)).astype(np.float32))
    return TensorDataset(x, y)
