# SPDX-License-Identifier: Apache-2.0
"""Whole rounds: any dropouts give the exact sum of the survivors, or TooFewClients."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.errors import (
    FaultyClient,
    ProtocolError,
    StateReused,
    TooFewClients,
    UsageError,
)
from secure_fl.masking.messages import Chunk
from secure_fl.plain import CollectPlain, upload

from ..consortium import (
    CLAIM,
    Consortium,
    dropping,
    flipped,
    make_session,
    make_vectors,
    plain_sum,
)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[Consortium, dict[int, int]]:
    """A consortium of any shape, and who falls silent at which step."""
    n = draw(st.integers(3, 7))
    colluding = draw(st.integers(0, n - 2))
    floor = (n + colluding) // 2 + 1
    session = make_session(
        n,
        length=draw(st.integers(1, 23)),
        word_bits=draw(st.integers(8, 64)),
        chunk_words=draw(st.integers(1, 9)),
        threshold=draw(st.integers(floor, n)),
        min_clients=draw(st.integers(colluding + 2, n)),
        max_colluding=colluding,
    )
    drops = draw(
        st.dictionaries(st.integers(0, n - 1), st.integers(1, 5), max_size=n - 1)
    )
    vectors = make_vectors(session, seed=draw(st.integers(0, 2**32)))
    return Consortium(session, vectors=vectors, sending=dropping(drops)), drops


def expected_survivors(
    consortium: Consortium, drops: dict[int, int]
) -> tuple[int, ...] | None:
    """Who is in the sum, from the specification alone; None where nothing opens."""
    p = consortium.session.parameters
    alive = range(p.clients)
    survivors: tuple[int, ...] = ()
    for step in range(1, 6):
        alive = [i for i in alive if drops.get(i, 9) > step]  # type: ignore[assignment]
        needed = p.threshold if step > 3 else max(p.threshold, p.min_clients)
        if len(alive) < needed:
            return None
        if step == 3:
            survivors = tuple(alive)
    return survivors


@settings(max_examples=120)
@given(rounds())
def test_any_dropouts_give_the_exact_sum_or_too_few_clients(
    case: tuple[Consortium, dict[int, int]],
) -> None:
    consortium, drops = case
    expected = expected_survivors(consortium, drops)
    if expected is None:
        with pytest.raises(TooFewClients) as caught:
            consortium.opened()
        assert caught.value.alive < caught.value.needed
        return
    opened = consortium.opened()
    assert opened.survivors == expected
    assert opened.words.tolist() == plain_sum(
        consortium.session, consortium.vectors, expected
    )
    assert not consortium.left
    assert not consortium.refused


@settings(max_examples=40)
@given(rounds())
def test_the_masked_sum_is_bit_identical_with_the_plain_one(
    case: tuple[Consortium, dict[int, int]],
) -> None:
    consortium, _ = case
    try:
        opened = consortium.opened()
    except TooFewClients:
        return
    collector = CollectPlain(consortium.session)
    for i in opened.survivors:
        words = consortium.vectors[i]
        for message in upload(
            consortium.session, consortium.names[i], words, claim=CLAIM
        ):
            if isinstance(message, Chunk):
                collector.add_chunk(i, message)
            else:
                collector.add(i, message)
    plain = collector.close()
    assert plain.survivors == opened.survivors
    assert plain.words.dtype == opened.words.dtype
    assert plain.words.tobytes() == opened.words.tobytes()


@pytest.mark.parametrize("word_bits", [8, 9, 16, 17, 31, 32, 33, 63, 64])
def test_every_width_over_chunk_edges(word_bits: int) -> None:
    for length in (1, 3, 4, 7):
        session = make_session(3, length=length, word_bits=word_bits)
        consortium = Consortium(session)
        assert consortium.opened().words.tolist() == plain_sum(
            session, consortium.vectors, range(3)
        )


def test_zero_vectors_do_not_leave_as_zeros() -> None:
    """A masked word is uniform: the same input never leaves twice as the same bytes."""
    session = make_session(3, length=64, chunk_words=32)
    zeros = [np.zeros(64, np.uint32) for _ in range(3)]
    seen: set[bytes] = set()
    for attempt in range(3):
        again = dataclasses.replace(session, attempt=attempt)
        consortium = Consortium(again, vectors=zeros).run(steps=3)
        for client in range(3):
            for raw in consortium.said[3][client][:-1]:
                words = Chunk.decode(raw, again).words
                assert len(set(words)) > 40
                seen.add(bytes(words))
    assert len(seen) == 3 * 3 * 2


def test_the_same_secrets_under_another_context_give_other_masks() -> None:
    first = Consortium(make_session(3), seed=b"one").run(steps=3)
    second = Consortium(make_session(3, attempt=1), seed=b"one").run(steps=3)
    words = [Chunk.decode(c.said[3][0][0], c.session).words for c in (first, second)]
    assert words[0] != words[1]


def test_a_refused_message_does_not_stop_the_others() -> None:
    """One client garbles a message at each step in turn; the others finish."""
    for step in range(1, 6):
        session = make_session(5)

        def garble(at: int, who: int, data: bytes, step: int = step) -> bytes:
            return flipped(data) if (at, who) == (step, 4) else data

        consortium = Consortium(session, sending=garble)
        opened = consortium.opened()
        # It is in the sum where its vector was in before it garbled.
        expected = (0, 1, 2, 3, 4) if step > 3 else (0, 1, 2, 3)
        assert opened.survivors == expected
        assert opened.words.tolist() == plain_sum(session, consortium.vectors, expected)
        assert consortium.refused
        assert {(at, who) for at, who, _ in consortium.refused} == {(step, 4)}
        assert all(isinstance(e, ProtocolError) for _, _, e in consortium.refused)


def test_a_client_that_drops_mid_upload_is_not_in_the_sum() -> None:
    session = make_session(4, length=9, chunk_words=2)
    count = 0

    def stops(step: int, client: int, data: bytes) -> bytes | None:
        nonlocal count
        if (step, client) == (3, 1):
            count += 1
            return data if count <= 2 else None
        return data

    consortium = Consortium(session, sending=stops)
    opened = consortium.opened()
    assert opened.survivors == (0, 2, 3)
    assert opened.words.tolist() == plain_sum(session, consortium.vectors, (0, 2, 3))


def test_opened_shows_no_words_in_its_repr() -> None:
    assert "words" not in repr(Consortium(make_session(3)).opened())


# -- no protection, the same words ---------------------------------------------


def plain_round(n: int = 3) -> tuple[Consortium, CollectPlain]:
    c = Consortium(make_session(n))
    collector = CollectPlain(c.session)
    for i in range(n):
        send_plain(c, collector, i)
    return c, collector


def send_plain(c: Consortium, collector: CollectPlain, client: int) -> None:
    words = c.vectors[client]
    for message in upload(c.session, c.names[client], words, claim=CLAIM):
        if isinstance(message, Chunk):
            collector.add_chunk(client, message)
        else:
            collector.add(client, message)


def test_plain_refuses_who_speaks_twice_or_for_another() -> None:
    c, collector = plain_round()
    with pytest.raises(FaultyClient, match="bank-1: speaks twice"):
        send_plain(c, collector, 1)
    fresh = CollectPlain(c.session)
    with pytest.raises(FaultyClient, match="bank-2: speaks twice, or in another's"):
        fresh.add_chunk(2, Chunk(1, 0, bytes(12)))


def test_plain_opens_nothing_below_what_the_plan_needs() -> None:
    c = Consortium(make_session(4))
    collector = CollectPlain(c.session)
    send_plain(c, collector, 0)
    with pytest.raises(TooFewClients):
        collector.close()


@pytest.mark.parametrize("late", ["close", "chunk"])
def test_a_closed_plain_collector_takes_and_closes_nothing(late: str) -> None:
    c = Consortium(make_session(4))
    collector = CollectPlain(c.session)
    for i in range(3):
        send_plain(c, collector, i)
    collector.close()
    moves: dict[str, Callable[[], object]] = {
        "close": collector.close,
        "chunk": lambda: send_plain(c, collector, 3),
    }
    with pytest.raises(StateReused):
        moves[late]()


def test_plain_refuses_a_vector_of_another_length() -> None:
    c = Consortium(make_session(3))
    words = np.zeros(9, np.uint32)
    with pytest.raises(UsageError):
        list(upload(c.session, c.names[0], words, claim=CLAIM))
