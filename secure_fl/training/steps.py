# SPDX-License-Identifier: Apache-2.0
"""What one noisy step is, and the order that keeps its sensitivity at the clip norm.

A round is ``count`` times: batch, forward, loss, backward, step.  The bound on what
one record can move rests on each of them happening once per step, over the batch the
loader drew and nothing else.  :class:`Steps` therefore accepts this one order, and the
first thing out of order ends the round: no update comes of it.

A batch that does not fit into memory comes in several physical batches, each of which
goes through the same five; only the last one's step moves the weights.  Half a batch
cannot be left behind for the next: the loader goes on where it was, or the round ends.
"""

from __future__ import annotations

import copy
import enum
from collections.abc import Callable, Sequence
from typing import Any, NoReturn, final

import torch
from torch import nn

from ..errors import UsageError

__all__ = ["PrivateCriterion", "Steps", "by_record", "same_bits"]

# Whole numbers of a tensor's own width: four times as fast as bytes.
_BITS = {4: torch.int32, 8: torch.int64}

_ONE_ORDER = (
    "each step is: next batch, one forward of private.model, one private.criterion, "
    "one backward, private.optimizer.step()"
)


def same_bits(left: torch.Tensor, right: torch.Tensor) -> bool:
    """Whether two tensors of one dtype hold the same bytes; NaN equals itself."""
    bits = _BITS.get(left.element_size(), torch.uint8)
    flat = (t.detach().reshape(-1).view(bits) for t in (left, right))
    return torch.equal(*flat)


class _Phase(enum.Enum):
    """What happened last, in words that fit into a message."""

    READY = "the last step is complete"
    BATCH = "a batch was drawn"
    FORWARD = "the forward pass ran"
    LOSS = "the loss was computed"
    BACKWARD = "the backward pass ran"
    OVER = "the round is over"


@final
class Steps:
    """Counts the noisy steps of one round and refuses any other order.

    count
        the plan's ``local_steps``
    trained
        the trained parameters: nothing but :meth:`step_done` may follow a change
    """

    def __init__(self, count: int, *, trained: Sequence[nn.Parameter]) -> None:
        self.count = count
        self.done = 0
        self.rows = 0
        self._last = True
        self._phase = _Phase.READY
        self._refusal: UsageError | None = None
        self._trained = trained
        self._left = [p.detach().clone() for p in trained]
        self._at_end: list[Callable[[], object]] = []

    def at_end(self, undo: Callable[[], object]) -> None:
        """Run ``undo`` when the round is over, whether it succeeded or not."""
        self._at_end.append(undo)

    def refuse(self, message: str, *, hint: str = _ONE_ORDER) -> NoReturn:
        """End the round with a UsageError.  Later calls repeat the first reason."""
        if self._refusal is None:
            self._refusal = UsageError(message, hint=hint)
        self.end()
        raise self._refusal

    def batch(self, rows: int, *, last: bool) -> None:
        """The loader is about to hand out ``rows`` records, the batch's last or not."""
        self._move(_Phase.READY, _Phase.BATCH, "the next batch was drawn")
        self.rows = rows
        self._last = last

    def forward(self, rows: int) -> None:
        self._move(_Phase.BATCH, _Phase.FORWARD, "private.model was called")
        self._check_rows(rows, "private.model was called on")

    def loss(self, rows: int) -> None:
        self._move(_Phase.FORWARD, _Phase.LOSS, "private.criterion was called")
        self._check_rows(rows, "private.criterion gave losses for")

    def backward(self) -> None:
        self._move(_Phase.LOSS, _Phase.BACKWARD, "backward was called")

    def step(self, closure: object) -> bool:
        """``optimizer.step`` begins.  Returns whether the batch is complete."""
        if closure is not None:
            self.refuse("private.optimizer.step takes no closure")
        self._move(_Phase.BACKWARD, _Phase.READY, "private.optimizer.step was called")
        self._check_trained()
        return self._last

    def step_done(self) -> None:
        """The optimizer has moved the weights: remember where to."""
        self.done += 1
        for left, parameter in zip(self._left, self._trained, strict=True):
            left.copy_(parameter.detach())

    def finish(self) -> None:
        """The trainer asks for its update.  Raises UsageError unless all is done."""
        if self._refusal is not None:
            raise self._refusal
        whole = self._phase is _Phase.READY and self._last
        if not whole or self.done != self.count:
            self.refuse(
                f"{self.done} of the plan's {self.count} local steps were taken",
                hint="run the loop over the whole of private.loader, once",
            )
        self._check_trained()
        self.end()

    def end(self) -> None:
        """The round is over, whether it succeeded or not.  May be called again."""
        self._phase = _Phase.OVER
        while self._at_end:
            self._at_end.pop()()

    def _move(self, source: _Phase, target: _Phase, what: str) -> None:
        if self._phase is not source:
            self.refuse(f"{what} where {self._phase.value}")
        self._phase = target

    def _check_rows(self, rows: int, what: str) -> None:
        if rows != self.rows:
            self.refuse(
                f"{what} {rows} rows, but the batch has {self.rows} records",
                hint="keep one row per record of the batch, in the first dimension",
            )

    def _check_trained(self) -> None:
        for left, parameter in zip(self._left, self._trained, strict=True):
            if left.dtype != parameter.dtype or left.shape != parameter.shape:
                self.refuse("a trained parameter changed its shape or dtype")
            if not same_bits(left, parameter):
                self.refuse(
                    "the weights were changed by something other than "
                    "private.optimizer.step()",
                    hint="such a change may carry exact values of records: pass "
                    "private.optimizer to your loop, and keep no other optimizer",
                )


def by_record(criterion: nn.Module) -> nn.Module:
    """A copy of ``criterion`` with reduction "none"."""
    copied = copy.deepcopy(criterion)
    copied.reduction = "none"  # type: ignore[assignment]
    return copied


class _SumGradient(torch.autograd.Function):
    """Shows the batch's loss; its gradient is that of the sum over records.

    The gradient of a mean carries 1 / batch size, which depends on who was sampled.
    Multiplying it out again would leave its rounding behind; so it never enters.

    Nor does anything else that is computed from the batch: a function of the loss, as
    its square, would scale every record's gradient, before the clipping, by what all
    records have in common.  The incoming gradient is therefore 1, or the round is over.
    """

    @staticmethod
    def forward(
        ctx: Any, losses: torch.Tensor, steps: Steps, divisor: int
    ) -> torch.Tensor:
        ctx.steps = steps
        ctx.rows = len(losses)
        return losses.sum() / divisor

    @staticmethod
    def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        ctx.steps.backward()
        if gradient.item() != 1.0:
            ctx.steps.refuse(
                "the loss was changed after private.criterion",
                hint="call backward() on exactly what it returned",
            )
        return gradient.expand(ctx.rows), None, None


@final
class PrivateCriterion(nn.Module):
    """The user's criterion, record by record.

    It shows the "mean" or "sum" over the batch of the records' losses, and hands each
    record's own gradient back: call ``backward()`` on exactly what it returns.

    Where a record has many losses (tokens, outputs), its loss is their sum, whatever
    the reduction: a mean would divide by the length to which the batch was padded,
    which is that of its longest record.  "mean" divides by the number of records also
    where the criterion weighs classes or ignores labels: dividing by the batch's total
    weight would let one record scale all others.

    Where the model is in eval mode, or no gradient is wanted, it only shows.
    """

    def __init__(
        self, criterion: nn.Module, steps: Steps, *, training: Callable[[], bool]
    ) -> None:
        """``training`` says whether the model is in training mode."""
        super().__init__()
        self.reduction = str(criterion.reduction)
        self._by_record = by_record(criterion)
        self._steps = steps
        self._training = training

    def forward(self, outputs: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """The loss of ``outputs`` (first dimension: records), one scalar.

        Raises UsageError, and ends the round, where the losses are not one row per
        record.  So does ``backward`` on anything but the value itself.
        """
        losses: torch.Tensor = self._by_record(outputs, targets)
        if losses.dim() == 0:
            self._steps.refuse(
                'the criterion gives one loss for the batch under reduction="none"',
                hint="use a criterion of torch.nn, or honour the reduction",
            )
        mean = self.reduction == "mean"
        if losses.dim() > 1:
            losses = losses.flatten(1).sum(1)
        divisor = max(len(losses), 1) if mean else 1
        wanted = torch.is_grad_enabled() and losses.requires_grad
        if not (wanted and self._training()):
            return losses.sum() / divisor
        self._steps.loss(len(losses))
        shown = _SumGradient.apply(losses, self._steps, divisor)  # type: ignore[no-untyped-call]
        assert isinstance(shown, torch.Tensor)
        return shown
