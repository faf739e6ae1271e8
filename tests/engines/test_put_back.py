# SPDX-License-Identifier: Apache-2.0
"""A member's home that is put back from a snapshot in the middle of a run."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from secure_fl.engines.aggregator import aggregate
from secure_fl.engines.requests import Action, Message, Open
from secure_fl.errors import EngineError

from .banks import MODEL, Banks
from .network import Network

VICTIM = "bank-b"


def test_a_ledger_that_lost_an_opened_update_ends_the_run_without_a_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The keystore cannot tell, and a report would say too small an epsilon."""
    monkeypatch.setattr("secure_fl.engines.remote._LOOK_AGAIN", 0.01)
    banks = Banks(tmp_path)
    home, kept = banks.homes[VICTIM].folder, tmp_path / "snapshot"

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        if name != VICTIM:
            return ""
        if any(isinstance(a, Message) for a in actions) and not kept.exists():
            shutil.copytree(home, kept)  # before anything was charged
        if any(isinstance(a, Open) and a.round_index == 1 for a in actions):
            shutil.rmtree(home)
            shutil.copytree(kept, home)
        return ""

    with pytest.raises(EngineError, match="does not hold its update of round 0"):
        aggregate(
            banks.plan,
            banks.aggregator,
            Network(banks, fault),
            out=tmp_path / "out",
            state=tmp_path / "state",
            model=MODEL,
            patience=5.0,
        )
    assert not (tmp_path / "out" / "report.json").exists()
