# SPDX-License-Identifier: Apache-2.0
"""A client's policy: every line refuses what it says, by name, before any charge."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from secure_fl.consent import Consent
from secure_fl.errors import ConsentRefused, UsageError
from secure_fl.identity import Identity, key_to_text
from secure_fl.keystore import MemoryKeystore
from secure_fl.model import GlobalModel
from secure_fl.plan import Plan
from secure_fl.privacy import Event, Gaussian, Ledger, NonPrivate, epsilon, seen
from secure_fl.privacy.book import Book
from secure_fl.randomness import SeededInsecure
from secure_fl.round import Participant
from secure_fl.transcript import Transcript

from .participants import plan_source

RANDOM = SeededInsecure(b"policy")  # every process collects the same tests
NAMES = ("bank-a", "bank-b", "bank-c")
MODEL = GlobalModel({"head": np.zeros(7, np.float32)})
START = hashlib.sha256(MODEL.to_bytes()).hexdigest()
OTHER = "ab" * 32
IDENTITIES = {
    name: Identity.new(name, random=RANDOM)
    for name in (*NAMES, "aggregator", "keyholder", "stranger")
}
KEYS = {name: key_to_text(i.public_key) for name, i in IDENTITIES.items()}
MASKING = 'kind = "masking"'
KEYHOLDER = 'kind = "ckks"\nkeys = "keyholder"'


def at(year: int, month: int = 6) -> int:
    return int(datetime(year, month, 15, tzinfo=UTC).timestamp())


def instance(
    protection: str = MASKING,
    *changes: tuple[str, str],
    names: tuple[str, ...] = NAMES,
    keys: dict[str, str] = KEYS,
) -> Plan:
    """A complete plan; ``changes``: pairs of what to replace in its source."""
    source = plan_source(names, protection).decode()
    for old, new in changes:
        assert old in source
        source = source.replace(old, new)
    draft = Plan(source.encode())
    return draft.completed(
        keys={name: keys[name] for name in names},
        aggregator=keys["aggregator"],
        keyholder=keys["keyholder"] if draft.has_keyholder else None,
        run_id=RANDOM.bytes(16),
        start_sha256=START,
    )


PLAN = instance()

# One entry a line, each as close to PLAN as it can be: `altered` knows their numbers.
ENTRIES = {
    "schema": '"secure-fl/policy/1"',
    "year": "2027",
    "lineage": '"clinics"',
    "largest_epsilon": "50.0",
    "largest_epsilon_per_year": "50.0",
    "largest_delta": "1e-5",
    "smallest_cohort": "3",
    "smallest_min_clients": "3",
    "smallest_max_colluding": "1",
    "modes": '["local"]',
    "protections": '["masking", "ckks keyholder"]',
    "models": f'["{START}"]',
    "aggregators": f'["{KEYS["aggregator"]}"]',
    "keyholders": f'["{KEYS["keyholder"]}"]',
    "members": f"[{', '.join(repr(KEYS[n]) for n in NAMES)}]",
    "unprotected": "false",
    "revoked": "[]",
}


def policy(**changes: str | None) -> Consent:
    """The policy with other values; None leaves an entry out."""
    entries = {k: v for k, v in {**ENTRIES, **changes}.items() if v is not None}
    return Consent.parse("\n".join(f"{k} = {v}" for k, v in entries.items()).encode())


def line_of(key: str) -> int:
    return [*ENTRIES].index(key) + 1


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    ledger = Ledger(tmp_path / "ledger.sqlite", client="bank-a")
    yield ledger
    ledger.close()


def charge(ledger: Ledger, *events: Event, now: int) -> None:
    for event in events:
        ledger.reserve(
            "clinics",
            run_id=RANDOM.bytes(16),
            round_index=0,
            attempt=0,
            event=event,
            unit="record",
            adjacency="add-or-remove-one",
            delta=1e-5,
            limit=float("inf"),
            now=now,
        )


def cost(*events: Event) -> float:
    return epsilon(events, delta=1e-5).value


# -- plans -----------------------------------------------------------------------------


@pytest.mark.parametrize("protection", [MASKING, KEYHOLDER])
def test_a_plan_within_every_line_is_allowed(protection: str) -> None:
    plan = instance(protection)
    policy().check_plan(plan)
    policy().check_release(plan, Book("bank-a", "clinics"), plan.release, at(2027))
    policy(plans=f'["{OTHER}", "{plan.hash.hex()}"]').check_plan(plan)
    policy(members=None, revoked=None, unprotected=None).check_plan(plan)


@pytest.mark.parametrize(
    ("key", "value", "finding"),
    [
        ("lineage", '"others"', "the plan charges 'clinics'"),
        ("largest_epsilon", "49.9", "the plan's own limit is 50"),
        ("largest_delta", "9e-6", "the plan's is 1e-05"),
        ("smallest_cohort", "4", "the plan has 3 members"),
        ("smallest_min_clients", "4", "the plan opens sums of 3"),
        ("smallest_max_colluding", "2", "the plan withstands 1"),
        ("modes", '["distributed"]', "the plan's is local"),
        ("protections", '["ckks one-time"]', "the plan's is masking"),
        ("protections", "[]", "the plan's is masking"),
        ("models", f'["{OTHER}"]', f"the plan's is {START}"),
        ("models", "[]", f"the plan's is {START}"),
        ("aggregators", f'["{KEYS["bank-a"]}"]', f"the plan's is {KEYS['aggregator']}"),
        ("members", f'["{KEYS["bank-b"]}"]', "it lacks bank-a, bank-c"),
    ],
)
def test_a_line_refuses_a_plan(key: str, value: str, finding: str) -> None:
    consent = policy(**{key: value})
    shown = f"{key} = {value}"
    shown = shown if len(shown) <= 60 else f"{shown[:60]}..."
    with pytest.raises(ConsentRefused) as refusal:
        consent.check_plan(PLAN)
    error = refusal.value
    assert str(error) == f"policy.toml line {line_of(key)}: {shown}: {finding}"
    assert (error.file, error.line, error.exit_code) == (
        "policy.toml",
        line_of(key),
        4,
    )
    assert error.hint
    with pytest.raises(ConsentRefused, match=f"line {line_of(key)}: {key}"):
        consent.check_release(PLAN, Book("a", "clinics"), Gaussian(99.0), at(2027))


@pytest.mark.parametrize(
    ("protection", "kind"),
    [
        ('kind = "plain"', "plain"),
        ('kind = "ckks"', "ckks one-time"),
        (KEYHOLDER, "ckks keyholder"),
    ],
)
def test_each_protection_is_allowed_by_its_own_name_alone(
    protection: str, kind: str
) -> None:
    plan = instance(protection)
    policy(protections=f'["{kind}"]').check_plan(plan)
    others = {"masking", "ckks one-time", "ckks keyholder", "plain"} - {kind}
    with pytest.raises(ConsentRefused, match=f"the plan's is {kind}\n"):
        policy(protections=str(sorted(others))).check_plan(plan)


def test_a_line_that_is_missing_refuses_too() -> None:
    with pytest.raises(ConsentRefused) as refusal:
        policy(keyholders=None).check_plan(instance(KEYHOLDER))
    assert str(refusal.value).startswith("policy.toml: no line `keyholders = ...`: ")
    assert refusal.value.line == 0


def test_a_pinned_policy_takes_no_other_plan() -> None:
    pinned = policy(plans=f'["{PLAN.hash.hex()}"]')
    pinned.check_plan(PLAN)
    again = instance()  # the same entries, for another run
    with pytest.raises(ConsentRefused, match=f"the plan is {again.hash.hex()}"):
        pinned.check_plan(again)


def test_a_draft_names_nobody_and_is_refused() -> None:
    draft = Plan(plan_source(NAMES, MASKING))
    refused = [
        v.entry.partition(" ")[0]
        for v in policy().verdicts(
            draft, Book("", "clinics"), [draft.release], now=at(2027)
        )
        if v.refused
    ]
    assert refused == ["models", "aggregators", "members"]


# -- revocation ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("entry", "who"),
    [
        (PLAN.hash.hex(), "the plan"),
        (START, "the start model"),
        (KEYS["aggregator"], "the aggregator"),
        (KEYS["bank-c"], "bank-c"),
    ],
)
def test_what_is_revoked_is_refused_whatever_else_allows_it(
    entry: str, who: str
) -> None:
    revoked = f'[\n  "{OTHER}",\n  "{entry}",  # since June\n]'
    consent = policy(plans=f'["{PLAN.hash.hex()}"]', revoked=revoked)
    with pytest.raises(ConsentRefused, match=f"it lists {who}\n") as refusal:
        consent.check_plan(PLAN)
    assert "revoked = [...]" in str(refusal.value)
    policy(revoked=f'["{OTHER}", "{KEYS["stranger"]}"]').check_plan(PLAN)


def test_a_key_holder_is_revoked() -> None:
    with pytest.raises(ConsentRefused, match="it lists the key holder"):
        policy(revoked=f'["{KEYS["keyholder"]}"]').check_plan(instance(KEYHOLDER))


def test_a_plan_without_the_revoked_member_goes_on() -> None:
    four = (*NAMES, "bank-d")
    keys = KEYS | {"bank-d": KEYS["stranger"]}
    consent = policy(members=None, revoked=f'["{KEYS["bank-b"]}"]')
    with pytest.raises(ConsentRefused, match="it lists bank-b"):
        consent.check_plan(instance(names=four, keys=keys))
    consent.check_plan(instance(names=("bank-a", "bank-c", "bank-d"), keys=keys))


# -- releases --------------------------------------------------------------------------

QUIET, LOUD = Gaussian(4.0), Gaussian(1.0)


def test_epsilon_counts_every_plan_and_year_of_the_lineage(ledger: Ledger) -> None:
    charge(ledger, LOUD, now=at(2019))
    charge(ledger, LOUD, now=at(2027))
    limit = cost(LOUD, LOUD, PLAN.release)
    just = policy(largest_epsilon=repr(limit))
    # The plan's own limit is above: it is asked for with a plan that promises less.
    plan = instance(MASKING, ("epsilon = 50.0", f"epsilon = {limit!r}"), SINGLE)
    just.check_release(plan, ledger.book("clinics"), PLAN.release, at(2027))
    charge(ledger, QUIET, now=at(2027))
    with pytest.raises(ConsentRefused) as refusal:
        just.check_release(plan, ledger.book("clinics"), PLAN.release, at(2027))
    total = cost(LOUD, LOUD, QUIET, PLAN.release)
    assert f"{total:.4g} at delta 1e-05 with this release" in str(refusal.value)
    assert refusal.value.line == line_of("largest_epsilon")


SINGLE = ("count = 3\nspare = 3", "count = 1\nspare = 0")


def yearly(limit: float) -> Consent:
    return policy(largest_epsilon_per_year=repr(limit))


def refuses_for_the_year(consent: Consent, ledger: Ledger, now: int) -> None:
    with pytest.raises(ConsentRefused) as refusal:
        consent.check_release(PLAN, ledger.book("clinics"), LOUD, now)
    assert refusal.value.line == line_of("largest_epsilon_per_year")


def test_a_year_counts_its_own_releases(ledger: Ledger) -> None:
    consent = yearly(cost(LOUD, LOUD))
    charge(ledger, LOUD, LOUD, LOUD, now=at(2026, 12))
    consent.check_release(PLAN, ledger.book("clinics"), LOUD, at(2027, 1))
    charge(ledger, LOUD, now=at(2027, 1))
    consent.check_release(PLAN, ledger.book("clinics"), LOUD, at(2027, 12))
    charge(ledger, LOUD, now=at(2027, 12))
    refuses_for_the_year(consent, ledger, at(2027, 12))


def test_the_first_second_of_a_year_is_in_it(ledger: Ledger) -> None:
    new_year = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())
    charge(ledger, LOUD, now=new_year - 1)
    yearly(cost(LOUD)).check_release(PLAN, ledger.book("clinics"), LOUD, new_year)
    charge(ledger, LOUD, now=new_year)
    refuses_for_the_year(yearly(cost(LOUD)), ledger, new_year)


def test_what_was_taken_back_is_free(ledger: Ledger) -> None:
    charge(ledger, LOUD, now=at(2027))
    book = ledger.book("clinics")
    reservation = book.entries[0].reservation
    assert reservation is not None
    refuses_for_the_year(yearly(cost(LOUD)), ledger, at(2027))
    ledger.aborted(reservation, now=at(2027))
    yearly(cost(LOUD)).check_release(PLAN, ledger.book("clinics"), LOUD, at(2027))


def test_a_clock_that_was_ahead_gives_no_second_budget(ledger: Ledger) -> None:
    charge(ledger, LOUD, now=at(2031))
    refuses_for_the_year(yearly(cost(LOUD)), ledger, at(2027))


def test_a_clock_that_was_put_back_moves_nothing_out_of_the_year(
    ledger: Ledger,
) -> None:
    charge(ledger, QUIET, now=at(2027))
    charge(ledger, LOUD, now=at(2025))  # really later: the ledger only grows
    refuses_for_the_year(yearly(cost(LOUD, LOUD)), ledger, at(2027))


@pytest.mark.parametrize("now", [0, -1, at(2026), at(2028), 2**62])
def test_another_year_by_the_clock_refuses(now: int) -> None:
    with pytest.raises(ConsentRefused, match="year = 2027: this machine's clock says"):
        policy().check_release(PLAN, Book("bank-a", "clinics"), LOUD, now)


def test_one_adversary_for_all_plans() -> None:
    """A sum that assumed fewer colluders counts by this client's own noise."""
    together = (
        ('mode = "local"', 'mode = "distributed"'),
        ("noise_multiplier = 2.0\n", ""),
        ("local_steps = 2", "local_steps = 1"),
        ('kind = "custom"', 'kind = "custom"\nvalues = 7'),
    )
    plan = instance(MASKING, *together)
    event = plan.release
    assert (plan.view, seen(event, 1)) == (1, event)
    for colluding in (1, 2):
        consent = policy(smallest_max_colluding=str(colluding), modes='["distributed"]')
        verdicts = consent.verdicts(
            plan, Book("bank-a", "clinics"), [event], now=at(2027)
        )
        total = cost(seen(event, colluding))
        found = [v.finding for v in verdicts if v.finding.startswith(f"{total:.4g} ")]
        assert len(found) == 2  # over the lineage, and over the year
    assert cost(seen(event, 2)) > cost(event)


def test_another_lineages_book_is_a_mistake() -> None:
    with pytest.raises(UsageError, match="the plan charges 'clinics', not 'others'"):
        policy().check_release(PLAN, Book("bank-a", "others"), LOUD, at(2027))


# -- updates without a guarantee -------------------------------------------------------


def test_no_unprotected_update_unless_a_line_says_so(ledger: Ledger) -> None:
    event = NonPrivate("a pilot on made-up data")
    silent, yes = policy(unprotected=None), policy(unprotected="true")
    assert (silent.unprotected, policy().unprotected, yes.unprotected) == (
        False,
        False,
        True,
    )
    book = ledger.book("clinics")
    for consent, where in ((silent, ": no line `un"), (policy(), " line 16: un")):
        with pytest.raises(ConsentRefused, match=f"policy.toml{where}protected = "):
            consent.check_release(PLAN, book, event, at(2027))
    yes.check_release(PLAN, book, event, at(2027))
    charge(ledger, event, now=at(2027))
    with pytest.raises(ConsentRefused, match="inf at delta"):
        yes.check_release(PLAN, ledger.book("clinics"), QUIET, at(2027))


# -- at the client ---------------------------------------------------------------------


def participant(
    ledger: Ledger, consent: Consent, *, plan: Plan = PLAN, now: int | None = None
) -> Participant:
    assert plan.run_id is not None
    client = Participant(
        plan,
        IDENTITIES["bank-a"],
        ledger=ledger,
        keystore=MemoryKeystore(),
        random=RANDOM,
        now=lambda: at(2027) if now is None else now,
        log_head=Transcript(plan.run_id).head,
        consent=consent,
    )
    client.open(0, 0, MODEL)
    return client


def test_a_client_charges_nothing_that_its_policy_refuses(ledger: Ledger) -> None:
    client = participant(ledger, yearly(cost(PLAN.release)))
    assert client.reserve().event == PLAN.release
    client.open(0, 1, MODEL)
    before = ledger.entries("clinics")
    with pytest.raises(ConsentRefused, match="largest_epsilon_per_year"):
        client.reserve()
    late = participant(ledger, policy(), plan=instance(), now=at(2028))
    with pytest.raises(ConsentRefused, match="year = 2027"):
        late.reserve()
    assert ledger.entries("clinics") == before


# -- rotation --------------------------------------------------------------------------


def test_a_rotated_key_goes_on_in_the_same_ledger(ledger: Ledger) -> None:
    """A new plan version: new hash, new key, and the old budget."""
    participant(ledger, policy()).reserve()
    renewed = Identity.new("bank-a", random=RANDOM)
    keys = KEYS | {"bank-a": key_to_text(renewed.public_key)}
    plan = instance(keys=keys)
    assert plan.hash != PLAN.hash
    consent = policy(
        members=None,
        revoked=f'["{KEYS["bank-a"]}"]',
        largest_epsilon_per_year=repr(cost(PLAN.release, plan.release)),
    )
    assert plan.run_id is not None
    client = Participant(
        plan,
        renewed,
        ledger=ledger,
        keystore=MemoryKeystore(),
        random=RANDOM,
        now=lambda: at(2027),
        log_head=Transcript(plan.run_id).head,
        consent=consent,
    )
    client.open(0, 0, MODEL)
    client.reserve()
    assert ledger.charged("clinics") == [PLAN.release, plan.release]
    client.open(0, 1, MODEL)
    with pytest.raises(ConsentRefused, match="largest_epsilon_per_year"):
        client.reserve()
    with pytest.raises(ConsentRefused, match="it lists bank-a"):
        consent.check_plan(PLAN)


def test_a_new_version_under_a_new_name_starts_no_new_budget() -> None:
    renamed = ('name = "clinics"', 'name = "clinics-2"')
    with pytest.raises(ConsentRefused, match="the plan charges 'clinics-2'"):
        policy().check_plan(instance(MASKING, renamed))
    kept = ("epsilon = 50.0", 'epsilon = 50.0\nlineage = "clinics"')
    policy().check_plan(instance(MASKING, renamed, kept))


def test_a_new_passphrase_is_no_new_key(tmp_path: Path) -> None:
    identity = IDENTITIES["bank-a"]
    identity.save(tmp_path / "old.key", passphrase=b"old")
    loaded = Identity.load(tmp_path / "old.key", name="bank-a", passphrase=b"old")
    loaded.save(tmp_path / "new.key", passphrase=b"new")
    again = Identity.load(tmp_path / "new.key", name="bank-a", passphrase=b"new")
    assert again.public_key == PLAN.roster.members[0].public_key
    policy().check_plan(PLAN)
