# SPDX-License-Identifier: Apache-2.0
"""Epsilon of a list of events: privacy loss distributions, checked against Renyi DP.

Neighbouring data sets differ by one record, added or removed; replacing a record is
not offered (one of the two accountants ignores its doubled sensitivity:
github.com/google/differential-privacy/issues/378).  Of Gaussian releases both
accountants are those of dp-accounting; each gives an upper bound, and the tighter one,
PLD, is the headline.  Where noise on the integer grid is among them, our Renyi DP
(:mod:`.renyi`) counts; of Skellam noise PLD as well, which takes it for Gaussian noise
and adds to delta what they differ by (:mod:`.nearly`), in closed form where nothing is
sampled: the smaller of both epsilons.

Equal mechanisms are counted and composed together, so that the result depends on what
was released and not on how the list is grouped or ordered.

Sources: Doroshenko et al. 2022 (discretisation by connecting the dots), Mironov 2017
and Canonne et al. 2020 (Renyi DP and its conversion), Dong et al. 2019 (Gaussian DP),
Kaissis et al. 2024 and Gomez et al. 2025 (what an epsilon means to an attacker).
"""

from __future__ import annotations

import contextlib
import functools
import logging
import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, Literal, final

from ..errors import UsageError, VerificationError
from . import gaussian, renyi
from .events import (
    Discrete,
    Event,
    Gaussian,
    Mechanism,
    NonPrivate,
    PoissonGaussian,
    Repeated,
)
from .nearly import Nearly, nearly

__all__ = [
    "ADJACENCY",
    "Accountant",
    "Bound",
    "Epsilon",
    "accountant_of",
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
MOST_RATE: Final = 1 - 1e-6
# More sampled releases are reported as infinite, see :func:`rounding`.
MOST_SAMPLED: Final = 10**6
# So are more different mechanisms, sampled or on the grid: each takes a transform of
# its own, or a curve, at every figure that is asked for.
MOST_MECHANISMS: Final = 64
# Rounding leaves no digits of a smaller delta (:func:`rounding`); of this one it does
# up to 98,000 sampled releases, and of 1e-8 always.
MIN_DELTA: Final = 1e-10
# PLD must not exceed RDP by more than rounding to its grid explains: RDP's conversion
# gives away several percent, so one part in a thousand is already suspicious.
RELATIVE_TOLERANCE: Final = 1e-3

DISTRUST: Final = (
    "do not use epsilons from this machine; try a released version of dp-accounting, "
    "numpy and scipy in a fresh environment"
)

Accountant = Literal["PLD", "RDP"]
Releases = Sequence[Event] | Counter[Event]  # one by one, or how many of each
Counts = tuple[tuple[Mechanism | Discrete, int], ...]


@final
@dataclass(frozen=True, slots=True)
class Epsilon:
    """What releases cost at one ``delta``.

    ``value`` is the epsilon to publish and ``accountant`` which method gave it; ``rdp``
    is the epsilon by Renyi DP, never below ``value`` where any release is discrete, and
    else a looser second bound but for rounding.
    """

    value: float
    rdp: float
    delta: float
    accountant: Accountant


@final
@dataclass(frozen=True, slots=True)
class Bound:
    """An epsilon at ``delta``, and which kind of accountant gave it."""

    epsilon: float
    delta: float
    accountant: Accountant


def counted(events: Releases) -> Counts | None:
    """Every mechanism with its count, in one order; None where one is not private."""
    counter: Counter[Mechanism | Discrete] = Counter()
    for event, times in Counter(events).items():
        match event:
            case NonPrivate():
                return None
            case Repeated(inner, count):
                counter[canonical(inner)] += count * times
            case _:
                counter[canonical(event)] += times
    return tuple(sorted(counter.items(), key=lambda item: repr(item[0])))


def canonical(mechanism: Mechanism | Discrete) -> Mechanism | Discrete:
    """One form for what is equal; extremes are charged as something a little worse."""
    if isinstance(mechanism, Discrete):
        rate = max(mechanism.rate, LEAST_RATE)
        return replace(mechanism, rate=rate if rate <= MOST_RATE else 1.0)
    noise = min(mechanism.noise_multiplier, MOST_NOISE)
    if isinstance(mechanism, Gaussian) or mechanism.rate > MOST_RATE:
        return Gaussian(noise)
    return PoissonGaussian(max(mechanism.rate, LEAST_RATE), noise)


def sampled(counts: Counts) -> int:
    """How many of the releases are Poisson-sampled."""
    return sum(n for _, n in _releases(counts))


def _releases(counts: Counts) -> list[tuple[PoissonGaussian, int]]:
    return [(m, n) for m, n in counts if isinstance(m, PoissonGaussian)]


def accountant_of(events: Releases) -> Accountant:
    """Which method always gives one of ``events``: "RDP" where any is discrete."""
    return "RDP" if any(isinstance(event, Discrete) for event in events) else "PLD"


def gaussian_part(counts: Counts) -> tuple[tuple[Mechanism, int], ...]:
    """Those of the releases that have Gaussian noise."""
    return tuple((m, n) for m, n in counts if not isinstance(m, Discrete))


def discrete(counts: Counts) -> int:
    """How many different mechanisms have noise on the integer grid."""
    return sum(isinstance(m, Discrete) for m, _ in counts)


def precision(counts: Counts) -> float:
    """Inverse variances of the Gaussian releases, added up.

    They compose exactly, to one Gaussian release with this inverse variance.
    """
    return math.fsum(
        n / m.noise_multiplier**2 for m, n in counts if isinstance(m, Gaussian)
    )


def rounding(releases: int) -> float:
    """What rounding may have taken from a delta after so many sampled releases.

    Composition raises a Fourier transform to the power of ``releases``, and its
    rounding with it.  Fitted, not proven: next to transforms of tilted losses, which
    keep their digits in the tail, deltas from 1e-9 to 1e-5 were short by up to 2e-13
    after 10^3 releases, 3e-12 after 3 * 10^4 and 5e-11 after 10^6.  The allowance is
    six times as much or more; a delta of up to twice the allowance has no finite
    epsilon.  Gaussian releases alone need no transform: nothing is allowed for them.
    """
    return 1e-12 + 5e-16 * releases if releases else 0.0


@final
@dataclass(frozen=True, slots=True)
class Losses:
    """dp-accounting's distribution, read with an allowance for rounding."""

    pld: Any
    allowance: float

    def epsilon(self, delta: float) -> float:
        """Infinite where ``delta`` is not above twice the allowance."""
        if delta <= 2 * self.allowance:
            return math.inf
        return float(self.pld.get_epsilon_for_delta(delta - self.allowance))

    def delta(self, epsilon: float) -> float:
        found = float(self.pld.get_delta_for_epsilon(epsilon))
        return min(1.0, max(0.0, found) + self.allowance)


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


@contextlib.contextmanager
def refusing() -> Iterator[None]:
    """What the library or its arithmetic cannot do becomes a VerificationError.

    Parameters come from ledgers of others: none may end a report with a traceback.
    """
    try:
        yield
    except (ArithmeticError, ValueError, IndexError, RecursionError) as problem:
        raise VerificationError(
            f"these releases cannot be accounted for: {problem}",
            hint="no figure is known; their noise, rates or counts are out of bounds",
        ) from problem


def library_event(mechanism: Mechanism) -> Any:
    """``mechanism`` in dp-accounting's words."""
    dp = library()
    event = dp.GaussianDpEvent(mechanism.noise_multiplier)
    if isinstance(mechanism, PoissonGaussian):
        return dp.PoissonSampledDpEvent(mechanism.rate, event)
    return event


@functools.lru_cache(maxsize=1024)
def _accountant(counts: tuple[tuple[Mechanism, int], ...]) -> Any:
    """RDP of all releases, its curve checked."""
    dp = library()
    accountant = dp.rdp.RdpAccountant(
        neighboring_relation=dp.NeighboringRelation.ADD_OR_REMOVE_ONE
    )
    for mechanism, count in counts:
        accountant.compose(library_event(mechanism), count)
    _check_orders(counts, accountant)
    return accountant


@functools.lru_cache(maxsize=4096)
def _rdp(counts: Counts, delta: float) -> float:
    gaussians = gaussian_part(counts)
    if any(mechanism.noise_multiplier < MIN_NOISE for mechanism, _ in gaussians):
        return math.inf
    if not discrete(counts):
        return float(_accountant(gaussians).get_epsilon(delta))
    if gaussians:
        _accountant(gaussians)  # checks our curve of them
    return renyi.composed(counts).epsilon(delta)


def _check_orders(counts: Counts, accountant: Any) -> None:
    """The library's Renyi curve against ours, at the integer orders up to 64."""
    releases = sum(count for _, count in counts)
    for place, theirs in zip(accountant.orders, accountant.rdp, strict=True):
        order = round(place)
        if order != place or not 2 <= order <= 64 or not math.isfinite(theirs):
            continue
        ours = math.fsum(n * renyi.of_mechanism(m, order) for m, n in counts)
        # Theirs loses digits where a release's divergence is tiny: it was off by up to
        # 1e-15.  Ten times that moves the epsilon of 10^6 releases by 1e-8 at most.
        if abs(theirs - ours) > 1e-6 * ours + 1e-14 * releases:
            raise VerificationError(
                f"two computations of the Renyi divergence of order {order} differ: "
                f"{theirs:.9g} by dp-accounting, {ours:.9g} by ours",
                hint=DISTRUST,
            )


def _check_closed_form(counts: Counts, found: float, delta: float, grid: float) -> None:
    """Where all releases are Gaussian, epsilon is known exactly."""
    if sampled(counts):
        return
    exact = gaussian.epsilon_of(math.sqrt(precision(counts)), delta)
    slack = 1e-6 * (1 + exact)
    if not exact - slack <= found <= exact + slack + 2 * grid:
        raise VerificationError(
            f"epsilon of Gaussian releases at delta {delta:.1e} is {exact:.9g} in "
            f"closed form, and {found:.9g} by PLD",
            hint=DISTRUST,
        )


def _reach(mechanism: Mechanism) -> float:
    """One release's losses: 1/(2 z^2) and ten standard deviations beyond."""
    z = mechanism.noise_multiplier
    return 0.5 / z**2 + 10 / z


def _one(mechanism: PoissonGaussian, interval: float) -> Any:
    """Losses of one sampled release, for a record added and for one removed."""
    small = _reach(mechanism) / interval <= FEW_POINTS
    return (_small if small else _large)(mechanism, interval)


def _one_anew(mechanism: PoissonGaussian, interval: float) -> Any:
    distribution = library().pld.privacy_loss_distribution
    return distribution.from_gaussian_mechanism(
        mechanism.noise_multiplier,
        value_discretization_interval=interval,
        sampling_prob=mechanism.rate,
    )


# Both kept small: 16 bytes a point, at most 160 and 64 MB.
FEW_POINTS: Final = 150_000
_small = functools.lru_cache(maxsize=MOST_MECHANISMS)(_one_anew)
_large = functools.lru_cache(maxsize=2)(_one_anew)


@functools.lru_cache(maxsize=8)
@refusing()
def composed(counts: Counts, interval: float) -> Losses:
    """The privacy loss distribution of all releases.  ``counts`` is not empty."""
    distribution = library().pld.privacy_loss_distribution
    parts = [_one(m, interval).self_compose(n) for m, n in _releases(counts)]
    if total := precision(counts):
        parts.append(
            distribution.from_gaussian_mechanism(
                total**-0.5, value_discretization_interval=interval
            )
        )
    whole = functools.reduce(lambda left, right: left.compose(right), parts)
    return Losses(whole, rounding(sampled(counts)))


def bounded(counts: Counts) -> bool:
    """Whether an epsilon is computed; elsewhere it is infinite.  For some releases."""
    return (
        sampled(counts) <= MOST_SAMPLED
        and len(_releases(counts)) + discrete(counts) <= MOST_MECHANISMS
        and _rdp(counts, 1e-6) <= MAX_EPSILON
    )


def grids_of(counts: Counts) -> list[float]:
    """The intervals to try, in order; none where epsilon is reported as infinite."""
    if not bounded(counts):
        return []
    # The sum of all losses is of the size of epsilon, of which RDP is a cheap bound.
    span = max(_rdp(counts, 1e-6), *(_reach(m) for m, _ in gaussian_part(counts)))
    first = INTERVAL
    while span / first > MAX_POINTS:
        first *= 10
    finer = [first / 10, first / 100]
    return [first, *(grid for grid in finer if span / grid <= MAX_POINTS)]


@functools.lru_cache(maxsize=4096)
@refusing()
def of_counts(counts: Counts, delta: float) -> Epsilon:
    """As :func:`epsilon`, for events that are counted and a delta that is checked."""
    if not counts:
        return Epsilon(0.0, 0.0, delta, "PLD")
    if discrete(counts):
        return _of_sums(counts, delta)
    grids = grids_of(counts)
    allowance = rounding(sampled(counts))
    if not grids or delta <= 2 * allowance:
        return Epsilon(math.inf, math.inf, delta, "PLD")
    rdp = _rdp(counts, delta)
    # What PLD must not exceed: its delta is less by the allowance, and may have been
    # rounded up by as much.
    highest = _rdp(counts, delta - 2 * allowance)
    pld = math.inf
    # Where one release's losses are smaller than the grid (tiny rates, many steps),
    # the grid itself dominates: a finer one costs little there.
    for grid in grids:
        pld = composed(counts, grid).epsilon(delta)
        if pld <= highest * (1 + RELATIVE_TOLERANCE) + max(grid, INTERVAL):
            _check_closed_form(counts, pld, delta, grid)
            return Epsilon(pld, rdp, delta, "PLD")
    raise VerificationError(
        f"the accountants disagree at delta {delta:.1e}: PLD says {pld:.6g}, above "
        f"RDP's {highest:.6g}",
        hint="choose a larger delta, or a larger sampling rate with fewer steps",
    )


def _of_sums(counts: Counts, delta: float) -> Epsilon:
    """The smaller bound where some are discrete, each at all of ``delta``."""
    rdp = _rdp(counts, delta) if bounded(counts) else math.inf
    near = nearly(counts) if math.isfinite(rdp) else None
    # What is added at Renyi DP's epsilon is enough for any that is smaller.
    left = delta - near.added(rdp) if near else 0.0
    if near is None or left <= 0:
        return Epsilon(rdp, rdp, delta, "RDP")
    gaussians = gaussian_counts(near)
    if sampled(gaussians):
        pld = of_counts(gaussians, left).value
    else:
        pld = gaussian.epsilon_of(math.sqrt(precision(gaussians)), left)
    return Epsilon(min(pld, rdp), rdp, delta, "PLD" if pld < rdp else "RDP")


def gaussian_counts(near: Nearly) -> Counts:
    """The Gaussian releases that sums are near to, counted."""
    counts = counted(Counter(near.releases))
    assert counts is not None
    return counts


# -- what callers ask ------------------------------------------------------------------


def epsilon(events: Releases, *, delta: float) -> Epsilon:
    """What all ``events`` together cost one record, added or removed.

    Holds where noise, rates and the number of releases were fixed beforehand, or the
    planned maximum is given: choosing any of them by what was released is not covered.

    Infinite where any event is NonPrivate, and where rounding could reach ``delta``
    (:func:`rounding`), but that Renyi DP still gives one of sums; 0 where there is no
    event.  Takes about half a second for new parameters and nothing for ones seen
    before.
    Raises UsageError for a delta out of range and VerificationError where the two
    accountants contradict each other.
    """
    delta = check_delta(delta)
    counts = counted(events)
    if counts is None:
        return Epsilon(math.inf, math.inf, delta, accountant_of(events))
    return of_counts(counts, delta)


def rdp_epsilon(events: Releases, *, delta: float) -> float:
    """By Renyi DP alone: much cheaper, and looser than a finite epsilon by PLD."""
    delta = check_delta(delta)
    counts = counted(events)
    if counts is None:
        return math.inf
    return _rdp(counts, delta) if counts else 0.0


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
