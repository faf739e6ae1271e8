# SPDX-License-Identifier: Apache-2.0
"""The account of a lineage: totals, years, runs."""

from __future__ import annotations

import calendar
import math
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from secure_fl.errors import UsageError
from secure_fl.privacy import (
    Event,
    Gaussian,
    Ledger,
    NonPrivate,
    Reservation,
    epsilon,
)
from secure_fl.privacy.spending import Spending, Spent, spending

from .support import CLIENT, DELTA, LINEAGE, QUIET

LOUD = Gaussian(8.0)
FIRST, SECOND = b"1" * 16, b"2" * 16


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    opened = Ledger(tmp_path / "ledger.sqlite", client=CLIENT)
    yield opened
    opened.close()


def noon(*day: int) -> int:
    return calendar.timegm((*day, 12, 0, 0))


def put(
    ledger: Ledger,
    event: Event,
    *,
    run_id: bytes,
    place: int,
    now: int,
    delta: float = DELTA,
    limit: float = math.inf,
) -> Reservation:
    return ledger.reserve(
        LINEAGE,
        run_id=run_id,
        round_index=place,
        attempt=0,
        event=event,
        unit="record",
        adjacency="add-or-remove-one",
        delta=delta,
        limit=limit,
        now=now,
    )


def account(ledger: Ledger, delta: float | None = None) -> Spending:
    found = spending(ledger.book(LINEAGE), delta=delta)
    assert found is not None
    return found


def cost(*events: Event, delta: float = DELTA) -> float:
    return epsilon(events, delta=delta).value


def test_years_and_runs_are_of_their_releases_alone(ledger: Ledger) -> None:
    put(ledger, QUIET, run_id=FIRST, place=0, now=noon(2027, 12, 31))
    put(ledger, LOUD, run_id=FIRST, place=1, now=noon(2028, 1, 1))
    gone = put(ledger, LOUD, run_id=SECOND, place=0, now=noon(2028, 5, 6))
    ledger.aborted(gone, now=noon(2030, 1, 1))
    put(ledger, LOUD, run_id=SECOND, place=1, now=noon(2028, 7, 8), limit=7.5)
    found = account(ledger)

    start, end = date(2027, 12, 31), date(2028, 7, 8)
    assert found.total == Spent(cost(QUIET, LOUD, LOUD), 3, 1, start, end)
    assert found.years == (
        (2027, Spent(cost(QUIET), 1, 0, start, start)),
        (2028, Spent(cost(LOUD, LOUD), 2, 1, date(2028, 1, 1), end)),
    )
    assert found.runs == (
        (FIRST, Spent(cost(QUIET, LOUD), 2, 0, start, date(2028, 1, 1))),
        (SECOND, Spent(cost(LOUD), 1, 1, date(2028, 5, 6), end)),
    )
    assert (found.last.limit, found.delta) == (7.5, DELTA)
    assert found.total.epsilon == ledger.spent(LINEAGE, delta=DELTA).value


def test_the_delta_is_the_last_one_s_unless_another_is_asked_for(
    ledger: Ledger,
) -> None:
    put(ledger, QUIET, run_id=FIRST, place=0, now=0)
    put(ledger, QUIET, run_id=FIRST, place=1, now=1, delta=1e-9)
    assert account(ledger).total.epsilon == cost(QUIET, QUIET, delta=1e-9)
    assert account(ledger, 1e-3).delta == 1e-3
    assert account(ledger, 1e-3).total.epsilon == cost(QUIET, QUIET, delta=1e-3)
    for delta in (0.0, 1.0, -1.0, math.nan):
        with pytest.raises(UsageError):
            account(ledger, delta)


def test_nothing_reserved(ledger: Ledger) -> None:
    assert spending(ledger.book(LINEAGE)) is None


def test_only_aborted(ledger: Ledger) -> None:
    gone = put(ledger, LOUD, run_id=FIRST, place=0, now=0)
    ledger.aborted(gone, now=1)
    day = date(1970, 1, 1)
    assert account(ledger).total == Spent(0.0, 0, 1, day, day)


def test_an_unprotected_release_is_infinite(ledger: Ledger) -> None:
    put(ledger, QUIET, run_id=FIRST, place=0, now=0)
    put(ledger, NonPrivate("a baseline"), run_id=SECOND, place=0, now=0)
    found = account(ledger)
    assert math.isinf(found.total.epsilon)
    assert [math.isinf(spent.epsilon) for _, spent in found.runs] == [False, True]


def test_a_clock_that_goes_back_or_beyond_the_calendar(ledger: Ledger) -> None:
    put(ledger, QUIET, run_id=FIRST, place=0, now=2**63 - 1)
    put(ledger, QUIET, run_id=FIRST, place=1, now=0)
    found = account(ledger)
    assert [year for year, _ in found.years] == [1970, 9999]
    assert (found.total.first, found.total.last) == (
        date(1970, 1, 1),
        date(9999, 12, 31),
    )
