# SPDX-License-Identifier: Apache-2.0
"""What a run whose plan has ``keep_vectors`` collects for its auditors as it goes.

With a folder each file lies in it, durably, before the round that it belongs to is
recorded: a run that is killed goes on with all of them.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import final

from ..files import write_durably
from ..model import GlobalModel
from ..plan import Plan
from ..report.vectors import FOLDER, START, Kept, is_chunk, vectors_file
from ..round import Aggregation
from ..transcript import Entry

__all__ = ["Files", "VectorStore", "discard_vectors", "file_mode"]


@final
class Files(Mapping[str, bytes]):
    """A run's files by name, the transcript last.

    ``on_disk``: those that are in the run's folder already, read when asked for.
    """

    def __init__(self, held: Mapping[str, bytes], on_disk: Mapping[str, Path]) -> None:
        self._held = held
        self.on_disk = on_disk

    def __getitem__(self, name: str) -> bytes:
        path = self.on_disk.get(name)
        return self._held[name] if path is None else path.read_bytes()

    def __iter__(self) -> Iterator[str]:
        yield from self.on_disk
        yield from self._held

    def __len__(self) -> int:
        return len(self.on_disk) + len(self._held)


@final
class VectorStore:
    """The kept files of one run: in its folder, or in memory where it has none."""

    def __init__(self, plan: Plan, out: Path | None) -> None:
        self.keeps = plan.protection.keep_vectors
        self._plan = plan
        self._out = out
        self._held: dict[str, bytes] = {}

    def begin(self, start: GlobalModel) -> None:
        if self.keeps:
            self._put(START, start.to_bytes())

    def opened(
        self, aggregation: Aggregation, messages: Sequence[tuple[str, bytes]]
    ) -> None:
        """An attempt was opened.  ``messages``: all that its transcript leaves out."""
        if not self.keeps:
            return
        session, result = aggregation.session, aggregation.result
        assert result is not None
        # Nobody signed for the chunks of a client that left in the middle.
        rows = [
            (sender, message)
            for sender, message in messages
            if sender in result.survivors or not is_chunk(message)
        ]
        round_index, attempt = session.round_index, session.attempt
        kept = Kept(session.run_id, round_index, attempt, aggregation.seed, rows)
        self._put(vectors_file(round_index, attempt), kept.to_bytes(self._plan.roster))

    def _put(self, name: str, data: bytes) -> None:
        if self._out is None:
            self._held[name] = data
        else:
            write_durably(self._out / name, data, mode=file_mode(name))

    def held(self) -> Mapping[str, bytes]:
        """The kept files of a run without a folder."""
        return self._held

    def on_disk(self, rounds: Sequence[Entry]) -> Mapping[str, Path]:
        """Those of a run with a folder, of which ``rounds`` were opened."""
        if not self.keeps or self._out is None:
            return {}
        names = [vectors_file(e.integer(0), e.integer(1)) for e in rounds]
        paths = {name: self._out / name for name in [START, *names]}
        # One whose round a killed process did not come to record: it was made again.
        for path in (self._out / FOLDER).iterdir():
            if path not in paths.values():
                path.unlink()
        return paths


def file_mode(name: str) -> int:
    """The mode of a run's file: whoever reads kept vectors has what the aggregator had,
    so they are their owner's alone."""
    return 0o600 if name.startswith(f"{FOLDER}/") else 0o644


def discard_vectors(out: Path) -> None:
    """Take away what a run that opened nothing may have left in its folder."""
    with contextlib.suppress(OSError):
        (out / START).unlink(missing_ok=True)
    shutil.rmtree(out / FOLDER, ignore_errors=True)
