# SPDX-License-Identifier: Apache-2.0
"""Our keys, boxes, seeds and streams against plain Python, and what they refuse."""

from __future__ import annotations

import random

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl import keys, wire
from secure_fl.fixedpoint import word_dtype
from secure_fl.masking import SPEC, crypto

from .plain_crypto import ctr, expand

# The eight encodings of low order below 2^255 that RFC 7748's check must catch.
LOW_ORDER = [
    "0000000000000000000000000000000000000000000000000000000000000000",
    "0100000000000000000000000000000000000000000000000000000000000000",
    "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800",
    "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157",
    "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
]


@pytest.mark.parametrize("point", LOW_ORDER)
@pytest.mark.parametrize("top_bit", [0, 0x80])
def test_points_of_low_order_are_refused_everywhere(point: str, top_bit: int) -> None:
    public = bytes.fromhex(point)
    public = public[:31] + bytes([public[31] | top_bit])
    key = crypto.private_key(b"k" * 32)
    assert not crypto.is_usable(public)
    with pytest.raises(ValueError, match="key"):
        crypto.seal(bytes(64), public, info=[])
    with pytest.raises(ValueError, match="key"):
        crypto.pair_seed(key, public, ctx=bytes(32), cohort_hash=bytes(32), pair=(0, 1))
    # As the encapsulated key of a box.
    with pytest.raises(ValueError, match="does not open"):
        crypto.open_box(public + bytes(80), key, info=[])


def test_honest_keys_are_usable() -> None:
    for i in range(50):
        assert crypto.is_usable(crypto.public_key(crypto.private_key(bytes([i]) * 32)))


def test_boxes_open_for_one_key_and_one_info() -> None:
    key, other = crypto.private_key(b"a" * 32), crypto.private_key(b"b" * 32)
    box = crypto.seal(b"x" * 64, crypto.public_key(key), info=[b"ctx", 1, 2])
    assert len(box) == 64 + keys.BOX_OVERHEAD
    assert crypto.open_box(box, key, info=[b"ctx", 1, 2]) == b"x" * 64
    wrong: list[tuple[X25519PrivateKey, list[wire.Value]]] = [
        (other, [b"ctx", 1, 2]),
        (key, [b"ctx", 2, 1]),
        (key, []),
    ]
    for wrong_key, info in wrong:
        with pytest.raises(ValueError, match="does not open"):
            crypto.open_box(box, wrong_key, info=info)
    for at in range(0, len(box), 7):
        bad = box[:at] + bytes([box[at] ^ 1]) + box[at + 1 :]
        with pytest.raises(ValueError, match="does not open"):
            crypto.open_box(bad, key, info=[b"ctx", 1, 2])
    for size in (0, 31, 32, 47):
        with pytest.raises(ValueError, match="does not open"):
            crypto.open_box(box[:size], key, info=[b"ctx", 1, 2])


# -- the mask stream -----------------------------------------------------------


def reference_stream(seed: bytes, chunk: int, count: int, word_bits: int) -> list[int]:
    """The words of one chunk's mask, in plain Python."""
    key = expand(seed, wire.encode([f"{SPEC} stream"]), 32)
    size = next(s for s in (1, 2, 4, 8) if word_bits <= 8 * s)
    stream = ctr(key, size * count, start=chunk << 64)
    return [
        int.from_bytes(stream[i * size : (i + 1) * size], "little") % 2**word_bits
        for i in range(count)
    ]


@settings(max_examples=80)
@given(
    word_bits=st.integers(8, 64),
    count=st.integers(1, 40),
    chunk=st.integers(0, 2**40),
    plus=st.lists(st.binary(min_size=32, max_size=32), max_size=3),
    minus=st.lists(st.binary(min_size=32, max_size=32), max_size=3),
    seed=st.integers(0, 2**32),
)
def test_the_mask_stream_is_the_reference(
    word_bits: int,
    count: int,
    chunk: int,
    plus: list[bytes],
    minus: list[bytes],
    seed: int,
) -> None:
    modulus = 2**word_bits
    draw = random.Random(seed)
    start = [draw.randrange(modulus) for _ in range(count)]
    words = np.array(start, word_dtype(word_bits))
    stream = crypto.MaskStream(word_bits=word_bits, plus=plus, minus=minus)
    stream.apply(words, chunk)
    expected = start
    for seeds, sign in ((plus, 1), (minus, -1)):
        for s in seeds:
            mask = reference_stream(s, chunk, count, word_bits)
            expected = [
                (w + sign * m) % modulus for w, m in zip(expected, mask, strict=True)
            ]
    assert words.tolist() == expected
    # Taking out what was put in leaves the words as they were.
    back = crypto.MaskStream(word_bits=word_bits, plus=minus, minus=plus)
    back.apply(words, chunk)
    assert words.tolist() == start


def test_streams_of_chunks_and_seeds_do_not_repeat() -> None:
    seen = {
        tuple(reference_stream(bytes([s]) * 32, chunk, 8, 32))
        for s in range(8)
        for chunk in range(8)
    }
    assert len(seen) == 64


def test_a_pair_derives_one_seed_bound_to_its_context() -> None:
    a, b = crypto.private_key(b"a" * 32), crypto.private_key(b"b" * 32)
    pa, pb = crypto.public_key(a), crypto.public_key(b)
    base = {"ctx": bytes(32), "cohort_hash": bytes(32)}
    one = crypto.pair_seed(a, pb, **base, pair=(1, 4))
    assert one == crypto.pair_seed(b, pa, **base, pair=(4, 1))
    others = {
        crypto.pair_seed(a, pb, **base, pair=(1, 3)),
        crypto.pair_seed(a, pb, ctx=b"x" * 32, cohort_hash=bytes(32), pair=(1, 4)),
        crypto.pair_seed(a, pb, ctx=bytes(32), cohort_hash=b"x" * 32, pair=(1, 4)),
    }
    assert len(others | {one}) == 4


def test_elements_differ_by_label_context_and_bytes() -> None:
    base = crypto.elements(b"s" * 32, "secrets", 2, ctx=b"c" * 32)
    others = [
        crypto.elements(b"s" * 32, "coefficients", 2, ctx=b"c" * 32),
        crypto.elements(b"s" * 32, "secrets", 2, ctx=b"d" * 32),
        crypto.elements(b"t" * 32, "secrets", 2, ctx=b"c" * 32),
    ]
    assert len({*base, *(x for row in others for x in row)}) == 8
