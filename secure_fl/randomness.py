# SPDX-License-Identifier: Apache-2.0
"""The one place randomness comes from.

Keys, masks, shares, noise, Poisson sampling and stochastic rounding all draw here,
from the operating system's CSPRNG.  Arrays come from numpy's Generator over AES in
counter mode, keyed with 128 fresh bits per purpose and never reseeded; the generator
is closed over, so that neither its key nor its state can be read back.

(The ephemeral key inside an HPKE box is the exception: ``cryptography`` draws it from
OpenSSL's CSPRNG and offers no other way.)

A seeded source exists for tests and vectors; a run that used it is stamped INSECURE.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import NoReturn, Protocol, final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray
from randomgen import AESCounter

from .errors import UsageError

__all__ = ["ArrayDraws", "RandomSource", "SeededInsecure", "SystemRandom"]


class RandomSource(Protocol):
    """Where bytes come from.  Two implementations, below; there is no third."""

    @property
    def secure(self) -> bool:
        """False where the draws can be repeated; the report then says INSECURE."""

    def bytes(self, size: int) -> bytes:
        """``size`` uniform bytes, never returned before."""

    def arrays(self, purpose: str) -> ArrayDraws:
        """A fresh stream of arrays for one purpose."""


@final
class ArrayDraws:
    """Arrays of random numbers under one fresh 128-bit key.

    Not printable, copyable or picklable: a copy would repeat the noise.
    """

    __slots__ = ("_call",)

    def __init__(self, key: bytes) -> None:
        if len(key) != 16:
            raise UsageError("an AES-128 key has 16 bytes")
        generator = np.random.Generator(AESCounter(key=int.from_bytes(key, "little")))

        def call(draw: Callable[[np.random.Generator], NDArray[np.generic]]) -> object:
            return draw(generator)

        self._call = call

    def normal(self, std: float, size: int) -> NDArray[np.float64]:
        """``size`` independent N(0, std^2) draws, float64."""
        out = self._call(lambda g: g.standard_normal(size) * std)
        assert isinstance(out, np.ndarray)
        return out

    def uniform(self, size: int) -> NDArray[np.float64]:
        """``size`` independent draws from [0, 1), 53 bits each."""
        out = self._call(lambda g: g.random(size))
        assert isinstance(out, np.ndarray)
        return out

    def poisson_sample(self, rate: float, size: int) -> NDArray[np.int64]:
        """Indices below ``size``, each in independently with probability ``rate``."""
        return np.flatnonzero(self.uniform(size) < rate).astype(np.int64)

    def __repr__(self) -> str:
        return "<ArrayDraws>"

    def __reduce__(self) -> NoReturn:
        raise TypeError("random streams are not copied or pickled")


@final
class SystemRandom:
    """The operating system's CSPRNG.  What every real run uses."""

    secure = True

    def bytes(self, size: int) -> bytes:
        return secrets.token_bytes(size)

    def arrays(self, purpose: str) -> ArrayDraws:
        return ArrayDraws(self.bytes(16))


@final
class SeededInsecure:
    """Repeatable bytes for tests and vectors.  Nothing drawn from it is private."""

    secure = False

    def __init__(self, seed: bytes) -> None:
        self._seed = seed
        self._count = 0

    def bytes(self, size: int) -> bytes:
        out = b""
        while len(out) < size:
            step = min(size - len(out), 255 * 32)
            out += HKDF(
                hashes.SHA256(), step, salt=None, info=self._count.to_bytes(8, "big")
            ).derive(self._seed)
            self._count += 1
        return out

    def arrays(self, purpose: str) -> ArrayDraws:
        return ArrayDraws(self.bytes(16))

    def __repr__(self) -> str:
        return "<SeededInsecure>"
