# SPDX-License-Identifier: Apache-2.0
"""A linear head on cached features: per-record gradient norms in closed form.

For logits = W h + b, the gradient of one record's loss is the outer product of
e = dloss/dlogits with (h, 1).  Its norm is |e| sqrt(|h|^2 + 1), and the clipped sum
over a batch is (w E)^T [H, 1]: two matrix products, as without privacy, and no
per-record gradient is ever stored.

This holds where each row of features depends on its own record only: the backbone is
frozen, in eval mode, and has not seen this data.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, final

import torch
from torch import nn
from torch.optim import Optimizer

from ..errors import UsageError
from .steps import GaussianStep, Steps

__all__ = ["HeadOptimizer", "linear_of"]


def linear_of(model: nn.Module) -> nn.Linear:
    """The one linear layer that ``model`` is.  Raises UsageError for any other."""
    layer = model
    if type(model) is nn.Sequential and len(model) == 1:
        layer = model[0]
    if type(layer) is not nn.Linear:
        raise UsageError(
            'the plan\'s way is "head", but the model is not one linear layer',
            hint="pass nn.Linear(features, classes) and cached features of the "
            'frozen backbone, or plan way = "opacus"',
        )
    if not all(p.requires_grad for p in layer.parameters()):
        raise UsageError(
            "a part of the linear layer is frozen",
            hint='train both weight and bias, or plan way = "opacus"',
        )
    return layer


@final
class HeadOptimizer(Optimizer):
    """The user's optimizer, stepping on clipped and noised sums of a linear head.

    While the round lasts, the model's training forward returns logits cut off from the
    weights: ``backward`` stops at them, and only this class makes a gradient.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        model: nn.Module,
        layer: nn.Linear,
        mechanism: GaussianStep,
        steps: Steps,
    ) -> None:
        # Not super().__init__: groups and state stay the user's, so that its
        # schedulers and momentum go on working.
        self.original_optimizer = optimizer
        self.param_groups = optimizer.param_groups
        self.state = optimizer.state
        self.defaults = optimizer.defaults
        self._layer = layer
        self._mechanism = mechanism
        self._steps = steps
        self._features: torch.Tensor | None = None
        self._logits: torch.Tensor | None = None
        self._clipped: list[tuple[torch.Tensor, torch.Tensor]] = []
        handle = model.register_forward_hook(self._cut, with_kwargs=True)
        steps.at_end(handle.remove)

    def _cut(
        self,
        module: nn.Module,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        output: torch.Tensor,
    ) -> torch.Tensor | None:
        if not (module.training and torch.is_grad_enabled()):
            return None
        features: torch.Tensor = args[0] if args else kwargs["input"]
        if features.dim() != 2:
            self._steps.refuse(
                f"the features have {features.dim()} dimensions",
                hint="a head takes one row of features per record",
            )
        self._features = features.detach()
        self._logits = output.detach().requires_grad_()
        return self._logits

    def clip_and_accumulate(self) -> None:
        """Each record's gradient clipped to the clip norm, summed."""
        weight, bias = self._layer.weight, self._layer.bias
        assert self._features is not None  # Steps: a forward came before
        assert self._logits is not None
        features = self._features.to(weight)
        errors = self._logits.grad
        errors = torch.zeros_like(self._logits) if errors is None else errors
        errors = errors.to(weight)
        self._features = self._logits = None

        squares = features.square().sum(1)
        if bias is not None:
            squares = squares + 1.0
        norms = torch.linalg.vector_norm(errors, dim=1) * squares.sqrt()
        finite = norms.isfinite()
        if not finite.all():
            # 0 * inf is not 0: a row that counts as zero has to go altogether.
            features, errors, norms = features[finite], errors[finite], norms[finite]
        errors = errors * self._mechanism.factors(norms)[:, None]
        self._clipped = [(weight, errors.T @ features)]
        if bias is not None:
            self._clipped.append((bias, errors.sum(0)))

    def add_noise(self) -> None:
        """The noisy sums become the parameters' gradients."""
        for parameter, clipped in self._clipped:
            parameter.grad = self._mechanism.noisy(clipped)
        self._clipped = []

    def scale_grad(self) -> None:
        """Divided by the plan's normaliser, whatever the criterion's reduction."""
        for parameter in self._layer.parameters():
            assert parameter.grad is not None
            parameter.grad /= self._mechanism.normaliser

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One noisy step over the batch the loader drew last."""
        self._steps.step(closure)
        self.clip_and_accumulate()
        self.add_noise()
        self.scale_grad()
        self.original_optimizer.step()
        self._steps.step_done()

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Harmless and not needed: a step uses nothing of the step before."""
        self.original_optimizer.zero_grad(set_to_none)

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self._steps.refuse(
            "a parameter was added to the optimizer within a round",
            hint="hand all trained parameters to the optimizer before make_private",
        )

    def state_dict(self) -> dict[str, Any]:
        return self.original_optimizer.state_dict()

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._steps.refuse(
            "an optimizer state was loaded within a round",
            hint="start each round with a new optimizer",
        )

    def __repr__(self) -> str:
        return f"HeadOptimizer({self.original_optimizer!r})"
