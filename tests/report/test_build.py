# SPDX-License-Identifier: Apache-2.0
"""The figures of the report, against formulas that share no code with it."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path
from statistics import NormalDist
from typing import Any

import cbor2
import pytest

from secure_fl.errors import BudgetExceeded, UsageError
from secure_fl.privacy import Gaussian, LedgerExport, read_export
from secure_fl.report import (
    Report,
    build_report,
    render_html,
    render_text,
    to_json,
    verify_run,
)
from secure_fl.report.history import exceptions
from secure_fl.transcript import Transcript

from .support import NAMES, Consortium, Made

PHI, QUANTILE = NormalDist().cdf, NormalDist().inv_cdf


def gaussian_epsilon(mu: float, delta: float) -> float:
    """Epsilon of one Gaussian release of sensitivity over noise ``mu``: exact."""

    def excess(epsilon: float) -> float:
        near, far = mu / 2 - epsilon / mu, -mu / 2 - epsilon / mu
        return PHI(near) - math.exp(epsilon) * PHI(far) - delta

    low, high = 0.0, 50.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if excess(middle) > 0 else (low, middle)
    return high


def report_of(made: Made) -> dict[str, Any]:
    report: dict[str, Any] = json.loads(made.files["report.json"])
    return report


def ids(rows: list[dict[str, str]]) -> list[str]:
    return [row["id"] for row in rows]


def played(folder: Path, **settings: str | bool) -> Consortium:
    folder.mkdir()
    return Consortium(folder, **settings)  # type: ignore[arg-type]


def exports_of(made: Made) -> dict[str, LedgerExport]:
    return {
        m.name: read_export(
            made.files[f"ledgers/{m.name}.cbor"], public_key=m.public_key, client=m.name
        )
        for m in made.plan.roster.members
    }


# Releases of three steps with noise multiplier 6: the failed attempt of round 1 was
# reserved by all but bank-d, which took part in round 0 only.
RELEASES = {"bank-a": 3, "bank-b": 3, "bank-c": 3, "bank-d": 1}


def test_epsilon_counts_failed_attempts(made: Made) -> None:
    claim = report_of(made)["claims"][0]
    for name, releases in RELEASES.items():
        figures = claim["clients"][name]
        exact = gaussian_epsilon(math.sqrt(3 * releases) / 6, 1e-5)
        assert figures["epsilon"] == pytest.approx(exact, rel=1e-3)
        assert figures["epsilon"] <= figures["epsilon_rdp"]
        assert figures["releases_charged"] == releases
        assert figures["epsilon_without_amplification"] == figures["epsilon"]
        mu = math.sqrt(3 * releases) / 6
        assert figures["mu_gdp"] == pytest.approx(mu, rel=1e-2)
        for rate, found in figures["trade_off"]:
            best = PHI(QUANTILE(rate) + mu)
            assert best - 1e-6 <= found <= best * 1.001
        for records, several in figures["group"]:
            exact = gaussian_epsilon(records * mu, 1e-5)
            assert several == pytest.approx(exact, rel=1e-3)
        assert [k for k, _ in figures["group"]] == [2, 5]
    assert claim["consortium"]["epsilon"] == claim["clients"]["bank-a"]["epsilon"]


def test_profile_falls_with_delta(made: Made) -> None:
    for figures in report_of(made)["claims"][0]["clients"].values():
        pairs = figures["profile"]
        assert [d for d, _ in pairs] == [10.0**-i for i in range(2, 11)]
        assert [e for _, e in pairs] == sorted(e for _, e in pairs)
        assert dict(map(tuple, pairs))[1e-5] == figures["epsilon"]


def test_overlapping_clients_add_up(tmp_path: Path) -> None:
    made = played(tmp_path / "homes", overlap="overlapping").play()
    report = report_of(made)
    steps = 3 * sum(RELEASES.values())
    exact = gaussian_epsilon(math.sqrt(steps) / 6, 1e-5)
    whole = report["claims"][0]["consortium"]
    assert whole["epsilon"] == pytest.approx(exact, rel=1e-3)
    assert report["composition"]["across_clients"] == "sequential"
    assert report["privacy_unit"]["max_parties_per_unit"] == 4
    # Four releases of three steps are budgeted for each of four members.
    claim = report["claims"][0]
    for key, releases in (("projected", 4), ("projected_consortium", 16)):
        exact = gaussian_epsilon(math.sqrt(3 * releases) / 6, 1e-5)
        assert claim[key] == pytest.approx(exact, rel=1e-3)
    assert whole["epsilon"] < claim["projected_consortium"]


def test_epsilon_over_rounds(made: Made) -> None:
    over = report_of(made)["epsilon_over_rounds"]
    steps = {"bank-a": (3, 9), "bank-d": (3, 3)}
    for name, (first, second) in steps.items():
        got = [(p["round"], p["epsilon"]) for p in over[name]]
        assert [place for place, _ in got] == [0, 1]
        for (_, value), count in zip(got, (first, second), strict=True):
            exact = gaussian_epsilon(math.sqrt(count) / 6, 1e-5)
            assert value == pytest.approx(exact, rel=1e-3)
    last = report_of(made)["claims"][0]["clients"]["bank-a"]["epsilon"]
    assert over["bank-a"][-1]["epsilon"] == last


def test_earlier_runs_are_counted(tmp_path: Path) -> None:
    consortium = played(tmp_path / "homes")
    consortium.ledgers["bank-a"].reserve(
        consortium.plan.lineage,
        run_id=b"an earlier run..",
        round_index=0,
        attempt=0,
        event=Gaussian(1.0),
        unit="record",
        adjacency="add-or-remove-one",
        delta=1e-5,
        limit=8.0,
        now=1,
    )
    report = report_of(consortium.play())
    figures = report["claims"][0]["clients"]["bank-a"]
    alone = gaussian_epsilon(3 / 6, 1e-5)
    both = gaussian_epsilon(math.sqrt(9 / 36 + 1), 1e-5)
    assert figures["epsilon_this_run"] == pytest.approx(alone, rel=1e-3)
    assert figures["epsilon"] == pytest.approx(both, rel=1e-3)
    assert len(report["releases"]["bank-a"]) == 3
    # Its own clock counts, and no entry of another run.
    assert report["dates"]["first"] == "2023-11-14T22:13:21Z"
    assert report["releases"]["bank-a"][0]["time"] == report["dates"]["first"]
    assert report["dates"]["last"] > report["dates"]["first"]
    assert report["epsilon_over_rounds"]["bank-a"][-1]["epsilon"] == figures["epsilon"]


def test_a_clock_beyond_all_calendars(tmp_path: Path) -> None:
    consortium = played(tmp_path / "homes")
    consortium.clock = 2**60
    report = report_of(consortium.play())
    end = "9999-12-31T23:59:59Z"
    assert report["dates"] == {"first": end, "last": end}


def test_sampling_is_credited_and_shown_without(tmp_path: Path) -> None:
    report = report_of(played(tmp_path / "homes", rate="0.1").play())
    figures = report["claims"][0]["clients"]["bank-a"]
    exact = gaussian_epsilon(3 / 6, 1e-5)
    assert figures["epsilon_without_amplification"] == pytest.approx(exact, rel=1e-3)
    assert figures["epsilon"] < exact / 2
    assert report["mechanism"]["normaliser"]["bank-a"] == 40.0
    assert "sampling-secret" in ids(report["threat_model"]["assumptions"])
    assert report["sampling"]["amplification"] is True
    # Several records are seldom in one sample together, but never cost less than one.
    (_, two), (_, five) = figures["group"]
    assert figures["epsilon"] < two < five < gaussian_epsilon(5 * 3 / 6, 1e-5)


def test_an_unprotected_update_makes_it_infinite(tmp_path: Path) -> None:
    report = report_of(played(tmp_path / "homes", unprotected="bank-b").play())
    claim = report["claims"][0]
    for figures in (claim["clients"]["bank-b"], claim["consortium"]):
        for key in ("epsilon", "epsilon_rdp", "epsilon_without_amplification"):
            assert figures[key] == "infinity"
        assert figures["mu_gdp"] == "infinity"
        assert figures["advantage"] == 1.0
        assert {e for _, e in figures["profile"]} == {"infinity"}
        assert {e for _, e in figures["group"]} == {"infinity"}
        assert {found for _, found in figures["trade_off"]} == {1.0}
        assert figures["reasons"] == ["a baseline without noise"]
    assert isinstance(claim["clients"]["bank-a"]["epsilon"], float)
    assert claim["clients"]["bank-a"]["reasons"] == []
    rows = [r for r in report["exceptions"] if r["kind"] == "unprotected-release"]
    assert [(r["round"], r["client"]) for r in rows] == [
        (0, "bank-b"),
        (1, "bank-b"),
        (1, "bank-b"),
    ]


def test_an_infinite_epsilon_without_a_reason_gets_none(tmp_path: Path) -> None:
    """Nobody gave one: the noise was there, it was only far too little.

    No round was finished either, and both pages can be drawn all the same.
    """
    consortium = played(tmp_path / "homes")
    consortium.ledgers["bank-a"].reserve(
        consortium.plan.lineage,
        run_id=b"an earlier run..",
        round_index=0,
        attempt=0,
        event=Gaussian(0.01),
        unit="record",
        adjacency="add-or-remove-one",
        delta=1e-5,
        limit=math.inf,
        now=1,
    )
    with pytest.raises(BudgetExceeded):
        consortium.play()
    exports = {
        m.name: read_export(
            consortium.ledgers[m.name].export(
                consortium.plan.lineage, identity=consortium.identities[m.name]
            ),
            public_key=m.public_key,
            client=m.name,
        )
        for m in consortium.plan.roster.members
    }
    for ledger in consortium.ledgers.values():
        ledger.close()
    report = build_report(
        plan=consortium.plan,
        transcript=consortium.transcript,
        exports=exports,
        size=20,
    )
    whole = report["claims"][0]["consortium"]
    assert (whole["epsilon"], whole["reasons"]) == ("infinity", [])
    assert report["dates"] == {"first": None, "last": None}
    render_html(report, {})
    page = " ".join(render_text(report, {}).split())
    assert "At least one release has no finite epsilon." in page
    assert "Reasons given" not in page
    assert "because of a release without protection" not in page


def test_the_flags_of_the_start(made: Made, tmp_path: Path) -> None:
    other = played(tmp_path / "homes", insecure=False, ledgers_live_on=False).play()
    for run, flag in ((made, True), (other, False)):
        report = report_of(run)
        assert report["insecure"] is flag
        assert report["composition"]["ledgers_live_on"] is flag
        # seeded randomness is nothing that a claim could rely on
        assumptions = report["threat_model"]["assumptions"]
        assert ("csprng" in ids(assumptions)) is not flag
        for assumed in (
            "unchanged",
            "trainer",
            "ledger-kept" if flag else "no-earlier",
        ):
            assert {"id": assumed, "evidence": "assumed"} in assumptions
        assert ("ledger-kept" in ids(assumptions)) is flag
        assert ("no-earlier" in ids(assumptions)) is not flag
        assert {"id": "noise-first", "evidence": "tested"} in assumptions
        claim = report["claims"][0]
        assert claim["relies_on"] == assumptions
        assert claim["evidence"] == ("none" if flag else "proved")
        assert report["randomness"]["seeded"] is flag
        assert report["randomness"]["keys"] == ("seed" if flag else "operating-system")
    verified = verify_run(other.write(tmp_path / "run"))
    assert not any("seeded" in line for line in verified.not_checked)


def test_rounds_failures_and_states(made: Made) -> None:
    report = report_of(made)
    assert [r["survivors"] for r in report["rounds"]] == [
        list(NAMES),
        ["bank-a", "bank-b", "bank-c"],
    ]
    assert report["rounds"][1]["left_out"] == ["bank-d"]
    (failure,) = report["failures"]
    assert (failure["round"], failure["attempt"]) == (1, 0)
    assert report["skipped_rounds"] == []
    states = {n: [r["state"] for r in rows] for n, rows in report["releases"].items()}
    assert states == {
        "bank-a": ["released", "sent", "released"],
        "bank-b": ["released", "sent", "released"],
        "bank-c": ["released", "sent", "released"],
        "bank-d": ["released"],
    }
    opened = made.transcript.of_kind("round")
    assert [r["words_hash"] for r in report["rounds"]] == [
        entry.bytes_(5).hex() for entry in opened
    ]
    rows = [(r["round"], r["kind"], r["client"]) for r in report["exceptions"]]
    assert rows == [
        (1, "charged-not-opened", "bank-a"),
        (1, "charged-not-opened", "bank-b"),
        (1, "charged-not-opened", "bank-c"),
        (1, "failed-attempt", "bank-c"),
    ]


def test_a_skipped_round_and_one_without_a_culprit(made: Made) -> None:
    """Both stand before the members' rows of their round; equal rows stay."""
    log = Transcript(made.transcript.run_id)
    for attempt in (0, 1):
        log.append("failure", {0: 0, 1: attempt, 2: "nobody answered", 3: ""})
    rows = exceptions(made.plan, exports_of(made), log)
    assert [(r["kind"], r["round"], r["client"]) for r in rows[:3]] == [
        ("failed-attempt", 0, None),
        ("failed-attempt", 0, None),
        ("skipped-round", 0, None),
    ]
    assert [r["kind"] for r in rows[3:]] == ["charged-not-opened"] * 3


def test_form(made: Made) -> None:
    report = report_of(made)
    assert next(iter(report)) == "schema_version"
    assert report["schema_version"] == "secure-fl/report/2"
    assert report["simulation"] is True
    assert report["insecure"] is True
    assert report["threat_model"]["threshold"] == 3
    assert report["accounting"]["discretisation"] == {
        "interval": 1e-4,
        "adapted": True,
        "bound": "upper",
    }
    assert report["not_claimed"][-1] == "stopping"
    assert report["claims"][0]["not_protected"] == report["not_protected"]
    head = bytes.fromhex(report["transcript_head"])
    named = cbor2.dumps(["secure-fl/report/2 id", head], canonical=True)
    assert report["report_id"] == hashlib.sha256(named).hexdigest()
    assert report["tool"]["libraries"]["numpy"] == "2.4.6"
    assert report["subject"]["values"] == 20
    # One record is at one client: all of them together cost it no more.
    claim = report["claims"][0]
    assert claim["projected_consortium"] == claim["projected"]
    # keys of maps, at any depth, are ids: no sentence hides in them
    assert to_json(report) == made.files["report.json"]
    assert Report(report).claims[0]["id"] == "record-local"


def test_what_is_missing_is_named(made: Made) -> None:
    empty = Transcript(made.transcript.run_id)
    with pytest.raises(UsageError, match="bank-a"):
        build_report(plan=made.plan, transcript=made.transcript, exports={}, size=20)
    with pytest.raises(UsageError):
        build_report(plan=made.plan, transcript=empty, exports={}, size=20)
