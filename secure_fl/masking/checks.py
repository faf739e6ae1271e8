# SPDX-License-Identifier: Apache-2.0
"""Checks that clients make on the aggregator, and commitments both sides recompute.

SPEC.md, section 6: each names whom it blames.
"""

from __future__ import annotations

from .. import wire
from ..errors import FaultyAggregator, FaultyClient, TooFewClients
from ..parallel import each
from . import shamir
from .messages import STATEMENT_LABEL, CohortKeys, Signatures, Statement
from .session import SPEC, Session

__all__ = [
    "check_agreements",
    "check_cohort",
    "check_omission",
    "need",
    "self_commitment",
    "share_commitment",
]


def share_commitment(
    session: Session, kind: str, dealer: int, to: int, share: bytes
) -> bytes:
    """Binds a dealer to one share.  A share is uniform, so its hash hides it."""
    return wire.digest(f"{SPEC} {kind} share", session.ctx, dealer, to, share)


def self_commitment(session: Session, dealer: int, beta: int) -> bytes:
    """Binds a dealer to the secret behind its self mask."""
    return wire.digest(f"{SPEC} self", session.ctx, dealer, shamir.to_bytes(beta))


def need(session: Session, alive: int) -> None:
    needed = session.parameters.needed
    if alive < needed:
        raise TooFewClients(alive, needed)


def check_cohort(session: Session, keys: CohortKeys) -> None:
    """SPEC 6.1: signatures, enough clients.

    Two clients may show one key: the copier cannot use it (boxes and pair masks name
    both ends), and refusing it would let a copier frame the owner.
    """
    rows = keys.announcements

    def holds(k: int) -> bool:
        a = rows[k]
        public = session.public_key(a.client)
        return wire.verify(public, a.signature, a.label(), *a.signed(session))

    for a, good in zip(rows, each(holds, len(rows)), strict=True):
        if not good:
            raise FaultyAggregator(
                f"the keys of {session.name(a.client)} are not signed by it"
            )
        if a.seal_key == a.mask_key:
            raise FaultyClient(session.name(a.client), "its two keys are one")
    need(session, len(keys.announcements))


def check_agreements(
    session: Session, statement: Statement, signatures: Signatures
) -> None:
    """SPEC 6.5: at least threshold survivors signed this very statement."""
    clients = set(statement.clients)
    rows = signatures.agreements
    signed = wire.Signed(STATEMENT_LABEL, *statement.signed(session))

    def holds(k: int) -> bool:
        return signed.by(session.public_key(rows[k].client), rows[k].signature)

    for agreement, good in zip(rows, each(holds, len(rows)), strict=True):
        if agreement.client not in clients:
            raise FaultyAggregator("a signature comes from outside the statement")
        if not good:
            raise FaultyAggregator(
                f"the signature of {session.name(agreement.client)} does not hold"
            )
    signers = len({agreement.client for agreement in rows})
    if signers < session.parameters.threshold:
        raise TooFewClients(signers, session.parameters.threshold)


def check_omission(
    session: Session, me: int, statement: Statement, signatures: Signatures
) -> None:
    """That context ``session`` can never open client ``me``'s vector (SPEC 7).

    Two sets of threshold signers share an honest client, and an honest client signs
    one statement per context: if threshold signed one without ``me``, none with ``me``
    will be.  Only then may the same update enter another context.  Raises
    FaultyAggregator or TooFewClients where that is not shown.
    """
    if me in statement.clients:
        raise FaultyAggregator("the statement holds our vector: it may be opened")
    check_agreements(session, statement, signatures)
