# SPDX-License-Identifier: Apache-2.0
"""One hypothesis profile for all tests: repeatable, and free of the clock."""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

# Before torch is imported: on tensors this small, more threads only wait.
os.environ.setdefault("OMP_NUM_THREADS", "1")

settings.register_profile(
    "repeatable",
    derandomize=True,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("repeatable")
