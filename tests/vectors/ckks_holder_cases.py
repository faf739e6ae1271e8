# SPDX-License-Identifier: Apache-2.0
"""Vectors of the key holder (SPEC 6 and 7.4)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from . import ckks_steps as steps
from .ckks_reference import SPEC, Ckks
from .ckks_seeds import expand_bytes
from .ckks_upload_cases import faulty
from .ckks_world import (
    LOW_ORDER,
    OTHER_FORM,
    Blobs,
    Client,
    aggregator_private,
    attempt,
    context,
    digest_of,
    exactly,
    expanded,
    holder_private,
    session_json,
    short,
)
from .reference import Value, seal_under, sign
from .world import Json, case, edit, fault

AGGREGATOR = fault("FaultyAggregator")
MALFORMED = fault("ProtocolError")
BOUND = 61 * 4096


class Holder:
    """A key holder's plan, and the inputs of one attempt's clients."""

    def __init__(self, blobs: Blobs, number: int = 0) -> None:
        self.blobs = blobs
        self.c = c = attempt(context("key holder", "keyholder"), number)
        self.private = holder_private(c)
        self.public = steps.public(self.private)
        self.aggregator = steps.public(aggregator_private(c))
        self.clients = [Client(c, i, blobs, f"attempt {number}") for i in range(c.n)]
        self.inputs = [self.input(i) for i in range(c.n)]

    def payload(self, client: int) -> bytes:
        """Of chunks that the key holder never sees."""
        return expand_bytes(f"payload {self.c.attempt} {client}", 32)

    def input(
        self,
        client: int,
        *,
        key: Sequence[int] | None = None,
        box: bytes | None = None,
        name: str = "",
    ) -> steps.Input:
        one, payload = self.clients[client], self.payload(client)
        plain = steps.key_plain(key or one.key, one.seed)
        key_box = box or one.box("key box", payload, plain, self.public)
        self.blobs.named(
            name or f"attempt {self.c.attempt}, key box of client {client}", key_box
        )
        chunk_box = expand_bytes(f"chunk box {client}", 80)
        return steps.Input(self.c, client, payload, one.claim, key_box, chunk_box)

    # -- operations -----------------------------------------------------------------

    def call(
        self, message: bytes | None = None, *, refused: Json | None = None
    ) -> Json:
        op: Json = {
            "op": "call",
            "message": (message or self.call_message()).hex(),
            "private_key": self.private.hex(),
        }
        return {**op, "refused": refused} if refused else op

    def call_message(self, signed: Ckks | None = None, **changes: Any) -> bytes:
        """What the aggregator says; ``signed`` is the context it signs instead."""
        c = replace(self.c, **changes)
        return steps.call(c, self.aggregator, signed)

    def request(self, message: bytes, *, refused: Json | None = None) -> Json:
        op: Json = {"op": "request", "message": self.blobs.written(message)}
        return {**op, "refused": refused} if refused else op

    def asked(
        self, inputs: Sequence[steps.Input], *, refused: Json | None = None
    ) -> Json:
        """A good request: it stands in the file once."""
        message = steps.request(self.c, [i.row() for i in inputs])
        who = ", ".join(str(i.client) for i in inputs)
        name = f"attempt {self.c.attempt}, request for {who}"
        if name not in self.blobs.data:
            self.blobs.recipe(message, self.blobs.written(message), name)
        return self.request(message, refused=refused)

    def key_message(self) -> str:
        return steps.holder_key(self.c, self.public).hex()

    def released(
        self, inputs: Sequence[steps.Input], keys: Sequence[Sequence[int]]
    ) -> Json:
        """What a release says; its box is sealed afresh."""
        total = [sum(column) for column in zip(*keys, strict=True)]
        seeds = [self.clients[i.client].seed for i in inputs]
        return {
            "rows": [[i.client, i.payload.hex(), i.claim.hex()] for i in inputs],
            "aggregator_private_key": aggregator_private(self.c).hex(),
            **digest_of(steps.opening(self.c, total, seeds)),
        }

    def case(
        self, why: str, ops: Sequence[Json], expect: Json, check: str = ""
    ) -> Json:
        input_: Json = {
            "session": session_json(self.c),
            "identity": self.c.holder.hex(),
            "operations": list(ops),
        }
        return case(why, input_, expect, check)

    def refused(
        self, check: str, why: str, rows: Sequence[Sequence[Value]], culprit: int
    ) -> Json:
        """A request that ends in a refusal."""
        ops = [self.call(), self.request(steps.request(self.c, rows))]
        return self.case(why, ops, self.refusal(culprit), check)

    def refusal(self, culprit: int) -> Json:
        few = fault("TooFewClients")
        error = few if culprit == self.c.n else faulty(self.c, culprit)
        return {**error, "refusal": steps.refusal(self.c, culprit).hex()}

    def few(self) -> Json:
        """A request that is refused, and what follows it."""
        rows = [i.row() for i in self.inputs[:2]]
        refused = self.refusal(self.c.n)
        return self.request(steps.request(self.c, rows), refused=refused)


def keyholder_cases(blobs: Blobs) -> list[Json]:
    h, later = Holder(blobs), Holder(blobs, 1)
    three = [h.inputs[i] for i in (0, 1, 3)]
    keys = [client.key for client in h.clients]
    of_three = h.released(three, [keys[i] for i in (0, 1, 3)])
    ask = h.asked(three)
    inside = [client.key for client in later.clients[1:]]
    released_later = [later.key_message(), later.released(later.inputs[1:], inside)]
    good = [
        h.case("three of four", [h.call(), ask], {"sent": [h.key_message(), of_three]}),
        h.case(
            "all four",
            [h.call(), h.asked(h.inputs)],
            {
                "sent": [
                    h.key_message(),
                    h.released(h.inputs, keys),
                ]
            },
        ),
        largest_key(h),
        h.case(
            "one attempt is refused, and the next is released",
            [h.call(), h.few(), later.call(), later.asked(later.inputs[1:])],
            {"sent": [h.key_message(), *released_later]},
        ),
        h.case(
            "two attempts are called, and the second is released",
            [h.call(), later.call(), later.asked(later.inputs[1:])],
            {"sent": [h.key_message(), *released_later]},
        ),
        h.case(
            "the request of a context that a further call ended, and then the other's",
            [
                h.call(),
                later.call(),
                h.asked(three, refused=MALFORMED),
                later.asked(later.inputs[1:]),
            ],
            {"sent": [h.key_message(), *released_later]},
        ),
        *nothing_changes(h, later, ask, [h.key_message(), of_three]),
    ]
    return [
        *good,
        *calls(h, later, ask),
        *contexts(h, later, ask),
        *signatures(h, three),
        *rows_of_requests(h),
        *boxes(h),
        *keys_of_clients(h),
    ]


def nothing_changes(
    h: Holder, later: Holder, ask: Json, sent: Sequence[object]
) -> list[Json]:
    """SPEC 6.1: what the aggregator did not sign; and another round."""
    forged = edit(steps.request(h.c, [i.row() for i in h.inputs]), {3: bytes(64)})
    label = f"{SPEC} aggregator key"
    signature = sign(h.c.holder, label, later.c.ctx, later.aggregator)
    call = later.call(edit(later.call_message(), {7: signature}), refused=AGGREGATOR)
    next_round = replace(h.c, round_index=h.c.round_index + 1)
    key = steps.holder_key(next_round, later.public).hex()
    return [
        h.case(
            "a request that is not signed, and then a good one",
            [h.call(), h.request(forged, refused=AGGREGATOR), ask],
            {"sent": list(sent)},
        ),
        h.case(
            "a call that is not signed, between a call and its request",
            [h.call(), call, ask],
            {"sent": list(sent)},
        ),
        h.case(
            "another round, after a release",
            [h.call(), ask, later.call(steps.call(next_round, later.aggregator))],
            {"sent": [*sent, key]},
        ),
    ]


def largest_key(h: Holder) -> Json:
    """A key at both of its limits: 96 in one place, and 61 N in the sum."""
    size = h.c.packing.size
    recipe = short("a long key", size)
    recipe["set"] = [list(p) for p in exactly("a long key", size, BOUND)]
    key = expanded(recipe)
    assert max(key) == 96
    assert sum(x * x for x in key) == BOUND
    inputs = [h.inputs[0], h.input(1, key=key, name="key at its limits"), h.inputs[2]]
    keys = [h.clients[0].key, key, h.clients[2].key]
    sent = h.released(inputs, keys)
    expect: Json = {"sent": [h.key_message(), sent]}
    return h.case("a key at both of its limits", [h.call(), h.asked(inputs)], expect)


def calls(h: Holder, later: Holder, ask: Json) -> list[Json]:
    c = h.c
    longer = h.call_message(c, length=c.length + 1)
    other = h.call_message(c, model_hash=bytes(32))
    good, label = h.call_message(), f"{SPEC} aggregator key"
    by_holder = edit(good, {7: sign(c.holder, label, c.ctx, h.aggregator)})
    as_holder = sign(c.aggregator, f"{SPEC} holder key", c.ctx, h.aggregator)
    low, form = (steps.call(c, key) for key in (LOW_ORDER, OTHER_FORM))
    twice = {**h.call(), "private_key": later.private.hex()}

    def wrong(check: str, why: str, *ops: Json) -> Json:
        return h.case(why, ops, AGGREGATOR, check)

    return [
        wrong("H1", "signed by the key holder itself", h.call(by_holder)),
        wrong("H1", "signed for another attempt", h.call(h.call_message(later.c))),
        wrong(
            "H1",
            "another length than the signed one",
            h.call(longer),
        ),
        wrong("H1", "another model than the signed one", h.call(other)),
        wrong(
            "H1",
            "a context that is not that of the fields",
            h.call(edit(good, {4: bytes(32)})),
        ),
        wrong(
            "H1", "another key than the signed one", h.call(edit(good, {6: h.public}))
        ),
        wrong("H1", "signed as a key holder's", h.call(edit(good, {7: as_holder}))),
        wrong("H1", "a key of low order", h.call(low)),
        wrong("H1", "a key in another form", h.call(form)),
        wrong("H2", "a second call in one context", h.call(), twice),
        wrong("H2", "the same call again after a release", h.call(), ask, twice),
        wrong(
            "H2",
            "another attempt of a round that is released",
            h.call(),
            ask,
            later.call(),
        ),
        wrong("H3", "a request without a call", ask),
        h.case(
            "a request of another attempt than the called one",
            [h.call(), later.asked(later.inputs[1:])],
            MALFORMED,
            "E33",
        ),
        wrong("H3", "a second request", h.call(), ask, h.asked(h.inputs)),
        wrong("H3", "the same request again", h.call(), ask, ask),
        wrong("H3", "a good request after a refusal", h.call(), h.few(), ask),
    ]


def contexts(h: Holder, later: Holder, ask: Json) -> list[Json]:
    """One context is open at a time, and a round is released once."""
    ask_later = later.asked(later.inputs[1:])
    third = h.call(steps.call(attempt(h.c, 2), h.aggregator))
    # Signed by the aggregator, so it ends the context before it.
    low = later.call(steps.call(later.c, LOW_ORDER), refused=AGGREGATOR)
    twice = {**h.call(refused=AGGREGATOR), "private_key": later.private.hex()}
    rows = [i.row() for i in h.inputs[:3]]
    rows[1] = replace(h.inputs[1], signer=0).row()
    foreign = h.request(steps.request(h.c, rows), refused=AGGREGATOR)

    def wrong(check: str, why: str, *ops: Json) -> Json:
        return h.case(why, ops, AGGREGATOR, check)

    two = (h.call(), later.call())
    return [
        wrong("H2", "a call, after one before it was released", *two, ask_later, third),
        wrong("H2", "the call of a context that a further call ended", *two, h.call()),
        h.case(
            "the request of a context that a further call ended",
            [*two, ask],
            MALFORMED,
            "E33",
        ),
        wrong("H3", "a request, after another's release", *two, ask_later, ask),
        wrong("H3", "a good request after a bad call", h.call(), low, ask),
        wrong("H3", "a good request after the same call again", h.call(), twice, ask),
        wrong(
            "H3",
            "a good request after one with a row that its client did not sign",
            h.call(),
            foreign,
            ask,
        ),
    ]


def signatures(h: Holder, three: Sequence[steps.Input]) -> list[Json]:
    c = h.c
    rows = [i.row() for i in three]
    good = steps.request(c, rows)
    named = [row[:3] for row in rows]
    by_client = sign(c.seeds[0], f"{SPEC} request", c.ctx, named)
    for_four = sign(
        c.aggregator, f"{SPEC} request", c.ctx, [i.short_row() for i in h.inputs]
    )
    mine = three[1]

    def wrong(check: str, why: str, message: bytes) -> Json:
        return h.case(why, [h.call(), h.request(message)], AGGREGATOR, check)

    def row(why: str, changed: Sequence[Value]) -> Json:
        return wrong("H5", why, steps.request(c, [rows[0], changed, rows[2]]))

    foreign = replace(mine, signer=0)
    box = h.inputs[0].key_box
    return [
        wrong("H4", "a request signed by a client", edit(good, {3: by_client})),
        wrong("H4", "a request signed over other rows", edit(good, {3: for_four})),
        row("a row signed by another client", foreign.row()),
        row("another claim than the client's", [*rows[1][:2], bytes(32), *rows[1][3:]]),
        row("another payload", [1, h.payload(0), *rows[1][2:]]),
        row("another client's key box", [*rows[1][:3], box, *rows[1][4:]]),
        row("another chunk box", [*rows[1][:4], bytes(32), rows[1][5]]),
        row("another client's row, renumbered", [1, *h.inputs[0].row()[1:]]),
    ]


def rows_of_requests(h: Holder) -> list[Json]:
    rows = [i.row() for i in h.inputs]
    broken = h.blobs.changed(h.inputs[1].key_box, 0, bytes(32))
    unreadable = h.input(1, box=broken, name="a key box that does not open").row()

    def form(check: str, why: str, rows: Sequence[Sequence[Value]]) -> Json:
        ops = [h.call(), h.request(steps.request(h.c, rows))]
        return h.case(why, ops, MALFORMED, check)

    n = h.c.n
    return [
        form("E40", "a client twice", [rows[0], rows[1], rows[1]]),
        form("E40", "rows in another order", [rows[1], rows[0], rows[2]]),
        form("E41", "a client beyond the roster", [*rows[:3], [n, *rows[3][1:]]]),
        h.refused("H6", "two of the three that are needed", rows[:2], n),
        h.refused("H6", "nobody", [], n),
        h.refused("H6", "too few, before any box", [rows[0], unreadable], n),
    ]


def boxes(h: Holder) -> list[Json]:
    one, payload = h.clients[1], h.payload(1)
    plain = steps.key_plain(one.key, one.seed)
    info = steps.box_info(h.c, "key box", 1, payload)
    low = seal_under(bytes(32), plain, h.public, info, LOW_ORDER)
    later: Ckks = attempt(h.c, 1)
    good = h.inputs[1].key_box

    def wrong(why: str, box: bytes) -> Json:
        bad = h.input(1, box=box, name=why)
        rows = [h.inputs[0].row(), bad.row(), h.inputs[2].row()]
        return h.refused("H7", why, rows, 1)

    own = h.public
    turned = h.blobs.changed(good, len(good) - 1, bytes([good[-1] ^ 1]))
    return [
        wrong("a key box as a chunk box", one.box("chunk box", payload, plain, own)),
        wrong(
            "a key box as another client's",
            one.box("key box", payload, plain, own, client=0),
        ),
        wrong(
            "a key box of another payload", one.box("key box", h.payload(0), plain, own)
        ),
        wrong(
            "a key box of another attempt",
            one.box("key box", payload, plain, own, c=later),
        ),
        wrong("a key box under a key of low order", low),
        wrong("a key box with one bit changed", turned),
    ]


def keys_of_clients(h: Holder) -> list[Json]:
    size = h.c.packing.size

    def wrong(check: str, why: str, place: int, key: Sequence[int]) -> Json:
        bad = h.input(place, key=key, name=why)
        inputs = [bad if i == place else h.inputs[i] for i in range(3)]
        return h.refused(check, why, [i.row() for i in inputs], place)

    seed = "a key beyond"

    def beyond(set_: Sequence[tuple[int, int]]) -> list[int]:
        return expanded(short(seed, size, set_))

    changes = exactly(seed, size, BOUND + 1)
    return [
        wrong("H8", "a coefficient of 97", 1, beyond([(0, 97)])),
        wrong("H8", "a coefficient of -97", 2, beyond([(4095, -97)])),
        wrong("H9", "squares that are one too many", 1, beyond(changes)),
        wrong("H9", "a key of eights", 2, [8] * size),
    ]
