# SPDX-License-Identifier: Apache-2.0
"""CKKS in which nobody holds the key, sans IO (protocols/ckks/SPEC.md).

It knows nothing of masking.  With one-time keys an :class:`Encryption` gives
ciphertexts and a key vector, and the caller hands the key vector to masking;
:class:`Ciphertexts` and :func:`open_sum` do the rest.  With a key holder this package
has every role.
"""

from .aggregator import (
    Ciphertexts,
    CollectHolderKey,
    CollectInputs,
    CollectRelease,
    Ready,
)
from .backend import backend_version, require_backend
from .client import Upload, accept, is_refusal
from .encryption import Encryption, open_sum
from .holder import KeyHolder, Record
from .rings import MOST_COEFFICIENTS, Packing, choose_packing
from .session import SPEC, Keys, Parameters, Session, key_bits

__all__ = [
    "MOST_COEFFICIENTS",
    "SPEC",
    "Ciphertexts",
    "CollectHolderKey",
    "CollectInputs",
    "CollectRelease",
    "Encryption",
    "KeyHolder",
    "Keys",
    "Packing",
    "Parameters",
    "Ready",
    "Record",
    "Session",
    "Upload",
    "accept",
    "backend_version",
    "choose_packing",
    "is_refusal",
    "key_bits",
    "open_sum",
    "require_backend",
]
