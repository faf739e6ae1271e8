# SPDX-License-Identifier: Apache-2.0
"""The report in headless Chromium: it fits, it is accessible, and it says the truth."""

from __future__ import annotations

from typing import Any

import pytest

from secure_fl.report.cells import bound
from secure_fl.report.strings import LANGUAGES

from ..report.pages import looked_up, shows
from .conftest import AXE, Reports, Seen

NAMES = ("finite", "infinite", "ckks", "many")

pytestmark = [
    pytest.mark.parametrize("name", NAMES),
    pytest.mark.parametrize("language", sorted(LANGUAGES)),
]


@pytest.fixture
def page(seen: Seen, name: str, language: str) -> dict[str, Any]:
    return seen[name, language]


def test_nothing_sticks_out(page: dict[str, Any]) -> None:
    """On a phone, on a screen and on A4 paper, no page is wider than its window."""
    assert {k: v["window"] for k, v in page["widths"].items()} == {
        "375": 375,
        "1440": 1440,
        "print": 687,
    }
    for width, found in page["widths"].items():
        assert found["page"] <= found["window"], width


def test_axe_finds_nothing_serious(
    page: dict[str, Any], name: str, language: str
) -> None:
    assert [found["width"] for found in page["axe"]] == AXE.get((name, language), [])
    for found in page["axe"]:
        assert found["rules"] > 20
        grave = [
            v for v in found["violations"] if v["impact"] in ("serious", "critical")
        ]
        assert grave == []


def test_it_loads_and_runs_nothing(page: dict[str, Any]) -> None:
    assert page["errors"] == []
    # Opened twice, and not one request but for the file itself.
    assert len(page["requests"]) == 2
    assert all(url.startswith("file:///") for url in page["requests"])
    assert page["same"]  # with scripts and without
    assert len(page["text"]) > 3000


def test_every_letter_has_a_font(page: dict[str, Any], language: str) -> None:
    glyphs = page["glyphs"]
    assert glyphs["control"]  # a letter of no font is told from others
    assert glyphs["characters"] > (300 if language == "zh" else 60)
    assert glyphs["missing"] == []


def leaves(value: Any, place: str = "") -> dict[str, Any]:
    """Every number of a claim, and every infinite one, by its place."""
    if isinstance(value, dict):
        items = list(value.items())
    elif isinstance(value, list):
        items = [(str(i), item) for i, item in enumerate(value)]
    else:
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        return {place: value} if is_number or value == "infinity" else {}
    out: dict[str, Any] = {}
    for key, item in items:
        out |= leaves(item, f"{place}/{key}")
    return out


def test_the_figures_are_those_of_the_json(
    page: dict[str, Any], reports: Reports, name: str
) -> None:
    report = reports[name]
    assert page["untraced"] == []
    shown = dict(page["figures"])
    for place, text in page["figures"]:
        assert shows(text, place, looked_up(report, place)), place
    claim = report["claims"][0]
    for tail, value in leaves(claim["consortium"]).items():
        # Clients with the same figures share a row, under the first one's places.
        assert bound(value) in {shown[p] for p in shown if p.endswith(tail)}, tail
    for client, row in claim["clients"].items():
        for field in ("epsilon", "epsilon_rdp", "epsilon_this_run"):
            place = f"/claims/0/clients/{client}/{field}"
            assert shown[place] == bound(row[field])


def test_pictures_are_drawn(page: dict[str, Any], name: str) -> None:
    """Epsilon over rounds and its profile need a finite epsilon somewhere."""
    assert len(page["pictures"]) >= 5
    for width, height in page["pictures"]:
        assert 300 < width <= 1000
        assert 60 < height < 1500
