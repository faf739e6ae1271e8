# SPDX-License-Identifier: Apache-2.0
"""Known answers, computed again on this machine with what is installed on it.

A report carries them, so that a reader sees that the accountants that made its
epsilons gave the known answers there and then.  What groups cost is ours alone: its
distribution is compared with dp-accounting's.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import final

import numpy as np

from ..errors import VerificationError
from . import accounting
from .events import Event, Gaussian, PoissonGaussian, Repeated, Skellam
from .mixtures import Mixture, composed_epsilon

__all__ = ["KnownAnswer", "self_check"]


@final
@dataclass(frozen=True, slots=True)
class KnownAnswer:
    """An epsilon known from elsewhere, and what this machine makes of it.

    ``id`` names mechanism and accountant; ``tolerance`` is absolute.
    """

    id: str
    expected: float
    got: float
    tolerance: float


@functools.cache
def self_check() -> tuple[KnownAnswer, ...]:
    """Seven known answers at delta 1e-5, computed once per process.

    The first three are those of TensorFlow Privacy's tests, and the next two are exact
    (Balle and Wang 2018).  The next was computed with 60 digits from the formulas of
    :mod:`.discrete` and :mod:`.renyi`; Gaussian noise would cost 0.0028 less by them.
    The last is the first, of Skellam noise on so fine a grid that it costs no more.
    Takes about a second.  Raises VerificationError where one misses its tolerance, or
    where two implementations of the mixtures behind :mod:`.groups` differ.
    """
    sampled = _at_1e5(Repeated(PoissonGaussian(0.01, 0.7), 120))
    coarse = Skellam(0.05, variance=100.0, shares=4, colluding=1, l2=10.0, values=16)
    fine = Skellam(0.01, variance=1.225e15, shares=4, colluding=1, l2=1e8, values=4096)
    answers = tuple(
        KnownAnswer(name, expected, got, 1e-4)
        for name, expected, got in (
            ("sampled-pld", 2.4612381, sampled.value),
            ("sampled-rdp", 3.2392676, sampled.rdp),
            ("twice-pld", 10.1224946, _at_1e5(Repeated(Gaussian(0.7), 2)).value),
            ("gaussian-pld", 4.3771781, _at_1e5(Gaussian(1.0)).value),
            ("half-noise-pld", 9.9972559, _at_1e5(Gaussian(0.5)).value),
            ("skellam-rdp", 1.2249680, _at_1e5(*[coarse] * 100).value),
            ("skellam-pld", 2.4612381, _at_1e5(*[fine] * 120).value),
        )
    )
    for answer in answers:
        if not abs(answer.got - answer.expected) <= answer.tolerance:
            raise VerificationError(
                f"{answer.id}: epsilon is known to be {answer.expected:.7g}, the "
                f"accountant here says {answer.got:.7g}",
                hint=accounting.DISTRUST,
            )
    _check_mixtures(sampled.value)
    return answers


def _check_mixtures(sampled: float) -> None:
    """Our mixtures against dp-accounting, for one record and for two of one person."""
    one = Mixture(np.array([0.99, 0.01]), 0.7)
    ours = composed_epsilon([(one, 120)], precision=0.0, delta=1e-5)
    # The grids differ, and both figures are upper bounds: as known answers.
    _compare(1, ours, sampled, 1e-4)
    weights, grid = [0.9801, 0.0198, 0.0001], 0.05  # coarse, and the same for both
    library = accounting.library().pld.privacy_loss_distribution
    both = (
        Mixture(np.array(weights), 0.7).losses(grid),
        library.from_mixture_gaussian_mechanism(
            0.7, range(3), weights, value_discretization_interval=grid
        ),
    )
    ours, theirs = (x.self_compose(120).get_epsilon_for_delta(1e-5) for x in both)
    _compare(2, float(ours), float(theirs), 1e-6)


def _compare(records: int, ours: float, theirs: float, tolerance: float) -> None:
    if not abs(ours - theirs) <= tolerance:
        raise VerificationError(
            f"two computations of what {records} of one person's records cost differ: "
            f"epsilon is {theirs:.9g} by dp-accounting, {ours:.9g} by ours",
            hint=accounting.DISTRUST,
        )


def _at_1e5(*events: Event) -> accounting.Epsilon:
    return accounting.epsilon(events, delta=1e-5)
