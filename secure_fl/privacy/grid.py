# SPDX-License-Identifier: Apache-2.0
"""The grid of sums: a client's vector as whole steps, its share of noise added.

For plans where only a sum is private.  A client rotates its vector (one public
rotation a round, the same for all), clips every coordinate, rounds it up or down at
random to a whole number of steps, and adds its share of whole-number noise.  Rotating
and clipping make no two vectors differ by more, rounding does, and what it adds is in
the sensitivities (:mod:`.discrete`).

Noise is never cut off.  That a sum wraps has a probability below 2^-40 over the whole
run; it would cost correctness, not privacy.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Literal, final

import numpy as np
from numpy.typing import NDArray

from ..errors import EngineError, PlanError, UsageError
from ..randomness import MAX_SKELLAM_VARIANCE, ArrayDraws, RandomSource
from ..rotation import padded, rotate, rotate_back
from .discrete import conditional_sensitivity, rounded_sensitivity
from .events import EXTREME, Discrete, DiscreteGaussian, Skellam

__all__ = ["Grid", "noise_bound"]

# What floating point may leave of a vector above its clip norm, relatively: clipping,
# sums of records and the rotation err by less (docs/decisions/0018-grid-of-sums.md).
_ALLOWANCE: Final = 1e-6

# A step left out: the rounding of all coordinates adds a thousandth to the L2 norm at
# most, and the clip norm has as many steps as bring Skellam noise near to Gaussian
# noise, where words have room for a thousand clip norms of each client
# (docs/decisions/0021-skellam-as-gaussian.md).
_FINE: Final = 1000
_STEPS: Final = 2.0**18
_CLIP_NORMS: Final = 1000
_COARSEST: Final = 100

_WRAP_BITS: Final = 40
MAX_EXACT: Final = 2**17
_LEAST_DEVIATION: Final = 0.5

# One is accepted with a probability of at least 0.39: all miss less than once in 2^142.
_MOST_DITHERS: Final = 200


@final
@dataclass(frozen=True, slots=True)
class Grid:
    """How one client's vector becomes whole numbers, and their sum a vector again.

    Made by :meth:`of`, which checks the numbers.

    values, padded
        of the vector, and of its rotated form: what is sent
    step, clip
        one unit of the whole numbers, and the largest absolute value of a coordinate
    clip_norm, noise_multiplier, shares
        ``shares`` honest clients' noise has together a standard deviation of
        noise_multiplier * clip_norm in every coordinate
    colluding
        clients beside them of which nothing is assumed
    kind, unit, rate
        of the noise; of what is protected; of the Poisson sampling of records
    clients
        the whole roster
    """

    values: int
    kind: Literal["skellam", "discrete-gaussian"]
    unit: Literal["record", "client"]
    rate: float
    clip_norm: float
    noise_multiplier: float
    shares: int
    colluding: int
    clients: int
    clip: float
    step: float

    @classmethod
    def of(
        cls,
        *,
        values: int,
        kind: Literal["skellam", "discrete-gaussian"],
        unit: Literal["record", "client"],
        rate: float,
        clip_norm: float,
        noise_multiplier: float,
        shares: int,
        colluding: int,
        clients: int,
        word_bits: int,
        clip: float | None,
        step: float | None,
        rounds: int,
        attempts: int,
    ) -> Grid:
        """A plan's grid; ``clip`` and ``step`` are chosen where they are None.

        The step is then a power of two of which sqrt(padded) are at most a thousandth
        of the clip norm, and of which it has at least 2^18 where words have room for
        that, and the clip the largest that cannot wrap.
        ``rounds`` and ``attempts`` of each say how many sums are opened at most.
        Raises PlanError where noise or a sum does not fit, with the entry's key.
        """
        _positive("privacy.clip_norm", clip_norm)
        _positive("privacy.noise_multiplier", noise_multiplier)
        size = padded(values)
        word = min(2 ** (word_bits - 1) - 1, 2**53 - 1)
        least = _FINE * math.sqrt(size)
        if step is None:
            roomy = word / (_CLIP_NORMS * clients)
            step = _step(clip_norm, max(least, min(_STEPS, roomy)))
        _positive("protection.step", step)
        if not math.sqrt(size) * step <= clip_norm / _COARSEST:
            raise PlanError(
                f"is too coarse: rounding {size} values could add more than 1 % of the "
                "clip norm",
                key="protection.step",
                hint=f"use {_step(clip_norm, least)!r}, or leave it out",
            )
        variance = _variance(noise_multiplier, clip_norm, step, shares)
        _check_noise(kind, variance, size, clip_norm)
        bound = noise_bound(size * rounds * attempts, clients * variance)
        room = word - bound
        if clip is None:
            clip = _default_clip(room // clients, step, clip_norm=clip_norm)
        else:
            clip = _checked_clip(
                clip, step, clip_norm=clip_norm, clients=clients, room=room
            )
        return cls(
            values=values,
            kind=kind,
            unit=unit,
            rate=rate,
            clip_norm=clip_norm,
            noise_multiplier=noise_multiplier,
            shares=shares,
            colluding=colluding,
            clients=clients,
            clip=clip,
            step=step,
        )

    @property
    def padded(self) -> int:
        return padded(self.values)

    @property
    def variance(self) -> float:
        """Of one client's share of the noise, in squared steps."""
        return _variance(self.noise_multiplier, self.clip_norm, self.step, self.shares)

    @property
    def deviation(self) -> float:
        """Standard deviation of one client's share of the noise, in steps."""
        return math.sqrt(self.variance)

    @property
    def event(self) -> Discrete:
        """What one opened sum costs a record, or a client."""
        clients = self.shares, self.colluding
        last = self._sensitivity(), self.padded
        if self.kind == "skellam":
            return Skellam(self.rate, self.variance, *clients, *last)
        return DiscreteGaussian(self.rate, self.deviation, *clients, *last)

    def check_source(self, random: RandomSource) -> None:
        """Raises UsageError where ``random`` cannot draw this noise, and draws nothing.

        For callers to ask before a release is charged: exact noise needs an extra.
        """
        if self.kind == "discrete-gaussian":
            random.discrete_gaussian(self.deviation, 0)

    def noised(
        self, vector: NDArray[np.float64], *, rotation: bytes, random: RandomSource
    ) -> NDArray[np.int64]:
        """``vector`` in whole steps with this client's share of the noise: to be sent.

        vector
            ``values`` numbers: the sum, in float64, of the sampled records' gradients,
            each clipped by the caller to an L2 norm of ``clip_norm``; or, where clients
            are the unit, a whole update clipped to it
        rotation
            the round's public key of the rotation, the same for all clients

        Gives ``padded`` whole numbers.  Caller has the release reserved in its ledger
        before, and lets no two results of one vector leave.  Raises UsageError, before
        anything is drawn, for another length, for what is not finite, and for a whole
        update that is not clipped.
        """
        if vector.shape != (self.values,):
            raise UsageError(
                f"the vector is not one of {self.values} values",
                hint="hand in one number for each value of the global model",
            )
        with np.errstate(over="ignore"):
            norm = float(np.linalg.norm(vector))
        if not math.isfinite(norm):
            raise UsageError(
                "the vector holds a value that is not finite",
                hint="a non-finite update ends the round for this client, charged",
            )
        if self.unit == "client" and norm > self.clip_norm * (1 + _ALLOWANCE):
            raise UsageError(
                f"the update has an L2 norm of {norm:.6g}, above the clip norm",
                hint=f"clip the whole update to {self.clip_norm:g} first",
            )
        # Drawn in the same number and order whatever the vector holds.
        noise = self._share(random)
        dithers = random.arrays("rounding")
        dither = dithers.uniform(self.padded)
        rotated = rotate(vector, rotation)
        np.clip(rotated, -self.clip, self.clip, out=rotated)
        rotated /= self.step
        units = self._rounded(rotated, dither, dithers)
        units += noise
        return units

    def opened(
        self, units: NDArray[np.int64], *, rotation: bytes
    ) -> NDArray[np.float64]:
        """The vector that a sum of :meth:`noised` vectors stands for: ``values`` long.

        Raises UsageError where ``units`` does not hold ``padded`` whole numbers.
        """
        return rotate_back(
            units.astype(np.float64) * self.step, rotation, values=self.values
        )

    def _sensitivity(self) -> float:
        norm = self.clip_norm / self.step * (1 + _ALLOWANCE)
        rule = rounded_sensitivity if self.unit == "record" else conditional_sensitivity
        return rule(norm, step=1.0, values=self.padded)

    def _share(self, random: RandomSource) -> NDArray[np.int64]:
        if self.kind == "skellam":
            return random.arrays("noise").skellam(self.variance, self.padded)
        return random.discrete_gaussian(self.deviation, self.padded)

    def _rounded(
        self, scaled: NDArray[np.float64], dither: NDArray[np.float64], more: ArrayDraws
    ) -> NDArray[np.int64]:
        """Whole numbers, without bias; of a whole update never longer than accounted.

        One dither for a sum of records: a second draw would depend on all of them.
        """
        if self.unit == "record":
            return _round(scaled, dither)
        l2 = self._sensitivity()
        for _ in range(_MOST_DITHERS):
            units = _round(scaled, dither)
            if float(np.linalg.norm(units)) <= l2:
                return units
            dither = more.uniform(self.padded)  # the whole of it: the norm is theirs
        raise EngineError(
            f"{_MOST_DITHERS} roundings of an update were all too long",
            hint="the randomness of this machine is broken; do not use it",
        )


def _round(
    scaled: NDArray[np.float64], dither: NDArray[np.float64]
) -> NDArray[np.int64]:
    whole = np.floor(scaled)
    # Not floor(scaled + dither): that sum would round, and move grid points.
    whole += scaled - whole + dither >= 1
    return whole.astype(np.int64)


def _positive(key: str, value: float) -> None:
    if not (math.isfinite(value) and value > 0):
        raise PlanError("must be positive", key=key, hint="use a finite number above 0")


def _step(clip_norm: float, steps: float) -> float:
    """The largest power of two of which the clip norm has at least ``steps``."""
    most = clip_norm / steps
    if not most >= 2.0**-1000:
        raise PlanError(
            "is too small",
            key="privacy.clip_norm",
            hint="use one near the norms of what is clipped, as 1.0",
        )
    return math.ldexp(1.0, math.frexp(most)[1] - 1)


def _variance(
    noise_multiplier: float, clip_norm: float, step: float, shares: int
) -> float:
    total = noise_multiplier * clip_norm / step
    return total * total / shares


def _check_noise(kind: str, variance: float, size: int, clip_norm: float) -> None:
    if variance < 1 / EXTREME:
        raise PlanError(
            "is too small",
            key="privacy.noise_multiplier",
            hint="leave it out: it then follows from epsilon",
        )
    if not variance <= MAX_SKELLAM_VARIANCE:
        raise PlanError(
            "is too fine: a share of the noise is above 2^27 steps",
            key="protection.step",
            hint="choose a coarser one, up to "
            f"{_step(clip_norm, _COARSEST * math.sqrt(size))!r}",
        )
    if kind == "skellam":
        return
    if size > MAX_EXACT:
        raise PlanError(
            f"'discrete-gaussian' is drawn exactly, one value at a time: for at most "
            f"{MAX_EXACT} values, not {size}",
            key="privacy.noise",
            hint="use 'skellam', or train fewer values",
        )
    if variance < _LEAST_DEVIATION**2:
        raise PlanError(
            "is too coarse: a share of the noise is below half a step",
            key="protection.step",
            hint="leave it out, or choose a finer one",
        )


def noise_bound(coordinates: int, variance: float) -> int:
    """What none of ``coordinates`` sums of noise exceeds, but once in 2^40 runs.

    variance
        of the noise of all clients together, in squared steps; the bound is in steps

    Bernstein's inequality, both sides and all coordinates.  A Skellam variable's
    cumulants are no larger than it allows, a discrete Gaussian is below even a normal.
    """
    log = math.log(2 * coordinates * 2**_WRAP_BITS)
    return math.ceil(log / 3 + math.sqrt(log * log / 9 + 2 * log * variance))


def _default_clip(most: int, step: float, *, clip_norm: float) -> float:
    """The largest that is at most ``most`` steps, also when divided by the step."""
    clip = most * step
    if not math.isfinite(clip / step):
        raise PlanError(
            "is too large",
            key="privacy.clip_norm",
            hint="use one near the norms of what is clipped, as 1.0",
        )
    if math.ceil(clip / step) > most:
        clip = (most - 1) * step
    if clip < clip_norm:
        raise PlanError(
            "is too few for the sum of all clients and their noise",
            key="protection.word_bits",
            hint="choose wider words or a coarser step",
        )
    return clip


def _checked_clip(
    clip: float, step: float, *, clip_norm: float, clients: int, room: int
) -> float:
    _positive("protection.clip", clip)
    if clip < clip_norm:
        raise PlanError(
            f"is below the clip norm of {clip_norm:g}: what is large would be lost",
            key="protection.clip",
            hint="leave it out: it is then the largest that fits",
        )
    if clip / step > room or clients * math.ceil(clip / step) > room:
        raise PlanError(
            f"a sum of {clients} clients and their noise could wrap",
            key="protection.clip",
            hint="leave it out, or choose wider words or a coarser step",
        )
    return clip
