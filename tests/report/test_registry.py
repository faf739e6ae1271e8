# SPDX-License-Identifier: Apache-2.0
"""The draft for the public registry: its form, its numbers, and what it leaves open."""

from __future__ import annotations

import importlib
import json
import re
from typing import Any

import pytest

from secure_fl.errors import UsageError
from secure_fl.report.registry import registry_yaml

from .support import Made

# What the registry's schema asks of an entry of its third tier.
TIERS = {
    "basic": {
        "name",
        "data_curators",
        "description",
        "intended_use",
        "data_product_type",
        "data_product_region",
        "data_product_sector",
        "publication_date",
    },
    "dp_variant": {"variant_name", "data_domain", "unprotected_quantities"},
    "privacy_loss": {
        "privacy_unit",
        "privacy_unit_details",
        "number_of_privacy_units",
        "privacy_parameters",
        "privacy_parameters_details",
    },
    "deployment_model": {
        "model_name",
        "model_name_details",
        "trust_assumptions",
        "actors",
        "release_type",
        "release_type_details",
        "data_source_type",
        "access_type",
    },
    "implementation": {
        "preprocessing_and_hyperparameter_tuning",
        "mechanisms",
        "composition",
        "post_processing",
        "justification",
        "utility",
        "additional_information",
    },
    "administrative": {"status", "registry_authors", "tier"},
}
WORDS = {
    "data_product_type": "Machine learning model",
    "variant_name": "Approximate DP",
    "model_name": "Federated",
    "release_type": "One release",
    "data_source_type": "Static",
    "access_type": "Non-interactive",
    "status": "Draft",
}


@pytest.fixture
def report(made: Made) -> dict[str, Any]:
    data: dict[str, Any] = json.loads(made.files["report.json"])
    # Seeded randomness makes these tests cheap; nobody may register such a run.
    return data | {"insecure": False}


def read(document: str) -> Any:
    """The small part of YAML that an entry is written in."""
    lines = [line for line in document.splitlines() if not line.startswith("#")]
    value, rest = mapping(lines, 0)
    assert rest == []
    return value


def scalar(text: str) -> Any:
    if text.startswith('"'):
        return json.loads(text)
    assert re.fullmatch(r"[0-9]+(\.[0-9]+(e[+-][0-9]+)?)?", text), text
    return float(text) if "." in text else int(text)


def mapping(lines: list[str], indent: int) -> tuple[dict[str, Any], list[str]]:
    out: dict[str, Any] = {}
    while lines and re.match(f" {{{indent}}}[a-z]", lines[0]):
        key, _, value = lines[0].strip().partition(":")
        lines = lines[1:]
        assert key not in out
        if value:
            out[key] = scalar(value.removeprefix(" "))
        elif lines[0].lstrip().startswith("- "):
            out[key], lines = sequence(lines, indent + 2)
        else:
            out[key], lines = mapping(lines, indent + 2)
    return out, lines


def sequence(lines: list[str], indent: int) -> tuple[list[Any], list[str]]:
    out: list[Any] = []
    while lines and lines[0].startswith(" " * indent + "- "):
        item = lines[0][indent + 2 :]
        if item.startswith('"'):
            out.append(scalar(item))
            lines = lines[1:]
        else:
            entry, lines = mapping([" " * (indent + 2) + item, *lines[1:]], indent + 2)
            out.append(entry)
    return out, lines


def test_its_form_is_the_schemas(report: dict[str, Any]) -> None:
    entry = read(registry_yaml(report))
    assert set(entry) == {"url_slug", "deployment"}
    assert re.fullmatch(r"[a-z0-9-]+", entry["url_slug"])
    assert {name: set(part) for name, part in entry["deployment"].items()} == TIERS
    flat = {k: v for part in entry["deployment"].values() for k, v in part.items()}
    for key, word in WORDS.items():
        assert flat[key] == word
    assert flat["tier"] == 3


def test_its_numbers_are_the_reports(report: dict[str, Any]) -> None:
    claim = report["claims"][0]
    loss = read(registry_yaml(report))["deployment"]["privacy_loss"]
    assert loss["privacy_parameters"] == {
        "epsilon": claim["consortium"]["epsilon"],
        "delta": claim["delta"],
    }
    assert claim["delta"] == 1e-5
    assert "delta: 1.0e-05\n" in registry_yaml(report)
    assert loss["number_of_privacy_units"] == 400 + 300 + 200 + 100


def test_what_a_report_cannot_know_is_left_open(report: dict[str, Any]) -> None:
    entry = read(registry_yaml(report))["deployment"]
    curator = entry["basic"]["data_curators"][0]
    for value in (
        *curator.values(),
        entry["basic"]["intended_use"],
        entry["basic"]["publication_date"],
        entry["implementation"]["justification"],
        entry["administrative"]["registry_authors"][0],
    ):
        assert value.startswith("TO FILL IN: ")


def test_a_simulation_says_so(report: dict[str, Any]) -> None:
    for simulation in (True, False):
        report["simulation"] = simulation
        told = read(registry_yaml(report))["deployment"]["basic"]["description"]
        assert ("on one machine" in told) is simulation


@pytest.mark.parametrize("why", ["insecure", "infinite"])
def test_nothing_to_register(report: dict[str, Any], why: str) -> None:
    if why == "insecure":
        report["insecure"] = True
    else:
        report["claims"][0]["consortium"]["epsilon"] = "infinity"
    with pytest.raises(UsageError, match="no place in the registry"):
        registry_yaml(report)


NASTY = 'x": [1]\n- y: &a "\\\u2028\x85\x1b\ud800 # {银行} \U0001f600'


def test_hostile_names(report: dict[str, Any]) -> None:
    report["plan"]["name"] = NASTY
    document = registry_yaml(report)
    told = read(document)["deployment"]["basic"]["name"]
    assert told == NASTY.translate(dict.fromkeys((0x2028, 0x85, 0x1B, 0xD800), " "))
    assert document.encode()
    assert all(c.isprintable() or c == "\n" for c in document)


def test_a_yaml_parser_agrees(report: dict[str, Any]) -> None:
    try:
        yaml = importlib.import_module("yaml")
    except ImportError:
        pytest.skip("no YAML parser is installed")
    for name in ("credit demo", NASTY):
        report["plan"]["name"] = name
        document = registry_yaml(report)
        assert yaml.safe_load(document) == read(document)
