# SPDX-License-Identifier: Apache-2.0
"""One round: plan, privacy and protection as one sans-IO object for each side.

An engine moves bytes between a :class:`Participant` per client and one
:class:`Aggregation` per attempt, and does nothing else:

    for p in participants: first messages = p.open(round, attempt, model)
    until aggregation.result: receive what came in, advance(), send outgoing
    p.handle(bytes) yields what goes back; p.conclude(...) ends the round

Neither side does IO, reads a clock or draws randomness of its own: ledger, keystore,
random source and clock are arguments.  The same objects serve the embedded engine and
one that crosses machines.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, NoReturn, Protocol, final

import numpy as np
from numpy.typing import NDArray

from . import masking, wire
from .errors import (
    FaultyAggregator,
    FaultyClient,
    ProtocolError,
    UsageError,
)
from .fixedpoint import Encoding, Word
from .identity import Identity
from .keystore import Keystore
from .masking import Session, messages
from .model import GlobalModel
from .plain import CollectPlain, upload
from .plan import Plan
from .privacy import (
    Ledger,
    NonPrivate,
    PrivateUpdate,
    Reservation,
    Unprotected,
)
from .randomness import RandomSource
from .transcript import Entry, check_extension, countersign

__all__ = [
    "Aggregation",
    "ClientProtection",
    "MaskingClient",
    "OpenedUpdate",
    "Participant",
    "encode_update",
    "log_form",
]

_COLLECT_PLAIN: Final = 0  # the kind of the one request that `plain` has


def log_form(message: bytes) -> tuple[bytes, int] | None:
    """How a message stands in the transcript: whole, as a hash, or not at all.

    Chunks do not (their signed root does); revealed shares only as a hash.
    """
    kind = messages.kind_of(message)
    if kind == 5:
        return None
    if kind == 10:
        return hashlib.sha256(message).digest(), 1
    return message, 0


def encode_update(
    encoding: Encoding,
    vector: NDArray[np.floating],
    *,
    weight: int,
    random: RandomSource,
) -> NDArray[Word]:
    """Words of an update, and last the number of its clipped coordinates.

    The counter is a function of the noised update alone: post-processing, so it costs
    no privacy.  It saturates where a sum of counters could wrap.
    """
    dither = random.arrays("rounding").uniform(vector.size)
    words, clipped = encoding.encode(vector, dither, weight=weight)
    counted = min(clipped, encoding.half // encoding.clients)
    return np.concatenate([words, encoding.wrap(np.array([counted], np.int64))])


# -- the client's side -----------------------------------------------------------


@final
@dataclass(frozen=True)
class Outgoing:
    """An encoded vector on its way out.

    ``leaving`` is called after every check has passed and before the first byte goes:
    from then on the update is spent.
    """

    words: NDArray[Word] = field(repr=False)
    claim: bytes
    leaving: Callable[[], None]


class ClientProtection(Protocol):
    """The port of a protection on a client: one object per context.

    ``vector`` is called once, where the protocol asks for the update.
    """

    def first(self) -> list[bytes]: ...

    def handle(
        self, message: bytes, vector: Callable[[], Outgoing]
    ) -> Iterator[bytes]: ...


@final
class MaskingClient:
    """Moves the typed states by the kind of message that arrives."""

    def __init__(
        self, session: Session, identity: Identity, random: RandomSource
    ) -> None:
        self._session = session
        self._random = random
        self._me = session.roster.index(identity.name)
        self._state: masking.Parked | None
        self._state, advertise = masking.start(
            session, identity, random=random.bytes(32)
        )
        self._first = advertise.encode(session)

    def first(self) -> list[bytes]:
        return [self._first]

    def handle(self, message: bytes, vector: Callable[[], Outgoing]) -> Iterator[bytes]:
        s = self._session
        # Out of our hands first: an error below ends the context for this client.
        state, self._state = self._state, None
        match state, messages.kind_of(message):
            case masking.AwaitCohort(), 2:
                keys = messages.CohortKeys.decode(message, s)
                self._state, shares = state.on_cohort(
                    keys, random=self._random.bytes(32)
                )
                yield shares.encode(s)
            case masking.AwaitInbox(), 4:
                inbox = messages.Inbox.decode(message, s, reader=self._me)
                going = vector()
                uploading = state.on_inbox(inbox, going.words, claim=going.claim)
                going.leaving()
                for chunk in uploading.chunks():
                    yield chunk.encode(s)
                self._state, masked = uploading.finish()
                yield masked.encode(s)
            case masking.AwaitStatement(), 7:
                statement = messages.Statement.decode(message, s)
                self._state, agreement = state.on_statement(statement)
                yield agreement.encode(s)
            case masking.AwaitSignatures(), 9:
                signatures = messages.Signatures.decode(message, s)
                yield state.on_signatures(signatures).encode(s)
            case _:
                raise FaultyAggregator("a message out of order")


@final
class PlainClient:
    def __init__(self, session: Session, identity: Identity) -> None:
        self._session = session
        self._identity = identity
        self._done = False

    def first(self) -> list[bytes]:
        return []

    def handle(self, message: bytes, vector: Callable[[], Outgoing]) -> Iterator[bytes]:
        if self._done or message != _collect_request(self._session):
            raise FaultyAggregator("a message out of order")
        self._done = True
        going = vector()
        going.leaving()
        for part in upload(
            self._session, self._identity, going.words, claim=going.claim
        ):
            yield part.encode(self._session)


def _collect_request(session: Session) -> bytes:
    return wire.encode({0: _COLLECT_PLAIN, 1: session.ctx})


@dataclass
class _Offer:
    """An update on its way, the context it is spent in, and whether it ever left."""

    update: PrivateUpdate | Unprotected = field(repr=False)
    reservation: Reservation
    spent_in: Session | None = None
    left: bool = False


@final
class Participant:
    """A client across the rounds of a run: ledger, protection, retry rule."""

    def __init__(
        self,
        plan: Plan,
        identity: Identity,
        *,
        ledger: Ledger,
        keystore: Keystore,
        random: RandomSource,
        now: Callable[[], int],
        log_head: bytes,
    ) -> None:
        self._plan = plan
        self._identity = identity
        self._ledger = ledger
        self._keystore = keystore
        self._random = random
        self._now = now
        self._weight = plan.member(identity.name).weight
        self._round = -1
        self._attempt = -1
        self._session: Session | None = None
        self._protection: ClientProtection | None = None
        self._reservation: Reservation | None = None
        self._offer: _Offer | None = None
        self._sent: list[bytes] = []
        self._log_head = log_head

    @property
    def name(self) -> str:
        return self._identity.name

    @property
    def needs_update(self) -> bool:
        """Whether this attempt needs a new update: a new sample and a new charge."""
        return self._offer is None

    def open(self, round_index: int, attempt: int, model: GlobalModel) -> list[bytes]:
        """Start an attempt: returns the first messages.

        An update that never left, or that :meth:`release` freed, is kept; a spent one
        is forgotten (DESIGN: a retry is a new sample, new noise and a new charge).
        Raises UsageError where this client may not take part in the attempt.
        """
        if (round_index, attempt) <= (self._round, self._attempt):
            raise UsageError("attempts are opened in order, each once")
        offer = self._offer
        if round_index != self._round:
            self._drop_offer()
        elif offer is not None and offer.spent_in is not None:
            if isinstance(offer.update, Unprotected):
                raise UsageError(
                    "an unprotected update is sent once",
                    hint="this client sits out the round's further attempts",
                )
            self._offer = self._reservation = None
        self._round, self._attempt = round_index, attempt
        session = self._plan.session(
            round_index=round_index,
            attempt=attempt,
            model_hash=model.digest(),
            size=model.size,
        )
        self._keystore.begin(session.ctx)
        self._session = session
        self._protection = (
            MaskingClient(session, self._identity, self._random)
            if self._plan.protection.kind == "masking"
            else PlainClient(session, self._identity)
        )
        first = self._protection.first()
        for message in first:
            self._note(message)
        return first

    def reserve(self) -> Reservation:
        """The ledger entry of a private release: before any randomness is drawn.

        Raises BudgetExceeded; then nothing was drawn and nothing is charged.
        """
        if self._reservation is not None:
            raise UsageError("one attempt makes one private update")
        plan = self._plan
        assert plan.run_id is not None
        self._reservation = self._ledger.reserve(
            plan.lineage,
            run_id=plan.run_id,
            round_index=self._round,
            attempt=self._attempt,
            event=plan.release,
            unit=plan.privacy.unit,
            adjacency=plan.privacy.adjacency,
            delta=plan.privacy.delta,
            limit=plan.privacy.epsilon,
            now=self._now(),
        )
        return self._reservation

    def offer(self, update: PrivateUpdate | Unprotected) -> None:
        """Hand over this attempt's update.  Only a claimed one, or one that says why.

        Raises UsageError for a private update that this attempt did not reserve.
        """
        if isinstance(update, Unprotected):
            reservation = self._reserve_unprotected(update.reason)
        elif isinstance(update, PrivateUpdate):
            if update.reservation != self._reservation:
                raise UsageError(
                    "the update was made for another round or attempt",
                    hint="return what private.update() of this very round gave",
                )
            reservation = update.reservation
        else:
            raise UsageError(
                f"a trainer returns a PrivateUpdate, not {type(update).__name__}",
                hint="return private.update(), or unprotected(x, reason=...)",
            )
        if self._offer is not None:
            raise UsageError("this attempt has its update already")
        self._offer = _Offer(update, reservation)

    def _reserve_unprotected(self, reason: str) -> Reservation:
        plan = self._plan
        if self._reservation is not None:
            raise UsageError(
                "a private update was begun in this round",
                hint="return private.update(), not unprotected(...)",
            )
        assert plan.run_id is not None
        self._reservation = self._ledger.reserve(
            plan.lineage,
            run_id=plan.run_id,
            round_index=self._round,
            attempt=self._attempt,
            event=NonPrivate(reason),
            unit=plan.privacy.unit,
            adjacency=plan.privacy.adjacency,
            delta=plan.privacy.delta,
            limit=math.inf,
            now=self._now(),
        )
        return self._reservation

    def handle(self, message: bytes) -> Iterator[bytes]:
        """Answer one message.  Raises ProtocolError; the attempt is then over for us.

        The caller sends each piece as it comes: a long vector is never held twice.
        """
        if self._protection is None:
            raise UsageError("no attempt is open")
        for answer in self._protection.handle(message, self._vector):
            self._note(answer)
            yield answer

    def _vector(self) -> Outgoing:
        session, offer = self._session, self._offer
        assert session is not None
        if offer is None:
            raise UsageError("this attempt has no update yet")
        if offer.spent_in is not None:
            raise UsageError("an update is sent in one context")
        if offer.update.vector.size != session.parameters.length - 1:
            raise UsageError(
                f"the update has {offer.update.vector.size} values, the model "
                f"{session.parameters.length - 1}"
            )
        words = encode_update(
            self._plan.encoding,
            offer.update.vector,
            weight=self._weight,
            random=self._random,
        )

        def leaving() -> None:
            # Durable before the first byte leaves: from here on it counts as sent.
            self._ledger.sent(offer.reservation, ctx=session.ctx, now=self._now())
            offer.spent_in = session
            offer.left = True

        return Outgoing(words, offer.reservation.entry_hash, leaving)

    def release(self, statement: bytes, signatures: bytes) -> None:
        """Free a spent update: proof that its context can never open it (SPEC 7).

        Raises ProtocolError where the proof does not hold; the update stays spent.
        """
        offer = self._offer
        if offer is None or offer.spent_in is None:
            raise UsageError("no update is spent")
        session = offer.spent_in
        masking.check_omission(
            session,
            session.roster.index(self.name),
            messages.Statement.decode(statement, session),
            messages.Signatures.decode(signatures, session),
        )
        self._ledger.omitted(offer.reservation, ctx=session.ctx, now=self._now())
        offer.spent_in = None

    def conclude(self, *, opened: bool) -> None:
        """The round is over for this client: its sum was opened with or without us."""
        offer = self._offer
        if opened:
            if offer is None or offer.spent_in is None:
                raise FaultyAggregator("a sum is said to hold an update we never sent")
            self._ledger.released(offer.reservation, now=self._now())
            self._offer = self._reservation = None
        else:
            self._drop_offer()
        self._protection = None

    def _drop_offer(self) -> None:
        """An update that never left is aborted; what may have left stays charged."""
        offer, reservation = self._offer, self._reservation
        if reservation is not None and (offer is None or not offer.left):
            self._ledger.aborted(reservation, now=self._now())
        self._offer = self._reservation = None

    def _note(self, message: bytes) -> None:
        form = log_form(message)
        if form is not None:
            self._sent.append(form[0])

    def countersign(self, entries: Sequence[Entry], entry: Entry) -> bytes:
        """Sign ``entry``, having checked the log from where we last signed up to it.

        ``entries``: the log.  Raises FaultyAggregator where it does not continue what
        we signed, or does not hold our messages exactly as we sent them.
        """
        heads = [e.hash for e in entries]
        begin = heads.index(self._log_head) + 1 if self._log_head in heads else 0
        since = entries[begin : entry.sequence + 1]
        self._log_head = check_extension(
            since, head=self._log_head, member=self.name, sent=self._sent
        )
        self._sent = []
        return countersign(self._identity, entry.hash)

    def __repr__(self) -> str:
        return f"<Participant {self.name} round={self._round}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("participants are not copied or pickled")


# -- the aggregator's side ---------------------------------------------------------


@final
@dataclass(frozen=True)
class OpenedUpdate:
    """What one attempt opened: the weighted sum of the survivors' updates.

    ``total`` is float64, one exact multiple of the step per value of the model;
    ``clipped`` counts the coordinates that were clipped, over all survivors.
    """

    session: Session
    survivors: tuple[str, ...]
    total_weight: int
    total: NDArray[np.float64] = field(repr=False)
    words_hash: bytes
    clipped: int


_Collector = (
    masking.CollectAdvertise
    | masking.CollectShares
    | masking.CollectInputs
    | masking.CollectAgreements
    | masking.CollectReveals
    | CollectPlain
)
# Kinds below this one belong to a step that is over (SPEC masking, section 5).
_FIRST_KIND: Final[dict[type[object], int]] = {
    masking.CollectAdvertise: 1,
    masking.CollectShares: 3,
    masking.CollectInputs: 5,
    masking.CollectAgreements: 8,
    masking.CollectReveals: 10,
    CollectPlain: 5,
}
_STEPS: Final[dict[type[object], str]] = {
    masking.CollectAdvertise: "keys",
    masking.CollectShares: "shares",
    masking.CollectInputs: "vectors",
    masking.CollectAgreements: "consistency",
    masking.CollectReveals: "unmask",
    CollectPlain: "vectors",
}


@final
class Aggregation:
    """The aggregator's side of one attempt."""

    def __init__(
        self,
        session: Session,
        *,
        kind: Literal["masking", "plain"],
        encoding: Encoding,
        weights: Mapping[str, int],
    ) -> None:
        self.session = session
        self._encoding = encoding
        self._weights = weights
        self.result: OpenedUpdate | None = None
        self.outgoing: dict[str, bytes] = {}
        self.omission: tuple[bytes, bytes] | None = None
        self._statement = b""
        self._collector: _Collector
        if kind == "plain":
            self._collector = CollectPlain(session)
            request = _collect_request(session)
            self.outgoing = {m.name: request for m in session.roster.members}
        else:
            self._collector = masking.CollectAdvertise(session)

    @classmethod
    def for_plan(
        cls, plan: Plan, *, round_index: int, attempt: int, model: GlobalModel
    ) -> Aggregation:
        """The attempt as the plan has it."""
        session = plan.session(
            round_index=round_index,
            attempt=attempt,
            model_hash=model.digest(),
            size=model.size,
        )
        return cls(
            session,
            kind=plan.protection.kind,
            encoding=plan.encoding,
            weights={m.name: m.weight for m in plan.parties.members},
        )

    @property
    def step(self) -> str:
        """What is being collected: keys, shares, vectors, consistency or unmask."""
        return _STEPS[type(self._collector)]

    def receive(self, sender: str, data: bytes) -> bool:
        """Take one message of ``sender``, whom the engine has authenticated.

        Returns whether it counts: one of an earlier step is late and is let go, since
        a slow network is nobody's fault.  Raises FaultyClient naming the sender of a
        wrong one; the step goes on for the others.
        """
        session = self.session
        index = session.roster.index(sender)
        try:
            if messages.kind_of(data) < _FIRST_KIND[type(self._collector)]:
                return False
            self._add(index, data)
            return True
        except FaultyClient:
            raise
        except ProtocolError as error:  # it did not parse: its sender is to blame
            raise FaultyClient(sender, str(error)) from None

    def _add(self, i: int, data: bytes) -> None:
        s = self.session
        match self._collector, messages.kind_of(data):
            case masking.CollectAdvertise() as c, 1:
                c.add(i, messages.Advertise.decode(data, s))
            case masking.CollectShares() as c, 3:
                c.add(i, messages.SealedShares.decode(data, s))
            case (masking.CollectInputs() | CollectPlain()) as c, 5:
                c.add_chunk(i, messages.Chunk.decode(data, s))
            case (masking.CollectInputs() | CollectPlain()) as c, 6:
                c.add(i, messages.MaskedInput.decode(data, s))
            case masking.CollectAgreements() as c, 8:
                c.add(i, messages.Agreement.decode(data, s))
            case masking.CollectReveals() as c, 10:
                c.add(i, messages.Reveal.decode(data, s))
            case _:
                raise ProtocolError("a message out of order")

    def advance(self) -> None:
        """Close the step: sets ``outgoing`` for the next, or ``result`` after the last.

        Raises TooFewClients; nothing was opened.
        """
        s = self.session
        name = s.roster.name
        match self._collector:
            case masking.CollectAdvertise() as c:
                self._collector, keys = c.close()
                data = keys.encode(s)
                self.outgoing = {name(a.client): data for a in keys.announcements}
            case masking.CollectShares() as c:
                self._collector, inboxes = c.close()
                self.outgoing = {name(i): m.encode(s) for i, m in inboxes.items()}
            case masking.CollectInputs() as c:
                self._collector, statement = c.close()
                self._statement = statement.encode(s)
                self.outgoing = {name(i): self._statement for i in statement.clients}
            case masking.CollectAgreements() as c:
                self._collector, signatures = c.close()
                data = signatures.encode(s)
                # For those left out: the proof that frees their update.
                self.omission = (self._statement, data)
                self.outgoing = {name(a.client): data for a in signatures.agreements}
            case masking.CollectReveals() | CollectPlain() as c:
                self._open(c.close())
                self.outgoing = {}

    def _open(self, opened: masking.Opened) -> None:
        names = tuple(self.session.roster.name(i) for i in opened.survivors)
        self.result = OpenedUpdate(
            self.session,
            names,
            sum(self._weights[n] for n in names),
            self._encoding.decode(opened.words[:-1]),
            hashlib.sha256(opened.words.tobytes()).digest(),
            # A lying client can make the counter anything: it is only ever shown.
            min(
                max(0, int(self._encoding.unwrap(opened.words[-1:])[0])),
                len(names) * (opened.words.size - 1),
            ),
        )
