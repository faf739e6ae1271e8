# SPDX-License-Identifier: Apache-2.0
"""Misuse that must not type-check.  Each line names the error it must get."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secure_fl.fixedpoint import Word
from secure_fl.identity import Identity
from secure_fl.masking import (
    AwaitCohort,
    AwaitInbox,
    AwaitSignatures,
    AwaitStatement,
    CollectAdvertise,
    CollectShares,
    Opened,
    Session,
    Uploading,
    messages,
    start,
    unpark,
)


def steps_out_of_order(
    cohort: AwaitCohort,
    inbox: AwaitInbox,
    uploading: Uploading,
    statement: AwaitStatement,
    signatures: AwaitSignatures,
    keys: messages.CohortKeys,
    said: messages.Statement,
) -> None:
    cohort.on_inbox(keys)  # E: attr-defined
    cohort.on_statement(said)  # E: attr-defined
    inbox.on_cohort(keys)  # E: attr-defined
    inbox.finish()  # E: attr-defined
    uploading.on_statement(said)  # E: attr-defined
    statement.on_signatures(said)  # E: attr-defined
    statement.chunks()  # E: attr-defined
    signatures.on_statement(said)  # E: attr-defined


def messages_of_another_step(
    cohort: AwaitCohort,
    statement: AwaitStatement,
    signatures: AwaitSignatures,
    keys: messages.CohortKeys,
    said: messages.Statement,
) -> None:
    cohort.on_cohort(said, random=b"")  # E: arg-type
    cohort.on_cohort(keys)  # E: call-arg
    cohort.on_cohort(keys, b"")  # E: call-arg
    statement.on_statement(keys)  # E: arg-type
    signatures.on_signatures(said)  # E: arg-type
    statement.on_statement(b"raw bytes")  # E: arg-type


def a_result_is_a_pair(cohort: AwaitCohort, keys: messages.CohortKeys) -> None:
    after: AwaitInbox = cohort.on_cohort(keys, random=b"")  # E: assignment
    state, message = cohort.on_cohort(keys, random=b"")
    wrong: messages.Reveal = message  # E: assignment
    print(after, state, wrong)


def floats_are_not_words(
    inbox: AwaitInbox,
    box: messages.Inbox,
    real: NDArray[np.float32],
    signed: NDArray[np.int64],
    words: NDArray[Word],
) -> None:
    inbox.on_inbox(box, real, claim=b"")  # E: arg-type
    inbox.on_inbox(box, signed, claim=b"")  # E: arg-type
    inbox.on_inbox(box, [1, 2, 3], claim=b"")  # E: arg-type
    inbox.on_inbox(box, words)  # E: call-arg
    inbox.on_inbox(box, words, claim=b"")


def parked_states_are_narrowed(s: Session, me: Identity, data: bytes) -> None:
    state = unpark(s, me, data)
    state.on_cohort(b"", random=b"")  # E: union-attr union-attr union-attr arg-type
    start(s, me)  # E: call-arg
    start(s, me, b"")  # E: call-arg
    start(me, s, random=b"")  # E: arg-type arg-type


def messages_are_frozen(
    reveal: messages.Reveal, share: messages.RevealedShare, opened: Opened
) -> None:
    reveal.shares = ()  # E: misc
    share.kind = "key"  # E: misc
    opened.survivors = ()  # E: misc
    messages.RevealedShare(0, "both", b"")  # E: arg-type


def collectors_take_their_own_message(
    keys: CollectAdvertise, shares: CollectShares, reveal: messages.Reveal
) -> None:
    keys.add(0, reveal)  # E: arg-type
    shares.add("bank-a", reveal)  # E: arg-type arg-type


class SecondAnswer(AwaitStatement):  # E: misc
    pass


class LooseMessage(messages.Reveal):  # E: misc
    pass
