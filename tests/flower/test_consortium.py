# SPDX-License-Identifier: Apache-2.0
"""examples/bank_consortium: its files, its plan in process, and all of it for real."""

from __future__ import annotations

import importlib
import io
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import tomllib
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

pytest.importorskip("flwr", reason="needs secure-fl[flower]")

import click
from flwr.app import Context, RecordDict
from flwr.cli.build import build_fab_from_disk

import secure_fl as sfl
from secure_fl.cli.main import cli, main
from secure_fl.engines.flower.app import client_app, server_app
from secure_fl.engines.home import MemberHome
from secure_fl.engines.setup import AGGREGATOR_FILE, PLAN_FILE
from secure_fl.errors import ConsentRefused
from secure_fl.identity import Identity, key_to_text
from secure_fl.plan import Plan
from secure_fl.randomness import SystemRandom

from ..data import data_folder
from .grid_in_process import RUN_ID, GridInProcess, Node

ROOT = Path(__file__).resolve().parents[2]
EXAMPLE = ROOT / "examples" / "bank_consortium"
HOSTS = EXAMPLE / "hosts"
GUIDE = ROOT / "docs" / "pilot.md"
BANKS = ("bank-a", "bank-b", "bank-c", "bank-d", "bank-e")


@pytest.fixture
def example(monkeypatch: pytest.MonkeyPatch) -> Iterator[ModuleType]:
    """The example's run.py, imported as its own program would."""
    monkeypatch.syspath_prepend(str(EXAMPLE.parent))
    monkeypatch.syspath_prepend(str(EXAMPLE.parent / "credit_default"))
    monkeypatch.delenv("SECURE_FL_HOME", raising=False)
    monkeypatch.delenv("SECURE_FL_PASSPHRASE", raising=False)
    yield importlib.import_module("bank_consortium.run")
    for name in [n for n in sys.modules if n.split(".")[0] == "bank_consortium"]:
        del sys.modules[name]
    sys.modules.pop("made_up", None)


@dataclass
class Agreed:
    """The plan, complete, with keys and policies of all; nobody has joined yet."""

    plan: Plan
    folder: Path

    def join(self, name: str) -> MemberHome:
        own = self.folder / name
        home = MemberHome(own / "home")
        home.join(
            self.plan,
            key=own / "member.key",
            data=own / "accounts",
            policy=own / "policy.toml",
        )
        return home


def agree(example: Any, folder: Path, *, rounds: int = 1) -> Agreed:
    """As the example does it, without processes: rows that nobody owns for all."""
    from made_up import write

    home = folder / "aggregator"
    home.mkdir()
    identities = {n: Identity.new(n, random=SystemRandom()) for n in BANKS}
    own = Identity.new("aggregator", random=SystemRandom())
    own.save(home / AGGREGATOR_FILE)
    source = sfl.load_plan(EXAMPLE / "plan.toml")
    assert source.data is not None
    write(source.data, folder / "rows.csv", seed=0, rows=1500)
    banks = [example.Bank(name, folder / name) for name in source.names]
    example.deal(folder / "rows.csv", source, banks)
    keys = {n: key_to_text(i.public_key) for n, i in identities.items()}
    text = example.draft(key_to_text(own.public_key), keys, rounds)
    (folder / "draft.toml").write_text(text)
    done = ["plan", "complete", str(folder / "draft.toml")]
    assert main([*done, "-o", str(home / PLAN_FILE)]) == 0
    plan = sfl.load_plan(home / PLAN_FILE)
    for name, identity in identities.items():
        identity.save(folder / name / "member.key")
        (folder / name / "policy.toml").write_text(example.policy(plan))
    return Agreed(plan, folder)


def test_its_plan_runs_under_its_policies(example: ModuleType, tmp_path: Path) -> None:
    agreed = agree(example, tmp_path)
    assert agreed.plan.rounds.count == 1
    rows = [(tmp_path / n / "accounts" / "accounts.csv").read_text() for n in BANKS]
    numbers = [line.split(",")[0] for text in rows for line in text.split()[1:]]
    assert sorted(map(int, numbers)) == list(range(1, 1501))
    assert len(rows[0]) > len(rows[2]) > len(rows[4])

    nodes = {}
    for place, name in enumerate(BANKS):
        home = agreed.join(name)
        assert home.consent() is not None
        nodes[100 + place] = Node(client_app, {"secure-fl-home": str(home.folder)})
    config = tomllib.loads((EXAMPLE / "app" / "pyproject.toml").read_text())
    entries = config["tool"]["flwr"]["app"]["config"]
    entries["secure-fl-home"] = str(tmp_path / "aggregator")
    server_app(GridInProcess(nodes), Context(RUN_ID, 1, {}, RecordDict(), entries))
    (result,) = (tmp_path / "aggregator" / "results").iterdir()
    verified = sfl.verify_run(result, plan_path=tmp_path / "aggregator" / PLAN_FILE)
    assert set(verified.epsilon) == set(BANKS)
    assert 0 < max(verified.epsilon.values()) <= 1


@pytest.mark.parametrize(
    ("entry", "replacement", "line"),
    [
        ("epsilon = 1.0", "epsilon = 4.0", "largest_epsilon"),
        ("delta = 1e-05", "delta = 1e-04", "largest_delta"),
        ('name = "credit-default"', 'name = "other"', "lineage"),
        ("hidden = []", "hidden = []\nseed = 1", "plans"),
    ],
)
def test_its_policy_refuses_another_plan(
    example: ModuleType, tmp_path: Path, entry: str, replacement: str, line: str
) -> None:
    agreed = agree(example, tmp_path)
    text = agreed.plan.source.decode()
    assert entry in text
    agreed.plan = Plan(text.replace(entry, replacement).encode())
    if line != "plans":  # which pins the one plan that was compared
        policy = tmp_path / "bank-b" / "policy.toml"
        kept = [x for x in policy.read_text().splitlines() if x[:5] != "plans"]
        policy.write_text("\n".join(kept))
    with pytest.raises(ConsentRefused, match=line):
        agreed.join("bank-b")


def test_its_app_is_no_code(tmp_path: Path) -> None:
    app = shutil.copytree(EXAMPLE / "app", tmp_path / "app")
    with zipfile.ZipFile(io.BytesIO(build_fab_from_disk(app))) as fab:
        assert fab.namelist() == ["pyproject.toml", ".info/CONTENT"]
        text = fab.read("pyproject.toml").decode()
    assert tomllib.loads(text)["tool"]["flwr"]["app"]["components"] == {
        "serverapp": "secure_fl.engines.flower.app:server_app",
        "clientapp": "secure_fl.engines.flower.app:client_app",
    }


def test_what_it_refuses(
    example: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "rows.csv").touch()
    for options, word in (
        (["--data", "rows.csv", "--out", "."], "exists"),
        (["--data", "nothing.csv", "--out", "out"], "is not there"),
        (["--data", "rows.csv", "--out", "out", "--kill", "bank-f"], "bank-f"),
        (["--data", "rows.csv", "--out", "out", "--rounds", "0"], "--rounds"),
    ):
        monkeypatch.chdir(tmp_path)
        monkeypatch.setattr(sys, "argv", ["run.py", *options])
        with pytest.raises(SystemExit) as caught:
            example.main()
        assert caught.value.code == 2
        assert word in capsys.readouterr().err
    assert sorted(p.name for p in tmp_path.iterdir()) == ["rows.csv"]


# -- what people type ------------------------------------------------------------------


@pytest.mark.parametrize(
    "file",
    [GUIDE, EXAMPLE / "run.py", EXAMPLE / "parties.py"],
    ids=lambda path: path.name,
)
def test_the_commands_that_it_names_exist(file: Path) -> None:
    """Verbs and options of ours, in a guide that people type from."""
    named = re.findall(r"secure-fl ((?:[a-z]+ ?){1,2})([^`\"']*)", file.read_text())
    assert len(named) >= 1
    for words, rest in named:
        command: click.Command = cli
        for word in words.split():
            if isinstance(command, click.Group):
                assert word in command.commands, f"secure-fl {words}"
                command = command.commands[word]
        known = {option for p in command.params for option in p.opts}
        for option in re.findall(r"(?<!\S)--?[a-z][a-z-]*", rest.split("\n\n")[0]):
            assert option in known, f"secure-fl {words}: {option}"


@pytest.mark.parametrize("file", [GUIDE, EXAMPLE / "README.md"], ids=lambda p: p.name)
def test_the_files_that_it_links_to_exist(file: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)\)", file.read_text())
    assert links
    for target in links:
        assert (file.parent / target).exists(), target


@pytest.mark.parametrize("unit", sorted(HOSTS.glob("*.service")), ids=lambda p: p.name)
def test_systemd_accepts_the_unit(unit: Path, tmp_path: Path) -> None:
    analyze = shutil.which("systemd-analyze")
    if analyze is None:
        pytest.skip("no systemd-analyze on this machine")
    text = unit.read_text()
    program = re.search(r"ExecStart=(\S+)", text)
    assert program is not None
    (tmp_path / unit.name).write_text(
        text.replace(program[1], shutil.which("true") or "/bin/true")
    )
    done = subprocess.run(
        [analyze, "verify", "--man=no", str(tmp_path / unit.name)],
        capture_output=True,
        text=True,
    )
    assert (done.returncode, done.stderr) == (0, "")


def test_the_proxy_lets_members_reach_what_is_theirs() -> None:
    text = re.sub(r"#.*", "", (HOSTS / "nginx.conf").read_text())
    places = dict(re.findall(r"location (\S+) \{([^}]*)\}", text))
    assert set(places) == {"/v1/fleet/", "/"}
    assert "proxy_pass https://127.0.0.1:9092;" in places["/v1/fleet/"]
    assert places["/"].split() == ["return", "403;"]


# -- all of it -------------------------------------------------------------------------


def left_of(out: Path) -> list[str]:
    """Processes that work in ``out`` or below."""
    found = []
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                at = Path(os.readlink(entry / "cwd"))
                command = (entry / "cmdline").read_bytes()
            except OSError:
                continue
            if at.is_relative_to(out):
                found.append(command.replace(b"\0", b" ").decode())
    return found


def begin(data: Path, out: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, str(EXAMPLE / "run.py"), "--data", str(data)]
    return subprocess.Popen(
        [*command, "--out", str(out), *options],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


@pytest.mark.long
def test_five_banks_on_real_data(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = begin(data_folder("credit_default_taiwan"), out)
    said, _ = run.communicate(timeout=1500)
    assert run.returncode == 0, said
    assert left_of(out) == []

    for number in range(1, 6):
        assert f"round {number} of 5" in said
    assert said.index("round 3 of 5") < said.index("bank-c: kill -9")
    assert said.index("bank-c: kill -9") < said.index("bank-c is back")
    assert "VERIFIED" in said
    for line in said.replace(str(out), "").splitlines():
        assert len(line) <= 80, line
    areas = re.findall(r"(?m)^bank-[a-e]  (0\.\d+)$", said)
    assert len(areas) == 5
    assert float(areas[0]) > 0.7

    (result,) = (out / "aggregator" / "home" / "results").iterdir()
    verified = sfl.verify_run(result, plan_path=out / "bank-a" / PLAN_FILE)
    assert set(verified.epsilon) == set(BANKS)
    assert max(verified.epsilon.values()) <= 1.0
    for name in BANKS:  # nobody has what is another's
        rows = {p for p in out.rglob("accounts.csv") if name in p.parts}
        assert rows == {out / name / "accounts" / "accounts.csv"}
        keys = {p.name for p in (out / name).rglob("*.key")}
        assert keys == {"member.key", "node.key", "keystore.key"}


@pytest.mark.long
def test_it_is_stopped_and_leaves_no_process(tmp_path: Path) -> None:
    out = tmp_path / "out"
    run = begin(data_folder("credit_default_taiwan"), out, "--rounds", "1")
    assert run.stdout is not None
    for line in run.stdout:
        if "round 1 of 1" in line:
            break
    time.sleep(3)
    assert len(left_of(out)) > 10
    run.send_signal(signal.SIGINT)
    try:
        said, _ = run.communicate(timeout=60)
    finally:
        run.terminate()
    assert run.returncode == 130, said
    assert left_of(out) == []
