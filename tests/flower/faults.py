# SPDX-License-Identifier: Apache-2.0
"""Every fault that docs/faults.md lists, on real processes, one after the other.

    python -m tests.flower.faults [--only CASE ...] [--write docs/faults.md]

One SuperLink and five members of a consortium, each a process tree of its own.  A case
is one plan or several: it lets a fault happen where the run is at a known place, checks
what the run left, and gives its rows of the table.  Nothing in the table is typed by
hand but the fault's name.

In every case: whatever was opened is a sum of at least as many as the plan needs, and
exactly that of the members it names; both verifiers pass; no ledger holds less than
what arrived from its member, or than its trainer made; no context is charged twice.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import sys
import tempfile
import traceback
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

from .faults_of_members import apps_killed, hosts, members_killed
from .faults_of_others import (
    aggregator_killed,
    identities,
    old_plan,
    restored,
    superlink_killed,
)
from .stage import Row, Stage, stage

__all__ = ["CASES", "main"]

CASES: Final[Mapping[str, Callable[[Stage], list[Row]]]] = {
    "members": members_killed,
    "apps": apps_killed,
    "hosts": hosts,
    "aggregator": aggregator_killed,
    "superlink": superlink_killed,
    "plan": old_plan,
    "identities": identities,
    "restored": restored,
}


# -- the file --------------------------------------------------------------------------

_HEAD: Final = """\
# Faults, on real processes

A SuperLink and five members on one machine, over TLS, with registered node keys, each
with processes and a folder of its own. A plan needs three members for a sum. What
befalls a run does so at a known place of the protocol, not after so many seconds.

In every row: a sum that was opened holds the updates of at least three members, and
exactly of those it names; both verifiers pass where a report came out; no member's
ledger holds less than its trainer made, or than reached the aggregator; no charge is
used in two contexts. One row is of a ledger that does hold less, put back from a copy:
the run is found out, and has no report. Where a run ended with an error, the words are
its own.

"Charged" counts releases in ledgers, "opened" those that are in a sum. A member may be
charged for an update that no sum holds: it may have left its host. A round may lack
more members than the row's: one that was killed is let in again a minute later, and
two faults of hosts may share a round.

"""

_TAIL: Final = """\

Seconds are those of the round where the fault is one of a member, and of the whole
`flwr run` otherwise, on {where}.

Messages that come twice, late or in another order are not made here: Flower's SuperLink
hands each message out once. `tests/engines/test_member.py` does that to the member
itself (`test_every_request_twice`, `test_a_message_that_is_late_for_its_attempt`,
`test_requests_of_a_round_that_is_over_change_nothing`), and
`tests/engines/test_member_lies.py` with an aggregator that lies.

Written by `python -m tests.flower.faults --write docs/faults.md`, as root where lines
shall be cut and disks filled; with `--only CASE` it runs one and keeps the others'
rows. All of it takes about half an hour.
"""


def render(rows: Sequence[Row]) -> str:
    """The table."""
    lines = [
        "| fault | what happened | rounds | ledgers | seconds |",
        "| --- | --- | --- | --- | ---: |",
    ]
    for row in rows:
        seconds = "" if row.seconds is None else f"{row.seconds:.0f}"
        cells = (row.fault, row.happened, row.rounds, row.ledger, seconds)
        lines.append("| " + " | ".join(c.replace("|", "/") for c in cells) + " |")
    return "\n".join(lines) + "\n"


def write(file: Path, case: str, rows: Sequence[Row]) -> None:
    """Put a case's rows into ``file``, and the table of all cases beside it."""
    held = json.loads(file.with_suffix(".json").read_text()) if file.exists() else {}
    held[case] = {
        "load": round(os.getloadavg()[2]),
        "rows": [dataclasses.asdict(row) for row in rows],
    }
    file.with_suffix(".json").write_text(json.dumps(held, indent=1) + "\n")
    known = {case: held[case] for case in CASES if case in held}
    table = render([Row(**row) for one in known.values() for row in one["rows"]])
    loads = [one["load"] for one in known.values()]
    where = f"{os.cpu_count()} cores, whose load was {min(loads)} to {max(loads)}"
    file.write_text(_HEAD + table + _TAIL.format(where=where))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--only", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--write", type=Path, metavar="FILE")
    given = parser.parse_args(arguments)
    failed: list[str] = []
    with (
        tempfile.TemporaryDirectory(prefix="faults-") as folder,
        stage(Path(folder) / "stage") as on,
    ):
        for name in given.only:
            on.calm()
            try:
                rows = CASES[name](on)
            except Exception:
                failed.append(name)
                traceback.print_exc()
                continue
            sys.stdout.write(f"{render(rows)}\n")
            sys.stdout.flush()
            if given.write is not None:
                write(given.write, name, rows)
    if failed:
        sys.exit(f"failed: {', '.join(failed)}")


if __name__ == "__main__":
    main()
