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

from typing import Any, final

import torch
from torch import nn

from ..errors import UsageError
from .clipping import LinearPart
from .steps import Steps

__all__ = ["HeadGradients", "linear_of"]


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
class HeadGradients:
    """Records' gradients of a linear head.

    While the round lasts, the model's training forward returns logits cut off from the
    weights: ``backward`` stops at them, and nothing else makes a gradient.
    """

    def __init__(
        self, model: nn.Module, layer: nn.Linear, steps: Steps, *, dtype: torch.dtype
    ) -> None:
        """``dtype`` is what sums over records are taken in."""
        self._layer = layer
        self._steps = steps
        self._dtype = dtype
        self._features: torch.Tensor | None = None
        self._logits: torch.Tensor | None = None
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

    def take(self) -> list[LinearPart]:
        features, logits = self._features, self._logits
        self._features = self._logits = None
        if features is None or logits is None or logits.grad is None:
            return []  # a loss that does not depend on the logits
        return [LinearPart(self._layer, features, logits.grad, dtype=self._dtype)]
