# SPDX-License-Identifier: Apache-2.0
"""kill -9 at every write of a ledger, and a full disk: never less than was spent.

After each: the ledger opens, its chain holds, every step that had returned is in it,
whatever noise could have been drawn for is charged, and it goes on and is exported.
The ordinary suite tries a sample, the long one all of them: more than 500.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from .kills import NAME, Death, Ground, check, full_disk, ground, killed_by_us

FRAME = 24 + 4096  # of a write-ahead log, whose header has 32 bytes
INDEX = 32768  # of the log's index, which is made when a ledger is opened
LIFE = 8  # steps of a life of four releases; each writes a frame, or more


@dataclass(frozen=True)
class Area:
    """Where to die, from which ground; ``steps`` have returned by then, if known."""

    make: Callable[[Path], Ground]
    deaths: Callable[[Ground], list[Death]]
    steps: int | None = None


def _used(folder: Path) -> Ground:
    return ground(folder, releases=60)


def _end(place: Ground) -> int:
    return (place.folder / NAME).stat().st_size


AREAS = {
    # A life's own entries, cut anywhere in the log.
    "log": Area(
        lambda folder: ground(folder, releases=1),
        lambda _: [Death(at) for at in range(0, 32 + LIFE * FRAME, 101)],
    ),
    # The same at the edges of its frames, and of their headers.
    "frames": Area(
        lambda folder: ground(folder, releases=1),
        lambda _: [
            Death(32 + frame * FRAME + near)
            for frame in range(LIFE)
            for near in (-1, 0, 1, 23, 24, 25)
        ],
    ),
    # The database, as the closing ledger moves the log's last page over to it.
    "database": Area(
        _used,
        lambda place: [
            Death(at, releases=1) for at in range(_end(place) - 4096, _end(place), 37)
        ],
        steps=1,
    ),
    # The index, which is made anew over a log that an earlier crash left behind.
    "recovery": Area(
        lambda folder: ground(folder, releases=3, closed=False),
        lambda _: [Death(at, opened=False) for at in range(0, INDEX, 512)],
        steps=0,
    ),
    # The very first opening.
    "creation": Area(
        lambda folder: ground(folder, releases=0),
        lambda _: [Death(at, opened=False) for at in range(0, INDEX, 256)],
        steps=0,
    ),
}


def die(place: Ground, area: Area, deaths: list[Death]) -> None:
    for death in deaths:
        returned = place.dies(death)
        assert area.steps in (None, returned)


@pytest.mark.parametrize("name", AREAS)
def test_a_death_inside_a_write(tmp_path: Path, name: str) -> None:
    area = AREAS[name]
    place = area.make(tmp_path)
    deaths = area.deaths(place)
    die(place, area, deaths[1 :: len(deaths) // 4])


@pytest.mark.long
def test_a_death_inside_every_write(tmp_path: Path) -> None:
    count = 0
    for name, area in AREAS.items():
        (tmp_path / name).mkdir()
        place = area.make(tmp_path / name)
        deaths = area.deaths(place)
        die(place, area, deaths)
        count += len(deaths)
    assert count >= 500


def test_the_log_of_a_life_is_as_long_as_these_tests_think(tmp_path: Path) -> None:
    place = ground(tmp_path, releases=1)
    assert place.dies(Death(32 + LIFE * FRAME - 1)) >= LIFE - 1
    with pytest.raises(AssertionError, match="at=1000000"):
        place.dies(Death(1_000_000))


# -- kill -9 by another process --------------------------------------------------------


def kill(folder: Path, moments: list[tuple[int, float]]) -> None:
    place = ground(folder, releases=2)
    for after, wait in moments:
        path = place.copy()
        reported = killed_by_us(path, after=after, wait=wait)
        check(path, [*place.before, *reported])


def test_kill_9(tmp_path: Path) -> None:
    kill(tmp_path, [(1, 0.0), (3, 0.0007), (8, 0.0023)])


@pytest.mark.long
def test_kill_9_at_many_moments(tmp_path: Path) -> None:
    kill(tmp_path, [(1 + i % 20, i * 50e-6) for i in range(100)])


@pytest.mark.long
def test_kill_9_where_the_log_begins_anew(tmp_path: Path) -> None:
    """After about 1000 frames SQLite moves them over and starts from the front."""
    kill(tmp_path, [(940 + 10 * i, i * 150e-6) for i in range(12)])


# -- a full disk -----------------------------------------------------------------------


def fill(folder: Path, places: list[int]) -> None:
    ground_ = ground(folder, releases=2)
    for at in places:
        path = ground_.copy()
        failed, reported = full_disk(path, at)
        assert failed, at
        check(path, [*ground_.before, *reported], unreported=0)


def test_a_full_disk_is_an_error_and_charges_nothing(tmp_path: Path) -> None:
    fill(tmp_path, [0, 40, 32 + FRAME, 32 + 3 * FRAME + 100, 30_000])


@pytest.mark.long
def test_a_full_disk_anywhere(tmp_path: Path) -> None:
    fill(tmp_path, list(range(0, 30_000, 211)))
