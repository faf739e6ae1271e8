# SPDX-License-Identifier: Apache-2.0
"""How a report says that releases were made (FIELDS.md, 3.4)."""

from typing import Any

from events import DISCRETE_GAUSSIAN
from figures import r6
from grid import Grid
from plan import Plan


def exact_noise(plan: Plan) -> bool:
    return plan.grid is not None and plan.grid.release.kind == DISCRETE_GAUSSIAN


def method(plan: Plan, insecure: bool) -> dict[str, Any]:
    """The fields from `privacy_unit` to `randomness`."""
    disjoint = plan.overlap == "disjoint"
    by_client = plan.unit == "client"
    return {
        "privacy_unit": {
            "kind": plan.unit,
            "max_records_per_unit": None if by_client else 1,
            "max_parties_per_unit": 1 if disjoint else len(plan.members),
            "enforcement": "plan-statement",
        },
        "adjacency": "add-or-remove-one",
        "overlap": plan.overlap,
        "mechanism": _mechanism(plan),
        "sampling": {
            "scheme": "poisson",
            "rate": r6(plan.rate),
            "evidence": "plan-constant",
            "amplification": plan.rate < 1,
        },
        "numerics": _numerics(plan),
        "randomness": _randomness(plan, insecure),
    }


def _precision(plan: Plan) -> dict[str, Any]:
    return {
        "word_bits": plan.word_bits,
        "step": r6(plan.step),
        "update_clip": r6(plan.clip),
    }


def _mechanism(plan: Plan) -> dict[str, Any]:
    by_client = plan.unit == "client"
    if plan.grid is None:
        made = "dp-sgd"
    else:
        made = "distributed-update" if by_client else "distributed-dp-sgd"
    found = {
        "type": made,
        "mode": "local" if plan.grid is None else "distributed",
        "clip_norm": r6(plan.clip_norm),
        "clip_scope": "flat",
        "noise_multiplier": r6(plan.noise),
        "sigma_abs": r6(plan.noise * plan.clip_norm),
        "normaliser": {
            member.name: 1.0 if by_client else r6(plan.rate * member.records)
            for member in plan.members
        },
        "local_steps": plan.local_steps,
        "noise_domain": "float" if plan.grid is None else "integers",
        "precision": _precision(plan),
        "nan_policy": "zero" if by_client else "zero-or-charged",
        "empty_batch_policy": "no-batches" if by_client else "noise-only",
    }
    return found if plan.grid is None else {**found, "sum": _sum(plan.grid)}


def _sum(grid: Grid) -> dict[str, Any]:
    release = grid.release
    return {
        "noise": release.kind,
        "shares": release.shares,
        "share_deviation": r6(grid.share_deviation * grid.step),
        "sensitivity": r6(release.l2 * grid.step),
        "values": grid.words,
        "block": grid.block,
    }


def _numerics(plan: Plan) -> dict[str, Any]:
    local = plan.grid is None
    return {
        **_precision(plan),
        "rounding": "conditional" if plan.unit == "client" else "stochastic",
        "place": "after-noise" if local else "before-noise",
        "wrap": "impossible" if local else "improbable",
        "wrong_rounding_log2": -40 if plan.kind == "ckks" else None,
    }


def _randomness(plan: Plan, insecure: bool) -> dict[str, Any]:
    encrypted = plan.kind == "ckks"
    masked = plan.kind == "masking" or (encrypted and plan.keys == "one-time")
    return {
        "noise": "opendp" if exact_noise(plan) else "aes-ctr",
        "sampling": "aes-ctr",
        "keys": "seed" if insecure else "operating-system",
        "masks": "aes-256-ctr" if masked else "none",
        "encryption": "aes-256-ctr" if encrypted else "none",
        "seeded": insecure,
    }
