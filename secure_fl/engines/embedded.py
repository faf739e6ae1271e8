# SPDX-License-Identifier: Apache-2.0
"""All parties on this machine: the default engine, and the simulator.

Every client has its own identity, ledger and keystore, and every message passes through
bytes, signatures and the transcript as it would across machines.  What it proves about
secrecy is nothing (one process holds all), and the report says SIMULATION.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import json
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, final

from .. import __version__
from ..errors import (
    BudgetExceeded,
    EngineError,
    FaultyClient,
    PlanError,
    ProtocolError,
    SecureFLError,
    TooFewClients,
    UsageError,
)
from ..identity import Identity, key_to_text
from ..keystore import DiskKeystore
from ..model import GlobalModel
from ..plan import Plan, endorse, load_plan, verify_endorsement
from ..privacy import Ledger, PrivateUpdate, Unprotected, read_export
from ..randomness import RandomSource, SystemRandom
from ..report import Report, build_report, render_html, render_text
from ..round import Aggregation, OpenedUpdate, Participant, log_form
from ..transcript import Transcript
from .exchange import Dropout, exchange
from .state import Checkpoint, RunState, write_durably

if TYPE_CHECKING:
    from ..training import ClientRound

__all__ = ["Progress", "Run", "Trainer", "require_empty", "run"]

Trainer = Callable[["ClientRound"], PrivateUpdate | Unprotected]
Metrics = dict[str, Any]

AGGREGATOR: Final = "aggregator"
PLAN_FILE: Final = "plan.toml"
TRANSCRIPT_FILE: Final = "transcript.cbor"


@final
@dataclass(frozen=True)
class Progress:
    """Where a run is: for a progress bar."""

    round: int
    rounds: int
    attempt: int
    step: str
    client: str = ""


@final
@dataclass(frozen=True)
class Run:
    """A finished run: the model, the report, and every file an auditor needs.

    Report and files are made when they are first asked for.
    """

    plan: Plan
    model: GlobalModel
    metrics: Metrics
    close: Callable[[], tuple[Report, Mapping[str, bytes]]] = field(repr=False)

    @functools.cached_property
    def _closed(self) -> tuple[Report, Mapping[str, bytes]]:
        return self.close()

    @property
    def report(self) -> Report:
        """The epsilon report; ``report.claims`` is its first table."""
        return self._closed[0]

    @property
    def files(self) -> Mapping[str, bytes]:
        """What :meth:`save` writes: bytes by file name."""
        return self._closed[1]

    def save(self, folder: str | Path) -> Path:
        """Write the run's files into ``folder``, which must be new or empty.

        Raises UsageError where it is not, EngineError where the disk fails.
        """
        out = Path(folder)
        require_empty(out)
        for name, data in self.files.items():
            write_durably(out / name, data)
        return out


def require_empty(out: Path) -> None:
    """Raises UsageError unless ``out`` is a new or empty folder."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder")
    if out.is_dir() and any(out.iterdir()):
        held = "a run" if (out / PLAN_FILE).exists() else "files"
        raise UsageError(
            f"{out} holds {held} already",
            hint="choose a new folder"
            + ("; an unfinished run goes on with --resume" if held == "a run" else ""),
        )


def run(
    plan: str | Path | Plan,
    clients: Mapping[str, Trainer],
    *,
    model: GlobalModel | None = None,
    out: str | Path | None = None,
    home: str | Path | None = None,
    resume: bool = False,
    evaluate: Callable[[GlobalModel], Mapping[str, float]] | None = None,
    baselines: Callable[[], Mapping[str, Any]] | None = None,
    progress: Callable[[Progress], None] | None = None,
    random: RandomSource | None = None,
) -> Run:
    """Run a whole plan with all parties on this machine.

    plan
        a plan or its path; names without keys get throw-away identities
    clients
        one trainer per member: called once per attempt, it returns ``private.update()``
    model
        the start; by default what ``[model]`` of the plan says
    out
        a new folder for the run's files; needed for ``resume``
    home
        where the clients' ledgers live on; by default they are thrown away
    evaluate
        called with each new global model; its figures are stored, not covered by any
        claim
    baselines
        called once after the last round; what it returns is stored beside

    Raises PlanError, UsageError, BudgetExceeded before anything is written;
    TooFewClients where no round could be opened.
    """
    source = plan if isinstance(plan, Plan) else load_plan(plan)
    out_path = Path(out) if out is not None else None
    home_path = Path(home) if home is not None else None
    missing = set(source.names) ^ set(clients)
    if missing:
        raise UsageError(
            f"trainers and members do not match: {', '.join(sorted(missing))}",
            hint="give one trainer for each member of the plan",
        )
    if resume and out_path is None:
        raise UsageError("a run without a folder cannot be resumed")
    source_random = random or SystemRandom()
    with contextlib.ExitStack() as stack:
        if resume:
            assert out_path is not None
            setup = _resume(source, out_path, home_path)
        else:
            if out_path is not None:
                require_empty(out_path)
            setup = _prepare(source, model, out_path, home_path, source_random, stack)
        stack.enter_context(setup.state.locked())
        simulation = _Simulation(
            setup,
            clients,
            evaluate=evaluate,
            progress=progress or (lambda p: None),
            random=source_random,
            stack=stack,
        )
        try:
            if resume:
                simulation.settle()
            else:
                simulation.begin(out_path)
            finished = simulation.rounds(baselines)
        except SecureFLError:
            if simulation.finished_rounds == 0 and not resume:
                simulation.discard(out_path)
            raise
        if out_path is not None:
            for name, data in finished.files.items():
                write_durably(out_path / name, data)
            setup.state.remove()
        return finished


@dataclass(frozen=True)
class _Setup:
    """A completed plan with its identities and the place its state lives."""

    plan: Plan
    identities: Mapping[str, Identity]
    aggregator: Identity
    state: RunState
    checkpoint: Checkpoint


def _start_model(plan: Plan, model: GlobalModel | None) -> GlobalModel:
    if model is not None:
        return model
    if plan.model.kind == "custom":
        if plan.model.start is None:
            raise PlanError(
                "is missing",
                key="model.start",
                hint="name a safetensors file there, or give run(..., model=...)",
            )
        return GlobalModel.load(plan.folder / plan.model.start)
    from ..training import initial_model

    return initial_model(plan)


def _prepare(
    source: Plan,
    model: GlobalModel | None,
    out: Path | None,
    home: Path | None,
    random: RandomSource,
    stack: contextlib.ExitStack,
) -> _Setup:
    start = _start_model(source, model)
    given = source.model.start_sha256
    start_hash = hashlib.sha256(start.to_bytes()).hexdigest()
    if given is not None and given != start_hash:
        raise PlanError("the start is another model", key="model.start_sha256")
    if any(m.key for m in source.parties.members) or source.run_id is not None:
        raise PlanError(
            "a simulation makes its own keys and run id",
            key="parties.members",
            hint="leave `key`, `aggregator` and [run] out of a plan for `run`",
        )
    run_id = random.bytes(16)
    identities = {n: Identity.new(n, random=random) for n in source.names}
    aggregator = Identity.new(AGGREGATOR, random=random)
    plan = source.completed(
        keys={n: key_to_text(i.public_key) for n, i in identities.items()},
        aggregator=key_to_text(aggregator.public_key),
        run_id=run_id,
        start_sha256=start_hash,
    )
    if out is None and home is None:
        state = stack.enter_context(RunState.temporary())
    else:
        state = RunState.at(run_id, home)
    state.create()
    transcript = Transcript(run_id)
    return _Setup(
        plan, identities, aggregator, state, Checkpoint(0, -1, start, transcript, [])
    )


def _resume(source: Plan, out: Path, home: Path | None) -> _Setup:
    if (out / TRANSCRIPT_FILE).exists():
        raise UsageError(
            f"the run in {out} is finished", hint="choose a new folder for another run"
        )
    if not (out / PLAN_FILE).exists():
        raise UsageError(
            f"{out} holds no run to continue", hint="start one without --resume"
        )
    plan = load_plan(out / PLAN_FILE)
    assert plan.run_id is not None
    again = source.completed(
        keys={m.name: m.key or "" for m in plan.parties.members},
        aggregator=plan.parties.aggregator or "",
        run_id=plan.run_id,
        start_sha256=plan.model.start_sha256,
    )
    if again.source != plan.source:
        raise PlanError(
            "is not the plan that this run was started with",
            hint=f"{out / PLAN_FILE} is what all members endorsed",
        )
    state = RunState.at(plan.run_id, home)
    checkpoint = state.load()
    identities = {n: Identity.load(state.keys / f"{n}.pem", name=n) for n in plan.names}
    aggregator = Identity.load(state.keys / "aggregator.key", name=AGGREGATOR)
    return _Setup(plan, identities, aggregator, state, checkpoint)


@final
class _Simulation:
    """The state of one run as it goes through its rounds."""

    def __init__(
        self,
        setup: _Setup,
        trainers: Mapping[str, Trainer],
        *,
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
        self._transcript = setup.checkpoint.transcript
        self._history = setup.checkpoint.history
        self._next = (setup.checkpoint.round_index, setup.checkpoint.attempt + 1)
        self._ledgers: dict[str, Ledger] = {}
        self._participants: dict[str, Participant] = {}
        self._budget: BudgetExceeded | None = None
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

    def begin(self, out: Path | None) -> None:
        """Check budgets, write the first entries, and what a resumed run needs."""
        plan = self._plan
        for ledger in self._ledgers.values():
            ledger.check(
                plan.lineage,
                [plan.release] * plan.rounds.count,
                delta=plan.privacy.delta,
                limit=plan.privacy.epsilon,
            )
        assert plan.run_id is not None
        self._transcript.append(
            "start",
            {
                0: plan.hash,
                1: plan.run_id,
                2: self._aggregator.public_key,
                3: f"secure-fl {__version__}",
                4: 1,
                5: 0 if self._random.secure else 1,
                6: self._model.digest(),
            },
        )
        for name, identity in self._identities.items():
            signature = endorse(plan, identity)
            verify_endorsement(plan, name, signature)
            self._transcript.append("endorsement", {0: name, 1: signature})
        if out is not None:
            for name, identity in self._identities.items():
                identity.save(self._state.keys / f"{name}.pem")
            self._aggregator.save(self._state.keys / "aggregator.key")
            self._save(0, -1)
            write_durably(out / PLAN_FILE, plan.source)
        self._keeps = out is not None

    def discard(self, out: Path | None) -> None:
        """Nothing was opened: leave nothing half-written."""
        if out is not None:
            with contextlib.suppress(OSError):
                (out / PLAN_FILE).unlink(missing_ok=True)
                out.rmdir()
        self._state.remove()

    _keeps = True

    def _save(self, round_index: int, attempt: int) -> None:
        self._state.save(
            Checkpoint(
                round_index, attempt, self._model, self._transcript, self._history
            )
        )

    # -- rounds ------------------------------------------------------------------

    def rounds(self, baselines: Callable[[], Mapping[str, Any]] | None) -> Run:
        plan = self._plan
        begin, attempt = self._next
        for index in range(begin, plan.rounds.count):
            self._one_round(index, attempt)
            attempt = 0
        if not self.finished_rounds:
            raise TooFewClients(
                0, plan.min_clients, hint="no round could be opened; see the log"
            )
        metrics: Metrics = {"history": self._history}
        if self._history:
            metrics["final"] = self._history[-1]
        if baselines is not None:
            metrics["baselines"] = dict(baselines())
        plan = self._plan
        exported = {
            name: self._ledgers[name].export(plan.lineage, identity=identity)
            for name, identity in self._identities.items()
        }
        return Run(plan, self._model, metrics, lambda: self._close(metrics, exported))

    def _one_round(self, index: int, first_attempt: int) -> None:
        excluded: set[str] = set()
        for attempt in range(
            first_attempt, first_attempt + self._plan.rounds.max_attempts
        ):
            if self._keeps:
                self._save(index, attempt)
            opened = self._attempt(index, attempt, excluded)
            if opened is not None:
                self._finish_round(index, attempt, opened)
                if self._keeps:
                    self._save(index + 1, -1)
                # Only now: a crash before would lose the round, not its charge.
                for name, participant in self._participants.items():
                    participant.conclude(opened=name in opened.survivors)
                return
        if self._keeps:
            self._save(index + 1, -1)
        for participant in self._participants.values():
            participant.conclude(opened=False)
        if self._budget is not None:
            raise self._budget

    def _attempt(
        self, index: int, attempt: int, excluded: set[str]
    ) -> OpenedUpdate | None:
        aggregation = Aggregation.for_plan(
            self._plan, round_index=index, attempt=attempt, model=self._model
        )
        dropouts: list[Dropout] = []
        first: dict[str, list[bytes]] = {}
        for name, participant in self._participants.items():
            if name in excluded:
                continue
            try:
                first[name] = participant.open(index, attempt, self._model)
            except UsageError as error:
                dropouts.append(Dropout(name, "keys", error))

        def log(sender: str, receiver: str, message: bytes) -> None:
            form = log_form(message)
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
                self._train(index, attempt, set(first), dropouts)
            self._tell(index, attempt, step)

        try:
            return exchange(
                aggregation,
                self._participants,
                first,
                dropouts=dropouts,
                log=log,
                on_step=on_step,
            )
        except ProtocolError as error:
            self._fail(index, attempt, error, aggregation, dropouts, excluded)
            return None

    def _fail(
        self,
        index: int,
        attempt: int,
        error: ProtocolError,
        aggregation: Aggregation,
        dropouts: list[Dropout],
        excluded: set[str],
    ) -> None:
        culprit = error.client if isinstance(error, FaultyClient) else ""
        if culprit:
            excluded.add(culprit)
        reasons = [str(error)] + [f"{d.client} ({d.step}): {d.error}" for d in dropouts]
        self._transcript.append(
            "failure", {0: index, 1: attempt, 2: "; ".join(reasons)[:1000], 3: culprit}
        )
        for dropout in dropouts:
            if isinstance(dropout.error, BudgetExceeded):
                self._budget = dropout.error
        if aggregation.omission is not None:
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
            except (BudgetExceeded, EngineError) as error:
                # A client that cannot go on is a dropout, as it would be elsewhere.
                dropouts.append(Dropout(name, "training", error))

    def _tell(self, index: int, attempt: int, step: str, client: str = "") -> None:
        self._progress(Progress(index, self._plan.rounds.count, attempt, step, client))

    def _finish_round(self, index: int, attempt: int, opened: OpenedUpdate) -> None:
        before = self._model.digest()
        self._model = self._model.add(opened.total / opened.total_weight)
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
        if self._evaluate is not None:
            figures = {k: float(v) for k, v in self._evaluate(self._model).items()}
            self._history.append({"round": index, **figures})

    # -- the end -----------------------------------------------------------------

    def _close(
        self, metrics: Metrics, exported: Mapping[str, bytes]
    ) -> tuple[Report, Mapping[str, bytes]]:
        """Report, signed list of files, and the last signatures."""
        plan, transcript = self._plan, self._transcript
        exports = {
            name: read_export(
                data, public_key=self._identities[name].public_key, client=name
            )
            for name, data in exported.items()
        }
        report = build_report(plan=plan, transcript=transcript, exports=exports)
        files = {
            PLAN_FILE: plan.source,
            "model.safetensors": self._model.to_bytes(),
            "metrics.json": _json(metrics),
            **{f"ledgers/{name}.cbor": data for name, data in exported.items()},
            "report.json": _json(report),
            "report.html": render_html(report, metrics).encode(),
            "report.txt": render_text(report, metrics).encode(),
        }
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
        files[TRANSCRIPT_FILE] = transcript.to_bytes()
        return Report(report), files


def _now() -> int:
    return int(time.time())


def _json(value: object) -> bytes:
    return (json.dumps(value, indent=2, allow_nan=False) + "\n").encode()
