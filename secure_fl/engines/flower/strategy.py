# SPDX-License-Identifier: Apache-2.0
"""A Flower strategy whose server never sees a client's arrays."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, NoReturn, final

from flwr.app import DEFAULT_TTL, ArrayRecord, ConfigRecord, Message, MetricRecord
from flwr.serverapp import Grid
from flwr.serverapp.strategy import FedAvg, Result, Strategy

from ...errors import UsageError
from ...identity import Identity
from ...model import GlobalModel
from ...plan import Plan, load_plan
from ...report.cells import bound
from ..aggregator import aggregate
from ..home import passphrase
from ..result import Progress, Run
from ..setup import AGGREGATOR, AGGREGATOR_FILE, PLAN_FILE
from .grid import GridCarrier
from .models import from_arrays, to_arrays
from .moves import InnerStep, check_strategy

__all__ = ["SecureAggregation"]

_MOST_NAMES: Final = 20
_log = logging.getLogger("flwr")  # beside Flower's own lines about the run

Evaluate = Callable[[int, ArrayRecord], MetricRecord | None]


@final
class SecureAggregation(Strategy):
    """Runs a plan, with the server's step of ``strategy``.

    strategy
        FedAvg, FedAvgM, FedAdam, FedYogi or FedAdagrad; of its settings those of the
        server's step count.  Members, weights and how many are needed stand in the
        plan.  In distributed mode the step is the plan's, too: wrap FedAvg
    home
        the aggregator's folder, with plan.toml and aggregator.key, and the state of a
        run under way; by default the variable SECURE_FL_HOME
    out
        a folder for the run's files; by default one under ``home``

    A run that was cut off goes on when it is started again with the same folders.
    """

    def __init__(
        self,
        strategy: Strategy,
        *,
        home: str | Path | None = None,
        out: str | Path | None = None,
    ) -> None:
        """Raises UsageError for a strategy that needs more than the mean."""
        self._strategy = check_strategy(strategy)
        given = home or os.environ.get("SECURE_FL_HOME")
        if not given:
            raise UsageError(
                "the aggregator has no home",
                hint="give SecureAggregation(..., home=FOLDER), or set SECURE_FL_HOME",
            )
        self._home = Path(given)
        self._out = None if out is None else Path(out)

    def start(
        self,
        grid: Grid,
        initial_arrays: ArrayRecord,
        num_rounds: int = 3,
        timeout: float = 3600,
        train_config: ConfigRecord | None = None,
        evaluate_config: ConfigRecord | None = None,
        evaluate_fn: Evaluate | None = None,
    ) -> Result:
        """Run the whole plan over ``grid``; leaves model, transcript and report.

        initial_arrays
            the plan's start: floats
        num_rounds
            must be the plan's
        timeout
            seconds for one exchange with all members, training included
        train_config
            must be empty: what a client trains with is for its run_config to say
        evaluate_config
            is not used: clients evaluate nothing for the server, since an exact figure
            would tell about their records
        evaluate_fn
            called with the start (round 0) and each new model, as in any Flower run;
            a round that could not be opened has no new model

        Raises PlanError and UsageError before anybody is asked, TooFewClients where no
        round could be opened, EngineError where a member, or the SuperLink, is missing.
        """
        plan = load_plan(self._home / PLAN_FILE)
        _check(plan, num_rounds, train_config)
        identity = Identity.load(
            self._home / AGGREGATOR_FILE, name=AGGREGATOR, passphrase=passphrase()
        )
        out = self._out or self._home / "results" / plan.hash.hex()[:16]
        step = None
        if type(self._strategy) is not FedAvg:  # whose step is the plan's own
            assert plan.run_id is not None
            folder = self._home / "runs" / plan.run_id.hex() / "strategy"
            step = InnerStep(self._strategy, initial_arrays, folder)
        course = _Course(plan, initial_arrays, step, evaluate_fn)
        self.summary()
        course.begin()
        run = aggregate(
            plan,
            identity,
            GridCarrier(grid, ttl=max(DEFAULT_TTL, 2 * timeout)),
            out=out,
            state=self._home,
            model=from_arrays(initial_arrays),
            evaluate=None if evaluate_fn is None else course.evaluate,
            progress=course.enter,
            move=step,
            patience=timeout,
        )
        course.end(run, out)
        return course.result

    def summary(self) -> None:
        """Log what is run, by whom, and what is left out."""
        plan = load_plan(self._home / PLAN_FILE)
        _log.info("Secure aggregation, %s step:", type(self._strategy).__name__)
        _log.info("\t├── Plan: %s (%s)", plan.name, plan.hash.hex())
        few = len(plan.names) <= _MOST_NAMES
        members = ", ".join(plan.names) if few else str(len(plan.names))
        _log.info("\t├── Members: %s", members)
        _log.info("\t├── Needed: %d", plan.needed)
        _log.info("\t├── Protection: %s", plan.protection.kind)
        _log.info("\t├── Arrays reach clients as float32, in the order of their names")
        _log.info("\t└── No federated evaluation: no metric leaves a client")

    # What start() of any other strategy is made of: a round here is several exchanges.

    def configure_train(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> NoReturn:
        """Raises UsageError: call :meth:`start`."""
        raise _start_only()

    def aggregate_train(
        self, server_round: int, replies: Iterable[Message]
    ) -> NoReturn:
        """Raises UsageError: call :meth:`start`."""
        raise _start_only()

    def configure_evaluate(
        self, server_round: int, arrays: ArrayRecord, config: ConfigRecord, grid: Grid
    ) -> NoReturn:
        """Raises UsageError: call :meth:`start`."""
        raise _start_only()

    def aggregate_evaluate(
        self, server_round: int, replies: Iterable[Message]
    ) -> NoReturn:
        """Raises UsageError: call :meth:`start`."""
        raise _start_only()


def _start_only() -> UsageError:
    return UsageError(
        "secure aggregation is not one exchange a round, and no part of a strategy",
        hint="call start(grid=..., initial_arrays=...), and wrap it in nothing",
    )


def _check(plan: Plan, num_rounds: int, train_config: ConfigRecord | None) -> None:
    if not plan.complete:
        raise UsageError(
            "the plan is not complete: it lacks keys or its run id",
            hint="`secure-fl plan complete` fills them in",
        )
    if num_rounds != plan.rounds.count:
        raise UsageError(
            f"num_rounds is {num_rounds}, and the plan says {plan.rounds.count}",
            hint="all members endorsed the plan's number: pass that one",
        )
    if train_config:
        raise UsageError(
            "a train_config would not reach the clients: "
            f"{', '.join(sorted(train_config))}",
            hint="put it into the app's config, and read context.run_config there",
        )


@final
class _Course:
    """One run on its way into Flower's Result."""

    def __init__(
        self,
        plan: Plan,
        start: ArrayRecord,
        step: InnerStep | None,
        evaluate: Evaluate | None,
    ) -> None:
        self.result = Result()
        self._plan = plan
        self._start = start
        self._types = {name: array.dtype for name, array in start.items()}
        self._step = step
        self._evaluate = evaluate
        self._round: int | None = None  # the index of the one under way

    def begin(self) -> None:
        self._score(0, self._start)

    def enter(self, progress: Progress) -> None:
        """Note where the run is; the first time, where it goes on."""
        if progress.round == self._round:
            return
        if self._round is None and self._step is not None:
            self._step.restore(progress.round)
        self._round = progress.round
        _log.info("")
        _log.info("[ROUND %d/%d]", progress.round + 1, progress.rounds)

    def evaluate(self, model: GlobalModel) -> Mapping[str, float]:
        """The figures of a new model, which the run keeps beside it."""
        place = self._plan.rounds.count if self._round is None else self._round + 1
        figures = self._score(place, to_arrays(model, types=self._types))
        return {k: v for k, v in figures.items() if isinstance(v, int | float)}

    def _score(self, server_round: int, arrays: ArrayRecord) -> MetricRecord:
        figures = (
            None if self._evaluate is None else self._evaluate(server_round, arrays)
        )
        if figures is None:
            return MetricRecord()
        _log.info("\tGlobal evaluation: %s", figures)
        self.result.evaluate_metrics_serverapp[server_round] = figures
        return figures

    def end(self, run: Run, out: Path) -> None:
        self.result.arrays = to_arrays(run.model, types=self._types)
        first, *others = [bound(c["consortium"]["epsilon"]) for c in run.report.claims]
        _log.info("")
        _log.info("epsilon %s at delta %g", first, self._plan.privacy.delta)
        for epsilon in others:  # of shares of noise: whoever holds everything else
            _log.info("epsilon %s if everybody else colludes", epsilon)
        if skipped := run.report.data["skipped_rounds"]:
            count = self._plan.rounds.count
            _log.warning("%d of %d rounds were skipped", len(skipped), count)
        _log.info("report  %s", out / "report.html")
        _log.info("check   secure-fl verify %s", out)
