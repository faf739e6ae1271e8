# SPDX-License-Identifier: Apache-2.0
"""Where faults happen: five members on a real deployment, and what a table says."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from .apart import APP, OWN_APP, Agreed, Consortium
from .course import Course
from .deployment import Deployment, Ended, deployment
from .obstacles import Clock, Disk, Line, clock, disk, line

__all__ = [
    "COPY",
    "CUT",
    "FULL",
    "NAMES",
    "NEEDED",
    "STRANGER",
    "WRONG",
    "Row",
    "Stage",
    "all_charges",
    "checked",
    "in_round",
    "sizes",
    "stage",
    "words",
]

NAMES: Final = ("bank-0", "bank-1", "bank-2", "bank-3", "bank-4")
WRONG, FULL, CUT = "bank-2", "bank-3", "bank-4"  # whose clock, disk and line
COPY, STRANGER = "copy", "stranger"  # nodes that come later
NEEDED: Final = 3


@dataclass(frozen=True)
class Row:
    """One line of the table.  ``seconds``: of the round, or the run, it happened in."""

    fault: str
    happened: str
    rounds: str = ""
    ledger: str = ""
    seconds: float | None = None


@dataclass
class Stage:
    """The deployment, and what can be done to its hosts."""

    it: Deployment
    banks: Consortium
    disk: Disk | None
    line: Line | None
    clock: Clock | None

    def course(self) -> Course:
        return Course(self.it, self.banks)

    def calm(self) -> None:
        """Undo whatever the case before has left, if it failed half way."""
        for name in NAMES:
            self.banks.let_go(name)
        if self.disk is not None:
            self.disk.empty()
        if self.line is not None:
            self.line.mend()
        if self.clock is not None:
            self.clock.set(0)
        if not self.it.superlink.running:
            self.it.start_superlink()
        for name in NAMES:
            if not self.it.nodes[name].running:
                self.it.start_node(name)


@contextlib.contextmanager
def stage(folder: Path) -> Iterator[Stage]:
    """Five members, all online, below ``folder``; all gone afterwards."""
    tools = folder / "tools"
    tools.mkdir(parents=True)
    banks = Consortium(folder / "banks", NAMES)
    with contextlib.ExitStack() as stack:
        small = stack.enter_context(disk(banks.home(FULL)))
        cable = stack.enter_context(line(tools))
        it = stack.enter_context(
            deployment(
                folder / "deployment",
                {name: banks.node_config(name) for name in NAMES},
                settings={"PYTHONPATH": str(APP)},
                own_apps=dict.fromkeys((*NAMES, COPY, STRANGER), OWN_APP),
            )
        )
        wrong = clock(tools)
        if cable is not None:
            cable.reach(it.address)
            _put_behind(it, CUT, cable.prefix)
        if wrong is not None:
            _put_behind(it, WRONG, wrong.prefix)
        yield Stage(it, banks, small, cable, wrong)


def _put_behind(it: Deployment, name: str, prefix: Sequence[str]) -> None:
    it.nodes[name].stop()
    it.nodes[name].command[:0] = prefix
    it.start_node(name)


# -- what the table says ---------------------------------------------------------------


def in_round(c: Course, agreed: Agreed, fault: str, name: str, index: int) -> Row:
    """What became of ``name`` in a round, and of the round behind it."""
    (seen,) = [s for s in c.seen if s.round_index == index]
    later = [s for s in c.seen if s.round_index == index + 1]
    assert later, "the next round was not opened"
    inside = name in seen.inside
    total = len(agreed.plan.names)
    return Row(
        fault,
        "in the sum" if inside else f"out: {seen.why[name]}",
        f"{len(seen.inside)} of {total}; next {len(later[0].inside)} of {total}",
        charges_of(c.banks, agreed, name, index),
        seen.seconds,
    )


def charges_of(banks: Consortium, agreed: Agreed, name: str, index: int) -> str:
    states = [r.state for r in banks.releases(agreed, name) if r.round_index == index]
    charged = [s for s in states if s != "aborted"]
    opened = int(name in agreed.survivors[index])
    return f"{len(charged)} charged, {opened} opened"


def all_charges(banks: Consortium, agreed: Agreed) -> str:
    """Of all members, for all rounds."""
    charged = sum(
        r.charged for name in agreed.plan.names for r in banks.releases(agreed, name)
    )
    opened = sum(len(s) for s in agreed.survivors.values())
    return f"{charged} charged, {opened} opened"


def sizes(agreed: Agreed) -> str:
    total = len(agreed.plan.names)
    return ", ".join(f"{len(s)} of {total}" for s in agreed.survivors.values())


def words(agreed: Agreed, ended: Ended) -> str:
    """Why a run has ended: what its aggregator says, or Flower."""
    status = agreed.status
    if status is None or status.state == "running":
        return f"Flower: {ended.status} {ended.details}".strip()
    return f"{status.reason} ({status.hint})" if status.hint else status.reason


def checked(c: Course, agreed: Agreed, ended: Ended) -> None:
    assert ended.completed, ended.log
    c.banks.check_run(agreed)
    c.banks.check_ledgers(agreed)
