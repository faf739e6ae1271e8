# SPDX-License-Identifier: Apache-2.0
"""The report as a page: sections of blocks, the same for HTML and text.

What is said, and in which order, is decided here once; ``render.py`` only draws it.
Every figure is shown with at most 4 of the 6 significant digits in report.json.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from .blocks import Block, Chart, Page, Section
from .build import INFINITY
from .claims import Say, claim_of, claims_section, number, stamps
from .strings import text
from .utility import score_lines, score_rows

__all__ = ["make_page"]


def make_page(
    report: Mapping[str, Any], metrics: Mapping[str, Any], *, language: str
) -> Page:
    """Arrange ``report`` (made by ``build_report``) and ``metrics`` for a reader."""

    def say(key: str, /, **values: str) -> str:
        return text(key, language=language, values=values)

    parts = (
        claims_section,
        _not_claimed,
        _not_protected,
        _parties,
        _threat,
        _mechanism,
        _sampling,
        _composition,
    )
    sections = [part(report, say) for part in parts]
    sections.append(_utility(metrics, say))
    sections.append(_verify(report, say))
    return Page(
        say("title", plan=report["plan"]["name"]),
        say("subtitle"),
        stamps(report, say),
        sections,
    )


# -- sections, in reading order ------------------------------------------------------


def _not_claimed(report: Mapping[str, Any], say: Say) -> Section:
    # Equal to one client's where no record is at two; else a smaller one would mislead.
    projected = number(claim_of(report)["projected_consortium"])
    lines = [
        say(f"not_claimed.{i}", projected=projected) for i in report["not_claimed"]
    ]
    return Section(say("not_claimed.heading"), [Block("list", lines=lines)])


def _not_protected(report: Mapping[str, Any], say: Say) -> Section:
    lines = [say(f"not_protected.{i}") for i in report["not_protected"]]
    return Section(say("not_protected.heading"), [Block("list", lines=lines)])


def _parties(report: Mapping[str, Any], say: Say) -> Section:
    members = [p for p in report["parties"] if p["role"] == "client"]
    others = [p for p in report["parties"] if p["role"] != "client"]
    blocks = [
        Block(
            "table",
            say("parties.caption"),
            head=[say("parties.name"), say("parties.records"), say("parties.weight")],
            rows=[
                [p["name"], str(p["nominal_records"]), str(p["weight"])]
                for p in members
            ],
        ),
        Block(
            "facts",
            say("parties.key"),
            rows=[
                *([p["name"], p["public_key"]] for p in members),
                *([say(f"parties.{p['role']}"), p["public_key"]] for p in others),
            ],
        ),
        _rounds(report, say),
    ]
    if report["failures"]:
        blocks.append(
            Block(
                "table",
                say("failures.caption"),
                head=[
                    say("rounds.round"),
                    say("rounds.attempt"),
                    say("failures.culprit"),
                    say("failures.reason"),
                ],
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
    return Section(say("parties.heading"), blocks)


def _rounds(report: Mapping[str, Any], say: Say) -> Block:
    rows = {
        r["round"]: [
            str(r["round"]),
            str(r["attempt"]),
            ", ".join(r["survivors"]),
            ", ".join(r["left_out"]) or say("rounds.none"),
        ]
        for r in report["rounds"]
    }
    for skipped in report["skipped_rounds"]:
        rows[skipped] = [str(skipped), "", say("rounds.skipped"), ""]
    return Block(
        "table",
        say("rounds.caption"),
        head=[
            say("rounds.round"),
            say("rounds.attempt"),
            say("rounds.survivors"),
            say("rounds.out"),
        ],
        rows=[rows[key] for key in sorted(rows)],
        numeric=False,
    )


def _threat(report: Mapping[str, Any], say: Say) -> Section:
    model = report["threat_model"]
    values = {
        "colluding": str(model["max_colluding"]),
        "clients": str(len(report["ledgers"])),
        "threshold": str(model["threshold"]),
        "min_clients": str(model["min_clients"]),
    }
    encryption = model.get("encryption")
    if encryption is None:
        lines = [say(f"threat.{model['protection']}", **values)]
    else:
        lines = [
            say(f"threat.ckks.{encryption['keys']}", **values),
            say("threat.ckks.claim"),
            say(
                "threat.ckks.ring",
                degree=str(encryption["ring_degree"]),
                modulus=str(encryption["modulus_bits"]),
                security=str(encryption["security_bits"]),
                values=str(encryption["values_per_coefficient"]),
                ciphertexts=str(encryption["ciphertexts_per_update"]),
            ),
        ]
    blocks = [Block("paragraph", line) for line in lines]
    return Section(say("threat.heading"), blocks)


def _mechanism(report: Mapping[str, Any], say: Say) -> Section:
    m = report["mechanism"]
    grid = m["precision"]
    blocks = [
        Block(
            "paragraph",
            say(
                "mechanism.line",
                clip=number(m["clip_norm"]),
                sigma=number(m["sigma_abs"]),
                noise=number(m["noise_multiplier"]),
            ),
        ),
        Block("paragraph", say("mechanism.steps", steps=str(m["local_steps"]))),
        Block(
            "paragraph",
            say(
                "mechanism.precision",
                clip=number(grid["update_clip"]),
                step=number(grid["step"]),
                bits=str(grid["word_bits"]),
            ),
        ),
        Block("paragraph", say(f"mechanism.{m['nan_policy']}")),
        Block("paragraph", say(f"mechanism.{m['empty_batch_policy']}")),
        Block(
            "table",
            say("mechanism.caption"),
            head=[say("parties.name"), say("mechanism.normaliser")],
            rows=[[name, number(v)] for name, v in m["normaliser"].items()],
        ),
    ]
    return Section(say("mechanism.heading"), blocks)


def _sampling(report: Mapping[str, Any], say: Say) -> Section:
    rate = report["sampling"]["rate"]
    if rate == 1:
        return Section(
            say("sampling.heading"), [Block("paragraph", say("sampling.full"))]
        )
    plain = claim_of(report)["consortium"]["epsilon_without_amplification"]
    return Section(
        say("sampling.heading"),
        [
            Block("paragraph", say("sampling.line", rate=number(rate))),
            Block("paragraph", say("sampling.evidence", epsilon=number(plain))),
        ],
    )


_STATES: Final = ("reserved", "sent", "omitted", "released", "aborted")


def _composition(report: Mapping[str, Any], say: Say) -> Section:
    accounting = report["accounting"]
    interval = number(accounting["discretisation"]["interval"])
    rows = []
    for name, ledger in report["ledgers"].items():
        states = [r["state"] for r in report["releases"][name]]
        counts = [str(states.count(state)) for state in _STATES]
        rows.append([name, str(ledger["entries"]), *counts])
    blocks = [
        Block("paragraph", say("composition.within")),
        Block("paragraph", say("composition.accounting", interval=interval)),
        Block(
            "table",
            say("ledger.caption"),
            head=[
                say("claim.client"),
                say("ledger.entries"),
                *(say(f"ledger.{state}") for state in _STATES),
            ],
            rows=rows,
        ),
        Block(
            "facts",
            say("ledger.head"),
            rows=[[name, row["head"]] for name, row in report["ledgers"].items()],
        ),
        *_over_rounds(report, say),
    ]
    return Section(say("composition.heading"), blocks)


def _over_rounds(report: Mapping[str, Any], say: Say) -> list[Block]:
    claim = claim_of(report)
    over = report["epsilon_over_rounds"]
    finite = {
        name: [
            (float(p["round"]), float(p["epsilon"]))
            for p in points
            if p["epsilon"] != INFINITY
        ]
        for name, points in over.items()
    }
    points = {name: line for name, line in finite.items() if line}
    if not points:
        key = "over.infinite" if any(over.values()) else "over.empty"
        return [Block("paragraph", say(key))]
    values = ", ".join(
        f"{name} {number(line[-1]['epsilon'])}" for name, line in over.items() if line
    )
    limit = number(claim["limit"])
    picture = Block(
        "picture",
        say("over.caption"),
        lines=[say("over.alt", limit=limit, values=values)],
        chart=Chart(
            points,
            say("over.axis.x"),
            say("over.axis.y", delta=number(claim["delta"])),
            (say("over.limit"), float(claim["limit"])),
        ),
    )
    names = list(over)
    table = Block(
        "table",
        say("over.caption"),
        head=[say("claim.client"), *(str(p["round"]) for p in over[names[0]])],
        rows=[[name, *(number(p["epsilon"]) for p in over[name])] for name in names],
    )
    return [picture, table]


def _utility(metrics: Mapping[str, Any], say: Say) -> Section:
    blocks = [Block("paragraph", say("utility.scope"))]
    head, rows = score_rows(metrics, final=say("utility.final"))
    if rows:
        blocks.append(
            Block(
                "table",
                say("utility.caption"),
                head=[say("utility.model"), *head],
                rows=rows,
            )
        )
    for name, line in score_lines(metrics).items():
        first, last = (f"{line[i][1]:.4g}" for i in (0, -1))
        blocks.append(
            Block(
                "picture",
                name,
                lines=[say("utility.history.alt", name=name, first=first, last=last)],
                chart=Chart({name: line}, say("over.axis.x"), name),
            )
        )
    if len(blocks) == 1:
        blocks.append(Block("paragraph", say("utility.none")))
    return Section(say("utility.heading"), blocks)


def _verify(report: Mapping[str, Any], say: Say) -> Section:
    plan, subject = report["plan"], report["subject"]
    facts = [
        [say("verify.plan"), plan["hash"]],
        [say("verify.run"), plan["run_id"]],
        [say("verify.start"), subject["start_hash"]],
        [say("verify.model"), subject["model_hash"]],
        [say("verify.head"), report["transcript_head"]],
        [say("verify.tool"), report["tool"]],
    ]
    return Section(
        say("verify.heading"),
        [
            Block("paragraph", say("verify.how")),
            Block("facts", say("verify.caption"), rows=facts),
        ],
    )
