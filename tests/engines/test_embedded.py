# SPDX-License-Identifier: Apache-2.0
"""Whole runs on this machine: what comes out, who may fail, what is charged."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secure_fl as sfl
from secure_fl.errors import (
    BudgetExceeded,
    EngineError,
    FaultyClient,
    PlanError,
    TooFewClients,
    UsageError,
    VerificationError,
)
from secure_fl.privacy import Ledger
from secure_fl.transcript import Transcript

from .support import NAMES, Trainer, plan, plan_text, start, trainer, trainers


def test_a_run_leaves_files_that_verify(tmp_path: Path) -> None:
    finished = sfl.run(plan(), trainers(), model=start(), out=tmp_path / "out")
    verified = sfl.verify_run(tmp_path / "out")
    assert len(verified.checks) >= 6
    assert set(verified.epsilon) == set(NAMES)
    assert 0 < max(verified.epsilon.values()) <= 6
    on_disk = sfl.GlobalModel.load(tmp_path / "out" / "model.safetensors")
    assert on_disk.digest() == finished.model.digest() != start().digest()


def test_run_and_save_are_the_same_files(tmp_path: Path) -> None:
    finished = sfl.run(plan(), trainers(), model=start())
    finished.save(tmp_path / "out")
    sfl.verify_run(tmp_path / "out")
    assert finished.report.data["simulation"]
    with pytest.raises(UsageError, match="holds a run already"):
        finished.save(tmp_path / "out")


@pytest.mark.parametrize("kind", ["masking", "plain"])
def test_both_protections_run_and_verify(tmp_path: Path, kind: str) -> None:
    finished = sfl.run(plan(kind=kind), trainers(), model=start(), out=tmp_path / "o")
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


def test_a_client_that_cannot_train_is_a_dropout(tmp_path: Path) -> None:
    def broken(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        raise EngineError("the file server is down")

    # Four members with one colluding: threshold 3, so one may be missing.
    finished = sfl.run(
        plan(), {**trainers(), "clinic-b": broken}, model=start(), out=tmp_path / "out"
    )
    sfl.verify_run(tmp_path / "out")
    log = Transcript.from_bytes(finished.files["transcript.cbor"])
    assert [e.rows(3) for e in log.of_kind("round")] == [
        ["clinic-a", "clinic-c", "clinic-d"]
    ] * 2
    claim = finished.report.claims[0]
    assert claim["clients"]["clinic-b"]["epsilon"] == 0
    assert claim["clients"]["clinic-a"]["epsilon"] > 0


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


def test_an_attempt_that_fails_is_made_again_without_a_second_charge(
    tmp_path: Path,
) -> None:
    """Two clinics are away in the first attempt: nobody's vector left, so the updates
    of the others go into the second one under the charge they have."""
    calls: dict[str, int] = {}

    def away_once(name: str, seed: int) -> Trainer:
        fit = trainer(seed)

        def wrapped(r: sfl.ClientRound) -> sfl.PrivateUpdate:
            calls[name] = calls.get(name, 0) + 1
            if calls[name] == 1:
                raise EngineError("on the way")
            return fit(r)

        return wrapped

    clients = {
        **trainers(),
        "clinic-c": away_once("clinic-c", 2),
        "clinic-d": away_once("clinic-d", 3),
    }
    finished = sfl.run(plan(rounds=1), clients, model=start(), out=tmp_path / "out")
    sfl.verify_run(tmp_path / "out")
    assert calls == {"clinic-c": 2, "clinic-d": 2}
    releases = finished.report.data["releases"]
    for name in ("clinic-a", "clinic-b"):
        assert [(r["attempt"], r["state"]) for r in releases[name]] == [(0, "released")]
    for name in ("clinic-c", "clinic-d"):
        assert [(r["attempt"], r["state"]) for r in releases[name]] == [(1, "released")]


def test_an_unprotected_update_makes_epsilon_infinite(tmp_path: Path) -> None:
    def exact(r: sfl.ClientRound) -> object:
        return sfl.unprotected(np.zeros(82), reason="a rehearsal with made-up data")

    finished = sfl.run(
        plan(rounds=1),
        {**trainers(), "clinic-a": exact},  # type: ignore[dict-item]
        model=start(),
        out=tmp_path / "out",
    )
    clients = finished.report.claims[0]["clients"]
    assert clients["clinic-a"]["epsilon"] == "infinity"
    assert finished.report.claims[0]["consortium"]["epsilon"] == "infinity"
    assert "a rehearsal" in finished.files["report.txt"].decode()
    verified = sfl.verify_run(tmp_path / "out")
    assert verified.epsilon["clinic-a"] == float("inf")


def test_a_trainer_must_return_a_claimed_update() -> None:
    def raw(r: sfl.ClientRound) -> object:
        return np.zeros(82)

    with pytest.raises(UsageError, match="PrivateUpdate"):
        sfl.run(plan(), {**trainers(), "clinic-a": raw}, model=start())  # type: ignore[dict-item]


def test_an_update_of_another_round_is_refused() -> None:
    kept: list[sfl.PrivateUpdate] = []
    fit = trainer(0)

    def stale(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        kept.append(fit(r))
        return kept[0]

    with pytest.raises(UsageError, match="another round"):
        sfl.run(plan(), {**trainers(), "clinic-a": stale}, model=start())


def test_a_budget_holds_across_runs(tmp_path: Path) -> None:
    home = tmp_path / "home"
    sfl.run(plan(), trainers(), model=start(), out=tmp_path / "one", home=home)
    with pytest.raises(BudgetExceeded) as refused:
        sfl.run(plan(), trainers(), model=start(), out=tmp_path / "two", home=home)
    assert refused.value.spent > 0
    assert refused.value.projected > refused.value.limit
    assert not (tmp_path / "two").exists()
    # Without a home the ledger is thrown away: a simulation of its own.
    sfl.run(plan(), trainers(), model=start(), out=tmp_path / "three")


def test_what_was_opened_outlives_a_spent_budget(tmp_path: Path) -> None:
    """All four are needed; one fails twice, charged, and nothing is to spare."""
    failed: set[int] = set()
    fit = trainer(0)

    def twice(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        update = fit(r)
        if r.round in {0, 1} - failed:
            failed.add(r.round)
            raise EngineError("the file server is down")
        return update

    text = plan_text(rounds=4, spare=0).replace("noise_multiplier", "# ", 1)
    strict = sfl.Plan(
        text.replace("members = [", "min_clients = 4\nmembers = [").encode()
    )
    out = tmp_path / "out"
    finished = sfl.run(
        strict, {**trainers(), "clinic-a": twice}, model=start(), out=out
    )
    data = finished.report.data
    assert [r["round"] for r in data["rounds"]] == [0, 1]
    assert data["skipped_rounds"] == [2, 3]
    assert [f["round"] for f in data["failures"]] == [0, 1, 2, 2, 3]
    assert data["failures"][-1]["reason"].startswith("not begun: clinic-a")
    others = [len(data["releases"][name]) for name in NAMES[1:]]
    assert max(others) == 3, "nobody is charged for the round that was not begun"
    limit = data["claims"][0]["limit"]
    assert 0.9 * limit < data["claims"][0]["consortium"]["epsilon"] <= limit
    verified = sfl.verify_run(out)
    second = Path(__file__).parents[2] / "protocols" / "report" / "verify.py"
    command = [sys.executable, str(second), str(out), "--json"]
    told = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert json.loads(told)["epsilon"] == pytest.approx(verified.epsilon, rel=1e-4)


def test_trainers_and_members_must_match() -> None:
    with pytest.raises(UsageError, match="clinic-d"):
        sfl.run(plan(), trainers(NAMES[:3]), model=start())


def test_a_folder_that_holds_something_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds files already"):
        sfl.run(plan(), trainers(), model=start(), out=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["notes.txt"]


def test_a_start_of_another_hash_is_refused() -> None:
    text = plan_text().replace(
        'kind = "custom"', f'kind = "custom"\nstart_sha256 = "{"0" * 64}"'
    )
    with pytest.raises(PlanError, match="another model"):
        sfl.run(sfl.Plan(text.encode()), trainers(), model=start())


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


def test_a_trainer_that_fails_after_its_noise_is_charged(tmp_path: Path) -> None:
    """That it is missing may tell what its noise was: its charge stays, twice here."""

    def fails_late(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        trainer(1)(r)
        raise EngineError("account 4711 has a negative balance")

    clients = {**trainers(), "clinic-b": fails_late}
    finished = sfl.run(plan(), clients, model=start(), out=tmp_path / "out")
    sfl.verify_run(tmp_path / "out")
    rows = finished.report.data["releases"]["clinic-b"]
    assert [(r["state"], r["charged"]) for r in rows] == [("reserved", True)] * 2
    assert not any(b"negative balance" in data for data in finished.files.values())


def test_two_late_failures_are_made_again_with_new_charges(tmp_path: Path) -> None:
    calls: dict[str, int] = {}

    def late_once(name: str, seed: int) -> Trainer:
        fit = trainer(seed)

        def wrapped(r: sfl.ClientRound) -> sfl.PrivateUpdate:
            calls[name] = calls.get(name, 0) + 1
            update = fit(r)
            if calls[name] == 1:
                raise EngineError("account 4711 has a negative balance")
            return update

        return wrapped

    clients = {
        **trainers(),
        "clinic-c": late_once("clinic-c", 2),
        "clinic-d": late_once("clinic-d", 3),
    }
    finished = sfl.run(plan(rounds=1), clients, model=start(), out=tmp_path / "out")
    sfl.verify_run(tmp_path / "out")
    for name in ("clinic-c", "clinic-d"):
        rows = finished.report.data["releases"][name]
        assert [(r["state"], r["charged"]) for r in rows] == [
            ("reserved", True),
            ("released", True),
        ]
    assert b"negative balance" not in finished.files["transcript.cbor"]


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


def test_a_trainer_blames_nobody(tmp_path: Path) -> None:
    def blames(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        raise FaultyClient("clinic-b", "row 17")

    finished = sfl.run(
        plan(rounds=1), {**trainers(), "clinic-a": blames}, model=start()
    )
    log = Transcript.from_bytes(finished.files["transcript.cbor"])
    assert log.of_kind("round")[0].rows(3) == ["clinic-b", "clinic-c", "clinic-d"]
    assert b"row 17" not in finished.files["transcript.cbor"]


def test_a_training_that_diverges_is_a_charged_dropout(tmp_path: Path) -> None:
    def diverges(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        head = r.load(nn.Linear(40, 2))
        private = r.make_private(
            head,
            torch.optim.SGD(head.parameters(), lr=float("inf")),
            DataLoader(TensorDataset(torch.ones(40, 40), torch.ones(40).long())),
            nn.CrossEntropyLoss(),
        )
        for inputs, labels in private.loader:
            private.criterion(private.model(inputs), labels).backward()
            private.optimizer.step()
        return private.update()

    finished = sfl.run(
        plan(rounds=1), {**trainers(), "clinic-a": diverges}, model=start()
    )
    log = Transcript.from_bytes(finished.files["transcript.cbor"])
    assert log.of_kind("round")[0].rows(3) == ["clinic-b", "clinic-c", "clinic-d"]
    (release,) = finished.report.data["releases"]["clinic-a"]
    assert (release["state"], release["charged"]) == ("reserved", True)


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


def test_a_failing_score_loses_no_round(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    out = tmp_path / "out"

    def fails(model: sfl.GlobalModel) -> dict[str, float]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        sfl.run(plan(), trainers(), model=start(), out=out, evaluate=fails)
    finished = sfl.run(
        plan(),
        trainers(),
        model=start(),
        out=out,
        resume=True,
        evaluate=lambda m: {"size": float(m.size)},
    )
    sfl.verify_run(out)
    for rows in finished.report.data["releases"].values():
        assert [(r["round"], r["state"]) for r in rows] == [
            (0, "released"),
            (1, "released"),
        ]
    assert finished.metrics["final"] == {"round": 1, "size": 82.0}
