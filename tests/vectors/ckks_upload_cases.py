# SPDX-License-Identifier: Apache-2.0
"""Vectors of the aggregator: uploads (SPEC 7.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import ckks_steps as steps
from .ckks_reference import Ckks
from .ckks_world import (
    LOW_ORDER,
    Blobs,
    Client,
    aggregator_private,
    context,
    holder_private,
    session_json,
)
from .reference import seal_under
from .world import Json, case, edit, fault


def faulty(c: Ckks, client: int) -> Json:
    return fault("FaultyClient", c.names[client])


class Uploads:
    """A context with a key holder, and what reaches its aggregator."""

    def __init__(self, blobs: Blobs, world: str, *, encrypted: bool = False) -> None:
        self.blobs = blobs
        self.c = context(world, "keyholder")
        self.holder_private = holder_private(self.c)
        self.aggregator_private = aggregator_private(self.c)
        self.holder = steps.public(self.holder_private)
        self.aggregator = steps.public(self.aggregator_private)
        self.clients = [Client(self.c, i, blobs, world) for i in range(self.c.n)]
        self.chunks = [c.encrypted() if encrypted else c.random() for c in self.clients]
        self.sealed = [
            client.seal(chunks, name=f"{world}, client {client.index}")
            for client, chunks in zip(self.clients, self.chunks, strict=True)
        ]
        self.inputs = [
            client.input(sealed, self.holder, self.aggregator)
            for client, sealed in zip(self.clients, self.sealed, strict=True)
        ]

    # -- operations ---------------------------------------------------------------

    def start(self, *, message: bytes | None = None) -> list[Json]:
        said = message or steps.holder_key(self.c, self.holder)
        return [
            {"op": "call", "private_key": self.aggregator_private.hex()},
            {"op": "holder_key", "message": said.hex()},
        ]

    def add(
        self, sender: int, messages: Sequence[bytes], *, refused: Json | None = None
    ) -> Json:
        op: Json = {
            "op": "add",
            "from": sender,
            "messages": [self.blobs.written(m) for m in messages],
        }
        return {**op, "refused": refused} if refused else op

    def upload(self, client: int) -> Json:
        messages = self.clients[client].ciphertexts(self.sealed[client])
        return self.add(client, [*messages, self.inputs[client].message()])

    def all_of(self, clients: Sequence[int]) -> list[Json]:
        ops = [*self.start(), *(self.upload(i) for i in clients)]
        return [*ops, {"op": "close"}]

    def sent(self, clients: Sequence[int]) -> list[object]:
        """What the aggregator says up to its request."""
        rows = [self.inputs[i].row() for i in clients]
        return [
            steps.call(self.c, self.aggregator).hex(),
            steps.invitation(self.c, self.holder, self.aggregator).hex(),
            self.blobs.written(steps.request(self.c, rows)),
        ]

    def case(
        self, why: str, ops: Sequence[Json], expect: Json, check: str = ""
    ) -> Json:
        input_: Json = {
            "session": session_json(self.c),
            "identity": self.c.aggregator.hex(),
            "operations": list(ops),
        }
        return case(why, input_, expect, check)

    def wrong(
        self,
        check: str,
        why: str,
        messages: Sequence[bytes],
        *,
        sender: int = 1,
        before: Sequence[Json] = (),
    ) -> Json:
        """Messages of one client, of which one is refused."""
        ops = [*self.start(), *before, self.add(sender, messages)]
        return self.case(why, ops, faulty(self.c, sender), check)


def upload_cases(blobs: Blobs) -> list[Json]:
    w = Uploads(blobs, "uploads")
    b, sealed = w.clients[1], w.sealed[1]
    first, second = b.ciphertexts(sealed)
    end = w.inputs[1].message()
    flipped = edit(end, {4: bytes(32)})
    exchanged: list[Json] = [
        w.add(0, b.ciphertexts(sealed)[:1], refused=faulty(w.c, 0)),
        w.upload(1),
        w.add(3, [end], refused=faulty(w.c, 3)),
        w.upload(2),
        w.upload(0),
        {"op": "close"},
    ]
    good = [
        w.case("all four", w.all_of([0, 1, 2, 3]), {"sent": w.sent([0, 1, 2, 3])}),
        w.case(
            "three of four, in another order than the roster's",
            w.all_of([3, 0, 1]),
            {"sent": w.sent([0, 1, 3])},
        ),
        w.case(
            "two speak in another's name, and it goes on without the second",
            [*w.start(), *exchanged],
            {"sent": w.sent([0, 1, 2])},
        ),
    ]
    other = replace(w.inputs[1], claim=bytes(32))
    # Right in all but the number: its own key signs, and its own box opens.
    named = replace(w.inputs[1], client=0, signer=1)
    order = [
        w.wrong("U1", "the second chunk first", [second]),
        w.wrong("U1", "the first chunk twice", [first, first]),
        w.wrong("U1", "a chunk in another's name", [first, edit(second, {2: 0})]),
        w.wrong("U1", "a chunk after the input", [second], before=[w.upload(1)]),
        w.wrong("U3", "no chunk", [end]),
        w.wrong("U3", "the last chunk is missing", [first, end]),
        w.wrong("U6", "a signature over another claim", [first, second, flipped]),
        w.wrong(
            "U6",
            "signed by another client",
            [first, second, replace(w.inputs[1], signer=0).message()],
        ),
        w.wrong("U6", "another's input", [first, second, w.inputs[0].message()]),
        w.wrong("U6", "in another's name", [first, second, named.message()]),
        w.wrong("U6", "a second input", [other.message()], before=[w.upload(1)]),
    ]
    few = w.all_of([0, 3])
    none = w.all_of([])
    return [
        *good,
        *order,
        *chunk_cases(w),
        *box_cases(w),
        w.case("two of the three that are needed", few, fault("TooFewClients"), "U9"),
        w.case("nobody", none, fault("TooFewClients"), "U9"),
        *one_time_cases(blobs),
    ]


def chunk_cases(w: Uploads) -> list[Json]:
    b, p = w.clients[1], w.c.packing.primes[0]

    def whole(check: str, why: str, sealed: Sequence[bytes], name: str) -> Json:
        """Everything fits the chunks as they are, but for what is wrong with them."""
        end = b.input(sealed, w.holder, w.aggregator, name=name)
        return w.wrong(check, why, [*b.ciphertexts(sealed), end.message()])

    sealed = w.sealed[1]
    large = b.seal(b.random({1: [(4095, p)]}))
    top = b.seal(b.random({0: [(0, 2**54 - 1)]}))
    turned = w.blobs.changed(sealed[1], 0, bytes([sealed[1][0] ^ 1]))
    foreign = b.seal(b.random(), [b.chunk_key, bytes(32)])
    swapped = [sealed[0], sealed[0]]
    # They open, and are not those of the payload.
    changed = b.seal(b.random({1: [(0, 5)]}))
    fits = w.inputs[1].message()
    shorter = w.blobs.cut(sealed[0], 1)
    box = b.box("chunk box", bytes(32), b.chunk_key, w.aggregator)
    zero = replace(w.inputs[1], payload=bytes(32), chunk_box=box).message()
    return [
        whole("U5", "a residue that is its prime", large, "residue 1"),
        whole("U5", "a residue with all bits set", top, "residue 2"),
        whole(
            "U8",
            "a chunk that was changed on its way, and signed so",
            [sealed[0], turned],
            "turned",
        ),
        whole("U8", "a chunk under another key", foreign, "foreign"),
        whole("U8", "a chunk of another index", swapped, "swapped"),
        w.wrong(
            "U4",
            "a chunk is another than the payload's",
            [*b.ciphertexts(changed), fits],
        ),
        w.wrong("U4", "a payload of no chunks", [*b.ciphertexts(sealed), zero]),
        w.wrong("U2", "a chunk is a byte short", b.ciphertexts([shorter])),
        w.wrong("U2", "a chunk is a byte long", b.ciphertexts([sealed[0] + b"\0"])),
        w.wrong("U2", "an empty chunk", b.ciphertexts([b""])),
        w.wrong(
            "U2",
            "the last chunk has no tag",
            b.ciphertexts([sealed[0], w.blobs.cut(sealed[1], 16)]),
        ),
    ]


def box_cases(w: Uploads) -> list[Json]:
    b, good = w.clients[1], w.inputs[1]
    messages = b.ciphertexts(w.sealed[1])
    to = w.aggregator

    def wrong(why: str, box: bytes) -> Json:
        end = replace(good, chunk_box=box).message()
        return w.wrong("U7", why, [*messages, end])

    def box(purpose: str = "chunk box", *, to: bytes = to, client: int = 1) -> bytes:
        return b.box(purpose, good.payload, b.chunk_key, to, client=client)

    later = replace(w.c, attempt=1)
    other = b.box("chunk box", good.payload, b.chunk_key, to, c=later)
    payload = b.box("chunk box", w.inputs[0].payload, b.chunk_key, to)
    info = steps.box_info(w.c, "chunk box", 1, good.payload)
    low = seal_under(bytes(32), b.chunk_key, to, info, LOW_ORDER)
    bits = good.chunk_box[:-1] + bytes([good.chunk_box[-1] ^ 128])
    return [
        wrong("a chunk box sealed to the key holder", box(to=w.holder)),
        wrong("a chunk box sealed as a key box", box("key box")),
        wrong("a chunk box sealed as another client's", box(client=0)),
        wrong("a chunk box of another attempt", other),
        wrong("a chunk box of another payload", payload),
        wrong("a chunk box under a key of low order", low),
        wrong("a chunk box with one bit changed", bits),
    ]


# -- one-time keys -------------------------------------------------------------------


def one_time_cases(blobs: Blobs) -> list[Json]:
    c = context("uploads", "one-time")
    clients = [Client(c, i, blobs, "uploads, one-time") for i in range(c.n)]
    chunks = [client.random() for client in clients]
    p = c.packing.primes[0]

    def add(
        sender: int, sent: Sequence[bytes], payload: bytes | None, name: int = -1
    ) -> Json:
        client = clients[sender if name < 0 else name]
        op: Json = {
            "op": "add",
            "from": sender,
            "messages": [blobs.written(m) for m in client.ciphertexts(sent)],
        }
        return op if payload is None else {**op, "payload": payload.hex()}

    def good(i: int) -> Json:
        return add(i, chunks[i], steps.payload(c, i, chunks[i]))

    def one(why: str, ops: Sequence[Json], expect: Json, check: str = "") -> Json:
        input_: Json = {"session": session_json(c), "operations": list(ops)}
        return case(f"one-time: {why}", input_, expect, check)

    def wrong(check: str, why: str, *ops: Json) -> Json:
        return one(why, ops, faulty(c, 1), check)

    large = clients[1].random({1: [(100, p)]})
    mine = steps.payload(c, 1, chunks[1])
    shorter = blobs.cut(chunks[1][0], 1)
    twice: Json = {**add(1, chunks[1][:1], None)}
    close: Json = {"op": "close"}
    return [
        one(
            "three of four",
            [good(0), good(3), good(1), close],
            {"accepted": [0, 1, 3]},
        ),
        wrong("U1", "the first chunk twice", add(1, [chunks[1][0]], None), twice),
        wrong("U1", "a chunk in another's name", add(1, chunks[1][:1], None, name=2)),
        wrong("U2", "a chunk is a byte short", add(1, [shorter], mine)),
        wrong("U3", "the last chunk is missing", add(1, chunks[1][:1], mine)),
        wrong(
            "U4",
            "the payload of another client's chunks",
            add(1, chunks[1], steps.payload(c, 1, chunks[0])),
        ),
        wrong(
            "U4",
            "the payload of these chunks as another client's",
            add(1, chunks[1], steps.payload(c, 0, chunks[1])),
        ),
        wrong(
            "U5",
            "a residue that is its prime",
            add(1, large, steps.payload(c, 1, large)),
        ),
    ]
