# SPDX-License-Identifier: Apache-2.0
"""The global model as Flower's arrays, and back.

What is summed is float32, by name.  Arrays of other float types are taken, rounded to
float32, and reach the clients so; whole numbers (the ``num_batches_tracked`` of a
BatchNorm, say) are refused: a sum of updates under clipping and noise is no count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import numpy as np
from flwr.app import Array, ArrayRecord
from numpy.typing import NDArray

from ...errors import EngineError, UsageError
from ...model import GlobalModel

__all__ = ["difference", "from_arrays", "to_arrays"]

_FLOATS: Final = ("float16", "float32", "float64")


def from_arrays(arrays: ArrayRecord) -> GlobalModel:
    """The model that a user's ``arrays`` hold.  Raises UsageError naming the array."""
    return GlobalModel({name: _floats(name, array) for name, array in arrays.items()})


def to_arrays(
    model: GlobalModel, *, types: Mapping[str, str] | None = None
) -> ArrayRecord:
    """The arrays of ``model``, in the order of ``types``, which gives each its type.

    Without it they are float32 and in the order of their names, or, where the names
    are Flower's own for a list of arrays ("0", "1", ...), in that of the list.
    """
    if types is None:
        types = dict.fromkeys(_in_order(model.arrays), "float32")
    return ArrayRecord(
        {n: Array(np.asarray(model.arrays[n].astype(t))) for n, t in types.items()}
    )


def difference(arrays: ArrayRecord, model: GlobalModel) -> NDArray[np.float64]:
    """``arrays`` minus ``model``, as one vector of ``model.size``.

    Raises UsageError where a name or shape is not the model's, or an array holds no
    floats, and EngineError where the result is not finite: the training diverged.
    """
    if wrong := set(arrays) ^ set(model.arrays):
        raise UsageError(
            f"the arrays {', '.join(sorted(wrong))} are not in the model, or missing",
            hint="send back the arrays that came, under their names",
        )
    parts = []
    for name, before in model.arrays.items():
        after = _floats(name, arrays[name])
        if after.shape != before.shape:
            raise UsageError(
                f"array {name} has shape {after.shape}, not {before.shape}",
                hint="send back the arrays that came, in their shapes",
            )
        parts.append((after.astype(np.float64) - before).ravel())
    out = np.concatenate(parts)
    if not np.isfinite(out).all():
        raise EngineError(
            "the trained arrays are not finite: the update cannot be used",
            hint="lower the learning rate",
        )
    return out


def _floats(name: str, array: Array) -> NDArray[np.floating]:
    try:
        values: NDArray[np.generic] = array.numpy()
    except (TypeError, ValueError, EOFError, OSError):
        raise UsageError(
            f"array {name} is not a NumPy array", hint="make it with Array(ndarray)"
        ) from None
    if values.dtype.name not in _FLOATS:
        raise UsageError(
            f"array {name} holds {values.dtype.name}, and what is summed is floats",
            hint="leave counters out of the arrays (num_batches_tracked is one), and "
            "load with strict=False",
        )
    return values  # type: ignore[return-value]


def _in_order(names: Iterable[str]) -> list[str]:
    ordered = sorted(names)
    listed = [str(place) for place in range(len(ordered))]
    return listed if set(ordered) == set(listed) else ordered
