# SPDX-License-Identifier: Apache-2.0
"""Each verb does what its help says, as text and as JSON."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import click
import pytest

from secure_fl.cli.main import cli
from secure_fl.identity import key_from_text
from secure_fl.plan import load_plan, verify_endorsement

from .conftest import Finished
from .support import MEMBERS, RUN_FILES, call, plan_text, snapshot


def verbs(command: click.Command, *path: str) -> list[tuple[str, ...]]:
    """Every verb and group of verbs, the program itself first."""
    found = [path]
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            found += verbs(inner, *path, name)
    return found


# -- help ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", verbs(cli), ids=" ".join)
@pytest.mark.parametrize("flag", ["-h", "--help"])
@pytest.mark.usefixtures("desk")
def test_help(path: tuple[str, ...], flag: str) -> None:
    answer = call(*path, flag)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("Usage: " + " ".join(["secure-fl", *path]))
    assert max(map(len, answer.out.splitlines())) <= 80
    assert "..." not in answer.out.partition("Commands:")[2]


def test_the_verbs_of_the_design() -> None:
    assert set(cli.commands) == {
        *("plan", "keys", "run", "keyholder", "report", "verify", "ledger", "bench"),
        *("policy", "join", "leave", "node", "watch", "certs"),
    }


@pytest.mark.usefixtures("desk")
def test_no_verb() -> None:
    answer = call()
    assert answer.code == 2
    assert answer.out == call("--help").out


# -- plan and keys ---------------------------------------------------------------------


def test_plan_new(desk: Path) -> None:
    shown = call("plan", "new")
    assert (shown.code, shown.err) == (0, "")
    written = call("plan", "new", "-o", "mine.toml")
    assert (written.code, written.out, written.err) == (0, "", "")
    assert (desk / "mine.toml").read_text() == shown.out
    checked = call("plan", "check", "mine.toml", "--json")
    assert checked.json["epsilon_projected"] <= checked.json["epsilon_limit"] == 3.0


def test_plan_check(desk: Path) -> None:
    plan = load_plan(desk / "plan.toml")
    facts = call("plan", "check", "plan.toml", "--json").json
    assert facts["plan_hash"] == plan.hash.hex()
    assert (facts["members"], facts["threshold"], facts["dropouts_allowed"]) == (
        3,
        3,
        0,
    )
    assert 0 < facts["epsilon_projected"] < facts["epsilon_limit"] == 8.0
    assert facts["model_values"] == (4 + 1) * 4 + (4 + 1) * 2
    assert facts["bytes_per_client_and_round"] == 4 * (facts["model_values"] + 1)
    lines = call("plan", "check", "plan.toml").out.splitlines()
    assert len(lines) == len(facts)
    assert f"plan hash{plan.hash.hex():>84}".split() in [x.split() for x in lines]


def test_keys_and_endorsement(desk: Path) -> None:
    keys = {}
    for name in MEMBERS:
        made = call("keys", "new", "-o", f"{name}.pem", "--passphrase", "correct horse")
        assert (made.code, made.err) == (0, "")
        assert stat.S_IMODE((desk / f"{name}.pem").stat().st_mode) == 0o600
        keys[name] = made.out.strip()
        assert len(key_from_text(keys[name])) == 32
    shown = call("keys", "show", "bank-a.pem", "--passphrase", "correct horse")
    assert shown.out.strip() == keys["bank-a"]

    (desk / "signed.toml").write_text(plan_text(keys=keys))
    signed = call(
        *("plan", "sign", "signed.toml", "--key", "bank-b.pem"),
        *("--passphrase", "correct horse"),
    )
    assert (signed.code, signed.err) == (0, "")
    name, signature = signed.out.split()
    assert name == "bank-b"
    plan = load_plan(desk / "signed.toml")
    verify_endorsement(plan, "bank-b", bytes.fromhex(signature))


def test_the_passphrase_from_the_environment(
    desk: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECURE_FL_PASSPHRASE", "correct horse")
    made = call("keys", "new", "-o", "a.pem")
    assert "ENCRYPTED" in (desk / "a.pem").read_text()
    assert call("keys", "show", "a.pem").out == made.out
    monkeypatch.delenv("SECURE_FL_PASSPHRASE")
    assert call("keys", "show", "a.pem").code == 2


# -- run -------------------------------------------------------------------------------


def test_run_as_text(finished: Finished) -> None:
    answer = finished.answer
    assert (answer.code, answer.err) == (0, "")
    assert "together, private" in answer.out
    assert "at delta 1e-05, for one record of one member" in answer.out
    assert "secure-fl verify out" in answer.out
    assert "one member alone" not in answer.out
    assert max(map(len, answer.out.splitlines())) <= 80
    left = snapshot(finished.folder / "out")
    assert {name for name, data in left.items() if data} == set(RUN_FILES)
    # throw-away keys and homes are gone
    assert not any((finished.folder / "state" / "secure-fl" / "runs").iterdir())


def test_run_as_json_with_baselines(desk: Path) -> None:
    answer = call("run", "plan.toml", "--out", "out", "--baselines", "--json")
    assert (answer.code, answer.err) == (0, "")
    told = answer.json
    assert told["out"] == "out"
    assert told["plan_hash"] == load_plan(desk / "out" / "plan.toml").hash.hex()
    assert told["metrics"] == json.loads((desk / "out" / "metrics.json").read_text())
    report = json.loads((desk / "out" / "report.json").read_text())
    assert told["claims"] == report["claims"]
    baselines = told["metrics"]["baselines"]
    alone = baselines["each_member_alone"]
    assert set(alone) == set(MEMBERS)
    for key in ("accuracy", "auc"):
        mean = sum(figures[key] for figures in alone.values()) / 3
        assert baselines["one_member_alone"][key] == pytest.approx(mean)
        assert 0.5 < baselines["pooled_non_private"][key] <= 1
    assert call("verify", "out").code == 0


def test_run_with_data_elsewhere_and_a_home(desk: Path) -> None:
    """``--data`` and ``--home`` by variable or by option; the ledgers stay."""
    (desk / "elsewhere").mkdir()
    (desk / "table.csv").rename(desk / "elsewhere" / "table.csv")
    answer = call(
        *("run", "plan.toml", "--data", "elsewhere", "--home", "home"),
        *("--out", "out", "--json"),
    )
    assert (answer.code, answer.err) == (0, "")
    for name in MEMBERS:
        assert (desk / "home" / "clients" / name / "ledger.sqlite").is_file()
    assert not any((desk / "home" / "runs").iterdir())
    assert not [p for p in (desk / "out").rglob("*") if p.suffix in (".pem", ".key")]


# -- verify and report -----------------------------------------------------------------


def test_verify(out: Path) -> None:
    plan = load_plan(out / "plan.toml")
    told = call("verify", "out", "--json")
    assert (told.code, told.err) == (0, "")
    assert told.json["plan_hash"] == plan.hash.hex()
    assert set(told.json["epsilon"]) == set(MEMBERS)
    assert all(0 < e < 8 for e in told.json["epsilon"].values())

    shown = call("verify", "out")
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    for line in told.json["checks"]:
        assert f"ok           {line}" in lines
    for line in told.json["not_checked"]:
        assert f"not checked  {line}" in lines
    assert f"plan hash  {plan.hash.hex()}" in lines


def test_verify_against_the_own_copy_of_the_plan(desk: Path, out: Path) -> None:
    told = call("verify", "out", "--plan", "plan.toml", "--json")
    assert told.code == 0
    assert any("own copy" in line for line in told.json["checks"])
    assert call("verify", "out", "--plan", out / "plan.toml").code == 0


@pytest.mark.parametrize(
    ("form", "file"), [("text", "report.txt"), ("json", "report.json"), ("html", "")]
)
def test_report(desk: Path, out: Path, form: str, file: str) -> None:
    shown = call("report", "out", "--format", form)
    assert (shown.code, shown.err) == (0, "")
    if file:
        assert shown.out == (out / file).read_text()
    else:
        assert shown.out.startswith("<!DOCTYPE html>")
        assert "SIMULATION" in shown.out
    written = call("report", "out", "--format", form, "-o", "page")
    assert (written.code, written.out, written.err) == (0, "", "")
    if file:
        assert (desk / "page").read_text() == shown.out


# -- bench -----------------------------------------------------------------------------


@pytest.mark.usefixtures("desk")
def test_bench_masking() -> None:
    size = ("--clients", "5", "--dropped", "1", "--length", "500", "--bits", "24")
    told = call("bench", "masking", *size, "--json")
    assert (told.code, told.err) == (0, "")
    figures = told.json
    assert figures["exact"] is True
    assert {
        "client_seconds",
        "aggregator_seconds",
        "round_seconds",
        "bytes_up_per_value",
        "client_peak_bytes",
    } <= set(figures)
    assert figures["bytes_up_per_value"] > 3
    lines = call("bench", "masking", *size).out.splitlines()
    assert [line.split()[0] for line in lines] == list(figures)
