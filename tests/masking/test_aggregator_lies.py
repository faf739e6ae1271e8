# SPDX-License-Identifier: Apache-2.0
"""A malicious aggregator and its colluding client, against the clients' secrets.

The measure of every test here: from all that was revealed, and all that colluders
hold, no honest dealer's self mask *and* mask key can both be put together.  The real
secrets are known to the test, so it tries.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import defaultdict
from collections.abc import Iterable, Mapping

import pytest

from secure_fl.errors import (
    FaultyAggregator,
    PlanError,
    ProtocolError,
    SecureFLError,
    TooFewClients,
)
from secure_fl.masking import (
    AwaitCohort,
    AwaitInbox,
    AwaitSignatures,
    AwaitStatement,
    CollectInputs,
    CollectShares,
    crypto,
    messages,
    shamir,
)
from secure_fl.masking.messages import (
    Agreement,
    Chunk,
    CohortKeys,
    Reveal,
    Signatures,
    Statement,
)

from ..consortium import (
    Consortium,
    dropping,
    held_shares,
    make_session,
    plain_sum,
)

Shares = dict[tuple[int, str], dict[int, int]]


def learnt(
    reveals: Iterable[Reveal], held: Mapping[int, Mapping[int, tuple[int, int]]]
) -> Shares:
    """Points of (dealer, kind) that the aggregator has: x to share."""
    points: Shares = defaultdict(dict)
    for reveal in reveals:
        for share in reveal.shares:
            value = shamir.from_bytes(share.share)
            points[share.of, share.kind][reveal.client + 1] = value
    for holder, rows in held.items():
        for dealer, (self_share, key_share) in rows.items():
            points[dealer, "self"][holder + 1] = self_share
            points[dealer, "key"][holder + 1] = key_share
    return points


def opened_secrets(c: Consortium, points: Shares) -> dict[int, set[str]]:
    """Which real secrets of which dealer those points give away."""
    threshold = c.session.parameters.threshold
    out: dict[int, set[str]] = defaultdict(set)
    for (dealer, kind), shares in points.items():
        beta, z = c.secrets(dealer)
        secret = beta if kind == "self" else z
        for chosen in itertools.combinations(shares.items(), threshold):
            if shamir.reconstruct(dict(chosen)) == secret:
                out[dealer].add(kind)
        if len(shares) < threshold:
            assert shamir.reconstruct(shares) != secret
    return out


def assert_none_is_open(c: Consortium, points: Shares, honest: Iterable[int]) -> None:
    """No honest client's vector: that takes its self mask and all its pair masks."""
    opened = opened_secrets(c, points)
    for client in honest:
        assert opened[client] != {"self", "key"}, f"client {client} is open"


def after_masking(
    n: int, *, max_colluding: int = 1
) -> tuple[
    Consortium, dict[int, AwaitStatement], dict[int, dict[int, tuple[int, int]]]
]:
    """All have sent their vectors; colluders (the last ones) gave up all they hold."""
    c = Consortium(make_session(n, max_colluding=max_colluding)).run(steps=3)
    held = {}
    states = {}
    for client, state in c.states.items():
        assert isinstance(state, AwaitStatement)
        if client >= n - max_colluding:
            held[client] = held_shares(state)
        else:
            states[client] = state
    return c, states, held


def statement_without(c: Consortium, *omitted: int) -> Statement:
    rows = tuple(s for s in c.statement.survivors if s.client not in omitted)
    return dataclasses.replace(c.statement, survivors=rows)


def sign(c: Consortium, client: int, statement: Statement) -> Agreement:
    """A colluder signs whatever it is shown."""
    signature = c.names[client].sign(
        messages.STATEMENT_LABEL, *statement.signed(c.session)
    )
    return Agreement(client, signature)


def collect(
    c: Consortium,
    views: Mapping[int, Statement],
    states: Mapping[int, AwaitStatement],
    colluders: Iterable[int],
) -> list[Reveal]:
    """Show each honest client its view; then try to get shares for every view."""
    waiting: dict[int, AwaitSignatures] = {}
    agreed: dict[bytes, list[Agreement]] = defaultdict(list)
    for client, view in views.items():
        try:
            waiting[client], agreement = states[client].on_statement(view)
        except SecureFLError:
            continue
        agreed[view.encode(c.session)].append(agreement)
    for encoded, rows in agreed.items():
        view = Statement.decode(encoded, c.session)
        rows += [sign(c, i, view) for i in colluders if i in view.clients]
        rows.sort(key=lambda a: a.client)
    reveals = []
    for client, state in waiting.items():
        signatures = Signatures(tuple(agreed[views[client].encode(c.session)]))
        try:
            reveals.append(state.on_signatures(signatures))
        except TooFewClients:
            continue
    return reveals


# -- split views of who is in --------------------------------------------------


@pytest.mark.parametrize(("n", "colluding"), [(4, 1), (5, 1), (5, 2), (6, 2)])
def test_no_split_of_the_statement_opens_a_vector(n: int, colluding: int) -> None:
    """Every way to show some honest clients "all are in" and others "all but one"."""
    honest = range(n - colluding)
    colluders = range(n - colluding, n)
    omitted = 0
    for split in itertools.product((False, True), repeat=len(honest) - 1):
        c, states, held = after_masking(n, max_colluding=colluding)
        whole, without = c.statement, statement_without(c, omitted)
        views = {omitted: whole}
        for client, sees_less in zip(honest[1:], split, strict=True):
            views[client] = without if sees_less else whole
        reveals = collect(c, views, states, colluders)
        # At most one of the two statements was ever answered.
        kinds = {s.kind for r in reveals for s in r.shares if s.of == omitted}
        assert len(kinds) <= 1
        assert_none_is_open(c, learnt(reveals, held), honest)


def test_below_the_smallest_threshold_the_same_split_opens_a_vector() -> None:
    """Control: the attack above is a real one, and refusing t = 2 of 4 stops it."""
    with pytest.raises(PlanError):
        make_session(4, threshold=2)
    # Past the check, as a plan of another tool might be.
    safe = make_session(4)
    object.__setattr__(safe.parameters, "threshold", 2)
    c = Consortium(safe).run(steps=3)
    states = {i: s for i, s in c.states.items() if isinstance(s, AwaitStatement)}
    held = {3: held_shares(states.pop(3))}
    views = {0: c.statement, 1: c.statement, 2: statement_without(c, 0)}
    reveals = collect(c, views, states, [3])
    assert len(reveals) == 3
    assert opened_secrets(c, learnt(reveals, held))[0] == {"self", "key"}


@pytest.mark.parametrize("n", [4, 5])
def test_every_pair_of_statements_is_answered_for_one(n: int) -> None:
    """Views that omit different clients: no dealer gets two kinds of share."""
    honest = range(n - 1)
    for first, second in itertools.combinations(honest, 2):
        c, states, held = after_masking(n)
        one, two = statement_without(c, first), statement_without(c, second)
        views = {i: one if i % 2 else two for i in honest}
        reveals = collect(c, views, states, [n - 1])
        assert_none_is_open(c, learnt(reveals, held), honest)


def test_an_honest_round_opens_each_dealer_half() -> None:
    """Where it goes well: self masks of survivors, the mask key of who dropped."""
    session = make_session(5)
    c = Consortium(session, sending=dropping({3: 3}))
    c.opened()
    reveals = [Reveal.decode(r[0], session) for r in c.said[5].values()]
    opened = opened_secrets(c, learnt(reveals, {}))
    assert opened == {0: {"self"}, 1: {"self"}, 2: {"self"}, 3: {"key"}, 4: {"self"}}


def test_a_client_reveals_one_kind_per_dealer_and_then_nothing() -> None:
    c, states, _ = after_masking(5)
    without = statement_without(c, 3)
    reveals = collect(c, dict.fromkeys((0, 1, 2), without), states, [4])
    assert len(reveals) == 3
    for reveal in reveals:
        kinds = {s.of: s.kind for s in reveal.shares}
        assert kinds == {0: "self", 1: "self", 2: "self", 3: "key", 4: "self"}
    for client in (0, 1, 2):
        with pytest.raises(SecureFLError):
            states[client].on_statement(c.statement)


# -- late and omitted clients --------------------------------------------------


def test_a_late_clients_vector_stays_shut() -> None:
    """It is declared dropped, its mask key opens, and then its vector comes in."""
    c, states, held = after_masking(5)
    late = 0
    without = statement_without(c, late)
    reveals = collect(c, dict.fromkeys((1, 2, 3), without), states, [4])
    points = learnt(reveals, held)
    opened = opened_secrets(c, points)
    assert opened[late] == {"key"}
    # Peel off all pair masks, as the aggregator now can: the self mask is left.
    session = c.session
    p = session.parameters
    z = shamir.reconstruct(dict(list(points[late, "key"].items())[: p.threshold]))
    key = crypto.mask_private_key(z, ctx=session.ctx)
    keys = {a.client: a.mask_key for a in c.cohort.announcements}
    cohort = messages.cohort_hash(session, c.cohort)
    plus = [
        crypto.pair_seed(
            key, keys[i], ctx=session.ctx, cohort_hash=cohort, pair=(late, i)
        )
        for i in range(1, 5)
    ]
    own = crypto.self_seed(c.secrets(late)[0], ctx=session.ctx)
    on = crypto.MaskStream(word_bits=p.word_bits, plus=[*plus, own])
    off = crypto.MaskStream(word_bits=p.word_bits, plus=[], minus=plus)
    chunks = [Chunk.decode(raw, session) for raw in c.said[3][late][:-1]]
    for chunk in chunks:
        begin, end = p.chunk_range(chunk.index)
        words = c.vectors[late][begin:end].copy()
        # Sanity: with the self seed, too, the vector would be open.
        masked = words.copy()
        on.apply(masked, chunk.index)
        assert masked.tobytes() == chunk.words
        off.apply(masked, chunk.index)
        assert masked.tobytes() != words.tobytes()
    # Nobody gives a share of its self mask after that, and it signs nothing itself.
    assert len(points[late, "self"]) < p.threshold
    with pytest.raises(FaultyAggregator, match="leaves us out"):
        states[late].on_statement(without)


# -- split views of the cohort and of the dealers ------------------------------


def test_split_cohorts_do_not_meet() -> None:
    """Two halves are shown another client's keys: their boxes do not fit together."""
    session = make_session(4)
    c = Consortium(session).run(steps=1)
    # The colluder (client 3) signs a second pair of keys.
    other = Consortium(session, seed=b"other").run(steps=1)
    rows = list(c.cohort.announcements)
    rows[3] = other.cohort.announcements[3]
    second = CohortKeys(tuple(rows))
    shares, states = {}, {}
    for i, keys in enumerate((c.cohort, c.cohort, second)):
        state = c.states[i]
        assert isinstance(state, AwaitCohort)
        states[i], shares[i] = state.on_cohort(keys, random=c.deals[i])
    collector = CollectShares(session, c.cohort)
    collector.add(0, shares[0])
    with pytest.raises(ProtocolError, match="bank-2: its shares are not signed"):
        collector.add(2, shares[2])
    # A lying aggregator that forwards them anyway is found by the reader.
    lying = CollectShares(session, second)
    lying.add(2, shares[2])
    collector.add(1, shares[1])
    colluder = c.states[3]
    assert isinstance(colluder, AwaitCohort)
    collector.add(3, colluder.on_cohort(c.cohort, random=c.deals[3])[1])
    _, inboxes = collector.close()
    honest_entry = inboxes[0].entries[1]
    path = tuple(shares[2].tree()[1][0])
    forwarded = messages.InboxEntry(
        2,
        shares[2].commitment,
        shares[2].shares[0],
        path,
        shares[2].root(),
        shares[2].signature,
    )
    entries = (inboxes[0].entries[0], honest_entry, forwarded, inboxes[0].entries[2])
    reader = states[0]
    assert isinstance(reader, AwaitInbox)
    with pytest.raises(FaultyAggregator, match="bank-2 is not the one it signed"):
        reader.on_inbox(messages.Inbox(entries), c.vectors[0], claim=bytes(32))


def test_split_sets_of_dealers_do_not_agree_on_a_statement() -> None:
    """One client is given fewer boxes than the others: its vector does not fit."""
    session = make_session(5)

    def delivering(step: int, client: int, data: bytes) -> bytes:
        if (step, client) != (3, 0):
            return data
        entries = messages.Inbox.decode(data, session, reader=0).entries
        return messages.Inbox(entries[:-1]).encode(session)

    c = Consortium(session, delivering=delivering)
    opened = c.opened()
    assert opened.survivors == (1, 2, 3, 4)
    assert opened.words.tolist() == plain_sum(session, c.vectors, opened.survivors)
    assert "masked for another set" in str(c.refused[0][2])
    # And a statement about the others' set is none that it signs.
    again = Consortium(session, delivering=delivering).run(steps=3)
    state = again.states[0]
    assert isinstance(state, AwaitStatement)
    with pytest.raises(FaultyAggregator, match="another cohort"):
        state.on_statement(c.statement)


# -- what stays shut -----------------------------------------------------------


def test_colluders_below_the_threshold_learn_no_secret() -> None:
    for n, colluding in ((4, 1), (6, 2), (7, 3)):
        c, _, held = after_masking(n, max_colluding=colluding)
        assert not any(opened_secrets(c, learnt([], held)).values())


def test_closing_again_with_other_survivors_is_refused() -> None:
    """One set of vectors, one sum: the aggregator's own collector sums once."""
    c = Consortium(make_session(4)).run(steps=3)
    assert isinstance(c.collect_inputs, CollectInputs)
    with pytest.raises(SecureFLError, match="closed"):
        c.collect_inputs.close()


def test_a_round_of_three_opens_a_sum_of_three_or_nothing() -> None:
    """n = 3 with one colluding: t = 3, so that no sum of two is ever opened."""
    for dropper, step in itertools.product(range(3), (1, 2, 3)):
        with pytest.raises(TooFewClients):
            Consortium(make_session(3), sending=dropping({dropper: step})).opened()
