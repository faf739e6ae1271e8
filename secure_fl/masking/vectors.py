# SPDX-License-Identifier: Apache-2.0
"""Chunks on their way into a sum: what has arrived of each client's vector."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, final

import numpy as np
from numpy.typing import NDArray

from .. import wire
from ..errors import FaultyClient
from ..fixedpoint import Word, unpack, word_dtype
from .session import SPEC, Session

__all__ = ["ChunkTree", "Vectors"]

_LABEL: Final = f"{SPEC} chunks"


@final
class ChunkTree:
    """The hash tree over a vector's chunks.  It keeps a hash per chunk, no chunk."""

    def __init__(self) -> None:
        self._leaves: list[bytes] = []

    def __len__(self) -> int:
        return len(self._leaves)

    def add(self, chunk: bytes) -> None:
        self._leaves.append(wire.digest(f"{_LABEL} data", chunk))

    def root(self) -> bytes:
        return wire.merkle_root(_LABEL, self._leaves)


@final
class Vectors:
    """Chunks per client, in order, until their signed root vouches for them."""

    def __init__(self, session: Session, clients: Iterable[int]) -> None:
        self._session = session
        self._trees = {i: ChunkTree() for i in clients}
        self._words: dict[int, list[NDArray[Word]]] = {i: [] for i in self._trees}

    def add(self, client: int, index: int, data: bytes) -> None:
        """Raises FaultyClient where it is not the next chunk, or not packed words."""
        p = self._session.parameters
        tree = self._trees[client]
        if index != len(tree):
            raise FaultyClient(
                self._session.name(client), "a chunk is missing, late or repeated"
            )
        begin, end = p.chunk_range(index)
        try:
            words = unpack(data, end - begin, p.word_bits)
        except ValueError as error:
            raise FaultyClient(self._session.name(client), str(error)) from None
        tree.add(data)
        self._words[client].append(words)

    def check(self, client: int, root: bytes) -> None:
        """Raises FaultyClient unless all chunks are there and ``root`` is theirs."""
        tree = self._trees[client]
        if len(tree) != self._session.parameters.chunks:
            raise FaultyClient(self._session.name(client), "its vector is not complete")
        if tree.root() != root:
            raise FaultyClient(
                self._session.name(client), "its chunks do not match their root"
            )

    def sum(self, clients: Iterable[int]) -> NDArray[Word]:
        """The sum mod 2^word_bits over ``clients``; every chunk is let go."""
        p = self._session.parameters
        dtype = word_dtype(p.word_bits)
        total = np.zeros(p.length, dtype)
        for client in clients:
            for index, words in enumerate(self._words[client]):
                begin, end = p.chunk_range(index)
                total[begin:end] += words
        self._words.clear()
        total &= dtype.type(2**p.word_bits - 1)
        return total
