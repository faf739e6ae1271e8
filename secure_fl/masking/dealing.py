# SPDX-License-Identifier: Apache-2.0
"""Shares on their way from a dealer to a holder (SPEC.md, sections 4.3 to 4.6)."""

from __future__ import annotations

from collections.abc import Sequence

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from .. import wire
from ..errors import FaultyAggregator, FaultyClient
from . import crypto, shamir
from .checks import share_commitment
from .messages import (
    SHARES_LABEL,
    InboxEntry,
    KeyAnnouncement,
    SealedShare,
    signed_shares,
)
from .session import Session

__all__ = ["check_row", "deal", "open_row"]


def _box_info(
    session: Session, cohort: bytes, dealer: int, to: int
) -> list[wire.Value]:
    return [session.ctx, cohort, dealer, to]


def deal(
    session: Session,
    me: int,
    cohort: Sequence[KeyAnnouncement],
    cohort_hash: bytes,
    *,
    beta: int,
    z: int,
    random: bytes,
) -> tuple[tuple[SealedShare, ...], tuple[bytes, bytes]]:
    """A row for each member of the cohort, and the two shares ``me`` keeps.

    Raises FaultyClient for a member whose sealing key is none.
    """
    degree = session.parameters.threshold - 1
    coefficients = crypto.elements(random, "coefficients", 2 * degree, ctx=session.ctx)
    xs = [a.client + 1 for a in cohort]
    self_shares = shamir.share(beta, coefficients[:degree], xs)
    key_shares = shamir.share(z, coefficients[degree:], xs)
    rows = []
    own = (b"", b"")
    for a, self_int, key_int in zip(cohort, self_shares, key_shares, strict=True):
        self_share, key_share = shamir.to_bytes(self_int), shamir.to_bytes(key_int)
        box = b""
        if a.client == me:
            own = self_share, key_share
        else:
            info = _box_info(session, cohort_hash, me, a.client)
            try:
                box = crypto.seal(self_share + key_share, a.seal_key, info=info)
            except ValueError:
                raise FaultyClient(
                    session.name(a.client), "its sealing key is not a key"
                ) from None
        rows.append(
            SealedShare(
                a.client,
                box,
                share_commitment(session, "self", me, a.client, self_share),
                share_commitment(session, "key", me, a.client, key_share),
            )
        )
    return tuple(rows), own


def check_row(
    session: Session, entry: InboxEntry, cohort: bytes, place: int, count: int
) -> None:
    """SPEC 6.2: the box is the one its dealer signed.

    ``place``: the reader's in the cohort of ``count`` members.
    """
    signed = signed_shares(session, cohort, entry.dealer, entry.commitment, entry.root)
    public = session.public_key(entry.dealer)
    in_tree = wire.verify_merkle_path(
        SHARES_LABEL,
        entry.share.leaf(),
        index=place,
        count=count,
        path=entry.path,
        root=entry.root,
    )
    if not in_tree or not wire.verify(public, entry.signature, SHARES_LABEL, *signed):
        raise FaultyAggregator(
            f"the box of {session.name(entry.dealer)} is not the one it signed"
        )


def open_row(
    session: Session, me: int, entry: InboxEntry, cohort: bytes, key: X25519PrivateKey
) -> list[bytes]:
    """SPEC 6.3: the box opens, and holds what its dealer committed to: both shares."""
    dealer = entry.dealer
    try:
        plain = crypto.open_box(
            entry.share.box, key, info=_box_info(session, cohort, dealer, me)
        )
    except ValueError:
        raise FaultyClient(
            session.name(dealer), "its sealed shares do not open"
        ) from None
    shares = [plain[:32], plain[32:]]
    wanted = [entry.share.self_commitment, entry.share.key_commitment]
    for kind, share, commitment in zip(("self", "key"), shares, wanted, strict=True):
        if share_commitment(session, kind, dealer, me, share) != commitment:
            raise FaultyClient(
                session.name(dealer), "a share is not the one it committed to"
            )
    return shares
