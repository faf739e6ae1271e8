# SPDX-License-Identifier: Apache-2.0
"""Loops side by side: a process for each, so that memory is its own, and turns.

All take turns, so that whatever else the machine does falls on all of them alike.  What
is counted is CPU time, which other work on the machine moves far less than a clock.
"""

from __future__ import annotations

import ctypes
import statistics
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import final

__all__ = ["Apart", "Loop", "in_turn"]

Loop = Callable[[], Callable[[], None]]
"""Gets one run ready; what it returns is that run, and is what is timed."""


@final
@dataclass(frozen=True, slots=True)
class Apart:
    """What one loop took.

    cpu_seconds
        one for each turn, after a first one that is not counted; of all threads of the
        loop's process together
    peak_bytes
        the most the process held in that first turn, beyond what it held before
    """

    cpu_seconds: tuple[float, ...]
    peak_bytes: int

    def over(self, other: Apart) -> float:
        """How many times as long as ``other``: the median of the turns' ratios."""
        turns = zip(self.cpu_seconds, other.cpu_seconds, strict=True)
        return statistics.median(mine / its for mine, its in turns)


def in_turn(
    loops: Mapping[str, Callable[[], Loop]],
    *,
    turns: int,
    turned: Callable[[], None] = lambda: None,
) -> dict[str, Apart]:
    """Run every loop ``turns`` times.

    loops
        by name, what makes each; it is called in the loop's own process, to which it
        must be picklable
    turned
        called after every turn, the first ones included

    Raises what a loop raises.
    """
    with ExitStack() as stack:
        pools = {
            name: stack.enter_context(
                ProcessPoolExecutor(1, mp_context=get_context("spawn"))
            )
            for name in loops
        }
        # Not at once: a machine's memory is to hold them all, not all their imports.
        peaks = {}
        for name, make in loops.items():
            peaks[name] = pools[name].submit(_first, make).result()
            turned()
        seconds: dict[str, list[float]] = {name: [] for name in loops}
        for _ in range(turns):
            for name, pool in pools.items():
                seconds[name].append(pool.submit(_again).result())
                turned()
    return {name: Apart(tuple(seconds[name]), peaks[name]) for name in loops}


_loop: Loop | None = None  # of this process


def _first(make: Callable[[], Loop]) -> int:
    global _loop
    _loop = make()
    run = _loop()
    # What is free already must not serve the run unseen, nor an import be its peak.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
    Path("/proc/self/clear_refs").write_text("5")
    held = _status("VmRSS")
    run()
    return _status("VmHWM") - held


def _again() -> float:
    assert _loop is not None
    run = _loop()
    begin = time.process_time()
    run()
    return time.process_time() - begin


def _status(name: str) -> int:
    """A size that Linux knows of this process, in bytes."""
    for line in Path("/proc/self/status").read_text().splitlines():
        key, _, value = line.partition(":")
        if key == name:
            return int(value.split()[0]) * 1024
    raise OSError(f"/proc/self/status has no {name}")
