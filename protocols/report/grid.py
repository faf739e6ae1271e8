# SPDX-License-Identifier: Apache-2.0
"""The grid of a distributed plan, and what one of its releases costs (SPEC.md, 3.8)."""

import math
from dataclasses import dataclass

from canonical import Malformed
from events import DISCRETE_GAUSSIAN, SKELLAM, Sum

_LARGEST_BLOCK = 4096
_ROUNDING = 1.000001  # of clipping and rotation in floating point
_CHANCE = 2**40  # one over the chance that a sum wraps, in a whole plan
_LEAST_STEP = 2.0**-1000  # of those that follow from the clip norm
_ENOUGH_STEPS, _ROOM = 2.0**18, 1000  # of a clip norm; clip norms of a client
_MOST_VARIANCE, _MOST_EXACT = 2.0**54, 2**17


@dataclass(frozen=True)
class Terms:
    """What of a plan the grid follows from."""

    values: int
    by_client: bool
    kind: str
    clip_norm: float
    noise: float
    rate: float
    clients: int
    shares: int
    colluding: int
    word_bits: int
    openings: int
    clip: float | None
    step: float | None


@dataclass(frozen=True)
class Grid:
    """The numbers of SPEC.md, 3.8; `release` is one release of a client."""

    block: int
    words: int
    step: float
    clip: float
    release: Sum

    @property
    def share_deviation(self) -> float:
        """Of one client's noise, in steps."""
        scale = self.release.scale
        return math.sqrt(scale) if self.release.kind == SKELLAM else scale


def grid(terms: Terms) -> Grid:
    """The grid of these terms, or `Malformed` where they contradict each other."""
    block = 1
    while block < min(terms.values, _LARGEST_BLOCK):
        block *= 2
    words = block * -(-terms.values // block)
    step = terms.step
    if step is None:
        wanted = min(_ENOUGH_STEPS, _largest_word(terms) / (_ROOM * terms.clients))
        step = _power_below(terms.clip_norm / max(1000 * math.sqrt(words), wanted))
    if math.sqrt(words) * step > terms.clip_norm / 100:
        raise Malformed("protection.step is too coarse for the clip norm")
    if not math.isfinite(terms.clip_norm / step):
        raise Malformed("protection.step is too fine for the clip norm")
    x = terms.noise * terms.clip_norm / step
    variance = x * x / terms.shares
    noise = _noise_bound(terms, words, variance)
    clip = _clip(terms, step, noise)
    release = _release(terms, words, step, variance)
    return Grid(block, words, step, clip, release)


def _power_below(most: float) -> float:
    """The largest power of two that is at most this."""
    if not _LEAST_STEP <= most < math.inf:
        raise Malformed("privacy.clip_norm leaves no step")
    return math.ldexp(1.0, math.frexp(most)[1] - 1)


def _noise_bound(terms: Terms, words: int, variance: float) -> int:
    """Steps that the noise of all clients does not pass, but with a chance of 2^-40."""
    log = math.log(2 * words * terms.openings * _CHANCE)
    t, s = log / 3, terms.clients * variance
    bound = t + math.sqrt(t * t + 2 * log * s)
    if not math.isfinite(bound):
        raise Malformed("privacy.noise_multiplier is too large")
    return math.ceil(bound)


def _largest_word(terms: Terms) -> int:
    return min(1 << terms.word_bits - 1, 1 << 53) - 1


def _clip(terms: Terms, step: float, noise: int) -> float:
    room = _largest_word(terms)
    clip = terms.clip
    if clip is None:
        most = (room - noise) // terms.clients
        if most < 1:
            raise Malformed("the noise leaves no room in a word")
        clip = most * step
        if _steps(clip, step) > most:
            clip = (most - 1) * step
    if clip < terms.clip_norm:
        raise Malformed("protection.clip is below privacy.clip_norm")
    if terms.clients * _steps(clip, step) + noise > room:
        raise Malformed("a sum may wrap")
    return clip


def _steps(clip: float, step: float) -> int:
    found = clip / step
    if not math.isfinite(found):
        raise Malformed("protection.step is too fine for the clip")
    return math.ceil(found)


def _release(terms: Terms, words: int, step: float, variance: float) -> Sum:
    u = (terms.clip_norm / step) * _ROUNDING
    root = math.sqrt(words)
    if terms.by_client:
        h = root / 2
        l2 = math.sqrt(min(u * u + h * h + (u + h), (u + 2 * h) * (u + 2 * h)))
    else:
        l2 = u + root
    clients = terms.shares, terms.colluding
    if variance > _MOST_VARIANCE:
        raise Malformed("the noise is too large to be drawn")
    if terms.kind == SKELLAM:
        return Sum(SKELLAM, terms.rate, variance, *clients, l2, words).checked()
    if words > _MOST_EXACT:
        raise Malformed("the vector is too long for discrete Gaussian noise")
    deviation = math.sqrt(variance)
    return Sum(DISCRETE_GAUSSIAN, terms.rate, deviation, *clients, l2, words).checked()
