# SPDX-License-Identifier: Apache-2.0
"""The good runs behind protocols/report/vectors/1: the same bytes on every machine.

They are played as in ``tests/report``, with seeded keys, fixed times and boxes whose
ephemeral keys follow from their content.  The pages are one line each: no check reads
them, and so the vectors do not change with how a page is drawn.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from unittest import mock

from secure_fl import keys
from secure_fl.masking import Session, messages
from secure_fl.masking.aggregator import CollectInputs
from secure_fl.plan import Plan
from secure_fl.privacy import Event, Gaussian, PoissonGaussian
from secure_fl.report import vectors
from secure_fl.report.verify import first_difference
from secure_fl.transcript import Transcript, countersign
from tests.report import support
from tests.report.sealed import Sealed
from tests.report.support import Consortium, Made, rows_of

from . import reference

START = "start.safetensors"
REPORT = "report.json"
TRANSCRIPT = "transcript.cbor"
METRICS = b'{\n  "history": []\n}\n'


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
        kept = vectors.Kept(self.run_id, *place, b"", self.messages)
        self.kept[vectors.vectors_file(*place)] = kept.to_bytes(session.roster)
        self.messages = []

    def rounds(self) -> None:
        add_chunk = CollectInputs.add_chunk

        def noting(inputs: CollectInputs, sender: int, chunk: messages.Chunk) -> None:
            session = inputs._session
            self.messages.append((session.name(sender), chunk.encode(session)))
            add_chunk(inputs, sender, chunk)

        with mock.patch.object(CollectInputs, "add_chunk", noting):
            self.masked_attempt((0, 0))
            self.masked_attempt((1, 0), absent=["bank-d"])

    def play(self) -> Made:
        made = super().play()
        return replace(made, files={**made.files, **self.kept})


@dataclass(frozen=True)
class Kind:
    """One good run: what it shows, and how it is played in a folder for ledgers."""

    about: str
    play: Callable[[Path], Made]
    needs_ckks: bool = False


KINDS = {
    "masking": Kind(
        "Masking. In round 1 the first attempt fails (bank-c sends no vector, bank-d "
        "deals and leaves), the second leaves bank-d out. bank-a's data set was "
        "charged by an earlier run.",
        lambda home: Charged(home, seed=b"vectors masking").play(),
    ),
    "sampled": Kind(
        "Masking, Poisson samples of half the records, a record at several members; "
        "bank-b's updates carry no noise, so its epsilon is infinite.",
        lambda home: Unprotected(
            home,
            seed=b"vectors sampled",
            rate="0.5",
            overlap="overlapping",
            unprotected="bank-b",
            ledgers_live_on=False,
        ).play(),
    ),
    "kept": Kind(
        "Masking, with what it takes to open every sum again; bank-d has no vector in "
        "round 1.",
        lambda home: Kept(home, seed=b"vectors kept").play(),
    ),
    "plain": Kind(
        "No protection, in a simulation.",
        lambda home: Consortium(home, seed=b"vectors plain", kind="plain").play(),
    ),
    "ckks-one-time": Kind(
        "CKKS with one-time keys. In round 1 the first attempt fails after a signed "
        "statement has left out bank-d, whose update then stands in the second.",
        lambda home: Sealed(home, seed=b"vectors one-time", keys="one-time").play(),
        needs_ckks=True,
    ),
    "ckks-keyholder": Kind(
        "CKKS with a key holder. In round 1 it refuses the first attempt, and the "
        "updates stand in the second, without bank-c.",
        lambda home: Refused(home, seed=b"vectors key holder", keys="keyholder").play(),
        needs_ckks=True,
    ),
}


@contextlib.contextmanager
def repeatable_boxes() -> Iterator[None]:
    """HPKE with an ephemeral key that is a hash of all that goes into the box."""

    def seal(plain: bytes, to: bytes, *, info: bytes) -> bytes:
        ephemeral = sha256(b"vectors" + info + to + plain).digest()
        return reference.seal(plain, to, info, ephemeral)

    with mock.patch.object(keys, "seal", seal):
        yield


@contextlib.contextmanager
def short_pages() -> Iterator[None]:
    with (
        mock.patch.object(support, "render_html", return_value="<p>A page</p>\n"),
        mock.patch.object(support, "render_text", return_value="A page\n"),
    ):
        yield


def play(name: str, *, kept: bytes | None = None) -> Made:
    """The run ``name``.  ``kept``: its report.json as published, which stays as it is
    where it agrees: another machine's sixth digit is not another vector."""
    with TemporaryDirectory() as home, repeatable_boxes(), short_pages():
        return _published(KINDS[name].play(Path(home)), kept)


def _published(made: Made, kept: bytes | None) -> Made:
    """The run with no figures and the report ``kept``, closed and signed once more."""
    files = {**made.files, "metrics.json": METRICS}
    if kept is not None and agree(files[REPORT], kept):
        files[REPORT] = kept
    old = made.transcript.of_kind("artefacts")[0]
    log = Transcript(made.transcript.run_id)
    log.entries = made.transcript.entries[: old.sequence]
    artefacts = log.append("artefacts", {0: rows_of(files)})
    log.sign(made.aggregator)
    for name in log.of_kind("round")[-1].rows(3):
        assert isinstance(name, str)
        signature = countersign(made.identities[name], artefacts.hash)
        log.add_signature(name, artefacts, signature)
    files[TRANSCRIPT] = log.to_bytes()
    return replace(made, transcript=log, files=files)


def agree(one: bytes, other: bytes) -> bool:
    """Whether two reports say the same, as far as machines agree."""
    return first_difference(json.loads(one), json.loads(other)) is None
