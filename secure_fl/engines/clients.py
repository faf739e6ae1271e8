# SPDX-License-Identifier: Apache-2.0
"""The members of a run as its engine reaches them: one port, near and far."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, final

from ..errors import SecureFLError
from ..model import GlobalModel
from ..transcript import Entry
from .requests import Parcel

__all__ = ["Carrier", "Clients", "Lost", "Take", "Tell"]

# Takes what one client answers, as it comes; iterating may raise a SecureFLError, and
# what it raises is the reason why that client has left the attempt.
Take = Callable[[str, Iterable[bytes]], None]
# Passes each client (or the key holder) its message, and its answer to a Take.
Tell = Callable[[Mapping[str, bytes], Take], None]


class Clients(Protocol):
    """What an engine asks of all members of one run, in this order.

    Methods that yield or give names leave out who did not answer, or say why.
    """

    def begin(
        self, endorsements: Callable[[Mapping[str, bytes]], Sequence[Entry]]
    ) -> None:
        """Collect every member's endorsement, and show all to all.

        ``endorsements`` checks them and gives the log's first entries.  Raises
        EngineError where a member is not there.
        """

    def resume(self, entries: Sequence[Entry]) -> None:
        """Go on, in a new process, with a run whose log so far is ``entries``."""

    def open(
        self, round_index: int, attempt: int, model: GlobalModel, names: Collection[str]
    ) -> Iterator[tuple[str, Sequence[bytes] | SecureFLError]]:
        """Start an attempt with ``names``: the first messages of each, or why not."""

    def train(
        self,
        round_index: int,
        attempt: int,
        model: GlobalModel,
        names: Collection[str],
        *,
        begins: Callable[[str], None],
    ) -> Iterator[tuple[str, SecureFLError]]:
        """Have an update made where one is needed: yields who cannot, and why.

        ``begins`` hears of each client whose turn it is.  One that is far away may
        train only before its next answer, and fail there.
        """

    def tell(self, messages: Mapping[str, bytes], take: Take) -> None:
        """A :data:`Tell`; ends when all have answered, or are given up."""

    def release(self, proof: Sequence[bytes]) -> None:
        """Free updates that no sum of the attempt can hold any more."""

    def countersign(
        self, names: Collection[str], entries: Sequence[Entry], entry: Entry
    ) -> Mapping[str, bytes]:
        """Signatures over ``entry`` of the log ``entries``, of those who sign now."""

    def conclude(self, round_index: int, survivors: Collection[str]) -> None:
        """The round is over for everybody; it is recorded, durably, by now."""

    def export(self) -> Mapping[str, bytes]:
        """The signed ledger of every member."""


@final
@dataclass(frozen=True)
class Lost:
    """No reply, and none to be expected: the network's reason."""

    reason: str


class Carrier(Protocol):
    """A network of numbered nodes that answers each parcel with one parcel.

    It proves nothing about who is behind a number, and may lose, delay, repeat or
    reorder what it carries.
    """

    def nodes(self) -> Sequence[int]:
        """The nodes that are there now."""

    def send(self, parcels: Mapping[int, Parcel], *, group: str) -> Mapping[int, str]:
        """Send one parcel to each node; gives a ticket per node for its reply.

        ``group`` names the round for whoever looks at the network's own logs.
        """

    def receive(
        self, tickets: Collection[str], *, timeout: float
    ) -> Iterator[tuple[str, Parcel | Lost]]:
        """Replies as they come, until all are there or ``timeout`` seconds are over."""
