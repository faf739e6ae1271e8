# SPDX-License-Identifier: Apache-2.0
"""Mutations without any key: bytes of any file, and whole files.

Nothing is hashed anew here.  The places are spread over each file, and, for the
transcript and the ledgers, are the first byte of every field of every kind of entry.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from secure_fl import wire

from .mutations_folder import (
    NOBODY,
    PLAN,
    REPORT,
    TRANSCRIPT,
    Folder,
    Mutation,
    ledger,
)

__all__ = ["BYTES"]

LEDGERS: Final = (ledger("bank-a"), ledger("bank-d"))
FILES: Final = (
    PLAN,
    "model.safetensors",
    "metrics.json",
    TRANSCRIPT,
    REPORT,
    "report.html",
    "report.txt",
    *LEDGERS,
)
PLACES: Final = {"first byte": 0.0, "a byte in the middle": 0.5, "last byte": 1.0}
KINDS: Final = (
    "start",
    "endorsement",
    "message",
    "failure",
    "round",
    "artefacts",
    "signature",
)
FIELDS: Final = ("sequence", "hash before", "kind", "body")
LEDGER_FIELDS: Final = ("sequence", "hash before", "kind", "time", "body")


def _file(name: str, change: Callable[[bytes], bytes]) -> Callable[[Folder], None]:
    def edit(folder: Folder) -> None:
        folder.files[name] = change(folder.files[name])

    return edit


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _flipped(share: float) -> Callable[[bytes], bytes]:
    return lambda data: _flip(data, round(share * (len(data) - 1)))


def _removed(name: str) -> Callable[[Folder], None]:
    def edit(folder: Folder) -> None:
        del folder.files[name]

    return edit


def _whole_files() -> Iterator[Mutation]:
    changes: dict[str, Callable[[bytes], bytes]] = {
        "emptied": lambda data: b"",
        "cut in half": lambda data: data[: len(data) // 2],
        "without its last byte": lambda data: data[:-1],
        "with a byte more": lambda data: data + b"\n",
        "of zeros": lambda data: bytes(len(data)),
    }
    changes |= {f"{what} flipped": _flipped(share) for what, share in PLACES.items()}
    for name in FILES:
        for what, change in changes.items():
            yield Mutation(
                f"{name}: {what}", "masking", NOBODY, _file(name, change), (name,)
            )
        yield Mutation(f"{name}: removed", "masking", NOBODY, _removed(name), (name,))


def _swapped(one: str, two: str) -> Callable[[Folder], None]:
    def edit(folder: Folder) -> None:
        files = folder.files
        files[one], files[two] = files[two], files[one]

    return edit


def _of_other_run(name: str) -> Callable[[Folder], None]:
    def edit(folder: Folder) -> None:
        assert folder.other.files[name] != folder.files[name]
        folder.files[name] = folder.other.files[name]

    return edit


def _same_meaning(data: bytes) -> bytes:
    return json.dumps(json.loads(data), separators=(",", ":")).encode()


def _exchanged() -> Iterator[Mutation]:
    """Whole files of others, and changes that change no meaning."""
    one, two = LEDGERS
    pairs = {
        (one, two): (one, two),
        ("report.html", "report.txt"): ("report.html", "report.txt"),
        ("metrics.json", REPORT): ("metrics.json", REPORT),
    }
    for (a, b), files in pairs.items():
        yield Mutation(
            f"{a} and {b} exchanged", "masking", NOBODY, _swapped(a, b), files
        )
    for name in (PLAN, TRANSCRIPT, REPORT, "report.html", "report.txt", *LEDGERS):
        # Of this plan and that log, either may be called the wrong one.
        either = (name, PLAN) if name == TRANSCRIPT else (name,)
        yield Mutation(
            f"{name}: of another run", "masking", NOBODY, _of_other_run(name), either
        )
    for name in (REPORT, "metrics.json"):
        yield Mutation(
            f"{name}: written without spaces",
            "masking",
            NOBODY,
            _file(name, _same_meaning),
            (name,),
        )
    for name in ("report.html", "report.txt"):
        edit = _file(name, lambda data: data.replace(b"epsilon", b"Epsilon"))
        yield Mutation(f"{name}: another spelling", "masking", NOBODY, edit, (name,))
    edit = _file(PLAN, lambda data: b"# a remark\n" + data)
    yield Mutation("plan.toml: a remark", "masking", NOBODY, edit, (PLAN,))
    edit = _file(PLAN, lambda data: data.replace(b"\n", b"\r\n"))
    yield Mutation("plan.toml: other line ends", "masking", NOBODY, edit, (PLAN,))


# -- field by field --------------------------------------------------------------------


def _items(data: bytes, count: int, at: int, *, keyed: bool) -> list[int]:
    """Where each of ``count`` items begins; ``at`` is the first one's place."""
    out = []
    for _ in range(count):
        at += keyed
        out.append(at)
        at = _end(data, at)
    return out


def _end(data: bytes, at: int) -> int:
    """Where the CBOR item that begins at ``at`` ends."""
    major, argument = data[at] >> 5, data[at] & 31
    at += 1
    if argument > 23:
        size = 1 << (argument - 24)
        argument = int.from_bytes(data[at : at + size], "big")
        at += size
    if major in (2, 3):
        return at + argument
    if major in (4, 5):
        for _ in range(argument):
            at = _end(data, at + (major == 5))
    return at


def _kind(entry: bytes) -> Any:
    value: Any = wire.decode(entry)
    return value[2]


def _at_entry(name: str, kind: str, field: int) -> Callable[[Folder], None]:
    """Flip the head of a field of the first entry of a kind."""

    def edit(folder: Folder) -> None:
        data = folder.files[name]
        value: Any = wire.decode(data)
        entries: list[bytes] = value[2] if isinstance(value, list) else value[3]
        entry = next(e for e in entries if _kind(e) == kind)
        count = entry[0] & 31
        start = data.index(entry)
        at = _items(data, count, start + 1, keyed=True)[field]
        folder.files[name] = _flip(data, at)

    return edit


def _at_top(name: str, item: int, *, keyed: bool) -> Callable[[Folder], None]:
    """Flip the head of a field of the file itself."""

    def edit(folder: Folder) -> None:
        data = folder.files[name]
        at = _items(data, data[0] & 31, 1, keyed=keyed)[item]
        folder.files[name] = _flip(data, at)

    return edit


def _fields() -> Iterator[Mutation]:
    for i, what in enumerate(("specification", "run id", "entries")):
        edit = _at_top(TRANSCRIPT, i, keyed=False)
        name = f"{TRANSCRIPT}: head of its {what} flipped"
        yield Mutation(name, "masking", NOBODY, edit, (TRANSCRIPT,))
    for kind in KINDS:
        for i, what in enumerate(FIELDS):
            name = f"{TRANSCRIPT}: head of the {what} of a {kind} flipped"
            edit = _at_entry(TRANSCRIPT, kind, i)
            yield Mutation(name, "masking", NOBODY, edit, (TRANSCRIPT,))
    book = LEDGERS[0]
    tops = ("specification", "client", "lineage", "entries", "head", "signature")
    for i, what in enumerate(tops):
        edit = _at_top(book, i, keyed=True)
        name = f"{book}: head of its {what} flipped"
        yield Mutation(name, "masking", NOBODY, edit, (book,))
    for kind in ("reserved", "sent", "released"):
        for i, what in enumerate(LEDGER_FIELDS):
            name = f"{book}: head of the {what} of a {kind} flipped"
            edit = _at_entry(book, kind, i)
            yield Mutation(name, "masking", NOBODY, edit, (book,))


BYTES: Final = (*_whole_files(), *_exchanged(), *_fields())
