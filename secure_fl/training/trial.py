# SPDX-License-Identifier: Apache-2.0
"""Made-up records, and what they show of a model before a real one is looked at."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

import torch
from torch import nn

from ..errors import UsageError
from .checks import asleep
from .generators import forked
from .sampler import mapped
from .steps import same_bits

__all__ = ["as_before", "check_rows_apart", "outputs_of", "patterned", "zeros"]

# In units of the largest output.  Another number of rows is another order of sums:
# 1e-6 of float32, seen.
_ROUNDING: Final = 1e-3
_HALF_ROUNDING: Final = 0.1


def zeros(rows: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Makes a tensor cut to no rows into one of ``rows`` rows of zeros."""
    return lambda t: t.new_zeros((rows, *t.shape[1:])) if t.dim() else t


def patterned(rows: int) -> Callable[[torch.Tensor], torch.Tensor]:
    """Makes a tensor cut to no rows into ``rows`` different ones.

    Numbers between -1 and 1; where they have to be whole, 0 and 1, which every table of
    embeddings has.
    """

    def change(tensor: torch.Tensor) -> torch.Tensor:
        if not tensor.dim():
            return tensor
        out = tensor.new_zeros((rows, *tensor.shape[1:]))
        places = torch.arange(out.numel(), dtype=torch.float64)
        wave = torch.cos(places.square()).view(out.shape)
        return out.copy_(wave if out.is_floating_point() else wave > 0)

    return change


def outputs_of(model: nn.Module, inputs: Any) -> Any:
    """``inputs`` are one tensor, or a dictionary of keyword arguments."""
    outputs = model(**inputs) if isinstance(inputs, dict) else model(inputs)
    return getattr(outputs, "logits", outputs)


@contextlib.contextmanager
def as_before(model: nn.Module) -> Iterator[Callable[[], None]]:
    """Buffers, gradients and torch's generators are afterwards as they were.

    Gives a check that raises UsageError where a buffer has changed meanwhile.
    """
    buffers = [
        (module, name, buffer, buffer.clone())
        for module in model.modules()
        for name, buffer in module._buffers.items()
        if buffer is not None
    ]
    gradients = [(p, p.grad) for p in model.parameters()]
    for parameter, _ in gradients:
        parameter.grad = None

    def check() -> None:
        for module, name, buffer, value in buffers:
            if module._buffers[name] is not buffer or not same_bits(buffer, value):
                raise UsageError(
                    f"{name!r}, a buffer of the model ({type(module).__name__}), "
                    "changed in the forward pass",
                    hint="no exact statistic of records may stay in the model: put "
                    "such layers into eval mode",
                )

    try:
        with forked():
            yield check
    finally:
        for module, name, buffer, value in buffers:
            module._buffers[name] = buffer
            if not same_bits(buffer, value):
                with torch.no_grad():
                    buffer.copy_(value)
        for parameter, gradient in gradients:
            parameter.grad = gradient


def check_rows_apart(
    model: nn.Module, by_record: nn.Module, inputs: Any, targets: Any
) -> None:
    """Raises UsageError where a row's output or loss changes with the rows beside it.

    by_record
        a criterion that gives each record's loss
    inputs, targets
        three rows.  Compared is the middle one, in eval mode, where dropout sleeps

    Says nothing of a model or a criterion that does not take them, that does not give
    one tensor with a row each, or that is random in eval mode too.
    """

    def outputs(rows: slice) -> Any:
        return outputs_of(model, _taken(inputs, rows))

    def losses(rows: slice) -> Any:
        return by_record(outputs(rows), _taken(targets, rows))

    tensors = [*model.parameters(), *model.buffers()]
    half = any(t.is_floating_point() and t.element_size() < 4 for t in tensors)
    rounding = _HALF_ROUNDING if half else _ROUNDING
    device = tensors[0].device.type
    with asleep(model), torch.no_grad(), torch.autocast(device, enabled=False):
        moved, scale = _alone_and_beside(outputs)
        if moved > rounding * scale:
            raise UsageError(
                "a row of the model's output changes with the rows beside it",
                hint="one record would move the gradients of others: use no statistics "
                "of a batch, no attention between its rows, and let the model take "
                "batches just as the loader gives them",
            )
        moved, largest = _alone_and_beside(losses)
        # A loss of nearly nothing keeps the rounding of the outputs it came from.
        if moved > rounding * max(largest, scale):
            raise UsageError(
                "a record's loss changes with the records beside it",
                hint="one record would move the gradients of others: compare no record "
                "with another in the criterion",
            )


def _taken(batch: Any, rows: slice) -> Any:
    """A copy: a model may change its inputs."""
    return mapped(batch, lambda t: t[rows].clone() if t.dim() else t)


def _alone_and_beside(run: Callable[[slice], Any]) -> tuple[float, float]:
    """How far the middle one of three rows moves, and the largest value of all rows.

    No distance where there is nothing to compare.
    """
    try:
        alone, again, all_three = (
            run(rows).double() for rows in (slice(1, 2), slice(1, 2), slice(0, 3))
        )
        if all_three.shape[1:] != alone.shape[1:] or len(all_three) != 3:
            return 0.0, 0.0
        largest = float(all_three.abs().max())
        moved = float((all_three[1:2] - alone).abs().max())
        random = float((again - alone).abs().max())
    except Exception:  # whatever a user's model may raise at numbers it does not know
        return 0.0, 0.0
    # By more than the rounding of this very comparison: drawn anew each time.
    return (moved if random < 0.1 * moved else 0.0), largest
