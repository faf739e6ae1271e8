# SPDX-License-Identifier: Apache-2.0
"""Vectors of the aggregator: what the key holder answers (SPEC 7.5)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import cbor2

from . import ckks_steps as steps
from .ckks_reference import SPEC
from .ckks_seeds import expand_bytes
from .ckks_upload_cases import Uploads, faulty
from .ckks_world import LOW_ORDER, OTHER_FORM, Blobs, digest_of
from .reference import Value, pack, sign
from .world import Json, edit, fault

MALFORMED = fault("ProtocolError")
HOLDER = fault("FaultyKeyHolder")


def bad_holder_key(w: Uploads, why: str, message: bytes) -> Json:
    return w.case(why, w.start(message=message), HOLDER, "X1")


def holder_keys(w: Uploads) -> list[Json]:
    c = w.c
    good = steps.holder_key(c, w.holder)
    later = steps.holder_signature(replace(c, attempt=1), w.holder)
    forged = steps.aggregator_signature(c, w.holder)
    return [
        bad_holder_key(
            w, "a key that is not the signed one", edit(good, {2: w.aggregator})
        ),
        bad_holder_key(w, "a key signed for another attempt", edit(good, {3: later})),
        bad_holder_key(w, "a key signed by the aggregator", edit(good, {3: forged})),
        bad_holder_key(w, "a key of low order", steps.holder_key(c, LOW_ORDER)),
        bad_holder_key(w, "a key in another form", steps.holder_key(c, OTHER_FORM)),
        bad_holder_key(
            w, "the aggregator's key as its own", steps.holder_key(c, w.aggregator)
        ),
    ]


class Releases:
    """Three of four clients, whose ciphertexts are in the sum."""

    def __init__(self, blobs: Blobs) -> None:
        self.blobs = blobs
        self.w = w = Uploads(blobs, "releases", encrypted=True)
        self.c = w.c
        self.inside = [0, 1, 3]
        self.rows = [w.inputs[i].short_row() for i in self.inside]
        keys = [w.clients[i].key for i in self.inside]
        self.total = [sum(column) for column in zip(*keys, strict=True)]
        self.seeds = [w.clients[i].seed for i in self.inside]
        self.box = self.sealed("box", self.total)

    def sealed(
        self,
        name: str,
        total: Sequence[int],
        *,
        seeds: Sequence[bytes] | None = None,
        to: bytes | None = None,
        attempt: int = 0,
    ) -> bytes:
        plain = steps.opening(self.c, total, seeds or self.seeds)
        ephemeral = expand_bytes(f"releases, {name}", 32)
        c = replace(self.c, attempt=attempt)
        box = steps.release_box(c, plain, to or self.w.aggregator, ephemeral)
        return self.blobs.named(name, box)

    def released(self, rows: Sequence[Value], box: bytes | None = None) -> bytes:
        return steps.release(self.c, rows, box or self.box)

    def fitting(self, rows: int) -> bytes:
        """The box, or, for another number of rows, one of the length that has."""
        if rows == len(self.rows):
            return self.box
        size, seed = len(self.box) + 32 * (rows - len(self.rows)), f"{rows} rows"
        recipe: Json = {"expand": seed, "bytes": size}
        return self.blobs.recipe(expand_bytes(seed, size), recipe)

    def one(self, why: str, message: bytes, expect: Json, check: str = "") -> Json:
        op: Json = {"op": "answer", "message": self.blobs.written(message)}
        return self.w.case(why, [*self.w.all_of(self.inside), op], expect, check)

    def opened(self) -> Json:
        vectors = [self.w.clients[i].words for i in self.inside]
        sums, bits = [sum(v) for v in zip(*vectors, strict=True)], self.c.word_bits
        return {
            "sent": self.w.sent(self.inside),
            "survivors": self.inside,
            "first": [str(v) for v in sums[:3]],
            "last": [str(v) for v in sums[-3:]],
            **digest_of(pack((v % 2**bits for v in sums), bits)),
        }


def release_cases(blobs: Blobs) -> list[Json]:
    r = Releases(blobs)
    good = r.released(r.rows)
    return [
        r.one("three of four, and the sum opens", good, r.opened()),
        *holder_keys(r.w),
        *other_rows(r),
        *release_signatures(r, good),
        *refusals(r.w, r.one),
        *other_boxes(r),
        *other_sums(r),
    ]


def other_rows(r: Releases) -> list[Json]:
    rows, w = r.rows, r.w
    claim: list[Value] = [*rows[1][:2], bytes(32)]
    payload: list[Value] = [rows[1][0], bytes(32), rows[1][2]]
    wrong: list[tuple[str, list[list[Value]]]] = [
        ("a row is missing", rows[:2]),
        ("a row more", [*rows[:2], w.inputs[2].short_row(), rows[2]]),
        ("no row", []),
        ("another claim", [rows[0], claim, rows[2]]),
        ("another payload", [rows[0], payload, rows[2]]),
        ("another client", [rows[0], [2, *rows[1][1:]], rows[2]]),
    ]
    return [
        r.one(why, r.released(changed, r.fitting(len(changed))), HOLDER, "X2")
        for why, changed in wrong
    ]


def release_signatures(r: Releases, good: bytes) -> list[Json]:
    c, box = r.c, r.box
    turned = r.blobs.changed(box, 0, bytes([box[0] ^ 1]))
    later = steps.release_signature(c.holder, replace(c, attempt=1), r.rows, box)
    forged = steps.release_signature(c.aggregator, c, r.rows, box)
    signature = cbor2.loads(good)[4]
    bit = bytes([signature[0] ^ 1]) + signature[1:]
    wrong: list[tuple[str, dict[int, Value]]] = [
        ("another box than the signed one", {3: turned}),
        ("signed for another attempt", {4: later}),
        ("signed by the aggregator", {4: forged}),
        ("a signature with one bit changed", {4: bit}),
    ]
    return [r.one(why, edit(good, changes), HOLDER, "X3") for why, changes in wrong]


def refusals(w: Uploads, one: Callable[..., Json]) -> list[Json]:
    c = w.c
    good = steps.refusal(c, 1)
    later = cbor2.loads(steps.refusal(replace(c, attempt=1), 1))[3]
    forged = sign(c.aggregator, f"{SPEC} refusal", c.ctx, 1)
    return [
        one("a refusal that names a client", good, faulty(c, 1), "X4"),
        one(
            "a refusal that names nobody: there were enough",
            steps.refusal(c, c.n),
            HOLDER,
            "X4",
        ),
        one(
            "a refusal that names a client who is not in the request",
            steps.refusal(c, 2),
            HOLDER,
            "X4",
        ),
        one(
            "a refusal with another culprit than the signed one",
            edit(good, {2: 0}),
            HOLDER,
            "X4",
        ),
        one("a refusal of another attempt", edit(good, {3: later}), HOLDER, "X4"),
        one(
            "a refusal signed by the aggregator", edit(good, {3: forged}), HOLDER, "X4"
        ),
    ]


def other_boxes(r: Releases) -> list[Json]:
    """All of them signed by the key holder as they are."""
    box = r.box
    bit = r.blobs.changed(box, len(box) - 1, bytes([box[-1] ^ 1]))
    low = r.blobs.changed(box, 0, LOW_ORDER)
    own = r.sealed("to the key holder", r.total, to=r.w.holder)
    later = r.sealed("of another attempt", r.total, attempt=1)
    return [
        r.one(why, r.released(r.rows, wrong), HOLDER, "X9")
        for why, wrong in (
            ("a box with one bit changed", bit),
            ("a box under a key of low order", low),
            ("a box sealed to the key holder", own),
            ("a box of another attempt", later),
        )
    ]


def other_sums(r: Releases) -> list[Json]:
    size, total, seeds = r.c.packing.size, r.total, r.seeds
    off = r.sealed("one off", [total[0] + 1, *total[1:]])
    large = r.sealed("large", [200] * size)
    far = r.sealed("far", [289, *total[1:]])
    swapped = r.sealed("seeds", total, seeds=[seeds[1], seeds[0], seeds[2]])
    return [
        r.one(why, r.released(r.rows, box), MALFORMED, check)
        for check, why, box in (
            ("X5", "a sum of keys that is not short", large),
            ("X5", "a sum of keys that is too large in one place", far),
            ("X6", "a sum of keys that is one off", off),
            ("X6", "the seeds in another order than the rows", swapped),
        )
    ]
