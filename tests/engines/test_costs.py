# SPDX-License-Identifier: Apache-2.0
"""What a run says it cost: the bytes are those of its messages, exactly."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

import secure_fl as sfl
from secure_fl.context import kind_of
from secure_fl.report.vectors import Kept, vectors_file
from secure_fl.transcript import Transcript

from .support import NAMES, plan, plan_text, start, trainer, trainers

# The step in which a client sends each kind of message under masking.
STEPS = {1: "keys", 3: "shares", 5: "vectors", 6: "vectors", 8: "consistency"}
STEPS[10] = "unmask"


def test_bytes_are_those_of_the_messages() -> None:
    """Every message is in the transcript or among the kept ones: count them there."""
    text = plan_text(rounds=1).replace("[model]", "keep_vectors = true\n\n[model]")
    run = sfl.run(sfl.Plan(text.encode()), trainers(), model=start())
    log = Transcript.from_bytes(run.files["transcript.cbor"])
    kept = Kept.from_bytes(run.files[vectors_file(0, 0)], run.plan.roster)
    up: dict[str, int] = {}
    down = messages = 0
    whole = [(e, log.message(e)) for e in log.entries if e.has_message]
    for sender, data in [(e.text(2), m) for e, m in whole] + list(kept.rows):
        if sender:
            step = STEPS[kind_of(data)]
            up[step] = up.get(step, 0) + len(data)
            messages += 1
    for entry, message in whole:
        if not entry.text(2):
            receivers = 1 if entry.text(3) else len(NAMES)
            down += receivers * len(message)
            messages += receivers
    rows = run.metrics["costs"]["steps"]
    assert [r["step"] for r in rows] == [
        "keys",
        "shares",
        "training",
        "vectors",
        "consistency",
        "unmask",
    ]
    assert {r["step"]: r["bytes_up"] for r in rows if r["bytes_up"]} == up
    assert sum(r["bytes_down"] for r in rows) == down
    assert sum(r["messages"] for r in rows) == messages
    assert "resumed" not in run.metrics["costs"]


def test_seconds_are_of_their_step() -> None:
    fit = trainer(0)

    def slow(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        time.sleep(0.2)
        return fit(r)

    began = time.perf_counter()
    run = sfl.run(plan(), {**trainers(), NAMES[0]: slow}, model=start())
    whole = time.perf_counter() - began
    seconds = {r["step"]: r["seconds"] for r in run.metrics["costs"]["steps"]}
    assert seconds["training"] >= 0.4  # two rounds
    assert all(s > 0 for s in seconds.values())
    assert sum(seconds.values()) <= whole


def test_a_resumed_run_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def stopping(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        if r.round == 1:
            raise KeyboardInterrupt
        return trainer(0)(r)

    made = plan(spare=3, epsilon=12.0)
    with pytest.raises(KeyboardInterrupt):
        sfl.run(
            made, {**trainers(), NAMES[0]: stopping}, model=start(), out=tmp_path / "o"
        )
    run = sfl.run(made, trainers(), model=start(), out=tmp_path / "o", resume=True)
    costs = run.metrics["costs"]
    assert costs["resumed"] is True
    assert costs["steps"]
