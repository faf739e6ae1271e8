# SPDX-License-Identifier: Apache-2.0
"""Whole runs whose sum alone is private: what is opened, what moves, who may fail."""

from __future__ import annotations

import contextlib
import itertools
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

import secure_fl as sfl
from secure_fl.engines.rounds import Rounds
from secure_fl.errors import BudgetExceeded, EngineError, TooFewClients, UsageError
from secure_fl.privacy import (
    DiscreteGaussian,
    Ledger,
    Skellam,
    epsilon,
    private_update,
)
from secure_fl.randomness import SeededInsecure
from secure_fl.rotation import rotate
from secure_fl.transcript import Transcript

from .distributed import (
    KEYHOLDER,
    PROTECTIONS,
    Recording,
    changed,
    noise_alone,
    plan,
    sends,
    trainer,
    trainers,
)
from .support import NAMES, Trainer, start
from .support import plan as local_plan

ALPHA = 1e-6  # how often a test of what is random fails where all is well
MOMENTUM = 'momentum = 0.9\nschedule = "linear"'


def log_of(finished: sfl.Run) -> Transcript:
    return Transcript.from_bytes(finished.files["transcript.cbor"])


def down(r: sfl.ClientRound) -> sfl.PrivateUpdate:
    raise EngineError("the file server is down")


def away_once(fit: Trainer) -> tuple[Trainer, list[int]]:
    """Fails in the first attempt; what it is asked is counted."""
    calls: list[int] = []

    def wrapped(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        calls.append(r.round)
        if len(calls) == 1:
            raise EngineError("on the way")
        return fit(r)

    return wrapped, calls


@pytest.mark.parametrize("unit", ["record", "client"])
@pytest.mark.parametrize(("kind", "keys"), PROTECTIONS)
def test_the_model_is_what_the_updates_come_to(unit: str, kind: str, keys: str) -> None:
    made = Recording(trainers())
    extra = MOMENTUM if unit == "record" else ""
    asked = plan(unit=unit, kind=kind, keys=keys, rounds=3, extra=extra)
    finished = sfl.run(asked, made.clients, model=start())
    assert finished.plan.values == start().size == 82
    everyone = {index: list(NAMES) for index in range(3)}
    assert finished.model.digest() == made.model(finished.plan, everyone)
    assert finished.model.digest() != start().digest()
    for vectors in made.sent.values():
        assert (
            {v.size for v in vectors.values()} == {finished.plan.grid.padded} == {128}
        )


def test_the_same_with_a_key_holder() -> None:
    made = Recording(trainers())
    kind, keys = KEYHOLDER
    finished = sfl.run(plan(kind=kind, keys=keys), made.clients, model=start())
    everyone = {index: list(NAMES) for index in range(2)}
    assert finished.model.digest() == made.model(finished.plan, everyone)


def test_it_learns() -> None:
    """40 records and epsilon 8: the label is the sign of the first feature."""
    fit = {name: trainer(i) for i, name in enumerate(NAMES)}
    many = plan(rounds=8, extra="learning_rate = 2.0")
    finished = sfl.run(many, fit, model=start(), random=SeededInsecure(b"learn"))
    weight = finished.model.arrays["weight"]
    told = np.argmax(np.abs(weight[1] - weight[0]))
    assert told == 0
    assert weight[1, 0] > weight[0, 0]


def test_a_dropout_leaves_a_sum_of_the_others() -> None:
    made = Recording({**trainers(), "clinic-b": down})
    finished = sfl.run(plan(), made.clients, model=start())
    others = [n for n in NAMES if n != "clinic-b"]
    assert finished.model.digest() == made.model(
        finished.plan, {0: others, 1: others}
    ), "the normaliser is that of the survivors"


def test_fewer_than_the_plan_allows_open_nothing(tmp_path: Path) -> None:
    clients = {**trainers(), "clinic-b": down, "clinic-c": down}
    home = tmp_path / "home"
    with pytest.raises(TooFewClients):
        sfl.run(plan(), clients, model=start(), home=home)
    ledger = Ledger(home / "clients" / "clinic-a" / "ledger.sqlite", client="clinic-a")
    assert ledger.charged("clinics") == []
    ledger.close()


@pytest.mark.parametrize(
    ("kind", "keys", "unit", "noise"),
    [
        ("masking", "", "record", "skellam"),
        ("masking", "", "client", "skellam"),
        ("masking", "", "record", "discrete-gaussian"),
        ("masking", "", "client", "discrete-gaussian"),
        ("ckks", "one-time", "record", "skellam"),
    ],
)
def test_the_noise_of_a_sum_is_what_was_accounted(
    kind: str, keys: str, unit: str, noise: str
) -> None:
    """At the largest dropout, with as many clients colluding as the plan allows.

    Gradients are zero.  One of four members is gone, and one that is in the sum adds
    no noise, so that just the shares are left that the accountant counts on.
    """
    size = 4096  # a whole block: rotating back loses nothing
    model = sfl.GlobalModel({"w": np.zeros(size, np.float32)})

    def none(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        return sends(r, np.zeros(size, np.int64))

    clients: dict[str, Trainer] = dict.fromkeys(NAMES, noise_alone)
    clients["clinic-b"], clients["clinic-c"] = down, none
    asked = plan(
        unit=unit,
        kind=kind,
        keys=keys,
        noise=noise,
        rounds=1,
        extra="learning_rate = 1.0",
    )
    # Skellam is repeatable; the other draws from its own source, and only that.
    random = SeededInsecure(b"noise") if noise == "skellam" else None
    finished = sfl.run(asked, clients, model=model, random=random)
    grid = finished.plan.grid
    scale = 3 * 40 if unit == "record" else 3  # the normaliser, and nothing else
    drawn = finished.model.flatten().astype(np.float64) * scale / grid.step
    assert grid.shares == 2
    event = finished.plan.release
    assert isinstance(event, Skellam | DiscreteGaussian)
    share = event.variance if isinstance(event, Skellam) else event.deviation**2
    accounted = event.shares * share
    assert accounted == pytest.approx(
        (grid.noise_multiplier * grid.clip_norm / grid.step) ** 2
    )
    found = float((drawn**2).sum() / accounted)
    low, high = stats.chi2.ppf([ALPHA / 2, 1 - ALPHA / 2], size)
    assert low < found < high
    # All four would add half as much again: no less than what was accounted.
    assert abs(drawn.mean()) < 5 * np.sqrt(accounted / size)


def test_noise_is_new_in_every_round() -> None:
    made = Recording(dict.fromkeys(NAMES, noise_alone))
    sfl.run(plan(), made.clients, model=start())
    vectors = [v for sent in made.sent.values() for v in sent.values()]
    correlation = np.corrcoef(vectors) - np.eye(len(vectors))
    assert np.abs(correlation).max() < 6 / np.sqrt(vectors[0].size)


@pytest.mark.parametrize(("kind", "keys"), PROTECTIONS)
def test_the_noise_that_is_opened_repeats_nothing(kind: str, keys: str) -> None:
    """Two rounds' opened sums, and one with itself shifted, do not correlate.

    Gradients are zero: the model moves by the noise alone, once in each round, and is
    rotated as the round was: what repeats in the words would not show in the model.
    """
    size = 4096  # a whole block: rotating again gives what was opened
    model = sfl.GlobalModel({"w": np.zeros(size, np.float32)})
    models: list[np.ndarray] = []

    def noting(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        if r.client == NAMES[0]:
            models.append(r.model.flatten().astype(np.float64))
        return noise_alone(r)

    clients: dict[str, Trainer] = dict.fromkeys(NAMES, noting)
    asked = plan(kind=kind, keys=keys, rounds=2, extra="learning_rate = 1.0")
    random = SeededInsecure(b"independent")
    finished = sfl.run(asked, clients, model=model, random=random)
    models.append(finished.model.flatten().astype(np.float64))
    assert len(models) == 3
    first, second = (
        rotate(after - before, finished.plan.rotation(index))
        for index, (before, after) in enumerate(itertools.pairwise(models))
    )
    shifts = (1, 2, 64, size // 2)  # chunks are of 64 words
    pairs = [(first, second), *((first, np.roll(first, by)) for by in shifts)]
    found = [abs(float(np.corrcoef(a, b)[0, 1])) for a, b in pairs]
    # Of independent normals: about normal, with a variance of 1 / size.
    most = stats.norm.isf(ALPHA / 2 / len(pairs)) / np.sqrt(size)
    assert max(found) < most


def test_an_attempt_that_fails_is_made_again_with_the_same_bits(tmp_path: Path) -> None:
    """Two are away in the first attempt: nobody's vector left, so that the others'
    updates go into the second one as they are, under the charge they have."""
    clients = trainers()
    clients["clinic-c"], third = away_once(clients["clinic-c"])
    clients["clinic-d"], fourth = away_once(clients["clinic-d"])
    made = Recording(clients)
    finished = sfl.run(plan(rounds=1), made.clients, model=start())
    assert third == fourth == [0, 0]
    assert finished.model.digest() == made.model(finished.plan, {0: list(NAMES)})


def test_a_spent_budget_is_refused_before_any_noise(tmp_path: Path) -> None:
    home = tmp_path / "home"
    sfl.run(plan(), trainers(), model=start(), home=home)
    asked: list[str] = []

    def watched(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        asked.append(r.client)
        return noise_alone(r)

    with pytest.raises(BudgetExceeded):
        sfl.run(plan(), dict.fromkeys(NAMES, watched), model=start(), home=home)
    assert asked == []


@pytest.mark.parametrize(
    "later",
    [
        # To everybody else together the earlier sum had one share.
        local_plan(rounds=1, epsilon=4.0, noise_multiplier=20.0),
        # Its masking was made for one who colludes: so has it to two.
        changed(
            plan(rounds=1),
            {
                "[parties]": "[parties]\nmax_colluding = 2",
                "epsilon = 8.0": "epsilon = 4.0",
                "spare = 1": "spare = 3",
            },
        ),
    ],
    ids=["local", "two collude"],
)
def test_an_earlier_sum_counts_in_the_view_of_the_run(
    tmp_path: Path, later: sfl.Plan
) -> None:
    """The two together are within the limit only as the earlier plan saw itself."""
    home = tmp_path / "home"
    first = changed(plan(rounds=1), {"spare = 1": "spare = 4"})
    earlier = sfl.run(first, trainers(), model=start(), home=home)
    release = later.with_values(start().size).release
    limit = later.privacy.epsilon
    assert epsilon([earlier.plan.release, release], delta=1e-5).value < limit
    asked: list[str] = []

    def watched(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        asked.append(r.client)
        return noise_alone(r)

    with pytest.raises(BudgetExceeded) as caught:
        sfl.run(later, dict.fromkeys(NAMES, watched), model=start(), home=home)
    assert asked == []
    assert caught.value.projected > limit
    path = home / "clients" / "clinic-a" / "ledger.sqlite"
    with contextlib.closing(Ledger(path, client="clinic-a")) as ledger:
        assert ledger.charged("clinics") == [earlier.plan.release]
        spent = [
            ledger.spent("clinics", delta=1e-5, view=view).value
            for view in (1, 2, None)
        ]
    assert spent[0] < limit < spent[1] == spent[2] == caught.value.spent


def test_what_is_not_on_the_grid_stays_here() -> None:
    """Half a step would tell which client sent it, and carries no noise of its own."""

    def half(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        return private_update(np.full(128, 0.5), r._reserve())

    def long(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        return sends(r, np.zeros(129, np.int64))

    def huge(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        return private_update(np.full(128, 2.0**53), r._reserve())

    for wrong in (half, long, huge):
        made = Recording({**trainers(), "clinic-d": wrong})
        finished = sfl.run(plan(rounds=1), made.clients, model=start())
        assert finished.model.digest() == made.model(
            finished.plan, {0: list(NAMES[:3])}
        )


def test_an_update_that_is_not_finite_is_refused() -> None:
    def diverged(r: sfl.ClientRound) -> sfl.PrivateUpdate:
        grid = r.plan.grid
        r._reserve()
        grid.noised(
            np.full(grid.values, np.nan),
            rotation=r.plan.rotation(r.round),
            random=r._random,
        )
        raise AssertionError("it was taken")

    with pytest.raises(UsageError, match="not finite"):
        sfl.run(plan(), {**trainers(), "clinic-a": diverged}, model=start())


def test_an_unprotected_update_is_refused() -> None:
    def exact(r: sfl.ClientRound) -> object:
        return sfl.unprotected(np.zeros(128), reason="a rehearsal")

    clients = {**trainers(), "clinic-a": exact}
    with pytest.raises(UsageError, match="private updates only"):
        sfl.run(plan(), clients, model=start())  # type: ignore[arg-type]


def test_noise_that_cannot_be_drawn_is_told_before_anything_is_charged(
    tmp_path: Path,
) -> None:
    """An exact discrete Gaussian has no seeded source."""
    with pytest.raises(UsageError):
        sfl.run(
            plan(noise="discrete-gaussian"),
            trainers(),
            model=start(),
            out=tmp_path / "out",
            random=SeededInsecure(b"test"),
        )
    assert not (tmp_path / "out").exists()


def test_a_start_of_another_size_is_refused() -> None:
    other = changed(plan(), {'kind = "custom"': 'kind = "custom"\nvalues = 83'})
    with pytest.raises(sfl.errors.PlanError, match="model has 82") as caught:
        sfl.run(other, trainers(), model=start())
    assert caught.value.key == "model.values"


@pytest.mark.parametrize("kind", ["masking", "ckks"])
def test_a_killed_run_goes_on_with_its_velocity(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    """Killed in the third of four rounds: the model is the one of the kept vectors."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    asked = plan(kind=kind, rounds=4, extra=MOMENTUM, keep=True)
    made = Recording(trainers())
    finish = Rounds._finish_round

    def crash(self: Rounds, index: int, *rest: object) -> object:
        if index == 2:
            raise KeyboardInterrupt
        return finish(self, index, *rest)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Rounds, "_finish_round", crash)
        with pytest.raises(KeyboardInterrupt):
            sfl.run(asked, made.clients, model=start(), out=tmp_path / "out")
    finished = sfl.run(
        asked, made.clients, model=start(), out=tmp_path / "out", resume=True
    )
    everyone = {index: list(NAMES) for index in range(4)}
    assert finished.model.digest() == made.model(finished.plan, everyone)
    sfl.verify_run(tmp_path / "out")  # opens every sum again, from the kept vectors


@pytest.mark.parametrize("unit", ["record", "client"])
@pytest.mark.parametrize(("kind", "keys"), [*PROTECTIONS, KEYHOLDER])
def test_kept_vectors_open_every_sum_again(
    tmp_path: Path, unit: str, kind: str, keys: str
) -> None:
    asked = plan(unit=unit, kind=kind, keys=keys, keep=True)
    clients = {**trainers(), "clinic-a": down}
    sfl.run(asked, clients, model=start(), out=tmp_path / "out")
    sfl.verify_run(tmp_path / "out")
