# SPDX-License-Identifier: Apache-2.0
"""The signed export: what an auditor may believe, and every way it is refused."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from secure_fl import wire
from secure_fl.errors import VerificationError
from secure_fl.identity import Identity
from secure_fl.privacy import Ledger, NonPrivate, read_export
from secure_fl.randomness import SeededInsecure

from .support import CLIENT, CTX, IDENTITY, LINEAGE, OTHER_RUN, QUIET, RUN, reserve

SPEC = "secure-fl/ledger/1"
LABEL = f"{SPEC} export"


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    ledger = Ledger(tmp_path_factory.mktemp("home") / "l.sqlite", client=CLIENT)
    first = reserve(ledger, 0)
    ledger.sent(first, ctx=CTX, now=2)
    ledger.released(first, now=3)
    ledger.aborted(reserve(ledger, 1), now=4)
    reserve(ledger, 0, run_id=OTHER_RUN, event=NonPrivate("a baseline"))
    data = ledger.export(LINEAGE, identity=IDENTITY)
    assert data == ledger.export(LINEAGE, identity=IDENTITY)
    ledger.close()
    return data


def read(data: bytes) -> object:
    return read_export(data, public_key=IDENTITY.public_key, client=CLIENT)


def test_an_export_says_what_the_ledger_says(exported: bytes) -> None:
    found = read_export(exported, public_key=IDENTITY.public_key, client=CLIENT)
    assert (found.client, found.lineage) == (CLIENT, LINEAGE)
    assert found.charged() == [QUIET, NonPrivate("a baseline")]
    assert [r.state for r in found.releases()] == ["released", "aborted", "reserved"]
    assert [r.run_id for r in found.releases()] == [RUN, RUN, OTHER_RUN]
    assert found.releases()[0].contexts == (CTX,)
    assert [entry.sequence for entry in found.entries] == list(range(6))
    assert found.head == found.entries[-1].hash
    first = found.entries[0].reservation
    assert first is not None
    assert math.isinf(first.limit)


def test_an_empty_book_can_be_exported(tmp_path: Path) -> None:
    ledger = Ledger(tmp_path / "l.sqlite", client=CLIENT)
    data = ledger.export(LINEAGE, identity=IDENTITY)
    ledger.close()
    found = read_export(data, public_key=IDENTITY.public_key, client=CLIENT)
    assert found.entries == ()
    assert found.charged() == []


def test_another_client_or_key_is_refused(exported: bytes) -> None:
    with pytest.raises(VerificationError):
        read_export(exported, public_key=IDENTITY.public_key, client="bank-b")
    other = Identity.new(CLIENT, random=SeededInsecure(b"another")).public_key
    for key in (other, bytes(32), b""):
        with pytest.raises(VerificationError):
            read_export(exported, public_key=key, client=CLIENT)


def test_every_flipped_bit_is_refused(exported: bytes) -> None:
    # One bit of every byte, another one each time.
    for i in range(len(exported)):
        changed = bytearray(exported)
        changed[i] ^= 1 << (i % 8)
        with pytest.raises(VerificationError):
            read(bytes(changed))


def test_every_truncation_and_a_tail_are_refused(exported: bytes) -> None:
    for end in range(0, len(exported), 7):
        with pytest.raises(VerificationError):
            read(exported[:end])
    with pytest.raises(VerificationError):
        read(exported + b"\x00")


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.binary(max_size=200))
def test_arbitrary_bytes_are_refused_and_nothing_else_happens(data: bytes) -> None:
    with pytest.raises(VerificationError):
        read(data)


# -- a client that signs what its ledger would never write -----------------------------

Fields = dict[int, wire.Value]


def bodies_of(exported: bytes) -> list[Fields]:
    outer = wire.decode(exported)
    assert isinstance(outer, dict)
    rows = outer[3]
    assert isinstance(rows, list)
    out: list[Fields] = []
    for row in rows:
        assert isinstance(row, bytes)
        body = wire.decode(row)
        assert isinstance(body, dict)
        out.append(body)
    return out


def resigned(bodies: list[Fields], *, relink: bool) -> bytes:
    """A well-signed export of ``bodies``; with ``relink`` the chain is mended too."""
    head = wire.digest(f"{SPEC} genesis", CLIENT, LINEAGE)
    renamed: dict[bytes, bytes] = {}
    rows: list[bytes] = []
    for number, body in enumerate(bodies):
        fields = dict(body)
        old = wire.digest(f"{SPEC} entry", wire.encode(body))
        if relink:
            fields[0], fields[1] = number, head
            inner = fields[4]
            assert isinstance(inner, dict)
            of = inner[0]
            if isinstance(of, bytes) and of in renamed:
                fields[4] = {**inner, 0: renamed[of]}
        row = wire.encode(fields)
        head = wire.digest(f"{SPEC} entry", row)
        renamed[old] = head
        rows.append(row)
    signature = IDENTITY.sign(LABEL, CLIENT, LINEAGE, len(rows), head)
    return wire.encode({0: SPEC, 1: CLIENT, 2: LINEAGE, 3: rows, 4: head, 5: signature})


def test_the_forger_of_these_tests_can_write_an_honest_export(exported: bytes) -> None:
    assert resigned(bodies_of(exported), relink=False) == exported
    assert resigned(bodies_of(exported), relink=True) == exported


def edited(index: int, key: int, value: wire.Value) -> Callable[[list[Fields]], None]:
    def edit(bodies: list[Fields]) -> None:
        bodies[index] = {**bodies[index], key: value}

    return edit


def inner(index: int, key: int, value: wire.Value) -> Callable[[list[Fields]], None]:
    def edit(bodies: list[Fields]) -> None:
        old = bodies[index][4]
        assert isinstance(old, dict)
        bodies[index] = {**bodies[index], 4: {**old, key: value}}

    return edit


def swapped(i: int, j: int) -> Callable[[list[Fields]], None]:
    def edit(bodies: list[Fields]) -> None:
        bodies[i], bodies[j] = bodies[j], bodies[i]

    return edit


def dropped(index: int) -> Callable[[list[Fields]], None]:
    def edit(bodies: list[Fields]) -> None:
        del bodies[index]

    return edit


def doubled(index: int) -> Callable[[list[Fields]], None]:
    return lambda bodies: bodies.insert(index, bodies[index])


# Entries: 0 reserved, 1 sent, 2 released, 3 reserved, 4 aborted, 5 reserved.
@pytest.mark.parametrize("edit", [dropped(i) for i in range(5)])
def test_a_dropped_entry_is_refused(
    exported: bytes, edit: Callable[[list[Fields]], None]
) -> None:
    bodies = bodies_of(exported)
    edit(bodies)
    with pytest.raises(VerificationError):
        read(resigned(bodies, relink=False))


@pytest.mark.parametrize(
    "edit",
    [
        dropped(0),  # steps of a reservation that is not there
        dropped(1),  # released, never sent
        dropped(3),
        swapped(1, 2),
        swapped(3, 4),
        doubled(0),  # the same attempt reserved twice
        doubled(1),
        doubled(2),
        doubled(4),
        edited(1, 2, "aborted"),
        edited(2, 2, "aborted"),  # a charge taken back after it was sent
        edited(2, 2, "sent"),
        edited(4, 2, "released"),
        edited(4, 2, "forgiven"),
        edited(0, 5, 0),  # a field this version does not know
        edited(0, 3, -1),
        inner(1, 0, bytes(32)),
        inner(1, 1, b"short"),
        inner(0, 0, b"short"),
        inner(0, 3, {0: "gaussian", 1: "0.0"}),
        inner(0, 3, {0: "gaussian", 1: "40"}),
        inner(0, 3, 7),
        inner(0, 4, "1e-06x"),
        inner(0, 5, "nan"),
        inner(0, 5, "-1.0"),
        inner(0, 9, 0),
        inner(3, 6, "client"),  # charges of two kinds do not add up
        inner(5, 7, "replace-one"),
    ],
)
def test_an_impossible_history_is_refused_though_signed_and_linked(
    exported: bytes, edit: Callable[[list[Fields]], None]
) -> None:
    bodies = bodies_of(exported)
    edit(bodies)
    with pytest.raises(VerificationError):
        read(resigned(bodies, relink=True))
