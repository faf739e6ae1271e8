# SPDX-License-Identifier: Apache-2.0
"""Events: what can be said, its one byte form, and everything else refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl import wire
from secure_fl.errors import ProtocolError, UsageError
from secure_fl.privacy import (
    DiscreteGaussian,
    Event,
    Gaussian,
    NonPrivate,
    PoissonGaussian,
    Repeated,
    Skellam,
    from_wire,
    seen,
    to_wire,
    without_amplification,
)

POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
RATES = st.floats(min_value=0, max_value=1, exclude_min=True)
MECHANISMS = st.one_of(
    st.builds(Gaussian, POSITIVE), st.builds(PoissonGaussian, RATES, POSITIVE)
)
SENSITIVITIES = st.floats(1, 1e50)
SHARES, COLLUDING = st.integers(1, 1000), st.integers(0, 1000)
DISCRETE = st.one_of(
    st.builds(
        Skellam,
        rate=RATES,
        variance=st.floats(1e-50, 1e50),
        shares=SHARES,
        colluding=COLLUDING,
        l2=SENSITIVITIES,
        values=st.integers(1, 2**53),
    ),
    st.builds(
        DiscreteGaussian,
        rate=RATES,
        deviation=st.floats(0.5, 1e50),
        shares=SHARES,
        colluding=COLLUDING,
        l2=SENSITIVITIES,
        values=st.integers(1, 2**53),
    ),
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    MECHANISMS,
    DISCRETE,
    st.builds(Repeated, MECHANISMS, st.integers(1, 10**6)),
    st.builds(NonPrivate, st.sampled_from(["a baseline", "été 2026"])),
)


@given(EVENTS)
def test_every_event_survives_its_byte_form(event: Event) -> None:
    assert from_wire(wire.decode(wire.encode(to_wire(event)))) == event


@pytest.mark.parametrize("bad", [0.0, -1.0, math.nan, math.inf])
def test_parameters_out_of_range_are_refused(bad: float) -> None:
    with pytest.raises(UsageError):
        Gaussian(bad)
    with pytest.raises(UsageError):
        PoissonGaussian(bad, 1.0)
    with pytest.raises(UsageError):
        PoissonGaussian(0.5, bad)


def test_other_parameters_out_of_range_are_refused() -> None:
    with pytest.raises(UsageError):
        PoissonGaussian(1.0000001, 1.0)
    for count in (0, -1, 10**6 + 1):
        with pytest.raises(UsageError):
            Repeated(Gaussian(1.0), count)
    with pytest.raises(UsageError):
        NonPrivate("  ")
    with pytest.raises(UsageError):
        Repeated(NonPrivate("no"), 2)  # type: ignore[arg-type]


def test_numbers_of_numpy_encode_as_python_floats() -> None:
    event = PoissonGaussian(np.float64(0.25), np.float64(2))
    assert to_wire(event) == {0: "poisson-gaussian", 1: "0.25", 2: "2.0"}
    assert to_wire(Gaussian(2)) == {0: "gaussian", 1: "2.0"}


def test_discrete_releases_have_one_byte_form() -> None:
    skellam = Skellam(np.float64(0.5), 2, 3, 1, np.float64(4), 5)
    assert to_wire(skellam) == {
        0: "skellam",
        1: "0.5",
        2: "2.0",
        3: 3,
        4: 1,
        5: "4.0",
        6: 5,
    }
    gaussian = DiscreteGaussian(1, np.float64(2), 3, 0, 4, 5)
    assert to_wire(gaussian) == {
        0: "discrete-gaussian",
        1: "1.0",
        2: "2.0",
        3: 3,
        4: 0,
        5: "4.0",
        6: 5,
    }


@pytest.mark.parametrize(
    "change",
    [
        {"rate": 0.0},
        {"rate": 1.5},
        {"shares": 0},
        {"shares": 1001},
        {"shares": 2.0},
        {"shares": True},
        {"colluding": -1},
        {"colluding": 1001},
        {"colluding": 1.0},
        {"colluding": False},
        {"l2": 0.5},
        {"l2": 1e51},
        {"l2": math.nan},
        {"variance": 0.0},
        {"variance": 1e-51},
        {"variance": 1e51},
        {"variance": math.inf},
        {"deviation": 0.4},
        {"deviation": 1e51},
        {"values": 0},
        {"values": 2**53 + 1},
        {"values": 1.5},
    ],
)
def test_discrete_parameters_out_of_range_are_refused(change: dict[str, float]) -> None:
    both = {"rate": 0.5, "shares": 3, "colluding": 1, "l2": 4.0, "values": 5}
    skellam = {**both, "variance": 9.0}
    gaussian = {**both, "deviation": 2.0}
    for kind, good in ((Skellam, skellam), (DiscreteGaussian, gaussian)):
        if change.keys() <= good.keys():
            kind(**good)  # type: ignore[arg-type]
            with pytest.raises(UsageError):
                kind(**good | change)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "text",
    ["1", "1.00", "+1.0", " 1.0", "1_0.0", "1e0", "0.0", "-1.0", "nan", "inf", "x", ""],
)
def test_a_number_has_one_spelling(text: str) -> None:
    with pytest.raises(ProtocolError):
        from_wire({0: "gaussian", 1: text})


SKELLAM = Skellam(0.5, 9.0, 3, 1, 4.0, 5)
SUM = to_wire(SKELLAM)
EXACT = to_wire(DiscreteGaussian(0.5, 2.0, 3, 1, 4.0, 5))
assert isinstance(SUM, dict)
assert isinstance(EXACT, dict)
GOOD: wire.Value = {0: "gaussian", 1: "1.0"}


@pytest.mark.parametrize(
    "value",
    [
        7,
        [],
        {},
        {0: "gaussian"},
        {0: "gaussian", 1: 1},
        {0: "gaussian", 1: "1.0", 2: "1.0"},
        {0: "laplace", 1: "1.0"},
        {0: "os.system", 1: "1.0"},
        {0: "poisson-gaussian", 1: "1.5", 2: "1.0"},
        {0: "repeated", 1: GOOD, 2: 0},
        {0: "repeated", 1: GOOD, 2: 10**6 + 1},
        {0: "repeated", 1: {0: "repeated", 1: GOOD, 2: 2}, 2: 2},
        {0: "repeated", 1: {0: "non-private", 1: "x"}, 2: 2},
        {0: "non-private", 1: ""},
        {key: SUM[key] for key in range(6)},
        {0: "skellam", 1: "0.5", 2: "9.0", 3: 3, 4: "4.0", 5: "5.0"},  # none colluding
        SUM | {6: "5.0"},
        SUM | {6: 0},
        SUM | {3: "3"},
        SUM | {4: "1"},
        SUM | {2: "1e300"},
        SUM | {3: 2**62},
        SUM | {4: 1001},
        SUM | {7: 1},
        EXACT | {2: "0.4"},
        EXACT | {6: "5.0"},
        EXACT | {6: 2**62},
        {0: "repeated", 1: SUM, 2: 2},
        {0: "non-private", 1: "x" * 501},
    ],
)
def test_anything_else_is_refused(value: wire.Value) -> None:
    with pytest.raises(ProtocolError):
        from_wire(value)


def test_without_amplification_forgets_the_sampling_only() -> None:
    step = PoissonGaussian(0.01, 1.5)
    assert without_amplification(step) == Gaussian(1.5)
    assert without_amplification(Repeated(step, 7)) == Repeated(Gaussian(1.5), 7)
    for event in (Gaussian(1.0), Repeated(Gaussian(1.0), 2), NonPrivate("x")):
        assert without_amplification(event) == event
    assert without_amplification(SKELLAM) == Skellam(1.0, 9.0, 3, 1, 4.0, 5)


@pytest.mark.parametrize("colluding", [None, 3, 1000])
def test_more_colluders_than_planned_leave_the_own_share(colluding: int | None) -> None:
    """The protection of that sum promises nothing against so many."""
    skellam = Skellam(0.5, 9.0, 5, 2, 4.0, 5)
    assert seen(skellam, colluding) == Skellam(0.5, 9.0, 1, 2, 4.0, 5)
    gaussian = DiscreteGaussian(0.5, 2.0, 5, 2, 4.0, 5)
    assert seen(gaussian, colluding) == DiscreteGaussian(0.5, 2.0, 1, 2, 4.0, 5)
    for few in (0, 1, 2):
        assert seen(skellam, few) == skellam
        assert seen(gaussian, few) == gaussian
    for event in (Gaussian(1.0), Repeated(Gaussian(1.0), 2), NonPrivate("x")):
        assert seen(event, colluding) == event
