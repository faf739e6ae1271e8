# SPDX-License-Identifier: Apache-2.0
"""What carries an update out of a client: one object per context and protection."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal, Protocol, final

import numpy as np
from numpy.typing import NDArray

from .. import ckks, masking
from ..ckks import messages as sealed
from ..context import kind_of
from ..errors import FaultyAggregator, UsageError
from ..fixedpoint import Encoding, Word
from ..identity import Identity
from ..masking import messages
from ..plain import upload
from ..randomness import RandomSource
from .collecting import collect_request

__all__ = [
    "ClientProtection",
    "KeyholderClient",
    "MaskingClient",
    "OneTimeClient",
    "Outgoing",
    "PlainClient",
    "encode_update",
    "log_form",
    "whole_words",
]

_BLOCK: Final = 1 << 16  # values encoded at once: what is in between stays small


_CHUNKS: Final = (5, sealed.KINDS.CIPHERTEXT)
# Revealed shares, and a request, which repeats what its clients sent.
_WITHHELD: Final = (10, sealed.KINDS.REQUEST)


def log_form(message: bytes) -> Literal["whole", "withheld"] | None:
    """How the transcript keeps a message: beside its entry, or as a hash alone.

    Chunks have no entry (their signed root stands for them).
    """
    kind = kind_of(message)
    if kind in _CHUNKS:
        return None
    return "withheld" if kind in _WITHHELD else "whole"


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
    draws = random.arrays("rounding")
    words = np.empty(vector.size + 1, encoding.dtype)
    clipped = 0
    for begin in range(0, vector.size, _BLOCK):
        part = vector[begin : begin + _BLOCK]
        made, beyond = encoding.encode(part, draws.uniform(part.size), weight=weight)
        words[begin : begin + part.size] = made
        clipped += beyond
    counted = min(clipped, encoding.half // encoding.clients)
    words[-1:] = encoding.wrap(np.array([counted], np.int64))
    return words


def whole_words(encoding: Encoding, vector: NDArray[np.float64]) -> NDArray[Word]:
    """Words of a vector that is on the grid already: whole numbers, as they are.

    The same vector gives the same words in every attempt.  Raises UsageError for a
    number that is not whole, or not exact in a float64.
    """
    if not (np.abs(vector) < 2.0**53).all() or (vector != np.rint(vector)).any():
        raise UsageError(
            "the update is not on the plan's grid",
            hint="return what gradient_sum or clipped_update of the round gave",
        )
    return encoding.wrap(vector.astype(np.int64))


class Payload(Protocol):
    """What travels beside a masked vector: parts first, then the hash that binds them.

    ``seed``: 32 secret bytes that the aggregator learns of survivors only.
    """

    def parts(self, seed: bytes) -> Iterator[bytes]: ...

    def hash(self) -> bytes: ...


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
    payload: Payload | None = None


class ClientProtection(Protocol):
    """The port of a protection on a client: one object per context.

    ``vector`` is called once, where the protocol asks for the update.  A message is
    yielded when the state behind it is in its place, so that :meth:`park` between two
    of them gives what comes after.
    """

    def first(self) -> list[bytes]: ...

    def handle(
        self, message: bytes, vector: Callable[[], Outgoing]
    ) -> Generator[bytes]: ...

    def park(self) -> bytes:
        """Spend the state into bytes for a keystore; empty where none is left."""


@final
class MaskingClient:
    """Moves the typed states by the kind of message that arrives.

    Starts the context, or goes on in it from ``parked``, which :meth:`park` gave.
    """

    def __init__(
        self,
        session: masking.Session,
        identity: Identity,
        random: RandomSource,
        *,
        parked: bytes = b"",
    ) -> None:
        self._session = session
        self._random = random
        self._me = session.roster.index(identity.name)
        self._state: masking.Parked | None
        self._first: list[bytes] = []
        if parked:
            self._state = masking.unpark(session, identity, parked)
        else:
            self._state, advertise = masking.start(
                session, identity, random=random.bytes(32)
            )
            self._first.append(advertise.encode(session))

    def first(self) -> list[bytes]:
        return self._first

    def park(self) -> bytes:
        state, self._state = self._state, None
        return state.park() if state is not None else b""

    def handle(
        self, message: bytes, vector: Callable[[], Outgoing]
    ) -> Generator[bytes]:
        s = self._session
        # Out of our hands first: an error below ends the context for this client.
        state, self._state = self._state, None
        match state, kind_of(message):
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
                attached = b""
                if going.payload is not None:
                    yield from going.payload.parts(uploading.attached_seed)
                    attached = going.payload.hash()
                for chunk in uploading.chunks():
                    yield chunk.encode(s)
                self._state, masked = uploading.finish(attached=attached)
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


class _OneAnswer:
    """A client that answers one message: its whole state is whether it has."""

    def __init__(self, ctx: bytes) -> None:
        self._left = [ctx]  # a list: a shallow copy shares what is spent

    def first(self) -> list[bytes]:
        return []

    def _spend(self) -> None:
        if not self.park():
            raise FaultyAggregator("a message out of order")

    def park(self) -> bytes:
        return self._left.pop() if self._left else b""


@final
class PlainClient(_OneAnswer):
    def __init__(self, session: masking.Session, identity: Identity) -> None:
        super().__init__(session.ctx)
        self._session = session
        self._identity = identity

    def handle(
        self, message: bytes, vector: Callable[[], Outgoing]
    ) -> Generator[bytes]:
        self._spend()
        if message != collect_request(self._session):
            raise FaultyAggregator("a message out of order")
        going = vector()
        going.leaving()
        for part in upload(
            self._session, self._identity, going.words, claim=going.claim
        ):
            yield part.encode(self._session)


@final
class _Ciphertexts:
    """A vector's ciphertexts, as what travels beside the masking of its key."""

    def __init__(self, session: ckks.Session, encryption: ckks.Encryption) -> None:
        self._session = session
        self._encryption = encryption

    def parts(self, seed: bytes) -> Iterator[bytes]:
        for chunk in self._encryption.chunks(cover=seed):
            yield chunk.encode(self._session)

    def hash(self) -> bytes:
        return self._encryption.payload()


@final
class OneTimeClient:
    """CKKS with one-time keys: the masking of a key, and ciphertexts beside it.

    Nothing of CKKS outlives the answer that it is drawn for, so there is only the
    state of the masking to park.
    """

    def __init__(
        self,
        session: ckks.Session,
        key_session: masking.Session,
        identity: Identity,
        random: RandomSource,
        *,
        parked: bytes = b"",
    ) -> None:
        ckks.require_backend()
        self._session = session
        self._me = session.roster.index(identity.name)
        self._random = random
        self._masking = MaskingClient(key_session, identity, random, parked=parked)

    def first(self) -> list[bytes]:
        return self._masking.first()

    def park(self) -> bytes:
        return self._masking.park()

    def handle(
        self, message: bytes, vector: Callable[[], Outgoing]
    ) -> Generator[bytes]:
        def key() -> Outgoing:
            going = vector()
            encryption = ckks.Encryption(
                self._session, self._me, going.words, random=self._random.bytes(32)
            )
            return Outgoing(
                encryption.key_words(),
                going.claim,
                going.leaving,
                _Ciphertexts(self._session, encryption),
            )

        yield from self._masking.handle(message, key)


@final
class KeyholderClient(_OneAnswer):
    """CKKS with a key holder: one invitation, one upload."""

    def __init__(
        self,
        session: ckks.Session,
        identity: Identity,
        random: RandomSource,
        *,
        holder: bytes,
        aggregator: bytes,
    ) -> None:
        """``holder``, ``aggregator``: their public keys in the plan."""
        ckks.require_backend()
        super().__init__(session.ctx)
        self._session = session
        self._identity = identity
        self._random = random
        self._holder = holder
        self._aggregator = aggregator

    def handle(
        self, message: bytes, vector: Callable[[], Outgoing]
    ) -> Generator[bytes]:
        self._spend()
        s = self._session
        invitation = sealed.Invitation.decode(message, s)
        ckks.accept(s, invitation, holder=self._holder, aggregator=self._aggregator)
        going = vector()
        answer = ckks.Upload(
            s,
            self._identity,
            invitation,
            going.words,
            claim=going.claim,
            random=self._random.bytes(32),
        )
        going.leaving()
        for chunk in answer.chunks():
            yield chunk.encode(s)
        yield answer.finish().encode(s)
