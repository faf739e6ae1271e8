# SPDX-License-Identifier: Apache-2.0
"""Vectors of encoding, context and cryptography: one function each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from secure_fl.randomness import SeededInsecure

from . import reference as ref
from . import steps
from .reference import PRIME, SPEC, Value
from .world import LOW_ORDER, Json, World, case, context, fault, session_json

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
        ("a map, its keys in order", {0: 1, 10: b"\x01", 23: [2, "c"]}),
        ("arrays nested eight deep", [[[[[[[[0]]]]]]]]),
    ]
    bad = [
        ("nothing", ""),
        ("an integer in a longer form than it needs", "1817"),
        ("a length in a longer form than it needs", "580100"),
        ("a byte left over", "0000"),
        ("bytes cut short", "4301"),
        ("an array of indefinite length", "9f00ff"),
        ("bytes of indefinite length", "5f4100ff"),
        ("a map of indefinite length", "bf0000ff"),
        ("keys out of order", "a201000000"),
        ("a key twice", "a200000001"),
        ("key 24", "a1181800"),
        ("a negative key", "a12000"),
        ("a text key", "a1616100"),
        ("true", "f5"),
        ("null", "f6"),
        ("undefined", "f7"),
        ("a float", "f93c00"),
        ("a float of 64 bits", "fb3ff0000000000000"),
        ("a tagged number", "c100"),
        ("an integer beyond 64 bits, as a tag", "c249010000000000000000"),
        ("a negative integer below -2^63", "3b8000000000000000"),
        ("text that is not UTF-8", "61ff"),
        ("arrays nested nine deep", "81" * 9 + "00"),
        ("a shared value and a reference to it", "82d81c8100d81d00"),
        ("shared values that would unfold to 2^24 numbers", _unfolding()),
        ("text kept for reference, and a reference to it", "d901008263616263d81900"),
    ]
    out = [
        case(why, {"bytes": ref.cbor(v).hex()}, {"value": tagged(v)}) for why, v in good
    ]
    return out + [case(why, {"bytes": data}, MALFORMED) for why, data in bad]


def hash_cases() -> list[Json]:
    random = _random("hash")
    seed, label = random.bytes(32), f"{SPEC} example"
    parts: list[Value] = [random.bytes(32), 7, [b"", "text"]]
    signature = ref.sign(seed, label, *parts)
    public = ref.ed25519_public(seed)

    def signed(why: str, expect: Json, **changes: object) -> Json:
        input_: Json = {
            "op": "verify",
            "public_key": public.hex(),
            "label": label,
            "parts": [tagged(p) for p in parts],
            "signature": signature.hex(),
        }
        return case(why, {**input_, **changes}, expect)

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
        signed("a signature", {"valid": True}),
        signed("one bit of the signature is another", REFUSED, signature=bent.hex()),
        signed(
            "the signature's scalar is not reduced",
            REFUSED,
            signature=(signature[:32] + ref.le32(high)).hex(),
        ),
        signed("the label is another", REFUSED, label=f"{SPEC} other"),
        signed("one part is missing", REFUSED, parts=[tagged(p) for p in parts[:2]]),
        signed(
            "the key is another",
            REFUSED,
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
            changes: list[tuple[str, Json]] = [
                ("another leaf", {"leaf": "00000000"}),
                ("another place", {"index": 3}),
                ("another number of leaves", {"count": 8}),
                ("a place beyond the leaves", {"index": 5}),
                ("a node too many", {"path": [*(n.hex() for n in path), "00" * 32]}),
                ("no path", {"path": []}),
                ("another root", {"root": "00" * 32}),
                ("another label", {"label": f"{SPEC} other"}),
            ]
            out += [
                case(
                    f"{why} than leaf 4 of 5" if "another" in why else why,
                    {**base, **change},
                    REFUSED,
                )
                for why, change in changes
            ]
    return out


def key_text_cases() -> list[Json]:
    public = ref.ed25519_public(_random("key text").bytes(32))
    text = ref.key_text(public)
    swapped = text[:20] + text[21] + text[20] + text[22:]
    refused = fault("UsageError")
    bad = [
        ("no prefix", text.removeprefix("sfl1")),
        ("another version's prefix", "sfl2" + text[4:]),
        ("upper case", "sfl1" + text[4:].upper()),
        ("two letters swapped", swapped),
        ("one letter short", text[:-1]),
        ("one letter long", text + "a"),
        ("a digit that base32 does not have", text[:-1] + "1"),
        ("padding", text + "========"),
        ("a space at the end", text + " "),
        (
            "a letter whose upper case is ASCII",
            "sfl1" + text[4:].replace("i", "\u0131", 1),
        ),
    ]
    good = [
        case("a public key", {"text": text}, {"public_key": public.hex()}),
        case("zeros", {"text": ref.key_text(bytes(32))}, {"public_key": "00" * 32}),
    ]
    return good + [case(why, {"text": value}, refused) for why, value in bad]


def context_cases() -> list[Json]:
    random = _random("context")
    c = context(random, 4, length=1000, word_bits=32, chunk_words=256)
    session = session_json(c)
    parameters = session["parameters"]
    assert isinstance(parameters, dict)

    def good(why: str, c: ref.Context) -> Json:
        return case(why, {"session": session_json(c)}, {"ctx": c.ctx.hex()})

    def bad(why: str, error: str, change: Json, numbers: Json | None = None) -> Json:
        changed = {**parameters, **(numbers or {})}
        input_: Json = {"session": {**session, "parameters": changed, **change}}
        return case(why, input_, fault(error))

    roster = session["roster"]
    assert isinstance(roster, list)
    six = context(random, 6, length=1, word_bits=8, chunk_words=1)
    return [
        good("four clients", c),
        good("another attempt", replace(c, attempt=1)),
        good("another model", replace(c, model_hash=bytes(32))),
        good("a higher threshold", replace(c, threshold=4)),
        good("another name in the roster", replace(c, names=("a", "b", "c", "é"))),
        good("six clients", six),
        bad("a threshold of half the clients", "PlanError", {}, {"threshold": 2}),
        bad("a threshold above the clients", "PlanError", {}, {"threshold": 5}),
        bad(
            "a threshold too low for two colluders of four",
            "PlanError",
            {},
            {"max_colluding": 2, "min_clients": 4, "threshold": 3},
        ),
        bad(
            "fewer clients in the sum than two honest ones",
            "PlanError",
            {},
            {"min_clients": 2},
        ),
        bad(
            "more clients in the sum than there are",
            "PlanError",
            {},
            {"min_clients": 5},
        ),
        bad("words of 65 bits", "PlanError", {}, {"word_bits": 65}),
        bad("words of 7 bits", "PlanError", {}, {"word_bits": 7}),
        bad("an empty vector", "PlanError", {}, {"length": 0}),
        bad("empty chunks", "PlanError", {}, {"chunk_words": 0}),
        bad("a roster of three for four clients", "UsageError", {"roster": roster[:3]}),
        bad(
            "one key twice in the roster",
            "UsageError",
            {"roster": [*roster[:3], ["bank-d", roster[0][1]]]},
        ),
        bad(
            "one name twice in the roster",
            "UsageError",
            {"roster": [*roster[:3], ["bank-a", roster[3][1]]]},
        ),
        bad("a plan hash of 31 bytes", "UsageError", {"plan_hash": "00" * 31}),
        bad("a run id of 32 bytes", "UsageError", {"run_id": "00" * 32}),
    ]


def shamir_cases() -> list[Json]:
    random = _random("shamir")
    numbers = ref.elements(random.bytes(32), "example", 4)
    out = []
    for why, secret, coefficients, xs in (
        ("three of five", numbers[0], numbers[1:3], [1, 2, 3, 4, 5]),
        ("one of two: the secret itself", numbers[0], [], [1, 2]),
        ("the largest element", PRIME - 1, [PRIME - 1, PRIME - 1], [1, 2, 200]),
    ):
        values = [ref.polynomial(secret, coefficients, x) for x in xs]
        out.append(
            case(
                why,
                {
                    "op": "share",
                    "secret": ref.le32(secret).hex(),
                    "coefficients": [ref.le32(c).hex() for c in coefficients],
                    "xs": xs,
                },
                {"shares": [ref.le32(v).hex() for v in values]},
            )
        )
        t = len(coefficients) + 1
        points = dict(list(zip(xs, values, strict=True))[-t:])
        out.append(
            case(
                f"{why}: the last {t} shares are enough",
                {
                    "op": "reconstruct",
                    "shares": {str(x): ref.le32(v).hex() for x, v in points.items()},
                },
                {"secret": ref.le32(secret).hex()},
            )
        )
    uniform = random.bytes(48)
    element = int.from_bytes(uniform, "little") % PRIME
    out.append(
        case(
            "an element from 48 bytes",
            {"op": "element", "bytes": uniform.hex()},
            {"element": ref.le32(element).hex()},
        )
    )
    out.append(
        case(
            "the largest element",
            {"op": "parse", "bytes": ref.le32(PRIME - 1).hex()},
            {"element": ref.le32(PRIME - 1).hex()},
        )
    )
    for why, data in (
        ("the prime itself", ref.le32(PRIME)),
        ("one more than the prime", ref.le32(PRIME + 1)),
        ("all bits set", b"\xff" * 32),
        ("31 bytes", bytes(31)),
        ("33 bytes", bytes(33)),
        ("nothing", b""),
    ):
        out.append(case(why, {"op": "parse", "bytes": data.hex()}, REFUSED))
    return out


def key_cases() -> list[Json]:
    w = World("keys")
    a, b, d = w.everyone[0], w.everyone[1], w.everyone[3]
    ctx = w.c.ctx.hex()

    def pair(mine: steps.Party, other: steps.Party) -> Json:
        return {
            "op": "pair",
            "ctx": ctx,
            "private_key": mine.mask_seed.hex(),
            "public_key": other.mask_key.hex(),
            "cohort": w.cohort.hex(),
            "pair": [mine.index, other.index],
        }

    def seed(mine: steps.Party, other: steps.Party) -> Json:
        return {"seed": steps.pair_seed(mine, other, w.cohort).hex()}

    # RFC 7748, section 6.1, and the points of small order with their twins.
    low = [
        ("zero", bytes(32)),
        ("one", b"\x01" + bytes(31)),
        (
            "order eight",
            bytes.fromhex(
                "e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"
            ),
        ),
        (
            "order eight, the other",
            bytes.fromhex(
                "5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"
            ),
        ),
        ("p - 1", ref.le32(PRIME - 1)),
        ("p, which is zero", ref.le32(PRIME)),
        ("p + 1, which is one", ref.le32(PRIME + 1)),
        ("zero with the top bit set", bytes(31) + b"\x80"),
    ]
    start: Json = {
        "beta": ref.le32(a.beta).hex(),
        "z": ref.le32(a.z).hex(),
        "seal_private_key": a.seal_seed.hex(),
        "seal_key": a.seal_key.hex(),
        "mask_private_key": a.mask_seed.hex(),
        "mask_key": a.mask_key.hex(),
        "self_seed": a.self_seed.hex(),
    }
    degree = w.c.threshold - 1
    return [
        case(
            "from 32 random bytes to the keys of step 1",
            {"op": "start", "ctx": ctx, "random": a.random_1.hex()},
            start,
        ),
        case(
            "from 32 random bytes to the coefficients of step 2",
            {"op": "coefficients", "random": a.random_2.hex(), "count": 2 * degree},
            {"coefficients": [ref.le32(v).hex() for v in (*a.for_self, *a.for_key)]},
        ),
        case("the seed that bank-a computes", pair(a, d), seed(a, d)),
        case("the same seed, computed by bank-d", pair(d, a), seed(a, d)),
        case(
            "a public key whose top bit is set is the same point",
            {
                **pair(a, b),
                "public_key": (b.mask_key[:31] + bytes([b.mask_key[31] | 128])).hex(),
            },
            seed(a, b),
        ),
        *(
            case(
                f"a public key of low order: {why}",
                {**pair(a, d), "public_key": key.hex()},
                REFUSED,
            )
            for why, key in low
        ),
    ]


def stream_cases() -> list[Json]:
    random = _random("stream")
    out = []
    for bits, chunk, count in (
        (8, 0, 5),
        (13, 0, 5),
        (16, 1, 9),
        (20, 0, 5),
        (32, 0, 9),
        (32, 24, 9),
        (33, 2, 5),
        (63, 0, 3),
        (64, 2**32, 3),
    ):
        seed = random.bytes(32)
        words = ref.keystream(seed, chunk, count, bits)
        out.append(
            case(
                f"{count} words of {bits} bits, chunk {chunk}",
                {"seed": seed.hex(), "chunk": chunk, "count": count, "word_bits": bits},
                {"words": [str(w) for w in words]},
            )
        )
    return out


def box_cases() -> list[Json]:
    random = _random("box")
    key, ephemeral, ctx, cohort = (random.bytes(32) for _ in range(4))
    plain = random.bytes(64)
    info = ref.cbor([f"{SPEC} box", ctx, cohort, 0, 2])
    box = ref.seal(plain, ref.x25519_public(key), info, ephemeral)
    base: Json = {
        "private_key": key.hex(),
        "ctx": ctx.hex(),
        "cohort": cohort.hex(),
        "dealer": 0,
        "to": 2,
        "box": box.hex(),
    }
    bad: list[tuple[str, Json]] = [
        ("another context", {"ctx": "00" * 32}),
        ("another cohort", {"cohort": "00" * 32}),
        ("another dealer", {"dealer": 1}),
        ("another receiver", {"to": 1}),
        ("dealer and receiver exchanged", {"dealer": 2, "to": 0}),
        ("another private key", {"private_key": ephemeral.hex()}),
        (
            "one bit of the tag is another",
            {"box": (box[:-1] + bytes([box[-1] ^ 1])).hex()},
        ),
        (
            "another encapsulated key",
            {"box": (ref.x25519_public(cohort) + box[32:]).hex()},
        ),
        ("an encapsulated key of low order", {"box": (LOW_ORDER + box[32:]).hex()}),
        ("cut short", {"box": box[:-1].hex()}),
        ("shorter than its overhead", {"box": box[:47].hex()}),
        ("empty", {"box": ""}),
    ]
    good = case("a box from client 0 to client 2", base, {"plain": plain.hex()})
    return [good, *(case(why, {**base, **c}, REFUSED) for why, c in bad)]
