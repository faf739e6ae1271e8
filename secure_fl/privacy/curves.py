# SPDX-License-Identifier: Apache-2.0
"""Delta at every epsilon: the curve of what releases cost together."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import final

from ..errors import UsageError
from . import accounting, gaussian, renyi
from .events import Event
from .nearly import Nearly, nearly

__all__ = ["curve", "delta_at", "horizon"]


@final
@dataclass(frozen=True, slots=True)
class Gaussians:
    """Releases of Gaussian noise without sampling, in closed form."""

    mu: float

    def delta(self, epsilon: float) -> float:
        return gaussian.delta_of(self.mu, epsilon)


@final
@dataclass(frozen=True, slots=True)
class Sums:
    """The smaller of two bounds where some releases are discrete."""

    rdp: renyi.Curve
    pld: tuple[accounting.Losses | Gaussians, Nearly] | None

    def delta(self, epsilon: float) -> float:
        found = self.rdp.delta(epsilon)
        if self.pld is None:
            return found
        losses, near = self.pld
        return min(found, losses.delta(epsilon) + near.added(epsilon))


def _of_sums(counts: accounting.Counts) -> Sums:
    rdp = renyi.composed(counts)
    near = nearly(counts)
    if near is None:
        return Sums(rdp, None)
    gaussians = accounting.gaussian_counts(near)
    if not accounting.sampled(gaussians):
        return Sums(rdp, (Gaussians(math.sqrt(accounting.precision(gaussians))), near))
    grids = accounting.grids_of(gaussians)
    if not grids:
        return Sums(rdp, None)
    return Sums(rdp, (accounting.composed(gaussians, grids[0]), near))


def curve(events: Sequence[Event]) -> accounting.Losses | Sums | None:
    """The bounds of some ``events``; None where epsilon is infinite."""
    counts = accounting.counted(events)
    if counts is None:
        return None
    assert counts
    if accounting.discrete(counts):
        return _of_sums(counts) if accounting.bounded(counts) else None
    grids = accounting.grids_of(counts)
    return accounting.composed(counts, grids[0]) if grids else None


def horizon(bounds: accounting.Losses | Sums) -> float:
    """Where delta has fallen to ``accounting.MIN_DELTA``, but for the allowance.

    Of sums by Renyi DP: by PLD it may never fall so far.
    """
    if isinstance(bounds, accounting.Losses):
        return float(bounds.pld.get_epsilon_for_delta(accounting.MIN_DELTA))
    return bounds.rdp.epsilon(accounting.MIN_DELTA)


def delta_at(events: Sequence[Event], *, epsilon: float) -> float:
    """The smallest delta, as the accountant bounds it, at one ``epsilon`` (at least 0).

    After sampled releases by PLD it is never below what :func:`.accounting.rounding`
    allows for.
    """
    if not epsilon >= 0:
        raise UsageError(f"epsilon is {epsilon!r}", hint="it is at least 0")
    if not events:
        return 0.0
    bounds = curve(events)
    return 1.0 if bounds is None else bounds.delta(float(epsilon))
