# SPDX-License-Identifier: Apache-2.0
"""What a run gives back: progress on the way, and everything at the end."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

from ..files import write_durably
from ..model import GlobalModel
from ..plan import Plan
from ..report import Report
from .kept import Files, file_mode
from .setup import require_empty

__all__ = ["Metrics", "Move", "Progress", "Run"]

Metrics = dict[str, Any]

# From a round's index, and the model moved by the mean update, to the new global model.
Move = Callable[[int, GlobalModel], GlobalModel]


@final
@dataclass(frozen=True)
class Progress:
    """Where a run is: for a progress bar, and for whoever watches.

    step
        what the aggregator collects, or "training"; an attempt ends with "opened" or
        "failed"
    client
        whose turn it is to train
    opened
        how many rounds were opened so far
    inside
        whose updates are in the last sum that was opened
    left
        who has left this attempt: the step, and why, in words for the aggregator
    """

    round: int
    rounds: int
    attempt: int
    step: str
    client: str = ""
    opened: int = 0
    inside: tuple[str, ...] = ()
    left: Mapping[str, str] = field(default_factory=dict)


@final
@dataclass(frozen=True)
class Run:
    """A finished run: the model, the report, and every file an auditor needs.

    Report and files are made when they are first asked for.
    """

    plan: Plan
    model: GlobalModel
    metrics: Metrics
    _close: Callable[[], tuple[Report, Files]] = field(repr=False)

    @functools.cached_property
    def _closed(self) -> tuple[Report, Files]:
        return self._close()

    @property
    def report(self) -> Report:
        """The epsilon report; ``report.claims`` is its first table."""
        return self._closed[0]

    @property
    def files(self) -> Files:
        """What :meth:`save` writes: bytes by file name.

        Kept vectors of a run with a folder are read from there when asked for.
        """
        return self._closed[1]

    def close(self) -> None:
        """Have every member sign the whole; all files of a run with a folder are in it
        then.  Raises EngineError where a member is away."""
        _ = self._closed

    def save(self, folder: str | Path) -> Path:
        """Write the run's files into ``folder``, which must be new or empty.

        Raises UsageError where it is not, EngineError where the disk fails.
        """
        out = Path(folder)
        require_empty(out)
        for name, data in self.files.items():
            write_durably(out / name, data, mode=file_mode(name))
        return out
