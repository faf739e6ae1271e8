# SPDX-License-Identifier: Apache-2.0
"""No secret in a repr, a log, an error or a traceback.

The secrets of a whole round are made a second time (``tests/vectors/reference.py``) and
looked for, in every form they might be printed in, wherever text comes out: also after
an error in each step (``faults.py``).  Not promised: a traceback that prints local
variables shows what our own functions hold.  It shows nothing of that in their callers.
"""

from __future__ import annotations

import base64
import dataclasses
import logging
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import secure_fl.masking
from secure_fl.errors import FaultyClient, ProtocolError, SecureFLError, UsageError
from secure_fl.identity import Identity
from secure_fl.keystore import DiskKeystore, Keystore, MemoryKeystore
from secure_fl.masking import (
    AwaitCohort,
    AwaitInbox,
    AwaitSignatures,
    AwaitStatement,
    messages,
    start,
    unpark,
)
from secure_fl.randomness import SeededInsecure, SystemRandom

from ..consortium import (
    CLAIM,
    ClientState,
    Consortium,
    make_session,
    with_field,
)
from ..vectors import reference
from .faults import Fault, at, client_faults, dealt_faults, upload_faults

OURS = Path(secure_fl.masking.__file__).parent


def forms(secret: bytes) -> set[str]:
    """How the beginning of it might look: as bytes, hex, base64 or a number."""
    little, big = (int.from_bytes(secret, order) for order in ("little", "big"))
    part = secret[:9]
    out = {
        repr(part)[2:-1],
        part.hex(),
        part.hex().upper(),
        base64.b64encode(part).decode(),
        base64.urlsafe_b64encode(part).decode(),
        ", ".join(str(b) for b in part),
        ", ".join(hex(b) for b in part),
        "\\x" + "\\x".join(f"{b:02x}" for b in part),
    }
    for number in (little, big):
        out |= {str(number)[:18], f"{number:x}"[:16], f"{number:X}"[:16]}
    return out


class Secrets:
    """Every secret of a round's honest clients, made again from their 32 bytes."""

    def __init__(self, c: Consortium) -> None:
        self.named: dict[str, bytes] = {}
        ctx, le32 = c.session.ctx, reference.le32
        degree = c.session.parameters.threshold - 1
        cohort = messages.cohort_hash(c.session, c.cohort)
        keys = {a.client: a.mask_key for a in c.cohort.announcements}
        for i in range(c.session.parameters.clients):
            beta, z = c.secrets(i)
            made = reference.elements(ctx, c.deals[i], "coefficients", 2 * degree)
            mask = reference.derive(ctx, le32(z), "mask key")
            one = {
                "r1": c.starts[i],
                "r2": c.deals[i],
                "beta": le32(beta),
                "z": le32(z),
                "seal key": reference.derive(ctx, c.starts[i], "seal key"),
                "mask key": mask,
                "self seed": reference.derive(ctx, le32(beta), "self mask"),
                "attached seed": reference.derive(ctx, le32(beta), "attached"),
            }
            one |= {f"coefficient {k}": le32(x) for k, x in enumerate(made)}
            for j in keys:
                x = j + 1
                self_share = reference.polynomial(beta, made[:degree], x)
                key_share = reference.polynomial(z, made[degree:], x)
                one |= {f"self share {j}": le32(self_share)}
                one |= {f"key share {j}": le32(key_share)}
                if j != i:
                    shared = reference.x25519(mask, keys[j])
                    low, high = sorted((i, j))
                    seed = reference.derive(ctx, shared, "pair mask", cohort, low, high)
                    one |= {f"pair secret {j}": shared, f"pair seed {j}": seed}
            one["vector"] = c.vectors[i].tobytes()
            self.named |= {f"{name} of {i}": value for name, value in one.items()}
        self._forms = {
            form: name for name, value in self.named.items() for form in forms(value)
        }
        for i, words in enumerate(c.vectors):
            for sep in (", ", " ", ","):
                self._forms[sep.join(str(w) for w in words[:2])] = f"vector of {i}"

    def seen(self, text: str) -> set[str]:
        return {name for form, name in self._forms.items() if form in text}


@pytest.fixture(scope="module")
def world() -> tuple[Consortium, Secrets]:
    c = Consortium(make_session(4))
    c.opened()
    return c, Secrets(c)


def texts(thing: object) -> str:
    return f"{thing!r} {thing!s} {thing} {[thing]}"


# -- the search itself -----------------------------------------------------------


def test_the_search_sees_a_secret_in_every_form(
    world: tuple[Consortium, Secrets],
) -> None:
    c, secrets = world
    beta, z = c.secrets(0)
    shown = [
        repr(reference.le32(beta)), reference.le32(beta).hex(), str(beta), hex(beta),
        repr([beta, z]), repr(list(c.starts[0])), repr(bytearray(c.starts[0])),
        repr({"key": c.deals[2]}), f"{c.vectors[1]!r}", f"{c.vectors[1].tolist()}",
        base64.b64encode(c.starts[3]).decode(),
    ]  # fmt: skip
    for text in shown:
        assert secrets.seen(f"before {text} after"), text
    assert not secrets.seen(repr(c.session) + repr(c.cohort) + repr(c.statement))
    assert len(secrets.named) == 4 * (8 + 2 * 2 + 2 * 4 + 2 * 3 + 1)


# -- what prints -----------------------------------------------------------------


def objects(c: Consortium) -> Iterator[object]:
    """Everything with a secret inside, in every step."""
    for steps in (1, 2, 3, 4):
        partial, state, told = at(steps)
        yield state
        if isinstance(state, AwaitInbox):
            inbox = messages.Inbox.decode(told, partial.session, reader=0)
            uploading = state.on_inbox(inbox, partial.vectors[0], claim=CLAIM)
            yield uploading
            chunks = uploading.chunks()
            next(chunks)
            yield from (chunks, uploading)
        yield from (
            getattr(partial, name)
            for name in (
                "collect_shares", "collect_inputs", "collect_agreements",
                "collect_reveals",
            )
            if hasattr(partial, name)
        )  # fmt: skip
    for data in (c.said[5][0][0], c.said[5][2][0]):
        reveal = messages.Reveal.decode(data, c.session)
        yield from (reveal, *reveal.shares)
    yield from (messages.SealedShares.decode(c.said[2][0][0], c.session), *c.names)
    yield from (SystemRandom(), SeededInsecure(c.starts[0]))
    yield SeededInsecure(c.starts[0]).arrays("noise")


def test_nothing_prints_a_secret(
    world: tuple[Consortium, Secrets], tmp_path: Path
) -> None:
    c, secrets = world
    printed = 0
    for thing in objects(c):
        assert not secrets.seen(texts(thing)), type(thing)
        printed += 1
    assert printed > 20
    parked = at(1)[1].park()
    stores: list[Keystore] = [
        MemoryKeystore(),
        DiskKeystore(tmp_path / "k", key_path=tmp_path / "key", random=SystemRandom()),
    ]
    for store in stores:
        store.begin(c.session.ctx)
        store.park(c.session.ctx, parked)
        assert not secrets.seen(texts(store))


def test_an_opened_sum_prints_neither_its_words_nor_its_seeds() -> None:
    c = Consortium(make_session(4))
    opened = c.opened()
    words = ", ".join(str(w) for w in opened.words[:2])
    assert words not in texts(opened)
    assert words in repr(opened.words.tolist())
    secrets = Secrets(c)
    assert not secrets.seen(texts(opened))
    assert "attached seed of 0" in secrets.seen(repr(opened.attached_seeds))


def test_an_identity_does_not_print_its_key() -> None:
    seed = SeededInsecure(b"a key").bytes(32)
    identity = Identity.new("bank-0", random=SeededInsecure(b"a key"))
    assert identity.public_key == reference.ed25519_public(seed)
    for form in forms(seed):
        assert form not in texts(identity)


# -- what is raised ---------------------------------------------------------------


def raised(fault: Fault) -> SecureFLError | None:
    try:
        fault()
    except SecureFLError as error:
        return error
    return None


def everything_said(error: BaseException) -> Iterator[str]:
    """Its text, its arguments, its hint, its traceback, and those it hides."""
    seen: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        one = queue.pop()
        if one is None or one in seen:
            continue
        seen.append(one)
        queue += [one.__cause__, one.__context__]
        yield texts(one)
        yield repr(one.args)
        yield repr(getattr(one, "hint", ""))
        yield repr(getattr(one, "__notes__", ""))
        yield "".join(traceback.TracebackException.from_exception(one).format())


FAULTS = [*client_faults(), *upload_faults(), *dealt_faults()]


@pytest.mark.parametrize("fault", [f for _, f in FAULTS], ids=[n for n, _ in FAULTS])
def test_an_error_shows_no_secret(
    fault: Fault,
    world: tuple[Consortium, Secrets],
    caplog: pytest.LogCaptureFixture,
    capsys: pytest.CaptureFixture[str],
) -> None:
    _, secrets = world
    caplog.set_level(logging.NOTSET)
    error = raised(fault)
    five = Consortium(make_session(5)).run(steps=1)
    known = [secrets, Secrets(five)]
    if error is None:
        # A lie that this round does not come upon.
        assert fault.__qualname__.startswith("dealt_faults")
        return
    for text in everything_said(error):
        for one in known:
            assert not one.seen(text)
    printed = capsys.readouterr()
    for text in (caplog.text, printed.out, printed.err):
        assert not any(one.seen(text) for one in known)


def test_every_kind_of_bad_dealing_was_met() -> None:
    """The list above is not one of lies that nobody comes upon."""
    named = {name: raised(fault) for name, fault in dealt_faults()}
    met = {name for name, error in named.items() if isinstance(error, FaultyClient)}
    assert {name.rsplit(" ", 1)[0] for name in met} == {
        "box",
        "beta",
        "z",
        "no element",
    }


# -- tracebacks with local variables ---------------------------------------------


@pytest.mark.parametrize("steps", [1, 2, 3, 4])
def test_locals_show_what_our_own_frames_hold_and_no_more(
    steps: int, world: tuple[Consortium, Secrets]
) -> None:
    """Some error reporters print them.  A caller holds states, whose text is safe."""
    _, secrets = world
    c, state, told = at(steps)
    session = c.session
    bad = with_field(told, 4 if steps == 3 else 2, [])
    # The test's own frame would show the consortium's secrets: a caller has none.
    del c

    def caller(state: ClientState, told: bytes) -> object:
        match state:
            case AwaitCohort():
                keys = messages.CohortKeys.decode(told, session)
                return state.on_cohort(keys, random=b"r" * 32)
            case AwaitInbox():
                inbox = messages.Inbox.decode(told, session, reader=0)
                words = np.zeros(5, np.uint32)
                return state.on_inbox(inbox, words, claim=CLAIM)
            case AwaitStatement():
                return state.on_statement(messages.Statement.decode(told, session))
            case AwaitSignatures():
                return state.on_signatures(messages.Signatures.decode(told, session))

    with pytest.raises(ProtocolError) as caught:
        caller(state, bad)
    shown = traceback.TracebackException.from_exception(
        caught.value, capture_locals=True
    )
    outside = 0
    for frame in shown.stack:
        if OURS not in Path(frame.filename).parents and frame.name == "caller":
            outside += 1
            assert not secrets.seen(repr(frame.locals))
            assert "state" in (frame.locals or {})
    assert outside == 1
    # Not promised, and said so in SECURITY.md: frames of the package itself.
    inside = [f for f in shown.stack if OURS in Path(f.filename).parents]
    assert inside


def test_errors_about_usage_name_no_bytes(world: tuple[Consortium, Secrets]) -> None:
    """What a caller passes wrongly may be a secret in the wrong place."""
    c, secrets = world
    beta = reference.le32(c.secrets(0)[0])
    calls: list[Callable[[], object]] = [
        lambda: start(c.session, c.names[0], random=beta[:31]),
        lambda: unpark(c.session, c.names[0], beta),
        lambda: dataclasses.replace(c.session, run_id=beta),
        lambda: dataclasses.replace(c.session, plan_hash=beta + b"1"),
        lambda: MemoryKeystore().advance(beta, lambda _: None),
    ]
    for call in calls:
        with pytest.raises(UsageError) as caught:
            call()
        for text in everything_said(caught.value):
            assert not secrets.seen(text)
