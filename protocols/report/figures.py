# SPDX-License-Identifier: Apache-2.0
"""Epsilon and what follows from it (FIELDS.md, sections 4 to 6).

Events come in as the ledgers have them; what they cost is counted first, so that
figures of equal costs are computed once.
"""

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

import renyi
from costs import Spent, close_to, spent
from dp_accounting import GaussianDpEvent, PoissonSampledDpEvent
from dp_accounting.pld import privacy_loss_distribution as pld
from dp_accounting.rdp import RdpAccountant
from events import SKELLAM, AnyEvent, Event, Sum
from mixtures import Mixture, phi

# The accountants say which orders do not converge; the others are enough.
logging.getLogger("absl").setLevel(logging.ERROR)

_LEAST_NOISE, _MOST_MECHANISMS = 0.03, 64
_MOST_EPSILON, _MOST_COUNT, _MOST_CELLS = 500.0, 1000000, 2000000
_DELTAS = [float(f"1e-{i}") for i in range(2, 11)]
_RATES = (0.0001, 0.001, 0.01, 0.05, 0.1, 0.2, 0.5)
_PRIORS = (0.01, 0.1, 0.5)
_GROUPS = (2, 5)
_PLACES, _HALVINGS, _LEAST_DELTA = 150, 60, 1e-10
_KNOWN = (
    ("sampled-pld", 2.4612381, False, 0.01, 0.7, 120),
    ("sampled-rdp", 3.2392676, True, 0.01, 0.7, 120),
    ("twice-pld", 10.1224946, False, None, 0.7, 2),
    ("gaussian-pld", 4.3771781, False, None, 1.0, 1),
    ("half-noise-pld", 9.9972559, False, None, 0.5, 1),
)
_KNOWN_SUMS = (
    ("skellam-rdp", 1.224968, Sum(SKELLAM, 0.05, 100.0, 4, 1, 10.0, 16), 100),
    ("skellam-pld", 2.4612381, Sum(SKELLAM, 0.01, 1.225e15, 4, 1, 1e8, 4096), 120),
)


class Contradiction(Exception):
    """Accountants contradict each other, or fail: no figure can be given."""


@contextmanager
def _refusing() -> Iterator[None]:
    """A ledger's parameters are anybody's: where arithmetic fails is no figure."""
    try:
        yield
    except (ArithmeticError, ValueError, IndexError, RecursionError) as problem:
        raise Contradiction(f"no accountant copes with it: {problem}") from problem


# Epsilon (FIELDS.md, section 5).


@lru_cache(maxsize=4096)
@_refusing()
def rdp(costs: Spent, delta: float) -> float:
    """Epsilon by Renyi differential privacy, infinite where 5.2 says so."""
    if costs.nothing:
        return 0.0
    return _rdp(costs, delta) if _finite(costs, delta) else math.inf


def _rdp(costs: Spent, delta: float) -> float:
    if costs.sums:
        return renyi.epsilon_at(_divergences(costs), delta)
    return float(_accountant(costs).get_epsilon(delta))


@lru_cache(maxsize=1024)
def _divergences(costs: Spent) -> Any:
    """By Renyi DP at whole orders (FIELDS.md, 5.6)."""
    rows = [(renyi.of_gaussian(rate, z), count) for rate, z, count in costs.sampled]
    rows += [(renyi.of_gaussian(1.0, z), count) for z, count in costs.plain]
    rows += [(renyi.of_sum(event), count) for event, count in costs.sums]
    return renyi.total(rows)


@lru_cache(maxsize=1024)
def _accountant(costs: Spent) -> Any:
    accountant = RdpAccountant()
    for rate, noise, count in costs.sampled:
        accountant.compose(PoissonSampledDpEvent(rate, GaussianDpEvent(noise)), count)
    for noise, count in costs.plain:
        accountant.compose(GaussianDpEvent(noise), count)
    return accountant


def _finite(costs: Spent, delta: float) -> bool:
    """Whether epsilon is finite at this delta (FIELDS.md, 5.2)."""
    enough = bool(costs.sums) or delta > 2 * _allowance(costs)
    return _bounded(costs) and enough


def _bounded(costs: Spent) -> bool:
    """Whether it is finite at some delta."""
    if costs.unbounded or min(costs.noises, default=1.0) < _LEAST_NOISE:
        return False
    if len(costs.sampled) + len(costs.sums) > _MOST_MECHANISMS:
        return False
    if sum(count for _, _, count in costs.sampled) > _MOST_COUNT:
        return False
    return _rdp(costs, 1e-6) <= _MOST_EPSILON


def _grids(costs: Spent) -> list[float]:
    span = max(_rdp(costs, 1e-6), *(_reach(z) for z in costs.noises))
    grid = 1e-4
    while span / grid > _MOST_CELLS:
        grid *= 10
    finer = (grid / 10, grid / 100)
    return [grid, *(g for g in finer if span / g <= _MOST_CELLS)]


def _allowance(costs: Spent) -> float:
    """What rounding may take from a delta (FIELDS.md, 5.4)."""
    releases = sum(count for _, _, count in costs.sampled)
    return 1e-12 + 5e-16 * releases if releases else 0.0


def _reach(noise: float) -> float:
    return 0.5 / noise**2 + 10 / noise


def _step(rate: float, noise: float, grid: float) -> Any:
    """The losses of one release; what is kept of them stays below some 200 MB."""
    small = _reach(noise) / grid <= 150000
    return (_small_step if small else _new_step)(rate, noise, grid)


def _new_step(rate: float, noise: float, grid: float) -> Any:
    return pld.from_gaussian_mechanism(
        noise, value_discretization_interval=grid, sampling_prob=rate
    )


_small_step = lru_cache(maxsize=_MOST_MECHANISMS)(_new_step)


def _composed(parts: list[Any]) -> Any:
    total = parts[0]
    for part in parts[1:]:
        total = total.compose(part)
    return total


@lru_cache(maxsize=8)
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


def _read(losses: Any, costs: Spent, delta: float) -> float:
    """Epsilon of a distribution at delta less the allowance."""
    return float(losses.get_epsilon_for_delta(delta - _allowance(costs)))


@lru_cache(maxsize=4096)
@_refusing()
def epsilon(costs: Spent, delta: float) -> float:
    """Epsilon at delta; `Contradiction` where two accountants disagree."""
    if costs.nothing:
        return 0.0
    if not _finite(costs, delta):
        return math.inf
    if costs.sums:
        return _epsilon_of_sums(costs, delta)
    other = _rdp(costs, delta - 2 * _allowance(costs))
    for grid in _grids(costs):
        found = _read(_losses(costs, grid), costs, delta)
        if found <= 1.001 * other + max(grid, 1e-4):
            return found
    raise Contradiction("two accountants contradict each other")


# Sums (FIELDS.md, 5.7).


def _epsilon_of_sums(costs: Spent, delta: float) -> float:
    by_rdp, close = _rdp(costs, delta), close_to(costs)
    rest = delta - close.more(by_rdp) if close else 0.0
    if close is None or rest <= 0:
        return by_rdp
    if close.costs.sampled:
        return min(by_rdp, epsilon(close.costs, rest))
    mu = close.mu
    if _gaussian_delta(mu, 0.0) <= rest:
        return 0.0
    return _halve(0.0, by_rdp, lambda e: _gaussian_delta(mu, e) <= rest)


def _gaussian_delta(mu: float, e: float) -> float:
    """Of Gaussian noise that is not sampled: Balle and Wang 2018, theorem 8."""
    first, second = _log_phi(mu / 2 - e / mu), _log_phi(-mu / 2 - e / mu)
    return math.exp(first) - math.exp(min(e + second, 700))


# What an attack may reach (FIELDS.md, 4.1 to 4.4).

Curve = tuple[tuple[float, float], ...]


@lru_cache(maxsize=256)
@_refusing()
def _curve(costs: Spent) -> Curve | None:
    """Pairs of epsilon and delta; None where the loss has no bound."""
    if not _bounded(costs):
        return None
    if costs.sums:
        last, more = renyi.epsilon_at(_divergences(costs), _LEAST_DELTA), 0.0
        delta_at = _delta_of_sums(costs)
    else:
        losses, more = _losses(costs, _grids(costs)[0]), _allowance(costs)
        last = float(losses.get_epsilon_for_delta(_LEAST_DELTA))

        def delta_at(e: float) -> float:
            return float(losses.get_delta_for_epsilon(e))

    if math.isinf(last):
        return None
    top = math.ceil(10 * last) / 10
    places = [top * i / (_PLACES - 1) for i in range(_PLACES)]
    deltas = map(delta_at, places)
    return tuple(
        (e, min(max(d, 0.0) + more, 1.0)) for e, d in zip(places, deltas, strict=True)
    )


def _delta_of_sums(costs: Spent) -> Callable[[float], float]:
    divergences, close = _divergences(costs), close_to(costs)
    if close is None or not _bounded(close.costs):
        return lambda e: renyi.delta_at(divergences, e)
    if not close.costs.sampled:
        mu = close.mu

        def of_gaussian(e: float) -> float:
            return _gaussian_delta(mu, e)

    else:
        losses = _losses(close.costs, _grids(close.costs)[0])
        allowance = _allowance(close.costs)

        def of_gaussian(e: float) -> float:
            found = float(losses.get_delta_for_epsilon(e))
            return min(max(found, 0.0) + allowance, 1.0)

    return lambda e: min(renyi.delta_at(divergences, e), of_gaussian(e) + close.more(e))


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
    return math.log(phi(x))


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
        return phi(mu / 2 - e / mu) - second >= d

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


def _grouped(costs: Spent, k: int) -> Spent:
    """The same costs with k times less noise, and without sampling."""
    plain = [(z / k, count) for _, z, count in costs.sampled]
    plain += [(z / k, count) for z, count in costs.plain]
    sums = [(event.group(k), count) for event, count in costs.sums]
    unbounded = not all(event.bounded() for event, _ in sums)
    return Spent((), tuple(plain), unbounded, tuple(sums))


@lru_cache(maxsize=1024)
@_refusing()
def group(costs: Spent, delta: float, k: int) -> float:
    """Epsilon for k records of one person at one client."""
    single = epsilon(costs, delta)
    if costs.nothing or math.isinf(single):
        return single
    if costs.sums:
        return max(single, epsilon(_grouped(costs, k), delta))
    if not costs.sampled:
        closer = Spent(plain=tuple((noise / k, count) for noise, count in costs.plain))
        return max(single, epsilon(closer, delta))
    if min(costs.noises) < _LEAST_NOISE * k:
        return math.inf
    sampled = [(Mixture(q, z, k), n) for q, z, n in costs.sampled]
    square = sum(n * (k / z) ** 2 for z, n in costs.plain)
    mean = square / 2 + sum(n * one.mean for one, n in sampled)
    if mean > _MOST_EPSILON:
        return math.inf
    span = mean + math.sqrt(square) + max(one.largest for one, _ in sampled)
    variance = square + sum(n * one.variance for one, n in sampled)
    deviation = math.sqrt(variance / sum(n for _, n in sampled))
    grid = max(min(1e-3, deviation / 10), 1e-6, span / 200000)
    parts = [one.pair(grid).self_compose(n) for one, n in sampled]
    if costs.plain:
        parts.append(_new_step(1.0, square**-0.5, grid))
    found = _read(_composed(parts), costs, delta)
    return math.inf if found > _MOST_EPSILON else max(single, found)


# As the report has them.


def r6(x: float) -> float:
    """Rounded to six significant digits."""
    return float(f"{x:.5e}")


def num(x: float) -> float | str:
    return "infinity" if math.isinf(x) else r6(x)


def figures(events: list[AnyEvent], delta: float) -> dict[str, Any]:
    """All figures of these events (FIELDS.md, section 4)."""
    costs = spent(events)
    found = dict(_figures(costs, delta))
    found["epsilon_without_amplification"] = num(
        epsilon(spent(event.unsampled() for event in events), delta)
    )
    found["reasons"] = sorted({e.reason for e in events if not e.private})
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


@lru_cache(maxsize=2)
def known_answers(with_sums: bool) -> tuple[dict[str, Any], ...]:
    """The accountants on what is known; `Contradiction` where they are wrong."""
    rows = []
    known = [
        (name, expected, by_rdp, spent([Event(noise, rate, count)]))
        for name, expected, by_rdp, rate, noise, count in _KNOWN
    ]
    if with_sums:
        known += [
            (name, expected, False, Spent(sums=((event, count),)))
            for name, expected, event, count in _KNOWN_SUMS
        ]
    for name, expected, by_rdp, costs in known:
        got = rdp(costs, 1e-5) if by_rdp else epsilon(costs, 1e-5)
        if abs(got - expected) > 1e-4:
            raise Contradiction(f"the accountant gives {got} for {name}")
        rows.append(
            {"id": name, "expected": expected, "got": r6(got), "tolerance": 1e-4}
        )
    return tuple(rows)
