# SPDX-License-Identifier: Apache-2.0
"""What the retry rule rests on: a state signs once, and a proof of omission is one.

SPEC 7 on the bare states, without ledgers: ``test_retry_rule.py`` has the participants.
"""

from __future__ import annotations

import dataclasses

import pytest

from secure_fl.errors import (
    FaultyAggregator,
    SecureFLError,
    StateReused,
    TooFewClients,
    UsageError,
)
from secure_fl.keystore import MemoryKeystore
from secure_fl.masking import (
    SPEC,
    AwaitSignatures,
    AwaitStatement,
    check_omission,
    messages,
    start,
)
from secure_fl.masking.messages import Agreement, Signatures, Statement

from ..consortium import Consortium, dropping, make_session


def signed_without(c: Consortium, client: int) -> Statement:
    rows = tuple(s for s in c.statement.survivors if s.client != client)
    return dataclasses.replace(c.statement, survivors=rows)


def sign(c: Consortium, client: int, statement: Statement) -> Agreement:
    """A client signs whatever it is shown."""
    signature = c.names[client].sign(f"{SPEC} statement", *statement.signed(c.session))
    return Agreement(client, signature)


def test_a_state_that_signed_signs_no_less() -> None:
    c = Consortium(make_session(4)).run(steps=3)
    states = {i: s for i, s in c.states.items() if isinstance(s, AwaitStatement)}
    assert len(states) == 4
    for state in states.values():
        after, _ = state.on_statement(c.statement)
        with pytest.raises(StateReused):
            state.on_statement(signed_without(c, 3))
        # The next state knows one statement: signatures over another are refused.
        less = signed_without(c, 3)
        proof = Signatures(tuple(sign(c, i, less) for i in range(3)))
        assert isinstance(after, AwaitSignatures)
        with pytest.raises(FaultyAggregator, match="does not hold"):
            after.on_signatures(proof)
        with pytest.raises(StateReused):
            after.on_signatures(proof)


def test_a_parked_state_is_not_replayed_and_a_context_not_begun_again() -> None:
    """The once-only rules that a keystore keeps across processes."""
    c = Consortium(make_session(4)).run(steps=3)
    session, store = c.session, MemoryKeystore()
    store.begin(session.ctx)
    state = c.states[0]
    store.park(session.ctx, state.park())
    taken: list[bytes] = []
    store.advance(session.ctx, taken.append)
    with pytest.raises(UsageError):
        store.advance(session.ctx, taken.append)
    assert len(taken) == 1
    with pytest.raises(UsageError):
        store.begin(session.ctx)


def test_a_new_start_in_the_old_context_meets_no_old_signature() -> None:
    """Should a client begin again all the same: its keys, hence its cohort, differ."""
    c = Consortium(make_session(4)).run()
    again = Consortium(make_session(4), seed=b"begun again")
    state, hello = start(again.session, again.names[0], random=again.starts[0])
    mixed = [hello.announcement, *c.cohort.announcements[1:]]
    _, shares = state.on_cohort(
        messages.CohortKeys(tuple(mixed)), random=again.deals[0]
    )
    with pytest.raises(SecureFLError, match="closed"):
        c.collect_shares.add(0, shares)
    cohort = messages.cohort_hash(c.session, messages.CohortKeys(tuple(mixed)))
    assert cohort != c.statement.cohort


def test_check_omission_accepts_what_threshold_signed_without_us() -> None:
    c = Consortium(make_session(5), sending=dropping({4: 3})).run(steps=4)
    check_omission(c.session, 4, c.statement, c.signatures)


def test_check_omission_refuses_anything_less() -> None:
    c = Consortium(make_session(5), sending=dropping({4: 3})).run(steps=4)
    session, statement, signatures = c.session, c.statement, c.signatures
    with pytest.raises(FaultyAggregator, match="holds our vector"):
        check_omission(session, 3, statement, signatures)
    few = Signatures(signatures.agreements[:3])
    with pytest.raises(TooFewClients):
        check_omission(session, 4, statement, few)
    with pytest.raises(TooFewClients):
        check_omission(session, 4, statement, Signatures(()))
    other = dataclasses.replace(statement, dealers=bytes(32))
    with pytest.raises(FaultyAggregator, match="does not hold"):
        check_omission(session, 4, other, signatures)
    retry = dataclasses.replace(session, attempt=1)
    with pytest.raises(FaultyAggregator, match="does not hold"):
        check_omission(retry, 4, statement, signatures)
    outside = Signatures((*signatures.agreements[:3], sign(c, 4, statement)))
    with pytest.raises(FaultyAggregator, match="outside the statement"):
        check_omission(session, 4, statement, outside)


def test_after_an_omission_no_statement_with_the_client_finds_threshold() -> None:
    """What check_omission rests on: both statements would need an honest double."""
    c = Consortium(make_session(5)).run(steps=3)
    states = {i: s for i, s in c.states.items() if isinstance(s, AwaitStatement)}
    without = signed_without(c, 0)
    signed = [states[i].on_statement(without)[1] for i in (1, 2, 3)]
    proof = Signatures((*signed, sign(c, 4, without)))
    check_omission(c.session, 0, without, proof)
    # The aggregator keeps the vector, and asks the same clients once more.
    with_it = [states[0].on_statement(c.statement)[1], sign(c, 4, c.statement)]
    for i in (1, 2, 3):
        with pytest.raises(SecureFLError):
            states[i].on_statement(c.statement)
    assert len(with_it) < c.session.parameters.threshold
