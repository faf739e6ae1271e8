# SPDX-License-Identifier: Apache-2.0
"""A plan, the aggregator's folder, members' homes, and a Grid that joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message
from flwr.clientapp import ClientApp

from secure_fl.engines.home import MemberHome
from secure_fl.engines.setup import AGGREGATOR_FILE, PLAN_FILE
from secure_fl.identity import Identity, key_to_text
from secure_fl.plan import Plan
from secure_fl.randomness import SystemRandom

from .grid_in_process import GridInProcess, Node

NAMES = ("bank-0", "bank-1", "bank-2", "bank-3")
FIRST_NODE = 100


def plan_text(
    *,
    rounds: int = 2,
    names: tuple[str, ...] = NAMES,
    protection: str = 'kind = "masking"',
    records: int = 40,
) -> str:
    """Local mode, tiny: what it spends is of no interest here."""
    members = "".join(f'  {{ name = "{n}", records = {records} }},\n' for n in names)
    return f"""\
schema = "secure-fl/plan/1"
name = "banks"

[parties]
members = [
{members}]

[rounds]
count = {rounds}

[privacy]
mode = "local"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = 8.0
noise_multiplier = 3.0
delta = 1e-5
clip_norm = 1.0
sampling_rate = 0.5
local_steps = 2

[protection]
{protection}

[model]
kind = "custom"
"""


@dataclass
class Banks:
    """A consortium on disk.  ``homes``: of the members, by name."""

    plan: Plan
    aggregator: Path
    homes: Mapping[str, MemberHome]

    def node(self, name: str) -> int:
        return FIRST_NODE + list(self.homes).index(name)

    def grid(
        self,
        app: ClientApp | Callable[[str], ClientApp],
        *,
        config: Mapping[str, str | int | float | bool] | None = None,
    ) -> GridInProcess:
        """A SuperNode for each member, which runs ``app``, or one app each."""
        nodes = {}
        for place, (name, home) in enumerate(self.homes.items()):
            own = app if isinstance(app, ClientApp) else app(name)
            nodes[self.node(name)] = Node(
                own,
                {"secure-fl-home": str(home.folder), "bank": place},
                dict(config or {}),
            )
        return GridInProcess(nodes)


def found(
    folder: Path,
    draft: str,
    *,
    start_sha256: str | None = None,
    data: Path | None = None,
) -> Banks:
    """Make keys and homes below ``folder``, complete the plan, and have all join it.

    ``data``: where each finds its records, in a folder of its name.
    """
    random, plan = SystemRandom(), Plan(draft.encode())
    keys = folder / "keys"
    aggregator = folder / "aggregator"
    for made in (keys, aggregator):
        made.mkdir(mode=0o700)
    own = Identity.new("aggregator", random=random)
    own.save(aggregator / AGGREGATOR_FILE)
    members = {name: Identity.new(name, random=random) for name in plan.names}
    for name, identity in members.items():
        identity.save(keys / f"{name}.pem")
    plan = plan.completed(
        keys={n: key_to_text(i.public_key) for n, i in members.items()},
        aggregator=key_to_text(own.public_key),
        keyholder=None,
        run_id=random.bytes(16),
        start_sha256=start_sha256,
    )
    (aggregator / PLAN_FILE).write_bytes(plan.source)
    homes = {}
    for name in plan.names:
        homes[name] = MemberHome(folder / name)
        homes[name].join(
            plan,
            key=keys / f"{name}.pem",
            data=None if data is None else data / name,
            policy=None,
        )
    return Banks(plan, aggregator, homes)


def records_of(messages: list[Message]) -> set[str]:
    """Names of all records in ``messages``: what an observer finds there."""
    return {name for m in messages if m.has_content() for name in m.content}
