# SPDX-License-Identifier: Apache-2.0
"""No lie of the aggregator opens one client's vector: a search that finds (SPEC 11).

The search of ``attack.py`` reads the sums that were agreed upon, and nothing less, from
parties that follow the document.  It is then turned on parties with one rule broken
each, and reads single vectors: it is judged against what the clients really sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from secure_fl import ckks
from secure_fl.ckks.client import Upload
from secure_fl.ckks.encryption import Encryption
from secure_fl.ckks.messages import KINDS, Ciphertext
from secure_fl.errors import FaultyAggregator

from .attack import Found, LyingAggregator, Seen, differences, search
from .forging import random_key
from .world import Attempt, World, of_kind

ALL = frozenset(range(4))
LESS = frozenset({0, 1, 2})
D = frozenset({3})
PUBLIC_SEED = b"0" * 32
I64 = NDArray[np.int64]


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "keyholder")
    yield made
    made.close()


@pytest.fixture
def one_time(tmp_path: Path) -> Iterator[World]:
    made = World(tmp_path, "one-time")
    yield made
    made.close()


def secret(world: World, client: int) -> I64:
    """A client's words as it really sends them, as far as the first block goes."""
    step = world.plan.encoding.step
    values = world.session().parameters.packing.values
    part = world.vectors[world.names[client]][:values]
    units: I64 = np.rint(part / step).astype(np.int64)
    return units


def another_update(world: World) -> None:
    """Clients train anew between two rounds."""
    for index, name in enumerate(world.names):
        world.vectors[name] = np.roll(world.vectors[name], index + 1) * -1


def sets(found: list[Found]) -> set[tuple[int, frozenset[int]]]:
    return {(f.context, f.clients) for f in found}


def reads(found: list[Found], clients: frozenset[int], units: I64) -> bool:
    """Whether these clients' sum is among what was found, to the last word."""
    return any(f.clients == clients and (f.units == units).all() for f in found)


# -- the parties that follow the document ------------------------------------------


def test_it_reads_the_sum_that_was_agreed_upon_and_nothing_less(world: World) -> None:
    liar = LyingAggregator(world, (0, 0))
    assert not search([liar.seen], {}), "before the release nothing opens"
    assert liar.ask(ALL)
    found = search([liar.seen], {})
    assert sets(found) == {(0, ALL)}
    assert reads(found, ALL, sum_of(world, ALL))


def sum_of(world: World, clients: frozenset[int]) -> I64:
    total: I64 = np.sum([secret(world, i) for i in clients], axis=0)
    return total


def test_asking_twice_for_sets_that_differ_in_one_client(world: World) -> None:
    liar = LyingAggregator(world, (0, 0))
    assert liar.ask(ALL)
    assert not liar.ask(LESS)
    assert not liar.ask(ALL)
    assert sets(search([liar.seen], {})) == {(0, ALL)}


def test_a_second_attempt_of_the_round(world: World) -> None:
    """Nobody's update goes out twice, and the round's keys are released once."""
    first = LyingAggregator(world, (0, 0))
    assert first.ask(ALL)
    with pytest.raises(FaultyAggregator):
        LyingAggregator(world, (0, 1))


def test_the_next_round_with_one_client_less(world: World) -> None:
    """Sums of keys of two contexts: their difference is no key of anyone's."""
    first = LyingAggregator(world, (0, 0))
    assert first.ask(ALL)
    before = sum_of(world, ALL)
    d = secret(world, 3)
    another_update(world)
    second = LyingAggregator(world, (1, 0))
    assert second.ask(LESS)
    found = search([first.seen, second.seen], {})
    assert sets(found) == {(0, ALL), (1, LESS)}
    assert reads(found, ALL, before)
    # Not by subtracting what was opened either: those are other updates.
    assert not reads(differences(found), D, d)
    assert not reads(differences(found), D, secret(world, 3))


def test_a_clients_upload_of_an_earlier_round(world: World) -> None:
    """In a later one the key holder refuses its row; its ciphertext fits nothing."""
    first = LyingAggregator(world, (0, 0))
    assert first.ask(ALL)
    another_update(world)
    second = LyingAggregator(world, (1, 0))
    old = dict(second.rows)
    second.rows[3] = first.rows[3]
    assert not second.ask(ALL)
    second.rows = old
    third = LyingAggregator(world, (2, 0))
    third.seen.sent[3] = first.seen.sent[3]
    assert third.ask(ALL)
    # Also not under its own cover of that time.
    again = Seen(third.session, dict(third.seen.sent), sums=third.seen.sums)
    again.seeds = {**third.seen.seeds, 3: first.seen.seeds[3]}
    found = search([third.seen, again], {})
    assert not found


def test_a_refused_context_stays_closed_whatever_comes_later(world: World) -> None:
    """The same vectors go out again, in a context that opens without d."""
    first = LyingAggregator(world, (0, 0))
    refusal = first.called.ask([first.rows[0]])
    for participant in world.participants.values():
        participant.release(refusal)
    assert not first.ask(ALL)
    second = LyingAggregator(world, (0, 1))
    assert second.ask(LESS)
    # One update of each went into both.
    assert all(world.states(name) == ["sent"] for name in world.names)
    found = search([first.seen, second.seen], {})
    assert sets(found) == {(1, LESS)}
    assert reads(found, LESS, sum_of(world, LESS))


@pytest.mark.parametrize("clients", [ALL, LESS], ids=["all", "the least"])
def test_with_a_colluding_client(
    world: World, clients: frozenset[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It reads the sum over the honest ones in the set, as it must, and no part."""
    told = keys_told(monkeypatch)
    liar = LyingAggregator(world, (0, 0))
    assert liar.ask(clients)
    assert not liar.ask(clients - {2})
    found = search([liar.seen], {0: told[0][0]})
    others = clients - {0}
    assert {c for _, c in sets(found)} == {clients, others, frozenset({0})}
    assert reads(found, others, sum_of(world, others))
    assert reads(found, frozenset({0}), secret(world, 0))
    for one in others:
        assert not reads(found, frozenset({one}), secret(world, one))


def keys_told(monkeypatch: pytest.MonkeyPatch) -> dict[int, list[I64]]:
    """Each client's keys, as a colluder would tell them."""
    told: dict[int, list[I64]] = {}
    begin = Encryption.__init__

    def init(
        self: Any, session: ckks.Session, me: int, *rest: Any, **named: Any
    ) -> None:
        begin(self, session, me, *rest, **named)
        told.setdefault(me, []).append(self._key)

    monkeypatch.setattr(Encryption, "__init__", init)
    return told


# -- parties with one rule broken ---------------------------------------------------


def reuse_keys(monkeypatch: pytest.MonkeyPatch, world: World) -> None:
    """Clients that draw a key once, for all of their contexts."""
    fixed = {i: random_key(world.session()) for i in ALL}
    begin = Encryption.__init__

    def init(
        self: Any, session: ckks.Session, me: int, *rest: Any, **named: Any
    ) -> None:
        begin(self, session, me, *rest, **named)
        self._key = fixed[me]

    monkeypatch.setattr(Encryption, "__init__", init)


def show_covers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients whose cover everybody knows: as good as none."""
    begin = Upload.__init__

    def init(self: Any, *rest: Any, **named: Any) -> None:
        begin(self, *rest, **named)
        self._cover = PUBLIC_SEED

    monkeypatch.setattr(Upload, "__init__", init)


class Forgets:
    """A record that remembers nothing."""

    def begin(self, ctx: bytes) -> None:
        pass

    def begun(self, ctx: bytes) -> bool:
        return False


class Careless:
    """A key holder that keeps its key, and answers whatever it is asked."""

    def __init__(self, world: World) -> None:
        self.holder = ckks.KeyHolder(
            world.keyholder,
            aggregator=world.aggregator.public_key,
            session_of=lambda call: world.session((call.round_index, call.attempt)),
            record=Forgets(),
        )

    def handle(self, message: bytes, *, random: bytes) -> bytes:
        before = self.holder._open
        answer = self.holder.handle(message, random=random)
        self.holder._open = self.holder._open or before
        return answer


def test_the_search_opens_what_a_key_holder_releases_twice(world: World) -> None:
    world.holder = Careless(world)  # type: ignore[assignment]
    liar = LyingAggregator(world, (0, 0))
    assert liar.ask(ALL)
    assert liar.ask(LESS)
    found = search([liar.seen], {})
    assert sets(found) == {(0, ALL), (0, LESS), (0, D)}
    assert reads(found, D, secret(world, 3))


def test_the_search_opens_what_a_key_holder_refused_and_released(world: World) -> None:
    """Then the retry puts the same vectors into a second sum."""
    world.holder = Careless(world)  # type: ignore[assignment]
    first = LyingAggregator(world, (0, 0))
    refusal = first.called.ask([first.rows[0]])
    for participant in world.participants.values():
        participant.release(refusal)
    assert first.ask(ALL)
    second = LyingAggregator(world, (0, 1))
    assert second.ask(LESS)
    found = search([first.seen, second.seen], {})
    assert sets(found) == {(0, ALL), (1, LESS)}
    assert reads(differences(found), D, secret(world, 3))


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("shown", [False, True])
def test_the_search_opens_clients_that_use_a_key_twice(
    world: World, reused: bool, shown: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And with a cover that is known, also where they are in no set."""
    if reused:
        reuse_keys(monkeypatch, world)
    if shown:
        show_covers(monkeypatch)
    first = LyingAggregator(world, (0, 0))
    assert first.ask(ALL)
    before = secret(world, 3)
    another_update(world)
    second = LyingAggregator(world, (1, 0))
    assert second.ask(LESS)
    if shown:
        second.seen.seeds[3] = PUBLIC_SEED
    found = search([first.seen, second.seen], {})
    assert reads(found, D, before) == reused
    assert reads(found, D, secret(world, 3)) == (reused and shown)
    assert ((1, D) in sets(found)) == (reused and shown)
    if not reused:
        assert sets(found) == {(0, ALL), (1, LESS)}


# -- one-time keys ------------------------------------------------------------------


def watched(
    world: World,
    place: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
    *,
    late: str = "",
) -> Seen:
    """A round with one-time keys, and all that its aggregator had in the end."""
    session = world.session(place)
    seen = Seen(session)
    genuine = ckks.open_sum

    def spy(of: ckks.Session, total: Any, key_sum: I64, seeds: Any) -> Any:
        seen.sums.append(key_sum)
        seen.seeds.update(seeds)
        return genuine(of, total, key_sum, seeds)

    with monkeypatch.context() as patch:
        patch.setattr(ckks, "open_sum", spy)
        delays = {late: ("vectors", 0)} if late else {}
        attempt = Attempt(world, place, delays=delays)
        opened = attempt.run()
    assert opened.survivors == tuple(n for n in world.names if n != late)
    heard = [(n, m) for n, said in attempt.said.items() for m in said]
    for name, message in (*heard, *attempt.ignored):
        for chunk in of_kind([message], KINDS.CIPHERTEXT):
            made = Ciphertext.decode(chunk, session)
            if made.index == 0:
                seen.take(session.roster.index(name), bytes(made.data))
    assert len(seen.sent) == 4
    return seen


def test_one_time_keys_open_the_survivors_sum_and_nothing_less(
    one_time: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a client's whole upload came, but too late."""
    first = watched(one_time, (0, 0), monkeypatch)
    before = sum_of(one_time, ALL)
    another_update(one_time)
    second = watched(one_time, (1, 0), monkeypatch, late="clinic-d")
    assert set(second.seeds) == LESS
    found = search([first, second], {})
    assert sets(found) == {(0, ALL), (1, LESS)}
    assert reads(found, ALL, before)
    assert reads(found, LESS, sum_of(one_time, LESS))


def test_the_search_opens_one_time_keys_that_are_used_twice(
    one_time: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    reuse_keys(monkeypatch, one_time)
    first = watched(one_time, (0, 0), monkeypatch)
    before = secret(one_time, 3)
    another_update(one_time)
    second = watched(one_time, (1, 0), monkeypatch, late="clinic-d")
    found = search([first, second], {})
    assert reads(found, D, before)
    # Its upload that came late is still under a cover that nobody has.
    assert not reads(found, D, secret(one_time, 3))
    assert (1, D) not in sets(found)
