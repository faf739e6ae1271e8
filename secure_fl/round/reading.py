# SPDX-License-Identifier: Apache-2.0
"""What a member makes sure of in the log before it signs its head."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from ..errors import FaultyAggregator, ProtocolError
from ..transcript import Entry, check_extension, read_entries

__all__ = ["Sent", "next_head"]

# A message of ours: its round, attempt and kind, and how it has to stand in the log.
Sent = tuple[tuple[int, int, int], bytes]

_MAY_BE_LATE: Final = (8, 10)  # agreements and reveals: threshold of them are enough


def next_head(
    entries: Sequence[Entry],
    entry: Entry,
    *,
    head: bytes,
    member: str,
    sent: Sequence[Sent],
) -> bytes:
    """The hash of ``entry``, for ``member`` to sign, which signed ``head`` last.

    entries
        the log, or its end: from behind ``head``, or from before
    sent
        our messages since then

    Raises FaultyAggregator where the log does not continue ``head`` or end with
    ``entry``, and where it does not hold our messages exactly as we sent them.  One of
    an attempt that was not opened with us may be missing, and so may an agreement or a
    reveal: it may have been late, and the sum was opened without it.
    """
    heads = [e.hash for e in entries]
    begin = heads.index(head) + 1 if head in heads else 0
    since = _as_signed(entries[begin:], until=entry)
    opened = {
        (e.integer(0), e.integer(1))
        for e in since
        if e.kind == "round" and member in e.rows(3)
    }
    found = check_extension(
        since,
        head=head,
        member=member,
        sent=[form for _, form in sent],
        may_miss={
            form
            for (*place, kind), form in sent
            if tuple(place) not in opened or kind in _MAY_BE_LATE
        },
    )
    if not since or found != entry.hash:
        raise FaultyAggregator("the entry is not the one that this log ends with")
    return found


def _as_signed(entries: Sequence[Entry], *, until: Entry) -> list[Entry]:
    """A log up to ``until``, made again from its bytes: they are what is signed."""
    data = [e.data for e in entries if e.sequence <= until.sequence]
    try:
        return read_entries(data, first=entries[0].sequence if entries else 0)
    except ProtocolError as error:
        raise FaultyAggregator(error.message) from None
