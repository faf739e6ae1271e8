# SPDX-License-Identifier: Apache-2.0
"""What the key holder is sent by liars, and whom it names (SPEC 7.4).

The aggregator forges at will, and clients sign whatever it likes.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secure_fl import ckks, keys
from secure_fl.ckks.messages import (
    KINDS,
    Call,
    Request,
    Row,
)
from secure_fl.context import kind_of
from secure_fl.errors import (
    FaultyAggregator,
    ProtocolError,
    UsageError,
)
from secure_fl.identity import Identity
from secure_fl.keystore import MemoryKeystore
from secure_fl.round import key_holder

from ..consortium import with_field
from ..participants import RANDOM
from .forging import (
    Called,
    assert_closed,
    assert_untouched,
    random_key,
    refusal,
    sealed_key,
)
from .world import World


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "keyholder")
    yield made
    made.close()


@pytest.fixture
def called(world: World) -> Called:
    return Called(world)


# -- whom a call is from, and about what -------------------------------------------


def strange_calls(world: World) -> dict[str, Callable[[Called], bytes]]:
    """Calls that fit nothing, each made of a good one."""
    other = world.instance()  # the same plan under another run
    foreign = other.session(
        round_index=0, attempt=0, model_hash=world.model.digest(), size=9000
    )
    assert isinstance(foreign, ckks.Session)

    def signed(**changes: object) -> Callable[[Called], bytes]:
        def make(called: Called) -> bytes:
            call = dataclasses.replace(
                Call.decode(called.call),
                **changes,  # type: ignore[arg-type]
            )
            return called.sign_call(call).encode()

        return make

    def by(identity: Identity) -> Callable[[Called], bytes]:
        return lambda called: called.sign_call(
            Call.decode(called.call), by=identity
        ).encode()

    return {
        "a client's": by(world.identities["clinic-a"]),
        "the key holder's own": by(world.keyholder),
        "another aggregator's": by(Identity.new("aggregator", random=RANDOM)),
        "another run's": signed(ctx=foreign.ctx),
        "another ctx": signed(ctx=bytes(32)),
        "another round than its ctx": signed(round_index=1),
        "another attempt than its ctx": signed(attempt=2),
        "another model than its ctx": signed(model_hash=bytes(32)),
        "another length than its ctx": signed(length=9_000),
        "a length no plan has": signed(length=2**40),
        "a round beyond the plan": signed(round_index=3),
        "a round beyond everything": signed(round_index=2**63 - 1),
        "a key of low order": signed(key=bytes(32)),
        "a key of low order 1": signed(key=b"\1" + bytes(31)),
        "another form of a key": signed(key=keys.PRIME.to_bytes(32, "little")),
        "no length": signed(length=0),
        "a signature less": lambda called: with_field(called.call, 7, b""),
        "a field more": lambda called: with_field(called.call, 8, 0),
    }


STRANGE = (
    "a client's", "the key holder's own", "another aggregator's", "another run's",
    "another ctx", "another round than its ctx", "another attempt than its ctx",
    "another model than its ctx", "another length than its ctx",
    "a length no plan has", "a round beyond the plan", "a round beyond everything",
    "a key of low order", "a key of low order 1", "another form of a key",
    "no length", "a signature less", "a field more",
)  # fmt: skip


@pytest.mark.parametrize("which", STRANGE)
def test_a_call_that_fits_nothing_is_refused_and_costs_nothing(
    world: World, which: str
) -> None:
    calls = strange_calls(world)
    assert set(calls) == set(STRANGE)
    called = Called(world, (0, 0), unanswered=True)
    with pytest.raises(ProtocolError):
        world.holder.handle(calls[which](called), random=RANDOM.bytes(32))
    # It recorded nothing: the genuine call is still answered, and the round released.
    called.answered()
    assert kind_of(called.ask_honestly()) == KINDS.RELEASE


@pytest.mark.parametrize("place", [(3, 0), (2**40, 1)])
def test_a_round_beyond_the_plan_is_not_begun(
    world: World, place: tuple[int, int]
) -> None:
    """Also where the call fits together."""
    with pytest.raises(FaultyAggregator, match="3 rounds"):
        Called(world, place)


def test_what_the_aggregator_did_not_sign_changes_nothing(called: Called) -> None:
    """Whoever can reach the key holder cannot end a context with it (SPEC 6.1)."""
    call = Call.decode(called.call)
    others = (called.world.keyholder, *called.world.identities.values())
    for identity in others:
        unsigned = (
            called.sign_call(call, by=identity).encode(),
            called.request(called.rows()[:2], by=identity),
            called.request(called.rows(), by=identity),
        )
        for message in (*unsigned, b"", b"\xa1\x00\x11", called.call[:-1]):
            with pytest.raises(ProtocolError):
                called.holder.handle(message, random=RANDOM.bytes(32))
    assert_untouched(called)


def test_a_call_of_the_aggregator_ends_the_context_before_it(world: World) -> None:
    """Also one that is refused; the context before it never comes back (SPEC 6.1)."""
    for attempt, bad in enumerate((False, True)):
        called = Called(world, (0, 2 * attempt))
        if bad:
            call = dataclasses.replace(Call.decode(called.call), ctx=bytes(32))
            with pytest.raises(FaultyAggregator, match="another context"):
                called.holder.handle(
                    called.sign_call(call).encode(), random=RANDOM.bytes(32)
                )
        else:
            Called(world, (0, 2 * attempt + 1))
        # The next context is not opened by the request of the one before.
        with pytest.raises(ProtocolError):
            called.ask_honestly()
    assert kind_of(Called(world, (0, 9)).ask_honestly()) == KINDS.RELEASE


def test_a_plan_without_a_key_holder_or_with_another(
    world: World, tmp_path: Path
) -> None:
    (tmp_path / "other").mkdir()
    other = World(tmp_path / "other", "one-time")
    other.close()
    with pytest.raises(UsageError, match="no key holder"):
        key_holder(other.plan, world.keyholder, MemoryKeystore())
    with pytest.raises(UsageError, match="another key holder"):
        key_holder(world.plan, world.aggregator, MemoryKeystore())


# -- whom a request is from --------------------------------------------------------


def test_a_request_that_the_aggregator_did_not_sign(world: World) -> None:
    called = Called(world)
    for identity in (world.keyholder, *world.identities.values()):
        request = called.request(called.rows(), by=identity)
        with pytest.raises(FaultyAggregator, match="not signed by the aggregator"):
            called.holder.handle(request, random=RANDOM.bytes(32))
    assert_untouched(called)


def test_a_signature_over_other_rows(called: Called) -> None:
    rows = called.rows()
    signed = Request.decode(called.request(rows[:3]), called.session)
    forged = Request(tuple(rows), signed.signature).encode(called.session)
    with pytest.raises(FaultyAggregator, match="not signed by the aggregator"):
        called.holder.handle(forged, random=RANDOM.bytes(32))
    assert_untouched(called)


@pytest.mark.parametrize(
    "field", ["payload", "claim", "key_box", "box_hash", "signature"]
)
def test_a_row_that_its_client_did_not_sign(called: Called, field: str) -> None:
    """The aggregator changes one field of one row, and signs the request anew."""
    rows = called.rows()
    value = bytearray(getattr(rows[2], field))
    value[-1] ^= 1
    changed = {field: bytes(value)}
    rows[2] = dataclasses.replace(rows[2], **changed)  # type: ignore[arg-type]
    with pytest.raises(FaultyAggregator, match="row is not signed"):
        called.ask(rows)
    assert_closed(called)


def test_a_row_in_anothers_name(called: Called) -> None:
    rows = called.rows()
    rows[3] = dataclasses.replace(rows[2], client=3)
    with pytest.raises(FaultyAggregator, match="row is not signed"):
        called.ask(rows)
    assert_closed(called)


def test_the_rows_of_another_round(world: World) -> None:
    """Boxes that are a round old, or an attempt, under a key that is long gone."""
    old = Called(world, (0, 0))
    rows = old.rows()
    old.ask(rows)
    for place in ((1, 0), (1, 1)):
        called = Called(world, place)
        with pytest.raises(FaultyAggregator, match="row is not signed"):
            called.ask(rows)
        assert_closed(called)


# -- clients counted twice, boxes used twice ---------------------------------------


def test_a_client_is_not_counted_twice(world: World) -> None:
    """The same row twice, two rows of one client, rows out of order."""
    shapes: list[Callable[[Called], list[Row]]] = [
        lambda c: [c.rows()[0], *c.rows()[:3]],
        lambda c: [c.row(0), c.row(0), c.row(1)],
        lambda c: [c.row(1), c.row(0), c.row(2)],
        lambda c: [c.row(0), c.row(1), c.row(0)],
    ]
    called = Called(world)
    for shape in shapes:
        with pytest.raises(ProtocolError, match="ascending"):
            called.ask(shape(called))
    with pytest.raises(ProtocolError, match="larger than any"):
        called.ask([called.rows()[0], *called.rows()])
    assert_untouched(called)


def bad_rows(called: Called) -> dict[str, Row]:
    """Rows of client 1 that it signed itself, with a box that is not its own key."""
    victim = called.row(0)
    payload = RANDOM.bytes(32)
    key = random_key(called.session)
    info = sealed_key(called.session, 1, payload, key)
    elsewhere = keys.public_key(keys.private_key(RANDOM.bytes(32)))
    at_aggregator = keys.public_key(called.key)
    earlier = called.world.session((2, 0))
    return {
        "a copy of another's": called.row(1, box=victim.key_box),
        "a copy, and its payload": called.row(
            1, box=victim.key_box, payload=victim.payload
        ),
        "bound to another payload": called.row(1, box=info(called.to)),
        "of another context": called.row(
            1, box=sealed_key(earlier, 1, payload, key)(called.to), payload=payload
        ),
        "in another's name": called.row(
            1,
            box=sealed_key(called.session, 2, payload, key)(called.to),
            payload=payload,
        ),
        "for another key": called.row(1, box=info(elsewhere), payload=payload),
        "for the aggregator": called.row(1, box=info(at_aggregator), payload=payload),
        "no box": called.row(1, box=bytes(len(victim.key_box))),
        "random bytes": called.row(1, box=RANDOM.bytes(len(victim.key_box))),
    }


BAD_ROWS = (
    "a copy of another's", "a copy, and its payload", "bound to another payload",
    "of another context", "in another's name", "for another key", "for the aggregator",
    "no box", "random bytes",
)  # fmt: skip


@pytest.mark.parametrize("which", BAD_ROWS)
def test_a_box_that_does_not_open_names_its_client(called: Called, which: str) -> None:
    made = bad_rows(called)
    assert set(made) == set(BAD_ROWS)
    rows = called.rows()
    rows[1] = made[which]
    assert refusal(called, called.ask(rows)).culprit == 1
    assert_closed(called)
    # The round goes on without it.
    again = Called(called.world, (0, 1))
    assert kind_of(again.ask([again.row(i) for i in (0, 2, 3)])) == KINDS.RELEASE


# -- what is no key ----------------------------------------------------------------


def with_squares(n: int, more: int) -> NDArray[np.int64]:
    """Coefficients whose squares sum to ``61 * n + more``, for ``more`` -1, 0 or 1."""
    key = np.tile(np.array([11, -1], np.int64), n // 2)  # 121 + 1 = 2 * 61
    if more == 1:
        key[:4] = 14, -7, 0, 0  # 245, one more than 2 * 122
    elif more == -1:
        key[1] = 0
    assert int((key**2).sum()) == 61 * n + more
    return key


@pytest.mark.parametrize(("more", "released"), [(-1, True), (0, True), (1, False)])
def test_the_bound_on_the_squares_is_exact(
    called: Called, more: int, released: bool
) -> None:
    n = called.session.parameters.packing.ring.degree
    key = with_squares(n, more)
    rows = called.rows()
    rows[2] = called.row(2, key)
    answer = called.ask(rows)
    if released:
        assert kind_of(answer) == KINDS.RELEASE
    else:
        assert refusal(called, answer).culprit == 2
        assert_closed(called)


@pytest.mark.parametrize("beyond", [97, -97, 127, -128])
@pytest.mark.parametrize("place", [0, -1])
def test_no_coefficient_is_beyond_the_bound(
    called: Called, beyond: int, place: int
) -> None:
    key = random_key(called.session)
    key[place] = beyond
    rows = called.rows()
    rows[0] = called.row(0, key)
    assert refusal(called, called.ask(rows)).culprit == 0
    assert_closed(called)


@pytest.mark.parametrize("edge", [96, -96])
def test_a_coefficient_at_the_bound_is_a_key(called: Called, edge: int) -> None:
    key = random_key(called.session)
    key[:3] = edge
    rows = called.rows()
    rows[0] = called.row(0, key)
    assert kind_of(called.ask(rows)) == KINDS.RELEASE


def test_the_first_of_several_culprits_is_named(called: Called) -> None:
    long = np.full(called.session.parameters.packing.ring.degree, 50, np.int64)
    rows = [called.row(0), *(called.row(i, long) for i in (1, 2, 3))]
    assert refusal(called, called.ask(rows)).culprit == 1


# -- too few -----------------------------------------------------------------------


@pytest.mark.parametrize("few", [0, 1, 2])
def test_fewer_than_the_plan_needs(called: Called, few: int) -> None:
    assert called.session.parameters.needed == 3
    rows = called.rows()[:few]
    assert refusal(called, called.ask(rows)).culprit is None
    assert_closed(called)


def test_too_few_is_looked_at_before_any_box(called: Called) -> None:
    rows = [called.row(0, box=bytes(len(called.row(0).key_box))), called.row(1)]
    assert refusal(called, called.ask(rows)).culprit is None


# -- bytes that are no message -----------------------------------------------------


@settings(max_examples=150, deadline=None)
@given(
    data=st.builds(
        bytes.__add__,
        st.sampled_from([b"", b"\xa8\x00\x0d\x01\x58\x20", b"\xa4\x00\x11\x01"]),
        st.binary(max_size=600),
    )
)
def test_any_bytes_get_an_answer_or_a_protocol_error(data: bytes) -> None:
    world = shared_world()
    called = Called(world, next(PLACES))
    with pytest.raises(ProtocolError):
        world.holder.handle(data, random=RANDOM.bytes(32))
    assert called.session.ctx not in data


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_no_change_to_a_message_is_let_through(data: st.DataObject) -> None:
    """Bits flipped, bytes cut out or put in, anywhere in a call or a request."""
    world = shared_world()
    is_call = data.draw(st.booleans())
    called = Called(world, next(PLACES), unanswered=is_call)
    genuine = called.call if is_call else called.request(called.rows())
    # A fraction: no two contexts' messages need have the same length.
    at = int(data.draw(st.floats(0, 1, exclude_max=True)) * len(genuine))
    how = data.draw(st.sampled_from(["flip", "cut", "put", "end"]))
    changed = bytearray(genuine)
    if how == "flip":
        changed[at] ^= 1 << data.draw(st.integers(0, 7))
    elif how == "cut":
        del changed[at : at + data.draw(st.integers(1, 40))]
    elif how == "put":
        changed[at:at] = data.draw(st.binary(min_size=1, max_size=40))
    else:
        del changed[at:]
    if bytes(changed) == genuine:  # what was put in stood there before
        return
    with pytest.raises(ProtocolError):
        called.holder.handle(bytes(changed), random=RANDOM.bytes(32))
    # No release either: else no further call of this round would be answered.


WORLDS: list[World] = []
PLACES: Iterator[tuple[int, int]] = ((0, attempt) for attempt in range(10**6))


@pytest.fixture(scope="module", autouse=True)
def _shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    WORLDS.append(World(tmp_path_factory.mktemp("shared"), "keyholder"))
    yield
    WORLDS.pop().close()


def shared_world() -> World:
    """One world for all examples of a property; each has a context of its own."""
    return WORLDS[0]
