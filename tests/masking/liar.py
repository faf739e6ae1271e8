# SPDX-License-Identifier: Apache-2.0
"""A lying aggregator at work: what it can make of all it has heard.

Each ``tell`` method gives some members one message of their step, true or with a lie
in it, and keeps every answer.  A member that refuses is out of the context, as ever.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Sequence

from secure_fl import wire
from secure_fl.errors import SecureFLError
from secure_fl.fixedpoint import unpack
from secure_fl.identity import Identity
from secure_fl.masking import SPEC, Session, crypto, messages

from ..vectors import reference
from .adversary import Heard, Upload
from .members import Member

KEY_LIES = ("variant", "old", "swapped", "copied", "forged")
BOX_LIES = ("other reader", "other cohort", "exchanged", "own row")
STATEMENT_LIES = ("root", "own root", "cohort", "dealers", "outside")
SIGNATURE_LIES = ("few", "mixed", "outside", "forged", "old")


STEPS = ("begin", "keys", "boxes", "statement", "signatures")


def edited(
    rows: Sequence[messages.Agreement], row: messages.Agreement
) -> list[messages.Agreement]:
    return sorted([*(r for r in rows if r.client != row.client), row], key=_client)


def _client(row: messages.Agreement) -> int:
    return row.client


class Liar:
    """An aggregator with colluders, over several contexts at once."""

    def __init__(
        self,
        sessions: Sequence[Session],
        members: Sequence[Member],
        colluders: Sequence[Identity],
    ) -> None:
        self.members = {m.name: m for m in members}
        self.contexts = [
            Heard(s, {s.roster.index(c.name): c for c in colluders}) for s in sessions
        ]
        self.did: Counter[str] = Counter()
        # Which message each client waits for (0: it is not in yet; 9: it is out).
        self.waits: dict[tuple[bytes, int], int] = {}

    def waiting(self, heard: Heard, step: int) -> list[int]:
        """Who awaits the message of ``step``, as far as the liar can tell."""
        ctx = heard.session.ctx
        return [
            i
            for i in sorted(self.by_index(heard))
            if self.waits.get((ctx, i), 0) == step
        ]

    def by_index(self, heard: Heard) -> dict[int, Member]:
        return {m.index(heard.session): m for m in self.members.values()}

    def _ask(
        self, heard: Heard, client: int, step: int, act: Callable[[], None]
    ) -> None:
        what = STEPS[step]
        place = heard.session.ctx, client
        again = self.waits.get(place, 0) != step
        try:
            act()
        except SecureFLError:
            self.did[f"{what} refused{' again' * again}"] += 1
            if not again:
                self.waits[place] = 9
        else:
            self.did[what] += 1
            self.waits[place] = step + 1

    # -- 1: keys --------------------------------------------------------------------

    def begin(self, heard: Heard, client: int) -> None:
        def act() -> None:
            raw = self.by_index(heard)[client].begin(heard.session)
            message = messages.Advertise.decode(raw, heard.session)
            heard.announced[client] = message.announcement

        self._ask(heard, client, 0, act)

    def colluder_row(
        self, heard: Heard, client: int, seal_key: bytes, mask_key: bytes
    ) -> messages.KeyAnnouncement:
        bare = messages.KeyAnnouncement(client, seal_key, mask_key, b"")
        signature = heard.colluders[client].sign(
            bare.label(), *bare.signed(heard.session)
        )
        return dataclasses.replace(bare, signature=signature)

    def cohort(
        self, heard: Heard, omitted: Iterable[int], lie: str, victim: int
    ) -> messages.CohortKeys:
        """All that announced but ``omitted``, and all colluders; with one lie."""
        rows = {i: a for i, a in heard.announced.items() if i not in set(omitted)}
        for colluder in heard.colluders:
            own = heard.keys(colluder, int(lie == "variant"))
            seal_key = reference.x25519_public(own.seal_seed)
            mask_key = reference.x25519_public(own.mask_seed)
            if lie == "copied" and victim in heard.announced:
                seal_key = heard.announced[victim].seal_key
                mask_key = heard.announced[victim].mask_key
            rows[colluder] = self.colluder_row(heard, colluder, seal_key, mask_key)
        if victim in rows:
            a = rows[victim]
            if lie == "old":
                for other in self.contexts:
                    if other is not heard and victim in other.announced:
                        rows[victim] = other.announced[victim]
            elif lie == "swapped":
                rows[victim] = dataclasses.replace(
                    a, seal_key=a.mask_key, mask_key=a.seal_key
                )
            elif lie == "forged":
                own = heard.keys(next(iter(heard.colluders)), 1)
                fake = self.colluder_row(
                    heard,
                    own.client,
                    reference.x25519_public(own.seal_seed),
                    reference.x25519_public(own.mask_seed),
                )
                rows[victim] = dataclasses.replace(fake, client=victim)
        keys = messages.CohortKeys(tuple(rows[i] for i in sorted(rows)))
        heard.cohorts.append(keys)
        return keys

    def tell_keys(self, heard: Heard, client: int, keys: messages.CohortKeys) -> None:
        session = heard.session

        def act() -> None:
            member = self.by_index(heard)[client]
            raw = member.on_cohort(session, keys.encode(session))
            heard.shown[client] = keys
            heard.dealt.append((keys, messages.SealedShares.decode(raw, session)))

        self._ask(heard, client, 1, act)

    # -- 2: boxes -------------------------------------------------------------------

    def colluders_shares(
        self, heard: Heard, client: int, keys: messages.CohortKeys
    ) -> messages.SealedShares:
        """A colluder's dealing over any cohort: boxes that open, with anything in."""
        s = heard.session
        cohort = messages.cohort_hash(s, keys)
        rows = []
        for a in keys.announcements:
            pair = [
                reference.le32(
                    reference.elements(
                        s.ctx,
                        reference.digest(kind, s.ctx, cohort, client, a.client),
                        kind,
                        1,
                    )[0]
                )
                for kind in ("self", "key")
            ]
            box = b""
            if a.client != client:
                info: list[wire.Value] = [s.ctx, cohort, client, a.client]
                box = crypto.seal(pair[0] + pair[1], a.seal_key, info=info)
            made = [
                reference.digest(f"{SPEC} {kind} share", s.ctx, client, a.client, share)
                for kind, share in zip(("self", "key"), pair, strict=True)
            ]
            rows.append(messages.SealedShare(a.client, box, made[0], made[1]))
        commitment = reference.digest("any", s.ctx, client)
        root = _tree(rows)[-1][0]
        signature = heard.colluders[client].sign(
            f"{SPEC} shares", s.ctx, cohort, client, commitment, root
        )
        return messages.SealedShares(client, commitment, tuple(rows), signature)

    def inbox(
        self, heard: Heard, client: int, omitted: Iterable[int], lie: str, victim: int
    ) -> messages.Inbox | None:
        """Boxes of all who dealt over the cohort that ``client`` was shown."""
        keys = heard.shown.get(client)
        if keys is None:
            return None
        dealt = {m.client: m for k, m in heard.dealt if k == keys}
        for colluder in heard.colluders:
            if any(a.client == colluder for a in keys.announcements):
                dealt[colluder] = self.colluders_shares(heard, colluder, keys)
        for i in omitted:
            if i != client:
                dealt.pop(i, None)
        if lie == "other cohort":
            others = [
                m
                for h in self.contexts
                for k, m in h.dealt
                if (h is not heard or k != keys) and m.client == victim
            ]
            if others:
                dealt[victim] = others[-1]
        entries = {}
        for dealer, m in dealt.items():
            at = [s.to for s in m.shares]
            reader = client
            if lie == "other reader" and dealer == victim:
                reader = next((i for i in at if i not in (client, dealer)), client)
            if reader in at:
                entries[dealer] = _entry(m, at.index(reader))
        if lie == "exchanged" and victim in entries:
            donor = next((d for d in entries if d not in (victim, client)), victim)
            entries[victim] = dataclasses.replace(
                entries[victim], share=entries[donor].share
            )
        if lie == "own row" and client in entries:
            entries[client] = dataclasses.replace(entries[client], root=bytes(32))
        return messages.Inbox(tuple(entries[i] for i in sorted(entries)))

    def tell_boxes(
        self, heard: Heard, client: int, box: messages.Inbox, *, pieces: int
    ) -> None:
        """``pieces``: after so many the liar stops listening (a late client)."""
        s = heard.session
        p = s.parameters
        words: list[int] = []
        member = self.by_index(heard)[client]

        def act() -> None:
            answers = member.on_inbox(s, box.encode(s))
            for raw, _ in zip(answers, range(pieces), strict=False):
                if messages.kind_of(raw) == 5:
                    chunk = messages.Chunk.decode(raw, s)
                    begin, end = p.chunk_range(chunk.index)
                    got = unpack(chunk.words, end - begin, p.word_bits)
                    words.extend(int(w) for w in got)
                else:
                    masked = messages.MaskedInput.decode(raw, s)
                    heard.inputs[client] = masked

        self._ask(heard, client, 2, act)
        if words:
            self.did["part of a vector"] += pieces <= p.chunks
            self.did["late vector"] += bool(heard.agreed)
            dealers = tuple(e.dealer for e in box.entries)
            heard.boxes_of[client] = dealers
            truth = member.uploaded[s.ctx][-1]
            heard.uploads.append(
                Upload(client, heard.shown[client], dealers, tuple(words), truth)
            )

    # -- 3 and 4: statements ----------------------------------------------------------

    def statement(
        self,
        heard: Heard,
        client: int,
        omitted: Iterable[int],
        invented: Iterable[int],
        lie: str,
        victim: int,
    ) -> messages.Statement | None:
        """What ``client`` should hold, without ``omitted``.

        ``invented``: members whose vector has not come in, with a root of the liar's.
        """
        keys, dealers = heard.shown.get(client), heard.boxes_of.get(client)
        if keys is None or dealers is None:
            return None
        s = heard.session
        rows = {}
        for i in dealers:
            if i in set(omitted):
                continue
            masked = heard.inputs.get(i)
            if masked is not None:
                rows[i] = messages.Survivor(i, masked.root, masked.claim, b"")
            elif i in heard.colluders or i in set(invented):
                root = reference.digest("invented", s.ctx, i)
                rows[i] = messages.Survivor(i, root, bytes(32), b"")
        if lie == "outside":
            rows[victim] = messages.Survivor(victim, bytes(32), bytes(32), b"")
        for at in {"root": [victim], "own root": [client]}.get(lie, []):
            if at in rows:
                rows[at] = dataclasses.replace(rows[at], root=bytes(32))
        cohort = messages.cohort_hash(s, keys)
        u2 = messages.dealers_hash(s, dealers)
        if lie == "cohort":
            cohort = messages.cohort_hash(s, heard.cohorts[0])
        if lie == "dealers":
            u2 = messages.dealers_hash(s, dealers[:-1])
        return messages.Statement(cohort, u2, tuple(rows[i] for i in sorted(rows)))

    def tell_statement(
        self, heard: Heard, client: int, statement: messages.Statement
    ) -> None:
        s = heard.session

        def act() -> None:
            member = self.by_index(heard)[client]
            raw = member.on_statement(s, statement.encode(s))
            heard.agreed.append((statement, messages.Agreement.decode(raw, s)))
            heard.signed[client] = statement

        self._ask(heard, client, 3, act)

    def signatures(
        self, heard: Heard, statement: messages.Statement, lie: str, victim: int
    ) -> messages.Signatures:
        """All that honest clients signed of it, and what colluders sign of anything."""
        s = heard.session
        rows = [a for said, a in heard.agreed if said == statement]
        for i, colluder in heard.colluders.items():
            if i in statement.clients or lie == "outside":
                signature = colluder.sign(f"{SPEC} statement", *statement.signed(s))
                rows = edited(rows, messages.Agreement(i, signature))
        if lie == "few":
            rows = sorted(rows, key=_client)[: s.parameters.threshold - 1]
        elif lie == "mixed":
            for said, a in heard.agreed:
                if said != statement and a.client not in {r.client for r in rows}:
                    rows = edited(rows, a)
        elif lie == "forged":
            colluder = next(iter(heard.colluders.values()))
            signature = colluder.sign(f"{SPEC} statement", *statement.signed(s))
            rows = edited(rows, messages.Agreement(victim, signature))
        elif lie == "old":
            for other in self.contexts:
                for _, a in other.agreed:
                    if other is not heard and a.client not in {r.client for r in rows}:
                        rows = edited(rows, a)
        return messages.Signatures(tuple(sorted(set(rows), key=_client)))

    def tell_signatures(
        self, heard: Heard, client: int, signatures: messages.Signatures
    ) -> None:
        s = heard.session

        def act() -> None:
            member = self.by_index(heard)[client]
            for raw in member.on_signatures(s, signatures.encode(s)):
                reveal = messages.Reveal.decode(raw, s)
                heard.reveals.append((heard.signed[client], reveal))

        self._ask(heard, client, 4, act)


def _tree(rows: Sequence[messages.SealedShare]) -> list[list[bytes]]:
    return reference.tree(f"{SPEC} shares", [_leaf(r) for r in rows])


def _leaf(row: messages.SealedShare) -> bytes:
    return reference.cbor([row.to, row.box, row.self_commitment, row.key_commitment])


def _entry(m: messages.SealedShares, at: int) -> messages.InboxEntry:
    leaves = [_leaf(r) for r in m.shares]
    path = reference.tree_path(f"{SPEC} shares", leaves, at)
    root = _tree(m.shares)[-1][0]
    return messages.InboxEntry(
        m.client, m.commitment, m.shares[at], tuple(path), root, m.signature
    )
