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
    "check.draft": "plan: its settings are those of your own copy",
    "check.rounds": "rounds: {rounds} of {planned} opened; in each, clients "
    "signed what they sent (shares that they revealed stand as hashes), the aggregator "
    "passed on just that, one set was agreed on, and every client in it signed the "
    "outcome",
    "check.rounds.plain": "rounds: {rounds} of {planned} opened, without protection; "
    "every vector is signed by its sender, and every client in a sum signed the "
    "outcome",
    "check.rounds.keyholder": "rounds: {rounds} of {planned} opened; in each, clients "
    "signed what they sent, the key holder released the keys of the clients in the sum "
    "and of no others, and signed so, and every client in it signed the outcome",
    "check.files": "files: every one has the hash that the aggregator and the last "
    "round's clients signed",
    "check.sums": "sums: {sums} opened sums recomputed from {vectors} kept vectors, "
    "each under the root that its client signed; they lead from the start to the "
    "model, round by round",
    "check.ledgers": "ledgers: {members} signed chains; every vector that arrived "
    "stands under an entry written before it was sent",
    "check.report": "report: every field rebuilt from plan, transcript and ledgers",
    "check.epsilon": "epsilon of {client}: {epsilon} at delta {delta}, recomputed, "
    "within the limit of {limit}; the plan budgets {budgeted} releases ({spare} of "
    "them spare)",
    "check.epsilon.sum": "epsilon of {client}: {epsilon} at delta {delta} in the view "
    "of opened sums, recomputed, within the limit of {limit}; the plan budgets "
    "{budgeted} releases ({spare} of them spare)",
    "check.infinite": "epsilon of {client}: infinity, since at least one release was "
    "made without privacy; the report says so",
    "unchecked.simulation": "that separate organisations took part: this was a "
    "simulation with throw-away keys",
    "unchecked.keyholder": "that the aggregator and the key holder kept apart: "
    "together they can open every client's update, and no file would show it",
    "unchecked.shares": "that each client added its share of the noise: count one that "
    "does not among those who collude",
    "unchecked.insecure": "that anything was secret: randomness was seeded, for tests",
    "unchecked.copy": "that this is the plan you know: compare its hash with a "
    "member's own copy, over another channel",
    "unchecked.keys": "that the keys in it are the members': your copy names none; "
    "compare the plan's hash with a member's own copy, over another channel",
    "unchecked.lacking": "that these keys in it are their owners', which your copy "
    "lacks: {names}; compare the plan's hash with their own copies, over another "
    "channel",
    "unchecked.code": "that each client ran this package unchanged and sampled as the "
    "plan says, and that its own training code keeps to the duties listed in the "
    "report",
    "unchecked.ledgers": "that a client's ledger is its whole history: one that was "
    "begun anew, kept in another home or under another lineage name, a release "
    "marked as never sent, or charges after it was exported, cannot be seen from these "
    "files; compare its first entries with an export you hold",
    "unchecked.sum": "that the opened sums follow from the vectors: these are not "
    "kept, and every client in a sum signed its outcome",
    "unchecked.backend": "that the opened sums follow from the vectors, which are "
    "kept: {reason}",
    "unchecked.kept": "who else has this folder: its kept vectors are all that the "
    "aggregator had, so count whoever holds them among those who may collude",
    "unchecked.failed": "the vectors of {attempts} attempts that failed: these are "
    "never kept, and whether a sum of them was opened cannot be seen from these files",
    "unchecked.attempts": "why these rounds have more than the {most} attempts that "
    "the plan allows a process (it may have been killed, and gone on): {rounds}",
    "unchecked.start": "that the start is the model which the plan describes; its "
    "hash is in the transcript",
    "unchecked.pages": "what report.html and report.txt show: `secure-fl report DIR` "
    "draws them anew from report.json, which was checked",
    "unchecked.metrics": "the figures in metrics.json: nothing is claimed of them",
    "unchecked.times": "the times in ledgers, and so the dates in the report: they are "
    "of the clients' own clocks",
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
