# SPDX-License-Identifier: Apache-2.0
"""The vectors of protocols/ckks through the package: arithmetic and messages."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

import numpy as np
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from numpy.typing import NDArray

from secure_fl import ckks, identity, masking
from secure_fl.ckks import backend, messages, residues, rings
from secure_fl.ckks.sampling import Polynomials
from secure_fl.errors import FaultyClient
from secure_fl.fixedpoint import pack

from . import ckks_reference as ref
from .ckks_generate import FOLDER
from .ckks_residues import pack_chunk
from .ckks_seeds import expand_bytes
from .ckks_steps import seal_chunk
from .ckks_world import expanded, residues_chunk

Case = dict[str, Any]
U64 = NDArray[np.uint64]


class Refused(Exception):
    """A primitive that answers no, without knowing whom that blames."""


def load(kind: str) -> list[Case]:
    """The cases of a file, with its sessions and data in them."""
    content = json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    for case in content["cases"]:
        name = case["input"].get("session")
        if isinstance(name, str):
            case["input"]["session"] = content["sessions"][name]
        case["input"]["data"] = content.get("data", {})
    cases: list[Case] = content["cases"]
    return cases


def outcome(error: Exception) -> Case:
    """An error as the vectors write it."""
    expect: Case = {"error": type(error).__name__}
    if isinstance(error, FaultyClient):
        expect["culprit"] = error.client
    return expect


def hashed(data: bytes) -> Case:
    return {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)}


# -- contexts, and bytes from recipes ---------------------------------------------


def packing_of(i: Case, clients: int) -> rings.Packing:
    ring = rings.ring(i["N"], i["prime_bits"])
    return rings.Packing(ring, clients, i["word_bits"], i["fields"], i["scale_bits"])


def parameters_of(p: Case) -> ckks.Parameters:
    return ckks.Parameters(
        clients=p["clients"],
        length=p["length"],
        packing=packing_of(p, p["clients"]),
        chunk_blocks=p["chunk_blocks"],
        min_clients=p["min_clients"],
        max_colluding=p["max_colluding"],
        keys=p["keys"],
    )


def session_of(s: Case, **changes: Any) -> ckks.Session:
    s = {**s, **changes}
    return ckks.Session(
        bytes.fromhex(s["plan_hash"]),
        bytes.fromhex(s["run_id"]),
        s["round"],
        s["attempt"],
        identity.Roster(
            tuple(identity.Member(n, bytes.fromhex(k)) for n, k in s["roster"])
        ),
        bytes.fromhex(s["model_hash"]),
        parameters_of(s["parameters"]),
    )


def bare_session(i: Case, *, length: int = 1, clients: int = 2) -> ckks.Session:
    """A context of which a vector gives no more than ``ctx`` and the packing."""
    roster = tuple(
        identity.Member(f"bank-{n}", public_of(bytes([n + 1] * 32)))
        for n in range(clients)
    )
    parameters = ckks.Parameters(
        clients=clients,
        length=length,
        packing=packing_of(i, clients),
        chunk_blocks=1,
        min_clients=2,
        max_colluding=0,
        keys="keyholder",
    )
    zeros, who = bytes(32), identity.Roster(roster)
    session = ckks.Session(zeros, bytes(16), 0, 0, who, zeros, parameters)
    object.__setattr__(session, "ctx", bytes.fromhex(i["ctx"]))
    return session


def public_of(seed: bytes) -> bytes:
    return Ed25519PrivateKey.from_private_bytes(seed).public_key().public_bytes_raw()


def resolve(value: Any, data: Mapping[str, Any], session: ckks.Session) -> bytes:
    """The bytes that hex, an array or a recipe stands for."""

    def inner(value: Any) -> bytes:
        match value:
            case str():
                return bytes.fromhex(value)
            case list():
                return b"".join(inner(part) for part in value)
            case {"data": name}:
                return inner(data[name])
            case {"expand": seed, "bytes": count}:
                return expand_bytes(seed, count)
            case {"cut": count, "of": whole}:
                return inner(whole)[:-count]
            case {"at": at, "to": to, "of": whole}:
                before, to = inner(whole), bytes.fromhex(to)
                return before[:at] + to + before[at + len(to) :]
            case {"sealed": chunk, "key": key, "index": index}:
                return seal_chunk(bytes.fromhex(key), index, inner(chunk))
            case {"residues": _}:
                return residues_chunk(reference_packing(session), value)
            case {"encrypt": what, "chunk": index}:
                return encrypted(what, index, session)
        raise AssertionError(value)

    return inner(value)


def reference_packing(session: ckks.Session) -> ref.Packing:
    p = session.parameters.packing
    return ref.Packing(p.ring.degree, p.ring.bits, p.fields, p.scale_bits)


def encrypted(what: Case, chunk: int, session: ckks.Session) -> bytes:
    """A chunk as the second implementation makes it."""
    packing, ctx = reference_packing(session), session.ctx
    words, key = expanded(what["words"]), expanded(what["key"])
    width, seed = packing.size * packing.fields, bytes.fromhex(what["seed"])
    out = []
    for k in range(*session.parameters.chunk_range(chunk)):
        part, error = words[k * width : (k + 1) * width], expanded(what["errors"][k])
        bits = session.parameters.word_bits
        block = ref.encrypt(ctx, packing, bits, k, part, key, error)
        cover = ref.cover(ctx, packing, what["client"], seed, k)
        out.append(ref.add([block, cover], packing.primes))
    return pack_chunk(out, packing.prime_bits)


def integers(value: Any) -> list[int]:
    """Those of a recipe; or they are written out, as the runner does."""
    return list(map(int, value)) if isinstance(value, list) else expanded(value)


# -- primitives -------------------------------------------------------------------


def run_parameters(i: Case) -> Case:
    if i["op"] == "ring":
        primes = rings.ring(i["N"], i["prime_bits"]).primes
        return {
            "primes": [str(p.value) for p in primes],
            "psi": [str(p.root) for p in primes],
        }
    if i["op"] == "choose":
        p = ckks.choose_packing(i["clients"], i["word_bits"], i["length"])
        return {
            "N": p.ring.degree,
            "prime_bits": p.ring.bits,
            "fields": p.fields,
            "scale_bits": p.scale_bits,
            "key_bits": ckks.key_bits(i["clients"]),
        }
    parameters = parameters_of(i["parameters"])
    return {"blocks": parameters.blocks, "chunks": parameters.chunks}


def run_context(i: Case) -> Case:
    s = session_of(i["session"])
    p, bits = s.parameters, ckks.key_bits(s.parameters.clients)
    out: Case = {"ctx": s.ctx.hex(), "key_bits": bits}
    if p.keys == "one-time":
        degree = p.packing.ring.degree
        parameters = masking.Parameters(
            clients=p.clients,
            length=degree,
            word_bits=bits,
            chunk_words=degree,
            threshold=i["session"]["threshold"],
            min_clients=p.min_clients,
            max_colluding=p.max_colluding,
        )
        of_keys = masking.Session(
            s.plan_hash,
            s.run_id,
            s.round_index,
            s.attempt,
            s.roster,
            s.ctx,
            parameters,
        )
        out["keys_ctx"] = of_keys.ctx.hex()
    return out


def numbers(values: U64) -> Case:
    return {
        "first": [str(int(v)) for v in values[:4]],
        "last": [str(int(v)) for v in values[-4:]],
        **hashed(values.astype("<u8").tobytes()),
    }


def run_polynomial(i: Case) -> Case:
    session = bare_session({**i, "word_bits": 8, "fields": 1, "scale_bits": 9})
    drawn = Polynomials.public(session)
    if "seed" in i:
        seed = bytes.fromhex(i["seed"])
        drawn = Polynomials.cover(session, i["client"], seed)
    return {"polynomials": [numbers(a) for a in drawn.draw(i["block"])]}


def run_points(i: Case) -> Case:
    prime = rings.ring(i["N"], i["prime_bits"]).primes[i["prime"]]
    x = np.zeros(prime.degree, np.uint64)
    x[1] = 1
    return numbers(backend._ring(prime).evaluations(x))


def run_residues(i: Case) -> Case:
    block = i["block"]
    ring = rings.ring(block["N"], block["prime_bits"])
    shape = (len(ring.primes), ring.degree)
    raw = expand_bytes(block["residues"], 8 * shape[0] * shape[1])
    values = np.frombuffer(raw, "<u8").reshape(shape).copy()
    for row, prime in zip(values, ring.primes, strict=True):
        row %= np.uint64(prime.value)
    for at, value in block.get("set", []):
        values.reshape(-1)[at] = int(value)
    if i["op"] == "write":
        return write(values, ring)
    data = residues.pack_blocks(values, ring.bits)
    return read(data[: len(data) - i.get("cut", 0)] + bytes(i.get("append", 0)), ring)


def write(values: U64, ring: rings.Ring) -> Case:
    data = residues.pack_blocks(values, ring.bits)
    assert np.array_equal(residues.unpack_blocks(data, ring)[0], values)
    return {"first": data[:32].hex(), "last": data[-32:].hex(), **hashed(data)}


def read(data: bytes, ring: rings.Ring) -> Case:
    try:
        blocks = residues.unpack_blocks(data, ring)
    except ValueError:
        raise Refused from None
    if len(blocks) != 1 or not residues.reduced(blocks, ring):
        raise Refused
    return {}


def ciphertext(
    session: ckks.Session, block: int, words: list[int], key: Any, error: Any
) -> U64:
    """A block's ``c`` by the package's own arithmetic."""
    packing = session.parameters.packing
    units = np.zeros(packing.values, np.int64)
    units[: len(words)] = words
    factor, noise = (np.array(integers(x), np.int64) for x in (key, error))
    total = residues.encode_words(
        units.reshape(packing.fields, packing.ring.degree), packing, noise
    )
    return residues.add_mod(total, times(session, block, factor), packing.ring)


def times(session: ckks.Session, block: int, factor: NDArray[np.int64]) -> U64:
    drawn = Polynomials.public(session).draw(block)
    primes = session.parameters.packing.ring.primes
    return np.stack(
        [
            backend.Multiplier(factor, prime).times(row[None])[0]
            for row, prime in zip(drawn, primes, strict=True)
        ]
    )


def run_encrypt(i: Case) -> Case:
    block = i["block"]
    session = bare_session(i)
    ring, words = session.parameters.packing.ring, integers(i["words"])
    c = ciphertext(session, block, words, i["key"], i["error"])
    cover = Polynomials.cover(session, i["client"], bytes.fromhex(i["seed"]))
    sent = residues.add_mod(c, cover.draw(block), ring)
    return {
        "residues": [[str(int(v)) for v in (*row[:2], row[-1])] for row in c],
        **hashed(residues.pack_blocks(c, ring.bits)),
        "sent": hashed(residues.pack_blocks(sent, ring.bits)),
    }


def run_open(i: Case) -> Case:
    parties = i["parties"]
    session = bare_session(i, length=i["length"], clients=len(parties))
    packing = session.parameters.packing
    ring, bits = packing.ring, packing.word_bits
    total = np.zeros(
        (session.parameters.blocks, len(ring.primes), ring.degree), np.uint64
    )
    key_sum, seeds = np.zeros(ring.degree, np.int64), {}
    for party in parties:
        seed, words = bytes.fromhex(party["seed"]), integers(party["words"])
        if party.get("only") != "key":
            cover = Polynomials.cover(session, party["client"], seed)
            for k in range(len(total)):
                some = words[k * packing.values : (k + 1) * packing.values]
                error = party["errors"][k]
                c = ciphertext(session, k, some, party["key"], error)
                for one in (c, cover.draw(k)):
                    total[k] = residues.add_mod(total[k], one, ring)
        if party.get("only") != "ciphertext":
            key_sum += np.array(integers(party["key"]), np.int64)
            given = party.get("given_seed", party["seed"])
            seeds[party["client"]] = bytes.fromhex(given)
    for block, at, value in i["added"]:
        for row, prime in zip(total[block], ring.primes, strict=True):
            row[at] = (int(row[at]) + int(value)) % prime.value
    for at, value in i["added_key"]:
        key_sum[at] += value
    sent = b"".join(residues.pack_blocks(block, ring.bits) for block in total)
    assert hashed(sent) == i["total"]
    opened = ckks.open_sum(session, total, key_sum, seeds)
    signed = [ref.signed(int(w), bits) for w in (*opened[:3], *opened[-3:])]
    return {"sums": [str(v) for v in signed], **hashed(pack(opened, bits))}


# -- messages -----------------------------------------------------------------------

MESSAGES: dict[int, Any] = {
    12: messages.Ciphertext,
    14: messages.HolderKey,
    15: messages.Invitation,
    16: messages.Input,
    17: messages.Request,
    18: messages.Release,
    19: messages.Refusal,
}


def again(data: bytes, kind: int, session: ckks.Session) -> bytes:
    """What was parsed, encoded."""
    if kind == 13:
        return messages.Call.decode(data).encode()
    out: bytes = MESSAGES[kind].decode(data, session).encode(session)
    return out


def run_message(i: Case) -> Case:
    session = session_of(i["session"])
    data = resolve(i["bytes"], i["data"], session)
    assert again(data, i["kind"], session) == data
    return {"accepted": True}
