# SPDX-License-Identifier: Apache-2.0
"""Reports and metrics to draw pages of: measured costs, and a hundred clients."""

from __future__ import annotations

import copy
import json
from decimal import Decimal
from typing import Any

from .support import METRICS, Made

_STEPS = ("training", "keys", "shares", "vectors", "consistency", "unmask")

MEASURED: dict[str, Any] = METRICS | {
    "costs": {
        "steps": [
            {
                "step": step,
                "messages": 8 * i,
                "bytes_up": 1_048_576 * i,
                "bytes_down": 65_536 * i,
                "seconds": 0.375 + i,
            }
            for i, step in enumerate(_STEPS)
        ]
    }
}


def looked_up(report: Any, pointer: str) -> Any:
    """The value of the report at a JSON pointer (RFC 6901)."""
    value = report
    for key in pointer.removeprefix("/").split("/"):
        name = key.replace("~1", "/").replace("~0", "~")
        value = value[int(name)] if isinstance(value, list) else value[name]
    return value


def shows(text: str, pointer: str, value: float | str) -> bool:
    """Whether a page may show ``text`` for the value at ``pointer``.

    Bounds are never less than their value, and within its fourth digit; other figures
    are the nearest of four digits, and whole numbers themselves.
    """
    if isinstance(value, str):
        return (text, value) == ("∞", "infinity")
    if value == int(value):
        return text == str(int(value))
    exact = Decimal(repr(value))
    over, digit = Decimal(text) - exact, Decimal(1).scaleb(exact.adjusted() - 3)
    if pointer.startswith(("/claims/", "/epsilon_over_rounds/")):
        return 0 <= over < digit
    return abs(over) <= digit / 2


def report_of(made: Made) -> dict[str, Any]:
    """A copy of the run's report that a test may change."""
    report: dict[str, Any] = json.loads(made.files["report.json"])
    return report


def with_many_clients(made: Made) -> dict[str, Any]:
    """The run's report as if a hundred clients had taken part in forty rounds."""
    report = report_of(made)
    names = [f"hospital-{i:03d}" for i in range(100)]
    claim, one = report["claims"][0], report["parties"][0]
    some = list(claim["clients"].values())
    claim["clients"] = {
        name: copy.deepcopy(some[i % len(some)]) for i, name in enumerate(names)
    }
    others = [party for party in report["parties"] if party["role"] != "client"]
    report["parties"] = [one | {"name": name} for name in names] + others
    report["mechanism"]["normaliser"] = dict.fromkeys(names, 400.0)
    for field in ("releases", "ledgers"):
        report[field] = dict.fromkeys(names, report[field][one["name"]])
    rounds = [i for i in range(40) if i != 17]
    report["rounds"] = [
        report["rounds"][0]
        | {
            "round": i,
            "survivors": [n for k, n in enumerate(names) if (k + i) % 9 or i % 4],
            "left_out": [n for k, n in enumerate(names) if not ((k + i) % 9 or i % 4)],
        }
        for i in rounds
    ]
    report["skipped_rounds"] = [17]
    report["epsilon_over_rounds"] = {
        name: [{"round": i, "epsilon": (i + 1) / (20 + k)} for i in rounds]
        for k, name in enumerate(names)
    }
    return report
