# SPDX-License-Identifier: Apache-2.0
"""A parcel as Flower's records: its head in a ConfigRecord, its body as Arrays.

Flower sends an Array in chunks of its own, so a body may have any size; a ConfigRecord
goes in one piece, and a head is small.  Every Array costs Flower a few hundredths of a
second, so one holds several parts of a body.  There are two records and no other: a
message with one more, or one less, is refused.
"""

from __future__ import annotations

from typing import Final

from flwr.app import Array, ArrayRecord, ConfigRecord, RecordDict

from ...errors import ProtocolError
from ..requests import SPEC, Parcel

__all__ = ["from_records", "is_parcel", "to_records"]

_BODY: Final = f"{SPEC} body"
_HEAD: Final = "head"
_BYTES: Final = "secure-fl.bytes"  # not an array's own bytes: Flower shall not read it
_PARTS: Final = 16  # of a body in one Array: 64 MiB


def to_records(parcel: Parcel) -> RecordDict:
    """The content of the Flower message that carries ``parcel``."""
    arrays = {}
    for place, first in enumerate(range(0, len(parcel.body), _PARTS)):
        data = b"".join(parcel.body[first : first + _PARTS])
        arrays[str(place)] = Array(
            dtype="uint8", shape=(len(data),), stype=_BYTES, data=data
        )
    return RecordDict(
        {SPEC: ConfigRecord({_HEAD: parcel.head}), _BODY: ArrayRecord(arrays)}
    )


def is_parcel(records: RecordDict) -> bool:
    """Whether a content says that it is one of ours; it may still be malformed."""
    return SPEC in records


def from_records(records: RecordDict) -> Parcel:
    """The parcel that :func:`to_records` was given, its body in larger parts.

    Raises ProtocolError for any other content.
    """
    if set(records) != {SPEC, _BODY}:
        raise ProtocolError(f"the records of a message are not those of {SPEC}")
    head, body = records[SPEC], records[_BODY]
    if not isinstance(head, ConfigRecord) or not isinstance(body, ArrayRecord):
        raise ProtocolError("a record of a message has another type")
    if set(head) != {_HEAD} or not isinstance(head[_HEAD], bytes):
        raise ProtocolError("a message has no head, or more than a head")
    if set(body) != {str(place) for place in range(len(body))}:
        raise ProtocolError("the parts of a body are not numbered from 0")
    return Parcel(
        head[_HEAD], tuple(_part(body[str(place)]) for place in range(len(body)))
    )


def _part(array: Array) -> bytes:
    given = array.dtype, tuple(array.shape), array.stype
    if given != ("uint8", (len(array.data),), _BYTES) or not array.data:
        raise ProtocolError("a part of a body is not bytes")
    return array.data
