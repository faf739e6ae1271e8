# SPDX-License-Identifier: Apache-2.0
"""The key holder: sums keys it is sent, and never sees what they are the keys of."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Final, NoReturn, Protocol, final

import numpy as np
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from numpy.typing import NDArray

from .. import keys, wire
from ..context import kind_of
from ..errors import FaultyAggregator, SecureFLError, UsageError
from ..identity import Identity
from .client import purpose, release_info
from .encryption import is_short
from .messages import (
    AGGREGATOR_KEY_LABEL,
    HOLDER_KEY_LABEL,
    INPUT_LABEL,
    KINDS,
    REFUSAL_LABEL,
    RELEASE_LABEL,
    REQUEST_LABEL,
    SEED,
    Call,
    HolderKey,
    Opening,
    Refusal,
    Release,
    Request,
    Row,
)
from .session import SPEC, Session

__all__ = ["KeyHolder", "Record"]

_PARKED: Final = "secure-fl/parked-context/1"


class Record(Protocol):
    """What must outlive a crash: a keystore will do."""

    def begin(self, ctx: bytes) -> None:
        """Record, durably.  Raises UsageError where it was recorded before."""

    def begun(self, ctx: bytes) -> bool:
        """Whether it was recorded."""


@final
class _Open:
    """A context between call and request: what called for it, and our key for it."""

    __slots__ = ("call", "key", "session")

    def __init__(self, session: Session, key: X25519PrivateKey, call: Call) -> None:
        self.session = session
        self.key = key
        self.call = call


@final
class KeyHolder:
    """Releases the sum of at least ``min_clients`` keys, once per run and round.

    One context is open at a time; its private key is gone with the answer.  Until then
    it is in memory, or, where a process ends between call and request, *parked*:
    ``park`` takes the context out as bytes for the keystore, ``unpark`` puts it back,
    once.  Not printable, copyable or picklable.
    """

    __slots__ = (
        "_aggregator",
        "_identity",
        "_lock",
        "_open",
        "_record",
        "_session_of",
    )

    def __init__(
        self,
        identity: Identity,
        *,
        aggregator: bytes,
        session_of: Callable[[Call], Session],
        record: Record,
    ) -> None:
        """``aggregator``: its public key.  ``session_of`` computes a context from the
        plan and what a call says."""
        self._identity = identity
        self._aggregator = aggregator
        self._session_of = session_of
        self._record = record
        self._open: _Open | None = None
        self._lock = threading.Lock()

    def handle(self, message: bytes, *, random: bytes) -> bytes:
        """Answer one message of the aggregator.  ``random``: 32 fresh bytes.

        Raises FaultyAggregator, or ProtocolError for what does not parse.  What the
        aggregator did not sign changes nothing; what it did ends the open context.
        """
        with self._lock:
            if kind_of(message) == KINDS.CALL:
                return self._on_call(Call.decode(message), random)
            if self._open is None:
                raise FaultyAggregator("there is no context that this could belong to")
            request = Request.decode(message, self._open.session)
            return self._on_request(self._open, request)

    def park(self) -> bytes:
        """Take the open context out.  The bytes hold its private key: for a keystore.

        Nothing is open here afterwards.  Empty where nothing was.
        """
        with self._lock:
            opened, self._open = self._open, None
        if opened is None:
            return b""
        key = opened.key.private_bytes_raw()
        return wire.encode([_PARKED, opened.call.encode(), key])

    def unpark(self, data: bytes) -> None:
        """Go on from what :meth:`park` gave, in place of what is open here.

        Caller must have taken ``data`` out exactly once, never from a copy: a context
        that is answered twice gives single keys away.  Raises UsageError where another
        version, or the key holder of another plan, parked it.
        """
        opened = self._unparked(data) if data else None
        with self._lock:
            self._open = opened

    def _unparked(self, data: bytes) -> _Open:
        try:
            match wire.decode(data):
                case [str(spec), bytes(message), bytes(key)] if spec == _PARKED:
                    call = Call.decode(message)
                    session = self._session_of(call)
                    if session.ctx == call.ctx:
                        return _Open(session, keys.private_key(key), call)
        except (SecureFLError, ValueError):
            pass
        raise UsageError(
            "another version of secure-fl, or another plan, parked this key holder",
            hint="finish the run with the version it was begun with",
        )

    # -- the call (SPEC 6.1) ---------------------------------------------------------

    def _on_call(self, call: Call, random: bytes) -> bytes:
        if len(random) != 32 or not any(random):
            raise UsageError("random must be 32 fresh bytes")
        if not wire.verify(
            self._aggregator, call.signature, AGGREGATOR_KEY_LABEL, call.ctx, call.key
        ):
            raise FaultyAggregator("the call is not signed by the aggregator")
        self._open = None
        if not keys.is_usable(call.key):
            raise FaultyAggregator("its key is not usable")
        try:
            session = self._session_of(call)
        except SecureFLError as error:
            raise FaultyAggregator(f"the call fits no plan: {error}") from None
        if session.ctx != call.ctx:
            raise FaultyAggregator("the call is about another context than it says")
        if self._record.begun(_released(session)):
            raise FaultyAggregator("the keys of this round were released")
        self._begin(wire.digest(f"{SPEC} called", session.ctx))
        key = keys.private_key(
            keys.derive(random, salt=session.ctx, label=f"{SPEC} holder key", parts=[])
        )
        self._open = _Open(session, key, call)
        public = keys.public_key(key)
        signature = self._identity.sign(HOLDER_KEY_LABEL, session.ctx, public)
        return HolderKey(public, signature).encode(session)

    def _begin(self, what: bytes) -> None:
        if self._record.begun(what):
            raise FaultyAggregator("this was answered before")
        self._record.begin(what)

    # -- the request (SPEC 6.4 to 6.6) -----------------------------------------------

    def _on_request(self, opened: _Open, request: Request) -> bytes:
        session = opened.session
        if not wire.verify(
            self._aggregator,
            request.signature,
            REQUEST_LABEL,
            *request.signed(session),
        ):
            raise FaultyAggregator("the request is not signed by the aggregator")
        self._open = None
        for row in request.rows:
            if not wire.verify(
                session.public_key(row.client),
                row.signature,
                INPUT_LABEL,
                *row.signed(session),
            ):
                raise FaultyAggregator("a row is not signed by its client")
        if len(request.rows) < session.parameters.needed:
            return self._refuse(session, None)
        total = np.zeros(session.parameters.packing.ring.degree, np.int64)
        seeds = []
        for row in request.rows:
            plain = _open_key(opened, row)
            if plain is None or not is_short(plain[0], 1):
                return self._refuse(session, row.client)
            total += plain[0]
            seeds.append(plain[1])
        # Before the sum leaves: a crash may cost a round, never a second release.
        self._begin(_released(session))
        rows = tuple((r.client, r.payload, r.claim) for r in request.rows)
        opening = Opening(total, tuple(seeds)).encode(session)
        box = keys.seal(opening, opened.call.key, info=release_info(session))
        unsigned = Release(rows, box, b"")
        signature = self._identity.sign(RELEASE_LABEL, *unsigned.signed(session))
        return Release(rows, box, signature).encode(session)

    def _refuse(self, session: Session, culprit: int | None) -> bytes:
        unsigned = Refusal(culprit, b"")
        signature = self._identity.sign(REFUSAL_LABEL, *unsigned.signed(session))
        return Refusal(culprit, signature).encode(session)

    def __repr__(self) -> str:
        return "<KeyHolder>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("a key holder is not copied or pickled")


def _released(session: Session) -> bytes:
    return wire.digest(f"{SPEC} released", session.run_id, session.round_index)


def _open_key(opened: _Open, row: Row) -> tuple[NDArray[np.int64], bytes] | None:
    """A client's key and cover seed, or None where its box is not for us."""
    info = purpose(opened.session, "key box", row.client, row.payload)
    try:
        plain = keys.open_box(row.key_box, opened.key, info=info)
    except ValueError:
        return None
    return np.frombuffer(plain[:-SEED], np.int8).astype(np.int64), plain[-SEED:]
