# SPDX-License-Identifier: Apache-2.0
"""CSV files as the plan's [data] describes them."""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from secure_fl.errors import PlanError, UsageError
from secure_fl.sections import Column, Data
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


def test_missing_in_one_column_only(tmp_path: Path) -> None:
    columns = {
        "age": Column(low=-20, high=40),
        "income": Column(low=-100, high=100, missing_values=["0"]),
    }
    text = "age,income,default\n0,0,0\n40,100,1\n"
    entries: dict[str, Any] = {"columns": columns, "drop": []}
    with pytest.raises(UsageError, match="2: column 'income': the value is missing"):
        read(tmp_path, text, **entries)
    split = read(tmp_path, text, missing="midpoint", **entries)["bank-a"]
    got, _ = rows_by_order(split)
    np.testing.assert_allclose(got, np.array([[-1 / 3, 0], [1, 1]]), atol=1e-6)


def test_a_class_may_take_several_values_together(tmp_path: Path) -> None:
    columns = {"v": Column(low=0, high=4)}
    text = "v,default\n" + "".join(f"{i},{i}.0\n" for i in range(5))
    entries: dict[str, Any] = {"columns": columns, "drop": []}
    split = read(tmp_path, text, classes=[0, [1, 2, 4], [3]], **entries)["bank-a"]
    v = ((split.train_x[:, 0] + 1) * 2).round().astype(int)
    got = dict(zip(v.tolist(), split.train_y.tolist(), strict=True))
    assert got == {0: 0, 1: 1, 2: 1, 3: 2, 4: 1}


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
        {"classes": [0, [1, 2], [2, 3]]},
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
    # the sizes are binomial: within four standard deviations
    for split, share in zip(splits.values(), (0.5, 0.3, 0.2), strict=True):
        for part, expected in ((split.train_y, 800), (split.test_y, 200)):
            mean = expected * share
            assert abs(len(part) - mean) < 4 * math.sqrt(mean)
    parts = [part for s in splits.values() for part in values(s, 1000)]
    assert set().union(*parts) == set(range(1000))
    assert sum(len(p) for p in parts) == 1000
    for split in splits.values():  # rows keep their label
        x = np.rint((split.train_x[:, 0] + 1) / 2 * 1000).astype(int)
        assert (split.train_y == x % 2).all()
    everything = pooled(splits.values())
    assert len(everything.train_y) == sum(len(s.train_y) for s in splits.values())
    assert len(everything.test_y) == sum(len(s.test_y) for s in splits.values())


def test_the_split_follows_the_seed(tmp_path: Path) -> None:
    one, again, other = (
        read(tmp_path, many(100), **numbered(100, seed=seed))["bank-a"]
        for seed in (1, 1, 2)
    )
    assert (one.train_x == again.train_x).all()
    assert values(one, 100) != values(other, 100)


SPLITS: dict[str, dict[str, Any]] = {
    "rows": {},
    "files": {
        "split": "files",
        "file": None,
        "files": dict.fromkeys(NAMES, "bank.csv"),
    },
    "column": {
        "split": "column",
        "split_column": "place",
        "split_values": {"bank-a": ["north"], "bank-b": ["south"], "bank-c": ["west"]},
    },
}


def parts_of(folder: Path, lines: list[str], split: str) -> Counter[tuple[Any, ...]]:
    """(member, part, features, label), counted."""
    changes = numbered(200) | SPLITS[split]
    if split != "column":
        changes["drop"] = ["place"]
    # with split "files" one member reads the file; the others have their own
    names = NAMES[:1] if split == "files" else NAMES
    splits = read(folder, "\n".join(lines), names=names, **changes)
    return Counter(
        (name, part, *x.tolist(), int(label))
        for name, s in splits.items()
        for part, features, labels in (
            ("train", s.train_x, s.train_y),
            ("test", s.test_x, s.test_y),
        )
        for x, label in zip(features, labels, strict=True)
    )


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("at", [1, 57, 101])
def test_one_more_row_changes_one_part_of_one_member_by_one(
    tmp_path: Path, split: str, at: int
) -> None:
    lines = many(100, column="place").splitlines()
    before = parts_of(tmp_path, lines, split)
    touched = set()
    for value in (*range(150, 170), 3):  # the last one is a duplicate
        wider = [*lines[:at], f"{value},{value % 2},south", *lines[at:]]
        after = parts_of(tmp_path, wider, split)
        assert not before - after
        (key,) = (after - before).elements()
        touched.add(key[:2])
    # rows go to both parts, and are dealt out where the split deals
    assert {part for _, part in touched} == {"train", "test"}
    assert len({name for name, _ in touched}) == (3 if split == "rows" else 1)


@pytest.mark.parametrize("split", SPLITS)
def test_the_order_of_rows_and_columns_does_not_matter(
    tmp_path: Path, split: str
) -> None:
    lines = many(100, column="place").splitlines()
    before = parts_of(tmp_path, lines, split)
    draw = np.random.default_rng(1)
    shuffled = [lines[0], *draw.permutation(lines[1:]).tolist()]
    assert parts_of(tmp_path, shuffled, split) == before
    turned = [" , ".join(reversed(line.split(","))) for line in lines]
    assert parts_of(tmp_path, turned, split) == before


def test_who_gets_a_row_is_a_hash_of_its_cells(tmp_path: Path) -> None:
    def place(purpose: str, *cells: str) -> float:
        text = f"8\0{purpose}\0{json.dumps(cells)}"
        digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
        return int.from_bytes(digest) / 2**64

    splits = read(tmp_path, many(100), names=NAMES, **numbered(100, seed=8))
    got = [values(s, 100) for s in splits.values()]
    for i in range(100):
        cells = str(i % 2), str(i)  # columns "default" and "value"
        at = sum(place("owner", *cells) >= end for end in (0.5, 0.8))
        assert i in got[at][place("test", *cells) < 0.2]


def test_equal_rows_stay_together_unless_a_dropped_id_differs(tmp_path: Path) -> None:
    equal = "value,default,id\n" + "5,1,0\n" * 60
    changes = numbered(10, drop=["id"], test_fraction=0.4)
    for seed in range(20):
        with contextlib.suppress(UsageError):  # all held out
            split = read(tmp_path, equal, **changes, seed=seed)["bank-a"]
            assert (len(split.train_y), len(split.test_y)) == (60, 0)
    with_ids = "value,default,id\n" + "".join(f"5,1,{i}\n" for i in range(60))
    split = read(tmp_path, with_ids, **changes)["bank-a"]
    assert len(split.test_y) > 10
    assert len(split.train_y) > 20


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
        count = len(train | test)
        assert abs(len(test) - 0.2 * count) < 4 * math.sqrt(0.16 * count)
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
    train, test = values(splits["bank-b"], 50)
    assert sorted([*train, *test]) == list(range(50))
    with pytest.raises(UsageError, match=r"cannot read .*bank-a.csv"):
        load_tabular(entries, names=NAMES, shares=SHARES, folder=tmp_path)


def test_everyone_keeps_a_row_to_train_on(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"leaves bank-. no row to train on") as caught:
        read(tmp_path, many(2), names=NAMES, **numbered(2))
    assert caught.value.hint


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
