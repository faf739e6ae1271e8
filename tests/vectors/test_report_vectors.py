# SPDX-License-Identifier: Apache-2.0
"""protocols/report/vectors/1, replayed by the package's verifier and by the second."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from secure_fl.errors import VerificationError
from secure_fl.report import verify_run
from secure_fl.transcript import BODIES

from . import report_primitives
from .report_generate import FOLDER, bytes_of, patched, render
from .report_runs import KINDS

RUNS = sorted(KINDS)
LATER = ("distributed-client", "distributed-record")
PROTOCOL = FOLDER.parents[1]
SPEC = (PROTOCOL / "SPEC.md").read_text(encoding="utf-8")


@cache
def content(run: str) -> dict[str, Any]:
    loaded: dict[str, Any]
    loaded = json.loads((FOLDER / f"{run}.json").read_text(encoding="utf-8"))
    return loaded


def good(run: str) -> dict[str, bytes]:
    return {name: bytes_of(data) for name, data in content(run)["files"].items()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def bad(run: str, case: dict[str, Any]) -> dict[str, bytes]:
    files = good(run)
    for name, edits in case["edits"].items():
        if edits is None:
            del files[name]
        else:
            files[name] = patched(files[name], edits)
    return files


def write_copy(folder: Path, case: dict[str, Any]) -> Path | None:
    """The auditor's own copy of the plan, where the case has one."""
    if "copy" not in case:
        return None
    copy = folder / "copy.toml"
    copy.write_text(case["copy"], encoding="utf-8")
    return copy


CASES = {
    f"{run}: {case['name']}": (run, case)
    for run in RUNS
    for case in content(run)["cases"]
}


def case_names() -> list[Any]:
    """Of ``LATER`` runs only the first case of each check is tried every time."""
    out, tried = [], set()
    for name, (run, case) in CASES.items():
        again = run in LATER and (run, case["check"]) in tried
        out.append(pytest.param(name, marks=pytest.mark.long if again else ()))
        tried.add((run, case["check"]))
    return out


@pytest.mark.parametrize("run", RUNS)
def test_a_good_folder_verifies(run: str, tmp_path: Path) -> None:
    verified = verify_run(write(tmp_path / "run", good(run)))
    expected = content(run)["expected"]
    assert verified.plan_hash == expected["plan_hash"]
    for name, value in expected["epsilon"].items():
        assert verified.epsilon[name] == pytest.approx(float(value), rel=1e-4)


@pytest.mark.parametrize("name", case_names())
def test_a_patched_folder_is_refused(name: str, tmp_path: Path) -> None:
    run, case = CASES[name]
    folder = write(tmp_path / "run", bad(run, case))
    copy = write_copy(tmp_path, case)
    with pytest.raises(VerificationError) as caught:
        verify_run(folder, plan_path=copy)
    assert caught.value.file == case["file"], caught.value


# -- the second verifier, by its command line ------------------------------------------


@cache
def second_verifier() -> ModuleType:
    spec = importlib.util.spec_from_file_location(
        "second_verifier", PROTOCOL / "verify.py"
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


# Where several checks could refuse the same bytes (SPEC 12, end), the other one.
ALSO = {"masking: a hash of 31 bytes in a round": "V-LOG-1"}


class Second:
    """Runs ``verify.py DIR --json [--plan FILE]`` in this process."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
    ) -> None:
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, folder: Path, copy: Path | None = None) -> dict[str, Any]:
        argv = ["verify.py", str(folder), "--json"]
        argv += ["--plan", str(copy)] if copy else []
        self._monkeypatch.setattr(sys, "argv", argv)
        code = second_verifier().main()
        said: dict[str, Any] = json.loads(self._capsys.readouterr().out)
        assert code == (0 if said["verified"] else 1)
        return said


@pytest.fixture
def second(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Second:
    return Second(monkeypatch, capsys)


@pytest.mark.parametrize("run", RUNS)
def test_the_second_verifier_takes_a_good_folder(
    run: str, tmp_path: Path, second: Second
) -> None:
    said = second(write(tmp_path / "run", good(run)))
    assert said["verified"], said
    for name, value in content(run)["expected"]["epsilon"].items():
        assert float(said["epsilon"][name]) == pytest.approx(float(value), rel=1e-4)


@pytest.mark.parametrize("name", case_names())
def test_the_second_verifier_refuses_a_patched_folder(
    name: str, tmp_path: Path, second: Second
) -> None:
    """With the same file, and for the same reason."""
    run, case = CASES[name]
    folder = write(tmp_path / "run", bad(run, case))
    said = second(folder, write_copy(tmp_path, case))
    assert not said["verified"]
    assert said["file"] == case["file"], said
    assert said["check"] in (case["check"], ALSO.get(name)), said


# -- the files -------------------------------------------------------------------------


@pytest.mark.parametrize("run", RUNS)
def test_the_generator_writes_these_bytes(run: str) -> None:
    if KINDS[run].needs_ckks:
        pytest.importorskip("tenseal", reason="CKKS is an extra")
    assert (FOLDER / f"{run}.json").read_text(encoding="utf-8") == render(run)


def test_the_schema_has_the_fields_of_the_log() -> None:
    schema = (PROTOCOL / "formats.cddl").read_text(encoding="utf-8")
    bodies = dict(re.findall(r'2: "([a-z]+)", +3: ([a-z]+) }', schema))
    assert set(bodies) == set(BODIES)
    for kind, name in bodies.items():
        body = re.search(rf"^{name} += {{([^}}]*)}}$", schema, flags=re.MULTILINE)
        assert body is not None
        keys = re.findall(r"(?:^|,)\s*(\d+):", body[1])
        assert [int(key) for key in keys] == list(BODIES[kind])


def test_every_check_has_a_failing_vector() -> None:
    rows = re.findall(r"^\| (V-[A-Z]+-\d+) \|", SPEC, flags=re.MULTILINE)
    assert len(rows) == len(set(rows)) > 60
    assert {case["check"] for _, case in CASES.values()} == set(rows)


def test_the_files_are_these() -> None:
    names = sorted([*(f"{run}.json" for run in RUNS), report_primitives.NAME])
    assert sorted(path.name for path in FOLDER.iterdir()) == names
    # Names are unique: a report about a failing vector says which.
    assert len(CASES) == sum(len(content(run)["cases"]) for run in RUNS)


@pytest.mark.parametrize("run", RUNS)
def test_the_form_is_the_one_described(run: str) -> None:
    file = content(run)
    parts = ["spec", "run", "about", "description", "expected", "files", "cases"]
    assert list(file) == parts
    assert sum(map(len, good(run).values())) < 100_000
    for case in file["cases"]:
        assert set(case) - {"copy"} == {"name", "check", "file", "edits"}
        assert case["edits"] or "copy" in case
        for name, edits in case["edits"].items():
            end = 0
            for offset, size, inside in edits or []:
                assert offset >= end
                assert size or inside
                end = offset + size
            assert end <= len(good(run)[name])
