# SPDX-License-Identifier: Apache-2.0
"""Processes with children of their own, none of which outlives the example."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

__all__ = [
    "adopt_orphans",
    "descendants",
    "die_with_parent",
    "end_all",
    "free_port",
    "kill",
    "listens",
]

_LIBC: Final = ctypes.CDLL(None, use_errno=True)
_DEATH_SIGNAL: Final = 1
_SUBREAPER: Final = 36


def adopt_orphans() -> None:
    """Whatever our processes leave behind becomes our child: so all of it is ended."""
    _LIBC.prctl(_SUBREAPER, 1)


def die_with_parent() -> None:
    """In a new daemon: it is told to stop when this program is killed."""
    _LIBC.prctl(_DEATH_SIGNAL, signal.SIGTERM)


def descendants(pid: int) -> list[int]:
    """All that live, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            with contextlib.suppress(OSError):
                fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2]
                state, parent = fields.split()[:2]
                if state != "Z":
                    children.setdefault(int(parent), []).append(int(entry))
    found = [pid]
    for one in found:  # grows while it is walked
        found += children.get(one, [])
    return found[1:]


def kill(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end_all() -> None:
    """Stop every process that this program started, and wait until none is left."""
    kill(descendants(os.getpid()), signal.SIGTERM)
    patience = time.monotonic() + 10
    while left := descendants(os.getpid()):
        if time.monotonic() > patience:
            kill(left, signal.SIGKILL)
        time.sleep(0.1)


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def free_port() -> int:
    """One that nobody listens on, below those that the kernel hands out."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError("no port is free")
