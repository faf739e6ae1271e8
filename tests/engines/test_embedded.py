# SPDX-License-Identifier: Apache-2.0
"""What holds where all parties are on this machine, and nowhere else.

``tests/contract`` has what every engine guarantees.  Not there, and why:

* identities that are thrown away, ledgers without a home, and a run that leaves nothing
  behind: elsewhere each party keeps its own key, ledger and state;
* the plain protection, which is refused across machines, and seeded randomness, which
  cannot be had there;
* ``baselines``: they need all members' records in one place;
* folders of the run's own process, and what it misses before it begins.
"""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest

import secure_fl as sfl
from secure_fl.errors import (
    EngineError,
    PlanError,
    TooFewClients,
    UsageError,
    VerificationError,
)
from secure_fl.privacy import Ledger
from secure_fl.transcript import Transcript

from .support import NAMES, plan, start, trainers


def test_run_and_save_are_the_same_files(tmp_path: Path) -> None:
    finished = sfl.run(plan(), trainers(), model=start())
    finished.save(tmp_path / "out")
    sfl.verify_run(tmp_path / "out")
    assert finished.report.data["simulation"]
    with pytest.raises(UsageError, match="holds a run already"):
        finished.save(tmp_path / "out")


def test_plain_updates_run_and_verify(tmp_path: Path) -> None:
    plain = plan(kind="plain")
    finished = sfl.run(plain, trainers(), model=start(), out=tmp_path / "o")
    sfl.verify_run(tmp_path / "o")
    rounds = Transcript.from_bytes(finished.files["transcript.cbor"]).of_kind("round")
    assert [e.rows(3) for e in rounds] == [list(NAMES)] * 2


def test_figures_of_held_out_rows_are_kept_apart(tmp_path: Path) -> None:
    finished = sfl.run(
        plan(),
        trainers(),
        model=start(),
        evaluate=lambda m: {"size": float(m.size)},
        baselines=lambda: {"pooled": {"size": 1.0}},
    )
    assert finished.metrics["final"] == {"round": 1, "size": 82.0}
    assert (
        json.loads(finished.files["metrics.json"])["baselines"]["pooled"]["size"] == 1
    )
    assert "size" not in json.dumps(finished.report.data["claims"])


def test_too_few_clients_end_the_run_and_leave_nothing(tmp_path: Path) -> None:
    def broken(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        raise EngineError("the file server is down")

    clients = {**trainers(), "clinic-b": broken, "clinic-c": broken}
    home = tmp_path / "home"
    with pytest.raises(TooFewClients):
        sfl.run(plan(), clients, model=start(), out=tmp_path / "out", home=home)
    assert not (tmp_path / "out").exists()
    # Nobody's vector had left, so nobody was charged.
    ledger = Ledger(home / "clients" / "clinic-a" / "ledger.sqlite", client="clinic-a")
    assert ledger.charged("clinics") == []
    assert len(ledger.releases("clinics")) == 2
    ledger.close()


def test_without_a_home_a_ledger_is_thrown_away(tmp_path: Path) -> None:
    """Each run of a plan is a simulation of its own, whatever was spent before."""
    for out in ("one", "two"):
        sfl.run(plan(), trainers(), model=start(), out=tmp_path / out)


def test_trainers_and_members_must_match() -> None:
    with pytest.raises(UsageError, match="clinic-d"):
        sfl.run(plan(), trainers(NAMES[:3]), model=start())


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds files already"):
        sfl.run(plan(), trainers(), model=start(), out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_custom_plan_without_a_start_is_refused() -> None:
    with pytest.raises(PlanError, match=r"model\.start"):
        sfl.run(plan(), trainers())


def test_seeded_randomness_is_stamped(tmp_path: Path) -> None:
    from secure_fl.randomness import SeededInsecure

    finished = sfl.run(
        plan(rounds=1), trainers(), model=start(), random=SeededInsecure(b"test")
    )
    assert finished.report.data["insecure"]
    assert "INSECURE" in finished.files["report.html"].decode()
    assert "INSECURE" in finished.files["report.txt"].decode()


def test_noise_is_not_repeated_between_runs() -> None:
    one, two = (
        sfl.run(
            plan(rounds=1, noise_multiplier=20.0), trainers(), model=start()
        ).model.flatten()
        for _ in range(2)
    )
    assert np.count_nonzero(one == two) < one.size / 10


@pytest.mark.parametrize("name", ["jinja2", "matplotlib"])
def test_what_draws_the_report_is_missed_before_anything_is_charged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util,
        "find_spec",
        lambda wanted, package=None: None if wanted == name else find(wanted, package),
    )
    with pytest.raises(UsageError, match=f"{name} is not installed"):
        sfl.run(
            plan(),
            trainers(),
            model=start(),
            out=tmp_path / "out",
            home=tmp_path / "home",
        )
    assert list(tmp_path.iterdir()) == []


def test_a_seeded_run_charges_no_lasting_ledger(tmp_path: Path) -> None:
    from secure_fl.randomness import SeededInsecure

    with pytest.raises(UsageError, match="no lasting ledger"):
        sfl.run(
            plan(),
            trainers(),
            model=start(),
            home=tmp_path / "home",
            random=SeededInsecure(b"test"),
        )
    assert not (tmp_path / "home").exists()


def test_a_home_inside_the_runs_folder_is_refused(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(UsageError, match="keys and ledgers would lie"):
        sfl.run(plan(), trainers(), model=start(), out=out, home=out / "home")
    assert not out.exists()


def test_a_home_keeps_ledgers_and_nothing_of_a_finished_run(tmp_path: Path) -> None:
    home = tmp_path / "home"
    sfl.run(plan(), trainers(), model=start(), home=home)
    assert [p.name for p in home.iterdir() if any(p.rglob("*"))] == ["clients"]


def test_a_damaged_ledger_stops_a_run_and_leaves_nothing(tmp_path: Path) -> None:
    home = tmp_path / "home"
    (home / "clients" / "clinic-a").mkdir(parents=True)
    (home / "clients" / "clinic-a" / "ledger.sqlite").write_bytes(b"damaged" * 999)
    with pytest.raises(VerificationError, match="ledger") as refused:
        sfl.run(plan(), trainers(), model=start(), out=tmp_path / "out", home=home)
    assert "budget as spent" in refused.value.hint
    assert not (tmp_path / "out").exists()
    assert not list((home / "runs").iterdir())


def test_a_score_that_json_cannot_say_is_left_out(tmp_path: Path) -> None:
    finished = sfl.run(
        plan(),
        trainers(),
        model=start(),
        out=tmp_path / "out",
        evaluate=lambda m: {"auc": float("nan"), "loss": float(np.float32(0.5))},
        baselines=lambda: {"pooled": {"loss": np.float32(0.25), "auc": np.nan}},
    )
    assert finished.metrics["final"] == {"round": 1, "loss": 0.5}
    assert finished.metrics["baselines"] == {"pooled": {"loss": 0.25}}
    sfl.verify_run(str(tmp_path / "out"))
