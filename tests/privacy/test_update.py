# SPDX-License-Identifier: Apache-2.0
"""The claim travels with the value, and neither is made by hand, printed or copied."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from numpy.typing import NDArray

from secure_fl.errors import UsageError
from secure_fl.privacy import (
    Gaussian,
    PrivateUpdate,
    Reservation,
    Unprotected,
    private_update,
    unprotected,
)

RESERVATION = Reservation(
    entry_hash=bytes(32),
    lineage="loans",
    run_id=bytes(16),
    round_index=0,
    attempt=0,
    event=Gaussian(2.0),
    unit="record",
    adjacency="add-or-remove-one",
    delta=1e-6,
    limit=3.0,
)
SECRET = 0.123456789


def test_an_update_carries_its_claim_and_a_copy_of_its_vector() -> None:
    x = np.array([SECRET, 2.0])
    update = private_update(x, RESERVATION)
    x[0] = 7.0
    assert update.vector.tolist() == [SECRET, 2.0]
    assert update.event == Gaussian(2.0)
    assert update.reservation is RESERVATION
    with pytest.raises(ValueError, match="read-only"):
        update.vector[0] = 1.0


def test_the_escape_hatch_carries_its_reason() -> None:
    out = unprotected(np.array([SECRET], np.float32), reason=" a baseline ")
    assert out.reason == "a baseline"
    assert out.vector.shape == (1,)
    for reason in ("", "  \n"):
        with pytest.raises(UsageError):
            unprotected(np.zeros(2), reason=reason)


def test_nobody_makes_a_claim_by_hand() -> None:
    with pytest.raises(UsageError, match="by hand"):
        PrivateUpdate(object(), np.zeros(2), RESERVATION)


@pytest.mark.parametrize(
    "x", [np.array([1.0, np.nan]), np.array([np.inf]), np.zeros((2, 2)), np.array(1.0)]
)
def test_only_flat_finite_vectors_leave(x: NDArray[np.float64]) -> None:
    with pytest.raises(UsageError):
        private_update(x, RESERVATION)
    with pytest.raises(UsageError):
        unprotected(x, reason="a baseline")


@pytest.mark.parametrize(
    "update",
    [
        private_update(np.array([SECRET]), RESERVATION),
        unprotected(np.array([SECRET]), reason="a baseline"),
    ],
)
def test_updates_do_not_print_copy_or_pickle(
    update: PrivateUpdate | Unprotected,
) -> None:
    assert "123456" not in repr(update)
    for act in (copy.copy, copy.deepcopy, pickle.dumps):
        with pytest.raises(TypeError):
            act(update)
