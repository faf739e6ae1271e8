# SPDX-License-Identifier: Apache-2.0
"""What a test asks of an engine, and the engine of one machine.

An engine here is a consortium on disk: its members' ledgers last from one plan to the
next.  Trainers are the same for all engines, and so is what may get lost.
"""

from __future__ import annotations

import functools
import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import secure_fl as sfl
from secure_fl.engines.local import LocalClients
from secure_fl.errors import EngineError
from secure_fl.privacy import Ledger, Unprotected
from secure_fl.privacy.book import Release
from secure_fl.transcript import Transcript

from ..engines.support import NAMES, start

__all__ = ["SELDOM_FAR", "Embedded", "Engine", "Exact", "Fit", "Outcome", "Trainer"]

Evaluate = Callable[[sfl.GlobalModel], Mapping[str, float]]

SELDOM_FAR = pytest.mark.parametrize(
    "engine", ["embedded", pytest.param("grid", marks=pytest.mark.long)], indirect=True
)
"""For tests of what another one shows across machines, in part: there they are long."""


@dataclass(frozen=True)
class Exact:
    """A client that adds ``values`` to the model, without any privacy."""

    values: NDArray[np.float64] = field(repr=False)


Fit = Callable[[sfl.ClientRound], sfl.PrivateUpdate]
Trainer = Fit | Exact


@dataclass(frozen=True)
class Outcome:
    """The folder of a finished run."""

    out: Path

    @property
    def plan(self) -> sfl.Plan:
        return sfl.load_plan(self.out / "plan.toml")

    @property
    def model(self) -> sfl.GlobalModel:
        return sfl.GlobalModel.load(self.out / "model.safetensors")

    @property
    def log(self) -> Transcript:
        return Transcript.from_bytes((self.out / "transcript.cbor").read_bytes())

    @property
    def report(self) -> Any:
        return json.loads((self.out / "report.json").read_bytes())

    @property
    def metrics(self) -> Any:
        return json.loads((self.out / "metrics.json").read_bytes())

    @property
    def claim(self) -> Any:
        return self.report["claims"][0]

    @property
    def survivors(self) -> dict[int, list[str]]:
        """Whose updates are in the sum of each round that was opened."""
        rounds = self.log.of_kind("round")
        return {e.integer(0): [str(n) for n in e.rows(3)] for e in rounds}

    @property
    def attempts(self) -> list[int]:
        """In which attempt each round was opened."""
        return [e.integer(1) for e in self.log.of_kind("round")]

    def charges(self, name: str) -> list[tuple[str, bool]]:
        """What the report says of each release: its state, and whether it counts."""
        return [(r["state"], r["charged"]) for r in self.report["releases"][name]]

    def files(self) -> bytes:
        """All that was written."""
        return b"".join(p.read_bytes() for p in self.out.rglob("*") if p.is_file())


class Engine(ABC):
    """``start`` begins a run, ``go_on`` continues the one that was cut off."""

    near: ClassVar[bool]
    """Whether all parties are on this machine.

    They then train before any vector leaves, a mistake in a trainer's code ends the
    run, and the report says SIMULATION.  Across machines a member trains when it is
    asked for its vector, and whatever fails there is a dropout.
    """

    def __init__(self, folder: Path, patch: pytest.MonkeyPatch) -> None:
        self.folder = folder
        self.runs = 0
        self._again: Callable[[], None] = lambda: None
        self._lost: set[tuple[str, int]] = set()
        self._place = (-1, -1)
        self._said: dict[str, int] = {}
        self.prepare(patch)

    @property
    def out(self) -> Path:
        """Of the run that began last."""
        return self.folder / f"out-{self.runs}"

    @abstractmethod
    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        """Made once, before any run."""

    @abstractmethod
    def begin(
        self,
        plan: sfl.Plan,
        clients: Mapping[str, Trainer],
        model: sfl.GlobalModel,
        evaluate: Evaluate | None,
    ) -> Callable[[], None]:
        """What runs ``plan`` into ``out``; called once more, it goes on there."""

    @abstractmethod
    def ledger(self, name: str) -> Path:
        """The file of a member's ledger."""

    def start(
        self,
        plan: sfl.Plan,
        clients: Mapping[str, Trainer],
        *,
        model: sfl.GlobalModel | None = None,
        evaluate: Evaluate | None = None,
    ) -> Outcome:
        """Run ``plan``, which names no keys, from its start to its end."""
        self.runs += 1
        self._again = self.begin(plan, clients, model or start(), evaluate)
        return self.go_on()

    def go_on(self) -> Outcome:
        self._again()
        return Outcome(self.out)

    def releases(self, name: str) -> list[Release]:
        """All that a member's own ledger holds."""
        path = self.ledger(name)
        if not path.exists():
            return []
        ledger = Ledger(path, client=name)
        try:
            return [r for one in ledger.lineages() for r in ledger.releases(one)]
        finally:
            ledger.close()

    # -- what gets lost ----------------------------------------------------------------

    def lose(self, name: str, nth: int) -> None:
        """Once, the answer of ``name`` to the ``nth`` message of an attempt is lost.

        0 is what it opens the attempt with.  The answer was made.
        """
        self._lost.add((name, nth))

    @property
    def all_lost(self) -> bool:
        """Whether all that was to be lost has been."""
        return not self._lost

    def opened(self, name: str, round_index: int, attempt: int) -> None:
        """``name`` has been asked to open an attempt."""
        if (round_index, attempt) != self._place:
            self._place, self._said = (round_index, attempt), {}

    def heard(self, name: str, nth: int) -> None:
        """Raises EngineError where this answer gets lost."""
        if (name, nth) in self._lost:
            self._lost.discard((name, nth))
            raise EngineError("the line is dead")

    def answered(self, name: str) -> None:
        """The next message was answered.  Raises EngineError where that gets lost."""
        self._said[name] = nth = self._said.get(name, 0) + 1
        self.heard(name, nth)


class Embedded(Engine):
    """``secure_fl.run``: throw-away identities, ledgers that last."""

    near = True

    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        open_, tell = LocalClients.open, LocalClients.tell

        def opening(clients: LocalClients, *place: Any) -> Iterator[tuple[str, Any]]:
            for name, answer in open_(clients, *place):
                self.opened(name, *place[:2])
                try:
                    self.heard(name, 0)
                except EngineError as error:
                    yield name, error
                else:
                    yield name, answer

        def through(name: str, pieces: Iterable[bytes]) -> Iterator[bytes]:
            made = list(pieces)
            self.answered(name)
            yield from made

        def telling(clients: LocalClients, messages: Any, take: Any) -> None:
            tell(clients, messages, lambda n, pieces: take(n, through(n, pieces)))

        patch.setattr(LocalClients, "open", opening)
        patch.setattr(LocalClients, "tell", telling)

    def begin(
        self,
        plan: sfl.Plan,
        clients: Mapping[str, Trainer],
        model: sfl.GlobalModel,
        evaluate: Evaluate | None,
    ) -> Callable[[], None]:
        trainers: dict[str, Any] = {
            n: functools.partial(_add, t.values) if isinstance(t, Exact) else t
            for n, t in clients.items()
        }

        def once() -> None:
            sfl.run(
                plan,
                trainers,
                model=model,
                out=self.out,
                home=self.folder / "home",
                resume=(self.out / "plan.toml").exists(),
                evaluate=evaluate,
            )

        return once

    def ledger(self, name: str) -> Path:
        assert name in NAMES
        return self.folder / "home" / "clients" / name / "ledger.sqlite"


def _add(values: NDArray[np.float64], r: sfl.ClientRound) -> Unprotected:
    return sfl.unprotected(values, reason="trained without privacy")
