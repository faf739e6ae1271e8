# SPDX-License-Identifier: Apache-2.0
"""Epsilon and what follows from it (FIELDS.md, sections 4 to 6).

Events come in as the ledgers have them; what they cost is counted first, so that
figures of equal costs are computed once.
"""

import logging
import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from ledgers import Event

# The accountants say which orders do not converge; the others are enough.
logging.getLogger("absl").setLevel(logging.ERROR)

_MOST_NOISE, _LEAST_RATE, _LEAST_NOISE = 1e6, 1e-6, 0.03
_MOST_EPSILON, _MOST_COUNT, _MOST_CELLS = 500.0, 1000000, 2000000
_DELTAS = [float(f"1e-{i}") for i in range(2, 11)]
_RATES = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5)
_PRIORS = (0.01, 0.1, 0.5)
_GROUPS = (2, 5)
_PLACES, _HALVINGS, _LEAST_DELTA = 150, 60, 1e-12
_KNOWN = (
    ("sampled-pld", 2.4612381, False, 0.01, 0.7, 120),
    ("sampled-rdp", 3.2392676, True, 0.01, 0.7, 120),
    ("twice-pld", 10.1224946, False, None, 0.7, 2),
    ("gaussian-pld", 4.3771781, False, None, 1.0, 1),
    ("half-noise-pld", 9.9972559, False, None, 0.5, 1),
)


class Contradiction(Exception):
    """Two accountants contradict each other: no figure can be given."""


@dataclass(frozen=True)
class Spent:
    """What events cost: counts of mechanisms, and whether no epsilon bounds them.

    `sampled` has (rate, noise, count), `plain` has (noise, count).
    """

    sampled: tuple[tuple[float, float, int], ...] = ()
    plain: tuple[tuple[float, int], ...] = ()
    unbounded: bool = False

    @property
    def nothing(self) -> bool:
        return not (self.sampled or self.plain or self.unbounded)

    @property
    def noises(self) -> list[float]:
        return [z for _, z, _ in self.sampled] + [z for z, _ in self.plain]


def spent(events: Iterable[Event]) -> Spent:
    """Counts events (FIELDS.md, 5.1)."""
    sampled: dict[tuple[float, float], int] = {}
    plain: dict[float, int] = {}
    unbounded = False
    for event in events:
        if event.noise is None:
            unbounded = True
            continue
        noise, count = min(event.noise, _MOST_NOISE), event.count or 1
        if event.rate is None or event.rate == 1:
            plain[noise] = plain.get(noise, 0) + count
        else:
            key = max(event.rate, _LEAST_RATE), noise
            sampled[key] = sampled.get(key, 0) + count
    return Spent(
        tuple(sorted((*key, count) for key, count in sampled.items())),
        tuple(sorted(plain.items())),
        unbounded,
    )


def unsampled(events: Iterable[Event]) -> list[Event]:
    """The same events, as if every record took part in each step."""
    return [Event(e.noise, None, e.count, e.reason) for e in events]


# Epsilon (FIELDS.md, section 5).


@lru_cache(maxsize=4096)
def rdp(costs: Spent, delta: float) -> float:
    """Epsilon by Renyi differential privacy, infinite where 5.2 says so."""
    if costs.nothing:
        return 0.0
    return _rdp(costs, delta) if _bounded(costs) else math.inf


def _rdp(costs: Spent, delta: float) -> float:
    return float(_accountant(costs).get_epsilon(delta))


@lru_cache(maxsize=1024)
def _accountant(costs: Spent) -> Any:
    accountant = RdpAccountant()
    for rate, noise, count in costs.sampled:
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), count)
    for noise, count in costs.plain:
        accountant.compose(GaussianDpEvent(noise), count)
    return accountant


def _bounded(costs: Spent) -> bool:
    """Whether there is a finite epsilon (FIELDS.md, 5.2)."""
    if costs.unbounded or min(costs.noises, default=1.0) < _LEAST_NOISE:
        return False
    if sum(count for _, _, count in costs.sampled) > _MOST_COUNT:
        return False
    return _rdp(costs, 1e-6) <= _MOST_EPSILON


def _grids(costs: Spent) -> list[float]:
    span = max(_rdp(costs, 1e-6), *(0.5 / z**2 + 10 / z for z in costs.noises))
    grid = 1e-4
    while span / grid > _MOST_CELLS:
        grid *= 10
    finer = (grid / 10, grid / 100)
    return [grid, *(g for g in finer if span / g <= _MOST_CELLS)]


@lru_cache(maxsize=64)
def _step(rate: float, noise: float, grid: float) -> Any:
    return pld.from_gaussian_mechanism(
        noise, value_discretization_interval=grid, sampling_prob=rate
    )


def _composed(parts: list[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = total.compose(part)
    return total


@lru_cache(maxsize=256)
def _losses(costs: Spent, grid: float) -> Any:
    """The privacy loss distribution (FIELDS.md, 5.4)."""
    parts = [
        _step(rate, noise, grid).self_compose(count)
        for rate, noise, count in costs.sampled
    ]
    if costs.plain:
        together = sum(count / noise**2 for noise, count in costs.plain) ** -0.5
        parts.append(_step(1.0, together, grid))
    return _composed(parts)


@lru_cache(maxsize=4096)
def epsilon(costs: Spent, delta: float) -> float:
    """Epsilon at delta; `Contradiction` where two accountants disagree."""
    if costs.nothing:
        return 0.0
    if not _bounded(costs):
        return math.inf
    other = _rdp(costs, delta)
    for grid in _grids(costs):
        found = float(_losses(costs, grid).get_epsilon_for_delta(delta))
        if found <= 1.001 * other + max(grid, 1e-4):
            return found
    raise Contradiction("two accountants contradict each other")


# What an attack may reach (FIELDS.md, 4.1 to 4.4).

Curve = tuple[tuple[float, float], ...]


@lru_cache(maxsize=256)
def _curve(costs: Spent) -> Curve | None:
    """Pairs of epsilon and delta; None where the loss has no bound."""
    if not _bounded(costs):
        return None
    losses = _losses(costs, _grids(costs)[0])
    last = float(losses.get_epsilon_for_delta(_LEAST_DELTA))
    if math.isinf(last):
        return None
    top = math.ceil(10 * last) / 10
    places = [top * i / (_PLACES - 1) for i in range(_PLACES)]
    deltas = (float(losses.get_delta_for_epsilon(e)) for e in places)
    return tuple(
        (e, min(max(d, 0.0), 1.0)) for e, d in zip(places, deltas, strict=True)
    )


def _true_positives(curve: Curve, rate: float) -> float:
    found = 1.0
    for e, d in curve:
        above = d + math.exp(min(e, 700)) * rate
        found = min(found, above, 1 - math.exp(-e) * (1 - d - rate))
    return found


def _log_phi(x: float) -> float:
    if x < -30:
        tail = math.log(-x * math.sqrt(2 * math.pi)) + math.log1p(1 / x**2)
        return -x * x / 2 - tail
    return math.log(_phi(x))


def _phi(x: float) -> float:
    return 0.5 * math.erfc(-x / math.sqrt(2))


def _halve(low: float, high: float, enough: Callable[[float], bool]) -> float:
    """The least value that is enough, from above."""
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if enough(middle):
            high = middle
        else:
            low = middle
    return high


def _mu(e: float, d: float) -> float:
    if d > 1 - 1e-9:
        return 0.0

    def enough(mu: float) -> bool:
        if mu == 0:
            return False
        second = math.exp(min(e + _log_phi(-mu / 2 - e / mu), 700))
        return _phi(mu / 2 - e / mu) - second >= d

    return _halve(0.0, 1000.0, enough)


def _loss(curve: Curve, delta: float) -> float:
    """The loss that is passed with a chance of at most delta."""

    def above(x: float) -> float:
        rows = (d / -math.expm1(e - x) for e, d in curve if e < x)
        return min(rows, default=1.0)

    top = curve[-1][0]
    if above(top) > delta:
        return math.inf
    return _halve(0.0, top, lambda x: above(x) <= delta)


# Groups (FIELDS.md, 4.5).


class _Mixture:
    """The loss of one sampled release, for k records of one person."""

    def __init__(self, rate: float, noise: float, k: int) -> None:
        weights = [math.comb(k, i) * rate**i * (1 - rate) ** (k - i) for i in range(k)]
        self.weights = [*weights, rate**k]
        self._shifts = [i / noise for i in range(k + 1)]
        top = self._shifts[-1]
        step, low = 0.01, -10.0
        places = [low + step * i for i in range(int((top + 20) / step) + 1)]
        mass = [self._density(x) * step for x in places]
        losses = [self.loss(x) for x in places]
        rows = list(zip(mass, losses, strict=True))
        self.mean = sum(m * loss for m, loss in rows)
        square = sum(m * loss**2 for m, loss in rows)
        self.deviation = math.sqrt(max(square - self.mean**2, 0.0))
        self.largest = self.loss(
            _halve(0.0, top + 40, lambda x: self._tail(x) <= 1e-22)
        )

    def _density(self, x: float) -> float:
        rows = zip(self.weights, self._shifts, strict=True)
        total = sum(w * math.exp(-((x - shift) ** 2) / 2) for w, shift in rows)
        return total / math.sqrt(2 * math.pi)

    def _tail(self, x: float) -> float:
        rows = zip(self.weights, self._shifts, strict=True)
        return sum(w * _phi(shift - x) for w, shift in rows)

    def loss(self, x: float) -> float:
        rows = zip(self.weights, self._shifts, strict=True)
        logs = [math.log(w) + s * x - s * s / 2 for w, s in rows if w > 0]
        most = max(logs)
        return most + math.log(sum(math.exp(each - most) for each in logs))


@lru_cache(maxsize=1024)
def group(costs: Spent, delta: float, k: int) -> float:
    """Epsilon for k records of one person at one client."""
    single = epsilon(costs, delta)
    if costs.nothing or math.isinf(single):
        return single
    if not costs.sampled:
        closer = Spent(plain=tuple((noise / k, count) for noise, count in costs.plain))
        return max(single, epsilon(closer, delta))
    if min(costs.noises) < _LEAST_NOISE * k:
        return math.inf
    sampled = [(_Mixture(q, z, k), z, n) for q, z, n in costs.sampled]
    square = sum(n * (k / z) ** 2 for z, n in costs.plain)
    mean = square / 2 + sum(n * one.mean for one, _, n in sampled)
    if mean > _MOST_EPSILON:
        return math.inf
    span = mean + math.sqrt(sum(n * (k / z) ** 2 for z, n in _all(costs)))
    span += max(one.largest for one, _, _ in sampled)
    finest = min(one.deviation for one, _, _ in sampled) / 5
    grid = 0.001
    while grid > 0.00001 and grid > finest:
        grid /= 10
    while span / grid > 200000:
        grid *= 10
    # A tenth of the deviation is fine enough for the tolerance, and far cheaper.
    grid = max(grid, min(0.01, finest / 2))
    parts = [_group_step(one, z, k, grid).self_compose(n) for one, z, n in sampled]
    if costs.plain:
        parts.append(_step(1.0, square**-0.5, grid))
    found = float(_composed(parts).get_epsilon_for_delta(delta))
    return math.inf if found > _MOST_EPSILON else max(single, found)


def _all(costs: Spent) -> list[tuple[float, int]]:
    return [(z, n) for _, z, n in costs.sampled] + list(costs.plain)


def _group_step(one: _Mixture, noise: float, k: int, grid: float) -> Any:
    return pld.from_mixture_gaussian_mechanism(
        standard_deviation=noise,
        sensitivities=[float(i) for i in range(k + 1)],
        sampling_probs=one.weights,
        value_discretization_interval=grid,
    )


# As the report has them.


def r6(x: float) -> float:
    """Rounded to six significant digits."""
    return float(f"{x:.5e}")


def num(x: float) -> float | str:
    return "infinity" if math.isinf(x) else r6(x)


def figures(events: list[Event], delta: float) -> dict[str, Any]:
    """All figures of these events (FIELDS.md, section 4)."""
    costs = spent(events)
    found = dict(_figures(costs, delta))
    found["epsilon_without_amplification"] = num(
        epsilon(spent(unsampled(events)), delta)
    )
    found["reasons"] = sorted({e.reason for e in events if e.noise is None})
    return found


@lru_cache(maxsize=256)
def _figures(costs: Spent, delta: float) -> dict[str, Any]:
    found: dict[str, Any] = {
        "epsilon": num(epsilon(costs, delta)),
        "epsilon_rdp": num(rdp(costs, delta)),
        "profile": [[d, num(epsilon(costs, d))] for d in _DELTAS],
        "group": [[k, num(group(costs, delta, k))] for k in _GROUPS],
    }
    curve = None if costs.nothing else _curve(costs)
    if costs.nothing:
        advantage, mu, loss = 0.0, 0.0, 0.0
    elif curve is None:
        advantage, mu, loss = 1.0, math.inf, math.inf
    else:
        advantage = curve[0][1]
        mu = max((_mu(e, d) for e, d in curve if d >= _LEAST_DELTA), default=0.0)
        loss = _loss(curve, delta)

    def positives(rate: float) -> float:
        if costs.nothing:
            return rate
        return r6(1.0 if curve is None else _true_positives(curve, rate))

    found["advantage"], found["mu_gdp"] = r6(advantage), num(mu)
    found["tpr_at_fpr"] = {str(rate): positives(rate) for rate in (0.001, 0.01)}
    found["trade_off"] = [[rate, positives(rate)] for rate in _RATES]
    found["posterior"] = {
        str(prior): r6(prior / (prior + (1 - prior) * math.exp(-loss)))
        for prior in _PRIORS
    }
    return found


@lru_cache(maxsize=1)
def known_answers() -> tuple[dict[str, Any], ...]:
    """The accountants on what is known; `Contradiction` where they are wrong."""
    rows = []
    for name, expected, by_rdp, rate, noise, count in _KNOWN:
        costs = spent([Event(noise, rate, count)])
        got = rdp(costs, 1e-5) if by_rdp else epsilon(costs, 1e-5)
        if abs(got - expected) > 1e-4:
            raise Contradiction(f"the accountant gives {got} for {name}")
        rows.append(
            {"id": name, "expected": expected, "got": r6(got), "tolerance": 1e-4}
        )
    return tuple(rows)
