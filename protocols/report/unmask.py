# SPDX-License-Identifier: Apache-2.0
"""A masked sum, opened again from kept messages (SPEC.md, 9.2; masking 5.8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from operator import add, sub
from typing import Any

from canonical import Malformed, digest, signed, tree
from context import MASKING
from machines import Masking
from plan import Plan
from streams import (
    PRIME,
    agree,
    derive,
    element,
    le32,
    public_of,
    stream,
    unpack,
    weights,
)


@dataclass(frozen=True)
class Shape:
    """Vectors of a masking context."""

    length: int
    bits: int
    chunk: int

    def counts(self) -> list[int]:
        """Words in each chunk."""
        starts = range(0, self.length, self.chunk)
        return [min(self.chunk, self.length - start) for start in starts]


class Unmasking:
    """Opens one context of the masking protocol.

    `chunks` has each survivor's packed chunks, in order; `reveals` the parts of each
    client's `Reveal`.  Everything that does not fit is `Malformed`.
    """

    def __init__(
        self,
        plan: Plan,
        log: Masking,
        shape: Shape,
        chunks: dict[int, list[bytes]],
        reveals: dict[int, list[Any]],
    ) -> None:
        self._plan, self._log, self._shape = plan, log, shape
        self._chunks, self._reveals = chunks, reveals
        self._dropped = sorted(set(log.dealt) - set(log.inputs))

    def open(self) -> tuple[list[int], dict[int, bytes]]:
        """The sum's words, mod 2^bits, and the attached seed of each survivor."""
        self._check_reveals()
        betas, keys = self._secrets()
        adds, takes = self._seeds(betas, keys)
        words: list[int] = []
        mask = (1 << self._shape.bits) - 1
        for at, count in enumerate(self._shape.counts()):
            total = [0] * count
            for client in sorted(self._chunks):
                packed = self._chunks[client][at]
                total = list(map(add, total, self._unpack(packed, count)))
            for seed in takes:
                total = list(map(sub, total, self._stream(seed, at, count)))
            for seed in adds:
                total = list(map(add, total, self._stream(seed, at, count)))
            words += [word & mask for word in total]
        ctx = self._log.ctx
        attached = {
            client: derive(ctx, le32(beta), f"{MASKING} attached")
            for client, beta in betas.items()
        }
        return words, attached

    def _unpack(self, data: bytes, count: int) -> list[int]:
        return unpack(data, count, self._shape.bits)

    def _stream(self, seed: bytes, chunk: int, count: int) -> list[int]:
        return stream(f"{MASKING} stream", seed, chunk, count, self._shape.bits)

    def check_chunks(self) -> None:
        """Each survivor's chunks are those it signed, or `Malformed`."""
        counts = self._shape.counts()
        for client, (_, root, _, _) in self._log.inputs.items():
            chunks = self._chunks.get(client, [])
            if len(chunks) != len(counts):
                raise Malformed(f"client {client} has not all its chunks")
            leaves = [digest(f"{MASKING} chunks data", chunk) for chunk in chunks]
            if tree(f"{MASKING} chunks", leaves) != root:
                raise Malformed(f"the chunks of client {client} are not what it signed")

    def _check_reveals(self) -> None:
        log = self._log
        for client, (_, rows, made) in self._reveals.items():
            key = self._plan.members[client].key
            if not signed(key, made, f"{MASKING} reveal", log.ctx, client, rows):
                raise Malformed(f"the reveal of client {client} is not signed")
            if [row[0] for row in rows] != sorted(log.dealt):
                raise Malformed(f"the reveal of client {client} is of other dealers")
            for dealer, kind, share in rows:
                if kind != (1 if dealer in log.inputs else 2):
                    raise Malformed("a share of the wrong kind was revealed")
                committed = log.dealt[dealer].rows[client][kind]
                label = f"{MASKING} {'self' if kind == 1 else 'key'} share"
                if digest(label, log.ctx, dealer, client, share) != committed:
                    raise Malformed("a share is not the one that its dealer dealt")

    def _secrets(self) -> tuple[dict[int, int], dict[int, bytes]]:
        """`beta` of each survivor, and the mask key of each dealer that dropped out."""
        log, first = self._log, sorted(self._reveals)[: self._plan.threshold]
        if len(first) < self._plan.threshold:
            raise Malformed("too few reveals were kept")
        factors = weights([client + 1 for client in first])
        shares: dict[int, list[int]] = {dealer: [] for dealer in log.dealt}
        for client in first:
            for dealer, _, share in self._reveals[client][1]:
                shares[dealer].append(element(share))
        betas, keys = {}, {}
        for dealer, parts in shares.items():
            secret = _at_zero(factors, parts)
            if dealer in log.inputs:
                committed = digest(f"{MASKING} self", log.ctx, dealer, le32(secret))
                if committed != log.dealt[dealer].own:
                    raise Malformed(f"the shares of dealer {dealer} do not fit")
                betas[dealer] = secret
            else:
                key = derive(log.ctx, le32(secret), f"{MASKING} mask key")
                if public_of(key) != log.announced[dealer][2]:
                    raise Malformed(f"the shares of dealer {dealer} do not fit")
                keys[dealer] = key
        return betas, keys

    def _seeds(
        self, betas: dict[int, int], keys: dict[int, bytes]
    ) -> tuple[list[bytes], list[bytes]]:
        """Seeds of the streams to add, and of those to take off."""
        log = self._log
        adds: list[bytes] = []
        takes = [
            derive(log.ctx, le32(beta), f"{MASKING} self mask")
            for beta in betas.values()
        ]
        for gone, key in keys.items():
            for client in log.inputs:
                shared = agree(key, log.announced[client][2])
                pair = (log.cohort, min(gone, client), max(gone, client))
                seed = derive(log.ctx, shared, f"{MASKING} pair mask", *pair)
                (takes if gone > client else adds).append(seed)
        return adds, takes


def _at_zero(factors: Sequence[int], shares: Sequence[int]) -> int:
    return sum(f * s for f, s in zip(factors, shares, strict=True)) % PRIME
