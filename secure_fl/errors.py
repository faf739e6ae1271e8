# SPDX-License-Identifier: Apache-2.0
"""Every error this package raises on purpose: who is to blame, and what to do next.

The class says who: you (:class:`UsageError`, :class:`PlanError`), the evidence
(:class:`VerificationError`), a peer (:class:`ProtocolError` and below), nobody
(:class:`BudgetExceeded`, :class:`ConsentRefused`) or the machinery
(:class:`EngineError`).  ``exit_code`` is what the command line leaves with.
"""

from __future__ import annotations

from typing import Any, Self

__all__ = [
    "BudgetExceeded",
    "ConsentRefused",
    "EngineError",
    "FaultyAggregator",
    "FaultyClient",
    "FaultyClientOrAggregator",
    "FaultyKeyHolder",
    "PlanError",
    "ProtocolError",
    "SecureFLError",
    "StateReused",
    "TooFewClients",
    "UsageError",
    "VerificationError",
]


class SecureFLError(Exception):
    """Base of the tree.  ``hint`` is one sentence on what to do.

    Where a raiser gives none, the class's ``default_hint`` stands.
    """

    exit_code = 70
    default_hint = ""

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint or self.default_hint
        if self.hint:
            self.add_note(f"hint: {self.hint}")  # so that a traceback shows it

    def __str__(self) -> str:
        return self.message

    def bare(self) -> Self:
        """Without the frames it came through: their local variables may be secrets."""
        self.__context__ = None
        return self.with_traceback(None)

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self.message, dict(self.__dict__))


def _again(kind: type[SecureFLError], message: str, state: dict[str, Any]) -> Any:
    """An unpickled error: subclasses are made from more than their message."""
    error = kind.__new__(kind)
    Exception.__init__(error, message)
    error.__dict__.update(state)
    return error


class UsageError(SecureFLError):
    """You called us wrongly; no peer is to blame."""

    exit_code = 2


class StateReused(UsageError):
    """A protocol state was used twice: a second answer under one secret opens it."""


class PlanError(SecureFLError):
    """The plan is wrong: ``key`` is the dotted path of the entry, or empty."""

    exit_code = 2
    default_hint = "`secure-fl plan new` prints a plan with every section explained"

    def __init__(self, message: str, *, key: str = "", hint: str = "") -> None:
        super().__init__(f"{key}: {message}" if key else message, hint=hint)
        self.key = key


class VerificationError(SecureFLError):
    """The evidence does not hold.  ``file`` names the file it was found in."""

    exit_code = 1
    default_hint = "do not rely on it; ask whoever made it for the original files"

    def __init__(self, message: str, *, file: str = "", hint: str = "") -> None:
        super().__init__(f"{file}: {message}" if file else message, hint=hint)
        self.file = file


class ProtocolError(SecureFLError):
    """A received message cannot be honest."""

    exit_code = 3
    default_hint = "nothing was opened; a new attempt can leave out who is named"


class FaultyClient(ProtocolError):
    """The message came from this client, and is wrong.

    It names whom to leave out.  Where the message itself was not signed (a chunk, or
    bytes that do not parse) it is no proof to a third party.
    """

    def __init__(self, client: str, message: str, *, hint: str = "") -> None:
        super().__init__(f"{client}: {message}", hint=hint)
        self.client = client


class FaultyAggregator(ProtocolError):
    """Only the aggregator can have caused this."""

    default_hint = "stop, and compare plan hashes and logs with the other members"


class FaultyClientOrAggregator(FaultyClient):
    """Not proof: the aggregator may have framed ``client``."""


class FaultyKeyHolder(ProtocolError):
    """Only the key holder can have caused this."""

    default_hint = "stop, and compare plan hashes with the key holder"


class TooFewClients(ProtocolError):
    """Fewer clients are left than the plan needs; nothing was opened."""

    default_hint = "wait for more members, or have all endorse a plan that needs fewer"

    def __init__(self, alive: int, needed: int, *, hint: str = "") -> None:
        super().__init__(f"{alive} clients are left, {needed} are needed", hint=hint)
        self.alive = alive
        self.needed = needed


class BudgetExceeded(SecureFLError):
    """What is planned next would overspend the data set's budget; nothing was drawn.

    ``releases`` is how many were asked for: one before its noise, all before a run.
    """

    exit_code = 4

    def __init__(
        self,
        client: str,
        *,
        spent: float,
        projected: float,
        limit: float,
        delta: float,
        releases: int = 1,
        hint: str = "",
    ) -> None:
        what = "next release" if releases == 1 else f"next {releases} releases"
        super().__init__(
            f"{client}: the {what} would bring epsilon from {spent:.4g} to "
            f"{projected:.4g}, above the limit of {limit:.4g} at delta {delta:.1e}",
            hint=hint,
        )
        self.client = client
        self.releases = releases
        self.spent = spent
        self.projected = projected
        self.limit = limit
        self.delta = delta


class ConsentRefused(SecureFLError):
    """This client's own policy does not allow it; nothing was drawn, nothing charged.

    ``file`` and ``line`` say where it stands; line 0: the file has no line that allows
    it.  The message quotes the policy: it is for this client's eyes.
    """

    exit_code = 4
    default_hint = "ask for a plan that keeps to it; only this client changes its file"

    def __init__(self, message: str, *, file: str, line: int, hint: str = "") -> None:
        where = f"{file} line {line}" if line else file
        super().__init__(f"{where}: {message}", hint=hint)
        self.file = file
        self.line = line


class EngineError(SecureFLError):
    """Something outside the protocol failed (disk, network, a trainer's own bug)."""

    exit_code = 5
    default_hint = "mend what is named and try again; a run with --out can --resume"
