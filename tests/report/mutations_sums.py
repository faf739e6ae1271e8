# SPDX-License-Identifier: Apache-2.0
"""Mutations of a run whose sums alone are private: its shares, its claims, its steps.

Everybody signs, and everything is hashed anew: what is left is what plan, ledgers, kept
vectors and report say of each other.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, Final

import numpy as np

from secure_fl.model import GlobalModel
from secure_fl.privacy.events import (
    DiscreteGaussian,
    Gaussian,
    NonPrivate,
    Skellam,
    to_wire,
)

from .mutations_books import EVENT, LIMIT, UNIT, Lines
from .mutations_folder import (
    EVERYBODY,
    MODEL,
    PLAN,
    REPORT,
    TRANSCRIPT,
    Folder,
    Mutation,
    Row,
    ledger,
    of_kind,
)
from .mutations_ledger import edited
from .mutations_plan import of_plan
from .mutations_report import altered, edited_report, forged

__all__ = ["SUMS"]

RUN: Final = "sums"
OF_CLIENTS: Final = "sums of clients"
CLIENT: Final = "clinic-b"

Event = dict[int, Any]


def _mutation(
    what: str, edit: Callable[[Folder], None], file: str, run: str = RUN
) -> Mutation:
    return Mutation(f"{run}: {what}, signed by all", run, EVERYBODY, edit, (file,))


# -- ledgers ---------------------------------------------------------------------------


def _event(change: Callable[[Event], Any]) -> Callable[[Folder], None]:
    def edit(lines: Lines) -> None:
        body = lines.reservation()
        old = body[EVENT]
        body[EVENT] = change(old)
        assert body[EVENT] != old

    return edited(edit, CLIENT, seal=True)


def _times(field: int, factor: float) -> Callable[[Event], Any]:
    return lambda e: {**e, field: repr(float(e[field]) * factor)}


def _exact(event: Event) -> Any:
    """The same noise, as if it were discrete Gaussian."""
    deviation = float(event[2]) ** 0.5
    rate, l2 = float(event[1]), float(event[5])
    return to_wire(DiscreteGaussian(rate, deviation, event[3], event[4], l2, 128))


def _in_one_share(event: Event) -> Any:
    """The variance of all shares, said to be one client's own."""
    rate, variance, l2 = (float(event[i]) for i in (1, 2, 5))
    return to_wire(Skellam(rate, variance * event[3], 1, event[4], l2, event[6]))


def _unprotected(lines: Lines) -> None:
    body = lines.reservation()
    body[EVENT], body[LIMIT] = to_wire(NonPrivate("a rehearsal")), "inf"


def _unit(lines: Lines) -> None:
    for line in lines.lines:
        if line.kind == "reserved":
            line.body[UNIT] = "client"


def _ledgers() -> Iterator[Mutation]:
    events: dict[str, Callable[[Event], Any]] = {
        "a share more in an event": lambda e: {**e, 3: e[3] + 1},
        "an event with one share": lambda e: {**e, 3: 1},
        "an event with no share": lambda e: {**e, 3: 0},
        "an event with a share of another type": lambda e: {**e, 3: str(e[3])},
        "an event with more shares than clients": lambda e: {**e, 3: 1001},
        "an event with one more who may collude": lambda e: {**e, 4: e[4] + 1},
        "an event with nobody who may collude": lambda e: {**e, 4: 0},
        "an event with more who may collude than clients": lambda e: {**e, 4: 1001},
        "an event with colluders of another type": lambda e: {**e, 4: str(e[4])},
        "more noise in an event": _times(2, 1.5),
        "a last digit more of noise": _times(2, 1 + 1e-15),
        "less sensitivity in an event": _times(5, 0.999),
        "a value less in an event": lambda e: {**e, 6: e[6] - 1},
        "an event with no values": lambda e: {**e, 6: 0},
        "an event with values of another type": lambda e: {**e, 6: "128.0"},
        "a sensitivity below a step": lambda e: {**e, 5: "0.5"},
        "variance beyond any grid": lambda e: {**e, 2: "1e+51"},
        "another sampling rate in an event": _times(1, 0.5),
        "another kind of noise in an event": _exact,
        "all noise said to be one client's": _in_one_share,
        "Gaussian noise in an event": lambda e: to_wire(Gaussian(1.0)),
        "an event with a field more": lambda e: {**e, 7: "1.0"},
        "an event with a field less": lambda e: {k: e[k] for k in range(6)},
        "another spelling of a rate": lambda e: {**e, 1: e[1] + "0"},
        "an event repeated": lambda e: {0: "repeated", 1: e, 2: 1},
    }
    for what, change in events.items():
        yield _mutation(what, _event(change), ledger(CLIENT))
    for what, edit in {
        "a release without protection": _unprotected,
        "another unit in a ledger": _unit,
    }.items():
        yield _mutation(what, edited(edit, CLIENT, seal=True), ledger(CLIENT))


# -- the report ------------------------------------------------------------------------


def _swapped(report: dict[str, Any]) -> None:
    report["claims"] = report["claims"][::-1]


def _exchanged(report: dict[str, Any]) -> None:
    """The larger epsilon under the weaker adversary's name."""
    one, two = report["claims"]
    for key in ("id", "view"):
        one[key], two[key] = two[key], one[key]


def _headline_alone(report: dict[str, Any]) -> None:
    del report["claims"][1]


def _local(report: dict[str, Any]) -> None:
    for key in ("id", "view"):
        report["claims"][0][key] = "record-local"


def _figures_of_the_sum(report: dict[str, Any]) -> None:
    for key in ("clients", "consortium"):
        report["claims"][1][key] = report["claims"][0][key]


_SUM: Final = ("claims", 0)
_SHARE: Final = ("claims", 1)


def _reports() -> Iterator[Mutation]:
    for what, edit in {
        "claims in another order": _swapped,
        "claims under each other's names": _exchanged,
        "the share claim left out": _headline_alone,
        "the sum claim said to be local": _local,
        "the sum's figures in the share claim": _figures_of_the_sum,
    }.items():
        yield _mutation(what, edited_report(edit), REPORT)
    for path, change in {
        (*_SHARE, "consortium", "epsilon"): lambda e: e * 0.999,
        (*_SHARE, "clients", CLIENT, "epsilon"): lambda e: e * 0.5,
        (*_SHARE, "limit"): lambda none: 8.0,
        (*_SHARE, "projected"): altered,
        (*_SHARE, "evidence"): lambda none: "proved",
        (*_SUM, "consortium", "epsilon"): lambda e: e * 0.999,
        (*_SUM, "consortium", "epsilon_without_amplification"): altered,
        (*_SUM, "consortium", "advantage"): altered,
        (*_SUM, "consortium", "group", 0, 1): altered,
        (*_SUM, "limit"): lambda limit: None,
        (*_SUM, "relies_on"): lambda rows: rows[2:],
        ("threat_model", "assumptions"): lambda rows: rows[1:],
        ("mechanism", "type"): lambda kind: "dp-sgd",
        ("mechanism", "mode"): lambda mode: "local",
        ("mechanism", "normaliser", CLIENT): altered,
        ("mechanism", "sum", "noise"): lambda kind: "discrete-gaussian",
        ("mechanism", "sum", "shares"): altered,
        ("mechanism", "sum", "share_deviation"): altered,
        ("mechanism", "sum", "sensitivity"): altered,
        ("mechanism", "sum", "values"): altered,
        ("mechanism", "sum", "block"): altered,
        ("mechanism", "precision", "update_clip"): altered,
        ("mechanism", "noise_domain"): lambda domain: "float",
        ("numerics", "place"): lambda place: "after-noise",
        ("numerics", "wrap"): lambda wrap: "impossible",
        ("accounting", "primary"): lambda kind: "PLD",
        ("accounting", "discretisation"): lambda grid: None,
        ("accounting", "cross_checks"): lambda none: ["RDP"],
        ("accounting", "known_answers"): lambda rows: rows[:-1],
        ("releases", CLIENT, 0, "event", "shares"): altered,
        ("releases", CLIENT, 0, "event", "colluding"): altered,
        ("releases", CLIENT, 0, "event", "variance"): altered,
        ("releases", CLIENT, 0, "event", "values"): altered,
        ("not_claimed",): lambda ids: ids[1:],
        ("epsilon_over_rounds", CLIENT, 1, "epsilon"): altered,
    }.items():
        what = ".".join(map(str, path)) + " forged"
        yield _mutation(what, forged(path, change), REPORT)


def _others() -> Iterator[Mutation]:
    """Nothing is claimed of records where clients are the unit."""
    for path, change in {
        ("privacy_unit", "kind"): lambda unit: "record",
        ("privacy_unit", "max_records_per_unit"): lambda none: 1,
        ("claims", 0, "unit"): lambda unit: "record",
        ("claims", 0, "relies_on"): lambda rows: rows[1:],
        ("claims", 1, "consortium", "group", 0, 1): altered,
        ("mechanism", "normaliser", CLIENT): lambda one: 8.0,
        ("mechanism", "nan_policy"): lambda policy: "zero-or-charged",
        ("numerics", "rounding"): lambda rule: "stochastic",
        ("not_claimed",): lambda ids: ids[1:],
    }.items():
        what = ".".join(map(str, path)) + " forged"
        yield _mutation(what, forged(path, change), REPORT, OF_CLIENTS)
    yield _mutation("a clipped value counted", _log(_counted), TRANSCRIPT, OF_CLIENTS)


# -- the plan, the log, and the model --------------------------------------------------


def _plans() -> Iterator[Mutation]:
    """No message is of another plan, the model is not of another size, and some plans
    cannot be."""
    for section, key, value, file in (
        ("model", "values", 81, MODEL),
        ("training", "learning_rate", 0.25, TRANSCRIPT),
        ("training", "momentum", 0.0, TRANSCRIPT),
        ("training", "schedule", "constant", TRANSCRIPT),
        ("privacy", "noise", "discrete-gaussian", TRANSCRIPT),
        ("privacy", "noise_multiplier", 1.5, TRANSCRIPT),
        ("privacy", "noise_multiplier", 0.3, PLAN),
        ("privacy", "unit", "client", PLAN),
        ("privacy", "overlap", "overlapping", PLAN),
        ("privacy", "local_steps", 2, PLAN),
        ("privacy", "mode", "local", PLAN),
        ("protection", "kind", "plain", PLAN),
        ("protection", "step", 2.0**-5, PLAN),
        ("protection", "step", 2.0**-40, PLAN),
        ("protection", "clip", 0.5, PLAN),
        ("protection", "word_bits", 12, PLAN),
    ):
        what = f"{section}.{key} = {value}"
        yield _mutation(what, of_plan(section, key, value), file)


def _log(edit: Callable[[list[Row]], None]) -> Callable[[Folder], None]:
    def apply(folder: Folder) -> None:
        folder.log(edit)
        folder.rebuild()

    return apply


def _counted(rows: list[Row]) -> None:
    rows[of_kind(rows, "round")[0]][1][6] = 1


def _model(change: Callable[[GlobalModel], GlobalModel]) -> Callable[[Folder], None]:
    """Another model at the end, which the last round is said to have left."""

    def apply(folder: Folder) -> None:
        model = change(GlobalModel.from_bytes(folder.files[MODEL]))
        folder.files[MODEL] = model.to_bytes()

        def edit(rows: list[Row]) -> None:
            rows[of_kind(rows, "round")[-1]][1][8] = model.digest()

        folder.log(edit)
        folder.rebuild()

    return apply


def _half_a_step(model: GlobalModel) -> GlobalModel:
    return GlobalModel({k: (v / 2).astype(v.dtype) for k, v in model.arrays.items()})


def _smaller(model: GlobalModel) -> GlobalModel:
    return GlobalModel({"bias": np.zeros(2, np.float32)})


def _rest() -> Iterator[Mutation]:
    yield _mutation("a clipped value counted", _log(_counted), TRANSCRIPT)
    yield _mutation("a model half as far", _model(_half_a_step), TRANSCRIPT)
    yield _mutation("a model of another size", _model(_smaller), MODEL)


SUMS: Final = (*_ledgers(), *_reports(), *_others(), *_plans(), *_rest())
