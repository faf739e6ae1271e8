# SPDX-License-Identifier: Apache-2.0
"""Vectors of a client with a key holder: an invitation, a refusal (SPEC 7.2, 7.6)."""

from __future__ import annotations

from collections.abc import Callable

import cbor2

from . import ckks_steps as steps
from .ckks_reference import SPEC
from .ckks_world import (
    LOW_ORDER,
    OTHER_FORM,
    Blobs,
    Client,
    aggregator_private,
    attempt,
    context,
    digest_of,
    holder_private,
    session_json,
)
from .reference import Value, cbor, sign
from .world import Json, case, edit, fault

AGGREGATOR = fault("FaultyAggregator")
MALFORMED = fault("ProtocolError")


def client_cases(blobs: Blobs) -> list[Json]:
    c = context("a client with a key holder", "keyholder")
    one = Client(c, 1, blobs, "client")
    private, mine = holder_private(c), aggregator_private(c)
    holder, aggregator = steps.public(private), steps.public(mine)
    good = steps.invitation(c, holder, aggregator)
    later = attempt(c, 1)

    def case_of(why: str, message: bytes, expect: Json, check: str = "") -> Json:
        input_: Json = {
            "session": session_json(c),
            "client": 1,
            "identity": c.seeds[1].hex(),
            "words": one.words_recipe,
            "claim": one.claim.hex(),
            "key": one.key_recipe,
            "errors": one.error_recipes,
            "chunk_key": one.chunk_key.hex(),
            "seed": one.seed.hex(),
            "operations": [{"op": "invitation", "message": message.hex()}],
        }
        return case(why, input_, expect, check)

    def wrong(check: str, why: str, message: bytes) -> Json:
        return case_of(why, message, AGGREGATOR, check)

    sealed = one.seal(one.encrypted())
    expect: Json = {
        "ciphertexts": [digest_of(m) for m in one.ciphertexts(sealed)],
        "payload": steps.payload(c, 1, sealed).hex(),
        "key": digest_of(steps.key_plain(one.key, one.seed)),
        "holder_private_key": private.hex(),
        "aggregator_private_key": mine.hex(),
    }
    make: Callable[..., bytes] = steps.invitation
    old = (
        steps.holder_signature(later, holder),
        steps.aggregator_signature(later, aggregator),
    )
    high = holder[:31] + bytes([holder[31] | 128])
    return [
        case_of("a whole upload", good, expect),
        wrong("I1", "another key than the key holder's", edit(good, {2: mine})),
        wrong("I1", "its signature is for another attempt", edit(good, {3: old[0]})),
        wrong(
            "I1",
            "its signature is the aggregator's",
            edit(good, {3: sign(c.aggregator, f"{SPEC} holder key", c.ctx, holder)}),
        ),
        wrong(
            "I1",
            "its signature is a client's",
            edit(good, {3: sign(c.seeds[0], f"{SPEC} holder key", c.ctx, holder)}),
        ),
        wrong("I2", "another key than the aggregator's", edit(good, {4: private})),
        wrong("I2", "the aggregator's is for another attempt", edit(good, {5: old[1]})),
        wrong(
            "I2",
            "the aggregator's is the key holder's",
            edit(
                good, {5: sign(c.holder, f"{SPEC} aggregator key", c.ctx, aggregator)}
            ),
        ),
        wrong(
            "I2",
            "it is signed as a key holder's",
            edit(
                good, {5: sign(c.aggregator, f"{SPEC} holder key", c.ctx, aggregator)}
            ),
        ),
        wrong("I3", "a key holder's key of low order", make(c, LOW_ORDER, aggregator)),
        wrong("I3", "a key holder's key above p", make(c, OTHER_FORM, aggregator)),
        wrong(
            "I3", "a key holder's key with its top bit set", make(c, high, aggregator)
        ),
        wrong("I3", "an aggregator's key of low order", make(c, holder, LOW_ORDER)),
        wrong("I3", "an aggregator's key above p", make(c, holder, OTHER_FORM)),
        wrong("I3", "one key twice", make(c, holder, holder)),
        case_of(
            "of another context",
            steps.message(later, 15, holder, old[0], aggregator, old[1]),
            MALFORMED,
            "E33",
        ),
        case_of("an array, not a map", cbor([15, c.ctx]), MALFORMED, "E31"),
    ]


def refusal_cases(_: Blobs) -> list[Json]:
    """SPEC 7.6: of attempt 0, in which the vector was spent."""
    c = context("a client with a key holder", "keyholder")
    later, good = attempt(c, 1), steps.refusal(c, 2)
    signature = cbor2.loads(good)[3]

    def case_of(why: str, message: bytes, expect: Json, check: str = "") -> Json:
        input_: Json = {"session": session_json(c), "message": message.hex()}
        return case(why, input_, expect, check)

    def wrong(why: str, changes: dict[int, Value]) -> Json:
        return case_of(why, edit(good, changes), AGGREGATOR, "R1")

    proves: Json = {"proves": True}
    label = f"{SPEC} refusal"
    as_key = sign(c.holder, f"{SPEC} holder key", c.ctx, 2)
    bit = bytes([signature[0] ^ 1]) + signature[1:]
    return [
        case_of("a refusal that names a client", good, proves),
        case_of("a refusal that names nobody", steps.refusal(c, c.n), proves),
        wrong("another culprit than the signed one", {2: 1}),
        wrong("nobody in place of the signed culprit", {2: c.n}),
        wrong(
            "signed for another attempt", {3: cbor2.loads(steps.refusal(later, 2))[3]}
        ),
        wrong("signed by the aggregator", {3: sign(c.aggregator, label, c.ctx, 2)}),
        wrong("signed by a client", {3: sign(c.seeds[2], label, c.ctx, 2)}),
        wrong("signed as another message", {3: as_key}),
        wrong("a signature with one bit changed", {3: bit}),
        case_of("of another attempt", steps.refusal(later, 2), MALFORMED, "E33"),
        case_of("a request to retry", steps.request(c, []), MALFORMED, "E32"),
        case_of("cut short", good[:-1], MALFORMED, "E12"),
    ]
