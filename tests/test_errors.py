# SPDX-License-Identifier: Apache-2.0
"""The error tree: who is to blame, what the command line leaves with, and the words."""

from __future__ import annotations

import inspect

import pytest

from secure_fl import errors

CODES = {
    "SecureFLError": 70,
    "UsageError": 2,
    "StateReused": 2,
    "PlanError": 2,
    "VerificationError": 1,
    "ProtocolError": 3,
    "FaultyClient": 3,
    "FaultyAggregator": 3,
    "FaultyClientOrAggregator": 3,
    "FaultyKeyHolder": 3,
    "TooFewClients": 3,
    "BudgetExceeded": 4,
    "ConsentRefused": 4,
    "EngineError": 5,
}


def test_the_tree_is_whole_and_each_class_has_its_exit_code() -> None:
    classes = {
        name: kind
        for name, kind in vars(errors).items()
        if inspect.isclass(kind) and issubclass(kind, errors.SecureFLError)
    }
    assert {n: k.exit_code for n, k in classes.items()} == CODES
    assert set(errors.__all__) == set(CODES)


@pytest.mark.parametrize(
    ("kind", "base"),
    [
        (errors.StateReused, errors.UsageError),
        (errors.FaultyClient, errors.ProtocolError),
        (errors.FaultyAggregator, errors.ProtocolError),
        (errors.FaultyClientOrAggregator, errors.FaultyClient),
        (errors.FaultyKeyHolder, errors.ProtocolError),
        (errors.TooFewClients, errors.ProtocolError),
    ],
)
def test_catching_a_base_catches_it(kind: type, base: type) -> None:
    assert issubclass(kind, base)


def test_your_mistake_is_never_a_peers() -> None:
    for yours in (errors.UsageError, errors.PlanError, errors.StateReused):
        assert not issubclass(yours, errors.ProtocolError)
    for one in (errors.FaultyAggregator, errors.FaultyKeyHolder):
        assert not issubclass(one, errors.FaultyClient)
    assert not issubclass(errors.FaultyKeyHolder, errors.FaultyAggregator)


def test_errors_say_what_and_where_and_what_to_do() -> None:
    assert str(errors.UsageError("no", hint="do this")) == "no"
    assert errors.UsageError("no", hint="do this").hint == "do this"
    assert errors.UsageError("no").hint == ""
    plan = errors.PlanError("is missing", key="parties.aggregator")
    assert (str(plan), plan.key) == (
        "parties.aggregator: is missing",
        "parties.aggregator",
    )
    assert str(errors.PlanError("no")) == "no"
    found = errors.VerificationError("broken chain", file="transcript.cbor")
    assert (str(found), found.file) == (
        "transcript.cbor: broken chain",
        "transcript.cbor",
    )
    faulty = errors.FaultyClientOrAggregator("bank-a", "bad share", hint="h")
    assert (str(faulty), faulty.client, faulty.hint) == (
        "bank-a: bad share",
        "bank-a",
        "h",
    )
    few = errors.TooFewClients(2, 3)
    assert (str(few), few.alive, few.needed) == (
        "2 clients are left, 3 are needed",
        2,
        3,
    )
    spent = errors.BudgetExceeded(
        "bank-a", spent=1.0, projected=2.5, limit=2.0, delta=1e-5, hint="wait"
    )
    assert str(spent) == (
        "bank-a: the next release would bring epsilon from 1 to 2.5, "
        "above the limit of 2 at delta 1.0e-05"
    )
    assert (spent.client, spent.spent, spent.projected) == ("bank-a", 1.0, 2.5)
    assert (spent.limit, spent.delta, spent.hint) == (2.0, 1e-5, "wait")
    whole = errors.BudgetExceeded(
        "bank-a", spent=1.0, projected=2.5, limit=2.0, delta=1e-5, releases=5
    )
    assert "the next 5 releases would bring epsilon from 1 to 2.5" in str(whole)
