# SPDX-License-Identifier: Apache-2.0
"""Fit the constants of ``plan check``'s forecast on this machine.  JSON on stdout.

    python benchmarks/forecast.py [--quick] [--protection P]

Every measured point is a run of the engine for machines, whose aggregator and members
(real homes: ledger, keystore, plan) are all in this process and take turns.  Counted is
the second round.  Seconds are of CPU time, all threads together: other work on the
machine moves them far less than a clock.  A member's are the median over the members,
without what its trainer took; the aggregator's are all the rest of the process.

The constants are those of least squares of the *relative* errors at the points of
``FITTED``, none below zero.  Reported is the ratio of forecast to measurement at the
points of ``HELD_OUT``, which the fit has not seen, median and worst; and by how much
bytes differ from those that were sent.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import sys
import tempfile
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, final

import numpy as np
from numpy.typing import NDArray

import secure_fl as sfl
from secure_fl.engines.aggregator import aggregate
from secure_fl.engines.clients import Lost
from secure_fl.engines.forecast import Terms, terms
from secure_fl.engines.home import MemberHome, MemberSettings
from secure_fl.engines.member import Member
from secure_fl.engines.requests import Parcel
from secure_fl.engines.sizes import round_sizes
from secure_fl.identity import Identity, key_to_text
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.privacy import Unprotected, unprotected
from secure_fl.randomness import SystemRandom

PROTECTIONS = {
    "masking": 'kind = "masking"',
    "one-time": 'kind = "ckks"\nkeys = "one-time"',
    "keyholder": 'kind = "ckks"\nkeys = "keyholder"',
}
Point = tuple[int, int, int]  # clients, values, bits
FITTED: tuple[Point, ...] = (
    *((n, d, 32) for n in (3, 6, 12, 24, 48) for d in (1_000, 100_000)),
    *((n, 1_000_000, 32) for n in (3, 6, 12, 24)),
    *((n, 1_000_000, 16) for n in (3, 12)),
)
HELD_OUT: tuple[Point, ...] = (
    (5, 20_000, 32),
    (5, 2_000_000, 32),
    (9, 300_000, 24),
    (17, 50_000, 16),
    (17, 600_000, 32),
    (33, 5_000, 32),
    (33, 200_000, 16),
    (70, 20_000, 32),
)
QUICK: tuple[Point, ...] = tuple((n, d, 32) for n in (3, 5, 8) for d in (1_000, 50_000))
COUNTED = "2"  # the round, as its messages are grouped
RANDOM = SystemRandom()


def plan_text(names: Sequence[str], protection: str, bits: int) -> str:
    members = "".join(f'  {{ name = "{n}", records = 100 }},\n' for n in names)
    return f"""\
schema = "secure-fl/plan/1"
name = "a forecast"

[parties]
members = [
{members}]

[rounds]
count = 3

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
{PROTECTIONS[protection]}
word_bits = {bits}

[model]
kind = "custom"
"""


class Enough(Exception):
    """The round that counts is over."""


@final
class Meter:
    """A carrier in this process: whoever is asked answers when its reply is fetched.

    ``members``: CPU seconds of each in the round that counts, without its training.
    ``up``, ``down``: bytes of each in it.  ``aggregator``: its CPU seconds.
    """

    def __init__(self, homes: Mapping[str, MemberHome], size: int) -> None:
        self.homes = homes
        self.members = dict.fromkeys(homes, 0.0)
        self.up = dict.fromkeys(homes, 0)
        self.down = dict.fromkeys(homes, 0)
        self.aggregator = 0.0
        self._update = np.zeros(size)
        self._training = 0.0
        self._began: float | None = None
        self._group = ""
        self._waiting: dict[str, tuple[str, Parcel]] = {}

    def nodes(self) -> Sequence[int]:
        return range(len(self.homes))

    def send(self, parcels: Mapping[int, Parcel], *, group: str) -> Mapping[int, str]:
        now = time.process_time()
        if group == COUNTED and self._began is None:
            self._began = now
        elif group > COUNTED:
            assert self._began is not None
            self.aggregator = now - self._began - sum(self.members.values())
            self.aggregator -= self._training
            raise Enough
        self._group = group
        names = list(self.homes)
        for node, parcel in parcels.items():
            self._waiting[f"{group} {node}"] = (names[node], parcel)
            if group == COUNTED:
                self.down[names[node]] += _size(parcel)
        return {node: f"{group} {node}" for node in parcels}

    def receive(
        self, tickets: Collection[str], *, timeout: float
    ) -> Iterator[tuple[str, Parcel | Lost]]:
        for ticket in sorted(tickets):
            name, parcel = self._waiting.pop(ticket)
            member = Member(
                self.homes[name],
                self._trainer,
                random=RANDOM,
                now=lambda: int(time.time()),
            )
            node = list(self.homes).index(name)
            trained, begun = self._training, time.process_time()
            answer = member.handle(parcel, node=node)
            if self._group == COUNTED:
                took = time.process_time() - begun
                self.members[name] += took - (self._training - trained)
                self.up[name] += _size(answer)
            yield ticket, answer

    def _trainer(self, plan: Plan, settings: MemberSettings) -> Any:
        def train(r: sfl.ClientRound) -> Unprotected:
            begun = time.process_time()
            made = unprotected(self._update, reason="nothing is trained here")
            if self._group == COUNTED:
                self._training += time.process_time() - begun
            return made

        return train


def _size(parcel: Parcel) -> int:
    return len(parcel.head) + sum(map(len, parcel.body))


@final
class Measured:
    """One point: its terms, and what was measured."""

    def __init__(self, protection: str, point: Point) -> None:
        clients, values, bits = self.point = point
        names = [f"client-{i:03}" for i in range(clients)]
        plan = Plan(plan_text(names, protection, bits).encode())
        with tempfile.TemporaryDirectory() as folder:
            self._measure(plan, values, Path(folder))

    def _measure(self, draft: Plan, values: int, folder: Path) -> None:
        parties = [*draft.names, *["keyholder"] * draft.has_keyholder]
        own = Identity.new("aggregator", random=RANDOM)
        identities = {name: Identity.new(name, random=RANDOM) for name in parties}
        keys = {name: key_to_text(i.public_key) for name, i in identities.items()}
        plan = draft.completed(
            keys=keys,
            aggregator=key_to_text(own.public_key),
            keyholder=keys.get("keyholder"),
            run_id=RANDOM.bytes(16),
            start_sha256=None,
        )
        homes = {name: MemberHome(folder / f"home of {name}") for name in parties}
        for name, identity in identities.items():
            identity.save(folder / f"{name}.pem")
            homes[name].join(plan, key=folder / f"{name}.pem", data=None, policy=None)
        meter = Meter(homes, values)
        with contextlib.suppress(Enough):
            aggregate(
                plan,
                own,
                meter,
                out=folder / "out",
                state=folder / "state",
                model=GlobalModel({"head": np.zeros(values, np.float32)}),
            )
        sizes = round_sizes(plan, values)
        self.terms = terms(plan, values, sizes)
        self.seconds = (
            statistics.median(meter.members[n] for n in plan.names),
            meter.aggregator,
        )
        every = [e for e in sizes.exchanges if e.parties > 1]
        up = statistics.median(meter.up[n] for n in plan.names)
        down = statistics.median(meter.down[n] for n in plan.names)
        self.bytes_off = (
            sum(e.up for e in every) / up - 1,
            sum(e.down for e in every) / down - 1,
        )


def fit(rows: Sequence[Terms], seconds: Sequence[float]) -> Terms:
    """Constants, none below zero, of least squares of the relative errors.

    Terms leave as long as the best constant of one is below zero, the worst first, and
    one that would help comes back (Lawson and Hanson's active set).
    """
    matrix = np.array(rows, np.float64) / np.array(seconds)[:, None]
    scale = np.linalg.norm(matrix, axis=0)
    matrix /= scale
    inside: list[int] = []
    found: NDArray[np.float64] = np.zeros(matrix.shape[1])
    for _ in range(10 * found.size):
        gain = matrix.T @ (1 - matrix @ found)
        gain[inside] = 0
        best = int(np.argmax(gain))
        if gain[best] < 1e-9:
            break
        inside.append(best)
        while True:
            some = np.linalg.lstsq(matrix[:, inside], np.ones(len(matrix)), rcond=None)[
                0
            ]
            if (some > 0).all():
                break
            # As far as the first of them that would turn negative.
            before = found[inside]
            bad = some <= 0
            far = (before[bad] / (before[bad] - some[bad])).min()
            found[inside] = before + far * (some - before)
            inside = [i for i in inside if found[i] > 1e-12]
            found[[i for i in range(found.size) if i not in inside]] = 0
        found[:] = 0
        found[inside] = some
    return tuple(float(x) for x in found / scale)


def ratios(
    points: Sequence[Measured], constants: Sequence[Terms], side: int
) -> list[float]:
    """Forecast over measurement; ``side``: 0 of a member, 1 of the aggregator."""
    return [
        float(np.dot(constants[side], p.terms[side]) / p.seconds[side]) for p in points
    ]


def summary(found: Sequence[float]) -> dict[str, float]:
    """How far a forecast is off, as a factor either way."""
    factors = sorted(max(r, 1 / r) for r in found)
    return {
        "median_factor": round(statistics.median(factors), 2),
        "worst_factor": round(factors[-1], 2),
    }


def measure(protection: str, points: Sequence[Point]) -> list[Measured]:
    """In an order of chance: whatever else the machine does falls on all alike."""
    out = []
    for place in np.random.default_rng(1).permutation(len(points)):
        point = points[place]
        out.append(Measured(protection, point))
        member, aggregator = out[-1].seconds
        print(
            f"{time.strftime('%H:%M:%S')} {protection}, %d clients, %d values, %d bits:"
            % point,
            f"member {member:.4f} s, aggregator {aggregator:.4f} s",
            file=sys.stderr,
            flush=True,
        )
    return out


def study(protection: str, *, quick: bool) -> dict[str, Any]:
    points = QUICK if quick else (*FITTED, *HELD_OUT)
    measured = measure(protection, points)
    held_out = [p for p in measured if p.point in (QUICK[2:4] if quick else HELD_OUT)]
    fitted = [p for p in measured if p not in held_out]
    constants = [
        fit([p.terms[side] for p in fitted], [p.seconds[side] for p in fitted])
        for side in (0, 1)
    ]
    out: dict[str, Any] = {"constants": constants}
    for side, who in enumerate(("member", "aggregator")):
        out[who] = {
            "fitted": summary(ratios(fitted, constants, side)),
            "held_out": summary(ratios(held_out, constants, side)),
        }
    out["bytes_off"] = max(abs(x) for p in [*fitted, *held_out] for x in p.bytes_off)
    out["points"] = [
        {
            "point": p.point,
            "held_out": p in held_out,
            "seconds": p.seconds,
            "forecast": [float(np.dot(constants[i], p.terms[i])) for i in (0, 1)],
        }
        for p in [*fitted, *held_out]
    ]
    return out


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few small points")
    parser.add_argument("--protection", choices=PROTECTIONS, action="append")
    arguments = parser.parse_args()
    chosen = arguments.protection or list(PROTECTIONS)
    print(
        json.dumps(
            {
                "machine": {"processor": platform.machine(), "cores": os.cpu_count()},
                **{p: study(p, quick=arguments.quick) for p in chosen},
            },
            indent=2,
        )
    )


if __name__ == "__main__":
    main()
