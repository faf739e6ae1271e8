# SPDX-License-Identifier: Apache-2.0
"""What a step holds: its vector, a few chunks, one buffer of keystream; one sum."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from secure_fl import parallel
from secure_fl.engines.bench import client_peak_bytes
from secure_fl.errors import FaultyClient
from secure_fl.masking.vectors import Vectors, chunk_tree

from ..consortium import make_session

MiB = 2**20


def peak(work: Callable[[], object]) -> int:
    tracemalloc.start()
    try:
        work()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("bits", [32, 20, 64])
def test_a_client_holds_a_few_chunks_beyond_its_vector(bits: int) -> None:
    # Chunks of 65,536 words; the vector itself is 24 to 64 MiB.
    assert client_peak_bytes(clients=4, length=8_000_000, bits=bits) < 24 * MiB


def test_the_peak_does_not_grow_with_the_vector() -> None:
    small = client_peak_bytes(clients=4, length=1_000_000, bits=32)
    large = client_peak_bytes(clients=4, length=8_000_000, bits=32)
    assert large < 2 * small


def test_the_aggregator_holds_one_sum_and_the_uploads_under_way() -> None:
    length, chunk_words, clients = 500_000, 65_536, 12
    session = make_session(clients, length=length, chunk_words=chunk_words)
    p = session.parameters

    def chunks(client: int) -> Iterator[bytes]:
        for index in range(p.chunks):
            begin, end = p.chunk_range(index)
            yield np.full(end - begin, client + 1, np.uint32).tobytes()

    held: list[Vectors] = []

    def all_of_them() -> None:
        vectors = Vectors(session, range(clients))
        held.append(vectors)
        for client in range(clients):
            tree = chunk_tree()
            for index, data in enumerate(chunks(client)):
                tree.add(tree.leaf(data))
                vectors.add(client, index, data)
            vectors.join(client, tree.root())

    vector = 4 * length
    # The sum, one upload under way, one chunk: not twelve vectors.
    assert peak(all_of_them) < 2 * vector + 2 * MiB
    assert (held[0].total() == sum(range(1, clients + 1))).all()


def test_what_does_not_match_its_root_leaves_the_sum_as_it_was() -> None:
    session = make_session(3, length=10, chunk_words=4)
    vectors = Vectors(session, range(3))
    p = session.parameters
    for client in range(2):
        tree = chunk_tree()
        for index in range(p.chunks):
            begin, end = p.chunk_range(index)
            data = np.full(end - begin, 7, np.uint32).tobytes()
            tree.add(tree.leaf(data))
            vectors.add(client, index, data)
        if client:
            with pytest.raises(FaultyClient, match="do not match their root"):
                vectors.join(client, bytes(32))
        else:
            vectors.join(client, tree.root())
    with pytest.raises(FaultyClient, match="not complete"):
        vectors.join(2, bytes(32))
    assert (vectors.total() == 7).all()


# -- work on all cores -----------------------------------------------------------


@pytest.mark.parametrize("cores", [1, 2, 5])
def test_pieces_of_work_come_in_order(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda _: set(range(cores)), raising=True
    )
    for count in (0, 1, 2, 7, 30):
        assert parallel.each(lambda k: k * k, count) == [k * k for k in range(count)]
        made = parallel.in_order(lambda k: k * k, count)
        assert list(made) == [k * k for k in range(count)]


@pytest.mark.parametrize("cores", [1, 4])
def test_an_error_in_a_piece_of_work_is_raised(
    cores: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        os, "sched_getaffinity", lambda _: set(range(cores)), raising=True
    )

    def work(k: int) -> int:
        if k == 5:
            raise FaultyClient("bank-f", "is the sixth")
        return k

    with pytest.raises(FaultyClient, match="is the sixth"):
        parallel.each(work, 9)
    made = parallel.in_order(work, 9)
    assert [next(made) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(FaultyClient, match="is the sixth"):
        next(made)


def test_work_ahead_of_the_reader_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)), raising=True)
    begun: list[int] = []

    def work(k: int) -> int:
        begun.append(k)
        return k

    made = parallel.in_order(work, 1000)
    next(made)
    made.close()  # type: ignore[attr-defined]
    assert len(begun) <= 9
