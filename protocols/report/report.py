# SPDX-License-Identifier: Apache-2.0
"""report.json, built anew and compared (SPEC.md, section 10; FIELDS.md)."""

import re
from datetime import UTC, datetime
from typing import Any

from canonical import Malformed, digest, key_text, refuse
from claims import NOT_PROTECTED, assumptions, claims, not_claimed
from context import CKKS, Session
from costs import spent
from events import DISCRETE_GAUSSIAN, SKELLAM, AnyEvent, Sum
from figures import Contradiction, epsilon, known_answers, num, r6
from files import REPORT, read_json
from ledgers import Ledger, Release
from method import method
from plan import Plan
from transcript import Entry, Log

_LAST_SECOND = 253402300799
_WORD = r"[0-9A-Za-z][0-9A-Za-z.+_!-]*"
_TOOL = re.compile(rf"({_WORD}) ({_WORD}) \(({_WORD} {_WORD}(?:, {_WORD} {_WORD})*)\)")
# Fields read off the far tail of a curve, where machines agree less.
_ROUGH = {"mu_gdp", "tpr_at_fpr", "trade_off", "posterior", "advantage"}
_ROUGH |= {"profile", "group"}
_DISCRETISATION = {"interval": 0.0001, "adapted": True, "bound": "upper"}


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
            **method(self._plan, self._start[5] == 1),
            **self._books(),
            "claims": claims(self._plan, self._start, self._ledgers),
            "not_claimed": not_claimed(self._plan),
            "not_protected": NOT_PROTECTED,
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
            "assumptions": assumptions(plan, self._start),
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

    # FIELDS.md, 3.5 and 3.6.

    def _books(self) -> dict[str, Any]:
        disjoint = self._plan.overlap == "disjoint"
        charged = [r.event for one in self._ledgers for r in one.charged()]
        kinds = {event.kind for event in charged if isinstance(event, Sum)}
        by_rdp_alone = kinds == {DISCRETE_GAUSSIAN}
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
                "primary": _primary(kinds),
                "discretisation": None if by_rdp_alone else dict(_DISCRETISATION),
                "cross_checks": [] if kinds else ["RDP", "RDP-integer-orders"],
                "adjacency": "add-or-remove-one",
                "known_answers": [dict(row) for row in known_answers(bool(kinds))],
            },
        }

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
                if not release.event.private:
                    rows.append((release.round, "unprotected-release", name))
                if release.state != "released":
                    rows.append((release.round, "charged-not-opened", name))
        return [
            {"kind": kind, "round": number, "client": name or None}
            for number, kind, name in sorted(rows)
        ]

    def _over_rounds(self, ledger: Ledger) -> list[dict[str, Any]]:
        view = self._plan.view
        charged = [(r, r.event.seen(view)) for r in ledger.charged()]
        found = []
        for end in self._rounds:
            number = end.body[0]
            events = [
                event
                for release, event in charged
                if release.run_id != self._plan.run_id or release.round <= number
            ]
            spends = epsilon(spent(events), self._plan.delta)
            found.append({"round": number, "epsilon": num(spends)})
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


def _primary(kinds: set[str]) -> str:
    """How epsilon is computed where sums have noise of these kinds."""
    if SKELLAM in kinds:
        return "PLD-or-RDP"
    return "RDP" if kinds else "PLD"


def _event(event: AnyEvent) -> dict[str, Any]:
    if isinstance(event, Sum):
        found: dict[str, Any] = {
            "mechanism": event.kind,
            "rate": r6(event.rate),
            "shares": event.shares,
            "colluding": event.colluding,
            "l2": r6(event.l2),
            "values": event.values,
        }
        scale = "variance" if event.kind == SKELLAM else "deviation"
        return {**found, scale: r6(event.scale)}
    if event.noise is None:
        return {"mechanism": "none", "reason": event.reason}
    found = {"mechanism": "gaussian"}
    if event.rate is not None:
        found = {"mechanism": "poisson-gaussian", "rate": r6(event.rate)}
    found["noise_multiplier"] = r6(event.noise)
    return found if event.count is None else {**found, "count": event.count}
