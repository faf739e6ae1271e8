# SPDX-License-Identifier: Apache-2.0
"""An aggregator that wants one client's vector, and all that it sees.

It keeps every ciphertext, every cover seed and every sum of keys of all contexts, and
what a colluding client tells it.  It then tries every set of clients of every context
under every key that it can make of those: sums of keys, their differences, less what
colluders know.  What opens is judged by the errors alone, as anyone could.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_fl import ckks, keys
from secure_fl.ckks.backend import Multiplier
from secure_fl.ckks.client import purpose
from secure_fl.ckks.encryption import is_short, open_chunk
from secure_fl.ckks.messages import KINDS, Ciphertext, Input, Row
from secure_fl.ckks.residues import decode_sum, unpack_blocks
from secure_fl.ckks.sampling import Polynomials
from secure_fl.errors import SecureFLError

from .forging import Called
from .world import World, of_kind

U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]


@dataclasses.dataclass
class Seen:
    """What the aggregator has of one context.

    ``sent``: residues (primes, N) of each client's first block, under its cover.
    ``seeds``: of covers, as far as they came out.  ``sums``: of keys, that came out.
    """

    session: ckks.Session
    sent: dict[int, U64] = dataclasses.field(default_factory=dict)
    seeds: dict[int, bytes] = dataclasses.field(default_factory=dict)
    sums: list[I64] = dataclasses.field(default_factory=list)

    def take(self, client: int, chunk: bytes) -> None:
        """A client's first chunk, not sealed any more."""
        ring = self.session.parameters.packing.ring
        self.sent[client] = unpack_blocks(chunk, ring)[0].copy()


@dataclasses.dataclass(frozen=True)
class Found:
    """The sum of some clients' words in one context, the first block of it."""

    context: int
    clients: frozenset[int]
    units: I64


def search(contexts: Sequence[Seen], known: Mapping[int, I64]) -> list[Found]:
    """All that opens.  ``known``: keys that colluding clients told, in any context."""
    pool = [key for seen in contexts for key in seen.sums]
    pool += [sum_of(known.values(), i) for i in subsets(range(len(known)))]
    nothing = np.zeros_like(next(iter(contexts[0].sums), np.zeros(4096, np.int64)))
    pool.append(nothing)
    made = {key.tobytes(): key for key in pool}
    for a, b in itertools.permutations(pool, 2):
        key = a - b
        made[key.tobytes()] = key
    out = []
    for index, seen in enumerate(contexts):
        public = Polynomials.public(seen.session).draw(0)
        products = [times(seen.session, key, public) for key in made.values()]
        # Covers whose seed did not come out: as if there were none, and with a guess.
        for guess in (None, bytes(32)):
            bare = {i: uncovered(seen, i, guess) for i in seen.sent}
            for product, clients in itertools.product(products, subsets(bare)):
                opened = look(seen.session, [bare[i] for i in clients], product)
                if opened is not None:
                    out.append(Found(index, frozenset(clients), opened))
            if seen.seeds.keys() >= seen.sent.keys():
                break
    return out


def differences(found: Sequence[Found]) -> list[Found]:
    """What two opened sums say of the clients that only one of them holds."""
    return [
        Found(a.context, a.clients - b.clients, a.units - b.units)
        for a, b in itertools.permutations(found, 2)
        if a.clients > b.clients
    ]


def subsets(of: Iterable[int]) -> Iterator[tuple[int, ...]]:
    """All but the empty one."""
    members = list(of)
    for size in range(1, len(members) + 1):
        yield from itertools.combinations(members, size)


def sum_of(all_: Iterable[I64], which: Iterable[int]) -> I64:
    rows = list(all_)
    total: I64 = np.sum([rows[i] for i in which], axis=0)
    return total


def uncovered(seen: Seen, client: int, guess: bytes | None) -> U64:
    """A ciphertext, less its cover; ``guess``: the seed, where it is not known."""
    sent = seen.sent[client]
    seed = seen.seeds.get(client, guess)
    if seed is None:
        return sent
    cover = Polynomials.cover(seen.session, client, seed).draw(0)
    return minus(seen.session, sent, cover)


def minus(session: ckks.Session, a: U64, b: U64) -> U64:
    moduli = moduli_of(session)
    out: U64 = (a + (moduli - b)) % moduli
    return out


def moduli_of(session: ckks.Session) -> U64:
    primes = session.parameters.packing.ring.primes
    return np.array([[p.value] for p in primes], np.uint64)


def times(session: ckks.Session, key: I64, public: U64) -> U64:
    """``a * key`` of the first block."""
    primes = session.parameters.packing.ring.primes
    products = [
        Multiplier(key, prime).times(public[index : index + 1])[0]
        for index, prime in enumerate(primes)
    ]
    return np.stack(products)


def look(session: ckks.Session, sent: Sequence[U64], product: U64) -> I64 | None:
    """The words under these ciphertexts, if what is rounded away are errors."""
    moduli = moduli_of(session)
    total = np.zeros_like(product)
    for one in sent:
        total = (total + one) % moduli
    x = minus(session, total, product)
    units, errors, whole = decode_sum(x[None], session.parameters.packing)
    if not whole or not is_short(errors[0], len(sent)):
        return None
    words: I64 = units[0].ravel()
    return words


class LyingAggregator:
    """The aggregator of one context with a key holder, over real clients.

    It calls the key holder and invites everyone as it should, takes all uploads in, and
    then asks for whatever it likes.
    """

    def __init__(self, world: World, place: tuple[int, int]) -> None:
        self.world = world
        for participant in world.participants.values():
            participant.open(*place, world.model)
        self.called = Called(world, place)
        self.session = self.called.session
        self.seen = Seen(self.session)
        self.rows: dict[int, Row] = {}
        for name, participant in world.participants.items():
            if participant.needs_update:
                world.offer(name)
            said = list(participant.handle(self.called.invitation()))
            self._take(self.session.roster.index(name), said)

    def _take(self, client: int, said: list[bytes]) -> None:
        end = Input.decode(said[-1], self.session)
        info = purpose(self.session, "chunk box", client, end.payload)
        chunk_key = keys.open_box(end.chunk_box, self.called.key, info=info)
        first = Ciphertext.decode(of_kind(said, KINDS.CIPHERTEXT)[0], self.session)
        self.seen.take(client, open_chunk(chunk_key, 0, first.data))
        self.rows[client] = end.row()

    def ask(self, clients: Iterable[int]) -> bool:
        """For the sum of these clients' keys: whether it came."""
        rows = [self.rows[i] for i in sorted(clients)]
        try:
            opening = self.called.opening(self.called.ask(rows))
        except SecureFLError:
            return False
        self.seen.sums.append(opening.key_sum)
        self.seen.seeds.update(zip(sorted(clients), opening.seeds, strict=True))
        return True
