# SPDX-License-Identifier: Apache-2.0
"""Flower's own strategies, as far as they need the mean of all updates and no more.

A round gives one mean.  The strategy that a user chose sees it as if it were the one
reply of the round, and makes the next global model of it, as in any Flower run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from flwr.app import ArrayRecord, ConfigRecord, Message, MetricRecord, RecordDict
from flwr.serverapp import Grid
from flwr.serverapp.strategy import (
    FedAdagrad,
    FedAdam,
    FedAvg,
    FedAvgM,
    FedYogi,
    Strategy,
)
from numpy.typing import NDArray
from safetensors.numpy import load, save

from ...errors import EngineError, UsageError
from ...files import write_durably
from ...model import GlobalModel
from .models import from_arrays, to_arrays

__all__ = ["InnerStep", "check_strategy"]

_TAKEN: Final = (FedAvg, FedAvgM, FedAdam, FedYogi, FedAdagrad)
_SINGLE: Final = "compares single updates, and nobody sees one"
_NOISE: Final = "adds noise of its own, and here the plan's [privacy] says how much"
_TREES: Final = "puts trees together, and trees have no sum"
_WHY_NOT: Final = {
    "FedMedian": _SINGLE,
    "FedTrimmedAvg": _SINGLE,
    "Krum": _SINGLE,
    "MultiKrum": _SINGLE,
    "Bulyan": _SINGLE,
    "QFedAvg": "weighs each client by its loss, which stays with the client",
    "FedProx": "sends each client a term for its loss, and no config is sent here: "
    "wrap FedAvg, which does the same on this side, and put the term into run_config",
    "FedXgbBagging": _TREES,
    "FedXgbCyclic": _TREES,
    "DifferentialPrivacyClientSideAdaptiveClipping": _NOISE,
    "DifferentialPrivacyClientSideFixedClipping": _NOISE,
    "DifferentialPrivacyServerSideAdaptiveClipping": _NOISE,
    "DifferentialPrivacyServerSideFixedClipping": _NOISE,
}


def check_strategy(strategy: Strategy) -> FedAvg:
    """``strategy``, where the mean of all updates is enough for it.

    A subclass may do anything with single replies, so the type has to be exact.
    Raises UsageError with the reason.
    """
    kind = type(strategy)
    if not isinstance(strategy, FedAvg) or kind not in _TAKEN:
        reason = _WHY_NOT.get(kind.__name__, "may look at single replies")
        raise UsageError(
            f"{kind.__name__} {reason}",
            hint=f"wrap one of {', '.join(k.__name__ for k in _TAKEN)}",
        )
    if strategy.fraction_train != 1.0:
        raise UsageError(
            f"fraction_train is {strategy.fraction_train:g}: who takes part is for the "
            "plan to say",
            hint="leave it out; a plan may go on without members that are away",
        )
    return strategy


@final
class InnerStep:
    """The step of ``strategy`` from a mean: a :data:`~secure_fl.engines.result.Move`.

    What the strategy keeps between rounds lies in ``folder``, one file for each round,
    so that a run that was cut off goes on with it.
    """

    def __init__(self, strategy: FedAvg, start: ArrayRecord, folder: Path) -> None:
        self._strategy = copy.copy(strategy)
        # There are no metrics to aggregate; a function for them may not bear that.
        self._strategy.train_metrics_aggr_fn = FedAvg().train_metrics_aggr_fn
        self._types = dict.fromkeys(start, "float32")
        self._before = to_arrays(from_arrays(start), types=self._types)
        self._folder = folder

    def restore(self, round_index: int) -> None:
        """Be as before round ``round_index``, whatever was begun after it.

        Raises EngineError where what was kept does not parse.
        """
        kept = {int(path.stem): path for path in self._folder.glob("*.safetensors")}
        for place in [place for place in kept if place >= round_index]:
            kept.pop(place).unlink()
        if not kept:
            return
        path = kept[max(kept)]
        try:
            arrays = load(path.read_bytes())
            model = GlobalModel(_under(arrays, "model"))
        except Exception:
            raise EngineError(
                f"{path} does not parse", hint="start a new run, with a new plan"
            ) from None
        self._before = to_arrays(model, types=self._types)
        for name in ("m_t", "v_t"):
            if moment := _under(arrays, name):
                setattr(self._strategy, name, {n: moment[n] for n in self._types})
        if momentum := _under(arrays, "momentum_vector"):
            self._strategy.__dict__["momentum_vector"] = [
                momentum[str(place)] for place in range(len(momentum))
            ]

    def __call__(self, round_index: int, mean: GlobalModel) -> GlobalModel:
        strategy, server_round = self._strategy, round_index + 1
        asked = strategy.configure_train(
            server_round, self._before, ConfigRecord(), _Nodes(strategy)
        )
        content = RecordDict(
            {
                strategy.arrayrecord_key: to_arrays(mean, types=self._types),
                "metrics": MetricRecord({strategy.weighted_by_key: 1.0}),
            }
        )
        reply = Message(content, reply_to=next(iter(asked)))
        arrays, _ = strategy.aggregate_train(server_round, [reply])
        assert arrays is not None  # there was a reply
        moved = from_arrays(arrays)
        self._before = to_arrays(moved, types=self._types)
        self._keep(round_index, moved)
        return moved

    def _keep(self, round_index: int, model: GlobalModel) -> None:
        kept = {f"model/{n}": np.asarray(a) for n, a in model.arrays.items()}
        for name in ("m_t", "v_t", "momentum_vector"):
            moment: Any = getattr(self._strategy, name, None) or {}
            named = moment if isinstance(moment, dict) else dict(enumerate(moment))
            kept |= {f"{name}/{n}": np.asarray(a) for n, a in named.items()}
        data = save({n: np.ascontiguousarray(a) for n, a in kept.items()})
        write_durably(self._folder / f"{round_index}.safetensors", data, mode=0o600)


def _under(arrays: Mapping[str, NDArray[Any]], name: str) -> Mapping[str, NDArray[Any]]:
    prefix = f"{name}/"
    return {
        n.removeprefix(prefix): a for n, a in arrays.items() if n.startswith(prefix)
    }


class _Nodes(Grid):
    """As many nodes as ``strategy`` wants to see before it begins, and nothing else."""

    def __init__(self, strategy: FedAvg) -> None:
        most = max(strategy.min_train_nodes, strategy.min_available_nodes, 1)
        self._ids: Sequence[int] = range(1, most + 1)

    def get_node_ids(self) -> Iterable[int]:
        return self._ids

    def _unasked(self, *_: object, **__: object) -> Any:
        raise AssertionError("a strategy that needs the mean alone asks nobody")

    set_run = create_message = push_messages = pull_messages = _unasked
    send_and_receive = _unasked
    run = property(_unasked)
