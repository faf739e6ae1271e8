# SPDX-License-Identifier: Apache-2.0
"""The epsilon report of a finished run: build it, draw it, verify it offline.

Imports no matplotlib, jinja2 or dp-accounting until one of them is needed.
"""

from __future__ import annotations

from .build import Report, build_report, to_json
from .render import render_html, render_text, require_pages
from .tool import tool_text
from .verify import Verified, verify_run

__all__ = [
    "Report",
    "Verified",
    "build_report",
    "render_html",
    "render_text",
    "require_pages",
    "to_json",
    "tool_text",
    "verify_run",
]
