# SPDX-License-Identifier: Apache-2.0
"""The pages say what report.json says, to everybody, and run nothing."""

from __future__ import annotations

import copy
import html as html_
import json
import re
from collections.abc import Iterator
from html.parser import HTMLParser
from typing import Any

import pytest

from secure_fl.errors import UsageError
from secure_fl.report import render_html, render_text
from secure_fl.report.cells import at, bound, number
from secure_fl.report.columns import width, wrapped
from secure_fl.report.english import ENGLISH
from secure_fl.report.strings import text

from .pages import MEASURED, looked_up, shows
from .support import METRICS, Made


@pytest.fixture
def report(made: Made) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(made.files["report.json"])
    return data


def numbers(value: Any) -> Iterator[float]:
    """Every number of a claim, at any depth."""
    if isinstance(value, dict):
        for item in value.values():
            yield from numbers(item)
    elif isinstance(value, list):
        for item in value:
            yield from numbers(item)
    elif isinstance(value, float):
        yield value


def test_every_number_of_the_claim_is_shown(report: dict[str, Any]) -> None:
    claim = report["claims"][0]
    html, plain = render_html(report, METRICS), render_text(report, METRICS)
    words = set(re.split(r"[\s<>]+", html)), set(plain.split())
    shown = {bound(n) for n in numbers(claim)}
    assert len(shown) > 20
    for page in words:
        bare = {w.strip(".,:") for w in page}
        assert shown <= bare
    for hash_ in (report["plan"]["hash"], report["transcript_head"]):
        assert hash_ in html
        assert hash_ in plain


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.0, "0"),
        (1e-5, "1e-05"),
        (0.123456, "0.1235"),
        (0.123446, "0.1234"),
        (8.0, "8"),
        (9999.96, "10000"),
        (21347.0, "21347"),
        (21347, "21347"),
        (21347.4, "21350"),
        ("infinity", "∞"),
    ],
)
def test_figures_for_people(value: float | str, shown: str) -> None:
    assert number(value) == shown
    assert shows(shown, "/mechanism/sigma_abs", value)


@pytest.mark.parametrize(
    ("value", "shown", "less"),
    [
        (0.0, "0", None),
        (1e-5, "1e-05", None),
        (5.54528, "5.546", "5.545"),
        (5.545, "5.545", "5.544"),
        (0.999535, "0.9996", "0.9995"),
        (0.99996, "1", "0.9999"),
        (3.00001e-7, "3.001e-07", "3e-07"),
        (21341.4, "21350", "21340"),
        (21347.0, "21347", "21340"),
        ("infinity", "∞", None),
    ],
)
def test_bounds_for_people(value: float | str, shown: str, less: str | None) -> None:
    assert bound(value) == shown
    assert shows(shown, "/claims/0/consortium/epsilon", value)
    assert less is None or not shows(less, "/claims/0/consortium/epsilon", value)


def test_no_figure_of_a_table_is_longer(report: dict[str, Any]) -> None:
    report["mechanism"]["normaliser"]["bank-a"] = 8123.46
    html = render_html(report, METRICS)
    cells = re.findall(r"<data [^>]*>([0-9.e+-]+)</data>", html)
    assert len(cells) > 50
    for cell in cells:
        digits = re.sub(r"e.*|[.-]", "", cell).strip("0")
        assert len(digits) <= 4


def both(report: dict[str, Any], metrics: dict[str, Any]) -> list[str]:
    """The pages as one line each."""
    pages = (render_html(report, metrics), render_text(report, metrics))
    return [" ".join(html_.unescape(page).split()) for page in pages]


def test_the_lead_is_about_training_records(report: dict[str, Any]) -> None:
    seeded = "a test of the arithmetic, not a claim"
    epsilon = bound(report["claims"][0]["consortium"]["epsilon"])
    lead = f"expose no training record by more than epsilon {epsilon}, at delta 1e-05"
    for page in both(report, METRICS):
        assert seeded in page
        assert lead not in page
    report["insecure"] = False
    report["claims"][0]["evidence"] = "proved"
    for page in both(report, METRICS):
        assert seeded not in page
        assert lead in page
        assert "the masking is broken" in page


def test_ledgers_that_were_thrown_away(report: dict[str, Any]) -> None:
    kept, gone = "earlier runs included", "epsilon counts this run alone"
    assert report["composition"]["ledgers_live_on"] is True
    for page in both(report, {}):
        assert kept in page
        assert gone not in page
    report["composition"]["ledgers_live_on"] = False
    report["claims"][0]["relies_on"][-1]["id"] = "no-earlier"
    for page in both(report, {}):
        assert kept not in page
        assert gone in page
        assert "Nothing was released about these records before this run" in page
        assert "kept one ledger for these records" not in page


def test_the_limit_is_each_clients_alone(report: dict[str, Any]) -> None:
    claim = report["claims"][0]
    claim["projected_consortium"], claim["limit"] = 7.654, 8.125
    row = re.compile(
        r"whole consortium</th><td [^>]+><data [^>]+>[^<]+</data></td>"
        r"<td [^>]+>(?:<data [^>]+>)?(.*?)<"
    )
    for page in both(report, {}):
        assert "others come on top" not in page
        assert "rely on each client's limit in the plan" in page
    found = row.search(both(report, {})[0])
    assert found is not None
    assert found[1] == "8.125"
    report["overlap"] = "overlapping"
    for page in both(report, {}):
        assert "budgets cost 7.654, and others come on top" in page
    found = row.search(both(report, {})[0])
    assert found is not None
    assert found[1] == ""


def test_a_large_delta_is_pointed_out(report: dict[str, Any]) -> None:
    warning = "a mechanism may expose that many records outright"
    assert max(p.get("nominal_records", 0) for p in report["parties"]) == 400
    for delta, said in ((1e-5, False), (2e-4, False), (1e-3, True)):
        report["claims"][0]["delta"] = delta
        for page in both(report, {}):
            assert (warning in page) is said
            assert ("delta 0.001 times 400 records is 0.4:" in page) is said


def test_html_runs_and_loads_nothing(report: dict[str, Any]) -> None:
    html = render_html(report, METRICS)
    for word in ("<script", "http", "javascript:", "@import", "src=", "<link", "<form"):
        assert word not in html.lower()
    assert not re.search(r"\son\w+=", html)
    assert not re.search(r"url\((?!#)", html)


class Outline(HTMLParser):
    """Headings, tables and pictures, as a screen reader meets them."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.tables = 0
        self.captions = 0
        self.labels: list[str] = []
        self.ids: list[str] = []
        self.language = ""
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        found = dict(attrs)
        if tag not in ("meta", "path", "use", "br"):
            self.open.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        self.tables += tag == "table"
        self.captions += tag == "caption"
        if tag == "html":
            self.language = found.get("lang") or ""
        if tag == "svg":
            assert found["role"] == "img"
            self.labels.append(found["aria-label"] or "")
        if found.get("id"):
            self.ids.append(str(found["id"]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if dict(attrs).get("id"):
            self.ids.append(str(dict(attrs)["id"]))

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("meta", "path", "use", "br"):
            assert self.open.pop() == tag


def test_html_is_accessible(report: dict[str, Any]) -> None:
    outline = Outline()
    html = render_html(report, MEASURED)
    outline.feed(html)
    assert outline.open == []
    assert outline.language == "en"
    assert outline.levels[0] == 1
    assert outline.levels.count(1) == 1
    for before, after in zip(outline.levels, outline.levels[1:], strict=False):
        assert after <= before + 1
    assert outline.tables == outline.captions > 10
    # Profile, trade-off, who took part, epsilon and accuracy over rounds, costs.
    assert len(outline.labels) == 6
    assert all(len(label) > 20 for label in outline.labels)
    assert len(set(outline.ids)) == len(outline.ids)


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [
        p / 12.92 if p <= 0.03928 else ((p + 0.055) / 1.055) ** 2.4 for p in parts
    ]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_text_has_contrast(report: dict[str, Any]) -> None:
    html = render_html(report, METRICS)
    style = html[html.index("<style>") : html.index("</style>")]
    colours = set(re.findall(r"[^-]color: (#[0-9a-f]{6})", style))
    assert len(colours) >= 2
    for colour in colours:
        assert 1.05 / (luminance(colour) + 0.05) >= 4.5


def test_text_is_narrow_and_plain(report: dict[str, Any]) -> None:
    plain = render_text(report, METRICS)
    assert max(map(len, plain.splitlines())) <= 80
    assert all(c.isprintable() or c == "\n" for c in plain)
    assert plain.endswith("\n")


def test_hostile_names(report: dict[str, Any]) -> None:
    nasty = "_<script>alert(1)</script>\x1b[2J$\\frac$" + "x" * 120
    report["plan"]["name"] = nasty
    report["failures"][0]["reason"] = nasty
    report["claims"][0]["clients"]["bank-a"]["reasons"] = [nasty, "{0} {delta}"]
    metrics = {
        "baselines": {nasty: {nasty: 0.5}},
        "history": [{"round": i, nasty: 0.1 * i} for i in range(3)],
    }
    html, plain = render_html(report, metrics), render_text(report, metrics)
    assert "<script" not in html
    assert "&lt;script&gt;" in html
    assert "\x1b" not in plain
    assert max(map(len, plain.splitlines())) <= 80


@pytest.mark.parametrize(
    "metrics",
    [
        {},
        {"history": []},
        {"history": None, "final": None, "baselines": None},
        {"history": [3, "x", {"accuracy": 0.5}], "final": {"loss": float("nan")}},
        {"final": {"auc": True}},
    ],
)
def test_no_scores(report: dict[str, Any], metrics: dict[str, Any]) -> None:
    assert "No scores were recorded." in render_html(report, metrics)
    assert "No scores were recorded." in render_text(report, metrics)


def test_scores_are_shown_as_not_covered(report: dict[str, Any]) -> None:
    for page in (render_html(report, METRICS), render_text(report, METRICS)):
        assert "not covered by the claims" in " ".join(page.split())
        for value in ("0.8125", "one bank alone", "0.9", "AUC"):
            assert value in page


def test_exact_scores_are_for_those_who_may_see_them(report: dict[str, Any]) -> None:
    whom = "give the folder only to those who may see them"
    compared = "Every model compared with is a further release"
    alone = {key: METRICS[key] for key in ("history", "final")}
    for metrics, told in ((METRICS, True), (alone, False)):
        for page in both(report, metrics):
            assert whom in page
            assert (compared in page) is told
            assert ("of those compared with it" in page) is told
    for page in both(report, {}):
        assert whom not in page


def test_stamps(report: dict[str, Any]) -> None:
    for flags in ((True, True), (True, False), (False, True), (False, False)):
        report["simulation"], report["insecure"] = flags
        for page in (render_html(report, {}), render_text(report, {})):
            assert ("SIMULATION" in page) == flags[0]
            assert ("INSECURE" in page) == flags[1]
    assert "NO PRIVACY GUARANTEE" not in render_text(report, {})
    whole = report["claims"][0]["consortium"]
    whole["epsilon"], whole["reasons"] = "infinity", ["a baseline"]
    for page in (render_html(report, {}), render_text(report, {})):
        assert "NO PRIVACY GUARANTEE" in page
        assert "a baseline" in page


def test_nothing_is_claimed_against_anybody(report: dict[str, Any]) -> None:
    claim = report["claims"][0]
    told = "it holds even if"
    budgeted = report["plan"]["rounds"] + report["plan"]["spare"]
    for page in both(report, {}):
        assert "Nobody: see the warning above." in page  # the run was seeded
        assert told not in page
    claim["evidence"], report["insecure"] = "proved", False
    for page in both(report, {}):
        assert told in page
        assert f"The plan budgets {budgeted} releases" in page
    claim["evidence"], claim["consortium"]["epsilon"] = "none", "infinity"
    for page in both(report, {}):
        assert told not in page
        assert "The plan budgets" not in page


def test_infinite_curves_are_not_drawn(report: dict[str, Any]) -> None:
    for line in report["epsilon_over_rounds"].values():
        for point in line:
            point["epsilon"] = "infinity"
    html = render_html(report, {})
    assert "epsilon at delta" not in html
    assert text("over.infinite", language="en", values={}) in html


def test_skipped_rounds_are_listed(report: dict[str, Any]) -> None:
    report["skipped_rounds"] = [2]
    assert "skipped: no attempt succeeded" in render_text(report, {})


def test_equal_input_gives_equal_bytes(report: dict[str, Any]) -> None:
    other = copy.deepcopy(report)
    assert render_html(report, METRICS) == render_html(other, METRICS)


def test_a_figure_knows_its_place(report: dict[str, Any]) -> None:
    report["claims"][0]["clients"]["a/b~c"] = {"epsilon": 0.123456}
    figure = at(report, "claims", 0, "clients", "a/b~c", "epsilon")
    assert (figure, figure.source) == ("0.1235", "/claims/0/clients/a~1b~0c/epsilon")


def test_every_figure_is_where_it_says(report: dict[str, Any]) -> None:
    html = render_html(report, METRICS)
    places = dict(re.findall(r'<data value="([^"]+)">([^<]+)</data>', html))
    claim = [place for place in places if place.startswith("/claims/0/")]
    assert len(claim) > 80
    for place, shown in places.items():
        pointer = html_.unescape(place)
        assert shows(shown, pointer, looked_up(report, pointer)), place


def test_what_went_wrong_is_listed(report: dict[str, Any]) -> None:
    for page in both(report, {}):
        assert "a release was charged that is in no opened sum" in page
        assert "an attempt failed; charged where it had begun" in page
    report["exceptions"], report["failures"] = [], []
    for page in both(report, {}):
        assert "Nothing: no attempt failed" in page
    report["exceptions"] = [
        {"kind": "unprotected-release", "round": None, "client": None},
        {"kind": "skipped-round", "round": 1, "client": None},
    ]
    for page in both(report, {}):
        assert "a release without protection was charged" in page
        assert "the round was skipped" in page


def test_many_names_are_counted(report: dict[str, Any]) -> None:
    names = [f"bank-{i:03d}" for i in range(100)]
    report["rounds"][0] |= {"survivors": names[:97], "left_out": names[97:]}
    for page in both(report, {}):
        assert "97 of 100" in page
        assert "bank-097, bank-098, bank-099" in page


@pytest.mark.parametrize(
    ("costs", "rows"),
    [
        (None, 0),
        ({"steps": None}, 0),
        ({"steps": [3, {}, {"step": 4}, {"step": "keys"}]}, 1),
        ({"steps": [{"step": "<b>", "seconds": float("nan"), "messages": "x"}]}, 1),
    ],
)
def test_odd_costs(report: dict[str, Any], costs: Any, rows: int) -> None:
    html = render_html(report, {"costs": costs})
    assert "<b>" not in html
    assert ("No costs were recorded." in html) is (rows == 0)


def test_costs(report: dict[str, Any]) -> None:
    for page in both(report, MEASURED):
        assert "consistency" in page
        assert "1048576" in page
        assert "The run was resumed" not in page
    spoken = " ".join(render_text(report, MEASURED).split())
    assert "keys: 1048576, 65536, 1.375;" in spoken
    resumed = MEASURED["costs"] | {"resumed": True}
    for page in both(report, {"costs": resumed}):
        assert "The run was resumed" in page


@pytest.mark.parametrize("limit", [8, 20, 80])
def test_wide_letters(limit: int) -> None:
    comma, stop = "\uff0c\u3002"
    sentence = (
        f"聚合方只能打开 4 个客户端更新的和{comma}除此之外什么也打不开{stop}"
        "A verylongwordindeed."
    )
    lines = wrapped(sentence, limit, first="- ", then="  ")
    assert max(map(width, lines)) <= limit
    assert "".join("".join(lines).split()) == "-" + "".join(sentence.split())
    assert all(line.strip()[:1] not in (comma, stop) for line in lines)


def test_languages(report: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="xx"):
        render_html(report, {}, language="xx")
    with pytest.raises(UsageError, match="xx"):
        render_text(report, {}, language="xx")


def test_no_sentence_is_left_over(report: dict[str, Any]) -> None:
    """Every id that report.json uses has a sentence."""
    claim = report["claims"][0]
    ids = [f"assumption.{row['id']}" for row in claim["relies_on"]]
    ids += [f"not_claimed.{i}" for i in report["not_claimed"]]
    ids += [f"not_protected.{i}" for i in report["not_protected"]]
    ids += [f"answer.{row['id']}" for row in report["accounting"]["known_answers"]]
    ids += [f"model.{kind}" for kind in ("mlp", "custom")]
    assert set(ids) <= set(ENGLISH)
