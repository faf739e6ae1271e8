# SPDX-License-Identifier: Apache-2.0
"""The failing vectors of ledgers and reports: a lie for each check."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

from secure_fl.plan import Plan
from secure_fl.privacy import Gaussian, PoissonGaussian
from secure_fl.privacy.book import Book, Entry, export_bytes
from tests.report.support import Made

from .report_forgery import (
    Case,
    Files,
    Forgery,
    Rewrite,
    entries_of,
    ledger_of,
    listed,
    raw_ledger,
    rebooked,
)
from .report_runs import REPORT


def in_entry(at: int, change: Callable[[dict[int, Any]], None]) -> Forgery:
    return raw_ledger("bank-b", lambda values: change(values[at]))


def other_spelling(value: dict[int, Any]) -> None:
    value[4][3][1][2] = "6.00"


def count_of_nothing(value: dict[int, Any]) -> None:
    value[4][3][2] = 0


def to_sequence(value: dict[int, Any]) -> None:
    value[0] = 9


def to_released(value: dict[int, Any]) -> None:
    """The step after the reservation says that it was in a sum."""
    value[2], value[4][1] = "released", b""


def to_note(value: dict[int, Any]) -> None:
    value[2] = "returned"


def last_release(entry: Entry, made: Made, client: str) -> bool:
    hashes = {e.hash for e in entries_of(made, client)[-3:]}
    return entry.hash in hashes


def without_last(client: str) -> Forgery:
    """The client's last release left out."""

    def forge(made: Made) -> Files:
        keep = Rewrite(keep=lambda e: not last_release(e, made, client))
        return rebooked(client, keep)(made)

    return forge


def called_unsent(made: Made) -> Files:
    """bank-a says that its last update never left; it had arrived."""
    last = entries_of(made, "bank-a")[-1].of

    def more(plan: Plan, book: Book) -> None:
        key = [r.entry_hash for r in book.releases() if r.state == "reserved"][-1]
        step = book.next_step(key, "aborted", ctx=b"", now=0)
        assert step is not None
        book.append(step)

    return rebooked("bank-a", Rewrite(keep=lambda e: e.of != last, more=more))(made)


def opened_that_was_not(plan: Plan, book: Book) -> None:
    key = next(r.entry_hash for r in book.releases() if r.state == "sent")
    step = book.next_step(key, "released", ctx=b"", now=0)
    assert step is not None
    book.append(step)


def omitted_by_nobody(made: Made) -> Files:
    """bank-a says that its last update left the sum that holds it."""
    gone = entries_of(made, "bank-a")[-1].hash

    def more(plan: Plan, book: Book) -> None:
        release = [r for r in book.releases() if r.state == "sent"][-1]
        step = book.next_step(
            release.entry_hash, "omitted", ctx=release.contexts[-1], now=0
        )
        assert step is not None
        book.append(step)

    return rebooked("bank-a", Rewrite(keep=lambda e: e.hash != gone, more=more))(made)


def elsewhere(plan: Plan, book: Book) -> None:
    """A release of another run that costs more than the plan allows."""
    book.append(
        book.next_reserved(
            run_id=bytes(16),
            round_index=0,
            attempt=0,
            event=Gaussian(0.5),
            unit="record",
            adjacency="add-or-remove-one",
            delta=1e-5,
            limit=float("inf"),
            now=0,
        )
    )


def signed_by_another(made: Made) -> bytes:
    book = Rewrite().of(made, "bank-b")
    return export_bytes(book, identity=made.identities["bank-a"])


def sent_nowhere(plan: Plan, book: Book) -> None:
    """One more release of this run, in a context of no attempt."""
    one_more(plan, book, bytes(31) + b"\x01")


def sent_twice(plan: Plan, book: Book) -> None:
    """One more release of this run, in the context of the first."""
    one_more(plan, book, book.releases()[0].contexts[0])


def one_more(plan: Plan, book: Book, ctx: bytes) -> None:
    assert plan.run_id is not None
    entry = book.next_reserved(
        run_id=plan.run_id,
        round_index=0,
        attempt=1,
        event=plan.release,
        unit="record",
        adjacency="add-or-remove-one",
        delta=plan.privacy.delta,
        limit=plan.privacy.epsilon,
        now=0,
    )
    book.append(entry)
    step = book.next_step(entry.hash, "sent", ctx=ctx, now=0)
    assert step is not None
    book.append(step)


LEDGERS: list[tuple[str, str, str, Forgery]] = [
    (
        "the ledger of another",
        "V-LEDGER-1",
        "bank-a",
        listed(ledger_of("bank-a"), lambda made: made.files[ledger_of("bank-b")]),
    ),
    (
        "a ledger of another version",
        "V-LEDGER-1",
        "bank-b",
        listed(
            ledger_of("bank-b"),
            lambda made: made.files[ledger_of("bank-b")].replace(
                b"ledger/1", b"ledger/9", 1
            ),
        ),
    ),
    ("an entry out of order", "V-LEDGER-2", "bank-b", in_entry(1, to_sequence)),
    (
        "another head",
        "V-LEDGER-2",
        "bank-b",
        raw_ledger("bank-b", lambda values: None, head=bytes(32)),
    ),
    ("6.00 for 6.0", "V-LEDGER-3", "bank-b", in_entry(0, other_spelling)),
    ("repeated 0 times", "V-LEDGER-3", "bank-b", in_entry(0, count_of_nothing)),
    ("a step of an unknown kind", "V-LEDGER-3", "bank-b", in_entry(1, to_note)),
    ("released, and never sent", "V-LEDGER-4", "bank-b", in_entry(1, to_released)),
    (
        "signed by another",
        "V-LEDGER-5",
        "bank-b",
        listed(ledger_of("bank-b"), signed_by_another),
    ),
    (
        "another data set",
        "V-MATCH-1",
        "bank-d",
        rebooked("bank-d", Rewrite(lineage="another data set")),
    ),
    (
        "less noise than the plan's",
        "V-MATCH-2",
        "bank-d",
        rebooked("bank-d", Rewrite(event=PoissonGaussian(1.0, 60.0))),
    ),
    (
        "another delta",
        "V-MATCH-2",
        "bank-d",
        rebooked("bank-d", Rewrite(delta=1e-3)),
    ),
    (
        "another limit",
        "V-MATCH-2",
        "bank-d",
        rebooked("bank-d", Rewrite(limit=80.0)),
    ),
    (
        "a round that the plan does not have",
        "V-MATCH-2",
        "bank-d",
        rebooked("bank-d", Rewrite(round_index=7)),
    ),
    (
        "another unit",
        "V-MATCH-2",
        "bank-d",
        rebooked("bank-d", Rewrite(unit="client")),
    ),
    (
        "two releases in one context",
        "V-MATCH-7",
        "bank-b",
        rebooked("bank-b", Rewrite(more=sent_twice)),
    ),
    ("a release left out", "V-MATCH-3", "bank-a", without_last("bank-a")),
    ("a sent update called unsent", "V-MATCH-3", "bank-a", called_unsent),
    (
        "sent in a context that the log cannot have",
        "V-MATCH-4",
        "bank-c",
        rebooked(
            "bank-c",
            Rewrite(more=sent_nowhere),
        ),
    ),
    (
        "said to be in a sum, and in none",
        "V-MATCH-5",
        "bank-c",
        rebooked("bank-c", Rewrite(more=opened_that_was_not)),
    ),
    ("omitted by nobody", "V-MATCH-6", "bank-a", omitted_by_nobody),
    (
        "overspent in another run",
        "V-BUDGET-1",
        "bank-d",
        rebooked("bank-d", Rewrite(more=elsewhere)),
    ),
]


# -- report ----------------------------------------------------------------------------


def in_report(change: Callable[[dict[str, Any]], None]) -> Forgery:
    def forge(made: Made) -> bytes:
        report = json.loads(made.files[REPORT])
        change(report)
        text = json.dumps(report, indent=2, ensure_ascii=False) + "\n"
        return text.encode()

    return listed(REPORT, forge)


def smaller_epsilon(report: dict[str, Any]) -> None:
    report["claims"][0]["clients"]["bank-a"]["epsilon"] /= 2


def kinder_tail(report: dict[str, Any]) -> None:
    report["claims"][0]["consortium"]["tpr_at_fpr"]["0.01"] *= 0.97


def no_exclusion(report: dict[str, Any]) -> None:
    report["not_protected"] = report["not_protected"][1:]


def no_failure(report: dict[str, Any]) -> None:
    report["failures"] = []


def a_real_count(report: dict[str, Any]) -> None:
    report["plan"]["rounds"] = float(report["plan"]["rounds"])


def one_field_more(report: dict[str, Any]) -> None:
    report["certified"] = True


def one_field_less(report: dict[str, Any]) -> None:
    del report["privacy_unit"]["enforcement"]


REPORTS: list[tuple[str, str, Forgery]] = [
    (
        "NaN",
        "V-REPORT-1",
        listed(REPORT, lambda made: made.files[REPORT].replace(b"8.0,", b"NaN,", 1)),
    ),
    (
        "a key twice",
        "V-REPORT-1",
        listed(
            REPORT,
            lambda made: made.files[REPORT].replace(b"{", b'{"insecure": false,', 1),
        ),
    ),
    ("half the epsilon", "V-REPORT-2", in_report(smaller_epsilon)),
    ("a rate three percent lower", "V-REPORT-2", in_report(kinder_tail)),
    ("an exclusion left out", "V-REPORT-2", in_report(no_exclusion)),
    ("a failure left out", "V-REPORT-2", in_report(no_failure)),
    ("an integer written as a real number", "V-REPORT-2", in_report(a_real_count)),
    ("a field more", "V-REPORT-2", in_report(one_field_more)),
    ("a field less", "V-REPORT-2", in_report(one_field_less)),
]


def cases() -> list[Case]:
    """All of them start from the good run ``masking``."""
    out = [
        Case("masking", name, check, ledger_of(client), forge)
        for name, check, client, forge in LEDGERS
    ]
    rows = [("masking", name, check, REPORT, forge) for name, check, forge in REPORTS]
    return out + [Case(*row) for row in rows]
