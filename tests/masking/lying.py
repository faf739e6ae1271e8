# SPDX-License-Identifier: Apache-2.0
"""A stateful search for a lie that opens more than one agreed sum.

Real clients are asked anything, in any order, in five contexts at once, by an
aggregator that pools all it hears with up to ``max_colluding`` colluders; after every
step it attacks with all it has (``adversary.py``).
"""

from __future__ import annotations

from collections import Counter
from typing import ClassVar

from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from secure_fl.errors import SecureFLError
from secure_fl.identity import Roster
from secure_fl.masking import Session, messages

from ..consortium import identities, make_roster, make_session
from .adversary import Heard, check_all, check_statements
from .liar import BOX_LIES, KEY_LIES, SIGNATURE_LIES, STATEMENT_LIES, Liar
from .members import Member

# n, max_colluding, threshold, min_clients
SHAPES = [(4, 1, 3, 3), (5, 1, 4, 3), (5, 1, 4, 5), (6, 2, 5, 4), (7, 2, 5, 5)]
# Told at most this often: a lie in every message gets nowhere.
RARELY = 4


def contexts(n: int, colluding: int, threshold: int, minimum: int) -> list[Session]:
    """One context, its next attempt, another round, model and roster."""
    members = make_roster(n).members
    swapped = Roster((members[-1], *members[1:-1], members[0]))

    def made(
        *,
        attempt: int = 0,
        round_index: int = 0,
        model: bytes = b"m" * 32,
        roster: Roster | None = None,
    ) -> Session:
        return make_session(
            n, length=5, chunk_words=2, word_bits=40, threshold=threshold,
            min_clients=minimum, max_colluding=colluding, attempt=attempt,
            round_index=round_index, model=model, roster=roster,
        )  # fmt: skip

    return [
        made(),
        made(attempt=1),
        made(round_index=1),
        made(model=b"x" * 32),
        made(roster=swapped),
    ]


class Lying(RuleBasedStateMachine):
    """Rules are what a liar may do; the invariant is what it may know."""

    kind: ClassVar[type[Member]] = Member
    # Whether a break of the protocol counts that gives nothing away as yet.
    by_statement: ClassVar[bool] = True
    total: ClassVar[Counter[str]] = Counter()

    @initialize(data=st.data())
    def meet(self, data: st.DataObject) -> None:
        n, colluding, threshold, minimum = data.draw(st.sampled_from(SHAPES))
        bad = data.draw(
            st.sets(st.integers(0, n - 1), min_size=colluding, max_size=colluding)
        )
        names = identities(n)
        self.liar = Liar(
            contexts(n, colluding, threshold, minimum),
            [self.kind(names[i]) for i in range(n) if i not in bad],
            [names[i] for i in sorted(bad)],
        )
        self.read = 0
        self.sizes: list[tuple[int, int, int]] = []

    # -- drawing -------------------------------------------------------------------

    def _ready(self, step: int) -> list[Heard]:
        """Contexts with someone to ask, and enough in them to get further."""
        out = []
        for h in self.liar.contexts:
            p = h.session.parameters
            came = [h.session.parameters.clients, len(h.announced), len(h.shown)]
            came += [len(h.inputs), len(h.signed)]
            needed = p.threshold if step == 4 else p.needed
            enough = came[step] + len(h.colluders) >= needed
            if enough and self.liar.waiting(h, step):
                out.append(h)
        return out

    def _context(self, data: st.DataObject, step: int) -> Heard:
        """Where a client waits for ``step``; the first contexts more often."""
        ready = self._ready(step)
        weighted = [h for k, h in enumerate(ready) for _ in range(max(1, 4 - 2 * k))]
        return data.draw(st.sampled_from(weighted), "context")

    def _group(
        self, data: st.DataObject, heard: Heard, step: int, lie: str = ""
    ) -> list[int]:
        """Mostly all that wait: a round gets nowhere by single clients and lies."""
        waiting = self.liar.waiting(heard, step)
        # More often in step 2: who is left may send its vector late.
        if not lie and data.draw(st.integers(0, 3), "some") < (2 if step == 2 else 3):
            return waiting
        return sorted(data.draw(st.sets(st.sampled_from(waiting), max_size=2), "to"))

    def _omitted(self, data: st.DataObject, heard: Heard) -> set[int]:
        if data.draw(st.integers(0, 2), "omit") < 2:
            return set()
        everyone = sorted({*self.liar.by_index(heard), *heard.colluders})
        return data.draw(st.sets(st.sampled_from(everyone), max_size=2), "omitted")

    def _lie(
        self, data: st.DataObject, heard: Heard, lies: tuple[str, ...]
    ) -> tuple[str, int]:
        lie = ""
        if data.draw(st.integers(0, RARELY), "lies") == RARELY:
            lie = data.draw(st.sampled_from(lies), "lie")
            self.total[lie] += 1
        everyone = sorted(self.liar.by_index(heard))
        return lie, data.draw(st.sampled_from(everyone), "victim")

    # -- rules -----------------------------------------------------------------------

    def _next(self, data: st.DataObject, step: int) -> None:
        (
            self.open_context,
            self.show_keys,
            self.show_boxes,
            self.show_statement,
            self.show_signatures,
        )[step](data)

    # One rule for all five: hypothesis leaves rules out at random, and a round
    # without one of its steps gets nowhere.
    @precondition(lambda self: any(self._ready(k) for k in range(5)))
    @rule(data=st.data())
    def go_on(self, data: st.DataObject) -> None:
        steps = [k for k in range(5) if self._ready(k)]
        self._next(data, data.draw(st.sampled_from(steps), "step"))

    @precondition(lambda self: any(self._ready(k) for k in range(1, 5)))
    @rule(data=st.data())
    def go_further(self, data: st.DataObject) -> None:
        self._next(data, max(k for k in range(5) if self._ready(k)))

    def open_context(self, data: st.DataObject) -> None:
        heard = self._context(data, 0)
        for client in self._group(data, heard, 0):
            self.liar.begin(heard, client)

    def _keys(
        self, data: st.DataObject, heard: Heard
    ) -> tuple[messages.CohortKeys, str]:
        same = data.draw(st.integers(0, 3), "the same as before")
        if heard.cohorts and same:
            return data.draw(st.sampled_from(heard.cohorts), "cohort"), ""
        omitted = self._omitted(data, heard)
        lie, victim = self._lie(data, heard, KEY_LIES)
        return self.liar.cohort(heard, omitted, lie, victim), lie

    def show_keys(self, data: st.DataObject) -> None:
        heard = self._context(data, 1)
        keys, lie = self._keys(data, heard)
        for client in self._group(data, heard, 1, lie):
            self.liar.tell_keys(heard, client, keys)

    def show_boxes(self, data: st.DataObject) -> None:
        heard = self._context(data, 2)
        omitted = self._omitted(data, heard)
        lie, victim = self._lie(data, heard, BOX_LIES)
        chunks = heard.session.parameters.chunks
        # All of it, or the first chunk, or all chunks and no signed root.
        pieces = data.draw(st.sampled_from([chunks + 1] * 4 + [1, chunks]), "pieces")
        late = "late" if pieces <= chunks else ""
        for client in self._group(data, heard, 2, lie or late):
            box = self.liar.inbox(heard, client, omitted, lie, victim)
            if box is not None:
                self.liar.tell_boxes(heard, client, box, pieces=pieces)

    def _show_statement(
        self, data: st.DataObject, heard: Heard, clients: list[int] | None
    ) -> None:
        omitted, invented = self._omitted(data, heard), self._omitted(data, heard)
        lie, victim = self._lie(data, heard, STATEMENT_LIES)
        for client in clients or self._group(data, heard, 3, lie):
            statement = self.liar.statement(
                heard, client, omitted, invented, lie, victim
            )
            if statement is not None:
                self.liar.tell_statement(heard, client, statement)

    def show_statement(self, data: st.DataObject) -> None:
        self._show_statement(data, self._context(data, 3), None)

    def _show_signatures(
        self, data: st.DataObject, heard: Heard, clients: list[int] | None
    ) -> None:
        lie, victim = self._lie(data, heard, SIGNATURE_LIES)
        for client in clients or self._group(data, heard, 4, lie):
            statement = heard.signed.get(client)
            if lie == "mixed":
                statement = next((s for s, _ in heard.agreed), statement)
            if statement is not None:
                told = self.liar.signatures(heard, statement, lie, victim)
                self.liar.tell_signatures(heard, client, told)

    def show_signatures(self, data: st.DataObject) -> None:
        self._show_signatures(data, self._context(data, 4), None)

    @precondition(lambda self: any(h.announced for h in self.liar.contexts))
    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        """A second message of a step that the client has left, or failed in."""
        places = [h for h in self.liar.contexts if h.announced]
        heard = data.draw(st.sampled_from(places), "context")
        everyone = sorted(self.liar.by_index(heard))
        clients = sorted(data.draw(st.sets(st.sampled_from(everyone), min_size=1)))
        step = data.draw(st.sampled_from([0, 1, 2, 3, 3, 3, 4, 4]), "step")
        match step:
            case 0:
                for client in clients:
                    self.liar.begin(heard, client)
            case 1:
                keys, _ = self._keys(data, heard)
                for client in clients:
                    self.liar.tell_keys(heard, client, keys)
            case 2:
                pieces = heard.session.parameters.chunks + 1
                for client in clients:
                    box = self.liar.inbox(heard, client, (), "", client)
                    if box is not None:
                        self.liar.tell_boxes(heard, client, box, pieces=pieces)
            case 3:
                self._show_statement(data, heard, clients)
            case _:
                self._show_signatures(data, heard, clients)

    @precondition(lambda self: any(h.signed for h in self.liar.contexts))
    @rule(data=st.data())
    def ask_for_less(self, data: st.DataObject) -> None:
        """A statement without one more client, and then signatures for it."""
        places = [h for h in self.liar.contexts if h.signed]
        heard = data.draw(st.sampled_from(places), "context")
        victim = data.draw(st.sampled_from(sorted(heard.signed)), "victim")
        others = [i for i in sorted(heard.signed) if i != victim]
        for client in others:
            statement = self.liar.statement(heard, client, {victim}, (), "", victim)
            if statement is not None:
                self.liar.tell_statement(heard, client, statement)
        for client in others:
            told = self.liar.signatures(heard, heard.signed[client], "", victim)
            self.liar.tell_signatures(heard, client, told)

    @precondition(lambda self: any(h.agreed for h in self.liar.contexts))
    @rule(data=st.data())
    def show_an_omission(self, data: st.DataObject) -> None:
        """A proof, true or not, that some vectors will never be opened."""
        places = [h for h in self.liar.contexts if h.agreed]
        heard = data.draw(st.sampled_from(places), "context")
        statement = data.draw(st.sampled_from(heard.agreed), "statement")[0]
        lie, victim = self._lie(data, heard, SIGNATURE_LIES)
        told = self.liar.signatures(heard, statement, lie, victim)
        session = heard.session
        for member in self.liar.members.values():
            try:
                member.free(session, statement.encode(session), told.encode(session))
            except SecureFLError:
                continue
            self.liar.did["freed"] += 1

    @precondition(lambda self: any(h.announced for h in self.liar.contexts))
    @rule(data=st.data(), step=st.integers(1, 4))
    def restart_clients(self, data: st.DataObject, step: int) -> None:
        places = [h for h in self.liar.contexts if h.announced]
        heard = data.draw(st.sampled_from(places), "context")
        for member in self.liar.members.values():
            try:
                member.park(heard.session, step)
            except SecureFLError:
                continue
            self.liar.did["parked"] += 1

    # -- what must hold ------------------------------------------------------------

    @invariant()
    def no_more_than_one_agreed_sum_each(self) -> None:
        if not hasattr(self, "liar"):
            return
        sizes = [h.size for h in self.liar.contexts]
        if sizes == self.sizes:
            return
        self.sizes = sizes
        if self.by_statement:
            for heard in self.liar.contexts:
                check_statements(heard)
        self.read = check_all(self.liar.contexts, list(self.liar.members.values()))

    def teardown(self) -> None:
        if not hasattr(self, "liar"):
            return
        self.total.update(self.liar.did)
        self.total["sums read"] += self.read
        self.total["runs with two sums"] += self.read > 1
        for heard in self.liar.contexts:
            views = {id(k) for k in heard.shown.values()}
            self.total["split cohorts"] += len(views) > 1
            self.total["split statements"] += len({s for s, _ in heard.agreed}) > 1


def searched(machine: type[Lying], *, examples: int, steps: int) -> Counter[str]:
    machine.total = Counter()
    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            phases=[Phase.generate],
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
    return machine.total
