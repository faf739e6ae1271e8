# SPDX-License-Identifier: Apache-2.0
"""The server's side: which strategies, which steps, and what a user gets back."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

import torch
from flwr.app import (
    Array,
    ArrayRecord,
    ConfigRecord,
    Context,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from flwr.serverapp import strategy as flower
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secure_fl as sfl
from secure_fl.engines.flower import (
    SecureAggregation,
    client_round,
    private_reply,
    secure_aggregation_mod,
)
from secure_fl.engines.flower.models import from_arrays
from secure_fl.engines.flower.moves import InnerStep, check_strategy
from secure_fl.errors import EngineError, PlanError, UsageError
from secure_fl.model import GlobalModel

from .consortium import Banks, found, plan_text
from .grid_in_process import GridInProcess, Node, in_a_run

STEPS: list[Callable[[], flower.FedAvg]] = [
    lambda: flower.FedAvgM(server_learning_rate=0.5, server_momentum=0.9),
    lambda: flower.FedAdam(eta=0.1),
    lambda: flower.FedYogi(eta=0.1),
    lambda: flower.FedAdagrad(eta=0.1),
]


@pytest.fixture(autouse=True)
def of_a_run() -> None:
    in_a_run()


def start(dtype: str = "float32") -> ArrayRecord:
    return ArrayRecord(
        {
            "weight": Array(np.zeros((2, 3), dtype)),
            "bias": Array(np.ones(2, dtype)),
        }
    )


def train(message: Message, context: Context) -> Message:
    """Goes half of the way to 3, from wherever it is."""
    arrays = message.content.array_records["arrays"]
    trained = {n: Array((a.numpy() + np.float32(3)) / 2) for n, a in arrays.items()}
    return Message(RecordDict({"arrays": ArrayRecord(trained)}), reply_to=message)


def network(banks: Banks) -> GridInProcess:
    app = ClientApp(mods=[secure_aggregation_mod])
    app.train()(train)
    return banks.grid(app)


# -- which -----------------------------------------------------------------------------


@pytest.mark.parametrize("make", [flower.FedAvg, *STEPS])
def test_strategies_that_need_the_mean_are_taken(
    make: Callable[[], flower.FedAvg],
) -> None:
    strategy = make()
    assert check_strategy(strategy) is strategy


@pytest.mark.parametrize(
    ("strategy", "reason"),
    [
        (flower.FedMedian(), "FedMedian compares single updates"),
        (flower.FedTrimmedAvg(), "FedTrimmedAvg compares"),
        (flower.Krum(), "Krum compares"),
        (flower.MultiKrum(), "MultiKrum compares"),
        (flower.Bulyan(), "Bulyan compares"),
        (flower.QFedAvg(client_learning_rate=0.1), "QFedAvg weighs"),
        (flower.FedProx(proximal_mu=0.1), "FedProx sends"),
        (flower.FedXgbBagging(), "FedXgbBagging puts trees"),
        (
            flower.DifferentialPrivacyClientSideFixedClipping(
                flower.FedAvg(), 1.0, 1.0, 4
            ),
            "adds noise of its own",
        ),
        (flower.FedAvg(fraction_train=0.5), "fraction_train is 0.5"),
    ],
)
def test_others_are_refused_by_name(strategy: flower.Strategy, reason: str) -> None:
    with pytest.raises(UsageError, match=reason):
        SecureAggregation(strategy, home="unused")


def test_a_subclass_may_look_at_replies() -> None:
    class Own(flower.FedAvg):
        pass

    with pytest.raises(UsageError, match="Own may look at single replies"):
        check_strategy(Own())


# -- the inner step --------------------------------------------------------------------


def theirs(
    strategy: flower.FedAvg, replies: Sequence[Sequence[NDArray[Any]]]
) -> list[list[NDArray[Any]]]:
    """Flower alone, with two clients of equal weight around each mean."""
    grid = GridInProcess({n: Node(ClientApp()) for n in (1, 2)})
    arrays, out = start(), []
    for server_round, mean in enumerate(replies, 1):
        asked = list(
            strategy.configure_train(server_round, arrays, ConfigRecord(), grid)
        )
        came = []
        for message, way in zip(asked, (0.25, -0.25), strict=True):
            named = dict(zip(start(), [m + way for m in mean], strict=True))
            content = RecordDict(
                {
                    "arrays": ArrayRecord({n: Array(a) for n, a in named.items()}),
                    "metrics": MetricRecord({"num-examples": 5}),
                }
            )
            came.append(Message(content, reply_to=message))
        moved, _ = strategy.aggregate_train(server_round, came)
        assert moved is not None
        arrays = moved
        out.append(arrays.to_numpy_ndarrays())
    return out


MEANS = [
    [np.full((2, 3), 0.5, np.float32), np.full(2, 1.5, np.float32)],
    [np.full((2, 3), 1.25, np.float32), np.full(2, 0.5, np.float32)],
    [np.full((2, 3), 0.75, np.float32), np.full(2, -1.0, np.float32)],
]


def model_of(values: Sequence[NDArray[Any]]) -> GlobalModel:
    return GlobalModel(dict(zip(start(), values, strict=True)))


@pytest.mark.parametrize("make", STEPS)
def test_the_step_is_flowers_own(
    make: Callable[[], flower.FedAvg], tmp_path: Path
) -> None:
    ours = InnerStep(make(), start(), tmp_path)
    ours.restore(0)
    for place, (mean, expected) in enumerate(
        zip(MEANS, theirs(make(), MEANS), strict=True)
    ):
        moved = ours(place, model_of(mean))
        for got, wanted in zip(
            (moved.arrays[n] for n in start()), expected, strict=True
        ):
            np.testing.assert_allclose(got, wanted, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("make", STEPS)
def test_a_step_goes_on_after_a_crash(
    make: Callable[[], flower.FedAvg], tmp_path: Path
) -> None:
    whole = InnerStep(make(), start(), tmp_path / "whole")
    wanted = [whole(i, model_of(mean)).digest() for i, mean in enumerate(MEANS)]
    broken = InnerStep(make(), start(), tmp_path / "broken")
    broken(0, model_of(MEANS[0]))
    broken(1, model_of(MEANS[2]))  # of an attempt that was not recorded
    after = InnerStep(make(), start(), tmp_path / "broken")
    after.restore(1)
    got = [after(i, model_of(MEANS[i])).digest() for i in (1, 2)]
    assert got == wanted[1:]


def test_what_does_not_parse_is_no_state(tmp_path: Path) -> None:
    (tmp_path / "0.safetensors").write_bytes(b"half")
    with pytest.raises(EngineError, match="does not parse"):
        InnerStep(flower.FedAdam(), start(), tmp_path).restore(1)


def test_a_users_own_strategy_is_left_alone(tmp_path: Path) -> None:
    def metrics(replies: list[RecordDict], key: str) -> MetricRecord:
        raise AssertionError("there are no metrics")

    own = flower.FedAdam(train_metrics_aggr_fn=metrics)
    InnerStep(own, start(), tmp_path)(0, model_of(MEANS[0]))
    assert own.m_t is None
    assert own.train_metrics_aggr_fn is metrics


# -- whole runs ------------------------------------------------------------------------


def test_a_run_gives_what_flower_gives_and_verifies(tmp_path: Path) -> None:
    banks = found(tmp_path, plan_text(rounds=2))
    asked: list[tuple[int, str, float]] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> MetricRecord:
        weight = arrays["weight"]
        asked.append((server_round, weight.dtype, float(weight.numpy()[0, 0])))
        return MetricRecord({"mean": asked[-1][2], "all": [1, 2]})

    result = SecureAggregation(
        flower.FedAvg(), home=banks.aggregator, out=tmp_path / "out"
    ).start(
        network(banks), start("float64"), num_rounds=2, timeout=20, evaluate_fn=evaluate
    )
    assert [(r, kind) for r, kind, _ in asked] == [(i, "float64") for i in range(3)]
    assert [value for *_, value in asked] == pytest.approx([0, 1.5, 2.25], abs=1e-3)
    assert list(result.arrays) == ["weight", "bias"]
    assert list(result.evaluate_metrics_serverapp) == [0, 1, 2]
    assert result.train_metrics_clientapp == result.evaluate_metrics_clientapp == {}
    verified = sfl.verify_run(tmp_path / "out")
    assert set(verified.epsilon) == set(banks.plan.names)
    model = GlobalModel.load(tmp_path / "out" / "model.safetensors")
    assert model.digest() == from_arrays(result.arrays).digest()


@pytest.mark.parametrize(
    "protection",
    ['kind = "ckks"', pytest.param('kind = "masking"', marks=pytest.mark.long)],
)
def test_a_run_that_was_cut_off_goes_on_with_its_moments(
    tmp_path: Path, protection: str
) -> None:
    banks = found(tmp_path, plan_text(rounds=3, protection=protection))
    grid = network(banks)

    def once() -> Any:
        strategy = SecureAggregation(flower.FedAdam(eta=0.5), home=banks.aggregator)
        return strategy.start(
            grid, start(), num_rounds=3, timeout=20, evaluate_fn=evaluate
        )

    crashes = [2]
    rounds: list[int] = []

    def evaluate(server_round: int, arrays: ArrayRecord) -> None:
        rounds.append(server_round)
        if server_round in crashes:
            crashes.clear()
            raise RuntimeError("the machine went down")

    with pytest.raises(RuntimeError):
        once()
    result = once()
    assert rounds == [0, 1, 2, 0, 3]
    (out,) = (banks.aggregator / "results").iterdir()
    sfl.verify_run(out)
    # The same rounds by hand: every client goes half of the way to 3.
    by_hand = InnerStep(flower.FedAdam(eta=0.5), start(), tmp_path / "by hand")
    model = from_arrays(start())
    for place in range(3):
        model = by_hand(place, model.add((3 - model.flatten()) / 2))
    np.testing.assert_allclose(
        from_arrays(result.arrays).flatten(), model.flatten(), atol=1e-2
    )
    with pytest.raises(UsageError, match="is finished"):
        once()


def test_a_network_that_repeats_and_reorders_changes_nothing(tmp_path: Path) -> None:
    banks = found(tmp_path, plan_text(rounds=1))
    grid = network(banks)
    late: list[Message] = []

    def replying(node: int, reply: Message) -> Sequence[Message]:
        """Nothing in time, then first answers from the last to the first, and all that
        was ever said, once more."""
        late.append(reply)
        if node < max(grid.nodes) or len(late) % 2:
            return []
        return [*reversed(late[::2]), *late]

    grid.requesting = lambda node, request: [request, request]
    grid.replying = replying
    strategy = SecureAggregation(flower.FedAvg(), home=banks.aggregator)
    result = strategy.start(grid, start(), num_rounds=1, timeout=20)
    np.testing.assert_allclose(result.arrays["weight"].numpy(), 1.5, atol=1e-3)
    (out,) = (banks.aggregator / "results").iterdir()
    sfl.verify_run(out)
    report = json.loads((out / "report.json").read_text())
    assert report["failures"] == []


# -- before anybody is asked -----------------------------------------------------------


def test_calls_that_cannot_be_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SECURE_FL_HOME", raising=False)
    banks = found(tmp_path, plan_text(rounds=2))
    grid = network(banks)
    with pytest.raises(UsageError, match="no home"):
        SecureAggregation(flower.FedAvg())
    monkeypatch.setenv("SECURE_FL_HOME", str(banks.aggregator))
    strategy = SecureAggregation(flower.FedAvg())
    with pytest.raises(UsageError, match="num_rounds is 3, and the plan says 2"):
        strategy.start(grid, start())
    with pytest.raises(UsageError, match="not reach the clients: lr") as caught:
        strategy.start(
            grid, start(), num_rounds=2, train_config=ConfigRecord({"lr": 0.1})
        )
    assert "run_config" in caught.value.hint
    with pytest.raises(UsageError, match="holds int64"):
        strategy.start(
            grid, ArrayRecord({"n": Array(np.zeros(1, np.int64))}), num_rounds=2
        )
    parts: list[Callable[[], object]] = [
        lambda: strategy.configure_train(1, start(), ConfigRecord(), grid),
        lambda: strategy.aggregate_train(1, []),
        lambda: strategy.configure_evaluate(1, start(), ConfigRecord(), grid),
        lambda: strategy.aggregate_evaluate(1, []),
    ]
    for part in parts:
        with pytest.raises(UsageError, match="is not one exchange"):
            part()
    (banks.aggregator / "plan.toml").write_text(plan_text(rounds=2))
    with pytest.raises(UsageError, match="not complete"):
        strategy.start(grid, start(), num_rounds=2)
    assert grid.sent == []


def test_a_distributed_plan_steps_by_itself(tmp_path: Path) -> None:
    text = plan_text(rounds=1)
    text = text.replace('mode = "local"', 'mode = "distributed"')
    text = text.replace("local_steps = 2", "local_steps = 1")
    text = text.replace("epsilon = 8.0", "epsilon = 60.0")
    text += 'values = 8\n\n[training]\nway = "opacus"\nlearning_rate = 1.0\n'
    banks = found(tmp_path, text)
    app = ClientApp(mods=[secure_aggregation_mod])

    @app.train()
    def train(message: Message, context: Context) -> Message:
        model = nn.Linear(3, 2)
        arrays = message.content.array_records["arrays"]
        model.load_state_dict(arrays.to_torch_state_dict())
        data = TensorDataset(torch.randn(40, 3), torch.ones(40, dtype=torch.long))
        update = client_round().gradient_sum(
            model, DataLoader(data), nn.CrossEntropyLoss()
        )
        return private_reply(update)

    grid = banks.grid(app)
    strategy = SecureAggregation(flower.FedAdam(), home=banks.aggregator)
    with pytest.raises(PlanError, match=r"privacy.mode: has steps of its own"):
        strategy.start(grid, start(), num_rounds=1)
    assert grid.sent == []
    strategy = SecureAggregation(flower.FedAvg(), home=banks.aggregator)
    result = strategy.start(grid, start(), num_rounds=1, timeout=20)
    low, high = result.arrays["bias"].numpy()
    assert low < 1 < high  # all records are of the second class
    (out,) = (banks.aggregator / "results").iterdir()
    sfl.verify_run(out)


def test_another_start_than_the_plans_is_refused(tmp_path: Path) -> None:
    banks = found(tmp_path, plan_text(rounds=1), start_sha256="0" * 64)
    grid = network(banks)
    with pytest.raises(PlanError, match="another model"):
        SecureAggregation(flower.FedAvg(), home=banks.aggregator).start(
            grid, start(), num_rounds=1
        )
    assert grid.sent == []
