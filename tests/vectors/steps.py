# SPDX-License-Identifier: Apache-2.0
"""Masking a second time, from SPEC.md alone: section 5, the messages of each step.

Honest only.  Faults are put in by changing what a party is about to send.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from .reference import (
    SPEC,
    Context,
    Value,
    cbor,
    derive,
    digest,
    elements,
    keystream,
    le32,
    pack,
    polynomial,
    seal,
    sign,
    tree,
    tree_path,
    x25519,
    x25519_public,
)


@dataclass
class Party:
    """One client, with the randomness of its steps 1 and 2."""

    c: Context
    index: int
    random_1: bytes
    random_2: bytes

    def __post_init__(self) -> None:
        ctx = self.c.ctx
        self.beta, self.z = elements(ctx, self.random_1, "secrets", 2)
        self.seal_seed = derive(ctx, self.random_1, "seal key")
        self.mask_seed = derive(ctx, le32(self.z), "mask key")
        self.seal_key = x25519_public(self.seal_seed)
        self.mask_key = x25519_public(self.mask_seed)
        self.self_seed = derive(ctx, le32(self.beta), "self mask")
        degree = self.c.threshold - 1
        coefficients = elements(ctx, self.random_2, "coefficients", 2 * degree)
        self.for_self, self.for_key = coefficients[:degree], coefficients[degree:]

    def sign(self, label: str, *parts: Value) -> bytes:
        return sign(self.c.seeds[self.index], f"{SPEC} {label}", *parts)

    def row(self) -> list[Value]:
        """This client's row in the cohort's keys."""
        return announcement(self, self.seal_key, self.mask_key)

    def shares(self, to: int) -> tuple[bytes, bytes]:
        return (
            le32(polynomial(self.beta, self.for_self, to + 1)),
            le32(polynomial(self.z, self.for_key, to + 1)),
        )


def announcement(p: Party, seal_key: bytes, mask_key: bytes) -> list[Value]:
    signature = p.sign("advertise", p.c.ctx, p.index, seal_key, mask_key)
    return [p.index, seal_key, mask_key, signature]


def advertise(c: Context, row: Sequence[Value]) -> bytes:
    """Message 1."""
    return cbor({0: 1, 1: c.ctx, **{2 + i: v for i, v in enumerate(row)}})


def cohort_keys(c: Context, rows: Sequence[Value]) -> bytes:
    """Message 2."""
    return cbor({0: 2, 1: c.ctx, 2: rows})


def cohort_hash(c: Context, rows: Sequence[Sequence[Value]]) -> bytes:
    return digest(f"{SPEC} cohort", c.ctx, [list(row[:3]) for row in rows])


def dealers_hash(c: Context, dealers: Sequence[int]) -> bytes:
    return digest(f"{SPEC} dealers", c.ctx, list(dealers))


def share_commitment(c: Context, kind: str, dealer: int, to: int, s: bytes) -> bytes:
    return digest(f"{SPEC} {kind} share", c.ctx, dealer, to, s)


def self_commitment(c: Context, dealer: int, beta: int) -> bytes:
    return digest(f"{SPEC} self", c.ctx, dealer, le32(beta))


@dataclass(frozen=True)
class Deal:
    """What one dealer sends in step 2, before it is signed."""

    dealer: Party
    cohort: bytes
    commitment: bytes
    rows: list[list[Value]]

    def leaves(self) -> list[bytes]:
        return [cbor(row) for row in self.rows]

    def root(self) -> bytes:
        return tree(f"{SPEC} shares", self.leaves())[-1][0]

    def signature(self) -> bytes:
        p = self.dealer
        parts = (p.c.ctx, self.cohort, p.index, self.commitment, self.root())
        return p.sign("shares", *parts)

    def message(self) -> bytes:
        """Message 3."""
        p = self.dealer
        return cbor(
            {
                0: 3,
                1: p.c.ctx,
                2: p.index,
                3: self.commitment,
                4: self.rows,
                5: self.signature(),
            }
        )

    def inbox_row(self, reader: int) -> list[Value]:
        at = [row[0] for row in self.rows].index(reader)
        return [
            self.dealer.index,
            self.commitment,
            *self.rows[at][1:],
            tree_path(f"{SPEC} shares", self.leaves(), at),
            self.root(),
            self.signature(),
        ]


Shares = Callable[[int], tuple[bytes, bytes]]


def deal(
    p: Party,
    cohort: Sequence[Party],
    hash_: bytes,
    ephemeral: Callable[[int], bytes],
    *,
    shares: Shares | None = None,
) -> Deal:
    """Step 2 of ``p``: shares, boxes and commitments for every member of U1."""
    rows: list[list[Value]] = []
    for peer in cohort:
        pair = (shares or p.shares)(peer.index)
        box = b""
        if peer.index != p.index:
            info = cbor([f"{SPEC} box", p.c.ctx, hash_, p.index, peer.index])
            box = seal(b"".join(pair), peer.seal_key, info, ephemeral(peer.index))
        rows.append(
            [
                peer.index,
                box,
                share_commitment(p.c, "self", p.index, peer.index, pair[0]),
                share_commitment(p.c, "key", p.index, peer.index, pair[1]),
            ]
        )
    return Deal(p, hash_, self_commitment(p.c, p.index, p.beta), rows)


def inbox(c: Context, rows: Sequence[Value]) -> bytes:
    """Message 4."""
    return cbor({0: 4, 1: c.ctx, 2: rows})


def masked_chunks(
    p: Party, words: Sequence[int], dealers: Sequence[Party], hash_: bytes
) -> list[bytes]:
    """Step 3: the packed chunks of ``words`` under every mask."""
    c = p.c
    out = []
    for chunk in range(-(-c.length // c.chunk_words)):
        part = list(words[chunk * c.chunk_words : (chunk + 1) * c.chunk_words])

        def add(seed: bytes, sign: int, part: list[int] = part, k: int = chunk) -> None:
            stream = keystream(seed, k, len(part), c.word_bits)
            part[:] = [
                (w + sign * m) % 2**c.word_bits
                for w, m in zip(part, stream, strict=True)
            ]

        add(p.self_seed, 1)
        for peer in dealers:
            if peer.index != p.index:
                seed = pair_seed(p, peer, hash_)
                add(seed, 1 if peer.index > p.index else -1)
        out.append(pack(part, c.word_bits))
    return out


def pair_seed(p: Party, peer: Party, hash_: bytes) -> bytes:
    low, high = sorted((p.index, peer.index))
    shared = x25519(p.mask_seed, peer.mask_key)
    return derive(p.c.ctx, shared, "pair mask", hash_, low, high)


def chunk_message(c: Context, client: int, index: int, words: bytes) -> bytes:
    """Message 5."""
    return cbor({0: 5, 1: c.ctx, 2: client, 3: index, 4: words})


def chunk_root(chunks: Sequence[bytes]) -> bytes:
    label = f"{SPEC} chunks"
    return tree(label, [digest(label + " data", c) for c in chunks])[-1][0]


@dataclass(frozen=True)
class Input:
    """What ends step 3 of one client."""

    client: Party
    cohort: bytes
    root: bytes
    dealers: bytes
    claim: bytes
    attached: bytes = b""

    def message(self) -> bytes:
        """Message 6."""
        p = self.client
        rest = (self.root, self.dealers, self.claim, self.attached)
        signature = p.sign("input", p.c.ctx, self.cohort, p.index, *rest)
        return cbor(
            {
                0: 6,
                1: p.c.ctx,
                2: p.index,
                3: self.root,
                4: self.dealers,
                5: self.claim,
                6: self.attached,
                7: signature,
            }
        )

    def row(self) -> list[Value]:
        return [self.client.index, self.root, self.claim, self.attached]


@dataclass(frozen=True)
class StatementOf:
    """Step 4, as the aggregator says it and as each survivor signs it."""

    c: Context
    cohort: bytes
    dealers: bytes
    rows: list[list[Value]]

    def message(self) -> bytes:
        """Message 7."""
        return cbor(
            {0: 7, 1: self.c.ctx, 2: self.cohort, 3: self.dealers, 4: self.rows}
        )

    def signed_by(self, p: Party) -> bytes:
        parts = (self.c.ctx, self.cohort, self.dealers, self.rows)
        return p.sign("statement", *parts)

    def with_rows(self, rows: list[list[Value]]) -> StatementOf:
        return replace(self, rows=rows)


def agreement(c: Context, client: int, signature: bytes) -> bytes:
    """Message 8."""
    return cbor({0: 8, 1: c.ctx, 2: client, 3: signature})


def signatures(c: Context, rows: Sequence[Value]) -> bytes:
    """Message 9."""
    return cbor({0: 9, 1: c.ctx, 2: rows})


def reveal_rows(
    p: Party, dealers: Sequence[Party], survivors: Iterable[int]
) -> list[list[Value]]:
    """Step 5: for each dealer a share of its self mask (1) or of its mask key (2)."""
    inside = set(survivors)
    return [
        [d.index, 1, d.shares(p.index)[0]]
        if d.index in inside
        else [d.index, 2, d.shares(p.index)[1]]
        for d in dealers
    ]


def reveal(p: Party, rows: Sequence[Value]) -> bytes:
    """Message 10."""
    signature = p.sign("reveal", p.c.ctx, p.index, rows)
    return cbor({0: 10, 1: p.c.ctx, 2: p.index, 3: rows, 4: signature})
