# SPDX-License-Identifier: Apache-2.0
"""Vectors of a client's last two steps, and of proofs of omission."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import steps
from .reference import Value
from .steps import StatementOf
from .world import Json, World, case, edit, fault, session_json


def late_faults(w: World) -> list[Json]:
    c, s = w.c, w.statement
    aggregator = fault("FaultyAggregator")

    def bad(
        check: str,
        why: str,
        statement: StatementOf,
        expect: Json = aggregator,
        *,
        me: int = 0,
    ) -> Json:
        message = statement.message()
        return w.client_case(
            why, me, statement=message, stop="statement", expect=expect, check=check
        )

    def unproven(check: str, why: str, rows: Sequence[Value], expect: Json) -> Json:
        message = steps.signatures(c, rows)
        return w.client_case(
            why, 0, signatures=message, stop="signatures", expect=expect, check=check
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
        bad(
            "C16",
            "6.4: the statement is about another cohort",
            replace(s, cohort=bytes(32)),
        ),
        bad(
            "C17",
            "6.4: the statement is about other dealers",
            replace(s, dealers=steps.dealers_hash(c, [0, 1, 2])),
        ),
        bad(
            "C19",
            "6.4: the statement leaves the client out",
            s.with_rows([*s.rows[1:], w.input_of(w.everyone[3]).row()]),
        ),
        bad(
            "C20",
            "6.4: the statement holds another root for the client",
            s.with_rows([[0, bytes(32), *mine[2:]], *s.rows[1:]]),
        ),
        bad(
            "C21",
            "6.4: the statement holds another claim for the client",
            s.with_rows([[*mine[:2], bytes(32), b""], *s.rows[1:]]),
        ),
        bad(
            "C22",
            "6.4: the statement attaches a payload that the client did not send",
            s.with_rows([[*mine[:3], bytes(32)], *s.rows[1:]]),
        ),
        bad(
            "C22",
            "6.4: the statement leaves out the payload that the client attached",
            s.with_rows([s.rows[0], [*s.rows[1][:3], b""], *s.rows[2:]]),
            me=1,
        ),
        bad(
            "C23",
            "6.4: two survivors, three are needed",
            s.with_rows(s.rows[:2]),
            fault("TooFewClients"),
        ),
        bad(
            "E40",
            "5.6: one client stands twice",
            s.with_rows([s.rows[0], s.rows[0], *s.rows[1:]]),
            fault("ProtocolError"),
        ),
        without.client_case(
            "6.4: the statement names bank-d, whose shares nobody holds",
            0,
            statement=stray.message(),
            stop="statement",
            check="C18",
            expect=aggregator,
        ),
        unproven(
            "C26",
            "6.5: two signatures, three are needed",
            agreed[:2],
            fault("TooFewClients"),
        ),
        unproven(
            "C25",
            "6.5: bank-b signed another statement",
            [agreed[0], other, agreed[2]],
            aggregator,
        ),
        unproven(
            "C25",
            "6.5: the signature of bank-b is that of bank-c",
            [agreed[0], [1, s.signed_by(w.everyone[2])], agreed[2]],
            aggregator,
        ),
        unproven(
            "C24",
            "6.5: a signature comes from bank-d, which the statement leaves out",
            [*agreed, [3, s.signed_by(w.everyone[3])]],
            aggregator,
        ),
        unproven(
            "E40",
            "5.7: one signature is counted twice",
            [agreed[0], agreed[0], agreed[1]],
            fault("ProtocolError"),
        ),
    ]


def omission_cases() -> list[Json]:
    w = World("omission", survived=[0, 1, 2])
    s, agreed = w.statement, w.agreed()
    d = w.everyone[3]
    # A client need not have seen what the signers saw.
    apart = replace(s, dealers=steps.dealers_hash(w.c, [0, 1, 2]))

    def one(
        check: str,
        why: str,
        me: int,
        rows: Sequence[Value],
        expect: Json,
        statement: bytes = s.message(),
    ) -> Json:
        input_: Json = {
            "session": session_json(w.c),
            "client": me,
            "statement": statement.hex(),
            "signatures": steps.signatures(w.c, rows).hex(),
        }
        return case(why, input_, expect, check)

    other = s.with_rows(s.rows[:2]).signed_by(w.everyone[1])
    return [
        one(
            "",
            "7: bank-d is left out, and three of four signed so",
            3,
            agreed,
            {"omitted": True},
        ),
        one(
            "",
            "7: three signed for dealers among whom bank-d never was",
            3,
            [[p.index, apart.signed_by(p)] for p in w.u3],
            {"omitted": True},
            apart.message(),
        ),
        one(
            "R1", "7: the statement holds bank-a", 0, agreed, fault("FaultyAggregator")
        ),
        one(
            "R4",
            "7: two signatures, three are needed",
            3,
            agreed[:2],
            fault("TooFewClients"),
        ),
        one(
            "R3",
            "7: bank-b signed another statement",
            3,
            [agreed[0], [1, other], agreed[2]],
            fault("FaultyAggregator"),
        ),
        one(
            "R2",
            "7: the third signature is bank-d's own",
            3,
            [*agreed[:2], [3, s.signed_by(d)]],
            fault("FaultyAggregator"),
        ),
        one(
            "E33",
            "7: the statement is that of another context",
            3,
            agreed,
            fault("ProtocolError"),
            edit(s.message(), {1: bytes(32)}),
        ),
    ]
