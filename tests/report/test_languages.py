# SPDX-License-Identifier: Apache-2.0
"""Every language says everything, with the same numbers."""

from __future__ import annotations

import json
import re
import string
from collections.abc import Mapping
from typing import Any

import pytest

from secure_fl.report import render_html, render_text
from secure_fl.report.columns import width
from secure_fl.report.english import ENGLISH
from secure_fl.report.strings import LANGUAGES, TAGS

from .pages import MEASURED
from .support import Made

CHINESE = re.compile("[\u3400-\u9fff]")
# Words that are the same in every language.
SAME = {"claim.epsilon", "claim.delta", "score.auc"}


@pytest.fixture
def report(made: Made) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(made.files["report.json"])
    return data


def braces(sentence: str) -> list[str]:
    return sorted(
        name for _, name, _, _ in string.Formatter().parse(sentence) if name is not None
    )


@pytest.mark.parametrize("language", sorted(LANGUAGES))
def test_every_table_has_every_sentence(language: str) -> None:
    table: Mapping[str, str] = LANGUAGES[language]
    assert list(table) == list(ENGLISH)
    for key, sentence in table.items():
        assert braces(sentence) == braces(ENGLISH[key]), key
        assert sentence == sentence.strip() != ""


def test_chinese_is_chinese() -> None:
    for key, sentence in LANGUAGES["zh"].items():
        assert CHINESE.search(sentence) or key in SAME, key
        # Between Chinese characters stand Chinese marks.
        assert not re.search("[\u4e00-\u9fff][,;:?!]", sentence), key


def test_names_of_the_program_are_words(report: dict[str, Any]) -> None:
    scores = {"accuracy": 0.5, "auc": 0.25}
    baselines = {"one_member_alone": scores, "pooled_non_private": scores}
    metrics = {"final": scores, "baselines": baselines}
    for kind in ("mlp", "custom"):
        report["subject"]["kind"] = kind
        for language, table in LANGUAGES.items():
            page = render_html(report, metrics, language=language)
            for key in (f"model.{kind}", *(f"baseline.{name}" for name in baselines)):
                assert table[key] in page
            for row in report["accounting"]["known_answers"]:
                assert table[f"answer.{row['id']}"] in page
                assert row["id"] not in page
            for name in baselines:
                assert name not in page
            assert ("accuracy" in page) is (language == "en")


def figures(page: str) -> list[tuple[str, str]]:
    return re.findall(r'<data value="([^"]+)">([^<]+)</data>', page)


def test_the_numbers_are_the_same(report: dict[str, Any]) -> None:
    pages = {name: render_html(report, MEASURED, language=name) for name in LANGUAGES}
    assert len(figures(pages["en"])) > 100
    for page in pages.values():
        assert figures(page) == figures(pages["en"])
        for hash_ in (report["plan"]["hash"], report["transcript_head"]):
            assert hash_ in page


def test_a_page_says_its_language(report: dict[str, Any]) -> None:
    assert set(TAGS) == set(LANGUAGES)
    for name, tag in TAGS.items():
        page = render_html(report, MEASURED, language=name)
        assert f'<html lang="{tag}">' in page


def test_chinese_pictures_have_chinese_labels(report: dict[str, Any]) -> None:
    page = render_html(report, MEASURED, language="zh")
    labels = re.findall(r"<text [^>]*>([^<]+)</text>", page)
    for label in ("轮次", "计划中的上限", "误报率", "随机猜测", "在总和中", "秒"):
        assert label in labels


def test_chinese_text_fits_a_terminal(report: dict[str, Any]) -> None:
    plain = render_text(report, MEASURED, language="zh")
    assert max(map(width, plain.splitlines())) <= 80
    assert report["claims"][0]["limit"] == 8.0
    assert "1. 声明的内容\n-------------\n" in plain


def test_nothing_english_is_left(report: dict[str, Any]) -> None:
    """Whole English sentences would be a sentence that went another way."""
    plain = render_text(report, {}, language="zh")
    for failure in report["failures"]:
        plain = plain.replace(failure["reason"], "")
    assert not re.search(
        "(?:[A-Za-z]{2,} ){3}", plain.replace("secure-fl verify DIR", "")
    )
