# SPDX-License-Identifier: Apache-2.0
"""The good runs that are mutated: two rounds of four banks under each protection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from secure_fl.identity import key_to_text

from .support import NAMES, Consortium, source_plan

__all__ = ["AnotherRun", "Plain"]

_ANOTHER: Final = bytes(15) + b"\x01"


@dataclass
class AnotherRun(Consortium):
    """The same parties, keys and data sets once more, under another run id."""

    def __post_init__(self) -> None:
        super().__post_init__()
        source = source_plan(kind=self.kind, rate=self.rate, overlap=self.overlap)
        keys = {n: key_to_text(i.public_key) for n, i in self.identities.items()}
        self.plan = source.completed(
            keys=keys,
            aggregator=key_to_text(self.aggregator.public_key),
            keyholder=None,
            run_id=_ANOTHER,
            start_sha256="0" * 64,
        )
        self.run_id = _ANOTHER
        self.transcript = type(self.transcript)(_ANOTHER)


@dataclass
class Plain(Consortium):
    """Without protection: bank-c drops out of an attempt that fails, and bank-d of the
    next."""

    kind: str = "plain"

    def rounds(self) -> None:
        self.plain_attempt((0, 0))
        self.plain_attempt((1, 0), NAMES[:2])
        self.plain_attempt((1, 1), NAMES[:3])
