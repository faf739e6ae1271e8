# SPDX-License-Identifier: Apache-2.0
"""All parties of one run, round by round."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import math
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, final

from .. import __version__
from ..descent import Descent
from ..errors import (
    BudgetExceeded,
    EngineError,
    FaultyClient,
    ProtocolError,
    TooFewClients,
    UsageError,
)
from ..files import write_durably
from ..identity import Identity
from ..keystore import DiskKeystore
from ..model import GlobalModel
from ..plan import endorse, verify_endorsement
from ..privacy import Ledger, PrivateUpdate, Unprotected, read_export
from ..randomness import RandomSource
from ..report import Report, build_report, render_html, render_text, to_json, tool_text
from ..round import KEY_HOLDER, Aggregation, OpenedUpdate, Participant, log_form
from .costs import Costs, Metered
from .exchange import Dropout, Link, exchange
from .kept import Files, VectorStore
from .keyholder import KeyHolderProcess
from .result import Metrics, Progress, Run
from .setup import KEYHOLDER_FILE, PLAN_FILE, TRANSCRIPT_FILE, Setup
from .state import Checkpoint

if TYPE_CHECKING:
    from ..training import ClientRound

__all__ = ["Simulation", "Trainer"]

_log = logging.getLogger("secure_fl")

Trainer = Callable[["ClientRound"], PrivateUpdate | Unprotected]


@final
class Simulation:
    """The state of one run as it goes through its rounds."""

    def __init__(
        self,
        setup: Setup,
        trainers: Mapping[str, Trainer],
        *,
        out: Path | None,
        evaluate: Callable[[GlobalModel], Mapping[str, float]] | None,
        progress: Callable[[Progress], None],
        random: RandomSource,
        stack: contextlib.ExitStack,
    ) -> None:
        self._plan = setup.plan
        self._identities = setup.identities
        self._aggregator = setup.aggregator
        self._state = setup.state
        self._trainers = trainers
        self._evaluate = evaluate
        self._progress = progress
        self._random = random
        self._model = setup.checkpoint.model
        self._descent = Descent(self._plan, setup.checkpoint.velocity)
        self._transcript = setup.checkpoint.transcript
        self._history = setup.checkpoint.history
        self._next = (setup.checkpoint.round_index, setup.checkpoint.attempt + 1)
        self._ledgers: dict[str, Ledger] = {}
        self._participants: dict[str, Participant] = {}
        self._budget: BudgetExceeded | None = None
        self._out = out  # without a folder there is nothing to go on in
        self._vectors = VectorStore(setup.plan, out)
        self._costs = Costs(resumed=bool(self._transcript.entries))
        self._complaints: dict[str, set[str]] = {}
        # A client that provably dealt bad shares is out for the rest of the run.
        self._excluded = {
            entry.text(3)
            for entry in self._transcript.of_kind("failure")
            if entry.text(3)
        }
        self._links: dict[str, Link] = {}
        if setup.keyholder is not None:
            self._links[KEY_HOLDER] = _start_keyholder(setup, setup.keyholder, stack)
        for name, identity in setup.identities.items():
            home = setup.state.client_home(name)
            ledger = Ledger(home / "ledger.sqlite", client=name)
            stack.callback(ledger.close)
            keystore = DiskKeystore(
                home / "keystore.sqlite",
                key_path=home / "keystore.key",
                random=random,
            )
            stack.callback(keystore.close)
            self._ledgers[name] = ledger
            self._participants[name] = Participant(
                self._plan,
                identity,
                ledger=ledger,
                keystore=keystore,
                random=random,
                now=_now,
                log_head=self._transcript.head,
            )
        self._links.update(self._participants)
        self._links = {n: Metered(x, self._costs) for n, x in self._links.items()}

    def settle(self) -> None:
        """After a crash: the ledgers learn of opened sums that they had not noted."""
        for entry in self._transcript.of_kind("round"):
            for name in entry.rows(3):
                assert isinstance(name, str)
                self._ledgers[name].opened(
                    self._plan.lineage, ctx=entry.bytes_(2), now=_now()
                )

    @property
    def finished_rounds(self) -> int:
        return len(self._transcript.of_kind("round"))

    # -- begin -------------------------------------------------------------------

    def begin(self) -> None:
        """Check budgets, write the first entries, and what a resumed run needs."""
        plan = self._plan
        for ledger in self._ledgers.values():
            ledger.check(
                plan.lineage,
                [plan.release] * plan.rounds.count,
                delta=plan.privacy.delta,
                limit=plan.privacy.epsilon,
                view=plan.view,
            )
        assert plan.run_id is not None
        self._transcript.append(
            "start",
            {
                0: plan.hash,
                1: plan.run_id,
                2: self._aggregator.public_key,
                3: tool_text(__version__),
                4: 1,
                5: 0 if self._random.secure else 1,
                6: self._model.digest(),
                7: 1 if self._state.ledgers_live_on else 0,
            },
        )
        for name, identity in self._identities.items():
            signature = endorse(plan, identity)
            verify_endorsement(plan, name, signature)
            self._transcript.append("endorsement", {0: name, 1: signature})
        if self._out is not None:
            for name, identity in self._identities.items():
                identity.save(self._state.keys / f"{name}.pem")
            self._aggregator.save(self._state.keys / "aggregator.key")
            self._save(0, -1)
            write_durably(self._out / PLAN_FILE, plan.source)

    def _save(self, round_index: int, attempt: int) -> None:
        if self._out is not None:
            self._state.save(
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

    def rounds(self, baselines: Callable[[], Mapping[str, Any]] | None) -> Run:
        plan = self._plan
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
        last = self._transcript.of_kind("round")[-1].integer(0)
        if self._evaluate and (not self._history or self._history[-1]["round"] != last):
            self._score(last)  # a crash came between the round and its score
        metrics: Metrics = {"history": self._history}
        if self._history:
            metrics["final"] = self._history[-1]
        if baselines is not None:
            metrics["baselines"] = _finite(baselines())
        metrics["costs"] = self._costs.rows()
        exported = {
            name: self._ledgers[name].export(plan.lineage, identity=identity)
            for name, identity in self._identities.items()
        }
        return Run(plan, self._model, metrics, lambda: self._close(metrics, exported))

    def _one_round(self, index: int, first_attempt: int) -> None:
        for attempt in range(
            first_attempt, first_attempt + self._plan.rounds.max_attempts
        ):
            self._save(index, attempt)
            opened = self._attempt(index, attempt)
            if opened is not None:
                self._budget = None  # whoever's is spent was not needed
                self._finish_round(index, attempt, opened)
                self._save(index + 1, -1)
                # Only now: a crash before would lose the round, not its charge.
                for name, participant in self._participants.items():
                    participant.conclude(opened=name in opened.survivors)
                # After the round is safe: scoring may take long, or fail.
                self._score(index)
                return
        self._save(index + 1, -1)
        for participant in self._participants.values():
            participant.conclude(opened=False)
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
        dropouts: list[Dropout] = []
        first: dict[str, list[bytes]] = {}
        left_out: list[tuple[str, bytes]] = []  # of the transcript
        self._costs.enter(aggregation.step)
        for name, participant in self._participants.items():
            if name in self._excluded:
                continue
            try:
                first[name] = participant.open(index, attempt, self._model)
            except UsageError as error:
                dropouts.append(Dropout(name, "keys", error))
                continue
            for message in first[name]:
                self._costs.up(message)

        def log(sender: str, receiver: str, message: bytes) -> None:
            form = log_form(message)
            if self._vectors.keeps and (form is None or form[1]):
                left_out.append((sender, message))
            if form is not None:
                self._transcript.append(
                    "message",
                    {
                        0: index,
                        1: attempt,
                        2: sender,
                        3: receiver,
                        4: form[0],
                        5: form[1],
                    },
                )

        def on_step(step: str) -> None:
            if step == "vectors":
                self._costs.enter("training")
                self._train(index, attempt, set(first), dropouts)
            self._costs.enter(step)
            self._tell(index, attempt, step)

        try:
            opened = exchange(
                aggregation,
                self._links,
                first,
                dropouts=dropouts,
                log=log,
                on_step=on_step,
            )
        except ProtocolError as error:
            self._fail(index, attempt, error, aggregation, dropouts)
            return None
        finally:
            self._costs.leave()
            self._heed(dropouts)
        self._vectors.opened(aggregation, left_out)
        return opened

    def _heed(self, dropouts: list[Dropout]) -> None:
        """Leave out a dealer whom more members accuse than may collude.

        One of them is honest then, and its box was bad.  Fewer accusers prove nothing:
        they may be framing the dealer, and have left the attempt themselves.  A
        resumed run counts anew.
        """
        for dropout in dropouts:
            error = dropout.error
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
        dropouts: list[Dropout],
    ) -> None:
        # Only opening a sum raises it here: shares that their dealer committed to, or
        # a key that the key holder says it was sent.
        culprit = error.client if isinstance(error, FaultyClient) else ""
        if culprit:
            self._excluded.add(culprit)
        reasons = [str(error), *map(_public_reason, dropouts)]
        self._transcript.append(
            "failure", {0: index, 1: attempt, 2: "; ".join(reasons)[:1000], 3: culprit}
        )
        for dropout in dropouts:
            if isinstance(dropout.error, BudgetExceeded):
                self._budget = dropout.error
        if aggregation.omission:
            for participant in self._participants.values():
                with contextlib.suppress(ProtocolError, UsageError):
                    participant.release(*aggregation.omission)

    def _train(
        self, index: int, attempt: int, present: set[str], dropouts: list[Dropout]
    ) -> None:
        from ..training import ClientRound

        for name, participant in self._participants.items():
            if name not in present or not participant.needs_update:
                continue
            if any(d.client == name for d in dropouts):
                continue
            self._tell(index, attempt, "training", name)
            try:
                update = self._trainers[name](
                    ClientRound(
                        client=name,
                        round=index,
                        plan=self._plan,
                        model=self._model,
                        reserve=participant.reserve,
                        random=self._random,
                    )
                )
                participant.offer(update)
            except (BudgetExceeded, EngineError, ProtocolError) as error:
                # A client that cannot go on is a dropout, as it would be elsewhere.
                # A trainer is no party of the protocol: it blames nobody.
                if isinstance(error, ProtocolError):
                    error = EngineError(f"the trainer failed: {error}")
                dropouts.append(Dropout(name, "training", error))
                _log.warning("%s dropped out of round %d: %s", name, index, error)
            except Exception as error:  # a mistake in its code, and no dropout
                error.add_note(f"in the trainer of {name}, round {index}")
                raise

    def _tell(self, index: int, attempt: int, step: str, client: str = "") -> None:
        self._progress(Progress(index, self._plan.rounds.count, attempt, step, client))

    def _finish_round(self, index: int, attempt: int, opened: OpenedUpdate) -> None:
        before = self._model.digest()
        self._model = self._descent.move(
            self._model,
            opened.words,
            round_index=index,
            survivors=opened.survivors,
        )
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
        signed = list(self._transcript.entries)
        for name in opened.survivors:
            signature = self._participants[name].countersign(signed, entry)
            self._transcript.add_signature(name, entry, signature)

    # -- the end -----------------------------------------------------------------

    def _close(
        self, metrics: Metrics, exported: Mapping[str, bytes]
    ) -> tuple[Report, Files]:
        """Report, signed list of files, and the last signatures."""
        plan, transcript = self._plan, self._transcript
        exports = {
            name: read_export(
                data, public_key=self._identities[name].public_key, client=name
            )
            for name, data in exported.items()
        }
        report = build_report(
            plan=plan, transcript=transcript, exports=exports, size=self._model.size
        )
        held = {
            **self._vectors.held(),
            PLAN_FILE: plan.source,
            "model.safetensors": self._model.to_bytes(),
            "metrics.json": to_json(metrics),
            **{f"ledgers/{name}.cbor": data for name, data in exported.items()},
            "report.json": to_json(report),
            "report.html": render_html(report, metrics).encode(),
            "report.txt": render_text(report, metrics).encode(),
        }
        files = Files(held, self._vectors.on_disk(transcript.of_kind("round")))
        rows: list[Any] = [
            [name, hashlib.sha256(files[name]).digest()] for name in sorted(files)
        ]
        artefacts = transcript.append("artefacts", {0: rows})
        transcript.sign(self._aggregator)
        entries = list(transcript.entries)
        last = transcript.of_kind("round")[-1]
        for name in last.rows(3):
            assert isinstance(name, str)
            signature = self._participants[name].countersign(entries, artefacts)
            transcript.add_signature(name, artefacts, signature)
        held[TRANSCRIPT_FILE] = transcript.to_bytes()
        return Report(report), files


def _start_keyholder(
    setup: Setup, identity: Identity, stack: contextlib.ExitStack
) -> KeyHolderProcess:
    """A process of its own, which is handed nothing but plan and key."""
    state = setup.state
    key, plan = state.keys / KEYHOLDER_FILE, state.folder / PLAN_FILE
    if not key.exists():
        identity.save(key)
    write_durably(plan, setup.plan.source)
    process = KeyHolderProcess(plan=plan, key=key, home=state.keyholder_home)
    stack.callback(process.close)
    return process


def _public_reason(dropout: Dropout) -> str:
    """For the log that everyone reads: a trainer's own words stay with its client."""
    known = isinstance(dropout.error, ProtocolError | BudgetExceeded)
    why = str(dropout.error) if known else type(dropout.error).__name__
    return f"{dropout.client} ({dropout.step}): {why}"


def _now() -> int:
    return int(time.time())


def _finite(figures: Mapping[str, Any]) -> dict[str, Any]:
    """Plain floats, nested as they were; what JSON cannot say is left out."""
    out: dict[str, Any] = {}
    for name, value in figures.items():
        if isinstance(value, Mapping):
            out[str(name)] = _finite(value)
        elif math.isfinite(float(value)):
            out[str(name)] = float(value)
    return out
