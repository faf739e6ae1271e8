# SPDX-License-Identifier: Apache-2.0
"""What a malicious client can sign: any keys, any shares, under its own identity."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from secure_fl.masking import crypto, messages, shamir
from secure_fl.masking.checks import self_commitment, share_commitment
from secure_fl.masking.messages import (
    Advertise,
    KeyAnnouncement,
    SealedShare,
    SealedShares,
)

from ..consortium import Consortium, field_of, sign_shares

LIAR = 1
# A liar's message, from the consortium so far and the honest message.
Lie = Callable[[Consortium, bytes], bytes]


def key_of(data: bytes, field: int) -> bytes:
    """A field of a message that holds bytes."""
    value = field_of(data, field)
    assert isinstance(value, bytes)
    return value


def announce(
    consortium: Consortium, client: int, seal_key: bytes, mask_key: bytes
) -> bytes:
    """A client's announcement of any keys, duly signed by it."""
    session = consortium.session
    bare = KeyAnnouncement(client, seal_key, mask_key, b"")
    signature = consortium.names[client].sign(bare.label(), *bare.signed(session))
    return Advertise(dataclasses.replace(bare, signature=signature)).encode(session)


def deal(
    c: Consortium,
    *,
    beta: int | None = None,
    z: int | None = None,
    sealed: Callable[[int, bytes], bytes] = lambda to, plain: plain,
    committed: Callable[[int, bytes], bytes] = lambda to, share: share,
) -> bytes:
    """The liar's step 2 over secrets of its choice, signed and committed to.

    ``sealed`` changes what is put into a box, ``committed`` what both sides hold.
    """
    session = c.session
    honest = c.secrets(LIAR)
    beta, z = honest[0] if beta is None else beta, honest[1] if z is None else z
    cohort = messages.cohort_hash(session, c.cohort)
    xs = [a.client + 1 for a in c.cohort.announcements]
    degree = session.parameters.threshold - 1
    coefficients = crypto.elements(
        b"k" * 32, "coefficients", 2 * degree, ctx=session.ctx
    )
    # The liar keeps revealing the shares that its own state holds.
    own = crypto.elements(c.deals[LIAR], "coefficients", 2 * degree, ctx=session.ctx)
    rows = []
    for a, x in zip(c.cohort.announcements, xs, strict=True):
        mine = a.client == LIAR
        used = own if mine else coefficients
        secrets = honest if mine else (beta, z)
        pair = [
            committed(a.client, shamir.to_bytes(shamir.share(secret, part, [x])[0]))
            for secret, part in zip(
                secrets, (used[:degree], used[degree:]), strict=True
            )
        ]
        box = b""
        if not mine:
            box = crypto.seal(
                sealed(a.client, pair[0] + pair[1]),
                a.seal_key,
                info=[session.ctx, cohort, LIAR, a.client],
            )
        rows.append(
            SealedShare(
                a.client,
                box,
                share_commitment(session, "self", LIAR, a.client, pair[0]),
                share_commitment(session, "key", LIAR, a.client, pair[1]),
            )
        )
    commitment = self_commitment(session, LIAR, honest[0])
    return sign_shares(c, SealedShares(LIAR, commitment, tuple(rows), b""))
