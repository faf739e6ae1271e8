# SPDX-License-Identifier: Apache-2.0
"""The aggregator's side of one masking context.

Collectors are open between two steps: ``add`` checks one client's message, and on a bad
one raises the error that names its sender and stays open for the others; ``close``
spends the collector and returns the next one with what to send.  When to close is the
engine's decision: a deadline is not protocol.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Generic, NoReturn, TypeVar, final

from numpy.typing import NDArray

from .. import wire
from ..errors import FaultyClient, StateReused, TooFewClients
from ..fixedpoint import Word
from . import crypto, shamir
from .checks import self_commitment, share_commitment
from .messages import (
    INPUT_LABEL,
    REVEAL_LABEL,
    SHARES_LABEL,
    STATEMENT_LABEL,
    Advertise,
    Agreement,
    Chunk,
    CohortKeys,
    Inbox,
    InboxEntry,
    MaskedInput,
    Reveal,
    SealedShares,
    Signatures,
    Statement,
    Survivor,
    cohort_hash,
    dealers_hash,
    signed_shares,
)
from .session import Session
from .vectors import Vectors

__all__ = [
    "CollectAdvertise",
    "CollectAgreements",
    "CollectInputs",
    "CollectReveals",
    "CollectShares",
    "Opened",
]

_M = TypeVar("_M")


@final
@dataclass(frozen=True, slots=True)
class Opened:
    """The sum over exactly the survivors: words mod 2^word_bits, and nothing else."""

    words: NDArray[Word] = field(repr=False)
    survivors: tuple[int, ...]


class _Collect(Generic[_M]):
    __slots__ = ("_closed", "_got", "_session")

    def __init__(self, session: Session) -> None:
        self._session = session
        self._got: dict[int, _M] = {}
        self._closed = False

    @property
    def senders(self) -> tuple[int, ...]:
        """Whose message has been accepted so far."""
        return tuple(sorted(self._got))

    def _accept(self, sender: int, claimed: int, message: _M) -> None:
        self._first(sender, claimed)
        self._got[sender] = message

    def _first(self, sender: int, claimed: int) -> None:
        """Raises unless this is ``sender``'s first message here, in its own name."""
        if self._closed:
            raise StateReused(f"{type(self).__name__} is closed")
        name = self._session.name(sender)
        if claimed != sender:
            raise FaultyClient(name, "speaks in another client's name")
        if sender in self._got:
            raise FaultyClient(name, "sent a second message in one step")

    def _close(self, needed: int) -> dict[int, _M]:
        if self._closed:
            raise StateReused(f"{type(self).__name__} is closed")
        self._closed = True
        if len(self._got) < needed:
            raise TooFewClients(len(self._got), needed)
        return {i: self._got[i] for i in sorted(self._got)}

    def _blame(self, sender: int, why: str) -> NoReturn:
        raise FaultyClient(self._session.name(sender), why)

    def __repr__(self) -> str:
        return f"<{type(self).__name__} have={len(self._got)} closed={self._closed}>"


@final
class CollectAdvertise(_Collect[Advertise]):
    """Step 1: keys come in."""

    __slots__ = ()

    def add(self, sender: int, message: Advertise) -> None:
        a = message.announcement
        self._first(sender, a.client)
        public = self._session.public_key(sender)
        if not wire.verify(public, a.signature, a.label(), *a.signed(self._session)):
            self._blame(sender, "its keys are not signed by it")
        if a.seal_key == a.mask_key:
            self._blame(sender, "its two keys are one")
        if not (crypto.is_usable(a.seal_key) and crypto.is_usable(a.mask_key)):
            self._blame(sender, "announced a point of low order")
        self._accept(sender, a.client, message)

    def close(self) -> tuple[CollectShares, CohortKeys]:
        got = self._close(self._session.parameters.needed)
        keys = CohortKeys(tuple(m.announcement for m in got.values()))
        return CollectShares(self._session, keys), keys


@final
class CollectShares(_Collect[SealedShares]):
    """Step 2: sealed shares come in."""

    __slots__ = ("_cohort", "_keys", "_order")

    def __init__(self, session: Session, keys: CohortKeys) -> None:
        super().__init__(session)
        self._keys = keys
        self._order = [a.client for a in keys.announcements]
        self._cohort = cohort_hash(session, keys)

    def add(self, sender: int, message: SealedShares) -> None:
        if sender not in self._order:
            self._blame(sender, "is not in the cohort")
        self._first(sender, message.client)
        if [s.to for s in message.shares] != self._order:
            self._blame(sender, "dealt to another set than the cohort")
        signed = signed_shares(
            self._session, self._cohort, sender, message.commitment, message.root()
        )
        public = self._session.public_key(sender)
        if not wire.verify(public, message.signature, SHARES_LABEL, *signed):
            self._blame(sender, "its shares are not signed by it")
        self._accept(sender, message.client, message)

    def close(self) -> tuple[CollectInputs, dict[int, Inbox]]:
        got = self._close(self._session.parameters.needed)
        leaves = {i: [s.leaf() for s in m.shares] for i, m in got.items()}
        roots = {i: m.root() for i, m in got.items()}
        inboxes = {}
        for reader in got:
            at = self._order.index(reader)
            inboxes[reader] = Inbox(
                tuple(
                    InboxEntry(
                        dealer,
                        m.commitment,
                        m.shares[at],
                        tuple(wire.merkle_path(SHARES_LABEL, leaves[dealer], at)),
                        roots[dealer],
                        m.signature,
                    )
                    for dealer, m in got.items()
                )
            )
        return CollectInputs(self._session, self._keys, got), inboxes


@final
class CollectInputs(_Collect[MaskedInput]):
    """Step 3: masked chunks come in, then each client's signed root of them."""

    __slots__ = ("_cohort", "_dealers", "_keys", "_shares", "_vectors")

    def __init__(
        self, session: Session, keys: CohortKeys, shares: Mapping[int, SealedShares]
    ) -> None:
        super().__init__(session)
        self._keys = keys
        self._shares = shares
        self._cohort = cohort_hash(session, keys)
        self._dealers = dealers_hash(session, tuple(shares))
        self._vectors = Vectors(session, shares)

    def add_chunk(self, sender: int, message: Chunk) -> None:
        """One chunk, in order."""
        if sender not in self._shares:
            self._blame(sender, "has dealt no shares")
        self._first(sender, message.client)
        self._vectors.add(sender, message.index, message.words)

    def add(self, sender: int, message: MaskedInput) -> None:
        if sender not in self._shares:
            self._blame(sender, "has dealt no shares")
        self._first(sender, message.client)
        signed = message.signed(self._session, self._cohort)
        public = self._session.public_key(sender)
        if not wire.verify(public, message.signature, INPUT_LABEL, *signed):
            self._blame(sender, "its vector is not signed by it")
        if message.dealers != self._dealers:
            self._blame(sender, "masked for another set of clients")
        self._vectors.check(sender, message.root)
        self._accept(sender, message.client, message)

    def close(self) -> tuple[CollectAgreements, Statement]:
        got = self._close(self._session.parameters.needed)
        total = self._vectors.sum(got)
        survivors = tuple(
            Survivor(i, m.root, m.claim, m.attached) for i, m in got.items()
        )
        statement = Statement(self._cohort, self._dealers, survivors)
        state = CollectAgreements(
            self._session, self._keys, self._shares, statement, total
        )
        return state, statement


@final
class CollectAgreements(_Collect[Agreement]):
    """Step 4: signatures over the one statement come in."""

    __slots__ = ("_keys", "_shares", "_statement", "_total")

    def __init__(
        self,
        session: Session,
        keys: CohortKeys,
        shares: Mapping[int, SealedShares],
        statement: Statement,
        total: NDArray[Word],
    ) -> None:
        super().__init__(session)
        self._keys = keys
        self._shares = shares
        self._statement = statement
        self._total = total

    def add(self, sender: int, message: Agreement) -> None:
        if sender not in self._statement.clients:
            self._blame(sender, "is not in the statement")
        self._first(sender, message.client)
        public = self._session.public_key(sender)
        if not wire.verify(
            public,
            message.signature,
            STATEMENT_LABEL,
            *self._statement.signed(self._session),
        ):
            self._blame(sender, "signed another statement")
        self._accept(sender, message.client, message)

    def close(self) -> tuple[CollectReveals, Signatures]:
        got = self._close(self._session.parameters.threshold)
        state = CollectReveals(
            self._session, self._keys, self._shares, self._statement, self._total
        )
        return state, Signatures(tuple(got.values()))


@final
class CollectReveals(_Collect[Reveal]):
    """Step 5: shares come in; closing it removes the masks and opens the sum."""

    __slots__ = ("_keys", "_shares", "_statement", "_total")

    def __init__(
        self,
        session: Session,
        keys: CohortKeys,
        shares: Mapping[int, SealedShares],
        statement: Statement,
        total: NDArray[Word],
    ) -> None:
        super().__init__(session)
        self._keys = {a.client: a.mask_key for a in keys.announcements}
        self._shares = shares
        self._statement = statement
        self._total = total

    def add(self, sender: int, message: Reveal) -> None:
        session = self._session
        if sender not in self._statement.clients:
            self._blame(sender, "is not in the statement")
        self._first(sender, message.client)
        public = session.public_key(sender)
        if not wire.verify(
            public, message.signature, REVEAL_LABEL, session.ctx, sender, message.rows()
        ):
            self._blame(sender, "its shares are not signed by it")
        if [s.of for s in message.shares] != list(self._shares):
            self._blame(sender, "revealed for another set of clients")
        for revealed in message.shares:
            kind = "self" if revealed.of in self._statement.clients else "key"
            if revealed.kind != kind:
                self._blame(sender, "revealed the wrong kind of share")
            dealt = self._shares[revealed.of].shares
            row = next(s for s in dealt if s.to == sender)
            committed = row.self_commitment if kind == "self" else row.key_commitment
            got = share_commitment(session, kind, revealed.of, sender, revealed.share)
            if got != committed:
                # SPEC 6.7: its holder checked the box against the same commitment.
                self._blame(sender, "revealed a share that was not dealt to it")
        self._accept(sender, message.client, message)

    def close(self) -> Opened:
        """The sum.  Raises FaultyClient naming a dealer whose shares do not fit."""
        reveals = self._close(self._session.parameters.threshold)
        survivors = self._statement.clients
        plus: list[bytes] = []
        minus: list[bytes] = []
        for dealer in self._shares:
            secret = self._secret(dealer, reveals)
            if dealer in survivors:
                minus.append(self._self_seed(dealer, secret))
            else:
                self._pair_seeds(dealer, secret, plus=plus, minus=minus)
        p = self._session.parameters
        stream = crypto.MaskStream(word_bits=p.word_bits, chunk_words=p.chunk_words)
        for index in range(p.chunks):
            begin, end = p.chunk_range(index)
            stream.apply(self._total[begin:end], index, plus=plus, minus=minus)
        return Opened(self._total, survivors)

    def _secret(self, dealer: int, reveals: Mapping[int, Reveal]) -> int:
        threshold = self._session.parameters.threshold
        points: dict[int, int] = {}
        for holder in list(reveals)[:threshold]:
            row = next(s for s in reveals[holder].shares if s.of == dealer)
            try:
                points[holder + 1] = shamir.from_bytes(row.share)
            except ValueError:
                # It matched the commitment, so its dealer made it so.
                self._blame(dealer, "dealt a share that is not a field element")
        return shamir.reconstruct(points)

    def _self_seed(self, dealer: int, beta: int) -> bytes:
        if self_commitment(self._session, dealer, beta) != (
            self._shares[dealer].commitment
        ):
            self._blame(dealer, "its shares do not add up to its self mask")
        return crypto.self_seed(beta, ctx=self._session.ctx)

    def _pair_seeds(
        self, dropped: int, z: int, *, plus: list[bytes], minus: list[bytes]
    ) -> None:
        """The pair masks that a dropped client left in the survivors' vectors."""
        session = self._session
        key = crypto.mask_private_key(z, ctx=session.ctx)
        if crypto.public_key(key) != self._keys[dropped]:
            self._blame(dropped, "its shares do not add up to its mask key")
        for client in self._statement.clients:
            seed = crypto.pair_seed(
                key,
                self._keys[client],
                ctx=session.ctx,
                cohort_hash=self._statement.cohort,
                pair=(client, dropped),
            )
            # The survivor added it where its peer's index is higher: take it out.
            (minus if dropped > client else plus).append(seed)
