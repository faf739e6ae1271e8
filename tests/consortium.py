# SPDX-License-Identifier: Apache-2.0
"""A scriptable consortium over the real masking protocol: no mocks, only liars.

Every message travels as bytes, is encoded by its sender's session and decoded by its
receiver's.  Two hooks see each message on its way: ``sending`` (client to aggregator)
and ``delivering`` (aggregator to client).  A hook returns the message, another one, or
None: a client whose message is dropped, or that got none, is gone from then on.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from secure_fl import wire
from secure_fl.errors import ProtocolError, SecureFLError
from secure_fl.fixedpoint import Word, word_dtype
from secure_fl.identity import Identity, Member, Roster
from secure_fl.masking import (
    AwaitCohort,
    AwaitInbox,
    AwaitSignatures,
    AwaitStatement,
    CollectAdvertise,
    Opened,
    Parameters,
    Session,
    crypto,
    default_threshold,
    messages,
    shamir,
    start,
)
from secure_fl.randomness import SeededInsecure

# (step, client, message) -> message, another message, or None for silence.
Hook = Callable[[int, int, bytes], bytes | None]
ClientState = AwaitCohort | AwaitInbox | AwaitStatement | AwaitSignatures
CLAIM = bytes(range(32))


def honest(step: int, client: int, message: bytes) -> bytes | None:
    """The hook that changes nothing."""
    return message


def dropping(drops: Mapping[int, int]) -> Hook:
    """Client ``i`` says nothing from step ``drops[i]`` (1 to 5) on."""

    def hook(step: int, client: int, message: bytes) -> bytes | None:
        return None if step >= drops.get(client, 9) else message

    return hook


def replacing(step: int, client: int, by: bytes) -> Hook:
    """One client's message of one step is ``by`` instead."""

    def hook(at: int, who: int, message: bytes) -> bytes | None:
        return by if (at, who) == (step, client) else message

    return hook


@functools.cache
def identities(n: int, tag: str = "") -> tuple[Identity, ...]:
    """``n`` repeatable identities ``bank-0`` and so on."""
    random = SeededInsecure(f"identities {tag}".encode())
    return tuple(Identity.new(f"bank-{i}", random=random) for i in range(n))


def make_roster(n: int, tag: str = "") -> Roster:
    return Roster(tuple(Member(i.name, i.public_key) for i in identities(n, tag)))


def make_session(
    n: int,
    *,
    length: int = 5,
    word_bits: int = 32,
    chunk_words: int = 3,
    threshold: int | None = None,
    min_clients: int | None = None,
    max_colluding: int = 1,
    round_index: int = 0,
    attempt: int = 0,
    plan: bytes = b"p" * 32,
    model: bytes = b"m" * 32,
    roster: Roster | None = None,
) -> Session:
    """A session of ``n`` clients; what is left out is the smallest that is safe."""
    return Session(
        plan_hash=plan,
        run_id=b"r" * 16,
        round_index=round_index,
        attempt=attempt,
        roster=roster or make_roster(n),
        model_hash=model,
        parameters=Parameters(
            clients=n,
            length=length,
            word_bits=word_bits,
            chunk_words=chunk_words,
            threshold=threshold or default_threshold(n, max_colluding),
            min_clients=min_clients or max_colluding + 2,
            max_colluding=max_colluding,
        ),
    )


def make_vectors(session: Session, *, seed: int = 0) -> list[NDArray[Word]]:
    """One vector of uniform words per client."""
    p = session.parameters
    draws = np.random.default_rng(seed)
    dtype = word_dtype(p.word_bits)
    mask = dtype.type(2**p.word_bits - 1)
    return [
        draws.integers(0, 2**63, p.length, dtype=np.uint64).astype(dtype) & mask
        for _ in range(p.clients)
    ]


def plain_sum(
    session: Session, vectors: Sequence[NDArray[Word]], clients: Iterable[int]
) -> list[int]:
    """The sum mod 2^word_bits in Python integers: what must be opened."""
    modulus = 2**session.parameters.word_bits
    rows = [[int(x) for x in vectors[i]] for i in clients]
    return [sum(column) % modulus for column in zip(*rows, strict=True)]


class Consortium:
    """``n`` clients and an aggregator, step by step or in one go.

    ``views`` gives a client another session than the aggregator's (another model, say).
    After a step: ``left`` holds the error with which a client ended, ``refused`` what
    the aggregator refused, ``said[step]`` the bytes each client sent that were heard,
    ``seeds`` the attached seed of each client that came to its upload.
    """

    def __init__(
        self,
        session: Session,
        *,
        vectors: Sequence[NDArray[Word]] | None = None,
        sending: Hook = honest,
        delivering: Hook = honest,
        views: Mapping[int, Session] | None = None,
        seed: bytes = b"consortium",
    ) -> None:
        n = session.parameters.clients
        self.session = session
        self.vectors = list(vectors or make_vectors(session))
        self.sending = sending
        self.delivering = delivering
        self.views = dict.fromkeys(range(n), session) | dict(views or {})
        self.names = identities(n)
        source = SeededInsecure(seed)
        self.starts = [source.bytes(32) for _ in range(n)]
        self.deals = [source.bytes(32) for _ in range(n)]
        self.states: dict[int, ClientState] = {}
        self.seeds: dict[int, bytes] = {}
        self.left: dict[int, SecureFLError] = {}
        self.refused: list[tuple[int, int, ProtocolError]] = []
        self.said: dict[int, dict[int, list[bytes]]] = {s: {} for s in range(1, 6)}
        self.told: dict[int, dict[int, bytes]] = {s: {} for s in range(1, 6)}

    # -- the secrets, for tests that look behind the curtain -------------------------

    def secrets(self, client: int) -> tuple[int, int]:
        """The elements (beta, z) behind a client's self mask and mask key."""
        beta, z = crypto.elements(
            self.starts[client], "secrets", 2, ctx=self.session.ctx
        )
        return beta, z

    # -- the wires ---------------------------------------------------------------------

    def _hear(
        self, step: int, client: int, data: bytes, add: Callable[[bytes], None]
    ) -> bool:
        """Carry one message to the aggregator.  False: the client fell silent."""
        heard = self.sending(step, client, data)
        if heard is None:
            return False
        self.said[step].setdefault(client, []).append(heard)
        try:
            add(heard)
        except ProtocolError as error:
            self.refused.append((step, client, error))
        return True

    def _reach(self, step: int, client: int, data: bytes) -> bytes | None:
        told = self.delivering(step, client, data)
        if told is not None:
            self.told[step][client] = told
        return told

    def _each(
        self,
        step: int,
        outgoing: Mapping[int, bytes],
        act: Callable[[int, bytes], bool],
    ) -> None:
        """Deliver to every client that is still there; ``act`` answers."""
        for client in list(self.states):
            told = (
                self._reach(step, client, outgoing[client])
                if client in outgoing
                else None
            )
            if told is None:
                del self.states[client]
                continue
            try:
                stays = act(client, told)
            except SecureFLError as error:
                self.left[client] = error
                stays = False
            if not stays:
                self.states.pop(client, None)

    # -- the five steps --------------------------------------------------------------

    def advertise(self) -> None:
        """Step 1: keys come in and go out."""
        session = self.session
        collector = CollectAdvertise(session)
        for client, identity in enumerate(self.names):
            view = self.views[client]
            state, message = start(view, identity, random=self.starts[client])

            def add(raw: bytes, client: int = client) -> None:
                collector.add(client, messages.Advertise.decode(raw, session))

            if self._hear(1, client, message.encode(view), add):
                self.states[client] = state
        self.collect_shares, self.cohort = collector.close()
        self.outgoing = dict.fromkeys(collector.senders, self.cohort.encode(session))

    def deal(self) -> None:
        """Step 2: sealed shares."""
        session, collector = self.session, self.collect_shares

        def act(client: int, told: bytes) -> bool:
            view, state = self.views[client], self.states[client]
            assert isinstance(state, AwaitCohort)
            keys = messages.CohortKeys.decode(told, view)
            self.states[client], shares = state.on_cohort(
                keys, random=self.deals[client]
            )

            def add(raw: bytes) -> None:
                collector.add(client, messages.SealedShares.decode(raw, session))

            return self._hear(2, client, shares.encode(view), add)

        self._each(2, self.outgoing, act)
        self.collect_inputs, inboxes = collector.close()
        self.outgoing = {i: m.encode(session) for i, m in inboxes.items()}

    def upload(self) -> None:
        """Step 3: masked chunks, and their signed root."""
        session, collector = self.session, self.collect_inputs

        def act(client: int, told: bytes) -> bool:
            view, state = self.views[client], self.states[client]
            assert isinstance(state, AwaitInbox)
            inbox = messages.Inbox.decode(told, view, reader=client)
            uploading = state.on_inbox(inbox, self.vectors[client], claim=CLAIM)
            self.seeds[client] = uploading.attached_seed

            def add(raw: bytes) -> None:
                if messages.kind_of(raw) == 5:
                    collector.add_chunk(client, messages.Chunk.decode(raw, session))
                else:
                    collector.add(client, messages.MaskedInput.decode(raw, session))

            for chunk in uploading.chunks():
                if not self._hear(3, client, chunk.encode(view), add):
                    return False
            self.states[client], signed = uploading.finish()
            return self._hear(3, client, signed.encode(view), add)

        self._each(3, self.outgoing, act)
        self.collect_agreements, self.statement = collector.close()
        self.outgoing = dict.fromkeys(
            self.statement.clients, self.statement.encode(session)
        )

    def agree(self) -> None:
        """Step 4: everyone signs who is in."""
        session, collector = self.session, self.collect_agreements

        def act(client: int, told: bytes) -> bool:
            view, state = self.views[client], self.states[client]
            assert isinstance(state, AwaitStatement)
            statement = messages.Statement.decode(told, view)
            self.states[client], agreement = state.on_statement(statement)

            def add(raw: bytes) -> None:
                collector.add(client, messages.Agreement.decode(raw, session))

            return self._hear(4, client, agreement.encode(view), add)

        self._each(4, self.outgoing, act)
        self.collect_reveals, self.signatures = collector.close()
        self.outgoing = dict.fromkeys(
            collector.senders, self.signatures.encode(session)
        )

    def reveal(self) -> Opened:
        """Step 5: shares; the sum opens."""
        session, collector = self.session, self.collect_reveals

        def act(client: int, told: bytes) -> bool:
            view, state = self.views[client], self.states[client]
            assert isinstance(state, AwaitSignatures)
            revealed = state.on_signatures(messages.Signatures.decode(told, view))

            def add(raw: bytes) -> None:
                collector.add(client, messages.Reveal.decode(raw, session))

            return self._hear(5, client, revealed.encode(view), add)

        self._each(5, self.outgoing, act)
        return collector.close()

    def run(self, *, steps: int = 4) -> Consortium:
        """The first ``steps`` steps, up to the last but one; :meth:`reveal` is left."""
        for step in (self.advertise, self.deal, self.upload, self.agree)[:steps]:
            step()
        return self

    def opened(self) -> Opened:
        """All five steps."""
        return self.run().reveal()


# -- forging: what a liar does to an encoded message --------------------------


def with_field(data: bytes, key: int, value: wire.Value) -> bytes:
    """The same message with one field replaced (or added)."""
    tree = wire.decode(data)
    assert isinstance(tree, dict)
    return wire.encode({**tree, key: value})


def field_of(data: bytes, key: int) -> wire.Value:
    tree = wire.decode(data)
    assert isinstance(tree, dict)
    value: wire.Value = tree[key]
    return value


def flipped(data: bytes) -> bytes:
    """The same bytes but for one bit."""
    return bytes([data[0] ^ 1]) + data[1:]


def held_shares(state: AwaitStatement) -> dict[int, tuple[int, int]]:
    """All a client holds of others: (share of beta, share of z) by dealer.

    Spends the state, as a client that colludes with the aggregator would.
    """
    tree = wire.decode(state.park())
    assert isinstance(tree, list)
    secrets = tree[3]
    assert isinstance(secrets, list)
    rows = secrets[0]
    assert isinstance(rows, list)
    out = {}
    for row in rows:
        assert isinstance(row, list)
        dealer, self_share, key_share = row
        assert isinstance(dealer, int)
        assert isinstance(self_share, bytes)
        assert isinstance(key_share, bytes)
        out[dealer] = (shamir.from_bytes(self_share), shamir.from_bytes(key_share))
    return out


def sealed_shares_of(
    consortium: Consortium,
    client: int,
    change: Callable[[list[messages.SealedShare]], None],
) -> bytes:
    """A dealer's message with ``change`` made to its rows, signed by itself anew."""
    session = consortium.session
    data = consortium.said[2][client][0]
    honest_one = messages.SealedShares.decode(data, session)
    rows = list(honest_one.shares)
    change(rows)
    return sign_shares(consortium, dataclasses.replace(honest_one, shares=tuple(rows)))


def sign_shares(consortium: Consortium, message: messages.SealedShares) -> bytes:
    """``message``, signed by its client over the aggregator's cohort."""
    session = consortium.session
    cohort = messages.cohort_hash(session, consortium.cohort)
    signature = consortium.names[message.client].sign(
        messages.SHARES_LABEL,
        *messages.signed_shares(
            session, cohort, message.client, message.commitment, message.root()
        ),
    )
    return dataclasses.replace(message, signature=signature).encode(session)
