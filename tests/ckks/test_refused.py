# SPDX-License-Identifier: Apache-2.0
"""What the aggregator is sent by a lying client: it is named, the others go on.

SPEC 7.3, in whole rounds of both kinds.  One client lies in its upload; the sum over
the others is exact, and nobody else is blamed.
"""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl import keys
from secure_fl.ckks.messages import Input
from secure_fl.errors import FaultyClient, UsageError

from ..consortium import with_field
from ..participants import RANDOM
from .forging import Liar, packed, seal_chunk, sealed_chunk_key, uniform
from .world import BOTH, CHUNKS, Attempt, Keys, World

LIAR = "clinic-b"
Make = Callable[[Liar], list[bytes]]


@pytest.fixture(params=BOTH)
def world(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, request.param)
    yield made
    made.close()


@pytest.fixture
def held(tmp_path: Path) -> Iterator[World]:
    """With a key holder only."""
    made = World(tmp_path, "keyholder")
    yield made
    made.close()


@pytest.fixture
def one_time(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "one-time")
    yield made
    made.close()


def names_the_liar(world: World, make: Make, *, stays: bool = False) -> str:
    """The round opens exactly, without the liar, who is named; with what words.

    ``stays``: it lied when its upload was in: it is named, and its upload stays.
    """
    attempt = Attempt(world, hook=Liar(world, LIAR, make))
    opened = attempt.run()
    others = tuple(n for n in world.names if stays or n != LIAR)
    assert opened.survivors == others
    assert world.is_exact(opened)
    assert set(attempt.refused) == {LIAR}
    error = attempt.refused[LIAR]
    assert type(error) is FaultyClient
    assert error.client == LIAR
    assert set(attempt.left) <= {LIAR}
    return str(error)


# -- U1 to U3: which chunks --------------------------------------------------------

ORDERS: dict[str, Make] = {
    "none": lambda x: [*x.rest, x.end],
    "the last missing": lambda x: [*x.chunks[:-1], *x.rest, x.end],
    "the first missing": lambda x: [*x.chunks[1:], *x.rest, x.end],
    "reversed": lambda x: [*x.chunks[::-1], *x.rest, x.end],
    "two swapped": lambda x: [x.chunks[0], x.chunks[2], x.chunks[1], *x.rest, x.end],
    "one twice": lambda x: [*x.chunks[:2], x.chunks[0], *x.rest, x.end],
    "one too many": lambda x: [*x.chunks, with_field(x.chunks[0], 3, CHUNKS)],
    "another's name": lambda x: [
        with_field(x.chunks[0], 2, 0),
        *x.chunks[1:],
        *x.rest,
        x.end,
    ],
    "no client's name": lambda x: [with_field(x.chunks[0], 2, 9), *x.rest, x.end],
    "an index below 0": lambda x: [with_field(x.chunks[0], 3, -1), *x.rest, x.end],
}


@pytest.mark.parametrize("which", ORDERS)
def test_chunks_that_are_not_the_next_one(world: World, which: str) -> None:
    said = names_the_liar(world, ORDERS[which])
    if which in ("the first missing", "reversed", "two swapped", "one twice"):
        # At once: nothing is kept of a client that sends without end.
        assert "missing, late or repeated" in said


@pytest.mark.parametrize("length", ["a byte less", "a byte more", "none", "a block"])
def test_a_chunk_of_another_length(world: World, length: str) -> None:
    """Also that of another ring, or of a plan with larger chunks."""

    def make(x: Liar) -> list[bytes]:
        first = x.data[0]
        block = bytes(x.session.parameters.packing.ring.block_bytes)
        other = {
            "a byte less": first[:-1],
            "a byte more": first + b"\0",
            "none": b"",
            "a block": first + block,
        }[length]
        return [*x.messages([other, *x.data[1:]]), *x.rest, x.end]

    names_the_liar(world, make)


def test_a_chunk_after_the_end(world: World) -> None:
    """Its upload is in the sum, and nothing is taken out of that again."""
    said = names_the_liar(world, lambda x: [*x.said, x.chunks[0]], stays=True)
    assert "after its input" in said


def test_a_second_end(held: World) -> None:
    def make(x: Liar) -> list[bytes]:
        again = dataclasses.replace(x.input(), claim=bytes(32))
        return [*x.said, x.signed(again)]

    assert "twice" in names_the_liar(held, make, stays=True)


# -- U4, U5, U8: what is in them ---------------------------------------------------


@pytest.mark.parametrize("chunk", range(CHUNKS))
@pytest.mark.parametrize("place", ["first bit", "middle", "last bit"])
def test_a_chunk_that_was_changed(world: World, chunk: int, place: str) -> None:
    def make(x: Liar) -> list[bytes]:
        data = [bytearray(part) for part in x.data]
        at = {"first bit": 0, "middle": len(data[chunk]) // 2, "last bit": -1}[place]
        data[chunk][at] ^= 1
        return [*x.messages([bytes(d) for d in data]), *x.rest, x.end]

    names_the_liar(world, make)


def test_ciphertexts_of_another_context(world: World) -> None:
    """They are let go, as late ones would be, and its upload is not complete."""
    other = world.session((2, 1))

    def elsewhere(x: Liar) -> list[bytes]:
        strange = [with_field(m, 1, other.ctx) for m in x.chunks]
        return [*strange, *x.rest, x.end]

    attempt = Attempt(world, (1, 0), hook=place_liar(world, (1, 0), elsewhere))
    opened = attempt.run()
    assert LIAR not in opened.survivors
    assert world.is_exact(opened)
    assert isinstance(attempt.refused[LIAR], FaultyClient)
    assert "not complete" in str(attempt.refused[LIAR])
    assert [m[:40] for name, m in attempt.ignored if name == LIAR]


def place_liar(world: World, place: tuple[int, int], make: Make) -> Liar:
    liar = Liar(world, LIAR, make)
    liar.session = world.session(place)
    return liar


def test_chunks_of_an_earlier_round_under_this_rounds_name(world: World) -> None:
    """A client sends again what it sent before; its signature is over other chunks."""
    earlier: list[list[bytes]] = []

    def keep(x: Liar) -> list[bytes]:
        earlier.append(x.data)
        return x.said

    assert LIAR in Attempt(world, hook=Liar(world, LIAR, keep)).run().survivors

    def again(x: Liar) -> list[bytes]:
        return [*x.messages(earlier[0]), *x.rest, x.end]

    attempt = Attempt(world, (1, 0), hook=place_liar(world, (1, 0), again))
    opened = attempt.run()
    assert LIAR not in opened.survivors
    assert world.is_exact(opened)
    assert isinstance(attempt.refused[LIAR], FaultyClient)


@pytest.mark.parametrize("value", ["the prime", "all ones"])
@pytest.mark.parametrize("place", [(0, 0), (-1, -1)])
def test_a_residue_that_is_not_below_its_prime(
    world: World, value: str, place: tuple[int, int]
) -> None:
    """In an upload that fits together otherwise: a second form of one ciphertext."""

    def make(x: Liar) -> list[bytes]:
        ring = x.session.parameters.packing.ring
        residues = uniform(x.session)
        block, at = place
        high = ring.primes[0].value if value == "the prime" else 2**ring.bits - 1
        residues[block, 0, at] = high
        return x.whole(packed(x.session, residues))

    assert "below its prime" in names_the_liar(world, make)


@pytest.mark.parametrize("payload", ["empty", "another's", "zeros", "long"])
def test_one_time_another_payload(one_time: World, payload: str) -> None:
    """The masked key comes with the hash of its ciphertexts, or not at all."""

    def make(x: Liar) -> list[bytes]:
        other = {
            "empty": b"",
            "another's": payload_of(x, 0),
            "zeros": bytes(32),
            "long": bytes(33),
        }[payload]
        return [*x.chunks, *x.rest, x.attached(other)]

    names_the_liar(one_time, make)


@pytest.mark.parametrize("which", ["a masked chunk", "the end"])
def test_one_time_ciphertexts_that_hold_beside_a_key_that_does_not(
    one_time: World, which: str
) -> None:
    """Both or neither: its ciphertexts are not in the sum without its key."""

    def make(x: Liar) -> list[bytes]:
        at = -2 if which == "a masked chunk" else -1
        said = list(x.said)
        said[at] = said[at][:-1] + bytes([said[at][-1] ^ 1])
        return said

    names_the_liar(one_time, make)


def payload_of(x: Liar, client: int) -> bytes:
    """Its chunks as another client would sign them."""
    me, x.me = x.me, client
    try:
        return x.payload(x.data)
    finally:
        x.me = me


# -- U6 to U8: boxes and seals, with a key holder ----------------------------------


def changed(**by: Callable[[Liar, Input], bytes]) -> Make:
    """The input with other fields, signed anew by the client itself."""

    def make(x: Liar) -> list[bytes]:
        honest = x.input()
        fields = {name: value(x, honest) for name, value in by.items()}
        message = dataclasses.replace(honest, **fields)  # type: ignore[arg-type]
        return [*x.chunks, x.signed(message)]

    return make


def other_key(x: Liar, honest: Input) -> bytes:
    """A chunk box for somebody else."""
    to = keys.public_key(keys.private_key(RANDOM.bytes(32)))
    return sealed_chunk_key(x.session, x.me, honest.payload, bytes(32))(to)


SEALED: dict[str, tuple[Make, str]] = {
    "another payload": (changed(payload=lambda x, i: bytes(32)), "box"),
    "a box of random bytes": (
        changed(chunk_box=lambda x, i: RANDOM.bytes(len(i.chunk_box))),
        "box does not open",
    ),
    "a box for another key": (changed(chunk_box=other_key), "box does not open"),
    "a box for another payload": (
        changed(
            chunk_box=lambda x, i: sealed_chunk_key(
                x.session, x.me, bytes(32), bytes(32)
            )(x.invitation().key)
        ),
        "box does not open",
    ),
    "a box in another's name": (
        changed(
            chunk_box=lambda x, i: sealed_chunk_key(x.session, 0, i.payload, bytes(32))(
                x.invitation().key
            )
        ),
        "box does not open",
    ),
    "another chunk key": (
        changed(
            chunk_box=lambda x, i: sealed_chunk_key(
                x.session, x.me, i.payload, bytes(32)
            )(x.invitation().key)
        ),
        "chunk does not open",
    ),
    "signed by another": (
        lambda x: [
            *x.chunks,
            x.signed(x.input(), by=x.world.identities["clinic-a"]),
        ],
        "not signed",
    ),
    "signed by the aggregator": (
        lambda x: [*x.chunks, x.signed(x.input(), by=x.world.aggregator)],
        "not signed",
    ),
    "in another's name": (
        lambda x: [*x.chunks, with_field(x.end, 2, 0)],
        "another's name",
    ),
    "another claim, not signed": (
        lambda x: [*x.chunks, with_field(x.end, 4, bytes(32))],
        "not signed",
    ),
    "no key box": (lambda x: [*x.chunks, with_field(x.end, 5, b"")], "bytes"),
    "a field more": (lambda x: [*x.chunks, with_field(x.end, 8, 0)], "unknown"),
}


@pytest.mark.parametrize("which", SEALED)
def test_an_input_that_does_not_hold(held: World, which: str) -> None:
    make, match = SEALED[which]
    assert match in names_the_liar(held, make)


def test_a_sealed_chunk_in_anothers_place(held: World) -> None:
    """The index is in the seal: chunks under one key cannot change places."""

    def make(x: Liar) -> list[bytes]:
        chunk_key = RANDOM.bytes(32)
        plain = packed(x.session, uniform(x.session))
        sealed = [seal_chunk(chunk_key, i, part) for i, part in enumerate(plain)]
        sealed[0], sealed[1] = sealed[1], sealed[0]
        payload = x.payload(sealed)
        box = sealed_chunk_key(x.session, x.me, payload, chunk_key)(x.invitation().key)
        end = dataclasses.replace(x.input(), payload=payload, chunk_box=box)
        return [*x.messages(sealed), x.signed(end)]

    assert "chunk does not open" in names_the_liar(held, make)


def test_an_upload_that_fits_together_is_taken(held: World) -> None:
    """The control of this file: what the forger makes fails for what is wrong in it."""
    n = held.session().parameters.packing.ring.degree
    attempt = Attempt(
        held,
        hook=Liar(
            held,
            LIAR,
            lambda x: x.whole(
                packed(x.session, uniform(x.session)), key=np.zeros(n, np.int64)
            ),
        ),
    ).until("release")
    assert not attempt.refused
    assert len(attempt.a.outgoing) == 1


# -- any bit -----------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    keys_=st.sampled_from(BOTH),
    which=st.integers(0, 4),
    where=st.floats(0, 1, exclude_max=True),
    bit=st.integers(0, 7),
)
def test_no_bit_of_an_upload_is_changed_unnoticed(
    keys_: Keys, which: int, where: float, bit: int
) -> None:
    def make(x: Liar) -> list[bytes]:
        said = list(x.said)
        index = which % len(said)
        flipped = bytearray(said[index])
        flipped[int(where * len(flipped))] ^= 1 << bit
        said[index] = bytes(flipped)
        return said

    with tempfile.TemporaryDirectory() as folder:
        world = World(Path(folder), keys_)
        attempt = Attempt(world, hook=Liar(world, LIAR, make))
        opened = attempt.run()
        assert opened.survivors == tuple(n for n in world.names if n != LIAR)
        assert world.is_exact(opened)
        # Where its context was hit it is let go, like any late message.
        assert set(attempt.refused) <= {LIAR}
        assert attempt.refused or attempt.ignored
        for error in attempt.refused.values():
            assert type(error) is FaultyClient
            assert error.client == LIAR
        world.close()


def test_what_is_no_message_names_its_sender(world: World) -> None:
    for index, junk in enumerate(
        (b"", b"\0", b"\xa1\0\x0c", bytes(1000), b"\xa5\0\x0c\1\x58\x20")
    ):
        attempt = Attempt(world, divmod(index, 4))
        attempt.hear("clinic-c", junk)
        error = attempt.refused["clinic-c"]
        assert type(error) is FaultyClient
        assert error.client == "clinic-c"
    with pytest.raises(UsageError, match="roster"):
        attempt.a.receive("nobody", b"")
