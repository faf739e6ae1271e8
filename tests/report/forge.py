# SPDX-License-Identifier: Apache-2.0
"""Forged messages of runs under CKKS, made with everybody's own keys."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from secure_fl import ckks
from secure_fl.ckks import messages as sealed
from secure_fl.ckks.messages import KINDS
from secure_fl.context import kind_of
from secure_fl.identity import Identity
from secure_fl.plan import Plan

from .support import Made
from .test_transcript import of_kind

OPENED = (0, 1)  # the attempt of round 0 that was opened, with a key holder
REFUSED = (1, 0)  # the one that the key holder refused
SIZE = 20

Row = tuple[str, dict[int, Any], int]


@dataclass
class Forge:
    """The rows of a transcript, and the keys of everybody."""

    made: Made
    rows: list[Row]

    @property
    def plan(self) -> Plan:
        return self.made.plan

    @property
    def keyholder(self) -> Identity:
        assert self.made.keyholder is not None
        return self.made.keyholder

    def session(self, place: tuple[int, int] = OPENED) -> ckks.Session:
        entries = self.made.transcript
        before = entries.of_kind("start")[0].bytes_(6)
        if place[0]:
            before = entries.of_kind("round")[place[0] - 1].bytes_(8)
        session = self.plan.session(
            round_index=place[0], attempt=place[1], model_hash=before, size=SIZE
        )
        assert isinstance(session, ckks.Session)
        return session

    def find(self, kind: int, place: tuple[int, int] = OPENED) -> list[int]:
        found = []
        for i in of_kind(self.rows, "message"):
            body = self.rows[i][1]
            if body[5]:
                number = KINDS.REQUEST if self.plan.has_keyholder else 10
            else:
                number = kind_of(body[4])
            if number == kind and (body[0], body[1]) == place:
                found.append(i)
        return found

    def body(
        self, kind: int, at: int = 0, place: tuple[int, int] = OPENED
    ) -> dict[int, Any]:
        return self.rows[self.find(kind, place)[at]][1]

    def drop(self, kind: int, at: int = 0, place: tuple[int, int] = OPENED) -> None:
        del self.rows[self.find(kind, place)[at]]

    def again(self, kind: int) -> None:
        """The message once more, right behind."""
        at = self.find(kind)[0]
        # A new row: none of the old ones' signatures are over it.
        self.rows.insert(at + 1, ("message", {**self.rows[at][1]}, -1))

    # -- forged messages ---------------------------------------------------------------

    def call(self, key: bytes, signer: Identity | None = None) -> sealed.Call:
        s = self.session()
        signer = signer or self.made.aggregator
        signature = signer.sign(sealed.AGGREGATOR_KEY_LABEL, s.ctx, key)
        call = sealed.Call.decode(self.body(KINDS.CALL)[4])
        return replace(call, key=key, signature=signature)

    def holder_key(
        self, key: bytes, signer: Identity | None = None
    ) -> sealed.HolderKey:
        signer = signer or self.keyholder
        ctx = self.session().ctx
        return sealed.HolderKey(key, signer.sign(sealed.HOLDER_KEY_LABEL, ctx, key))

    def set(self, kind: int, data: bytes, place: tuple[int, int] = OPENED) -> None:
        self.body(kind, place=place)[4] = data

    def input(self, at: int, **changed: Any) -> None:
        """Change a client's input; it signs what it then says."""
        s, body = self.session(), self.body(KINDS.INPUT, at)
        new = replace(sealed.Input.decode(body[4], s), **changed)
        signer = self.made.identities[body[2]]
        signature = signer.sign(sealed.INPUT_LABEL, *new.row().signed(s))
        body[4] = replace(new, signature=signature).encode(s)

    def release(
        self,
        rows: tuple[tuple[int, bytes, bytes], ...],
        place: tuple[int, int] = OPENED,
        signer: Identity | None = None,
    ) -> bytes:
        s = self.session(place)
        box = bytes(sealed.release_box_size(s, len(rows)))
        unsigned = sealed.Release(rows, box, b"")
        signer = signer or self.keyholder
        signature = signer.sign(sealed.RELEASE_LABEL, *unsigned.signed(s))
        return replace(unsigned, signature=signature).encode(s)

    def refusal(
        self,
        place: tuple[int, int] = OPENED,
        signer: Identity | None = None,
        culprit: int | None = 0,
    ) -> bytes:
        s = self.session(place)
        unsigned = sealed.Refusal(culprit, b"")
        signer = signer or self.keyholder
        signature = signer.sign(sealed.REFUSAL_LABEL, *unsigned.signed(s))
        return replace(unsigned, signature=signature).encode(s)

    def arrived(
        self, place: tuple[int, int] = OPENED
    ) -> tuple[tuple[int, bytes, bytes], ...]:
        s = self.session(place)
        found = [
            sealed.Input.decode(self.rows[i][1][4], s)
            for i in self.find(KINDS.INPUT, place)
        ]
        return tuple((m.client, m.payload, m.claim) for m in found)
