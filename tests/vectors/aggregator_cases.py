# SPDX-License-Identifier: Apache-2.0
"""Vectors of the aggregator: whole rounds, and one fault each."""

from __future__ import annotations

from dataclasses import replace

from . import steps
from .reference import Value
from .reveal_cases import dealer_faults, reveal_faults
from .world import LOW_ORDER, OTHER_FORM, Json, World, add, edit, fault


def aggregator_cases() -> list[Json]:
    w = World("aggregator", survived=[0, 1, 2])
    full = World("aggregator of three", clients=3, word_bits=33, length=4)
    return [
        w.aggregator_case(
            "four clients; bank-d sends no vector", w.operations(), w.opened()
        ),
        full.aggregator_case(
            "three of three, words of 33 bits", full.operations(), full.opened()
        ),
        goes_on(w),
        *step_faults(w),
        *vector_faults(w),
        *reveal_faults(w),
        *dealer_faults(),
        three_agree(),
        *every_step(w),
        *too_few(),
    ]


def three_agree() -> Json:
    """To open takes ``t`` agreements and reveals, of whichever survivors."""
    w = World("all four", min_clients=4)
    p, s = w.everyone, w.statement
    agreed = [p[0], p[1], p[3]]
    ops = w.operations("agreements")
    for q in agreed:
        ops.append(add(q.index, steps.agreement(w.c, q.index, s.signed_by(q))))
    ops.append({"op": "close"})
    # bank-c may reveal although its agreement never came.
    ops += [add(q.index, steps.reveal(q, w.reveal_rows(q))) for q in p[1:]]
    ops.append({"op": "close"})
    signatures = steps.signatures(w.c, w.agreed(agreed)).hex()
    expect: Json = {**w.opened(), "sent": [*w.sent()[:3], signatures]}
    return w.aggregator_case(
        "four are needed in the sum; three of them agree, and three others reveal",
        ops,
        expect,
    )


def every_step(w: World) -> list[Json]:
    """Steps 2 to 5: another's message in one's own name's place, and another step's."""
    c, b = w.c, w.everyone[1]
    chunk, *_, masked = w.upload(b)
    sent = {
        "keys": steps.advertise(c, b.row()),
        "shares": w.deals[1].message(),
        "inputs": chunk[1],
        "the end of inputs": masked[1],
        "agreements": steps.agreement(c, 1, w.statement.signed_by(b)),
        "reveals": steps.reveal(b, w.reveal_rows(b)),
    }
    out = []
    previous = sent["keys"]
    for name, message in list(sent.items())[1:]:
        until = "inputs" if name == "the end of inputs" else name
        before = w.operations(until)
        if until != name:
            # bank-c's own chunks are there; only what ends them is another's.
            before += [add(2, m) for _, m in w.upload(w.everyone[2])[:-1]]
        out.append(
            w.aggregator_case(
                f"6.8: bank-c hands on bank-b's message in {name}",
                [*before, add(2, message)],
                fault("FaultyClient", "bank-c"),
                "A2",
            )
        )
        if until == name:
            out.append(
                w.aggregator_case(
                    f"6.8: bank-b's message of the step before {name} comes in it",
                    [*w.operations(until), add(1, previous)],
                    fault("FaultyClient", "bank-b"),
                    "A1",
                )
            )
        previous = message
    return out


def too_few() -> list[Json]:
    """``needed`` is the larger of its two: three are too few by each of them."""
    few = fault("TooFewClients")
    three = [0, 1, 2]
    out = []
    for why, clients, min_clients in (
        ("the sum needs four", 4, 4),
        ("the threshold is four", 5, 3),
    ):
        for check, until, what, u1, u2 in (
            ("A27", "shares", "announcements", three, three),
            ("A28", "inputs", "dealers", None, three),
            ("A29", "agreements", "vectors", None, None),
        ):
            w = World(
                "few",
                clients=clients,
                min_clients=min_clients,
                advertised=u1,
                dealt=u2,
                survived=three,
            )
            title = f"6.8: three {what}, {why}"
            out.append(w.aggregator_case(title, w.operations(until), few, check))
    return out


def goes_on(w: World) -> Json:
    """A bad message ends nothing but itself."""
    c, d = w.c, w.everyone[3]
    blamed = fault("FaultyClient", "bank-d")
    garbage = add(3, b"\xff", refused=blamed)
    other = steps.advertise(replace(c, attempt=1), d.row())
    late = edit(w.deals[3].message(), {5: bytes(64)})
    ops: list[Json] = [garbage, add(3, other, refused=blamed)]
    for op in w.operations():
        ops.append(op)
        if op["op"] == "close":
            ops.append(garbage)
    ops.insert(ops.index({"op": "close"}) + 1, add(3, late, refused=blamed))
    return w.aggregator_case(
        "every refused message names its sender, and the step goes on for the others",
        ops[:-1],
        w.opened(),
    )


def step_faults(w: World) -> list[Json]:
    c, p = w.c, w.everyone
    few = World("few", advertised=[0, 1])

    def bad(check: str, why: str, until: str, *ops: Json, expect: Json) -> Json:
        return w.aggregator_case(why, [*w.operations(until), *ops], expect, check)

    def named(i: int) -> Json:
        return fault("FaultyClient", c.names[i])

    first = [add(q.index, steps.advertise(c, q.row())) for q in p]
    named_b = p[2].sign("advertise", c.ctx, 1, p[2].seal_key, p[2].mask_key)
    borrowed: list[Value] = [1, p[2].seal_key, p[2].mask_key, named_b]
    one_key = steps.announcement(p[2], p[2].mask_key, p[2].mask_key)
    low = steps.announcement(p[2], p[2].seal_key, LOW_ORDER)
    low_seal = steps.announcement(p[2], LOW_ORDER, p[2].mask_key)
    odd = steps.announcement(p[2], p[2].seal_key, OTHER_FORM)
    odd_seal = steps.announcement(p[2], OTHER_FORM, p[2].mask_key)
    unsigned = edit(steps.advertise(c, p[1].row()), {5: bytes(64)})
    deals = {i: d.message() for i, d in w.deals.items()}
    missing = w.deal(p[1])
    del missing.rows[3]
    s = w.statement
    agreed = [add(i, steps.agreement(c, i, s.signed_by(p[i]))) for i in range(3)]
    three = World("three dealers", advertised=[0, 1, 2])
    return [
        bad(
            "A5",
            "6.8: bank-b's keys are not signed",
            "keys",
            add(1, unsigned),
            expect=named(1),
        ),
        bad(
            "A2",
            "6.8: bank-c speaks in the name of bank-b",
            "keys",
            add(2, steps.advertise(c, p[1].row())),
            expect=named(2),
        ),
        bad(
            "A2",
            "6.8: bank-c signs its own keys in the name of bank-b",
            "keys",
            add(2, steps.advertise(c, borrowed)),
            expect=named(2),
        ),
        bad(
            "A3",
            "6.8: bank-b sends a second message",
            "keys",
            first[1],
            first[1],
            expect=named(1),
        ),
        bad(
            "A6",
            "6.8: bank-c signed one key for both purposes",
            "keys",
            add(2, steps.advertise(c, one_key)),
            expect=named(2),
        ),
        bad(
            "A8",
            "6.8: bank-c signed a mask key of low order",
            "keys",
            add(2, steps.advertise(c, low)),
            expect=named(2),
        ),
        bad(
            "A7",
            "6.8: bank-c signed a sealing key of low order",
            "keys",
            add(2, steps.advertise(c, low_seal)),
            expect=named(2),
        ),
        bad(
            "A8",
            "6.8: bank-c signed a mask key in another form than its one",
            "keys",
            add(2, steps.advertise(c, odd)),
            expect=named(2),
        ),
        bad(
            "A7",
            "6.8: bank-c signed a sealing key in another form than its one",
            "keys",
            add(2, steps.advertise(c, odd_seal)),
            expect=named(2),
        ),
        bad(
            "A1",
            "6.8: the right announcement, called a message of another step",
            "keys",
            add(1, edit(steps.advertise(c, p[1].row()), {0: 3})),
            expect=named(1),
        ),
        bad(
            "A1",
            "6.8: a message of another step",
            "keys",
            add(2, deals[2]),
            expect=named(2),
        ),
        few.aggregator_case(
            "6.8: two clients announced keys, three are needed",
            few.operations("shares"),
            fault("TooFewClients"),
            "A27",
        ),
        three.aggregator_case(
            "6.8: bank-d deals shares without having announced keys",
            [
                *three.operations("shares"),
                add(3, three.deal(three.everyone[3]).message()),
            ],
            named(3),
            "A9",
        ),
        bad(
            "A10",
            "6.8: bank-b dealt to another set than the cohort",
            "shares",
            add(1, missing.message()),
            expect=named(1),
        ),
        bad(
            "A11",
            "6.8: bank-b's shares are not signed",
            "shares",
            add(1, edit(deals[1], {5: bytes(64)})),
            expect=named(1),
        ),
        bad(
            "A11",
            "6.8: bank-b's commitment is not the one it signed",
            "shares",
            add(1, edit(deals[1], {3: bytes(32)})),
            expect=named(1),
        ),
        bad(
            "A3",
            "6.8: bank-b deals a second time",
            "shares",
            add(1, deals[1]),
            add(1, deals[1]),
            expect=named(1),
        ),
        bad(
            "A28",
            "6.8: two dealers, three are needed",
            "shares",
            add(1, deals[1]),
            add(2, deals[2]),
            {"op": "close"},
            expect=fault("TooFewClients"),
        ),
        bad(
            "A19",
            "6.8: bank-d agrees, and is not in the statement",
            "agreements",
            add(3, steps.agreement(c, 3, s.signed_by(p[3]))),
            expect=named(3),
        ),
        bad(
            "A20",
            "6.8: bank-b signed another statement",
            "agreements",
            add(1, steps.agreement(c, 1, s.with_rows(s.rows[:2]).signed_by(p[1]))),
            expect=named(1),
        ),
        bad(
            "A3",
            "6.8: bank-b agrees twice",
            "agreements",
            agreed[1],
            agreed[1],
            expect=named(1),
        ),
        bad(
            "A30",
            "6.8: two agreements, three are needed",
            "agreements",
            agreed[0],
            agreed[2],
            {"op": "close"},
            expect=fault("TooFewClients"),
        ),
    ]


def vector_faults(w: World) -> list[Json]:
    c, p = w.c, w.everyone[1]
    chunks = w.chunks(p)
    parts = [add(i, message) for i, message in w.upload(p)]
    named = fault("FaultyClient", "bank-b")
    before = w.operations("inputs")
    good = w.input_of(p)

    def bad(check: str, why: str, *ops: Json, expect: Json = named) -> Json:
        return w.aggregator_case(why, [*before, *ops], expect, check)

    padded = chunks[0][:-1] + bytes([chunks[0][-1] | 0x80])
    changed = bytes([chunks[0][0] ^ 1]) + chunks[0][1:]
    three = World("three dealers", dealt=[0, 1, 2])
    stranger = steps.chunk_message(three.c, 3, 0, bytes(8))
    d = three.everyone[3]
    return [
        bad("A13", "6.8: the second chunk comes first", parts[1]),
        bad("A13", "6.8: the first chunk comes twice", parts[0], parts[0]),
        bad(
            "A14",
            "2.4: the padding of a chunk is not zero",
            add(1, steps.chunk_message(c, 1, 0, padded)),
        ),
        bad(
            "E45",
            "5.5: a chunk is one byte short",
            add(1, steps.chunk_message(c, 1, 0, chunks[0][:-1])),
        ),
        bad(
            "E44",
            "5.5: a chunk beyond the vector",
            *parts[:2],
            add(1, steps.chunk_message(c, 1, 2, chunks[0])),
        ),
        bad("A17", "6.8: the vector is not complete", parts[0], parts[2]),
        bad(
            "A17",
            "6.8: the vector is not complete, and its root is that of what came",
            parts[0],
            add(1, replace(good, root=steps.chunk_root(chunks[:1])).message()),
        ),
        bad(
            "A18",
            "6.8: the chunks do not match the signed root",
            add(1, steps.chunk_message(c, 1, 0, changed)),
            parts[1],
            parts[2],
        ),
        bad(
            "A16",
            "6.8: the vector is masked for another set of dealers",
            *parts[:2],
            add(1, replace(good, dealers=steps.dealers_hash(c, [0, 1, 2])).message()),
        ),
        bad(
            "A15",
            "6.8: the vector is signed for another cohort",
            *parts[:2],
            add(1, replace(good, cohort=bytes(32)).message()),
        ),
        bad(
            "A15",
            "6.8: the claim is not the one that was signed",
            *parts[:2],
            add(1, edit(good.message(), {5: bytes(32)})),
        ),
        bad("A4", "6.8: a chunk after the end of the vector", *parts, parts[0]),
        bad("A3", "6.8: the vector ends twice", *parts, parts[2]),
        three.aggregator_case(
            "6.8: bank-d ends a vector and has dealt no shares",
            [*three.operations("inputs"), add(3, three.input_of(d).message())],
            fault("FaultyClient", "bank-d"),
            "A12",
        ),
        three.aggregator_case(
            "6.8: bank-d sends a chunk and has dealt no shares",
            [*three.operations("inputs"), add(3, stranger)],
            fault("FaultyClient", "bank-d"),
            "A12",
        ),
        bad(
            "A29",
            "6.8: one vector, three are needed",
            *parts,
            {"op": "close"},
            expect=fault("TooFewClients"),
        ),
    ]
