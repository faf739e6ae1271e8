# SPDX-License-Identifier: Apache-2.0
"""One attempt between parties in one process: who says what to whom, in order."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Protocol

from ..errors import SecureFLError, TooFewClients
from ..round import Aggregation, OpenedUpdate

__all__ = ["Dropout", "Link", "exchange"]


class Link(Protocol):
    """A client as the engine reaches it: bytes in, bytes out as they come."""

    def handle(self, message: bytes) -> Iterator[bytes]: ...


@dataclass(frozen=True)
class Dropout:
    """A client that left an attempt, at which step and why."""

    client: str
    step: str
    error: SecureFLError = field(repr=False)


def exchange(
    aggregation: Aggregation,
    links: Mapping[str, Link],
    first: Mapping[str, Iterable[bytes]],
    *,
    dropouts: list[Dropout],
    log: Callable[[str, str, bytes], None],
    on_step: Callable[[str], None],
) -> OpenedUpdate:
    """Drive ``aggregation`` to its result over all of ``links`` that stay.

    ``first`` holds the messages with which clients open.  ``log(sender, receiver,
    message)`` is told of all that the aggregator accepted or sent; an empty name
    stands for it, or for all.  A client whose handler or message fails is added to
    ``dropouts`` and is out from then on.  ``on_step`` runs before each step's messages
    are sent.  Raises TooFewClients; nothing was opened.
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
    with ThreadPoolExecutor(min(len(links), os.cpu_count() or 1)) as pool:
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
            futures = [
                pool.submit(take, client, links[client].handle(message))
                for client, message in sending.items()
            ]
            for future in futures:
                future.result()


def _by_content(sending: Mapping[str, bytes]) -> Iterator[tuple[str, bytes]]:
    """One log line for a broadcast, one per receiver otherwise."""
    contents = set(sending.values())
    if len(contents) == 1 and len(sending) > 1:
        yield "", contents.pop()
    else:
        yield from sending.items()
