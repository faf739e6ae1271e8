# SPDX-License-Identifier: Apache-2.0
"""Ciphertexts, keys and covers that do not belong together open nothing (SPEC 7.5).

Nobody is named, for nobody can be: X5 to X8.  What the key holder sends, it answers
for: X1 to X4 and X9.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from secure_fl import ckks, keys
from secure_fl.ckks.client import release_info
from secure_fl.ckks.messages import (
    HOLDER_KEY_LABEL,
    KINDS,
    RELEASE_LABEL,
    HolderKey,
    Opening,
    Release,
)
from secure_fl.context import kind_of
from secure_fl.errors import FaultyKeyHolder, ProtocolError, UsageError
from secure_fl.fixedpoint import Word, unwrap, wrap
from secure_fl.identity import Identity
from secure_fl.masking.messages import Chunk
from secure_fl.masking.vectors import chunk_tree
from secure_fl.round import KEY_HOLDER

from ..consortium import flipped, with_field
from ..participants import RANDOM
from .forging import Liar, packed, random_key, sealed_key, uniform
from .world import BOTH, Attempt, World, replacing

U64 = NDArray[np.uint64]
CLIENTS = 4
ALL = tuple(range(CLIENTS))


# -- X5 to X8, of the bare sums ----------------------------------------------------


class Sealed:
    """What four clients sent in one context, and all of their secrets."""

    def __init__(self, session: ckks.Session, *, edge: bool = False) -> None:
        self.session = session
        p = session.parameters
        draws = np.random.default_rng(3)
        most = 2 ** (p.word_bits - 1) // CLIENTS - 1
        units = draws.integers(-most, most + 1, (CLIENTS, p.length))
        if edge:  # one sum more than a word holds
            units[:, 0] = most + 1
        self.units = units
        self.seeds = {i: RANDOM.bytes(32) for i in ALL}
        self.keys: list[NDArray[np.int64]] = []
        self.sent: list[list[ckks.messages.Ciphertext]] = []
        self.payloads: list[bytes] = []
        for i in ALL:
            words: NDArray[Word] = wrap(units[i], p.word_bits)
            encryption = ckks.Encryption(session, i, words, random=RANDOM.bytes(32))
            self.sent.append(list(encryption.chunks(cover=self.seeds[i])))
            self.payloads.append(encryption.payload())
            bits = ckks.key_bits(CLIENTS)
            self.keys.append(unwrap(encryption.key_words(), bits))

    def total(self, clients: Iterable[int] = ALL) -> U64:
        """The sum of what these sent."""
        sums = ckks.Ciphertexts(self.session)
        for i in clients:
            for chunk in self.sent[i]:
                sums.add_chunk(i, chunk)
            sums.join(i, sums.check(i, self.payloads[i]))
        return sums.total()

    def key(self, clients: Iterable[int] = ALL) -> NDArray[np.int64]:
        return sum((self.keys[i] for i in clients), np.zeros_like(self.keys[0]))

    def opened(
        self,
        *,
        total: U64 | None = None,
        key: NDArray[np.int64] | None = None,
        seeds: dict[int, bytes] | None = None,
    ) -> NDArray[np.int64]:
        words = ckks.open_sum(
            self.session,
            self.total() if total is None else total,
            self.key() if key is None else key,
            self.seeds if seeds is None else seeds,
        )
        return unwrap(words, self.session.parameters.word_bits)


@pytest.fixture(scope="module")
def sealed(tmp_path_factory: pytest.TempPathFactory) -> Sealed:
    return Sealed(one_time_session(tmp_path_factory.mktemp("sealed")))


def one_time_session(folder: Path, place: tuple[int, int] = (0, 0)) -> ckks.Session:
    world = World(folder, "one-time", clients=CLIENTS)
    world.close()
    return world.session(place)


def test_the_sum_of_any_clients_opens_with_theirs(sealed: Sealed) -> None:
    """The control: every set opens exactly with its own keys and covers."""
    for clients in (ALL, (0, 1, 2), (1, 3), (2,)):
        opened = sealed.opened(
            total=sealed.total(clients),
            key=sealed.key(clients),
            seeds={i: sealed.seeds[i] for i in clients},
        )
        assert (opened == sealed.units[list(clients)].sum(0)).all()


def doubled(sealed: Sealed) -> U64:
    total = sealed.total() + sealed.total([2])
    moduli = [p.value for p in sealed.session.parameters.packing.ring.primes]
    return total % np.array(moduli, np.uint64)[:, None]


WRONG: dict[str, Callable[[Sealed], NDArray[np.int64]]] = {
    "a ciphertext is missing": lambda s: s.opened(total=s.total([0, 1, 2])),
    "a ciphertext is there twice": lambda s: s.opened(total=doubled(s)),
    "no ciphertext": lambda s: s.opened(total=np.zeros_like(s.total())),
    "a key is missing": lambda s: s.opened(key=s.key([0, 1, 2])),
    "a key is there twice": lambda s: s.opened(key=s.key() + s.keys[0]),
    "no key": lambda s: s.opened(key=np.zeros_like(s.keys[0])),
    "another's key": lambda s: s.opened(key=s.key([0, 0, 1, 2])),
    "the keys' negative": lambda s: s.opened(key=-s.key()),
    "a key off by one": lambda s: s.opened(key=s.key() + (np.arange(4096) == 7)),
    "another random key": lambda s: s.opened(
        key=s.key([0, 1, 2]) + random_key(s.session)
    ),
    "a cover is missing": lambda s: s.opened(seeds={i: s.seeds[i] for i in (0, 1, 2)}),
    "two covers are swapped": lambda s: s.opened(
        seeds={**s.seeds, 0: s.seeds[1], 1: s.seeds[0]}
    ),
    "another cover": lambda s: s.opened(seeds={**s.seeds, 3: RANDOM.bytes(32)}),
    "a cover off by a bit": lambda s: s.opened(
        seeds={**s.seeds, 3: flipped(s.seeds[3])}
    ),
}


@pytest.mark.parametrize("which", WRONG)
def test_what_does_not_belong_together_opens_nothing(
    sealed: Sealed, which: str
) -> None:
    with pytest.raises(ProtocolError) as caught:
        WRONG[which](sealed)
    assert type(caught.value) is ProtocolError, "nobody is named"


def test_another_context_opens_nothing(sealed: Sealed, tmp_path: Path) -> None:
    """The same bytes, keys and seeds, looked at as another attempt's."""
    other = dataclasses.replace(sealed.session, attempt=1)
    with pytest.raises(ProtocolError, match="rounded away"):
        ckks.open_sum(other, sealed.total(), sealed.key(), sealed.seeds)


def test_the_sum_of_keys_is_short_or_nothing_is_looked_at(sealed: Sealed) -> None:
    """X5: at the bound it is a key, though not the right one; beyond it is none."""
    n = sealed.keys[0].size
    largest = np.zeros(n, np.int64)
    largest[0] = 96 * CLIENTS
    squares = np.tile(np.array([22, -2], np.int64), n // 2)  # 488 = 2 * 61 * 4
    assert int((squares**2).sum()) == 61 * n * CLIENTS
    for key in (largest, -largest, squares):
        with pytest.raises(ProtocolError, match="rounded away"):
            sealed.opened(key=key)
        beyond = key.copy()
        beyond[0] += np.sign(beyond[0])
        with pytest.raises(ProtocolError, match="keys is not short"):
            sealed.opened(key=beyond)
    for value in (2**31, -(2**62), 2**63 - 1, -(2**63)):
        far = np.zeros(n, np.int64)
        far[5] = value
        with pytest.raises(ProtocolError, match="keys is not short"):
            sealed.opened(key=far)


def plus(sealed: Sealed, what: dict[tuple[int, int], int]) -> U64:
    """The sum of ciphertexts, and something more at (block, coefficient)."""
    total = sealed.total().copy()
    for (block, at), value in what.items():
        for index, prime in enumerate(sealed.session.parameters.packing.ring.primes):
            old = int(total[block, index, at])
            total[block, index, at] = (old + value) % prime.value
    return total


def test_errors_that_are_too_long_are_seen_in_every_block(sealed: Sealed) -> None:
    """X6; and an error that is short enough is rounded away, as it must be."""
    blocks = sealed.session.parameters.blocks
    assert blocks == 3
    for block in range(blocks):
        small = plus(sealed, {(block, 9): 20})
        assert (sealed.opened(total=small) == sealed.units.sum(0)).all()
        many = plus(sealed, {(block, at): 150 for at in range(0, 4096, 8)})
        with pytest.raises(ProtocolError, match="rounded away"):
            sealed.opened(total=many)


def test_a_sum_beyond_its_words_is_seen(sealed: Sealed, tmp_path: Path) -> None:
    """X7: also where clients' own words add up to more than a word holds."""
    packing = sealed.session.parameters.packing
    above = 1 << (packing.scale_bits + packing.fields * packing.word_bits)
    for value in (above, -above):
        total = plus(sealed, {(1, 100): value})
        with pytest.raises(ProtocolError, match="more than its words"):
            sealed.opened(total=total)
    with pytest.raises(ProtocolError, match="more than its words"):
        Sealed(one_time_session(tmp_path), edge=True).opened()


def test_something_beyond_the_vector_is_seen(sealed: Sealed) -> None:
    """X8: and one place before it is a value like any other."""
    p = sealed.session.parameters
    unit = 1 << p.packing.scale_bits
    last = p.blocks - 1
    end = p.length - last * p.packing.values
    for at in (end, p.packing.values - 1):
        with pytest.raises(ProtocolError, match="beyond the end"):
            sealed.opened(total=plus(sealed, {(last, at): unit}))
    expected = sealed.units.sum(0)
    expected[-1] += 1
    opened = sealed.opened(total=plus(sealed, {(last, end - 1): unit}))
    assert (opened == expected).all()


# -- the same, in whole rounds with one client that lies -----------------------------


@pytest.fixture(params=BOTH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, request.param)
    yield made
    made.close()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "keyholder")
    yield made
    made.close()


def opens_nothing(attempt: Attempt) -> ProtocolError:
    """To its end: nobody was refused, nobody is named, nothing is opened."""
    with pytest.raises(ProtocolError) as caught:
        attempt.run()
    assert type(caught.value) is ProtocolError
    assert not attempt.refused
    assert attempt.a.result is None
    with pytest.raises(UsageError, match="over"):
        attempt.a.advance()
    assert attempt.a.result is None
    return caught.value


def test_ciphertexts_of_nothing(world: World) -> None:
    """Uniform residues, signed and sealed as they must be."""

    def make(x: Liar) -> list[bytes]:
        return x.whole(packed(x.session, uniform(x.session)))

    opens_nothing(Attempt(world, hook=Liar(world, "clinic-b", make)))


def test_a_client_that_seals_another_key_and_cover(held: World) -> None:
    """The key holder sees a key like any other."""

    def make(x: Liar) -> list[bytes]:
        honest = x.input()
        key = random_key(x.session)
        box = sealed_key(x.session, x.me, honest.payload, key)(
            x.invitation().holder.key
        )
        return [*x.chunks, x.signed(dataclasses.replace(honest, key_box=box))]

    error = opens_nothing(Attempt(held, hook=Liar(held, "clinic-b", make)))
    assert "rounded away" in str(error)


@pytest.mark.parametrize(("bit", "match"), [(0, "rounded away"), (9, "not short")])
def test_a_client_that_masks_another_key(tmp_path: Path, bit: int, match: str) -> None:
    """Its masked key plus a power of two: off by one, or no key at all."""
    world = World(tmp_path, "one-time")
    session = world.plan.key_session(world.session())

    def make(x: Liar) -> list[bytes]:
        (said,) = x.rest
        data = bytearray(Chunk.decode(said, session).words)
        # The lowest word stands in the lowest bits of the first byte (masking 2.4).
        number = int.from_bytes(data[:8], "little")
        data[:8] = (number ^ (1 << bit)).to_bytes(8, "little")
        tree = chunk_tree()
        tree.add(tree.leaf(bytes(data)))
        forged = Chunk(x.me, 0, bytes(data)).encode(session)
        return [*x.chunks, forged, x.attached(x.payload(x.data), root=tree.root())]

    error = opens_nothing(Attempt(world, hook=Liar(world, "clinic-b", make)))
    assert match in str(error)
    world.close()


# -- X1 to X4 and X9: what the key holder answers for --------------------------------


def answers(world: World, kind: int, change: Callable[[bytes], bytes]) -> Attempt:
    """An attempt in which one answer of the key holder is another."""
    attempt = Attempt(world, hook=replacing(KEY_HOLDER, kind, change))
    with pytest.raises(FaultyKeyHolder):
        attempt.run()
    assert attempt.a.result is None
    assert attempt.a.omission == ()
    assert set(attempt.refused) <= {KEY_HOLDER}
    assert not attempt.left
    return attempt


def holder_key(session: ckks.Session, key: bytes, by: Identity) -> bytes:
    signature = by.sign(HOLDER_KEY_LABEL, session.ctx, key)
    return HolderKey(key, signature).encode(session)


@pytest.mark.parametrize(
    "which",
    ["another's", "another attempt's", "low order", "another form", "changed"],
)
def test_a_key_that_is_not_the_key_holders(held: World, which: str) -> None:
    session = held.session()
    good = keys.public_key(keys.private_key(RANDOM.bytes(32)))
    by = held.keyholder
    elsewhere = HolderKey.decode(
        holder_key(held.session((0, 1)), good, by), held.session((0, 1))
    )
    forged = {
        "another's": holder_key(session, good, held.aggregator),
        "another attempt's": elsewhere.encode(session),
        "low order": holder_key(session, bytes(32), by),
        "another form": holder_key(session, keys.PRIME.to_bytes(32, "little"), by),
        "changed": with_field(holder_key(session, good, by), 2, flipped(good)),
    }[which]
    attempt = answers(held, KINDS.HOLDER_KEY, lambda _: forged)
    assert isinstance(attempt.refused[KEY_HOLDER], FaultyKeyHolder)
    # Nobody was invited, and nothing is spent.
    assert not attempt.told.keys() & set(held.names)


def resigned(world: World, message: bytes, **changes: object) -> bytes:
    """A release with other fields, signed by the key holder itself."""
    session = world.session()
    release = dataclasses.replace(
        Release.decode(message, session),
        **changes,  # type: ignore[arg-type]
    )
    signature = world.keyholder.sign(RELEASE_LABEL, *release.signed(session))
    return dataclasses.replace(release, signature=signature).encode(session)


@pytest.mark.parametrize(
    "which", ["one less", "another claim", "another payload", "not signed", "a bit"]
)
def test_a_release_that_is_not_the_one_asked_for(held: World, which: str) -> None:
    def change(message: bytes) -> bytes:
        session = held.session()
        release = Release.decode(message, session)
        rows = list(release.rows)
        size = len(release.box)
        client, payload, claim = rows[1]
        match which:
            case "one less":
                return resigned(
                    held, message, rows=tuple(rows[:-1]), box=bytes(size - 32)
                )
            case "another claim":
                rows[1] = (client, payload, bytes(32))
            case "another payload":
                rows[1] = (client, bytes(32), claim)
            case "not signed":
                return with_field(message, 4, bytes(64))
            case _:
                return with_field(message, 3, flipped(release.box))
        return resigned(held, message, rows=tuple(rows))

    attempt = answers(held, KINDS.RELEASE, change)
    assert isinstance(attempt.refused[KEY_HOLDER], FaultyKeyHolder)


def test_a_release_whose_box_does_not_open(held: World) -> None:
    """X9: signed by the key holder, so it answers for it."""
    elsewhere = keys.public_key(keys.private_key(RANDOM.bytes(32)))

    def change(message: bytes) -> bytes:
        session = held.session()
        size = len(Release.decode(message, session).box)
        plain = bytes(size - keys.BOX_OVERHEAD)
        box = keys.seal(plain, elsewhere, info=release_info(session))
        return resigned(held, message, box=box)

    answers(held, KINDS.RELEASE, change)


@pytest.mark.parametrize("lie", ["the sum", "the seeds"])
def test_a_key_holder_that_releases_another_sum(held: World, lie: str) -> None:
    """It opens nothing; whether the key holder or a client lied nobody can tell."""
    session = held.session()
    secret = keys.private_key(RANDOM.bytes(32))

    def hook(sender: str, receiver: str, message: bytes) -> list[bytes]:
        """The aggregator's key is ours, so that its box can be looked into."""
        if kind_of(message) != KINDS.RELEASE:
            return [message]
        box = Release.decode(message, session).box
        plain = keys.open_box(box, secret, info=release_info(session))
        opening = Opening.decode(plain, session)
        if lie == "the sum":
            key_sum = opening.key_sum + (np.arange(opening.key_sum.size) == 3)
            opening = Opening(key_sum, opening.seeds)
        else:
            opening = Opening(opening.key_sum, opening.seeds[::-1])
        box = keys.seal(
            opening.encode(session),
            keys.public_key(secret),
            info=release_info(session),
        )
        return [resigned(held, message, box=box)]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("secure_fl.ckks.aggregator.keys.private_key", lambda _: secret)
        attempt = Attempt(held, hook=hook)
    error = opens_nothing(attempt)
    assert "rounded away" in str(error)
