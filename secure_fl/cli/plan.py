# SPDX-License-Identifier: Apache-2.0
"""``secure-fl plan``: write, check and endorse a plan."""

from __future__ import annotations

import itertools
import json
from importlib import resources
from pathlib import Path
from typing import Any

import click

from ..ckks import key_bits
from ..engines.forecast import EXCHANGE_SECONDS, MEGABITS, forecast
from ..engines.setup import checked_start
from ..errors import UsageError
from ..fixedpoint import packed_size
from ..identity import Identity, key_to_text
from ..model import GlobalModel
from ..plan import Plan, endorse, load_plan
from ..randomness import SystemRandom
from .keys import passphrase_option, secret_bytes
from .output import output_option, put

__all__ = ["group"]


@click.group("plan")
def group() -> None:
    """Write, check and endorse a plan."""


@group.command("new")
@output_option
def new(output: Path | None) -> None:
    """Write a commented plan to start from."""
    text = resources.files(__package__).joinpath("plan_template.toml").read_text()
    put(text, output)


@group.command("check")
@click.argument("file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--latency",
    type=click.FloatRange(0),
    default=EXCHANGE_SECONDS,
    show_default=True,
    help="Seconds that one exchange with all members takes, whatever its size.",
)
@click.option(
    "--bandwidth",
    type=click.FloatRange(0, min_open=True),
    default=MEGABITS,
    show_default=True,
    help="Of the aggregator's link, in megabits a second.",
)
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(file: Path, latency: float, bandwidth: float, as_json: bool) -> None:
    """Check PLAN and print what follows from it.

    What a run across machines is going to cost is predicted: bytes from the formats,
    seconds of work from measurements on two cores. No training is in them.
    """
    plan = load_plan(file)
    facts = describe(plan, latency=latency, bandwidth=bandwidth)
    if as_json:
        click.echo(json.dumps(facts, indent=2))
        return
    width = max(map(len, facts))
    for key, value in facts.items():
        click.echo(f"{key.replace('_', ' '):{width}}  {value}")


def describe(
    plan: Plan, *, latency: float = EXCHANGE_SECONDS, bandwidth: float = MEGABITS
) -> dict[str, Any]:
    """What members compare before they sign: hash, safety numbers, costs.

    ``latency`` (seconds) and ``bandwidth`` (megabits a second) are what is predicted
    from.  Raises PlanError where a distributed plan leaves the model's size open.
    """
    own_hash = plan.hash.hex()
    size = _model_size(plan)
    if size is not None:
        plan = plan.with_values(size)
    privacy, parties = plan.privacy, plan.parties
    of_clients = privacy.unit == "client"
    units = len(plan.names) if of_clients else max(m.records for m in parties.members)
    facts: dict[str, Any] = {
        "name": plan.name,
        "plan_hash": own_hash,
        "members": len(plan.names),
        "threshold": plan.threshold,
        "min_clients": plan.min_clients,
        "max_colluding": parties.max_colluding,
        "dropouts_allowed": len(plan.names) - plan.needed,
        "protection": plan.protection.kind,
        "word_bits": plan.encoding.word_bits,
        "step": plan.encoding.step,
        "rounds": plan.rounds.count,
        "spare_releases": plan.rounds.spare,
        "noise_multiplier": plan.noise_multiplier,
        "epsilon_limit": privacy.epsilon,
        "epsilon_projected": round(plan.projected_epsilon(), 4),
        "epsilon_of_a_record_at_all_members": round(plan.projected_consortium(), 4),
        "delta": privacy.delta,
        f"delta_times_{privacy.unit}s": privacy.delta * units,
        "claim": f"{privacy.unit}, {privacy.adjacency}, {privacy.mode}",
    }
    if plan.distributed:
        facts.update(_shared_noise(plan))
    if size is not None:
        facts["model_values"] = size
        facts.update(_sizes(plan, size))
        if plan.protection.keep_vectors:
            facts["kept_bytes_in_the_folder"] = _kept(plan, facts)
        if plan.protection.kind != "plain":
            predicted = forecast(
                plan, size, exchange_seconds=latency, megabits=bandwidth
            )
            facts.update(predicted.facts())
    return facts


def _shared_noise(plan: Plan) -> dict[str, Any]:
    """What a sum's noise comes to, and what is left if the protection fails."""
    grid = plan.grid
    return {
        "epsilon_if_all_others_collude": round(plan.projected_own_share(), 4),
        "noise": grid.kind,
        "noise_shares": grid.shares,
        "noise_of_a_share_in_steps": round(grid.deviation, 1),
        "coordinate_clip": float(f"{grid.clip:.6g}"),
        "a_dropout": f"costs no privacy: {grid.shares} honest shares are enough"
        if len(plan.names) > plan.min_clients
        else "ends the attempt: every member is needed",
    }


def _kept(plan: Plan, facts: dict[str, Any]) -> int:
    """About what `keep_vectors` adds, where every member is in every sum."""
    members = len(plan.names)
    revealed = 0 if plan.has_keyholder else 40 * members  # a share, and its place
    each = int(facts["bytes_per_client_and_round"]) + revealed
    return plan.rounds.count * members * each


def _sizes(plan: Plan, size: int) -> dict[str, Any]:
    """What one client sends in a round, and how its words stand in it."""
    if plan.protection.kind != "ckks":
        sent = packed_size(plan.length(size), plan.encoding.word_bits)
        return {"bytes_per_client_and_round": sent}
    packing = plan.packing(size)
    ring, keys = packing.ring, plan.protection.keys
    sent = packing.bytes(plan.length(size))
    if keys == "one-time":
        sent += packed_size(ring.degree, key_bits(packing.clients))
    else:
        sent += ring.degree
    primes = " * ".join(str(p.value) for p in ring.primes)
    return {
        "keys": keys,
        "ring": f"N = {ring.degree}, q = {primes}",
        "ring_security": "at least 192 bits (Homomorphic Encryption Standard, 2018)",
        "words_per_coefficient": packing.fields,
        "scale": f"2^{packing.scale_bits}",
        "ciphertexts_per_client_and_round": packing.blocks(plan.length(size)),
        "bytes_per_client_and_round": sent,
    }


def _model_size(plan: Plan) -> int | None:
    """Number of values of the plan's model, without building it, where it tells."""
    if plan.model.kind == "custom" and plan.model.start is not None:
        start = plan.folder / plan.model.start
        if plan.model.values is None and plan.distributed and start.exists():
            return GlobalModel.load(start).size
    if plan.data is None or plan.model.kind != "mlp":
        return plan.model.values
    inputs = sum(
        len(c.values) if c.values is not None else 1 for c in plan.data.columns.values()
    )
    sizes = [inputs, *plan.model.hidden, len(plan.data.classes)]
    return sum((a + 1) * b for a, b in itertools.pairwise(sizes))


@group.command("complete")
@click.argument("file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--start",
    type=click.Path(path_type=Path),
    help="The model that all start from (safetensors), where the plan names none.",
)
@output_option
def complete(file: Path, start: Path | None, output: Path | None) -> None:
    """Write the plan that members sign, from PLAN.

    PLAN names every key. Added are what a run needs beside them: a run id, the noise
    that follows from epsilon, and the hash of the model at the start.
    """
    plan = load_plan(file)
    if plan.run_id is not None:
        raise UsageError(
            f"{file} is complete: it has a run id",
            hint="for another run, complete the plan that this one was made from",
        )
    keys = {m.name: key_to_text(m.public_key) for m in plan.roster.members}
    aggregator = key_to_text(plan.aggregator_key)
    holder = key_to_text(plan.keyholder_key) if plan.has_keyholder else None
    given = None if start is None else GlobalModel.load(start)
    model, digest = checked_start(plan, given)
    completed = plan.with_values(model.size).completed(
        keys=keys,
        aggregator=aggregator,
        keyholder=holder,
        run_id=SystemRandom().bytes(16),
        start_sha256=digest,
    )
    put(completed.source.decode(), output)


@group.command("sign")
@click.argument("file", metavar="PLAN", type=click.Path(path_type=Path))
@click.option(
    "--key",
    type=click.Path(path_type=Path),
    required=True,
    help="Your private key, made with `secure-fl keys new`.",
)
@passphrase_option
def sign(file: Path, key: Path, passphrase: str | None) -> None:
    """Endorse PLAN: print your name and your signature over its hash."""
    plan = load_plan(file)
    secret = secret_bytes(passphrase)
    public = Identity.load(key, passphrase=secret).public_key
    for member in plan.roster.members:
        if member.public_key == public:
            identity = Identity.load(key, name=member.name, passphrase=secret)
            click.echo(f"{member.name} {endorse(plan, identity).hex()}")
            return
    raise UsageError(
        f"the key in {key} is no member's of this plan",
        hint="paste its public line (`secure-fl keys show`) into the plan first",
    )
