# SPDX-License-Identifier: Apache-2.0
"""A ledger outlives the program: the file of version 1 opens for ever.

``ledger_v1.sql`` is a ledger as the first version wrote it.  It is never written again:
where the tests here fail, ledgers in use have become unreadable.  ``history`` is how
it was made, and still makes the same bytes.
"""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest

from secure_fl.errors import UsageError, VerificationError
from secure_fl.privacy import (
    Event,
    Gaussian,
    Ledger,
    NonPrivate,
    PoissonGaussian,
    Repeated,
    epsilon,
    read_export,
)

from .support import (
    CLIENT,
    CTX,
    DELTA,
    IDENTITY,
    LINEAGE,
    OTHER_CTX,
    OTHER_RUN,
    QUIET,
    RUN,
    reserve,
)

VERSION_1 = Path(__file__).with_name("ledger_v1.sql")
HEAD = "04acf7954bf3c2c65444fd881fae53bb9b850eacca4dcc9f36bbff6f52daa688"
STEPS = Repeated(PoissonGaussian(0.01, 1.0), 100)
CHARGED: list[Event] = [STEPS, QUIET, PoissonGaussian(0.5, 2.0)]
OTHER_LINEAGE = "cards"
PRAGMAS = ("application_id", "user_version")


def history(ledger: Ledger) -> None:
    """Every kind of entry and of event, two runs, two lineages."""
    opened = reserve(ledger, 0, event=STEPS, limit=8.0)
    ledger.sent(opened, ctx=CTX, now=1_800_000_100)
    ledger.released(opened, now=1_800_000_200)
    again = reserve(ledger, 1)
    ledger.sent(again, ctx=CTX, now=1_800_000_300)
    ledger.omitted(again, ctx=CTX, now=1_800_000_400)
    ledger.sent(again, ctx=OTHER_CTX, now=1_800_000_500)
    ledger.aborted(reserve(ledger, 2, event=Gaussian(3.0)), now=1_800_000_600)
    reserve(ledger, 0, attempt=1, run_id=OTHER_RUN, event=PoissonGaussian(0.5, 2.0))
    ledger.reserve(
        OTHER_LINEAGE,
        run_id=RUN,
        round_index=0,
        attempt=0,
        event=NonPrivate("a baseline"),
        unit="client",
        adjacency="replace-one",
        delta=1e-9,
        limit=float("inf"),
        now=1_800_000_700,
    )


def dump(path: Path) -> str:
    """The whole file as statements that make it."""
    db = sqlite3.connect(path)
    lines = [
        f"PRAGMA {name} = {db.execute(f'PRAGMA {name}').fetchone()[0]};"
        for name in PRAGMAS
    ]
    lines += [
        f"{row[0]};"
        for row in db.execute("SELECT sql FROM sqlite_schema ORDER BY type, name")
    ]
    lines += [
        f"INSERT INTO owner VALUES ('{row[0]}');"
        for row in db.execute("SELECT client FROM owner")
    ]
    lines += [
        f"INSERT INTO entries VALUES ('{lineage}', {sequence}, x'{body.hex()}');"
        for lineage, sequence, body in db.execute("SELECT * FROM entries")
    ]
    db.close()
    return "\n".join(lines) + "\n"


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """A ledger of version 1, closed."""
    path = tmp_path / "ledger.sqlite"
    db = sqlite3.connect(path)
    db.execute("PRAGMA journal_mode = WAL")
    db.executescript(VERSION_1.read_text())
    db.close()
    return path


def test_version_1_says_what_it_said(old: Path) -> None:
    ledger = Ledger(old, client=CLIENT)
    assert ledger.lineages() == [OTHER_LINEAGE, LINEAGE]
    states = [r.state for r in ledger.releases(LINEAGE)]
    assert states == ["released", "sent", "aborted", "reserved"]
    assert ledger.releases(LINEAGE)[1].contexts == (CTX, OTHER_CTX)
    assert ledger.charged(LINEAGE) == CHARGED
    assert ledger.charged(OTHER_LINEAGE) == [NonPrivate("a baseline")]
    spent = ledger.spent(LINEAGE, delta=DELTA)
    assert spent.value == pytest.approx(epsilon(CHARGED, delta=DELTA).value)
    ledger.close()


def test_version_1_is_exported_with_the_head_it_had(old: Path) -> None:
    ledger = Ledger(old, client=CLIENT)
    data = ledger.export(LINEAGE, identity=IDENTITY)
    ledger.close()
    found = read_export(data, public_key=IDENTITY.public_key, client=CLIENT)
    assert found.head.hex() == HEAD


def test_version_1_goes_on(old: Path) -> None:
    ledger = Ledger(old, client=CLIENT)
    before = ledger.entries(LINEAGE)
    (open_,) = [e.reservation for e in before if e.reservation][-1:]
    with pytest.raises(UsageError, match="has its reservation"):
        reserve(ledger, 0)  # also an attempt from before the upgrade
    ledger.sent(open_, ctx=CTX, now=1_900_000_000)
    reserve(ledger, 7)
    after = ledger.entries(LINEAGE)
    assert after[: len(before)] == before
    assert after[len(before)].before.hex() == HEAD
    assert ledger.charged(LINEAGE) == [*CHARGED, QUIET]
    ledger.close()


def test_the_same_history_still_makes_the_same_file(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, client=CLIENT)
    history(ledger)
    ledger.close()
    assert dump(path) == VERSION_1.read_text()


# -- what this version does not know ---------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("version", [0, 2, 2**31 - 1])
def test_another_version_is_refused_and_left_as_it_is(old: Path, version: int) -> None:
    db = sqlite3.connect(old)
    db.execute(f"PRAGMA user_version = {version}")
    db.close()
    old.chmod(0o640)
    before = files(old.parent)
    with pytest.raises(UsageError, match=f"is of version {version}, not 1") as caught:
        Ledger(old, client=CLIENT)
    assert "or a newer one" in caught.value.hint
    with pytest.raises(UsageError, match=f"is of version {version}, not 1"):
        Ledger.existing(old)
    assert files(old.parent) == before
    assert old.stat().st_mode & 0o777 == 0o640


def test_another_program_s_database_is_refused_and_left_as_it_is(old: Path) -> None:
    db = sqlite3.connect(old)
    db.execute("PRAGMA journal_mode = DELETE")
    db.execute("PRAGMA application_id = 7")
    db.close()
    before = files(old.parent)
    with pytest.raises(VerificationError, match="is not a ledger"):
        Ledger(old, client=CLIENT)
    assert files(old.parent) == before


@pytest.mark.parametrize(
    "change",
    [
        "CREATE TABLE more (x)",
        "DROP TABLE owner",
        "CREATE TRIGGER eager AFTER INSERT ON entries BEGIN SELECT 1; END",
        "DROP TABLE entries; CREATE VIEW entries AS SELECT 1 lineage, 0 sequence",
    ],
)
def test_a_file_that_is_built_otherwise_is_refused(old: Path, change: str) -> None:
    db = sqlite3.connect(old)
    db.executescript(change)
    db.close()
    with pytest.raises(VerificationError, match="is not built as a ledger is"):
        Ledger.existing(old)


def test_the_name_of_a_data_set_is_text(old: Path) -> None:
    db = sqlite3.connect(old)
    db.execute("INSERT INTO entries VALUES (?, 0, ?)", (b"loans", b""))
    db.commit()
    db.close()
    ledger = Ledger(old, client=CLIENT)
    with pytest.raises(VerificationError, match="what is not text"):
        ledger.lineages()
    ledger.close()


def test_a_kind_of_event_from_the_future_is_not_passed_over(old: Path) -> None:
    db = sqlite3.connect(old)
    (body,) = db.execute(
        "SELECT body FROM entries WHERE lineage = ? AND sequence = 0", (OTHER_LINEAGE,)
    ).fetchone()
    db.execute("DROP TRIGGER no_update")
    newer = body.replace(b"non-private", b"from-future")
    assert newer != body
    db.execute("UPDATE entries SET body = ? WHERE lineage = ?", (newer, OTHER_LINEAGE))
    db.commit()
    db.close()
    ledger = Ledger(old, client=CLIENT)
    with pytest.raises(VerificationError, match="not a kind of release"):
        ledger.charged(OTHER_LINEAGE)
    ledger.close()


# -- how it is written -----------------------------------------------------------------


def test_a_commit_is_on_the_disk_when_it_returns(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    ledger = Ledger(path, client=CLIENT)
    full = 2
    assert ledger._db.execute("PRAGMA synchronous").fetchone() == (full,)
    log = path.with_name(f"{path.name}-wal")
    before = log.stat().st_size
    reserve(ledger, 0)
    assert log.stat().st_size >= before + 4096
    ledger.close()
    assert not log.exists()  # moved over to the file, whole
    assert path.read_bytes()[18:20] == b"\x02\x02"  # SQLite: a log, to read and write


def test_a_copy_without_a_log_gets_one(old: Path) -> None:
    """As a backup tool leaves it: with a rollback journal, FULL syncs too little."""
    db = sqlite3.connect(old)
    assert db.execute("PRAGMA journal_mode = DELETE").fetchone() == ("delete",)
    db.close()
    ledger = Ledger(old, client=CLIENT)
    reserve(ledger, 7)
    assert old.with_name(f"{old.name}-wal").stat().st_size > 4096
    ledger.close()
