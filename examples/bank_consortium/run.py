# SPDX-License-Identifier: Apache-2.0
"""Five banks and an aggregator, as they would be on six machines.

    python examples/bank_consortium/run.py --data FILE [--out DIR] [--rounds 5]

FILE is "default of credit card clients" as a CSV.  Each party has a folder, keys, an
environment and processes of its own, and types what docs/pilot.md says: every command
is shown, then run as it is shown.  One bank is killed in the middle and starts again.
The end is a verified report.  Nothing but loopback is needed.
"""

from __future__ import annotations

import argparse
import bisect
import contextlib
import csv
import hashlib
import importlib.util
import itertools
import json
import re
import shutil
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Final, NoReturn

import secure_fl as sfl
from secure_fl import training

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bank_consortium import processes
from bank_consortium.parties import Bank, Failed, Party, every, same

HERE: Final = Path(__file__).resolve().parent
CSV: Final = "default_of_credit_card_clients.csv"
TABLE: Final = "accounts.csv"  # the plan's name for it, at every bank
STARTED: Final = time.monotonic()


def say(text: str) -> None:
    print(f"{time.monotonic() - STARTED:5.0f} s  {text}", flush=True)


# -- files -----------------------------------------------------------------------------


def deal(data: Path, plan: sfl.Plan, banks: Sequence[Bank]) -> None:
    """Each bank's own rows, as a CSV in its folder: in a pilot they are there already.

    A hash of the account's number says whose it is, in proportion to the plan.
    """
    *ends, total = itertools.accumulate(m.records for m in plan.parties.members)
    with contextlib.ExitStack() as stack:
        try:
            rows = csv.reader(stack.enter_context(data.open(newline="")))
            header = next(rows)
        except (OSError, StopIteration) as error:
            raise Failed(f"cannot read {data}: {error}") from None
        writers = []
        for bank in banks:
            (bank.folder / "accounts").mkdir(mode=0o700)
            path = bank.folder / "accounts" / TABLE
            writers.append(csv.writer(stack.enter_context(path.open("w", newline=""))))
            writers[-1].writerow(header)
        for row in rows:
            place = int.from_bytes(hashlib.sha256(row[0].encode()).digest()) % total
            writers[bisect.bisect(ends, place)].writerow(row)


def draft(aggregator: str, banks: Mapping[str, str], rounds: int) -> str:
    """The plan with everybody's public line in it."""
    text = (HERE / "plan.toml").read_text()
    text = re.sub(r"(?m)^count = \d+$", f"count = {rounds}", text)
    text = text.replace("[parties]\n", f'[parties]\naggregator = "{aggregator}"\n')
    for name, key in banks.items():
        text = text.replace(f'name = "{name}",', f'name = "{name}", key = "{key}",')
    return text


def policy(plan: sfl.Plan) -> str:
    """What a bank that has compared ``plan`` with the others writes by hand."""
    text = (HERE / "policy.toml").read_text()
    compared = {
        "YEAR": str(datetime.now(UTC).year),
        "START": str(plan.model.start_sha256),
        "AGGREGATOR": str(plan.parties.aggregator),
        "PLAN": plan.hash.hex(),
    }
    for word, value in compared.items():
        text = re.sub(rf"\b{word}\b", value, text)
    return text


# -- what happens, in order ------------------------------------------------------------


def make_keys(aggregator: Party, banks: Sequence[Bank]) -> None:
    say("Everybody makes keys. The private ones stay where they are made.")
    passphrase = "(umask 077; head -c 24 /dev/urandom | base64 > passphrase)"
    new = 'SECURE_FL_PASSPHRASE="$(cat passphrase)" \\\n    secure-fl keys new -o'
    every(
        banks,
        passphrase,
        f"{new} member.key > member.pub",
        "secure-fl certs supernode node.key > node.txt",
    )
    aggregator.type("mkdir -m 700 home flwr")
    aggregator.type(passphrase)
    aggregator.type(f"{new} home/aggregator.key > aggregator.pub")
    aggregator.type("secure-fl certs superlink tls --host 127.0.0.1 > tls.txt")
    for bank in banks:
        inbox = aggregator.folder / "banks" / bank.name
        inbox.mkdir(parents=True)
        for public in ("member.pub", "node.key.pub"):
            shutil.copy(bank.folder / public, inbox)
        shutil.copy(aggregator.folder / "tls" / "ca.crt", bank.folder)


def agree(aggregator: Party, banks: Sequence[Bank], rounds: int) -> None:
    say("The aggregator puts the keys into the plan, and completes it.")
    own = aggregator.said("aggregator.pub").strip()
    keys = {b.name: b.said("member.pub").strip() for b in banks}
    (aggregator.folder / "draft.toml").write_text(draft(own, keys, rounds))
    aggregator.type("secure-fl plan complete draft.toml -o home/plan.toml")
    say("Each bank looks at the plan, writes its policy, and joins.")
    plan = sfl.load_plan(aggregator.folder / "home" / "plan.toml")
    for bank in banks:
        shutil.copy(aggregator.folder / "home" / "plan.toml", bank.folder)
        (bank.folder / "policy.toml").write_text(policy(plan))
    every(
        banks,
        "secure-fl plan check plan.toml > facts.txt",
        "secure-fl policy check policy.toml plan.toml > verdicts.txt",
        "secure-fl join plan.toml --key member.key --policy policy.toml \\\n"
        "    --data accounts",
    )


def connect(aggregator: Party, banks: Sequence[Bank]) -> None:
    say("The SuperLink starts, lets the banks' nodes in, and they connect.")
    port = processes.free_port()
    address = f"127.0.0.1:{port}"
    (aggregator.folder / "flwr" / "config.toml").write_text(
        '[superlink]\ndefault = "here"\n\n[superlink.here]\n'
        f'address = "{address}"\n'
        f'root-certificates = "{aggregator.folder / "tls" / "ca.crt"}"\n'
    )
    command = (
        f"flower-superlink --host 127.0.0.1 --port {port} \\\n"
        "    --enable-supernode-auth --disable-runtime-dependency-installation \\\n"
        "    --database flwr/state.db --ssl-ca-certfile tls/ca.crt \\\n"
        "    --ssl-certfile tls/server.crt --ssl-keyfile tls/server.key"
    )
    aggregator.show(command)
    superlink = aggregator.start(command, "superlink.log")
    until = time.monotonic() + 60
    while not processes.listens(port):
        if superlink.poll() is not None or time.monotonic() > until:
            raise Failed(f"no SuperLink\n{aggregator.said('superlink.log')}")
        time.sleep(0.2)
    aggregator.type(
        "for key in banks/*/node.key.pub; do\n"
        "    flwr supernode register $key here >> registered.txt\n"
        "done"
    )
    for bank in banks:
        bank.start_node(address)
    banks[0].show(banks[0].command)
    same(banks[1:])
    until = time.monotonic() + 90
    while away := [bank for bank in banks if not bank.connected]:
        if time.monotonic() > until or away[0].node.poll() is not None:
            raise Failed(f"{away[0].name} is away\n{away[0].said('node.log')}")
        time.sleep(0.2)


class Accident:
    """One bank's node is killed in the middle of a run, and started again."""

    def __init__(self, bank: Bank, round_number: int) -> None:
        self.bank = bank
        self.round_number = round_number
        self._due = float("inf")
        self._down = False

    def entered(self, round_number: int) -> None:
        if round_number == self.round_number:
            self._due = time.monotonic() + 5

    def look(self) -> None:
        bank = self.bank
        if time.monotonic() > self._due:
            self._due, self._down = float("inf"), True
            family = [bank.node.pid, *processes.descendants(bank.node.pid)]
            processes.kill(family, signal.SIGKILL)
            bank.node.wait()
            say(f"{bank.name}: kill -9 of its {len(family)} processes")
            bank.start_node_again()  # a SuperLink takes it back after a minute
        elif self._down and bank.connected:
            self._down = False
            say(f"{bank.name} is back")


def run_plan(aggregator: Party, accident: Accident | None) -> None:
    say("The aggregator starts the run, and the banks answer it. To watch it:")
    print(f"secure-fl watch {aggregator.folder / 'home'}")
    shutil.copytree(HERE / "app", aggregator.folder / "app")
    command = "flwr run app here --stream"
    aggregator.show(command)
    run = aggregator.start(command, "run.log")
    with (aggregator.folder / "run.log").open() as log:
        over = False
        while not over:
            over = run.poll() is not None  # and then what it said last
            for line in log:
                if match := re.search(r"\[ROUND (\d+)/(\d+)\]", line):
                    say(f"round {match[1]} of {match[2]}")
                    if accident is not None:
                        accident.entered(int(match[1]))
            if accident is not None:
                accident.look()
            time.sleep(0.5)
    said = aggregator.said("run.log")
    match = re.search(r"started run (\d+)", said)
    if match is None:
        raise Failed(f"no run was started\n{said}")
    question = f"flwr list here --run-id {match[1]} --format json"
    while True:
        (state,) = json.loads(aggregator.type(question, shown=False))["runs"]
        if state["status"] == "finished:completed":
            return
        if state["status"].startswith("finished"):
            raise Failed(f"the run {state['status']}\n{aggregator.said('run.log')}")
        time.sleep(3)


def look_at_the_result(aggregator: Party, banks: Sequence[Bank]) -> None:
    say("Every bank checks the result against its own copy of the plan.")
    (result,) = (aggregator.folder / "home" / "results").iterdir()
    for bank in banks:
        shutil.copytree(result, bank.folder / "result")
    every(
        banks,
        "secure-fl verify result --plan plan.toml > verified.txt &&\n"
        "    tail -n 14 verified.txt",
    )
    say("How well the model ranks each bank's own held-out accounts (AUC):")
    plan = sfl.load_plan(banks[0].folder / "plan.toml")
    shares = {m.name: m.records for m in plan.parties.members}
    assert plan.data is not None
    for bank in banks:
        model = sfl.GlobalModel.load(bank.folder / "result" / "model.safetensors")
        own = training.load_tabular(
            plan.data, names=[bank.name], shares=shares, folder=bank.folder / "accounts"
        )[bank.name]
        positive = training.scores(model, plan, own.test_x)[:, 1]
        print(f"{bank.name}  {training.auc(own.test_y, positive):.3f}")
    print(f"report  {result / 'report.html'}")
    print(f"check   secure-fl verify {result}")


# -- all of it -------------------------------------------------------------------------


def pilot(data: Path, out: Path, rounds: int, victim: str, *, start: bool) -> None:
    plan = sfl.load_plan(HERE / "plan.toml")
    aggregator = Party("aggregator", out / "aggregator")
    banks = [Bank(name, out / name) for name in plan.names]
    say(f"A folder for each of the six parties: {out}")
    deal(data, plan, banks)
    make_keys(aggregator, banks)
    agree(aggregator, banks, rounds)
    if not start:
        return
    connect(aggregator, banks)
    killed = next((bank for bank in banks if bank.name == victim), None)
    middle = rounds // 2 + 1
    run_plan(aggregator, None if killed is None else Accident(killed, middle))
    look_at_the_result(aggregator, banks)
    say("done")


def stop(number: int, frame: FrameType | None) -> NoReturn:
    raise KeyboardInterrupt


def main() -> int:
    names = sfl.load_plan(HERE / "plan.toml").names
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument(
        "--data", type=Path, required=True, help=f"{CSV}, or the folder it lies in"
    )
    parser.add_argument("--out", type=Path, default=Path("out-consortium"))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kill", choices=(*names, "nobody"), default="bank-c")
    parser.add_argument(
        "--only-prepare", action="store_true", help="make all files, start nothing"
    )
    arguments = parser.parse_args()
    data, out = arguments.data.resolve(), arguments.out.resolve()
    data = data / CSV if data.is_dir() else data
    if not data.is_file():
        parser.error(f"--data: {data} is not there")
    if arguments.rounds < 1:
        parser.error("--rounds: at least one")
    if out.exists():
        parser.error(f"--out: {out} exists; give a folder that does not")
    if importlib.util.find_spec("flwr") is None:
        parser.error("Flower is missing: pip install 'secure-fl[flower,train]'")
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        if number != signal.SIGHUP or signal.getsignal(number) != signal.SIG_IGN:
            signal.signal(number, stop)  # (nohup stays nohup)
    processes.adopt_orphans()
    try:
        pilot(
            data,
            out,
            arguments.rounds,
            arguments.kill,
            start=not arguments.only_prepare,
        )
    except (Failed, sfl.errors.SecureFLError) as error:
        told = f"error: {error}\nhint: every party's files and logs are in {out}"
        print(told, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"stopped; every party's files and logs are in {out}")
        return 130
    finally:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, signal.SIG_IGN)
        processes.end_all()
    return 0


if __name__ == "__main__":
    sys.exit(main())
