# SPDX-License-Identifier: Apache-2.0
"""The messages of one masking context, byte for byte (SPEC.md, section 5).

Each is a frozen dataclass with ``encode()`` and ``decode(data, session)``: a message is
parsed against the context that expects it, and raises ProtocolError or nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Literal, final

from .. import wire
from ..context import (
    ascending_rows,
    check_message,
    client_index,
    context_of,
    fixed_bytes,
    kind_of,
    message,
    open_message,
)
from ..errors import ProtocolError
from ..keys import BOX_OVERHEAD
from .session import SPEC, Session

__all__ = [
    "Advertise",
    "Agreement",
    "Chunk",
    "CohortKeys",
    "Inbox",
    "InboxEntry",
    "KeyAnnouncement",
    "MaskedInput",
    "Reveal",
    "RevealedShare",
    "SealedShare",
    "SealedShares",
    "Signatures",
    "Statement",
    "Survivor",
    "cohort_hash",
    "context_of",
    "dealers_hash",
    "kind_of",
]

HASH: Final = wire.HASH_BYTES
INBOX_ROW_BYTES: Final = 2_600  # its path has up to 64 nodes
SIGNATURE: Final = wire.SIGNATURE_BYTES
PLAIN_BOX: Final = 64  # two shares of 32 bytes
BOX: Final = PLAIN_BOX + BOX_OVERHEAD


# -- step 1: keys ---------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class KeyAnnouncement:
    """A client's two ephemeral public keys of this context, signed by its identity."""

    client: int
    seal_key: bytes
    mask_key: bytes
    signature: bytes

    @staticmethod
    def label() -> str:
        return f"{SPEC} advertise"

    def signed(self, session: Session) -> tuple[wire.Value, ...]:
        return (session.ctx, self.client, self.seal_key, self.mask_key)

    def row(self) -> list[wire.Value]:
        return [self.client, self.seal_key, self.mask_key, self.signature]


@final
@dataclass(frozen=True, slots=True)
class Advertise:
    """Client to aggregator, step 1."""

    announcement: KeyAnnouncement

    def encode(self, session: Session) -> bytes:
        return message(session, 1, *self.announcement.row())

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Advertise:
        f = open_message(data, session, 1)
        out = KeyAnnouncement(
            client_index(f, 2, session),
            f.bytes_(3, size=32),
            f.bytes_(4, size=32),
            f.bytes_(5, size=SIGNATURE),
        )
        f.end()
        return cls(out)


@final
@dataclass(frozen=True, slots=True)
class CohortKeys:
    """Aggregator to clients, step 1: everyone's announcement (the set U1)."""

    announcements: tuple[KeyAnnouncement, ...]

    def encode(self, session: Session) -> bytes:
        return message(session, 2, [a.row() for a in self.announcements])

    @classmethod
    def decode(cls, data: bytes, session: Session) -> CohortKeys:
        f = open_message(data, session, 2)
        out = []
        for row in ascending_rows(f, 2, session, 4):
            assert isinstance(row[0], int)
            out.append(
                KeyAnnouncement(
                    row[0],
                    fixed_bytes(row[1], 32),
                    fixed_bytes(row[2], 32),
                    fixed_bytes(row[3], SIGNATURE),
                )
            )
        f.end()
        return cls(tuple(out))


def cohort_hash(session: Session, keys: CohortKeys) -> bytes:
    """32 bytes over U1 and its keys: bound into boxes, pair masks and signatures."""
    rows: list[wire.Value] = [
        [a.client, a.seal_key, a.mask_key] for a in keys.announcements
    ]
    return wire.digest(f"{SPEC} cohort", session.ctx, rows)


# -- step 2: shares -------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class SealedShare:
    """One dealer's box for one peer, and commitments to the two shares inside."""

    to: int
    box: bytes
    self_commitment: bytes
    key_commitment: bytes

    def row(self) -> list[wire.Value]:
        return [self.to, self.box, self.self_commitment, self.key_commitment]

    def leaf(self) -> bytes:
        return wire.encode(self.row())


SHARES_LABEL: Final = f"{SPEC} shares"


@final
@dataclass(frozen=True, slots=True)
class SealedShares:
    """Client to aggregator, step 2.  The signature is over the root of all boxes."""

    client: int
    commitment: bytes
    shares: tuple[SealedShare, ...]
    signature: bytes

    def root(self) -> bytes:
        return wire.merkle_root(SHARES_LABEL, [s.leaf() for s in self.shares])

    def tree(self) -> tuple[bytes, list[list[bytes]]]:
        """The root that is signed, and each row's path to it."""
        return wire.merkle_paths(SHARES_LABEL, [s.leaf() for s in self.shares])

    def encode(self, session: Session) -> bytes:
        rows = [s.row() for s in self.shares]
        return message(session, 3, self.client, self.commitment, rows, self.signature)

    @classmethod
    def decode(cls, data: bytes, session: Session) -> SealedShares:
        f = open_message(data, session, 3)
        client = client_index(f, 2, session)
        commitment = f.bytes_(3, size=HASH)
        shares = []
        for row in ascending_rows(f, 4, session, 4):
            to = row[0]
            assert isinstance(to, int)
            # A dealer keeps its own share: that row has no box.
            box = fixed_bytes(row[1], 0 if to == client else BOX)
            shares.append(
                SealedShare(
                    to, box, fixed_bytes(row[2], HASH), fixed_bytes(row[3], HASH)
                )
            )
        signature = f.bytes_(5, size=SIGNATURE)
        f.end()
        return cls(client, commitment, tuple(shares), signature)


def signed_shares(
    session: Session, cohort: bytes, client: int, commitment: bytes, root: bytes
) -> tuple[wire.Value, ...]:
    """What a dealer signs (SPEC 5.3)."""
    return (session.ctx, cohort, client, commitment, root)


@final
@dataclass(frozen=True, slots=True)
class InboxEntry:
    """One dealer's box for the reader, with the path to the dealer's signed root."""

    dealer: int
    commitment: bytes
    share: SealedShare
    path: tuple[bytes, ...]
    root: bytes
    signature: bytes


@final
@dataclass(frozen=True, slots=True)
class Inbox:
    """Aggregator to one client, step 2: a box from every dealer (the set U2)."""

    entries: tuple[InboxEntry, ...]

    def encode(self, session: Session) -> bytes:
        rows: list[wire.Value] = [
            [
                e.dealer,
                e.commitment,
                e.share.box,
                e.share.self_commitment,
                e.share.key_commitment,
                list(e.path),
                e.root,
                e.signature,
            ]
            for e in self.entries
        ]
        return message(session, 4, rows)

    @classmethod
    def decode(cls, data: bytes, session: Session, *, reader: int) -> Inbox:
        f = open_message(data, session, 4, row_bytes=INBOX_ROW_BYTES)
        out = []
        for row in ascending_rows(f, 2, session, 8):
            dealer, path = row[0], row[5]
            assert isinstance(dealer, int)
            if not isinstance(path, list) or len(path) > 64:
                raise ProtocolError("a row holds a malformed path")
            share = SealedShare(
                reader,
                fixed_bytes(row[2], 0 if dealer == reader else BOX),
                fixed_bytes(row[3], HASH),
                fixed_bytes(row[4], HASH),
            )
            out.append(
                InboxEntry(
                    dealer,
                    fixed_bytes(row[1], HASH),
                    share,
                    tuple(fixed_bytes(node, HASH) for node in path),
                    fixed_bytes(row[6], HASH),
                    fixed_bytes(row[7], SIGNATURE),
                )
            )
        f.end()
        return cls(tuple(out))


def dealers_hash(session: Session, dealers: tuple[int, ...]) -> bytes:
    """32 bytes over the set U2, whose pair masks go into every vector."""
    return wire.digest(f"{SPEC} dealers", session.ctx, list(dealers))


# -- step 3: masked input -------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Chunk:
    """Client to aggregator, step 3: raw little-endian words, packed."""

    client: int
    index: int
    words: bytes | memoryview = field(repr=False)

    def encode(self, session: Session) -> bytes:
        return wire.encode_before(
            {0: 5, 1: session.ctx, 2: self.client, 3: self.index}, self.words
        )

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Chunk:
        data = bytes(data)  # ours from here on: no copy where it is bytes already
        if kind_of(data) != 5:
            raise ProtocolError("a message of another kind was expected")
        # The words stay where they are: a part of ``data``.
        value, words = wire.decode_before(data)
        f = check_message(wire.Fields(value), session, 5)
        client = client_index(f, 2, session)
        index = f.integer(3, high=session.parameters.chunks - 1)
        f.bytes_(4, size=0)
        f.end()
        if len(words) != session.parameters.chunk_size(index):
            raise ProtocolError("a chunk has another length")
        return cls(client, index, words)


INPUT_LABEL: Final = f"{SPEC} input"


@final
@dataclass(frozen=True, slots=True)
class MaskedInput:
    """Client to aggregator, end of step 3: the signed root of its chunks.

    ``claim`` is the hash of the ledger entry under which the update was made;
    ``attached`` the root of a payload that travels beside the vector, or empty.
    """

    client: int
    root: bytes
    dealers: bytes
    claim: bytes
    attached: bytes
    signature: bytes

    def signed(self, session: Session, cohort: bytes) -> tuple[wire.Value, ...]:
        return (
            session.ctx,
            cohort,
            self.client,
            self.root,
            self.dealers,
            self.claim,
            self.attached,
        )

    def encode(self, session: Session) -> bytes:
        return message(
            session,
            6,
            self.client,
            self.root,
            self.dealers,
            self.claim,
            self.attached,
            self.signature,
        )

    @classmethod
    def decode(cls, data: bytes, session: Session) -> MaskedInput:
        f = open_message(data, session, 6)
        client = client_index(f, 2, session)
        root, dealers, claim = (f.bytes_(k, size=HASH) for k in (3, 4, 5))
        attached = fixed_bytes(f.bytes_(6), 0, HASH)
        signature = f.bytes_(7, size=SIGNATURE)
        f.end()
        return cls(client, root, dealers, claim, attached, signature)


# -- step 4: consistency --------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Survivor:
    """One row of the statement: whose vector is in the sum, and which."""

    client: int
    root: bytes
    claim: bytes
    attached: bytes


@final
@dataclass(frozen=True, slots=True)
class Statement:
    """Aggregator to clients, step 4: the set U3 that will be opened."""

    cohort: bytes
    dealers: bytes
    survivors: tuple[Survivor, ...]

    @property
    def clients(self) -> tuple[int, ...]:
        return tuple(s.client for s in self.survivors)

    def _rows(self) -> list[wire.Value]:
        return [[s.client, s.root, s.claim, s.attached] for s in self.survivors]

    def signed(self, session: Session) -> tuple[wire.Value, ...]:
        """What every survivor signs, once per context (SPEC 5.6)."""
        return (session.ctx, self.cohort, self.dealers, self._rows())

    def encode(self, session: Session) -> bytes:
        return message(session, 7, self.cohort, self.dealers, self._rows())

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Statement:
        f = open_message(data, session, 7)
        cohort, dealers = f.bytes_(2, size=HASH), f.bytes_(3, size=HASH)
        survivors = []
        for row in ascending_rows(f, 4, session, 4):
            assert isinstance(row[0], int)
            survivors.append(
                Survivor(
                    row[0],
                    fixed_bytes(row[1], HASH),
                    fixed_bytes(row[2], HASH),
                    fixed_bytes(row[3], 0, HASH),
                )
            )
        f.end()
        return cls(cohort, dealers, tuple(survivors))


STATEMENT_LABEL: Final = f"{SPEC} statement"


@final
@dataclass(frozen=True, slots=True)
class Agreement:
    """Client to aggregator, step 4: its signature over the statement."""

    client: int
    signature: bytes

    def encode(self, session: Session) -> bytes:
        return message(session, 8, self.client, self.signature)

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Agreement:
        f = open_message(data, session, 8)
        out = cls(client_index(f, 2, session), f.bytes_(3, size=SIGNATURE))
        f.end()
        return out


# -- step 5: unmask -------------------------------------------------------------


@final
@dataclass(frozen=True, slots=True)
class Signatures:
    """Aggregator to clients, step 5: at least threshold agreements."""

    agreements: tuple[Agreement, ...]

    def encode(self, session: Session) -> bytes:
        rows: list[wire.Value] = [[a.client, a.signature] for a in self.agreements]
        return message(session, 9, rows)

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Signatures:
        f = open_message(data, session, 9)
        out = []
        for row in ascending_rows(f, 2, session, 2):
            assert isinstance(row[0], int)
            out.append(Agreement(row[0], fixed_bytes(row[1], SIGNATURE)))
        f.end()
        return cls(tuple(out))


@final
@dataclass(frozen=True, slots=True)
class RevealedShare:
    """A share of one peer's self mask, or of its mask key.  Never both."""

    of: int
    kind: Literal["self", "key"]
    share: bytes = field(repr=False)


REVEAL_LABEL: Final = f"{SPEC} reveal"
_KINDS: Final[dict[int, Literal["self", "key"]]] = {1: "self", 2: "key"}
_CODES: Final = {name: code for code, name in _KINDS.items()}


@final
@dataclass(frozen=True, slots=True)
class Reveal:
    """Client to aggregator, step 5: one share of every dealer in U2, one kind each."""

    client: int
    shares: tuple[RevealedShare, ...]
    signature: bytes

    def rows(self) -> list[wire.Value]:
        return [[s.of, _CODES[s.kind], s.share] for s in self.shares]

    def encode(self, session: Session) -> bytes:
        return message(session, 10, self.client, self.rows(), self.signature)

    @classmethod
    def decode(cls, data: bytes, session: Session) -> Reveal:
        f = open_message(data, session, 10)
        client = client_index(f, 2, session)
        shares = []
        for row in ascending_rows(f, 3, session, 3):
            of, code = row[0], row[1]
            assert isinstance(of, int)
            if type(code) is not int or code not in _KINDS:
                raise ProtocolError("a share of an unknown kind")
            shares.append(RevealedShare(of, _KINDS[code], fixed_bytes(row[2], 32)))
        signature = f.bytes_(4, size=SIGNATURE)
        f.end()
        return cls(client, tuple(shares), signature)
