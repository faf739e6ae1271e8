# SPDX-License-Identifier: Apache-2.0
"""Runs of the engine that keep their vectors, and all keys that signed them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import secure_fl as sfl
from secure_fl.errors import EngineError
from secure_fl.identity import Identity
from secure_fl.randomness import SeededInsecure
from secure_fl.report.vectors import Kept, vectors_file
from secure_fl.transcript import Transcript

from ..engines.support import NAMES, plan_text, start, trainers
from .support import Made, finish, rewritten, rows_of

TRANSCRIPT = "transcript.cbor"
FIRST = vectors_file(0, 0)
SEED = b"kept vectors"

Row = tuple[str, dict[int, Any], int]


def kept_plan(*, kind: str = "masking", keys: str = "", **entries: Any) -> sfl.Plan:
    text = plan_text(kind=kind, keys=keys, **entries)
    return sfl.Plan(text.replace("[model]", "keep_vectors = true\n\n[model]").encode())


def absent_in_round_1(r: sfl.ClientRound) -> sfl.PrivateUpdate:
    if r.round == 1:
        raise EngineError("the file server is down")
    return trainers()["clinic-d"](r)


def play(*, kind: str = "masking", keys: str = "") -> Made:
    """Two rounds of four clinics, the second without clinic-d."""
    clients = {**trainers(), "clinic-d": absent_in_round_1}
    run = sfl.run(
        kept_plan(kind=kind, keys=keys),
        clients,
        model=start(),
        random=SeededInsecure(SEED),
    )
    again = SeededInsecure(SEED)
    again.bytes(16)  # the run id came first
    identities = {n: Identity.new(n, random=again) for n in NAMES}
    aggregator = Identity.new("aggregator", random=again)
    assert aggregator.public_key == run.plan.aggregator_key
    holder = Identity.new("keyholder", random=again) if keys == "keyholder" else None
    transcript = Transcript.from_bytes(run.files[TRANSCRIPT])
    return Made(
        run.plan, identities, aggregator, transcript, dict(run.files), keyholder=holder
    )


def kept_of(made: Made, name: str = FIRST) -> Kept:
    return Kept.from_bytes(made.files[name], made.plan.roster)


def with_kept(made: Made, **changed: Any) -> bytes:
    """The first round's kept messages, some of their fields changed."""
    return replace(kept_of(made), **changed).to_bytes(made.plan.roster)


def rebuilt(
    made: Made, edit: Callable[[list[Row]], None], *, model: bytes | None = None
) -> dict[str, bytes]:
    """The transcript edited, everything made anew from it, and signed by all."""
    told = Transcript.from_bytes(rewritten(made, edit, resign=True))
    before = told.before(told.of_kind("artefacts")[0])
    ledgers = {n: made.files[f"ledgers/{n}.cbor"] for n in made.plan.names}
    model = model or made.files["model.safetensors"]
    files = {**made.files, **finish(made.plan, before, model, ledgers)}

    def and_artefacts(rows: list[Row]) -> None:
        edit(rows)
        for kind, body, _ in rows:
            if kind == "artefacts":
                body[0] = rows_of(files)

    files[TRANSCRIPT] = rewritten(made, and_artefacts, resign=True)
    return files
