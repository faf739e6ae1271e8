# SPDX-License-Identifier: Apache-2.0
"""No protection at all: the aggregator reads every vector.  For simulations only.

The same words, chunks and signed roots as in ``masking``, so that a comparison changes
one line of the plan and opens bit-identical sums.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final, final

from numpy.typing import NDArray

from . import wire
from .errors import FaultyClient, StateReused, TooFewClients, UsageError
from .fixedpoint import Word, pack
from .identity import Identity
from .masking import Opened, Session
from .masking.messages import INPUT_LABEL, Chunk, MaskedInput
from .masking.vectors import Vectors, chunk_tree

__all__ = ["CollectPlain", "upload"]

# What stands for the hashes of a cohort and of dealers, where there are none.
_NONE: Final = bytes(32)


def upload(
    session: Session, identity: Identity, words: NDArray[Word], *, claim: bytes
) -> Iterator[Chunk | MaskedInput]:
    """A client's whole part: every chunk in clear, then their signed root."""
    p = session.parameters
    if words.shape != (p.length,):
        raise UsageError(f"a vector of {p.length} words was expected")
    me = session.roster.index(identity.name)
    tree = chunk_tree()
    for index in range(p.chunks):
        begin, end = p.chunk_range(index)
        data = pack(words[begin:end], p.word_bits)
        tree.add(tree.leaf(data))
        yield Chunk(me, index, data)
    unsigned = MaskedInput(me, tree.root(), _NONE, claim, b"", b"")
    signature = identity.sign(INPUT_LABEL, *unsigned.signed(session, _NONE))
    yield MaskedInput(me, tree.root(), _NONE, claim, b"", signature)


@final
class CollectPlain:
    """The aggregator's whole part: add what comes, check each root, sum."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self._vectors = Vectors(session, range(len(session.roster)))
        self._got: set[int] = set()
        self._closed = False

    def _first(self, sender: int, claimed: int) -> None:
        if self._closed:
            raise StateReused("CollectPlain is closed")
        if claimed != sender or sender in self._got:
            raise FaultyClient(
                self._session.name(sender), "speaks twice, or in another's name"
            )

    def add_chunk(self, sender: int, message: Chunk) -> None:
        self._first(sender, message.client)
        self._vectors.add(sender, message.index, message.words)

    def add(self, sender: int, message: MaskedInput) -> None:
        self._first(sender, message.client)
        public = self._session.public_key(sender)
        signed = message.signed(self._session, _NONE)
        if not wire.verify(public, message.signature, INPUT_LABEL, *signed):
            raise FaultyClient(
                self._session.name(sender), "its vector is not signed by it"
            )
        self._vectors.join(sender, message.root)
        self._got.add(sender)

    def close(self) -> Opened:
        """The sum over all whose vector is complete."""
        if self._closed:
            raise StateReused("CollectPlain is closed")
        self._closed = True
        if len(self._got) < self._session.parameters.needed:
            raise TooFewClients(len(self._got), self._session.parameters.needed)
        clients = tuple(sorted(self._got))
        return Opened(self._vectors.total(), clients)
