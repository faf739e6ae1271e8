# SPDX-License-Identifier: Apache-2.0
"""What a trainer gets once per round, and the one way it hands an update back.

Theory of operation.  ``make_private`` first checks everything that can be refused, and
tries the model out on made-up records; then it has the ledger entry written, then draws
randomness: from that point the round is charged, whatever happens.  The trainer's own
loop runs over the objects it got, and ``update`` returns the difference to the global
model, which is post-processing of the noisy sums, as long as nothing else has touched
the weights.  That is what is checked: the order of calls, the number of steps, the
weights between them, and the frozen rest.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any, Generic, TypeVar, final

import numpy as np
import torch
from torch import nn
from torch.optim import Optimizer
from torch.utils.data import DataLoader

from ..errors import EngineError, UsageError
from ..model import GlobalModel
from ..plan import Plan
from ..privacy import PrivateUpdate, Reservation, private_update
from ..privacy.grid import Grid
from ..randomness import RandomSource
from .checks import check_optimizer
from .clipping import ClippedSums
from .optimizer import GaussianStep, PrivateOptimizer
from .ready import Ready
from .sampler import PoissonLoader
from .steps import PrivateCriterion, Steps
from .weights import Weights, check_all_trained, difference, fill

__all__ = ["ClientRound", "PrivateTraining"]

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
        *,
        physical_batch: int | None = None,
        ghost: bool = False,
    ) -> PrivateTraining[M]:
        """Turn the parts of an ordinary training loop into those of a private one.

        For plans of mode "local".

        model
            as :meth:`load` left it, in training mode; modules that are in eval mode
            (a frozen BatchNorm) stay there, whatever the loop sets
        optimizer
            new, over exactly the trained parameters.  Penalties on the weights belong
            here (``weight_decay``): added to the loss they would have no effect.
        loader
            gives its data set and collate function; the plan gives the sampling, from
            all records of the data set (``Subset(dataset, rows)`` for fewer)
        criterion
            a loss with ``reduction`` "mean" or "sum" whose reduction "none" gives
            each record's own loss, or losses, which are then summed
        physical_batch
            most records that are in memory at once.  A batch of more comes in several
            parts; the loop treats each as a batch, and the weights move after the last.
        ghost
            take norms and sums from each layer's inputs and errors, and keep no
            gradient of a record: less memory, the same result.  Not for a head.

        Everything else comes from the plan.  The step is the noisy sum divided by
        ``sampling_rate * records``, whatever the reduction.

        torch's global generators, which dropout draws from, are seeded from the
        operating system's randomness until the round is over, and then what they were.

        The model and the criterion are tried on two batches of zeros (labels 0), and
        in eval mode on made-up rows, one alone and beside others, where
        ``model(inputs)`` and ``criterion(outputs, targets)`` take the pairs that the
        loader gives.  Nothing of the model is changed by it.

        What cannot be checked is the caller's duty, and an assumption of the report:

        * ``backward`` is called on the criterion's value and nothing else.  Where the
          gradient that arrives there is not 1 (a squared or scaled loss, a floor that
          turns it round), the round is over; a term added to it, computed from the
          logits (with a mean over the batch, say), would not be noticed.
        * Between the batch and the loss, a row depends on its own record only: no
          mixup, no statistics of the batch, and padding counts for nothing.
        * Nothing random in the data set, the model or the loop repeats from a known
          seed: one record less would move the masks and changes of those behind it.
        * Every record can be read, and the model and the criterion take it.  An error
          in a round shows that its record was drawn, and so does a round left out.
        * No decision is taken from exact losses or scores: no learning rate schedule
          on the loss, no early stopping, nothing of them printed or sent elsewhere.
        * Frozen layers (a backbone) and preprocessing were not fitted to these records.

        ``torch.autocast`` around forward pass and loss is fine: norms and sums are
        taken in full precision from the gradients that half precision gave.

        Raises UsageError, uncharged, for anything of the above, and what the ledger
        raises (BudgetExceeded).  Works once per round; after it, the round is charged.
        """
        self._check_method("make_private")
        ready = Ready(
            self.plan,
            self.model,
            model,
            loader,
            criterion,
            physical_batch,
            ghost=ghost,
        )
        check_optimizer(optimizer, ready.weights.trained)
        ready.try_out(own_loop=True)
        privacy = self.plan.privacy
        records = self.plan.member(self.client).records
        noise_multiplier = self.plan.noise_multiplier

        reservation = self._charge()
        mechanism = GaussianStep(
            clip_norm=privacy.clip_norm,
            noise_multiplier=noise_multiplier,
            normaliser=privacy.sampling_rate * records,
            draws=self._random.arrays("noise"),
        )
        loop = ready.begin(
            self._random, steps=privacy.local_steps, sums_in=torch.float32
        )
        return PrivateTraining(
            model=model,
            optimizer=PrivateOptimizer(
                optimizer,
                trained=ready.weights.trained,
                gradients=loop.gradients,
                mechanism=mechanism,
                steps=loop.steps,
            ),
            loader=loop.loader,
            criterion=loop.criterion,
            weights=ready.weights,
            steps=loop.steps,
            reservation=reservation,
        )

    def gradient_sum(
        self,
        model: nn.Module,
        loader: DataLoader[Any],
        criterion: nn.Module,
        *,
        physical_batch: int | None = None,
        ghost: bool = False,
    ) -> PrivateUpdate:
        """One Poisson batch's clipped gradients, summed, with this client's noise.

        For plans of mode "distributed" and unit "record": the step itself is the
        aggregator's, over the sum of all clients.  The vector holds whole numbers on
        the plan's grid.

        loader
            a batch is a pair (inputs, targets): ``model(inputs)``, or
            ``model(**inputs)`` where they are a dictionary.  Tensors are moved to the
            model's device, and the criterion gets what the model returns, or its
            ``logits`` where it has some, as the classifiers of transformers do.

        Everything else, the duties included, is as for :meth:`make_private`; a batch
        without records does not reach the model, and one of zeros must pass.  The
        global model holds trained parameters and nothing else: all of it gets noise.

        Raises UsageError, uncharged, for what can be refused beforehand, and charged
        where the model changed; and what the ledger raises (BudgetExceeded).  What a
        record makes the data set or the model raise comes through as it is.
        """
        self._check_method("gradient_sum")
        ready = Ready(
            self.plan,
            self.model,
            model,
            loader,
            criterion,
            physical_batch,
            ghost=ghost,
        )
        check_all_trained(model, self.model)
        ready.batches.check_pairs()
        grid, rotation = self._grid(), self.plan.rotation(self.round)
        weights = ready.weights
        ready.try_out(own_loop=False)
        sums = ClippedSums(weights.trained, clip_norm=self.plan.privacy.clip_norm)

        reservation = self._charge()
        loop = ready.begin(self._random, steps=1, sums_in=torch.float64)
        try:
            for batch in loop.loader:
                if not loop.steps.rows:
                    break
                ready.backward(loop.criterion, batch)
                loop.steps.step(None)
                sums.add(loop.gradients.take())
        finally:
            loop.steps.end()
        weights.check_frozen()
        units = grid.noised(
            weights.flat(sums.take()), rotation=rotation, random=self._random
        )
        return private_update(units.astype(np.float64), reservation)

    def clipped_update(self, model: nn.Module) -> PrivateUpdate:
        """What the trained ``model`` differs from the global one, clipped, with noise.

        For plans of mode "distributed" and unit "client": ``model`` is trained in any
        way, without privacy, on this client's records.  The vector holds whole numbers
        on the plan's grid.  An update that is not finite counts as zero: leaving a
        round because of what the records gave would show.  The global model holds
        trained parameters and nothing else: buffers, as the statistics of a BatchNorm,
        would get noise, too, and stay with each client.

        Raises UsageError, uncharged, where names or shapes are not the global model's,
        or it holds what is not trained; and what the ledger raises (BudgetExceeded).
        """
        self._check_method("clipped_update")
        check_all_trained(model, self.model)
        delta = difference(model, self.model)
        norm, clip_norm = float(np.linalg.norm(delta)), self.plan.privacy.clip_norm
        if not math.isfinite(norm):
            warnings.warn(
                "the update is not finite and counts as zero: the training diverged",
                RuntimeWarning,
                stacklevel=2,
            )
            delta = np.zeros_like(delta)
        elif norm > clip_norm:
            delta *= clip_norm / norm
        grid, rotation = self._grid(), self.plan.rotation(self.round)

        reservation = self._charge()
        units = grid.noised(delta, rotation=rotation, random=self._random)
        return private_update(units.astype(np.float64), reservation)

    def _check_method(self, name: str) -> None:
        """Raises UsageError unless the plan takes updates of this method, once."""
        privacy = self.plan.privacy
        right = "make_private"
        if self.plan.distributed:
            right = "gradient_sum" if privacy.unit == "record" else "clipped_update"
        if name != right:
            raise UsageError(
                f"{name} does not fit the plan: its mode is {privacy.mode!r} and its "
                f"unit {privacy.unit!r}",
                hint=f"use r.{right}(...)",
            )
        if self._spent:
            raise UsageError(
                f"{name} was called a second time in this round",
                hint="a round is one training and one charge; what it repeats stands "
                "in the plan",
            )

    def _grid(self) -> Grid:
        grid = self.plan.grid
        if grid.values != self.model.size:
            raise UsageError(
                f"the model has {self.model.size} values, the plan says {grid.values}",
                hint="a run starts from the model that its plan was completed with",
            )
        grid.check_source(self._random)
        return grid

    def _charge(self) -> Reservation:
        """The entry is on disk before anything random is drawn."""
        self._spent = True
        return self._reserve()


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
        weights: Weights,
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

    @property
    def steps_taken(self) -> int:
        """How many noisy steps have moved the weights: what a schedule may follow."""
        return self._steps.done

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
