# SPDX-License-Identifier: Apache-2.0
"""What a run costs: messages, bytes and seconds of each step, as this process saw them.

Stored in ``metrics.json``, and covered by no claim.  The seconds are those of a machine
on which all parties take turns, so they are no forecast for a network.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Generator, Iterable, Mapping
from dataclasses import asdict, dataclass
from typing import Any, final

from .clients import Take, Tell

__all__ = ["Costs"]


@dataclass
class _Step:
    """One row of ``costs.steps``; ``up`` is to the aggregator, ``down`` from it."""

    step: str
    messages: int = 0
    bytes_up: int = 0
    bytes_down: int = 0
    seconds: float = 0.0


@final
class Costs:
    """Sums over all attempts: what comes after :meth:`enter` is of that step."""

    def __init__(self, *, resumed: bool) -> None:
        self._resumed = resumed
        self._steps: dict[str, _Step] = {}
        self._now: _Step | None = None
        self._since = 0.0
        self._lock = threading.Lock()

    def enter(self, step: str) -> None:
        """The step before is over, and this one begins."""
        self.leave()
        self._now = self._steps.setdefault(step, _Step(step))

    def leave(self) -> None:
        """No step is under way."""
        now = time.perf_counter()
        if self._now is not None:
            self._now.seconds += now - self._since
        self._since, self._now = now, None

    def up(self, message: bytes) -> None:
        with self._lock:
            if self._now is not None:
                self._now.messages += 1
                self._now.bytes_up += len(message)

    def down(self, message: bytes) -> None:
        with self._lock:
            if self._now is not None:
                self._now.messages += 1
                self._now.bytes_down += len(message)

    def metered(self, tell: Tell) -> Tell:
        """``tell``, with all messages counted, those that nobody takes included."""

        def told(messages: Mapping[str, bytes], take: Take) -> None:
            for message in messages.values():
                self.down(message)
            tell(messages, lambda client, pieces: take(client, self._counted(pieces)))

        return told

    def _counted(self, pieces: Iterable[bytes]) -> Generator[bytes]:
        """The same pieces; ``pieces`` is closed with the generator that is returned."""
        try:
            for piece in pieces:
                self.up(piece)
                yield piece
        finally:
            if isinstance(pieces, Generator):
                pieces.close()

    def rows(self) -> dict[str, Any]:
        """As ``metrics.json`` has it; ``resumed`` where an earlier process had a part
        that is not in here."""
        steps = [
            {**asdict(row), "seconds": round(row.seconds, 6)}
            for row in self._steps.values()
        ]
        return {"steps": steps, **({"resumed": True} if self._resumed else {})}
