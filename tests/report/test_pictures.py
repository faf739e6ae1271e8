# SPDX-License-Identifier: Apache-2.0
"""Charts say everything in text, and hide nothing of what they draw."""

from __future__ import annotations

import re

import pytest

from secure_fl.report.blocks import BarChart, GridChart, LineChart
from secure_fl.report.pictures import draw


def test_lines() -> None:
    lines = {f"bank-{i}": [(0.0, 0.1 * i), (1.0, 0.2 * i)] for i in range(20)}
    lines["twin"] = lines["bank-19"]
    svg = draw(
        LineChart(lines, "round", "epsilon", limit=("most", 3.0)),
        alternative='a "b" <c>',
        identifier="p",
    )
    assert svg.startswith("<svg ")
    assert svg.endswith("</svg>")
    assert "&quot;b&quot; &lt;c&gt;" in svg
    assert "bank-19, twin" in svg
    assert "bank-1<" not in svg  # the lowest of too many are left out
    assert ">epsilon<" in svg  # text stays text
    assert ">most<" in svg
    assert "font-family" not in svg  # the page's own


@pytest.mark.parametrize("heights", [(0.81, 0.812, 0.811), (0.0, 0.0), (-3.0, -1.0)])
def test_no_marker_is_cut_off(heights: tuple[float, ...]) -> None:
    points = [(float(i), height) for i, height in enumerate(heights)]
    svg = draw(LineChart({"auc": points}, "x", "y"), alternative="a", identifier="p")
    box = re.search(r'<clipPath[^>]*>\s*<rect x="([^"]+)" y="([^"]+)" ([^>]+)/>', svg)
    assert box is not None
    size = dict(re.findall(r'(\w+)="([^"]+)"', box[3]))
    top, high = float(box[2]), float(size["height"])
    clipped = svg.split('<g clip-path="')[1].partition("</g>")[0]
    ys = [float(y) for y in re.findall(r'<use [^>]*\by="([^"]+)"', clipped)]
    assert len(ys) == len(heights)
    for y in ys:
        assert top + 2 < y  # the half of a marker of 4 points
        assert y <= top + high


@pytest.mark.filterwarnings("error")
def test_letters_that_matplotlib_cannot_draw() -> None:
    chart = LineChart({"银行": [(0.001, 0.5)]}, "误报率", "检出率", diagonal="随机猜测")
    svg = draw(chart, alternative="图", identifier="p")
    for label in ("银行", "误报率", "检出率", "随机猜测"):
        assert f">{label}<" in svg


def test_who_took_part_of_a_hundred() -> None:
    names = [f"bank-{i:03d}" for i in range(100)]
    cells = ["+-/" if i % 2 else "++/" for i in range(100)]
    keys = ("in the sum", "left out", "skipped")
    chart = GridChart(names, [0, 1, 2], cells, "round", keys)
    svg = draw(chart, alternative="grid", identifier="p")
    for label in (*names, *keys, "round"):
        assert f">{label}<" in svg
    assert chart.tall
    # All cells of a kind are one shape; its corners tell how many there are.
    shapes = [len(re.findall("\nz|z ", d)) for d in re.findall(r' d="([^"]*)"', svg)]
    assert {50, 100, 150} <= set(shapes)


def test_a_thousand_clients_and_rounds() -> None:
    names = [f"bank-{i:04d}" for i in range(1000)]
    cells = ["+" * 500 + "-" + "+" * 499] * 1000
    chart = GridChart(names, list(range(1000)), cells, "round", ("in", "out", "no"))
    svg = draw(chart, alternative="grid", identifier="p")
    assert len(svg) < 500_000  # of a million cells
    assert ">bank-0990<" in svg
    assert ">bank-0991<" not in svg


def test_bars() -> None:
    chart = BarChart(
        ["keys", "vectors"],
        {"MB": {"up": [1.0, 2.0], "down": [0.5, 0.0]}, "s": {"s": [3.0, 4.0]}},
    )
    svg = draw(chart, alternative="bars", identifier="p")
    for label in ("keys", "vectors", "MB", "up", "down", "s"):
        assert f">{label}<" in svg
