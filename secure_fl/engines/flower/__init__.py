# SPDX-License-Identifier: Apache-2.0
"""The engine for many machines: a plan's rounds over Flower.

Two lines change in a Flower app.  The server wraps its strategy, and the client app
gets a mod::

    strategy = SecureAggregation(FedAvg())
    app = ClientApp(mods=[secure_aggregation_mod])

A member consents to a plan, and to the app that trains for it.  Flower's own executor
runs whatever app comes with a run: a member that uses it trusts whoever starts runs
with its records.  The one in :mod:`secure_fl.engines.flower.node` runs the app that the
member chose.

Names are looked up when first used: a client does not load the server's part.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .mod import (
        SecureAggregationMod,
        client_round,
        private_reply,
        secure_aggregation_mod,
    )
    from .strategy import SecureAggregation

__all__ = [
    "SecureAggregation",
    "SecureAggregationMod",
    "client_round",
    "private_reply",
    "secure_aggregation_mod",
]


def __getattr__(name: str) -> object:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "strategy" if name == "SecureAggregation" else "mod"
    return getattr(import_module(f".{module}", __name__), name)
