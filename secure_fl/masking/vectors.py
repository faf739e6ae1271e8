# SPDX-License-Identifier: Apache-2.0
"""Vectors on their way into one sum.

What is in a sum cannot be taken out again.  So an upload under way is held aside, and
joins the sum when its client's signed root vouches for every chunk; from then on its
chunks are let go.  How many uploads are under way at a time is up to the engine.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import final

import numpy as np
from numpy.typing import NDArray

from .. import wire
from ..errors import FaultyClient
from ..fixedpoint import Word, check_packed, unpack, word_dtype
from ..parallel import each
from .session import SPEC, Session

__all__ = ["Vectors", "chunk_tree"]


def chunk_tree() -> wire.ChunkTree:
    """An empty tree over a vector's chunks (SPEC 5.5)."""
    return wire.ChunkTree(f"{SPEC} chunks")


@final
class Vectors:
    """One running sum, and beside it the chunks of the uploads under way."""

    def __init__(self, session: Session, clients: Iterable[int]) -> None:
        self._session = session
        self._pending: dict[int, list[bytes | memoryview]] = {i: [] for i in clients}
        p = session.parameters
        self._total = np.zeros(p.length, word_dtype(p.word_bits))

    def add(self, client: int, index: int, data: bytes | memoryview) -> None:
        """Raises FaultyClient where it is not the next chunk, or not packed words."""
        p = self._session.parameters
        chunks = self._pending[client]
        if index != len(chunks):
            raise FaultyClient(
                self._session.name(client), "a chunk is missing, late or repeated"
            )
        begin, end = p.chunk_range(index)
        try:
            check_packed(data, end - begin, p.word_bits)
        except ValueError as error:
            raise FaultyClient(self._session.name(client), str(error)) from None
        chunks.append(data)

    def join(self, client: int, root: bytes) -> None:
        """Add a whole vector to the sum, once.  Callers take turns.

        Raises FaultyClient unless all chunks are there and ``root`` is theirs; the sum
        is then as it was.
        """
        p = self._session.parameters
        chunks = self._pending[client]
        if len(chunks) != p.chunks:
            raise FaultyClient(self._session.name(client), "its vector is not complete")
        self._pending[client] = []  # taken: no second call adds them again
        tree = chunk_tree()
        for leaf in each(lambda k: tree.leaf(chunks[k]), p.chunks):
            tree.add(leaf)
        if tree.root() != root:
            self._pending[client] = chunks
            raise FaultyClient(
                self._session.name(client), "its chunks do not match their root"
            )

        for index, data in enumerate(chunks):
            begin, end = p.chunk_range(index)
            words = unpack(data, end - begin, p.word_bits)
            np.add(self._total[begin:end], words, out=self._total[begin:end])

    def total(self) -> NDArray[Word]:
        """The sum mod 2^word_bits of all that joined; uploads under way are let go."""
        self._pending.clear()
        self._total &= self._total.dtype.type(2**self._session.parameters.word_bits - 1)
        return self._total
