# SPDX-License-Identifier: Apache-2.0
"""Flower's Grid as a carrier of parcels.

Every parcel is a train message, so that one mod on a user's app sees them all: Flower
wraps the functions that an app has registered, and that one is always there.
"""

from __future__ import annotations

import contextlib
import itertools
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Final, final

from flwr.app import DEFAULT_TTL, Message, MessageType
from flwr.serverapp import Grid

from ...errors import EngineError, ProtocolError
from ..clients import Lost
from ..requests import Parcel, printable
from .records import from_records, to_records

__all__ = ["GridCarrier"]

_SOON: Final = 0.1  # seconds between two looks for replies, at first
_LATER: Final = 1.0
_AT_ONCE: Final = 4  # replies pulled in one call: each may be a whole model
_MOST_REASON: Final = 200


@final
class GridCarrier:
    """A :class:`~secure_fl.engines.clients.Carrier` over Flower's public Grid API."""

    def __init__(self, grid: Grid, *, ttl: float = DEFAULT_TTL) -> None:
        """``ttl``: seconds after which the SuperLink forgets a message and its reply.

        It is long, for clocks differ (a SuperLink lets in a node that is up to 5 s
        ahead or 5 minutes behind), and how long to wait is for :meth:`receive` to say.
        """
        self._grid = grid
        self._ttl = ttl
        self._refused: set[str] = set()
        # Pulled, which a SuperLink lets nobody do twice, and not yet given out: who
        # takes replies may stop at any, and come back for the others.
        self._came: dict[str, Message] = {}
        self._numbers = itertools.count()

    def nodes(self) -> Sequence[int]:
        """The SuperNodes that are up.  Raises EngineError without a SuperLink."""
        with _superlink():
            return tuple(self._grid.get_node_ids())

    def send(self, parcels: Mapping[int, Parcel], *, group: str) -> Mapping[int, str]:
        """One message at a time, whatever its size: a ticket for each node.

        Raises EngineError without a SuperLink.  What it does not take is a ticket that
        :meth:`receive` says is lost.
        """
        return {
            node: self._push(node, parcel, group) for node, parcel in parcels.items()
        }

    def _push(self, node: int, parcel: Parcel, group: str) -> str:
        message = Message(
            to_records(parcel), node, MessageType.TRAIN, ttl=self._ttl, group_id=group
        )
        with _superlink():
            tickets = list(self._grid.push_messages([message]))
        if len(tickets) == 1 and tickets[0]:  # Flower gives None for one it refused
            return tickets[0]
        ticket = f"refused {next(self._numbers)}"
        self._refused.add(ticket)
        return ticket

    def receive(
        self, tickets: Collection[str], *, timeout: float
    ) -> Iterator[tuple[str, Parcel | Lost]]:
        """Replies to ``tickets`` as they come, each once; others are passed over.

        Raises EngineError without a SuperLink.
        """
        waiting = set(tickets)
        for ticket in waiting & self._refused:
            waiting.discard(ticket)
            yield ticket, Lost("the SuperLink did not take the message")
        end, pause = time.monotonic() + timeout, _SOON
        while waiting:
            for ticket in self._pull(waiting):
                waiting.discard(ticket)
                pause = _SOON
                yield ticket, _answer(self._came.pop(ticket))
            left = end - time.monotonic()
            if not waiting or left <= 0:
                return
            time.sleep(min(pause, left))
            pause = min(1.5 * pause, _LATER)

    def _pull(self, waiting: Collection[str]) -> Iterator[str]:
        """The tickets in ``waiting`` whose reply has come."""
        asked = sorted(waiting)
        for first in range(0, len(asked), _AT_ONCE):
            some = asked[first : first + _AT_ONCE]
            if missing := [ticket for ticket in some if ticket not in self._came]:
                with _superlink():
                    for message in self._grid.pull_messages(missing):
                        ticket = message.metadata.reply_to_message_id
                        if ticket in missing:
                            self._came.setdefault(ticket, message)
            yield from (ticket for ticket in some if ticket in self._came)


def _answer(message: Message) -> Parcel | Lost:
    if message.has_error():
        reason = message.error.reason or "no reason was given"
        return Lost(printable(reason, _MOST_REASON))
    try:
        return from_records(message.content)
    except ProtocolError as error:
        return Lost(f"the reply cannot be read: {error}")


@contextlib.contextmanager
def _superlink() -> Iterator[None]:
    """What a Grid raises once it has given up asking its SuperLink."""
    try:
        yield
    except Exception as error:
        raise EngineError(
            f"the SuperLink cannot be reached ({type(error).__name__})",
            hint="start it again, and the run: it goes on where it was",
        ) from error
