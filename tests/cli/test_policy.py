# SPDX-License-Identifier: Apache-2.0
"""``secure-fl policy``: a template that refuses, and a verdict of every line."""

from __future__ import annotations

import contextlib
from datetime import UTC, datetime
from pathlib import Path

import pytest

from secure_fl.consent import Consent
from secure_fl.plan import Plan, load_plan
from secure_fl.privacy import Ledger, epsilon

from .support import Answer, call, plan_text, snapshot
from .test_refusals import refused, refused_and_unchanged

NOW = int(datetime.now(UTC).timestamp())


def line(answer: Answer, entry: str) -> str:
    """The table's row of the line that begins with ``entry``."""
    (row,) = (x for x in answer.out.splitlines() if f" {entry} = " in x)
    return row


def complete(folder: Path) -> Plan:
    """``final.toml``: a plan with keys, endorsed by nobody yet."""
    keys = {}
    for name in ("bank-a", "bank-b", "bank-c", "centre"):
        made = call("keys", "new", "-o", folder / f"{name}.key")
        keys[name] = made.out.strip()
    plan = Plan(plan_text().encode()).completed(
        keys={name: keys[name] for name in ("bank-a", "bank-b", "bank-c")},
        aggregator=keys["centre"],
        keyholder=None,
        run_id=bytes(16),
        start_sha256="ab" * 32,
    )
    (folder / "final.toml").write_bytes(plan.source)
    return plan


def write_policy(folder: Path, plan: Plan, *changes: tuple[str, str]) -> None:
    """The template, with what a bank fills in for ``plan``, and ``changes``."""
    text = call("policy", "new").out
    for old, new in (
        ('"customers"', '"small-banks"'),
        ("largest_epsilon = 3.0", "largest_epsilon = 8.0"),
        ("largest_epsilon_per_year = 1.0", "largest_epsilon_per_year = 8.0"),
        ("smallest_cohort = 5", "smallest_cohort = 3"),
        ("smallest_min_clients = 4", "smallest_min_clients = 3"),
        ("models = []", f'models = ["{plan.model.start_sha256}"]'),
        ("aggregators = []", f'aggregators = ["{plan.parties.aggregator}"]'),
        *changes,
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    (folder / "policy.toml").write_text(text)


@pytest.fixture
def plan(desk: Path) -> Plan:
    return complete(desk)


def test_the_template_is_a_policy_for_this_year_that_allows_nothing(
    desk: Path, plan: Plan
) -> None:
    assert call("policy", "new", "-o", "policy.toml").code == 0
    text = (desk / "policy.toml").read_text()
    assert f"\nyear = {datetime.now(UTC).year} " in text
    assert max(map(len, text.splitlines())) <= 80
    assert not Consent.load(desk / "policy.toml").unprotected
    answer = call("policy", "check", "policy.toml", "final.toml")
    assert answer.code == 4
    for entry in ("lineage", "smallest_cohort", "models", "aggregators"):
        assert line(answer, entry).rstrip(" │").endswith("REFUSED")
    refused_and_unchanged(
        desk, ("policy", "new", "-o", "policy.toml"), 2, "policy.toml exists"
    )


def test_a_plan_that_passes(desk: Path, plan: Plan) -> None:
    write_policy(desk, plan)
    before = snapshot(desk)
    answer = call("policy", "check", "policy.toml", "final.toml")
    assert (answer.code, answer.err) == (0, "")
    assert snapshot(desk) == before
    lines = answer.out.splitlines()
    assert lines[0] == f"plan {plan.hash.hex()}"
    assert max(map(len, lines)) <= 80
    assert lines[-1] == "no --home was given: as if nothing was ever charged"
    spent = epsilon([plan.release] * 3, delta=1e-5).value
    assert f"{spent:.4g} at delta 1e-05 with 3" in line(
        answer, "largest_epsilon_per_year"
    )
    assert "REFUSED" not in answer.out


def test_a_refusal_is_the_line_of_the_file(desk: Path, plan: Plan) -> None:
    write_policy(desk, plan, ("smallest_cohort = 3", "smallest_cohort = 6"))
    text = (desk / "policy.toml").read_text().splitlines()
    number = 1 + next(i for i, x in enumerate(text) if x.startswith("smallest_cohort"))
    answer = call("policy", "check", "policy.toml", "final.toml")
    error = (
        f"secure-fl: error: policy.toml line {number}: smallest_cohort = 6: the plan "
        "has 3 members"
    )
    assert (answer.code, answer.errors) == (4, [error])
    assert answer.hints
    assert line(answer, "smallest_cohort").rstrip(" │").endswith("REFUSED")
    assert answer.out.count("REFUSED") == 1


def test_json(desk: Path, plan: Plan) -> None:
    write_policy(desk, plan, ("unprotected = false", ""))
    answer = call("policy", "check", "policy.toml", "final.toml", "--json")
    assert answer.code == 0
    assert answer.json["plan_hash"] == plan.hash.hex()
    assert answer.json["refused"] is False
    for row in answer.json["lines"]:
        assert set(row) == {"line", "entry", "finding", "refused"}
    cohort = [x for x in answer.json["lines"] if x["entry"].startswith("smallest_coh")]
    assert [(x["entry"], x["finding"], x["refused"]) for x in cohort] == [
        ("smallest_cohort = 3", "the plan has 3 members", False)
    ]
    write_policy(desk, plan, ('modes = ["local"]', "modes = []"))
    answer = call("policy", "check", "policy.toml", "final.toml", "--json")
    assert (answer.code, answer.json["refused"]) == (4, True)
    assert len(answer.errors) == 1


def test_the_ledger_of_the_home_counts(desk: Path, plan: Plan) -> None:
    home = desk / "home"
    home.mkdir()
    run = [plan.release] * 3
    with contextlib.closing(Ledger(home / "ledger.sqlite", client="bank-a")) as ledger:
        for place, event in enumerate(run):
            ledger.reserve(
                plan.lineage,
                run_id=bytes(15) + b"\1",
                round_index=place,
                attempt=0,
                event=event,
                unit=plan.privacy.unit,
                adjacency=plan.privacy.adjacency,
                delta=plan.privacy.delta,
                limit=8.0,
                now=NOW,
            )
    total = epsilon([*run, *run], delta=1e-5).value
    enough = ("largest_epsilon_per_year = 8.0", f"largest_epsilon_per_year = {total!r}")
    short = (enough[0], f"largest_epsilon_per_year = {total - 0.01}")
    for home_or_file in ("home", "home/ledger.sqlite"):
        args = ("policy", "check", "policy.toml", "final.toml", "--home", home_or_file)
        write_policy(desk, plan, enough)
        answer = call(*args)
        assert (answer.code, answer.err) == (0, "")
        assert "no --home was given" not in answer.out
        write_policy(desk, plan, short)
        answer = call(*args)
        assert answer.code == 4
        assert "largest_epsilon_per_year = " in answer.errors[0]
        assert f"{total:.4g} at delta 1e-05 with 3 releases" in answer.errors[0]
    assert call(*args[:4]).code == 0


def test_what_cannot_be_checked(desk: Path, plan: Plan) -> None:
    write_policy(desk, plan)
    args = ("policy", "check", "policy.toml", "final.toml")
    refused_and_unchanged(desk, (*args, "--home", "none"), 2, "there is no ledger")
    refused(call("policy", "check", "none.toml", "final.toml"), 2, "cannot read none")
    refused(call("policy", "check", "policy.toml", "none.toml"), 2, "cannot read none")
    write_policy(desk, plan, ("smallest_cohort = 3", "smallest_cohort = three"))
    refused(call(*args), 2, "policy.toml is not TOML", "line ")


def test_a_draft_is_told_what_it_leaves_open(desk: Path, plan: Plan) -> None:
    write_policy(desk, plan)
    assert load_plan("plan.toml").model.start_sha256 is None
    answer = call("policy", "check", "policy.toml", "plan.toml")
    assert answer.code == 4
    assert answer.out.count("REFUSED") == 2
    assert "models = " in answer.errors[0]
    assert answer.errors[0].endswith("the plan's is left open")
