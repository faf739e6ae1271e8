# SPDX-License-Identifier: Apache-2.0
"""What a member would reach alone: by the same steps, whatever the plan's mode."""

from __future__ import annotations

import numpy as np
import pytest

import secure_fl as sfl
from secure_fl.engines.baselines import train_alone
from secure_fl.errors import UsageError
from secure_fl.privacy import PoissonGaussian, Repeated, epsilon, private_update

from . import distributed, support

SIZE = 82


def steady(r: sfl.ClientRound) -> sfl.PrivateUpdate:
    """Minus a gradient of (round + 1) in every value."""
    return private_update(np.full(SIZE, -float(r.round + 1)), r._reserve())


def test_the_steps_are_those_of_the_plans_aggregator() -> None:
    extra = 'learning_rate = 0.5\nmomentum = 0.5\nschedule = "linear"'
    plan = distributed.plan(rounds=3, extra=extra)
    model = train_alone(plan, "clinic-b", steady, support.start()).model
    velocity, value = 0.0, np.float32(0.0)
    for index in range(3):
        velocity = 0.5 * velocity + (index + 1)
        value = np.float32(float(value) - 0.5 * (3 - index) / 3 * velocity)
    assert model.flatten().tolist() == [float(value)] * SIZE


def test_it_pays_with_its_own_noise_for_its_own_records() -> None:
    plan = distributed.plan()
    seen: list[tuple[float, int]] = []

    def watched(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        reservation = r._reserve()
        noise = r.plan.noise_multiplier
        assert reservation.event == Repeated(PoissonGaussian(1.0, noise), 1)
        seen.append((noise, r.plan.member(r.client).records))
        return private_update(np.zeros(SIZE), reservation)

    found = train_alone(plan, "clinic-a", watched, support.start())
    train_alone(plan, "clinic-a", watched, support.start(), records=160)
    noise = plan.alone().noise_multiplier
    assert seen == [(noise, 40)] * 2 + [(noise, 160)] * 2
    whole = epsilon([PoissonGaussian(1.0, noise)] * 2, delta=plan.privacy.delta)
    assert found.epsilon == pytest.approx(whole.value, rel=1e-6)


def test_a_real_trainer_in_both_modes() -> None:
    """The local trainer of the same clinic, for either plan."""
    for plan in (support.plan(rounds=1), distributed.plan(rounds=1)):
        found = train_alone(plan, "clinic-a", support.trainer(0), support.start())
        assert found.model.digest() != support.start().digest()
        assert 0 < found.epsilon <= plan.privacy.epsilon


def test_one_client_alone_is_nothing_to_compare_with() -> None:
    with pytest.raises(UsageError, match="no sum to hide in"):
        train_alone(
            distributed.plan(unit="client"), "clinic-a", steady, support.start()
        )
