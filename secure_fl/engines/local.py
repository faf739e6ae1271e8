# SPDX-License-Identifier: Apache-2.0
"""All members in this process, each with its own identity, ledger and keystore."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, final

from ..errors import (
    BudgetExceeded,
    EngineError,
    ProtocolError,
    SecureFLError,
    UsageError,
)
from ..files import write_durably
from ..identity import Identity
from ..keystore import DiskKeystore
from ..model import GlobalModel
from ..plan import endorse
from ..privacy import Ledger, PrivateUpdate, Unprotected
from ..randomness import RandomSource
from ..round import KEY_HOLDER, Participant
from ..transcript import Entry
from .clients import Take
from .exchange import Link, by_threads
from .home import check_budget
from .keyholder import KeyHolderProcess
from .setup import KEYHOLDER_FILE, PLAN_FILE, Setup

if TYPE_CHECKING:
    from ..training import ClientRound

__all__ = ["LocalClients", "Trainer"]

_log = logging.getLogger("secure_fl")

Trainer = Callable[["ClientRound"], PrivateUpdate | Unprotected]


@final
class LocalClients:
    """The members of a simulation: a :class:`Participant` each, and threads."""

    def __init__(
        self,
        setup: Setup,
        trainers: Mapping[str, Trainer],
        *,
        random: RandomSource,
        stack: contextlib.ExitStack,
    ) -> None:
        self._plan = setup.plan
        self._identities = setup.identities
        self._trainers = trainers
        self._random = random
        self._ledgers: dict[str, Ledger] = {}
        self._participants: dict[str, Participant] = {}
        links: dict[str, Link] = {}
        log = setup.checkpoint.transcript
        signed = log.of_kind("artefacts")  # to be signed, if it was cut off there
        if setup.keyholder is not None:
            links[KEY_HOLDER] = _start_keyholder(setup, setup.keyholder, stack)
        for name, identity in setup.identities.items():
            home = setup.state.client_home(name)
            ledger = Ledger(home / "ledger.sqlite", client=name)
            stack.callback(ledger.close)
            keystore = DiskKeystore(
                home / "keystore.sqlite",
                key_path=home / "keystore.key",
                random=random,
            )
            stack.callback(keystore.close)
            self._ledgers[name] = ledger
            self._participants[name] = Participant(
                self._plan,
                identity,
                ledger=ledger,
                keystore=keystore,
                random=random,
                now=_now,
                log_head=signed[-1].before if signed else log.head,
            )
        self._tell = by_threads({**links, **self._participants})

    def begin(
        self, endorsements: Callable[[Mapping[str, bytes]], Sequence[Entry]]
    ) -> None:
        """Checks that every member's budget has room for the whole run."""
        for ledger in self._ledgers.values():
            check_budget(self._plan, ledger)
        endorsements({n: endorse(self._plan, i) for n, i in self._identities.items()})

    def resume(self, entries: Sequence[Entry]) -> None:
        """The ledgers learn of opened sums that a crash kept them from noting."""
        for entry in entries:
            for name in entry.rows(3) if entry.kind == "round" else ():
                assert isinstance(name, str)
                self._ledgers[name].opened(
                    self._plan.lineage, ctx=entry.bytes_(2), now=_now()
                )

    def open(
        self, round_index: int, attempt: int, model: GlobalModel, names: Collection[str]
    ) -> Iterator[tuple[str, Sequence[bytes] | SecureFLError]]:
        for name in names:
            try:
                yield name, self._participants[name].open(round_index, attempt, model)
            except UsageError as error:
                yield name, error

    def train(
        self,
        round_index: int,
        attempt: int,
        model: GlobalModel,
        names: Collection[str],
        *,
        begins: Callable[[str], None],
    ) -> Iterator[tuple[str, SecureFLError]]:
        from ..training import ClientRound

        for name in names:
            participant = self._participants[name]
            if not participant.needs_update:
                continue
            begins(name)
            try:
                update = self._trainers[name](
                    ClientRound(
                        client=name,
                        round=round_index,
                        plan=self._plan,
                        model=model,
                        reserve=participant.reserve,
                        random=self._random,
                    )
                )
                participant.offer(update)
            except (BudgetExceeded, EngineError, ProtocolError) as error:
                # A client that cannot go on is a dropout, as it would be elsewhere.
                # A trainer is no party of the protocol: it blames nobody.
                if isinstance(error, ProtocolError):
                    error = EngineError(f"the trainer failed: {error}")
                yield name, error
            except Exception as error:  # a mistake in its code, and no dropout
                error.add_note(f"in the trainer of {name}, round {round_index}")
                raise

    def tell(self, messages: Mapping[str, bytes], take: Take) -> None:
        self._tell(messages, take)

    def release(self, proof: Sequence[bytes]) -> None:
        for participant in self._participants.values():
            with contextlib.suppress(ProtocolError, UsageError):
                participant.release(*proof)

    def countersign(
        self, names: Collection[str], entries: Sequence[Entry], entry: Entry
    ) -> Mapping[str, bytes]:
        return {n: self._participants[n].countersign(entries, entry) for n in names}

    def conclude(self, round_index: int, survivors: Collection[str]) -> None:
        for name, participant in self._participants.items():
            participant.conclude(opened=name in survivors)

    def export(self) -> Mapping[str, bytes]:
        return {
            name: self._ledgers[name].export(self._plan.lineage, identity=identity)
            for name, identity in self._identities.items()
        }


def _start_keyholder(
    setup: Setup, identity: Identity, stack: contextlib.ExitStack
) -> KeyHolderProcess:
    """A process of its own, which is handed nothing but plan and key."""
    state = setup.state
    key, plan = state.keys / KEYHOLDER_FILE, state.folder / PLAN_FILE
    if not key.exists():
        identity.save(key)
    write_durably(plan, setup.plan.source)
    process = KeyHolderProcess(plan=plan, key=key, home=state.keyholder_home)
    stack.callback(process.close)
    return process


def _now() -> int:
    return int(time.time())
