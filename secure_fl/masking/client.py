# SPDX-License-Identifier: Apache-2.0
"""A client's side of one masking context: five steps, each state used once.

Theory of operation.  A state is a type; a transition takes a message, spends the state
and returns the next one with the message to send.  An illegal step has no method to
call.  Nothing here does IO, reads a clock or draws randomness: 32 fresh bytes come in
as an argument where a step needs them.

    start            -> AwaitCohort      sends Advertise
    on_cohort        -> AwaitInbox       sends SealedShares
    on_inbox         -> Uploading        yields Chunks
    finish           -> AwaitStatement   sends MaskedInput
    on_statement     -> AwaitSignatures  sends Agreement
    on_signatures                        sends Reveal; no state is left to misuse

Spend first, check second: an error ends the context for this client.  A retry under the
same secrets would let an aggregator harvest two answers, and two answers open a vector.

Where a process ends between two messages a state is *parked*: ``park`` spends it and
returns bytes for the keystore (they hold secrets), ``unpark`` makes it again, once.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar, Final, NoReturn, final

from numpy.typing import NDArray

from .. import wire
from ..errors import (
    FaultyAggregator,
    FaultyClient,
    ProtocolError,
    StateReused,
    UsageError,
)
from ..fixedpoint import Word, pack, word_dtype
from ..identity import Identity
from ..parallel import each, in_order
from . import crypto, shamir
from .checks import check_agreements, check_cohort, need, self_commitment
from .dealing import check_row, deal, open_row
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
    KeyAnnouncement,
    MaskedInput,
    Reveal,
    RevealedShare,
    SealedShares,
    Signatures,
    Statement,
    cohort_hash,
    dealers_hash,
    signed_shares,
)
from .session import Session
from .vectors import chunk_tree

__all__ = [
    "AwaitCohort",
    "AwaitInbox",
    "AwaitSignatures",
    "AwaitStatement",
    "Uploading",
    "start",
    "unpark",
]


# A state's secrets, as a CBOR array of this version; only `park` and `unpark` see it.
_Secrets = list[wire.Value]


class _State:
    """What all states share: who, which context, and being used once."""

    __slots__ = ("_identity", "_me", "_secrets", "_session", "_spent")
    _tag: ClassVar[int]

    def __init__(
        self, session: Session, identity: Identity, me: int, secrets: _Secrets
    ) -> None:
        self._session = session
        self._identity = identity
        self._me = me
        self._secrets = secrets
        self._spent = False

    def _spend(self) -> _Secrets:
        if self._spent:
            raise StateReused(
                f"{type(self).__name__} was used before",
                hint="a state answers one message; start a new attempt instead",
            )
        self._spent = True
        secrets, self._secrets = self._secrets, []
        return secrets

    def park(self) -> bytes:
        """Spend the state into bytes.  They hold secrets: for a keystore only."""
        return wire.encode([self._tag, self._session.ctx, self._me, self._spend()])

    def __repr__(self) -> str:
        return f"<{type(self).__name__} client={self._me} spent={self._spent}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("protocol states are not copied or pickled: a copy is a reuse")


def start(
    session: Session, identity: Identity, *, random: bytes
) -> tuple[AwaitCohort, Advertise]:
    """Step 1.  ``random``: 32 bytes that nothing else uses.

    Caller must record, durably, that this context was started before the message
    leaves, and never start it again: two starts are two answers.
    """
    if len(random) != 32 or not any(random):
        raise UsageError("random must be 32 fresh bytes")
    me = session.roster.index(identity.name)
    if session.public_key(me) != identity.public_key:
        raise UsageError(f"the roster holds another key for {identity.name}")
    beta, z = crypto.elements(random, "secrets", 2, ctx=session.ctx)
    seal_seed = crypto.derive(random, salt=session.ctx, label="seal key", parts=[])
    seal_key = crypto.public_key(crypto.private_key(seal_seed))
    mask_key = crypto.public_key(crypto.mask_private_key(z, ctx=session.ctx))
    unsigned = KeyAnnouncement(me, seal_key, mask_key, b"")
    signature = identity.sign(unsigned.label(), *unsigned.signed(session))
    secrets: _Secrets = [
        shamir.to_bytes(beta),
        shamir.to_bytes(z),
        seal_seed,
        seal_key,
        mask_key,
    ]
    announcement = KeyAnnouncement(me, seal_key, mask_key, signature)
    return AwaitCohort(session, identity, me, secrets), Advertise(announcement)


@final
class AwaitCohort(_State):
    """Has announced its keys; awaits everyone's."""

    __slots__ = ()
    _tag = 1

    def on_cohort(
        self, message: CohortKeys, *, random: bytes
    ) -> tuple[AwaitInbox, SealedShares]:
        """Step 2: check all keys, share both secrets with everyone."""
        beta_, z_, seal_seed, seal_key, mask_key = self._spend()
        session, me = self._session, self._me
        if len(random) != 32 or not any(random):
            raise UsageError("random must be 32 fresh bytes")
        check_cohort(session, message)
        mine = [a for a in message.announcements if a.client == me]
        if not mine or (mine[0].seal_key, mine[0].mask_key) != (seal_key, mask_key):
            raise FaultyAggregator("our own keys are missing or replaced")
        assert isinstance(beta_, bytes)
        assert isinstance(z_, bytes)
        beta, z = shamir.from_bytes(beta_), shamir.from_bytes(z_)
        cohort = cohort_hash(session, message)
        rows, own = deal(
            session, me, message.announcements, cohort, beta=beta, z=z, random=random
        )
        commitment = self_commitment(session, me, beta)
        unsigned = SealedShares(me, commitment, rows, b"")
        signature = self._identity.sign(
            SHARES_LABEL,
            *signed_shares(session, cohort, me, commitment, unsigned.root()),
        )
        keys: _Secrets = [[a.client, a.mask_key] for a in message.announcements]
        state = AwaitInbox(
            session, self._identity, me, [beta_, z_, seal_seed, list(own), cohort, keys]
        )
        return state, SealedShares(me, commitment, rows, signature)


@final
class AwaitInbox(_State):
    """Has dealt its shares; awaits a box from every dealer."""

    __slots__ = ()
    _tag = 2

    def on_inbox(
        self,
        message: Inbox,
        words: NDArray[Word],
        *,
        claim: bytes,
    ) -> Uploading:
        """Step 3: open every box, then mask ``words`` chunk by chunk.

        ``words``: ``length`` unsigned words of the session's width, read while chunks
        are taken.  ``claim``: 32 bytes, the hash of the ledger entry behind them.
        Raises FaultyClient for a dealer whose signed box is bad.
        """
        beta_, z_, seal_seed, own, cohort, keys = self._spend()
        session, me = self._session, self._me
        p = session.parameters
        if words.shape != (p.length,) or words.dtype != word_dtype(p.word_bits):
            raise UsageError(f"a vector of {p.length} words was expected")
        if len(claim) != wire.HASH_BYTES:
            raise UsageError("a claim has 32 bytes")
        assert isinstance(beta_, bytes)
        assert isinstance(z_, bytes)
        assert isinstance(seal_seed, bytes)
        assert isinstance(own, list)
        assert isinstance(cohort, bytes)
        assert isinstance(keys, list)
        mask_keys = {row[0]: row[1] for row in keys}
        order = list(mask_keys)
        dealers = tuple(e.dealer for e in message.entries)
        if not set(dealers) <= set(order):
            raise FaultyAggregator("a box comes from outside the cohort")
        if me not in dealers:
            raise FaultyAggregator("our own shares are missing")
        need(session, len(dealers))
        seal_key = crypto.private_key(seal_seed)
        mask_key = crypto.mask_private_key(shamir.from_bytes(z_), ctx=session.ctx)
        held: _Secrets = []
        plus = [crypto.self_seed(shamir.from_bytes(beta_), ctx=session.ctx)]
        minus: list[bytes] = []
        place, entries = order.index(me), message.entries
        each(
            lambda k: check_row(session, entries[k], cohort, place, len(order)),
            len(entries),
        )
        for entry in entries:
            dealer = entry.dealer
            if dealer == me:
                held.append([dealer, *own])
                continue
            held.append([dealer, *open_row(session, me, entry, cohort, seal_key)])
            try:
                seed = crypto.pair_seed(
                    mask_key,
                    mask_keys[dealer],
                    ctx=session.ctx,
                    cohort_hash=cohort,
                    pair=(me, dealer),
                )
            except ValueError:
                raise FaultyClient(
                    session.name(dealer), "its mask key is not a key"
                ) from None
            (plus if dealer > me else minus).append(seed)
        return Uploading(
            session,
            self._identity,
            me,
            [held, cohort, dealers_hash(session, dealers), claim],
            attached_seed=crypto.attached_seed(
                shamir.from_bytes(beta_), ctx=session.ctx
            ),
            words=words,
            plus=plus,
            minus=minus,
        )


@final
class Uploading(_State):
    """Sends its masked chunks.  Not parked: a crash here is a dropout.

    ``attached_seed``: 32 secret bytes for a payload beside the vector; the aggregator
    learns them if this client is a survivor, and only then.
    """

    __slots__ = ("_minus", "_plus", "_tree", "_words", "attached_seed")
    _tag = 0

    def __init__(
        self,
        session: Session,
        identity: Identity,
        me: int,
        secrets: _Secrets,
        *,
        attached_seed: bytes,
        words: NDArray[Word],
        plus: list[bytes],
        minus: list[bytes],
    ) -> None:
        super().__init__(session, identity, me, secrets)
        self.attached_seed = attached_seed
        self._words = words
        self._plus = plus
        self._minus = minus
        self._tree = chunk_tree()

    def chunks(self) -> Iterator[Chunk]:
        """Every chunk once, in order; a few are masked ahead of the one taken.

        From the first one on the update is spent: it may enter no other context
        (SPEC 7) unless :func:`check_omission` shows that this one cannot open it.
        """
        if len(self._tree) or self._spent:
            raise StateReused("chunks are made once")
        p = self._session.parameters
        words = self._words
        stream = crypto.MaskStream(
            word_bits=p.word_bits, plus=self._plus, minus=self._minus
        )

        def mask(index: int) -> tuple[bytes, bytes]:
            begin, end = p.chunk_range(index)
            masked = words[begin:end].copy()
            stream.apply(masked, index)
            data = pack(masked, p.word_bits)
            return data, self._tree.leaf(data)

        for index, (data, leaf) in enumerate(in_order(mask, p.chunks)):
            if self._spent:
                raise StateReused("the upload is over")
            self._tree.add(leaf)
            yield Chunk(self._me, index, data)

    def park(self) -> NoReturn:
        raise UsageError("an upload is not parked: start a new attempt")

    def finish(self, *, attached: bytes = b"") -> tuple[AwaitStatement, MaskedInput]:
        """End of step 3: sign the root of all chunks, and of what went beside them."""
        held, cohort, dealers, claim = self._spend()
        if len(attached) not in (0, wire.HASH_BYTES):
            raise UsageError("an attached root has 32 bytes")
        self._plus, self._minus = [], []
        if len(self._tree) != self._session.parameters.chunks:
            raise UsageError("finish() comes after every chunk was taken")
        assert isinstance(cohort, bytes)
        assert isinstance(dealers, bytes)
        assert isinstance(claim, bytes)
        root = self._tree.root()
        unsigned = MaskedInput(self._me, root, dealers, claim, attached, b"")
        signature = self._identity.sign(
            INPUT_LABEL, *unsigned.signed(self._session, cohort)
        )
        message = MaskedInput(self._me, root, dealers, claim, attached, signature)
        state = AwaitStatement(
            self._session,
            self._identity,
            self._me,
            [held, cohort, dealers, root, claim, attached],
        )
        return state, message


@final
class AwaitStatement(_State):
    """Has sent its vector; awaits the aggregator's word on who is in."""

    __slots__ = ()
    _tag = 3

    def on_statement(self, message: Statement) -> tuple[AwaitSignatures, Agreement]:
        """Step 4: check the set that will be opened, and sign it, once."""
        held, cohort, dealers, *mine = self._spend()
        session, me = self._session, self._me
        if message.cohort != cohort or message.dealers != dealers:
            raise FaultyAggregator("the statement is about another cohort")
        assert isinstance(held, list)
        known = {row[0] for row in held}
        if not set(message.clients) <= known:
            raise FaultyAggregator("the statement names a client without shares")
        rows = [s for s in message.survivors if s.client == me]
        if not rows:
            raise FaultyAggregator("the statement leaves us out")
        if [rows[0].root, rows[0].claim, rows[0].attached] != mine:
            raise FaultyAggregator("the statement holds another vector for us")
        need(session, len(message.survivors))
        signature = self._identity.sign(STATEMENT_LABEL, *message.signed(session))
        state = AwaitSignatures(
            session, self._identity, me, [held, message.encode(session)]
        )
        return state, Agreement(me, signature)


@final
class AwaitSignatures(_State):
    """Has signed one statement; awaits proof that enough others signed the same."""

    __slots__ = ()
    _tag = 4

    def on_signatures(self, message: Signatures) -> Reveal:
        """Step 5, the last: for each dealer exactly one kind of share."""
        held, encoded = self._spend()
        session, me = self._session, self._me
        assert isinstance(held, list)
        assert isinstance(encoded, bytes)
        statement = Statement.decode(encoded, session)
        check_agreements(session, statement, message)
        survivors = set(statement.clients)
        shares = []
        for row in held:
            assert isinstance(row, list)
            dealer, self_share, key_share = row
            assert isinstance(dealer, int)
            assert isinstance(self_share, bytes)
            assert isinstance(key_share, bytes)
            # SPEC 6.6: both kinds for one dealer would open its vector.
            if dealer in survivors:
                shares.append(RevealedShare(dealer, "self", self_share))
            else:
                shares.append(RevealedShare(dealer, "key", key_share))
        unsigned = Reveal(me, tuple(shares), b"")
        signature = self._identity.sign(REVEAL_LABEL, session.ctx, me, unsigned.rows())
        return Reveal(me, tuple(shares), signature)


Parked = AwaitCohort | AwaitInbox | AwaitStatement | AwaitSignatures
_PARKED: Final[dict[int, type[Parked]]] = {
    cls._tag: cls for cls in (AwaitCohort, AwaitInbox, AwaitStatement, AwaitSignatures)
}


def unpark(session: Session, identity: Identity, data: bytes) -> Parked:
    """Make a parked state again.  Caller must have taken ``data`` out exactly once.

    Raises UsageError where the bytes belong to another context or client.
    """
    try:
        value = wire.decode(data)
    except ProtocolError:
        raise UsageError("these bytes are not a parked state") from None
    match value:
        case [int(tag), bytes(ctx), int(me), list(secrets)] if tag in _PARKED:
            mine = session.roster.index(identity.name)
            if ctx != session.ctx or me != mine:
                raise UsageError("the parked state belongs to another context")
            if session.public_key(me) != identity.public_key:
                raise UsageError(f"the roster holds another key for {identity.name}")
            return _PARKED[tag](session, identity, me, secrets)
        case _:
            raise UsageError("these bytes are not a parked state")
