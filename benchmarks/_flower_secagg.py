# SPDX-License-Identifier: Apache-2.0
"""One round of Flower's SecAgg+ in this process, for ``against_flower.py``.

flwr is looked up by name when a round starts: where it is not installed, this module
still imports and type-checks.
"""

from __future__ import annotations

import importlib
import statistics
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

CLIP = 1.0
QUANTIZATION_RANGE = 1 << 22
MODULUS_RANGE = 1 << 32
EXAMPLES = 1000  # of each client, and max_weight
STEP = 2 * CLIP / QUANTIZATION_RANGE
FIRST_NODE = 1000


class Vectors:
    """A vector for each client, made when asked for: 32 of 1e7 need not be kept.

    A sixteenth of the values lie on the grid of SecAgg+, where rounding does nothing:
    there, the mean has to come out as exact as float64 divides.
    """

    def __init__(self, length: int) -> None:
        generator = np.random.default_rng(1)
        self.on_grid = length // 16
        units = generator.integers(0, QUANTIZATION_RANGE + 1, self.on_grid)
        self._grid = (units * STEP - CLIP).astype(np.float32)
        rest = generator.uniform(-CLIP, CLIP, length - self.on_grid)
        self._rest = rest.astype(np.float32)

    def of(self, client: int) -> NDArray[np.float32]:
        parts = [np.roll(self._grid, client), np.roll(self._rest, client)]
        return np.concatenate(parts)

    def mean(self, clients: Iterable[int]) -> NDArray[np.float64]:
        total = np.zeros(self._grid.size + self._rest.size)
        count = 0
        for client in clients:
            total += self.of(client)
            count += 1
        return total / count


@dataclass
class Loop:
    """Where the workflow expects a network: calls the mod of every client in turn."""

    vectors: Vectors
    dropped: frozenset[int]
    client_seconds: dict[int, float] = field(default_factory=dict)
    bytes_up: dict[int, int] = field(default_factory=dict)
    app_seconds: float = 0.0
    delivery_seconds: float = 0.0
    seconds: float = 0.0
    _contexts: dict[int, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._app = importlib.import_module("flwr.app")
        self._common = importlib.import_module("flwr.common")
        self._compat = importlib.import_module("flwr.compat.common.recorddict_compat")
        self._serde = importlib.import_module("flwr.common.serde")
        self._proto = importlib.import_module("flwr.proto.message_pb2")
        self._mod = importlib.import_module("flwr.client.mod").secaggplus_mod
        self._names = importlib.import_module(
            "flwr.common.secure_aggregation.secaggplus_constants"
        )

    def send_and_receive(
        self, messages: Iterable[Any], *, timeout: float | None = None
    ) -> list[Any]:
        """Answers of those who answer.  There is nothing to wait for: no timeout."""
        begin = time.perf_counter()
        stages = self._names.Stage
        late = (stages.COLLECT_MASKED_VECTORS, stages.UNMASK)
        replies = []
        for message in messages:
            node = message.metadata.dst_node_id
            configs = message.content.config_records[self._names.RECORD_KEY_CONFIGS]
            if configs[self._names.Key.STAGE] in late and node in self.dropped:
                continue
            request, _ = self._deliver(message)
            reply, size = self._deliver(self._answer(node, request))
            self.bytes_up[node] = self.bytes_up.get(node, 0) + size
            replies.append(reply)
        self.seconds += time.perf_counter() - begin
        return replies

    def _deliver(self, message: Any) -> tuple[Any, int]:
        """The message as the other side reads it, and its size on the way.

        Not only for the size: the mod takes entries out of what it receives, and the
        workflow gives one object to all clients.
        """
        begin = time.perf_counter()
        data = self._serde.message_to_proto(message).SerializeToString()
        read = self._serde.message_from_proto(self._proto.Message.FromString(data))
        self.delivery_seconds += time.perf_counter() - begin
        return read, len(data)

    def _answer(self, node: int, request: Any) -> Any:
        if node not in self._contexts:
            self._contexts[node] = self._app.Context(
                run_id=1,
                node_id=node,
                node_config={},
                state=self._app.RecordDict(),
                run_config={},
            )
        app_before = self.app_seconds
        begin = time.perf_counter()
        reply = self._mod(request, self._contexts[node], self._client_app)
        seconds = time.perf_counter() - begin - (self.app_seconds - app_before)
        self.client_seconds[node] = self.client_seconds.get(node, 0.0) + seconds
        return reply

    def _client_app(self, message: Any, context: Any) -> Any:
        begin = time.perf_counter()
        common = self._common
        vector = self.vectors.of(context.node_id - FIRST_NODE)
        result = common.FitRes(
            status=common.Status(code=common.Code.OK, message=""),
            parameters=common.ndarrays_to_parameters([vector]),
            num_examples=EXAMPLES,
            metrics={},
        )
        content = self._compat.fitres_to_recorddict(result, keep_input=False)
        reply = self._app.Message(content, reply_to=message)
        self.app_seconds += time.perf_counter() - begin
        return reply


@dataclass(frozen=True)
class Proxy:
    """The workflow only asks a client for its number."""

    node_id: int


class HandOn:
    """A strategy that sends no model down and keeps the mean that was opened."""

    def __init__(self, nodes: list[int], nothing: Any) -> None:
        self._instructions = [(Proxy(node), nothing) for node in nodes]
        self.opened: Any = None

    def configure_fit(
        self, server_round: int, parameters: Any, client_manager: Any
    ) -> list[tuple[Proxy, Any]]:
        return self._instructions

    def aggregate_fit(
        self, server_round: int, results: list[Any], failures: list[Any]
    ) -> tuple[None, dict[str, Any]]:
        # The workflow gives every result the same parameters, the mean.
        self.opened = results[0][1].parameters
        return None, {}


def secaggplus(
    *, clients: int, dropped: int, shares: int, threshold: int, vectors: Vectors
) -> dict[str, Any]:
    """Run it and compare what it opened with the mean.  SystemExit where it halts."""
    app = importlib.import_module("flwr.app")
    common = importlib.import_module("flwr.common")
    identity = importlib.import_module("flwr.supercore.task_identity").TaskIdentity
    # What a SuperLink tells the process of a server app about itself.
    identity.run_id, identity.node_id, identity.task_id = 1, 1, 1
    nodes = [FIRST_NODE + client for client in range(clients)]
    staying = nodes[dropped:]
    nothing = common.FitIns(common.ndarrays_to_parameters([]), {})
    strategy = HandOn(nodes, nothing)
    records = {
        "config": app.ConfigRecord({"current_round": 1}),
        "parameters": app.ArrayRecord(),
    }
    context = importlib.import_module("flwr.server").LegacyContext(
        context=app.Context(
            run_id=1,
            node_id=1,
            node_config={},
            state=app.RecordDict(records),
            run_config={},
        ),
        strategy=strategy,
    )
    workflow = importlib.import_module("flwr.server.workflow").SecAggPlusWorkflow(
        num_shares=shares,
        reconstruction_threshold=threshold,
        max_weight=float(EXAMPLES),
        clipping_range=CLIP,
        quantization_range=QUANTIZATION_RANGE,
        modulus_range=MODULUS_RANGE,
    )
    loop = Loop(vectors, frozenset(nodes[:dropped]))
    begin = time.perf_counter()
    workflow(loop, context)
    aggregator = time.perf_counter() - begin - loop.seconds
    if strategy.opened is None:
        raise SystemExit(f"SecAgg+ opened nothing: {shares} shares, {dropped} dropped")
    opened = common.parameters_to_ndarrays(strategy.opened)[0]
    error = np.abs(opened - vectors.mean(node - FIRST_NODE for node in staying))
    return {
        "client_seconds": statistics.median(loop.client_seconds[n] for n in staying),
        "aggregator_seconds": aggregator,
        "round_seconds": aggregator + sum(loop.client_seconds.values()),
        "delivery_seconds": loop.delivery_seconds,
        "bytes_up_per_value": max(loop.bytes_up.values()) / opened.size,
        "step": STEP,
        "max_error": float(error.max()),
        # Its float32 arithmetic before rounding may cost half a unit more.
        "within_quantisation": bool(error.max() <= 1.5 * STEP),
        "exact": bool(error[: vectors.on_grid].max(initial=0.0) <= STEP * 1e-6),
    }
