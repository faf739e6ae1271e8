# SPDX-License-Identifier: Apache-2.0
"""Errors in every step of a client, and a bad dealer wherever it is found.

Each is a call that raises one of our errors, after secrets were taken up.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np

from secure_fl.errors import SecureFLError
from secure_fl.masking import (
    AwaitCohort,
    AwaitInbox,
    AwaitSignatures,
    AwaitStatement,
    Uploading,
    messages,
    start,
    unpark,
)

from ..consortium import (
    CLAIM,
    ClientState,
    Consortium,
    dropping,
    flipped,
    make_session,
    with_field,
)
from . import forging

Fault = Callable[[], object]


def at(steps: int) -> tuple[Consortium, ClientState, bytes]:
    c = Consortium(make_session(4)).run(steps=steps)
    return c, c.states[0], c.outgoing[0]


def client_faults() -> Iterator[tuple[str, Fault]]:
    """An error in every step of a client, after its secrets were taken up."""

    def answer(state: ClientState, c: Consortium, told: bytes) -> object:
        s = c.session
        match state:
            case AwaitCohort():
                keys = messages.CohortKeys.decode(told, s)
                return state.on_cohort(keys, random=c.deals[0])
            case AwaitInbox():
                inbox = messages.Inbox.decode(told, s, reader=0)
                return state.on_inbox(inbox, c.vectors[0], claim=CLAIM)
            case AwaitStatement():
                return state.on_statement(messages.Statement.decode(told, s))
            case AwaitSignatures():
                return state.on_signatures(messages.Signatures.decode(told, s))

    for steps in (1, 2, 3, 4):
        field = 4 if steps == 3 else 2

        def empty(steps: int = steps, field: int = field) -> object:
            c, state, told = at(steps)
            return answer(state, c, with_field(told, field, []))

        def unparsable(steps: int = steps) -> object:
            c, state, told = at(steps)
            return answer(state, c, flipped(told))

        def twice(steps: int = steps) -> object:
            c, state, told = at(steps)
            answer(state, c, told)
            return answer(state, c, told)

        def foreign(steps: int = steps) -> object:
            c, state, _ = at(steps)
            return unpark(make_session(4, attempt=1), c.names[0], state.park())

        def garbled(steps: int = steps) -> object:
            c, state, _ = at(steps)
            return unpark(c.session, c.names[0], state.park()[:-1])

        for fault in (empty, unparsable, twice, foreign, garbled):
            yield f"{fault.__name__} {steps}", fault


def upload_faults() -> Iterator[tuple[str, Fault]]:
    def uploading() -> tuple[Consortium, Uploading]:
        c, state, told = at(2)
        assert isinstance(state, AwaitInbox)
        inbox = messages.Inbox.decode(told, c.session, reader=0)
        return c, state.on_inbox(inbox, c.vectors[0], claim=CLAIM)

    def early() -> object:
        _, state = uploading()
        next(state.chunks())
        return state.finish()

    def parked() -> object:
        return uploading()[1].park()

    def short() -> object:
        c, state, told = at(2)
        assert isinstance(state, AwaitInbox)
        inbox = messages.Inbox.decode(told, c.session, reader=0)
        return state.on_inbox(inbox, c.vectors[0][:-1], claim=CLAIM)

    def odd() -> object:
        c, state, told = at(2)
        assert isinstance(state, AwaitInbox)
        inbox = messages.Inbox.decode(told, c.session, reader=0)
        return state.on_inbox(inbox, c.vectors[0].astype(np.uint64), claim=CLAIM)

    def random() -> object:
        c = Consortium(make_session(4))
        return start(c.session, c.names[0], random=c.starts[0][:31])

    def dealing() -> object:
        c, state, told = at(1)
        assert isinstance(state, AwaitCohort)
        keys = messages.CohortKeys.decode(told, c.session)
        return state.on_cohort(keys, random=c.deals[0] + b"1")

    for fault in (early, parked, short, odd, random, dealing):
        yield fault.__name__, fault


def dealt_faults() -> Iterator[tuple[str, Fault]]:
    """A bad dealer, found by a reader, by a holder's reveal, or at the opening."""
    lies: dict[str, Callable[[Consortium], bytes]] = {
        "box": lambda c: forging.deal(c, sealed=lambda to, plain: bytes(64)),
        "beta": lambda c: forging.deal(c, beta=5),
        "z": lambda c: forging.deal(c, z=5),
        "no element": lambda c: forging.deal(
            c, committed=lambda to, share: b"\xff" * 32
        ),
    }
    for name, lie in lies.items():
        # A wrong z shows only where the liar drops out.
        for silent_from in (9, 3):

            def fault(
                lie: Callable[[Consortium], bytes] = lie, silent_from: int = silent_from
            ) -> object:
                c = Consortium(make_session(5))

                def sending(step: int, who: int, data: bytes) -> bytes | None:
                    if who != forging.LIAR:
                        return data
                    if step == 2:
                        c.said[2][who] = [data]
                        return lie(c)
                    return dropping({who: silent_from})(step, who, data)

                c.sending = sending
                try:
                    return c.opened()
                except SecureFLError:
                    # Who found it first ended with it; the rest were too few.
                    for error in c.left.values():
                        raise error from None
                    raise

            yield f"{name} {silent_from}", fault
