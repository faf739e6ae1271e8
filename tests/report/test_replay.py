# SPDX-License-Identifier: Apache-2.0
"""Kept vectors: every opened sum is opened again, and what does not fit is refused."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load, save

import secure_fl as sfl
from secure_fl import wire
from secure_fl.ckks import messages as sealed
from secure_fl.cli.plan import describe
from secure_fl.context import kind_of
from secure_fl.errors import (
    EngineError,
    PlanError,
    TooFewClients,
    VerificationError,
)
from secure_fl.model import GlobalModel
from secure_fl.privacy import Unprotected
from secure_fl.report import verify_run
from secure_fl.report.vectors import START, Kept, is_chunk, vectors_file

from ..engines.support import start, trainers
from .kept import (
    FIRST,
    TRANSCRIPT,
    Row,
    kept_of,
    kept_plan,
    play,
    rebuilt,
    with_kept,
)
from .support import Made, rewritten, with_file
from .test_transcript import of_kind

TENSEAL = "CKKS is an extra"


@pytest.fixture(scope="module")
def masked() -> Made:
    return play()


@pytest.fixture(scope="module")
def one_time() -> Made:
    pytest.importorskip("tenseal", reason=TENSEAL)
    return play(kind="ckks", keys="one-time")


@pytest.fixture(scope="module")
def with_holder() -> Made:
    pytest.importorskip("tenseal", reason=TENSEAL)
    return play(kind="ckks", keys="keyholder")


@pytest.fixture(params=["masked", "one_time", "with_holder"])
def made(request: pytest.FixtureRequest) -> Made:
    run = request.getfixturevalue(request.param)
    assert isinstance(run, Made)
    return run


def test_the_report_counts_the_folder_among_those_who_see(made: Made) -> None:
    report = json.loads(made.files["report.json"])
    rows = report["threat_model"]["adversaries"]
    assert rows[-1] == {"who": "folder", "sees": "vectors"}
    assert [row["who"] for row in rows].count("folder") == 1


def refused(made: Made, tmp_path: Path, files: dict[str, bytes]) -> VerificationError:
    folder = replace(made, files=files).write(tmp_path / "run")
    with pytest.raises(VerificationError) as caught:
        verify_run(folder)
    return caught.value


# -- what holds ------------------------------------------------------------------------


def test_every_sum_is_opened_again(made: Made, tmp_path: Path) -> None:
    verified = verify_run(made.write(tmp_path / "run"))
    told = [line for line in verified.checks if line.startswith("sums: ")]
    assert len(told) == 1
    assert "2 opened sums recomputed from 7 kept vectors" in told[0]
    assert not [x for x in verified.not_checked if "opened sums follow" in x]
    assert [x for x in verified.not_checked if x.startswith("who else has this folder")]
    assert not [x for x in verified.not_checked if "do not belong to a run" in x]


def test_what_is_kept(made: Made) -> None:
    names = {n for n in made.files if n.startswith("vectors/")}
    assert names == {vectors_file(0, 0), vectors_file(1, 0)}
    assert GlobalModel.from_bytes(made.files[START]).digest() == start().digest()
    kept = kept_of(made, vectors_file(1, 0))
    assert len(kept.seed) == (32 if made.plan.has_keyholder else 0)
    spoke = {sender for sender, _ in kept.rows}
    assert spoke - {""} == set(made.plan.names) - {"clinic-d"}
    kinds = {kind_of(message) for _, message in kept.rows}
    holder, masking = {12, 17}, {5, 10}
    if made.plan.has_keyholder:
        assert kinds == holder
    else:
        assert kinds == masking | (
            {12} if made.plan.protection.kind == "ckks" else set()
        )


def test_it_has_one_form(made: Made) -> None:
    assert with_kept(made) == made.files[FIRST]
    backwards = tuple(reversed(kept_of(made).rows))
    order = [kind_of(m) for _, m in kept_of(made).rows]
    assert order == sorted(order)
    assert order != [kind_of(m) for _, m in backwards]


_WITHOUT = """
import sys
for name in ("tenseal", "tenseal.sealapi", "zstandard"):
    sys.modules[name] = None
from secure_fl.report import verify_run
sys.stdout.write("\\n".join(verify_run(sys.argv[1]).not_checked))
"""


def test_without_the_backend_the_sums_are_not_checked(
    with_holder: Made, tmp_path: Path
) -> None:
    folder = with_holder.write(tmp_path / "run")
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT, str(folder)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stderr == ""
    (line,) = [x for x in done.stdout.splitlines() if "opened sums follow" in x]
    assert "not installed" in line


@pytest.mark.parametrize(
    ("kind", "keys"), [("masking", ""), ("ckks", "one-time"), ("ckks", "keyholder")]
)
def test_plan_check_says_what_it_takes(kind: str, keys: str) -> None:
    """The figure is that of the files, to five in a hundred."""
    columns = "".join(f"c{i} = {{ low = 0, high = 1 }}\n" for i in range(400))
    data = f"""
[data]
file = "x.csv"
label = "y"
classes = [0, 1]
split = "rows"

[data.columns]
{columns}"""
    plan = kept_plan(kind=kind, keys=keys, rounds=1, extra=data)
    source = plan.source.replace(b'"custom"', b'"mlp"\nhidden = [20]')
    plan = sfl.Plan(source.replace(b"chunk_words = 64", b"chunk_words = 4096"))
    facts = describe(plan)
    size = facts["model_values"]
    model = GlobalModel({"w": np.zeros(size, np.float32)})

    def fit(r: sfl.ClientRound) -> Unprotected:
        return sfl.unprotected(np.zeros(size), reason="a test")

    run = sfl.run(plan, dict.fromkeys(plan.names, fit), model=model)
    kept = len(run.files[vectors_file(0, 0)])
    assert facts["kept_bytes_in_the_folder"] == pytest.approx(kept, rel=0.05)


def test_a_sum_in_clear_is_never_kept() -> None:
    with pytest.raises(PlanError, match="publish every client's update") as caught:
        kept_plan(kind="plain")
    assert caught.value.key == "protection.keep_vectors"


# -- vectors that everybody signed -----------------------------------------------------

Rows = list[tuple[str, bytes]]


def flipped(message: bytes) -> bytes:
    return message[:-1] + bytes([message[-1] ^ 1])


def at(rows: Rows, wanted: Callable[[bytes], bool]) -> int:
    return next(i for i, (_, message) in enumerate(rows) if wanted(message))


def is_hashed(message: bytes) -> bool:
    return not is_chunk(message)


def changed_chunk(made: Made, rows: Rows) -> None:
    i = at(rows, is_chunk)
    rows[i] = rows[i][0], flipped(rows[i][1])


def no_chunk(made: Made, rows: Rows) -> None:
    del rows[at(rows, is_chunk)]


def chunk_again(made: Made, rows: Rows) -> None:
    rows.insert(at(rows, is_chunk), rows[at(rows, is_chunk)])


def chunk_of_another(made: Made, rows: Rows) -> None:
    i = at(rows, is_chunk)
    rows[i] = "clinic-b", rows[i][1]


def changed_secret(made: Made, rows: Rows) -> None:
    i = at(rows, is_hashed)
    rows[i] = rows[i][0], flipped(rows[i][1])


def no_secret(made: Made, rows: Rows) -> None:
    del rows[at(rows, is_hashed)]


def secret_again(made: Made, rows: Rows) -> None:
    rows.append(rows[at(rows, is_hashed)])


KEPT: dict[str, tuple[Callable[[Made, Rows], None], str]] = {
    "a chunk changed": (changed_chunk, "clinic-a: "),
    "a chunk missing": (no_chunk, "clinic-a: "),
    "a chunk twice": (chunk_again, "a chunk is missing, late or repeated"),
    "a chunk of another": (chunk_of_another, "clinic-"),
    "a secret changed": (changed_secret, "is not the one whose hash is in the log"),
    "a secret missing": (no_secret, "a message is missing whose hash is in the log"),
    "a secret twice": (secret_again, "is not the one whose hash is in the log"),
}


@pytest.mark.parametrize("what", KEPT)
def test_forged_vectors(made: Made, tmp_path: Path, what: str) -> None:
    edit, told = KEPT[what]
    rows = list(kept_of(made).rows)
    edit(made, rows)
    data = with_kept(made, rows=rows)
    error = refused(made, tmp_path, with_file(made, FIRST, data, resign=True))
    assert error.file == FIRST
    assert told in str(error)


def test_a_chunk_that_the_root_does_not_hold(masked: Made, tmp_path: Path) -> None:
    rows = list(kept_of(masked).rows)
    changed_chunk(masked, rows)
    files = with_file(masked, FIRST, with_kept(masked, rows=rows), resign=True)
    assert "chunks do not match their root" in str(refused(masked, tmp_path, files))


def test_a_chunk_from_outside_the_sum(made: Made, tmp_path: Path) -> None:
    """clinic-d is not in round 1: whatever is kept in its name, nobody signed."""
    name = vectors_file(1, 0)
    kept = kept_of(made, name)
    chunk = next(m for _, m in kept_of(made).rows if is_chunk(m))
    data = replace(kept, rows=[*kept.rows, ("clinic-d", chunk)])
    files = with_file(made, name, data.to_bytes(made.plan.roster), resign=True)
    error = refused(made, tmp_path, files)
    assert error.file == name
    assert "a chunk of a client that is not in the sum" in str(error)


@pytest.mark.parametrize(
    "changed", [{"run_id": bytes(16)}, {"round_index": 1}], ids=["run", "round"]
)
def test_vectors_of_another_place(
    made: Made, tmp_path: Path, changed: dict[str, Any]
) -> None:
    files = with_file(made, FIRST, with_kept(made, **changed), resign=True)
    error = refused(made, tmp_path, files)
    assert error.file == FIRST
    assert "was kept of another attempt" in str(error)


def test_another_seed(made: Made, tmp_path: Path) -> None:
    for seed in (b"", bytes(31) + b"\x01"):
        if seed == kept_of(made).seed:
            continue
        files = with_file(made, FIRST, with_kept(made, seed=seed), resign=True)
        error = refused(made, tmp_path / str(len(seed)), files)
        assert error.file == FIRST
        key = made.plan.has_keyholder and seed
        told = "aggregator's key of the log" if key else "its seed has another length"
        assert told in str(error)


def rows_of(kept: Kept) -> list[wire.Value]:
    return [[sender, message] for sender, message in kept.rows]


def test_what_is_not_in_the_form(masked: Made, tmp_path: Path) -> None:
    kept, spec = kept_of(masked), "secure-fl/vectors/1"
    rows = rows_of(kept)
    place: list[wire.Value] = [kept.run_id, 0, 0, b""]
    log = masked.transcript
    logged = log.message(log.of_kind("message")[0])
    bad: dict[str, wire.Value] = {
        "another specification": ["secure-fl/vectors/2", *place, rows],
        "no rows": [spec, *place],
        "out of order": [spec, *place, rows[::-1]],
        "a stranger": [spec, *place, [["bank-x", kept.rows[0][1]], *rows]],
        "a row of three": [spec, *place, [[*kept.rows[0], 1], *rows]],
        "a message that is logged": [spec, *place, [["clinic-a", logged], *rows]],
        "no message": [spec, *place, [["clinic-a", b""], *rows]],
    }
    for what, value in bad.items():
        data = wire.encode(value)
        files = with_file(masked, FIRST, data, resign=True)
        assert refused(masked, tmp_path / what, files).file == FIRST, what
    for i, data in enumerate((b"", b"\xff" * 40, masked.files[FIRST][:-1])):
        files = with_file(masked, FIRST, data, resign=True)
        assert refused(masked, tmp_path / f"bytes {i}", files).file == FIRST


def test_a_request_that_the_aggregator_did_not_sign(
    with_holder: Made, tmp_path: Path
) -> None:
    """Its hash is in the log, and it is still none that could have been answered."""
    kept = kept_of(with_holder)
    session = with_holder.plan.session(
        round_index=0, attempt=0, model_hash=start().digest(), size=start().size
    )
    i = at(list(kept.rows), is_hashed)
    request = sealed.Request.decode(kept.rows[i][1], session)  # type: ignore[arg-type]
    for what, other in {
        "asked for other keys": replace(request, rows=request.rows[:-1]),
        "not signed by the aggregator": replace(request, signature=bytes(64)),
    }.items():
        data = other.encode(session)  # type: ignore[arg-type]
        rows = list(kept.rows)
        rows[i] = "", data
        name = {FIRST: with_kept(with_holder, rows=rows)}
        made = replace(with_holder, files={**with_holder.files, **name})

        def another_hash(log: list[Row], data: bytes = data) -> None:
            for kind, body, _ in log:
                if kind == "message" and body[5] and body[0] == 0:
                    body[4] = hashlib.sha256(data).digest()

        error = refused(made, tmp_path / what, rebuilt(made, another_hash))
        assert error.file == FIRST
        assert what in str(error)


# -- rounds that everybody signed ------------------------------------------------------


def change(at: int, field: int, value: Any) -> Callable[[list[Row]], None]:
    def edit(rows: list[Row]) -> None:
        rows[of_kind(rows, "round")[at]][1][field] = value

    return edit


@pytest.mark.parametrize(
    ("field", "value", "told"),
    [
        (5, bytes(32), "round 1 opened another sum than its vectors'"),
        (6, 7, "round 1 counts other clipped values than its sum"),
    ],
    ids=["hash", "clipped"],
)
def test_a_sum_that_is_not_that_of_its_vectors(
    made: Made, tmp_path: Path, field: int, value: Any, told: str
) -> None:
    """Everybody signs it, and the report says it too."""
    error = refused(made, tmp_path, rebuilt(made, change(1, field, value)))
    assert error.file == TRANSCRIPT
    assert told in str(error)


def test_a_model_that_the_sum_does_not_give(made: Made, tmp_path: Path) -> None:
    true = GlobalModel.from_bytes(made.files["model.safetensors"])
    other = true.add(np.full(true.size, 0.5))
    files = rebuilt(made, change(1, 8, other.digest()), model=other.to_bytes())
    error = refused(made, tmp_path, files)
    assert error.file == TRANSCRIPT
    assert "round 1 left another model than its sum gives" in str(error)


def test_another_start(masked: Made, tmp_path: Path) -> None:
    true = masked.files[START]
    other = GlobalModel.from_bytes(true).add(np.ones(82)).to_bytes()
    same = save(load(true), metadata={"by": "somebody"})
    for what, data, told in (
        ("model", other, "is not the model that the transcript starts from"),
        ("file", same, "is not the file whose hash the plan states"),
        ("junk", b"", "not a safetensors model"),
    ):
        files = with_file(masked, START, data, resign=True)
        error = refused(masked, tmp_path / what, files)
        assert error.file == START
        assert told in str(error)


# -- files -----------------------------------------------------------------------------


@pytest.mark.parametrize("name", [START, FIRST])
def test_a_kept_file_that_was_changed(masked: Made, tmp_path: Path, name: str) -> None:
    files = {**masked.files, name: flipped(masked.files[name])}
    assert refused(masked, tmp_path / "changed", files).file == name
    folder = masked.write(tmp_path / "missing")
    (folder / name).unlink()
    with pytest.raises(VerificationError) as caught:
        verify_run(folder)
    assert caught.value.file == name


def test_vectors_that_the_log_does_not_list(masked: Made, tmp_path: Path) -> None:
    def edit(rows: list[Row]) -> None:
        body = rows[of_kind(rows, "artefacts")[0]][1]
        body[0] = [row for row in body[0] if row[0] != FIRST]

    files = {**masked.files, TRANSCRIPT: rewritten(masked, edit, resign=True)}
    error = refused(masked, tmp_path, files)
    assert error.file == TRANSCRIPT
    assert FIRST in str(error)


# -- runs that stop in the middle ------------------------------------------------------


def stopping(at: int) -> Callable[[sfl.ClientRound], sfl.PrivateUpdate]:
    def fit(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        if r.round == at:
            raise KeyboardInterrupt
        return trainers()["clinic-a"](r)

    return fit


@pytest.mark.parametrize("at", [0, 1])
def test_a_resumed_run_keeps_all(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Stopped in round 0 or 1; what the first process had kept is still kept."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    plan, out = kept_plan(spare=3, epsilon=12.0), tmp_path / "out"
    clients = {**trainers(), "clinic-a": stopping(at)}
    with pytest.raises(KeyboardInterrupt):
        sfl.run(plan, clients, model=start(), out=out)
    assert (out / vectors_file(0, 0)).exists() == (at == 1)
    with pytest.raises(VerificationError, match="the run is not finished"):
        verify_run(out)
    if at == 0:
        (out / START).unlink()  # as if it had stopped before it wrote this
    # As if it had stopped after it had opened an attempt, and before it recorded it.
    left_over = out / vectors_file(at, 0)
    left_over.parent.mkdir(exist_ok=True)
    left_over.write_bytes(b"of an attempt that was made again")
    finished = sfl.run(plan, trainers(), model=start(), out=out, resume=True)
    assert not left_over.exists()
    verified = verify_run(out)
    assert [x for x in verified.checks if "from 8 kept vectors" in x]
    assert finished.files[START] == (out / START).read_bytes()
    finished.save(tmp_path / "copy")
    verify_run(tmp_path / "copy")


def test_a_run_that_opens_nothing_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))

    def broken(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        raise EngineError("the file server is down")

    clients = {**trainers(), "clinic-a": broken, "clinic-b": broken}
    with pytest.raises(TooFewClients):
        sfl.run(kept_plan(), clients, model=start(), out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_failed_attempts_are_not_kept(tmp_path: Path) -> None:
    calls: list[int] = []

    def away_once(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        calls.append(r.round)
        if len(calls) <= 2:
            raise EngineError("on the way")
        return trainers()["clinic-c"](r)

    clients = {**trainers(), "clinic-c": away_once, "clinic-d": away_once}
    run = sfl.run(kept_plan(rounds=1), clients, model=start())
    kept = [name for name in run.files if name.startswith("vectors/")]
    assert kept == [vectors_file(0, 1)]
    lines = verify_run(run.save(tmp_path / "run")).not_checked
    assert [x for x in lines if "vectors of 1 attempts that failed" in x]


@pytest.mark.parametrize("where", ["out", "save"])
def test_kept_vectors_are_their_owners_alone(tmp_path: Path, where: str) -> None:
    """Whoever reads them has what the aggregator had; the rest may be handed on."""
    folder = tmp_path / "out"
    out = folder if where == "out" else None
    run = sfl.run(kept_plan(rounds=1), trainers(), model=start(), out=out)
    if where == "save":
        run.save(folder)
    modes = {n: (folder / n).stat().st_mode & 0o777 for n in run.files}
    private = {n for n, mode in modes.items() if mode == 0o600}
    assert private == {vectors_file(0, 0)}
    assert {mode for n, mode in modes.items() if n not in private} == {0o644}
