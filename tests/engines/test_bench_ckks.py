# SPDX-License-Identifier: Apache-2.0
"""The figures of one CKKS context: complete, plausible, and false where a sum is."""

from __future__ import annotations

import importlib.util
from dataclasses import fields
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from secure_fl import ckks
from secure_fl.engines.bench_ckks import CkksFigures, bench_ckks, client_upload
from secure_fl.errors import PlanError, UsageError
from secure_fl.fixedpoint import Word

from ..cli.support import call

for name in ("tenseal", "zstandard"):
    pytest.importorskip(name, reason="protection `ckks` needs tenseal")

BOTH: tuple[ckks.Keys, ...] = ("one-time", "keyholder")


@pytest.mark.parametrize("keys", BOTH)
@pytest.mark.parametrize("bits", [16, 64])
def test_figures(keys: ckks.Keys, bits: int) -> None:
    told: list[int] = []
    figures = bench_ckks(
        keys=keys,
        clients=5,
        length=20_001,
        bits=bits,
        uploaded=lambda: told.append(len(told)),
    )
    assert figures.exact is True
    assert told == [0, 1, 2, 3, 4]
    packing = ckks.choose_packing(5, bits, 20_001)
    ring = packing.ring
    assert figures.ring == f"{ring.degree}, {len(ring.primes)} x {ring.bits}"
    assert (figures.fields, figures.scale_bits) == (packing.fields, packing.scale_bits)
    assert (figures.keys, figures.clients, figures.bits) == (keys, 5, bits)
    # Ciphertexts, and beside them no more than some kilobytes of keys and signatures.
    least = packing.bytes(20_001) / 20_001
    assert least < figures.bytes_up_per_value < least + 1
    assert figures.ratio_to_float32 == figures.bytes_up_per_value / 4
    assert figures.backend == ckks.backend_version()
    assert figures.client_peak_bytes > ring.block_bytes
    parts = (
        5 * figures.client_seconds,
        5 * figures.aggregator_seconds_per_client,
        figures.open_seconds,
    )
    assert min(parts) > 0
    assert max(figures.open_seconds, figures.client_seconds) < figures.round_seconds


@pytest.mark.parametrize("keys", BOTH)
def test_one_wrong_word_is_not_exact(
    keys: ckks.Keys, monkeypatch: pytest.MonkeyPatch
) -> None:
    open_sum = ckks.open_sum

    def wrong(*arguments: Any) -> NDArray[Word]:
        words = open_sum(*arguments)
        words[-1] += 1
        return words

    for module in ("secure_fl.ckks", "secure_fl.ckks.aggregator"):
        monkeypatch.setattr(f"{module}.open_sum", wrong)
    figures = bench_ckks(keys=keys, clients=3, length=100, bits=16)
    assert figures.exact is False


@pytest.mark.parametrize("keys", BOTH)
def test_an_upload_comes_in_pieces_and_holds_all_its_chunks(keys: ckks.Keys) -> None:
    words = np.zeros(600_000, np.uint16)
    packing = ckks.choose_packing(3, 16, words.size)
    upload = client_upload(words, keys=keys, clients=3, bits=16)
    sizes = [len(piece) for piece in upload]
    # What a chunk holds by default is 65,536 words or less.
    chunks = -(-packing.blocks(words.size) // max(1, 65_536 // packing.values))
    assert sum(size > 50_000 for size in sizes) == chunks
    assert sum(sizes) > packing.bytes(words.size)


def test_what_does_not_fit_is_refused() -> None:
    with pytest.raises(PlanError):
        bench_ckks(keys="one-time", clients=1000, length=10, bits=8)


@pytest.mark.parametrize("keys", BOTH)
def test_the_verb(keys: ckks.Keys) -> None:
    size = ("--keys", keys, "--clients", "4", "--length", "500", "--bits", "24")
    told = call("bench", "ckks", *size, "--json")
    assert (told.code, told.err) == (0, "")
    assert list(told.json) == [field.name for field in fields(CkksFigures)]
    assert told.json["exact"] is True
    assert (told.json["keys"], told.json["bits"]) == (keys, 24)
    shown = call("bench", "ckks", *size)
    assert (shown.code, shown.err) == (0, "")
    rows = [line.split(maxsplit=1) for line in shown.out.splitlines()]
    assert [key for key, _ in rows] == list(told.json)
    assert dict(rows)["ring"] == told.json["ring"]
    assert dict(rows)["exact"] == "True"


def test_the_verb_refuses_two_clients_and_other_keys() -> None:
    for wrong in (("--clients", "2"), ("--keys", "shared"), ("--bits", "7")):
        answer = call("bench", "ckks", *wrong)
        assert answer.code == 2
        assert answer.out == ""
        assert wrong[0] in answer.errors[0]


def test_without_tenseal(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec

    def without(name: str, package: str | None = None) -> Any:
        return None if name == "tenseal" else find(name, package)

    monkeypatch.setattr(importlib.util, "find_spec", without)
    with pytest.raises(UsageError):
        bench_ckks(keys="one-time", clients=3, length=10, bits=16)
    answer = call("bench", "ckks", "--length", "10")
    assert answer.code == 2
    assert "needs tenseal, which is not installed" in answer.errors[0]
    assert "pip install 'secure-fl[ckks]'" in answer.hints[0]
