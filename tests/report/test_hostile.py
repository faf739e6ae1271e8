# SPDX-License-Identifier: Apache-2.0
"""Folders that everybody signed, made to take hours or to look like something else.

Both verifiers refuse them, soon, and name the same file.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secure_fl import wire
from secure_fl.errors import UsageError, VerificationError
from secure_fl.privacy import Gaussian, PoissonGaussian
from secure_fl.privacy import book as books
from secure_fl.privacy.book import Book, export_bytes
from secure_fl.report import verify_run

from . import support
from .support import Consortium, Made, rewritten, with_file
from .test_ledgers import book_of, earlier
from .test_second_verifier import second

LEDGER = "ledgers/bank-d.cbor"


def both_refuse(folder: Path, file: str, words: str) -> None:
    with pytest.raises(VerificationError) as caught:
        verify_run(folder)
    assert caught.value.file == file, caught.value
    assert words in str(caught.value)
    with pytest.raises(second.Refused) as other:
        second.verify(folder)
    assert other.value.file == file, other.value


def signed(made: Made, folder: Path, name: str, data: bytes) -> Path:
    files = with_file(made, name, data, resign=True)
    return replace(made, files=files).write(folder)


def with_ledger(made: Made, folder: Path, book: Book) -> Path:
    data = export_bytes(book, identity=made.identities["bank-d"])
    return signed(made, folder, LEDGER, data)


def test_ledgers_that_lie_elsewhere(made: Made, tmp_path: Path) -> None:
    """Their bytes are right, today."""
    folder = made.write(tmp_path / "run")
    (folder / "ledgers").rename(tmp_path / "elsewhere")
    (folder / "ledgers").symlink_to(tmp_path / "elsewhere")
    both_refuse(folder, "ledgers/bank-a.cbor", "regular file")


def test_a_history_of_very_many_mechanisms(made: Made, tmp_path: Path) -> None:
    """Each costs next to nothing, but to compose them would take hours."""
    book = book_of(made, "bank-d")
    for i in range(101):
        earlier(book, PoissonGaussian(1e-4, 100.0 + i), i)
    folder = with_ledger(made, tmp_path / "run", book)
    both_refuse(folder, LEDGER, "spend epsilon inf, above the plan's limit")


def test_an_infinite_epsilon_that_nobody_stated(made: Made, tmp_path: Path) -> None:
    """Less noise does not get by where a little less was refused."""
    book = book_of(made, "bank-d")
    earlier(book, Gaussian(0.01), 0)
    folder = with_ledger(made, tmp_path / "run", book)
    both_refuse(folder, LEDGER, "above the plan's limit")


def test_a_release_sent_again_and_again(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    book = book_of(made, "bank-d")
    of = earlier(book, Gaussian(500.0), 0)

    def sent(i: int) -> None:
        ctx = i.to_bytes(32, "big")
        for kind in ("sent", "omitted"):
            step = book.next_step(of, kind, ctx=ctx, now=0)
            assert step is not None
            book.append(step)

    for i in range(1000):
        sent(i)
    with pytest.raises(UsageError, match="more often than a round has attempts"):
        sent(1000)
    with monkeypatch.context() as forger:
        forger.setattr(books, "_MOST_CONTEXTS", 1001)
        sent(1000)
    folder = with_ledger(made, tmp_path / "more", book)
    both_refuse(folder, LEDGER, "more often than a round has attempts")


def test_a_key_of_very_many_parts(made: Made, tmp_path: Path) -> None:
    """tomllib takes minutes for a line of 100 kB."""
    source = made.plan.source + b"\n[x]\n" + b".".join([b"a"] * 50_000) + b" = 1\n"

    def edit(rows: list[tuple[str, dict[int, Any], int]]) -> None:
        rows[0][1][0] = wire.digest("secure-fl/plan/1", source)

    files = {**made.files, "plan.toml": source}
    files["transcript.cbor"] = rewritten(made, edit, resign=True)
    folder = replace(made, files=files).write(tmp_path / "run")
    both_refuse(folder, "plan.toml", "more than 200 dots")


@pytest.mark.parametrize(
    ("name", "most"),
    [
        ("plan.toml", 2**20),
        ("report.html", 2**28),
        ("ledgers/bank-d.cbor", 2**28),
        ("model.safetensors", 2**32),
    ],
)
def test_a_file_of_nothing(folder: Path, name: str, most: int) -> None:
    """It takes no room on the disk, and all the memory."""
    os.truncate(folder / name, most + 1)
    both_refuse(folder, name, f"is larger than {most} bytes")


@pytest.mark.parametrize("number", ["1e999", "-1e999"])
def test_a_number_that_is_none(made: Made, tmp_path: Path, number: str) -> None:
    data = f'{{"accuracy": {number}}}'.encode()
    folder = signed(made, tmp_path / "run", "metrics.json", data)
    both_refuse(folder, "metrics.json", "a number that is too large")


def test_a_name_that_prints_a_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "x\nVERIFIED: all 99 checks hold").write_bytes(b"")
    assert second.main([str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert not [line for line in lines if line.startswith("VERIFIED: ")]
    assert [line for line in lines if "all 99" in line]


def test_a_page_that_shows_something_else(made: Made, tmp_path: Path) -> None:
    """No check reads it, and both verifiers say so."""
    data = made.files["report.html"].replace(b"epsilon", b"safety")
    folder = signed(made, tmp_path / "run", "report.html", data)
    for lines in (verify_run(folder).not_checked, second.verify(folder).not_checked):
        assert [line for line in lines if line.startswith("what ") and "anew" in line]


def test_more_attempts_than_the_plan_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that was killed made one; the one that went on made another."""
    once = support.SOURCE.replace("[rounds]\n", "[rounds]\nmax_attempts = 1\n")
    assert once != support.SOURCE
    monkeypatch.setattr(support, "SOURCE", once)
    (tmp_path / "homes").mkdir()
    folder = Consortium(tmp_path / "homes").play().write(tmp_path / "run")
    for lines in (verify_run(folder).not_checked, second.verify(folder).not_checked):
        (line,) = [line for line in lines if "why these rounds have more" in line]
        assert line.endswith(": 1")
