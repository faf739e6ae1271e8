# SPDX-License-Identifier: Apache-2.0
"""Any bytes: accepted or ProtocolError, nothing else, and nobody else is disturbed."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl import wire
from secure_fl.errors import ProtocolError, SecureFLError, StateReused
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

# Ten kinds of message, each mutated this often: ten thousand in all.
PER_KIND = 1000
WHO = 1

DECODERS: dict[int, Callable[[bytes, Session], object]] = {
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


def recorded() -> tuple[Consortium, dict[int, bytes]]:
    """One good message of each kind."""
    c = Consortium(make_session(4)).run()
    c.reveal()
    found: dict[int, bytes] = {}
    for step in range(1, 6):
        for data in (*c.said[step][WHO], *(c.told[step].get(i, b"") for i in (WHO,))):
            if data:
                found.setdefault(messages.kind_of(data), data)
    assert sorted(found) == list(range(1, 11))
    return c, found


def _bytewise(data: bytes, draw: random.Random) -> bytes:
    at = draw.randrange(len(data))
    match draw.randrange(6):
        case 0:
            return (
                data[:at] + bytes([data[at] ^ 1 << draw.randrange(8)]) + data[at + 1 :]
            )
        case 1:
            return data[:at]
        case 2:
            return data[:at] + data[at + 1 :]
        case 3:
            return data[:at] + draw.randbytes(draw.randrange(1, 5)) + data[at:]
        case 4:
            return data + data[at:]
        case _:
            end = min(len(data), at + draw.randrange(1, 40))
            return data[:at] + draw.randbytes(end - at) + data[end:]


_ODD: list[wire.Value] = [
    -1, 0, 1, 23, 24, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), b"", bytes(32), bytes(33),
    bytes(64), "", "text", [], [[]], [0], {}, {0: 1}, [[0, b""]], [bytes(32)] * 3,
]  # fmt: skip


def _treewise(value: wire.Value, draw: random.Random) -> wire.Value:
    """The same tree with one node changed: well-formed, and of another shape."""
    if draw.random() < 0.25:
        return draw.choice(_ODD)
    if isinstance(value, dict) and value:
        key = draw.choice(list(value))
        match draw.randrange(4):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return {**value, draw.randrange(24): draw.choice(_ODD)}
            case _:
                return {**value, key: _treewise(value[key], draw)}
    if isinstance(value, list) and value:
        at = draw.randrange(len(value))
        match draw.randrange(5):
            case 0:
                return value[:at] + value[at + 1 :]
            case 1:
                return [*value, value[at]]
            case 2:
                return value[::-1]
            case _:
                return [*value[:at], _treewise(value[at], draw), *value[at + 1 :]]
    if isinstance(value, bytes) and value:
        return _bytewise(value, draw)
    if isinstance(value, int):
        return value + draw.choice([-1, 1, 2**31])
    return draw.choice(_ODD)


def mutants(data: bytes, count: int, seed: int) -> Iterator[bytes]:
    """``count`` messages that are not ``data``: half by bytes, half by structure."""
    draw = random.Random(seed)
    tree = wire.decode(data)
    while count:
        if draw.random() < 0.5:
            out = _bytewise(data, draw)
        else:
            changed = _treewise(tree, draw)
            if isinstance(changed, dict) and draw.random() < 0.8:
                # Keep kind and context, so that the body is reached.
                assert isinstance(tree, dict)
                changed = {**changed, 0: tree[0], 1: tree[1]}
            out = wire.encode(changed)
        if out != data:
            count -= 1
            yield out


def test_every_decoder_accepts_or_refuses() -> None:
    c, good = recorded()
    accepted = 0
    for kind, data in good.items():
        for n, mutant in enumerate(mutants(data, PER_KIND, seed=kind)):
            for decoder in {kind, 1 + n % 10}:
                try:
                    out = DECODERS[decoder](mutant, c.session)
                except ProtocolError:
                    continue
                accepted += 1
                # What is accepted has one byte form.
                encode = getattr(out, "encode")  # noqa: B009
                assert encode(c.session) == mutant
    # Changed keys, hashes and signatures are well formed; adders refuse them.
    assert accepted > 500


def test_the_aggregator_survives_ten_thousand_bad_messages_per_round() -> None:
    """Client 1 sends each message mutated many times, then once as it should be."""
    session = make_session(4)
    c = Consortium(session)
    tried = 0

    def offer(step: int, who: int, raw: bytes) -> None:
        match step:
            case 1:
                message = messages.Advertise.decode(raw, session)
                CollectAdvertise(session).add(who, message)
            case 2:
                c.collect_shares.add(who, messages.SealedShares.decode(raw, session))
            case 3:
                c.collect_inputs.add(who, messages.MaskedInput.decode(raw, session))
            case 4:
                c.collect_agreements.add(who, messages.Agreement.decode(raw, session))
            case _:
                c.collect_reveals.add(who, messages.Reveal.decode(raw, session))

    def sending(step: int, who: int, data: bytes) -> bytes:
        nonlocal tried
        # A chunk is vouched for by its root only: a well-formed one is taken.
        if who == WHO and messages.kind_of(data) != 5:
            for mutant in mutants(data, 2 * PER_KIND, seed=step):
                tried += 1
                with pytest.raises(ProtocolError):
                    offer(step, who, mutant)
        return data

    c.sending = sending
    opened = c.opened()
    assert tried == 10 * PER_KIND
    assert opened.survivors == (0, 1, 2, 3)
    assert opened.words.tolist() == plain_sum(session, c.vectors, range(4))


def test_bad_chunks_cost_only_their_sender() -> None:
    session = make_session(4, length=9, word_bits=13)
    c = Consortium(session)

    def sending(step: int, who: int, data: bytes) -> bytes:
        if who == WHO and messages.kind_of(data) == 5:
            for mutant in mutants(data, PER_KIND // 3, seed=5):
                try:
                    chunk = messages.Chunk.decode(mutant, session)
                    c.collect_inputs.add_chunk(who, chunk)
                except ProtocolError:
                    continue
        return data

    c.sending = sending
    opened = c.opened()
    assert opened.survivors == (0, 2, 3)
    assert opened.words.tolist() == plain_sum(session, c.vectors, (0, 2, 3))


@pytest.mark.parametrize("step", [1, 2, 3, 4])
def test_a_client_accepts_or_refuses(step: int) -> None:
    """A fresh state for each mutant, as only a test may have."""
    c = Consortium(make_session(4)).run(steps=step)
    session, told = c.session, c.outgoing[WHO]
    parked = c.states[WHO].park()
    for mutant in mutants(told, PER_KIND // 2, seed=step):
        state = unpark(session, c.names[WHO], parked)
        try:
            match state:
                case AwaitCohort():
                    keys = messages.CohortKeys.decode(mutant, session)
                    state.on_cohort(keys, random=b"r" * 32)
                case AwaitInbox():
                    inbox = messages.Inbox.decode(mutant, session, reader=WHO)
                    state.on_inbox(inbox, c.vectors[WHO], claim=CLAIM)
                case AwaitStatement():
                    state.on_statement(messages.Statement.decode(mutant, session))
                case AwaitSignatures():
                    state.on_signatures(messages.Signatures.decode(mutant, session))
        except ProtocolError:
            continue


def test_random_bytes_are_refused() -> None:
    draw = random.Random(0)
    session = make_session(3)
    for _ in range(3000):
        data = draw.randbytes(draw.randrange(0, 80))
        with pytest.raises(ProtocolError):
            DECODERS[draw.randrange(1, 11)](data, session)
        try:
            messages.kind_of(data)
        except ProtocolError:
            continue


_trees = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=70) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.integers(0, 23), inner, max_size=6)
    ),
    max_leaves=12,
)


@given(st.integers(1, 10), st.dictionaries(st.integers(2, 9), _trees, max_size=6))
def test_well_formed_maps_of_any_content_are_refused(
    kind: int, body: dict[int, wire.Value]
) -> None:
    session = make_session(3)
    data = wire.encode({0: kind, 1: session.ctx, **body})
    try:
        out = DECODERS[kind](data, session)
    except ProtocolError:
        return
    # An empty list of rows is well formed, and what it decodes to is itself.
    encode = getattr(out, "encode")  # noqa: B009
    assert encode(session) == data


def test_only_protocol_errors_are_told_to_peers() -> None:
    assert issubclass(ProtocolError, SecureFLError)
    assert not issubclass(StateReused, ProtocolError)
