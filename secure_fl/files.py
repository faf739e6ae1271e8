# SPDX-License-Identifier: Apache-2.0
"""Files that are there whole, or not at all, whatever crashes."""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from .errors import EngineError

__all__ = ["create_once", "sync_folder", "write_durably"]


def sync_folder(folder: Path) -> None:
    """A new name is durable only once its folder is."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def create_once(path: Path, fill: Callable[[Path], None]) -> None:
    """Make ``path`` (mode 0600) appear with what ``fill`` wrote, or find another's.

    ``fill`` writes, and syncs, a file of another name beside it, which is then linked
    into place: no crash and no second process ever sees half of it, and what is there
    already is never replaced.  Raises OSError.
    """
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}-", dir=path.parent)
    os.close(descriptor)
    try:
        fill(Path(name))
        with contextlib.suppress(FileExistsError):
            os.link(name, path)
        sync_folder(path.parent)
    finally:
        os.unlink(name)


def write_durably(path: Path, data: bytes, *, mode: int = 0o644) -> None:
    """All of the file or none of it: written beside, synced, renamed, with ``mode``.

    Raises EngineError where the disk does not take it.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
        try:
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.chmod(name, mode)
            os.replace(name, path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(name)
            raise
        sync_folder(path.parent)
    except OSError as error:
        raise EngineError(
            f"cannot write {path}: {error.strerror}",
            hint="make room; a run that has finished a round goes on with --resume",
        ) from None
