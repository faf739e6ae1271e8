# SPDX-License-Identifier: Apache-2.0
"""How many bytes a round across machines takes, exchange by exchange.

The messages are made, with empty contents, for a member in the middle of the roster
with the longest name: others' differ by a few bytes.  A carrier's own envelopes are not
counted.  Everybody is there, and the round is not the first one.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, final

from .. import ckks, masking, wire
from ..ckks import messages as sealed
from ..identity import Identity, key_to_text
from ..masking import messages
from ..plan import Plan
from ..randomness import SystemRandom
from ..round import KEY_HOLDER, log_form

__all__ = ["Exchange", "RoundSizes", "round_sizes"]

_HASH: Final = bytes(wire.HASH_BYTES)
_SIGNATURE: Final = bytes(wire.SIGNATURE_BYTES)
_KEY: Final = bytes(32)
_REQUEST: Final = 182  # bytes of a request beside name and message
_REPLY: Final = 24  # of a reply beside its messages
_PIECE: Final = 5  # of a reply's head, for each message in it
_MODEL: Final = 80  # of a model beside its values


@final
@dataclass(frozen=True)
class Exchange:
    """A message to each party that is asked, and what comes back: bytes for one.

    ``parties``: how many are asked; the key holder alone is one.
    """

    stage: str
    parties: int
    down: int
    up: int


@final
@dataclass(frozen=True)
class RoundSizes:
    """Of one round: its exchanges, in order, and two of their parts.

    vector_bytes
        of a client's vector as it is sent
    log_bytes
        of the log's entries, which every member gets and signs
    """

    exchanges: tuple[Exchange, ...]
    vector_bytes: int
    log_bytes: int


def round_sizes(plan: Plan, size: int) -> RoundSizes:
    """For a model of ``size`` float32 values, under masking or CKKS.

    Keys that the plan does not name yet are made up.
    """
    plan = plan if plan.complete else _completed(plan)
    session = plan.session(round_index=1, attempt=0, model_hash=_HASH, size=size)
    log = _Log(plan)
    if isinstance(session, masking.Session):
        rows = _masked(session, log)
    elif session.parameters.keys == "one-time":
        rows = _masked(plan.key_session(session), log, beside=session)
    else:
        rows = _with_holder(session, log)
    opening = rows[0]
    model = _MODEL + 4 * size
    rows[0] = Exchange(opening.stage, opening.parties, opening.down + model, opening.up)
    log.close()
    rows.append(log.exchange("signatures", log.bytes, [wire.SIGNATURE_BYTES]))
    p = session.parameters
    return RoundSizes(tuple(rows), sum(map(p.chunk_size, range(p.chunks))), log.bytes)


def _completed(plan: Plan) -> Plan:
    random = SystemRandom()

    def key() -> str:
        return key_to_text(Identity.new("", random=random).public_key)

    return plan.completed(
        keys={name: key() for name in plan.names},
        aggregator=key(),
        keyholder=key() if plan.has_keyholder else None,
        run_id=bytes(16),
        start_sha256=None,
    )


@final
class _Log:
    """The log of one round, as far as its bytes go."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._names = plan.names
        self._longest = len(max(plan.names, key=len))
        self._messages: list[dict[int, wire.Value]] = []
        self.bytes = 0

    def broadcast(self, message: bytes) -> None:
        self._message("", "", message)

    def to_each(self, message: bytes) -> None:
        for name in self._names:
            self._message("", name, message)

    def from_each(self, message: bytes) -> None:
        for name in self._names:
            self._message(name, "", message)

    def with_holder(self, asked: bytes, answer: bytes) -> None:
        self._message("", KEY_HOLDER, asked)
        self._message(KEY_HOLDER, "", answer)

    def _message(self, sender: str, receiver: str, message: bytes) -> None:
        withheld = int(log_form(message) == "withheld")
        self._messages.append(
            {0: 1, 1: 0, 2: sender, 3: receiver, 4: _HASH, 5: withheld}
        )

    def close(self) -> None:
        """All is said: what is signed begins behind the entry of the round before."""
        last = 1 + len(self._names) + len(self._messages)
        weight = sum(self._plan.member(name).weight for name in self._names)
        end: dict[int, wire.Value] = {0: 1, 1: 0, 2: _HASH, 3: list(self._names)}
        end |= {4: weight, 5: _HASH, 6: 0, 7: _HASH, 8: _HASH}
        rows: list[tuple[str, dict[int, wire.Value]]] = []
        for name in ("", *self._names):
            rows.append(("signature", {0: name, 1: last, 2: _SIGNATURE}))
        rows += [("message", body) for body in self._messages]
        rows.append(("round", end))
        for place, (kind, body) in enumerate(rows, start=last + 1):
            entry = wire.encode({0: place, 1: _HASH, 2: kind, 3: body})
            self.bytes += len(wire.encode(entry))

    def exchange(self, stage: str, down: int, up: Sequence[int]) -> Exchange:
        """With every member: ``down`` bytes to each, messages of ``up`` from each."""
        return _exchange(stage, len(self._names), self._longest + down, up)


def _exchange(stage: str, parties: int, down: int, up: Sequence[int]) -> Exchange:
    answer = _REPLY + sum(size + _PIECE for size in up)
    return Exchange(stage, parties, _REQUEST + down, answer)


def _chunks(count: int, encoded: Callable[[int], bytes]) -> list[int]:
    """Bytes of a vector's messages, of which all but the last are alike."""
    last = len(encoded(count - 1))
    return [len(encoded(0))] * (count - 1) + [last]


def _masked(
    s: masking.Session, log: _Log, *, beside: ckks.Session | None = None
) -> list[Exchange]:
    """The five steps of masking; ``beside``: ciphertexts whose keys it masks."""
    n, p = s.parameters.clients, s.parameters
    me, everybody = n // 2, range(n)
    box = bytes(messages.BOX)
    keys = [messages.KeyAnnouncement(i, _KEY, _KEY, _SIGNATURE) for i in everybody]
    shares = [
        messages.SealedShare(i, b"" if i == me else box, _HASH, _HASH)
        for i in everybody
    ]
    _, paths = wire.merkle_paths("", [b""] * n)
    inbox = messages.Inbox(
        tuple(
            messages.InboxEntry(
                i, _HASH, shares[i], tuple(paths[me]), _HASH, _SIGNATURE
            )
            for i in everybody
        )
    )
    attached = b"" if beside is None else _HASH
    survivors = tuple(messages.Survivor(i, _HASH, _HASH, attached) for i in everybody)
    agreements = tuple(messages.Agreement(i, _SIGNATURE) for i in everybody)
    revealed = tuple(messages.RevealedShare(i, "self", _KEY) for i in everybody)

    advertise = messages.Advertise(keys[me]).encode(s)
    cohort = messages.CohortKeys(tuple(keys)).encode(s)
    sealed_shares = messages.SealedShares(me, _HASH, tuple(shares), _SIGNATURE).encode(
        s
    )
    boxes = inbox.encode(s)
    chunks = _chunks(
        p.chunks, lambda i: messages.Chunk(me, i, bytes(p.chunk_size(i))).encode(s)
    )
    if beside is not None:
        chunks += _ciphertexts(beside, me, tag=0)
    masked_input = messages.MaskedInput(
        me, _HASH, _HASH, _HASH, attached, _SIGNATURE
    ).encode(s)
    statement = messages.Statement(_HASH, _HASH, survivors).encode(s)
    agreement = agreements[me].encode(s)
    signatures = messages.Signatures(agreements).encode(s)
    reveal = messages.Reveal(me, revealed, _SIGNATURE).encode(s)

    for message in (advertise, sealed_shares, masked_input, agreement, reveal):
        log.from_each(message)
    for message in (cohort, statement, signatures):
        log.broadcast(message)
    log.to_each(boxes)
    return [
        log.exchange("keys", 0, [len(advertise)]),
        log.exchange("shares", len(cohort), [len(sealed_shares)]),
        log.exchange("vectors", len(boxes), [*chunks, len(masked_input)]),
        log.exchange("consistency", len(statement), [len(agreement)]),
        log.exchange("unmask", len(signatures), [len(reveal)]),
    ]


def _ciphertexts(s: ckks.Session, me: int, *, tag: int) -> list[int]:
    p = s.parameters
    return _chunks(
        p.chunks,
        lambda i: sealed.Ciphertext(me, i, bytes(p.chunk_size(i) + tag)).encode(s),
    )


def _with_holder(s: ckks.Session, log: _Log) -> list[Exchange]:
    """CKKS whose sums of keys a key holder releases."""
    n = s.parameters.clients
    me = n // 2
    key_box = bytes(sealed.key_box_size(s))
    call = sealed.Call(
        _HASH, 1, 0, _HASH, s.parameters.length, _KEY, _SIGNATURE
    ).encode()
    holder = sealed.HolderKey(_KEY, _SIGNATURE)
    invitation = sealed.Invitation(holder, _KEY, _SIGNATURE).encode(s)
    chunks = _ciphertexts(s, me, tag=sealed.TAG)
    sent = sealed.Input(
        me, _HASH, _HASH, key_box, bytes(sealed.CHUNK_BOX), _SIGNATURE
    ).encode(s)
    asked = sealed.Request(
        tuple(
            sealed.Row(i, _HASH, _HASH, key_box, _HASH, _SIGNATURE) for i in range(n)
        ),
        _SIGNATURE,
    ).encode(s)
    release = sealed.Release(
        tuple((i, _HASH, _HASH) for i in range(n)),
        bytes(sealed.release_box_size(s, n)),
        _SIGNATURE,
    ).encode(s)
    key = holder.encode(s)

    log.with_holder(call, key)
    log.broadcast(invitation)
    log.from_each(sent)
    log.with_holder(asked, release)
    return [
        log.exchange("keys", 0, []),
        _exchange("keys", 1, len(KEY_HOLDER) + len(call), [len(key)]),
        log.exchange("vectors", len(invitation), [*chunks, len(sent)]),
        _exchange("release", 1, len(KEY_HOLDER) + len(asked), [len(release)]),
    ]
