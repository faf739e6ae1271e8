# SPDX-License-Identifier: Apache-2.0
"""``secure-fl ledger``: what data sets have spent, over all runs, plans and years."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any, Final

import click
from rich.console import Console
from rich.table import Table

from ..errors import UsageError, VerificationError
from ..identity import Identity, key_from_text
from ..privacy import Ledger, LedgerExport, accountant_of, read_export
from ..privacy.book import Book
from ..privacy.spending import Spending, Spent, spending
from .keys import passphrase_option, secret_bytes
from .output import create, json_number, safe

__all__ = ["group"]

_home_option = click.option(
    "--home",
    type=click.Path(path_type=Path),
    envvar="SECURE_FL_HOME",
    required=True,
    help="Where ledgers live on: a run's home, one client's, or a ledger file.",
)
_delta_option = click.option(
    "--delta",
    type=float,
    help="Epsilon at this delta, not at that of the last reservation.",
)
_json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


@click.group("ledger")
def group() -> None:
    """Show and sign what data sets have spent."""


@group.command("show")
@_home_option
@click.option("--client", help="Only this client.")
@click.option("--lineage", help="Only this data set.")
@_delta_option
@_json_option
def show(
    home: Path,
    client: str | None,
    lineage: str | None,
    delta: float | None,
    as_json: bool,
) -> None:
    """Show what every client's data sets have spent.

    Budgets hold over all runs. The epsilons of years and runs are of their releases
    alone and do not add up: together, releases cost less than their sum. Opened sums
    count against as many colluding clients as each run's plan assumed; a run that
    assumes more, and every run in local mode, counts them for more.
    """
    books = []
    for path in _ledgers(home, client):
        with contextlib.closing(Ledger.existing(path)) as ledger:
            if client in (None, ledger.client):
                books += [ledger.book(name) for name in ledger.lineages()]
    if lineage is not None:
        books = [book for book in books if book.lineage == lineage]
    if not books and (client is not None or lineage is not None):
        raise UsageError(
            f"nothing was ever reserved for {lineage or client}",
            hint="without --client and --lineage, everything that is there is shown",
        )
    _put([(book, spending(book, delta=delta)) for book in books], as_json=as_json)


@group.command("export")
@_home_option
@click.option("--client", help="Whose ledger, where the home holds several.")
@click.option("--lineage", help="Which data set, where the ledger holds several.")
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    help="The client's private key, made with `secure-fl keys new`.",
)
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    required=True,
    help="Where the export goes; never overwritten.",
)
@passphrase_option
def export(
    home: Path,
    client: str | None,
    lineage: str | None,
    key: Path,
    output: Path,
    passphrase: str | None,
) -> None:
    """Sign a data set's whole history, for an auditor: see `check`."""
    paths = _ledgers(home, client)
    if len(paths) > 1:
        names = ", ".join(path.parent.name for path in paths)
        raise UsageError(
            f"{home} holds the ledgers of several clients: {names}",
            hint="say whose with --client",
        )
    with contextlib.closing(Ledger.existing(paths[0])) as ledger:
        if client not in (None, ledger.client):
            raise UsageError(
                f"{paths[0]} is the ledger of {ledger.client}, not of {client}",
                hint="give the home of that client",
            )
        identity = Identity.load(
            key, name=ledger.client, passphrase=secret_bytes(passphrase)
        )
        data = ledger.export(_lineage(ledger, lineage), identity=identity)
    create(output, data)


@group.command("check")
@click.argument("file", type=click.Path(path_type=Path))
@click.option("--client", required=True, help="Whose export it has to be.")
@click.option(
    "--public-key",
    required=True,
    help="The client's public line, as in the plan it has signed.",
)
@click.option(
    "--extends",
    "earlier",
    type=click.Path(path_type=Path),
    help="An earlier export: every entry of it has to be in this one.",
)
@_delta_option
@_json_option
def check(
    file: Path,
    client: str,
    public_key: str,
    earlier: Path | None,
    delta: float | None,
    as_json: bool,
) -> None:
    """Check a signed export, and show what it says.

    Exit 0 if its signature, its chain and every rule hold, else 1.
    """
    key = key_from_text(public_key)
    found = _read(file, key, client)
    lines = [
        f"ok  signature of {client}, chain and rules of {len(found.entries)} entries; "
        f"head {found.head.hex()}"
    ]
    if earlier is not None:
        old = _read(earlier, key, client)
        _check_extends(found, old, file, earlier)
        lines.append(f"ok  goes on from all {len(old.entries)} entries of {earlier}")
    if not as_json:
        for line in lines:
            click.echo(line)
    _put([(found.book, spending(found.book, delta=delta))], as_json=as_json)


def _read(file: Path, public_key: bytes, client: str) -> LedgerExport:
    try:
        data = file.read_bytes()
    except OSError as error:
        raise UsageError(
            f"cannot read {file}: {error.strerror}",
            hint="give what `secure-fl ledger export` wrote, or a run's ledgers/*.cbor",
        ) from None
    try:
        return read_export(data, public_key=public_key, client=client)
    except VerificationError as error:
        raise VerificationError(error.message, file=str(file)) from None


def _check_extends(
    new: LedgerExport, old: LedgerExport, file: Path, earlier: Path
) -> None:
    """A ledger only grows: what an auditor once saw is still there, and first."""
    if new.lineage != old.lineage:
        raise UsageError(
            f"{earlier} is of another data set than {file}",
            hint="compare exports of one client's one data set",
        )
    if [e.hash for e in new.entries[: len(old.entries)]] != [
        e.hash for e in old.entries
    ]:
        raise VerificationError(
            f"does not go on from {earlier}: entries were lost or changed",
            file=str(file),
            hint="ask its owner which of the two ledgers is the one in use",
        )


# -- which ledgers ---------------------------------------------------------------------


def _ledgers(home: Path, client: str | None) -> list[Path]:
    """The ledger files in ``home``, of all clients or of one; never none."""
    if home.is_file():
        return [home]
    if (home / "ledger.sqlite").is_file():
        return [home / "ledger.sqlite"]
    found = sorted((home / "clients").glob("*/ledger.sqlite"))
    if not found:
        raise UsageError(
            f"there is no ledger in {home}", hint="give the --home that runs were given"
        )
    if client is None:
        return found
    names = [path.parent.name for path in found]
    if client not in names:
        raise UsageError(
            f"{home} holds no ledger of {client}", hint=f"it has {', '.join(names)}"
        )
    return [found[names.index(client)]]


def _lineage(ledger: Ledger, wanted: str | None) -> str:
    names = ledger.lineages()
    if wanted is None and len(names) == 1:
        return names[0]
    if wanted is None or wanted not in names:
        raise UsageError(
            f"{ledger.client} has charged {', '.join(names) or 'nothing yet'}",
            hint="choose one of them with --lineage",
        )
    return wanted


# -- what they say ---------------------------------------------------------------------

_Account = tuple[Book, Spending | None]
_NOTHING: Final = "nothing was ever reserved"
_SUMS: Final = "opened sums: against as many colluders as each plan assumed"


def _put(accounts: list[_Account], *, as_json: bool) -> None:
    if as_json:
        answer = {"ledgers": [_as_dict(*account) for account in accounts]}
        click.echo(json.dumps(answer, indent=2))
        return
    if not accounts:
        click.echo(_NOTHING)
    console = Console(highlight=False, markup=False)
    for number, account in enumerate(accounts):
        if number:
            console.print()
        _print(*account, console)


def _print(book: Book, spent: Spending | None, console: Console) -> None:
    title = f"{safe(book.client)}, data set {safe(book.lineage)}"
    console.print(title, soft_wrap=True)
    if spent is None:
        console.print(_NOTHING)
        return
    last = spent.last
    # A limit holds at its own delta, and says nothing at another.
    of = f" of {last.limit:.4g}" if spent.delta == last.delta else ""
    console.print(
        f"epsilon {spent.total.epsilon:.4g}{of} at delta {spent.delta:g}, per "
        f"{safe(last.unit)}, {safe(last.adjacency)}",
        soft_wrap=True,
    )
    if _has_sums(book):
        console.print(_SUMS, soft_wrap=True)
    table = Table()
    for heading in ("", "first", "last"):
        table.add_column(heading)
    for heading in ("charged", "aborted", "epsilon"):
        table.add_column(heading, justify="right")
    _row(table, "all", spent.total)
    table.add_section()
    for year, part in spent.years:
        _row(table, str(year), part)
    table.add_section()
    for run_id, part in spent.runs:
        _row(table, f"run {run_id.hex()[:8]}", part)
    console.print(table)


def _has_sums(book: Book) -> bool:
    """Whether shares of several clients' noise are in what it says was spent."""
    return accountant_of(book.charged()) == "RDP"


def _row(table: Table, label: str, spent: Spent) -> None:
    table.add_row(
        label,
        spent.first.isoformat(),
        spent.last.isoformat(),
        str(spent.charged),
        str(spent.aborted),
        f"{spent.epsilon:#.4g}",
    )


def _as_dict(book: Book, spent: Spending | None) -> dict[str, Any]:
    answer: dict[str, Any] = {
        "client": book.client,
        "lineage": book.lineage,
        "entries": len(book.entries),
        "head": book.head.hex(),
    }
    if spent is None:
        return answer
    if _has_sums(book):
        answer["colluders"] = "as each plan assumed"
    return {
        **answer,
        "unit": spent.last.unit,
        "adjacency": spent.last.adjacency,
        "delta": spent.delta,
        "limit": json_number(spent.last.limit),
        "total": _spent_dict(spent.total),
        "years": [{"year": y, **_spent_dict(s)} for y, s in spent.years],
        "runs": [{"run_id": r.hex(), **_spent_dict(s)} for r, s in spent.runs],
    }


def _spent_dict(spent: Spent) -> dict[str, Any]:
    return {
        "epsilon": json_number(spent.epsilon),
        "charged": spent.charged,
        "aborted": spent.aborted,
        "first": spent.first.isoformat(),
        "last": spent.last.isoformat(),
    }
