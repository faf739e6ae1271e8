# SPDX-License-Identifier: Apache-2.0
"""Any model Opacus can take: its per-sample gradients, our clipping and our noise.

Of Opacus this uses the hooks that compute per-sample gradients, the module validator
and the optimizer's interface.  Not its PrivacyEngine, sampler, accountant or noise:
those read the data's own length, draw from torch's global generator and forget the
rounds before.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, final

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import nn
from torch.optim import Optimizer

from ..errors import UsageError
from .steps import GaussianStep, Steps

__all__ = ["OpacusOptimizer", "attach_hooks", "check_supported"]

# A float32 sum of squares drifts by 7e-4 over 2e7 values, by 1e-6 over this many.
_NORM_BLOCK = 16_384


def check_supported(model: nn.Module) -> None:
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


def attach_hooks(model: nn.Module, steps: Steps) -> None:
    """Per-sample gradients in ``parameter.grad_sample`` until the round is over.

    The plain gradient, which sums unclipped records, is dropped as soon as it exists:
    no other optimizer can step on it.
    """
    hooks = GradSampleHooks(model, loss_reduction="sum")

    def detach() -> None:
        hooks.cleanup()
        _clean(model)

    steps.at_end(detach)
    for parameter in model.parameters():
        if parameter.requires_grad:
            handle = parameter.register_post_accumulate_grad_hook(  # type: ignore[no-untyped-call]
                _drop_gradient
            )
            steps.at_end(handle.remove)
    # The first layer's input needs no gradient, which is just what is meant here.
    warnings.filterwarnings(
        "ignore", message="Full backward hook is firing", category=UserWarning
    )


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


def _norms(sample: torch.Tensor) -> torch.Tensor:
    """L2 norm of every row of a (records, values) matrix, float64."""
    blocks = [
        torch.linalg.vector_norm(block, dim=1).double()
        for block in torch.split(sample, _NORM_BLOCK, dim=1)
    ]
    norms: torch.Tensor = torch.linalg.vector_norm(torch.stack(blocks, dim=1), dim=1)
    return norms


@final
class OpacusOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus has no types
    """Opacus' optimizer with the clipping, noise and divisor of this package."""

    def __init__(
        self, optimizer: Optimizer, *, mechanism: GaussianStep, steps: Steps
    ) -> None:
        super().__init__(
            optimizer,
            noise_multiplier=mechanism.noise_multiplier,
            max_grad_norm=mechanism.clip_norm,
            expected_batch_size=None,
            loss_reduction="sum",
        )
        self._mechanism = mechanism
        self._steps = steps

    def clip_and_accumulate(self) -> None:
        """Each record's gradient clipped to the clip norm, summed.

        A record whose gradient is not finite counts as zero; a parameter that the
        forward pass did not use has gradient zero.
        """
        used: list[tuple[Any, torch.Tensor]] = []  # Opacus adds attributes
        for p in self.params:
            p.summed_grad = torch.zeros_like(p)
            if p.grad_sample is not None:
                used.append((p, self._by_record(p)))
        if not used:
            return
        by_layer = torch.stack([_norms(sample).cpu() for _, sample in used], dim=1)
        norms = torch.linalg.vector_norm(by_layer, dim=1)
        finite = norms.isfinite()
        factors = self._mechanism.factors(norms[finite])
        for p, sample in used:
            if not finite.all():
                # 0 * inf is not 0: a row that counts as zero has to go altogether.
                sample = sample[finite.to(sample.device)]
            p.summed_grad = (factors.to(sample) @ sample).view_as(p)

    def _by_record(self, p: Any) -> torch.Tensor:
        """The per-sample gradients of ``p`` as (records, values), in p's dtype."""
        sample = p.grad_sample
        rows = self._steps.rows
        if not isinstance(sample, torch.Tensor) or len(sample) != rows:
            self._steps.refuse(
                "a layer saw another number of rows than the batch has records",
                hint="keep one row per record, in the first dimension, in all layers",
            )
        return sample.reshape(rows, p.numel()).to(p.dtype)

    def add_noise(self) -> None:
        """The noisy sums become the parameters' gradients."""
        for p in self.params:
            p.grad = self._mechanism.noisy(p.summed_grad)

    def scale_grad(self) -> None:
        """Divided by the plan's normaliser, whatever the criterion's reduction."""
        for p in self.params:
            p.grad /= self._mechanism.normaliser

    def step(self, closure: Callable[[], float] | None = None) -> None:
        """One noisy step over the batch the loader drew last."""
        self._steps.step(closure)
        self.clip_and_accumulate()
        self.add_noise()
        self.scale_grad()
        for p in self.params:  # a step uses nothing of the step before
            p.grad_sample = p.summed_grad = None
        self.original_optimizer.step()
        self._steps.step_done()

    def signal_skip_step(self, do_skip: bool = True) -> None:
        self._steps.refuse(
            "Opacus' BatchMemoryManager does not work here",
            hint="lower the plan's sampling_rate where a batch does not fit in memory",
        )

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        self._steps.refuse(
            "a parameter was added to the optimizer within a round",
            hint="hand all trained parameters to the optimizer before make_private",
        )

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._steps.refuse(
            "an optimizer state was loaded within a round",
            hint="start each round with a new optimizer",
        )
