# SPDX-License-Identifier: Apache-2.0
"""The folder of a run as a verifier meets it: anybody may have put anything there."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from ..errors import SecureFLError, UsageError, VerificationError

__all__ = [
    "FILES",
    "HTML",
    "METRICS",
    "MODEL",
    "PLAN",
    "REPORT",
    "TEXT",
    "TRANSCRIPT",
    "blaming",
    "check_is_run",
    "listed",
    "read",
]

PLAN: Final = "plan.toml"
MODEL: Final = "model.safetensors"
METRICS: Final = "metrics.json"
TRANSCRIPT: Final = "transcript.cbor"
REPORT: Final = "report.json"
HTML: Final = "report.html"
TEXT: Final = "report.txt"

_MIB: Final = 2**20
_CLAIMS: Final = (REPORT, METRICS, HTML, TEXT)
FILES: Final = (PLAN, MODEL, METRICS, TRANSCRIPT, REPORT, HTML, TEXT)


@contextlib.contextmanager
def blaming(file: str) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of ``file``: its bytes are anybody's."""
    try:
        yield
    except SecureFLError as error:
        if isinstance(error, VerificationError) and error.file:
            raise
        raise VerificationError(str(error), file=file, hint=error.hint) from None
    except OSError as error:
        raise VerificationError(
            f"cannot be read: {error.strerror}", file=file
        ) from None
    except MemoryError:
        raise VerificationError("is too large for this machine", file=file) from None
    except Exception:  # foreign parsers: whatever they raise is a bad file
        raise VerificationError("does not parse", file=file) from None


def check_is_run(folder: Path) -> None:
    """Raises UsageError where ``folder`` is none, or holds nothing of a run;
    VerificationError where the run in it is not finished."""
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "does not exist"
        raise UsageError(f"{folder} {state}", hint="give the folder of a finished run")
    if not any((folder / name).exists() for name in FILES):
        raise UsageError(f"{folder} holds no run", hint="give a finished run's folder")
    # The transcript is written last.
    if (folder / PLAN).exists() and not (folder / TRANSCRIPT).exists():
        raise VerificationError(
            "is missing: the run is not finished, or somebody took the file away",
            file=TRANSCRIPT,
            hint="continue the run with `secure-fl run PLAN --out DIR --resume`, where "
            "it was begun",
        )


def read(folder: Path, name: str) -> bytes:
    """The bytes of one regular file (SPEC 1).  Raises VerificationError naming it.

    A link is refused: it may lead out of the folder, and elsewhere tomorrow.  So is a
    pipe, which would never end.
    """
    path = folder / name
    with blaming(name):
        linked = path.is_symlink() or (
            path.parent != folder and path.parent.is_symlink()
        )
        if linked or not path.is_file():
            there = linked or path.exists()
            state = "is not a regular file" if there else "is missing"
            raise VerificationError(state, hint="verify the whole folder of the run")
        if path.stat().st_size > most_bytes(name):
            raise VerificationError(f"is larger than {most_bytes(name)} bytes")
        return path.read_bytes()


def most_bytes(name: str) -> int:
    """The size of the largest file ``name`` that is read (SPEC 1)."""
    if name == PLAN:
        return _MIB
    return (256 if name in _CLAIMS or name.startswith("ledgers/") else 4096) * _MIB


def listed(folder: Path) -> list[str]:
    """Names in the folder, and in its folders, as far as they can be listed."""
    out = []
    for place in (folder, folder / "ledgers", folder / "vectors"):
        with contextlib.suppress(OSError):
            out += [p.relative_to(folder).as_posix() for p in place.iterdir()]
    return sorted(out)
