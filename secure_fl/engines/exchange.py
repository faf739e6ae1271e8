# SPDX-License-Identifier: Apache-2.0
"""One attempt: who says what to whom, in order, however clients are reached."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import SecureFLError, TooFewClients
from ..round import Aggregation, OpenedUpdate
from .clients import Take, Tell

__all__ = ["Dropout", "Link", "by_threads", "exchange"]


class Link(Protocol):
    """A client in this process: bytes in, bytes out as they come."""

    def handle(self, message: bytes) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class Dropout:
    """A client that left an attempt, at which step and why."""

    client: str
    step: str
    error: SecureFLError = field(repr=False)


def by_threads(links: Mapping[str, Link]) -> Tell:
    """Reach clients of this process, as many at once as there are cores."""

    def tell(messages: Mapping[str, bytes], take: Take) -> None:
        with ThreadPoolExecutor(min(len(links), os.cpu_count() or 1)) as pool:
            futures = [
                pool.submit(take, client, links[client].handle(message))
                for client, message in messages.items()
            ]
            for future in futures:
                future.result()

    return tell


def exchange(
    aggregation: Aggregation,
    tell: Tell,
    first: Mapping[str, Iterable[bytes]],
    *,
    dropouts: list[Dropout],
    log: Callable[[str, str, bytes], None],
    on_step: Callable[[str], None],
) -> OpenedUpdate:
    """Drive ``aggregation`` to its result over all clients that stay.

    ``first`` holds the messages with which clients open.  ``log(sender, receiver,
    message)`` is told of all that the aggregator accepted or sent; an empty name
    stands for it, or for all.  A client whose handler or message fails is added to
    ``dropouts`` and is out from then on; one that does not answer is missed by the step
    itself.  ``on_step`` runs before each step's messages are sent.  Raises
    TooFewClients; nothing was opened.
    """
    lock = threading.Lock()

    def take(client: str, pieces: Iterable[bytes]) -> None:
        try:
            for piece in pieces:
                with lock:
                    if aggregation.receive(client, piece):
                        log(client, "", piece)
        except SecureFLError as error:
            with lock:
                dropouts.append(Dropout(client, aggregation.step, error.bare()))
        finally:
            if isinstance(pieces, Generator):
                pieces.close()  # an upload that was refused is not kept half made

    for client, pieces in first.items():
        take(client, pieces)
    while True:
        if not aggregation.outgoing:
            aggregation.advance()
        if aggregation.result is not None:
            return aggregation.result
        on_step(aggregation.step)
        gone = {d.client for d in dropouts}
        sending = {c: m for c, m in aggregation.outgoing.items() if c not in gone}
        aggregation.outgoing = {}
        needed = aggregation.session.parameters.needed
        if aggregation.step == "vectors" and len(sending) < needed:
            # Before anyone's update is spent on a sum that cannot be opened.
            raise TooFewClients(len(sending), needed)
        for receiver, message in _by_content(sending):
            log("", receiver, message)
        tell(sending, take)


def _by_content(sending: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """One log line for a broadcast, one per receiver otherwise."""
    contents = set(sending.values())
    if len(contents) == 1 and len(sending) > 1:
        yield "", contents.pop()
    else:
        yield from sending.items()
