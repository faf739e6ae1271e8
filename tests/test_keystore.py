# SPDX-License-Identifier: Apache-2.0
"""One contract for both keystores: begun once, taken once; and what the disk adds."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from secure_fl.errors import EngineError, UsageError
from secure_fl.keystore import DiskKeystore, Keystore, MemoryKeystore
from secure_fl.randomness import SystemRandom

CTX, OTHER = b"c" * 32, b"d" * 32
SECRET = b"a parked state with secrets in it"


def disk(folder: Path) -> DiskKeystore:
    return DiskKeystore(
        folder / "store", key_path=folder / "store.key", random=SystemRandom()
    )


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Keystore]:
    if request.param == "memory":
        yield MemoryKeystore()
        return
    kept = disk(tmp_path)
    yield kept
    kept.close()


def test_a_context_begins_once(store: Keystore) -> None:
    store.begin(CTX)
    store.begin(OTHER)
    for _ in range(2):
        with pytest.raises(UsageError, match="started before") as caught:
            store.begin(CTX)
        assert caught.value.hint


def test_a_state_goes_in_once_and_comes_out_once(store: Keystore) -> None:
    with pytest.raises(UsageError, match="no state"):
        store.take(CTX)
    store.park(CTX, SECRET)
    store.park(OTHER, b"other")
    with pytest.raises(UsageError, match="already"):
        store.park(CTX, b"second")
    assert store.take(CTX) == SECRET
    with pytest.raises(UsageError, match="no state") as caught:
        store.take(CTX)
    assert caught.value.hint
    assert store.take(OTHER) == b"other"
    # The next state of the same context is another state.
    store.park(CTX, b"next")
    assert store.take(CTX) == b"next"


def test_a_keystore_prints_nothing(store: Keystore) -> None:
    store.park(CTX, SECRET)
    assert repr(store) in ("<MemoryKeystore>", "<DiskKeystore>")


@pytest.mark.parametrize("name", ["begin", "take"])
def test_of_many_threads_one_succeeds(tmp_path: Path, name: str) -> None:
    store = disk(tmp_path)
    store.park(CTX, SECRET)
    move: Callable[[bytes], object] = getattr(store, name)

    def attempt(_: int) -> bool:
        try:
            move(CTX)
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(attempt, range(24))) == 1
    store.close()


def test_another_process_of_the_same_client_takes_nothing_twice(tmp_path: Path) -> None:
    """Two openings of one file, as after a restart beside a hung process."""
    first, second = disk(tmp_path), disk(tmp_path)
    first.begin(CTX)
    with pytest.raises(UsageError, match="started before"):
        second.begin(CTX)
    first.park(CTX, SECRET)
    assert second.take(CTX) == SECRET
    with pytest.raises(UsageError, match="no state"):
        first.take(CTX)
    first.close()
    second.close()


def test_what_was_kept_survives_a_restart(tmp_path: Path) -> None:
    store = disk(tmp_path)
    store.begin(CTX)
    store.park(CTX, SECRET)
    store.close()
    again = disk(tmp_path)
    with pytest.raises(UsageError, match="started before"):
        again.begin(CTX)
    assert again.take(CTX) == SECRET
    again.close()
    third = disk(tmp_path)
    with pytest.raises(UsageError, match="no state"):
        third.take(CTX)
    third.close()


def test_what_was_kept_survives_without_a_close(tmp_path: Path) -> None:
    """Every method is durable by itself: the copy stands for a killed process."""
    store = disk(tmp_path)
    store.begin(CTX)
    store.park(CTX, SECRET)
    killed = tmp_path / "killed"
    killed.mkdir()
    for file in tmp_path.glob("store*"):
        shutil.copy(file, killed / file.name)
    again = disk(killed)
    with pytest.raises(UsageError, match="started before"):
        again.begin(CTX)
    assert again.take(CTX) == SECRET
    again.close()
    store.close()


def test_files_are_the_owners_and_hold_no_plain_secret(tmp_path: Path) -> None:
    store = disk(tmp_path)
    store.park(CTX, SECRET)
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
        assert SECRET not in file.read_bytes()
    store.close()


def test_a_restored_store_answers_nothing(tmp_path: Path) -> None:
    """A backup holds the file but not the key of what is parked in it."""
    store = disk(tmp_path)
    store.park(CTX, SECRET)
    store.close()
    (tmp_path / "store.key").unlink()
    again = disk(tmp_path)
    with pytest.raises(UsageError, match="does not open") as caught:
        again.take(CTX)
    assert "dropout" in caught.value.hint
    with pytest.raises(UsageError, match="no state"):
        again.take(CTX)
    again.close()


def test_a_state_moved_to_another_context_does_not_open(tmp_path: Path) -> None:
    store = disk(tmp_path)
    store.park(CTX, SECRET)
    store.close()
    with sqlite3.connect(tmp_path / "store") as db:
        db.execute("UPDATE parked SET ctx = ?", (OTHER,))
    db.close()
    again = disk(tmp_path)
    with pytest.raises(UsageError, match="does not open"):
        again.take(OTHER)
    again.close()


def test_a_disk_that_does_not_let_us_is_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot open"):
        disk(tmp_path / "missing")
    junk = tmp_path / "junk"
    junk.mkdir()
    (junk / "store").write_bytes(b"not a database, but longer than its header is" * 9)
    with pytest.raises(EngineError, match="cannot open"):
        disk(junk)
    (tmp_path / "store.key").write_bytes(b"short")
    with pytest.raises(UsageError, match="not a keystore's key") as caught:
        disk(tmp_path)
    assert caught.value.hint
