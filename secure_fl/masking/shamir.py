# SPDX-License-Identifier: Apache-2.0
"""Shamir's secret sharing over Z_p, p = 2^255 - 19 (SPEC.md, section 4.3).

Python integers are not constant-time; SECURITY.md says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import lru_cache

from ..keys import PRIME

__all__ = ["PRIME", "element", "from_bytes", "reconstruct", "share", "to_bytes"]


def element(random: bytes) -> int:
    """A field element from 48 uniform bytes; its bias is below 2^-128."""
    assert len(random) == 48
    return int.from_bytes(random, "little") % PRIME


def to_bytes(value: int) -> bytes:
    """32 bytes, little-endian."""
    return value.to_bytes(32, "little")


def from_bytes(data: bytes) -> int:
    """Raises ValueError for what is not the one form of a field element."""
    value = int.from_bytes(data, "little")
    if len(data) != 32 or value >= PRIME:
        raise ValueError("not a field element")
    return value


def share(secret: int, coefficients: Sequence[int], xs: Sequence[int]) -> list[int]:
    """The polynomial's values at ``xs``: threshold is ``len(coefficients) + 1``."""
    out = []
    for x in xs:
        assert 0 < x < PRIME
        value = 0
        for c in reversed(coefficients):
            value = (value + c) * x % PRIME
        out.append((value + secret) % PRIME)
    return out


def reconstruct(shares: Mapping[int, int]) -> int:
    """The secret behind {x: share}; any threshold of them will do."""
    weights = _weights(tuple(shares))
    return sum(w * y for w, y in zip(weights, shares.values(), strict=True)) % PRIME


@lru_cache(maxsize=16)
def _weights(xs: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's coefficients at 0: public, and the same for every dealer."""
    out = []
    for x in xs:
        top = bottom = 1
        for other in xs:
            if other != x:
                top = top * other % PRIME
                bottom = bottom * (other - x) % PRIME
        out.append(top * pow(bottom, -1, PRIME) % PRIME)
    return tuple(out)
