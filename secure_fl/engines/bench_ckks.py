# SPDX-License-Identifier: Apache-2.0
"""How fast and how large one CKKS context is, with either kind of keys."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final, final

from numpy.typing import NDArray

from .. import ckks, masking
from ..fixedpoint import Word
from ..identity import Identity
from ..keystore import MemoryKeystore
from ..round import (
    KeyholderClient,
    KeyholderCollecting,
    OneTimeClient,
    OneTimeCollecting,
)
from .bench_parties import Cohort, Parties

__all__ = ["CkksFigures", "bench_ckks", "client_upload"]

_CHUNK_WORDS: Final = 65_536  # what a plan has by default
_FLOAT32: Final = 4


@final
@dataclass(frozen=True)
class CkksFigures:
    """What ``secure-fl bench ckks`` prints.

    client_seconds
        median over the clients, everything that one does
    aggregator_seconds_per_client
        median over the clients, everything that the aggregator does because of one
        client's upload: parse, check, hash, add
    open_seconds
        the aggregator's last step, once: the sum of the keys opens (with one-time keys
        that is the end of the masking protocol), then that of the vectors
    round_seconds
        everything from the first message on, one party after the other on this machine
    bytes_up_per_value
        a client's largest message stream over the length of the vector
    ratio_to_float32
        the same over the 4 bytes of a float32
    client_peak_bytes
        what a client allocates beyond its vector while it sends it, in a run of its
        own; what SEAL allocates for itself is not seen
    ring, fields, scale_bits
        the packing (SPEC ckks, 2)
    backend
        what does the arithmetic
    exact
        whether the opened sum equals the sum of the words, every one of them
    """

    keys: ckks.Keys
    clients: int
    length: int
    bits: int
    client_seconds: float
    aggregator_seconds_per_client: float
    open_seconds: float
    round_seconds: float
    bytes_up_per_value: float
    ratio_to_float32: float
    client_peak_bytes: int
    ring: str
    fields: int
    scale_bits: int
    backend: str
    exact: bool


def bench_ckks(
    *,
    keys: ckks.Keys,
    clients: int,
    length: int,
    bits: int,
    uploaded: Callable[[], None] | None = None,
) -> CkksFigures:
    """Run one context in which all clients stay.

    ``uploaded`` is called after every upload.  Raises UsageError where tenseal is not
    installed, and PlanError where no ring holds the sum.
    """
    ckks.require_backend()
    cohort = Cohort(clients, bits)
    session = _session(cohort, keys, length, bits)
    packing = session.parameters.packing
    words = cohort.words(length)
    # The first polynomial of a process sets SEAL up, once.
    peak = _parties(cohort, session).peak_bytes(words)
    begin = time.perf_counter()
    parties = _parties(cohort, session, uploaded)
    opened = parties.run(words)
    seconds = time.perf_counter() - begin
    sent = max(parties.sent.values()) / length
    return CkksFigures(
        keys=keys,
        clients=clients,
        length=length,
        bits=bits,
        client_seconds=statistics.median(c.seconds for c in parties.clients.values()),
        aggregator_seconds_per_client=statistics.median(
            clock.seconds for clock in parties.uploads.values()
        ),
        open_seconds=parties.opening.seconds,
        round_seconds=seconds,
        bytes_up_per_value=sent,
        ratio_to_float32=sent / _FLOAT32,
        client_peak_bytes=peak,
        ring=f"{packing.ring.degree}, {len(packing.ring.primes)} x {packing.ring.bits}",
        fields=packing.fields,
        scale_bits=packing.scale_bits,
        backend=ckks.backend_version(),
        exact=opened.words_hash == cohort.sum_hash(words, clients),
    )


def client_upload(
    words: NDArray[Word], *, keys: ckks.Keys, clients: int, bits: int
) -> Iterator[bytes]:
    """What one client sends when its vector ``words`` is asked for, as it makes it."""
    ckks.require_backend()
    cohort = Cohort(clients, bits)
    session = _session(cohort, keys, words.size, bits)
    return _parties(cohort, session).upload(words)


def _parties(
    cohort: Cohort,
    session: ckks.Session,
    uploaded: Callable[[], None] | None = None,
) -> Parties:
    if session.parameters.keys == "one-time":
        return _one_time(cohort, session, uploaded)
    return _keyholder(cohort, session, uploaded)


def _one_time(
    cohort: Cohort, session: ckks.Session, uploaded: Callable[[], None] | None
) -> Parties:
    keys = _key_session(session)
    return Parties(
        cohort,
        session,
        OneTimeCollecting(session, keys),
        lambda identity: OneTimeClient(session, keys, identity, cohort.random),
        uploaded=uploaded,
    )


def _keyholder(
    cohort: Cohort, session: ckks.Session, uploaded: Callable[[], None] | None
) -> Parties:
    random = cohort.random
    aggregator = Identity.new("aggregator", random=random)
    identity = Identity.new("keyholder", random=random)
    holder = ckks.KeyHolder(
        identity,
        aggregator=aggregator.public_key,
        session_of=lambda call: session,
        record=MemoryKeystore(),
    )
    return Parties(
        cohort,
        session,
        KeyholderCollecting(
            session,
            aggregator,
            holder=identity.public_key,
            random=random.bytes(32),
        ),
        lambda client: KeyholderClient(
            session,
            client,
            random,
            holder=identity.public_key,
            aggregator=aggregator.public_key,
        ),
        holder=lambda message: holder.handle(message, random=random.bytes(32)),
        uploaded=uploaded,
    )


def _session(cohort: Cohort, keys: ckks.Keys, length: int, bits: int) -> ckks.Session:
    clients = len(cohort.identities)
    packing = ckks.choose_packing(clients, bits, length)
    return ckks.Session(
        plan_hash=bytes(32),
        run_id=cohort.run_id,
        round_index=0,
        attempt=0,
        roster=cohort.roster,
        model_hash=bytes(32),
        parameters=ckks.Parameters(
            clients=clients,
            length=length,
            packing=packing,
            chunk_blocks=max(1, _CHUNK_WORDS // packing.values),
            min_clients=3,
            max_colluding=1,
            keys=keys,
        ),
    )


def _key_session(session: ckks.Session) -> masking.Session:
    """The masking of one-time keys, as a plan has it (SPEC ckks, 4.4)."""
    clients = session.parameters.clients
    degree = session.parameters.packing.ring.degree
    threshold = masking.default_threshold(clients, 1)
    return masking.Session(
        session.plan_hash,
        session.run_id,
        session.round_index,
        session.attempt,
        session.roster,
        session.ctx,
        masking.Parameters(
            clients=clients,
            length=degree,
            word_bits=ckks.key_bits(clients),
            chunk_words=degree,
            threshold=threshold,
            min_clients=max(3, threshold),
            max_colluding=1,
        ),
    )
