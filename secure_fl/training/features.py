# SPDX-License-Identifier: Apache-2.0
"""Features of a frozen backbone, computed once and kept on disk.

A head on cached features costs a step of two matrix products.  That rests on each row
of features depending on its own record only, so the backbone runs in eval mode, and
the first rows are computed a second time, one by one, and compared.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable, Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import Final

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TimeElapsedColumn
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from ..errors import EngineError, UsageError
from ..files import write_durably
from .checks import asleep

__all__ = ["Records", "cached_features", "tensors_digest"]

Records = torch.Tensor | Sequence[str]
"""One record per row of a tensor, or one text per record."""

_LABEL: Final = b"secure-fl/features/1"
# Rows computed alone and in a batch differ by rounding: 1e-6 of the largest value,
# seen; a batch's own statistics move them by 1e-2 and more.
_ROUNDING: Final = 1e-4
_CHECKED: Final = 8
_CHECKSUM: Final = 32  # bytes of a file before the array


def cached_features(
    backbone: nn.Module,
    records: Records,
    *,
    cache: str | Path,
    recipe: str,
    batch_size: int = 64,
    progress: Callable[[int, int], None] | None = None,
) -> NDArray[np.float32]:
    """One row of features per record: read from ``cache``, or computed and kept there.

    backbone
        frozen and not fitted to these records; called on a batch (rows of the tensor,
        or a list of texts), it returns one row per record.  It runs where it lies
        (put it on a GPU first), in eval mode and without gradients, and gets its own
        modes back.
    records
        a tensor (records, ...), or texts (with :class:`TextEncoder`)
    cache
        a folder of the member's own.  What is kept there, with mode 0600, is personal
        data as much as the records are.
    recipe
        names what the hash cannot see: the code of the backbone's ``forward``, its
        constants that ``print(backbone)`` does not show, and how the records were
        prepared.  Change it when one of them changes.
    batch_size
        records computed at a time; it does not change the rows beyond rounding
    progress
        called with (records done, records in all); without it, a bar is shown where
        stderr is a terminal

    Returns float32 of shape (records, features), in the order of the records, in
    memory; while it is written or read, three times its size is held.

    The file's name is a hash of the backbone's tensors and structure, the records and
    ``recipe``: where any of them changes, all is computed again.  A file that is
    damaged is computed again as well.  An interrupted computation leaves no file that
    would be read; two processes at once compute twice and keep one result.

    Raises UsageError where a row depends on other records, or is not finite, and
    EngineError where the disk does not take the file.
    """
    count = len(records)
    if not count:
        raise UsageError(
            "there are no records to compute features of", hint="hand in at least one"
        )
    if batch_size < 1:
        raise UsageError(f"batch_size is {batch_size}", hint="use 1 or more")
    _check_norms(backbone)
    key = _key(backbone, records, recipe)
    cache = Path(cache)
    path = cache / f"{key.hex()}.features"
    kept = _read(path, key)
    if kept is not None:
        return kept
    shown = _bar(count) if progress is None else contextlib.nullcontext(progress)
    with asleep(backbone), torch.no_grad(), shown as report:
        features = _compute(backbone, records, batch_size, report)
    bad = np.flatnonzero(~np.isfinite(features).all(axis=1))
    if len(bad):
        raise UsageError(
            f"the features of record {bad[0]} are not finite",
            hint="mend or remove the record; counting starts at 0",
        )
    try:
        cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise EngineError(
            f"cannot make {cache}: {error.strerror}",
            hint="name a folder for the cache that this user may write to",
        ) from None
    write_durably(path, _sealed(key, features), mode=0o600)
    return features


def tensors_digest(label: bytes, tensors: Iterator[tuple[str, torch.Tensor]]) -> bytes:
    """SHA-256 over names, types, shapes and bytes, in the order given."""
    state = hashlib.sha256(label)
    for name, tensor in tensors:
        head = f"\0{name} {tensor.dtype} {tuple(tensor.shape)}\0"
        state.update(head.encode())
        state.update(_bytes(tensor))
    return state.digest()


# -- computing -------------------------------------------------------------------------


def _compute(
    backbone: nn.Module,
    records: Records,
    batch_size: int,
    report: Callable[[int, int], None],
) -> NDArray[np.float32]:
    count = len(records)
    order = _order(records)
    features: NDArray[np.float32] | None = None
    for at in range(0, count, batch_size):
        rows = order[at : at + batch_size]
        part = _rows(backbone, records, rows)
        if features is None:
            _check_alone(backbone, records, rows, part)
            features = np.empty((count, part.shape[1]), np.float32)
        features[rows] = part
        report(min(at + batch_size, count), count)
    assert features is not None  # there are records
    return features


def _order(records: Records) -> NDArray[np.int64]:
    """Long texts first: those of one batch then need little padding."""
    if isinstance(records, torch.Tensor):
        return np.arange(len(records))
    return np.argsort([-len(text) for text in records], kind="stable")


def _rows(
    backbone: nn.Module, records: Records, rows: NDArray[np.int64]
) -> NDArray[np.float32]:
    batch: torch.Tensor | list[str]
    if isinstance(records, torch.Tensor):
        batch = records[torch.from_numpy(rows).to(records.device)]
        tensor = next(backbone.parameters(), next(backbone.buffers(), batch))
        batch = batch.to(tensor.device)
    else:
        batch = [records[i] for i in rows.tolist()]
    out = backbone(batch)
    if not isinstance(out, torch.Tensor) or len(out) != len(rows):
        raise UsageError(
            "the backbone does not return one row per record",
            hint="wrap it in a module that returns a tensor (records, features)",
        )
    found: NDArray[np.float32] = out.flatten(1).to("cpu", torch.float32).numpy()
    return found


def _check_alone(
    backbone: nn.Module,
    records: Records,
    rows: NDArray[np.int64],
    together: NDArray[np.float32],
) -> None:
    """Raises UsageError where a row changes with the batch it is in."""
    # The first and the last: of texts, those that need least and most padding.
    half = _CHECKED // 2
    for i in sorted({*range(len(rows))[:half], *range(len(rows))[-half:]}):
        alone = _rows(backbone, records, rows[i : i + 1])[0]
        if not np.isfinite(alone).all():
            continue  # refused by its number, when all are there
        scale = max(float(np.abs(alone).max()), 1e-30)
        if float(np.abs(alone - together[i]).max()) > _ROUNDING * scale:
            raise UsageError(
                "a row of features changes with the records beside it",
                hint="the backbone may use no statistics of the batch, draw nothing "
                "at random in eval mode, and mask the padding of texts",
            )


def _check_norms(backbone: nn.Module) -> None:
    for name, module in backbone.named_modules():
        if isinstance(module, _BatchNorm) and module.running_mean is None:
            raise UsageError(
                f"{name or 'the backbone'} ({type(module).__name__}) has no running "
                "statistics: it would mix the records of a batch",
                hint="use a backbone whose normalisation is fixed in eval mode",
            )


@contextlib.contextmanager
def _bar(count: int) -> Iterator[Callable[[int, int], None]]:
    console = Console(file=sys.stderr)
    with Progress(
        "features",
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bar:
        task = bar.add_task("", total=count)
        yield lambda done, total: bar.update(task, completed=done)


# -- the file --------------------------------------------------------------------------


def _key(backbone: nn.Module, records: Records, recipe: str) -> bytes:
    """What the features follow from."""
    tensors = (
        *backbone.named_parameters(remove_duplicate=False),
        *backbone.named_buffers(remove_duplicate=False),
    )
    parts = [
        # The printed structure says sizes, strides and constants; tensors do not.
        f"{type(backbone).__module__}.{type(backbone).__qualname__}".encode(),
        repr(backbone).encode(),
        recipe.encode(),
        tensors_digest(_LABEL, iter(tensors)),
        _records_digest(records),
    ]
    state = hashlib.sha256(_LABEL)
    for part in parts:
        state.update(len(part).to_bytes(8, "big"))
        state.update(part)
    return state.digest()


def _records_digest(records: Records) -> bytes:
    if isinstance(records, torch.Tensor):
        return tensors_digest(b"tensor", iter([("", records)]))
    state = hashlib.sha256(b"texts")
    for text in records:
        encoded = text.encode()
        state.update(len(encoded).to_bytes(8, "big"))
        state.update(encoded)
    return state.digest()


def _bytes(tensor: torch.Tensor) -> memoryview[int]:
    flat = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    data: memoryview[int] = flat.numpy().data
    return data


def _checksum(key: bytes, payload: memoryview[int]) -> bytes:
    """Over the payload and what it was computed from."""
    state = hashlib.sha256(_LABEL + key)
    state.update(payload)
    return state.digest()


def _sealed(key: bytes, features: NDArray[np.float32]) -> bytes:
    """The array in numpy's own form, behind its checksum."""
    out = BytesIO(bytes(_CHECKSUM))
    out.seek(_CHECKSUM)
    np.save(out, features, allow_pickle=False)
    with out.getbuffer() as data:
        data[:_CHECKSUM] = _checksum(key, data[_CHECKSUM:])
    return out.getvalue()


def _read(path: Path, key: bytes) -> NDArray[np.float32] | None:
    """What was kept, or None where nothing was, or nothing that is whole."""
    try:
        data = memoryview(path.read_bytes())
    except OSError:
        return None
    payload = data[_CHECKSUM:]
    if data[:_CHECKSUM] != _checksum(key, payload):
        return None
    features: NDArray[np.float32] = np.load(BytesIO(payload), allow_pickle=False)
    return features
