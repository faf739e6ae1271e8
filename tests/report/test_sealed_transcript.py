# SPDX-License-Identifier: Apache-2.0
"""Transcripts of runs under CKKS, edited, signed again by all: what is wrong is named.

Parties forge with their own keys: the aggregator calls and invites, the key holder
releases and refuses, clients send inputs, as no honest one would.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from secure_fl.ckks import messages as sealed
from secure_fl.ckks.messages import KINDS
from secure_fl.context import message
from secure_fl.errors import VerificationError
from secure_fl.masking import messages
from secure_fl.report import verify_run
from secure_fl.round import KEY_HOLDER

from .forge import OPENED, REFUSED, Forge
from .support import NAMES, Made, rewritten
from .test_transcript import COLLUDING, of_kind

TRANSCRIPT = "transcript.cbor"


def refused(
    made: Made, tmp_path: Path, edit: Callable[[Forge], None]
) -> VerificationError:
    files = {**made.files}
    files[TRANSCRIPT] = rewritten(
        made, lambda rows: edit(Forge(made, rows)), resign=True
    )
    assert files[TRANSCRIPT] != made.files[TRANSCRIPT]
    folder = replace(made, files=files).write(tmp_path / "run")
    with pytest.raises(VerificationError) as caught:
        verify_run(folder)
    return caught.value


# -- with a key holder: one edit for each check ----------------------------------------


def call_field(**changed: Any) -> Callable[[Forge], None]:
    def edit(f: Forge) -> None:
        call = sealed.Call.decode(f.body(KINDS.CALL)[4])
        f.set(KINDS.CALL, replace(call, **changed).encode())

    return edit


def dropped(kind: int, place: tuple[int, int] = OPENED) -> Callable[[Forge], None]:
    return lambda f: f.drop(kind, place=place)


def body_field(kind: int, field: int, value: Any) -> Callable[[Forge], None]:
    def edit(f: Forge) -> None:
        f.body(kind)[field] = value

    return edit


def flipped(kind: int, place: tuple[int, int] = OPENED) -> Callable[[Forge], None]:
    """One bit of the last field, a signature."""

    def edit(f: Forge) -> None:
        body = f.body(kind, place=place)
        body[4] = body[4][:-1] + bytes([body[4][-1] ^ 1])

    return edit


def new_invitation(f: Forge) -> None:
    """Keys that aggregator and key holder signed, and that are not the ones given."""
    s = f.session()
    old = sealed.Invitation.decode(f.body(KINDS.INVITATION)[4], s)
    call = f.call(bytes(31) + b"\x05")
    changed = replace(old, key=call.key, signature=call.signature)
    f.set(KINDS.INVITATION, changed.encode(s))


def new_holder_key(f: Forge) -> None:
    s = f.session()
    f.set(KINDS.HOLDER_KEY, f.holder_key(bytes(31) + b"\x05").encode(s))


def one_key_for_two(f: Forge) -> None:
    call = sealed.Call.decode(f.body(KINDS.CALL)[4])
    f.set(KINDS.HOLDER_KEY, f.holder_key(call.key).encode(f.session()))


def swapped_inputs(f: Forge) -> None:
    first, second = f.body(KINDS.INPUT, 0), f.body(KINDS.INPUT, 1)
    first[4], second[4] = second[4], first[4]


def two_inputs_only(f: Forge) -> None:
    for _ in range(2):
        f.drop(KINDS.INPUT, -1)


def whole_request(f: Forge) -> None:
    body = f.body(KINDS.REQUEST)
    body[4], body[5] = message(f.session(), KINDS.REQUEST, [], bytes(64)), 0


def smaller_release(f: Forge) -> None:
    f.set(KINDS.RELEASE, f.release(f.arrived()[:3]))


def release_of_other_claims(f: Forge) -> None:
    rows = tuple((i, payload, bytes(32)) for i, payload, _ in f.arrived())
    f.set(KINDS.RELEASE, f.release(rows))


def release_of_other_payloads(f: Forge) -> None:
    rows = tuple((i, bytes(32), claim) for i, _, claim in f.arrived())
    f.set(KINDS.RELEASE, f.release(rows))


def second_release(f: Forge) -> None:
    """In the attempt that was refused, of exactly the vectors that arrived there."""
    f.set(KINDS.REFUSAL, f.release(f.arrived(REFUSED), REFUSED), REFUSED)


def released_and_refused(f: Forge) -> None:
    body = {**f.body(KINDS.RELEASE), 4: f.refusal()}
    f.rows.insert(f.find(KINDS.RELEASE)[0] + 1, ("message", body, -1))


def survivor_left_out(f: Forge) -> None:
    """The round's entry says less than the release: bank-d is not in it."""
    at = of_kind(f.rows, "round")[0]
    body = f.rows[at][1]
    body[3], body[4] = list(NAMES[:3]), 4
    others = [f.rows[i][1][3] for i in of_kind(f.rows, "round")[1:]]
    if not any("bank-d" in names for names in others):
        for i in reversed(of_kind(f.rows, "signature")):
            if f.rows[i][1][0] == "bank-d":
                del f.rows[i]


def input_after_request(f: Forge) -> None:
    at = f.find(KINDS.INPUT)[-1]
    f.rows.insert(f.find(KINDS.REQUEST)[0], f.rows.pop(at))


def logged_ciphertext(f: Forge) -> None:
    body = f.body(KINDS.INPUT)
    data = message(f.session(), KINDS.CIPHERTEXT, 0, 0)
    at = f.find(KINDS.INPUT)[0]
    f.rows[at] = ("message", {**body, 4: data}, f.rows[at][2])
    # Before the invitation, where its kind belongs.
    f.rows.insert(f.find(KINDS.CALL)[0], f.rows.pop(at))


UNSIGNED = "not signed by"


def blamed_on(
    culprit: str, edit: Callable[[Forge], None] = lambda forge: None
) -> Callable[[Forge], None]:
    """``edit``, and the attempt that the key holder refused failed for ``culprit``."""

    def both(forge: Forge) -> None:
        edit(forge)
        for kind, body, _ in forge.rows:
            if kind == "failure" and (body[0], body[1]) == REFUSED:
                body[3] = culprit

    return both


def refused_and_back(forge: Forge) -> None:
    """The key holder refuses bank-a, which takes part in the attempt after."""
    forge.set(KINDS.REFUSAL, forge.refusal(REFUSED, culprit=0), REFUSED)
    blamed_on("bank-a")(forge)


HOLDER: dict[str, tuple[Callable[[Forge], None], str]] = {
    "call dropped": (dropped(KINDS.CALL), "a key before it was called"),
    "call repeated": (lambda f: f.again(KINDS.CALL), "sent a message twice"),
    "call by somebody else": (
        lambda f: f.set(KINDS.CALL, f.call(bytes(31) + b"\x05", f.keyholder).encode()),
        "the key of the aggregator is not signed by it",
    ),
    "call flipped": (flipped(KINDS.CALL), "key of the aggregator is not signed"),
    "call of another round": (call_field(round_index=1), "another context"),
    "call of another attempt": (call_field(attempt=0), "another context"),
    "call of another model": (call_field(model_hash=bytes(32)), "another context"),
    "call of another length": (call_field(length=22), "another context"),
    "call of another ctx": (call_field(ctx=bytes(32)), "another context"),
    "call with a weak key": (
        lambda f: f.set(KINDS.CALL, f.call(bytes(32)).encode()),
        "the key of the aggregator is not usable",
    ),
    "call to a client": (
        body_field(KINDS.CALL, 3, "bank-a"),
        "the aggregator sent a message that is not its own",
    ),
    "call by the key holder": (
        body_field(KINDS.CALL, 2, KEY_HOLDER),
        "the key holder sent a message that is not its own",
    ),
    "call to everybody": (
        body_field(KINDS.CALL, 3, ""),
        "the aggregator sent a message that is not its own",
    ),
    "call to a stranger": (body_field(KINDS.CALL, 3, "bank-x"), "not a member"),
    "holder key dropped": (
        dropped(KINDS.HOLDER_KEY),
        "before the key holder gave its key",
    ),
    "holder key by somebody else": (
        lambda f: f.set(
            KINDS.HOLDER_KEY,
            f.holder_key(bytes(31) + b"\x05", f.made.aggregator).encode(f.session()),
        ),
        "the key of the key holder is not signed by it",
    ),
    "holder key flipped": (
        flipped(KINDS.HOLDER_KEY),
        "key of the key holder is not signed",
    ),
    "weak holder key": (
        lambda f: f.set(KINDS.HOLDER_KEY, f.holder_key(bytes(32)).encode(f.session())),
        "the key of the key holder is not usable",
    ),
    "holder key of a client": (
        body_field(KINDS.HOLDER_KEY, 2, "bank-a"),
        "bank-a sent a message that is not a client's",
    ),
    "holder key of the aggregator": (
        body_field(KINDS.HOLDER_KEY, 2, ""),
        "the aggregator sent a message that is not its own",
    ),
    "another holder key": (new_holder_key, "holds other keys than the two"),
    "another invitation": (new_invitation, "holds other keys than the two"),
    "invitation dropped": (dropped(KINDS.INVITATION), "was not invited"),
    "invitation to one": (
        body_field(KINDS.INVITATION, 3, "bank-a"),
        "bank-b sent a vector and was not invited",
    ),
    "invitation to the key holder": (
        body_field(KINDS.INVITATION, 3, KEY_HOLDER),
        "the aggregator sent a message that is not its own",
    ),
    "one key for two": (one_key_for_two, "key of the key holder is the aggregator's"),
    "late input": (input_after_request, "the messages are out of order"),
    "a ciphertext": (logged_ciphertext, "bank-a sent a message that is not a client's"),
    "inputs swapped": (swapped_inputs, "speaks in another client's name"),
    "input of the key holder": (
        body_field(KINDS.INPUT, 2, KEY_HOLDER),
        "the key holder sent a message that is not its own",
    ),
    "input flipped": (flipped(KINDS.INPUT), "a message of bank-a is not signed by it"),
    "input of a stranger": (body_field(KINDS.INPUT, 2, "bank-x"), "not a member"),
    "input twice": (lambda f: f.again(KINDS.INPUT), "bank-a sent a message twice"),
    "input withheld": (
        body_field(KINDS.INPUT, 5, 1),
        "bank-a sent a message that is not a client's",
    ),
    "input of no form": (body_field(KINDS.INPUT, 5, 2), "neither 0 nor 1"),
    "input dropped": (dropped(KINDS.INPUT), "released another set"),
    "input of another payload": (
        lambda f: f.input(1, payload=bytes(32)),
        "released another set",
    ),
    "input of another claim": (
        lambda f: f.input(1, claim=bytes(32)),
        "released another set",
    ),
    "request dropped": (dropped(KINDS.REQUEST), "answered before it was asked"),
    "request repeated": (lambda f: f.again(KINDS.REQUEST), "sent a message twice"),
    "request to a client": (
        body_field(KINDS.REQUEST, 3, "bank-a"),
        "the aggregator sent a message that is not its own",
    ),
    "request that is no hash": (
        body_field(KINDS.REQUEST, 4, bytes(31)),
        "field 4 does not have 32 bytes",
    ),
    "request in clear": (whole_request, "a message stands whole that is withheld"),
    "request for two": (two_inputs_only, "the keys of 2 clients, 3 are needed"),
    "release dropped": (dropped(KINDS.RELEASE), "released no keys for it"),
    "release flipped": (flipped(KINDS.RELEASE), "release is not signed"),
    "release by somebody else": (
        lambda f: f.set(
            KINDS.RELEASE, f.release(f.arrived(), signer=f.made.aggregator)
        ),
        "the release is not signed by the key holder",
    ),
    "release of fewer": (smaller_release, "released another set"),
    "release of other claims": (release_of_other_claims, "released another set"),
    "release of other payloads": (release_of_other_payloads, "released another set"),
    "release of a client": (
        body_field(KINDS.RELEASE, 2, "bank-a"),
        "bank-a sent a message that is not a client's",
    ),
    "a failure of nobody": (blamed_on(""), "is blamed on the wrong client"),
    "a failure of another": (blamed_on("bank-a"), "is blamed on the wrong client"),
    "a refused client is back": (refused_and_back, "bank-a is back, and was found"),
    "a second release": (
        blamed_on("", second_release),
        "released two sums of keys in round 1",
    ),
    "released and refused": (released_and_refused, "released a sum, and refused it"),
    "refused and opened": (
        lambda f: f.set(KINDS.RELEASE, f.refusal()),
        "opened that the key holder had refused",
    ),
    "refusal flipped": (
        flipped(KINDS.REFUSAL, REFUSED),
        "the refusal is not signed by the key holder",
    ),
    "refusal by somebody else": (
        lambda f: f.set(KINDS.REFUSAL, f.refusal(REFUSED, f.made.aggregator), REFUSED),
        "the refusal is not signed by the key holder",
    ),
    "refusal of another attempt": (
        lambda f: f.set(KINDS.REFUSAL, f.refusal((1, 1)), REFUSED),
        "another context",
    ),
    "refusal before a request": (
        dropped(KINDS.REQUEST, REFUSED),
        "answered before it was asked",
    ),
    "survivor left out": (survivor_left_out, "opened another set than its messages"),
}


@pytest.mark.parametrize("what", HOLDER)
def test_a_forged_run_with_a_key_holder(
    with_holder: Made, tmp_path: Path, what: str
) -> None:
    edit, told = HOLDER[what]
    error = refused(with_holder, tmp_path, edit)
    assert error.file == TRANSCRIPT
    assert told in str(error)


def test_the_place_of_what_is_wrong_is_named(with_holder: Made, tmp_path: Path) -> None:
    error = refused(with_holder, tmp_path, flipped(KINDS.REFUSAL, REFUSED))
    assert "round 1, attempt 0: " in str(error)


def test_a_refusal_that_is_not_there_frees_nobody(
    with_holder: Made, tmp_path: Path
) -> None:
    """bank-a sent its update twice: only a refusal in the log allows that."""
    edit = blamed_on("", dropped(KINDS.REFUSAL, REFUSED))
    error = refused(with_holder, tmp_path, edit)
    assert error.file == "ledgers/bank-a.cbor"
    assert "no signed statement or refusal" in str(error)


# -- with one-time keys: masking's checks, over the keys -------------------------------


# bank-d is in the last round's sum here: its reveal is not one of a dropout.
@pytest.mark.parametrize("what", [n for n in COLLUDING if n != "reveal by a dropout"])
def test_a_forged_run_with_one_time_keys(
    one_time: Made, tmp_path: Path, what: str
) -> None:
    """Whatever is refused under masking."""

    def edit(forge: Forge) -> None:
        COLLUDING[what](forge.rows)

    assert refused(one_time, tmp_path, edit).file == TRANSCRIPT


def masked_key(f: Forge, attached: bytes) -> None:
    """bank-a signs that other ciphertexts, or none, stand beside its masked key."""
    s = f.plan.key_session(f.session((0, 0)))
    keys = messages.CohortKeys.decode(f.body(2, place=(0, 0))[4], s)
    body = f.body(6, place=(0, 0))
    changed = replace(messages.MaskedInput.decode(body[4], s), attached=attached)
    parts = changed.signed(s, messages.cohort_hash(s, keys))
    signature = f.made.identities["bank-a"].sign(messages.INPUT_LABEL, *parts)
    body[4] = replace(changed, signature=signature).encode(s)


def other_context(f: Forge) -> None:
    """The vector's context in place of the keys'."""
    body = f.body(6, place=(0, 0))
    s = f.session((0, 0))
    ctx = f.plan.key_session(s).ctx
    assert ctx in body[4]
    body[4] = body[4].replace(ctx, s.ctx)


def one_time_ciphertext(f: Forge) -> None:
    at = f.find(10, (0, 0))[-1]
    body = {**f.rows[at][1], 5: 0}
    body[4] = message(f.session((0, 0)), KINDS.CIPHERTEXT, 0, 0)
    f.rows.insert(at + 1, ("message", body, -1))


ONE_TIME: dict[str, tuple[Callable[[Forge], None], str]] = {
    "no ciphertexts": (
        lambda f: masked_key(f, b""),
        "the masked key of bank-a names no ciphertexts",
    ),
    "other ciphertexts": (
        lambda f: masked_key(f, bytes(32)),
        "names another set than the vectors that arrived",
    ),
    "the vector's context": (other_context, "belongs to another context"),
    "a ciphertext": (one_time_ciphertext, "bank-d sent a message that is not a client"),
}


@pytest.mark.parametrize("what", ONE_TIME)
def test_forged_ciphertexts_with_one_time_keys(
    one_time: Made, tmp_path: Path, what: str
) -> None:
    edit, told = ONE_TIME[what]
    error = refused(one_time, tmp_path, edit)
    assert error.file == TRANSCRIPT
    assert told in str(error)


def test_a_statement_that_nobody_signed_frees_nobody(
    one_time: Made, tmp_path: Path
) -> None:
    """bank-d sent its update twice: only signatures without it allow that."""

    def edit(f: Forge) -> None:
        f.drop(10, place=(1, 0))
        f.drop(9, place=(1, 0))

    error = refused(one_time, tmp_path, edit)
    assert error.file == "ledgers/bank-d.cbor"
    assert "no signed statement" in str(error)


@pytest.mark.parametrize("receiver", [False, True])
def test_a_key_holder_where_there_is_none(
    made: Made, tmp_path: Path, receiver: bool
) -> None:
    def edit(f: Forge) -> None:
        at = of_kind(f.rows, "message")[0]
        f.rows[at][1][3 if receiver else 2] = KEY_HOLDER

    error = refused(made, tmp_path, edit)
    assert error.file == TRANSCRIPT
    assert "'key holder', who is not a member" in str(error)
