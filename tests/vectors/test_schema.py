# SPDX-License-Identifier: Apache-2.0
"""Every file of vectors has the shape of protocols/vector.schema.json."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from functools import cache
from typing import Any

import pytest

from . import ckks_generate, generate
from .schema import Json, Schema

PROTOCOLS = generate.FOLDER.parents[2]
FILES = sorted(
    path.relative_to(PROTOCOLS).as_posix()
    for protocol in ("ckks", "masking")  # those of report have a form of their own
    for path in PROTOCOLS.glob(f"{protocol}/vectors/*/*.json")
)


@cache
def schema() -> Schema:
    text = (PROTOCOLS / "vector.schema.json").read_text(encoding="utf-8")
    return Schema(json.loads(text))


def content(name: str) -> Json:
    loaded: Json = json.loads((PROTOCOLS / name).read_text(encoding="utf-8"))
    return loaded


def test_all_files_are_looked_at() -> None:
    assert len(FILES) == len(generate.FILES) + len(ckks_generate.FILES)


@pytest.mark.parametrize("name", FILES)
def test_a_file_fits(name: str) -> None:
    # Case by case first: a file that does not fit then says where.
    loaded = content(name)
    for case in loaded["cases"]:
        assert schema().fits({**loaded, "cases": [case]}), case["description"]
    assert schema().fits(loaded)


# -- what must not fit -----------------------------------------------------------------

Change = Callable[[Json], Any]


def first(file: Json, *, failing: bool) -> Json:
    case: Json = next(c for c in file["cases"] if ("error" in c["expect"]) == failing)
    return case


WRONG: list[tuple[str, str, Change]] = [
    ("masking", "client", lambda f: f.pop("spec")),
    ("masking", "client", lambda f: f.update(spec="secure-fl/masking/2")),
    ("masking", "client", lambda f: f.update(spec="secure-fl/ckks/1")),
    ("masking", "client", lambda f: f.update(recipes="how")),
    ("masking", "client", lambda f: f.update(more=1)),
    ("masking", "client", lambda f: f.update(cases=[])),
    ("masking", "client", lambda f: first(f, failing=True).pop("check")),
    ("masking", "client", lambda f: first(f, failing=True).update(check="c1")),
    ("masking", "client", lambda f: first(f, failing=False).update(check="C1")),
    (
        "masking",
        "client",
        lambda f: first(f, failing=True)["expect"].update(error="SomeError"),
    ),
    (
        "masking",
        "client",
        lambda f: first(f, failing=True)["input"]["operations"][0].update(random="0"),
    ),
    (
        "masking",
        "client",
        lambda f: first(f, failing=True)["input"]["operations"][0].update(op="begin"),
    ),
    (
        "masking",
        "client",
        lambda f: f["sessions"]["session-1"]["parameters"].pop("threshold"),
    ),
    ("masking", "context", lambda f: f["cases"][0]["input"]["session"].pop("round")),
    ("ckks", "keyholder", lambda f: f.update(spec="secure-fl/masking/1")),
    ("ckks", "keyholder", lambda f: f["sessions"]["session-1"].pop("keyholder")),
    ("ckks", "keyholder", lambda f: f["sessions"]["session-1"].update(threshold=3)),
    (
        "ckks",
        "keyholder",
        lambda f: f["sessions"]["session-1"]["parameters"].update(keys="none"),
    ),
    ("ckks", "keyholder", lambda f: f["data"].update(new={"expand": "seed"})),
    ("ckks", "keyholder", lambda f: f["data"].update(new={"cut": 1, "of": [2]})),
    ("ckks", "keyholder", lambda f: f["data"].update(new={"data": "a", "cut": 1})),
    ("ckks", "open", lambda f: f["cases"][0]["input"]["parties"][0].pop("seed")),
    (
        "ckks",
        "open",
        lambda f: f["cases"][0]["input"]["parties"][0]["key"].update(set=[[1]]),
    ),
    (
        "ckks",
        "residues",
        lambda f: f["cases"][0]["input"]["block"].pop("prime_bits"),
    ),
    ("ckks", "upload", lambda f: f["cases"][0]["input"]["operations"][2].update(x=1)),
]


@pytest.mark.parametrize(("spec", "kind", "change"), WRONG)
def test_a_file_with_a_fault_does_not_fit(spec: str, kind: str, change: Change) -> None:
    loaded = copy.deepcopy(content(f"{spec}/vectors/1/{kind}.json"))
    change(loaded)
    assert not schema().fits(loaded)
