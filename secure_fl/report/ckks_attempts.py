# SPDX-License-Identifier: Apache-2.0
"""A logged attempt under CKKS: with one-time keys, and with a key holder.

Ciphertexts are not logged (their signed payload stands for them), and a request only as
a hash: it repeats what the clients sent.  Nothing here multiplies polynomials, so that
an auditor needs no CKKS backend.
"""

from __future__ import annotations

from typing import Final, final

from .. import ckks, masking, wire
from ..ckks.messages import (
    AGGREGATOR_KEY_LABEL,
    HOLDER_KEY_LABEL,
    INPUT_LABEL,
    KINDS,
    RELEASE_LABEL,
    Call,
    HolderKey,
    Input,
    Invitation,
    Refusal,
    Release,
)
from ..keys import is_usable
from ..masking.messages import MaskedInput
from ..transcript import KEY_HOLDER
from .attempts import NOBODY, refuse
from .masking_attempts import MaskingReader

__all__ = ["KeyholderReader", "OneTimeReader"]

_MASKED_INPUT: Final = 6


@final
class OneTimeReader:
    """The masking of the keys; each masked key names the ciphertexts beside it."""

    guest = ""
    keys_released = False

    def __init__(self, session: ckks.Session, key_session: masking.Session) -> None:
        self.session = session
        self._key_session = key_session
        self._keys = MaskingReader(key_session)

    @property
    def withheld(self) -> int:
        return self._keys.withheld

    def take(self, kind: int, sender: str, receiver: str, data: bytes) -> None:
        self._keys.take(kind, sender, receiver, data)
        if kind == _MASKED_INPUT:
            message = MaskedInput.decode(data, self._key_session)
            if len(message.attached) != wire.HASH_BYTES:
                refuse(f"the masked key of {sender} names no ciphertexts")

    def finish(self) -> None:
        self._keys.finish()

    def claims(self) -> dict[int, bytes]:
        return self._keys.claims()

    def omitted(self) -> frozenset[str]:
        return self._keys.omitted()

    def culprits(self) -> frozenset[str]:
        return self._keys.culprits()

    @property
    def at_opening(self) -> bool:
        return self._keys.at_opening


@final
class KeyholderReader:
    """One call, one invitation, the clients' inputs, one request and one answer.

    Every ``_on_`` method checks one kind, as its receiver had to (SPEC ckks, 7).
    """

    withheld = KINDS.REQUEST
    guest = KEY_HOLDER

    def __init__(
        self, session: ckks.Session, *, aggregator: bytes, holder: bytes
    ) -> None:
        """``aggregator``, ``holder``: their public keys in the plan."""
        self.session = session
        self._aggregator = aggregator
        self._holder = holder
        self._call: Call | None = None
        self._key: HolderKey | None = None
        self._invited: set[str] = set()
        self._inputs: dict[int, Input] = {}
        self._requested = False
        self._release: Release | None = None
        self._refusal: Refusal | None = None

    def take(self, kind: int, sender: str, receiver: str, data: bytes) -> None:
        if sender == KEY_HOLDER:
            self._from_holder(kind, data)
        elif sender:
            if kind != KINDS.INPUT:
                refuse(f"{sender} sent a message that is not a client's")
            self._on_input(self.session.roster.index(sender), data)
        else:
            self._from_aggregator(kind, receiver, data)

    def _from_holder(self, kind: int, data: bytes) -> None:
        match kind:
            case KINDS.HOLDER_KEY:
                self._on_key(data)
            case KINDS.RELEASE:
                self._on_release(data)
            case KINDS.REFUSAL:
                self._on_refusal(data)
            case _:
                refuse("the key holder sent a message that is not its own")

    def _from_aggregator(self, kind: int, receiver: str, data: bytes) -> None:
        to_holder = receiver == KEY_HOLDER
        match kind:
            case KINDS.CALL if to_holder:
                self._on_call(data)
            case KINDS.INVITATION if not to_holder:
                self._on_invitation(receiver, data)
            case KINDS.REQUEST if to_holder:
                self._on_request()
            case _:
                refuse("the aggregator sent a message that is not its own")

    # -- step 1: keys --------------------------------------------------------------

    def _check_key(
        self, who: str, public: bytes, label: str, key: bytes, signature: bytes
    ) -> None:
        if not wire.verify(public, signature, label, self.session.ctx, key):
            refuse(f"the key of {who} is not signed by it")
        if not is_usable(key):
            refuse(f"the key of {who} is not usable")

    def _on_call(self, data: bytes) -> None:
        s, call = self.session, Call.decode(data)
        said = (call.round_index, call.attempt, call.model_hash, call.length)
        true = (s.round_index, s.attempt, s.model_hash, s.parameters.length)
        if call.ctx != s.ctx or said != true:
            refuse("the call to the key holder is about another context")
        self._check_key(
            "the aggregator",
            self._aggregator,
            AGGREGATOR_KEY_LABEL,
            call.key,
            call.signature,
        )
        self._call = call

    def _on_key(self, data: bytes) -> None:
        answer = HolderKey.decode(data, self.session)
        if self._call is None:
            refuse("the key holder gave a key before it was called")
        self._check_key(
            "the key holder",
            self._holder,
            HOLDER_KEY_LABEL,
            answer.key,
            answer.signature,
        )
        if answer.key == self._call.key:
            refuse("the key of the key holder is the aggregator's")
        self._key = answer

    # -- step 2: vectors -----------------------------------------------------------

    def _on_invitation(self, receiver: str, data: bytes) -> None:
        invitation = Invitation.decode(data, self.session)
        call, key = self._call, self._key
        if call is None or key is None:
            refuse("clients were invited before the key holder gave its key")
        if invitation != Invitation(key, call.key, call.signature):
            refuse("an invitation holds other keys than the two that were given")
        self._invited.add(receiver)

    def _on_input(self, me: int, data: bytes) -> None:
        name, message = self.session.name(me), Input.decode(data, self.session)
        if not self._invited & {"", name}:
            refuse(f"{name} sent a vector and was not invited")
        if message.client != me:
            refuse(f"{name} speaks in another client's name")
        if not wire.verify(
            self.session.public_key(me),
            message.signature,
            INPUT_LABEL,
            *message.row().signed(self.session),
        ):
            refuse(f"a message of {name} is not signed by it")
        self._inputs[me] = message

    # -- step 3: one answer of the key holder ----------------------------------------

    def _on_request(self) -> None:
        needed = self.session.parameters.needed
        if len(self._inputs) < needed:
            refuse(
                f"the key holder was asked for the keys of {len(self._inputs)} "
                f"clients, {needed} are needed"
            )
        self._requested = True

    def _check_asked(self) -> None:
        if not self._requested:
            refuse("the key holder answered before it was asked")

    def _on_release(self, data: bytes) -> None:
        release = Release.decode(data, self.session)
        self._check_asked()
        signed = release.signed(self.session)
        if not wire.verify(self._holder, release.signature, RELEASE_LABEL, *signed):
            refuse("the release is not signed by the key holder")
        arrived = tuple(
            (i, m.payload, m.claim) for i, m in sorted(self._inputs.items())
        )
        if release.rows != arrived:
            refuse("the key holder released another set than the vectors that arrived")
        self._release = release

    def _on_refusal(self, data: bytes) -> None:
        refusal = Refusal.decode(data, self.session)
        self._check_asked()
        if self._release is not None:
            refuse("the key holder released a sum, and refused it")
        if not ckks.is_refusal(self.session, refusal, holder=self._holder):
            refuse("the refusal is not signed by the key holder")
        self._refusal = refusal

    # -- what it comes to --------------------------------------------------------------

    def finish(self) -> None:
        if self._refusal is not None:
            refuse("a sum was opened that the key holder had refused")
        if self._release is None:
            refuse("a sum was opened, and the key holder released no keys for it")

    def claims(self) -> dict[int, bytes]:
        return {i: m.claim for i, m in self._inputs.items()}

    def omitted(self) -> frozenset[str]:
        """Everybody, where the key holder refused: it opens nothing of this context."""
        if self._refusal is None:
            return frozenset()
        return frozenset(m.name for m in self.session.roster.members)

    def culprits(self) -> frozenset[str]:
        """Whom the key holder refused, and it only."""
        culprit = self._refusal.culprit if self._refusal is not None else None
        if culprit not in self._inputs:
            return NOBODY
        return frozenset({self.session.name(culprit)})

    @property
    def at_opening(self) -> bool:
        return self.keys_released or self._refusal is not None

    @property
    def keys_released(self) -> bool:
        return self._release is not None
