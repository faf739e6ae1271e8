# SPDX-License-Identifier: Apache-2.0
"""How the CKKS vectors make their inputs from a seed, so that files stay small."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterator


def stream(seed: str) -> Iterator[bytes]:
    """SHA-256 of the seed and a counter of 8 bytes, big-endian, from 0 up."""
    for counter in itertools.count():
        yield hashlib.sha256(seed.encode() + counter.to_bytes(8, "big")).digest()


def expand_bytes(seed: str, count: int) -> bytes:
    needed = itertools.islice(stream(seed), -(-count // 32))
    return b"".join(needed)[:count]


def expand_words(seed: str, count: int, bits: int, clients: int) -> list[int]:
    """Signed words of which ``clients`` may be added."""
    data, m = expand_bytes(seed, 8 * count), (2 ** (bits - 1) - 1) // clients
    numbers = (int.from_bytes(data[8 * i : 8 * i + 8], "little") for i in range(count))
    return [x % (2 * m + 1) - m for x in numbers]


def expand_short(seed: str, size: int) -> list[int]:
    """As short as a Gaussian: 160 coins, so a variance of 40 and at most 80."""
    data = expand_bytes(seed, 20 * size)
    return [
        int.from_bytes(data[20 * i : 20 * i + 20], "little").bit_count() - 80
        for i in range(size)
    ]
