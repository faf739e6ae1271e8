# SPDX-License-Identifier: Apache-2.0
"""What a release claims, what all releases cost, and the book that is kept of them.

What no run needs is in a module of its own: ``rules`` answers further questions about
what releases cost together.
Imports no torch, and dp-accounting only when an epsilon is asked for.
"""

from __future__ import annotations

from .accounting import (
    ADJACENCY,
    Accountant,
    Bound,
    Epsilon,
    accountant_of,
    epsilon,
    over_releases,
    profile,
    rdp_epsilon,
)
from .book import LedgerExport, Release, Reservation, State, read_export
from .calibration import calibrate_noise, calibrate_release
from .curves import delta_at
from .events import (
    DiscreteGaussian,
    Event,
    Gaussian,
    Mechanism,
    NonPrivate,
    PoissonGaussian,
    Repeated,
    Skellam,
    from_wire,
    seen,
    to_wire,
    without_amplification,
)
from .groups import group_epsilon
from .interpretation import Interpretation, interpret
from .ledger import Ledger
from .selfcheck import KnownAnswer, self_check
from .update import PrivateUpdate, Unprotected, private_update, unprotected

__all__ = [
    "ADJACENCY",
    "Accountant",
    "Bound",
    "DiscreteGaussian",
    "Epsilon",
    "Event",
    "Gaussian",
    "Interpretation",
    "KnownAnswer",
    "Ledger",
    "LedgerExport",
    "Mechanism",
    "NonPrivate",
    "PoissonGaussian",
    "PrivateUpdate",
    "Release",
    "Repeated",
    "Reservation",
    "Skellam",
    "State",
    "Unprotected",
    "accountant_of",
    "calibrate_noise",
    "calibrate_release",
    "delta_at",
    "epsilon",
    "from_wire",
    "group_epsilon",
    "interpret",
    "over_releases",
    "private_update",
    "profile",
    "rdp_epsilon",
    "read_export",
    "seen",
    "self_check",
    "to_wire",
    "unprotected",
    "without_amplification",
]
