# SPDX-License-Identifier: Apache-2.0
"""The good runs that are mutated: two rounds of four banks under each protection."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from secure_fl import wire
from secure_fl.identity import key_to_text
from secure_fl.masking import messages
from secure_fl.plain import CollectPlain, upload

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
        self.failing_attempt((1, 0))
        self.attempt_of((1, 1), NAMES[:3])

    def failing_attempt(self, place: tuple[int, int]) -> None:
        self.attempt_of(place, NAMES[:2])

    def attempt_of(self, place: tuple[int, int], present: tuple[str, ...]) -> None:
        s = self.session(place)
        collect = CollectPlain(s)
        self.log(place, "", "", wire.encode({0: 0, 1: s.ctx}))
        reservations = {n: self.reserve(n, place) for n in present}
        for name in present:
            self.ledgers[name].sent(reservations[name], ctx=s.ctx, now=self.now())
            claim = reservations[name].entry_hash
            for part in upload(
                s, self.identities[name], self.words(s, name), claim=claim
            ):
                if isinstance(part, messages.Chunk):
                    collect.add_chunk(s.roster.index(name), part)
                else:
                    collect.add(s.roster.index(name), part)
                    self.log(place, name, "", part.encode(s))
        if len(present) < s.parameters.needed:
            self.fail(place, f"{len(present)} clients are left", culprit="")
            return
        self.open(place, s, list(present), collect.close().words, reservations)
