# SPDX-License-Identifier: Apache-2.0
"""Parcels on their way through Flower: records, and the carrier over a Grid."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.engines.clients import Carrier, Lost
from secure_fl.engines.flower.grid import GridCarrier
from secure_fl.engines.flower.records import from_records, is_parcel, to_records
from secure_fl.engines.requests import PART, SPEC, Parcel, Reply
from secure_fl.errors import EngineError, ProtocolError

from .grid_in_process import GridInProcess, Node, carried

BODY = f"{SPEC} body"


def through_flower(parcel: Parcel) -> Parcel:
    GridInProcess({})  # names the task, as Flower does
    message, _ = carried(Message(to_records(parcel), 5, "train"))
    return from_records(message.content)


@settings(max_examples=25, deadline=None)
@given(
    st.binary(max_size=50), st.lists(st.binary(min_size=1, max_size=20), max_size=12)
)
def test_a_parcel_arrives_as_it_was(head: bytes, body: list[bytes]) -> None:
    arrived = through_flower(Parcel(head, tuple(body)))
    assert (arrived.head, b"".join(arrived.body)) == (head, b"".join(body))


def test_a_large_body_arrives_in_its_parts() -> None:
    piece = np.random.default_rng(1).bytes(2 * PART + 17)
    parcel = Reply(((0, piece), (1, b"last"))).to_parcel()
    assert len(parcel.body) == 3
    records = to_records(parcel).array_records[BODY]
    assert len(records) == 1  # Flower cuts it as it likes
    arrived = Reply.of(through_flower(parcel))
    assert arrived.pieces == ((0, piece), (1, b"last"))


def test_only_ours_is_a_parcel() -> None:
    assert is_parcel(to_records(Parcel(b"head")))
    assert not is_parcel(
        RecordDict({"arrays": ArrayRecord(), "config": ConfigRecord()})
    )


def _head(value: Any) -> Callable[[RecordDict], None]:
    def change(records: RecordDict) -> None:
        records[SPEC] = ConfigRecord(value)

    return change


def _part(name: str, array: Array) -> Callable[[RecordDict], None]:
    def change(records: RecordDict) -> None:
        records.array_records[BODY][name] = array

    return change


def _raw(dtype: str, length: int, stype: str, data: bytes) -> Array:
    return Array(dtype=dtype, shape=(length,), stype=stype, data=data)


OURS = "secure-fl.bytes"


@pytest.mark.parametrize(
    "change",
    [
        _head({}),
        _head({"head": "text"}),
        _head({"head": b"", "more": b""}),
        lambda r: r.update({SPEC: ArrayRecord()}),
        lambda r: r.update({BODY: ConfigRecord()}),
        lambda r: r.update({"metrics": MetricRecord({"loss": 0.5})}),
        lambda r: r.update({"arrays": ArrayRecord([np.zeros(2)])}),
        lambda r: r.pop(BODY),
        _part("2", _raw("uint8", 1, OURS, b"x")),
        _part("00", _raw("uint8", 1, OURS, b"x")),
        _part("0", _raw("int8", 1, OURS, b"x")),
        _part("0", _raw("uint8", 2, OURS, b"x")),
        _part("0", _raw("uint8", 0, OURS, b"")),
        _part("0", Array(np.zeros(3, np.uint8))),
    ],
)
def test_anything_else_is_refused(change: Callable[[RecordDict], None]) -> None:
    records = to_records(Parcel(b"head", (b"body",)))
    assert from_records(records) == Parcel(b"head", (b"body",))
    change(records)
    with pytest.raises(ProtocolError):
        from_records(records)


# -- the carrier -----------------------------------------------------------------------


def echo(message: Message, context: Context) -> Message:
    """An app that answers with the head reversed."""
    parcel = from_records(message.content)
    if parcel.head == b"fail":
        raise ValueError("a line\nand\x1b[31m another")
    if parcel.head == b"plain":
        return Message(RecordDict({"arrays": ArrayRecord()}), reply_to=message)
    back = Parcel(parcel.head[::-1], parcel.body)
    return Message(to_records(back), reply_to=message)


def network(count: int = 6) -> GridInProcess:
    app = ClientApp()
    app.train()(echo)
    return GridInProcess({10 + i: Node(app) for i in range(count)})


def answers(
    carrier: Carrier, parcels: dict[int, Parcel], *, timeout: float = 5.0
) -> dict[int, Parcel | Lost]:
    tickets = carrier.send(parcels, group="0.0")
    assert set(tickets) == set(parcels)
    nodes = {ticket: node for node, ticket in tickets.items()}
    assert len(nodes) == len(parcels)
    came = list(carrier.receive(nodes, timeout=timeout))
    assert len({ticket for ticket, _ in came}) == len(came)
    return {nodes[ticket]: answer for ticket, answer in came}


def test_every_node_answers_its_own_parcel() -> None:
    grid = network()
    carrier = GridCarrier(grid)
    assert set(carrier.nodes()) == set(grid.nodes)
    parcels = {n: Parcel(b"to %d" % n, (b"body",)) for n in carrier.nodes()}
    assert answers(carrier, parcels) == {
        n: Parcel((b"to %d" % n)[::-1], (b"body",)) for n in grid.nodes
    }
    assert {m.metadata.message_type for m in grid.sent} == {"train"}
    assert {m.metadata.group_id for m in grid.sent} == {"0.0"}


def test_what_fails_is_lost_with_a_reason_fit_for_a_log() -> None:
    grid = network(3)
    got = answers(
        GridCarrier(grid),
        {10: Parcel(b"fail"), 11: Parcel(b"plain"), 12: Parcel(b"well")},
    )
    assert got[12] == Parcel(b"llew")
    failed, plain = got[10], got[11]
    assert isinstance(failed, Lost)
    assert isinstance(plain, Lost)
    assert "ValueError" in failed.reason
    assert failed.reason.isprintable()
    assert "cannot be read" in plain.reason


def test_lost_late_repeated_and_reordered_replies() -> None:
    grid = network(5)
    held: list[Message] = []

    def replying(node: int, message: Message) -> Sequence[Message]:
        if node == 10:
            return []
        if node == 11:
            held.append(message)
            return []
        if node == 12:
            return [message, message]
        if node == 14:  # the last: what was held comes behind it
            return [message, *held]
        return [message]

    grid.replying = replying
    carrier = GridCarrier(grid)
    got = answers(carrier, {n: Parcel(b"%d" % n) for n in grid.nodes}, timeout=0.2)
    assert got == {n: Parcel((b"%d" % n)[::-1]) for n in (11, 12, 13, 14)}
    # A reply of an earlier exchange answers nothing of a later one.
    grid.replying = lambda node, message: [*held, message]
    assert answers(carrier, {13: Parcel(b"ab")}) == {13: Parcel(b"ba")}


def test_a_message_that_is_not_taken_is_lost() -> None:
    class Full(GridInProcess):
        def push_messages(self, messages: Any) -> Any:
            (message,) = messages
            if message.metadata.dst_node_id == 10:
                return [None]
            if message.metadata.dst_node_id == 11:
                return []
            return super().push_messages([message])

    grid = Full(network(3).nodes)
    got = answers(GridCarrier(grid), {n: Parcel(b"ab") for n in grid.nodes})
    assert got[12] == Parcel(b"ba")
    assert all(isinstance(got[n], Lost) for n in (10, 11))


def test_without_a_superlink_nothing_is_said_about_members() -> None:
    class Down(GridInProcess):
        def push_messages(self, messages: Any) -> Any:
            raise ConnectionError("no route to 10.0.0.1")

        def pull_messages(self, message_ids: Any) -> Any:
            raise ConnectionError("no route to 10.0.0.1")

        def get_node_ids(self) -> Any:
            raise ConnectionError("no route to 10.0.0.1")

    carrier = GridCarrier(Down({}))
    tries: list[Callable[[], Any]] = [
        carrier.nodes,
        lambda: carrier.send({1: Parcel(b"")}, group=""),
        lambda: list(carrier.receive(["ticket"], timeout=1)),
    ]
    for attempt in tries:
        with pytest.raises(EngineError, match="SuperLink cannot be reached"):
            attempt()


def test_an_error_of_the_superlink_is_lost() -> None:
    grid = network(1)
    grid.replying = lambda node, message: [
        Message(Error(5, "Node unavailable"), reply_to=grid.sent[-1])
    ]
    assert answers(GridCarrier(grid), {10: Parcel(b"x")}) == {
        10: Lost("Node unavailable")
    }


def test_few_replies_are_in_memory_at_once() -> None:
    asked: list[int] = []

    class Counting(GridInProcess):
        def pull_messages(self, message_ids: Any) -> Iterator[Message]:
            asked.append(len(list(message_ids)))
            return iter(super().pull_messages(message_ids))

    grid = Counting(network(9).nodes)
    got = answers(GridCarrier(grid), {n: Parcel(b"ab") for n in grid.nodes})
    assert len(got) == 9
    assert max(asked) <= 4


def test_who_stops_listening_gets_the_rest_later() -> None:
    grid = network(4)
    carrier = GridCarrier(grid)
    tickets = carrier.send({n: Parcel(b"ab") for n in grid.nodes}, group="0")
    left = set(tickets.values())
    for ticket, _ in carrier.receive(left, timeout=5):
        left.discard(ticket)
        break
    assert len(left) == 3
    assert dict(carrier.receive(left, timeout=5)) == {t: Parcel(b"ba") for t in left}
