# SPDX-License-Identifier: Apache-2.0
"""Every check a client makes of what the aggregator hands it, one fault each."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, TypeVar

import pytest

from secure_fl.errors import (
    FaultyAggregator,
    FaultyClient,
    FaultyClientOrAggregator,
    ProtocolError,
    SecureFLError,
    TooFewClients,
)
from secure_fl.masking import CollectAdvertise, CollectShares, messages, start
from secure_fl.masking.checks import check_agreements, check_cohort
from secure_fl.masking.client import AwaitCohort
from secure_fl.masking.messages import (
    Advertise,
    Agreement,
    CohortKeys,
    Inbox,
    InboxEntry,
    KeyAnnouncement,
    SealedShares,
    Signatures,
    Statement,
    Survivor,
)

from ..consortium import (
    Consortium,
    make_session,
    plain_sum,
    sign_shares,
    with_field,
)
from .forging import LIAR, Lie, announce

VICTIM = 0
T = TypeVar("T")


def told(step: int, lie: Lie) -> SecureFLError:
    """The aggregator lies to one client at one step: how that client ends.

    The others are told the truth, finish, and open the exact sum.
    """
    consortium = Consortium(make_session(4))

    def delivering(at: int, who: int, data: bytes) -> bytes:
        return lie(consortium, data) if (at, who) == (step, VICTIM) else data

    consortium.delivering = delivering
    opened = consortium.opened()
    assert opened.words.tolist() == plain_sum(
        consortium.session, consortium.vectors, opened.survivors
    )
    assert list(consortium.left) == [VICTIM]
    return consortium.left[VICTIM]


def edited(rows: tuple[T, ...], at: int, row: T | None) -> tuple[T, ...]:
    """``rows`` with one replaced, or left out."""
    middle = () if row is None else (row,)
    return (*rows[:at], *middle, *rows[at + 1 :])


def cohort(at: int, change: Callable[[KeyAnnouncement], KeyAnnouncement | None]) -> Lie:
    def lie(c: Consortium, data: bytes) -> bytes:
        rows = CohortKeys.decode(data, c.session).announcements
        return CohortKeys(edited(rows, at, change(rows[at]))).encode(c.session)

    return lie


def inbox(at: int, change: Callable[[InboxEntry], InboxEntry | None]) -> Lie:
    def lie(c: Consortium, data: bytes) -> bytes:
        rows = Inbox.decode(data, c.session, reader=VICTIM).entries
        return Inbox(edited(rows, at, change(rows[at]))).encode(c.session)

    return lie


def statement(at: int, change: Callable[[Survivor], Survivor | None]) -> Lie:
    def lie(c: Consortium, data: bytes) -> bytes:
        whole = Statement.decode(data, c.session)
        rows = edited(whole.survivors, at, change(whole.survivors[at]))
        return dataclasses.replace(whole, survivors=rows).encode(c.session)

    return lie


def signatures(at: int, change: Callable[[Agreement], Agreement | None]) -> Lie:
    def lie(c: Consortium, data: bytes) -> bytes:
        rows = Signatures.decode(data, c.session).agreements
        return Signatures(edited(rows, at, change(rows[at]))).encode(c.session)

    return lie


def to(**changes: Any) -> Callable[[Any], Any]:
    """Replace fields of a row."""
    return lambda row: dataclasses.replace(row, **changes)


def gone(row: object) -> None:
    """Leave a row out."""


def share_to(**changes: Any) -> Callable[[InboxEntry], InboxEntry]:
    return lambda e: dataclasses.replace(
        e, share=dataclasses.replace(e.share, **changes)
    )


def swapped(a: KeyAnnouncement) -> KeyAnnouncement:
    return dataclasses.replace(a, seal_key=a.mask_key, mask_key=a.seal_key)


LIES: list[tuple[int, str, Lie]] = [
    (2, "not signed by it", cohort(2, to(signature=bytes(64)))),
    (2, "not signed by it", cohort(2, to(mask_key=b"\x09" + bytes(31)))),
    (2, "not signed by it", cohort(2, swapped)),
    (2, "missing or replaced", cohort(0, gone)),
    (3, "our own shares are missing", inbox(0, gone)),
    (3, "not the one it signed", inbox(2, share_to(box=bytes(112)))),
    (3, "not the one it signed", inbox(2, share_to(self_commitment=bytes(32)))),
    (3, "not the one it signed", inbox(2, share_to(key_commitment=bytes(32)))),
    (3, "not the one it signed", inbox(2, to(commitment=bytes(32)))),
    (3, "not the one it signed", inbox(2, to(path=()))),
    (3, "not the one it signed", inbox(2, to(path=(bytes(32),) * 3))),
    (3, "not the one it signed", inbox(2, to(root=bytes(32)))),
    (3, "not the one it signed", inbox(2, to(signature=bytes(64)))),
    (3, "not the one it signed", inbox(0, to(signature=bytes(64)))),
    (4, "another cohort", lambda c, d: with_field(d, 2, bytes(32))),
    (4, "another cohort", lambda c, d: with_field(d, 3, bytes(32))),
    (4, "leaves us out", statement(0, gone)),
    (4, "another vector for us", statement(0, to(root=bytes(32)))),
    (4, "another vector for us", statement(0, to(claim=bytes(32)))),
    (4, "another vector for us", statement(0, to(attached=bytes(32)))),
    (5, "does not hold", signatures(2, to(signature=bytes(64)))),
    (5, "does not hold", signatures(0, to(signature=bytes(64)))),
]


@pytest.mark.parametrize(
    ("step", "text", "lie"),
    LIES,
    ids=[f"{s}-{t}-{i}" for i, (s, t, _) in enumerate(LIES)],
)
def test_only_the_aggregator_can_have_done_it(step: int, text: str, lie: Lie) -> None:
    error = told(step, lie)
    assert type(error) is FaultyAggregator
    assert text in str(error)


@pytest.mark.parametrize("step", [2, 3, 4, 5])
def test_fewer_than_needed_are_refused(step: int) -> None:
    """The client counts for itself, whatever the aggregator says (n = 4: t = 3)."""
    lie = {2: cohort, 3: inbox, 4: statement, 5: signatures}[step]

    def two(c: Consortium, data: bytes) -> bytes:
        return lie(2, gone)(c, lie(3, gone)(c, data))

    error = told(step, two)
    assert type(error) is TooFewClients
    assert (error.alive, error.needed) == (2, 3)


def test_a_client_without_shares_in_the_statement_is_refused() -> None:
    """Client 4 dealt nothing; the aggregator says it is in."""
    consortium = Consortium(make_session(5))

    def sending(at: int, who: int, data: bytes) -> bytes | None:
        return None if who == 4 and at >= 2 else data

    def delivering(at: int, who: int, data: bytes) -> bytes:
        if at != 4:
            return data
        whole = Statement.decode(data, consortium.session)
        more = (*whole.survivors, dataclasses.replace(whole.survivors[0], client=4))
        return dataclasses.replace(whole, survivors=more).encode(consortium.session)

    consortium.sending, consortium.delivering = sending, delivering
    with pytest.raises(TooFewClients):
        consortium.opened()
    for error in consortium.left.values():
        assert type(error) is FaultyAggregator
        assert "names a client without shares" in str(error)


def test_a_box_from_outside_the_cohort_is_refused() -> None:
    """A box of a client that the reader was not told of in step 1."""
    session = make_session(5)
    whole = Consortium(session).run()
    consortium = Consortium(session, sending=lambda at, who, d: None if who == 4 else d)
    extra = Inbox.decode(whole.told[3][0], session, reader=0).entries[4]

    def delivering(at: int, who: int, data: bytes) -> bytes:
        if (at, who) != (3, 0):
            return data
        entries = Inbox.decode(data, session, reader=0).entries
        return Inbox((*entries, extra)).encode(session)

    consortium.delivering = delivering
    with pytest.raises(TooFewClients):
        consortium.opened()
    assert type(consortium.left[0]) is FaultyAggregator
    assert "outside the cohort" in str(consortium.left[0])


def test_a_signature_from_outside_the_statement_is_refused() -> None:
    """Client 4 dealt and masked, but is not in; its signature does not count."""
    session = make_session(5)
    consortium = Consortium(session)

    def sending(at: int, who: int, data: bytes) -> bytes | None:
        return None if who == 4 and at >= 3 else data

    def delivering(at: int, who: int, data: bytes) -> bytes:
        if at != 5:
            return data
        outside = Agreement(
            4,
            consortium.names[4].sign(
                messages.STATEMENT_LABEL, *consortium.statement.signed(session)
            ),
        )
        rows = Signatures.decode(data, session).agreements
        return Signatures((*rows, outside)).encode(session)

    consortium.sending, consortium.delivering = sending, delivering
    with pytest.raises(TooFewClients):
        consortium.opened()
    assert sorted(consortium.left) == [0, 1, 2, 3]
    for error in consortium.left.values():
        assert type(error) is FaultyAggregator
        assert "outside the statement" in str(error)


# -- keys: what an aggregator that colludes with a client lets through --------


def announcements(c: Consortium) -> list[KeyAnnouncement]:
    return list(c.cohort.announcements)


def replaced(c: Consortium, client: int, data: bytes) -> CohortKeys:
    """The cohort with one client's announcement replaced by its other one."""
    rows = announcements(c)
    rows[client] = Advertise.decode(data, c.session).announcement
    return CohortKeys(tuple(rows))


@pytest.mark.parametrize("copier", [LIAR, 3])
def test_a_copied_key_is_let_through_and_useless(copier: int) -> None:
    """A rule against copies would name the owner of a key that somebody copied first;
    without one the copier cannot open its boxes, and its shares do not add up."""
    c = Consortium(make_session(4)).run(steps=1)
    rows = announcements(c)
    keys = replaced(c, copier, announce(c, copier, rows[2].seal_key, rows[2].mask_key))
    check_cohort(c.session, keys)


def test_one_key_for_both_purposes_names_its_client() -> None:
    c = Consortium(make_session(4)).run(steps=1)
    rows = announcements(c)
    keys = replaced(c, LIAR, announce(c, LIAR, rows[1].mask_key, rows[1].mask_key))
    with pytest.raises(FaultyClient, match="bank-1: its two keys are one"):
        check_cohort(c.session, keys)


def test_an_overtaken_announcement_is_not_its_owners_fault() -> None:
    c = Consortium(make_session(4)).run(steps=1)
    rows = announcements(c)
    copy = announce(c, LIAR, rows[2].seal_key, rows[1].mask_key)
    collector = CollectAdvertise(c.session)
    collector.add(LIAR, Advertise.decode(copy, c.session))
    proof: FaultyClient | None = None
    try:
        collector.add(2, Advertise(rows[2]))
    except FaultyClientOrAggregator:
        pass
    except FaultyClient as error:
        proof = error
    assert proof is None


@pytest.mark.parametrize("low", [bytes(32), b"\1" + bytes(31)])
def test_a_low_order_sealing_key_names_its_client(low: bytes) -> None:
    c = Consortium(make_session(4)).run(steps=1)
    rows = announcements(c)
    keys = replaced(c, LIAR, announce(c, LIAR, low, rows[LIAR].mask_key))
    state = c.states[0]
    assert isinstance(state, AwaitCohort)
    with pytest.raises(FaultyClient, match="bank-1: its sealing key") as caught:
        state.on_cohort(keys, random=b"r" * 32)
    assert type(caught.value) is FaultyClient


def test_a_low_order_mask_key_names_its_client() -> None:
    """All are shown the bad key, so that the cohort is one; step 3 finds it."""
    session = make_session(4)
    c = Consortium(session).run(steps=1)
    seal_key = announcements(c)[LIAR].seal_key
    keys = replaced(c, LIAR, announce(c, LIAR, seal_key, bytes(32)))
    shares = {}
    states = {}
    for i in (0, 2, 3):
        state = c.states[i]
        assert isinstance(state, AwaitCohort)
        states[i], shares[i] = state.on_cohort(keys, random=c.deals[i])
    # The liar's own boxes over this cohort: its key is its identity's to sign.
    c.cohort = keys
    liars = Consortium(session).run(steps=2)
    rows = SealedShares.decode(liars.said[2][LIAR][0], session)
    shares[LIAR] = SealedShares.decode(sign_shares(c, rows), session)
    collector = CollectShares(session, keys)
    for i in range(4):
        collector.add(i, shares[i])
    _, inboxes = collector.close()
    entries = tuple(e for e in inboxes[0].entries)
    with pytest.raises(FaultyClient, match="bank-1") as caught:
        states[0].on_inbox(Inbox(entries), c.vectors[0], claim=bytes(32))
    assert type(caught.value) is FaultyClient


# -- messages that never were bytes -------------------------------------------


def test_one_signature_counts_once() -> None:
    c = Consortium(make_session(4)).run(steps=4)
    one = c.signatures.agreements[0]
    with pytest.raises((ProtocolError, TooFewClients)):
        check_agreements(c.session, c.statement, Signatures((one,) * 3))


def test_one_signature_on_the_wire_counts_once() -> None:
    c = Consortium(make_session(4)).run(steps=4)
    one = c.signatures.agreements[0]
    data = Signatures((one,) * 3).encode(c.session)
    with pytest.raises(ProtocolError, match="ascending"):
        Signatures.decode(data, c.session)


def test_start_refuses_nothing_it_signed_itself() -> None:
    """What ``start`` announces passes the check that readers make."""
    session = make_session(3)
    c = Consortium(session)
    rows = tuple(
        start(session, c.names[i], random=c.starts[i])[1].announcement for i in range(3)
    )
    check_cohort(session, CohortKeys(rows))
