# SPDX-License-Identifier: Apache-2.0
"""Mutations of the transcript's entries: every field of every kind, and its form;
chained again by nobody, by the coalition, and by everybody."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from secure_fl import wire
from secure_fl.transcript import BODIES

from .mutations_folder import (
    COALITION,
    EVERYBODY,
    NOBODY,
    PLAN,
    REPORT,
    TRANSCRIPT,
    Folder,
    Mutation,
    Row,
    of_kind,
    other_value,
)

__all__ = ["FIELDS", "Edit", "signed_by_all"]

Edit = Callable[[list[Row]], None]

# Fields that everybody together may fill in as they like: see ``mutations.py``.
FREE: Final = {
    ("start", 3),  # the tool's name
    ("failure", 2),  # the reason
    ("round", 5),  # the hash of the opened words, where vectors are not kept
    ("round", 6),  # clipped coordinates, likewise
}
# What is named instead of the transcript when everybody signs the change.
NAMED: Final = {("start", 0): (PLAN, TRANSCRIPT), ("round", 8): ("model.safetensors",)}


def _chained(edit: Edit, *, rebuild: bool) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        folder.log(edit)
        if rebuild:
            folder.rebuild()

    return apply


def _shorter(kind: str, field: int) -> Edit:
    def edit(rows: list[Row]) -> None:
        body = rows[of_kind(rows, kind)[-1]][1]
        body[field] = body[field][:-1]

    return edit


def _more(kind: str) -> Edit:
    def edit(rows: list[Row]) -> None:
        rows[of_kind(rows, kind)[0]][1][9] = "approved"

    return edit


def _less(kind: str, field: int) -> Edit:
    def edit(rows: list[Row]) -> None:
        at = of_kind(rows, kind)[0]
        _, body, _ = rows[at]
        rows[at] = (kind, {k: v for k, v in body.items() if k != field}, -1)

    return edit


def _renamed(kind: str) -> Edit:
    def edit(rows: list[Row]) -> None:
        at = of_kind(rows, kind)[0]
        _, body, old = rows[at]
        rows[at] = ("remark", body, old)

    return edit


def signed_by_all(
    name: str,
    edit: Edit,
    files: tuple[str, ...] = (TRANSCRIPT,),
    *,
    run: str = "masking",
    rebuild: bool = False,
) -> Mutation:
    """Signed by everybody: what is wrong is what the entries say."""
    change = _chained(edit, rebuild=rebuild)
    return Mutation(f"{name}, signed by all", run, EVERYBODY, change, files)


# -- every field of every kind ---------------------------------------------------------


def _changed(kind: str, field: int) -> Edit:
    def edit(rows: list[Row]) -> None:
        at = of_kind(rows, kind)[-1 if kind in ("round", "signature") else 0]
        _, body, old = rows[at]
        changed = {**body, field: other_value(body[field])}
        rows[at] = (kind, changed, -1 if kind == "signature" else old)

    return edit


def _fields() -> Iterator[Mutation]:
    for kind, fields in BODIES.items():
        for field, (what, _) in fields.items():
            edit = _changed(kind, field)
            name = f"{TRANSCRIPT}: {kind}, {what.split(':')[0]} changed"
            known = (TRANSCRIPT,)
            plan = (TRANSCRIPT, PLAN) if (kind, field) == ("start", 0) else known
            for holds, who in ((NOBODY, "nobody"), (COALITION, "the coalition")):
                change = _chained(edit, rebuild=False)
                yield Mutation(
                    f"{name}, signed by {who}", "masking", holds, change, plan
                )
            if (kind, field) not in FREE:
                files = NAMED.get((kind, field), known)
                rebuild = kind in ("start", "failure", "round") and field != 0
                yield signed_by_all(name, edit, files, rebuild=rebuild)
            elif kind != "round":
                # Not a lie that shows; but the report is of another transcript.
                yield signed_by_all(f"{name}, report as it was", edit, (REPORT,))


def _forms() -> Iterator[Mutation]:
    """Hashes, keys and the run id have one size, and every kind its fields."""
    for kind, fields in BODIES.items():
        for field, (what, form) in fields.items():
            if form is not bytes or kind == "signature":
                continue
            name = f"{TRANSCRIPT}: {kind}, {what} too short"
            rebuild = kind == "round"
            yield signed_by_all(name, _shorter(kind, field), rebuild=rebuild)
        yield signed_by_all(f"{TRANSCRIPT}: {kind} with a field more", _more(kind))
        last = max(fields)
        yield signed_by_all(
            f"{TRANSCRIPT}: {kind} without its last field", _less(kind, last)
        )
        yield signed_by_all(f"{TRANSCRIPT}: {kind} of an unknown kind", _renamed(kind))


# -- the messages beside the entries: no signature is over them, only their hashes -----


def _beside(edit: Callable[[list[Any]], None]) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        value: Any = wire.decode(folder.files[TRANSCRIPT])
        edit(value[3])
        folder.files[TRANSCRIPT] = wire.encode(value)

    return apply


def _swapped(messages: list[Any]) -> None:
    messages[0], messages[1] = messages[1], messages[0]


def _emptied(messages: list[Any]) -> None:
    messages[0] = b""


def _hashed(messages: list[Any]) -> None:
    messages[-1] = hashlib.sha256(messages[-1]).digest()


def _as_text(messages: list[Any]) -> None:
    messages[0] = messages[0].hex()


def _messages() -> Iterator[Mutation]:
    edits: dict[str, Callable[[list[Any]], None]] = {
        "the first left out": lambda messages: messages.pop(0),
        "the last left out": lambda messages: messages.pop(),
        "all left out": lambda messages: messages.clear(),
        "the first twice": lambda messages: messages.insert(0, messages[0]),
        "the last twice": lambda messages: messages.append(messages[-1]),
        "one more, empty": lambda messages: messages.append(b""),
        "two exchanged": _swapped,
        "one emptied": _emptied,
        "a hash in its message's place": _hashed,
        "one as text": _as_text,
    }
    for what, edit in edits.items():
        name = f"{TRANSCRIPT}: messages beside, {what}"
        yield Mutation(name, "masking", NOBODY, _beside(edit), (TRANSCRIPT,))


FIELDS: Final = (*_fields(), *_forms(), *_messages())
