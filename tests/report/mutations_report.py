# SPDX-License-Identifier: Apache-2.0
"""Mutations of the report: every section of it, and the figures a reader looks for.

Everything is hashed anew; its pages, which no verifier reads, stay.  Nobody's key is
needed to write it; the coalition signs the new hashes and lacks the others' signatures;
and what everybody signs is still not what plan, transcript and ledgers give.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from typing import Any, Final

from .mutations_folder import (
    COALITION,
    EVERYBODY,
    NOBODY,
    REPORT,
    TRANSCRIPT,
    Folder,
    Mutation,
)

__all__ = ["REPORTS", "SECTIONS", "altered", "edited_report", "forged"]

# Every key of a report, so that a new one gets its mutations.
SECTIONS: Final = (
    "schema_version",
    "report_id",
    "tool",
    "dates",
    "simulation",
    "insecure",
    "plan",
    "subject",
    "parties",
    "threat_model",
    "privacy_unit",
    "adjacency",
    "overlap",
    "mechanism",
    "sampling",
    "numerics",
    "randomness",
    "releases",
    "composition",
    "ledgers",
    "accounting",
    "claims",
    "not_claimed",
    "not_protected",
    "conformance",
    "mutation",
    "audit",
    "exceptions",
    "epsilon_over_rounds",
    "rounds",
    "failures",
    "skipped_rounds",
    "transcript_head",
)

Edit = Callable[[dict[str, Any]], None]
Path = tuple[str | int, ...]


def edited_report(edit: Edit) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        report = json.loads(folder.files[REPORT])
        edit(report)
        if folder.holds:
            folder.say(report)
        else:
            folder.files[REPORT] = json.dumps(report).encode()

    return apply


def altered(value: Any) -> Any:
    """Another value of the same form: the first thing in it that can be changed is."""
    match value:
        case bool():
            return not value
        case int():
            return value + 1
        case float():
            return value * 0.9
        case str():
            return value + "x"
        case None:
            return "x"
        case []:
            return ["x"]
        case list():
            return [altered(value[0]), *value[1:]]
        case dict():
            if not value:
                return {"x": 1}
            key = next(iter(value))
            return {**value, key: altered(value[key])}
    raise AssertionError(value)


def _at(path: Path, change: Callable[[Any], Any]) -> Edit:
    def edit(report: dict[str, Any]) -> None:
        place: Any = report
        for step in path[:-1]:
            place = place[step]
        old = place[path[-1]]
        place[path[-1]] = change(old)
        assert place[path[-1]] != old

    return edit


def forged(path: Path, change: Callable[[Any], Any]) -> Callable[[Folder], None]:
    """The field at ``path`` changed, and everything hashed anew."""
    return edited_report(_at(path, change))


def _without(path: Path) -> Edit:
    def edit(report: dict[str, Any]) -> None:
        place: Any = report
        for step in path[:-1]:
            place = place[step]
        del place[path[-1]]

    return edit


def _to(value: Any) -> Callable[[Any], Any]:
    return lambda old: value


def _sections() -> Iterator[Mutation]:
    for key in SECTIONS:
        changed = edited_report(_at((key,), altered))
        for holds, who, file in (
            (NOBODY, "nobody", REPORT),
            (COALITION, "the coalition", TRANSCRIPT),
            (EVERYBODY, "all", REPORT),
        ):
            name = f"{REPORT}: {key} changed, signed by {who}"
            yield Mutation(name, "masking", holds, changed, (file,))
        gone = edited_report(_without((key,)))
        name = f"{REPORT}: {key} left out, signed by all"
        yield Mutation(name, "masking", EVERYBODY, gone, (REPORT,))


# -- what a reader looks for -----------------------------------------------------------

_CLAIM: Final[Path] = ("claims", 0)
_WHOLE: Final[Path] = (*_CLAIM, "consortium")
_BANK: Final[Path] = (*_CLAIM, "clients", "bank-b")

VALUES: Final[dict[Path, Callable[[Any], Any]]] = {
    # figures
    (*_BANK, "epsilon"): lambda e: e * 0.999,
    (*_BANK, "epsilon_this_run"): altered,
    (*_BANK, "epsilon_rdp"): altered,
    (*_BANK, "epsilon_without_amplification"): altered,
    (*_BANK, "releases_charged"): lambda n: n - 1,
    (*_BANK, "reasons"): altered,
    (*_BANK, "profile", 3, 1): altered,
    (*_BANK, "profile", 3, 0): altered,
    (*_BANK, "mu_gdp"): altered,
    (*_BANK, "advantage"): altered,
    (*_BANK, "tpr_at_fpr", "0.001"): altered,
    (*_BANK, "posterior", "0.5"): altered,
    (*_BANK, "trade_off", 2, 1): altered,
    (*_BANK, "group", 1, 1): altered,
    (*_BANK, "group", 1, 0): altered,
    (*_WHOLE, "epsilon"): lambda e: e * 0.999,
    (*_WHOLE, "profile", 8, 1): altered,
    (*_WHOLE, "tpr_at_fpr", "0.01"): altered,
    (*_WHOLE, "trade_off", 6, 1): altered,
    (*_WHOLE, "group", 0, 1): altered,
    # what the figures are of
    (*_CLAIM, "unit"): _to("client"),
    (*_CLAIM, "adjacency"): _to("replace-one"),
    (*_CLAIM, "view"): _to("sum"),
    (*_CLAIM, "delta"): _to(1e-9),
    (*_CLAIM, "limit"): _to(4.0),
    (*_CLAIM, "projected"): altered,
    (*_CLAIM, "projected_consortium"): altered,
    (*_CLAIM, "evidence"): _to("proof"),
    (*_CLAIM, "relies_on"): lambda rows: rows[1:],
    (*_CLAIM, "relies_on", 1, "evidence"): _to("proved"),
    (*_CLAIM, "not_protected"): lambda ids: ids[:-1],
    ("claims",): lambda claims: [*claims, claims[0]],
    ("not_claimed",): lambda ids: ids[1:],
    ("not_protected",): lambda ids: ids[1:],
    # who, when, with what
    ("parties", 1, "weight"): altered,
    ("parties", 1, "nominal_records"): altered,
    ("parties", 1, "public_key"): altered,
    ("parties", 1, "name"): altered,
    ("parties",): lambda rows: [*rows[:1], *rows[2:]],
    ("dates", "last"): _to("2030-01-01T00:00:00Z"),
    ("tool", "version"): altered,
    ("tool", "libraries", "dp-accounting"): altered,
    ("plan", "hash"): altered,
    ("plan", "run_id"): altered,
    ("plan", "rounds"): altered,
    ("plan", "spare"): altered,
    ("subject", "values"): altered,
    ("subject", "start_hash"): altered,
    ("subject", "model_hash"): altered,
    ("subject", "frozen_state"): _to("a backbone"),
    ("threat_model", "security"): _to("information-theoretic"),
    ("threat_model", "max_colluding"): altered,
    ("threat_model", "threshold"): altered,
    ("threat_model", "min_clients"): altered,
    ("threat_model", "adversaries", 0, "sees"): _to("nothing"),
    ("threat_model", "adversaries"): lambda rows: rows[1:],
    ("threat_model", "assumptions"): lambda rows: rows[:-1],
    ("threat_model", "assumptions", 1, "evidence"): _to("proved"),
    ("privacy_unit", "max_records_per_unit"): altered,
    ("privacy_unit", "max_parties_per_unit"): altered,
    ("privacy_unit", "enforcement"): _to("checked"),
    ("mechanism", "noise_multiplier"): altered,
    ("mechanism", "clip_norm"): altered,
    ("mechanism", "sigma_abs"): altered,
    ("mechanism", "local_steps"): altered,
    ("mechanism", "normaliser", "bank-c"): altered,
    ("mechanism", "precision", "word_bits"): altered,
    ("sampling", "rate"): altered,
    ("sampling", "amplification"): altered,
    ("sampling", "evidence"): altered,
    ("numerics", "word_bits"): altered,
    ("numerics", "wrong_rounding_log2"): _to(-40),
    ("randomness", "seeded"): altered,
    ("randomness", "masks"): altered,
    ("accounting", "primary"): altered,
    ("accounting", "discretisation", "interval"): altered,
    ("accounting", "discretisation", "bound"): altered,
    ("accounting", "cross_checks"): lambda ids: ids[1:],
    ("accounting", "known_answers", 0, "got"): altered,
    ("accounting", "known_answers", 0, "expected"): altered,
    ("accounting", "known_answers", 0, "tolerance"): altered,
    ("accounting", "known_answers"): lambda rows: rows[1:],
    # what happened
    ("releases", "bank-b"): lambda rows: rows[:-1],
    ("releases", "bank-b", 0, "state"): _to("aborted"),
    ("releases", "bank-b", 0, "charged"): altered,
    ("releases", "bank-b", 0, "time"): _to("2030-01-01T00:00:00Z"),
    ("releases", "bank-b", 0, "event", "noise_multiplier"): altered,
    ("releases", "bank-b", 0, "event", "count"): altered,
    ("releases", "bank-b", 0, "entry_hash"): altered,
    ("composition", "within_client"): _to("advanced"),
    ("composition", "across_clients"): _to("sequential"),
    ("composition", "lineage"): altered,
    ("composition", "ledgers_live_on"): altered,
    ("composition", "hyperparameters"): _to("charged"),
    ("composition", "stopping"): altered,
    ("ledgers", "bank-b", "head"): altered,
    ("ledgers", "bank-b", "entries"): altered,
    ("exceptions",): lambda rows: rows[1:],
    ("exceptions", 0, "client"): _to("bank-d"),
    ("epsilon_over_rounds", "bank-b", 1, "epsilon"): altered,
    ("epsilon_over_rounds", "bank-b"): lambda rows: rows[:1],
    ("rounds", 0, "survivors"): lambda names: names[:3],
    ("rounds", 1, "left_out"): _to([]),
    ("rounds", 1, "total_weight"): altered,
    ("rounds", 1, "clipped_coordinates"): altered,
    ("rounds", 1, "words_hash"): altered,
    ("rounds", 1, "model_hash"): altered,
    ("rounds", 1, "attempt"): _to(0),
    ("rounds",): lambda rows: rows[:1],
    ("failures", 0, "reason"): altered,
    ("failures", 0, "culprit"): _to(None),
    ("failures",): _to([]),
    ("skipped_rounds",): _to([1]),
}


def _title(path: Path) -> str:
    return ".".join(str(step) for step in path)


def _infinity(report: dict[str, Any]) -> None:
    report["claims"][0]["consortium"]["epsilon"] = "infinity"


def _integer(report: dict[str, Any]) -> None:
    report["sampling"]["rate"] = int(report["sampling"]["rate"])


def _text_for_number(report: dict[str, Any]) -> None:
    bank = report["claims"][0]["clients"]["bank-b"]
    bank["epsilon"] = str(bank["epsilon"])


def _one_for_true(report: dict[str, Any]) -> None:
    report["insecure"] = 1


def _another_client(report: dict[str, Any]) -> None:
    clients = report["claims"][0]["clients"]
    clients["bank-e"] = clients.pop("bank-d")


def _two_exchanged(report: dict[str, Any]) -> None:
    clients = report["claims"][0]["clients"]
    one, two = clients["bank-a"], clients["bank-d"]
    clients["bank-a"], clients["bank-d"] = two, one


def _field_more(report: dict[str, Any]) -> None:
    report["approved_by"] = "the regulator"


def _claim_more(report: dict[str, Any]) -> None:
    report["claims"][0]["certified"] = True


def _other_claim(report: dict[str, Any]) -> None:
    claim = {**report["claims"][0], "id": "organisation"}
    report["claims"].append(claim)


def _values() -> Iterator[Mutation]:
    for path, change in VALUES.items():
        name = f"{REPORT}: {_title(path)} forged, signed by all"
        edit = edited_report(_at(path, change))
        yield Mutation(name, "masking", EVERYBODY, edit, (REPORT,))
    edits: dict[str, Edit] = {
        "a finite epsilon said to be infinite": _infinity,
        "an integer for a figure": _integer,
        "a text for a figure": _text_for_number,
        "a number for a truth": _one_for_true,
        "a client renamed": _another_client,
        "two clients' figures exchanged": _two_exchanged,
        "a field more": _field_more,
        "a claim's field more": _claim_more,
        "a claim more": _other_claim,
    }
    for what, change in edits.items():
        name = f"{REPORT}: {what}, signed by all"
        yield Mutation(name, "masking", EVERYBODY, edited_report(change), (REPORT,))


# -- what is no report -----------------------------------------------------------------


def _raw(change: Callable[[bytes], bytes]) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        folder.put(REPORT, change(folder.files[REPORT]))

    return apply


def _forms() -> Iterator[Mutation]:
    first = b'{\n  "schema_version"'
    changes: dict[str, Callable[[bytes], bytes]] = {
        "empty": lambda data: b"",
        "no object": lambda data: b"[]",
        "null": lambda data: b"null",
        "an empty object": lambda data: b"{}",
        "cut short": lambda data: data[:-10],
        "two values": lambda data: data + data,
        "a byte order mark": lambda data: b"\xef\xbb\xbf" + data,
        "in UTF-16": lambda data: data.decode().encode("utf-16"),
        "a key twice": lambda data: data.replace(first, b'{"overlap": 1,' + first[1:]),
        "not a number": lambda data: data.replace(
            b'"simulation": true', b'"simulation": NaN'
        ),
        "deeply nested": lambda data: b"[" * 100_000,
        "a number of ten thousand digits": lambda data: (
            b'{"a": ' + b"9" * 10_000 + b"}"
        ),
        "not UTF-8": lambda data: data + b"\xff",
    }
    for what, change in changes.items():
        name = f"{REPORT}: {what}, signed by all"
        yield Mutation(name, "masking", EVERYBODY, _raw(change), (REPORT,))


# -- other runs: what only they say ----------------------------------------------------


def _encrypted() -> Iterator[Mutation]:
    paths: dict[Path, Callable[[Any], Any]] = {
        ("threat_model", "encryption"): altered,
        ("threat_model", "protection"): _to("masking"),
        ("numerics", "wrong_rounding_log2"): _to(-80),
        ("randomness", "encryption"): _to("none"),
    }
    for run in ("one-time", "keyholder"):
        for path, change in paths.items():
            name = f"{REPORT}: {_title(path)} forged ({run}), signed by all"
            edit = edited_report(_at(path, change))
            yield Mutation(name, run, EVERYBODY, edit, (REPORT,))
    paths = {
        ("threat_model", "protection"): _to("masking"),
        ("threat_model", "security"): _to("computational"),
        ("threat_model", "adversaries", 0, "sees"): _to("sum"),
    }
    for path, change in paths.items():
        name = f"{REPORT}: {_title(path)} forged (plain), signed by all"
        yield Mutation(
            name, "plain", EVERYBODY, edited_report(_at(path, change)), (REPORT,)
        )


REPORTS: Final = (*_sections(), *_values(), *_forms(), *_encrypted())
