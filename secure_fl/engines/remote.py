# SPDX-License-Identifier: Apache-2.0
"""Members on machines of their own, reached over a carrier.

Whatever needs no answer (a training, a proof, the end of a round) waits and travels
with the next message, for an exchange costs seconds.  A member that does not answer in
time has left the attempt, and is asked again in the next one.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from typing import Final, final

from .. import wire
from ..errors import EngineError, FaultyClient, ProtocolError, SecureFLError
from ..identity import Identity
from ..model import GlobalModel
from ..plan import Plan
from ..privacy import read_export
from ..randomness import RandomSource
from ..transcript import KEY_HOLDER, Entry, check_signature
from .clients import Carrier, Lost, Take
from .requests import (
    Action,
    Begin,
    Body,
    Conclude,
    Countersign,
    Export,
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
)
from .status import Status
from .waves import Waves

__all__ = ["RemoteClients"]

_log = logging.getLogger("secure_fl")

_GRACE: Final = 30.0  # seconds for the others once enough have answered
_GREETING: Final = 120.0  # seconds for one, and one more for each node
_LOOK_AGAIN: Final = 3.0  # seconds
_IN_FLIGHT: Final = 64  # requests: few consortia have more members


@final
class RemoteClients:
    """The members of a plan behind a :class:`Carrier`."""

    def __init__(
        self,
        plan: Plan,
        aggregator: Identity,
        carrier: Carrier,
        *,
        patience: float,
        status: Status,
        random: RandomSource,
    ) -> None:
        """``patience``: seconds for one exchange, training included.  Once as many as
        the plan needs have answered, the others get as long again, and 30 seconds.
        ``status`` hears who is there, who is asked and who answers."""
        assert plan.run_id is not None
        self._plan = plan
        self._run_id = plan.run_id
        self._aggregator = aggregator
        self._carrier = carrier
        self._patience = patience
        self._status = status
        self._random = random
        self._keys = {m.name: m.public_key for m in plan.roster.members}
        if plan.has_keyholder:
            self._keys[KEY_HOLDER] = plan.keyholder_key
        self._nodes: dict[str, int] = {}
        self._strangers: set[int] = set()  # nodes that are nobody of this plan
        self._silent: set[int] = set()  # nodes that did not say who they are
        self._twins: dict[str, set[int]] = {}  # nodes that are one member
        self._under_way = False
        self._waiting: dict[str, list[Action]] = {}
        self._signed: dict[str, int] = {}  # place of the last entry each signed
        self._group = "0"

    # -- who is there ----------------------------------------------------------------

    def begin(
        self, endorsements: Callable[[Mapping[str, bytes]], Sequence[Entry]]
    ) -> None:
        """Waits until all are there.  Raises EngineError naming who is not in time."""
        self._status.enter("joining")
        given = self._find(set(self._keys), wait=self._patience)
        if missing := [n for n in self._keys if n not in self._nodes]:
            raise EngineError(
                f"not there: {', '.join(missing)}",
                hint="each joins this very plan (`secure-fl join`) and starts its node;"
                " then start the run again",
            )
        given.pop(KEY_HOLDER, None)
        self._under_way = True
        self._show(endorsements(given))

    def resume(self, entries: Sequence[Entry]) -> None:
        """Waits until all are there, or as many as a round needs and half a minute."""
        self._under_way = True
        self._status.enter("joining")
        self._find(set(self._keys), wait=_GRACE)
        self._find(set(self._keys), wait=self._patience, enough=self._plan.needed)
        self._show([e for e in entries if e.kind in ("start", "endorsement")])

    def _show(self, entries: Sequence[Entry]) -> None:
        first = Begin(tuple(e.data for e in entries))
        for name in self._plan.names:
            self._waiting.setdefault(name, []).insert(0, first)

    def _find(
        self, wanted: set[str], *, wait: float, enough: int | None = None
    ) -> dict[str, bytes]:
        """Ask nodes that nobody is known behind who they are, until ``wanted`` are.

        Returns the endorsements of those found now.  A member that two nodes are is
        not there until one of them is gone: both would answer, out of two ledgers.
        Raises EngineError for that where the run has not begun.
        """
        found: dict[str, bytes] = {}
        deadline = time.monotonic() + wait
        while True:
            there = set(self._carrier.nodes())
            known = set(self._nodes.values())
            for name, node in list(self._nodes.items()):
                if node not in there:
                    del self._nodes[name]  # it may come back, under another number
            found |= self._greet(there - known - self._strangers, there=there)
            self._status.connected(self._nodes)
            missing = wanted - set(self._nodes)
            if not missing or (enough is not None and len(self._nodes) >= enough):
                return found
            left = deadline - time.monotonic()
            if left <= 0:
                return found
            time.sleep(min(_LOOK_AGAIN, left))

    def _greet(self, nodes: Collection[int], *, there: set[int]) -> dict[str, bytes]:
        twins, self._twins = self._twins, {}
        if not nodes:
            return {}
        nonce = self._random.bytes(32)
        # Who was silent comes last: it is not to keep the others from being asked.
        order = sorted(nodes, key=lambda node: (node in self._silent, node))
        waves = self._waves(order, lambda node: self._request("", node, [Hello(nonce)]))
        found: dict[str, bytes] = {}
        behind: dict[str, set[int]] = {}
        longest = _GREETING + len(nodes)
        self._silent |= set(nodes)
        for node, answer in waves.answers(timeout=min(self._patience, longest)):
            if isinstance(answer, Lost):
                continue  # asked again, where it is still there
            self._silent.discard(node)
            try:
                reply = Reply.of(answer)
            except ProtocolError:
                reply = Reply(())
            if reply.failure is not None:  # it may join yet, say
                _log.warning("node %d stays out: %s", node, reply.failure.reason)
                continue
            who = self._introduced(node, nonce, reply)
            if who is None:
                self._strangers.add(node)
                _log.warning("node %d is no party of this plan", node)
                continue
            name, endorsement = who
            behind.setdefault(name, set()).add(node)
            found[name] = endorsement
        for name, ours in behind.items():
            # One that says nothing now may still be the member.
            ours |= twins.get(name, set()) & there
            if name in self._nodes:
                ours.add(self._nodes.pop(name))
            if len(ours) == 1:
                (self._nodes[name],) = ours
                continue
            del found[name]
            self._twins[name] = ours
            both = " and ".join(map(str, sorted(ours)))
            if not self._under_way:
                raise EngineError(
                    f"two nodes are {name}: {both}",
                    hint="stop one: a member has one home, and one node",
                )
            if twins.get(name) != ours:
                _log.warning("%s stays out while two nodes are it: %s", name, both)
        for name, ours in twins.items():
            if name not in behind and (still := ours & there):
                self._twins[name] = still
        return found

    def _introduced(
        self, node: int, nonce: bytes, reply: Reply
    ) -> tuple[str, bytes] | None:
        """Name and endorsement of who proved to be behind ``node``; None for others."""
        try:
            name_, signature, endorsement = reply.of_action(0)
            name = name_.decode()
        except ValueError:
            return None
        if name not in self._keys:
            return None
        label, parts = hello_statement(
            plan_hash=self._plan.hash,
            run_id=self._run_id,
            member=name,
            node=node,
            nonce=nonce,
        )
        if not wire.verify(self._keys[name], signature, label, parts):
            return None
        return name, endorsement

    # -- an attempt ------------------------------------------------------------------

    def open(
        self, round_index: int, attempt: int, model: GlobalModel, names: Collection[str]
    ) -> Iterator[tuple[str, Sequence[bytes] | SecureFLError]]:
        self._group = str(round_index + 1)
        if any(name not in self._nodes for name in self._keys):
            self._find(set(self._keys), wait=0)
        asked: list[Action] = [Open(round_index, attempt)]
        if self._plan.rounds.train_early:
            asked.append(TrainEarly(round_index, attempt))
        actions = dict.fromkeys(names, asked)
        for name, answer in self._ask(actions, Body(model.to_bytes())):
            if isinstance(answer, SecureFLError):
                yield name, answer
            else:
                yield name, [p for _, p in answer.pieces]

    def train(
        self,
        round_index: int,
        attempt: int,
        model: GlobalModel,
        names: Collection[str],
        *,
        begins: Callable[[str], None],
    ) -> Iterator[tuple[str, SecureFLError]]:
        """Each trains when the next message reaches it, and fails there."""
        for name in names:
            begins(name)
            self._later(name, Train(round_index, attempt))
        yield from ()

    def tell(self, messages: Mapping[str, bytes], take: Take) -> None:
        actions = {name: [Message(data)] for name, data in messages.items()}
        for name, answer in self._ask(actions):
            take(name, _pieces(answer))

    def release(self, proof: Sequence[bytes]) -> None:
        for name in self._plan.names:
            self._later(name, Release(tuple(proof)))

    def conclude(self, round_index: int, survivors: Collection[str]) -> None:
        self._status.enter("evaluation")  # nobody is asked until the next round
        for name in self._plan.names:
            self._later(name, Conclude(round_index, name in survivors))

    def countersign(
        self, names: Collection[str], entries: Sequence[Entry], entry: Entry
    ) -> Mapping[str, bytes]:
        self._status.enter("signatures")
        actions: dict[str, list[Action]] = {}
        for name in names:
            first = self._signed.get(name, -1) + 1
            rows = tuple(e.data for e in entries[first : entry.sequence + 1])
            actions[name] = [Countersign(first, rows)]
        signatures = {}
        for name, answer in self._ask(actions):
            if isinstance(answer, SecureFLError):
                _log.warning("%s did not sign the log: %s", name, answer)
                continue
            signature = b"".join(p for _, p in answer.pieces)
            if not check_signature(self._keys[name], entry.hash, signature):
                _log.warning("the signature of %s over the log does not hold", name)
                continue
            self._signed[name] = entry.sequence
            signatures[name] = signature
        return signatures

    def export(self) -> Mapping[str, bytes]:
        """Waits for members that are away.  Raises EngineError naming who stays so."""
        self._status.enter("ledgers")
        exports: dict[str, bytes] = {}
        deadline = time.monotonic() + self._patience
        while True:
            left = [n for n in self._plan.names if n not in exports]
            self._find(set(left), wait=max(0.0, deadline - time.monotonic()))
            for name, answer in self._ask({n: [Export()] for n in left}):
                try:
                    data = b"".join(_pieces(answer))
                    read_export(data, public_key=self._keys[name], client=name)
                except SecureFLError as error:
                    _log.warning("no ledger from %s: %s", name, error)
                else:
                    exports[name] = data
            missing = [n for n in self._plan.names if n not in exports]
            if not missing:
                return exports
            if time.monotonic() >= deadline:
                raise EngineError(
                    f"the run is complete, but for the ledger of {', '.join(missing)}",
                    hint="no epsilon is known without it: start the run again once "
                    "they are back, and it goes on from here",
                )
            time.sleep(_LOOK_AGAIN)

    # -- one exchange ----------------------------------------------------------------

    def _later(self, name: str, action: Action) -> None:
        self._waiting.setdefault(name, []).append(action)

    def _request(
        self, name: str, node: int, actions: Sequence[Action], body: Body | None = None
    ) -> Parcel:
        request = Request(
            self._plan.hash, self._run_id, name, node, tuple(actions), body or Body()
        )
        return request.to_parcel(self._aggregator)

    def _ask(
        self, actions: Mapping[str, Sequence[Action]], body: Body | None = None
    ) -> Iterator[tuple[str, Reply | SecureFLError]]:
        """Each member's reply, or why there is none; what waits for it goes along."""
        self._status.asked(actions)
        for name, answer in self._answers(actions, body):
            self._status.answered(name, fit=isinstance(answer, Reply))
            yield name, answer

    def _answers(
        self, actions: Mapping[str, Sequence[Action]], body: Body | None
    ) -> Iterator[tuple[str, Reply | SecureFLError]]:
        name_of: dict[int, str] = {}
        went_along: dict[str, list[Action]] = {}
        for name in actions:
            node = self._nodes.get(name)
            if node is None:
                yield name, EngineError(f"{name} is not connected")
                continue
            went_along[name] = self._waiting.pop(name, [])
            name_of[node] = name

        def request(node: int) -> Parcel:
            name = name_of[node]
            return self._request(name, node, [*went_along[name], *actions[name]], body)

        waves = self._waves(name_of, request)
        for node, answer in self._received(waves):
            name = name_of[node]
            reply = _read(name, answer)
            self._repeat(name, went_along[name], reply)
            if isinstance(reply, Reply) and reply.failure is not None:
                yield name, reply.failure.to_error()
            else:
                yield name, reply
        unasked = set(waves.unasked)
        for node in waves.left:
            name = name_of[node]
            how = "was not asked" if node in unasked else "did not answer"
            error = EngineError(f"{name} {how} in time")
            self._repeat(name, went_along[name], error)
            yield name, error

    def _repeat(
        self, name: str, along: Sequence[Action], reply: Reply | SecureFLError
    ) -> None:
        """Put what went along and was not done back: it is harmless twice.

        But for a training: that belonged to an attempt which ``name`` has left.
        """
        if isinstance(reply, Reply):
            if reply.failure is None:
                return
            along = along[reply.failure.action :]
            if along and not isinstance(along[0], Begin):
                along = along[1:]  # it cannot be done, and the others can
        left: list[Action] = [a for a in along if not isinstance(a, Train)]
        self._waiting[name] = left + self._waiting.get(name, [])

    def _waves(self, nodes: Iterable[int], parcel: Callable[[int], Parcel]) -> Waves:
        return Waves(self._carrier, nodes, parcel, group=self._group, most=_IN_FLIGHT)

    def _received(self, waves: Waves) -> Iterator[tuple[int, Parcel | Lost]]:
        """Replies until all are there, or it is time to go on without the others."""
        begun = time.monotonic()
        deadline = begun + self._patience
        answered = 0
        while waves.left and (timeout := deadline - time.monotonic()) > 0:
            for node, answer in waves.answers(timeout=timeout):
                yield node, answer
                answered += not isinstance(answer, Lost)
                if answered == self._plan.needed:
                    took = time.monotonic() - begun
                    deadline = min(deadline, begun + 2 * took + _GRACE)
                    break


def _read(name: str, answer: Parcel | Lost) -> Reply | SecureFLError:
    """The reply, or why there is none."""
    if isinstance(answer, Lost):
        return EngineError(f"{name} did not answer: {answer.reason}")
    try:
        return Reply.of(answer)
    except ProtocolError as error:
        return FaultyClient(name, error.message)


def _pieces(answer: Reply | SecureFLError) -> Iterator[bytes]:
    if isinstance(answer, SecureFLError):
        raise answer
    for _, piece in answer.pieces:
        yield piece
