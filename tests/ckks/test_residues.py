# SPDX-License-Identifier: Apache-2.0
"""Residues, words and bytes against Python integers, in every ring (SPEC 2 and 3)."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from secure_fl.ckks.residues import (
    UNREDUCED,
    _centred,
    _product,
    _residue,
    add_mod,
    decode_sum,
    encode_words,
    pack_blocks,
    reduced,
    sub_mod,
    sum_mod,
    unpack_blocks,
)
from secure_fl.ckks.rings import Packing, Prime, Ring, fits, ring, scale_for

from ..vectors.ckks_residues import pack_residues

RINGS = [ring(degree, bits) for degree in (4096, 8192) for bits in range(54, 61)]
PRIMES = [prime for one in RINGS for prime in one.primes]
U64 = NDArray[np.uint64]
I64 = NDArray[np.int64]

in_every_ring = pytest.mark.parametrize(
    "of", RINGS, ids=lambda r: f"{r.degree}-{r.bits}"
)
seeds = st.integers(0, 2**32)


def uniform(of: Ring, blocks: int, seed: int) -> U64:
    """Residues with the edges among them, first and last of each prime included."""
    rng = np.random.default_rng(seed)
    out = np.empty((blocks, len(of.primes), of.degree), np.uint64)
    for index, prime in enumerate(of.primes):
        p = prime.value
        part = rng.integers(0, p, (blocks, of.degree), np.uint64)
        edges = np.array([0, 1, p // 2, p // 2 + 1, p - 2, p - 1], np.uint64)
        at = rng.integers(0, of.degree, (blocks, 60))
        np.put_along_axis(part, at, rng.choice(edges, (blocks, 60)), axis=1)
        part[:, 0], part[:, -1] = p - 1, p - 1
        out[:, index] = part
    return out


def ints(array: NDArray[np.generic]) -> list[int]:
    return [int(value) for value in array.ravel().tolist()]


# -- bytes -----------------------------------------------------------------------------


@in_every_ring
def test_bytes_are_those_of_the_specification(of: Ring) -> None:
    blocks = uniform(of, 2, of.bits)
    data = pack_blocks(blocks, of.bits)
    assert data == b"".join(
        pack_residues(ints(polynomial), of.bits)
        for block in blocks
        for polynomial in block
    )
    assert np.array_equal(unpack_blocks(data, of), blocks)


@in_every_ring
@settings(max_examples=8, deadline=None)
@given(blocks=st.integers(0, 5), seed=seeds)
def test_packing_and_unpacking_are_inverse(of: Ring, blocks: int, seed: int) -> None:
    # Every number of so many bits, the ones that no prime allows included.
    rng = np.random.default_rng(seed)
    shape = (blocks, len(of.primes), of.degree)
    any_of_them = rng.integers(0, 2**of.bits, shape, np.uint64)
    data = pack_blocks(any_of_them, of.bits)
    assert len(data) == blocks * of.block_bytes
    assert np.array_equal(unpack_blocks(data, of), any_of_them)
    assert np.array_equal(unpack_blocks(memoryview(data), of), any_of_them)
    raw = rng.bytes(blocks * of.block_bytes)
    assert pack_blocks(unpack_blocks(raw, of), of.bits) == raw


@in_every_ring
@pytest.mark.parametrize("off", [-1, 1, 8])
def test_only_whole_blocks_are_unpacked(of: Ring, off: int) -> None:
    with pytest.raises(ValueError, match="whole blocks"):
        unpack_blocks(bytes(2 * of.block_bytes + off), of)


@in_every_ring
def test_one_residue_of_its_prime_is_found_wherever_it_is(of: Ring) -> None:
    blocks = uniform(of, 3, 1)
    assert reduced(blocks, of)
    for index, prime in enumerate(of.primes):
        for at in (0, of.degree // 2, of.degree - 1):
            for block in range(3):
                worse = blocks.copy()
                worse[block, index, at] = prime.value
                assert not reduced(worse, of)


# -- arithmetic ------------------------------------------------------------------------


@in_every_ring
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_sums_and_differences(of: Ring, seed: int) -> None:
    a, b = uniform(of, 2, seed), uniform(of, 2, seed + 1)
    kept = a.copy(), b.copy()
    total, difference = add_mod(a, b, of), sub_mod(a, b, of)
    for index, prime in enumerate(of.primes):
        pairs = list(zip(ints(a[:, index]), ints(b[:, index]), strict=True))
        p = prime.value
        assert ints(total[:, index]) == [(x + y) % p for x, y in pairs]
        assert ints(difference[:, index]) == [(x - y) % p for x, y in pairs]
    assert np.array_equal(a, kept[0])
    assert np.array_equal(b, kept[1])


@in_every_ring
@pytest.mark.parametrize("count", [1, 2, UNREDUCED, UNREDUCED + 1, 2 * UNREDUCED + 2])
def test_a_sum_of_the_largest_does_not_wrap(of: Ring, count: int) -> None:
    largest = np.empty((len(of.primes), of.degree), np.uint64)
    for index, prime in enumerate(of.primes):
        largest[index] = prime.value - 1
    kept = largest.copy()
    total = sum_mod((largest for _ in range(count)), of)
    for index, prime in enumerate(of.primes):
        assert set(ints(total[index])) == {count * (prime.value - 1) % prime.value}
    assert np.array_equal(largest, kept)


@st.composite
def factors(draw: st.DrawFn) -> tuple[Prime, int, list[int]]:
    prime = draw(st.sampled_from(PRIMES))
    p = prime.value
    edges = [0, 1, 2**30 - 1, 2**30, p // 2, p // 2 + 1, p - 2, p - 1]
    one = st.sampled_from(edges) | st.integers(0, p - 1)
    return prime, draw(one), edges + draw(st.lists(one, max_size=40))


@settings(max_examples=400, deadline=None)
@given(factors())
def test_a_product_is_that_of_integers(drawn: tuple[Prime, int, list[int]]) -> None:
    prime, factor, values = drawn
    product = _product(np.array(values, np.uint64), factor, prime.value)
    assert ints(product) == [value * factor % prime.value for value in values]


@st.composite
def wide(draw: st.DrawFn) -> tuple[Prime, list[tuple[int, int]]]:
    prime = draw(st.sampled_from(PRIMES))
    top = 2**prime.bits
    low = st.sampled_from([0, 1, prime.value - 1, prime.value, top - 1])
    high = st.sampled_from([-(2**59), -1, 0, 1, 2**59])
    pair = st.tuples(low | st.integers(0, top - 1), high | st.integers(-(2**59), 2**59))
    return prime, draw(st.lists(pair, min_size=1, max_size=60))


@settings(max_examples=400, deadline=None)
@given(wide())
def test_a_wide_integer_is_reduced(drawn: tuple[Prime, list[tuple[int, int]]]) -> None:
    prime, pairs = drawn
    low, high = (np.array(part, np.int64) for part in zip(*pairs, strict=True))
    expected = [(x + y * 2**prime.bits) % prime.value for x, y in pairs]
    assert ints(_residue(low, high, prime)) == expected


@in_every_ring
@settings(max_examples=5, deadline=None)
@given(seed=seeds)
def test_residues_go_back_to_the_integer_next_to_0(of: Ring, seed: int) -> None:
    half = (of.modulus - 1) // 2
    raw = np.random.default_rng(seed).bytes(16 * of.degree)
    values = [
        int.from_bytes(raw[at : at + 16], "little") % of.modulus - half
        for at in range(0, len(raw), 16)
    ]
    values[:6] = [0, 1, -1, half, -half, half - 1]
    residues = np.array([[[v % p.value for v in values] for p in of.primes]], np.uint64)
    low, high = _centred(residues, of)
    pairs = zip(ints(low), ints(high), strict=True)
    assert [x + y * 2**of.bits for x, y in pairs] == values


# -- words -----------------------------------------------------------------------------


def packings(of: Ring, clients: int) -> list[Packing]:
    """For every width of a word: as many fields as fit, and one."""
    scale = scale_for(clients)
    out = []
    for bits in range(8, 65):
        fields = 0
        while fits(of, bits, fields + 1, scale):
            fields += 1
        for some in sorted({min(1, fields), fields} - {0}):
            out.append(Packing(of, clients, bits, some, scale))
    return out


def block(packing: Packing, seed: int) -> tuple[I64, I64]:
    """Words at their edges and between, and errors as large as rounding allows."""
    rng = np.random.default_rng(seed)
    half, shape = 2 ** (packing.word_bits - 1), (packing.fields, packing.ring.degree)
    words = rng.integers(-half, half, shape, np.int64)
    edges = np.array([-half, half - 1, 0, -1, 1], np.int64)
    words[:, 0], words[:, 1] = -half, half - 1
    words[:, 2:400] = rng.choice(edges, (packing.fields, 398))
    most = 2 ** (packing.scale_bits - 1) - 1
    errors = rng.integers(-most, most + 1, packing.ring.degree, np.int64)
    errors[0], errors[1] = -most, most
    return words, errors


def integer(packing: Packing, words: I64, errors: I64, at: int) -> int:
    """The coefficient of SPEC 3.3."""
    sums = sum(
        int(words[j, at]) << (j * packing.word_bits) for j in range(packing.fields)
    )
    return (sums << packing.scale_bits) + int(errors[at])


@in_every_ring
@pytest.mark.parametrize("clients", [3, 200])
def test_words_of_every_width_there_and_back(of: Ring, clients: int) -> None:
    for packing in packings(of, clients):
        words, errors = block(packing, packing.word_bits)
        encoded = encode_words(words, packing, errors)
        for at in (*range(8), *range(402, 408), of.degree - 1):
            value = integer(packing, words, errors, at)
            found = [int(encoded[i, at]) for i in range(len(of.primes))]
            assert found == [value % p.value for p in of.primes], packing
        opened, rest, whole = decode_sum(encoded[None], packing)
        assert np.array_equal(opened[0], words), packing
        assert np.array_equal(rest[0], errors), packing
        assert whole, packing


@in_every_ring
@settings(max_examples=4, deadline=None)
@given(data=st.data(), seed=seeds)
def test_sums_of_ciphertexts_are_sums_of_words(
    of: Ring, data: st.DataObject, seed: int
) -> None:
    clients = data.draw(st.integers(2, 12))
    packing = data.draw(st.sampled_from(packings(of, clients)))
    rng = np.random.default_rng(seed)
    half = 2 ** (packing.word_bits - 1)
    shape = (packing.fields, of.degree)
    # What is left of the range for each client, so that no sum leaves it.
    least, most = -(half // clients), (half - 1) // clients
    each = rng.integers(least, most + 1, (clients, *shape), np.int64)
    each[:, :, 0], each[:, :, 1] = least, most
    share = (2 ** (packing.scale_bits - 1) - 1) // clients
    errors = rng.integers(-share, share + 1, (clients, of.degree), np.int64)
    errors[:, 0], errors[:, 1] = -share, share
    encoded = encode_words(each, packing, errors)
    assert encoded.shape == (clients, len(of.primes), of.degree)
    words, rest, whole = decode_sum(sum_mod(encoded, of)[None], packing)
    assert np.array_equal(words[0], each.sum(axis=0))
    assert np.array_equal(rest[0], errors.sum(axis=0))
    assert whole


@in_every_ring
def test_what_stands_above_the_highest_field_is_seen(of: Ring) -> None:
    seen = 0
    for packing in packings(of, 3):
        words, errors = block(packing, 7)
        encoded = encode_words(words, packing, errors)
        top = 1 << (packing.scale_bits + packing.fields * packing.word_bits)
        for more in (top, -top):
            for at in (0, 1, 5):
                value = integer(packing, words, errors, at) + more
                if abs(value) > (of.modulus - 1) // 2:
                    continue
                worse = encoded.copy()
                for index, prime in enumerate(of.primes):
                    worse[index, at] = value % prime.value
                assert not decode_sum(worse[None], packing)[2], packing
                seen += 1
    assert seen > 50
