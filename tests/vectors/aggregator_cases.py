# SPDX-License-Identifier: Apache-2.0
"""Vectors of the aggregator: whole rounds, and one fault each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from . import steps
from .reference import Value
from .world import LOW_ORDER, Json, World, add, edit, fault


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
    ]


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

    def bad(why: str, until: str, *ops: Json, expect: Json) -> Json:
        return w.aggregator_case(why, [*w.operations(until), *ops], expect)

    def named(i: int) -> Json:
        return fault("FaultyClient", c.names[i])

    first = [add(q.index, steps.advertise(c, q.row())) for q in p]
    named_b = p[2].sign("advertise", c.ctx, 1, p[2].seal_key, p[2].mask_key)
    borrowed: list[Value] = [1, p[2].seal_key, p[2].mask_key, named_b]
    one_key = steps.announcement(p[2], p[2].mask_key, p[2].mask_key)
    low = steps.announcement(p[2], p[2].seal_key, LOW_ORDER)
    unsigned = edit(steps.advertise(c, p[1].row()), {5: bytes(64)})
    deals = {i: d.message() for i, d in w.deals.items()}
    missing = w.deal(p[1])
    del missing.rows[3]
    s = w.statement
    agreed = [add(i, steps.agreement(c, i, s.signed_by(p[i]))) for i in range(3)]
    three = World("three dealers", advertised=[0, 1, 2])
    return [
        bad(
            "6.8: bank-b's keys are not signed",
            "keys",
            add(1, unsigned),
            expect=named(1),
        ),
        bad(
            "6.8: bank-c speaks in the name of bank-b",
            "keys",
            add(2, steps.advertise(c, p[1].row())),
            expect=named(2),
        ),
        bad(
            "6.8: bank-c signs its own keys in the name of bank-b",
            "keys",
            add(2, steps.advertise(c, borrowed)),
            expect=named(2),
        ),
        bad(
            "6.8: bank-b sends a second message",
            "keys",
            first[1],
            first[1],
            expect=named(1),
        ),
        bad(
            "6.8: bank-c signed one key for both purposes",
            "keys",
            add(2, steps.advertise(c, one_key)),
            expect=named(2),
        ),
        bad(
            "6.8: bank-c signed a mask key of low order",
            "keys",
            add(2, steps.advertise(c, low)),
            expect=named(2),
        ),
        bad(
            "6.8: a message of another step", "keys", add(2, deals[2]), expect=named(2)
        ),
        few.aggregator_case(
            "6.8: two clients announced keys, three are needed",
            few.operations("shares"),
            fault("TooFewClients"),
        ),
        three.aggregator_case(
            "6.8: bank-d deals shares without having announced keys",
            [
                *three.operations("shares"),
                add(3, three.deal(three.everyone[3]).message()),
            ],
            named(3),
        ),
        bad(
            "6.8: bank-b dealt to another set than the cohort",
            "shares",
            add(1, missing.message()),
            expect=named(1),
        ),
        bad(
            "6.8: bank-b's shares are not signed",
            "shares",
            add(1, edit(deals[1], {5: bytes(64)})),
            expect=named(1),
        ),
        bad(
            "6.8: bank-b's commitment is not the one it signed",
            "shares",
            add(1, edit(deals[1], {3: bytes(32)})),
            expect=named(1),
        ),
        bad(
            "6.8: bank-b deals a second time",
            "shares",
            add(1, deals[1]),
            add(1, deals[1]),
            expect=named(1),
        ),
        bad(
            "6.8: two dealers, three are needed",
            "shares",
            add(1, deals[1]),
            add(2, deals[2]),
            {"op": "close"},
            expect=fault("TooFewClients"),
        ),
        bad(
            "6.8: bank-d agrees, and is not in the statement",
            "agreements",
            add(3, steps.agreement(c, 3, s.signed_by(p[3]))),
            expect=named(3),
        ),
        bad(
            "6.8: bank-b signed another statement",
            "agreements",
            add(1, steps.agreement(c, 1, s.with_rows(s.rows[:2]).signed_by(p[1]))),
            expect=named(1),
        ),
        bad(
            "6.8: bank-b agrees twice",
            "agreements",
            agreed[1],
            agreed[1],
            expect=named(1),
        ),
        bad(
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

    def bad(why: str, *ops: Json, expect: Json = named) -> Json:
        return w.aggregator_case(why, [*before, *ops], expect)

    padded = chunks[0][:-1] + bytes([chunks[0][-1] | 0x80])
    changed = bytes([chunks[0][0] ^ 1]) + chunks[0][1:]
    three = World("three dealers", dealt=[0, 1, 2])
    stranger = steps.chunk_message(three.c, 3, 0, bytes(8))
    return [
        bad("6.8: the second chunk comes first", parts[1]),
        bad("6.8: the first chunk comes twice", parts[0], parts[0]),
        bad(
            "2.4: the padding of a chunk is not zero",
            add(1, steps.chunk_message(c, 1, 0, padded)),
        ),
        bad(
            "5.5: a chunk is one byte short",
            add(1, steps.chunk_message(c, 1, 0, chunks[0][:-1])),
        ),
        bad(
            "5.5: a chunk beyond the vector",
            *parts[:2],
            add(1, steps.chunk_message(c, 1, 2, chunks[0])),
        ),
        bad("6.8: the vector is not complete", parts[0], parts[2]),
        bad(
            "6.8: the vector is not complete, and its root is that of what came",
            parts[0],
            add(1, replace(good, root=steps.chunk_root(chunks[:1])).message()),
        ),
        bad(
            "6.8: the chunks do not match the signed root",
            add(1, steps.chunk_message(c, 1, 0, changed)),
            parts[1],
            parts[2],
        ),
        bad(
            "6.8: the vector is masked for another set of dealers",
            *parts[:2],
            add(1, replace(good, dealers=steps.dealers_hash(c, [0, 1, 2])).message()),
        ),
        bad(
            "6.8: the vector is signed for another cohort",
            *parts[:2],
            add(1, replace(good, cohort=bytes(32)).message()),
        ),
        bad(
            "6.8: the claim is not the one that was signed",
            *parts[:2],
            add(1, edit(good.message(), {5: bytes(32)})),
        ),
        bad("6.8: a chunk after the end of the vector", *parts, parts[0]),
        bad("6.8: the vector ends twice", *parts, parts[2]),
        three.aggregator_case(
            "6.8: bank-d sends a chunk and has dealt no shares",
            [*three.operations("inputs"), add(3, stranger)],
            fault("FaultyClient", "bank-d"),
        ),
        bad(
            "6.8: one vector, three are needed",
            *parts,
            {"op": "close"},
            expect=fault("TooFewClients"),
        ),
    ]


def reveal_faults(w: World) -> list[Json]:
    p, d = w.everyone[1], w.everyone[3]
    named = fault("FaultyClient", "bank-b")
    before = w.operations("reveals")
    rows = w.reveal_rows(p)

    def bad(why: str, rows: Sequence[Value], expect: Json = named) -> Json:
        return w.aggregator_case(why, [*before, add(1, steps.reveal(p, rows))], expect)

    own, key = w.everyone[0].shares(1)
    good = steps.reveal(p, rows)
    outside = steps.reveal(d, w.reveal_rows(d))
    return [
        bad(
            "5.7: bank-b reveals both kinds of share for bank-a",
            [[0, 1, own], [0, 2, key], *rows[1:]],
        ),
        bad(
            "6.6: bank-b reveals the key share of a survivor", [[0, 2, key], *rows[1:]]
        ),
        bad(
            "6.6: bank-b reveals the self share of a dropped client",
            [*rows[:3], [3, 1, d.shares(1)[0]]],
        ),
        bad(
            "6.6: bank-b reveals the right share under the wrong kind",
            [[0, 2, own], *rows[1:]],
        ),
        bad("5.7: bank-b reveals a share of an unknown kind", [[0, 3, own], *rows[1:]]),
        bad(
            "6.7: bank-b reveals a share that was dealt to bank-c",
            [[0, 1, w.everyone[0].shares(2)[0]], *rows[1:]],
        ),
        bad("6.8: bank-b reveals nothing about bank-d", rows[:3]),
        w.aggregator_case(
            "6.8: what bank-b reveals is not signed",
            [*before, add(1, edit(good, {4: bytes(64)}))],
            named,
        ),
        w.aggregator_case(
            "6.8: bank-b reveals twice", [*before, add(1, good), add(1, good)], named
        ),
        w.aggregator_case(
            "6.8: bank-d reveals, and is not in the statement",
            [*before, add(3, outside)],
            fault("FaultyClient", "bank-d"),
        ),
        w.aggregator_case(
            "6.8: one reveal, three are needed",
            [*before, add(1, good), {"op": "close"}],
            fault("TooFewClients"),
        ),
    ]


def dealer_faults() -> list[Json]:
    """6.9: dealers whose committed shares do not fit, found when the sum is opened."""
    out = []
    for why, dealer, bend in (
        ("the shares of bank-b do not add up to its self mask", 1, "self"),
        (
            "the shares of bank-d, which dropped out, do not add up to its mask key",
            3,
            "key",
        ),
        ("a share of bank-b is not a field element", 1, "field"),
    ):
        w = World(f"dealer {bend}", survived=[0, 1, 2])
        p = w.everyone[dealer]
        # A polynomial of its own for each share: no three of them fit the commitment.
        honest = p.shares

        def bent(
            to: int, honest: steps.Shares = honest, bend: str = bend
        ) -> tuple[bytes, bytes]:
            self_share, key_share = honest(to)
            if bend == "self":
                return honest(to + 1)[0], key_share
            if bend == "key":
                return self_share, honest(to + 1)[1]
            return b"\xff" * 32, key_share

        p.shares = bent  # type: ignore[method-assign]
        w.deals[dealer] = w.deal(p)
        culprit = fault("FaultyClient", w.c.names[dealer])
        out.append(w.aggregator_case(f"6.9: {why}", w.operations(), culprit))
    return out
