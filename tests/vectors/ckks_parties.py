# SPDX-License-Identifier: Apache-2.0
"""The vectors of protocols/ckks through the package: its parties, one at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secure_fl import ckks, identity, keys, wire
from secure_fl.ckks import messages
from secure_fl.ckks.sampling import Shorts
from secure_fl.context import kind_of
from secure_fl.errors import (
    FaultyAggregator,
    FaultyClient,
    ProtocolError,
    SecureFLError,
    TooFewClients,
    UsageError,
)
from secure_fl.fixedpoint import pack, wrap

from . import ckks_reference as ref
from .ckks_replay import (
    MESSAGES,
    Case,
    hashed,
    integers,
    outcome,
    resolve,
    session_of,
)

RANDOM = b"\x01" * 32  # the secrets that are made of it come from the vector


@contextmanager
def derived(**secrets: bytes) -> Iterator[None]:
    """Secrets of a party as the vector has them, in place of those it derives."""
    derive = keys.derive

    def given(secret: bytes, *, salt: bytes, label: str, parts: list[Any]) -> bytes:
        name = label.removeprefix(f"{ckks.SPEC} ").replace(" ", "_")
        made = derive(secret, salt=salt, label=label, parts=parts)
        return secrets.get(name, made)

    with mock.patch.object(keys, "derive", given):
        yield


def identity_of(i: Case, name: str) -> identity.Identity:
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(i["identity"]))
    return identity.Identity(name, key)


def from_client(session: ckks.Session, sender: int, act: Callable[[], None]) -> None:
    """Bytes that do not parse are the fault of their sender."""
    try:
        act()
    except FaultyClient:
        raise
    except ProtocolError as error:
        raise FaultyClient(session.name(sender), str(error)) from None


class Aggregator:
    """Does the operations of upload.json and release.json, with a key holder."""

    def __init__(self, i: Case) -> None:
        self.data = i["data"]
        self.session = session_of(i["session"])
        self.holder = bytes.fromhex(i["session"]["keyholder"])
        self.who = identity_of(i, "aggregator")
        self.state: Any = None

    def _add(self, op: Case) -> None:
        for message in op["messages"]:
            data = resolve(message, self.data, self.session)
            from_client(self.session, op["from"], partial(self._one, op, data))

    def _one(self, op: Case, data: bytes) -> None:
        if kind_of(data) == 12:
            chunk = messages.Ciphertext.decode(data, self.session)
            self.state.add_chunk(op["from"], chunk)
        else:
            self.state.add(op["from"], messages.Input.decode(data, self.session))

    def perform(self, op: Case) -> Case:
        """What it sends, or opens."""
        session = self.session
        match op["op"]:
            case "call":
                with derived(aggregator_key=bytes.fromhex(op["private_key"])):
                    self.state = ckks.CollectHolderKey(
                        session, self.who, holder=self.holder, random=RANDOM
                    )
                return {"sent": self.state.call().encode().hex()}
            case "holder_key":
                data = resolve(op["message"], self.data, session)
                self.state.add(messages.HolderKey.decode(data, session))
                self.state, invitation = self.state.close()
                return {"sent": invitation.encode(session).hex()}
            case "add":
                self._add(op)
                return {}
            case "close":
                self.state, request = self.state.close()
                return {"sent": request.encode(session).hex()}
            case "answer":
                return self.opened(resolve(op["message"], self.data, session))
        raise AssertionError(op)

    def opened(self, data: bytes) -> Case:
        session, bits = self.session, self.session.parameters.word_bits
        self.state.add(MESSAGES[kind_of(data)].decode(data, session))
        words, survivors = self.state.close()
        signed = [str(ref.signed(int(w), bits)) for w in (*words[:3], *words[-3:])]
        return {
            "survivors": list(survivors),
            "first": signed[:3],
            "last": signed[3:],
            **hashed(pack(words, bits)),
        }


class OneTime:
    """The ciphertexts beside masking, which leads with one-time keys."""

    def __init__(self, i: Case) -> None:
        self.data = i["data"]
        self.session = session_of(i["session"])
        self.ciphertexts = ckks.Ciphertexts(self.session)
        self.accepted: list[int] = []

    def perform(self, op: Case) -> Case:
        if op["op"] == "close":
            return {"accepted": sorted(self.accepted)}
        sender = op["from"]
        for message in op["messages"]:
            data = resolve(message, self.data, self.session)
            from_client(self.session, sender, partial(self._take, sender, data))
        if "payload" in op:
            ready = self.ciphertexts.check(sender, bytes.fromhex(op["payload"]))
            self.ciphertexts.join(sender, ready)
            self.accepted.append(sender)
        return {}

    def _take(self, sender: int, data: bytes) -> None:
        chunk = messages.Ciphertext.decode(data, self.session)
        self.ciphertexts.add_chunk(sender, chunk)


def aggregator_of(i: Case) -> Aggregator | OneTime:
    return Aggregator(i) if "identity" in i else OneTime(i)


def run_aggregator(i: Case, expect: Case) -> Case:
    party, result = aggregator_of(i), {}
    sent: list[bytes] = []
    for op in i["operations"]:
        if "refused" in op:
            with pytest.raises(SecureFLError) as caught:
                party.perform(op)
            assert outcome(caught.value) == op["refused"]
            continue
        result = party.perform(op)
        if "sent" in result:
            sent.append(bytes.fromhex(result.pop("sent")))
    if "sent" in expect:
        want = [resolve(m, i["data"], party.session) for m in expect["sent"]]
        assert sent == want
        return {**result, "sent": expect["sent"]}
    return result


# -- the key holder, and a client ---------------------------------------------------


class Memory:
    """What a key holder keeps."""

    def __init__(self) -> None:
        self._kept: set[bytes] = set()

    def begin(self, ctx: bytes) -> None:
        if ctx in self._kept:
            raise UsageError("recorded before")
        self._kept.add(ctx)

    def begun(self, ctx: bytes) -> bool:
        return ctx in self._kept


class Holder:
    """A key holder that has a plan, and computes each context from a call."""

    def __init__(self, i: Case) -> None:
        self.plan, self.data = i["session"], i["data"]
        self.session = session_of(self.plan)
        self.who = identity_of(i, "key holder")
        self.holder = ckks.KeyHolder(
            self.who,
            aggregator=bytes.fromhex(self.plan["aggregator"]),
            session_of=self.called,
            record=Memory(),
        )

    def called(self, call: messages.Call) -> ckks.Session:
        self.session = session_of(
            self.plan,
            round=call.round_index,
            attempt=call.attempt,
            model_hash=call.model_hash.hex(),
            parameters={**self.plan["parameters"], "length": call.length},
        )
        return self.session

    def perform(self, op: Case) -> Case:
        """What it sends; with a refusal what that says."""
        data = resolve(op["message"], self.data, self.session)
        with derived(holder_key=bytes.fromhex(op.get("private_key", ""))):
            answer = self.holder.handle(data, random=RANDOM)
        if kind_of(answer) != 19:
            return {"sent": answer.hex()}
        refusal = messages.Refusal.decode(answer, self.session)
        error: SecureFLError = TooFewClients(0, 0)
        if refusal.culprit is not None:
            error = FaultyClient(self.session.name(refusal.culprit), "refused")
        return {**outcome(error), "refusal": answer.hex()}

    def met(self, op: Case) -> Case:
        """The same, errors included: others may follow."""
        try:
            return self.perform(op)
        except SecureFLError as error:
            return outcome(error)

    def released(self, answer: bytes, private: str) -> Case:
        """A release by its parts, its box opened."""
        release = messages.Release.decode(answer, self.session)
        signed = release.signed(self.session)
        public, label = self.who.public_key, f"{ckks.SPEC} release"
        assert wire.verify(public, release.signature, label, *signed)
        key = keys.private_key(bytes.fromhex(private))
        info = wire.encode([f"{ckks.SPEC} release box", self.session.ctx])
        plain = keys.open_box(release.box, key, info=info)
        return {
            "rows": [
                [c, payload.hex(), claim.hex()] for c, payload, claim in release.rows
            ],
            "aggregator_private_key": private,
            **hashed(plain),
        }


def run_keyholder(i: Case, expect: Case) -> Case:
    party = Holder(i)
    sent: list[Any] = []
    for op in i["operations"]:
        got = party.met(op)
        if "refused" in op:
            assert got == op["refused"]
        elif "error" in got:
            assert op is i["operations"][-1]
            return got
        else:
            answer = bytes.fromhex(got["sent"])
            if kind_of(answer) == 18 and "sent" in expect:
                # Where a later operation fails nobody says what to open it with.
                private = expect["sent"][len(sent)]["aggregator_private_key"]
                sent.append(party.released(answer, private))
            else:
                sent.append(got["sent"])
    return {"sent": sent}


def run_refusal(i: Case) -> Case:
    session = session_of(i["session"])
    refusal = messages.Refusal.decode(bytes.fromhex(i["message"]), session)
    holder = bytes.fromhex(i["session"]["keyholder"])
    if not ckks.is_refusal(session, refusal, holder=holder):
        raise FaultyAggregator("not the key holder's")
    return {"proves": True}


def uploaded(i: Case) -> list[bytes]:
    """What a client sends in answer to its invitation."""
    session, me = session_of(i["session"]), i["client"]
    holder, aggregator = (
        bytes.fromhex(i["session"][who]) for who in ("keyholder", "aggregator")
    )
    (op,) = i["operations"]
    data = resolve(op["message"], i["data"], session)
    invitation = messages.Invitation.decode(data, session)
    ckks.accept(session, invitation, holder=holder, aggregator=aggregator)
    key, *errors = (
        np.array(integers(recipe), np.int64) for recipe in (i["key"], *i["errors"])
    )
    words = wrap(np.array(integers(i["words"]), np.int64), session.parameters.word_bits)
    secrets = {k: bytes.fromhex(i[k]) for k in ("chunk_key", "seed")}
    with (
        derived(chunk_key=secrets["chunk_key"], cover_seed=secrets["seed"]),
        mock.patch.object(Shorts, "key", return_value=key),
        mock.patch.object(Shorts, "error", side_effect=lambda k, _: errors[k]),
    ):
        upload = ckks.Upload(
            session,
            identity_of(i, session.name(me)),
            invitation,
            words,
            claim=bytes.fromhex(i["claim"]),
            random=RANDOM,
        )
        sent = [chunk.encode(session) for chunk in upload.chunks()]
        return [*sent, upload.finish().encode(session)]


def run_client(i: Case, expect: Case) -> Case:
    *sent, last = uploaded(i)
    end = messages.Input.decode(last, session_of(i["session"]))
    return {"ciphertexts": [hashed(m) for m in sent], **looked_at(end, i, expect)}


def looked_at(end: messages.Input, i: Case, expect: Case) -> Case:
    """An input by its parts, its boxes opened."""
    session = session_of(i["session"])
    public, label = session.public_key(i["client"]), f"{ckks.SPEC} input"
    assert wire.verify(public, end.signature, label, *end.row().signed(session))
    assert end.client == i["client"]
    assert end.claim.hex() == i["claim"]
    plain = []
    for purpose, box, who in (
        ("key box", end.key_box, "holder_private_key"),
        ("chunk box", end.chunk_box, "aggregator_private_key"),
    ):
        key = keys.private_key(bytes.fromhex(expect[who]))
        parts: list[wire.Value] = [session.ctx, end.client, end.payload]
        info = wire.encode([f"{ckks.SPEC} {purpose}", *parts])
        plain.append(keys.open_box(box, key, info=info))
    assert plain[1].hex() == i["chunk_key"]
    return {
        "payload": end.payload.hex(),
        "key": hashed(plain[0]),
        "holder_private_key": expect["holder_private_key"],
        "aggregator_private_key": expect["aggregator_private_key"],
    }
