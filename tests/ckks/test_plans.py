# SPDX-License-Identifier: Apache-2.0
"""What a plan may say about CKKS, what follows from it, and what is refused."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secure_fl import ckks
from secure_fl.ckks import rings
from secure_fl.errors import PlanError
from secure_fl.identity import Identity, Member, Roster, key_to_text
from secure_fl.plan import Plan
from secure_fl.randomness import SystemRandom

from ..cli.support import call
from ..engines.support import NAMES, plan, plan_text

RANDOM = SystemRandom()


def completed(text: str, *, keyholder: str | None = None) -> Plan:
    identities = {n: Identity.new(n, random=RANDOM) for n in NAMES}
    return Plan(text.encode()).completed(
        keys={n: key_to_text(i.public_key) for n, i in identities.items()},
        aggregator=key_to_text(Identity.new("aggregator", random=RANDOM).public_key),
        keyholder=keyholder,
        run_id=RANDOM.bytes(16),
        start_sha256=None,
    )


def some_key() -> str:
    return key_to_text(Identity.new("keyholder", random=RANDOM).public_key)


def test_one_time_keys_are_the_default() -> None:
    assert plan(kind="ckks").protection.keys == "one-time"
    assert not plan(kind="ckks").has_keyholder
    assert plan(kind="ckks", keys="keyholder").has_keyholder


@pytest.mark.parametrize("kind", ["masking", "plain"])
def test_keys_belong_to_ckks(kind: str) -> None:
    with pytest.raises(PlanError, match="`keys` belongs to kind = 'ckks'"):
        plan(kind=kind, keys="one-time")


def test_a_misspelt_choice_is_refused() -> None:
    with pytest.raises(PlanError, match=r"protection\.keys"):
        plan(kind="ckks", keys="shared")


def test_a_plan_with_a_key_holder_is_complete_with_its_key() -> None:
    text = plan_text(kind="ckks", keys="keyholder")
    bare = completed(text)
    assert not bare.complete
    with pytest.raises(PlanError, match=r"parties\.keyholder"):
        _ = bare.keyholder_key
    whole = completed(text, keyholder=some_key())
    assert whole.complete
    assert len(whole.keyholder_key) == 32
    assert completed(plan_text(kind="ckks")).complete


@pytest.mark.parametrize(("kind", "keys"), [("masking", ""), ("ckks", "one-time")])
def test_a_key_holder_without_work_is_refused(kind: str, keys: str) -> None:
    with pytest.raises(PlanError, match="has nothing to do"):
        completed(plan_text(kind=kind, keys=keys), keyholder=some_key())


def test_the_key_holder_is_somebody_else() -> None:
    text = plan_text(kind="ckks", keys="keyholder")
    whole = completed(text, keyholder=some_key())
    for taken in (whole.parties.aggregator, whole.parties.members[1].key):
        assert taken is not None
        keys = {m.name: m.key or "" for m in whole.parties.members}
        with pytest.raises(PlanError, match="is the aggregator or a member"):
            Plan(text.encode()).completed(
                keys=keys,
                aggregator=whole.parties.aggregator or "",
                keyholder=taken,
                run_id=bytes(16),
                start_sha256=None,
            )


def test_both_contexts_follow_from_the_plan() -> None:
    whole = completed(plan_text(kind="ckks"))
    place: dict[str, Any] = {"round_index": 1, "model_hash": b"m" * 32, "size": 5000}
    session = whole.session(attempt=0, **place)
    assert isinstance(session, ckks.Session)
    keys = whole.key_session(session)
    p = session.parameters
    assert p.length == 5001
    assert p.min_clients == whole.min_clients
    assert keys.model_hash == session.ctx
    assert keys.parameters.length == p.packing.ring.degree
    assert keys.parameters.threshold == whole.threshold
    assert 96 * len(NAMES) <= 2 ** (keys.parameters.word_bits - 1) - 1
    other = whole.session(attempt=1, **place)
    assert isinstance(other, ckks.Session)
    assert other.ctx != session.ctx
    assert whole.key_session(other).ctx != keys.ctx
    with_holder = completed(
        plan_text(kind="ckks", keys="keyholder"), keyholder=some_key()
    )
    assert with_holder.session(attempt=0, **place).ctx != session.ctx


def test_a_plan_of_too_many_coefficients_is_refused() -> None:
    """More than 2^40 over all rounds and attempts: SPEC 2.2."""
    text = plan_text(kind="ckks", rounds=100_000, epsilon=1e5, noise_multiplier=50)
    big = Plan(text.encode())
    most = 2**40 // (100_000 * 2)
    assert big.packing(most // 2).ring.degree == 8192
    with pytest.raises(PlanError, match=r"rounds.count.*too many"):
        big.packing(most * 14)


def test_the_packing_is_the_smallest_there_is() -> None:
    """By trying every ring with every number of words."""
    for clients in (2, 3, 14, 15, 56, 200, 1000):
        for bits in (8, 9, 16, 17, 24, 32, 40, 53, 64):
            for length in (1, 4096, 4097, 50_000, 10**6):
                chosen = ckks.choose_packing(clients, bits, length)
                sizes = [
                    p.bytes(length)
                    for p in every_packing(clients, bits, chosen.scale_bits)
                ]
                assert chosen.bytes(length) == min(sizes)


def every_packing(clients: int, bits: int, scale: int) -> list[ckks.Packing]:
    out = []
    for degree in (4096, 8192):
        for size in range(54, 61):
            ring = rings.ring(degree, size)
            for fields in range(1, 16):
                try:
                    out.append(ckks.Packing(ring, clients, bits, fields, scale))
                except PlanError:
                    break
    return out


@pytest.mark.parametrize(("degree", "bits"), [(2048, 54), (4096, 61), (4096, 108)])
def test_a_ring_that_is_not_safe_is_refused(degree: int, bits: int) -> None:
    with pytest.raises(PlanError, match="there is no ring") as caught:
        rings.ring(degree, bits)
    assert "192-bit" in caught.value.hint


def test_a_modulus_that_cannot_hold_the_sum_is_refused() -> None:
    packing = ckks.choose_packing(10, 24, 10**6)
    with pytest.raises(PlanError, match="does not hold"):
        replace(packing, fields=packing.fields + 1)
    with pytest.raises(PlanError, match="does not hold"):
        replace(packing, fields=0)
    with pytest.raises(PlanError, match="beyond the ring"):
        replace(packing, scale_bits=packing.ring.bits, fields=1)
    with pytest.raises(PlanError, match="lost in the errors"):
        replace(packing, scale_bits=packing.scale_bits - 1)


def parameters(**changes: Any) -> ckks.Parameters:
    packing = ckks.choose_packing(5, 16, 1000)
    fields: dict[str, Any] = {
        "clients": 5,
        "length": 1000,
        "packing": packing,
        "chunk_blocks": 1,
        "min_clients": 3,
        "max_colluding": 1,
        "keys": "one-time",
    }
    return ckks.Parameters(**{**fields, **changes})


@pytest.mark.parametrize(
    "changes",
    [
        {"length": 0},
        {"chunk_blocks": 0},
        {"max_colluding": -1},
        {"min_clients": 2},
        {"min_clients": 6},
        {"clients": 6},
        {"keys": "shared"},
    ],
)
def test_parameters_that_are_not_safe_are_refused(changes: dict[str, Any]) -> None:
    parameters()
    with pytest.raises(PlanError):
        parameters(**changes)


def test_every_part_of_a_context_is_in_its_hash() -> None:
    identities = [Identity.new(f"client-{i}", random=RANDOM) for i in range(5)]
    roster = Roster(tuple(Member(i.name, i.public_key) for i in identities))

    def ctx(**changes: Any) -> bytes:
        place: dict[str, Any] = {
            "plan_hash": b"p" * 32,
            "run_id": b"r" * 16,
            "round_index": 0,
            "attempt": 0,
            "roster": roster,
            "model_hash": b"m" * 32,
            "parameters": parameters(),
        }
        return ckks.Session(**{**place, **changes}).ctx

    packing = ckks.choose_packing(5, 16, 1000)
    others = [
        ctx(plan_hash=b"q" * 32),
        ctx(run_id=b"s" * 16),
        ctx(round_index=1),
        ctx(attempt=1),
        ctx(model_hash=b"n" * 32),
        ctx(roster=Roster(roster.members[::-1])),
        ctx(parameters=parameters(length=999)),
        ctx(parameters=parameters(chunk_blocks=2)),
        ctx(parameters=parameters(min_clients=4)),
        ctx(parameters=parameters(min_clients=4, max_colluding=2)),
        ctx(parameters=parameters(keys="keyholder")),
        ctx(parameters=parameters(packing=replace(packing, fields=1))),
        ctx(parameters=parameters(packing=replace(packing, scale_bits=12, fields=1))),
    ]
    assert len({ctx(), *others}) == 1 + len(others)


def test_plan_check_shows_ring_packing_and_bytes(tmp_path: Path) -> None:
    example = Path(__file__).parents[2] / "examples" / "credit_default" / "plan.toml"
    path = tmp_path / "plan.toml"
    text = example.read_text()
    path.write_text(text.replace('kind = "masking"', 'kind = "ckks"'))
    facts = call("plan", "check", path, "--json").json
    # A distributed plan: 200 values, padded to a power of two.
    packing = ckks.choose_packing(5, 32, 256)
    assert facts["model_values"] == 200
    assert facts["ciphertexts_per_client_and_round"] == packing.blocks(256)
    assert facts["protection"] == "ckks"
    assert facts["keys"] == "one-time"
    assert str(packing.ring.degree) in facts["ring"]
    assert str(math.prod(p.value for p in packing.ring.primes)) in facts["ring"]
    assert facts["words_per_coefficient"] == packing.fields
    assert facts["bytes_per_client_and_round"] > packing.bytes(1)
    shown = call("plan", "check", path)
    assert all(len(line) <= 100 for line in shown.out.splitlines())
