# SPDX-License-Identifier: Apache-2.0
"""One contract for both keystores: begun once, moved on once; and what the disk adds.

The disk's part: a transaction is whole or did not happen, two processes never move one
state, and a store that was put back to an older copy answers nothing.
"""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import stat
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from secure_fl.errors import EngineError, FaultyAggregator, UsageError
from secure_fl.keystore import DiskKeystore, Keystore, MemoryKeystore
from secure_fl.randomness import SystemRandom

CTX, OTHER = b"c" * 32, b"d" * 32
SECRET = b"a parked state with secrets in it"


def disk(folder: Path) -> DiskKeystore:
    return DiskKeystore(
        folder / "store", key_path=folder / "store.key", random=SystemRandom()
    )


def copy(source: Path, target: Path) -> None:
    """What a backup holds: the database with all that SQLite keeps beside it."""
    target.mkdir(exist_ok=True)
    for name in ("store", "store-wal", "store-shm"):
        (target / name).unlink(missing_ok=True)
        if (source / name).exists():
            shutil.copy(source / name, target / name)


def held(store: Keystore, key: bytes = CTX) -> bytes:
    """What is parked; it stays there."""
    found: list[bytes] = []

    def look(state: bytes) -> bytes:
        found.append(state)
        return state

    store.advance(key, look)
    return found[0]


def spend(store: Keystore, key: bytes = CTX) -> None:
    store.advance(key, lambda _: None)


def move(store: Keystore, to: bytes, key: bytes = CTX) -> None:
    store.advance(key, lambda _: to)


@pytest.fixture(params=["memory", "disk"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Keystore]:
    if request.param == "memory":
        yield MemoryKeystore()
        return
    kept = disk(tmp_path)
    yield kept
    kept.close()


# -- the contract ------------------------------------------------------------------


def test_a_context_begins_once(store: Keystore) -> None:
    store.begin(CTX)
    store.begin(OTHER)
    for _ in range(2):
        with pytest.raises(UsageError, match="started before") as caught:
            store.begin(CTX)
        assert caught.value.hint


def test_asking_whether_a_context_began_begins_none(store: Keystore) -> None:
    store.park(CTX, SECRET)  # a parked state is another matter
    assert [store.begun(CTX), store.begun(CTX)] == [False, False]
    store.begin(CTX)
    assert (store.begun(CTX), store.begun(OTHER)) == (True, False)
    with pytest.raises(UsageError, match="started before"):
        store.begin(CTX)
    spend(store)
    assert store.begun(CTX)

    def step(_: bytes) -> bytes:
        store.begin(OTHER)
        seen.append(store.begun(OTHER))
        return b"next"

    seen: list[bool] = []
    store.park(CTX, SECRET)
    store.advance(CTX, step)
    assert (seen, store.begun(OTHER), held(store)) == ([True], True, b"next")


def test_a_state_moves_on_and_is_spent_once(store: Keystore) -> None:
    with pytest.raises(UsageError, match="no state"):
        spend(store)
    store.park(CTX, SECRET)
    store.park(OTHER, b"other")
    with pytest.raises(UsageError, match="already"):
        store.park(CTX, b"second")
    assert held(store) == SECRET
    store.advance(CTX, lambda state: state + b", moved on")
    assert held(store) == SECRET + b", moved on"
    spend(store)
    with pytest.raises(UsageError, match="no state") as caught:
        held(store)
    assert caught.value.hint
    assert held(store, OTHER) == b"other"
    store.park(CTX, b"another state")
    assert held(store) == b"another state"


@pytest.mark.parametrize("error", [FaultyAggregator("a lie"), ZeroDivisionError()])
def test_a_step_that_fails_has_spent_its_state(
    store: Keystore, error: Exception
) -> None:
    store.park(CTX, SECRET)

    def step(_: bytes) -> bytes:
        raise error

    with pytest.raises(type(error)) as caught:
        store.advance(CTX, step)
    assert caught.value is error
    with pytest.raises(UsageError, match="no state"):
        held(store)


def test_a_step_does_not_come_back_for_its_own_state(store: Keystore) -> None:
    store.park(CTX, SECRET)
    seen: list[str] = []

    def step(_: bytes) -> bytes:
        with pytest.raises(UsageError, match="no state") as caught:
            move(store, b"a second answer")
        seen.append(str(caught.value))
        return b"the one answer"

    store.advance(CTX, step)
    assert len(seen) == 1
    assert held(store) == b"the one answer"


def test_what_a_step_does_in_the_keystore_stands_with_it(store: Keystore) -> None:
    store.park(CTX, SECRET)
    store.park(OTHER, b"other")

    def step(_: bytes) -> bytes:
        store.begin(CTX)
        spend(store, OTHER)
        store.park(b"e" * 32, b"third")
        return b"next"

    store.advance(CTX, step)
    assert (held(store), held(store, b"e" * 32)) == (b"next", b"third")
    with pytest.raises(UsageError, match="started before"):
        store.begin(CTX)
    with pytest.raises(UsageError, match="no state"):
        held(store, OTHER)


def test_a_keystore_prints_nothing(store: Keystore) -> None:
    store.park(CTX, SECRET)
    assert repr(store) in ("<MemoryKeystore>", "<DiskKeystore>")


# -- one transaction ---------------------------------------------------------------


def test_of_many_threads_one_begins_and_one_spends(store: Keystore) -> None:
    store.park(CTX, SECRET)

    def begin(_: int) -> bool:
        try:
            store.begin(CTX)
        except UsageError:
            return False
        return True

    def take(_: int) -> bool:
        try:
            spend(store)
        except UsageError:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(begin, range(24))) == 1
        assert sum(pool.map(take, range(24))) == 1


def test_two_openings_never_move_one_state(tmp_path: Path) -> None:
    """As after a restart beside a hung process: the second waits for the first."""
    first, second = disk(tmp_path), disk(tmp_path)
    first.begin(CTX)
    assert second.begun(CTX)
    with pytest.raises(UsageError, match="started before"):
        second.begin(CTX)
    first.park(CTX, b"0")
    in_step = threading.Event()
    seen: list[bytes] = []

    def slow(state: bytes) -> bytes:
        in_step.set()
        # Long enough for the other to have read the same state, if it could.
        threading.Event().wait(0.3)
        seen.append(state)
        return b"1"

    def other(state: bytes) -> bytes:
        seen.append(state)
        return b"2"

    with ThreadPoolExecutor(1) as pool:
        going = pool.submit(first.advance, CTX, slow)
        assert in_step.wait(10)
        third = disk(tmp_path)  # opening does not wait, or fail, for a step
        second.advance(CTX, other)
        going.result()
    assert seen == [b"0", b"1"]
    assert held(third) == b"2"
    for store in (first, second, third):
        store.close()


def test_a_process_that_ends_in_a_step_has_changed_nothing(tmp_path: Path) -> None:
    store = disk(tmp_path)
    store.park(CTX, SECRET)

    def step(_: bytes) -> bytes:
        store.begin(CTX)
        store.park(OTHER, b"other")
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        store.advance(CTX, step)
    store.close()
    again = disk(tmp_path)
    assert held(again) == SECRET
    assert not again.begun(CTX)
    again.begin(CTX)
    with pytest.raises(UsageError, match="no state"):
        held(again, OTHER)
    again.close()


def test_what_was_kept_survives_without_a_close(tmp_path: Path) -> None:
    """Every method is durable by itself: the copy stands for a killed process."""
    store = disk(tmp_path)
    store.begin(CTX)
    store.park(CTX, b"first")
    move(store, SECRET)
    killed = tmp_path / "killed"
    copy(tmp_path, killed)
    shutil.copy(tmp_path / "store.key", killed / "store.key")
    again = disk(killed)
    assert (again.begun(CTX), again.begun(OTHER)) == (True, False)
    with pytest.raises(UsageError, match="started before"):
        again.begin(CTX)
    assert held(again) == SECRET
    again.close()
    store.close()


def test_looking_without_moving_writes_nothing(tmp_path: Path) -> None:
    store = disk(tmp_path)
    store.park(CTX, SECRET)
    anchor = (tmp_path / "store.key").stat()
    assert held(store) == SECRET
    assert not store.begun(CTX)
    after = (tmp_path / "store.key").stat()
    assert (after.st_ino, after.st_mtime_ns) == (anchor.st_ino, anchor.st_mtime_ns)
    store.close()


def test_what_began_has_begun_after_a_reopening(tmp_path: Path) -> None:
    for began, next_one in ((set(), CTX), ({CTX}, OTHER), ({CTX, OTHER}, b"e" * 32)):
        store = disk(tmp_path)
        assert {c for c in (CTX, OTHER, b"e" * 32) if store.begun(c)} == began
        store.begin(next_one)
        store.close()


# -- on the disk -------------------------------------------------------------------


def test_files_are_the_owners_and_hold_no_plain_secret(tmp_path: Path) -> None:
    store = disk(tmp_path)
    store.park(CTX, b"first")
    move(store, SECRET)
    names = {file.name for file in tmp_path.iterdir()}
    assert {"store", "store-wal", "store.key"} <= names
    for file in tmp_path.iterdir():
        assert stat.S_IMODE(file.stat().st_mode) & 0o077 == 0, file
        assert SECRET not in file.read_bytes()
    store.close()


@pytest.mark.parametrize("cut_off", [False, True])
def test_what_was_spent_is_in_no_file(tmp_path: Path, cut_off: bool) -> None:
    """Not in the log either; after a crash, once the store is opened again."""
    store = disk(tmp_path)
    store.park(CTX, SECRET)
    files = [tmp_path / "store", tmp_path / "store-wal"]
    with contextlib.closing(sqlite3.connect(tmp_path / "store")) as reader:
        if cut_off:  # a reader keeps the log as it is, as a crash would
            reader.execute("BEGIN")
        ((sealed,),) = reader.execute("SELECT state FROM parked").fetchall()
        assert any(sealed in file.read_bytes() for file in files)
        spend(store)
        assert cut_off == any(sealed in file.read_bytes() for file in files)
    store = disk(tmp_path)
    assert not any(sealed in file.read_bytes() for file in files)
    store.close()


def test_a_state_moved_to_another_place_does_not_open(tmp_path: Path) -> None:
    store = disk(tmp_path)
    store.park(CTX, SECRET)
    store.close()
    with sqlite3.connect(tmp_path / "store") as db:
        db.execute("UPDATE parked SET key = ?", (OTHER,))
    db.close()
    again = disk(tmp_path)
    with pytest.raises(UsageError, match="does not open"):
        held(again, OTHER)
    with pytest.raises(UsageError, match="no state"):
        held(again, OTHER)
    again.close()


def test_a_disk_that_does_not_let_us_is_an_engine_error(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match="cannot open"):
        disk(tmp_path / "missing")
    junk = tmp_path / "junk"
    junk.mkdir()
    (junk / "store").write_bytes(b"not a database, but longer than its header is" * 9)
    with pytest.raises(EngineError, match="cannot open"):
        disk(junk)


def test_an_anchor_that_cannot_be_written_is_an_engine_error(tmp_path: Path) -> None:
    """The database has moved on, nobody was told; so what it held is spent."""
    store = disk(tmp_path)
    store.park(CTX, b"0")
    (tmp_path / "store.key.new").mkdir()
    with pytest.raises(EngineError, match="keystore failed"):
        move(store, b"1")
    with pytest.raises(EngineError, match="keystore failed"):
        move(store, b"2")
    (tmp_path / "store.key.new").rmdir()
    assert held(store) == b"1"
    store.close()


# -- copies ------------------------------------------------------------------------


def answers_nothing(store: DiskKeystore, why: str) -> None:
    """Not even whether a context began: it may have been forgotten."""
    calls: tuple[Callable[[], object], ...] = (
        lambda: store.begun(b"n" * 32),
        lambda: store.begin(b"n" * 32),
        lambda: store.park(b"n" * 32, b"new"),
        lambda: move(store, b"answer"),
        lambda: spend(store),
    )
    for call in calls:
        with pytest.raises(UsageError, match=why) as caught:
            call()
        assert "new keystore" in caught.value.hint


@pytest.mark.parametrize("writes", range(1, 5))
def test_a_restored_database_answers_nothing(tmp_path: Path, writes: int) -> None:
    steps: tuple[Callable[[DiskKeystore], None], ...] = (
        lambda s: s.park(CTX, b"0"),
        lambda s: move(s, b"1"),
        lambda s: s.begin(CTX),
        lambda s: s.begin(OTHER),
        lambda s: spend(s),
    )
    store = disk(tmp_path)
    for step in steps[:writes]:
        step(store)
    copy(tmp_path, tmp_path / "backup")
    steps[writes](store)  # one write is enough to tell
    store.close()
    copy(tmp_path / "backup", tmp_path)
    for _ in range(2):
        with pytest.raises(UsageError, match="older than its anchor") as caught:
            disk(tmp_path)
        assert "new keystore" in caught.value.hint


def test_a_database_restored_under_an_open_store_answers_nothing(
    tmp_path: Path,
) -> None:
    """Asked at every transaction, not only at the door."""
    store = disk(tmp_path)
    store.park(CTX, SECRET)
    with sqlite3.connect(tmp_path / "store") as db:
        db.execute("UPDATE writes SET count = count - 1")
    db.close()
    answers_nothing(store, "older than its anchor")
    store.close()


def test_a_new_database_under_an_old_anchor_answers_nothing(tmp_path: Path) -> None:
    store = disk(tmp_path)
    store.begin(CTX)
    store.close()
    (tmp_path / "store").unlink()
    with pytest.raises(UsageError, match="older than its anchor"):
        disk(tmp_path)


def test_an_older_anchor_answers_nothing(tmp_path: Path) -> None:
    store = disk(tmp_path)
    old = (tmp_path / "store.key").read_bytes()
    store.park(CTX, SECRET)
    move(store, b"1")
    (tmp_path / "store.key").write_bytes(old)
    answers_nothing(store, "newer than its anchor")
    store.close()
    with pytest.raises(UsageError, match="newer than its anchor"):
        disk(tmp_path)


@pytest.mark.parametrize("content", [None, b"short", b"k" * 32, b"k" * 41])
def test_a_store_without_its_anchor_answers_nothing(
    tmp_path: Path, content: bytes | None
) -> None:
    store = disk(tmp_path)
    store.park(CTX, SECRET)
    (tmp_path / "store.key").unlink()
    if content is not None:
        (tmp_path / "store.key").write_bytes(content)
    why = "lost its anchor" if content is None else "not a keystore's key"
    answers_nothing(store, why)
    store.close()
    with pytest.raises(UsageError, match=why):
        disk(tmp_path)
    assert (tmp_path / "store.key").exists() == (content is not None)


def test_a_crash_between_commit_and_anchor_is_no_restore(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing had left, so the state it moved to is the one to go on from."""
    store = disk(tmp_path)
    store.park(CTX, b"0")

    class Killed(BaseException):
        pass

    def killed(*_: object) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("os.replace", killed)
        with pytest.raises(Killed):
            move(store, b"1")
    store.close()
    behind = (tmp_path / "store.key").read_bytes()
    again = disk(tmp_path)
    assert (tmp_path / "store.key").read_bytes() != behind, "repaired on opening"
    assert held(again) == b"1"
    move(again, b"2")
    again.close()
    third = disk(tmp_path)
    assert held(third) == b"2"
    third.close()


_MANY = """
import sys
from pathlib import Path
from secure_fl.keystore import DiskKeystore
from secure_fl.randomness import SystemRandom

folder = Path(sys.argv[1])
store = DiskKeystore(
    folder / "store", key_path=folder / "store.key", random=SystemRandom()
)
for _ in range(25):
    store.advance(b"c" * 32, lambda n: b"%d" % (int(n) + 1))
"""


def test_many_processes_keep_anchor_and_database_together(tmp_path: Path) -> None:
    """A slow writer never puts an older count over a newer one, and none is lost."""
    store = disk(tmp_path)
    store.park(CTX, b"0")
    children = [
        subprocess.Popen([sys.executable, "-c", _MANY, str(tmp_path)]) for _ in range(4)
    ]
    assert [child.wait(60) for child in children] == [0] * 4
    assert held(store) == b"100"
    count = int.from_bytes((tmp_path / "store.key").read_bytes()[32:], "big")
    assert count == 101
    store.close()
