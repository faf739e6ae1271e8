# SPDX-License-Identifier: Apache-2.0
"""The report as a page: sections of blocks, the same for HTML and text.

What is said, and in which order, is decided here once; ``render.py`` only draws it.
Every figure is shown with at most 4 of the 6 significant digits in report.json, and
whole numbers as they are; what belongs to a claim is rounded up.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .accounts import accounting_section, composition_section
from .blocks import Page, Section
from .claims import claims_section, stamps
from .closing import (
    checking_section,
    costs_section,
    evidence_section,
    exceptions_section,
    not_claimed_section,
    utility_section,
)
from .meaning import meaning_section
from .method import (
    mechanism_section,
    numerics_section,
    randomness_section,
    sampling_section,
    subject_section,
    unit_section,
)
from .people import parties_section, threat_section
from .strings import text
from .wording import by_unit

__all__ = ["make_page"]


def make_page(
    report: Mapping[str, Any], metrics: Mapping[str, Any], *, language: str
) -> Page:
    """Arrange ``report`` (made by ``build_report``) and ``metrics`` for a reader."""

    def say(key: str, /, **values: str) -> str:
        return text(key, language=language, values=values)

    sections = [
        claims_section(report, say),
        meaning_section(report, say),
        not_claimed_section(report, say),
        subject_section(report, say),
        unit_section(report, say),
        parties_section(report, say),
        threat_section(report, say),
        mechanism_section(report, say),
        sampling_section(report, say),
        composition_section(report, say),
        accounting_section(report, say),
        randomness_section(report, say),
        numerics_section(report, say),
        evidence_section(report, say),
        exceptions_section(report, say),
        utility_section(metrics, say),
        costs_section(metrics, say),
        checking_section(report, say),
    ]
    return Page(
        say("title", plan=report["plan"]["name"]),
        say(by_unit(report, "subtitle")),
        stamps(report, say),
        [
            Section(f"{i}. {section.heading}", section.blocks)
            for i, section in enumerate(sections, 1)
        ],
    )
