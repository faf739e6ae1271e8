# SPDX-License-Identifier: Apache-2.0
"""Vectors of a client: whole rounds, one fault each, and proofs of omission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import steps
from .reference import Value
from .steps import Party, StatementOf
from .world import LOW_ORDER, Json, World, case, fault, session_json


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
    return cases + cohort_faults(small) + inbox_faults(small) + late_faults(small)


def cohort_faults(w: World) -> list[Json]:
    c, (a, b, d) = w.c, (w.everyone[0], w.everyone[1], w.everyone[3])
    rows = w.rows
    again = Party(c, 0, bytes(31) + b"\x01", a.random_2)
    elsewhere = Party(replace(c, attempt=1), 1, b.random_1, b.random_2)
    aggregator = fault("FaultyAggregator")

    def bad(why: str, rows: Sequence[Value], expect: Json) -> Json:
        keys = steps.cohort_keys(c, rows)
        return w.client_case(why, 0, cohort=keys, stop="cohort", expect=expect)

    return [
        bad("6.1: the client's own row is missing", rows[1:], aggregator),
        bad(
            "6.1: the client's own mask key is replaced, its signature is not",
            [[0, a.seal_key, again.mask_key, rows[0][3]], *rows[1:]],
            aggregator,
        ),
        bad(
            "6.1: the client's own keys are others that it once signed",
            [again.row(), *rows[1:]],
            aggregator,
        ),
        bad(
            "6.1: the keys of bank-b are signed by bank-d",
            [
                rows[0],
                [*rows[1][:3], d.sign("advertise", c.ctx, *rows[1][:3])],
                *rows[2:],
            ],
            aggregator,
        ),
        bad(
            "6.1: the keys of bank-b were signed for another attempt",
            [rows[0], elsewhere.row(), *rows[2:]],
            aggregator,
        ),
        bad(
            "6.1: bank-d signed one key for both purposes",
            [*rows[:3], steps.announcement(d, d.mask_key, d.mask_key)],
            fault("FaultyClient", "bank-d"),
        ),
        bad(
            "6.1: bank-d signed a sealing key of low order",
            [*rows[:3], steps.announcement(d, LOW_ORDER, d.mask_key)],
            fault("FaultyClient", "bank-d"),
        ),
        bad("6.1: two clients, three are needed", rows[:2], fault("TooFewClients")),
        bad(
            "5.1: the rows are out of order",
            [rows[1], rows[0], *rows[2:]],
            fault("ProtocolError"),
        ),
        bad(
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

    def bad(why: str, rows: Sequence[Value], expect: Json) -> Json:
        message = steps.inbox(c, rows)
        return w.client_case(why, 0, inbox=message, stop="inbox", expect=expect)

    def with_b(row: list[Value]) -> list[Value]:
        return [good[0], row, *good[2:]]

    def field(index: int, value: Value) -> list[Value]:
        return [*good[1][:index], value, *good[1][index + 1 :]]

    other_box = w.deals[1].rows[2][1]
    lie = w.deal(b)
    lie.rows[0][1] = other_box
    off = w.deal(b, shares=lambda to: (b.shares(to)[0], b.shares(to + 7)[1]))
    for row, honest in zip(off.rows, w.deals[1].rows, strict=True):
        row[2:] = honest[2:]
    elsewhere = w.deal(b, cohort=bytes(32))
    without = World("without", advertised=[0, 1, 2], dealt=[0, 1, 2])
    stray = without.deal(without.everyone[3]).inbox_row(0)
    low = World("low", bad_keys={3: (None, LOW_ORDER)})
    return [
        bad(
            "6.2: the box is not in the tree that bank-b signed",
            with_b(field(2, other_box)),
            aggregator,
        ),
        bad(
            "6.2: the commitment to a share is not in the signed tree",
            with_b(field(3, bytes(32))),
            aggregator,
        ),
        bad(
            "6.2: the path leads to another place of the tree",
            with_b(field(5, w.deals[1].inbox_row(2)[5])),
            aggregator,
        ),
        bad(
            "6.2: the path is one node too long",
            with_b(field(5, [*as_list(good[1][5]), bytes(32)])),
            aggregator,
        ),
        bad(
            "6.2: the root is signed by bank-a, not by bank-b",
            with_b(
                field(
                    7,
                    w.everyone[0].sign(
                        "shares", c.ctx, w.cohort, 1, good[1][1], good[1][6]
                    ),
                )
            ),
            aggregator,
        ),
        bad(
            "6.2: bank-b signed its shares for another cohort",
            with_b(elsewhere.inbox_row(0)),
            aggregator,
        ),
        bad(
            "6.2: the commitment of bank-b is not the one it signed",
            with_b(field(1, bytes(32))),
            aggregator,
        ),
        bad("6.2: the client's own row is missing", good[1:], aggregator),
        without.client_case(
            "6.2: a box comes from bank-d, which is not in the cohort",
            0,
            inbox=steps.inbox(without.c, [*without.inbox_rows(0), stray]),
            stop="inbox",
            expect=aggregator,
        ),
        bad("6.2: two dealers, three are needed", good[:2], fault("TooFewClients")),
        bad(
            "6.3: bank-b signed a box that was sealed for bank-c",
            with_b(lie.inbox_row(0)),
            bank_b,
        ),
        bad(
            "6.3: bank-b sealed another share than it committed to",
            with_b(off.inbox_row(0)),
            bank_b,
        ),
        low.client_case(
            "6.3: bank-d signed a mask key of low order",
            0,
            stop="inbox",
            expect=fault("FaultyClient", "bank-d"),
        ),
        bad(
            "5.4: a box is one byte short",
            with_b(field(2, as_bytes(good[1][2])[:-1])),
            fault("ProtocolError"),
        ),
    ]


def late_faults(w: World) -> list[Json]:
    c, s = w.c, w.statement
    aggregator = fault("FaultyAggregator")

    def bad(why: str, statement: StatementOf, expect: Json = aggregator) -> Json:
        return w.client_case(
            why, 0, statement=statement.message(), stop="statement", expect=expect
        )

    def unproven(why: str, rows: Sequence[Value], expect: Json) -> Json:
        message = steps.signatures(c, rows)
        return w.client_case(
            why, 0, signatures=message, stop="signatures", expect=expect
        )

    everyone = s.with_rows([*s.rows, w.input_of(w.everyone[3]).row()])
    mine = s.rows[0]
    agreed = w.agreed()
    other: list[Value] = [1, everyone.signed_by(w.everyone[1])]
    without = World("late", dealt=[0, 1, 2])
    stray = without.statement.with_rows(
        [*without.statement.rows, [3, bytes(32), bytes(32), b""]]
    )
    return [
        bad("6.4: the statement is about another cohort", replace(s, cohort=bytes(32))),
        bad(
            "6.4: the statement is about other dealers",
            replace(s, dealers=steps.dealers_hash(c, [0, 1, 2])),
        ),
        bad(
            "6.4: the statement leaves the client out",
            s.with_rows([*s.rows[1:], w.input_of(w.everyone[3]).row()]),
        ),
        bad(
            "6.4: the statement holds another root for the client",
            s.with_rows([[0, bytes(32), *mine[2:]], *s.rows[1:]]),
        ),
        bad(
            "6.4: the statement holds another claim for the client",
            s.with_rows([[*mine[:2], bytes(32), b""], *s.rows[1:]]),
        ),
        bad(
            "6.4: the statement attaches a payload that the client did not send",
            s.with_rows([[*mine[:3], bytes(32)], *s.rows[1:]]),
        ),
        bad(
            "6.4: two survivors, three are needed",
            s.with_rows(s.rows[:2]),
            fault("TooFewClients"),
        ),
        bad(
            "5.6: one client stands twice",
            s.with_rows([s.rows[0], s.rows[0], *s.rows[1:]]),
            fault("ProtocolError"),
        ),
        without.client_case(
            "6.4: the statement names bank-d, whose shares nobody holds",
            0,
            statement=stray.message(),
            stop="statement",
            expect=aggregator,
        ),
        unproven(
            "6.5: two signatures, three are needed", agreed[:2], fault("TooFewClients")
        ),
        unproven(
            "6.5: bank-b signed another statement",
            [agreed[0], other, agreed[2]],
            aggregator,
        ),
        unproven(
            "6.5: the signature of bank-b is that of bank-c",
            [agreed[0], [1, s.signed_by(w.everyone[2])], agreed[2]],
            aggregator,
        ),
        unproven(
            "6.5: a signature comes from bank-d, which the statement leaves out",
            [*agreed, [3, s.signed_by(w.everyone[3])]],
            aggregator,
        ),
        unproven(
            "5.7: one signature is counted twice",
            [agreed[0], agreed[0], agreed[1]],
            fault("ProtocolError"),
        ),
    ]


def as_list(value: Value) -> list[Value]:
    assert isinstance(value, list)
    return value


def as_bytes(value: Value) -> bytes:
    assert isinstance(value, bytes)
    return value


def omission_cases() -> list[Json]:
    w = World("omission", survived=[0, 1, 2])
    s, agreed = w.statement, w.agreed()
    d = w.everyone[3]

    def one(why: str, me: int, rows: Sequence[Value], expect: Json) -> Json:
        input_: Json = {
            "session": session_json(w.c),
            "client": me,
            "statement": s.message().hex(),
            "signatures": steps.signatures(w.c, rows).hex(),
        }
        return case(why, input_, expect)

    other = s.with_rows(s.rows[:2]).signed_by(w.everyone[1])
    return [
        one(
            "7: bank-d is left out, and three of four signed so",
            3,
            agreed,
            {"omitted": True},
        ),
        one("7: the statement holds bank-a", 0, agreed, fault("FaultyAggregator")),
        one(
            "7: two signatures, three are needed", 3, agreed[:2], fault("TooFewClients")
        ),
        one(
            "7: bank-b signed another statement",
            3,
            [agreed[0], [1, other], agreed[2]],
            fault("FaultyAggregator"),
        ),
        one(
            "7: the third signature is bank-d's own",
            3,
            [*agreed[:2], [3, s.signed_by(d)]],
            fault("FaultyAggregator"),
        ),
    ]
