# SPDX-License-Identifier: Apache-2.0
"""An aggregator that forges at will, and clients that sign whatever it likes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from numpy.typing import NDArray

from secure_fl import ckks, keys
from secure_fl.ckks.client import purpose, release_info
from secure_fl.ckks.encryption import chunk_tree
from secure_fl.ckks.messages import (
    AGGREGATOR_KEY_LABEL,
    INPUT_LABEL,
    KINDS,
    REFUSAL_LABEL,
    REQUEST_LABEL,
    Call,
    Ciphertext,
    HolderKey,
    Input,
    Invitation,
    Opening,
    Refusal,
    Release,
    Request,
    Row,
    payload_hash,
)
from secure_fl.ckks.sampling import Shorts
from secure_fl.context import kind_of
from secure_fl.errors import FaultyAggregator
from secure_fl.identity import Identity
from secure_fl.masking.messages import INPUT_LABEL as MASKED_INPUT_LABEL
from secure_fl.masking.messages import CohortKeys, MaskedInput, cohort_hash
from secure_fl.wire import verify

from ..participants import RANDOM
from .world import UPLOADED, World, of_kind

Key = NDArray[np.int64]


def random_key(session: ckks.Session) -> Key:
    """A key as an honest client draws it."""
    degree = session.parameters.packing.ring.degree
    return Shorts(session, RANDOM.bytes(32)).key(degree)


def sealed_key(
    session: ckks.Session,
    client: int,
    payload: bytes,
    key: Key,
    *,
    seed: bytes = b"s" * 32,
) -> Callable[[bytes], bytes]:
    """The key box of this key, for whom it is sealed to."""
    plain = key.astype(np.int8).tobytes() + seed
    info = purpose(session, "key box", client, payload)
    return lambda to: keys.seal(plain, to, info=info)


class Handles(Protocol):
    """A key holder, or what passes messages to one."""

    def handle(self, message: bytes, *, random: bytes) -> bytes: ...


class Called:
    """One context that the key holder was called for.

    ``call``: the genuine call.  ``to``: the key holder's key for the context.  ``key``:
    the aggregator's own.  Raises what the key holder raises on the call.
    """

    def __init__(
        self,
        world: World,
        place: tuple[int, int] = (0, 0),
        *,
        holder: Handles | None = None,
        unanswered: bool = False,
    ) -> None:
        self.world = world
        self.holder: Handles = holder or world.holder
        self.session = session = world.session(place)
        self.key = keys.private_key(RANDOM.bytes(32))
        unsigned = Call(
            session.ctx,
            *place,
            session.model_hash,
            session.parameters.length,
            keys.public_key(self.key),
            b"",
        )
        self.call = self.sign_call(unsigned).encode()
        self.to = b""
        self.holder_key: HolderKey | None = None
        if not unanswered:
            self.answered()

    def answered(self) -> None:
        self.answer(self.holder.handle(self.call, random=RANDOM.bytes(32)))

    def answer(self, answer: bytes) -> None:
        """What the key holder said to the call."""
        self.holder_key = HolderKey.decode(answer, self.session)
        self.to = self.holder_key.key

    def invitation(self) -> bytes:
        """What a client of this context is told."""
        assert self.holder_key is not None
        call = Call.decode(self.call)
        message = Invitation(self.holder_key, call.key, call.signature)
        return message.encode(self.session)

    def sign_call(self, call: Call, *, by: Identity | None = None) -> Call:
        by = by or self.world.aggregator
        signature = by.sign(AGGREGATOR_KEY_LABEL, call.ctx, call.key)
        return dataclasses.replace(call, signature=signature)

    def row(
        self,
        client: int,
        key: Key | None = None,
        *,
        box: bytes | None = None,
        payload: bytes | None = None,
        seed: bytes = b"s" * 32,
    ) -> Row:
        """A row that its client signed; ``box`` in place of an honest one."""
        session = self.session
        payload = payload or RANDOM.bytes(32)
        if box is None:
            made = key if key is not None else random_key(session)
            to = self.to or keys.public_key(self.key)
            box = sealed_key(session, client, payload, made, seed=seed)(to)
        row = Row(client, payload, RANDOM.bytes(32), box, RANDOM.bytes(32), b"")
        identity = self.world.identities[session.name(client)]
        signature = identity.sign(INPUT_LABEL, *row.signed(session))
        return dataclasses.replace(row, signature=signature)

    def rows(self) -> list[Row]:
        """Honest ones of everybody."""
        return [self.row(i) for i in range(len(self.session.roster))]

    def request(self, rows: Sequence[Row], *, by: Identity | None = None) -> bytes:
        unsigned = Request(tuple(rows), b"")
        by = by or self.world.aggregator
        signature = by.sign(REQUEST_LABEL, *unsigned.signed(self.session))
        return Request(tuple(rows), signature).encode(self.session)

    def ask(self, rows: Sequence[Row]) -> bytes:
        """What the key holder answers to a request for these."""
        return self.holder.handle(self.request(rows), random=RANDOM.bytes(32))

    def ask_honestly(self) -> bytes:
        return self.ask(self.rows())

    def plain(self, answer: bytes) -> bytes:
        """What is in the box of a release."""
        release = Release.decode(answer, self.session)
        return keys.open_box(release.box, self.key, info=release_info(self.session))

    def opening(self, answer: bytes) -> Opening:
        return Opening.decode(self.plain(answer), self.session)


def refusal(called: Called, answer: bytes) -> Refusal:
    """It is one, signed by the key holder over this context."""
    message = Refusal.decode(answer, called.session)
    assert verify(
        called.world.keyholder.public_key,
        message.signature,
        REFUSAL_LABEL,
        *message.signed(called.session),
    )
    return message


def assert_untouched(called: Called) -> None:
    """What came changed nothing: the genuine request still gets the release."""
    assert kind_of(called.ask_honestly()) == KINDS.RELEASE
    assert_closed(called)


def assert_closed(called: Called) -> None:
    """Nothing of this context comes out any more, whatever is asked, of any process."""
    good = called.request(called.rows())
    for holder in (called.holder, called.world.new_holder()):
        with pytest.raises(FaultyAggregator):
            holder.handle(good, random=RANDOM.bytes(32))
        with pytest.raises(FaultyAggregator):
            holder.handle(called.call, random=RANDOM.bytes(32))
        with pytest.raises(FaultyAggregator):
            holder.handle(good, random=RANDOM.bytes(32))


class Liar:
    """The hook of an attempt in which one client's whole upload is ``make``'s.

    Holds what the client says in that step, up to its end, and sends in its place what
    ``make(liar)`` returns.  Everything else passes.
    """

    def __init__(
        self, world: World, name: str, make: Callable[[Liar], list[bytes]]
    ) -> None:
        self.world = world
        self.name = name
        self.session = world.session()
        self.me = self.session.roster.index(name)
        self.told: list[bytes] = []
        self.said: list[bytes] = []
        self._make = make

    def __call__(self, sender: str, receiver: str, message: bytes) -> list[bytes]:
        kind = kind_of(message)
        if receiver == self.name:
            self.told.append(message)
        if sender != self.name or kind not in (5, 6, KINDS.CIPHERTEXT, KINDS.INPUT):
            return [message]
        self.said.append(message)
        return self._make(self) if kind in UPLOADED.values() else []

    @property
    def chunks(self) -> list[bytes]:
        """The client's ciphertexts, as it said them."""
        return of_kind(self.said, KINDS.CIPHERTEXT)

    @property
    def data(self) -> list[bytes]:
        """What is in them."""
        return [bytes(Ciphertext.decode(m, self.session).data) for m in self.chunks]

    @property
    def rest(self) -> list[bytes]:
        """What is between them and the end: masking's chunks."""
        return of_kind(self.said, 5)

    @property
    def end(self) -> bytes:
        return self.said[-1]

    def messages(self, data: Sequence[bytes]) -> list[bytes]:
        """Ciphertexts with other contents."""
        return [
            Ciphertext(self.me, index, part).encode(self.session)
            for index, part in enumerate(data)
        ]

    def payload(self, data: Sequence[bytes]) -> bytes:
        tree = chunk_tree()
        for part in data:
            tree.add(tree.leaf(part))
        return payload_hash(self.session, self.me, tree.root())

    def input(self) -> Input:
        return Input.decode(self.end, self.session)

    def signed(self, message: Input, *, by: Identity | None = None) -> bytes:
        """An input, signed anew."""
        by = by or self.world.identities[self.name]
        signature = by.sign(INPUT_LABEL, *message.row().signed(self.session))
        return dataclasses.replace(message, signature=signature).encode(self.session)

    def attached(self, payload: bytes, *, root: bytes | None = None) -> bytes:
        """With one-time keys: the end, over another payload, signed anew.

        ``root``: of masking's chunks, where those are others too.
        """
        session = self.world.plan.key_session(self.session)
        (told,) = of_kind(self.told, 2)
        cohort = cohort_hash(session, CohortKeys.decode(told, session))
        honest = MaskedInput.decode(self.end, session)
        message = dataclasses.replace(
            honest, attached=payload, root=root or honest.root
        )
        signature = self.world.identities[self.name].sign(
            MASKED_INPUT_LABEL, *message.signed(session, cohort)
        )
        return dataclasses.replace(message, signature=signature).encode(session)

    def invitation(self) -> Invitation:
        (told,) = of_kind(self.told, KINDS.INVITATION)
        return Invitation.decode(told, self.session)

    def whole(self, plain: Sequence[bytes], *, key: Key | None = None) -> list[bytes]:
        """An upload of other ciphertexts that fits together, in either kind.

        With a key holder its key is ``key``; with one-time keys it stays the client's.
        """
        if self.world.keys == "one-time":
            end = self.attached(self.payload(plain))
            return [*self.messages(plain), *self.rest, end]
        chunk_key = RANDOM.bytes(32)
        sealed = [seal_chunk(chunk_key, i, part) for i, part in enumerate(plain)]
        payload = self.payload(sealed)
        to = self.invitation()
        made = key if key is not None else random_key(self.session)
        message = dataclasses.replace(
            self.input(),
            payload=payload,
            key_box=sealed_key(self.session, self.me, payload, made)(to.holder.key),
            chunk_box=sealed_chunk_key(self.session, self.me, payload, chunk_key)(
                to.key
            ),
        )
        return [*self.messages(sealed), self.signed(message)]


def seal_chunk(key: bytes, index: int, data: bytes) -> bytes:
    return AESGCM(key).encrypt(index.to_bytes(12, "big"), data, None)


def sealed_chunk_key(
    session: ckks.Session, client: int, payload: bytes, chunk_key: bytes
) -> Callable[[bytes], bytes]:
    """The chunk box of this key, for whom it is sealed to."""
    info = purpose(session, "chunk box", client, payload)
    return lambda to: keys.seal(chunk_key, to, info=info)


def uniform(session: ckks.Session, *, seed: int = 0) -> NDArray[np.uint64]:
    """Residues (blocks, primes, N) of a ciphertext, as far as anyone can tell."""
    p = session.parameters
    ring = p.packing.ring
    draws = np.random.default_rng(seed)
    columns = [
        draws.integers(0, prime.value, (p.blocks, ring.degree), dtype=np.uint64)
        for prime in ring.primes
    ]
    return np.stack(columns, axis=1)


def packed(session: ckks.Session, residues: NDArray[np.uint64]) -> list[bytes]:
    """Residues (blocks, primes, N) as the chunks of an upload, not sealed."""
    p = session.parameters
    bits = p.packing.ring.bits
    blocks = [wire_form(block, bits) for block in residues]
    return [b"".join(blocks[slice(*p.chunk_range(i))]) for i in range(p.chunks)]


def wire_form(residues: NDArray[np.uint64], bits: int) -> bytes:
    """Residues (primes, N) as SPEC 3.5 has them: by its words, number by number."""
    columns, lanes = 64 // math.gcd(64, bits), bits // math.gcd(64, bits)
    out = b""
    for polynomial in residues:
        table = polynomial.reshape(columns, -1)
        words = np.empty((lanes, table.shape[1]), "<u8")
        for row in range(table.shape[1]):
            number = sum(int(x) << (bits * c) for c, x in enumerate(table[:, row]))
            for lane in range(lanes):
                words[lane, row] = (number >> (64 * lane)) % 2**64
        out += words.tobytes()
    return out
