# SPDX-License-Identifier: Apache-2.0
"""The runner with CKKS: this package passes it, and nothing broken does."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..vectors.ckks_generate import FILES
from ..vectors.ckks_replay import Case, load
from ..vectors.test_ckks_vectors import needs_backend
from .test_conformance import counts, report, runner

ADAPTER = [sys.executable, "-m", "tests.conformance.ckks_adapter"]
OPERATIONS = "client,keyholder,release,upload"


def broken(mode: str) -> list[str]:
    return [sys.executable, "-m", "tests.conformance.broken", mode, "ckks"]


def cases(kind: str, *, failing: bool) -> list[Case]:
    return [c for c in load(kind) if ("error" in c["expect"]) == failing]


@needs_backend
def test_the_package_conforms() -> None:
    ended = runner("--spec", "ckks", "--require-all", "--", *ADAPTER)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    head, *rest = ended.stdout.splitlines()
    assert head.startswith("secure-fl/ckks/1:")
    rows = [line.split() for line in rest]
    passed = {row[0]: [int(n) for n in row[1:]] for row in rows if row[0] in FILES}
    assert passed == {kind: [len(load(kind)), 0, 0] for kind in FILES}


@needs_backend
def test_who_accepts_everything_fails_on_each_case_that_must_fail() -> None:
    found = report(broken("accepts"), "--spec", "ckks")
    assert counts(found, "failed") == {
        kind: len(cases(kind, failing=True)) for kind in FILES
    }


@needs_backend
def test_one_digit_of_any_result_is_enough() -> None:
    found = report(broken("flips"), "--spec", "ckks")
    assert counts(found, "failed") == {
        kind: len(cases(kind, failing=False)) for kind in FILES
    }


def test_another_culprit_fails() -> None:
    kinds = ("keyholder", "upload")
    found = report(broken("blames"), "--spec", "ckks", "--kinds", ",".join(kinds))

    def names_one(outcome: Case) -> bool:
        return "culprit" in outcome

    assert counts(found, "failed") == {
        kind: sum(
            names_one(case["expect"])
            or any(names_one(o.get("refused", {})) for o in case["input"]["operations"])
            for case in load(kind)
        )
        for kind in kinds
    }


@needs_backend
def test_more_outcomes_than_operations_fail() -> None:
    found = report(broken("unasked"), "--spec", "ckks", "--kinds", OPERATIONS)
    assert set(counts(found, "passed").values()) == {0}


def test_who_never_encodes_again_fails() -> None:
    found = report(broken("echoes"), "--spec", "ckks", "--kinds", "message")
    assert counts(found, "failed") == {"message": len(cases("message", failing=False))}


def test_who_implements_masking_is_not_asked() -> None:
    masking = [sys.executable, "-m", "tests.conformance.adapter"]
    found = report(masking, "--spec", "ckks", "--kinds", "message")
    assert "does not implement secure-fl/ckks/1" in found["stopped"]


def dicts(value: Any) -> Iterator[Case]:
    if isinstance(value, dict):
        yield value
    if isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from dicts(part)


def test_no_recipe_and_no_answer_is_sent(tmp_path: Path) -> None:
    """What an implementation reads is hex, numbers and text."""
    seen = tmp_path / "requests"
    spy = (
        "import sys, json\n"
        "with open(sys.argv[1], 'w') as seen:\n"
        "    for line in sys.stdin:\n"
        "        seen.write(line)\n"
        "        reply = {'id': json.loads(line)['id'], 'skip': True}\n"
        "        if reply['id'] == 0:\n"
        "            reply = {'id': 0, 'result': "
        "{'specification': 'secure-fl/ckks/1'}}\n"
        "        print(json.dumps(reply), flush=True)\n"
    )
    report([sys.executable, "-c", spy, str(seen)], "--spec", "ckks")
    _, *requests = [json.loads(line) for line in seen.read_text().splitlines()]
    assert len(requests) == sum(len(load(kind)) for kind in FILES)
    recipes = {"expand", "short", "count", "blocks", "of", "encrypt", "sealed", "data"}
    answers = {"expect", "refused", "check", "description"}
    for request in requests:
        assert set(request) == {"id", "kind", "input"}
        for part in dicts(request["input"]):
            assert not part.keys() & (recipes | answers)
            for name in ("message", "bytes"):
                # But for hash and length of a sum that is to be opened.
                if "sha256" not in part:
                    bytes.fromhex(part.get(name, ""))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--spec", "other"], "invalid choice"),
        (["--spec", "ckks", "--kinds", "wire"], "no vectors of kind wire"),
        (
            ["--spec", "ckks", "--vectors", "protocols/masking/vectors/1"],
            "vectors of secure-fl/masking/1",
        ),
    ],
)
def test_a_wrong_command_line_is_said_so(arguments: list[str], message: str) -> None:
    ended = runner(*arguments, "--", *ADAPTER)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr
