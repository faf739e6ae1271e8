# SPDX-License-Identifier: Apache-2.0
"""What every party of one masking context holds identically (SPEC.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Final, Literal, final

from .. import wire
from ..context import Context
from ..errors import PlanError
from ..fixedpoint import packed_size, word_dtype

__all__ = ["SPEC", "Parameters", "Session", "default_threshold", "smallest_threshold"]

SPEC: Final = "secure-fl/masking/1"


def smallest_threshold(clients: int, max_colluding: int) -> int:
    """The least t for which two sets of t members share an honest one (SPEC 3.3)."""
    return (clients + max_colluding) // 2 + 1


def default_threshold(clients: int, max_colluding: int) -> int:
    """As small as is safe: it leaves room for the most dropouts."""
    return smallest_threshold(clients, max_colluding)


@final
@dataclass(frozen=True, slots=True)
class Parameters:
    """Public numbers of one context.  Raises PlanError where they are not safe.

    length
        words in a vector
    chunk_words
        words per chunk; the last chunk may be shorter
    threshold, min_clients, max_colluding
        of the whole cohort, see SPEC 3.3
    graph, kem
        reserved: this version knows one of each
    """

    clients: int
    length: int
    word_bits: int
    chunk_words: int
    threshold: int
    min_clients: int
    max_colluding: int
    graph: Literal["complete"] = "complete"
    kem: Literal["x25519"] = "x25519"

    def __post_init__(self) -> None:
        word_dtype(self.word_bits)
        if self.length < 1 or self.chunk_words < 1 or self.max_colluding < 0:
            raise PlanError("length and chunk_words are at least 1", key="masking")
        floor = smallest_threshold(self.clients, self.max_colluding)
        if not floor <= self.threshold <= self.clients:
            raise PlanError(
                f"{self.threshold} is not within {floor} to {self.clients}",
                key="threshold",
            )
        if not self.max_colluding + 2 <= self.min_clients <= self.clients:
            raise PlanError(
                f"{self.min_clients} is not within {self.max_colluding + 2} to "
                f"{self.clients}",
                key="min_clients",
            )

    @property
    def needed(self) -> int:
        """The fewest clients any set of the protocol may have."""
        return max(self.threshold, self.min_clients)

    @property
    def chunks(self) -> int:
        return -(-self.length // self.chunk_words)

    def chunk_range(self, index: int) -> tuple[int, int]:
        """First word of a chunk, and the first after it."""
        start = index * self.chunk_words
        return start, min(start + self.chunk_words, self.length)

    def chunk_size(self, index: int) -> int:
        """Bytes of a chunk on the wire."""
        start, stop = self.chunk_range(index)
        return packed_size(stop - start, self.word_bits)

    def to_wire(self) -> wire.Value:
        return [
            self.clients,
            self.length,
            self.word_bits,
            self.chunk_words,
            self.threshold,
            self.min_clients,
            self.max_colluding,
            self.graph,
            self.kem,
        ]


@final
@dataclass(frozen=True, slots=True)
class Session(Context[Parameters]):
    """One masking context (SPEC 3.1)."""

    spec: ClassVar[str] = SPEC
