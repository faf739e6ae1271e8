# SPDX-License-Identifier: Apache-2.0
"""One round: plan, privacy and protection as one sans-IO object for each side.

An engine moves bytes between a :class:`Participant` per client and one
:class:`Aggregation` per attempt, and does nothing else:

    for p in participants: first messages = p.open(round, attempt, model)
    until aggregation.result: receive what came in, advance(), send outgoing
    p.handle(bytes) yields what goes back; p.conclude(...) ends the round

Where each message may meet another process, a :class:`ParkedParticipant` does the same
out of its keystore.

Neither side does IO, reads a clock or draws randomness of its own: ledger, keystore,
random source and clock are arguments.  The same objects serve the embedded engine and
one that crosses machines.
"""

from ..transcript import KEY_HOLDER
from .aggregation import Aggregation, OpenedUpdate
from .collecting import (
    Collecting,
    KeyholderCollecting,
    MaskingCollecting,
    OneTimeCollecting,
    PlainCollecting,
)
from .holder import ParkedKeyHolder, key_holder
from .parked import ParkedParticipant
from .participant import Participant
from .protections import (
    ClientProtection,
    KeyholderClient,
    MaskingClient,
    OneTimeClient,
    Outgoing,
    PlainClient,
    log_form,
)

__all__ = [
    "KEY_HOLDER",
    "Aggregation",
    "ClientProtection",
    "Collecting",
    "KeyholderClient",
    "KeyholderCollecting",
    "MaskingClient",
    "MaskingCollecting",
    "OneTimeClient",
    "OneTimeCollecting",
    "OpenedUpdate",
    "Outgoing",
    "ParkedKeyHolder",
    "ParkedParticipant",
    "Participant",
    "PlainClient",
    "PlainCollecting",
    "key_holder",
    "log_form",
]
