# SPDX-License-Identifier: Apache-2.0
"""Runs on a real deployment, and what befalls it while they are under way.

What befalls is an *incident*: a generator that is asked again and again while a run
goes on, and does its deed when the moment has come.  So everything happens in one
thread, and where the run is, not after so many seconds.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Final

from secure_fl.engines.status import RunStatus

from .apart import APP, Agreed, Consortium
from .deployment import Deployment, Ended
from .processes import Member

__all__ = ["Course", "Incident", "Seen", "until"]

Incident = Iterator[None]

_LOOK: Final = 0.1  # seconds
_AGAIN: Final = 5.0  # seconds between two starts of a node that is refused


def until(condition: Callable[[], object]) -> Incident:
    while not condition():
        yield


def after(seconds: float) -> Incident:
    end = time.monotonic() + seconds
    yield from until(lambda: time.monotonic() >= end)


@dataclass
class Seen:
    """What the aggregator's status said when a sum was opened."""

    round_index: int
    attempt: int
    seconds: float  # since the sum before, or the begin
    inside: list[str]
    why: Mapping[str, str]  # of those who are not, the reason


class Course:
    """Plans run one after the other on one deployment."""

    def __init__(self, it: Deployment, banks: Consortium) -> None:
        self.it, self.banks = it, banks
        self.seen: list[Seen] = []
        self.seconds = 0.0

    def run(
        self,
        agreed: Agreed,
        *incidents: Incident,
        patience: float = 120.0,
        timeout: float = 900.0,
    ) -> Ended:
        """``flwr run`` from its begin to its end.  All incidents have happened then."""
        begun = last = time.monotonic()
        before = _status(agreed)
        opened = 0 if before is None else before.opened
        left = list(incidents)
        run = self.it.begin(APP, {**agreed.config, "secure-fl-patience": patience})
        while run.running and time.monotonic() < begun + timeout:
            left = [x for x in left if next(x, True) is not True]
            status = _status(agreed)
            if status is not None and status.opened > opened:
                now, opened = time.monotonic(), status.opened
                self.seen.append(_seen(status, now - last))
                last = now
            time.sleep(_LOOK)
        ended = self.it.finish(run, timeout=max(60.0, begun + timeout - last))
        while left:  # a node that the SuperLink takes back later than the run takes
            assert time.monotonic() < begun + timeout, "an incident did not end"
            left = [x for x in left if next(x, True) is not True]
            time.sleep(_LOOK)
        self.seconds = time.monotonic() - begun
        return ended

    # -- what befalls members ----------------------------------------------------------

    def at(self, name: str, place: str, deed: Callable[[], object]) -> Incident:
        """Do it while ``name`` waits at ``place``, and let go of it."""
        self.banks.hold(name, place)
        yield from until(lambda: self.banks.holds(name, place))
        deed()
        self.banks.release(name, place)

    def killed(self, name: str, place: str) -> Incident:
        """kill -9 of SuperNode and client app, which are started again at once."""
        yield from self.at(name, place, self.it.nodes[name].end)
        yield from self.come_back(name)

    def app_killed(self, name: str, place: str) -> Incident:
        """kill -9 of the process that works on the message, and of no other."""

        def deed() -> None:
            apps = self.it.client_apps(name)
            assert apps
            for app in apps:
                app.kill()

        yield from self.at(name, place, deed)

    def stopped(self, name: str, place: str, over: Callable[[], Incident]) -> Incident:
        """All its processes stand still until ``over``."""
        family: list[Member] = []

        def deed() -> None:
            family[:] = self.it.nodes[name].family()
            _send(family, signal.SIGSTOP)

        yield from self.at(name, place, deed)
        yield from over()
        _send(family, signal.SIGCONT)

    def come_back(self, name: str) -> Incident:
        """Start the node again, and again, until the SuperLink takes it back."""
        node, number = self.it.nodes[name], self.it.node_ids[name]
        while True:
            begin = node.start()
            while node.running:
                if f"SuperNode ID: {number}" in node.said(begin):
                    return
                yield
            yield from after(_AGAIN)

    def dropped(self, agreed: Agreed, name: str) -> Incident:
        """Until the aggregator has gone on without ``name``."""

        def is_out() -> bool:
            status = _status(agreed)
            return status is not None and any(
                m.name == name and m.left for m in status.members
            )

        yield from until(is_out)

    # -- what befalls the aggregator's side --------------------------------------------

    def server_app_killed(self, name: str, place: str) -> Incident:
        """kill -9 of the aggregator's process while ``name`` waits at ``place``."""

        def deed() -> None:
            (app,) = self.it.server_apps()
            app.kill()

        yield from self.at(name, place, deed)

    def superlink_killed(self, name: str, place: str) -> Incident:
        """kill -9 of the SuperLink alone, which is started again at once."""

        def deed() -> None:
            self.it.superlink.kill()
            self.it.start_superlink()

        yield from self.at(name, place, deed)


def _send(family: list[Member], number: signal.Signals) -> None:
    for member in family:
        if member.alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(member.pid, number)


def _status(agreed: Agreed) -> RunStatus | None:
    status = agreed.status
    run_id = agreed.plan.run_id
    assert run_id is not None
    return status if status is not None and status.run_id == run_id.hex() else None


def _seen(status: RunStatus, seconds: float) -> Seen:
    return Seen(
        status.round,
        status.attempt,
        seconds,
        [m.name for m in status.members if m.in_sum],
        {m.name: m.why for m in status.members if not m.in_sum},
    )
