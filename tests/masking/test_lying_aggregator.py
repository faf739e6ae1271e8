# SPDX-License-Identifier: Apache-2.0
"""No lie opens more than one agreed sum in a context (SPEC 10): a search that finds.

The search of ``lying.py`` finds nothing against clients that follow the document.  It
is then turned on clients with one rule broken each (``members.py``), and opens them.
"""

from __future__ import annotations

from collections import Counter

import pytest

from ..consortium import identities
from .adversary import Broken, Heard, check_all, check_context
from .liar import BOX_LIES, KEY_LIES, SIGNATURE_LIES, STATEMENT_LIES, STEPS, Liar
from .lying import Lying, contexts, searched
from .members import (
    MasksTwice,
    Member,
    ReusesRandomness,
    ReusesVectors,
    RevealsBothKinds,
    SignsTwice,
    TrustsSignatures,
)


def assert_reached(total: Counter[str], *what: str) -> None:
    """A search that never got anywhere proves nothing."""
    assert not [w for w in what if not total[w]]


def test_a_lying_aggregator_reads_one_agreed_sum_or_nothing() -> None:
    total = searched(Lying, examples=60, steps=50)
    assert total["sums read"] >= 5
    assert_reached(total, *(f"{step} refused" for step in STEPS[1:]))
    assert_reached(total, *(f"{step} refused again" for step in STEPS))


@pytest.mark.long
def test_a_lying_aggregator_at_length() -> None:
    total = searched(Lying, examples=1500, steps=60)
    assert total["sums read"] >= 200
    lies = (*KEY_LIES, *BOX_LIES, *STATEMENT_LIES, *SIGNATURE_LIES)
    assert_reached(total, "split cohorts", "split statements", "late vector", *lies)
    assert_reached(total, "runs with two sums", "part of a vector", "freed", "parked")


@pytest.mark.parametrize(
    ("kind", "how"),
    [
        (SignsTwice, "both secrets of client|is open"),
        (MasksTwice, "is no sum|independent sums"),
        (RevealsBothKinds, "both secrets of client"),
        (ReusesVectors, "hold one vector"),
    ],
)
def test_the_search_opens_a_broken_client(kind: type[Member], how: str) -> None:
    """Against actual secrets: what it finds is a vector, or a difference of sums."""

    class Weak(Lying):
        by_statement = False

    Weak.kind = kind
    with pytest.raises(Broken, match=how):
        searched(Weak, examples=500, steps=60)


def test_the_same_random_bytes_in_two_contexts_open_nothing() -> None:
    """Against SPEC 4.1, and harmless: ``ctx`` is in every derivation."""

    class Stale(Lying):
        kind = ReusesRandomness

    total = searched(Stale, examples=30, steps=50)
    assert total["sums read"] >= 1


def test_the_search_finds_a_reveal_without_signatures() -> None:
    class Weak(Lying):
        kind = TrustsSignatures

    with pytest.raises(Broken, match="by two statements"):
        searched(Weak, examples=200, steps=60)


def seven(kind: type[Member]) -> tuple[Liar, Heard]:
    """Seven clients, two of them colluders, all vectors in; five statements.

    Five of seven must sign and be in (``min_clients`` 5), so a sum holds three honest
    vectors at least.  Each honest client is shown a statement without two others.
    """
    names = identities(7)
    liar = Liar(contexts(7, 2, 5, 5), [kind(i) for i in names[:5]], names[5:])
    heard = liar.contexts[0]
    for client in range(5):
        liar.begin(heard, client)
    keys = liar.cohort(heard, (), "", 0)
    for client in range(5):
        liar.tell_keys(heard, client, keys)
    for client in range(5):
        box = liar.inbox(heard, client, (), "", 0)
        assert box is not None
        liar.tell_boxes(heard, client, box, pieces=9)
    views = {0: {1, 2}, 1: {0, 2}, 2: {0, 1}, 3: {0, 1}, 4: {0, 2}}
    for client, omitted in views.items():
        statement = liar.statement(heard, client, omitted, (), "", 0)
        assert statement is not None
        liar.tell_statement(heard, client, statement)
    for client in views:
        told = liar.signatures(heard, heard.signed[client], "", 0)
        liar.tell_signatures(heard, client, told)
    return liar, heard


def test_what_the_check_of_signatures_is_for() -> None:
    """Without it, five views of U3 open a sum of two; with it, nothing is revealed."""
    liar, heard = seven(TrustsSignatures)
    with pytest.raises(Broken, match=r"a sum over \[3, 4\] alone is open"):
        check_all(liar.contexts, list(liar.members.values()))
    liar, heard = seven(Member)
    assert not heard.reveals
    assert check_all(liar.contexts, list(liar.members.values())) == 0
    assert liar.did["signatures refused"] == 5


def test_the_attack_reads_the_sum_that_was_agreed() -> None:
    """Control: a round without lies gives the liar one sum, and it is the right one."""
    names = identities(5)
    liar = Liar(contexts(5, 1, 4, 3), [Member(i) for i in names[:4]], names[4:])
    heard = liar.contexts[0]
    for client in range(4):
        liar.begin(heard, client)
    keys = liar.cohort(heard, (), "", 0)
    for client in range(4):
        liar.tell_keys(heard, client, keys)
    for client in range(4):
        box = liar.inbox(heard, client, (), "", 0)
        assert box is not None
        liar.tell_boxes(heard, client, box, pieces=9)
    # Client 3 is late: its vector came, and the statement leaves it out.
    for client in range(3):
        statement = liar.statement(heard, client, {3}, (), "", 0)
        assert statement is not None
        liar.tell_statement(heard, client, statement)
    for client in range(3):
        told = liar.signatures(heard, heard.signed[client], "", 0)
        liar.tell_signatures(heard, client, told)
    assert check_all(liar.contexts, list(liar.members.values())) == 1
    assert check_context(heard) == [[1, 1, 1, 0]]
