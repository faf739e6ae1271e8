# SPDX-License-Identifier: Apache-2.0
"""Every transition once, every illegal move refused, no secret in sight."""

from __future__ import annotations

import copy
import pickle
import re
from collections.abc import Callable

import numpy as np
import pytest

from secure_fl.errors import ProtocolError, StateReused, TooFewClients, UsageError
from secure_fl.identity import Identity
from secure_fl.keystore import MemoryKeystore
from secure_fl.masking import (
    AwaitCohort,
    AwaitInbox,
    AwaitSignatures,
    AwaitStatement,
    CollectAdvertise,
    Uploading,
    messages,
    start,
    unpark,
)
from secure_fl.randomness import SeededInsecure

from ..consortium import (
    CLAIM,
    ClientState,
    Consortium,
    identities,
    make_session,
    plain_sum,
    with_field,
)

PARKED = [
    (1, AwaitCohort),
    (2, AwaitInbox),
    (3, AwaitStatement),
    (4, AwaitSignatures),
]
TRANSITIONS = {"on_cohort", "on_inbox", "chunks", "finish", "on_statement"} | {
    "on_signatures"
}


def at_step(steps: int, *, n: int = 3) -> tuple[Consortium, ClientState, bytes]:
    """Client 0's state after ``steps`` steps, and the message it awaits."""
    consortium = Consortium(make_session(n)).run(steps=steps)
    return consortium, consortium.states[0], consortium.outgoing[0]


def uploading() -> tuple[Consortium, Uploading]:
    consortium, state, told = at_step(2)
    after = answer(consortium, state, told)
    assert isinstance(after, Uploading)
    return consortium, after


def answer(consortium: Consortium, state: ClientState, told: bytes) -> object:
    """Give ``state`` the message it awaits."""
    session = consortium.session
    match state:
        case AwaitCohort():
            keys = messages.CohortKeys.decode(told, session)
            return state.on_cohort(keys, random=consortium.deals[0])[0]
        case AwaitInbox():
            inbox = messages.Inbox.decode(told, session, reader=0)
            return state.on_inbox(inbox, consortium.vectors[0], claim=CLAIM)
        case AwaitStatement():
            return state.on_statement(messages.Statement.decode(told, session))[0]
        case AwaitSignatures():
            return state.on_signatures(messages.Signatures.decode(told, session))


@pytest.mark.parametrize(("steps", "kind"), PARKED)
def test_each_step_returns_the_next_state(steps: int, kind: type[ClientState]) -> None:
    consortium, state, told = at_step(steps)
    assert type(state) is kind
    follows = [AwaitInbox, Uploading, AwaitSignatures, messages.Reveal]
    assert type(answer(consortium, state, told)) is follows[steps - 1]


@pytest.mark.parametrize(("steps", "kind"), PARKED)
def test_an_illegal_step_has_no_method(steps: int, kind: type[ClientState]) -> None:
    legal = {1: "on_cohort", 2: "on_inbox", 3: "on_statement", 4: "on_signatures"}
    assert {m for m in TRANSITIONS if hasattr(kind, m)} == {legal[steps]}


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_state_answers_once(steps: int) -> None:
    consortium, state, told = at_step(steps)
    answer(consortium, state, told)
    with pytest.raises(StateReused) as caught:
        answer(consortium, state, told)
    assert caught.value.hint
    with pytest.raises(StateReused):
        state.park()


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_parked_state_is_spent(steps: int) -> None:
    consortium, state, told = at_step(steps)
    state.park()
    with pytest.raises(StateReused):
        answer(consortium, state, told)
    with pytest.raises(StateReused):
        state.park()


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_an_error_spends_the_state(steps: int) -> None:
    """Spend first, check second: a refused message is not tried again."""
    consortium, state, told = at_step(steps)
    # An empty list of rows is well formed, and never enough.
    bad = with_field(told, 4 if steps == 3 else 2, [])
    with pytest.raises((ProtocolError, TooFewClients)):
        answer(consortium, state, bad)
    with pytest.raises(StateReused):
        answer(consortium, state, told)


@pytest.mark.parametrize(
    "duplicate",
    [copy.copy, copy.deepcopy, pickle.dumps, lambda s: pickle.dumps(s, protocol=2)],
)
@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_states_are_not_copied_or_pickled(
    steps: int, duplicate: Callable[[object], object]
) -> None:
    state: object = uploading()[1] if steps == 5 else at_step(steps)[1]
    with pytest.raises(TypeError, match="not copied or pickled"):
        duplicate(state)


@pytest.mark.parametrize("steps", [1, 2, 3, 4, 5])
def test_a_state_prints_its_kind_and_nothing_else(steps: int) -> None:
    state: object = uploading()[1] if steps == 5 else at_step(steps)[1]
    shape = rf"<{type(state).__name__} client=0 spent=False>"
    for text in (repr(state), str(state), f"{state}"):
        assert re.fullmatch(shape, text)
    assert not hasattr(state, "__dict__")


def test_messages_with_shares_or_words_do_not_print_them() -> None:
    consortium = Consortium(make_session(3)).run()
    consortium.reveal()
    session = consortium.session
    chunk = messages.Chunk.decode(consortium.said[3][0][0], session)
    assert repr(chunk.words) not in repr(chunk)
    reveal = messages.Reveal.decode(consortium.said[5][0][0], session)
    for share in reveal.shares:
        assert repr(share.share) not in repr(reveal)


# -- parking ------------------------------------------------------------------


def test_a_client_that_parks_between_all_steps_opens_the_same_sum() -> None:
    consortium = Consortium(make_session(4))
    store = MemoryKeystore()
    for step in (
        consortium.advertise,
        consortium.deal,
        consortium.upload,
        consortium.agree,
    ):
        step()
        for client, state in consortium.states.items():
            key = consortium.session.ctx + bytes([client])
            store.park(key, state.park())
            taken: list[bytes] = []
            store.advance(key, taken.append)
            consortium.states[client] = unpark(
                consortium.session, consortium.names[client], *taken
            )
            with pytest.raises(UsageError):
                store.advance(key, taken.append)
    opened = consortium.reveal()
    assert opened.words.tolist() == plain_sum(
        consortium.session, consortium.vectors, range(4)
    )


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_a_parked_state_belongs_to_one_context_and_client(steps: int) -> None:
    consortium, state, _ = at_step(steps)
    data = state.park()
    for other in (make_session(3, attempt=1), make_session(3, model=b"x" * 32)):
        with pytest.raises(UsageError, match="another context"):
            unpark(other, consortium.names[0], data)
    with pytest.raises(UsageError, match="another context"):
        unpark(consortium.session, consortium.names[1], data)
    with pytest.raises(UsageError):
        unpark(consortium.session, identities(4)[3], data)
    assert type(unpark(consortium.session, consortium.names[0], data)) is type(state)


def test_a_parked_state_refuses_another_key_under_the_same_name() -> None:
    consortium, state, _ = at_step(1)
    stranger = Identity.new("bank-0", random=SeededInsecure(b"stranger"))
    with pytest.raises(UsageError):
        unpark(consortium.session, stranger, state.park())


@pytest.mark.parametrize(
    "change",
    [
        lambda d: b"",
        lambda d: d[:-1],
        lambda d: d + b"\x00",
        lambda d: bytes([d[0]]) + b"\x00" + d[2:],
        lambda d: bytes([d[0]]) + b"\x09" + d[2:],
    ],
)
def test_bytes_that_are_no_parked_state_are_refused(
    change: Callable[[bytes], bytes],
) -> None:
    consortium, state, _ = at_step(1)
    data = change(state.park())
    with pytest.raises(UsageError):
        unpark(consortium.session, consortium.names[0], data)


# -- uploading ----------------------------------------------------------------


def test_chunks_are_made_once() -> None:
    _, state = uploading()
    first, second = state.chunks(), state.chunks()
    next(first)
    with pytest.raises(StateReused):
        next(second)
    list(first)
    with pytest.raises(StateReused):
        next(state.chunks())
    state.finish()
    with pytest.raises(StateReused):
        next(state.chunks())
    with pytest.raises(StateReused):
        state.finish()


def test_finish_comes_after_every_chunk() -> None:
    _, state = uploading()
    next(state.chunks())
    with pytest.raises(UsageError, match="every chunk"):
        state.finish()
    with pytest.raises(StateReused):
        state.finish()


def test_an_upload_is_not_parked() -> None:
    _, state = uploading()
    with pytest.raises(UsageError, match="not parked"):
        state.park()


def test_no_chunk_leaves_after_an_early_finish() -> None:
    """``finish`` lets the seeds go; a chunk made after it would be plain text."""
    consortium, state = uploading()
    chunks = state.chunks()
    next(chunks)
    with pytest.raises(UsageError):
        state.finish()
    begin, end = consortium.session.parameters.chunk_range(1)
    try:
        leaked = next(chunks).words
    except (StateReused, StopIteration):
        return
    assert leaked != consortium.vectors[0][begin:end].tobytes()


@pytest.mark.parametrize(
    "words",
    [
        np.zeros(4, np.uint32),
        np.zeros(6, np.uint32),
        np.zeros((5, 1), np.uint32),
        np.zeros(5, np.uint64),
        np.zeros(5, np.float32),
    ],
)
def test_only_a_vector_of_the_sessions_shape_is_masked(
    words: np.ndarray[tuple[int, ...], np.dtype[np.uint32]],
) -> None:
    consortium, state, told = at_step(2)
    consortium.vectors[0] = words
    with pytest.raises(UsageError):
        answer(consortium, state, told)


def test_a_claim_has_32_bytes() -> None:
    consortium, state, told = at_step(2)
    assert isinstance(state, AwaitInbox)
    inbox = messages.Inbox.decode(told, consortium.session, reader=0)
    with pytest.raises(UsageError):
        state.on_inbox(inbox, consortium.vectors[0], claim=b"short")


def test_a_payload_root_has_none_or_32_bytes() -> None:
    _, state = uploading()
    list(state.chunks())
    with pytest.raises(UsageError):
        state.finish(attached=b"short")


def test_masking_leaves_the_callers_vector_alone() -> None:
    consortium, state = uploading()
    before = consortium.vectors[0].copy()
    list(state.chunks())
    assert (consortium.vectors[0] == before).all()


# -- starting -----------------------------------------------------------------


@pytest.mark.parametrize("random", [b"", bytes(31), bytes(32), b"r" * 33])
def test_start_asks_for_32_fresh_bytes(random: bytes) -> None:
    with pytest.raises(UsageError, match="32 fresh bytes"):
        start(make_session(3), identities(3)[0], random=random)


@pytest.mark.parametrize("random", [b"", bytes(32), b"r" * 31])
def test_dealing_asks_for_32_fresh_bytes(random: bytes) -> None:
    consortium, state, told = at_step(1)
    assert isinstance(state, AwaitCohort)
    keys = messages.CohortKeys.decode(told, consortium.session)
    with pytest.raises(UsageError, match="32 fresh bytes"):
        state.on_cohort(keys, random=random)
    with pytest.raises(StateReused):
        state.on_cohort(keys, random=b"r" * 32)


def test_start_asks_for_a_member_with_its_own_key() -> None:
    session = make_session(3)
    with pytest.raises(UsageError, match="not in the roster"):
        start(session, identities(4)[3], random=b"r" * 32)
    stranger = Identity.new("bank-0", random=SeededInsecure(b"stranger"))
    with pytest.raises(UsageError, match="another key"):
        start(session, stranger, random=b"r" * 32)


# -- the aggregator's collectors ----------------------------------------------


def test_a_closed_collector_takes_and_closes_nothing() -> None:
    consortium = Consortium(make_session(3)).run()
    consortium.reveal()
    session = consortium.session
    advertise = messages.Advertise.decode(consortium.said[1][0][0], session)
    shares = messages.SealedShares.decode(consortium.said[2][0][0], session)
    chunk = messages.Chunk.decode(consortium.said[3][0][0], session)
    masked = messages.MaskedInput.decode(consortium.said[3][0][-1], session)
    agreement = messages.Agreement.decode(consortium.said[4][0][0], session)
    reveal = messages.Reveal.decode(consortium.said[5][0][0], session)
    late: list[Callable[[], object]] = [
        lambda: consortium.collect_shares.add(0, shares),
        lambda: consortium.collect_inputs.add_chunk(0, chunk),
        lambda: consortium.collect_inputs.add(0, masked),
        lambda: consortium.collect_agreements.add(0, agreement),
        lambda: consortium.collect_reveals.add(0, reveal),
        consortium.collect_shares.close,
        consortium.collect_inputs.close,
        consortium.collect_agreements.close,
        consortium.collect_reveals.close,
    ]
    for move in late:
        with pytest.raises(StateReused):
            move()
    collector = CollectAdvertise(session)
    with pytest.raises(TooFewClients):
        collector.close()
    with pytest.raises(StateReused):
        collector.add(0, advertise)
    with pytest.raises(StateReused):
        collector.close()


def test_a_collector_prints_counts_only() -> None:
    consortium = Consortium(make_session(3)).run(steps=1)
    assert repr(consortium.collect_shares) == "<CollectShares have=0 closed=False>"
