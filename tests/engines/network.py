# SPDX-License-Identifier: Apache-2.0
"""A carrier in this process, over members with real homes, that fails on demand."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, final

from secure_fl.engines.aggregator import aggregate
from secure_fl.engines.clients import Carrier, Lost
from secure_fl.engines.requests import Action, Hello, Parcel, Request
from secure_fl.engines.result import Run

from .banks import MODEL, Banks

# Given who is asked to do what, and how often anything was sent before.
Fault = Callable[[str, tuple[Action, ...], int], str]


@final
class Network:
    """Each parcel meets a new process of its member, when its reply is fetched.

    ``fault`` says what becomes of a parcel: "" (it arrives), "lost" (it does not),
    "silent" (it does, and the reply is lost), "forged" (one bit of the reply's body is
    another), "crash" (the aggregator dies before any parcel of this exchange has left).
    """

    def __init__(
        self, banks: Banks, fault: Fault = lambda name, actions, sent: ""
    ) -> None:
        self.banks = banks
        self.fault = fault
        self.away: set[str] = set()
        self.extra: dict[int, str] = {}  # nodes beside everybody's own
        self.mute: set[int] = set()  # nodes whose replies are lost
        self.asked: list[int] = []  # nodes that were sent something last, in order
        self.exchanges = 0
        self.most_under_way = 0  # parcels whose reply nobody had fetched
        self._waiting: dict[str, tuple[int, Parcel, str]] = {}

    @property
    def _names(self) -> dict[int, str]:
        return {node: name for name, node in self.banks.nodes.items()} | self.extra

    def nodes(self) -> Sequence[int]:
        return [n for n, name in self._names.items() if name not in self.away]

    def send(self, parcels: Mapping[int, Parcel], *, group: str) -> Mapping[int, str]:
        tickets = {}
        fates = {}
        self.asked = list(parcels)
        for node, parcel in parcels.items():
            name = self._names[node]
            request, _ = Request.of(parcel)
            greeting = all(isinstance(a, Hello) for a in request.actions)
            fates[node] = (
                "" if greeting else self.fault(name, request.actions, self.exchanges)
            )
        if "crash" in fates.values():
            raise KeyboardInterrupt
        for node, parcel in parcels.items():
            ticket = f"{self.exchanges}-{node}"
            tickets[node] = ticket
            self._waiting[ticket] = (node, parcel, fates[node])
        self.exchanges += 1
        self.most_under_way = max(self.most_under_way, len(self._waiting))
        return tickets

    def receive(
        self, tickets: Collection[str], *, timeout: float
    ) -> Iterator[tuple[str, Parcel | Lost]]:
        for ticket in sorted(tickets):
            node, parcel, fate = self._waiting.pop(ticket)
            name = self._names[node]
            if fate == "lost" or name in self.away or node in self.mute:
                yield ticket, Lost("the line is dead")
                continue
            answer = self.banks.member(name).handle(parcel, node=node)
            if fate == "forged":
                body = b"".join(answer.body)
                yield ticket, Parcel(answer.head, (body[:-1] + bytes([body[-1] ^ 1]),))
            else:
                yield ticket, Lost("the line is dead") if fate == "silent" else answer


def go(banks: Banks, network: Carrier, *, patience: float = 60.0, **more: Any) -> Run:
    """Begin the run of ``banks``, or go on with it, in their folder."""
    return aggregate(
        banks.plan,
        banks.aggregator,
        network,
        out=banks.folder / "out",
        state=banks.folder / "state",
        model=MODEL,
        patience=patience,
        **more,
    )
