# SPDX-License-Identifier: Apache-2.0
"""A CSV file, described by the plan's ``[data]``, as arrays.  numpy only, no torch.

Every constant of the preprocessing is public: bounds, lists of values, the seed of the
split.  Nothing is computed from the rows, so nothing here has to be charged.  Who gets
a row, and whether it is held out, follows from that row's cells alone: one record more
or less moves no other.

Errors name the file, the line and the column, and never quote the cell: messages end
up in logs, and a cell is a piece of somebody's record.
"""

from __future__ import annotations

import csv
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
from numpy.typing import NDArray

from ..errors import PlanError, UsageError
from ..sections import Column, Data

__all__ = ["TabularSplit", "feature_count", "load_tabular", "pooled"]

_MISSING = (
    "mend it, or, if such a cell means missing, list it in [data] missing_values and "
    'set missing = "midpoint"'
)
_LOOSE = "mend the file, or describe the column in [data.columns]"


@final
@dataclass(frozen=True, eq=False, slots=True)
class TabularSplit:
    """One member's rows: what it trains on, and what it holds out.

    train_x, test_x
        features in [-1, 1], float32, one row per record
    train_y, test_y
        index into the plan's ``data.classes``, int64

    Each row of a file is in one part of one member; rows are in the file's order.
    """

    train_x: NDArray[np.float32]
    train_y: NDArray[np.int64]
    test_x: NDArray[np.float32]
    test_y: NDArray[np.int64]


@dataclass(frozen=True, eq=False, slots=True)
class _Table:
    """The cells of one file, column by column, stripped; ``lines`` for messages."""

    path: Path
    lines: list[int]
    columns: dict[str, list[str]]

    def refuse(self, row: int, column: str, what: str, *, hint: str) -> UsageError:
        return UsageError(
            f"{self.path}:{self.lines[row]}: column {column!r}: {what}", hint=hint
        )


def feature_count(data: Data) -> int:
    """How many features ``[data]`` makes of one row.  Reads no file."""
    return sum(1 if c.values is None else len(c.values) for c in data.columns.values())


def load_tabular(
    data: Data,
    *,
    names: Sequence[str],
    shares: Mapping[str, int],
    folder: Path,
) -> dict[str, TabularSplit]:
    """The members' splits, in the order of ``names``.

    names
        whose rows to make; for split = "rows" this must be every member, since the
        file is dealt out among them
    shares
        per member its public ``records``; split = "rows" deals in proportion to them
    folder
        where the plan's file names are looked up

    A hash of ``seed`` and of the row's own cells, dropped columns included, decides
    whether a row is held out (with probability ``test_fraction``) and, for split
    "rows", who gets it (in proportion to ``shares``).  So adding or removing a record
    changes one part of one member by one row, and the order of rows is irrelevant.
    In return sizes are approximate, and rows with equal cells stay together: where
    columns take few values, a column of stable ids that is dropped keeps them apart
    (not row numbers: they change when a record is removed).

    Raises PlanError where the plan contradicts itself and UsageError where a file
    does not fit the plan.
    """
    _check_entries(data)
    if data.files is not None:
        splits: dict[str, TabularSplit] = {}
        for name in names:
            table = _read(data, folder / data.files[name])
            splits |= _split(data, table, [name] * len(table.lines), [name])
        return splits
    assert data.file is not None  # plan.py: `file`, or split = "files"
    table = _read(data, folder / data.file)
    if data.split == "column":
        owners = _owners_by_value(data, table)
    else:
        owners = _deal(data, table, names, shares)
    return _split(data, table, owners, names)


def pooled(splits: Iterable[TabularSplit]) -> TabularSplit:
    """All members' rows as one.  For simulations: in a real run nobody has it."""
    every = list(splits)
    if not every:
        raise UsageError("there is nothing to pool")
    return TabularSplit(
        np.concatenate([s.train_x for s in every]),
        np.concatenate([s.train_y for s in every]),
        np.concatenate([s.test_x for s in every]),
        np.concatenate([s.test_y for s in every]),
    )


# -- reading -----------------------------------------------------------------------


def _read(data: Data, path: Path) -> _Table:
    rows: list[list[str]] = []
    lines: list[int] = []
    header = data.header
    try:
        # utf-8-sig: spreadsheets write a byte order mark in front of the header
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.reader(file, strict=True)
            for row in reader:
                if not row:
                    continue
                if header is None:
                    header = [cell.strip() for cell in row]
                    continue
                if len(row) != len(header):
                    raise UsageError(
                        f"{path}:{reader.line_num}: {len(row)} cells, "
                        f"but there are {len(header)} columns",
                        hint="mend the line"
                        if data.header is None
                        else "mend the line, or [data] header",
                    )
                rows.append(row)
                lines.append(reader.line_num)
    except OSError as error:
        raise UsageError(
            f"cannot read {path}: {error.strerror}",
            hint="--data names the folder in which the plan's files lie",
        ) from None
    except UnicodeDecodeError:
        raise UsageError(
            f"{path} is not UTF-8 text", hint="export it as a UTF-8 CSV file"
        ) from None
    except csv.Error as error:
        raise UsageError(
            f"{path}:{reader.line_num}: not CSV: {error}",
            hint="export it as a comma-separated file",
        ) from None
    if header is None or not rows:
        raise UsageError(f"{path} has no rows", hint="the file needs at least one row")
    _check_header(data, header, path)
    cells = {
        name: [cell.strip() for cell in column]
        for name, column in zip(header, zip(*rows, strict=True), strict=True)
    }
    return _Table(path, lines, cells)


def _check_entries(data: Data) -> None:
    for name, column in data.columns.items():
        if column.values is not None and len(_codes(column.values)) < len(
            column.values
        ):
            raise PlanError("lists a value twice", key=f"data.columns.{name}.values")
    if len(_class_codes(data)) < sum(map(len, _groups(data))):
        raise PlanError("lists a value twice", key="data.classes")
    if data.label in data.columns or data.label in data.drop:
        raise PlanError(
            f"column {data.label!r} is the label and cannot be a feature or dropped",
            key="data.label",
        )
    both = sorted(set(data.columns) & set(data.drop))
    if both:
        raise PlanError(
            f"both described and dropped: {', '.join(both)}", key="data.drop"
        )


def _check_header(data: Data, header: Sequence[str], path: Path) -> None:
    known = {data.label, *data.columns, *data.drop}
    if data.split_column is not None:
        known.add(data.split_column)
    if data.header is None and not known & set(header):
        # Not quoted: without a header, the first line is somebody's record.
        raise UsageError(
            f"the first line of {path} names no column of the plan",
            hint="if the file has no header line, list its columns in [data] header",
        )
    if len(set(header)) < len(header):
        twice = sorted({name for name in header if header.count(name) > 1})
        raise UsageError(
            f"{path}: two columns share a name: {', '.join(twice)}",
            hint="rename one of them",
        )
    lacking = sorted(known - set(header))
    if lacking:
        raise UsageError(
            f"{path} lacks columns of the plan: {', '.join(lacking)}",
            hint="compare the file's header with [data], capitals included",
        )
    unknown = sorted(set(header) - known)
    if unknown:
        raise UsageError(
            f"{path} has columns that the plan does not mention: {', '.join(unknown)}",
            hint="describe each in [data.columns], or list it in [data] drop",
        )


# -- cells to numbers ----------------------------------------------------------------


def _codes(values: Sequence[str | int | float]) -> dict[str | float, int]:
    """Position by value.  Numbers are compared as numbers: 3, 3.0 and "3" are one."""
    return {v if isinstance(v, str) else float(v): i for i, v in enumerate(values)}


def _groups(data: Data) -> list[Sequence[str | int | float]]:
    """The values of each class; a class that is no list has one."""
    return [c if isinstance(c, list) else [c] for c in data.classes]


def _class_codes(data: Data) -> dict[str | float, int]:
    """The class by value."""
    codes: dict[str | float, int] = {}
    for i, group in enumerate(_groups(data)):
        codes |= dict.fromkeys(_codes(group), i)
    return codes


def _code(cell: str, codes: Mapping[str | float, int]) -> int:
    """The position of a cell among the listed values, or -1."""
    at = codes.get(cell)
    if at is None:
        try:
            at = codes.get(float(cell))
        except ValueError:
            return -1
    return -1 if at is None else at


def _features(data: Data, table: _Table) -> NDArray[np.float32]:
    out = np.empty((len(table.lines), feature_count(data)), np.float32)
    at = 0
    for name, column in data.columns.items():
        cells = table.columns[name]
        missing = {*data.missing_values, *column.missing_values}
        absent = np.zeros(len(cells), np.bool_)
        if not missing.isdisjoint(cells):
            absent[:] = [cell in missing for cell in cells]
        if data.missing == "refuse" and absent.any():
            raise table.refuse(
                int(absent.argmax()),
                name,
                "the value is missing",
                hint='fill it in, or set missing = "midpoint" in [data]',
            )
        if column.values is None:
            out[:, at] = _numeric(table, name, column, absent)
            at += 1
        else:
            width = len(column.values)
            out[:, at : at + width] = _one_hot(table, name, column.values, absent)
            at += width
    return out


def _numeric(
    table: _Table, name: str, column: Column, absent: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Clipped to the public bounds, mapped to [-1, 1]; missing is the midpoint 0."""
    assert column.low is not None  # plan.py: bounds, or values
    assert column.high is not None
    low, high = column.low, column.high
    values = _floats(table.columns[name])
    values[absent] = 0.0
    if not np.isfinite(values).all():
        row = int(np.isfinite(values).argmin())
        raise table.refuse(row, name, "not a finite number", hint=_MISSING)
    values = np.clip(values, low, high)
    if column.log:
        values, low, high = _signed_log(values), _log(low), _log(high)
    scaled = 2.0 * (values - low) / (high - low) - 1.0
    scaled[absent] = 0.0
    return scaled


def _floats(cells: Sequence[str]) -> NDArray[np.float64]:
    """The cells as numbers; NaN where a cell is none."""
    try:
        return np.array(list(map(float, cells)))
    except ValueError:
        return np.array([_float(cell) for cell in cells])


def _float(cell: str) -> float:
    try:
        return float(cell)
    except ValueError:
        return math.nan


def _signed_log(values: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.sign(values) * np.log1p(np.abs(values))


def _log(bound: float) -> float:
    return math.copysign(math.log1p(abs(bound)), bound)


def _one_hot(
    table: _Table,
    name: str,
    values: Sequence[str | int | float],
    absent: NDArray[np.bool_],
) -> NDArray[np.float32]:
    """One feature per listed value, in the plan's order; missing is all zeros."""
    at = _encode(table, name, _codes(values), absent)
    out = np.zeros((len(at), len(values)), np.float32)
    present = np.flatnonzero(~absent)
    out[present, at[present]] = 1.0
    return out


def _encode(
    table: _Table,
    name: str,
    codes: Mapping[str | float, int],
    absent: NDArray[np.bool_],
) -> NDArray[np.int64]:
    cells = table.columns[name]
    known = {cell: _code(cell, codes) for cell in set(cells)}
    out = np.array([known[cell] for cell in cells], np.int64)
    strange = (out < 0) & ~absent
    if strange.any():
        raise table.refuse(
            int(strange.argmax()),
            name,
            "the plan does not list this value",
            hint="mend the file, or add the value to the plan's list",
        )
    return out


def _labels(data: Data, table: _Table) -> NDArray[np.int64]:
    present = np.zeros(len(table.lines), np.bool_)  # a label is never missing
    return _encode(table, data.label, _class_codes(data), present)


# -- who gets which row ----------------------------------------------------------------


def _places(data: Data, table: _Table, purpose: str) -> NDArray[np.float64]:
    """Per row a number from 0 to 1 that follows from its cells and public constants.

    A hash, not a draw of secure_fl.randomness: every member must come to the same
    split.  And not a permutation of the rows: one record would move all others.
    JSON tells any two rows apart; the columns are in the order of their names, since
    another member's copy of the file may hold them in another one.
    """
    start = hashlib.blake2b(f"{data.seed}\0{purpose}\0".encode(), digest_size=8)
    digests = []
    columns = (table.columns[name] for name in sorted(table.columns))
    for cells in zip(*columns, strict=True):
        state = start.copy()
        state.update(json.dumps(cells).encode())
        digests.append(state.digest())
    places: NDArray[np.float64] = np.frombuffer(b"".join(digests), ">u8") / 2.0**64
    return places


def _split(
    data: Data, table: _Table, owners: Sequence[str], names: Sequence[str]
) -> dict[str, TabularSplit]:
    """The rows of ``names``, each held out or trained on.  ``owners``: one per row."""
    x, y = _features(data, table), _labels(data, table)
    held_out = _places(data, table, "test") < data.test_fraction
    owner = np.array(owners)
    out: dict[str, TabularSplit] = {}
    for name in names:
        own = owner == name
        train, test = own & ~held_out, own & held_out
        if not train.any():
            raise UsageError(
                f"{table.path} leaves {name} no row to train on",
                hint="add rows, lower test_fraction in [data], or use fewer members",
            )
        out[name] = TabularSplit(x[train], y[train], x[test], y[test])
    return out


def _owners_by_value(data: Data, table: _Table) -> list[str]:
    assert data.split_column is not None  # plan.py: they go with split = "column"
    assert data.split_values is not None
    owner: dict[str, str] = {}
    for name, values in data.split_values.items():
        for value in values:
            if owner.setdefault(value, name) != name:
                raise PlanError(
                    f"{value!r} is given to both {owner[value]} and {name}",
                    key="data.split_values",
                )
    cells = table.columns[data.split_column]
    for row, cell in enumerate(cells):
        if cell not in owner:
            raise table.refuse(
                row,
                data.split_column,
                "this row belongs to no member",
                hint="list the value in [data.split_values], or remove the row",
            )
    owners = [owner[cell] for cell in cells]
    for name in sorted(set(data.split_values) - set(owners)):
        raise UsageError(
            f"{table.path} has no row for {name}",
            hint="compare [data.split_values] with the file",
        )
    return owners


def _deal(
    data: Data, table: _Table, names: Sequence[str], shares: Mapping[str, int]
) -> list[str]:
    """One owner per row, in proportion to ``shares``."""
    ends = np.cumsum([shares[name] for name in names])
    # Without the last end, which a place may be rounded up to.
    at = np.searchsorted(
        ends[:-1] / ends[-1], _places(data, table, "owner"), side="right"
    )
    return [names[i] for i in at.tolist()]
