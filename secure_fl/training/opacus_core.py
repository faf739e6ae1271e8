# SPDX-License-Identifier: Apache-2.0
"""Any model Opacus can take: its per-sample gradients, our clipping and our noise.

Of Opacus this uses the hooks and the formulas that compute per-sample gradients, and
the module validator.  Not its PrivacyEngine, sampler, optimizer, accountant or noise:
those read the data's own length, draw from torch's global generator and forget the
rounds before.

Two ways to the same sums: *hooks* keep the gradient of every record of the physical
batch until its norm is known; *ghost* keeps each layer's inputs and errors instead, and
works one layer at a time.  Opacus' own ghost clipping takes the sum from a second
backward pass, whose rounding (in half precision above all) the norms know nothing of;
here both come from the same numbers, in float64, after one pass.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, final

import torch
from opacus.grad_sample.functorch import ft_compute_per_sample_gradient
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from opacus.layers.dp_rnn import DPRNNBase
from opacus.validators import ModuleValidator
from torch import nn

from ..errors import UsageError
from .clipping import EmbeddingPart, LinearPart, Part, SampledPart, StoredPart
from .steps import Steps

__all__ = ["GhostGradients", "HookGradients", "check_supported"]

# The first layer's input needs no gradient, which is just what is meant here.  Once,
# for the process: the warning comes in the user's own call of backward.
warnings.filterwarnings(
    "ignore", message="Full backward hook is firing", category=UserWarning
)


def check_supported(model: nn.Module, *, ghost: bool) -> None:
    """Raises UsageError where Opacus cannot take ``model``, with its reasons."""
    errors = [str(e) for e in ModuleValidator.validate(model, strict=False)]
    if hasattr(model, "autograd_grad_sample_hooks"):
        errors.append("it still carries the hooks of another round")
    if not errors:
        try:
            GradSampleHooks(model, loss_reduction="sum").cleanup()
        except NotImplementedError as error:
            errors.append(str(error))
        finally:
            _clean(model)
    if errors:
        raise UsageError(
            "Opacus cannot train this model: " + "; ".join(errors),
            hint="replace those layers (GroupNorm for BatchNorm), freeze them, "
            "or make a new model for each round",
        )
    _check_root(model)
    if ghost:
        _check_ghost(model)


def _check_root(model: nn.Module) -> None:
    """A layer without a formula is run again, on its own, for its gradients; run again
    as a whole, the model would look like another forward pass."""
    own = [n for n, p in model.named_parameters(recurse=False) if p.requires_grad]
    if own and type(model) not in GradSampleHooks.GRAD_SAMPLERS:
        raise UsageError(
            f"{own[0]!r} is trained and in none of the model's layers, but in the "
            f"model itself, a {type(model).__name__}",
            hint="wrap it in a module that calls it, as nn.Sequential(model)",
        )


def _check_ghost(model: nn.Module) -> None:
    """A parameter must enter once: norms of two uses do not add up."""
    users: dict[int, str] = {}
    for name, module in model.named_modules():
        if isinstance(module, DPRNNBase) and any(
            p.requires_grad for p in module.parameters()
        ):
            raise UsageError(
                f"{name or 'the model'} uses its weights once per time step",
                hint="recurrent layers take no ghost clipping: leave it out",
            )
        for own, p in module.named_parameters(recurse=False):
            if p.requires_grad and id(p) in users:
                raise UsageError(
                    f"'{name}.{own}' and {users[id(p)]!r} are one parameter",
                    hint="tied parameters take no ghost clipping: leave it out",
                )
            users[id(p)] = f"{name}.{own}"


class _Watched:
    """Hooks on a model until the round is over.

    The plain gradient, which sums unclipped records, is dropped as soon as it exists:
    no other optimizer can step on it.
    """

    def __init__(self, model: nn.Module, steps: Steps, hooks: GradSampleHooks) -> None:
        self._steps = steps

        def detach() -> None:
            hooks.cleanup()
            _clean(model)

        steps.at_end(detach)
        named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
        self._names = [f"the layer of {name}" for name, _ in named]
        self._trained: list[Any] = [p for _, p in named]
        for parameter in self._trained:
            handle = parameter.register_post_accumulate_grad_hook(_drop_gradient)
            steps.at_end(handle.remove)

    def _check_rows(self, rows: int | None, layer: str) -> None:
        if rows != self._steps.rows:
            self._steps.refuse(
                f"{layer} saw another number of rows than the batch has records",
                hint="keep one row per record, in the first dimension, in all layers, "
                "or freeze such a layer, as an encoder's position embeddings",
            )


@final
class HookGradients(_Watched):
    """Per-sample gradients, in ``grad_sample``, where Opacus' hooks leave them."""

    def __init__(self, model: nn.Module, steps: Steps, *, dtype: torch.dtype) -> None:
        """``dtype`` is the least that sums over records are taken in."""
        super().__init__(model, steps, GradSampleHooks(model, loss_reduction="sum"))
        self._dtype = dtype

    def take(self) -> list[StoredPart]:
        parts = []
        for name, p in zip(self._names, self._trained, strict=True):
            sample, p.grad_sample = p.grad_sample, None
            if sample is not None:
                single = isinstance(sample, torch.Tensor)  # else of several passes
                self._check_rows(len(sample) if single else None, name)
                parts.append(StoredPart(p, sample, dtype=self._dtype))
        return parts


@final
class GhostGradients(_Watched):
    """Each layer's inputs and errors; no gradient of a record is kept."""

    def __init__(self, model: nn.Module, steps: Steps) -> None:
        self._hooks = _GhostHooks(model, loss_reduction="sum")
        super().__init__(model, steps, self._hooks)

    def take(self) -> list[Part]:
        calls, self._hooks.calls = self._hooks.calls, []
        seen: set[int] = set()
        parts = []
        for layer, inputs, errors in calls:
            if id(layer) in seen:
                self._steps.refuse(
                    f"a {type(layer).__name__} was used twice in one forward pass",
                    hint="such layers take no ghost clipping: leave it out",
                )
            seen.add(id(layer))
            for rows in (len(inputs[0]), len(errors)):
                self._check_rows(rows, f"a {type(layer).__name__}")
            parts.append(_part(layer, inputs, errors))
        return parts


def _part(
    layer: nn.Module, inputs: Sequence[torch.Tensor], errors: torch.Tensor
) -> Part:
    if type(layer) is nn.Linear:
        return LinearPart(layer, inputs[0], errors, dtype=torch.float64)
    if type(layer) is nn.Embedding:
        return EmbeddingPart(layer, inputs[0], errors)
    sampler = GradSampleHooks.GRAD_SAMPLERS.get(
        type(layer), ft_compute_per_sample_gradient
    )
    return SampledPart(layer, inputs, errors, sampler=sampler)


class _GhostHooks(GradSampleHooks):  # type: ignore[misc]  # Opacus has no types
    """Opacus' hooks up to the point where they would make per-sample gradients."""

    def __init__(self, model: nn.Module, *, loss_reduction: str) -> None:
        self.calls: list[tuple[nn.Module, Sequence[torch.Tensor], torch.Tensor]] = []
        super().__init__(model, loss_reduction=loss_reduction)

    def capture_backprops_hook(
        self,
        module: Any,
        _forward_input: Any,
        forward_output: Any,
        loss_reduction: str,
        batch_first: bool,
    ) -> None:
        if not self.hooks_enabled:
            return
        inputs, errors = self.rearrange_grad_samples(
            module=module,
            backprops=forward_output[0].detach(),
            loss_reduction=loss_reduction,
            batch_first=batch_first,
        )
        self.calls.append((module, inputs, errors))
        if not module.activations:
            del module.max_batch_len


def _drop_gradient(parameter: torch.Tensor) -> None:
    parameter.grad = None


def _clean(model: nn.Module) -> None:
    """What Opacus' own cleanup leaves on modules and parameters."""
    for module in model.modules():
        for name in ("activations", "max_batch_len", "autograd_grad_sample_hooks"):
            if name in vars(module):
                delattr(module, name)
    for parameter in model.parameters():
        if hasattr(parameter, "summed_grad"):
            del parameter.summed_grad
