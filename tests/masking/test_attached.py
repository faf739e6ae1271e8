# SPDX-License-Identifier: Apache-2.0
"""The attached seed (SPEC 4.2): client and aggregator make one, of survivors only.

It opens what a client sends beside its vector, so it must not come out earlier, or for
anybody else, than the client's vector comes into the sum.
"""

from __future__ import annotations

import dataclasses

import pytest

from secure_fl import wire
from secure_fl.errors import FaultyClient, TooFewClients
from secure_fl.masking import AwaitInbox, messages

from ..consortium import CLAIM, Consortium, dropping, make_session
from ..vectors import reference
from .faults import at
from .plain_crypto import hkdf


def with_dropouts(drops: dict[int, int]) -> Consortium:
    return Consortium(make_session(8, threshold=5), sending=dropping(drops))


def exchanged(c: Consortium) -> list[bytes]:
    """Every message that anybody sent."""
    said = [d for step in c.said.values() for sent in step.values() for d in sent]
    return [*said, *(d for step in c.told.values() for d in step.values())]


def test_survivors_seeds_come_out_and_nobody_elses() -> None:
    """6 is gone before its upload, 5 in the midst of it, 4 after it."""
    c = with_dropouts({6: 2, 5: 3, 4: 4})
    opened = c.opened()
    assert opened.survivors == (0, 1, 2, 3, 4, 7)
    assert opened.attached_seeds == {i: c.seeds[i] for i in opened.survivors}
    assert set(c.seeds) == {*opened.survivors, 5}, "5 had one that never came out"
    assert len(set(c.seeds.values())) == len(c.seeds)


@pytest.mark.parametrize("step", [1, 2, 3, 4, 5])
def test_in_whatever_step_two_fall_silent(step: int) -> None:
    c = with_dropouts({2: step, 6: step})
    opened = c.opened()
    out = set() if step > 3 else {2, 6}
    assert opened.attached_seeds == {i: c.seeds[i] for i in set(range(8)) - out}
    assert set(opened.survivors) == set(opened.attached_seeds)


def test_no_message_of_the_protocol_holds_a_seed() -> None:
    """Also not where nothing opens: then it stays with its client."""
    for drops in ({5: 3, 4: 4}, dict.fromkeys(range(4), 5)):
        c = with_dropouts(drops).run()
        if len(drops) < 4:
            c.reveal()
        else:
            with pytest.raises(TooFewClients):
                c.reveal()
        everything = exchanged(c)
        assert len(everything) > 50
        assert len(c.seeds) == 8
        for seed in c.seeds.values():
            assert not any(seed in data for data in everything)


def test_the_seed_is_the_specifications() -> None:
    """HKDF of beta in the context under a label of its own, in plain Python."""
    c = Consortium(make_session(4))
    opened = c.opened()
    info = wire.encode(["secure-fl/masking/1 attached"])
    for client in range(4):
        beta = reference.le32(c.secrets(client)[0])
        _, seed = hkdf(beta, c.session.ctx, info, 32)
        assert opened.attached_seeds[client] == c.seeds[client] == seed
        # The aggregator takes self masks off with that one; they have no relation.
        assert seed != reference.derive(c.session.ctx, beta, "self mask")


def test_the_same_element_gives_another_seed_in_another_context() -> None:
    first, retry = (make_session(4, attempt=a).ctx for a in (0, 1))
    c = Consortium(make_session(4))
    c.opened()
    for client, seed in c.seeds.items():
        beta = reference.le32(c.secrets(client)[0])
        assert reference.derive(first, beta, "attached") == seed
        assert reference.derive(retry, beta, "attached") != seed


def test_a_payload_is_bound_after_its_seed_was_handed_out() -> None:
    """Its hash is signed with the vector, and stands in the statement."""
    c, state, told = at(2)
    session, payload = c.session, bytes(range(32))
    assert isinstance(state, AwaitInbox)
    inbox = messages.Inbox.decode(told, session, reader=0)
    uploading = state.on_inbox(inbox, c.vectors[0], claim=CLAIM)
    seed = uploading.attached_seed
    for chunk in uploading.chunks():
        c.collect_inputs.add_chunk(0, chunk)
    after, masked = uploading.finish(attached=payload)
    for other in (b"", bytes(32)):
        with pytest.raises(FaultyClient, match="not signed"):
            c.collect_inputs.add(0, dataclasses.replace(masked, attached=other))
    c.collect_inputs.add(0, masked)
    del c.states[0]
    c.upload()
    stated = {s.client: s.attached for s in c.statement.survivors}
    assert stated == {0: payload, 1: b"", 2: b"", 3: b""}
    c.states[0] = after
    c.outgoing[0] = c.outgoing[1]
    c.agree()
    assert c.reveal().attached_seeds == {**c.seeds, 0: seed}
