# SPDX-License-Identifier: Apache-2.0
"""Reports of runs whose sums alone are private: what is claimed, and for whose eyes."""

from __future__ import annotations

import html as html_
import json
import re
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator

import secure_fl as sfl
from secure_fl.privacy import Skellam, epsilon, own_share
from secure_fl.report import render_html, render_text, verify_run
from secure_fl.report.figures import rounded
from secure_fl.report.registry import registry_yaml
from secure_fl.report.strings import LANGUAGES

from .conftest import TENSEAL
from .pages import looked_up, shows
from .sums import report_of, run
from .support import METRICS, Consortium
from .test_mutations import second

SCHEMA = Path(__file__).parents[2] / "protocols" / "report" / "report.schema.json"
VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text()))

RUNS: dict[str, dict[str, Any]] = {
    "records": {},
    "exact": {"noise": "discrete-gaussian"},
    "plain": {"kind": "plain"},
    "holder": {"kind": "ckks", "keys": "keyholder", "unit": "client"},
    "clients": {"unit": "client"},
    "one-time": {"kind": "ckks", "keys": "one-time"},
}
LONG = ("clients", "one-time")


@pytest.fixture(
    scope="module",
    params=[pytest.param(r, marks=pytest.mark.long if r in LONG else ()) for r in RUNS],
)
def finished(request: pytest.FixtureRequest) -> sfl.Run:
    entries = RUNS[request.param]
    if entries.get("kind") == "ckks":
        pytest.importorskip("tenseal", reason=TENSEAL)
    return run(keep=entries.get("kind") != "plain", **entries)


def one_line(page: str) -> str:
    return " ".join(html_.unescape(page).split())


# -- what is claimed -------------------------------------------------------------------


def test_a_report_is_valid_and_verified(finished: sfl.Run, tmp_path: Path) -> None:
    report = report_of(finished)
    errors = [f"{e.json_path}: {e.message}" for e in VALIDATOR.iter_errors(report)]
    assert errors == []
    for name, data in finished.files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    verified = verify_run(tmp_path, plan_path=tmp_path / "plan.toml")
    limit = finished.plan.privacy.epsilon
    assert all(0 < spent <= limit for spent in verified.epsilon.values())


def test_each_view_has_its_own_figures(finished: sfl.Run) -> None:
    plan, report = finished.plan, report_of(finished)
    unit, delta = plan.privacy.unit, plan.privacy.delta
    claims = {claim["id"]: claim for claim in report["claims"]}
    in_sum, share = claims[f"{unit}-sum"], claims[f"{unit}-share"]
    assert len(claims) == 2
    twice = [plan.release] * 2
    alone = [own_share(event) for event in twice]
    for claim, events in ((in_sum, twice), (share, alone)):
        known = rounded(epsilon(events, delta=delta).value)
        figures = claim["clients"]["clinic-a"]
        assert figures["epsilon"] == figures["epsilon_rdp"] == known
        assert figures["epsilon_this_run"] == claim["consortium"]["epsilon"] == known
        assert claim["unit"] == unit
        assert claim["view"] == claim["id"]
    assert share["consortium"]["epsilon"] > in_sum["consortium"]["epsilon"]
    # Clinic-d reserved in both rounds: nothing of its second one was ever drawn.
    assert in_sum["clients"]["clinic-d"]["releases_charged"] in (1, 2)
    assert (in_sum["limit"], share["limit"]) == (plan.privacy.epsilon, None)
    assert in_sum["projected"] == rounded(plan.projected_epsilon())
    assert share["projected"] == rounded(plan.projected_own_share())
    assert (
        report["epsilon_over_rounds"]["clinic-a"][-1]["epsilon"]
        == (report["claims"][0]["clients"]["clinic-a"]["epsilon"])
    )


def test_the_headline_needs_what_there_is(finished: sfl.Run) -> None:
    """Without a protection the aggregator sees more than sums: the claim is void."""
    report = report_of(finished)
    unit = report["privacy_unit"]["kind"]
    told = [(claim["id"], claim["evidence"]) for claim in report["claims"]]
    if report["threat_model"]["protection"] == "plain":
        assert told == [(f"{unit}-share", "proved"), (f"{unit}-sum", "none")]
    else:
        assert told == [(f"{unit}-sum", "proved"), (f"{unit}-share", "proved")]


def test_only_sums_rest_on_others(finished: sfl.Run) -> None:
    report = report_of(finished)
    rests = {
        c["id"][7:]: {row["id"] for row in c["relies_on"]} for c in report["claims"]
    }
    others = {"sums-only", "honest-shares"}
    apart, together = set(), set()
    if any(party["role"] == "keyholder" for party in report["parties"]):
        apart, together = {"keyholder-apart"}, {"keyholder-together"}
    assert rests["sum"] - rests["share"] == others | apart
    assert rests["share"] - rests["sum"] == together
    every = [row["id"] for row in report["threat_model"]["assumptions"]]
    assert set(every) == rests["sum"] | rests["share"]
    assert len(every) == len(set(every))


def test_the_mechanism_is_the_grids(finished: sfl.Run) -> None:
    plan, report = finished.plan, report_of(finished)
    grid, mechanism = plan.grid, report["mechanism"]
    told = mechanism["sum"]
    assert told["shares"] == plan.min_clients - plan.parties.max_colluding == 2
    assert told["share_deviation"] == pytest.approx(
        mechanism["sigma_abs"] / 2**0.5, rel=1e-5
    )
    assert told["sensitivity"] == pytest.approx(grid.clip_norm, rel=0.01)
    assert (told["values"], told["block"]) == (128, 128)
    noise = "opendp" if told["noise"] == "discrete-gaussian" else "aes-ctr"
    assert report["randomness"]["noise"] == noise
    assert report["accounting"]["primary"] == "RDP"
    assert report["accounting"]["known_answers"][-1]["id"] == "skellam-rdp"
    for row in report["releases"]["clinic-a"]:
        assert row["event"]["mechanism"] == told["noise"]
        assert row["event"]["shares"] == told["shares"]
    assert {row["clipped_coordinates"] for row in report["rounds"]} == {0}


# -- what a page says ------------------------------------------------------------------


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_number_on_the_page_is_the_reports(
    finished: sfl.Run, language: str
) -> None:
    report = report_of(finished)
    page = render_html(report, METRICS, language=language)
    figures = re.findall(r'<data value="([^"]+)">([^<]+)</data>', page)
    assert len(figures) > 80
    for pointer, shown in figures:
        assert shows(shown, pointer, looked_up(report, pointer)), pointer
    plain = render_text(report, METRICS, language=language)
    assert "{" not in plain


def test_a_page_says_whose_view_it_is(finished: sfl.Run) -> None:
    report = report_of(finished)
    for page in (render_html(report, {}), render_text(report, {})):
        told = one_line(page)
        assert "the claim does not need it" not in told
        assert "privacy loss distributions (PLD) on a grid" not in told
        assert "drawn in floating point" not in told
        assert "must not be lower" not in told
        exposed = "without protection more is seen than sums" in told
        plain = report["threat_model"]["protection"] == "plain"
        assert exposed is plain
        assert ("UNPROTECTED SUM" in told) is plain
        assert ("Should the protection fail" in told) is not plain
        of_clients = report["privacy_unit"]["kind"] == "client"
        assert ("about one client, and how" in told) is of_clients
        assert ("no training record" in told) is not of_clients


def test_a_view_without_a_bound_says_so(finished: sfl.Run) -> None:
    """One share may be too little for any epsilon, where the sum has one."""
    report = report_of(finished)
    for claim in report["claims"][1:]:
        claim["evidence"] = "none"
        for row in (claim["consortium"], *claim["clients"].values()):
            row["epsilon"] = "infinity"
    for page in (render_html(report, {}), render_text(report, {})):
        told = one_line(page)
        assert "Nobody: in this view epsilon is infinite." in told
        assert "NO PRIVACY GUARANTEE" not in told
        assert "In this view they alone cost" not in told or (
            report["claims"][0]["limit"] is None
        )


def test_a_registry_entry_names_the_headline(finished: sfl.Run) -> None:
    report = report_of(finished)
    entry = registry_yaml(report)
    assert f"epsilon: {report['claims'][0]['consortium']['epsilon']}" in entry
    assert "float" not in entry.replace("floating point; the sensitivity", "")
    plain = report["threat_model"]["protection"] == "plain"
    assert ("only sums are opened" in entry) is not plain


def test_nothing_english_is_left(finished: sfl.Run) -> None:
    plain = render_text(report_of(finished), {}, language="zh")
    for failure in report_of(finished)["failures"]:
        plain = plain.replace(failure["reason"], "")
    plain = plain.replace("secure-fl verify DIR", "")
    assert not re.search("(?:[A-Za-z]{2,} ){3}", plain)


# -- ledgers that hold both ------------------------------------------------------------


class WithAnEarlierSum(Consortium):
    """A run in local mode, whose members took part in a sum before."""

    event = Skellam(rate=1.0, variance=4e4, shares=4, l2=100.0, l1=1000.0)

    def rounds(self) -> None:
        for ledger in self.ledgers.values():
            earlier = ledger.reserve(
                self.plan.lineage,
                run_id=bytes(16),
                round_index=0,
                attempt=0,
                event=self.event,
                unit="record",
                adjacency="add-or-remove-one",
                delta=self.plan.privacy.delta,
                limit=self.plan.privacy.epsilon,
                now=self.now(),
            )
            ledger.sent(earlier, ctx=bytes(32), now=self.now())
        super().rounds()


def test_an_earlier_sum_counts_with_its_own_share_in_local_mode(tmp_path: Path) -> None:
    """Everybody else may collude there, and knows the other shares."""
    made = WithAnEarlierSum(tmp_path).play()
    folder = made.write(tmp_path / "run")
    verified = verify_run(folder)
    assert second(folder) == ""
    report = report_of(made)
    assert report["accounting"]["primary"] == "RDP"
    earlier, mine = WithAnEarlierSum.event, [made.plan.release] * 3
    alone = epsilon([own_share(earlier), *mine], delta=1e-5)
    charged = epsilon([earlier, *mine], delta=1e-5)
    told = report["claims"][0]["clients"]["bank-a"]
    assert told["releases_charged"] == 4
    assert told["epsilon"] == rounded(alone.value) > charged.value
    assert verified.epsilon["bank-a"] == pytest.approx(charged.value)
