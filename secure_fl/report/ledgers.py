# SPDX-License-Identifier: Apache-2.0
"""Transcript against ledgers: nothing was sent that was not charged before.

A vector that arrived names the hash of its reservation; the client's own, signed chain
must hold that reservation, for this run and round, and the step that sent it in this
very context.  The other way round, what a ledger says was sent in this run must belong
to an attempt that was, or may have been, made.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import final

from ..errors import VerificationError
from ..plan import Plan
from ..privacy import LedgerExport, NonPrivate, Release
from .attempts import Attempt
from .findings import finding

__all__ = ["check_ledgers", "ledger_file"]


def ledger_file(client: str) -> str:
    """The name, within a run's folder, of a client's signed export."""
    return f"ledgers/{client}.cbor"


def check_ledgers(
    plan: Plan, attempts: Sequence[Attempt], exports: Mapping[str, LedgerExport]
) -> list[str]:
    """Reconcile.  Raises VerificationError naming the ledger that does not fit.

    Returns a line for each sent update of which the log holds no vector.  That is no
    lie: a client may fail between its own entry and its last chunk, and a process that
    was killed leaves an attempt without a trace.  Such an update is charged.
    """
    contexts = _Contexts(attempts)
    arrived = {(i.client, a.session.ctx): i.claim for a in attempts for i in a.inputs}
    opened = {a.session.ctx for a in attempts if a.opened}
    omitted = {(name, a.session.ctx) for a in attempts for name in a.omitted}
    notes = []
    for name in plan.names:
        try:
            notes += _check(
                plan, name, exports[name], contexts, arrived, opened, omitted
            )
        except VerificationError as error:
            raise VerificationError(
                error.message, file=ledger_file(name), hint=error.hint
            ) from None
    return notes


@final
class _Contexts:
    """Every context that a client may have answered in: of which round and attempt.

    Attempts are numbered without gaps; one that the log lacks was cut off by a crash.
    Those of a round are computed when first asked for: there can be very many.
    """

    def __init__(self, attempts: Sequence[Attempt]) -> None:
        sessions = [a.session for a in attempts]
        self.logged = {s.ctx: (s.round_index, s.attempt) for s in sessions}
        self._last = {s.round_index: s for s in sessions}
        self._rounds: dict[int, dict[bytes, int]] = {}

    def attempt(self, ctx: bytes, round_index: int) -> int | None:
        """The attempt of ``ctx`` in this round, or None where it cannot be there."""
        if ctx in self.logged:
            found, attempt = self.logged[ctx]
            return attempt if found == round_index else None
        if round_index not in self._rounds:
            last = self._last.get(round_index)
            if last is None:
                return None
            self._rounds[round_index] = {
                dataclasses.replace(last, attempt=i).ctx: i
                for i in range(last.attempt + 1)
            }
        return self._rounds[round_index].get(ctx)


def _check(
    plan: Plan,
    name: str,
    export: LedgerExport,
    contexts: _Contexts,
    arrived: Mapping[tuple[str, bytes], bytes],
    opened: set[bytes],
    omitted: set[tuple[str, bytes]],
) -> list[str]:
    if export.lineage != plan.lineage:
        raise VerificationError("is the ledger of another data set than the plan's")
    _check_terms(plan, export)
    releases = [r for r in export.releases() if r.run_id == plan.run_id]
    sent = {ctx: r for r in releases for ctx in r.contexts}
    if len(sent) < sum(len(r.contexts) for r in releases):
        raise VerificationError(
            "two of its updates are said to have been sent in one context"
        )
    for (client, ctx), claim in arrived.items():
        if client != name:
            continue
        round_index = contexts.logged[ctx][0]
        if ctx not in sent or sent[ctx].entry_hash != claim:
            raise VerificationError(
                f"an update of {name} arrived in round {round_index} that stands under "
                "no reservation in its ledger"
            )
    notes = []
    times = [entry.time for entry in export.entries]
    if times != sorted(times):
        notes.append(finding("unchecked.clock", {"client": name}))
    for release in releases:
        _check_release(release, contexts, arrived, opened, name)
        _check_omissions(release, omitted, name)
        notes += [
            finding(
                "unchecked.unlogged",
                {"client": name, "round": str(release.round_index)},
            )
            for ctx in release.contexts
            if (name, ctx) not in arrived
        ]
        if release.state == "sent":
            ctx = release.contexts[-1]
            if ctx in opened and (name, ctx) in arrived:
                place = str(release.round_index)
                notes.append(
                    finding("unchecked.unnoted", {"client": name, "round": place})
                )
    return notes


def _check_terms(plan: Plan, export: LedgerExport) -> None:
    """What this run reserved is what the plan says a release is and may cost.

    Earlier runs had other plans, but their charges add up only in one unit.
    """
    p = plan.privacy
    for entry in export.entries:
        r = entry.reservation
        if r is None:
            continue
        if (r.unit, r.adjacency) != (p.unit, p.adjacency):
            raise VerificationError(
                "an entry is charged by another unit or adjacency than the plan's"
            )
        if r.run_id != plan.run_id:
            continue
        where = f"its reservation for round {r.round_index}"
        if not 0 <= r.round_index < plan.rounds.count:
            raise VerificationError(f"{where} is of no round of the plan")
        private = plan.distributed or not isinstance(r.event, NonPrivate)
        if private and r.event != plan.release:
            raise VerificationError(f"{where} is of another mechanism than the plan's")
        if r.delta != p.delta or r.limit != (p.epsilon if private else math.inf):
            raise VerificationError(f"{where} has another limit than the plan's")


def _check_omissions(
    release: Release, omitted: set[tuple[str, bytes]], name: str
) -> None:
    """An update left a context only where others signed that it stays closed there."""
    left = release.contexts if release.state == "omitted" else release.contexts[:-1]
    for ctx in left:
        if (name, ctx) not in omitted:
            raise VerificationError(
                f"its update of round {release.round_index} is said to be omitted, and "
                "no signed statement or refusal in the log leaves it out"
            )


def _check_release(
    release: Release,
    contexts: _Contexts,
    arrived: Mapping[tuple[str, bytes], bytes],
    opened: set[bytes],
    name: str,
) -> None:
    where = f"its update of round {release.round_index}"
    for ctx in release.contexts:
        attempt = contexts.attempt(ctx, release.round_index)
        if attempt is None or attempt < release.attempt:
            raise VerificationError(
                f"{where} was sent in a context that the log does not know"
            )
    if release.state == "released":
        ctx = release.contexts[-1]
        if ctx not in opened or (name, ctx) not in arrived:
            raise VerificationError(
                f"{where} is said to be in an opened sum, and the log opened none"
            )
