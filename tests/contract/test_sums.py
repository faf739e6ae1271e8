# SPDX-License-Identifier: Apache-2.0
"""Whole runs: the sums are exact, everybody signs, and nothing is missing."""

from __future__ import annotations

import numpy as np
import pytest

import secure_fl as sfl
from secure_fl.errors import PlanError, UsageError
from secure_fl.privacy import read_export
from secure_fl.transcript import check_signature

from ..engines import distributed
from ..engines.support import NAMES, plan, start, trainers
from .engines import SELDOM_FAR, Engine, Exact, Outcome, Trainer
from .known import known, model_of, verified

MASKING = ("masking", "")
ONE_TIME = ("ckks", "one-time")
KEY_HOLDER = ("ckks", "keyholder")
PROTECTIONS = (MASKING, ONE_TIME, KEY_HOLDER)
LONG = pytest.mark.long
EVERYBODY = {index: list(NAMES) for index in range(2)}


def all_signed_and_exported(engine: Engine, finished: Outcome) -> None:
    """Every member's own signature over the whole log, and over its own ledger."""
    keys = {m.name: m.public_key for m in finished.plan.roster.members}
    log = finished.log
    (artefacts,) = log.of_kind("artefacts")
    signed = {
        e.text(0): e.bytes_(2)
        for e in log.of_kind("signature")
        if e.integer(1) == artefacts.sequence and e.text(0)
    }
    assert set(signed) == set(NAMES)
    for name, signature in signed.items():
        assert check_signature(keys[name], artefacts.hash, signature)
    contexts = {e.bytes_(2) for e in log.of_kind("round")}
    for name in NAMES:
        data = (finished.out / "ledgers" / f"{name}.cbor").read_bytes()
        export = read_export(data, public_key=keys[name], client=name)
        assert export.releases() == engine.releases(name)
        assert {c for r in export.releases() for c in r.contexts} == contexts


@pytest.mark.parametrize(("kind", "keys"), PROTECTIONS)
def test_local_sums_are_exact(engine: Engine, kind: str, keys: str) -> None:
    finished = engine.start(plan(kind=kind, keys=keys), known())
    assert finished.survivors == EVERYBODY
    assert finished.model.digest() == model_of(finished.plan, EVERYBODY)
    assert finished.report["simulation"] == engine.near
    found = verified(finished)
    assert 0 < max(found.epsilon.values()) <= 6
    all_signed_and_exported(engine, finished)
    for name in NAMES:
        assert [r.state for r in engine.releases(name)] == ["released"] * 2
    with pytest.raises(UsageError, match="is finished"):
        engine.go_on()


@pytest.mark.parametrize(
    ("kind", "keys", "unit"),
    [
        (*MASKING, "record"),
        (*ONE_TIME, "record"),
        pytest.param(*KEY_HOLDER, "record", marks=LONG),
        *(pytest.param(*p, "client", marks=LONG) for p in PROTECTIONS),
    ],
)
def test_distributed_sums_are_exact(
    engine: Engine, kind: str, keys: str, unit: str
) -> None:
    """Kept vectors: the verifier opens every sum again, and follows the model."""
    extra = 'momentum = 0.9\nschedule = "linear"' if unit == "record" else ""
    asked = distributed.plan(kind=kind, keys=keys, unit=unit, extra=extra, keep=True)
    finished = engine.start(asked, known())
    assert finished.plan.values == start().size
    assert finished.survivors == EVERYBODY
    assert finished.model.digest() == model_of(finished.plan, EVERYBODY)
    verified(finished)


@SELDOM_FAR
@pytest.mark.parametrize(
    "way",
    [
        "local",
        pytest.param("distributed", marks=LONG),
        pytest.param("distributed one-time", marks=LONG),
    ],
)
def test_what_was_trained_moves_the_model(engine: Engine, way: str) -> None:
    """Real gradients and noise: the model is another one, and each run has its own."""
    kind, keys = ONE_TIME if way.endswith("one-time") else MASKING
    if way == "local":
        finished = engine.start(plan(kind=kind, keys=keys, rounds=1), trainers())
    else:
        asked = distributed.plan(kind=kind, keys=keys, rounds=1)
        finished = engine.start(asked, distributed.trainers())
    moved = finished.model.flatten()
    assert np.isfinite(moved).all()
    assert np.count_nonzero(moved) > moved.size / 2
    verified(finished)


def test_an_unprotected_update_makes_epsilon_infinite(engine: Engine) -> None:
    clients: dict[str, Trainer] = {
        **known(),
        NAMES[0]: Exact(np.full(start().size, 0.5)),
    }
    finished = engine.start(plan(rounds=1), clients)
    claim = finished.claim
    assert claim["clients"][NAMES[0]]["epsilon"] == "infinity"
    assert claim["consortium"]["epsilon"] == "infinity"
    assert "without privacy" in (finished.out / "report.txt").read_text()
    found = verified(finished)
    assert found.epsilon[NAMES[0]] == float("inf")
    assert max(found.epsilon[n] for n in NAMES[1:]) < 6


def test_another_start_is_refused_before_anybody_is_asked(engine: Engine) -> None:
    text = plan().source.decode()
    other = f'kind = "custom"\nstart_sha256 = "{"0" * 64}"'
    asked = sfl.Plan(text.replace('kind = "custom"', other).encode())
    with pytest.raises(PlanError, match="another model"):
        engine.start(asked, known())
    assert all(engine.releases(name) == [] for name in NAMES)
