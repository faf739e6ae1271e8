# SPDX-License-Identifier: Apache-2.0
"""Processes with children of their own, none of which outlives a test.

A Flower daemon starts others (superexec, and behind it one process per message), and
some of them leave its process group.  So a family is what the kernel says it is: who
descends from whom, read from /proc, remembered before anyone is killed.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

__all__ = ["Daemon", "Member", "die_with_parent", "family"]

_LIBC = ctypes.CDLL(None, use_errno=True)
_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Run in a new process before it execs: killed when the one who made it is.

    A test run that is itself killed leaves nothing behind so.  (Linux looks at the
    thread that made the process, so make it in one that lasts.)
    """
    _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


@dataclass(frozen=True)
class Member:
    """One process: ``started`` tells it from a later one with the same number."""

    pid: int
    started: int

    @property
    def alive(self) -> bool:
        fields = _stat(self.pid)
        return bool(fields) and int(fields[19]) == self.started and fields[0] != "Z"

    @property
    def command(self) -> str:
        """The command line, or nothing where it is gone."""
        try:
            line = Path(f"/proc/{self.pid}/cmdline").read_bytes()
        except OSError:
            return ""
        return line.replace(b"\0", b" ").decode(errors="replace").strip()

    def kill(self) -> None:
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)


def _stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat behind the name (state first), or none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return []
    return text.rpartition(")")[2].split()


def family(pid: int) -> list[Member]:
    """``pid`` and all its descendants that live, parents before children."""
    children: dict[int, list[Member]] = {}
    found: list[Member] = []
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := _stat(int(name))):
            member = Member(int(name), int(fields[19]))
            children.setdefault(int(fields[1]), []).append(member)
            if member.pid == pid:
                found.append(member)
    for member in found:  # grows while it is walked
        found += children.get(member.pid, [])
    return found


class Daemon:
    """One long-lived process that can be killed, stopped and started again.

    Its output goes to ``log``, which grows over restarts.  ``env`` is all of its
    environment.
    """

    def __init__(
        self, command: Sequence[str], *, env: Mapping[str, str], cwd: Path, log: Path
    ) -> None:
        self.command = list(command)
        self.log = log
        self._env = dict(env)
        self._cwd = cwd
        self._process: subprocess.Popen[bytes] | None = None
        self._known: set[Member] = set()

    @property
    def pid(self) -> int:
        assert self._process is not None, "never started"
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> int:
        """Start, and return where in the log its output will begin."""
        assert not self.running, "already running"
        with self.log.open("ab") as log:
            begin = log.tell()
            self._process = subprocess.Popen(
                self.command,
                cwd=self._cwd,
                env=self._env,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=die_with_parent,
            )
        return begin

    def family(self) -> list[Member]:
        """This process and all that descends from it, now."""
        members = family(self.pid) if self.running else []
        self._known.update(members)
        return members

    def kill(self) -> None:
        """kill -9 of this process alone; its children notice by themselves."""
        self.family()
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def stop(self, *, timeout: float = 20) -> int:
        """SIGTERM, and the exit code.  Raises TimeoutExpired where it stays."""
        self.family()
        assert self._process is not None
        self._process.terminate()
        return self._process.wait(timeout)

    def wait(self, *, timeout: float) -> int:
        """The exit code, once it ends by itself.  Raises TimeoutExpired."""
        assert self._process is not None
        return self._process.wait(timeout)

    def end(self, *, timeout: float = 10) -> None:
        """kill -9 of it, of its descendants, and of those it left behind before.

        Raises AssertionError where one of them is alive afterwards.
        """
        if self._process is None:
            return
        deadline = time.monotonic() + timeout
        while True:
            # Parents first: whoever is dead starts nobody.
            for member in self.family():
                member.kill()
            for member in self._known:
                member.kill()
            self._process.wait()
            left = [member for member in self._known if member.alive]
            if not left:
                return
            assert time.monotonic() < deadline, [x.command for x in left]
            time.sleep(0.02)

    def said(self, begin: int = 0) -> str:
        """What the log holds from byte ``begin`` on."""
        with self.log.open("rb") as log:
            log.seek(begin)
            return log.read().decode(errors="replace")
