# SPDX-License-Identifier: Apache-2.0
"""Looks behind a client's `SealedShares` (masking/SPEC.md, 4.5, 4.6 and 5.3).

Boxes hold a fresh ephemeral key, so the message cannot be compared byte by byte.
This opens every box with its receiver's private key and checks shares, commitments
and signature. Standard library only, plain integers, nothing constant in time: for
vectors, whose secrets are public, and for nothing else.
"""

from typing import Any

from plain_crypto import Wrong, cbor, digest, open_box, parse, require, verify

SPEC = "secure-fl/masking/1"
PARAMETERS = (  # in the order of 3.2
    "clients",
    "length",
    "word_bits",
    "chunk_words",
    "threshold",
    "min_clients",
    "max_colluding",
)


def tree_root(label: str, leaves: list[bytes]) -> bytes:
    level = [digest(f"{SPEC} {label} leaf", leaf) for leaf in leaves]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        odd = level[-1:] if len(level) % 2 else []
        level = [digest(f"{SPEC} {label} node", *pair) for pair in pairs] + odd
    return level[0]


def context_hash(session: dict[str, Any]) -> bytes:
    parameters = [session["parameters"][name] for name in PARAMETERS]
    return digest(
        f"{SPEC} ctx",
        bytes.fromhex(session["plan_hash"]),
        bytes.fromhex(session["run_id"]),
        session["round"],
        session["attempt"],
        [[name, bytes.fromhex(key)] for name, key in session["roster"]],
        bytes.fromhex(session["model_hash"]),
        [*parameters, "complete", "x25519"],
    )


def check(
    message: bytes, session: dict[str, Any], client: int, expected: dict[str, Any]
) -> None:
    """Raises Wrong unless `message` holds what `expected` says."""
    fields = parse(message)
    require(isinstance(fields, dict) and set(fields) == set(range(6)), "fields differ")
    try:
        _check_fields(fields, session, client, expected)
    except (TypeError, IndexError, ValueError, AttributeError):
        raise Wrong("a field has another type or length") from None


def _check_fields(
    fields: Any, session: dict[str, Any], client: int, expected: dict[str, Any]
) -> None:
    ctx, cohort = context_hash(session), bytes.fromhex(expected["cohort"])
    require(fields[0] == 3 and fields[1] == ctx, "the kind or the context is another")
    require(fields[2] == client, "the client is another")
    commitment = bytes.fromhex(expected["commitment"])
    require(fields[3] == commitment, "the self commitment is another")
    shares, rows = expected["shares"], fields[4]
    require(len(rows) == len(shares), f"{len(rows)} rows, not {len(shares)}")
    for (to, box, *commitments), share in zip(rows, shares, strict=True):
        require(to == share["to"], f"a row for client {to}, not {share['to']}")
        both = [bytes.fromhex(share[kind]) for kind in ("self", "key")]
        if to == client:
            require(box == b"", "the dealer's own box is not empty")
        else:
            info = cbor([f"{SPEC} box", ctx, cohort, client, to])
            require(len(box) == 112, "a box has not 112 bytes")
            opened = open_box(bytes.fromhex(share["seal_private_key"]), info, box)
            require(opened == both[0] + both[1], f"client {to} gets other shares")
        made = [
            digest(f"{SPEC} {kind} share", ctx, client, to, part)
            for kind, part in zip(("self", "key"), both, strict=True)
        ]
        require(commitments == made, f"a commitment to client {to} is another")
    root = tree_root("shares", [cbor(row) for row in rows])
    signed = cbor([f"{SPEC} shares", ctx, cohort, client, commitment, root])
    key = bytes.fromhex(session["roster"][client][1])
    require(verify(key, fields[5], signed), "the signature does not hold")
