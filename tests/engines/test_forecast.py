# SPDX-License-Identifier: Apache-2.0
"""What is predicted of a round, beside a round that was run."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path

import pytest

from secure_fl.cli.plan import describe
from secure_fl.engines.clients import Lost
from secure_fl.engines.forecast import EXCHANGE_SECONDS, TERMS, forecast, terms
from secure_fl.engines.requests import Parcel
from secure_fl.engines.sizes import round_sizes
from secure_fl.plan import Plan, load_plan
from secure_fl.transcript import KEY_HOLDER

from ..participants import plan_source
from .banks import MODEL, PROTECTIONS, Banks
from .network import Network, go

EXAMPLES = Path(__file__).parents[2] / "examples"
NAMES = tuple(f"bank-{i:02}" for i in range(6))  # their tree of shares has a gap
Bytes = dict[str, tuple[int, int]]  # by member: down, up


class Enough(Exception):
    """The second round is over."""


class Weighed:
    """A network that notes the bytes of the exchanges of the second round."""

    def __init__(self, banks: Banks) -> None:
        self._network = Network(banks)
        self._names = {node: name for name, node in banks.nodes.items()}
        self._group = ""
        self.exchanges: list[Bytes] = []

    def nodes(self) -> Sequence[int]:
        return self._network.nodes()

    def send(self, parcels: Mapping[int, Parcel], *, group: str) -> Mapping[int, str]:
        self._group = group
        if group == "3":
            raise Enough
        if group == "2":
            sent = {self._names[n]: (weight(p), 0) for n, p in parcels.items()}
            self.exchanges.append(sent)
        return self._network.send(parcels, group=group)

    def receive(
        self, tickets: Collection[str], *, timeout: float
    ) -> Iterator[tuple[str, Parcel | Lost]]:
        for ticket, answer in self._network.receive(tickets, timeout=timeout):
            if self._group == "2":
                assert isinstance(answer, Parcel)
                name = self._names[int(ticket.partition("-")[2])]
                down, _ = self.exchanges[-1][name]
                self.exchanges[-1][name] = down, weight(answer)
            yield ticket, answer


def weight(parcel: Parcel) -> int:
    return len(parcel.head) + sum(map(len, parcel.body))


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_bytes_are_those_of_a_run(tmp_path: Path, protection: str) -> None:
    banks = Banks(tmp_path, protection, names=NAMES)
    network = Weighed(banks)
    with pytest.raises(Enough):
        go(banks, network)
    predicted = forecast(banks.plan, MODEL.size)
    assert len(predicted.exchanges) == len(network.exchanges)
    for exchange, real in zip(predicted.exchanges, network.exchanges, strict=True):
        asked = list(NAMES) if exchange.parties > 1 else [KEY_HOLDER]
        assert list(real) == asked
        down, up = real[asked[len(asked) // 2]]
        # Integers of an envelope are a byte or two longer, or shorter.
        assert exchange.down == pytest.approx(down, rel=0.003, abs=9)
        assert exchange.up == pytest.approx(up, rel=0.003, abs=9)
    sent, got = predicted.aggregator_bytes
    everybody = [pair for real in network.exchanges for pair in real.values()]
    assert sent == pytest.approx(sum(down for down, _ in everybody), rel=0.02)
    assert got == pytest.approx(sum(up for _, up in everybody), rel=0.02)


def plan(protection: str, *, clients: int = 5, extra: str = "") -> Plan:
    """A draft: it names no key and no run, and chunks are as large as by default."""
    names = tuple(f"bank-{i:03}" for i in range(clients))
    entries = PROTECTIONS[protection].replace("chunk_words = 64", extra)
    return Plan(plan_source(names, entries))


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_a_draft_is_predicted_like_its_instance(
    tmp_path: Path, protection: str
) -> None:
    banks = Banks(tmp_path, protection, joined=())
    drafted = forecast(banks.source, MODEL.size)
    assert drafted == forecast(banks.plan, MODEL.size)
    # One exchange a step, and one for the signatures; three more in a run.
    assert len(drafted.exchanges) == (5 if protection == "keyholder" else 6)
    assert drafted.run_seconds == pytest.approx(
        3 * drafted.round_seconds + 3 * EXCHANGE_SECONDS
    )


@pytest.mark.parametrize("protection", PROTECTIONS)
def test_more_of_anything_takes_longer(protection: str) -> None:
    small = forecast(plan(protection), 1_000)
    assert 0 < small.member_seconds < 10
    assert 0 < small.aggregator_seconds < 10
    larger = forecast(plan(protection), 1_000_000)
    more = forecast(plan(protection, clients=50), 1_000)
    for other in (larger, more):
        assert other.member_seconds > small.member_seconds
        assert other.aggregator_seconds > small.aggregator_seconds
        assert other.network_seconds > small.network_seconds
        assert other.round_seconds > small.round_seconds


def test_the_network_is_the_readers_own() -> None:
    fast = forecast(plan("masking"), 10_000, exchange_seconds=0.0, megabits=1000.0)
    slow = forecast(plan("masking"), 10_000, exchange_seconds=2.0, megabits=10.0)
    assert slow.network_seconds == pytest.approx(100 * fast.network_seconds)
    sent, got = slow.aggregator_bytes
    assert slow.network_seconds == pytest.approx(8 * (sent + got) / 10e6)
    waited = slow.round_seconds - slow.network_seconds
    assert waited - (fast.round_seconds - fast.network_seconds) == pytest.approx(12.0)


def test_a_large_vector_dominates_what_is_sent() -> None:
    """Four bytes a value under masking, whatever travels beside them."""
    up, down = forecast(plan("masking"), 1_000_000).member_bytes
    assert up == pytest.approx(4e6, rel=0.02)
    assert down == pytest.approx(4e6, rel=0.02)  # the model


def test_narrower_words_are_fewer_bytes() -> None:
    wide, _ = forecast(plan("masking"), 100_000).member_bytes
    narrow, _ = forecast(plan("masking", extra="word_bits = 16"), 100_000).member_bytes
    assert narrow == pytest.approx(wide / 2, rel=0.1)


def test_plan_check_says_it() -> None:
    made = load_plan(EXAMPLES / "credit_default" / "plan.toml")
    facts = describe(made, latency=1.5, bandwidth=50.0)
    size = facts["model_values"]
    expected = forecast(
        made.with_values(size), size, exchange_seconds=1.5, megabits=50.0
    )
    assert facts.items() >= expected.facts().items()
    assert facts["predicted_seconds_per_round"] >= 6 * 1.5
    assert "1.5 s an exchange" in facts["predicted_for"]
    assert (
        facts["predicted_bytes_up_per_member"] > (facts["bytes_per_client_and_round"])
    )


def test_every_constant_has_its_term() -> None:
    made = plan("one-time")
    amounts = terms(made, 100, round_sizes(made, 100))
    assert [len(side) for side in amounts] == [len(side) for side in TERMS]
    assert all(amount > 0 for side in amounts for amount in side)
