# SPDX-License-Identifier: Apache-2.0
"""Mutations of the transcript's entries: every field of every kind, and its form;
chained again by nobody, by the coalition, and by everybody."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final

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
            if form is not bytes or kind in ("message", "signature"):
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


FIELDS: Final = (*_fields(), *_forms())
