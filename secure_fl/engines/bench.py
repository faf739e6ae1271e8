# SPDX-License-Identifier: Apache-2.0
"""How fast and how large one masking context is, measured step by step."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import final

import numpy as np

from .. import masking
from ..errors import UsageError
from ..round import MaskingClient, MaskingCollecting
from .bench_parties import Cohort, Parties

__all__ = ["MaskingFigures", "bench_masking", "client_peak_bytes"]


@final
@dataclass(frozen=True)
class MaskingFigures:
    """What ``secure-fl bench masking`` prints.

    client_seconds
        median over the clients that stayed, all five steps
    aggregator_seconds
        all steps, removing the masks included
    round_seconds
        everything from the first key on, one party after the other on this machine
    bytes_up_per_value
        a client's largest message stream over the length of the vector
    client_peak_bytes
        what a client allocates beyond its vector while it sends it, in a run of its own
    exact
        whether the opened sum equals the sum of the words, every one of them
    """

    clients: int
    dropped: int
    length: int
    bits: int
    client_seconds: float
    aggregator_seconds: float
    round_seconds: float
    bytes_up_per_value: float
    client_peak_bytes: int
    exact: bool


def bench_masking(
    *, clients: int, dropped: int, length: int, bits: int
) -> MaskingFigures:
    """Run one context with ``dropped`` clients leaving before they send their vector.

    Raises UsageError where so many dropouts end it by design.
    """
    cohort = Cohort(clients, bits)
    session = _session(cohort, length, bits)
    if clients - dropped < session.parameters.needed:
        raise UsageError(
            f"{clients - dropped} clients are left, {session.parameters.needed} needed",
            hint="drop fewer",
        )
    words = cohort.words(length)
    names = [i.name for i in cohort.identities]
    leaving, staying = names[:dropped], names[dropped:]
    begin = time.perf_counter()
    parties = _parties(cohort, session)
    opened = parties.run(words, leaving=frozenset(leaving))
    seconds = time.perf_counter() - begin
    return MaskingFigures(
        clients=clients,
        dropped=dropped,
        length=length,
        bits=bits,
        client_seconds=statistics.median(parties.clients[n].seconds for n in staying),
        aggregator_seconds=parties.aggregator.seconds,
        round_seconds=seconds,
        bytes_up_per_value=max(parties.sent.values()) / length,
        client_peak_bytes=_parties(cohort, session).peak_bytes(words),
        exact=opened.words_hash == cohort.sum_hash(words, len(staying)),
    )


def client_peak_bytes(*, clients: int, length: int, bits: int) -> int:
    """What one client allocates beyond its vector of ``length`` words, in bytes."""
    cohort = Cohort(clients, bits)
    words = np.zeros(length, cohort.encoding.dtype)
    return _parties(cohort, _session(cohort, length, bits)).peak_bytes(words)


def _parties(cohort: Cohort, session: masking.Session) -> Parties:
    return Parties(
        cohort,
        session,
        MaskingCollecting(session),
        lambda identity: MaskingClient(session, identity, cohort.random),
    )


def _session(cohort: Cohort, length: int, bits: int) -> masking.Session:
    clients = len(cohort.identities)
    threshold = masking.default_threshold(clients, 1)
    return masking.Session(
        plan_hash=bytes(32),
        run_id=cohort.run_id,
        round_index=0,
        attempt=0,
        roster=cohort.roster,
        model_hash=bytes(32),
        parameters=masking.Parameters(
            clients=clients,
            length=length,
            word_bits=bits,
            chunk_words=65_536,
            threshold=threshold,
            min_clients=max(3, threshold),
            max_colluding=1,
        ),
    )
