# SPDX-License-Identifier: Apache-2.0
"""A run's folder in the hands of a forger: what each of them can make hold again.

A forger changes what it likes, chains the entries anew, and signs again whatever the
keys it holds can sign.  Of the others it keeps the signatures that they once gave.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

from secure_fl import wire
from secure_fl.context import kind_of
from secure_fl.errors import SecureFLError
from secure_fl.identity import Identity
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.privacy import LedgerExport, read_export
from secure_fl.report import build_report, to_json
from secure_fl.transcript import SPEC, Transcript, countersign, genesis

from .support import Made, Row, laid, rows_of

__all__ = [
    "COALITION",
    "EVERYBODY",
    "MEMBER",
    "METRICS",
    "MODEL",
    "NOBODY",
    "PLAN",
    "REPORT",
    "TRANSCRIPT",
    "Folder",
    "Mutation",
    "Row",
    "chained",
    "ledger",
    "messages_of",
    "of_kind",
    "parsed",
]

PLAN: Final = "plan.toml"
MODEL: Final = "model.safetensors"
METRICS: Final = "metrics.json"
TRANSCRIPT: Final = "transcript.cbor"
REPORT: Final = "report.json"

# Who forges.  The plans of these tests allow one colluding member.
NOBODY: Final[tuple[str, ...]] = ()
MEMBER: Final = ("bank-a",)
COALITION: Final = ("", "bank-a")  # the aggregator, and as many members as may collude
EVERYBODY: Final = ("*",)


def ledger(client: str) -> str:
    return f"ledgers/{client}.cbor"


@lru_cache(maxsize=1)
def _plan(source: bytes) -> Plan:
    return Plan(source)


def parsed(transcript: bytes) -> list[Row]:
    """The entries as they stand, whatever they say, each message in its own."""
    value: Any = wire.decode(transcript)
    entries: list[Any] = [wire.decode(data) for data in value[2]]
    beside = iter(value[3])
    for entry in entries:
        if entry[2] == "message" and entry[3].get(5) != 1:
            entry[3][4] = next(beside)
    return [(e[2], dict(e[3]), e[0]) for e in entries]


def chained(
    run_id: bytes, rows: Iterable[Row], signer: Callable[[str], Identity | None]
) -> bytes:
    """The rows as one chain; signatures that ``signer`` can give are given anew.

    By the formulas of the transcript's specification: nothing is checked here.  One
    that stood at -1 was invented, and is left as it is.
    """
    head = genesis(run_id)
    out: list[bytes] = []
    messages: list[bytes] = []
    place: dict[int, tuple[int, bytes]] = {}
    for kind, body, old in rows:
        if kind == "signature" and old >= 0 and out:
            sequence, signed = place.get(body[1], (len(out) - 1, head))
            body = {**body, 1: sequence}
            identity = signer(body[0])
            if identity is not None:
                body[2] = countersign(identity, signed)
        if kind == "message":
            body, beside = laid(body)
            messages += beside
        data = wire.encode({0: len(out), 1: head, 2: kind, 3: body})
        head = wire.digest(f"{SPEC} entry", data)
        place[old] = len(out), head
        out.append(data)
    return wire.encode([SPEC, run_id, out, messages])


@dataclass
class Folder:
    """The files of ``made``, and the names of those whose keys the forger holds."""

    made: Made
    holds: tuple[str, ...]
    files: dict[str, bytes]
    # Another run of the same parties, to replay from.
    other: Made

    @property
    def plan(self) -> Plan:
        return self.made.plan

    def write(self, folder: Path) -> Path:
        for name, data in self.files.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(data)
        return folder

    def signer(self, name: str) -> Identity | None:
        """The identity of ``name`` (empty: the aggregator), where its key is held."""
        if name not in self.holds and self.holds != EVERYBODY:
            return None
        return self.made.aggregator if not name else self.made.identities.get(name)

    # -- the transcript ----------------------------------------------------------------

    def log(self, edit: Callable[[list[Row]], None]) -> None:
        """Change the entries, and chain and sign again."""
        rows = parsed(self.files[TRANSCRIPT])
        edit(rows)
        run_id = self.made.transcript.run_id
        self.files[TRANSCRIPT] = chained(run_id, rows, self.signer)

    def put(self, name: str, data: bytes) -> None:
        """Replace a file, and its hash in the artefacts."""
        self.files[name] = data
        self.seal()

    def seal(self) -> None:
        """The artefacts name the files as they now are."""

        def edit(rows: list[Row]) -> None:
            for at in of_kind(rows, "artefacts"):
                rows[at][1][0] = rows_of(self.files)

        self.log(edit)

    def exports(self) -> dict[str, LedgerExport]:
        return {
            m.name: read_export(
                self.files[ledger(m.name)], public_key=m.public_key, client=m.name
            )
            for m in self.plan.roster.members
        }

    def rebuild(self) -> None:
        """The report that plan, transcript and ledgers now give, its pages, and all
        hashes: what is left is what a verifier finds in the files themselves.

        Where they give none, the old one stays.
        """
        try:
            report = self._report()
        except SecureFLError:
            self.seal()
        else:
            self.say(report)

    def _report(self) -> dict[str, Any]:
        transcript = Transcript.from_bytes(self.files[TRANSCRIPT])
        if ends := transcript.of_kind("artefacts"):
            transcript = transcript.before(ends[0])
        return build_report(
            plan=_plan(self.files[PLAN]),
            transcript=transcript,
            exports=self.exports(),
            size=GlobalModel.from_bytes(self.files[MODEL]).size,
        )

    def say(self, report: dict[str, Any]) -> None:
        """Put ``report`` in the report's place, and hash everything.

        Its old pages stay: no verifier reads them.
        """
        self.files[REPORT] = to_json(report)
        self.seal()


@dataclass(frozen=True)
class Mutation:
    """One way to lie.

    run
        which run it is made of: ``masking``, ``plain``, ``one-time``, ``keyholder``
    holds
        whose keys the forger has
    files
        the files that a verifier may name; the first is the usual one
    """

    name: str
    run: str
    holds: tuple[str, ...]
    edit: Callable[[Folder], None]
    files: tuple[str, ...]


# -- finding entries -------------------------------------------------------------------


def of_kind(rows: Sequence[Row], kind: str) -> list[int]:
    return [i for i, row in enumerate(rows) if row[0] == kind]


def messages_of(
    rows: Sequence[Row], number: int, place: tuple[int, int] = (0, 0)
) -> list[int]:
    """Where the messages of a kind stand in an attempt; 10 for the withheld ones."""
    found = []
    for i in of_kind(rows, "message"):
        body = rows[i][1]
        kind = 10 if body[5] else kind_of(body[4])
        if kind == number and (body[0], body[1]) == place:
            found.append(i)
    return found


def other_value(value: wire.Value) -> wire.Value:
    """A value of the same type that is not ``value``."""
    if isinstance(value, int):
        return value + 1
    if isinstance(value, str):
        return value + "x"
    if isinstance(value, bytes):
        return value[:-1] + bytes([value[-1] ^ 1]) if value else b"\x01"
    assert isinstance(value, list)
    return value[1:]
