# SPDX-License-Identifier: Apache-2.0
"""All parties on this machine: the default engine, and the simulator.

Every client has its own identity, ledger and keystore, and every message passes through
bytes, signatures and the transcript as it would across machines.  What it proves about
secrecy is nothing (one process holds all), and the report says SIMULATION.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..ckks import require_backend
from ..errors import UsageError
from ..model import GlobalModel
from ..plan import Plan, load_plan
from ..randomness import RandomSource, SystemRandom
from ..report import require_pages
from .local import LocalClients, Trainer
from .result import Progress, Run
from .rounds import Rounds
from .setup import AGGREGATOR_FILE, discard, prepare, require_empty
from .setup import resume as resume_setup

__all__ = ["run"]


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
    require_pages()  # before anything is charged: the report is drawn last
    if source.protection.kind == "ckks":
        require_backend()
    missing = set(source.names) ^ set(clients)
    if missing:
        raise UsageError(
            f"trainers and members do not match: {', '.join(sorted(missing))}",
            hint="give one trainer for each member of the plan",
        )
    if resume and out_path is None:
        raise UsageError(
            "a run without a folder cannot be resumed", hint="give its folder: out=..."
        )
    source_random = random or SystemRandom()
    with contextlib.ExitStack() as stack:
        if resume:
            assert out_path is not None
            setup = resume_setup(source, out_path, home_path, stack)
        else:
            if out_path is not None:
                require_empty(out_path)
            setup = prepare(source, model, out_path, home_path, source_random, stack)
        try:
            if setup.plan.distributed:  # told before anything is charged
                setup.plan.grid.check_source(source_random)
            state = setup.state
            rounds = Rounds(
                setup.plan,
                setup.aggregator,
                LocalClients(setup, clients, random=source_random, stack=stack),
                checkpoint=setup.checkpoint,
                save=state.save if out_path is not None else lambda checkpoint: None,
                out=out_path,
                simulation=True,
                ledgers_live_on=state.ledgers_live_on,
                evaluate=evaluate,
                progress=progress or (lambda p: None),
                move=None,
                random=source_random,
            )
            if resume:
                rounds.resume()
            else:
                if out_path is not None:
                    for name, identity in setup.identities.items():
                        identity.save(state.keys / f"{name}.pem")
                    setup.aggregator.save(state.keys / AGGREGATOR_FILE)
                rounds.begin()
            finished = rounds.run(baselines)
        except Exception:
            if not resume and not setup.checkpoint.transcript.of_kind("round"):
                discard(setup, out_path)
            raise
        if out_path is not None:
            finished.close()
        setup.state.remove()
        return finished
