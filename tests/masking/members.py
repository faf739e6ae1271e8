# SPDX-License-Identifier: Apache-2.0
"""Honest clients for a lying aggregator to play with, and clients that are not quite.

A :class:`Member` is the real client states and the once-only rules that SPEC 1 and 7
leave to its caller; it answers whatever it is told, in as many contexts as it is asked
to join.  The weak ones below each break one rule: they show that the search which finds
nothing against members would find something.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np

from secure_fl import wire
from secure_fl.errors import ProtocolError, UsageError
from secure_fl.fixedpoint import word_dtype
from secure_fl.identity import Identity
from secure_fl.keystore import MemoryKeystore
from secure_fl.masking import (
    SPEC,
    AwaitCohort,
    AwaitInbox,
    AwaitSignatures,
    AwaitStatement,
    Parked,
    Session,
    check_omission,
    crypto,
    messages,
    start,
    unpark,
)
from secure_fl.randomness import SeededInsecure

from ..consortium import CLAIM
from ..vectors import reference


@dataclass(frozen=True)
class Vector:
    """One update: whose, and its words.  Two updates never share a label."""

    label: tuple[str, int]
    words: tuple[int, ...] = field(repr=False)


class Member:
    """A client that follows the document, whatever the aggregator does."""

    def __init__(self, identity: Identity) -> None:
        self.identity = identity
        self.name = identity.name
        self._random = SeededInsecure(b"member " + identity.name.encode())
        self._keystore = MemoryKeystore()
        # By context and step: what answers the message of that step.
        self.states: dict[tuple[bytes, int], Parked] = {}
        # For the test alone: the 32 bytes behind beta and z, and what was uploaded.
        self.starts: dict[bytes, bytes] = {}
        self.uploaded: dict[bytes, list[Vector]] = {}
        self._vector: Vector | None = None
        self._spent_in: Session | None = None
        self._made = 0

    def index(self, session: Session) -> int:
        return session.roster.index(self.name)

    def secrets(self, session: Session) -> tuple[int, int]:
        """The real (beta, z) of a context, by the second implementation."""
        beta, z = reference.elements(
            session.ctx, self.starts[session.ctx], "secrets", 2
        )
        return beta, z

    # -- where the weak ones differ ----------------------------------------------

    def _fresh(self) -> bytes:
        return self._random.bytes(32)

    def _keep(self, session: Session, step: int, state: Parked) -> None:
        self.states[session.ctx, step] = state

    def _state(self, session: Session, step: int) -> Parked:
        """The state of a step, also where it was spent: it must defend itself."""
        try:
            return self.states[session.ctx, step]
        except KeyError:
            raise UsageError("nothing was sent in this context") from None

    def _reuses(self) -> bool:
        """Whether the last vector may go out once more (SPEC 7)."""
        return self._spent_in is None

    # -- the five steps ------------------------------------------------------------

    def begin(self, session: Session) -> bytes:
        self._keystore.begin(session.ctx)
        random = self._fresh()
        state, message = start(session, self.identity, random=random)
        self.starts[session.ctx] = random
        self._keep(session, 1, state)
        return message.encode(session)

    def on_cohort(self, session: Session, told: bytes) -> bytes:
        state = self._state(session, 1)
        assert isinstance(state, AwaitCohort)
        keys = messages.CohortKeys.decode(told, session)
        after, message = state.on_cohort(keys, random=self._fresh())
        self._keep(session, 2, after)
        return message.encode(session)

    def on_inbox(self, session: Session, told: bytes) -> Iterator[bytes]:
        """The chunks and the signed root: the liar may stop listening in between."""
        state = self._state(session, 2)
        assert isinstance(state, AwaitInbox)
        inbox = messages.Inbox.decode(told, session, reader=self.index(session))
        vector = self._next(session)
        words = np.array(vector.words, word_dtype(session.parameters.word_bits))
        uploading = state.on_inbox(inbox, words, claim=CLAIM)
        self._vector, self._spent_in = vector, session
        self.uploaded.setdefault(session.ctx, []).append(vector)
        for chunk in uploading.chunks():
            yield chunk.encode(session)
        after, message = uploading.finish()
        self._keep(session, 3, after)
        yield message.encode(session)

    def _next(self, session: Session) -> Vector:
        if self._vector is not None and self._reuses():
            return self._vector
        self._made += 1
        p = session.parameters
        source = SeededInsecure(f"{self.name} {self._made}".encode())
        words = tuple(
            int.from_bytes(source.bytes(8), "little") % 2**p.word_bits
            for _ in range(p.length)
        )
        return Vector((self.name, self._made), words)

    def on_statement(self, session: Session, told: bytes) -> bytes:
        state = self._state(session, 3)
        assert isinstance(state, AwaitStatement)
        after, message = state.on_statement(messages.Statement.decode(told, session))
        self._keep(session, 4, after)
        return message.encode(session)

    def on_signatures(self, session: Session, told: bytes) -> list[bytes]:
        state = self._state(session, 4)
        assert isinstance(state, AwaitSignatures)
        signatures = messages.Signatures.decode(told, session)
        return [state.on_signatures(signatures).encode(session)]

    def free(self, session: Session, statement: bytes, signatures: bytes) -> None:
        """Take back the vector that ``session`` left out, if that is proved."""
        if self._spent_in is None or self._spent_in.ctx != session.ctx:
            raise UsageError("no vector is spent in this context")
        check_omission(
            session,
            self.index(session),
            messages.Statement.decode(statement, session),
            messages.Signatures.decode(signatures, session),
        )
        self._spent_in = None

    def park(self, session: Session, step: int) -> None:
        """Its process ends and starts again between two messages."""
        state = self._state(session, step)
        again = unpark(session, self.identity, state.park())
        self.states[session.ctx, step] = again


class AnswersTwice(Member):
    """Goes back to a copy of its state, and answers as often as it is asked."""

    steps: tuple[int, ...] = ()

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity)
        self._copies: dict[tuple[bytes, int], bytes] = {}

    def _keep(self, session: Session, step: int, state: Parked) -> None:
        if step in self.steps:
            self._copies[session.ctx, step] = state.park()
        super()._keep(session, step, state)

    def _state(self, session: Session, step: int) -> Parked:
        copy = self._copies.get((session.ctx, step))
        if copy is None:
            return super()._state(session, step)
        return unpark(session, self.identity, copy)


class SignsTwice(AnswersTwice):
    """One who restores its state after the upload: two statements, two reveals."""

    steps = (3, 4)


class MasksTwice(AnswersTwice):
    """One who restores its state before the upload: two vectors under one mask."""

    steps = (2,)


class ReusesVectors(Member):
    """Sends one vector in every context, without a proof of omission."""

    def _reuses(self) -> bool:
        return True


class ReusesRandomness(Member):
    """Takes the same 32 bytes in every context, against SPEC 4.1."""

    def _fresh(self) -> bytes:
        return reference.digest("the same again", self.name)


class KeepsItsBoxes(Member):
    """Reveals by itself, from shares that it read out of its own boxes."""

    def __init__(self, identity: Identity) -> None:
        super().__init__(identity)
        self._held: dict[bytes, dict[int, tuple[bytes, bytes]]] = {}
        self._cohorts: dict[bytes, bytes] = {}
        self._signed: dict[bytes, messages.Statement] = {}

    def on_cohort(self, session: Session, told: bytes) -> bytes:
        keys = messages.CohortKeys.decode(told, session)
        self._cohorts[session.ctx] = messages.cohort_hash(session, keys)
        return super().on_cohort(session, told)

    def on_inbox(self, session: Session, told: bytes) -> Iterator[bytes]:
        me = self.index(session)
        seed = reference.derive(session.ctx, self.starts[session.ctx], "seal key")
        held = {}
        for entry in messages.Inbox.decode(told, session, reader=me).entries:
            if entry.dealer != me:
                cohort = self._cohorts[session.ctx]
                info: list[wire.Value] = [session.ctx, cohort, entry.dealer, me]
                try:
                    plain = crypto.open_box(
                        entry.share.box, crypto.private_key(seed), info=info
                    )
                except ValueError:
                    raise ProtocolError("a box does not open") from None
                held[entry.dealer] = (plain[:32], plain[32:])
        self._held[session.ctx] = held
        yield from super().on_inbox(session, told)

    def on_statement(self, session: Session, told: bytes) -> bytes:
        answer = super().on_statement(session, told)
        self._signed[session.ctx] = messages.Statement.decode(told, session)
        return answer

    def _reveal(self, session: Session, members: frozenset[int]) -> bytes:
        """A reveal by the set ``members``, duly signed."""
        me = self.index(session)
        rows = tuple(
            messages.RevealedShare(d, "self", pair[0])
            if d in members
            else messages.RevealedShare(d, "key", pair[1])
            for d, pair in sorted(self._held[session.ctx].items())
        )
        bare = messages.Reveal(me, rows, b"")
        signature = self.identity.sign(f"{SPEC} reveal", session.ctx, me, bare.rows())
        return messages.Reveal(me, rows, signature).encode(session)


class RevealsBothKinds(KeepsItsBoxes):
    """Answers honestly, and with the other kind of each share as well."""

    def on_signatures(self, session: Session, told: bytes) -> list[bytes]:
        answers = super().on_signatures(session, told)
        members = frozenset(self._signed[session.ctx].clients)
        others = frozenset(self._held[session.ctx]) - members
        return [*answers, self._reveal(session, others)]


class TrustsSignatures(KeepsItsBoxes):
    """Reveals by the statement it signed, without a look at who else signed it."""

    def on_signatures(self, session: Session, told: bytes) -> list[bytes]:
        if session.ctx not in self._signed:
            raise UsageError("nothing was signed in this context")
        return [self._reveal(session, frozenset(self._signed[session.ctx].clients))]
