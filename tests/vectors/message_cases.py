# SPDX-License-Identifier: Apache-2.0
"""Vectors of single messages and of fixed-point words."""

from __future__ import annotations

from collections.abc import Callable

import cbor2

from . import reference as ref
from . import steps
from .reference import Value
from .world import Json, World, case, edit, fault, session_json

REFUSED = fault("Refused")
MALFORMED = fault("ProtocolError")


def fixed_point_cases() -> list[Json]:
    half = [0.5] * 6

    def encode(
        why: str,
        x: list[float],
        dither: list[float],
        *,
        clip: float = 1.0,
        step: float = 2.0**-10,
        bits: int = 20,
        clients: int = 4,
        max_weight: int = 1,
        weight: int = 1,
        error: str = "",
        check: str = "",
    ) -> Json:
        input_: Json = {
            "op": "encode",
            "clip": repr(clip),
            "step": repr(step),
            "word_bits": bits,
            "clients": clients,
            "max_weight": max_weight,
            "weight": weight,
            "x": [repr(v) for v in x],
            "dither": [repr(v) for v in dither],
        }
        if error:
            return case(why, input_, fault(error), check)
        words = ref.encode_reals(
            x, dither, clip=clip, step=step, bits=bits, weight=weight
        )
        clipped = sum(abs(v) > clip for v in x)
        expect: Json = {"words": [str(w) for w in words], "clipped": clipped}
        return case(why, input_, expect)

    def decode(why: str, bits: int, step: float, sums: list[int]) -> Json:
        input_: Json = {
            "op": "decode",
            "word_bits": bits,
            "step": repr(step),
            "words": [str(s % 2**bits) for s in sums],
        }
        return case(why, input_, {"x": [repr(s * step) for s in sums]})

    def packed(why: str, words: list[int], bits: int) -> Json:
        input_: Json = {"op": "unpack", "count": len(words), "word_bits": bits}
        data = ref.pack(words, bits).hex()
        return case(why, {**input_, "bytes": data}, {"words": [str(w) for w in words]})

    def unpacked(check: str, why: str, count: int, bits: int, data: str) -> Json:
        input_: Json = {
            "op": "unpack",
            "count": count,
            "word_bits": bits,
            "bytes": data,
        }
        return case(why, input_, REFUSED, check)

    x = [0.0, 0.3, -0.3, 1.0, -1.0, 1.5]
    return [
        encode("to the nearest", x, half),
        encode(
            "rounded up and down by the dither",
            [0.3, 0.3, -0.3, -0.3],
            [0.0, 0.999, 0.0, 0.999],
        ),
        # One step is 2^-10 here as everywhere where none is given.
        encode("half way between two words", [2.0**-11, -(2.0**-11)], [0.5, 0.5]),
        encode("a weight multiplies after rounding", x, half, max_weight=7, weight=5),
        encode(
            "a step that does not divide the clip", x, half, step=0.3, bits=8, clients=2
        ),
        encode(
            "a grid point stays itself under any dither",
            [0.25, -0.25],
            [0.0, 0.9999999999999999],
        ),
        encode("a sum that just fits", x, half, step=2.0**-5, bits=8, clients=3),
        *refused_encodings(encode, x, half),
        decode("20 bits, either sign", 20, 2.0**-10, [0, 1, -1, 2**19 - 1, -(2**19)]),
        decode("64 bits", 64, 2.0**-20, [2**40, -(2**40), -1]),
        packed("words of 20 bits", [1, 2**20 - 1, 5], 20),
        packed("words of 13 bits", [1, 2**13 - 1, 5, 0, 77], 13),
        packed("words of 32 bits", [1, 2**32 - 1], 32),
        unpacked("E21", "the padding is not zero", 3, 20, "0100f0ffff050080"),
        unpacked("E20", "a byte short", 3, 20, ref.pack([1, 2, 3], 20)[:-1].hex()),
        unpacked("E20", "a byte long", 3, 20, ref.pack([1, 2, 3], 20).hex() + "00"),
        unpacked("E20", "a byte short, words of 32 bits", 2, 32, "00" * 7),
    ]


def refused_encodings(
    encode: Callable[..., Json], x: list[float], half: list[float]
) -> list[Json]:
    """SPEC 3.4: plans that no party may accept, and input that it refuses."""
    plan, own = "PlanError", "UsageError"
    small = {"step": 2.0**-5, "bits": 8, "error": plan, "check": "P20"}
    infinite = float("inf")
    return [
        encode("a sum that could wrap by one", x, half, **small, clients=4),
        encode(
            "a sum that could wrap through its weights",
            x,
            half,
            **small,
            clients=3,
            max_weight=2,
        ),
        encode(
            "a sum that a binary64 cannot hold",
            x,
            half,
            step=2.0**-51,
            bits=64,
            clients=4,
            error=plan,
            check="P29",
        ),
        encode(
            "a step so small that clip / step is not finite",
            x,
            half,
            step=2.0**-1074,
            bits=64,
            error=plan,
            check="P30",
        ),
        encode("words of 65 bits", x, half, bits=65, error=plan, check="P9"),
        encode("a step of zero", x, half, step=0.0, error=plan, check="P18"),
        encode(
            "a step that is not finite", x, half, step=infinite, error=plan, check="P19"
        ),
        encode("a negative clip", x, half, clip=-1.0, error=plan, check="P16"),
        encode("a clip of zero", x, half, clip=0.0, error=plan, check="P16"),
        encode(
            "a clip that is not finite", x, half, clip=infinite, error=plan, check="P17"
        ),
        encode(
            "a value that is not a number",
            [0.0, float("nan")],
            half[:2],
            error=own,
            check="P21",
        ),
        encode("an infinite value", [-infinite], half[:1], error=own, check="P21"),
        encode("a weight above the plan's", x, half, weight=2, error=own, check="P22"),
        encode("a weight of zero", x, half, weight=0, error=own, check="P22"),
    ]


def message_cases() -> list[Json]:
    w = World("messages", survived=[0, 1, 2])
    c, b = w.c, w.everyone[1]
    s = w.statement
    good = {
        1: ("Advertise", steps.advertise(c, b.row())),
        2: ("CohortKeys", steps.cohort_keys(c, w.rows)),
        3: ("SealedShares", w.deals[1].message()),
        4: ("Inbox", steps.inbox(c, w.inbox_rows(1))),
        5: ("Chunk", steps.chunk_message(c, 1, 1, w.chunks(b)[1])),
        6: ("MaskedInput", w.input_of(b).message()),
        7: ("Statement", s.message()),
        8: ("Agreement", steps.agreement(c, 1, s.signed_by(b))),
        9: ("Signatures", steps.signatures(c, w.agreed())),
        10: ("Reveal", steps.reveal(b, w.reveal_rows(b))),
    }
    session = session_json(c)

    def one(why: str, kind: int, data: bytes, check: str = "") -> Json:
        input_: Json = {"session": session, "kind": kind, "bytes": data.hex()}
        if kind == 4:
            input_["reader"] = 1
        expect: Json = MALFORMED if check else {"accepted": True}
        return case(f"{good[kind][0]}: {why}", input_, expect, check)

    def bad(check: str, why: str, kind: int, changes: dict[int, Value]) -> Json:
        return one(why, kind, edit(good[kind][1], changes), check)

    def rows(kind: int, key: int) -> list[list[Value]]:
        out: list[list[Value]] = cbor2.loads(good[kind][1])[key]
        return out

    out = [one("good", kind, data) for kind, (_, data) in good.items()]
    last = {1: 5, 2: 2, 3: 5, 4: 2, 5: 4, 6: 7, 7: 4, 8: 3, 9: 2, 10: 4}
    for kind, (_, data) in good.items():
        fields = cbor2.loads(data)
        out.append(bad("E33", "of another context", kind, {1: bytes(32)}))
        out.append(bad("E35", "a field more than it has", kind, {last[kind] + 1: 0}))
        del fields[last[kind]]
        out.append(one("its last field is missing", kind, ref.cbor(fields), "E34"))
        out.append(bad("E32", "of another kind", kind, {0: kind % 10 + 1}))
        if 2 in fields and isinstance(fields[2], int):
            out.append(bad("E38", "a client beyond the roster", kind, {2: 4}))
            out.append(bad("E38", "a client below zero", kind, {2: -1}))
            out.append(bad("E36", "a client's number is bytes", kind, {2: b"\x01"}))
    for kind, key in ((2, 2), (3, 4), (4, 2), (7, 4), (9, 2), (10, 3)):
        r = rows(kind, key)
        longer = [*r[0], 0]
        beyond = [*r, [4, *r[-1][1:]]]
        exchanged = [r[1], r[0], *r[2:]]
        out.append(bad("E40", "two rows exchanged", kind, {key: exchanged}))
        out.append(bad("E40", "a row twice", kind, {key: [r[0], *r]}))
        out.append(bad("E39", "a row is too short", kind, {key: [r[0][:-1], *r[1:]]}))
        out.append(bad("E39", "a row is too long", kind, {key: [longer, *r[1:]]}))
        out.append(
            bad("E41", "a row of a client beyond the roster", kind, {key: beyond})
        )
        out.append(bad("E36", "a row is not an array", kind, {key: [b"", *r]}))
    deal, box, revealed = rows(3, 4), rows(4, 2), rows(10, 3)

    def inbox_row(index: int, value: Value) -> dict[int, Value]:
        """The box of bank-a for bank-b, with one part of its row changed."""
        return {2: [[*box[0][:index], value, *box[0][index + 1 :]], *box[1:]]}

    own_box = [box[0], [*box[1][:2], box[0][2], *box[1][3:]], *box[2:]]
    root: Value = [0, bytes(31), bytes(32), b""]
    attached: Value = [0, bytes(32), bytes(32), bytes(31)]
    out += [
        bad("E37", "a key of 31 bytes", 1, {3: bytes(31)}),
        bad("E37", "a signature of 65 bytes", 1, {5: bytes(65)}),
        bad("E36", "a key is text", 1, {4: "a" * 32}),
        bad(
            "E42",
            "the dealer seals a box for itself",
            3,
            {4: [deal[0], [1, deal[0][1], *deal[1][2:]], *deal[2:]]},
        ),
        bad(
            "E43",
            "an empty box for another",
            3,
            {4: [[0, b"", *deal[0][2:]], *deal[1:]]},
        ),
        bad(
            "E43",
            "a box of 113 bytes",
            3,
            {4: [[0, bytes(113), *deal[0][2:]], *deal[1:]]},
        ),
        bad("E42", "a box in the reader's own row", 4, {2: own_box}),
        bad("E43", "an empty box from another", 4, inbox_row(2, b"")),
        bad("E36", "a path is not an array", 4, inbox_row(5, b"")),
        bad("E37", "a node of a path has 31 bytes", 4, inbox_row(5, [bytes(31)])),
        bad("E47", "a path of 65 nodes", 4, inbox_row(5, [bytes(32)] * 65)),
        bad("E44", "an index beyond the last chunk", 5, {3: 2}),
        bad("E45", "the last chunk is as long as the others", 5, {4: bytes(8)}),
        bad("E37", "an attached root of five bytes", 6, {6: bytes(5)}),
        bad("E37", "no claim", 6, {5: b""}),
        bad("E37", "a root of 31 bytes", 7, {4: [root, *rows(7, 4)[1:]]}),
        bad("E37", "an attached root of 31 bytes", 7, {4: [attached, *rows(7, 4)[1:]]}),
        bad(
            "E46",
            "a kind of share that does not exist",
            10,
            {3: [[0, 0, revealed[0][2]], *revealed[1:]]},
        ),
        bad("E37", "a share of 31 bytes", 10, {3: [[0, 1, bytes(31)], *revealed[1:]]}),
        one("a byte left over", 8, good[8][1] + b"\x00", "E13"),
        one("cut short", 8, good[8][1][:-1], "E12"),
        one(
            "its kind in two bytes",
            8,
            good[8][1].replace(b"\x00\x08", b"\x00\x18\x08", 1),
            "E11",
        ),
        one("an array, not a map", 8, ref.cbor([8, c.ctx, 1, bytes(64)]), "E31"),
    ]
    return out
