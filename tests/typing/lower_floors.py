# SPDX-License-Identifier: Apache-2.0
"""Misuse that must not type-check.  Each line names the error it must get."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from secure_fl import wire
from secure_fl.errors import BudgetExceeded, TooFewClients, UsageError
from secure_fl.fixedpoint import Encoding, pack
from secure_fl.identity import Identity, Member, Roster
from secure_fl.keystore import DiskKeystore, Keystore
from secure_fl.model import GlobalModel
from secure_fl.randomness import ArrayDraws, RandomSource, SystemRandom
from secure_fl.transcript import Transcript


def no_floats_on_the_wire() -> None:
    wire.encode(1.0)  # E: arg-type
    wire.encode({0: 0.5})  # E: dict-item
    wire.encode([1, None])  # E: list-item
    wire.encode({"key": 1})  # E: dict-item
    wire.digest(b"label", 1)  # E: arg-type


def hints_are_keywords() -> None:
    UsageError("message", "hint")  # E: call-arg
    TooFewClients(2)  # E: call-arg
    BudgetExceeded("bank-a", 1.0, 2.0, 3.0, 1e-5)  # E: call-arg


class NotRandom:
    def bytes(self, size: int) -> bytes:
        return bytes(size)


def randomness_is_an_argument(generator: np.random.Generator) -> None:
    Identity.new("bank-a")  # E: call-arg
    Identity.new("bank-a", random=NotRandom())  # E: arg-type
    Identity.new("bank-a", random=generator)  # E: arg-type
    source: RandomSource = SystemRandom()
    source.secure = True  # E: misc
    source.arrays()  # E: call-arg


class Repeated(ArrayDraws):  # E: misc
    pass


def rosters_are_frozen(roster: Roster, member: Member, encoding: Encoding) -> None:
    roster.members = ()  # E: misc
    member.public_key = b""  # E: misc
    encoding.step = 0.5  # E: misc
    Roster([member])  # E: arg-type


def words_are_unsigned(
    encoding: Encoding, real: NDArray[np.float64], signed: NDArray[np.int64]
) -> None:
    pack(signed, 32)  # E: arg-type
    encoding.encode(signed, real)  # E: arg-type
    encoding.decode(real)  # E: arg-type
    encoding.wrap(real)  # E: arg-type
    encoding.encode(np.zeros(3), np.zeros(3), 2)  # E: call-arg


def a_model_is_read_only(model: GlobalModel) -> None:
    model.arrays["w"] = np.zeros(3, np.float32)  # E: index
    model.arrays = {}  # E: misc


def the_log_knows_its_kinds(log: Transcript, store: Keystore) -> None:
    log.append("gossip", {})  # E: arg-type
    store.begin("ctx")  # E: arg-type
    store.peek(b"ctx")  # E: attr-defined
    DiskKeystore("path", key_path="key")  # E: call-arg arg-type arg-type
