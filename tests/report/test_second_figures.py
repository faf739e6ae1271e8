# SPDX-License-Identifier: Apache-2.0
"""The figures of the second verifier: those of the package, and both are upper bounds.

`protocols/report/figures.py` computes what a group costs by code of its own, and rates
from 1e-6 to 1 are where a grid shows.  What is true is bounded from below here, by
losses rounded down on a much finer grid.
"""

from __future__ import annotations

import math
from types import ModuleType

import numpy as np
import pytest
from scipy.special import ndtr

from secure_fl.errors import VerificationError
from secure_fl.privacy import accounting
from secure_fl.privacy.events import Event, Gaussian, PoissonGaussian, Repeated
from secure_fl.privacy.groups import group_epsilon

from .test_second_verifier import second  # noqa: F401  (its folder is on the path now)

SETTINGS = (  # noise, rate, steps, delta, records
    (4.0, 1e-3, 100, 1e-5, 5),
    (4.0, 1e-4, 100, 1e-5, 2),
    (1.0, 1e-4, 1000, 1e-5, 5),
    (0.6, 1e-4, 1, 1e-6, 5),
    (0.6, 0.01, 3000, 1e-6, 2),
    (0.6, 0.5, 1, 1e-9, 5),
    (2.0, 0.2, 50, 1e-5, 2),
    (10.0, 1e-3, 3000, 1e-5, 5),
    (10.0, 0.5, 3000, 1e-6, 5),
    (1.5, 0.05, 300, 1e-9, 2),
)
# Far from what anybody runs: what a member who lies about its noise may state.
EXTREMES = (
    (1e6, 1e-9, 1000, 1e-5, 2),
    (1e6, 0.5, 10**6, 1e-5, 5),
    (0.3, 0.999, 1, 1e-5, 2),
    (0.16, 1 - 2.0**-53, 7, 1e-9, 2),
    (0.16, 1 - 1e-12, 7, 1e-9, 5),
    (0.3, 1e-9, 1, 1e-9, 5),
    (5.0, 1 - 2e-6, 100, 1e-9, 5),
)

Setting = tuple[float, float, int, float, int]


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    import figures as module

    return module


def the_package_has(setting: Setting) -> float:
    noise, rate, steps, delta, records = setting
    event = Repeated(PoissonGaussian(rate, noise), steps)
    return group_epsilon([event], records=records, delta=delta)


def the_second_has(figures: ModuleType, setting: Setting) -> float:
    noise, rate, steps, delta, records = setting
    costs = figures.spent([figures.Event(noise, rate, steps)])
    return float(figures.group(costs, delta, records))


def least(setting: Setting) -> tuple[float, float]:
    """An epsilon below the true one, and by how much at most.

    Of all losses of one release, drawn with the records, those of a cell of x count as
    the least of them, rounded down; then sums by a Fourier transform.
    """
    noise, rate, steps, delta, records = setting
    weights = [
        math.comb(records, i) * rate**i * (1 - rate) ** (records - i)
        for i in range(records + 1)
    ]
    x = np.linspace(-9.0, records / noise + 9.0, 2_000_001)
    terms = [
        math.log(w) + x * i / noise - (i / noise) ** 2 / 2
        for i, w in enumerate(weights)
    ]
    loss = np.logaddexp.reduce(terms)
    mass = sum(w * np.diff(ndtr(x - i / noise)) for i, w in enumerate(weights))
    grid = (loss[-1] - loss[0]) / 100_000
    places = np.floor(loss[:-1] / grid).astype(int)
    first = int(places[0])
    one = np.bincount(places - first, weights=mass)
    size = 1 << (len(one) * steps).bit_length()
    sums = np.fft.irfft(np.fft.rfft(one, size) ** steps, size)
    losses = (np.arange(size) + first * steps) * grid

    def delta_at(epsilon: float) -> float:
        above = losses > epsilon
        return float(sums[above] @ -np.expm1(epsilon - losses[above]))

    low, high = 0.0, float(losses[-1])
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if delta_at(middle) > delta else (low, middle)
    return low, grid * steps


@pytest.mark.parametrize("setting", SETTINGS, ids=str)
def test_both_have_the_same_figure(figures: ModuleType, setting: Setting) -> None:
    ours = the_package_has(setting)
    assert the_second_has(figures, setting) == pytest.approx(ours, rel=1e-5)
    assert 0 < ours < math.inf


@pytest.mark.parametrize(
    "setting",
    [
        (4.0, 1e-3, 20, 1e-5, 5),
        (4.0, 1e-4, 10, 1e-5, 5),
        (1.0, 1e-4, 10, 1e-6, 5),
        (0.6, 0.5, 1, 1e-6, 5),
        (2.0, 0.2, 10, 1e-5, 2),
        (10.0, 0.5, 10, 1e-6, 5),
    ],
    ids=str,
)
def test_neither_is_below_the_truth(figures: ModuleType, setting: Setting) -> None:
    floor, slack = least(setting)
    for found in (the_package_has(setting), the_second_has(figures, setting)):
        assert floor * (1 - 1e-6) <= found <= (floor + slack) * 1.005


def test_arithmetic_that_fails_is_refused_by_both(
    figures: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    """dp-accounting divides by zero, or finds no root, where it is driven too far."""
    library = accounting.library().pld.privacy_loss_distribution

    def fails(*_args: object, **_options: object) -> None:
        raise ValueError("a must be greater than b")

    monkeypatch.setattr(library, "from_gaussian_mechanism", fails)
    setting = (3.25, 0.0625, 3, 1e-5, 2)  # of no other test: nothing is cached
    with pytest.raises(VerificationError, match="a must be greater than b"):
        the_package_has(setting)
    with pytest.raises(figures.Contradiction, match="a must be greater than b"):
        the_second_has(figures, setting)


@pytest.mark.parametrize("setting", EXTREMES, ids=str)
def test_extremes_have_the_same_figure(figures: ModuleType, setting: Setting) -> None:
    ours = the_package_has(setting)
    assert the_second_has(figures, setting) == pytest.approx(ours, rel=1e-4)


@pytest.mark.parametrize(("different", "finite"), [(64, True), (65, False)])
def test_a_limit_on_different_mechanisms(
    figures: ModuleType, different: int, finite: bool
) -> None:
    noises = [20 + i / 8 for i in range(different)]
    # What is equal after all does not count, nor does what is not sampled.
    events: list[Event] = [PoissonGaussian(0.01, z) for z in [*noises, noises[0]]]
    events += [PoissonGaussian(1, 20.0), Gaussian(30.0)]
    theirs = [figures.Event(z, 0.01) for z in [*noises, noises[0]]]
    theirs += [figures.Event(20.0, 1.0), figures.Event(30.0)]
    ours = accounting.epsilon(events, delta=1e-5)
    costs = figures.spent(theirs)
    assert math.isfinite(ours.value) is math.isfinite(ours.rdp) is finite
    assert figures.epsilon(costs, 1e-5) == pytest.approx(ours.value, rel=1e-6)
    assert figures.rdp(costs, 1e-5) == pytest.approx(ours.rdp, rel=1e-6)
    assert math.isfinite(figures.group(costs, 1e-5, 2)) is finite
