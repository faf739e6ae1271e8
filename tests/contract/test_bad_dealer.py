# SPDX-License-Identifier: Apache-2.0
"""A dealer of bad shares costs its consortium one attempt, and is left out after it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from secure_fl.masking import crypto, shamir
from secure_fl.round import Participant

from ..engines.support import NAMES, plan
from .engines import SELDOM_FAR, Engine, Outcome
from .known import known, model_of, verified

LIAR = NAMES[3]
_speaking = threading.local()


@pytest.fixture(autouse=True)
def _a_liar(monkeypatch: pytest.MonkeyPatch) -> None:
    """While the liar makes its answers, what is patched below knows."""
    handle = Participant.handle

    def watched(self: Participant, message: bytes) -> Iterator[bytes]:
        pieces = handle(self, message)
        while True:
            _speaking.name = self.name
            piece = next(pieces, None)
            _speaking.name = ""
            if piece is None:
                return
            yield piece

    monkeypatch.setattr(Participant, "handle", watched)


def lies() -> bool:
    return getattr(_speaking, "name", "") == LIAR


def run(engine: Engine) -> Outcome:
    """Whoever lies: the sums are those of the survivors, and all verifies."""
    done = engine.start(plan(rounds=2, spare=2, epsilon=9.0), known())
    assert done.model.digest() == model_of(done.plan, done.survivors)
    verified(done)
    return done


def failures(done: Outcome) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = done.report["failures"]
    return found


def test_shares_that_do_not_fit_together_name_their_dealer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    share = shamir.share

    def off_the_line(secret: int, bits: Sequence[int], xs: Sequence[int]) -> list[int]:
        out = share(secret, bits, xs)
        return [out[0] + 1, *out[1:]] if lies() else out

    monkeypatch.setattr(shamir, "share", off_the_line)
    done = run(engine)
    assert [f["culprit"] for f in failures(done)] == [LIAR]
    assert done.survivors == {index: list(NAMES[:3]) for index in range(2)}


@SELDOM_FAR
def test_boxes_that_nobody_can_open_name_their_dealer(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = crypto.seal

    def spoiled(plain: bytes, to: bytes, *, info: list[Any]) -> bytes:
        box = seal(plain, to, info=info)
        return box[:-1] + bytes([box[-1] ^ 1]) if lies() else box

    monkeypatch.setattr(crypto, "seal", spoiled)
    done = run(engine)
    # One attempt is lost: all three honest members refused the liar's boxes.
    assert len(failures(done)) == 1
    assert f"{LIAR}: its sealed shares do not open" in failures(done)[0]["reason"]
    assert done.survivors == {index: list(NAMES[:3]) for index in range(2)}


@SELDOM_FAR
def test_one_accuser_does_not_get_a_member_thrown_out(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    seal = crypto.seal
    spoilt: list[int] = []

    def once(plain: bytes, to: bytes, *, info: list[Any]) -> bytes:
        box = seal(plain, to, info=info)
        if lies() and not spoilt:
            spoilt.append(1)
            return box[:-1] + bytes([box[-1] ^ 1])
        return box

    monkeypatch.setattr(crypto, "seal", once)
    done = run(engine)
    # The reader of the one bad box left that attempt; the next round has everyone.
    assert not failures(done)
    assert done.survivors[0] == list(NAMES[1:])
    assert done.survivors[1] == list(NAMES)
