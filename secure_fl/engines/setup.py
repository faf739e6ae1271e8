# SPDX-License-Identifier: Apache-2.0
"""What a run on this machine starts from: a completed plan, identities, a state."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from ..descent import Descent
from ..errors import PlanError, UsageError
from ..identity import Identity, key_to_text
from ..model import GlobalModel
from ..plan import Plan, load_plan
from ..randomness import RandomSource
from ..transcript import Transcript
from .kept import discard_vectors
from .state import Checkpoint, RunState

__all__ = [
    "AGGREGATOR",
    "AGGREGATOR_FILE",
    "KEYHOLDER",
    "KEYHOLDER_FILE",
    "PLAN_FILE",
    "REPORT_FILE",
    "TRANSCRIPT_FILE",
    "Setup",
    "checked_start",
    "discard",
    "prepare",
    "require_empty",
    "resume",
    "start_model",
]

AGGREGATOR: Final = "aggregator"
AGGREGATOR_FILE: Final = "aggregator.key"
KEYHOLDER: Final = "keyholder"
KEYHOLDER_FILE: Final = "keyholder.key"
PLAN_FILE: Final = "plan.toml"
REPORT_FILE: Final = "report.json"
TRANSCRIPT_FILE: Final = "transcript.cbor"


def require_empty(out: Path) -> None:
    """Raises UsageError unless ``out`` is a new or empty folder."""
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is not a folder", hint="choose a new folder")
    if out.is_dir() and any(out.iterdir()):
        held = "a run" if (out / PLAN_FILE).exists() else "files"
        raise UsageError(
            f"{out} holds {held} already",
            hint="choose a new folder"
            + ("; an unfinished run goes on with --resume" if held == "a run" else ""),
        )


@dataclass(frozen=True)
class Setup:
    """A completed plan with its identities and the place its state lives."""

    plan: Plan
    identities: Mapping[str, Identity]
    aggregator: Identity
    keyholder: Identity | None
    state: RunState
    checkpoint: Checkpoint


def start_model(plan: Plan, model: GlobalModel | None) -> GlobalModel:
    """``model``, or what ``[model]`` of the plan says."""
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


def checked_start(plan: Plan, model: GlobalModel | None) -> tuple[GlobalModel, str]:
    """:func:`start_model`, and the SHA-256 of its file in hexadecimal.

    Raises PlanError where the plan says another.
    """
    start = start_model(plan, model)
    digest = hashlib.sha256(start.to_bytes()).hexdigest()
    if plan.model.start_sha256 not in (None, digest):
        raise PlanError(
            "the start is another model",
            key="model.start_sha256",
            hint="all members start from the file of this hash",
        )
    return start, digest


def prepare(
    source: Plan,
    model: GlobalModel | None,
    out: Path | None,
    home: Path | None,
    random: RandomSource,
    stack: contextlib.ExitStack,
) -> Setup:
    start, start_hash = checked_start(source, model)
    parties = source.parties
    given_keys = [parties.aggregator, parties.keyholder]
    given_keys += [m.key for m in parties.members]
    if any(given_keys) or source.run_id is not None:
        raise PlanError(
            "a simulation makes its own keys and run id",
            key="parties.members",
            hint="leave keys, `aggregator` and [run] out of a plan for `run`",
        )
    if not random.secure and home is not None:
        raise UsageError(
            "a seeded run has no lasting ledger",
            hint="its noise can be made again, so it is charged nowhere: drop the home",
        )
    source = source.with_values(start.size)
    run_id = random.bytes(16)
    identities = {n: Identity.new(n, random=random) for n in source.names}
    aggregator = Identity.new(AGGREGATOR, random=random)
    keyholder = Identity.new(KEYHOLDER, random=random) if source.has_keyholder else None
    plan = source.completed(
        keys={n: key_to_text(i.public_key) for n, i in identities.items()},
        aggregator=key_to_text(aggregator.public_key),
        keyholder=key_to_text(keyholder.public_key) if keyholder else None,
        run_id=run_id,
        start_sha256=start_hash,
    )
    if out is None and home is None:
        state = stack.enter_context(RunState.temporary())
    else:
        state = RunState.at(run_id, home=home, out=out)
    state.create()
    stack.enter_context(state.locked())
    transcript = Transcript(run_id)
    at_rest = Descent(plan).velocity
    checkpoint = Checkpoint(0, -1, start, at_rest, transcript, [])
    return Setup(plan, identities, aggregator, keyholder, state, checkpoint)


def _finished(out: Path) -> UsageError:
    return UsageError(
        f"the run in {out} is finished", hint="choose a new folder for another run"
    )


def resume(
    source: Plan, out: Path, home: Path | None, stack: contextlib.ExitStack
) -> Setup:
    """What the unfinished run in ``out`` goes on from, locked until ``stack`` ends."""
    if (out / TRANSCRIPT_FILE).exists():
        raise _finished(out)
    if not (out / PLAN_FILE).exists():
        raise UsageError(
            f"{out} holds no run to continue", hint="start one without --resume"
        )
    plan = load_plan(out / PLAN_FILE)
    assert plan.run_id is not None
    other = PlanError(
        f"it is not the plan in {out / PLAN_FILE}, which this run was started with",
        hint="all members endorsed that one: compare the two",
    )
    values = plan.model.values
    if source.names != plan.names or source.distributed != plan.distributed:
        raise other
    if source.model.values not in (None, values):
        raise other
    again = source.with_values(values or 0).completed(
        keys={m.name: m.key or "" for m in plan.parties.members},
        aggregator=plan.parties.aggregator or "",
        keyholder=plan.parties.keyholder,
        run_id=plan.run_id,
        start_sha256=plan.model.start_sha256,
    )
    if again.source != plan.source:
        raise other
    state = RunState.at(plan.run_id, home=home, out=out)
    stack.enter_context(state.locked())
    # Under the lock: another process may have gone on, or finished, meanwhile.
    if (out / TRANSCRIPT_FILE).exists():
        raise _finished(out)
    checkpoint = state.load()
    identities = {n: Identity.load(state.keys / f"{n}.pem", name=n) for n in plan.names}
    aggregator = Identity.load(state.keys / AGGREGATOR_FILE, name=AGGREGATOR)
    keyholder = None
    if plan.has_keyholder:
        keyholder = Identity.load(state.keys / KEYHOLDER_FILE, name=KEYHOLDER)
    return Setup(plan, identities, aggregator, keyholder, state, checkpoint)


def discard(setup: Setup, out: Path | None) -> None:
    """Nothing was opened: leave nothing half-written.  Ledgers in a home stay."""
    if out is not None:
        with contextlib.suppress(OSError):
            (out / PLAN_FILE).unlink(missing_ok=True)
            discard_vectors(out)
            out.rmdir()
    setup.state.remove()
