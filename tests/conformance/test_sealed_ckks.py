# SPDX-License-Identifier: Apache-2.0
"""The runner looks behind an Input and a Release: a part that is wrong is found."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from typing import Any

import pytest

from secure_fl import wire

from ..vectors import ckks_parties as parties
from ..vectors.ckks_replay import Case, load, resolve
from ..vectors.test_ckks_vectors import needs_backend
from .helpers import helper

Fields = dict[int, Any]
Wrong = helper("plain_crypto").Wrong
sealed_ckks = helper("sealed_ckks")


@functools.cache
def uploaded() -> tuple[tuple[bytes, ...], Case, Case]:
    """A client's messages, its input, and what the vector says of them."""
    case = next(c for c in load("client") if "error" not in c["expect"])
    return tuple(parties.uploaded(case["input"])), case["input"], case["expect"]


@functools.cache
def released() -> tuple[bytes, bytes, Case, Case]:
    """A release, the request for it, the plan's session, what the vector says."""
    case = next(c for c in load("keyholder") if "error" not in c["expect"])
    holder = parties.Holder(case["input"])
    call, ask = case["input"]["operations"]
    holder.perform(call)
    answer = bytes.fromhex(holder.perform(ask)["sent"])
    asked = resolve(ask["message"], holder.data, holder.session)
    return answer, asked, case["input"]["session"], case["expect"]["sent"][1]


def check_input(end: bytes) -> None:
    (*chunks, _), given, expected = uploaded()
    sealed_ckks.check_upload([*chunks, end], given, expected)


def check_release(answer: bytes) -> None:
    _, asked, session, expected = released()
    sealed_ckks.check_release(answer, asked, session, expected)


def flipped(data: bytes, at: int = 0) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def changed(data: bytes, number: int, change: Callable[[Any], Any]) -> bytes:
    fields = copy.deepcopy(wire.decode(data))
    assert isinstance(fields, dict)
    if number in fields:
        fields[number] = change(fields[number])
    else:
        fields[number] = 0
    return wire.encode(fields)


@needs_backend
def test_good_messages_pass() -> None:
    check_input(uploaded()[0][-1])
    check_release(released()[0])


@needs_backend
@pytest.mark.parametrize(
    ("number", "change", "fault"),
    [
        (0, lambda kind: kind + 1, "the kind is another"),
        (1, flipped, "the context is another"),
        (2, lambda client: client + 1, "the client is another"),
        (3, flipped, "the payload is another"),
        (4, flipped, "the claim is another"),
        (5, flipped, "a box does not open"),
        (5, lambda box: flipped(box, 4000), "a box does not open"),
        (5, lambda box: box[:-1], "a box does not open"),
        (5, lambda _: b"", "a box is too short"),
        (6, lambda box: flipped(box, 79), "a box does not open"),
        (7, flipped, "the signature does not hold"),
        (7, lambda signature: signature[:63], "the signature does not hold"),
        (7, lambda _: 0, "another type or length"),
        (8, None, "fields"),
    ],
)
def test_each_part_of_an_input_is_looked_at(
    number: int, change: Callable[[Any], Any], fault: str
) -> None:
    with pytest.raises(Wrong, match=fault):
        check_input(changed(uploaded()[0][-1], number, change))


@needs_backend
def test_chunks_and_what_was_sealed_are_looked_at() -> None:
    (first, *rest), given, expected = uploaded()
    check = sealed_ckks.check_upload
    with pytest.raises(Wrong, match="chunk 0 is another"):
        check([flipped(first, 500), *rest], given, expected)
    with pytest.raises(Wrong, match="1 chunks"):
        check(rest, given, expected)
    # All is sealed and signed well, but for other secrets.
    other = expected | {"key": expected["key"] | {"sha256": "00" * 32}}
    with pytest.raises(Wrong, match="the key box holds something else"):
        check([first, *rest], given, other)
    with pytest.raises(Wrong, match="the chunk box holds something else"):
        check([first, *rest], given | {"chunk_key": "00" * 32}, expected)


@pytest.mark.parametrize(
    ("number", "change", "fault"),
    [
        (0, lambda kind: kind + 1, "the kind is another"),
        (1, flipped, "the context is another"),
        (2, lambda rows: rows[:-1], "the rows are others"),
        (2, lambda rows: [[r[0] + 1, *r[1:]] for r in rows], "the rows are others"),
        (2, lambda rows: [row[:2] for row in rows], "another type or length"),
        (3, flipped, "a box does not open"),
        (3, lambda box: flipped(box, 5000), "a box does not open"),
        (4, flipped, "the signature does not hold"),
        (5, None, "fields"),
    ],
)
def test_each_part_of_a_release_is_looked_at(
    number: int, change: Callable[[Any], Any], fault: str
) -> None:
    with pytest.raises(Wrong, match=fault):
        check_release(changed(released()[0], number, change))


def test_another_sum_and_another_signer_are_found() -> None:
    answer, asked, session, expected = released()
    check = sealed_ckks.check_release
    with pytest.raises(Wrong, match="the box holds something else"):
        check(answer, asked, session, expected | {"sha256": "00" * 32})
    other = session | {"keyholder": session["aggregator"]}
    with pytest.raises(Wrong, match="the signature does not hold"):
        check(answer, asked, other, expected)


@pytest.mark.parametrize("data", ["", "ff", "81", "1801", "a10000ff", "00"])
def test_bytes_that_are_no_message_are_refused(data: str) -> None:
    with pytest.raises(Wrong):
        check_release(bytes.fromhex(data))
