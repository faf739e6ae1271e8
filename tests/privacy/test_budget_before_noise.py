# SPDX-License-Identifier: Apache-2.0
"""A real client, round by round: no entry, no noise; and the entry is there first."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from secure_fl.errors import BudgetExceeded, EngineError, SecureFLError, UsageError
from secure_fl.model import GlobalModel
from secure_fl.privacy import Gaussian, Ledger
from secure_fl.randomness import ArrayDraws, SystemRandom
from secure_fl.round import Participant
from secure_fl.training import ClientRound, PrivateTraining

from ..participants import NOW, Participants, plan_source
from .support import OTHER_RUN

NAME = "clinic-a"
NAMES = (NAME, "clinic-b", "clinic-c")
PLAN = plan_source(NAMES, 'kind = "plain"')


class Watched:
    """The real source of randomness; ``look`` is called before each draw."""

    secure = True

    def __init__(self, look: Callable[[str], None]) -> None:
        self._look = look
        self._source = SystemRandom()

    def bytes(self, size: int) -> bytes:
        self._look("bytes")
        return self._source.bytes(size)

    def arrays(self, purpose: str) -> ArrayDraws:
        self._look(purpose)
        return self._source.arrays(purpose)

    def discrete_gaussian(self, deviation: float, size: int) -> NDArray[np.int64]:
        self._look("discrete gaussian")
        return self._source.discrete_gaussian(deviation, size)


class Client:
    """One clinic with its ledger, in the first attempt of a run, about to train."""

    def __init__(self, folder: Path) -> None:
        self.layer = nn.Linear(2, 2)
        self.start = GlobalModel(
            {n: p.detach().numpy() for n, p in self.layer.named_parameters()}
        )
        self.world = Participants(folder, PLAN, self.start)
        self.plan = self.world.plan
        self.path = folder / f"{NAME}.sqlite"
        self.ledger = self.world.ledgers[NAME]
        # What was drawn, each with what the file said was charged at that moment.
        self.draws: list[tuple[str, int]] = []
        random = Watched(self._look)
        self.participant = Participant(
            self.plan,
            self.world.identities[NAME],
            ledger=self.ledger,
            keystore=self.world.keystores[NAME],
            random=random,
            now=lambda: NOW,
            log_head=self.world.log.head,
        )
        self.participant.open(0, 0, self.start)
        self.draws.clear()  # the attempt's own keys
        self.round = ClientRound(
            client=NAME,
            round=0,
            plan=self.plan,
            model=self.start,
            reserve=self.participant.reserve,
            random=random,
        )

    def _look(self, purpose: str) -> None:
        other = Ledger.existing(self.path)  # as another process would see it
        self.draws.append((purpose, len(other.charged(self.plan.lineage))))
        other.close()

    def train(self) -> PrivateTraining[nn.Linear]:
        records = TensorDataset(torch.zeros(40, 2), torch.zeros(40, dtype=torch.long))
        return self.round.make_private(
            self.round.load(self.layer),
            torch.optim.SGD(self.layer.parameters(), lr=1.0),
            DataLoader(records),
            nn.CrossEntropyLoss(),
        )

    def spend(self, noise_multiplier: float) -> None:
        """An earlier run's release of the same data set, under a wider limit."""
        self.ledger.reserve(
            self.plan.lineage,
            run_id=OTHER_RUN,
            round_index=0,
            attempt=0,
            event=Gaussian(noise_multiplier),
            unit=self.plan.privacy.unit,
            adjacency=self.plan.privacy.adjacency,
            delta=self.plan.privacy.delta,
            limit=math.inf,
            now=NOW,
        )


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    torch.set_num_threads(1)
    made = Client(tmp_path)
    yield made
    made.world.close()


def test_the_entry_is_in_the_file_before_anything_is_drawn(client: Client) -> None:
    private = client.train()
    assert client.draws == [("noise", 1), ("sampling", 1), ("bytes", 1)]
    for x, y in private.loader:
        private.optimizer.zero_grad()
        private.criterion(private.model(x), y).backward()
        private.optimizer.step()
    assert {charged for _, charged in client.draws} == {1}
    client.participant.offer(private.update())
    assert not client.participant.needs_update


def refuse(client: Client, kind: type[SecureFLError]) -> None:
    """Training is refused; nothing was drawn, and there is nothing to send."""
    with pytest.raises(kind):
        client.train()
    assert client.draws == []
    assert client.participant.needs_update
    for name, value in client.start.arrays.items():
        tensor = dict(client.layer.named_parameters())[name]
        assert (tensor.detach().numpy() == value).all()
    with pytest.raises(UsageError, match="second time"):
        client.train()
    assert client.draws == []


def test_a_spent_budget_stops_the_client_before_the_noise(client: Client) -> None:
    client.spend(0.1)
    before = client.ledger.entries(client.plan.lineage)
    refuse(client, BudgetExceeded)
    assert client.ledger.entries(client.plan.lineage) == before


def test_a_budget_with_just_enough_left_does_not(client: Client) -> None:
    client.spend(1.0)
    client.train()
    assert client.draws == [("noise", 2), ("sampling", 2), ("bytes", 2)]


def test_a_ledger_that_fails_stops_the_client_before_the_noise(client: Client) -> None:
    client.ledger.close()
    refuse(client, EngineError)
