# SPDX-License-Identifier: Apache-2.0
"""Where polynomials come from: uniform ones by rejection, short ones by inversion."""

from __future__ import annotations

import bisect
import decimal
import itertools
import pickle
from typing import cast

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.ciphers import (
    Cipher,
    CipherContext,
    algorithms,
    modes,
)
from numpy.typing import NDArray

from secure_fl import ckks, keys, wire
from secure_fl.ckks import sampling
from secure_fl.ckks.rings import Packing, Prime, ring
from secure_fl.ckks.sampling import Polynomials, Shorts, below, draw_each
from secure_fl.errors import UsageError
from secure_fl.identity import Member, Roster

SPEC = "secure-fl/ckks/1"
# Keys that are the same in every run of the tests, and so is what is drawn.
MEMBERS = tuple(
    Member(
        f"clinic-{letter}",
        Ed25519PrivateKey.from_private_bytes(letter.encode() * 32)
        .public_key()
        .public_bytes_raw(),
    )
    for letter in "abc"
)


def make_session(degree: int, bits: int, *, run_id: bytes = b"r" * 16) -> ckks.Session:
    """A context of two blocks."""
    packing = Packing(
        ring(degree, bits), clients=3, word_bits=8, fields=1, scale_bits=8
    )
    parameters = ckks.Parameters(
        clients=3,
        length=2 * degree,
        packing=packing,
        chunk_blocks=1,
        min_clients=3,
        max_colluding=1,
        keys="one-time",
    )
    roster = Roster(MEMBERS)
    return ckks.Session(b"p" * 32, run_id, 0, 0, roster, b"m" * 32, parameters)


SESSIONS = [make_session(4096, 54), make_session(8192, 60)]


def words_of(key: bytes, number: int, count: int) -> list[int]:
    """SPEC 3.1: the stream of one polynomial, in numbers of 8 bytes."""
    counter = number.to_bytes(8, "big") + bytes(8)
    stream = Cipher(algorithms.AES(key), modes.CTR(counter)).encryptor()
    data = stream.update(bytes(8 * count))
    return [int.from_bytes(data[i : i + 8], "little") for i in range(0, len(data), 8)]


# -- uniform polynomials ---------------------------------------------------------------


class Fixed:
    """A stream of chosen numbers."""

    def __init__(self, numbers: list[int]) -> None:
        self.left = np.array(numbers, "<u8").tobytes()

    def update(self, zeros: bytes) -> bytes:
        assert not any(zeros)
        assert len(self.left) >= len(zeros), "more was drawn than needed"
        given, self.left = self.left[: len(zeros)], self.left[len(zeros) :]
        return given


def first_below(numbers: list[int], prime: Prime) -> list[int]:
    kept = [n % 2**prime.bits for n in numbers]
    return [n for n in kept if n < prime.value][: prime.degree]


@pytest.mark.parametrize("session", SESSIONS)
@pytest.mark.parametrize(
    "left_out", ["none", "one", "last", "most", "all of the first"]
)
def test_what_is_not_below_the_prime_is_left_out(
    session: ckks.Session, left_out: str
) -> None:
    for prime in session.parameters.packing.ring.primes:
        size, rng = prime.degree, np.random.default_rng(1)
        numbers = [int(n) for n in rng.integers(0, prime.value, 3 * size)]
        for at in {
            "none": [],
            "one": [17],
            "last": [size - 1],
            "most": range(0, size, 2),
            "all of the first": range(size),
        }[left_out]:
            # The prime, the largest number there is, and what is between.
            numbers[at] = (prime.value, 2**prime.bits - 1, prime.value + 1)[at % 3]
        high = rng.integers(0, 2 ** (64 - prime.bits), 3 * size)
        stream = [n | int(h) << prime.bits for n, h in zip(numbers, high, strict=True)]
        drawn = below(cast(CipherContext, Fixed(stream)), prime)
        assert drawn.tolist() == first_below(stream, prime)


@pytest.mark.parametrize("session", SESSIONS)
def test_polynomials_are_those_of_the_specification(session: ckks.Session) -> None:
    primes = session.parameters.packing.ring.primes
    seed = b"s" * 32
    for made, key in (
        (
            Polynomials.public(session),
            wire.digest(f"{SPEC} polynomials", session.ctx),
        ),
        (
            Polynomials.cover(session, 2, seed),
            wire.digest(f"{SPEC} cover", session.ctx, 2, seed),
        ),
    ):
        several = made.draw_blocks(range(3, 6))
        assert several.shape == (3, len(primes), primes[0].degree)
        for block, index in itertools.product(range(3, 6), range(len(primes))):
            prime = primes[index]
            numbers = words_of(key, block * len(primes) + index, prime.degree + 64)
            assert several[block - 3, index].tolist() == first_below(numbers, prime)
        for block in range(3, 6):
            assert np.array_equal(made.draw(block), several[block - 3])


@pytest.mark.parametrize("session", SESSIONS)
def test_the_same_blocks_of_several(session: ckks.Session) -> None:
    several = [Polynomials.cover(session, i, b"s" * 32) for i in range(3)]
    several.append(Polynomials.public(session))
    blocks = range(7, 10)
    drawn = [each.copy() for each in draw_each(several, blocks)]
    assert len(drawn) == 4
    for polynomials, one in zip(drawn, several, strict=True):
        assert np.array_equal(polynomials, np.stack([one.draw(k) for k in blocks]))


keystream = keys.keystream  # the real one, for the one that takes its place


class Skewed:
    """AES, but every fifth number of the stream is the largest there is."""

    def __init__(self, key: bytes, counter: bytes = bytes(16)) -> None:
        self._stream = keystream(key, counter)
        self._at = 0

    def reset_nonce(self, counter: bytes) -> None:
        self._stream.reset_nonce(counter)
        self._at = 0

    def update(self, zeros: bytes) -> bytes:
        numbers = np.frombuffer(self._stream.update(zeros), "<u8").copy()
        numbers[(self._at + np.arange(numbers.size)) % 5 == 0] = 2**64 - 1
        self._at += numbers.size
        return numbers.tobytes()

    def update_into(self, zeros: bytes, out: memoryview) -> None:
        out[:] = self.update(zeros)


@pytest.mark.parametrize("session", SESSIONS)
def test_blocks_drawn_together_are_rejected_one_by_one(
    session: ckks.Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    primes = session.parameters.packing.ring.primes
    key = wire.digest(f"{SPEC} polynomials", session.ctx)
    monkeypatch.setattr(keys, "keystream", Skewed)
    drawn = Polynomials.public(session).draw_blocks(range(1, 3))
    monkeypatch.undo()
    for block, index in itertools.product((1, 2), range(len(primes))):
        prime = primes[index]
        numbers = words_of(key, block * len(primes) + index, 2 * prime.degree)
        numbers[::5] = [2**64 - 1] * len(numbers[::5])
        assert drawn[block - 1, index].tolist() == first_below(numbers, prime)


def test_no_two_polynomials_share_a_stream() -> None:
    """Not at any offset: a number of 60 bits that comes twice would be chance."""
    session = make_session(8192, 60)
    drawn = [
        made.draw_blocks(blocks)
        for made in (
            Polynomials.public(session),
            Polynomials.public(make_session(8192, 60, run_id=b"s" * 16)),
            Polynomials.cover(session, 0, b"a" * 32),
            Polynomials.cover(session, 1, b"a" * 32),
            Polynomials.cover(session, 0, b"b" * 32),
        )
        for blocks in (range(6), range(2**32, 2**32 + 2))
    ]
    numbers = np.concatenate([d.ravel() for d in drawn])
    assert np.unique(numbers).size == numbers.size


# -- short polynomials -----------------------------------------------------------------


def exact() -> list[decimal.Decimal]:
    """P(x) for x from -96 to 96, to 90 digits."""
    with decimal.localcontext() as context:
        context.prec = 90
        weights = [
            (-decimal.Decimal(x * x) / decimal.Decimal("81.92")).exp()
            for x in range(-96, 97)
        ]
        total = sum(weights)
        return [weight / total for weight in weights]


def test_the_table_is_the_distribution() -> None:
    """The statistical distance of SPEC 3.2, of what 128 uniform bits turn into."""
    table = [0, *sampling._cumulative(), 2**128]
    with decimal.localcontext() as context:
        context.prec = 90
        made = [
            decimal.Decimal(high - low) / 2**128
            for low, high in itertools.pairwise(table)
        ]
        differences = zip(made, exact(), strict=True)
        distance = sum(abs(a - b) for a, b in differences) / 2
        assert distance < decimal.Decimal(2) ** -120


def test_draws_are_the_inverse_of_the_distribution() -> None:
    """Number by number, the ones that 16 bits do not decide included."""
    session, random = SESSIONS[1], bytes(range(32))
    drawn = Shorts(session, random).error(4, 8192)
    key = keys.derive(random, salt=session.ctx, label=f"{SPEC} shorts", parts=[])
    stream = keys.keystream(key, (5).to_bytes(8, "big") + bytes(8))
    tops = np.frombuffer(stream.update(bytes(2 * 8192)), "<u2").tolist()
    table = sampling._cumulative()
    unclear = 0
    for top, value in zip(tops, drawn.tolist(), strict=True):
        uniform = int(top) << 112
        least = bisect.bisect_right(table, uniform)
        if least != bisect.bisect_right(table, uniform + 2**112 - 1):
            uniform |= int.from_bytes(stream.update(bytes(14)), "little")
            unclear += 1
        assert bisect.bisect_right(table, uniform) - 96 == value
    assert unclear > 5


def test_draws_are_distributed_as_they_should() -> None:
    """Chi-square over half a million draws, fixed: a deviation of 6.35 would fail."""
    shorts = Shorts(SESSIONS[1], b"\x07" * 32)
    draws = np.concatenate([shorts.error(block, 8192) for block in range(64)])
    probabilities = [float(p) for p in exact()]
    counts = np.bincount(draws + 96, minlength=193)
    edge = 25  # beyond it: one cell on each side
    low, high = 96 - edge, 96 + edge
    seen = [counts[:low].sum(), *counts[low : high + 1], counts[high + 1 :].sum()]
    wanted = [
        sum(probabilities[:low]),
        *probabilities[low : high + 1],
        sum(probabilities[high + 1 :]),
    ]
    chi = sum(
        (float(n) - draws.size * p) ** 2 / (draws.size * p)
        for n, p in zip(seen, wanted, strict=True)
    )
    # 52 degrees of freedom: 23 and 96 are 1 in 10,000 on either side.
    assert 23 < chi < 96
    assert abs(draws.var() / 40.96 - 1) < 0.01


def windows(draws: NDArray[np.int64], size: int) -> list[bytes]:
    data = draws.astype(np.int8).tobytes()
    return [data[at : at + size] for at in range(len(data) - size + 1)]


def test_no_two_short_polynomials_share_a_stream() -> None:
    """Not at any offset: 64 draws in a row never come twice."""
    one, other = (Shorts(SESSIONS[0], bytes([b]) * 32) for b in (1, 2))
    drawn = [one.key(4096), other.key(4096)]
    drawn += [one.error(block, 4096) for block in (*range(5), 2**32)]
    drawn += [other.error(0, 4096)]
    found = [w for draws in drawn for w in windows(draws, 64)]
    assert len(set(found)) == len(found)


def test_secrets_stay_where_they_are() -> None:
    session = SESSIONS[0]
    for secret in (
        Shorts(session, b"r" * 32),
        Polynomials.cover(session, 0, b"s" * 32),
    ):
        with pytest.raises(TypeError):
            pickle.dumps(secret)
        assert repr(secret) in ("<Shorts>", "<Polynomials>")
    for random in (b"", bytes(32), b"r" * 31):
        with pytest.raises(UsageError):
            Shorts(session, random)
