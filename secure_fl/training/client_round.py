# SPDX-License-Identifier: Apache-2.0
"""What a trainer gets once per round, and the one way it hands an update back.

Theory of operation.  ``make_private`` first checks everything that can be refused,
then has the ledger entry written, then draws randomness: from that point the round is
charged, whatever happens.  The trainer's own loop runs over the objects it got, and
``update`` returns the difference to the global model, which is post-processing of the
noisy sums, as long as nothing else has touched the weights.  That is what is checked:
the order of calls, the number of steps, the weights between them, and the frozen rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Generic, TypeVar, final

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _NormBase
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ..errors import EngineError, UsageError
from ..model import GlobalModel
from ..plan import Plan
from ..privacy import PrivateUpdate, Reservation, private_update
from ..randomness import RandomSource
from .head import HeadOptimizer, linear_of
from .sampler import Batches, PoissonLoader
from .steps import GaussianStep, PrivateCriterion, Steps, same_bits

__all__ = ["ClientRound", "PrivateTraining", "fill"]

M = TypeVar("M", bound=nn.Module)


@final
class ClientRound:
    """One client's part in one round: the global model in, a private update out.

    An engine constructs it and hands it to the trainer; ``client``, ``round``,
    ``plan`` and ``model`` are for the trainer to read.
    """

    def __init__(
        self,
        *,
        client: str,
        round: int,  # noqa: A002  the plan's own word
        plan: Plan,
        model: GlobalModel,
        reserve: Callable[[], Reservation],
        random: RandomSource,
    ) -> None:
        """``reserve`` writes the ledger entry and returns once it is on disk."""
        self.client = client
        self.round = round
        self.plan = plan
        self.model = model
        self._reserve = reserve
        self._random = random
        self._spent = False

    def load(self, model: M) -> M:
        """Copy the global arrays into ``model``'s parameters and buffers, by name.

        Returns the same module, on the device it was on.  Raises UsageError where the
        module lacks a name, has another shape, or trains a parameter that is not in
        the global model (its training would be lost).
        """
        return fill(model, self.model)

    def make_private(
        self,
        model: M,
        optimizer: Optimizer,
        loader: DataLoader[Any],
        criterion: nn.Module,
    ) -> PrivateTraining[M]:
        """Turn the parts of an ordinary training loop into those of a private one.

        model
            as :meth:`load` left it, in training mode; modules that are in eval mode
            (a frozen BatchNorm) stay there, whatever the loop sets
        optimizer
            new, over exactly the trained parameters.  Penalties on the weights belong
            here (``weight_decay``): added to the loss they would have no effect.
        loader
            gives its data set and collate function; the plan gives the sampling
        criterion
            a loss with ``reduction`` "mean" or "sum" whose reduction "none" gives
            each record's own loss, or losses, which are then summed

        Everything else comes from the plan.  The step is the noisy sum divided by
        ``sampling_rate * records``, whatever the reduction.

        What cannot be checked is the caller's duty, and an assumption of the report:

        * ``backward`` is called on the criterion's value and nothing else.  Where the
          gradient that arrives there is not 1 (a squared or scaled loss, a floor that
          turns it round), the round is over; a term added to it, computed from the
          logits (with a mean over the batch, say), would not be noticed.
        * Between the batch and the loss, a row depends on its own record only: no
          mixup, no statistics of the batch, and padding counts for nothing.
        * No decision is taken from exact losses or scores: no learning rate schedule
          on the loss, no early stopping, nothing of them printed or sent elsewhere.
        * Frozen layers (a backbone) and preprocessing were not fitted to these records.

        Raises UsageError, uncharged, for anything of the above, and what the ledger
        raises (BudgetExceeded).  Works once per round; after it, the round is charged.
        """
        if self._spent:
            raise UsageError(
                "make_private was called a second time in this round",
                hint="a round is one training; put all steps into the plan's "
                "local_steps",
            )
        weights = _Weights(model, self.model)
        _check_modes(model)
        _check_optimizer(optimizer, weights.trained)
        reduction = getattr(criterion, "reduction", None)
        if not isinstance(criterion, nn.Module) or reduction not in ("mean", "sum"):
            raise UsageError(
                "the criterion has no reduction 'mean' or 'sum'",
                hint="use a criterion of torch.nn, as nn.CrossEntropyLoss()",
            )
        batches = Batches(loader)
        training = self.plan.training
        layer = None
        if training is not None and training.way == "head":
            layer = linear_of(model)
        else:
            from . import opacus_core  # takes seconds to import

            opacus_core.check_supported(model)
        privacy = self.plan.privacy
        records = self.plan.member(self.client).records
        noise_multiplier = self.plan.noise_multiplier

        # The entry is on disk before anything random is drawn.
        self._spent = True
        reservation = self._reserve()
        mechanism = GaussianStep(
            clip_norm=privacy.clip_norm,
            noise_multiplier=noise_multiplier,
            normaliser=privacy.sampling_rate * records,
            draws=self._random.arrays("noise"),
        )
        sampling = self._random.arrays("sampling")

        steps = Steps(privacy.local_steps, trained=weights.trained)
        _watch_forward(model, steps)
        private_optimizer: Optimizer
        if layer is not None:
            private_optimizer = HeadOptimizer(
                optimizer, model=model, layer=layer, mechanism=mechanism, steps=steps
            )
        else:
            opacus_core.attach_hooks(model, steps)
            private_optimizer = opacus_core.OpacusOptimizer(
                optimizer, mechanism=mechanism, steps=steps
            )
        return PrivateTraining(
            model=model,
            optimizer=private_optimizer,
            loader=PoissonLoader(
                batches, rate=privacy.sampling_rate, draws=sampling, steps=steps
            ),
            criterion=PrivateCriterion(
                criterion, steps, training=lambda: model.training
            ),
            weights=weights,
            steps=steps,
            reservation=reservation,
        )


@final
class PrivateTraining(Generic[M]):
    """The parts of a private training loop.  Made by ``ClientRound.make_private``.

    model
        the user's own module; it gets its ordinary self back when the round is over
    optimizer, loader, criterion
        take the place of those that were handed in

    Each step is: next batch, one forward, one loss, one backward on exactly what the
    criterion returned, ``optimizer.step()``.
    Anything else ends the round with a UsageError.  Forward passes in eval mode, or
    without gradients, are free.
    """

    def __init__(
        self,
        *,
        model: M,
        optimizer: Optimizer,
        loader: PoissonLoader,
        criterion: PrivateCriterion,
        weights: _Weights,
        steps: Steps,
        reservation: Reservation,
    ) -> None:
        self.model = model
        self.optimizer = optimizer
        self.loader = loader
        self.criterion = criterion
        self._weights = weights
        self._steps = steps
        self._reservation = reservation
        self._spent = False

    def update(self) -> PrivateUpdate:
        """The trained minus the global weights, as one vector of ``model.size``.

        Raises UsageError unless exactly the plan's steps were taken, nothing else
        changed the model, and the result is finite; the round stays charged.
        """
        if self._spent:
            raise UsageError(
                "the update of this round was already taken",
                hint="call update() once and return what it gives",
            )
        self._spent = True
        self._steps.finish()
        self._weights.check_frozen()
        delta = self._weights.delta()
        if not np.isfinite(delta).all():
            # Training diverged: nobody's mistake in the protocol, a dropout.
            raise EngineError(
                "the weights are no longer finite: the update cannot be used",
                hint="lower the learning rate; the round stays charged",
            )
        return private_update(delta, self._reservation)


def fill(model: M, start: GlobalModel) -> M:
    """Copy ``start`` into ``model`` by name and return ``model``.

    Raises UsageError where names or shapes do not fit; then nothing was copied.
    """
    tensors = _by_name(model, start)
    with torch.no_grad():
        for name, array in start.arrays.items():
            # A copy: the arrays are read-only, which torch cannot express.
            tensors[name].copy_(torch.from_numpy(np.array(array)))
    return model


class _Weights:
    """What a round may change in a module, and what it must leave alone."""

    def __init__(self, model: nn.Module, start: GlobalModel) -> None:
        """Raises UsageError where ``model`` is not the global model to begin with."""
        self._start = start
        self._tensors = _by_name(model, start)
        for name, array in start.arrays.items():
            tensor = self._tensors[name].detach().to("cpu", torch.float32)
            if not same_bits(tensor.contiguous(), torch.from_numpy(np.array(array))):
                raise UsageError(
                    f"{name!r} of the model differs from the global model",
                    hint="call r.load(model) right before make_private",
                )
        self.trained = [p for p in model.parameters() if p.requires_grad]
        if not self.trained:
            raise UsageError(
                "the model trains no parameter", hint="set requires_grad on the head"
            )
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and parameter.dtype not in (
                torch.float32,
                torch.float64,
            ):
                raise UsageError(
                    f"the trained parameter {name!r} is {parameter.dtype}",
                    hint="clip norms hold in float32: call .float() on trained layers",
                )
        trained = {id(p) for p in self.trained}
        self._frozen = [
            (name, tensor)
            for name, tensor in _named_tensors(model)
            if id(tensor) not in trained
        ]
        self._frozen_digest = self._digest()

    def check_frozen(self) -> None:
        """Raises UsageError where a frozen parameter or a buffer has changed."""
        if self._digest() != self._frozen_digest:
            raise UsageError(
                "a frozen parameter or a buffer of the model changed in the round",
                hint="no exact statistic of records may stay in the model: put such "
                "layers into eval mode before make_private",
            )

    def delta(self) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Now minus the global model, flat, in the order of the names."""
        parts = [
            self._tensors[name].detach().to("cpu", torch.float64).numpy().ravel()
            for name in self._start.arrays
        ]
        return np.concatenate(parts) - self._start.flatten().astype(np.float64)

    def _digest(self) -> bytes:
        state = hashlib.sha256(b"secure-fl/training/1 frozen state")
        for name, tensor in self._frozen:
            state.update(f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0".encode())
            flat = tensor.detach().contiguous().reshape(-1).view(torch.uint8)
            state.update(flat.cpu().numpy().data)
        return state.digest()


def _named_tensors(model: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters and buffers, tied ones under each of their names."""
    yield from model.named_parameters(remove_duplicate=False)
    yield from model.named_buffers(remove_duplicate=False)


def _by_name(model: nn.Module, start: GlobalModel) -> dict[str, torch.Tensor]:
    """The module's tensors that the global model holds.  Raises UsageError."""
    tensors = dict(_named_tensors(model))
    lacking = sorted(set(start.arrays) - set(tensors))
    if lacking:
        raise UsageError(
            f"the module has no {', '.join(lacking)}",
            hint="its names are those of model.named_parameters(); the global model's "
            "come from the plan's [model]",
        )
    found: dict[str, torch.Tensor] = {}
    seen: dict[int, str] = {}
    for name, array in start.arrays.items():
        tensor = tensors[name]
        if tuple(tensor.shape) != array.shape:
            raise UsageError(
                f"{name!r} is {tuple(tensor.shape)} in the module, "
                f"{array.shape} in the global model",
                hint="build the module with the plan's sizes",
            )
        if id(tensor) in seen:
            raise UsageError(
                f"{name!r} and {seen[id(tensor)]!r} are one tensor in the module",
                hint="keep a tied parameter once in the global model",
            )
        seen[id(tensor)] = name
        found[name] = tensor
    lost = [
        name
        for name, p in model.named_parameters()
        if p.requires_grad and id(p) not in seen
    ]
    if lost:
        raise UsageError(
            f"the module trains what the global model does not hold: {', '.join(lost)}",
            hint="freeze it with requires_grad_(False), or add it to the global model",
        )
    return found


def _check_modes(model: nn.Module) -> None:
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


def _check_optimizer(optimizer: Optimizer, trained: list[nn.Parameter]) -> None:
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


def _watch_forward(model: nn.Module, steps: Steps) -> None:
    """Count training forwards, and keep asleep what was in eval mode."""
    asleep = [m for m in model.modules() if not m.training]

    def before(
        module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if not module.training:
            return
        for sleeper in asleep:  # a loop's model.train() has woken a frozen BatchNorm
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
