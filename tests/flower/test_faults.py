# SPDX-License-Identifier: Apache-2.0
"""Runs over a real SuperLink: one that nothing happens to, and every fault."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

from .apart import APP, OWN_APP, Consortium
from .deployment import deployment
from .faults import CASES
from .stage import Stage, stage

BANKS = ("bank-0", "bank-1", "bank-2")


def test_a_round_over_a_real_superlink(tmp_path: Path) -> None:
    """TLS, registered nodes, a process for each party, and a report that verifies."""
    banks = Consortium(tmp_path / "banks", BANKS)
    agreed = banks.plan("quick", rounds=1)
    with deployment(
        tmp_path / "deployment",
        {name: banks.node_config(name) for name in BANKS},
        settings={"PYTHONPATH": str(APP)},
        own_apps=dict.fromkeys(BANKS, OWN_APP),
    ) as it:
        ended = it.run(APP, agreed.config, timeout=300)
        assert ended.completed, ended.log
    banks.check_run(agreed)
    banks.check_ledgers(agreed)
    assert agreed.survivors == {0: list(BANKS)}
    assert [banks.made(agreed, name) for name in BANKS] == [1, 1, 1]


@pytest.fixture(scope="module")
def five(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stage]:
    with stage(tmp_path_factory.mktemp("faults")) as on:
        yield on


@pytest.mark.long
@pytest.mark.parametrize("case", CASES)
def test_a_fault(five: Stage, case: str) -> None:
    """What has to hold is checked by the case; see docs/faults.md."""
    five.calm()
    rows = CASES[case](five)
    assert rows
    if skipped := [row.happened for row in rows if row.happened.startswith("skipped")]:
        pytest.skip("; ".join(skipped))
