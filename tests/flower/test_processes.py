# SPDX-License-Identifier: Apache-2.0
"""No process outlives what started it: told with plain shells."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from .processes import Daemon, Member, family


def wait_for(condition: Callable[[], bool], *, timeout: float = 30) -> None:
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def shell(folder: Path, script: str) -> Daemon:
    env = {"PATH": os.environ["PATH"]}
    return Daemon(["sh", "-c", script], env=env, cwd=folder, log=folder / "log")


def test_descendants_end_wherever_they_went(tmp_path: Path) -> None:
    """One left the session; both outlive a kill -9 of their parent."""
    daemon = shell(tmp_path, "setsid sleep 600 & sleep 600 & wait")
    daemon.start()
    try:
        wait_for(lambda: [x.command for x in daemon.family()].count("sleep 600") == 2)
        parent, *children = daemon.family()
        daemon.kill()
        assert [parent.alive, *(x.alive for x in children)] == [False, True, True]
        assert not daemon.running
    finally:
        daemon.end()
    assert not any(x.alive for x in children)


def test_a_daemon_starts_again_and_its_log_goes_on(tmp_path: Path) -> None:
    daemon = shell(tmp_path, "echo up; exec sleep 600")
    try:
        assert daemon.start() == 0
        wait_for(lambda: daemon.said() == "up\n")
        assert daemon.stop() == -15
        begin = daemon.start()
        wait_for(lambda: daemon.said(begin) == "up\n")
        assert daemon.said() == "up\nup\n"
    finally:
        daemon.end()
    daemon.end()  # nothing is left to do


def test_a_number_that_is_used_again_is_another_process() -> None:
    (me, *_) = family(os.getpid())
    assert me.alive
    assert not Member(me.pid, me.started + 1).alive


def test_nothing_outlives_a_tester_who_is_killed(tmp_path: Path) -> None:
    script = f"""
import sys, time
from pathlib import Path
from tests.flower.processes import Daemon
daemon = Daemon(["sleep", "600"], env={{"PATH": {os.environ["PATH"]!r}}},
                cwd=Path({str(tmp_path)!r}), log=Path({str(tmp_path / "log")!r}))
daemon.start()
print(daemon.pid, flush=True)
time.sleep(600)
"""
    root = Path(__file__).parents[2]
    tester = subprocess.Popen(
        [sys.executable, "-c", script], cwd=root, stdout=subprocess.PIPE, text=True
    )
    try:
        assert tester.stdout is not None
        (sleeper,) = family(int(tester.stdout.readline()))
        assert sleeper.alive
    finally:
        tester.kill()
        tester.communicate()
    wait_for(lambda: not sleeper.alive)
