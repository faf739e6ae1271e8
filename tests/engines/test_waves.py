# SPDX-License-Identifier: Apache-2.0
"""Requests in waves: how many are under way, who waits for whom, and when it ends."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

import secure_fl as sfl
from secure_fl.engines.clients import Lost
from secure_fl.engines.requests import Action, Countersign, Export, Open, Parcel
from secure_fl.engines.waves import Waves
from secure_fl.errors import EngineError

from .banks import NAMES, Banks
from .network import Network, go

MINUTE = 60.0


class Nodes:
    """A carrier, and the only clock: node n answers ``takes[n]`` seconds after it was
    asked, or never."""

    def __init__(self, takes: Mapping[int, float | None]) -> None:
        self.takes = dict(takes)
        self.now = 1000.0
        self.waves: list[list[int]] = []
        self.under_way: dict[str, float | None] = {}  # ticket: when it is answered
        self.most = 0

    def monotonic(self) -> float:
        return self.now

    def nodes(self) -> Sequence[int]:
        return list(self.takes)

    def send(self, parcels: Mapping[int, Parcel], *, group: str) -> Mapping[int, str]:
        assert group == "7"
        assert parcels
        self.waves.append(list(parcels))
        for node in parcels:
            takes = self.takes[node]
            self.under_way[str(node)] = None if takes is None else self.now + takes
        self.most = max(self.most, len(self.under_way))
        return {node: str(node) for node in parcels}

    def receive(
        self, tickets: Collection[str], *, timeout: float
    ) -> Iterator[tuple[str, Parcel | Lost]]:
        assert timeout >= 0
        end = self.now + timeout
        due = {t: self.under_way[t] for t in tickets}
        for ticket, when in sorted(due.items(), key=lambda row: row[1] or 0.0):
            if when is not None and when <= end:
                self.now = max(self.now, when)
                del self.under_way[ticket]
                yield ticket, Parcel(b"from " + ticket.encode())
        if any(ticket in self.under_way for ticket in tickets):
            self.now = end


TIME = "secure_fl.engines.waves.time"


def waves(nodes: Nodes, *, most: int, made: list[int] | None = None) -> Waves:
    def parcel(node: int) -> Parcel:
        if made is not None:
            made.append(node)
        return Parcel(b"to %d" % node)

    return Waves(nodes, nodes.nodes(), parcel, group="7", most=most)


def asked(nodes: Nodes) -> list[int]:
    return [node for wave in nodes.waves for node in wave]


@pytest.mark.parametrize("most", [1, 2, 3, 7, 30])
def test_all_answer_and_never_too_many_are_under_way(
    monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    shuffled = random.Random(most)
    nodes = Nodes({n: shuffled.uniform(0.0, 50.0) for n in range(30)})
    monkeypatch.setattr(TIME, nodes)
    made: list[int] = []
    it = waves(nodes, most=most, made=made)
    assert it.left == list(range(30))
    assert not made
    for n, (node, answer) in enumerate(it.answers(timeout=30 * 50.0)):
        assert answer == Parcel(b"from %d" % node)
        assert len(made) <= n + most  # what has not left is not in memory
        assert made == asked(nodes)
    assert it.left == []
    assert sorted(asked(nodes)) == list(range(30))
    assert nodes.most == most


def test_as_many_as_may_be_under_way_are_asked_at_once(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = Nodes({n: 500.0 - n for n in range(5)})
    monkeypatch.setattr(TIME, nodes)
    got = [node for node, _ in waves(nodes, most=5).answers(timeout=501.0)]
    assert got == [4, 3, 2, 1, 0]
    assert nodes.waves == [[0, 1, 2, 3, 4]]
    assert nodes.now == 1500.0


def test_a_wave_is_half_of_what_may_be_under_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = Nodes({n: 1.0 + n for n in range(10)})
    monkeypatch.setattr(TIME, nodes)
    assert len(list(waves(nodes, most=4).answers(timeout=60.0))) == 10
    assert nodes.waves == [[0, 1, 2, 3], [4, 5], [6, 7], [8, 9]]


def test_the_silent_hold_nobody_back_for_more_than_a_minute(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = Nodes({0: None, 1: None, 2: None, 3: 1.0, 4: 1.0, 5: None, 6: 1.0})
    monkeypatch.setattr(TIME, nodes)
    it = waves(nodes, most=2)
    got = [node for node, _ in it.answers(timeout=3 * MINUTE)]
    assert got == [3, 4, 6]
    assert it.left == [0, 1, 2, 5]
    assert nodes.now == 1000.0 + 3 * MINUTE
    # Whoever was silent for a minute is still listened to.
    nodes.under_way["1"] = nodes.now + 5.0
    assert [node for node, _ in it.answers(timeout=10.0)] == [1]
    assert it.left == [0, 2, 5]


def test_trainings_longer_than_a_minute_are_side_by_side(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = Nodes(dict.fromkeys(range(12), 15 * MINUTE))
    monkeypatch.setattr(TIME, nodes)
    assert len(list(waves(nodes, most=4).answers(timeout=60 * MINUTE))) == 12
    assert nodes.now == 1000.0 + 17 * MINUTE  # two waves more, each a minute later


def test_nobody_is_asked_when_time_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = Nodes(dict.fromkeys(range(4)))
    monkeypatch.setattr(TIME, nodes)
    it = waves(nodes, most=2)
    assert list(it.answers(timeout=MINUTE)) == []
    assert nodes.waves == [[0, 1]]
    assert it.left == [0, 1, 2, 3]


def test_what_came_in_time_is_given_out_whatever_its_reader_does_meanwhile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = Nodes(dict.fromkeys(range(8), 1.0))
    monkeypatch.setattr(TIME, nodes)
    it = waves(nodes, most=4)
    found = []
    for node, _ in it.answers(timeout=10.0):
        found.append(node)
        nodes.now += 4.0  # what it takes to read it
    assert found == asked(nodes)
    assert nodes.under_way == {}
    assert sorted(found + it.left) == list(range(8))


def test_who_stops_listening_may_go_on_or_leave_the_others_unasked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nodes = Nodes(dict.fromkeys(range(6), 1.0))
    monkeypatch.setattr(TIME, nodes)
    it = waves(nodes, most=2)
    first = next(iter(it.answers(timeout=60.0)))
    assert first[0] == 0
    assert it.left == [1, 2, 3, 4, 5]
    assert asked(nodes) == [0, 1]
    assert [node for node, _ in it.answers(timeout=60.0)] == [1, 2, 3, 4, 5]
    assert sorted(asked(nodes)) == list(range(6))


# -- a whole run -----------------------------------------------------------------------


@pytest.mark.parametrize("most", [1, 3])
def test_a_run_in_waves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int
) -> None:
    """It ends as in one wave, with a member of the last that is lost in every one."""
    monkeypatch.setattr("secure_fl.engines.remote._GRACE", 10.0)
    monkeypatch.setattr("secure_fl.engines.remote._LOOK_AGAIN", 0.01)
    monkeypatch.setattr("secure_fl.engines.remote._IN_FLIGHT", most)
    banks = Banks(tmp_path)
    victim = NAMES[-1]

    def fault(name: str, actions: tuple[Action, ...], sent: int) -> str:
        ours = any(isinstance(a, Open | Countersign | Export) for a in actions)
        return "" if ours or name != victim else "lost"

    network = Network(banks, fault)
    run = go(banks, network)
    rows = run.report.data["rounds"]
    assert [row["survivors"] for row in rows] == [list(NAMES[:-1])] * 3
    assert sfl.verify_run(tmp_path / "out").epsilon
    assert network.most_under_way == most


def test_two_nodes_of_one_member_meet_in_any_wave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("secure_fl.engines.remote._IN_FLIGHT", 1)
    banks = Banks(tmp_path)
    network = Network(banks)
    network.extra = {90: NAMES[0]}
    with pytest.raises(EngineError, match=f"two nodes are {NAMES[0]}"):
        go(banks, network)
