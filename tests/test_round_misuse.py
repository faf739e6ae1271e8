# SPDX-License-Identifier: Apache-2.0
"""Engines and networks that misbehave: nobody is blamed, lost or answered twice."""

from __future__ import annotations

import contextlib
import pickle
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_fl import errors, wire
from secure_fl.errors import (
    EngineError,
    FaultyAggregator,
    FaultyClient,
    ProtocolError,
    SecureFLError,
    TooFewClients,
    UsageError,
)
from secure_fl.masking import messages
from secure_fl.masking.vectors import Vectors, chunk_tree
from secure_fl.round import Participant, parked

from .consortium import make_session
from .engines.support import NAMES
from .test_round import MODEL, World, note, opened

NAME = "clinic-a"


@pytest.fixture(params=[False, True], ids=["resident", "parked"])
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    yield from opened(tmp_path, parked=request.param)


@pytest.fixture
def resident_world(tmp_path: Path) -> Iterator[World]:
    yield from opened(tmp_path, parked=False)


@pytest.fixture
def parked_world(tmp_path: Path) -> Iterator[World]:
    yield from opened(tmp_path, parked=True)


# -- attempts that overlap ---------------------------------------------------------


def test_an_upload_ends_where_another_attempt_is_opened(resident_world: World) -> None:
    world = resident_world
    a = world.aggregation((0, 0))
    inboxes = world.up_to_inboxes(a, (0, 0))
    world.offer(NAME)
    client = world.participants[NAME]
    upload = client.handle(inboxes[NAME])
    next(upload)
    client.open(0, 1, MODEL)
    with pytest.raises(UsageError, match="the attempt is over"):
        next(upload)
    assert world.states(NAME) == ["sent"]
    # The update is spent in the first context: the second needs a new one.
    assert client.needs_update


def test_an_update_leaves_in_the_context_it_is_charged_in(
    resident_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`open` in another thread, between an inbox and the words that answer it."""
    world = resident_world
    a = world.aggregation((0, 0))
    inboxes = world.up_to_inboxes(a, (0, 0))
    world.offer(NAME)
    client, ledger = world.participants[NAME], world.ledgers[NAME]
    opening = threading.Thread(target=lambda: client.open(0, 1, MODEL))
    decode, sent = messages.Inbox.decode, ledger.sent
    booked: list[bytes] = []

    def then_open(*args: Any, **named: Any) -> messages.Inbox:
        opening.start()
        time.sleep(0.1)  # long enough, were it let in
        return decode(*args, **named)

    def book(*args: Any, ctx: bytes, **named: Any) -> None:
        booked.append(ctx)
        sent(*args, ctx=ctx, **named)

    monkeypatch.setattr(messages.Inbox, "decode", then_open)
    monkeypatch.setattr(ledger, "sent", book)
    left: list[bytes] = []
    with contextlib.suppress(UsageError):
        left.extend(client.handle(inboxes[NAME]))
    opening.join()
    assert booked == [a.session.ctx]
    assert {messages.context_of(m) for m in left} <= {a.session.ctx}
    assert client.needs_update


# -- parked clients that meet an error -----------------------------------------------


@pytest.mark.parametrize("attempt", [2**32, 2**62, 2**64, -1, True, np.int64(0)])
def test_an_attempt_out_of_range_costs_nothing(world: World, attempt: Any) -> None:
    client = world.participants[NAME]
    with pytest.raises(UsageError):
        client.open(0, attempt, MODEL)
    assert len(client.open(0, 0, MODEL)) == 1


def test_a_passing_error_of_the_disk_leaves_a_parked_client_where_it_was(
    parked_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = parked_world
    a = world.aggregation((0, 0))
    world.up_to_inboxes(a, (0, 0))
    world.offer(NAME)
    client = world.participants[NAME]

    def fails(*_: object) -> None:
        raise EngineError("the disk is away")

    with monkeypatch.context() as m:
        m.setattr(world.ledgers[NAME], "entries", fails)
        with pytest.raises(EngineError, match="the disk is away"):
            list(client.handle(a.outgoing[NAME]))
    # Nothing was answered: the same message is.
    assert len(list(client.handle(a.outgoing[NAME]))) >= 2


def test_an_error_of_another_kind_ends_the_attempt_and_not_the_client(
    parked_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = parked_world.participants[NAME]

    def fails(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    client.open(0, 0, MODEL)
    with monkeypatch.context() as m:
        m.setattr(Participant, "handle", fails)
        with pytest.raises(RuntimeError, match="new thread"):
            list(client.handle(b"anything"))
    assert len(client.open(0, 1, MODEL)) == 1


def test_an_update_too_large_to_park_is_refused_and_the_client_goes_on(
    parked_world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = parked_world
    world.up_to_inboxes(world.aggregation((0, 0)), (0, 0))
    monkeypatch.setattr(parked, "_MOST", MODEL.size - 1)
    with pytest.raises(EngineError, match="too large to park"):
        world.offer(NAME)
    assert world.states(NAME) == ["reserved"]  # it stays charged
    assert len(world.participants[NAME].open(0, 1, MODEL)) == 1


# -- a network that is slow or says things twice -----------------------------------


def test_a_late_or_repeated_message_is_let_go(world: World) -> None:
    before = world.aggregation((0, 0))
    late = {n: p.open(0, 0, MODEL)[0] for n, p in world.participants.items()}
    a = world.aggregation((0, 1))
    first = {n: p.open(0, 1, MODEL)[0] for n, p in world.participants.items()}
    assert before.receive(NAME, late[NAME])
    assert not a.receive(NAME, late[NAME])  # of another attempt
    assert a.receive(NAME, first[NAME])
    assert not a.receive(NAME, first[NAME])  # the same once more
    other = world.identities[NAME].sign("nothing of the protocol")
    changed = wire.Fields(wire.decode(first[NAME]))
    data = wire.encode({k: changed.value(k) for k in range(5)} | {5: other})
    with pytest.raises(FaultyClient, match="second message"):
        a.receive(NAME, data)


def to_the_end(world: World, place: tuple[int, int], *, late: str) -> tuple[Any, bytes]:
    """A whole attempt, closed before ``late`` agrees and reveals; its agreement."""
    a = world.aggregation(place)
    inboxes = world.up_to_inboxes(a, place)
    kept = b""
    for name in NAMES:
        world.offer(name)
        for m in world.participants[name].handle(inboxes[name]):
            a.receive(name, m)
    a.advance()
    while a.result is None:
        for name, message in dict(a.outgoing).items():
            for m in world.participants[name].handle(message):
                if name == late:
                    kept = m
                else:
                    a.receive(name, m)
        a.advance()
    return a, kept


def test_what_comes_after_the_end_is_let_go(world: World) -> None:
    a, agreement = to_the_end(world, (0, 0), late="clinic-d")
    assert a.result is not None
    assert a.result.survivors == NAMES
    reveal = wire.encode({0: 10, 1: a.session.ctx, 2: 3, 3: [], 4: bytes(64)})
    assert not a.receive("clinic-d", agreement)
    assert not a.receive("clinic-d", reveal)
    with pytest.raises(UsageError, match="the attempt is over"):
        a.advance()


def test_what_comes_after_too_few_is_let_go(world: World) -> None:
    a = world.aggregation((0, 0))
    first = {n: p.open(0, 0, MODEL)[0] for n, p in world.participants.items()}
    with pytest.raises(TooFewClients):
        a.advance()
    assert not a.receive(NAME, first[NAME])


def test_a_late_agreement_is_nobodys_fault(resident_world: World) -> None:
    """The sum was opened with it in, on the word of the others."""
    world = resident_world
    client = world.participants["clinic-d"]
    said: list[bytes] = []
    handle = client.handle

    def heard(message: bytes) -> Iterator[bytes]:
        for m in handle(message):
            said.append(m)
            yield m

    client.handle = heard  # type: ignore[method-assign]
    opening = client.open

    def opened_(*place: Any) -> list[bytes]:
        said.extend(first := opening(*place))
        return first

    client.open = opened_  # type: ignore[method-assign,assignment]
    to_the_end(world, (0, 0), late="clinic-d")
    for m in said:
        if messages.kind_of(m) in (1, 3, 6):
            note(world, (0, 0), "clinic-d", m)
    assert 8 in map(messages.kind_of, said)
    assert client.countersign(world.log.entries, world.log.entries[-1])


def test_two_threads_do_not_add_a_vector_twice() -> None:
    session = make_session(3, length=400_000, chunk_words=50_000)
    p = session.parameters
    for _ in range(5):
        vectors, tree = Vectors(session, range(3)), chunk_tree()
        for index in range(p.chunks):
            data = np.full(50_000, 3, np.uint32).tobytes()
            tree.add(tree.leaf(data))
            vectors.add(0, index, data)
        root = tree.root()
        refused: list[ProtocolError] = []

        def join(
            vectors: Vectors = vectors,
            root: bytes = root,
            refused: list[ProtocolError] = refused,
        ) -> None:
            try:
                vectors.join(0, root)
            except ProtocolError as error:
                refused.append(error)

        with ThreadPoolExecutor(2) as pool:
            for future in [pool.submit(join) for _ in range(2)]:
                future.result()
        assert len(refused) == 1
        assert (vectors.total() == 3).all()


@pytest.mark.parametrize("kind", range(1, 11))
def test_a_large_malformed_message_is_cheap(kind: int) -> None:
    """A megabyte of empty arrays would cost a second and eighty megabytes."""
    session = make_session(5)
    start = wire.encode({0: kind, 1: session.ctx})
    data = b"\xa3" + start[1:] + b"\x02\x9a\x00\x0f\xff\xff" + b"\x80" * 0xFFFFF
    assert messages.kind_of(data) == kind
    decoders: dict[int, Callable[[], object]] = {
        1: lambda: messages.Advertise.decode(data, session),
        2: lambda: messages.CohortKeys.decode(data, session),
        3: lambda: messages.SealedShares.decode(data, session),
        4: lambda: messages.Inbox.decode(data, session, reader=0),
        5: lambda: messages.Chunk.decode(data, session),
        6: lambda: messages.MaskedInput.decode(data, session),
        7: lambda: messages.Statement.decode(data, session),
        8: lambda: messages.Agreement.decode(data, session),
        9: lambda: messages.Signatures.decode(data, session),
        10: lambda: messages.Reveal.decode(data, session),
    }
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            decoders[kind]()
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()


# -- what errors carry ----------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        FaultyClient("bank-a", "is late", hint="wait"),
        errors.FaultyClientOrAggregator("bank-a", "is late"),
        TooFewClients(2, 3, hint="wait"),
        FaultyAggregator("lies"),
        errors.PlanError("is wrong", key="rounds"),
        errors.VerificationError("is wrong", file="plan.toml"),
        errors.BudgetExceeded(
            "bank-a", spent=1.0, projected=2.0, limit=1.5, delta=1e-5, hint="stop"
        ),
    ],
    ids=lambda e: type(e).__name__,
)
def test_errors_cross_processes(error: SecureFLError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert str(again) == str(error)
    assert again.__dict__ == error.__dict__


def test_an_error_leaves_no_frame_of_the_protocol_behind(world: World) -> None:
    a = world.aggregation((0, 0))
    inboxes = world.up_to_inboxes(a, (0, 0))
    world.offer(NAME)
    client = world.participants[NAME]
    other = inboxes["clinic-b"]
    with pytest.raises(ProtocolError) as caught:
        list(client.handle(other))
    frames = traceback.extract_tb(caught.value.__traceback__)
    assert not [f for f in frames if "masking" in Path(f.filename).parts]
    assert caught.value.__context__ is None
