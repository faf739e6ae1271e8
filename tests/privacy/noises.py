# SPDX-License-Identifier: Apache-2.0
"""Noise on the whole numbers from -n to n, as logs of probabilities."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Logs = np.ndarray[Any, np.dtype[np.float64]]


def log_sum(values: Logs) -> float:
    most = float(values.max())
    return most + math.log(np.exp(values - most).sum())


def log_of_sum(one: Logs, other: Logs) -> Logs:
    """Log probabilities of the sum of two variables on -n..n, on that grid again."""
    n = len(one) // 2
    padded = np.concatenate([np.full(n, -np.inf), other, np.full(n, -np.inf)])
    return np.array(
        [log_sum(one + padded[i : i + 2 * n + 1][::-1]) for i in range(2 * n + 1)]
    )


def log_skellam(variance: float, n: int) -> Logs:
    counts = np.arange(2 * n + 1)
    factorials = np.concatenate([[0.0], np.cumsum(np.log(counts[1:]))])
    poisson = counts * math.log(variance / 2) - variance / 2 - factorials
    half = np.array(
        [log_sum(poisson[k:] + poisson[: 2 * n + 1 - k]) for k in range(n + 1)]
    )
    return np.concatenate([half[:0:-1], half])


def log_gaussian(deviation: float, n: int) -> Logs:
    logs = -(np.arange(-n, n + 1) ** 2) / (2 * deviation**2)
    return np.asarray(logs - log_sum(logs))


def divergence(p: Logs, q: Logs, order: int) -> float:
    """Renyi divergence of ``order``."""
    terms = order * p + (1 - order) * q
    # What was cut off at the ends does not matter.
    assert max(terms[0], terms[-1]) < terms.max() - 20
    return log_sum(terms) / (order - 1)


def shifted(noise: Logs, by: int, order: int) -> float:
    """Divergence of noise that was moved from the noise itself."""
    return divergence(noise[by:], noise[: len(noise) - by], order)
