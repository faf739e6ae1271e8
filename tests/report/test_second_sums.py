# SPDX-License-Identifier: Apache-2.0
"""The second verifier on plans whose sums alone are private.

Its grid, rotation and Renyi accounting are code of its own, from the specification.
They are compared with the package's, and with what is true.
"""

from __future__ import annotations

import dataclasses
import math
import random
import re
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.stats import skellam

import secure_fl as sfl
from secure_fl.errors import PlanError, VerificationError
from secure_fl.privacy import accounting, seen
from secure_fl.privacy.events import (
    DiscreteGaussian,
    Event,
    Gaussian,
    PoissonGaussian,
    Skellam,
    to_wire,
)
from secure_fl.privacy.groups import group_epsilon
from secure_fl.report import verify_run

from .mutations_books import EVENT, LIMIT, RUN_ID, Line, Lines
from .mutations_folder import EVERYBODY, Folder
from .mutations_ledger import edited
from .mutations_sums import SUMS
from .sums import play
from .support import Made
from .test_second_verifier import refusal, second, start, write

SKELLAMS = (
    Skellam(0.05, 100.0, 4, 1, 10.0, 16),
    Skellam(1.0, 9e6, 2, 1, 1011.3, 128),
    Skellam(0.2, 4.5e5, 3, 2, 1011.3, 128),
    Skellam(0.2, 4.5e11, 3, 2, 1011300.0, 128),
    Skellam(1.0, 9e12, 2, 1, 1011300.0, 2**16),
    Skellam(0.01, 1e12, 999, 1, 1e5, 10000),
    Skellam(0.5, 2.0, 1000, 0, 1.0, 1),
    Skellam(1e-9, 1e3, 2, 1000, 3.0, 9),
    Skellam(1 - 2.0**-40, 1e4, 2, 1, 3.0, 9),
)
EXACT = (
    DiscreteGaussian(0.2, 1000.5, 3, 1, 1011.3, 128),
    DiscreteGaussian(1.0, 0.5, 2, 3, 1.0, 1),
    DiscreteGaussian(0.05, 2.5, 40, 1, 12.0, 2**17),
    DiscreteGaussian(0.5, 0.75, 1000, 0, 3.0, 2),
)


@pytest.fixture(scope="module")
def figures() -> ModuleType:
    import figures as module

    return module


@pytest.fixture(scope="module")
def renyi() -> ModuleType:
    import renyi as module

    return module


def read(event: Event) -> Any:
    """The event as the second verifier reads it in a ledger."""
    import events

    return events.read_event(to_wire(event))


@pytest.mark.parametrize("event", [*SKELLAMS, *EXACT], ids=str)
@pytest.mark.parametrize("count", [1, 25])
def test_both_have_the_same_epsilons(
    figures: ModuleType, event: Event, count: int
) -> None:
    mixed = [event] * count + [Gaussian(20.0), PoissonGaussian(0.1, 8.0)]
    for events in ([event] * count, mixed):
        costs = figures.spent(map(read, events))
        for delta in (1e-3, 1e-5, 1e-10):
            ours = accounting.epsilon(events, delta=delta)
            theirs = figures.epsilon(costs, delta), figures.rdp(costs, delta)
            assert theirs == pytest.approx((ours.value, ours.rdp), rel=1e-9)
        for records in (2, 5):
            group = group_epsilon(events, records=records, delta=1e-5)
            found = figures.group(costs, 1e-5, records)
            assert found == pytest.approx(group, rel=1e-9)


Noise = Callable[[NDArray[np.int64]], NDArray[np.float64]]


def true_divergence(noise: Noise, rate: float, shift: int, a: int) -> float:
    """The larger of both directions, of one value; ``noise`` is a log of masses."""
    x = np.arange(-700, 701)
    without, moved = noise(x), noise(x - shift)
    if rate < 1:
        moved = np.logaddexp(math.log1p(-rate) + without, math.log(rate) + moved)
    keep = np.isfinite(without) & np.isfinite(moved)
    p, q = moved[keep], without[keep]
    return max(
        float(np.logaddexp.reduce(a * one + (1 - a) * other)) / (a - 1)
        for one, other in ((p, q), (q, p))
    )


def skellam_noise(variance: float) -> Noise:
    def logs(x: NDArray[np.int64]) -> Any:
        return skellam.logpmf(x, variance / 2, variance / 2)

    return logs


def two_discrete_gaussians(deviation: float) -> Noise:
    places = np.arange(-1500, 1501)
    one = np.exp(-(places**2) / (2 * deviation**2))
    one /= one.sum()
    two = np.convolve(one, one)  # from -3000

    def logs(x: NDArray[np.int64]) -> Any:
        with np.errstate(divide="ignore"):
            return np.log(two[x + 3000])

    return logs


@pytest.mark.parametrize("rate", [1.0, 0.3, 0.01])
@pytest.mark.parametrize(
    ("noise", "event", "shift", "tight"),
    [
        (skellam_noise(4.0), Skellam(1.0, 2.0, 2, 1, 1, 1), 1, False),
        (skellam_noise(25.0), Skellam(1.0, 12.5, 2, 1, 3, 1), 3, False),
        (skellam_noise(400.0), Skellam(1.0, 200.0, 2, 1, 5, 1), 5, True),
        (two_discrete_gaussians(0.6), DiscreteGaussian(1.0, 0.6, 2, 1, 1, 1), 1, False),
        (two_discrete_gaussians(1.5), DiscreteGaussian(1.0, 1.5, 2, 1, 2, 1), 2, False),
        (two_discrete_gaussians(9.0), DiscreteGaussian(1.0, 9.0, 2, 1, 5, 1), 5, True),
    ],
    ids=lambda value: str(value) if isinstance(value, Event) else "",
)
def test_a_divergence_is_not_below_the_truth(
    renyi: ModuleType, noise: Noise, event: Any, shift: int, tight: bool, rate: float
) -> None:
    bound = renyi.of_sum(read(dataclasses.replace(event, rate=rate)))
    for place, a in enumerate(range(2, 17)):
        true = true_divergence(noise, rate, shift, a)
        assert true * (1 - 1e-6) <= bound[place]
        if tight:  # the noise is nearly Gaussian, and the bound its divergence
            assert bound[place] <= true * 1.05


def test_no_number_of_an_event_is_too_much(figures: ModuleType) -> None:
    """What a member that lies may state has an epsilon, and at once."""
    extremes: list[Event] = [
        Skellam(rate, variance, shares, 1, l2, values)
        for rate in (5e-324, 0.5, 1.0)
        for variance in (1e-50, 1e50)
        for shares in (1, 1000)
        for l2 in (1.0, 1e50)
        for values in (1, 2**53)
    ]
    exact: list[Event] = [
        DiscreteGaussian(rate, deviation, shares, 1, l2, values)
        for rate in (5e-324, 0.5, 1.0)
        for deviation in (0.5, 1e50)
        for shares in (1, 1000)
        for l2 in (1.0, 1e50)
        for values in (1, 2**53)
    ]
    for event in (*extremes, *exact):
        found = figures.figures([read(event)] * 3, 1e-5)
        ours = accounting.epsilon([event] * 3, delta=1e-5).value
        assert float(found["epsilon"]) == pytest.approx(ours, rel=1e-5)
        assert 0 <= found["advantage"] <= 1


@pytest.mark.parametrize(("different", "finite"), [(64, True), (65, False)])
def test_sums_count_among_the_different_mechanisms(
    figures: ModuleType, different: int, finite: bool
) -> None:
    events: list[Event] = [
        Skellam(0.1, 1e4 + i, 2, 1, 3.0, 9) for i in range(different - 32)
    ]
    events += [PoissonGaussian(0.01, 20.0 + i) for i in range(32)]
    costs = figures.spent([read(event) for event in events])
    ours = accounting.epsilon(events, delta=1e-5)
    assert math.isfinite(ours.value) is finite
    assert figures.epsilon(costs, 1e-5) == pytest.approx(ours.value, rel=1e-9)


@pytest.mark.parametrize(
    ("assumed", "colluding", "shares"),
    [
        (1, 0, 4),
        (1, 1, 4),
        (1, 2, 1),  # what hid the others' shares may not hold
        (3, 3, 4),
        (3, 4, 1),
        (0, 1, 1),
        (1, None, 1),
        (1000, None, 1),
    ],
)
@pytest.mark.parametrize("event", [SKELLAMS[0], EXACT[0]], ids=str)
def test_more_colluding_than_assumed_leave_the_own_share(
    figures: ModuleType, event: Any, assumed: int, colluding: int | None, shares: int
) -> None:
    event = dataclasses.replace(event, shares=4, colluding=assumed)
    found = read(event).seen(colluding)
    assert found == read(dataclasses.replace(event, shares=shares))
    assert found == read(seen(event, colluding))
    costs = figures.spent([found]), figures.spent([read(event)])
    dearer, cheaper = (figures.epsilon(cost, 1e-5) for cost in costs)
    assert (dearer > cheaper) is (shares < 4)


@pytest.mark.parametrize("event", [Gaussian(2.0), PoissonGaussian(0.1, 2.0)], ids=str)
def test_noise_of_its_own_nobody_takes_away(event: Event) -> None:
    for colluding in (None, 0, 1000):
        assert read(event).seen(colluding) == read(event)


@pytest.mark.parametrize("event", [SKELLAMS[0], EXACT[0]], ids=str)
def test_clients_of_a_sum_are_those_of_a_plan(event: Event) -> None:
    import events

    good: Any = to_wire(event)
    cases: dict[int, tuple[list[int], list[Any]]] = {
        3: ([1, 1000], [0, -1, 1001, "4", True, 2.0]),
        4: ([0, 1000], [-1, 1001, "1", False, None]),
    }
    for field, (allowed, refused) in cases.items():
        for value in allowed:
            events.read_event({**good, field: value})
        for wrong in refused:
            with pytest.raises(second.Malformed):
                events.read_event({**good, field: wrong})


@pytest.mark.parametrize("block", [1, 2, 16, 64])
def test_butterflies_are_the_matrix_of_walsh(block: int) -> None:
    import moving

    x = np.random.default_rng(1).normal(size=3 * block)
    signs = [
        [(-1.0) ** (i & j).bit_count() for j in range(block)] for i in range(block)
    ]
    expected = x.reshape(3, block) @ np.array(signs) / math.sqrt(block)
    assert moving.butterflies(x, block) == pytest.approx(expected.ravel())


# -- plans -----------------------------------------------------------------------------

# What else a line of the plan may say; each as likely as what stands there.
CHOICES = {
    "max_colluding": ["0", "2", "3"],
    "min_clients": ["4", "2"],
    "mode": ['"local"'],
    "noise": ['"discrete-gaussian"', '"gaussian"'],
    "unit": ['"client"', '"records"'],
    "overlap": ['"overlapping"'],
    "delta": ["0.01", "0.03", "0.3"],
    "clip_norm": ["1", "0.3", "1e-5", "1e9", "1e-310", "1e308"],
    "sampling_rate": ["1", "1.0", "1e-300"],
    "local_steps": ["2"],
    "noise_multiplier": ["0.7", "3", "1e3", "1e9", "1e-9", "1e200", "1e-308"],
    "chunk_words": [
        *("64\nstep = 0.0009765625", "64\nstep = 1e-5", "64\nstep = 1e-300"),
        *("64\nclip = 1.0", "64\nclip = 1e9", "64\nclip = 3.3\nstep = 1e-4"),
        *("64\nword_bits = 16", "64\nword_bits = 24", "64\nword_bits = 64"),
    ],
    "values": ["1", "2", "4095", "5000", "131073", "4294967296", "4294967297", "0"],
    "count": ["1", "100000"],
    "max_attempts": ["10"],
    "learning_rate": ["1", "0", "1e-300"],
    "momentum": ["0", "0.0", "1", "0.999", "-0.5", '"0.5"'],
    "schedule": ['"constant"', '"cosine"'],
    "records": ["40\nweight = 2", "40\nweight = 1", "900000"],
}


def varied(plan: str, seed: int) -> str:
    """The plan with up to three other lines; most often in the unit of clients too."""
    draw = random.Random(seed)
    names = sorted(CHOICES)
    if draw.random() < 0.5:
        plan = plan.replace('unit = "record"', 'unit = "client"')
        plan = plan.replace("sampling_rate = 0.2", "sampling_rate = 1")
        plan = re.sub("momentum = .*\n|schedule = .*\n", "", plan)
        names.remove("learning_rate")  # which only a plan of records has checked
    for name in draw.sample(names, draw.choice([0, 1, 1, 2, 3])):
        line = f"{name} = {draw.choice(CHOICES[name])}"
        plan = re.sub(f"(?m)^{name} = .*$", line, plan, count=1)
    return plan


def package_reads(raw: bytes) -> Any:
    plan = sfl.Plan(raw)
    if not plan.distributed:
        return "local"
    return to_wire(plan.release), plan.grid.step, plan.grid.clip


def second_reads(raw: bytes) -> Any:
    import plan as plans

    start = SimpleNamespace(body=[plans.hash_of(raw)])
    plan = second._check_plan(raw, start, bytes.fromhex(run_id_of(raw)))
    if plan.grid is None:
        return "local"
    event = plan.release
    noise = repr(event.rate), repr(event.scale), event.shares, event.colluding
    wire = dict(enumerate((event.kind, *noise, repr(event.l2), event.values)))
    return wire, plan.step, plan.clip


def run_id_of(raw: bytes) -> str:
    return raw.decode().rpartition('id = "')[2][:32]


@pytest.fixture(scope="module")
def sums() -> Made:
    return play(keep=True)


def test_both_read_the_same_plans(sums: Made) -> None:
    text = sums.files["plan.toml"].decode()
    text = text.replace("[parties]", "[parties]\nmax_colluding = 1\nmin_clients = 3", 1)
    refused = 0
    for seed in range(400):
        raw = varied(text, seed).encode()
        try:
            ours = package_reads(raw)
        except PlanError as error:
            ours = None
            why = str(error)
        if ours is not None:
            assert second_reads(raw) == ours, raw.decode()
            continue
        refused += 1
        with pytest.raises(second.Refused) as caught:
            pytest.fail(f"{why}: {second_reads(raw)}\n{raw.decode()}")
        assert caught.value.file == "plan.toml"
    assert 100 < refused < 350


def test_without_protection_no_sum_hides_a_share(sums: Made) -> None:
    text = sums.files["plan.toml"].decode()
    text = text.replace("keep_vectors = true", "keep_vectors = false")
    second_reads(text.encode())
    raw = text.replace('kind = "masking"', 'kind = "plain"').encode()
    assert raw != text.encode()
    with pytest.raises(PlanError, match=r"protection\.kind"):
        package_reads(raw)
    with pytest.raises(second.Refused) as caught:
        second_reads(raw)
    assert caught.value.check == "V-PLAN-3"


# -- folders ---------------------------------------------------------------------------


def test_started_by_itself_it_opens_the_sums_again(sums: Made, tmp_path: Path) -> None:
    done = start(write(tmp_path, sums.files))
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    assert lines[-1] == "VERIFIED"
    assert "ok           sums: 2 opened again, from vectors to model" in lines
    assert any("counts among the colluding" in line for line in lines)


def test_a_draft_lacks_what_a_run_fills_in(sums: Made, tmp_path: Path) -> None:
    write(tmp_path, sums.files)
    draft, _, _ = sums.files["plan.toml"].decode().partition("[run]")
    filled = "key|aggregator|values|noise_multiplier|start_sha256"
    draft = re.sub(f"(?m)^({filled}) = .*\\n", "", draft)
    said = second.verify(tmp_path, draft.encode()).checks
    assert "plan: its settings are those of the auditor's own copy" in said
    other = draft.replace('schedule = "linear"', 'schedule = "constant"')
    assert refusal(tmp_path, other.encode()).check == "V-PLAN-6"


def test_any_byte_of_a_run_of_sums(sums: Made, tmp_path: Path) -> None:
    write(tmp_path, sums.files)
    for name, data in sums.files.items():
        for at in range(0, len(data), len(data) // 7 + 1):
            changed = data[:at] + bytes([data[at] ^ (1 << at % 8)]) + data[at + 1 :]
            (tmp_path / name).write_bytes(changed)
            assert refusal(tmp_path).file == name
        (tmp_path / name).write_bytes(data)
    second.verify(tmp_path)


# -- other runs of a lineage -----------------------------------------------------------


def later(event: Event, client: str, made: Made) -> Folder:
    """The folder where the client charged another run's release after this run's."""

    def edit(lines: Lines) -> None:
        terms = {RUN_ID: bytes(16), EVENT: to_wire(event), LIMIT: "inf"}
        body = {**lines.reservation(), **terms}
        time = lines.lines[-1].time
        lines.lines.append(Line("reserved", time, body, b"\x01" * 32))

    folder = Folder(made, EVERYBODY, dict(made.files), made)
    edited(edit, client, seal=True)(folder)
    return folder


def both_say(folder: Path) -> dict[str, float]:
    said: dict[str, float] = second.verify(folder).epsilon
    assert said == pytest.approx(verify_run(folder).epsilon, rel=1e-6)
    return said


def both_refuse(folder: Path, file: str) -> None:
    found = refusal(folder)
    assert (found.file, found.check) == (file, "V-BUDGET-1")
    with pytest.raises(VerificationError, match="above the plan's limit") as caught:
        verify_run(folder)
    assert caught.value.file == file


def test_a_local_run_counts_a_share_of_earlier_sums(made: Made, tmp_path: Path) -> None:
    """Its epsilon holds whoever colludes: of a sum only the own share counts."""
    member, file = "bank-d", "ledgers/bank-d.cbor"
    two = Skellam(1.0, 3.5e5, 2, 1, 1000.0, 10000)
    both_refuse(later(two, member, made).write(tmp_path / "two"), file)
    alone = dataclasses.replace(two, variance=7e5, shares=1)
    said = both_say(later(alone, member, made).write(tmp_path / "alone"))
    assert said[member] > max(said[other] for other in said if other != member)


def test_who_colludes_now_took_part_in_earlier_sums(sums: Made, tmp_path: Path) -> None:
    """A run that assumed fewer to collude has fewer honest shares than it said."""
    member, file = "clinic-b", "ledgers/clinic-b.cbor"
    fewer = Skellam(1.0, 3.5e5, 2, 0, 1000.0, 10000)
    both_refuse(later(fewer, member, sums).write(tmp_path / "fewer"), file)
    as_many = dataclasses.replace(fewer, colluding=1)
    said = both_say(later(as_many, member, sums).write(tmp_path / "as many"))
    more = dataclasses.replace(fewer, colluding=2)
    assert said == both_say(later(more, member, sums).write(tmp_path / "more"))


CHECKS = {
    "a share more in an event": "V-MATCH-2",
    "an event with no share": "V-LEDGER-3",
    "an event with more shares than clients": "V-LEDGER-3",
    "an event with one more who may collude": "V-MATCH-2",
    "an event with more who may collude than clients": "V-LEDGER-3",
    "a value less in an event": "V-MATCH-2",
    "an event with no values": "V-LEDGER-3",
    "a sensitivity below a step": "V-LEDGER-3",
    "variance beyond any grid": "V-LEDGER-3",
    "a last digit more of noise": "V-MATCH-2",
    "all noise said to be one client's": "V-MATCH-2",
    "Gaussian noise in an event": "V-MATCH-2",
    "a release without protection": "V-MATCH-2",
    "another unit in a ledger": "V-MATCH-2",
    "claims in another order": "V-REPORT-2",
    "claims.1.consortium.epsilon forged": "V-REPORT-2",
    "releases.clinic-b.0.event.colluding forged": "V-REPORT-2",
    "privacy.noise_multiplier = 0.3": "V-PLAN-4",
    "privacy.overlap = overlapping": "V-PLAN-3",
    "privacy.local_steps = 2": "V-PLAN-3",
    "protection.kind = plain": "V-PLAN-3",
    "protection.clip = 0.5": "V-PLAN-3",
    "protection.word_bits = 12": "V-PLAN-3",
    "model.values = 81": "V-MODEL-2",
    "a clipped value counted": "V-ROUND-5",
    "a model half as far": "V-SUM-6",
    "a model of another size": "V-MODEL-2",
}


@pytest.mark.parametrize("what", CHECKS)
def test_a_lie_falls_at_its_check(sums: Made, what: str, tmp_path: Path) -> None:
    name = f"sums: {what}, signed by all"
    (mutation,) = [mutation for mutation in SUMS if mutation.name == name]
    folder = Folder(sums, EVERYBODY, dict(sums.files), sums)
    mutation.edit(folder)
    assert refusal(folder.write(tmp_path)).check == CHECKS[what]
