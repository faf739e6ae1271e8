# SPDX-License-Identifier: Apache-2.0
"""What a client checks before anything of its update leaves (SPEC 7.2, 4.4).

It is asked with something else than the others are: it leaves, naming the aggregator,
its update stays its own, and the others' round is exact.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from secure_fl import ckks, keys
from secure_fl.ckks.messages import (
    AGGREGATOR_KEY_LABEL,
    HOLDER_KEY_LABEL,
    KINDS,
    HolderKey,
    Invitation,
)
from secure_fl.errors import FaultyAggregator, ProtocolError, TooFewClients, UsageError
from secure_fl.identity import Identity
from secure_fl.model import GlobalModel

from ..consortium import with_field
from ..participants import RANDOM
from .world import BOTH, Attempt, World, is_kind

VICTIM = "clinic-c"


@pytest.fixture
def held(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "keyholder")
    yield made
    made.close()


@pytest.fixture(params=BOTH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, request.param)
    yield made
    made.close()


def new_key() -> bytes:
    return keys.public_key(keys.private_key(RANDOM.bytes(32)))


@dataclasses.dataclass(frozen=True)
class Keys:
    """Of an invitation: the two keys, by whom and over which context each is signed."""

    world: World
    session: ckks.Session
    holder: bytes
    aggregator: bytes

    def invitation(
        self,
        *,
        holder: bytes | None = None,
        aggregator: bytes | None = None,
        holder_by: Identity | None = None,
        aggregator_by: Identity | None = None,
        over: ckks.Session | None = None,
        labels: tuple[str, str] = (HOLDER_KEY_LABEL, AGGREGATOR_KEY_LABEL),
    ) -> bytes:
        """Genuine but for what is given."""
        ctx = (over or self.session).ctx
        holder, aggregator = holder or self.holder, aggregator or self.aggregator
        by_holder = (holder_by or self.world.keyholder).sign(labels[0], ctx, holder)
        by = (aggregator_by or self.world.aggregator).sign(labels[1], ctx, aggregator)
        message = Invitation(HolderKey(holder, by_holder), aggregator, by)
        return message.encode(self.session)


UNUSABLE = (bytes(32), b"\1" + bytes(31), keys.PRIME.to_bytes(32, "little"))

# Each breaks what its number says, and nothing else.
I1: dict[str, Callable[[Keys], bytes]] = {
    "signed by the aggregator": lambda k: k.invitation(holder_by=k.world.aggregator),
    "signed by a client": lambda k: k.invitation(
        holder_by=k.world.identities["clinic-a"]
    ),
    "signed by nobody": lambda k: with_field(k.invitation(), 3, bytes(64)),
    "another key": lambda k: with_field(k.invitation(), 2, new_key()),
}
I2: dict[str, Callable[[Keys], bytes]] = {
    "signed by the key holder": lambda k: k.invitation(aggregator_by=k.world.keyholder),
    "signed by the client itself": lambda k: k.invitation(
        aggregator_by=k.world.identities[VICTIM]
    ),
    "signed by nobody": lambda k: with_field(k.invitation(), 5, bytes(64)),
    "another key": lambda k: with_field(k.invitation(), 4, new_key()),
    "signed as a holder key": lambda k: k.invitation(
        labels=(HOLDER_KEY_LABEL, HOLDER_KEY_LABEL)
    ),
}
BOTH_SIGNATURES: dict[str, Callable[[Keys], bytes]] = {
    "of another attempt": lambda k: k.invitation(over=k.world.session((0, 1))),
    "of another round": lambda k: k.invitation(over=k.world.session((1, 0))),
    "changed places": lambda k: k.invitation(
        holder_by=k.world.aggregator, aggregator_by=k.world.keyholder
    ),
}
I3: dict[str, Callable[[Keys], bytes]] = {
    **{
        f"holder key {i}": lambda k, bad=bad: k.invitation(  # type: ignore[misc]
            holder=bad
        )
        for i, bad in enumerate(UNUSABLE)
    },
    **{
        f"aggregator key {i}": lambda k, bad=bad: k.invitation(  # type: ignore[misc]
            aggregator=bad
        )
        for i, bad in enumerate(UNUSABLE)
    },
    "one key": lambda k: k.invitation(holder=k.aggregator),
    "one key of the holder": lambda k: k.invitation(aggregator=k.holder),
}
CASES = [
    *(("I1", name, make) for name, make in I1.items()),
    *(("I2", name, make) for name, make in I2.items()),
    *(("both", name, make) for name, make in BOTH_SIGNATURES.items()),
    *(("I3", name, make) for name, make in I3.items()),
]


def keys_of(world: World, genuine: bytes) -> Keys:
    session = world.session()
    message = Invitation.decode(genuine, session)
    return Keys(world, session, message.holder.key, message.key)


@pytest.mark.parametrize(
    ("check", "make"),
    [(c, m) for c, _, m in CASES],
    ids=[f"{c} {n}" for c, n, _ in CASES],
)
def test_an_invitation_that_does_not_hold(
    held: World, check: str, make: Callable[[Keys], bytes]
) -> None:
    def hook(sender: str, receiver: str, message: bytes) -> list[bytes]:
        if receiver == VICTIM and is_kind(message, KINDS.INVITATION):
            return [make(keys_of(held, message))]
        return [message]

    attempt = Attempt(held, hook=hook)
    opened = attempt.run()
    assert opened.survivors == tuple(n for n in held.names if n != VICTIM)
    assert held.is_exact(opened)
    error = attempt.left[VICTIM]
    assert type(error) is FaultyAggregator
    assert ("not usable" in str(error) or "are one" in str(error)) == (check == "I3")
    assert held.states(VICTIM) == ["reserved"], "nothing left"
    assert VICTIM not in attempt.said


def test_the_forger_makes_invitations_that_hold(held: World) -> None:
    """The control: with nothing changed the client answers."""

    def hook(sender: str, receiver: str, message: bytes) -> list[bytes]:
        if receiver == VICTIM and is_kind(message, KINDS.INVITATION):
            again = keys_of(held, message).invitation()
            assert again == message
            return [again]
        return [message]

    assert Attempt(held, hook=hook).run().survivors == held.names


def test_what_is_no_invitation_of_this_context(held: World) -> None:
    """Each ends the attempt for the client, and none gets anything of it."""
    pair = new_key(), new_key()
    wrong: dict[str, Callable[[bytes], bytes]] = {
        "nothing": lambda m: b"",
        "no message": lambda m: b"\xff" * 100,
        "cut": lambda m: m[:-1],
        "longer": lambda m: m + b"\0",
        "another context": lambda m: with_field(m, 1, bytes(32)),
        "another kind": lambda m: with_field(m, 0, KINDS.CALL),
        "a field more": lambda m: with_field(m, 6, 0),
        "masking's": lambda m: with_field(m, 0, 4),
    }
    victim = held.participants[VICTIM]
    for index, (name, change) in enumerate(wrong.items()):
        place = divmod(index, 4)
        victim.open(*place, held.model)
        if victim.needs_update:
            held.offer(VICTIM)
        genuine = Keys(held, held.session(place), *pair).invitation()
        pieces: list[bytes] = []
        with pytest.raises(ProtocolError):
            pieces.extend(victim.handle(change(genuine)))
        # Its state was spent on that: what is genuine comes too late.
        with pytest.raises(FaultyAggregator, match="out of order"):
            pieces.extend(victim.handle(genuine))
        assert not pieces, name
        assert "sent" not in held.states(VICTIM)
    victim.open(2, 0, held.model)
    held.offer(VICTIM)
    assert list(victim.handle(Keys(held, held.session((2, 0)), *pair).invitation()))


def other_model(world: World) -> GlobalModel:
    return GlobalModel({"head": np.ones((3, 3000), np.float32)})


def test_a_client_that_is_shown_another_model(world: World) -> None:
    """It computes another context: nothing of it fits, and nothing of it leaves."""
    victim = world.participants[VICTIM]
    shown = victim.open

    def opens(round_index: int, attempt: int, model: GlobalModel) -> list[bytes]:
        return shown(round_index, attempt, other_model(world))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(victim, "open", opens)
        attempt = Attempt(world)
        opened = attempt.run()
    assert opened.survivors == tuple(n for n in world.names if n != VICTIM)
    assert world.is_exact(opened)
    assert not attempt.refused
    assert VICTIM not in attempt.said
    assert "sent" not in world.states(VICTIM)
    if world.keys == "keyholder":
        assert isinstance(attempt.left[VICTIM], ProtocolError)


def test_a_client_of_another_run(world: World, tmp_path: Path) -> None:
    """The same plan under another run id: its messages are let go."""
    other = world.instance()
    world.participants[VICTIM] = world.participant(VICTIM, other)
    attempt = Attempt(world)
    opened = attempt.run()
    assert opened.survivors == tuple(n for n in world.names if n != VICTIM)
    assert world.is_exact(opened)
    assert VICTIM not in attempt.said


def test_too_few_are_asked_for_nothing(world: World) -> None:
    """All but two see another model: nobody's update is spent."""
    with pytest.MonkeyPatch.context() as patch:
        for name in world.names[:2]:
            participant = world.participants[name]
            shown = participant.open
            patch.setattr(
                participant,
                "open",
                lambda r, a, model, shown=shown: shown(r, a, other_model(world)),
            )
        with pytest.raises(TooFewClients):
            Attempt(world).run()
    sent = [n for n in world.names if "sent" in world.states(n)]
    # With a key holder the aggregator asks everyone at once: those two have answered.
    assert sent == ([] if world.keys == "one-time" else list(world.names[2:]))


def test_a_client_starts_no_context_twice(world: World) -> None:
    participant = world.participants[VICTIM]
    participant.open(0, 0, world.model)
    again = world.participant(VICTIM)
    with pytest.raises(UsageError, match="started before"):
        again.open(0, 0, world.model)
    with pytest.raises(UsageError, match="no attempt is open"):
        list(again.handle(b""))
