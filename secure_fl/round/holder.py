# SPDX-License-Identifier: Apache-2.0
"""The key holder of a plan: in one process, or in a new one for every message."""

from __future__ import annotations

import contextlib
import functools
from typing import Final, final

from .. import ckks, wire
from ..ckks.messages import Call
from ..errors import SecureFLError, UsageError
from ..identity import Identity
from ..keystore import Keystore
from ..plan import Plan
from ..randomness import RandomSource

__all__ = ["ParkedKeyHolder", "key_holder"]

_SLOT: Final = "secure-fl/parked-key-holder/1"


def key_holder(plan: Plan, identity: Identity, keystore: Keystore) -> ckks.KeyHolder:
    """Who releases the sums of keys of this plan's run, each once.

    ``keystore`` must be the same at every start: it remembers what was released.
    Raises UsageError where the plan names another key, or no key holder.
    """
    if not plan.has_keyholder:
        raise UsageError(
            "this plan has no key holder",
            hint="it takes kind = 'ckks' and keys = 'keyholder'",
        )
    if plan.keyholder_key != identity.public_key:
        raise UsageError(
            "the plan names another key holder than this key's",
            hint="compare `secure-fl keys show` with parties.keyholder",
        )

    def session_of(call: Call) -> ckks.Session:
        if call.round_index >= plan.rounds.count:
            raise UsageError(f"the plan has {plan.rounds.count} rounds")
        session = plan.session(
            round_index=call.round_index,
            attempt=call.attempt,
            model_hash=call.model_hash,
            size=plan.values if plan.distributed else call.length - 1,
        )
        assert isinstance(session, ckks.Session)
        return session

    return ckks.KeyHolder(
        identity,
        aggregator=plan.aggregator_key,
        session_of=session_of,
        record=keystore,
    )


@final
class ParkedKeyHolder:
    """A key holder that lives in ``keystore``, made anew in every process.

    Same answers, same rules as :func:`key_holder`'s.  Each message takes it out, moves
    it and puts it back as one transaction, and the answer is given out only after that
    is durable.  A process that dies before has changed nothing, and another may be
    given the message; one that dies after may have answered, and that answer is never
    made again.  The private key of a context leaves the keystore with the answer to its
    request, a refusal as well as a release, and with the aggregator's next call.

    ``keystore`` must be the same at every start and never a copy.  A restored one
    answers nothing.  But a snapshot of the whole machine that was taken between call
    and release, and is put back later, looks like no restore: it lets the aggregator
    ask once more, for other clients, and subtract.  This host must have none.
    """

    def __init__(
        self,
        plan: Plan,
        identity: Identity,
        keystore: Keystore,
        random: RandomSource,
    ) -> None:
        """Raises UsageError where the plan names another key, or no key holder."""
        self._new = functools.partial(key_holder, plan, identity, keystore)
        self._new()
        self._keystore = keystore
        self._random = random
        self._slot = wire.digest(_SLOT, plan.hash, identity.public_key)

    def handle(self, message: bytes) -> bytes:
        """Answer one message of the aggregator.

        Raises as :meth:`ckks.KeyHolder.handle` does, and UsageError or EngineError
        where the keystore was restored or fails; nothing was answered then.
        """
        answers: list[bytes] = []
        failures: list[Exception] = []

        def step(before: bytes) -> bytes:
            holder = self._new()
            try:
                holder.unpark(before)
            except Exception as error:  # another version's: it may still go on
                failures.append(error)
                return before
            try:
                answers.append(holder.handle(message, random=self._random.bytes(32)))
            except Exception as error:  # what the holder then holds is what is left
                failures.append(error)
            return holder.park()

        with contextlib.suppress(UsageError):  # it is there, but for the first time
            self._keystore.park(self._slot, b"")
        self._keystore.advance(self._slot, step)
        if failures:
            error = failures[0]
            raise error.bare() if isinstance(error, SecureFLError) else error
        return answers[0]

    def __repr__(self) -> str:
        return "<ParkedKeyHolder>"
