# SPDX-License-Identifier: Apache-2.0
"""A key holder's refusal, which frees the updates of its context, and forgeries of it.

SPEC 6.6: no sum of the context can open after it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from secure_fl import ckks
from secure_fl.ckks.messages import (
    HOLDER_KEY_LABEL,
    INPUT_LABEL,
    KINDS,
    REFUSAL_LABEL,
    RELEASE_LABEL,
    Call,
    HolderKey,
    Input,
    Invitation,
    Refusal,
)
from secure_fl.context import kind_of
from secure_fl.errors import (
    FaultyClient,
    FaultyKeyHolder,
    ProtocolError,
)
from secure_fl.identity import Identity
from secure_fl.round import KEY_HOLDER

from ..consortium import with_field
from .forging import sealed_key
from .world import Attempt, World, of_kind


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "keyholder")
    yield made
    made.close()


# -- the refusal frees the updates -------------------------------------------------


def swapped_box(world: World, name: str, key: NDArray[np.int64]) -> Attempt:
    """An attempt in which one client seals another key than it used, and signs it."""
    invitation: list[bytes] = []

    def hook(sender: str, receiver: str, message: bytes) -> list[bytes]:
        if kind_of(message) == KINDS.INVITATION:
            invitation.append(message)
        if sender != name or kind_of(message) != KINDS.INPUT:
            return [message]
        session = world.session()
        honest = Input.decode(message, session)
        to = Invitation.decode(invitation[0], session).holder.key
        box = sealed_key(session, honest.client, honest.payload, key)(to)
        forged = dataclasses.replace(honest, key_box=box)
        signature = world.identities[name].sign(
            INPUT_LABEL, *forged.row().signed(session)
        )
        return [dataclasses.replace(forged, signature=signature).encode(session)]

    return Attempt(world, hook=hook)


@pytest.mark.parametrize("parked", [False, True])
def test_a_refusal_frees_every_update_of_its_context(
    tmp_path: Path, parked: bool
) -> None:
    world = World(tmp_path, "keyholder", parked=parked)
    n = world.session().parameters.packing.ring.degree
    attempt = swapped_box(world, "clinic-b", np.full(n, 50, np.int64))
    attempt.until("release")
    attempt.deliver()
    with pytest.raises(FaultyClient) as caught:
        attempt.a.advance()
    assert caught.value.client == "clinic-b"
    assert attempt.a.result is None
    (proof,) = attempt.a.omission
    assert Refusal.decode(proof, attempt.session).culprit == 1
    assert attempt.free() == set(world.names)
    assert all(world.states(name) == ["omitted"] for name in world.names)
    assert attempt.free() == set(), "one proof frees once"
    # The same updates go out again, under other keys and the same charge.
    kept, world.vectors = world.vectors, {n: -v for n, v in world.vectors.items()}
    again = Attempt(world, (0, 1), cuts={"clinic-b": ("vectors", 0)})
    opened = again.run()
    assert opened.survivors == ("clinic-a", "clinic-c", "clinic-d")
    world.vectors = kept
    assert world.is_exact(opened)
    assert world.states("clinic-a") == ["sent"]
    # What freed them once frees nothing of the new context.
    with pytest.raises(ProtocolError):
        world.participants["clinic-a"].release(proof)
    assert world.states("clinic-a") == ["sent"]
    world.close()


def test_a_forged_refusal_frees_nothing(world: World) -> None:
    attempt = Attempt(world, cuts={"clinic-d": ("vectors", 2)})
    attempt.run()
    session = attempt.session
    participant = world.participants["clinic-d"]
    assert world.states("clinic-d") == ["sent"]

    def signed(
        by: Identity, over: ckks.Session, culprit: int | None, label: str
    ) -> bytes:
        unsigned = Refusal(culprit, b"")
        signature = by.sign(label, *unsigned.signed(over))
        return Refusal(culprit, signature).encode(session)

    holder = world.keyholder
    genuine = signed(holder, session, None, REFUSAL_LABEL)
    forged = {
        "the aggregator's": signed(world.aggregator, session, None, REFUSAL_LABEL),
        "a client's": signed(world.identities["clinic-a"], session, 3, REFUSAL_LABEL),
        "of another attempt": signed(holder, world.session((0, 1)), 3, REFUSAL_LABEL),
        "of another round": signed(holder, world.session((1, 0)), 3, REFUSAL_LABEL),
        "another label": signed(holder, session, 3, RELEASE_LABEL),
        "another culprit": with_field(genuine, 2, 1),
        "no culprit": with_field(genuine, 2, 5),
        "another context": Refusal.decode(genuine, session).encode(
            world.session((0, 1))
        ),
        "a release": of_kind(attempt.said[KEY_HOLDER], KINDS.RELEASE)[0],
        "nothing": b"",
    }
    for name, proof in forged.items():
        with pytest.raises(ProtocolError):
            participant.release(proof)
        assert world.states("clinic-d") == ["sent"], name
    for pair in ((genuine, genuine), ()):
        with pytest.raises(ProtocolError):
            participant.release(*pair)
    # The forgeries fail for what is forged in them: the genuine one would do.
    participant.release(genuine)
    assert world.states("clinic-d") == ["omitted"]


@pytest.mark.parametrize("culprit", [None, 3])
def test_a_refusal_that_names_nobody_in_the_request(
    world: World, culprit: int | None
) -> None:
    """It is the key holder's lie, and still it frees: no sum can come after it."""
    attempt = Attempt(world, cuts={"clinic-d": ("vectors", 2)}).until("release")
    unsigned = Refusal(culprit, b"")
    signature = world.keyholder.sign(REFUSAL_LABEL, *unsigned.signed(attempt.session))
    attempt.hear(KEY_HOLDER, Refusal(culprit, signature).encode(attempt.session))
    with pytest.raises(FaultyKeyHolder, match="nobody in the request"):
        attempt.a.advance()
    assert attempt.a.result is None
    assert attempt.free() == set(world.names)


def test_a_key_holder_that_passes_the_aggregators_key_off_as_its_own(
    world: World,
) -> None:
    def echo(sender: str, receiver: str, message: bytes) -> list[bytes]:
        if kind_of(message) != KINDS.HOLDER_KEY:
            return [message]
        session = world.session()
        key = Call.decode(attempt_call[0]).key
        signature = world.keyholder.sign(HOLDER_KEY_LABEL, session.ctx, key)
        return [HolderKey(key, signature).encode(session)]

    attempt = Attempt(world, hook=echo)
    attempt_call = [attempt.a.outgoing[KEY_HOLDER]]
    with pytest.raises(FaultyKeyHolder):
        attempt.step()
    assert isinstance(attempt.refused[KEY_HOLDER], FaultyKeyHolder)
    assert not attempt.left, "no client is asked to seal both to one key"


def test_a_refusal_after_the_fact_is_a_second_answer(world: World) -> None:
    """A key holder that released, and then says it refused, frees nobody."""
    attempt = Attempt(world).until("release")
    attempt.deliver()
    session = attempt.session
    unsigned = Refusal(1, b"")
    signature = world.keyholder.sign(REFUSAL_LABEL, *unsigned.signed(session))
    attempt.hear(KEY_HOLDER, Refusal(1, signature).encode(session))
    assert KEY_HOLDER in attempt.refused
    assert attempt.a.omission == ()
    attempt.a.advance()
    assert attempt.a.result is not None
    assert world.is_exact(attempt.a.result)
