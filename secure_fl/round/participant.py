# SPDX-License-Identifier: Apache-2.0
"""A client's side across the rounds of a run: ledger, protection, retry rule.

It lives in one process from start to end; ``parked.py`` keeps it across processes.
"""

from __future__ import annotations

import functools
import hashlib
import math
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import Concatenate, Final, NoReturn, ParamSpec, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from .. import ckks, wire
from ..consent import Consent
from ..context import kind_of
from ..errors import (
    EngineError,
    FaultyAggregator,
    ProtocolError,
    SecureFLError,
    UsageError,
)
from ..fixedpoint import Word
from ..identity import Identity
from ..keystore import Keystore
from ..model import GlobalModel
from ..plan import Plan, Session
from ..privacy import (
    Event,
    Ledger,
    NonPrivate,
    PrivateUpdate,
    Reservation,
    State,
    Unprotected,
)
from ..randomness import RandomSource
from ..transcript import Entry, countersign
from .omission import check_omission
from .protections import (
    ClientProtection,
    KeyholderClient,
    MaskingClient,
    OneTimeClient,
    Outgoing,
    PlainClient,
    encode_update,
    log_form,
    whole_words,
)
from .reading import Said, next_head

__all__ = ["Offer", "Participant"]

_PARKED: Final = "secure-fl/participant/2"
_Vector = NDArray[np.float64]


@dataclass
class Offer:
    """An update on its way: its charge, its values, and whether it may ever have left.

    What became of it the ledger knows, across crashes; ``left`` holds even where the
    ledger was put back to an older copy.
    """

    reservation: Reservation
    vector: Callable[[], _Vector] = field(repr=False)
    left: bool = False


_P = ParamSpec("_P")
_T = TypeVar("_T")


def _alone(
    method: Callable[Concatenate[Participant, _P], _T],
) -> Callable[Concatenate[Participant, _P], _T]:
    """One thread at a time: what a client is in the middle of, no other call sees."""

    @functools.wraps(method)
    def locked(self: Participant, /, *args: _P.args, **named: _P.kwargs) -> _T:
        with self._lock:
            return method(self, *args, **named)

    return locked


def _ledger_lost() -> UsageError:
    return UsageError(
        "the ledger does not hold this client's reservation",
        hint="it was put back to an older copy: treat the budget as spent",
    )


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
        consent: Consent | None = None,
    ) -> None:
        """``consent``: this client's own policy, asked before every charge."""
        self._lock = threading.RLock()
        self._plan = plan
        self._identity = identity
        self.name = identity.name
        self._ledger = ledger
        self._keystore = keystore
        self._random = random
        self._now = now
        self._consent = consent
        self._weight = plan.member(identity.name).weight
        self._round = -1
        self._attempt = -1
        self._session: Session | None = None
        self._size = 0  # values of the session's model
        self._protection: ClientProtection | None = None
        self._reservation: Reservation | None = None
        self._offer: Offer | None = None
        self._said: list[Said] = []  # what no log that we signed has
        self._over = -1
        self._opened = 0
        self.log_head = log_head  # hash of the entry that was signed last

    @property
    def needs_update(self) -> bool:
        """Whether this attempt needs a new update: a new sample and a new charge."""
        return self._offer is None

    @property
    def is_open(self) -> bool:
        """Whether an attempt is under way that no mistake has ended."""
        return self._protection is not None

    @property
    def session(self) -> Session | None:
        """The attempt that was opened last; None once its round is over."""
        return self._session if self._round > self._over else None

    @_alone
    def open(self, round_index: int, attempt: int, model: GlobalModel) -> list[bytes]:
        """Start an attempt: returns the first messages.

        An update that never left, or that :meth:`release` freed, is kept; a spent one
        is forgotten (DESIGN: a retry is a new sample, new noise and a new charge).
        Raises UsageError where this client may not take part in the attempt; one that
        comes late, or twice, changes nothing then.
        """
        if type(round_index) is not int or type(attempt) is not int:
            raise UsageError("rounds and attempts are integers")
        if (round_index, attempt) <= (self._round, self._attempt):
            raise UsageError("attempts are opened in order, each once")
        self._protection = None  # whatever was open is over, also if we refuse
        if round_index <= self._over or not 0 <= attempt < 2**32:
            raise UsageError("the round is over for this client")
        rounds = self._plan.rounds
        if round_index >= rounds.count:
            raise UsageError(f"the plan has {rounds.count} rounds")
        if round_index != self._round:
            self._opened = 0
        elif self._opened >= rounds.max_attempts:
            raise UsageError(f"the plan allows {rounds.max_attempts} attempts a round")
        session = self._plan.session(
            round_index=round_index,
            attempt=attempt,
            model_hash=model.digest(),
            size=model.size,
        )
        self._size = model.size
        self._opened += 1
        offer = self._offer
        if round_index != self._round:
            self._drop_offer()
        elif offer is None:
            self._reservation = None  # a trainer that failed: charged, and over
        elif self._state(offer) not in ("reserved", "omitted"):
            if isinstance(offer.reservation.event, NonPrivate):
                raise UsageError(
                    "an unprotected update is sent once",
                    hint="this client sits out the round's further attempts",
                )
            self._offer = self._reservation = None
        self._round, self._attempt = round_index, attempt
        self._keystore.begin(session.ctx)
        self._session = session
        self._protection = self._protect(session)
        first = self._protection.first()
        for message in first:
            self._note(message, (round_index, attempt))
        return first

    def _protect(self, session: Session, parked: bytes = b"") -> ClientProtection:
        identity, random = self._identity, self._random
        if isinstance(session, ckks.Session):
            if self._plan.has_keyholder:
                return KeyholderClient(
                    session,
                    identity,
                    random,
                    holder=self._plan.keyholder_key,
                    aggregator=self._plan.aggregator_key,
                )
            keys = self._plan.key_session(session)
            return OneTimeClient(session, keys, identity, random, parked=parked)
        if self._plan.protection.kind == "masking":
            return MaskingClient(session, identity, random, parked=parked)
        return PlainClient(session, identity)

    @_alone
    def reserve(self) -> Reservation:
        """The ledger entry of a private release: before any randomness is drawn.

        Raises BudgetExceeded, ConsentRefused: then nothing was drawn, nothing charged.
        """
        if self._reservation is not None:
            raise UsageError("one attempt makes one private update")
        return self._charge(self._plan.release, limit=self._plan.privacy.epsilon)

    def _charge(self, event: Event, *, limit: float) -> Reservation:
        """Reserve ``event`` in the ledger for this attempt, and remember it."""
        plan, consent = self._plan, self._consent
        assert plan.run_id is not None
        self._reservation = self._ledger.reserve(
            plan.lineage,
            run_id=plan.run_id,
            round_index=self._round,
            attempt=self._attempt,
            event=event,
            unit=plan.privacy.unit,
            adjacency=plan.privacy.adjacency,
            delta=plan.privacy.delta,
            limit=limit,
            now=self._now(),
            view=plan.view,
            consent=consent and functools.partial(consent.check_release, plan),
        )
        return self._reservation

    @_alone
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
        vector = update.vector
        self._offer = Offer(reservation, lambda: vector)

    def _state(self, offer: Offer) -> State:
        """What the ledger says became of the update; it survives every crash of us."""
        for release in self._ledger.releases(self._plan.lineage):
            if release.entry_hash == offer.reservation.entry_hash:
                left = offer.left and release.state in ("reserved", "omitted")
                return "sent" if left else release.state
        raise _ledger_lost()

    def _reserve_unprotected(self, reason: str) -> Reservation:
        plan = self._plan
        if plan.distributed:
            raise UsageError(
                "a sum under shared noise holds private updates only",
                hint="the noise of all others would be sized for one that adds none",
            )
        if self._reservation is not None:
            raise UsageError(
                "a private update was begun in this round",
                hint="return private.update(), not unprotected(...)",
            )
        # Asked of the ledger, which remembers across restarts.
        for release in self._ledger.releases(plan.lineage):
            if (
                (release.run_id, release.round_index) == (plan.run_id, self._round)
                and isinstance(release.event, NonPrivate)
                and release.state in ("sent", "released")
            ):
                raise EngineError(
                    "an unprotected update is sent once a round",
                    hint="this client sits out the round's further attempts",
                )
        return self._charge(NonPrivate(reason), limit=math.inf)

    def handle(self, message: bytes) -> Generator[bytes]:
        """Answer one message.  Raises ProtocolError; the attempt is then over for us.

        The caller sends each piece as it comes: a long vector is never held twice.
        Once another attempt is open, an answer that is under way ends (UsageError).
        Whatever is handled ends the attempt unless it is the one message that is due,
        so a delayed one of another attempt (``messages.context_of``) is not handed in.
        """
        with self._lock:
            protection, session = self._protection, self._session
            place = self._round, self._attempt
        if protection is None or session is None:
            raise UsageError("no attempt is open")
        answers = protection.handle(message, lambda: self._vector(session))
        try:
            while True:
                with self._lock:
                    if self._protection is not protection:
                        raise UsageError("the attempt is over for this client")
                    answer = next(answers, None)
                    if answer is None:
                        return
                    self._note(answer, place)
                yield answer
        except SecureFLError as error:
            raise error.bare() from None
        finally:
            answers.close()

    def _vector(self, session: Session) -> Outgoing:
        offer = self._offer
        if offer is None:
            raise UsageError("this attempt has no update yet")
        words = self._words(offer.vector())
        needed = session.parameters.length
        if words.size != needed:
            raise UsageError(
                f"the update makes {words.size} words instead of {needed}",
                hint="return what this round's own method gave, unchanged",
            )

        def leaving() -> None:
            # Durable before the first byte leaves: from here on it counts as sent.
            # Raises UsageError where it is spent in another context.
            self._ledger.sent(offer.reservation, ctx=session.ctx, now=self._now())
            offer.left = True

        return Outgoing(words, offer.reservation.entry_hash, leaving)

    def _words(self, vector: _Vector) -> NDArray[Word]:
        encoding = self._plan.encoding
        if self._plan.distributed:
            return whole_words(encoding, vector)
        return encode_update(encoding, vector, weight=self._weight, random=self._random)

    @_alone
    def release(self, *proof: bytes) -> None:
        """Free a spent update: proof that its context can never open it.

        ``proof`` as in :func:`~.omission.check_omission`.  Raises ProtocolError where
        it does not hold; the update stays spent.
        """
        offer, session = self._offer, self._session
        if offer is None or self._state(offer) != "sent":
            raise UsageError("no update is spent")
        assert session is not None  # the one it is spent in: to open another drops it
        check_omission(self._plan, session, self.name, proof)
        self._ledger.omitted(offer.reservation, ctx=session.ctx, now=self._now())
        offer.left = False

    @_alone
    def conclude(self, *, opened: bool) -> None:
        """The round is over for this client: its sum was opened with or without us."""
        offer = self._offer
        if opened:
            if offer is None or self._state(offer) not in ("sent", "released"):
                raise FaultyAggregator("a sum is said to hold an update we never sent")
            self._ledger.released(offer.reservation, now=self._now())
            self._offer = self._reservation = None
        else:
            self._drop_offer()
        self._protection = None
        self._over = self._round

    def _drop_offer(self) -> None:
        """An update that never left is aborted; anything else stays charged.

        That includes a reservation without an update: its noise may have been drawn,
        and that this client is missing may tell what came out.
        """
        offer, reservation = self._offer, self._reservation
        if reservation is not None and offer and self._state(offer) == "reserved":
            self._ledger.aborted(reservation, now=self._now())
        self._offer = self._reservation = None

    def _note(self, message: bytes, place: tuple[int, int]) -> None:
        if log_form(message) is not None:
            digest = hashlib.sha256(message).digest()
            self._said.append(Said(*place, kind_of(message), digest))

    @_alone
    def countersign(self, entries: Sequence[Entry], entry: Entry) -> bytes:
        """Sign the hash of ``entry``, as computed from the log up to it.

        ``entries``: the log, or its end from behind the last entry that we signed, or
        from further before.  Raises FaultyAggregator where it does not continue what
        we signed, or does not hold our messages exactly as we sent them.  A message of
        an attempt that was not opened with us may be missing, and so may an agreement
        or a reveal: it may have been late, and the sum was opened without it.  A round
        that has us in it is one for which our ledger holds an update that left.  What
        was signed last is signed again: the answer may have been lost.
        """
        if entry.hash == self.log_head:
            return countersign(self._identity, entry.hash)
        self.log_head, self._said = next_head(
            entries,
            entry,
            head=self.log_head,
            member=self.name,
            said=self._said,
            left=self._left,
        )
        return countersign(self._identity, self.log_head)

    def _left(self) -> set[bytes]:
        """The contexts for which an update has left, or may have."""
        releases = self._ledger.releases(self._plan.lineage)
        return {ctx for release in releases for ctx in release.contexts}

    # -- parking -----------------------------------------------------------------

    @property
    def offered(self) -> Offer | None:
        """The update on its way."""
        return self._offer

    @_alone
    def park(self) -> bytes:
        """All that a later process goes on from, but for an update's values.

        Spends the protection's state: it answers no further message here, but an upload
        under way goes on.
        """
        session, reservation, offer = self._session, self._reservation, self._offer
        opened: list[wire.Value] = []
        if session is not None:
            place = session.round_index, session.attempt
            opened = [*place, session.model_hash, self._size]
        return wire.encode(
            [
                _PARKED,
                [self._round, self._attempt, self._opened, self._over],
                opened,
                self._protection.park() if self._protection is not None else b"",
                reservation.entry_hash if reservation is not None else b"",
                0 if offer is None else 2 if offer.left else 1,
                [list(said) for said in self._said],
                self.log_head,
            ]
        )

    def unpark(self, data: bytes, values: Callable[[Reservation], _Vector]) -> None:
        """Go on, in a new object, from what :meth:`park` gave.

        ``values`` finds those of an update, should they be asked for.  Caller must have
        taken ``data`` out exactly once.  Raises UsageError where another version parked
        it, or where the ledger is not the one it was parked beside.
        """
        try:
            parked = wire.decode(data)
        except ProtocolError:
            parked = b""
        match parked:
            case [
                str(spec),
                [int(round_index), int(attempt), int(count), int(over)],
                list(opened),
                bytes(protection),
                bytes(reserved),
                int(offered),
                list(rows),
                bytes(head),
            ] if spec == _PARKED:
                pass
            case _:
                raise UsageError(
                    "another version of secure-fl parked this client",
                    hint="finish the run with the version it was begun with",
                )
        self._round, self._attempt = round_index, attempt
        self._opened, self._over = count, over
        self.log_head = head
        match opened:
            case [int(of_round), int(of_attempt), bytes(model_hash), int(size)]:
                self._size = size
                self._session = self._plan.session(
                    round_index=of_round,
                    attempt=of_attempt,
                    model_hash=model_hash,
                    size=size,
                )
                if protection:
                    self._protection = self._protect(self._session, protection)
        for row in rows:
            match row:
                case [int(of_round), int(of_attempt), int(kind), bytes(digest)]:
                    self._said.append(Said(of_round, of_attempt, kind, digest))
        if reserved:
            reservation = self._reserved(reserved)
            self._reservation = reservation
            if offered:
                self._offer = Offer(
                    reservation, lambda: values(reservation), left=offered == 2
                )

    def _reserved(self, entry_hash: bytes) -> Reservation:
        for entry in self._ledger.entries(self._plan.lineage):
            if entry.hash == entry_hash and entry.reservation is not None:
                return entry.reservation
        raise _ledger_lost()

    def __repr__(self) -> str:
        return f"<Participant {self.name} round={self._round}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("participants are not copied or pickled")
