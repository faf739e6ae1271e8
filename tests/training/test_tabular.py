# SPDX-License-Identifier: Apache-2.0
"""CSV files as the plan's [data] describes them."""

from __future__ import annotations

import contextlib
import math
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_fl.errors import PlanError, UsageError
from secure_fl.plan import Column, Data
from secure_fl.training import TabularSplit, feature_count, load_tabular, pooled

NAMES = ("bank-a", "bank-b", "bank-c")
SHARES = {"bank-a": 50, "bank-b": 30, "bank-c": 20}

CSV = """\
id,age,income,sex,default
1,20,0,m,0
2,45,1000,f,1
3,70,-50,f,0
4,95,31,m,1
"""


def data(**changes: Any) -> Data:
    entries: dict[str, Any] = {
        "label": "default",
        "classes": [0, 1],
        "columns": {
            "age": Column(low=20, high=70),
            "income": Column(low=0, high=1000, log=True),
            "sex": Column(values=["m", "f"]),
        },
        "drop": ["id"],
        "split": "rows",
        "file": "bank.csv",
        "test_fraction": 0.0,
    }
    return Data(**(entries | changes))


def read(
    folder: Path,
    text: str | bytes,
    *,
    names: tuple[str, ...] = ("bank-a",),
    **changes: Any,
) -> dict[str, TabularSplit]:
    content = text if isinstance(text, bytes) else text.encode()
    (folder / "bank.csv").write_bytes(content)
    return load_tabular(data(**changes), names=names, shares=SHARES, folder=folder)


def rows_by_order(split: TabularSplit) -> tuple[np.ndarray[Any, Any], list[int]]:
    order = np.lexsort(split.train_x.T)
    return split.train_x[order], split.train_y[order].tolist()


def test_values_are_clipped_scaled_and_coded(tmp_path: Path) -> None:
    split = read(tmp_path, CSV)["bank-a"]
    assert split.train_x.dtype == np.float32
    assert split.train_y.dtype == np.int64
    log = 2 * math.log1p(31) / math.log1p(1000) - 1
    expected = np.array(
        [
            [-1, -1, 1, 0],  # 20 is the lower bound, income 0 too
            [0, 1, 0, 1],  # 45 is the middle
            [1, -1, 0, 1],  # income below the bound is clipped
            [1, log, 1, 0],  # 95 is clipped
        ]
    )
    got, labels = rows_by_order(split)
    order = np.lexsort(expected.T)
    np.testing.assert_allclose(got, expected[order], atol=1e-6)
    assert labels == np.array([0, 1, 0, 1])[order].tolist()


def test_log_bounds_may_be_negative(tmp_path: Path) -> None:
    columns = {"v": Column(low=-9, high=9, log=True)}
    text = "v,default\n-9,0\n0,0\n9,1\n-3,1\n"
    split = read(tmp_path, text, columns=columns, drop=[])["bank-a"]
    got = sorted(split.train_x[:, 0].tolist())
    assert got == pytest.approx([-1, -math.log(4) / math.log(10), 0, 1])


def test_numbers_match_as_numbers_and_text_as_text(tmp_path: Path) -> None:
    columns = {"v": Column(values=[1, 2.5, "x", "03"])}
    text = "v,default\n1.0,0.0\n2.50,1\n x ,1.0\n03,0\n"
    split = read(tmp_path, text, columns=columns, drop=[])["bank-a"]
    assert split.train_x.sum(axis=0).tolist() == [1, 1, 1, 1]
    assert split.train_x.sum() == 4
    assert sorted(split.train_y.tolist()) == [0, 0, 1, 1]


def test_missing_at_the_midpoint(tmp_path: Path) -> None:
    text = CSV.replace("45,1000,f", "?,?,?")
    split = read(tmp_path, text, missing="midpoint", missing_values=["", "?"])["bank-a"]
    empty = (split.train_x == 0).all(axis=1)
    assert empty.sum() == 1
    assert split.train_y[empty].tolist() == [1]


def test_header_from_the_plan_and_byte_order_mark(tmp_path: Path) -> None:
    body = CSV.partition("\n")[2]
    named = read(tmp_path, body, header=["id", "age", "income", "sex", "default"])
    assert len(named["bank-a"].train_x) == 4
    assert len(read(tmp_path, "\ufeff" + CSV)["bank-a"].train_x) == 4


@pytest.mark.parametrize(
    ("old", "new", "says"),
    [
        ("45,1000", "old,1000", r"bank.csv:3: column 'age': not a finite number"),
        ("45,1000", "nan,1000", r"bank.csv:3: column 'age': not a finite number"),
        ("45,1000", "inf,1000", r"bank.csv:3: column 'age': not a finite number"),
        ("45,1000", ",1000", r"bank.csv:3: column 'age': the value is missing"),
        ("31,m", "31,x", r"bank.csv:5: column 'sex': the plan does not list"),
        ("31,m", "31,", r"bank.csv:5: column 'sex': the value is missing"),
        ("f,1", "f,2", r"bank.csv:3: column 'default': the plan does not list"),
        ("f,1", "f,", r"bank.csv:3: column 'default': the plan does not list"),
        ("f,1", "f,1,1", r"bank.csv:3: 6 cells, but there are 5 columns"),
        ("f,1", 'f,"1', r"bank.csv:\d: not CSV"),
        ("id,age", "age,age", r"share a name: age"),
        ("id,age", "key,age", r"lacks columns of the plan: id"),
        ("sex,default", "sex,label", r"lacks columns of the plan: default"),
    ],
)
def test_file_errors_say_where(tmp_path: Path, old: str, new: str, says: str) -> None:
    assert CSV.count(old) == 1
    with pytest.raises(UsageError, match=says) as caught:
        read(tmp_path, CSV.replace(old, new))
    assert caught.value.hint


def test_errors_never_quote_a_cell(tmp_path: Path) -> None:
    with pytest.raises(UsageError) as caught:
        read(tmp_path, CSV.replace("45,1000,f", "45,1000,secret"))
    assert "secret" not in f"{caught.value} {caught.value.hint}"


def test_undescribed_columns_are_listed(tmp_path: Path) -> None:
    text = "b,a,age,income,sex,default\n1,1,20,0,m,0\n"
    with pytest.raises(UsageError, match="does not mention: a, b"):
        read(tmp_path, text, drop=[])


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("", "has no rows"),
        ("id,age,income,sex,default\n", "has no rows"),
        (b"id,age\xff\n", "not UTF-8"),
    ],
)
def test_unreadable_files(tmp_path: Path, content: str | bytes, says: str) -> None:
    with pytest.raises(UsageError, match=says) as caught:
        read(tmp_path, content)
    assert caught.value.hint


def test_missing_file_points_to_data(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot read") as caught:
        load_tabular(data(), names=NAMES, shares=SHARES, folder=tmp_path)
    assert "--data" in caught.value.hint


@pytest.mark.parametrize(
    "changes",
    [
        {"classes": [1, 1.0]},
        {"label": "age"},
        {"drop": ["age"]},
        {"columns": {"age": Column(values=["a", "b", "a"])}},
    ],
)
def test_contradictory_plans(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    with pytest.raises(PlanError):
        read(tmp_path, CSV, **changes)


# -- splits ----------------------------------------------------------------------------


def many(rows: int, *, column: str = "") -> str:
    head = "value,default" + (",place" if column else "")
    places = ["north", "south", "west"]
    lines = [
        f"{i},{i % 2}" + (f",{places[i % 7 % 3]}" if column else "")
        for i in range(rows)
    ]
    return "\n".join([head, *lines]) + "\n"


def values(split: TabularSplit, rows: int) -> tuple[set[int], set[int]]:
    """Back to the numbers 0 .. rows - 1 that each part was made of."""
    train, test = (
        {round((x + 1) / 2 * rows) for x in part[:, 0].tolist()}
        for part in (split.train_x, split.test_x)
    )
    return train, test


def numbered(rows: int, **changes: Any) -> dict[str, Any]:
    columns = {"value": Column(low=0, high=rows)}
    return {"columns": columns, "drop": [], "test_fraction": 0.2} | changes


def test_rows_are_dealt_once_and_in_proportion(tmp_path: Path) -> None:
    splits = read(tmp_path, many(1000), names=NAMES, **numbered(1000))
    assert list(splits) == list(NAMES)
    assert [len(s.train_y) for s in splits.values()] == [400, 240, 160]
    assert [len(s.test_y) for s in splits.values()] == [100, 60, 40]
    parts = [part for s in splits.values() for part in values(s, 1000)]
    assert set().union(*parts) == set(range(1000))
    assert sum(len(p) for p in parts) == 1000
    for split in splits.values():  # rows keep their label
        x = np.rint((split.train_x[:, 0] + 1) / 2 * 1000).astype(int)
        assert (split.train_y == x % 2).all()
    everything = pooled(splits.values())
    assert len(everything.train_y) == 800
    assert len(everything.test_y) == 200


def test_the_split_follows_the_seed(tmp_path: Path) -> None:
    one, again, other = (
        read(tmp_path, many(100), **numbered(100, seed=seed))["bank-a"]
        for seed in (1, 1, 2)
    )
    assert (one.train_x == again.train_x).all()
    assert (one.train_x != other.train_x).any()


def test_split_by_column(tmp_path: Path) -> None:
    changes = numbered(
        210,
        split="column",
        split_column="place",
        split_values={"bank-a": ["north"], "bank-b": ["south"], "bank-c": ["west"]},
    )
    splits = read(tmp_path, many(210, column="place"), names=NAMES, **changes)
    for at, split in enumerate(splits.values()):
        train, test = values(split, 210)
        assert all(v % 7 % 3 == at for v in train | test)
        assert len(test) == round(0.2 * len(train | test))
    changes["split_values"] = {"bank-a": ["north"], "bank-b": ["south"]}
    with pytest.raises(
        UsageError, match=r"bank.csv:4: column 'place': this row belongs"
    ):
        read(tmp_path, many(210, column="place"), names=NAMES[:2], **changes)
    changes["split_values"] = {"bank-a": ["north", "west"], "bank-b": ["south", "west"]}
    with pytest.raises(PlanError, match="both bank-a and bank-b"):
        read(tmp_path, many(210, column="place"), names=NAMES[:2], **changes)


def test_split_by_files_reads_only_what_is_asked_for(tmp_path: Path) -> None:
    files = {name: f"{name}.csv" for name in NAMES}
    entries = data(**numbered(50, split="files", file=None, files=files))
    (tmp_path / "bank-b.csv").write_text(many(50))
    splits = load_tabular(entries, names=["bank-b"], shares=SHARES, folder=tmp_path)
    assert len(splits["bank-b"].train_y) == 40
    with pytest.raises(UsageError, match=r"cannot read .*bank-a.csv"):
        load_tabular(entries, names=NAMES, shares=SHARES, folder=tmp_path)


def test_everyone_keeps_a_row_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="bank-b gets no row"):
        read(tmp_path, many(2), names=NAMES, **numbered(2))


def test_feature_count_needs_no_file() -> None:
    assert feature_count(data()) == 4


def test_thirty_thousand_rows_load_quickly(tmp_path: Path) -> None:
    columns = {f"c{i}": Column(low=0, high=1e5, log=i % 2 == 0) for i in range(22)}
    columns["kind"] = Column(values=[1, 2, 3, 4])
    head = ",".join([*columns, "default"])
    body = [
        ",".join([str(i * 37 % 99991)] * 22 + [str(i % 4 + 1), str(i % 2)])
        for i in range(30_000)
    ]
    text = "\n".join([head, *body])
    read(tmp_path, CSV)
    start = time.perf_counter()
    splits = read(tmp_path, text, names=NAMES, columns=columns, drop=[])
    assert sum(len(s.train_y) for s in splits.values()) == 30_000
    assert time.perf_counter() - start < 3.0  # 0.5 s on an idle core


def test_no_torch_is_needed() -> None:
    code = (
        "import sys; from secure_fl.training import load_tabular; "
        "sys.exit('torch' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


@pytest.mark.parametrize("cut", range(0, len(CSV), 7))
def test_a_cut_file_is_read_or_refused_with_a_usage_error(
    tmp_path: Path, cut: int
) -> None:
    with contextlib.suppress(UsageError):
        assert len(read(tmp_path, CSV[:cut])["bank-a"].train_y) <= 4
