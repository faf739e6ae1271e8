# SPDX-License-Identifier: Apache-2.0
"""What every party of one masking context holds identically (SPEC.md, section 3)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, final

from .. import wire
from ..errors import PlanError, UsageError
from ..fixedpoint import packed_size, word_dtype
from ..identity import Roster

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
class Session:
    """One context.  ``ctx`` (32 bytes) is in every key, signature and sealed box.

    A party that was shown another plan, model, roster, round or attempt computes
    another ``ctx``; none of its messages then fit anyone else's (SPEC 3.1).
    """

    plan_hash: bytes
    run_id: bytes
    round_index: int
    attempt: int
    roster: Roster
    model_hash: bytes
    parameters: Parameters
    ctx: bytes = field(init=False)

    def __post_init__(self) -> None:
        if len(self.roster) != self.parameters.clients:
            raise UsageError("the parameters are for another number of clients")
        if len(self.plan_hash) != 32 or len(self.model_hash) != 32:
            raise UsageError("hashes have 32 bytes")
        if len(self.run_id) != 16:
            raise UsageError("a run id has 16 bytes")
        if not (0 <= self.round_index < 2**63 and 0 <= self.attempt < 2**63):
            raise UsageError("rounds and attempts are counted from 0")
        ctx = wire.digest(
            f"{SPEC} ctx",
            self.plan_hash,
            self.run_id,
            self.round_index,
            self.attempt,
            self.roster.to_wire(),
            self.model_hash,
            self.parameters.to_wire(),
        )
        object.__setattr__(self, "ctx", ctx)

    def name(self, index: int) -> str:
        return self.roster.name(index)

    def public_key(self, index: int) -> bytes:
        return self.roster.members[index].public_key
