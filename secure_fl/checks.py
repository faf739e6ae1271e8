# SPDX-License-Identifier: Apache-2.0
"""What a plan's entries must say together, section by section they being right."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from .errors import PlanError
from .masking import default_threshold, smallest_threshold
from .privacy.accounting import MIN_DELTA
from .sections import Document, Parties

__all__ = ["check_document", "quorum"]


def check_document(doc: Document) -> None:
    """Raises PlanError naming the entry at fault."""
    names = tuple(m.name for m in doc.parties.members)
    if len(set(names)) != len(names):
        raise PlanError(
            "two members share a name",
            key="parties.members",
            hint="give each its own",
        )
    _check_quorum(doc.parties)
    if doc.privacy.mode == "local":
        _check_local(doc)
    else:
        _check_distributed(doc)
    _check_protection(doc)
    if doc.data is not None and doc.data.files is not None:
        _same_names("data.files", doc.data.files, names)
    if doc.data is not None and doc.data.split_values is not None:
        _same_names("data.split_values", doc.data.split_values, names)
    unit, delta = doc.privacy.unit, doc.privacy.delta
    most = max(m.records for m in doc.parties.members)
    if unit == "client":
        most = len(names)
    if delta < MIN_DELTA:
        raise PlanError(
            f"{delta:g} is too small to account for",
            key="privacy.delta",
            hint=f"choose one of at least {MIN_DELTA:g}",
        )
    if delta * most > 1:
        raise PlanError(
            f"{delta:g} times {most} {unit}s is above 1: publishing a {unit} outright "
            "would satisfy it",
            key="privacy.delta",
            hint=f"choose one well below {1 / most:.1g}",
        )


def quorum(parties: Parties) -> tuple[int, int]:
    """How many shares open a mask, and how many clients a sum holds at least."""
    n, colluding = len(parties.members), parties.max_colluding
    threshold, least = parties.threshold, parties.min_clients
    if threshold is None:
        threshold = default_threshold(n, colluding)
    if least is None:
        least = max(colluding + 2, threshold)
    return threshold, least


def _check_quorum(parties: Parties) -> None:
    n, colluding = len(parties.members), parties.max_colluding
    threshold, least = quorum(parties)
    floor = smallest_threshold(n, colluding)
    if not floor <= threshold <= n:
        raise PlanError(
            f"{threshold} is not within {floor} to {n}",
            key="parties.threshold",
            hint=f"{n} members with {colluding} colluding need at least {floor}",
        )
    low = max(colluding + 2, threshold)
    if not low <= least <= n:
        raise PlanError(
            f"{least} is not within {low} to {n}",
            key="parties.min_clients",
            hint="it is at least max_colluding + 2 and the threshold",
        )


def _check_local(doc: Document) -> None:
    """What belongs to sums alone.  Raises PlanError."""
    distributed = "it goes with mode = 'distributed'"
    if doc.privacy.unit == "client":
        raise PlanError(
            "each client adds noise for its own records",
            key="privacy.unit",
            hint=f"'client': {distributed}",
        )
    if "noise" in doc.privacy.model_fields_set:
        raise PlanError(
            "the noise of a client's own training is Gaussian",
            key="privacy.noise",
            hint=distributed,
        )
    if doc.model.values is not None:
        raise PlanError("has no use", key="model.values", hint=distributed)
    if doc.training is not None and doc.training.schedule != "constant":
        raise PlanError(
            "a client's own training has one rate",
            key="training.schedule",
            hint=distributed,
        )


# Records in a batch.  What rounding may add to a float64 sum grows with their square
# (docs/decisions/0018): to the millionth that is allowed for at 95,000.
_MOST_SUMMED: Final = 80_000


def _check_batches(doc: Document) -> None:
    for member in doc.parties.members:
        if doc.privacy.sampling_rate * member.records > _MOST_SUMMED:
            raise PlanError(
                f"a batch of {member.name} has more than {_MOST_SUMMED} records: "
                "rounding could add more to its sum than is accounted for",
                key="privacy.sampling_rate",
                hint="choose a lower one, and more rounds",
            )


def _check_distributed(doc: Document) -> None:
    """What the claim of a sum rests on.  Raises PlanError."""
    privacy, training = doc.privacy, doc.training
    if doc.parties.max_colluding < 1:
        raise PlanError(
            "is 0, but every client sees the models and knows its own noise",
            key="parties.max_colluding",
            hint="plan at least 1: the others' noise is then enough",
        )
    if privacy.overlap != "disjoint":
        raise PlanError(
            "a record at two members would be in one sum twice",
            key="privacy.overlap",
            hint="plan 'disjoint', and see to it, or mode = 'local'",
        )
    if doc.protection.kind == "plain":
        raise PlanError(
            "would show the aggregator every vector, under one share of the noise",
            key="protection.kind",
            hint="choose 'masking' or 'ckks'",
        )
    if any(m.weight != 1 for m in doc.parties.members):
        raise PlanError(
            "a sum under shared noise has no weights",
            key="parties.members",
            hint="leave `weight` out: records, or clients, count alike",
        )
    if privacy.noise_multiplier is not None and doc.model.values is None:
        raise PlanError(
            "is missing beside privacy.noise_multiplier",
            key="model.values",
            hint="what the noise is worth depends on the number of values: state both",
        )
    if privacy.unit == "record":
        _check_batches(doc)
        if privacy.local_steps != 1:
            raise PlanError(
                "is not 1: a round is one step, which the aggregator takes",
                key="privacy.local_steps",
                hint="plan more rounds instead",
            )
        if training is None:
            raise PlanError(
                "is missing",
                key="training",
                hint="the aggregator takes its learning rate from there",
            )
        return
    if privacy.sampling_rate != 1:
        raise PlanError(
            "is not 1: every client is in every round",
            key="privacy.sampling_rate",
            hint="sampling hides a record, not a client",
        )
    if training is not None and training.schedule != "constant":
        raise PlanError(
            "the clients' own steps have one rate",
            key="training.schedule",
            hint="it goes with unit = 'record'",
        )


def _check_protection(doc: Document) -> None:
    parties, protection = doc.parties, doc.protection
    if protection.keep_vectors and protection.kind == "plain":
        raise PlanError(
            "would publish every client's update",
            key="protection.keep_vectors",
            hint="leave it out, or choose a protection",
        )
    if parties.keyholder is None:
        return
    if protection.keys != "keyholder":
        raise PlanError(
            "has nothing to do",
            key="parties.keyholder",
            hint="it goes with kind = 'ckks' and keys = 'keyholder'",
        )
    if parties.keyholder in (parties.aggregator, *(m.key for m in parties.members)):
        raise PlanError(
            "is the aggregator or a member",
            key="parties.keyholder",
            hint="whoever holds keys must not see ciphertexts: name somebody else",
        )


def _same_names(key: str, given: Mapping[str, object], names: tuple[str, ...]) -> None:
    if set(given) != set(names):
        wrong = sorted(set(given) ^ set(names))
        raise PlanError(
            f"does not match the members: {', '.join(wrong)}",
            key=key,
            hint="give one entry for each member, and no other",
        )
