# SPDX-License-Identifier: Apache-2.0
"""Vectors of the aggregator's last step: what is revealed, and the opening."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

from . import reference as ref
from . import steps
from .reference import Value
from .world import Json, World, add, edit, fault


def reveal_faults(w: World) -> list[Json]:
    p, d = w.everyone[1], w.everyone[3]
    named = fault("FaultyClient", "bank-b")
    before = w.operations("reveals")
    rows = w.reveal_rows(p)

    def bad(check: str, why: str, rows: Sequence[Value]) -> Json:
        ops = [*before, add(1, steps.reveal(p, rows))]
        return w.aggregator_case(why, ops, named, check)

    own, key = w.everyone[0].shares(1)
    good = steps.reveal(p, rows)
    outside = steps.reveal(d, w.reveal_rows(d))
    return [
        bad(
            "E40",
            "5.7: bank-b reveals both kinds of share for bank-a",
            [[0, 1, own], [0, 2, key], *rows[1:]],
        ),
        bad(
            "A24",
            "6.6: bank-b reveals the key share of a survivor",
            [[0, 2, key], *rows[1:]],
        ),
        bad(
            "A24",
            "6.6: bank-b reveals the self share of a dropped client",
            [*rows[:3], [3, 1, d.shares(1)[0]]],
        ),
        bad(
            "A24",
            "6.6: bank-b reveals the right share under the wrong kind",
            [[0, 2, own], *rows[1:]],
        ),
        bad(
            "E46",
            "5.7: bank-b reveals a share of an unknown kind",
            [[0, 3, own], *rows[1:]],
        ),
        bad(
            "A25",
            "6.7: bank-b reveals a share that was dealt to bank-c",
            [[0, 1, w.everyone[0].shares(2)[0]], *rows[1:]],
        ),
        bad(
            "A26",
            "6.7: bank-b reveals a key share that was dealt to bank-c",
            [*rows[:3], [3, 2, d.shares(2)[1]]],
        ),
        bad(
            "A24",
            "6.6: bank-b reveals the right key share under the wrong kind",
            [*rows[:3], [3, 1, d.shares(1)[1]]],
        ),
        bad("A23", "6.8: bank-b reveals nothing about bank-d", rows[:3]),
        w.aggregator_case(
            "6.8: what bank-b reveals is not signed",
            [*before, add(1, edit(good, {4: bytes(64)}))],
            named,
            "A22",
        ),
        w.aggregator_case(
            "6.8: bank-b reveals twice",
            [*before, add(1, good), add(1, good)],
            named,
            "A3",
        ),
        w.aggregator_case(
            "6.8: bank-d reveals, and is not in the statement",
            [*before, add(3, outside)],
            fault("FaultyClient", "bank-d"),
            "A21",
        ),
        w.aggregator_case(
            "6.8: one reveal, three are needed",
            [*before, add(1, good), {"op": "close"}],
            fault("TooFewClients"),
            "A31",
        ),
    ]


# A dealer's two shares for one holder, from the honest two and that holder's number.
Bend = Callable[[steps.Shares, int], tuple[bytes, bytes]]


def dealer_faults() -> list[Json]:
    """6.9: dealers whose committed shares do not fit, found when the sum is opened."""

    def beyond(share: bytes) -> bytes:
        """The same element, in a form that is not below the prime."""
        return ref.le32(int.from_bytes(share, "little") + ref.PRIME)

    # Shares of another's place: no three of them fit what the dealer committed to.
    faults: list[tuple[str, str, int, str, Bend]] = [
        (
            "O3",
            "the shares of bank-b do not add up to its self mask",
            1,
            "self",
            lambda honest, to: (honest(to + 1)[0], honest(to)[1]),
        ),
        (
            "O4",
            "the shares of bank-d, which dropped out, do not add up to its mask key",
            3,
            "key",
            lambda honest, to: (honest(to)[0], honest(to + 1)[1]),
        ),
        (
            "O1",
            "a share of bank-b is not a field element",
            1,
            "field",
            lambda honest, to: (b"\xff" * 32, honest(to)[1]),
        ),
        (
            "O1",
            "the shares of bank-b would fit, were they below the prime",
            1,
            "field",
            lambda honest, to: (beyond(honest(to)[0]), honest(to)[1]),
        ),
        (
            "O2",
            "the key shares of bank-d, which dropped out, are not below the prime",
            3,
            "field",
            lambda honest, to: (honest(to)[0], beyond(honest(to)[1])),
        ),
    ]
    out = []
    for check, why, dealer, name, bend in faults:
        w = World(f"dealer {name}", survived=[0, 1, 2])
        p = w.everyone[dealer]
        p.shares = partial(bend, p.shares)  # type: ignore[method-assign]
        w.deals[dealer] = w.deal(p)
        culprit = fault("FaultyClient", w.c.names[dealer])
        out.append(w.aggregator_case(f"6.9: {why}", w.operations(), culprit, check))
    return out
