# SPDX-License-Identifier: Apache-2.0
"""A client of which every message may meet another process.

It lives in its keystore.  Each call takes it out, moves it and puts it back as one
transaction, and gives out nothing before that is durable.  A process that dies before
has changed nothing, and the next one goes on with the same message.  One that dies
after may have sent its answer: that answer is never made again, and the client is a
dropout of the attempt.  An upload counts as sent, and is charged, before its first
chunk leaves, and the client goes on only if its last message was parked behind it.

A training that was cut off is charged and not begun again: whether it was cut off may
depend on what was drawn.
"""

from __future__ import annotations

import contextlib
import copy
import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Final, TypeVar, final

import numpy as np
from numpy.typing import NDArray

from .. import ckks, wire
from ..consent import Consent
from ..context import context_of
from ..errors import EngineError, ProtocolError, SecureFLError, UsageError
from ..identity import Identity
from ..keystore import Keystore
from ..model import GlobalModel
from ..plan import Plan, Session
from ..privacy import Ledger, PrivateUpdate, Reservation, Unprotected
from ..randomness import RandomSource
from ..transcript import Entry
from .participant import Offer, Participant
from .protections import log_form

__all__ = ["ParkedParticipant"]

_SLOT: Final = "secure-fl/parked/1"
_VALUES: Final = "<f8"
_MOST: Final = 120_000_000  # values of an update: what one row of a keystore holds
_T = TypeVar("_T")


@final
class ParkedParticipant:
    """A :class:`Participant` that lives in ``keystore``: same methods, same rules.

    Made anew in every process, over the same ledger and keystore; :meth:`join` comes
    first, once.  What raises a SecureFLError ends the attempt for this client, as it
    does there, and leaves the rest of the client parked.
    """

    def __init__(
        self,
        plan: Plan,
        identity: Identity,
        *,
        ledger: Ledger,
        keystore: Keystore,
        random: RandomSource,
        now: Callable[[], int],
        consent: Consent | None = None,
    ) -> None:
        self.name = identity.name
        self._plan = plan
        self._keystore = keystore
        self._slot = wire.digest(_SLOT, plan.hash, identity.name)
        self._make = functools.partial(
            Participant,
            plan,
            identity,
            ledger=ledger,
            keystore=keystore,
            random=random,
            now=now,
            consent=consent,
        )
        self._only: tuple[int, int] | None = None

    def join(self, *, log_head: bytes) -> None:
        """Begin the run, once: whoever begins it again may sign a second log.

        Nothing is answered twice even then: contexts stay begun and charges stay.
        Raises UsageError where this client is parked already.
        """
        self._keystore.park(self._slot, self._make(log_head=log_head).park())

    def only_in(self, round_index: int, attempt: int) -> ParkedParticipant:
        """This client while that attempt is the last it has opened, and not afterwards.

        A training may outlast its attempt: what it makes is no update of another.
        Every method raises UsageError then.
        """
        same = copy.copy(self)
        same._only = round_index, attempt
        return same

    @property
    def session(self) -> Session | None:
        return self._move(lambda client: client.session)[0]

    @property
    def needs_update(self) -> bool:
        return self._move(lambda client: client.needs_update)[0]

    def open(self, round_index: int, attempt: int, model: GlobalModel) -> list[bytes]:
        return self._move(lambda client: client.open(round_index, attempt, model))[0]

    def reserve(self) -> Reservation:
        return self._move(lambda client: client.reserve())[0]

    def offer(self, update: PrivateUpdate | Unprotected) -> None:
        self._move(lambda client: client.offer(update))

    def handle(self, message: bytes) -> Iterator[bytes]:
        """Answer one message; each piece may leave as soon as it comes.

        One of another attempt, or that was handled before, is refused (UsageError) and
        changes nothing: networks deliver late, and twice.
        """

        def begin(client: Participant) -> tuple[Participant, Iterator[bytes], bytes]:
            if client.is_open:  # if not, nothing is lost by handing it in
                _check_context(self._plan, client.session, message)
                handled = wire.digest(f"{_SLOT} handled", self._slot, message)
                self._keystore.begin(handled)
            pieces = client.handle(message)
            return client, pieces, next(pieces)

        (client, pieces, first), parked = self._move(begin)
        yield first
        for piece in pieces:
            if log_form(piece) is not None:  # not a chunk: the end of an upload
                self._settle(client, parked)
            yield piece

    def release(self, *proof: bytes) -> None:
        self._move(lambda client: client.release(*proof))

    def conclude(self, *, opened: bool) -> None:
        self._move(lambda client: client.conclude(opened=opened))

    def countersign(self, entries: Sequence[Entry], entry: Entry) -> bytes:
        return self._move(lambda client: client.countersign(entries, entry))[0]

    # -- one transition --------------------------------------------------------------

    def _move(self, act: Callable[[Participant], _T]) -> tuple[_T, bytes]:
        """What ``act`` gives, and what is parked after it."""
        outcome: list[tuple[_T, bytes]] = []
        failure: list[Exception] = []

        def step(before: bytes) -> bytes:
            client = self._make(log_head=b"")
            try:
                client.unpark(before, self._values)
            except Exception as error:  # a disk, say: nothing was answered yet
                failure.append(error)
                return before
            if self._only is not None and not _is_in(client, self._only):
                failure.append(UsageError("the attempt is over for this client"))
                return before
            offered, given = client.offered, []
            try:
                given.append(act(client))
            except Exception as error:  # the attempt is over, the client is not
                failure.append(error)
            if client.offered is not offered:
                try:
                    self._keep(offered, client.offered)
                except EngineError as error:  # as if it had not been offered
                    failure.append(error)
                    return before
            after = client.park()
            outcome.extend((value, after) for value in given)
            return after

        self._keystore.advance(self._slot, step)
        if failure:
            error = failure[0]
            raise error.bare() if isinstance(error, SecureFLError) else error
        return outcome[0]

    def _settle(self, client: Participant, parked: bytes) -> None:
        """Park ``client`` as it is after its upload, if it was left as ``parked``."""
        went_on: list[bytes] = []

        def step(now: bytes) -> bytes:
            if now == parked:
                return client.park()
            went_on.append(now)
            return now

        self._keystore.advance(self._slot, step)
        if went_on:
            raise UsageError(
                "another process of this client has gone on meanwhile",
                hint="the upload is over; it stays charged",
            )

    # -- an update's values have a place of their own: they may be large -------------

    def _place(self, reservation: Reservation) -> bytes:
        return wire.digest(f"{_SLOT} values", self._slot, reservation.entry_hash)

    def _keep(self, before: Offer | None, now: Offer | None) -> None:
        if before is not None:
            with contextlib.suppress(UsageError):  # damaged, and gone already
                self._keystore.advance(self._place(before.reservation), lambda _: None)
        if now is not None:
            vector = now.vector()
            if vector.size > _MOST:
                raise EngineError(
                    f"an update of {vector.size} values is too large to park",
                    hint="run this client as one process, as a Participant",
                )
            data = vector.astype(_VALUES, copy=False).tobytes()
            self._keystore.park(self._place(now.reservation), data)

    def _values(self, reservation: Reservation) -> NDArray[np.float64]:
        found: list[bytes] = []

        def look(data: bytes) -> bytes:
            found.append(data)
            return data

        self._keystore.advance(self._place(reservation), look)
        return np.frombuffer(found[0], _VALUES).astype(np.float64, copy=False)

    def __repr__(self) -> str:
        return f"<ParkedParticipant {self.name}>"


def _is_in(client: Participant, place: tuple[int, int]) -> bool:
    session = client.session
    return session is not None and place == (session.round_index, session.attempt)


def _check_context(plan: Plan, session: Session | None, message: bytes) -> None:
    """Raises UsageError for a message of another attempt than ``session``.

    What names no context is left to the protection, which says what is wrong with it.
    """
    if session is None:
        return
    if isinstance(session, ckks.Session) and not plan.has_keyholder:
        session = plan.key_session(session)
    with contextlib.suppress(ProtocolError):
        if context_of(message) != session.ctx:
            raise UsageError("the message belongs to another attempt")
