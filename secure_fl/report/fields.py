# SPDX-License-Identifier: Apache-2.0
"""What a report says that follows from the plan and the start of the transcript.

Ids are those of the sentences in ``english.py``; a report holds ids and numbers only.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from .. import ckks
from ..identity import key_to_text
from ..plan import Plan
from ..rotation import block
from ..transcript import Entry
from .figures import rounded
from .views import View, is_sum

__all__ = [
    "NOT_PROTECTED",
    "assumptions",
    "composition",
    "mechanism",
    "not_claimed",
    "numerics",
    "parties",
    "privacy_unit",
    "randomness",
    "threat_model",
]

# What every ring of protocols/ckks/SPEC.md, 2.1, has at least; see its section 9.
SECURITY_BITS: Final = 192
# Base-2 logarithm of what bounds the chance of a wrong value under CKKS, over a whole
# plan, with clients that follow the specification: its section 9, Rounding.
WRONG_ROUNDING_LOG2: Final = -40

NOT_PROTECTED: Final = (
    "population",
    "participation",
    "public-constants",
    "other-releases",
    "metrics",
    "choices-before",
    "poisoning",
    "side-channels",
)

# Proved: the claim holds whichever way it is.  Tested: the package's tests look at it.
# All others are assumed: no file can show them.
_EVIDENCE: Final = {
    "keyholder-together": "proved",
    "noise-first": "tested",
    "share-first": "tested",
    "csprng": "tested",
    "overlap": "proved",
}


def _disjoint(plan: Plan) -> bool:
    return plan.privacy.overlap == "disjoint"


def _of_clients(plan: Plan) -> bool:
    return plan.privacy.unit == "client"


def _exact_noise(plan: Plan) -> bool:
    return plan.distributed and plan.privacy.noise == "discrete-gaussian"


def assumptions(
    plan: Plan, views: Sequence[View], *, insecure: bool, ledgers_live_on: bool
) -> list[dict[str, str]]:
    """What claims in these views rely on, each with its evidence."""
    ids = []
    # First: who between them can read what a reader may take for sealed.
    if plan.has_keyholder:
        if not all(is_sum(view) for view in views):
            ids.append("keyholder-together")
        if any(is_sum(view) for view in views):
            ids.append("keyholder-apart")
    if any(is_sum(view) for view in views):
        ids += ["sums-only", "honest-shares"]
    ids += ["unchanged", *_training(plan)]
    if plan.privacy.sampling_rate < 1:
        ids.append("sampling-secret")
    ids += _noise(plan, insecure=insecure)
    ids.append("disjoint" if _disjoint(plan) else "overlap")
    ids.append("ledger-kept" if ledgers_live_on else "no-earlier")
    return [{"id": i, "evidence": _EVIDENCE.get(i, "assumed")} for i in ids]


def _training(plan: Plan) -> list[str]:
    if not plan.distributed:
        return ["noise-first", "trainer"]
    return [
        "share-first",
        "trainer-update" if _of_clients(plan) else "trainer-gradients",
    ]


def _noise(plan: Plan, *, insecure: bool) -> list[str]:
    if _exact_noise(plan):
        return ["csprng-opendp", "exact-noise", "float-gradients"]
    ids = [] if insecure else ["csprng"]
    if plan.distributed:
        return [*ids, "integer-noise", "float-gradients"]
    return [*ids, "float-noise"]


def parties(plan: Plan, start: Entry) -> list[dict[str, Any]]:
    """The members in the plan's order, then the others."""
    members: list[dict[str, Any]] = [
        {
            "name": entry.name,
            "role": "client",
            "nominal_records": entry.records,
            "weight": entry.weight,
            "public_key": key_to_text(member.public_key),
        }
        for entry, member in zip(plan.parties.members, plan.roster.members, strict=True)
    ]
    others = [{"role": "aggregator", "public_key": key_to_text(start.bytes_(2))}]
    if plan.has_keyholder:
        key = key_to_text(plan.keyholder_key)
        others.append({"role": "keyholder", "public_key": key})
    return [*members, *others]


# -- threats ---------------------------------------------------------------------------


def threat_model(
    plan: Plan, size: int, *, relies_on: list[dict[str, str]]
) -> dict[str, Any]:
    """Who sees what, and under which conditions; ``size``: values of the model."""
    out: dict[str, Any] = {
        "protection": plan.protection.kind,
        "security": "none" if plan.protection.kind == "plain" else "computational",
        "max_colluding": plan.parties.max_colluding,
        "threshold": plan.threshold,
        "min_clients": plan.min_clients,
        "adversaries": _adversaries(plan),
        "assumptions": relies_on,
    }
    if plan.protection.kind == "ckks":
        out["encryption"] = _encryption(plan, size)
    return out


def _adversaries(plan: Plan) -> list[dict[str, str]]:
    plain = plan.protection.kind == "plain"
    rows = [("aggregator", "updates" if plain else "sum")]
    rows.append(("clients", "models-and-own"))
    if plan.has_keyholder:
        rows.append(("keyholder", "keys"))
    rows.append(("network", "updates" if plain else "sealed"))
    rows.append(("recipients", "model"))
    if plan.protection.keep_vectors:
        rows.append(("folder", "vectors"))
    return [{"who": who, "sees": sees} for who, sees in rows]


def _encryption(plan: Plan, size: int) -> dict[str, Any]:
    """Keys, ring and packing of a plan that encrypts."""
    packing = plan.packing(size)
    ring = packing.ring
    return {
        "specification": ckks.SPEC,
        "keys": plan.protection.keys,
        "ring_degree": ring.degree,
        "modulus_bits": ring.modulus.bit_length(),
        "primes": len(ring.primes),
        "security_bits": SECURITY_BITS,
        "values_per_coefficient": packing.fields,
        "scale_bits": packing.scale_bits,
        "ciphertexts_per_update": packing.blocks(plan.length(size)),
    }


def privacy_unit(plan: Plan) -> dict[str, Any]:
    """What one neighbour has more than another."""
    return {
        "kind": plan.privacy.unit,
        "max_records_per_unit": None if _of_clients(plan) else 1,
        "max_parties_per_unit": 1 if _disjoint(plan) else len(plan.names),
        "enforcement": "plan-statement",
    }


# -- how it was made -------------------------------------------------------------------


def mechanism(plan: Plan) -> dict[str, Any]:
    """How a release is made: one step and its number, or what is added up."""
    p, clients = plan.privacy, _of_clients(plan)
    kind = "distributed-update" if clients else "distributed-dp-sgd"
    out: dict[str, Any] = {
        "type": kind if plan.distributed else "dp-sgd",
        "mode": p.mode,
        "clip_norm": rounded(p.clip_norm),
        "clip_scope": "flat",
        "noise_multiplier": rounded(plan.noise_multiplier),
        "sigma_abs": rounded(plan.noise_multiplier * p.clip_norm),
        "normaliser": {
            m.name: 1.0 if clients else rounded(p.sampling_rate * m.records)
            for m in plan.parties.members
        },
        "local_steps": p.local_steps,
        "noise_domain": "integers" if plan.distributed else "float",
        "precision": {
            "word_bits": plan.encoding.word_bits,
            "step": rounded(plan.encoding.step),
            "update_clip": rounded(plan.encoding.clip),
        },
        "nan_policy": "zero" if clients else "zero-or-charged",
        "empty_batch_policy": "no-batches" if clients else "noise-only",
    }
    if plan.distributed:
        out["sum"] = _sum(plan)
    return out


def _sum(plan: Plan) -> dict[str, Any]:
    """What the clients of a distributed plan add up, in units of the clip norm."""
    grid = plan.grid
    return {
        "noise": plan.privacy.noise,
        "shares": grid.shares,
        "share_deviation": rounded(grid.deviation * grid.step),
        "sensitivity": rounded(grid.event.l2 * grid.step),
        "values": grid.padded,
        "block": block(grid.values),
    }


def numerics(plan: Plan) -> dict[str, Any]:
    """How reals become words.

    In local mode rounding comes after the noise: post-processing.  On the grid of a sum
    it comes before, and is in the sensitivity.
    """
    encrypted = plan.protection.kind == "ckks"
    return {
        "word_bits": plan.encoding.word_bits,
        "step": rounded(plan.encoding.step),
        "update_clip": rounded(plan.encoding.clip),
        "rounding": "conditional" if _of_clients(plan) else "stochastic",
        "place": "before-noise" if plan.distributed else "after-noise",
        "wrap": "improbable" if plan.distributed else "impossible",
        "wrong_rounding_log2": WRONG_ROUNDING_LOG2 if encrypted else None,
    }


def randomness(plan: Plan, *, insecure: bool) -> dict[str, Any]:
    """Which generator made what, keyed by fresh bytes from where ``keys`` says.

    Noise and samples: numpy over AES-128 in counter mode (``randomness.py``), but for
    discrete Gaussian noise, which opendp draws with its own.  Masks, and what encrypts:
    AES-256 in counter mode (both specifications).
    """
    kind = plan.protection.kind
    masked = kind == "masking" or (kind == "ckks" and not plan.has_keyholder)
    return {
        "noise": "opendp" if _exact_noise(plan) else "aes-ctr",
        "sampling": "aes-ctr",
        "keys": "seed" if insecure else "operating-system",
        "masks": "aes-256-ctr" if masked else "none",
        "encryption": "aes-256-ctr" if kind == "ckks" else "none",
        "seeded": insecure,
    }


def not_claimed(plan: Plan) -> list[str]:
    """What a reader might take for claimed."""
    if not plan.distributed:
        return ["organisation", "sum-view", "groups", "stopping"]
    if _of_clients(plan):
        return ["records", "coalitions", "stopping"]
    return ["organisation", "groups", "stopping"]


def composition(plan: Plan, *, ledgers_live_on: bool) -> dict[str, Any]:
    """Which releases add up, and which choices were not charged."""
    return {
        "within_client": "sequential",
        "across_clients": "parallel" if _disjoint(plan) else "sequential",
        "lineage": plan.lineage,
        "ledgers_live_on": ledgers_live_on,
        "hyperparameters": "not-charged",
        "stopping": "plan",
    }
