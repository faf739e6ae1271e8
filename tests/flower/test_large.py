# SPDX-License-Identifier: Apache-2.0
"""A round of large updates over a real SuperLink: 100 million values from each member.

That is 400 MB up from each, and as much down to each.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

from .apart import APP, OWN_APP, Consortium
from .deployment import deployment

BANKS = ("bank-0", "bank-1", "bank-2")
VALUES = 100_000_000
NEEDS = 20 << 30
MEMORY = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


@pytest.mark.long
@pytest.mark.skipif(MEMORY < NEEDS, reason="needs 20 GB of memory")
def test_a_round_of_400_megabytes(
    tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    banks = Consortium(tmp_path / "banks", BANKS)
    with deployment(
        tmp_path / "deployment",
        {name: banks.node_config(name) for name in BANKS},
        settings={"PYTHONPATH": str(APP)},
        own_apps=dict.fromkeys(BANKS, OWN_APP),
    ) as it:
        agreed = banks.plan("large", rounds=1, values=VALUES)
        ended = it.run(APP, agreed.config, timeout=1500)
        assert ended.completed, ended.log
        banks.check_ledgers(agreed)
    assert agreed.survivors == {0: list(BANKS)}
    metrics = json.loads((agreed.out / "metrics.json").read_bytes())
    rows = {row["step"]: row for row in metrics["costs"]["steps"]}
    assert rows["vectors"]["bytes_up"] >= len(BANKS) * 4 * VALUES
    record_property("seconds", ended.seconds)
    for step, row in rows.items():
        record_property(step, row["seconds"])
    banks.check_run(agreed)
