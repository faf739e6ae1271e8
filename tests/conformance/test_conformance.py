# SPDX-License-Identifier: Apache-2.0
"""The conformance runner: this package passes it, and nothing broken does."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ..vectors.generate import FILES
from ..vectors.test_vectors import Case, load

ROOT = Path(__file__).resolve().parents[2]
RUNNER = ROOT / "protocols" / "run_conformance.py"
ADAPTER = [sys.executable, "-m", "tests.conformance.adapter"]


def broken(mode: str) -> list[str]:
    return [sys.executable, "-m", "tests.conformance.broken", mode, "masking"]


def runner(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The runner as a stranger starts it: isolated from this package."""
    return subprocess.run(
        [sys.executable, "-S", str(RUNNER), *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
    )


def report(command: list[str], *options: str) -> dict[str, Any]:
    """The report of a run that must not conform."""
    ended = runner("--json", *options, "--", *command)
    assert ended.returncode == 1, ended.stderr
    assert ended.stderr == ""
    found: dict[str, Any] = json.loads(ended.stdout)
    assert found["conforms"] is False
    return found


def cases(kind: str, *, failing: bool) -> list[Case]:
    return [c for c in load(kind) if ("error" in c["expect"]) == failing]


def counts(found: dict[str, Any], what: str) -> dict[str, int]:
    return {kind: tally[what] for kind, tally in found["kinds"].items()}


def test_the_package_conforms() -> None:
    ended = runner("--require-all", "--", *ADAPTER)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    rows = [line.split() for line in ended.stdout.splitlines()]
    passed = {row[0]: [int(n) for n in row[1:]] for row in rows if row[0] in FILES}
    assert passed == {kind: [len(load(kind)), 0, 0] for kind in FILES}


def test_who_accepts_everything_fails_on_each_case_that_must_fail() -> None:
    found = report(broken("accepts"))
    assert counts(found, "failed") == {
        kind: len(cases(kind, failing=True)) for kind in FILES
    }


def test_who_refuses_everything_passes_nothing_but_bare_refusals() -> None:
    found = report(broken("refuses"))
    bare = {"error": "Refused"}
    assert counts(found, "passed") == {
        kind: sum(c["expect"] == bare for c in load(kind)) for kind in FILES
    }


def test_one_digit_of_any_result_is_enough() -> None:
    found = report(broken("flips"))
    assert counts(found, "failed") == {
        kind: len(cases(kind, failing=False)) for kind in FILES
    }


def test_another_culprit_fails() -> None:
    found = report(broken("blames"))
    assert counts(found, "failed") == {
        kind: sum(
            "culprit" in c["expect"]
            or any("refused" in o for o in c["input"].get("operations", []))
            for c in load(kind)
        )
        for kind in FILES
    }


def test_the_right_error_at_the_wrong_operation_fails() -> None:
    kinds = ["aggregator", "client"]
    found = report(broken("early"), "--kinds", ",".join(kinds))
    assert counts(found, "failed") == {
        kind: sum(len(c["input"]["operations"]) > 1 for c in cases(kind, failing=True))
        for kind in kinds
    }


def test_more_outcomes_than_operations_fail() -> None:
    found = report(broken("unasked"), "--kinds", "aggregator,client")
    assert counts(found, "passed") == {"aggregator": 0, "client": 0}


def test_one_digit_of_sealed_shares_fails() -> None:
    found = report(broken("reseals"), "--kinds", "client")
    assert counts(found, "failed") == {"client": len(cases("client", failing=False))}
    assert all("SealedShares" in f["reason"] for f in found["failures"])


def test_who_never_encodes_again_fails() -> None:
    found = report(broken("echoes"))
    failed = {kind for kind, n in counts(found, "failed").items() if n}
    assert failed == {"wire", "message", "key_text", "fixed_point", "tree"}


@pytest.mark.parametrize(
    ("mode", "reason"),
    [
        ("dies", "it ended or closed its output"),
        ("babbles", "it printed a line that is no reply: 'about to answer'"),
        ("repeats", "it did not answer request 4"),
    ],
)
def test_one_that_cannot_be_asked_any_more_stops_the_run(
    mode: str, reason: str
) -> None:
    found = report(broken(mode), "--kinds", "wire")
    assert found["stopped"].startswith(reason)
    # The first three cases had been answered well, and say so.
    assert found["kinds"] == {"wire": {"passed": 3, "failed": 0, "skipped": 0}}


@pytest.mark.parametrize("then", ["time.sleep(60)", "sys.stdin.read()"])
def test_one_that_hangs_stops_the_run(then: str) -> None:
    """After hello it answers no more: without reading on, or reading on for ever."""
    hello = {"id": 0, "result": {"specification": "secure-fl/masking/1"}}
    program = (
        f"import sys, time; sys.stdin.readline(); print({json.dumps(hello)!r}, "
        f"flush=True); {then}; time.sleep(60)"
    )
    stuck = [sys.executable, "-S", "-c", program]
    found = report(stuck, "--kinds", "aggregator", "--timeout", "1.5")
    assert found["stopped"] == "no answer within 1.5 s"
    assert counts(found, "passed") == {"aggregator": 0}


def test_skipping_everything_shows_nothing() -> None:
    found = report(broken("skips"), "--kinds", "wire")
    assert counts(found, "skipped") == {"wire": len(load("wire"))}
    found = report(broken("skips"), "--kinds", "wire", "--require-all")
    assert {f["reason"] for f in found["failures"]} == {"skipped"}


def test_another_specification_is_not_asked() -> None:
    found = report(broken("other"), "--kinds", "wire")
    assert "does not implement secure-fl/masking/1" in found["stopped"]


def test_no_answer_is_sent_to_the_implementation(tmp_path: Path) -> None:
    """What the adapter reads holds no expectation, description or check."""
    seen = tmp_path / "requests"
    spy = (
        "import sys, json\n"
        "with open(sys.argv[1], 'w') as seen:\n"
        "    for line in sys.stdin:\n"
        "        seen.write(line)\n"
        "        reply = {'id': json.loads(line)['id'], 'skip': True}\n"
        "        if reply['id'] == 0:\n"
        "            reply = {'id': 0, 'result': "
        "{'specification': 'secure-fl/masking/1'}}\n"
        "        print(json.dumps(reply), flush=True)\n"
    )
    report([sys.executable, "-c", spy, str(seen)])
    _, *requests = [json.loads(line) for line in seen.read_text().splitlines()]
    assert len(requests) == sum(len(load(kind)) for kind in FILES)
    for request in requests:
        assert set(request) == {"id", "kind", "input"}
        for operation in request["input"].get("operations", []):
            assert "refused" not in operation
    assert '"expect"' not in seen.read_text()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--", "no-such-program"], "cannot start no-such-program"),
        (["--", sys.executable, "-c", ""], "cannot start the implementation"),
        (["--kinds", "nonsense", "--", *ADAPTER], "no vectors of kind nonsense"),
        (["--vectors", "tests/conformance", "--", *ADAPTER], "no vectors there"),
        (["--timeout", "nan", "--", *ADAPTER], "--timeout is more than 0"),
        ([], "required: COMMAND"),
    ],
)
def test_a_wrong_command_line_is_said_so(arguments: list[str], message: str) -> None:
    ended = runner(*arguments)
    assert ended.returncode == 2
    assert message in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_file_that_holds_no_vectors_is_said_so(tmp_path: Path) -> None:
    (tmp_path / "wire.json").write_text('{"kind": "wire"', encoding="utf-8")
    ended = runner("--vectors", str(tmp_path), "--", *ADAPTER)
    assert ended.returncode == 2
    assert "wire.json: not a file of vectors" in ended.stderr
    assert "Traceback" not in ended.stderr
