# SPDX-License-Identifier: Apache-2.0
"""Faults of the aggregator and the SuperLink, and of who is who."""

from __future__ import annotations

import shutil
import time
from typing import Final

from secure_fl.engines.setup import REPORT_FILE

from .course import Incident
from .stage import COPY, NAMES, STRANGER, Row, Stage, all_charges, checked, sizes, words

__all__ = [
    "aggregator_killed",
    "identities",
    "old_plan",
    "restored",
    "superlink_killed",
]

# -- the aggregator's side -------------------------------------------------------------

DEATHS: Final = (
    ("kill -9 of the aggregator while members are asked for keys", "0 keys before"),
    ("... while updates are made", "0 vectors training"),
    ("... while the sum is opened", "0 unmask after"),
    ("... while shares are made", "1 shares before"),
    ("... while survivors are agreed on", "1 consistency after"),
    ("... while the round is signed", "1 signature after"),
    ("... while ledgers are fetched", "1 ledger before"),
)


def aggregator_killed(s: Stage) -> list[Row]:
    """Its process, at each stage; each time the same ``flwr run`` goes on."""
    agreed = s.banks.plan("aggregator-killed", rounds=2)
    rows = []
    for fault, place in DEATHS:
        c = s.course()
        ended = c.run(agreed, c.server_app_killed("bank-0", place), patience=60)
        assert not ended.completed
        status = agreed.status
        assert status is not None
        rows.append((fault, words(agreed, ended), status.opened, c.seconds))
    c = s.course()
    checked(c, agreed, c.run(agreed))
    return [
        *(
            Row(fault, f"{why}; started again", f"{opened} opened before", "", took)
            for fault, why, opened, took in rows
        ),
        Row(
            "... and left alone",
            "completed, verified",
            sizes(agreed),
            all_charges(s.banks, agreed),
            c.seconds,
        ),
    ]


def superlink_killed(s: Stage) -> list[Row]:
    """The SuperLink, twice; the run it carried ends, and is started again."""
    agreed = s.banks.plan("superlink-killed", rounds=2)
    rows = []
    for fault, place in (
        ("kill -9 of the SuperLink while updates are made", "0 vectors training"),
        ("... while a sum is opened", "1 unmask before"),
    ):
        c = s.course()
        ended = c.run(agreed, c.superlink_killed("bank-0", place))
        assert not ended.completed
        rows.append(Row(fault, words(agreed, ended), "", "", c.seconds))
    c = s.course()
    ended = c.run(agreed)
    checked(c, agreed, ended)
    return [
        *rows,
        Row(
            "... and left alone",
            "completed, verified",
            sizes(agreed),
            all_charges(s.banks, agreed),
            c.seconds,
        ),
    ]


# -- who is who ------------------------------------------------------------------------


def old_plan(s: Stage) -> list[Row]:
    """One member has joined version 1, and the run is of version 2."""
    first = s.banks.plan("agreement-1", rounds=1)
    second = s.banks.plan("agreement-2", rounds=1, joined=NAMES[:-1])
    c = s.course()
    ended = c.run(second, patience=20)
    assert not ended.completed
    why = words(second, ended)
    assert f"not there: {NAMES[-1]}" in why
    assert not any(s.banks.releases(p, n) for p in (first, second) for n in NAMES)
    row = Row("a member that joined an older plan", why, "none", "0 charged", c.seconds)
    s.banks.join(second, NAMES[-1])
    c = s.course()
    checked(c, second, c.run(second))
    charges = all_charges(s.banks, second)
    done = "completed, verified"
    return [row, Row("... and then this one", done, sizes(second), charges, c.seconds)]


def identities(s: Stage) -> list[Row]:
    """Two SuperNodes that are one member, and one that is nobody."""
    agreed = s.banks.plan("identities", rounds=1)
    rows = []
    # The same node key: Flower's own answer.
    key = s.it.folder / "bank-0.key"
    twin = s.it.supernode("twin", s.banks.node_config("bank-0"), key)
    begun = time.monotonic()
    twin.start()
    code = twin.wait(timeout=90)
    assert code != 0
    (said, *_) = [x for x in twin.said().splitlines() if "activate" in x] or [""]
    rows.append(
        Row(
            "a second SuperNode with a member's own node key",
            f"it exits: {said.split('ERROR')[-1].strip(' :')}",
            "none",
            "0 charged",
            time.monotonic() - begun,
        )
    )
    # Another key and the same home; and somebody who is in no plan.
    home = s.banks.folder / "nobody"
    home.mkdir(mode=0o700)
    s.it.add(
        {
            COPY: s.banks.node_config("bank-0"),
            STRANGER: {"secure-fl-home": str(home), "watch": str(home)},
        }
    )
    c = s.course()
    ended = c.run(agreed, patience=30)
    assert not ended.completed
    why = words(agreed, ended)
    assert "two nodes are bank-0" in why
    assert not any(s.banks.releases(agreed, n) for n in NAMES)
    rows.append(
        Row(
            "two SuperNodes, with keys of their own, and one member's home",
            why,
            "none",
            "0 charged",
            c.seconds,
        )
    )
    s.it.nodes[COPY].stop()
    c = s.course()
    ended = c.run(agreed)
    checked(c, agreed, ended)
    (stays_out,) = {x for x in ended.log.splitlines() if "stays out" in x} or {""}
    rows.append(
        Row(
            "a registered node that is no member",
            f"completed without it: {stays_out.strip()}",
            sizes(agreed),
            all_charges(s.banks, agreed),
            c.seconds,
        )
    )
    s.it.nodes[STRANGER].stop()
    return rows


def restored(s: Stage) -> list[Row]:
    """A home from a snapshot of the whole machine, instead of the member's own.

    Its keystore cannot tell.  The log can: the run ends, and there is no report.
    """
    agreed = s.banks.plan("restored", rounds=2)
    home, kept = s.banks.home("bank-1"), s.banks.folder / "snapshot"
    node = s.it.nodes["bank-1"]
    c = s.course()

    def restore() -> None:
        node.end()
        shutil.rmtree(home)
        shutil.copytree(kept, home)

    def incident() -> Incident:
        place = "0 shares before"  # the run has begun there, and nothing is charged
        yield from c.at("bank-1", place, lambda: shutil.copytree(home, kept))
        yield from c.at("bank-1", "1 keys before", restore)
        yield from c.come_back("bank-1")

    ended = c.run(agreed, incident(), patience=90)
    assert not ended.completed
    assert not (agreed.out / REPORT_FILE).exists()
    why, noticed = words(agreed, ended), "a sum is said to hold an update we never sent"
    assert "the ledger of bank-1" in why
    assert noticed in node.said()
    return [
        Row(
            "a member's home put back, in round 1, from a snapshot taken in round 0",
            f"the member: {noticed}; the run: {why}",
            "opened, not reported",
            "the member's has lost its charge",
            c.seconds,
        )
    ]
