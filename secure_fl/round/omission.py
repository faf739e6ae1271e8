# SPDX-License-Identifier: Apache-2.0
"""Proof that an update which was sent is in no sum: it is as if it had not left."""

from __future__ import annotations

from collections.abc import Sequence

from .. import ckks, masking
from ..ckks import messages as sealed
from ..errors import FaultyAggregator, ProtocolError
from ..masking import messages
from ..plan import Plan, Session

__all__ = ["check_omission"]


def check_omission(
    plan: Plan, session: Session, name: str, proof: Sequence[bytes]
) -> None:
    """Raises ProtocolError unless ``proof`` holds, for the update of client ``name``.

    ``proof``: a statement that omits it, and the signatures over that (SPEC masking,
    7), or a key holder's refusal (SPEC ckks, 6.6).
    """
    if len(proof) != (1 if plan.has_keyholder else 2):
        raise ProtocolError("not a proof of this plan's protection")
    if isinstance(session, ckks.Session):
        if plan.has_keyholder:
            refusal = sealed.Refusal.decode(proof[0], session)
            if not ckks.is_refusal(session, refusal, holder=plan.keyholder_key):
                raise FaultyAggregator("the refusal is not the key holder's")
            return
        session = plan.key_session(session)
    masking.check_omission(
        session,
        session.roster.index(name),
        messages.Statement.decode(proof[0], session),
        messages.Signatures.decode(proof[1], session),
    )
