# SPDX-License-Identifier: Apache-2.0
"""Clients whose updates are known, and what they come to."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import secure_fl as sfl
from secure_fl.descent import Descent
from secure_fl.errors import EngineError
from secure_fl.privacy import private_update
from secure_fl.report import Verified

from ..engines.support import NAMES, start
from .engines import Fit, Outcome

__all__ = ["down", "known", "model_of", "verified"]

_SECOND = Path(__file__).parents[2] / "protocols" / "report" / "verify.py"


def _units(name: str, round_index: int, plan: sfl.Plan) -> NDArray[np.int64]:
    """What a client sends, in steps of the plan: other values in every round."""
    draws = np.random.default_rng([round_index, *name.encode()])
    size = plan.grid.padded if plan.distributed else start().size
    return draws.integers(-9, 9, size)


def _fit(r: sfl.ClientRound) -> sfl.PrivateUpdate:
    """On the plan's grid, so that a sum is exact; charged as a private one."""
    step = 1.0 if r.plan.distributed else r.plan.encoding.step
    return private_update(_units(r.client, r.round, r.plan) * step, r._reserve())


def known() -> dict[str, Fit]:
    """A client for each of ``NAMES``."""
    return dict.fromkeys(NAMES, _fit)


def down(r: sfl.ClientRound) -> sfl.PrivateUpdate:
    """A client that cannot train."""
    raise EngineError("the file server is down")


def model_of(plan: sfl.Plan, survivors: Mapping[int, Sequence[str]]) -> bytes:
    """The digest of the model that the updates of ``survivors`` come to, bit by bit."""
    descent, model = Descent(plan), start()
    for index, names in sorted(survivors.items()):
        total = np.sum([_units(n, index, plan) for n in names], axis=0)
        if not plan.distributed:
            total = np.append(total, 0)  # how many values were clipped
        words = plan.encoding.wrap(total)
        model = descent.move(model, words, round_index=index, survivors=names)
    return model.digest()


def verified(finished: Outcome, *, second: bool = False) -> Verified:
    """Whatever an engine has finished verifies; ``second``: by both verifiers."""
    found = sfl.verify_run(finished.out)
    assert set(found.epsilon) == set(finished.plan.names)
    if second:
        command = [sys.executable, str(_SECOND), str(finished.out)]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return found
