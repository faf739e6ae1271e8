# SPDX-License-Identifier: Apache-2.0
"""One context: who was shown something else fits nobody, and nothing is replayed."""

from __future__ import annotations

import dataclasses

import pytest

from secure_fl.errors import FaultyAggregator, ProtocolError
from secure_fl.identity import Roster
from secure_fl.masking import CollectAdvertise, Session, check_omission, messages
from secure_fl.masking.messages import Reveal

from ..consortium import Consortium, make_roster, make_session, plain_sum


def other_views() -> dict[str, Session]:
    return {
        "model": make_session(4, model=b"x" * 32),
        "plan": make_session(4, plan=b"x" * 32),
        "roster": make_session(4, roster=_swapped_roster()),
        "round": make_session(4, round_index=1),
        "attempt": make_session(4, attempt=1),
        "threshold": make_session(4, threshold=4),
        "length": make_session(4, length=6),
        "width": make_session(4, word_bits=31),
        "colluders": make_session(4, max_colluding=0, threshold=3, min_clients=3),
    }


def _swapped_roster() -> Roster:
    members = make_roster(4).members
    return Roster((*members[:2], members[3], members[2]))


@pytest.mark.parametrize("what", list(other_views()))
def test_a_client_shown_something_else_is_in_another_context(what: str) -> None:
    """Its messages fit nobody's, nobody's fit it, and the others go on."""
    session, view = make_session(4), other_views()[what]
    assert view.ctx != session.ctx
    c = Consortium(session, views={0: view})
    opened = c.opened()
    assert opened.survivors == (1, 2, 3)
    assert opened.words.tolist() == plain_sum(session, c.vectors, (1, 2, 3))
    assert [(at, who) for at, who, _ in c.refused] == [(1, 0)]
    assert "another context" in str(c.refused[0][2])
    for raw in (c.cohort, c.statement, c.signatures):
        with pytest.raises(ProtocolError, match="another context"):
            type(raw).decode(raw.encode(session), view)


def test_all_messages_of_an_old_context_are_refused() -> None:
    old = Consortium(make_session(4)).run()
    old.reveal()
    new = make_session(4, attempt=1)
    for step in (1, 2, 3, 4, 5):

        def sending(at: int, who: int, data: bytes, step: int = step) -> bytes:
            return old.said[at][who][0] if (at, who) == (step, 1) else data

        c = Consortium(new, sending=sending)
        opened = c.opened()
        assert 1 not in opened.survivors or step > 3
        assert "another context" in str(c.refused[0][2])
    for step in (2, 3, 4, 5):

        def delivering(at: int, who: int, data: bytes, step: int = step) -> bytes:
            return old.told[at][who] if (at, who) == (step, 1) else data

        c = Consortium(new, delivering=delivering)
        c.opened()
        assert isinstance(c.left[1], ProtocolError)
        assert "another context" in str(c.left[1])


def test_old_signatures_under_a_new_context_do_not_hold() -> None:
    """Decoding aside: the context is inside every signature, too."""
    old = Consortium(make_session(4)).run()
    old.reveal()
    new = Consortium(make_session(4, attempt=1)).run()
    session = new.session
    announcement = old.cohort.announcements[0]
    with pytest.raises(ProtocolError, match="not signed by it"):
        CollectAdvertise(session).add(0, messages.Advertise(announcement))
    rows = new.statement.survivors[:3]
    without = dataclasses.replace(new.statement, survivors=rows)
    with pytest.raises(FaultyAggregator, match="does not hold"):
        check_omission(session, 3, without, old.signatures)
    reveal = Reveal.decode(old.said[5][0][0], old.session)
    with pytest.raises(ProtocolError, match="not signed by it"):
        new.collect_reveals.add(0, reveal)
