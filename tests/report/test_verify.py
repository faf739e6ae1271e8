# SPDX-License-Identifier: Apache-2.0
"""A good run is accepted; every single lie is refused, and its file named."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl import wire
from secure_fl.errors import UsageError, VerificationError
from secure_fl.identity import Identity, key_to_text
from secure_fl.model import GlobalModel
from secure_fl.randomness import SystemRandom
from secure_fl.report import Verified, verify_run
from secure_fl.report.verify import first_difference
from secure_fl.transcript import Transcript

from .support import Consortium, Made, rewritten, source_plan, with_file

TRANSCRIPT = "transcript.cbor"
FILES = (
    "plan.toml",
    "model.safetensors",
    "metrics.json",
    TRANSCRIPT,
    "report.json",
    "report.html",
    "report.txt",
    "ledgers/bank-a.cbor",
    "ledgers/bank-d.cbor",
)

Row = tuple[str, dict[int, Any], int]


def refused(folder: Path, *, plan_path: Path | None = None) -> VerificationError:
    with pytest.raises(VerificationError) as caught:
        verify_run(folder, plan_path=plan_path)
    assert str(caught.value)
    return caught.value


# -- what holds ------------------------------------------------------------------------


def test_a_good_run_is_accepted(made: Made, folder: Path) -> None:
    verified = verify_run(folder)
    assert verified.plan_hash == made.plan.hash.hex()
    report = json.loads(made.files["report.json"])
    for name, figures in report["claims"][0]["clients"].items():
        assert verified.epsilon[name] == pytest.approx(figures["epsilon"], rel=1e-5)
    assert any("recomputed" in line for line in verified.checks)
    # bank-c failed while it uploaded: its ledger says sent, the log holds no vector
    assert [line for line in verified.not_checked if line.startswith("bank-c wrote")]
    assert [
        line for line in verified.not_checked if line.startswith("what report.html")
    ]
    # it is a simulation from a seed, and says so
    assert any("simulation" in line for line in verified.not_checked)
    assert any("seeded" in line for line in verified.not_checked)
    # what no file can show is said every time
    assert any("whole history" in line for line in verified.not_checked)
    assert any("own training code" in line for line in verified.not_checked)


@pytest.mark.parametrize(
    ("kind", "rate", "overlap", "unprotected"),
    [
        ("plain", "1.0", "disjoint", ""),
        ("masking", "0.1", "overlapping", ""),
        ("masking", "1.0", "disjoint", "bank-b"),
    ],
)
def test_other_good_runs_are_accepted(
    tmp_path: Path, kind: str, rate: str, overlap: str, unprotected: str
) -> None:
    homes = tmp_path / "homes"
    homes.mkdir()
    made = Consortium(
        homes, kind=kind, rate=rate, overlap=overlap, unprotected=unprotected
    ).play()
    verified = verify_run(made.write(tmp_path / "run"))
    infinite = {name for name, value in verified.epsilon.items() if value == np.inf}
    assert infinite == ({unprotected} if unprotected else set())


def test_extra_files_are_listed(folder: Path) -> None:
    (folder / "notes.md").write_text("mine")
    (folder / "ledgers" / "bank-x.cbor").write_bytes(b"")
    lines = [x for x in verify_run(folder).not_checked if "notes.md" in x]
    assert len(lines) == 1
    assert "ledgers/bank-x.cbor" in lines[0]


def test_the_auditors_copy_of_the_plan(
    made: Made, folder: Path, tmp_path: Path
) -> None:
    copy_ = tmp_path / "copy.toml"
    copy_.write_bytes(made.plan.source)
    verified = verify_run(folder, plan_path=copy_)
    assert "plan: it is the one in your own copy" in verified.checks
    assert not about_the_copy(verified)
    assert len(about_the_copy(verify_run(folder))) == 1


def test_a_draft_shows_the_settings_but_not_whose_keys_they_are(
    made: Made, folder: Path, tmp_path: Path
) -> None:
    """Whoever made the folder could have made every key in it."""
    draft = source_plan(kind="masking", rate="1.0", overlap="disjoint").source
    copy_ = tmp_path / "copy.toml"
    copy_.write_bytes(draft)
    verified = verify_run(folder, plan_path=copy_)
    assert "plan: its settings are those of your own copy" in verified.checks
    assert "plan: it is the one in your own copy" not in verified.checks
    (line,) = about_the_copy(verified)
    assert "your copy names none" in line

    keys = {n: key_to_text(i.public_key) for n, i in made.identities.items()}
    some = draft
    for name in ("bank-a", "bank-b", "bank-c"):
        at = some.index(b" }", some.index(f'"{name}"'.encode()))
        some = some[:at] + f', key = "{keys[name]}"'.encode() + some[at:]
    copy_.write_bytes(some)
    (line,) = about_the_copy(verify_run(folder, plan_path=copy_))
    assert "your copy lacks: the aggregator, bank-d;" in line


def about_the_copy(verified: Verified) -> list[str]:
    words = ("the plan you know", "your copy")
    return [x for x in verified.not_checked if any(word in x for word in words)]


def test_what_to_compare_is_what_the_report_says(made: Made, folder: Path) -> None:
    verified, report = verify_run(folder), json.loads(made.files["report.json"])
    assert verified.run_id == report["plan"]["run_id"]
    assert verified.report_id == report["report_id"]
    assert verified.model_hash == report["subject"]["model_hash"]
    assert verified.transcript_head == report["transcript_head"]
    entries = len(Transcript.from_bytes(made.files[TRANSCRIPT]).entries)
    assert verified.checks[0].startswith(f"transcript: {entries} entries")
    for what in ("the figures in metrics.json", "the times in ledgers"):
        assert [x for x in verified.not_checked if x.startswith(what)]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b"epsilon = 8.0", b"epsilon = 7.5"),
        (b"count = 2", b"count = 3"),
        (b'"disjoint"', b'"overlapping"'),
        (b"weight = 2", b"weight = 1"),
        (b"spare = 2", b"spare = 2\nmax_attempts = 2"),
        (b"max_colluding = 1", b'max_colluding = 1\naggregator = "sfl1other"'),
        (b"records = 300 }", b'records = 300, key = "sfl1other" }'),
        (b"[rounds]", b"[[rounds]]"),
        (b"[parties]", b"[party]"),
    ],
)
def test_another_copy_of_the_plan(
    folder: Path, tmp_path: Path, old: bytes, new: bytes
) -> None:
    source = source_plan(kind="masking", rate="1.0", overlap="disjoint").source
    assert source.count(old) == 1
    path = tmp_path / "copy.toml"
    path.write_bytes(source.replace(old, new))
    error = refused(folder, plan_path=path)
    assert error.file == "plan.toml"
    assert str(path) in str(error)


def test_an_unreadable_copy_of_the_plan(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "copy.toml"
    with pytest.raises(UsageError, match=r"copy\.toml does not exist"):
        verify_run(folder, plan_path=path)
    with pytest.raises(UsageError, match="is not a file"):
        verify_run(folder, plan_path=tmp_path)
    path.write_bytes(b"\xff\xfe")
    assert refused(folder, plan_path=path).file == str(path)


# -- bytes -----------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0.0, 0.21, 0.5, 0.83, 1.0])
@pytest.mark.parametrize("name", FILES)
def test_a_flipped_bit(folder: Path, name: str, place: float) -> None:
    data = bytearray((folder / name).read_bytes())
    data[round(place * (len(data) - 1))] ^= 1
    (folder / name).write_bytes(data)
    assert refused(folder).file == name


@pytest.mark.parametrize("name", FILES)
def test_a_damaged_file(folder: Path, name: str) -> None:
    path = folder / name
    data = path.read_bytes()
    for bad in (b"", data[: len(data) // 2], data[:-1], data + b"\n", b"\x00" * 64):
        path.write_bytes(bad)
        assert refused(folder).file == name
    path.unlink()
    assert refused(folder).file == name
    path.mkdir()
    assert refused(folder).file == name
    path.rmdir()
    os.mkfifo(path)
    assert refused(folder).file == name
    path.unlink()
    (folder / "elsewhere").write_bytes(data)
    path.symlink_to(folder / "elsewhere")
    error = refused(folder)
    assert error.file == name
    assert "is not a regular file" in str(error)


def test_what_is_no_run(folder: Path, tmp_path: Path) -> None:
    """Whoever gave the wrong path is told so: nothing was verified, nothing refused."""
    with pytest.raises(UsageError, match="does not exist"):
        verify_run(tmp_path / "nothing")
    with pytest.raises(UsageError, match="is not a folder"):
        verify_run(folder / "plan.toml")
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "notes.md").write_text("mine")
    with pytest.raises(UsageError, match="holds no run"):
        verify_run(tmp_path / "empty")


def test_an_unfinished_run(made: Made, tmp_path: Path) -> None:
    (tmp_path / "plan.toml").write_bytes(made.plan.source)
    error = refused(tmp_path)
    assert error.file == TRANSCRIPT
    assert "the run is not finished" in str(error)
    assert "--resume" in error.hint


# -- plans and pages that everybody signed ---------------------------------------------


def test_a_forged_member_key(made: Made, tmp_path: Path) -> None:
    """Another key in the plan: the transcript then starts with another plan."""
    other = made.identities["bank-b"]
    source = made.plan.source
    forged = Identity.new("bank-b", random=SystemRandom())
    changed = source.replace(
        key_to_text(other.public_key).encode(), key_to_text(forged.public_key).encode()
    )
    assert changed != source
    files = with_file(made, "plan.toml", changed, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    assert refused(folder).file == "plan.toml"


@pytest.mark.parametrize(
    "source",
    [
        b"",
        b"\xff",
        b"a = " + b"[" * 100_000,
        b"a = nan",
        b"a = 1e999\n" * 2,
        b'schema = "secure-fl/plan/2"',
    ],
)
def test_a_plan_that_is_none(made: Made, tmp_path: Path, source: bytes) -> None:
    """The transcript starts with its hash, and all sign: it still does not parse."""

    def edit(rows: list[Row]) -> None:
        rows[0][1][0] = wire.digest("secure-fl/plan/1", source)

    files = {**made.files, "plan.toml": source}
    files[TRANSCRIPT] = rewritten(made, edit, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    assert refused(folder).file == "plan.toml"


def test_a_transcript_of_another_run(made: Made, tmp_path: Path) -> None:
    """Its chain begins from another run id; all that it holds is this run's."""
    log = rewritten(made, lambda rows: None, resign=True, run_id=bytes(16))
    files = {**made.files, TRANSCRIPT: log}
    folder = replace(made, files=files).write(tmp_path / "run")
    error = refused(folder)
    assert error.file == TRANSCRIPT
    assert "is of another run than the plan" in str(error)


def test_a_run_that_opened_nothing(made: Made, tmp_path: Path) -> None:
    """Both rounds failed: there is no model that anybody could have signed."""

    def edit(rows: list[Row]) -> None:
        rows[:] = [r for r in rows if r[0] != "signature"]
        for i, (kind, body, old) in enumerate(rows):
            if kind == "round":
                rows[i] = ("failure", {0: body[0], 1: body[1], 2: "", 3: ""}, old)

    files = {**made.files, TRANSCRIPT: rewritten(made, edit, resign=True)}
    error = refused(replace(made, files=files).write(tmp_path / "run"))
    assert error.file == TRANSCRIPT
    assert "no round was opened" in str(error)


@pytest.mark.parametrize("key", ["aggregator", "bank-b"])
def test_a_key_that_is_none(made: Made, tmp_path: Path, key: str) -> None:
    """All signed a plan in which a key is mistyped: the plan is named."""
    identity = made.aggregator if key == "aggregator" else made.identities[key]
    text = key_to_text(identity.public_key)
    wrong = text[:-1] + ("q" if text[-1] != "q" else "p")
    source = made.plan.source.replace(text.encode(), wrong.encode())

    def edit(rows: list[Row]) -> None:
        rows[0][1][0] = wire.digest("secure-fl/plan/1", source)

    files = {**made.files, "plan.toml": source}
    files[TRANSCRIPT] = rewritten(made, edit, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    assert refused(folder).file == "plan.toml"


def test_a_plan_without_keys(made: Made, tmp_path: Path) -> None:
    source = source_plan(kind="masking", rate="1.0", overlap="disjoint").source

    def edit(rows: list[Row]) -> None:
        rows[0][1][0] = wire.digest("secure-fl/plan/1", source)

    files = {**made.files, "plan.toml": source}
    files[TRANSCRIPT] = rewritten(made, edit, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    assert refused(folder).file == "plan.toml"


@settings(max_examples=60, deadline=None)
@given(
    name=st.sampled_from(["model.safetensors", "ledgers/bank-a.cbor", TRANSCRIPT]),
    start=st.floats(0, 1),
    junk=st.binary(min_size=1, max_size=40),
)
def test_any_bytes(
    made: Made,
    tmp_path_factory: pytest.TempPathFactory,
    name: str,
    start: float,
    junk: bytes,
) -> None:
    """Junk anywhere in a file, signed by all where that can be: refused, by name."""
    data = bytearray(made.files[name])
    at = int(start * len(data))
    data[at : at + len(junk)] = junk
    if data == made.files[name]:
        return
    files = {**made.files, name: bytes(data)}
    if name != TRANSCRIPT:
        files = with_file(made, name, bytes(data), resign=True)
    folder = replace(made, files=files).write(tmp_path_factory.mktemp("run"))
    assert refused(folder).file == name


# -- reports and other files that everybody signed -------------------------------------


def report_with(made: Made, edit: Callable[[Any], None]) -> bytes:
    report = json.loads(made.files["report.json"])
    edit(report)
    return json.dumps(report).encode()


def smaller_epsilon(report: Any) -> None:
    report["claims"][0]["clients"]["bank-a"]["epsilon"] *= 0.99


def no_simulation(report: Any) -> None:
    report["simulation"] = False


def kept_ledgers(report: Any) -> None:
    report["composition"]["ledgers_live_on"] = False


def one_release_less(report: Any) -> None:
    del report["releases"]["bank-b"][0]


def another_field(report: Any) -> None:
    report["approved_by"] = "the regulator"


def integer_for_truth(report: Any) -> None:
    report["insecure"] = 1


def smaller_profile(report: Any) -> None:
    report["claims"][0]["consortium"]["profile"][4][1] /= 2


REPORTS: dict[str, Callable[[Any], None]] = {
    "claims[0].clients.bank-a.epsilon": smaller_epsilon,
    "simulation": no_simulation,
    "composition.ledgers_live_on": kept_ledgers,
    "releases.bank-b[": one_release_less,
    "approved_by": another_field,
    "insecure": integer_for_truth,
    "claims[0].consortium.profile[4][1]": smaller_profile,
}


@pytest.mark.parametrize("path", REPORTS)
def test_a_report_that_says_something_else(
    made: Made, tmp_path: Path, path: str
) -> None:
    data = report_with(made, REPORTS[path])
    files = with_file(made, "report.json", data, resign=True)
    folder = replace(made, files=files).write(tmp_path / "signed")
    error = refused(folder)
    assert error.file == "report.json"
    assert path in str(error)
    # Without the members' keys the hash of the report cannot be replaced.
    files = with_file(made, "report.json", data, resign=False)
    folder = replace(made, files=files).write(tmp_path / "unsigned")
    assert refused(folder).file == TRANSCRIPT


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b"{}",
        b'{"schema_version": NaN}',
        b'{"a": 1, "a": 2}',
        b"\xff",
        b'{"a": ' + b"9" * 10_000 + b"}",
    ],
)
@pytest.mark.parametrize("name", ["report.json", "metrics.json"])
def test_json_that_is_none(made: Made, tmp_path: Path, name: str, data: bytes) -> None:
    files = with_file(made, name, data, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    if name == "metrics.json" and data == b"{}":
        verify_run(folder)  # no scores are no lie
    else:
        assert refused(folder).file == name


def test_only_figures_may_differ_more() -> None:
    """A client may be called what a figure is called, and buys nothing by it."""
    figures = {"mu_gdp": 1.0, "epsilon": 1.0, "group": [[2, 1.0]]}
    for name in ("mu_gdp", "group"):
        near = {**figures, name: [[2, 1.005]] if name == "group" else 1.005}
        assert first_difference(figures, near) is None
        far = {**figures, name: [[2, 1.02]] if name == "group" else 1.02}
        assert first_difference(figures, far) is not None
    for name in ("group", "advantage", "posterior"):
        one, other = {name: {"epsilon": 1.0}}, {name: {"epsilon": 1.005}}
        assert first_difference({"clients": one}, {"clients": other}) is not None


def test_another_model(made: Made, tmp_path: Path) -> None:
    ones = GlobalModel({"weight": np.ones((4, 5), np.float32)}).to_bytes()
    larger = GlobalModel({"weight": np.ones((5, 5), np.float32)}).to_bytes()
    for at, data in enumerate((ones, larger, b"", b"\xff" * 200)):
        files = with_file(made, "model.safetensors", data, resign=True)
        folder = replace(made, files=files).write(tmp_path / str(at))
        assert refused(folder).file == "model.safetensors"
