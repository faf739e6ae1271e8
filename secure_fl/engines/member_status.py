# SPDX-License-Identifier: Apache-2.0
"""What a member's home holds, for whoever watches it, read without touching it.

Nothing is written, created, locked against a writer or repaired.  The keystore is not
opened at all.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, final

from ..consent import Consent, Limits
from ..errors import (
    ConsentRefused,
    EngineError,
    UsageError,
    VerificationError,
)
from ..plan import Plan
from ..privacy.book import Book
from ..privacy.spending import Spending, spending
from .home import MemberHome
from .setup import PLAN_FILE

__all__ = ["Account", "MemberView", "PlanView", "is_home", "view_home"]

_APPLICATION_ID: Final = 0x53464C31  # of a ledger: "SFL1"
_VERSION: Final = 1
_WAIT_SECONDS: Final = 5.0


@final
@dataclass(frozen=True)
class PlanView:
    """One plan of a home, and the one run that it is for.

    name
        this party's name in it; empty for a plan that was left
    state, why
        "refused": it is joined, and the home's policy as it stands now, or a file that
        was changed, keeps it from answering
    begun
        whether the run has begun here
    releases, in_sums
        of this member in the run, by its own ledger: what is charged, and what of that
        is in a sum that was opened
    epsilon
        of the run's releases by themselves; None where there are none
    """

    plan: Plan
    name: str
    state: Literal["joined", "left", "refused"]
    why: str
    begun: bool
    releases: int
    in_sums: int
    epsilon: float | None


@final
@dataclass(frozen=True)
class Account:
    """A data set's chain in the ledger, and what it has spent."""

    book: Book
    spent: Spending


@final
@dataclass(frozen=True)
class MemberView:
    """A home as it was when it was looked at.

    ``last_activity``: seconds since 1970 of the last write below it, 0 for none.
    """

    plans: tuple[PlanView, ...]
    accounts: tuple[Account, ...]
    limits: Limits | None
    last_activity: float


def is_home(folder: Path) -> bool:
    """Whether a plan was ever joined in ``folder``."""
    return (folder / "plans").is_dir()


def view_home(folder: Path) -> MemberView:
    """Look at a member's home, or a key holder's.

    Takes about half a second for each new combination of releases.  Raises EngineError
    where the ledger cannot be read, or not now, and UsageError for a broken policy.
    """
    home = MemberHome(folder)
    accounts = tuple(
        Account(book, spent)
        for book in _read_books(folder / "ledger.sqlite")
        if (spent := spending(book)) is not None
    )
    consent = home.consent()
    plans = sorted((folder / "plans").glob(f"*/{PLAN_FILE}"))
    return MemberView(
        tuple(_plan(home, path.parent, accounts, consent) for path in plans),
        accounts,
        None if consent is None else consent.limits,
        _last_activity(folder),
    )


def _plan(
    home: MemberHome,
    folder: Path,
    accounts: Sequence[Account],
    consent: Consent | None,
) -> PlanView:
    plan = Plan.known((folder / PLAN_FILE).read_bytes(), folder=folder)
    state: Literal["joined", "left", "refused"] = "joined"
    name = why = ""
    if not (folder / "settings.toml").exists():
        state = "left"
    else:
        try:
            name = home.find(plan.hash).settings.name
            if consent is not None:
                consent.check_plan(plan)
        except (ConsentRefused, EngineError, UsageError) as error:
            state, why = "refused", error.message
    assert plan.run_id is not None
    return PlanView(
        plan,
        name,
        state,
        why,
        bool(home.begun(plan.run_id)),
        *_in_run(plan.run_id, accounts),
    )


def _in_run(
    run_id: bytes, accounts: Sequence[Account]
) -> tuple[int, int, float | None]:
    for account in accounts:
        for run, spent in account.spent.runs:
            if run == run_id:
                opened = [
                    r
                    for r in account.book.releases()
                    if r.run_id == run_id and r.state == "released"
                ]
                return spent.charged, len(opened), spent.epsilon
    return 0, 0, None


def _last_activity(folder: Path) -> float:
    """Not of files that a reader's locks are in."""
    latest = 0.0
    for pattern in ("ledger.sqlite*", "keystore.*", "plans/*/*", "runs/*/*"):
        for path in folder.glob(pattern):
            if not path.name.endswith("-shm"):
                with contextlib.suppress(OSError):  # it was replaced meanwhile
                    latest = max(latest, path.stat().st_mtime)
    return latest


# -- a ledger, read only ---------------------------------------------------------------


def _read_books(path: Path) -> list[Book]:
    """Every data set's chain, checked entry by entry; none where there is no ledger."""
    if not path.exists():
        return []
    try:
        with contextlib.closing(_connect(path)) as db:
            return _books(db)
    except (sqlite3.Error, VerificationError) as error:
        raise EngineError(
            f"cannot read the ledger {path}: {error}",
            hint="if that stays so, `secure-fl ledger show` says what is wrong",
        ) from None


def _connect(path: Path) -> sqlite3.Connection:
    """Reads beside a writer, whom it never holds up.

    Where nobody has the ledger open, not even a lock file may appear beside it: a
    writer that opens it at this very moment may then be read in the middle, which the
    chain of hashes shows.
    """
    live = path.with_name(f"{path.name}-wal").exists()
    how = "mode=ro" if live else "mode=ro&immutable=1"
    return sqlite3.connect(
        f"{path.resolve().as_uri()}?{how}",
        uri=True,
        timeout=_WAIT_SECONDS,
        isolation_level=None,
    )


def _books(db: sqlite3.Connection) -> list[Book]:
    db.execute("PRAGMA trusted_schema = OFF")
    for name, value in (
        ("application_id", _APPLICATION_ID),
        ("user_version", _VERSION),
    ):
        if db.execute(f"PRAGMA {name}").fetchone() != (value,):
            raise VerificationError("is not a ledger of this version")
    db.execute("BEGIN")  # all of it as it is at one moment
    owner = db.execute("SELECT client FROM owner").fetchone()
    books: dict[str, Book] = {}
    for lineage, body in db.execute(
        "SELECT lineage, body FROM entries ORDER BY lineage, sequence"
    ):
        if owner is None or not isinstance(body, bytes):
            raise VerificationError("is not built as a ledger is")
        books.setdefault(lineage, Book(str(owner[0]), str(lineage))).read(body)
    return list(books.values())
