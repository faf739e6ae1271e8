# SPDX-License-Identifier: Apache-2.0
"""One update, one sum: after U3 was opened, nobody gets U3 without a client (SPEC 7).

A sum over U3 and one over U3 less a client, of the same updates, differ by that
client's update.  Here an aggregator that has the first asks for the second in every way
there is, of real participants with real ledgers (``test_omission.py``: of the bare
states).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from secure_fl.errors import (
    FaultyAggregator,
    SecureFLError,
    TooFewClients,
    UsageError,
)
from secure_fl.masking import (
    SPEC,
    Session,
)
from secure_fl.masking.messages import Agreement, Signatures, Statement
from secure_fl.model import GlobalModel
from secure_fl.round import Aggregation

from ..participants import Participants, plan_source

NAMES = ("clinic-a", "clinic-b", "clinic-c", "clinic-d")
MODEL = GlobalModel({"weight": np.zeros((2, 20), np.float32)})


class Run(Participants):
    """Four participants of one run, and an aggregator that keeps all it hears."""

    def __init__(self, folder: Path) -> None:
        protection = 'kind = "masking"\nchunk_words = 64'
        super().__init__(folder, plan_source(NAMES, protection), MODEL)

    def open(self, a: Aggregation, place: tuple[int, int]) -> None:
        """Steps 1 and 2 with everyone."""
        for name, participant in self.participants.items():
            for message in participant.open(*place, MODEL):
                a.receive(name, message)
        a.advance()
        self.step(a)

    def step(self, a: Aggregation, *, silent: frozenset[str] = frozenset()) -> None:
        """Everyone answers what it is told, but for those who say nothing."""
        for name, told in dict(a.outgoing).items():
            for message in self.participants[name].handle(told):
                if name not in silent:
                    a.receive(name, message)
        a.advance()

    def opened(self) -> Aggregation:
        """Attempt 0 of round 0, to its end: the sum over all four."""
        a = self.aggregation((0, 0))
        self.open(a, (0, 0))
        for name in NAMES:
            self.offer(name)
        self.statement = b""
        for _ in range(3):
            self.step(a)
            self.statement = self.statement or a.outgoing.get(NAMES[0], b"")
        assert a.result is not None
        assert a.result.survivors == NAMES
        return a

    def proof_without(
        self, session: Session, victim: str, signers: tuple[str, ...]
    ) -> tuple[bytes, bytes]:
        """A statement that leaves ``victim`` out, signed as by ``signers``."""
        whole = Statement.decode(self.statement, session)
        out = session.roster.index(victim)
        rows = tuple(s for s in whole.survivors if s.client != out)
        less = dataclasses.replace(whole, survivors=rows)
        signed = []
        for i, name in enumerate(NAMES):
            if name in signers:
                signature = self.identities[name].sign(
                    f"{SPEC} statement", *less.signed(session)
                )
                signed.append(Agreement(i, signature))
        proof = Signatures(tuple(signed))
        return less.encode(session), proof.encode(session)


def session_of(a: Aggregation) -> Session:
    assert isinstance(a.session, Session)
    return a.session


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Run]:
    made = Run(tmp_path)
    yield made
    made.close()


def refused(act: Callable[..., object], *told: object) -> None:
    """It raises one of our errors, and gives out no byte before that."""
    got: list[object] = []

    def take() -> None:
        answer = act(*told)
        if isinstance(answer, Iterator):
            got.extend(answer)

    with pytest.raises(SecureFLError):
        take()
    assert got == []


def test_a_second_statement_in_the_same_context(run: Run) -> None:
    a = run.opened()
    less, proof = run.proof_without(session_of(a), "clinic-d", NAMES[:3])
    for name in NAMES:
        refused(run.participants[name].handle, less)
        refused(run.participants[name].handle, proof)


def test_a_second_statement_before_the_reveal(run: Run) -> None:
    """All have signed "all four"; then each is asked to sign "all but d"."""
    a = run.aggregation((0, 0))
    run.open(a, (0, 0))
    for name in NAMES:
        run.offer(name)
    run.step(a)
    run.statement = a.outgoing["clinic-a"]
    run.step(a)
    less, _ = run.proof_without(session_of(a), "clinic-d", NAMES[:3])
    for name in NAMES:
        refused(run.participants[name].handle, less)
    # That was their second answer: they are out, and the first sum is lost, too.
    for name, told in a.outgoing.items():
        refused(run.participants[name].handle, told)
    with pytest.raises(TooFewClients):
        a.advance()


def test_a_second_set_of_signatures(run: Run) -> None:
    a = run.opened()
    assert a.omission
    for name in NAMES:
        refused(run.participants[name].handle, a.omission[1])


@pytest.mark.parametrize("place", [(0, 1), (1, 0)], ids=["attempt", "round"])
def test_the_same_updates_in_another_context(run: Run, place: tuple[int, int]) -> None:
    """Without a proof: each asks for a new update, and takes the old one from none."""
    run.opened()
    a = run.aggregation(place)
    run.open(a, place)
    for name in NAMES[:3]:
        participant = run.participants[name]
        assert participant.needs_update
        refused(participant.offer, run.updates[name])
        # Also not under a new charge: a claim is for one update.
        participant.reserve()
        refused(participant.offer, run.updates[name])
        refused(participant.handle, a.outgoing[name])


def test_the_same_updates_after_a_failed_end(run: Run) -> None:
    """The aggregator says the round failed, after it opened it."""
    run.opened()
    for name in NAMES[:3]:
        run.participants[name].conclude(opened=False)
        with pytest.raises(UsageError, match="round is over"):
            run.participants[name].open(0, 1, MODEL)
        states = [r.state for r in run.ledgers[name].releases(run.plan.lineage)]
        assert states == ["sent"], "it stays charged"


@pytest.mark.parametrize(
    ("signers", "error"),
    [
        ((), TooFewClients),
        (("clinic-c",), FaultyAggregator),
        (NAMES[:2], TooFewClients),
    ],
    ids=["nobody", "who is left out", "fewer than the threshold"],
)
def test_a_forged_proof_of_omission(
    run: Run, signers: tuple[str, ...], error: type[SecureFLError]
) -> None:
    a = run.opened()
    proof = run.proof_without(session_of(a), "clinic-c", signers)
    with pytest.raises(error):
        run.participants["clinic-c"].release(*proof)
    run.participants["clinic-c"].open(0, 1, MODEL)
    assert run.participants["clinic-c"].needs_update


def test_a_proof_with_signatures_over_another_statement(run: Run) -> None:
    """What all four did sign, under a statement that they did not."""
    a = run.opened()
    assert a.omission
    less, _ = run.proof_without(session_of(a), "clinic-c", ())
    mine = Signatures.decode(a.omission[1], session_of(a)).agreements
    others = Signatures(tuple(x for x in mine if x.client != 2)).encode(session_of(a))
    with pytest.raises(FaultyAggregator, match="does not hold"):
        run.participants["clinic-c"].release(less, others)
    # And the true pair holds the client itself.
    with pytest.raises(FaultyAggregator, match="holds our vector"):
        run.participants["clinic-c"].release(*a.omission)


def test_a_genuine_proof_frees_who_is_left_out_once_and_nobody_else(run: Run) -> None:
    a = run.aggregation((0, 0))
    run.open(a, (0, 0))
    for name in NAMES:
        run.offer(name)
    run.step(a, silent=frozenset({"clinic-d"}))
    for _ in range(2):
        run.step(a)
    assert a.result is not None
    assert a.result.survivors == NAMES[:3]
    assert a.omission
    for name in NAMES[:3]:
        refused(run.participants[name].release, *a.omission)
    late = run.participants["clinic-d"]
    late.release(*a.omission)
    refused(late.release, *a.omission)
    # The next attempt holds it, and fresh updates of the others.
    b = run.aggregation((0, 1))
    run.open(b, (0, 1))
    assert not late.needs_update
    for name in NAMES[:3]:
        assert run.participants[name].needs_update
        run.offer(name)
    run.step(b)
    # The old proof is about the old context: it frees nothing that left in the new.
    refused(late.release, *a.omission)
    late.open(0, 2, MODEL)
    assert late.needs_update


def test_another_run(run: Run) -> None:
    """The same plan under another run id: other contexts, other charges."""
    run.opened()
    other = run.instance()
    assert other.run_id != run.plan.run_id
    for name in NAMES[:3]:
        participant = run.participant(name, other)
        participant.open(0, 0, MODEL)
        refused(participant.offer, run.updates[name])
        participant.reserve()
        refused(participant.offer, run.updates[name])


def test_a_restarted_client(run: Run) -> None:
    """A new process begins no context again, and has no old update to offer."""
    a = run.opened()
    for name in NAMES[:3]:
        again = run.participant(name)
        with pytest.raises(UsageError, match="started before"):
            again.open(0, 0, MODEL)
        refused(again.handle, run.statement)
        later = run.participant(name)
        later.open(0, 1, MODEL)
        assert later.needs_update
        refused(later.offer, run.updates[name])
        assert a.omission
        refused(later.release, *a.omission)
