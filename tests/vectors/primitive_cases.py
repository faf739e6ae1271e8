# SPDX-License-Identifier: Apache-2.0
"""Vectors of context and cryptography: one function each."""

from __future__ import annotations

from dataclasses import replace

from secure_fl.randomness import SeededInsecure

from . import reference as ref
from . import steps
from .reference import PRIME, SPEC
from .world import LOW_ORDER, Json, World, case, context, fault, session_json

REFUSED = fault("Refused")
# On edwards25519: doubled once, it is a point with y = 0.
ORDER_8 = "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05"


def _random(name: str) -> SeededInsecure:
    return SeededInsecure(f"secure-fl/masking/1 vectors {name}".encode())


def context_cases() -> list[Json]:
    random = _random("context")
    c = context(random, 4, length=1000, word_bits=32, chunk_words=256)
    session = session_json(c)
    parameters = session["parameters"]
    assert isinstance(parameters, dict)

    def good(why: str, c: ref.Context) -> Json:
        return case(why, {"session": session_json(c)}, {"ctx": c.ctx.hex()})

    def unsafe(check: str, why: str, **numbers: int) -> Json:
        changed = {**parameters, **numbers}
        input_: Json = {"session": {**session, "parameters": changed}}
        return case(why, input_, fault("PlanError"), check)

    def bad(check: str, why: str, **change: object) -> Json:
        input_: Json = {"session": {**session, **change}}
        return case(why, input_, fault("UsageError"), check)

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
        unsafe("P12", "a threshold of half the clients", threshold=2),
        unsafe("P13", "a threshold above the clients", threshold=5),
        unsafe(
            "P12",
            "a threshold too low for two colluders of four",
            max_colluding=2,
            min_clients=4,
            threshold=3,
        ),
        unsafe("P14", "fewer clients in the sum than two honest ones", min_clients=2),
        unsafe("P15", "more clients in the sum than there are", min_clients=5),
        unsafe("P9", "words of 65 bits", word_bits=65),
        unsafe("P8", "words of 7 bits", word_bits=7),
        unsafe("P7", "an empty vector", length=0),
        unsafe("P10", "empty chunks", chunk_words=0),
        unsafe("P11", "fewer than no colluders", max_colluding=-1),
        bad("P6", "a roster of three for four clients", roster=roster[:3]),
        bad(
            "P5",
            "one key twice in the roster",
            roster=[*roster[:3], ["bank-d", roster[0][1]]],
        ),
        bad(
            "P4",
            "one name twice in the roster",
            roster=[*roster[:3], ["bank-a", roster[3][1]]],
        ),
        bad("P1", "a plan hash of 31 bytes", plan_hash="00" * 31),
        bad("P2", "a model hash of 31 bytes", model_hash="00" * 31),
        bad("P3", "a run id of 32 bytes", run_id="00" * 32),
        bad("P25", "a round before the first", round=-1),
        bad("P26", "an attempt before the first", attempt=-1),
        *(
            bad(check, f"in the roster {why}", roster=[*roster[:3], ["bank-d", key]])
            for check, why, key in (
                ("P27", "a key of 31 bytes", "00" * 31),
                ("P28", "a key that is p + 3", ref.le32(PRIME + 3).hex()),
                ("P28", "a key that is no point", ref.le32(2).hex()),
                ("P28", "the neutral point", ref.le32(1).hex()),
                ("P28", "a point of order 2", ref.le32(PRIME - 1).hex()),
                ("P28", "a point of order 4", ref.le32(0).hex()),
                ("P28", "a point of order 8", ORDER_8),
                ("P28", "a point of order 8, negative", ORDER_8[:62] + "85"),
            )
        ),
    ]


def shamir_cases() -> list[Json]:
    random = _random("shamir")
    numbers = ref.elements(bytes(32), random.bytes(32), "example", 4)
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
    for check, why, data in (
        ("E27", "the prime itself", ref.le32(PRIME)),
        ("E27", "one more than the prime", ref.le32(PRIME + 1)),
        ("E27", "all bits set", b"\xff" * 32),
        ("E26", "31 bytes", bytes(31)),
        ("E26", "33 bytes", bytes(33)),
        ("E26", "nothing", b""),
    ):
        parse: Json = {"op": "parse", "bytes": data.hex()}
        out.append(case(why, parse, REFUSED, check))
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
            {
                "op": "coefficients",
                "ctx": ctx,
                "random": a.random_2.hex(),
                "count": 2 * degree,
            },
            {"coefficients": [ref.le32(v).hex() for v in (*a.for_self, *a.for_key)]},
        ),
        case("the seed that bank-a computes", pair(a, d), seed(a, d)),
        case("the same seed, computed by bank-d", pair(d, a), seed(a, d)),
        *(
            case(
                f"a public key in another form: {why}",
                {**pair(a, b), "public_key": ref.le32(number).hex()},
                REFUSED,
                "E48",
            )
            for why, number in (
                ("its top bit is set", int.from_bytes(b.mask_key, "little") | 1 << 255),
                ("p + 9, the base point", PRIME + 9),
            )
        ),
        *(
            case(
                f"a public key of low order: {why}",
                {**pair(a, d), "public_key": key.hex()},
                REFUSED,
                "E28" if int.from_bytes(key, "little") < PRIME else "E48",
            )
            for why, key in low
        ),
    ]


def attached_cases() -> list[Json]:
    """SPEC 4.2: for a payload beside the vector, so for who has one."""
    w, other = World("attached"), World("attached elsewhere")
    beta = w.everyone[0].beta

    def one(why: str, ctx: bytes, beta: int) -> Json:
        input_: Json = {"ctx": ctx.hex(), "beta": ref.le32(beta).hex()}
        seed = ref.derive(ctx, ref.le32(beta), "attached")
        return case(why, input_, {"seed": seed.hex()})

    return [
        one("bank-a's seed", w.c.ctx, beta),
        one("bank-b's", w.c.ctx, w.everyone[1].beta),
        one("of the same secret, in another context", other.c.ctx, beta),
        one("of a secret that is one", w.c.ctx, 1),
        one("of the largest secret", w.c.ctx, PRIME - 1),
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
        ("cut short", {"box": box[:-1].hex()}),
        ("shorter than its overhead", {"box": box[:47].hex()}),
        ("empty", {"box": ""}),
    ]
    good = case("a box from client 0 to client 2", base, {"plain": plain.hex()})
    # Anybody can make the second box: its shared secret is known to all.
    fits = ref.seal_under(bytes(32), plain, ref.x25519_public(key), info, LOW_ORDER)
    low = [
        ("an encapsulated key of low order", LOW_ORDER + box[32:]),
        ("an encapsulated key of low order, and a ciphertext that fits it", fits),
    ]
    # Its dealer used this form of the key in the key schedule, too.
    enc = ref.x25519_public(ephemeral)
    enc = enc[:31] + bytes([enc[31] | 128])
    dh = ref.x25519(ephemeral, ref.x25519_public(key))
    other = ref.seal_under(dh, plain, ref.x25519_public(key), info, enc)
    return [
        good,
        case(
            "an encapsulated key in another form, and a ciphertext that fits it",
            {**base, "box": other.hex()},
            REFUSED,
            "E48",
        ),
        *(case(why, {**base, **c}, REFUSED, "E29") for why, c in bad),
        *(case(why, {**base, "box": b.hex()}, REFUSED, "E30") for why, b in low),
    ]
