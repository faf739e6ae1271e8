# SPDX-License-Identifier: Apache-2.0
"""2,000 rows, and the encoder trained as well: LoRA beside the head alone.

The five banks hold a fifth of what they have elsewhere.  Both ways sample the same
records at the same rate, spend the same, and begin with the same public head.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from banks import Banks, Trainer, deal, sampled
from intents import Problem, Rows, minilm
from measuring import Measured
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader

import secure_fl as sfl
from secure_fl.training.adapters import check_adapters, lora, trainable_model
from secure_fl.training.texts import mean_pooled
from secure_fl.training.weights import fill

__all__ = ["FewRows"]

RECORDS = 2000
# Logits are this times the head's: so a step of one size suits head and adapters.
_SCALE = 10.0
_RANK = 4
# A tenth of the usual: noise of one size falls on head and adapters, and an adapter
# that computes little with large numbers is shaken less.  Looked for on the public
# questions alone; at ten times this the model guesses.
_ALPHA = 0.4
_TOKENS = 64
_IN_MEMORY = 64
_SEED = 2024  # of the adapters' public start

Tokens = dict[str, torch.Tensor]


class _Classifier(nn.Module):
    """The encoder, its public centre, and a head: the pipeline of intents.py."""

    centre: torch.Tensor

    def __init__(self, encoder: nn.Module, problem: Problem) -> None:
        super().__init__()
        self.encoder = encoder
        self.register_buffer("centre", torch.from_numpy(problem.centre))
        classes, width = problem.start.shape
        self.head = nn.Linear(width, classes, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(problem.start / _SCALE))

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor
    ) -> torch.Tensor:
        hidden = self.encoder(input_ids=input_ids, attention_mask=attention_mask)[0]
        seen = mean_pooled(hidden, attention_mask) - self.centre
        logits: torch.Tensor = self.head(nn.functional.normalize(seen, dim=1))
        return _SCALE * logits


class FewRows:
    """One seed's 2,000 rows, dealt to five banks."""

    def __init__(self, rows: Rows, problem: Problem, seed: int) -> None:
        self._rows, self._problem = rows, problem
        chosen = np.random.default_rng(seed).permutation(len(rows.train))[:RECORDS]
        self._deal = {n: chosen[part] for n, part in deal(RECORDS, seed).items()}
        self._seed = seed

    def head(self, epsilon: float) -> Measured:
        """The head alone, on cached features."""
        banks = Banks(self._problem, self._seed)
        plan = sampled(epsilon, way="head", values=banks.start.size, scale=1.0)
        trainers = {name: banks.trainer(rows) for name, rows in self._deal.items()}
        finished = sfl.run(plan, trainers, model=banks.start)
        spent = finished.report.claims[0]["consortium"]["epsilon"]
        return Measured({"accuracy": banks.accuracy(finished.model)}, spent)

    def adapters(self, epsilon: float) -> Measured:
        """Adapters of the encoder's queries and values, and the head."""
        encoder, tokenizer = minilm()  # in eval mode, and so without dropout
        model = lora(
            _Classifier(encoder, self._problem),
            rank=_RANK,
            alpha=_ALPHA,
            targets=("query", "value"),
            head=("head",),
            seed=_SEED,
        )

        def batch(texts: Sequence[str]) -> Tokens:
            found: Any = tokenizer(
                list(texts),
                padding=True,
                truncation=True,
                max_length=_TOKENS,
                return_tensors="pt",
            )
            return {k: found[k] for k in ("input_ids", "attention_mask")}

        start = trainable_model(model)
        plan = sampled(epsilon, way="opacus", values=start.size, scale=_SCALE)
        trainers = {
            name: self._trainer(model, rows, batch) for name, rows in self._deal.items()
        }
        finished = sfl.run(plan, trainers, model=start)
        fill(model, finished.model)
        model.eval()
        check_adapters(model, batch(self._rows.test[:16]))
        guesses = []
        with torch.no_grad():
            for at in range(0, len(self._rows.test), _IN_MEMORY):
                texts = self._rows.test[at : at + _IN_MEMORY]
                guesses.append(model(**batch(texts)).argmax(1).numpy())
        right = np.concatenate(guesses) == self._rows.test_y
        spent = finished.report.claims[0]["consortium"]["epsilon"]
        return Measured({"accuracy": float(right.mean())}, spent)

    def _trainer(
        self,
        model: nn.Module,
        rows: NDArray[np.int64],
        batch: Callable[[Sequence[str]], Tokens],
    ) -> Trainer:
        records = [(self._rows.train[i], int(self._rows.train_y[i])) for i in rows]

        def collate(part: list[tuple[str, int]]) -> tuple[Tokens, torch.Tensor]:
            return batch([t for t, _ in part]), torch.tensor([y for _, y in part])

        loader: DataLoader[Any] = DataLoader(records, collate_fn=collate)  # type: ignore[arg-type]

        def fit(r: sfl.ClientRound) -> sfl.PrivateUpdate:
            return r.gradient_sum(
                r.load(model),
                loader,
                nn.CrossEntropyLoss(),
                physical_batch=_IN_MEMORY,
            )

        return fit
