# SPDX-License-Identifier: Apache-2.0
"""The installed program as a process: version, debugging, Ctrl-C, a closed pipe."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

import secure_fl

from .support import call, plan_text

PROGRAM = str(Path(sys.executable).parent / "secure-fl")


def start(*args: str) -> subprocess.Popen[str]:
    """The program as from a shell: Ctrl-C reaches it even where ours is ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(
            [PROGRAM, *args],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("desk")
def test_version() -> None:
    process = start("--version")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, err) == (0, "")
    assert out == f"secure-fl, version {secure_fl.__version__}\n"


@pytest.mark.usefixtures("desk")
def test_a_traceback_only_on_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SECURE_FL_DEBUG", "1")
    process = start("plan", "check", "none.toml")
    out, err = process.communicate(timeout=60)
    assert (process.returncode, out) == (2, "")
    assert "Traceback (most recent call last)" in err
    assert "PlanError" in err
    assert "\nsecure-fl: error: cannot read none.toml" in err
    assert "\nsecure-fl: hint: " in err


def test_ctrl_c_and_on(desk: Path) -> None:
    """Interrupted in the middle of a run, which then goes on to a verified end."""
    (desk / "long.toml").write_text(
        plan_text(rounds=12, noise_multiplier=5.0, epsilon=30.0)
    )
    process = start("run", "long.toml", "--out", "new")
    try:
        deadline = time.monotonic() + 60
        while not (desk / "new" / "plan.toml").exists():
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.01)
        time.sleep(0.3)
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=60)
    finally:
        process.kill()
    assert (process.returncode, out) == (130, ""), err
    said = err.strip().splitlines()
    assert said[0] == "secure-fl: error: interrupted"
    assert len(said) == 2
    assert said[1].startswith("secure-fl: hint: ")
    assert "--resume" in said[1]
    assert call("verify", "new").code == 1

    assert call("run", "long.toml", "--out", "new", "--resume").code == 0
    assert call("verify", "new", "--plan", "long.toml").code == 0


def test_a_reader_that_has_seen_enough(desk: Path, out: Path) -> None:
    process = start("report", str(out), "--format", "html")
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.read(10)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait(timeout=60) == 0
