# SPDX-License-Identifier: Apache-2.0
"""Looks behind a client's `Input` and a key holder's `Release` (ckks/SPEC.md, 4.2, 5).

Their boxes are sealed afresh, so that they cannot be compared byte by byte: this opens
each with its receiver's private key and checks what is in it, and the signature.
Standard library only; for vectors, whose secrets are public, and for nothing else.
"""

import hashlib
from typing import Any

from plain_crypto import Wrong, cbor, digest, open_box, parse, require, verify

SPEC = "secure-fl/ckks/1"
PARAMETERS = (  # in the order of 2
    "clients",
    "length",
    "word_bits",
    "chunk_blocks",
    "min_clients",
    "max_colluding",
    "keys",
    "N",
    "prime_bits",
    "fields",
    "scale_bits",
)


def context_hash(session: dict[str, Any]) -> bytes:
    return digest(
        f"{SPEC} ctx",
        bytes.fromhex(session["plan_hash"]),
        bytes.fromhex(session["run_id"]),
        session["round"],
        session["attempt"],
        [[name, bytes.fromhex(key)] for name, key in session["roster"]],
        bytes.fromhex(session["model_hash"]),
        [session["parameters"][name] for name in PARAMETERS],
    )


def is_whole(data: bytes, expected: dict[str, Any]) -> bool:
    """Whether ``expected`` is hash and length of these bytes."""
    told = {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}
    return all(expected[name] == told[name] for name in told)


def check_upload(
    sent: list[bytes], given: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Raises Wrong unless a client's messages hold what ``expected`` says."""
    *ciphertexts, last = sent
    wanted = expected["ciphertexts"]
    require(len(ciphertexts) == len(wanted), f"{len(ciphertexts)} chunks")
    for number, (data, one) in enumerate(zip(ciphertexts, wanted, strict=True)):
        require(is_whole(data, one), f"chunk {number} is another")
    fields = _fields(last, 16, 8)
    try:
        _check_input(fields, given, expected)
    except (TypeError, IndexError, ValueError, AttributeError):
        raise Wrong("a field has another type or length") from None


def _fields(message: bytes, kind: int, count: int) -> dict[int, Any]:
    fields = parse(message)
    require(isinstance(fields, dict) and set(fields) == set(range(count)), "fields")
    assert isinstance(fields, dict)
    require(fields[0] == kind, "the kind is another")
    return fields


def _check_input(
    fields: dict[int, Any], given: dict[str, Any], expected: dict[str, Any]
) -> None:
    session, client = given["session"], given["client"]
    ctx = context_hash(session)
    _, told, number, payload, claim, key_box, chunk_box, signature = fields.values()
    require(told == ctx, "the context is another")
    require(number == client, "the client is another")
    require(payload == bytes.fromhex(expected["payload"]), "the payload is another")
    require(claim == bytes.fromhex(given["claim"]), "the claim is another")
    opened = []
    for purpose, box, who in (
        ("key box", key_box, "holder_private_key"),
        ("chunk box", chunk_box, "aggregator_private_key"),
    ):
        info = cbor([f"{SPEC} {purpose}", ctx, client, payload])
        opened.append(open_box(bytes.fromhex(expected[who]), info, box))
    require(is_whole(opened[0], expected["key"]), "the key box holds something else")
    chunk_key = bytes.fromhex(given["chunk_key"])
    require(opened[1] == chunk_key, "the chunk box holds something else")
    hashes = [
        digest(f"{SPEC} key box", key_box),
        digest(f"{SPEC} chunk box", chunk_box),
    ]
    signed = cbor([f"{SPEC} input", ctx, client, payload, claim, *hashes])
    key = bytes.fromhex(session["roster"][client][1])
    require(verify(key, signature, signed), "the signature does not hold")


def check_release(
    message: bytes, request: bytes, session: dict[str, Any], expected: dict[str, Any]
) -> None:
    """Raises Wrong unless a key holder's answer holds what ``expected`` says.

    ``session``: that of the plan; ``request`` says of which context of it."""
    fields = _fields(message, 18, 5)
    asked = parse(request)
    assert isinstance(asked, dict)
    try:
        _check_release(fields, asked[1], session, expected)
    except (TypeError, IndexError, ValueError, AttributeError):
        raise Wrong("a field has another type or length") from None


def _check_release(
    fields: dict[int, Any],
    ctx: bytes,
    session: dict[str, Any],
    expected: dict[str, Any],
) -> None:
    _, told, rows, box, signature = fields.values()
    require(told == ctx, "the context is another")
    shown = [[client, payload.hex(), claim.hex()] for client, payload, claim in rows]
    require(shown == expected["rows"], "the rows are others")
    private = bytes.fromhex(expected["aggregator_private_key"])
    opened = open_box(private, cbor([f"{SPEC} release box", ctx]), box)
    require(is_whole(opened, expected), "the box holds something else")
    hashed = digest(f"{SPEC} release box", box)
    signed = cbor([f"{SPEC} release", ctx, rows, hashed])
    key = bytes.fromhex(session["keyholder"])
    require(verify(key, signature, signed), "the signature does not hold")
