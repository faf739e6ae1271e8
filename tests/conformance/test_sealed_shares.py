# SPDX-License-Identifier: Apache-2.0
"""The runner looks behind SealedShares: a part that is wrong is found, and named."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from types import ModuleType
from typing import Any

import pytest

from secure_fl import wire

from ..vectors.test_vectors import load
from . import adapter
from .helpers import helper

Fields = dict[int, Any]


def sealed_shares() -> ModuleType:
    return helper("sealed_shares")


@functools.cache
def dealt() -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """A client's message, the input of its case, and what the vector says of it."""
    case = next(c for c in load("client") if "error" not in c["expect"])
    outcomes = adapter.run_operations(
        adapter.Client(case["input"]), case["input"]["operations"][:2]
    )["outcomes"]
    expected: dict[str, Any] = case["expect"]["sent"][1]
    return bytes.fromhex(outcomes[1]["sent"]), case["input"], expected


def check(data: bytes) -> None:
    _, given, expected = dealt()
    sealed_shares().check(data, given["session"], given["client"], expected)


def flipped(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def set_field(number: int, change: Callable[[Any], Any]) -> Callable[[Fields], None]:
    def apply(fields: Fields) -> None:
        fields[number] = change(fields[number])

    return apply


def set_part(place: int, at: int = 0) -> Callable[[Fields], None]:
    """Another bit in one part of the second row (the first is the dealer's own)."""

    def apply(fields: Fields) -> None:
        row = fields[4][1]
        row[place] = flipped(row[place], at)

    return apply


def own_box(fields: Fields) -> None:
    fields[4][0][1] = fields[4][1][1]


def swapped_boxes(fields: Fields) -> None:
    rows = fields[4]
    rows[1][1], rows[2][1] = rows[2][1], rows[1][1]


def unknown_field(fields: Fields) -> None:
    fields[6] = 0


def test_a_good_message_passes() -> None:
    check(dealt()[0])


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (set_field(0, lambda kind: kind + 1), "the kind or the context is another"),
        (set_field(1, flipped), "the kind or the context is another"),
        (set_field(2, lambda client: client + 1), "the client is another"),
        (set_field(3, flipped), "the self commitment is another"),
        (set_field(4, lambda rows: rows[:-1]), "6 rows, not 7"),
        (set_field(4, lambda rows: rows[:0]), "0 rows, not 7"),
        (
            set_field(4, lambda rows: [*rows[:2], *rows[3:], rows[2]]),
            "a row for client",
        ),
        (set_field(4, lambda rows: [[1], *rows[1:]]), "another type or length"),
        (set_field(5, flipped), "the signature does not hold"),
        (set_field(5, lambda signature: flipped(signature, 40)), "does not hold"),
        (set_field(5, lambda signature: signature[:63]), "does not hold"),
        (set_part(1, 0), "a box does not open"),
        (set_part(1, 50), "a box does not open"),
        (set_part(1, 111), "a box does not open"),
        (set_part(2), "a commitment to client 1 is another"),
        (set_part(3), "a commitment to client 1 is another"),
        (swapped_boxes, "a box does not open"),
        (own_box, "the dealer's own box is not empty"),
        (unknown_field, "fields differ"),
    ],
)
def test_each_part_is_looked_at(change: Callable[[Fields], None], fault: str) -> None:
    fields = copy.deepcopy(wire.decode(dealt()[0]))
    assert isinstance(fields, dict)
    change(fields)
    with pytest.raises(sealed_shares().Wrong, match=fault):
        check(wire.encode(fields))


def test_shares_that_the_vector_does_not_have_are_found() -> None:
    """All is sealed, committed and signed well, but for another polynomial."""
    data, given, expected = dealt()
    other = copy.deepcopy(expected)
    other["shares"][1]["self"] = other["shares"][2]["self"]
    with pytest.raises(sealed_shares().Wrong, match="client 1 gets other shares"):
        sealed_shares().check(data, given["session"], given["client"], other)
    # The dealer's own shares are in no box: their commitments tell.
    other = copy.deepcopy(expected)
    other["shares"][0]["key"] = other["shares"][2]["key"]
    with pytest.raises(sealed_shares().Wrong, match="a commitment to client 0"):
        sealed_shares().check(data, given["session"], given["client"], other)


@pytest.mark.parametrize("data", ["", "ff", "81", "1801", "a10000ff", "5b" + "ff" * 8])
def test_bytes_that_are_no_message_are_refused(data: str) -> None:
    with pytest.raises(sealed_shares().Wrong):
        check(bytes.fromhex(data))


def test_bytes_left_over_are_refused() -> None:
    with pytest.raises(sealed_shares().Wrong, match="not deterministic CBOR"):
        check(dealt()[0] + b"\0")
