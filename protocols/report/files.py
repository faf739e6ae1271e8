# SPDX-License-Identifier: Apache-2.0
"""The files of a folder: reading them, and the model's (SPEC.md, 1, 2.5 and 8)."""

import json
import math
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from canonical import Malformed, digest, refuse

MODEL, START, REPORT, METRICS = (
    "model.safetensors",
    "start.safetensors",
    "report.json",
    "metrics.json",
)
PLAN = "plan.toml"
PAGES = ("report.html", "report.txt")
_DEEPEST = 64
_MIB = 2**20
_LONGEST_HEADER = 100_000_000


def most_bytes(name: str) -> int:
    """The size of the largest file that is read (SPEC.md, 1)."""
    if name == PLAN:
        return _MIB
    if name in (REPORT, METRICS, *PAGES) or name.startswith("ledgers/"):
        return 256 * _MIB
    return 4096 * _MIB


def read_file(folder: Path, name: str, check: str) -> bytes:
    """The bytes of a regular file of the folder."""
    path = folder / name
    try:
        found = path.lstat()
        linked = path.parent != folder and path.parent.is_symlink()
        if linked or not stat.S_ISREG(found.st_mode):
            refuse(check, name, "it is no regular file")
        if found.st_size > most_bytes(name):
            refuse(check, name, f"it is larger than {most_bytes(name)} bytes")
        return path.read_bytes()
    except MemoryError:
        refuse(check, name, "it is too large for this machine")
    except OSError as problem:
        refuse(check, name, f"it cannot be read: {problem.strerror}")


def read_json(data: bytes) -> Any:
    """A JSON text in UTF-8, without repeated keys, NaN or Infinity, or `Malformed`."""

    def pairs(rows: list[tuple[str, Any]]) -> dict[str, Any]:
        found = dict(rows)
        if len(found) != len(rows):
            raise Malformed("a key stands twice")
        return found

    def constant(name: str) -> None:
        raise Malformed(f"{name} is no number")

    def real(text: str) -> float:
        number = float(text)
        if math.isinf(number):
            raise Malformed(f"{text[:40]} is too large")
        return number

    try:
        return json.loads(
            data.decode("utf-8"),
            object_pairs_hook=pairs,
            parse_constant=constant,
            parse_float=real,
        )
    except (ValueError, RecursionError):
        raise Malformed("it is no JSON in UTF-8") from None


@dataclass(frozen=True)
class Tensor:
    name: str
    shape: list[int]
    data: bytes


def read_model(data: bytes) -> list[Tensor]:
    """The tensors of a safetensors file, by name, or `Malformed`."""
    if len(data) < 8:
        raise Malformed("it is cut off")
    end = 8 + int.from_bytes(data[:8], "little")
    if end > min(len(data), 8 + _LONGEST_HEADER):
        raise Malformed("it is cut off")
    header = read_json(data[8:end])
    if not isinstance(header, dict):
        raise Malformed("its header is no object")
    header.pop("__metadata__", None)
    body = memoryview(data)[end:]
    found = [_place(name, header[name]) for name in header]
    at = 0
    # First that they share no bytes: then all values together are read once.
    for _, _, begin, stop in sorted(found, key=lambda row: row[2:]):
        if begin != at:
            raise Malformed("its tensors overlap, or leave gaps")
        at = stop
    if at != len(body) or not found:
        raise Malformed("it has no tensors, or bytes left over")
    return [_tensor(name, shape, body[i:j]) for name, shape, i, j in sorted(found)]


def _place(name: str, row: Any) -> tuple[str, list[int], int, int]:
    """A tensor's name and shape, and where its bytes begin and stop."""
    if not isinstance(row, dict) or set(row) != {"dtype", "shape", "data_offsets"}:
        raise Malformed("a tensor lacks fields, or has others")
    shape, offsets = row["shape"], row["data_offsets"]
    if any("\ud800" <= letter <= "\udfff" for letter in name):
        raise Malformed("a tensor's name is not Unicode text")
    if row["dtype"] != "F32":
        raise Malformed("a tensor is not of type F32")
    for numbers in (shape, offsets):
        if not isinstance(numbers, list) or not all(
            type(number) is int and 0 <= number < 2**63 for number in numbers
        ):
            raise Malformed("a tensor's shape or offsets are no counts")
    if len(offsets) != 2 or len(shape) > _DEEPEST:
        raise Malformed("a tensor has not two offsets, or too many dimensions")
    begin, stop = offsets
    if begin > stop or stop - begin != 4 * math.prod(shape):
        raise Malformed("a tensor has not the bytes of its shape")
    return name, shape, begin, stop


def _tensor(name: str, shape: list[int], values: memoryview) -> Tensor:
    if not all(math.isfinite(x) for (x,) in struct.iter_unpack("<f", values)):
        raise Malformed("a value is not finite")
    return Tensor(name, shape, bytes(values))


def model_hash(tensors: list[Tensor]) -> bytes:
    return digest("secure-fl/model/1", *([t.name, t.shape, t.data] for t in tensors))


def model_size(tensors: list[Tensor]) -> int:
    return sum(len(tensor.data) // 4 for tensor in tensors)
