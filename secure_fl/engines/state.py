# SPDX-License-Identifier: Apache-2.0
"""Where a run on this machine keeps what it needs to go on after a crash.

Secrets never lie in the run's own folder: throw-away keys and homes are in a state
folder per run, mode 0700, removed when the run is complete.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, final

import numpy as np
from numpy.typing import NDArray

from .. import wire
from ..errors import EngineError, ProtocolError, UsageError
from ..files import write_durably
from ..model import GlobalModel
from ..transcript import Transcript

__all__ = ["Checkpoint", "RunState"]

_FORMS: Final = "secure-fl/checkpoint/"
_VERSION: Final = f"{_FORMS}3"
_VELOCITY: Final = "<f8"
_CHECKPOINT: Final = "checkpoint.cbor"


@final
@dataclass(frozen=True)
class Checkpoint:
    """A run between two attempts: what a killed one continues from."""

    round_index: int
    attempt: int  # the last one that may have been opened; -1 for none
    model: GlobalModel
    velocity: NDArray[np.float64]  # of the aggregator's steps; empty where it has none
    transcript: Transcript
    history: list[dict[str, Any]]

    def to_bytes(self) -> bytes:
        return wire.encode(
            [
                _VERSION,
                self.round_index,
                self.attempt + 1,
                self.model.to_bytes(),
                self.velocity.astype(_VELOCITY, copy=False).tobytes(),
                self.transcript.to_bytes(),
                json.dumps(self.history),
            ]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Checkpoint:
        try:
            value = wire.decode(data)
        except ProtocolError:
            value = []
        match value:
            case [
                str(version),
                int(round_index),
                int(attempts),
                bytes(model),
                bytes(velocity),
                bytes(transcript),
                str(history),
            ] if version == _VERSION:
                return cls(
                    round_index,
                    attempts - 1,
                    GlobalModel.from_bytes(model),
                    np.frombuffer(velocity, _VELOCITY).astype(np.float64, copy=False),
                    Transcript.from_bytes(transcript),
                    json.loads(history),
                )
            case [str(version), *_] if version.startswith(_FORMS):
                raise EngineError(
                    "another version of secure-fl began this run",
                    hint="finish it with that version",
                )
            case _:
                raise EngineError(
                    "the checkpoint of the run does not parse",
                    hint="begin a new run; what this one charged stays charged",
                )


def _no_run() -> UsageError:
    return UsageError(
        "there is no unfinished run to continue here",
        hint="run it with the same --home, user and machine as before",
    )


def _default_root() -> Path:
    base = os.environ.get("XDG_STATE_HOME")
    if base:
        return Path(base) / "secure-fl"
    try:
        return Path.home() / ".local" / "state" / "secure-fl"
    except RuntimeError:
        raise UsageError(
            "this user has no home directory",
            hint="set XDG_STATE_HOME, or give --home",
        ) from None


@final
class RunState:
    """The state folder of one run: checkpoint, keys, and the clients' homes."""

    def __init__(self, folder: Path, clients: Path, keys: Path) -> None:
        self.folder = folder
        # In a home they outlast the run's own folder.
        self.ledgers_live_on = not clients.is_relative_to(folder)
        self._clients = clients
        self.keys = keys

    @classmethod
    def at(cls, run_id: bytes, *, home: Path | None, out: Path | None) -> RunState:
        """Under ``home`` where one is given, else a throw-away place of this user.

        Raises UsageError where that lies inside ``out``, which is given away.
        """
        root = home or _default_root()
        if out is not None and root.resolve().is_relative_to(out.resolve()):
            raise UsageError(
                f"keys and ledgers would lie in {out}",
                hint="choose a home outside of the run's folder",
            )
        if home is None:
            folder = _default_root() / "runs" / run_id.hex()
            return cls(folder, folder / "clients", folder / "keys")
        folder = home / "runs" / run_id.hex()
        return cls(folder, home / "clients", folder / "keys")

    @classmethod
    @contextlib.contextmanager
    def temporary(cls) -> Iterator[RunState]:
        """For a run that leaves nothing: gone with the ``with`` block."""
        with tempfile.TemporaryDirectory(prefix="secure-fl-") as name:
            folder = Path(name)
            yield cls(folder, folder / "clients", folder / "keys")

    def create(self) -> None:
        try:
            for folder in (self.folder, self._clients, self.keys):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise UsageError(
                f"cannot create {error.filename}: {error.strerror}",
                hint="choose a home, or a state folder, that can be written",
            ) from None

    def client_home(self, name: str) -> Path:
        """Ledger and keystore of one client; as if it were its own machine."""
        home = self._clients / name
        home.mkdir(parents=True, exist_ok=True, mode=0o700)
        return home

    @property
    def keyholder_home(self) -> Path:
        """Where the key holder remembers what it released, beside the clients."""
        return self._clients.parent / "keyholder"

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """One process at a time drives a run."""
        try:
            file = open(self.folder / "lock", "w")  # noqa: SIM115
        except OSError:
            raise _no_run() from None
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                raise UsageError(
                    "another process is running this very run",
                    hint="wait for it to end",
                ) from None
            yield

    @property
    def begun(self) -> bool:
        """Whether there is a run to go on with."""
        return (self.folder / _CHECKPOINT).exists()

    def save(self, checkpoint: Checkpoint) -> None:
        write_durably(self.folder / _CHECKPOINT, checkpoint.to_bytes())

    def load(self) -> Checkpoint:
        """Raises UsageError where this machine holds no such run."""
        try:
            data = (self.folder / _CHECKPOINT).read_bytes()
        except OSError:
            raise _no_run() from None
        return Checkpoint.from_bytes(data)

    def remove(self) -> None:
        """The run is complete: its throw-away keys and homes go."""
        shutil.rmtree(self.folder, ignore_errors=True)
