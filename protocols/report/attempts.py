# SPDX-License-Identifier: Apache-2.0
"""The attempts of a run: their messages, and how they ended (SPEC.md, 4.5 to 4.11)."""

from dataclasses import dataclass, field

import messages as m
from canonical import Malformed
from context import Session
from machines import Holder, Machine, Masking, Message, Plain, refuse_log
from plan import HOLDER, Plan
from transcript import Attempt, Entry, Log, model_before


@dataclass
class Outcome:
    """What an attempt says to the ledgers, and to kept vectors.

    `withheld` has the hash of each withheld message, by sender.
    """

    attempt: Attempt
    ctx: bytes
    machine: Machine
    world: m.World
    withheld: dict[str, bytes] = field(default_factory=dict)
    claims: dict[str, bytes] = field(default_factory=dict)
    omitted: frozenset[str] = frozenset()

    @property
    def round(self) -> int:
        return self.attempt.round

    @property
    def number(self) -> int:
        return self.attempt.number

    @property
    def opened(self) -> bool:
        return self.attempt.opened


# Who sends which kind, and which kind is withheld.
_FROM_CLIENT = {
    "masking": {m.ADVERTISE, m.SEALED_SHARES, m.MASKED_INPUT, m.AGREEMENT, m.REVEAL},
    "plain": {m.MASKED_INPUT},
    "keyholder": {m.INPUT},
}
_FROM_AGGREGATOR = {
    "masking": {m.COHORT_KEYS, m.INBOX, m.STATEMENT, m.SIGNATURES},
    "plain": {m.PLAIN_REQUEST},
    "keyholder": {m.CALL, m.INVITATION, m.REQUEST},
}
_FROM_HOLDER = {m.HOLDER_KEY, m.RELEASE, m.REFUSAL}
_TO_HOLDER = {m.CALL, m.REQUEST}
_WITHHELD = {"masking": m.REVEAL, "plain": -1, "keyholder": m.REQUEST}


class _Reader:
    """Reads the messages of one attempt into its machine."""

    def __init__(self, session: Session, attempt: Attempt, model: bytes) -> None:
        plan = self._plan = session.plan
        self._attempt = attempt
        self.ctx = session.context(attempt.round, attempt.number, model)
        self._way = _way(plan)
        self.withheld: dict[str, bytes] = {}
        self._numbers = {name: i for i, name in enumerate(plan.names)}
        inner, key_box, packed = self.ctx, 0, 0
        self.machine: Machine
        if self._way == "plain":
            self.machine = Plain(plan, self.ctx)
        elif self._way == "keyholder" and session.packing is not None:
            degree = session.packing.degree
            key_box, packed = degree + 80, degree * session.key_bits // 8
            self.machine = Holder(session, attempt, self.ctx, model)
        else:
            if plan.kind == "ckks":
                inner = session.keys_context(attempt.round, attempt.number, self.ctx)
            self.machine = Masking(plan, inner, plan.kind == "ckks")
        self.world = m.World(inner, len(plan.members), key_box, packed)

    def read(self) -> None:
        last = -1
        sent: set[tuple[int, str, str]] = set()
        for entry in self._attempt.messages:
            sender, receiver = entry.body[2:4]
            self._check_parties(sender, receiver)
            kind = self._kind(entry)
            own = (kind, sender, "" if sender else receiver)
            if kind < last or own in sent:
                refuse_log("V-MSG-3", f"entry {entry.sequence} is out of its turn")
            last = kind
            sent.add(own)
            self._check_way(kind, entry)
            self.machine.take(self._parse(kind, entry))

    def _check_parties(self, sender: str, receiver: str) -> None:
        known = {"", *self._numbers}
        if self._plan.keyholder is not None:
            known.add(HOLDER)
        for name in (sender, receiver):
            if name not in known:
                refuse_log("V-MSG-1", f"{name!r} is nobody of this run")

    def _kind(self, entry: Entry) -> int:
        kind = _WITHHELD[self._way]
        if entry.message is None:
            if kind < 0:
                refuse_log("V-MSG-2", f"entry {entry.sequence}: nothing to be withheld")
            return kind
        try:
            found = m.kind_of(entry.message)
        except Malformed as problem:
            refuse_log("V-MSG-2", f"entry {entry.sequence}: {problem}")
        if found == kind:
            refuse_log("V-MSG-2", f"entry {entry.sequence} should be withheld")
        return found

    def _check_way(self, kind: int, entry: Entry) -> None:
        sender, receiver = entry.body[2:4]
        if not sender:
            allowed = kind in _FROM_AGGREGATOR[self._way]
            allowed = allowed and (kind in _TO_HOLDER) == (receiver == HOLDER)
        elif sender == HOLDER:
            allowed = kind in _FROM_HOLDER
        else:
            allowed = kind in _FROM_CLIENT[self._way]
        if not allowed:
            who = sender or "the aggregator"
            refuse_log("V-MSG-4", f"entry {entry.sequence}: {who} does not send that")

    def _parse(self, kind: int, entry: Entry) -> Message:
        sender, receiver, hashed = entry.body[2:5]
        if entry.message is None:
            self.withheld[sender] = hashed
            return Message(kind, sender, receiver, [])
        try:
            parts = m.parse(entry.message, kind, self.world)
        except Malformed as problem:
            check = "V-PLAIN-1" if kind == m.PLAIN_REQUEST else "V-MSG-5"
            refuse_log(check, f"entry {entry.sequence}: {problem}")
        if sender in self._numbers and parts[0] != self._numbers[sender]:
            refuse_log("V-MSG-6", f"entry {entry.sequence} speaks for another client")
        return Message(kind, sender, receiver, parts)


def _way(plan: Plan) -> str:
    if plan.kind == "ckks":
        return "keyholder" if plan.keys == "keyholder" else "masking"
    return plan.kind


def check_attempts(log: Log, session: Session) -> list[Outcome]:
    """Every message of every attempt, and how each ended."""
    plan = session.plan
    models = model_before(log)
    found = []
    released: set[int] = set()
    out: set[str] = set()
    for attempt in log.attempts:
        model = models[attempt.round, attempt.number]
        reader = _Reader(session, attempt, model)
        reader.read()
        machine = reader.machine
        if attempt.opened:
            machine.finish()
        senders = {entry.body[2] for entry in attempt.messages}
        if senders & out:
            who = sorted(senders & out)[0]
            refuse_log("V-MSG-7", f"{who} is out, and sends in round {attempt.round}")
        if isinstance(machine, Holder) and machine.released:
            if attempt.round in released:
                refuse_log("V-CKKS-9", f"round {attempt.round} was released twice")
            released.add(attempt.round)
        claims = machine.claims()
        if attempt.end is not None and attempt.opened:
            _check_round(attempt.end, session, reader.ctx, claims, model)
        elif attempt.end is not None:
            out |= _check_failure(attempt.end, plan, machine)
        outcome = Outcome(
            attempt,
            reader.ctx,
            machine,
            reader.world,
            reader.withheld,
            {plan.names[client]: claim for client, claim in claims.items()},
            frozenset(plan.names[client] for client in machine.omitted()),
        )
        found.append(outcome)
    return found


def _check_round(
    end: Entry, session: Session, ctx: bytes, claims: dict[int, bytes], model: bytes
) -> None:
    plan = session.plan
    round_, _, stated, survivors, weight, _, clipped, before, _ = end.body
    if stated != ctx:
        refuse_log("V-ROUND-1", f"round {round_} names another context")
    if survivors != [plan.names[client] for client in sorted(claims)]:
        refuse_log("V-ROUND-2", f"round {round_} names other survivors")
    if weight != sum(plan.members[client].weight for client in claims):
        refuse_log("V-ROUND-3", f"round {round_} has other weights than the plan")
    if before != model:
        refuse_log("V-ROUND-4", f"round {round_} began from another model")
    most = len(claims) * session.values if plan.grid is None else 0
    if clipped > most:
        refuse_log("V-ROUND-5", f"round {round_} counts more clippings than it may")


def _check_failure(end: Entry, plan: Plan, machine: Machine) -> set[str]:
    """The culprit, if it is out from now on."""
    name = end.body[3]
    if name and name not in plan.names:
        refuse_log("V-LOG-12", f"{name!r} is blamed, and is no member")
    client = plan.names.index(name) if name else None
    if not machine.may_blame(client):
        refuse_log("V-LOG-12", f"a failure of round {end.body[0]} blames {name!r}")
    return {name} if name and machine.opening() else set()
