# SPDX-License-Identifier: Apache-2.0
"""Batches of no records, for models that cannot take them.

A Poisson batch may be empty, and must pass like any other: a step that fails or is
left out would show that nobody was sampled.  Many models (all BERTs of Hugging Face)
cannot reshape a tensor of no rows.  Nothing of them is needed for one: the gradient of
no records is zero.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn

__all__ = ["accept_empty"]


def accept_empty(model: nn.Module) -> Callable[[], None]:
    """Let ``model`` take batches of no rows; returns what ends it.

    For such a batch the model runs on one row of zeros, without gradients and so
    without Opacus' hooks, and what it returns is cut to no rows.  ``backward`` ends
    there: every parameter's gradient is that of no records.
    """
    plain = model.forward

    def forward(*args: Any, **kwargs: Any) -> Any:
        if not _is_empty((*args, *kwargs.values())):
            return plain(*args, **kwargs)
        args, kwargs = _each(args, _one_row), _each(kwargs, _one_row)
        with torch.no_grad():
            shown = plain(*args, **kwargs)
        return _each(shown, _no_rows)

    own = "forward" in vars(model)  # as of a library that has put itself in between

    def end() -> None:
        if own:
            model.forward = plain
        else:
            del model.forward  # the class's is seen again

    model.forward = forward
    return end


def _is_empty(values: tuple[Any, ...]) -> bool:
    """As the first tensor with rows says; it is the one whose rows are counted."""
    for value in values:
        if isinstance(value, torch.Tensor) and value.dim():
            return len(value) == 0
    return False


def _each(value: Any, change: Callable[[torch.Tensor], torch.Tensor]) -> Any:
    """``value`` with every tensor in it changed, containers kept."""
    if isinstance(value, torch.Tensor):
        return change(value)
    if type(value) is dict:
        return {k: _each(v, change) for k, v in value.items()}
    if isinstance(value, Mapping):  # an output of transformers
        return type(value)(**{k: _each(v, change) for k, v in value.items()})
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*(_each(v, change) for v in value))
    if isinstance(value, (list, tuple)):
        return type(value)(_each(v, change) for v in value)
    return value


def _one_row(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.dim() or len(tensor):
        return tensor
    return tensor.new_zeros((1, *tensor.shape[1:]))


def _no_rows(tensor: torch.Tensor) -> torch.Tensor:
    if not tensor.dim():
        return tensor
    none = tensor[:0].detach()
    return none.requires_grad_() if none.is_floating_point() else none
