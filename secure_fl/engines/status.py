# SPDX-License-Identifier: Apache-2.0
"""Where an aggregator's run is, kept in a small file for whoever watches it.

It lies in the aggregator's state folder, under ``status/RUN ID``: ``status.json``,
replaced as a whole whenever something happens, and the plan beside it.  What is in it
the aggregator knows anyway: no secret, and no word of a member that it did not send.
A run never ends because this file could not be written.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import time
from collections import Counter
from collections.abc import Collection
from contextlib import AbstractContextManager
from pathlib import Path
from types import TracebackType
from typing import Annotated, Final, Literal, final

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from ..errors import EngineError, SecureFLError
from ..plan import Plan
from ..privacy import epsilon
from ..transcript import KEY_HOLDER
from .result import Progress
from .setup import PLAN_FILE

__all__ = ["MemberStatus", "RunStatus", "Status", "epsilon_of", "latest"]

_log = logging.getLogger("secure_fl")

_FOLDER: Final = "status"
_FILE: Final = "status.json"
_LONGEST: Final = 300  # characters of a reason: a member may have worded it
_SKIPPED: Final = "not asked: found faulty in an earlier attempt"

Answer = Literal["", "awaited", "answered", "failed"]


@final
class MemberStatus(BaseModel):
    """One member, or the key holder, as the aggregator sees it.

    connected
        when it was last looked
    answer
        to what this stage asks; empty where nothing is asked of it
    left
        why it has left this attempt, with the stage; empty where it has not
    in_sum, why
        whether its update is in the last sum that was opened, and why not; None where
        no sum was opened, and for a key holder
    releases
        how many updates of it have arrived in this run.  Its own ledger knows better:
        it charged what was lost on the way too, and one that was sent twice once
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    name: str
    connected: bool = False
    answer: Answer = ""
    left: str = ""
    in_sum: bool | None = None
    why: str = ""
    releases: Annotated[int, Field(ge=0)] = 0


@final
class RunStatus(BaseModel):
    """A run as its aggregator last saw it.  Times: seconds since 1970.

    state
        "failed" until it is started again: ``reason`` and ``hint`` say why
    opened, planned
        rounds; ``round`` and ``attempt`` count from 0
    seconds
        in each stage that is over, over all rounds and attempts.  Far members train
        in the stage "vectors"
    """

    model_config = ConfigDict(strict=True, extra="forbid")

    schema_: Literal["secure-fl/status/1"] = Field("secure-fl/status/1", alias="schema")
    run_id: str
    plan: str
    plan_hash: str
    host: str
    pid: int
    state: Literal["running", "finished", "failed"] = "running"
    reason: str = ""
    hint: str = ""
    opened: int = 0
    planned: int
    round: int = 0
    attempt: int = 0
    stage: str = ""
    since: float
    written: float
    seconds: dict[str, float] = {}
    members: list[MemberStatus]

    @property
    def cut_off(self) -> bool:
        """Whether its process is gone, and could not say so.  False on other hosts."""
        if self.state != "running" or self.host != platform.node():
            return False
        try:
            os.kill(self.pid, 0)  # asks whether it is there, and no more
        except ProcessLookupError:
            return True
        except (OSError, OverflowError):
            pass
        return False


@final
class Status(AbstractContextManager["Status"]):
    """What the aggregator of one run tells its file; leaving it says how it ended.

    Caller holds the run's lock.  One that was cut off goes on with what it had counted.
    """

    def __init__(self, plan: Plan, state: Path) -> None:
        """``state``: the aggregator's state folder."""
        assert plan.run_id is not None
        self._folder = state / _FOLDER / plan.run_id.hex()
        self._writes = True
        self._entered = time.monotonic()
        names = [*plan.names, *[KEY_HOLDER] * plan.has_keyholder]
        now = time.time()
        self._run = RunStatus(
            schema="secure-fl/status/1",
            run_id=plan.run_id.hex(),
            plan=plan.name,
            plan_hash=plan.hash.hex(),
            host=platform.node(),
            pid=os.getpid(),
            planned=plan.rounds.count,
            since=now,
            written=now,
            members=[MemberStatus(name=name) for name in names],
        )
        self._members = {m.name: m for m in self._run.members}
        self._source = plan.source
        with contextlib.suppress(OSError):
            self._go_on(_read(self._folder))

    def _go_on(self, before: RunStatus | None) -> None:
        if before is None or before.plan_hash != self._run.plan_hash:
            return
        self._run.seconds, self._run.opened = before.seconds, before.opened
        for old in before.members:
            if (member := self._members.get(old.name)) is not None:
                member.in_sum, member.why = old.in_sum, old.why
                member.releases = old.releases

    # -- what happens ------------------------------------------------------------------

    def enter(self, stage: str) -> None:
        """The stage before is over, and this one begins: nobody was asked yet."""
        self._switch(stage)
        self._write()

    def show(self, progress: Progress) -> None:
        """A run's own :class:`Progress`: its stages, and who is out and why."""
        if progress.client:
            return  # far members train when the next message reaches them
        run = self._run
        run.round, run.attempt = progress.round, progress.attempt
        run.opened = progress.opened
        for name, member in self._members.items():
            member.left = _short(progress.left.get(name, ""))
            if progress.opened and name != KEY_HOLDER:
                member.in_sum = name in progress.inside
            if progress.step == "opened" and name != KEY_HOLDER:
                member.why = "" if member.in_sum else member.left or _SKIPPED
        self.enter(progress.step)

    def connected(self, names: Collection[str]) -> None:
        """Who is there now."""
        for name, member in self._members.items():
            member.connected = name in names
        self._write()

    def asked(self, names: Collection[str]) -> None:
        """An exchange begins: these are to answer."""
        for name in names:
            self._members[name].answer = "awaited"
        self._write()

    def answered(self, name: str, *, fit: bool) -> None:
        """A member has answered, or (``fit``: False) is not going to."""
        member = self._members[name]
        member.answer = "answered" if fit else "failed"
        if fit and self._run.stage == "vectors" and name != KEY_HOLDER:
            member.releases += 1
        self._write()

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._switch("")
        run = self._run
        run.state = "failed"
        if error is None:
            run.state = "finished"
            for member in run.members:
                member.left = ""
        elif isinstance(error, SecureFLError):
            run.reason, run.hint = _short(error.message), _short(error.hint)
        elif isinstance(error, KeyboardInterrupt | SystemExit):
            run.reason = "interrupted"
            run.hint = "start the run again: it goes on from there"
        else:  # its words may be anybody's
            run.reason = type(error).__name__
        self._write()

    # -- the file ----------------------------------------------------------------------

    def _switch(self, stage: str) -> None:
        run, now = self._run, time.monotonic()
        if stage == run.stage:
            return
        if run.stage:
            spent = run.seconds.get(run.stage, 0.0) + now - self._entered
            run.seconds[run.stage] = round(spent, 3)
        self._entered, run.since, run.stage = now, time.time(), stage
        for member in self._members.values():
            member.answer = ""

    def _write(self) -> None:
        """All of it or nothing for whoever reads; a crash may lose it."""
        self._run.written = time.time()
        try:
            self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            if self._source:  # once a process: one may have died as it wrote it
                self._put(PLAN_FILE, self._source)
                self._source = b""
            self._put(_FILE, self._run.model_dump_json(by_alias=True).encode())
        except OSError as error:
            if self._writes:
                _log.warning("no status for `secure-fl watch`: %s", error)
            self._writes = False
        else:
            self._writes = True

    def _put(self, name: str, data: bytes) -> None:
        new = self._folder / f".{name}.new"
        new.write_bytes(data)
        new.replace(self._folder / name)


def _short(text: str) -> str:
    """As much as is kept, and what JSON can say: a file's name may be any bytes."""
    return text[:_LONGEST].encode(errors="replace").decode()


# -- reading ---------------------------------------------------------------------------


def latest(state: Path) -> tuple[RunStatus, Plan] | None:
    """The run in an aggregator's state folder that was heard of last, and its plan.

    None where there is none.  Only reads.  Raises EngineError where the plan is gone.
    """
    found = [
        (run, folder)
        for folder in (state / _FOLDER).glob("*")
        if (run := _read(folder)) is not None
    ]
    if not found:
        return None
    run, folder = max(found, key=lambda pair: pair[0].written)
    try:
        source = (folder / PLAN_FILE).read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read {error.filename}: {error.strerror}") from None
    return run, Plan.known(source, folder=folder)


def epsilon_of(plan: Plan, releases: int) -> float:
    """What so many releases of one member come to by the plan, at its delta.

    Seconds for each new number of them where clients sample.
    """
    if not releases:
        return 0.0
    return epsilon(Counter({plan.release: releases}), delta=plan.privacy.delta).value


def _read(folder: Path) -> RunStatus | None:
    try:
        return RunStatus.model_validate_json((folder / _FILE).read_bytes())
    except (FileNotFoundError, NotADirectoryError, ValidationError):
        return None
