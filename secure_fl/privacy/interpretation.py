# SPDX-License-Identifier: Apache-2.0
"""What an epsilon means: bounds on what an attacker can do, from the whole curve.

One pair (epsilon, delta) says little; the whole curve, from a privacy loss distribution
or Renyi DP, says for every attack how many of the members it can find at which
rate of false alarms.

Sources: Dong et al. 2019 (trade-off functions, Gaussian DP), Kaissis et al. 2024 and
Gomez et al. 2025 (mu as a summary), Kasiviswanathan and Smith 2014 (posteriors).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, final

from . import accounting, curves
from .events import Event
from .gaussian import delta_of

__all__ = ["Interpretation", "interpret"]

FALSE_POSITIVE_RATES: Final = (1e-3, 1e-2)
# A curve is drawn through these; the two above are among them.
TRADE_OFF_RATES: Final = (1e-4, 1e-3, 1e-2, 0.05, 0.1, 0.2, 0.5)
PRIORS: Final = (0.01, 0.1, 0.5)

_QUERIES: Final = 150
_MOST_MU: Final = 1e3


@final
@dataclass(frozen=True, slots=True)
class Interpretation:
    """Bounds on every attacker who knows all but one record and sees the release.

    advantage
        true minus false positive rate of the best membership attack: delta at
        epsilon 0, between 0 and 1
    mu_gdp
        the smallest mu for which Gaussian DP covers the curve wherever delta is at
        least 1e-10: as hard as telling N(0, 1) from N(mu, 1)
    tpr_at_fpr
        pairs (false positive rate, largest true positive rate there)
    trade_off
        the same at seven rates from 0.0001 to 0.5: 1 - f, with f a trade-off function
        that lies nowhere above that of the releases
    posterior
        pairs (prior, bound): how sure an attacker can become that a record is in,
        starting from the prior, except with probability ``delta`` of the claim;
        1 where the curve supports no bound at that delta
    """

    advantage: float
    mu_gdp: float
    tpr_at_fpr: tuple[tuple[float, float], ...]
    trade_off: tuple[tuple[float, float], ...]
    posterior: tuple[tuple[float, float], ...]


def interpret(events: Sequence[Event], *, delta: float) -> Interpretation:
    """Conversions of the events' curve.  Raises as :func:`.accounting.epsilon`.

    Every number is a bound in the safe direction: the curve is looked at in 150
    places, which can only loosen it, except for ``mu_gdp``, a summary of the curve
    at those places.  By PLD each delta has :func:`.accounting.rounding` added, and of
    sums what Skellam noise differs from Gaussian noise by; where only Renyi DP counts,
    all bounds are looser, those at small epsilons most.
    """
    accounting.epsilon(events, delta=delta)  # refuses a delta out of range
    if not events:
        return Interpretation(
            0.0,
            0.0,
            tuple((rate, rate) for rate in FALSE_POSITIVE_RATES),
            tuple((rate, rate) for rate in TRADE_OFF_RATES),
            tuple((prior, prior) for prior in PRIORS),
        )
    bounds = curves.curve(events)
    top = math.inf
    if bounds is not None:
        # Any places will do.  On a grid, so that machines whose transforms round
        # differently out there look at the same ones.
        top = curves.horizon(bounds)
        top = math.ceil(top * 10) / 10 if math.isfinite(top) else top
    if bounds is None or math.isinf(top):
        return Interpretation(
            1.0,
            math.inf,
            tuple((rate, 1.0) for rate in FALSE_POSITIVE_RATES),
            tuple((rate, 1.0) for rate in TRADE_OFF_RATES),
            tuple((prior, 1.0) for prior in PRIORS),
        )
    places = [top * i / (_QUERIES - 1) for i in range(_QUERIES)]
    curve = [(place, bounds.delta(place)) for place in places]
    loss = _loss_bound(curve, top, delta)
    return Interpretation(
        curve[0][1],
        max(
            (
                _mu(place, bound)
                for place, bound in curve
                if bound >= accounting.MIN_DELTA
            ),
            default=0.0,
        ),
        tuple((rate, _true_positives(curve, rate)) for rate in FALSE_POSITIVE_RATES),
        tuple((rate, _true_positives(curve, rate)) for rate in TRADE_OFF_RATES),
        tuple((prior, _posterior(loss, prior)) for prior in PRIORS),
    )


def _true_positives(curve: Sequence[tuple[float, float]], rate: float) -> float:
    """1 - f(rate), with f the trade-off function that the curve supports."""
    return min(
        min(
            1.0,
            bound + math.exp(min(place, 700.0)) * rate,
            1 - math.exp(-place) * (1 - bound - rate),
        )
        for place, bound in curve
    )


def _loss_bound(
    curve: Sequence[tuple[float, float]], top: float, delta: float
) -> float:
    """The smallest loss not exceeded but with probability ``delta``; may be infinite.

    An epsilon at delta is no such loss: delta(t) is the mean of 1 - exp(t - L) where
    the loss L is above t, so that Pr[L > x] <= delta(t) / (1 - exp(t - x)) for every
    t < x, and the best t of the curve counts.
    """

    def above(x: float) -> float:
        return min((d / -math.expm1(t - x) for t, d in curve if t < x), default=1.0)

    if above(top) > delta:
        return math.inf
    low, high = 0.0, top
    for _ in range(60):
        middle = (low + high) / 2
        if above(middle) > delta:
            low = middle
        else:
            high = middle
    return high


def _posterior(loss: float, prior: float) -> float:
    """Bayes' rule for odds that grew by the factor exp(loss)."""
    return prior / (prior + (1 - prior) * math.exp(-loss))


# -- Gaussian DP -----------------------------------------------------------------------


def _mu(epsilon: float, delta: float) -> float:
    """The mu whose curve passes through this point, rounded up; 0 where none need."""
    # Where delta is 1 up to rounding every large mu fits: such points say nothing.
    if delta <= 0 or delta > 1 - 1e-9:
        return 0.0
    low, high = 0.0, _MOST_MU
    for _ in range(60):
        middle = (low + high) / 2
        if delta_of(middle, epsilon) < delta:
            low = middle
        else:
            high = middle
    return high
