# SPDX-License-Identifier: Apache-2.0
"""``secure-fl join`` and ``leave``: consent, from a member's own keyboard."""

from __future__ import annotations

from pathlib import Path

import pytest

from secure_fl.engines.home import MemberHome, passphrase
from secure_fl.errors import UsageError
from secure_fl.identity import Identity, key_to_text
from secure_fl.plan import Plan, load_plan, verify_endorsement
from secure_fl.privacy import NonPrivate
from secure_fl.randomness import SystemRandom
from secure_fl.transcript import KEY_HOLDER

from .support import MEMBERS, Answer, call, plan_text, snapshot

RANDOM = SystemRandom()
ME = "bank-a"


@pytest.fixture
def plan(desk: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """``plan.toml``, complete, and the key of each of its parties beside it."""
    monkeypatch.delenv("SECURE_FL_PASSPHRASE_FILE", raising=False)
    return write(plan_text())


def write(text: str) -> Plan:
    public: dict[str, str] = {}
    for name in (*MEMBERS, "aggregator", "keyholder"):
        identity = Identity.new(name, random=RANDOM)
        Path(f"{name}.pem").unlink(missing_ok=True)
        identity.save(Path(f"{name}.pem"))
        public[name] = key_to_text(identity.public_key)
    source = Plan(text.encode())
    made = source.completed(
        keys={name: public[name] for name in MEMBERS},
        aggregator=public["aggregator"],
        keyholder=public["keyholder"] if source.has_keyholder else None,
        run_id=RANDOM.bytes(16),
        start_sha256=None,
    )
    Path("plan.toml").write_bytes(made.source)
    return made


def join(*more: str, key: str = "bank-a.pem", home: str = "home") -> Answer:
    return call("join", "plan.toml", "--key", key, "--home", home, *more)


def policy(plan: Plan, *, smallest_cohort: int) -> None:
    start = f'"{plan.model.start_sha256}"' if plan.model.start_sha256 else ""
    Path("policy.toml").write_text(f"""\
schema = "secure-fl/policy/1"
year = 2026
lineage = "{plan.lineage}"
largest_epsilon = 9.0
largest_epsilon_per_year = 9.0
largest_delta = 1e-5
smallest_cohort = {smallest_cohort}
smallest_min_clients = 3
smallest_max_colluding = 1
modes = ["local"]
protections = ["masking"]
models = [{start}]
aggregators = ["{plan.parties.aggregator}"]
""")


def test_what_is_joined_is_said_and_kept(plan: Plan) -> None:
    answer = join("--data", "table.csv")
    assert answer.code == 0, answer.err
    assert max(map(len, answer.out.splitlines())) <= 80
    for said in (plan.hash.hex(), "bank-b", "bank-c", "small-banks", "policy     none"):
        assert said in answer.out
    assert f"epsilon    {plan.projected_epsilon():.4g} after 3 releases" in answer.out
    joined = MemberHome(Path("home")).find(plan.hash)
    assert joined.plan.source == plan.source
    assert joined.settings.name == ME
    assert joined.settings.key == Path("bank-a.pem").resolve()
    assert joined.settings.data == Path("table.csv").resolve()
    verify_endorsement(plan, ME, joined.endorsement)


def test_joining_again_is_harmless_and_tells_of_what_moved(plan: Plan) -> None:
    assert join().code == 0
    before = snapshot(Path("home"))
    assert join().code == 0
    kept = {k: v for k, v in snapshot(Path("home")).items() if "sqlite" not in k}
    assert kept == {k: v for k, v in before.items() if "sqlite" not in k}
    Path("bank-a.pem").rename("moved.pem")
    assert join(key="moved.pem").code == 0
    found = MemberHome(Path("home")).find(plan.hash)
    assert found.identity().public_key == plan.roster.members[0].public_key


def test_a_policy_is_asked_before_anything_is_kept(plan: Plan) -> None:
    policy(plan, smallest_cohort=5)
    refused = join("--policy", "policy.toml")
    assert refused.code == 4
    assert "policy.toml line 7: smallest_cohort = 5" in refused.errors[0]
    assert refused.hints
    assert not list(Path("home/plans").iterdir())


def test_a_policy_that_allows_is_kept(desk: Path) -> None:
    text = plan_text().replace(
        'kind = "mlp"', f'start_sha256 = "{"ab" * 32}"\nkind = "mlp"'
    )
    plan = write(text)
    policy(plan, smallest_cohort=3)
    answer = join("--policy", "policy.toml")
    assert answer.code == 0, answer.err
    assert "policy     it allows this plan" in answer.out
    assert Path("home/policy.toml").read_bytes() == Path("policy.toml").read_bytes()
    policy(plan, smallest_cohort=2)
    again = join("--policy", "policy.toml")
    assert again.code == 2
    assert "is another policy" in again.errors[0]
    policy(plan, smallest_cohort=5)
    Path("home/policy.toml").write_bytes(Path("policy.toml").read_bytes())
    assert join().code == 4, "the one that is there is asked, too"


def test_a_key_holder_joins_as_such(desk: Path) -> None:
    plan = write(
        plan_text().replace('kind = "masking"', 'kind = "ckks"\nkeys = "keyholder"')
    )
    answer = join(key="keyholder.pem")
    assert answer.code == 0, answer.err
    assert f"joined as  {KEY_HOLDER}" in answer.out
    assert "epsilon" not in answer.out
    assert MemberHome(Path("home")).find(plan.hash).endorsement == b""


@pytest.mark.parametrize("key", ["aggregator.pem", "keyholder.pem"])
def test_a_key_of_nobody(plan: Plan, key: str) -> None:
    answer = join(key=key)
    assert answer.code == 2
    assert "is no member's of this plan" in answer.errors[0]
    assert not Path("home").exists()


def test_a_draft_is_not_joined(plan: Plan) -> None:
    Path("plan.toml").write_text(plan_text())
    answer = join()
    assert answer.code == 2
    assert "not complete" in answer.errors[0]


def test_a_budget_that_is_spent_is_told_at_once(plan: Plan) -> None:
    Path("home").mkdir(mode=0o700)
    ledger = MemberHome(Path("home")).ledger(ME)
    ledger.reserve(
        plan.lineage,
        run_id=bytes(16),
        round_index=0,
        attempt=0,
        event=NonPrivate("a test"),
        unit=plan.privacy.unit,
        adjacency=plan.privacy.adjacency,
        delta=plan.privacy.delta,
        limit=float("inf"),
        now=0,
    )
    ledger.close()
    assert join().code == 4
    with pytest.raises(UsageError, match="was not joined"):
        MemberHome(Path("home")).find(plan.hash)


# -- passphrases -----------------------------------------------------------------------


@pytest.mark.parametrize("way", ["SECURE_FL_PASSPHRASE", "SECURE_FL_PASSPHRASE_FILE"])
def test_the_passphrase_is_where_the_member_will_find_it(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    identity = Identity.load(Path("bank-a.pem"))
    identity.save(Path("locked.pem"), passphrase=b"open sesame")
    assert join(key="locked.pem").code == 2
    Path("credential").write_text("open sesame\n")
    value = "credential" if way.endswith("FILE") else "open sesame"
    monkeypatch.setenv(way, value)
    assert passphrase() == b"open sesame"
    assert join(key="locked.pem").code == 0
    monkeypatch.setenv(way, "missing" if way.endswith("FILE") else "wrong")
    answer = join(key="locked.pem")
    assert answer.code == 2
    assert answer.hints
    assert "sesame" not in answer.err


# -- leaving ---------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["file", "hash"])
def test_a_plan_is_left_by_its_file_or_its_hash(plan: Plan, by: str) -> None:
    what = "plan.toml" if by == "file" else plan.hash.hex()
    assert join().code == 0
    answer = call("leave", what, "--home", "home")
    assert answer.code == 0
    assert answer.out == f"left {plan.hash.hex()}\n"
    again = call("leave", what, "--home", "home")
    assert again.code == 2
    assert "was left" in again.errors[0]
    assert join().code == 0


def test_what_was_never_joined_is_not_left(plan: Plan) -> None:
    assert call("leave", "plan.toml", "--home", "home").code == 2
    other = load_plan("plan.toml")
    Path("home").mkdir(mode=0o700)
    answer = call("leave", other.hash.hex(), "--home", "home")
    assert answer.code == 2
    assert "was not joined" in answer.errors[0]
    assert call("leave", "nothing.toml", "--home", "home").code == 2
