# SPDX-License-Identifier: Apache-2.0
"""One parcel to each of many nodes, and their replies: in waves, not all at once.

Flower's simulation engine looks, for every node in turn, at every message that has no
reply yet: with a thousand of them that takes longer than the answers do.  And a request
that has not left yet need not be in memory.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Final, final

from .clients import Carrier, Lost
from .requests import Parcel

__all__ = ["Waves"]

_SLOW: Final = 60.0  # seconds after which one holds no other back: it may never come


@final
class Waves:
    """What is asked of some nodes at once: each gets one parcel, and may answer it.

    At most ``most`` parcels are under way, but for those that are a minute old: nodes
    that are silent, or long at work, delay each later wave by no more than that.  With
    as many nodes as ``most``, or fewer, all are asked at once.
    """

    def __init__(
        self,
        carrier: Carrier,
        nodes: Iterable[int],
        parcel: Callable[[int], Parcel],
        *,
        group: str,
        most: int,
    ) -> None:
        """Sends nothing yet.  ``parcel`` makes a node's when it leaves, once."""
        self._carrier = carrier
        self._parcel = parcel
        self._group = group
        self._most = most
        self._unsent = deque(nodes)
        self._sent: dict[str, tuple[int, float]] = {}  # by ticket, the oldest first

    @property
    def left(self) -> list[int]:
        """The nodes that have not answered, asked or not."""
        return [*(node for node, _ in self._sent.values()), *self._unsent]

    @property
    def unasked(self) -> list[int]:
        """Those of them that no wave has reached."""
        return list(self._unsent)

    def answers(self, *, timeout: float) -> Iterator[tuple[int, Parcel | Lost]]:
        """Replies as they come, until all are there or ``timeout`` seconds are over.

        Whoever stops listening may call it again for the others; who does not, leaves
        some unasked.  Raises what the carrier does.
        """
        end = time.monotonic() + timeout
        while self._sent or self._unsent:
            now, until = time.monotonic(), end
            over = now >= end  # nobody is asked any more; what has come is given out
            if not over:
                self._send(now)
                if self._unsent:
                    until = min(end, self._next_wave())
            for ticket, answer in self._carrier.receive(
                list(self._sent), timeout=max(0.0, until - now)
            ):
                node, _ = self._sent.pop(ticket)
                yield node, answer
                now = time.monotonic()
                if self._unsent and now < end and self._may_send(now):
                    break
            else:
                if over:
                    return

    def _send(self, now: float) -> None:
        if not self._unsent or not self._may_send(now):
            return
        wave = min(len(self._unsent), self._most - self._under_way(now))
        nodes = [self._unsent.popleft() for _ in range(wave)]
        parcels = {node: self._parcel(node) for node in nodes}
        tickets = self._carrier.send(parcels, group=self._group)
        self._sent |= {tickets[node]: (node, now) for node in nodes}

    def _may_send(self, now: float) -> bool:
        """A wave is half of what may be under way: a look for replies costs the same,
        for one or many."""
        return self._under_way(now) <= self._most // 2

    def _under_way(self, now: float) -> int:
        return sum(now - when < _SLOW for _, when in self._sent.values())

    def _next_wave(self) -> float:
        """When one may leave, if nobody answers."""
        _, when = list(self._sent.values())[-1 - self._most // 2]
        return when + _SLOW
