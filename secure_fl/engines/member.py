# SPDX-License-Identifier: Apache-2.0
"""A member, or the key holder, as it answers an aggregator across machines.

One parcel in, one parcel out, each perhaps in a process of its own, several at once:
all that lasts is in its home.  It does what is asked only where the request is signed
by the aggregator of a plan that it has joined, for this very run, member and node, and
where its own policy allows that.  Whatever a request says, charges are the ledger's,
and no message of the protocol is answered twice.
"""

from __future__ import annotations

import contextlib
import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Final, Protocol, final

from ..errors import (
    BudgetExceeded,
    ConsentRefused,
    EngineError,
    FaultyAggregator,
    PlanError,
    ProtocolError,
    SecureFLError,
    UsageError,
)
from ..identity import Identity
from ..model import GlobalModel
from ..plan import Plan, verify_endorsement
from ..privacy import Ledger
from ..randomness import RandomSource
from ..round import ParkedParticipant
from ..round.holder import ParkedKeyHolder
from ..transcript import Entry, genesis, read_entries
from .home import Joined, MemberHome, MemberSettings, check_budget
from .requests import (
    Action,
    Begin,
    Conclude,
    Countersign,
    Export,
    Failure,
    Hello,
    Message,
    Open,
    Parcel,
    Release,
    Reply,
    Request,
    Train,
    TrainEarly,
    hello_statement,
    printable,
)

if TYPE_CHECKING:
    from .local import Trainer

__all__ = ["Member"]

_log = logging.getLogger("secure_fl")
_SIMULATION: Final = 4  # fields of the log's first entry: see transcript.BODIES
_START: Final = 6
_REASON: Final = 200  # characters of what a library says of a model


@final
class Member:
    """Answers requests for everything that was joined in ``home``."""

    def __init__(
        self,
        home: MemberHome,
        trainer: Callable[[Plan, MemberSettings], Trainer],
        *,
        random: RandomSource,
        now: Callable[[], int],
        behind: Callable[[Callable[[], None]], None] | None = None,
    ) -> None:
        """``trainer`` is called only where an update is needed: it may read data.

        ``behind`` runs what it is given behind the reply, in a process of its own;
        without it nothing is trained early.
        """
        self._behind = behind
        self._home = home
        self._trainer = trainer
        self._random = random
        self._now = now

    def handle(self, parcel: Parcel, *, node: int) -> Parcel:
        """Answer one request.  ``node``: the number that the network has given us.

        Never raises for what comes from outside.  The reply says why an action failed
        as far as the aggregator may know it; the whole reason is logged here.
        """
        at = 0
        pieces: list[tuple[int, bytes]] = []
        opened: Action | None = None
        early: Train | None = None
        try:
            request, signature = Request.of(parcel)
            joined = self._joined(request)
            _check_request(request, signature, joined, node)
            with contextlib.ExitStack() as stack:
                party = self._party(joined, request, stack)
                for at, action in enumerate(request.actions):
                    if isinstance(action, TrainEarly):
                        place = action.round_index, action.attempt
                        # Opened just now, which happens once: so is this begun once.
                        if joined.plan.rounds.train_early and opened == Open(*place):
                            early = Train(*place)
                        continue
                    for piece in party.act(action):
                        pieces.append((at, piece))  # before one fails, it has these
                    opened = action if isinstance(action, Open) else opened
            if early is not None:  # with no database open, which no child may inherit
                self._train_behind(joined, request, early)
        except Exception as error:
            ours = isinstance(error, SecureFLError)
            _log.warning("a request was not carried out: %s", error, exc_info=not ours)
            return Reply(tuple(pieces), Failure.of(at, error)).to_parcel()
        return Reply(tuple(pieces)).to_parcel()

    def _train_behind(self, joined: Joined, request: Request, train: Train) -> None:
        """Over files that it opens itself: nothing of this process is shared."""

        def work() -> None:
            try:
                with contextlib.ExitStack() as stack:
                    for _ in self._party(joined, request, stack).act(train):
                        pass
            except Exception as error:  # it is asked again, and says so then
                _log.warning("no update was made early: %s", error)

        if self._behind is not None:
            self._behind(work)

    def _joined(self, request: Request) -> Joined:
        try:
            return self._home.find(request.plan_hash)
        except UsageError as error:  # for everybody to hear
            raise ProtocolError(f"{error.message}: {error.hint}") from None

    def _party(
        self, joined: Joined, request: Request, stack: contextlib.ExitStack
    ) -> _Party:
        """Who answers, over what is at home; ``stack`` closes it."""
        home, plan = self._home, joined.plan
        consent = home.consent()
        if consent is not None:
            consent.check_plan(plan)
        identity = joined.identity()
        keystore = home.keystore(self._random)
        stack.callback(keystore.close)
        if joined.holds_keys:
            holder = ParkedKeyHolder(plan, identity, keystore, self._random)
            return _HolderOfKeys(joined, identity, request, holder)
        ledger = home.ledger(identity.name)
        stack.callback(ledger.close)
        parked = ParkedParticipant(
            plan,
            identity,
            ledger=ledger,
            keystore=keystore,
            random=self._random,
            now=self._now,
            consent=consent,
        )
        return _Trainee(
            joined,
            identity,
            request,
            home=home,
            ledger=ledger,
            parked=parked,
            trainer=lambda: self._trainer(plan, joined.settings),
            random=self._random,
            now=self._now,
        )


def _check_request(
    request: Request, signature: bytes, joined: Joined, node: int
) -> None:
    """Raises ProtocolError unless the aggregator asks this of us."""
    plan = joined.plan
    if not request.is_signed(plan.aggregator_key, signature):
        raise ProtocolError("the request is not signed by the plan's aggregator")
    if request.run_id != plan.run_id:
        raise ProtocolError("the request is for another run than the plan's")
    if request.node != node:
        raise ProtocolError("the request is for another node")
    anybody = all(isinstance(action, Hello) for action in request.actions)
    if request.member != joined.settings.name and (request.member or not anybody):
        raise ProtocolError("the request is for another member")


class _Party(Protocol):
    """Does one action after the other, and gives its pieces."""

    def act(self, action: Action) -> Iterable[bytes]: ...


def _introduce(
    joined: Joined, identity: Identity, request: Request, nonce: bytes
) -> Iterable[bytes]:
    """The pieces of Hello: proof that this node is who it says, for this run."""
    label, parts = hello_statement(
        plan_hash=request.plan_hash,
        run_id=request.run_id,
        member=identity.name,
        node=request.node,
        nonce=nonce,
    )
    return identity.name.encode(), identity.sign(label, parts), joined.endorsement


@final
class _HolderOfKeys:
    """The key holder: says who it is, and answers calls and requests."""

    def __init__(
        self,
        joined: Joined,
        identity: Identity,
        request: Request,
        holder: ParkedKeyHolder,
    ) -> None:
        self._joined = joined
        self._identity = identity
        self._request = request
        self._holder = holder

    def act(self, action: Action) -> Iterable[bytes]:
        match action:
            case Hello(nonce):
                return _introduce(self._joined, self._identity, self._request, nonce)
            case Message(data):
                return (self._holder.handle(data),)
            case _:
                raise FaultyAggregator("a key holder is asked for what members do")


@final
class _Trainee:
    """A member in one run."""

    def __init__(
        self,
        joined: Joined,
        identity: Identity,
        request: Request,
        *,
        home: MemberHome,
        ledger: Ledger,
        parked: ParkedParticipant,
        trainer: Callable[[], Trainer],
        random: RandomSource,
        now: Callable[[], int],
    ) -> None:
        self._joined = joined
        self._plan = joined.plan
        self._identity = identity
        self._request = request
        self._run_id = request.run_id
        self._home = home
        self._ledger = ledger
        self._parked = parked
        self._trainer = trainer
        self._random = random
        self._now = now

    def act(self, action: Action) -> Iterable[bytes]:
        match action:
            case Hello(nonce):
                return _introduce(self._joined, self._identity, self._request, nonce)
            case Begin(entries):
                self._begin(entries)
                return ()
        start = self._start()  # nothing else comes before the run has begun
        match action:
            case Open(round_index, attempt):
                return self._open(start, round_index, attempt)
            case Train(round_index, attempt):
                self._train(round_index, attempt)
            case Message(data):
                return self._parked.handle(data)
            case Release(proof):
                self._release(proof)
            case Conclude(round_index, opened):
                self._conclude(round_index, opened=opened)
            case Countersign(first, entries):
                return (self._countersign(first, entries),)
            case Export():
                lineage = self._plan.lineage
                return (self._ledger.export(lineage, identity=self._identity),)
        return ()

    # -- the run ---------------------------------------------------------------------

    def _begin(self, data: Sequence[bytes]) -> None:
        """Join the run whose log begins like this; once more is harmless."""
        entries = read_entries(data, first=0)
        _check_beginning(self._plan, entries)
        if not self._home.begun(self._run_id):
            check_budget(self._plan, self._ledger)
            # Before the beginning is on disk: once it is, what is lost stays lost, and
            # no second log is signed from its start.
            with contextlib.suppress(UsageError):  # by a process that was cut off
                self._parked.join(log_head=genesis(self._run_id))
        if self._home.begin_run(self._run_id, data) != list(data):
            raise FaultyAggregator("the run has begun here with another log")
        _ = self._parked.session  # raises where it is lost

    def _start(self) -> Entry:
        """The log's first entry, as the run has begun here."""
        begun = self._home.begun(self._run_id)
        if not begun:
            raise ProtocolError("the run has not begun for this member")
        return read_entries(begun[:1], first=0)[0]

    # -- an attempt ------------------------------------------------------------------

    def _open(self, start: Entry, round_index: int, attempt: int) -> Sequence[bytes]:
        try:
            model = GlobalModel.from_bytes(self._request.body.data)
        except UsageError as error:
            raise FaultyAggregator(printable(error.message, _REASON)) from None
        shapes = self._home.model_shapes(self._run_id)
        if shapes is not None and model.shapes != shapes:
            raise FaultyAggregator("the model has other arrays than before")
        if round_index == 0:
            # Later ones are bound by the context, which all members have to share.
            wanted = self._plan.model.start_sha256
            found = hashlib.sha256(model.to_bytes()).hexdigest()
            if model.digest() != start.bytes_(_START) or wanted not in (None, found):
                raise FaultyAggregator("the first model is not the plan's start")
        first = self._parked.open(round_index, attempt, model)
        # Behind it: what is opened out of order leaves the current model in its place.
        self._home.keep_model(self._run_id, model)
        return first

    def _train(self, round_index: int, attempt: int) -> None:
        with self._home.training(self._run_id):  # one at a time: it may be under way
            self._train_alone(round_index, attempt)

    def _train_alone(self, round_index: int, attempt: int) -> None:
        parked = self._parked.only_in(round_index, attempt)
        session = parked.session
        if session is None or not parked.needs_update:
            return
        model = self._home.model(self._run_id)
        if model.digest() != session.model_hash:
            raise EngineError(
                "the model at home is not this attempt's",
                hint="the process that opened the attempt was cut off: the next one "
                "works",
            )
        try:
            from ..training import ClientRound

            update = self._trainer()(
                ClientRound(
                    client=self._identity.name,
                    round=round_index,
                    plan=self._plan,
                    model=model,
                    reserve=parked.reserve,
                    random=self._random,
                )
            )
            parked.offer(update)
        except (BudgetExceeded, ConsentRefused, EngineError):
            raise
        except Exception as error:
            # A mistake in its code, perhaps; a member goes on whatever its trainer
            # does. It is no party of the protocol: it blames nobody.
            _log.warning("the trainer failed", exc_info=error)
            raise EngineError(f"the trainer failed: {error}") from None

    def _release(self, proof: Sequence[bytes]) -> None:
        """Everybody gets it, and it is for those whose update it omits."""
        try:
            self._parked.release(*proof)
        except (ProtocolError, UsageError) as error:
            _log.info("no update was freed: %s", error)

    def _conclude(self, round_index: int, *, opened: bool) -> None:
        session = self._parked.session
        if session is None or session.round_index != round_index:
            return  # said before, or of a round that went on without us
        parked = self._parked.only_in(session.round_index, session.attempt)
        parked.conclude(opened=opened)

    def _countersign(self, first: int, data: Sequence[bytes]) -> bytes:
        entries = read_entries(data, first=first)
        if not entries:
            raise FaultyAggregator("nothing to sign")
        signature = self._parked.countersign(entries, entries[-1])
        # What it has signed says so, even if the end of the round never reaches it.
        for entry in entries:
            if entry.kind == "round" and self._identity.name in entry.rows(3):
                lineage, ctx = self._plan.lineage, entry.bytes_(2)
                self._ledger.opened(lineage, ctx=ctx, now=self._now())
        return signature


def _check_beginning(plan: Plan, entries: Sequence[Entry]) -> None:
    """Raises FaultyAggregator unless a run of ``plan`` begins like this, for all."""
    assert plan.run_id is not None
    names = [e.text(0) for e in entries if e.kind == "endorsement"]
    kinds = ["start", *["endorsement"] * len(plan.names)]
    if [e.kind for e in entries] != kinds or set(names) != set(plan.names):
        raise FaultyAggregator("the log does not begin with all members' endorsements")
    start = entries[0]
    for field, wanted in enumerate((plan.hash, plan.run_id, plan.aggregator_key)):
        if start.bytes_(field) != wanted:
            raise FaultyAggregator("the log is not of this plan's run")
    if start.integer(_SIMULATION) != 0 or start.before != genesis(plan.run_id):
        raise FaultyAggregator("the log is not of a run across machines")
    for entry in entries[1:]:
        try:
            verify_endorsement(plan, entry.text(0), entry.bytes_(1))
        except PlanError as error:
            raise FaultyAggregator(error.message) from None
