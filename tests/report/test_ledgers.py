# SPDX-License-Identifier: Apache-2.0
"""A client rewrites its own ledger and signs it: the transcript still knows better."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secure_fl.errors import VerificationError
from secure_fl.privacy import Event, Gaussian, NonPrivate, PoissonGaussian, read_export
from secure_fl.privacy.book import Book, Entry, export_bytes
from secure_fl.report import verify_run
from secure_fl.transcript import Transcript

from .support import Made, finish, rewritten, rows_of, with_file


def entries_of(made: Made, client: str) -> tuple[Entry, ...]:
    return read_export(
        made.files[f"ledgers/{client}.cbor"],
        public_key=made.identities[client].public_key,
        client=client,
    ).entries


def book_of(
    made: Made,
    client: str,
    *,
    keep: Callable[[Entry], bool] = lambda entry: True,
    event: Event | None = None,
    delta: float | None = None,
    limit: float | None = None,
    ctx: bytes | None = None,
    round_index: int | None = None,
    lineage: str | None = None,
    unit: str = "record",
    adjacency: str = "add-or-remove-one",
    back: int | None = None,
) -> Book:
    """The client's book written anew, with some entries left out or changed.

    ``back``: the entry at which the clock was set back by an hour.
    """
    book = Book(client, lineage or made.plan.lineage)
    new: dict[bytes, bytes] = {}
    for entry in entries_of(made, client):
        if not keep(entry):
            continue
        r = entry.reservation
        made_ = None
        now = entry.time
        if back is not None and len(book.entries) >= back:
            now -= 3600
        if r is not None:
            made_ = book.next_reserved(
                run_id=r.run_id,
                round_index=r.round_index if round_index is None else round_index,
                attempt=r.attempt,
                event=event or r.event,
                unit=unit,
                adjacency=adjacency,
                delta=delta or r.delta,
                limit=limit or r.limit,
                now=now,
            )
            new[entry.hash] = made_.hash
        else:
            assert entry.kind != "reserved"
            made_ = book.next_step(
                new[entry.of],
                entry.kind,
                ctx=ctx if ctx and entry.ctx else entry.ctx,
                now=now,
            )
        if made_ is not None:
            book.append(made_)
    return book


def refused(made: Made, tmp_path: Path, client: str, book: Book) -> VerificationError:
    """Verify with ``book`` in place of the client's, signed by everybody."""
    data = export_bytes(book, identity=made.identities[client])
    files = with_file(made, f"ledgers/{client}.cbor", data, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    with pytest.raises(VerificationError) as caught:
        verify_run(folder)
    return caught.value


def last_three(made: Made, client: str) -> Iterator[bytes]:
    """The hashes of a client's last reservation and its two steps."""
    yield from (e.hash for e in entries_of(made, client)[-3:])


def test_the_same_book_is_the_same_bytes(made: Made) -> None:
    book = book_of(made, "bank-a")
    data = export_bytes(book, identity=made.identities["bank-a"])
    assert data == made.files["ledgers/bank-a.cbor"]


def test_a_release_left_out(made: Made, tmp_path: Path) -> None:
    gone = set(last_three(made, "bank-a"))
    book = book_of(made, "bank-a", keep=lambda e: e.hash not in gone)
    error = refused(made, tmp_path, "bank-a", book)
    assert error.file == "ledgers/bank-a.cbor"
    assert "round 1" in str(error)


def test_every_release_left_out(made: Made, tmp_path: Path) -> None:
    book = book_of(made, "bank-b", keep=lambda e: False)
    assert refused(made, tmp_path, "bank-b", book).file == "ledgers/bank-b.cbor"


def test_a_sent_update_called_unsent(made: Made, tmp_path: Path) -> None:
    last = entries_of(made, "bank-a")[-1]
    book = book_of(made, "bank-a", keep=lambda e: e.of != last.of)
    key = next(r.entry_hash for r in book.releases() if r.state == "reserved")
    step = book.next_step(key, "aborted", ctx=b"", now=0)
    assert step is not None
    book.append(step)
    assert refused(made, tmp_path, "bank-a", book).file == "ledgers/bank-a.cbor"


def test_an_opened_update_that_was_not(made: Made, tmp_path: Path) -> None:
    """bank-c's upload failed in round 1, attempt 0: it cannot be in a sum."""
    book = book_of(made, "bank-c")
    key = next(r.entry_hash for r in book.releases() if r.state == "sent")
    step = book.next_step(key, "released", ctx=b"", now=0)
    assert step is not None
    book.append(step)
    error = refused(made, tmp_path, "bank-c", book)
    assert error.file == "ledgers/bank-c.cbor"
    assert "opened" in str(error)


@pytest.mark.parametrize(
    ("changed", "word"),
    [
        ({"event": PoissonGaussian(1.0, 60.0)}, "mechanism"),
        ({"event": NonPrivate("none")}, "limit"),
        ({"delta": 1e-3}, "limit"),
        ({"limit": 80.0}, "limit"),
        ({"round_index": 7}, "round"),
        ({"lineage": "another data set"}, "another data set"),
        ({"unit": "client"}, "another unit"),
        ({"adjacency": "replace-one"}, "adjacency"),
    ],
)
def test_other_terms(
    made: Made, tmp_path: Path, changed: dict[str, object], word: str
) -> None:
    keep = {e.hash for e in entries_of(made, "bank-d")}
    book = book_of(made, "bank-d", keep=lambda e: e.hash in keep, **changed)  # type: ignore[arg-type]
    error = refused(made, tmp_path, "bank-d", book)
    assert error.file == "ledgers/bank-d.cbor"
    assert word in str(error)


def test_an_earlier_run_in_another_unit(made: Made, tmp_path: Path) -> None:
    """Its charge cannot be added to this plan's, whoever it was made by."""
    book = Book("bank-b", made.plan.lineage)
    book.append(
        book.next_reserved(
            run_id=bytes(16),
            round_index=0,
            attempt=0,
            event=made.plan.release,
            unit="client",
            adjacency="add-or-remove-one",
            delta=1e-5,
            limit=8.0,
            now=0,
        )
    )
    error = refused(made, tmp_path, "bank-b", book)
    assert error.file == "ledgers/bank-b.cbor"
    assert "another unit" in str(error)


def test_a_context_nobody_knows(made: Made, tmp_path: Path) -> None:
    book = book_of(made, "bank-d", ctx=bytes(31) + b"\x01")
    assert refused(made, tmp_path, "bank-d", book).file == "ledgers/bank-d.cbor"


def reserved_once_more(made: Made, book: Book) -> bytes:
    """One more release of this run, of round 1, attempt 1; the hash of its entry."""
    assert made.plan.run_id is not None
    entry = book.next_reserved(
        run_id=made.plan.run_id,
        round_index=1,
        attempt=1,
        event=made.plan.release,
        unit="record",
        adjacency="add-or-remove-one",
        delta=made.plan.privacy.delta,
        limit=made.plan.privacy.epsilon,
        now=book.entries[-1].time,
    )
    book.append(entry)
    return entry.hash


def earlier(book: Book, event: Event, round_index: int) -> bytes:
    """A release of another run, charged to the same data."""
    entry = book.next_reserved(
        run_id=bytes(16),
        round_index=round_index,
        attempt=0,
        event=event,
        unit="record",
        adjacency="add-or-remove-one",
        delta=1e-5,
        limit=math.inf,
        now=0,
    )
    book.append(entry)
    return entry.hash


def test_a_release_more(made: Made, tmp_path: Path) -> None:
    """Charged and never logged: possible, but the report does not say so."""
    book = book_of(made, "bank-d")
    reserved_once_more(made, book)
    error = refused(made, tmp_path, "bank-d", book)
    assert error.file == "report.json"
    assert "bank-d" in str(error)


def test_a_budget_overspent_elsewhere(made: Made, tmp_path: Path) -> None:
    """Another run of the same data set has spent more than this plan allows."""
    book = book_of(made, "bank-d")
    earlier(book, Gaussian(0.5), 0)
    error = refused(made, tmp_path, "bank-d", book)
    assert error.file == "ledgers/bank-d.cbor"
    assert "above the plan's limit" in str(error)


def test_the_ledger_of_another(made: Made, tmp_path: Path) -> None:
    data = made.files["ledgers/bank-b.cbor"]
    files = with_file(made, "ledgers/bank-a.cbor", data, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    with pytest.raises(VerificationError) as caught:
        verify_run(folder)
    assert caught.value.file == "ledgers/bank-a.cbor"


def test_a_book_signed_by_another(made: Made, tmp_path: Path) -> None:
    data = export_bytes(book_of(made, "bank-a"), identity=made.identities["bank-b"])
    files = with_file(made, "ledgers/bank-a.cbor", data, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    with pytest.raises(VerificationError) as caught:
        verify_run(folder)
    assert caught.value.file == "ledgers/bank-a.cbor"


def reserved_again(made: Made, book: Book, ctx: bytes) -> None:
    """One more release of round 1, attempt 1, sent in ``ctx``."""
    step = book.next_step(reserved_once_more(made, book), "sent", ctx=ctx, now=0)
    assert step is not None
    book.append(step)


def test_a_further_update_in_a_context_nobody_knows(made: Made, tmp_path: Path) -> None:
    """Every vector that arrived has its entry, and one entry belongs nowhere."""
    book = book_of(made, "bank-d")
    reserved_again(made, book, bytes(31) + b"\x01")
    error = refused(made, tmp_path, "bank-d", book)
    assert error.file == "ledgers/bank-d.cbor"
    assert "sent in a context that the log does not know" in str(error)


def test_two_updates_in_one_context(made: Made, tmp_path: Path) -> None:
    """An attempt of a client is one release: the second would hide behind the first."""
    book = book_of(made, "bank-d")
    (first,) = book.releases()
    reserved_again(made, book, first.contexts[0])
    error = refused(made, tmp_path, "bank-d", book)
    assert error.file == "ledgers/bank-d.cbor"
    assert "two of its updates are said to have been sent in one context" in str(error)


def test_what_an_honest_ledger_may_look_like(made: Made, tmp_path: Path) -> None:
    """A clock that was set back, and an end before the last opening was noted."""
    last = entries_of(made, "bank-a")[-1]
    assert last.kind == "released"
    # The hash of each reservation is in the log: only what comes after them is free.
    book = book_of(
        made, "bank-a", keep=lambda e: e.hash != last.hash, back=last.sequence - 1
    )
    ledgers = {n: made.files[f"ledgers/{n}.cbor"] for n in made.plan.names}
    ledgers["bank-a"] = export_bytes(book, identity=made.identities["bank-a"])
    before = Transcript(made.transcript.run_id)
    end = made.transcript.of_kind("artefacts")[0].sequence
    before.entries = made.transcript.entries[:end]
    model = made.files["model.safetensors"]
    files = {**made.files, **finish(made.plan, before, model, ledgers)}

    def edit(rows: list[tuple[str, dict[int, Any], int]]) -> None:
        for kind, body, _ in rows:
            if kind == "artefacts":
                body[0] = rows_of(files)

    files["transcript.cbor"] = rewritten(made, edit, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    told = [x for x in verify_run(folder).not_checked if "bank-a" in x]
    assert [x for x in told if "its clock went back" in x]
    assert [x for x in told if "did not write down that its update of round 1" in x]
    assert len(told) == 2


def test_an_update_called_omitted_that_no_statement_omits(
    made: Made, tmp_path: Path
) -> None:
    """The retry rule broken: a second sending needs a signed statement without it."""
    gone = entries_of(made, "bank-a")[-1].hash
    book = book_of(made, "bank-a", keep=lambda e: e.hash != gone)
    release = [r for r in book.releases() if r.state == "sent"][-1]
    step = book.next_step(
        release.entry_hash, "omitted", ctx=release.contexts[-1], now=0
    )
    assert step is not None
    book.append(step)
    error = refused(made, tmp_path, "bank-a", book)
    assert error.file == "ledgers/bank-a.cbor"
    assert "no signed statement" in str(error)
