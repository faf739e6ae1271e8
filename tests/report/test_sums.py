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
from secure_fl.errors import VerificationError
from secure_fl.privacy import Ledger, Skellam, epsilon, rdp_epsilon, seen
from secure_fl.report import render_html, render_text, verify_run
from secure_fl.report.figures import rounded
from secure_fl.report.registry import registry_yaml
from secure_fl.report.strings import LANGUAGES

from ..engines.distributed import noise_alone
from ..engines.support import NAMES, start
from .conftest import TENSEAL
from .pages import looked_up, shows
from .sums import report_of, run, sums_plan
from .support import METRICS, Consortium
from .test_mutations import second

SCHEMA = Path(__file__).parents[2] / "protocols" / "report" / "report.schema.json"
VALIDATOR = Draft202012Validator(json.loads(SCHEMA.read_text()))

RUNS: dict[str, dict[str, Any]] = {
    "records": {},
    "exact": {"noise": "discrete-gaussian"},
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
    return run(keep=True, **entries)


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
    alone = [seen(event, None) for event in twice]
    for claim, events in ((in_sum, twice), (share, alone)):
        known = rounded(epsilon(events, delta=delta).value)
        figures = claim["clients"]["clinic-a"]
        assert figures["epsilon"] == known
        assert figures["epsilon_rdp"] == rounded(rdp_epsilon(events, delta=delta))
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


def test_the_headline_is_about_the_sum(finished: sfl.Run) -> None:
    report = report_of(finished)
    unit = report["privacy_unit"]["kind"]
    told = [(claim["id"], claim["evidence"]) for claim in report["claims"]]
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
    exact = told["noise"] == "discrete-gaussian"
    accounting = report["accounting"]
    assert accounting["primary"] == ("RDP" if exact else "PLD-or-RDP")
    assert (accounting["discretisation"] is None) == exact
    known = [answer["id"] for answer in accounting["known_answers"]]
    assert known[-2:] == ["skellam-rdp", "skellam-pld"]
    for row in report["releases"]["clinic-a"]:
        assert row["event"]["mechanism"] == told["noise"]
        assert row["event"]["shares"] == told["shares"]
        assert row["event"]["colluding"] == plan.parties.max_colluding == 1
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
        exact = report["accounting"]["primary"] == "RDP"
        assert ("No privacy loss distribution (PLD) stands beside it" in told) is exact
        assert ("Epsilon is the smaller of two upper bounds" in told) is not exact
        assert "drawn in floating point" not in told
        assert "must not be lower" not in told
        assert "UNPROTECTED SUM" not in told
        assert "Should the protection fail" in told
        of_clients = report["privacy_unit"]["kind"] == "client"
        assert ("about one client, and how" in told) is of_clients
        assert ("no training record" in told) is not of_clients


def test_of_two_bounds_a_page_shows_both(finished: sfl.Run) -> None:
    report = report_of(finished)
    two = report["accounting"]["primary"] == "PLD-or-RDP"
    told = one_line(render_html(report, {}))
    assert ("epsilon by RDP, a second method" in told) is two


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
        assert "In this view they alone cost" not in told


def test_a_registry_entry_names_the_headline(finished: sfl.Run) -> None:
    report = report_of(finished)
    entry = registry_yaml(report)
    assert f"epsilon: {report['claims'][0]['consortium']['epsilon']}" in entry
    assert "float" not in entry.replace("floating point; the sensitivity", "")
    assert "only sums are opened" in entry


def test_nothing_english_is_left(finished: sfl.Run) -> None:
    plain = render_text(report_of(finished), {}, language="zh")
    for failure in report_of(finished)["failures"]:
        plain = plain.replace(failure["reason"], "")
    plain = plain.replace("secure-fl verify DIR", "")
    assert not re.search("(?:[A-Za-z]{2,} ){3}", plain)


# -- ledgers that hold both ------------------------------------------------------------


class WithAnEarlierSum(Consortium):
    """A run in local mode, whose members took part in a sum before."""

    event = Skellam(1.0, variance=4e4, shares=4, colluding=1, l2=100.0, values=100)

    def rounds(self) -> None:
        for ledger in self.ledgers.values():
            self.sum_of_another_run(ledger, limit=self.plan.privacy.epsilon)
        super().rounds()

    def sum_of_another_run(self, ledger: Ledger, *, limit: float) -> None:
        reservation = ledger.reserve(
            self.plan.lineage,
            run_id=bytes(16),
            round_index=0,
            attempt=0,
            event=self.event,
            unit="record",
            adjacency="add-or-remove-one",
            delta=self.plan.privacy.delta,
            limit=limit,
            now=self.now(),
        )
        ledger.sent(reservation, ctx=bytes(32), now=self.now())


def test_an_earlier_sum_counts_with_its_own_share_in_local_mode(tmp_path: Path) -> None:
    """Everybody else may collude there, and knows the other shares."""
    made = WithAnEarlierSum(tmp_path).play()
    folder = made.write(tmp_path / "run")
    verified = verify_run(folder)
    assert second(folder) == ""
    report = report_of(made)
    assert report["accounting"]["primary"] == "PLD-or-RDP"
    earlier, mine = WithAnEarlierSum.event, [made.plan.release] * 3
    alone = epsilon([seen(earlier, None), *mine], delta=1e-5)
    charged = epsilon([earlier, *mine], delta=1e-5)
    told = report["claims"][0]["clients"]["bank-a"]
    assert told["releases_charged"] == 4
    assert told["epsilon"] == rounded(alone.value) > charged.value
    assert verified.epsilon["bank-a"] == pytest.approx(alone.value)


class WithALaterSum(WithAnEarlierSum):
    """The members took part in a sum since, under a plan with no budget left to them:
    one share of its noise is too little for this one's."""

    event = Skellam(1.0, variance=2500.0, shares=4, colluding=1, l2=100.0, values=100)

    def rounds(self) -> None:
        Consortium.rounds(self)
        for ledger in self.ledgers.values():
            self.sum_of_another_run(ledger, limit=float("inf"))


def test_a_local_run_is_refused_where_own_shares_spend_more(tmp_path: Path) -> None:
    """With all shares it would be within its limit."""
    made = WithALaterSum(tmp_path)
    folder = made.play().write(tmp_path / "run")
    events = [WithALaterSum.event, *[made.plan.release] * 3]
    assert epsilon(events, delta=1e-5).value < made.plan.privacy.epsilon
    with pytest.raises(VerificationError, match="above the plan's limit") as caught:
        verify_run(folder)
    assert caught.value.file == "ledgers/bank-a.cbor"
    assert second(folder) == caught.value.file


def lineage_plan(colluding: int, limit: float, noise: float) -> sfl.Plan:
    """All four clinics are in every sum; one data set in all runs."""
    source = sums_plan(kind="masking").source.decode()
    for line, by in (
        ("[parties]", f"[parties]\nmax_colluding = {colluding}\nmin_clients = 4"),
        ("epsilon = 8.0", f'epsilon = {limit}\nlineage = "patients"'),
        ("sampling_rate = 0.2", "sampling_rate = 1.0"),
        ("noise_multiplier = 1.0", f"noise_multiplier = {noise}"),
    ):
        assert source.count(line) == 1
        source = source.replace(line, by)
    return sfl.Plan(source.encode())


def test_a_run_with_more_colluders_counts_an_earlier_sum_for_more(
    tmp_path: Path,
) -> None:
    """Its protection was made for one of them: against two, one share is left."""
    home, clients = tmp_path / "home", dict.fromkeys(NAMES, noise_alone)
    one, two = lineage_plan(1, 8.0, 4.0), lineage_plan(2, 20.0, 4.0)
    sfl.run(one, clients, model=start(), home=home)
    folder = tmp_path / "run"
    finished = sfl.run(two, clients, model=start(), home=home, out=folder)
    earlier, later = one.release, two.release
    assert isinstance(earlier, Skellam)
    assert isinstance(later, Skellam)
    assert (earlier.shares, later.shares) == (3, 2)
    by_sum = epsilon([seen(earlier, 2)] * 2 + [later] * 2, delta=1e-5).value
    by_all = epsilon(
        [seen(event, None) for event in (earlier, later)] * 2, delta=1e-5
    ).value
    assert by_sum > 1.2 * epsilon([earlier, later] * 2, delta=1e-5).value
    report = report_of(finished)
    told = [claim["clients"]["clinic-a"]["epsilon"] for claim in report["claims"]]
    assert told == [rounded(by_sum), rounded(by_all)]
    over = report["epsilon_over_rounds"]["clinic-a"]
    assert over[-1]["epsilon"] == rounded(by_sum)
    assert verify_run(folder).epsilon["clinic-a"] == pytest.approx(by_sum)
    assert second(folder) == ""
