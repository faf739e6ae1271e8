# SPDX-License-Identifier: Apache-2.0
"""The files in ``tests/typing`` misuse the library; mypy must say so, line by line.

A line that must fail ends in ``# E:`` and the codes of its errors; a line without it
must pass.  So a signature that becomes too lenient fails here.
"""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
FILES = sorted((HERE / "typing").glob("*.py"))
_REPORTED = re.compile(r"^(.+?):(\d+): error: .*\[([a-z-]+)\]$")

Errors = Counter[tuple[str, int, str]]


def expected() -> Errors:
    out: Errors = Counter()
    for path in FILES:
        for number, line in enumerate(path.read_text().splitlines(), 1):
            _, mark, codes = line.partition("  # E: ")
            if mark:
                out.update((path.name, number, code) for code in codes.split())
    return out


def reported() -> Errors:
    # The project's own options and no others: so the cache of `make types` is used.
    command = [sys.executable, "-m", "mypy", "--no-error-summary", "--no-pretty"]
    done = subprocess.run(
        [*command, *map(str, FILES)],
        cwd=HERE.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    out: Errors = Counter()
    for line in done.stdout.splitlines():
        found = _REPORTED.match(line)
        if found and Path(found[1]).parent.name == "typing":
            out[Path(found[1]).name, int(found[2]), found[3]] += 1
    return out


def test_misuse_does_not_type_check() -> None:
    wanted, got = expected(), reported()
    assert sum(wanted.values()) > 50
    assert got - wanted == Counter(), "mypy reports more"
    assert wanted - got == Counter(), "mypy reports less"
