# SPDX-License-Identifier: Apache-2.0
"""What a release claims, what all releases cost, and the book that is kept of them.

Imports no torch, and dp-accounting only when an epsilon is asked for.
"""

from __future__ import annotations

from .accounting import (
    ADJACENCY,
    Epsilon,
    delta_at,
    epsilon,
    over_releases,
    profile,
    rdp_epsilon,
)
from .book import LedgerExport, Release, Reservation, State, read_export
from .calibration import calibrate_noise
from .events import (
    Event,
    Gaussian,
    Mechanism,
    NonPrivate,
    PoissonGaussian,
    Repeated,
    from_wire,
    to_wire,
    without_amplification,
)
from .interpretation import Interpretation, interpret
from .ledger import Ledger
from .update import PrivateUpdate, Unprotected, private_update, unprotected

__all__ = [
    "ADJACENCY",
    "Epsilon",
    "Event",
    "Gaussian",
    "Interpretation",
    "Ledger",
    "LedgerExport",
    "Mechanism",
    "NonPrivate",
    "PoissonGaussian",
    "PrivateUpdate",
    "Release",
    "Repeated",
    "Reservation",
    "State",
    "Unprotected",
    "calibrate_noise",
    "delta_at",
    "epsilon",
    "from_wire",
    "interpret",
    "over_releases",
    "private_update",
    "profile",
    "rdp_epsilon",
    "read_export",
    "to_wire",
    "unprotected",
    "without_amplification",
]
