# SPDX-License-Identifier: Apache-2.0
"""What every party of one CKKS context holds identically (SPEC.md, section 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, final

from .. import wire
from ..context import Context
from ..errors import PlanError
from ..fixedpoint import word_dtype
from .rings import LARGEST_KEY, Packing

__all__ = ["SPEC", "Keys", "Parameters", "Session", "key_bits"]

SPEC: Final = "secure-fl/ckks/1"
Keys = Literal["one-time", "keyholder"]
_KEYS: Final = ("one-time", "keyholder")


def key_bits(clients: int) -> int:
    """Bits of a word that holds every sum of ``clients`` keys (SPEC 4.4)."""
    bits = 8
    while LARGEST_KEY * clients > 2 ** (bits - 1) - 1:
        bits += 1
    return bits


@final
@dataclass(frozen=True, slots=True)
class Parameters:
    """Public numbers of one context.  Raises PlanError where they are not safe.

    length
        words in a vector
    packing
        the ring, and how words stand in it; it holds the width of a word too
    chunk_blocks
        ciphertexts per chunk; the last chunk may have fewer
    min_clients, max_colluding
        of the whole cohort
    keys
        how the sum of the keys comes out
    """

    clients: int
    length: int
    packing: Packing
    chunk_blocks: int
    min_clients: int
    max_colluding: int
    keys: Keys

    def __post_init__(self) -> None:
        word_dtype(self.packing.word_bits)
        if self.packing.clients != self.clients:
            raise PlanError("the packing is for another number of clients", key="ckks")
        if self.length < 1 or self.chunk_blocks < 1 or self.max_colluding < 0:
            raise PlanError("length and chunk_blocks are at least 1", key="ckks")
        if not self.max_colluding + 2 <= self.min_clients <= self.clients:
            raise PlanError(
                f"{self.min_clients} is not within {self.max_colluding + 2} to "
                f"{self.clients}",
                key="min_clients",
            )
        if self.keys not in _KEYS:
            raise PlanError(f"is not one of {', '.join(_KEYS)}", key="protection.keys")

    @property
    def word_bits(self) -> int:
        return self.packing.word_bits

    @property
    def needed(self) -> int:
        """The fewest clients whose sum may be opened."""
        return self.min_clients

    @property
    def blocks(self) -> int:
        return self.packing.blocks(self.length)

    @property
    def chunks(self) -> int:
        return -(-self.blocks // self.chunk_blocks)

    def chunk_range(self, index: int) -> tuple[int, int]:
        """First block of a chunk, and the first after it."""
        start = index * self.chunk_blocks
        return start, min(start + self.chunk_blocks, self.blocks)

    def chunk_size(self, index: int) -> int:
        """Bytes of a chunk, before it is sealed."""
        start, stop = self.chunk_range(index)
        return (stop - start) * self.packing.ring.block_bytes

    def to_wire(self) -> wire.Value:
        p = self.packing
        return [
            self.clients,
            self.length,
            p.word_bits,
            self.chunk_blocks,
            self.min_clients,
            self.max_colluding,
            self.keys,
            p.ring.degree,
            p.ring.bits,
            p.fields,
            p.scale_bits,
        ]


@final
@dataclass(frozen=True, slots=True)
class Session(Context[Parameters]):
    """One CKKS context (SPEC 2)."""

    spec: ClassVar[str] = SPEC
