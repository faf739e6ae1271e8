# SPDX-License-Identifier: Apache-2.0
"""Epsilon of a list of events: privacy loss distributions, checked against Renyi DP.

Neighbouring data sets differ by one record, added or removed; replacing a record is
not offered (one of the two accountants ignores its doubled sensitivity:
github.com/google/differential-privacy/issues/378).  Both accountants are those of
dp-accounting; each gives an upper bound, and the tighter one, PLD, is the headline.

Equal mechanisms are counted and composed together, so that the result depends on what
was released and not on how the list is grouped or ordered.

Sources: Doroshenko et al. 2022 (discretisation by connecting the dots), Mironov 2017
and Canonne et al. 2020 (Renyi DP and its conversion), Dong et al. 2019 (Gaussian DP),
Kaissis et al. 2024 and Gomez et al. 2025 (what an epsilon means to an attacker).
"""

from __future__ import annotations

import functools
import logging
import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, final

from ..errors import UsageError, VerificationError
from . import gaussian, renyi
from .events import Event, Gaussian, Mechanism, NonPrivate, PoissonGaussian, Repeated

__all__ = [
    "ADJACENCY",
    "Bound",
    "Epsilon",
    "delta_at",
    "epsilon",
    "over_releases",
    "profile",
    "rdp_epsilon",
]

ADJACENCY: Final = "add-or-remove-one"

# Losses are multiples of this: finer grids moved no known answer by more than 2e-5.
INTERVAL: Final = 1e-4
# A grid has at most about this many points (seconds); beyond, it is made coarser.  On
# any grid the result is an upper bound.
MAX_POINTS: Final = 2_000_000
# With less noise than this, or more epsilon, the answer is infinity: no reader could
# tell the difference, no verifier can be made to compute for hours, and exp(-loss)
# stays a normal number (near 745 dp-accounting divides by zero).
MIN_NOISE: Final = 0.03
MAX_EPSILON: Final = 500.0
# Beyond these, the accountants' arithmetic degrades; what lies there is accounted as
# if it lay here, which only raises epsilon.
MOST_NOISE: Final = 1e6
LEAST_RATE: Final = 1e-6
# Composition raises a transform to this power; its rounding, about 1e-16 a release,
# has to stay far below delta.  More sampled releases are reported as infinite.
MOST_SAMPLED: Final = 10**6
# Below this delta the truncated tails (1e-15 a composition) begin to show.
MIN_DELTA: Final = 1e-12
# PLD must not exceed RDP by more than rounding to its grid explains: RDP's conversion
# gives away several percent, so one part in a thousand is already suspicious.
RELATIVE_TOLERANCE: Final = 1e-3

DISTRUST: Final = (
    "do not use epsilons from this machine; try a released version of dp-accounting, "
    "numpy and scipy in a fresh environment"
)

Counts = tuple[tuple[Mechanism, int], ...]


@final
@dataclass(frozen=True, slots=True)
class Epsilon:
    """Both bounds at one ``delta``.  ``value`` is the one to publish."""

    pld: float
    rdp: float
    delta: float

    @property
    def value(self) -> float:
        return self.pld


@final
@dataclass(frozen=True, slots=True)
class Bound:
    """An epsilon at ``delta``, and which kind of accountant gave it."""

    epsilon: float
    delta: float
    accountant: Literal["PLD", "RDP"]


def counted(events: Sequence[Event]) -> Counts | None:
    """Every mechanism with its count, in one order; None where one is not private."""
    counter: Counter[Mechanism] = Counter()
    for event in events:
        match event:
            case NonPrivate():
                return None
            case Repeated(inner, count):
                counter[_canonical(inner)] += count
            case _:
                counter[_canonical(event)] += 1
    return tuple(sorted(counter.items(), key=lambda item: repr(item[0])))


def _canonical(mechanism: Mechanism) -> Mechanism:
    """One form for what is equal; extremes are charged as something a little worse."""
    noise = min(mechanism.noise_multiplier, MOST_NOISE)
    if isinstance(mechanism, Gaussian) or mechanism.rate == 1:
        return Gaussian(noise)
    return PoissonGaussian(max(mechanism.rate, LEAST_RATE), noise)


def check_delta(delta: float) -> float:
    """``delta`` where accounting is possible.  Raises UsageError elsewhere."""
    if not MIN_DELTA <= delta < 1:
        raise UsageError(
            f"delta is {delta!r}",
            hint=f"it lies between {MIN_DELTA:g} and 1, and is well below one over "
            "the number of records",
        )
    return float(delta)


# -- the two accountants ---------------------------------------------------------------


def _worth_showing(record: logging.LogRecord) -> bool:
    return record.filename != "rdp_privacy_accountant.py"


@functools.cache
def library() -> Any:
    """dp-accounting, imported on first use: it takes more than a second."""
    try:
        import dp_accounting
        import dp_accounting.pld.privacy_loss_distribution
        import dp_accounting.rdp
    except ImportError:
        raise UsageError(
            "dp-accounting is not installed",
            hint='install it with: pip install "secure-fl[report]"',
        ) from None
    # RDP says on stderr which of its 150 orders it leaves out: that moves nothing but
    # the cross-check, and a user can do nothing about it.
    logging.getLogger("absl").addFilter(_worth_showing)
    return dp_accounting


def library_event(mechanism: Mechanism) -> Any:
    """``mechanism`` in dp-accounting's words."""
    dp = library()
    event = dp.GaussianDpEvent(mechanism.noise_multiplier)
    if isinstance(mechanism, PoissonGaussian):
        return dp.PoissonSampledDpEvent(mechanism.rate, event)
    return event


@functools.lru_cache(maxsize=4096)
def _rdp(counts: Counts, delta: float) -> float:
    dp = library()
    accountant = dp.rdp.RdpAccountant(
        neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    for mechanism, count in counts:
        accountant.compose(library_event(mechanism), count)
    _check_orders(counts, accountant)
    return float(accountant.get_epsilon(delta))


def _check_orders(counts: Counts, accountant: Any) -> None:
    """The library's Renyi curve against ours, at the integer orders up to 64."""
    releases = sum(count for _, count in counts)
    for place, theirs in zip(accountant.orders, accountant.rdp, strict=True):
        order = round(place)
        if order != place or not 2 <= order <= 64 or not math.isfinite(theirs):
            continue
        ours = math.fsum(n * renyi.of_mechanism(m, order) for m, n in counts)
        # Theirs loses digits where one release's divergence is tiny.
        if abs(theirs - ours) > 1e-6 * ours + 1e-13 * releases:
            raise VerificationError(
                f"two computations of the Renyi divergence of order {order} differ: "
                f"{theirs:.9g} by dp-accounting, {ours:.9g} by ours",
                hint=DISTRUST,
            )


def _check_closed_form(counts: Counts, found: float, delta: float, grid: float) -> None:
    """Where all releases are Gaussian, epsilon is known exactly."""
    if any(isinstance(mechanism, PoissonGaussian) for mechanism, _ in counts):
        return
    mu = math.sqrt(math.fsum(n / m.noise_multiplier**2 for m, n in counts))
    exact = gaussian.epsilon_of(mu, delta)
    slack = 1e-6 * (1 + exact)
    if not exact - slack <= found <= exact + slack + 2 * grid:
        raise VerificationError(
            f"epsilon of Gaussian releases at delta {delta:.1e} is {exact:.9g} in "
            f"closed form, and {found:.9g} by PLD",
            hint=DISTRUST,
        )


@functools.lru_cache(maxsize=8)
def _one(mechanism: PoissonGaussian, interval: float) -> Any:
    """Losses of one sampled release, for a record added and for one removed."""
    distribution = library().pld.privacy_loss_distribution
    return distribution.from_gaussian_mechanism(
        mechanism.noise_multiplier,
        value_discretization_interval=interval,
        sampling_prob=mechanism.rate,
    )


@functools.lru_cache(maxsize=8)
def _composed(counts: Counts, interval: float) -> Any:
    """The privacy loss distribution of all releases.  ``counts`` is not empty."""
    distribution = library().pld.privacy_loss_distribution
    parts = [
        _one(mechanism, interval).self_compose(count)
        for mechanism, count in counts
        if isinstance(mechanism, PoissonGaussian)
    ]
    # Gaussian releases compose exactly, to one with the inverse variances added.
    precision = math.fsum(
        count / mechanism.noise_multiplier**2
        for mechanism, count in counts
        if isinstance(mechanism, Gaussian)
    )
    if precision:
        parts.append(
            distribution.from_gaussian_mechanism(
                precision**-0.5, value_discretization_interval=interval
            )
        )
    return functools.reduce(lambda left, right: left.compose(right), parts)


def _grids(counts: Counts) -> list[float]:
    """The intervals to try, in order; none where epsilon is reported as infinite."""
    noises = [mechanism.noise_multiplier for mechanism, _ in counts]
    sampled = sum(n for event, n in counts if isinstance(event, PoissonGaussian))
    if min(noises) < MIN_NOISE or sampled > MOST_SAMPLED:
        return []
    # One release's losses reach 1/(2 z^2) and ten standard deviations beyond; their
    # sum is of the size of epsilon, of which RDP is a cheap bound.
    total = _rdp(counts, 1e-6)
    if not total <= MAX_EPSILON:
        return []
    span = max(total, *(0.5 / z**2 + 10 / z for z in noises))
    first = INTERVAL
    while span / first > MAX_POINTS:
        first *= 10
    finer = [first / 10, first / 100]
    return [first, *(grid for grid in finer if span / grid <= MAX_POINTS)]


@functools.lru_cache(maxsize=4096)
def of_counts(counts: Counts, delta: float) -> Epsilon:
    """As :func:`epsilon`, for events that are counted and a delta that is checked."""
    if not counts:
        return Epsilon(0.0, 0.0, delta)
    grids = _grids(counts)
    if not grids:
        return Epsilon(math.inf, math.inf, delta)
    rdp = _rdp(counts, delta)
    pld = math.inf
    # Where one release's losses are smaller than the grid (tiny rates, many steps),
    # the grid itself dominates: a finer one costs little there.
    for grid in grids:
        pld = float(_composed(counts, grid).get_epsilon_for_delta(delta))
        if pld <= rdp * (1 + RELATIVE_TOLERANCE) + max(grid, INTERVAL):
            _check_closed_form(counts, pld, delta, grid)
            return Epsilon(pld, rdp, delta)
    raise VerificationError(
        f"the accountants disagree at delta {delta:.1e}: PLD says {pld:.6g}, above "
        f"RDP's {rdp:.6g}",
        hint="choose a larger delta, or a larger sampling rate with fewer steps",
    )


# -- what callers ask ------------------------------------------------------------------


def epsilon(events: Sequence[Event], *, delta: float) -> Epsilon:
    """What all ``events`` together cost one record, added or removed.

    Infinite where any event is NonPrivate, 0 where there is none.  Takes about half a
    second for new parameters and nothing for ones seen before.  Raises UsageError for
    a delta out of range and VerificationError where the two accountants contradict
    each other.
    """
    delta = check_delta(delta)
    counts = counted(events)
    if counts is None:
        return Epsilon(math.inf, math.inf, delta)
    return of_counts(counts, delta)


def rdp_epsilon(events: Sequence[Event], *, delta: float) -> float:
    """The cross-check alone: a looser bound than :func:`epsilon`, and much cheaper."""
    delta = check_delta(delta)
    counts = counted(events)
    if counts is None:
        return math.inf
    return _rdp(counts, delta) if counts else 0.0


def distribution(events: Sequence[Event]) -> Any | None:
    """The PLD object itself; None where epsilon is infinite.  Not for no events."""
    counts = counted(events)
    if counts is None:
        return None
    assert counts
    grids = _grids(counts)
    return _composed(counts, grids[0]) if grids else None


def delta_at(events: Sequence[Event], *, epsilon: float) -> float:
    """The smallest delta, as PLD bounds it, at one ``epsilon`` (at least 0)."""
    if not epsilon >= 0:
        raise UsageError(f"epsilon is {epsilon!r}", hint="it is at least 0")
    if not events:
        return 0.0
    losses = distribution(events)
    if losses is None:
        return 1.0
    return min(1.0, float(losses.get_delta_for_epsilon(float(epsilon))))


def profile(
    events: Sequence[Event], deltas: Sequence[float]
) -> tuple[tuple[float, float], ...]:
    """The pairs (delta, epsilon), in the order of ``deltas``."""
    return tuple((delta, epsilon(events, delta=delta).value) for delta in deltas)


def over_releases(events: Sequence[Event], delta: float) -> list[float]:
    """Epsilon after each event: how the total grew.  The last is the total.

    One composition per event: seconds for a hundred rounds.
    """
    return [epsilon(events[: i + 1], delta=delta).value for i in range(len(events))]
