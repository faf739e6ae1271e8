# SPDX-License-Identifier: Apache-2.0
"""CKKS a second time, from SPEC.md alone: sections 4 and 5, payloads and messages.

Honest only.  Faults are put in by changing what a party is about to send.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from .ckks_reference import SPEC, Ckks, key_bits
from .reference import Value, cbor, digest, pack, seal, sign, tree, x25519_public

# -- 4: uploads -------------------------------------------------------------------


def payload(c: Ckks, client: int, chunks: Sequence[bytes]) -> bytes:
    """SPEC 4.1: of the chunks as they are sent."""
    label = f"{SPEC} chunks"
    leaves = [digest(f"{label} data", chunk) for chunk in chunks]
    return digest(f"{SPEC} payload", c.ctx, client, tree(label, leaves)[-1][0])


def box_info(c: Ckks, purpose: str, client: int, payload_: bytes) -> bytes:
    """SPEC 4.2."""
    return cbor([f"{SPEC} {purpose}", c.ctx, client, payload_])


def key_plain(key: Sequence[int], seed: bytes) -> bytes:
    """SPEC 4.2: a byte for each coefficient, two's complement; the cover seed."""
    return bytes(x % 256 for x in key) + seed


def seal_chunk(chunk_key: bytes, index: int, chunk: bytes) -> bytes:
    """SPEC 4.3."""
    return AESGCM(chunk_key).encrypt(index.to_bytes(12, "big"), chunk, None)


# -- 5: messages ------------------------------------------------------------------


def message(c: Ckks, kind: int, *fields: Value) -> bytes:
    return cbor({0: kind, 1: c.ctx, **{2 + i: v for i, v in enumerate(fields)}})


def call(c: Ckks, key: bytes, signed: Ckks | None = None) -> bytes:
    """Message 13; ``signed`` where the signature is another context's."""
    fields: tuple[Value, ...] = (c.round_index, c.attempt, c.model_hash, c.length)
    return message(c, 13, *fields, key, aggregator_signature(signed or c, key))


def holder_signature(c: Ckks, key: bytes) -> bytes:
    return sign(c.holder, f"{SPEC} holder key", c.ctx, key)


def holder_key(c: Ckks, key: bytes) -> bytes:
    """Message 14."""
    return message(c, 14, key, holder_signature(c, key))


def aggregator_signature(c: Ckks, key: bytes) -> bytes:
    return sign(c.aggregator, f"{SPEC} aggregator key", c.ctx, key)


def invitation(c: Ckks, holder: bytes, aggregator: bytes) -> bytes:
    """Message 15."""
    return message(
        c,
        15,
        holder,
        holder_signature(c, holder),
        aggregator,
        aggregator_signature(c, aggregator),
    )


@dataclass(frozen=True)
class Input:
    """What ends an upload to an aggregator that has a key holder."""

    c: Ckks
    client: int
    payload: bytes
    claim: bytes
    key_box: bytes
    chunk_box: bytes
    signer: int | None = None  # whose key signs, where it is another's

    @property
    def box_hash(self) -> bytes:
        return digest(f"{SPEC} chunk box", self.chunk_box)

    @property
    def signature(self) -> bytes:
        signer = self.client if self.signer is None else self.signer
        return sign(
            self.c.seeds[signer],
            f"{SPEC} input",
            self.c.ctx,
            self.client,
            self.payload,
            self.claim,
            digest(f"{SPEC} key box", self.key_box),
            self.box_hash,
        )

    def message(self) -> bytes:
        """Message 16."""
        boxes = (self.key_box, self.chunk_box)
        return message(
            self.c, 16, self.client, self.payload, self.claim, *boxes, self.signature
        )

    def row(self) -> list[Value]:
        """In the request."""
        rest = (self.key_box, self.box_hash, self.signature)
        return [self.client, self.payload, self.claim, *rest]

    def short_row(self) -> list[Value]:
        return [self.client, self.payload, self.claim]


def make_input(
    c: Ckks,
    client: int,
    chunks: Sequence[bytes],
    *,
    claim: bytes,
    key: bytes,
    chunk_key: bytes,
    holder: bytes,
    aggregator: bytes,
    ephemeral: tuple[bytes, bytes],
) -> Input:
    """SPEC 6.3: two boxes under the payload of what is sent."""
    root = payload(c, client, chunks)
    key_box = seal(key, holder, box_info(c, "key box", client, root), ephemeral[0])
    info = box_info(c, "chunk box", client, root)
    chunk_box = seal(chunk_key, aggregator, info, ephemeral[1])
    return Input(c, client, root, claim, key_box, chunk_box)


def request(c: Ckks, rows: Sequence[Sequence[Value]]) -> bytes:
    """Message 17."""
    named = [list(row[:3]) for row in rows]
    return message(
        c, 17, list(rows), sign(c.aggregator, f"{SPEC} request", c.ctx, named)
    )


def packed_sum(c: Ckks, total: Sequence[int]) -> bytes:
    """SPEC 5: of the keys, two's complement."""
    bits = key_bits(c.n)
    return pack((x % 2**bits for x in total), bits)


def opening(c: Ckks, total: Sequence[int], seeds: Sequence[bytes]) -> bytes:
    """SPEC 4.2: what a release box holds."""
    return packed_sum(c, total) + b"".join(seeds)


def release_box(c: Ckks, plain: bytes, to: bytes, ephemeral: bytes) -> bytes:
    """SPEC 4.2."""
    return seal(plain, to, cbor([f"{SPEC} release box", c.ctx]), ephemeral)


def release_signature(seed: bytes, c: Ckks, rows: Sequence[Value], box: bytes) -> bytes:
    hash_ = digest(f"{SPEC} release box", box)
    return sign(seed, f"{SPEC} release", c.ctx, list(rows), hash_)


def release(c: Ckks, rows: Sequence[Value], box: bytes) -> bytes:
    """Message 18."""
    return message(c, 18, list(rows), box, release_signature(c.holder, c, rows, box))


def refusal(c: Ckks, culprit: int) -> bytes:
    """Message 19."""
    return message(c, 19, culprit, sign(c.holder, f"{SPEC} refusal", c.ctx, culprit))


def public(private: bytes) -> bytes:
    return x25519_public(private)
