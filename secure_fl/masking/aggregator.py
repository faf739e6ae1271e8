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
from typing import Final, Generic, NoReturn, TypeVar, final

from numpy.typing import NDArray

from .. import wire
from ..errors import FaultyClient, StateReused, TooFewClients
from ..fixedpoint import Word
from ..parallel import each
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
_STREAMS: Final = 64


@final
@dataclass(frozen=True, slots=True)
class Opened:
    """The sum over exactly the survivors: words mod 2^word_bits, and nothing else.

    ``attached_seeds``: of each survivor, for a payload that it sent beside its words.
    """

    words: NDArray[Word] = field(repr=False)
    survivors: tuple[int, ...]
    attached_seeds: Mapping[int, bytes] = field(repr=False, default_factory=dict)


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

    def _accept(self, sender: int, message: _M) -> None:
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
            self._blame(sender, "announced a key that is not usable")
        self._accept(sender, message)

    def close(self) -> tuple[CollectShares, CohortKeys]:
        got = self._close(self._session.parameters.needed)
        keys = CohortKeys(tuple(m.announcement for m in got.values()))
        return CollectShares(self._session, keys), keys


@dataclass(frozen=True, slots=True)
class _Dealt:
    """What later steps need of step 2: who dealt what to whom (U1, U2)."""

    mask_keys: Mapping[int, bytes]
    cohort: bytes
    shares: Mapping[int, SealedShares] = field(repr=False)

    @property
    def dealers(self) -> tuple[int, ...]:
        return tuple(self.shares)

    def place(self, client: int) -> int:
        """Where a member of U1 stands in every dealer's rows."""
        return list(self.mask_keys).index(client)


@final
class CollectShares(_Collect[SealedShares]):
    """Step 2: sealed shares come in."""

    __slots__ = ("_cohort", "_keys", "_paths")

    def __init__(self, session: Session, keys: CohortKeys) -> None:
        super().__init__(session)
        self._keys = {a.client: a.mask_key for a in keys.announcements}
        self._cohort = cohort_hash(session, keys)
        self._paths: dict[int, tuple[bytes, list[list[bytes]]]] = {}

    def add(self, sender: int, message: SealedShares) -> None:
        if sender not in self._keys:
            self._blame(sender, "is not in the cohort")
        self._first(sender, message.client)
        if [s.to for s in message.shares] != list(self._keys):
            self._blame(sender, "dealt to another set than the cohort")
        root, paths = message.tree()
        signed = signed_shares(
            self._session, self._cohort, sender, message.commitment, root
        )
        public = self._session.public_key(sender)
        if not wire.verify(public, message.signature, SHARES_LABEL, *signed):
            self._blame(sender, "its shares are not signed by it")
        self._paths[sender] = root, paths
        self._accept(sender, message)

    def close(self) -> tuple[CollectInputs, dict[int, Inbox]]:
        got = self._close(self._session.parameters.needed)
        inboxes = {}
        for at, reader in enumerate(self._keys):
            if reader not in got:
                continue
            entries = []
            for dealer, m in got.items():
                root, paths = self._paths[dealer]
                entries.append(
                    InboxEntry(
                        dealer,
                        m.commitment,
                        m.shares[at],
                        tuple(paths[at]),
                        root,
                        m.signature,
                    )
                )
            inboxes[reader] = Inbox(tuple(entries))
        self._paths.clear()
        dealt = _Dealt(self._keys, self._cohort, got)
        return CollectInputs(self._session, dealt), inboxes


@final
class CollectInputs(_Collect[MaskedInput]):
    """Step 3: masked chunks come in, then each client's signed root of them."""

    __slots__ = ("_dealers", "_dealt", "_vectors")

    def __init__(self, session: Session, dealt: _Dealt) -> None:
        super().__init__(session)
        self._dealt = dealt
        self._dealers = dealers_hash(session, dealt.dealers)
        self._vectors = Vectors(session, dealt.dealers)

    def add_chunk(self, sender: int, message: Chunk) -> None:
        """One chunk, in order."""
        if sender not in self._dealt.shares:
            self._blame(sender, "has dealt no shares")
        self._first(sender, message.client)
        self._vectors.add(sender, message.index, message.words)

    def add(self, sender: int, message: MaskedInput) -> None:
        if sender not in self._dealt.shares:
            self._blame(sender, "has dealt no shares")
        self._first(sender, message.client)
        signed = message.signed(self._session, self._dealt.cohort)
        public = self._session.public_key(sender)
        if not wire.verify(public, message.signature, INPUT_LABEL, *signed):
            self._blame(sender, "its vector is not signed by it")
        if message.dealers != self._dealers:
            self._blame(sender, "masked for another set of clients")
        self._vectors.join(sender, message.root)
        self._accept(sender, message)

    def close(self) -> tuple[CollectAgreements, Statement]:
        got = self._close(self._session.parameters.needed)
        survivors = tuple(
            Survivor(i, m.root, m.claim, m.attached) for i, m in got.items()
        )
        statement = Statement(self._dealt.cohort, self._dealers, survivors)
        total = self._vectors.total()
        return CollectAgreements(
            self._session, self._dealt, statement, total
        ), statement


class _CollectForStatement(_Collect[_M]):
    """Steps 4 and 5: only members of the statement speak."""

    __slots__ = ("_dealt", "_signed", "_statement", "_survivors", "_total")

    def __init__(
        self,
        session: Session,
        dealt: _Dealt,
        statement: Statement,
        total: NDArray[Word],
    ) -> None:
        super().__init__(session)
        self._dealt = dealt
        self._statement = statement
        self._signed = wire.Signed(STATEMENT_LABEL, *statement.signed(session))
        self._survivors = statement.clients
        self._total = total

    def _first(self, sender: int, claimed: int) -> None:
        if sender not in self._survivors:
            self._blame(sender, "is not in the statement")
        super()._first(sender, claimed)


@final
class CollectAgreements(_CollectForStatement[Agreement]):
    """Step 4: signatures over the one statement come in."""

    __slots__ = ()

    def add(self, sender: int, message: Agreement) -> None:
        self._first(sender, message.client)
        public = self._session.public_key(sender)
        if not self._signed.by(public, message.signature):
            self._blame(sender, "signed another statement")
        self._accept(sender, message)

    def close(self) -> tuple[CollectReveals, Signatures]:
        got = self._close(self._session.parameters.threshold)
        state = CollectReveals(self._session, self._dealt, self._statement, self._total)
        return state, Signatures(tuple(got.values()))


@final
class CollectReveals(_CollectForStatement[Reveal]):
    """Step 5: shares come in; closing it removes the masks and opens the sum."""

    __slots__ = ()

    def add(self, sender: int, message: Reveal) -> None:
        session = self._session
        self._first(sender, message.client)
        public = session.public_key(sender)
        if not wire.verify(
            public, message.signature, REVEAL_LABEL, session.ctx, sender, message.rows()
        ):
            self._blame(sender, "its shares are not signed by it")
        if [s.of for s in message.shares] != list(self._dealt.shares):
            self._blame(sender, "revealed for another set of clients")
        place = self._dealt.place(sender)
        for revealed in message.shares:
            kind = "self" if revealed.of in self._survivors else "key"
            if revealed.kind != kind:
                self._blame(sender, "revealed the wrong kind of share")
            row = self._dealt.shares[revealed.of].shares[place]
            committed = row.self_commitment if kind == "self" else row.key_commitment
            got = share_commitment(session, kind, revealed.of, sender, revealed.share)
            if got != committed:
                # SPEC 6.7: its holder checked the box against the same commitment.
                self._blame(sender, "revealed a share that was not dealt to it")
        self._accept(sender, message)

    def close(self) -> Opened:
        """The sum.  Raises FaultyClient naming a dealer whose shares do not fit."""
        reveals = self._close(self._session.parameters.threshold)
        plus: list[bytes] = []
        minus: list[bytes] = []
        attached: dict[int, bytes] = {}
        for place, dealer in enumerate(self._dealt.dealers):
            secret = self._secret(dealer, place, reveals)
            if dealer in self._survivors:
                minus.append(self._self_seed(dealer, secret))
                attached[dealer] = crypto.attached_seed(secret, ctx=self._session.ctx)
            else:
                self._pair_seeds(dealer, secret, plus=plus, minus=minus)
        # Some streams at a time: each thread keeps a cipher for each.
        for first in range(0, max(len(plus), len(minus)), _STREAMS):
            some = slice(first, first + _STREAMS)
            self._apply(plus[some], minus[some])
        return Opened(self._total, self._survivors, attached)

    def _apply(self, plus: list[bytes], minus: list[bytes]) -> None:
        p = self._session.parameters
        stream = crypto.MaskStream(word_bits=p.word_bits, plus=plus, minus=minus)

        def unmask(index: int) -> None:
            begin, end = p.chunk_range(index)
            stream.apply(self._total[begin:end], index)

        each(unmask, p.chunks)

    def _secret(self, dealer: int, place: int, reveals: Mapping[int, Reveal]) -> int:
        threshold = self._session.parameters.threshold
        points: dict[int, int] = {}
        for holder in list(reveals)[:threshold]:
            try:
                share = shamir.from_bytes(reveals[holder].shares[place].share)
            except ValueError:
                # It matched the commitment, so its dealer made it so.
                self._blame(dealer, "dealt a share that is not a field element")
            points[holder + 1] = share
        return shamir.reconstruct(points)

    def _self_seed(self, dealer: int, beta: int) -> bytes:
        if self_commitment(self._session, dealer, beta) != (
            self._dealt.shares[dealer].commitment
        ):
            self._blame(dealer, "its shares do not add up to its self mask")
        return crypto.self_seed(beta, ctx=self._session.ctx)

    def _pair_seeds(
        self, dropped: int, z: int, *, plus: list[bytes], minus: list[bytes]
    ) -> None:
        """The pair masks that a dropped client left in the survivors' vectors."""
        session = self._session
        key = crypto.mask_private_key(z, ctx=session.ctx)
        if crypto.public_key(key) != self._dealt.mask_keys[dropped]:
            self._blame(dropped, "its shares do not add up to its mask key")
        for client in self._survivors:
            seed = crypto.pair_seed(
                key,
                self._dealt.mask_keys[client],
                ctx=session.ctx,
                cohort_hash=self._dealt.cohort,
                pair=(client, dropped),
            )
            # The survivor added it where its peer's index is higher: take it out.
            (minus if dropped > client else plus).append(seed)
