# SPDX-License-Identifier: Apache-2.0
"""What a transcript proves: its order, its signatures, its rounds.

The transcript is read as a sequence with one grammar::

    start, one endorsement per member,
    attempts: messages, then `failure` or (`round`, signatures over it),
    artefacts, signatures over it

and every message of an attempt is checked as the party that received it had to.  What
is found wrong here is in the transcript, whoever put it there.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final, NoReturn, final

from .. import ckks
from ..errors import ProtocolError, SecureFLError, VerificationError
from ..plan import Plan, Session, verify_endorsement
from ..transcript import Entry, Transcript, check_signature
from .attempts import Attempt, Reader, read_attempt
from .ckks_attempts import KeyholderReader, OneTimeReader
from .folder import TRANSCRIPT
from .masking_attempts import MaskingReader, PlainReader

__all__ = ["Log", "Opening", "check_attempts", "read_log"]

# Attempts are numbered in order, with gaps where a process was killed; a run has a few.
MAX_ATTEMPT: Final = 1000


@final
@dataclass(frozen=True, slots=True)
class Opening:
    """One attempt as logged: its messages, and the entry that ended it."""

    round_index: int
    attempt: int
    messages: tuple[Entry, ...]
    end: Entry

    @property
    def opened(self) -> bool:
        return self.end.kind == "round"

    @property
    def place(self) -> str:
        return f"round {self.round_index}, attempt {self.attempt}"


@final
@dataclass(frozen=True, slots=True)
class Log:
    """A transcript whose order and signatures hold."""

    transcript: Transcript
    start: Entry
    attempts: tuple[Opening, ...]
    artefacts: Entry

    @property
    def rounds(self) -> list[Entry]:
        return [a.end for a in self.attempts if a.opened]


def fail(message: str, *, hint: str = "") -> NoReturn:
    raise VerificationError(message, file=TRANSCRIPT, hint=hint)


@final
class _Cursor:
    """Entries one after the other."""

    def __init__(self, entries: list[Entry]) -> None:
        self._entries = entries
        self._at = 0

    @property
    def kind(self) -> str:
        """Kind of the next entry, or empty at the end."""
        return self._entries[self._at].kind if self._at < len(self._entries) else ""

    @property
    def next(self) -> Entry:
        return self._entries[self._at]

    def take(self, *kinds: str) -> Entry:
        if self.kind not in kinds:
            wanted = " or ".join(kinds)
            fail(f"entry {self._at} is {self.kind or 'missing'}, not {wanted}")
        entry = self._entries[self._at]
        self._at += 1
        return entry


def read_log(plan: Plan, transcript: Transcript) -> Log:
    """Check order, endorsements and every signature.  Raises VerificationError."""
    cursor = _Cursor(transcript.entries)
    start = cursor.take("start")
    _check_start(plan, start)
    _check_endorsements(plan, cursor)
    attempts: list[Opening] = []
    survived: set[str] = set()
    while cursor.kind in ("message", "failure", "round"):
        opening = _read_opening(cursor)
        _check_place(attempts[-1] if attempts else None, opening)
        attempts.append(opening)
        if opening.opened:
            survivors = _survivors(plan, opening.end)
            _check_signatures(plan, cursor, opening.end, may=survivors, must=[])
            survived.update(survivors)
    if not attempts or attempts[-1].round_index != plan.rounds.count - 1:
        fail(
            f"the log does not reach the last of the plan's {plan.rounds.count} rounds",
            hint="an unfinished run is not verified; continue it with --resume",
        )
    rounds = [a.end for a in attempts if a.opened]
    if not rounds:
        fail("no round was opened")
    artefacts = cursor.take("artefacts")
    signers = [name for name in plan.names if name in survived]
    _check_signatures(plan, cursor, artefacts, may=signers, must=signers)
    if cursor.kind:
        fail(f"something follows after the last signature: {cursor.kind}")
    return Log(transcript, start, tuple(attempts), artefacts)


def _check_start(plan: Plan, start: Entry) -> None:
    if start.bytes_(1) != plan.run_id:
        fail("the start names another run than the plan")
    if start.bytes_(2) != plan.aggregator_key:
        fail("the start names another aggregator's key than the plan")
    if any(start.integer(field) not in (0, 1) for field in (4, 5, 7)):
        fail("the flags of the start are neither 0 nor 1")
    if plan.protection.kind == "plain" and not start.integer(4):
        fail("protection `plain` is for simulations only")


def _check_endorsements(plan: Plan, cursor: _Cursor) -> None:
    seen: list[str] = []
    while cursor.kind == "endorsement":
        entry = cursor.take("endorsement")
        name = entry.text(0)
        if name in seen or name not in plan.names:
            fail(f"an endorsement too many, of {name[:40]!r}")
        try:
            verify_endorsement(plan, name, entry.bytes_(1))
        except SecureFLError as error:
            fail(str(error))
        seen.append(name)
    missing = [name for name in plan.names if name not in seen]
    if missing:
        fail(f"no endorsement of the plan by {', '.join(missing)}")


def _read_opening(cursor: _Cursor) -> Opening:
    """The messages of one attempt, and how it ended."""
    first = cursor.next
    place = (first.integer(0), first.integer(1))
    got: list[Entry] = []
    while cursor.kind == "message":
        entry = cursor.next
        if (entry.integer(0), entry.integer(1)) != place:
            break
        got.append(cursor.take("message"))
    end = cursor.take("failure", "round")
    if (end.integer(0), end.integer(1)) != place:
        fail(f"entry {end.sequence} ends another attempt than the one before it")
    return Opening(*place, tuple(got), end)


def _check_place(last: Opening | None, this: Opening) -> None:
    """Rounds follow each other; attempts of one round only after a failure."""
    if this.attempt >= MAX_ATTEMPT:
        fail(f"attempt {this.attempt} of round {this.round_index} cannot be")
    expected = 0 if last is None else last.round_index + 1
    again = (
        last is not None
        and not last.opened
        and this.round_index == last.round_index
        and this.attempt > last.attempt
    )
    if this.round_index != expected and not again:
        fail(f"round {this.round_index} is repeated, or one before it is missing")


def _survivors(plan: Plan, entry: Entry) -> list[str]:
    names = [name for name in entry.rows(3) if isinstance(name, str)]
    if names != [n for n in plan.names if n in names] or len(names) != len(
        entry.rows(3)
    ):
        fail(f"the survivors of round {entry.integer(0)} are not members in order")
    return names


def _check_signatures(
    plan: Plan,
    cursor: _Cursor,
    entry: Entry,
    *,
    may: Collection[str],
    must: Collection[str],
) -> None:
    """Right behind ``entry``: the aggregator's, and members', each at most once."""
    what = (
        "the last entry" if entry.kind == "artefacts" else (f"round {entry.integer(0)}")
    )
    keys = {m.name: m.public_key for m in plan.roster.members}
    keys[""] = plan.aggregator_key
    left = ["", *may]
    while cursor.kind == "signature":
        signature = cursor.take("signature")
        signer = signature.text(0)
        who = signer[:40] or "the aggregator"
        if signer not in left:
            fail(f"a signature too many over {what}, of {who}")
        if signature.integer(1) != entry.sequence or not check_signature(
            keys[signer], entry.hash, signature.bytes_(2)
        ):
            fail(f"the signature of {who} over {what} does not hold")
        left.remove(signer)
    if missing := [name for name in left if not name or name in must]:
        names = ", ".join(name or "the aggregator" for name in missing)
        fail(f"{what} is not signed by {names}")


# -- rounds ----------------------------------------------------------------------------


def check_attempts(plan: Plan, log: Log, *, size: int) -> tuple[Attempt, ...]:
    """Check every message and every opened round.  Raises VerificationError.

    ``size`` is the number of values of the model, which every context depends on.
    """
    model = log.start.bytes_(6)
    out = []
    released: set[int] = set()
    excluded: set[str] = set()
    for opening in log.attempts:
        number = opening.round_index
        for entry in opening.messages:
            if entry.text(2) in excluded:
                fail(f"{opening.place}: {entry.text(2)} is back, and was found faulty")
        try:
            session = plan.session(
                round_index=number,
                attempt=opening.attempt,
                model_hash=model,
                size=size,
            )
            attempt = read_attempt(
                _reader(plan, session),
                opening.messages,
                log.transcript,
                opened=opening.opened,
            )
        except ProtocolError as error:
            fail(f"{opening.place}: {error}")
        if attempt.keys_released:
            if number in released:
                fail(f"the key holder released two sums of keys in round {number}")
            released.add(number)
        if opening.opened:
            _check_round(plan, opening.end, attempt, model, size=size)
            model = opening.end.bytes_(8)
        else:
            culprit = opening.end.text(3)
            if culprit not in attempt.culprits:
                fail(f"{opening.place}: its failure is blamed on the wrong client")
            if culprit and attempt.at_opening:
                excluded.add(culprit)
        out.append(attempt)
    return tuple(out)


def _reader(plan: Plan, session: Session) -> Reader:
    if isinstance(session, ckks.Session):
        if plan.has_keyholder:
            return KeyholderReader(
                session, aggregator=plan.aggregator_key, holder=plan.keyholder_key
            )
        return OneTimeReader(session, plan.key_session(session))
    if plan.protection.kind == "masking":
        return MaskingReader(session)
    return PlainReader(session)


def _check_round(
    plan: Plan, entry: Entry, attempt: Attempt, model: bytes, *, size: int
) -> None:
    number = entry.integer(0)
    names = _survivors(plan, entry)
    if entry.bytes_(2) != attempt.session.ctx:
        fail(f"round {number} is of another context than its plan and model give")
    if names != [i.client for i in attempt.inputs]:
        fail(f"round {number} opened another set than its messages agree on")
    if entry.integer(4) != sum(plan.member(name).weight for name in names):
        fail(f"round {number} holds another sum of weights than its plan gives")
    if entry.integer(6) > (0 if plan.distributed else len(names) * size):
        fail(f"round {number} counts more clipped values than its vectors have")
    if entry.bytes_(7) != model:
        fail(f"round {number} began from another model than the one before it left")
