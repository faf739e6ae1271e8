# SPDX-License-Identifier: Apache-2.0
"""The global model: named float32 arrays, one flat vector, one hash.

It holds what is trained and nothing else: a frozen backbone stays with the trainer.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import final

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.numpy import load, save

from . import wire
from .errors import UsageError

__all__ = ["GlobalModel"]


@final
@dataclass(frozen=True, eq=False)
class GlobalModel:
    """Arrays by name, in the order of their names.  Immutable."""

    arrays: Mapping[str, NDArray[np.float32]]

    def __post_init__(self) -> None:
        if not self.arrays:
            raise UsageError(
                "a model has at least one array", hint="name what is trained"
            )
        fixed = {}
        for name in sorted(self.arrays):
            array = np.array(self.arrays[name], dtype=np.float32, order="C")
            if not np.isfinite(array).all():
                raise UsageError(
                    f"array {name!r} of the model is not finite",
                    hint="start from finite 32-bit floats",
                )
            array.setflags(write=False)
            fixed[name] = array
        object.__setattr__(self, "arrays", MappingProxyType(fixed))

    @property
    def size(self) -> int:
        """Number of values in all arrays."""
        return sum(a.size for a in self.arrays.values())

    @property
    def shapes(self) -> Mapping[str, tuple[int, ...]]:
        """Of each array, by name."""
        return {name: a.shape for name, a in self.arrays.items()}

    def digest(self) -> bytes:
        """32 bytes over names, shapes and little-endian values."""
        parts: list[wire.Value] = [
            [name, [int(n) for n in a.shape], a.astype("<f4", copy=False).tobytes()]
            for name, a in self.arrays.items()
        ]
        return wire.digest("secure-fl/model/1", *parts)

    def flatten(self) -> NDArray[np.float32]:
        """All values in one vector, in the order of the names."""
        return np.concatenate([a.ravel() for a in self.arrays.values()])

    def add(self, delta: NDArray[np.floating]) -> GlobalModel:
        """The model with ``delta`` (one flat vector of ``size``) added to it."""
        if delta.shape != (self.size,):
            raise UsageError(
                f"the update has {delta.size} values, not {self.size}",
                hint="train the model that ClientRound.load filled",
            )
        out: dict[str, NDArray[np.float32]] = {}
        at = 0
        for name, a in self.arrays.items():
            part = delta[at : at + a.size].reshape(a.shape)
            out[name] = (a.astype(np.float64) + part).astype(np.float32)
            at += a.size
        return GlobalModel(out)

    def to_bytes(self) -> bytes:
        """The safetensors form."""
        return save(dict(self.arrays))

    @classmethod
    def from_bytes(cls, data: bytes) -> GlobalModel:
        """Read safetensors.  Raises UsageError for anything else."""
        try:
            return cls(load(data))
        except (SafetensorError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"not a safetensors model: {error}",
                hint="write one with safetensors.torch.save_model",
            ) from None

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> GlobalModel:
        """Read a safetensors file.  Raises UsageError, with the reason."""
        try:
            data = Path(path).read_bytes()
        except OSError as error:
            raise UsageError(
                f"cannot read {path}: {error.strerror}",
                hint="give the path of a safetensors file",
            ) from None
        return cls.from_bytes(data)
