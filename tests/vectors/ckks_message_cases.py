# SPDX-License-Identifier: Apache-2.0
"""Vectors of single messages (SPEC 5)."""

from __future__ import annotations

import cbor2

from . import ckks_reference as ckks
from . import ckks_steps as steps
from .ckks_residues import block_bytes
from .ckks_seeds import expand_bytes
from .ckks_world import Blobs, context, session_json
from .reference import Value, cbor
from .world import Json, case, edit, fault

MALFORMED = fault("ProtocolError")
NAMES = {
    12: "Ciphertext",
    13: "Call",
    14: "HolderKey",
    15: "Invitation",
    16: "Input",
    17: "Request",
    18: "Release",
    19: "Refusal",
}


class Messages:
    """One good message of each kind; what stands in them need not open."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.c = c = context("messages", "keyholder")
        sealed = self.expand("chunk", block_bytes(c.packing) + 16)
        holder, aggregator = (steps.public(bytes([i] * 32)) for i in (1, 2))
        self.inputs = [self.input(client) for client in range(3)]
        self.good = {
            12: steps.message(c, 12, 1, 1, sealed),
            13: steps.call(c, aggregator),
            14: steps.holder_key(c, holder),
            15: steps.invitation(c, holder, aggregator),
            16: self.inputs[1].message(),
            17: steps.request(c, [i.row() for i in self.inputs]),
            18: steps.release(c, [i.short_row() for i in self.inputs], self.box(3)),
            19: steps.refusal(c, 1),
        }

    def expand(self, what: str, size: int) -> bytes:
        seed = f"messages, {what}"
        recipe: Json = {"expand": seed, "bytes": size}
        return self.blobs.recipe(expand_bytes(seed, size), recipe)

    def box(self, rows: int) -> bytes:
        """A release box's bytes, for so many rows."""
        packed = self.c.packing.size * ckks.key_bits(self.c.n) // 8
        return self.expand(f"release box {rows}", packed + 32 * rows + 48)

    def input(self, client: int) -> steps.Input:
        def some(what: str, size: int = 32) -> bytes:
            return expand_bytes(f"messages, {what} {client}", size)

        box = self.expand(f"key box {client}", self.c.packing.size + 32 + 48)
        rest = (some("payload"), some("claim"), box, some("chunk box", 80))
        return steps.Input(self.c, client, *rest)

    # -- one case -----------------------------------------------------------------

    def one(
        self,
        why: str,
        kind: int,
        data: bytes,
        check: str = "",
    ) -> Json:
        input_: Json = {
            "session": session_json(self.c),
            "kind": kind,
            "bytes": self.blobs.written(data),
        }
        expect: Json = MALFORMED if check else {"accepted": True}
        return case(f"{NAMES[kind]}: {why}", input_, expect, check)

    def bad(self, check: str, why: str, kind: int, changes: dict[int, Value]) -> Json:
        return self.one(why, kind, edit(self.good[kind], changes), check)


def message_cases(blobs: Blobs) -> list[Json]:
    m = Messages(blobs)
    c, good = m.c, m.good
    out = [m.one("good", kind, data) for kind, data in good.items()]
    out += [
        m.one("no culprit", 19, steps.refusal(c, c.n)),
        m.one("no row", 17, steps.request(c, [])),
        m.one("the first chunk", 12, edit(good[12], {3: 0})),
        m.one("the least length", 13, edit(good[13], {5: 1})),
        m.one("the largest length", 13, edit(good[13], {5: 2**40})),
    ]
    for kind, data in good.items():
        fields = cbor2.loads(data)
        last = max(fields)
        if kind != 13:  # a call is what tells its receiver the context
            out.append(m.bad("E33", "of another context", kind, {1: bytes(32)}))
        out.append(m.bad("E35", "a field more than it has", kind, {last + 1: 0}))
        del fields[last]
        out.append(m.one("its last field is missing", kind, cbor(fields), "E34"))
        other = 12 + (kind - 11) % 8
        out.append(m.bad("E32", "of another kind", kind, {0: other}))
    for kind in (12, 16):
        out.append(m.bad("E38", "a client beyond the roster", kind, {2: c.n}))
        out.append(m.bad("E38", "a client below zero", kind, {2: -1}))
        out.append(m.bad("E36", "a client's number is bytes", kind, {2: b"\x01"}))
    out += row_cases(m)
    out += length_cases(m)
    out += [
        m.bad("E38", "a culprit above the number that names nobody", 19, {2: c.n + 1}),
        m.bad("E38", "a culprit below zero", 19, {2: -1}),
        m.bad("E36", "a culprit by name", 19, {2: "bank-b"}),
        m.bad("E44", "an index beyond the last chunk", 12, {3: c.chunks}),
        m.bad("E36", "an index that is bytes", 12, {3: b"\x00"}),
        m.bad("E36", "a chunk that is text", 12, {4: "chunk"}),
        m.bad("E36", "a round that is bytes", 13, {2: b"\x03"}),
        m.bad("E36", "a length that is text", 13, {5: "8292"}),
        m.bad("E36", "a key is text", 14, {2: "a" * 32}),
        m.one("a byte left over", 19, good[19] + b"\x00", "E13"),
        m.one("cut short", 19, good[19][:-1], "E12"),
        m.one(
            "its kind in a longer form",
            19,
            good[19].replace(b"\x00\x13", b"\x00\x18\x13", 1),
            "E11",
        ),
        m.one("an array, not a map", 19, cbor([19, c.ctx, 1, bytes(64)]), "E31"),
        m.one("nothing", 16, b"", "E12"),
    ]
    return out


def row_cases(m: Messages) -> list[Json]:
    def box(kind: int, rows: int) -> dict[int, Value]:
        """A release box goes with the number of its rows."""
        return {3: m.box(rows)} if kind == 18 else {}

    out = []
    for kind in (17, 18):
        r: list[list[Value]] = cbor2.loads(m.good[kind])[2]
        beyond = [*r, [m.c.n, *r[-1][1:]]]
        for check, why, rows in (
            ("E40", "two rows exchanged", [r[1], r[0], r[2]]),
            ("E40", "a row twice", [r[0], *r]),
            ("E39", "a row is too short", [r[0][:-1], *r[1:]]),
            ("E39", "a row is too long", [[*r[0], 0], *r[1:]]),
            ("E41", "a row of a client beyond the roster", beyond),
            ("E36", "a row is not an array", [b"", *r]),
            ("E36", "a client's number is text", [["0", *r[0][1:]], *r[1:]]),
            ("E37", "a payload of 31 bytes", [[0, bytes(31), *r[0][2:]], *r[1:]]),
            ("E37", "no claim", [[*r[0][:2], b"", *r[0][3:]], *r[1:]]),
        ):
            out.append(m.bad(check, why, kind, {2: rows, **box(kind, len(rows))}))
        out.append(m.bad("E36", "rows that are no array", kind, {2: b""}))
    first: list[list[Value]] = cbor2.loads(m.good[17])[2]
    for place, why, value in (
        (3, "a key box that is a byte short", m.blobs.cut(m.inputs[0].key_box, 1)),
        (3, "an empty key box", b""),
        (4, "a box hash of 80 bytes", bytes(80)),
        (5, "a signature of 63 bytes", bytes(63)),
    ):
        row = [*first[0][:place], value, *first[0][place + 1 :]]
        out.append(m.bad("E37", why, 17, {2: [row, *first[1:]]}))
    return out


def length_cases(m: Messages) -> list[Json]:
    box, large = m.box(3), m.expand("a large box", 8192 + 32 + 48)
    bad: list[tuple[str, str, int, dict[int, Value]]] = [
        ("E37", "a model hash of 31 bytes", 13, {4: bytes(31)}),
        ("E37", "a length of no words", 13, {5: 0}),
        ("E37", "a length beyond 2^40", 13, {5: 2**40 + 1}),
        ("E37", "an aggregator's key of 31 bytes", 13, {6: bytes(31)}),
        ("E37", "a signature of 65 bytes", 13, {7: bytes(65)}),
        ("E37", "a key of 33 bytes", 14, {2: bytes(33)}),
        ("E37", "an empty signature", 14, {3: b""}),
        ("E37", "no key of the key holder", 15, {2: b""}),
        ("E37", "a key of the aggregator of 31 bytes", 15, {4: bytes(31)}),
        ("E37", "a payload of 33 bytes", 16, {3: bytes(33)}),
        ("E37", "no claim", 16, {4: b""}),
        ("E37", "a key box that is a byte long", 16, {5: m.inputs[1].key_box + b"\0"}),
        ("E37", "a key box for twice the ring", 16, {5: large}),
        ("E37", "a chunk box of 79 bytes", 16, {6: bytes(79)}),
        ("E37", "a box that is a byte short", 18, {3: m.blobs.cut(box, 1)}),
        ("E37", "a box that is a byte long", 18, {3: box + b"\0"}),
        ("E37", "a box with a seed less than rows", 18, {3: m.box(2)}),
        ("E37", "a box with a seed more than rows", 18, {3: m.box(4)}),
        ("E37", "no box", 18, {3: b""}),
    ]
    return [m.bad(*one) for one in bad]
