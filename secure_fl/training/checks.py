# SPDX-License-Identifier: Apache-2.0
"""What is refused before a round is charged, and what is watched while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer

from ..errors import UsageError
from .steps import Steps

__all__ = [
    "asleep",
    "check_criterion",
    "check_modes",
    "check_optimizer",
    "check_physical_batch",
    "watch_forward",
]


@contextlib.contextmanager
def asleep(model: nn.Module) -> Iterator[None]:
    """All modules in eval mode; each gets its own mode back."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


def check_modes(model: nn.Module) -> None:
    """Raises UsageError where a module's mode would leak records or stop gradients."""
    for name, module in model.named_modules():
        trains = any(p.requires_grad for p in module.parameters(recurse=False))
        if not module.training and (module is model or trains):
            raise UsageError(
                f"{name or 'the model'} is trained but in eval mode",
                hint="call model.train(), then .eval() on the frozen parts only",
            )
        if not isinstance(module, _NormBase):
            continue
        tracks = module.running_mean is not None
        batch_norm = not isinstance(
            module, (nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d)
        )
        if (module.training and (tracks or batch_norm)) or (batch_norm and not tracks):
            raise UsageError(
                f"{name or 'the model'} ({type(module).__name__}) would mix the "
                "records of a batch, or keep their statistics",
                hint="call .eval() on a frozen BatchNorm (it needs running "
                "statistics), and use GroupNorm where layers are trained",
            )


def check_criterion(criterion: nn.Module) -> None:
    reduction = getattr(criterion, "reduction", None)
    if not isinstance(criterion, nn.Module) or reduction not in ("mean", "sum"):
        raise UsageError(
            "the criterion has no reduction 'mean' or 'sum'",
            hint="use a criterion of torch.nn, as nn.CrossEntropyLoss()",
        )


def check_physical_batch(size: int | None) -> None:
    if size is not None and (type(size) is not int or size < 1):
        raise UsageError(
            f"physical_batch is {size!r}, not a positive number of records",
            hint="leave it out where a whole batch fits into memory",
        )


def check_optimizer(optimizer: Optimizer, trained: list[nn.Parameter]) -> None:
    if not isinstance(optimizer, Optimizer):
        raise UsageError(
            f"the optimizer is a {type(optimizer).__name__}",
            hint="use an optimizer of torch.optim",
        )
    held = {
        id(p) for group in optimizer.param_groups for p in group["params"]
        if p.requires_grad
    }  # fmt: skip
    if held != {id(p) for p in trained}:
        raise UsageError(
            "the optimizer does not hold exactly the trained parameters",
            hint="make it from the model that is passed: "
            "SGD((p for p in model.parameters() if p.requires_grad), lr=...)",
        )
    if optimizer.state:
        raise UsageError(
            "the optimizer has already taken steps",
            hint="its state may hold exact gradients: make a new one for each round",
        )
    if isinstance(optimizer, torch.optim.LBFGS):
        raise UsageError(
            "LBFGS evaluates the loss several times per step",
            hint="use SGD, Adam or another optimizer that needs no closure",
        )


def watch_forward(model: nn.Module, steps: Steps) -> None:
    """Count training forwards, and keep asleep what was in eval mode."""
    sleepers = [m for m in model.modules() if not m.training]

    def before(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if not module.training:
            return
        for sleeper in sleepers:  # a loop's model.train() has woken a frozen BatchNorm
            sleeper.training = False
        if not torch.is_grad_enabled():
            return
        for value in (*args, *kwargs.values()):
            if isinstance(value, torch.Tensor) and value.dim():
                steps.forward(len(value))
                return
        steps.refuse(
            "private.model was called without a tensor",
            hint="pass the batch's tensors to the model's forward",
        )

    handle = model.register_forward_pre_hook(before, with_kwargs=True)
    steps.at_end(handle.remove)
