# SPDX-License-Identifier: Apache-2.0
"""What a run keeps beside its transcript, where the plan has ``keep_vectors``.

For every attempt that was opened, one file ``vectors/round-RRRRR-attempt-A.cbor``
(round and attempt from 0, the round in five digits) holds what the transcript leaves
out of it.  It is one value in the encoding of :mod:`secure_fl.wire`, an array of six::

    ["secure-fl/vectors/1", run id (16 bytes), round, attempt, seed, rows]

``rows`` holds one ``[sender, message]`` for each message that the aggregator accepted,
or sent, and that the transcript holds only as a hash, or not at all:

======  ========================================================  ==================
kind    message (field 0 of it)                                   sender
======  ========================================================  ==================
5       a chunk of a masked vector, or of a masked one-time key   a client in the sum
10      the shares that a client revealed                         a client in the sum
12      a chunk of ciphertexts                                    a client in the sum
17      the request to the key holder                             empty: aggregator
======  ========================================================  ==================

Rows stand in order of kind, then of the roster, then of a client's chunk index.  There
is every chunk of every client in the sum, one message for each hash that the transcript
holds of this attempt, and nothing else; chunks of clients outside of the sum are let
go.  ``seed`` is empty, but for a plan with a key holder: the 32 bytes from which the
aggregator drew its key of the context, ``HKDF-SHA256(seed, salt = ctx, info =
CBOR(["secure-fl/ckks/1 aggregator key"]), 32 bytes)``, an X25519 private key.

Beside them ``start.safetensors`` holds the model that round 0 began from.  All are
artefacts: the last round's clients sign their hashes.  An attempt that failed leaves
nothing here.  Whoever has these files has what the aggregator had.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from .. import wire
from ..context import kind_of
from ..errors import ProtocolError
from ..identity import Roster

__all__ = ["FOLDER", "START", "Kept", "is_chunk", "vectors_file"]

SPEC: Final = "secure-fl/vectors/1"
START: Final = "start.safetensors"
FOLDER: Final = "vectors"
_CHUNKS: Final = (5, 12)  # of words, of ciphertexts
_HASHED: Final = (10, 17)  # revealed shares, a request to a key holder


def vectors_file(round_index: int, attempt: int) -> str:
    """The name, within a run's folder, of what is kept of an opened attempt."""
    return f"{FOLDER}/round-{round_index:05}-attempt-{attempt}.cbor"


def is_chunk(message: bytes) -> bool:
    """Whether a kept message is a part of somebody's vector."""
    return kind_of(message) in _CHUNKS


@final
@dataclass(frozen=True)
class Kept:
    """What is kept of one opened attempt; ``rows`` in any order until encoded."""

    run_id: bytes
    round_index: int
    attempt: int
    seed: bytes = field(repr=False)
    rows: Sequence[tuple[str, bytes]] = field(repr=False)

    def to_bytes(self, roster: Roster) -> bytes:
        rows: list[wire.Value] = []
        for sender, message in sorted(self.rows, key=_place(roster)):
            rows.append([sender, message])
        return wire.encode(
            [SPEC, self.run_id, self.round_index, self.attempt, self.seed, rows]
        )

    @classmethod
    def from_bytes(cls, data: bytes, roster: Roster) -> Kept:
        """Read the one form.  Raises ProtocolError for anything else."""
        rows = []
        match wire.decode(data):
            case [
                str(spec),
                bytes(run_id),
                int(round_index),
                int(attempt),
                bytes(seed),
                list(items),
            ] if spec == SPEC:
                pass
            case _:
                raise ProtocolError(f"not what a run keeps by {SPEC}")
        for item in items:
            match item:
                case [str(sender), bytes(message)] if kind_of(message) in (
                    *_CHUNKS,
                    *_HASHED,
                ):
                    rows.append((sender, message))
                case _:
                    raise ProtocolError("a row is malformed")
        known = {"", *(m.name for m in roster.members)}
        if not {sender for sender, _ in rows} <= known:
            raise ProtocolError("a message of somebody who is not a member")
        if rows != sorted(rows, key=_place(roster)):
            raise ProtocolError("its messages are out of order")
        return cls(run_id, round_index, attempt, seed, tuple(rows))


def _place(roster: Roster) -> Callable[[tuple[str, bytes]], tuple[int, int]]:
    order = {"": -1, **{m.name: i for i, m in enumerate(roster.members)}}
    # A sort is stable: a client's chunks stay as they came, which is by index.
    return lambda row: (kind_of(row[1]), order[row[0]])
