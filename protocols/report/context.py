# SPDX-License-Identifier: Apache-2.0
"""Contexts of rounds and attempts (SPEC.md, 3.3)."""

from dataclasses import dataclass
from typing import Any

from canonical import digest
from packing import Packing, packing
from plan import Plan

MASKING, CKKS = "secure-fl/masking/1", "secure-fl/ckks/1"
_KEY_TAIL = 96  # a coefficient of a key is at most this (CKKS 3.2)


@dataclass(frozen=True)
class Session:
    """What a plan and the number of values fix for all contexts of a run."""

    plan: Plan
    values: int
    packing: Packing | None

    @property
    def length(self) -> int:
        """Words of a vector."""
        return self.plan.length(self.values)

    @property
    def key_bits(self) -> int:
        """Bits of a coefficient in a sum of keys (CKKS 4.4)."""
        most = _KEY_TAIL * len(self.plan.members)
        return max(8, most.bit_length() + 1)

    @property
    def chunk_blocks(self) -> int:
        """Blocks in a chunk of ciphertexts (SPEC.md, 3.3)."""
        if self.packing is None:
            return 1
        words = self.packing.degree * self.packing.fields
        return max(1, self.plan.chunk_words // words)

    def context(self, round_: int, attempt: int, model: bytes) -> bytes:
        """The `ctx` that ledgers and rounds name."""
        if self.packing is None:
            return self._ctx(MASKING, round_, attempt, model, self.masking_parameters)
        return self._ctx(CKKS, round_, attempt, model, self._ckks_parameters())

    def keys_context(self, round_: int, attempt: int, ctx: bytes) -> bytes:
        """The context of the messages, with one-time keys (CKKS 4.4)."""
        return self._ctx(MASKING, round_, attempt, ctx, self.keys_parameters())

    def _ctx(
        self, label: str, round_: int, attempt: int, model: bytes, parameters: list[Any]
    ) -> bytes:
        plan = self.plan
        return digest(
            label + " ctx",
            *(plan.hash, plan.run_id, round_, attempt, plan.roster, model, parameters),
        )

    @property
    def masking_parameters(self) -> list[Any]:
        return self._parameters(self.length, self.plan.word_bits, self.plan.chunk_words)

    def keys_parameters(self) -> list[Any]:
        degree = self.packing.degree if self.packing else 0
        return self._parameters(degree, self.key_bits, degree)

    def _parameters(self, length: int, bits: int, chunk: int) -> list[Any]:
        plan = self.plan
        return [
            *(len(plan.members), length, bits, chunk),
            *(plan.threshold, plan.min_clients, plan.max_colluding),
            *("complete", "x25519"),
        ]

    def _ckks_parameters(self) -> list[Any]:
        plan, ring = self.plan, self.packing
        if ring is None:
            return []
        return [
            *(len(plan.members), self.length, plan.word_bits, self.chunk_blocks),
            *(plan.min_clients, plan.max_colluding, plan.keys),
            *(ring.degree, ring.prime_bits, ring.fields, ring.scale_bits),
        ]


def session(plan: Plan, values: int) -> Session:
    """The session for a model of so many values."""
    packed = packing(plan, plan.length(values)) if plan.kind == "ckks" else None
    return Session(plan, values, packed)
