# SPDX-License-Identifier: Apache-2.0
"""Epsilon of several records of one person at one client.

A Gaussian release has as many times the sensitivity.  In a Poisson-sampled one the
number of the person's records in the sample is binomial (Ganesh 2024, arXiv
2401.10294): far better than records that are always there, and with an answer where
the generic conversion of group privacy gives up.  A group is added as a whole or
removed as a whole.

Where any release is discrete, all are accounted for as if every record were in each of
them, with as many times the sensitivity.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Final

import numpy as np

from ..errors import UsageError
from . import accounting
from .events import (
    Discrete,
    Event,
    Gaussian,
    Mechanism,
    PoissonGaussian,
)
from .mixtures import Mixture, composed_epsilon

__all__ = ["group_epsilon"]

MOST_RECORDS: Final = 50


def group_epsilon(events: Sequence[Event], *, records: int, delta: float) -> float:
    """What all ``events`` cost ``records`` records of one person at one client.

    An upper bound, at least :func:`.accounting.epsilon` of one record; infinity where
    an event is NonPrivate, the noise is too small for so many records or epsilon too
    large to mean anything; 0 where there are no events.  Takes tenths of a second for
    new parameters.  Raises UsageError for a delta or a number of records out of range.
    """
    if type(records) is not int or not 1 <= records <= MOST_RECORDS:
        raise UsageError(
            f"a group has {records!r} records",
            hint=f"ask for a whole number from 1 to {MOST_RECORDS}",
        )
    single = accounting.epsilon(events, delta=delta).value
    if records == 1 or math.isinf(single):
        return single
    counts = accounting.counted(events)
    assert counts is not None
    return max(single, _of_counts(counts, records, float(delta)))


@functools.lru_cache(maxsize=4096)
@accounting.refusing()
def _of_counts(counts: accounting.Counts, records: int, delta: float) -> float:
    sampled = [(m, n) for m, n in counts if isinstance(m, PoissonGaussian)]
    if accounting.discrete(counts) or not sampled:
        try:
            alike = tuple((_always(m, records), n) for m, n in counts)
        except UsageError:  # sensitivities beyond what any grid holds
            return math.inf
        return accounting.of_counts(alike, delta).value
    gaussians = accounting.gaussian_part(counts)
    if min(m.noise_multiplier for m, _ in gaussians) < records * accounting.MIN_NOISE:
        return math.inf
    return composed_epsilon(
        [(_mixture(mechanism, records), n) for mechanism, n in sampled],
        precision=records**2 * accounting.precision(counts),
        delta=delta,
    )


def _always(mechanism: Mechanism | Discrete, records: int) -> Mechanism | Discrete:
    """As if every record were in it, with ``records`` times the sensitivity."""
    match mechanism:
        case Gaussian(noise) | PoissonGaussian(noise_multiplier=noise):
            return Gaussian(noise / records)
        case _:
            return replace(mechanism, rate=1.0, l2=records * mechanism.l2)


def _mixture(release: PoissonGaussian, records: int) -> Mixture:
    inside = np.arange(records + 1)
    choose = np.array([math.comb(records, i) for i in inside], dtype=float)
    weights = choose * release.rate**inside * (1 - release.rate) ** (records - inside)
    return Mixture(weights, release.noise_multiplier)
