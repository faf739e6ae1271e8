# SPDX-License-Identifier: Apache-2.0
"""The aggregator of one run, round by round, however its members are reached."""

from __future__ import annotations

import hashlib
import json
import logging
import math
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, final

from .. import __version__
from ..descent import Descent
from ..errors import (
    BudgetExceeded,
    EngineError,
    FaultyClient,
    ProtocolError,
    SecureFLError,
    TooFewClients,
)
from ..files import write_durably
from ..identity import Identity
from ..model import GlobalModel
from ..plan import Plan, verify_endorsement
from ..privacy import LedgerExport, read_export
from ..randomness import RandomSource
from ..report import Report, build_report, render_html, render_text, to_json, tool_text
from ..round import Aggregation, OpenedUpdate, log_form
from ..transcript import Entry
from .clients import Clients
from .costs import Costs
from .exchange import Dropout, exchange
from .kept import Files, VectorStore, file_mode
from .result import Metrics, Move, Progress, Run
from .setup import PLAN_FILE, REPORT_FILE, TRANSCRIPT_FILE
from .state import Checkpoint

__all__ = ["Rounds"]

_log = logging.getLogger("secure_fl")


@final
class Rounds:
    """The state of one run as it goes through its rounds."""

    def __init__(
        self,
        plan: Plan,
        aggregator: Identity,
        clients: Clients,
        *,
        checkpoint: Checkpoint,
        save: Callable[[Checkpoint], None],
        out: Path | None,
        simulation: bool,
        ledgers_live_on: bool,
        evaluate: Callable[[GlobalModel], Mapping[str, float]] | None,
        progress: Callable[[Progress], None],
        move: Move | None,
        random: RandomSource,
    ) -> None:
        self._plan = plan
        self._aggregator = aggregator
        self._clients = clients
        self._put_aside = save
        self._out = out
        self._simulation = simulation
        self._ledgers_live_on = ledgers_live_on
        self._evaluate = evaluate
        self._progress = progress
        self._move = move
        self._random = random
        self._model = checkpoint.model
        self._descent = Descent(plan, checkpoint.velocity)
        self._transcript = checkpoint.transcript
        self._opened = self._transcript.of_kind("round")
        self._history = checkpoint.history
        self._next = (checkpoint.round_index, checkpoint.attempt + 1)
        self._budget: BudgetExceeded | None = None
        self._vectors = VectorStore(plan, out)
        self._costs = Costs(resumed=bool(self._transcript.entries))
        self._dropouts: list[Dropout] = []  # of the attempt under way, or the last one
        self._complaints: dict[str, set[str]] = {}
        # A client that provably dealt bad shares is out for the rest of the run.
        self._excluded = {
            entry.text(3)
            for entry in self._transcript.of_kind("failure")
            if entry.text(3)
        }

    @property
    def finished_rounds(self) -> int:
        return len(self._opened)

    # -- begin -------------------------------------------------------------------

    def begin(self) -> None:
        """Write the log's first entries, and what a resumed run needs."""
        self._clients.begin(self._first_entries)
        self._save(0, -1)
        if self._out is not None:
            write_durably(self._out / PLAN_FILE, self._plan.source)

    def _first_entries(self, endorsements: Mapping[str, bytes]) -> Sequence[Entry]:
        plan = self._plan
        for name in plan.names:
            verify_endorsement(plan, name, endorsements[name])
        assert plan.run_id is not None
        self._transcript.append(
            "start",
            {
                0: plan.hash,
                1: plan.run_id,
                2: self._aggregator.public_key,
                3: tool_text(__version__),
                4: int(self._simulation),
                5: 0 if self._random.secure else 1,
                6: self._model.digest(),
                7: int(self._ledgers_live_on),
            },
        )
        for name in plan.names:
            self._transcript.append("endorsement", {0: name, 1: endorsements[name]})
        return self._transcript.entries

    def resume(self) -> None:
        """After a crash: the members learn what was opened and not told."""
        self._clients.resume(self._transcript.entries)

    def _save(self, round_index: int, attempt: int) -> None:
        self._put_aside(
            Checkpoint(
                round_index,
                attempt,
                self._model,
                self._descent.velocity,
                self._transcript,
                self._history,
            )
        )

    # -- rounds ------------------------------------------------------------------

    def run(self, baselines: Callable[[], Mapping[str, Any]] | None) -> Run:
        """All rounds that are left.  Raises TooFewClients where none was opened."""
        plan = self._plan
        if done := self._transcript.of_kind("artefacts"):
            return self._reopened(done[-1])
        begin, attempt = self._next
        if not self.finished_rounds:
            self._vectors.begin(self._model)
        for index in range(begin, plan.rounds.count):
            if self._budget is None:
                self._one_round(index, attempt)
            else:
                self._leave_out(index, self._budget)
            attempt = 0
        if not self.finished_rounds:
            raise TooFewClients(
                0, plan.min_clients, hint="no round could be opened; see the log"
            )
        last = self._opened[-1].integer(0)
        if self._evaluate and (not self._history or self._history[-1]["round"] != last):
            self._score(last)  # a crash came between the round and its score
        metrics: Metrics = {"history": self._history}
        if self._history:
            metrics["final"] = self._history[-1]
        if baselines is not None:
            metrics["baselines"] = _finite(baselines())
        metrics["costs"] = self._costs.rows()
        exported = self._clients.export()
        return Run(plan, self._model, metrics, lambda: self._close(metrics, exported))

    def _one_round(self, index: int, first_attempt: int) -> None:
        for attempt in range(
            first_attempt, first_attempt + self._plan.rounds.max_attempts
        ):
            self._save(index, attempt)
            opened = self._attempt(index, attempt)
            if opened is not None:
                self._budget = None  # whoever's is spent was not needed
                entry = self._finish_round(index, attempt, opened)
                # Before anybody signs: what a member signed, the log must hold.
                self._save(index + 1, -1)
                self._tell(index, attempt, "opened")
                self._countersign(opened.survivors, entry)
                self._save(index + 1, -1)
                # Only now: a crash before would lose the round, not its charge.
                self._clients.conclude(index, opened.survivors)
                # After the round is safe: scoring may take long, or fail.
                self._score(index)
                return
        self._save(index + 1, -1)
        self._clients.conclude(index, ())
        if self._budget is not None and not self.finished_rounds:
            raise self._budget

    def _leave_out(self, index: int, spent: BudgetExceeded) -> None:
        """A round that nobody is asked for: too many members' budgets are spent.

        What was opened before stands, and is worth a model and a report; to try on
        would only charge the others.
        """
        reason = f"not begun: {spent}"
        self._transcript.append("failure", {0: index, 1: 0, 2: reason[:1000], 3: ""})
        self._save(index + 1, -1)

    def _score(self, index: int) -> None:
        """Figures of the new model; a value that is not finite is left out."""
        if self._evaluate is None:
            return
        figures = _finite({k: float(v) for k, v in self._evaluate(self._model).items()})
        self._history.append({**figures, "round": index})
        self._save(index + 1, -1)

    def _attempt(self, index: int, attempt: int) -> OpenedUpdate | None:
        aggregation = Aggregation.for_plan(
            self._plan,
            round_index=index,
            attempt=attempt,
            model=self._model,
            aggregator=self._aggregator,
            random=self._random,
        )
        self._dropouts = []
        first: dict[str, Sequence[bytes]] = {}
        left_out: list[tuple[str, bytes]] = []  # of the transcript
        names = [n for n in self._plan.names if n not in self._excluded]
        self._costs.enter(aggregation.step)
        self._tell(index, attempt, aggregation.step)
        for name, answer in self._clients.open(index, attempt, self._model, names):
            if isinstance(answer, SecureFLError):
                self._dropouts.append(Dropout(name, "keys", answer))
                continue
            first[name] = answer
            for message in answer:
                self._costs.up(message)

        def log(sender: str, receiver: str, message: bytes) -> None:
            form = log_form(message)
            if self._vectors.keeps and form != "whole":
                left_out.append((sender, message))
            if form is not None:
                self._transcript.add_message(
                    index,
                    attempt,
                    sender=sender,
                    receiver=receiver,
                    message=message,
                    withheld=form == "withheld",
                )

        def on_step(step: str) -> None:
            if step == "vectors":
                self._costs.enter("training")
                self._train(index, attempt, set(first))
            self._costs.enter(step)
            self._tell(index, attempt, step)

        try:
            opened = exchange(
                aggregation,
                self._costs.metered(self._clients.tell),
                first,
                dropouts=self._dropouts,
                log=log,
                on_step=on_step,
            )
        except ProtocolError as error:
            self._fail(index, attempt, error, aggregation)
            return None
        finally:
            self._costs.leave()
            self._heed()
        self._vectors.opened(aggregation, left_out)
        return opened

    def _heed(self) -> None:
        """Leave out a dealer whom more members accuse than may collude.

        One of them is honest then, and its box was bad.  Fewer accusers prove nothing:
        they may be framing the dealer, and have left the attempt themselves.  A
        resumed run counts anew.
        """
        for dropout in self._dropouts:
            error = dropout.error
            if dropout.client not in self._plan.names:
                continue  # a key holder: what it says of a key counts in a Refusal
            if isinstance(error, FaultyClient) and error.client != dropout.client:
                accusers = self._complaints.setdefault(error.client, set())
                accusers.add(dropout.client)
                if len(accusers) > self._plan.parties.max_colluding:
                    self._excluded.add(error.client)

    def _fail(
        self,
        index: int,
        attempt: int,
        error: ProtocolError,
        aggregation: Aggregation,
    ) -> None:
        # Only opening a sum raises it here: shares that their dealer committed to, or
        # a key that the key holder says it was sent.
        culprit = error.client if isinstance(error, FaultyClient) else ""
        if culprit:
            self._excluded.add(culprit)
        reasons = [str(error), *map(_public_reason, self._dropouts)]
        self._transcript.append(
            "failure", {0: index, 1: attempt, 2: "; ".join(reasons)[:1000], 3: culprit}
        )
        left = set(self._plan.names) - self._excluded
        for dropout in self._dropouts:
            if isinstance(dropout.error, BudgetExceeded):
                left.discard(dropout.client)
                # Else one alone could end a run by saying so.
                if len(left) < self._plan.needed:
                    self._budget = dropout.error
        self._tell(index, attempt, "failed")
        if aggregation.omission:
            self._clients.release(aggregation.omission)

    def _train(self, index: int, attempt: int, present: set[str]) -> None:
        gone = {d.client for d in self._dropouts}
        names = [n for n in self._plan.names if n in present - gone]
        for name, error in self._clients.train(
            index,
            attempt,
            self._model,
            names,
            begins=lambda name: self._tell(index, attempt, "training", name),
        ):
            self._dropouts.append(Dropout(name, "training", error))
            _log.warning("%s dropped out of round %d: %s", name, index, error)

    def _tell(self, index: int, attempt: int, step: str, client: str = "") -> None:
        last = self._opened[-1].rows(3) if self._opened else ()
        self._progress(
            Progress(
                index,
                self._plan.rounds.count,
                attempt,
                step,
                client,
                opened=self.finished_rounds,
                inside=tuple(map(str, last)),
                left={d.client: f"{d.step}: {d.error}" for d in self._dropouts},
            )
        )

    def _finish_round(self, index: int, attempt: int, opened: OpenedUpdate) -> Entry:
        before = self._model.digest()
        moved = self._descent.move(
            self._model,
            opened.words,
            round_index=index,
            survivors=opened.survivors,
        )
        self._model = moved if self._move is None else self._move(index, moved)
        entry = self._transcript.append(
            "round",
            {
                0: index,
                1: attempt,
                2: opened.session.ctx,
                3: list(opened.survivors),
                4: opened.total_weight,
                5: opened.words_hash,
                6: opened.clipped,
                7: before,
                8: self._model.digest(),
            },
        )
        self._transcript.sign(self._aggregator)
        self._opened.append(entry)
        return entry

    def _countersign(self, names: Collection[str], entry: Entry) -> None:
        """Ask ``names`` to sign ``entry``; the log shows who did.

        Who is away now signs a later entry, and this one with it.
        """
        signatures = self._clients.countersign(names, self._transcript.entries, entry)
        for name in self._plan.names:
            if name in signatures:
                self._transcript.add_signature(name, entry, signatures[name])

    # -- the end -----------------------------------------------------------------

    def _close(
        self, metrics: Metrics, exported: Mapping[str, bytes]
    ) -> tuple[Report, Files]:
        """Report, signed list of files, and the last signatures."""
        plan, transcript = self._plan, self._transcript
        exports = {
            m.name: read_export(
                exported[m.name], public_key=m.public_key, client=m.name
            )
            for m in plan.roster.members
        }
        self._check_memory(exports)
        report = build_report(
            plan=plan, transcript=transcript, exports=exports, size=self._model.size
        )
        held = {
            **self._vectors.held(),
            PLAN_FILE: plan.source,
            "model.safetensors": self._model.to_bytes(),
            "metrics.json": to_json(metrics),
            **{f"ledgers/{name}.cbor": data for name, data in exported.items()},
            REPORT_FILE: to_json(report),
            "report.html": render_html(report, metrics).encode(),
            "report.txt": render_text(report, metrics).encode(),
        }
        files = Files(held, self._vectors.on_disk(transcript.of_kind("round")))
        rows: list[Any] = [
            [name, hashlib.sha256(files[name]).digest()] for name in sorted(files)
        ]
        if self._out is not None:
            for name, data in held.items():
                write_durably(self._out / name, data, mode=file_mode(name))
        transcript.append("artefacts", {0: rows})
        transcript.sign(self._aggregator)
        self._save(plan.rounds.count, -1)  # before anybody signs it
        held[TRANSCRIPT_FILE] = self._sign_off()
        return Report(report), files

    def _check_memory(self, exports: Mapping[str, LedgerExport]) -> None:
        """Raises EngineError where a ledger has lost an update that a sum holds.

        No report is written then: it would say too small an epsilon.
        """
        known = {
            name: {ctx for release in export.releases() for ctx in release.contexts}
            for name, export in exports.items()
        }
        for entry in self._opened:
            for name in map(str, entry.rows(3)):
                if entry.bytes_(2) not in known[name]:
                    raise EngineError(
                        f"the ledger of {name} does not hold its update of round "
                        f"{entry.integer(0)}, which was opened",
                        hint="its home was put back from an older copy: no epsilon is "
                        "known for it, and no report of this run can be made",
                    )

    def _reopened(self, artefacts: Entry) -> Run:
        """A run of which all is written but the last signatures."""
        out = self._out
        assert out is not None

        def close() -> tuple[Report, Files]:
            held = {str(name): (out / str(name)).read_bytes() for name in names}
            held[TRANSCRIPT_FILE] = self._sign_off()
            return Report(json.loads(held[REPORT_FILE])), Files(held, {})

        names = [row[0] for row in artefacts.rows(0) if isinstance(row, list)]
        metrics = json.loads((out / "metrics.json").read_bytes())
        return Run(self._plan, self._model, metrics, close)

    def _sign_off(self) -> bytes:
        """The signed transcript: whoever was in a sum signs all of it, at the end."""
        transcript = self._transcript
        artefacts = transcript.of_kind("artefacts")[-1]
        survived = {n for e in transcript.of_kind("round") for n in e.rows(3)}
        signed = {
            e.text(0)
            for e in transcript.of_kind("signature")
            if e.integer(1) == artefacts.sequence
        }
        left = [n for n in self._plan.names if n in survived - signed]
        self._countersign(left, artefacts)
        self._save(self._plan.rounds.count, -1)
        now = {e.text(0) for e in transcript.entries[artefacts.sequence + 1 :]}
        if missing := [n for n in left if n not in now]:
            raise EngineError(
                f"the run is complete, but not signed by {', '.join(missing)}",
                hint="start the run again once they are back: it goes on from here",
            )
        data = transcript.to_bytes()
        if self._out is not None:
            write_durably(self._out / TRANSCRIPT_FILE, data)
        return data


def _public_reason(dropout: Dropout) -> str:
    """For the log that everyone reads: a trainer's own words stay with its client."""
    known = isinstance(dropout.error, ProtocolError | BudgetExceeded)
    why = str(dropout.error) if known else type(dropout.error).__name__
    return f"{dropout.client} ({dropout.step}): {why}"


def _finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Plain floats, nested as they were; what JSON cannot say is left out."""
    out: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            out[str(name)] = _finite(value)
        elif math.isfinite(float(value)):
            out[str(name)] = float(value)
    return out
