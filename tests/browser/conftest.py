# SPDX-License-Identifier: Apache-2.0
"""One browser for all pages: what it saw of each, by name and language."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from secure_fl.report import render_html
from secure_fl.report.strings import LANGUAGES

from ..conformance.conftest import CannotTest, find_node
from ..report.pages import MEASURED, report_of, with_many_clients
from ..report.sealed import Sealed
from ..report.support import Consortium

HERE = Path(__file__).parent
# Where axe looks, which takes longest: at each kind of page, in each language, and at
# both layouts.
AXE = {
    ("finite", "en"): [375, 1440],
    ("finite", "zh"): [375],
    ("infinite", "en"): [375],
    ("ckks", "zh"): [375],
    ("many", "en"): [375],
}
CHROMIUM = ("chromium", "chromium-browser", "google-chrome")

Reports = dict[str, dict[str, Any]]
Seen = dict[tuple[str, str], dict[str, Any]]


def _browser() -> str:
    for name in CHROMIUM:
        found = shutil.which(name)
        if found:
            return found
    raise CannotTest("no Chromium: make browser installs it")


def _packages() -> None:
    if not (HERE / "node_modules" / ".package-lock.json").exists():
        raise CannotTest("no Node.js packages of tests/browser: make browser")


@pytest.fixture(scope="session")
def reports(tmp_path_factory: pytest.TempPathFactory) -> Reports:
    """Runs that end differently, and one page as long as pages get."""
    pytest.importorskip("tenseal", reason="CKKS is an extra")

    def folder() -> Path:
        return tmp_path_factory.mktemp("homes")

    finite = Consortium(folder()).play()
    infinite = Consortium(folder(), kind="plain", unprotected="bank-b").play()
    sealed = Sealed(folder(), keys="keyholder").play()
    return {
        "finite": report_of(finite) | {"insecure": False},
        "infinite": report_of(infinite),
        "ckks": report_of(sealed),
        "many": with_many_clients(finite),
    }


@pytest.fixture(scope="session")
def seen(reports: Reports, tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """What Chromium saw of every report in every language.

    Where it cannot be had the tests skip and say so; with SECURE_FL_BROWSER=1 they
    fail, since a test that never runs shows nothing.
    """
    try:
        node, browser = find_node(), _browser()
        _packages()
    except CannotTest as reason:
        if os.environ.get("SECURE_FL_BROWSER") == "1":
            pytest.fail(str(reason))
        pytest.skip(str(reason))
    folder = tmp_path_factory.mktemp("pages")
    pages = []
    for name, report in reports.items():
        for language in LANGUAGES:
            file = folder / f"{name}-{language}.html"
            file.write_text(render_html(report, MEASURED, language=language))
            axe = AXE.get((name, language), [])
            pages.append({"name": file.stem, "file": str(file), "axe": axe})
    ended = subprocess.run(
        [node, str(HERE / "look.js"), browser],
        input=json.dumps(pages),
        capture_output=True,
        text=True,
        timeout=240,
    )
    assert ended.returncode == 0, ended.stderr[-2000:]
    found = {}
    for page in json.loads(ended.stdout):
        name, _, language = page["name"].partition("-")
        found[name, language] = page
    assert len(found) == len(pages)
    return found
