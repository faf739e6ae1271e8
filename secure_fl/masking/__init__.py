# SPDX-License-Identifier: Apache-2.0
"""Secure masking: an aggregator sums vectors it cannot read.

Bonawitz et al. 2017 in its malicious variant, on the complete graph, with ephemeral
keys per context.  ``protocols/masking/SPEC.md`` is the authority; this package is one
implementation of it, without IO, clock or randomness of its own.
"""

from . import messages
from .aggregator import (
    CollectAdvertise,
    CollectAgreements,
    CollectInputs,
    CollectReveals,
    CollectShares,
    Opened,
)
from .checks import check_omission
from .client import (
    AwaitCohort,
    AwaitInbox,
    AwaitSignatures,
    AwaitStatement,
    Parked,
    Uploading,
    start,
    unpark,
)
from .session import (
    SPEC,
    Parameters,
    Session,
    default_threshold,
    smallest_threshold,
)

__all__ = [
    "SPEC",
    "AwaitCohort",
    "AwaitInbox",
    "AwaitSignatures",
    "AwaitStatement",
    "CollectAdvertise",
    "CollectAgreements",
    "CollectInputs",
    "CollectReveals",
    "CollectShares",
    "Opened",
    "Parameters",
    "Parked",
    "Session",
    "Uploading",
    "check_omission",
    "default_threshold",
    "messages",
    "smallest_threshold",
    "start",
    "unpark",
]
