# SPDX-License-Identifier: Apache-2.0
"""The end of the page: evidence, exceptions, utility, costs, and how to check it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .blocks import BarChart, Block, LineChart, Section
from .cells import Say, number, word
from .utility import cost_rows, score_lines, score_rows

__all__ = [
    "checking_section",
    "costs_section",
    "evidence_section",
    "exceptions_section",
    "not_claimed_section",
    "utility_section",
]


def not_claimed_section(report: Mapping[str, Any], say: Say) -> Section:
    """What a reader might take for claimed, and any danger no claim names."""
    lines = [say(f"not_claimed.{i}") for i in report["not_claimed"]]
    named = {i for claim in report["claims"] for i in claim["not_protected"]}
    rest = [i for i in report["not_protected"] if i not in named]
    lines += [say(f"not_protected.{i}") for i in rest]
    return Section(say("not_claimed.heading"), [Block("list", lines=lines)])


def evidence_section(report: Mapping[str, Any], say: Say) -> Section:
    """What was attached about the implementation: tests of it, and attacks on it."""
    kinds = ("conformance", "mutation", "audit")
    lines = [
        say("evidence.attached" if report[kind] else "evidence.absent", kind=say(kind))
        for kind in kinds
    ]
    return Section(
        say("evidence.heading"),
        [Block("list", lines=lines), Block("paragraph", say("evidence.low"))],
    )


def exceptions_section(report: Mapping[str, Any], say: Say) -> Section:
    """What did not go as planned, and the reasons that the log gives."""
    blocks = []
    if report["exceptions"]:
        blocks.append(
            Block(
                "table",
                say("exceptions.caption"),
                head=[
                    say("rounds.round"),
                    say("exceptions.kind"),
                    say("claim.client"),
                ],
                rows=[
                    [
                        "" if row["round"] is None else str(row["round"]),
                        say(f"exception.{row['kind']}"),
                        row["client"] or say("failures.nobody"),
                    ]
                    for row in report["exceptions"]
                ],
                numeric=False,
            )
        )
    else:
        blocks.append(Block("paragraph", say("exceptions.none")))
    if report["failures"]:
        keys = ("rounds.round", "rounds.attempt", "failures.culprit", "failures.reason")
        blocks.append(
            Block(
                "table",
                say("failures.caption"),
                head=[say(key) for key in keys],
                rows=[
                    [
                        str(f["round"]),
                        str(f["attempt"]),
                        f["culprit"] or say("failures.nobody"),
                        f["reason"],
                    ]
                    for f in report["failures"]
                ],
                numeric=False,
            )
        )
    return Section(say("exceptions.heading"), blocks)


def utility_section(metrics: Mapping[str, Any], say: Say) -> Section:
    """Scores, which no claim covers."""
    head, rows = score_rows(metrics, final=say("utility.final"))
    lines = score_lines(metrics)
    if not rows and not lines:
        none = Block("paragraph", say("utility.none"))
        return Section(say("utility.heading"), [none])
    compared = len(rows) > 1
    keys = ("scope", "baselines", "whom") if compared else ("scope", "whom")
    blocks = [Block("paragraph", say(f"utility.{key}")) for key in keys]
    for key, line in lines.items():
        first, last = (f"{line[i][1]:.4g}" for i in (0, -1))
        name = word(say, "score", key)
        blocks.append(
            Block(
                "picture",
                name,
                lines=[say("utility.history.alt", name=name, first=first, last=last)],
                chart=LineChart({name: line}, say("over.axis.x"), name, whole_x=True),
            )
        )
    if rows:
        blocks.append(
            Block(
                "table",
                say("utility.caption.compared" if compared else "utility.caption"),
                head=[say("utility.model"), *(word(say, "score", key) for key in head)],
                rows=[[word(say, "baseline", name), *cells] for name, *cells in rows],
            )
        )
    return Section(say("utility.heading"), blocks)


def costs_section(metrics: Mapping[str, Any], say: Say) -> Section:
    """Bytes and seconds per step, as the engine measured them."""
    rows, resumed = cost_rows(metrics)
    if not rows:
        return Section(say("costs.heading"), [Block("paragraph", say("costs.none"))])
    names = [word(say, "step", row.step) for row in rows]
    spoken = "; ".join(
        f"{name}: {number(row.up)}, {number(row.down)}, {number(row.seconds)}"
        for name, row in zip(names, rows, strict=True)
    )
    chart = BarChart(
        names,
        {
            say("costs.megabytes"): {
                say("costs.up"): [row.up / 1e6 for row in rows],
                say("costs.down"): [row.down / 1e6 for row in rows],
            },
            say("costs.seconds"): {say("costs.seconds"): [row.seconds for row in rows]},
        },
    )
    keys = ("step", "messages", "bytes_up", "bytes_down", "seconds")
    blocks = [
        Block("paragraph", say("costs.scope")),
        *([Block("paragraph", say("costs.resumed"))] if resumed else []),
        Block(
            "picture",
            say("costs.picture"),
            lines=[say("costs.alt", values=spoken)],
            chart=chart,
        ),
        Block(
            "table",
            say("costs.caption"),
            head=[say(f"costs.{key}") for key in keys],
            rows=[
                [
                    name,
                    f"{row.messages:.0f}",
                    f"{row.up:.0f}",
                    f"{row.down:.0f}",
                    number(row.seconds),
                ]
                for name, row in zip(names, rows, strict=True)
            ],
        ),
    ]
    return Section(say("costs.heading"), blocks)


def checking_section(report: Mapping[str, Any], say: Say) -> Section:
    """How to check the report, and the hashes to compare."""
    plan, subject = report["plan"], report["subject"]
    facts = [
        [say("verify.plan"), plan["hash"]],
        [say("verify.run"), plan["run_id"]],
        [say("verify.report"), report["report_id"]],
        [say("verify.model"), subject["model_hash"]],
        [say("verify.head"), report["transcript_head"]],
    ]
    more = [
        [say("verify.start"), subject["start_hash"]],
        [say("verify.schema"), report["schema_version"]],
    ]
    return Section(
        say("verify.heading"),
        [
            Block("paragraph", say("verify.how")),
            Block("paragraph", say("verify.compare")),
            Block("facts", say("verify.caption"), rows=facts),
            Block("facts", say("verify.more"), rows=more),
        ],
    )
