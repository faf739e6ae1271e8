# SPDX-License-Identifier: Apache-2.0
"""The published schema of report.json, against reports of every kind of run."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jsonschema import Draft202012Validator

import secure_fl as sfl
from secure_fl.privacy import Unprotected
from secure_fl.report.build import SCHEMA
from secure_fl.report.fields import NOT_PROTECTED, not_claimed

from .sums import play as play_sums
from .sums import run as run_sums
from .sums import sums_plan
from .support import NAMES, SOURCE, Consortium, Made

FOLDER = Path(__file__).parents[2] / "protocols" / "report"
TREE: dict[str, Any] = json.loads((FOLDER / "report.schema.json").read_text())
VALIDATOR = Draft202012Validator(TREE)

PLAIN_ENTRIES = {"kind": "masking", "rate": "1.0", "overlap": "disjoint", "keys": ""}

KINDS = ("masking", "plain", "overlapping", "infinite", "secure", "ckks", "keyholder")
SETTINGS: dict[str, dict[str, Any]] = {
    "plain": {"kind": "plain"},
    "overlapping": {"overlap": "overlapping", "rate": "0.1"},
    "infinite": {"unprotected": "bank-b"},
    "secure": {"insecure": False, "ledgers_live_on": False},
}


@pytest.fixture(scope="module", params=KINDS)
def report(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    fixtures = {"masking": "made", "ckks": "one_time", "keyholder": "with_holder"}
    kind = request.param
    made: Made
    if kind in fixtures:
        made = request.getfixturevalue(fixtures[kind])
    else:
        made = Consortium(tmp_path_factory.mktemp("homes"), **SETTINGS[kind]).play()
    read: dict[str, Any] = json.loads(made.files["report.json"])
    return read


@pytest.fixture(scope="module")
def short(made: Made) -> dict[str, Any]:
    """A report with one client, so that many copies of it are quickly validated."""
    report = json.loads(made.files["report.json"])
    names = [f"bank-{letter}" for letter in "bcd"]
    for rows in (
        *(report[key] for key in ("releases", "ledgers", "epsilon_over_rounds")),
        report["claims"][0]["clients"],
        report["mechanism"]["normaliser"],
    ):
        for name in names:
            del rows[name]
    short: dict[str, Any] = report
    return short


# -- walking ---------------------------------------------------------------------------


def subschemas(node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Each schema below one of a JSON object or array, with its step: key, * or []."""
    if "$ref" in node:
        yield from subschemas(TREE["$defs"][node["$ref"].rpartition("/")[2]])
    for key, inner in node.get("properties", {}).items():
        yield key, inner
    for inner in node.get("patternProperties", {}).values():
        yield "*", inner
    for inner in node.get("prefixItems", []):
        yield "[]", inner
    if isinstance(node.get("items"), dict):
        yield "[]", node["items"]
    for inner in node.get("oneOf", []):
        yield from subschemas(inner)


def schema_paths(node: dict[str, Any], path: str = "") -> set[str]:
    out = {path}
    for step, inner in subschemas(node):
        out |= schema_paths(inner, f"{path}.{step}")
    return out


PATHS = schema_paths(TREE)


def places(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """Every value in a report with its path in the schema."""
    yield path, value
    if isinstance(value, dict):
        for key, inner in value.items():
            step = f"{path}.{key}"
            yield from places(inner, step if step in PATHS else f"{path}.*")
    elif isinstance(value, list):
        for inner in value:
            yield from places(inner, f"{path}.[]")


# -- what holds ------------------------------------------------------------------------


def test_the_schema_is_one_and_of_the_builders_version() -> None:
    Draft202012Validator.check_schema(TREE)
    assert TREE["properties"]["schema_version"] == {
        "description": TREE["properties"]["schema_version"]["description"],
        "const": SCHEMA,
    }
    properties = TREE["properties"]
    local = sfl.Plan((SOURCE % PLAIN_ENTRIES).encode())
    plans = (local, sums_plan(), sums_plan(unit="client"))
    ids = dict.fromkeys(i for plan in plans for i in not_claimed(plan))
    assert properties["not_claimed"]["items"]["enum"] == list(ids)
    covered = TREE["$defs"]["not_protected"]["items"]["enum"]
    assert covered == list(NOT_PROTECTED)
    assert TREE["$id"] == f"urn:{SCHEMA.replace('/', ':')}"


def test_a_built_report_is_valid(report: dict[str, Any]) -> None:
    errors = [f"{e.json_path}: {e.message}" for e in VALIDATOR.iter_errors(report)]
    assert errors == []


# Per protection and keys: who sees what, generators of masks and encryption, and the
# logarithm of the chance of a wrong rounding.
AES = "aes-256-ctr"
SEEN = {
    ("masking", ""): (["sum", "models-and-own", "sealed", "model"], AES, "none", None),
    ("plain", ""): (
        ["updates", "models-and-own", "updates", "model"],
        "none",
        "none",
        None,
    ),
    ("ckks", "one-time"): (
        ["sum", "models-and-own", "sealed", "model"],
        AES,
        AES,
        -40,
    ),
    ("ckks", "keyholder"): (
        ["sum", "models-and-own", "keys", "sealed", "model"],
        "none",
        AES,
        -40,
    ),
}


def test_each_protection_says_who_sees_what(report: dict[str, Any]) -> None:
    model, random = report["threat_model"], report["randomness"]
    keys = model.get("encryption", {"keys": ""})["keys"]
    sees, masks, encryption, wrong = SEEN[model["protection"], keys]
    assert [row["sees"] for row in model["adversaries"]] == sees
    assert (random["masks"], random["encryption"]) == (masks, encryption)
    assert report["numerics"]["wrong_rounding_log2"] == wrong
    assert report["numerics"]["step"] == report["mechanism"]["precision"]["step"]


def test_a_run_of_the_engine_is_valid_and_names_its_software() -> None:
    """Seeded by nothing, with ledgers that are thrown away, and no update protected."""
    source = SOURCE % PLAIN_ENTRIES
    plan = sfl.Plan(source.replace('"mlp"', '"custom"').encode())

    def exact(r: sfl.ClientRound) -> Unprotected:
        return sfl.unprotected(np.ones(20), reason="a rehearsal")

    trainers = dict.fromkeys(NAMES, exact)
    model = sfl.GlobalModel({"weight": np.zeros((4, 5), np.float32)})
    report = json.loads(sfl.run(plan, trainers, model=model).files["report.json"])
    errors = [f"{e.json_path}: {e.message}" for e in VALIDATOR.iter_errors(report)]
    assert errors == []
    assert report["tool"]["name"] == "secure-fl"
    assert report["tool"]["version"] == sfl.__version__
    assert list(report["tool"]["libraries"]) == ["dp-accounting", "numpy", "python"]
    assert report["randomness"]["keys"] == "operating-system"
    assert report["dates"]["first"] <= report["dates"]["last"]


def test_keys_stand_in_the_schemas_order(report: dict[str, Any]) -> None:
    assert list(report) == TREE["required"] == list(TREE["properties"])


def test_reports_and_schema_have_the_same_fields(
    made: Made,
    one_time: Made,
    with_holder: Made,
    tmp_path: Path,
) -> None:
    bare = Consortium(tmp_path, unprotected="bank-b").play()
    sums = (play_sums(), run_sums(unit="client", noise="discrete-gaussian"))
    runs: list[Made | sfl.Run] = [made, one_time, with_holder, bare, *sums]
    seen: set[str] = set()
    for run in runs:
        seen |= {path for path, _ in places(json.loads(run.files["report.json"]))}
    skipped = ".skipped_rounds.[]"  # a run in which every round was opened has none
    assert seen | {skipped} == PATHS


def test_every_field_is_described() -> None:
    def described(node: dict[str, Any], path: str) -> Iterator[str]:
        for step, inner in subschemas(node):
            target = inner
            if "$ref" in inner and "description" not in inner:
                target = TREE["$defs"][inner["$ref"].rpartition("/")[2]]
            if step != "[]" and not target.get("description", "").endswith("."):
                yield f"{path}.{step}"
            yield from described(inner, f"{path}.{step}")

    assert list(described(TREE, "")) == []


def test_the_specification_names_every_field() -> None:
    text = (FOLDER / "FIELDS.md").read_text()
    names = {step for path in PATHS for step in path.split(".")} - {"", "*", "[]"}
    missing = [
        name
        for name in sorted(names)
        if not any(f"{left}{name}" in text for left in ("`", "`.", ".", "{", ", ", '"'))
    ]
    assert missing == []


# -- what does not ---------------------------------------------------------------------

OPTIONAL = {".releases.*.[].event.count"}


def test_every_field_is_needed_and_has_its_type(short: dict[str, Any]) -> None:
    copied = copy.deepcopy(short)
    assert VALIDATOR.is_valid(copied)
    accepted, seen = [], set()
    for path, value in list(places(copied)):
        if not isinstance(value, dict) or path in seen:
            continue
        seen.add(path)
        for key in [*value, "another"]:
            step = f"{path}.{key}"
            kept = {key: value.pop(key)} if key in value else {}
            if step in PATHS - OPTIONAL and VALIDATOR.is_valid(copied):
                accepted.append(f"without {step}")
            value[key] = {"another": None}
            if VALIDATOR.is_valid(copied):
                accepted.append(f"another type of {step}")
            del value[key]
            value.update(kept)
    assert accepted == []
    assert VALIDATOR.is_valid(copied)


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("schema_version", "secure-fl/report/1"),
        ("report_id", "AB" * 32),
        ("report_id", "ab" * 31),
        ("dates/first", "2026-11-24 10:00:00"),
        ("subject/values", 0.5),
        ("plan/rounds", "2"),
        ("threat_model/encryption", {}),
        ("threat_model/protection", "ckks"),
        ("threat_model/assumptions/0/evidence", "believed"),
        ("claims/0/clients/bank-a/epsilon", -0.5),
        ("claims/0/clients/bank-a/epsilon", "inf"),
        ("claims/0/clients/bank-a/profile/0/0", 0.02),
        ("claims/0/clients/bank-a/trade_off/6/1", 1.5),
        ("claims/0/consortium/group/1/0", 3),
        ("claims/0/consortium/group/1", [5]),
        ("claims/0/consortium/releases_charged", 3),
        ("claims", []),
        ("mutation", {}),
        ("parties/4/role", "client"),
        ("exceptions/0/round", None),
        ("releases/bank-a/0/event/mechanism", "none"),
    ],
)
def test_a_changed_value_is_refused(
    short: dict[str, Any], place: str, value: Any
) -> None:
    copied = copy.deepcopy(short)
    *way, last = place.split("/")
    node: Any = copied
    for step in way:
        node = node[int(step)] if isinstance(node, list) else node[step]
    node[int(last) if isinstance(node, list) else last] = value
    assert not VALIDATOR.is_valid(copied)


def test_an_encrypted_run_tells_its_ring(one_time: Made) -> None:
    report = json.loads(one_time.files["report.json"])
    del report["threat_model"]["encryption"]
    assert not VALIDATOR.is_valid(report)
