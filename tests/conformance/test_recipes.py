# SPDX-License-Identifier: Apache-2.0
"""The runner writes recipes out as the vectors' own code does, byte for byte."""

from __future__ import annotations

import json
import random

import pytest
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from ..vectors import ckks_reference as ref
from ..vectors import ckks_replay as replay
from ..vectors.ckks_generate import FILES, FOLDER
from ..vectors.ckks_replay import Case
from ..vectors.ckks_residues import pack_residues
from ..vectors.ckks_world import expanded
from .helpers import helper

aes_gcm, recipes = helper("aes_gcm"), helper("ckks_recipes")


@pytest.mark.parametrize("size", [0, 1, 15, 16, 17, 32, 1000])
def test_gcm_is_gcm(size: int) -> None:
    some = random.Random(size)
    key, nonce, plain = some.randbytes(32), some.randbytes(12), some.randbytes(size)
    assert aes_gcm.seal(key, nonce, plain) == AESGCM(key).encrypt(nonce, plain, None)


@pytest.mark.parametrize("counter", [0, 5 << 64, 2**64 - 2, 2**128 - 2])
def test_counter_mode_is_counter_mode(counter: int) -> None:
    key = bytes(range(32))
    mode = modes.CTR(counter.to_bytes(16, "big"))
    wanted = Cipher(algorithms.AES(key), mode).encryptor().update(bytes(16 * 5))
    assert aes_gcm.stream(key, counter, 5) == wanted


@pytest.mark.parametrize("size", ref.SIZES)
@pytest.mark.parametrize("bits", [54, 57, 60])
def test_rings_and_residues(size: int, bits: int) -> None:
    assert recipes.ring_of(size, bits) == ref.ring(size, bits)
    some = random.Random(bits)
    polynomial = [some.randrange(2**bits) for _ in range(size)]
    assert recipes.pack(polynomial, bits) == pack_residues(polynomial, bits)
    p, psi = ref.ring(size, bits)[-1]
    values = recipes.evaluations(polynomial, psi, p)
    assert values == ref.evaluate(polynomial, p, psi)
    assert recipes.coefficients(values, psi, p) == [x % p for x in polynomial]


def with_recipes(case: Case) -> list[Case]:
    """The parts of an input in which recipes may stand."""
    given: Case = case["input"]
    return [given, *given.get("operations", []), *given.get("parties", [])]


@pytest.mark.parametrize("kind", FILES)
def test_each_file_is_written_out(kind: str) -> None:
    content = json.loads((FOLDER / f"{kind}.json").read_text(encoding="utf-8"))
    data, compared = content.get("data", {}), 0
    made: dict[str, object] = {}
    for case in replay.load(kind):
        session, key = case["input"].get("session"), ""
        if session is not None:
            key = json.dumps(session)
        one = made.setdefault(key, recipes.Recipes(data, session))
        assert isinstance(one, recipes.Recipes)
        plain = {"input": one.plain(case["input"])}
        for written, out in zip(with_recipes(case), with_recipes(plain), strict=True):
            for name, value in written.items():
                match name:
                    case "message" | "bytes":
                        wanted: object = bytes_of(value, data, session)
                    case "messages":
                        wanted = [bytes_of(m, data, session) for m in value]
                    case "key" | "error":
                        wanted = expanded(value)
                    case "errors":
                        wanted = [expanded(error) for error in value]
                    case "words":
                        wanted = list(map(str, expanded(value)))
                    case _:
                        continue
                assert out[name] == wanted
                compared += 1
        sent = case["expect"].get("sent")
        if isinstance(sent, list):
            for before, after in zip(
                sent, one.sent(case["expect"])["sent"], strict=True
            ):
                described = isinstance(before, dict) and "rows" in before
                assert after == (
                    before if described else bytes_of(before, data, session)
                )
    assert compared or kind in (
        "parameters",
        "context",
        "polynomial",
        "points",
        "residues",
    )


def bytes_of(value: object, data: Case, session: Case) -> str:
    if isinstance(value, str):
        return value
    return replay.resolve(value, data, replay.session_of(session)).hex()
