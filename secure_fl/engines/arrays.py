# SPDX-License-Identifier: Apache-2.0
"""Arrays in, their exact fixed-point sum out: the escape hatch without a claim."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
from numpy.typing import NDArray

from .. import masking
from ..errors import UsageError
from ..fixedpoint import Encoding, Word, finest_step
from ..identity import Identity, Member, Roster
from ..randomness import SystemRandom
from ..round import Aggregation, MaskingClient, MaskingCollecting, Outgoing
from .exchange import Dropout, by_threads, exchange

__all__ = ["secure_sum"]


@final
@dataclass
class _Holder:
    """One array and the protection it leaves under."""

    protection: MaskingClient
    words: NDArray[Word] = field(repr=False)

    def _outgoing(self) -> Outgoing:
        return Outgoing(self.words, bytes(32), lambda: None)

    def handle(self, message: bytes) -> Iterator[bytes]:
        yield from self.protection.handle(message, self._outgoing)


def secure_sum(
    arrays: Mapping[str, NDArray[np.floating]],
    *,
    clip: float,
    word_bits: int = 32,
    max_colluding: int = 1,
) -> NDArray[np.float64]:
    """The sum of equally shaped arrays, through the whole masking protocol.

    Guarantees: each value is rounded to the nearest multiple of the finest power of
    two that ``word_bits`` allow, and the sum of those is exact; the aggregator's part
    holds nothing but masked words until only the sum is left.  Makes no privacy claim:
    a sum of exact values can give away any one of them.

    Caller must give every array once under its holder's name, at least three of them,
    with no absolute value above ``clip``.  Raises UsageError for anything else.
    """
    names = tuple(arrays)
    if len(names) < max_colluding + 2:
        raise UsageError(
            f"{len(names)} arrays are too few with {max_colluding} colluding",
            hint=f"give at least {max_colluding + 2}: a sum of fewer opens one of them",
        )
    random = SystemRandom()
    shape = np.shape(arrays[names[0]])
    encoding = Encoding(
        clip,
        finest_step(clip=clip, word_bits=word_bits, clients=len(names), max_weight=1),
        word_bits,
        len(names),
    )
    vectors: dict[str, NDArray[Word]] = {}
    for name, array in arrays.items():
        if np.shape(array) != shape:
            raise UsageError(
                f"the array of {name} has another shape than the first",
                hint="give arrays of one shape",
            )
        flat = np.asarray(array, np.float64).ravel()
        words, clipped = encoding.encode(flat, np.full(flat.size, 0.5))
        if clipped:
            raise UsageError(
                f"{clipped} values of {name} lie beyond the clip of {clip:g}",
                hint="raise the clip, or clip the array yourself first",
            )
        vectors[name] = np.append(words, encoding.dtype.type(0))
    identities = [Identity.new(name, random=random) for name in names]
    threshold = masking.default_threshold(len(names), max_colluding)
    session = masking.Session(
        plan_hash=bytes(32),
        run_id=random.bytes(16),
        round_index=0,
        attempt=0,
        roster=Roster(tuple(Member(i.name, i.public_key) for i in identities)),
        model_hash=bytes(32),
        parameters=masking.Parameters(
            clients=len(names),
            length=vectors[names[0]].size,
            word_bits=word_bits,
            chunk_words=65_536,
            threshold=threshold,
            min_clients=max(max_colluding + 2, threshold),
            max_colluding=max_colluding,
        ),
    )
    aggregation = Aggregation(
        session,
        MaskingCollecting(session),
        encoding=encoding,
        weights=dict.fromkeys(names, 1),
    )
    holders = {
        i.name: _Holder(MaskingClient(session, i, random), vectors[i.name])
        for i in identities
    }
    dropouts: list[Dropout] = []
    opened = exchange(
        aggregation,
        by_threads(holders),
        {name: h.protection.first() for name, h in holders.items()},
        dropouts=dropouts,
        log=lambda sender, receiver, message: None,
        on_step=lambda step: None,
    )
    if dropouts:  # every party is ours: a failure is never a mere dropout
        raise dropouts[0].error
    return opened.total.reshape(shape)
