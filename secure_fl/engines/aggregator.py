# SPDX-License-Identifier: Apache-2.0
"""The aggregator of a run across machines: what any network's adapter calls.

It holds no member's secret.  What it needs to go on after a crash lies in its state
folder; a call for the same run goes on where the last one ended.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ..ckks import require_backend
from ..descent import Descent
from ..errors import PlanError, UsageError
from ..identity import Identity
from ..model import GlobalModel
from ..plan import Plan
from ..randomness import RandomSource, SystemRandom
from ..report import require_pages
from ..transcript import Transcript
from .clients import Carrier
from .remote import RemoteClients
from .result import Move, Progress, Run
from .rounds import Rounds
from .setup import PLAN_FILE, TRANSCRIPT_FILE, checked_start, require_empty
from .state import Checkpoint, RunState
from .status import Status

__all__ = ["aggregate"]


def aggregate(
    plan: Plan,
    identity: Identity,
    carrier: Carrier,
    *,
    out: Path,
    state: Path,
    model: GlobalModel | None = None,
    evaluate: Callable[[GlobalModel], Mapping[str, float]] | None = None,
    progress: Callable[[Progress], None] | None = None,
    move: Move | None = None,
    patience: float = 3600.0,
    random: RandomSource | None = None,
) -> Run:
    """Run a completed plan over ``carrier``, and write its files into ``out``.

    identity
        of the aggregator that the plan names
    out
        a new folder, or that of this very run where it was cut off: it then goes on
    state
        what a cut-off run goes on from, and what `secure-fl watch` shows; a folder of
        the aggregator's alone
    model
        the start; by default what ``[model]`` of the plan says
    move
        makes the new global model of a round; by default the plan's own step
    patience
        seconds for one exchange with all members, training included

    Raises PlanError and UsageError before anybody is asked; TooFewClients where no
    round could be opened, EngineError where a member is missing: then call it again.
    """
    require_pages()  # before anything is charged: the report is drawn last
    _check(plan, identity, move)
    assert plan.run_id is not None
    if (out / TRANSCRIPT_FILE).exists():
        raise UsageError(
            f"the run in {out} is finished", hint="a new run needs a new plan"
        )
    folder = state / "runs" / plan.run_id.hex()
    if folder.resolve().is_relative_to(out.resolve()):
        raise UsageError(
            f"the aggregator's state would lie in {out}",
            hint="choose a state folder outside of the run's",
        )
    run_state = RunState(folder, folder / "clients", folder / "keys")
    begun = run_state.begun
    if not begun:
        require_empty(out)
    elif not (out / PLAN_FILE).exists():
        raise UsageError(
            f"this run was begun, and not in {out}", hint="give the folder it began in"
        )
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    source = random or SystemRandom()
    with run_state.locked(), Status(plan, state) as status:

        def show(p: Progress) -> None:
            status.show(p)
            if progress is not None:
                progress(p)

        clients = RemoteClients(
            plan, identity, carrier, patience=patience, status=status, random=source
        )
        rounds = Rounds(
            plan,
            identity,
            clients,
            checkpoint=run_state.load() if begun else _start(plan, model),
            save=run_state.save,
            out=out,
            simulation=False,
            ledgers_live_on=True,
            evaluate=evaluate,
            progress=show,
            move=move,
            random=source,
        )
        if begun:
            rounds.resume()
        else:
            rounds.begin()
        finished = rounds.run(None)
        finished.close()
        run_state.remove()
    return finished


def _check(plan: Plan, identity: Identity, move: Move | None) -> None:
    if not plan.complete:
        raise PlanError(
            "the plan is not complete: it lacks keys or its run id",
            hint="`secure-fl plan complete` fills them in",
        )
    if plan.aggregator_key != identity.public_key:
        raise UsageError(
            "the plan names another aggregator than this key's",
            hint="compare `secure-fl keys show` with parties.aggregator",
        )
    if plan.protection.kind == "plain":
        raise PlanError(
            "shows the aggregator every update: it is for simulations",
            key="protection.kind",
            hint='choose "masking" or "ckks"',
        )
    if plan.protection.kind == "ckks":
        require_backend()
    if move is not None and plan.distributed:
        raise PlanError(
            "has steps of its own, which the report describes",
            key="privacy.mode",
            hint="wrap FedAvg, which adds nothing to them",
        )
    if move is not None and plan.protection.keep_vectors:
        raise PlanError(
            "lets an auditor follow the model, which FedAvg moves only",
            key="protection.keep_vectors",
            hint="wrap FedAvg, or leave it out",
        )


def _start(plan: Plan, model: GlobalModel | None) -> Checkpoint:
    start, _ = checked_start(plan, model)
    assert plan.run_id is not None
    plan.with_values(start.size)
    return Checkpoint(0, -1, start, Descent(plan).velocity, Transcript(plan.run_id), [])
