# SPDX-License-Identifier: Apache-2.0
"""Products by SEAL against schoolbook ones in Python integers, and what it leaves."""

from __future__ import annotations

import gc
import importlib.util
import os
import pickle
import stat
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from secure_fl.ckks import backend, backend_version, require_backend
from secure_fl.ckks.backend import Multiplier
from secure_fl.ckks.rings import Prime, ring
from secure_fl.errors import EngineError, UsageError

for name in ("tenseal", "zstandard"):
    pytest.importorskip(name, reason="protection `ckks` needs tenseal")

PRIMES = [
    *ring(4096, 54).primes,
    *ring(4096, 60).primes,
    *ring(8192, 54).primes,
    *ring(8192, 60).primes,
]
Sparse = dict[int, int]
U64 = NDArray[np.uint64]

in_every_field = pytest.mark.parametrize(
    "prime", PRIMES, ids=lambda p: f"{p.degree}-{p.bits}-{p.root}"
)


def points(prime: Prime) -> list[int]:
    """SPEC 3.1: where evaluation ``j`` is taken."""
    size = prime.degree.bit_length() - 1
    odd = [2 * int(f"{j:0{size}b}"[::-1], 2) + 1 for j in range(prime.degree)]
    powers = [1]
    for _ in range(2 * prime.degree - 1):
        powers.append(powers[-1] * prime.root % prime.value)
    return [powers[power] for power in odd]


def evaluated(polynomial: Sparse, prime: Prime, at: list[int]) -> U64:
    p = prime.value
    values = [sum(c * pow(x, i, p) for i, c in polynomial.items()) % p for x in at]
    return np.array(values, np.uint64)


def schoolbook(a: Sparse, b: Sparse, prime: Prime) -> U64:
    out = [0] * prime.degree
    for i, x in a.items():
        for j, y in b.items():
            turns, at = divmod(i + j, prime.degree)
            out[at] += -x * y if turns else x * y
    return np.array([value % prime.value for value in out], np.uint64)


def dense(polynomial: Sparse, prime: Prime) -> NDArray[np.int64]:
    out = np.zeros(prime.degree, np.int64)
    for at, value in polynomial.items():
        out[at] = value
    return out


def some(prime: Prime, count: int) -> list[Sparse]:
    """Polynomials with a few large coefficients, at either end and between."""
    p, top, rng = prime.value, prime.degree - 1, np.random.default_rng(count)
    return [
        {
            0: int(rng.integers(p)),
            top: p - 1 - turn,
            int(rng.integers(1, top)): int(rng.integers(p)),
        }
        for turn in range(count)
    ]


@in_every_field
def test_products_are_negacyclic(prime: Prime) -> None:
    at, top = points(prime), prime.degree - 1
    factors: list[Sparse] = [
        {0: 1},
        {1: 1},
        {top: -96},
        {0: 96, 5: -1, prime.degree // 2: 3, top: -96},
    ]
    polynomials = some(prime, 3)
    evaluations = np.stack([evaluated(one, prime, at) for one in polynomials])
    kept = evaluations.copy()
    for factor in factors:
        products = Multiplier(dense(factor, prime), prime).times(evaluations)
        for product, polynomial in zip(products, polynomials, strict=True):
            assert np.array_equal(product, schoolbook(polynomial, factor, prime))
    assert np.array_equal(evaluations, kept)


@pytest.mark.parametrize("prime", [PRIMES[0], PRIMES[3]], ids=lambda p: str(p.degree))
@pytest.mark.parametrize("count", [1, 2, 15, 16, 17, 33])
def test_any_number_of_polynomials_at_once(prime: Prime, count: int) -> None:
    at = points(prime)
    # X^i, of which each evaluation is one power: quick to make, and all different.
    polynomials: list[Sparse] = [{turn: turn + 1} for turn in range(count)]
    evaluations = np.stack([evaluated(one, prime, at) for one in polynomials])
    factor = {0: 7, prime.degree - 3: -5}
    multiplier = Multiplier(dense(factor, prime), prime)
    expected = np.stack([schoolbook(one, factor, prime) for one in polynomials])
    assert np.array_equal(multiplier.times(evaluations), expected)
    # As a part of a larger array, and once more with the same key.
    beside = np.zeros((count, 2, prime.degree), np.uint64)
    beside[:, 1] = evaluations
    assert np.array_equal(multiplier.times(beside[:, 1]), expected)


@in_every_field
def test_a_key_of_zeros_is_a_key(prime: Prime) -> None:
    zeros = np.zeros(prime.degree, np.int64)
    ones = np.ones((2, prime.degree), np.uint64)
    assert not Multiplier(zeros, prime).times(ones).any()


def test_another_order_of_evaluations_is_refused() -> None:
    """As by a build of SEAL that chose another root of unity."""
    prime = PRIMES[0]
    other = Prime(
        prime.degree, prime.bits, prime.value, pow(prime.root, 3, prime.value)
    )
    with pytest.raises(EngineError, match="orders evaluations"):
        backend._Ring(other)


def test_a_key_stays_where_it_is() -> None:
    multiplier = Multiplier(dense({0: 42}, PRIMES[0]), PRIMES[0])
    assert repr(multiplier) == "<Multiplier>"
    with pytest.raises(TypeError):
        pickle.dumps(multiplier)


@pytest.mark.parametrize("in_memory", [True, False])
def test_nothing_stays_in_the_file_that_seal_reads(
    in_memory: bool, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    if in_memory and not hasattr(os, "memfd_create"):
        pytest.skip("this platform has no files in memory")
    if not in_memory:
        monkeypatch.delattr(os, "memfd_create", raising=False)
        monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    door = backend._Door()
    file = Path(door.path)
    for parts in ([b"secret" * 1000, b"", b"key"], [b"short"], [bytes(3_000_000)]):
        door.put(parts)
        assert file.read_bytes() == b"".join(parts)
        assert door.take() == b"".join(parts)
        assert file.read_bytes() == b""
    if not in_memory:
        assert file.parent.parent == tmp_path
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
        assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700
    descriptor = door._fd
    del door
    gc.collect()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(descriptor)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("missing", ["tenseal", "zstandard"])
def test_what_to_install(missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == missing else find(name, package)

    assert backend_version().startswith("tenseal 0.")
    monkeypatch.setattr(importlib.util, "find_spec", without)
    for asked in (require_backend, backend_version):
        with pytest.raises(UsageError, match=f"needs {missing}") as caught:
            asked()
        assert "secure-fl[ckks]" in str(caught.value.hint)
