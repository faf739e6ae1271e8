# SPDX-License-Identifier: Apache-2.0
"""A small finished run under CKKS, played with the objects that an engine moves.

The members, rounds and values are those of ``support.py``.  With one-time keys the
first attempt of round 1 fails after all have agreed to leave out bank-d, whose update
then stands in the second.  With a key holder the first attempt of round 0 has too few
vectors, and the key holder refuses the first of round 1, since bank-c's key box is not
for it; the others' updates then stand in the second.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace

from secure_fl import ckks, keys
from secure_fl.ckks.messages import INPUT_LABEL, KINDS, Input
from secure_fl.context import kind_of
from secure_fl.errors import ProtocolError
from secure_fl.keystore import MemoryKeystore
from secure_fl.privacy import Reservation
from secure_fl.round import (
    KEY_HOLDER,
    Aggregation,
    ClientProtection,
    KeyholderClient,
    OneTimeClient,
    Outgoing,
    key_holder,
    log_form,
)

from .support import NAMES, Consortium

Place = tuple[int, int]


def with_another_key_box(
    session: ckks.Session, message: Input, sign: Callable[..., bytes]
) -> Input:
    """The input with a key box for somebody else, signed by its client."""
    other = keys.public_key(keys.private_key(bytes(31) + b"\x07"))
    size = len(message.key_box) - keys.BOX_OVERHEAD
    changed = replace(message, key_box=keys.seal(bytes(size), other, info=b""))
    signed = changed.row().signed(session)
    return replace(changed, signature=sign(INPUT_LABEL, *signed))


@dataclass
class Sealed(Consortium):
    """All parties of a run under CKKS while it lasts."""

    kind: str = "ckks"
    keys: str = "one-time"
    # Updates that no sum of their first context can hold, by their client.
    freed: dict[str, Reservation] = field(default_factory=dict)

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.keyholder is not None:
            store = MemoryKeystore()
            self.holder = key_holder(self.plan, self.keyholder, store)

    def rounds(self) -> None:
        if self.keyholder is None:
            self.attempt((0, 0))
            self.attempt((1, 0), cut_off=["bank-d"], silent=["bank-b", "bank-c"])
            self.attempt((1, 1))
        else:
            self.attempt((0, 0), cut_off=["bank-c", "bank-d"])
            self.attempt((0, 1))
            self.attempt((1, 0), wrong_key="bank-c")
            self.attempt((1, 1), absent=["bank-c"])

    # -- one attempt -------------------------------------------------------------------

    def attempt(
        self,
        place: Place,
        *,
        absent: Sequence[str] = (),
        cut_off: Sequence[str] = (),
        silent: Sequence[str] = (),
        wrong_key: str = "",
    ) -> None:
        """Members in ``cut_off`` leave with their first ciphertext, those in ``silent``
        before the end; ``wrong_key`` seals its key to somebody else."""
        session = self.any_session(place)
        assert isinstance(session, ckks.Session)
        aggregation = Aggregation.for_plan(
            self.plan,
            round_index=place[0],
            attempt=place[1],
            model=self.model,
            aggregator=self.aggregator,
            random=self.random,
        )
        clients = {n: self.client(session, n) for n in NAMES if n not in absent}
        reserved: dict[str, Reservation] = {}
        left: list[str] = []

        def answers(name: str, message: bytes) -> Iterator[bytes]:
            if name == KEY_HOLDER:
                yield self.holder.handle(message, random=self.random.bytes(32))
                return
            if name in left or (aggregation.step == "unmask" and name in silent):
                return
            going = self.going(session, name, reserved)
            for piece in clients[name].handle(message, going):
                if name in cut_off and kind_of(piece) == KINDS.CIPHERTEXT:
                    left.append(name)
                    return
                if name == wrong_key and kind_of(piece) == KINDS.INPUT:
                    yield with_another_key_box(
                        session,
                        Input.decode(piece, session),
                        self.identities[name].sign,
                    ).encode(session)
                else:
                    yield piece

        def take(name: str, pieces: Iterator[bytes]) -> None:
            for piece in pieces:
                if aggregation.receive(name, piece):
                    self.note(place, name, "", piece)

        for name, client in clients.items():
            take(name, iter(client.first()))
        try:
            while True:
                if not aggregation.outgoing:
                    aggregation.advance()
                if aggregation.result is not None:
                    break
                sending, aggregation.outgoing = aggregation.outgoing, {}
                sending = {
                    n: m for n, m in sending.items() if n not in {*absent, *left}
                }
                self.reserve_all(place, aggregation.step, sending, reserved)
                if len(set(sending.values())) == 1 < len(sending):
                    self.note(place, "", "", next(iter(sending.values())))
                else:
                    for name, message in sending.items():
                        self.note(place, "", name, message)
                for name, message in sending.items():
                    take(name, answers(name, message))
        except ProtocolError as error:
            self.fail(place, str(error), culprit=getattr(error, "client", ""))
            if aggregation.omission:
                self.free(session, reserved, left)
            return
        opened = aggregation.result
        self.close_round(
            place,
            session,
            opened.survivors,
            total=opened.total,
            words_hash=opened.words_hash,
            clipped=opened.clipped,
            reservations=reserved,
        )

    def client(self, session: ckks.Session, name: str) -> ClientProtection:
        if self.keyholder is None:
            key_session = self.plan.key_session(session)
            return OneTimeClient(
                session, key_session, self.identities[name], self.random
            )
        return KeyholderClient(
            session,
            self.identities[name],
            self.random,
            holder=self.plan.keyholder_key,
            aggregator=self.plan.aggregator_key,
        )

    def reserve_all(
        self,
        place: Place,
        step: str,
        sending: dict[str, bytes],
        reserved: dict[str, Reservation],
    ) -> None:
        if step == "vectors":
            for name in sending:
                kept = self.freed.pop(name, None)
                reserved[name] = kept or self.reserve(name, place)

    def going(
        self, session: ckks.Session, name: str, reserved: dict[str, Reservation]
    ) -> Callable[[], Outgoing]:
        def make() -> Outgoing:
            reservation = reserved[name]
            return Outgoing(
                self.words(session, name),
                reservation.entry_hash,
                lambda: self.ledgers[name].sent(
                    reservation, ctx=session.ctx, now=self.now()
                ),
            )

        return make

    def free(
        self, session: ckks.Session, reserved: dict[str, Reservation], left: list[str]
    ) -> None:
        """A refusal frees all updates, a statement those of whom it leaves out."""
        for name in left if self.keyholder is None else reserved:
            self.ledgers[name].omitted(reserved[name], ctx=session.ctx, now=self.now())
            self.freed[name] = reserved[name]

    def note(self, place: Place, sender: str, receiver: str, data: bytes) -> None:
        form = log_form(data)
        if form is not None:
            self.transcript.add_message(
                *place,
                sender=sender,
                receiver=receiver,
                message=data,
                withheld=form == "withheld",
            )
