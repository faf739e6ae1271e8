# SPDX-License-Identifier: Apache-2.0
"""What a run across machines will cost: bytes from the formats, seconds from a fit.

Seconds of work are a sum of terms (once, per client, pair, value and byte) whose
constants were fitted to rounds of this engine, with chunks as large as by default;
``benchmarks/forecast.py`` measures and fits again, on any machine.  They are CPU
seconds, as on a machine with nothing else to do.  Not in them are training, its noise
included, waiting for a disk, what a key holder does, and processes that have to start:
the seconds of an exchange hold those.

Everybody is there and nothing is tried twice; a dropout costs the aggregator more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, final

from ..plan import Plan
from .sizes import Exchange, RoundSizes, round_sizes

__all__ = [
    "EXCHANGE_SECONDS",
    "MEGABITS",
    "TERMS",
    "Forecast",
    "Terms",
    "forecast",
    "terms",
]

EXCHANGE_SECONDS: Final = 4.7
"""What Flower 1.41 takes for one exchange of small messages, processes included."""
MEGABITS: Final = 100.0
"""A second, of everybody's link, where nothing else is said."""

_ONCE: Final = 3  # exchanges of a run: who is there, ledgers, the last signatures

Terms = tuple[float, ...]

TERMS: Final = (
    ("once", "client", "value", "byte of a vector", "the same, a peer", "byte of log"),
    ("once", "client", "pair", "value", "byte of all vectors", "byte of log shown"),
)
"""What the constants are for: of a member, and of the aggregator."""

_MACHINE: Final = "two cores"  # of an x86-64 server
_SECONDS: Final[dict[str, tuple[Terms, Terms]]] = {
    "masking": (
        (2.78e-02, 8.32e-04, 8.29e-08, 6.12e-10, 1.67e-10, 0.0),
        (7.34e-03, 3.96e-03, 4.37e-05, 2.63e-08, 1.10e-09, 0.0),
    ),
    "one-time": (
        (3.16e-02, 8.17e-04, 4.48e-08, 1.74e-08, 0.0, 0.0),
        (7.01e-03, 5.06e-03, 0.0, 4.41e-08, 1.93e-09, 2.28e-08),
    ),
    "keyholder": (
        (1.76e-02, 1.39e-04, 7.51e-08, 1.36e-08, 0.0, 0.0),
        (1.27e-02, 1.33e-03, 0.0, 4.56e-08, 2.43e-09, 5.99e-08),
    ),
}


def terms(plan: Plan, size: int, sizes: RoundSizes) -> tuple[Terms, Terms]:
    """What the seconds of one round are proportional to, in the order of TERMS."""
    n, values = len(plan.names), plan.length(size)
    vector, log = sizes.vector_bytes, sizes.log_bytes
    return (
        (1, n, values, vector, n * vector, log),
        (1, n, n * n, values, n * vector, n * log),
    )


@final
@dataclass(frozen=True)
class Forecast:
    """One round of a plan, the first one excepted, and the run.

    exchanges
        of a round, in order
    member_seconds, aggregator_seconds
        of work in a round, for one member and for the aggregator
    network_seconds
        of a round: all of its bytes through the aggregator's link
    exchange_seconds
        what each exchange takes beside
    """

    rounds: int
    exchanges: tuple[Exchange, ...]
    member_seconds: float
    aggregator_seconds: float
    network_seconds: float
    exchange_seconds: float

    @property
    def round_seconds(self) -> float:
        """Besides training.  Members work at the same time, each on its machine."""
        waiting = len(self.exchanges) * self.exchange_seconds
        work = self.member_seconds + self.aggregator_seconds
        return waiting + work + self.network_seconds

    @property
    def run_seconds(self) -> float:
        return self.rounds * self.round_seconds + _ONCE * self.exchange_seconds

    @property
    def member_bytes(self) -> tuple[int, int]:
        """What one member sends and gets in a round."""
        each = [e for e in self.exchanges if e.parties > 1]
        return sum(e.up for e in each), sum(e.down for e in each)

    @property
    def aggregator_bytes(self) -> tuple[int, int]:
        """What the aggregator sends and gets in a round."""
        sent = sum(e.down * e.parties for e in self.exchanges)
        return sent, sum(e.up * e.parties for e in self.exchanges)

    def facts(self) -> dict[str, Any]:
        """For ``secure-fl plan check``."""
        up, down = self.member_bytes
        sent, got = self.aggregator_bytes
        return {
            "predicted_exchanges_per_round": len(self.exchanges),
            "predicted_seconds_per_round": round(self.round_seconds, 1),
            "predicted_seconds_of_the_run": round(self.run_seconds),
            "predicted_seconds_at_a_member": _short(self.member_seconds),
            "predicted_seconds_at_aggregator": _short(self.aggregator_seconds),
            "predicted_bytes_up_per_member": up,
            "predicted_bytes_down_per_member": down,
            "predicted_bytes_to_aggregator": got,
            "predicted_bytes_from_aggregator": sent,
            "predicted_for": f"{self.exchange_seconds:g} s an exchange, {_MACHINE}, "
            "no training",
        }


def _short(seconds: float) -> float:
    return float(f"{seconds:.2g}")


def forecast(
    plan: Plan,
    size: int,
    *,
    exchange_seconds: float = EXCHANGE_SECONDS,
    megabits: float = MEGABITS,
) -> Forecast:
    """For a model of ``size`` float32 values, under masking or CKKS.

    exchange_seconds
        what network and processes take for one exchange, whatever its size
    megabits
        a second, of the aggregator's link, through which all messages go
    """
    sizes = round_sizes(plan, size)
    p = plan.protection
    of_member, of_aggregator = _SECONDS[p.keys if p.kind == "ckks" else p.kind]
    at_member, at_aggregator = terms(plan, size, sizes)
    carried = sum(e.parties * (e.up + e.down) for e in sizes.exchanges)
    return Forecast(
        rounds=plan.rounds.count,
        exchanges=sizes.exchanges,
        member_seconds=_sum(of_member, at_member),
        aggregator_seconds=_sum(of_aggregator, at_aggregator),
        network_seconds=carried / (megabits * 125_000),
        exchange_seconds=exchange_seconds,
    )


def _sum(constants: Sequence[float], amounts: Sequence[float]) -> float:
    return sum(c * a for c, a in zip(constants, amounts, strict=True))
