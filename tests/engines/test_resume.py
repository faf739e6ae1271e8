# SPDX-License-Identifier: Apache-2.0
"""kill -9 between any two writes: nothing finished is charged twice, nothing begun is
forgotten, and the run goes on."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import secure_fl as sfl
from secure_fl.engines.state import RunState
from secure_fl.errors import PlanError, UsageError

from .support import NAMES, plan, start, trainers

SPAWN = multiprocessing.get_context("forkserver")
SPAWN.set_forkserver_preload(
    [
        "tests.engines.support",
        "secure_fl.engines.embedded",
        "dp_accounting.pld.privacy_loss_distribution",
        "dp_accounting.rdp",
        "secure_fl.training.client_round",
        "secure_fl.training.head",
        "secure_fl.report.pictures",
        "jinja2",
        "matplotlib.backends.backend_svg",
    ]
)


class _Killer:
    """Counts durable writes, before and after each, and kills the process at one."""

    def __init__(self, at: int) -> None:
        self.at = at
        self.count = 0

    def tick(self) -> None:
        self.count += 1
        if self.count == self.at:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            self.tick()
            result = call(*args, **kwargs)
            self.tick()
            return result

        return wrapped

    def install(self) -> None:
        from secure_fl.engines import rounds, state
        from secure_fl.keystore import DiskKeystore
        from secure_fl.privacy import Ledger

        for owner, names in (
            (Ledger, ("reserve", "sent", "released", "aborted")),
            (DiskKeystore, ("begin",)),
            (state.RunState, ("save", "remove")),
            (rounds, ("write_durably",)),
        ):
            for name in names:
                setattr(owner, name, self.around(getattr(owner, name)))


def _child(folder: str, resume: bool, at: int, answer: Any) -> None:
    import torch

    torch.set_num_threads(1)
    os.environ["XDG_STATE_HOME"] = f"{folder}/state"
    killer = _Killer(at)
    killer.install()
    sfl.run(
        plan(spare=8, epsilon=20.0),
        trainers(),
        model=start(),
        out=f"{folder}/out",
        resume=resume,
    )
    answer.put(killer.count)


def _run(folder: Path, *, resume: bool, at: int = 0) -> int | None:
    """The number of writes, or None where the process was killed."""
    answer: Any = SPAWN.Queue()
    process = SPAWN.Process(
        target=_child, args=(str(folder), resume, at, answer), daemon=True
    )
    process.start()
    process.join(120)
    if process.exitcode == -signal.SIGKILL:
        return None
    assert process.exitcode == 0
    count: int = answer.get(timeout=10)
    return count


def _killed_then_resumed(folder: Path, at: int) -> None:
    out = folder / "out"
    assert _run(folder, resume=False, at=at) is None
    if not (out / "plan.toml").exists():
        assert not out.exists() or not any(out.iterdir())
        _run(folder, resume=False)
    elif (out / "transcript.cbor").exists():
        pass  # killed after the last file was in place: the run is finished
    else:
        _run(folder, resume=True)
    verified = sfl.verify_run(out)
    assert len(verified.epsilon) == len(NAMES)
    report = sfl.Report(_json(out / "report.json"))
    for rows in report.data["releases"].values():
        released = [r["round"] for r in rows if r["state"] == "released"]
        charged = [r for r in rows if r["charged"]]
        assert sorted(set(released)) == [0, 1], "a round is missing"
        # One kill costs at most one more release, and never hides one.
        assert 2 <= len(charged) <= 3
        assert len({(r["round"], r["attempt"]) for r in charged}) == len(charged)


def _json(path: Path) -> dict[str, Any]:
    import json

    data: dict[str, Any] = json.loads(path.read_text())
    return data


@pytest.fixture(scope="module")
def writes(tmp_path_factory: pytest.TempPathFactory) -> int:
    """How many moments there are to kill a run at."""
    count = _run(tmp_path_factory.mktemp("whole"), resume=False)
    assert count is not None
    assert count > 50
    return count


def test_kill_between_writes(writes: int, tmp_path: Path) -> None:
    for i in range(6):
        at = 1 + (writes - 1) * i // 5
        folder = tmp_path / str(at)
        folder.mkdir()
        _killed_then_resumed(folder, at)


@pytest.mark.long
def test_kill_between_any_two_writes(writes: int, tmp_path: Path) -> None:
    for at in range(1, writes + 1):
        folder = tmp_path / str(at)
        folder.mkdir()
        _killed_then_resumed(folder, at)


def test_what_is_not_unfinished_is_not_resumed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="no run to continue"):
        sfl.run(plan(), trainers(), model=start(), out=out, resume=True)
    sfl.run(plan(), trainers(), model=start(), out=out)
    with pytest.raises(UsageError, match="is finished"):
        sfl.run(plan(), trainers(), model=start(), out=out, resume=True)
    assert not any((tmp_path / "state").rglob("*.pem")), "throw-away keys were kept"
    (out / "transcript.cbor").unlink()
    with pytest.raises(UsageError, match="no unfinished run"):
        sfl.run(plan(), trainers(), model=start(), out=out, resume=True)


def test_another_plan_does_not_continue_a_run(tmp_path: Path) -> None:
    sfl.run(plan(), trainers(), model=start(), out=tmp_path / "out")
    (tmp_path / "out" / "transcript.cbor").unlink()
    with pytest.raises(PlanError, match="not the plan"):
        sfl.run(
            plan(epsilon=5.9),
            trainers(),
            model=start(),
            out=tmp_path / "out",
            resume=True,
        )


def test_one_process_at_a_time_goes_on(
    writes: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    assert _run(tmp_path, resume=False, at=writes // 2) is None
    out = tmp_path / "out"
    run_id = sfl.load_plan(out / "plan.toml").run_id
    assert run_id is not None

    def go_on() -> None:
        sfl.run(
            plan(spare=8, epsilon=20.0),
            trainers(),
            model=start(),
            out=out,
            resume=True,
        )

    with (
        RunState.at(run_id, home=None, out=out).locked(),
        pytest.raises(UsageError, match="another process"),
    ):
        go_on()
    go_on()
    sfl.verify_run(out)


def test_another_roster_does_not_continue_a_run(tmp_path: Path) -> None:
    sfl.run(plan(), trainers(), model=start(), out=tmp_path / "out")
    (tmp_path / "out" / "transcript.cbor").unlink()
    others = ("clinic-a", "clinic-b", "clinic-x")
    with pytest.raises(PlanError, match="not the plan"):
        sfl.run(
            plan(names=others),
            trainers(others),
            model=start(),
            out=tmp_path / "out",
            resume=True,
        )
