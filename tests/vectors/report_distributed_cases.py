# SPDX-License-Identifier: Apache-2.0
"""The failing vectors of runs whose sums alone are private: plans, ledgers, reports."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from secure_fl.plan import Plan
from secure_fl.privacy import Gaussian, NonPrivate
from secure_fl.privacy.book import Book
from secure_fl.privacy.events import DiscreteGaussian, Skellam, to_wire
from secure_fl.report import to_json
from tests.report.support import Made

from .report_cases import MODEL
from .report_forgery import (
    PLAN,
    TRANSCRIPT,
    Case,
    Forgery,
    Rewrite,
    ledger_of,
    listed,
    raw,
    raw_ledger,
    rebooked,
    replanned,
    resigned,
    set_field,
)
from .report_runs import REPORT

RECORD = "distributed-record"
CLIENT = "distributed-client"
RUNS = (RECORD, CLIENT)
LEDGER = ledger_of("bank-b")

Change = tuple[str, str]
Json = dict[str, Any]


# -- plans -----------------------------------------------------------------------------

# What the plan of records loses on its way to a local one, so that one fault is left.
LOCAL: Change = ('"distributed"', '"local"')
LINEAR: Change = ('\nschedule = "linear"', "")
VALUES: Change = ("\nvalues = 20", "")
WORDS = "chunk_words = 64"


def words(more: str) -> Change:
    """Entries of [protection]."""
    return (WORDS, f"{WORDS}\n{more}")


OF_RECORDS: list[tuple[str, str, tuple[Change, ...]]] = [
    (
        "nobody may collude",
        "V-PLAN-3",
        (("max_colluding = 1", "max_colluding = 0\nmin_clients = 3"),),
    ),
    (
        "plain, where only sums are private",
        "V-PLAN-3",
        (('"masking"', '"plain"'), ("\nkeep_vectors = true", "")),
    ),
    ("a weight of 2", "V-PLAN-3", (("records = 300", "records = 300\nweight = 2"),)),
    ("a record at two members", "V-PLAN-3", (('"disjoint"', '"overlapping"'),)),
    ("batches above 80000", "V-PLAN-3", (("records = 300", "records = 320001"),)),
    ("two local steps", "V-PLAN-3", (("local_steps = 1", "local_steps = 2"),)),
    ("a step too coarse", "V-PLAN-3", (words("step = 0.001953125"),)),
    ("a clip below the clip norm", "V-PLAN-3", (words("clip = 0.25"),)),
    ("a clip with which sums may wrap", "V-PLAN-3", (words("clip = 40000.0"),)),
    ("words too short for the noise", "V-PLAN-3", (words("word_bits = 16"),)),
    ("noise without a number of values", "V-PLAN-3", (VALUES,)),
    (
        "neither noise nor a number of values",
        "V-PLAN-5",
        (VALUES, ("noise_multiplier = 1.0\n", "")),
    ),
    ("no values", "V-PLAN-2", (("values = 20", "values = 0"),)),
    ("noise of another kind", "V-PLAN-2", (('"record"', '"record"\nnoise = "gauss"'),)),
    ("a unit of another kind", "V-PLAN-2", (('"record"', '"group"'),)),
    ("momentum of 1", "V-PLAN-2", (("momentum = 0.5", "momentum = 1.0"),)),
    ("a learning rate of 0", "V-PLAN-2", (("rate = 0.5", "rate = 0.0"),)),
    ("another schedule", "V-PLAN-2", (('"linear"', '"cosine"'),)),
    (
        "no training",
        "V-PLAN-2",
        (
            (
                '[training]\nway = "head"\nlearning_rate = 0.5\nmomentum = 0.5\n'
                'schedule = "linear"\n',
                "",
            ),
        ),
    ),
    (
        "noise in sums that spends more than the plan's epsilon",
        "V-PLAN-4",
        (("noise_multiplier = 1.0", "noise_multiplier = 0.5"),),
    ),
    ("local, with a number of values", "V-PLAN-3", (LOCAL, LINEAR)),
    (
        "local, with a kind of noise",
        "V-PLAN-3",
        (LOCAL, LINEAR, VALUES, ('"record"', '"record"\nnoise = "skellam"')),
    ),
    (
        "local, of clients",
        "V-PLAN-3",
        (LOCAL, LINEAR, VALUES, ('"record"', '"client"')),
    ),
    ("local, with a falling rate", "V-PLAN-3", (LOCAL, VALUES)),
]
OF_CLIENTS: list[tuple[str, str, tuple[Change, ...]]] = [
    (
        "a sample of clients",
        "V-PLAN-3",
        (("sampling_rate = 1.0", "sampling_rate = 0.5"),),
    ),
    (
        "a falling rate without steps",
        "V-PLAN-3",
        (("[run]", '[training]\nway = "head"\nschedule = "linear"\n\n[run]'),),
    ),
    (
        "too many values for exact noise",
        "V-PLAN-3",
        (("values = 20", "values = 131073"),),
    ),
]


def plans() -> list[Case]:
    out = [
        Case(run, name, check, PLAN, replanned(*changes))
        for run, rows in ((RECORD, OF_RECORDS), (CLIENT, OF_CLIENTS))
        for name, check, changes in rows
    ]
    for run in RUNS:
        grown = replanned(("values = 20", "values = 21"))
        out.append(Case(run, "a plan of 21 values", "V-MODEL-2", MODEL, grown))
        counted = resigned(set_field("round", 6, 1))
        out.append(Case(run, "clipped values", "V-ROUND-5", TRANSCRIPT, counted))
    return out


def copies(made: Made) -> list[Case]:
    """An auditor's copies, of other steps and of another size."""
    text = made.files[PLAN].decode()
    draft, _, _ = text.partition("[run]")
    unchanged = Case(RECORD, "", "V-PLAN-6", PLAN, raw(PLAN, lambda data: data))
    steady = draft.replace('schedule = "linear"', 'schedule = "constant"')
    larger = draft.replace("values = 20", "values = 21")
    return [
        replace(unchanged, name="a draft of another schedule", copy=steady.encode()),
        replace(unchanged, name="a draft of another size", copy=larger.encode()),
    ]


# -- ledgers ---------------------------------------------------------------------------

Event = dict[int, Any]


def in_event(change: Callable[[Event], Any]) -> Forgery:
    """The event of bank-b's first reservation."""

    def edit(values: list[dict[int, Any]]) -> None:
        old = values[0][4][3]
        values[0][4][3] = change(old)
        assert values[0][4][3] != old

    return raw_ledger("bank-b", edit)


def times(field: int, factor: float) -> Callable[[Event], Any]:
    return lambda e: {**e, field: repr(float(e[field]) * factor)}


def as_exact(e: Event) -> Any:
    deviation = float(e[2]) ** 0.5
    return to_wire(
        DiscreteGaussian(float(e[1]), deviation, e[3], e[4], float(e[5]), 32)
    )


def as_skellam(e: Event) -> Any:
    variance, l2 = float(e[2]) ** 2, float(e[5])
    return to_wire(Skellam(1.0, variance, e[3], e[4], l2, 32))


def as_one_share(e: Event) -> Any:
    """The variance of both shares, said to be one client's own."""
    return {**e, 2: repr(float(e[2]) * e[3]), 3: 1}


EVENTS: list[tuple[str, str, str, Callable[[Event], Any]]] = [
    (RECORD, "no share", "V-LEDGER-3", lambda e: {**e, 3: 0}),
    (RECORD, "1001 shares", "V-LEDGER-3", lambda e: {**e, 3: 1001}),
    (RECORD, "shares as text", "V-LEDGER-3", lambda e: {**e, 3: "2"}),
    (RECORD, "1001 who collude", "V-LEDGER-3", lambda e: {**e, 4: 1001}),
    (RECORD, "fewer than nobody collude", "V-LEDGER-3", lambda e: {**e, 4: -1}),
    (RECORD, "an l2 below a step", "V-LEDGER-3", lambda e: {**e, 5: "0.5"}),
    (RECORD, "a variance beyond 1e50", "V-LEDGER-3", lambda e: {**e, 2: "1e+51"}),
    (RECORD, "a field more", "V-LEDGER-3", lambda e: {**e, 7: "1.0"}),
    (RECORD, "a field less", "V-LEDGER-3", lambda e: {k: e[k] for k in range(6)}),
    (RECORD, "0.250 for 0.25", "V-LEDGER-3", lambda e: {**e, 1: "0.250"}),
    (RECORD, "a sum repeated", "V-LEDGER-3", lambda e: {0: "repeated", 1: e, 2: 1}),
    (CLIENT, "a deviation below a half", "V-LEDGER-3", lambda e: {**e, 2: "0.25"}),
    (RECORD, "no value", "V-LEDGER-3", lambda e: {**e, 6: 0}),
    (RECORD, "values as a decimal", "V-LEDGER-3", lambda e: {**e, 6: "32.0"}),
    (CLIENT, "no value", "V-LEDGER-3", lambda e: {**e, 6: 0}),
    (CLIENT, "values as text", "V-LEDGER-3", lambda e: {**e, 6: "32"}),
    (RECORD, "a share more", "V-MATCH-2", lambda e: {**e, 3: 3}),
    (RECORD, "all noise in one share", "V-MATCH-2", as_one_share),
    (RECORD, "one more who colludes", "V-MATCH-2", lambda e: {**e, 4: 2}),
    (RECORD, "nobody who colludes", "V-MATCH-2", lambda e: {**e, 4: 0}),
    (RECORD, "a last digit of variance", "V-MATCH-2", times(2, 1 + 1e-15)),
    (RECORD, "a smaller l2", "V-MATCH-2", times(5, 0.999)),
    (RECORD, "fewer values", "V-MATCH-2", lambda e: {**e, 6: 20}),
    (RECORD, "another rate", "V-MATCH-2", times(1, 0.5)),
    (RECORD, "exact noise instead", "V-MATCH-2", as_exact),
    (RECORD, "Gaussian noise", "V-MATCH-2", lambda e: to_wire(Gaussian(1.0))),
    (CLIENT, "a share more", "V-MATCH-2", lambda e: {**e, 3: 3}),
    (CLIENT, "one more who colludes", "V-MATCH-2", lambda e: {**e, 4: 2}),
    (CLIENT, "another deviation", "V-MATCH-2", times(2, 1.001)),
    (CLIENT, "a smaller l2", "V-MATCH-2", times(5, 0.999)),
    (CLIENT, "fewer values", "V-MATCH-2", lambda e: {**e, 6: 20}),
    (CLIENT, "Skellam noise instead", "V-MATCH-2", as_skellam),
]


def unprotected(made: Made) -> bytes:
    """bank-b charges a release without noise: only a local plan has those."""
    rewrite = Rewrite(event=NonPrivate("a rehearsal"), limit=float("inf"))
    return rebooked("bank-b", rewrite)(made)[LEDGER]


def elsewhere(plan: Plan, book: Book) -> None:
    """A sum of another run, whose plan assumed that nobody colludes.

    With three shares it is within the limit; as seen by one client and the aggregator
    there is one, and it is not.
    """
    book.append(
        book.next_reserved(
            run_id=bytes(16),
            round_index=0,
            attempt=0,
            event=Skellam(1.0, 2.4e7, 3, 0, 8200.0, 64),
            unit=plan.privacy.unit,
            adjacency="add-or-remove-one",
            delta=1e-6,
            limit=float("inf"),
            now=0,
        )
    )


def ledgers() -> list[Case]:
    out = [
        Case(run, f"{name}, in an event", check, LEDGER, in_event(change))
        for run, name, check, change in EVENTS
    ]
    for run, unit, other in (
        (RECORD, "record", "client"),
        (CLIENT, "client", "record"),
    ):
        of_another = rebooked("bank-b", Rewrite(unit=other))
        overspent = rebooked("bank-b", Rewrite(unit=unit, more=elsewhere))
        out += [
            Case(run, f"charged by {other}", "V-MATCH-2", LEDGER, of_another),
            Case(
                run,
                "overspent as one who colludes sees it",
                "V-BUDGET-1",
                LEDGER,
                overspent,
            ),
        ]
    without = listed(LEDGER, unprotected)
    out.append(Case(RECORD, "an update without noise", "V-MATCH-2", LEDGER, without))
    return out


# -- reports ---------------------------------------------------------------------------


def reported(change: Callable[[Json], None]) -> Forgery:
    def forge(made: Made) -> bytes:
        report = json.loads(made.files[REPORT])
        change(report)
        assert to_json(report) != made.files[REPORT]
        return to_json(report)

    return listed(REPORT, forge)


def says(value: Any, *path: Any) -> Forgery:
    """The report with another value at ``path``."""

    def change(report: Json) -> None:
        at: Any = report
        for key in path[:-1]:
            at = at[key]
        at[path[-1]] = value

    return reported(change)


def exchanged(report: Json) -> None:
    report["claims"].reverse()


def renamed(report: Json) -> None:
    """The larger epsilons under the weaker adversary's name."""
    one, two = report["claims"]
    for key in ("id", "view"):
        one[key], two[key] = two[key], one[key]


def headline_alone(report: Json) -> None:
    del report["claims"][1]


def share_as_sum(report: Json) -> None:
    """The figures of the sum, for everybody else together."""
    one, two = report["claims"]
    two["clients"], two["consortium"] = one["clients"], one["consortium"]


def lower_share(report: Json) -> None:
    report["claims"][1]["clients"]["bank-a"]["epsilon"] *= 0.999


def relies_on_less(report: Json) -> None:
    relies_on = report["claims"][0]["relies_on"]
    relies_on[:] = [row for row in relies_on if row["id"] != "honest-shares"]


BOTH: list[tuple[str, Forgery]] = [
    ("claims in another order", reported(exchanged)),
    ("claims under each other's names", reported(renamed)),
    ("the share claim left out", reported(headline_alone)),
    ("figures of the sum in the share claim", reported(share_as_sum)),
    ("a lower epsilon in the share claim", reported(lower_share)),
    ("honest shares not relied on", reported(relies_on_less)),
    ("a limit in the share claim", says(8.0, "claims", 1, "limit")),
    ("no limit in the sum claim", says(None, "claims", 0, "limit")),
    ("accounted by PLD", says("PLD", "accounting", "primary")),
    ("float noise", says("float", "mechanism", "noise_domain")),
    ("three shares", says(3, "mechanism", "sum", "shares")),
    ("rounded after the noise", says("after-noise", "numerics", "place")),
    ("wrapping impossible", says("impossible", "numerics", "wrap")),
    ("local", says("local", "mechanism", "mode")),
    (
        "more who collude in a release",
        says(2, "releases", "bank-b", 0, "event", "colluding"),
    ),
    (
        "a lower epsilon after round 0",
        says(0.5, "epsilon_over_rounds", "bank-b", 0, "epsilon"),
    ),
]
ONE: list[tuple[str, str, Forgery]] = [
    (
        RECORD,
        "another normaliser",
        says(200.0, "mechanism", "normaliser", "bank-a"),
    ),
    (RECORD, "NaN as zero", says("zero", "mechanism", "nan_policy")),
    (RECORD, "rounded as clients do", says("conditional", "numerics", "rounding")),
    (
        RECORD,
        "exact noise",
        says("discrete-gaussian", "mechanism", "sum", "noise"),
    ),
    (
        CLIENT,
        "a normaliser of records",
        says(100.0, "mechanism", "normaliser", "bank-a"),
    ),
    (CLIENT, "NaN charged", says("zero-or-charged", "mechanism", "nan_policy")),
    (CLIENT, "rounded as records are", says("stochastic", "numerics", "rounding")),
    (CLIENT, "a record as unit", says("record", "privacy_unit", "kind")),
    (
        CLIENT,
        "records claimed",
        says(["coalitions", "stopping"], "not_claimed"),
    ),
]


def reports() -> list[Case]:
    rows = [(run, *row) for row in BOTH for run in RUNS] + ONE
    return [Case(run, name, "V-REPORT-2", REPORT, forge) for run, name, forge in rows]


def cases(made: Made) -> list[Case]:
    """All of both runs; ``made`` is the good run that is rendered."""
    return [*plans(), *copies(made), *ledgers(), *reports()]
