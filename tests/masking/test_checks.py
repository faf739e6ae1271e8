# SPDX-License-Identifier: Apache-2.0
"""Every check, one fault each: it is found, and the right party is named."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import pytest

from secure_fl.errors import (
    FaultyClient,
    ProtocolError,
    SecureFLError,
    TooFewClients,
)
from secure_fl.masking import CollectAdvertise, messages
from secure_fl.masking.messages import (
    INPUT_LABEL,
    REVEAL_LABEL,
    Advertise,
    Agreement,
    Chunk,
    MaskedInput,
    Reveal,
    SealedShares,
)

from ..consortium import (
    Consortium,
    flipped,
    make_session,
    plain_sum,
    sign_shares,
    with_field,
)
from .forging import LIAR, Lie, announce, deal, key_of


def lied_to_aggregator(
    step: int, lie: Lie, *, kind: int | None = None, word_bits: int = 32
) -> tuple[Consortium, ProtocolError]:
    """Run a round in which client 1 lies once; what the aggregator refused first.

    ``kind`` picks one of the messages of a step (chunk 5, input 6).
    """
    consortium = Consortium(make_session(4, word_bits=word_bits))

    def sending(at: int, who: int, data: bytes) -> bytes:
        if (at, who) != (step, LIAR):
            return data
        if kind is not None and messages.kind_of(data) != kind:
            return data
        return lie(consortium, data)

    consortium.sending = sending
    opened = consortium.opened()
    assert opened.words.tolist() == plain_sum(
        consortium.session, consortium.vectors, opened.survivors
    )
    assert {(at, who) for at, who, _ in consortium.refused} == {(step, LIAR)}
    return consortium, consortium.refused[0][2]


def assert_names(error: SecureFLError, client: int) -> None:
    """It names this client."""
    assert isinstance(error, FaultyClient)
    assert error.client == f"bank-{client}"


def assert_proof(error: SecureFLError, client: int) -> None:
    """It names this client, as proof."""
    assert type(error) is FaultyClient
    assert error.client == f"bank-{client}"


# -- what clients send --------------------------------------------------------


def _input(c: Consortium, data: bytes, **changes: bytes) -> bytes:
    """A signed input with fields changed, signed again by the liar."""
    message = MaskedInput.decode(data, c.session)
    message = dataclasses.replace(message, **changes)  # type: ignore[arg-type]
    cohort = messages.cohort_hash(c.session, c.cohort)
    signature = c.names[LIAR].sign(INPUT_LABEL, *message.signed(c.session, cohort))
    return dataclasses.replace(message, signature=signature).encode(c.session)


def _reveal(
    c: Consortium, data: bytes, change: Callable[[list[messages.RevealedShare]], None]
) -> bytes:
    message = Reveal.decode(data, c.session)
    rows = list(message.shares)
    change(rows)
    bare = Reveal(LIAR, tuple(rows), b"")
    signature = c.names[LIAR].sign(REVEAL_LABEL, c.session.ctx, LIAR, bare.rows())
    return dataclasses.replace(bare, signature=signature).encode(c.session)


def _dealt_without_the_last(c: Consortium, data: bytes) -> bytes:
    message = SealedShares.decode(data, c.session)
    return sign_shares(c, dataclasses.replace(message, shares=message.shares[:-1]))


def _agrees_to_another(c: Consortium, data: bytes) -> bytes:
    other = dataclasses.replace(c.statement, dealers=bytes(32))
    signature = c.names[LIAR].sign(messages.STATEMENT_LABEL, *other.signed(c.session))
    return Agreement(LIAR, signature).encode(c.session)


AGGREGATOR_CHECKS: list[tuple[str, int, int | None, Lie]] = [
    ("not signed by it", 1, None, lambda c, d: with_field(d, 5, bytes(64))),
    ("not signed by it", 1, None, lambda c, d: with_field(d, 3, bytes(31) + b"\1")),
    ("another client's name", 1, None, lambda c, d: with_field(d, 2, 0)),
    (
        "two keys are one",
        1,
        None,
        lambda c, d: announce(c, LIAR, key_of(d, 3), key_of(d, 3)),
    ),
    ("not usable", 1, None, lambda c, d: announce(c, LIAR, bytes(32), key_of(d, 4))),
    (
        "not usable",
        1,
        None,
        lambda c, d: announce(c, LIAR, key_of(d, 3), b"\1" + bytes(31)),
    ),
    # The base point's second form, p + 9: libraries take it for the first.
    (
        "not usable",
        1,
        None,
        lambda c, d: announce(c, LIAR, b"\xf6" + b"\xff" * 30 + b"\x7f", key_of(d, 4)),
    ),
    ("not signed by it", 2, None, lambda c, d: with_field(d, 5, bytes(64))),
    ("not signed by it", 2, None, lambda c, d: with_field(d, 3, bytes(32))),
    ("another set than the cohort", 2, None, _dealt_without_the_last),
    (
        "a chunk is missing",
        3,
        5,
        lambda c, d: with_field(with_field(d, 3, 1), 4, bytes(8)),
    ),
    ("do not match their root", 3, 5, lambda c, d: with_field(d, 4, bytes(_size(d)))),
    ("another client's name", 3, 6, lambda c, d: with_field(d, 2, 0)),
    ("not signed by it", 3, 6, lambda c, d: with_field(d, 3, bytes(32))),
    ("not signed by it", 3, 6, lambda c, d: with_field(d, 5, bytes(32))),
    ("do not match their root", 3, 6, lambda c, d: _input(c, d, root=bytes(32))),
    ("another set of clients", 3, 6, lambda c, d: _input(c, d, dealers=bytes(32))),
    ("signed another statement", 4, None, lambda c, d: with_field(d, 3, bytes(64))),
    ("signed another statement", 4, None, _agrees_to_another),
    ("another client's name", 4, None, lambda c, d: with_field(d, 2, 0)),
    ("not signed by it", 5, None, lambda c, d: with_field(d, 4, bytes(64))),
    (
        "for another set of clients",
        5,
        None,
        lambda c, d: _reveal(c, d, lambda rows: rows.pop() and None),
    ),
    (
        "the wrong kind of share",
        5,
        None,
        lambda c, d: _reveal(
            c,
            d,
            lambda rows: rows.__setitem__(0, dataclasses.replace(rows[0], kind="key")),
        ),
    ),
    (
        "not dealt to it",
        5,
        None,
        lambda c, d: _reveal(
            c,
            d,
            lambda rows: rows.__setitem__(
                0, dataclasses.replace(rows[0], share=flipped(rows[0].share))
            ),
        ),
    ),
    ("another client's name", 5, None, lambda c, d: with_field(d, 2, 0)),
]


def _size(data: bytes) -> int:
    return len(key_of(data, 4))


@pytest.mark.parametrize(
    ("text", "step", "kind", "lie"),
    AGGREGATOR_CHECKS,
    ids=[f"step{s}-{t}-{i}" for i, (t, s, _, _) in enumerate(AGGREGATOR_CHECKS)],
)
def test_the_aggregator_names_the_client(
    text: str, step: int, kind: int | None, lie: Lie
) -> None:
    consortium, error = lied_to_aggregator(step, lie, kind=kind)
    # A first fault may draw others after it: the last one tells why it is out.
    errors = [e for _, _, e in consortium.refused]
    assert any(text in str(e) for e in errors), [str(e) for e in errors]
    for e in errors:
        assert_names(e, LIAR)
    assert error is errors[0]


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_a_second_message_is_refused(step: int) -> None:
    consortium = Consortium(make_session(4))
    session = consortium.session

    def replay(client: int, data: bytes) -> None:
        match step:
            case 2:
                consortium.collect_shares.add(
                    client, SealedShares.decode(data, session)
                )
            case 3:
                consortium.collect_inputs.add(client, MaskedInput.decode(data, session))
            case 4:
                consortium.collect_agreements.add(
                    client, Agreement.decode(data, session)
                )
            case _:
                consortium.collect_reveals.add(client, Reveal.decode(data, session))

    caught: list[ProtocolError] = []

    def sending(at: int, who: int, data: bytes) -> bytes:
        # Client 2's message comes in when client 1's has been accepted.
        if (at, who) == (step, 2):
            with pytest.raises(ProtocolError) as info:
                replay(LIAR, consortium.said[step][LIAR][-1])
            caught.append(info.value)
        return data

    if step == 1:
        collector = CollectAdvertise(session)
        consortium.run(steps=1)
        message = Advertise.decode(consortium.said[1][LIAR][0], session)
        collector.add(LIAR, message)
        with pytest.raises(FaultyClient) as info:
            collector.add(LIAR, message)
        caught.append(info.value)
    else:
        consortium.sending = sending
        consortium.opened()
    assert caught
    for error in caught:
        assert_names(error, LIAR)
        assert "second message" in str(error)


def test_who_is_not_in_a_set_is_not_heard() -> None:
    """Clients that fell out early come back late with honest messages."""
    whole = Consortium(make_session(5)).run()
    whole.reveal()
    session = whole.session

    def without(step: int) -> Consortium:
        def sending(at: int, who: int, data: bytes) -> bytes | None:
            return None if at >= step and who == 4 else data

        return Consortium(session, sending=sending)

    late = without(1).run(steps=1)
    with pytest.raises(FaultyClient, match="bank-4: is not in the cohort"):
        late.collect_shares.add(4, SealedShares.decode(whole.said[2][4][0], session))
    late = without(2).run(steps=2)
    chunk = Chunk.decode(whole.said[3][4][0], session)
    with pytest.raises(FaultyClient, match="bank-4: has dealt no shares"):
        late.collect_inputs.add_chunk(4, chunk)
    masked = MaskedInput.decode(whole.said[3][4][-1], session)
    with pytest.raises(FaultyClient, match="bank-4: has dealt no shares"):
        late.collect_inputs.add(4, masked)
    late = without(3).run(steps=4)
    with pytest.raises(FaultyClient, match="bank-4: is not in the statement"):
        late.collect_reveals.add(4, Reveal.decode(whole.said[5][4][0], session))
    late = without(3).run(steps=3)
    with pytest.raises(FaultyClient, match="bank-4: is not in the statement"):
        late.collect_agreements.add(4, Agreement.decode(whole.said[4][4][0], session))


def test_a_padding_bit_is_refused() -> None:
    """Odd widths leave padding: a second byte form of the same words."""

    def pad(c: Consortium, data: bytes) -> bytes:
        words = key_of(data, 4)
        if len(words) * 8 == 3 * 9:
            return data
        return with_field(data, 4, words[:-1] + bytes([words[-1] | 0x80]))

    consortium, _ = lied_to_aggregator(3, pad, kind=5, word_bits=9)
    for _, _, error in consortium.refused:
        assert_names(error, LIAR)
    assert any("padding" in str(e) for _, _, e in consortium.refused)


# -- a dealer whose shares are wrong ------------------------------------------


def dealt(lie: Lie, *, silent_from: int = 9, n: int = 5) -> Consortium:
    consortium = Consortium(make_session(n))

    def sending(at: int, who: int, data: bytes) -> bytes | None:
        if who != LIAR:
            return data
        if at >= silent_from:
            return None
        return lie(consortium, data) if at == 2 else data

    consortium.sending = sending
    return consortium


def test_self_shares_that_do_not_add_up_name_their_dealer() -> None:
    # It falls silent before it would reveal, so that only others' shares count.
    consortium = dealt(lambda c, d: deal(c, beta=c.secrets(LIAR)[0] + 1), silent_from=5)
    with pytest.raises(FaultyClient, match="do not add up to its self mask") as caught:
        consortium.opened()
    assert_proof(caught.value, LIAR)


def test_key_shares_that_do_not_add_up_name_their_dealer() -> None:
    consortium = dealt(lambda c, d: deal(c, z=c.secrets(LIAR)[1] + 1), silent_from=3)
    with pytest.raises(FaultyClient, match="do not add up to its mask key") as caught:
        consortium.opened()
    assert_proof(caught.value, LIAR)


def test_a_share_that_is_no_field_element_names_its_dealer() -> None:
    def beyond(to: int, share: bytes) -> bytes:
        return share if to == LIAR else b"\xff" * 32

    consortium = dealt(lambda c, d: deal(c, committed=beyond), silent_from=5)
    with pytest.raises(FaultyClient, match="not a field element") as caught:
        consortium.opened()
    assert_proof(caught.value, LIAR)


def test_a_box_with_another_share_than_committed_names_its_dealer() -> None:
    consortium = dealt(lambda c, d: deal(c, sealed=lambda to, p: flipped(p)))
    with pytest.raises(TooFewClients):
        consortium.run(steps=3)
    assert sorted(consortium.left) == [0, 2, 3, 4]
    for error in consortium.left.values():
        assert_proof(error, LIAR)
        assert "not the one it committed to" in str(error)


@pytest.mark.parametrize(
    "box", [bytes(112), b"\x09" + bytes(111), b"\xff" * 112], ids=str
)
def test_a_box_that_does_not_open_names_its_dealer(box: bytes) -> None:
    def lie(c: Consortium, data: bytes) -> bytes:
        message = SealedShares.decode(data, c.session)
        rows = list(message.shares)
        rows[0] = dataclasses.replace(rows[0], box=box)
        return sign_shares(c, dataclasses.replace(message, shares=tuple(rows)))

    consortium = dealt(lie)
    opened = consortium.opened()
    # Only the client with the bad box is lost; the sum of the others is exact.
    assert list(consortium.left) == [0]
    assert_proof(consortium.left[0], LIAR)
    assert "do not open" in str(consortium.left[0])
    assert opened.words.tolist() == plain_sum(
        consortium.session, consortium.vectors, (1, 2, 3, 4)
    )
