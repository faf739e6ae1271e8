# SPDX-License-Identifier: Apache-2.0
"""The one place randomness comes from.

Keys, masks, shares, noise, Poisson sampling and stochastic rounding all draw here,
from the operating system's CSPRNG.  Arrays come from numpy's Generator over AES in
counter mode, keyed with 128 fresh bits per purpose and never reseeded; the generator
is closed over, so that neither its key nor its state can be read back.

(Two exceptions, for want of another way: the ephemeral key inside an HPKE box, which
``cryptography`` draws from OpenSSL's CSPRNG, and exact discrete Gaussian noise, which
OpenDP draws from its own, seeded by the operating system.)

A seeded source exists for tests and vectors; a run that used it is stamped INSECURE.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable
from typing import Final, NoReturn, Protocol, final

import numpy as np
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from numpy.typing import NDArray
from randomgen import AESCounter

from .errors import UsageError

__all__ = [
    "MAX_SKELLAM_VARIANCE",
    "ArrayDraws",
    "RandomSource",
    "SeededInsecure",
    "SystemRandom",
]

MAX_SKELLAM_VARIANCE: Final = 2.0**54

# From this mean on a Poisson draw is by rejection, with two terms of Stirling's series.
_LARGE_MEAN: Final = 256


class RandomSource(Protocol):
    """Where bytes come from.  Two implementations, below; there is no third."""

    @property
    def secure(self) -> bool:
        """False where the draws can be repeated; the report then says INSECURE."""

    def bytes(self, size: int) -> bytes:
        """``size`` uniform bytes, never returned before."""

    def arrays(self, purpose: str) -> ArrayDraws:
        """A fresh stream of arrays for one purpose."""

    def discrete_gaussian(self, deviation: float, size: int) -> NDArray[np.int64]:
        """``size`` independent draws: x with probability like exp(-x^2/2 deviation^2).

        Exact: no step of the sampler is a floating-point one.  About 100,000 draws a
        second.  Raises UsageError without OpenDP, and where draws have to repeat.
        """


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

    def skellam(self, variance: float, size: int) -> NDArray[np.int64]:
        """``size`` independent differences of two Poisson(variance/2) draws.

        The draws are whole numbers from 128 random bits, and their probabilities those
        of the law up to a relative error: about 1e-15 standard deviations (in units of
        the draws), and some 1e-12 where that is less, because uniform numbers have 53
        bits and acceptance is decided in double precision.  Measured, not proven.
        Raises UsageError for a variance that is not positive, or above 2^54.
        """
        if not 0 < variance <= MAX_SKELLAM_VARIANCE:
            raise UsageError(
                f"the variance is {variance!r}", hint="it is positive, at most 2^54"
            )
        mean = variance / 2
        out = self._call(lambda g: _poisson(g, mean, size) - _poisson(g, mean, size))
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

    def discrete_gaussian(self, deviation: float, size: int) -> NDArray[np.int64]:
        try:
            import opendp.prelude as dp
        except ImportError:
            raise UsageError(
                "exact discrete Gaussian noise needs OpenDP",
                hint='install secure-fl[exact], or plan noise = "skellam"',
            ) from None
        dp.enable_features("contrib")
        # i64: the default whole number of OpenDP has 32 bits, and stops at its end.
        space = dp.vector_domain(dp.atom_domain(T="i64")), dp.l2_distance(T=float)
        draw = dp.m.make_gaussian(*space, scale=deviation)
        return np.array(draw([0] * size), dtype=np.int64)


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

    def discrete_gaussian(self, deviation: float, size: int) -> NDArray[np.int64]:
        raise UsageError(
            "exact discrete Gaussian noise cannot be repeated from a seed",
            hint='use the system\'s randomness, or plan noise = "skellam"',
        )

    def __repr__(self) -> str:
        return "<SeededInsecure>"


def _poisson(
    generator: np.random.Generator, mean: float, size: int
) -> NDArray[np.int64]:
    """``size`` Poisson(mean) draws, each less the whole part of ``mean``.

    Small means are sums of smaller ones, for which numpy multiplies uniform numbers.
    Large ones are drawn by transformed rejection with squeeze (Hoermann 1993, PTRS) as
    numpy does from a mean of 10 on, with two differences.  Its hat is up to 0.5 % below
    the law in places: ours is 1 % higher, and the squeeze lower to match.  And it
    decides by a difference of terms as large as mean * log(mean), so that from a mean
    of 1e14 on its law is another: here no term is larger than the draw's distance
    from the mean.
    """
    whole = math.floor(mean)
    if mean < _LARGE_MEAN:
        parts = math.ceil(mean / 8)
        draws = np.full(size, -whole, np.int64)
        for _ in range(parts):
            draws += generator.poisson(mean / parts, size)
        return draws
    spread = 0.931 + 2.53 * math.sqrt(mean)
    slope = -0.059 + 0.02483 * spread
    scale = math.log(1.01 * (1.1239 + 1.1328 / (spread - 3.4)))
    squeeze = 0.9277 - 3.6224 / (spread - 2) - 0.02
    out = np.empty(size, np.int64)
    filled = 0
    while filled < size:
        u = 0.5 - generator.random(size - filled)
        v = 1 - generator.random(size - filled)
        near = 0.5 - np.abs(u)
        ratio = slope / np.maximum(near, 1e-12)
        draw = np.floor((2 * ratio + spread) * u + (mean - whole + 0.43))
        keep = (near >= 0.07) & (v <= squeeze)
        ask = ~keep & (draw + whole >= 1) & ((near >= 0.013) | (v <= near))
        test = np.log(v[ask]) + scale
        test -= np.log(ratio[ask] / near[ask] + spread)
        keep[ask] = test <= _log_poisson(draw[ask] - (mean - whole), mean)
        kept = draw[keep].astype(np.int64)
        out[filled : filled + kept.size] = kept
        filled += kept.size
    return out


def _log_poisson(distance: NDArray[np.float64], mean: float) -> NDArray[np.float64]:
    """Log probability of ``mean + distance``, where that is a whole number above 0.

    With Stirling's series for the factorial.  Its error is below 1e-13 from 100 on;
    draws below that do not occur with a large mean.
    """
    value = mean + distance
    series = 1 / (12 * value) - 1 / (360 * value**3)
    return (
        distance
        - value * np.log1p(distance / mean)
        - 0.5 * np.log(2 * np.pi * value)
        - series
    )
