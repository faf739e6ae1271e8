# SPDX-License-Identifier: Apache-2.0
"""Mutations of the model, of the figures beside it, and of the pages."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np
from safetensors.numpy import load, save

from secure_fl.model import GlobalModel

from .mutations_folder import (
    COALITION,
    EVERYBODY,
    METRICS,
    MODEL,
    NOBODY,
    PLAN,
    TRANSCRIPT,
    Folder,
    Mutation,
    Row,
    of_kind,
)

__all__ = ["OTHER_FILES"]

Change = Callable[[bytes], bytes]


def _put(name: str, change: Change) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        data = change(folder.files[name])
        assert data != folder.files[name]
        if folder.holds:
            folder.put(name, data)
        else:
            folder.files[name] = data

    return apply


def _hashed(name: str) -> Callable[[Folder], None]:
    """Every hash fits again, and no signature."""

    def apply(folder: Folder) -> None:
        data = folder.files[name]
        folder.put(name, data[:-1] + bytes([data[-1] ^ 1]))

    return apply


def _arrays(edit: Callable[[dict[str, Any]], None]) -> Change:
    def change(data: bytes) -> bytes:
        arrays = {name: array.copy() for name, array in load(data).items()}
        edit(arrays)
        return save(arrays)

    return change


def _first_value(value: Callable[[float], float]) -> Change:
    def edit(arrays: dict[str, Any]) -> None:
        array = next(iter(arrays.values()))
        array.flat[0] = value(array.flat[0])

    return _arrays(edit)


def _renamed(arrays: dict[str, Any]) -> None:
    name = next(iter(arrays))
    arrays["weights"] = arrays.pop(name)


def _more(arrays: dict[str, Any]) -> None:
    arrays["bias"] = np.zeros(4, np.float32)


def _transposed(arrays: dict[str, Any]) -> None:
    name = next(iter(arrays))
    arrays[name] = np.ascontiguousarray(arrays[name].T)


def _doubles(arrays: dict[str, Any]) -> None:
    name = next(iter(arrays))
    # Not values of 32 bits: in that form they would be the same model.
    arrays[name] = arrays[name].astype(np.float64) + 1e-3


def _none(arrays: dict[str, Any]) -> None:
    arrays.clear()


def _models() -> Iterator[Mutation]:
    other = GlobalModel({"weight": np.ones((4, 5), np.float32)}).to_bytes()
    larger = GlobalModel({"weight": np.ones((5, 5), np.float32)}).to_bytes()
    changes: dict[str, Change] = {
        "another": lambda data: other,
        "a larger one": lambda data: larger,
        "one value, as little as can be": _first_value(
            lambda v: float(np.nextafter(np.float32(v), np.float32(9)))
        ),
        "one value, its sign": _first_value(lambda v: -v),
        "a value that is no number": _first_value(lambda v: float("nan")),
        "a value that is infinite": _first_value(lambda v: float("inf")),
        "an array renamed": _arrays(_renamed),
        "an array more": _arrays(_more),
        "its shape turned": _arrays(_transposed),
        "values of 64 bits": _arrays(_doubles),
        "no arrays": _arrays(_none),
        "empty": lambda data: b"",
        "cut short": lambda data: data[:-4],
        "a header too long": lambda data: b"\xff" * 8 + data[8:],
    }
    for what, change in changes.items():
        title = f"{MODEL}: {what}"
        edit = _put(MODEL, change)
        yield Mutation(f"{title}, signed by nobody", "masking", NOBODY, edit, (MODEL,))
        yield Mutation(
            f"{title}, signed by the coalition",
            "masking",
            COALITION,
            edit,
            (TRANSCRIPT,),
        )
        yield Mutation(f"{title}, signed by all", "masking", EVERYBODY, edit, (MODEL,))
    for run in ("plain", "one-time", "keyholder"):
        edit = _put(MODEL, changes["another"])
        name = f"{MODEL}: another ({run}), signed by all"
        yield Mutation(name, run, EVERYBODY, edit, (MODEL,))


def _figures() -> Iterator[Mutation]:
    wrong: dict[str, Change] = {
        "not JSON": lambda data: b"accuracy 0.99",
        "no object": lambda data: b"[0.99]",
        "a key twice": lambda data: b'{"final": 1, "final": 2}',
        "not a number": lambda data: b'{"final": NaN}',
        "not UTF-8": lambda data: b'{"final": "\xff"}',
    }
    better: Change = lambda data: data.replace(b"0.75", b"0.99")  # noqa: E731
    for what, change in {"a better score": better, **wrong}.items():
        edit = _put(METRICS, change)
        title = f"{METRICS}: {what}"
        yield Mutation(
            f"{title}, signed by nobody", "masking", NOBODY, edit, (METRICS,)
        )
        yield Mutation(
            f"{title}, signed by the coalition",
            "masking",
            COALITION,
            edit,
            (TRANSCRIPT,),
        )
        if change is not better:
            name = f"{title}, signed by all"
            yield Mutation(name, "masking", EVERYBODY, edit, (METRICS,))
    for name in (MODEL, METRICS, "report.json", "report.html", "ledgers/bank-d.cbor"):
        edit = _hashed(name)
        title = f"{name}: a byte changed and hashed anew, signed by nobody"
        yield Mutation(title, "masking", NOBODY, edit, (TRANSCRIPT,))
    for page in ("report.html", "report.txt"):
        edit = _put(page, lambda data: data.replace(b"epsilon", b"safety"))
        yield Mutation(
            f"{page}: reworded, signed by the coalition",
            "masking",
            COALITION,
            edit,
            (TRANSCRIPT,),
        )


# -- the list of files -----------------------------------------------------------------


def _rows(edit: Callable[[list[Any]], list[Any]]) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        def change(rows: list[Row]) -> None:
            body = rows[of_kind(rows, "artefacts")[0]][1]
            body[0] = edit(body[0])

        folder.log(change)

    return apply


def _missing(name: str) -> Callable[[Folder], None]:
    """A file is neither there nor in the list."""

    def apply(folder: Folder) -> None:
        del folder.files[name]
        folder.seal()

    return apply


def _lists() -> Iterator[Mutation]:
    lists: dict[str, Callable[[list[Any]], list[Any]]] = {
        "a file left out": lambda rows: rows[1:],
        "a file more": lambda rows: [*rows, ["zzz", bytes(32)]],
        "a file outside of the folder": lambda rows: [*rows, ["../secret", bytes(32)]],
        "a file twice": lambda rows: [rows[0], *rows],
        "the log itself": lambda rows: [*rows, [TRANSCRIPT, bytes(32)]],
        "rows that are none": lambda rows: [1, ["a"], b""],
        "no rows": lambda rows: [],
        "a hash too short": lambda rows: [[rows[0][0], rows[0][1][:-1]], *rows[1:]],
        "a row with a part more": lambda rows: [[*rows[0], 1], *rows[1:]],
    }
    for what, edit in lists.items():
        name = f"{TRANSCRIPT}: artefacts, {what}, signed by all"
        # A wrong hash is not the log's fault: the file is not what all signed.
        files = (TRANSCRIPT, "ledgers/bank-a.cbor") if "hash" in what else (TRANSCRIPT,)
        yield Mutation(name, "masking", EVERYBODY, _rows(edit), files)
    for file in ("metrics.json", "report.html", "ledgers/bank-d.cbor", MODEL, PLAN):
        name = f"{file}: not there and not listed, signed by all"
        yield Mutation(name, "masking", EVERYBODY, _missing(file), (file,))


OTHER_FILES: Final = (*_models(), *_figures(), *_lists())
