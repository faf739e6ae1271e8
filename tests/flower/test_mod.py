# SPDX-License-Identifier: Apache-2.0
"""The client's side: what a train function gets, and what of it ever leaves."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable
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
    Error,
    Message,
    MetricRecord,
    RecordDict,
)
from flwr.clientapp import ClientApp
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from secure_fl.engines.flower import (
    SecureAggregation,
    SecureAggregationMod,
    client_round,
    private_reply,
    secure_aggregation_mod,
)
from secure_fl.engines.flower.models import difference, from_arrays, to_arrays
from secure_fl.engines.flower.records import from_records, is_parcel, to_records
from secure_fl.engines.requests import Parcel, Reply
from secure_fl.errors import EngineError, SecureFLError, TooFewClients, UsageError
from secure_fl.model import GlobalModel
from secure_fl.privacy import unprotected

from .consortium import Banks, found, plan_text
from .grid_in_process import GridInProcess, Node

Function = Callable[[Message, Context], Message]


def start() -> ArrayRecord:
    return ArrayRecord({"weight": Array(np.zeros((2, 3), np.float32))})


def app_of(function: Function, mod: SecureAggregationMod | None = None) -> ClientApp:
    app = ClientApp(mods=[mod or secure_aggregation_mod])
    app.train()(function)
    return app


def plain(message: Message, context: Context) -> Message:
    """A train function that knows nothing of us: adds 1 to every value."""
    arrays = message.content.array_records["arrays"]
    trained = {n: Array(a.numpy() + np.float32(1)) for n, a in arrays.items()}
    content = RecordDict(
        {
            "arrays": ArrayRecord(trained),
            "metrics": MetricRecord({"num-examples": 40, "loss": 0.25}),
        }
    )
    return Message(content, reply_to=message)


def run(banks: Banks, grid: GridInProcess, **entries: Any) -> Any:
    from flwr.serverapp.strategy import FedAvg

    strategy = SecureAggregation(FedAvg(), home=banks.aggregator)
    return strategy.start(
        grid, start(), num_rounds=banks.plan.rounds.count, timeout=20, **entries
    )


@pytest.fixture
def banks(tmp_path: Path) -> Banks:
    return found(tmp_path, plan_text(rounds=1))


def report_of(banks: Banks) -> Any:
    (folder,) = (banks.aggregator / "results").iterdir()
    return json.loads((folder / "report.json").read_text())


# -- what comes, and what leaves -------------------------------------------------------


def test_three_that_train_without_privacy_beside_one_with_it(banks: Banks) -> None:
    """Four banks, four apps: what each is given, and what of it leaves."""
    got: dict[str, RecordDict] = {}
    raised: list[UsageError] = []

    def looking(message: Message, context: Context) -> Message:
        got["plain"] = message.content
        assert message.metadata.message_type == "train"
        assert message.metadata.dst_node_id == context.node_id
        return plain(message, context)

    def other_keys(message: Message, context: Context) -> Message:
        got["keys"] = message.content
        trained = {
            n: Array(a.numpy() + np.float64(1))
            for n, a in message.content.array_records["model"].items()
        }
        return Message(RecordDict({"back": ArrayRecord(trained)}), reply_to=message)

    def in_a_thread(message: Message, context: Context) -> Message:
        def ask() -> None:
            try:
                client_round()
            except UsageError as error:
                raised.append(error)

        thread = threading.Thread(target=ask)
        thread.start()
        thread.join()
        return plain(message, context)

    keys = SecureAggregationMod(arrayrecord_key="model", configrecord_key="settings")
    apps = [
        app_of(looking),
        app_of(other_keys, keys),
        app_of(in_a_thread),
        app_of(private_train),
    ]
    grid = banks.grid(lambda name: apps[banks.plan.names.index(name)])
    result = run(banks, grid)

    assert all(m.has_content() and is_parcel(m.content) for m in grid.replies)
    assert all(m.has_content() and is_parcel(m.content) for m in grid.sent)
    assert result.train_metrics_clientapp == {}
    assert np.abs(result.arrays["weight"].numpy()).max() > 0.7
    assert set(got["plain"]) == {"arrays", "config"}
    assert got["plain"].config_records["config"] == {"server-round": 1}
    (array,) = got["plain"].array_records["arrays"].values()
    assert (array.dtype, array.shape) == ("float32", (2, 3))
    assert set(got["keys"]) == {"model", "settings"}
    assert len(raised) == 1
    assert "in its own thread" in raised[0].hint
    report = report_of(banks)
    assert report["claims"][0]["consortium"]["epsilon"] == "infinity"
    assert not report["simulation"]


@pytest.mark.parametrize("kind", ["train", "evaluate", "query", "train.own"])
def test_every_other_message_is_refused_and_reaches_no_function(
    banks: Banks, kind: str
) -> None:
    called: list[str] = []

    def own(message: Message, context: Context) -> Message:
        called.append(message.metadata.message_type)
        return plain(message, context)

    app = app_of(own)
    app.evaluate()(own)
    app.query()(own)
    app.train("own")(own)
    grid = banks.grid(app)
    content = RecordDict({"arrays": start(), "config": ConfigRecord()})
    (reply,) = grid.send_and_receive([Message(content, 100, kind)])
    assert reply.has_error()
    assert reply.error.reason == "this client answers secure aggregation only"
    assert called == []


def test_a_parcel_that_nobody_signed_changes_nothing(banks: Banks) -> None:
    grid = banks.grid(app_of(plain))
    for records in (to_records(Parcel(b"x")), to_records(Parcel(b"x", (b"y",)))):
        records["more"] = ConfigRecord()
        (reply,) = grid.send_and_receive([Message(records, 100, "train")])
        assert reply.has_error()
        del records["more"]
        (reply,) = grid.send_and_receive([Message(records, 100, "train")])
        assert is_parcel(reply.content)


def test_a_client_without_a_home_says_no_more_than_that(
    banks: Banks, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.delenv("SECURE_FL_HOME", raising=False)
    grid = GridInProcess({100: Node(app_of(plain))})
    message = Message(to_records(Parcel(b"x")), 100, "train")
    (reply,) = grid.send_and_receive([message])
    assert reply.error.reason == "this client cannot answer: UsageError"
    assert "secure-fl-home" in caplog.text
    monkeypatch.setenv("SECURE_FL_HOME", str(banks.homes["bank-0"].folder))
    (reply,) = grid.send_and_receive([message])
    assert is_parcel(reply.content)


# -- a train function that is wrong ----------------------------------------------------


def _returning(arrays: dict[str, Any]) -> Function:
    def train(message: Message, context: Context) -> Message:
        record = ArrayRecord({n: Array(np.asarray(a)) for n, a in arrays.items()})
        return Message(RecordDict({"arrays": record}), reply_to=message)

    return train


def _two(message: Message, context: Context) -> Message:
    return Message(RecordDict({"a": start(), "b": start()}), reply_to=message)


def _raising(message: Message, context: Context) -> Message:
    raise ValueError("patient 17 has no label")


def _nothing(message: Message, context: Context) -> Any:
    return None


def _error(message: Message, context: Context) -> Message:
    return Message(Error(0, "no data"), reply_to=message)


def _asking(message: Message, context: Context) -> Message:
    assert client_round().round == 0
    return plain(message, context)


def _other(message: Message, context: Context) -> Message:
    return private_reply(unprotected(np.zeros(6), reason="x"))  # type: ignore[arg-type]


def _both(message: Message, context: Context) -> Message:
    private_train(message, context)
    return plain(message, context)


def _begun(context: Context) -> None:
    client_round().make_private(
        nn.Linear(3, 3),
        torch.optim.SGD([torch.zeros(1, requires_grad=True)]),
        DataLoader(TensorDataset(torch.zeros(2, 3))),
        nn.CrossEntropyLoss(),
    )


def _caught(message: Message, context: Context) -> Message:
    """Begins a private round, fails in it, and falls back to plain arrays."""
    with contextlib.suppress(SecureFLError):
        _begun(context)
    return plain(message, context)


WRONG: list[tuple[Function, str]] = [
    (_returning({"other": np.zeros((2, 3))}), "not in the model, or missing"),
    (_returning({"weight": np.zeros((3, 2))}), "has shape"),
    (_returning({"weight": np.zeros((2, 3), np.int64)}), "holds int64"),
    (_returning({"weight": np.full((2, 3), np.nan)}), "not finite"),
    (_two, "2 array records"),
    (_raising, "patient 17"),
    (_nothing, "NoneType"),
    (_error, "returned an error"),
    (_asking, "returned plain arrays"),
    (_other, "holds a PrivateUpdate, not Unprotected"),
    (_both, "a private reply was made, and another one returned"),
    (_caught, "returned plain arrays"),
]


@pytest.mark.parametrize("first", [0, 4, 8])
def test_a_wrong_train_function_is_a_dropout_with_its_reason_at_home(
    banks: Banks, first: int, caplog: pytest.LogCaptureFixture
) -> None:
    """Four banks, each wrong in another way: nothing is opened, and little said."""
    wrong = WRONG[first : first + 4]
    grid = banks.grid(lambda name: app_of(wrong[banks.plan.names.index(name)][0]))
    with pytest.raises(TooFewClients):
        run(banks, grid)
    for _, reason in wrong:
        assert reason in caplog.text
    failures = [
        reply.failure
        for m in grid.replies
        if (reply := Reply.of(from_records(m.content))).failure is not None
    ]
    assert {(f.kind, f.reason) for f in failures} == {("engine", "EngineError")}
    assert len(failures) == 4 * banks.plan.rounds.max_attempts


# -- private training ------------------------------------------------------------------


def private_train(message: Message, context: Context) -> Message:
    model = nn.Linear(3, 2, bias=False)
    arrays = message.content.array_records["arrays"]
    model.load_state_dict(arrays.to_torch_state_dict())
    x = torch.randn(40, 3)
    data = TensorDataset(x, (x[:, 0] > 0).long())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
    private = client_round().make_private(
        model, optimizer, DataLoader(data), nn.CrossEntropyLoss()
    )
    for inputs, labels in private.loader:
        private.optimizer.zero_grad()
        private.criterion(private.model(inputs), labels).backward()
        private.optimizer.step()
    return private_reply(private.update())


def _twice(message: Message, context: Context) -> Message:
    reply = private_train(message, context)
    with pytest.raises(UsageError, match="called a second time"):
        _begun(context)
    return reply


def test_private_updates_have_an_epsilon(banks: Banks) -> None:
    odd = {"bank-2": app_of(_twice)}
    private = app_of(private_train)
    grid = banks.grid(lambda name: odd.get(name, private))
    result = run(banks, grid)
    assert np.abs(result.arrays["weight"].numpy()).max() > 0
    assert 0 < report_of(banks)["claims"][0]["consortium"]["epsilon"] < 8
    assert all(is_parcel(m.content) for m in grid.replies)


def test_outside_of_a_train_function_there_is_no_round() -> None:
    with pytest.raises(UsageError, match="no round"):
        client_round()


# -- arrays ----------------------------------------------------------------------------


def test_a_list_of_arrays_keeps_its_places() -> None:
    arrays = [np.full(2, i, np.float32) for i in range(12)]
    back = to_arrays(from_arrays(ArrayRecord(arrays))).to_numpy_ndarrays()
    assert [a[0] for a in back] == list(range(12))


def test_types_and_order_are_given_back() -> None:
    given = ArrayRecord({"b": Array(np.ones(2)), "a": Array(np.ones(1, np.float16))})
    model = from_arrays(given)
    back = to_arrays(model, types={n: a.dtype for n, a in given.items()})
    assert [(n, a.dtype) for n, a in back.items()] == [
        ("b", "float64"),
        ("a", "float16"),
    ]
    assert list(to_arrays(model)) == ["a", "b"]


def test_counters_are_refused_by_name() -> None:
    layer = nn.BatchNorm1d(2)
    with pytest.raises(UsageError, match="num_batches_tracked holds int64") as caught:
        from_arrays(ArrayRecord(layer.state_dict()))
    assert "strict=False" in caught.value.hint


def test_the_difference_is_in_the_models_order() -> None:
    model = GlobalModel(
        {"b": np.ones(2, np.float32), "a": np.zeros((1, 2), np.float32)}
    )
    after = ArrayRecord({"b": Array(np.full(2, 3.0)), "a": Array(np.full((1, 2), 0.5))})
    np.testing.assert_array_equal(difference(after, model), [0.5, 0.5, 2.0, 2.0])


def test_foreign_bytes_are_no_array() -> None:
    model = GlobalModel({"a": np.zeros(1, np.float32)})
    for array in (
        Array(dtype="float32", shape=(1,), stype="other", data=b"1234"),
        Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=b"1234"),
        Array(dtype="float32", shape=(1,), stype="numpy.ndarray", data=b""),
    ):
        with pytest.raises(UsageError, match="not a NumPy array"):
            difference(ArrayRecord({"a": array}), model)


def test_an_update_that_is_too_large_for_floats_is_not_sent() -> None:
    model = GlobalModel({"a": np.zeros(1, np.float32)})
    after = ArrayRecord({"a": Array(np.array([np.inf]))})
    with pytest.raises(EngineError, match="not finite"):
        difference(after, model)
