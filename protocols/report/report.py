# SPDX-License-Identifier: Apache-2.0
"""report.json, built anew and compared (SPEC.md, section 10; FIELDS.md)."""

import re
from datetime import UTC, datetime
from typing import Any

from canonical import Malformed, digest, key_text, refuse
from context import CKKS, Session
from figures import Contradiction, epsilon, figures, known_answers, num, r6, spent
from files import REPORT, read_json
from ledgers import Event, Ledger, Release
from plan import Plan
from transcript import Entry, Log

_LAST_SECOND = 253402300799
_WORD = r"[0-9A-Za-z][0-9A-Za-z.+_!-]*"
_TOOL = re.compile(rf"({_WORD}) ({_WORD}) \(({_WORD} {_WORD}(?:, {_WORD} {_WORD})*)\)")
# Fields read off the far tail of a curve, where machines agree less.
_ROUGH = {"mu_gdp", "tpr_at_fpr", "trade_off", "posterior", "advantage"}
_ROUGH |= {"profile", "group"}
_NOT_CLAIMED = ["organisation", "sum-view", "groups", "stopping"]
_NOT_PROTECTED = [
    *("population", "participation", "public-constants", "other-releases"),
    *("metrics", "choices-before", "poisoning", "side-channels"),
]


def check_report(
    data: bytes, log: Log, head: bytes, session: Session, ledgers: list[Ledger]
) -> None:
    """Every field is what plan, log and ledgers give."""
    try:
        stated = read_json(data)
    except Malformed as problem:
        refuse("V-REPORT-1", REPORT, str(problem))
    try:
        built = _Builder(log, head, session, ledgers).build()
    except Contradiction as problem:
        refuse("V-REPORT-2", REPORT, str(problem))
    compare(stated, built, "", 1e-4)


def compare(stated: Any, built: Any, where: str, tolerance: float) -> None:
    """Refuses the first field that differs."""
    place = where or "the report"
    if type(stated) is not type(built):
        refuse("V-REPORT-2", REPORT, f"{place} is of another type than rebuilt")
    if isinstance(built, dict):
        if stated.keys() != built.keys():
            name = sorted(stated.keys() ^ built.keys())[0]
            refuse("V-REPORT-2", REPORT, f"{place}: {name!r} is missing, or unknown")
        figures_of = "mu_gdp" in built
        for name, value in built.items():
            rough = 1e-2 if figures_of and name in _ROUGH else tolerance
            compare(stated[name], value, f"{where}.{name}".lstrip("."), rough)
    elif isinstance(built, list):
        if len(stated) != len(built):
            refuse("V-REPORT-2", REPORT, f"{place} has another number of rows")
        for at, pair in enumerate(zip(stated, built, strict=True)):
            compare(*pair, f"{where}[{at}]", tolerance)
    elif isinstance(built, float):
        if not abs(stated - built) <= tolerance * max(abs(stated), abs(built)):
            refuse("V-REPORT-2", REPORT, f"{place} is {stated}, rebuilt {built}")
    elif stated != built:
        shown = str(stated)[:80]
        refuse("V-REPORT-2", REPORT, f"{place} is {shown!r}, rebuilt {built!r}")


def _date(seconds: int) -> str:
    when = datetime.fromtimestamp(min(seconds, _LAST_SECOND), UTC)
    return when.strftime("%Y-%m-%dT%H:%M:%SZ")


class _Builder:
    def __init__(
        self, log: Log, head: bytes, session: Session, ledgers: list[Ledger]
    ) -> None:
        self._log, self._head, self._session = log, head, session
        self._plan = session.plan
        self._ledgers = ledgers
        self._start = log.start.body
        self._rounds = [a.end for a in log.attempts if a.end and a.opened]
        self._failures = [a.end for a in log.attempts if a.end and not a.opened]
        self._ours = {one.client: one.of_run(self._plan) for one in ledgers}
        opened = {end.body[0] for end in self._rounds}
        failed = {end.body[0] for end in self._failures}
        self._skipped = sorted(failed - opened)

    def build(self) -> dict[str, Any]:
        return {
            **self._what(),
            "threat_model": self._threats(),
            **self._counted(),
            "mechanism": self._mechanism(),
            **self._numbers(),
            **self._books(),
            "claims": [self._claim()],
            "not_claimed": _NOT_CLAIMED,
            "not_protected": _NOT_PROTECTED,
            "conformance": [],
            "mutation": None,
            "audit": [],
            "exceptions": self._exceptions(),
            "epsilon_over_rounds": {
                one.client: self._over_rounds(one) for one in self._ledgers
            },
            "rounds": [self._round(end) for end in self._rounds],
            "failures": [
                {
                    "round": end.body[0],
                    "attempt": end.body[1],
                    "reason": end.body[2],
                    "culprit": end.body[3] or None,
                }
                for end in self._failures
            ],
            "skipped_rounds": self._skipped,
            "transcript_head": self._head.hex(),
        }

    # FIELDS.md, 3.1 and 3.2.

    def _what(self) -> dict[str, Any]:
        plan, start = self._plan, self._start
        last = self._rounds[-1].body[8] if self._rounds else start[6]
        return {
            "schema_version": "secure-fl/report/2",
            "report_id": digest("secure-fl/report/2 id", self._head).hex(),
            "tool": _tool(start[3]),
            "dates": self._dates(),
            "simulation": start[4] == 1,
            "insecure": start[5] == 1,
            "plan": {
                "name": plan.name,
                "hash": plan.hash.hex(),
                "run_id": self._log.run_id.hex(),
                "schema": "secure-fl/plan/1",
                "rounds": plan.rounds,
                "spare": plan.spare,
                "max_attempts": plan.max_attempts,
            },
            "subject": {
                "kind": plan.model_kind,
                "values": self._session.values,
                "start_hash": start[6].hex(),
                "model_hash": last.hex(),
                "frozen_state": None,
            },
            "parties": _parties(plan, start[2]),
        }

    def _dates(self) -> dict[str, Any]:
        times = []
        for ledger in self._ledgers:
            ours = {release.hash for release in self._ours[ledger.client]}
            times += [time for time, named in ledger.times if named in ours]
        first, last = (_date(min(times)), _date(max(times))) if times else (None, None)
        return {"first": first, "last": last}

    # FIELDS.md, 3.3.

    def _threats(self) -> dict[str, Any]:
        plan = self._plan
        plain, holder = plan.kind == "plain", plan.keyholder is not None
        sees = [
            ("aggregator", "updates" if plain else "sum"),
            ("clients", "models-and-own"),
            *([("keyholder", "keys")] if holder else []),
            ("network", "updates" if plain else "sealed"),
            ("recipients", "model"),
            *([("folder", "vectors")] if plan.keep_vectors else []),
        ]
        found: dict[str, Any] = {
            "protection": plan.kind,
            "security": "none" if plain else "computational",
            "max_colluding": plan.max_colluding,
            "threshold": plan.threshold,
            "min_clients": plan.min_clients,
            "adversaries": [{"who": who, "sees": what} for who, what in sees],
            "assumptions": self._assumptions(),
        }
        ring = self._session.packing
        if ring is not None:
            primes = 1 if ring.degree == 4096 else 2
            found["encryption"] = {
                "specification": CKKS,
                "keys": plan.keys,
                "ring_degree": ring.degree,
                "modulus_bits": ring.modulus_bits,
                "primes": primes,
                "security_bits": 192,
                "values_per_coefficient": ring.fields,
                "scale_bits": ring.scale_bits,
                "ciphertexts_per_update": ring.blocks,
            }
        return found

    def _assumptions(self) -> list[dict[str, str]]:
        plan = self._plan
        disjoint = plan.overlap == "disjoint"
        rows = [
            ("keyholder-together", "proved", plan.keyholder is not None),
            ("unchanged", "assumed", True),
            ("noise-first", "tested", True),
            ("trainer", "assumed", True),
            ("sampling-secret", "assumed", plan.rate < 1),
            ("csprng", "tested", not self._insecure),
            ("float-noise", "assumed", True),
            ("disjoint", "assumed", disjoint),
            ("overlap", "proved", not disjoint),
            ("ledger-kept", "assumed", self._start[7] == 1),
            ("no-earlier", "assumed", self._start[7] != 1),
        ]
        return [{"id": name, "evidence": why} for name, why, holds in rows if holds]

    @property
    def _insecure(self) -> bool:
        return bool(self._start[5] == 1)

    # FIELDS.md, 3.4.

    def _counted(self) -> dict[str, Any]:
        plan = self._plan
        disjoint = plan.overlap == "disjoint"
        return {
            "privacy_unit": {
                "kind": "record",
                "max_records_per_unit": 1,
                "max_parties_per_unit": 1 if disjoint else len(plan.members),
                "enforcement": "plan-statement",
            },
            "adjacency": "add-or-remove-one",
            "overlap": plan.overlap,
        }

    def _precision(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "word_bits": plan.word_bits,
            "step": r6(plan.step),
            "update_clip": r6(plan.clip),
        }

    def _mechanism(self) -> dict[str, Any]:
        plan = self._plan
        return {
            "type": "dp-sgd",
            "mode": "local",
            "clip_norm": r6(plan.clip_norm),
            "clip_scope": "flat",
            "noise_multiplier": r6(plan.noise),
            "sigma_abs": r6(plan.noise * plan.clip_norm),
            "normaliser": {m.name: r6(plan.rate * m.records) for m in plan.members},
            "local_steps": plan.local_steps,
            "noise_domain": "float",
            "precision": self._precision(),
            "nan_policy": "zero-or-charged",
            "empty_batch_policy": "noise-only",
        }

    def _numbers(self) -> dict[str, Any]:
        plan = self._plan
        encrypted = plan.kind == "ckks"
        masked = plan.kind == "masking" or (encrypted and plan.keys == "one-time")
        return {
            "sampling": {
                "scheme": "poisson",
                "rate": r6(plan.rate),
                "evidence": "plan-constant",
                "amplification": plan.rate < 1,
            },
            "numerics": {
                **self._precision(),
                "rounding": "stochastic",
                "place": "after-noise",
                "wrap": "impossible",
                "wrong_rounding_log2": -40 if encrypted else None,
            },
            "randomness": {
                "noise": "aes-ctr",
                "sampling": "aes-ctr",
                "keys": "seed" if self._insecure else "operating-system",
                "masks": "aes-256-ctr" if masked else "none",
                "encryption": "aes-256-ctr" if encrypted else "none",
                "seeded": self._insecure,
            },
        }

    # FIELDS.md, 3.5 and 3.6.

    def _books(self) -> dict[str, Any]:
        disjoint = self._plan.overlap == "disjoint"
        return {
            "releases": {
                name: [_release(release) for release in rows]
                for name, rows in self._ours.items()
            },
            "composition": {
                "within_client": "sequential",
                "across_clients": "parallel" if disjoint else "sequential",
                "lineage": self._plan.lineage,
                "ledgers_live_on": self._start[7] == 1,
                "hyperparameters": "not-charged",
                "stopping": "plan",
            },
            "ledgers": {
                one.client: {"head": one.head.hex(), "entries": one.entries}
                for one in self._ledgers
            },
            "accounting": {
                "primary": "PLD",
                "discretisation": {
                    "interval": 0.0001,
                    "adapted": True,
                    "bound": "upper",
                },
                "cross_checks": ["RDP", "RDP-integer-orders"],
                "adjacency": "add-or-remove-one",
                "known_answers": [dict(row) for row in known_answers()],
            },
        }

    # FIELDS.md, 3.7.

    def _claim(self) -> dict[str, Any]:
        plan = self._plan
        clients = {one.client: self._client(one) for one in self._ledgers}
        consortium = self._consortium(clients)
        bounded = not self._insecure and consortium["epsilon"] != "infinity"
        releases = plan.rounds + plan.spare
        many = 1 if plan.overlap == "disjoint" else len(plan.members)
        return {
            "id": "record-local",
            "unit": "record",
            "adjacency": "add-or-remove-one",
            "view": "record-local",
            "delta": r6(plan.delta),
            "limit": r6(plan.epsilon),
            "projected": self._epsilon(planned(plan, releases)),
            "projected_consortium": self._epsilon(planned(plan, releases * many)),
            "relies_on": self._assumptions(),
            "evidence": "proved" if bounded else "none",
            "not_protected": _NOT_PROTECTED,
            "clients": clients,
            "consortium": consortium,
        }

    def _epsilon(self, events: list[Event]) -> float | str:
        return num(epsilon(spent(events), self._plan.delta))

    def _client(self, ledger: Ledger) -> dict[str, Any]:
        charged = ledger.charged()
        run_id = self._plan.run_id
        ours = [release.event for release in charged if release.run_id == run_id]
        return {
            **figures([release.event for release in charged], self._plan.delta),
            "epsilon_this_run": self._epsilon(ours),
            "releases_charged": len(charged),
        }

    def _consortium(self, clients: dict[str, dict[str, Any]]) -> dict[str, Any]:
        if self._plan.overlap != "disjoint":
            releases = [r for one in self._ledgers for r in one.charged()]
            return figures([r.event for r in releases], self._plan.delta)
        first = next(iter(clients.values()))
        found = {}
        for name in first:
            if name not in ("epsilon_this_run", "releases_charged", "reasons"):
                found[name] = _largest([row[name] for row in clients.values()])
        reasons = {reason for row in clients.values() for reason in row["reasons"]}
        return {**found, "reasons": sorted(reasons)}

    # FIELDS.md, 3.8 and 3.9.

    def _exceptions(self) -> list[dict[str, Any]]:
        rows: list[tuple[int, str, str]] = []
        for end in self._failures:
            rows.append((end.body[0], "failed-attempt", end.body[3]))
        rows += [(number, "skipped-round", "") for number in self._skipped]
        for name, releases in self._ours.items():
            for release in releases:
                if not release.charged:
                    continue
                if release.event.noise is None:
                    rows.append((release.round, "unprotected-release", name))
                if release.state != "released":
                    rows.append((release.round, "charged-not-opened", name))
        return [
            {"kind": kind, "round": number, "client": name or None}
            for number, kind, name in sorted(rows)
        ]

    def _over_rounds(self, ledger: Ledger) -> list[dict[str, Any]]:
        charged = ledger.charged()
        found = []
        for end in self._rounds:
            number = end.body[0]
            events = [
                release.event
                for release in charged
                if release.run_id != self._plan.run_id or release.round <= number
            ]
            found.append({"round": number, "epsilon": self._epsilon(events)})
        return found

    def _round(self, end: Entry) -> dict[str, Any]:
        number, attempt, ctx, survivors, weight, words, clipped, _, model = end.body
        return {
            "round": number,
            "attempt": attempt,
            "survivors": survivors,
            "left_out": [n for n in self._plan.names if n not in survivors],
            "total_weight": weight,
            "clipped_coordinates": clipped,
            "words_hash": words.hex(),
            "context": ctx.hex(),
            "model_hash": model.hex(),
        }


def planned(plan: Plan, releases: int) -> list[Event]:
    """The events of so many of the plan's releases (SPEC.md, 3.4)."""
    return [Event(plan.noise, plan.rate, plan.local_steps * releases)]


def _tool(text: str) -> dict[str, Any]:
    unknown = {"name": text, "version": "", "libraries": {}}
    match = _TOOL.fullmatch(text)
    if match is None:
        return unknown
    name, version, rest = match.groups()
    rows = [row.split(" ") for row in rest.split(", ")]
    libraries: dict[str, str] = dict(rows)
    if len(libraries) != len(rows):
        return unknown
    return {"name": name, "version": version, "libraries": libraries}


def _parties(plan: Plan, aggregator: bytes) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = [
        {
            "name": member.name,
            "role": "client",
            "nominal_records": member.records,
            "weight": member.weight,
            "public_key": key_text(member.key),
        }
        for member in plan.members
    ]
    rows.append({"role": "aggregator", "public_key": key_text(aggregator)})
    if plan.keyholder is not None:
        rows.append({"role": "keyholder", "public_key": key_text(plan.keyholder)})
    return rows


def _release(release: Release) -> dict[str, Any]:
    return {
        "round": release.round,
        "attempt": release.attempt,
        "state": release.state,
        "event": _event(release.event),
        "charged": release.charged,
        "entry_hash": release.hash.hex(),
        "time": _date(release.time),
    }


def _event(event: Event) -> dict[str, Any]:
    if event.noise is None:
        return {"mechanism": "none", "reason": event.reason}
    found: dict[str, Any] = {"mechanism": "gaussian"}
    if event.rate is not None:
        found = {"mechanism": "poisson-gaussian", "rate": r6(event.rate)}
    found["noise_multiplier"] = r6(event.noise)
    return found if event.count is None else {**found, "count": event.count}


def _largest(values: list[Any]) -> Any:
    """Entry by entry the largest; `infinity` is larger than every number."""
    first = values[0]
    if isinstance(first, dict):
        return {name: _largest([value[name] for value in values]) for name in first}
    if isinstance(first, list):
        return [_largest(list(rows)) for rows in zip(*values, strict=True)]
    return "infinity" if "infinity" in values else max(values)
