# SPDX-License-Identifier: Apache-2.0
"""Known answers, computed again on this machine with what is installed on it.

A report carries them, so that a reader sees that the accountants that made its
epsilons gave the published answers there and then.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import final

from ..errors import VerificationError
from . import accounting
from .events import Event, Gaussian, PoissonGaussian, Repeated

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
    """Five known answers at delta 1e-5, computed once per process.

    The first three are those of TensorFlow Privacy's tests; the last two are exact
    (Balle and Wang 2018).  Takes less than a second.  Raises VerificationError where
    one misses its tolerance.
    """
    sampled = _at_1e5(Repeated(PoissonGaussian(0.01, 0.7), 120))
    answers = tuple(
        KnownAnswer(name, expected, got, 1e-4)
        for name, expected, got in (
            ("sampled-pld", 2.4612381, sampled.pld),
            ("sampled-rdp", 3.2392676, sampled.rdp),
            ("twice-pld", 10.1224946, _at_1e5(Repeated(Gaussian(0.7), 2)).pld),
            ("gaussian-pld", 4.3771781, _at_1e5(Gaussian(1.0)).pld),
            ("half-noise-pld", 9.9972559, _at_1e5(Gaussian(0.5)).pld),
        )
    )
    for answer in answers:
        if not abs(answer.got - answer.expected) <= answer.tolerance:
            raise VerificationError(
                f"{answer.id}: epsilon is known to be {answer.expected:.7g}, the "
                f"accountant here says {answer.got:.7g}",
                hint=accounting.DISTRUST,
            )
    return answers


def _at_1e5(event: Event) -> accounting.Epsilon:
    return accounting.epsilon([event], delta=1e-5)
