# SPDX-License-Identifier: Apache-2.0
"""The line that names the software of a run, and its parts."""

from __future__ import annotations

import importlib.metadata
import platform
from typing import Any

import pytest

from secure_fl.report.tool import read_tool, tool_text


def test_it_names_what_the_figures_depend_on() -> None:
    numpy = importlib.metadata.version("numpy")
    read = read_tool(tool_text("0.1.0"))
    assert (read["name"], read["version"]) == ("secure-fl", "0.1.0")
    assert read["libraries"]["numpy"] == numpy
    assert list(read["libraries"])[-1] == "python"
    assert read["libraries"]["python"] == platform.python_version()


def test_what_is_not_installed_is_left_out(monkeypatch: pytest.MonkeyPatch) -> None:
    def version(name: str) -> str:
        if name == "dp-accounting":
            raise importlib.metadata.PackageNotFoundError(name)
        return "1.2"

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert list(read_tool(tool_text("0.1.0"))["libraries"]) == ["numpy", "python"]


@pytest.mark.parametrize(
    ("text", "libraries"),
    [
        ("other 1!2.0+local-1 (one 2)", {"one": "2"}),
        ("a 1 (c 2, b 3)", {"c": "2", "b": "3"}),
    ],
)
def test_forms(text: str, libraries: dict[str, str]) -> None:
    read = read_tool(text)
    assert f"{read['name']} {read['version']}" == text.split(" (")[0]
    assert list(read["libraries"].items()) == list(libraries.items())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "secure-fl 0.1.0",
        "secure-fl 0.1.0 ()",
        "secure-fl 0.1.0 (numpy 2, numpy 3)",
        "secure-fl 0.1.0 (numpy 2,python 3)",
        "secure-fl 0.1.0 (numpy 2) ",
        "secure-fl 0.1.0 (numpy 2)\n",
        "secure-fl  0.1.0 (numpy 2)",
        "secure-fl 0.1.0 (<b>numpy</b> 2)",
        "secure-fl 0.1.0 (numpy \uff12)",
    ],
)
def test_any_other_text_is_a_name(text: str) -> None:
    alone: dict[str, Any] = {"name": text, "version": "", "libraries": {}}
    assert read_tool(text) == alone
