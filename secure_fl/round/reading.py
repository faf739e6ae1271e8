# SPDX-License-Identifier: Apache-2.0
"""What a member makes sure of in the log before it signs its head."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Final, NamedTuple

from ..errors import FaultyAggregator, ProtocolError
from ..transcript import Entry, check_extension, read_entries

__all__ = ["Said", "next_head"]

_MAY_BE_LATE: Final = (8, 10)  # agreements and reveals: threshold of them are enough


class Said(NamedTuple):
    """A message of ours: its place, its kind, and the hash that the log has of it."""

    round_index: int
    attempt: int
    kind: int
    hash: bytes

    @property
    def sent(self) -> tuple[int, int, bytes]:
        return self.round_index, self.attempt, self.hash


def next_head(
    entries: Sequence[Entry],
    entry: Entry,
    *,
    head: bytes,
    member: str,
    said: Sequence[Said],
    left: Callable[[], Collection[bytes]],
) -> tuple[bytes, list[Said]]:
    """The hash of ``entry``, for ``member`` to sign, and what it has to remember then.

    entries
        the log, or its end: from behind ``head``, which it signed last, or from before
    said
        our messages that no log we signed has, in order
    left
        gives the contexts for which an update of ours has left; called where the log
        has a round with us

    Raises FaultyAggregator where the log does not continue ``head`` or end with
    ``entry``, and where it does not hold our messages exactly as we sent them.  One of
    an attempt that was not opened with us may be missing, and so may an agreement or a
    reveal: it may have been late, and the sum was opened without it.  And where a
    round has us in a sum that we gave nothing to.

    What is missing is to be remembered until its round is over in the log: this one may
    have been cut in the middle of an attempt, which is opened with us in the next.  No
    verifier takes a log that goes back to a round.
    """
    heads = [e.hash for e in entries]
    begin = heads.index(head) + 1 if head in heads else 0
    since = _as_signed(entries[begin:], until=entry)
    with_us = [e for e in since if e.kind == "round" and member in e.rows(3)]
    if with_us and not {e.bytes_(2) for e in with_us} <= set(left()):
        raise FaultyAggregator("the log has us in a sum that we gave nothing to")
    opened = {(e.integer(0), e.integer(1)) for e in with_us}
    found = check_extension(
        since,
        head=head,
        member=member,
        sent=[m.sent for m in said],
        may_miss={
            m.sent
            for m in said
            if (m.round_index, m.attempt) not in opened or m.kind in _MAY_BE_LATE
        },
    )
    if not since or found != entry.hash:
        raise FaultyAggregator("the entry is not the one that this log ends with")
    logged = {
        (e.integer(0), e.integer(1), e.bytes_(4))
        for e in since
        if e.kind == "message" and e.text(2) == member
    }
    going = _round_going_on(since)
    return found, [m for m in said if m.sent not in logged and m.round_index >= going]


def _round_going_on(entries: Sequence[Entry]) -> int:
    """The first round that is not over in this piece of a log."""
    places = [e for e in entries if e.kind in ("message", "failure", "round")]
    return max((e.integer(0) + (e.kind == "round") for e in places), default=0)


def _as_signed(entries: Sequence[Entry], *, until: Entry) -> list[Entry]:
    """A log up to ``until``, made again from its bytes: they are what is signed."""
    data = [e.data for e in entries if e.sequence <= until.sequence]
    try:
        return read_entries(data, first=entries[0].sequence if entries else 0)
    except ProtocolError as error:
        raise FaultyAggregator(error.message) from None
