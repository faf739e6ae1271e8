# SPDX-License-Identifier: Apache-2.0
"""Who took part when, who sees what, and who is trusted with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

from .blocks import Block, GridChart, Section
from .cells import Say, at
from .wording import by_mode, parties

__all__ = ["parties_section", "threat_section"]

# More names than these are counted: the picture and report.json name all.
_NAMED: Final = 6


def parties_section(report: Mapping[str, Any], say: Say) -> Section:
    """The parties of the plan and every round, as a picture and as a table."""
    members = [p for p in report["parties"] if p["role"] == "client"]
    blocks = [
        Block(
            "table",
            say(by_mode(report, "parties.caption")),
            head=[
                say("parties.name"),
                say("parties.records"),
                say("parties.weight"),
                say(by_mode(report, "parties.normaliser")),
            ],
            rows=[
                [
                    p["name"],
                    str(p["nominal_records"]),
                    str(p["weight"]),
                    at(report, "mechanism", "normaliser", p["name"]),
                ]
                for p in members
            ],
        ),
        *_participation(report, say),
        _rounds(report, say),
        _keys(report, say),
    ]
    return Section(say("parties.heading"), blocks)


def _keys(report: Mapping[str, Any], say: Say) -> Block:
    rows = [
        [p["name"] if "name" in p else say(f"who.{p['role']}"), p["public_key"]]
        for p in report["parties"]
    ]
    return Block("facts", say("parties.key"), rows=rows)


def _some(names: Sequence[str], of: int, say: Say) -> str:
    if len(names) <= _NAMED:
        return ", ".join(names) or say("rounds.none")
    return say("rounds.some", count=str(len(names)), of=str(of))


def _rounds(report: Mapping[str, Any], say: Say) -> Block:
    rows = {}
    for r in report["rounds"]:
        everybody = len(r["survivors"]) + len(r["left_out"])
        rows[r["round"]] = [
            str(r["round"]),
            str(r["attempt"]),
            _some(r["survivors"], everybody, say),
            _some(r["left_out"], everybody, say),
        ]
    for skipped in report["skipped_rounds"]:
        rows[skipped] = [str(skipped), "", say("rounds.skipped"), ""]
    keys = ("round", "attempt", "survivors", "out")
    return Block(
        "table",
        say("rounds.caption"),
        head=[say(f"rounds.{key}") for key in keys],
        rows=[rows[key] for key in sorted(rows)],
        numeric=False,
    )


def _participation(report: Mapping[str, Any], say: Say) -> list[Block]:
    names = list(report["ledgers"])
    inside = {r["round"]: set(r["survivors"]) for r in report["rounds"]}
    columns = sorted({*inside, *report["skipped_rounds"]})
    if not columns:
        return []

    def cell(name: str, column: int) -> str:
        if column not in inside:
            return "/"
        return "+" if name in inside[column] else "-"

    sums = ", ".join(f"{number}: {len(inside[number])}" for number in sorted(inside))
    alternative = say("grid.alt", clients=str(len(names)), sums=sums)
    chart = GridChart(
        names,
        columns,
        ["".join(cell(name, column) for column in columns) for name in names],
        say("over.axis.x"),
        (say("grid.in"), say("grid.out"), say("grid.skipped")),
    )
    return [Block("picture", say("grid.caption"), lines=[alternative], chart=chart)]


def threat_section(report: Mapping[str, Any], say: Say) -> Section:
    """The protection in words, and who sees what of the run."""
    model, values = report["threat_model"], parties(report)
    encryption = model.get("encryption")
    if encryption is None:
        lines = [say(by_mode(report, f"threat.{model['protection']}"), **values)]
    else:
        lines = [
            say(f"threat.ckks.{encryption['keys']}", **values),
            say(by_mode(report, "threat.ckks.claim")),
            say(
                "threat.ckks.ring",
                degree=str(encryption["ring_degree"]),
                modulus=str(encryption["modulus_bits"]),
                security=str(encryption["security_bits"]),
                values=str(encryption["values_per_coefficient"]),
                ciphertexts=str(encryption["ciphertexts_per_update"]),
            ),
        ]
    table = Block(
        "table",
        say("sees.caption"),
        head=[say("sees.who"), say("sees.what")],
        rows=[
            [say(f"who.{row['who']}"), say(f"sees.{row['sees']}")]
            for row in model["adversaries"]
        ],
        numeric=False,
    )
    return Section(
        say("threat.heading"), [*(Block("paragraph", line) for line in lines), table]
    )
