# SPDX-License-Identifier: Apache-2.0
"""Every mutation of a good run is refused by both verifiers, and the file named."""

from __future__ import annotations

import importlib.util
import json
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from secure_fl.errors import VerificationError
from secure_fl.report import verify_run

from .conftest import TENSEAL
from .kept import play as play_kept
from .mutations import BEYOND, CORPUS
from .mutations_bytes import BYTES
from .mutations_folder import EVERYBODY, NOBODY, REPORT, Folder, Mutation
from .mutations_report import SECTIONS
from .mutations_runs import AnotherRun, Plain
from .sums import RUNS as SUMS_RUNS
from .sums import play as play_sums
from .support import Made

SECOND = Path(__file__).parents[2] / "protocols" / "report" / "verify.py"


@cache
def second_verifier() -> ModuleType:
    """The independent verifier, which is a script and no part of a package."""
    spec = importlib.util.spec_from_file_location("second_verifier", SECOND)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def package(folder: Path) -> str:
    """Which file the package's verifier refuses; empty where it refuses none.

    Whatever else is raised, is an error of the verifier: nothing here catches it.
    """
    try:
        verify_run(folder)
    except VerificationError as error:
        return error.file
    return ""


def second(folder: Path) -> str:
    module = second_verifier()
    try:
        module.verify(folder)
    except module.Refused as refusal:
        return str(refusal.file)
    return ""


VERIFIERS = {"package": package, "second": second}


class Runs:
    """Each good run, played when it is first asked for."""

    def __init__(self, folder: Path, request: pytest.FixtureRequest) -> None:
        self._folder = folder
        self._request = request
        self._made: dict[str, Made] = {}

    def made(self, kind: str) -> Made:
        if kind not in self._made:
            self._made[kind] = self._play(kind)
        return self._made[kind]

    def _play(self, kind: str) -> Made:
        fixtures = {
            "masking": "made",
            "one-time": "one_time",
            "keyholder": "with_holder",
        }
        if kind in fixtures:
            made: Made = self._request.getfixturevalue(fixtures[kind])
            return made
        if kind == "kept with a key holder":
            pytest.importorskip("tenseal", reason=TENSEAL)
            return play_kept(kind="ckks", keys="keyholder")
        if kind == "kept":
            return play_kept()
        if kind in SUMS_RUNS:
            if SUMS_RUNS[kind].get("kind") == "ckks":
                pytest.importorskip("tenseal", reason=TENSEAL)
            return play_sums(**SUMS_RUNS[kind])
        home = self._folder / kind
        home.mkdir()
        return {"plain": Plain, "another": AnotherRun}[kind](home).play()

    def folder(self, kind: str, holds: tuple[str, ...]) -> Folder:
        made = self.made(kind)
        return Folder(made, holds, dict(made.files), self.made("another"))


@pytest.fixture(scope="session")
def runs(
    tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest
) -> Runs:
    return Runs(tmp_path_factory.mktemp("runs"), request)


def test_the_corpus_is_large_and_its_names_tell_them_apart() -> None:
    names = [m.name for m in (*CORPUS, *BEYOND)]
    assert len(set(names)) == len(names)
    assert len(CORPUS) >= 200


def test_every_section_of_a_report_is_mutated(runs: Runs) -> None:
    report = json.loads(runs.made("masking").files["report.json"])
    assert list(report) == list(SECTIONS)


def cases() -> list[Any]:
    """All mutations.  Forgers without all keys fall at few checks, whatever they change
    in the fields of a ledger, a report or an entry: one in six of these is enough where
    time is short, and all of them in the long run.  So it is with fields of a report of
    sums, beside all those of the other reports."""
    out = []
    for place, mutation in enumerate(CORPUS):
        alike = mutation.run in SUMS_RUNS and mutation.files == (REPORT,)
        everybody = mutation.holds == EVERYBODY and not alike
        often = everybody or mutation in BYTES or place % 6 == 0
        marks = [] if often else [pytest.mark.long]
        out.append(pytest.param(mutation, id=mutation.name, marks=marks))
    return out


@pytest.mark.parametrize("mutation", cases())
def test_a_mutation_is_refused(runs: Runs, mutation: Mutation, tmp_path: Path) -> None:
    folder = runs.folder(mutation.run, mutation.holds)
    mutation.edit(folder)
    assert folder.files != folder.made.files, "nothing was changed"
    path = folder.write(tmp_path)
    named = {name: verify(path) for name, verify in VERIFIERS.items()}
    assert set(named.values()) <= set(mutation.files), named


@pytest.mark.parametrize("apart", [2503, pytest.param(53, marks=pytest.mark.long)])
def test_any_byte(runs: Runs, apart: int, tmp_path: Path) -> None:
    """Bits all over the files, each alone: the file is named that it is in."""
    folder = runs.folder("masking", NOBODY)
    folder.write(tmp_path)
    for name, data in folder.files.items():
        path = tmp_path / name
        for at in range(len(data) % apart, len(data), apart):
            bit = 1 << (at % 8)
            path.write_bytes(data[:at] + bytes([data[at] ^ bit]) + data[at + 1 :])
            named = {who: verify(tmp_path) for who, verify in VERIFIERS.items()}
            assert set(named.values()) == {name}, (name, at, bit, named)
        path.write_bytes(data)


@pytest.mark.parametrize("mutation", BEYOND, ids=lambda m: m.name)
def test_what_all_parties_together_can_say(
    runs: Runs, mutation: Mutation, tmp_path: Path
) -> None:
    """No verifier refuses it: see ``mutations.py`` for what that means."""
    folder = runs.folder(mutation.run, mutation.holds)
    mutation.edit(folder)
    assert folder.files != folder.made.files
    path = folder.write(tmp_path)
    assert {name: verify(path) for name, verify in VERIFIERS.items()} == {
        "package": "",
        "second": "",
    }


RUNS = (
    "masking",
    "plain",
    "one-time",
    "keyholder",
    "kept",
    "kept with a key holder",
    *SUMS_RUNS,
)


@pytest.mark.parametrize("kind", RUNS)
def test_the_good_runs_hold(runs: Runs, kind: str, tmp_path: Path) -> None:
    """As they are, and with everything chained, built and signed once more."""
    folder = runs.folder(kind, EVERYBODY)
    folder.log(lambda rows: None)
    assert folder.files == folder.made.files
    for step in ("as it is", "rebuilt"):
        path = folder.write(tmp_path / step)
        for name, verify in VERIFIERS.items():
            assert verify(path) == "", name
        folder.rebuild()
        assert folder.files["report.json"] == folder.made.files["report.json"]
