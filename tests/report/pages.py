# SPDX-License-Identifier: Apache-2.0
"""Reports and metrics to draw pages of: measured costs, and a hundred clients."""

from __future__ import annotations

import copy
import json
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
