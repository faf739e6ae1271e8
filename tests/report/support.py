# SPDX-License-Identifier: Apache-2.0
"""A small finished run, played by hand: real keys, ledgers, masks and signatures.

Four members, two rounds, 20 values.  In round 1 the first attempt fails (bank-c stops
while it uploads, bank-d never starts), and in the second bank-d has no vector again.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from secure_fl import wire
from secure_fl.identity import Identity, key_to_text
from secure_fl.masking import CollectAdvertise, Session, messages
from secure_fl.masking import start as start_masking
from secure_fl.model import GlobalModel
from secure_fl.plain import CollectPlain, upload
from secure_fl.plan import Plan, endorse
from secure_fl.plan import Session as AnySession
from secure_fl.privacy import Ledger, NonPrivate, Reservation, read_export
from secure_fl.randomness import SeededInsecure
from secure_fl.report import build_report, render_html, render_text, to_json
from secure_fl.transcript import SPEC, Entry, Transcript, countersign, genesis

NAMES = ("bank-a", "bank-b", "bank-c", "bank-d")
TOOL = "secure-fl 0.1.0 (dp-accounting 0.6.0, numpy 2.4.6, python 3.11.7)"
METRICS: dict[str, Any] = {
    "history": [{"round": 0, "accuracy": 0.51}, {"round": 1, "accuracy": 0.75}],
    "final": {"accuracy": 0.75, "auc": 0.8125},
    "baselines": {"one bank alone": {"accuracy": 0.5}, "pooled": {"auc": 0.9}},
}

SOURCE = """\
schema = "secure-fl/plan/1"
name = "credit demo"

[parties]
max_colluding = 1
members = [
    { name = "bank-a", records = 400, weight = 2 },
    { name = "bank-b", records = 300 },
    { name = "bank-c", records = 200 },
    { name = "bank-d", records = 100 },
]

[rounds]
count = 2
spare = 2

[privacy]
mode = "local"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "%(overlap)s"
epsilon = 8.0
delta = 1e-5
clip_norm = 0.5
sampling_rate = %(rate)s
local_steps = 3
noise_multiplier = 6.0

[protection]
kind = "%(kind)s"
%(keys)schunk_words = 64

[model]
kind = "mlp"
"""


@dataclass
class Made:
    """A finished run in memory, and all keys that its parties hold."""

    plan: Plan
    identities: Mapping[str, Identity]
    aggregator: Identity
    transcript: Transcript
    files: dict[str, bytes]
    keyholder: Identity | None = None

    def write(self, folder: Path) -> Path:
        for name, data in self.files.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(data)
        return folder

    def signer(self, name: str) -> Identity:
        return self.identities[name] if name else self.aggregator


def source_plan(*, kind: str, rate: str, overlap: str, keys: str = "") -> Plan:
    entries = {"kind": kind, "rate": rate, "overlap": overlap}
    entries["keys"] = f'keys = "{keys}"\n' if keys else ""
    return Plan((SOURCE % entries).encode())


@dataclass
class Consortium:
    """All parties while the run lasts."""

    folder: Path
    kind: str = "masking"
    keys: str = ""
    rate: str = "1.0"
    overlap: str = "disjoint"
    unprotected: str = ""
    insecure: bool = True
    ledgers_live_on: bool = True
    seed: bytes = b"report tests"
    plan: Plan = field(init=False)
    transcript: Transcript = field(init=False)
    clock: int = 1_700_000_000

    def __post_init__(self) -> None:
        self.random = SeededInsecure(self.seed)
        self.identities = {n: Identity.new(n, random=self.random) for n in NAMES}
        self.aggregator = Identity.new("aggregator", random=self.random)
        self.keyholder = (
            Identity.new("keyholder", random=self.random)
            if self.keys == "keyholder"
            else None
        )
        source = source_plan(
            kind=self.kind, rate=self.rate, overlap=self.overlap, keys=self.keys
        )
        self.plan = source.completed(
            keys={n: key_to_text(i.public_key) for n, i in self.identities.items()},
            aggregator=key_to_text(self.aggregator.public_key),
            keyholder=(
                key_to_text(self.keyholder.public_key) if self.keyholder else None
            ),
            run_id=self.random.bytes(16),
            start_sha256="0" * 64,
        )
        self.model = GlobalModel({"weight": np.zeros((4, 5), np.float32)})
        self.ledgers = {n: Ledger(self.folder / f"{n}.sqlite", client=n) for n in NAMES}
        assert self.plan.run_id is not None
        self.run_id = self.plan.run_id
        self.transcript = Transcript(self.run_id)

    # -- one party's steps -------------------------------------------------------------

    def now(self) -> int:
        self.clock += 1
        return self.clock

    def any_session(self, place: tuple[int, int]) -> AnySession:
        return self.plan.session(
            round_index=place[0],
            attempt=place[1],
            model_hash=self.model.digest(),
            size=self.model.size,
        )

    def session(self, place: tuple[int, int]) -> Session:
        session = self.any_session(place)
        assert isinstance(session, Session)
        return session

    def reserve(self, name: str, place: tuple[int, int]) -> Reservation:
        event = self.plan.release
        limit = self.plan.privacy.epsilon
        if name == self.unprotected:
            return self.ledgers[name].reserve(
                self.plan.lineage,
                run_id=self.run_id,
                round_index=place[0],
                attempt=place[1],
                event=NonPrivate("a baseline without noise"),
                unit="record",
                adjacency="add-or-remove-one",
                delta=self.plan.privacy.delta,
                limit=float("inf"),
                now=self.now(),
            )
        return self.ledgers[name].reserve(
            self.plan.lineage,
            run_id=self.run_id,
            round_index=place[0],
            attempt=place[1],
            event=event,
            unit="record",
            adjacency="add-or-remove-one",
            delta=self.plan.privacy.delta,
            limit=limit,
            now=self.now(),
        )

    def log(
        self, place: tuple[int, int], sender: str, receiver: str, data: bytes
    ) -> None:
        self.transcript.add_message(
            *place,
            sender=sender,
            receiver=receiver,
            message=data,
            withheld=messages.kind_of(data) == 10,
        )

    def words(self, session: AnySession, name: str) -> Any:
        values = np.full(session.parameters.length, 1 + NAMES.index(name), np.int64)
        values[-1] = 0  # nothing was clipped
        return self.plan.encoding.wrap(values * self.plan.member(name).weight)

    # -- attempts ----------------------------------------------------------------------

    def masked_attempt(
        self,
        place: tuple[int, int],
        *,
        upload_fails: Sequence[str] = (),
        absent: Sequence[str] = (),
    ) -> None:
        """One attempt; with fewer vectors than needed it ends in a failure."""
        s = self.session(place)
        index = s.roster.index
        advertising = CollectAdvertise(s)
        states: dict[str, Any] = {}
        for name in NAMES:
            states[name], first = start_masking(
                s, self.identities[name], random=self.random.bytes(32)
            )
            advertising.add(index(name), first)
            self.log(place, name, "", first.encode(s))
        sharing, keys = advertising.close()
        self.log(place, "", "", keys.encode(s))
        for name in NAMES:
            states[name], shares = states[name].on_cohort(
                keys, random=self.random.bytes(32)
            )
            sharing.add(index(name), shares)
            self.log(place, name, "", shares.encode(s))
        inputs, inboxes = sharing.close()
        for name in NAMES:
            self.log(place, "", name, inboxes[index(name)].encode(s))
        present = [n for n in NAMES if n not in absent]
        reservations = {n: self.reserve(n, place) for n in present}
        for name in present:
            uploading = states[name].on_inbox(
                inboxes[index(name)],
                self.words(s, name),
                claim=reservations[name].entry_hash,
            )
            self.ledgers[name].sent(reservations[name], ctx=s.ctx, now=self.now())
            if name in upload_fails:
                continue
            for chunk in uploading.chunks():
                inputs.add_chunk(index(name), chunk)
            states[name], masked = uploading.finish()
            inputs.add(index(name), masked)
            self.log(place, name, "", masked.encode(s))
        survivors = [n for n in present if n not in upload_fails]
        if len(survivors) < s.parameters.needed:
            self.fail(place, f"{len(survivors)} clients are left")
            return
        agreeing, statement = inputs.close()
        self.log(place, "", "", statement.encode(s))
        for name in survivors:
            states[name], agreement = states[name].on_statement(statement)
            agreeing.add(index(name), agreement)
            self.log(place, name, "", agreement.encode(s))
        revealing, signatures = agreeing.close()
        self.log(place, "", "", signatures.encode(s))
        for name in survivors:
            reveal = states[name].on_signatures(signatures)
            revealing.add(index(name), reveal)
            self.log(place, name, "", reveal.encode(s))
        self.open(place, s, survivors, revealing.close().words, reservations)

    def plain_attempt(
        self, place: tuple[int, int], present: Sequence[str] = NAMES
    ) -> None:
        """Without protection, by those who are ``present``; too few open nothing."""
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

    def fail(
        self, place: tuple[int, int], reason: str, *, culprit: str = "bank-c"
    ) -> None:
        self.transcript.append(
            "failure", {0: place[0], 1: place[1], 2: reason, 3: culprit}
        )

    def open(
        self,
        place: tuple[int, int],
        session: Session,
        survivors: Sequence[str],
        words: Any,
        reservations: Mapping[str, Reservation],
    ) -> None:
        self.close_round(
            place,
            session,
            survivors,
            total=self.plan.encoding.decode(words[:-1]),
            words_hash=hashlib.sha256(words.tobytes()).digest(),
            clipped=int(words[-1]),
            reservations=reservations,
        )

    def close_round(
        self,
        place: tuple[int, int],
        session: AnySession,
        survivors: Sequence[str],
        *,
        total: Any,
        words_hash: bytes,
        clipped: int,
        reservations: Mapping[str, Reservation],
    ) -> None:
        weight = sum(self.plan.member(n).weight for n in survivors)
        before, self.model = self.model, self.model.add(total / weight)
        entry = self.transcript.append(
            "round",
            {
                0: place[0],
                1: place[1],
                2: session.ctx,
                3: list(survivors),
                4: weight,
                5: words_hash,
                6: clipped,
                7: before.digest(),
                8: self.model.digest(),
            },
        )
        for name in survivors:
            self.ledgers[name].released(reservations[name], now=self.now())
        # bank-d is cut off before it signs the first round: it signs the end.
        signing = [n for n in survivors if (entry.integer(0), n) != (0, "bank-d")]
        self.sign(entry, signing)

    def sign(self, entry: Entry, members: Sequence[str]) -> None:
        self.transcript.sign(self.aggregator)
        for name in members:
            signature = countersign(self.identities[name], entry.hash)
            self.transcript.add_signature(name, entry, signature)

    # -- the whole run -----------------------------------------------------------------

    def play(self) -> Made:
        self.transcript.append(
            "start",
            {
                0: self.plan.hash,
                1: self.run_id,
                2: self.aggregator.public_key,
                3: TOOL,
                4: 1,
                5: int(self.insecure),
                6: self.model.digest(),
                7: int(self.ledgers_live_on),
            },
        )
        for name, identity in self.identities.items():
            self.transcript.append(
                "endorsement", {0: name, 1: endorse(self.plan, identity)}
            )
        self.rounds()
        return self.close()

    def rounds(self) -> None:
        if self.kind == "plain":
            self.plain_attempt((0, 0))
            self.plain_attempt((1, 0))
        else:
            self.masked_attempt((0, 0))
            self.masked_attempt((1, 0), upload_fails=["bank-c"], absent=["bank-d"])
            self.masked_attempt((1, 1), absent=["bank-d"])

    def close(self) -> Made:
        survivors = in_a_sum(self.plan, self.transcript)
        ledgers = {
            name: ledger.export(self.plan.lineage, identity=self.identities[name])
            for name, ledger in self.ledgers.items()
        }
        for ledger in self.ledgers.values():
            ledger.close()
        files = finish(self.plan, self.transcript, self.model.to_bytes(), ledgers)
        entry = self.transcript.append("artefacts", {0: rows_of(files)})
        self.sign(entry, survivors)
        files["transcript.cbor"] = self.transcript.to_bytes()
        return Made(
            self.plan,
            self.identities,
            self.aggregator,
            self.transcript,
            files,
            self.keyholder,
        )


def finish(
    plan: Plan, transcript: Transcript, model: bytes, ledgers: Mapping[str, bytes]
) -> dict[str, bytes]:
    """Every file of a run but its transcript."""
    exports = {
        m.name: read_export(ledgers[m.name], public_key=m.public_key, client=m.name)
        for m in plan.roster.members
    }
    report = build_report(
        plan=plan,
        transcript=transcript,
        exports=exports,
        size=GlobalModel.from_bytes(model).size,
    )
    return {
        "plan.toml": plan.source,
        "model.safetensors": model,
        "metrics.json": json.dumps(METRICS).encode(),
        **{f"ledgers/{name}.cbor": data for name, data in ledgers.items()},
        "report.json": to_json(report),
        "report.html": render_html(report, METRICS).encode(),
        "report.txt": render_text(report, METRICS).encode(),
    }


def in_a_sum(plan: Plan, transcript: Transcript) -> list[str]:
    """Who was in any opened sum, and so signs the end."""
    inside = {n for e in transcript.of_kind("round") for n in e.rows(3)}
    return [n for n in plan.names if n in inside]


def rows_of(files: Mapping[str, bytes]) -> list[wire.Value]:
    return [
        [name, hashlib.sha256(files[name]).digest()]
        for name in sorted(files)
        if name != "transcript.cbor"
    ]


Row = tuple[str, dict[int, Any], int]
"""Kind and body of an entry, and where it stood.  Field 4 of a message is the message
itself where that lies beside its entry."""

Edit = Callable[[list[Row]], None]


def laid(body: dict[int, Any]) -> tuple[dict[int, Any], list[bytes]]:
    """What the entry of an edited message says, and what then lies beside it."""
    data, withheld = body.get(4), body.get(5) == 1
    if not isinstance(data, bytes) or (withheld and len(data) <= wire.HASH_BYTES):
        return body, []  # its hash, as it was
    beside = [] if withheld else [data]
    return {**body, 4: hashlib.sha256(data).digest()}, beside


def rewritten(
    made: Made, edit: Edit, *, resign: bool, run_id: bytes | None = None
) -> bytes:
    """The transcript with its rows edited and chained again.

    With ``resign`` all parties sign what they signed before once more: nobody is honest
    any longer.  ``run_id``: another run's, that the chain begins from.
    """
    log = made.transcript
    rows: list[Row] = [(e.kind, dict(e.body), e.sequence) for e in log.entries]
    for entry, (_, body, _) in zip(log.entries, rows, strict=True):
        if entry.has_message:
            body[4] = log.message(entry)
    edit(rows)
    run_id = run_id or log.run_id
    head = genesis(run_id)
    entries: list[wire.Value] = []
    messages: list[wire.Value] = []
    place: dict[int, tuple[int, bytes]] = {}
    for kind, body, old in rows:
        if kind == "signature" and resign:
            sequence, signed = place.get(body[1], (len(entries) - 1, head))
            signature = countersign(made.signer(body[0]), signed)
            body = {0: body[0], 1: sequence, 2: signature}
        if kind == "message":
            body, beside = laid(body)
            messages += beside
        data = wire.encode({0: len(entries), 1: head, 2: kind, 3: body})
        head = wire.digest(f"{SPEC} entry", data)
        place[old] = len(entries), head
        entries.append(data)
    return wire.encode([SPEC, run_id, entries, messages])


def with_file(made: Made, name: str, data: bytes, *, resign: bool) -> dict[str, bytes]:
    """The run with one file replaced and its hash in the artefacts too."""
    files = {**made.files, name: data}

    def edit(rows: list[Row]) -> None:
        for kind, body, _ in rows:
            if kind == "artefacts":
                body[0] = rows_of(files)

    files["transcript.cbor"] = rewritten(made, edit, resign=resign)
    return files
