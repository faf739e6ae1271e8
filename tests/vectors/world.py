# SPDX-License-Identifier: Apache-2.0
"""Whole contexts for the vectors, in which everybody is honest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import cbor2

from secure_fl.randomness import SeededInsecure

from . import reference as ref
from . import steps
from .reference import Context, Value
from .steps import Deal, Input, Party, StatementOf

Json = dict[str, object]

# A point of low order: X25519 with it gives zero whatever the private key.
LOW_ORDER = bytes(32)
# The base point of X25519, plus p: below 2^255, and not its one form.
OTHER_FORM = (2**255 - 19 + 9).to_bytes(32, "little")


def case(description: str, input_: Json, expect: Json, check: str = "") -> Json:
    """One case; ``check`` is the id in SPEC of the one check that it breaks."""
    assert bool(check) == ("error" in expect), description
    named: Json = {"check": check} if check else {}
    return {"description": description, **named, "input": input_, "expect": expect}


def fault(error: str, culprit: str = "") -> Json:
    return {"error": error, "culprit": culprit} if culprit else {"error": error}


def session_json(c: Context) -> Json:
    return {
        "plan_hash": c.plan_hash.hex(),
        "run_id": c.run_id.hex(),
        "round": c.round_index,
        "attempt": c.attempt,
        "roster": [
            [name, ref.ed25519_public(seed).hex()]
            for name, seed in zip(c.names, c.seeds, strict=True)
        ],
        "model_hash": c.model_hash.hex(),
        "parameters": {
            "clients": len(c.seeds),
            "length": c.length,
            "word_bits": c.word_bits,
            "chunk_words": c.chunk_words,
            "threshold": c.threshold,
            "min_clients": c.min_clients,
            "max_colluding": c.max_colluding,
        },
    }


def context(
    random: SeededInsecure,
    clients: int,
    *,
    length: int,
    word_bits: int,
    chunk_words: int,
    min_clients: int = 3,
) -> Context:
    return Context(
        seeds=tuple(random.bytes(32) for _ in range(clients)),
        names=tuple(f"bank-{chr(97 + i)}" for i in range(clients)),
        plan_hash=random.bytes(32),
        run_id=random.bytes(16),
        round_index=3,
        attempt=0,
        model_hash=random.bytes(32),
        length=length,
        word_bits=word_bits,
        chunk_words=chunk_words,
        threshold=(clients + 1) // 2 + 1,
        min_clients=min_clients,
        max_colluding=1,
    )


def edit(message: bytes, changes: dict[int, Value]) -> bytes:
    """The message with some of its fields changed."""
    return ref.cbor({**cbor2.loads(message), **changes})


class World:
    """One context in which everybody is honest and some clients drop out."""

    def __init__(
        self,
        name: str,
        *,
        clients: int = 4,
        length: int = 5,
        word_bits: int = 20,
        chunk_words: int = 3,
        min_clients: int = 3,
        advertised: Sequence[int] | None = None,
        dealt: Sequence[int] | None = None,
        survived: Sequence[int] | None = None,
        bad_keys: dict[int, tuple[bytes | None, bytes | None]] | None = None,
    ) -> None:
        random = SeededInsecure(f"secure-fl/masking/1 vectors {name}".encode())
        self.c = context(
            random,
            clients,
            length=length,
            word_bits=word_bits,
            chunk_words=chunk_words,
            min_clients=min_clients,
        )
        everyone = [
            Party(self.c, i, random.bytes(32), random.bytes(32)) for i in range(clients)
        ]
        self.everyone = everyone
        self.u1 = [everyone[i] for i in advertised or range(clients)]
        self.u2 = [everyone[i] for i in dealt or [p.index for p in self.u1]]
        self.u3 = [everyone[i] for i in survived or [p.index for p in self.u2]]
        self.rows = []
        for p in self.u1:
            seal_key, mask_key = (bad_keys or {}).get(p.index, (None, None))
            self.rows.append(
                steps.announcement(p, seal_key or p.seal_key, mask_key or p.mask_key)
            )
        self.cohort = steps.cohort_hash(self.c, self.rows)
        self._ephemeral = random.bytes(32)
        self.deals = {p.index: self.deal(p) for p in self.u2}
        self.dealers = steps.dealers_hash(self.c, [p.index for p in self.u2])
        self.words = {}
        self.claims = {}
        for p in everyone:
            raw = random.bytes(8 * length)
            self.words[p.index] = [
                int.from_bytes(raw[8 * i : 8 * i + 8], "little") % 2**word_bits
                for i in range(length)
            ]
            self.claims[p.index] = random.bytes(32)
        self.attached = random.bytes(32)

    def deal(
        self,
        p: Party,
        *,
        shares: steps.Shares | None = None,
        cohort: bytes | None = None,
    ) -> Deal:
        def ephemeral(to: int) -> bytes:
            return ref.derive(self.c.ctx, self._ephemeral, "ephemeral", p.index, to)

        return steps.deal(p, self.u1, cohort or self.cohort, ephemeral, shares=shares)

    def inbox_rows(self, reader: int) -> list[list[Value]]:
        return [self.deals[p.index].inbox_row(reader) for p in self.u2]

    def chunks(self, p: Party) -> list[bytes]:
        return steps.masked_chunks(p, self.words[p.index], self.u2, self.cohort)

    def input_of(self, p: Party) -> Input:
        root = steps.chunk_root(self.chunks(p))
        # One client attaches a payload's root: the field is empty or a hash.
        attached = self.attached if p.index == 1 else b""
        return Input(p, self.cohort, root, self.dealers, self.claims[p.index], attached)

    @property
    def statement(self) -> StatementOf:
        rows = [self.input_of(p).row() for p in self.u3]
        return StatementOf(self.c, self.cohort, self.dealers, rows)

    def agreed(self, signers: Iterable[Party] | None = None) -> list[Value]:
        signers = self.u3 if signers is None else signers
        return [[p.index, self.statement.signed_by(p)] for p in signers]

    def reveal_rows(self, p: Party) -> list[list[Value]]:
        return steps.reveal_rows(p, self.u2, [q.index for q in self.u3])

    def total(self) -> list[int]:
        columns = zip(*(self.words[p.index] for p in self.u3), strict=True)
        return [sum(column) % 2**self.c.word_bits for column in columns]

    # -- operations of one client, and what it answers ----------------------------

    def client_case(
        self,
        description: str,
        me: int,
        *,
        cohort: bytes | None = None,
        inbox: bytes | None = None,
        statement: bytes | None = None,
        signatures: bytes | None = None,
        stop: str = "",
        expect: Json | None = None,
        check: str = "",
    ) -> Json:
        """The client's way up to ``stop``; given bytes replace the honest message.

        A fault is met at the last operation: all before it succeed.
        """
        p, c = self.everyone[me], self.c
        ops: list[Json] = [{"op": "start", "random": p.random_1.hex()}]
        sent: list[object] = [steps.advertise(c, p.row()).hex()]
        keys = cohort or steps.cohort_keys(c, self.rows)
        ops.append({"op": "cohort", "message": keys.hex(), "random": p.random_2.hex()})
        if stop != "cohort":
            deal = self.deals[me]
            sent.append(
                {
                    "commitment": deal.commitment.hex(),
                    "cohort": self.cohort.hex(),
                    "shares": [
                        {
                            "to": q.index,
                            "seal_private_key": q.seal_seed.hex(),
                            "self": p.shares(q.index)[0].hex(),
                            "key": p.shares(q.index)[1].hex(),
                        }
                        for q in self.u1
                    ],
                }
            )
            i = self.input_of(p)
            box_message = inbox or steps.inbox(c, self.inbox_rows(me))
            ops.append(
                {
                    "op": "inbox",
                    "message": box_message.hex(),
                    "words": [str(w) for w in self.words[me]],
                    "claim": i.claim.hex(),
                    "attached": i.attached.hex(),
                }
            )
        if stop not in ("cohort", "inbox"):
            messages = [
                steps.chunk_message(c, me, k, data)
                for k, data in enumerate(self.chunks(p))
            ]
            sent.append([m.hex() for m in (*messages, i.message())])
            said = statement or self.statement.message()
            ops.append({"op": "statement", "message": said.hex()})
        if stop not in ("cohort", "inbox", "statement"):
            sent.append(steps.agreement(c, me, self.statement.signed_by(p)).hex())
            proof = signatures or steps.signatures(c, self.agreed())
            ops.append({"op": "signatures", "message": proof.hex()})
        if not stop:
            sent.append(steps.reveal(p, self.reveal_rows(p)).hex())
        input_: Json = {
            "session": session_json(c),
            "client": me,
            "identity": c.seeds[me].hex(),
            "operations": ops,
        }
        return case(description, input_, expect or {"sent": sent}, check)

    # -- operations of the aggregator ---------------------------------------------

    def operations(self, until: str = "") -> list[Json]:
        """What an aggregator receives up to and without the step ``until``."""
        c = self.c
        ops: list[Json] = []
        received: list[tuple[str, list[tuple[int, bytes]]]] = [
            ("keys", [(p.index, steps.advertise(c, p.row())) for p in self.u1]),
            ("shares", [(i, d.message()) for i, d in self.deals.items()]),
            ("inputs", [m for p in self.u3 for m in self.upload(p)]),
            (
                "agreements",
                [
                    (p.index, steps.agreement(c, p.index, self.statement.signed_by(p)))
                    for p in self.u3
                ],
            ),
            (
                "reveals",
                [(p.index, steps.reveal(p, self.reveal_rows(p))) for p in self.u3],
            ),
        ]
        for step, messages in received:
            if step == until:
                break
            ops += [add(sender, message) for sender, message in messages]
            ops.append({"op": "close"})
        return ops

    def upload(self, p: Party) -> list[tuple[int, bytes]]:
        chunks = [
            (p.index, steps.chunk_message(self.c, p.index, k, data))
            for k, data in enumerate(self.chunks(p))
        ]
        return [*chunks, (p.index, self.input_of(p).message())]

    def sent(self) -> list[object]:
        """What an honest aggregator sends when it closes each step."""
        c = self.c
        keys = steps.cohort_keys(c, self.rows).hex()
        said = self.statement.message().hex()
        return [
            keys,
            {
                str(p.index): steps.inbox(c, self.inbox_rows(p.index)).hex()
                for p in self.u2
            },
            said,
            steps.signatures(c, self.agreed()).hex(),
        ]

    def opened(self) -> Json:
        return {
            "sent": self.sent(),
            "survivors": [p.index for p in self.u3],
            "words": [str(w) for w in self.total()],
        }

    def aggregator_case(
        self, description: str, ops: Sequence[Json], expect: Json, check: str = ""
    ) -> Json:
        input_: Json = {"session": session_json(self.c), "operations": list(ops)}
        return case(description, input_, expect, check)


def add(sender: int, message: bytes, *, refused: Json | None = None) -> Json:
    op: Json = {"op": "add", "from": sender, "message": message.hex()}
    return op if refused is None else {**op, "refused": refused}
