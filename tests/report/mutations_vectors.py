# SPDX-License-Identifier: Apache-2.0
"""Mutations of runs that keep their vectors: then no sum can be another one.

Those of single kept messages are the ones of ``test_replay.py``.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, Final

import numpy as np

from secure_fl import wire
from secure_fl.context import kind_of
from secure_fl.masking import messages
from secure_fl.masking.vectors import chunk_tree
from secure_fl.model import GlobalModel
from secure_fl.report.vectors import START, Kept, vectors_file

from .kept import FIRST
from .mutations_folder import (
    COALITION,
    EVERYBODY,
    MODEL,
    NOBODY,
    TRANSCRIPT,
    Folder,
    Mutation,
    Row,
    messages_of,
    of_kind,
)
from .mutations_messages import restate, session_of
from .test_replay import KEPT

__all__ = ["VECTORS"]

SECOND: Final = vectors_file(1, 0)
Rows = list[tuple[str, bytes]]


def _bytes(name: str, change: Callable[[bytes], bytes]) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        folder.files[name] = change(folder.files[name])

    return apply


def _sealed(name: str, change: Callable[[bytes], bytes]) -> Callable[[Folder], None]:
    return lambda folder: folder.put(name, change(folder.files[name]))


def _flip(share: float) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        at = round(share * (len(data) - 1))
        return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]

    return change


def _exchanged(folder: Folder) -> None:
    files = folder.files
    files[FIRST], files[SECOND] = files[SECOND], files[FIRST]
    folder.seal()


def _removed(name: str) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        del folder.files[name]
        if folder.holds:
            folder.seal()

    return apply


def _files() -> Iterator[Mutation]:
    changes: dict[str, Callable[[bytes], bytes]] = {
        "emptied": lambda data: b"",
        "cut in half": lambda data: data[: len(data) // 2],
        "with a byte more": lambda data: data + b"\n",
        "first byte flipped": _flip(0.0),
        "a byte in the middle flipped": _flip(0.5),
        "last byte flipped": _flip(1.0),
    }
    for name in (START, FIRST, SECOND):
        for what, change in changes.items():
            title = f"{name}: {what}"
            edit = _bytes(name, change)
            yield Mutation(f"{title}, signed by nobody", "kept", NOBODY, edit, (name,))
            edit = _sealed(name, change)
            yield Mutation(
                f"{title}, signed by the coalition",
                "kept",
                COALITION,
                edit,
                (TRANSCRIPT,),
            )
            yield Mutation(f"{title}, signed by all", "kept", EVERYBODY, edit, (name,))
        gone = _removed(name)
        title = f"{name}: removed"
        yield Mutation(f"{title}, signed by nobody", "kept", NOBODY, gone, (name,))
        either = (name, TRANSCRIPT)
        yield Mutation(f"{title}, signed by all", "kept", EVERYBODY, gone, either)
    title = "vectors: two rounds exchanged, signed by all"
    yield Mutation(title, "kept", EVERYBODY, _exchanged, (FIRST,))


# -- what is kept ----------------------------------------------------------------------


def _kept(edit: Callable[[Folder, Kept], Kept]) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        roster = folder.plan.roster
        kept = Kept.from_bytes(folder.files[FIRST], roster)
        folder.put(FIRST, edit(folder, kept).to_bytes(roster))

    return apply


def _rows(edit: Callable[[Any, Rows], None]) -> Callable[[Folder], None]:
    def change(folder: Folder, kept: Kept) -> Kept:
        rows = list(kept.rows)
        edit(folder.made, rows)
        return replace(kept, rows=rows)

    return _kept(change)


def _fields(**changed: Any) -> Callable[[Folder], None]:
    return _kept(lambda folder, kept: replace(kept, **changed))


def _form(edit: Callable[[list[Any]], Any]) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        value: Any = wire.decode(folder.files[FIRST])
        folder.put(FIRST, wire.encode(edit(value)))

    return apply


def _messages() -> Iterator[Mutation]:
    for run in ("kept", "kept with a key holder"):
        for what, (edit, _) in KEPT.items():
            name = f"{FIRST} ({run}): {what}, signed by all"
            yield Mutation(name, run, EVERYBODY, _rows(edit), (FIRST,))
    changes: dict[str, Callable[[Folder], None]] = {
        "of another run": _fields(run_id=bytes(16)),
        "of another round": _fields(round_index=1),
        "of another attempt": _fields(attempt=1),
        "another specification": _form(lambda v: ["secure-fl/vectors/2", *v[1:]]),
        "without its rows": _form(lambda v: v[:-1]),
        "with no rows": _form(lambda v: [*v[:-1], []]),
        "a part more": _form(lambda v: [*v, 1]),
        "rows out of order": _form(lambda v: [*v[:-1], v[-1][::-1]]),
        "a row of a stranger": _form(
            lambda v: [*v[:-1], [["bank-x", v[-1][0][1]], *v[-1][1:]]]
        ),
        "a row with a part more": _form(
            lambda v: [*v[:-1], [[*v[-1][0], 1], *v[-1][1:]]]
        ),
        "an empty message": _form(lambda v: [*v[:-1], [["clinic-a", b""], *v[-1]]]),
        "no list": _form(lambda v: {0: v[0]}),
    }
    for what, change in changes.items():
        name = f"{FIRST}: {what}, signed by all"
        yield Mutation(name, "kept", EVERYBODY, change, (FIRST,))
    # The key that opens what was sealed for the aggregator.
    for what, seed in (("no seed", b""), ("another seed", bytes(31) + b"\x01")):
        run = "kept with a key holder"
        name = f"{FIRST} ({run}): {what}, signed by all"
        yield Mutation(name, run, EVERYBODY, _fields(seed=seed), (FIRST,))
    name = f"{FIRST}: a seed where there is none, signed by all"
    yield Mutation(name, "kept", EVERYBODY, _fields(seed=bytes(32)), (FIRST,))


# -- sums ------------------------------------------------------------------------------


def _chunk_that_all_agree_to(folder: Folder) -> None:
    """clinic-a's vector is another, under a root that it and everybody signs."""
    roster = folder.plan.roster
    kept = Kept.from_bytes(folder.files[FIRST], roster)
    first = kept.rows[0]
    assert first[0] == "clinic-a"
    changed = [("clinic-a", first[1][:-1] + bytes([first[1][-1] ^ 1])), *kept.rows[1:]]

    def edit(rows: list[Row]) -> None:
        model = GlobalModel.from_bytes(folder.files[MODEL])
        session = session_of(folder.plan, rows, model.size)
        tree = chunk_tree()
        for sender, message in changed:
            if sender == "clinic-a" and kind_of(message) == 5:
                words = messages.Chunk.decode(message, session).words
                tree.add(tree.leaf(words))
        keys = messages.CohortKeys.decode(rows[messages_of(rows, 2)[0]][1][4], session)
        body = rows[messages_of(rows, 6)[0]][1]
        new = replace(messages.MaskedInput.decode(body[4], session), root=tree.root())
        parts = new.signed(session, messages.cohort_hash(session, keys))
        signature = folder.made.identities["clinic-a"].sign(
            messages.INPUT_LABEL, *parts
        )
        body[4] = replace(new, signature=signature).encode(session)
        statement = messages.Statement.decode(
            rows[messages_of(rows, 7)[0]][1][4], session
        )
        survivors = (
            replace(statement.survivors[0], root=tree.root()),
            *statement.survivors[1:],
        )
        restate(folder, rows, session, survivors)

    folder.log(edit)
    folder.files[FIRST] = replace(kept, rows=changed).to_bytes(roster)
    folder.rebuild()


def _round(field: int, value: Any, *, at: int) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        def edit(rows: list[Row]) -> None:
            body = rows[of_kind(rows, "round")[at]][1]
            assert body[field] != value
            body[field] = value

        folder.log(edit)
        folder.rebuild()

    return apply


def _other_model(folder: Folder) -> None:
    """The last round left another model than its sum gives, say all."""
    true = GlobalModel.from_bytes(folder.files[MODEL])
    other = true.add(np.full(true.size, 0.5))
    folder.files[MODEL] = other.to_bytes()
    _round(8, other.digest(), at=-1)(folder)


def _other_start(data: bytes) -> bytes:
    true = GlobalModel.from_bytes(data)
    return true.add(np.full(true.size, 0.5)).to_bytes()


def _sums() -> Iterator[Mutation]:
    changes: dict[str, Callable[[Folder], None]] = {
        "a vector that all agree to": _chunk_that_all_agree_to,
        "another hash of the first sum": _round(5, bytes(32), at=0),
        "another hash of the last sum": _round(5, bytes(32), at=-1),
        "more clipped coordinates": _round(6, 3, at=-1),
        "another last model": _other_model,
    }
    for what, change in changes.items():
        name = f"sum: {what}, signed by all"
        yield Mutation(name, "kept", EVERYBODY, change, (TRANSCRIPT,))
    name = f"{START}: another model, signed by all"
    edit = _sealed(START, _other_start)
    yield Mutation(name, "kept", EVERYBODY, edit, (START,))


VECTORS: Final = (*_files(), *_messages(), *_sums())
