# SPDX-License-Identifier: Apache-2.0
"""Any client stops anywhere, messages come in any order: the exact sum, or nothing.

Unlike ``test_rounds.py`` a client may stop within its upload, before or after the last
chunk, and messages of one step are mixed at random; what comes after a step was closed
is late.  The expectation is counted from SPEC 1 alone.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.errors import SecureFLError, StateReused, TooFewClients
from secure_fl.masking import (
    AwaitCohort,
    AwaitInbox,
    AwaitSignatures,
    AwaitStatement,
    CollectAdvertise,
    CollectInputs,
    Opened,
    Parked,
    Session,
    messages,
    start,
)

from ..consortium import CLAIM, identities, make_session, make_vectors, plain_sum


@dataclass(frozen=True)
class Stop:
    """Where a client falls silent: at ``step``, after ``pieces`` messages of it.

    ``late``: the rest of that step's messages come in after the step was closed.
    """

    step: int
    pieces: int = 0
    late: bool = False


NEVER = Stop(6)
Add = Callable[[int, bytes], None]


class Round:
    """One round under a schedule; ``accepted`` are the senders of a MaskedInput."""

    def __init__(
        self, session: Session, stops: Mapping[int, Stop], order: random.Random
    ) -> None:
        self.session = session
        self.stops = stops
        self.order = order
        self.vectors = make_vectors(session, seed=order.randrange(2**32))
        self.accepted: set[int] = set()
        self.seen = dict.fromkeys(range(1, 6), 0)
        self._late: list[tuple[int, bytes]] = []

    def _bytes(self) -> bytes:
        return self.order.randbytes(32)

    def _deliver(self, step: int, queues: Mapping[int, list[bytes]], add: Add) -> None:
        """Everybody's messages of a step, mixed; each client's own stay in order."""
        self._late = []
        left: dict[int, list[bytes]] = {}
        for client, queue in queues.items():
            stop = self.stops.get(client, NEVER)
            cut = len(queue) if step < stop.step else stop.pieces
            cut = cut if step <= stop.step else 0
            left[client] = queue[:cut]
            if stop.late and step == stop.step:
                self._late += [(client, raw) for raw in queue[cut:]]
        while any(left.values()):
            client = self.order.choice([i for i, queue in left.items() if queue])
            # In time, and from an honest client: nothing is refused.
            add(client, left[client].pop(0))
            self.seen[step] += 1

    def _too_late(self, add: Add) -> None:
        """After a step was closed its collector takes nothing more."""
        for client, raw in self._late:
            with pytest.raises(StateReused):
                add(client, raw)

    def run(self) -> Opened:
        s, names = self.session, identities(self.session.parameters.clients)
        states: dict[int, Parked] = {}
        queues: dict[int, list[bytes]] = {}
        for i, identity in enumerate(names):
            states[i], hello = start(s, identity, random=self._bytes())
            queues[i] = [hello.encode(s)]
        keys_in = CollectAdvertise(s)

        def add_keys(i: int, raw: bytes) -> None:
            keys_in.add(i, messages.Advertise.decode(raw, s))

        self._deliver(1, queues, add_keys)
        shares_in, cohort = keys_in.close()
        self._too_late(add_keys)

        queues = {}
        for i in [a.client for a in cohort.announcements]:
            state = states[i]
            assert isinstance(state, AwaitCohort)
            states[i], shares = state.on_cohort(cohort, random=self._bytes())
            queues[i] = [shares.encode(s)]

        def add_shares(i: int, raw: bytes) -> None:
            shares_in.add(i, messages.SealedShares.decode(raw, s))

        self._deliver(2, queues, add_shares)
        inputs_in, inboxes = shares_in.close()
        self._too_late(add_shares)

        queues = {}
        for i, inbox in inboxes.items():
            state = states[i]
            assert isinstance(state, AwaitInbox)
            upload = state.on_inbox(inbox, self.vectors[i], claim=CLAIM)
            queues[i] = [chunk.encode(s) for chunk in upload.chunks()]
            states[i], signed = upload.finish()
            queues[i].append(signed.encode(s))

        def add_input(i: int, raw: bytes) -> None:
            self._add_input(inputs_in, i, raw)

        self._deliver(3, queues, add_input)
        agreements_in, statement = inputs_in.close()
        self._too_late(add_input)

        queues = {}
        for i in statement.clients:
            state = states[i]
            assert isinstance(state, AwaitStatement)
            states[i], agreement = state.on_statement(statement)
            queues[i] = [agreement.encode(s)]

        def add_agreement(i: int, raw: bytes) -> None:
            agreements_in.add(i, messages.Agreement.decode(raw, s))

        self._deliver(4, queues, add_agreement)
        reveals_in, signatures = agreements_in.close()
        self._too_late(add_agreement)

        queues = {}
        for i in [a.client for a in signatures.agreements]:
            state = states[i]
            assert isinstance(state, AwaitSignatures)
            queues[i] = [state.on_signatures(signatures).encode(s)]

        def add_reveal(i: int, raw: bytes) -> None:
            reveals_in.add(i, messages.Reveal.decode(raw, s))

        self._deliver(5, queues, add_reveal)
        try:
            opened = reveals_in.close()
        finally:
            self._too_late(add_reveal)
            with pytest.raises(StateReused):
                reveals_in.close()
        return opened

    def _add_input(self, collector: CollectInputs, i: int, raw: bytes) -> None:
        if messages.kind_of(raw) == 5:
            collector.add_chunk(i, messages.Chunk.decode(raw, self.session))
            return
        collector.add(i, messages.MaskedInput.decode(raw, self.session))
        self.accepted.add(i)

    def expected(self) -> tuple[set[int], int]:
        """Who is in the sum, and the step in which too few are left (0: none)."""
        p = self.session.parameters
        alive = set(range(p.clients))
        survivors: set[int] = set()
        for step in range(1, 6):
            pieces = p.chunks + 1 if step == 3 else 1
            alive = {
                i
                for i in alive
                for stop in (self.stops.get(i, NEVER),)
                if stop.step > step or (stop.step == step and stop.pieces >= pieces)
            }
            if step == 3:
                survivors = alive
            if len(alive) < (p.needed if step < 4 else p.threshold):
                return survivors, step
        return survivors, 0


def check(scheduled: Round) -> bool:
    """Run it.  Returns whether a sum was opened."""
    survivors, short_at = scheduled.expected()
    if short_at:
        with pytest.raises(TooFewClients) as caught:
            scheduled.run()
        assert caught.value.alive < caught.value.needed
        # It ended there and not later: no message of a later step was asked for.
        assert not any(scheduled.seen[k] for k in range(short_at + 1, 6))
        return False
    opened = scheduled.run()
    assert set(opened.survivors) == survivors == scheduled.accepted
    assert opened.words.tolist() == plain_sum(
        scheduled.session, scheduled.vectors, opened.survivors
    )
    return True


@st.composite
def rounds(draw: st.DrawFn) -> Round:
    n = draw(st.integers(3, 9))
    colluding = draw(st.integers(0, n - 2))
    floor = (n + colluding) // 2 + 1
    # Mostly the smallest that is safe: that leaves room for dropouts.
    high = draw(st.sampled_from([0, 0, 1, n]))
    session = make_session(
        n,
        length=draw(st.integers(1, 17)),
        word_bits=draw(st.integers(8, 64)),
        chunk_words=draw(st.integers(1, 9)),
        threshold=min(n, floor + high),
        min_clients=draw(st.integers(colluding + 2, n)) if high else colluding + 2,
        max_colluding=colluding,
    )
    p = session.parameters
    # As many stops as the round can bear, or one more, or fewer; late in the upload
    # first: hypothesis draws what stands first more often.
    who = draw(st.permutations(range(n)))
    bears = n - p.needed
    count = draw(st.sampled_from([bears, *range(bears), bears + 1]))
    stops = {}
    for client in who[:count]:
        step = draw(st.sampled_from([3, 3, 3, 1, 2, 4, 5]))
        within = st.sampled_from(range(p.chunks, -1, -1))
        pieces = draw(within) if step == 3 else 0
        stops[client] = Stop(step, pieces, draw(st.booleans()))
    return Round(session, stops, random.Random(draw(st.integers(0, 2**32))))


@settings(max_examples=100)
@given(rounds())
def test_any_stops_and_any_order_give_the_exact_sum_or_nothing(case: Round) -> None:
    check(case)


@pytest.mark.long
@settings(max_examples=1500)
@given(rounds())
def test_any_stops_and_any_order_at_length(case: Round) -> None:
    check(case)


def everywhere(chunks: int) -> list[Stop]:
    """Every place to stop at, and none."""
    within = [Stop(3, pieces, late=True) for pieces in range(1, chunks + 1)]
    return [NEVER, *(Stop(step, late=True) for step in range(1, 6)), *within]


def all_patterns(session: Session) -> tuple[int, int]:
    """Every client stops everywhere, in all combinations: (rounds, sums opened)."""
    n = session.parameters.clients
    tried = opened = 0
    for stops in itertools.product(everywhere(session.parameters.chunks), repeat=n):
        seed = random.Random(tried)
        opened += check(Round(session, dict(enumerate(stops)), seed))
        tried += 1
    return tried, opened


def test_every_dropout_pattern_of_three_clients() -> None:
    """None colludes: two are enough, so that one may stop anywhere."""
    tried, opened = all_patterns(make_session(3, max_colluding=0))
    assert tried == 8**3
    # Two must get through: nobody stops, or one of the three in one of seven places.
    assert opened == 1 + 3 * 7


@pytest.mark.long
def test_every_dropout_pattern_of_four_clients() -> None:
    tried, opened = all_patterns(make_session(4))
    assert tried == 8**4
    # Three of four are needed: one may stop, anywhere.
    assert opened == 1 + 4 * 7


def test_a_vector_that_is_not_vouched_for_is_not_in_the_sum() -> None:
    """All chunks came and no signed root, from each client in turn."""
    session = make_session(5, length=9, chunk_words=2)
    for client in range(5):
        stops = {client: Stop(3, session.parameters.chunks)}
        case = Round(session, stops, random.Random(client))
        assert check(case)
        assert case.accepted == set(range(5)) - {client}


def test_who_falls_silent_after_its_agreement_is_still_in_the_sum() -> None:
    session = make_session(5)
    case = Round(session, {2: Stop(5)}, random.Random(0))
    assert check(case)
    assert 2 in case.accepted


def test_too_few_at_the_last_step_opens_nothing() -> None:
    """Between Agreement and Reveal: the sum is there, under masks that stay on."""
    session = make_session(5)
    case = Round(session, {1: Stop(5), 2: Stop(5)}, random.Random(0))
    with pytest.raises(SecureFLError) as caught:
        case.run()
    assert type(caught.value) is TooFewClients
    assert (caught.value.alive, caught.value.needed) == (3, 4)
