# SPDX-License-Identifier: Apache-2.0
"""A client's side of one context with a key holder: one message in, one upload out.

(With one-time keys the masking protocol leads; the caller sends an ``Encryption``
beside it.)
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NoReturn, final

from numpy.typing import NDArray

from .. import keys, wire
from ..errors import FaultyAggregator, StateReused, UsageError
from ..fixedpoint import Word
from ..identity import Identity
from .encryption import Encryption
from .messages import (
    AGGREGATOR_KEY_LABEL,
    HOLDER_KEY_LABEL,
    INPUT_LABEL,
    REFUSAL_LABEL,
    Ciphertext,
    Input,
    Invitation,
    Refusal,
)
from .session import SPEC, Session

__all__ = ["Upload", "accept", "is_refusal"]


def accept(
    session: Session, message: Invitation, *, holder: bytes, aggregator: bytes
) -> None:
    """Check whom keys and chunks would be sealed to (SPEC 7.2).

    ``holder``, ``aggregator``: their public keys in the plan.  Raises FaultyAggregator.
    """
    ctx = session.ctx
    for public, signature, label, key in (
        (holder, message.holder.signature, HOLDER_KEY_LABEL, message.holder.key),
        (aggregator, message.signature, AGGREGATOR_KEY_LABEL, message.key),
    ):
        if not wire.verify(public, signature, label, ctx, key):
            raise FaultyAggregator("a key to seal to is not signed by its owner")
        if not keys.is_usable(key):
            raise FaultyAggregator("a key to seal to is not usable")
    if message.holder.key == message.key:
        raise FaultyAggregator("the two keys to seal to are one")


def is_refusal(session: Session, message: Refusal, *, holder: bytes) -> bool:
    """Whether the key holder (its public key) refused this context (SPEC 6.6, R1).

    It answers instead of raising: only its caller knows who brought it.
    """
    signed = message.signed(session)
    return wire.verify(holder, message.signature, REFUSAL_LABEL, *signed)


def purpose(session: Session, what: str, client: int, payload: bytes) -> bytes:
    """The ``info`` of a box (SPEC 4.2)."""
    return wire.encode([f"{SPEC} {what}", session.ctx, client, payload])


def release_info(session: Session) -> bytes:
    """The ``info`` of a release box (SPEC 4.2)."""
    return wire.encode([f"{SPEC} release box", session.ctx])


@final
class Upload:
    """The answer to an invitation: chunks, then the signed input.  Used once."""

    __slots__ = (
        "_chunk_key",
        "_claim",
        "_cover",
        "_encryption",
        "_identity",
        "_invitation",
        "_me",
        "_session",
        "_spent",
    )

    def __init__(
        self,
        session: Session,
        identity: Identity,
        invitation: Invitation,
        words: NDArray[Word],
        *,
        claim: bytes,
        random: bytes,
    ) -> None:
        """``invitation``: one that :func:`accept` has passed.  ``claim``: 32 bytes, the
        hash of the ledger entry behind the words.  ``random``: 32 fresh bytes."""
        if len(claim) != wire.HASH_BYTES:
            raise UsageError("a claim has 32 bytes")
        self._session = session
        self._identity = identity
        self._me = session.roster.index(identity.name)
        self._invitation = invitation
        self._claim = claim
        self._encryption = Encryption(session, self._me, words, random=random)
        self._chunk_key, self._cover = (
            keys.derive(random, salt=session.ctx, label=f"{SPEC} {what}", parts=[])
            for what in ("chunk key", "cover seed")
        )
        self._spent = False

    def chunks(self) -> Iterator[Ciphertext]:
        """Every chunk once, in order.  From the first one on the update is spent."""
        return self._encryption.chunks(cover=self._cover, chunk_key=self._chunk_key)

    def finish(self) -> Input:
        if self._spent:
            raise StateReused("an upload is finished once")
        self._spent = True
        session, me = self._session, self._me
        payload = self._encryption.payload()
        unsigned = Input(
            me,
            payload,
            self._claim,
            keys.seal(
                self._encryption.key_bytes() + self._cover,
                self._invitation.holder.key,
                info=purpose(session, "key box", me, payload),
            ),
            keys.seal(
                self._chunk_key,
                self._invitation.key,
                info=purpose(session, "chunk box", me, payload),
            ),
            b"",
        )
        signature = self._identity.sign(INPUT_LABEL, *unsigned.row().signed(session))
        return Input(
            me,
            payload,
            self._claim,
            unsigned.key_box,
            unsigned.chunk_box,
            signature,
        )

    def __repr__(self) -> str:
        return f"<Upload client={self._me} spent={self._spent}>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("protocol states are not copied or pickled: a copy is a reuse")
