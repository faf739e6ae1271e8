# SPDX-License-Identifier: Apache-2.0
"""The parties of the good runs behind protocols/report/vectors/1."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from typing import Any
from unittest import mock

from secure_fl.masking import Session, messages
from secure_fl.masking.aggregator import CollectInputs
from secure_fl.plan import Plan
from secure_fl.privacy import Event, Gaussian, PoissonGaussian
from secure_fl.report import vectors
from tests.report.sealed import Sealed
from tests.report.support import Consortium, Made

START = "start.safetensors"


@dataclass
class Charged(Consortium):
    """Earlier runs have charged bank-a's data set, one release of which never left."""

    def rounds(self) -> None:
        ledger, lineage = self.ledgers["bank-a"], self.plan.lineage
        events: list[Event] = [Gaussian(20.0), PoissonGaussian(0.25, 4.0)]
        events.append(Gaussian(9.5))
        for place, event in enumerate(events):
            reservation = ledger.reserve(
                lineage,
                run_id=bytes(15) + b"\x07",
                round_index=place,
                attempt=0,
                event=event,
                unit="record",
                adjacency="add-or-remove-one",
                delta=1e-6,
                limit=4.0,
                now=self.now(),
            )
            if place == 2:
                ledger.aborted(reservation, now=self.now())
            else:
                ledger.sent(reservation, ctx=bytes(31) + bytes([place]), now=self.now())
        super().rounds()


@dataclass
class Unprotected(Consortium):
    """bank-b's updates carry no noise, and bank-d has none in round 1."""

    def rounds(self) -> None:
        self.masked_attempt((0, 0))
        self.masked_attempt((1, 0), absent=["bank-d"])


@dataclass
class Refused(Sealed):
    """The key holder refuses an attempt: bank-c's key box is not for it."""

    def rounds(self) -> None:
        self.attempt((0, 0))
        self.attempt((1, 0), wrong_key="bank-c")
        self.attempt((1, 1), absent=["bank-c"])


@dataclass
class Kept(Consortium):
    """The folder holds what opens every sum again."""

    def __post_init__(self) -> None:
        super().__post_init__()
        start = self.model.to_bytes()
        text = self.plan.source.decode().replace("0" * 64, sha256(start).hexdigest())
        text = text.replace("chunk_words = 64", "chunk_words = 64\nkeep_vectors = true")
        self.plan = Plan(text.encode())
        self.kept = {START: start}
        self.messages: list[tuple[str, bytes]] = []

    def log(
        self, place: tuple[int, int], sender: str, receiver: str, data: bytes
    ) -> None:
        super().log(place, sender, receiver, data)
        if messages.kind_of(data) == 10:
            self.messages.append((sender, data))

    def open(self, place: tuple[int, int], session: Session, *rest: Any) -> None:
        super().open(place, session, *rest)
        self.keep(place, session)

    def keep(self, place: tuple[int, int], session: Session) -> None:
        """The file of vectors of a round that has been opened."""
        kept = vectors.Kept(self.run_id, *place, b"", self.messages)
        self.kept[vectors.vectors_file(*place)] = kept.to_bytes(session.roster)
        self.messages = []

    @contextlib.contextmanager
    def noting(self) -> Iterator[None]:
        """All chunks that arrive are noted too."""
        add_chunk = CollectInputs.add_chunk

        def noted(inputs: CollectInputs, sender: int, chunk: messages.Chunk) -> None:
            session = inputs._session
            self.messages.append((session.name(sender), chunk.encode(session)))
            add_chunk(inputs, sender, chunk)

        with mock.patch.object(CollectInputs, "add_chunk", noted):
            yield

    def rounds(self) -> None:
        with self.noting():
            self.masked_attempt((0, 0))
            self.masked_attempt((1, 0), absent=["bank-d"])

    def play(self) -> Made:
        made = super().play()
        return replace(made, files={**made.files, **self.kept})
