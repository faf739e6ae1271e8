# SPDX-License-Identifier: Apache-2.0
"""Faults of members, of their hosts, and of the lines between."""

from __future__ import annotations

from typing import Final

from .apart import Agreed
from .course import Course, Incident, after
from .obstacles import Clock, Disk, Line
from .stage import (
    CUT,
    FULL,
    NAMES,
    NEEDED,
    WRONG,
    Row,
    Stage,
    all_charges,
    checked,
    in_round,
    sizes,
)

__all__ = ["apps_killed", "hosts", "members_killed"]

# -- members ---------------------------------------------------------------------------

KILLS: Final = (
    ("kill -9 of a member that is asked for keys", "bank-0", "keys before"),
    ("... that has made its shares, and not sent them", "bank-1", "shares after"),
    ("... that trains: its update is charged and made", "bank-2", "vectors training"),
    ("... whose masked update is made, and not sent", "bank-3", "vectors after"),
    ("... that is asked to agree on the survivors", "bank-4", "consistency before"),
    ("... that has made its part of the sum's opening", "bank-0", "unmask after"),
    ("... that is asked to sign the round", "bank-1", "signature before"),
)


def members_killed(s: Stage) -> list[Row]:
    """A member at each stage, and it starts again: SuperNode, client app and all."""
    c = s.course()
    agreed = s.banks.plan("members-killed", rounds=len(KILLS) + 1)
    incidents = [
        c.killed(name, f"{i} {place}") for i, (_, name, place) in enumerate(KILLS)
    ]
    ended = c.run(agreed, *incidents, timeout=1800)
    checked(c, agreed, ended)
    return [
        in_round(c, agreed, fault, name, i) for i, (fault, name, _) in enumerate(KILLS)
    ]


def apps_killed(s: Stage) -> list[Row]:
    """So many that the attempt fails; their SuperNodes live, and there is a second."""
    c = s.course()
    agreed = s.banks.plan("apps-killed", rounds=1)
    victims = NAMES[:NEEDED]
    ended = c.run(agreed, *[c.app_killed(name, "0 vectors after") for name in victims])
    checked(c, agreed, ended)
    (seen,) = c.seen
    assert seen.attempt > 0
    return [
        Row(
            "kill -9 of three client apps whose masked updates are made, and not sent",
            f"the attempt fails, and attempt {seen.attempt} opens",
            sizes(agreed),
            all_charges(s.banks, agreed),
            c.seconds,
        )
    ]


# -- hosts and lines -------------------------------------------------------------------


def hosts(s: Stage) -> list[Row]:
    """Processes that stand still, a full disk, a cut line, a wrong clock."""
    c = s.course()
    agreed = s.banks.plan("hosts", rounds=6)
    told: list[tuple[str, str, int]] = []
    skipped: list[Row] = []
    incidents: list[Incident] = []

    def add(fault: str, name: str, index: int, incident: Incident) -> None:
        told.append((fault, name, index))
        incidents.append(incident)

    add(
        "SIGSTOP of a member for 8 s while it is asked for its update",
        "bank-0",
        0,
        c.stopped("bank-0", "0 vectors before", lambda: after(8)),
    )
    add(
        "SIGSTOP until the others have gone on; it then sends what it has made",
        "bank-1",
        1,
        c.stopped("bank-1", "1 vectors after", lambda: c.dropped(agreed, "bank-1")),
    )
    if s.disk is None:
        skipped.append(
            Row("a full disk at a member", "skipped: nothing can be mounted")
        )
    else:
        for index, place, when in (
            (0, "keys before", "when it is asked for keys"),
            (1, "vectors before", "when it is asked for its update"),
            (2, "vectors training", "when its update is charged and made"),
        ):
            add(
                f"a full disk at a member {when}; emptied once it is out",
                FULL,
                index,
                _filled(s.disk, c, agreed, f"{index} {place}"),
            )
    if s.line is None:
        skipped.append(Row("a cut line", "skipped: no network namespace can be made"))
    else:
        add(
            "a line cut (veth down) while the member trains; mended once it is out",
            CUT,
            2,
            _cut_off(s.line, c, agreed, "2 vectors training"),
        )
    if s.clock is None:
        skipped.append(Row("a wrong clock", "skipped: no C compiler"))
    else:
        for index, wrong in ((3, -120), (4, 3600)):
            add(
                f"a member's clock jumps by {wrong:+d} s as it is asked for keys; "
                "set right after the round, and its node started again if it has ended",
                WRONG,
                index,
                _wrong(s.clock, c, f"{index} keys before", index, wrong),
            )
    ended = c.run(agreed, *incidents, timeout=1800)
    checked(c, agreed, ended)
    return [in_round(c, agreed, *one) for one in told] + skipped


def _filled(full: Disk, c: Course, agreed: Agreed, place: str) -> Incident:
    yield from c.at(FULL, place, full.fill)
    yield from c.dropped(agreed, FULL)
    full.empty()


def _cut_off(cable: Line, c: Course, agreed: Agreed, place: str) -> Incident:
    yield from c.at(CUT, place, cable.cut)
    yield from c.dropped(agreed, CUT)
    cable.mend()


def _wrong(time_: Clock, c: Course, place: str, index: int, by: int) -> Incident:
    yield from c.at(WRONG, place, lambda: time_.set(by))
    while not any(s.round_index == index for s in c.seen):
        yield
    time_.set(0)
    if not c.it.nodes[WRONG].running:
        yield from c.come_back(WRONG)
