# SPDX-License-Identifier: Apache-2.0
"""The key holder of a plan."""

from __future__ import annotations

from .. import ckks
from ..ckks.messages import Call
from ..errors import UsageError
from ..identity import Identity
from ..keystore import Keystore
from ..plan import Plan

__all__ = ["key_holder"]


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
