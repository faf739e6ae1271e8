# SPDX-License-Identifier: Apache-2.0
"""Runs of the engine whose sums alone are private, and all keys that signed them.

Four clinics send zeros under their share of the noise; clinic-d is away in round 1, so
that its sum has as few clients as the plan allows.
"""

from __future__ import annotations

import json
from typing import Any, Final

import secure_fl as sfl
from secure_fl.errors import EngineError
from secure_fl.identity import Identity
from secure_fl.randomness import RandomSource, SeededInsecure
from secure_fl.transcript import Transcript

from ..engines.distributed import noise_alone, text
from ..engines.support import NAMES, Trainer, start
from .kept import TRANSCRIPT
from .support import Made

SEED: Final = b"sums"
# The good runs that are mutated.
RUNS: Final[dict[str, dict[str, Any]]] = {
    "sums": {"keep": True},
    "sums of clients": {
        "unit": "client",
        "kind": "ckks",
        "keys": "keyholder",
        "keep": True,
    },
}
STEPS: Final = 'learning_rate = 0.5\nmomentum = 0.5\nschedule = "linear"'


def sums_plan(*, unit: str = "record", **entries: Any) -> sfl.Plan:
    """Noise and size are stated, so that nothing has to be calibrated."""
    steps = STEPS if unit == "record" else ""
    made = text(unit=unit, extra=steps, **entries)
    rate, noise = ("0.2", "1.0") if unit == "record" else ("1.0", "2.0")
    for line, by in (
        ("sampling_rate = 1.0", f"sampling_rate = {rate}\nnoise_multiplier = {noise}"),
        ('kind = "custom"', f'kind = "custom"\nvalues = {start().size}'),
    ):
        assert line in made
        made = made.replace(line, by)
    return sfl.Plan(made.encode())


def absent_in_round_1(r: sfl.ClientRound) -> sfl.PrivateUpdate:
    if r.round == 1:
        raise EngineError("the file server is down")
    return noise_alone(r)


def run(*, random: RandomSource | None = None, **entries: Any) -> sfl.Run:
    clients: dict[str, Trainer] = dict.fromkeys(NAMES, noise_alone)
    clients["clinic-d"] = absent_in_round_1
    return sfl.run(sums_plan(**entries), clients, model=start(), random=random)


def play(*, keys: str = "", **entries: Any) -> Made:
    finished = run(random=SeededInsecure(SEED), keys=keys, **entries)
    again = SeededInsecure(SEED)
    again.bytes(16)  # the run id came first
    identities = {n: Identity.new(n, random=again) for n in NAMES}
    aggregator = Identity.new("aggregator", random=again)
    assert aggregator.public_key == finished.plan.aggregator_key
    holder = Identity.new("keyholder", random=again) if keys == "keyholder" else None
    transcript = Transcript.from_bytes(finished.files[TRANSCRIPT])
    files = dict(finished.files)
    return Made(finished.plan, identities, aggregator, transcript, files, holder)


def report_of(made: Made | sfl.Run) -> dict[str, Any]:
    read: dict[str, Any] = json.loads(made.files["report.json"])
    return read
