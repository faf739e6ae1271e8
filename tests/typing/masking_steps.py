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
    CollectAgreements,
    CollectInputs,
    CollectReveals,
    CollectShares,
    Opened,
    Parked,
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
) -> None:
    # Every state has its own step and no other: none is skipped, none comes back.
    cohort.on_inbox  # E: attr-defined
    cohort.chunks  # E: attr-defined
    cohort.finish  # E: attr-defined
    cohort.on_statement  # E: attr-defined
    cohort.on_signatures  # E: attr-defined
    inbox.on_cohort  # E: attr-defined
    inbox.chunks  # E: attr-defined
    inbox.finish  # E: attr-defined
    inbox.on_statement  # E: attr-defined
    inbox.on_signatures  # E: attr-defined
    uploading.on_cohort  # E: attr-defined
    uploading.on_inbox  # E: attr-defined
    uploading.on_statement  # E: attr-defined
    uploading.on_signatures  # E: attr-defined
    statement.on_cohort  # E: attr-defined
    statement.on_inbox  # E: attr-defined
    statement.chunks  # E: attr-defined
    statement.finish  # E: attr-defined
    statement.on_signatures  # E: attr-defined
    signatures.on_cohort  # E: attr-defined
    signatures.on_inbox  # E: attr-defined
    signatures.chunks  # E: attr-defined
    signatures.finish  # E: attr-defined
    signatures.on_statement  # E: attr-defined


def a_state_is_not_used_twice_under_its_name(
    cohort: AwaitCohort,
    statement: AwaitStatement,
    keys: messages.CohortKeys,
    said: messages.Statement,
) -> None:
    # The next state is of another type: whoever keeps the old name must say so.
    cohort, shares = cohort.on_cohort(keys, random=b"")  # E: assignment
    again: AwaitStatement = statement.on_statement(said)[0]  # E: assignment
    print(shares, again)


def the_last_step_leaves_no_state(
    signatures: AwaitSignatures, proof: messages.Signatures
) -> None:
    reveal = signatures.on_signatures(proof)
    reveal.on_signatures(proof)  # E: attr-defined
    reveal.park()  # E: attr-defined
    state, message = signatures.on_signatures(proof)  # E: misc


def an_upload_is_not_parked(uploading: Uploading, held: Parked) -> bytes:
    held = uploading  # E: assignment
    uploading.park()
    return b"parked"  # E: unreachable


def messages_of_another_step(
    cohort: AwaitCohort,
    inbox: AwaitInbox,
    statement: AwaitStatement,
    signatures: AwaitSignatures,
    keys: messages.CohortKeys,
    box: messages.Inbox,
    said: messages.Statement,
    words: NDArray[Word],
) -> None:
    cohort.on_cohort(said, random=b"")  # E: arg-type
    cohort.on_cohort(box, random=b"")  # E: arg-type
    cohort.on_cohort(keys)  # E: call-arg
    cohort.on_cohort(keys, b"")  # E: call-arg
    inbox.on_inbox(keys, words, claim=b"")  # E: arg-type
    inbox.on_inbox(said, words, claim=b"")  # E: arg-type
    inbox.on_inbox(box, words, b"")  # E: call-arg
    statement.on_statement(keys)  # E: arg-type
    statement.on_statement(b"raw bytes")  # E: arg-type
    signatures.on_signatures(said)  # E: arg-type
    signatures.on_signatures([said])  # E: arg-type


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
    keys: CollectAdvertise,
    shares: CollectShares,
    inputs: CollectInputs,
    agreements: CollectAgreements,
    reveals: CollectReveals,
    hello: messages.Advertise,
    chunk: messages.Chunk,
    masked: messages.MaskedInput,
    agreement: messages.Agreement,
    reveal: messages.Reveal,
) -> None:
    keys.add(0, reveal)  # E: arg-type
    keys.add("bank-a", hello)  # E: arg-type
    keys.add(0, b"raw bytes")  # E: arg-type
    shares.add("bank-a", reveal)  # E: arg-type arg-type
    shares.add(0, hello)  # E: arg-type
    shares.add_chunk(0, chunk)  # E: attr-defined
    inputs.add(0, chunk)  # E: arg-type
    inputs.add_chunk(0, masked)  # E: arg-type
    agreements.add(0, reveal)  # E: arg-type
    reveals.add(0, agreement)  # E: arg-type


def collectors_close_into_the_next(
    keys: CollectAdvertise,
    shares: CollectShares,
    inputs: CollectInputs,
    agreements: CollectAgreements,
    reveals: CollectReveals,
) -> None:
    keys, cohort = keys.close()  # E: assignment
    shares, boxes = shares.close()  # E: assignment
    inputs, statement = inputs.close()  # E: assignment
    agreements, proof = agreements.close()  # E: assignment
    opened = reveals.close()
    opened.close()  # E: attr-defined
    skipped: CollectAgreements = shares.close()[0]  # E: assignment
    total: messages.Statement = opened  # E: assignment
    print(cohort, boxes, statement, proof, skipped, total)


class SecondAnswer(AwaitStatement):  # E: misc
    pass


class LooseMessage(messages.Reveal):  # E: misc
    pass
