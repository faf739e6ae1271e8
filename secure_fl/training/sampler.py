# SPDX-License-Identifier: Apache-2.0
"""Poisson batches: every record is in every batch independently, with one rate.

The user's loader gives its data set and its collate function; its batch size, order,
sampler and workers are replaced.  Empty batches are handed out like all others: a step
left out would show that nobody was sampled.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, final

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils.data import (
    BatchSampler,
    DataLoader,
    Dataset,
    IterableDataset,
    RandomSampler,
    SequentialSampler,
    TensorDataset,
    default_collate,
)

from ..errors import UsageError
from ..randomness import ArrayDraws
from .steps import Steps

__all__ = ["Batches", "PoissonLoader", "mapped", "moved"]


@final
class Batches:
    """Makes the batch of given records out of a user's loader.

    Raises UsageError for a loader that cannot be sampled record by record.
    """

    def __init__(self, loader: DataLoader[Any]) -> None:
        if not isinstance(loader, DataLoader):
            raise UsageError(
                f"the loader is a {type(loader).__name__}, not a DataLoader",
                hint="wrap your data set in torch.utils.data.DataLoader",
            )
        dataset = loader.dataset
        if isinstance(dataset, IterableDataset) or not hasattr(dataset, "__len__"):
            raise UsageError(
                "the data set has no length or no index: it cannot be sampled",
                hint="use a map-style data set, with __len__ and __getitem__",
            )
        if loader.batch_size is None and loader.batch_sampler is None:
            raise UsageError(
                "the loader does no batching: each item may hold many records",
                hint="let each item of the data set be one record, and give the "
                "loader a batch_size",
            )
        _check_sampler(loader)
        self.dataset: Dataset[Any] = dataset
        self.size = len(dataset)
        if not self.size:
            raise UsageError(
                "the data set has no records", hint="a member needs at least one record"
            )
        self._collate: Callable[[list[Any]], Any] = loader.collate_fn
        self._tensors: tuple[torch.Tensor, ...] | None = None
        if type(dataset) is TensorDataset and self._collate is default_collate:
            self._tensors = dataset.tensors
        self._empty = _without_rows(self._of(np.zeros(1, np.int64)))

    @property
    def pairs(self) -> bool:
        """Whether a batch is (inputs, targets)."""
        return isinstance(self._empty, (tuple, list)) and len(self._empty) == 2

    def check_pairs(self) -> None:
        """Raises UsageError unless a batch is (inputs, targets)."""
        if not self.pairs:
            raise UsageError(
                "a batch of the loader is not a pair (inputs, targets)",
                hint="give the loader a collate_fn that returns one; inputs are one "
                "tensor, or a dictionary of the model's keyword arguments",
            )

    def of(self, indices: NDArray[np.int64]) -> Any:
        """The collated batch of these records; of none, the same with no rows."""
        # A new one each time: a loop may take its batch apart.
        return self._of(indices) if len(indices) else _without_rows(self._empty)

    def made_up(self, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
        """A batch of nobody's: ``change`` gets each tensor, cut to no rows.

        None where something in a batch is not a tensor: it cannot be made up.
        """
        return mapped(self._empty, change) if _of_tensors(self._empty) else None

    def _of(self, indices: NDArray[np.int64]) -> Any:
        if self._tensors is not None:
            rows = torch.from_numpy(indices)
            return [tensor.index_select(0, rows) for tensor in self._tensors]
        return self._collate([self.dataset[i] for i in indices.tolist()])


def _check_sampler(loader: DataLoader[Any]) -> None:
    """Raises UsageError where the user's own choice of records would be lost.

    The records are the data set's, all of them: who left some out by a sampler would
    have them trained on, and told to nobody.
    """
    batches = loader.batch_sampler
    own = batches.sampler if type(batches) is BatchSampler else None
    every = type(own) is SequentialSampler or (
        type(own) is RandomSampler
        and not own.replacement
        and own.num_samples == len(own.data_source)
    )
    if not every or own.data_source is not loader.dataset:  # type: ignore[union-attr]
        raise UsageError(
            "the loader's sampler chooses among the records: the plan's sampling "
            "takes its place",
            hint="choose them in the data set, as Subset(dataset, rows), and leave the "
            "sampler out",
        )


def _without_rows(batch: Any) -> Any:
    """``batch`` with every tensor cut to zero rows, containers kept."""
    if isinstance(batch, torch.Tensor):
        return batch[:0] if batch.dim() else batch
    if isinstance(batch, Mapping):
        return type(batch)({k: _without_rows(v) for k, v in batch.items()})  # type: ignore[call-arg]
    if isinstance(batch, tuple) and hasattr(batch, "_fields"):
        return type(batch)(*(_without_rows(v) for v in batch))
    if isinstance(batch, (list, tuple)):
        if any(isinstance(v, (torch.Tensor, Mapping, list, tuple)) for v in batch):
            return type(batch)([_without_rows(v) for v in batch])
        return type(batch)()  # one text or number per record
    return batch


def _of_tensors(batch: Any) -> bool:
    """Whether ``batch`` is tensors, in containers of which none is empty."""
    if isinstance(batch, (Mapping, list, tuple)):
        values = list(batch.values() if isinstance(batch, Mapping) else batch)
        return bool(values) and all(_of_tensors(value) for value in values)
    return isinstance(batch, torch.Tensor)


def mapped(batch: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """``batch`` with every tensor changed; containers become plain ones."""
    if isinstance(batch, torch.Tensor):
        return change(batch)
    if isinstance(batch, Mapping):
        return {k: mapped(v, change) for k, v in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [mapped(v, change) for v in batch]
    return batch


def moved(batch: Any, device: torch.device) -> Any:
    """``batch`` with every tensor on ``device``."""
    return mapped(batch, lambda tensor: tensor.to(device))


@final
class PoissonLoader:
    """``steps.count`` Poisson batches, once.  Takes the place of the user's loader.

    physical_batch
        most records that are handed out at once; a batch of more comes in several
    """

    def __init__(
        self,
        batches: Batches,
        *,
        rate: float,
        draws: ArrayDraws,
        steps: Steps,
        physical_batch: int | None,
    ) -> None:
        self.dataset = batches.dataset
        self._batches = batches
        self._physical_batch = physical_batch
        self._rate = rate
        self._draws = draws
        self._steps = steps
        self._started = False

    def __len__(self) -> int:
        """The number of batches, whole ones: the plan's ``local_steps``."""
        return self._steps.count

    def __iter__(self) -> Iterator[Any]:
        if self._started:
            self._steps.refuse(
                "private.loader was iterated a second time",
                hint="one pass over it is all local steps of the round: "
                "loop once, and set the number of steps in the plan",
            )
        self._started = True
        return self._draw()

    def _draw(self) -> Iterator[Any]:
        for _ in range(self._steps.count):
            indices = self._draws.poisson_sample(self._rate, self._batches.size)
            end = max(1, len(indices))  # no records are one empty batch
            size = self._physical_batch or end
            for start in range(0, end, size):
                part = indices[start : start + size]
                self._steps.batch(len(part), last=start + size >= end)
                yield self._batches.of(part)
