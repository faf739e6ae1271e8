# SPDX-License-Identifier: Apache-2.0
"""The public half of the demo: a small network pretrained on digits 0 to 4.

Nothing here touches a private record: the network, the centre and the scale come from
public images alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from torch import nn

Features = NDArray[np.float32]

BANKS = 5
RECORDS = 119  # per bank; a public round number
TEST = 299
EPOCHS, BATCH, RATE = 6, 64, 3e-3
NORM = 3.0  # root mean square of a centred public feature vector


@dataclass(frozen=True)
class Digits:
    """Handwritten digits, 8 x 8: 0 to 4 are public, 5 to 9 are the banks' cheques."""

    public_x: torch.Tensor
    public_y: torch.Tensor
    private_x: torch.Tensor
    private_y: NDArray[np.int64]


def load() -> Digits:
    """What scikit-learn ships: no download."""
    data = load_digits()
    x = torch.tensor(data.images / 16.0, dtype=torch.float32)[:, None]
    y = np.asarray(data.target, np.int64)
    public = y < 5
    return Digits(x[public], torch.tensor(y[public]), x[~public], y[~public] - 5)


def backbone() -> nn.Sequential:
    """Images (n, 1, 8, 8) to features (n, 512)."""
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.Conv2d(16, 32, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
    )


def _shifted(x: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """Each image moved by up to one pixel each way."""
    padded = nn.functional.pad(x, (1, 1, 1, 1))
    at = torch.arange(8)
    down = torch.randint(0, 3, (len(x), 1), generator=generator) + at
    right = torch.randint(0, 3, (len(x), 1), generator=generator) + at
    rows = torch.arange(len(x))[:, None, None]
    return padded[rows, 0, down[:, :, None], right[:, None, :]][:, None]


def pretrain(digits: Digits, seed: int) -> nn.Module:
    """Learn five public digits in four quarter turns: twenty classes."""
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    x = torch.cat([torch.rot90(digits.public_x, k, (2, 3)) for k in range(4)])
    y = torch.cat([digits.public_y + 5 * k for k in range(4)])
    network, head = backbone(), nn.Linear(512, 20)
    optimizer = torch.optim.AdamW(
        [*network.parameters(), *head.parameters()], lr=RATE, weight_decay=0.0
    )
    steps = len(x) // BATCH
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, RATE, total_steps=EPOCHS * steps
    )
    for _ in range(EPOCHS):
        order = torch.randperm(len(x), generator=generator)
        for rows in torch.split(order[: steps * BATCH], BATCH):
            logits = head(network(_shifted(x[rows], generator)))
            loss = nn.functional.cross_entropy(logits, y[rows])
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            schedule.step()
    return network.eval()


def untrained(seed: int) -> nn.Module:
    """The same network with random weights."""
    torch.manual_seed(1000 + seed)
    return backbone().eval()


def publicly_centred(
    extract: Callable[[torch.Tensor], torch.Tensor], digits: Digits
) -> Features:
    """Features of the private images, centred and scaled by public ones alone."""
    with torch.no_grad():
        public = extract(digits.public_x).numpy()
        private = extract(digits.private_x).numpy()
    centre = public.mean(0)
    scale = NORM / np.sqrt(((public - centre) ** 2).sum(1).mean())
    out: Features = ((private - centre) * scale).astype(np.float32)
    return out


@dataclass(frozen=True)
class Split:
    """Who holds which private rows: ``banks`` (5, 119), ``test`` (299)."""

    banks: NDArray[np.int64]
    test: NDArray[np.int64]


def deal(records: int, seed: int) -> Split:
    order = np.random.default_rng(seed).permutation(records)
    banks = order[TEST : TEST + BANKS * RECORDS].reshape(BANKS, RECORDS)
    return Split(banks, order[:TEST])
