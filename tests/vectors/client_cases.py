# SPDX-License-Identifier: Apache-2.0
"""Vectors of a client: whole rounds, one fault each, and proofs of omission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import steps
from .late_cases import late_faults
from .reference import Value
from .steps import Party
from .world import LOW_ORDER, OTHER_FORM, Json, World, fault


def client_cases() -> list[Json]:
    large = World(
        "eight",
        clients=8,
        length=10,
        chunk_words=4,
        advertised=[0, 1, 3, 4, 5, 6, 7],
        dealt=[0, 1, 3, 5, 6, 7],
        survived=[0, 1, 3, 5, 6],
    )
    small = World("four", survived=[0, 1, 2])
    full = World("three", clients=3, word_bits=64, length=4, chunk_words=4)
    cases = [
        large.client_case(
            "bank-a of eight; bank-c never comes, bank-e deals no shares, bank-h "
            "sends no vector",
            0,
        ),
        large.client_case("the same context, seen by bank-f, in the middle", 5),
        small.client_case("bank-a of four; bank-d sends no vector", 0),
        small.client_case("bank-c of four: it subtracts two of its pair masks", 2),
        full.client_case("three of three, words of 64 bits, one chunk", 1),
    ]
    return [
        *cases,
        three_agree(),
        *random_faults(small),
        *cohort_faults(small),
        *inbox_faults(small),
        *late_faults(small),
        *too_few(),
    ]


def three_agree() -> Json:
    """To open takes ``t`` agreements, not as many as the sum has clients."""
    w = World("all four", min_clients=4)
    return w.client_case(
        "four are needed in the sum, and three of them agree",
        0,
        signatures=steps.signatures(w.c, w.agreed()[:3]),
    )


def random_faults(w: World) -> list[Json]:
    """4.1: randomness that is no randomness."""
    zeros = bytes(32).hex()
    own = fault("UsageError")
    out = []
    for check, step, keep in (("P23", "start", 1), ("P24", "cohort", 2)):
        why = f"4.1: the random bytes of `{step}` are all zero"
        one = w.client_case(why, 0, stop="cohort", expect=own, check=check)
        input_ = one["input"]
        assert isinstance(input_, dict)
        ops = input_["operations"][:keep]
        input_["operations"] = [*ops[:-1], {**ops[-1], "random": zeros}]
        out.append(one)
    return out


def too_few() -> list[Json]:
    """``needed`` is the larger of its two: three are too few by each of them."""
    few = fault("TooFewClients")
    out = []
    for why, w in (
        ("the sum needs four", World("all four", min_clients=4)),
        ("the threshold is four", World("five", clients=5)),
    ):
        keys = steps.cohort_keys(w.c, w.rows[:3])
        boxes = steps.inbox(w.c, w.inbox_rows(0)[:3])
        said = w.statement.with_rows(w.statement.rows[:3]).message()
        out += [
            w.client_case(
                f"6.1: three clients announced their keys, {why}",
                0,
                cohort=keys,
                stop="cohort",
                expect=few,
                check="C3",
            ),
            w.client_case(
                f"6.2: three dealers, {why}",
                0,
                inbox=boxes,
                stop="inbox",
                expect=few,
                check="C9",
            ),
            w.client_case(
                f"6.4: three survivors, {why}",
                0,
                statement=said,
                stop="statement",
                expect=few,
                check="C23",
            ),
        ]
    return out


def cohort_faults(w: World) -> list[Json]:
    c, (a, b, d) = w.c, (w.everyone[0], w.everyone[1], w.everyone[3])
    rows = w.rows
    again = Party(c, 0, bytes(31) + b"\x01", a.random_2)
    elsewhere = Party(replace(c, attempt=1), 1, b.random_1, b.random_2)
    aggregator = fault("FaultyAggregator")

    def bad(check: str, why: str, rows: Sequence[Value], expect: Json) -> Json:
        keys = steps.cohort_keys(c, rows)
        return w.client_case(
            why, 0, cohort=keys, stop="cohort", expect=expect, check=check
        )

    return [
        bad("C4", "6.1: the client's own row is missing", rows[1:], aggregator),
        bad(
            "C1",
            "6.1: the client's own mask key is replaced, its signature is not",
            [[0, a.seal_key, again.mask_key, rows[0][3]], *rows[1:]],
            aggregator,
        ),
        bad(
            "C5",
            "6.1: the client's own keys are others that it once signed",
            [again.row(), *rows[1:]],
            aggregator,
        ),
        bad(
            "C5",
            "6.1: the client's own sealing key is another that it once signed",
            [steps.announcement(a, again.seal_key, a.mask_key), *rows[1:]],
            aggregator,
        ),
        bad(
            "C5",
            "6.1: the client's own mask key is another that it once signed",
            [steps.announcement(a, a.seal_key, again.mask_key), *rows[1:]],
            aggregator,
        ),
        bad(
            "C1",
            "6.1: the keys of bank-b are signed by bank-d",
            [
                rows[0],
                [*rows[1][:3], d.sign("advertise", c.ctx, *rows[1][:3])],
                *rows[2:],
            ],
            aggregator,
        ),
        bad(
            "C1",
            "6.1: the keys of bank-b were signed for another attempt",
            [rows[0], elsewhere.row(), *rows[2:]],
            aggregator,
        ),
        bad(
            "C2",
            "6.1: bank-d signed one key for both purposes",
            [*rows[:3], steps.announcement(d, d.mask_key, d.mask_key)],
            fault("FaultyClient", "bank-d"),
        ),
        bad(
            "C6",
            "6.1: bank-d signed a sealing key of low order",
            [*rows[:3], steps.announcement(d, LOW_ORDER, d.mask_key)],
            fault("FaultyClient", "bank-d"),
        ),
        bad(
            "C6",
            "6.1: bank-d signed a sealing key in another form than its one",
            [*rows[:3], steps.announcement(d, OTHER_FORM, d.mask_key)],
            fault("FaultyClient", "bank-d"),
        ),
        bad(
            "C3", "6.1: two clients, three are needed", rows[:2], fault("TooFewClients")
        ),
        bad(
            "E40",
            "5.1: the rows are out of order",
            [rows[1], rows[0], *rows[2:]],
            fault("ProtocolError"),
        ),
        bad(
            "E40",
            "5.1: one client stands twice",
            [rows[0], rows[0], *rows[1:]],
            fault("ProtocolError"),
        ),
    ]


def inbox_faults(w: World) -> list[Json]:
    c, b = w.c, w.everyone[1]
    good = w.inbox_rows(0)
    aggregator = fault("FaultyAggregator")
    bank_b = fault("FaultyClient", "bank-b")

    def bad(check: str, why: str, rows: Sequence[Value], expect: Json) -> Json:
        message = steps.inbox(c, rows)
        return w.client_case(
            why, 0, inbox=message, stop="inbox", expect=expect, check=check
        )

    def with_b(row: list[Value]) -> list[Value]:
        return [good[0], row, *good[2:]]

    def field(index: int, value: Value) -> list[Value]:
        return [*good[1][:index], value, *good[1][index + 1 :]]

    def own(index: int, value: Value) -> list[Value]:
        return [[*good[0][:index], value, *good[0][index + 1 :]], *good[1:]]

    other_box = w.deals[1].rows[2][1]
    by_a = w.everyone[0].sign("shares", c.ctx, w.cohort, 1, good[1][1], good[1][6])
    by_b = b.sign("shares", c.ctx, w.cohort, 0, good[0][1], good[0][6])
    lie = w.deal(b)
    lie.rows[0][1] = other_box
    off = w.deal(b, shares=lambda to: (b.shares(to)[0], b.shares(to + 7)[1]))
    off_self = w.deal(b, shares=lambda to: (b.shares(to + 7)[0], b.shares(to)[1]))
    for bent in (off, off_self):
        for row, honest in zip(bent.rows, w.deals[1].rows, strict=True):
            row[2:] = honest[2:]
    elsewhere = w.deal(b, cohort=bytes(32))
    without = World("without", advertised=[0, 1, 2], dealt=[0, 1, 2])
    stray = without.deal(without.everyone[3]).inbox_row(0)
    low = World("low", bad_keys={3: (None, LOW_ORDER)})
    return [
        bad(
            "C10",
            "6.2: the box is not in the tree that bank-b signed",
            with_b(field(2, other_box)),
            aggregator,
        ),
        bad(
            "C10",
            "6.2: the commitment to a share is not in the signed tree",
            with_b(field(3, bytes(32))),
            aggregator,
        ),
        bad(
            "C10",
            "6.2: the commitment to a key share is not in the signed tree",
            with_b(field(4, bytes(32))),
            aggregator,
        ),
        bad(
            "C10",
            "6.2: a commitment in the client's own row is not in its signed tree",
            own(3, bytes(32)),
            aggregator,
        ),
        bad(
            "C11",
            "6.2: the root of the client's own row is signed by bank-b",
            own(7, by_b),
            aggregator,
        ),
        bad(
            "C10",
            "6.2: the path leads to another place of the tree",
            with_b(field(5, w.deals[1].inbox_row(2)[5])),
            aggregator,
        ),
        bad(
            "C10",
            "6.2: the path is one node too long",
            with_b(field(5, [*as_list(good[1][5]), bytes(32)])),
            aggregator,
        ),
        bad(
            "C11",
            "6.2: the root is signed by bank-a, not by bank-b",
            with_b(field(7, by_a)),
            aggregator,
        ),
        bad(
            "C11",
            "6.2: bank-b signed its shares for another cohort",
            with_b(elsewhere.inbox_row(0)),
            aggregator,
        ),
        bad(
            "C11",
            "6.2: the commitment of bank-b is not the one it signed",
            with_b(field(1, bytes(32))),
            aggregator,
        ),
        bad("C8", "6.2: the client's own row is missing", good[1:], aggregator),
        without.client_case(
            "6.2: a box comes from bank-d, which is not in the cohort",
            0,
            inbox=steps.inbox(without.c, [*without.inbox_rows(0), stray]),
            stop="inbox",
            check="C7",
            expect=aggregator,
        ),
        bad(
            "C9", "6.2: two dealers, three are needed", good[:2], fault("TooFewClients")
        ),
        bad(
            "C12",
            "6.3: bank-b signed a box that was sealed for bank-c",
            with_b(lie.inbox_row(0)),
            bank_b,
        ),
        bad(
            "C13",
            "6.3: bank-b sealed another self share than it committed to",
            with_b(off_self.inbox_row(0)),
            bank_b,
        ),
        bad(
            "C14",
            "6.3: bank-b sealed another share than it committed to",
            with_b(off.inbox_row(0)),
            bank_b,
        ),
        low.client_case(
            "6.3: bank-d signed a mask key of low order",
            0,
            stop="inbox",
            check="C15",
            expect=fault("FaultyClient", "bank-d"),
        ),
        bad(
            "E43",
            "5.4: a box is one byte short",
            with_b(field(2, as_bytes(good[1][2])[:-1])),
            fault("ProtocolError"),
        ),
    ]


def as_list(value: Value) -> list[Value]:
    assert isinstance(value, list)
    return value


def as_bytes(value: Value) -> bytes:
    assert isinstance(value, bytes)
    return value
