# SPDX-License-Identifier: Apache-2.0
"""The report in English, by id: the ids are those of every language's table."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .english_sums import ENGLISH_SUMS

__all__ = ["ENGLISH"]

ENGLISH: Final[Mapping[str, str]] = {
    "title": "Privacy report: {plan}",
    "subtitle": "What this run may have told anyone about one record, and how to "
    "check it",
    # -- stamps
    "stamp.simulation": "SIMULATION",
    "stamp.simulation.why": "All parties ran on one machine, with throw-away keys: "
    "the signatures show that the log is consistent, not that separate organisations "
    "took part.",
    "stamp.insecure": "INSECURE",
    "stamp.insecure.why": "Randomness was seeded and can be repeated: nothing in this "
    "run is private. Such a run is for tests only.",
    "stamp.infinity": "NO PRIVACY GUARANTEE",
    "stamp.infinity.why": "At least one release has no finite epsilon.",
    "stamp.infinity.reasons": "Reasons given: {reasons}",
    "stamp.plain": "UNPROTECTED SUM",
    "stamp.plain.why": "No secure aggregation: the aggregator read every client's "
    "update. The claims below hold all the same; they do not rest on it.",
    # -- claims
    "claims.heading": "What is claimed",
    "claims.lead": "The model and all messages of this run expose no training record "
    "by more than epsilon {epsilon}, at delta {delta}. The lower an epsilon, the less "
    "can be learned about a record.",
    "claims.lead.insecure": "Randomness was seeded: the figures below are a test of "
    "the arithmetic, not a claim.",
    "claims.lead.infinity": "For at least one client nothing can be claimed: epsilon "
    "is infinite.",
    "claims.caption": "The claims, each for whichever client is worst off",
    "claims.name": "claim",
    "claims.what": "what is protected",
    "claims.whom": "against whom",
    "claims.evidence": "evidence",
    "claims.evidence.proved": "proved, given the assumptions below",
    "claims.evidence.none": "none: nothing is claimed",
    "claim.record-local": "Record level, local view",
    "claims.scope": "Any {unit}: how far the outcome can depend on {adjacency}.",
    "view.none": "Nobody: see the warning above.",
    "view.record-local": "Anybody who sees every message and every model: it holds "
    "even if the aggregator and all other clients collude and the masking is broken.",
    "view.record-local.one-time": "Anybody who sees every message and every model: it "
    "holds even if the aggregator and all other clients collude and the encryption is "
    "broken.",
    "view.record-local.keyholder": "Anybody who sees every message and every model: "
    "it holds even if the aggregator, the key holder and all other clients collude "
    "and the encryption is broken.",
    "unit.record": "one record of one client",
    "adjacency.add-or-remove-one": "adding or removing one record",
    "claim.consortium": "whole consortium",
    "claim.epsilon": "epsilon",
    "claim.group": "epsilon for {records} records of one person at one client",
    "claim.limit": "limit in the plan",
    "claim.no_amplification": "epsilon without credit for sampling",
    "claim.rdp": "epsilon by RDP, a second method",
    "claim.this_run": "epsilon of this run alone",
    "claim.charged": "releases charged",
    "claim.delta": "delta",
    "claim.fpr": "false alarms",
    "claim.records": "records",
    "claim.advantage": "advantage over guessing, at most",
    "claim.mu": "mu of Gaussian DP",
    "claim.tpr": "share of used records recognised at a false alarm rate of {fpr}, at "
    "most",
    "claim.posterior": "certainty from a prior of {prior}, at most (except with "
    "probability delta)",
    "claim.client": "client",
    "claim.why_infinite": "{client}: epsilon is infinite because of a release without "
    "protection. Reason given: {reason}",
    "clients.heading": "The claim, client by client",
    "clients.caption": "Epsilon at delta {delta}, per client and for the whole "
    "consortium",
    "claims.lineage": "Epsilon counts everything charged to the data set's ledger "
    "({lineage}), earlier runs included.",
    "claims.lineage.thrown-away": "Ledgers were thrown away after this simulation: "
    "epsilon counts this run alone.",
    "claims.delta-large": "delta {delta} times {records} records is {product}: a "
    "mechanism may expose that many records outright.",
    "claims.projected": "The plan budgets {count} releases of each client. Alone, they "
    "cost {one} for one client, and {whole} for the whole consortium; earlier runs and "
    "further attempts come on top, up to each client's limit.",
    "evidence.proved": "proved",
    "evidence.tested": "tested",
    "evidence.assumed": "assumed",
    "assumptions.heading": "What the claim relies on, and how far that is shown",
    "assumption.keyholder-together": "Not on the aggregator and the key holder keeping "
    "apart: TOGETHER they can open every client's update, and epsilon holds even "
    "against both. That nobody reads a single update rests on the two never working "
    "together.",
    "assumption.unchanged": "Each client runs this package unchanged.",
    "assumption.noise-first": "The package clips every record's gradient and adds the "
    "noise before anything leaves.",
    "assumption.trainer": "Each client's training code back-propagates "
    "private.criterion's value and nothing else, treats every record on its own (no "
    "statistics of a batch), takes no decision (learning rate, stopping, printing "
    "elsewhere) from exact losses or scores, and starts from layers and preprocessing "
    "that were not fitted to these records.",
    "assumption.sampling-secret": "Each client draws its batches as the plan says, "
    "and nobody else learns which records were in them.",
    "assumption.csprng": "Noise and samples come from AES in counter mode, keyed by "
    "the operating system's secure generator.",
    "assumption.float-noise": "The Gaussian noise is drawn in floating point; attacks "
    "on its lowest bits are outside the claim. Updates leave only after rounding to a "
    "grid.",
    "assumption.disjoint": "Each record belongs to one client only.",
    "assumption.overlap": "A record may belong to every client; the consortium's "
    "epsilon adds all clients up.",
    "assumption.ledger-kept": "Each client kept one ledger for these records, under "
    "one lineage name, in one home, from the first release on; no copy of it was "
    "rolled back.",
    "assumption.no-earlier": "Nothing was released about these records before this "
    "run, or outside it; its ledgers were thrown away.",
    "overlap.disjoint": "Across clients: each record is at one client only, so the "
    "consortium's epsilon is the largest of the clients' (parallel composition).",
    "overlap.overlapping": "Across clients: a record may be at several clients, so "
    "the consortium's epsilon composes the releases of all clients (sequential "
    "composition). The plan's limit holds for each client alone; for a record at all "
    "of them, the releases that the plan budgets cost {projected}, and others come on "
    "top.",
    "not_protected.heading": "What the claim does not protect",
    "not_protected.population": "What the model learns about everybody: it may be "
    "true of somebody whose record was never used.",
    "not_protected.participation": "Who took part, in which round, and when.",
    "not_protected.public-constants": "The plan: nominal record counts, weights, "
    "column bounds, sampling rate, number of steps.",
    "not_protected.other-releases": "Anything else that was published about the same "
    "data without being charged to this ledger.",
    "not_protected.metrics": "Held-out rows: scores on them are published without "
    "noise; comparisons of a simulation are not charged.",
    "not_protected.choices-before": "Choices made by looking at private data before "
    "the run: columns, bounds, network, learning rate.",
    "not_protected.poisoning": "The model itself against a client that sends a "
    "harmful update.",
    "not_protected.side-channels": "Timing, memory and power side channels on a "
    "client's machine.",
    # -- what the figures mean
    "meaning.heading": "What the figures mean",
    "meaning.how": "The strongest attacker knows every record but one and sees "
    "everything the run sent. He must tell whether that record was used. No attack "
    "does better than the bounds below; most do far worse.",
    "meaning.caption": "How far he gets, at most",
    "profile.picture": "Epsilon at other values of delta",
    "profile.alt": "Line chart of epsilon against delta, one line per client. Whole "
    "consortium, delta: epsilon. {values}.",
    "profile.caption": "Epsilon at other values of delta: a smaller delta, the "
    "chance that the bound fails, costs a larger epsilon",
    "trade_off.picture": "Used records recognised, by rate of false alarms",
    "trade_off.alt": "Line chart of the largest share of used records that can be "
    "recognised, against the rate of false alarms, one line per client, with the line "
    "of guessing. Whole consortium, false alarms: recognised. {values}.",
    "trade_off.caption": "Share of used records recognised, at most, by the rate of "
    "false alarms",
    "trade_off.axis.x": "rate of false alarms",
    "trade_off.axis.y": "share recognised, at most",
    "trade_off.guessing": "guessing",
    "group.caption": "Epsilon for several records of one person at one client, at "
    "the claim's delta",
    # -- not claimed
    "not_claimed.heading": "What is not claimed",
    "not_claimed.organisation": "Nothing is claimed for a client as a whole: that an "
    "organisation took part, and what is true of all its records together, is not "
    "hidden.",
    "not_claimed.sum-view": "No smaller epsilon is claimed for somebody who sees only "
    "the opened sums. Every client rounds for itself, and takes several local steps "
    "through which the noise of the others cannot be counted.",
    "not_claimed.groups": "Nothing is claimed for a person with more records at one "
    "client than the claims name.",
    "not_claimed.stopping": "Epsilon is for the releases as listed. If their number, "
    "or the settings of a later run, were chosen after seeing earlier results, rely on "
    "each client's limit in the plan, and on no smaller figure.",
    # -- subject
    "subject.heading": "What was trained, and when",
    "subject.caption": "The run. Dates are the clients' own clocks: the first and "
    "the last entry in their ledgers for this run",
    "subject.field": "field",
    "subject.value": "value",
    "subject.plan": "plan",
    "subject.kind": "kind of model",
    "subject.values": "values trained",
    "subject.frozen": "frozen state",
    "subject.frozen.none": "none stated",
    "subject.first": "first ledger entry",
    "subject.last": "last ledger entry",
    "subject.never": "none",
    "subject.tool": "program",
    "subject.libraries": "libraries",
    "model.mlp": "multi-layer perceptron (mlp)",
    "model.custom": "custom, given by the members",
    # -- unit
    "unit.heading": "The unit of privacy",
    "unit.line": "The unit is {unit}; neighbouring data sets differ by {adjacency}. "
    "Records per unit, at most: {records}. Clients that may hold it, at most: "
    "{parties}.",
    "unit.plan-statement": "These bounds are statements of the plan that every member "
    "signed. Each client sees to them in its own data; nobody else can check.",
    # -- who took part
    "parties.heading": "Who took part when",
    "parties.caption": "Clients of the plan. Record counts are nominal and public; "
    "they are not counted from the data. Each step's sum is divided by a public "
    "constant",
    "parties.name": "name",
    "parties.records": "nominal records",
    "parties.weight": "weight",
    "parties.normaliser": "sum divided by",
    "parties.key": "Public keys",
    "grid.caption": "Whose updates are in the sum of which round",
    "grid.alt": "Grid of {clients} clients by rounds. Clients in the sum, by round: "
    "{sums}.",
    "grid.in": "in the sum",
    "grid.out": "left out",
    "grid.skipped": "round skipped",
    "rounds.caption": "Rounds, numbered from 0 as in the log: whose updates are in "
    "the opened sum",
    "rounds.round": "round",
    "rounds.attempt": "attempt",
    "rounds.survivors": "clients in the sum",
    "rounds.out": "left out",
    "rounds.skipped": "skipped: no attempt succeeded",
    "rounds.none": "nobody",
    "rounds.some": "{count} of {of}",
    # -- trust
    "threat.heading": "Who sees what, and who is trusted with what",
    "threat.masking": "Protection: secure masking. The aggregator opens the sum over "
    "one agreed set of clients and nothing else, as long as at most {colluding} of "
    "{clients} clients collude with it. Threshold {threshold}, at least {min_clients} "
    "clients per sum. This protection is computational, and the claim does not need "
    "it.",
    "threat.ckks.one-time": "Protection: CKKS encryption with one-time keys. Nobody "
    "holds a key that opens one client's update: each client draws its own key for "
    "each attempt, and the aggregator learns only the sum of the keys of one agreed "
    "set of clients, by secure masking. It opens the sum of their updates and nothing "
    "else, as long as at most {colluding} of {clients} clients collude with it. "
    "Threshold {threshold}, at least {min_clients} clients per sum.",
    "threat.ckks.keyholder": "Protection: CKKS encryption with a key holder. The "
    "aggregator and the key holder together can open every client's update. Apart, "
    "neither can: the aggregator has the ciphertexts and no key, the key holder has "
    "the keys and no ciphertext. Once per round the key holder gives the aggregator "
    "the sum of the keys of at least {min_clients} of {clients} clients, and with it "
    "the aggregator opens the sum of their updates.",
    "threat.ckks.claim": "This protection is computational, and the claim does not "
    "need it.",
    "threat.ckks.ring": "Ring of degree {degree} with a modulus of {modulus} bits: at "
    "least {security} bits of security by the table of the Homomorphic Encryption "
    "Standard (2018), see protocols/ckks/SPEC.md, section 9. Values in each "
    "coefficient: {values}; ciphertexts per update: {ciphertexts}.",
    "threat.plain": "Protection: none. The aggregator sees every client's update in "
    "clear. The claim does not need a protection.",
    "sees.caption": "Who sees what, if all keep to the protocol",
    "sees.who": "who",
    "sees.what": "sees",
    "sees.sum": "the sum of the updates of each round, and no single one",
    "sees.updates": "every client's update, in clear",
    "sees.models-and-own": "every round's model, and their own data and updates",
    "sees.keys": "every client's keys, and no update",
    "sees.sealed": "sealed messages: their size and their time",
    "sees.model": "the model",
    "sees.vectors": "the vectors it keeps, which are what the aggregator had: count "
    "its holders among those who may collude",
    "who.aggregator": "aggregator",
    "who.clients": "clients",
    "who.keyholder": "key holder",
    "who.network": "the network between them",
    "who.recipients": "whoever gets the model",
    "who.folder": "whoever holds the folder of this run",
    # -- how it was made
    "mechanism.heading": "The mechanism",
    "mechanism.line": "Each local step: sum of the sampled records' gradients, each "
    "clipped to L2 norm {clip}, plus Gaussian noise of standard deviation {sigma} per "
    "coordinate (noise multiplier {noise}), divided by a public constant.",
    "mechanism.steps": "Local steps per release: {steps}.",
    "mechanism.zero-or-charged": "A record with a gradient that is not finite counts "
    "as zero; an update that is not finite ends the round, charged. Neither shows "
    "outside.",
    "mechanism.noise-only": "An empty batch is a step like any other: noise only.",
    "sampling.heading": "Sampling",
    "sampling.line": "Poisson sampling: in every local step each record is used with "
    "probability {rate}, independently.",
    "sampling.full": "No sampling: every record is used in every step.",
    "sampling.plan-constant": "Evidence: the rate and the number of steps are "
    "constants of the plan that every member signed. That a client really sampled so "
    "cannot be seen from outside; without that credit, epsilon is {epsilon}.",
    # -- composition
    "composition.heading": "What was charged, and how it adds up",
    "composition.within.sequential": "Within a client all releases add up, over "
    "rounds, attempts and restarts, whether or not they were opened.",
    "composition.across.parallel": "Across clients nothing adds up: each record is at "
    "one client.",
    "composition.across.sequential": "Across clients releases add up too: a record may "
    "be at several.",
    "composition.search.not-charged": "Trials that only served to find settings are "
    "not charged, unless they ran under the same lineage.",
    "composition.stopping.plan": "The number of rounds is fixed by the plan.",
    "ledger.caption": "Ledgers: every release was written down before its noise was "
    "drawn. How far this run's releases got; all but those never sent are charged",
    "ledger.head": "Ledger heads: the hash of each ledger's last entry",
    "ledger.entries": "entries, all runs",
    "ledger.reserved": "reserved only",
    "ledger.sent": "sent",
    "ledger.omitted": "sent, shown to stay closed",
    "ledger.released": "in an opened sum",
    "ledger.aborted": "never sent, not charged",
    "over.caption": "Epsilon after each finished round",
    "over.table": "Epsilon after each finished round; clients with equal figures "
    "share a column",
    "over.table.highest": "Epsilon after each finished round: the {count} highest "
    "courses. report.json has all",
    "over.alt": "Line chart of epsilon after each finished round, one line per "
    "client, with the plan's limit of {limit}. Last values: {values}.",
    "over.infinite": "There is no chart: epsilon is infinite.",
    "over.empty": "There is no chart: no round was finished.",
    "over.axis.x": "round",
    "over.axis.y": "epsilon at delta {delta}",
    "over.limit": "limit in the plan",
    "accounting.heading": "How epsilon is computed",
    "accounting.PLD": "Epsilon is computed from privacy loss distributions (PLD) on a "
    "grid with steps of {interval}; where that has too few or too many points, with "
    "steps of a fraction or a multiple of it. On every grid epsilon is an upper bound. "
    "It is checked against other methods:",
    "check.RDP": "Renyi DP (RDP), which must not be lower.",
    "check.RDP-integer-orders": "Renyi DP at whole orders, by a second implementation "
    "in this program.",
    "answers.caption": "Known answers at delta 1e-05: published epsilons, computed "
    "again by the program that wrote this report",
    "answers.id": "case",
    "answers.expected": "expected",
    "answers.got": "computed",
    "answers.tolerance": "tolerance",
    "answer.sampled-pld": "120 steps at sampling rate 0.01, noise multiplier 0.7, by "
    "PLD (from the tests of TensorFlow Privacy)",
    "answer.sampled-rdp": "120 steps at sampling rate 0.01, noise multiplier 0.7, by "
    "RDP (from the tests of TensorFlow Privacy)",
    "answer.twice-pld": "2 steps without sampling, noise multiplier 0.7, by PLD (from "
    "the tests of TensorFlow Privacy)",
    "answer.gaussian-pld": "1 step without sampling, noise multiplier 1, by PLD "
    "(formula of Balle and Wang, 2018)",
    "answer.half-noise-pld": "1 step without sampling, noise multiplier 0.5, by PLD "
    "(formula of Balle and Wang, 2018)",
    # -- randomness and numbers
    "randomness.heading": "Randomness",
    "randomness.caption": "Which generator made what",
    "randomness.use": "use",
    "randomness.source": "source",
    "randomness.noise": "Gaussian noise",
    "randomness.sampling": "sampling of records",
    "randomness.keys": "keys of everything else",
    "randomness.masks": "masks",
    "randomness.encryption": "encryption",
    "randomness.fresh": "Every stream has a fresh key and is never started again.",
    "randomness.seeded": "The keys came from a seed: whoever has it can draw the same "
    "noise again.",
    "source.aes-ctr": "AES-128 in counter mode",
    "source.aes-256-ctr": "AES-256 in counter mode",
    "source.operating-system": "the operating system's secure generator",
    "source.seed": "a seed",
    "source.none": "not used",
    "numerics.heading": "Numbers",
    "numerics.grid": "Noise is drawn in floating point. Each value of an update is "
    "then clipped to between -{clip} and {clip}, and rounded to a grid with steps of "
    "{step} ({bits}-bit words).",
    "numerics.rounding.stochastic": "Rounding is up or down at random, right on "
    "average.",
    "numerics.place.after-noise": "Clipping and rounding come after the noise and look "
    "at nothing else: they cost no epsilon.",
    "numerics.wrap.impossible": "A sum of clients that keep to the plan cannot wrap "
    "around: the words have room for every client's largest value.",
    "numerics.wrong": "CKKS adds noise of its own. With clients that keep to its "
    "specification, the chance that it changes any value of any sum of the plan is at "
    "most 2 to the power {log2}.",
    # -- evidence and exceptions
    "evidence.heading": "Evidence about the implementation",
    "evidence.absent": "{kind}: none attached.",
    "evidence.attached": "{kind}: attached, see report.json.",
    "evidence.low": "No test shows that a run was private. An attack that fails is "
    "no evidence of privacy; one that succeeds beyond the claim refutes it.",
    "conformance": "Conformance tests of this run",
    "mutation": "Mutation tests",
    "audit": "Empirical audit",
    "exceptions.heading": "What did not go as planned",
    "exceptions.none": "Nothing: no attempt failed, no round was skipped, every "
    "charged release is in an opened sum.",
    "exceptions.caption": "Exceptions",
    "exceptions.kind": "what",
    "exception.failed-attempt": "an attempt failed; charged where it had begun",
    "exception.skipped-round": "the round was skipped",
    "exception.unprotected-release": "a release without protection was charged",
    "exception.charged-not-opened": "a release was charged that is in no opened sum",
    "failures.caption": "Attempts that failed; each client's charge for them counts",
    "failures.reason": "reason",
    "failures.culprit": "client named",
    "failures.nobody": "nobody",
    # -- utility and costs
    "utility.heading": "Utility",
    "utility.scope": "Measured on held-out rows; not covered by the claims. The scores "
    "are exact figures of held-out records.",
    "utility.baselines": "Every model compared with is a further release about the "
    "same training records. Epsilon does not count it, and it is private only where it "
    "says so.",
    "utility.whom": "This section and metrics.json show exact figures: give the folder "
    "only to those who may see them.",
    "utility.caption": "Scores of the final model",
    "utility.caption.compared": "Scores of the final model and of those compared with "
    "it",
    "utility.final": "final model",
    "utility.history.alt": "Line chart of {name} over the rounds, from {first} to "
    "{last}.",
    "utility.none": "No scores were recorded.",
    "utility.model": "model",
    "score.accuracy": "accuracy",
    "score.auc": "AUC",
    "baseline.one_member_alone": "one member alone, private (mean of the members)",
    "baseline.pooled_non_private": "all records pooled, not private",
    "costs.heading": "Costs",
    "costs.scope": "Sums over all attempts of the run, as the engine measured them; "
    "nobody signed them.",
    "costs.resumed": "The run was resumed: what was spent before that is not in here.",
    "costs.none": "No costs were recorded.",
    "costs.picture": "Megabytes and seconds per step",
    "costs.alt": "Bar chart. Step: bytes to the aggregator, bytes from it, seconds. "
    "{values}.",
    "costs.caption": "Messages, bytes and seconds per step",
    "costs.step": "step",
    "costs.messages": "messages",
    "costs.bytes_up": "bytes to the aggregator",
    "costs.bytes_down": "bytes from the aggregator",
    "costs.seconds": "seconds",
    "costs.megabytes": "megabytes",
    "costs.up": "to the aggregator",
    "costs.down": "from it",
    "step.training": "training",
    "step.keys": "keys",
    "step.shares": "shares",
    "step.vectors": "updates",
    "step.consistency": "consistency",
    "step.unmask": "opening",
    "step.release": "key release",
    # -- verifying
    "verify.heading": "How to check this report",
    "verify.how": "Offline, with nothing but this folder: secure-fl verify DIR. It "
    "recomputes every epsilon from the ledgers, checks every signature, hash and "
    "chain, and names the first file that is at fault. A second program, which shares "
    "no code with the first, does the same: python protocols/report/verify.py DIR.",
    "verify.compare": "Both print the values below: compare them with this page. "
    "Compare the plan hash with a member's own copy of the plan too, over another "
    "channel.",
    "verify.caption": "What to compare",
    "verify.report": "report id",
    "verify.schema": "schema of report.json",
    "verify.plan": "plan hash",
    "verify.run": "run id",
    "verify.model": "model hash",
    "verify.start": "model hash at the start",
    "verify.head": "transcript head at report time",
    "verify.more": "In report.json only",
    **ENGLISH_SUMS,
}
