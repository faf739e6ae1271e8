# SPDX-License-Identifier: Apache-2.0
"""The aggregator's side of one attempt."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from .. import masking
from ..errors import FaultyClient, ProtocolError, UsageError
from ..fixedpoint import Encoding
from ..masking import Session, messages
from ..model import GlobalModel
from ..plain import CollectPlain
from ..plan import Plan
from .protections import collect_request

__all__ = ["Aggregation", "OpenedUpdate"]


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
        self._lock = threading.RLock()
        self._last: dict[str, bytes] = {}
        self._over = False
        self._collector: _Collector
        if kind == "plain":
            self._collector = CollectPlain(session)
            request = collect_request(session)
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

        Returns whether it counts: one of an earlier step, of another attempt or after
        the end, or the last one once more, is let go: a slow network is nobody's fault.
        Raises FaultyClient naming the sender of a wrong one; the step goes on for the
        others.
        """
        session = self.session
        index = session.roster.index(sender)
        try:
            with self._lock:
                if self._over:
                    return False
                late = messages.kind_of(data) < _FIRST_KIND[type(self._collector)]
                elsewhere = messages.context_of(data) != session.ctx
                if late or elsewhere or data == self._last.get(sender):
                    return False
                self._add(index, data)
                self._last[sender] = data
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
        with self._lock:
            if self._over:
                raise UsageError("the attempt is over")
            try:
                self._advance()
            except ProtocolError:
                self._over = True
                raise
            self._over = self.result is not None

    def _advance(self) -> None:
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
