# SPDX-License-Identifier: Apache-2.0
"""Both implementations give one answer to what no vector has: bent bytes, bent rows.

The vectors break one check each. Here several may be broken at once. SPEC 6 lets either
be met first where two parts of a message are wrong; both sides take them in the order
of their ids, so result, error and culprit are the same.
"""

from __future__ import annotations

import copy
import functools
import json
import random
import subprocess
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest

from secure_fl import wire

from ..vectors.test_vectors import load
from . import adapter
from .conftest import CLIENT

Json = dict[str, Any]
# Heads and bytes at which readers of CBOR and of UTF-8 go wrong.
TRICKY = bytes.fromhex(
    "0001171819 1a1b1f203738 3b40585f6061 7880818298 9fa0a1b8bfc0d8f4f6f7f9fbffed"
)


@functools.cache
def good(kind: str) -> list[Json]:
    """The cases of a kind that succeed; not to be changed."""
    return [case for case in load(kind) if "error" not in case["expect"]]


class Node:
    """The JavaScript client's conformance program, one question at a time."""

    def __init__(self, node: str) -> None:
        self.process = subprocess.Popen(
            [node, str(CLIENT / "conformance.js")],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def answer(self, request: Json) -> Json:
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        reply: Json = json.loads(self.process.stdout.readline())
        return reply


@pytest.fixture(scope="module")
def javascript(node: str) -> Iterator[Node]:
    made = Node(node)
    yield made
    made.process.kill()
    made.process.wait()


def comparable(reply: Json) -> Json:
    """Without what is random: a client's sealed boxes."""
    outcomes = reply.get("result", {}).get("outcomes", [])
    if len(outcomes) > 1 and "sent" in outcomes[1]:
        outcomes[1] = {"sent": "sealed afresh"}
    return reply


def agreed(javascript: Node, kind: str, given: Json) -> Json:
    """The answer of both to one question."""
    request = {"id": 1, "kind": kind, "input": given}
    ours = comparable(adapter.answer(request))
    assert comparable(javascript.answer(request)) == ours, json.dumps(request)
    return ours


def bent(data: bytes, draw: random.Random) -> bytes:
    """``data`` with one to three small changes."""
    out = bytearray(data)
    for _ in range(draw.choice([1, 1, 2, 3])):
        at = draw.randrange(len(out) + 1)
        match draw.randrange(4):
            case 0:
                out[at:at] = bytes([draw.choice(TRICKY)])
            case 1:
                del out[at : at + 1]
            case 2:
                out[at : at + 1] = bytes([draw.choice(TRICKY)])
            case _:
                out[at : at + 1] = bytes([draw.randrange(256)])
    return bytes(out)


def test_bent_bytes_are_read_or_refused_alike(javascript: Node) -> None:
    draw = random.Random(1)
    met = Counter[str]()
    for _ in range(1500):
        case = draw.choice(good("wire"))
        data = bent(bytes.fromhex(case["input"]["bytes"]), draw)
        met.update(agreed(javascript, "wire", {"bytes": data.hex()}).keys())
    for _ in range(500):
        given = dict(draw.choice(good("message"))["input"])
        given["bytes"] = bent(bytes.fromhex(given["bytes"]), draw).hex()
        met.update(agreed(javascript, "message", given).keys())
    # Neither side of the comparison is empty.
    assert met["result"] > 100
    assert met["error"] > 1000


def bent_rows(data: bytes, draw: random.Random) -> bytes:
    """A message that is well formed and wrong: rows changed, moved, left out."""
    tree = copy.deepcopy(wire.decode(data))
    assert isinstance(tree, dict)
    (rows,) = (value for value in tree.values() if isinstance(value, list))
    for _ in range(draw.choice([1, 1, 2])):
        if not rows:
            break
        row, other = draw.choice(rows), draw.choice(rows)
        assert isinstance(row, list)
        assert isinstance(other, list)
        place = draw.randrange(1, len(row))
        part = row[place]
        match draw.randrange(6):
            case 0:
                rows.remove(row)
            case 1:
                row[place] = copy.deepcopy(other[place])
            case 2:
                row[0] = draw.randrange(8)
            case 3:
                rows.append([draw.randrange(8), *copy.deepcopy(row[1:])])
            case 4 if isinstance(part, list) and part:
                part.pop()
            case _:
                if isinstance(part, bytes) and part:
                    at = draw.randrange(len(part))
                    flipped = bytes([part[at] ^ 1 << draw.randrange(8)])
                    row[place] = part[:at] + flipped + part[at + 1 :]
        if draw.random() < 0.9:
            rows.sort(key=lambda row: row[0] if isinstance(row, list) else 0)
    return wire.encode(tree)


def test_a_client_that_is_lied_to_says_the_same(javascript: Node) -> None:
    draw = random.Random(2)
    met = Counter[str]()
    for _ in range(200):
        given = copy.deepcopy(draw.choice(good("client"))["input"])
        operations = given["operations"][: draw.randrange(2, 6)]
        last = operations[-1]
        last["message"] = bent_rows(bytes.fromhex(last["message"]), draw).hex()
        given["operations"] = operations
        *_, outcome = agreed(javascript, "client", given)["result"]["outcomes"]
        met[outcome.get("error", "sent")] += 1
    assert min(met[e] for e in ("FaultyAggregator", "ProtocolError", "sent")) > 10


def grid(**more: Any) -> Json:
    """A plan whose step is one quarter."""
    return {
        "op": "encode",
        "clip": "1.0",
        "step": "0.25",
        "word_bits": 20,
        "clients": 4,
        "max_weight": 1,
        "weight": 1,
    } | more


EDGES: list[tuple[str, Json, Json]] = [
    # Padding that is not zero, in packed words of the right length.
    (
        "fixed_point",
        {"op": "unpack", "count": 3, "word_bits": 20, "bytes": "0100f0ffff050080"},
        {"error": "Refused"},
    ),
    # Exactly half way: up, on either side of zero.
    (
        "fixed_point",
        grid(x=["0.125", "-0.125"], dither=["0.5", "0.5"]),
        {"result": {"words": ["1", "0"], "clipped": 0}},
    ),
    # A byte order mark is text like any other.
    (
        "wire",
        {"bytes": "63efbbbf"},
        {"result": {"value": {"text": "\ufeff"}, "bytes": "63efbbbf"}},
    ),
    # A surrogate, and an overlong form of NUL.
    ("wire", {"bytes": "63eda080"}, {"error": "ProtocolError"}),
    ("wire", {"bytes": "62c080"}, {"error": "ProtocolError"}),
    # A length of 2^64 - 1, and an array of 2^32 values that are not there.
    ("wire", {"bytes": "5bffffffffffffffff"}, {"error": "ProtocolError"}),
    ("wire", {"bytes": "9b0000000100000000"}, {"error": "ProtocolError"}),
    # Deep enough to end a reader that calls itself.
    ("wire", {"bytes": "81" * 100_000 + "00"}, {"error": "ProtocolError"}),
]


@pytest.mark.parametrize(("kind", "given", "expected"), EDGES)
def test_an_edge_is_met_alike(
    javascript: Node, kind: str, given: Json, expected: Json
) -> None:
    assert agreed(javascript, kind, given) == {"id": 1} | expected
