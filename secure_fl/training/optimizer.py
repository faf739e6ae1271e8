# SPDX-License-Identifier: Apache-2.0
"""The user's optimizer, stepping on clipped and noised sums."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, final

import torch
from torch import nn
from torch.optim import Optimizer

from ..randomness import ArrayDraws
from .clipping import ClippedSums, RecordGradients
from .steps import Steps

__all__ = ["GaussianStep", "PrivateOptimizer"]


@final
@dataclass(frozen=True, slots=True)
class GaussianStep:
    """One step's mechanism: clip each record, sum, add noise, divide.

    Every number is a constant of the plan.

    clip_norm
        largest L2 norm of one record's gradient over all trained parameters
    noise_multiplier
        standard deviation of the noise, in units of ``clip_norm``
    normaliser
        what the noisy sum is divided by; never the batch's own size
    draws
        the stream the noise comes from
    """

    clip_norm: float
    noise_multiplier: float
    normaliser: float
    draws: ArrayDraws

    def noisy(self, clipped: torch.Tensor) -> torch.Tensor:
        """``clipped`` plus N(0, (noise_multiplier * clip_norm)^2) per coordinate.

        float64, drawn on the CPU whatever the device.
        """
        std = self.noise_multiplier * self.clip_norm
        noise = torch.from_numpy(self.draws.normal(std, clipped.numel()))
        return noise.view(clipped.shape).to(clipped.device).add_(clipped)


@final
class PrivateOptimizer(Optimizer):
    """The user's optimizer.  Its gradients are noisy sums and nothing else.

    Where a batch comes in several physical ones, ``step`` adds each to the sum, and
    moves the weights after the last.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        *,
        trained: Sequence[nn.Parameter],
        gradients: RecordGradients,
        mechanism: GaussianStep,
        steps: Steps,
    ) -> None:
        # Not super().__init__: groups and state stay the user's, so that its
        # schedulers and momentum go on working.
        self.original_optimizer = optimizer
        self.param_groups = optimizer.param_groups
        self.state = optimizer.state
        self.defaults = optimizer.defaults
        self._trained = trained
        self._gradients = gradients
        self._mechanism = mechanism
        self._steps = steps
        self._sums = ClippedSums(trained, clip_norm=mechanism.clip_norm)
        self._settings: list[dict[str, Any]] | None = None

    def clip_and_accumulate(self) -> None:
        """Each record's gradient clipped to the clip norm, added to the sum."""
        self._sums.add(self._gradients.take())

    def add_noise(self) -> None:
        """The noisy sums become the parameters' gradients."""
        for parameter, clipped in zip(self._trained, self._sums.take(), strict=True):
            parameter.grad = self._mechanism.noisy(clipped).to(parameter.dtype)

    def scale_grad(self) -> None:
        """Divided by the plan's normaliser, whatever the criterion's reduction."""
        for parameter in self._trained:
            assert parameter.grad is not None
            parameter.grad /= self._mechanism.normaliser

    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """Take in the physical batch; one noisy step where it was the batch's last."""
        last = self._steps.step(closure)
        self._check_settings(last=last)
        self.clip_and_accumulate()
        if not last:
            return
        self.add_noise()
        self.scale_grad()
        self.original_optimizer.step()
        self._steps.step_done()

    def _check_settings(self, *, last: bool) -> None:
        """A schedule that counts physical batches would follow who was sampled."""
        now = [
            {name: value for name, value in group.items() if name != "params"}
            for group in self.param_groups
        ]
        if self._settings is not None and self._settings != now:
            self._steps.refuse(
                "the optimizer's settings changed within a batch",
                hint="how many physical batches a batch has depends on who was "
                "sampled: let schedules follow private.steps_taken",
            )
        self._settings = None if last else now

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

    def signal_skip_step(self, do_skip: bool = True) -> None:
        """What Opacus' BatchMemoryManager calls."""
        self._steps.refuse(
            "Opacus' BatchMemoryManager does not work here",
            hint="give make_private a physical_batch",
        )

    def __repr__(self) -> str:
        return f"PrivateOptimizer({self.original_optimizer!r})"
