# SPDX-License-Identifier: Apache-2.0
"""Who may fail, where, and what it costs: the others' sum is opened, and exact."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import secure_fl as sfl
from secure_fl.errors import EngineError, FaultyClient, TooFewClients, UsageError
from secure_fl.transcript import KEY_HOLDER

from ..engines import distributed
from ..engines.support import NAMES, plan
from .engines import SELDOM_FAR, Engine, Fit
from .known import down, known, model_of, verified

VICTIM = NAMES[1]
OTHERS = [n for n in NAMES if n != VICTIM]
# The n-th answer of a member in an attempt, and whether its update is in the sum then.
STEPS = {
    "keys": (0, False),
    "shares": (1, False),
    "vectors": (2, False),
    "consistency": (3, True),
    "unmask": (4, True),
}
LONG = pytest.mark.long


@pytest.mark.parametrize(
    "step",
    [
        "keys",
        pytest.param("shares", marks=LONG),
        "vectors",
        pytest.param("consistency", marks=LONG),
        "unmask",
    ],
)
@pytest.mark.parametrize(
    ("kind", "keys"), [("masking", ""), pytest.param("ckks", "one-time", marks=LONG)]
)
def test_an_answer_that_is_lost(
    engine: Engine, step: str, kind: str, keys: str
) -> None:
    """Four members, of whom three are enough; the next round has all of them again."""
    nth, inside = STEPS[step]
    engine.lose(VICTIM, nth)
    finished = engine.start(plan(kind=kind, keys=keys), known())
    assert engine.all_lost
    expected = {0: list(NAMES) if inside else OTHERS, 1: list(NAMES)}
    assert finished.survivors == expected
    assert finished.model.digest() == model_of(finished.plan, expected)
    verified(finished)
    # What may have left its host is charged, and nothing that was opened is not.
    states = [r.state for r in engine.releases(VICTIM)]
    assert states[-1] == "released"
    assert states[:-1] == (
        ["sent"] if step == "vectors" else ["released"] if inside else []
    )


def test_a_dropout_of_a_distributed_sum(engine: Engine) -> None:
    engine.lose(VICTIM, STEPS["vectors"][0])
    finished = engine.start(distributed.plan(rounds=1), known())
    assert engine.all_lost
    assert finished.survivors == {0: OTHERS}
    assert finished.model.digest() == model_of(finished.plan, {0: OTHERS})
    verified(finished)


@pytest.mark.parametrize("nth", [1, pytest.param(2, marks=LONG)])
def test_a_key_holder_that_is_lost_costs_an_attempt(engine: Engine, nth: int) -> None:
    engine.lose(KEY_HOLDER, nth)
    finished = engine.start(plan(kind="ckks", keys="keyholder"), known())
    assert engine.all_lost
    expected = {index: list(NAMES) for index in range(2)}
    # What it has released it never releases again: the round is then lost with it.
    if nth == 1:
        assert finished.attempts == [1, 0]
    else:
        del expected[0]
    assert finished.survivors == expected
    assert finished.model.digest() == model_of(finished.plan, expected)
    verified(finished)


def test_a_client_that_cannot_train(engine: Engine) -> None:
    finished = engine.start(plan(rounds=1), {**known(), VICTIM: down})
    expected = {0: OTHERS}
    assert finished.survivors == expected
    assert finished.model.digest() == model_of(finished.plan, expected)
    verified(finished)
    clients = finished.claim["clients"]
    assert clients[VICTIM]["epsilon"] == 0
    assert clients[NAMES[0]]["epsilon"] > 0
    assert engine.releases(VICTIM) == []


def test_a_trainer_that_fails_after_its_noise_is_charged(engine: Engine) -> None:
    """That it is missing may tell what its noise was: its charge stays, twice here."""

    def fails_late(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        r._reserve()
        raise EngineError("account 4711 has a negative balance")

    finished = engine.start(plan(), {**known(), VICTIM: fails_late})
    assert finished.survivors == dict.fromkeys(range(2), OTHERS)
    verified(finished)
    assert finished.charges(VICTIM) == [("reserved", True)] * 2
    assert b"negative balance" not in finished.files()


def test_a_training_that_diverges_is_charged(engine: Engine) -> None:
    def diverges(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        head = r.load(nn.Linear(40, 2))
        private = r.make_private(
            head,
            torch.optim.SGD(head.parameters(), lr=float("inf")),
            DataLoader(TensorDataset(torch.ones(40, 40), torch.ones(40).long())),
            nn.CrossEntropyLoss(),
        )
        for inputs, labels in private.loader:
            private.criterion(private.model(inputs), labels).backward()
            private.optimizer.step()
        return private.update()

    finished = engine.start(plan(rounds=1), {**known(), VICTIM: diverges})
    assert finished.survivors == {0: OTHERS}
    assert finished.model.digest() == model_of(finished.plan, {0: OTHERS})
    assert finished.charges(VICTIM) == [("reserved", True)]
    verified(finished)


@SELDOM_FAR
def test_a_trainer_blames_nobody(engine: Engine) -> None:
    def blames(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        raise FaultyClient(NAMES[0], "row 17")

    finished = engine.start(plan(rounds=1), {**known(), VICTIM: blames})
    assert finished.survivors == {0: OTHERS}
    assert finished.report["failures"] == []
    assert b"row 17" not in finished.files()


@SELDOM_FAR
@pytest.mark.parametrize("wrong", ["no update", "another round's"])
def test_what_is_no_update_of_this_round_is_in_no_sum(
    engine: Engine, wrong: str
) -> None:
    """A mistake in a trainer's code: told at once on one machine, and elsewhere a
    dropout, for nobody waits there for a developer."""
    clients = known()
    fit = clients[VICTIM]
    kept: list[sfl.PrivateUpdate] = []

    def mistaken(r: sfl.ClientRound) -> Any:
        if wrong == "no update":
            return np.zeros(82)
        kept.append(fit(r))
        return kept[0]

    clients[VICTIM] = mistaken
    first = {0: OTHERS} if wrong == "no update" else {0: list(NAMES)}
    if engine.near:
        reason = "PrivateUpdate" if wrong == "no update" else "another round"
        with pytest.raises(UsageError, match=reason):
            engine.start(plan(), clients)
    else:
        finished = engine.start(plan(), clients)
        assert finished.survivors == {**first, 1: OTHERS}
        verified(finished)


# -- attempts that are made again ------------------------------------------------------


def first_time(fit: Fit, *, late: bool) -> Fit:
    """Fails once: before anything is charged, or ``late``, when all is made."""
    calls: list[int] = []

    def wrapped(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        calls.append(r.round)
        if len(calls) == 1:
            if late:
                fit(r)
            raise EngineError("account 4711 has a negative balance")
        return fit(r)

    return wrapped


@pytest.mark.parametrize("late", [False, True])
def test_an_attempt_that_fails_is_made_again(engine: Engine, late: bool) -> None:
    """Two are away in the first attempt, and three are needed."""
    clients = known()
    for name in NAMES[2:]:
        clients[name] = first_time(clients[name], late=late)
    finished = engine.start(plan(rounds=1), clients)
    assert finished.attempts == [1]
    expected = {0: list(NAMES)}
    assert finished.survivors == expected
    assert finished.model.digest() == model_of(finished.plan, expected)
    verified(finished)
    assert b"negative balance" not in finished.files()
    again = [("reserved", True)] * late
    for name in NAMES[2:]:
        assert finished.charges(name) == [*again, ("released", True)]
    # Where nobody's vector had left, the updates that were made go into the second
    # attempt as they are, under the charge they have.
    left = [] if engine.near else [("sent", True)]
    for name in NAMES[:2]:
        assert finished.charges(name) == [*left, ("released", True)]


def test_too_few_clients_open_nothing(engine: Engine) -> None:
    with pytest.raises(TooFewClients):
        engine.start(plan(rounds=1), {**known(), NAMES[1]: down, NAMES[2]: down})
    assert not (engine.out / "transcript.cbor").exists()
    assert not (engine.out / "report.json").exists()
    states = {r.state for name in NAMES for r in engine.releases(name)}
    assert "released" not in states
    assert engine.releases(NAMES[1]) == engine.releases(NAMES[2]) == []
    # Where nobody's vector had left, nobody was charged.
    assert states == ({"aborted"} if engine.near else {"sent"})
