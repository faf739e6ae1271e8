# SPDX-License-Identifier: Apache-2.0
"""The figures of training: complete and plausible.  How fast it is, no test says."""

from __future__ import annotations

import functools
import importlib.util
import operator
import time
from collections.abc import Callable, Mapping
from dataclasses import fields
from typing import Any

import pytest
import torch
from torch import nn

from secure_fl.engines import bench_train as bench
from secure_fl.engines.bench_apart import Apart, Loop, in_turn
from secure_fl.engines.bench_train import WAYS, TrainFigures, bench_train
from secure_fl.errors import UsageError
from secure_fl.training.bench import head_loop
from secure_fl.training.client_round import ClientRound

from ..cli.support import call

SMALL = {"features": 6, "classes": 3, "records": 40, "rate": 0.5, "steps": 2}
ARGS = (
    *("--features", "6", "--classes", "3", "--records", "40"),
    *("--rate", "0.5", "--steps", "2", "--threads", "1", "--repeats", "2"),
)


def loop(call: Any, *arguments: Any) -> Any:
    """What makes a loop whose run is ``call(*arguments)``, and can be pickled."""
    return functools.partial(
        functools.partial, functools.partial, functools.partial, call, *arguments
    )()


# -- a process for each, in turn -------------------------------------------------------


def test_a_loops_time_and_memory_are_its_own() -> None:
    told: list[int] = []
    size = 50_000_000
    taken = in_turn(
        {"waits": loop(time.sleep, 0.5), "holds": loop(operator.mul, b"x", size)},
        turns=3,
        turned=lambda: told.append(len(told)),
    )
    assert list(taken) == ["waits", "holds"]
    assert told == list(range(2 * (1 + 3)))
    assert {len(each.cpu_seconds) for each in taken.values()} == {3}
    assert 0 < max(taken["waits"].cpu_seconds) < 0.25, "to wait takes no CPU time"
    assert min(taken["holds"].cpu_seconds) > 0
    # Pages are 4 KiB, and a counter of pages may lag behind by some dozens.
    assert size * 0.99 < taken["holds"].peak_bytes < size * 1.1
    assert 0 <= taken["waits"].peak_bytes < size / 10


def test_a_ratio_is_the_median_of_the_turns_own() -> None:
    """Not that of the medians, 4 here: both of a turn ran on the same machine."""
    assert Apart((2.0, 4.0, 40.0), 0).over(Apart((1.0, 1.0, 20.0), 0)) == 2
    with pytest.raises(ValueError, match="shorter"):
        Apart((2.0, 4.0), 0).over(Apart((1.0,), 0))


def test_what_a_loop_raises_is_raised() -> None:
    with pytest.raises(ZeroDivisionError):
        in_turn({"fails": loop(operator.truediv, 1, 0)}, turns=1)


# -- the ways --------------------------------------------------------------------------


def count(
    monkeypatch: pytest.MonkeyPatch, owner: type, method: str, calls: list[str]
) -> None:
    """Note every call of ``method`` in ``calls``."""
    plain = getattr(owner, method)

    def noting(*args: Any, **kwargs: Any) -> Any:
        calls.append(method)
        return plain(*args, **kwargs)

    monkeypatch.setattr(owner, method, noting)


@pytest.mark.parametrize("way", WAYS)
def test_a_way_takes_its_steps(way: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as asked for; the model moves with each, or the round makes a sum."""
    calls: list[str] = []
    ready = head_loop(way, **SMALL, threads=1)  # type: ignore[arg-type]
    count(monkeypatch, torch.optim.SGD, "step", calls)
    count(monkeypatch, ClientRound, "gradient_sum", calls)
    for _ in range(2):
        run = ready()
        assert not calls  # nothing is trained that is not timed
        run()
        assert calls == ["gradient_sum" if way == "gradient_sum" else "step"] * 2
        calls.clear()


@pytest.mark.parametrize("batch", [7, 10])
def test_plain_batches_go_over_the_records(
    batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole batches of one size, no record twice in an epoch."""
    seen: list[torch.Tensor] = []
    forward = nn.Linear.forward

    def noting(layer: nn.Linear, inputs: torch.Tensor) -> torch.Tensor:
        seen.append(inputs.clone())
        return forward(layer, inputs)

    ready = head_loop(
        "plain",
        features=6,
        classes=3,
        records=40,
        rate=batch / 40,
        steps=2 * (40 // batch),
        threads=1,
    )
    monkeypatch.setattr(nn.Linear, "forward", noting)
    ready()()
    assert {len(rows) for rows in seen} == {batch}
    for epoch in (seen[: 40 // batch], seen[40 // batch :]):
        records = torch.cat(epoch)
        assert (
            len(set(map(tuple, records.tolist())))
            == len(records)
            == 40 // batch * batch
        )


# -- the verb --------------------------------------------------------------------------


def check(told: dict[str, Any]) -> None:
    assert list(told) == [field.name for field in fields(TrainFigures)]
    assert (told["features"], told["classes"], told["records"]) == (6, 3, 40)
    assert (told["batch"], told["steps"], told["threads"]) == (20, 2, 1)
    assert told["repeats"] == 2
    seconds, peak = told["cpu_seconds"], told["peak_bytes"]
    assert tuple(seconds) == tuple(peak) == WAYS
    assert 0 < min(seconds.values()) <= max(seconds.values()) < 60
    assert 0 <= min(peak.values()) <= max(peak.values()) < 2**30
    assert 0 < told["dp_over_plain"] < 1000
    assert 0 < told["opacus_over_dp"] < 1000


class Here:
    """``in_turn`` without its processes, which import for half a minute."""

    taken: Mapping[str, Apart]

    def __call__(
        self,
        loops: Mapping[str, Callable[[], Loop]],
        *,
        turns: int,
        turned: Callable[[], None],
    ) -> dict[str, Apart]:
        taken = {}
        for name, make in loops.items():
            ready = make()
            seconds = []
            for _ in range(1 + turns):
                run = ready()
                begin = time.process_time()
                run()
                seconds.append(time.process_time() - begin)
                turned()
            taken[name] = Apart(tuple(seconds[1:]), 0)
        self.taken = taken
        return taken


def test_the_verb(monkeypatch: pytest.MonkeyPatch) -> None:
    here = Here()
    monkeypatch.setattr(bench, "in_turn", here)
    told = call("bench", "train", *ARGS, "--json")
    assert (told.code, told.err) == (0, "")
    check(told.json)
    taken = here.taken
    assert told.json["dp_over_plain"] == taken["head"].over(taken["plain"])
    assert told.json["opacus_over_dp"] == taken["opacus"].over(taken["head"])
    shown = call("bench", "train", *ARGS)
    assert (shown.code, shown.err) == (0, "")
    assert [line.split()[0] for line in shown.out.splitlines()] == [
        *list(told.json)[:-2],
        *(f"cpu_seconds.{way}" for way in WAYS),
        *(f"peak_bytes.{way}" for way in WAYS),
    ]


@pytest.mark.long
def test_the_verb_with_its_processes() -> None:
    told = call("bench", "train", *ARGS, "--json")
    assert (told.code, told.err) == (0, "")
    check(told.json)


def test_the_verb_refuses_what_cannot_be_trained() -> None:
    for wrong in (
        ("--features", "0"),
        ("--classes", "1"),
        ("--records", "0"),
        ("--rate", "0"),
        ("--rate", "1.1"),
        ("--steps", "0"),
        ("--threads", "0"),
        ("--repeats", "0"),
    ):
        answer = call("bench", "train", *wrong)
        assert answer.code == 2
        assert answer.out == ""
        assert wrong[0] in answer.errors[0]


@pytest.mark.parametrize("missing", ["torch", "opacus"])
def test_without_what_trains(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == missing else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(UsageError):
        bench_train(**SMALL, threads=1, repeats=1)  # type: ignore[arg-type]
    answer = call("bench", "train", *ARGS)
    assert answer.code == 2
    assert f"training needs {missing}, which is not installed" in answer.errors[0]
    assert "pip install 'secure-fl[train]'" in answer.hints[0]
