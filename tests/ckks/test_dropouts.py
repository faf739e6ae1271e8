# SPDX-License-Identifier: Apache-2.0
"""Clients that fall silent or come late, wherever they are, also within an upload.

What opens is the sum over exactly those whose upload was whole in time, or nothing;
and a ledger says "sent" from the first ciphertext on, and not before (SPEC 1).
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl.ckks.messages import KINDS
from secure_fl.errors import (
    FaultyAggregator,
    FaultyClient,
    ProtocolError,
    SecureFLError,
    TooFewClients,
    UsageError,
)
from secure_fl.round import KEY_HOLDER, OpenedUpdate

from .world import (
    BOTH,
    CHUNKS,
    STEPS,
    UPLOADED,
    Attempt,
    Cuts,
    Keys,
    World,
    is_kind,
    of_kind,
)

PARKED = st.sampled_from([False, False, False, True])  # few: they wait for the disk
# One client's misfortune: it is late with what it says, and where, and after how much.
Fate = tuple[bool, str, int]


@pytest.fixture(params=[False, True], ids=["resident", "parked"])
def parked(request: pytest.FixtureRequest) -> bool:
    return bool(request.param)


@pytest.fixture(params=BOTH)
def keys(request: pytest.FixtureRequest) -> Keys:
    return "one-time" if request.param == "one-time" else "keyholder"


@pytest.fixture
def world(tmp_path: Path, keys: Keys, parked: bool) -> Iterator[World]:
    made = World(tmp_path, keys, parked=parked)
    yield made
    made.close()


def fates(keys: Keys) -> st.SearchStrategy[list[Fate | None]]:
    """Of five clients; most live.  Who says all there is in a step is not late."""
    places = [
        (late, step, taken)
        for late in (False, True)
        for step, pieces in STEPS[keys].items()
        for taken in range(pieces if late else pieces + 1)
    ]
    one = st.sampled_from(places)
    return st.lists(st.none() | one, min_size=5, max_size=5).filter(
        lambda all_: sum(f is not None for f in all_) <= 3
    )


class Expected:
    """What the specifications say of a pattern of misfortunes: who is in, who sent."""

    def __init__(self, world: World, met: dict[str, Fate | None]) -> None:
        self.met = met
        self.steps = STEPS[world.keys]
        least = world.session().parameters.needed
        threshold = world.plan.threshold
        self.survivors = self._heard_in("vectors")
        self.opens = len(self.survivors) >= least
        if world.keys == "one-time":
            self.opens &= all(
                len(self._heard_in(step)) >= few
                for step, few in (
                    ("keys", least),
                    ("shares", least),
                    ("consistency", threshold),
                    ("unmask", threshold),
                )
            )

    def _heard_in(self, step: str) -> tuple[str, ...]:
        """Whose messages of a step, and of all before it, were whole in time."""
        order = list(self.steps)
        return tuple(
            name
            for name, fate in self.met.items()
            if fate is None
            or order.index(fate[1]) > order.index(step)
            or (fate[1] == step and fate[2] >= self.steps[step])
        )

    def states(self, name: str, reached: bool) -> list[str]:
        """Its ledger; ``reached``: the aggregator came to ask for vectors."""
        fate = self.met[name]
        if not reached:
            return []
        if fate is None:
            return ["sent"]
        late, step, taken = fate
        order = list(self.steps)
        if order.index(step) < order.index("vectors"):
            # Gone before anyone trained; or late, still there, and not asked.
            return ["reserved"] if late else []
        return ["sent"] if late or taken or step != "vectors" else ["reserved"]


def attempt_of(world: World, met: dict[str, Fate | None]) -> OpenedUpdate | None:
    cuts: dict[str, tuple[str, int]] = {}
    delays: dict[str, tuple[str, int]] = {}
    for name, fate in met.items():
        if fate is not None:
            (delays if fate[0] else cuts)[name] = fate[1:]
    attempt: Attempt | None = None
    try:
        attempt = Attempt(world, cuts=cuts, delays=delays)
        opened = attempt.run()
    except TooFewClients:
        opened = None
    if attempt is not None:
        # Nobody is blamed for silence, or for what a slow network does.
        assert not attempt.refused
        assert not attempt.left
        assert opened is attempt.a.result
    return opened


def check(keys: Keys, met: list[Fate | None], parked: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), keys, clients=5, parked=parked)
        try:
            named = dict(zip(world.names, met, strict=True))
            expected = Expected(world, named)
            opened = attempt_of(world, named)
            assert (opened is not None) == expected.opens
            if opened is not None:
                assert opened.survivors == expected.survivors
                assert world.is_exact(opened)
            reached = any(world.states(name) for name in world.names)
            for name in world.names:
                assert world.states(name) == expected.states(name, reached), name
        finally:
            world.close()


@settings(max_examples=25, deadline=None)
@given(met=fates("one-time"), parked=PARKED)
def test_one_time_opens_exactly_the_survivors_or_nothing(
    met: list[Fate | None], parked: bool
) -> None:
    check("one-time", met, parked)


@settings(max_examples=25, deadline=None)
@given(met=fates("keyholder"), parked=PARKED)
def test_with_a_key_holder_likewise(met: list[Fate | None], parked: bool) -> None:
    check("keyholder", met, parked)


@pytest.mark.parametrize("sent", range(CHUNKS + 3))
def test_one_client_stops_within_its_upload(world: World, sent: int) -> None:
    cuts: Cuts = {"clinic-b": ("vectors", sent)}
    whole = sent >= STEPS[world.keys]["vectors"]
    attempt = Attempt(world, cuts=cuts)
    opened = attempt.run()
    assert ("clinic-b" in opened.survivors) == whole
    assert len(opened.survivors) == (4 if whole else 3)
    assert world.is_exact(opened)
    assert world.states("clinic-b") == (["sent"] if sent else ["reserved"])


# -- spent from the first ciphertext on --------------------------------------------


def test_an_update_is_spent_by_its_first_ciphertext_and_not_before(
    world: World,
) -> None:
    attempt = Attempt(world).until("vectors")
    told = dict(attempt.a.outgoing)
    world.offer("clinic-a")
    answers = iter(world.participants["clinic-a"].handle(told["clinic-a"]))
    assert world.states("clinic-a") == ["reserved"]
    first = next(answers)
    assert is_kind(first, KINDS.CIPHERTEXT)
    assert world.states("clinic-a") == ["sent"]
    rest = list(answers)
    assert is_kind(rest[-1], UPLOADED[world.keys])
    assert len(of_kind([first, *rest], KINDS.CIPHERTEXT)) == CHUNKS
    # With one-time keys the ciphertexts leave before the key does (SPEC 4.4).
    kinds = [m[2] for m in (first, *rest)]
    ends = [5, 6] if world.keys == "one-time" else [KINDS.INPUT]
    assert kinds == [KINDS.CIPHERTEXT] * CHUNKS + ends
    participant = world.participants["clinic-a"]
    participant.open(0, 1, world.model)
    assert participant.needs_update
    participant.conclude(opened=False)
    assert world.states("clinic-a") == ["sent"], "what left is never taken back"


def test_what_never_left_is_kept_for_the_next_attempt(world: World) -> None:
    """A client is asked with a message that fails its checks."""

    def forge(sender: str, receiver: str, message: bytes) -> list[bytes]:
        if receiver == "clinic-a" and is_kind(message, 4, KINDS.INVITATION):
            changed = bytearray(message)
            changed[len(changed) // 2] ^= 1
            return [bytes(changed)]
        return [message]

    attempt = Attempt(world, hook=forge)
    opened = attempt.run()
    assert opened.survivors == world.names[1:]
    assert isinstance(attempt.left["clinic-a"], ProtocolError)
    assert world.states("clinic-a") == ["reserved"]
    participant = world.participants["clinic-a"]
    participant.open(0, 1, world.model)
    assert not participant.needs_update


# -- the retry rule ----------------------------------------------------------------


def retried(world: World, freed: set[str]) -> OpenedUpdate:
    """Another attempt with everyone; who was not freed brings a new update."""
    before = dict(world.vectors)
    for name in world.names:
        world.vectors[name] = -before[name]
    for name in freed:
        world.vectors[name] = before[name]
    attempt = Attempt(world, (0, 1))
    for name in world.names:
        assert world.participants[name].needs_update == (name not in freed), name
    return attempt.run()


@pytest.mark.parametrize("sent", range(CHUNKS + 2))
@pytest.mark.parametrize("keys", ["one-time"])
def test_one_time_keys_free_whom_a_signed_statement_omits(
    world: World, sent: int
) -> None:
    """It is late with all from its piece ``sent`` on."""
    attempt = Attempt(world, delays={"clinic-d": ("vectors", sent)})
    attempt.until("unmask")
    assert attempt.a.omission
    assert attempt.free() == {"clinic-d"}
    assert world.states("clinic-d") == ["omitted"]
    assert attempt.free() == set(), "one proof frees once"
    opened = retried(world, {"clinic-d"})
    assert opened.survivors == world.names
    assert world.is_exact(opened)
    # The first attempt's proof is about another context.
    for proof in (attempt.a.omission, attempt.a.omission[:1], (), (b"", b"")):
        with pytest.raises(SecureFLError):
            world.participants["clinic-d"].release(*proof)
    assert world.states("clinic-d")[-1] == "sent"


@pytest.mark.parametrize("keys", ["one-time"])
def test_a_forged_omission_frees_nobody(world: World) -> None:
    attempt = Attempt(world, delays={"clinic-d": ("vectors", 1)})
    attempt.until("unmask")
    statement, signatures = attempt.a.omission
    late = world.participants["clinic-d"]
    for at in range(40, len(signatures), 97):
        forged = bytearray(signatures)
        forged[at] ^= 4
        with pytest.raises(ProtocolError):
            late.release(statement, bytes(forged))
    with pytest.raises(ProtocolError):
        late.release(signatures, statement)
    with pytest.raises(ProtocolError):
        late.release(statement)
    assert world.states("clinic-d") == ["sent"]
    # Those that the statement holds are not freed by it.
    with pytest.raises(FaultyAggregator, match="holds our vector"):
        world.participants["clinic-a"].release(*attempt.a.omission)
    assert world.states("clinic-a") == ["sent"]


@pytest.mark.parametrize("keys", ["keyholder"])
def test_with_a_key_holder_a_late_client_has_no_proof(world: World) -> None:
    """Only a refusal is one; the next attempt takes a new update of the client."""
    attempt = Attempt(world, delays={"clinic-d": ("vectors", 1)})
    opened = attempt.run()
    assert opened.survivors == world.names[:3]
    assert len(attempt.ignored) == CHUNKS  # of its four pieces, one was in time
    assert attempt.a.omission == ()
    assert attempt.free() == set()
    late = world.participants["clinic-d"]
    late.open(0, 1, world.model)
    assert late.needs_update


@pytest.mark.parametrize("keys", ["keyholder"])
def test_a_silent_key_holder_ends_the_attempt(world: World) -> None:
    """Whether it is silent from the start, or after the uploads: nothing opens."""
    for attempt_index, silent_at in enumerate(("keys", "release")):

        def silence(
            sender: str, receiver: str, message: bytes, at: str = silent_at
        ) -> list[bytes]:
            due = is_kind(message, KINDS.CALL if at == "keys" else KINDS.REQUEST)
            return [] if receiver == KEY_HOLDER and due else [message]

        attempt = Attempt(world, (0, attempt_index), hook=silence)
        with pytest.raises(ProtocolError, match="key holder did not answer") as caught:
            attempt.run()
        assert not isinstance(caught.value, FaultyClient)
        assert attempt.a.result is None
        with pytest.raises(UsageError):
            attempt.a.advance()


# -- the network -------------------------------------------------------------------


def test_a_network_that_says_everything_twice_changes_nothing(world: World) -> None:
    attempt = Attempt(
        world, hook=lambda s, r, m: [m, m] if s not in ("", KEY_HOLDER) else [m]
    )
    opened = attempt.run()
    assert opened.survivors == world.names
    assert world.is_exact(opened)
    assert attempt.ignored
    assert not attempt.refused


def test_chunks_out_of_order_are_their_senders_fault(world: World) -> None:
    held: list[bytes] = []

    def swap(sender: str, receiver: str, message: bytes) -> list[bytes]:
        if sender == "clinic-b" and is_kind(message, KINDS.CIPHERTEXT):
            held.append(message)
            return [] if len(held) == 1 else held[::-1] if len(held) == 2 else [message]
        return [message]

    attempt = Attempt(world, hook=swap)
    opened = attempt.run()
    assert opened.survivors == ("clinic-a", "clinic-c", "clinic-d")
    assert world.is_exact(opened)
    assert isinstance(attempt.refused["clinic-b"], FaultyClient)
    assert len(held) >= 2


def test_a_message_told_twice_ends_the_attempt_for_the_client(world: World) -> None:
    """A client answers once; the second answer would be under the same secrets."""
    attempt = Attempt(world).until("vectors")
    told = attempt.a.outgoing["clinic-a"]
    world.offer("clinic-a")
    first = list(world.participants["clinic-a"].handle(told))
    assert first
    second: list[bytes] = []
    with pytest.raises(SecureFLError):
        second.extend(world.participants["clinic-a"].handle(told))
    assert not second


def test_rounds_follow_each_other(world: World) -> None:
    """Three rounds, each with another one missing."""
    for index in range(3):
        missing = world.names[index]
        attempt = Attempt(world, (index, 0), cuts={missing: ("vectors", index)})
        opened = attempt.run()
        assert opened.survivors == tuple(n for n in world.names if n != missing)
        assert world.is_exact(opened)
        for name, participant in world.participants.items():
            participant.conclude(opened=name in opened.survivors)
        assert world.states(missing)[-1] == ("sent" if index else "aborted")
