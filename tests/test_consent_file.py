# SPDX-License-Identifier: Apache-2.0
"""A policy's file: read strictly, and every entry knows its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from secure_fl.consent import Consent
from secure_fl.errors import ConsentRefused, UsageError
from secure_fl.identity import key_to_text
from secure_fl.privacy.book import Book

from .test_consent import KEYS, OTHER, PLAN, QUIET, START, at, policy


def test_lines_are_those_of_the_file(tmp_path: Path) -> None:
    """Comments, blank lines, windows line ends and lists over several lines."""
    text = f"""\
# year = 1999
schema = "secure-fl/policy/1"\r
year = 2027   # renewed in January: lineage = "x"
\tlineage   = "clinics"

largest_epsilon = 50
largest_epsilon_per_year = 50
largest_delta = 1e-5
smallest_cohort = 3
smallest_min_clients = 3
smallest_max_colluding = 1
modes = [
  # protections = ["plain"]
  "local",
]
protections = ["masking"]
models = ["{START}"]
aggregators = [ "{KEYS["aggregator"]}",
]
members = [
  "{KEYS["bank-a"]}",
]   # \u2028 is no line end
plans = [ ]
"""
    path = tmp_path / "ours.toml"
    path.write_bytes(text.encode())
    verdicts = Consent.load(path).verdicts(
        PLAN, Book("", "clinics"), [QUIET], now=at(2026)
    )
    refused = {(v.line, v.entry) for v in verdicts if v.refused}
    assert refused == {
        (3, "year = 2027"),
        (20, "members = [...]"),
        (23, "plans = [ ]"),
    }
    with pytest.raises(ConsentRefused) as refusal:
        Consent.load(path).check_plan(PLAN)
    assert str(refusal.value).startswith(f"{path} line 23: plans = [ ]: ")


@pytest.mark.parametrize(
    ("changes", "phrases"),
    [
        ({"smallest_cohrt": "3"}, ("line 18: smallest_cohrt: unknown entry",)),
        ({"largest_epsilon": None}, ("policy.toml: largest_epsilon: is missing",)),
        ({"largest_epsilon": "0"}, ("line 4: largest_epsilon: ",)),
        ({"largest_epsilon": "inf"}, ("line 4: largest_epsilon: ",)),
        ({"largest_epsilon": "nan"}, ("line 4: largest_epsilon: ",)),
        ({"largest_epsilon": '"3"'}, ("line 4: largest_epsilon: ",)),
        ({"largest_delta": "0.5"}, ("line 6: largest_delta: ",)),
        ({"largest_delta": "1e-30"}, ("line 6: largest_delta: ",)),
        ({"smallest_cohort": "true"}, ("line 7: smallest_cohort: ",)),
        ({"smallest_cohort": "-1"}, ("line 7: smallest_cohort: ",)),
        ({"year": "2027-01-01"}, ("line 2: year: ",)),
        ({"unprotected": '"no"'}, ("line 16: unprotected: ",)),
        ({"protections": '"masking"'}, ("line 11: protections: ",)),
        ({"protections": '["ckks"]'}, ("line 11: protections: ",)),
        ({"models": '["abc"]'}, ("line 12: models: a hash is 64",)),
        ({"models": f'["{OTHER.upper()}"]'}, ("line 12: models: a hash is 64",)),
        ({"models": "[1]"}, ("line 12: models: a hash is 64",)),
        ({"aggregators": f'["{OTHER}"]'}, ("line 13: aggregators: not a public key",)),
        (
            {"members": f'["{KEYS["bank-a"][:-1]}a"]'},
            ("line 15: members: public key", "is mistyped"),
        ),
        ({"members": f'["{key_to_text(bytes(32))}"]'}, ("line 15: members: ",)),
        ({"revoked": '["bank-b"]'}, ("line 17: revoked: a hash is 64",)),
        ({"schema": '"secure-fl/plan/1"'}, ("line 1: schema: ",)),
        ({"year": "= 3"}, ("policy.toml is not TOML: ", "line 2")),
        ({"lineage.name": '"clinics"'}, ("policy.toml is not TOML: ",)),
        ({"year": None, '"year"': "2027"}, ("year is not on one line's beginning",)),
        (
            {"lineage": '"""\nyear = 3"""'},
            ("year is not on one line's beginning",),
        ),
    ],
)
def test_a_policy_is_read_strictly(
    changes: dict[str, str | None], phrases: tuple[str, ...]
) -> None:
    with pytest.raises(UsageError) as refusal:
        policy(**changes)
    for phrase in phrases:
        assert phrase in str(refusal.value)
    assert "secure-fl policy new" in refusal.value.hint or "=" in refusal.value.hint


def test_a_section_is_no_entry() -> None:
    with pytest.raises(UsageError, match="limits: unknown entry"):
        policy(revoked="[]\n[limits]\nyear = 2028")


def test_what_is_no_policy_at_all(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="is not UTF-8 text"):
        Consent.parse(b"\xff")
    with pytest.raises(UsageError, match="cannot read"):
        Consent.load(tmp_path / "none.toml")


def test_a_policy_shows_no_entry_and_does_not_change() -> None:
    consent = policy()
    assert repr(consent) == "Consent(name='policy.toml')"
    with pytest.raises(AttributeError):
        consent.name = "other.toml"  # type: ignore[misc]
