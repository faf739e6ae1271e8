# SPDX-License-Identifier: Apache-2.0
"""Whole runs under CKKS: one line of the plan, and a key holder that is a process."""

from __future__ import annotations

import importlib.util
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import secure_fl as sfl
from secure_fl import ckks
from secure_fl.ckks import messages as sealed
from secure_fl.context import kind_of
from secure_fl.engines.keyholder import KeyHolderProcess
from secure_fl.engines.rounds import Rounds
from secure_fl.errors import UsageError
from secure_fl.identity import Identity, key_to_text
from secure_fl.privacy import Ledger
from secure_fl.randomness import SystemRandom
from secure_fl.round import Aggregation
from secure_fl.transcript import Transcript

from .support import NAMES, plan, start, trainers

KEYS = ("one-time", "keyholder")


def log_of(finished: sfl.Run) -> Transcript:
    return Transcript.from_bytes(finished.files["transcript.cbor"])


@pytest.mark.parametrize("keys", KEYS)
def test_one_line_of_the_plan_switches_the_protection(
    tmp_path: Path, keys: str
) -> None:
    finished = sfl.run(
        plan(kind="ckks", keys=keys), trainers(), model=start(), out=tmp_path / "out"
    )
    verified = sfl.verify_run(tmp_path / "out")
    assert set(verified.epsilon) == set(NAMES)
    rounds = log_of(finished).of_kind("round")
    assert [e.rows(3) for e in rounds] == [list(NAMES)] * 2
    assert finished.model.digest() != start().digest()
    # Nothing lies beside the files of every run.
    masked = sfl.run(plan(), trainers(), model=start(), out=tmp_path / "masked")
    assert set(finished.files) == set(masked.files)


def test_the_key_holder_is_another_process_and_is_sent_no_ciphertext(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    to_holder: list[bytes] = []
    pids: set[int] = set()
    chunks: list[bytes] = []
    handle, receive = KeyHolderProcess.handle, Aggregation.receive

    def watched(self: KeyHolderProcess, message: bytes) -> Iterator[bytes]:
        to_holder.append(message)
        yield from handle(self, message)
        assert self._process is not None
        pids.add(self._process.pid)

    def heard(self: Aggregation, sender: str, data: bytes) -> bool:
        if kind_of(data) == sealed.KINDS.CIPHERTEXT:
            chunks.append(data)
        return receive(self, sender, data)

    monkeypatch.setattr(KeyHolderProcess, "handle", watched)
    monkeypatch.setattr(Aggregation, "receive", heard)
    sfl.run(plan(kind="ckks", keys="keyholder"), trainers(), model=start())
    kinds = [kind_of(m) for m in to_holder]
    assert kinds == [sealed.KINDS.CALL, sealed.KINDS.REQUEST] * 2
    assert len(pids) == 1
    assert os.getpid() not in pids
    assert len(chunks) == 2 * len(NAMES)
    for chunk in chunks:
        middle = chunk[len(chunk) // 2 :][:32]
        assert not any(middle in message for message in to_holder)


def test_a_key_holder_that_is_killed_costs_an_attempt(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    handle = KeyHolderProcess.handle
    killed: list[int] = []

    def deadly(self: KeyHolderProcess, message: bytes) -> Iterator[bytes]:
        if kind_of(message) == sealed.KINDS.REQUEST and not killed:
            assert self._process is not None
            killed.append(self._process.pid)
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.wait()
        yield from handle(self, message)

    monkeypatch.setattr(KeyHolderProcess, "handle", deadly)
    finished = sfl.run(
        plan(kind="ckks", keys="keyholder"),
        trainers(),
        model=start(),
        out=tmp_path / "out",
    )
    assert killed
    log = log_of(finished)
    assert [e.integer(1) for e in log.of_kind("round")] == [1, 0]
    (failure,) = log.of_kind("failure")
    # The new process holds no key for what the old one had answered.
    assert "there is no context" in failure.text(2)
    sfl.verify_run(tmp_path / "out")


def test_a_bad_key_is_named_and_frees_everyone_elses_update(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The refusal is signed: nobody trains again, and nobody is charged twice."""
    honest = ckks.Encryption.key_bytes

    def long(self: ckks.Encryption) -> bytes:
        key = honest(self)
        return b"\x61" + key[1:] if "client=2" in repr(self) else key  # 97

    monkeypatch.setattr(ckks.Encryption, "key_bytes", long)
    home = tmp_path / "home"
    finished = sfl.run(
        plan(kind="ckks", keys="keyholder", rounds=1),
        trainers(),
        model=start(),
        out=tmp_path / "out",
        home=home,
    )
    log = log_of(finished)
    (failure,) = log.of_kind("failure")
    assert failure.text(3) == NAMES[2]
    (opened,) = log.of_kind("round")
    others = [n for n in NAMES if n != NAMES[2]]
    assert opened.rows(3) == others
    sfl.verify_run(tmp_path / "out")
    for name in others:
        ledger = Ledger(home / "clients" / name / "ledger.sqlite", client=name)
        releases = ledger.releases(finished.plan.lineage)
        assert [r.state for r in releases] == ["released"]
        ledger.close()


def test_a_round_that_was_released_and_lost_is_not_released_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A crash between the key holder's release and the round's end costs the round.

    The call of the next attempt is refused, so that nobody trains for it.
    """
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    the_plan = plan(kind="ckks", keys="keyholder")
    finish = Rounds._finish_round

    def crash(self: Rounds, index: int, *rest: object) -> object:
        if index == 1:
            raise KeyboardInterrupt
        return finish(self, index, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "_finish_round", crash)
        with pytest.raises(KeyboardInterrupt):
            sfl.run(the_plan, trainers(), model=start(), out=tmp_path / "out")
    trained: list[str] = []

    def counted(name: str, fit: object) -> object:
        def count(r: sfl.ClientRound) -> object:
            trained.append(name)
            return fit(r)  # type: ignore[operator]

        return count

    clients = {name: counted(name, fit) for name, fit in trainers().items()}
    finished = sfl.run(
        the_plan,
        clients,  # type: ignore[arg-type]
        model=start(),
        out=tmp_path / "out",
        resume=True,
    )
    assert not trained
    log = log_of(finished)
    assert [e.integer(0) for e in log.of_kind("round")] == [0]
    assert all("were released" in e.text(2) for e in log.of_kind("failure"))
    sfl.verify_run(tmp_path / "out")


@pytest.mark.parametrize("missing", ["tenseal", "zstandard"])
def test_without_the_extra_a_run_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, missing: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda name, package=None: None if name == missing else find(name, package),
    )
    with pytest.raises(UsageError, match=f"needs {missing}") as caught:
        sfl.run(plan(kind="ckks"), trainers(), model=start(), out=tmp_path / "out")
    assert "secure-fl[ckks]" in caught.value.hint
    assert not (tmp_path / "out").exists()


def test_a_run_leaves_no_file_outside_its_folders(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Polynomials pass through a file in memory: nothing goes to the usual places."""
    temporary = tmp_path / "tmp"
    temporary.mkdir()
    monkeypatch.setenv("TMPDIR", str(temporary))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    # What is written while it runs, not only what is left: folders keep the time of
    # the last name that came or went.
    before = temporary.stat().st_mtime_ns
    sfl.run(plan(kind="ckks"), trainers(), model=start(), out=tmp_path / "out")
    assert temporary.stat().st_mtime_ns == before
    left = {p.name for p in tmp_path.iterdir()}
    assert left == {"tmp", "state", "out"}
    assert not list((tmp_path / "state" / "secure-fl" / "runs").iterdir())


# -- the command -----------------------------------------------------------------------


def completed(tmp_path: Path) -> tuple[Path, Path]:
    """A plan on disk that names everybody, and its key holder's key file."""
    random = SystemRandom()
    identities = {n: Identity.new(n, random=random) for n in NAMES}
    keyholder = Identity.new("keyholder", random=random)
    aggregator = Identity.new("aggregator", random=random)
    whole = plan(kind="ckks", keys="keyholder").completed(
        keys={n: key_to_text(i.public_key) for n, i in identities.items()},
        aggregator=key_to_text(aggregator.public_key),
        keyholder=key_to_text(keyholder.public_key),
        run_id=random.bytes(16),
        start_sha256=None,
    )
    path, key = tmp_path / "plan.toml", tmp_path / "keyholder.pem"
    path.write_bytes(whole.source)
    keyholder.save(key)
    return path, key


def serve(path: Path, key: Path, home: Path, stdin: bytes) -> tuple[int, bytes, str]:
    command = [sys.executable, "-m", "secure_fl", "keyholder", str(path)]
    command += ["--key", str(key), "--home", str(home)]
    done = subprocess.run(command, input=stdin, capture_output=True, timeout=60)
    return done.returncode, done.stdout, done.stderr.decode()


def test_the_command_ends_with_its_input(tmp_path: Path) -> None:
    path, key = completed(tmp_path)
    assert serve(path, key, tmp_path / "home", b"") == (0, b"", "")


def test_what_is_refused_gets_an_empty_answer_and_a_reason(tmp_path: Path) -> None:
    path, key = completed(tmp_path)
    garbage = b"\xa1\x00\x0d" + bytes(20)
    frame = len(garbage).to_bytes(4, "big") + garbage
    code, out, err = serve(path, key, tmp_path / "home", frame * 2)
    assert code == 0
    reason = out[8 : len(out) // 2]
    assert out == 2 * (bytes(4) + len(reason).to_bytes(4, "big") + reason)
    assert err.splitlines() == 2 * [f"secure-fl: error: {reason.decode()}"]


@pytest.mark.parametrize("stdin", [b"\xff" * 8, b"\x00\x00\x00\x09half", b"\x00"])
def test_a_stream_that_is_cut_or_nonsense_ends_it(tmp_path: Path, stdin: bytes) -> None:
    path, key = completed(tmp_path)
    code, out, err = serve(path, key, tmp_path / "home", stdin)
    assert (code, out) == (5, b"")
    assert "secure-fl: hint: " in err


def test_another_partys_key_is_refused(tmp_path: Path) -> None:
    path, _ = completed(tmp_path)
    other = tmp_path / "other.pem"
    Identity.new("other", random=SystemRandom()).save(other)
    code, _, err = serve(path, other, tmp_path / "home", b"")
    assert code == 2
    assert "names another key holder" in err


def test_a_plan_without_keys_or_without_a_key_holder_is_refused(
    tmp_path: Path,
) -> None:
    _, key = completed(tmp_path)
    path = tmp_path / "bare.toml"
    path.write_bytes(plan(kind="ckks", keys="keyholder").source)
    code, _, err = serve(path, key, tmp_path / "home", b"")
    assert code == 2
    assert "not complete" in err
