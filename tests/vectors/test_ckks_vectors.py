# SPDX-License-Identifier: Apache-2.0
"""Every vector of protocols/ckks, through the package."""

from __future__ import annotations

import importlib.util
import json
import re
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest

from secure_fl.errors import SecureFLError

from . import ckks_parties as parties
from . import ckks_reference as ref
from . import ckks_replay as primitives
from .ckks_generate import FILES, FOLDER, render
from .ckks_replay import Case, Refused, load, outcome
from .reference import aes_ctr, digest

SPEC_FILE = FOLDER.parents[1] / "SPEC.md"

RUN: dict[str, Callable[[Case], Case]] = {
    "parameters": primitives.run_parameters,
    "context": primitives.run_context,
    "polynomial": primitives.run_polynomial,
    "points": primitives.run_points,
    "residues": primitives.run_residues,
    "encrypt": primitives.run_encrypt,
    "open": primitives.run_open,
    "message": primitives.run_message,
    "refusal": parties.run_refusal,
}


def run(kind: str, case: Case) -> Case:
    input_, expect = case["input"], case["expect"]
    match kind:
        case "client":
            return parties.run_client(input_, expect)
        case "keyholder":
            return parties.run_keyholder(input_, expect)
        case "upload" | "release":
            return parties.run_aggregator(input_, expect)
    return RUN[kind](input_)


def replay(kind: str, case: Case) -> Case:
    """What the package makes of a case, as the vectors write it."""
    try:
        return run(kind, case)
    except (SecureFLError, Refused) as error:
        return outcome(error)


# These multiply polynomials; all else needs no more than the package itself.
MULTIPLYING = {"points", "encrypt", "open", "release", "client"}
BACKEND = all(importlib.util.find_spec(name) for name in ("tenseal", "zstandard"))
needs_backend = pytest.mark.skipif(not BACKEND, reason="the extra `ckks`")


def all_cases() -> list[Any]:
    return [
        pytest.param(
            kind,
            case,
            id=f"{kind}-{i}",
            marks=[needs_backend] if kind in MULTIPLYING else [],
        )
        for kind in FILES
        for i, case in enumerate(load(kind))
    ]


@pytest.mark.parametrize(("kind", "case"), all_cases())
def test_vector(kind: str, case: Case) -> None:
    assert replay(kind, case) == case["expect"], case["description"]


@pytest.mark.parametrize("kind", ["upload", "release", "keyholder"])
def test_an_error_is_met_at_the_last_operation(kind: str) -> None:
    """All before it succeed: a vector holds one fault."""
    for case in load(kind):
        shorter = case["input"]["operations"][:-1]
        if "error" not in case["expect"] or not shorter:
            continue
        cut = {"input": {**case["input"], "operations": shorter}, "expect": {}}
        assert "error" not in run(kind, cut)


# -- the files ------------------------------------------------------------------------


def test_the_files_are_what_the_generator_writes() -> None:
    written = {p.name: p.read_text(encoding="utf-8") for p in FOLDER.iterdir()}
    assert written == render()


def test_the_vectors_stay_small() -> None:
    sizes = [p.stat().st_size for p in FOLDER.iterdir()]
    assert sum(sizes) < 1_500_000
    assert max(sizes) < 300_000


def test_every_check_is_broken_by_a_vector() -> None:
    """Those of this specification; form (E) is masking's."""
    text = SPEC_FILE.read_text(encoding="utf-8")
    ids = re.findall(r"^\| ([A-Z][0-9]+) \|", text, re.MULTILINE)
    assert len(ids) == len(set(ids))
    checks = {case.get("check", "E0") for kind in FILES for case in load(kind)}
    assert {c for c in checks if c[0] != "E"} == set(ids)


def test_most_vectors_fail_and_only_they_name_a_check() -> None:
    counted = Counter[bool]()
    for kind in FILES:
        for case in load(kind):
            counted["error" in case["expect"]] += 1
            assert ("check" in case) == ("error" in case["expect"])
    assert counted[True] > counted[False]


def test_the_ring_table_of_the_spec_is_the_one_of_its_words() -> None:
    text = SPEC_FILE.read_text(encoding="utf-8")
    row = r"^\| (\d+) \| (\d\d) \| ([\d, ]+) \| ([\d, ]+) \|$"
    rows = re.findall(row, text, re.MULTILINE)
    table = {
        (int(size), int(bits)): tuple(
            (2 ** int(bits) - int(below), int(psi))
            for below, psi in zip(p.split(","), roots.split(","), strict=True)
        )
        for size, bits, p, roots in rows
    }
    wanted = [(size, bits) for size in ref.SIZES for bits in ref.PRIME_BITS]
    assert table == {which: ref.ring(*which) for which in wanted}


def test_evaluation_is_evaluation() -> None:
    """The reference's transform against the sum that 3.1 says it is."""
    for size, bits in ((4096, 54), (8192, 60)):
        for p, psi in ref.ring(size, bits):
            a = [pow(3, i, p) for i in range(size)]
            values = ref.evaluate(a, p, psi)
            for j in (0, 1, 2, size // 3, size - 1):
                x, total = pow(psi, 2 * ref.reverse(j, size) + 1, p), 0
                for coefficient in reversed(a):
                    total = (total * x + coefficient) % p
                assert values[j] == total
            assert ref.interpolate(values, p, psi) == a


def test_a_number_is_left_out() -> None:
    """One vector's polynomial is not the first N numbers of its stream."""
    cases = json.loads((FOLDER / "polynomial.json").read_text(encoding="utf-8"))
    case = next(c for c in cases["cases"] if "left out" in c["description"])
    given = case["input"]
    ctx, size, bits = bytes.fromhex(given["ctx"]), given["N"], given["prime_bits"]
    key = digest(f"{ref.SPEC} polynomials", ctx)
    counter = (given["block"] * 2 + 1).to_bytes(8, "big") + bytes(8)
    stream = aes_ctr(key, 8 * size, counter)
    plain = [
        int.from_bytes(stream[8 * i : 8 * i + 8], "little") % 2**bits
        for i in range(size)
    ]
    drawn = list(ref.public_polynomial(ctx, size, bits, given["block"], 1))
    assert plain[3018] >= ref.ring(size, bits)[1][0]
    assert drawn[:-1] == [*plain[:3018], *plain[3019:]]
