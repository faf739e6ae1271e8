# SPDX-License-Identifier: Apache-2.0
"""Vectors of encoding (SPEC 2): one function each."""

from __future__ import annotations

from collections.abc import Sequence

from secure_fl.randomness import SeededInsecure

from . import reference as ref
from .reference import SPEC, Value
from .world import Json, case, fault

REFUSED = fault("Refused")
MALFORMED = fault("ProtocolError")


def _random(name: str) -> SeededInsecure:
    return SeededInsecure(f"secure-fl/masking/1 vectors {name}".encode())


def tagged(value: Value) -> Json:
    """A wire value as JSON: its type is spelled out."""
    if isinstance(value, int):
        return {"int": str(value)}
    if isinstance(value, bytes):
        return {"bytes": value.hex()}
    if isinstance(value, str):
        return {"text": value}
    if isinstance(value, dict):
        return {"map": [[k, tagged(v)] for k, v in value.items()]}
    assert isinstance(value, Sequence)
    return {"array": [tagged(item) for item in value]}


def _unfolding() -> str:
    """Pairs of references, each to the pair before: 24 doublings in 200 bytes."""
    pair = "d81c8200" + "00"
    for number in range(24):
        inner = f"d81d{number:02x}" if number < 24 else f"d81d18{number:02x}"
        pair += f"d81c82{inner}{inner}"
    return "9818" + pair


def wire_cases() -> list[Json]:
    good: list[tuple[str, Value]] = [
        ("zero", 0),
        ("the last integer of one byte", 23),
        ("the first integer of two bytes", 24),
        ("the largest integer", 2**64 - 1),
        ("the smallest integer", -(2**63)),
        ("no bytes", b""),
        ("24 bytes: the length takes a byte of its own", bytes(range(24))),
        ("text beyond ASCII", "Zürich"),
        ("text that begins with a byte order mark", "\ufeff"),
        ("a map, its keys in order", {0: 1, 10: b"\x01", 23: [2, "c"]}),
        ("arrays nested eight deep", [[[[[[[[0]]]]]]]]),
    ]
    bad = [
        ("E12", "nothing", ""),
        ("E11", "an integer in a longer form than it needs", "1817"),
        ("E11", "a length in a longer form than it needs", "580100"),
        ("E13", "a byte left over", "0000"),
        ("E12", "bytes cut short", "4301"),
        ("E12", "more bytes promised than a machine holds", "5bffffffffffffffff"),
        ("E12", "more items promised than a machine holds", "9bffffffffffffffff"),
        ("E12", "a head that CBOR reserves", "1c"),
        ("E4", "an array of indefinite length", "9f00ff"),
        ("E4", "bytes of indefinite length", "5f4100ff"),
        ("E4", "a map of indefinite length", "bf0000ff"),
        ("E8", "keys out of order", "a201000000"),
        ("E9", "a key twice", "a200000001"),
        ("E7", "key 24", "a1181800"),
        ("E7", "a negative key", "a12000"),
        ("E7", "a text key", "a1616100"),
        ("E3", "true", "f5"),
        ("E3", "null", "f6"),
        ("E3", "undefined", "f7"),
        ("E3", "another simple value", "e0"),
        ("E2", "a float", "f93c00"),
        ("E2", "a float of 64 bits", "fb3ff0000000000000"),
        ("E1", "a tagged number", "c100"),
        ("E1", "an integer beyond 64 bits, as a tag", "c249010000000000000000"),
        ("E5", "a negative integer below -2^63", "3b8000000000000000"),
        ("E6", "text that is not UTF-8", "61ff"),
        ("E6", "text in a longer form of UTF-8 than it needs", "62c080"),
        ("E6", "half of a surrogate pair", "63eda080"),
        ("E10", "arrays nested nine deep", "81" * 9 + "00"),
        ("E10", "maps nested nine deep", "a100" * 9 + "00"),
        ("E1", "a shared value and a reference to it", "82d81c8100d81d00"),
        ("E1", "shared values that would unfold to 2^24 numbers", _unfolding()),
        (
            "E1",
            "text kept for reference, and a reference to it",
            "d901008263616263d81900",
        ),
    ]
    out = [
        case(why, {"bytes": ref.cbor(v).hex()}, {"value": tagged(v)}) for why, v in good
    ]
    return out + [
        case(why, {"bytes": data}, MALFORMED, check) for check, why, data in bad
    ]


def hash_cases() -> list[Json]:
    random = _random("hash")
    seed, label = random.bytes(32), f"{SPEC} example"
    parts: list[Value] = [random.bytes(32), 7, [b"", "text"]]
    signature = ref.sign(seed, label, *parts)
    public = ref.ed25519_public(seed)

    def signed(why: str, check: str = "", **changes: object) -> Json:
        input_: Json = {
            "op": "verify",
            "public_key": public.hex(),
            "label": label,
            "parts": [tagged(p) for p in parts],
            "signature": signature.hex(),
        }
        expect: Json = REFUSED if check else {"valid": True}
        return case(why, {**input_, **changes}, expect, check)

    bent = bytes([signature[0] ^ 1]) + signature[1:]
    # The same signature with the group's order added to its second half.
    order = 2**252 + 27742317777372353535851937790883648493
    high = int.from_bytes(signature[32:], "little") + order
    return [
        case(
            "a label and three parts",
            {"op": "digest", "label": label, "parts": [tagged(p) for p in parts]},
            {"digest": ref.digest(label, *parts).hex()},
        ),
        case(
            "a label alone",
            {"op": "digest", "label": label, "parts": []},
            {"digest": ref.digest(label).hex()},
        ),
        signed("a signature"),
        signed("one bit of the signature is another", "E14", signature=bent.hex()),
        signed(
            "the signature's scalar is not reduced",
            "E15",
            signature=(signature[:32] + ref.le32(high)).hex(),
        ),
        signed("the label is another", "E14", label=f"{SPEC} other"),
        signed("one part is missing", "E14", parts=[tagged(p) for p in parts[:2]]),
        signed(
            "the key is another",
            "E14",
            public_key=ref.ed25519_public(bytes(32)).hex(),
        ),
    ]


def tree_cases() -> list[Json]:
    random = _random("tree")
    label = f"{SPEC} example"
    out = []
    for count, index in ((1, 0), (2, 1), (3, 2), (5, 4), (6, 3), (7, 6), (8, 5)):
        leaves = [random.bytes(4) for _ in range(count)]
        root = ref.tree(label, leaves)[-1][0]
        path = ref.tree_path(label, leaves, index)
        base: Json = {
            "label": label,
            "count": count,
            "index": index,
            "leaf": leaves[index].hex(),
            "path": [node.hex() for node in path],
            "root": root.hex(),
        }
        whole: Json = {**base, "leaves": [leaf.hex() for leaf in leaves]}
        out.append(case(f"leaf {index} of {count}", whole, {"valid": True}))
        if count == 5:
            out += bad_paths(base, label, leaves)
    return out


def bad_paths(base: Json, label: str, leaves: list[bytes]) -> list[Json]:
    """Against leaf 4 of 5, whose path is the one node beside it near the root."""
    path = ref.tree_path(label, leaves, 4)
    low = ref.digest(label + " leaf", leaves[4])
    # What a verifier finds that takes place 5 for the neighbour of place 4.
    beyond = ref.digest(label + " node", bytes(32), low)
    beyond = ref.digest(label + " node", path[0], beyond)
    longer = [bytes(32).hex(), path[0].hex()]
    changes: list[tuple[str, str, Json]] = [
        ("E19", "another leaf than leaf 4 of 5", {"leaf": "00000000"}),
        ("E19", "another place than leaf 4 of 5", {"index": 3}),
        ("E19", "another number of leaves than leaf 4 of 5", {"count": 8}),
        ("E16", "a place beyond the leaves", {"index": 5}),
        (
            "E16",
            "a place beyond the leaves, and a root that is made for it",
            {"index": 5, "path": longer, "root": beyond.hex()},
        ),
        ("E18", "a node too many", {"path": [path[0].hex(), "00" * 32]}),
        ("E17", "no path", {"path": []}),
        (
            "E17",
            "no path, and the leaf's hash for a root",
            {"path": [], "root": low.hex()},
        ),
        ("E19", "another root than leaf 4 of 5", {"root": "00" * 32}),
        ("E19", "another label than leaf 4 of 5", {"label": f"{SPEC} other"}),
    ]
    return [case(why, {**base, **c}, REFUSED, check) for check, why, c in changes]


def key_text_cases() -> list[Json]:
    public = ref.ed25519_public(_random("key text").bytes(32))
    text = ref.key_text(public)
    swapped = text[:20] + text[21] + text[20] + text[22:]
    refused = fault("UsageError")
    bad = [
        ("E22", "no prefix", text.removeprefix("sfl1")),
        ("E22", "another version's prefix", "sfl2" + text[4:]),
        ("E23", "upper case", "sfl1" + text[4:].upper()),
        ("E25", "two letters swapped", swapped),
        ("E24", "one letter short", text[:-1]),
        ("E24", "one letter long", text + "a"),
        ("E23", "a digit that base32 does not have", text[:-1] + "1"),
        ("E24", "padding", text + "========"),
        ("E24", "a space at the end", text + " "),
        (
            "E23",
            "a letter whose upper case is ASCII",
            "sfl1" + text[4:].replace("i", "\u0131", 1),
        ),
    ]
    good = [
        case("a public key", {"text": text}, {"public_key": public.hex()}),
        case("zeros", {"text": ref.key_text(bytes(32))}, {"public_key": "00" * 32}),
    ]
    return good + [
        case(why, {"text": value}, refused, check) for check, why, value in bad
    ]
