# SPDX-License-Identifier: Apache-2.0
"""How fast and how large one masking context is, measured step by step.

All parties run in this process, one after the other, so that a client's seconds are a
client's own; nothing is averaged away.
"""

from __future__ import annotations

import functools
import statistics
import time
import tracemalloc
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TypeVar, final

import numpy as np
from numpy.typing import NDArray

from .. import masking
from ..errors import UsageError
from ..fixedpoint import Encoding, Word, finest_step
from ..identity import Identity, Member, Roster
from ..randomness import SystemRandom
from ..round import Aggregation, MaskingClient, Outgoing

__all__ = ["MaskingFigures", "bench_masking", "client_peak_bytes"]

_T = TypeVar("_T")


@final
@dataclass(frozen=True)
class MaskingFigures:
    """What ``secure-fl bench masking`` prints.

    client_seconds
        median over the clients that stayed, all five steps
    aggregator_seconds
        all steps, removing the masks included
    round_seconds
        everything from the first key on, one party after the other on this machine
    bytes_up_per_value
        a client's largest message stream over the length of the vector
    client_peak_bytes
        what a client allocates beyond its vector while it sends it, in a run of its own
    exact
        whether the opened sum equals the sum of the words, every one of them
    """

    clients: int
    dropped: int
    length: int
    bits: int
    client_seconds: float
    aggregator_seconds: float
    round_seconds: float
    bytes_up_per_value: float
    client_peak_bytes: int
    exact: bool


class _Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, call: Callable[[], _T]) -> _T:
        begin = time.perf_counter()
        result = call()
        self.seconds += time.perf_counter() - begin
        return result


def bench_masking(
    *, clients: int, dropped: int, length: int, bits: int
) -> MaskingFigures:
    """Run one context with ``dropped`` clients leaving before they send their vector.

    Raises UsageError where so many dropouts end it by design.
    """
    session, identities, encoding = _session(clients, length, bits)
    if clients - dropped < session.parameters.needed:
        raise UsageError(
            f"{clients - dropped} clients are left, {session.parameters.needed} needed",
            hint="drop fewer",
        )
    random = SystemRandom()
    words: NDArray[Word] = encoding.wrap(
        np.frombuffer(random.bytes(8 * length), np.int64) % (2 * encoding.largest + 1)
        - encoding.largest
    )
    begin = time.perf_counter()
    own = [_Clock() for _ in identities]
    ours = _Clock()
    sent = [0] * clients
    links: dict[str, MaskingClient] = {}

    def going() -> Outgoing:
        return Outgoing(words, bytes(32), _done)

    aggregation = Aggregation(
        session,
        kind="masking",
        encoding=encoding,
        weights={i.name: 1 for i in identities},
    )

    def receive(index: int, make: Callable[[], Iterable[bytes]]) -> None:
        # All of them first: a client masks ahead while its pieces are taken.
        pieces = own[index].time(lambda: list(make()))
        sent[index] += sum(map(len, pieces))
        name = identities[index].name
        ours.time(lambda: [aggregation.receive(name, piece) for piece in pieces])

    for index, identity in enumerate(identities):
        link = own[index].time(
            functools.partial(MaskingClient, session, identity, random)
        )
        links[identity.name] = link
        receive(index, link.first)
    staying = range(dropped, clients)
    while True:
        ours.time(aggregation.advance)
        if aggregation.result is not None:
            break
        for index, identity in enumerate(identities):
            message = aggregation.outgoing.get(identity.name)
            late = aggregation.step == "vectors" and index not in staying
            if message is not None and not late:
                handle = links[identity.name].handle
                receive(index, functools.partial(handle, message, going))
    seconds = time.perf_counter() - begin
    expected = encoding.unwrap(words) * len(staying)
    opened = np.rint(aggregation.result.total / encoding.step).astype(np.int64)
    return MaskingFigures(
        clients=clients,
        dropped=dropped,
        length=length,
        bits=bits,
        client_seconds=statistics.median(own[i].seconds for i in staying),
        aggregator_seconds=ours.seconds,
        round_seconds=seconds,
        bytes_up_per_value=max(sent) / length,
        client_peak_bytes=_peak(session, identities, words),
        exact=bool((opened == expected[:-1]).all()),
    )


def client_peak_bytes(*, clients: int, length: int, bits: int) -> int:
    """What one client allocates beyond its vector of ``length`` words, in bytes."""
    session, identities, encoding = _session(clients, length, bits)
    return _peak(session, identities, np.zeros(length, encoding.dtype))


def _session(
    clients: int, length: int, bits: int
) -> tuple[masking.Session, list[Identity], Encoding]:
    random = SystemRandom()
    step = finest_step(clip=1.0, word_bits=bits, clients=clients, max_weight=1)
    encoding = Encoding(1.0, step, bits, clients)
    identities = [Identity.new(f"client-{i:04}", random=random) for i in range(clients)]
    threshold = masking.default_threshold(clients, 1)
    session = masking.Session(
        plan_hash=bytes(32),
        run_id=random.bytes(16),
        round_index=0,
        attempt=0,
        roster=Roster(tuple(Member(i.name, i.public_key) for i in identities)),
        model_hash=bytes(32),
        parameters=masking.Parameters(
            clients=clients,
            length=length,
            word_bits=bits,
            chunk_words=65_536,
            threshold=threshold,
            min_clients=max(3, threshold),
            max_colluding=1,
        ),
    )
    return session, identities, encoding


def _peak(
    session: masking.Session, identities: list[Identity], words: NDArray[Word]
) -> int:
    """Peak of one client's vector step, its chunks let go as soon as they are made."""
    random = SystemRandom()
    links = {i.name: MaskingClient(session, i, random) for i in identities}
    aggregation = Aggregation(
        session,
        kind="masking",
        encoding=Encoding(1.0, 1.0, session.parameters.word_bits, len(identities)),
        weights={i.name: 1 for i in identities},
    )
    for name, link in links.items():
        for message in link.first():
            aggregation.receive(name, message)
    aggregation.advance()
    for name, link in links.items():
        for message in link.handle(aggregation.outgoing[name], _nothing):
            aggregation.receive(name, message)
    aggregation.advance()
    name = identities[0].name
    tracemalloc.start()
    try:
        for _ in links[name].handle(
            aggregation.outgoing[name], lambda: Outgoing(words, bytes(32), _done)
        ):
            pass
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def _done() -> None:
    """Nothing is charged in a benchmark."""


def _nothing() -> Outgoing:
    raise AssertionError("no vector is asked for in this step")
