# SPDX-License-Identifier: Apache-2.0
"""The log of a run: hash-chained, signed by the aggregator, countersigned by members.

The aggregator appends; whoever holds the bytes can check them offline.  An entry is a
CBOR map ``{0: sequence, 1: hash before it, 2: kind, 3: body}``; its hash covers these
bytes, so nothing is dropped, reordered or changed without breaking the chain, and
nothing is cut off the end without losing a signature over the head.

Kinds and bodies stand in :data:`BODIES`.  The entry of a message holds its hash; the
message itself lies beside the entries, so that whoever signs them is not sent it.  Some
lie nowhere: chunks, which have no entry (their signed root stands for them), and,
withheld, the shares revealed in step 5 of masking (secrets of a round, even if it is
over) and requests to a key holder (which repeat what members sent).  A plan with
``keep_vectors`` keeps these in files of their own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal, final

from . import wire
from .errors import FaultyAggregator, ProtocolError, VerificationError
from .identity import Identity

__all__ = [
    "BODIES",
    "KEY_HOLDER",
    "SPEC",
    "Entry",
    "Sent",
    "Transcript",
    "check_extension",
    "countersign",
    "genesis",
    "read_entries",
]

SPEC: Final = "secure-fl/transcript/2"
# The key holder as logs and engines name it; no member's name has a space.
KEY_HOLDER: Final = "key holder"

# What `append` takes; a message has a way of its own.
Kind = Literal["start", "endorsement", "failure", "round", "artefacts", "signature"]

# field: (what it is, its type).  Names of members and hashes, never a private value.
BODIES: Final[Mapping[str, Mapping[int, tuple[str, type]]]] = {
    "start": {
        0: ("plan hash", bytes),
        1: ("run id", bytes),
        2: ("aggregator's public key", bytes),
        3: ("tool and version", str),
        4: ("1 for a simulation", int),
        5: ("1 where randomness was seeded: INSECURE", int),
        6: ("hash of the model at the start", bytes),
        7: ("1 where the clients' ledgers live on after the run", int),
    },
    "endorsement": {0: ("member", str), 1: ("signature over the plan", bytes)},
    "message": {
        0: ("round", int),
        1: ("attempt", int),
        2: ("sender: a member, `key holder`, or empty for the aggregator", str),
        3: ("receiver: likewise, or empty for all or the aggregator", str),
        4: ("SHA-256 of the message", bytes),
        5: ("1 where it is withheld: where it does not lie beside the entries", int),
    },
    "failure": {
        0: ("round", int),
        1: ("attempt", int),
        2: ("reason", str),
        3: ("culprit, or empty", str),
    },
    "round": {
        0: ("round", int),
        1: ("attempt", int),
        2: ("context", bytes),
        3: ("survivors, in roster order", list),
        4: ("sum of their weights", int),
        5: ("hash of the opened words", bytes),
        6: ("coordinates clipped, over all survivors", int),
        7: ("hash of the model before", bytes),
        8: ("hash of the model after", bytes),
    },
    "artefacts": {0: ("rows of file name and SHA-256, by name", list)},
    "signature": {
        0: ("signer: a member, or empty for the aggregator", str),
        1: ("sequence of the entry signed", int),
        2: ("signature over its hash", bytes),
    },
}

# Bytes of the fields that hold bytes.
_SIZES: Final[Mapping[str, Mapping[int, int]]] = {
    "start": {0: 32, 1: 16, 2: 32, 6: 32},
    "endorsement": {1: 64},
    "message": {4: 32},
    "round": {2: 32, 5: 32, 7: 32, 8: 32},
    "signature": {2: 64},
}
_SIGN: Final = f"{SPEC} head"

# A message as its sender remembers it: round, attempt, SHA-256.
Sent = tuple[int, int, bytes]


@final
@dataclass(frozen=True, slots=True)
class Entry:
    """One entry: its place, kind, body, exact bytes and hash."""

    sequence: int
    kind: str
    body: Mapping[int, wire.Value]
    data: bytes
    before: bytes
    hash: bytes

    @property
    def has_message(self) -> bool:
        """Whether a message belongs beside this entry: it is of one, not withheld."""
        return self.kind == "message" and not self.body[5]

    def integer(self, key: int) -> int:
        value = self.body[key]
        assert isinstance(value, int)
        return value

    def text(self, key: int) -> str:
        value = self.body[key]
        assert isinstance(value, str)
        return value

    def bytes_(self, key: int) -> bytes:
        value = self.body[key]
        assert isinstance(value, bytes)
        return value

    def rows(self, key: int) -> list[wire.Value]:
        value = self.body[key]
        assert isinstance(value, list)
        return value


def genesis(run_id: bytes) -> bytes:
    """What stands before the first entry."""
    return wire.digest(f"{SPEC} genesis", run_id)


def _parse(data: bytes, *, sequence: int, before: bytes) -> Entry:
    fields = wire.Fields(wire.decode(data))
    if fields.integer(0) != sequence:
        raise ProtocolError(f"entry {sequence} is missing or out of order")
    if fields.bytes_(1, size=wire.HASH_BYTES) != before:
        raise ProtocolError(f"entry {sequence} does not follow the one before it")
    kind = fields.text(2)
    if kind not in BODIES:
        raise ProtocolError(f"entry {sequence} is of an unknown kind")
    body = fields.fields(3)
    fields.end()
    values: dict[int, wire.Value] = {}
    for key, (_, wanted) in BODIES[kind].items():
        if wanted is int:
            values[key] = body.integer(key)
        elif wanted is bytes:
            values[key] = body.bytes_(key, size=_SIZES[kind][key])
        elif wanted is str:
            values[key] = body.text(key)
        else:
            values[key] = body.array(key)
    body.end()
    if kind == "message" and values[5] not in (0, 1):
        raise ProtocolError(f"entry {sequence}: its flag is neither 0 nor 1")
    return Entry(sequence, kind, values, data, before, _hash(data))


def _hash(data: bytes) -> bytes:
    return wire.digest(f"{SPEC} entry", data)


@final
class Transcript:
    """Entries in order, and the messages of those that have one.  Append-only."""

    def __init__(self, run_id: bytes) -> None:
        self.run_id = run_id
        self.entries: list[Entry] = []
        self._messages: dict[int, bytes] = {}  # by their entry's sequence

    @property
    def head(self) -> bytes:
        """Hash of the last entry."""
        return self.entries[-1].hash if self.entries else genesis(self.run_id)

    def append(self, kind: Kind, body: Mapping[int, wire.Value]) -> Entry:
        """Add one entry; its body has exactly the fields of :data:`BODIES`."""
        return self._append(kind, body)

    def _append(self, kind: str, body: Mapping[int, wire.Value]) -> Entry:
        assert set(body) == set(BODIES[kind])
        sequence = len(self.entries)
        data = wire.encode({0: sequence, 1: self.head, 2: kind, 3: dict(body)})
        entry = _parse(data, sequence=sequence, before=self.head)
        self.entries.append(entry)
        return entry

    def add_message(
        self,
        round_index: int,
        attempt: int,
        *,
        sender: str,
        receiver: str,
        message: bytes,
        withheld: bool,
    ) -> Entry:
        """Add the entry of a message; beside it the message, unless it is withheld."""
        body: dict[int, wire.Value] = {0: round_index, 1: attempt, 2: sender}
        body |= {3: receiver, 4: hashlib.sha256(message).digest(), 5: int(withheld)}
        entry = self._append("message", body)
        if not withheld:
            self._messages[entry.sequence] = message
        return entry

    def message(self, entry: Entry) -> bytes:
        """The message beside ``entry``, which must be one that ``has_message``."""
        return self._messages[entry.sequence]

    def before(self, entry: Entry) -> Transcript:
        """The transcript as it was before ``entry`` was added."""
        out = Transcript(self.run_id)
        out.entries = self.entries[: entry.sequence]
        out._messages = {k: m for k, m in self._messages.items() if k < entry.sequence}
        return out

    def sign(self, aggregator: Identity) -> Entry:
        """The aggregator's signature over the head."""
        return self._signed("", countersign(aggregator, self.head))

    def add_signature(self, member: str, entry: Entry, signature: bytes) -> Entry:
        """A member's countersignature over ``entry``."""
        return self._signed(member, signature, entry)

    def _signed(
        self, signer: str, signature: bytes, entry: Entry | None = None
    ) -> Entry:
        signed = entry or self.entries[-1]
        return self.append("signature", {0: signer, 1: signed.sequence, 2: signature})

    def of_kind(self, kind: Kind | Literal["message"]) -> list[Entry]:
        return [e for e in self.entries if e.kind == kind]

    def to_bytes(self) -> bytes:
        """Deterministic CBOR ``[specification, run id, entries, messages]``.

        Both lists are of byte strings; the messages stand in their entries' order.
        """
        messages = [self.message(e) for e in self.entries if e.has_message]
        return wire.encode(
            [SPEC, self.run_id, [e.data for e in self.entries], messages]
        )

    @classmethod
    def from_bytes(cls, data: bytes) -> Transcript:
        """Parse, check the chain, and every message against its entry's hash.

        Raises VerificationError, nothing else.
        """
        try:
            value = wire.decode(data)
            match value:
                case [str(spec), bytes(run_id), list(items), list(messages)] if (
                    spec == SPEC
                ):
                    pass
                case _:
                    raise ProtocolError(f"not a transcript of {SPEC}")
            out = cls(run_id)
            for sequence, item in enumerate(items):
                if not isinstance(item, bytes):
                    raise ProtocolError(f"entry {sequence} is not a byte string")
                out.entries.append(_parse(item, sequence=sequence, before=out.head))
            out._lay_beside(messages)
        except ProtocolError as error:
            raise VerificationError(str(error)) from None
        return out

    def _lay_beside(self, messages: Sequence[wire.Value]) -> None:
        """Raises ProtocolError unless these are the messages that belong here."""
        owners = [e for e in self.entries if e.has_message]
        for entry, message in zip(owners, messages, strict=False):
            if not isinstance(message, bytes):
                raise ProtocolError("a message is not a byte string")
            if hashlib.sha256(message).digest() != entry.bytes_(4):
                raise ProtocolError(
                    f"the message of entry {entry.sequence} is missing or another one"
                )
            self._messages[entry.sequence] = message
        if len(messages) < len(owners):
            lacking = owners[len(messages)].sequence
            raise ProtocolError(f"the message of entry {lacking} is missing")
        if len(messages) > len(owners):
            raise ProtocolError("a message is left over that no entry has")


def countersign(identity: Identity, head: bytes) -> bytes:
    """A signature over the hash of an entry, and so over everything before it."""
    return identity.sign(_SIGN, head)


def check_signature(public_key: bytes, head: bytes, signature: bytes) -> bool:
    """Whether ``signature`` is ``public_key``'s over the entry with hash ``head``."""
    return wire.verify(public_key, signature, _SIGN, head)


def read_entries(data: Sequence[bytes], *, first: int) -> list[Entry]:
    """A piece of a log: entries one behind the other, the first with its place.

    Raises ProtocolError unless they form one chain; what the first follows on is for
    :func:`check_extension` to check.
    """
    out: list[Entry] = []
    for sequence, item in enumerate(data, start=first):
        before = out[-1].hash if out else wire.Fields(wire.decode(item)).bytes_(1)
        out.append(_parse(item, sequence=sequence, before=before))
    return out


def check_extension(
    entries: Iterable[Entry],
    *,
    head: bytes,
    member: str,
    sent: Sequence[Sent],
    may_miss: Collection[Sent] = (),
) -> bytes:
    """What a member checks before it countersigns: returns the new head.

    The entries continue the chain it signed last, and its own messages since then are
    all there in order (those in ``may_miss`` may be missing: they may have come late)
    and nothing else stands in its name.  Raises FaultyAggregator.
    """
    logged: list[Sent] = []
    for given in entries:
        # From its bytes: they are what is signed, whatever the object says.
        try:
            entry = _parse(given.data, sequence=given.sequence, before=head)
        except ProtocolError:
            raise FaultyAggregator(
                "the log does not continue the one we signed"
            ) from None
        head = entry.hash
        if entry.kind == "message" and entry.text(2) == member:
            logged.append((entry.integer(0), entry.integer(1), entry.bytes_(4)))
    if logged != [m for m in sent if m in logged or m not in may_miss]:
        raise FaultyAggregator("the log does not hold our messages as we sent them")
    return head
