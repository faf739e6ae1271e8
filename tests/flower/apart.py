# SPDX-License-Identifier: Apache-2.0
"""A consortium on disk whose members wait where a test says, for any number of plans.

Members run ``watched/``; see there what is held, and where.  A key holder runs the app
that comes with the package.  What a run left is checked against the members' own
ledgers.
"""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

import secure_fl as sfl
from secure_fl.descent import Descent
from secure_fl.engines.home import MemberHome
from secure_fl.engines.setup import AGGREGATOR_FILE, PLAN_FILE, TRANSCRIPT_FILE
from secure_fl.engines.status import RunStatus, latest
from secure_fl.identity import Identity, key_to_text
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.privacy.book import Release
from secure_fl.randomness import SystemRandom
from secure_fl.transcript import Entry, Transcript

from .watched.watched import VALUES, units

__all__ = ["APP", "HOLDER", "HOLDERS_APP", "OWN_APP", "Agreed", "Consortium"]

APP: Final = Path(__file__).parent / "watched"
OWN_APP: Final = "watched:client"
"""What ``secure-fl node --app`` is given, with ``APP`` in its PYTHONPATH."""

HOLDER: Final = "keyholder"
"""The key holder's folder, and its node."""
HOLDERS_APP: Final = "secure_fl.engines.flower.app:client_app"

_PROTECTIONS: Final = {
    "masking": 'kind = "masking"',
    "one-time": 'kind = "ckks"\nkeys = "one-time"',
    "keyholder": 'kind = "ckks"\nkeys = "keyholder"',
}
_MODES: Final = {
    "local": "noise_multiplier = 4.0\nlocal_steps = 2",
    "distributed": "local_steps = 1",
}
_COLLUDING: Final = {"local": 0, "distributed": 1}
_STEP: Final = f"""\
values = {VALUES}

[training]
way = "opacus"
learning_rate = 1.0
"""
_START: Final = "start.safetensors"
_SECOND: Final = Path(__file__).parents[2] / "protocols" / "report" / "verify.py"
_RANDOM: Final = SystemRandom()


def _draft(
    name: str,
    names: Sequence[str],
    rounds: int,
    attempts: int,
    *,
    protection: str,
    mode: str,
    early: bool,
) -> str:
    members = "".join(f'  {{ name = "{n}", records = 40 }},\n' for n in names)
    return f"""\
schema = "secure-fl/plan/1"
name = "{name}"

[parties]
members = [
{members}]
max_colluding = {_COLLUDING[mode]}
threshold = 3
min_clients = 3

[rounds]
count = {rounds}
spare = 8
max_attempts = {attempts}
train_early = {str(early).lower()}

[privacy]
mode = "{mode}"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = 50.0
delta = 1e-5
clip_norm = 1.0
sampling_rate = 0.5
{_MODES[mode]}

[protection]
{_PROTECTIONS[protection]}

[model]
kind = "custom"
start = "{_START}"
{_STEP if mode == "distributed" else ""}"""


@dataclass(frozen=True)
class Agreed:
    """A plan that is complete, and the folders of its one run."""

    plan: Plan
    aggregator: Path
    out: Path

    @property
    def config(self) -> dict[str, str | int | float]:
        return {"secure-fl-home": str(self.aggregator), "secure-fl-out": str(self.out)}

    @property
    def status(self) -> RunStatus | None:
        """Where its aggregator last was."""
        found = latest(self.aggregator)
        return None if found is None else found[0]

    @property
    def opened(self) -> list[Entry]:
        """What the log says of each sum that was opened."""
        log = Transcript.from_bytes((self.out / TRANSCRIPT_FILE).read_bytes())
        return log.of_kind("round")

    @property
    def survivors(self) -> dict[int, list[str]]:
        """Whose updates are in the sum of each round that was opened."""
        return {e.integer(0): [str(n) for n in e.rows(3)] for e in self.opened}


class Consortium:
    """Keys and homes below ``folder``; ``plan`` makes one and has all join it."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        self.folder, self.names = folder, tuple(names)
        self.keys = folder / "keys"
        self.keys.mkdir(parents=True, mode=0o700)
        self._identities = {
            name: Identity.new(name, random=_RANDOM)
            for name in (*names, "aggregator", HOLDER)
        }
        for name, identity in self._identities.items():
            identity.save(self.keys / f"{name}.pem")
        for name in (*names, HOLDER):
            self.home(name).mkdir(parents=True, mode=0o700)
            self.watch(name).mkdir(parents=True)

    def home(self, name: str) -> Path:
        return self.folder / "homes" / name

    def watch(self, name: str) -> Path:
        return self.folder / "watch" / name

    def node_config(self, name: str) -> Mapping[str, str]:
        return {
            "secure-fl-home": str(self.home(name)),
            "watch": str(self.watch(name)),
        }

    # -- plans -------------------------------------------------------------------------

    def plan(
        self,
        name: str,
        *,
        rounds: int = 2,
        attempts: int = 4,
        names: Sequence[str] | None = None,
        joined: Collection[str] | None = None,
        protection: str = "masking",
        mode: str = "local",
        early: bool = False,
        values: int = VALUES,
    ) -> Agreed:
        """A plan among ``names`` (all), joined by ``joined`` (all of them).

        A key holder, where ``protection`` needs one, has joined it, too.
        """
        names = self.names if names is None else tuple(names)
        start = GlobalModel({"head": np.zeros(values, np.float32)}).to_bytes()
        text = _draft(
            name, names, rounds, attempts, protection=protection, mode=mode, early=early
        )
        draft = Plan(text.encode())
        plan = draft.completed(
            keys={n: self._key(n) for n in names},
            aggregator=self._key("aggregator"),
            keyholder=self._key(HOLDER) if draft.has_keyholder else None,
            run_id=_RANDOM.bytes(16),
            start_sha256=hashlib.sha256(start).hexdigest(),
        )
        aggregator = self.folder / "aggregators" / name
        aggregator.mkdir(parents=True, mode=0o700)
        (aggregator / _START).write_bytes(start)
        (aggregator / PLAN_FILE).write_bytes(plan.source)
        self._identities["aggregator"].save(aggregator / AGGREGATOR_FILE)
        agreed = Agreed(plan, aggregator, self.folder / "out" / name)
        for member in names if joined is None else joined:
            self.join(agreed, member)
        if plan.has_keyholder:
            self.join(agreed, HOLDER)
        return agreed

    def join(self, agreed: Agreed, name: str) -> None:
        home = MemberHome(self.home(name))
        home.join(agreed.plan, key=self.keys / f"{name}.pem", data=None, policy=None)

    def _key(self, name: str) -> str:
        return key_to_text(self._identities[name].public_key)

    # -- where members wait ------------------------------------------------------------

    def hold(self, name: str, place: str) -> None:
        """Let ``name`` wait there when it comes there."""
        (self.watch(name) / "here").unlink(missing_ok=True)
        self._hold(name, self._held(name) | {place})

    def release(self, name: str, place: str) -> None:
        """Let it go on from there."""
        self._hold(name, self._held(name) - {place})

    def let_go(self, name: str) -> None:
        """Let it go on from wherever it is."""
        self._hold(name, set())

    def _held(self, name: str) -> set[str]:
        path = self.watch(name) / "hold"
        return set(path.read_text().splitlines()) if path.exists() else set()

    def _hold(self, name: str, places: set[str]) -> None:
        new = self.watch(name) / ".hold"
        new.write_text("\n".join(sorted(places)))
        new.replace(self.watch(name) / "hold")

    def holds(self, name: str, place: str) -> bool:
        """Whether a process of ``name`` has come to ``place``."""
        path = self.watch(name) / "here"
        return path.exists() and path.read_text() == place

    # -- what is left ------------------------------------------------------------------

    def releases(self, agreed: Agreed, name: str) -> list[Release]:
        """What its own ledger holds of this run."""
        with contextlib.closing(MemberHome(self.home(name)).ledger(name)) as ledger:
            found = ledger.releases(agreed.plan.lineage)
        return [r for r in found if r.run_id == agreed.plan.run_id]

    def check_ledgers(self, agreed: Agreed) -> None:
        """No update that may have left is without a charge of its own.

        For a complete run: whoever is in a sum holds its context under a charge.
        """
        status = agreed.status
        assert status is not None
        arrived = {m.name: m.releases for m in status.members}
        for name in agreed.plan.names:
            charged = [r for r in self.releases(agreed, name) if r.charged]
            assert len(charged) >= self.made(agreed, name), name
            assert len(charged) >= arrived[name], name
            contexts = [c for r in charged for c in r.contexts]
            assert len(contexts) == len(set(contexts)), name
            inside = {e.bytes_(2) for e in agreed.opened if name in e.rows(3)}
            assert inside <= set(contexts), name

    def made(self, agreed: Agreed, name: str) -> int:
        """How many updates its trainer made for this run."""
        return len(self.places(agreed, name))

    def places(self, agreed: Agreed, name: str) -> list[str]:
        """Where it made them: the round, and what it was asked for then."""
        path = self.watch(name) / "updates"
        assert agreed.plan.run_id is not None
        rows = path.read_text().splitlines() if path.exists() else []
        made = [row.split(maxsplit=1) for row in rows]
        return [place for run, place in made if run == agreed.plan.run_id.hex()]

    def check_run(self, agreed: Agreed) -> None:
        """Both verifiers pass, and each sum is exactly that of its survivors.

        No sum is of fewer than the plan needs.
        """
        assert sfl.verify_run(agreed.out).epsilon
        second = [sys.executable, str(_SECOND), str(agreed.out)]
        subprocess.run(second, check=True, stdout=subprocess.DEVNULL)
        needed = agreed.plan.needed
        plan, model = agreed.plan, GlobalModel.load(agreed.aggregator / _START)
        descent = Descent(plan)
        for index, survivors in sorted(agreed.survivors.items()):
            assert len(survivors) >= needed
            total = np.sum([units(n, plan, model.size) for n in survivors], axis=0)
            if not plan.distributed:
                total = np.append(total, 0)  # how many values were clipped
            words = plan.encoding.wrap(total)
            model = descent.move(model, words, round_index=index, survivors=survivors)
        on_disk = GlobalModel.load(agreed.out / "model.safetensors")
        assert on_disk.digest() == model.digest()
