# SPDX-License-Identifier: Apache-2.0
"""A plan, the aggregator's folder, members' homes, and a Grid that joins them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from flwr.app import Message
from flwr.clientapp import ClientApp

from secure_fl.engines.home import MemberHome
from secure_fl.engines.setup import AGGREGATOR_FILE, PLAN_FILE
from secure_fl.identity import Identity, key_to_text
from secure_fl.plan import Plan
from secure_fl.randomness import SystemRandom
from secure_fl.transcript import KEY_HOLDER

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
    """A consortium on disk.  ``homes``: of its parties, by name: members come first."""

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
        """A SuperNode for each party, which runs ``app``, or one app each."""
        nodes = {}
        for place, (name, home) in enumerate(self.homes.items()):
            own = app if isinstance(app, ClientApp) else app(name)
            nodes[self.node(name)] = Node(
                own,
                {"secure-fl-home": str(home.folder), "bank": place},
                dict(config or {}),
            )
        return GridInProcess(nodes)


class Parties:
    """Keys and homes below ``folder``, of ``names``, an aggregator and a key holder."""

    def __init__(self, folder: Path, names: Sequence[str]) -> None:
        random = SystemRandom()
        self._keys = folder / "keys"
        self.aggregator = folder / "aggregator"
        for made in (self._keys, self.aggregator):
            made.mkdir(mode=0o700)
        parties = (*names, "aggregator", KEY_HOLDER)
        self._identities = {n: Identity.new(n, random=random) for n in parties}
        for name, identity in self._identities.items():
            identity.save(self._keys / f"{name}.pem")
        self._identities["aggregator"].save(self.aggregator / AGGREGATOR_FILE)
        self.homes = {n: MemberHome(folder / n) for n in (*names, KEY_HOLDER)}

    def agree(
        self,
        draft: Plan,
        *,
        start_sha256: str | None = None,
        data: Path | None = None,
    ) -> Banks:
        """Complete the plan, have all its parties join it, and the aggregator run it.

        ``data``: where each finds its records, in a folder of its name.
        """
        plan = draft.completed(
            keys={n: self._key(n) for n in draft.names},
            aggregator=self._key("aggregator"),
            keyholder=self._key(KEY_HOLDER) if draft.has_keyholder else None,
            run_id=SystemRandom().bytes(16),
            start_sha256=start_sha256,
        )
        parties = [*plan.names, *[KEY_HOLDER] * plan.has_keyholder]
        for name in parties:
            self.homes[name].join(
                plan,
                key=self._keys / f"{name}.pem",
                data=None if data is None else data / name,
                policy=None,
            )
        (self.aggregator / PLAN_FILE).write_bytes(plan.source)
        return Banks(plan, self.aggregator, {n: self.homes[n] for n in parties})

    def _key(self, name: str) -> str:
        return key_to_text(self._identities[name].public_key)


def found(
    folder: Path,
    draft: str,
    *,
    start_sha256: str | None = None,
    data: Path | None = None,
) -> Banks:
    """Parties of a draft that has agreed on it: see :class:`Parties`."""
    plan = Plan(draft.encode())
    parties = Parties(folder, plan.names)
    return parties.agree(plan, start_sha256=start_sha256, data=data)


def records_of(messages: list[Message]) -> set[str]:
    """Names of all records in ``messages``: what an observer finds there."""
    return {name for m in messages if m.has_content() for name in m.content}
