# SPDX-License-Identifier: Apache-2.0
"""Mutations of the file that a ledger is handed over in, and of whose ledger it is."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

from secure_fl import wire

from .mutations_books import (
    ATTEMPT,
    ROUND,
    Line,
    Lines,
    export,
    taken_apart,
)
from .mutations_folder import (
    EVERYBODY,
    Folder,
    Mutation,
    ledger,
)
from .mutations_ledger import edited, released_unopened, without_release

__all__ = ["EXPORTS"]


def _file(change: Callable[[dict[int, Any]], None]) -> Callable[[Folder], None]:
    """The file's own fields, and nothing of its signature."""

    def apply(folder: Folder) -> None:
        name = ledger("bank-a")
        value: Any = wire.decode(folder.files[name])
        change(value)
        folder.put(name, wire.encode(value))

    return apply


def _of(value: Any, key: int) -> Callable[[dict[int, Any]], None]:
    def change(fields: dict[int, Any]) -> None:
        assert fields.get(key) != value
        fields[key] = value

    return change


def _entry(index: int, key: int, value: Any) -> Callable[[dict[int, Any]], None]:
    """A field of one entry, and none of the hashes after it."""

    def change(fields: dict[int, Any]) -> None:
        entry: Any = wire.decode(fields[3][index])
        assert entry[key] != value
        entry[key] = value
        fields[3] = [*fields[3][:index], wire.encode(entry), *fields[3][index + 1 :]]

    return change


def _without(key: int) -> Callable[[dict[int, Any]], None]:
    def change(fields: dict[int, Any]) -> None:
        del fields[key]

    return change


def _flipped(fields: dict[int, Any]) -> None:
    fields[5] = fields[5][:-1] + bytes([fields[5][-1] ^ 1])


def _reordered(fields: dict[int, Any]) -> None:
    fields[3] = [fields[3][1], fields[3][0], *fields[3][2:]]


def _doubled(fields: dict[int, Any]) -> None:
    fields[3] = [*fields[3], fields[3][-1]]


def _shortened(fields: dict[int, Any]) -> None:
    fields[3] = fields[3][:-1]


def _by_another(folder: Folder) -> None:
    """bank-b's key signs bank-a's ledger."""
    name = ledger("bank-a")
    lines = taken_apart(folder.files[name])
    entries, head = lines.chained()
    data = export(folder, "bank-b", "bank-a", lines.lineage, entries, head)
    folder.put(name, data)


def _of_another(folder: Folder) -> None:
    folder.put(ledger("bank-a"), folder.files[ledger("bank-b")])


def _of_another_run(folder: Folder) -> None:
    folder.put(ledger("bank-a"), folder.other.files[ledger("bank-a")])
    folder.rebuild()


def _bank_d_sent_more(lines: Lines) -> None:
    """bank-d was absent from round 1, and says that it is in its sum."""
    first = lines.lines[lines.at("reserved")]
    body = {**first.body, ROUND: 1, ATTEMPT: 1}
    lines.lines.append(Line("reserved", lines.lines[-1].time, body, b"\x02" * 32))
    ctx = lines.lines[lines.at("sent")].body[1]
    key = b"\x02" * 32
    for kind, where in (("sent", ctx), ("released", b"")):
        lines.lines.append(Line(kind, lines.lines[-1].time, {0: key, 1: where}, b""))


def _around() -> Iterator[Mutation]:
    name = ledger("bank-a")
    changes: dict[str, Callable[[dict[int, Any]], None]] = {
        "another specification": _of("secure-fl/ledger/2", 0),
        "another client": _of("bank-b", 1),
        "another lineage, head as it was": _of("another data set", 2),
        "no entries, head as it was": _of([], 3),
        "another head": _of(bytes(32), 4),
        "signature flipped": _flipped,
        "signature of zeros": _of(bytes(64), 5),
        "signature too short": _of(bytes(63), 5),
        "without its signature": _without(5),
        "without its head": _without(4),
        "a field more": _of("approved", 6),
        "two entries exchanged": _reordered,
        "last entry twice": _doubled,
        "last entry dropped, head as it was": _shortened,
        "an entry that is a number": _of([1], 3),
        "sequence of an entry changed": _entry(1, 0, 5),
        "hash before an entry changed": _entry(1, 1, bytes(32)),
        "kind of an entry changed": _entry(2, 2, "sent"),
        "time of an entry changed": _entry(1, 3, 7),
        "body of an entry changed": _entry(1, 4, {0: bytes(32), 1: bytes(32)}),
    }
    for what, change in changes.items():
        yield Mutation(
            f"{name}: {what}, all else signed",
            "masking",
            EVERYBODY,
            _file(change),
            (name,),
        )
    others: dict[str, Callable[[Folder], None]] = {
        "signed by bank-b": _by_another,
        "bank-b's in its place": _of_another,
        "that of another run": _of_another_run,
    }
    for what, edit in others.items():
        yield Mutation(f"{name}: {what}", "masking", EVERYBODY, edit, (name,))
    edit = edited(_bank_d_sent_more, "bank-d", seal=True)
    title = f"{ledger('bank-d')}: said to be in a sum without it, signed by all"
    yield Mutation(title, "masking", EVERYBODY, edit, (ledger("bank-d"),))
    edit = edited(without_release(1), "bank-c", seal=True)
    title = f"{ledger('bank-c')}: a failed upload left out, signed by all"
    yield Mutation(title, "masking", EVERYBODY, edit, (ledger("bank-c"),))
    edit = edited(released_unopened, "bank-c", seal=True)
    title = f"{ledger('bank-c')}: a failed upload said to be opened, signed by all"
    yield Mutation(title, "masking", EVERYBODY, edit, (ledger("bank-c"),))


EXPORTS: Final = tuple(_around())
