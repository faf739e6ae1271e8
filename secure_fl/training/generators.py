# SPDX-License-Identifier: Apache-2.0
"""torch's global generators, which dropout draws from, for the time of a round.

They make no noise and sample nobody.  But masks that repeat from a seed somebody knows
go to records by their place in the batch: with one record less, all records behind it
get other masks, and the sum moves by far more than that record's own gradient.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator

import torch

from ..randomness import RandomSource

__all__ = ["forked", "seeded"]


@contextlib.contextmanager
def forked() -> Iterator[None]:
    """The generators of the CPU and of CUDA are afterwards what they were before."""
    # Where CUDA was not used yet, looking at its generators would start it.
    started = torch.cuda.is_initialized()  # type: ignore[no-untyped-call]
    devices = range(torch.cuda.device_count()) if started else ()
    with torch.random.fork_rng(devices=devices, device_type="cuda"):
        yield


def seeded(random: RandomSource) -> Callable[[], None]:
    """Seed the generators of all devices from ``random``; returns what ends it."""
    stack = contextlib.ExitStack()
    stack.enter_context(forked())
    torch.manual_seed(int.from_bytes(random.bytes(8), "little"))
    return stack.close
