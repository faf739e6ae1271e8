# SPDX-License-Identifier: Apache-2.0
"""What `verify` says it checked, and what it could not: sentences by id, in English."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["FINDINGS", "finding"]

FINDINGS: Final[Mapping[str, str]] = {
    "check.transcript": "transcript: {entries} entries in one chain, in order, every "
    "signature holds",
    "check.plan": "plan: its hash is the one in the transcript, endorsed by all "
    "{members} members",
    "check.copy": "plan: it is the one in your own copy",
    "check.rounds": "rounds: {rounds} of {planned} opened; in each, all messages are "
    "signed by their senders, one set was agreed on, and every client in it signed "
    "the outcome",
    "check.rounds.plain": "rounds: {rounds} of {planned} opened, without protection; "
    "every vector is signed by its sender, and every client in a sum signed the "
    "outcome",
    "check.rounds.keyholder": "rounds: {rounds} of {planned} opened; in each, all "
    "messages are signed by their senders, the key holder released the keys of the "
    "clients in the sum and of no others, and every client in it signed the outcome",
    "check.files": "files: every one has the hash that the aggregator and the last "
    "round's clients signed",
    "check.sums": "sums: {sums} opened sums recomputed from {vectors} kept vectors, "
    "each under the root that its client signed; they lead from the start to the "
    "model, round by round",
    "check.ledgers": "ledgers: {members} signed chains; every vector that arrived "
    "stands under an entry written before it was sent",
    "check.report": "report: every field rebuilt from plan, transcript and ledgers",
    "check.epsilon": "epsilon of {client}: {epsilon} at delta {delta}, recomputed; "
    "the limit of {limit} allows {budgeted} releases, {spare} of them spare",
    "check.infinite": "epsilon of {client}: infinity, since at least one release has "
    "no finite epsilon; the report says so",
    "unchecked.simulation": "that separate organisations took part: this was a "
    "simulation with throw-away keys",
    "unchecked.keyholder": "that the aggregator and the key holder kept apart: "
    "together they can open every client's update, and no file would show it",
    "unchecked.insecure": "that anything was secret: randomness was seeded, for tests",
    "unchecked.copy": "that this is the plan you know: compare its hash with a "
    "member's own copy, over another channel",
    "unchecked.code": "that each client ran this package unchanged and sampled as the "
    "plan says, and that its own training code keeps to the duties listed in the "
    "report",
    "unchecked.ledgers": "that a client's ledger is its whole history: one that was "
    "begun anew, kept in another home or under another lineage name, or a release "
    "marked as never sent, cannot be seen from these files; compare its first entries "
    "with an export you hold",
    "unchecked.sum": "that the opened sums follow from the vectors: these are not "
    "kept, and every client in a sum signed its outcome",
    "unchecked.backend": "that the opened sums follow from the vectors, which are "
    "kept: {reason}",
    "unchecked.kept": "who else has this folder: its kept vectors are all that the "
    "aggregator had, so count whoever holds them among those who may collude",
    "unchecked.failed": "the vectors of {attempts} attempts that failed: these are "
    "never kept, and no sum of them was opened",
    "unchecked.start": "that the start is the model which the plan describes; its "
    "hash is in the transcript",
    "unchecked.pictures": "the curves drawn in report.html: the tables beside them "
    "hold the same figures",
    "unchecked.page": "{file}: this version would draw another page from report.json; "
    "do not rely on it, `secure-fl report DIR` draws it anew",
    "unchecked.extra": "files that do not belong to a run: {names}",
    "unchecked.unlogged": "{client} wrote down that it sent an update in round "
    "{round} of which the log holds no vector (it may have failed while sending): "
    "charged",
    "unchecked.unnoted": "{client} did not write down that its update of round {round} "
    "was opened, as the log shows: charged",
    "unchecked.clock": "when {client} wrote its ledger: its clock went back in "
    "between; the order of its entries holds",
}


_NOTHING: Final[Mapping[str, str]] = {}


def finding(key: str, values: Mapping[str, str] = _NOTHING) -> str:
    """The sentence ``key``, its braces filled; an unknown key is our own bug."""
    return FINDINGS[key].format(**values)
