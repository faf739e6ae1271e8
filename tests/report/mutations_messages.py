# SPDX-License-Identifier: Apache-2.0
"""Mutations of single messages, made with everybody's keys, under each protection.

Most are the forged messages of ``test_transcript.py`` and
``test_sealed_transcript.py``, which also say by which check each is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

from secure_fl import wire
from secure_fl.ckks.messages import KINDS
from secure_fl.masking import Session, messages
from secure_fl.plan import Plan

from .forge import REFUSED, Forge
from .mutations_folder import (
    EVERYBODY,
    NOBODY,
    TRANSCRIPT,
    Folder,
    Mutation,
    Row,
    ledger,
    messages_of,
    of_kind,
)
from .support import NAMES
from .test_sealed_transcript import HOLDER, ONE_TIME
from .test_transcript import COLLUDING, EDITS

__all__ = ["MESSAGES", "restate", "session_of"]

Edit = Callable[[list[Row]], None]
Forged = Callable[[Forge], None]

FIRST: Final = (0, 0)


def _logged(edit: Edit) -> Callable[[Folder], None]:
    return lambda folder: folder.log(edit)


def _forged(edit: Forged) -> Callable[[Folder], None]:
    """With the keys of everybody, for messages as well as for entries."""

    def apply(folder: Folder) -> None:
        folder.log(lambda rows: edit(Forge(folder.made, rows)))

    return apply


def _shared() -> Iterator[Mutation]:
    for what, edit in EDITS.items():
        name = f"message: {what}, signed by nobody"
        yield Mutation(name, "masking", NOBODY, _logged(edit), (TRANSCRIPT,))
    for what, edit in COLLUDING.items():
        name = f"message: {what}, signed by all"
        yield Mutation(name, "masking", EVERYBODY, _logged(edit), (TRANSCRIPT,))
    for run, table in (("keyholder", HOLDER), ("one-time", ONE_TIME)):
        for what, (forge, _) in table.items():
            name = f"message ({run}): {what}, signed by all"
            yield Mutation(name, run, EVERYBODY, _forged(forge), (TRANSCRIPT,))


# -- without protection ----------------------------------------------------------------


def session_of(plan: Plan, rows: list[Row], size: int) -> Session:
    """The context of the first attempt of all."""
    session = plan.session(
        round_index=0, attempt=0, model_hash=rows[0][1][6], size=size
    )
    assert isinstance(session, Session)
    return session


def _body(rows: list[Row], number: int, at: int = 0) -> dict[int, Any]:
    return rows[messages_of(rows, number)[at]][1]


def _field(number: int, field: int, value: Any) -> Edit:
    def edit(rows: list[Row]) -> None:
        body = _body(rows, number)
        assert body[field] != value
        body[field] = value

    return edit


def _without(number: int, at: int = 0) -> Edit:
    def edit(rows: list[Row]) -> None:
        del rows[messages_of(rows, number)[at]]

    return edit


def _again(number: int) -> Edit:
    def edit(rows: list[Row]) -> None:
        at = messages_of(rows, number)[0]
        rows.insert(at + 1, ("message", {**rows[at][1]}, -1))

    return edit


def _flipped(number: int) -> Edit:
    def edit(rows: list[Row]) -> None:
        body = _body(rows, number)
        body[4] = body[4][:-1] + bytes([body[4][-1] ^ 1])

    return edit


def _swapped(rows: list[Row]) -> None:
    one, two = _body(rows, 6, 0), _body(rows, 6, 1)
    one[4], two[4] = two[4], one[4]


def _late_request(rows: list[Row]) -> None:
    at = messages_of(rows, 0)[0]
    rows.insert(messages_of(rows, 6)[-1], rows.pop(at))


def _survivors(plan: Plan, rows: list[Row], names: tuple[str, ...]) -> None:
    """The first round's entry names these, and none but these sign it."""
    at = of_kind(rows, "round")[0]
    body, sequence = rows[at][1], rows[at][2]
    body[3], body[4] = list(names), sum(plan.member(name).weight for name in names)
    for i in reversed(of_kind(rows, "signature")):
        if rows[i][1][1] == sequence and rows[i][1][0] not in ("", *names):
            del rows[i]


def _two_left(folder: Folder) -> None:
    """Round 0 was opened with two vectors, below the plan's minimum, and says so."""

    def edit(rows: list[Row]) -> None:
        for at in reversed(messages_of(rows, 6)[2:]):
            del rows[at]
        _survivors(folder.plan, rows, NAMES[:2])

    folder.log(edit)


def _two_survivors(folder: Folder) -> None:
    folder.log(lambda rows: _survivors(folder.plan, rows, NAMES[:2]))


def _vector(**fields: Any) -> Callable[[Folder], None]:
    """bank-a's vector in the plain run says something else, and bank-a signed that."""

    def edit(folder: Folder, rows: list[Row]) -> None:
        session = session_of(folder.plan, rows, 20)
        body = _body(rows, 6)
        old = messages.MaskedInput.decode(body[4], session)
        changed = replace(old, **fields)
        parts = changed.signed(session, bytes(32))
        signature = folder.made.identities["bank-a"].sign(messages.INPUT_LABEL, *parts)
        body[4] = replace(changed, signature=signature).encode(session)

    def apply(folder: Folder) -> None:
        folder.log(lambda rows: edit(folder, rows))
        folder.rebuild()

    return apply


def _no_simulation(rows: list[Row]) -> None:
    rows[0][1][4] = 0


def _unprotected() -> Iterator[Mutation]:
    edits: dict[str, Edit] = {
        "request dropped and asked later": _late_request,
        "request flipped": _flipped(0),
        "request repeated": _again(0),
        "request by a member": _field(0, 2, "bank-a"),
        "request withheld": _field(0, 5, 1),
        "vector dropped": _without(6),
        "vector repeated": _again(6),
        "vector flipped": _flipped(6),
        "vector of another": _field(6, 2, "bank-b"),
        "vector of a stranger": _field(6, 2, "bank-x"),
        "vector of the aggregator": _field(6, 2, ""),
        "vector withheld": _field(6, 5, 1),
        "vector in another attempt": _field(6, 1, 1),
        "vectors swapped": _swapped,
        "a message of masking": _field(6, 4, wire.encode({0: 7})),
    }
    changes = {what: _logged(edit) for what, edit in edits.items()}
    changes["fewer clients than the plan needs"] = _two_left
    changes["fewer survivors than vectors"] = _two_survivors
    for what, change in changes.items():
        name = f"message (plain): {what}, signed by all"
        yield Mutation(name, "plain", EVERYBODY, change, (TRANSCRIPT,))
    name = "start (plain): not a simulation, signed by all"
    edit = _logged(_no_simulation)
    yield Mutation(name, "plain", EVERYBODY, edit, (TRANSCRIPT,))
    name = "message (plain): another claim, signed by all"
    edit = _vector(claim=bytes(32))
    yield Mutation(name, "plain", EVERYBODY, edit, (ledger("bank-a"),))
    lies: dict[str, dict[str, Any]] = {
        "a vector in another's name": {"client": 1},
        "a vector of other dealers": {"dealers": bytes(31) + b"\x01"},
    }
    for what, fields in lies.items():
        name = f"message (plain): {what}, signed by all"
        yield Mutation(name, "plain", EVERYBODY, _vector(**fields), (TRANSCRIPT,))


# -- one set, and enough of them -------------------------------------------------------


def restate(
    folder: Folder,
    rows: list[Row],
    session: Session,
    survivors: tuple[messages.Survivor, ...],
) -> None:
    """The first attempt's statement is about ``survivors``, and each agrees to it."""
    body = _body(rows, 7)
    old = messages.Statement.decode(body[4], session)
    new = replace(old, survivors=survivors)
    body[4] = new.encode(session)
    agreements = []
    for row, at in zip(survivors, messages_of(rows, 8), strict=False):
        signer = folder.made.identities[session.name(row.client)]
        signature = signer.sign(messages.STATEMENT_LABEL, *new.signed(session))
        agreement = messages.Agreement(row.client, signature)
        rows[at][1][4] = agreement.encode(session)
        agreements.append(agreement)
    _body(rows, 9)[4] = messages.Signatures(tuple(agreements)).encode(session)


def _restated(keep: int, *, inputs: bool) -> Callable[[Folder], None]:
    """The first round is said to be of the first ``keep`` clients, who all agree.

    With ``inputs`` the others' vectors are gone too.
    """

    def edit(folder: Folder, rows: list[Row]) -> None:
        session = session_of(folder.plan, rows, 20)
        old = messages.Statement.decode(_body(rows, 7)[4], session)
        restate(folder, rows, session, old.survivors[:keep])
        gone = [i for n in (8, 10) for i in messages_of(rows, n)[keep:]]
        gone += messages_of(rows, 6)[keep:] if inputs else []
        for i in sorted(gone, reverse=True):
            del rows[i]
        _survivors(folder.plan, rows, NAMES[:keep])

    return lambda folder: folder.log(lambda rows: edit(folder, rows))


def _sets() -> Iterator[Mutation]:
    edits = {
        "opened with two clients": _restated(2, inputs=True),
        "a statement of two among four": _restated(2, inputs=False),
        "a statement of three among four": _restated(3, inputs=False),
    }
    for what, edit in edits.items():
        name = f"message: {what}, signed by all"
        yield Mutation(name, "masking", EVERYBODY, edit, (TRANSCRIPT,))
    # Another set that could have been: but bank-d says that its update was opened.
    name = "message: opened without bank-d, signed by all"
    edit = _restated(3, inputs=True)
    files = (TRANSCRIPT, ledger("bank-d"))
    yield Mutation(name, "masking", EVERYBODY, edit, files)


# -- who was left out ------------------------------------------------------------------


def _omissions() -> Iterator[Mutation]:
    """A client sent its update twice: only what the log no longer holds allows that."""

    def no_refusal(forge: Forge) -> None:
        forge.drop(KINDS.REFUSAL, place=REFUSED)
        for at in of_kind(forge.rows, "failure"):
            forge.rows[at][1][3] = ""  # nobody found anything

    def nobody_signed(forge: Forge) -> None:
        forge.drop(10, place=(1, 0))
        forge.drop(9, place=(1, 0))

    cases: dict[str, tuple[str, Forged, str]] = {
        "the refusal hidden": ("keyholder", no_refusal, "bank-a"),
        "signatures without a client hidden": ("one-time", nobody_signed, "bank-d"),
    }
    for what, (run, edit, client) in cases.items():
        name = f"message ({run}): {what}, signed by all"
        yield Mutation(name, run, EVERYBODY, _forged(edit), (ledger(client),))


MESSAGES: Final = (*_shared(), *_unprotected(), *_sets(), *_omissions())
