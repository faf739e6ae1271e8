# SPDX-License-Identifier: Apache-2.0
"""The parties of one measured context: one process, one after the other, a clock each.

So a client's seconds are a client's own; nothing is averaged away.
"""

from __future__ import annotations

import functools
import hashlib
import time
import tracemalloc
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar, final

import numpy as np
from numpy.typing import NDArray

from ..fixedpoint import Encoding, Word, finest_step
from ..identity import Identity, Member, Roster
from ..plan import Session
from ..randomness import SystemRandom
from ..round import (
    KEY_HOLDER,
    Aggregation,
    ClientProtection,
    Collecting,
    OpenedUpdate,
    Outgoing,
)

__all__ = ["Cohort", "Parties"]

_T = TypeVar("_T")


@final
class Clock:
    def __init__(self) -> None:
        self.seconds = 0.0

    def time(self, call: Callable[[], _T]) -> _T:
        begin = time.perf_counter()
        result = call()
        self.seconds += time.perf_counter() - begin
        return result


@final
class Cohort:
    """Clients without a plan, and words that they send: as large as sums allow.

    Raises PlanError where words of ``bits`` bits do not hold the sum.
    """

    def __init__(self, clients: int, bits: int) -> None:
        self.random = SystemRandom()
        step = finest_step(clip=1.0, word_bits=bits, clients=clients, max_weight=1)
        self.encoding = Encoding(1.0, step, bits, clients)
        self.identities = [
            Identity.new(f"client-{i:04}", random=self.random) for i in range(clients)
        ]
        self.roster = Roster(
            tuple(Member(i.name, i.public_key) for i in self.identities)
        )
        self.run_id = self.random.bytes(16)

    def words(self, length: int) -> NDArray[Word]:
        largest = self.encoding.largest
        drawn = np.frombuffer(self.random.bytes(8 * length), np.int64)
        return self.encoding.wrap(drawn % (2 * largest + 1) - largest)

    def sum_hash(self, words: NDArray[Word], clients: int) -> bytes:
        """What ``words_hash`` is of a sum of so many times the same words."""
        total = self.encoding.wrap(self.encoding.unwrap(words) * clients)
        return hashlib.sha256(total.tobytes()).digest()


@final
class Parties:
    """Moves one context from its first message to its sum, and times everybody.

    clients
        a clock for each, by name, from the making of its keys on
    aggregator
        all that it does
    uploads
        what it does about one client's messages while vectors come in, by name
    opening
        its last step alone
    sent
        bytes that each client sent, by name
    """

    def __init__(
        self,
        cohort: Cohort,
        session: Session,
        collecting: Collecting,
        make: Callable[[Identity], ClientProtection],
        *,
        holder: Callable[[bytes], bytes] | None = None,
        uploaded: Callable[[], None] | None = None,
    ) -> None:
        """``make``: a client's side.  ``holder`` answers for the key holder.
        ``uploaded`` is called after every upload."""
        self._holder = holder
        self._uploaded = uploaded
        names = [i.name for i in cohort.identities]
        self._aggregation = Aggregation(
            session,
            collecting,
            encoding=cohort.encoding,
            weights=dict.fromkeys(names, 1),
        )
        self.clients = {name: Clock() for name in names}
        self.uploads = {name: Clock() for name in names}
        self.aggregator = Clock()
        self.opening = Clock()
        self.sent = dict.fromkeys(names, 0)
        self._links: dict[str, ClientProtection] = {}
        for identity in cohort.identities:
            name, start = identity.name, functools.partial(make, identity)
            self._links[name] = self.clients[name].time(start)
            self._receive(name, self._links[name].first)

    def run(
        self, words: NDArray[Word], *, leaving: frozenset[str] = frozenset()
    ) -> OpenedUpdate:
        """To the end; ``leaving`` get no further when their vector is asked for."""
        aggregation = self._aggregation
        while aggregation.result is None:
            self._deliver(words, leaving)
            self.opening = Clock()
            self.aggregator.time(lambda: self.opening.time(aggregation.advance))
        return aggregation.result

    def upload(self, words: NDArray[Word]) -> Iterator[bytes]:
        """One client's answer when its vector is asked for; the context ends there."""
        aggregation = self._aggregation
        while aggregation.step != "vectors":
            self._deliver(words, frozenset())
            aggregation.advance()
        name = next(iter(self._links))
        return self._links[name].handle(aggregation.outgoing[name], _going(words))

    def peak_bytes(self, words: NDArray[Word]) -> int:
        """What a client allocates beyond its vector while it sends that.

        Its messages are let go as they are made, and the context ends there.
        """
        upload = self.upload(words)
        tracemalloc.start()
        try:
            for _ in upload:
                pass
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    def _deliver(self, words: NDArray[Word], leaving: frozenset[str]) -> None:
        aggregation = self._aggregation
        vectors = aggregation.step == "vectors"
        for name, message in aggregation.outgoing.items():
            if name == KEY_HOLDER:
                assert self._holder is not None
                answer = self._holder(message)
                self.aggregator.time(
                    functools.partial(aggregation.receive, name, answer)
                )
            elif not (vectors and name in leaving):
                handle = self._links[name].handle
                self._receive(name, functools.partial(handle, message, _going(words)))
                if vectors and self._uploaded is not None:
                    self._uploaded()

    def _receive(self, name: str, make: Callable[[], Iterable[bytes]]) -> None:
        # All of them first: a client works ahead while its pieces are taken.
        pieces = self.clients[name].time(lambda: list(make()))
        self.sent[name] += sum(map(len, pieces))
        aggregation = self._aggregation
        clock = self.uploads[name] if aggregation.step == "vectors" else Clock()
        self.aggregator.time(
            lambda: clock.time(
                lambda: [aggregation.receive(name, piece) for piece in pieces]
            )
        )


def _going(words: NDArray[Word]) -> Callable[[], Outgoing]:
    return lambda: Outgoing(words, bytes(32), _done)


def _done() -> None:
    """Nothing is charged in a benchmark."""
