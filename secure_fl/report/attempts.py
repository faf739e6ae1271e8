# SPDX-License-Identifier: Apache-2.0
"""One logged attempt, checked message by message.

The aggregator logs what it accepted and what it sent, so every message here had to be
right when it was taken: signed by its sender, in order, once.  What is common to all
protections stands here; what a message of one says is checked by its :class:`Reader`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NoReturn, Protocol, final

from ..context import kind_of
from ..errors import ProtocolError
from ..plan import Session
from ..transcript import Entry, Transcript

__all__ = ["NOBODY", "Attempt", "Input", "Reader", "read_attempt", "refuse"]

NOBODY: Final = frozenset({""})


@final
@dataclass(frozen=True, slots=True)
class Input:
    """A vector that arrived: whose, and the ledger entry it claims to stand under."""

    client: str
    claim: bytes


@final
@dataclass(frozen=True, slots=True)
class Attempt:
    """What an attempt's messages show.  ``inputs`` are in roster order.

    ``omitted``: whose update no sum of this context can ever hold, by what others
    signed (protocols/masking/SPEC.md, section 7; protocols/ckks/SPEC.md, 6.6).
    ``keys_released``: whether a key holder gave out the sum of its keys.
    ``culprits``: whom a failure may name (an empty name: nobody).
    ``at_opening``: whether all was there that its sum is opened from: a client that is
    named then is out for the rest of the run.
    """

    session: Session
    inputs: tuple[Input, ...]
    opened: bool
    omitted: frozenset[str]
    keys_released: bool
    culprits: frozenset[str]
    at_opening: bool


class Reader(Protocol):
    """The port of a protection: takes the messages of one attempt in order.

    Each method raises ProtocolError for what cannot have been accepted.
    """

    @property
    def session(self) -> Session:
        """The context of the attempt, as clients write it into their ledgers."""

    @property
    def withheld(self) -> int | None:
        """The kind of message that is logged as a hash, where there is one."""

    @property
    def guest(self) -> str:
        """Who takes part beside members and aggregator, or empty."""

    def take(self, kind: int, sender: str, receiver: str, data: bytes) -> None:
        """Check one message.  An empty sender is the aggregator.

        ``data`` is empty where the message is withheld.
        """

    def finish(self) -> None:
        """Check that nothing is missing of an attempt whose sum was opened."""

    def claims(self) -> dict[int, bytes]:
        """The claim of every vector that arrived, by its client's number."""

    def omitted(self) -> frozenset[str]: ...

    def culprits(self) -> frozenset[str]: ...

    @property
    def keys_released(self) -> bool: ...

    @property
    def at_opening(self) -> bool: ...


def refuse(message: str) -> NoReturn:
    raise ProtocolError(message)


def read_attempt(
    reader: Reader, entries: Sequence[Entry], transcript: Transcript, *, opened: bool
) -> Attempt:
    """Check all messages of one attempt; of an ``opened`` one, that it was complete.

    ``entries`` are those of its messages, which ``transcript`` has.  Raises
    ProtocolError for the first message that cannot have been accepted.
    """
    order = _Order(reader, transcript)
    for entry in entries:
        order.take(entry)
    if opened:
        reader.finish()
    session, claims = reader.session, reader.claims()
    return Attempt(
        session,
        tuple(Input(session.name(i), claims[i]) for i in sorted(claims)),
        opened,
        reader.omitted(),
        reader.keys_released,
        reader.culprits(),
        reader.at_opening,
    )


@final
class _Order:
    """Who speaks to whom, in which order, and how often: alike for all protections."""

    def __init__(self, reader: Reader, transcript: Transcript) -> None:
        self._reader = reader
        self._transcript = transcript
        self._members = {m.name for m in reader.session.roster.members}
        self._last = 0
        self._seen: set[tuple[int, str]] = set()

    def take(self, entry: Entry) -> None:
        sender, receiver = entry.text(2), entry.text(3)
        known = {"", self._reader.guest, *self._members}
        if sender not in known:
            refuse(f"a message of {sender[:40]!r}, who is not a member")
        if receiver not in known:
            refuse(f"a message to {receiver[:40]!r}, who is not a member")
        kind, data = self._kind(entry)
        if kind < self._last:
            refuse("the messages are out of order")
        self._last = kind
        # A client sends each kind once; what the aggregator sends is one per receiver.
        if (kind, sender or f"to {receiver}") in self._seen:
            refuse(f"{sender or 'the aggregator'} sent a message twice")
        self._seen.add((kind, sender or f"to {receiver}"))
        self._reader.take(kind, sender, receiver, data)

    def _kind(self, entry: Entry) -> tuple[int, bytes]:
        """The message's kind and bytes, of which there are none if it is withheld."""
        withheld = self._reader.withheld
        if not entry.has_message:
            if withheld is None:
                refuse("a message is withheld, and none may be")
            return withheld, b""
        data = self._transcript.message(entry)
        kind = kind_of(data)
        if kind == withheld:
            refuse("a message stands whole that is withheld")
        return kind, data
