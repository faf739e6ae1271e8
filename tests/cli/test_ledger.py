# SPDX-License-Identifier: Apache-2.0
"""``secure-fl ledger``: what is shown is what the ledgers hold, and nothing is made."""

from __future__ import annotations

import contextlib
import math
from pathlib import Path

import pytest

from secure_fl.identity import Identity, key_to_text
from secure_fl.plan import load_plan
from secure_fl.privacy import (
    Event,
    Gaussian,
    Ledger,
    NonPrivate,
    Skellam,
    epsilon,
    read_export,
    seen,
)

from .support import MEMBERS, call, snapshot
from .test_refusals import refused, refused_and_unchanged

DAY = 86_400
NOON_2027 = 1_798_761_600 + DAY // 2  # 1 January
QUIET, LOUD = Gaussian(40.0), Gaussian(8.0)
RUNS = (bytes(range(16)), bytes(range(16, 32)))


def charge(
    ledger: Ledger,
    run_id: bytes,
    place: int,
    *events: Event,
    lineage: str = "loans",
    now: int = NOON_2027,
) -> None:
    for attempt, event in enumerate(events):
        ledger.reserve(
            lineage,
            run_id=run_id,
            round_index=place,
            attempt=attempt,
            event=event,
            unit="record",
            adjacency="add-or-remove-one",
            delta=1e-6,
            limit=3.0,
            now=now,
        )


@pytest.fixture
def home(desk: Path) -> Path:
    """Two clients: one with two runs in two years, one with two data sets."""
    home = desk / "home"
    for name in MEMBERS[:2]:
        folder = home / "clients" / name
        folder.mkdir(parents=True)
        ledger = Ledger(folder / "ledger.sqlite", client=name)
        charge(ledger, RUNS[0], 0, QUIET, LOUD)
        if name == MEMBERS[0]:
            charge(ledger, RUNS[1], 0, LOUD, now=NOON_2027 + 366 * DAY)
        else:
            charge(ledger, RUNS[1], 0, QUIET, lineage="cards")
        ledger.close()
    return home


def cost(*events: Event, delta: float = 1e-6) -> float:
    return epsilon(events, delta=delta).value


# -- show ------------------------------------------------------------------------------


def test_show_as_json(home: Path) -> None:
    shown = call("ledger", "show", "--home", home, "--json")
    assert (shown.code, shown.err) == (0, "")
    ledgers = shown.json["ledgers"]
    assert [(x["client"], x["lineage"]) for x in ledgers] == [
        ("bank-a", "loans"),
        ("bank-b", "cards"),
        ("bank-b", "loans"),
    ]
    first = ledgers[0]
    ledger = Ledger(home / "clients" / "bank-a" / "ledger.sqlite", client="bank-a")
    assert first.pop("head") == ledger.entries("loans")[-1].hash.hex()
    ledger.close()
    new_year, next_year = "2027-01-01", "2028-01-02"
    assert first == {
        "client": "bank-a",
        "lineage": "loans",
        "entries": 3,
        "unit": "record",
        "adjacency": "add-or-remove-one",
        "delta": 1e-6,
        "limit": 3.0,
        "total": figures(cost(QUIET, LOUD, LOUD), 3, new_year, next_year),
        "years": [
            {"year": 2027} | figures(cost(QUIET, LOUD), 2, new_year, new_year),
            {"year": 2028} | figures(cost(LOUD), 1, next_year, next_year),
        ],
        "runs": [
            {"run_id": RUNS[0].hex()}
            | figures(cost(QUIET, LOUD), 2, new_year, new_year),
            {"run_id": RUNS[1].hex()} | figures(cost(LOUD), 1, next_year, next_year),
        ],
    }


def figures(spent: float, charged: int, first: str, last: str) -> dict[str, object]:
    return {
        "epsilon": spent,
        "charged": charged,
        "aborted": 0,
        "first": first,
        "last": last,
    }


def test_show_as_a_table(home: Path) -> None:
    before = snapshot(home)
    shown = call("ledger", "show", "--home", home)
    assert (shown.code, shown.err) == (0, "")
    lines = shown.out.splitlines()
    assert max(map(len, lines)) <= 80
    assert lines[0] == "bank-a, data set loans"
    spent = cost(QUIET, LOUD, LOUD)
    assert lines[1] == (
        f"epsilon {spent:.4g} of 3 at delta 1e-06, per record, add-or-remove-one"
    )
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in lines]
    assert ["all", "2027-01-01", "2028-01-02", "3", "0", f"{spent:#.4g}"] in rows
    assert ["run 00010203", *2 * ["2027-01-01"], "2", "0"] in [r[:-1] for r in rows]
    assert sum(line.startswith("bank-b, data set ") for line in lines) == 2
    assert snapshot(home) == before


def test_a_sum_counts_with_its_shares_and_it_says_so(home: Path) -> None:
    """No plan is asked, which would have a view of its own."""
    told = "opened sums: against as many colluders as each plan assumed"
    args = ("ledger", "show", "--home", home, "--client", "bank-a")
    assert told not in call(*args).out
    assert "colluders" not in call(*args, "--json").json["ledgers"][0]
    path = home / "clients" / "bank-a" / "ledger.sqlite"
    event = Skellam(1.0, 1e8, shares=3, colluding=1, l2=1e3, values=900)
    with contextlib.closing(Ledger(path, client="bank-a")) as ledger:
        charge(ledger, RUNS[1], 9, event)
    lines = call(*args).out.splitlines()
    spent, own = (cost(QUIET, LOUD, LOUD, e) for e in (event, seen(event, None)))
    assert own > 1.01 * spent
    assert lines[1].startswith(f"epsilon {spent:.4g} of 3 at delta 1e-06")
    assert lines[2] == told
    (shown,) = call(*args, "--json").json["ledgers"]
    assert shown["total"]["epsilon"] == spent
    assert shown["colluders"] == "as each plan assumed"


@pytest.mark.parametrize(
    ("args", "found"),
    [
        (("--client", "bank-b"), [("bank-b", "cards"), ("bank-b", "loans")]),
        (("--lineage", "loans"), [("bank-a", "loans"), ("bank-b", "loans")]),
        (("--client", "bank-b", "--lineage", "cards"), [("bank-b", "cards")]),
    ],
)
def test_show_some(
    home: Path, args: tuple[str, ...], found: list[tuple[str, str]]
) -> None:
    ledgers = call("ledger", "show", "--home", home, *args, "--json").json["ledgers"]
    assert [(x["client"], x["lineage"]) for x in ledgers] == found


@pytest.mark.parametrize("place", ["clients/bank-a", "clients/bank-a/ledger.sqlite"])
def test_show_one_client_s_home_or_file(home: Path, place: str) -> None:
    (shown,) = call("ledger", "show", "--home", home / place, "--json").json["ledgers"]
    assert shown["client"] == "bank-a"


def test_show_at_another_delta(home: Path) -> None:
    args = ("ledger", "show", "--home", home, "--client", "bank-a", "--json")
    (shown,) = call(*args, "--delta", "1e-3").json["ledgers"]
    assert shown["delta"] == 1e-3
    assert shown["total"]["epsilon"] == cost(QUIET, LOUD, LOUD, delta=1e-3)
    refused(call(*args, "--delta", "2"), 2, "delta is 2.0")
    # The limit of 3 is one at delta 1e-6, and is not held against another's epsilon.
    table = args[:-1]
    assert " of 3 at delta 1e-06," in call(*table).out
    assert " of 3" not in call(*table, "--delta", "1e-3").out


def test_show_while_a_client_is_at_work(home: Path) -> None:
    path = home / "clients" / "bank-a" / "ledger.sqlite"
    ledger = Ledger(path, client="bank-a")
    charge(ledger, RUNS[1], 5, QUIET)
    (shown,) = call("ledger", "show", "--home", path, "--json").json["ledgers"]
    assert shown["entries"] == 4
    charge(ledger, RUNS[1], 6, QUIET)
    ledger.close()


def test_show_nothing_yet(desk: Path) -> None:
    Ledger(desk / "ledger.sqlite", client="bank-a").close()
    assert call("ledger", "show", "--home", desk, "--json").json == {"ledgers": []}
    shown = call("ledger", "show", "--home", desk)
    assert (shown.code, shown.out) == (0, "nothing was ever reserved\n")


def test_an_unprotected_release_shows_as_infinite(desk: Path) -> None:
    ledger = Ledger(desk / "ledger.sqlite", client="bank-a")
    ledger.reserve(
        "loans",
        run_id=RUNS[0],
        round_index=0,
        attempt=0,
        event=NonPrivate("a baseline"),
        unit="record",
        adjacency="add-or-remove-one",
        delta=1e-6,
        limit=math.inf,
        now=0,
    )
    ledger.close()
    (shown,) = call("ledger", "show", "--home", desk, "--json").json["ledgers"]
    assert shown["limit"] == shown["total"]["epsilon"] == "infinity"
    assert "epsilon inf of inf" in call("ledger", "show", "--home", desk).out


@pytest.mark.parametrize(
    ("args", "phrase"),
    [
        (("--home", "none"), "there is no ledger in none"),
        (("--home", "plan.toml"), "plan.toml"),
        (("--home", "home", "--client", "bank-x"), "holds no ledger of bank-x"),
        (("--home", "home", "--lineage", "x"), "nothing was ever reserved for x"),
        (
            ("--home", "home/clients/bank-a", "--client", "bank-b"),
            "nothing was ever reserved for bank-b",
        ),
    ],
)
@pytest.mark.usefixtures("home")
def test_show_refuses_and_makes_nothing(
    desk: Path, args: tuple[str, ...], phrase: str
) -> None:
    code = 1 if "plan.toml" in args else 2
    refused_and_unchanged(desk, ("ledger", "show", *args), code, phrase)


# -- export and check ------------------------------------------------------------------


@pytest.fixture
def public(home: Path) -> str:
    """The public line of bank-a, whose private key is in ``bank-a.pem``."""
    return call("keys", "new", "-o", home.parent / "bank-a.pem").out.strip()


EXPORT = ("ledger", "export", "--key", "bank-a.pem", "-o", "signed.cbor")
CHECK = ("ledger", "check", "signed.cbor", "--client", "bank-a", "--public-key")


def test_export_and_check(desk: Path, home: Path, public: str) -> None:
    done = call(*EXPORT, "--home", home, "--client", "bank-a")
    assert (done.code, done.out, done.err) == (0, "", "")
    key = Identity.load(desk / "bank-a.pem").public_key
    assert key_to_text(key) == public
    data = (desk / "signed.cbor").read_bytes()
    found = read_export(data, public_key=key, client="bank-a")
    assert found.charged() == [QUIET, LOUD, LOUD]

    live = call("ledger", "show", "--home", home, "--client", "bank-a", "--json")
    for extra in ((), ("--json",), ("--delta", "1e-4")):
        checked = call(*CHECK, public, *extra)
        shown = call("ledger", "show", "--home", home, "--client", "bank-a", *extra)
        assert (checked.code, checked.err) == (0, "")
        said = checked.out
        if extra != ("--json",):
            line, _, said = said.partition("\n")
            assert line.startswith("ok  signature of bank-a, chain and rules of 3 ")
            assert line.endswith(found.head.hex())
        assert said == shown.out
    assert call(*CHECK, public, "--json").json == live.json


def test_an_export_goes_on_from_an_earlier_one(
    desk: Path, home: Path, public: str
) -> None:
    at = ("--home", home, "--client", "bank-a")
    assert call(*EXPORT, *at).code == 0
    (desk / "signed.cbor").rename(desk / "old.cbor")
    path = home / "clients" / "bank-a" / "ledger.sqlite"
    ledger = Ledger(path, client="bank-a")
    charge(ledger, RUNS[1], 1, QUIET)
    ledger.close()
    assert call(*EXPORT, *at).code == 0
    both = call(*CHECK, public, "--extends", "old.cbor")
    assert (both.code, both.err) == (0, "")
    assert "ok  goes on from all 3 entries of old.cbor" in both.out

    # The other way round, entries were lost; begun anew, they were changed.
    swapped = ("ledger", "check", "old.cbor", "--client", "bank-a", "--public-key")
    back = (*swapped, public, "--extends", "signed.cbor")
    refused(call(*back), 1, "old.cbor", "does not go on from signed.cbor")
    identity = Identity.load(desk / "bank-a.pem", name="bank-a")
    anew = Ledger(desk / "anew.sqlite", client="bank-a")
    charge(anew, RUNS[0], 0, LOUD, LOUD, QUIET, QUIET)
    charge(anew, RUNS[0], 0, LOUD, lineage="cards")
    (desk / "signed.cbor").write_bytes(anew.export("loans", identity=identity))
    (desk / "cards.cbor").write_bytes(anew.export("cards", identity=identity))
    anew.close()
    extends = (*CHECK, public, "--extends")
    refused(call(*extends, "old.cbor"), 1, "signed.cbor", "lost or changed")
    refused(call(*extends, "cards.cbor"), 2, "another data set")
    refused(call(*extends, "none.cbor"), 2, "cannot read none.cbor")


def test_export_says_what_it_needs(desk: Path, home: Path, public: str) -> None:
    assert public
    at = ("--home", str(home))
    refused_and_unchanged(desk, (*EXPORT, *at), 2, "several clients: bank-a, bank-b")
    two = (*EXPORT, *at, "--client", "bank-b")
    refused_and_unchanged(desk, two, 2, "bank-b has charged cards, loans")
    refused_and_unchanged(desk, (*two, "--lineage", "x"), 2, "cards, loans")
    wrong = (*EXPORT, "--home", str(home / "clients" / "bank-a"), "--client", "bank-b")
    refused_and_unchanged(desk, wrong, 2, "is the ledger of bank-a, not of bank-b")
    refused_and_unchanged(desk, (*EXPORT, "--home", "none"), 2, "no ledger in none")
    assert call(*two, "--lineage", "cards").code == 0
    refused_and_unchanged(desk, (*two, "--lineage", "loans"), 2, "signed.cbor exists")


def test_check_refuses_another_key_client_or_byte(
    desk: Path, home: Path, public: str
) -> None:
    assert call(*EXPORT, "--home", home, "--client", "bank-a").code == 0
    other = call("keys", "new", "-o", "other.pem").out.strip()
    refused(call(*CHECK, other), 1, "signed.cbor", "signature is not bank-a's")
    renamed = ("ledger", "check", "signed.cbor", "--client", "bank-b", "--public-key")
    refused(call(*renamed, public), 1, "not the ledger of bank-b")
    refused(call(*CHECK, public[:-1]), 2, "public key")
    data = bytearray((desk / "signed.cbor").read_bytes())
    data[len(data) // 2] ^= 1
    (desk / "signed.cbor").write_bytes(data)
    refused(call(*CHECK, public), 1, "signed.cbor")
    (desk / "signed.cbor").unlink()
    refused(call(*CHECK, public), 2, "cannot read signed.cbor")


def test_check_of_a_stranger_s_names_prints_no_control_character(
    desk: Path, home: Path, public: str
) -> None:
    assert home
    identity = Identity.load(desk / "bank-a.pem", name="bank-a")
    lineage = "loans\x1b[2J\nVERIFIED"
    ledger = Ledger(desk / "l.sqlite", client="bank-a")
    assert ledger.lineages() == []
    charge(ledger, RUNS[0], 0, QUIET, lineage=lineage)
    data = ledger.export(lineage, identity=identity)
    ledger.close()
    (desk / "signed.cbor").write_bytes(data)
    checked = call(*CHECK, public)
    assert checked.code == 0
    assert checked.out.partition("\n")[2].startswith(
        r"bank-a, data set 'loans\x1b[2J\nVERIFIED'"
    )


def test_check_of_an_export_without_entries(desk: Path, public: str) -> None:
    identity = Identity.load(desk / "bank-a.pem", name="bank-a")
    ledger = Ledger(desk / "l.sqlite", client="bank-a")
    (desk / "signed.cbor").write_bytes(ledger.export("loans", identity=identity))
    ledger.close()
    checked = call(*CHECK, public)
    assert (checked.code, checked.err) == (0, "")
    said = checked.out.partition("\n")[2]
    assert said == "bank-a, data set loans\nnothing was ever reserved\n"
    (shown,) = call(*CHECK, public, "--json").json["ledgers"]
    assert (shown["entries"], "total" in shown) == (0, False)


def test_a_run_s_own_export_can_be_checked(out: Path) -> None:
    plan = load_plan(out / "plan.toml")
    key = key_to_text(plan.roster.members[0].public_key)
    checked = call(
        *("ledger", "check", out / "ledgers" / "bank-a.cbor"),
        *("--client", "bank-a", "--public-key", key, "--json"),
    )
    assert (checked.code, checked.err) == (0, "")
    (shown,) = checked.json["ledgers"]
    rounds = [plan.release] * plan.rounds.count
    assert shown["total"]["epsilon"] == cost(*rounds, delta=plan.privacy.delta)
    assert shown["limit"] == plan.privacy.epsilon
    assert plan.run_id is not None
    assert [run["run_id"] for run in shown["runs"]] == [plan.run_id.hex()]
