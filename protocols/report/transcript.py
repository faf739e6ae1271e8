# SPDX-License-Identifier: Apache-2.0
"""The log of a run: its chain, its order and its signatures (SPEC.md, section 4)."""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any, NoReturn

from canonical import (
    Malformed,
    decode,
    digest,
    fields,
    integer,
    parts,
    refuse,
    signature,
    signed,
    sized,
    text,
)
from plan import Plan

FILE = "transcript.cbor"
_FORMAT = "secure-fl/transcript/2"
_KINDS: dict[str, tuple[type, ...]] = {
    "start": (bytes, bytes, bytes, str, int, int, bytes, int),
    "endorsement": (str, bytes),
    "message": (int, int, str, str, bytes, int),
    "failure": (int, int, str, str),
    "round": (int, int, bytes, list, int, bytes, int, bytes, bytes),
    "artefacts": (list,),
    "signature": (str, int, bytes),
}
_HASHES = {"start": (0, 2, 6), "message": (4,), "round": (2, 5, 7, 8)}
_SIGNATURES = {"endorsement": (1,), "signature": (2,)}
_MOST_ATTEMPTS = 1000


@dataclass(frozen=True)
class Entry:
    """One entry, with the message beside it: None where there is none."""

    sequence: int
    before: bytes
    kind: str
    body: list[Any]
    hash: bytes
    message: bytes | None = None


@dataclass
class Attempt:
    """One attempt at a round: its messages, and the entry that ended it."""

    round: int
    number: int
    messages: list[Entry] = field(default_factory=list)
    end: Entry | None = None

    @property
    def opened(self) -> bool:
        return self.end is not None and self.end.kind == "round"


@dataclass(frozen=True)
class Log:
    run_id: bytes
    start: Entry
    attempts: list[Attempt]
    artefacts: Entry

    @property
    def rounds(self) -> list[Attempt]:
        return [attempt for attempt in self.attempts if attempt.opened]


def _refuse(check: str, what: str) -> NoReturn:
    refuse(check, FILE, what)


def read_entries(data: bytes) -> tuple[bytes, list[Entry]]:
    """The run id and the entries, in one chain, each with its message."""
    try:
        name, run_id, rows, messages = parts(decode(data), str, bytes, list, list)
        sized(run_id, 16)
        strings = all(isinstance(row, bytes) for row in rows + messages)
        if name != _FORMAT or not strings:
            raise Malformed(f"it is no {_FORMAT} but {name[:80]!r}, or of other parts")
    except Malformed as problem:
        _refuse("V-LOG-1", str(problem))
    before = digest(_FORMAT + " genesis", run_id)
    found = []
    for place, row in enumerate(rows):
        try:
            entry = _entry(row)
        except Malformed as problem:
            _refuse("V-LOG-2", f"entry {place}: {problem}")
        if entry.sequence != place or entry.before != before:
            _refuse("V-LOG-2", f"the chain breaks at entry {place}")
        before = entry.hash
        found.append(entry)
    return run_id, _with_messages(found, messages)


def _with_messages(entries: list[Entry], messages: list[bytes]) -> list[Entry]:
    """Each message in its entry, if it is the one whose hash stands there."""
    left = messages[::-1]
    found = []
    for entry in entries:
        if entry.kind == "message" and entry.body[5] == 0:
            if not left:
                _refuse("V-LOG-13", f"the message of entry {entry.sequence} is missing")
            message = left.pop()
            if hashlib.sha256(message).digest() != entry.body[4]:
                _refuse("V-LOG-13", f"entry {entry.sequence} is of another message")
            entry = replace(entry, message=message)
        found.append(entry)
    if left:
        _refuse("V-LOG-13", f"{len(left)} messages are left over")
    return found


def _entry(row: bytes) -> Entry:
    sequence, before, kind, body = fields(decode(row), int, bytes, str, dict)
    integer(sequence)
    sized(before)
    if kind not in _KINDS:
        raise Malformed("it is of no known kind")
    values = fields(body, *_KINDS[kind])
    for place, value in enumerate(values):
        if isinstance(value, int):
            integer(value)
        elif isinstance(value, str):
            text(value)
        elif place in _HASHES.get(kind, ()):
            sized(value)
        elif place in _SIGNATURES.get(kind, ()):
            signature(value)
    if kind == "start":
        sized(values[1], 16)
    if kind == "message" and values[5] > 1:
        raise Malformed("its flag is neither 0 nor 1")
    if kind == "round":
        for name in values[3]:
            text(name)
    return Entry(sequence, before, kind, values, digest(_FORMAT + " entry", row))


def check_start(entries: list[Entry]) -> Entry:
    if not entries or entries[0].kind != "start":
        refuse("V-LOG-3", FILE, "the first entry is no start")
    return entries[0]


def read_log(run_id: bytes, entries: list[Entry], plan: Plan) -> Log:
    """The log, in its grammar, with every signature that stands in it."""
    return _Reader(run_id, entries, plan).read()


class _Reader:
    """Reads the entries once, from the first to the last."""

    def __init__(self, run_id: bytes, entries: list[Entry], plan: Plan) -> None:
        self._run_id, self._entries, self._plan = run_id, entries, plan
        self._at = 0
        self._keys = {member.name: member.key for member in plan.members}

    def _peek(self) -> str:
        """The next entry's kind; empty at the end."""
        if self._at < len(self._entries):
            return self._entries[self._at].kind
        return ""

    def _next(self) -> Entry:
        self._at += 1
        return self._entries[self._at - 1]

    def read(self) -> Log:
        start = self._next()
        self._check_start(start)
        self._endorsements()
        attempts: list[Attempt] = []
        while self._peek() in ("message", "failure", "round"):
            attempts.append(self._attempt(attempts))
        if self._peek() not in ("artefacts", ""):
            _refuse("V-LOG-6", f"entry {self._at} cannot be a {self._peek()}")
        if not attempts or attempts[-1].round != self._plan.rounds - 1:
            _refuse("V-LOG-10", "it does not reach the last round of the plan")
        opened = [a.end for a in attempts if a.opened and a.end is not None]
        if not opened:
            _refuse("V-LOG-10", "no round was opened")
        if self._peek() != "artefacts":
            _refuse("V-LOG-6", "it ends before its artefacts")
        artefacts = self._next()
        in_a_sum = {name for end in opened for name in end.body[3]}
        signers = [name for name in self._keys if name in in_a_sum]
        self._signatures(artefacts, signers, signers, "V-SIGN-3")
        if self._peek():
            _refuse("V-LOG-11", f"entry {self._at} follows the last signature")
        return Log(self._run_id, start, attempts, artefacts)

    def _check_start(self, start: Entry) -> None:
        plan_hash, run_id, aggregator, _, simulation, seeded, _, live_on = start.body
        plan = self._plan
        if (plan_hash, run_id, aggregator) != (plan.hash, plan.run_id, plan.aggregator):
            _refuse("V-LOG-5", "the start names another plan, run or aggregator")
        if max(simulation, seeded, live_on) > 1:
            _refuse("V-LOG-5", "a flag of the start is neither 0 nor 1")
        if plan.kind == "plain" and not simulation:
            _refuse("V-LOG-5", "updates were plain, outside a simulation")

    def _endorsements(self) -> None:
        missing = dict(self._keys)
        while self._peek() == "endorsement":
            name, made = self._next().body
            key = missing.pop(name, None)
            if key is None:
                refuse("V-SIGN-1", FILE, f"{name!r} endorses twice, or is no member")
            label = "secure-fl/plan/1 endorsement"
            if not signed(key, made, label, self._plan.hash, name):
                _refuse("V-SIGN-1", f"the endorsement of {name} does not hold")
        if missing:
            _refuse("V-SIGN-1", f"{next(iter(missing))} has not endorsed the plan")

    def _attempt(self, earlier: list[Attempt]) -> Attempt:
        first = self._entries[self._at].body
        attempt = Attempt(first[0], first[1])
        self._check_place(attempt, earlier[-1] if earlier else None)
        while attempt.end is None:
            if self._peek() not in ("message", "failure", "round"):
                where = f"attempt {attempt.number} of round {attempt.round}"
                _refuse("V-LOG-6", f"{where} has no end")
            entry = self._next()
            if entry.body[:2] != [attempt.round, attempt.number]:
                _refuse("V-LOG-7", f"entry {entry.sequence} is of another attempt")
            if entry.kind == "message":
                attempt.messages.append(entry)
            else:
                attempt.end = entry
        if attempt.end.kind == "round":
            survivors = attempt.end.body[3]
            if survivors != [name for name in self._keys if name in set(survivors)]:
                _refuse("V-LOG-9", "survivors are not members in roster order")
            self._signatures(attempt.end, survivors, [], "V-SIGN-2")
        return attempt

    def _check_place(self, attempt: Attempt, last: Attempt | None) -> None:
        if attempt.number >= _MOST_ATTEMPTS:
            _refuse("V-LOG-7", f"an attempt has the number {attempt.number}")
        if attempt.round >= self._plan.rounds:
            _refuse("V-LOG-8", f"the plan has no round {attempt.round}")
        if last is None:
            follows = attempt.round == 0
        elif attempt.round == last.round:
            follows = not last.opened
            if follows and attempt.number <= last.number:
                _refuse("V-LOG-7", f"round {attempt.round}: attempts do not count up")
        else:
            follows = attempt.round == last.round + 1
        if not follows:
            _refuse("V-LOG-8", f"round {attempt.round} is out of turn")

    def _signatures(
        self, over: Entry, allowed: Iterable[str], needed: Iterable[str], check: str
    ) -> None:
        missing = {"": self._plan.aggregator}
        missing |= {name: self._keys[name] for name in allowed}
        while self._peek() == "signature":
            signer, sequence, made = self._next().body
            key = missing.pop(signer, None)
            who = signer or "the aggregator"
            if key is None:
                refuse(check, FILE, f"{who!r} signs entry {over.sequence} unasked")
            label = "secure-fl/transcript/2 head"
            if sequence != over.sequence or not signed(key, made, label, over.hash):
                _refuse(check, f"the signature of {who} over {over.sequence} is wrong")
        for signer in ("", *needed):
            if signer in missing:
                who = signer or "the aggregator"
                _refuse(check, f"{who} has not signed entry {over.sequence}")


def model_before(log: Log) -> dict[tuple[int, int], bytes]:
    """For each attempt of the log the hash of the model that it began from."""
    found = {}
    model = log.start.body[6]
    for attempt in log.attempts:
        found[attempt.round, attempt.number] = model
        if attempt.opened and attempt.end is not None:
            model = attempt.end.body[8]
    return found
