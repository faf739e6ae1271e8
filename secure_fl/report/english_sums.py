# SPDX-License-Identifier: Apache-2.0
"""The report in English, by id: what is said of sums under shared noise, and of
clients.

A key of ``english.py`` with an ending takes its place: ``.distributed`` in that mode,
``.client`` where a client is the unit.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

__all__ = ["ENGLISH_SUMS"]

ENGLISH_SUMS: Final[Mapping[str, str]] = {
    "subtitle.client": "What this run may have told anyone about one client, and how "
    "to check it",
    # -- claims
    "claims.lead.record-sum": "To the aggregator, even with up to {colluding} of the "
    "clients on its side, the models and opened sums of this run expose no training "
    "record by more than epsilon {epsilon}, at delta {delta}. Should the protection "
    "fail, or more of them collude, only the second claim is left. The lower an "
    "epsilon, the less can be learned about a record.",
    "claims.lead.client-sum": "To the aggregator, even with up to {colluding} of the "
    "clients on its side, the models and opened sums of this run expose what one "
    "client sent by no more than epsilon {epsilon}, at delta {delta}. Should the "
    "protection fail, or more of them collude, only the second claim is left. The "
    "lower an epsilon, the less can be learned about a client.",
    "claim.record-sum": "Record level, view of opened sums",
    "claim.record-share": "Record level, all others collude",
    "claim.client-sum": "Client level, view of opened sums",
    "claim.client-share": "Client level, all others collude",
    "view.sum": "The aggregator, together with up to {colluding} of the clients, and "
    "whoever sees less: they see the models and the opened sums, and know their own "
    "noise. It rests on the masking, and on the noise of at least {shares} honest "
    "clients.",
    "view.sum.one-time": "The aggregator, together with up to {colluding} of the "
    "clients, and whoever sees less: they see the models and the opened sums, and know "
    "their own noise. It rests on the encryption, and on the noise of at least "
    "{shares} honest clients.",
    "view.sum.keyholder": "The aggregator, together with up to {colluding} of the "
    "clients, but not with the key holder: they see the models and the opened sums, "
    "and know their own noise. It rests on the encryption, and on the noise of at "
    "least {shares} honest clients.",
    "view.share": "Everybody but the client itself, all together: it holds even if the "
    "protection is broken, and all others collude and know all noise but its own "
    "share.",
    "view.infinite": "Nobody: in this view epsilon is infinite.",
    "unit.client": "one client as a whole",
    "adjacency.add-or-remove-one.client": "what that client sends, compared with zeros",
    "claim.group.client": "epsilon for {records} clients together",
    "claim.records.client": "clients",
    "claim.tpr.client": "share of clients recognised at a false alarm rate of {fpr}, "
    "at most",
    "claims.delta-large.client": "delta {delta} times {records} clients is {product}: "
    "a mechanism may expose that many clients outright.",
    "claims.projected.share": "The plan budgets {count} releases of each client. In "
    "this view they alone cost {one}; the plan sets no limit to it.",
    "overlap.disjoint.client": "Across clients: each client is a unit of its own, so "
    "the consortium's epsilon is the largest of the clients' (parallel composition).",
    "assumption.keyholder-apart": "The aggregator and the key holder keep apart. "
    "TOGETHER they can open every client's vector, and only the claim about one "
    "client's share of the noise is left.",
    "assumption.sums-only": "The protection holds: the aggregator, with up to "
    "{colluding} of the clients on its side, learns sums over at least {min_clients} "
    "clients, each vector in one of them at most, and nothing else about a vector. "
    "This is a computational assumption.",
    "assumption.honest-shares": "In every opened sum at least {shares} clients are "
    "honest and added their share of the noise; in sums of earlier runs, as many as "
    "the ledgers say. A client that leaves its share out counts as one that colludes.",
    "assumption.share-first": "The package clips, rounds to the grid and adds the "
    "client's share of the noise before anything leaves.",
    "assumption.trainer-gradients": "Each client's training code hands its model and "
    "its records to the package, which clips and adds up the gradients; it treats "
    "every record on its own (no statistics of a batch), takes no decision (stopping, "
    "printing elsewhere) from exact losses or scores, and starts from layers and "
    "preprocessing that were not fitted to these records.",
    "assumption.trainer-update": "Each client's training code gives out its update and "
    "nothing else: no exact losses or scores, and no decision taken from them.",
    "assumption.csprng-opendp": "Noise comes from opendp's own secure generator; "
    "samples and rounding from AES in counter mode, keyed by the operating system's "
    "secure generator.",
    "assumption.integer-noise": "The noise is whole numbers, drawn with double "
    "arithmetic: how far that is from their exact law is outside the claim.",
    "assumption.exact-noise": "The noise is whole numbers, drawn exactly, by opendp.",
    "assumption.float-gradients": "What is sent is clipped, added up and rotated in "
    "floating point; the sensitivity has one millionth to spare for that. A record's "
    "own gradient does not depend on the records that are computed beside it, beyond "
    "the last digits.",
    # -- what the figures mean
    "meaning.how.record-sum": "The strongest attacker knows every record but one, and "
    "the noise of the clients on his side, and sees all models and opened sums. He "
    "must tell whether that record was used. No attack does better than the bounds "
    "below; most do far worse.",
    "meaning.how.client-sum": "The strongest attacker knows what every client but one "
    "sends, and the noise of the clients on his side, and sees all models and opened "
    "sums. He must tell whether that client sent zeros. No attack does better than the "
    "bounds below; most do far worse.",
    "trade_off.picture.client": "Clients recognised, by rate of false alarms",
    "trade_off.alt.client": "Line chart of the largest share of clients that can be "
    "recognised, against the rate of false alarms, one line per client, with the line "
    "of guessing. Whole consortium, false alarms: recognised. {values}.",
    "trade_off.caption.client": "Share of clients recognised, at most, by the rate of "
    "false alarms",
    "group.caption.client": "Epsilon for several clients together, at the claim's "
    "delta",
    "not_claimed.records": "No figure of its own is claimed for one record: with it "
    "and without it a client sends two vectors, and the claim compares each of them "
    "with zeros, so that it takes the claim twice to get from one to the other.",
    "not_claimed.coalitions": "Nothing is claimed for more clients together than the "
    "claims name.",
    # -- unit, parties, trust
    "unit.line.client": "The unit is {unit}; neighbouring runs differ by {adjacency}. "
    "It covers all records of that client together, however many. That a client took "
    "part is not hidden.",
    "unit.plan-statement.client": "That each client is a party of its own is a "
    "statement of the plan that every member signed.",
    "parties.caption.distributed": "Clients of the plan. Record counts are nominal and "
    "public; they are not counted from the data. Each round's sum is divided by the "
    "public constants of the clients in it, added up",
    "parties.normaliser.distributed": "its part of the divisor",
    "threat.masking.distributed": "Protection: secure masking. The aggregator opens "
    "the sum over one agreed set of clients and nothing else, as long as at most "
    "{colluding} of {clients} clients collude with it. Threshold {threshold}, at least "
    "{min_clients} clients per sum. This protection is computational. The claim about "
    "opened sums needs it; the other one does not.",
    "threat.ckks.claim.distributed": "This protection is computational. The claim "
    "about opened sums needs it; the other one does not.",
    # -- how it was made
    "mechanism.line.distributed-dp-sgd": "Each round: every client adds up its sampled "
    "records' gradients, each clipped to L2 norm {clip}, rotates the sum, rounds it to "
    "a grid with steps of {step}, and adds its share of whole-number noise ({noise}) "
    "of standard deviation {share} per coordinate. The opened sum has at least "
    "{shares} such shares, with standard deviation {sigma} (noise multiplier "
    "{multiplier}). The aggregator divides it by a public constant, and takes one "
    "step.",
    "mechanism.line.distributed-update": "Each round: every client trains, clips its "
    "whole update to L2 norm {clip}, rotates it, rounds it to a grid with steps of "
    "{step}, and adds its share of whole-number noise ({noise}) of standard deviation "
    "{share} per coordinate. The opened sum has at least {shares} such shares, with "
    "standard deviation {sigma} (noise multiplier {multiplier}). The aggregator "
    "divides it by the number of clients, and adds it to the model.",
    "mechanism.formula.distributed-dp-sgd": "g = step * R'( sum over clients: "
    "round( R( sum over records: clip(gradient) ) / step ) + noise ) / ( rate * "
    "records of these clients ), with R the rotation and R' its inverse.",
    "mechanism.formula.distributed-update": "u = step * R'( sum over clients: "
    "round( R( clip(update) ) / step ) + noise ) / clients, with R the rotation and R' "
    "its inverse.",
    "mechanism.sensitivity": "What is protected (one {unit}) moves a sum by an L2 norm "
    "of at most {sensitivity}, rounding included.",
    "mechanism.unit.record": "record",
    "mechanism.unit.client": "client",
    "mechanism.skellam": "Skellam: the difference of two Poisson variables",
    "mechanism.discrete-gaussian": "discrete Gaussian",
    "mechanism.zero": "An update that is not finite counts as zero: that does not show "
    "outside.",
    "mechanism.no-batches": "No batches are sampled.",
    "sampling.line.distributed": "Poisson sampling: in every round each record is used "
    "with probability {rate}, independently.",
    "sampling.full.client": "No sampling: every client is in every round that it "
    "reaches.",
    "composition.across.parallel.client": "Across clients nothing adds up: each client "
    "is a unit of its own.",
    "accounting.PLD-or-RDP": "Epsilon is the smaller of two upper bounds. One is by "
    "Renyi DP (RDP) at whole orders from 2 to 512. The other takes Skellam noise for "
    "Gaussian noise that is rounded, and adds to delta what the two differ by, which "
    "is proved; it is in closed form where nothing is sampled, and else from privacy "
    "loss distributions (PLD) on a grid with steps of {interval}, or a fraction or a "
    "multiple of it. Where discrete Gaussian noise is among it, only RDP counts.",
    "accounting.RDP": "Epsilon is computed by Renyi DP (RDP) at whole orders from 2 to "
    "512, and is an upper bound. No privacy loss distribution (PLD) stands beside it: "
    "under this noise the loss depends on the whole vector, and no worst vector is "
    "known.",
    "answers.caption.sums": "Known answers at delta 1e-05, computed again by the "
    "program that wrote this report",
    "answer.skellam-rdp": "100 sums at sampling rate 0.05 with Skellam noise in 4 "
    "shares, by RDP (its formula, with 60 digits)",
    "answer.skellam-pld": "120 sums at sampling rate 0.01 with much Skellam noise, 0.7 "
    "times the sensitivity, by PLD (as Gaussian noise: from the tests of TensorFlow "
    "Privacy)",
    # -- randomness and numbers
    "randomness.noise.distributed": "noise",
    "source.opendp": "opendp's own secure generator",
    "numerics.grid.distributed": "Each value of a rotated vector is clipped to between "
    "-{clip} and {clip}, and rounded to a grid with steps of {step}. The noise is "
    "whole steps ({bits}-bit words).",
    "numerics.rounding.conditional": "Rounding is up or down at random, right on "
    "average, and drawn again for the whole vector until it is no longer than "
    "accounted for.",
    "numerics.place.before-noise": "Clipping and rounding come before the noise. What "
    "rounding may add is in the sensitivity, and so in every epsilon.",
    "numerics.wrap.improbable": "The chance that any sum of the plan wraps around is "
    "at most 2 to the power -40; that would spoil a model, not privacy.",
    "baseline.pooled_private": "all records pooled, private",
}
