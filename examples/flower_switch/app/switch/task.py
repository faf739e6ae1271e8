# SPDX-License-Identifier: Apache-2.0
"""Model, made-up data, and a training loop: nothing here knows of Flower."""

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset


class Net(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(nn.Linear(10, 8), nn.ReLU(), nn.Linear(8, 2))


def first_model() -> Net:
    torch.manual_seed(0)
    return Net()


def records(bank: int, count: int = 200) -> TensorDataset:
    """A bank's records: whether a loan fails follows from two columns of ten."""
    draws = np.random.default_rng(bank)
    x = draws.normal(size=(count, 10)).astype(np.float32)
    y = (x[:, 0] + x[:, 1] + 0.3 * draws.normal(size=count) > 0).astype(np.int64)
    return TensorDataset(torch.from_numpy(x), torch.from_numpy(y))


def fit(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    loader: DataLoader[tuple[torch.Tensor, ...]],
    criterion: nn.Module,
) -> None:
    """One pass over the loader."""
    model.train()
    for x, y in loader:
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()


def accuracy(model: nn.Module, data: TensorDataset) -> float:
    x, y = data.tensors
    with torch.no_grad():
        return float((model.eval()(x).argmax(1) == y).float().mean())
