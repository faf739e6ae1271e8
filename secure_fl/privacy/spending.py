# SPDX-License-Identifier: Apache-2.0
"""What a lineage has spent: in all, in each year, and in each run.

The years and runs say where the total comes from; their epsilons do not add up to it,
because releases compose to less than their sum.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Final, TypeVar, final

from .accounting import epsilon
from .book import Book, Release, Reservation

__all__ = ["Spending", "Spent", "spending"]

# A clock beyond the calendar, which a signed export may claim, shows as its last day.
_LAST_SECOND: Final = int(datetime(9999, 12, 31, tzinfo=UTC).timestamp())


@final
@dataclass(frozen=True, slots=True)
class Spent:
    """What some releases of one lineage cost together.

    epsilon
        of the charged ones, composed, at the delta that was asked for; of opened sums,
        for as many clients that collude as each one's plan assumed
    charged, aborted
        how many reservations stand, and how many were taken back unsent
    first, last
        UTC days of the first and the last reservation, by the client's clock
    """

    epsilon: float
    charged: int
    aborted: int
    first: date
    last: date


@final
@dataclass(frozen=True, slots=True)
class Spending:
    """A lineage's account.

    last
        the last reservation: its limit is the budget that holds, as of now
    delta
        at which every epsilon here holds
    years
        pairs (year, what its releases cost by themselves), in order
    runs
        pairs (run id, what its releases cost by themselves), the oldest first
    """

    last: Reservation
    delta: float
    total: Spent
    years: tuple[tuple[int, Spent], ...]
    runs: tuple[tuple[bytes, Spent], ...]


_Dated = tuple[date, Release]
_K = TypeVar("_K", bound=Hashable)


def spending(book: Book, *, delta: float | None = None) -> Spending | None:
    """The account of ``book`` at ``delta``, or else at that of its last reservation.

    None where nothing was ever reserved.  Takes about half a second for each new
    combination of releases.  Raises UsageError for a delta out of range.
    """
    reserved = [(e.time, e.reservation) for e in book.entries if e.reservation]
    if not reserved:
        return None
    last = reserved[-1][1]
    delta = last.delta if delta is None else delta
    dated = [
        (_day(time), release)
        for (time, _), release in zip(reserved, book.releases(), strict=True)
    ]
    return Spending(
        last,
        delta,
        _spent(dated, delta),
        tuple(sorted(_grouped(dated, lambda day, _: day.year, delta))),
        tuple(_grouped(dated, lambda _, release: release.run_id, delta)),
    )


def _grouped(
    dated: list[_Dated], key: Callable[[date, Release], _K], delta: float
) -> Iterable[tuple[_K, Spent]]:
    groups: dict[_K, list[_Dated]] = {}
    for day, release in dated:
        groups.setdefault(key(day, release), []).append((day, release))
    return [(name, _spent(group, delta)) for name, group in groups.items()]


def _spent(dated: list[_Dated], delta: float) -> Spent:
    events = [release.event for _, release in dated if release.charged]
    days = [day for day, _ in dated]
    return Spent(
        epsilon(events, delta=delta).value,
        len(events),
        len(dated) - len(events),
        min(days),
        max(days),
    )


def _day(time: int) -> date:
    return datetime.fromtimestamp(min(time, _LAST_SECOND), UTC).date()
