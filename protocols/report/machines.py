# SPDX-License-Identifier: Apache-2.0
"""What the messages of an attempt must hold (SPEC.md, 4.6 to 4.9 and 4.11).

Each protection is a small machine that reads an attempt's messages in their order:
`Masking` (also over the keys' context of CKKS), `Plain` and `Holder`.  It refuses what
cannot be, and keeps what the round, the ledgers and kept vectors are compared with.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, NoReturn, Protocol

import messages as m
from canonical import digest, encode, refuse, signed, tree
from context import CKKS, MASKING, Session
from cryptography.hazmat.primitives.asymmetric.x25519 import (
    X25519PrivateKey,
    X25519PublicKey,
)
from plan import Plan
from transcript import FILE, Attempt

_FIELD_PRIME = 2**255 - 19
_NOBODY = bytes(32)  # cohort and dealers of a plain vector
_SCALAR = X25519PrivateKey.from_private_bytes(bytes([1] * 32))


@dataclass(frozen=True)
class Message:
    """One message of the log: its parts, unless it is withheld."""

    kind: int
    sender: str
    receiver: str
    parts: list[Any]


class Machine(Protocol):
    """A protection's checks over one attempt."""

    def take(self, message: Message) -> None:
        """Reads the next message, or refuses the log."""

    def finish(self) -> None:
        """Refuses an attempt that was opened before it could be."""

    def claims(self) -> dict[int, bytes]:
        """The clients whose vector arrived, each with its claim."""

    def omitted(self) -> set[int]:
        """Clients whose vector no sum of this context can hold."""

    def may_blame(self, client: int | None) -> bool:
        """Whether a failure may name this client, or nobody."""

    def opening(self) -> bool:
        """Whether the sum was about to be opened."""


@dataclass(frozen=True)
class Dealt:
    """What a dealer dealt: rows of box, self and key share commitment by receiver."""

    own: bytes
    rows: dict[int, list[bytes]]
    root: bytes
    signature: bytes


def refuse_log(check: str, what: str) -> NoReturn:
    refuse(check, FILE, what)


def usable(key: bytes) -> bool:
    """Whether an X25519 key is usable (masking 4.2)."""
    if int.from_bytes(key, "little") >= _FIELD_PRIME:
        return False
    try:
        _SCALAR.exchange(X25519PublicKey.from_public_bytes(key))
    except ValueError:
        return False
    return True


class Masking:
    """The masking protocol (SPEC.md, 4.6), in the context that the messages have."""

    def __init__(self, plan: Plan, ctx: bytes, attached: bool) -> None:
        self._plan, self.ctx, self._attached = plan, ctx, attached
        self._keys = [member.key for member in plan.members]
        self.announced: dict[int, list[Any]] = {}
        self.cohort: bytes | None = None
        self._u1: list[int] = []
        self.dealt: dict[int, Dealt] = {}
        self._served: set[int] = set()
        self.inputs: dict[int, list[Any]] = {}
        self._statement: list[Any] | None = None
        self._agreed: dict[int, bytes] = {}
        self._signatures = False
        self._reveals: set[int] = set()

    def _holds(self, client: int, made: bytes, label: str, *parts: Any) -> bool:
        label = f"{MASKING} {label}"
        return signed(self._keys[client], made, label, self.ctx, *parts)

    def take(self, message: Message) -> None:
        steps: dict[int, Callable[..., None]] = {
            m.ADVERTISE: self._advertise,
            m.COHORT_KEYS: self._cohort_keys,
            m.SEALED_SHARES: self._shares,
            m.MASKED_INPUT: self._input,
            m.STATEMENT: self._state,
            m.AGREEMENT: self._agree,
            m.SIGNATURES: self._sign,
        }
        if message.kind == m.INBOX:
            self._inbox(message)
        elif message.kind == m.REVEAL:
            self._reveal(message)
        else:
            steps[message.kind](*message.parts)

    def _advertise(self, client: int, seal: bytes, mask: bytes, made: bytes) -> None:
        if not self._holds(client, made, "advertise", client, seal, mask):
            refuse_log("V-MASK-1", f"the announcement of client {client} is not signed")
        self.announced[client] = [client, seal, mask, made]

    def _cohort_keys(self, rows: list[Any]) -> None:
        if rows != [self.announced[client] for client in sorted(self.announced)]:
            refuse_log("V-MASK-2", "the cohort is not that of the announcements")
        if any(seal == mask for _, seal, mask, _ in rows):
            refuse_log("V-MASK-2", "two keys of a client are one")
        if len(rows) < self._plan.needed:
            refuse_log("V-MASK-2", "the cohort is too small")
        self._u1 = [row[0] for row in rows]
        keys = [row[:3] for row in rows]
        self.cohort = digest(MASKING + " cohort", self.ctx, keys)

    def _shares(self, client: int, own: bytes, rows: list[Any], made: bytes) -> None:
        if self.cohort is None or [row[0] for row in rows] != self._u1:
            refuse_log("V-MASK-3", f"client {client} dealt to others than the cohort")
        if client not in self._u1:
            refuse_log("V-MASK-3", f"client {client} is not in the cohort")
        root = tree(MASKING + " shares", [encode(row) for row in rows])
        if not self._holds(client, made, "shares", self.cohort, client, own, root):
            refuse_log("V-MASK-3", f"the shares of client {client} are not signed")
        by_receiver = {row[0]: row[1:] for row in rows}
        self.dealt[client] = Dealt(own, by_receiver, root, made)

    def _inbox(self, message: Message) -> None:
        (rows,) = message.parts
        if message.receiver:
            reader = self._plan.names.index(message.receiver)
        else:
            own = [row[0] for row in rows if row[2] == b""]
            reader = own[0] if own else -1
        if reader not in self.dealt:
            refuse_log("V-MASK-4", "an inbox is for nobody who dealt")
        expected = [
            [dealer, dealt.own, *dealt.rows[reader], dealt.root, dealt.signature]
            for dealer, dealt in sorted(self.dealt.items())
        ]
        if [row[:5] + row[6:] for row in rows] != expected:
            refuse_log("V-MASK-4", f"the inbox of client {reader} is another's")
        self._served.add(reader)

    def _dealers(self) -> bytes:
        return digest(MASKING + " dealers", self.ctx, sorted(self.dealt))

    def _input(self, client: int, *rest: bytes) -> None:
        root, dealers, claim, attached, made = rest
        if client not in self._served:
            refuse_log("V-MASK-5", f"client {client} was given no inbox")
        if client not in self.dealt or dealers != self._dealers():
            refuse_log("V-MASK-5", f"the vector of client {client}: other dealers")
        if self._attached and not attached:
            refuse_log("V-MASK-5", f"client {client} attached no ciphertexts")
        signed_parts = (self.cohort, client, root, dealers, claim, attached)
        if not self._holds(client, made, "input", *signed_parts):
            refuse_log("V-MASK-5", f"the vector of client {client} is not signed")
        self.inputs[client] = [client, root, claim, attached]

    def _state(self, cohort: bytes, dealers: bytes, rows: list[Any]) -> None:
        if cohort != self.cohort or dealers != self._dealers():
            refuse_log("V-MASK-6", "the statement is of another cohort, or dealers")
        if rows != [self.inputs[client] for client in sorted(self.inputs)]:
            refuse_log("V-MASK-6", "the statement is not of the vectors that arrived")
        if len(rows) < self._plan.needed:
            refuse_log("V-MASK-6", "the statement is of too few clients")
        self._statement = [cohort, dealers, rows]

    def _agree(self, client: int, made: bytes) -> None:
        if self._statement is None or client not in self.inputs:
            refuse_log("V-MASK-7", f"client {client} agrees to what it was not shown")
        if not self._holds(client, made, "statement", *self._statement):
            refuse_log("V-MASK-7", f"the agreement of client {client} is not signed")
        self._agreed[client] = made

    def _sign(self, rows: list[Any]) -> None:
        if rows != [list(row) for row in sorted(self._agreed.items())]:
            refuse_log("V-MASK-8", "the signatures are not the agreements")
        if len(rows) < self._plan.threshold:
            refuse_log("V-MASK-8", "too few clients agreed")
        self._signatures = True

    def _reveal(self, message: Message) -> None:
        client = self._plan.names.index(message.sender)
        if not self._signatures or client not in self.inputs:
            refuse_log("V-MASK-9", f"client {client} reveals shares out of turn")
        self._reveals.add(client)

    def finish(self) -> None:
        if self._statement is None or not self._signatures:
            refuse_log("V-MASK-10", "a round was opened that nobody agreed on")
        if len(self.inputs) < self._plan.needed:
            refuse_log("V-MASK-10", "a round was opened of too few vectors")
        if len(self._reveals) < self._plan.threshold:
            refuse_log("V-MASK-10", "a round was opened with too few reveals")

    def claims(self) -> dict[int, bytes]:
        return {client: row[2] for client, row in self.inputs.items()}

    def omitted(self) -> set[int]:
        if not self._signatures:
            return set()
        return set(range(len(self._keys))) - set(self.inputs)

    def may_blame(self, client: int | None) -> bool:
        return client is None or client in self.dealt

    def opening(self) -> bool:
        return len(self._reveals) >= self._plan.threshold


class Plain:
    """Updates as they are, in a simulation (SPEC.md, 4.7)."""

    def __init__(self, plan: Plan, ctx: bytes) -> None:
        self._plan, self.ctx = plan, ctx
        self._claims: dict[int, bytes] = {}

    def take(self, message: Message) -> None:
        if message.kind != m.MASKED_INPUT:
            return
        client, root, dealers, claim, attached, made = message.parts
        label = f"{MASKING} input"
        key = self._plan.members[client].key
        held = (self.ctx, _NOBODY, client, root, _NOBODY, claim, attached)
        if dealers != _NOBODY or not signed(key, made, label, *held):
            refuse_log("V-MASK-5", f"the vector of client {client} is not signed")
        self._claims[client] = claim

    def finish(self) -> None:
        if len(self._claims) < self._plan.needed:
            refuse_log("V-MASK-10", "a round was opened of too few vectors")

    def claims(self) -> dict[int, bytes]:
        return self._claims

    def omitted(self) -> set[int]:
        return set()

    def may_blame(self, client: int | None) -> bool:
        return client is None

    def opening(self) -> bool:
        return False


class Holder:
    """CKKS with a key holder (SPEC.md, 4.9)."""

    def __init__(self, session: Session, attempt: Attempt, ctx: bytes, model: bytes):
        self._plan, self.ctx = session.plan, ctx
        self._call_is = [attempt.round, attempt.number, model, session.length]
        self.call: list[Any] | None = None
        self._holder: list[Any] | None = None
        self._invited: set[str] = set()
        self.inputs: dict[int, list[Any]] = {}
        self.uploads: dict[int, list[Any]] = {}
        self.box = b""
        self._asked = False
        self.released = False
        self._culprit: int | None = None

    def _holds(self, key: bytes, made: bytes, label: str, *parts: Any) -> bool:
        return signed(key, made, f"{CKKS} {label}", self.ctx, *parts)

    def _of_holder(self, made: bytes, label: str, *parts: Any) -> bool:
        key = self._plan.keyholder
        return key is not None and self._holds(key, made, label, *parts)

    def take(self, message: Message) -> None:
        if message.kind == m.CALL:
            self._take_call(message.parts)
        elif message.kind == m.HOLDER_KEY:
            self._take_key(*message.parts)
        elif message.kind == m.INVITATION:
            self._invite(message)
        elif message.kind == m.INPUT:
            self._input(message)
        elif message.kind == m.REQUEST:
            if len(self.inputs) < self._plan.min_clients:
                refuse_log("V-CKKS-5", "keys were asked of too few clients")
            self._asked = True
        elif message.kind == m.RELEASE:
            self._release(*message.parts)
        else:
            self._refuse(*message.parts)

    def _take_call(self, parts: list[Any]) -> None:
        *about, key, made = parts
        if about != self._call_is:
            refuse_log("V-CKKS-1", "the key holder was called for another context")
        if not self._holds(self._plan.aggregator, made, "aggregator key", key):
            refuse_log("V-CKKS-1", "the call is not signed by the aggregator")
        if not usable(key):
            refuse_log("V-CKKS-1", "the aggregator's key is not usable")
        self.call = [key, made]

    def _take_key(self, key: bytes, made: bytes) -> None:
        if self.call is None or key == self.call[0]:
            refuse_log("V-CKKS-2", "the key holder was not called, or has no own key")
        if not self._of_holder(made, "holder key", key) or not usable(key):
            refuse_log("V-CKKS-2", "the key holder's key is not signed, or not usable")
        self._holder = [key, made]

    def _invite(self, message: Message) -> None:
        if self.call is None or self._holder is None:
            refuse_log("V-CKKS-3", "clients were invited before there were keys")
        if message.parts != [*self._holder, *self.call]:
            refuse_log("V-CKKS-3", "clients were invited with other keys")
        self._invited.add(message.receiver)

    def _input(self, message: Message) -> None:
        client, payload, claim, key_box, chunk_box, made = message.parts
        if not self._invited & {"", message.sender}:
            refuse_log("V-CKKS-4", f"{message.sender} was not invited")
        boxes = (
            digest(CKKS + " key box", key_box),
            digest(CKKS + " chunk box", chunk_box),
        )
        key = self._plan.members[client].key
        if not self._holds(key, made, "input", client, payload, claim, *boxes):
            refuse_log("V-CKKS-4", f"the upload of {message.sender} is not signed")
        self.inputs[client] = [client, payload, claim]
        self.uploads[client] = message.parts

    def _release(self, rows: list[Any], box: bytes, made: bytes) -> None:
        if not self._asked or self._culprit is not None:
            refuse_log("V-CKKS-6", "keys were released that nobody asked for")
        if rows != [self.inputs[client] for client in sorted(self.inputs)]:
            refuse_log("V-CKKS-6", "keys were released of other clients")
        hashed = digest(CKKS + " release box", box)
        if not self._of_holder(made, "release", rows, hashed):
            refuse_log("V-CKKS-6", "the release is not signed by the key holder")
        self.released, self.box = True, box

    def _refuse(self, culprit: int, made: bytes) -> None:
        if not self._asked or self.released:
            refuse_log("V-CKKS-7", "the key holder refused what nobody asked for")
        if not self._of_holder(made, "refusal", culprit):
            refuse_log("V-CKKS-7", "the refusal is not signed by the key holder")
        self._culprit = culprit

    def finish(self) -> None:
        if not self.released or self._culprit is not None:
            refuse_log("V-CKKS-8", "a round was opened without its keys")

    def claims(self) -> dict[int, bytes]:
        return {client: row[2] for client, row in self.inputs.items()}

    def omitted(self) -> set[int]:
        if self._culprit is None:
            return set()
        return set(range(len(self._plan.members)))

    def may_blame(self, client: int | None) -> bool:
        named = self._culprit if self._culprit in self.inputs else None
        return client == named

    def opening(self) -> bool:
        return self._culprit is not None
