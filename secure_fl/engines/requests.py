# SPDX-License-Identifier: Apache-2.0
"""What an aggregator asks of a member across machines, and what comes back: bytes.

A request is a list of actions for one member (or the key holder) of one run, signed by
the plan's aggregator; a reply holds what each action gave.  Both are a *parcel*: a
head, which is one CBOR value, and a body, which a carrier may cut into parts.

These forms carry the protocols' own messages, which stand in the SPECs and are signed
by whom they come from.  What is here is between two ends of this package.
"""

from __future__ import annotations

import functools
import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Final, final

from .. import wire
from ..errors import (
    BudgetExceeded,
    EngineError,
    FaultyAggregator,
    FaultyClient,
    ProtocolError,
    SecureFLError,
)
from ..identity import Identity

__all__ = [
    "Action",
    "Begin",
    "Body",
    "Conclude",
    "Countersign",
    "Export",
    "Failure",
    "Hello",
    "Message",
    "Open",
    "Parcel",
    "Release",
    "Reply",
    "Request",
    "Train",
    "TrainEarly",
    "hello_statement",
    "printable",
]

SPEC: Final = "secure-fl/requests/1"
_REQUEST: Final = f"{SPEC} request"
_HELLO: Final = f"{SPEC} hello"
PART: Final = 4 << 20  # bytes of a body that travel as one piece
_REASON: Final = 1000  # characters
_NAME: Final = 31  # likewise: no member's is longer


@final
@dataclass(frozen=True)
class Parcel:
    """One head and one body in parts, of at most ``PART`` bytes where we made them."""

    head: bytes
    body: tuple[bytes, ...] = field(default=(), repr=False)


# -- actions ---------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Hello:
    """Who are you?  Gives three pieces: the member's name (``KEY_HOLDER`` for that), a
    signature over :func:`hello_statement`, and the member's endorsement of the plan
    (the key holder has none: it is empty)."""

    nonce: bytes


@final
@dataclass(frozen=True)
class Begin:
    """The log's first entries: the start, and every member's endorsement."""

    entries: tuple[bytes, ...]


@final
@dataclass(frozen=True)
class Open:
    """Start an attempt; the model is the request's body.  Gives the first messages."""

    round_index: int
    attempt: int


@final
@dataclass(frozen=True)
class Train:
    """Make this attempt's update, where one is needed."""

    round_index: int
    attempt: int


@final
@dataclass(frozen=True)
class TrainEarly:
    """The same, begun now and going on behind the reply; :class:`Train` waits for it.

    A member that cannot do so trains when it is asked to.
    """

    round_index: int
    attempt: int


@final
@dataclass(frozen=True)
class Message:
    """A message of the protocol.  Gives the messages that answer it."""

    data: bytes = field(repr=False)


@final
@dataclass(frozen=True)
class Release:
    """Proof that a spent update can never be opened."""

    proof: tuple[bytes, ...]


@final
@dataclass(frozen=True)
class Countersign:
    """Entries of the log, the first with its place.  Gives one signature over the last.

    They begin no later than behind what this member signed last.
    """

    first: int
    entries: tuple[bytes, ...] = field(repr=False)


@final
@dataclass(frozen=True)
class Conclude:
    """The round is over: its sum was opened with this member's update, or was not."""

    round_index: int
    opened: bool


@final
@dataclass(frozen=True)
class Export:
    """Gives one piece: the signed export of this member's ledger."""


Action = (
    Hello
    | Begin
    | Open
    | Train
    | TrainEarly
    | Message
    | Release
    | Countersign
    | Conclude
    | Export
)

_TAGS: Final[dict[type[object], int]] = {
    Hello: 0,
    Begin: 1,
    Open: 2,
    Train: 3,
    Message: 4,
    Release: 5,
    Countersign: 6,
    Conclude: 7,
    Export: 8,
    TrainEarly: 9,
}


def _action_to_wire(action: Action) -> wire.Value:
    values: list[wire.Value] = [_TAGS[type(action)]]
    match action:
        case Hello(nonce):
            values += [nonce]
        case Begin(entries):
            values += [list(entries)]
        case (
            Open(round_index, attempt)
            | Train(round_index, attempt)
            | TrainEarly(round_index, attempt)
        ):
            values += [round_index, attempt]
        case Message(data):
            values += [data]
        case Release(proof):
            values += [list(proof)]
        case Countersign(first, entries):
            values += [first, list(entries)]
        case Conclude(round_index, opened):
            values += [round_index, int(opened)]
        case Export():
            pass
    return values


def _action_of(value: wire.Value) -> Action:
    match value:
        case [0, bytes(nonce)] if len(nonce) == 32:
            return Hello(nonce)
        case [1, list(entries)]:
            return Begin(_all_bytes(entries))
        case [2, int(round_index), int(attempt)]:
            return Open(round_index, attempt)
        case [3, int(round_index), int(attempt)]:
            return Train(round_index, attempt)
        case [4, bytes(data)]:
            return Message(data)
        case [5, list(proof)]:
            return Release(_all_bytes(proof))
        case [6, int(first), list(entries)] if first >= 0:
            return Countersign(first, _all_bytes(entries))
        case [7, int(round_index), (0 | 1) as opened]:
            return Conclude(round_index, bool(opened))
        case [8]:
            return Export()
        case [9, int(round_index), int(attempt)]:
            return TrainEarly(round_index, attempt)
        case _:
            raise ProtocolError("an action that this version does not know")


def _all_bytes(values: Sequence[wire.Value]) -> tuple[bytes, ...]:
    out = []
    for value in values:
        if not isinstance(value, bytes):
            raise ProtocolError("a list holds something else than byte strings")
        out.append(value)
    return tuple(out)


def hello_statement(
    *, plan_hash: bytes, run_id: bytes, member: str, node: int, nonce: bytes
) -> tuple[str, wire.Value]:
    """Label and parts of what ties a node of the network to a member, for one run."""
    return _HELLO, [plan_hash, run_id, member, node, nonce]


# -- requests --------------------------------------------------------------------------


@final
class Body:
    """What goes along with a request, or with many: cut and hashed once."""

    def __init__(self, data: bytes = b"") -> None:
        self.data = data

    @functools.cached_property
    def digest(self) -> bytes:
        return hashlib.sha256(self.data).digest()

    @functools.cached_property
    def parts(self) -> tuple[bytes, ...]:
        return _cut([self.data])


_NO_BODY: Final = Body()


@final
@dataclass(frozen=True)
class Request:
    """Actions for ``member`` (``KEY_HOLDER`` for the key holder; "" asks any node who
    it is), done in order until one fails.

    ``node`` is the network's number for whom it is sent to: nobody else answers it.
    """

    plan_hash: bytes
    run_id: bytes
    member: str
    node: int
    actions: tuple[Action, ...]
    body: Body = field(default=_NO_BODY, repr=False)

    def _signed(self) -> list[wire.Value]:
        return [
            self.plan_hash,
            self.run_id,
            self.member,
            self.node,
            [_action_to_wire(a) for a in self.actions],
            self.body.digest,
        ]

    def to_parcel(self, aggregator: Identity) -> Parcel:
        signed = self._signed()
        signature = aggregator.sign(_REQUEST, signed)
        return Parcel(wire.encode([SPEC, signed, signature]), self.body.parts)

    @classmethod
    def of(cls, parcel: Parcel) -> tuple[Request, bytes]:
        """What a parcel asks, and the signature, which the caller checks with
        :meth:`is_signed`.  Raises ProtocolError for what does not parse."""
        match wire.decode(parcel.head):
            case [
                str(spec),
                [
                    bytes(plan_hash),
                    bytes(run_id),
                    str(member),
                    int(node),
                    list(actions),
                    bytes(digest),
                ],
                bytes(signature),
            ] if spec == SPEC and (len(plan_hash), len(run_id)) == (32, 16):
                body = Body(b"".join(parcel.body))
                if body.digest != digest:
                    raise ProtocolError("the body is not the one that the head names")
                made = tuple(_action_of(a) for a in actions)
                return cls(plan_hash, run_id, member, node, made, body), signature
            case _:
                raise ProtocolError(f"not a request of {SPEC}")

    def is_signed(self, aggregator: bytes, signature: bytes) -> bool:
        """Whether ``signature`` is that of the key ``aggregator`` over all of it."""
        return wire.verify(aggregator, signature, _REQUEST, self._signed())


# -- replies ---------------------------------------------------------------------------


@final
@dataclass(frozen=True)
class Failure:
    """Why an action failed, as much as leaves a member: its place, and a public reason.

    ``client`` is who is accused, for kind "client".
    """

    action: int
    kind: str
    reason: str
    client: str = ""

    def to_error(self) -> SecureFLError:
        """The error as its receiver raises or notes it."""
        match self.kind:
            case "client":
                return FaultyClient(self.client, self.reason)
            case "aggregator":
                return FaultyAggregator(self.reason)
            case "protocol":
                return ProtocolError(self.reason)
            case "budget":
                return _spent(self.reason)
            case _:
                return EngineError(self.reason)

    @classmethod
    def of(cls, action: int, error: Exception) -> Failure:
        """What others learn of ``error``: a trainer's own words stay at home."""
        match error:
            case FaultyClient():
                reason = error.message.removeprefix(f"{error.client}: ")
                return cls(action, "client", reason, error.client)
            case FaultyAggregator():
                return cls(action, "aggregator", error.message)
            case ProtocolError():
                return cls(action, "protocol", error.message)
            case BudgetExceeded():
                return cls(action, "budget", error.message)
            case _:
                return cls(action, "engine", type(error).__name__)


def printable(text: str, most: int) -> str:
    """Somebody else's words, fit for a log and a terminal: ``most`` characters."""
    return "".join(c if c.isprintable() else " " for c in text[:most])


def _spent(reason: str) -> BudgetExceeded:
    """A member's own words: its figures are not ours to compute with."""
    error = BudgetExceeded.__new__(BudgetExceeded)
    SecureFLError.__init__(error, reason)
    return error


@final
@dataclass(frozen=True)
class Reply:
    """What the actions of one request gave: pieces by action, in order."""

    pieces: tuple[tuple[int, bytes], ...] = field(repr=False)
    failure: Failure | None = None

    def of_action(self, index: int) -> tuple[bytes, ...]:
        return tuple(piece for i, piece in self.pieces if i == index)

    def to_parcel(self) -> Parcel:
        failure: list[wire.Value] = []
        if (f := self.failure) is not None:
            failure = [f.action, f.kind, f.reason[:_REASON], f.client[:_NAME]]
        rows: list[wire.Value] = [[index, len(piece)] for index, piece in self.pieces]
        head = wire.encode([SPEC, rows, failure])
        return Parcel(head, _cut(piece for _, piece in self.pieces))

    @classmethod
    def of(cls, parcel: Parcel) -> Reply:
        """Raises ProtocolError for what does not parse."""
        match wire.decode(parcel.head):
            case [str(spec), list(rows), list(given)] if spec == SPEC:
                pass
            case _:
                raise ProtocolError(f"not a reply of {SPEC}")
        failure = None
        match given:
            case []:
                pass
            case [int(action), str(kind), str(reason), str(client)]:
                failure = Failure(
                    action, kind, printable(reason, _REASON), printable(client, _NAME)
                )
            case _:
                raise ProtocolError("a failure that this version does not know")
        sizes = []
        for row in rows:
            match row:
                case [int(index), int(size)] if index >= 0 and size >= 0:
                    sizes.append((index, size))
                case _:
                    raise ProtocolError("a row of a reply is not a place and a size")
        return cls(tuple(_taken(sizes, parcel.body)), failure)


def _cut(pieces: Iterable[bytes]) -> tuple[bytes, ...]:
    """One stream in parts of ``PART`` bytes, the last one shorter."""
    parts: list[bytes] = []
    now = bytearray()
    for piece in pieces:
        view = memoryview(piece)
        while len(view):
            room = PART - len(now)
            now += view[:room]
            view = view[room:]
            if len(now) == PART:
                parts.append(bytes(now))
                now = bytearray()
    if now:
        parts.append(bytes(now))
    return tuple(parts)


def _taken(
    sizes: Iterable[tuple[int, int]], parts: Iterable[bytes]
) -> Iterator[tuple[int, bytes]]:
    """The pieces of a stream in parts.  Raises ProtocolError unless they fill it."""
    coming = iter(parts)
    now = memoryview(b"")
    for index, size in sizes:
        piece = bytearray()
        while len(piece) < size:
            if not len(now):
                now = memoryview(next(coming, b""))
                if not len(now):
                    raise ProtocolError("a reply ends within a piece")
            taken = now[: size - len(piece)]
            piece += taken
            now = now[len(taken) :]
        yield index, bytes(piece)
    if len(now) or any(coming):
        raise ProtocolError("a reply holds more than it says")
