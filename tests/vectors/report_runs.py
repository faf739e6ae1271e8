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
from unittest import mock

from secure_fl import keys
from secure_fl.report.verify import first_difference
from secure_fl.transcript import countersign
from tests.report import support
from tests.report.sealed import Sealed
from tests.report.support import Consortium, Made, rows_of

from . import reference
from .report_distributed import EARLIER, OF_CLIENTS, OF_RECORDS, Distributed
from .report_parties import Charged, Kept, Refused, Unprotected

REPORT = "report.json"
TRANSCRIPT = "transcript.cbor"
METRICS = b'{\n  "history": []\n}\n'


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
    "distributed-record": Kind(
        "Masking, of which only the sums are private: Poisson samples of a quarter of "
        "the records, Skellam noise in shares, an aggregator with momentum and a "
        "falling rate; kept vectors. Round 1 is skipped, in round 2 bank-d has no "
        "vector. bank-a's data set was charged by earlier runs, one of which assumed "
        "that nobody colludes.",
        lambda home: Distributed(
            home,
            seed=b"vectors distributed record",
            lines=OF_RECORDS,
            earlier=EARLIER,
        ).play(),
    ),
    "distributed-client": Kind(
        "Masking, of which only the sums are private, whole updates of clients; "
        "discrete Gaussian noise in shares; kept vectors. Round 1 is skipped, in "
        "round 2 bank-d has no vector.",
        lambda home: Distributed(
            home, seed=b"vectors distributed client", lines=OF_CLIENTS
        ).play(),
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
    log = made.transcript.before(old)
    artefacts = log.append("artefacts", {0: rows_of(files)})
    log.sign(made.aggregator)
    for name in support.in_a_sum(made.plan, log):
        signature = countersign(made.identities[name], artefacts.hash)
        log.add_signature(name, artefacts, signature)
    files[TRANSCRIPT] = log.to_bytes()
    return replace(made, transcript=log, files=files)


def agree(one: bytes, other: bytes) -> bool:
    """Whether two reports say the same, as far as machines agree."""
    return first_difference(json.loads(one), json.loads(other)) is None
