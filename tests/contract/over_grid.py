# SPDX-License-Identifier: Apache-2.0
"""The engine across machines, over Flower's Grid in this process.

Strategy, mod, records and bytes are the real ones; so is each member's home, which
every message meets in a new object, as in a new process.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
from flwr.app import ArrayRecord, Context, Message, MetricRecord, RecordDict
from flwr.clientapp import ClientApp
from flwr.serverapp.strategy import FedAvg

import secure_fl as sfl
from secure_fl.engines.flower import (
    SecureAggregation,
    client_round,
    private_reply,
    secure_aggregation_mod,
)
from secure_fl.engines.flower.models import from_arrays, to_arrays
from secure_fl.engines.flower.records import from_records
from secure_fl.engines.requests import Message as ProtocolMessage
from secure_fl.engines.requests import Open, Request

from ..engines.support import NAMES
from ..flower.consortium import Parties
from .engines import Engine, Evaluate, Exact, Trainer

__all__ = ["OverGrid"]


class OverGrid(Engine):
    """``SecureAggregation(...).start(grid, ...)``, and an app for each party."""

    near = False

    def prepare(self, patch: pytest.MonkeyPatch) -> None:
        self._parties = Parties(self.folder, NAMES)

    def begin(
        self,
        plan: sfl.Plan,
        clients: Mapping[str, Trainer],
        model: sfl.GlobalModel,
        evaluate: Evaluate | None,
    ) -> Callable[[], None]:
        banks = self._parties.agree(plan.with_values(model.size))
        grid = banks.grid(lambda name: self._app(name, clients.get(name)))
        strategy = SecureAggregation(FedAvg(), home=banks.aggregator, out=self.out)

        def score(server_round: int, arrays: ArrayRecord) -> MetricRecord | None:
            if evaluate is None or server_round == 0:  # nobody else scores the start
                return None
            return MetricRecord(dict(evaluate(from_arrays(arrays))))

        def once() -> None:
            strategy.start(
                grid,
                to_arrays(model),
                num_rounds=plan.rounds.count,
                timeout=20,
                evaluate_fn=score,
            )

        return once

    def ledger(self, name: str) -> Path:
        return self._parties.homes[name].folder / "ledger.sqlite"

    def _app(self, name: str, trainer: Trainer | None) -> ClientApp:
        """``trainer``: none of a key holder."""

        def losing(message: Message, context: Context, call_next: Any) -> Message:
            request, _ = Request.of(from_records(message.content))
            reply: Message = call_next(message, context)
            for action in request.actions:
                match action:
                    case Open(round_index, attempt):
                        self.opened(name, round_index, attempt)
                        self.heard(name, 0)
                    case ProtocolMessage():
                        self.answered(name)
            return reply

        app = ClientApp(mods=[losing, secure_aggregation_mod])

        @app.train()
        def train(message: Message, context: Context) -> Message:
            assert trainer is not None
            if isinstance(trainer, Exact):
                return _moved(message, trainer)
            return private_reply(trainer(client_round()))

        return app


def _moved(message: Message, by: Exact) -> Message:
    """What a train function returns that knows nothing of privacy."""
    given = from_arrays(message.content.array_records["arrays"])
    trained = to_arrays(given.add(by.values))
    return Message(RecordDict({"arrays": trained}), reply_to=message)
