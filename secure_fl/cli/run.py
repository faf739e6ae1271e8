# SPDX-License-Identifier: Apache-2.0
"""``secure-fl run``: a whole plan with all parties on this machine."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from ..errors import PlanError, UsageError
from ..plan import Plan, load_plan

if TYPE_CHECKING:
    from ..engines.result import Progress as RunProgress
    from ..engines.result import Run
    from ..model import GlobalModel
    from ..training import TabularSplit

__all__ = ["command", "progress_bar"]


@click.command("run")
@click.argument("plan_path", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--data",
    "data_path",
    type=click.Path(path_type=Path),
    envvar="SECURE_FL_DATA",
    help="Folder of the plan's data files (or the variable SECURE_FL_DATA).",
)
@click.option(
    "--out",
    type=click.Path(path_type=Path),
    required=True,
    help="A new folder for everything the run leaves.",
)
@click.option(
    "--home",
    type=click.Path(path_type=Path),
    envvar="SECURE_FL_HOME",
    help="Where ledgers live on, so that budgets hold across runs.",
)
@click.option("--resume", is_flag=True, help="Continue the unfinished run in --out.")
@click.option(
    "--baselines",
    is_flag=True,
    help="Also train one member alone, and pooled data.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def command(
    plan_path: Path,
    data_path: Path | None,
    out: Path,
    home: Path | None,
    resume: bool,
    baselines: bool,
    as_json: bool,
) -> None:
    """Run PLAN with all parties on this machine: a simulation."""
    plan = load_plan(plan_path)
    if plan.data is None:
        raise UsageError(
            "the plan has no [data], so there is nothing to train on",
            hint="describe a CSV there, or bring trainers: secure_fl.run in Python",
        )
    from ..engines.embedded import run
    from ..engines.setup import require_empty

    if not resume:
        require_empty(out)
    task = _Task(plan, data_path or plan.folder)
    if baselines:
        task.require_comparable()
    with progress_bar(quiet=as_json) as progress:
        finished = run(
            plan,
            task.trainers,
            out=out,
            home=home,
            resume=resume,
            evaluate=task.evaluate,
            baselines=task.baselines if baselines else None,
            progress=progress,
        )
    if as_json:
        click.echo(json.dumps(_answer(finished, out), indent=2))
    else:
        _print(finished, out, task.spent_alone)


class _Task:
    """What ``[data]``, ``[model]`` and ``[training]`` of a plan come to.

    ``spent_alone``: epsilon of one holder in the private baselines, once they are made.
    """

    def __init__(self, plan: Plan, folder: Path) -> None:
        from .. import training

        assert plan.data is not None
        self.plan = plan
        self.spent_alone: float | None = None
        self._training = training
        self._records = sum(m.records for m in plan.parties.members)
        shares = {m.name: m.records for m in plan.parties.members}
        self.splits: dict[str, TabularSplit] = training.load_tabular(
            plan.data, names=plan.names, shares=shares, folder=folder
        )
        self.trainers = {
            name: training.builtin_trainer(plan, split)
            for name, split in self.splits.items()
        }
        training.few_threads(plan)
        self._all = training.pooled(self.splits.values())

    def evaluate(self, model: GlobalModel) -> Mapping[str, float]:
        """On the held-out rows of all members."""
        labels = self._all.test_y
        if not labels.size:
            return {}
        scores = self._training.scores(model, self.plan, self._all.test_x)
        figures = {"accuracy": self._training.accuracy(labels, scores)}
        if scores.shape[1] == 2 and 0 < labels.sum() < labels.size:
            figures["auc"] = self._training.auc(labels, scores[:, 1])
        return figures

    def require_comparable(self) -> None:
        """Before anything is charged: the baselines are last.  Raises UsageError."""
        if not self._comparable:
            return
        try:  # a member's own records are fewer, and the noise is the same
            _ = self.plan.alone(records=self._records).release
        except PlanError as error:
            raise UsageError(
                f"--baselines cannot train on {self._records} records in one place: "
                f"{error}",
                hint=f"{error.hint}, or leave --baselines out",
            ) from None

    @property
    def _comparable(self) -> bool:
        """Where the unit is a client there is nothing private to compare with."""
        return self.plan.privacy.unit == "record"

    def baselines(self) -> Mapping[str, Any]:
        """Comparisons: what is private, at the same epsilon; and pooled without DP."""
        private = self._private_baselines() if self._comparable else {}
        pooled = self._training.train_plain(self.plan, self._all)
        return {**private, "pooled_non_private": dict(self.evaluate(pooled))}

    def _private_baselines(self) -> dict[str, Any]:
        """Each member alone, their mean, and all records as if they were one's."""
        from ..engines.baselines import train_alone

        plan, start = self.plan, self._training.initial_model(self.plan)
        spent: list[float] = []

        def trained(
            name: str, split: TabularSplit, records: int | None = None
        ) -> dict[str, float]:
            own = plan.alone(records=records)
            fit = self._training.builtin_trainer(own, split)
            found = train_alone(plan, name, fit, start, records=records)
            spent.append(found.epsilon)
            return dict(self.evaluate(found.model))

        alone = {name: trained(name, self.splits[name]) for name in plan.names}
        pooled = trained(plan.names[0], self._all, self._records)
        self.spent_alone = max(spent)
        keys = next(iter(alone.values()))
        return {
            "one_member_alone": {
                k: sum(a[k] for a in alone.values()) / len(alone) for k in keys
            },
            "each_member_alone": alone,
            "pooled_private": pooled,
        }


def _answer(finished: Run, out: Path) -> dict[str, Any]:
    return {
        "out": str(out),
        "plan_hash": finished.plan.hash.hex(),
        "claims": finished.report.claims,
        "metrics": finished.metrics,
    }


def _print(finished: Run, out: Path, spent_alone: float | None) -> None:
    from ..report.cells import bound

    console = Console(highlight=False)
    final = finished.metrics.get("final", {})
    figures = [k for k in final if k != "round"]
    table = Table(title=f"{finished.plan.name}: held-out rows", title_justify="left")
    table.add_column("trained")
    table.add_column("epsilon", justify="right")
    for name in figures:
        table.add_column(name, justify="right")
    epsilon = bound(finished.report.claims[0]["consortium"]["epsilon"])
    rows: list[tuple[str, str, Mapping[str, float]]] = [
        ("together, private", epsilon, final)
    ]
    baselines = finished.metrics.get("baselines", {})
    own = "" if spent_alone is None else bound(spent_alone)
    if own:
        rows.append(("one member alone, private", own, baselines["one_member_alone"]))
        rows.append(("pooled, private", own, baselines["pooled_private"]))
    if baselines:
        rows.append(("pooled, not private", "none", baselines["pooled_non_private"]))
    for label, spent, values in rows:
        table.add_row(label, spent, *(f"{values[k]:.3f}" for k in figures))
    if figures:
        console.print(table)
    delta = finished.plan.privacy.delta
    disjoint = finished.plan.privacy.overlap == "disjoint"
    whose = "one record of one member" if disjoint else "one record of all members"
    if finished.plan.privacy.unit == "client":
        whose = "all that one member sent"
    if skipped := finished.report.data["skipped_rounds"]:
        count = finished.plan.rounds.count
        console.print(f"{len(skipped)} of {count} rounds were skipped: see the report")
    console.print(f"epsilon {epsilon} at delta {delta:g}, for {whose}")
    for claim in finished.report.claims[1:]:  # of shares: whoever holds everything else
        alone = bound(claim["consortium"]["epsilon"])
        console.print(f"epsilon {alone} if everybody else colludes")
    if own:
        console.print(
            "The others are comparisons: no ledger counts them. To publish a member's"
            f" own model too would cost its records up to epsilon {own} more."
        )
    console.print(f"report  {out / 'report.html'}", soft_wrap=True)
    console.print(f"check   secure-fl verify {out}", soft_wrap=True)


class progress_bar(AbstractContextManager[Callable[["RunProgress"], None]]):  # noqa: N801
    """A bar on stderr where that is a terminal, silence elsewhere."""

    def __init__(self, *, quiet: bool) -> None:
        self._bar = Progress(
            TextColumn("{task.description:38.38}"),
            BarColumn(bar_width=20),
            TextColumn("{task.completed:.0f}/{task.total:.0f} rounds"),
            TimeElapsedColumn(),
            console=Console(stderr=True),
            transient=True,
            disable=quiet or not sys.stderr.isatty(),
        )

    def __enter__(self) -> Callable[[RunProgress], None]:
        self._bar.start()
        task = self._bar.add_task("starting", total=None)

        def show(p: RunProgress) -> None:
            what = f"{p.step} {p.client}" if p.client else p.step
            again = f", attempt {p.attempt + 1}" if p.attempt else ""
            self._bar.update(
                task,
                description=f"round {p.round + 1}{again}: {what}",
                completed=p.round,
                total=p.rounds,
            )

        return show

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.stop()
