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
    Event,
    Gaussian,
    NonPrivate,
    PoissonGaussian,
    Repeated,
    from_wire,
    to_wire,
    without_amplification,
)

POSITIVE = st.floats(min_value=0, exclude_min=True, allow_infinity=False)
RATES = st.floats(min_value=0, max_value=1, exclude_min=True)
MECHANISMS = st.one_of(
    st.builds(Gaussian, POSITIVE), st.builds(PoissonGaussian, RATES, POSITIVE)
)
EVENTS: st.SearchStrategy[Event] = st.one_of(
    MECHANISMS,
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


@pytest.mark.parametrize(
    "text",
    ["1", "1.00", "+1.0", " 1.0", "1_0.0", "1e0", "0.0", "-1.0", "nan", "inf", "x", ""],
)
def test_a_number_has_one_spelling(text: str) -> None:
    with pytest.raises(ProtocolError):
        from_wire({0: "gaussian", 1: text})


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
