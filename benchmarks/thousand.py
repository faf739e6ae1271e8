# SPDX-License-Identifier: Apache-2.0
"""One round of many clients in Flower's simulation engine.  JSON on stdout.

    python benchmarks/thousand.py [--clients N] [--values D] [--protection P]
        [--home FOLDER]

The strategy, the mod, the records and every check are those of a deployment; Ray runs
the client app in as many processes as there are cores.  Each virtual client has a home
of its own below the folder (key, plan, ledger, keystore), whose place stands in
SECURE_FL_HOME with ``{partition}`` for its number.  Clients add shares of noise to one
sum of clipped updates of their own (``unit = "client"``); training is a constant.

How far a round is is written to stderr.  The figures: wall-clock seconds of each stage
(on a simulation's machine all clients take turns), CPU seconds of all processes, the
most memory that was in use beyond the beginning, and the sizes of the log, of the plan
and of all that went up and down within the protocol (``costs`` of metrics.json).

Needs secure-fl[flower,train,simulation].  The exit status is 2 where that is missing.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import json
import os
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from secure_fl.engines.home import MemberHome
from secure_fl.engines.setup import AGGREGATOR_FILE, PLAN_FILE, TRANSCRIPT_FILE
from secure_fl.engines.status import latest
from secure_fl.identity import Identity, key_to_text
from secure_fl.plan import Plan, load_plan
from secure_fl.randomness import SystemRandom

PROTECTIONS = {
    "masking": 'kind = "masking"',
    "one-time": 'kind = "ckks"\nkeys = "one-time"',
    "keyholder": 'kind = "ckks"\nkeys = "keyholder"',
}
INPUTS = 10  # of the linear model that all train


def plan_text(clients: int, values: int, protection: str) -> str:
    members = "".join(
        f'  {{ name = "client-{i:04}", records = 1 }},\n' for i in range(clients)
    )
    return f"""\
schema = "secure-fl/plan/1"
name = "many clients"

[parties]
members = [
{members}]

[rounds]
count = 1

[privacy]
mode = "distributed"
unit = "client"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = 8.0
delta = 1e-5
clip_norm = 1.0
sampling_rate = 1.0
local_steps = 1

[protection]
{PROTECTIONS[protection]}
word_bits = 32

[model]
kind = "custom"
values = {values}

[training]
way = "head"
learning_rate = 1.0
"""


def join(folder: Path, names: list[str]) -> None:
    """Each consents to the plan, in a home whose name is its place among all."""
    plan = load_plan(folder / "aggregator" / PLAN_FILE)
    parties = [*plan.names, "keyholder"]
    for name in names:
        home = MemberHome(folder / "homes" / str(parties.index(name)))
        home.join(plan, key=folder / "keys" / f"{name}.pem", data=None, policy=None)


def found(folder: Path, draft: Plan) -> Plan:
    """Keys, the completed plan, and everybody's consent."""
    random = SystemRandom()
    for made in ("aggregator", "keys", "homes"):
        (folder / made).mkdir(mode=0o700)
    holder = ["keyholder"] if draft.has_keyholder else []
    identities = {n: Identity.new(n, random=random) for n in [*draft.names, *holder]}
    for name, identity in identities.items():
        identity.save(folder / "keys" / f"{name}.pem")
    own = Identity.new("aggregator", random=random)
    own.save(folder / "aggregator" / AGGREGATOR_FILE)
    keys = {name: key_to_text(i.public_key) for name, i in identities.items()}
    plan = draft.completed(
        keys=keys,
        aggregator=key_to_text(own.public_key),
        keyholder=keys.get("keyholder"),
        run_id=random.bytes(16),
        start_sha256=None,
    )
    (folder / "aggregator" / PLAN_FILE).write_bytes(plan.source)
    names = list(identities)
    step = 20
    with ProcessPoolExecutor() as pool:
        jobs = [
            pool.submit(join, folder, names[first : first + step])
            for first in range(0, len(names), step)
        ]
        for done, job in enumerate(jobs, start=1):
            job.result()
            say(f"joined: {min(done * step, len(names))} of {len(names)}")
    return plan


def say(what: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {what}", file=sys.stderr, flush=True)


@contextlib.contextmanager
def watched(aggregator: Path) -> Iterator[dict[str, float]]:
    """Say every few seconds how far the run is; notes the most memory in use."""
    figures = {"memory": 0.0, "cpu": 0.0}
    before, end = memory_in_use(), threading.Event()
    cpu: dict[int, float] = {}

    def watch() -> None:
        last = ""
        while not end.wait(1.0):
            figures["memory"] = max(figures["memory"], memory_in_use() - before)
            cpu.update(cpu_seconds())
            figures["cpu"] = sum(cpu.values())
            if (seen := latest(aggregator)) is None:
                continue
            members = seen[0].members
            asked = sum(m.answer != "" for m in members)
            answered = sum(m.answer == "answered" for m in members)
            failed = sum(m.answer == "failed" for m in members)
            now = f"{seen[0].stage}: {answered} of {asked}"
            now += f", {failed} failed" * bool(failed)
            if now != last:
                memory, took = figures["memory"] / 1e9, figures["cpu"]
                say(f"{now} ({memory:.1f} GB, {took:.0f} s of CPU time)")
                last = now

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield figures
    finally:
        end.set()
        thread.join()


def memory_in_use() -> int:
    """Bytes of this machine that no process could get."""
    lines = Path("/proc/meminfo").read_text().splitlines()
    sizes = {k: int(v.split()[0]) for k, _, v in (x.partition(":") for x in lines)}
    return 1024 * (sizes["MemTotal"] - sizes["MemAvailable"])


def cpu_seconds() -> dict[int, float]:
    """Of this process and all that came from it, Ray's workers included."""
    parents, seconds = {}, {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            pid, _, rest = stat.read_text().partition(" ")
            fields = rest.rpartition(")")[2].split()
            parents[int(pid)] = int(fields[1])
            ticks = int(fields[11]) + int(fields[12])
            seconds[int(pid)] = ticks / os.sysconf("SC_CLK_TCK")
    ours = {os.getpid()}
    while more := {p for p, above in parents.items() if above in ours} - ours:
        ours |= more
    return {pid: seconds[pid] for pid in ours}


def simulate(folder: Path, plan: Plan) -> None:
    """One whole run over Flower's simulation engine."""
    from flwr.app import Array, ArrayRecord, Context, Message
    from flwr.clientapp import ClientApp
    from flwr.serverapp import Grid, ServerApp
    from flwr.serverapp.strategy import FedAvg
    from flwr.simulation import run_simulation

    from secure_fl.engines.flower import SecureAggregation, secure_aggregation_mod

    os.environ["SECURE_FL_HOME"] = str(folder / "homes" / "{partition}")
    client_app = ClientApp(mods=[secure_aggregation_mod])

    @client_app.train()
    def train(message: Message, context: Context) -> Message:
        import torch

        from secure_fl.engines.flower import client_round, private_reply

        r = client_round()
        model = r.load(torch.nn.Linear(INPUTS, r.model.size // INPUTS, bias=False))
        with torch.no_grad():
            model.weight += 1e-3
        return private_reply(r.clipped_update(model))

    server_app = ServerApp()

    @server_app.main()
    def main(grid: Grid, context: Context) -> None:
        weight = np.zeros((plan.values // INPUTS, INPUTS), np.float32)
        SecureAggregation(FedAvg(), home=folder / "aggregator").start(
            grid,
            ArrayRecord({"weight": Array(weight)}),
            num_rounds=1,
            timeout=4 * 3600.0,
        )

    run_simulation(
        server_app,
        client_app,
        num_supernodes=len(plan.names) + plan.has_keyholder,
        backend_config={
            "init_args": {"num_cpus": os.cpu_count() or 1, "include_dashboard": False},
            "client_resources": {"num_cpus": 1, "num_gpus": 0.0},
        },
    )


def measure(folder: Path, clients: int, values: int, protection: str) -> dict[str, Any]:
    """Everything from keys to the report."""
    begun = time.perf_counter()
    plan = found(folder, Plan(plan_text(clients, values, protection).encode()))
    joined = time.perf_counter()
    aggregator = folder / "aggregator"
    with watched(aggregator) as figures:
        simulate(folder, plan)
    seconds = time.perf_counter() - joined
    [out] = (aggregator / "results").iterdir()
    seen = latest(aggregator)
    assert seen is not None
    costs = json.loads((out / "metrics.json").read_bytes())["costs"]["steps"]
    return {
        "clients": clients,
        "values": values,
        "protection": protection,
        "state": seen[0].state,
        "in_sum": sum(m.in_sum is True for m in seen[0].members),
        "seconds_joining_before": round(joined - begun, 1),
        "seconds": round(seconds, 1),
        "seconds_by_stage": seen[0].seconds,
        "cpu_seconds": round(figures["cpu"], 1),
        "peak_memory_bytes": int(figures["memory"]),
        "plan_bytes": len(plan.source),
        "transcript_bytes": (out / TRANSCRIPT_FILE).stat().st_size,
        "protocol_bytes_up": sum(row["bytes_up"] for row in costs),
        "protocol_bytes_down": sum(row["bytes_down"] for row in costs),
        "results": str(out),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--values", type=int, default=1000, help="a multiple of 10")
    parser.add_argument("--protection", choices=PROTECTIONS, default="keyholder")
    parser.add_argument(
        "--home", type=Path, help="a new folder, kept; otherwise a temporary one"
    )
    arguments = parser.parse_args()
    if missing := [n for n in ("flwr", "ray", "torch") if not _is_there(n)]:
        say(f"not installed: {', '.join(missing)}")
        sys.exit(2)
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    folder = arguments.home
    if folder is None:
        folder = Path(tempfile.mkdtemp(prefix="thousand-"))
    else:
        folder.mkdir(mode=0o700)
    try:
        figures = measure(
            folder.resolve(), arguments.clients, arguments.values, arguments.protection
        )
    finally:
        if arguments.home is None:
            shutil.rmtree(folder)
    print(json.dumps(figures, indent=2))


def _is_there(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


if __name__ == "__main__":
    main()
