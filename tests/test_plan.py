# SPDX-License-Identifier: Apache-2.0
"""Plans: strict entries, cross-checks that name the entry, one hash, endorsements."""

from __future__ import annotations

from pathlib import Path

import pytest

from secure_fl.errors import PlanError, UsageError
from secure_fl.identity import key_to_text
from secure_fl.plan import Plan, endorse, load_plan, verify_endorsement

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
