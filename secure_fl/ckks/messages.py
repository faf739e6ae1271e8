# SPDX-License-Identifier: Apache-2.0
"""The messages of one CKKS context, byte for byte (SPEC.md, section 5).

Each is a frozen dataclass with ``encode()`` and ``decode(data, session)``: a message is
parsed against the context that expects it, and raises ProtocolError or nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from .. import wire
from ..context import (
    ascending_rows,
    check_message,
    client_index,
    fixed_bytes,
    message,
    open_message,
)
from ..errors import ProtocolError
from ..fixedpoint import pack, packed_size, unpack, unwrap, wrap
from ..keys import BOX_OVERHEAD
from .session import SPEC, Session, key_bits

__all__ = [
    "AGGREGATOR_KEY_LABEL",
    "HOLDER_KEY_LABEL",
    "INPUT_LABEL",
    "KINDS",
    "REFUSAL_LABEL",
    "RELEASE_LABEL",
    "REQUEST_LABEL",
    "TAG",
    "Call",
    "Ciphertext",
    "HolderKey",
    "Input",
    "Invitation",
    "Opening",
    "Refusal",
    "Release",
    "Request",
    "Row",
    "payload_hash",
]

HASH: Final = wire.HASH_BYTES
SIGNATURE: Final = wire.SIGNATURE_BYTES
TAG: Final = 16  # of a sealed chunk
SEED: Final = 32  # of a cover
CHUNK_BOX: Final = 32 + BOX_OVERHEAD

HOLDER_KEY_LABEL: Final = f"{SPEC} holder key"
AGGREGATOR_KEY_LABEL: Final = f"{SPEC} aggregator key"
INPUT_LABEL: Final = f"{SPEC} input"
REQUEST_LABEL: Final = f"{SPEC} request"
RELEASE_LABEL: Final = f"{SPEC} release"
REFUSAL_LABEL: Final = f"{SPEC} refusal"


@final
class KINDS:
    """What field 0 of each message says; masking has 1 to 10."""

    CIPHERTEXT: Final = 12
    CALL: Final = 13
    HOLDER_KEY: Final = 14
    INVITATION: Final = 15
    INPUT: Final = 16
    REQUEST: Final = 17
    RELEASE: Final = 18
    REFUSAL: Final = 19


def payload_hash(session: Session, client: int, root: bytes) -> bytes:
    """What a client signs of its chunks (SPEC 4.1)."""
    return wire.digest(f"{SPEC} payload", session.ctx, client, root)


def key_box_size(session: Session) -> int:
    return session.parameters.packing.ring.degree + SEED + BOX_OVERHEAD


def release_box_size(session: Session, rows: int) -> int:
    p = session.parameters
    packed = packed_size(p.packing.ring.degree, key_bits(p.clients))
    return packed + rows * SEED + BOX_OVERHEAD


@final
@dataclass(frozen=True, slots=True)
class Ciphertext:
    """Client to aggregator: some blocks, sealed where there is a key holder."""

    client: int
    index: int
    data: bytes | memoryview = field(repr=False)

    def encode(self, session: Session) -> bytes:
        head: dict[int, wire.Value] = {
            0: KINDS.CIPHERTEXT,
            1: session.ctx,
            2: self.client,
            3: self.index,
        }
        return wire.encode_before(head, self.data)

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Ciphertext:
        p = session.parameters
        if len(data) > 512 + TAG + p.chunk_size(0):
            raise ProtocolError("larger than any message of this kind")
        value, part = wire.decode_before(data)
        f = check_message(wire.Fields(value), session, KINDS.CIPHERTEXT)
        client = client_index(f, 2, session)
        index = f.integer(3, high=p.chunks - 1)
        f.bytes_(4, size=0)
        f.end()
        if len(part) != p.chunk_size(index) + (TAG if p.keys == "keyholder" else 0):
            raise ProtocolError("the chunk has another length")
        return cls(client, index, part)


# -- with a key holder -----------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Call:
    """Aggregator to key holder: all it takes to compute the context, and its own key.

    Parsed before there is a session: its ``ctx`` is what the sender says it is.
    """

    ctx: bytes
    round_index: int
    attempt: int
    model_hash: bytes
    length: int
    key: bytes
    signature: bytes

    def encode(self) -> bytes:
        fields: tuple[wire.Value, ...] = (
            KINDS.CALL,
            self.ctx,
            self.round_index,
            self.attempt,
            self.model_hash,
            self.length,
            self.key,
            self.signature,
        )
        return wire.encode(dict(enumerate(fields)))

    @classmethod
    def decode(cls, data: bytes) -> Call:
        if len(data) > 512:
            raise ProtocolError("larger than any message of this kind")
        f = wire.Fields(wire.decode(data))
        if f.integer(0) != KINDS.CALL:
            raise ProtocolError("a message of another kind was expected")
        out = cls(
            f.bytes_(1, size=HASH),
            f.integer(2),
            f.integer(3),
            f.bytes_(4, size=HASH),
            f.integer(5, low=1, high=2**40),
            f.bytes_(6, size=32),
            f.bytes_(7, size=SIGNATURE),
        )
        f.end()
        return out


@final
@dataclass(frozen=True, slots=True)
class HolderKey:
    """Key holder to aggregator: its key for this context."""

    key: bytes
    signature: bytes

    def encode(self, session: Session) -> bytes:
        return message(session, KINDS.HOLDER_KEY, self.key, self.signature)

    @classmethod
    def decode(cls, data: bytes, session: Session) -> HolderKey:
        f = open_message(data, session, KINDS.HOLDER_KEY)
        out = cls(f.bytes_(2, size=32), f.bytes_(3, size=SIGNATURE))
        f.end()
        return out


@final
@dataclass(frozen=True, slots=True)
class Invitation:
    """Aggregator to every client: to whom keys and chunks are sealed."""

    holder: HolderKey
    key: bytes
    signature: bytes

    def encode(self, session: Session) -> bytes:
        holder = self.holder
        return message(
            session,
            KINDS.INVITATION,
            holder.key,
            holder.signature,
            self.key,
            self.signature,
        )

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Invitation:
        f = open_message(data, session, KINDS.INVITATION)
        holder = HolderKey(f.bytes_(2, size=32), f.bytes_(3, size=SIGNATURE))
        out = cls(holder, f.bytes_(4, size=32), f.bytes_(5, size=SIGNATURE))
        f.end()
        return out


@final
@dataclass(frozen=True, slots=True)
class Row:
    """One client in a request: its key for the key holder, as the client signed it."""

    client: int
    payload: bytes
    claim: bytes
    key_box: bytes
    box_hash: bytes
    signature: bytes

    def signed(self, session: Session) -> tuple[wire.Value, ...]:
        key_box = wire.digest_bytes(f"{SPEC} key box", self.key_box)
        return (
            session.ctx,
            self.client,
            self.payload,
            self.claim,
            key_box,
            self.box_hash,
        )

    def to_wire(self) -> list[wire.Value]:
        return [
            self.client,
            self.payload,
            self.claim,
            self.key_box,
            self.box_hash,
            self.signature,
        ]


@final
@dataclass(frozen=True, slots=True)
class Input:
    """Client to aggregator, after its chunks: both boxes, under one signature."""

    client: int
    payload: bytes
    claim: bytes
    key_box: bytes
    chunk_box: bytes
    signature: bytes

    def row(self) -> Row:
        return Row(
            self.client,
            self.payload,
            self.claim,
            self.key_box,
            wire.digest_bytes(f"{SPEC} chunk box", self.chunk_box),
            self.signature,
        )

    def encode(self, session: Session) -> bytes:
        return message(
            session,
            KINDS.INPUT,
            self.client,
            self.payload,
            self.claim,
            self.key_box,
            self.chunk_box,
            self.signature,
        )

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Input:
        size = key_box_size(session)
        f = open_message(data, session, KINDS.INPUT, row_bytes=512 + size)
        out = cls(
            client_index(f, 2, session),
            f.bytes_(3, size=HASH),
            f.bytes_(4, size=HASH),
            f.bytes_(5, size=size),
            f.bytes_(6, size=CHUNK_BOX),
            f.bytes_(7, size=SIGNATURE),
        )
        f.end()
        return out


@final
@dataclass(frozen=True, slots=True)
class Request:
    """Aggregator to key holder: everyone whose ciphertext it has added."""

    rows: tuple[Row, ...]
    signature: bytes

    def signed(self, session: Session) -> tuple[wire.Value, ...]:
        return session.ctx, [[r.client, r.payload, r.claim] for r in self.rows]

    def encode(self, session: Session) -> bytes:
        rows = [r.to_wire() for r in self.rows]
        return message(session, KINDS.REQUEST, rows, self.signature)

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Request:
        size = key_box_size(session)
        f = open_message(data, session, KINDS.REQUEST, row_bytes=512 + size)
        rows = []
        for row in ascending_rows(f, 2, session, 6):
            assert isinstance(row[0], int)
            rows.append(
                Row(
                    row[0],
                    fixed_bytes(row[1], HASH),
                    fixed_bytes(row[2], HASH),
                    fixed_bytes(row[3], size),
                    fixed_bytes(row[4], HASH),
                    fixed_bytes(row[5], SIGNATURE),
                )
            )
        signature = f.bytes_(3, size=SIGNATURE)
        f.end()
        return cls(tuple(rows), signature)


@final
@dataclass(frozen=True, slots=True)
class Release:
    """Key holder to aggregator: in a box, the sum of the keys of exactly these rows."""

    rows: tuple[tuple[int, bytes, bytes], ...]
    box: bytes
    signature: bytes

    def signed(self, session: Session) -> tuple[wire.Value, ...]:
        box = wire.digest_bytes(f"{SPEC} release box", self.box)
        return session.ctx, [list(row) for row in self.rows], box

    def encode(self, session: Session) -> bytes:
        rows: list[wire.Value] = [list(row) for row in self.rows]
        return message(session, KINDS.RELEASE, rows, self.box, self.signature)

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Release:
        size = release_box_size(session, len(session.roster))
        f = open_message(data, session, KINDS.RELEASE, row_bytes=256 + size)
        rows = []
        for row in ascending_rows(f, 2, session, 3):
            assert isinstance(row[0], int)
            rows.append((row[0], fixed_bytes(row[1], HASH), fixed_bytes(row[2], HASH)))
        box = f.bytes_(3, size=release_box_size(session, len(rows)))
        signature = f.bytes_(4, size=SIGNATURE)
        f.end()
        return cls(tuple(rows), box, signature)


@final
@dataclass(frozen=True, slots=True)
class Opening:
    """What a release box holds: the sum of keys (N integers), and a seed per row."""

    key_sum: NDArray[np.int64] = field(repr=False)
    seeds: tuple[bytes, ...] = field(repr=False)

    def encode(self, session: Session) -> bytes:
        bits = key_bits(session.parameters.clients)
        return pack(wrap(self.key_sum, bits), bits) + b"".join(self.seeds)

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Opening:
        """Raises ValueError where the sum is not packed as it must be."""
        bits = key_bits(session.parameters.clients)
        degree = session.parameters.packing.ring.degree
        size = packed_size(degree, bits)
        seeds = [data[at : at + SEED] for at in range(size, len(data), SEED)]
        return cls(unwrap(unpack(data[:size], degree, bits), bits), tuple(seeds))


@final
@dataclass(frozen=True, slots=True)
class Refusal:
    """Key holder to aggregator: no sum of this context will ever be released.

    ``culprit``: a client, or None where there were too few.
    """

    culprit: int | None
    signature: bytes

    def signed(self, session: Session) -> tuple[wire.Value, ...]:
        return session.ctx, self._number(session)

    def _number(self, session: Session) -> int:
        return len(session.roster) if self.culprit is None else self.culprit

    def encode(self, session: Session) -> bytes:
        return message(session, KINDS.REFUSAL, self._number(session), self.signature)

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Refusal:
        f = open_message(data, session, KINDS.REFUSAL)
        number = f.integer(2, high=len(session.roster))
        out = cls(
            None if number == len(session.roster) else number,
            f.bytes_(3, size=SIGNATURE),
        )
        f.end()
        return out
