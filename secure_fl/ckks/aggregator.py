# SPDX-License-Identifier: Apache-2.0
"""The aggregator's side: ciphertexts into one sum, and with a key holder all the rest.

Collectors are open between two steps, as in masking: on a bad message ``add`` raises
the error that names its sender, and stays open for the others.
"""

from __future__ import annotations

from typing import final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from .. import keys, wire
from ..errors import (
    FaultyClient,
    FaultyKeyHolder,
    StateReused,
    TooFewClients,
    UsageError,
)
from ..fixedpoint import Word
from ..identity import Identity
from ..parallel import each
from .client import purpose, release_info
from .encryption import chunk_tree, open_chunk, open_sum
from .messages import (
    AGGREGATOR_KEY_LABEL,
    HOLDER_KEY_LABEL,
    INPUT_LABEL,
    REFUSAL_LABEL,
    RELEASE_LABEL,
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
from .residues import UNREDUCED, reduced, unpack_blocks
from .session import SPEC, Session

__all__ = [
    "Ciphertexts",
    "CollectHolderKey",
    "CollectInputs",
    "CollectRelease",
    "Ready",
]

U64 = NDArray[np.uint64]


@final
class Ready:
    """A whole upload, checked and not yet in the sum."""

    __slots__ = ("parts",)

    def __init__(self, parts: list[U64]) -> None:
        self.parts = parts


@final
class Ciphertexts:
    """One running sum of ciphertexts, and beside it the chunks of uploads under way.

    What is in a sum cannot be taken out again, so an upload joins it whole, when its
    client's signed payload vouches for every chunk.
    """

    def __init__(self, session: Session) -> None:
        self._session = session
        p = session.parameters
        self._pending: dict[int, list[bytes | memoryview]] = {
            i: [] for i in range(p.clients)
        }
        ring = p.packing.ring
        self._total = np.zeros((p.blocks, len(ring.primes), ring.degree), np.uint64)
        self._moduli = np.array([[q.value] for q in ring.primes], np.uint64)
        self._unreduced = 0

    def add_chunk(self, sender: int, message: Ciphertext) -> None:
        """Raises FaultyClient where it is not the next one of ``sender``."""
        chunks = self._pending.get(sender)
        if chunks is None or message.client != sender:
            self._blame(sender, "a chunk after its input, or in another's name")
        elif message.index != len(chunks):
            self._blame(sender, "a chunk is missing, late or repeated")
        else:
            chunks.append(message.data)

    def check(
        self, sender: int, payload: bytes, *, chunk_key: bytes | None = None
    ) -> Ready:
        """All chunks of ``sender``, as its ``payload`` says (SPEC 7.3).

        Raises FaultyClient; the upload stays as it was.
        """
        session = self._session
        p = session.parameters
        ring = p.packing.ring
        chunks = self._pending.get(sender, [])
        if len(chunks) != p.chunks:
            self._blame(sender, "its upload is not complete")
        tree = chunk_tree()

        def work(index: int) -> tuple[bytes, U64]:
            data = chunks[index]
            leaf = tree.leaf(data)
            if chunk_key is not None:
                data = open_chunk(chunk_key, index, data)
            blocks = unpack_blocks(data, ring)
            if not reduced(blocks, ring):
                raise ValueError("a residue is not below its prime")
            return leaf, blocks

        try:
            made = each(work, p.chunks)
        except ValueError as error:
            raise FaultyClient(session.name(sender), str(error)) from None
        for leaf, _ in made:
            tree.add(leaf)
        if payload_hash(session, sender, tree.root()) != payload:
            self._blame(sender, "its chunks do not match its payload")
        return Ready([blocks for _, blocks in made])

    def join(self, sender: int, ready: Ready) -> None:
        """Add a whole upload to the sum, once.  Callers take turns."""
        if self._pending.pop(sender, None) is None:
            raise UsageError("this upload is in the sum")
        at = 0
        for blocks in ready.parts:
            part = self._total[at : at + len(blocks)]
            np.add(part, blocks, out=part)
            at += len(blocks)
        self._unreduced += 1
        if self._unreduced == UNREDUCED:
            self._reduce()

    def _reduce(self) -> None:
        each(self._reduce_chunk, self._session.parameters.chunks)
        self._unreduced = 0

    def _reduce_chunk(self, index: int) -> None:
        begin, end = self._session.parameters.chunk_range(index)
        part = self._total[begin:end]
        np.remainder(part, self._moduli, out=part)

    def total(self) -> U64:
        """Residues (blocks, primes, N) of the sum; uploads under way are let go."""
        self._pending.clear()
        self._reduce()
        return self._total

    def _blame(self, sender: int, why: str) -> None:
        raise FaultyClient(self._session.name(sender), why)


# -- with a key holder -----------------------------------------------------------------


@final
class CollectHolderKey:
    """Step 1: calls the key holder; its key comes in."""

    def __init__(
        self, session: Session, aggregator: Identity, *, holder: bytes, random: bytes
    ) -> None:
        """``holder``: the key holder's public key.  ``random``: 32 fresh bytes."""
        if len(random) != 32 or not any(random):
            raise UsageError("random must be 32 fresh bytes")
        self._session = session
        self._aggregator = aggregator
        self._holder = holder
        self._key = keys.private_key(
            keys.derive(
                random, salt=session.ctx, label=f"{SPEC} aggregator key", parts=[]
            )
        )
        self._public = keys.public_key(self._key)
        self._signature = aggregator.sign(
            AGGREGATOR_KEY_LABEL, session.ctx, self._public
        )
        self._got: HolderKey | None = None
        self._closed = False

    def call(self) -> Call:
        s = self._session
        return Call(
            s.ctx,
            s.round_index,
            s.attempt,
            s.model_hash,
            s.parameters.length,
            self._public,
            self._signature,
        )

    def add(self, message: HolderKey) -> None:
        if self._closed or self._got is not None:
            raise FaultyKeyHolder("the key holder sent a second key")
        signed = (self._session.ctx, message.key)
        if not wire.verify(
            self._holder, message.signature, HOLDER_KEY_LABEL, *signed
        ) or not keys.is_usable(message.key):
            raise FaultyKeyHolder("its key is not usable, or not signed by it")
        if message.key == self._public:
            raise FaultyKeyHolder("it passes our key off as its own")
        self._got = message

    def close(self) -> tuple[CollectInputs, Invitation]:
        if self._closed:
            raise StateReused("CollectHolderKey is closed")
        self._closed = True
        if self._got is None:
            raise FaultyKeyHolder("the key holder did not answer")
        inputs = CollectInputs(
            self._session, self._aggregator, holder=self._holder, key=self._key
        )
        return inputs, Invitation(self._got, self._public, self._signature)


@final
class CollectInputs:
    """Step 2: chunks and inputs come in."""

    def __init__(
        self,
        session: Session,
        aggregator: Identity,
        *,
        holder: bytes,
        key: X25519PrivateKey,
    ) -> None:
        self._session = session
        self._aggregator = aggregator
        self._holder = holder
        self._key = key
        self._ciphertexts = Ciphertexts(session)
        self._rows: dict[int, Row] = {}
        self._closed = False

    def _open(self) -> None:
        if self._closed:
            raise StateReused("CollectInputs is closed")

    def add_chunk(self, sender: int, message: Ciphertext) -> None:
        self._open()
        self._ciphertexts.add_chunk(sender, message)

    def add(self, sender: int, message: Input) -> None:
        self._open()
        session, name = self._session, self._session.name(sender)
        if message.client != sender or sender in self._rows:
            raise FaultyClient(name, "speaks twice, or in another's name")
        row = message.row()
        if not wire.verify(
            session.public_key(sender),
            message.signature,
            INPUT_LABEL,
            *row.signed(session),
        ):
            raise FaultyClient(name, "its input is not signed by it")
        try:
            chunk_key = keys.open_box(
                message.chunk_box,
                self._key,
                info=purpose(session, "chunk box", sender, message.payload),
            )
        except ValueError as error:
            raise FaultyClient(name, f"its chunk box: {error}") from None
        ready = self._ciphertexts.check(sender, message.payload, chunk_key=chunk_key)
        self._ciphertexts.join(sender, ready)
        self._rows[sender] = row

    def close(self) -> tuple[CollectRelease, Request]:
        """Raises TooFewClients: the key holder would release nothing."""
        self._open()
        self._closed = True
        needed = self._session.parameters.needed
        if len(self._rows) < needed:
            raise TooFewClients(len(self._rows), needed)
        rows = tuple(self._rows[i] for i in sorted(self._rows))
        unsigned = Request(rows, b"")
        signature = self._aggregator.sign(
            REQUEST_LABEL, *unsigned.signed(self._session)
        )
        release = CollectRelease(
            self._session,
            rows,
            self._ciphertexts.total(),
            holder=self._holder,
            key=self._key,
        )
        return release, Request(rows, signature)


@final
class CollectRelease:
    """Step 3: the sum of the keys comes in; closing opens the sum of the vectors."""

    def __init__(
        self,
        session: Session,
        rows: tuple[Row, ...],
        total: U64,
        *,
        holder: bytes,
        key: X25519PrivateKey,
    ) -> None:
        self._session = session
        self._rows = rows
        self._total = total
        self._holder = holder
        self._key = key
        self._answer: Release | Refusal | None = None
        self._closed = False

    def add(self, message: Release | Refusal) -> None:
        if self._closed or self._answer is not None:
            raise FaultyKeyHolder("the key holder answered twice")
        if isinstance(message, Release):
            rows = tuple((r.client, r.payload, r.claim) for r in self._rows)
            if message.rows != rows:
                raise FaultyKeyHolder("it released the keys of another set")
            label = RELEASE_LABEL
        else:
            label = REFUSAL_LABEL
        if not wire.verify(
            self._holder, message.signature, label, *message.signed(self._session)
        ):
            raise FaultyKeyHolder("its answer is not signed by it")
        self._answer = message

    def close(self) -> tuple[NDArray[Word], tuple[int, ...]]:
        """The sum of the words, and whose they are.

        Raises FaultyClient where the key holder refused its key, and
        ProtocolError where what it released does not open the sum.
        """
        if self._closed:
            raise StateReused("CollectRelease is closed")
        self._closed = True
        session, clients = self._session, tuple(r.client for r in self._rows)
        answer = self._answer
        if answer is None:
            raise FaultyKeyHolder("the key holder did not answer")
        if isinstance(answer, Refusal):
            # It got as many rows as it needs, so it cannot miss any either.
            if answer.culprit is None or answer.culprit not in clients:
                raise FaultyKeyHolder("its refusal names nobody in the request")
            raise FaultyClient(
                session.name(answer.culprit), "the key holder refused its key"
            )
        try:
            plain = keys.open_box(answer.box, self._key, info=release_info(session))
            opening = Opening.decode(plain, session)
        except ValueError as error:
            raise FaultyKeyHolder(f"what it released: {error}") from None
        seeds = dict(zip(clients, opening.seeds, strict=True))
        return open_sum(session, self._total, opening.key_sum, seeds), clients
