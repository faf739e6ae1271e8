# SPDX-License-Identifier: Apache-2.0
"""One logged attempt, checked message by message.

The aggregator logs what it accepted and what it sent, so every message here had to be
right when it was taken: signed by its sender, once per kind, about one cohort, one set
of dealers and one statement.  Chunks are not logged (their signed root stands for
them), and the shares revealed at the end only as a hash.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, final

from .. import wire
from ..errors import ProtocolError
from ..masking import Session
from ..masking.checks import check_agreements, check_cohort
from ..masking.messages import (
    INPUT_LABEL,
    SHARES_LABEL,
    STATEMENT_LABEL,
    Advertise,
    Agreement,
    CohortKeys,
    Inbox,
    KeyAnnouncement,
    MaskedInput,
    SealedShares,
    Signatures,
    Statement,
    Survivor,
    cohort_hash,
    dealers_hash,
    kind_of,
    signed_shares,
)
from ..transcript import Entry

__all__ = ["Attempt", "Input", "read_attempt"]

# Without masking there is neither a cohort of keys nor a set of dealers.
_NONE: Final = bytes(32)
_REQUEST: Final = 0
_INPUT: Final = 6
_REVEAL: Final = 10
_FROM_CLIENTS: Final = frozenset({1, 3, 6, 8})
_FROM_AGGREGATOR: Final = frozenset({2, 4, 7, 9})


@final
@dataclass(frozen=True, slots=True)
class Input:
    """A vector that arrived: whose, and the ledger entry it claims to stand under."""

    client: str
    claim: bytes


@final
@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt's messages show.  ``inputs`` are in roster order.

    ``omitted``: whom a statement leaves out that threshold clients signed, so that no
    sum of this context can ever hold them (protocols/masking/SPEC.md, section 7).
    """

    session: Session
    inputs: tuple[Input, ...]
    opened: bool
    omitted: frozenset[str]


def read_attempt(
    session: Session, entries: Sequence[Entry], *, masked: bool, opened: bool
) -> Attempt:
    """Check all messages of one attempt; of an ``opened`` one, that it was complete.

    Raises ProtocolError for the first message that cannot have been accepted.
    """
    reader = _Reader(session, masked=masked)
    for entry in entries:
        reader.take(entry)
    if opened:
        reader.finish()
    inputs = [
        Input(session.name(i), reader.inputs[i].claim) for i in sorted(reader.inputs)
    ]
    return Attempt(session, tuple(inputs), opened, reader.omitted())


def _refuse(message: str) -> NoReturn:
    raise ProtocolError(message)


@final
class _Reader:
    """Takes logged messages in order.  Every ``_on_`` method checks one kind."""

    def __init__(self, session: Session, *, masked: bool) -> None:
        self._session = session
        self._masked = masked
        self._last = 0
        self._seen: set[tuple[int, str]] = set()
        self._keys: dict[int, KeyAnnouncement] = {}
        self._cohort = _NONE
        self._order: list[int] = []
        self._shares: dict[int, SealedShares] = {}
        self.inputs: dict[int, MaskedInput] = {}
        self._statement: Statement | None = None
        self._agreements: dict[int, Agreement] = {}
        self._signatures: Signatures | None = None
        self._reveals: set[str] = set()

    def take(self, entry: Entry) -> None:
        sender, receiver, data = entry.text(2), entry.text(3), entry.bytes_(4)
        members = {m.name for m in self._session.roster.members}
        if sender and sender not in members:
            _refuse(f"a message of {sender[:40]!r}, who is not a member")
        if receiver and receiver not in members:
            _refuse(f"a message to {receiver[:40]!r}, who is not a member")
        if entry.integer(5) not in (0, 1):
            _refuse("a message is neither whole nor withheld")
        kind = _REVEAL if entry.integer(5) else kind_of(data)
        if kind < self._last:
            _refuse("the messages are out of order")
        self._last = kind
        # A client sends each kind once; what the aggregator sends is one per receiver.
        if (kind, sender or f"to {receiver}") in self._seen:
            _refuse(f"{sender or 'the aggregator'} sent a message twice")
        self._seen.add((kind, sender or f"to {receiver}"))
        if not self._masked:
            self._plain(kind, sender, data)
        elif sender:
            self._from_client(kind, sender, data)
        else:
            self._from_aggregator(kind, receiver, data)

    def _plain(self, kind: int, sender: str, data: bytes) -> None:
        if kind == _REQUEST and not sender:
            if data != wire.encode({0: _REQUEST, 1: self._session.ctx}):
                _refuse("the request is of another context")
        elif kind == _INPUT and sender:
            self._on_input(self._session.roster.index(sender), data)
        else:
            _refuse("a message that an unprotected sum does not have")

    def _from_client(self, kind: int, sender: str, data: bytes) -> None:
        me = self._session.roster.index(sender)
        if kind == _REVEAL:
            self._on_reveal(me, sender, data)
            return
        if kind not in _FROM_CLIENTS:
            _refuse(f"{sender} sent a message that is not a client's")
        handlers = {
            1: self._on_advertise,
            3: self._on_shares,
            6: self._on_input,
            8: self._on_agreement,
        }
        handlers[kind](me, data)

    def _from_aggregator(self, kind: int, receiver: str, data: bytes) -> None:
        if kind not in _FROM_AGGREGATOR:
            _refuse("the aggregator sent a message that is not its own")
        if kind == 4:
            self._on_inbox(receiver, data)
            return
        handlers = {
            2: self._on_cohort,
            7: self._on_statement,
            9: self._on_signatures,
        }
        handlers[kind](data)

    def _signed(
        self, me: int, signature: bytes, label: str, parts: tuple[wire.Value, ...]
    ) -> None:
        session = self._session
        if not wire.verify(session.public_key(me), signature, label, *parts):
            _refuse(f"a message of {session.name(me)} is not signed by it")

    def _own(self, me: int, claimed: int) -> None:
        if me != claimed:
            _refuse(f"{self._session.name(me)} speaks in another client's name")

    # -- step 1 and 2: keys and shares ---------------------------------------------

    def _on_advertise(self, me: int, data: bytes) -> None:
        a = Advertise.decode(data, self._session).announcement
        self._own(me, a.client)
        self._signed(me, a.signature, a.label(), a.signed(self._session))
        self._keys[me] = a

    def _on_cohort(self, data: bytes) -> None:
        keys = CohortKeys.decode(data, self._session)
        accepted = [self._keys[i] for i in sorted(self._keys)]
        if list(keys.announcements) != accepted:
            _refuse("the cohort's keys are not the ones its clients announced")
        check_cohort(self._session, keys)
        self._cohort = cohort_hash(self._session, keys)
        self._order = [a.client for a in keys.announcements]

    def _on_shares(self, me: int, data: bytes) -> None:
        shares = SealedShares.decode(data, self._session)
        self._own(me, shares.client)
        if me not in self._order or [s.to for s in shares.shares] != self._order:
            _refuse(f"{self._session.name(me)} dealt to another set than the cohort")
        parts = signed_shares(
            self._session, self._cohort, me, shares.commitment, shares.root()
        )
        self._signed(me, shares.signature, SHARES_LABEL, parts)
        self._shares[me] = shares

    def _on_inbox(self, receiver: str, data: bytes) -> None:
        # To a single receiver that was left, the log names nobody.
        readers = (
            [self._session.roster.index(receiver)] if receiver else list(self._shares)
        )
        if not any(self._is_inbox_of(reader, data) for reader in readers):
            _refuse(f"what {receiver or 'a client'} was given are not the dealt shares")

    def _is_inbox_of(self, reader: int, data: bytes) -> bool:
        if reader not in self._shares:
            return False
        try:
            inbox = Inbox.decode(data, self._session, reader=reader)
        except ProtocolError:
            return False
        if [e.dealer for e in inbox.entries] != sorted(self._shares):
            return False
        at = self._order.index(reader)
        for e in inbox.entries:
            dealt = self._shares[e.dealer]
            given = (e.share, e.commitment, e.root, e.signature)
            sent = (dealt.shares[at], dealt.commitment, dealt.root(), dealt.signature)
            if given != sent:
                return False
        return True

    # -- step 3: vectors -----------------------------------------------------------

    def _dealers(self) -> bytes:
        if not self._masked:
            return _NONE
        return dealers_hash(self._session, tuple(sorted(self._shares)))

    def _on_input(self, me: int, data: bytes) -> None:
        message = MaskedInput.decode(data, self._session)
        self._own(me, message.client)
        parts = message.signed(self._session, self._cohort)
        self._signed(me, message.signature, INPUT_LABEL, parts)
        if message.dealers != self._dealers() or (
            self._masked and me not in self._shares
        ):
            _refuse(f"{self._session.name(me)} masked for another set of clients")
        self.inputs[me] = message

    # -- step 4 and 5: one statement, opened once ------------------------------------

    def _on_statement(self, data: bytes) -> None:
        statement = Statement.decode(data, self._session)
        if self._statement not in (None, statement):
            _refuse("there are two statements about who is in the sum")
        arrived = tuple(
            Survivor(i, m.root, m.claim, m.attached)
            for i, m in sorted(self.inputs.items())
        )
        if (statement.cohort, statement.dealers) != (self._cohort, self._dealers()):
            _refuse("the statement is about another cohort")
        if statement.survivors != arrived:
            _refuse("the statement names another set than the vectors that arrived")
        if len(arrived) < self._session.parameters.needed:
            _refuse("the statement names fewer clients than the plan needs")
        self._statement = statement

    def _agreed(self) -> Statement:
        if self._statement is None:
            _refuse("there is no statement about who is in the sum")
        return self._statement

    def _on_agreement(self, me: int, data: bytes) -> None:
        agreement = Agreement.decode(data, self._session)
        self._own(me, agreement.client)
        statement = self._agreed()
        parts = statement.signed(self._session)
        self._signed(me, agreement.signature, STATEMENT_LABEL, parts)
        if me not in statement.clients:
            _refuse(f"{self._session.name(me)} signed a statement that omits it")
        self._agreements[me] = agreement

    def _on_signatures(self, data: bytes) -> None:
        signatures = Signatures.decode(data, self._session)
        agreed = tuple(self._agreements[i] for i in sorted(self._agreements))
        if signatures.agreements != agreed:
            _refuse("the signatures are not the ones its clients gave")
        check_agreements(self._session, self._agreed(), signatures)
        self._signatures = signatures

    def _on_reveal(self, me: int, sender: str, data: bytes) -> None:
        if len(data) != wire.HASH_BYTES:
            _refuse("a withheld message is not a hash")
        if self._signatures is None or me not in self._agreed().clients:
            _refuse(f"{sender} revealed shares before, or outside, the agreement")
        self._reveals.add(sender)

    def omitted(self) -> frozenset[str]:
        """Members outside a statement that was signed by enough."""
        if self._signatures is None:
            return frozenset()
        members = range(len(self._session.roster))
        inside = set(self._agreed().clients)
        return frozenset(self._session.name(i) for i in members if i not in inside)

    def finish(self) -> None:
        """Nothing is missing of an attempt whose sum was opened."""
        p = self._session.parameters
        if len(self.inputs) < p.needed:
            _refuse(f"{len(self.inputs)} vectors arrived, {p.needed} are needed")
        if not self._masked:
            return
        self._agreed()
        if self._signatures is None:
            _refuse("the sum was opened without signatures over the statement")
        if len(self._reveals) < p.threshold:
            _refuse(
                f"the sum was opened with {len(self._reveals)} shares, the threshold "
                f"is {p.threshold}"
            )
