# SPDX-License-Identifier: Apache-2.0
"""One value, one byte form; labels keep hashes, signatures and trees apart."""

from __future__ import annotations

import hashlib
import time
import tracemalloc
from typing import cast

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from secure_fl import wire
from secure_fl.errors import ProtocolError

_scalars = (
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=40) | st.text(max_size=20)
)
values = st.recursive(
    _scalars,
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.integers(0, 23), inner, max_size=5)
    ),
    max_leaves=15,
)


def _depth(value: object) -> int:
    if isinstance(value, list):
        return 1 + max(map(_depth, value), default=0)
    if isinstance(value, dict):
        return 1 + max(map(_depth, value.values()), default=0)
    return 0


@given(values)
def test_what_is_encoded_decodes_to_itself(value: wire.Value) -> None:
    if _depth(value) > wire.MAX_DEPTH:
        with pytest.raises(ValueError, match="nested"):
            wire.encode(value)
        return
    data = wire.encode(value)
    assert wire.decode(data) == value
    assert wire.encode(wire.decode(data)) == data


@given(st.binary(max_size=60))
def test_any_bytes_are_a_value_or_a_protocol_error(data: bytes) -> None:
    try:
        value = wire.decode(data)
    except ProtocolError:
        return
    assert wire.encode(value) == data


@pytest.mark.parametrize(
    ("value", "data"),
    [
        (0, "00"),
        (23, "17"),
        (24, "1818"),
        (2**64 - 1, "1bffffffffffffffff"),
        (-1, "20"),
        (-(2**63), "3b7fffffffffffffff"),
        (b"", "40"),
        (b"\x01\x02", "420102"),
        ("", "60"),
        ("\u00fc", "62c3bc"),
        ([1, [2, 3]], "8201820203"),
        ({0: 1, 10: b"", 2: "a"}, "a3000102616 10a40".replace(" ", "")),
    ],
)
def test_published_forms(value: wire.Value, data: str) -> None:
    """Where RFC 8949, appendix A, has the value, this is its form there."""
    assert wire.encode(value).hex() == data
    assert wire.decode(bytes.fromhex(data)) == value


@pytest.mark.parametrize(
    ("why", "data"),
    [
        ("nothing", ""),
        ("left over", "0000"),
        ("cut", "43ffff"),
        ("longer than needed: 0 in one byte more", "1800"),
        ("longer than needed: 24 in two bytes", "190018"),
        ("longer than needed: a length", "580161"),
        ("longer than needed: an array", "980101"),
        ("indefinite byte string", "5f4101ff"),
        ("indefinite text", "7f6161ff"),
        ("indefinite array", "9f01ff"),
        ("indefinite map", "bf0001ff"),
        ("duplicate key", "a200010002"),
        ("keys out of order", "a201000000"),
        ("key beyond 23", "a1181800"),
        ("negative key", "a12000"),
        ("text key", "a1616100"),
        ("byte string key", "a1416100"),
        ("float key", "a1f90000 00".replace(" ", "")),
        ("half float", "f93c00"),
        ("single float", "fa3f800000"),
        ("double float", "fb3ff0000000000000"),
        ("not a number", "f97e00"),
        ("false", "f4"),
        ("true", "f5"),
        ("null", "f6"),
        ("undefined", "f7"),
        ("simple value", "f0"),
        ("boolean key beside 1", "a20100f500"),
        ("tag", "c000"),
        ("date", "c11a514b67b0"),
        ("small bignum", "c24101"),
        ("large bignum", "c249010000000000000000"),
        ("self-described", "d9d9f700"),
        ("embedded CBOR", "d81800"),
        ("set", "d9010281 00".replace(" ", "")),
        ("shared value", "d81c00"),
        ("array that holds itself", "d81c81d81d00"),
        ("string reference", "d9010082416 1d81900".replace(" ", "")),
        ("negative beyond 64 bits", "3bffffffffffffffff"),
        ("not UTF-8", "61ff"),
        ("surrogate", "63eda080"),
        ("break alone", "ff"),
        ("reserved length", "1c"),
        ("array longer than memory", "9bffffffffffffffff"),
        ("byte string longer than memory", "5b7fffffffffffffff"),
        ("regular expression", "d8236161"),
        ("nested too deep", "81" * 9 + "00"),
        ("nested far too deep", "81" * 5000 + "00"),
    ],
)
def test_a_second_form_or_another_type_is_refused(why: str, data: str) -> None:
    with pytest.raises(ProtocolError, match="not a message"):
        wire.decode(bytes.fromhex(data))


@pytest.mark.parametrize(
    "value",
    [1.0, True, None, {24: 0}, {-1: 0}, {True: 0}, {"a": 0}, 2**64, -(2**63) - 1,
     bytearray(b"x"), {1, 2}, object(), [[[[[[[[[0]]]]]]]]], [1, None], "\ud800"],
)  # fmt: skip
def test_what_has_no_form_is_not_encoded(value: object) -> None:
    with pytest.raises(ValueError, match=r"."):
        wire.encode(cast("wire.Value", value))


def shared_references(levels: int, width: int) -> bytes:
    """Nested arrays, each holding the next one ``width`` times by reference."""
    data = b"\x00"
    for level in range(levels, 0, -1):
        refs = b"" if level == levels else (b"\xd8\x1d\x18%c" % level) * (width - 1)
        count = 1 if level == levels else width
        data = b"\xd8\x1c\x98%c" % count + data + refs
    return data


def test_a_short_message_is_refused_in_a_short_time() -> None:
    data = shared_references(8, 7)
    assert len(data) < 250
    begin = time.perf_counter()
    with pytest.raises(ProtocolError):
        wire.decode(data)
    # Half a second or more as it is; microseconds where tags are refused first.
    assert time.perf_counter() - begin < 0.1


def test_a_message_is_refused_in_memory_of_its_size() -> None:
    text, count = b"x" * 20_000, 500
    data = b"\xd9\x01\x00\x99" + (count + 1).to_bytes(2, "big")
    data += b"\x59" + len(text).to_bytes(2, "big") + text + b"\xd8\x19\x00" * count
    tracemalloc.start()
    try:
        with pytest.raises(ProtocolError):
            wire.decode(data)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 20 * len(data)


# -- fields --------------------------------------------------------------------


def fields(value: wire.Value) -> wire.Fields:
    return wire.Fields(wire.decode(wire.encode(value)))


def test_fields_are_taken_by_type_and_size() -> None:
    f = fields({0: 5, 1: b"ab", 2: "text", 3: [1, 2, 9], 4: {0: 1}, 5: []})
    assert f.has(0)
    assert f.integer(0, low=5, high=5) == 5
    assert not f.has(0)
    assert f.bytes_(1, size=2) == b"ab"
    assert f.text(2, max_size=4) == "text"
    assert f.integers(3, high=9) == (1, 2, 9)
    inner = f.fields(4)
    assert inner.integer(0) == 1
    inner.end()
    assert f.array(5) == []
    f.end()


@pytest.mark.parametrize(
    ("text", "take"),
    [
        ("missing", lambda f: f.integer(9)),
        ("wrong type", lambda f: f.integer(1)),
        ("wrong type", lambda f: f.bytes_(0)),
        ("wrong type", lambda f: f.text(1)),
        ("wrong type", lambda f: f.array(4)),
        ("wrong type", lambda f: f.fields(3)),
        ("out of range", lambda f: f.integer(0, low=6)),
        ("out of range", lambda f: f.integer(0, high=4)),
        ("out of range", lambda f: f.integer(6)),
        ("does not have 3 bytes", lambda f: f.bytes_(1, size=3)),
        ("longer than 3", lambda f: f.text(2, max_size=3)),
        ("not strictly ascending", lambda f: f.integers(3)),
        ("not strictly ascending", lambda f: f.integers(7)),
        ("something else than integers", lambda f: f.integers(8)),
        ("something else than integers", lambda f: f.integers(7, high=1)),
        ("unknown field 0", lambda f: f.end()),
    ],
)
def test_a_field_that_is_not_as_expected_is_refused(text: str, take: object) -> None:
    f = fields(
        {0: 5, 1: b"ab", 2: "text", 3: [2, 1], 4: {}, 6: -1, 7: [2, 2], 8: ["a"]}
    )
    assert callable(take)
    with pytest.raises(ProtocolError, match=text):
        take(f)


@pytest.mark.parametrize("value", [0, b"", "", [], [{}]])
def test_only_a_map_has_fields(value: wire.Value) -> None:
    with pytest.raises(ProtocolError, match="a map was expected"):
        wire.Fields(value)


# -- hashes, signatures, trees -------------------------------------------------


def test_a_digest_is_sha256_over_one_array() -> None:
    assert wire.digest("l", 1, b"x") == hashlib.sha256(b"\x83\x61l\x01\x41x").digest()


@given(st.lists(st.binary(max_size=6), max_size=4), st.lists(st.binary(max_size=6)))
def test_two_lists_of_parts_do_not_collide(one: list[bytes], two: list[bytes]) -> None:
    assert (wire.digest("l", *one) == wire.digest("l", *two)) == (one == two)
    assert wire.digest("l", *one) != wire.digest("m", *one)
    assert wire.digest("l", *one) != wire.digest("l", list(one))


def test_a_signature_holds_for_one_key_label_and_list() -> None:
    key = Ed25519PrivateKey.from_private_bytes(b"k" * 32)
    public = key.public_key().public_bytes_raw()
    signature = wire.sign(key, "label", 1, b"x")
    assert len(signature) == wire.SIGNATURE_BYTES
    assert wire.verify(public, signature, "label", 1, b"x")
    assert not wire.verify(public, signature, "other", 1, b"x")
    assert not wire.verify(public, signature, "label", 1)
    assert not wire.verify(public, signature, "label", 1, "x")
    other = Ed25519PrivateKey.from_private_bytes(b"l" * 32).public_key()
    assert not wire.verify(other.public_bytes_raw(), signature, "label", 1, b"x")
    for at in range(64):
        bad = signature[:at] + bytes([signature[at] ^ 4]) + signature[at + 1 :]
        assert not wire.verify(public, bad, "label", 1, b"x")
    for size in (0, 31, 33):
        assert not wire.verify(bytes(size), signature, "label", 1, b"x")
    for size in (0, 63, 65):
        assert not wire.verify(public, bytes(size), "label", 1, b"x")


def reference_root(leaves: list[bytes]) -> bytes:
    """RFC 9162's recursive definition, over our labelled hashes."""
    if len(leaves) == 1:
        return wire.digest("t leaf", leaves[0])
    k = 1
    while 2 * k < len(leaves):
        k *= 2
    return wire.digest("t node", reference_root(leaves[:k]), reference_root(leaves[k:]))


@pytest.mark.parametrize("count", range(1, 20))
def test_trees_have_the_published_shape_and_paths_prove_one_place(count: int) -> None:
    leaves = [b"leaf %d" % i for i in range(count)]
    root = wire.merkle_root("t", iter(leaves))
    assert root == reference_root(leaves)
    for i, leaf in enumerate(leaves):
        path = wire.merkle_paths("t", leaves)[1][i]

        def proves(
            index: int = i,
            total: int = count,
            what: bytes = leaf,
            along: list[bytes] = path,
            under: bytes = root,
        ) -> bool:
            return wire.verify_merkle_path(
                "t", what, index=index, count=total, path=along, root=under
            )

        assert proves()
        assert not proves(what=b"other")
        assert not proves(under=bytes(32))
        assert not proves(along=[*path, bytes(32)])
        assert not proves(index=-1)
        assert not proves(index=count)
        if path:
            assert not proves(along=path[:-1])
            assert not proves(along=[bytes(32), *path[1:]])
        for other in range(count):
            if other != i:
                assert not proves(index=other)


def test_an_inner_node_is_no_leaf_and_labels_part_trees() -> None:
    leaves = [b"a", b"b"]
    root = wire.merkle_root("t", leaves)
    inner = wire.digest("t leaf", b"a") + wire.digest("t leaf", b"b")
    assert wire.merkle_root("t", [inner]) != root
    assert wire.merkle_root("u", leaves) != root
    with pytest.raises(ValueError, match="at least one leaf"):
        wire.merkle_root("t", [])
