# SPDX-License-Identifier: Apache-2.0
"""Plans: strict entries, cross-checks that name the entry, one hash, endorsements."""

from __future__ import annotations

import tracemalloc
from pathlib import Path

import pytest

from secure_fl.errors import PlanError, UsageError
from secure_fl.identity import key_to_text
from secure_fl.plan import Plan, endorse, load_plan, verify_endorsement
from secure_fl.privacy import (
    DiscreteGaussian,
    Gaussian,
    PoissonGaussian,
    Repeated,
    Skellam,
    epsilon,
)

from .consortium import identities

BASE = """
schema = "secure-fl/plan/1"
name = "pilot"

[parties]
members = [
  {{ name = "bank-0", records = 1000 }},
  {{ name = "bank-1", records = 2000, weight = {weight} }},
  {{ name = "bank-2", records = 3000 }},
]
{parties}

[rounds]
count = 3
{rounds}

[privacy]
mode = "local"
unit = "record"
adjacency = "add-or-remove-one"
overlap = "disjoint"
epsilon = 3.0
delta = 1e-5
clip_norm = 1.0
sampling_rate = 0.1
local_steps = 10
{privacy}

[protection]
kind = "masking"
{protection}

[model]
kind = "mlp"
{model}
{rest}
"""


def text(**parts: str) -> str:
    known = {
        "parties": "",
        "rounds": "",
        "privacy": "",
        "protection": "",
        "model": "",
        "rest": "",
        "weight": "1",
    }
    assert set(parts) <= set(known)
    return BASE.format(**known | parts)


def make(**parts: str) -> Plan:
    return Plan(text(**parts).encode())


def test_what_would_take_long_to_parse_is_refused_first() -> None:
    key = b".".join([b"a"] * 300) + b" = 1\n"
    with pytest.raises(PlanError, match="a line with more than 200 dots"):
        Plan(key)
    with pytest.raises(PlanError, match="larger than 1048576 bytes"):
        Plan(b"#" * (2**20 + 1))


def test_defaults_are_the_smallest_that_is_safe() -> None:
    plan = make()
    assert plan.names == ("bank-0", "bank-1", "bank-2")
    assert (plan.threshold, plan.min_clients) == (3, 3)
    assert plan.member("bank-1").records == 2000
    assert plan.encoding.clients == 3
    assert plan.lineage == "pilot"
    assert not plan.complete
    with pytest.raises(UsageError, match="not a member") as caught:
        plan.member("bank-9")
    assert "bank-0" in caught.value.hint


def test_the_finest_step_follows_from_clip_width_roster_and_weights() -> None:
    e = make(weight="4").encoding
    assert e.max_weight == 4
    assert e.clients * e.max_weight * e.largest <= 2**31 - 1
    assert make(protection="step = 0.5").encoding.step == 0.5


@pytest.mark.parametrize(
    ("key", "parts"),
    [
        ("parties.threshold", {"parties": "threshold = 2"}),
        ("parties.threshold", {"parties": "threshold = 4"}),
        ("parties.min_clients", {"parties": "min_clients = 2"}),
        ("parties.min_clients", {"parties": "min_clients = 4"}),
        ("parties.min_clients", {"parties": "max_colluding = 2"}),
        ("parties.max_colluding", {"parties": "max_colluding = -1"}),
        ("parties.unknown", {"parties": "unknown = 1"}),
        ("rounds.spare", {"rounds": "spare = -1"}),
        ("rounds.max_attempts", {"rounds": "max_attempts = 0"}),
        ("privacy.noise_multiplier", {"privacy": "noise_multiplier = 0.0"}),
        ("privacy.noise_multiplier", {"privacy": "noise_multiplier = inf"}),
        ("privacy.noise_multiplier", {"privacy": "noise_multiplier = nan"}),
        ("privacy.epsilon", {"privacy": "noise_multiplier = 0.5"}),
        ("protection.word_bits", {"protection": "word_bits = 7"}),
        ("protection.word_bits", {"protection": 'word_bits = "32"'}),
        ("protection.step", {"protection": "step = 1e-12"}),
        ("protection.clip", {"protection": "clip = 0.0"}),
        ("protection.chunk_words", {"protection": "chunk_words = 1"}),
        ("model.hidden.0", {"model": "hidden = [0]"}),
        ("model", {"model": 'start = "model.safetensors"'}),
        ("extra", {"rest": "[extra]\nkey = 1"}),
        ("parties.members.1.weight", {"weight": "0"}),
        ("parties.members.1.weight", {"weight": "1.5"}),
    ],
)
def test_a_wrong_entry_is_named(key: str, parts: dict[str, str]) -> None:
    with pytest.raises(PlanError) as caught:
        make(**parts)
    assert caught.value.key == key
    assert str(caught.value).startswith(f"{key}: ")


@pytest.mark.parametrize(
    ("line", "by"),
    [
        ('schema = "secure-fl/plan/1"', 'schema = "secure-fl/plan/2"'),
        ("epsilon = 3.0\n", ""),
        ("epsilon = 3.0", "epsilon = inf"),
        ("delta = 1e-5", "delta = 0.5"),
        ("delta = 1e-5", "delta = 0.0"),
        ("delta = 1e-5", "delta = 9e-11"),  # no accountant has so many digits
        ("sampling_rate = 0.1", "sampling_rate = 1.1"),
        ('mode = "local"', 'mode = "trust-me"'),
        ('"bank-2"', '"bank-1"'),
        ('"bank-2"', '"Bank 2"'),
        ("records = 3000", "records = 0"),
        ("count = 3", "count = 0"),
        ("[rounds]", "[rounds"),
        ("[rounds]", "[[rounds]]"),
    ],
)
def test_what_is_promised_has_no_default_and_no_slack(line: str, by: str) -> None:
    source = text()
    assert line in source
    with pytest.raises(PlanError):
        Plan(source.replace(line, by).encode())


def test_a_plan_is_utf_8_toml() -> None:
    with pytest.raises(PlanError, match="UTF-8"):
        Plan(b"\xff")
    with pytest.raises(PlanError, match="not TOML"):
        Plan(b"= 1")
    with pytest.raises(PlanError):
        Plan(b"")


def test_two_members_are_too_few() -> None:
    source = text().replace('  { name = "bank-2", records = 3000 },\n', "")
    with pytest.raises(PlanError) as caught:
        Plan(source.encode())
    assert caught.value.key == "parties.members"


def test_the_hash_is_over_the_exact_bytes() -> None:
    one = make()
    assert len(one.hash) == 32
    assert one.hash == make().hash
    assert one.hash != Plan(one.source + b"\n").hash
    assert one.hash != Plan(one.source.replace(b"pilot", b"Pilot")).hash


def test_a_calibrated_plan_stays_within_its_epsilon() -> None:
    plan = make(rounds="spare = 1")
    assert 0.3 < plan.noise_multiplier < 30
    assert plan.projected_epsilon() <= plan.privacy.epsilon
    # Not much noise is wasted.
    assert plan.projected_epsilon() > 0.95 * plan.privacy.epsilon
    own = make(privacy="noise_multiplier = 20.0")
    assert own.noise_multiplier == 20.0
    assert own.projected_epsilon() < plan.projected_epsilon()


def completed(plan: Plan) -> Plan:
    members = identities(3)
    return plan.completed(
        keys={m.name: key_to_text(m.public_key) for m in members},
        aggregator=key_to_text(identities(4)[3].public_key),
        keyholder=None,
        run_id=b"r" * 16,
        start_sha256=None,
    )


def test_a_completed_plan_names_keys_and_run() -> None:
    plan = make()
    for use in ("roster", "aggregator_key"):
        with pytest.raises(PlanError):
            getattr(plan, use)
    whole = completed(plan)
    assert whole.complete
    assert whole.run_id == b"r" * 16
    assert [m.public_key for m in whole.roster.members] == [
        i.public_key for i in identities(3)
    ]
    assert whole.aggregator_key == identities(4)[3].public_key
    assert whole.hash != plan.hash
    again = Plan(whole.source)
    assert (again.hash, again.threshold) == (whole.hash, whole.threshold)
    assert again.projected_epsilon() == plan.projected_epsilon()


def test_an_endorsement_is_one_members_over_one_plan() -> None:
    whole = completed(make())
    other = completed(make(parties="max_colluding = 0\nmin_clients = 3"))
    members = identities(3)
    for member in members:
        verify_endorsement(whole, member.name, endorse(whole, member))
    with pytest.raises(PlanError, match="bank-1 has not endorsed") as caught:
        verify_endorsement(whole, "bank-1", endorse(whole, members[0]))
    assert caught.value.hint
    with pytest.raises(PlanError, match="not endorsed"):
        verify_endorsement(whole, "bank-1", endorse(other, members[1]))
    with pytest.raises(PlanError, match="not endorsed"):
        verify_endorsement(whole, "bank-1", bytes(64))


def test_a_plan_is_read_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "plan.toml"
    path.write_text(text())
    plan = load_plan(path)
    assert plan.folder == tmp_path
    assert plan.hash == make().hash
    assert load_plan(str(path)).hash == plan.hash
    for missing in (tmp_path / "no.toml", tmp_path):
        with pytest.raises(PlanError, match="cannot read") as caught:
            load_plan(missing)
        assert caught.value.hint


def test_names_in_data_are_the_members() -> None:
    def data(names: str) -> str:
        files = ", ".join(f'{name} = "{name}.csv"' for name in names.split())
        return (
            '[data]\nlabel = "y"\nclasses = [0, 1]\nsplit = "files"\n'
            "columns = { x = { low = 0.0, high = 1.0 } }\n"
            f"files = {{ {files} }}\n"
        )

    assert make(rest=data("bank-0 bank-1 bank-2")).data is not None
    with pytest.raises(PlanError, match="bank-2, bank-3") as caught:
        make(rest=data("bank-0 bank-1 bank-3"))
    assert caught.value.key == "data.files"


# -- distributed mode ------------------------------------------------------------------

DISTRIBUTED = (
    ('mode = "local"', 'mode = "distributed"'),
    ("local_steps = 10", "local_steps = 1"),
)
TRAINING = '[training]\nway = "head"\n'


def distributed(*changes: tuple[str, str], **parts: str) -> Plan:
    """The plan above with shares of noise; ``changes`` replace one line each."""
    source = text(**{"rest": TRAINING, **parts})
    for old, new in (*DISTRIBUTED, *changes):
        assert old in source
        source = source.replace(old, new)
    return Plan(source.encode())


OF_CLIENTS = (('unit = "record"', 'unit = "client"'), ("_rate = 0.1", "_rate = 1.0"))
STATED = {"model": "values = 500", "privacy": "noise_multiplier = 20.0"}


def test_noise_follows_from_epsilon_and_the_models_size() -> None:
    draft = distributed()
    assert draft.distributed
    assert not make().distributed
    for use in ("values", "grid", "release", "noise_multiplier", "encoding"):
        with pytest.raises(PlanError, match="is missing") as caught:
            getattr(draft, use)
        assert caught.value.key == "model.values"
    plan = draft.with_values(500)
    assert plan.values == 500
    assert plan.with_values(500) is plan
    assert (plan.grid.shares, plan.grid.clients) == (2, 3)
    assert (plan.length(500), plan.grid.padded) == (512, 512)
    assert make().length(500) == 501
    assert isinstance(plan.release, Skellam)
    assert plan.release.shares == 2
    assert 0.95 * 3.0 < plan.projected_epsilon() <= 3.0
    assert plan.projected_epsilon() == plan.projected_consortium()
    # Half of the variance is left to a member whom all others betray.
    assert 1.4 * 3.0 < plan.projected_own_share() < 3 * 3.0
    assert make().projected_own_share() == make().projected_epsilon()
    assert plan.release.colluding == plan.view == 1
    assert make().view is None
    with pytest.raises(UsageError, match="has 501 values, and the plan says 500"):
        plan.length(501)
    with pytest.raises(PlanError, match="is 500, and the model has 501") as caught:
        plan.with_values(501)
    assert caught.value.key == "model.values"
    assert make().with_values(501).source == make().source


def test_the_kind_of_noise_and_the_unit() -> None:
    exact = distributed(privacy='noise = "discrete-gaussian"').with_values(500)
    assert isinstance(exact.release, DiscreteGaussian)
    assert exact.release.values == 512
    client = distributed(*OF_CLIENTS).with_values(500)
    assert client.release.rate == 1.0  # type: ignore[union-attr]
    assert client.privacy.unit == "client"
    # Nothing is sampled, and delta is about clients.
    assert client.noise_multiplier > exact.noise_multiplier


def test_more_who_collude_and_fewer_who_must_come_leave_fewer_shares() -> None:
    third = '  { name = "bank-2", records = 3000 },\n'
    more = (third, third + third.replace("2", "3", 1) + third.replace("2", "4", 1))
    # Of five; the threshold, and so who must come at least, rises with who colludes.
    by_hand = {
        "max_colluding = 1\nmin_clients = 5": 4,
        "max_colluding = 1": 3,
        "max_colluding = 2": 2,
    }
    for parties, shares in by_hand.items():
        plan = distributed(more, parties=parties).with_values(500)
        assert plan.grid.shares == shares
        event = plan.release
        assert isinstance(event, Skellam)
        sum_variance = event.variance * event.shares
        assert sum_variance == pytest.approx(
            (plan.noise_multiplier * plan.privacy.clip_norm / plan.grid.step) ** 2
        )


@pytest.mark.parametrize(
    ("key", "changes", "parts"),
    [
        ("privacy.overlap", [('"disjoint"', '"overlapping"')], {}),
        ("privacy.local_steps", [("steps = 1", "steps = 2")], {}),
        ("privacy.sampling_rate", OF_CLIENTS[:1], {}),
        ("parties.members", [], {"weight": "2"}),
        ("parties.max_colluding", [], {"parties": "max_colluding = 0"}),
        ("privacy.sampling_rate", [("records = 3000", "records = 800001")], {}),
        ("training", [], {"rest": ""}),
        ("training.schedule", [], {"rest": TRAINING + 'schedule = "cosine"'}),
        ("training.schedule", OF_CLIENTS, {"rest": TRAINING + 'schedule = "linear"'}),
        ("model.values", [], {"model": "values = 0"}),
        ("model.values", [], {"privacy": "noise_multiplier = 20.0"}),
        ("privacy.noise", [], {"privacy": 'noise = "laplace"'}),
        ("privacy.epsilon", [], {**STATED, "privacy": "noise_multiplier = 0.5"}),
        ("protection.step", [], {**STATED, "protection": "step = 0.01"}),
        ("protection.clip", [], {**STATED, "protection": "clip = 0.5"}),
        ("protection.word_bits", [], {**STATED, "protection": "word_bits = 16"}),
        # The aggregator would see every vector under one share of the noise.
        ("protection.kind", [('"masking"', '"plain"')], {}),
        ("privacy.delta", [("delta = 1e-5", "delta = 1e-300")], {**STATED}),
    ],
)
def test_what_a_sum_cannot_be_is_named(
    key: str, changes: list[tuple[str, str]], parts: dict[str, str]
) -> None:
    with pytest.raises(PlanError) as caught:
        distributed(*changes, **parts)
    assert caught.value.key == key
    assert caught.value.hint


@pytest.mark.parametrize(
    ("key", "changes", "parts"),
    [
        ("privacy.unit", ('unit = "record"', 'unit = "client"'), {}),
        ("privacy.noise", None, {"privacy": 'noise = "skellam"'}),
        ("model.values", None, {"model": "values = 500"}),
        ("training.schedule", None, {"rest": TRAINING + 'schedule = "linear"'}),
    ],
)
def test_what_belongs_to_sums_is_refused_elsewhere(
    key: str, changes: tuple[str, str] | None, parts: dict[str, str]
) -> None:
    source = text(**parts)
    if changes is not None:
        source = source.replace(*changes)
    with pytest.raises(PlanError) as caught:
        Plan(source.encode())
    assert caught.value.key == key
    assert "mode = 'distributed'" in caught.value.hint


def test_a_ring_is_tried_with_all_words_of_a_sum() -> None:
    """The plan is refused, and not the first round of its run."""
    rounds = ("count = 3", "count = 1000\nmax_attempts = 10")
    ckks = ('"masking"', '"ckks"')
    few = {"model": "values = 100"}
    assert distributed(rounds, ckks, **few).packing(100).blocks(128) == 1
    with pytest.raises(PlanError, match="too many") as caught:
        distributed(rounds, ckks, model=f"values = {2**30}")
    assert caught.value.key == "rounds.count"
    assert distributed(rounds, ckks).protection.kind == "ckks"  # a draft: not known


def test_what_everybody_may_spend_is_counted_and_not_listed() -> None:
    """A thousand members times 10,000 rounds: ten million releases."""
    members = "".join(f'  {{ name = "m{i}", records = 100 }},\n' for i in range(997))
    source = text(privacy="noise_multiplier = 5000.0").replace(
        "members = [\n", f"members = [\n{members}"
    )
    for old, new in (
        ("count = 3", "count = 9999"),
        ("local_steps = 10", "local_steps = 1"),
        ('"disjoint"', '"overlapping"'),
        ("sampling_rate = 0.1", "sampling_rate = 1.0"),
    ):
        assert source.count(old) == 1
        source = source.replace(old, new)
    plan = Plan(source.encode())
    tracemalloc.start()
    whole = plan.projected_consortium()
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # Gaussian noise alone: 10^7 releases are one with sqrt(10^7) times less noise.
    one = epsilon([Gaussian(5000.0 / 1e7**0.5)], delta=1e-5).value
    assert whole == pytest.approx(one, rel=1e-3)
    assert most < 40e6


def test_a_completed_plan_states_its_grid() -> None:
    draft = distributed()
    with pytest.raises(PlanError, match=r"model\.values"):
        completed(draft)
    whole = completed(draft.with_values(500))
    assert whole.complete
    assert whole.privacy.noise_multiplier == draft.with_values(500).noise_multiplier
    assert whole.values == 500
    assert not Plan(
        whole.source.replace(b"values = 500\n", b"").replace(
            f"noise_multiplier = {whole.noise_multiplier}\n".encode(), b""
        )
    ).complete
    assert whole.rotation(0) != whole.rotation(1)
    assert whole.rotation(0) == Plan(whole.source).rotation(0)
    session = whole.session(round_index=0, attempt=0, model_hash=bytes(32), size=500)
    again = whole.session(round_index=0, attempt=1, model_hash=bytes(32), size=500)
    assert session.parameters.length == 512
    assert session.ctx != again.ctx


def test_a_member_alone() -> None:
    own = make()
    assert own.alone().release == own.release
    assert own.alone(records=6000).member("bank-1").records == 6000
    plan = distributed(
        ("_rate = 0.1", "_rate = 0.5"),
        rest=TRAINING + 'momentum = 0.9\nschedule = "linear"\n',
        privacy='noise = "discrete-gaussian"',
        protection="step = 0.0001",
    ).with_values(500)
    alone = plan.alone()
    assert not alone.distributed
    assert alone.release == Repeated(PoissonGaussian(0.5, alone.noise_multiplier), 1)
    assert alone.rounds == plan.rounds
    assert 0.95 * 3.0 < alone.projected_epsilon() <= 3.0
    assert alone.training is not None
    assert (alone.training.learning_rate, alone.training.momentum) == (1.0, 0.0)
    # All the noise of a sum, which a PLD makes a little smaller than Renyi's bound.
    assert 0.85 < alone.noise_multiplier / plan.noise_multiplier < 1
    with pytest.raises(UsageError, match="no sum to hide in"):
        distributed(*OF_CLIENTS).alone()
