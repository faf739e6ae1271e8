# SPDX-License-Identifier: Apache-2.0
"""Any bytes: accepted or ProtocolError, nothing else, and nobody else is disturbed.

Ten thousand mutants in ``make test``, a million in ``make test-long``: of all ten kinds
of message, each into its decoder and into a live state (``fuzzing.py``).
"""

from __future__ import annotations

import multiprocessing
import random
from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from secure_fl import wire
from secure_fl.errors import ProtocolError, SecureFLError, StateReused
from secure_fl.masking import messages

from ..consortium import make_session
from .fuzzing import DECODERS, SENT, TOLD, fuzz
from .mutation import MUTATIONS, mutants, recorded

PER_KIND = 1_000
LONG_PER_KIND = 100_000
SHARDS = 10


@pytest.mark.parametrize("kind", sorted(DECODERS))
def test_a_mutant_is_refused_or_is_a_message(kind: int) -> None:
    count = fuzz(kind, PER_KIND, seed=kind)
    assert count["mutants"] == PER_KIND
    # Not all are refused at the door: changed keys and signatures are well formed.
    assert count["decoded"] > PER_KIND // 50
    assert {name for name in MUTATIONS if not count[name]} <= {"nested"}


def _shard(job: tuple[int, int]) -> Counter[str]:
    kind, shard = job
    return fuzz(kind, LONG_PER_KIND // SHARDS, seed=1_000 * kind + shard)


@pytest.mark.long
def test_a_million_mutants() -> None:
    """In processes of their own: a crash of one is an error here, too."""
    jobs = [(kind, shard) for shard in range(SHARDS) for kind in sorted(DECODERS)]
    total: Counter[str] = Counter()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        for count in pool.imap_unordered(_shard, jobs):
            total += count
    assert total["mutants"] == 1_000_000
    assert not [name for name in MUTATIONS if not total[name]]


def test_every_kind_of_message_is_fuzzed_where_it_arrives() -> None:
    assert sorted([*SENT, *TOLD]) == sorted(DECODERS) == list(range(1, 11))


def test_a_message_of_one_kind_is_none_of_another() -> None:
    c, good, _ = recorded()
    for kind, data in good.items():
        for other, decode in DECODERS.items():
            if other == kind:
                assert decode(data, c.session).encode(c.session) == data
                continue
            with pytest.raises(ProtocolError, match="another kind"):
                decode(data, c.session)


def test_mutants_are_repeatable_and_differ() -> None:
    """What a failing seed reports can be made again."""
    _, good, pool = recorded()
    once, twice = (list(mutants(good[3], pool, 50, seed=7)) for _ in range(2))
    assert once == twice
    assert good[3] not in {data for _, data in once}
    assert len({data for _, data in once}) > 40


def test_random_bytes_are_refused() -> None:
    draw = random.Random(0)
    session = make_session(3)
    for _ in range(3000):
        data = draw.randbytes(draw.randrange(0, 80))
        with pytest.raises(ProtocolError):
            DECODERS[draw.randrange(1, 11)](data, session)
        try:
            messages.kind_of(data)
        except ProtocolError:
            continue


_trees = st.recursive(
    st.integers(-(2**63), 2**64 - 1) | st.binary(max_size=70) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=5)
        | st.dictionaries(st.integers(0, 23), inner, max_size=6)
    ),
    max_leaves=12,
)


@given(st.integers(1, 10), st.dictionaries(st.integers(2, 9), _trees, max_size=6))
def test_well_formed_maps_of_any_content_are_refused(
    kind: int, body: dict[int, wire.Value]
) -> None:
    session = make_session(3)
    data = wire.encode({0: kind, 1: session.ctx, **body})
    try:
        out = DECODERS[kind](data, session)
    except ProtocolError:
        return
    # An empty list of rows is well formed, and what it decodes to is itself.
    encode = getattr(out, "encode")  # noqa: B009
    assert encode(session) == data


def test_only_protocol_errors_are_told_to_peers() -> None:
    assert issubclass(ProtocolError, SecureFLError)
    assert not issubclass(StateReused, ProtocolError)
