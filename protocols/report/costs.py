# SPDX-License-Identifier: Apache-2.0
"""What events cost, counted (FIELDS.md, 5.1), and what sums are close to (5.7)."""

import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache

from events import SKELLAM, AnyEvent, Event, Sum

_MOST_NOISE, _LEAST_RATE, _MOST_RATE = 1e6, 1e-6, 1 - 1e-6
_LEAST_CLOSE = 10000.0  # variance of Skellam noise that is close to Gaussian noise


@dataclass(frozen=True)
class Spent:
    """What events cost: counts of mechanisms, and whether no epsilon bounds them.

    `sampled` has (rate, noise, count), `plain` has (noise, count), `sums` has (event,
    count).
    """

    sampled: tuple[tuple[float, float, int], ...] = ()
    plain: tuple[tuple[float, int], ...] = ()
    unbounded: bool = False
    sums: tuple[tuple[Sum, int], ...] = ()

    @property
    def nothing(self) -> bool:
        return not (self.sampled or self.plain or self.unbounded or self.sums)

    @property
    def noises(self) -> list[float]:
        return [z for _, z, _ in self.sampled] + [z for z, _ in self.plain]


def spent(events: Iterable[AnyEvent]) -> Spent:
    """What these events cost together."""
    return counted(Counter(events))


def counted(times_of: Mapping[AnyEvent, int]) -> Spent:
    """What events cost of which each is there so many times (FIELDS.md, 5.1)."""
    sampled: dict[tuple[float, float], int] = {}
    plain: dict[float, int] = {}
    sums: dict[Sum, int] = {}
    unbounded = False
    for event, times in times_of.items():
        if isinstance(event, Sum):
            rate = 1.0 if event.rate > _MOST_RATE else max(event.rate, _LEAST_RATE)
            one = replace(event, rate=rate)
            sums[one] = sums.get(one, 0) + times
            continue
        if event.noise is None:
            unbounded = True
            continue
        noise, count = min(event.noise, _MOST_NOISE), times * (event.count or 1)
        if event.rate is None or event.rate > _MOST_RATE:
            plain[noise] = plain.get(noise, 0) + count
        else:
            key = max(event.rate, _LEAST_RATE), noise
            sampled[key] = sampled.get(key, 0) + count
    return Spent(
        tuple(sorted((*key, count) for key, count in sampled.items())),
        tuple(sorted(plain.items())),
        unbounded,
        tuple(sorted(sums.items())),
    )


@dataclass(frozen=True)
class Close:
    """Gaussian releases that sums are close to, and how close: in total variation."""

    costs: Spent
    gap: float

    def more(self, e: float) -> float:
        """What the gap adds to delta at this epsilon."""
        return self.gap * (1 + math.exp(min(e, 700)))

    @property
    def mu(self) -> float:
        """Of all of them together, where nothing is sampled."""
        return math.sqrt(sum(count / noise**2 for noise, count in self.costs.plain))


@lru_cache(maxsize=1024)
def close_to(costs: Spent) -> Close | None:
    """None where some sum has other noise than Skellam, or too little."""
    times_of: Counter[AnyEvent] = Counter()
    for rate, noise, count in costs.sampled:
        times_of[Event(noise, rate)] += count
    for noise, count in costs.plain:
        times_of[Event(noise)] += count
    square = 0.0
    for event, count in costs.sums:
        w = event.shares * event.scale
        if event.kind != SKELLAM or w < _LEAST_CLOSE:
            return None
        times_of[Event(math.sqrt(w) / event.l2, event.rate)] += count
        square += count * event.values / w / w
    return Close(counted(times_of), math.sqrt(square) / 8)
