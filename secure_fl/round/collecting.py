# SPDX-License-Identifier: Apache-2.0
"""How the aggregator collects what one attempt sends it: one object per protection.

Each moves its protocol's collectors from step to step.  What belongs to a step that is
over is late, and nobody's fault; the rest is right, or its sender's fault.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final, Protocol, final

from numpy.typing import NDArray

from .. import ckks, masking, wire
from ..ckks import messages as sealed
from ..context import context_of, kind_of
from ..errors import FaultyKeyHolder, ProtocolError
from ..fixedpoint import Word, unwrap
from ..identity import Identity
from ..masking import messages
from ..plain import CollectPlain
from ..transcript import KEY_HOLDER

__all__ = [
    "Collecting",
    "KeyholderCollecting",
    "MaskingCollecting",
    "OneTimeCollecting",
    "PlainCollecting",
    "SumOfWords",
    "collect_request",
]

_COLLECT_PLAIN: Final = 0  # the kind of the one request that `plain` has


@final
@dataclass(frozen=True)
class SumOfWords:
    """What an attempt opened, and whose vectors are in it."""

    words: NDArray[Word] = field(repr=False)
    clients: tuple[int, ...]


class Collecting(Protocol):
    """The port: one object per attempt.

    ``step`` names what is collected.  ``accept`` takes one message of a client (by
    number) or of the key holder (None) and says whether it counts; ``close`` ends the
    step and gives what to send to whom, or the sum after the last.  ``proof`` is what
    frees the vectors of clients that no sum can hold any more, where there is any.
    """

    @property
    def step(self) -> str: ...

    @property
    def proof(self) -> tuple[bytes, ...]: ...

    def first(self) -> dict[str, bytes]: ...

    def accept(self, sender: int | None, data: bytes) -> bool: ...

    def close(self) -> dict[str, bytes] | SumOfWords: ...


def collect_request(session: masking.Session) -> bytes:
    return wire.encode({0: _COLLECT_PLAIN, 1: session.ctx})


_Collector = (
    masking.CollectAdvertise
    | masking.CollectShares
    | masking.CollectInputs
    | masking.CollectAgreements
    | masking.CollectReveals
)
# Kinds below this one belong to a step that is over (SPEC masking, section 5).
_FIRST_KIND: Final[dict[type[object], int]] = {
    masking.CollectAdvertise: 1,
    masking.CollectShares: 3,
    masking.CollectInputs: 5,
    masking.CollectAgreements: 8,
    masking.CollectReveals: 10,
}
_STEPS: Final[dict[type[object], str]] = {
    masking.CollectAdvertise: "keys",
    masking.CollectShares: "shares",
    masking.CollectInputs: "vectors",
    masking.CollectAgreements: "consistency",
    masking.CollectReveals: "unmask",
}


def _out_of_order() -> ProtocolError:
    return ProtocolError("a message out of order")


@final
class PlainCollecting:
    def __init__(self, session: masking.Session) -> None:
        self._session = session
        self._collector = CollectPlain(session)

    step = "vectors"
    proof: tuple[bytes, ...] = ()

    def first(self) -> dict[str, bytes]:
        request = collect_request(self._session)
        return {m.name: request for m in self._session.roster.members}

    def accept(self, sender: int | None, data: bytes) -> bool:
        s = self._session
        kind = kind_of(data)
        if kind < 5 or context_of(data) != s.ctx:
            return False
        if sender is None:
            raise _out_of_order()
        if kind == 5:
            self._collector.add_chunk(sender, messages.Chunk.decode(data, s))
        elif kind == 6:
            self._collector.add(sender, messages.MaskedInput.decode(data, s))
        else:
            raise _out_of_order()
        return True

    def close(self) -> SumOfWords:
        opened = self._collector.close()
        return SumOfWords(opened.words, opened.survivors)


@final
class MaskingCollecting:
    """The masking protocol; ``join`` is told of every vector that is in."""

    def __init__(
        self,
        session: masking.Session,
        *,
        join: Callable[[int, bytes, Callable[[], None]], None] | None = None,
    ) -> None:
        """``join(client, attached, add)`` calls ``add`` once the payload is right."""
        self._session = session
        self._collector: _Collector = masking.CollectAdvertise(session)
        self._join = join
        self._statement = b""
        self.proof: tuple[bytes, ...] = ()
        self.opened: masking.Opened | None = None

    @property
    def step(self) -> str:
        return _STEPS[type(self._collector)]

    def first(self) -> dict[str, bytes]:
        return {}

    def accept(self, sender: int | None, data: bytes) -> bool:
        s, kind = self._session, kind_of(data)
        if kind < _FIRST_KIND[type(self._collector)] or context_of(data) != s.ctx:
            return False
        if sender is None:
            raise _out_of_order()
        match self._collector, kind:
            case masking.CollectAdvertise() as c, 1:
                c.add(sender, messages.Advertise.decode(data, s))
            case masking.CollectShares() as c, 3:
                c.add(sender, messages.SealedShares.decode(data, s))
            case masking.CollectInputs() as c, 5:
                c.add_chunk(sender, messages.Chunk.decode(data, s))
            case masking.CollectInputs() as c, 6:
                self._add_input(c, sender, messages.MaskedInput.decode(data, s))
            case masking.CollectAgreements() as c, 8:
                c.add(sender, messages.Agreement.decode(data, s))
            case masking.CollectReveals() as c, 10:
                c.add(sender, messages.Reveal.decode(data, s))
            case _:
                raise _out_of_order()
        return True

    def _add_input(
        self, c: masking.CollectInputs, sender: int, message: messages.MaskedInput
    ) -> None:
        if self._join is None:
            c.add(sender, message)
        else:
            self._join(sender, message.attached, lambda: c.add(sender, message))

    def close(self) -> dict[str, bytes] | SumOfWords:
        s = self._session
        name = s.roster.name
        match self._collector:
            case masking.CollectAdvertise() as c:
                self._collector, keys = c.close()
                data = keys.encode(s)
                return {name(a.client): data for a in keys.announcements}
            case masking.CollectShares() as c:
                self._collector, inboxes = c.close()
                return {name(i): m.encode(s) for i, m in inboxes.items()}
            case masking.CollectInputs() as c:
                self._collector, statement = c.close()
                self._statement = statement.encode(s)
                return {name(i): self._statement for i in statement.clients}
            case masking.CollectAgreements() as c:
                self._collector, signatures = c.close()
                data = signatures.encode(s)
                # For those left out: the proof that frees their update.
                self.proof = (self._statement, data)
                return {name(a.client): data for a in signatures.agreements}
            case masking.CollectReveals() as c:
                self.opened = c.close()
                return SumOfWords(self.opened.words, self.opened.survivors)


@final
class OneTimeCollecting:
    """CKKS with one-time keys: ciphertexts beside the masking of their keys."""

    def __init__(self, session: ckks.Session, key_session: masking.Session) -> None:
        self._session = session
        self._ciphertexts: ckks.Ciphertexts | None = ckks.Ciphertexts(session)
        self._keys = MaskingCollecting(key_session, join=self._join)

    @property
    def step(self) -> str:
        return self._keys.step

    @property
    def proof(self) -> tuple[bytes, ...]:
        return self._keys.proof

    def first(self) -> dict[str, bytes]:
        return {}

    def accept(self, sender: int | None, data: bytes) -> bool:
        if kind_of(data) != sealed.KINDS.CIPHERTEXT:
            return self._keys.accept(sender, data)
        s = self._session
        if self._ciphertexts is None or context_of(data) != s.ctx:
            return False
        if sender is None or self.step != "vectors":
            raise _out_of_order()
        self._ciphertexts.add_chunk(sender, sealed.Ciphertext.decode(data, s))
        return True

    def _join(self, sender: int, attached: bytes, add: Callable[[], None]) -> None:
        # Both or neither: what is checked first cannot fail after the key is in.
        assert self._ciphertexts is not None
        ready = self._ciphertexts.check(sender, attached)
        add()
        self._ciphertexts.join(sender, ready)

    def close(self) -> dict[str, bytes] | SumOfWords:
        ciphertexts = self._ciphertexts
        if self.step == "vectors":
            assert ciphertexts is not None
            self._total, self._ciphertexts = ciphertexts.total(), None
        result = self._keys.close()
        if not isinstance(result, SumOfWords):
            return result
        opened = self._keys.opened
        assert opened is not None
        bits = ckks.key_bits(self._session.parameters.clients)
        words = ckks.open_sum(
            self._session,
            self._total,
            unwrap(result.words, bits),
            opened.attached_seeds,
        )
        return SumOfWords(words, result.clients)


@final
class KeyholderCollecting:
    """CKKS with a key holder: no step needs the clients to hear of each other."""

    def __init__(
        self,
        session: ckks.Session,
        aggregator: Identity,
        *,
        holder: bytes,
        random: bytes,
    ) -> None:
        self._session = session
        self._collector: (
            ckks.CollectHolderKey | ckks.CollectInputs | ckks.CollectRelease
        ) = ckks.CollectHolderKey(session, aggregator, holder=holder, random=random)
        self.proof: tuple[bytes, ...] = ()

    @property
    def step(self) -> str:
        match self._collector:
            case ckks.CollectHolderKey():
                return "keys"
            case ckks.CollectInputs():
                return "vectors"
            case ckks.CollectRelease():
                return "release"

    def first(self) -> dict[str, bytes]:
        assert isinstance(self._collector, ckks.CollectHolderKey)
        return {KEY_HOLDER: self._collector.call().encode()}

    def accept(self, sender: int | None, data: bytes) -> bool:
        s, kind = self._session, kind_of(data)
        if context_of(data) != s.ctx:
            return False
        try:
            if sender is None:
                return self._from_holder(kind, data)
        except FaultyKeyHolder:
            raise
        except ProtocolError as error:
            raise FaultyKeyHolder(str(error)) from None
        match self._collector, kind:
            case ckks.CollectInputs() as c, sealed.KINDS.CIPHERTEXT:
                c.add_chunk(sender, sealed.Ciphertext.decode(data, s))
            case ckks.CollectInputs() as c, sealed.KINDS.INPUT:
                c.add(sender, sealed.Input.decode(data, s))
            case ckks.CollectRelease(), (sealed.KINDS.CIPHERTEXT | sealed.KINDS.INPUT):
                return False  # late
            case _:
                raise _out_of_order()
        return True

    def _from_holder(self, kind: int, data: bytes) -> bool:
        s = self._session
        match self._collector, kind:
            case ckks.CollectHolderKey() as c, sealed.KINDS.HOLDER_KEY:
                c.add(sealed.HolderKey.decode(data, s))
            case ckks.CollectRelease() as c, sealed.KINDS.RELEASE:
                c.add(sealed.Release.decode(data, s))
            case ckks.CollectRelease() as c, sealed.KINDS.REFUSAL:
                c.add(sealed.Refusal.decode(data, s))
                # Whom it names or not, no sum comes after it: the updates are free.
                self.proof = (data,)
            case _:
                raise _out_of_order()
        return True

    def close(self) -> dict[str, bytes] | SumOfWords:
        s = self._session
        match self._collector:
            case ckks.CollectHolderKey() as c:
                self._collector, invitation = c.close()
                data = invitation.encode(s)
                return {m.name: data for m in s.roster.members}
            case ckks.CollectInputs() as c:
                self._collector, request = c.close()
                return {KEY_HOLDER: request.encode(s)}
            case ckks.CollectRelease() as c:
                words, clients = c.close()
                return SumOfWords(words, clients)
