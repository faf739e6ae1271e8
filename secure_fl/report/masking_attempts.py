# SPDX-License-Identifier: Apache-2.0
"""A logged attempt without protection, and one under masking.

Chunks are not logged (their signed root stands for them), and the shares revealed at
the end only as a hash.
"""

from __future__ import annotations

from typing import Final, final

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
    signed_shares,
)
from .attempts import NOBODY, refuse

__all__ = ["MaskingReader", "PlainReader"]

# Without masking there is neither a cohort of keys nor a set of dealers.
_NONE: Final = bytes(32)
_COLLECT: Final = 0
_INPUT: Final = 6
_REVEAL: Final = 10


def _check_signed(
    session: Session,
    me: int,
    signature: bytes,
    label: str,
    parts: tuple[wire.Value, ...],
) -> None:
    if not wire.verify(session.public_key(me), signature, label, *parts):
        refuse(f"a message of {session.name(me)} is not signed by it")


def _check_own(session: Session, me: int, claimed: int) -> None:
    if me != claimed:
        refuse(f"{session.name(me)} speaks in another client's name")


def _check_enough(session: Session, arrived: int) -> None:
    needed = session.parameters.needed
    if arrived < needed:
        refuse(f"{arrived} vectors arrived, {needed} are needed")


def _input_of(
    session: Session, me: int, cohort: bytes, dealers: bytes, data: bytes
) -> MaskedInput:
    """A client's signed root, for the cohort and dealers that are given."""
    message = MaskedInput.decode(data, session)
    _check_own(session, me, message.client)
    parts = message.signed(session, cohort)
    _check_signed(session, me, message.signature, INPUT_LABEL, parts)
    if message.dealers != dealers:
        refuse(f"{session.name(me)} masked for another set of clients")
    return message


@final
class PlainReader:
    """One request, and every client's vector under its signed root."""

    withheld = None
    guest = ""
    keys_released = False
    at_opening = False  # there is nothing to open: nobody can be to blame

    def __init__(self, session: Session) -> None:
        self.session = session
        self._inputs: dict[int, MaskedInput] = {}

    def take(self, kind: int, sender: str, receiver: str, data: bytes) -> None:
        if kind == _COLLECT and not sender:
            if data != wire.encode({0: _COLLECT, 1: self.session.ctx}):
                refuse("the request is of another context")
        elif kind == _INPUT and sender:
            me = self.session.roster.index(sender)
            self._inputs[me] = _input_of(self.session, me, _NONE, _NONE, data)
        else:
            refuse("a message that an unprotected sum does not have")

    def finish(self) -> None:
        _check_enough(self.session, len(self._inputs))

    def claims(self) -> dict[int, bytes]:
        return {i: m.claim for i, m in self._inputs.items()}

    def omitted(self) -> frozenset[str]:
        return frozenset()

    def culprits(self) -> frozenset[str]:
        return NOBODY


@final
class MaskingReader:
    """One cohort, one set of dealers and one statement.

    Every ``_on_`` method checks one kind of message.
    """

    withheld = _REVEAL
    guest = ""
    keys_released = False

    def __init__(self, session: Session) -> None:
        self.session = session
        self._keys: dict[int, KeyAnnouncement] = {}
        self._cohort = _NONE
        self._order: list[int] = []
        self._shares: dict[int, SealedShares] = {}
        self._roots: dict[int, bytes] = {}  # of them, which every inbox is compared to
        self._given: set[int] = set()  # who has an inbox
        self._inputs: dict[int, MaskedInput] = {}
        self._statement: Statement | None = None
        self._agreements: dict[int, Agreement] = {}
        self._signatures: Signatures | None = None
        self._reveals: set[str] = set()

    def take(self, kind: int, sender: str, receiver: str, data: bytes) -> None:
        if sender:
            self._from_client(kind, sender, data)
        else:
            self._from_aggregator(kind, receiver, data)

    def _from_client(self, kind: int, sender: str, data: bytes) -> None:
        me = self.session.roster.index(sender)
        match kind:
            case 1:
                self._on_advertise(me, data)
            case 3:
                self._on_shares(me, data)
            case 6:
                self._on_input(me, data)
            case 8:
                self._on_agreement(me, data)
            case 10:
                self._on_reveal(me, sender)
            case _:
                refuse(f"{sender} sent a message that is not a client's")

    def _from_aggregator(self, kind: int, receiver: str, data: bytes) -> None:
        match kind:
            case 2:
                self._on_cohort(data)
            case 4:
                self._on_inbox(receiver, data)
            case 7:
                self._on_statement(data)
            case 9:
                self._on_signatures(data)
            case _:
                refuse("the aggregator sent a message that is not its own")

    # -- step 1 and 2: keys and shares ---------------------------------------------

    def _on_advertise(self, me: int, data: bytes) -> None:
        a = Advertise.decode(data, self.session).announcement
        _check_own(self.session, me, a.client)
        _check_signed(self.session, me, a.signature, a.label(), a.signed(self.session))
        self._keys[me] = a

    def _on_cohort(self, data: bytes) -> None:
        keys = CohortKeys.decode(data, self.session)
        accepted = [self._keys[i] for i in sorted(self._keys)]
        if list(keys.announcements) != accepted:
            refuse("the cohort's keys are not the ones its clients announced")
        check_cohort(self.session, keys)
        self._cohort = cohort_hash(self.session, keys)
        self._order = [a.client for a in keys.announcements]

    def _on_shares(self, me: int, data: bytes) -> None:
        shares = SealedShares.decode(data, self.session)
        _check_own(self.session, me, shares.client)
        if me not in self._order or [s.to for s in shares.shares] != self._order:
            refuse(f"{self.session.name(me)} dealt to another set than the cohort")
        root = shares.root()
        parts = signed_shares(self.session, self._cohort, me, shares.commitment, root)
        _check_signed(self.session, me, shares.signature, SHARES_LABEL, parts)
        self._shares[me], self._roots[me] = shares, root

    def _on_inbox(self, receiver: str, data: bytes) -> None:
        # To a single receiver that was left, the log names nobody.
        readers = (
            [self.session.roster.index(receiver)] if receiver else list(self._shares)
        )
        given = [reader for reader in readers if self._is_inbox_of(reader, data)]
        if not given:
            refuse(f"what {receiver or 'a client'} was given are not the dealt shares")
        self._given.update(given)

    def _is_inbox_of(self, reader: int, data: bytes) -> bool:
        if reader not in self._shares:
            return False
        try:
            inbox = Inbox.decode(data, self.session, reader=reader)
        except ProtocolError:
            return False
        if [e.dealer for e in inbox.entries] != sorted(self._shares):
            return False
        at = self._order.index(reader)
        for e in inbox.entries:
            dealt = self._shares[e.dealer]
            given = (e.share, e.commitment, e.root, e.signature)
            root = self._roots[e.dealer]
            if given != (dealt.shares[at], dealt.commitment, root, dealt.signature):
                return False
        return True

    # -- step 3: vectors -----------------------------------------------------------

    def _dealers(self) -> bytes:
        return dealers_hash(self.session, tuple(sorted(self._shares)))

    def _on_input(self, me: int, data: bytes) -> None:
        message = _input_of(self.session, me, self._cohort, self._dealers(), data)
        if me not in self._shares:
            refuse(f"{self.session.name(me)} masked for a set that it is not in")
        if me not in self._given:
            refuse(f"{self.session.name(me)} masked before it was given its shares")
        self._inputs[me] = message

    # -- step 4 and 5: one statement, opened once ------------------------------------

    def _on_statement(self, data: bytes) -> None:
        statement = Statement.decode(data, self.session)
        if self._statement not in (None, statement):
            refuse("there are two statements about who is in the sum")
        arrived = tuple(
            Survivor(i, m.root, m.claim, m.attached)
            for i, m in sorted(self._inputs.items())
        )
        if (statement.cohort, statement.dealers) != (self._cohort, self._dealers()):
            refuse("the statement is about another cohort")
        if statement.survivors != arrived:
            refuse("the statement names another set than the vectors that arrived")
        if len(arrived) < self.session.parameters.needed:
            refuse("the statement names fewer clients than the plan needs")
        self._statement = statement

    def _agreed(self) -> Statement:
        if self._statement is None:
            refuse("there is no statement about who is in the sum")
        return self._statement

    def _on_agreement(self, me: int, data: bytes) -> None:
        agreement = Agreement.decode(data, self.session)
        _check_own(self.session, me, agreement.client)
        statement = self._agreed()
        parts = statement.signed(self.session)
        _check_signed(self.session, me, agreement.signature, STATEMENT_LABEL, parts)
        if me not in statement.clients:
            refuse(f"{self.session.name(me)} signed a statement that omits it")
        self._agreements[me] = agreement

    def _on_signatures(self, data: bytes) -> None:
        signatures = Signatures.decode(data, self.session)
        agreed = tuple(self._agreements[i] for i in sorted(self._agreements))
        if signatures.agreements != agreed:
            refuse("the signatures are not the ones its clients gave")
        check_agreements(self.session, self._agreed(), signatures)
        self._signatures = signatures

    def _on_reveal(self, me: int, sender: str) -> None:
        if self._signatures is None or me not in self._agreed().clients:
            refuse(f"{sender} revealed shares before, or outside, the agreement")
        self._reveals.add(sender)

    def claims(self) -> dict[int, bytes]:
        return {i: m.claim for i, m in self._inputs.items()}

    def omitted(self) -> frozenset[str]:
        """Members outside a statement that was signed by enough."""
        if self._signatures is None:
            return frozenset()
        members = range(len(self.session.roster))
        inside = set(self._agreed().clients)
        return frozenset(self.session.name(i) for i in members if i not in inside)

    def culprits(self) -> frozenset[str]:
        """Who dealt shares: whether they fit shows when the sum is opened."""
        return NOBODY | {self.session.name(i) for i in self._shares}

    @property
    def at_opening(self) -> bool:
        return len(self._reveals) >= self.session.parameters.threshold

    def finish(self) -> None:
        threshold = self.session.parameters.threshold
        _check_enough(self.session, len(self._inputs))
        self._agreed()
        if self._signatures is None:
            refuse("the sum was opened without signatures over the statement")
        if not self.at_opening:
            refuse(
                f"the sum was opened with {len(self._reveals)} shares, the threshold "
                f"is {threshold}"
            )
