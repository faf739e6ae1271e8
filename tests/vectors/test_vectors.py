# SPDX-License-Identifier: Apache-2.0
"""Every vector of protocols/masking, through the package."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from secure_fl import fixedpoint, identity, masking, wire
from secure_fl.errors import FaultyClient, ProtocolError, SecureFLError
from secure_fl.masking import crypto, messages, shamir
from secure_fl.masking.checks import share_commitment

from .generate import FILES, FOLDER, render

Case = dict[str, Any]


class Refused(Exception):
    """A primitive that answers no, without knowing whom that blames."""


def load(kind: str) -> list[Case]:
    content = json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    for case in content["cases"]:
        name = case["input"].get("session")
        if isinstance(name, str):
            case["input"]["session"] = content["sessions"][name]
    cases: list[Case] = content["cases"]
    return cases


def all_cases() -> list[Any]:
    return [
        pytest.param(kind, case, id=f"{kind}-{i}")
        for kind in FILES
        for i, case in enumerate(load(kind))
    ]


def refuse(no: bool) -> None:
    if no:
        raise Refused


def refused_by(call: Callable[..., Any], *args: Any, **named: Any) -> Any:
    """The result of a primitive whose ValueError says no."""
    try:
        return call(*args, **named)
    except ValueError:
        raise Refused from None


def outcome(error: Exception) -> Case:
    """An error as the vectors write it."""
    expect: Case = {"error": type(error).__name__}
    if isinstance(error, FaultyClient):
        expect["culprit"] = error.client
    return expect


def untagged(value: Case) -> wire.Value:
    ((kind, content),) = value.items()
    match kind:
        case "int":
            return int(content)
        case "bytes":
            return bytes.fromhex(content)
        case "text":
            return str(content)
        case "array":
            return [untagged(item) for item in content]
        case "map":
            return {key: untagged(item) for key, item in content}
    raise AssertionError(kind)


def session_of(s: Case) -> masking.Session:
    return masking.Session(
        bytes.fromhex(s["plan_hash"]),
        bytes.fromhex(s["run_id"]),
        s["round"],
        s["attempt"],
        identity.Roster(
            tuple(identity.Member(n, bytes.fromhex(k)) for n, k in s["roster"])
        ),
        bytes.fromhex(s["model_hash"]),
        masking.Parameters(**s["parameters"]),
    )


def words_of(texts: list[str], bits: int) -> np.ndarray[Any, np.dtype[Any]]:
    return np.array([int(t) for t in texts], fixedpoint.word_dtype(bits))


def texts(words: np.ndarray[Any, np.dtype[Any]]) -> list[str]:
    return [str(int(w)) for w in words]


# -- primitives -------------------------------------------------------------------


def run_wire(i: Case) -> Case:
    data = bytes.fromhex(i["bytes"])
    value = wire.decode(data)
    assert wire.encode(value) == data

    def tag(value: wire.Value) -> Case:
        match value:
            case int():
                return {"int": str(value)}
            case bytes():
                return {"bytes": value.hex()}
            case str():
                return {"text": value}
            case dict():
                return {"map": [[k, tag(v)] for k, v in value.items()]}
        assert isinstance(value, list)
        return {"array": [tag(item) for item in value]}

    return {"value": tag(value)}


def run_hash(i: Case) -> Case:
    parts = [untagged(p) for p in i["parts"]]
    if i["op"] == "digest":
        return {"digest": wire.digest(i["label"], *parts).hex()}
    public, signature = bytes.fromhex(i["public_key"]), bytes.fromhex(i["signature"])
    refuse(not wire.verify(public, signature, i["label"], *parts))
    return {"valid": True}


def run_tree(i: Case) -> Case:
    label, path = i["label"], [bytes.fromhex(n) for n in i["path"]]
    root = bytes.fromhex(i["root"])
    if "leaves" in i:
        leaves = [bytes.fromhex(leaf) for leaf in i["leaves"]]
        assert wire.merkle_root(label, leaves) == root
        assert wire.merkle_paths(label, leaves)[1][i["index"]] == path
    good = wire.verify_merkle_path(
        label,
        bytes.fromhex(i["leaf"]),
        index=i["index"],
        count=i["count"],
        path=path,
        root=root,
    )
    refuse(not good)
    return {"valid": True}


def run_key_text(i: Case) -> Case:
    public = identity.key_from_text(i["text"])
    assert identity.key_to_text(public) == i["text"]
    return {"public_key": public.hex()}


def run_context(i: Case) -> Case:
    return {"ctx": session_of(i["session"]).ctx.hex()}


def run_fixed_point(i: Case) -> Case:
    bits = i["word_bits"]
    if i["op"] == "unpack":
        data = bytes.fromhex(i["bytes"])
        words = refused_by(fixedpoint.unpack, data, i["count"], bits)
        assert fixedpoint.pack(words, bits) == data
        return {"words": texts(words)}
    if i["op"] == "decode":
        step = float(i["step"])
        encoding = fixedpoint.Encoding(clip=step, step=step, word_bits=bits, clients=1)
        return {
            "x": [repr(float(v)) for v in encoding.decode(words_of(i["words"], bits))]
        }
    encoding = fixedpoint.Encoding(
        clip=float(i["clip"]),
        step=float(i["step"]),
        word_bits=bits,
        clients=i["clients"],
        max_weight=i["max_weight"],
    )
    x, dither = (np.array([float(t) for t in i[k]]) for k in ("x", "dither"))
    words, clipped = encoding.encode(x, dither, weight=i["weight"])
    return {"words": texts(words), "clipped": clipped}


def run_keys(i: Case) -> Case:
    if i["op"] == "coefficients":
        out = crypto.elements(
            bytes.fromhex(i["random"]),
            "coefficients",
            i["count"],
            ctx=bytes.fromhex(i["ctx"]),
        )
        return {"coefficients": [shamir.to_bytes(v).hex() for v in out]}
    ctx = bytes.fromhex(i["ctx"])
    if i["op"] == "pair":
        low, high = i["pair"]
        seed = refused_by(
            crypto.pair_seed,
            crypto.private_key(bytes.fromhex(i["private_key"])),
            bytes.fromhex(i["public_key"]),
            ctx=ctx,
            cohort_hash=bytes.fromhex(i["cohort"]),
            pair=(low, high),
        )
        return {"seed": seed.hex()}
    random = bytes.fromhex(i["random"])
    beta, z = crypto.elements(random, "secrets", 2, ctx=ctx)
    seal_seed = crypto.derive(random, salt=ctx, label="seal key", parts=[])
    mask_key = crypto.mask_private_key(z, ctx=ctx)
    return {
        "beta": shamir.to_bytes(beta).hex(),
        "z": shamir.to_bytes(z).hex(),
        "seal_private_key": seal_seed.hex(),
        "seal_key": crypto.public_key(crypto.private_key(seal_seed)).hex(),
        "mask_private_key": mask_key.private_bytes_raw().hex(),
        "mask_key": crypto.public_key(mask_key).hex(),
        "self_seed": crypto.self_seed(beta, ctx=ctx).hex(),
    }


def run_attached(i: Case) -> Case:
    beta = shamir.from_bytes(bytes.fromhex(i["beta"]))
    return {"seed": crypto.attached_seed(beta, ctx=bytes.fromhex(i["ctx"])).hex()}


def run_shamir(i: Case) -> Case:
    if i["op"] == "element":
        value = shamir.element(bytes.fromhex(i["bytes"]))
        return {"element": shamir.to_bytes(value).hex()}
    if i["op"] == "parse":
        value = refused_by(shamir.from_bytes, bytes.fromhex(i["bytes"]))
        return {"element": shamir.to_bytes(value).hex()}
    if i["op"] == "reconstruct":
        shares = {
            int(x): shamir.from_bytes(bytes.fromhex(s)) for x, s in i["shares"].items()
        }
        return {"secret": shamir.to_bytes(shamir.reconstruct(shares)).hex()}
    secret, *coefficients = (
        shamir.from_bytes(bytes.fromhex(v)) for v in (i["secret"], *i["coefficients"])
    )
    out = shamir.share(secret, coefficients, i["xs"])
    return {"shares": [shamir.to_bytes(v).hex() for v in out]}


def run_stream(i: Case) -> Case:
    bits, count = i["word_bits"], i["count"]
    words = np.zeros(count, fixedpoint.word_dtype(bits))
    seed = bytes.fromhex(i["seed"])
    crypto.MaskStream(word_bits=bits, plus=[seed]).apply(words, i["chunk"])
    out = texts(words)
    crypto.MaskStream(word_bits=bits, plus=[], minus=[seed]).apply(words, i["chunk"])
    assert not words.any()
    return {"words": out}


def run_box(i: Case) -> Case:
    key = crypto.private_key(bytes.fromhex(i["private_key"]))
    ctx, cohort = bytes.fromhex(i["ctx"]), bytes.fromhex(i["cohort"])
    info: list[wire.Value] = [ctx, cohort, i["dealer"], i["to"]]
    plain = refused_by(crypto.open_box, bytes.fromhex(i["box"]), key, info=info)
    return {"plain": plain.hex()}


MESSAGES: dict[int, Callable[[bytes, masking.Session], Any]] = {
    1: messages.Advertise.decode,
    2: messages.CohortKeys.decode,
    3: messages.SealedShares.decode,
    5: messages.Chunk.decode,
    6: messages.MaskedInput.decode,
    7: messages.Statement.decode,
    8: messages.Agreement.decode,
    9: messages.Signatures.decode,
    10: messages.Reveal.decode,
}


def run_message(i: Case) -> Case:
    session, data = session_of(i["session"]), bytes.fromhex(i["bytes"])
    message: Any
    if i["kind"] == 4:
        message = messages.Inbox.decode(data, session, reader=i["reader"])
    else:
        message = MESSAGES[i["kind"]](data, session)
    assert message.encode(session) == data
    return {"accepted": True}


# -- a client -----------------------------------------------------------------------


def check_dealt(
    session: masking.Session, dealt: messages.SealedShares, expect: Case
) -> None:
    """A dealer's message, but for its boxes' ephemeral keys."""
    me, cohort = dealt.client, bytes.fromhex(expect["cohort"])
    assert dealt.commitment.hex() == expect["commitment"]
    assert [s.to for s in dealt.shares] == [row["to"] for row in expect["shares"]]
    for share, row in zip(dealt.shares, expect["shares"], strict=True):
        self_share, key_share = bytes.fromhex(row["self"]), bytes.fromhex(row["key"])
        for kind, value, got in (
            ("self", self_share, share.self_commitment),
            ("key", key_share, share.key_commitment),
        ):
            assert share_commitment(session, kind, me, share.to, value) == got
        if share.to == me:
            assert share.box == b""
            continue
        key = crypto.private_key(bytes.fromhex(row["seal_private_key"]))
        info: list[wire.Value] = [session.ctx, cohort, me, share.to]
        assert crypto.open_box(share.box, key, info=info) == self_share + key_share
    signed = messages.signed_shares(session, cohort, me, dealt.commitment, dealt.root())
    public, label = session.public_key(me), messages.SHARES_LABEL
    assert wire.verify(public, dealt.signature, label, *signed)


def run_client(i: Case, expect: Case) -> Case:
    session, me = session_of(i["session"]), i["client"]
    key = Ed25519PrivateKey.from_private_bytes(bytes.fromhex(i["identity"]))
    who = identity.Identity(session.name(me), key)
    state: Any = None
    sent: list[Any] = []
    for n, op in enumerate(i["operations"]):
        data = bytes.fromhex(op.get("message", ""))
        random = bytes.fromhex(op.get("random", ""))
        match op["op"]:
            case "start":
                state, advertise = masking.start(session, who, random=random)
                sent.append(advertise.encode(session).hex())
            case "cohort":
                cohort = messages.CohortKeys.decode(data, session)
                state, dealt = state.on_cohort(cohort, random=random)
                if "sent" in expect:
                    # What crosses the wire is what was dealt.
                    again = messages.SealedShares.decode(dealt.encode(session), session)
                    check_dealt(session, again, expect["sent"][n])
                    sent.append(expect["sent"][n])
            case "inbox":
                inbox = messages.Inbox.decode(data, session, reader=me)
                uploading = state.on_inbox(
                    inbox,
                    words_of(op["words"], session.parameters.word_bits),
                    claim=bytes.fromhex(op["claim"]),
                )
                upload = [c.encode(session).hex() for c in uploading.chunks()]
                state, masked = uploading.finish(attached=bytes.fromhex(op["attached"]))
                sent.append([*upload, masked.encode(session).hex()])
            case "statement":
                statement = messages.Statement.decode(data, session)
                state, agreement = state.on_statement(statement)
                sent.append(agreement.encode(session).hex())
            case "signatures":
                proof = messages.Signatures.decode(data, session)
                sent.append(state.on_signatures(proof).encode(session).hex())
        # Between any two messages a process may end.
        if op["op"] not in ("signatures", "start") and "sent" in expect:
            state = masking.unpark(session, who, state.park())
        assert n + 1 < len(i["operations"]) or "sent" in expect, "no error was met"
    return {"sent": sent}


# -- the aggregator -------------------------------------------------------------------


WANTED: dict[type, int] = {
    masking.CollectAdvertise: 1,
    masking.CollectShares: 3,
    masking.CollectInputs: 6,
    masking.CollectAgreements: 8,
    masking.CollectReveals: 10,
}


def receive(session: masking.Session, state: Any, op: Case) -> None:
    """Parse for the step that is open: the parser refuses what belongs to another."""
    sender, data = op["from"], bytes.fromhex(op["message"])
    try:
        if WANTED[type(state)] == 6 and messages.kind_of(data) == 5:
            state.add_chunk(sender, MESSAGES[5](data, session))
        else:
            state.add(sender, MESSAGES[WANTED[type(state)]](data, session))
    except FaultyClient:
        raise
    except ProtocolError as error:
        raise FaultyClient(session.name(sender), str(error)) from None


def run_aggregator(i: Case) -> Case:
    session = session_of(i["session"])
    state: Any = masking.CollectAdvertise(session)
    sent: list[Any] = []
    for op in i["operations"]:
        if op["op"] == "add":
            if "refused" in op:
                with pytest.raises(SecureFLError) as caught:
                    receive(session, state, op)
                assert outcome(caught.value) == op["refused"]
            else:
                receive(session, state, op)
        elif isinstance(state, masking.CollectReveals):
            opened = state.close()
            return {
                "sent": sent,
                "survivors": list(opened.survivors),
                "words": texts(opened.words),
            }
        else:
            state, out = state.close()
            if isinstance(out, dict):
                sent.append({str(k): m.encode(session).hex() for k, m in out.items()})
            else:
                sent.append(out.encode(session).hex())
    raise AssertionError("no error was met")


def run_omission(i: Case) -> Case:
    session = session_of(i["session"])
    masking.check_omission(
        session,
        i["client"],
        messages.Statement.decode(bytes.fromhex(i["statement"]), session),
        messages.Signatures.decode(bytes.fromhex(i["signatures"]), session),
    )
    return {"omitted": True}


RUN: dict[str, Callable[[Case], Case]] = {
    "wire": run_wire,
    "hash": run_hash,
    "tree": run_tree,
    "key_text": run_key_text,
    "context": run_context,
    "fixed_point": run_fixed_point,
    "keys": run_keys,
    "attached": run_attached,
    "shamir": run_shamir,
    "stream": run_stream,
    "box": run_box,
    "message": run_message,
    "aggregator": run_aggregator,
    "omission": run_omission,
}


def replay(kind: str, case: Case) -> Case:
    """What the package makes of a case, as the vectors write it."""
    input_, expect = case["input"], case["expect"]
    try:
        return run_client(input_, expect) if kind == "client" else RUN[kind](input_)
    except (SecureFLError, Refused) as error:
        return outcome(error)


@pytest.mark.parametrize(("kind", "case"), all_cases())
def test_vector(kind: str, case: Case) -> None:
    assert replay(kind, case) == case["expect"], case["description"]


@pytest.mark.parametrize("kind", ["client", "aggregator"])
def test_an_error_is_met_at_the_last_operation(kind: str) -> None:
    """All before it succeed: a vector holds one fault."""
    for case in load(kind):
        if "error" not in case["expect"]:
            continue
        shorter = {**case["input"], "operations": case["input"]["operations"][:-1]}
        if not shorter["operations"]:
            continue
        with pytest.raises(AssertionError, match="no error was met"):
            run_client(shorter, {}) if kind == "client" else run_aggregator(shorter)


def test_the_files_are_what_the_generator_writes() -> None:
    written = {p.name: p.read_text(encoding="utf-8") for p in FOLDER.iterdir()}
    assert written == render()


def test_the_vectors_stay_small() -> None:
    assert sum(p.stat().st_size for p in FOLDER.iterdir()) < 3_000_000
