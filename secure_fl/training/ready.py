# SPDX-License-Identifier: Apache-2.0
"""A model, its records and a loss: checked, tried out, and made into a round's loop.

Much of what the sums rest on shows only when a model runs: whether each layer keeps one
row per record, whether a row depends on its own record only, whether there is one loss
per record.  A round that fails there is charged for nothing, and one that fails because
of a record shows that it was drawn.  So the model runs beforehand, under the hooks of a
real step, on made-up records that have no more than the form of real ones.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple, final

import torch
from torch import nn
from torch.utils.data import DataLoader

from ..errors import SecureFLError, UsageError
from ..model import GlobalModel
from ..plan import Plan
from ..randomness import RandomSource
from .checks import (
    check_criterion,
    check_modes,
    check_physical_batch,
    watch_forward,
)
from .clipping import ClippedSums, RecordGradients
from .empty import accept_empty
from .generators import seeded
from .head import HeadGradients, linear_of
from .sampler import Batches, PoissonLoader, moved
from .steps import PrivateCriterion, Steps, by_record
from .trial import as_before, check_rows_apart, outputs_of, patterned, zeros
from .weights import Weights

__all__ = ["Loop", "Ready"]

# Two numbers of records: a layer that sees time steps may see as many as one of them.
_TRIED: Final = (2, 3)


class Loop(NamedTuple):
    """The parts of one round's loop."""

    steps: Steps
    loader: PoissonLoader
    criterion: PrivateCriterion
    gradients: RecordGradients


@final
class Ready:
    """A model, its records and a loss that have passed all checks, and no more."""

    def __init__(
        self,
        plan: Plan,
        start: GlobalModel,
        model: nn.Module,
        loader: DataLoader[Any],
        criterion: nn.Module,
        physical_batch: int | None,
        *,
        ghost: bool,
    ) -> None:
        """Raises UsageError."""
        self.weights = Weights(model, start)
        check_modes(model)
        check_criterion(criterion)
        check_physical_batch(physical_batch)
        self.batches = Batches(loader)
        self._model = model
        self._criterion = criterion
        self._physical_batch = physical_batch
        self._rate = plan.privacy.sampling_rate
        training = plan.training
        head = training is not None and training.way == "head"
        self._watch = _head(model, ghost) if head else _layers(model, ghost)

    @property
    def device(self) -> torch.device:
        return self.weights.trained[0].device

    def try_out(self, *, own_loop: bool) -> None:
        """Let the model and the loss run on made-up records.  Raises UsageError.

        own_loop
            the loop is the user's, and may change a batch before the model or the loss
            sees it: that they fail at it says nothing then

        Nothing of the model is changed.  Where a batch is not a pair (inputs, targets)
        of tensors, nothing is tried.
        """
        batch = self.batches.made_up(patterned(3)) if self.batches.pairs else None
        if batch is None:
            return
        inputs, _ = moved(batch, self.device)
        _, targets = moved(self.batches.made_up(zeros(3)), self.device)
        with as_before(self._model):
            check_rows_apart(self._model, by_record(self._criterion), inputs, targets)
        with as_before(self._model) as check_buffers:
            self._step_on_zeros(own_loop=own_loop)
            check_buffers()

    def begin(self, random: RandomSource, *, steps: int, sums_in: torch.dtype) -> Loop:
        """``sums_in``: the least precision that sums over records are taken in.

        Caller ends the loop's ``steps``: until then, the model has hooks and torch's
        generators are seeded.  Where this raises, that is undone.
        """
        order = Steps(steps, trained=self.weights.trained)
        try:
            loader = PoissonLoader(
                self.batches,
                rate=self._rate,
                draws=random.arrays("sampling"),
                steps=order,
                physical_batch=self._physical_batch,
            )
            order.at_end(seeded(random))
            order.at_end(accept_empty(self._model))
            return Loop(order, loader, *self._watched(order, sums_in))
        except BaseException:
            order.end()
            raise

    def backward(self, criterion: PrivateCriterion, batch: Any) -> None:
        """Forward pass, loss and backward pass over a pair (inputs, targets)."""
        inputs, targets = moved(batch, self.device)
        criterion(outputs_of(self._model, inputs), targets).backward()

    def _watched(
        self, order: Steps, sums_in: torch.dtype
    ) -> tuple[PrivateCriterion, RecordGradients]:
        watch_forward(self._model, order)
        criterion = PrivateCriterion(
            self._criterion, order, training=lambda: self._model.training
        )
        return criterion, self._watch(order, sums_in)

    def _step_on_zeros(self, *, own_loop: bool) -> None:
        order = Steps(len(_TRIED), trained=self.weights.trained)
        sums = ClippedSums(self.weights.trained, clip_norm=1.0)
        try:
            criterion, gradients = self._watched(order, torch.float32)
            for rows in _TRIED:
                batch = self.batches.made_up(zeros(rows))
                order.batch(rows, last=True)
                try:
                    self.backward(criterion, batch)
                except Exception:
                    if own_loop:
                        return
                    raise
                order.step(None)
                sums.add(gradients.take())
        except SecureFLError:
            raise
        except Exception as error:
            raise UsageError(
                "the model or the loss failed on a batch of zeros: "
                f"{type(error).__name__}: {error}",
                hint="it has the form of the loader's batches, and labels 0: nothing "
                "was charged",
            ) from error
        finally:
            order.end()


_Watch = Callable[[Steps, torch.dtype], RecordGradients]


def _head(model: nn.Module, ghost: bool) -> _Watch:
    if ghost:
        raise UsageError(
            'ghost clipping is for way = "opacus"',
            hint="a head keeps no gradients of records anyway: leave it out",
        )
    layer = linear_of(model)
    return lambda steps, dtype: HeadGradients(model, layer, steps, dtype=dtype)


def _layers(model: nn.Module, ghost: bool) -> _Watch:
    from . import opacus_core  # takes seconds to import

    opacus_core.check_supported(model, ghost=ghost)
    if ghost:
        return lambda steps, _: opacus_core.GhostGradients(model, steps)
    return lambda steps, dtype: opacus_core.HookGradients(model, steps, dtype=dtype)
