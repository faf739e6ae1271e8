# SPDX-License-Identifier: Apache-2.0
"""Mutated messages into decoders and into the live states that await them.

Every mutant goes to the decoder of its kind and, if that takes it, to a collector or a
client's state in the middle of a round.  ``fuzz`` runs one kind and counts what became
of the mutants; it raises where anything but a ProtocolError came out.
"""

from __future__ import annotations

import resource
import time
from collections import Counter
from collections.abc import Callable
from typing import Protocol

from secure_fl import wire
from secure_fl.errors import ProtocolError
from secure_fl.masking import (
    AwaitCohort,
    AwaitInbox,
    AwaitSignatures,
    AwaitStatement,
    CollectAdvertise,
    Session,
    messages,
    unpark,
)

from ..consortium import CLAIM, Consortium, make_session, plain_sum
from ..vectors.reference import cbor
from .mutation import WHO, mutants, recorded


class Message(Protocol):
    def encode(self, session: Session) -> bytes: ...


DECODERS: dict[int, Callable[[bytes, Session], Message]] = {
    1: messages.Advertise.decode,
    2: messages.CohortKeys.decode,
    3: messages.SealedShares.decode,
    4: lambda data, session: messages.Inbox.decode(data, session, reader=WHO),
    5: messages.Chunk.decode,
    6: messages.MaskedInput.decode,
    7: messages.Statement.decode,
    8: messages.Agreement.decode,
    9: messages.Signatures.decode,
    10: messages.Reveal.decode,
}
# The step in which a client sends a kind, and the one in which it is told one.
SENT = {1: 1, 3: 2, 5: 3, 6: 3, 8: 4, 10: 5}
TOLD = {2: 1, 4: 2, 7: 3, 9: 4}
# Of one message: far above what a slow machine needs, far below a blow-up.
SECONDS = 2.0
MEBIBYTES = 200


def peak() -> int:
    """The most memory this process ever had, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024


Live = Callable[[Message], None]


class Fuzz:
    """Mutants of one message against its decoder and one live state."""

    def __init__(self, kind: int, data: bytes, pool: list[bytes]) -> None:
        self.kind = kind
        self.data = data
        self.pool = pool
        self.count: Counter[str] = Counter()
        self._before = peak()

    def run(self, session: Session, live: Live, *, count: int, seed: int) -> None:
        for name, mutant in mutants(self.data, self.pool, count, seed):
            self.count["mutants"] += 1
            self.count[name] += 1
            began = time.process_time()
            self._one(session, live, mutant)
            if time.process_time() - began > SECONDS:
                raise AssertionError(f"{name} took long: {mutant[:80].hex()}")
        grown = peak() - self._before
        if grown > MEBIBYTES:
            raise AssertionError(f"memory grew by {grown} MiB")

    def _one(self, session: Session, live: Live, mutant: bytes) -> None:
        try:
            value = wire.decode(mutant)
            # By the second implementation: what is parsed has this one form.
            if cbor(value) != mutant:
                raise AssertionError(f"a second form is parsed: {mutant.hex()}")
            self.count["parsed"] += 1
            out = DECODERS[self.kind](mutant, session)
        except ProtocolError:
            return
        self.count["decoded"] += 1
        # What is accepted has one byte form.
        if out.encode(session) != mutant:
            raise AssertionError(f"a second form is taken: {mutant.hex()}")
        try:
            live(out)
        except ProtocolError:
            return
        self.count["accepted"] += 1


def _offer(c: Consortium, message: Message) -> None:
    """To the collector that is open; in the name of the client WHO."""
    match message:
        case messages.Advertise():
            CollectAdvertise(c.session).add(WHO, message)
        case messages.SealedShares():
            c.collect_shares.add(WHO, message)
        case messages.Chunk():
            c.collect_inputs.add_chunk(WHO, message)
        case messages.MaskedInput():
            c.collect_inputs.add(WHO, message)
        case messages.Agreement():
            c.collect_agreements.add(WHO, message)
        case messages.Reveal():
            c.collect_reveals.add(WHO, message)
        case _:
            raise AssertionError(message)


def fuzz_aggregator(kind: int, count: int, seed: int) -> Counter[str]:
    """Client WHO sends ``count`` mutants, and then what it should have sent.

    The others are not disturbed: the round opens the exact sum.
    """
    _, good, pool = recorded()
    fuzz = Fuzz(kind, good[kind], pool)
    c = Consortium(make_session(4))

    def sending(step: int, who: int, data: bytes) -> bytes:
        if who == WHO and messages.kind_of(data) == kind and not fuzz.count:
            fuzz.data = data
            fuzz.run(c.session, lambda m: _offer(c, m), count=count, seed=seed)
        return data

    c.sending = sending
    opened = c.opened()
    # A chunk is vouched for by its root alone: one that is well formed is taken, and
    # costs its sender the round.  Any other message is the sender's own or refused.
    spoilt = kind == 5 and fuzz.count["accepted"] > 0
    expected = tuple(i for i in range(4) if i != WHO or not spoilt)
    if opened.survivors != expected or fuzz.count["mutants"] != count:
        raise AssertionError(f"{opened.survivors} are in, {fuzz.count}")
    if opened.words.tolist() != plain_sum(c.session, c.vectors, expected):
        raise AssertionError("another sum")
    if kind != 5 and fuzz.count["accepted"]:
        raise AssertionError(f"{fuzz.count['accepted']} mutants were accepted")
    return fuzz.count


def fuzz_client(kind: int, count: int, seed: int) -> Counter[str]:
    """A fresh copy of client WHO's state for each mutant, as only a test may have."""
    _, _, pool = recorded()
    c = Consortium(make_session(4)).run(steps=TOLD[kind])
    session = c.session
    parked = c.states[WHO].park()

    def live(message: Message) -> None:
        match unpark(session, c.names[WHO], parked), message:
            case AwaitCohort() as state, messages.CohortKeys() as keys:
                answer: Message = state.on_cohort(keys, random=b"r" * 32)[1]
            case AwaitInbox() as state, messages.Inbox() as inbox:
                uploading = state.on_inbox(inbox, c.vectors[WHO], claim=CLAIM)
                answer = next(uploading.chunks())
            case AwaitStatement() as state, messages.Statement() as statement:
                answer = state.on_statement(statement)[1]
            case AwaitSignatures() as state, messages.Signatures() as signatures:
                answer = state.on_signatures(signatures)
            case _:
                raise AssertionError(message)
        # It answers with a message that others can read.
        raw = answer.encode(session)
        DECODERS[messages.kind_of(raw)](raw, session)

    fuzz = Fuzz(kind, c.outgoing[WHO], pool)
    fuzz.run(session, live, count=count, seed=seed)
    return fuzz.count


def fuzz(kind: int, count: int, seed: int) -> Counter[str]:
    act = fuzz_client if kind in TOLD else fuzz_aggregator
    return act(kind, count, seed)
