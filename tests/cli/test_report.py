# SPDX-License-Identifier: Apache-2.0
"""``secure-fl report``: languages, and the draft for the public registry."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from ..report.pages import shows
from .conftest import Finished
from .support import call


def test_in_chinese(out: Path) -> None:
    page = call("report", "out", "--format", "html", "--lang", "zh")
    assert (page.code, page.err) == (0, "")
    assert '<html lang="zh-Hans">' in page.out
    plain = call("report", "out", "--lang", "zh")
    assert (plain.code, plain.err) == (0, "")
    assert "声明的内容" in plain.out
    assert "What is claimed" not in plain.out


def test_a_run_ends_with_its_epsilon_rounded_up(finished: Finished) -> None:
    path = finished.folder / "out" / "report.json"
    whole = json.loads(path.read_text())["claims"][0]["consortium"]
    found = re.search(r"^epsilon (\S+) at delta 1e-05,", finished.answer.out, re.M)
    assert found is not None
    assert shows(found[1], "/claims/0/consortium/epsilon", whole["epsilon"])
    assert "comparisons" not in finished.answer.out


@pytest.mark.usefixtures("desk")
def test_a_run_says_what_its_comparisons_cost() -> None:
    answer = call("run", "plan.toml", "--out", "out", "--baselines")
    assert answer.code == 0
    told = " ".join(answer.out.split())
    found = re.search(r"would cost its records up to epsilon (\S+) more\.", told)
    assert found is not None
    assert told.count(found[1]) == 5  # together, alone, pooled, both sentences
    assert max(map(len, answer.out.splitlines())) <= 80


def test_in_english(out: Path) -> None:
    named = call("report", "out", "--lang", "en")
    assert (named.code, named.err) == (0, "")
    assert named.out == (out / "report.txt").read_text()


def test_a_draft_for_the_registry(out: Path) -> None:
    draft = call("report", "out", "--format", "registry-yaml")
    assert (draft.code, draft.err) == (0, "")
    claim = json.loads((out / "report.json").read_text())["claims"][0]
    found = re.search(r"^ +epsilon: (.*)$", draft.out, re.MULTILINE)
    assert found is not None
    assert float(found[1]) == claim["consortium"]["epsilon"]


@pytest.mark.usefixtures("out")
@pytest.mark.parametrize("form", ["json", "registry-yaml"])
def test_data_has_no_language(form: str) -> None:
    refused = call("report", "out", "--format", form, "--lang", "en")
    assert (refused.code, refused.out) == (2, "")
    assert f"{form} has no other language" in refused.err


@pytest.mark.usefixtures("out")
def test_a_language_that_is_not_there() -> None:
    refused = call("report", "out", "--lang", "xx")
    assert (refused.code, refused.out) == (2, "")
    assert "'xx' is not one of" in refused.err


def test_nothing_to_register(out: Path) -> None:
    report = json.loads((out / "report.json").read_text())
    report["claims"][0]["consortium"]["epsilon"] = "infinity"
    (out / "report.json").write_text(json.dumps(report))
    refused = call("report", "out", "--format", "registry-yaml")
    assert (refused.code, refused.out) == (2, "")
    assert "no place in the registry" in refused.err


@pytest.mark.parametrize("form", ["html", "registry-yaml"])
def test_a_report_of_another_version(out: Path, form: str) -> None:
    report = json.loads((out / "report.json").read_text())
    report["claims"][0]["relies_on"] = ["trainer"]
    report["tool"] = "secure-fl 0.0.1"
    (out / "report.json").write_text(json.dumps(report))
    refused = call("report", "out", "--format", form)
    assert (refused.code, refused.out) == (1, "")
    assert "report.json: is not a report of this version" in refused.err
