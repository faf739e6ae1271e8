# SPDX-License-Identifier: Apache-2.0
"""Which of several sentences a report needs: by its mode, and by its unit.

The ids of sentences end in ``.distributed`` or ``.client`` where the plain id says what
holds in local mode, or of records.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .cells import Say, number

__all__ = [
    "adjacency",
    "assumption",
    "by_mode",
    "by_unit",
    "distributed",
    "mechanism",
    "parties",
]


def distributed(report: Mapping[str, Any]) -> bool:
    """Whether clients added shares of noise to a sum."""
    return bool(report["mechanism"]["mode"] == "distributed")


def by_mode(report: Mapping[str, Any], key: str) -> str:
    """The id of what is said in the report's mode."""
    return f"{key}.distributed" if distributed(report) else key


def by_unit(report: Mapping[str, Any], key: str) -> str:
    """The id of what is said of the report's unit."""
    return f"{key}.client" if report["privacy_unit"]["kind"] == "client" else key


def adjacency(report: Mapping[str, Any], say: Say) -> str:
    """How two neighbours differ, in words."""
    return say(by_unit(report, f"adjacency.{report['adjacency']}"))


def assumption(report: Mapping[str, Any], name: str, say: Say) -> str:
    """What a claim relies on, with the plan's numbers of clients."""
    return say(f"assumption.{name}", **parties(report))


def mechanism(report: Mapping[str, Any], say: Say) -> str:
    """How a release is made, in a sentence or two."""
    m = report["mechanism"]
    if not distributed(report):
        return say(
            "mechanism.line",
            clip=number(m["clip_norm"]),
            sigma=number(m["sigma_abs"]),
            noise=number(m["noise_multiplier"]),
        )
    return say(
        f"mechanism.line.{m['type']}",
        clip=number(m["clip_norm"]),
        step=number(m["precision"]["step"]),
        noise=say(f"mechanism.{m['sum']['noise']}"),
        share=number(m["sum"]["share_deviation"]),
        shares=str(m["sum"]["shares"]),
        sigma=number(m["sigma_abs"]),
        multiplier=number(m["noise_multiplier"]),
    )


def parties(report: Mapping[str, Any]) -> dict[str, str]:
    """The plan's numbers of clients, by the names that sentences have for them."""
    model = report["threat_model"]
    numbers = {
        "clients": len(report["ledgers"]),
        "colluding": model["max_colluding"],
        "threshold": model["threshold"],
        "min_clients": model["min_clients"],
        "shares": model["min_clients"] - model["max_colluding"],
    }
    return {name: str(number) for name, number in numbers.items()}
