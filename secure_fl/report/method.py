# SPDX-License-Identifier: Apache-2.0
"""How the releases were made: unit, mechanism, sampling, randomness, numbers."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .blocks import Block, Section
from .cells import Say, bound, number, word
from .claims import claim_of
from .wording import adjacency, by_mode, by_unit, distributed, mechanism

__all__ = [
    "mechanism_section",
    "numerics_section",
    "randomness_section",
    "sampling_section",
    "subject_section",
    "unit_section",
]


def _paragraphs(heading: str, lines: list[str]) -> Section:
    return Section(heading, [Block("paragraph", line) for line in lines])


def subject_section(report: Mapping[str, Any], say: Say) -> Section:
    """What was trained, when, and by which program."""
    subject, dates, tool = report["subject"], report["dates"], report["tool"]
    libraries = ", ".join(f"{name} {v}" for name, v in tool["libraries"].items())
    rows = [
        [say("subject.plan"), report["plan"]["name"]],
        [say("subject.kind"), word(say, "model", subject["kind"])],
        [say("subject.values"), str(subject["values"])],
        [say("subject.frozen"), subject["frozen_state"] or say("subject.frozen.none")],
        [say("subject.first"), dates["first"] or say("subject.never")],
        [say("subject.last"), dates["last"] or say("subject.never")],
        [say("subject.tool"), f"{tool['name']} {tool['version']}".strip()],
    ]
    if libraries:
        rows.append([say("subject.libraries"), libraries])
    table = Block(
        "table",
        say("subject.caption"),
        head=[say("subject.field"), say("subject.value")],
        rows=rows,
        numeric=False,
    )
    return Section(say("subject.heading"), [table])


def unit_section(report: Mapping[str, Any], say: Say) -> Section:
    """What one neighbour has more than another, and who sees to it."""
    unit = report["privacy_unit"]
    return _paragraphs(
        say("unit.heading"),
        [
            say(
                by_unit(report, "unit.line"),
                unit=say(f"unit.{unit['kind']}"),
                adjacency=adjacency(report, say),
                records=str(unit["max_records_per_unit"]),
                parties=str(unit["max_parties_per_unit"]),
            ),
            say(by_unit(report, f"unit.{unit['enforcement']}")),
        ],
    )


def mechanism_section(report: Mapping[str, Any], say: Say) -> Section:
    """What is released in one line of mathematics, and what surrounds it."""
    m = report["mechanism"]
    lines = [mechanism(report, say)]
    if distributed(report):
        lines += [say(f"mechanism.formula.{m['type']}"), _sensitivity(report, say)]
    if m["type"] != "distributed-dp-sgd":
        lines.append(say("mechanism.steps", steps=str(m["local_steps"])))
    lines += [
        say(f"mechanism.{m[key]}") for key in ("nan_policy", "empty_batch_policy")
    ]
    return _paragraphs(say("mechanism.heading"), lines)


def _sensitivity(report: Mapping[str, Any], say: Say) -> str:
    return say(
        "mechanism.sensitivity",
        unit=say(f"mechanism.unit.{report['privacy_unit']['kind']}"),
        sensitivity=bound(report["mechanism"]["sum"]["sensitivity"]),
    )


def sampling_section(report: Mapping[str, Any], say: Say) -> Section:
    """The scheme, its evidence, and epsilon without credit for it."""
    sampling = report["sampling"]
    if not sampling["amplification"]:
        full = say(by_unit(report, "sampling.full"))
        return _paragraphs(say("sampling.heading"), [full])
    plain = claim_of(report)["consortium"]["epsilon_without_amplification"]
    return _paragraphs(
        say("sampling.heading"),
        [
            say(by_mode(report, "sampling.line"), rate=number(sampling["rate"])),
            say(f"sampling.{sampling['evidence']}", epsilon=bound(plain)),
        ],
    )


def randomness_section(report: Mapping[str, Any], say: Say) -> Section:
    """Which generator made what."""
    random = report["randomness"]
    uses = ("noise", "sampling", "keys", "masks", "encryption")
    blocks = [
        Block(
            "table",
            say("randomness.caption"),
            head=[say("randomness.use"), say("randomness.source")],
            rows=[
                [
                    say(by_mode(report, key) if use == "noise" else key),
                    say(f"source.{random[use]}"),
                ]
                for use in uses
                for key in (f"randomness.{use}",)
            ],
            numeric=False,
        )
    ]
    seeded = "randomness.seeded" if random["seeded"] else "randomness.fresh"
    return Section(
        say("randomness.heading"), [*blocks, Block("paragraph", say(seeded))]
    )


def numerics_section(report: Mapping[str, Any], say: Say) -> Section:
    """How real numbers become words, and why that costs no privacy."""
    n = report["numerics"]
    lines = [
        say(
            by_mode(report, "numerics.grid"),
            clip=number(n["update_clip"]),
            step=number(n["step"]),
            bits=str(n["word_bits"]),
        ),
        say(f"numerics.rounding.{n['rounding']}"),
        say(f"numerics.place.{n['place']}"),
        say(f"numerics.wrap.{n['wrap']}"),
    ]
    if n["wrong_rounding_log2"] is not None:
        lines.append(say("numerics.wrong", log2=str(n["wrong_rounding_log2"])))
    return _paragraphs(say("numerics.heading"), lines)
