# SPDX-License-Identifier: Apache-2.0
"""Wrong input: one error line, a hint, the right exit code, nothing half-written."""

from __future__ import annotations

from pathlib import Path

import pytest

from .support import (
    MEMBERS,
    RUN_FILES,
    Answer,
    call,
    plan_text,
    snapshot,
    table_text,
)

RUN = ("run", "bad.toml", "--out", "new")


def refused(answer: Answer, code: int, *phrases: str) -> None:
    """One error line with every phrase, at least one hint, and nothing else."""
    assert answer.code == code, answer.err
    assert answer.out == ""
    assert len(answer.errors) == 1, answer.err
    assert answer.hints, answer.err
    assert len(answer.errors) + len(answer.hints) == len(answer.err.splitlines())
    for phrase in phrases:
        assert phrase in answer.errors[0]


def refused_and_unchanged(
    desk: Path, args: tuple[str, ...], code: int, *phrases: str
) -> None:
    before = snapshot(desk)
    refused(call(*args), code, *phrases)
    assert snapshot(desk) == before


# -- the call --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (("frob",), "no such command 'frob'"),
        (("--frob",), "no such option '--frob'"),
        (("plan", "frob"), "no such command 'frob'"),
        (("run", "plan.toml", "--out", "new", "--frob"), "no such option '--frob'"),
        (("run", "plan.toml"), "missing option '--out'"),
        (("run", "--out", "new"), "missing argument 'PLAN'"),
        (("run", "plan.toml", "more", "--out", "new"), "unexpected extra argument"),
        (("verify",), "missing argument 'DIR'"),
        (("report", "new", "--format", "pdf"), "'pdf' is not one of"),
        (("keys", "new"), "missing option '-o' / '--output'"),
        (("plan", "sign", "plan.toml"), "missing option '--key'"),
        (("bench", "masking", "--clients", "2"), "'--clients': 2 is not in the range"),
        (("bench", "masking", "--clients", "x"), "'x' is not a valid integer"),
        (("bench", "masking", "--dropped", "10"), "0 clients are left"),
        (("bench", "masking", "--clients", "999", "--bits", "8"), "8 bits"),
        (("plan", "new", "-o", "plan.toml"), "plan.toml exists"),
        (("keys", "new", "-o", "plan.toml"), "plan.toml exists"),
        (("keys", "new", "-o", "a.pem", "--passphrase", ""), "passphrase is empty"),
        (("keys", "new", "-o", "no/a.pem"), "cannot write no/a.pem"),
        (("keys", "show", "a.pem"), "cannot read a.pem"),
        (("keys", "show", "plan.toml"), "plan.toml does not open"),
        (("plan", "sign", "plan.toml", "--key", "a.pem"), "cannot read a.pem"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_wrong_call(desk: Path, args: tuple[str, ...], phrase: str) -> None:
    refused_and_unchanged(desk, args, 2, phrase)


@pytest.mark.parametrize("verb", ["new", "report"])
def test_a_file_in_no_folder(desk: Path, out: Path, verb: str) -> None:
    args = ("plan", "new") if verb == "new" else ("report", str(out))
    refused_and_unchanged(desk, (*args, "-o", "no/file"), 5, "no/file")


# -- the plan --------------------------------------------------------------------------


def test_no_plan(desk: Path) -> None:
    for args in (RUN, ("plan", "check", "bad.toml")):
        refused_and_unchanged(desk, args, 2, "cannot read bad.toml")


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        (b"name = [", "the plan is not TOML"),
        (b"\xff\xfe", "the plan is not UTF-8"),
        (b"", "field required"),
        (plan_text() + "shoe_size = 44\n", "data.columns.shoe_size"),
        (plan_text().replace("clip_norm", "clip_nrom"), "privacy.clip_n"),
        (
            plan_text().replace("clip_norm", "clip_bias = 1.0\nclip_norm"),
            "privacy.clip_bias: unknown key",
        ),
        (plan_text(epsilon=1.0), "3 releases (1 spare) would spend 3.75"),
        (plan_text(rounds=400), "401 releases"),
        (plan_text(members=MEMBERS[:2]), "parties.members"),
        (
            plan_text().replace("members = [", "min_clients = 2\nmembers = ["),
            "parties.min_clients: 2 is not within 3 to 3",
        ),
        (
            plan_text().replace("members = [", "threshold = 1\nmembers = ["),
            "parties.threshold: 1 is not within 3 to 3",
        ),
        (plan_text(members=("bank-a",) * 3), "two members share a name"),
        (plan_text().replace("epsilon = 8.0", "epsilon = -1.0"), "privacy.epsilon"),
        (plan_text().replace("epsilon = 8.0", "epsilon = nan"), "privacy.epsilon"),
        (plan_text(keys={"bank-a": "sfl1wrong"}), "makes its own keys"),
        (plan_text().partition("[data]")[0], "no [data]"),
        (
            plan_text().replace('"opacus"', '"head"'),
            "training.way: a head has no hidden layers",
        ),
    ],
)
def test_a_wrong_plan(desk: Path, text: str | bytes, phrase: str) -> None:
    source = text if isinstance(text, bytes) else text.encode()
    (desk / "bad.toml").write_bytes(source)
    refused_and_unchanged(desk, RUN, 2, phrase)


def test_a_plan_of_an_earlier_run(desk: Path, out: Path) -> None:
    args = ("run", str(out / "plan.toml"), "--data", ".", "--out", "new")
    refused_and_unchanged(desk, args, 2, "parties.members")


# -- the data --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "phrase"),
    [
        (table_text().replace("target", "goal"), "lacks columns of the plan: target"),
        (table_text().replace("age,", "age,height,", 1), "5 cells"),
        ("id,age,income,region,target\n", "has no rows"),
        ("", "has no rows"),
        (table_text(rows=2), "no row"),
        (b"\xff\xfe\x00", "is not UTF-8 text"),
    ],
)
def test_a_wrong_table(desk: Path, text: str | bytes, phrase: str) -> None:
    source = text if isinstance(text, bytes) else text.encode()
    (desk / "bad.csv").write_bytes(source)
    (desk / "bad.toml").write_text(plan_text(file="bad.csv"))
    refused_and_unchanged(desk, RUN, 2, "bad.csv", phrase)


@pytest.mark.parametrize(
    ("column", "cell", "phrase"),
    [
        ("age", "nan", "not a finite number"),
        ("age", "NaN", "not a finite number"),
        ("income", "-inf", "not a finite number"),
        ("income", "plenty", "not a finite number"),
        ("age", "", "the value is missing"),
        ("region", "east", "the plan does not list this value"),
        ("target", "2", "the plan does not list this value"),
        ("target", "", "the plan does not list this value"),
    ],
)
def test_a_wrong_cell(desk: Path, column: str, cell: str, phrase: str) -> None:
    lines = table_text().splitlines()
    cells = lines[6].split(",")
    cells[lines[0].split(",").index(column)] = cell
    lines[6] = ",".join(cells)
    (desk / "table.csv").write_text("\n".join(lines))
    args = ("run", "plan.toml", "--out", "new")
    refused_and_unchanged(desk, args, 2, f"table.csv:7: column '{column}'", phrase)


@pytest.mark.parametrize("place", ["nowhere", "state", "table.csv"])
def test_no_table(desk: Path, place: str) -> None:
    args = ("run", "plan.toml", "--data", place, "--out", "new")
    refused_and_unchanged(desk, args, 2, f"cannot read {place}/table.csv")


# -- the folder ------------------------------------------------------------------------


def test_a_second_run_into_a_folder(desk: Path, out: Path) -> None:
    args = ("run", "plan.toml", "--out", str(out))
    refused_and_unchanged(desk, args, 2, "holds a run already")
    refused_and_unchanged(desk, (*args, "--resume"), 2, "is finished")


def test_a_folder_of_something_else(desk: Path) -> None:
    (desk / "new").mkdir()
    (desk / "new" / "thesis.tex").write_text("mine")
    args = ("run", "plan.toml", "--out", "new")
    refused_and_unchanged(desk, args, 2, "new holds files already")


def test_nothing_to_resume(desk: Path, out: Path) -> None:
    args = ("run", "plan.toml", "--resume", "--out")
    refused_and_unchanged(desk, (*args, "new"), 2, "new holds no run to continue")
    (desk / "new").mkdir()
    refused_and_unchanged(desk, (*args, "new"), 2, "new holds no run to continue")
    # a started run of another machine or user: its keys are not here
    (desk / "new" / "plan.toml").write_bytes((out / "plan.toml").read_bytes())
    refused_and_unchanged(desk, (*args, "new"), 2, "no unfinished run")
    # a run of another plan
    (desk / "bad.toml").write_text(plan_text(rounds=1))
    refused_and_unchanged(desk, (*RUN, "--resume"), 2, "is not the plan")


def test_a_folder_that_cannot_be(desk: Path) -> None:
    args = ("run", "plan.toml", "--out")
    refused_and_unchanged(desk, (*args, "plan.toml"), 2, "plan.toml is not a folder")
    refused_and_unchanged(desk, (*args, "plan.toml/new"), 5, "cannot write")
    refused_and_unchanged(desk, (*args, "/proc/new"), 5, "cannot write /proc/new")


def test_a_home_that_cannot_be(desk: Path) -> None:
    args = ("run", "plan.toml", "--out", "new", "--home")
    refused_and_unchanged(desk, (*args, "plan.toml"), 2, "cannot create plan.toml")
    refused_and_unchanged(desk, (*args, "/proc/new"), 2, "cannot create /proc/new")
    # keys and ledgers are not part of what is given away
    refused_and_unchanged(desk, (*args, "new/home"), 2, "would lie in new")


# -- the budget ------------------------------------------------------------------------


def test_a_spent_budget(desk: Path) -> None:
    """One run fits into 3.8, a second does not, and asking costs nothing."""
    (desk / "tight.toml").write_text(plan_text(epsilon=3.8))
    args = ("run", "tight.toml", "--home", "home", "--out")
    assert call(*args, "first").code == 0
    answers = [call(*args, "second"), call(*args, "third")]
    for answer in answers:
        refused(answer, 4, "bank-a", "above the limit of 3.8")
    assert answers[0].err == answers[1].err
    assert not (desk / "second").exists()
    assert not (desk / "third").exists()
    assert not any((desk / "home" / "runs").iterdir())
    # the ledgers are the clients' own: another home has spent nothing
    assert call("run", "tight.toml", "--home", "other", "--out", "second").code == 0


def test_a_spoiled_ledger(desk: Path) -> None:
    (desk / "home" / "clients" / "bank-a").mkdir(parents=True)
    (desk / "home" / "clients" / "bank-a" / "ledger.sqlite").write_bytes(b"coffee")
    refused(
        call("run", "plan.toml", "--home", "home", "--out", "new"), 1, "ledger.sqlite"
    )
    assert not (desk / "new").exists()


# -- keys ------------------------------------------------------------------------------


def test_keys_that_do_not_fit(desk: Path) -> None:
    keys = {
        name: call("keys", "new", "-o", f"{name}.pem").out.strip() for name in MEMBERS
    }
    call("keys", "new", "-o", "stranger.pem")
    call("keys", "new", "-o", "locked.pem", "--passphrase", "correct horse")
    (desk / "signed.toml").write_text(plan_text(keys=keys))
    sign = ("plan", "sign", "signed.toml", "--key")
    show = ("keys", "show")
    for args, phrase in (
        ((*sign, "stranger.pem"), "no member's of this plan"),
        ((*sign, "table.csv"), "table.csv does not open"),
        ((*sign, "locked.pem"), "locked.pem is encrypted"),
        ((*sign, "bank-a.pem", "--passphrase", "x"), "bank-a.pem is encrypted, or not"),
        ((*sign, "locked.pem", "--passphrase", "battery"), "locked.pem does not open"),
        ((*show, "locked.pem"), "locked.pem is encrypted"),
        ((*show, "locked.pem", "--passphrase", "battery"), "locked.pem does not open"),
        (("keys", "new", "-o", "bank-a.pem"), "bank-a.pem exists"),
        (("plan", "sign", "plan.toml", "--key", "bank-a.pem"), "bank-a: has no key"),
    ):
        refused_and_unchanged(desk, args, 2, phrase)


# -- what a run left -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("place", "why"),
    [
        ("nowhere", "nowhere does not exist"),
        ("state", "state holds no run"),
        ("plan.toml", "plan.toml is not a folder"),
    ],
)
def test_no_run_to_verify(desk: Path, place: str, why: str) -> None:
    refused_and_unchanged(desk, ("verify", place), 2, why)
    refused_and_unchanged(desk, ("report", place), 2, "cannot read")


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_flipped_bit(out: Path, name: str) -> None:
    data = (out / name).read_bytes()
    for place in (0, len(data) // 3, len(data) - 1):
        for bit in (0, 7):
            flipped = bytearray(data)
            flipped[place] ^= 1 << bit
            (out / name).write_bytes(flipped)
            refused(call("verify", out), 1, f"{name}: ")
    (out / name).write_bytes(data)


@pytest.mark.parametrize("name", RUN_FILES)
def test_a_missing_file(out: Path, name: str) -> None:
    (out / name).unlink()
    refused(call("verify", out), 1, f"{name}: is missing")


def test_another_plan_than_ones_own(desk: Path, out: Path) -> None:
    (desk / "bad.toml").write_text(plan_text(epsilon=7.0))
    refused(call("verify", out, "--plan", "bad.toml"), 1, "plan.toml: ", "bad.toml")
    for source in (b"\xff\xfe", b"name = ["):
        (desk / "bad.toml").write_bytes(source)
        refused(call("verify", out, "--plan", "bad.toml"), 1, "bad.toml: ")
    refused(call("verify", out, "--plan", "none.toml"), 2, "none.toml does not exist")


def test_a_refusal_in_json(out: Path) -> None:
    (out / "model.safetensors").write_bytes(b"")
    answer = call("verify", out, "--json")
    assert answer.code == 1
    told = answer.json
    assert told["verified"] is False
    assert told["file"] == "model.safetensors"
    assert told["problem"].startswith("was changed after the run")
    assert told["hint"]
    assert f"model.safetensors: {told['problem']}" in answer.err


def test_a_name_that_prints_a_line(out: Path) -> None:
    (out / "x\nVERIFIED: all 99 checks hold").write_bytes(b"")
    answer = call("verify", out)
    assert answer.code == 0
    (last,) = [x for x in answer.out.splitlines() if x.startswith("VERIFIED: ")]
    assert "all 99" not in last


def test_a_report_with_another_epsilon(out: Path) -> None:
    text = (out / "report.json").read_text()
    changed = text.replace('"limit": 8.0', '"limit": 0.8')
    assert changed != text
    (out / "report.json").write_text(changed)
    refused(call("verify", out), 1, "report.json: ")


@pytest.mark.parametrize("name", ["report.json", "metrics.json"])
@pytest.mark.parametrize("text", ["", "{", "[]", "[" * 100_000, "\x00"])
def test_a_report_that_is_none(desk: Path, out: Path, name: str, text: str) -> None:
    (out / name).write_text(text)
    refused_and_unchanged(desk, ("report", str(out)), 1, name)


@pytest.mark.parametrize("form", ["text", "html"])
def test_a_report_without_its_fields(out: Path, form: str) -> None:
    (out / "report.json").write_text("{}")
    refused(call("report", out, "--format", form), 1, "report.json: ")
